//! Watched steps: what restarts their code, what does not, and how it is stopped.

use super::shell::say;
use super::test_box::{Running, TestBox, a_box, after, script};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use windlass::wire::{EndReason, Note, POD_IP_FILE, PlanStep, Record, SOURCE_DIR, StepWork, WatchWork};

fn watch(code: &str, ignore: &[&str]) -> PlanStep {
    let ignore = ignore.iter().map(ToString::to_string).collect();
    let work = WatchWork { code: code.into(), reload: true, ignore, ports: Vec::new() };
    PlanStep { work: StepWork::Watch(work), ..script("serve", "") }
}

/// Code that says that it began, and runs.
const SERVE: &str = "echo on; exec sleep 1000";

/// The source with which a box begins.
fn source(test: &TestBox, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = test.path("disk").join(SOURCE_DIR).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn in_source(running: &Running, path: &str) -> PathBuf {
    running.path("box/pipeline/source").join(path)
}

fn stdout(running: &Running) -> String {
    fs::read_to_string(running.path("stdout")).unwrap()
}

/// Waits until the code has begun so many times.
fn starts(running: &mut Running, times: usize) {
    running.wait_for(&format!("start {times}"), |running| {
        let began = stdout(running).matches("\non\n").count();
        assert!(began <= times, "{}", stdout(running));
        (began == times).then_some(())
    });
}

/// Waits until a file was named as changed, and the code has begun so many times.
fn restarted(running: &mut Running, file: &str, times: usize) {
    running.wait_for_stdout(&format!(": {file} changed; starts again\n"));
    starts(running, times);
}

/// Something done to the source.
type Change = fn(&dyn Fn(&str) -> PathBuf);

#[test]
fn what_people_and_their_editors_do_to_files_restarts_the_code_once() {
    let test = a_box(&[script("install", "echo once"), watch(SERVE, &["*.tmp"])]);
    source(
        &test,
        &[
            ("main.c", "1"),
            ("lib/util.c", "1"),
            (".gitignore", "*.log\n/build/\n"),
            ("build/x", "1"),
            (".git/HEAD", "1"),
        ],
    );
    let elsewhere = tempfile::tempdir_in(test.path("box")).unwrap().keep();
    fs::create_dir(elsewhere.join("other")).unwrap();
    let mut running = test.start();
    starts(&mut running, 1);
    running.wait_for_stdout("change (3 in 2 directories)\n");
    // What changes, and the file that is named; before it come changes that do not count.
    let changes: [(Change, &str); 14] = [
        (|at| fs::write(at("new.c"), "1").unwrap(), "new.c"),
        (|at| fs::write(at("lib/util.c"), "2").unwrap(), "lib/util.c"),
        (
            |at| {
                fs::write(at("main.c.tmp"), "2").unwrap();
                fs::rename(at("main.c.tmp"), at("main.c")).unwrap();
            },
            "main.c",
        ),
        (
            |at| {
                // As vim does.
                fs::write(at(".main.c.swp"), "x").unwrap();
                fs::write(at("4913"), "").unwrap();
                fs::remove_file(at("4913")).unwrap();
                fs::rename(at("main.c"), at("main.c~")).unwrap();
                fs::write(at("main.c"), "3").unwrap();
                fs::remove_file(at("main.c~")).unwrap();
                fs::remove_file(at(".main.c.swp")).unwrap();
            },
            "main.c",
        ),
        (|at| fs::remove_file(at("new.c")).unwrap(), "new.c"),
        (|at| symlink("main.c", at("link.c")).unwrap(), "link.c"),
        (|at| fs::hard_link(at("main.c"), at("hard.c")).unwrap(), "hard.c"),
        (
            |at| {
                fs::create_dir_all(at("a/b/c")).unwrap();
                fs::write(at("a/b/c/deep.c"), "1").unwrap();
            },
            "a",
        ),
        (|at| fs::write(at("a/b/c/deep.c"), "2").unwrap(), "a/b/c/deep.c"),
        (|at| fs::rename(at("a"), at("z")).unwrap(), "a"),
        (|at| fs::write(at("z/b/c/deep.c"), "3").unwrap(), "z/b/c/deep.c"),
        (
            |at| {
                // An ignored directory, an ignored file, git's own, and files in a new ignored directory.
                fs::write(at("build/y"), "1").unwrap();
                fs::write(at("lib/a.log"), "1").unwrap();
                fs::write(at(".git/index"), "1").unwrap();
                fs::write(at("lib/util.c"), "4").unwrap();
            },
            "lib/util.c",
        ),
        (|at| fs::write(at(".gitignore"), "/build/\n*.gen\n").unwrap(), ".gitignore"),
        (
            |at| {
                fs::write(at("x.gen"), "1").unwrap();
                fs::write(at("now.log"), "1").unwrap();
            },
            "now.log",
        ),
    ];
    let mut times = 1;
    for (change, named) in changes {
        change(&|path| in_source(&running, path));
        times += 1;
        restarted(&mut running, named, times);
    }
    // A directory that left counts no more, and one that came does.
    fs::rename(in_source(&running, "z"), elsewhere.join("gone")).unwrap();
    restarted(&mut running, "z", times + 1);
    fs::write(elsewhere.join("gone/b/c/deep.c"), "4").unwrap();
    fs::rename(elsewhere.join("other"), in_source(&running, "came")).unwrap();
    restarted(&mut running, "came", times + 2);
    fs::write(in_source(&running, "came/x.c"), "1").unwrap();
    restarted(&mut running, "came/x.c", times + 3);
    running.cancel();
    let ran = running.end();
    assert_eq!(ran.stdout.matches("changed; starts again").count(), times + 2, "{}", ran.stdout);
    assert_eq!(ran.log("install"), "once\n", "earlier steps run once");
    let started = ran.records.iter().filter(|record| matches!(record, Record::Started { step: 1, .. })).count();
    assert_eq!(started, 1, "the journal is not filled by restarts");
}

#[test]
fn a_burst_restarts_once_and_the_code_sees_its_last_write() {
    let test = a_box(&[watch("echo on; echo \"it is $(cat value)\"; exec sleep 1000", &[])]);
    source(&test, &[("value", "0")]);
    let mut running = test.start();
    starts(&mut running, 1);
    for value in 1..=200 {
        fs::write(in_source(&running, "value"), value.to_string()).unwrap();
        fs::write(in_source(&running, &format!("f{value}")), "").unwrap();
    }
    running.wait_for_stdout("it is 200\n");
    starts(&mut running, 2);
    running.cancel();
    assert_eq!(running.end().ends(), [(EndReason::Cancelled, Some(143))]);
}

#[test]
fn the_whole_session_is_stopped_before_the_code_starts_again() {
    // Two processes of it do not listen; they would hold its port.
    let stubborn = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > ../pid; while :; do sleep 0.1; done' &
        if [ -e ../old ] && kill -0 \"$(cat ../old)\" 2>/dev/null; then echo alive; fi
        while [ ! -s ../pid ]; do sleep 0.01; done; mv ../pid ../old; echo on; while :; do sleep 0.1; done";
    let mut test = a_box(&[watch(stubborn, &[])]);
    test.grace_ms = 200;
    let mut running = test.start();
    starts(&mut running, 1);
    fs::write(in_source(&running, "x"), "").unwrap();
    starts(&mut running, 2);
    running.cancel();
    let ran = running.end();
    assert!(!ran.stdout.contains("alive"), "{}", ran.stdout);
    assert_eq!(ran.ends(), [(EndReason::Cancelled, Some(137))]);
    // One that listens is not killed, and has the time it needs.
    let graceful = "trap 'sleep 0.3; echo bye; exit 0' TERM; echo on; while :; do sleep 0.05; done";
    let mut running = a_box(&[watch(graceful, &[])]).start();
    starts(&mut running, 1);
    fs::write(in_source(&running, "x"), "").unwrap();
    starts(&mut running, 2);
    assert!(stdout(&running).contains("bye\n> watch"), "{}", stdout(&running));
    running.cancel();
    running.end();
}

#[test]
fn code_that_ends_waits_for_a_change_and_what_it_left_running_goes_then() {
    // What `timeout` runs is in a group of its own.
    let code = "echo on; timeout 1000 sleep 1000 & echo $! >> ../pids; test -e fixed || exit 3";
    let mut running = a_box(&[watch(code, &[]), script("never", "true"), after("x", "true")]).start();
    running.wait_for_stdout("1/2 serve: exit code 3; waits for the next change\n");
    fs::write(in_source(&running, "fixed"), "").unwrap();
    running.wait_for_stdout("1/2 serve: exit code 0; waits for the next change\n");
    let pids = fs::read_to_string(in_source(&running, "../pids")).unwrap();
    let alive: Vec<bool> = pids.lines().map(|pid| PathBuf::from(format!("/proc/{pid}/stat")).exists()).collect();
    assert_eq!(alive, [false, true], "what the last start left still runs");
    running.cancel();
    let ran = running.end();
    ran.failed("Cancelled", None, "cancelled (Graceful) at step serve");
    assert_eq!(ran.ends()[0].0, EndReason::Cancelled);
    for pid in pids.lines() {
        assert!(!PathBuf::from(format!("/proc/{pid}/stat")).exists(), "nobody is left");
    }
}

#[test]
fn the_number_of_a_session_that_is_gone_is_nobodys_when_files_change() {
    // Who is no part of the watched code comes to have the number of its session, once what it left has ended.
    let keeper = r#"echo 'trap "touch ../told" TERM; echo $$ > ../person; while :; do sleep 0.1; done' > ../person.sh
        setsid sh -c '
            until test -e ../stop; do sleep 0.05; done
            while kill -0 "$(cat ../left)" 2> ../gone; do sleep 0.05; done
            sleep 0.2
            echo $(($(cat ../session) - 1)) > /proc/sys/kernel/ns_last_pid
            setsid sh ../person.sh &
            wait' &"#;
    let code = "echo on; if test -e ../stop; then exec sleep 1000; fi; echo $$ > ../session
        (until test -e ../stop; do sleep 0.05; done) & echo $! > ../left; exit 3";
    let mut test = a_box(&[script("keep", keeper), watch(code, &[])]);
    test.grace_ms = 200;
    // In numbers of its own, the next one can be chosen.
    let own = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut running = test.start_by(&own);
    running.wait_for_stdout("2/2 serve: exit code 3; waits for the next change\n");
    fs::write(in_source(&running, "../stop"), "").unwrap();
    let read = |running: &Running, path| fs::read_to_string(in_source(running, path)).unwrap_or_default();
    let person =
        running.wait_for("person", |running| Some(read(running, "../person")).filter(|number| number.ends_with('\n')));
    assert_eq!(person, read(&running, "../session"), "the number is not taken again");
    fs::write(in_source(&running, "x"), "").unwrap();
    restarted(&mut running, "x", 2);
    assert!(!in_source(&running, "../told").exists(), "somebody else was told to end");
    running.cancel();
    running.end();
}

#[test]
fn without_reload_it_runs_once_and_its_end_is_the_steps() {
    let step = |code: &str| {
        let work = WatchWork { code: code.into(), ports: vec![5000, 80], ..WatchWork::default() };
        PlanStep { work: StepWork::Watch(work), no_output_timeout_s: None, ..script("serve", "") }
    };
    let test = a_box(&[step("touch x; export A=1; echo on"), script("next", "test $A = 1")]).with(|plan| {
        plan.run.namespace = "team".into();
        plan.run.pod = "dev-1-1".into();
    });
    fs::write(test.path("in").join(POD_IP_FILE), "10.1.2.3").unwrap();
    let ran = test.run();
    ran.passed();
    assert_eq!(ran.log("serve"), "on\n");
    let line = "1/2 serve: reachable at 10.1.2.3:5000, 10.1.2.3:80; from your machine: \
        kubectl -n team port-forward pod/dev-1-1 5000 80\n";
    assert!(ran.stdout.contains(line), "{}", ran.stdout);
    let ran = a_box(&[step("exit 3"), script("never", "true")]).run();
    ran.failed("StepFailed", Some(0), "step serve (1 of 2) failed with exit code 3");
}

#[test]
fn a_person_finishes_it_and_the_run_goes_on() {
    let work = WatchWork { code: SERVE.into(), ..WatchWork::default() };
    let endless = PlanStep { work: StepWork::Watch(work), ..script("once", "") };
    let mut running = a_box(&[watch(SERVE, &[]), endless, script("next", "echo next")]).start();
    for (step, times) in [("serve", 1), ("once", 2)] {
        starts(&mut running, times);
        let (code, said) = say(&running, &["finish"]);
        assert_eq!((code, said.trim()), (Some(0), format!("step {step} is finished").as_str()));
    }
    let ran = running.end();
    ran.passed();
    assert_eq!(ran.ends(), [(EndReason::ExitCode, Some(0)); 3]);
}

#[test]
fn its_time_is_what_is_left_of_the_run_unless_it_has_its_own() {
    let own = PlanStep { timeout_s: Some(1), ..watch(SERVE, &[]) };
    let ran = a_box(&[own]).run();
    ran.failed("StepTimedOut", Some(0), "step serve ran longer than 1s; raise its timeout");
    let ran = a_box(&[watch(SERVE, &[])])
        .with(|plan| (plan.deadline_ms, plan.timeout_s) = (super::epoch_ms() + 1500, 2))
        .run();
    ran.failed("RunTimedOut", Some(0), "the run took longer than 2s; step serve was running");
}

/// The note of a run's only step.
fn note(running: &Running) -> Option<String> {
    running.records().into_iter().find_map(|record| match record {
        Record::Noted { step: 0, note: Note::WatchLimit, message, .. } => Some(message),
        _ => None,
    })
}

#[test]
fn at_a_limit_of_the_kernel_it_says_which_and_looks_itself() {
    // A user namespace has limits of its own; the runner's mailbox takes one watch and one instance.
    for (limit, value, says) in [
        ("max_inotify_watches", 4, "the kernel watches no more directories: fs.inotify.max_user_watches is "),
        ("max_inotify_instances", 1, "the kernel makes no more watchers: fs.inotify.max_user_instances is "),
    ] {
        let test = a_box(&[watch(SERVE, &["*.log"])]);
        source(&test, &[("a/b/c/d/e/f.c", "1"), ("main.c", "1")]);
        let lower = format!("echo {value} > /proc/sys/user/{limit} && exec \"$@\"");
        let mut running = test.start_by(&["unshare", "--user", "--map-root-user", "sh", "-c", &lower, "sh"]);
        starts(&mut running, 1);
        let note = note(&running).unwrap_or_else(|| panic!("no note\n{}", stdout(&running)));
        assert!(note.starts_with(says), "{note}");
        assert!(note.ends_with("changes are looked for every second, in large trees less often"), "{note}");
        fs::write(in_source(&running, "a/x.log"), "1").unwrap();
        fs::write(in_source(&running, "a/b/c/d/e/f.c"), "22").unwrap();
        restarted(&mut running, "a/b/c/d/e/f.c", 2);
        fs::remove_file(in_source(&running, "main.c")).unwrap();
        restarted(&mut running, "main.c", 3);
        running.cancel();
        let ran = running.end();
        assert_eq!(ran.ends(), [(EndReason::Cancelled, Some(143))]);
    }
}

#[test]
fn a_limit_that_is_reached_later_is_noted_then() {
    let test = a_box(&[watch(SERVE, &[])]);
    let lower = "echo 4 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
    let mut running = test.start_by(&["unshare", "--user", "--map-root-user", "sh", "-c", lower, "sh"]);
    starts(&mut running, 1);
    assert_eq!(note(&running), None);
    // It comes whole, so that nothing of it is made after the first look.
    fs::create_dir_all(running.path("box/a/b/c/d/e")).unwrap();
    fs::rename(running.path("box/a"), in_source(&running, "a")).unwrap();
    starts(&mut running, 2);
    assert!(note(&running).is_some(), "{}", stdout(&running));
    fs::write(in_source(&running, "a/b/c/d/e/f.c"), "1").unwrap();
    restarted(&mut running, "a/b/c/d/e/f.c", 3);
    running.cancel();
    running.end();
}

#[test]
fn a_source_that_is_taken_away_is_looked_for_until_it_is_back() {
    let mut running = a_box(&[watch("echo on; exec sleep 1000", &[])]).start();
    starts(&mut running, 1);
    fs::rename(in_source(&running, ""), in_source(&running, "../aside")).unwrap();
    running.wait_for_stdout("/box/pipeline/source: no such directory; waits for the next change");
    assert!(note(&running).unwrap().starts_with("the source directory was moved or removed; "));
    fs::create_dir(in_source(&running, "")).unwrap();
    starts(&mut running, 2);
    fs::write(in_source(&running, "x.c"), "1").unwrap();
    restarted(&mut running, "x.c", 3);
    running.cancel();
    running.end();
}

#[test]
fn code_that_writes_into_the_source_is_slowed_and_told_what_to_do() {
    let mut running = a_box(&[watch("echo on; date +%N > state; exec sleep 1000", &[])]).start();
    running.wait_for_stdout(": state changed soon after the start, again and again; starts less often. ");
    let before = stdout(&running).matches("\non\n").count();
    assert!(before < 12, "{before}");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(stdout(&running).matches("\non\n").count() <= before + 1, "{}", stdout(&running));
    running.cancel();
    running.end();
}
