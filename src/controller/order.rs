//! Writes the [`Order`] for `prepare` and names the volumes it needs. Called by `pod`.
//!
//! **Invariant:** pure. An order holds names of Secrets, never values.

use crate::{
    api::{
        PipelineRunSpec, PipelineSpec, StepKind, duration,
        pipeline::{EnvFrom, EnvVar, Service, Source, Submodules},
        step::OnFailure,
    },
    steps::{self, logins},
    wire::{
        self, Breakpoints, EnvFromSource, EnvItem, EnvValue, GitOrder, LoginKey, Order, OrderStep, RunInfo,
        ServiceCheck, ServiceLink, ShellWork, SourceOrder, StepWork, WatchWork,
    },
};
use std::collections::BTreeSet;

/// Writes the order of a run whose pipeline is frozen.
#[must_use]
pub fn order(spec: &PipelineSpec, run: RunInfo, deadline_ms: u64, breakpoints: Breakpoints) -> Order {
    let withheld = logins::withheld(spec);
    let given = |vars: &[EnvVar]| -> Vec<EnvItem> {
        vars.iter().filter(|var| logins::is_given(var, &withheld)).map(env_item).collect()
    };
    let from = spec.env_from.iter().filter_map(env_from_item);
    Order {
        version: wire::VERSION,
        run,
        working_dir: spec.box_.working_dir.clone(),
        shell: spec.box_.shell.clone(),
        deadline_ms,
        timeout_s: seconds(&spec.timeout),
        env: given(&spec.box_.env).into_iter().chain(from).chain(given(&spec.env)).collect(),
        source: source(spec.source.as_ref()),
        services: spec.services.iter().filter_map(service_check).collect(),
        links: spec.services.iter().filter(|service| !service.ports.is_empty()).map(service_link).collect(),
        push_secrets: push_secrets(spec),
        login_keys: login_keys(spec),
        steps: spec.all_steps().map(|(after, step)| order_step(spec, after, step, &withheld)).collect(),
        withheld: withheld.iter().map(|name| (*name).to_owned()).collect(),
        breakpoints,
    }
}

/// Where a run waits for a person.
#[must_use]
pub fn breakpoints(run: &PipelineRunSpec) -> Breakpoints {
    run.breakpoint.as_ref().map_or_else(Breakpoints::default, |at| Breakpoints {
        at_failure: at.at_failure,
        before: at.before.clone(),
        timeout_s: seconds(&run.breakpoint_timeout),
    })
}

/// Whether a step of the run is the work of the node's agent.
#[must_use]
pub fn needs_agent(spec: &PipelineSpec) -> bool {
    spec.all_steps().any(|(_, step)| step.kind().is_some_and(|kind| kind.is_of_agent()))
}

fn env_item(var: &EnvVar) -> EnvItem {
    let value = match (&var.secret_key_ref, &var.config_map_key_ref) {
        (Some(r), _) => EnvValue::Secret { name: r.name.clone(), key: r.key.clone(), optional: r.optional },
        (None, Some(r)) => EnvValue::ConfigMap { name: r.name.clone(), key: r.key.clone(), optional: r.optional },
        (None, None) => EnvValue::Text(var.value.clone().unwrap_or_default()),
    };
    EnvItem::One { name: var.name.clone(), value }
}

fn env_from_item(from: &EnvFrom) -> Option<EnvItem> {
    let (secret, object) = match (&from.secret_ref, &from.config_map_ref) {
        (Some(r), _) => (true, r),
        (None, Some(r)) => (false, r),
        (None, None) => return None,
    };
    let prefix = from.prefix.clone().unwrap_or_default();
    Some(EnvItem::All(EnvFromSource { prefix, secret, name: object.name.clone(), optional: object.optional }))
}

fn source(source: Option<&Source>) -> SourceOrder {
    let Some(source) = source else { return SourceOrder::None };
    if let Some(git) = &source.git {
        return SourceOrder::Git(GitOrder {
            url: git.url.clone(),
            revision: git.revision.clone(),
            secret_name: git.secret_name.clone(),
            depth: git.depth,
            submodules: match git.submodules {
                Submodules::None => 0,
                Submodules::Direct => 1,
                Submodules::Recursive => 2,
            },
            lfs: matches!(git.lfs, crate::api::pipeline::Lfs::Auto),
            sparse: git.sparse.clone().unwrap_or_default(),
            directory: git.directory.clone(),
        });
    }
    let files = source.inline.as_ref().map(|inline| {
        let mode = |text: &str| u32::from_str_radix(text, 8).unwrap_or(0o644);
        inline.files.iter().map(|f| (f.path.clone(), f.content.clone(), mode(&f.mode))).collect()
    });
    files.map_or(SourceOrder::None, SourceOrder::Inline)
}

fn service_check(service: &Service) -> Option<ServiceCheck> {
    let readiness = service.readiness.as_ref()?;
    let (port, http_path) = match (&readiness.tcp, &readiness.http) {
        (Some(port), _) => (*port, None),
        (None, Some(http)) => (http.port, Some(http.path.clone())),
        // An exec check is the kubelet's startup probe.
        (None, None) => return None,
    };
    let within_s = seconds(&readiness.within);
    Some(ServiceCheck { name: service.name.clone(), port, http_path, within_s })
}

fn service_link(service: &Service) -> ServiceLink {
    let written = |var: &EnvVar| Some((var.name.clone(), var.value.clone()?));
    ServiceLink {
        name: service.name.clone(),
        ports: service.ports.clone(),
        env: service.env.iter().filter_map(written).collect(),
    }
}

/// Whole Secrets that steps log in with; each with the first step that does.
fn push_secrets(spec: &PipelineSpec) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (_, step) in spec.all_steps() {
        let secret = logins::push_of(step).and_then(|push| push.credentials.as_ref()).map(|c| &c.secret_name);
        if let Some(secret) = secret.filter(|secret| found.iter().all(|(_, known)| known != *secret)) {
            found.push((step.name.clone(), secret.clone()));
        }
    }
    found
}

/// Keys that must be there.
fn login_keys(spec: &PipelineSpec) -> Vec<LoginKey> {
    let needed = logins::login_keys(spec).into_iter().filter(|login| !login.key.optional);
    let key = |login: logins::LoginKey<'_>| LoginKey {
        step: login.step.to_owned(),
        variable: login.variable.to_owned(),
        secret: login.key.name.clone(),
        key: login.key.key.clone(),
    };
    needed.map(key).collect()
}

fn order_step(spec: &PipelineSpec, after: bool, step: &crate::api::Step, withheld: &BTreeSet<&str>) -> OrderStep {
    let kind = step.kind();
    let script = matches!(kind, Some(StepKind::Script(_)));
    let interactive = matches!(kind, Some(StepKind::Watch(_) | StepKind::Shell(_)));
    let timeout = step.timeout.as_ref().or((!interactive).then_some(&spec.step_timeout));
    OrderStep {
        name: step.name.clone(),
        title: step.title().to_owned(),
        after,
        cwd: step.cwd.clone(),
        env: logins::step_env(step, withheld).map(env_item).collect(),
        work: match kind {
            Some(StepKind::Script(code)) => StepWork::Script(code.to_owned()),
            Some(StepKind::DockerScratchPush(scratch)) => {
                StepWork::Pack { directory: scratch.directory.clone(), disable_sync: scratch.push.disable_sync }
            }
            Some(StepKind::Shell(shell)) => StepWork::Shell(ShellWork {
                // Checked when the run was resolved.
                cmd: steps::shell::words("", shell).unwrap_or_default(),
                code: shell.code.clone().filter(|code| !code.is_empty()),
            }),
            Some(StepKind::Watch(watch)) => StepWork::Watch(WatchWork {
                code: watch.code.clone(),
                reload: watch.reload,
                ignore: watch.ignore.clone().unwrap_or_default(),
                ports: watch.ports.clone().unwrap_or_default(),
            }),
            Some(StepKind::Here(here)) => match here.packs() {
                Some(directory) => StepWork::Pack { directory, disable_sync: here.disable_sync() },
                None => StepWork::Agent,
            },
            _ => StepWork::Agent,
        },
        timeout_s: timeout.map(|t| seconds(t)),
        no_output_timeout_s: script.then(|| seconds(&spec.no_output_timeout)),
        continue_on_failure: step.on_failure == OnFailure::Continue,
        retries: step.retries,
    }
}

/// Durations are checked when the run is resolved; a frozen one that is not readable has no time.
fn seconds(text: &str) -> u64 {
    duration::parse(text).map_or(0, |d| d.as_secs())
}
