//! What the artifact store holds, and where, over a directory or S3.
//!
//! ```text
//! blobs/sha256/HEX                        config and layers, shared by all
//! runs/NAMESPACE/GROUP/ID/manifest.json   one stored container
//! uploads/ID                              what is on its way; counts for nothing
//! ```
//!
//! [`super::serve`] reads and writes, [`super::sweep`] removes.
//!
//! **Invariant:** a blob stands under its digest only once its bytes were seen to have it; memory is bounded, whatever the
//! size of a blob. No error names a place: who knows it may read.

use super::s3::{self, S3};
use crate::{
    api::artifact::{Place, without_places},
    registry::digest::{Digest, Hasher},
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart, local::LocalFileSystem,
    path::Path, prefix::PrefixStore,
};
use std::{io, ops::Range, path::Path as FilePath, sync::Arc};

/// Bytes of a part of an upload; with S3's 10000 parts a blob may have 80 GB.
const PART: usize = 8 * 1024 * 1024;
/// Parts of an upload on their way at one time.
const PARTS_AT_ONCE: usize = 2;
/// Largest object that S3 copies in one request, and so the largest blob that can be put under its name there.
const S3_LARGEST: u64 = 5 * 1024 * 1024 * 1024;
/// Largest manifest.
pub const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// Most objects that are looked at in one listing.
const MAX_LISTED: usize = 1_000_000;
const UPLOADS: &str = "uploads";

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or the S3 server refused, or is away.
    #[error("{0}")]
    Away(String),
    /// What came is not what it was said to be.
    #[error("the bytes are {found}, not {claimed}")]
    Mismatch {
        /// By its bytes.
        found: Digest,
        /// As it was called.
        claimed: Digest,
    },
    /// A blob that this kind of store cannot take.
    #[error("a layer of more than {} GiB cannot be stored in S3", S3_LARGEST >> 30)]
    TooLarge,
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        Self::Away(without_places(&error.to_string()))
    }
}

/// The store.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    largest: u64,
}

/// A part of a blob, as it is read.
pub struct Part {
    /// Size of the whole blob.
    pub whole: u64,
    /// Which bytes of it.
    pub range: Range<u64>,
    /// They.
    pub bytes: BoxStream<'static, Result<Bytes, StoreError>>,
}

/// A manifest that is there, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where.
    pub place: Place,
    /// When it was made, in seconds since the epoch.
    pub made_s: i64,
}

impl Store {
    /// A store in a directory, which must be there. What an earlier process left half done is removed.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn directory(path: &FilePath) -> Result<Self, StoreError> {
        let away = |error: io::Error| StoreError::Away(format!("{}: {error}", path.display()));
        match std::fs::remove_dir_all(path.join(UPLOADS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(away(error)),
            Ok(()) | Err(_) => {}
        }
        // Early, as a volume that cannot be written is a fault of the installation.
        std::fs::create_dir_all(path.join(UPLOADS)).map_err(away)?;
        let objects = LocalFileSystem::new_with_prefix(path)?.with_fsync(true);
        Ok(Self { objects: Arc::new(objects), largest: u64::MAX })
    }

    /// A store in a bucket of S3.
    ///
    /// # Errors
    /// The settings cannot be used; nothing is sent yet.
    pub fn s3(settings: &S3) -> Result<Self, StoreError> {
        let bucket = s3::bucket(settings).map_err(|error| StoreError::Away(error.to_string()))?;
        let objects: Arc<dyn ObjectStore> = match settings.prefix.trim_matches('/') {
            "" => Arc::new(bucket),
            prefix => Arc::new(PrefixStore::new(bucket, prefix)),
        };
        Ok(Self { objects, largest: S3_LARGEST })
    }

    /// Sees that the store answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.objects.list_with_delimiter(Some(&Path::from(UPLOADS))).await?;
        Ok(())
    }

    /// Size of a blob; `None` if it is not there.
    ///
    /// # Errors
    /// The store is away.
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(found(self.objects.head(&blob_path(digest)).await)?.map(|meta| meta.size))
    }

    /// Reads these bytes of a blob, or all; `None` if it is not there, or has no such bytes.
    ///
    /// # Errors
    /// The store is away.
    pub async fn read_blob(&self, digest: &Digest, range: Option<GetRange>) -> Result<Option<Part>, StoreError> {
        let options = GetOptions { range, ..GetOptions::default() };
        let Some(read) = found(self.objects.get_opts(&blob_path(digest), options).await)? else { return Ok(None) };
        let (whole, range) = (read.meta.size, read.range.clone());
        Ok(Some(Part { whole, range, bytes: read.into_stream().map_err(StoreError::from).boxed() }))
    }

    /// The manifest at a place; `None` if there is none.
    ///
    /// # Errors
    /// The store is away.
    pub async fn manifest(&self, place: &Place) -> Result<Option<Bytes>, StoreError> {
        let Some(read) = found(self.objects.get(&manifest_path(place)).await)? else { return Ok(None) };
        if read.meta.size > MAX_MANIFEST {
            return Err(StoreError::Away(format!("a manifest has {} bytes", read.meta.size)));
        }
        Ok(Some(read.bytes().await?))
    }

    /// Puts a manifest at a place.
    ///
    /// # Errors
    /// The store is away.
    pub async fn put_manifest(&self, place: &Place, bytes: Bytes) -> Result<(), StoreError> {
        self.objects.put(&manifest_path(place), PutPayload::from(bytes)).await?;
        Ok(())
    }

    /// Takes a stored container away; its blobs stay for the sweep.
    ///
    /// # Errors
    /// The store is away.
    pub async fn remove_manifest(&self, place: &Place) -> Result<(), StoreError> {
        found(self.objects.delete(&manifest_path(place)).await).map(drop)
    }

    /// Takes a blob away.
    ///
    /// # Errors
    /// The store is away.
    pub async fn remove_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        found(self.objects.delete(&blob_path(digest)).await).map(drop)
    }

    /// All manifests.
    ///
    /// # Errors
    /// The store is away, or holds more than can be looked at.
    pub async fn manifests(&self) -> Result<Vec<Kept>, StoreError> {
        let place = |meta: &ObjectMeta| {
            let path = meta.location.to_string();
            Place::parse(path.strip_prefix("runs/")?.strip_suffix("/manifest.json")?)
        };
        self.list("runs", |meta| Some(Kept { place: place(meta)?, made_s: meta.last_modified.timestamp() })).await
    }

    /// Uploads that are whole and were never put under their name, with their time as that of [`Self::blobs`].
    ///
    /// # Errors
    /// As [`Self::manifests`].
    pub async fn left_uploads(&self) -> Result<Vec<(String, i64)>, StoreError> {
        self.list(UPLOADS, |meta| Some((meta.location.filename()?.to_owned(), meta.last_modified.timestamp()))).await
    }

    /// Takes such an upload away.
    ///
    /// # Errors
    /// The store is away.
    pub async fn remove_upload(&self, name: &str) -> Result<(), StoreError> {
        found(self.objects.delete(&Path::from(UPLOADS).join(name)).await).map(drop)
    }

    /// All blobs, with the time of their last change in seconds since the epoch.
    ///
    /// # Errors
    /// As [`Self::manifests`].
    pub async fn blobs(&self) -> Result<Vec<(Digest, i64)>, StoreError> {
        let digest = |meta: &ObjectMeta| Digest::parse(&format!("sha256:{}", meta.location.filename()?));
        self.list("blobs/sha256", |meta| Some((digest(meta)?, meta.last_modified.timestamp()))).await
    }

    async fn list<T>(&self, prefix: &str, read: impl Fn(&ObjectMeta) -> Option<T>) -> Result<Vec<T>, StoreError> {
        let mut all = Vec::new();
        let mut listed = self.objects.list(Some(&Path::from(prefix)));
        while let Some(meta) = listed.try_next().await? {
            all.extend(read(&meta));
            if all.len() > MAX_LISTED {
                return Err(StoreError::Away(format!("there are more than {MAX_LISTED} objects below {prefix}")));
            }
        }
        Ok(all)
    }
}

/// A blob that comes in, piece by piece.
pub struct Incoming {
    /// What came, until it is more than a part.
    head: BytesMut,
    write: Option<(Path, WriteMultipart)>,
    hasher: Hasher,
    /// Bytes that came.
    pub received: u64,
}

impl Incoming {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { head: BytesMut::new(), write: None, hasher: Hasher::default(), received: 0 }
    }

    /// Takes the next piece; waits while the store is slow.
    ///
    /// # Errors
    /// The store is away, or the blob is too large for it.
    pub async fn take(&mut self, store: &Store, piece: Bytes) -> Result<(), StoreError> {
        self.received += piece.len() as u64;
        if self.received > store.largest {
            return Err(StoreError::TooLarge);
        }
        self.hasher.update(&piece);
        if self.write.is_none() {
            self.head.extend_from_slice(&piece);
            if self.head.len() < PART {
                return Ok(());
            }
            let path = Path::from(format!("{UPLOADS}/{:032x}", rand::random::<u128>()));
            let parts = store.objects.put_multipart(&path).await?;
            let mut write = WriteMultipart::new_with_chunk_size(parts, PART);
            write.put(std::mem::take(&mut self.head).freeze());
            self.write = Some((path, write));
            return Ok(());
        }
        if let Some((_, write)) = &mut self.write {
            write.wait_for_capacity(PARTS_AT_ONCE).await?;
            write.put(piece);
        }
        Ok(())
    }

    /// The blob is whole: puts it under its name, if that is its digest.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`], or the store is away; nothing counts then.
    pub async fn finish(mut self, store: &Store, claimed: &Digest) -> Result<(), StoreError> {
        let digest = std::mem::take(&mut self.hasher).finish();
        if digest != *claimed {
            self.abandon().await;
            return Err(StoreError::Mismatch { found: digest, claimed: claimed.clone() });
        }
        let Some((path, write)) = self.write.take() else {
            let whole = std::mem::take(&mut self.head).freeze();
            store.objects.put(&blob_path(&digest), PutPayload::from(whole)).await?;
            return Ok(());
        };
        write.finish().await?;
        store.objects.rename(&path, &blob_path(&digest)).await?;
        Ok(())
    }

    /// Gives the blob up.
    pub async fn abandon(self) {
        if let Some((_, write)) = self.write
            && let Err(error) = write.abort().await
        {
            tracing::warn!("an upload that was given up leaves something: {}", StoreError::from(error));
        }
    }
}

impl Default for Incoming {
    fn default() -> Self {
        Self::new()
    }
}

fn blob_path(digest: &Digest) -> Path {
    Path::from(format!("blobs/{}", digest.as_str().replace(':', "/")))
}

fn manifest_path(place: &Place) -> Path {
    Path::from(format!("runs/{place}/manifest.json"))
}

/// What is not there is no error.
fn found<T>(result: object_store::Result<T>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
