//! Tables over the state machine: what happened, what it said.

mod restarts;
mod waits;

use super::limits::AFTER_MS;
use super::*;
use crate::runner::words::{CANCELLED, NO_OUTPUT, RUN_TIMED_OUT, STEP_FAILED, STEP_TIMED_OUT};
use crate::wire::WatchWork;

const DEADLINE: u64 = 3_600_000;
const GRACE: u64 = 10_000;

fn script(name: &str) -> PlanStep {
    PlanStep { name: name.into(), work: StepWork::Script("true".into()), ..PlanStep::default() }
}

fn after(name: &str) -> PlanStep {
    PlanStep { after: true, ..script(name) }
}

fn agent(name: &str) -> PlanStep {
    PlanStep { work: StepWork::Agent, ..script(name) }
}

fn pack(name: &str) -> PlanStep {
    PlanStep { work: StepWork::Pack { directory: None, disable_sync: false }, ..script(name) }
}

fn watch(name: &str) -> PlanStep {
    let work = WatchWork { code: "serve".into(), reload: true, ..WatchWork::default() };
    PlanStep { work: StepWork::Watch(work), ..script(name) }
}

fn exited(code: i32) -> Event {
    Event::Exited(Exit { code, signalled: code > 128, ..Exit::default() })
}

/// Tells a schedule of `steps` what happened; prints what it said.
fn said(steps: &[PlanStep], events: &[(u64, Event)]) -> Vec<String> {
    let mut schedule = Schedule::new(steps.to_vec(), DEADLINE, 100, GRACE);
    let events = std::iter::once((0, Event::Begin)).chain(events.iter().cloned());
    events.flat_map(|(now, event)| schedule.on(now, event)).map(|act| shown(&act)).collect()
}

fn shown(act: &Act) -> String {
    let code = |end: &End| end.code.map(|code| format!(" {code}")).unwrap_or_default();
    match act {
        Act::Start { step, attempt } => format!("start {step} #{attempt}"),
        Act::Ask { step, unpacked: None } => format!("ask {step}"),
        Act::Ask { step, unpacked: Some(why) } => format!("ask {step} without files: {why}"),
        Act::Pause { step, failed: None } => format!("pause {step}"),
        Act::Pause { step, failed: Some(end) } => format!("pause {step} {:?}{}", end.reason, code(end)),
        Act::Restart { step, slowed, .. } => format!("restart {step}{}", if *slowed { " slowed" } else { "" }),
        Act::Rest { step, end } => format!("rest {step} {:?}{}", end.reason, code(end)),
        Act::Terminate => "term".into(),
        Act::Kill => "kill".into(),
        Act::Repeat { step, end, pause_ms } => format!("repeat {step} {:?}{} in {pause_ms}", end.reason, code(end)),
        Act::End { step, end } => format!("end {step} {:?}{}", end.reason, code(end)),
        Act::Finish(outcome) => match (outcome.reason, &outcome.message) {
            (Some(reason), Some(message)) => format!("{reason} {:?}: {message}", outcome.failed),
            _ => format!("passed {}", outcome.passed),
        },
        Act::Leave(code) => format!("leave {code}"),
    }
}

fn check(steps: &[PlanStep], events: &[(u64, Event)], want: &[&str]) {
    assert_eq!(said(steps, events), want);
}

#[test]
fn steps_run_in_order_and_pass() {
    check(
        &[script("a"), agent("b"), after("c")],
        &[(1, exited(0)), (2, Event::Answered { passed: true, message: None }), (3, exited(0))],
        &["start 0 #1", "end 0 ExitCode 0", "ask 1", "end 1 ExitCode", "start 2 #1", "end 2 ExitCode 0", "passed true"],
    );
    check(&[], &[], &["passed true"]);
}

#[test]
fn a_failure_skips_the_rest_and_after_steps_run() {
    let message = format!("{STEP_FAILED} Some(0): step a (1 of 2) failed with exit code 2");
    check(
        &[script("a"), script("b"), after("c")],
        &[(1, exited(2)), (2, exited(0))],
        &["start 0 #1", "end 0 ExitCode 2", "end 1 EarlierStepFailed", "start 2 #1", "end 2 ExitCode 0", &message],
    );
}

#[test]
fn a_failure_that_may_be_lets_the_run_pass() {
    let lint = PlanStep { continue_on_failure: true, ..script("lint") };
    check(
        &[lint, script("b")],
        &[(1, exited(137)), (2, exited(0))],
        &["start 0 #1", "end 0 Signal 137", "start 1 #1", "end 1 ExitCode 0", "passed true"],
    );
}

#[test]
fn a_failing_after_step_stops_after_steps_but_not_the_result() {
    check(
        &[script("a"), after("b"), after("c")],
        &[(1, exited(0)), (2, exited(1))],
        &["start 0 #1", "end 0 ExitCode 0", "start 1 #1", "end 1 ExitCode 1", "end 2 EarlierStepFailed", "passed true"],
    );
}

#[test]
fn messages_tell_failures_apart() {
    for (event, want) in [
        (exited(137), "step a (1 of 1) failed with exit code 137, killed (SIGKILL)"),
        (Event::NotStarted("cwd /x: no such".into()), "step a (1 of 1) could not start: cwd /x: no such"),
    ] {
        let said = said(&[script("a")], &[(1, event)]);
        assert_eq!(said.last().unwrap(), &format!("{STEP_FAILED} Some(0): {want}"));
    }
    let answered = Event::Answered { passed: false, message: Some("401".into()) };
    assert_eq!(said(&[agent("p")], &[(1, answered)]).last().unwrap(), "StepFailed Some(0): step p failed: 401");
}

#[test]
fn files_are_packed_before_the_agent_is_asked() {
    let passed = Event::Answered { passed: true, message: None };
    check(&[pack("p")], &[(1, exited(0)), (2, passed)], &["start 0 #1", "ask 0", "end 0 ExitCode", "passed true"]);
    let unpacked = Event::NotStarted("directory $X is not set".into());
    let refused = Event::Answered { passed: false, message: Some("no".into()) };
    check(
        &[pack("p")],
        &[(1, unpacked), (2, refused)],
        &[
            "start 0 #1",
            "ask 0 without files: directory $X is not set",
            "end 0 Agent",
            "StepFailed Some(0): step p failed: no",
        ],
    );
    let killed = "StepFailed Some(0): step p (1 of 1) failed with exit code 137, killed (SIGKILL)";
    check(&[pack("p")], &[(1, exited(137))], &["start 0 #1", "end 0 Signal 137", killed]);
}

#[test]
fn packing_ends_with_the_run_and_its_time_counts() {
    let cancelled = format!("{CANCELLED} None: cancelled (Graceful) at step p");
    // Files that were packed in the same moment were not pushed.
    check(
        &[pack("p")],
        &[(1, Event::Cancel), (2, exited(0)), (3, Event::SessionGone)],
        &["start 0 #1", "term", "end 0 Cancelled 0", &cancelled],
    );
    let step = PlanStep { timeout_s: Some(10), ..pack("p") };
    let late = format!("{STEP_TIMED_OUT} Some(0): step p ran longer than 10s; raise its timeout");
    check(&[step], &[(9_000, exited(0)), (10_000, Event::Tick)], &["start 0 #1", "ask 0", "end 0 TimedOut", &late]);
}

#[test]
fn failed_scripts_repeat_with_growing_pauses() {
    let step = PlanStep { retries: 10, ..script("a") };
    let mut schedule = Schedule::new(vec![step], DEADLINE, 100, GRACE);
    schedule.on(0, Event::Begin);
    let (mut now, mut pauses) = (0, Vec::new());
    for attempt in 1..=11 {
        let acts = schedule.on(now, exited(1));
        if let [Act::Repeat { pause_ms, .. }] = acts.as_slice() {
            pauses.push(*pause_ms / 1000);
            assert!(schedule.on(now + pause_ms - 1, Event::Tick).is_empty());
            assert_eq!(schedule.wake(now), Some(now + pause_ms));
            now += pause_ms;
            assert_eq!(schedule.on(now, Event::Tick), [Act::Start { step: 0, attempt: attempt + 1 }]);
        } else {
            assert_eq!(attempt, 11);
            assert_eq!(acts.len(), 2, "{acts:?}");
        }
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]);
}

#[test]
fn only_failures_repeat() {
    let step = PlanStep { retries: 1, ..script("a") };
    check(std::slice::from_ref(&step), &[(1, exited(0))], &["start 0 #1", "end 0 ExitCode 0", "passed true"]);
    let cancelled = format!("{CANCELLED} None: cancelled (Graceful) at step a");
    check(
        std::slice::from_ref(&step),
        &[(1, Event::Cancel), (2, exited(143)), (3, Event::SessionGone)],
        &["start 0 #1", "term", "end 0 Cancelled 143", &cancelled],
    );
    let said = said(&[step], &[(1, Event::NotStarted("x".into()))]);
    assert_eq!(said[1], "end 0 NotStarted");
}

#[test]
fn a_step_that_takes_too_long_is_told_then_killed() {
    let step = PlanStep { timeout_s: Some(60), ..script("a") };
    let message = format!("{STEP_TIMED_OUT} Some(0): step a ran longer than 1m; raise its timeout");
    check(
        &[step, after("z")],
        &[
            (59_999, Event::Tick),
            (60_000, Event::Tick),
            (69_999, Event::Tick),
            (70_000, Event::Tick),
            (70_001, exited(137)),
            (70_002, Event::SessionGone),
            (70_003, exited(0)),
        ],
        &["start 0 #1", "term", "kill", "end 0 TimedOut 137", "start 1 #1", "end 1 ExitCode 0", &message],
    );
}

#[test]
fn a_session_that_outlives_its_shell_is_killed() {
    let step = PlanStep { timeout_s: Some(1), ..script("a") };
    let mut schedule = Schedule::new(vec![step], DEADLINE, 100, GRACE);
    schedule.on(0, Event::Begin);
    assert_eq!(schedule.wake(0), Some(1000));
    assert_eq!(schedule.on(1000, Event::Tick), [Act::Terminate]);
    assert!(!schedule.awaits_session());
    assert!(schedule.on(1001, exited(143)).is_empty());
    assert!(schedule.awaits_session());
    assert_eq!(schedule.wake(1001), Some(1021));
    assert_eq!(schedule.on(11_000, Event::Tick), [Act::Kill]);
    assert!(schedule.on(15_999, Event::Tick).is_empty());
    assert_eq!(schedule.on(16_000, Event::Tick).len(), 2, "nothing waits for ever");
}

#[test]
fn silence_ends_a_script_and_output_keeps_it() {
    let step = PlanStep { no_output_timeout_s: Some(300), timeout_s: Some(1500), ..script("a") };
    let message = format!("{NO_OUTPUT} Some(0): step a printed nothing for 5m; raise noOutputTimeout");
    check(
        &[step],
        &[
            (299_000, Event::Output),
            (598_999, Event::Tick),
            (599_000, Event::Tick),
            (599_001, exited(0)),
            (599_002, Event::SessionGone),
        ],
        &["start 0 #1", "term", "end 0 NoOutput 0", &message],
    );
}

#[test]
fn silence_does_not_end_what_the_agent_does() {
    let step = PlanStep { no_output_timeout_s: Some(1), timeout_s: Some(9), ..agent("a") };
    check(
        &[step],
        &[(8_999, Event::Tick), (9_000, Event::Tick)],
        &["ask 0", "end 0 TimedOut", "StepTimedOut Some(0): step a ran longer than 9s; raise its timeout"],
    );
}

#[test]
fn the_runs_time_ends_steps_and_leaves_five_minutes() {
    let message = format!("{RUN_TIMED_OUT} Some(0): the run took longer than 1m40s; step a was running");
    let gone = |at| [(at, exited(143)), (at + 1, Event::SessionGone)];
    let [first, second] = gone(DEADLINE + 5);
    let [third, fourth] = gone(DEADLINE + AFTER_MS + 5);
    check(
        &[script("a"), script("b"), after("x"), after("y")],
        &[(DEADLINE, Event::Tick), first, second, (DEADLINE + AFTER_MS, Event::Tick), third, fourth],
        &[
            "start 0 #1",
            "term",
            "end 0 Cancelled 143",
            "end 1 Cancelled",
            "start 2 #1",
            "term",
            "end 2 Cancelled 143",
            "end 3 Cancelled",
            &message,
        ],
    );
}

#[test]
fn no_step_begins_when_time_is_over() {
    let mut schedule = Schedule::new(vec![script("a")], 0, 100, GRACE);
    let acts = schedule.on(0, Event::Begin);
    let Act::End { end, .. } = &acts[0] else { panic!("{acts:?}") };
    assert_eq!(end.message.as_deref(), Some("the run took longer than 1m40s"), "nobody cancelled");
    let acts: Vec<String> = acts.iter().map(shown).collect();
    assert_eq!(acts[0], "end 0 Cancelled");
    assert!(acts[1].starts_with(RUN_TIMED_OUT));
}

#[test]
fn cancel_ends_a_waiting_step_at_once() {
    let message = format!("{CANCELLED} None: cancelled (Graceful) at step p");
    check(
        &[agent("p"), script("b"), after("x")],
        &[(1, Event::Cancel), (2, Event::Cancel), (3, exited(0))],
        &["ask 0", "end 0 Cancelled", "end 1 Cancelled", "start 2 #1", "end 2 ExitCode 0", &message],
    );
}

#[test]
fn cancel_keeps_the_result_of_a_step_that_ended_by_itself() {
    let message = format!("{CANCELLED} None: cancelled (Graceful) at step a");
    check(
        &[script("a"), script("b")],
        &[(1, Event::Cancel), (1, exited(0)), (1, Event::SessionGone)],
        &["start 0 #1", "term", "end 0 ExitCode 0", "end 1 Cancelled", &message],
    );
}

#[test]
fn cancel_in_a_pause_keeps_the_failure() {
    let step = PlanStep { retries: 3, ..script("a") };
    let said = said(&[step, script("b")], &[(1, exited(4)), (2, Event::Cancel)]);
    assert_eq!(said[2..4], ["end 0 ExitCode 4", "end 1 Cancelled"]);
    assert!(said[4].starts_with("Cancelled Some(0)"));
}

#[test]
fn cancel_before_the_first_step_and_in_after_steps() {
    let mut schedule = Schedule::new(vec![script("a"), after("x")], DEADLINE, 100, GRACE);
    assert!(schedule.on(0, Event::Cancel).is_empty());
    assert_eq!(schedule.on(1, Event::Begin).len(), 2);
    check(
        &[script("a"), after("x")],
        &[(1, exited(0)), (2, Event::Cancel), (3, exited(0))],
        &["start 0 #1", "end 0 ExitCode 0", "start 1 #1", "end 1 ExitCode 0", "passed true"],
    );
}

#[test]
fn a_stopped_box_has_no_after_steps_and_no_end_of_run() {
    check(
        &[script("a"), script("b"), after("x")],
        &[(1, Event::Stop(15)), (GRACE + 1, Event::Tick), (GRACE + 2, exited(137)), (GRACE + 3, Event::SessionGone)],
        &["start 0 #1", "term", "kill", "end 0 Cancelled 137", "leave 143"],
    );
    check(&[agent("a")], &[(1, Event::Stop(15))], &["ask 0", "end 0 Cancelled", "leave 143"]);
    let mut schedule = Schedule::new(vec![script("a")], DEADLINE, 100, GRACE);
    assert_eq!(schedule.on(0, Event::Stop(2)), [Act::Leave(130)]);
    let stopping = &[(1, Event::Cancel), (2, Event::Stop(15)), (3, exited(0)), (4, Event::SessionGone)];
    check(&[script("a"), after("x")], stopping, &["start 0 #1", "term", "end 0 Cancelled 0", "leave 143"]);
}
