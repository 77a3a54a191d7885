//! The run's pod: `prepare` and the box, started together, and the services. Called by `plan`.
//!
//! **Invariant:** pure. The pod holds no Secret value, no service account token, no hostPath and no
//! privilege; it passes Pod Security *baseline* always, and *restricted* when the images of the box and of the services can.

use super::order;
use crate::{
    api::{
        PipelineRun, PipelineSpec, duration, meta,
        pipeline::{BoxSecurity, BoxSpec, EnvVar, ImagePullPolicy, Resources, Service, ServiceSecurity},
        run::pod_name,
    },
    steps::logins,
    wire::{self, RunInfo},
};
use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapKeySelector, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar as PodEnv,
        EnvVarSource, ExecAction, HostAlias, KeyToPath, LocalObjectReference, ObjectFieldSelector, Pod,
        PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile, SecretKeySelector,
        SecretVolumeSource, SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::{Resource, ResourceExt};
use std::{collections::BTreeMap, time::Duration};

/// After-steps get this long after the run's own time is over, and the runner this long to report.
pub const BACKSTOP: Duration = Duration::from_secs(5 * 60 + 30);
/// Name of the box's container.
pub const BOX: &str = "box";
/// Name of `prepare`'s container.
pub const PREPARE: &str = "prepare";
/// Services are containers of this prefix and their name.
pub const SERVICE_PREFIX: &str = "svc-";
/// Where `prepare` may write for itself; the box does not see it.
const PREPARE_TMP: &str = "/tmp";

/// Settings of the installation that pods depend on.
#[derive(Clone, Debug, Default)]
pub struct PodSettings {
    /// Image with `windlass`, `windlass-runner` and git.
    pub image: String,
    /// Its pull policy; empty: the cluster's default.
    pub image_pull_policy: String,
    /// Secrets to pull it with.
    pub image_pull_secrets: Vec<String>,
    /// Whether there is a store for what `storeContainer` steps keep.
    pub has_store: bool,
    /// Nodes that have an agent.
    pub agent_nodes: BTreeMap<String, String>,
    /// Requests and limits of `prepare`.
    pub prepare: Resources,
}

/// Makes the pod of an attempt. `now_ms` (milliseconds since the epoch) starts the run's time.
#[must_use]
pub fn pod(run: &PipelineRun, spec: &PipelineSpec, attempt: u32, settings: &PodSettings, now_ms: u64) -> Pod {
    let timeout = duration::parse(&spec.timeout).unwrap_or_default();
    let info = RunInfo {
        name: run.name_any(),
        namespace: run.namespace().unwrap_or_default(),
        uid: run.uid().unwrap_or_default(),
        build_number: run.status.as_ref().and_then(|s| s.build_number).unwrap_or_default(),
        pipeline: run.spec.pipeline_ref.as_ref().map(|r| r.name.clone()),
        attempt,
        pod: pod_name(&run.name_any(), attempt),
    };
    let deadline_ms = now_ms + u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let order = order::order(spec, info, deadline_ms, order::breakpoints(&run.spec));
    let pull_secrets = settings.image_pull_secrets.iter().chain(spec.box_.image_pull_secrets.iter().map(|s| &s.name));
    Pod {
        metadata: metadata(run, attempt),
        spec: Some(PodSpec {
            containers: vec![prepare(spec, &order, settings), box_container(&spec.box_)],
            init_containers: Some(spec.services.iter().map(service).collect()),
            volumes: Some(volumes(spec)),
            restart_policy: Some("Never".into()),
            active_deadline_seconds: Some(i64::try_from((timeout + BACKSTOP).as_secs()).unwrap_or(i64::MAX)),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            service_account_name: spec.service_account_name.clone(),
            image_pull_secrets: Some(pull_secrets.map(|name| LocalObjectReference { name: name.clone() }).collect()),
            node_selector: Some(node_selector(spec, settings)),
            tolerations: Some(spec.tolerations.clone()),
            host_aliases: host_aliases(spec),
            security_context: Some(PodSecurityContext {
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..Default::default() }),
                supplemental_groups: spec.box_.security_context.as_ref().map(|s| s.supplemental_groups.clone()),
                ..Default::default()
            }),
            // The runner gets TERM and ends the step's processes; see wire and runner.
            termination_grace_period_seconds: Some(20),
            ..Default::default()
        }),
        status: None,
    }
}

/// A run whose steps need an agent goes where agents are. Where the pipeline says otherwise, it has its will.
fn node_selector(spec: &PipelineSpec, settings: &PodSettings) -> BTreeMap<String, String> {
    let mut labels = if order::needs_agent(spec) { settings.agent_nodes.clone() } else { BTreeMap::new() };
    labels.extend(spec.node_selector.clone());
    labels
}

fn metadata(run: &PipelineRun, attempt: u32) -> ObjectMeta {
    let mut labels = BTreeMap::from([
        (meta::MANAGED_BY.to_owned(), meta::MANAGED_BY_VALUE.to_owned()),
        (meta::RUN.to_owned(), run.name_any()),
        (meta::ATTEMPT.to_owned(), attempt.to_string()),
    ]);
    if let Some(pipeline) = &run.spec.pipeline_ref {
        labels.insert(meta::PIPELINE.to_owned(), pipeline.name.clone());
    }
    ObjectMeta {
        name: Some(pod_name(&run.name_any(), attempt)),
        namespace: run.namespace(),
        labels: Some(labels),
        annotations: Some(BTreeMap::from([(meta::RUN_UID.to_owned(), run.uid().unwrap_or_default())])),
        owner_references: run.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..Default::default()
    }
}

/// What the box runs in place of the image's entry point and command: a wait for the runner.
#[must_use]
pub fn box_command() -> Vec<String> {
    let runner = format!("{}/{}", wire::IN_DIR, wire::RUNNER_FILE);
    let failed = format!("{}/{}", wire::IN_DIR, wire::FAILED_FILE);
    // `sleep 0.02` is not POSIX; where it fails, a whole second is waited.
    let wait = format!(
        "until [ -x {runner} ]; do [ -e {failed} ] && exit {}; sleep 0.02 2>/dev/null || sleep 1; done\nexec {runner}",
        wire::EXIT_PREPARE_FAILED
    );
    vec!["/bin/sh".into(), "-c".into(), wait]
}

/// The box: the user's image, its command replaced by a wait for the runner. The image's entry point
/// is not used; `dockerPush` puts it back into the image it pushes.
fn box_container(spec: &BoxSpec) -> Container {
    Container {
        name: BOX.into(),
        image: Some(spec.image.clone()),
        image_pull_policy: pull_policy(spec.image_pull_policy),
        command: Some(box_command()),
        resources: resources(spec.resources.as_ref()),
        security_context: Some(security(
            spec.user.as_deref(),
            spec.security_context.as_ref().map(BoxSecurity::of_container),
        )),
        volume_mounts: Some(vec![
            VolumeMount { read_only: Some(true), ..mount(wire::IN_VOLUME, wire::IN_DIR) },
            mount(wire::OUT_VOLUME, wire::OUT_DIR),
            mount(wire::DISK_VOLUME, wire::DISK_DIR),
        ]),
        ..Default::default()
    }
}

/// The rights of a container of the user's. Its seccomp profile is the pod's.
fn security(user: Option<&str>, asked: Option<ServiceSecurity>) -> SecurityContext {
    let (user, group) = ids(user);
    let asked = asked.unwrap_or_default();
    SecurityContext {
        run_as_user: user,
        run_as_group: group,
        run_as_non_root: asked.run_as_non_root,
        allow_privilege_escalation: asked.allow_privilege_escalation,
        capabilities: asked.capabilities.map(|c| Capabilities { drop: Some(c.drop), add: None }),
        ..Default::default()
    }
}

fn prepare(spec: &PipelineSpec, order: &wire::Order, settings: &PodSettings) -> Container {
    let (secrets, config_maps) = logins::env_objects(spec);
    let read_only = |volume: String, path: String| VolumeMount { read_only: Some(true), ..mount(&volume, &path) };
    let mut mounts = vec![
        mount(wire::IN_VOLUME, wire::IN_DIR),
        mount(wire::OUT_VOLUME, wire::OUT_DIR),
        mount(wire::DISK_VOLUME, wire::DISK_DIR),
        mount("tmp", PREPARE_TMP),
    ];
    mounts.extend(
        secrets
            .iter()
            .enumerate()
            .map(|(i, name)| read_only(wire::secret_volume(i), format!("{}/{name}", wire::SECRETS_DIR))),
    );
    mounts.extend(
        config_maps
            .iter()
            .enumerate()
            .map(|(i, name)| read_only(config_map_volume(i), format!("{}/{name}", wire::CONFIG_MAPS_DIR))),
    );
    mounts.extend(
        logins::push_secrets(spec)
            .iter()
            .enumerate()
            .map(|(i, name)| read_only(wire::push_volume(i), format!("{}/{name}", wire::PUSH_SECRETS_DIR))),
    );
    if git_secret(spec).is_some() {
        mounts.push(read_only("git".into(), wire::GIT_SECRET_DIR.into()));
    }
    Container {
        name: PREPARE.into(),
        image: Some(settings.image.clone()),
        image_pull_policy: Some(settings.image_pull_policy.clone()).filter(|p| !p.is_empty()),
        args: Some(vec!["prepare".into()]),
        env: Some(order_env(order).into_iter().chain([pod_ip()]).collect()),
        resources: resources(Some(&settings.prepare)),
        security_context: Some(SecurityContext {
            run_as_user: Some(65532),
            run_as_group: Some(65532),
            run_as_non_root: Some(true),
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..Default::default()
        }),
        volume_mounts: Some(mounts),
        ..Default::default()
    }
}

/// The pod's address, which the kubelet fills in.
fn pod_ip() -> PodEnv {
    let field = ObjectFieldSelector { field_path: "status.podIP".into(), ..Default::default() };
    let source = EnvVarSource { field_ref: Some(field), ..Default::default() };
    PodEnv { name: wire::POD_IP_VARIABLE.into(), value: None, value_from: Some(source) }
}

/// The order in pieces, as one environment variable is limited in size.
fn order_env(order: &wire::Order) -> Vec<PodEnv> {
    // The API server expands `$(VAR)` in values; `$$` stands for a dollar.
    let json = serde_json::to_string(order).unwrap_or_default().replace('$', "$$");
    let mut pieces = Vec::new();
    let mut rest = json.as_str();
    while !rest.is_empty() {
        let mut end = rest.len().min(wire::ORDER_PIECE_BYTES);
        // A piece ends at a character, and not within a doubled dollar.
        while !rest.is_char_boundary(end) || dollars_before(rest, end) % 2 == 1 {
            end -= 1;
        }
        let (piece, tail) = rest.split_at(end);
        pieces.push(PodEnv {
            name: format!("{}{}", wire::ORDER_VARIABLE, pieces.len()),
            value: Some(piece.into()),
            value_from: None,
        });
        rest = tail;
    }
    pieces
}

fn dollars_before(text: &str, end: usize) -> usize {
    text.as_bytes().get(..end).unwrap_or_default().iter().rev().take_while(|b| **b == b'$').count()
}

/// A service: a native sidecar, so that it runs before and beside the box and ends with it.
fn service(spec: &Service) -> Container {
    let list = |items: &Vec<String>| (!items.is_empty()).then(|| items.clone());
    Container {
        name: format!("{SERVICE_PREFIX}{}", spec.name),
        image: Some(spec.image.clone()),
        image_pull_policy: pull_policy(spec.image_pull_policy),
        command: list(&spec.command),
        args: list(&spec.args),
        env: Some(spec.env.iter().map(service_env).collect()),
        resources: resources(spec.resources.as_ref()),
        restart_policy: Some("Always".into()),
        security_context: Some(security(spec.user.as_deref(), spec.security_context.clone())),
        startup_probe: startup_probe(spec),
        ..Default::default()
    }
}

/// An exec check is the kubelet's work: it alone can run a command in the service.
fn startup_probe(spec: &Service) -> Option<Probe> {
    let readiness = spec.readiness.as_ref()?;
    let exec = readiness.exec.as_ref()?;
    let within_s = duration::parse(&readiness.within).map_or(120, |d| d.as_secs());
    Some(Probe {
        exec: Some(ExecAction { command: Some(exec.command.clone()) }),
        period_seconds: Some(1),
        timeout_seconds: Some(5),
        failure_threshold: Some(i32::try_from(within_s.max(1)).unwrap_or(i32::MAX)),
        ..Default::default()
    })
}

fn service_env(var: &EnvVar) -> PodEnv {
    let value_from = match (&var.secret_key_ref, &var.config_map_key_ref) {
        (Some(r), _) => Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: r.name.clone(),
                key: r.key.clone(),
                optional: Some(r.optional),
            }),
            ..Default::default()
        }),
        (None, Some(r)) => Some(EnvVarSource {
            config_map_key_ref: Some(ConfigMapKeySelector {
                name: r.name.clone(),
                key: r.key.clone(),
                optional: Some(r.optional),
            }),
            ..Default::default()
        }),
        (None, None) => None,
    };
    PodEnv { name: var.name.clone(), value: var.value.as_ref().map(|v| v.replace('$', "$$")), value_from }
}

fn volumes(spec: &PipelineSpec) -> Vec<Volume> {
    let empty_dir = |name: &str, memory: bool, limit: Option<&str>| Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: memory.then(|| "Memory".into()),
            size_limit: limit.map(|l| Quantity(l.into())),
        }),
        ..Default::default()
    };
    let (secrets, config_maps) = logins::env_objects(spec);
    let mut volumes = vec![
        empty_dir(wire::IN_VOLUME, true, Some("16Mi")),
        empty_dir(wire::OUT_VOLUME, true, Some("32Mi")),
        empty_dir(wire::DISK_VOLUME, false, None),
        // Git keeps its index and its private configuration here, out of the box's sight.
        empty_dir("tmp", true, Some("64Mi")),
    ];
    volumes.extend(secrets.iter().enumerate().map(|(i, name)| secret(wire::secret_volume(i), name, 0o444)));
    volumes.extend(config_maps.iter().enumerate().map(|(i, name)| Volume {
        name: config_map_volume(i),
        config_map: Some(ConfigMapVolumeSource {
            name: (*name).into(),
            optional: Some(true),
            items: None::<Vec<KeyToPath>>,
            default_mode: Some(0o444),
        }),
        ..Default::default()
    }));
    // Mode 0: `prepare` runs git on foreign repositories; it may list the names, and the agent (root) reads.
    volumes
        .extend(logins::push_secrets(spec).iter().enumerate().map(|(i, name)| secret(wire::push_volume(i), name, 0)));
    volumes.extend(git_secret(spec).map(|name| secret("git".into(), name, 0o444)));
    volumes
}

/// All Secrets are optional: `prepare` looks and says what is missing, where the kubelet would wait for ever.
fn secret(volume: String, name: &str, mode: i32) -> Volume {
    Volume {
        name: volume,
        secret: Some(SecretVolumeSource {
            secret_name: Some(name.into()),
            optional: Some(true),
            default_mode: Some(mode),
            items: None,
        }),
        ..Default::default()
    }
}

fn git_secret(spec: &PipelineSpec) -> Option<&str> {
    spec.source.as_ref()?.git.as_ref()?.secret_name.as_deref()
}

fn config_map_volume(index: usize) -> String {
    format!("config-{index}")
}

fn host_aliases(spec: &PipelineSpec) -> Option<Vec<HostAlias>> {
    let names: Vec<String> = spec.services.iter().map(|s| s.name.clone()).collect();
    (!names.is_empty()).then(|| vec![HostAlias { ip: "127.0.0.1".into(), hostnames: Some(names) }])
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.into(), mount_path: path.into(), ..Default::default() }
}

fn pull_policy(policy: Option<ImagePullPolicy>) -> Option<String> {
    policy.map(|p| p.as_str().to_owned())
}

fn resources(resources: Option<&Resources>) -> Option<ResourceRequirements> {
    resources.map(|r| ResourceRequirements {
        requests: Some(r.requests.clone()),
        limits: Some(r.limits.clone()),
        claims: None,
    })
}

/// `UID` or `UID:GID`.
fn ids(user: Option<&str>) -> (Option<i64>, Option<i64>) {
    let Some(user) = user else { return (None, None) };
    let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
    (uid.parse().ok(), gid.and_then(|g| g.parse().ok()))
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;
