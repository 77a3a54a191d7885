//! Following, beside whom the person sits that a `shell` step waits for: our terminal is handed to it.
//!
//! **Invariant:** a step is given the terminal once; the footer is gone meanwhile, and nothing else writes.

use super::Follow;
use crate::client::{fault::Stop, feed::Feed};

impl<F: Feed> Follow<'_, F> {
    /// Hands our terminal to a `shell` step that waits for it, if that is for us to do.
    pub(super) async fn attach(&mut self) -> Result<(), Stop> {
        let waiting = self.tracker.shell_that_waits().filter(|_| self.options.attach);
        let Some(step) = waiting.filter(|step| self.attached.as_deref() != Some(step)).map(str::to_owned) else {
            return Ok(());
        };
        self.attached = Some(step.clone());
        self.clear()?;
        let words = self.feed.attach(&self.name, &step).await?;
        Ok(self.screen.message(&words)?)
    }
}
