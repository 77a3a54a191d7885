//! Following, asked to end or to stop: what a Ctrl-C does to the run, and what is said of it.
//!
//! **Invariant:** as that of following: only the first Ctrl-C of who started the run asks for a cancel.

use super::{Follow, Left};
use crate::client::{args::OnInterrupt, event::Event, exit::Exit, fault::Stop, feed::Feed, signals};

impl<F: Feed> Follow<'_, F> {
    /// Answers who wants us to end; the exit code if that is now.
    pub(super) async fn signal(&mut self, exit: Exit) -> Result<Option<Exit>, Stop> {
        let name = self.name.clone();
        match self.options.interrupt {
            Some(OnInterrupt::Cancel) if !self.cancelled => {
                self.cancelled = true;
                let step = self.tracker.running().map(|s| format!("stopping step {s}"));
                let after = self.tracker.view().steps.iter().any(|s| s.after).then(|| "then after-steps".to_owned());
                let what: Vec<String> = step.into_iter().chain(after).collect();
                let what = if what.is_empty() { String::new() } else { format!(": {}", what.join(", ")) };
                let message = format!("cancelling {name}{what} (Ctrl-C again to {})", self.feed.second_interrupt());
                self.tell(&[Event::Notice { message }])?;
                self.tracker.cancel_was_told();
                // A cluster that is slow to answer holds nobody here.
                tokio::select! {
                    asked = self.feed.cancel(&name) => {
                        asked?;
                        Ok(None)
                    }
                    exit = self.signals.asked_to_end() => {
                        let message = self.feed.left(&name, Left::Unheard);
                        self.tell(&[Event::Notice { message }])?;
                        Ok(Some(exit))
                    }
                }
            }
            Some(how) => {
                let left = if how == OnInterrupt::Cancel { Left::Cancelled } else { Left::Detached };
                let message = self.feed.left(&name, left);
                self.tell(&[Event::Notice { message }])?;
                Ok(Some(exit))
            }
            None => Ok(Some(exit)),
        }
    }

    /// Stops as Ctrl-Z does, with a clean terminal.
    pub(super) fn suspend(&mut self) -> Result<(), Stop> {
        self.framed = None;
        self.paint(Vec::new())?;
        self.screen.clear()?;
        signals::suspend();
        Ok(())
    }
}
