use super::*;
use crate::{
    agent::fixture::run,
    engine::{EngineFuture, EngineInfo, Leftover, ProgressSink},
    registry::Trust,
};
use futures::FutureExt;
use rstest::rstest;
use std::sync::atomic::{AtomicU32, Ordering};

/// An engine that shows the box only after so many looks, and counts how often it is asked for an image.
#[derive(Default)]
struct Starting {
    looks: AtomicU32,
    images_read: AtomicU32,
    config_bytes: usize,
    left: Vec<Leftover>,
    removed: Mutex<Vec<String>>,
}

impl Engine for Starting {
    fn find_box<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> EngineFuture<'a, Option<BoxContainer>> {
        let found =
            BoxContainer { id: "c".into(), image_id: "i".into(), started_at: String::new(), state: BoxState::Running };
        let left = self.looks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(1)));
        async move { Ok((left == Ok(0)).then_some(found)) }.boxed()
    }

    fn ping(&self) -> EngineFuture<'_, EngineInfo> {
        unimplemented!()
    }

    fn base_image<'a>(&'a self, container: &'a BoxContainer) -> EngineFuture<'a, BaseImage> {
        self.images_read.fetch_add(1, Ordering::Relaxed);
        let config = serde_json::json!({"Labels": {"a": "x".repeat(self.config_bytes)}});
        async { Ok(BaseImage { author: container.image_id.clone(), config, ..Default::default() }) }.boxed()
    }

    fn commit<'a>(&'a self, _: &'a BoxContainer, _: &'a CommitKey, _: &'a str) -> EngineFuture<'a, CommittedImage> {
        unimplemented!()
    }

    fn name<'a>(&'a self, _: &'a CommittedImage, _: &'a str) -> EngineFuture<'a, ()> {
        unimplemented!()
    }

    fn push<'a>(&'a self, _: &'a str, _: ProgressSink<'a>) -> EngineFuture<'a, ()> {
        unimplemented!()
    }

    fn remove<'a>(&'a self, image: &'a CommittedImage) -> EngineFuture<'a, ()> {
        self.removed.lock().unwrap().push(image.id.clone());
        async { Ok(()) }.boxed()
    }

    fn leftovers(&self) -> EngineFuture<'_, Vec<Leftover>> {
        async { Ok(self.left.clone()) }.boxed()
    }

    fn unpause_stuck<'a>(&'a self, _: &'a [String]) -> EngineFuture<'a, Vec<String>> {
        unimplemented!()
    }
}

#[tokio::test(start_paused = true)]
async fn a_box_that_is_only_starting_is_waited_for() {
    let run = run();
    let after = |looks| Starting { looks: AtomicU32::new(looks), ..Default::default() };
    assert_eq!(find_box(&after(20), &run).await.unwrap().id, "c");
    let error = find_box(&after(u32::MAX), &run).await.unwrap_err();
    assert_eq!(error.to_string(), "the box is gone");
}

#[tokio::test]
async fn only_old_images_of_unknown_runs_are_swept() {
    let left = |run: &str, age_s: i64| Leftover {
        key: CommitKey { run_uid: run.into(), step: "push".into() },
        image: CommittedImage { id: format!("{run}-{age_s}") },
        created_s: Timestamp::now().as_second() - age_s,
        container_id: "c".into(),
    };
    let left = vec![left("live", 5000), left("live", 5), left("gone", 5000), left("gone", 5)];
    let engine = Arc::new(Starting { left, ..Default::default() });
    let relay = Relay::new(engine.clone(), Client::new(Trust::default()).unwrap());
    assert_eq!(relay.sweep(&BTreeSet::from(["live".to_owned()])).await.unwrap(), 1);
    assert_eq!(*engine.removed.lock().unwrap(), ["gone-5000"]);
}

/// An agent that was killed leaves what it committed; the one that does the step again removes both.
#[tokio::test]
async fn what_was_committed_for_the_same_step_goes_too() {
    let key = |step: &str| CommitKey { run_uid: "run".into(), step: step.into() };
    let left = |step: &str| Leftover {
        key: key(step),
        image: CommittedImage { id: step.into() },
        created_s: Timestamp::now().as_second(),
        container_id: "c".into(),
    };
    let engine = Arc::new(Starting { left: vec![left("push"), left("other")], ..Default::default() });
    let image = || CommittedImage { id: "this".into() };
    discard(engine.clone(), image(), None, "run".into()).await;
    discard(engine.clone(), image(), Some(key("push")), "run".into()).await;
    assert_eq!(*engine.removed.lock().unwrap(), ["this", "this", "push"]);
}

#[tokio::test]
async fn the_config_of_a_box_image_is_read_once() {
    let engine = Arc::new(Starting::default());
    let relay = Relay::new(engine.clone(), Client::new(Trust::default()).unwrap());
    let container = |image: usize| BoxContainer {
        id: "c".into(),
        image_id: format!("sha256:{image}"),
        started_at: String::new(),
        state: BoxState::Running,
    };
    for image in [0, 1, 0] {
        assert_eq!(relay.base_image(&container(image)).await.unwrap().author, format!("sha256:{image}"));
    }
    assert_eq!(engine.images_read.load(Ordering::Relaxed), 2);
    for image in 2..=BASES + 1 {
        relay.base_image(&container(image)).await.unwrap();
    }
    assert_eq!(relay.known_bases().len(), BASES, "the oldest are forgotten");
}

/// A large config is not kept for the next push, which reads it again; each push has all of it.
#[rstest]
#[case::fits(BASE_BYTES - 100, 1)]
#[case::large(BASE_BYTES, 2)]
#[tokio::test]
async fn a_large_config_is_not_remembered(#[case] config_bytes: usize, #[case] reads: u32) {
    let engine = Arc::new(Starting { config_bytes, ..Default::default() });
    let relay = Relay::new(engine.clone(), Client::new(Trust::default()).unwrap());
    let container =
        BoxContainer { id: "c".into(), image_id: "i".into(), started_at: String::new(), state: BoxState::Running };
    for _ in 0..2 {
        let base = relay.base_image(&container).await.unwrap();
        let changes = ImageChanges::default();
        let provenance = Provenance { created_by: "x".into(), created: Timestamp::UNIX_EPOCH.to_string() };
        let layers = [format!("sha256:{}", "0".repeat(64))];
        let committed = serde_json::json!({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": layers}});
        let rebuilt = image_config::rebuild(Some(&base.document()), &committed, &changes, &provenance).unwrap();
        assert_eq!(rebuilt["config"]["Labels"]["a"].as_str().map(str::len), Some(config_bytes));
    }
    assert_eq!(engine.images_read.load(Ordering::Relaxed), reads);
    assert_eq!(relay.known_bases().len(), usize::from(reads == 1));
}
