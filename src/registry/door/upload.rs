//! One blob on its way to the registry, from the engine or from the agent itself ([`super::layer`]).
//!
//! A small blob is taken in whole; a larger one streams through. Beside it runs the search for secrets.
//!
//! **Invariant:** what a blob is called is computed here from its bytes, not believed; a blob that may be an image's config is never
//! streamed.

use super::{HOLD, Push, blobs::Origin};
use crate::{
    api::condition::reason,
    registry::{
        client::{BUFFER, OutBody},
        digest::{Digest, Hasher},
        error::PushError,
        scan::{Packing, Scan},
    },
};
use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use std::{future::Future, io, pin::pin, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use url::Url;

/// Pieces that wait on their way to the registry.
const QUEUE: usize = 8;
/// Longest that one blob may take.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Where the bytes of a blob come from.
pub(super) trait Source: Send {
    /// The next piece; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, PushError>> + Send;

    /// How many bytes there will be, if that is known.
    fn length(&self) -> Option<u64>;
}

impl Source for Incoming {
    async fn next(&mut self) -> Result<Option<Bytes>, PushError> {
        let engine =
            |why: String| PushError::transient(reason::COMMIT_FAILED, format!("the engine broke off its push: {why}"));
        loop {
            let frame = timeout(super::ENGINE_IDLE, self.frame()).await;
            let Some(frame) = frame.map_err(|_| engine("it sent nothing".into()))? else { return Ok(None) };
            if let Ok(piece) = frame.map_err(|error| engine(error.to_string()))?.into_data() {
                return Ok(Some(piece));
            }
        }
    }

    fn length(&self) -> Option<u64> {
        self.size_hint().exact()
    }
}

impl Source for mpsc::Receiver<Bytes> {
    async fn next(&mut self) -> Result<Option<Bytes>, PushError> {
        Ok(self.recv().await)
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

/// A blob that is being sent.
pub(super) struct Upload {
    /// What was taken in, until the upload streams.
    buffer: BytesMut,
    /// Where the upload goes on in the registry, once it streams.
    url: Option<Url>,
    hasher: Hasher,
    scan: Option<Scan>,
    /// The registry has it already; the engine sends it as it is small.
    known: bool,
    pub(super) received: u64,
    /// The right to hold bytes; one that streams, and has sent what it held, needs none.
    permit: Option<OwnedSemaphorePermit>,
}

impl Upload {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Self {
        Self {
            buffer: BytesMut::new(),
            url: None,
            hasher: Hasher::default(),
            scan: None,
            known: false,
            received: 0,
            permit: Some(permit),
        }
    }

    /// Says what the blob will be called, before it comes. One that the registry has is not searched, whatever its
    /// size: it came there by an earlier push, or is the box image's.
    pub(super) fn expect(&mut self, push: &Push, digest: &Digest) {
        self.known = self.received == 0 && push.state().blobs.is_known(digest);
    }

    /// Takes a body to its end.
    pub(super) async fn receive(&mut self, push: &Push, mut body: impl Source) -> Result<(), PushError> {
        let length = body.length().and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        self.buffer.reserve(length.min(HOLD));
        while self.url.is_none() {
            let Some(piece) = self.next(push, &mut body).await? else { return Ok(()) };
            self.buffer.extend_from_slice(&piece);
            if self.buffer.len() > HOLD {
                self.check_kind()?;
                self.url = Some(push.session.start_upload().await?);
            }
        }
        self.stream(push, body).await
    }

    /// Hands the rest of a body on to the registry as it comes.
    async fn stream(&mut self, push: &Push, mut body: impl Source) -> Result<(), PushError> {
        let Some(url) = self.url.clone() else { return Ok(()) };
        let patience = push.session.client().patience();
        let (pieces, queue) = mpsc::channel::<Bytes>(QUEUE);
        // It takes as long as it takes; that it moves is seen to below.
        let mut sending = pin!(push.session.send_part(&url, queue_body(queue), LONGEST));
        let idle = |what: &str, time: Duration| {
            let text = format!("{} {what} for {}s", push.session.repository().host, time.as_secs());
            PushError::transient(reason::REGISTRY_TIMEOUT, text)
        };
        loop {
            let piece = if self.buffer.is_empty() {
                // The memory goes with the right to it.
                self.buffer = BytesMut::new();
                self.permit = None;
                tokio::select! {
                    biased;
                    // An answer in the middle is an error, whatever it says.
                    early = &mut sending => return Err(early.err().unwrap_or_else(|| early_answer(push))),
                    piece = self.next(push, &mut body) => piece?,
                }
            } else {
                Some(self.buffer.split_to(self.buffer.len().min(BUFFER)).freeze())
            };
            let Some(piece) = piece else { break };
            tokio::select! {
                biased;
                early = &mut sending => return Err(early.err().unwrap_or_else(|| early_answer(push))),
                sent = timeout(patience.idle, pieces.send(piece)) => {
                    sent.map_err(|_| idle("took nothing", patience.idle))?.map_err(|_| early_answer(push))?;
                }
            }
        }
        drop(pieces);
        let closed = tokio::select! {
            biased;
            () = push.stop.cancelled() => return Err(PushError::stopped()),
            closed = timeout(patience.commit, sending) => closed,
        };
        self.url = Some(closed.map_err(|_| idle("gave no answer", patience.commit))??);
        Ok(())
    }

    /// The next piece, counted, hashed and given to the search.
    async fn next(&mut self, push: &Push, body: &mut impl Source) -> Result<Option<Bytes>, PushError> {
        let piece = tokio::select! {
            biased;
            () = push.stop.cancelled() => return Err(PushError::stopped()),
            piece = body.next() => piece?,
        };
        let Some(piece) = piece else { return Ok(None) };
        self.hasher.update(&piece);
        self.received += piece.len() as u64;
        push.progress.send_modify(|progress| progress.bytes_done += piece.len() as u64);
        if let Some(needles) = push.needles.as_ref().filter(|_| !self.known) {
            let scan = self.scan.get_or_insert_with(|| Scan::start(needles.clone()));
            scan.feed(piece.clone()).await;
            // No need to send the rest of a layer that will be refused. The engine's config is not judged.
            if self.url.is_some() && scan.is_decided() && push.deny {
                self.judge(push, None).await?;
            }
        }
        Ok(Some(piece))
    }

    /// Ends the search, and acts on what it found.
    async fn judge(&mut self, push: &Push, digest: Option<&Digest>) -> Result<(), PushError> {
        let Some(scan) = self.scan.take() else { return Ok(()) };
        push.judge(digest, scan.verdict().await)
    }

    /// The blob is whole: puts it under its name, in the registry or, if it may be the config, on hold. The name must
    /// be that which was claimed, if one was.
    pub(super) async fn finish(mut self, push: &Push, claimed: Option<&Digest>) -> Result<Digest, PushError> {
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some(claimed) = claimed.filter(|claimed| **claimed != digest) {
            let text = format!("the engine sent {digest} under the name of {claimed}");
            return Err(PushError::transient(reason::DIGEST_MISMATCH, text));
        }
        if self.url.is_none() && self.may_be_config() {
            let bytes = std::mem::take(&mut self.buffer).freeze();
            if push.state().blobs.hold(digest.clone(), bytes) {
                return Ok(digest);
            }
            return Err(PushError::new(reason::COMMIT_FAILED, "the engine sends too many blobs that are no layers"));
        }
        let (known, absent) = {
            let state = push.state();
            (state.blobs.is_known(&digest), state.blobs.is_absent(&digest))
        };
        if known {
            self.scan = None;
        }
        if let Err(error) = self.judge(push, Some(&digest)).await {
            if let Some(url) = &self.url {
                push.session.abandon(url).await;
            }
            return Err(error);
        }
        let bytes = std::mem::take(&mut self.buffer).freeze();
        match &self.url {
            Some(url) => push.session.finish_upload(url, &digest).await?,
            None if known => {}
            None => push.session.put_blob(&digest, &bytes, !absent).await?,
        }
        let origin = if known { Origin::There } else { Origin::Sent };
        push.state().blobs.note(digest.clone(), origin, true);
        push.show();
        Ok(digest)
    }

    /// Gives the blob up.
    pub(super) async fn abandon(self, push: &Push) {
        if let Some(url) = &self.url {
            push.session.abandon(url).await;
        }
    }

    /// A config is JSON, an object: it begins with a brace. No packed layer does.
    fn may_be_config(&self) -> bool {
        Packing::of(&self.buffer) == Packing::Plain
            && self.buffer.iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(|byte| *byte == b'{')
    }

    fn check_kind(&self) -> Result<(), PushError> {
        if self.may_be_config() {
            let text = format!("the image's config is larger than {HOLD} bytes");
            return Err(PushError::new(reason::COMMIT_FAILED, text));
        }
        Ok(())
    }
}

fn early_answer(push: &Push) -> PushError {
    let text = format!("{} took only a part of an upload", push.session.repository().host);
    PushError::transient(reason::REGISTRY_REFUSED, text)
}

fn queue_body(queue: mpsc::Receiver<Bytes>) -> OutBody {
    let pieces = stream::unfold(queue, |mut queue| async move {
        let piece = queue.recv().await?;
        Some((Ok::<_, io::Error>(Frame::data(piece)), queue))
    });
    StreamBody::new(pieces).boxed_unsync()
}
