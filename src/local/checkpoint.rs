//! The checkpoint that a box is made of: an image that a step of an earlier run made on this engine.
//!
//! `start` looks for it before anything is made.
//!
//! **Invariant:** asks the engine only: no registry has the image, and a pull would fail with words about logins.

use super::StartError;
use crate::{engine::docker::DockerEngine, registry::reference::split_tag};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its name.
    pub name: String,
    /// How tags of checkpoints begin.
    pub prefix: &'static str,
}

impl Checkpoint {
    /// Looks whether its image is there.
    ///
    /// # Errors
    /// [`StartError::NoCheckpoint`] names those that there are.
    pub(super) async fn check(&self, image: &str, engine: &DockerEngine) -> Result<(), StartError> {
        if engine.image(image).await?.is_some() {
            return Ok(());
        }
        let repository = split_tag(image).0;
        let tags = engine.tags(repository).await?;
        let names: Vec<&str> = tags.iter().filter_map(|tag| tag.strip_prefix(self.prefix)).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let message =
            format!("checkpoint {}: there is no image {image}; checkpoints of {repository}: {there}", self.name);
        Err(StartError::NoCheckpoint(message))
    }
}
