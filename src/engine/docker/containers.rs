//! Containers and networks of local runs: made, watched, removed.
//!
//! Called by `local`, which has no kubelet to do it, and for `windlass open` and `pull --load`. The agent uses none of
//! this.
//!
//! **Invariant:** what is made carries the labels that it was given, and only what carries an owner's label is listed;
//! that something is gone already is no error.

use super::{DockerEngine, absent_as_none, clipped};
use crate::engine::{EngineError, OWNER_LABEL};
use bollard::{
    container::LogOutput,
    errors::Error as DockerError,
    models::{
        ContainerCreateBody, ContainerState, ContainerStateStatusEnum, EndpointSettings, HealthConfig, HostConfig,
        HostConfigLogConfig, Mount, MountType, NetworkCreateRequest, NetworkingConfig, PortBinding,
    },
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptions,
        ListContainersOptionsBuilder, ListNetworksOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
        StartContainerOptions, WaitContainerOptionsBuilder,
    },
};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

/// Longest time of a command for readiness.
const EXEC_MAX: Duration = Duration::from_secs(5);
/// Most bytes of what a container said last.
const LAST_WORDS_BYTES: usize = 4096;

/// A directory of this machine in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Here.
    pub source: PathBuf,
    /// There.
    pub target: String,
    /// Whether the container may not write to it.
    pub read_only: bool,
}

/// Which network a container is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The engine's own.
    #[default]
    Default,
    /// A network of this name.
    Named(String),
    /// That of another container: one address, one localhost.
    Of(String),
    /// None but its own localhost.
    None,
}

/// A port that is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Address of this machine.
    pub ip: IpAddr,
    /// Port of this machine.
    pub host: u16,
    /// Port of the container.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl Publish {
    /// A TCP port on this machine's loopback.
    #[must_use]
    pub fn on_loopback(host: u16, port: u16) -> Self {
        Self { ip: Ipv4Addr::LOCALHOST.into(), host, port, protocol: Protocol::Tcp }
    }

    /// The container's port as the engine writes it.
    fn container(&self) -> String {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        format!("{}/{protocol}", self.port)
    }
}

/// `PORT`, `HOST:PORT` or `IP:HOST:PORT`, with `/udp` behind it if it is no TCP.
impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a port such as 80, 8080:80 or 0.0.0.0:8080:80");
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(wrong()),
        };
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
        let (rest, container) = ports.rsplit_once(':').unwrap_or((ports, ports));
        let (ip, host) = rest.rsplit_once(':').unwrap_or(("127.0.0.1", rest));
        let ip: IpAddr = ip.trim_matches(['[', ']']).parse().map_err(|_| wrong())?;
        Ok(Self { ip, host: port(host)?, port: port(container)?, protocol })
    }
}

impl std::fmt::Display for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}:{}", self.host, self.container()),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}:{}", self.host, self.container()),
        }
    }
}

/// What goes over a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A container to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Name.
    pub name: String,
    /// Image.
    pub image: String,
    /// Host name; none in another container's network.
    pub hostname: Option<String>,
    /// `UID` or `UID:GID`; none: the image's.
    pub user: Option<String>,
    /// Replaces the image's entry point, and then its command too.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// Labels, among them [`OWNER_LABEL`].
    pub labels: BTreeMap<String, String>,
    /// Directories of this machine.
    pub binds: Vec<Bind>,
    /// Network.
    pub network: Network,
    /// Names and addresses for `/etc/hosts`.
    pub hosts: Vec<(String, IpAddr)>,
    /// Ports that are published.
    pub publish: Vec<Publish>,
    /// Whether it reads what is sent to it, until that ends.
    pub stdin: bool,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Most memory, in bytes.
    pub memory: Option<i64>,
    /// Most processor time, in billionths of a processor.
    pub nano_cpus: Option<i64>,
    /// Capabilities that are taken away.
    pub cap_drop: Vec<String>,
    /// Whether set-user-ID programs give nothing.
    pub no_new_privileges: bool,
    /// More groups of the user.
    pub groups: Vec<String>,
    /// Whether it may do all that the engine may.
    pub privileged: bool,
    /// More names in its network.
    pub aliases: Vec<String>,
    /// Where it starts; none: as in the image.
    pub working_dir: Option<String>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerEnd {
    /// Exit code; a signal is 128+N.
    pub code: i32,
    /// Whether the kernel ended it for its memory.
    pub out_of_memory: bool,
    /// What the engine says, if it could not even start it.
    pub error: String,
}

/// Something that a local run made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// ID.
    pub id: String,
    /// Its labels.
    pub labels: HashMap<String, String>,
}

impl DockerEngine {
    /// Makes a container and gives its ID.
    ///
    /// # Errors
    /// The engine refuses, or has no such image.
    pub async fn create(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let made = self.calls.create_container(Some(options), body(spec)).await;
        Ok(made.map_err(|error| self.error("make the container", error))?.id)
    }

    /// Starts a container.
    ///
    /// # Errors
    /// The engine cannot.
    pub async fn start(&self, id: &str) -> Result<(), EngineError> {
        let started = self.calls.start_container(id, None::<StartContainerOptions>).await;
        started.map_err(|error| self.error("start the container", error))
    }

    /// What a container prints, from before its start to its end.
    ///
    /// # Errors
    /// The engine cannot attach; the stream ends with an error if the connection breaks.
    pub async fn attach(&self, id: &str) -> Result<BoxStream<'static, Bytes>, EngineError> {
        let options = AttachContainerOptionsBuilder::default().stream(true).stdout(true).stderr(true).build();
        let attached = self.long_calls.attach_container(id, Some(options)).await;
        let attached = attached.map_err(|error| self.error("attach to the container", error))?;
        // A connection that broke ends the output; how the container ends is told by itself.
        let bytes = attached.output.take_while(|piece| futures::future::ready(piece.is_ok()));
        Ok(bytes.filter_map(|piece| futures::future::ready(piece.ok().map(LogOutput::into_bytes))).boxed())
    }

    /// Waits until a container that was started has ended. `None`: it is gone.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn ended(&self, id: &str) -> Result<Option<ContainerEnd>, EngineError> {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut waits = std::pin::pin!(self.long_calls.wait_container(id, Some(options)));
        match waits.next().await {
            // The code is in the state as well, with more.
            Some(Ok(_) | Err(DockerError::DockerContainerWaitError { .. })) | None => {}
            Some(Err(error)) => return absent_as_none(self.error("wait for the container", error)),
        }
        Ok(self.inspected(id).await?.map(end))
    }

    /// How a container ended that has run; `None`: it runs, never ran, or is gone.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn end_of(&self, id: &str) -> Result<Option<ContainerEnd>, EngineError> {
        let ended = |state: &ContainerState| {
            matches!(state.status, Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD))
        };
        Ok(self.inspected(id).await?.filter(ended).map(end))
    }

    async fn inspected(&self, id: &str) -> Result<Option<ContainerState>, EngineError> {
        match self.calls.inspect_container(id, None::<InspectContainerOptions>).await {
            Ok(found) => Ok(found.state),
            Err(error) => absent_as_none(self.error("inspect the container", error)),
        }
    }

    /// The address of a container in its network.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn address(&self, id: &str) -> Result<Option<IpAddr>, EngineError> {
        let found = self.calls.inspect_container(id, None::<InspectContainerOptions>).await;
        let found = found.map_err(|error| self.error("inspect the container", error))?;
        let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        Ok(networks.into_values().find_map(|network| network.ip_address?.parse().ok()))
    }

    /// Runs a command in a container, without its output; the exit code.
    ///
    /// # Errors
    /// The engine cannot, or the command takes longer than it may.
    pub async fn run_in(&self, id: &str, command: &[String]) -> Result<i64, EngineError> {
        let run = async {
            let (process, mut streams) = self.exec(id, command.to_vec(), (false, false)).await?;
            while let Some(Ok(_)) = streams.output.next().await {}
            self.exit_code(&process).await
        };
        let late = |_| EngineError::TimedOut { call: "run a command in the container" };
        tokio::time::timeout(EXEC_MAX, run).await.map_err(late)?
    }

    /// The last line that a container printed; empty if it cannot be had.
    pub async fn last_words(&self, id: &str) -> String {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("5").build();
        let mut said = Vec::new();
        let mut lines = std::pin::pin!(self.calls.logs(id, Some(options)));
        while let Some(Ok(line)) = lines.next().await {
            said.extend_from_slice(&line.into_bytes());
            if said.len() > LAST_WORDS_BYTES {
                break;
            }
        }
        let text = String::from_utf8_lossy(&said);
        clipped(text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default())
    }

    /// Ends a container at once and removes it, with its anonymous volumes.
    ///
    /// # Errors
    /// The engine cannot.
    pub async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.calls.remove_container(id, Some(options)).await {
            // Somebody else removes it just now.
            Ok(()) | Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
            Err(error) => absent_as_none::<()>(self.error("remove the container", error)).map(|_| ()),
        }
    }

    /// Ends a container at once; one that has ended, or is gone, is no error.
    ///
    /// # Errors
    /// The engine cannot.
    pub async fn kill_container(&self, id: &str) -> Result<(), EngineError> {
        match self.calls.kill_container(id, None::<KillContainerOptions>).await {
            // It does not run.
            Ok(()) | Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
            Err(error) => absent_as_none::<()>(self.error("end the container", error)).map(|_| ()),
        }
    }

    /// All containers of local runs, whoever owns them.
    ///
    /// # Errors
    /// The engine cannot list them.
    pub async fn owned_containers(&self) -> Result<Vec<Owned>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![OWNER_LABEL.to_owned()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = self.calls.list_containers(Some(options)).await;
        let found = found.map_err(|error| self.error("list containers", error))?;
        Ok(found.into_iter().filter_map(|c| Some(Owned { id: c.id?, labels: c.labels.unwrap_or_default() })).collect())
    }

    /// A container of a local run, by its name, if it runs.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn owned_container(&self, name: &str) -> Result<Option<Owned>, EngineError> {
        let found = match self.calls.inspect_container(name, None::<InspectContainerOptions>).await {
            Ok(found) => found,
            Err(error) => return absent_as_none(self.error("inspect the container", error)),
        };
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        let runs = found.state.and_then(|state| state.running) == Some(true);
        Ok(found.id.filter(|_| runs && labels.contains_key(OWNER_LABEL)).map(|id| Owned { id, labels }))
    }

    /// Whether there is a container of this name; an engine that cannot be asked has none.
    pub async fn has_container(&self, name: &str) -> bool {
        self.calls.inspect_container(name, None::<InspectContainerOptions>).await.is_ok()
    }

    /// Makes a network of this name.
    ///
    /// # Errors
    /// The engine cannot: it may have used up its address ranges.
    pub async fn create_network(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), EngineError> {
        let labels = Some(labels.clone().into_iter().collect());
        let request = NetworkCreateRequest { name: name.to_owned(), labels, ..Default::default() };
        let made = self.calls.create_network(request).await;
        made.map(drop).map_err(|error| self.error("make the network", error))
    }

    /// Removes a network.
    ///
    /// # Errors
    /// The engine cannot.
    pub async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        match self.calls.remove_network(name).await {
            Ok(()) => Ok(()),
            Err(error) => absent_as_none::<()>(self.error("remove the network", error)).map(|_| ()),
        }
    }

    /// All networks of local runs, whoever owns them.
    ///
    /// # Errors
    /// The engine cannot list them.
    pub async fn owned_networks(&self) -> Result<Vec<Owned>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![OWNER_LABEL.to_owned()])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let found = self.calls.list_networks(Some(options)).await;
        let found = found.map_err(|error| self.error("list networks", error))?;
        Ok(found.into_iter().filter_map(|n| Some(Owned { id: n.id?, labels: n.labels.unwrap_or_default() })).collect())
    }

    /// Registries that the engine's settings let it speak to without TLS, as `host[:port]`.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn insecure_registries(&self) -> Result<Vec<String>, EngineError> {
        let info = self.calls.info().await.map_err(|error| self.error("ask for the settings", error))?;
        let known = info.registry_config.and_then(|config| config.index_configs).unwrap_or_default();
        Ok(known.into_iter().filter(|(_, index)| index.secure == Some(false)).map(|(host, _)| host).collect())
    }
}

fn end(state: ContainerState) -> ContainerEnd {
    ContainerEnd {
        code: state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1),
        out_of_memory: state.oom_killed.unwrap_or_default(),
        error: clipped(&state.error.unwrap_or_default()),
    }
}

/// The names of a container in the run's network.
fn aliases(spec: &ContainerSpec) -> Option<NetworkingConfig> {
    let Network::Named(network) = &spec.network else { return None };
    let aliases = (!spec.aliases.is_empty()).then(|| spec.aliases.clone())?;
    let endpoint = EndpointSettings { aliases: Some(aliases), ..Default::default() };
    Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(network.clone(), endpoint)])) })
}

fn body(spec: &ContainerSpec) -> ContainerCreateBody {
    let mounts = spec.binds.iter().map(|bind| Mount {
        target: Some(bind.target.clone()),
        source: Some(bind.source.display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(bind.read_only),
        ..Default::default()
    });
    let mut ports: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.publish {
        let binding = PortBinding { host_ip: Some(port.ip.to_string()), host_port: Some(port.host.to_string()) };
        ports.entry(port.container()).or_default().get_or_insert_default().push(binding);
    }
    let list = |items: &[String]| (!items.is_empty()).then(|| items.to_vec());
    let host = HostConfig {
        mounts: Some(mounts.collect()),
        network_mode: match &spec.network {
            Network::Default => None,
            Network::None => Some("none".to_owned()),
            Network::Named(name) => Some(name.clone()),
            Network::Of(container) => Some(format!("container:{container}")),
        },
        port_bindings: Some(ports),
        extra_hosts: Some(spec.hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
        memory: spec.memory,
        nano_cpus: spec.nano_cpus,
        cap_drop: list(&spec.cap_drop),
        group_add: list(&spec.groups),
        privileged: spec.privileged.then_some(true),
        security_opt: spec.no_new_privileges.then(|| vec!["no-new-privileges".to_owned()]),
        // What is printed is read as it comes; the engine need not keep much of it.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(HashMap::from([("max-size".to_owned(), "10m".to_owned())])),
        }),
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: spec.hostname.clone(),
        user: spec.user.clone(),
        entrypoint: spec.entrypoint.clone(),
        cmd: spec.command.clone(),
        env: list(&spec.env),
        working_dir: spec.working_dir.clone(),
        networking_config: aliases(spec),
        labels: Some(spec.labels.clone().into_iter().collect()),
        exposed_ports: Some(spec.publish.iter().map(Publish::container).collect()),
        tty: Some(spec.terminal),
        open_stdin: Some(spec.stdin),
        stdin_once: Some(spec.stdin),
        attach_stdin: Some(spec.stdin),
        // As the kubelet does it: an image's own check would run beside the steps.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..Default::default() }),
        host_config: Some(host),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn ports_of_both_protocols_are_published_where_they_are_asked_for() {
        let udp = Publish { ip: "0.0.0.0".parse().unwrap(), host: 53, port: 5353, protocol: Protocol::Udp };
        let publish = vec![Publish::on_loopback(8080, 80), Publish::on_loopback(8081, 80), udp];
        let body = body(&ContainerSpec { publish, terminal: true, ..ContainerSpec::default() });
        let ports = body.host_config.unwrap().port_bindings.unwrap();
        let at = |port: &str| -> Vec<String> {
            let bound = ports[port].iter().flatten();
            bound.map(|b| format!("{}:{}", b.host_ip.as_ref().unwrap(), b.host_port.as_ref().unwrap())).collect()
        };
        assert_eq!(at("80/tcp"), ["127.0.0.1:8080", "127.0.0.1:8081"]);
        assert_eq!(at("5353/udp"), ["0.0.0.0:53"]);
        let mut exposed = body.exposed_ports.unwrap();
        exposed.sort();
        exposed.dedup();
        assert_eq!(exposed, ["5353/udp", "80/tcp"]);
        assert_eq!((body.tty, body.open_stdin), (Some(true), Some(false)));
    }

    #[rstest]
    #[case("80", Some(("127.0.0.1", 80, 80, Protocol::Tcp)))]
    #[case("8080:80", Some(("127.0.0.1", 8080, 80, Protocol::Tcp)))]
    #[case("0.0.0.0:53:5353/udp", Some(("0.0.0.0", 53, 5353, Protocol::Udp)))]
    #[case("[::1]:8080:80", Some(("::1", 8080, 80, Protocol::Tcp)))]
    #[case("", None)]
    #[case("0:80", None)]
    #[case("8080:x", None)]
    #[case("host:8080:80", None)]
    #[case("80/sctp", None)]
    fn ports(#[case] text: &str, #[case] expected: Option<(&str, u16, u16, Protocol)>) {
        let expected =
            expected.map(|(ip, host, port, protocol)| Publish { ip: ip.parse().unwrap(), host, port, protocol });
        assert_eq!(text.parse().ok(), expected);
    }
}
