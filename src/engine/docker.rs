//! [`Engine`] for Docker Engine, API 1.41 (20.10) and newer, with both of its image stores.
//!
//! Called through the trait by the agent and by local runs.
//!
//! The client sends no API version, so an engine answers in its own newest; the fields used here are the
//! same since 1.41. A commit answers only when it is done, and a push only once the registry has spoken, so both have a
//! client with a long timeout.
//! `/containers/*/archive` is never called: on a running hostile container it could reach the host's files.
//!
//! **Invariant:** containers are found by labels that the kubelet sets and a pod cannot override, and
//! committed images by a name that cannot be pulled; labels alone prove nothing. The boxes of local runs have labels of
//! their own, so that no kubelet on the same engine takes them for its own, nor an agent.

pub mod containers;
pub mod images;
pub mod pulls;
pub mod streams;

use super::{
    BaseImage, BoxContainer, BoxState, COMMIT_LABEL, COMMIT_REPOSITORY, CONTAINER_LABEL, CommitKey, CommittedImage,
    Engine, EngineError, EngineFuture, EngineInfo, Leftover, ProgressSink, PushProgress, is_door,
};
use bollard::{
    API_DEFAULT_VERSION, Docker,
    auth::DockerCredentials,
    errors::Error as DockerError,
    models::{ContainerConfig, ContainerState, ContainerSummary},
    query_parameters::{
        CommitContainerOptions, CommitContainerOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
        PushImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
    },
};
use futures::{FutureExt, StreamExt};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Longest wait for the answer of a call, in seconds.
const CALL_TIMEOUT_S: u64 = 120;
/// Longest wait for the first word of a commit or a push, in seconds.
const LONG_TIMEOUT_S: u64 = 3600;
/// Longest silence in a push. The push door may wait for a registry for 10 minutes.
const PUSH_SILENCE: Duration = Duration::from_secs(15 * 60);
/// The oldest API with all that is used here: that of Docker 20.10.
const MIN_API_VERSION: (u32, u32) = (1, 41);
/// What a commit is called in errors.
const COMMIT_CALL: &str = "commit the box";
/// Longest text of the engine that an error repeats.
const MAX_MESSAGE: usize = 500;

/// Labels by which the box of a run is told from everything else.
#[derive(Clone, Copy)]
struct Marks {
    pod_uid: &'static str,
    namespace: &'static str,
    pod_name: &'static str,
    container: &'static str,
    kind: &'static str,
}

/// Labels that the kubelet's Docker adapter sets on every container, after those of the pod.
const OF_THE_KUBELET: Marks = Marks {
    pod_uid: "io.kubernetes.pod.uid",
    namespace: "io.kubernetes.pod.namespace",
    pod_name: "io.kubernetes.pod.name",
    container: "io.kubernetes.container.name",
    kind: "io.kubernetes.docker.type",
};
/// Labels of local runs.
const OF_LOCAL_RUNS: Marks = Marks {
    pod_uid: "windlass.dev/local-uid",
    namespace: "windlass.dev/local-namespace",
    pod_name: "windlass.dev/local-run",
    container: "windlass.dev/local-container",
    kind: "windlass.dev/local-type",
};
/// Name of the box in its pod.
const BOX: &str = "box";
/// Scheme of a socket.
const UNIX: &str = "unix://";
/// Scheme of an engine that is reached over TCP.
const TCP: &str = "tcp://";

/// A Docker Engine behind a Unix socket.
#[derive(Clone)]
pub struct DockerEngine {
    address: String,
    marks: Marks,
    calls: Docker,
    long_calls: Docker,
    /// Commits that were begun and whose end was not heard.
    commits: Arc<AtomicUsize>,
}

impl DockerEngine {
    /// Prepares clients for a socket such as `/var/run/docker.sock`; nothing is sent yet.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] when there is no such socket.
    pub fn new(socket: &str) -> Result<Self, EngineError> {
        Self::connect(socket, OF_THE_KUBELET)
    }

    /// The same for local runs and for people: `host` is a socket, with or without `unix://`, or `tcp://ADDRESS`.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] when there is no such socket.
    pub fn of_local_runs(host: &str) -> Result<Self, EngineError> {
        Self::connect(host, OF_LOCAL_RUNS)
    }

    fn connect(host: &str, marks: Marks) -> Result<Self, EngineError> {
        let connect = |timeout_s| {
            let made = match host.strip_prefix(TCP) {
                Some(_) => Docker::connect_with_http(host, timeout_s, API_DEFAULT_VERSION),
                None if host.contains("://") && !host.starts_with(UNIX) => {
                    Err(DockerError::UnsupportedURISchemeError { uri: host.to_owned() })
                }
                None => Docker::connect_with_unix(host, timeout_s, API_DEFAULT_VERSION),
            };
            made.map_err(|error| EngineError::Unreachable { address: host.to_owned(), problem: error.to_string() })
        };
        let (calls, long_calls) = (connect(CALL_TIMEOUT_S)?, connect(LONG_TIMEOUT_S)?);
        Ok(Self { address: host.to_owned(), marks, calls, long_calls, commits: Arc::default() })
    }

    /// Whether a commit was begun whose end nobody heard: the engine goes on with it, whatever becomes of the call.
    #[must_use]
    pub fn may_still_commit(&self) -> bool {
        self.commits.load(Ordering::Relaxed) > 0
    }

    /// Commits a container; gives the image.
    async fn committed(
        &self,
        options: CommitContainerOptions,
        config: ContainerConfig,
    ) -> Result<CommittedImage, EngineError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let made = self.long_calls.commit_container(options, config).await;
        // Who gives up waiting does not come so far.
        self.commits.fetch_sub(1, Ordering::Relaxed);
        Ok(CommittedImage { id: made.map_err(|error| self.error(COMMIT_CALL, error))?.id })
    }

    /// That the engine is silent: nothing was heard from it for so long.
    #[must_use]
    pub fn silent(&self, patience: Duration) -> EngineError {
        let problem = format!("no answer for {} s", patience.as_secs());
        EngineError::Unreachable { address: self.address.clone(), problem }
    }

    /// Labels of a container of a local run, by which [`Engine::find_box`] finds the box.
    #[must_use]
    pub fn local_labels(uid: &str, namespace: &str, run: &str, container: &str) -> BTreeMap<String, String> {
        let marks = OF_LOCAL_RUNS;
        let labels = [
            (marks.pod_uid, uid),
            (marks.namespace, namespace),
            (marks.pod_name, run),
            (marks.container, container),
            (marks.kind, "container"),
        ];
        labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into()
    }

    /// The UID of the local run that something belongs to, by its labels.
    #[must_use]
    pub fn local_uid(labels: &HashMap<String, String>) -> Option<&str> {
        labels.get(OF_LOCAL_RUNS.pod_uid).map(String::as_str)
    }

    /// An error of the client in our words.
    fn error(&self, call: &'static str, error: DockerError) -> EngineError {
        match error {
            DockerError::DockerResponseServerError { status_code: 404, message } => {
                EngineError::NotFound { call, message: clipped(&message) }
            }
            DockerError::DockerResponseServerError { status_code, message } => {
                EngineError::Refused { call, status: status_code, message: clipped(&message) }
            }
            DockerError::DockerStreamError { error } => {
                EngineError::Refused { call, status: 0, message: clipped(&error) }
            }
            DockerError::RequestTimeoutError => EngineError::TimedOut { call },
            DockerError::JsonDataError { message, .. } => EngineError::Unexpected { call, message: clipped(&message) },
            other => EngineError::Unreachable { address: self.address.clone(), problem: clipped(&with_causes(&other)) },
        }
    }

    /// Live containers with these labels.
    async fn live(&self, labels: Vec<String>) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = HashMap::from([
            ("label".to_owned(), labels),
            ("status".to_owned(), vec!["running".to_owned(), "paused".to_owned()]),
        ]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        self.calls.list_containers(Some(options)).await.map_err(|error| self.error("list containers", error))
    }

    async fn state(&self, id: &str) -> Result<Option<(String, ContainerState)>, EngineError> {
        match self.calls.inspect_container(id, None).await {
            Ok(found) => Ok(found.image.zip(found.state)),
            Err(error) => absent_as_none(self.error("inspect the box", error)),
        }
    }

    async fn untag(&self, name: &str) -> Result<(), EngineError> {
        // Without `noprune` the engine would also remove an untagged base image, which other pods may use.
        let options = RemoveImageOptionsBuilder::default().noprune(true).build();
        match self.calls.remove_image(name, Some(options), None).await {
            Ok(_) => Ok(()),
            Err(error) => absent_as_none(self.error("remove the image", error)).map(|_: Option<()>| ()),
        }
    }

    /// Takes our names off an image, and with the last one the image. `reference` is its ID or one of its names.
    async fn discard(&self, reference: &str) -> Result<(), EngineError> {
        let found = match self.calls.inspect_image(reference).await {
            Ok(found) => found,
            Err(error) => return absent_as_none(self.error("inspect the image", error)).map(|_: Option<()>| ()),
        };
        let (own, foreign): (Vec<_>, Vec<_>) =
            found.repo_tags.unwrap_or_default().into_iter().partition(|name| is_own(name));
        for name in &own {
            self.untag(name).await?;
        }
        // One that had no name is removed by its ID.
        if own.is_empty() && foreign.is_empty() { self.untag(reference).await } else { Ok(()) }
    }

    async fn push_named(&self, name: &str, tag: &str, progress: ProgressSink<'_>) -> Result<(), EngineError> {
        let options = PushImageOptionsBuilder::default().tag(tag).build();
        // The engine asks for a header with a login; an empty one says "none".
        let mut answers = self.long_calls.push_image(name, Some(options), Some(DockerCredentials::default()));
        loop {
            let answer = tokio::time::timeout(PUSH_SILENCE, answers.next())
                .await
                .map_err(|_| EngineError::TimedOut { call: "push the image" })?;
            // Errors arrive inside the stream, so only its end is success.
            let Some(answer) = answer else { return Ok(()) };
            let answer = answer.map_err(|error| self.error("push the image", error))?;
            if let Some(detail) = answer.error_detail {
                let message = clipped(&detail.message.unwrap_or_else(|| "the engine gave no reason".to_owned()));
                return Err(EngineError::Refused { call: "push the image", status: 0, message });
            }
            let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default();
            let detail = answer.progress_detail.unwrap_or_default();
            progress(PushProgress {
                status: answer.status.unwrap_or_default(),
                current_bytes: bytes(detail.current),
                total_bytes: bytes(detail.total),
            });
        }
    }
}

impl Engine for DockerEngine {
    fn ping(&self) -> EngineFuture<'_, EngineInfo> {
        async move {
            let call = "ask for the version";
            let version = self.calls.version().await.map_err(|error| self.error(call, error))?;
            let api_version = version.api_version.unwrap_or_default();
            if !is_supported(&api_version) {
                let (major, minor) = MIN_API_VERSION;
                let message = format!("the engine speaks API {api_version:?}; {major}.{minor} or newer is needed");
                return Err(EngineError::Unexpected { call, message });
            }
            Ok(EngineInfo { name: "docker", version: version.version.unwrap_or_default(), api_version })
        }
        .boxed()
    }

    fn find_box<'a>(
        &'a self,
        pod_uid: &'a str,
        namespace: &'a str,
        pod_name: &'a str,
    ) -> EngineFuture<'a, Option<BoxContainer>> {
        async move {
            // An empty value would match every container that has the label.
            if [pod_uid, namespace, pod_name].iter().any(|part| part.is_empty()) {
                return Ok(None);
            }
            let wanted = [
                (self.marks.pod_uid, pod_uid),
                (self.marks.namespace, namespace),
                (self.marks.pod_name, pod_name),
                (self.marks.container, BOX),
                (self.marks.kind, "container"),
            ];
            let filter = wanted.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let mut newest = None;
            for summary in self.live(filter).await? {
                let labels = summary.labels.unwrap_or_default();
                if !wanted.iter().all(|(key, value)| labels.get(*key).is_some_and(|found| found == value)) {
                    continue;
                }
                let Some(id) = summary.id else { continue };
                let Some((image_id, state)) = self.state(&id).await? else { continue };
                let Some(found) = live_box(id, image_id, &state) else { continue };
                if newest.as_ref().is_none_or(|(created, _)| *created < summary.created) {
                    newest = Some((summary.created, found));
                }
            }
            Ok(newest.map(|(_, found)| found))
        }
        .boxed()
    }

    fn base_image<'a>(&'a self, container: &'a BoxContainer) -> EngineFuture<'a, BaseImage> {
        async move {
            let call = "inspect the box image";
            let image = self.calls.inspect_image(&container.image_id).await.map_err(|error| self.error(call, error))?;
            let config = serde_json::to_value(image.config.unwrap_or_default())
                .map_err(|error| EngineError::Unexpected { call, message: error.to_string() })?;
            let diff_ids = image.root_fs.and_then(|root| root.layers).unwrap_or_default();
            Ok(BaseImage { config, author: image.author.unwrap_or_default(), diff_ids })
        }
        .boxed()
    }

    fn commit<'a>(
        &'a self,
        container: &'a BoxContainer,
        key: &'a CommitKey,
        target: &'a str,
    ) -> EngineFuture<'a, CommittedImage> {
        async move {
            key.image_name()?;
            let (name, tag) = loopback(COMMIT_CALL, target)?;
            let config = ContainerConfig {
                labels: Some(HashMap::from([
                    (COMMIT_LABEL.to_owned(), key.to_string()),
                    (CONTAINER_LABEL.to_owned(), container.id.clone()),
                ])),
                ..Default::default()
            };
            let options = CommitContainerOptionsBuilder::default();
            let options = options.container(&container.id).repo(name).tag(tag).pause(true).build();
            self.committed(options, config).await
        }
        .boxed()
    }

    fn name<'a>(&'a self, image: &'a CommittedImage, target: &'a str) -> EngineFuture<'a, ()> {
        async move {
            let call = "name the image";
            let (name, tag) = loopback(call, target)?;
            let options = TagImageOptionsBuilder::default().repo(name).tag(tag).build();
            self.calls.tag_image(&image.id, Some(options)).await.map_err(|error| self.error(call, error))
        }
        .boxed()
    }

    fn push<'a>(&'a self, target: &'a str, progress: ProgressSink<'a>) -> EngineFuture<'a, ()> {
        async move {
            let (name, tag) = loopback("push the image", target)?;
            self.push_named(name, tag, progress).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, image: &'a CommittedImage) -> EngineFuture<'a, ()> {
        self.discard(&image.id).boxed()
    }

    fn leftovers(&self) -> EngineFuture<'_, Vec<Leftover>> {
        async move {
            let filters = HashMap::from([("label".to_owned(), vec![COMMIT_LABEL.to_owned()])]);
            let options = ListImagesOptionsBuilder::default().filters(&filters).build();
            let images =
                self.calls.list_images(Some(options)).await.map_err(|error| self.error("list images", error))?;
            let mut found = Vec::new();
            for image in images {
                let label = image.labels.get(COMMIT_LABEL).map(String::as_str).unwrap_or_default();
                let Some(key) = CommitKey::of_image(label, &image.repo_tags) else { continue };
                let container_id = image.labels.get(CONTAINER_LABEL).cloned().unwrap_or_default();
                let committed = CommittedImage { id: image.id };
                found.push(Leftover { key, image: committed, created_s: image.created, container_id });
            }
            Ok(found)
        }
        .boxed()
    }

    fn unpause_stuck<'a>(&'a self, pod_uids: &'a [String]) -> EngineFuture<'a, Vec<String>> {
        async move {
            let filter = vec![format!("{}={BOX}", self.marks.container), format!("{}=container", self.marks.kind)];
            let mut thawed = Vec::new();
            for summary in self.live(filter).await? {
                let uid = summary.labels.as_ref().and_then(|labels| labels.get(self.marks.pod_uid));
                let (Some(id), true) = (summary.id, uid.is_some_and(|uid| pod_uids.contains(uid))) else { continue };
                let paused = |state: &ContainerState| state.paused.unwrap_or_default();
                if !self.state(&id).await?.is_some_and(|(_, state)| paused(&state)) {
                    continue;
                }
                match self.calls.unpause_container(&id).await {
                    Ok(()) => thawed.push(id),
                    // It was thawed or ended meanwhile.
                    Err(DockerError::DockerResponseServerError { status_code: 404 | 409 | 500, .. })
                        if !self.state(&id).await?.is_some_and(|(_, state)| paused(&state)) => {}
                    Err(error) => return Err(self.error("thaw the box", error)),
                }
            }
            Ok(thawed)
        }
        .boxed()
    }
}

fn is_supported(api_version: &str) -> bool {
    let (major, minor) = api_version.split_once('.').unwrap_or_default();
    major.parse().ok().zip(minor.parse().ok()).is_some_and(|version: (u32, u32)| version >= MIN_API_VERSION)
}

/// A box whose state says that it lives.
fn live_box(id: String, image_id: String, state: &ContainerState) -> Option<BoxContainer> {
    if !state.running.unwrap_or_default() {
        return None;
    }
    let state_now = if state.paused.unwrap_or_default() { BoxState::Paused } else { BoxState::Running };
    Some(BoxContainer { id, image_id, started_at: state.started_at.clone().unwrap_or_default(), state: state_now })
}

/// Whether a name is one that this module gave: that of a build, or of a door. A registry of the node's own is neither.
fn is_own(name: &str) -> bool {
    name.strip_prefix(COMMIT_REPOSITORY).is_some_and(|rest| rest.starts_with('/')) || is_door(name)
}

/// Whether an image name leads to a registry on 127.0.0.1.
fn is_loopback(name: &str) -> bool {
    let Some((host, path)) = name.split_once('/') else { return false };
    let Some(port) = host.strip_prefix("127.0.0.1:") else { return false };
    port.parse::<u16>().is_ok_and(|port| port > 0) && path.contains(':')
}

/// The repository and tag of a name on loopback.
fn loopback<'a>(call: &'static str, target: &'a str) -> Result<(&'a str, &'a str), EngineError> {
    let parts = target.rsplit_once(':').filter(|_| is_loopback(target));
    parts.ok_or_else(|| EngineError::Unexpected { call, message: "the target is not a loopback registry".to_owned() })
}

fn absent_as_none<T>(error: EngineError) -> Result<Option<T>, EngineError> {
    match error {
        EngineError::NotFound { .. } => Ok(None),
        error => Err(error),
    }
}

/// An error with what caused it: the client's own words often say only "client error".
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The beginning of a text of the engine.
fn clipped(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("1.41", true)]
    #[case("1.56", true)]
    #[case("2.0", true)]
    #[case("1.40", false)]
    #[case("1.9", false)]
    #[case("", false)]
    #[case("1", false)]
    #[case("1.x", false)]
    fn old_engines_are_told_apart(#[case] version: &str, #[case] supported: bool) {
        assert_eq!(is_supported(version), supported);
    }

    #[rstest]
    #[case("127.0.0.1:5999/nonce/x:t", true)]
    #[case("127.0.0.1:5999/nonce/x", false)]
    #[case("127.0.0.1:0/x:t", false)]
    #[case("127.0.0.1/x:t", false)]
    #[case("127.0.0.1:80.evil.io/x:t", false)]
    #[case("127.0.0.10:80/x:t", false)]
    #[case("registry.example.com/127.0.0.1:80/x:t", false)]
    #[case("", false)]
    fn only_loopback_registries_are_pushed_to(#[case] target: &str, #[case] loopback: bool) {
        assert_eq!(is_loopback(target), loopback);
    }

    #[rstest]
    #[case("windlass.invalid/commit/uid:step", true)]
    #[case("127.0.0.1:5999/0123456789abcdef0123456789abcdef/x:x", true)]
    #[case("127.0.0.1:5000/team/app:1", false)]
    #[case("windlass.invalid/committed/uid:step", false)]
    #[case("registry.example.com/windlass.invalid/commit/uid:step", false)]
    #[case("busybox:local", false)]
    fn foreign_names_are_left_alone(#[case] name: &str, #[case] own: bool) {
        assert_eq!(is_own(name), own);
    }

    #[test]
    fn long_words_of_the_engine_are_cut_between_characters() {
        assert_eq!(clipped(" ok \n"), "ok");
        let long = clipped(&"é".repeat(MAX_MESSAGE + 1));
        assert_eq!(long.chars().count(), MAX_MESSAGE + 1);
        assert!(long.ends_with('…'));
    }
}
