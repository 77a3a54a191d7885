//! `completion`: prints the script of a shell.
//!
//! **Invariant:** offline.

use super::{
    Session,
    args::{CompletionArgs, Shell},
    exit::Exit,
    fault::Stop,
};

/// `completion`.
///
/// # Errors
/// When the output cannot be written.
pub(super) fn completion(session: &mut Session, args: &CompletionArgs, command: clap::Command) -> Result<Exit, Stop> {
    // The shell completes what is typed: as a plugin the executable is called kubectl-windlass.
    let name = session.name.replace(' ', "-");
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::PowerShell => clap_complete::Shell::PowerShell,
    };
    // What people never type is not offered.
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect::<Vec<_>>();
    let flags = command.get_arguments().cloned().collect::<Vec<_>>();
    let mut command = clap::Command::new("windlass")
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(flags)
        .subcommands(verbs);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    session.screen.data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
