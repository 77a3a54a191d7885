//! The verbs for people in a cluster.
//!
//! ```text
//! cli ─> main ─> run, retry, logs, status, list, cancel      (connect: the cluster; refusal: its errors)
//!          │      └─> follow: status + output + clock ─> track ─> events ─> render ─> screen
//!          ├───> dev: a run whose source is a directory here; start + what goes on beside following it
//!          ├───> build, deploy, run --local: here ─> local, with a feed of its own for follow
//!          │      └─> wercker: a wercker.yml, and its workflows
//!          ├───> shell, continue, finish, retry --step ─> in_box: the runner's verbs, by exec
//!          ├───> pull, open: stored containers, to this machine
//!          └───> check, convert, init: files only ─> findings
//! ```
//!
//! `cli` hands the parsed arguments over. **Invariant:** acts with the caller's own kubeconfig rights;
//! stdout is data, stderr is messages; nothing is ever asked on the terminal.

mod ansi;
mod apply;
pub mod args;
mod ask;
mod away;
mod box_here;
mod cancel;
mod check;
mod complete;
mod completion;
mod connect;
mod convert;
mod dev;
mod docker;
mod event;
mod examples;
mod exit;
mod explain;
mod fault;
mod feed;
mod findings;
mod follow;
mod happenings;
mod header;
mod here;
mod hint;
mod in_box;
mod init;
mod jsonpath;
mod list;
mod logs;
mod logtext;
mod manifest;
mod open;
mod output;
mod project;
mod pull;
mod refusal;
mod render;
mod request;
mod retry;
mod run;
mod screen;
mod shell;
mod signals;
mod start;
mod status;
mod style;
mod table;
mod terminal;
mod topics;
mod trace;
mod track;
mod tty;
mod view;
mod wercker;

use args::{Global, LogsArgs, StatusArgs, Verb};
use connect::Cluster;
use event::At;
use fault::Stop;
use render::{Events, Json, Setting, Text};
use screen::Screen;
use std::sync::Arc;
use style::{Look, Mode, Terminal};

pub use completion::{answer_kubectl, answer_the_shell};
pub use exit::Exit;
pub use fault::{Fault, nearest};

/// What the verbs share.
pub(crate) struct Session {
    global: Global,
    look: Look,
    screen: Screen,
    /// How hints call us: `windlass` or `kubectl windlass`, with the flags that lead to the same cluster.
    program: String,
    /// The same without flags.
    name: &'static str,
    /// Which events programs were given.
    events: Arc<Events>,
}

impl Session {
    async fn cluster(&self) -> Result<Cluster, Stop> {
        Cluster::open(&self.global, &self.program).await
    }

    /// With `-v`: the same with kubectl, so that nobody is tied to us.
    fn kubectl(&mut self, command: &str) -> Result<(), Stop> {
        if self.look.verbose > 0 {
            self.screen.message(&format!("kubectl {command}"))?;
        }
        Ok(())
    }

    /// Says what went wrong while there is more to do.
    fn tell(&mut self, faults: &[Fault]) -> Result<(), Stop> {
        self.screen.clear()?;
        if self.look.quiet < 2 {
            tell(faults, &self.look, None);
        }
        Ok(())
    }

    /// Says which run it is, unless its name was written.
    fn name_run(&mut self, written: Option<&str>, name: &str, namespace: &str) -> Result<(), Stop> {
        if written != Some(name) {
            self.screen.message(&format!("run {name} in namespace {namespace}"))?;
        }
        Ok(())
    }

    /// In which times of day are told.
    fn zone(&self) -> jiff::tz::TimeZone {
        if self.global.display.utc { jiff::tz::TimeZone::UTC } else { jiff::tz::TimeZone::system() }
    }

    fn setting(&self) -> Setting {
        Setting {
            look: self.look.clone(),
            program: self.program.clone(),
            tail: 20,
            interrupt: "Ctrl-C leaves",
            events: Arc::clone(&self.events),
            ..Setting::default()
        }
    }
}

/// Carries a verb out to its exit code. `command` is the whole command line, for help and completion.
#[must_use]
pub fn main(verb: &Verb, global: &Global, program: &'static str, command: clap::Command) -> Exit {
    report_panics();
    let look = Look::decide(&Terminal::detect(), &global.display);
    let screen = Screen::new(&look, false, true);
    let hints = called(program, &global.place);
    let mut session =
        Session { global: global.clone(), look, screen, program: hints, name: program, events: Arc::default() };
    let result = match verb {
        Verb::Check(args) => check::check(&mut session, args),
        Verb::Convert(args) => convert::convert(&mut session, args),
        Verb::Init(args) => init::init(&mut session, args),
        Verb::Explain(args) => explain::explain(&mut session, args),
        Verb::Completion(args) => completion::completion(&mut session, args),
        Verb::Version(_) => topics::version(&mut session),
        Verb::Help(args) => topics::help(&mut session, args, command),
        Verb::Run(_)
        | Verb::Dev(_)
        | Verb::Build(_)
        | Verb::Deploy(_)
        | Verb::Workflow(_)
        | Verb::Status(_)
        | Verb::List(_)
        | Verb::Logs(_)
        | Verb::Cancel(_)
        | Verb::Retry(_)
        | Verb::Shell(_)
        | Verb::Pull(_)
        | Verb::Open(_)
        | Verb::Continue(_)
        | Verb::Finish(_) => {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let result = runtime.block_on(in_cluster(&mut session, verb));
                    // Tasks that still read are not waited for.
                    runtime.shutdown_background();
                    result
                }
                Err(error) => Err(Stop::from(error)),
            }
        }
    };
    match result {
        Ok(exit) => exit,
        Err(stop) => {
            let exit = stop.exit();
            let json = (session.look.mode == Mode::Json).then(|| Json::new(session.setting()));
            drop(session.screen);
            if let Stop::Faults(faults) = stop
                && session.look.quiet < 2
            {
                tell(&faults, &session.look, json);
            }
            exit
        }
    }
}

/// A hint can be pasted only if it leads to the same cluster and namespace.
fn called(program: &str, place: &args::Place) -> String {
    let quoted = |text: &str| shlex::try_quote(text).map_or_else(|_| text.to_owned(), |quoted| quoted.into_owned());
    let kubeconfig = place.kubeconfig.as_ref().map(|path| path.display().to_string());
    let flags = [
        ("--kubeconfig", &kubeconfig),
        ("--context", &place.context),
        ("--as", &place.as_user),
        ("-n", &place.namespace),
    ];
    let given = flags.into_iter().filter_map(|(flag, value)| Some(format!(" {flag} {}", quoted(value.as_ref()?))));
    let groups = place.as_group.iter().map(|group| format!(" --as-group {}", quoted(group)));
    given.chain(groups).fold(program.to_owned(), |program, flag| program + &flag)
}

async fn in_cluster(session: &mut Session, verb: &Verb) -> Result<Exit, Stop> {
    match verb {
        Verb::Status(StatusArgs { run: Some(run), .. }) => {
            box_here::refuse(session, std::iter::once(run), None).await?;
        }
        Verb::Logs(LogsArgs { run: Some(run), service, .. }) => {
            box_here::refuse(session, std::iter::once(run), service.as_deref()).await?;
        }
        Verb::Cancel(args) => box_here::refuse(session, args.runs.iter(), None).await?,
        _ => {}
    }
    match verb {
        Verb::Run(args) if here::is_meant(args) => here::run(session, args).await,
        Verb::Run(args) => run::run(session, args).await,
        Verb::Dev(args) if here::is_meant_by_dev(session, args) => here::dev(session, args).await,
        Verb::Dev(args) => dev::dev(session, args).await,
        Verb::Build(args) => here::build(session, args).await,
        Verb::Deploy(args) => here::deploy(session, args).await,
        Verb::Workflow(args) => here::workflow(session, args).await,
        Verb::Status(args) => status::status(session, args).await,
        Verb::List(args) => list::list(session, args).await,
        Verb::Logs(args) => logs::logs(session, args).await,
        Verb::Cancel(args) => cancel::cancel(session, args).await,
        Verb::Retry(args) => retry::retry(session, args).await,
        Verb::Shell(args) => shell::shell(session, args).await,
        Verb::Pull(args) => pull::pull(session, args).await,
        Verb::Open(args) => open::open(session, args).await,
        Verb::Continue(args) => ask::ask(session, "continue", args).await,
        Verb::Finish(args) => ask::ask(session, "finish", args).await,
        // Offline: done by `main`.
        Verb::Check(_)
        | Verb::Convert(_)
        | Verb::Init(_)
        | Verb::Explain(_)
        | Verb::Completion(_)
        | Verb::Version(_)
        | Verb::Help(_) => Ok(Exit::Success),
    }
}

/// Says why a verb stops: to people, and by `json` to programs.
fn tell(faults: &[Fault], look: &Look, json: Option<Json>) {
    for fault in faults {
        screen::error(&fault.render(look.color_err));
    }
    let exit = faults.first().map_or(Exit::Failed, |fault| fault.exit);
    for text in json.map(|mut json| json.stopped(At::outside(), exit, faults)).unwrap_or_default() {
        if let Text::Data(bytes) = text {
            // Who does not read stdout has been told on stderr.
            let _ = screen::out(&bytes);
        }
    }
}

/// Prints a usage error, as events too if `json`, and gives its exit code; for `cli`, before there is a session.
#[must_use]
pub fn usage_error(fault: &Fault, json: bool) -> Exit {
    tell_early(std::slice::from_ref(fault), json.then(|| Json::new(Setting::default())));
    fault.exit
}

/// The exit code of what was written to stdout before there is a session, after saying why it could not be.
#[must_use]
pub fn written(result: std::io::Result<()>) -> Exit {
    let Err(stop) = result.map_err(Stop::from) else { return Exit::Success };
    if let Stop::Faults(faults) = &stop {
        tell_early(faults, None);
    }
    stop.exit()
}

fn tell_early(faults: &[Fault], json: Option<Json>) {
    tell(faults, &Look::decide(&Terminal::detect(), &args::Display::default()), json);
}

/// A panic is a bug: the terminal is restored, the place is told, the exit code is its own.
fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        tty::restore();
        screen::clear_after_panic();
        let payload = info.payload();
        let message = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let message = message.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line())).unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        screen::error(&format!("windlass: bug: {message}{place}. Report it with this text and version {version}.\n"));
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0") {
            screen::error(&format!("{}\n", std::backtrace::Backtrace::force_capture()));
        }
        std::process::exit(exit::BUG);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_lead_to_the_same_cluster() {
        let place = |namespace: Option<&str>, context: Option<&str>| args::Place {
            namespace: namespace.map(str::to_owned),
            context: context.map(str::to_owned),
            ..args::Place::default()
        };
        assert_eq!(called("windlass", &place(None, None)), "windlass");
        assert_eq!(
            called("windlass", &place(Some("team-a"), Some("my prod"))),
            "windlass --context 'my prod' -n team-a"
        );
        // kubectl takes flags of a plugin after its name only.
        assert_eq!(called("kubectl windlass", &place(Some("team-a"), None)), "kubectl windlass -n team-a");
    }
}
