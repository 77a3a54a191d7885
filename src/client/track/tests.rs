use super::*;
use crate::client::{logtext::Decoder, view::tests::a_run};

/// A run with the steps build, test, push and the after-step tell, in this state.
pub(crate) fn hello(status: &str) -> RunView {
    a_run(&format!(
        r#"
        apiVersion: windlass.dev/v1alpha1
        kind: PipelineRun
        metadata: {{name: hello-7, namespace: team-a, creationTimestamp: "2026-11-21T13:03:07Z"}}
        spec:
          pipelineSpec:
            box: {{image: "debian:12"}}
            steps: [{{name: build, script: x}}, {{name: test, script: x}}, {{name: push, dockerPush: {{repository: r}}}}]
            afterSteps: [{{name: tell, script: x}}]
        status: {status}
        "#
    ))
}

pub(crate) fn condition(status: &str, why: &str, message: &str) -> String {
    format!(
        "conditions: [{{type: Succeeded, status: \"{status}\", reason: {why}, message: \"{message}\", \
         lastTransitionTime: \"2026-11-21T13:03:07Z\"}}]"
    )
}

/// `build=Succeeded:0 test=Failed:2` as `steps: […]`.
pub(crate) fn steps(words: &str) -> String {
    let step = |word: &str| {
        let (name, rest) = word.split_once('=').expect("name=phase");
        let (phase, code) = rest.split_once(':').unwrap_or((rest, ""));
        let code = if code.is_empty() { String::new() } else { format!(", exitCode: {code}") };
        format!("{{name: {name}, phase: {phase}{code}}}")
    };
    format!("steps: [{}]", words.split(' ').map(step).collect::<Vec<_>>().join(", "))
}

fn say(tracker: &mut Tracker, text: &str, now_ms: u64) {
    for piece in Decoder::default().feed(text.as_bytes()) {
        tracker.output(piece, now_ms);
    }
}

/// When the run was made.
fn origin() -> Timestamp {
    "2026-11-21T13:03:07Z".parse().expect("a time")
}

/// When each event happened, by the run's own time.
fn times(t: &Tracker, events: &Told) -> Vec<u64> {
    events.iter().map(|(ms, _)| t.run_ms(*ms)).collect()
}

/// One word per event.
fn words(events: &Told) -> Vec<String> {
    let word = |event: &Event| match event {
        Event::RunCreated { .. } => "created".into(),
        Event::Resolved { .. } => "resolved".into(),
        Event::Waiting { reason, .. } => format!("waiting {reason}"),
        Event::Prepared { took_ms, .. } => format!("prepared {took_ms}"),
        Event::StepStarted { step } => format!("start {}", step.name),
        Event::Log { step, bytes, .. } => {
            format!("log {} {:?}", step.as_deref().unwrap_or("-"), String::from_utf8_lossy(bytes))
        }
        Event::Progress { message, .. } => format!("progress {message}"),
        Event::Image { image, .. } => format!("image {}", image.digest),
        Event::StepFinished(end) => format!("finish {} {} {:?}", end.step.name, end.result.word(), end.took_ms),
        Event::RunFinished(end) => format!("over {} {} {:?}", end.outcome.word(), end.took_ms, end.step),
        Event::Watch { news, message, .. } => format!("watch {news:?} {message}"),
        Event::Notice { message } => format!("notice {message}"),
    };
    events.iter().map(|(_, event)| word(event)).collect()
}

const RUNNING: &str = "phase: Running, podName: hello-7-1, nodeName: node-3";

fn running(words: &str) -> RunView {
    hello(&format!("{{{RUNNING}, {}, {}}}", condition("Unknown", "Running", "x"), steps(words)))
}

#[test]
fn output_waits_for_the_end_of_the_step_before_it() {
    let mut t = Tracker::new(true, origin(), None);
    t.status(running("build=Running"), 3_000);
    say(&mut t, "2026-11-21T13:03:10.4Z > step  [0.1s] 1/3 build\n2026-11-21T13:03:10.5Z cc\n", 3_400);
    assert_eq!(words(&t.advance(3_400)), ["prepared 3400", "start build", "log build \"cc\\n\""]);
    // The runner is at the next step, and the status does not say so yet.
    say(
        &mut t,
        "2026-11-21T13:03:22.7Z > ok    [12.4s] 1/3 build 12.3s\n2026-11-21T13:03:22.7Z > step  [12.4s] 2/3 test\n\
         2026-11-21T13:03:22.8Z ok 1\n",
        15_700,
    );
    assert_eq!(words(&t.advance(15_700)), [""; 0]);
    t.status(running("build=Succeeded:0 test=Running"), 16_300);
    assert_eq!(words(&t.advance(16_300)), ["finish build succeeded Some(12300)", "start test", "log test \"ok 1\\n\""]);
}

#[test]
fn output_is_not_held_longer_than_the_bound() {
    let mut t = Tracker::new(true, origin(), None);
    t.status(running("build=Running"), 0);
    say(&mut t, "2026-11-21T13:03:10Z > step  [0.1s] 1/3 build\n", 0);
    t.advance(0);
    say(&mut t, "2026-11-21T13:03:11Z > step  [1.1s] 2/3 test\n2026-11-21T13:03:11Z x\n", 1_000);
    assert_eq!(words(&t.advance(1_000 + HOLD_MS - 1)), [""; 0]);
    assert_eq!(words(&t.advance(1_000 + HOLD_MS)), ["start test", "log test \"x\\n\""]);
    // The end that comes late is told all the same, once.
    t.status(running("build=Succeeded:0 test=Running"), 4_000);
    assert_eq!(words(&t.advance(4_000)), ["finish build succeeded Some(1000)"]);
    assert_eq!(words(&t.advance(9_000)), [""; 0]);
}

#[test]
fn the_last_output_comes_before_the_end() {
    let mut t = Tracker::new(true, origin(), None);
    t.status(running("build=Running"), 0);
    say(&mut t, "2026-11-21T13:03:10Z > step  [0.1s] 1/3 build\n", 0);
    t.advance(0);
    t.status(running("build=Failed:2"), 5_000);
    assert_eq!(words(&t.advance(5_900)), [""; 0]);
    say(
        &mut t,
        "2026-11-21T13:03:15Z Error 2\n2026-11-21T13:03:15.3Z > FAIL  [5.4s] 1/3 build 5.3s: exit code 2\n",
        5_950,
    );
    assert_eq!(words(&t.advance(5_950)), ["log build \"Error 2\\n\"", "finish build failed Some(5300)"]);
}

#[test]
fn a_run_that_ended_before_is_told_in_order_however_slow_its_output_is() {
    let ended = format!(
        "{{{RUNNING}, {}, {}}}",
        condition("False", "StepFailed", "step build failed"),
        steps("build=Failed:2 test=Skipped push=Skipped tell=Succeeded:0")
    );
    let mut t = Tracker::new(false, origin(), None);
    t.status(hello(&ended), 60_000);
    assert_eq!(words(&t.advance(60_000)), [""; 0]);
    say(&mut t, "2026-11-21T13:03:10Z > step  [0.1s] 1/3 build\n", 61_800);
    for second in 0..5 {
        say(&mut t, "2026-11-21T13:03:11Z x\n", 61_800 + second * 900);
        let told = words(&t.advance(61_800 + second * 900));
        assert!(told.iter().all(|w| !w.starts_with("finish")), "{told:?}");
    }
    say(&mut t, "2026-11-21T13:03:15Z > FAIL  [5.1s] 1/3 build 5.0s: exit code 2\n", 66_000);
    say(&mut t, "2026-11-21T13:03:15Z > step  [5.1s] after 1/1 tell\n", 66_000);
    t.output_ended();
    assert_eq!(
        words(&t.advance(66_000)),
        [
            "finish build failed Some(5000)",
            "finish test skipped None",
            "finish push skipped None",
            "start tell",
            "finish tell succeeded None",
            "over failed 60000 Some(\"build\")",
        ]
    );
    assert!(t.is_over());
}

#[test]
fn a_run_without_output_ends_after_the_drain() {
    let mut t = Tracker::new(true, origin(), None);
    let ended = format!("{{{RUNNING}, {}, {}}}", condition("True", "Succeeded", ""), steps("build=Succeeded:0"));
    t.status(hello(&ended), 1_000);
    assert_eq!(words(&t.advance(1_000 + DRAIN_MS - 1)), [""; 0]);
    let told = words(&t.advance(1_000 + DRAIN_MS));
    assert_eq!(told.last().map(String::as_str), Some("over succeeded 1000 None"));
}

#[test]
fn a_wait_is_told_on_change_only() {
    let waits = |why: &str, message: &str| hello(&format!("{{{}}}", condition("Unknown", why, message)));
    let mut t = Tracker::new(true, origin(), None);
    t.status(waits("PullingImages", "pulling debian:12"), 100);
    assert_eq!(words(&t.advance(100)), ["waiting PullingImages"]);
    assert_eq!(words(&t.advance(40_000)), [""; 0]);
    t.status(waits("PullingImages", "pulling redis:7"), 41_000);
    assert_eq!(words(&t.advance(41_000)), ["waiting PullingImages"]);
}

#[test]
fn a_new_attempt_begins_again() {
    let attempt = |n: u32, words: &str| {
        let pod = format!("phase: Running, podName: hello-7-{n}, attempt: {n}");
        hello(&format!("{{{pod}, {}, {}}}", condition("Unknown", "Running", "x"), steps(words)))
    };
    let mut t = Tracker::new(true, origin(), None);
    t.status(attempt(1, "build=Running"), 0);
    say(&mut t, "2026-11-21T13:03:10Z > step  [0.1s] 1/3 build\n", 0);
    assert_eq!(words(&t.advance(0)), ["prepared 3000", "start build"]);
    t.status(attempt(2, "build=Running"), 9_000);
    say(&mut t, "2026-11-21T13:03:20Z > step  [0.1s] 1/3 build\n", 9_500);
    assert_eq!(
        words(&t.advance(9_500)),
        ["notice attempt 2, in pod hello-7-2: all steps begin again", "prepared 13000", "start build"]
    );
}

#[test]
fn an_event_has_the_time_of_the_thing() {
    let mut t = Tracker::new(true, origin(), None);
    t.status(running("build=Running"), 3_000);
    say(&mut t, "2026-11-21T13:03:10.4Z > step  [0.1s] 1/3 build\n2026-11-21T13:03:10.5Z cc\n", 4_800);
    // The time that the status counts from: the pod was made a second after the run.
    let timed = |rest: &str| format!("{{{RUNNING}, startTime: \"2026-11-21T13:03:08Z\", {rest}}}");
    t.status(hello(&timed(&format!("{}, {}", condition("Unknown", "Running", "x"), steps("build=Running")))), 5_000);
    let told = t.advance(5_000);
    assert_eq!(words(&told), ["prepared 2400", "start build", "log build \"cc\\n\""]);
    assert_eq!(times(&t, &told), [2_400, 2_400, 2_500]);
    // The end is told late, and is not before what was told already.
    say(&mut t, "2026-11-21T13:03:22.7Z > ok    [12.4s] 1/3 build 12.3s\n", 17_900);
    let end = "completionTime: \"2026-11-21T13:03:23Z\", summary: {duration: 15.4s}";
    let all = steps("build=Succeeded:0 test=Skipped push=Skipped");
    t.status(hello(&timed(&format!("{}, {all}, {end}", condition("True", "Succeeded", "3 steps in 15.4s")))), 19_000);
    t.output_ended();
    let told = t.advance(19_000);
    assert_eq!(
        words(&told),
        [
            "finish build succeeded Some(12300)",
            "finish test skipped None",
            "finish push skipped None",
            "over succeeded 15400 None"
        ]
    );
    assert_eq!(times(&t, &told), [14_700, 14_700, 14_700, 15_400]);
}

#[test]
fn what_was_printed_before_a_time_is_left_out() {
    let mut t = Tracker::new(false, origin(), Some("2026-11-21T13:03:11Z".parse().expect("a time")));
    t.status(running("build=Running"), 9_000);
    say(
        &mut t,
        "2026-11-21T13:03:10Z > step  [0.1s] 1/3 build\n2026-11-21T13:03:10.9Z old\n2026-11-21T13:03:11Z new\n",
        9_000,
    );
    assert_eq!(words(&t.advance(9_000)), ["prepared 3000", "start build", "log build \"new\\n\""]);
}

#[test]
fn a_cancel_is_told_once_and_never_after_what_it_stops() {
    let cancelling = |words: &str| {
        hello(&format!(
            "{{{RUNNING}, {}, {}}}",
            condition("Unknown", "Cancelling", "stopping step build"),
            steps(words)
        ))
    };
    let begun = || {
        let mut t = Tracker::new(true, origin(), None);
        t.status(running("build=Running"), 3_000);
        say(&mut t, "2026-11-21T13:03:10Z > step  [0.1s] 1/3 build\n", 3_100);
        t.advance(3_100);
        t
    };
    let mut elsewhere = begun();
    elsewhere.status(cancelling("build=Running"), 5_000);
    assert_eq!(words(&elsewhere.advance(5_000)), ["waiting Cancelling"]);
    let mut ours = begun();
    ours.cancel_was_told();
    ours.status(cancelling("build=Running"), 5_000);
    assert_eq!(words(&ours.advance(5_000)), [""; 0]);
    // The runner's line was there before the status.
    let mut late = begun();
    say(&mut late, "2026-11-21T13:03:12Z > FAIL  [2.1s] 1/3 build 2.0s: cancelled\n", 5_000);
    late.advance(5_000);
    late.status(cancelling("build=Cancelled"), 5_300);
    assert_eq!(words(&late.advance(5_300)), ["finish build cancelled Some(2000)"]);
}

/// The output of three steps, of which the last runs.
const BEFORE: &str = "2026-11-21T13:03:08Z > step  [1s] 1/3 build\n2026-11-21T13:03:08Z cc 1\n2026-11-21T13:03:08Z cc 2\n\
    2026-11-21T13:03:09Z > ok    [2s] 1/3 build 1s\n2026-11-21T13:03:09Z > step  [2s] 2/3 test\n\
    2026-11-21T13:03:09Z one\n2026-11-21T13:03:10Z two\n2026-11-21T13:03:10Z three\n";

#[rstest::rstest]
#[case(Tail::of(2, None), &["two", "three"])]
#[case(Tail::of(4, None), &["cc 2", "one", "two", "three"])]
#[case(Tail::of(0, None), &[])]
#[case(Tail::of(99, None), &["cc 1", "cc 2", "one", "two", "three"])]
#[case(Tail::of(1, Some("build".into())), &["cc 2"])]
fn of_what_was_there_the_last_lines_are_told(#[case] tail: Tail, #[case] told: &[&str]) {
    let mut t = Tracker::new(false, origin(), None).with_tail(Some(tail));
    t.status(running("build=Succeeded:0 test=Running"), 10_000);
    let logs = |events: Told| -> Vec<String> {
        let bytes = events.into_iter().filter_map(|(_, event)| match event {
            Event::Log { bytes, .. } => Some(String::from_utf8(bytes).expect("text").trim_end().to_owned()),
            _ => None,
        });
        bytes.collect()
    };
    say(&mut t, BEFORE, 10_001);
    assert_eq!(logs(t.advance(10_002)), Vec::<String>::new(), "more may come");
    t.caught_up();
    let events = t.advance(10_003);
    assert!(words(&events).contains(&"start test".to_owned()), "{events:?}");
    assert_eq!(logs(events), told);
    say(&mut t, "2026-11-21T13:03:11Z four\n", 10_004);
    assert_eq!(logs(t.advance(10_005)), ["four"]);
}

#[test]
fn a_long_line_is_left_out_whole_and_memory_is_bounded() {
    let mut t = Tracker::new(false, origin(), None).with_tail(Some(Tail::of(1, None)));
    t.status(running("build=Running"), 10_000);
    say(&mut t, "2026-11-21T13:03:08Z > step  [1s] 1/3 build\n", 10_000);
    let piece = |stamp: bool, bytes: usize| Piece {
        stamp: stamp.then(|| "2026-11-21T13:03:08Z".into()),
        bytes: vec![b'x'; bytes],
    };
    for _ in 0..5 {
        t.output(piece(true, 1 << 20), 10_001);
        t.output(piece(false, 1 << 20), 10_001);
    }
    let held = |t: &Tracker| t.queue.iter().filter(|entry| matches!(entry.item, Item::Output(_))).count();
    assert_eq!(held(&t), 2, "one line of two pieces");
    for _ in 0..40 {
        t.output(piece(false, 1 << 20), 10_001);
        assert!(held(&t) <= 16);
    }
}

#[test]
fn the_wait_that_who_follows_ends_is_not_told() {
    let waits = |step: &str| {
        let message = format!("step {step} waits; it has not begun; attach with: windlass shell hello-7");
        hello(&format!(
            "{{{RUNNING}, {}, {}}}",
            condition("Unknown", "WaitingForUser", &message),
            steps("build=Waiting")
        ))
    };
    let mut t = Tracker::new(true, origin(), None).without_wait_before("build".into());
    t.status(waits("build"), 1_000);
    assert!(!words(&t.advance(1_001)).iter().any(|word| word.starts_with("waiting")));
    t.status(waits("test"), 2_000);
    assert!(words(&t.advance(2_501)).contains(&"waiting WaitingForUser".to_owned()));
}

#[test]
fn a_step_begins_before_it_is_said_to_wait() {
    let waits = condition("Unknown", "WaitingForUser", "step build waits; attach with: windlass shell hello-7");
    let mut t = Tracker::new(true, origin(), None);
    t.status(hello(&format!("{{{RUNNING}, {waits}, {}}}", steps("build=Waiting"))), 1_000);
    let early = words(&t.advance(1_001));
    assert!(!early.iter().any(|word| word.starts_with("waiting")), "{early:?}");
    say(&mut t, "2026-11-21T13:03:10Z > step  [0.1s] 1/3 build\n", 1_100);
    let mut told = words(&t.advance(1_100));
    told.extend(words(&t.advance(1_350)));
    assert_eq!(told, ["prepared 3000", "start build", "waiting WaitingForUser"]);
}

#[test]
fn who_opens_the_terminal_of_a_shell_step_is_not_told_that_it_waits() {
    let run = |look: &str| {
        a_run(&format!(
            "{{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {{name: x, creationTimestamp: \
             '2026-11-21T13:03:07Z'}}, spec: {{pipelineSpec: {{box: {{image: b}}, steps: [{{name: look, shell: {{}}}}]}}}}, \
             status: {{{RUNNING}, {}, steps: [{{name: look, {look}}}]}}}}",
            condition("Unknown", "WaitingForUser", "step look waits; attach with: y")
        ))
    };
    for attaches in [true, false] {
        let mut t = Tracker::new(true, origin(), None).attaching(attaches);
        t.status(run("phase: Waiting, reason: Attach, message: attach"), 100);
        say(&mut t, "2026-11-21T13:03:09Z > step  [0.1s] 1/1 look\n", 200);
        let mut events = words(&t.advance(200));
        assert_eq!(events, ["prepared 2000", "start look"]);
        events.extend(words(&t.advance(1_300)));
        assert_eq!(events.contains(&"waiting WaitingForUser".to_owned()), !attaches, "{events:?}");
        assert_eq!(t.shell_that_waits(), Some("look"));
        t.status(run("phase: Succeeded"), 1_400);
        t.advance(1_400);
        assert_eq!(t.shell_that_waits(), None);
    }
}

#[test]
fn what_becomes_of_a_watched_step_is_told_in_its_order() {
    let mut t = Tracker::new(true, origin(), None);
    t.status(running("build=Running"), 100);
    say(
        &mut t,
        "2026-11-21T13:03:08Z > step  [0.1s] 1/3 build\n2026-11-21T13:03:09Z up\n\
         2026-11-21T13:03:10Z > watch [2.1s] 1/3 build: a.c changed; starts again\n\
         2026-11-21T13:03:11Z > watch [3.1s] 1/3 build: exit code 3; waits for the next change\n\
         2026-11-21T13:03:11Z > watch [3.1s] 1/3 build: exit code 0; waits for the next change\n\
         2026-11-21T13:03:12Z > watch [4.1s] 1/3 build: there are more files\n",
        200,
    );
    assert_eq!(
        words(&t.advance(200))[2..],
        [
            "log build \"up\\n\"",
            "watch Restarts a.c changed; starts again",
            "watch Rests { well: false } exit code 3; waits for the next change",
            "watch Rests { well: true } exit code 0; waits for the next change",
            "watch Told there are more files",
        ]
    );
}
