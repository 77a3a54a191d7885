//! Runs on the local engine, without a cluster: one process plays controller, kubelet, `prepare` and agent.
//!
//! ```text
//! client::here ─> start ─> node: controller::{resolve, order, judge, status} ─> PipelineRun as in a cluster
//!                   ├─ setup: images, network, box, services (engine) and prepare::here, in a directory
//!                   │         that is laid out as the kubelet's, so that the agent's code finds its way
//!                   └─ agent::follow ─> agent::push ─> door ─> registry (the user's docker login)
//! ```
//!
//! This is a composition root: the one place that may import several roles. What it adds is only what the cluster does
//! otherwise: containers, Secrets from files, logins, cleaning up.
//!
//! **Invariant:** all that is made on the engine or on disk carries its owner, is removed at the run's end, however it
//! ends, and else by the next run. No name of a user, no credential and no Secret of the box reaches the engine.

mod checkpoint;
mod containers;
mod context;
mod directory;
mod dockerignore;
mod kept;
mod login;
mod masked;
mod node;
mod objects;
mod owner;
mod services;
mod setup;
mod trust;
mod unpack;
mod words;
mod workshop;

pub use checkpoint::Checkpoint;
pub use containers::{box_name, service_name};
pub use directory::base;
pub use kept::Kept;
pub use objects::{Keys, Objects, ObjectsError, env_file};

use crate::{
    agent::run::Wish,
    api::{PipelineRun, PipelineRunSpec, condition::reason},
    controller::resolve::{self, Refusal},
    engine::{
        EngineError,
        docker::{
            DockerEngine,
            containers::{Bind, Publish},
        },
    },
    mask::Mask,
    prepare::Directory,
    registry::{Client as RegistryClient, Trust, docker_config::DockerLogins},
};
use bytes::Bytes;
use nix::sys::stat::{Mode, umask};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};

/// Namespace of local runs, where one has to be named.
pub const NAMESPACE: &str = "local";
/// Where a directory is mounted if `box.workingDir` does not say: where its copy would be.
const SOURCE: &str = "/pipeline/source";
/// When what dead runs left is looked for, if there is no box by then.
const SWEEP_LATEST: Duration = Duration::from_secs(1);
/// How long a sweep may go on after its run.
const SWEEP_GRACE: Duration = Duration::from_secs(10);
/// How long the engine may take to say that it is there.
const ENGINE_PATIENCE: Duration = Duration::from_secs(20);
/// Pieces of output that wait for a slow reader.
const OUTPUT_QUEUE: usize = 256;

/// What to run.
#[derive(Clone)]
pub struct Request {
    /// Name of the run.
    pub name: String,
    /// Its UID, of [`new_uid`].
    pub uid: String,
    /// The Pipeline it is made from, if that has a name.
    pub pipeline: Option<String>,
    /// The run, with its pipeline inline.
    pub spec: PipelineRunSpec,
    /// Secrets and ConfigMaps.
    pub objects: Objects,
    /// The source; none: as the pipeline says.
    pub directory: Option<Directory>,
    /// The runner's executable.
    pub runner: PathBuf,
    /// Ports of the box that this machine has.
    pub publish: Vec<Publish>,
    /// The user's logins.
    pub logins: DockerLogins,
    /// What is trusted beside the public registries, and what the engine's settings say.
    pub trust: Trust,
    /// What has no place in a pipeline.
    pub beside: Beside,
}

/// What a run on this machine can have that a pipeline cannot say.
#[derive(Clone, Default)]
pub struct Beside {
    /// Directories of this machine in the box.
    pub binds: Vec<Bind>,
    /// The same in services, by their names.
    pub of_services: BTreeMap<String, Vec<Bind>>,
    /// Whether the box may do all that the engine may: what Wercker's `docker: true` gave.
    pub privileged: bool,
    /// Logins for pulls, by image: user name and password. They win over the user's.
    pub logins: BTreeMap<String, (String, String)>,
    /// Whether containers and network stay.
    pub keep: bool,
    /// Whether there is a flag for that: `--no-remove`.
    pub can_keep: bool,
    /// The checkpoint that the box is made of.
    pub checkpoint: Option<Checkpoint>,
    /// Whether steps use images of this machine only.
    pub docker_local: bool,
    /// Where a step that keeps files puts them.
    pub keep_in: Option<Kept>,
    /// What an earlier run kept, and nobody may use once this one has begun.
    pub outdated: Option<Kept>,
}

impl Beside {
    /// Makes the directories of this machine that containers are to have and that are missing.
    fn make_sources(&self) -> Result<(), Refusal> {
        let binds = self.binds.iter().chain(self.of_services.values().flatten());
        for source in binds.map(|bind| &bind.source).filter(|source| !source.exists()) {
            std::fs::create_dir_all(source).map_err(|error| {
                let message = format!("the directory {} cannot be made: {error}", source.display());
                Refusal { reason: reason::INVALID_PIPELINE, message }
            })?;
        }
        Ok(())
    }
}

/// A directory of this process beside those of its runs. It goes when this is dropped, or with the next sweep.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make() -> std::io::Result<Self> {
        let path = directory::base()?.join(new_uid());
        // No box ever wrote there.
        directory::make_root(&path, &owner::Owner::me()?, "-")?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is left to the sweep.
        let _ = std::fs::remove_dir_all(&self.0);
        directory::leave_base();
    }
}

/// A new UID for a run.
#[must_use]
pub fn new_uid() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Why a run cannot be started; nothing was.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pipeline cannot be run.
    #[error("{}: {}", .0.reason, .0.message)]
    Refused(Refusal),
    /// The box is to be made of a checkpoint that nobody made.
    #[error("{0}")]
    NoCheckpoint(String),
    /// The engine is away.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// This machine does not let us.
    #[error("{0}")]
    Machine(String),
    /// The directory for temporary files cannot be used.
    #[error("{0}")]
    Temporary(String),
}

/// A run that was started.
pub struct Started {
    /// The run, as the API server of a cluster would show it.
    pub changes: watch::Receiver<PipelineRun>,
    /// What the box prints, from its beginning.
    pub output: mpsc::Receiver<Bytes>,
    /// What is to be known of the run beside its state.
    pub notices: mpsc::UnboundedReceiver<String>,
    engine: DockerEngine,
    wish: Arc<watch::Sender<Wish>>,
    task: JoinHandle<Option<Stayed>>,
    sweep: JoinHandle<()>,
}

/// What stays of a run because that was asked for; no later run removes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stayed {
    /// Names of containers, none of which runs.
    pub containers: Vec<String>,
    /// Name of its network.
    pub network: Option<String>,
}

impl Started {
    /// Ends the step, then runs the after-steps.
    pub fn cancel(&self) {
        self.wish.send_if_modified(|wish| std::mem::replace(wish, (*wish).max(Wish::Cancel)) < Wish::Cancel);
    }

    /// Ends the run at once.
    pub fn abandon(&self) {
        self.wish.send_replace(Wish::Abandon);
    }

    /// The same, from elsewhere.
    pub fn abandoning(&self) -> impl FnOnce() + Send + 'static {
        let wish = Arc::clone(&self.wish);
        move || {
            wish.send_replace(Wish::Abandon);
        }
    }

    /// Whether the engine is at something of the run that nobody can break off.
    #[must_use]
    pub fn may_still_commit(&self) -> bool {
        self.engine.may_still_commit()
    }

    /// Waits until the run has ended and nothing is left of it but what is to stay.
    pub async fn cleaned(self) -> Option<Stayed> {
        // A panic in there has been told.
        let stayed = self.task.await.ok().flatten();
        // What it is at is ours too, while it is at it.
        let _ = tokio::time::timeout(SWEEP_GRACE, self.sweep).await;
        stayed
    }
}

/// Removes what dead runs left, who may hold a port that is wanted.
///
/// # Errors
/// When this machine does not let us.
pub async fn sweep(engine: &DockerEngine) -> Result<(), StartError> {
    let machine = |error: std::io::Error| StartError::Machine(error.to_string());
    let owner = owner::Owner::me().map_err(machine)?;
    let base = directory::base().map_err(|error| StartError::Temporary(error.to_string()))?;
    owner::sweep(engine.clone(), base, owner).await;
    // The run may not begin: its port may be somebody else's.
    directory::leave_base();
    Ok(())
}

/// Starts a run.
///
/// # Errors
/// When the pipeline cannot be run, or the engine or this machine does not allow it.
pub async fn start(request: Request, engine: DockerEngine) -> Result<Started, StartError> {
    let mask = request.mask(std::iter::empty());
    begin(request, engine).await.map_err(|error| {
        directory::leave_base();
        masked_error(&mask, error)
    })
}

fn masked_error(mask: &Mask, error: StartError) -> StartError {
    match error {
        StartError::Refused(refusal) => {
            StartError::Refused(Refusal { message: mask.text(&words::of_step(&refusal.message)), ..refusal })
        }
        StartError::Machine(message) => StartError::Machine(mask.text(&message)),
        StartError::NoCheckpoint(message) => StartError::NoCheckpoint(mask.text(&message)),
        StartError::Engine(_) | StartError::Temporary(_) => error,
    }
}

async fn begin(request: Request, engine: DockerEngine) -> Result<Started, StartError> {
    let mut request = request;
    // As in `prepare` of a cluster: the box's user must be able to read what git and others write for it. Nobody else
    // comes so far, as the directory around it is the user's alone.
    umask(Mode::from_bits_truncate(0o022));
    let pipeline = request.spec.pipeline_spec.clone().unwrap_or_default();
    let mut resolved = resolve::resolve(&request.spec, &pipeline).map_err(StartError::Refused)?;
    login::stand_in(&mut resolved.spec, &request.objects);
    if let Some(directory) = &request.directory {
        // Nothing is fetched.
        resolved.spec.source = None;
        if directory.mounted {
            resolved.spec.box_.working_dir.get_or_insert_with(|| SOURCE.to_owned());
        }
    }
    containers::check(&resolved.spec).map_err(StartError::Refused)?;
    let owner = owner::Owner::me().map_err(|e| StartError::Machine(format!("cannot tell who this process is: {e}")))?;
    let base = directory::base().map_err(|e| StartError::Temporary(e.to_string()))?;
    // Its settings take long to tell, and only a push needs them.
    let pushes = pipeline.all_steps().any(|(_, step)| step.docker_push.is_some() || step.docker_scratch_push.is_some());
    let insecure = async { if pushes { engine.insecure_registries().await } else { Ok(Vec::new()) } };
    let answers = async { tokio::join!(crate::engine::Engine::ping(&engine), insecure) };
    let (info, insecure) =
        tokio::time::timeout(ENGINE_PATIENCE, answers).await.map_err(|_| engine.silent(ENGINE_PATIENCE))?;
    info?;
    if let Some(checkpoint) = &request.beside.checkpoint {
        checkpoint.check(&resolved.spec.box_.image, &engine).await?;
    }
    request.trust.insecure_hosts.extend(insecure?);
    trust::as_the_engine(&mut request.trust, &resolved.spec).await;
    let registry = RegistryClient::new(request.trust.clone())
        .map_err(|error| StartError::Machine(format!("registries: {error}")))?;
    request.beside.make_sources().map_err(StartError::Refused)?;
    if let Some(outdated) = request.beside.outdated.clone() {
        let path = outdated.path();
        let cleared = tokio::task::spawn_blocking(move || outdated.clear()).await.map_err(std::io::Error::other);
        cleared
            .flatten()
            .map_err(|error| StartError::Machine(format!("{} of an earlier run: {error}", path.display())))?;
    }
    let box_made = Arc::new(Notify::new());
    let (made, sweep) = (Arc::clone(&box_made), owner::sweep(engine.clone(), base.clone(), owner.clone()));
    let sweep = tokio::spawn(async move {
        // Before the box is there the run itself waits for the engine.
        let _ = tokio::time::timeout(SWEEP_LATEST, made.notified()).await;
        sweep.await;
    });
    let (wish, wished) = watch::channel(Wish::Go);
    let (sender, output) = mpsc::channel(OUTPUT_QUEUE);
    let (node, changes, notices) = node::Node::new(request, resolved, engine.clone(), registry, owner, base);
    let task = tokio::spawn(node.carry_out(wished, sender, box_made));
    Ok(Started { changes, output, notices, engine, wish: Arc::new(wish), task, sweep })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Nothing but a timer wakes this test, so the clock jumps to it.
    #[tokio::test(start_paused = true)]
    async fn an_engine_that_never_answers_is_told_with_its_address() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let engine = DockerEngine::of_local_runs(socket.to_str().unwrap()).unwrap();
        let pipeline = json!({"box": {"image": "debian"}, "steps": [{"name": "a", "script": "true"}]});
        let spec = serde_json::from_value(json!({"pipelineSpec": pipeline})).unwrap();
        let began = tokio::time::Instant::now();
        let error = start(Request { spec, ..containers::tests::request() }, engine).await.err().unwrap();
        let told = format!("reach the engine at {}: no answer for 20 s", socket.display());
        assert_eq!((error.to_string(), began.elapsed().as_secs()), (told, ENGINE_PATIENCE.as_secs()));
    }
}
