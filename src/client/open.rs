//! `open`: starts a stored container on this machine, with a shell, a command, or what it has of its own.
//!
//! **Invariant:** the container is removed when it is left, however that is. The terminal is restored before anything is
//! printed. Ports are published on loopback unless another address is named.

use super::{
    Session,
    args::OpenArgs,
    docker::{self, Manner, Parted},
    exit::Exit,
    fault::{Fault, Stop},
    pull,
    signals::Ends,
    tty,
};
use crate::engine::docker::{DockerEngine, containers::ContainerSpec, streams::Process};

/// A shell where the steps ran, the better one if the image has it.
const SHELL: &str = "cd /pipeline/source 2>/dev/null || cd /; \
     if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi";

/// `open`.
///
/// # Errors
/// There is no such container, or Docker does not start it.
pub(super) async fn open(session: &mut Session, args: &OpenArgs) -> Result<Exit, Stop> {
    let cluster = session.cluster().await?;
    let docker = docker::connect()?;
    let command = command(args)?;
    let terminal = tty::is_there();
    if !terminal && args.cmd.is_none() && !args.own_cmd {
        let fault = Fault::usage("a shell needs a terminal on stdin and stdout");
        return Err(fault.hint(format!("for one command: {} open RUN --cmd COMMAND", session.program)).into());
    }
    let stored = pull::find(session, &cluster, &args.run, args.artifact.as_deref()).await?;
    pull::into_docker(session, &cluster, &stored, &docker).await?;
    let mut words = command.into_iter().flatten();
    let spec = ContainerSpec {
        image: stored.image.clone(),
        entrypoint: words.next().map(|program| vec![program]),
        command: Some(words.collect()).filter(|words: &Vec<String>| !words.is_empty()),
        publish: args.publish.clone(),
        stdin: true,
        terminal,
        ..ContainerSpec::default()
    };
    // From here on no signal ends us before the container is removed.
    let mut ends = Ends::catch()?;
    let id = docker.create(&spec).await.map_err(docker::engine)?;
    let ended = run(&docker, &id, terminal, &mut ends).await;
    docker.remove_container(&id).await.map_err(docker::engine)?;
    ended
}

/// What is started; `None`: what the image has of its own.
fn command(args: &OpenArgs) -> Result<Option<Vec<String>>, Fault> {
    match &args.cmd {
        _ if args.own_cmd => Ok(None),
        None => Ok(Some(["/bin/sh", "-c", SHELL].map(str::to_owned).to_vec())),
        Some(text) => match shlex::split(text) {
            Some(words) if !words.is_empty() => Ok(Some(words)),
            _ => Err(Fault::usage(format!("--cmd {text:?} is not a command: it is empty, or a quote is not closed"))),
        },
    }
}

/// Starts it, and waits until it has ended.
async fn run(docker: &DockerEngine, id: &str, terminal: bool, ends: &mut Ends) -> Result<Exit, Stop> {
    let start = async {
        let streams = docker.attach_both(id).await?;
        docker.start(id).await.map(|()| streams)
    };
    let streams = tokio::select! {
        streams = start => streams.map_err(docker::engine)?,
        exit = ends.next() => return Ok(exit),
    };
    let process = Process::Container(id.to_owned());
    let manner = Manner { terminal, detaches: false };
    match docker::pass(docker, &process, streams, manner, ends).await? {
        Parted::Ended(0) | Parted::Detached => Ok(Exit::Success),
        Parted::Ended(code) => Ok(Exit::Step(u8::try_from(code).unwrap_or(u8::MAX))),
        Parted::Signal(exit) => Ok(exit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_started() {
        let args =
            |cmd: Option<&str>, own_cmd| OpenArgs { cmd: cmd.map(str::to_owned), own_cmd, ..OpenArgs::default() };
        assert_eq!(command(&args(Some("cat '/a b'"), false)).unwrap().unwrap(), ["cat", "/a b"]);
        assert_eq!(command(&args(None, false)).unwrap().unwrap()[..2], ["/bin/sh", "-c"]);
        assert_eq!(command(&args(None, true)).unwrap(), None);
        for bad in ["", "echo 'x"] {
            assert!(command(&args(Some(bad), false)).is_err(), "{bad}");
        }
    }
}
