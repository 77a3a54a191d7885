//! `completion`: prints the script of a shell, and answers the shell when it asks.
//!
//! The scripts call us for each word, so that names of the cluster can be offered (`complete`). **Invariant:** the
//! script is printed offline; an answer to a shell never holds an error.

use super::{
    Session,
    args::{CompletionArgs, Shell},
    exit::Exit,
    fault::Stop,
    screen,
};
use clap_complete::env::{Bash, EnvCompleter, Fish, Powershell, Shells, Zsh};
use std::ffi::OsString;

/// The variable by which a shell's script asks.
const VARIABLE: &str = "COMPLETE";

/// By which kubectl finds the words of its plugin; kubectl runs it with the words after the plugin's name.
const FOR_KUBECTL: &str = "#!/bin/sh\nexec kubectl-windlass __complete \"$@\"\n";

/// `completion`.
///
/// # Errors
/// When the output cannot be written.
pub(super) fn completion(session: &mut Session, args: &CompletionArgs) -> Result<Exit, Stop> {
    // The shell completes what is typed: as a plugin the executable is called kubectl-windlass.
    let name = session.name.replace(' ', "-");
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
        Shell::PowerShell => &Powershell,
        Shell::Kubectl => {
            session.screen.data(FOR_KUBECTL)?;
            return Ok(Exit::Success);
        }
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "windlass", &name, &name, &mut script)?;
    session.screen.data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}

/// Answers the script of a shell; none if no shell asks. `arguments` are those of the process.
#[must_use]
pub fn answer_the_shell(command: &clap::Command, arguments: &[OsString]) -> Option<Exit> {
    let shell = std::env::var_os(VARIABLE).filter(|name| !name.is_empty())?;
    let shells = Shells::builtins();
    let shell = shell.to_str().and_then(|name| shells.completer(name))?;
    let start = arguments.iter().position(|word| word == "--")?;
    let words = arguments.get(start + 1..).unwrap_or_default().to_vec();
    let here = std::env::current_dir().ok();
    let mut offered = Vec::new();
    // Who is at a prompt wants no message in it.
    if !words.is_empty() && shell.write_complete(&mut command.clone(), words, here.as_deref(), &mut offered).is_ok() {
        return Some(answered(&offered));
    }
    Some(Exit::Success)
}

/// The exit code says whether the answer could be written; who asked and went away wants none.
fn answered(answer: &[u8]) -> Exit {
    screen::out(answer).map_or_else(|error| Stop::from(error).exit(), |()| Exit::Success)
}

/// Answers kubectl, which asks with the word `__complete`: a candidate per line with its help behind a tab, then `:`
/// and what the shell is to do. None if kubectl does not ask.
#[must_use]
pub fn answer_kubectl(command: &clap::Command, arguments: &[OsString]) -> Option<Exit> {
    const NO_FILES: u8 = 4;
    arguments.get(1).filter(|word| *word == "__complete")?;
    let given = arguments.get(2..).unwrap_or_default();
    let words: Vec<OsString> = std::iter::once("windlass".into()).chain(given.iter().cloned()).collect();
    let last = words.len().saturating_sub(1);
    let here = std::env::current_dir().ok();
    let offered = clap_complete::engine::complete(&mut command.clone(), words, last, here.as_deref());
    let mut answer = String::new();
    for candidate in offered.as_deref().unwrap_or_default() {
        let help = candidate.get_help().map(|help| format!("\t{help}")).unwrap_or_default();
        let line = format!("{}{help}", candidate.get_value().to_string_lossy());
        answer += &format!("{}\n", line.lines().next().unwrap_or_default());
    }
    // Without a candidate the shell may offer files.
    let directive = if answer.is_empty() { 0 } else { NO_FILES };
    Some(answered(format!("{answer}:{directive}\n").as_bytes()))
}
