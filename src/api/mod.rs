//! The contract with users: the custom resources of group `windlass.dev`, version `v1alpha1`.
//!
//! Everyone uses this module; it uses nobody. Types here are what a user writes and reads; the rules
//! that the API server checks stand beside the fields they are about, and `windlass crds` prints them.
//!
//! **Invariant:** no clock, no I/O, no client. A field is never taken and ignored: what this version
//! cannot do is refused by `controller::resolve` with a message.

#![expect(unreachable_pub, reason = "KubeSchema copies each type into a function, `pub` and all")]

pub mod artifact;
pub mod condition;
pub mod container;
pub mod crds;
pub mod duration;
pub mod env;
mod foreign;
pub mod here;
pub mod pipeline;
pub mod push;
mod rules;
pub mod run;
pub mod source;
pub mod status;
pub mod step;
pub mod text;

pub use pipeline::{Pipeline, PipelineSpec};
pub use run::{PipelineRun, PipelineRunSpec};
pub use status::PipelineRunStatus;
pub use step::{Step, StepKind};

/// The API group of all kinds.
pub const GROUP: &str = "windlass.dev";
/// The version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// Names of labels, annotations and the finalizer that Windlass puts on objects.
pub mod meta {
    /// Finalizer on runs; taken off when no pod of the run is left.
    pub const FINALIZER: &str = "windlass.dev/cleanup";
    /// Label on pods: name of the run.
    pub const RUN: &str = "windlass.dev/run";
    /// Label on pods: attempt, from 1.
    pub const ATTEMPT: &str = "windlass.dev/attempt";
    /// Label on pods and on runs made for a Pipeline: its name.
    pub const PIPELINE: &str = "windlass.dev/pipeline";
    /// Annotation on pods: UID of the run.
    pub const RUN_UID: &str = "windlass.dev/run-uid";
    /// Label on pods, with the value [`MANAGED_BY_VALUE`].
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Value of [`MANAGED_BY`].
    pub const MANAGED_BY_VALUE: &str = "windlass";
}

/// Field managers of server-side apply: who owns which fields of a run's status.
pub mod manager {
    /// The controller, once per run: the frozen pipeline, the parameters, the build number.
    pub const RESOLVER: &str = "windlass-resolver";
    /// The controller: conditions, phase, pod, times, summary.
    pub const CONTROLLER: &str = "windlass-controller";
    /// The agent of the run's node: steps, report, source revision.
    pub const AGENT: &str = "windlass-agent";
    /// The command line: `spec` on create, `spec.cancel`.
    pub const CLI: &str = "windlass-cli";
}
