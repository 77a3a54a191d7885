//! Terminals and verbs of the real runner: a pty of the test is the connection of a person.

use super::test_box::{RUNNER, Running, a_box, after, agent, script, variable};
use crate::terminal::Person;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use windlass::archive::{
    Entry, Kind, Writer,
    sync::{self, Change},
};
use windlass::wire::{
    Answer, Breakpoints, EndReason, PlanStep, Record, ShellWork, StepWork, VERSION, Wait, answer_file,
};

const EXIT: EndReason = EndReason::ExitCode;

fn shell(name: &str) -> PlanStep {
    shell_with(name, &[], "")
}

fn shell_with(name: &str, cmd: &[&str], code: &str) -> PlanStep {
    let cmd = cmd.iter().map(|word| (*word).to_owned()).collect();
    let code = Some(code.to_owned()).filter(|code| !code.is_empty());
    PlanStep { work: StepWork::Shell(ShellWork { cmd, code }), ..script(name, "") }
}

fn breakpoints(at_failure: bool, before: &[&str], timeout_s: u64) -> Breakpoints {
    Breakpoints { at_failure, before: before.iter().map(|name| (*name).to_owned()).collect(), timeout_s }
}

fn waits(running: &mut Running, at: usize, why: Wait) {
    running.wait_for("wait", |running| {
        let waits =
            |record: &Record| matches!(record, Record::Waiting { step, why: w, .. } if (*step, *w) == (at, why));
        running.records().last().is_some_and(waits).then_some(())
    });
}

/// The runner as it is exec'd into the box.
fn exec(running: &Running, words: &[&str]) -> Command {
    let mut command = Command::new(RUNNER);
    command.arg("--out").arg(running.path("out")).args(words);
    // Of the process that execs, not of a step.
    command.env("VERSION", "wrong").env_remove("HOME");
    command
}

/// What a verb of the runner answers, and its exit code.
pub(super) fn say(running: &Running, words: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = exec(running, words).stdin(Stdio::null()).output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

/// Where a file of the source is in the box.
fn source(running: &Running, path: &str) -> PathBuf {
    running.path("box/pipeline/source").join(path)
}

/// The sockets of terminals.
fn sockets(out: &Path) -> Vec<String> {
    let names = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("terminal-")).collect()
}

fn attach(running: &Running) -> Person {
    Person::starts(&exec(running, &["shell"]))
}

#[test]
fn a_shell_has_the_steps_environment_and_leaving_it_goes_on() {
    let steps = [
        script("build", "export VERSION=1.4; mkdir sub; echo built"),
        PlanStep { cwd: Some("sub".into()), env: vec![variable("OWN", "yes")], ..shell("look") },
        script("next", "test -f sub/made; test \"${LEFT-none}\" = none; echo went on"),
        after("tell", "echo $WERCKER_RESULT"),
    ];
    let mut running = a_box(&steps).with(|plan| plan.env = vec![variable("STAGE", "test")]).start();
    waits(&mut running, 1, Wait::Shell);
    let mut person = attach(&running);
    person.sees("hello-7, step look: ");
    person.sees("exit or Ctrl-D ends the step and the run goes on");
    person.prompts();
    person.types("echo \"it is $STAGE $VERSION $OWN $WERCKER_STEP_NAME $(basename $PWD)\"; touch made\n");
    person.sees("\nit is test 1.4 yes look sub");
    person.sees("ready> ");
    person.has_size("30 90");
    person.resizes(40, 120);
    person.has_size("40 120");
    person.types("export LEFT=1; (exit 3)\n");
    person.sees("ready> ");
    person.types("\u{4}");
    assert_eq!(person.leaves(), Some(0));
    let ran = running.end();
    ran.passed();
    assert_eq!(ran.ends(), [(EXIT, Some(0)); 4], "the code that a shell is left with says nothing");
    assert_eq!(ran.log("next"), "went on\n", "what was exported in it is gone");
    assert_eq!(ran.log("look"), "a terminal was opened\nthe shell was left with exit code 3\n");
    assert!(ran.stdout.contains("2/3 look: attach with: windlass shell hello-7"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("it is test"), "what was printed in it is not logged");
    assert!(sockets(&ran.dir.path().join("out")).is_empty(), "nothing stays to attach to");
}

#[test]
fn ctrl_c_ends_the_program_inside_and_not_the_shell() {
    let mut running = a_box(&[shell("look")]).start();
    waits(&mut running, 0, Wait::Shell);
    let mut person = attach(&running);
    person.prompts();
    person.types("sleep 1000; echo code $?\n");
    std::thread::sleep(Duration::from_millis(300));
    person.types("\u{3}");
    person.sees("ready> ");
    person.types("echo still $((40+2))\n");
    person.sees("\nstill 42");
    person.types("exit\n");
    assert_eq!(person.leaves(), Some(0));
    running.end().passed();
}

#[test]
fn a_lost_connection_ends_nothing_and_the_next_finds_the_shell_as_it_was() {
    let mut running = a_box(&[shell("look"), script("next", "true")]).start();
    waits(&mut running, 0, Wait::Shell);
    let mut person = attach(&running);
    person.prompts();
    person.types("KEPT=42\n");
    person.sees("ready> ");
    person.types("i=0; while sleep 0.01; do i=$((i+1)); echo $i >> ticks; done &\n");
    person.sees("ready> ");
    person.loses_the_connection();
    std::thread::sleep(Duration::from_millis(200));
    waits(&mut running, 0, Wait::Shell);
    let mut person = attach(&running);
    person.types("echo kept $KEPT; test -s ticks && echo ticked\n");
    person.sees("\nkept 42");
    person.sees("\nticked");
    // A second one sees the same, and both are let go.
    let mut other = attach(&running);
    other.types("echo both $((1+1)); kill %1\n");
    person.sees("\nboth 2");
    other.sees("\nboth 2");
    person.types("exit\n");
    assert_eq!((person.leaves(), other.leaves()), (Some(0), Some(0)));
    running.end().passed();
}

#[test]
fn code_runs_first_and_any_command_may_be_the_shell() {
    let code = "cd /tmp\nGREETING=\"it's\nhere\"\necho \"code ran: $GREETING\"";
    for cmd in [&["bash", "--norc"][..], &["dash"], &["sh", "-i"], &[]] {
        let mut running = a_box(&[shell_with("look", cmd, code)]).start();
        waits(&mut running, 0, Wait::Shell);
        let mut person = attach(&running);
        person.sees("\ncode ran: it's\r\nhere");
        person.types("pwd; echo ${#GREETING}; exit 5\n");
        // The prompt may stand before it: the terminal echoes what is typed before the shell reads it.
        person.sees("/tmp\r\n9\r\n");
        assert_eq!(person.leaves(), Some(0));
        running.end().passed();
    }
    let mut running = a_box(&[shell_with("calc", &["cat", "-n"], "")]).start();
    waits(&mut running, 0, Wait::Shell);
    let mut person = attach(&running);
    person.types("hello\n");
    person.sees("1\thello");
    person.types("\u{4}");
    assert_eq!(person.leaves(), Some(0));
    running.end().passed();
    let ran = a_box(&[shell_with("look", &["no-such-shell"], "")]).run();
    ran.failed("StepFailed", Some(0), "step look (1 of 1) could not start: no-such-shell: not found in the box");
}

#[test]
fn a_shell_that_prints_much_reaches_all_who_read() {
    let mut running = a_box(&[shell("look")]).start();
    waits(&mut running, 0, Wait::Shell);
    let mut person = attach(&running);
    person.prompts();
    // Attached, and never reads: after a while it is let go.
    let silent = attach(&running);
    person.types("seq 1 200000; echo do''ne\n");
    person.sees("\n199999\r\n200000\r\ndone");
    person.types("exit\n");
    assert_eq!(person.leaves(), Some(0));
    silent.loses_the_connection();
    running.end().passed();
}

#[test]
fn a_program_that_never_stops_printing_holds_nobody_up() {
    let mut running = a_box(&[shell("look")]).start();
    waits(&mut running, 0, Wait::Shell);
    let mut person = attach(&running);
    person.prompts();
    person.types("yes\n");
    person.sees("y\r\ny\r\n");
    person.loses_the_connection();
    let mut person = attach(&running);
    person.sees("y\r\ny\r\n");
    person.types("\u{3}");
    person.sees("ready> ");
    let signals = say(&running, &["shell", "--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]).1;
    assert!(signals.contains("SigBlk:\t0000000000000000"), "{signals}");
    // A shell that lets go of its terminal is no shell that ended.
    person.types("exec <&- >&- 2>&-; sleep 1000\n");
    std::thread::sleep(std::time::Duration::from_millis(200));
    waits(&mut running, 0, Wait::Shell);
    assert_eq!(say(&running, &["continue"]).0, Some(0));
    running.end().passed();
}

#[test]
fn who_is_told_to_end_a_shell_ends_it() {
    for verb in ["continue", "finish"] {
        let mut running = a_box(&[shell("look"), script("next", "true")]).start();
        waits(&mut running, 0, Wait::Shell);
        let mut person = attach(&running);
        person.prompts();
        assert_eq!(say(&running, &[verb, "other"]).0, Some(1));
        let what = if verb == "finish" { "is finished" } else { "goes on" };
        assert_eq!(say(&running, &[verb]), (Some(0), format!("step look {what}\n")));
        person.sees("the step was ended");
        assert_eq!(person.leaves(), Some(3), "it was not left");
        let ran = running.end();
        ran.passed();
        assert_eq!(ran.ends(), [(EXIT, Some(0)); 2]);
    }
}

#[test]
fn a_shell_ends_with_its_time_and_with_a_cancel() {
    let timed = PlanStep { timeout_s: Some(1), ..shell("look") };
    let mut running = a_box(&[timed]).start();
    waits(&mut running, 0, Wait::Shell);
    let mut person = attach(&running);
    person.types("trap '' HUP; sleep 1000 &\n");
    person.sees("the step was ended");
    running.end().failed("StepTimedOut", Some(0), "step look ran longer than 1s; raise its timeout");
    let mut running = a_box(&[shell("look"), after("x", "true")]).start();
    waits(&mut running, 0, Wait::Shell);
    running.cancel();
    let ran = running.end();
    ran.failed("Cancelled", None, "cancelled (Graceful) at step look");
    assert_eq!(ran.ends()[0].0, EndReason::Cancelled, "nobody left the shell");
}

#[test]
fn what_runs_on_a_terminal_ends_before_its_step_has_ended() {
    let stubborn = "echo $PPID > host; sh -c 'trap \"\" HUP TERM; echo $$ > pid; while :; do sleep 0.1; done' &\n";
    for how in ["finish", "leave", "cancel", "time", "hang"] {
        let look = PlanStep { timeout_s: (how == "time").then_some(2), ..shell("look") };
        let mut test = a_box(&[look, after("x", "if kill -0 $(cat pid); then exit 1; fi")]);
        test.grace_ms = 300;
        let mut running = test.start();
        waits(&mut running, 0, Wait::Shell);
        let person = attach(&running);
        person.types(stubborn);
        let pid = source(&running, "pid");
        running.wait_for("pid", |_| fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n')).then_some(()));
        match how {
            "finish" => assert_eq!(say(&running, &["finish"]).0, Some(0)),
            "leave" => person.types("exit\n"),
            "cancel" => running.cancel(),
            // Who holds the terminal hears no order, and is killed.
            "hang" => {
                let host = fs::read_to_string(source(&running, "host")).unwrap();
                assert!(Command::new("kill").args(["-STOP", host.trim()]).status().unwrap().success());
                running.cancel();
            }
            _ => {}
        }
        let ran = running.end();
        assert_eq!(ran.ends()[1], (EXIT, Some(0)), "{how}: {}", ran.stdout);
    }
}

#[test]
fn a_shell_waits_for_nobody_who_reads_the_output() {
    // What the first step leaves running prints until nobody takes more.
    let steps = [script("a", "yes & echo $! > pid"), shell("look")];
    let mut running = a_box(&steps).start_with_reader();
    waits(&mut running, 1, Wait::Shell);
    let pid = fs::read_to_string(source(&running, "pid")).unwrap();
    let written = || fs::read_to_string(format!("/proc/{}/io", pid.trim())).unwrap();
    let mut before = String::new();
    running.wait_for("full pipe", |_| {
        std::thread::sleep(Duration::from_millis(100));
        let now = written();
        (std::mem::replace(&mut before, now.clone()) == now).then_some(())
    });
    let mut person = attach(&running);
    person.prompts();
    person.types("exit\n");
    assert_eq!(person.leaves(), Some(0));
    running.end_reading().0.passed();
}

#[test]
fn a_large_paste_arrives_whole() {
    let mut running = a_box(&[shell("look")]).start();
    waits(&mut running, 0, Wait::Shell);
    let mut person = attach(&running);
    person.prompts();
    // Before it reads, the program prints more than may wait on the way; then each line comes back twice.
    person.types("echo rea''dy; seq 1 300000; tee pasted; echo do''ne\n");
    person.sees("\nready");
    let text: String = (0..32 * 1024).map(|n| format!("{n:031}\n")).collect();
    assert_eq!(text.len(), 1024 * 1024);
    person.pastes(&format!("{text}\u{4}"));
    person.sees("\ndone");
    assert!(fs::read_to_string(source(&running, "pasted")).unwrap() == text, "something was lost");
    person.types("exit\n");
    assert_eq!(person.leaves(), Some(0));
    running.end().passed();
}

#[test]
fn commands_have_the_steps_environment_and_their_own_exit_code() {
    let steps = [script("a", "mkdir sub; export VERSION=1.4"), PlanStep { cwd: Some("sub".into()), ..shell("look") }];
    let mut running = a_box(&steps).start();
    waits(&mut running, 1, Wait::Shell);
    let (code, said) = say(&running, &["shell", "--", "sh", "-c", "echo $VERSION $HOME; basename $PWD; exit 7"]);
    assert_eq!((code, said.as_str()), (Some(7), "1.4 /root\nsub\n"));
    assert_eq!(say(&running, &["shell", "--", "nosuch"]), (Some(127), "nosuch: not found in the box\n".into()));
    assert_eq!(say(&running, &["shell", "--", "/etc/passwd"]).0, Some(126));
    let (code, said) = say(&running, &["shell"]);
    assert!(code == Some(2) && said.contains("kubectl exec -it"), "{said}");
    assert_eq!(say(&running, &["shell", "--"]).0, Some(2));
    assert_eq!(say(&running, &["shells"]).0, Some(70));
    waits(&mut running, 1, Wait::Shell);
    assert_eq!(say(&running, &["finish"]).0, Some(0));
    running.end().passed();
}

#[test]
fn a_failed_step_is_mended_and_repeated_in_the_same_box() {
    let test =
        PlanStep { env: vec![variable("OWN", "yes")], ..script("test", "export SEEN=1; cat mended && echo fine") };
    let mut running = a_box(&[script("build", "export VERSION=1.4"), test, after("tell", "echo $WERCKER_RESULT")])
        .with(|plan| plan.breakpoints = breakpoints(true, &[], 1800))
        .start();
    waits(&mut running, 1, Wait::Failed);
    running.wait_for_stdout(
        "2/2 test: exit code 1; look with: windlass shell hello-7, then windlass retry hello-7 --step test or windlass continue hello-7",
    );
    let mut person = attach(&running);
    person.sees("at step test, which waits");
    person.prompts();
    person.types("echo \"$VERSION $OWN ${SEEN-none}\"\n");
    person.sees("\n1.4 yes none");
    assert_eq!(say(&running, &["retry", "test"]), (Some(0), "step test is repeated\n".into()));
    running.wait_for("second failure", |running| {
        let count = running.records().iter().filter(|r| matches!(r, Record::Waiting { .. })).count();
        (count == 2).then_some(())
    });
    person.types("echo so be it > mended; exit 9\n");
    assert_eq!(person.leaves(), Some(0));
    waits(&mut running, 1, Wait::Failed);
    assert_eq!(say(&running, &["retry"]).0, Some(0));
    let ran = running.end();
    ran.passed();
    assert!(ran.log("test").ends_with("so be it\nfine\n"), "{}", ran.log("test"));
    assert_eq!(ran.log("tell"), "passed\n");
    let attempts = ran.records.iter().filter_map(|r| match r {
        Record::Started { step: 1, attempt, .. } => Some(*attempt),
        _ => None,
    });
    assert_eq!(attempts.collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_failed_step_that_goes_on_fails_as_it_would_have() {
    let steps =
        [script("test", "export LEFT=1; exit 3"), script("b", "true"), after("tell", "echo $LEFT $WERCKER_RESULT")];
    for seconds in [1, 1800] {
        let mut running = a_box(&steps).with(|plan| plan.breakpoints = breakpoints(true, &[], seconds)).start();
        waits(&mut running, 0, Wait::Failed);
        if seconds > 1 {
            assert_eq!(say(&running, &["continue"]), (Some(0), "step test goes on\n".into()));
        }
        let ran = running.end();
        ran.failed("StepFailed", Some(0), "step test (1 of 2) failed with exit code 3");
        assert_eq!(ran.log("tell"), "1 failed\n");
    }
}

#[test]
fn a_breakpoint_before_a_step_waits_and_goes_on() {
    let mut running = a_box(&[script("a", "touch here"), script("deploy", "echo deployed")])
        .with(|plan| plan.breakpoints = breakpoints(false, &["deploy"], 1800))
        .start();
    waits(&mut running, 1, Wait::Before);
    assert_eq!(say(&running, &["shell", "--", "ls"]), (Some(0), "here\n".into()));
    let (code, said) = say(&running, &["retry"]);
    assert_eq!((code, said.as_str()), (Some(1), "step deploy has not run yet; use continue\n"));
    assert_eq!(say(&running, &["continue", "deploy"]).0, Some(0));
    let ran = running.end();
    ran.passed();
    assert_eq!(ran.log("deploy"), "deployed\n");
    let ran = a_box(&[script("deploy", "echo deployed")])
        .with(|plan| plan.breakpoints = breakpoints(false, &["deploy"], 1))
        .run();
    ran.failed("StepTimedOut", Some(0), "step deploy waited longer than 1s at its breakpoint; raise breakpointTimeout");
    assert!(ran.stdout.contains("] 1/1 deploy: waited longer than 1s at its breakpoint\n"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("> skip"), "{}", ran.stdout);
}

/// As `windlass dev` does it.
#[test]
fn files_of_a_person_are_there_before_the_first_step() {
    let mut running = a_box(&[script("a", "cat dir/file; test -x dir/file; test ! -e gone")])
        .with(|plan| plan.breakpoints = breakpoints(false, &["a"], 1800))
        .start();
    waits(&mut running, 0, Wait::Before);
    let send = |changes: &[Change], content: &str| {
        let mut writer = Writer::new(Vec::new());
        for change in changes {
            let entry = sync::entry(change);
            writer.entry(&entry, false).unwrap();
            if entry.size() > 0 {
                writer.content(content.as_bytes()).unwrap();
            }
        }
        let mut child = exec(&running, &["receive"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It ends by the end of the archive: stdin stays open, as an exec's may.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&writer.finish().unwrap()).unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        drop(stdin);
        (child.wait().unwrap().code(), said)
    };
    let file = |path: &str, content: &str| {
        let kind = Kind::File { size: content.len() as u64, linked: false };
        Change::Is(Entry { path: path.into(), kind, mode: 0o755, uid: 0, gid: 0, mtime: 0 })
    };
    let both = [file("dir/file", "here"), file("gone", "here")];
    assert_eq!(send(&both, "here"), (Some(0), "2 changed, 0 removed\n".into()));
    assert_eq!(send(&[Change::Gone(b"gone".to_vec())], ""), (Some(0), "0 changed, 1 removed\n".into()));
    let (code, said) = send(&[file("../out", "x")], "x");
    assert_eq!((code, said.as_str()), (Some(74), "../out has a path that leads elsewhere\n"));
    assert_eq!(say(&running, &["continue", "a"]).0, Some(0));
    let ran = running.end();
    ran.passed();
    assert_eq!(ran.log("a"), "here");
}

#[test]
fn a_step_of_the_agent_waits_after_its_failure_and_is_not_repeated() {
    let test = a_box(&[agent("push")]).with(|plan| plan.breakpoints = breakpoints(true, &[], 1800));
    let answer = Answer { version: VERSION, passed: false, log: vec![], message: Some("demo may not push".into()) };
    fs::write(test.path("in").join(answer_file(0)), serde_json::to_vec(&answer).unwrap()).unwrap();
    let mut running = test.start();
    waits(&mut running, 0, Wait::Failed);
    assert_eq!(say(&running, &["retry"]).0, Some(1));
    assert_eq!(say(&running, &["continue"]).0, Some(0));
    running.end().failed("StepFailed", Some(0), "step push failed: demo may not push");
}

#[test]
fn a_run_that_waits_for_nobody_can_be_looked_into() {
    let mut running = a_box(&[script("build", "echo on; while ! test -e end; do sleep 0.05; done")]).start();
    running.wait_for_stdout("\non\n");
    let (code, said) = say(&running, &["continue"]);
    assert_eq!((code, said.as_str()), (Some(1), "the run waits for nobody: step build runs\n"));
    let mut person = attach(&running);
    person.sees("at step build, which runs");
    person.prompts();
    person.types("touch end; exit\n");
    assert_eq!(person.leaves(), Some(0));
    let dir = running.path("out");
    running.end().passed();
    let gone = Command::new(RUNNER).arg("--out").arg(dir).arg("continue").output().unwrap();
    assert_eq!((gone.status.code(), gone.stderr), (Some(1), b"no run goes on in this box\n".to_vec()));
}

#[test]
fn a_terminal_beside_a_step_is_that_steps_own() {
    let until = |file: &str| format!("while ! test -e {file}; do sleep 0.05; done");
    let steps = [
        script("a", &format!("export MADE=yes; mkdir sub; echo on a; {}", until("go"))),
        PlanStep { cwd: Some("sub".into()), ..script("b", &format!("echo on b; {}", until("../end"))) },
    ];
    let mut running = a_box(&steps).start();
    running.wait_for_stdout("\non a\n");
    let mut first = attach(&running);
    first.sees("at step a, which runs");
    first.prompts();
    first.types("echo $$ > pid; touch go\n");
    running.wait_for_stdout("\non b\n");
    let mut second = attach(&running);
    second.sees("at step b, which runs");
    second.prompts();
    second.types("echo \"it is ${MADE-none} $WERCKER_STEP_NAME $(basename $PWD)\"\n");
    second.sees("\nit is yes b sub");
    // Who is there already stays; once nobody is, nobody finds the way there any more.
    first.types("echo \"still ${MADE-none} $WERCKER_STEP_NAME\"\n");
    first.sees("\nstill none a");
    assert_eq!(sockets(&running.path("out")), ["terminal-2"]);
    let pid = fs::read_to_string(source(&running, "pid")).unwrap();
    first.loses_the_connection();
    let shell = PathBuf::from("/proc").join(pid.trim());
    running.wait_for("end of the first shell", |_| (!shell.exists()).then_some(()));
    second.types("touch ../end; exit\n");
    assert_eq!(second.leaves(), Some(0));
    let ran = running.end();
    ran.passed();
    assert_eq!((ran.log("a"), ran.log("b")), ("on a\n".into(), "on b\n".into()), "a terminal is not of the step");
    assert!(ran.stdout.contains("1/2 a: a terminal was opened\n"), "{}", ran.stdout);
    assert!(sockets(&ran.dir.path().join("out")).is_empty());
}
