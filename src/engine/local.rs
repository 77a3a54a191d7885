//! The Docker of the person's own machine: takes an archive, and runs a container of it.
//!
//! `windlass pull --load` and `windlass open` call it. What the agent does with an engine is in [`super::docker`].
//!
//! **Invariant:** of what is there only the container that it made is touched, and that is removed in the end.

use super::EngineError;
use bollard::{
    Docker,
    container::LogOutput,
    errors::Error as DockerError,
    models::{ContainerCreateBody, HostConfig, PortBinding},
    query_parameters::{
        AttachContainerOptionsBuilder, ImportImageOptionsBuilder, RemoveContainerOptionsBuilder,
        ResizeContainerTTYOptionsBuilder,
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream::BoxStream};
use std::{collections::HashMap, io, pin::Pin, time::Duration};
use tokio::io::AsyncWrite;

/// Longest wait for the first word of an answer; a large image takes its time to be loaded.
const LONG: Duration = Duration::from_secs(3600);
/// Where Docker is if nothing says so.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// The engine that `DOCKER_HOST` names, else the one of this machine.
pub struct LocalDocker {
    docker: Docker,
    address: String,
}

/// What to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The image.
    pub image: String,
    /// The program and its arguments; none: the image's own.
    pub command: Option<Vec<String>>,
    /// Ports to publish.
    pub publish: Vec<Publish>,
    /// With a terminal.
    pub terminal: bool,
}

/// A port that is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Address of this machine.
    pub ip: String,
    /// Port of this machine.
    pub host: u16,
    /// Port of the container, as `80/tcp`.
    pub container: String,
}

/// Both ends of a container's own streams.
pub struct Attached {
    /// What it prints; `true` for its stderr.
    pub output: BoxStream<'static, io::Result<(bool, Bytes)>>,
    /// What it reads.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl LocalDocker {
    /// Prepares a client; nothing is sent yet.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn connect() -> Result<Self, EngineError> {
        let address = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let address = address.unwrap_or_else(|| DEFAULT_HOST.to_owned());
        match Docker::connect_with_host(&address) {
            Ok(docker) => Ok(Self { docker: docker.with_timeout(LONG), address }),
            Err(error) => Err(EngineError::Unreachable { address, problem: error.to_string() }),
        }
    }

    fn error(&self, call: &'static str, error: DockerError) -> EngineError {
        match error {
            DockerError::DockerResponseServerError { status_code: 404, message } => {
                EngineError::NotFound { call, message }
            }
            DockerError::DockerResponseServerError { status_code, message } => {
                EngineError::Refused { call, status: status_code, message }
            }
            DockerError::DockerStreamError { error } => EngineError::Refused { call, status: 0, message: error },
            other => {
                EngineError::Unreachable { address: self.address.clone(), problem: super::docker::with_causes(&other) }
            }
        }
    }

    /// ID of an image; `None` if it is not there.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn image_id(&self, name: &str) -> Result<Option<String>, EngineError> {
        match self.docker.inspect_image(name).await.map_err(|error| self.error("inspect the image", error)) {
            Ok(found) => Ok(found.id),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Loads an archive of an image.
    ///
    /// # Errors
    /// The engine refuses it, or cannot be reached.
    pub async fn load<S>(&self, archive: S) -> Result<(), EngineError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let mut said = std::pin::pin!(self.docker.import_image_stream(options, archive, None));
        while let Some(line) = said.next().await {
            let line = line.map_err(|error| self.error("load the image", error))?;
            if let Some(message) = line.error_detail.and_then(|detail| detail.message) {
                return Err(EngineError::Refused { call: "load the image", status: 0, message });
            }
        }
        Ok(())
    }

    /// Makes a container. Gives its ID.
    ///
    /// # Errors
    /// The engine refuses it, or cannot be reached.
    pub async fn create(&self, start: &Start) -> Result<String, EngineError> {
        let mut bindings = HashMap::new();
        for publish in &start.publish {
            let binding = PortBinding { host_ip: Some(publish.ip.clone()), host_port: Some(publish.host.to_string()) };
            bindings
                .entry(publish.container.clone())
                .or_insert_with(|| Some(Vec::new()))
                .get_or_insert_default()
                .push(binding);
        }
        let mut words = start.command.clone().into_iter().flatten();
        let program = words.next();
        let body = ContainerCreateBody {
            image: Some(start.image.clone()),
            entrypoint: program.map(|program| vec![program]),
            cmd: start.command.is_some().then(|| words.collect()),
            tty: Some(start.terminal),
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            exposed_ports: Some(bindings.keys().cloned().collect()),
            host_config: Some(HostConfig { port_bindings: Some(bindings), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        let made = self.docker.create_container(None, body).await;
        Ok(made.map_err(|error| self.error("make a container", error))?.id)
    }

    /// Attaches to a container that was made, and starts it.
    ///
    /// # Errors
    /// The engine refuses it, or cannot be reached.
    pub async fn start(&self, id: &str) -> Result<Attached, EngineError> {
        let options =
            AttachContainerOptionsBuilder::default().stream(true).stdin(true).stdout(true).stderr(true).build();
        let attached = self.docker.attach_container(id, Some(options)).await;
        let attached = attached.map_err(|error| self.error("attach to the container", error))?;
        self.docker.start_container(id, None).await.map_err(|error| self.error("start the container", error))?;
        let output = attached.output.map(|piece| match piece {
            Ok(LogOutput::StdErr { message }) => Ok((true, message)),
            Ok(LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message }) => {
                Ok((false, message))
            }
            Err(error) => Err(io::Error::other(error)),
        });
        Ok(Attached { output: output.boxed(), input: attached.input })
    }

    /// Tells a container the size of its terminal; one that has ended does not mind.
    pub async fn resize(&self, id: &str, (rows, columns): (u16, u16)) {
        let options = ResizeContainerTTYOptionsBuilder::default().h(rows.into()).w(columns.into()).build();
        let _ = self.docker.resize_container_tty(id, options).await;
    }

    /// Waits until a container has ended. Gives its exit code.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn wait(&self, id: &str) -> Result<i64, EngineError> {
        let mut ended = std::pin::pin!(self.docker.wait_container(id, None));
        match ended.next().await {
            Some(Ok(ended)) => Ok(ended.status_code),
            Some(Err(DockerError::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(self.error("wait for the container", error)),
            None => Err(EngineError::Unexpected { call: "wait for the container", message: "no answer".into() }),
        }
    }

    /// Ends and removes a container.
    ///
    /// # Errors
    /// The engine refuses it, or cannot be reached.
    pub async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) => match self.error("remove the container", error) {
                EngineError::NotFound { .. } => Ok(()),
                error => Err(error),
            },
        }
    }
}
