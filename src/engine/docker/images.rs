//! Images of the person's own machine: built from a Dockerfile, and made of a box under a name of the user's.
//!
//! Called by `local` for what Wercker did with its engine. The agent uses none of this.
//!
//! **Invariant:** what is built has the name and the label of a commit, so that it is removed with the run. A name of the
//! user's is given only because the pipeline of the user's own machine asks for it.

use super::{COMMIT_CALL, DockerEngine, clipped};
use crate::engine::{BoxContainer, COMMIT_LABEL, CommitKey, EngineError};
use bollard::{
    auth::DockerCredentials,
    body_try_stream,
    models::{BuildInfo, ContainerConfig},
    query_parameters::{
        BuildImageOptionsBuilder, CommitContainerOptionsBuilder, ListImagesOptionsBuilder, TagImageOptionsBuilder,
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    time::Duration,
};
use tokio::sync::mpsc;

/// Longest silence of a build.
const BUILD_SILENCE: Duration = Duration::from_secs(30 * 60);

/// A build.
#[derive(Clone, Default)]
pub struct BuildSpec {
    /// The Dockerfile, below the context.
    pub dockerfile: String,
    /// Arguments.
    pub build_args: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `NAME:address`.
    pub extra_hosts: Vec<String>,
    /// Whether only the result is told.
    pub quiet: bool,
    /// Whether every instruction is carried out anew.
    pub no_cache: bool,
    /// Whether the layers become one.
    pub squash: bool,
    /// Network of the instructions.
    pub network: Option<String>,
    /// Logins for pulls, by registry.
    pub logins: BTreeMap<String, (String, String)>,
}

/// An image of the box, under names of the user's.
#[derive(Clone, Debug, Default)]
pub struct NamedCommit {
    /// Names with tags; the first one is committed, the others are put on it.
    pub names: Vec<String>,
    /// Its config, as `steps::image_config` made it.
    pub config: Value,
    /// Author.
    pub author: Option<String>,
    /// Comment.
    pub message: Option<String>,
}

impl DockerEngine {
    /// Builds an image of a context (a tar, perhaps compressed); `say` gets what the build prints, and may let it wait.
    ///
    /// # Errors
    /// The engine's words.
    pub async fn build(
        &self,
        key: &CommitKey,
        spec: BuildSpec,
        context: impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static,
        say: &mpsc::Sender<String>,
    ) -> Result<(), EngineError> {
        let call = "build the image";
        let name = key.image_name()?;
        let mut labels: HashMap<String, String> = spec.labels.into_iter().collect();
        labels.insert(COMMIT_LABEL.to_owned(), key.to_string());
        let mut options = BuildImageOptionsBuilder::default()
            .dockerfile(&spec.dockerfile)
            .t(&name)
            .q(spec.quiet)
            .nocache(spec.no_cache)
            .rm(true)
            .forcerm(true)
            .labels(&labels);
        let arguments: HashMap<String, String> = spec.build_args.into_iter().collect();
        if !arguments.is_empty() {
            options = options.buildargs(&arguments);
        }
        if !spec.extra_hosts.is_empty() {
            options = options.extrahosts(&spec.extra_hosts.join(","));
        }
        if let Some(network) = &spec.network {
            options = options.networkmode(network);
        }
        if spec.squash {
            options = options.squash(true);
        }
        let logins: HashMap<String, DockerCredentials> = spec
            .logins
            .into_iter()
            .map(|(host, (username, password))| {
                let login = DockerCredentials {
                    username: Some(username),
                    password: Some(password),
                    serveraddress: Some(host.clone()),
                    ..Default::default()
                };
                (host, login)
            })
            .collect();
        let logins = (!logins.is_empty()).then_some(logins);
        let answers = self.long_calls.build_image(options.build(), logins, Some(body_try_stream(context)));
        let mut answers = std::pin::pin!(answers);
        loop {
            let answer = tokio::time::timeout(BUILD_SILENCE, answers.next()).await;
            let answer = answer.map_err(|_| EngineError::TimedOut { call })?;
            // Errors arrive inside the stream, so only its end is success.
            let Some(answer) = answer else { return Ok(()) };
            let BuildInfo { stream, status, error_detail, .. } = answer.map_err(|error| self.error(call, error))?;
            if let Some(detail) = error_detail {
                let message = clipped(&detail.message.unwrap_or_else(|| "the engine gave no reason".to_owned()));
                return Err(EngineError::Refused { call, status: 0, message });
            }
            if let Some(text) = stream.or(status.map(|status| status + "\n")) {
                // Nobody need hear it.
                let _ = say.send(text).await;
            }
        }
    }

    /// Commits a container under names of the user's.
    ///
    /// What the container itself has cannot be taken out by a commit, so what the image is to be without is emptied: the
    /// labels by which the box is known.
    ///
    /// # Errors
    /// The engine cannot.
    pub async fn commit_named(&self, container: &BoxContainer, commit: &NamedCommit) -> Result<(), EngineError> {
        let found = self.calls.inspect_container(&container.id, None).await;
        let found = found.map_err(|error| self.error("inspect the box", error))?;
        let mut config = commit.config.clone();
        let of_container = found.config.and_then(|config| config.labels).unwrap_or_default();
        if let Some(config) = config.as_object_mut() {
            let labels = config.entry("Labels").or_insert_with(|| json!({}));
            if labels.is_null() {
                *labels = json!({});
            }
            if let Some(labels) = labels.as_object_mut() {
                for label in of_container.into_keys().filter(|label| label.starts_with(OUR_LABELS)) {
                    labels.entry(label).or_insert_with(|| "".into());
                }
            }
            // Left out, the command that waits for the runner would be taken over.
            for key in ["Entrypoint", "Cmd"] {
                if config.get(key).is_none_or(Value::is_null) {
                    config.insert(key.to_owned(), json!([]));
                }
            }
        }
        let config: ContainerConfig = serde_json::from_value(config)
            .map_err(|error| EngineError::Unexpected { call: COMMIT_CALL, message: error.to_string() })?;
        let Some((first, others)) = commit.names.split_first() else { return Ok(()) };
        let (name, tag) = super::pulls::name_and_tag(first);
        let mut options =
            CommitContainerOptionsBuilder::default().container(&container.id).repo(name).tag(tag).pause(true);
        if let Some(author) = &commit.author {
            options = options.author(author);
        }
        if let Some(message) = &commit.message {
            options = options.comment(message);
        }
        let id = self.committed(options.build(), config).await?.id;
        for other in others {
            self.tag(&id, other).await?;
        }
        Ok(())
    }

    /// Removes the images that local runs made, by the UIDs of the runs: those that have the name of a commit, and those
    /// from which a second build of the same took it. A name of the user's stays.
    ///
    /// # Errors
    /// The engine cannot list them; one that cannot be removed stays.
    pub async fn remove_made(&self, is_of: impl Fn(&str) -> bool) -> Result<(), EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![COMMIT_LABEL.to_owned()])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let images = self.calls.list_images(Some(options)).await.map_err(|error| self.error("list images", error))?;
        for image in images {
            let uid = image.labels.get(COMMIT_LABEL).and_then(|label| label.split('/').next());
            if uid.is_some_and(&is_of)
                && let Err(error) = self.discard(&image.id).await
            {
                tracing::debug!("an image of a run stays: {error}");
            }
        }
        Ok(())
    }

    /// Puts a name with a tag on an image.
    ///
    /// # Errors
    /// The engine cannot.
    pub async fn tag(&self, image: &str, name: &str) -> Result<(), EngineError> {
        let (name, tag) = super::pulls::name_and_tag(name);
        let options = TagImageOptionsBuilder::default().repo(name).tag(tag).build();
        self.calls.tag_image(image, Some(options)).await.map_err(|error| self.error("name the image", error))
    }
}

/// How the labels of local runs begin.
const OUR_LABELS: &str = "windlass.dev/";
