//! A run of this machine as the followers of runs see one: its status, what its box prints, and how it is told to end.
//!
//! **Invariant:** what the box printed is heard to its end, each line with its time.

use crate::{
    api::PipelineRun,
    client::{
        box_here::BoxHere,
        docker::Parted,
        event::Event,
        fault::{Fault, Stop, one_line},
        feed::{Fed, Feed},
        follow::Left,
        logtext::Decoder,
        output::{Heard, Over},
        signals::Ends,
        view::RunView,
    },
    local::Started,
};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

/// The run as all verbs see one; without a namespace, as there is none.
pub(super) fn view(run: &PipelineRun) -> RunView {
    let object = serde_json::to_value(run).and_then(serde_json::from_value);
    let mut view = object.map(|object| RunView::read(&object)).unwrap_or_default();
    view.namespace = String::new();
    view.created = run.metadata.creation_timestamp.as_ref().map(|time| time.0);
    view.status.start_time = run.status.as_ref().and_then(|status| status.start_time.clone());
    view
}

/// A run of this machine.
pub(super) struct OfHere<'a> {
    /// The run.
    pub started: &'a mut Started,
    /// Where it is, for people.
    pub place: String,
    /// How hints call us.
    pub program: &'static str,
}

impl Feed for OfHere<'_> {
    fn place(&self) -> &str {
        &self.place
    }

    fn check(&mut self) -> Result<Option<String>, Fault> {
        Ok(None)
    }

    async fn next(&mut self) -> Fed {
        tokio::select! {
            // What was said before the run ended comes before its end.
            biased;
            Some(message) = self.started.notices.recv() => Fed::Report(Event::Notice { message }),
            changed = self.started.changes.changed() => match changed {
                Ok(()) => Fed::Run(Box::new(view(&self.started.changes.borrow_and_update()))),
                // The run's task is over; its last word was heard.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn hear(&mut self, _pod: &str, _caught_up: bool, speak: mpsc::Sender<Heard>, _over: watch::Receiver<Over>) {
        let (_, none) = mpsc::channel(1);
        let output = std::mem::replace(&mut self.started.output, none);
        tokio::spawn(read(output, speak));
    }

    async fn cancel(&mut self, _run: &str, now: bool) -> Result<(), Stop> {
        if now {
            self.started.abandon();
        } else {
            self.started.cancel();
        }
        Ok(())
    }

    async fn finish(&mut self, run: RunView, step: &str) -> Result<(), String> {
        let said = async { BoxHere::of(&run.name)?.say(&["finish", step]).await };
        match said.await {
            Ok((0, _)) => Ok(()),
            Ok((_, said)) => Err(one_line(&said)),
            Err(stop) => Err(stop.message().to_owned()),
        }
    }

    async fn attach(&mut self, run: &str, step: &str) -> Result<String, Stop> {
        let parted = BoxHere::of(run)?.terminal(&["shell"], &mut Ends::catch()?).await?;
        Ok(match parted {
            Parted::Ended(0) => format!("left step {step}; {run} goes on"),
            // One that could not be given has said why.
            Parted::Ended(_) => format!("the terminal of step {step} is gone; {run} goes on"),
            Parted::Detached => format!("detached; {run} is still at step {step}: {} shell {run}", self.program),
            Parted::Signal(_) => format!("left; {run} ends"),
        })
    }

    fn second_interrupt(&self) -> &'static str {
        "to stop now"
    }

    fn left(&mut self, run: &str, _how: Left) -> String {
        self.started.abandon();
        format!("stopping {run} now; after-steps do not run")
    }

    fn goes_on(&self, run: &str) -> String {
        format!("{run} ends with this program")
    }
}

/// Reads what the box prints, each line with the time at which it came.
async fn read(mut output: mpsc::Receiver<Bytes>, speak: mpsc::Sender<Heard>) {
    let mut decoder = Decoder::default();
    let mut begins = true;
    while let Some(bytes) = output.recv().await {
        let stamp = format!("{} ", Timestamp::now());
        let mut text = Vec::with_capacity(bytes.len() + 2 * stamp.len());
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if begins {
                text.extend_from_slice(stamp.as_bytes());
            }
            text.extend_from_slice(part);
            begins = part.ends_with(b"\n");
        }
        for piece in decoder.feed(&text) {
            if speak.send(Heard::Piece(piece)).await.is_err() {
                return;
            }
        }
    }
    for piece in decoder.reconnect() {
        let _ = speak.send(Heard::Piece(piece)).await;
    }
    let _ = speak.send(Heard::Ended(None)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_comes_line_by_line_with_its_time() {
        let (pieces, output) = mpsc::channel(8);
        let (speak, mut heard) = mpsc::channel(64);
        for part in ["> step  [0.1s] 1/2 bu", "ild\nmaking", " it\n", "no line end"] {
            pieces.send(Bytes::from_static(part.as_bytes())).await.unwrap();
        }
        drop(pieces);
        read(output, speak).await;
        let (mut text, mut stamped) = (String::new(), Vec::new());
        while let Some(next) = heard.recv().await {
            let Heard::Piece(piece) = next else { continue };
            if piece.stamp.is_some() {
                stamped.push(String::from_utf8_lossy(&piece.bytes).into_owned());
            }
            text += &String::from_utf8_lossy(&piece.bytes);
        }
        assert_eq!(text, "> step  [0.1s] 1/2 build\nmaking it\nno line end");
        assert_eq!(stamped[0], "> step  [0.1s] 1/2 build\n", "a line of the runner comes whole");
        assert_eq!(stamped.len(), 3, "{stamped:?}");
    }
}
