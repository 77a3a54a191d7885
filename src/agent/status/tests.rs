use super::*;
use crate::{
    agent::{
        fixture::{asked, ended, exited, failed, passed, phases, run, run_of, run_with, started},
        journal::fold,
    },
    api::status::ImageStatus,
    wire::{Note, Record},
};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

const PUSH: usize = 1;

fn image() -> ImageStatus {
    ImageStatus {
        repository: "registry.example.com/team/app".into(),
        tags: vec!["1".into()],
        digest: "sha256:aa".into(),
        size: None,
    }
}

fn pushed() -> Work {
    Work::Done(Verdict::Passed { at: Timestamp::from_second(3).unwrap(), images: vec![image()], message: None })
}

fn push_failed() -> Work {
    Work::Done(Verdict::Failed {
        at: Timestamp::from_second(3).unwrap(),
        images: Vec::new(),
        reason: reason::REGISTRY_FORBIDDEN.into(),
        message: "demo may not push to team/app".into(),
    })
}

fn in_flight() -> Work {
    Work::Running { message: Some("pushing".into()), image: None, stopping: false }
}

fn status(records: &[Record], recorded: &AgentStatus, work: Option<Work>) -> AgentStatus {
    let run = run();
    let works = work.into_iter().map(|work| (PUSH, work)).collect();
    compose(&run, &fold(records.to_vec(), &run.outline), recorded, &works, None)
}

fn green() -> Vec<Record> {
    vec![
        started(0),
        exited(0, 0),
        started(1),
        asked(1),
        ended(1, EndReason::ExitCode),
        started(2),
        exited(2, 0),
        started(3),
        exited(3, 0),
        passed(),
    ]
}

#[test]
fn a_green_run() {
    let status = status(&green(), &AgentStatus::default(), Some(pushed()));
    assert_eq!(phases(&status.steps), [StepPhase::Succeeded; 4]);
    assert_eq!(status.summary_steps.as_deref(), Some("3/3"));
    assert_eq!(status.steps[PUSH].images, [image()]);
    assert_eq!(status.steps[PUSH].exit_code, None);
    assert_eq!(status.steps[0].exit_code, Some(0));
    assert_eq!(status.report.unwrap().result, ReportResult::Passed);
}

#[test]
fn without_the_agents_word_a_push_did_not_pass() {
    let status = status(&green(), &AgentStatus::default(), None);
    assert_eq!(status.steps[PUSH].phase, StepPhase::Failed);
    let report = status.report.unwrap();
    assert_eq!(report.result, ReportResult::Failed);
    assert_eq!(report.reason.as_deref(), Some(reason::REPORT_LOST));
    assert_eq!(report.failed_step.as_deref(), Some("push"));
}

#[test]
fn the_agents_failure_stands_against_the_boxs_claim() {
    let status = status(&green(), &AgentStatus::default(), Some(push_failed()));
    let report = status.report.unwrap();
    assert_eq!(report.reason.as_deref(), Some(reason::STEP_FAILED));
    assert_eq!(report.message.as_deref(), Some("step push failed: demo may not push to team/app"));
}

#[rstest]
#[case::nothing_ran(vec![passed()], "build")]
#[case::one_step_is_missing(vec![started(0), exited(0, 0), passed()], "push")]
#[case::a_step_still_runs(vec![started(0), passed()], "build")]
#[case::skipped(vec![ended(0, EndReason::EarlierStepFailed), passed()], "build")]
fn a_claim_without_records_is_never_green(#[case] records: Vec<Record>, #[case] step: &str) {
    let status = status(&records, &AgentStatus::default(), None);
    let report = status.report.unwrap();
    assert_eq!((report.result, report.reason.as_deref()), (ReportResult::Failed, Some(reason::REPORT_LOST)));
    assert_eq!(report.failed_step.as_deref(), Some(step));
    assert!(status.steps.iter().all(|step| step.phase.is_final()));
}

#[test]
fn a_failing_script() {
    let skipped = |step| ended(step, EndReason::EarlierStepFailed);
    let records = [started(0), exited(0, 2), skipped(1), skipped(2), started(3), exited(3, 0), failed("StepFailed", 0)];
    let status = status(&records, &AgentStatus::default(), None);
    assert_eq!(
        phases(&status.steps),
        [StepPhase::Failed, StepPhase::Skipped, StepPhase::Skipped, StepPhase::Succeeded]
    );
    assert_eq!(status.summary_steps.as_deref(), Some("1/3"));
    assert_eq!(status.steps[0].reason.as_deref(), Some(reason::EXIT_CODE));
    let report = status.report.unwrap();
    assert_eq!(report.message.as_deref(), Some("step build (1 of 3) failed with exit code 2"));
    assert_eq!(report.finished_at.unwrap().0, Timestamp::from_second(9).unwrap());
}

#[test]
fn a_failing_push_has_the_agents_reason() {
    let skipped = ended(2, EndReason::EarlierStepFailed);
    let records = [
        started(0),
        exited(0, 0),
        started(1),
        asked(1),
        ended(1, EndReason::Agent),
        skipped,
        started(3),
        exited(3, 0),
        failed("StepFailed", 1),
    ];
    let status = status(&records, &AgentStatus::default(), Some(push_failed()));
    assert_eq!(status.steps[PUSH].reason.as_deref(), Some(reason::REGISTRY_FORBIDDEN));
    assert_eq!(status.report.unwrap().message.as_deref(), Some("step push failed: demo may not push to team/app"));
}

#[rstest]
#[case("Cancelled", reason::CANCELLED)]
#[case("RunTimedOut", reason::RUN_TIMED_OUT)]
#[case("PodLost", reason::STEP_FAILED)]
fn the_runners_reason_is_from_a_closed_list(#[case] told: &str, #[case] expected: &str) {
    let status = status(&[started(0), exited(0, 1), failed(told, 0)], &AgentStatus::default(), None);
    assert_eq!(status.report.unwrap().reason.as_deref(), Some(expected));
}

#[test]
fn the_report_waits_for_a_push_in_flight() {
    let records =
        [started(0), exited(0, 0), started(1), asked(1), ended(1, EndReason::Cancelled), failed("Cancelled", 1)];
    let before = status(&records, &AgentStatus::default(), Some(in_flight()));
    assert_eq!(before.report, None);
    assert_eq!(before.steps[PUSH].phase, StepPhase::Running);
    let stopped = Work::Done(Verdict::Stopped { images: vec![image()] });
    let after = status(&records, &before, Some(stopped));
    assert_eq!(after.report.unwrap().reason.as_deref(), Some(reason::CANCELLED));
    assert_eq!(after.steps[PUSH].phase, StepPhase::Cancelled);
    assert_eq!(after.steps[PUSH].images, [image()], "what moved is told");
}

#[test]
fn what_is_recorded_as_over_stays() {
    let first = status(&[started(0), exited(0, 1)], &AgentStatus::default(), None);
    // The box writes itself another past.
    let second = status(&green(), &first, Some(pushed()));
    assert_eq!(second.steps[0], first.steps[0]);
    let report = second.report.unwrap();
    assert_eq!(report.result, ReportResult::Failed);
    assert_eq!(report.failed_step.as_deref(), Some("build"));
}

#[test]
fn a_restart_keeps_the_recorded_image() {
    let asked = [started(0), exited(0, 0), started(1), asked(1)];
    let before = status(
        &asked,
        &AgentStatus::default(),
        Some(Work::Running { message: None, image: Some(image()), stopping: false }),
    );
    let after = status(&asked, &before, None);
    assert_eq!(after.steps[PUSH].images, [image()]);
}

#[test]
fn a_failure_that_may_continue() {
    let mut run = run();
    run.outline[0].continues = true;
    let mut records = green();
    records[1] = exited(0, 3);
    let works = [(PUSH, pushed())].into();
    let status = compose(&run, &fold(records, &run.outline), &AgentStatus::default(), &works, None);
    assert_eq!(status.steps[0].phase, StepPhase::Failed);
    assert_eq!(status.report.unwrap().result, ReportResult::Passed);
}

#[test]
fn times_are_as_the_api_server_gives_them_back() {
    let status = status(&green(), &AgentStatus::default(), Some(pushed()));
    let json = serde_json::to_value(&status.steps).unwrap();
    let back: Vec<StepStatus> = serde_json::from_value(json).unwrap();
    assert_eq!(back, status.steps);
}

#[test]
fn a_watched_step_says_where_it_is_reachable_and_what_limits_it_while_it_runs() {
    let run = run_of(json!({
        "box": {"image": "debian"},
        "steps": [{"name": "serve", "watch": {"code": "serve", "reload": true, "ports": [5000, 80]}}],
    }));
    let of = |records: Vec<Record>, recorded: &AgentStatus| {
        let ip = "10.1.2.3".parse().ok();
        compose(&run, &fold(records, &run.outline), recorded, &BTreeMap::new(), ip)
    };
    let noted = Record::Noted { at: 700, step: 0, note: Note::WatchLimit, message: "raise it".into() };
    assert_eq!(of(vec![], &AgentStatus::default()).steps[0].addresses, [""; 0]);
    let begun = of(vec![started(0)], &AgentStatus::default());
    assert_eq!(begun.steps[0].addresses, ["10.1.2.3:5000", "10.1.2.3:80"]);
    assert_eq!((begun.steps[0].phase, begun.steps[0].reason.as_deref()), (StepPhase::Running, None));
    let limited = of(vec![started(0), noted.clone()], &begun);
    assert_eq!(limited.steps[0].reason.as_deref(), Some(reason::WATCH_LIMIT));
    assert_eq!(limited.steps[0].message.as_deref(), Some("raise it"));
    let over = of(vec![started(0), noted, exited(0, 0), passed()], &limited);
    assert_eq!((over.steps[0].phase, &over.steps[0].reason), (StepPhase::Succeeded, &None));
    assert_eq!((&over.steps[0].message, over.steps[0].addresses.len()), (&None, 0));
    assert_eq!(over.report.unwrap().result, ReportResult::Passed);
}

#[rstest]
#[case(json!({"name": "push", "dockerPush": {"repository": "h.io/a"}}))]
#[case(json!({"name": "push", "dockerScratchPush": {"repository": "h.io/a"}}))]
#[case(json!({"name": "push", "storeContainer": {}}))]
fn a_breakpoint_before_a_step_of_the_agent_is_seen(#[case] step: serde_json::Value) {
    let run = run_with(json!({"box": {"image": "debian"}, "steps": [step]}), json!({"before": ["push"]}));
    let of = |records: &[Record], recorded: &AgentStatus| {
        compose(&run, &fold(records.to_vec(), &run.outline), recorded, &BTreeMap::new(), None)
    };
    let waits = Record::Waiting { at: 1, step: 0, why: Wait::Before, code: None };
    let waiting = of(std::slice::from_ref(&waits), &AgentStatus::default());
    let seen = &waiting.steps[0];
    assert_eq!((seen.phase, seen.reason.as_deref()), (StepPhase::Waiting, Some(reason::ATTACH)));
    let message = "it has not begun; attach with: windlass shell hello-7; go on with: windlass continue hello-7";
    assert_eq!(seen.message.as_deref(), Some(message));
    let on = of(&[waits, asked(0)], &waiting);
    assert_eq!((on.steps[0].phase, &on.steps[0].reason, &on.steps[0].message), (StepPhase::Running, &None, &None));
}

proptest! {
    #[test]
    fn steps_only_go_forward(cuts in proptest::collection::vec(0usize..=10, 1..6), lie in any::<bool>()) {
        let mut recorded = AgentStatus::default();
        for cut in cuts {
            let mut records = green();
            if lie {
                records[1] = exited(0, 1);
            }
            records.truncate(cut);
            let next = status(&records, &recorded, None);
            for (old, new) in recorded.steps.iter().zip(&next.steps) {
                prop_assert!(!old.phase.is_final() || old == new);
                prop_assert!(old.started_at.is_none() || new.started_at.is_some());
            }
            prop_assert!(recorded.report.is_none() || next.report == recorded.report);
            recorded = next;
        }
    }
}
