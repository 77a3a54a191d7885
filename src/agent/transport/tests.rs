use super::*;
use crate::{
    agent::fixture::run,
    engine::{EngineFuture, EngineInfo, Leftover, ProgressSink},
};
use futures::FutureExt;
use rstest::rstest;
use std::sync::atomic::{AtomicU32, Ordering};

/// An engine that shows the box only after so many looks.
struct Starting(AtomicU32);

impl Engine for Starting {
    fn find_box<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> EngineFuture<'a, Option<BoxContainer>> {
        let found =
            BoxContainer { id: "c".into(), image_id: "i".into(), started_at: String::new(), state: BoxState::Running };
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(1)));
        async move { Ok((left == Ok(0)).then_some(found)) }.boxed()
    }

    fn ping(&self) -> EngineFuture<'_, EngineInfo> {
        unimplemented!()
    }

    fn base_image<'a>(&'a self, _: &'a BoxContainer) -> EngineFuture<'a, BaseImage> {
        unimplemented!()
    }

    fn commit<'a>(&'a self, _: &'a BoxContainer, _: &'a CommitKey) -> EngineFuture<'a, CommittedImage> {
        unimplemented!()
    }

    fn push<'a>(&'a self, _: &'a CommittedImage, _: &'a str, _: ProgressSink<'a>) -> EngineFuture<'a, ()> {
        unimplemented!()
    }

    fn remove<'a>(&'a self, _: &'a CommittedImage) -> EngineFuture<'a, ()> {
        unimplemented!()
    }

    fn leftovers(&self) -> EngineFuture<'_, Vec<Leftover>> {
        unimplemented!()
    }

    fn unpause_stuck<'a>(&'a self, _: &'a [String]) -> EngineFuture<'a, Vec<String>> {
        unimplemented!()
    }
}

#[tokio::test(start_paused = true)]
async fn a_box_that_is_only_starting_is_waited_for() {
    let run = run();
    assert_eq!(find_box(&Starting(AtomicU32::new(20)), &run).await.unwrap().id, "c");
    let error = find_box(&Starting(AtomicU32::new(u32::MAX)), &run).await.unwrap_err();
    assert_eq!(error.to_string(), "the box is gone");
}

#[rstest]
#[case("debian:12", "docker.io/library/debian")]
#[case("registry.example.com:5000/team/app", "registry.example.com:5000/team/app")]
#[case("registry.example.com:5000/team/app:1@sha256:00", "registry.example.com:5000/team/app")]
fn the_boxs_repository(#[case] image: &str, #[case] expected: &str) {
    assert_eq!(box_repository(image).unwrap().to_string(), expected);
}
