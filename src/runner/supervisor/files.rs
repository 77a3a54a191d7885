//! What a watched step needs beside its code: where it is reachable, which files changed, and words
//! for people. Called by the loop and by `acts`.
//!
//! **Invariant:** as the supervisor's: when the code is stopped and started is the schedule's to say.

use super::acts::EXPORTS_FILE;
use super::{Supervisor, epoch_ms};
use crate::bounded;
use crate::runner::schedule::{End, Event};
use crate::runner::{Error, journal, script, words};
use crate::watcher::{Size, Watcher};
use crate::wire::{Note, POD_IP_FILE, Record, StepWork};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Longest text of an IP address.
const IP_BYTES: u64 = 64;

impl Supervisor<'_> {
    /// A step is about to start: if it is watched, says where it is reachable, and begins to watch.
    pub(super) fn serve_step(&mut self, step: usize) -> Result<(), Error> {
        let Some(StepWork::Watch(work)) = self.plan.steps.get(step).map(|plan| plan.work.clone()) else {
            return Ok(());
        };
        self.say_addresses(step, &work.ports);
        if !work.reload {
            return Ok(());
        }
        let watcher = Watcher::open(self.now(), &self.places.source, &work.ignore);
        let Size { directories, files, cut } = watcher.size();
        let source = self.places.source.display();
        self.say_watch(step, &format!("restarts when files in {source} change ({files} in {directories} directories)"));
        if cut {
            self.say_watch(step, "there are more files than these, which are not looked at; see watch.ignore");
        }
        self.watcher = Some(watcher);
        self.note_limit(step)
    }

    /// Says where a program in the box is reachable.
    fn say_addresses(&mut self, step: usize, ports: &[u16]) {
        let file = bounded::read(&self.settings.inbox.join(POD_IP_FILE), IP_BYTES);
        let ip = file.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse::<IpAddr>().ok());
        let Some(ip) = ip.filter(|_| !ports.is_empty()) else { return };
        let addresses: Vec<String> = ports.iter().map(|port| SocketAddr::new(ip, *port).to_string()).collect();
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let (namespace, pod) = (&self.plan.run.namespace, &self.plan.run.pod);
        let forward = format!("kubectl -n {namespace} port-forward pod/{pod} {}", ports.join(" "));
        self.say_watch(step, &format!("reachable at {}; from your machine: {forward}", addresses.join(", ")));
    }

    /// Looks for changes of files.
    pub(super) fn take_changes(&mut self) -> Result<(), Error> {
        let now = self.now();
        let Some(watcher) = &mut self.watcher else { return Ok(()) };
        let limit = watcher.limit();
        let changed = watcher.look(now);
        let is_other_limit = watcher.limit() != limit;
        if changed.is_some() {
            self.forget_gone();
        }
        if is_other_limit && let Some(step) = self.schedule.current() {
            self.note_limit(step)?;
        }
        changed.map_or(Ok(()), |file| self.tell(Event::Changed(file)))
    }

    /// Says that the kernel does not report all changes, and notes it once a step.
    fn note_limit(&mut self, step: usize) -> Result<(), Error> {
        let Some(limit) = self.watcher.as_ref().and_then(Watcher::limit) else { return Ok(()) };
        let message = words::watch_limit(limit);
        self.say_watch(step, &message);
        if self.noted.replace(step) == Some(step) {
            return Ok(());
        }
        let message = journal::message(&message);
        self.journal.append(&Record::Noted { at: epoch_ms(), step, note: Note::WatchLimit, message })
    }

    /// Says why watched code starts again.
    pub(super) fn say_restart(&mut self, step: usize, file: &Path, slowed: bool) {
        let changed = self.output.masked(&file.to_string_lossy());
        let changed = if changed.is_empty() { "the source" } else { &changed };
        self.say_watch(step, &match slowed {
            false => format!("{changed} changed; starts again"),
            true => format!(
                "{changed} changed soon after the start, again and again; starts less often. If the code writes it, put it into watch.ignore"
            ),
        });
    }

    /// Watched code ended by itself. What it left running stays until the next change.
    pub(super) fn rest(&mut self, step: usize, end: &End) -> Result<(), Error> {
        self.output.flush()?;
        let _ = script::take_exports(&self.settings.outbox.join(EXPORTS_FILE));
        self.forget_gone();
        self.say_watch(step, &format!("{}; waits for the next change", words::ended(end)));
        Ok(())
    }

    /// Forgets watched code that has ended once nobody is left of it: the number of its session may come to
    /// belong to another.
    pub(super) fn forget_gone(&mut self) {
        if self.schedule.is_at_rest() {
            self.attempt.take_if(|attempt| attempt.is_gone());
        }
    }

    fn say_watch(&mut self, step: usize, text: &str) {
        let line = format!("watch [{}] {}: {text}", words::took(self.now()), self.label(step));
        self.output.say(&line);
    }
}
