//! Publishes an image once all its layers are there: config, manifest, tags.
//!
//! **Invariant:** the order is missing layers, config and `before_tags`, tags; nothing is tagged that is not whole.

use super::{Prepared, Push, Pushed, blobs::Origin};
use crate::{
    api::condition::reason,
    registry::{
        digest::Digest,
        error::{PushError, plain},
        manifest::Image,
        scan::{Verdict, search_layer},
    },
};
use bytes::Bytes;

impl Push {
    /// A secret's value is in the image: an error or a warning, as the step says.
    pub(super) fn leak(&self, text: String) -> Result<(), PushError> {
        if self.deny {
            return Err(PushError::secret_in_image(&text, self.artifact));
        }
        self.warn(text);
        Ok(())
    }

    /// Acts on what a search of a layer found; the layer has no name before its end.
    pub(super) fn judge(&self, layer: Option<&Digest>, verdict: Verdict) -> Result<(), PushError> {
        match verdict {
            Verdict::Clean => Ok(()),
            Verdict::Found { name, path } => {
                let place = path.map_or_else(|| "in a layer".to_owned(), |path| format!("in {path}"));
                self.leak(format!("the value of {name} is {place}"))
            }
            Verdict::NotSearched(why) => {
                let layer = layer.map_or_else(|| "a layer".to_owned(), |digest| format!("layer {digest}"));
                let text = format!("{layer} cannot be searched for secrets: {why}");
                if self.deny {
                    return Err(PushError::not_searched(&text, self.artifact));
                }
                self.warn(text);
                Ok(())
            }
        }
    }

    /// Adds a warning; what many layers share is said once.
    pub(super) fn warn(&self, warning: String) {
        let mut state = self.state();
        if state.warnings.len() < 20 && !state.warnings.contains(&warning) {
            state.warnings.push(warning);
        }
    }
}

/// Publishes the image of the engine's manifest under all tags.
pub(super) async fn publish(push: &Push, manifest: &[u8], content_type: &str) -> Result<Pushed, PushError> {
    publish_image(push, Image::read(manifest, content_type).map_err(|why| wrong(plain(&why)))?).await
}

fn wrong(why: String) -> PushError {
    PushError::new(reason::COMMIT_FAILED, format!("the image cannot be pushed: {why}"))
}

/// Publishes an image whose config is held and whose layers are there or held.
pub(super) async fn publish_image(push: &Push, image: Image) -> Result<Pushed, PushError> {
    let image = if push.artifact { image.into_oci() } else { image };
    let config = config(push, &image)?;
    let config_digest = Digest::of(&config);
    complete(push, &image).await?;
    let (kind, bytes) = image.write(&config_digest, config.len() as u64).map_err(wrong)?;
    let bytes = Bytes::from(bytes);
    let digest = Digest::of(&bytes);
    let size = image.size(config.len() as u64);
    // Neither waits for the other: a digest that is recorded and not in the registry has no tag, so a restart begins anew.
    let recorded = (push.before_tags)(Prepared { digest: digest.to_string(), size });
    tokio::try_join!(push.session.put_blob(&config_digest, &config, false), recorded)?;
    let mut tags: Vec<String> = Vec::new();
    for tag in &push.tags {
        if tags.contains(tag) {
            continue;
        }
        if push.stop.is_cancelled() {
            return Err(PushError::stopped());
        }
        push.session.put_manifest(tag, kind, &bytes, &digest).await?;
        tags.push(tag.clone());
        (push.after_tag)(tag.clone()).await?;
    }
    let warnings = push.state().warnings.clone();
    Ok(Pushed { digest: digest.to_string(), size, tags, warnings })
}

/// The rebuilt config.
fn config(push: &Push, image: &Image) -> Result<Bytes, PushError> {
    let held = push.state().blobs.held(&image.config);
    let held = held.ok_or_else(|| {
        PushError::transient(reason::COMMIT_FAILED, "the engine did not send the config of its image")
    })?;
    let config = Bytes::from((push.config)(&held)?);
    if let Some(name) = push.needles.as_ref().and_then(|needles| needles.search(&config)) {
        push.leak(format!("the value of {name} is in the image's config"))?;
    }
    Ok(config)
}

/// Sees that the registry has every layer.
async fn complete(push: &Push, image: &Image) -> Result<(), PushError> {
    for layer in image.layers.iter().filter(|layer| !layer.is_foreign()) {
        let digest = &layer.digest;
        let (known, held) = {
            let state = push.state();
            (state.blobs.is_known(digest), state.blobs.held(digest))
        };
        if known {
            push.state().blobs.note(digest.clone(), Origin::There, true);
        } else if let Some(bytes) = held.filter(|_| *digest != image.config) {
            // It was taken for a config, and is searched as what it is.
            if let Some(needles) = &push.needles {
                push.judge(Some(digest), search_layer(needles, &bytes[..]))?;
            }
            push.session.put_blob(digest, &bytes, true).await?;
            push.state().blobs.note(digest.clone(), Origin::Sent, true);
        } else if push.session.head_blob(digest).await?.is_some() {
            push.state().blobs.note(digest.clone(), Origin::There, true);
        } else {
            let text = format!("layer {digest} is missing from the engine's push");
            return Err(PushError::transient(reason::COMMIT_FAILED, text));
        }
        push.show();
    }
    Ok(())
}
