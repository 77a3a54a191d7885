//! A `wercker.yml` on this machine: which pipeline of it, with which variables, and the request of its run.
//!
//! `here` hands over when the project's file is one. What runs is what `convert` makes of it.
//!
//! **Invariant:** what cannot be run is told at its place in the file, and then nothing was started. A value that was
//! given as a secret is in a Secret from there on.

mod cache;
mod engine;
mod files;
mod outputs;
mod ports;
mod targets;

pub(super) use engine::must_pass;

use super::{
    Session,
    args::WerckerArgs,
    check::{Input, of_made},
    convert::{local_steps, steps_beside},
    exit::Exit,
    fault::{Fault, Stop, one_line, reason},
    findings::Report,
    here::{BUILD, DEPLOY, play},
    project,
    request::{Asked, as_source, request},
    signals::{Between, Signals},
    style::Mode,
};
use crate::{
    api::{Pipeline as Resource, env::EnvVar, pipeline::ImagePullPolicy},
    engine::docker::containers::Bind,
    local::{self, Kept, Objects, Request},
    mask::Mask,
    prepare::Directory,
    wercker::{
        convert::{
            CONFIG_MAP, Here, MadeHere, Options, SECRET,
            here::{Beside, TEXTS, Volume},
        },
        document::{Document, Pipeline, Step, Text, WorkflowNode},
        environment::Environment,
        read_all,
    },
    wire,
    yaml::Findings,
};
use std::path::{Path, PathBuf};

/// Patterns of files that do not come along, unless the file names another.
const IGNORE_FILE: &str = ".werckerignore";
/// What Wercker itself left out.
const OWN_FILES: &str = "/.wercker/";
/// The engine's socket in a box with `docker: true`.
const SOCKET: &str = "/var/run/docker.sock";
/// Where the output of the last build and deploy is kept.
const LATEST: &str = ".wercker/latest/output";
/// The room of the former. There without it: a build was to keep its output and did not get so far.
const ROOM: &str = ".wercker/latest";
const LATEST_DEPLOY: &str = ".wercker/latest_deploy/output";
/// Where Wercker had the cache; scripts name it.
const CACHE_OF_WERCKER: &str = "/pipeline/cache";

/// A `wercker.yml` that was read.
pub(super) struct Yml {
    /// The project, by its true path.
    directory: PathBuf,
    /// The file, likewise.
    path: PathBuf,
    input: Input,
    document: Document,
}

/// A pipeline that is to be run.
struct Turn<'a> {
    pipeline: &'a Pipeline,
    target: Option<&'a (Text, Vec<Step>)>,
    /// The target's name, though the pipeline may have none of it.
    target_name: Option<String>,
    /// What an earlier run kept, in place of the project.
    source: Option<PathBuf>,
    /// Where its output goes.
    keep_in: Option<Kept>,
    /// Files of variables, which are in no source: an image is made of it.
    apart: Vec<PathBuf>,
}

/// Runs a pipeline of the file.
///
/// # Errors
/// What keeps the run from starting.
pub(super) async fn pipeline(
    session: &mut Session,
    asked: &Asked<'_>,
    file: &Path,
    input: Input,
) -> Result<Exit, Stop> {
    let Some(yml) = Yml::of(session, file, input)? else { return Ok(Exit::Usage) };
    let mut turn = yml.turn(asked, session.name)?;
    let mut files = yml.files(&asked.here.wercker)?;
    let environment = files.environment(None)?;
    tell_odd(session, &files)?;
    turn.apart = files.read;
    let latest = Kept::new(&yml.directory, LATEST);
    if asked.deploys && asked.here.source.is_none() {
        turn.source = kept_by_build(session, &latest)?;
    }
    let kept = if asked.deploys { Kept::new(&yml.directory, LATEST_DEPLOY) } else { latest };
    turn.keep_in = asked.here.wercker.artifacts.then(|| kept.clone());
    // Its output is what `deploy` begins with.
    let is_build = !asked.deploys && turn.pipeline.name.value == BUILD;
    match yml.request(session, asked, &turn, &environment)? {
        Some(mut request) => {
            if turn.keep_in.is_some() {
                kept.make().map_err(|error| not_kept(&error))?;
            }
            // `deploy` begins with what the last build kept, not with what one before it did.
            request.beside.outdated = (is_build || turn.keep_in.is_some()).then(|| kept.clone());
            let keeps = request.beside.outdated.is_some();
            let exit = play(session, asked, request, &mut Signals::catch()?).await?;
            if keeps && exit == Exit::Success {
                kept.give_up()
                    .map_err(|error| Fault::new(reason::OUTPUT_FAILED, Exit::World, format!("{ROOM}: {error}")))?;
            }
            Ok(exit)
        }
        None => Ok(Exit::Usage),
    }
}

/// What a deploy begins with, if not with the project.
fn kept_by_build(session: &mut Session, latest: &Kept) -> Result<Option<PathBuf>, Stop> {
    let unclear = |error| not_kept(&error).hint("or name the source: --source DIR");
    let source = latest.find().map_err(unclear)?;
    if source.is_some() {
        session.screen.message(&format!("the source is what the last build kept: {LATEST}"))?;
    } else if latest.is_missing().map_err(unclear)? {
        // Other files in their place are not what was to be deployed.
        let said = format!("the last build kept no output in {ROOM}: it failed, was stopped or has not ended");
        let hint = format!("{} build --artifacts; or, to deploy the source as it is: rm -r {ROOM}", session.name);
        return Err(Fault::new(reason::NOT_FOUND, Exit::NotFound, said).note("nothing was started").hint(hint).into());
    }
    Ok(source)
}

/// Tells which lines of files of variables set nothing.
fn tell_odd(session: &mut Session, files: &files::Files<'_>) -> Result<(), Stop> {
    files.odd.iter().try_for_each(|odd| session.screen.message(&one_line(odd))).map_err(Stop::from)
}

fn not_kept(error: &std::io::Error) -> Fault {
    Fault::new(reason::UNREADABLE_FILE, Exit::Usage, error.to_string()).note("nothing was started")
}

/// Runs the pipelines of a workflow, one after the other, up to the first that fails.
///
/// # Errors
/// What keeps a run from starting.
pub(super) async fn workflow(
    session: &mut Session,
    asked: &Asked<'_>,
    file: &Path,
    input: Input,
    name: &str,
) -> Result<Exit, Stop> {
    let Some(yml) = Yml::of(session, file, input)? else { return Ok(Exit::Usage) };
    let Some(workflow) = yml.document.workflows.iter().find(|workflow| workflow.name.value == name) else {
        let names: Vec<&str> = yml.document.workflows.iter().map(|workflow| workflow.name.value.as_str()).collect();
        let verb = format!("{} workflow", session.name);
        return Err(project::missing("workflow", name, &yml.input.name, &names, &verb));
    };
    yml.has_target(workflow, asked.here.wercker.deploy_target.as_deref())?;
    // Whatever pipeline reads them, none of them is in the source of another.
    let mut files = yml.files(&asked.here.wercker)?;
    let environments = workflow.nodes.iter().map(|node| files.environment(node.env_file.as_ref()));
    let environments = environments.collect::<Result<Vec<_>, _>>()?;
    tell_odd(session, &files)?;
    // All of it is judged before any of it begins.
    for (node, environment) in workflow.nodes.iter().zip(&environments) {
        let turn = yml.turn_of(asked, node, session.name)?;
        if !yml.can_run(session, asked, &turn, environment)? {
            return Ok(Exit::Usage);
        }
    }
    let outputs = outputs::Outputs::make()?;
    let mut between = Between::catch()?;
    for (place, (node, environment)) in workflow.nodes.iter().zip(environments).enumerate() {
        let names = |from: usize| {
            let left = workflow.nodes.iter().skip(from).map(|node| node.name.value.as_str());
            left.collect::<Vec<_>>().join(", ")
        };
        let mut turn = yml.turn_of(asked, node, session.name)?;
        turn.source = outputs.source(workflow, node)?;
        turn.keep_in = Some(outputs.of(workflow, &node.name.value)?);
        turn.apart.clone_from(&files.read);
        let Some(request) = yml.request(session, asked, &turn, &environment)? else { return Ok(Exit::Usage) };
        // What came while the run before was cleaned up; it says nothing of it itself.
        if let Some(exit) = between.ends() {
            session.screen.message(&one_line(&format!("workflow {name} ends; not run: {}", names(place))))?;
            return Ok(exit);
        }
        session.screen.message(&one_line(&format!("pipeline {} of workflow {name}", node.name.value)))?;
        let left = Some(names(place + 1)).filter(|left| !left.is_empty());
        let asked = Asked { unless_passed: left.map(|left| format!("not run: {left}")), ..asked.clone() };
        let exit = play(session, &asked, request, &mut between.signals).await?;
        if exit != Exit::Success {
            return Ok(exit);
        }
    }
    Ok(Exit::Success)
}

impl Yml {
    /// Reads what a file holds. `None`: it is told what is wrong with it.
    fn of(session: &mut Session, file: &Path, mut input: Input) -> Result<Option<Self>, Stop> {
        input.name = input.name.strip_prefix("./").unwrap_or(&input.name).to_owned();
        let (document, findings) = read_all(&input.text);
        // The file itself may be a link; what is beside the link is meant.
        let directory = whole(project::directory_of(file))?;
        let path = file.file_name().map_or_else(|| file.to_owned(), |name| directory.join(name));
        let yml = Self { directory, path, input, document };
        Ok(yml.tell(session, &findings)?.then_some(yml))
    }

    /// Tells what was found; whether it can be run all the same.
    fn tell(&self, session: &mut Session, findings: &Findings) -> Result<bool, Stop> {
        let failed = findings.has_errors();
        // A run has events of its own, from its beginning.
        if findings.list().is_empty() || !failed && session.look.mode == Mode::Json {
            return Ok(!failed);
        }
        let mut report = Report::begin(session)?;
        report.file(session, &self.input.name, &self.input.text, findings)?;
        if failed {
            session.screen.message("  nothing was started")?;
            report.end(session, Exit::Usage)?;
        }
        Ok(!failed)
    }

    /// Which pipeline is meant.
    fn turn(&self, asked: &Asked<'_>, program: &str) -> Result<Turn<'_>, Stop> {
        let pipeline = match (asked.pipeline, self.document.pipelines.as_slice()) {
            (Some(name), _) => self.pipeline(name, program)?,
            (None, [only]) => only,
            (None, _) => {
                let several = self.names().join(", ");
                let said = format!("{} holds several: {several}; say which one", self.input.name);
                return Err(Fault::usage(said).note("nothing was started").into());
            }
        };
        let target = asked.here.wercker.deploy_target.as_deref();
        targets::any(&format!("pipeline {}", pipeline.name.value), &[pipeline], target)?;
        self.target(pipeline, target)
    }

    /// The same of a pipeline of a workflow: it may be one without targets, if another has the one that is named.
    fn turn_of(&self, asked: &Asked<'_>, node: &WorkflowNode, program: &str) -> Result<Turn<'_>, Stop> {
        let pipeline = self.pipeline(&node.pipeline.value, program)?;
        self.target(pipeline, asked.here.wercker.deploy_target.as_deref())
    }

    fn names(&self) -> Vec<&str> {
        self.document.pipelines.iter().map(|pipeline| pipeline.name.value.as_str()).collect()
    }

    fn pipeline(&self, name: &str, program: &str) -> Result<&Pipeline, Stop> {
        let found = self.document.pipeline(name);
        found.ok_or_else(|| project::no_pipeline(name, &self.input.name, &self.names(), program))
    }

    /// The files of variables that a run reads.
    fn files(&self, args: &WerckerArgs) -> Result<files::Files<'_>, Stop> {
        files::Files::read(&self.directory, args.environment.as_deref())
    }

    /// Whether a run can be made; if not, it is told what is wrong.
    fn can_run(
        &self,
        session: &mut Session,
        asked: &Asked<'_>,
        turn: &Turn<'_>,
        environment: &Environment,
    ) -> Result<bool, Stop> {
        // Warnings are told when its turn comes.
        match self.made(asked, turn, environment) {
            Ok((Some(_), _)) => Ok(true),
            Ok((None, _)) | Err(_) => Ok(self.request(session, asked, turn, environment)?.is_some()),
        }
    }

    /// Makes the request of a run. `None`: it is told what is wrong, without values that are hidden.
    fn request(
        &self,
        session: &mut Session,
        asked: &Asked<'_>,
        turn: &Turn<'_>,
        environment: &Environment,
    ) -> Result<Option<Request>, Stop> {
        let mask = Mask::new(environment.hidden.values().map(String::as_str));
        match self.made(asked, turn, environment) {
            Ok((request, findings)) => {
                let fits = self.tell(session, &findings.masked(&mask))?;
                let request = request.filter(|_| fits);
                if let Some(said) = request.as_ref().and_then(|request| cache::too_large(&request.beside.binds)) {
                    session.screen.message(&said)?;
                }
                Ok(request)
            }
            Err(stop) => Err(stop.masked(&mask)),
        }
    }

    /// The request of a run, if it can be made, and what is to be told.
    fn made(
        &self,
        asked: &Asked<'_>,
        turn: &Turn<'_>,
        environment: &Environment,
    ) -> Result<(Option<Request>, Findings), Stop> {
        let args = &asked.here.wercker;
        let options = Options {
            file: self.input.name.clone(),
            git: None,
            local: local_steps(&self.document, &steps_beside(&self.path, args.steps.as_deref())),
            here: Some(Here {
                environment: environment.clone(),
                deploys: asked.deploys,
                docker_local: args.docker_local,
                checkpoint: args.checkpoint.clone(),
            }),
        };
        let made = match crate::wercker::convert::here(&self.document, &options, turn.pipeline, turn.target) {
            Ok(made) => made,
            Err(findings) => return Ok((None, findings)),
        };
        let mut findings = of_made(turn.pipeline, &made);
        let (ports, wrong) = ports::of(&made, args.expose_ports);
        findings.extend(wrong);
        if findings.has_errors() {
            return Ok((None, findings));
        }
        let mut resource: Resource = serde_yaml::from_str(&made.yaml)
            .map_err(|error| Fault::new(reason::INVALID_RUN, Exit::Usage, format!("{}: {error}", self.input.name)))?;
        engine::exchange(&mut resource.spec, &made, args, turn.keep_in.is_some())?;
        let objects = objects(environment, &made);
        let mut request = request(asked, &self.path, objects, project::of_pipeline(&resource))?;
        self.variables(&mut request, turn, asked.deploys);
        if args.docker_local {
            never_pull(&mut request);
        }
        request.publish.extend(ports);
        // The source is never the file's to say.
        let directory = match request.directory.take() {
            Some(directory) => directory,
            None => as_source(&self.directory, asked)?,
        };
        request.directory = Some(self.source(directory, turn));
        request.beside = self.beside(&made, args, &request.name)?;
        request.beside.keep_in.clone_from(&turn.keep_in);
        Ok((Some(request), findings))
    }

    fn source(&self, directory: Directory, turn: &Turn<'_>) -> Directory {
        if let Some(kept) = &turn.source {
            let of = Some(self.directory.clone());
            return Directory { path: kept.clone(), of, ..Directory::default() };
        }
        let ignore_file = self.document.ignore_file.as_ref().map_or(IGNORE_FILE, |file| file.value.as_str()).to_owned();
        let apart = directory.apart.iter().chain(&turn.apart).cloned().collect();
        Directory { ignore_file, ignore: vec![OWN_FILES.to_owned()], apart, ..directory }
    }

    /// Variables that Wercker made of the application and the run. There is no page of either, so their addresses are
    /// empty.
    fn variables(&self, request: &mut Request, turn: &Turn<'_>, deploys: bool) {
        let name = self.directory.file_name();
        let application = name.map_or_else(|| "project".into(), |name| name.to_string_lossy().into_owned());
        let owner = std::env::var("USER").ok().filter(|user| !user.is_empty()).unwrap_or_else(|| "local".into());
        let kind = if deploys || turn.pipeline.name.value == DEPLOY { "DEPLOY" } else { "BUILD" };
        let mut list = vec![
            ("WERCKER_APPLICATION_ID".to_owned(), format!("{owner}/{application}")),
            ("WERCKER_APPLICATION_NAME".to_owned(), application),
            ("WERCKER_APPLICATION_OWNER_NAME".to_owned(), owner),
            ("WERCKER_APPLICATION_URL".to_owned(), String::new()),
            ("WERCKER_RUN_URL".to_owned(), String::new()),
            (format!("WERCKER_{kind}_ID"), request.uid.clone()),
            (format!("WERCKER_{kind}_URL"), String::new()),
        ];
        if turn.target.is_none() {
            list.extend(turn.target_name.clone().map(|name| ("WERCKER_DEPLOYTARGET_NAME".to_owned(), name)));
        }
        if turn.pipeline.docker.is_some() {
            list.push(("DOCKER_HOST".into(), format!("unix://{SOCKET}")));
            list.push(("DOCKER_NETWORK_NAME".into(), local::box_name(&request.name)));
        }
        let set = |(name, value): (String, String)| EnvVar { name, value: Some(value), ..EnvVar::default() };
        let given: Vec<String> = request.spec.env.iter().map(|var| var.name.clone()).collect();
        request.spec.env.extend(list.into_iter().filter(|(name, _)| !given.contains(name)).map(set));
    }

    /// What the run has beside its pipeline.
    fn beside(&self, made: &MadeHere, args: &WerckerArgs, run: &str) -> Result<local::Beside, Stop> {
        let volumes = |beside: &Beside| {
            let enabled = args.enable_volumes || made.docker;
            let volumes = if enabled { beside.volumes.as_slice() } else { &[] };
            volumes.iter().map(|volume| self.volume(volume)).collect::<Vec<Bind>>()
        };
        let mut binds = volumes(&made.of_box);
        let cache = cache::of(&self.directory)?;
        for target in [wire::CACHE_DIR, CACHE_OF_WERCKER] {
            binds.push(Bind { source: cache.clone(), target: target.into(), read_only: false });
        }
        for (directory, place) in &made.steps {
            binds.push(Bind { source: whole(directory)?, target: place.clone(), read_only: true });
        }
        if made.docker {
            let host = super::request::engine_address()?;
            let socket = host.strip_prefix("unix://").unwrap_or(&host);
            if !socket.starts_with('/') {
                let said = format!("docker: true needs the engine's socket, and DOCKER_HOST is {host}");
                return Err(Fault::usage(said).note(format!("{run} was not started")).into());
            }
            binds.push(Bind { source: socket.into(), target: SOCKET.into(), read_only: false });
        }
        let mut of_services = std::collections::BTreeMap::new();
        for (name, beside) in &made.of_services {
            of_services.insert(name.clone(), volumes(beside));
        }
        let logins = made.logins.clone();
        let (privileged, keep) = (made.docker, args.no_remove);
        let docker_local = args.docker_local;
        let own = local::Beside { binds, of_services, privileged, logins, keep, docker_local, ..Default::default() };
        let prefix = crate::wercker::convert::CHECKPOINT;
        let checkpoint = args.checkpoint.clone().map(|name| local::Checkpoint { name, prefix });
        Ok(local::Beside { can_keep: true, checkpoint, ..own })
    }

    /// A volume. A directory that is missing is made once the run starts, as Docker did it for Wercker.
    fn volume(&self, volume: &Volume) -> Bind {
        let path = self.directory.join(&volume.here);
        let source = path.canonicalize().unwrap_or(path);
        Bind { source, target: volume.there.clone(), read_only: volume.read_only }
    }
}

/// The true path: the engine is given no other.
fn whole(path: &Path) -> Result<PathBuf, Stop> {
    path.canonicalize().map_err(|error| {
        Fault::new(reason::UNREADABLE_FILE, Exit::Usage, format!("{}: {error}", path.display())).into()
    })
}

/// The variables of the run as a ConfigMap, and those that are protected as a Secret.
fn objects(environment: &Environment, made: &MadeHere) -> Objects {
    let bytes = |(name, value): (&String, &String)| (name.clone(), value.clone().into_bytes());
    let mut secret: local::Keys = environment.hidden.iter().map(bytes).collect();
    let mut plain: local::Keys = environment.seen.iter().map(bytes).collect();
    for name in &made.protected {
        secret.extend(plain.remove_entry(name));
    }
    let texts: local::Keys = made.texts.iter().map(bytes).collect();
    let mut objects = Objects::default();
    objects.config_maps.insert(CONFIG_MAP.into(), plain);
    objects.secrets.insert(SECRET.into(), secret);
    objects.secrets.insert(TEXTS.into(), texts);
    objects
}

/// Lets the run use images of this machine only.
fn never_pull(request: &mut Request) {
    if let Some(spec) = &mut request.spec.pipeline_spec {
        spec.box_.image_pull_policy = Some(ImagePullPolicy::Never);
        spec.services.iter_mut().for_each(|service| service.image_pull_policy = Some(ImagePullPolicy::Never));
    }
}
