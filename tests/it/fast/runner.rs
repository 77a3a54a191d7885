//! The real runner, in directories of a test, which plays `prepare` and the agent.

mod pack;
mod shell;
mod test_box;
mod watch;

use rstest::rstest;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};
use test_box::{Running, TestBox, a_box, after, agent, epoch_ms, script, shells, variable};
use windlass::wire::{
    Answer, EndReason, JOURNAL_FILE, PlanStep, RECORDED_FILE, Record, Request, SOURCE_DIR, VERSION, Variable,
    answer_file, request_file,
};

const EXIT: EndReason = EndReason::ExitCode;

#[test]
fn a_run_passes_and_says_so_everywhere() {
    let ran = a_box(&[
        script("build", "echo hello; echo oops >&2"),
        script("test", "printf no-newline"),
        after("tell", "echo $WERCKER_RESULT"),
    ])
    .run();
    ran.passed();
    assert_eq!(ran.ends(), [(EXIT, Some(0)), (EXIT, Some(0)), (EXIT, Some(0))]);
    assert_eq!(
        (ran.log("build"), ran.log("test"), ran.log("tell")),
        ("hello\noops\n".into(), "no-newline".into(), "passed\n".into())
    );
    for line in
        ["1/2 build\nhello\noops\n", "2/2 test\nno-newline\n> ok", "after 1/1 tell\npassed\n", "hello-7 succeeded"]
    {
        assert!(ran.stdout.contains(line), "{line:?} in\n{}", ran.stdout);
    }
    let summary = ran.summary();
    assert!(summary.passed && summary.steps.iter().all(|step| step.as_ref().is_some_and(|s| s.code == Some(0))));
    assert!(
        matches!(&ran.records[0], Record::Ready { source_dir, .. } if source_dir.ends_with("/box/pipeline/source"))
    );
}

#[test]
fn exit_codes_are_the_scripts_own_in_every_shell() {
    for (shell, _dir) in shells() {
        for (code, want) in [
            ("exit 3", (EXIT, Some(3))),
            ("(exit 4)", (EXIT, Some(4))),
            ("false; exit 0", (EXIT, Some(1))),
            ("set +e; false; true", (EXIT, Some(0))),
            ("return 5", (EXIT, Some(5))),
            ("no-such-command", (EXIT, Some(127))),
            ("trap 'echo bye' EXIT; exit 6", (EXIT, Some(6))),
            ("trap 'echo bye' EXIT; true", (EXIT, Some(0))),
            ("if then", (EXIT, Some(2))),
            ("kill -9 $$", (EndReason::Signal, Some(137))),
            ("exec sh -c 'exit 8'", (EXIT, Some(8))),
            ("false | true", (EXIT, Some(0))),
            ("set -u; set -x; set -f; IFS=0123456789; export IFS; exit 10", (EXIT, Some(10))),
            ("", (EXIT, Some(0))),
            ("# only a comment", (EXIT, Some(0))),
            ("test $# = 0; read line || exit 11", (EXIT, Some(11))),
        ] {
            let ran = a_box(&[script("s", code)]).with(|plan| plan.shell = Some(shell.clone())).run();
            assert_eq!(ran.ends(), [want], "{shell}: {code}\n{}", ran.stdout);
            assert!(!ran.stdout.contains("__windlass"), "{shell}: {code}\n{}", ran.stdout);
        }
    }
}

/// Values that break shells' quoting.
const HOSTILE: [&str; 9] = [
    "plain",
    "",
    "it's \"quoted\" `tick` $HOME $(id) \\n \\",
    "two\nlines\n\n",
    "tab\tand  spaces ",
    "ünïcödé ✓ 漢字",
    "-n",
    "*?[a]{b,c}~",
    "a=b=c;&|<>!#%^",
];

#[test]
fn exports_of_any_value_reach_later_steps_in_every_shell() {
    for (shell, _dir) in shells() {
        // The values come in as variables, so that no quoting of the test is tested.
        let take: String = (0..HOSTILE.len()).map(|n| format!("export OUT_{n}=\"$IN_{n}\"\n")).collect();
        let check: String =
            (0..HOSTILE.len()).map(|n| format!("test \"$OUT_{n}\" = \"$IN_{n}\" || exit 1{n}\n")).collect();
        for end in ["", "exit 0", "trap 'echo bye' EXIT", "cd /; PATH=/nowhere; umask 777", "set -a; X=1", "set -eu"] {
            let ran = a_box(&[script("take", &format!("{take}{end}")), script("check", &check)])
                .with(|plan| {
                    plan.shell = Some(shell.clone());
                    plan.env = HOSTILE.iter().enumerate().map(|(n, v)| variable(&format!("IN_{n}"), v)).collect();
                })
                .run();
            assert_eq!(ran.ends(), [(EXIT, Some(0)), (EXIT, Some(0))], "{shell} {end}: {}", ran.stdout);
        }
    }
}

#[test]
fn what_a_step_leaves_and_what_it_does_not() {
    let ran = a_box(&[
        PlanStep {
            env: vec![variable("MINE", "step"), variable("BOTH", "step"), variable("KEPT", "a")],
            ..script("one", "export KEPT=b; unset GIVEN; cd /; alias x=y; test $BOTH = step")
        },
        script(
            "two",
            "test \"${MINE-none} $BOTH $KEPT ${GIVEN-none}\" = 'none plan b none'; pwd; export KEPT=c; exit 0",
        ),
        PlanStep { continue_on_failure: true, ..script("three", "export LOST=1; exec true") },
        PlanStep { continue_on_failure: true, ..script("four", "export LOST=1; kill -9 $$") },
        script("five", "test \"${LOST-none} $KEPT\" = 'none c'; test $WERCKER_STEP_NAME = five; export FIVE=1"),
        script("six", "test $FIVE = 1; export FIVE=2; false"),
        after("tell", "echo $FIVE $WERCKER_RESULT $WERCKER_FAILED_STEP_NAME: $WINDLASS_FAILED_STEP_MESSAGE"),
    ])
    .with(|plan| plan.env = vec![variable("BOTH", "plan"), variable("GIVEN", "plan")])
    .run();
    assert_eq!(ran.ends()[5..], [(EXIT, Some(1)), (EXIT, Some(0))], "{}", ran.stdout);
    assert!(ran.log("two").ends_with("/box/pipeline/source\n"));
    assert_eq!(ran.log("tell"), "2 failed six: step six (6 of 6) failed with exit code 1\n");
    assert!(!ran.dir.path().join("out/exports").exists(), "the environment does not stay");
}

#[test]
fn exports_that_cannot_be_kept_fail_the_step() {
    let big = "i=0; while [ $i -lt 11 ]; do export V_$i=$(head -c 100000 /dev/zero | tr '\\0' x); i=$((i+1)); done";
    let ran = a_box(&[script("big", big), script("next", "true")]).run();
    assert_eq!(ran.ends(), [(EXIT, Some(74)), (EndReason::EarlierStepFailed, None)]);
    assert!(ran.log("big").contains("more than 1 MiB"), "{}", ran.log("big"));
}

#[test]
fn a_failure_skips_the_rest_and_after_steps_run() {
    let ran = a_box(&[
        script("a", "true"),
        script("b", "exit 2"),
        script("c", "true"),
        after("x", "exit 1"),
        after("y", "true"),
    ])
    .run();
    ran.failed("StepFailed", Some(1), "step b (2 of 3) failed with exit code 2");
    let skipped = (EndReason::EarlierStepFailed, None);
    assert_eq!(ran.ends(), [(EXIT, Some(0)), (EXIT, Some(2)), skipped, (EXIT, Some(1)), skipped]);
    let summary = ran.summary();
    assert_eq!((summary.passed, summary.reason.as_deref(), summary.failed), (false, Some("StepFailed"), Some(1)));
}

#[test]
fn a_step_that_may_fail_lets_the_run_pass() {
    let ran = a_box(&[PlanStep { continue_on_failure: true, ..script("lint", "exit 9") }, script("b", "true")]).run();
    ran.passed();
    assert_eq!(ran.ends(), [(EXIT, Some(9)), (EXIT, Some(0))]);
}

#[test]
fn retries_begin_afresh_in_the_same_box() {
    let code = "test \"${SEEN-}\" = ''; export SEEN=$(cat n 2>/dev/null); echo x >> n; echo try; test $(wc -l < n) = 3";
    let ran = a_box(&[PlanStep { retries: 3, ..script("flaky", code) }]).run();
    ran.passed();
    let attempts = ran.records.iter().filter(|record| matches!(record, Record::Started { .. })).count();
    assert_eq!(attempts, 3);
    assert_eq!(ran.log("flaky"), "try\ntry\ntry\n");
}

#[test]
fn a_step_that_takes_too_long_dies_with_its_group() {
    let code = "trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & echo $! > pid; echo on; while :; do sleep 0.1; done";
    let mut test = a_box(&[PlanStep { timeout_s: Some(1), ..script("slow", code) }, after("x", "kill -0 $(cat pid)")]);
    test.grace_ms = 200;
    let ran = test.run();
    ran.failed("StepTimedOut", Some(0), "step slow ran longer than 1s; raise its timeout");
    assert_eq!(ran.ends(), [(EndReason::TimedOut, Some(137)), (EXIT, Some(1))], "nobody is left\n{}", ran.stdout);
}

#[test]
fn a_step_that_is_ended_takes_its_whole_session_along() {
    // Jobs of `set -m`, and what `timeout` runs, are in groups of their own.
    let code = "set -m; sleep 1000 & echo $! > pids; set +m
        timeout 1000 sh -c 'echo $$ >> pids; echo on; sleep 1000'";
    let gone = "for pid in $(cat pids); do if kill -0 $pid; then exit 1; fi; done";
    let mut running = a_box(&[script("test", code), after("x", gone)]).start();
    running.wait_for_stdout("\non\n");
    running.cancel();
    let ran = running.end();
    assert_eq!(ran.ends(), [(EndReason::Cancelled, Some(143)), (EXIT, Some(0))], "{}", ran.stdout);
}

#[test]
fn a_silent_step_ends() {
    let step = PlanStep { no_output_timeout_s: Some(2), ..script("quiet", "echo 1; sleep 1000") };
    let ran = a_box(&[step]).run();
    ran.failed("NoOutput", Some(0), "step quiet printed nothing for 2s; raise noOutputTimeout");
    assert!(ran.log("quiet").starts_with("1\n"));
    assert_eq!(ran.ends(), [(EndReason::NoOutput, Some(143))]);
}

#[test]
fn the_runs_time_ends_the_step_and_after_steps_run() {
    let ran = a_box(&[script("a", "sleep 1000"), script("b", "true"), after("x", "echo $WERCKER_RESULT")])
        .with(|plan| (plan.deadline_ms, plan.timeout_s) = (epoch_ms() + 2000, 2))
        .run();
    ran.failed("RunTimedOut", Some(0), "the run took longer than 2s; step a was running");
    let cancelled = EndReason::Cancelled;
    assert_eq!(ran.ends(), [(cancelled, Some(143)), (cancelled, None), (EXIT, Some(0))]);
    assert_eq!(ran.log("x"), "failed\n");
}

#[test]
fn cancel_ends_the_step_and_after_steps_run() {
    let steps = [script("test", "echo on; sleep 1000"), script("b", "true"), after("x", "echo $WERCKER_RESULT")];
    let mut running = a_box(&steps).start();
    running.wait_for_stdout("\non\n");
    running.cancel();
    let ran = running.end();
    ran.failed("Cancelled", None, "cancelled (Graceful) at step test");
    let cancelled = EndReason::Cancelled;
    assert_eq!(ran.ends(), [(cancelled, Some(143)), (cancelled, None), (EXIT, Some(0))]);
    assert_eq!(ran.log("x"), "failed\n");
}

#[test]
fn a_term_ends_the_box_without_after_steps() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let mut running = a_box(&[
            script("test", "trap 'echo got it; exit 7' TERM; echo on; while :; do sleep 0.1; done"),
            after("x", "true"),
        ])
        .start();
        running.wait_for_stdout("\non\n");
        running.signal(signal);
        let ran = running.end();
        assert_eq!(ran.code, code, "{}", ran.stdout);
        assert!(ran.log("test").contains("got it"));
        assert_eq!(ran.ends(), [(EndReason::Cancelled, Some(7))]);
        assert!(!matches!(ran.records.last(), Some(Record::Finished { .. })), "the run has no end of its own");
    }
}

#[test]
fn a_term_kills_who_does_not_listen() {
    let mut test = a_box(&[script("test", "trap '' TERM; echo on; while :; do sleep 0.1; done")]);
    test.grace_ms = 100;
    let mut running = test.start();
    running.wait_for_stdout("\non\n");
    running.signal("-TERM");
    let ran = running.end();
    assert_eq!((ran.code, ran.ends()), (143, vec![(EndReason::Cancelled, Some(137))]));
}

#[test]
fn what_a_step_leaves_running_serves_the_next() {
    let server = "mkfifo ask done; (while read line < ask; do echo served $line; echo > done; done) & echo started";
    let ran =
        a_box(&[script("serve", server), script("use", "echo me > ask; read line < done"), script("end", "true")])
            .run();
    ran.passed();
    assert_eq!((ran.log("serve"), ran.log("use")), ("started\n".into(), "served me\n".into()));
}

#[test]
fn a_step_ends_though_others_go_on_printing() {
    let ran =
        a_box(&[script("noise", "while :; do echo noise; done & echo $! > pid"), script("end", "kill -9 $(cat pid)")])
            .run();
    ran.passed();
}

#[test]
fn all_that_a_step_printed_is_in_its_log() {
    let ran = a_box(&[script("many", "seq 1 200000"), script("next", "echo next")]).run();
    let want: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(ran.log("many") == want && ran.log("next") == "next\n");
    assert!(ran.stdout.contains(&want));
}

#[test]
fn secrets_are_masked_wherever_writes_are_cut() {
    let secret = "s3cr3t-t0ken";
    let code = "i=1; while [ $i -lt 12 ]; do printf %s \"$TOKEN\" | cut -c1-$i | tr -d '\\n'
        printf '%s\\n' \"$TOKEN\" | cut -c$((i+1))-; i=$((i+1)); done
        printf %s \"user:$TOKEN\" | base64; printf '%s\\n' \"$KEY\"; printf s3cr";
    let ran = a_box(&[script("leak", code), script("next", "echo ${TOKEN}t")])
        .with(|plan| {
            plan.env = vec![
                Variable { secret: true, ..variable("TOKEN", secret) },
                Variable { secret: true, ..variable("KEY", "-----BEGIN\nabcdefgh\n-----END") },
            ];
        })
        .run();
    ran.passed();
    let log = ran.log("leak");
    for text in [&log, &ran.stdout] {
        assert!(!text.contains(secret) && !text.contains("abcdefgh") && !text.contains("czNjcj"), "{text}");
    }
    assert!(log.starts_with(&"***\n".repeat(11)), "{log}");
    assert!(log.ends_with("dXNlcjp***4=\n***\ns3cr"), "a beginning alone is let go: {log}");
    assert_eq!(ran.log("next"), "***t\n");
}

#[test]
fn a_log_is_bounded_and_says_so() {
    let ran = a_box(&[script("long", "head -c 70000000 /dev/zero; echo end")]).run();
    ran.passed();
    let log = ran.log("long");
    assert!(log.len() < 64 * 1024 * 1024 + 200 && log.ends_with("the rest was not kept\n"), "{}", log.len());
    assert!(
        ran.stdout.contains("> warn  the log of this step") && ran.stdout.contains("end\n> ok"),
        "stdout has it all"
    );
}

#[test]
fn the_agent_is_asked_and_answers() {
    let steps = [
        script("build", "export VERSION=1.2"),
        PlanStep { env: vec![variable("E", "step")], ..agent("push") },
        script("next", "true"),
    ];
    let mut running = a_box(&steps).with(|plan| plan.env = vec![variable("STAGE", "test")]).start();
    let request: Request = running.wait_for("request", |running| {
        running.records().iter().find(|record| matches!(record, Record::Asked { step: 1, .. }))?;
        serde_json::from_slice(&fs::read(running.path("out").join(request_file(1))).ok()?).ok()
    });
    assert_eq!((request.version, request.step), (VERSION, 1));
    let get = |map: &BTreeMap<String, String>, name: &str| map.get(name).cloned();
    assert_eq!((get(&request.run_env, "STAGE"), get(&request.run_env, "VERSION")), (Some("test".into()), None));
    assert_eq!((get(&request.env, "VERSION"), get(&request.env, "E")), (Some("1.2".into()), Some("step".into())));
    assert_eq!(get(&request.env, "WERCKER_BUILD_NUMBER"), Some("7".into()));
    let answer = Answer { version: VERSION, passed: true, log: vec!["pushed".into(), "twice".into()], message: None };
    let unfinished = running.path("in/answer.new");
    fs::write(&unfinished, serde_json::to_vec(&answer).unwrap()).unwrap();
    fs::rename(&unfinished, running.path("in").join(answer_file(1))).unwrap();
    let ran = running.end();
    ran.passed();
    assert_eq!(ran.ends()[1], (EXIT, None));
    assert_eq!(ran.log("push"), "pushed\ntwice\n");
    assert!(!ran.dir.path().join("out").join(request_file(1)).exists(), "the environment does not stay");
}

/// A box whose agent answered and has not written down the end.
fn unrecorded(steps: &[PlanStep]) -> TestBox {
    let test = a_box(steps);
    fs::remove_file(test.path("in").join(RECORDED_FILE)).unwrap();
    let answer = Answer { version: VERSION, passed: true, ..Answer::default() };
    fs::write(test.path("in").join(answer_file(0)), serde_json::to_vec(&answer).unwrap()).unwrap();
    test
}

#[test]
fn a_runner_that_asked_stays_until_its_end_is_recorded() {
    let finished = |running: &Running| {
        running.records().iter().any(|record| matches!(record, Record::Finished { .. })).then_some(())
    };
    let mut running = unrecorded(&[agent("push")]).start();
    running.wait_for("the end", finished);
    let later = Instant::now() + Duration::from_millis(400);
    running.wait_for("the time that it has to stay for", |_| (Instant::now() > later).then_some(()));
    fs::write(running.path("in").join(RECORDED_FILE), "").unwrap();
    running.end().passed();

    // Told to end, it does not wait.
    let mut running = unrecorded(&[agent("push")]).start();
    running.wait_for("the end", finished);
    running.signal("-TERM");
    running.end().passed();
    // Nor does one that did not ask.
    let test = unrecorded(&[script("a", "true")]);
    test.run().passed();
}

#[test]
fn the_agents_refusal_fails_the_run() {
    let test = a_box(&[agent("push"), after("x", "true")]);
    let answer = Answer { version: VERSION, passed: false, log: vec![], message: Some("demo may not push".into()) };
    fs::write(test.path("in").join(answer_file(0)), serde_json::to_vec(&answer).unwrap()).unwrap();
    let ran = test.run();
    ran.failed("StepFailed", Some(0), "step push failed: demo may not push");
    assert_eq!(ran.ends(), [(EndReason::Agent, None), (EXIT, Some(0))]);
}

#[test]
fn a_waiting_step_is_cancelled_and_times_out() {
    let mut running = a_box(&[agent("push"), after("x", "true")]).start();
    running.wait_for("request", |running| running.path("out").join(request_file(0)).exists().then_some(()));
    running.cancel();
    let ran = running.end();
    ran.failed("Cancelled", None, "cancelled (Graceful) at step push");
    assert_eq!(ran.ends(), [(EndReason::Cancelled, None), (EXIT, Some(0))]);
    let ran = a_box(&[PlanStep { timeout_s: Some(1), ..agent("push") }]).run();
    ran.failed("StepTimedOut", Some(0), "step push ran longer than 1s; raise its timeout");
}

#[test]
fn two_hundred_steps_share_one_box() {
    let mut steps: Vec<PlanStep> =
        (0..200).map(|n| script(&format!("s{n}"), "export N=$((N+1)); echo $N >> all")).collect();
    steps.push(script("check", "test $N = 200; test $(wc -l < all) = 200"));
    let ran = a_box(&steps).run();
    ran.passed();
    assert_eq!(ran.summary().steps.len(), 201);
}

#[test]
fn directories_are_expanded_and_must_exist() {
    let hostile = "a b'c\"$(x)`y`\n;é";
    let steps = [
        script("make", "mkdir -p \"$ODD\" sub; cd sub"),
        PlanStep {
            cwd: Some("$ODD".into()),
            ..script("odd", "pwd > ../seen; test \"$(cat ../seen)\" = \"$WERCKER_SOURCE_DIR/$ODD\"")
        },
        PlanStep { cwd: Some("${WERCKER_SOURCE_DIR}/sub".into()), ..script("sub", "test $(basename $(pwd)) = sub") },
        PlanStep { cwd: Some("nowhere".into()), ..script("lost", "true") },
    ];
    let ran = a_box(&steps).with(|plan| plan.env = vec![variable("ODD", hostile)]).run();
    let ends = ran.ends();
    assert_eq!(
        ends,
        [(EXIT, Some(0)), (EXIT, Some(0)), (EXIT, Some(0)), (EndReason::NotStarted, None)],
        "{}",
        ran.stdout
    );
    let message = ran.finished().3.unwrap();
    assert!(message.starts_with("step lost (4 of 4) could not start: cwd /"), "{message}");
    assert!(message.ends_with("/box/pipeline/source/nowhere: no such directory"), "{message}");
}

#[rstest]
#[case::the_source(None, "")]
#[case::below_it(Some("sub"), "/sub")]
fn no_step_begins_elsewhere_once_the_source_is_gone(#[case] cwd: Option<&str>, #[case] below: &str) {
    let ran = a_box(&[
        script("keep", "true"),
        script("rm", "rm -rf \"$WERCKER_SOURCE_DIR\""),
        PlanStep { cwd: Some("/".into()), ..script("there", "pwd") },
        PlanStep { cwd: cwd.map(str::to_owned), ..script("next", "pwd > /dev/null; touch ../../../ran") },
        after("x", "pwd"),
    ])
    .run();
    let source = ran.dir.path().join("box/pipeline/source").display().to_string();
    let gone = format!("the source {source} is gone since step rm");
    let message = format!("step next (4 of 4) could not start: cwd {source}{below}: no such directory; {gone}");
    ran.failed("StepFailed", Some(3), &message);
    assert_eq!((ran.log("there").as_str(), ran.ends()[3]), ("/\n", (EndReason::NotStarted, None)));
    // After-steps are for what went wrong.
    assert_eq!((ran.log("x").as_str(), ran.ends()[4]), ("/\n", (EXIT, Some(0))));
    assert!(ran.stdout.contains(&format!("after 1/1 x: {gone}; it begins in /\n")), "{}", ran.stdout);
}

#[test]
fn a_source_that_is_made_again_is_as_good_as_before() {
    let again = "cd ..; rm -rf source; mkdir source; echo new > source/file";
    let ran = a_box(&[script("again", again), script("next", "cat file"), after("x", "cat file")]).run();
    ran.passed();
    assert_eq!((ran.log("next"), ran.log("x")), ("new\n".into(), "new\n".into()));
}

#[test]
fn a_missing_shell_is_named() {
    let ran = a_box(&[script("s", "true")]).with(|plan| plan.shell = Some("/no/zsh".into())).run();
    ran.failed(
        "StepFailed",
        Some(0),
        "step s (1 of 1) could not start: box.shell /no/zsh is not an executable file of the image",
    );
}

#[test]
fn the_source_is_in_the_box() {
    let test = a_box(&[script(
        "s",
        "test -x run.sh; ./run.sh; test -d $WERCKER_OUTPUT_DIR; test $WERCKER_GIT_COMMIT = f00; readlink link",
    )])
    .with(|plan| plan.source_revision = Some("f00".into()));
    let source = test.path("disk").join(SOURCE_DIR);
    fs::create_dir(&source).unwrap();
    fs::write(source.join("run.sh"), "#!/bin/sh\necho from the source\n").unwrap();
    fs::set_permissions(source.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("run.sh", source.join("link")).unwrap();
    let ran = test.run();
    ran.passed();
    assert_eq!(ran.log("s"), "from the source\nrun.sh\n");
}

#[test]
fn no_place_for_the_source_is_said() {
    let test = a_box(&[script("s", "true"), after("x", "true")]);
    fs::write(test.path("file"), "").unwrap();
    let wanted = test.path("file/app").to_str().unwrap().to_owned();
    let ran = test.with(|plan| plan.working_dir = Some(wanted.clone())).run();
    let user = nix::unistd::geteuid();
    ran.failed("SourceNotWritable", None, &format!("user {user} cannot write {wanted}; set box.workingDir"));
    let skipped = (EndReason::EarlierStepFailed, None);
    assert_eq!(ran.ends(), [skipped, skipped]);
    assert_eq!(ran.summary().reason.as_deref(), Some("SourceNotWritable"));
}

#[test]
fn a_box_does_not_run_twice_and_never_looks_green_when_broken() {
    let first = a_box(&[script("s", "true")]);
    fs::write(first.path("out").join(JOURNAL_FILE), "").unwrap();
    let ran = first.run();
    assert_eq!((ran.code, ran.records.len()), (70, 0));
    let last = fs::read_to_string(ran.dir.path().join("last")).unwrap();
    assert!(last.starts_with("windlass-runner: failed to reserve"), "{last}");
    let test = a_box(&[script("s", "true")]).with(|plan| plan.version = 99);
    assert_eq!(test.run().code, 70);
    let test = a_box(&[script("../s", "true")]);
    assert_eq!(test.run().code, 70);
    // The log cannot be written: its directory is a file by then.
    let test = a_box(&[script("s", "rm -r ../../../disk/logs; touch ../../../disk/logs"), script("t", "true")]);
    let ran = test.run();
    assert_eq!(ran.code, 70, "{}", ran.stdout);
    assert!(!matches!(ran.records.last(), Some(Record::Finished { .. })));
}

#[test]
fn orphans_are_reaped() {
    // Orphans end at any time; a zombie that stays is one that nobody reaps.
    let code = "for i in 1 2 3 4 5; do (sleep 0.05 & ) ; done; sleep 0.1; tries=0
        while [ $tries -lt 100 ]; do tries=$((tries+1)); zombies=''
        for stat in /proc/[0-9]*/stat; do read -r pid name state parent rest < $stat || continue
        if [ $parent = $PPID ] && [ $state = Z ]; then zombies=$pid; fi; done 2>/dev/null
        if [ -z \"$zombies\" ]; then exit 0; fi; sleep 0.05; done; exit 1";
    a_box(&[script("s", code)]).run().passed();
    // As PID 1 of a namespace, which the signal reaches too.
    let mut running = a_box(&[script("s", code), script("wait", "test $PPID = 1; echo on; sleep 1000")]).start_by(&[
        "unshare",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
    ]);
    running.wait_for_stdout("\non\n");
    running.cancel();
    let ran = running.end();
    ran.failed("Cancelled", None, "cancelled (Graceful) at step wait");
    assert_eq!(ran.ends(), [(EXIT, Some(0)), (EndReason::Cancelled, Some(143))]);
}

#[test]
fn shells_begin_with_clean_signals_and_descriptors() {
    let code = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls -l /proc/self/fd";
    for (shell, _dir) in shells() {
        let ran = a_box(&[script("s", code)]).with(|plan| plan.shell = Some(shell.clone())).run();
        let log = ran.log("s");
        let mask = |name: &str| {
            let line = log.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
        };
        // The C library ignores 32 and 33, its own two signals, in what it spawns.
        assert_eq!((mask("SigBlk"), mask("SigIgn") & !(0b11 << 31)), (0, 0), "{shell}: {log}");
        // What the test itself was given may be there too; of the runner's there is the pipe alone.
        let pipe = log.lines().find_map(|line| line.split_once(" 1 -> ")).unwrap().1;
        assert!(pipe.starts_with("pipe:"), "{shell}: {log}");
        assert_eq!(log.matches(pipe).count(), 2, "{shell}: {log}");
        assert!(!log.contains("anon_inode") && !log.contains(JOURNAL_FILE) && !log.contains(".log"), "{shell}: {log}");
    }
}

#[test]
fn a_reader_that_does_not_read_stops_nobody_from_ending() {
    let mut test = a_box(&[PlanStep { timeout_s: Some(1), ..script("yes", "yes") }, after("x", "true")]);
    test.grace_ms = 200;
    let mut running = test.start_with_reader();
    running.wait_for("end", |running| {
        running.records().iter().find(|record| matches!(record, Record::Finished { .. })).map(|_| ())
    });
    let (ran, read) = running.end_reading();
    ran.failed("StepTimedOut", Some(0), "step yes ran longer than 1s; raise its timeout");
    assert!(read > 64 * 1024, "what was held back comes: {read}");
}

#[test]
fn a_full_outbox_takes_no_exit_records() {
    // The outbox is a small tmpfs of this run's own, which the step fills.
    let wrap =
        "mount -t tmpfs -o size=64k none \"$0\" && \"$@\"; code=$?; cp \"$0/journal\" \"$0/../kept\"; exit $code";
    let test = a_box(&[script("fill", "head -c 1000000 /dev/zero > ../../../out/fill; exit 3"), after("x", "exit 4")]);
    let out = test.path("out").to_str().unwrap().to_owned();
    let running = test.start_by(&["unshare", "--mount", "sh", "-c", wrap, &out]);
    let ran = running.end_with("kept");
    assert_eq!(ran.ends(), [(EXIT, Some(1)), (EXIT, Some(4))], "{}", ran.stdout);
    ran.failed("StepFailed", Some(0), "step fill (1 of 1) failed with exit code 1");
}

#[test]
fn an_outbox_without_room_for_the_records_stops_the_run_at_once() {
    let wrap = "mount -t tmpfs -o size=8k none \"$0\" && \"$@\"";
    let test = a_box(&[script("s", "touch ../../../ran")]);
    let out = test.path("out").to_str().unwrap().to_owned();
    let ran = test.start_by(&["unshare", "--mount", "sh", "-c", wrap, &out]).end();
    assert_eq!(ran.code, 70, "{}", ran.stdout);
    assert!(!ran.dir.path().join("ran").exists());
}

#[test]
fn messages_hold_no_secrets() {
    let lost = PlanStep { cwd: Some("/x/$TOKEN".into()), ..script("lost", "true") };
    let ran =
        a_box(&[lost]).with(|plan| plan.env = vec![Variable { secret: true, ..variable("TOKEN", "s3cr3t") }]).run();
    let message = "step lost (1 of 1) could not start: cwd /x/***: no such directory";
    ran.failed("StepFailed", Some(0), message);
    assert!(!ran.stdout.contains("s3cr3t"));
}
