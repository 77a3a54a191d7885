//! The containers of a local run: the box and its services, as the pod of `controller::pod` has them.
//!
//! `setup` makes them. The services are in the box's network: as in a pod they are at `localhost` and at their names.
//!
//! **Invariant:** pure. What a pipeline says of containers is carried out or refused; what only means something to a
//! cluster (node, priority, service account, requests) is left out, as the documents say.

use super::{Beside, Objects, Request, owner::Owner};
use crate::{
    api::{
        PipelineSpec, Step,
        condition::reason,
        here::HereStep,
        pipeline::{BoxSpec, EnvVar, Resources, Service},
    },
    controller::{pod, resolve::Refusal},
    engine::docker::{
        DockerEngine,
        containers::{Bind, ContainerSpec, Network},
        pulls::LocalImage,
    },
    local::{NAMESPACE, objects, owner},
    steps::{self, logins},
    wire::Failure,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

/// What the containers of a run have in common.
pub(super) struct Common<'a> {
    /// UID of the run, which is that of its pod too.
    pub(super) uid: &'a str,
    /// Name of the run.
    pub(super) run: &'a str,
    /// Name of its pod.
    pub(super) pod: &'a str,
    /// Who removes them; none: they stay.
    pub(super) owner: Option<&'a Owner>,
}

impl Common<'_> {
    fn owned(&self, own: BTreeMap<String, String>) -> BTreeMap<String, String> {
        match self.owner {
            Some(owner) => owner::labels(owner, own),
            None => own,
        }
    }

    /// Labels of a container.
    pub(super) fn labels(&self, container: &str) -> BTreeMap<String, String> {
        self.owned(DockerEngine::local_labels(self.uid, NAMESPACE, self.pod, container))
    }

    /// Name of the run's network.
    pub(super) fn network(&self) -> String {
        box_name(self.run)
    }

    /// Labels of the run's network.
    pub(super) fn network_labels(&self) -> BTreeMap<String, String> {
        self.owned(BTreeMap::new())
    }
}

/// Whether the box is in a network of its run: others are to reach it, or it starts containers itself.
pub(super) fn needs_network(spec: &PipelineSpec, beside: &Beside) -> bool {
    let starts = |step: &Step| matches!(step.here, Some(HereStep::DockerRun(_)));
    !spec.services.is_empty() || beside.privileged || spec.all_steps().any(|(_, step)| starts(step))
}

/// Name of the container that is a run's box.
#[must_use]
pub fn box_name(run: &str) -> String {
    format!("windlass-{run}")
}

/// Name of the container of a service.
#[must_use]
pub fn service_name(run: &str, service: &str) -> String {
    format!("{}-{service}", box_name(run))
}

/// What only this can judge.
///
/// # Errors
/// `InvalidPipeline` or `StoreFailed`; path first, then the fault.
pub(super) fn check(spec: &PipelineSpec) -> Result<(), Refusal> {
    if let Some((path, _)) = steps::pipeline::paths(spec).find(|(_, step)| step.store_container.is_some()) {
        let message = format!(
            "{path}.storeContainer: a run on this machine has no artifact store; take the step out, or run it in a cluster"
        );
        return Err(Refusal { reason: reason::STORE_FAILED, message });
    }

    check_objects(spec)?;
    let services = spec.services.iter().enumerate().map(|(i, s)| (format!("services[{i}]"), s.resources.as_ref()));
    for (path, resources) in std::iter::once(("box".to_owned(), spec.box_.resources.as_ref())).chain(services) {
        limits(resources).map_err(|problem| Refusal {
            reason: reason::INVALID_PIPELINE,
            message: format!("{path}.resources.limits.{problem}"),
        })?;
    }
    Ok(())
}

/// Names of Secrets and ConfigMaps, and their keys, become names of files of this user, whose `prepare` reads them: here
/// nobody else refuses one that leads elsewhere, as the API server of a cluster does.
fn check_objects(spec: &PipelineSpec) -> Result<(), Refusal> {
    let (secrets, config_maps) = logins::env_objects(spec);
    let git = spec.source.as_ref().and_then(|source| source.git.as_ref()?.secret_name.as_deref());
    let names = secrets.into_iter().chain(config_maps).chain(logins::push_secrets(spec)).chain(git);
    let lists = [&spec.box_.env, &spec.env].into_iter().chain(spec.services.iter().map(|service| &service.env));
    let vars = lists.chain(spec.all_steps().map(|(_, step)| &step.env)).flatten();
    let keys = vars.flat_map(|var| var.secret_key_ref.iter().chain(&var.config_map_key_ref));
    let (named, keys): (Vec<&str>, Vec<&str>) = keys.map(|key| (key.name.as_str(), key.key.as_str())).unzip();
    let refuse = |what: &str, name: &str, expected: &str| Refusal {
        reason: reason::INVALID_PIPELINE,
        message: format!("{name:?} as the {what} of a Secret or ConfigMap: expected {expected}"),
    };
    if let Some(name) = names.chain(named).find(|name| !objects::is_name(name)) {
        return Err(refuse("name", name, "lower-case letters, digits, '-' and '.'"));
    }
    if let Some(key) = keys.into_iter().find(|key| !objects::is_key(key)) {
        return Err(refuse("key", key, "letters, digits, '-', '_' and '.'"));
    }
    Ok(())
}

/// The box.
pub(super) fn of_box(common: &Common<'_>, spec: &PipelineSpec, binds: Vec<Bind>, request: &Request) -> ContainerSpec {
    let BoxSpec { image, user, resources, security_context, .. } = &spec.box_;
    let security = security_context.clone().unwrap_or_default();
    let (memory, nano_cpus) = limits(resources.as_ref()).unwrap_or_default();
    ContainerSpec {
        name: box_name(common.run),
        image: image.clone(),
        hostname: Some(common.pod.to_owned()),
        user: user.clone(),
        entrypoint: Some(pod::box_command()),
        labels: common.labels(pod::BOX),
        binds: binds.into_iter().chain(request.beside.binds.iter().cloned()).collect(),
        privileged: request.beside.privileged,
        network: if needs_network(spec, &request.beside) { Network::Named(common.network()) } else { Network::Default },
        hosts: spec.services.iter().map(|s| (s.name.clone(), IpAddr::from(Ipv4Addr::LOCALHOST))).collect(),
        publish: request.publish.clone(),
        memory,
        nano_cpus,
        cap_drop: security.capabilities.map(|c| c.drop).unwrap_or_default(),
        no_new_privileges: security.allow_privilege_escalation == Some(false),
        groups: security.supplemental_groups.iter().map(ToString::to_string).collect(),
        ..ContainerSpec::default()
    }
}

/// Whether the box may run as the user it would have, as the kubelet judges it.
///
/// # Errors
/// `BoxFailedToStart`.
pub(super) fn check_box_user(spec: &BoxSpec, image: &LocalImage) -> Result<(), Failure> {
    if spec.security_context.as_ref().and_then(|s| s.run_as_non_root) != Some(true) {
        return Ok(());
    }
    check_user("box", spec.user.as_deref(), image)
}

/// The same of a service.
///
/// # Errors
/// `BoxFailedToStart`, as the controller has it for services too.
pub(super) fn check_service_user(service: &Service, image: &LocalImage) -> Result<(), Failure> {
    if service.security_context.as_ref().and_then(|s| s.run_as_non_root) != Some(true) {
        return Ok(());
    }
    check_user(&format!("service {}", service.name), service.user.as_deref(), image)
}

fn check_user(whose: &str, own: Option<&str>, image: &LocalImage) -> Result<(), Failure> {
    let user = own.unwrap_or(&image.user);
    let number = user.split(':').next().and_then(|uid| uid.parse::<u32>().ok());
    let problem = match number {
        Some(0) => "it would run as root",
        Some(_) => return Ok(()),
        None if user.is_empty() => "the image's user is root",
        None => "the image's user is a name, which could be root's",
    };
    let message = format!("{whose}: securityContext.runAsNonRoot is set, and {problem}; set its user to a number");
    Err(Failure { reason: reason::BOX_FAILED_TO_START.into(), message })
}

/// A service in the network of the box.
///
/// # Errors
/// A Secret or ConfigMap that its environment names is not there.
pub(super) fn of_service(
    common: &Common<'_>,
    service: &Service,
    box_id: &str,
    request: &Request,
) -> Result<ContainerSpec, Failure> {
    let list = |items: &Vec<String>| (!items.is_empty()).then(|| items.clone());
    let (memory, nano_cpus) = limits(service.resources.as_ref()).unwrap_or_default();
    let security = service.security_context.clone().unwrap_or_default();
    let mut env = Vec::new();
    for var in &service.env {
        if let Some(value) = value(service, var, &request.objects)? {
            env.push(format!("{}={value}", var.name));
        }
    }
    Ok(ContainerSpec {
        name: service_name(common.run, &service.name),
        image: service.image.clone(),
        user: service.user.clone(),
        entrypoint: list(&service.command),
        command: list(&service.args),
        env,
        labels: common.labels(&format!("{}{}", pod::SERVICE_PREFIX, service.name)),
        binds: request.beside.of_services.get(&service.name).cloned().unwrap_or_default(),
        network: Network::Of(box_id.to_owned()),
        memory,
        nano_cpus,
        cap_drop: security.capabilities.map(|c| c.drop).unwrap_or_default(),
        no_new_privileges: security.allow_privilege_escalation == Some(false),
        ..ContainerSpec::default()
    })
}

/// The value of a service's variable; `None` if it may be missing and is. A service is never committed, so its Secrets
/// may stand in its container's environment, as the kubelet does it.
fn value(service: &Service, var: &EnvVar, objects: &Objects) -> Result<Option<String>, Failure> {
    let (known, key, kind, not_found, no_key) = match (&var.secret_key_ref, &var.config_map_key_ref) {
        (Some(key), _) => (&objects.secrets, key, "Secret", reason::SECRET_NOT_FOUND, reason::SECRET_KEY_NOT_FOUND),
        (None, Some(key)) => {
            (&objects.config_maps, key, "ConfigMap", reason::CONFIG_MAP_NOT_FOUND, reason::CONFIG_MAP_KEY_NOT_FOUND)
        }
        (None, None) => return Ok(Some(var.value.clone().unwrap_or_default())),
    };
    let failure = |reason: &str, what: String| {
        let message = format!("{what}; env {} of service {} needs it", var.name, service.name);
        Failure { reason: reason.into(), message }
    };
    let Some(object) = known.get(&key.name) else {
        let missing = || failure(not_found, format!("{kind} {} does not exist", key.name));
        return if key.optional { Ok(None) } else { Err(missing()) };
    };
    let Some(bytes) = object.get(&key.key) else {
        let missing = || failure(no_key, format!("{kind} {} has no key {}", key.name, key.key));
        return if key.optional { Ok(None) } else { Err(missing()) };
    };
    match String::from_utf8(bytes.clone()) {
        Ok(text) if !text.contains('\0') => Ok(Some(text)),
        Ok(_) | Err(_) => {
            Err(failure(reason::INVALID_PIPELINE, format!("key {} of {kind} {} is not text", key.key, key.name)))
        }
    }
}

/// Limits of memory, in bytes, and of processors, in billionths.
fn limits(resources: Option<&Resources>) -> Result<(Option<i64>, Option<i64>), String> {
    let Some(resources) = resources else { return Ok((None, None)) };
    let of = |name: &str, scale: f64| {
        let Some(quantity) = resources.limits.get(name) else { return Ok(None) };
        let wrong = || format!("{name}: {:?} is no quantity such as 512Mi, 2 or 500m", quantity.0);
        amount(&quantity.0).map(|amount| Some(whole(amount * scale))).ok_or_else(wrong)
    };
    Ok((of("memory", 1.0)?, of("cpu", 1e9)?))
}

#[expect(clippy::cast_possible_truncation, reason = "what is beyond the largest number is no limit any more")]
fn whole(amount: f64) -> i64 {
    amount as i64
}

/// A quantity of Kubernetes: a decimal number with a binary or decimal suffix.
fn amount(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let scale = match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Some(number * scale)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{api::pipeline::ServiceSecurity, engine::docker::containers::Publish};
    use rstest::rstest;
    use serde_json::{Value, json};

    fn spec(value: Value) -> PipelineSpec {
        serde_json::from_value(value).unwrap()
    }

    pub(in crate::local) fn request() -> Request {
        Request {
            name: "build-a41".into(),
            uid: "0f1e2d3c".into(),
            pipeline: None,
            spec: crate::api::PipelineRunSpec::default(),
            objects: Objects::default(),
            directory: None,
            runner: "runner".into(),
            publish: Vec::new(),
            logins: crate::registry::docker_config::DockerLogins::default(),
            trust: crate::registry::Trust::default(),
            beside: Beside::default(),
        }
    }

    fn with<T>(test: impl FnOnce(&Common<'_>) -> T) -> T {
        let owner = Owner::me().unwrap();
        test(&Common { uid: "0f1e2d3c", run: "build-a41", pod: "build-a41-1", owner: Some(&owner) })
    }

    #[test]
    fn services_share_the_network_of_the_box() {
        let spec = spec(json!({
            "box": {"image": "debian", "user": "1000:1000", "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}},
            "services": [{"name": "db", "image": "postgres", "args": ["-c", "fsync=off"],
                "env": [{"name": "POSTGRES_PASSWORD", "secretKeyRef": {"name": "db", "key": "password"}}]}],
            "steps": [{"name": "a", "script": "true"}],
        }));
        let keys = BTreeMap::from([("password".to_owned(), b"pw".to_vec())]);
        let objects = Objects { secrets: BTreeMap::from([("db".into(), keys)]), ..Objects::default() };
        let request = Request { objects, publish: vec![Publish::on_loopback(5000, 5000)], ..request() };
        with(|common| {
            let container = of_box(common, &spec, Vec::new(), &request);
            assert_eq!(container.hosts, [("db".to_owned(), "127.0.0.1".parse().unwrap())]);
            assert_eq!(container.network, Network::Named("windlass-build-a41".into()));
            assert_eq!((container.memory, container.nano_cpus), (Some(64 << 20), Some(500_000_000)));
            assert_eq!((container.no_new_privileges, container.cap_drop.as_slice()), (true, &["ALL".to_owned()][..]));
            assert!(container.env.is_empty(), "what the box's container has, a commit would keep");
            let service = of_service(common, &spec.services[0], "b0x", &request).unwrap();
            assert_eq!(service.network, Network::Of("b0x".into()));
            assert_eq!((service.env, service.entrypoint), (vec!["POSTGRES_PASSWORD=pw".to_owned()], None));
            let missing = of_service(common, &spec.services[0], "b0x", &self::request()).unwrap_err();
            assert_eq!(missing.reason, reason::SECRET_NOT_FOUND);
        });
    }

    #[rstest]
    #[case("512Mi", Some(536_870_912.0))]
    #[case("1.5G", Some(1.5e9))]
    #[case("2", Some(2.0))]
    #[case("250m", Some(0.25))]
    #[case("lots", None)]
    #[case("", None)]
    #[case("5Zi", None)]
    fn quantities(#[case] text: &str, #[case] expected: Option<f64>) {
        assert_eq!(amount(text), expected);
    }

    #[rstest]
    #[case(json!({}), json!({"script": "true"}), None)]
    #[case(json!({}), json!({"storeContainer": {}}), Some((reason::STORE_FAILED, "steps[0].storeContainer: ")))]
    #[case(
        json!({"resources": {"limits": {"memory": "lots"}}}),
        json!({"script": "true"}),
        Some((reason::INVALID_PIPELINE, "box.resources.limits.memory"))
    )]
    #[case(
        json!({"env": [{"name": "K", "secretKeyRef": {"name": "/etc/keys", "key": "id"}}]}),
        json!({"script": "true"}),
        Some((reason::INVALID_PIPELINE, "\"/etc/keys\" as the name"))
    )]
    #[case(
        json!({}),
        json!({"script": "true", "env": [{"name": "K", "configMapKeyRef": {"name": "../..", "key": "id"}}]}),
        Some((reason::INVALID_PIPELINE, "\"../..\" as the name"))
    )]
    #[case(
        json!({"env": [{"name": "K", "secretKeyRef": {"name": "keys", "key": "../../id"}}]}),
        json!({"script": "true"}),
        Some((reason::INVALID_PIPELINE, "\"../../id\" as the key"))
    )]
    #[case(
        json!({}),
        json!({"dockerPush": {"repository": "a", "credentials": {"secretName": "../x"}}}),
        Some((reason::INVALID_PIPELINE, "\"../x\" as the name"))
    )]
    fn what_this_machine_cannot_give_is_refused(
        #[case] of_box: Value,
        #[case] step: Value,
        #[case] expected: Option<(&str, &str)>,
    ) {
        let mut pipeline = json!({"box": {"image": "debian"}, "steps": [{"name": "a"}]});
        pipeline["box"].as_object_mut().unwrap().extend(of_box.as_object().unwrap().clone());
        pipeline["steps"][0].as_object_mut().unwrap().extend(step.as_object().unwrap().clone());
        let refused = check(&spec(pipeline)).err();
        assert_eq!(refused.as_ref().map(|refusal| refusal.reason), expected.map(|(reason, _)| reason));
        if let (Some(refusal), Some((_, path))) = (refused, expected) {
            assert!(refusal.message.starts_with(path), "{}", refusal.message);
        }
    }

    #[rstest]
    #[case(json!({}), "1000", true)]
    #[case(json!({}), "", false)]
    #[case(json!({}), "www", false)]
    #[case(json!({"user": "1000"}), "", true)]
    #[case(json!({"user": "0"}), "1000", false)]
    fn root_is_refused_where_it_is_to_be(#[case] own: Value, #[case] image_user: &str, #[case] good: bool) {
        let mut value = json!({"image": "x", "securityContext": {"runAsNonRoot": true}});
        value.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        let spec: BoxSpec = serde_json::from_value(value).unwrap();
        let image = LocalImage { id: String::new(), user: image_user.into() };
        assert_eq!(check_box_user(&spec, &image).is_ok(), good);
        let security = ServiceSecurity { run_as_non_root: Some(true), ..ServiceSecurity::default() };
        let service = Service { user: spec.user, security_context: Some(security), ..Service::default() };
        assert_eq!(check_service_user(&service, &image).is_ok(), good);
    }
}
