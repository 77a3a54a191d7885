//! Services whose end does not end the run: each end is told once, with what the service said last and where there is more.
//!
//! `setup` watches them, `node` hands their ends over, and whoever follows the run reads what [`Services::new`] gives.
//!
//! **Invariant:** tells, and decides nothing; a service is told of once, however often it ends. No value of a Secret is
//! told.

use super::{Request, containers};
use crate::{
    api::{PipelineSpec, pipeline::OnExit},
    engine::docker::{DockerEngine, containers::ContainerEnd},
    mask::Mask,
};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the engine may take to say what became of services at the end of a run.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a service did that ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    /// Name of the service.
    pub(super) service: String,
    /// How it ended.
    pub(super) end: ContainerEnd,
    /// What it said last; empty: nothing.
    pub(super) words: String,
    /// Whether it is started again.
    pub(super) again: bool,
}

/// See the module.
pub(super) struct Services {
    engine: DockerEngine,
    mask: Mask,
    run: String,
    /// How long the output of a service is there.
    stays: &'static str,
    /// Those that were not told of.
    untold: Vec<String>,
    notices: mpsc::UnboundedSender<String>,
}

impl Services {
    /// Those of a run, and where their ends are told.
    pub(super) fn new(
        request: &Request,
        spec: &PipelineSpec,
        engine: DockerEngine,
    ) -> (Self, mpsc::UnboundedReceiver<String>) {
        let (notices, told) = mpsc::unbounded_channel();
        let stays = match (request.beside.keep, request.beside.can_keep) {
            (true, _) => "",
            (false, true) => " (gone with the run, unless with --no-remove)",
            (false, false) => " (gone with the run)",
        };
        let untold = spec.services.iter().filter(|service| service.on_exit == OnExit::Ignore);
        let services = Self {
            engine,
            mask: request.mask(std::iter::empty()),
            run: request.name.clone(),
            stays,
            untold: untold.map(|service| service.name.clone()).collect(),
            notices,
        };
        (services, told)
    }

    /// Tells that a service ended, if that was not told yet.
    pub(super) fn tell(&mut self, ended: &Ended) {
        let Some(at) = self.untold.iter().position(|name| *name == ended.service) else { return };
        self.untold.remove(at);
        let container = containers::service_name(&self.run, &ended.service);
        let told = format!("{}; all it said: docker logs {container}{}", words(ended), self.stays);
        // Nobody need follow the run.
        let _ = self.notices.send(self.mask.text(&told));
    }

    /// Looks for those that ended while the last step ran: nobody may have heard of it yet.
    pub(super) async fn look(&mut self) {
        let look = async |service: &String| {
            let container = containers::service_name(&self.run, service);
            let end = self.engine.end_of(&container).await.ok()??;
            let words = self.engine.last_words(&container).await;
            Some(Ended { service: service.clone(), end, words, again: false })
        };
        let looks = futures::future::join_all(self.untold.iter().map(look));
        let found = tokio::time::timeout(PATIENCE, looks).await.unwrap_or_default();
        for ended in found.iter().flatten() {
            self.tell(ended);
        }
    }
}

fn words(ended: &Ended) -> String {
    let Ended { service, end, words, again } = ended;
    let memory = if end.out_of_memory { ", out of memory" } else { "" };
    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
    let again = if *again { "; it is started again" } else { "" };
    format!("service {service} ended (exit code {}{memory}){said}{again}", end.code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::{Beside, Objects, containers::tests::request};
    use rstest::rstest;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn services(beside: Beside) -> (Services, mpsc::UnboundedReceiver<String>) {
        let keys = BTreeMap::from([("pw".to_owned(), b"hunter22".to_vec())]);
        let objects = Objects { secrets: BTreeMap::from([("db".into(), keys)]), ..Objects::default() };
        let request = Request { objects, beside, ..request() };
        let spec = serde_json::from_value(json!({"box": {"image": "debian"}, "services": [
            {"name": "web", "image": "nginx", "onExit": "Ignore"}, {"name": "db", "image": "postgres"},
        ], "steps": [{"name": "a", "script": "true"}]}));
        Services::new(&request, &spec.unwrap(), DockerEngine::of_local_runs("tcp://127.0.0.1:1").unwrap())
    }

    fn ended(service: &str, words: &str) -> Ended {
        let end = ContainerEnd { code: 3, ..ContainerEnd::default() };
        Ended { service: service.into(), end, words: words.into(), again: true }
    }

    #[rstest]
    #[case(Beside::default(), " (gone with the run)")]
    #[case(Beside { can_keep: true, ..Beside::default() }, " (gone with the run, unless with --no-remove)")]
    #[case(Beside { can_keep: true, keep: true, ..Beside::default() }, "")]
    fn each_is_told_once_without_secrets(#[case] beside: Beside, #[case] stays: &str) {
        let (mut services, mut told) = services(beside);
        services.tell(&ended("web", "no user hunter22"));
        services.tell(&ended("web", "again"));
        // Its end is the end of the run, which says so itself.
        services.tell(&ended("db", "bye"));
        let expected = "service web ended (exit code 3): no user ***; it is started again; all it said: \
                        docker logs windlass-build-a41-web";
        assert_eq!(told.try_recv().unwrap(), format!("{expected}{stays}"));
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let end = ContainerEnd { code: 137, out_of_memory: true, ..ContainerEnd::default() };
        let silent = Ended { end, again: false, ..ended("web", "") };
        assert_eq!(words(&silent), "service web ended (exit code 137, out of memory)");
    }

    #[tokio::test]
    async fn an_engine_that_is_away_ends_nothing() {
        let (mut services, mut told) = services(Beside::default());
        services.look().await;
        assert!(told.try_recv().is_err());
    }
}
