//! Condition types and reasons. They are API: a new one may come, an old one never changes its meaning.
//!
//! The controller writes conditions; the agent writes reasons of steps and, in its report, the reason that the
//! controller then puts into the conditions. Phases are derived from them and are for people.
//!
//! **Invariant:** constants only.

/// Types of conditions. A run has the first four from its first status on, all with one reason and message:
///
/// | type | until the end | succeeded | failed or cancelled |
/// |---|---|---|---|
/// | `Succeeded` | Unknown | True | False |
/// | `Ready` | Unknown | True | False |
/// | `Reconciling` | True | False | False |
/// | `Stalled` | False | False | True |
///
/// A Pipeline has `Accepted` and `Ready`, True or False.
pub mod kind {
    /// Unknown until the end, then True or False for good.
    pub const SUCCEEDED: &str = "Succeeded";
    /// For GitOps tools; equals `Succeeded`.
    pub const READY: &str = "Ready";
    /// kstatus: True until the end.
    pub const RECONCILING: &str = "Reconciling";
    /// kstatus: True when the run failed.
    pub const STALLED: &str = "Stalled";
    /// On a Pipeline: whether it can be run.
    pub const ACCEPTED: &str = "Accepted";
}

/// Reasons of `Succeeded`, of steps and of events.
///
/// Some False reasons are Unknown for a grace first: what the run needs may be applied a moment later, and a
/// pull may yet succeed. Once `Succeeded` is True or False it stays so.
#[expect(missing_docs, reason = "the names say it; docs/reference/errors.md explains each")]
pub mod reason {
    // Unknown: the run goes on, and this is what it waits for.
    pub const RESOLVING: &str = "Resolving";
    pub const QUEUED: &str = "Queued";
    pub const POD_PENDING: &str = "PodPending";
    pub const PULLING_IMAGES: &str = "PullingImages";
    pub const WAITING_FOR_SERVICES: &str = "WaitingForServices";
    pub const FETCHING_SOURCE: &str = "FetchingSource";
    pub const RUNNING: &str = "Running";
    pub const WAITING_FOR_AGENT: &str = "WaitingForAgent";
    pub const WAITING_FOR_USER: &str = "WaitingForUser";
    pub const RETRYING: &str = "Retrying";
    pub const CANCELLING: &str = "Cancelling";
    // True.
    pub const SUCCEEDED: &str = "Succeeded";
    pub const SUCCEEDED_WITH_FAILURES: &str = "SucceededWithFailures";
    // False.
    pub const PIPELINE_NOT_FOUND: &str = "PipelineNotFound";
    pub const INVALID_PIPELINE: &str = "InvalidPipeline";
    pub const INVALID_PROPERTY: &str = "InvalidProperty";
    pub const INVALID_PARAM: &str = "InvalidParam";
    pub const INVALID_SPEC: &str = "InvalidSpec";
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    pub const SECRET_KEY_NOT_FOUND: &str = "SecretKeyNotFound";
    pub const CONFIG_MAP_NOT_FOUND: &str = "ConfigMapNotFound";
    pub const CONFIG_MAP_KEY_NOT_FOUND: &str = "ConfigMapKeyNotFound";
    pub const ENVIRONMENT_TOO_LARGE: &str = "EnvironmentTooLarge";
    pub const INVALID_IMAGE_NAME: &str = "InvalidImageName";
    pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    pub const BOX_FAILED_TO_START: &str = "BoxFailedToStart";
    pub const NO_SHELL: &str = "NoShell";
    pub const SOURCE_FAILED: &str = "SourceFailed";
    pub const SOURCE_NOT_WRITABLE: &str = "SourceNotWritable";
    pub const SOURCE_AUTH_FAILED: &str = "SourceAuthFailed";
    pub const SERVICE_NOT_READY: &str = "ServiceNotReady";
    pub const SERVICE_FAILED: &str = "ServiceFailed";
    pub const STEP_FAILED: &str = "StepFailed";
    pub const STEP_TIMED_OUT: &str = "StepTimedOut";
    pub const NO_OUTPUT: &str = "NoOutput";
    pub const RUN_TIMED_OUT: &str = "RunTimedOut";
    pub const CANCELLED: &str = "Cancelled";
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    pub const POD_FORBIDDEN: &str = "PodForbidden";
    pub const POD_NAME_CONFLICT: &str = "PodNameConflict";
    pub const POD_LOST: &str = "PodLost";
    pub const NODE_LOST: &str = "NodeLost";
    pub const EVICTED: &str = "Evicted";
    pub const OUT_OF_MEMORY: &str = "OutOfMemory";
    pub const REPORT_LOST: &str = "ReportLost";
    // Of steps only.
    pub const EXIT_CODE: &str = "ExitCode";
    pub const SIGNAL: &str = "Signal";
    pub const TIMED_OUT: &str = "TimedOut";
    pub const EARLIER_STEP_FAILED: &str = "EarlierStepFailed";
    pub const UNDEFINED_VARIABLE: &str = "UndefinedVariable";
    pub const REGISTRY_MISMATCH: &str = "RegistryMismatch";
    pub const REGISTRY_UNAUTHORIZED: &str = "RegistryUnauthorized";
    pub const REGISTRY_FORBIDDEN: &str = "RegistryForbidden";
    pub const REGISTRY_UNREACHABLE: &str = "RegistryUnreachable";
    pub const UNTRUSTED_CERTIFICATE: &str = "UntrustedCertificate";
    pub const REGISTRY_REFUSED: &str = "RegistryRefused";
    pub const REGISTRY_TIMEOUT: &str = "RegistryTimeout";
    pub const CREDENTIALS_NOT_FOUND: &str = "CredentialsNotFound";
    pub const COMMIT_FAILED: &str = "CommitFailed";
    pub const SECRET_IN_LAYER: &str = "SecretInLayer";
    /// Under `secretsInImage: Deny` a layer, or a value, could not be searched.
    pub const SECRETS_NOT_SEARCHED: &str = "SecretsNotSearched";
    pub const FORBIDDEN_LABEL: &str = "ForbiddenLabel";
    pub const UNSAFE_FILE: &str = "UnsafeFile";
    pub const EMPTY_IMAGE: &str = "EmptyImage";
    pub const IMAGE_TOO_LARGE: &str = "ImageTooLarge";
    pub const DIGEST_MISMATCH: &str = "DigestMismatch";
    pub const STORE_FAILED: &str = "StoreFailed";
    pub const INTERRUPTED: &str = "Interrupted";
    pub const ATTACH: &str = "Attach";
    pub const WATCH_LIMIT: &str = "WatchLimit";
    // Of events only.
    pub const CREATED: &str = "Created";
    pub const PUSHED: &str = "Pushed";
    pub const STORED: &str = "Stored";
    pub const CANCEL_REQUESTED: &str = "CancelRequested";
}
