//! `open`: starts a stored container on this machine, with a shell, a command, or what it has of its own.
//!
//! **Invariant:** the container is removed when it is left, however that is. The terminal is restored before anything is
//! printed. Ports are published on loopback unless another address is named.

use super::{
    Session,
    args::OpenArgs,
    exit::Exit,
    fault::{Fault, Stop},
    pull::{self, engine},
    signals::handler,
    tty::{self, Raw},
};
use crate::engine::local::{Attached, LocalDocker, Publish, Start};
use futures::StreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    signal::unix::SignalKind,
};

/// A shell where the steps ran, the better one if the image has it.
const SHELL: &str = "cd /pipeline/source 2>/dev/null || cd /; \
     if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi";

/// `open`.
///
/// # Errors
/// There is no such container, or Docker does not start it.
pub(super) async fn open(session: &mut Session, args: &OpenArgs) -> Result<Exit, Stop> {
    let cluster = session.cluster().await?;
    let docker = LocalDocker::connect().map_err(engine)?;
    let command = command(args)?;
    let terminal = tty::is_there();
    if !terminal && args.cmd.is_none() && !args.own_cmd {
        let fault = Fault::usage("a shell needs a terminal on stdin and stdout");
        return Err(fault.hint(format!("for one command: {} open RUN --cmd COMMAND", session.program)).into());
    }
    let stored = pull::find(session, &cluster, &args.run, args.artifact.as_deref()).await?;
    pull::into_docker(session, &cluster, &stored, &docker).await?;
    let start = Start { image: stored.image.clone(), command, publish: args.publish.clone(), terminal };
    let id = docker.create(&start).await.map_err(engine)?;
    let ended = run(&docker, &id, terminal).await;
    docker.remove(&id).await.map_err(engine)?;
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

/// Passes what is typed and printed, until the container ends.
async fn run(docker: &LocalDocker, id: &str, terminal: bool) -> Result<Exit, Stop> {
    let Attached { mut output, mut input } = docker.start(id).await.map_err(engine)?;
    let mut resized = handler(SignalKind::window_change())?;
    let (mut interrupt, mut terminate) = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    let raw = if terminal { Some(Raw::enter()?) } else { None };
    let (mut stdin, mut stdout, mut stderr) = (tokio::io::stdin(), tokio::io::stdout(), tokio::io::stderr());
    let (mut typed, mut listens, mut send_size) = (vec![0; 4096], terminal || !tty::is_stdin(), terminal);
    let signal = loop {
        if std::mem::take(&mut send_size)
            && let Some(size) = tty::size()
        {
            docker.resize(id, size).await;
        }
        tokio::select! {
            piece = output.next() => match piece {
                Some(Ok((true, bytes))) => stderr.write_all(&bytes).await?,
                Some(Ok((false, bytes))) => {
                    stdout.write_all(&bytes).await?;
                    stdout.flush().await?;
                }
                // How it ended is asked below.
                Some(Err(_)) | None => break None,
            },
            count = stdin.read(&mut typed), if listens => {
                let count = count?;
                listens = count > 0;
                // A container that has ended, or closed its stdin, takes nothing.
                let _ = if listens {
                    input.write_all(typed.get(..count).unwrap_or_default()).await
                } else {
                    input.shutdown().await
                };
            }
            _ = resized.recv() => send_size = terminal,
            _ = interrupt.recv() => break Some(Exit::Interrupted),
            _ = terminate.recv() => break Some(Exit::Terminated),
        }
    };
    drop(raw);
    if let Some(exit) = signal {
        return Ok(exit);
    }
    match docker.wait(id).await.map_err(engine)? {
        0 => Ok(Exit::Success),
        code => Ok(Exit::Step(u8::try_from(code).unwrap_or(u8::MAX))),
    }
}

/// A value of `--publish`: `PORT`, `HOST:PORT` or `IP:HOST:PORT`, with `/udp` behind it if it is no TCP.
pub(super) fn publish(text: &str) -> Result<Publish, String> {
    let wrong = || format!("{text:?} is not a port such as 80, 8080:80 or 0.0.0.0:8080:80");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let (rest, container) = ports.rsplit_once(':').unwrap_or((ports, ports));
    let (ip, host) = rest.rsplit_once(':').unwrap_or(("127.0.0.1", rest));
    let ip: std::net::IpAddr = ip.trim_matches(['[', ']']).parse().map_err(|_| wrong())?;
    if !matches!(protocol, "tcp" | "udp") {
        return Err(wrong());
    }
    Ok(Publish { ip: ip.to_string(), host: port(host)?, container: format!("{}/{protocol}", port(container)?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("80", Some(("127.0.0.1", 80, "80/tcp")))]
    #[case("8080:80", Some(("127.0.0.1", 8080, "80/tcp")))]
    #[case("0.0.0.0:53:5353/udp", Some(("0.0.0.0", 53, "5353/udp")))]
    #[case("[::1]:8080:80", Some(("::1", 8080, "80/tcp")))]
    #[case("", None)]
    #[case("0:80", None)]
    #[case("8080:x", None)]
    #[case("host:8080:80", None)]
    #[case("80/sctp", None)]
    fn ports(#[case] text: &str, #[case] expected: Option<(&str, u16, &str)>) {
        let expected =
            expected.map(|(ip, host, container)| Publish { ip: ip.into(), host, container: container.into() });
        assert_eq!(publish(text).ok(), expected);
    }

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
