//! A namespace of one test, and the tools a user has: kubectl, docker, skopeo.
//!
//! `install` is what the tests run against: `make test` puts it into the cluster before.
//!
//! Tests that end the controller or the agent would disturb all others: they take their turn alone.

use super::{client, installation};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{LogParams, PostParams},
    core::ObjectMeta,
    runtime::wait,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    process::{Command, Stdio},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};
use windlass::api::{PipelineRun, PipelineRunStatus, status::StepStatus};

/// Longest time that a test run may take; a run that hangs fails its test.
const PATIENCE: Duration = Duration::from_secs(120);

/// Label of a namespace: the Pod Security level that its pods must keep.
pub(super) const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";

/// Orders the tests of this process; unlike a file lock it lets a test that waits to be alone go first.
static TURNS: RwLock<()> = RwLock::new(());

/// The right to use the installation, among the tests of this process and, by the file, of all others.
#[expect(dead_code, reason = "they are held, not read")]
enum Turn {
    Shared(File, RwLockReadGuard<'static, ()>),
    Alone(File, RwLockWriteGuard<'static, ()>),
}

impl Turn {
    fn file() -> File {
        let logs = std::env::var("WINDLASS_CLUSTER_LOGS").expect("source target/cluster/env");
        File::create(format!("{logs}/tests.lock")).unwrap()
    }

    fn shared() -> Self {
        let (file, turn) = (Self::file(), TURNS.read().unwrap_or_else(PoisonError::into_inner));
        file.lock_shared().unwrap();
        Self::Shared(file, turn)
    }

    fn alone() -> Self {
        let (file, turn) = (Self::file(), TURNS.write().unwrap_or_else(PoisonError::into_inner));
        file.lock().unwrap();
        Self::Alone(file, turn)
    }
}

/// One test's namespace; deleted with it, unless `WINDLASS_KEEP` is set.
pub(super) struct World {
    pub(super) client: Client,
    pub(super) namespace: String,
    turn: Turn,
}

impl World {
    /// A new namespace, beside those of other tests.
    pub(super) async fn new() -> Self {
        Self::with(Turn::shared()).await
    }

    /// A new namespace while no other test runs: this one may end the controller and the agent.
    pub(super) async fn alone() -> Self {
        let turn = Turn::alone();
        installation::settle().unwrap();
        Self::with(turn).await
    }

    async fn with(turn: Turn) -> Self {
        let client = client().await;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        // What the documents ask of a user's namespace.
        let labels = BTreeMap::from([(POD_SECURITY.to_owned(), "baseline".to_owned())]);
        let metadata = ObjectMeta { generate_name: Some("it-".into()), labels: Some(labels), ..Default::default() };
        let made =
            namespaces.create(&PostParams::default(), &Namespace { metadata, ..Default::default() }).await.unwrap();
        let world = Self { client, namespace: made.name_any(), turn };
        // A pod is refused until its service account is there.
        for _ in 0..200 {
            if tool("kubectl", &["-n", &world.namespace, "get", "serviceaccount", "default"], "").is_ok() {
                return world;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("namespace {} got no service account", world.namespace);
    }

    /// `kubectl` in this namespace, with `input` on its standard input; what it printed.
    pub(super) fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        tool("kubectl", &[&["-n", &self.namespace], arguments].concat(), input)
    }

    /// `kubectl apply` of some YAML.
    pub(super) fn apply(&self, yaml: &str) {
        self.kubectl(&["apply", "-f", "-"], yaml).unwrap();
    }

    /// Applies a run with this pipeline (flow or block YAML, indented by four).
    pub(super) fn start(&self, name: &str, pipeline: &str) {
        self.apply(&format!(
            "apiVersion: windlass.dev/v1alpha1\nkind: PipelineRun\nmetadata: {{name: {name}}}\nspec:\n  pipelineSpec:\n{pipeline}\n"
        ));
    }

    pub(super) fn runs(&self) -> Api<PipelineRun> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until the run meets a condition.
    pub(super) async fn until(
        &self,
        name: &str,
        what: &str,
        met: impl Fn(&PipelineRunStatus) -> bool,
    ) -> PipelineRunStatus {
        let condition = |run: Option<&PipelineRun>| run.and_then(|r| r.status.as_ref()).is_some_and(&met);
        let waited = tokio::time::timeout(PATIENCE, wait::await_condition(self.runs(), name, condition)).await;
        let Ok(run) = waited else {
            let run = self.kubectl(&["get", "plr", name, "-o", "yaml"], "");
            panic!("run {name} of {} is not {what} after {PATIENCE:?}: {}", self.namespace, run.unwrap_or_default());
        };
        run.unwrap().unwrap().status.unwrap()
    }

    /// Waits for the run's end.
    pub(super) async fn end(&self, name: &str) -> PipelineRunStatus {
        self.until(name, "ended", |s| s.completion_time.is_some()).await
    }

    /// Starts a run and waits for its end.
    pub(super) async fn run(&self, name: &str, pipeline: &str) -> PipelineRunStatus {
        self.start(name, pipeline);
        self.end(name).await
    }

    /// What the box printed, headers included. A run can be over before the kubelet says that its box runs.
    pub(super) async fn log(&self, run: &str) -> String {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = LogParams { container: Some("box".into()), ..Default::default() };
        for _ in 0..100 {
            match pods.logs(&format!("{run}-1"), &params).await {
                Err(kube::Error::Api(status)) if status.code == 400 => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                log => return log.unwrap(),
            }
        }
        panic!("the box of {run} in {} does not start", self.namespace);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The next test finds the installation as it should be.
        if matches!(self.turn, Turn::Alone(..))
            && let Err(error) = installation::settle()
        {
            eprintln!("{error}");
        }
        if std::env::var_os("WINDLASS_KEEP").is_some() || std::thread::panicking() {
            eprintln!("namespace {} is kept", self.namespace);
            return;
        }
        let _gone = tool("kubectl", &["delete", "namespace", &self.namespace, "--wait=false"], "");
    }
}

/// Runs a program that a user has; what it printed, or what it complained of.
pub(super) fn tool(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} cannot be started ({error}): source target/cluster/env"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Reason and message of the condition `Succeeded`.
pub(super) fn verdict(status: &PipelineRunStatus) -> (String, String) {
    let condition = status.conditions.iter().find(|c| c.type_ == "Succeeded").unwrap();
    (condition.reason.clone(), condition.message.clone())
}

/// The status of a step.
pub(super) fn step<'a>(status: &'a PipelineRunStatus, name: &str) -> &'a StepStatus {
    status.steps.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no step {name} in {:?}", status.steps))
}
