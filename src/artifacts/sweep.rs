//! Takes away what is not kept any more: manifests by age and count, uploads that were left, then blobs that nothing needs.
//!
//! [`super::run`] calls [`sweep`] now and then.
//!
//! **Invariant:** a blob goes only if no manifest lists it, it is older than the grace, and no agent was told within
//! the grace that it is there. No manifest is taken in meanwhile. What cannot be read is no reason to remove anything.

use super::{
    retention::{Retention, expired},
    serve::{GRACE, Server},
    store::StoreError,
};
use crate::registry::{Image, digest::Digest};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::{collections::HashSet, time::Duration};

/// Manifests that are read at one time.
const READERS: usize = 16;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Containers that are not kept any more.
    pub containers: usize,
    /// Blobs that nothing needs.
    pub blobs: usize,
    /// Uploads that were whole and never became a blob.
    pub uploads: usize,
}

/// Sweeps once, `now_s` seconds after the epoch.
///
/// # Errors
/// The store is away, or a manifest cannot be read; what was removed before that stays removed.
pub async fn sweep(server: &Server, retention: Retention, now_s: i64) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    for place in expired(&server.store.manifests().await?, now_s, retention) {
        server.store.remove_manifest(&place).await?;
        swept.containers += 1;
    }
    for (name, changed_s) in server.store.left_uploads().await? {
        if age(now_s, changed_s) > GRACE {
            server.store.remove_upload(&name).await?;
            swept.uploads += 1;
        }
    }
    let _no_manifest_comes = server.sweeping.write().await;
    let needed = needed(server).await?;
    for (digest, changed_s) in server.store.blobs().await? {
        if !needed.contains(&digest) && age(now_s, changed_s) > GRACE && !server.is_vouched(&digest) {
            server.store.remove_blob(&digest).await?;
            swept.blobs += 1;
        }
    }
    Ok(swept)
}

fn age(now_s: i64, changed_s: i64) -> Duration {
    Duration::from_secs(u64::try_from(now_s.saturating_sub(changed_s)).unwrap_or_default())
}

/// All blobs that manifests list.
async fn needed(server: &Server) -> Result<HashSet<Digest>, StoreError> {
    let kept = server.store.manifests().await?;
    let read = stream::iter(kept).map(|kept| async move {
        // One that is gone meanwhile needs nothing.
        let Some(bytes) = server.store.manifest(&kept.place).await? else { return Ok(Vec::new()) };
        let image =
            Image::read(&bytes, "").map_err(|why| StoreError::Away(format!("a manifest cannot be read: {why}")))?;
        Ok::<_, StoreError>(image.blobs().into_iter().map(|(digest, _)| digest.clone()).collect::<Vec<_>>())
    });
    read.buffer_unordered(READERS)
        .try_fold(HashSet::new(), |mut all, blobs| async move {
            all.extend(blobs);
            Ok(all)
        })
        .await
}
