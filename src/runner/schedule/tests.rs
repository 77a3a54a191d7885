//! Tables over the state machine: what happened, what it said.

mod restarts;

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
    let acts: Vec<String> = schedule.on(0, Event::Begin).iter().map(shown).collect();
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

const WAIT_S: u64 = 1800;

fn shell(name: &str) -> PlanStep {
    PlanStep { work: StepWork::Shell(crate::wire::ShellWork::default()), ..script(name) }
}

fn broken(at_failure: bool, before: &[&str], steps: &[PlanStep]) -> Schedule {
    let before = before.iter().map(|name| (*name).to_owned()).collect();
    let breakpoints = Breakpoints { at_failure, before, timeout_s: WAIT_S };
    Schedule::new(steps.to_vec(), DEADLINE, 100, GRACE).with_breakpoints(breakpoints)
}

/// As [`said`], of a schedule that waits at breakpoints.
fn told(mut schedule: Schedule, events: &[(u64, Event)]) -> Vec<String> {
    let events = std::iter::once((0, Event::Begin)).chain(events.iter().cloned());
    events.flat_map(|(now, event)| schedule.on(now, event)).map(|act| shown(&act)).collect()
}

fn asked(verb: Verb) -> Event {
    Event::Asked(verb)
}

#[test]
fn a_failed_step_waits_and_goes_on_as_it_would_have() {
    let steps = [script("a"), script("b"), after("c")];
    let wait_ms = WAIT_S * 1000;
    for (then, at) in [(asked(Verb::Continue), 9), (Event::Tick, 1 + wait_ms)] {
        let message = format!("{STEP_FAILED} Some(0): step a (1 of 2) failed with exit code 2");
        let events = [(1, exited(2)), (8, Event::Tick), (at, then), (at + 1, exited(0))];
        assert_eq!(
            told(broken(true, &[], &steps), &events),
            [
                "start 0 #1",
                "pause 0 ExitCode 2",
                "end 0 ExitCode 2",
                "end 1 EarlierStepFailed",
                "start 2 #1",
                "end 2 ExitCode 0",
                &message
            ]
        );
    }
}

#[test]
fn a_failed_step_is_repeated_until_it_passes() {
    let steps = [PlanStep { retries: 1, ..script("a") }, script("b")];
    let events = [
        (1, exited(1)),
        (1001, Event::Tick),
        (1002, exited(2)),
        (2000, asked(Verb::Retry)),
        (2001, exited(3)),
        (3000, asked(Verb::Retry)),
        (3001, exited(0)),
        (3002, exited(0)),
    ];
    assert_eq!(
        told(broken(true, &[], &steps), &events),
        [
            "start 0 #1",
            "repeat 0 ExitCode 1 in 1000",
            "start 0 #2",
            "pause 0 ExitCode 2",
            "start 0 #3",
            "pause 0 ExitCode 3",
            "start 0 #4",
            "end 0 ExitCode 0",
            "start 1 #1",
            "end 1 ExitCode 0",
            "passed true"
        ]
    );
}

#[test]
fn every_way_to_fail_waits_but_those_that_do_not_matter() {
    let slow = PlanStep { timeout_s: Some(1), ..script("a") };
    let lint = PlanStep { continue_on_failure: true, ..script("lint") };
    let refused = Event::Answered { passed: false, message: Some("401".into()) };
    for (steps, events, want) in [
        (
            vec![slow],
            vec![(1000, Event::Tick), (1001, exited(143)), (1002, Event::SessionGone)],
            "pause 0 TimedOut 143",
        ),
        (vec![script("a")], vec![(1, exited(137))], "pause 0 Signal 137"),
        (vec![script("a")], vec![(1, Event::NotStarted("no shell".into()))], "pause 0 NotStarted"),
        (vec![agent("p")], vec![(1, refused)], "pause 0 Agent"),
        (vec![lint], vec![(1, exited(1))], "passed true"),
        (vec![script("a"), after("x")], vec![(1, exited(0)), (2, exited(1))], "passed true"),
        (
            vec![script("a")],
            vec![(1, Event::Cancel), (2, exited(143)), (3, Event::SessionGone)],
            "Cancelled None: cancelled (Graceful) at step a",
        ),
    ] {
        assert_eq!(told(broken(true, &[], &steps), &events).last().unwrap(), want);
    }
}

#[test]
fn a_step_with_a_breakpoint_before_it_begins_when_told() {
    let steps = [script("a"), script("b"), after("c")];
    let events = [(1, exited(0)), (2, Event::Tick), (5, asked(Verb::Continue)), (6, exited(0)), (7, exited(0))];
    assert_eq!(
        told(broken(false, &["b", "c"], &steps), &events),
        [
            "start 0 #1",
            "end 0 ExitCode 0",
            "pause 1",
            "start 1 #1",
            "end 1 ExitCode 0",
            "start 2 #1",
            "end 2 ExitCode 0",
            "passed true"
        ],
        "after-steps do not wait"
    );
}

#[test]
fn a_step_that_nobody_let_begin_fails() {
    let events = [(WAIT_S * 1000 - 1, Event::Tick), (WAIT_S * 1000, Event::Tick)];
    assert_eq!(
        told(broken(false, &["a"], &[script("a"), script("b")]), &events),
        [
            "pause 0",
            "end 0 TimedOut",
            "end 1 EarlierStepFailed",
            "StepTimedOut Some(0): step a waited longer than 30m at its breakpoint; raise breakpointTimeout"
        ]
    );
}

#[test]
fn a_skipped_step_does_not_wait() {
    let said = told(broken(false, &["b"], &[script("a"), script("b")]), &[(1, exited(1))]);
    assert_eq!(said[1..3], ["end 0 ExitCode 1", "end 1 EarlierStepFailed"]);
}

#[test]
fn the_end_of_the_run_and_a_cancel_end_a_wait() {
    let steps = [script("a"), after("c")];
    let cancelled = "Cancelled None: cancelled (Graceful) at step a".to_owned();
    let over = format!("{RUN_TIMED_OUT} Some(0): the run took longer than 1m40s; step a was running");
    let failed = format!("{STEP_FAILED} Some(0): step a (1 of 1) failed with exit code 1");
    for (failure, event, at, end, want) in [
        (true, Event::Cancel, 9, "end 0 ExitCode 1", "Cancelled Some(0): cancelled (Graceful) at step a"),
        (false, Event::Cancel, 9, "end 0 Cancelled", &cancelled),
        (true, Event::Tick, DEADLINE, "end 0 ExitCode 1", &failed),
        (false, Event::Tick, DEADLINE, "end 0 Cancelled", &over),
    ] {
        let mut schedule = broken(failure, if failure { &[] } else { &["a"] }, &steps);
        schedule.breakpoints.timeout_s = 1_000_000;
        schedule.on(0, Event::Begin);
        if failure {
            schedule.on(1, exited(1));
        }
        let mut said: Vec<String> = schedule.on(at, event).iter().map(shown).collect();
        said.extend(schedule.on(at + 1, exited(0)).iter().map(shown));
        assert_eq!(said, [end, "start 1 #1", "end 1 ExitCode 0", want]);
    }
    let mut schedule = broken(true, &["a"], &steps);
    schedule.on(0, Event::Begin);
    let said: Vec<String> = schedule.on(1, Event::Stop(15)).iter().map(shown).collect();
    assert_eq!(said, ["end 0 Cancelled", "leave 143"]);
}

#[test]
fn a_shell_waits_without_a_limit_of_its_own_until_it_is_left_or_told() {
    let steps = [shell("look"), script("b")];
    check(
        &steps,
        &[(DEADLINE - 2, Event::Tick), (DEADLINE - 1, exited(0)), (DEADLINE - 1, exited(0))],
        &["start 0 #1", "end 0 ExitCode 0", "start 1 #1", "end 1 ExitCode 0", "passed true"],
    );
    for verb in [Verb::Continue, Verb::Finish] {
        check(
            &steps,
            &[(1, asked(verb)), (2, exited(143)), (3, Event::SessionGone)],
            &["start 0 #1", "term", "end 0 ExitCode 0", "start 1 #1"],
        );
    }
    let over = format!("{RUN_TIMED_OUT} Some(0): the run took longer than 1m40s; step look was running");
    check(
        &steps,
        &[(DEADLINE, Event::Tick), (DEADLINE + 1, exited(143)), (DEADLINE + 2, Event::SessionGone)],
        &["start 0 #1", "term", "end 0 Cancelled 143", "end 1 Cancelled", &over],
    );
}

#[test]
fn what_a_person_may_ask_depends_on_what_the_run_does() {
    let waits = |at_failure, before: &[&str], step: PlanStep, events: &[Event]| {
        let mut schedule = broken(at_failure, before, &[step]);
        for event in std::iter::once(&Event::Begin).chain(events) {
            schedule.on(1, event.clone());
        }
        schedule
    };
    let refused = Event::Answered { passed: false, message: None };
    let [go_on, finish, retry] = [Verb::Continue, Verb::Finish, Verb::Retry];
    let nobody = "the run waits for nobody: step a runs";
    for (schedule, verb, want) in [
        (broken(true, &[], &[script("a")]), go_on, Err("the steps have not begun")),
        (waits(true, &[], script("a"), &[]), go_on, Err(nobody)),
        (waits(true, &[], script("a"), &[]), retry, Err(nobody)),
        (
            waits(true, &[], script("a"), &[]),
            finish,
            Err("step a ends by itself; finish is for steps that wait to be told"),
        ),
        (waits(true, &[], agent("a"), &[]), go_on, Err(nobody)),
        (waits(true, &[], script("a"), &[exited(0)]), go_on, Err("the run is over")),
        (waits(true, &[], script("a"), &[Event::Cancel]), retry, Err("step a is being stopped")),
        (
            waits(true, &[], PlanStep { retries: 1, ..script("a") }, &[exited(1)]),
            retry,
            Err("step a is about to be repeated by itself"),
        ),
        (waits(true, &[], script("a"), &[exited(1)]), go_on, Ok(0)),
        (waits(true, &[], script("a"), &[exited(1)]), retry, Ok(0)),
        (
            waits(true, &[], script("a"), &[exited(1)]),
            finish,
            Err("step a waits at a breakpoint, which finish does not end; use continue"),
        ),
        (
            waits(true, &[], agent("a"), std::slice::from_ref(&refused)),
            retry,
            Err("step a was handed to the agent, which takes a step once; start the run again instead"),
        ),
        (
            waits(true, &[], pack("a"), &[exited(0), refused]),
            retry,
            Err("step a was handed to the agent, which takes a step once; start the run again instead"),
        ),
        (waits(true, &[], pack("a"), &[exited(137)]), retry, Ok(0)),
        (waits(false, &["a"], script("a"), &[]), retry, Err("step a has not run yet; use continue")),
        (waits(false, &["a"], script("a"), &[]), go_on, Ok(0)),
        (waits(false, &[], shell("a"), &[]), go_on, Ok(0)),
        (waits(false, &[], shell("a"), &[]), finish, Ok(0)),
        (waits(false, &[], shell("a"), &[]), retry, Err(nobody)),
    ] {
        assert_eq!(schedule.may(verb, None), want.map_err(str::to_owned), "{verb:?}");
        let other = schedule.may(verb, Some("z")).unwrap_err();
        assert!(schedule.current().is_none() || other == "step z does not wait; the run is at step a", "{other}");
    }
}

#[test]
fn packing_that_failed_is_repeated_until_the_agent_is_asked() {
    let passed = Event::Answered { passed: true, message: None };
    let timed = PlanStep { timeout_s: Some(1), ..pack("p") };
    let events = [
        (1, exited(137)),
        (2, asked(Verb::Retry)),
        (1002, Event::Tick),
        (1003, exited(143)),
        (1004, Event::SessionGone),
        (2000, asked(Verb::Retry)),
        (2001, exited(0)),
        (2002, passed),
    ];
    assert_eq!(
        told(broken(true, &[], &[timed]), &events),
        [
            "start 0 #1",
            "pause 0 Signal 137",
            "start 0 #2",
            "term",
            "pause 0 TimedOut 143",
            "start 0 #3",
            "ask 0",
            "end 0 ExitCode",
            "passed true"
        ]
    );
}

#[test]
fn a_terminal_has_longer_to_end_than_what_runs_on_it() {
    for (step, kill_at) in [(script("a"), GRACE), (shell("a"), GRACE + 3000)] {
        let mut schedule = broken(false, &[], &[step]);
        schedule.on(0, Event::Begin);
        assert_eq!(schedule.on(0, Event::Cancel), [Act::Terminate]);
        assert_eq!(schedule.on(kill_at - 1, Event::Tick), []);
        assert_eq!(schedule.on(kill_at, Event::Tick), [Act::Kill]);
    }
}

#[test]
fn steps_are_not_repeated_for_ever() {
    let mut schedule = broken(true, &[], &[script("a")]);
    schedule.on(0, Event::Begin);
    for attempt in 0..REPEATS {
        schedule.on(1, exited(1));
        let acts = schedule.on(2, asked(Verb::Retry));
        assert_eq!(acts, [Act::Start { step: 0, attempt: attempt + 2 }]);
    }
    schedule.on(1, exited(1));
    assert!(schedule.may(Verb::Retry, None).is_err());
    assert!(schedule.on(2, asked(Verb::Retry)).is_empty(), "and nothing happens");
    assert_eq!(schedule.on(3, asked(Verb::Continue)).len(), 2);
}
