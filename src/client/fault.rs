//! Errors as people see them: `error[Reason]: what, where: cause`, what else there is to say, a hint.
//!
//! Every verb returns [`Stop`]; `client::main` prints it. **Invariant:** a reason is a word of
//! `api::condition::reason` or of [`reason`], and `windlass explain` knows it; no text from outside is
//! printed with control characters.

use super::{
    exit::Exit,
    style::{Sign, paint},
};
use crate::mask::Mask;
pub use crate::yaml::nearest;

/// Reasons that only the command line has.
pub(super) mod reason {
    pub(crate) use crate::yaml::reason::*;

    /// Wrong flags or arguments.
    pub(crate) const USAGE: &str = "Usage";
    /// A document of a kind that cannot be run.
    pub(crate) const UNKNOWN_KIND: &str = "UnknownKind";
    /// The API server refused the run.
    pub(crate) const INVALID_RUN: &str = "InvalidRun";
    /// The file cannot be read.
    pub(crate) const UNREADABLE_FILE: &str = "UnreadableFile";
    /// A run of that name is there.
    pub(crate) const ALREADY_EXISTS: &str = "AlreadyExists";
    /// Another manager owns a field that the file sets.
    pub(crate) const FIELD_CONFLICT: &str = "FieldConflict";
    /// Nobody answers.
    pub(crate) const CLUSTER_UNREACHABLE: &str = "ClusterUnreachable";
    /// The engine of this machine cannot be used.
    pub(crate) const ENGINE_UNREACHABLE: &str = "EngineUnreachable";
    /// The cluster answered with an error of its own.
    pub(crate) const CLUSTER_ERROR: &str = "ClusterError";
    /// The kubeconfig cannot be used.
    pub(crate) const INVALID_KUBECONFIG: &str = "InvalidKubeconfig";
    /// Who you are is not known to the cluster.
    pub(crate) const UNAUTHORIZED: &str = "Unauthorized";
    /// What you asked for is not allowed.
    pub(crate) const FORBIDDEN: &str = "Forbidden";
    /// The cluster has no Windlass.
    pub(crate) const NOT_INSTALLED: &str = "NotInstalled";
    /// No such object.
    pub(crate) const NOT_FOUND: &str = "NotFound";
    /// The pod with the log is gone.
    pub(crate) const LOGS_GONE: &str = "LogsGone";
    /// The client's `--timeout` passed.
    pub(crate) const TIMED_OUT: &str = "ClientTimedOut";
    /// The run has no box, yet or any more.
    pub(crate) const NO_BOX: &str = "NoBox";
    /// The run does not wait for what was asked of it.
    pub(crate) const NOT_WAITING: &str = "NotWaiting";
    /// The connection to the box ended before what ran there.
    pub(crate) const CONNECTION_LOST: &str = "ConnectionLost";
    /// There is no directory for temporary files.
    pub(crate) const NO_TEMPORARY_DIRECTORY: &str = "NoTemporaryDirectory";
    /// The Docker of this machine did not do what was asked.
    pub(crate) const ENGINE_FAILED: &str = "EngineFailed";
    /// Our own output could not be written.
    pub(crate) const OUTPUT_FAILED: &str = "OutputFailed";

    /// Those of this module.
    #[cfg(test)]
    pub(crate) const OURS: [&str; 22] = [
        USAGE,
        UNKNOWN_KIND,
        INVALID_RUN,
        UNREADABLE_FILE,
        ALREADY_EXISTS,
        FIELD_CONFLICT,
        CLUSTER_UNREACHABLE,
        ENGINE_UNREACHABLE,
        CLUSTER_ERROR,
        INVALID_KUBECONFIG,
        UNAUTHORIZED,
        FORBIDDEN,
        NOT_INSTALLED,
        NOT_FOUND,
        LOGS_GONE,
        TIMED_OUT,
        NO_BOX,
        NOT_WAITING,
        CONNECTION_LOST,
        NO_TEMPORARY_DIRECTORY,
        ENGINE_FAILED,
        OUTPUT_FAILED,
    ];
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// CamelCase word.
    pub reason: &'static str,
    /// What, where: cause.
    pub message: String,
    /// The place, quoted, and what did not happen.
    pub notes: Vec<String>,
    /// A command or an edit.
    pub hint: Option<String>,
    /// What the process ends with.
    pub exit: Exit,
}

impl Fault {
    /// A fault without notes or hint.
    #[must_use]
    pub fn new(reason: &'static str, exit: Exit, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), notes: Vec::new(), hint: None, exit }
    }

    /// Wrong usage.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(reason::USAGE, Exit::Usage, message)
    }

    /// With a thing to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With one more line.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// As printed, with a line end.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let mut text =
            format!("{}: {}\n", paint(color, Sign::Fail, &format!("error[{}]", self.reason)), one_line(&self.message));
        for note in &self.notes {
            text.push_str(&format!("  {}\n", clean(note)));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("hint: {}\n", clean(hint)));
        }
        text
    }
}

/// Why a verb stops before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Something is wrong, in order of importance; never empty by construction of its makers.
    Faults(Vec<Fault>),
    /// Who read our output has gone: a quiet end.
    ClosedPipe,
}

impl Stop {
    /// What the process ends with.
    #[must_use]
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Faults(faults) => faults.first().map_or(Exit::Failed, |f| f.exit),
            Self::ClosedPipe => Exit::Success,
        }
    }

    /// The first thing that is wrong.
    #[must_use]
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Faults(faults) => faults.first().map_or("", |fault| fault.message.as_str()),
            Self::ClosedPipe => "",
        }
    }
}

impl Stop {
    /// Without values that nobody may see.
    pub(super) fn masked(self, mask: &Mask) -> Self {
        let Self::Faults(mut faults) = self else { return self };
        for fault in &mut faults {
            let texts = fault.notes.iter_mut().chain(&mut fault.hint).chain([&mut fault.message]);
            texts.for_each(|text| *text = mask.text(text));
        }
        Self::Faults(faults)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Faults(vec![fault])
    }
}

impl From<std::io::Error> for Stop {
    /// Errors of our own output; errors of input files are made where the file's name is known.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe;
        }
        Fault::new(reason::OUTPUT_FAILED, Exit::World, format!("cannot write the output: {error}")).into()
    }
}

/// Without control characters, so that text from a cluster cannot steer the terminal.
#[must_use]
pub(super) fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// As [`clean`], with line ends as spaces.
#[must_use]
pub(super) fn one_line(text: &str) -> String {
    clean(&text.split(['\n', '\r', '\t']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_reason_notes_and_hint() {
        let fault = Fault::new("StepFailed", Exit::Failed, "step test\nended \u{1b}[2Jbadly")
            .note("nothing was pushed")
            .hint("windlass logs hello-7");
        assert_eq!(
            fault.render(false),
            "error[StepFailed]: step test ended [2Jbadly\n  nothing was pushed\nhint: windlass logs hello-7\n"
        );
        assert!(fault.render(true).starts_with("\u{1b}[31merror[StepFailed]\u{1b}[39m: "));
    }

    #[test]
    fn a_closed_pipe_is_a_quiet_success() {
        let stop = Stop::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!((stop.clone(), stop.exit()), (Stop::ClosedPipe, Exit::Success));
        assert_eq!(Stop::from(std::io::Error::from(std::io::ErrorKind::StorageFull)).exit(), Exit::World);
    }
}
