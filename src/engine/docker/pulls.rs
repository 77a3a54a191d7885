//! Images that come to the engine: pulled from a registry, or loaded from an archive.
//!
//! Called by `local` for the images of its runs, and for `windlass open` and `pull --load`. The agent uses none of this.
//!
//! **Invariant:** one image is pulled, never all tags of a name; only the end of a stream without an error is success.

use super::{DockerEngine, absent_as_none, clipped};
use crate::{
    engine::EngineError,
    registry::{Repository, reference::split_tag},
};
use bollard::{
    auth::DockerCredentials,
    models::ImageInspect,
    query_parameters::{CreateImageOptionsBuilder, ImportImageOptionsBuilder, ListImagesOptions},
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use std::{collections::BTreeMap, io, time::Duration};

/// Longest silence of a pull: a large layer is unpacked without a word.
const PULL_SILENCE: Duration = Duration::from_secs(15 * 60);

/// What is known of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalImage {
    /// ID.
    pub id: String,
    /// The user in its config; empty: root.
    pub user: String,
}

/// A login for a pull, as the engine takes it.
#[derive(Clone, Default)]
pub struct PullLogin {
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// A token in place of both.
    pub identity_token: Option<String>,
    /// The registry.
    pub server: String,
}

/// How far a pull is: bytes that came and bytes in all, of the layers that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Came.
    pub done: u64,
    /// In all.
    pub total: u64,
    /// Layers that are there.
    pub layers_there: usize,
    /// Layers.
    pub layers: usize,
}

impl DockerEngine {
    /// An image that the engine has.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn image(&self, name: &str) -> Result<Option<LocalImage>, EngineError> {
        match self.calls.inspect_image(name).await {
            Ok(ImageInspect { id, config, .. }) => Ok(Some(LocalImage {
                id: id.unwrap_or_default(),
                user: config.and_then(|config| config.user).unwrap_or_default(),
            })),
            Err(error) => absent_as_none(self.error("inspect the image", error)),
        }
    }

    /// The tags that a repository has on this engine, sorted. A name of the public registry may be short.
    ///
    /// # Errors
    /// The engine cannot list them.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>, EngineError> {
        let images = self.calls.list_images(None::<ListImagesOptions>).await;
        let images = images.map_err(|error| self.error("list images", error))?;
        let Ok(wanted) = Repository::parse(repository, None) else { return Ok(Vec::new()) };
        let names = images.iter().flat_map(|image| &image.repo_tags);
        let mut tags: Vec<String> = names
            .filter_map(|name| name.rsplit_once(':'))
            .filter(|(name, _)| Repository::parse(name, None).is_ok_and(|found| found == wanted))
            .map(|(_, tag)| tag.to_owned())
            .collect();
        tags.sort();
        tags.dedup();
        Ok(tags)
    }

    /// Pulls an image; `tell` hears how far it is.
    ///
    /// # Errors
    /// The registry's words, as the engine repeats them.
    pub async fn pull(
        &self,
        image: &str,
        login: Option<PullLogin>,
        tell: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<(), EngineError> {
        let call = "pull the image";
        // Without a tag the engine would pull all tags there are.
        let (name, tag) = name_and_tag(image);
        let options = CreateImageOptionsBuilder::default().from_image(name).tag(tag).build();
        let login = login.map(|login| DockerCredentials {
            username: login.username,
            password: login.password,
            identitytoken: login.identity_token,
            serveraddress: Some(login.server),
            ..Default::default()
        });
        let mut answers = std::pin::pin!(self.long_calls.create_image(Some(options), None, login));
        let mut layers: BTreeMap<String, (u64, u64, bool)> = BTreeMap::new();
        loop {
            let answer = tokio::time::timeout(PULL_SILENCE, answers.next()).await;
            let answer = answer.map_err(|_| EngineError::TimedOut { call })?;
            // Errors arrive inside the stream, so only its end is success.
            let Some(answer) = answer else { return Ok(()) };
            let answer = answer.map_err(|error| self.error(call, error))?;
            let (Some(id), Some(status)) = (answer.id, answer.status) else { continue };
            if status.starts_with("Pulling from") {
                continue;
            }
            let layer = layers.entry(id).or_default();
            let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default();
            match (status.as_str(), answer.progress_detail) {
                ("Downloading", Some(detail)) => (layer.0, layer.1) = (bytes(detail.current), bytes(detail.total)),
                ("Download complete" | "Extracting", _) => layer.0 = layer.1,
                ("Pull complete" | "Already exists", _) => (layer.0, layer.2) = (layer.1, true),
                _ => {}
            }
            tell(PullProgress {
                done: layers.values().map(|layer| layer.0).sum(),
                total: layers.values().map(|layer| layer.1).sum(),
                layers_there: layers.values().filter(|layer| layer.2).count(),
                layers: layers.len(),
            });
        }
    }

    /// Loads an archive of an image.
    ///
    /// # Errors
    /// The engine refuses it, or cannot be reached.
    pub async fn load<S>(&self, archive: S) -> Result<(), EngineError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let call = "load the image";
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let mut said = std::pin::pin!(self.long_calls.import_image_stream(options, archive, None));
        while let Some(line) = said.next().await {
            let line = line.map_err(|error| self.error(call, error))?;
            if let Some(message) = line.error_detail.and_then(|detail| detail.message) {
                return Err(EngineError::Refused { call, status: 0, message: clipped(&message) });
            }
        }
        Ok(())
    }
}

/// The name of an image, and its tag or digest; `latest` if it has none.
pub(super) fn name_and_tag(image: &str) -> (&str, &str) {
    let (name, tag) = split_tag(image);
    (name, tag.unwrap_or("latest"))
}
