//! The line from a push in flight to the task that follows its run.
//!
//! `push` and `transport` speak, `follow` listens: the run's status has one writer.
//!
//! **Invariant:** [`Line::record`] returns only once the digest stands in the status.

use super::work::Verdict;
use crate::{api::status::ImageStatus, registry::PushError};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// What is told about the work on a step.
#[derive(Debug)]
pub enum Message {
    /// How far it is, for people.
    Progress {
        /// The step.
        step: usize,
        /// The text.
        text: String,
    },
    /// The image as it is now.
    Image {
        /// The step.
        step: usize,
        /// The image.
        image: ImageStatus,
        /// Told once the digest stands in the status.
        written: Option<oneshot::Sender<()>>,
    },
    /// It is over.
    Ended {
        /// The step.
        step: usize,
        /// How.
        verdict: Verdict,
    },
}

/// One end of the line.
#[derive(Clone)]
pub struct Line {
    step: usize,
    sender: mpsc::UnboundedSender<Message>,
    stop: CancellationToken,
    image: Arc<Mutex<Option<ImageStatus>>>,
}

impl Line {
    /// A line for the work on a step.
    #[must_use]
    pub fn new(step: usize, sender: mpsc::UnboundedSender<Message>, stop: CancellationToken) -> Self {
        Self { step, sender, stop, image: Arc::default() }
    }

    /// Takes up the image that an earlier try recorded.
    pub fn resume(&self, image: Option<ImageStatus>) {
        *self.lock() = image;
    }

    /// Records the image before its first tag moves; an error if the work is told to stop meanwhile.
    pub async fn record(&self, image: ImageStatus) -> Result<(), PushError> {
        *self.lock() = Some(image.clone());
        let (written, done) = oneshot::channel();
        let message = Message::Image { step: self.step, image, written: Some(written) };
        if self.sender.send(message).is_err() {
            return Err(PushError::stopped());
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(PushError::stopped()),
            done = done => done.map_err(|_| PushError::stopped()),
        }
    }

    /// Notes that a tag has moved.
    pub fn moved(&self, tag: &str) {
        let mut guard = self.lock();
        let Some(image) = guard.as_mut() else { return };
        if !image.tags.iter().any(|known| known == tag) {
            image.tags.push(tag.to_owned());
            // A line that nobody listens to has nothing to record either.
            let _ = self.sender.send(Message::Image { step: self.step, image: image.clone(), written: None });
        }
    }

    /// Tells how far it is.
    pub fn progress(&self, text: String) {
        let _ = self.sender.send(Message::Progress { step: self.step, text });
    }

    /// Tells the end.
    pub fn end(&self, verdict: Verdict) {
        let _ = self.sender.send(Message::Ended { step: self.step, verdict });
    }

    /// The image, if its digest is known.
    #[must_use]
    pub fn images(&self) -> Vec<ImageStatus> {
        self.lock().iter().cloned().collect()
    }

    /// What ends the work.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Whether the work is told to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until the work is told to stop.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ImageStatus>> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
