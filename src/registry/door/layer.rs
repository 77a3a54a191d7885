//! Pushes an image that no engine has: one layer, as the agent makes it.
//!
//! The agent calls [`push_layer`] for an image from scratch. Everything after the bytes is as for an engine's push:
//! the search for secrets, the config, the digest before the tags.
//!
//! **Invariant:** a layer whose maker failed is never closed, so nothing of it is in the registry.

use super::{DoorJob, Push, Pushed, publish::publish_image, upload::Upload};
use crate::{
    api::condition::reason,
    registry::{client::Client, digest::Digest, error::PushError, manifest::Image},
};
use bytes::Bytes;
use std::{future::Future, sync::Arc};
use tokio::sync::mpsc;

/// Pushes an image of one gzipped layer that comes in pieces. Once they have ended, `made` says whether the layer is
/// whole, and gives the config document that an engine would have written for it; the job's `config` rebuilds that.
pub async fn push_layer(
    client: Client,
    job: DoorJob,
    pieces: mpsc::Receiver<Bytes>,
    made: impl Future<Output = Result<Vec<u8>, PushError>> + Send,
) -> Result<Pushed, PushError> {
    let push = Push::new(client, job, "")?;
    push.show();
    let permit = Arc::clone(&push.uploads).acquire_owned().await.map_err(|_| PushError::stopped())?;
    let mut upload = Upload::new(permit);
    let received = upload.receive(&push, pieces).await;
    // If the maker failed, that is why the pieces ended; if the upload did, why the maker could not go on.
    let document = match received {
        Ok(()) => made.await,
        Err(error) => Err(error),
    };
    let document = match document {
        Ok(document) => Bytes::from(document),
        Err(error) => {
            upload.abandon(&push).await;
            return Err(error);
        }
    };
    let size = upload.received;
    let layer = upload.finish(&push, None).await?;
    let config = Digest::of(&document);
    if !push.state().blobs.hold(config.clone(), document) {
        return Err(PushError::new(reason::COMMIT_FAILED, "the image's config is too large"));
    }
    publish_image(&push, Image::of_layer(config, layer, size)).await
}
