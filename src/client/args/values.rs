//! What flags may be given: words, times, phases, pairs. Part of the arguments.
//!
//! **Invariant:** pure but for the clock of a time ago; an error says what is expected.

use crate::client::jsonpath::Template;
use clap::ValueEnum;
use jiff::Timestamp;
use std::time::Duration;

/// A `NAME=VALUE` argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Before the first `=`.
    pub name: String,
    /// After it.
    pub value: String,
}

/// Values of `run -o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RunOutput {
    /// pipelinerun.windlass.dev/NAME, when it is made
    Name,
    /// repository@digest of each pushed image, at the end
    Digest,
    /// The whole object, at the end
    Json,
}

/// Values of `--dry-run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Nothing is sent
    Client,
    /// The cluster checks, and keeps nothing
    Server,
}

/// Values of `--on-interrupt`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnInterrupt {
    /// Cancel the run and go on following
    #[default]
    Cancel,
    /// Leave; the run goes on
    Detach,
}

/// Values of `--show`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Show {
    /// All output
    #[default]
    All,
    /// Only that of a step that fails, when it fails
    Failed,
}

/// Values of `--exit-code`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExitCodeOf {
    /// The codes of `windlass help exit-codes`
    #[default]
    Windlass,
    /// The failed step's own code
    Step,
}

/// Values of `status -o`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectOutput {
    /// The object as JSON
    Json,
    /// The object as YAML
    Yaml,
    /// pipelinerun.windlass.dev/NAME
    Name,
    /// What a template finds in it
    JsonPath(Template),
}

impl std::str::FromStr for ObjectOutput {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("jsonpath=")) {
            ("json", _) => Ok(Self::Json),
            ("yaml", _) => Ok(Self::Yaml),
            ("name", _) => Ok(Self::Name),
            (_, Some(template)) => template.parse().map(Self::JsonPath),
            _ => Err("expected json, yaml, name or jsonpath=TEMPLATE".into()),
        }
    }
}

/// Values of `list -o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListOutput {
    /// More columns
    Wide,
    /// A list of objects as JSON
    Json,
    /// One pipelinerun.windlass.dev/NAME per line
    Name,
}

/// A value of `--breakpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakAt {
    /// `on-failure`
    Failure,
    /// `before:STEP`
    Before(String),
}

/// Shells with a completion script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
    /// PowerShell
    #[value(name = "powershell")]
    PowerShell,
    /// The script by which kubectl completes its plugin: kubectl_complete-windlass
    Kubectl,
}

/// A port of the box, and where it is on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Here, on loopback.
    pub local: u16,
    /// In the box.
    pub remote: u16,
}

/// `5000`, or `8080:5000`.
pub(super) fn publish(text: &str) -> Result<Publish, String> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    match (port(local), port(remote)) {
        (Some(local), Some(remote)) => Ok(Publish { local, remote }),
        _ => Err(format!("{text:?} is not PORT or HERE:PORT, with ports from 1 to 65535")),
    }
}

/// A length of time, such as `1m30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    crate::api::duration::parse(text)
}

/// A time of the past: RFC 3339, or how long ago.
pub(super) fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago =
        duration(text).map_err(|_| format!("{text:?} is neither a time ago such as 5m nor as 2026-11-21T13:03:07Z"))?;
    Timestamp::now().checked_sub(ago).map_err(|_| format!("{text:?} is too long ago"))
}

/// Phases that a run can be in.
pub(in crate::client) const PHASES: [&str; 8] =
    ["Pending", "Queued", "Starting", "Running", "Waiting", "Succeeded", "Failed", "Cancelled"];

/// A phase, written as the status has it.
pub(super) fn phase(text: &str) -> Result<String, String> {
    let found = PHASES.iter().find(|phase| phase.eq_ignore_ascii_case(text));
    found
        .map(|phase| (*phase).to_owned())
        .ok_or_else(|| format!("expected one of {}", PHASES.join(", ").to_lowercase()))
}

/// `on-failure`, or `before:STEP`.
pub(super) fn breakpoint(text: &str) -> Result<BreakAt, String> {
    match text.split_once(':') {
        None if text == "on-failure" => Ok(BreakAt::Failure),
        Some(("before", step)) if !step.is_empty() => Ok(BreakAt::Before(step.into())),
        _ => Err(format!("{text:?} is not on-failure or before:STEP")),
    }
}

/// `NAME=VALUE`.
pub(super) fn key_value(text: &str) -> Result<KeyValue, String> {
    pair(text, "NAME=VALUE")
}

/// `NAME=PATH`.
pub(super) fn name_path(text: &str) -> Result<KeyValue, String> {
    pair(text, "NAME=PATH")
}

/// `HOST=FILE`.
pub(super) fn host_file(text: &str) -> Result<KeyValue, String> {
    pair(text, "HOST=FILE")
}

fn pair(text: &str, form: &str) -> Result<KeyValue, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(KeyValue { name: name.into(), value: value.into() }),
        _ => Err(format!("{text:?} is not {form}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_absolute_or_ago() {
        assert_eq!(since("2026-11-21T13:03:07Z"), Ok("2026-11-21T13:03:07Z".parse().expect("a time")));
        let then = since("1h30m").expect("a time ago");
        let ago = Timestamp::now().duration_since(then);
        assert!((5_400..5_410).contains(&ago.as_secs()), "{ago:?}");
        for text in ["", "yesterday", "5", "99999999h"] {
            assert!(since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_is_here_as_in_the_box_or_elsewhere() {
        assert_eq!(publish("5000"), Ok(Publish { local: 5000, remote: 5000 }));
        assert_eq!(publish("8080:80"), Ok(Publish { local: 8080, remote: 80 }));
        for bad in ["", "0", "80:", ":80", "80:0", "65536", "a:b", "127.0.0.1:80:80"] {
            assert!(publish(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_phase_is_one_that_exists() {
        assert_eq!(phase("failed"), Ok("Failed".into()));
        assert!(phase("faild").unwrap_err().contains("succeeded, failed, cancelled"));
    }

    #[test]
    fn a_value_may_hold_an_equals_sign_and_be_empty() {
        assert_eq!(key_value("A=b=c"), Ok(KeyValue { name: "A".into(), value: "b=c".into() }));
        assert_eq!(key_value("A="), Ok(KeyValue { name: "A".into(), value: String::new() }));
        assert!(key_value("A").is_err());
        assert!(key_value("=b").is_err());
    }

    #[test]
    fn breakpoints_are_on_failure_or_before_a_step() {
        assert_eq!(breakpoint("on-failure"), Ok(BreakAt::Failure));
        assert_eq!(breakpoint("before:deploy"), Ok(BreakAt::Before("deploy".into())));
        for bad in ["", "before", "before:", "onfailure", "after:x"] {
            assert!(breakpoint(bad).is_err(), "{bad}");
        }
    }
}
