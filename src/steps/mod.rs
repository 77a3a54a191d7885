//! What the properties of internal steps mean, before anything is done about them.
//!
//! The controller calls [`pipeline::check`] when it resolves a run, as does `windlass check`; the agent calls
//! [`docker_push::plan`] when the step's turn comes and [`image_config::rebuild`] when the layers of the
//! committed box are known. Both ask [`logins`] which Secret is for what. [`shell::words`] is the controller's alone.
//!
//! **Invariant:** no clock, no I/O, no client. A wrong property is a [`StepError`], never a panic, and no
//! message repeats what a variable expanded to: it may be the value of a Secret.

pub mod docker_push;
pub mod expand;
pub mod grammar;
pub mod here;
pub mod image_config;
pub mod links;
pub mod logins;
pub mod params;
pub mod pipeline;
pub mod shell;
pub mod store_container;
pub mod watch;

use std::fmt;

/// Why a step cannot be carried out as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepError {
    /// A constant of [`crate::api::condition::reason`].
    pub reason: &'static str,
    /// The path of the property first, then what is wrong and what to do.
    pub message: String,
}

impl StepError {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for StepError {}
