//! Processes in the box of a run on the Docker of this machine: what `in_box` is for one in a cluster.
//!
//! `shell`, `continue`, `finish` and `retry --step` ask here first; other verbs say that such a run is none of theirs.
//!
//! **Invariant:** only a container that carries the label of local runs is touched; what is exec'd is the runner.

use super::{
    Session,
    args::{AskArgs, ShellArgs},
    docker,
    docker::{Manner, Parted},
    exit::Exit,
    fault::{Fault, Stop, one_line, reason},
    signals::Ends,
    tty,
};
use crate::{engine::docker::DockerEngine, local, wire};
use futures::StreamExt as _;
use std::time::Duration;

/// How long an engine may take to say whether it has the run: it may be none of this run's business.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a verb may take.
const VERB_PATIENCE: Duration = Duration::from_secs(30);
/// Most that a verb may say.
const SAID_BYTES: usize = 64 * 1024;
/// The runner's own code for what it does not do now.
const REFUSED: i64 = 1;
/// And for a terminal that ended, but not by its shell.
const NOT_LEFT: i64 = 3;

/// The box of a run of this machine.
pub(super) struct BoxHere {
    engine: DockerEngine,
    id: String,
    run: String,
}

/// The box of the run of this name, if it is on this machine. Flags that lead to a cluster rule that out.
pub(super) async fn find(session: &Session, run: &str) -> Option<BoxHere> {
    let place = &session.global.place;
    let in_cluster = place.namespace.is_some() || place.context.is_some() || place.kubeconfig.is_some();
    if in_cluster || run.starts_with('@') || run.contains('#') {
        return None;
    }
    let engine = docker::connect().ok()?;
    let name = local::box_name(run);
    let found = tokio::time::timeout(PATIENCE, engine.owned_container(&name)).await.ok()?.ok()??;
    Some(BoxHere { id: found.id, run: run.to_owned(), engine })
}

/// Refuses a verb that is for runs in a cluster; `service`: whose output is asked for.
///
/// # Errors
/// `Usage` for a run of this machine.
pub(super) async fn refuse(
    session: &Session,
    runs: impl Iterator<Item = &String>,
    service: Option<&str>,
) -> Result<(), Stop> {
    for run in runs {
        if find(session, run).await.is_some() {
            let message =
                format!("{run} runs on Docker here: the command that started it shows it, and Ctrl-C there cancels it");
            let hint = match service {
                Some(service) => format!("docker logs {}", local::service_name(run, service)),
                None => format!("{} shell {run}   for a look inside", session.program),
            };
            return Err(Fault::usage(message).hint(hint).into());
        }
    }
    Ok(())
}

impl BoxHere {
    /// `shell`.
    ///
    /// # Errors
    /// When the box is gone, or the engine does not do it.
    pub(super) async fn shell(&self, session: &mut Session, args: &ShellArgs) -> Result<Exit, Stop> {
        let run = &self.run;
        let terminal = tty::is_there();
        if args.command.is_empty() && !terminal {
            let fault = Fault::usage("a shell needs a terminal on stdin and stdout");
            return Err(fault.hint(format!("for one command: {} shell {run} -- COMMAND", session.program)).into());
        }
        let mut words = vec!["shell"];
        if args.command.is_empty() {
            session.screen.message(&format!("attaching to {run}; Ctrl-P Ctrl-Q detaches"))?;
        } else {
            words.push("--");
            words.extend(args.command.iter().map(String::as_str));
        }
        let mut ends = Ends::catch()?;
        let parted = self.process(&words, terminal, &mut ends).await?;
        let code = match parted {
            Parted::Signal(exit) => return Ok(exit),
            Parted::Detached => {
                let later = format!("{} shell {run}", session.program);
                session.screen.message(&format!("detached; {run} goes on as it was: {later}"))?;
                return Ok(Exit::Success);
            }
            Parted::Ended(code) => code,
        };
        match code {
            0 if args.command.is_empty() => {
                session.screen.message(&format!("left; what {run} does now is shown where it was started"))?;
                Ok(Exit::Success)
            }
            0 => Ok(Exit::Success),
            NOT_LEFT if args.command.is_empty() => {
                session.screen.message(&format!("the terminal was closed: {run} went on without it"))?;
                Ok(Exit::Success)
            }
            // The runner has said why.
            REFUSED if args.command.is_empty() => {
                Err(Fault::new(reason::NOT_WAITING, Exit::Usage, format!("{run} gave no terminal")).into())
            }
            code => Ok(Exit::Step(u8::try_from(code).unwrap_or(u8::MAX))),
        }
    }

    /// `continue`, `finish`, `retry --step`.
    ///
    /// # Errors
    /// When the run does not wait for it, or the engine does not do it.
    pub(super) async fn ask(&self, session: &mut Session, verb: &str, args: &AskArgs) -> Result<Exit, Stop> {
        let words: Vec<&str> = std::iter::once(verb).chain(args.step.as_deref()).collect();
        let (code, said) = self.say(&words).await?;
        if code == 0 {
            session.screen.message(&format!("{}: {}", self.run, one_line(&said)))?;
            return Ok(Exit::Success);
        }
        Err(Fault::new(reason::NOT_WAITING, Exit::Usage, format!("{}: {said}", self.run)).into())
    }

    /// The box of a run that this very process carries out.
    ///
    /// # Errors
    /// When the engine's address cannot be used.
    pub(super) fn of(run: &str) -> Result<Self, Stop> {
        Ok(Self { engine: docker::connect()?, id: local::box_name(run), run: run.to_owned() })
    }

    /// A verb of the runner on our terminal.
    ///
    /// # Errors
    /// When the box is gone, or the engine does not do it.
    pub(super) async fn terminal(&self, words: &[&str], ends: &mut Ends) -> Result<Parted, Stop> {
        self.process(words, true, ends).await
    }

    async fn process(&self, words: &[&str], terminal: bool, ends: &mut Ends) -> Result<Parted, Stop> {
        let stdin = terminal || !tty::is_stdin();
        let exec = self.engine.exec(&self.id, runner(words), (terminal, stdin));
        let (process, streams) = exec.await.map_err(docker::engine)?;
        let manner = Manner { terminal, detaches: terminal };
        docker::pass(&self.engine, &process, streams, manner, ends).await
    }

    /// Asks the runner something: its exit code, and what it said. What it says on stdout it has done, as
    /// [`super::in_box::InBox::say`] has it.
    ///
    /// # Errors
    /// When the box is gone, or the engine does not do it in time.
    pub(super) async fn say(&self, words: &[&str]) -> Result<(i64, String), Stop> {
        let answer = async {
            let (process, mut streams) = self.engine.exec(&self.id, runner(words), (false, false)).await?;
            let (mut said, mut done) = (Vec::new(), false);
            while let Some(Ok((is_stderr, bytes))) = streams.output.next().await {
                done |= !is_stderr;
                said.extend_from_slice(bytes.get(..bytes.len().min(SAID_BYTES - said.len())).unwrap_or_default());
            }
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            let code = if done { 0 } else { self.engine.exit_code(&process).await? };
            Ok((code, said))
        };
        let lost = |_| Fault::new(reason::CONNECTION_LOST, Exit::World, format!("{} does not answer", self.run));
        tokio::time::timeout(VERB_PATIENCE, answer).await.map_err(lost)?.map_err(docker::engine)
    }
}

fn runner(words: &[&str]) -> Vec<String> {
    let runner = format!("{}/{}", wire::IN_DIR, wire::RUNNER_FILE);
    std::iter::once(runner).chain(words.iter().map(|word| (*word).to_owned())).collect()
}
