//! The cluster: which one, which namespace, and calls that cannot hang.
//!
//! Every verb but the offline ones opens it. **Invariant:** acts with the caller's own kubeconfig
//! rights; each answer is waited for no longer than `--request-timeout`.

use super::{
    args::{Global, Place, Progress},
    exit::Exit,
    fault::{Fault, Stop, nearest, reason},
    refusal::{self, Ask},
    screen,
    trace::Trace,
};
use crate::api::{Pipeline, PipelineRun};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, ListParams},
    client::ClientBuilder,
    config::{ExecInteractiveMode, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use serde_json::Value;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Runs in one answer; a list is read page by page.
const PAGE: u32 = 500;
/// A wait longer than this is said.
const VISIBLE: Duration = Duration::from_secs(1);
/// Most runs that are looked through.
const MOST_RUNS: usize = 20_000;

/// A cluster that can be asked.
#[derive(Clone)]
pub(super) struct Cluster {
    /// The client; prefer [`Cluster::ask`].
    pub client: Client,
    config: Config,
    /// Requests are said.
    trace: bool,
    /// Namespace of `-n`, else of the context.
    pub namespace: String,
    /// Whether `-n` was given.
    pub namespace_given: bool,
    /// Name of the context.
    pub context: String,
    /// Address of the API server.
    pub url: String,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// How hints call us, with the flags that lead to this cluster and namespace.
    pub program: String,
    /// The same without more than what was written, which leads to this namespace.
    written: (String, String),
    /// That we wait for the cluster was said, or is not to be said.
    told: Arc<AtomicBool>,
}

impl Cluster {
    /// Reads the kubeconfig; nothing is sent yet.
    ///
    /// # Errors
    /// `InvalidKubeconfig`.
    pub(super) async fn open(global: &Global, program: &str) -> Result<Self, Stop> {
        let (config, context) = config(&global.place).await?;
        Self::with(global, program, config, context)
    }

    /// The same while somebody types at a prompt: a plugin that gives credentials may neither read nor print there.
    ///
    /// # Errors
    /// As [`Cluster::open`], and when the plugin has to talk to somebody.
    pub(super) async fn open_unattended(global: &Global, program: &str) -> Result<Self, Stop> {
        let (mut config, context) = config(&global.place).await?;
        if let Some(plugin) = &mut config.auth_info.exec {
            if plugin.interactive_mode == Some(ExecInteractiveMode::Always) {
                return Err(bad_kubeconfig("its plugin for credentials wants a terminal"));
            }
            plugin.interactive_mode = Some(ExecInteractiveMode::Never);
        }
        Self::with(global, program, config, context)
    }

    fn with(global: &Global, program: &str, mut config: Config, context: String) -> Result<Self, Stop> {
        let place = &global.place;
        // A second call finds it installed; that is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let timeout = place.request_timeout.unwrap_or(Duration::from_secs(30)).max(Duration::from_millis(100));
        config.connect_timeout = Some(config.connect_timeout.map_or(timeout, |t| t.min(timeout)));
        let namespace = place.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let trace = global.display.verbose > 1;
        let told = global.display.quiet > 0 || global.display.json || global.display.progress == Some(Progress::None);
        Ok(Self {
            client: client(config.clone(), trace)?,
            config,
            trace,
            written: (program.to_owned(), namespace.clone()),
            namespace,
            namespace_given: place.namespace.is_some(),
            context,
            url,
            timeout,
            program: program.to_owned(),
            told: Arc::new(AtomicBool::new(told)),
        })
    }

    /// How hints about this namespace call us: with `-n` if the flags and the kubeconfig lead elsewhere.
    #[must_use]
    pub(super) fn called_in(&self, namespace: Option<&str>) -> String {
        let (program, home) = &self.written;
        match namespace {
            Some(namespace) if namespace != home => format!("{program} -n {namespace}"),
            _ => program.clone(),
        }
    }

    /// From here on this namespace is meant, as a file named it.
    pub(super) fn go_to(&mut self, namespace: &str) {
        namespace.clone_into(&mut self.namespace);
        self.program = self.called_in(Some(namespace));
    }

    /// Runs of the namespace.
    #[must_use]
    pub(super) fn runs(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &run_resource())
    }

    /// Pipelines of a namespace.
    #[must_use]
    pub(super) fn pipelines(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<Pipeline>(&()))
    }

    /// Runs of all namespaces.
    #[must_use]
    pub(super) fn all_runs(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &run_resource())
    }

    /// Waits for an answer, and says what went wrong in words.
    ///
    /// # Errors
    /// Whatever the cluster answered, or that it did not.
    pub(super) async fn ask<T>(&self, ask: Ask<'_>, call: impl Future<Output = kube::Result<T>>) -> Result<T, Stop> {
        let mut call = std::pin::pin!(call);
        let visible = self.timeout.min(VISIBLE);
        if let Ok(answer) = tokio::time::timeout(visible, &mut call).await {
            return answer.map_err(|error| refusal::explain(&error, &ask, self));
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            screen::error(&format!("waiting for {}\n", self.url));
        }
        match tokio::time::timeout(self.timeout - visible, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(refusal::explain(&error, &ask, self)),
            Err(_) => Err(self.unreachable(&format!("no answer from {} in {:?}", self.url, self.timeout)).into()),
        }
    }

    /// A client that sends each request once: a creation that is repeated could be done twice.
    ///
    /// # Errors
    /// `InvalidKubeconfig`.
    pub(super) fn client_that_never_repeats(&self) -> Result<Client, Stop> {
        let mut config = self.config.clone();
        config.default_retry = false;
        client(config, self.trace)
    }

    /// From here on somebody else tells what is waited for.
    pub(super) fn say_no_more_of_waiting(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// Nobody answers.
    #[must_use]
    pub(super) fn unreachable(&self, what: &str) -> Fault {
        Fault::new(reason::CLUSTER_UNREACHABLE, Exit::World, format!("{what} (context {})", self.context))
    }

    /// The run that a person means: a name (also as kubectl writes it, `pipelinerun.windlass.dev/NAME`), `@latest`,
    /// `PIPELINE#7` by its build number, or nothing, which is the latest.
    ///
    /// # Errors
    /// `NotFound`, with the name that was probably meant.
    pub(super) async fn find_run(&self, wanted: Option<&str>) -> Result<DynamicObject, Stop> {
        let namespace = &self.namespace;
        let Some(name) = wanted.map(bare).filter(|w| *w != "@latest") else {
            let mut runs = self.list_runs(&self.runs(), None).await?;
            runs.sort_by_key(newest_first);
            return runs.into_iter().next().ok_or_else(|| {
                Fault::new(reason::NOT_FOUND, Exit::NotFound, format!("no runs in namespace {namespace}"))
                    .hint(format!("{} run -f FILE   or look elsewhere with -n NAMESPACE", self.program))
                    .into()
            });
        };
        if let Some((pipeline, number)) = name.split_once('#') {
            return self.numbered(pipeline, number).await;
        }
        if let Some(run) = self.ask(Ask::run("get", name), self.runs().get_opt(name)).await? {
            return Ok(run);
        }
        // The group may be missing altogether, which `get_opt` cannot tell from a missing run.
        let runs = self.list_runs(&self.runs(), None).await?;
        let names = runs.iter().filter_map(|r| r.metadata.name.as_deref());
        let fault = Fault::new(reason::NOT_FOUND, Exit::NotFound, format!("no run {name:?} in namespace {namespace}"));
        Err(match nearest(name, names) {
            Some(near) => fault.hint(format!("did you mean {near:?}?")),
            None => fault.hint(format!("{} list", self.program)),
        }
        .into())
    }

    /// The run of a Pipeline with this build number.
    async fn numbered(&self, pipeline: &str, number: &str) -> Result<DynamicObject, Stop> {
        let Ok(wanted) = number.parse::<i64>() else {
            let fault = Fault::usage(format!("{pipeline}#{number}: {number:?} is not a build number"));
            return Err(fault.hint(format!("{} list --pipeline {pipeline} -o wide", self.program)).into());
        };
        let select = ListParams::default().fields(&format!("spec.pipelineRef.name={pipeline}"));
        let mut runs = self.list_runs(&self.runs(), Some(select)).await?;
        runs.retain(|run| run.data.pointer("/status/buildNumber").and_then(Value::as_i64) == Some(wanted));
        runs.sort_by_key(newest_first);
        runs.into_iter().next().ok_or_else(|| {
            let message = format!("no run {wanted} of pipeline {pipeline:?} in namespace {}", self.namespace);
            Fault::new(reason::NOT_FOUND, Exit::NotFound, message)
                .hint(format!("{} list --pipeline {pipeline} -o wide", self.program))
                .into()
        })
    }

    /// All runs that a selector takes.
    ///
    /// # Errors
    /// Whatever the cluster answered.
    pub(super) async fn list_runs(
        &self,
        api: &Api<DynamicObject>,
        select: Option<ListParams>,
    ) -> Result<Vec<DynamicObject>, Stop> {
        let mut params = select.unwrap_or_default().limit(PAGE);
        let mut runs = Vec::new();
        loop {
            let page = self.ask(Ask::runs("list"), api.list(&params)).await?;
            runs.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) if runs.len() < MOST_RUNS => params.continue_token = Some(token),
                _ => return Ok(runs),
            }
        }
    }
}

/// The name in what `kubectl get -o name` prints of a run.
fn bare(wanted: &str) -> &str {
    match wanted.split_once('/') {
        Some((
            "pipelinerun" | "pipelineruns" | "plr" | "pipelinerun.windlass.dev" | "pipelineruns.windlass.dev",
            name,
        )) => name,
        Some(_) | None => wanted,
    }
}

/// The kind PipelineRun, for objects that are read leniently.
#[must_use]
pub(super) fn run_resource() -> ApiResource {
    ApiResource::erase::<PipelineRun>(&())
}

/// Sorts runs by age; of two made in the same second the name that sorts last is taken for the newer.
#[must_use]
pub(super) fn newest_first(run: &DynamicObject) -> std::cmp::Reverse<(Option<jiff::Timestamp>, Option<String>)> {
    std::cmp::Reverse((run.metadata.creation_timestamp.as_ref().map(|t| t.0), run.metadata.name.clone()))
}

fn client(config: Config, trace: bool) -> Result<Client, Stop> {
    let builder = ClientBuilder::try_from(config).map_err(|e| bad_kubeconfig(&e.to_string()))?;
    Ok(if trace { builder.with_layer(&Trace).build() } else { builder.build() })
}

async fn config(place: &Place) -> Result<(Config, String), Stop> {
    let (mut config, context) = read_config(place).await?;
    if place.as_user.is_some() {
        config.auth_info.impersonate.clone_from(&place.as_user);
    }
    if !place.as_group.is_empty() {
        if config.auth_info.impersonate.is_none() {
            return Err(Fault::usage("--as-group needs --as: a group is nobody by itself").into());
        }
        config.auth_info.impersonate_groups = Some(place.as_group.clone());
    }
    Ok((config, context))
}

async fn read_config(place: &Place) -> Result<(Config, String), Stop> {
    let options = KubeConfigOptions { context: place.context.clone(), ..KubeConfigOptions::default() };
    let read = match &place.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let kubeconfig = match read {
        Ok(kubeconfig) => kubeconfig,
        // In a pod there is no file, but a service account.
        Err(_) if place.kubeconfig.is_none() && place.context.is_none() && in_pod() => {
            let config = Config::incluster().map_err(|e| bad_kubeconfig(&e.to_string()))?;
            return Ok((config, "in-cluster".into()));
        }
        Err(KubeconfigError::ReadConfig(error, path)) => {
            return Err(bad_kubeconfig(&format!("cannot read {}: {error}", path.display())));
        }
        Err(error) => return Err(bad_kubeconfig(&error.to_string())),
    };
    let context = place.context.clone().or_else(|| kubeconfig.current_context.clone()).unwrap_or_default();
    let names: Vec<String> = kubeconfig.contexts.iter().map(|c| c.name.clone()).collect();
    match Config::from_custom_kubeconfig(kubeconfig, &options).await {
        Ok(config) => Ok((config, context)),
        Err(KubeconfigError::LoadContext(name)) => Err(Fault::new(
            reason::INVALID_KUBECONFIG,
            Exit::Denied,
            format!("the kubeconfig has no context {name:?} (it has {})", names.join(", ")),
        )
        .into()),
        Err(KubeconfigError::CurrentContextNotSet) => {
            Err(bad_kubeconfig("no current context is set; choose one with --context"))
        }
        Err(error) => Err(bad_kubeconfig(&error.to_string())),
    }
}

fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn bad_kubeconfig(cause: &str) -> Stop {
    Fault::new(reason::INVALID_KUBECONFIG, Exit::Denied, cause)
        .hint("set KUBECONFIG or --kubeconfig to the file of your cluster")
        .into()
}
