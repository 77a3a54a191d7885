use super::*;
use crate::agent::{
    apply::{StatusSink, WriteError},
    fixture::{run, started},
    follow::{Pace, Post},
    plan::RunEvent,
    push::{Push, Transport},
    status::AgentStatus,
};
use crate::registry::{PushError, Pushed};
use futures::future::BoxFuture;
use std::sync::Mutex;

/// Keeps the attempts that were written for; nothing is ever pushed.
#[derive(Default)]
struct Written(Mutex<Vec<u32>>);

impl StatusSink for Written {
    fn write<'a>(&'a self, run: &'a Run, _status: &'a AgentStatus) -> BoxFuture<'a, Result<(), WriteError>> {
        self.0.lock().unwrap().push(run.attempt);
        Box::pin(async { Ok(()) })
    }

    fn write_last<'a>(&'a self, run: &'a Run, status: &'a AgentStatus) -> BoxFuture<'a, Result<bool, WriteError>> {
        Box::pin(async move { self.write(run, status).await.map(|()| true) })
    }

    fn emit(&self, _run: &Run, _event: &RunEvent) {}
}

struct NoTransport;

impl Transport for NoTransport {
    fn push<'a>(&'a self, _: &'a Push, _: &'a crate::agent::line::Line) -> BoxFuture<'a, Result<Pushed, PushError>> {
        Box::pin(async { Err(PushError::stopped()) })
    }

    fn digest_of<'a>(
        &'a self,
        _: &'a Push,
        _: &'a str,
        _: &'a crate::agent::line::Line,
    ) -> BoxFuture<'a, Result<Option<String>, PushError>> {
        Box::pin(async { Err(PushError::stopped()) })
    }

    fn tag_again<'a>(
        &'a self,
        _: &'a Push,
        _: &'a str,
        _: &'a str,
        _: &'a crate::agent::line::Line,
    ) -> BoxFuture<'a, Result<(), PushError>> {
        Box::pin(async { Err(PushError::stopped()) })
    }
}

struct World {
    kubelet: tempfile::TempDir,
    written: Arc<Written>,
    runs: Runs,
}

fn world() -> World {
    let kubelet = tempfile::tempdir().unwrap();
    let written = Arc::new(Written::default());
    let post = Post {
        kubelet_dir: kubelet.path().into(),
        sink: written.clone(),
        transport: Arc::new(NoTransport),
        doorbell: None,
        shelf: Arc::default(),
        pace: Pace::Sparing,
        stopping: CancellationToken::new(),
    };
    World { kubelet, written, runs: Runs::new(Arc::new(post)) }
}

fn seen(attempt: u32, wish: Wish) -> Seen {
    let run = Run { attempt, pod_uid: format!("0f1e2d3c-000{attempt}"), ..run() };
    Seen::Follow { run: Box::new(run), recorded: Box::default(), wish }
}

impl World {
    fn begin(&self, attempt: u32) {
        let out = self.kubelet.path().join(format!("pods/0f1e2d3c-000{attempt}/volumes/kubernetes.io~empty-dir/out"));
        std::fs::create_dir_all(&out).unwrap();
        std::fs::write(out.join("journal"), format!("{}\n", serde_json::to_string(&started(0)).unwrap())).unwrap();
    }

    async fn settle(&self) -> Vec<u32> {
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.written.0.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_is_followed_once() {
    let mut world = world();
    world.begin(1);
    for _ in 0..3 {
        world.runs.see("u", seen(1, Wish::Go));
    }
    assert_eq!(world.settle().await, [1]);
    assert_eq!(world.runs.tasks.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_attempt_takes_the_place_of_the_old() {
    let mut world = world();
    world.runs.see("u", seen(1, Wish::Go));
    world.runs.see("u", seen(2, Wish::Go));
    world.begin(1);
    world.begin(2);
    assert_eq!(world.settle().await, [2]);
    assert_eq!(world.runs.tasks.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_leaves_is_not_followed() {
    let mut world = world();
    world.runs.see("u", seen(1, Wish::Go));
    world.runs.see("u", Seen::Leave);
    world.begin(1);
    assert_eq!(world.settle().await, Vec::<u32>::new());
    assert!(world.runs.tasks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_box_of_a_run_that_is_over_may_go() {
    // An agent that died after the last write of the status had told nobody.
    let mut world = world();
    let volumes = Volumes::new(world.kubelet.path(), "0f1e2d3c-0001");
    let over = || Seen::Over { pod_uid: "0f1e2d3c-0001".to_owned() };
    world.runs.see("u", over());
    std::fs::create_dir_all(volumes.in_dir()).unwrap();
    world.runs.see("u", over());
    assert!(volumes.is_in(RECORDED_FILE));
}

#[tokio::test(start_paused = true)]
async fn runs_missing_from_a_list_are_left() {
    let mut world = world();
    world.runs.see("u", seen(1, Wish::Go));
    world.runs.see("v", seen(2, Wish::Go));
    world.runs.keep(&HashSet::from(["v".to_owned()]));
    assert_eq!(world.runs.uids(), BTreeSet::from(["v".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_wish_is_never_taken_back() {
    let mut world = world();
    world.runs.see("u", seen(1, Wish::Cancel));
    world.runs.see("u", seen(1, Wish::Go));
    assert_eq!(*world.runs.followed["u"].wish.borrow(), Wish::Cancel);
    world.runs.see("u", seen(1, Wish::Abandon));
    assert_eq!(*world.runs.followed["u"].wish.borrow(), Wish::Abandon);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_being_deleted_is_not_taken_up() {
    let mut world = world();
    world.runs.see("u", seen(1, Wish::Abandon));
    assert!(world.runs.followed.is_empty());
}

#[test]
fn a_malformed_object_is_left_alone() {
    let object = |spec: serde_json::Value| {
        serde_json::json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun",
            "metadata": {"name": "a", "namespace": "team", "uid": "u"}, "spec": spec,
        })
    };
    let bad: DeserializeGuard<PipelineRun> =
        serde_json::from_value(object(serde_json::json!({"priority": "x"}))).unwrap();
    assert!(read(&bad).is_none());
    let good: DeserializeGuard<PipelineRun> = serde_json::from_value(object(serde_json::json!({}))).unwrap();
    assert_eq!(read(&good), Some(("u".to_owned(), Seen::Leave)));
}
