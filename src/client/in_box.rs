//! Processes in the box of a run: the runner's verbs, by the caller's own right to exec.
//!
//! `shell`, `continue`, `finish`, `retry --step` and `dev` use it. **Invariant:** what is exec'd is the runner,
//! and nothing else is sent: the run decides by itself what it does.

use super::{
    connect::Cluster,
    exit::Exit,
    fault::{Fault, Stop, reason},
    refusal::{self, Ask},
    view::RunView,
};
use crate::wire;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api,
    api::{AttachParams, AttachedProcess},
    client::UpgradeConnectionError,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The box's container.
const CONTAINER: &str = "box";
/// Most that a verb may say.
const SAID_BYTES: u64 = 64 * 1024;
/// Bytes on their way in each direction; the default is too little for a screen.
const BUFFER_BYTES: usize = 64 * 1024;

/// The box of a run that goes on.
pub(super) struct InBox<'a> {
    cluster: &'a Cluster,
    /// The run.
    pub view: RunView,
    pod: String,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this exit code.
    Code(i32),
    /// It could not be started, in the node's words.
    Refused(String),
    /// Nobody said: the connection is gone.
    Lost,
}

impl<'a> InBox<'a> {
    /// Finds the box of a run.
    ///
    /// # Errors
    /// When there is no such run, or no box, yet or any more.
    pub(super) async fn find(cluster: &'a Cluster, wanted: Option<&str>) -> Result<Self, Stop> {
        Self::of(cluster, RunView::read(&cluster.find_run(wanted).await?))
    }

    /// The box of a run that was looked at.
    ///
    /// # Errors
    /// When there is none, yet or any more.
    pub(super) fn of(cluster: &'a Cluster, view: RunView) -> Result<Self, Stop> {
        let name = &view.name;
        let gone = |message: String| Fault::new(reason::NO_BOX, Exit::NotFound, message);
        if let Some(outcome) = view.outcome() {
            let hint = format!("{} retry {name} --breakpoint on-failure", cluster.program);
            return Err(gone(format!("{name} has ended ({}) and its box with it", outcome.word())).hint(hint).into());
        }
        // Steps are told by the agent, without which a run can do, too.
        match (&view.status.pod_name, view.phase()) {
            (Some(pod), "Running" | "Waiting") => Ok(Self { cluster, pod: pod.clone(), view }),
            (Some(_) | None, _) => {
                let (why, message) = view.why();
                let hint = format!("{} status {name} --watch", cluster.program);
                Err(gone(format!("{name} has not begun: {why}: {message}")).hint(hint).into())
            }
        }
    }

    /// The same with kubectl.
    #[must_use]
    pub(super) fn kubectl(&self, terminal: bool, words: &[&str]) -> String {
        let how = if terminal { "exec -it" } else { "exec" };
        let words = words.join(" ");
        let (namespace, pod) = (&self.view.namespace, &self.pod);
        format!("-n {namespace} {how} {pod} -c {CONTAINER} -- {}/{} {words}", wire::IN_DIR, wire::RUNNER_FILE)
    }

    /// Starts a verb of the runner.
    ///
    /// # Errors
    /// When the caller may not, or the box is gone.
    pub(super) async fn start(&self, words: &[&str], params: AttachParams) -> Result<AttachedProcess, Stop> {
        let runner = format!("{}/{}", wire::IN_DIR, wire::RUNNER_FILE);
        let command: Vec<&str> = std::iter::once(runner.as_str()).chain(words.iter().copied()).collect();
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.view.namespace);
        let params = params
            .container(CONTAINER)
            .max_stdin_buf_size(BUFFER_BYTES)
            .max_stdout_buf_size(BUFFER_BYTES)
            .max_stderr_buf_size(BUFFER_BYTES);
        match tokio::time::timeout(self.cluster.timeout, pods.exec(&self.pod, command, &params)).await {
            Ok(Ok(process)) => Ok(process),
            Ok(Err(kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)))) => {
                Err(self.refused(code.as_u16()).into())
            }
            // The kubelet's words, when the box ends in this moment.
            Ok(Err(kube::Error::Api(status))) if status.message.contains("container not found") => {
                Err(self.gone().into())
            }
            Ok(Err(error)) => {
                let denied = matches!(&error, kube::Error::Api(status) if status.code == 403);
                match refusal::explain(&error, &self.ask(), self.cluster) {
                    Stop::Faults(faults) if denied => {
                        Err(Stop::Faults(faults.into_iter().map(|fault| fault.hint(self.rights())).collect()))
                    }
                    stop => Err(stop),
                }
            }
            Err(_) => {
                let cluster = self.cluster;
                Err(cluster.unreachable(&format!("no answer from {} in {:?}", cluster.url, cluster.timeout)).into())
            }
        }
    }

    /// Carries a verb out: how it ended, and what it said.
    ///
    /// The runner says on stdout what it has done, and only that. Where it ends the run, that may be all that comes:
    /// how a process ended is not told of a box that is gone.
    ///
    /// # Errors
    /// As [`InBox::start`].
    pub(super) async fn say(&self, words: &[&str]) -> Result<(Ended, String), Stop> {
        let mut process = self.start(words, AttachParams::default().stdin(false)).await?;
        let status = process.take_status();
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let all = async { tokio::join!(said(stdout), said(stderr), ended(status)) };
        let answered = tokio::time::timeout(self.cluster.timeout, all).await;
        let Ok((out, err, ended)) = answered else {
            let what = format!("{} does not answer in {:?}", self.view.name, self.cluster.timeout);
            return Err(self.cluster.unreachable(&what).into());
        };
        let ended = if out.is_empty() { ended } else { Ended::Code(0) };
        Ok((ended, String::from_utf8_lossy(&[out, err].concat()).trim().to_owned()))
    }

    /// The box ended between the look at the run and the wish to be in it.
    fn gone(&self) -> Fault {
        let name = &self.view.name;
        let fault = Fault::new(reason::NO_BOX, Exit::NotFound, format!("{name} ends, and its box has ended"));
        fault.hint(format!("{} status {name}", self.cluster.program))
    }

    /// A process could not be started, in the node's words: none, or these, if the box ends in this moment.
    pub(super) fn not_started(&self, why: &str) -> Fault {
        if why.is_empty() || why.contains("container not found") {
            return self.gone();
        }
        Fault::new(reason::NO_BOX, Exit::NotFound, format!("{}: {why}", self.view.name))
    }

    fn ask(&self) -> Ask<'_> {
        Ask { verb: "exec into", resource: "pods", name: Some(&self.pod), sent: None }
    }

    /// What a caller needs.
    fn rights(&self) -> String {
        let namespace = &self.view.namespace;
        format!("needs get and create on pods/exec in {namespace}: ClusterRole edit, or windlass-shell")
    }

    /// The API server did not open the connection; it says no more than a number.
    fn refused(&self, code: u16) -> Fault {
        let namespace = &self.view.namespace;
        match code {
            401 => Fault::new(reason::UNAUTHORIZED, Exit::Denied, "the cluster does not know who you are (401)")
                .hint("log in again, as your cluster's kubeconfig asks for"),
            403 => Fault::new(reason::FORBIDDEN, Exit::Denied, format!("you may not exec into pods in {namespace}"))
                .hint(self.rights()),
            404 => Fault::new(reason::NO_BOX, Exit::NotFound, format!("the pod {} is gone", self.pod)),
            code => Fault::new(
                reason::CLUSTER_ERROR,
                Exit::World,
                format!("the cluster did not connect to pod {} ({code})", self.pod),
            ),
        }
    }
}

/// What a process says, to its end or to [`SAID_BYTES`].
pub(super) async fn said(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut said = Vec::new();
    if let Some(from) = from {
        // What was said before the connection broke is all there is.
        let _ = from.take(SAID_BYTES).read_to_end(&mut said).await;
    }
    said
}

/// How a process ended, once that is known.
pub(super) async fn ended(status: Option<impl Future<Output = Option<Status>>>) -> Ended {
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    status.map_or(Ended::Lost, |status| read_status(&status))
}

fn read_status(status: &Status) -> Ended {
    if status.status.as_deref() == Some("Success") {
        return Ended::Code(0);
    }
    let causes = status.details.iter().filter_map(|details| details.causes.as_ref()).flatten();
    let mut codes = causes.filter(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = codes.next().and_then(|cause| cause.message.as_ref()?.parse().ok());
    code.map_or_else(|| Ended::Refused(status.message.clone().unwrap_or_default()), Ended::Code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(r#"{"status":"Success","metadata":{}}"#, Ended::Code(0))]
    #[case(
        r#"{"status":"Failure","message":"command terminated with non-zero exit code","reason":"NonZeroExitCode",
            "details":{"causes":[{"reason":"ExitCode","message":"127"}]}}"#,
        Ended::Code(127)
    )]
    #[case(
        r#"{"status":"Failure","message":"container not found (\"box\")","reason":"InternalError","details":{},"code":500}"#,
        Ended::Refused("container not found (\"box\")".into())
    )]
    fn reads_how_a_process_ended(#[case] json: &str, #[case] expected: Ended) {
        assert_eq!(read_status(&serde_json::from_str(json).unwrap()), expected);
    }
}
