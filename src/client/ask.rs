//! `continue`, `finish` and `retry --step`: tell a run that waits to go on.
//!
//! **Invariant:** the run decides whether it may; its words are shown.

use super::{
    Session,
    args::AskArgs,
    box_here,
    exit::Exit,
    fault::{Fault, Stop, one_line, reason},
    in_box::{Ended, InBox},
};

/// Asks a run for `verb`, of a step if one is named.
///
/// # Errors
/// When the run does not wait for it, or whatever the cluster answered.
pub(super) async fn ask(session: &mut Session, verb: &'static str, args: &AskArgs) -> Result<Exit, Stop> {
    if let Some(here) = box_here::find(session, &args.run).await {
        return here.ask(session, verb, args).await;
    }
    let cluster = session.cluster().await?;
    let there = InBox::find(&cluster, Some(&args.run)).await?;
    let name = &there.view.name;
    let words: Vec<&str> = std::iter::once(verb).chain(args.step.as_deref()).collect();
    session.name_run(Some(&args.run), name, &there.view.namespace)?;
    session.kubectl(&there.kubectl(false, &words))?;
    let (ended, said) = there.say(&words).await?;
    match ended {
        Ended::Code(0) => {
            session.screen.message(&format!("{name}: {}", one_line(&said)))?;
            session.screen.message(&format!("hint: {} logs -f {name}", session.program))?;
            Ok(Exit::Success)
        }
        Ended::Code(_) => {
            let fault = Fault::new(reason::NOT_WAITING, Exit::Usage, format!("{name}: {said}"));
            Err(fault.hint(format!("{} status {name}", session.program)).into())
        }
        Ended::Refused(why) => Err(Fault::new(reason::NO_BOX, Exit::NotFound, format!("{name}: {why}")).into()),
        Ended::Lost => {
            let fault =
                Fault::new(reason::CONNECTION_LOST, Exit::World, format!("{name} may or may not have heard it"));
            Err(fault.hint(format!("{} status {name}", session.program)).into())
        }
    }
}
