//! Tables over waiting: breakpoints, terminals, and what people ask.

use super::*;

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
