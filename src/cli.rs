//! The command line: parses arguments and hands over to a role. Roles are subcommands of one executable.
//!
//! Another role is one variant of [`Command`] and one arm of [`main`]. **Invariant:** no work is done here.

use crate::{
    api,
    client::{
        self, Fault,
        args::{Global, Verb},
    },
};
use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

const EXAMPLES: &str = "\
Examples:
  windlass run -f hello.yaml        start a run and follow it
  windlass logs -f                  follow the latest run
  windlass status hello-7           why does it wait? why did it fail?";

const TOPICS: &str = "Topics: windlass help exit-codes | environment | json | accessibility";

/// Verbs that only the long help lists.
const RARE: [&str; 3] = ["completion", "version", "help"];

const TEMPLATE: &str = "{about}\n\nUsage: {usage}\n\n{all-args}{after-help}\n";
/// Of the whole in its short form: with all verbs it must fit a screen.
const VERBS: &str = "{about}\n\n{all-args}{after-help}\n";
const WITH_EXAMPLES: &str = "{about}\n\nUsage: {usage}\n\n{before-help}{all-args}{after-help}\n";

#[derive(Parser)]
#[command(name = "windlass", version, about = "Pipelines on Kubernetes that end in an image")]
#[command(
    disable_help_subcommand = true,
    disable_help_flag = true,
    disable_version_flag = true,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    infer_long_args = false
)]
#[command(before_long_help = EXAMPLES, after_help = TOPICS, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
    /// Print help: -h the usual flags, --help all of them with examples
    #[arg(short, long, global = true, action = clap::ArgAction::HelpShort, hide_short_help = true)]
    help: Option<bool>,
    /// Print version
    #[arg(short = 'V', long, action = clap::ArgAction::Version, hide_short_help = true)]
    version: Option<bool>,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    People(Box<Verb>),
    /// Print the custom resource definitions as YAML
    #[command(hide = true)]
    Crds {
        /// Write them into this directory instead, one file each
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Turn PipelineRuns into pods (run by the chart's Deployment)
    #[command(hide = true)]
    Controller(crate::controller::Options),
    /// Follow the runs of a node and carry out their internal steps (run by the chart's DaemonSet)
    #[command(hide = true)]
    Agent(crate::agent::Options),
    /// Keep stored containers (run by the chart's Deployment)
    #[command(hide = true)]
    Artifacts(crate::artifacts::Options),
    /// Prepare a run pod: source, plan and runner
    #[command(hide = true)]
    Prepare(crate::prepare::Arguments),
}

/// Runs the command line to its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let program = program(std::env::args_os().next().as_deref());
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Who asks with --help gets the long form; a value that looks like it changes only the form of an error.
    let long = has_flag(&arguments, "--help");
    let command = command(program, long);
    let whole = self::command(program, true);
    let answered = client::answer_the_shell(&whole, &arguments).or_else(|| client::answer_kubectl(&whole, &arguments));
    if let Some(exit) = answered {
        return ExitCode::from(exit.code());
    }
    let cli = match command.clone().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, program, &arguments),
    };
    match cli.command {
        Command::People(verb) => {
            ExitCode::from(client::main(&verb, &cli.global, program, self::command(program, true)).code())
        }
        Command::Crds { dir } => crds(dir.as_deref()),
        Command::Controller(options) => serve(crate::controller::run(options)),
        Command::Agent(options) => serve(crate::agent::run(options)),
        Command::Artifacts(options) => serve(crate::artifacts::run(options)),
        Command::Prepare(arguments) => crate::prepare::main(&arguments),
    }
}

fn crds(dir: Option<&Path>) -> ExitCode {
    let Some(dir) = dir else { return printed(io::stdout().write_all(api::crds::yaml().as_bytes())) };
    match api::crds::files().iter().try_for_each(|file| fs::write(dir.join(file.name), &file.text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("windlass crds: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The exit code of what prints and does nothing else; what is left of it is written.
fn printed(result: io::Result<()>) -> ExitCode {
    ExitCode::from(client::written(result.and_then(|()| io::stdout().flush())).code())
}

/// Runs a long-running role; its failure is the last line of its log and its exit code.
fn serve(role: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    crate::telemetry::start();
    let _set_before = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(role));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("ended: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How people call this executable: as a plugin of kubectl it is `kubectl-windlass`.
fn program(argv0: Option<&std::ffi::OsStr>) -> &'static str {
    let name = argv0.map(Path::new).and_then(Path::file_name).map(|n| n.to_string_lossy());
    if name.is_some_and(|n| n.starts_with("kubectl-")) { "kubectl windlass" } else { "windlass" }
}

/// The command line, with its help in the long form (all flags, examples) or the short one (a screen).
fn command(program: &'static str, long: bool) -> clap::Command {
    let command = Cli::command().bin_name(program).display_name("windlass");
    // What a run on Docker takes stands in the help of `build`, and what a wercker.yml takes in that of `deploy`.
    let without = |headings: &'static [&'static str]| {
        move |flag: clap::Arg| {
            let hidden = flag.get_help_heading().is_some_and(|heading| headings.contains(&heading));
            if hidden { flag.hide(true) } else { flag }
        }
    };
    let elsewhere: [(&str, &[&str]); 5] = [
        ("run", &[client::args::HERE, client::args::OF_WERCKER]),
        ("build", &[client::args::OF_WERCKER]),
        ("dev", &[client::args::OF_WERCKER]),
        ("deploy", &[client::args::HERE]),
        ("workflow", &[client::args::HERE, client::args::OF_WERCKER]),
    ];
    let command = elsewhere.into_iter().fold(command, |command, (verb, headings)| {
        command.mut_subcommand(verb, |verb| verb.mut_args(without(headings)))
    });
    let command = form(command, program, long);
    // A screen has room for the verbs of a working day.
    let rare = |verb: &clap::Command| !long && RARE.contains(&verb.get_name());
    command.mut_subcommands(|verb| {
        let hide = verb.is_hide_set() || rare(&verb);
        form(verb, program, long).hide(hide)
    })
}

fn form(command: clap::Command, program: &str, long: bool) -> clap::Command {
    let renamed = |text: &clap::builder::StyledStr| {
        let text = text.to_string();
        text.replace("windlass ", &format!("{program} ")).replace("kubectl kubectl ", "kubectl ")
    };
    let examples = command.get_before_long_help().map(renamed);
    let after = command.get_after_help().map(renamed);
    let verb = match command.get_name() {
        "windlass" => String::new(),
        verb => format!(" {verb}"),
    };
    let template = match (long, verb.is_empty()) {
        (true, _) if examples.is_some() => WITH_EXAMPLES,
        (false, true) => VERBS,
        _ => TEMPLATE,
    };
    let command = command.help_template(template);
    match examples {
        Some(examples) if long => {
            let command = command.mut_args(|flag| flag.hide_short_help(false)).before_help(examples);
            command.after_help(after.unwrap_or_default())
        }
        Some(_) => {
            let more = format!("More flags and examples: {program}{verb} --help");
            // What stands after the long form has no room on a screen.
            command.after_help(more)
        }
        None => command,
    }
}

/// Whether a flag was given, as far as that can be said of a line that may be wrong.
fn has_flag(arguments: &[OsString], flag: &str) -> bool {
    arguments.iter().take_while(|word| *word != "--").any(|word| word == flag)
}

/// Help and version are no errors; all else is said in the form of all errors.
fn refuse(error: &clap::Error, program: &str, arguments: &[OsString]) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => printed(error.print()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            let json = has_flag(arguments, "--json");
            ExitCode::from(client::usage_error(&fault(error, program, arguments), json).code())
        }
    }
}

fn fault(error: &clap::Error, program: &str, arguments: &[OsString]) -> Fault {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let verb = text(ContextKind::InvalidSubcommand).filter(|_| error.kind() == ErrorKind::InvalidSubcommand);
    let message = match &verb {
        Some(verb) => format!("no such verb: {verb}"),
        _ => {
            // The first paragraph says what is wrong; tips and usage follow it.
            let rendered = error.to_string();
            let first = rendered.split("\n\n").next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).trim().to_owned()
        }
    };
    // The usage names the verb whose flags are wrong.
    let usage = error.render().to_string();
    let used = usage.split_once(&format!("Usage: {program} ")).and_then(|(_, rest)| rest.split_whitespace().next());
    let whole = Cli::command();
    let of_verb = used.and_then(|word| whole.find_subcommand(word));
    // An error of a value has no usage; the first word that can be the verb is.
    let of_verb = of_verb.or_else(|| arguments.iter().skip(1).find_map(|word| whole.find_subcommand(word)));
    let of_verb = of_verb.map(clap::Command::get_name);
    let fault = Fault::usage(message);
    let near = match &verb {
        Some(verb) => near_verb(verb),
        None => [ContextKind::SuggestedArg, ContextKind::SuggestedValue].into_iter().find_map(text),
    };
    match near {
        Some(near) => fault.hint(format!("did you mean '{near}'?")),
        None => fault.hint(format!("{program}{} --help", of_verb.map(|verb| format!(" {verb}")).unwrap_or_default())),
    }
}

/// The verb that is meant. Those that nobody is shown, such as `b` for `build`, are no help.
fn near_verb(written: &str) -> Option<String> {
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let names = shown.flat_map(|verb| std::iter::once(verb.get_name()).chain(verb.get_visible_aliases()));
    client::nearest(written, names).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn the_command_line_is_consistent() {
        for long in [true, false] {
            command("windlass", long).debug_assert();
            command("kubectl windlass", long).debug_assert();
        }
    }

    #[test]
    fn the_name_it_is_called_by_decides_the_usage() {
        assert_eq!(program(Some(OsStr::new("/usr/bin/kubectl-windlass"))), "kubectl windlass");
        assert_eq!(program(Some(OsStr::new("./windlass"))), "windlass");
        assert_eq!(program(None), "windlass");
        let help = command("kubectl windlass", true).render_help().to_string();
        assert!(help.contains("Usage: kubectl windlass"), "{help}");
        assert!(!help.lines().any(|line| line.starts_with("  windlass ")), "{help}");
    }

    #[test]
    fn flags_stand_before_and_after_the_verb() {
        for line in ["windlass -n team-a status x --plain", "windlass --plain status x -n team-a"] {
            let matches = command("windlass", false).try_get_matches_from(line.split(' ')).expect(line);
            let cli = Cli::from_arg_matches(&matches).expect(line);
            assert_eq!(cli.global.place.namespace.as_deref(), Some("team-a"));
            assert!(cli.global.display.plain);
        }
    }

    /// What is said of a line that is wrong.
    fn refused(line: &str) -> Fault {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        fault(&command("windlass", false).try_get_matches_from(&words).unwrap_err(), "windlass", &words)
    }

    #[test]
    fn a_value_is_told_in_the_form_that_the_help_has() {
        for (flag, form) in [
            ("--secret", "NAME=PATH"),
            ("--config-map", "NAME=PATH"),
            ("--registry-ca", "HOST=FILE"),
            ("-e", "NAME=VALUE"),
        ] {
            let said = refused(&format!("windlass build {flag} foo")).message;
            assert!(said.ends_with(&format!("\"foo\" is not {form}")), "{said}");
        }
    }

    #[test]
    fn typos_get_a_suggestion() {
        let said = refused;
        let typo = said("windlass statsu");
        assert_eq!(
            (typo.message.as_str(), typo.hint.as_deref()),
            ("no such verb: statsu", Some("did you mean 'status'?"))
        );
        assert_eq!(said("windlass logs --folow").hint.as_deref(), Some("did you mean '--follow'?"));
        assert_eq!(said("windlass run -o digset").hint.as_deref(), Some("did you mean 'digest'?"));
        assert!(said("windlass cancel").message.contains("<RUN>"));
    }

    #[test]
    fn verbs_that_are_hidden_are_not_suggested() {
        for (typo, meant) in [
            ("biuld", "build"),
            ("buil", "build"),
            ("deplyo", "deploy"),
            ("wrokflow", "workflow"),
            ("converrt", "convert"),
        ] {
            assert_eq!(near_verb(typo).as_deref(), Some(meant), "{typo}");
        }
        assert_eq!(near_verb("bogus"), None);
        let said = |line: &str| refused(line).hint;
        assert_eq!(said("windlass build --nosuchflag").as_deref(), Some("windlass build --help"));
        assert_eq!(said("windlass build --secret foo").as_deref(), Some("windlass build --help"));
        assert_eq!(said("windlass -n team-a b --publish x").as_deref(), Some("windlass build --help"));
        assert_eq!(said("windlass bogus").as_deref(), Some("windlass --help"));
    }

    /// The help of the whole, then of each verb.
    fn pages(program: &'static str, long: bool) -> Vec<(String, String)> {
        let mut command = command(program, long).term_width(80);
        command.build();
        let mut pages = vec![(String::new(), command.render_help().to_string())];
        for verb in command.get_subcommands_mut().filter(|verb| !verb.is_hide_set()) {
            pages.push((verb.get_name().to_owned(), verb.render_help().to_string()));
        }
        pages
    }

    #[test]
    fn short_help_fits_a_screen_and_long_help_three() {
        let mut wrong = 0;
        for (long, most) in [(false, 24), (true, 72)] {
            for (verb, page) in pages("kubectl windlass", long) {
                // A line for each verb.
                let most = if verb.is_empty() { most.max(30) } else { most };
                let wide = page.lines().filter(|line| line.chars().count() > 80).count();
                println!("{verb} {long}: {} lines, {wide} wide\n{page}", page.lines().count());
                wrong += usize::from(page.lines().count() > most || wide > 0 || page.contains("\n\n\n"));
            }
        }
        assert_eq!(wrong, 0);
    }

    #[test]
    fn long_help_has_every_flag_and_examples() {
        let pages = pages("windlass", true);
        let page = |verb: &str| pages.iter().find(|(name, _)| name == verb).map(|(_, page)| page.clone()).expect(verb);
        for flag in ["--on-interrupt", "--as-group", "--kubeconfig", "--no-headers", "Examples:\n  windlass run -f"] {
            assert!(page("run").contains(flag), "{flag}\n{}", page("run"));
        }
        for verb in [
            "run",
            "status",
            "list",
            "logs",
            "cancel",
            "retry",
            "check",
            "convert",
            "init",
            "explain",
            "completion",
            "version",
            "help",
        ] {
            let count = page("").lines().filter(|l| l.starts_with(&format!("  {verb} "))).count();
            assert_eq!(count, 1, "{verb}\n{}", page(""));
        }
        assert!(!page("").contains("crds"));
    }
}
