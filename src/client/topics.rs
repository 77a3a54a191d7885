//! `help` and `version`.
//!
//! **Invariant:** offline.

use super::{
    Session,
    args::HelpArgs,
    exit::{self, Exit},
    fault::{Fault, Stop, nearest},
};

/// Topics that are not verbs.
const TOPICS: [(&str, &str); 4] =
    [("exit-codes", exit::TOPIC), ("environment", ENVIRONMENT), ("json", JSON), ("accessibility", ACCESSIBILITY)];

/// Names of the topics.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TOPICS.iter().map(|(name, _)| *name)
}

const ENVIRONMENT: &str = "\
Environment variables

  KUBECONFIG          kubeconfig files, as in kubectl; --kubeconfig wins
  X_NAME, XXX_NAME    build, deploy, workflow, run of a wercker.yml: variable NAME of the run; XXX_ is masked
  WERCKER_ENVIRONMENT_FILE  its file of variables; --environment wins
  WINDLASS_PROGRESS   auto, live, plain or none; --progress wins
  NO_COLOR            if not empty: no colour
  CLICOLOR_FORCE      if not empty and not 0: colour also where there is no terminal (FORCE_COLOR too)
  CLICOLOR            0: no colour
  CI                  if set: whole lines, nothing is repainted
  TERM                dumb: whole lines, no colour
  LC_ALL, LANG        without UTF-8: words instead of signs
";

const JSON: &str = "\
JSON

  --json      events on stdout, one object per line: run, dev, build, deploy, workflow, retry, logs, status --wait, check,
              convert -o
  -o json     one object, or a list of objects, as kubectl get -o json prints them

Every event has v (1), type, seq (from 1, without gaps) and time (UTC); from run.created on also run and namespace.
Types: begin, run.created, run.resolved, run.waiting, run.prepared, step.started, log, progress, image,
step.finished, run.finished, notice, diagnostic, error, end. The last is end, with the exit code.
A workflow gives those of each of its pipelines, from begin to end, one after the other; seq goes on.
log has text (base64 if it is not UTF-8), offset, and partial if the line has not ended.
Fields and types are added, never renamed or removed; readers ignore what they do not know. Messages may change,
reasons do not.
";

const ACCESSIBILITY: &str = "\
Accessibility

  --plain, or WINDLASS_PROGRESS=plain, prints whole lines in the order in which things happen: the state as a word
  first, no spinner, nothing repainted, no signs. NO_COLOR=1 takes colour away; no state is shown by colour alone.
";

/// `help`.
///
/// # Errors
/// When there is no such verb or topic.
pub(super) fn help(session: &mut Session, args: &HelpArgs, mut command: clap::Command) -> Result<Exit, Stop> {
    let Some(topic) = &args.topic else {
        let text = command.render_help();
        session.screen.data(&text.to_string())?;
        return Ok(Exit::Success);
    };
    if let Some((_, text)) = TOPICS.iter().find(|(name, _)| name == topic) {
        session.screen.data(text)?;
        return Ok(Exit::Success);
    }
    command.build();
    if let Some(verb) = command.find_subcommand_mut(topic) {
        let text = verb.render_help();
        session.screen.data(&text.to_string())?;
        return Ok(Exit::Success);
    }
    let verbs: Vec<&str> =
        command.get_subcommands().filter(|c| !c.is_hide_set()).map(clap::Command::get_name).collect();
    let near = nearest(topic, verbs.into_iter().chain(TOPICS.iter().map(|(name, _)| *name)));
    let fault = Fault::usage(format!("no verb or topic {topic:?}"));
    Err(match near {
        Some(near) => fault.hint(format!("did you mean '{near}'?")),
        None => fault.hint(format!("{} help", session.program)),
    }
    .into())
}

/// `version`.
///
/// # Errors
/// When the output cannot be written.
pub(super) fn version(session: &mut Session) -> Result<Exit, Stop> {
    session.screen.data(&format!("windlass {}\n", env!("CARGO_PKG_VERSION")))?;
    Ok(Exit::Success)
}
