//! What a run on the engine of this machine is made of: the file, flags, the environment, the engine's address.
//!
//! `here` uses it. **Invariant:** a value that was given as a secret becomes the value of a Secret, and is treated as one
//! from there on; nothing of it is quoted.

use super::{
    args::{BreakAt, HereArgs, KeyValue, Manner, What},
    docker,
    exit::Exit,
    fault::{Fault, Stop, reason},
    project::{Chosen, directory_of},
};
use crate::{
    api::{
        PipelineRunSpec,
        env::{EnvVar, KeyRef, can_be_set},
        pipeline::DEFAULT_TIMEOUT,
        run::{Breakpoint, Param},
    },
    engine::docker::containers::Publish as Published,
    local::{self, Objects, Request},
    prepare::Directory,
    registry::Trust,
    registry::docker_config::DockerLogins,
    wire,
};
use std::path::{Path, PathBuf};

/// Patterns of files that do not come along.
const IGNORE_FILE: &str = ".windlassignore";
/// The Secret that holds the variables of `--secret-env`.
const SECRET_ENV: &str = "secret-env";
/// Names of the runner's place, if it is not beside this program.
const RUNNER_VARIABLE: &str = "WINDLASS_RUNNER";
/// How long `dev` goes on if the pipeline does not say.
const DEV_TIMEOUT: &str = "24h";
/// Largest certificate file.
const CA_BYTES: u64 = 1024 * 1024;

/// What is asked for, whichever verb it was.
#[derive(Clone)]
pub(super) struct Asked<'a> {
    pub(super) what: &'a What,
    /// The source is what the file says, unless another is given.
    pub(super) as_written: bool,
    pub(super) pipeline: Option<&'a str>,
    pub(super) manner: &'a Manner,
    pub(super) here: &'a HereArgs,
    /// Whether it is a deploy.
    pub(super) deploys: bool,
    /// It is `dev`: on the directory itself, for a working day.
    pub(super) dev: bool,
    /// The command that does the same again.
    pub(super) again: String,
    /// What there is to know if the run does not pass.
    pub(super) unless_passed: Option<String>,
}

/// Puts together what is to be run.
pub(super) fn request(asked: &Asked<'_>, file: &Path, objects: Objects, chosen: Chosen) -> Result<Request, Stop> {
    let Chosen { pipeline, base, mut spec } = chosen;
    let mut objects = objects;
    let here = asked.here;
    for (given, secret) in [(&here.secret, true), (&here.config_map, false)] {
        for KeyValue { name, value } in given {
            objects.take_path(name, Path::new(value), secret).map_err(unusable)?;
        }
    }
    for KeyValue { name, value } in &asked.what.params {
        spec.params.retain(|param| param.name != *name);
        spec.params.push(Param { name: name.clone(), value: value.clone() });
    }
    environment(asked, &mut spec, &mut objects)?;
    for at in &asked.manner.breakpoint {
        let breakpoint = spec.breakpoint.get_or_insert_with(Breakpoint::default);
        match at {
            BreakAt::Failure => breakpoint.at_failure = true,
            BreakAt::Before(step) => breakpoint.before.push(step.clone()),
        }
    }
    if here.wercker.attach_on_error {
        spec.breakpoint.get_or_insert_with(Breakpoint::default).at_failure = true;
    }
    let source = spec.source.as_ref().or(spec.pipeline_spec.as_ref().and_then(|pipeline| pipeline.source.as_ref()));
    // What is written inline is part of the pipeline; all else is what the directory stands for.
    let inline = source.is_some_and(|source| source.inline.is_some());
    let directory = match &here.source {
        Some(given) => Some(given.clone()),
        None if asked.as_written || inline => None,
        None => Some(directory_of(file).to_owned()),
    };
    let directory = directory.map(|path| as_source(&path, asked)).transpose()?;
    if asked.dev {
        all_day(&mut spec);
    }
    Ok(Request {
        name: format!("{}-{}", short(&base), tail()),
        uid: local::new_uid(),
        pipeline,
        spec,
        objects,
        directory,
        runner: runner()?,
        publish: here.publish.iter().map(|port| Published::on_loopback(port.local, port.remote)).collect(),
        logins: DockerLogins::read()
            .map_err(|error| Fault::new(reason::UNREADABLE_FILE, Exit::Usage, error).note("nothing was started"))?,
        trust: trust(here)?,
        beside: local::Beside::default(),
    })
}

/// The directory that is the source. The engine mounts it under its whole path.
///
/// # Errors
/// `UnreadableFile`; `Usage` for what is no directory.
pub(super) fn as_source(path: &Path, asked: &Asked<'_>) -> Result<Directory, Stop> {
    let path = path.canonicalize().map_err(|error| {
        let message = format!("--source {}: {error}", path.display());
        Fault::new(reason::UNREADABLE_FILE, Exit::Usage, message).note("nothing was started")
    })?;
    if !path.is_dir() {
        let fault = Fault::usage(format!("--source {}: is not a directory", path.display()));
        return Err(fault.note("nothing was started").into());
    }
    let mounted = asked.here.direct_mount.unwrap_or(asked.dev);
    // What is given as a Secret is not the project's to have, wherever it lies: an image is made of the source.
    let here = asked.here;
    let secrets = here.secret.iter().map(|given| PathBuf::from(&given.value)).chain(here.secret_env.iter().cloned());
    let apart = secrets.collect();
    Ok(Directory { path, ignore_file: IGNORE_FILE.into(), mounted, apart, ..Directory::default() })
}

/// Who watches a directory does so for longer than a build may take, if the pipeline says nothing of it.
fn all_day(spec: &mut PipelineRunSpec) {
    let Some(pipeline) = spec.pipeline_spec.as_mut() else { return };
    if spec.timeout.is_none() && pipeline.timeout == DEFAULT_TIMEOUT {
        pipeline.timeout = DEV_TIMEOUT.into();
    }
}

fn unusable(error: local::ObjectsError) -> Stop {
    Fault::new(reason::UNREADABLE_FILE, Exit::Usage, error.to_string()).note("nothing was started").into()
}

/// Puts the variables of files and flags into the run; a later one wins.
fn environment(asked: &Asked<'_>, spec: &mut PipelineRunSpec, objects: &mut Objects) -> Result<(), Stop> {
    let here = asked.here;
    let mut set = |name: String, value: Option<String>, secret_key_ref: Option<KeyRef>| {
        spec.env.retain(|var| var.name != name);
        spec.env.push(EnvVar { name, value, secret_key_ref, config_map_key_ref: None });
    };
    for path in &here.env_file {
        for (name, value) in variables(path).map_err(unusable)? {
            set(name, Some(value), None);
        }
    }
    for path in &here.secret_env {
        for (name, value) in variables(path).map_err(unusable)? {
            objects.secrets.entry(SECRET_ENV.into()).or_default().insert(name.clone(), value.into_bytes());
            let key = KeyRef { name: SECRET_ENV.into(), key: name.clone(), ..KeyRef::default() };
            set(name, None, Some(key));
        }
    }
    for KeyValue { name, value } in &asked.what.env {
        set(name.clone(), Some(value.clone()), None);
    }
    match spec.env.iter().find(|var| !can_be_set(&var.name)) {
        Some(wrong) => {
            let message = format!("env {:?}: not a name for a variable", wrong.name);
            Err(Fault::usage(message).note("nothing was started").into())
        }
        None => Ok(()),
    }
}

/// The variables of a file; a name alone takes its value from our own environment, as with Docker.
fn variables(path: &Path) -> Result<Vec<(String, String)>, local::ObjectsError> {
    let lines = local::env_file(path)?;
    let value = |(name, value): (String, Option<String>)| {
        let value = value.or_else(|| std::env::var(&name).ok())?;
        Some((name, value))
    };
    Ok(lines.into_iter().filter_map(value).collect())
}

fn trust(here: &HereArgs) -> Result<Trust, Stop> {
    let mut trust = Trust::default();
    for KeyValue { name, value } in &here.registry_ca {
        let unreadable = |error: std::io::Error| {
            Fault::new(reason::UNREADABLE_FILE, Exit::Usage, format!("--registry-ca {name}: {value}: {error}"))
        };
        let mut text = String::new();
        let file = std::fs::File::open(value).map_err(unreadable)?;
        std::io::Read::read_to_string(&mut std::io::Read::take(file, CA_BYTES), &mut text).map_err(unreadable)?;
        trust.ca_pem.push((name.clone(), text));
    }
    Ok(trust)
}

/// The runner: beside this program, or where the environment says.
fn runner() -> Result<PathBuf, Stop> {
    if let Some(path) = std::env::var_os(RUNNER_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from) {
        if path.is_file() {
            return Ok(path);
        }
        let message = format!("{RUNNER_VARIABLE}={}: there is no such file", path.display());
        let fault = Fault::new(reason::ENGINE_UNREACHABLE, Exit::World, message);
        let hint = format!("it names {}; unset it if that is beside windlass", wire::RUNNER_FILE);
        return Err(fault.note("nothing was started").hint(hint).into());
    }
    let own = std::env::current_exe().and_then(|path| path.canonicalize());
    let beside = own.map(|path| path.with_file_name(wire::RUNNER_FILE));
    let place = match beside {
        Ok(path) if path.is_file() => return Ok(path),
        found => found.map_or_else(|error| error.to_string(), |path| path.display().to_string()),
    };
    let message = format!("there is no {place}, which runs the steps");
    let fault = Fault::new(reason::ENGINE_UNREACHABLE, Exit::World, message);
    Err(fault.hint(format!("put {} beside windlass, or set {RUNNER_VARIABLE} to it", wire::RUNNER_FILE)).into())
}

/// The engine that `DOCKER_HOST` names. Its directories must be those of this machine.
pub(super) fn engine_address() -> Result<String, Stop> {
    let host = docker::host();
    if host.starts_with('/') || host.starts_with("unix://") {
        return Ok(host);
    }
    let of_this_machine = |address: &str| {
        let name = address.rsplit_once(':').map_or(address, |(name, _)| name).trim_matches(['[', ']']);
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    match host.strip_prefix("tcp://") {
        Some(address) if of_this_machine(address.trim_end_matches('/')) => Ok(host),
        _ => {
            let message = format!(
                "DOCKER_HOST={host}: a run on Docker needs an engine on this machine, as the box mounts directories of it"
            );
            let fault = Fault::new(reason::ENGINE_UNREACHABLE, Exit::World, message);
            Err(fault.hint("unset DOCKER_HOST, or set it to unix:///SOCKET").into())
        }
    }
}

/// A base that leaves room for what makes names differ.
fn short(base: &str) -> String {
    let base: String = base.chars().take(40).collect();
    base.trim_end_matches('-').to_owned()
}

/// Five characters that no other run of this machine is likely to have: as the API server makes them.
fn tail() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let letter = |_| LETTERS.get(rand::random_range(0..LETTERS.len())).map_or('x', |b| char::from(*b));
    (0..5).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_runs_are_names_of_containers() {
        assert_eq!(short(&"a-".repeat(40)), format!("{}a", "a-".repeat(19)));
        let tails: std::collections::BTreeSet<String> = (0..100).map(|_| tail()).collect();
        assert!(tails.len() > 90 && tails.iter().all(|tail| tail.len() == 5), "{tails:?}");
    }
}
