//! `explain`: what a reason means and what to do.
//!
//! **Invariant:** offline, and complete: every reason of `api::condition` and of `fault` has an entry.

use super::{
    Session,
    args::ExplainArgs,
    exit::Exit,
    fault::{Fault, Stop, nearest, reason},
};

/// A reason, what it means, what to do about it (empty: nothing).
type Entry = (&'static str, &'static str, &'static str);

/// `explain`.
///
/// # Errors
/// When there is no such reason.
pub(super) fn explain(session: &mut Session, args: &ExplainArgs) -> Result<Exit, Stop> {
    let Some(wanted) = &args.reason else {
        let rows: Vec<Vec<String>> =
            ENTRIES.iter().map(|(name, means, _)| vec![(*name).into(), (*means).into()]).collect();
        session.screen.data(&super::table::columns(&rows))?;
        return Ok(Exit::Success);
    };
    let Some((name, means, todo)) = find(wanted) else {
        let fault = Fault::new(reason::NOT_FOUND, Exit::NotFound, format!("no reason {wanted:?} is known"));
        return Err(match nearest(wanted, ENTRIES.iter().map(|(name, ..)| *name)) {
            Some(near) => fault.hint(format!("did you mean {near}?")),
            None => fault.hint(format!("{} explain   lists them all", session.program)),
        }
        .into());
    };
    session.screen.data(&format!("{name}\n  {means}.\n"))?;
    if !todo.is_empty() {
        session.screen.data(&format!("  What to do: {todo}.\n"))?;
    }
    Ok(Exit::Success)
}

/// All reasons, each with what it means.
pub(super) fn reasons() -> impl Iterator<Item = (&'static str, &'static str)> {
    ENTRIES.iter().map(|(name, means, _)| (*name, *means))
}

fn find(wanted: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(wanted))
}

const ENTRIES: &[Entry] = &[
    // The run goes on.
    ("Resolving", "the controller looks at the run for the first time", "if it stays, see whether the controller runs"),
    ("Queued", "the run waits for its turn", "wait, cancel a run before it, or give this one a higher spec.priority"),
    (
        "PodPending",
        "the pod waits for a node, or the node sets it up; or the API server fails to make it, and is asked again",
        "if it stays, lower box.resources.requests or add a node; or mend what the API server names",
    ),
    (
        "PullingImages",
        "the node fetches an image of the pod",
        "if it stays, check the image's name and the node's way to the registry",
    ),
    (
        "WaitingForServices",
        "a service is not ready yet",
        "if it stays, check its readiness and its own output: windlass logs RUN --service NAME, on Docker docker logs windlass-RUN-NAME",
    ),
    ("FetchingSource", "the source is being fetched", ""),
    ("Running", "the steps run", ""),
    (
        "WaitingForAgent",
        "a step needs the agent of its node, which does not answer",
        "see whether the agent's pod on that node runs, or whether the node should have one (agent.nodeSelector of the chart)",
    ),
    ("WaitingForUser", "a step waits for a person", "attach with the command that the message names"),
    ("Retrying", "the infrastructure failed and the run begins again in a new pod", ""),
    (
        "Cancelling",
        "the run was asked to stop; the step is ended, then after-steps run",
        "cancel with --now to leave them out",
    ),
    // The end, good.
    ("Succeeded", "every step passed", ""),
    (
        "SucceededWithFailures",
        "steps failed that are set to continue; all others passed",
        "read the output of the steps that the message names",
    ),
    // The end, bad.
    (
        "PipelineNotFound",
        "pipelineRef names a Pipeline that is not in this namespace",
        "create it, or mend pipelineRef.name",
    ),
    ("InvalidPipeline", "the pipeline says something that cannot be done", "mend the field that the message names"),
    (
        "InvalidProperty",
        "a property of a push step cannot be read",
        "mend the property at the place that the message names",
    ),
    (
        "InvalidParam",
        "a parameter is missing, unknown, or not one of the allowed values",
        "give it with -p NAME=VALUE, or mend spec.params",
    ),
    (
        "InvalidSpec",
        "the stored object cannot be read by this version",
        "make the run anew with fields that this version has",
    ),
    ("SecretNotFound", "a Secret that the run needs does not exist in its namespace", "create it, then retry the run"),
    (
        "SecretKeyNotFound",
        "a Secret has no such key",
        "add the key, or mend the reference; the message lists the keys that are there",
    ),
    (
        "ConfigMapNotFound",
        "a ConfigMap that the run needs does not exist in its namespace",
        "create it, then retry the run",
    ),
    ("ConfigMapKeyNotFound", "a ConfigMap has no such key", "add the key, or mend the reference"),
    (
        "EnvironmentTooLarge",
        "all variables together are larger than 1 MiB",
        "leave the largest out, or put it into a file of the source",
    ),
    (
        "InvalidImageName",
        "an image name breaks the rules of image names",
        "write it in lower case, without https://, e.g. registry.example.com/team/app:1.0",
    ),
    (
        "ImagePullFailed",
        "an image could not be fetched",
        "check its name and tag; for a private registry set box.imagePullSecrets",
    ),
    (
        "BoxFailedToStart",
        "the box's container could not start",
        "check box.user, box.workingDir and the image's architecture",
    ),
    (
        "NoShell",
        "the box's image has no /bin/sh, which starts the runner, whatever the steps are",
        "use an image with a shell",
    ),
    ("SourceFailed", "the source could not be fetched", "check source.git.url and the revision"),
    (
        "SourceNotWritable",
        "the box's user can write none of the directories for the source",
        "set box.workingDir to a directory that it can write",
    ),
    (
        "SourceAuthFailed",
        "the source asks for a login, or refused the one it got",
        "name a Secret in source.git.secretName",
    ),
    (
        "ServiceNotReady",
        "a service was not ready in time",
        "check its output (windlass logs RUN --service NAME, on Docker docker logs windlass-RUN-NAME), its readiness, or raise readiness.within",
    ),
    (
        "ServiceFailed",
        "a service ended by itself",
        "check its output: windlass logs RUN --service NAME, on Docker the end of the message; if that is fine, set its onExit to Ignore",
    ),
    ("StepFailed", "a step failed, and the run with it", "read its output: windlass logs RUN --step STEP"),
    ("StepTimedOut", "a step ran longer than it may", "raise the step's timeout or the pipeline's stepTimeout"),
    ("NoOutput", "a step printed nothing for too long", "raise noOutputTimeout, or let the step print what it does"),
    ("RunTimedOut", "the run took longer than it may", "raise timeout"),
    ("Cancelled", "the run was cancelled", "start it again: windlass retry RUN"),
    (
        "Unschedulable",
        "no node took the pod",
        "lower box.resources.requests, or add a node; the message has the scheduler's words",
    ),
    (
        "PodForbidden",
        "the cluster refused the pod: a quota, Pod Security or a policy; or it failed to make it for all the run's time",
        "the message has the cluster's words",
    ),
    (
        "PodNameConflict",
        "a pod with the name that the run's pod needs exists and is not ours",
        "delete that pod, or use another name for the run",
    ),
    (
        "PodLost",
        "the pod was deleted while the run went on, or failed before the box ran",
        "retry the run; spec.retries of the pipeline does so by itself",
    ),
    ("NodeLost", "the node went away, or lost a container", "retry the run; retries of the pipeline does so by itself"),
    ("Evicted", "the node pushed the pod out, for lack of memory or disk", "set box.resources, then retry the run"),
    ("OutOfMemory", "the box used more memory than it may", "raise box.resources.limits.memory"),
    (
        "ReportLost",
        "the pod ended without the exit record of every step, so it cannot count as passed",
        "retry the run",
    ),
    // Of steps.
    ("ExitCode", "the step's script ended with an exit code other than 0", "read its output"),
    ("Signal", "the step was ended by a signal", "exit code 137 is SIGKILL, often for lack of memory"),
    ("TimedOut", "the step ran longer than it may", "raise its timeout"),
    ("EarlierStepFailed", "the step was skipped, as a step before it failed", ""),
    (
        "UndefinedVariable",
        "a property uses a variable that is not set",
        "export it in an earlier step; a literal dollar is $$",
    ),
    ("RegistryMismatch", "registry and repository name different hosts", "leave registry out"),
    (
        "RegistryUnauthorized",
        "the registry refused the login (401)",
        "mend user and password in the Secret of credentials",
    ),
    (
        "RegistryForbidden",
        "the registry knows the user, who may not push there (403)",
        "give the user the right to push, or push elsewhere",
    ),
    ("RegistryUnreachable", "the registry did not answer", "check its name, and the way to it from the node"),
    ("UntrustedCertificate", "the registry's certificate is of an unknown issuer", "let the administrator add its CA"),
    ("RegistryRefused", "the registry refused the push; the message has its words", ""),
    ("RegistryTimeout", "the registry took too long", "retry the run"),
    ("CredentialsNotFound", "the Secret has no login for the registry's host", "add an entry for exactly that host"),
    ("CommitFailed", "the container engine could not make an image of the box", "see the agent's log on that node"),
    (
        "SecretInLayer",
        "a layer, the config, the repository or a tag holds the value of a secret variable, so it was not pushed",
        "remove the file before the push step, name the image otherwise, or set secretsInImage",
    ),
    (
        "SecretsNotSearched",
        "a layer or the value of a Secret could not be searched, so nothing was pushed; the message says why",
        "take away what the message names, or set secretsInImage to Warn or Allow",
    ),
    ("ForbiddenLabel", "a label name is reserved", "choose another name"),
    (
        "UnsafeFile",
        "a file must not be in an image, or cannot be; the message has its path and why",
        "take it away, or put what the image needs into $WERCKER_OUTPUT_DIR",
    ),
    (
        "EmptyImage",
        "the directory of a dockerScratchPush holds no file",
        "put files into $WERCKER_OUTPUT_DIR, or name their directory in directory",
    ),
    (
        "ImageTooLarge",
        "the files of a dockerScratchPush are too many, or too large",
        "push less, or push the box with dockerPush",
    ),
    ("DigestMismatch", "the registry has other bytes than were sent", "retry the run"),
    (
        "StoreFailed",
        "the container could not be stored: there is no artifact store, or it refused or did not answer",
        "see the message; the administrator sets artifacts.store in the chart's values",
    ),
    (
        "Interrupted",
        "the agent died in mid-push, and the registry has another digest than expected",
        "look which image the tag names, then retry the run",
    ),
    (
        "Attach",
        "the step waits for a person: it is a shell, or at a breakpoint",
        "attach with the command that the step's message names",
    ),
    (
        "WatchLimit",
        "the kernel does not report all changes of files to a watch step, which looks for them itself, every second or less often",
        "the step's message says which limit to raise on the node; fewer directories do as well: see watch.ignore",
    ),
    // Of events.
    ("Created", "the run's pod was made", ""),
    ("Pushed", "an image was pushed", ""),
    ("Stored", "a container was stored", "windlass pull RUN   fetches it"),
    ("CancelRequested", "the request to cancel was seen", ""),
    // Of the command line.
    (reason::USAGE, "a flag or argument cannot be used so", "see --help of the verb"),
    (reason::YAML_SYNTAX, "the file is not YAML; the message has line and column", "mend the line"),
    (
        reason::UNKNOWN_KEY,
        "a field does not exist",
        "see kubectl explain pipelinerun.spec, or the key that the message guesses",
    ),
    (reason::DUPLICATE_KEY, "a key or a name stands twice, of which one would be lost", "take one away"),
    (
        reason::WRONG_TYPE,
        "a value is of another kind than its key takes, or out of its range",
        "write what the message expects",
    ),
    (
        reason::STEP_GONE,
        "a step came from Wercker's registry, which is gone",
        "write what the hint says, or put the step's run.sh into .wercker/steps",
    ),
    (
        reason::INVALID_WORKFLOW,
        "the pipelines of a workflow have no order",
        "let one begin, and each other require one before it",
    ),
    (
        reason::NOT_IN_CLUSTER,
        "a wercker.yml asks for what a cluster does not do, most often for the node's engine",
        "do what the hint says instead",
    ),
    (
        reason::CHANGED,
        "something of a wercker.yml is left out, or works in another way",
        "read the comment beside it in the Pipeline",
    ),
    (reason::UNKNOWN_KIND, "the cluster has no objects of that kind", "check apiVersion and kind"),
    (
        reason::INVALID_STEP,
        "a step is not exactly one thing",
        "set exactly one of script, dockerPush, dockerScratchPush, storeContainer, watch and shell",
    ),
    (reason::INVALID_RUN, "the cluster refused the run", "mend the field that the message names"),
    (reason::UNREADABLE_FILE, "the file cannot be read", "check its name and rights"),
    (
        reason::ALREADY_EXISTS,
        "a run or a file of that name exists; a run is made once, and no file is written over",
        "write metadata.generateName instead of name; move the file away",
    ),
    (
        reason::FIELD_CONFLICT,
        "somebody else applied a field of the file with another value",
        "apply it with kubectl, or take it out of the file",
    ),
    (reason::CLUSTER_UNREACHABLE, "the cluster does not answer", "check --context and the network"),
    (
        reason::ENGINE_UNREACHABLE,
        "there is no Docker on this machine that could be used, or no runner beside windlass",
        "start Docker, or set DOCKER_HOST; join the group docker",
    ),
    (reason::CLUSTER_ERROR, "the cluster answered with an error of its own", "try again; see the API server's log"),
    (reason::INVALID_KUBECONFIG, "the kubeconfig is missing or cannot be used", "set KUBECONFIG or --kubeconfig"),
    (reason::UNAUTHORIZED, "the cluster does not know who you are", "log in again"),
    (reason::FORBIDDEN, "you may not do that in this namespace", "ask for the ClusterRole that the hint names"),
    (reason::NOT_INSTALLED, "the cluster has no Windlass", "install it with its Helm chart"),
    (reason::NOT_FOUND, "there is no such object, or no such checkpoint on this machine", "see windlass list"),
    (
        reason::NO_BOX,
        "the run has no box that could be entered: it has not begun, or it has ended",
        "start it with --breakpoint on-failure, so that its box stays when a step fails",
    ),
    (reason::NOT_WAITING, "the run does not wait for what was asked of it", "see with windlass status what it does"),
    (
        reason::CONNECTION_LOST,
        "the connection to the box broke; what runs there goes on, and a shell can be attached to again",
        "run the same command again",
    ),
    (
        reason::LOGS_GONE,
        "the output is not there any more, or not yet",
        "raise spec.podTTLAfterFinished to keep pods longer",
    ),
    (reason::TIMED_OUT, "the client's --timeout passed; the run goes on", "follow it again: windlass logs -f RUN"),
    (
        reason::NO_TEMPORARY_DIRECTORY,
        "the directory for temporary files, where runs on Docker have what they need, cannot be used",
        "set TMPDIR to a directory that you can write to, and that Docker sees",
    ),
    (
        reason::ENGINE_FAILED,
        "the Docker of this machine did not do what was asked",
        "see the message; DOCKER_HOST names the Docker that is used",
    ),
    (reason::OUTPUT_FAILED, "the output could not be written", "check the disk that it goes to"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_an_entry() {
        let constants = include_str!("../api/condition.rs");
        let module = constants.split("pub mod reason").nth(1).expect("the module of reasons");
        let names: Vec<&str> = module.split("&str = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(names.len() > 50, "{names:?}");
        for name in names.into_iter().chain(reason::OURS).chain(reason::ALL) {
            assert!(find(name).is_some(), "{name} is not explained");
        }
    }

    #[test]
    fn no_reason_is_explained_twice() {
        let mut names: Vec<&str> = ENTRIES.iter().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
