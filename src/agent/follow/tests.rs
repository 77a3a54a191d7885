//! A run of three steps with a push, on a kubelet's folder with a box that writes as the runner does. The agent is
//! ended at each point where it could be and begun anew; the end must be the same.

use super::*;
use crate::{
    agent::{
        fixture::{POD_UID, asked, ended, exited, failed, passed, phases, run, started},
        plan::RunEvent,
        push::Push,
    },
    api::{
        condition::reason,
        status::{ImageStatus, ReportResult, StepPhase},
    },
    registry::{PushError, Pushed},
    wire::{Answer, EndReason, Record},
};
use futures::future::BoxFuture;
use rstest::rstest;
use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// Ends the agent at the nth point that it comes to.
#[derive(Default)]
struct Crash {
    at: Option<usize>,
    points: AtomicUsize,
    hit: Notify,
}

impl Crash {
    async fn point(&self) {
        if Some(self.points.fetch_add(1, Ordering::SeqCst)) == self.at {
            self.hit.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// The API server, the engine and the registry: they outlive the agent.
#[derive(Default)]
struct World {
    crash: Crash,
    status: Mutex<AgentStatus>,
    writes: AtomicUsize,
    /// How many writes fail.
    away: AtomicUsize,
    events: Mutex<Vec<RunEvent>>,
    /// Whether the run is over, so that nothing of it may be written.
    over: AtomicBool,
    /// Whether it was deleted.
    gone: AtomicBool,
    tags: Mutex<BTreeMap<String, String>>,
    manifests: Mutex<BTreeSet<String>>,
    moves: Mutex<Vec<String>>,
    commits: AtomicUsize,
    /// Failures of the next pushes.
    failures: Mutex<Vec<PushError>>,
    /// Whether a push waits between its tags until it is stopped.
    hangs: bool,
    /// Messages of steps that run, as they were written.
    messages: Mutex<Vec<String>>,
}

impl World {
    fn put(&self, tag: &str, digest: &str) {
        let status = self.status.lock().unwrap();
        let recorded = status.step("push").map(|step| step.images.clone()).unwrap_or_default();
        assert!(recorded.iter().any(|image| image.digest == digest), "{tag} moves before its digest is recorded");
        self.tags.lock().unwrap().insert(tag.into(), digest.into());
        self.manifests.lock().unwrap().insert(digest.into());
        self.moves.lock().unwrap().push(tag.into());
    }
}

impl StatusSink for World {
    fn write<'a>(&'a self, _run: &'a Run, status: &'a AgentStatus) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(async move {
            self.crash.point().await;
            if self.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err(WriteError::TimedOut);
            }
            if self.gone.load(Ordering::SeqCst) {
                return Err(WriteError::Gone);
            }
            assert!(!self.over.load(Ordering::SeqCst), "a run that is over is written");
            *self.status.lock().unwrap() = status.clone();
            let running = status.steps.iter().filter(|step| step.phase == StepPhase::Running);
            self.messages.lock().unwrap().extend(running.filter_map(|step| step.message.clone()));
            self.writes.fetch_add(1, Ordering::SeqCst);
            self.crash.point().await;
            Ok(())
        })
    }

    fn write_last<'a>(&'a self, run: &'a Run, status: &'a AgentStatus) -> BoxFuture<'a, Result<bool, WriteError>> {
        Box::pin(async move {
            if self.over.load(Ordering::SeqCst) || self.gone.load(Ordering::SeqCst) {
                return Ok(false);
            }
            self.write(run, status).await.map(|()| true)
        })
    }

    fn emit(&self, _run: &Run, event: &RunEvent) {
        self.events.lock().unwrap().push(event.clone());
    }
}

impl Transport for World {
    fn push<'a>(&'a self, push: &'a Push, line: &'a Line) -> BoxFuture<'a, Result<Pushed, PushError>> {
        Box::pin(async move {
            self.crash.point().await;
            let commit = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
            if let Some(failure) = self.failures.lock().unwrap().pop() {
                return Err(failure);
            }
            // Another commit of the same box need not give the same bytes.
            let digest = format!("sha256:{commit:064x}");
            self.crash.point().await;
            let repository = push.repository.to_string();
            line.record(ImageStatus { repository, tags: Vec::new(), digest: digest.clone(), size: Some(9) }).await?;
            for tag in &push.plan.tags {
                self.crash.point().await;
                if line.is_stopped() {
                    return Err(PushError::stopped());
                }
                self.put(tag, &digest);
                self.crash.point().await;
                line.moved(tag);
                if self.hangs {
                    for second in 0..8 {
                        line.progress(format!("pushing: {second}"));
                        let _stopped = tokio::time::timeout(Duration::from_secs(1), line.stopped()).await;
                    }
                    line.progress("pushing: the rest".into());
                    line.stopped().await;
                }
            }
            self.crash.point().await;
            Ok(Pushed { digest, size: 9, tags: push.plan.tags.clone(), warnings: Vec::new() })
        })
    }

    fn digest_of<'a>(
        &'a self,
        _push: &'a Push,
        tag: &'a str,
        _line: &'a Line,
    ) -> BoxFuture<'a, Result<Option<String>, PushError>> {
        Box::pin(async move {
            self.crash.point().await;
            if self.manifests.lock().unwrap().contains(tag) {
                return Ok(Some(tag.to_owned()));
            }
            Ok(self.tags.lock().unwrap().get(tag).cloned())
        })
    }

    fn tag_again<'a>(
        &'a self,
        _push: &'a Push,
        digest: &'a str,
        tag: &'a str,
        _line: &'a Line,
    ) -> BoxFuture<'a, Result<(), PushError>> {
        Box::pin(async move {
            self.crash.point().await;
            assert!(self.manifests.lock().unwrap().contains(digest));
            self.put(tag, digest);
            self.crash.point().await;
            Ok(())
        })
    }
}

/// A run pod whose box does what the runner does.
struct Pod {
    _kubelet: tempfile::TempDir,
    kubelet: PathBuf,
    volumes: Volumes,
}

impl Pod {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubelet = folder.path().to_path_buf();
        let login = kubelet.join("pods").join(POD_UID).join("volumes/kubernetes.io~secret/push-0");
        std::fs::create_dir_all(&login).unwrap();
        std::fs::write(login.join("username"), "demo").unwrap();
        std::fs::write(login.join("password"), "pw").unwrap();
        let keys = login.with_file_name("secret-0");
        std::fs::create_dir(&keys).unwrap();
        std::fs::write(keys.join("api"), "the value").unwrap();
        let volumes = Volumes::new(&kubelet, POD_UID);
        Self { _kubelet: folder, kubelet, volumes }
    }

    fn mount(&self) {
        std::fs::create_dir_all(self.volumes.in_dir()).unwrap();
        std::fs::create_dir_all(self.volumes.out_dir()).unwrap();
        let plan = serde_json::to_vec(&crate::wire::Plan::default()).unwrap();
        std::fs::write(self.volumes.in_dir().join(crate::wire::PLAN_FILE), plan).unwrap();
    }

    fn record(&self, records: &[Record]) {
        let path = self.volumes.out_dir().join("journal");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        for record in records {
            writeln!(file, "{}", serde_json::to_string(record).unwrap()).unwrap();
        }
    }

    fn ask(&self) {
        let request = serde_json::json!({"version": 1, "step": 1, "run_env": {}, "env": {"VERSION": "1.4"}});
        std::fs::write(self.volumes.out_dir().join("request-1.json"), request.to_string()).unwrap();
        self.record(&[started(1), asked(1)]);
    }

    async fn answer(&self) -> Answer {
        let path = self.volumes.in_dir().join("answer-1.json");
        until(|| path.exists()).await;
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// The box's whole life.
    async fn live(&self) -> Answer {
        tokio::time::sleep(Duration::from_millis(120)).await;
        self.mount();
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.record(&[started(0)]);
        tokio::time::sleep(Duration::from_secs(3)).await;
        self.record(&[exited(0, 0)]);
        self.ask();
        let answer = self.answer().await;
        let (reason, end) =
            if answer.passed { (EndReason::ExitCode, passed()) } else { (EndReason::Agent, failed("StepFailed", 1)) };
        self.record(&[ended(1, reason)]);
        if answer.passed {
            self.record(&[started(2), exited(2, 0)]);
        } else {
            self.record(&[ended(2, EndReason::EarlierStepFailed)]);
        }
        self.record(&[started(3), exited(3, 0), end]);
        answer
    }
}

async fn until(condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), waited).await.expect("it never came");
}

fn post(kubelet: &Path, world: &Arc<World>) -> Arc<Post> {
    Arc::new(Post {
        kubelet_dir: kubelet.into(),
        sink: world.clone(),
        transport: world.clone(),
        doorbell: None,
        shelf: Arc::default(),
        pace: Pace::Sparing,
        stopping: CancellationToken::new(),
    })
}

/// An agent, begun with what stands in the status.
fn agent(post: &Arc<Post>, world: &World, wish: &watch::Receiver<Wish>) -> tokio::task::JoinHandle<()> {
    let recorded = world.status.lock().unwrap().clone();
    tokio::spawn(follow(post.clone(), Arc::new(run()), recorded, wish.clone(), CancellationToken::new()))
}

/// Runs to the end, with one crash of the agent. Gives whether it came to that point.
async fn play(at: Option<usize>, world: World) -> (Arc<World>, Answer, bool) {
    let world = Arc::new(World { crash: Crash { at, ..Crash::default() }, ..world });
    let pod = Pod::new();
    let post = post(&pod.kubelet, &world);
    let (_wish, wished) = watch::channel(Wish::Go);
    let mut task = agent(&post, &world, &wished);
    let box_life = pod.live();
    futures::pin_mut!(box_life);
    let mut answer = None;
    let mut crashed = false;
    let ended = async {
        loop {
            tokio::select! {
                () = world.crash.hit.notified() => {
                    task.abort();
                    let _ended = (&mut task).await;
                    crashed = true;
                    task = agent(&post, &world, &wished);
                }
                given = &mut box_life, if answer.is_none() => answer = Some(given),
                _ = &mut task => break,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), ended).await.expect("the run never ended");
    (world, answer.expect("the agent ended before the box"), crashed)
}

#[tokio::test(start_paused = true)]
async fn a_run_with_a_push() {
    let (world, answer, _) = play(None, World::default()).await;
    let status = world.status.lock().unwrap().clone();
    assert_eq!(phases(&status.steps), [StepPhase::Succeeded; 4]);
    assert_eq!(status.report.clone().unwrap().result, ReportResult::Passed);
    assert_eq!(status.summary_steps.as_deref(), Some("3/3"));
    let digest = format!("sha256:{:064x}", 1);
    assert_eq!(status.steps[1].images[0].tags, ["1.4", "latest"]);
    assert_eq!(status.steps[1].images[0].digest, digest);
    assert!(answer.passed);
    assert_eq!(answer.log, [format!("pushed registry.example.com/team/app: tags 1.4, latest ({digest})")]);
    let reasons: Vec<_> = world.events.lock().unwrap().iter().map(|event| event.reason).collect();
    assert_eq!(reasons, [reason::RUNNING, reason::PUSHED]);
    // Running; push begins; digest; pushed; report.
    let writes = world.writes.load(Ordering::SeqCst);
    assert!(writes <= 5, "{writes} writes");
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_point_changes_nothing_for_people() {
    let mut points = 0;
    loop {
        let (world, answer, crashed) = play(Some(points), World::default()).await;
        let status = world.status.lock().unwrap().clone();
        let told = format!("crash at point {points}: {status:#?}");
        assert_eq!(phases(&status.steps), [StepPhase::Succeeded; 4], "{told}");
        assert_eq!(status.report.as_ref().unwrap().result, ReportResult::Passed, "{told}");
        assert_eq!(*world.moves.lock().unwrap(), ["1.4", "latest"], "each tag moves once: {told}");
        let image = &status.steps[1].images[0];
        assert_eq!(image.tags, ["1.4", "latest"], "{told}");
        assert!(world.tags.lock().unwrap().values().all(|digest| *digest == image.digest), "{told}");
        assert!(answer.passed, "{told}");
        if !crashed {
            break;
        }
        points += 1;
    }
    assert!(points >= 12, "only {points} points");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_is_tried_again_and_another_is_told() {
    let trouble = || PushError::transient(reason::COMMIT_FAILED, "reach the engine: connection refused");
    let world = World { failures: Mutex::new(vec![trouble(), trouble()]), ..World::default() };
    let (world, answer, _) = play(None, world).await;
    assert!(answer.passed);
    assert_eq!(world.commits.load(Ordering::SeqCst), 3);

    let refused = PushError::new(reason::REGISTRY_FORBIDDEN, "demo may not push to team/app");
    let (world, answer, _) = play(None, World { failures: Mutex::new(vec![refused]), ..World::default() }).await;
    assert_eq!(world.commits.load(Ordering::SeqCst), 1);
    assert_eq!(answer.message.as_deref(), Some("demo may not push to team/app"));
    let status = world.status.lock().unwrap().clone();
    assert_eq!(status.steps[1].reason.as_deref(), Some(reason::REGISTRY_FORBIDDEN));
    assert_eq!(status.steps[2].phase, StepPhase::Skipped);
    let report = status.report.unwrap();
    assert_eq!(report.message.as_deref(), Some("step push failed: demo may not push to team/app"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_while_the_api_server_is_away() {
    let (world, answer, _) = play(None, World { away: AtomicUsize::new(20), ..World::default() }).await;
    assert!(answer.passed);
    assert_eq!(world.status.lock().unwrap().report.as_ref().unwrap().result, ReportResult::Passed);
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_another_push_took_is_not_taken_back() {
    // The agent ends after the first tag moved; then another push moves it.
    let world = Arc::new(World { hangs: true, ..World::default() });
    let pod = Pod::new();
    pod.mount();
    pod.record(&[started(0), exited(0, 0)]);
    pod.ask();
    let post = post(&pod.kubelet, &world);
    let (_wish, wished) = watch::channel(Wish::Go);
    let task = agent(&post, &world, &wished);
    until(|| world.moves.lock().unwrap().len() == 1).await;
    task.abort();
    let _ended = task.await;
    world.status.lock().unwrap().steps[1].images[0].tags.clear();
    world.tags.lock().unwrap().insert("1.4".into(), "sha256:ff".into());
    let _task = agent(&post, &world, &wished);
    let answer = pod.answer().await;
    assert!(!answer.passed);
    assert_eq!(world.status.lock().unwrap().steps[1].reason.as_deref(), Some(reason::INTERRUPTED));
    assert_eq!(world.tags.lock().unwrap()["1.4"], "sha256:ff");
    assert_eq!(*world.moves.lock().unwrap(), ["1.4"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_in_mid_push_stops_before_the_next_tag() {
    let world = Arc::new(World { hangs: true, ..World::default() });
    let pod = Pod::new();
    pod.mount();
    pod.record(&[started(0), exited(0, 0)]);
    pod.ask();
    let (wish, wished) = watch::channel(Wish::Go);
    let task = agent(&post(&pod.kubelet, &world), &world, &wished);
    until(|| world.moves.lock().unwrap().len() == 1).await;
    wish.send_replace(Wish::Cancel);
    until(|| pod.volumes.is_in(CANCEL_FILE)).await;
    pod.record(&[ended(1, EndReason::Cancelled), ended(2, EndReason::Cancelled), started(3), exited(3, 0)]);
    pod.record(&[failed("Cancelled", 1)]);
    tokio::time::timeout(Duration::from_secs(60), task).await.expect("it goes on").unwrap();
    assert_eq!(*world.moves.lock().unwrap(), ["1.4"]);
    let status = world.status.lock().unwrap().clone();
    assert_eq!(status.steps[1].phase, StepPhase::Cancelled);
    assert_eq!(status.steps[1].images[0].tags, ["1.4"], "what moved is told");
    assert_eq!(status.report.unwrap().reason.as_deref(), Some(reason::CANCELLED));
    assert!(!pod.volumes.is_in("answer-1.json"));
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_now_and_then_and_its_last_word_too() {
    let world = Arc::new(World { hangs: true, ..World::default() });
    let pod = Pod::new();
    pod.mount();
    pod.record(&[started(0), exited(0, 0)]);
    pod.ask();
    let (_wish, wished) = watch::channel(Wish::Go);
    let _task = agent(&post(&pod.kubelet, &world), &world, &wished);
    until(|| world.messages.lock().unwrap().iter().any(|message| message == "pushing: the rest")).await;
    let mut messages = world.messages.lock().unwrap().clone();
    messages.dedup();
    assert_eq!(messages.len(), 3, "one in five seconds: {messages:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_the_push_end_and_begins_no_other() {
    let world = Arc::new(World::default());
    let pod = Pod::new();
    pod.mount();
    pod.record(&[started(0)]);
    let post = post(&pod.kubelet, &world);
    let (_wish, wished) = watch::channel(Wish::Go);
    let task = agent(&post, &world, &wished);
    until(|| world.writes.load(Ordering::SeqCst) == 1).await;
    post.stopping.cancel();
    tokio::time::timeout(Duration::from_secs(60), task).await.expect("it goes on").unwrap();
    pod.record(&[exited(0, 0)]);
    pod.ask();
    let task = agent(&post, &world, &wished);
    tokio::time::timeout(Duration::from_secs(60), task).await.expect("it goes on").unwrap();
    assert_eq!(world.commits.load(Ordering::SeqCst), 0);
    assert_eq!(world.status.lock().unwrap().steps[0].phase, StepPhase::Succeeded, "what is known is written");
}

#[rstest]
#[case::from_the_selection(false)]
#[case::as_it_is_over(true)]
#[tokio::test(start_paused = true)]
async fn a_run_that_leaves_takes_its_push_with_it_and_what_moved_is_told(#[case] over: bool) {
    let world = Arc::new(World { hangs: true, ..World::default() });
    let pod = Pod::new();
    pod.mount();
    pod.record(&[started(0), exited(0, 0)]);
    pod.ask();
    let (_wish, wished) = watch::channel(Wish::Go);
    let leave = CancellationToken::new();
    let post = post(&pod.kubelet, &world);
    let task = tokio::spawn(follow(post, Arc::new(run()), AgentStatus::default(), wished, leave.clone()));
    until(|| world.moves.lock().unwrap().len() == 1).await;
    world.over.store(over, Ordering::SeqCst);
    leave.cancel();
    tokio::time::timeout(Duration::from_secs(60), task).await.expect("it goes on").unwrap();
    assert_eq!(*world.moves.lock().unwrap(), ["1.4"]);
    let tags = world.status.lock().unwrap().steps[1].images[0].tags.clone();
    let told: Vec<_> = world.events.lock().unwrap().iter().map(|event| event.note.clone()).collect();
    let digest = format!("sha256:{:064x}", 1);
    let note = format!("pushed registry.example.com/team/app: tag 1.4 ({digest}), but the run had ended");
    // The status of a run that is over says no more; its events do.
    assert_eq!((tags.as_slice() == ["1.4"], told.contains(&note)), (!over, over), "{tags:?} {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_gone_in_mid_push_is_left_for_good() {
    let world = Arc::new(World { hangs: true, ..World::default() });
    let pod = Pod::new();
    pod.mount();
    pod.record(&[started(0), exited(0, 0)]);
    pod.ask();
    let (_wish, wished) = watch::channel(Wish::Go);
    let task = agent(&post(&pod.kubelet, &world), &world, &wished);
    until(|| world.moves.lock().unwrap().len() == 1).await;
    world.gone.store(true, Ordering::SeqCst);
    tokio::time::timeout(Duration::from_secs(60), task).await.expect("it goes on").unwrap();
    assert_eq!(*world.moves.lock().unwrap(), ["1.4"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_put_does_not_keep_a_push_from_being_heard() {
    let world = Arc::new(World { hangs: true, ..World::default() });
    let pod = Pod::new();
    pod.mount();
    pod.record(&[started(0), exited(0, 0)]);
    pod.ask();
    let (wish, wished) = watch::channel(Wish::Go);
    let _task = agent(&post(&pod.kubelet, &world), &world, &wished);
    until(|| world.moves.lock().unwrap().len() == 1).await;
    // The pod goes: its volume is unmounted.
    std::fs::remove_dir_all(pod.volumes.in_dir()).unwrap();
    wish.send_replace(Wish::Cancel);
    pod.record(&[ended(1, EndReason::Cancelled)]);
    until(|| world.status.lock().unwrap().steps[1].phase == StepPhase::Cancelled).await;
    assert_eq!(world.status.lock().unwrap().steps[1].images[0].tags, ["1.4"]);
}

#[tokio::test]
async fn the_doorbell_brings_a_record_at_once() {
    let world = Arc::new(World::default());
    let pod = Pod::new();
    let post = Arc::new(Post {
        kubelet_dir: pod.kubelet.clone(),
        sink: world.clone(),
        transport: world.clone(),
        doorbell: Some(Doorbell::new().unwrap()),
        shelf: Arc::default(),
        pace: Pace::Sparing,
        stopping: CancellationToken::new(),
    });
    let (_wish, wished) = watch::channel(Wish::Go);
    let task = agent(&post, &world, &wished);
    pod.mount();
    pod.record(&[started(0)]);
    until(|| world.writes.load(Ordering::SeqCst) == 1).await;
    pod.record(&[exited(0, 1), ended(1, EndReason::EarlierStepFailed), ended(2, EndReason::EarlierStepFailed)]);
    pod.record(&[started(3), exited(3, 0), failed("StepFailed", 0)]);
    tokio::time::timeout(Duration::from_secs(60), task).await.expect("it goes on").unwrap();
    assert_eq!(world.status.lock().unwrap().report.as_ref().unwrap().failed_step.as_deref(), Some("build"));
}
