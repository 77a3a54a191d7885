//! Following, asked to end or to stop: what a Ctrl-C does to the run, and what is said of it.
//!
//! **Invariant:** as that of following: only a Ctrl-C of who started the run asks for a cancel.

use super::{Follow, Interrupt, Left};
use crate::client::{event::Event, exit::Exit, fault::Stop, feed::Feed, signals};

impl<F: Feed> Follow<'_, F> {
    /// Answers who wants us to end; the exit code if that is now.
    pub(super) async fn signal(&mut self, exit: Exit) -> Result<Option<Exit>, Stop> {
        match self.options.interrupt {
            Some(Interrupt::Finish) if self.asked < 2 && self.tracker.view().outcome().is_none() => {
                self.asked += 1;
                self.finish().await
            }
            Some(Interrupt::Cancel) if !self.cancelled => self.cancel().await,
            Some(Interrupt::Cancel | Interrupt::Finish) => self.leave(exit, Left::Cancelled),
            Some(Interrupt::Detach) => self.leave(exit, Left::Detached),
            None => Ok(Some(exit)),
        }
    }

    /// Ends the view, and says what becomes of the run.
    fn leave(&mut self, exit: Exit, how: Left) -> Result<Option<Exit>, Stop> {
        let message = self.feed.left(&self.name, how);
        self.tell(&[Event::Notice { message }])?;
        Ok(Some(exit))
    }

    /// Asks for a graceful cancel; whoever asks again meanwhile leaves.
    async fn cancel(&mut self) -> Result<Option<Exit>, Stop> {
        let name = self.name.clone();
        self.cancelled = true;
        let step = self.tracker.running().map(|s| format!("stopping step {s}"));
        let after = self.tracker.view().steps.iter().any(|s| s.after).then(|| "then after-steps".to_owned());
        let what: Vec<String> = step.into_iter().chain(after).collect();
        let what = if what.is_empty() { String::new() } else { format!(": {}", what.join(", ")) };
        let again = if self.asked > 0 { "stops now" } else { self.feed.second_interrupt() };
        let message = format!("cancelling {name}{what} (Ctrl-C again {again})");
        self.tell(&[Event::Notice { message }])?;
        self.tracker.cancel_was_told();
        // A cluster that is slow to answer holds nobody here.
        tokio::select! {
            asked = self.feed.cancel(&name, false) => asked.map(|()| None),
            exit = self.signals.asked_to_end() => self.leave(exit, Left::Unheard),
        }
    }

    /// The first time ends the watched step, and if none runs the run; the second time ends the run at once.
    async fn finish(&mut self) -> Result<Option<Exit>, Stop> {
        let name = self.name.clone();
        if self.asked > 1 {
            let message = format!("stopping {name} at once (Ctrl-C again to leave now)");
            self.tell(&[Event::Notice { message }])?;
            self.tracker.cancel_was_told();
            return tokio::select! {
                asked = self.feed.cancel(&name, true) => asked.map(|()| None),
                exit = self.signals.asked_to_end() => self.leave(exit, Left::UnheardNow),
            };
        }
        let watched = |step: &&str| self.tracker.view().steps.iter().any(|s| s.name == **step && s.kind == "watch");
        let Some(step) = self.tracker.running().filter(watched).map(str::to_owned) else { return self.cancel().await };
        let message = format!("finishing step {step} (Ctrl-C again stops now)");
        self.tell(&[Event::Notice { message }])?;
        let view = self.tracker.view().clone();
        let why = tokio::select! {
            finished = self.feed.finish(view, &step) => match finished {
                Ok(()) => return Ok(None),
                Err(why) => why,
            },
            _ = self.signals.asked_to_end() => {
                self.asked += 1;
                return Box::pin(self.finish()).await;
            }
        };
        let message = format!("step {step} could not be finished: {why}");
        self.tell(&[Event::Notice { message }])?;
        self.cancel().await
    }

    /// The run is of no use without who fails here: it is cancelled.
    pub(super) async fn cancelled_by(&mut self, stop: Stop) -> Stop {
        // What failed is told; whether the run heard it too is beside the point.
        let _ = self.feed.cancel(&self.name, true).await;
        match stop {
            Stop::Faults(mut faults) => {
                let note = format!("run {} is cancelled", self.name);
                faults.iter_mut().take(1).for_each(|fault| fault.notes.push(note.clone()));
                Stop::Faults(faults)
            }
            Stop::ClosedPipe => Stop::ClosedPipe,
        }
    }

    /// Stops as Ctrl-Z does, with a clean terminal.
    pub(super) fn suspend(&mut self) -> Result<(), Stop> {
        self.clear()?;
        signals::suspend();
        Ok(())
    }

    /// Shows what waits for a frame, and takes the footer off.
    pub(super) fn clear(&mut self) -> Result<(), Stop> {
        self.framed = None;
        self.paint(Vec::new())?;
        Ok(self.screen.clear()?)
    }
}
