//! Carries out `dockerPush`, `dockerScratchPush` and `storeContainer`: from the request to a verdict, across crashes of
//! the agent. To store a container is to push it, to where the administrator says.
//!
//! `follow` runs [`carry_out`] as a task; [`Transport`] is the engine and the registry.
//!
//! What survives a crash is the run's status: the digest stands there before the first tag moves, and tags move
//! in order. A manifest is put under tags only: if the registry has it, this push moved a tag, or an earlier one made the
//! same image.
//!
//! **Invariant:** each tag is moved at most once. Properties come from the frozen spec; of the box only the
//! environment is taken, to expand them, and the files that it packed.

mod here;

pub use here::HereWork;

use super::{
    credentials::{self, Logins, Sought},
    files::{FileError, Volumes},
    line::Line,
    run::Run,
    shelf::{self, Shelf, Slot},
    work::Verdict,
};
use crate::{
    api::{
        Step,
        condition::reason,
        push::{DockerPush, SecretsInImage},
        status::ImageStatus,
        step::{StepKind, StoreContainer},
    },
    registry::{Credentials, NamedSecret, PushError, Pushed, Repository, scan::Needles},
    steps::{
        self, StepError,
        docker_push::{
            self, PushPlan,
            scratch::{self, ScratchPlan, Shape},
        },
        store_container,
    },
    wire::{self, PackFault, Packed, Request, archive_file, request_file},
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::{collections::BTreeMap, fs::File, sync::Arc, time::Duration};

/// Largest request: the environment twice.
const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;
/// How often a push is tried if the engine is in trouble.
const MAX_TRIES: u32 = 5;
/// How often it is tried if the registry is: each try has waited for it long enough by itself.
const MAX_REGISTRY_TRIES: u32 = 2;
/// How many values that cannot be looked for a message names.
const MAX_MISSED: usize = 5;
/// First pause between two tries; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Longest pause that a registry may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(120);

/// An internal step whose turn it is.
#[derive(Clone, Debug)]
pub struct Job {
    /// The run.
    pub run: Arc<Run>,
    /// Where stored containers go.
    pub shelf: Arc<Shelf>,
    /// Index of the step.
    pub step: usize,
    /// When the step began, in milliseconds since the epoch.
    pub began_ms: u64,
    /// The image that an earlier try recorded.
    pub recorded: Option<ImageStatus>,
}

/// A push, ready to be carried out.
#[derive(Clone)]
pub struct Push {
    /// The run.
    pub run: Arc<Run>,
    /// Name of the step.
    pub step: String,
    /// What it asks for.
    pub plan: PushPlan,
    /// What becomes the image.
    pub content: Content,
    /// It becomes an artifact of the run, and its place is nobody's to read in logs.
    pub artifact: bool,
    /// Where to.
    pub repository: Repository,
    /// The login.
    pub credentials: Option<Credentials>,
    /// Values that must not be in the image.
    pub secrets: Vec<NamedSecret>,
    /// What people should know, whatever the push finds.
    pub warnings: Vec<String>,
    /// When the step began, and the image is said to be made: the same for every try.
    pub created: Timestamp,
}

/// What becomes the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The box, committed.
    Box,
    /// Files that the runner packed, on an image from scratch.
    Files(Files),
    /// An image that an earlier step of the run built, by the name of its commit.
    Built(String),
}

/// Files that the runner packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    volumes: Volumes,
    step: usize,
    /// What changes in them.
    pub shape: Shape,
}

impl Files {
    /// Opens the archive. Each try reads it anew: what was judged is what is pushed, even if the box writes to it.
    pub fn open(&self) -> Result<File, PushError> {
        let lost = |what: String| PushError::new(reason::COMMIT_FAILED, what);
        let file = self.volumes.open_disk(&archive_file(self.step));
        let file = file.map_err(|error| lost(format!("the archive cannot be opened: {error}")))?;
        file.ok_or_else(|| lost("the archive that the box packed is gone".into()))
    }
}

/// The engine and the registry, as a push needs them.
pub trait Transport: Send + Sync {
    /// Makes the image and pushes it. Tells the line of the digest before the first tag, and of each tag that moved.
    fn push<'a>(&'a self, push: &'a Push, line: &'a Line) -> BoxFuture<'a, Result<Pushed, PushError>>;

    /// The digest that a tag has; `None` if there is no such tag. A digest is its own tag.
    fn digest_of<'a>(
        &'a self,
        push: &'a Push,
        tag: &'a str,
        line: &'a Line,
    ) -> BoxFuture<'a, Result<Option<String>, PushError>>;

    /// Points a tag to a manifest that the registry has.
    fn tag_again<'a>(
        &'a self,
        push: &'a Push,
        digest: &'a str,
        tag: &'a str,
        line: &'a Line,
    ) -> BoxFuture<'a, Result<(), PushError>>;

    /// Does what only a run on one machine does, and ends soon once the line is stopped; gives what people should know. An
    /// agent of a cluster never does it.
    fn here<'a>(&'a self, _work: &'a HereWork, _line: &'a Line) -> BoxFuture<'a, Result<Option<String>, PushError>> {
        let refused = PushError::new(reason::INVALID_PROPERTY, "only a run on one machine does this");
        Box::pin(std::future::ready(Err(refused)))
    }
}

/// What is left to do for a digest that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Nothing was moved: begin anew.
    StartOver,
    /// Point these tags to it; none left: all is done.
    Finish(Vec<String>),
    /// It cannot be told, or not be mended.
    Interrupted(String),
}

/// Carries out an internal step.
pub async fn carry_out(volumes: &Volumes, transport: &dyn Transport, job: &Job, line: &Line) -> Verdict {
    let result = attempts(volumes, transport, job, line).await;
    let at = Timestamp::now();
    match result {
        Ok(message) => Verdict::Passed { at, images: line.images(), message },
        Err(_) if line.is_stopped() => Verdict::Stopped { images: line.images() },
        Err(error) => {
            Verdict::Failed { at, images: line.images(), reason: error.reason.into(), message: error.message }
        }
    }
}

/// Tries until it is done, told to stop, or of no use. Gives warnings.
async fn attempts(
    volumes: &Volumes,
    transport: &dyn Transport,
    job: &Job,
    line: &Line,
) -> Result<Option<String>, PushError> {
    if let Some(work) = here::work(volumes, job)? {
        return transport.here(&work, line).await;
    }
    let mut push = prepare(volumes, job)?;
    line.resume(job.recorded.clone());
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        if push.artifact && attempt > 1 {
            // The last try may have taken longer than its login was good for.
            push.credentials = job.shelf.login(&push.repository)?;
        }
        let result = match line.images().first() {
            Some(image) => resume(transport, &push, image, line).await,
            None => fresh(transport, &push, line).await,
        };
        let told = |error| if push.artifact { shelf::told(error, &push.repository) } else { error };
        let error = match result.map_err(told) {
            Ok(warnings) => {
                let all = [push.warnings.as_slice(), &warnings].concat();
                return Ok((!all.is_empty()).then(|| all.join("; ")));
            }
            Err(error) if error.transient && attempt < tries(&error) && !line.is_stopped() => error,
            Err(error) => return Err(error),
        };
        tracing::warn!(run.name = push.run.name, step.name = push.step, attempt, "push failed, trying again: {error}");
        let wait = error.retry_after.unwrap_or(pause).min(MAX_PAUSE);
        pause = pause.saturating_mul(2);
        line.progress(format!("trying again in {}s: {error}", wait.as_secs().max(1)));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = line.stopped() => return Err(PushError::stopped()),
        }
    }
    Err(PushError::stopped())
}

/// How often a push is tried that fails in this way.
fn tries(error: &PushError) -> u32 {
    if error.reason == reason::COMMIT_FAILED { MAX_TRIES } else { MAX_REGISTRY_TRIES }
}

/// Commits and pushes.
async fn fresh(transport: &dyn Transport, push: &Push, line: &Line) -> Result<Vec<String>, PushError> {
    Ok(transport.push(push, line).await?.warnings)
}

/// Goes on from a digest that was recorded.
async fn resume(
    transport: &dyn Transport,
    push: &Push,
    image: &ImageStatus,
    line: &Line,
) -> Result<Vec<String>, PushError> {
    if image.repository != push.repository.to_string() {
        let text =
            format!("the push to {} was interrupted, and the step names {} now", image.repository, push.repository);
        return Err(PushError::new(reason::INTERRUPTED, text));
    }
    let mut at = Vec::new();
    for tag in &push.plan.tags {
        at.push(transport.digest_of(push, tag, line).await?);
    }
    let present = transport.digest_of(push, &image.digest, line).await?.is_some();
    match decide(&push.plan.tags, image, &at, present) {
        Resume::StartOver => fresh(transport, push, line).await,
        Resume::Finish(left) => {
            let done = push.plan.tags.iter().filter(|tag| !left.contains(tag));
            done.for_each(|tag| line.moved(tag));
            for tag in &left {
                if line.is_stopped() {
                    return Err(PushError::stopped());
                }
                transport.tag_again(push, &image.digest, tag, line).await?;
                line.moved(tag);
            }
            Ok(Vec::new())
        }
        Resume::Interrupted(message) => Err(PushError::new(reason::INTERRUPTED, message)),
    }
}

/// Decides how to go on: `at` is the digest that each tag has now, `present` whether the registry has the manifest.
#[must_use]
pub fn decide(tags: &[String], image: &ImageStatus, at: &[Option<String>], present: bool) -> Resume {
    let is_ours = |found: &Option<String>| found.as_deref() == Some(image.digest.as_str());
    // Tags move in order: all before one that has moved have moved too, even if another push moved them since.
    let recorded = tags.iter().rposition(|tag| image.tags.contains(tag));
    let moved = recorded.max(at.iter().rposition(is_ours)).map_or(0, |last| last + 1);
    let left: Vec<String> = tags.iter().skip(moved).cloned().collect();
    let digest = &image.digest;
    let repository = &image.repository;
    if left.is_empty() {
        Resume::Finish(left)
    } else if moved == 0 && present && at.first().is_some_and(Option::is_some) {
        let first = tags.first().map(String::as_str).unwrap_or_default();
        Resume::Interrupted(format!(
            "the agent ended in the middle of the push of {digest}, and {repository}:{first} has another image: by another push since, or an earlier one that made the same image"
        ))
    } else if moved == 0 {
        Resume::StartOver
    } else if present {
        Resume::Finish(left)
    } else {
        Resume::Interrupted(format!(
            "the agent ended in the middle of the push, and {repository} no longer has {digest}; these tags are not set: {}",
            left.join(", ")
        ))
    }
}

/// Reads what the push needs.
fn prepare(volumes: &Volumes, job: &Job) -> Result<Push, PushError> {
    let spec = &job.run.spec;
    let step = spec.all_steps().nth(job.step).map(|(_, step)| step);
    if let Some((step, StepKind::StoreContainer(store))) = step.and_then(|step| Some((step, step.kind()?))) {
        return prepare_store(volumes, job, step, store);
    }
    let unknown = || PushError::new(reason::INVALID_PROPERTY, "this version of the agent cannot carry out this step");
    let (step, (properties, from_scratch)) = match step.and_then(|step| Some((step, step.kind()?))) {
        Some((step, StepKind::DockerPush(push))) => (step, (push, None)),
        Some((step, StepKind::DockerScratchPush(scratch))) => (step, (&scratch.push, Some(scratch))),
        Some((_, StepKind::StoreContainer(_)))
        | Some((_, StepKind::Script(_) | StepKind::Watch(_) | StepKind::Shell(_) | StepKind::Here(_)))
        | None => return Err(unknown()),
    };
    let request = request(volumes, job.step)?;
    let packed = packed(&request);
    let mut env = if properties.disable_sync { request.run_env } else { request.env };
    let logins = Logins { volumes, spec, step, push: properties };
    logins.fill(&mut env)?;
    let wrong = |error: StepError| PushError::new(error.reason, error.message);
    let (plan, content) = match from_scratch {
        None => {
            let plan = docker_push::plan(properties, &env, job.run.build_number).map_err(wrong)?;
            (plan, content(properties, &env)?)
        }
        Some(scratch) => {
            let ScratchPlan { push, shape } = scratch::plan(scratch, &env, job.run.build_number).map_err(wrong)?;
            packed?;
            (push, Content::Files(Files { volumes: volumes.clone(), step: job.step, shape }))
        }
    };
    let repository = Repository::parse(&plan.repository, plan.registry.as_deref())
        .map_err(|error| PushError::new(error.reason(), error.to_string()))?;
    let credentials = logins.login(&env, &repository)?;
    let mut sought = sought(volumes, job, properties.secrets_in_image, false, credentials.as_ref())?;
    search_place(&plan, &repository, credentials.as_ref(), &mut sought)?;
    Ok(Push {
        run: Arc::clone(&job.run),
        step: step.name.clone(),
        plan,
        content,
        artifact: false,
        repository,
        credentials,
        secrets: sought.values,
        warnings: sought.missed,
        created: created(job),
    })
}

/// What a push pushes: the box, or an image that the run built.
fn content(push: &DockerPush, env: &BTreeMap<String, String>) -> Result<Content, PushError> {
    let Some(image) = &push.image_name else { return Ok(Content::Box) };
    let image = steps::here::image_name(image, env).map_err(|error| PushError::new(error.reason, error.message))?;
    Ok(Content::Built(steps::here::built(&image)))
}

/// The same for a container that is stored. Who may read runs may read it, so no value of a Secret may be in it.
fn prepare_store(volumes: &Volumes, job: &Job, step: &Step, store: &StoreContainer) -> Result<Push, PushError> {
    let request = request(volumes, job.step)?;
    let changes = store_container::plan(store, &request.env);
    let changes = changes.map_err(|error| PushError::new(error.reason, error.message))?;
    let name = store_container::artifact(step).unwrap_or_default();
    let Slot { repository, credentials, tag } = job.shelf.slot(&job.run, name, job.recorded.as_ref())?;
    let secrets_in_image = SecretsInImage::Deny;
    // The store's own login never was in the box.
    let sought = sought(volumes, job, secrets_in_image, true, None)?;
    let plan =
        PushPlan { repository: repository.to_string(), registry: None, tags: vec![tag], changes, secrets_in_image };
    Ok(Push {
        run: Arc::clone(&job.run),
        step: step.name.clone(),
        plan,
        content: Content::Box,
        artifact: true,
        repository,
        credentials,
        secrets: sought.values,
        warnings: sought.missed,
        created: created(job),
    })
}

/// When the image is said to be made.
fn created(job: &Job) -> Timestamp {
    let began = i64::try_from(job.began_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    began.unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Whether the runner packed the files. What it says is the box's word, and only about its own files.
fn packed(request: &Request) -> Result<(), PushError> {
    match &request.packed {
        Some(Packed::Archive) => Ok(()),
        Some(Packed::Refused { fault, message }) => {
            let reason = match fault {
                PackFault::Unsafe => reason::UNSAFE_FILE,
                PackFault::Empty => reason::EMPTY_IMAGE,
                PackFault::TooLarge => reason::IMAGE_TOO_LARGE,
                PackFault::Failed => reason::COMMIT_FAILED,
            };
            Err(PushError::new(reason, message.clone()))
        }
        None => Err(PushError::new(reason::COMMIT_FAILED, "the box packed no files")),
    }
}

/// What the image is searched for, and what the step says of the rest.
fn sought(
    volumes: &Volumes,
    job: &Job,
    policy: SecretsInImage,
    is_artifact: bool,
    login: Option<&Credentials>,
) -> Result<Sought, PushError> {
    if policy == SecretsInImage::Allow {
        return Ok(Sought::default());
    }
    let mut sought = credentials::sought(volumes, &job.run.spec, login);
    let more = sought.missed.len().saturating_sub(MAX_MISSED);
    sought.missed.truncate(MAX_MISSED);
    if more > 0 {
        sought.missed.push(format!("{more} more"));
    }
    if policy == SecretsInImage::Deny && !sought.missed.is_empty() {
        return Err(PushError::not_searched(&sought.missed.join("; "), is_artifact));
    }
    Ok(sought)
}

/// Sees that where the image goes tells no secret: a registry shows repositories and tags to more people than images. The
/// name of the user who logs in is none there.
fn search_place(
    plan: &PushPlan,
    repository: &Repository,
    login: Option<&Credentials>,
    sought: &mut Sought,
) -> Result<(), PushError> {
    let is_user = |secret: &&NamedSecret| login.is_some_and(|login| login.username() == secret.value.expose());
    let secrets: Vec<NamedSecret> = sought.values.iter().filter(|secret| !is_user(secret)).cloned().collect();
    let Some(needles) = Needles::new(&secrets)? else { return Ok(()) };
    let repository = repository.to_string();
    let tags = plan.tags.iter().map(|tag| ("a tag", tag));
    for (place, text) in std::iter::once(("the repository", &repository)).chain(tags) {
        let Some(name) = needles.search(text.as_bytes()) else { continue };
        let text = format!("the value of {name} is in {place}");
        if plan.secrets_in_image == SecretsInImage::Deny {
            return Err(PushError::secret_in_image(&text, false));
        }
        sought.missed.push(text);
    }
    Ok(())
}

/// The runner's request: only the environment in it is used.
fn request(volumes: &Volumes, step: usize) -> Result<Request, PushError> {
    let refuse = |what: String| {
        PushError::new(reason::INVALID_PROPERTY, format!("the environment of the step cannot be read: {what}"))
    };
    let read = volumes.read_out(&request_file(step), MAX_REQUEST_BYTES);
    let bytes = read.map_err(|error: FileError| refuse(error.to_string()))?;
    let bytes = bytes.ok_or_else(|| refuse("the box left no request".into()))?;
    // The parser's own message may quote a value.
    let request: Request = serde_json::from_slice(&bytes)
        .map_err(|error| refuse(format!("line {}, column {} is not as expected", error.line(), error.column())))?;
    if request.version != wire::VERSION || request.step != step {
        return Err(refuse(format!("it is for step {} in version {}", request.step, request.version)));
    }
    Ok(request)
}

#[cfg(test)]
mod tests;
