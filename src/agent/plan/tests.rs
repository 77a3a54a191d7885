use super::*;
use crate::{
    agent::{
        fixture::{asked, ended, exited, failed, passed, run, run_with, started},
        journal::fold,
    },
    wire::{EndReason, Record, Wait},
};
use jiff::Timestamp;
use proptest::prelude::*;

const PUSH: usize = 1;

/// A world for [`plan`].
#[derive(Clone, Debug)]
struct World {
    run: Run,
    records: Vec<Record>,
    recorded: AgentStatus,
    answered: BTreeSet<usize>,
    works: BTreeMap<usize, Work>,
    wish: Wish,
    cancel_told: bool,
    record_told: bool,
    is_whole: bool,
    since_write: Option<Duration>,
    stopping: bool,
}

impl World {
    fn new(records: &[Record]) -> Self {
        Self {
            run: run(),
            records: records.to_vec(),
            recorded: AgentStatus::default(),
            answered: BTreeSet::new(),
            works: BTreeMap::new(),
            wish: Wish::Go,
            cancel_told: false,
            record_told: false,
            is_whole: true,
            since_write: None,
            stopping: false,
        }
    }

    fn plan(&self) -> Plan {
        let journal = fold(self.records.clone(), &self.run.outline);
        plan(&Observed {
            run: &self.run,
            journal: &journal,
            recorded: &self.recorded,
            answered: &self.answered,
            works: &self.works,
            wish: self.wish,
            cancel_told: self.cancel_told,
            record_told: self.record_told,
            is_whole: self.is_whole,
            pod_ip: None,
            since_write: self.since_write,
            stopping: self.stopping,
        })
    }

    /// Makes the changes as `apply` does.
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::TellCancel => self.cancel_told = true,
                Change::StopWork(step) => {
                    if let Some(Work::Running { stopping, .. }) = self.works.get_mut(&step) {
                        *stopping = true;
                    }
                }
                Change::WriteStatus(status) => {
                    self.recorded = *status;
                    self.since_write = Some(Duration::ZERO);
                }
                Change::Emit(_) => {}
                Change::StartWork { step, recorded, .. } => {
                    self.works.insert(step, Work::Running { message: None, image: recorded, stopping: false });
                }
                Change::Answer { step, .. } => {
                    assert!(self.answered.insert(step), "answered twice");
                }
                Change::TellRecorded => {
                    assert!(self.recorded.report.is_some(), "told before it is so");
                    self.record_told = true;
                }
            }
        }
    }

    /// Plans and applies until nothing changes; gives all changes.
    fn settle(&mut self) -> Vec<Change> {
        let mut all = Vec::new();
        for _ in 0..10 {
            let plan = self.plan();
            if plan.changes.is_empty() {
                return all;
            }
            all.extend(plan.changes.clone());
            self.apply(plan.changes);
        }
        panic!("does not settle: {all:?}");
    }
}

fn asking() -> Vec<Record> {
    vec![started(0), exited(0, 0), started(1), asked(1)]
}

fn image() -> ImageStatus {
    ImageStatus {
        repository: "registry.example.com/team/app".into(),
        tags: vec!["1".into(), "latest".into()],
        digest: "sha256:aa".into(),
        size: None,
    }
}

fn verdict() -> Work {
    Work::Done(Verdict::Passed {
        at: Timestamp::from_millisecond(4_150).unwrap(),
        images: vec![image()],
        message: None,
    })
}

fn is_write(change: &Change) -> bool {
    matches!(change, Change::WriteStatus(_))
}

#[test]
fn nothing_is_written_before_a_step_begins() {
    let ready = Record::Ready { at: 1, source_dir: "/s".into(), revision: Some("abc".into()) };
    assert_eq!(World::new(&[ready]).plan(), Plan::default());
}

#[test]
fn the_first_step_is_told_at_once() {
    let mut world = World::new(&[started(0)]);
    world.since_write = Some(Duration::ZERO);
    let changes = world.settle();
    assert!(is_write(&changes[0]));
    let event = RunEvent { reason: reason::RUNNING, note: "step 1 of 3: build".into() };
    assert_eq!(changes[1..], [Change::Emit(event)]);
}

#[test]
fn later_steps_wait_for_their_turn() {
    let mut world = World::new(&[started(0)]);
    world.settle();
    world.records.push(exited(0, 0));
    let plan = world.plan();
    assert_eq!((plan.changes.len(), plan.wake), (0, Some(WRITE_INTERVAL)));
    world.since_write = Some(WRITE_INTERVAL);
    assert!(is_write(&world.plan().changes[0]));
}

#[test]
fn ten_quick_steps_cost_two_writes() {
    let names = (0..10).map(|i| serde_json::json!({"name": format!("s{i}"), "script": "true"})).collect::<Vec<_>>();
    let mut world = World::new(&[started(0)]);
    world.run = crate::agent::fixture::run_of(serde_json::json!({"box": {"image": "a"}, "steps": names}));
    let mut writes = world.settle().iter().filter(|change| is_write(change)).count();
    for step in 0..10 {
        world.records.push(exited(step, 0));
        if step < 9 {
            world.records.push(started(step + 1));
        }
        writes += world.settle().iter().filter(|change| is_write(change)).count();
    }
    world.records.push(passed());
    writes += world.settle().iter().filter(|change| is_write(change)).count();
    assert_eq!(writes, 2);
    assert!(world.plan().done);
}

#[test]
fn what_is_stored_has_its_place_in_the_status_only() {
    let mut world = World::new(&asking());
    world.run = crate::agent::fixture::run_of(serde_json::json!({"box": {"image": "a"}, "steps": [
        {"name": "build", "script": "make"},
        {"name": "keep", "storeContainer": {"name": "app"}},
        {"name": "test", "script": "true"},
    ]}));
    let place = "windlass-artifacts.w.svc/team/hello/11-22";
    let image = ImageStatus { repository: place.into(), digest: "sha256:aa".into(), size: Some(7), tags: Vec::new() };
    world.settle();
    world.works.insert(PUSH, Work::Running { message: None, image: Some(image.clone()), stopping: false });
    assert!(is_write(&world.settle()[0]), "the digest is written at once");
    let artifact = world.recorded.artifacts[0].clone();
    assert_eq!((artifact.name.as_str(), artifact.location.as_deref()), ("app", Some(place)));
    assert!(world.recorded.steps[PUSH].images.is_empty());

    // An agent that starts anew goes on with the same place.
    let again = World { works: BTreeMap::new(), ..world.clone() };
    let recorded = Some(image.clone());
    assert_eq!(again.plan().changes[0], Change::StartWork { step: PUSH, began_ms: 1000, recorded });

    let at = Timestamp::from_millisecond(4100).unwrap();
    let images = vec![ImageStatus { tags: vec!["stored".into()], ..image.clone() }];
    let mut passed = world.clone();
    passed.works.insert(PUSH, Work::Done(Verdict::Passed { at, images, message: None }));
    let changes = passed.settle();
    assert!(is_write(&changes[0]));
    let told = "stored app (sha256:aa)";
    assert_eq!(changes[1], Change::Emit(RunEvent { reason: reason::STORED, note: format!("{told} in 3.1s") }));
    let answer = Answer { version: wire::VERSION, passed: true, log: vec![told.into()], message: None };
    assert_eq!(changes[2..], [Change::Answer { step: PUSH, verdict: None, answer }]);
    assert_eq!(passed.recorded.artifacts, [artifact]);

    // What is not whole is not told of any more.
    let failed =
        Verdict::Failed { at, images: vec![image], reason: reason::STORE_FAILED.into(), message: "away".into() };
    world.works.insert(PUSH, Work::Done(failed));
    world.settle();
    assert!(world.recorded.artifacts.is_empty());
    assert_eq!(world.recorded.steps[PUSH].reason.as_deref(), Some(reason::STORE_FAILED));
}

#[test]
fn a_push_from_request_to_answer() {
    let mut world = World::new(&asking());
    let changes = world.settle();
    let start = Change::StartWork { step: PUSH, began_ms: 1000, recorded: None };
    assert_eq!(changes[0], start, "the work does not wait for the status");

    // The digest is written at once, though the last write was just now.
    let before_tags = ImageStatus { tags: Vec::new(), ..image() };
    world.works.insert(PUSH, Work::Running { message: None, image: Some(before_tags), stopping: false });
    let changes = world.settle();
    assert!(is_write(&changes[0]));
    assert_eq!(world.recorded.steps[PUSH].images[0].tags, Vec::<String>::new());

    world.works.insert(PUSH, verdict());
    let changes = world.settle();
    let answer = Answer {
        version: wire::VERSION,
        passed: true,
        log: vec!["pushed registry.example.com/team/app: tags 1, latest (sha256:aa)".into()],
        message: None,
    };
    let Work::Done(kept) = verdict() else { panic!("it is done") };
    let given = Change::Answer { step: PUSH, verdict: Some(kept), answer };
    assert_eq!(changes[0], given, "the runner does not wait for the status");
    assert!(is_write(&changes[1]));
    let note = "pushed registry.example.com/team/app:1 (sha256:aa) in 3.1s".to_owned();
    assert_eq!(changes[2..], [Change::Emit(RunEvent { reason: reason::PUSHED, note })]);
}

#[test]
fn a_runner_that_asked_is_told_once_its_end_stands_in_the_status() {
    let mut world = World::new(&asking());
    world.settle();
    world.works.insert(PUSH, verdict());
    world.settle();
    world.records.extend([exited(PUSH, 0), started(2), exited(2, 0), started(3), exited(3, 0), passed()]);
    let changes = world.settle();
    assert!(is_write(&changes[0]) && changes.ends_with(&[Change::TellRecorded]), "{changes:?}");
    assert!(world.plan().done);
    // One that did not ask does not wait.
    let mut world = World::new(&[started(0), exited(0, 1), failed("StepFailed", 0)]);
    assert!(!world.settle().contains(&Change::TellRecorded));
}

#[test]
fn a_restart_between_status_and_answer_only_answers() {
    let mut world = World::new(&asking());
    world.settle();
    world.works.insert(PUSH, verdict());
    let status = world.plan().changes.into_iter().filter(is_write).collect();
    world.apply(status);
    world.works.clear();
    let changes = world.settle();
    assert!(matches!(changes[..], [Change::Answer { step: PUSH, verdict: None, .. }]), "{changes:?}");
}

#[test]
fn a_restart_in_mid_push_hands_the_digest_on() {
    let mut world = World::new(&asking());
    world.settle();
    world.works.insert(PUSH, Work::Running { message: None, image: Some(image()), stopping: false });
    world.settle();
    world.works.clear();
    let start = Change::StartWork { step: PUSH, began_ms: 1000, recorded: Some(image()) };
    assert_eq!(world.settle(), [start]);
}

#[test]
fn no_work_begins_on_half_a_look() {
    let mut world = World { is_whole: false, ..World::new(&asking()) };
    assert!(world.settle().iter().all(|change| !matches!(change, Change::StartWork { .. })));
    world.is_whole = true;
    assert!(matches!(world.settle()[..], [Change::StartWork { step: PUSH, .. }]));
}

#[test]
fn an_answered_step_is_not_begun_again() {
    let mut world = World::new(&asking());
    world.answered.insert(PUSH);
    assert!(world.settle().iter().all(|change| !matches!(change, Change::StartWork { .. } | Change::Answer { .. })));
}

#[test]
fn a_cancel_is_told_once_and_stops_the_push() {
    let mut world = World::new(&asking());
    world.settle();
    world.wish = Wish::Cancel;
    assert_eq!(world.settle(), [Change::TellCancel, Change::StopWork(PUSH)]);
}

#[test]
fn a_cancel_before_the_push_begins_leaves_it_alone() {
    let mut world = World::new(&asking());
    world.wish = Wish::Cancel;
    assert!(world.settle().iter().all(|change| !matches!(change, Change::StartWork { .. })));
}

#[test]
fn an_after_step_pushes_in_spite_of_a_cancel() {
    let mut world = World::new(&[started(0), asked(0)]);
    world.run = crate::agent::fixture::run_of(serde_json::json!({
        "box": {"image": "a"}, "steps": [{"name": "a", "script": "true"}],
        "afterSteps": [{"name": "keep", "dockerPush": {"repository": "r.io/a"}}],
    }));
    world.records = vec![started(0), ended(0, EndReason::Cancelled), started(1), asked(1)];
    world.wish = Wish::Cancel;
    let changes = world.settle();
    assert!(changes.iter().any(|change| matches!(change, Change::StartWork { step: 1, .. })), "{changes:?}");
    assert_eq!(world.settle(), []);
}

#[test]
fn a_step_that_timed_out_takes_its_push_with_it() {
    let mut world = World::new(&asking());
    world.settle();
    world.records.push(ended(1, EndReason::TimedOut));
    assert!(world.settle().contains(&Change::StopWork(PUSH)));
    world.records.extend([ended(2, EndReason::EarlierStepFailed), started(3), exited(3, 0), failed("StepTimedOut", 1)]);
    world.settle();
    assert_eq!(world.recorded.report, None, "the push is still in flight");
    world.works.insert(PUSH, Work::Done(Verdict::Stopped { images: Vec::new() }));
    world.settle();
    let report = world.recorded.report.clone().unwrap();
    assert_eq!(report.reason.as_deref(), Some(reason::STEP_TIMED_OUT));
    assert!(world.plan().done);
}

#[test]
fn a_shutdown_begins_nothing_and_ends_when_idle() {
    let mut world = World::new(&asking());
    world.stopping = true;
    let changes = world.settle();
    assert!(changes.iter().all(is_write_or_event), "{changes:?}");
    assert!(world.plan().done);
    world.works.insert(PUSH, Work::Running { message: None, image: None, stopping: false });
    assert!(!world.plan().done, "a push in flight goes on");
}

fn is_write_or_event(change: &Change) -> bool {
    matches!(change, Change::WriteStatus(_) | Change::Emit(_))
}

#[test]
fn an_abandoned_run_stops_its_work_and_is_done() {
    let mut world = World::new(&asking());
    world.settle();
    world.wish = Wish::Abandon;
    assert_eq!(world.settle(), [Change::StopWork(PUSH)]);
    assert!(!world.plan().done);
    world.works.insert(PUSH, Work::Done(Verdict::Stopped { images: Vec::new() }));
    world.settle();
    assert!(world.plan().done);
}

fn any_step() -> impl Strategy<Value = Record> {
    prop_oneof![
        (0usize..4).prop_map(started),
        (0usize..4).prop_map(asked),
        (0usize..4, 0..2i32).prop_map(|(step, code)| exited(step, code)),
        (0usize..4, 0u8..9).prop_map(|(step, reason)| ended(step, EndReason::from_number(reason).unwrap())),
        Just(passed()),
        (0usize..6).prop_map(|step| failed("StepFailed", step)),
    ]
}

proptest! {
    #[test]
    fn every_world_settles(
        records in proptest::collection::vec(any_step(), 0..14),
        wish in prop_oneof![Just(Wish::Go), Just(Wish::Cancel), Just(Wish::Abandon)],
        work in prop_oneof![Just(None), Just(Some(verdict())), Just(Some(Work::Done(Verdict::Stopped { images: Vec::new() })))],
        stopping in any::<bool>(),
        answered in any::<bool>(),
    ) {
        let mut world = World::new(&records);
        world.wish = wish;
        world.stopping = stopping;
        world.works.extend(work.map(|work| (PUSH, work)));
        world.answered.extend(answered.then_some(PUSH));
        world.settle();
        prop_assert_eq!(world.settle(), []);
    }
}

/// A run that waits wherever one can.
fn that_waits(records: &[Record]) -> World {
    let spec = serde_json::json!({
        "box": {"image": "debian"},
        "steps": [
            {"name": "test", "script": "x"},
            {"name": "look", "shell": {}},
            {"name": "push", "dockerPush": {"repository": "h.io/a"}},
        ],
    });
    let breakpoint = serde_json::json!({"atFailure": true, "before": ["test"]});
    World { run: run_with(spec, breakpoint), since_write: Some(Duration::ZERO), ..World::new(records) }
}

fn waits(step: usize, why: Wait, code: Option<i32>) -> Record {
    Record::Waiting { at: 1000, step, why, code }
}

#[test]
fn a_wait_for_a_person_is_written_at_once_and_told_once() {
    let mut world = that_waits(&[]);
    let attach = "attach with: windlass shell hello-7";
    for (records, message) in [
        (
            vec![waits(0, Wait::Before, None)],
            format!("step test waits; it has not begun; {attach}; go on with: windlass continue hello-7"),
        ),
        (
            vec![started(0), waits(0, Wait::Failed, Some(2))],
            format!(
                "step test waits; it failed with exit code 2; {attach}; then: windlass retry hello-7 --step test, or windlass continue hello-7"
            ),
        ),
        (
            vec![Record::Started { at: 1, step: 0, attempt: 2 }, exited(0, 0), started(1), waits(1, Wait::Shell, None)],
            format!("step look waits; {attach}"),
        ),
    ] {
        world.records.extend(records);
        world.since_write = Some(Duration::ZERO);
        let told: Vec<_> = world.settle().into_iter().filter(|change| !is_write(change)).collect();
        let waiting = told.iter().filter(|c| matches!(c, Change::Emit(e) if e.reason == reason::WAITING_FOR_USER));
        let event = RunEvent { reason: reason::WAITING_FOR_USER, note: message };
        assert_eq!(waiting.collect::<Vec<_>>(), [&Change::Emit(event)], "{told:?}");
    }
    let look = world.recorded.step("look").unwrap();
    assert_eq!((look.phase, look.reason.as_deref()), (StepPhase::Waiting, Some(reason::ATTACH)));
    world.records.push(exited(1, 0));
    world.since_write = Some(Duration::ZERO);
    assert!(world.settle().iter().all(is_write), "going on is written at once");
    assert_eq!(world.recorded.step("look").unwrap().reason, None);
}

#[test]
fn the_failure_of_a_push_in_a_run_with_a_breakpoint_says_that_the_box_waits() {
    let mut world = that_waits(&[started(0), exited(0, 0), started(1), exited(1, 0), started(2), asked(2)]);
    let failed = Verdict::Failed {
        at: Timestamp::from_second(3).unwrap(),
        images: Vec::new(),
        reason: reason::REGISTRY_FORBIDDEN.into(),
        message: "no".into(),
    };
    world.works.insert(2, Work::Done(failed));
    let note = "step push failed and waits; attach with: windlass shell hello-7".to_owned();
    let changes = world.settle();
    assert!(changes.contains(&Change::Emit(RunEvent { reason: reason::WAITING_FOR_USER, note })), "{changes:?}");
    world.records.push(waits(2, Wait::Failed, None));
    assert!(world.settle().is_empty(), "the agent's own word stands");
    assert_eq!(world.recorded.step("push").unwrap().phase, StepPhase::Failed);
}
