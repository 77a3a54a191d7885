//! `shell`: a terminal in the box of a run, or one command.
//!
//! **Invariant:** ending the connection changes nothing in the run; only the end of a `shell` step's own
//! shell lets it go on. The terminal is restored before anything is printed.

use super::{
    Session,
    args::ShellArgs,
    box_here,
    connect::Cluster,
    exit::Exit,
    fault::{Fault, Stop, one_line, reason},
    hint,
    in_box::{self, Ended, InBox},
    signals::{Ends, handler},
    terminal::{self, Returned},
    tty,
    view::RunView,
};
use crate::api::{
    condition,
    status::{StepPhase, StepStatus},
};
use futures::SinkExt as _;
use kube::api::{AttachParams, TerminalSize};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    signal::unix::SignalKind,
};

/// How long the exit code may take after the last output.
const STATUS_WAIT: Duration = Duration::from_secs(5);
/// The runner's own code for a terminal that it did not give.
const REFUSED: i32 = 1;
/// And for one that ended, but not by its shell.
const NOT_LEFT: i32 = 3;

/// How a connection ended, as far as we know.
enum Parted {
    /// The process ended so.
    Ended(Ended),
    /// By Ctrl-P Ctrl-Q.
    Detached,
    /// By a signal to us.
    Signal(Exit),
}

/// `shell`.
///
/// # Errors
/// When there is no box, the caller may not, or the connection is lost.
pub(super) async fn shell(session: &mut Session, args: &ShellArgs) -> Result<Exit, Stop> {
    if let Some(run) = &args.run
        && let Some(here) = box_here::find(session, run).await
    {
        return here.shell(session, args).await;
    }
    let cluster = session.cluster().await?;
    if args.command.is_empty() && !tty::is_there() {
        let fault = Fault::usage("a shell needs a terminal on stdin and stdout");
        return Err(fault.hint(format!("for one command: {} shell RUN -- COMMAND", session.program)).into());
    }
    let there = InBox::find(&cluster, args.run.as_deref()).await?;
    let name = there.view.name.clone();
    session.name_run(args.run.as_deref(), &name, &there.view.namespace)?;
    if !args.command.is_empty() {
        return command(&there, &args.command).await;
    }
    session.kubectl(&there.kubectl(true, &["shell"]))?;
    let at = there.view.status.steps.iter().rev().find(|step| step.phase != StepPhase::Pending);
    let step = at.map(|step| step.name.clone()).unwrap_or_default();
    // Else it waits at a breakpoint, or runs something else.
    let is_shell = there.view.steps.iter().any(|s| s.name == step && s.kind == "shell")
        && at.and_then(|step| step.message.as_deref()).is_some_and(|message| message.starts_with("attach"));
    session.screen.message(&format!("attaching to {name}; Ctrl-P Ctrl-Q detaches"))?;
    let parted = on_terminal(&there, &["shell"]).await?;
    let later = format!("{} shell {name}", session.program);
    match parted {
        Parted::Ended(Ended::Code(0)) => left(session, &cluster, &name, &step, is_shell).await,
        Parted::Ended(Ended::Code(NOT_LEFT)) => {
            session.screen.message(&format!("the terminal was closed: {name} went on without it"))?;
            Ok(Exit::Success)
        }
        // The runner has said why, in the terminal.
        Parted::Ended(Ended::Code(REFUSED)) => {
            let fault = Fault::new(reason::NOT_WAITING, Exit::Usage, format!("{name} gave no terminal"));
            Err(fault.hint(format!("{} status {name}", session.program)).into())
        }
        Parted::Ended(Ended::Code(code)) => Ok(u8::try_from(code).map_or(Exit::Failed, Exit::Step)),
        Parted::Ended(Ended::Refused(why)) => Err(there.not_started(&why).into()),
        Parted::Ended(Ended::Lost) => {
            let fault = Fault::new(reason::CONNECTION_LOST, Exit::World, format!("{name} is still at step {step}"));
            Err(fault.hint(later).into())
        }
        Parted::Detached => {
            session.screen.message(&format!("detached; {name} is still at step {step}: {later}"))?;
            Ok(Exit::Success)
        }
        Parted::Signal(exit) => Ok(exit),
    }
}

/// Says what becomes of the run whose shell was left.
async fn left(session: &mut Session, cluster: &Cluster, name: &str, step: &str, is_shell: bool) -> Result<Exit, Stop> {
    let run = RunView::read(&cluster.find_run(Some(name)).await?);
    session.screen.message(&after(&run, step, is_shell, &cluster.program))?;
    Ok(Exit::Success)
}

/// What a run does whose shell was left at `step`, which was the shell's own if `is_shell`.
fn after(run: &RunView, step: &str, is_shell: bool, program: &str) -> String {
    let name = &run.name;
    let waits = |s: &StepStatus| {
        s.phase == StepPhase::Waiting && s.reason.as_deref() == Some(condition::reason::ATTACH) && s.name == step
    };
    let at_step = run.status.steps.iter().find(|s| waits(s)).and_then(|s| s.message.as_deref());
    // A failed push has failed for the agent, and the run waits all the same: its condition says so.
    let (why, message) = run.why();
    let still = at_step.or((why == condition::reason::WAITING_FOR_USER).then_some(message));
    match (run.outcome(), still) {
        (Some(outcome), _) => format!("left; {name} has ended: {}", outcome.word()),
        (None, Some(message)) if !is_shell => {
            format!("left; {name} still waits at step {step}: {}", hint::paste(&one_line(message), program))
        }
        (None, _) => {
            let what = if is_shell { format!("left step {step}") } else { "left".to_owned() };
            format!("{what}; {name} goes on; follow: {program} logs -f {name}")
        }
    }
}

/// One command with its own exit code.
async fn command(there: &InBox<'_>, command: &[String]) -> Result<Exit, Stop> {
    let words: Vec<&str> = ["shell", "--"].into_iter().chain(command.iter().map(String::as_str)).collect();
    let parted = if tty::is_there() { on_terminal(there, &words).await? } else { piped(there, &words).await? };
    match parted {
        Parted::Ended(Ended::Code(0)) | Parted::Detached => Ok(Exit::Success),
        Parted::Ended(Ended::Code(code)) => Ok(Exit::Step(u8::try_from(code).unwrap_or(u8::MAX))),
        Parted::Ended(Ended::Refused(why)) => Err(there.not_started(&why).into()),
        Parted::Ended(Ended::Lost) => {
            let lost = "how the command ended is not known".to_owned();
            Err(Fault::new(reason::CONNECTION_LOST, Exit::World, lost).into())
        }
        Parted::Signal(exit) => Ok(exit),
    }
}

/// A process with our pipes.
async fn piped(there: &InBox<'_>, words: &[&str]) -> Result<Parted, Stop> {
    // What a person types is not for a command whose output goes elsewhere.
    let with_stdin = !tty::is_stdin();
    let mut process = there.start(words, AttachParams::default().stdin(with_stdin)).await?;
    let status = process.take_status();
    let (out, err) = (process.stdout(), process.stderr());
    if let Some(mut to) = process.stdin() {
        tokio::spawn(async move {
            // The process may have ended, or closed its stdin.
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut to).await;
            let _ = to.shutdown().await;
        });
    }
    let pass = async |from: Option<_>, mut to: Box<dyn AsyncWrite + Unpin>| match from {
        Some(mut from) => copy(&mut from, &mut to).await,
        None => Ok(()),
    };
    let both =
        async { tokio::try_join!(pass(out, Box::new(tokio::io::stdout())), pass(err, Box::new(tokio::io::stderr()))) };
    let (mut interrupt, mut terminate) = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    tokio::select! {
        passed = both => { passed?; }
        _ = interrupt.recv() => return Ok(Parted::Signal(Exit::Interrupted)),
        _ = terminate.recv() => return Ok(Parted::Signal(Exit::Terminated)),
    }
    Ok(Parted::Ended(tokio::time::timeout(STATUS_WAIT, in_box::ended(status)).await.unwrap_or(Ended::Lost)))
}

/// A process on our terminal.
async fn on_terminal(there: &InBox<'_>, words: &[&str]) -> Result<Parted, Stop> {
    let mut process = there.start(words, AttachParams::interactive_tty()).await?;
    let status = process.take_status();
    let (Some(typed), Some(printed), Some(mut sizes)) = (process.stdin(), process.stdout(), process.terminal_size())
    else {
        return Ok(Parted::Ended(Ended::Lost));
    };
    let resize = async |height, width| {
        // A connection that is gone ends what is printed.
        let _ = sizes.send(TerminalSize { width, height }).await;
    };
    Ok(match terminal::hand_over(typed, printed, resize, true, &mut Ends::catch()?).await? {
        Returned::Ended => {
            let ended = tokio::time::timeout(STATUS_WAIT, in_box::ended(status)).await;
            Parted::Ended(ended.unwrap_or(Ended::Lost))
        }
        Returned::Detached => Parted::Detached,
        Returned::Signal(exit) => Parted::Signal(exit),
    })
}

/// Copies to the end, each piece at once.
async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        // A connection that breaks is told by the missing exit code.
        let count = from.read(&mut buffer).await.unwrap_or_default();
        if count == 0 {
            return Ok(());
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).await?;
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::view::tests::a_run;
    use rstest::rstest;

    #[rstest]
    #[case::a_breakpoint(
        "Unknown",
        "WaitingForUser",
        "Waiting, reason: Attach, message: it failed",
        false,
        "left; x still waits at step push: it failed"
    )]
    #[case::a_push(
        "Unknown",
        "WaitingForUser",
        "Failed",
        false,
        "left; x still waits at step push: step push failed and waits; windlass -n a shell x"
    )]
    #[case::its_own(
        "Unknown",
        "WaitingForUser",
        "Waiting, reason: Attach, message: attach",
        true,
        "left step push; x goes on; follow: windlass -n a logs -f x"
    )]
    #[case::beside("Unknown", "Running", "Running", false, "left; x goes on; follow: windlass -n a logs -f x")]
    #[case::over("'False'", "StepFailed", "Failed", false, "left; x has ended: failed")]
    fn what_becomes_of_a_run_is_told_as_it_is(
        #[case] status: &str,
        #[case] why: &str,
        #[case] step: &str,
        #[case] is_shell: bool,
        #[case] told: &str,
    ) {
        let run = a_run(&format!(
            "{{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {{name: x}}, spec: {{}}, status: {{conditions: \
             [{{type: Succeeded, status: {status}, reason: {why}, message: 'step push failed and waits; windlass shell x', \
             lastTransitionTime: '2026-11-21T13:03:07Z'}}], steps: [{{name: push, phase: {step}}}]}}}}"
        ));
        assert_eq!(after(&run, "push", is_shell, "windlass -n a"), told);
    }
}
