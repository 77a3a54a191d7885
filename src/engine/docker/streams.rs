//! Both ends of a process in a container: of the container's own, and of one that is started beside it.
//!
//! `client` calls it for people: `open`, and `shell` in a local run. The agent uses none of this.
//!
//! **Invariant:** that a process has ended is no error; its size and its code are then of no use or known.

use super::DockerEngine;
use crate::engine::EngineError;
use bollard::{
    container::LogOutput,
    errors::Error as DockerError,
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
    query_parameters::{AttachContainerOptionsBuilder, ResizeContainerTTYOptionsBuilder, ResizeExecOptionsBuilder},
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream::BoxStream};
use std::{io, pin::Pin};
use tokio::io::AsyncWrite;

/// Both ends of a process.
pub struct Streams {
    /// What it prints; `true` for its stderr, which a terminal does not tell apart.
    pub output: BoxStream<'static, io::Result<(bool, Bytes)>>,
    /// What it reads.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl Streams {
    fn of(
        output: impl Stream<Item = Result<LogOutput, DockerError>> + Send + 'static,
        input: Pin<Box<dyn AsyncWrite + Send>>,
    ) -> Self {
        let output = output.map(|piece| match piece {
            Ok(LogOutput::StdErr { message }) => Ok((true, message)),
            Ok(LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message }) => {
                Ok((false, message))
            }
            Err(error) => Err(io::Error::other(error)),
        });
        Self { output: output.boxed(), input }
    }
}

/// A process, to be named to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Process {
    /// The container's own.
    Container(String),
    /// One that was started beside it.
    Exec(String),
}

impl DockerEngine {
    /// Attaches to a container that was made with a stdin, before it is started.
    ///
    /// # Errors
    /// The engine refuses it, or cannot be reached.
    pub async fn attach_both(&self, id: &str) -> Result<Streams, EngineError> {
        let options =
            AttachContainerOptionsBuilder::default().stream(true).stdin(true).stdout(true).stderr(true).build();
        let attached = self.long_calls.attach_container(id, Some(options)).await;
        let attached = attached.map_err(|error| self.error("attach to the container", error))?;
        Ok(Streams::of(attached.output, attached.input))
    }

    /// Starts a command in a running container, with or without a terminal and a stdin.
    ///
    /// # Errors
    /// The engine cannot.
    pub async fn exec(
        &self,
        container: &str,
        command: Vec<String>,
        (terminal, stdin): (bool, bool),
    ) -> Result<(Process, Streams), EngineError> {
        let call = "run a command in the container";
        let config = ExecConfig {
            cmd: Some(command),
            tty: Some(terminal),
            attach_stdin: Some(stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let id = self.calls.create_exec(container, config).await.map_err(|error| self.error(call, error))?.id;
        let options = StartExecOptions { tty: terminal, ..StartExecOptions::default() };
        match self.long_calls.start_exec(&id, Some(options)).await.map_err(|error| self.error(call, error))? {
            StartExecResults::Attached { output, input } => Ok((Process::Exec(id), Streams::of(output, input))),
            StartExecResults::Detached => {
                Err(EngineError::Unexpected { call, message: "the engine gives no streams".into() })
            }
        }
    }

    /// Tells a process the size of its terminal; one that has ended does not mind.
    pub async fn resize(&self, process: &Process, (rows, columns): (u16, u16)) {
        let (height, width) = (rows.into(), columns.into());
        let _ = match process {
            Process::Container(id) => {
                let options = ResizeContainerTTYOptionsBuilder::default().h(height).w(width).build();
                self.calls.resize_container_tty(id, options).await
            }
            Process::Exec(id) => {
                let options = ResizeExecOptionsBuilder::default().h(height).w(width).build();
                self.calls.resize_exec(id, options).await
            }
        };
    }

    /// The exit code of a process whose output has ended: of a container's own, once it has; -1 if nobody knows it.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn exit_code(&self, process: &Process) -> Result<i64, EngineError> {
        match process {
            Process::Container(id) => Ok(self.ended(id).await?.map_or(-1, |end| end.code.into())),
            Process::Exec(id) => {
                let found = self.calls.inspect_exec(id).await;
                let found = found.map_err(|error| self.error("ask how the command ended", error))?;
                Ok(found.exit_code.unwrap_or(-1))
            }
        }
    }
}
