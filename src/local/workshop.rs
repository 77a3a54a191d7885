//! What steps of a `wercker.yml` do with the engine of this machine: build, run and end containers, commit the box, keep
//! files.
//!
//! `login` hands a step's [`HereWork`] over; it comes the way of a push, so that time, Ctrl-C and the end of the run are
//! those of every step.
//!
//! **Invariant:** what is made is known to `node` before it is made, or has the name of a commit of the run. A value of a
//! Secret is masked in what is printed.

use super::{
    NAMESPACE, Request,
    containers::{self, Common},
    context, login,
    owner::Owner,
    setup::Made,
    words,
};
use crate::{
    agent::{line::Line, push::HereWork},
    api::{
        condition::reason,
        here::{DockerBuild, DockerRun, HereStep},
        push::DockerPush,
        run::pod_name,
    },
    engine::{
        CommitKey, Engine as _, EngineError,
        docker::{
            DockerEngine,
            containers::{ContainerSpec, Network},
            images::{BuildSpec, NamedCommit},
        },
    },
    mask::Mask,
    registry::PushError,
    steps::{self, StepError, docker_push, image_config},
};
use bytes::Bytes;
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// Pieces of what a build prints that wait for whoever reads.
const SAID_QUEUE: usize = 64;

/// See the module.
pub(super) struct Workshop {
    engine: DockerEngine,
    request: Request,
    owner: Option<Owner>,
    /// Whether the run has a network of its own.
    has_network: bool,
    made: Made,
    /// What the box prints goes there too; it must not hold it open.
    output: Mutex<Option<mpsc::WeakSender<Bytes>>>,
}

impl Workshop {
    /// A workshop of a run.
    pub(super) fn new(engine: DockerEngine, request: Request, owner: &Owner, has_network: bool, made: Made) -> Self {
        let owner = (!request.beside.keep).then(|| owner.clone());
        Self { engine, request, owner, has_network, made, output: Mutex::default() }
    }

    /// Lets it print where the box does.
    pub(super) fn print_to(&self, output: &mpsc::Sender<Bytes>) {
        *self.output.lock().unwrap_or_else(PoisonError::into_inner) = Some(output.downgrade());
    }

    /// Carries a step out. What it says, failed or not, is masked: the engine repeats what it was given.
    ///
    /// # Errors
    /// Why it could not.
    pub(super) async fn carry_out(&self, work: &HereWork, line: &Line) -> Result<Option<String>, PushError> {
        match self.do_it(work, line).await {
            Ok(said) => Ok(said.map(|said| self.request.mask(std::iter::empty()).text(&said))),
            Err(error) => Err(self.masked(error)),
        }
    }

    /// An error in words that fit a machine without a cluster, and without values of the run's Secrets.
    pub(super) fn masked(&self, mut error: PushError) -> PushError {
        error.message = self.request.mask(std::iter::empty()).text(&words::of_step(&error.message));
        error
    }

    async fn do_it(&self, work: &HereWork, line: &Line) -> Result<Option<String>, PushError> {
        match &work.what {
            HereStep::DockerBuild(step) => stoppable(line, self.build(work, step, line)).await.map(|()| None),
            HereStep::DockerRun(step) => self.run(work, step, line).await.map(|()| None),
            HereStep::DockerKill(name) => self.end(name).await.map(|()| None),
            HereStep::Commit(push) => stoppable(line, self.commit(work, push, line)).await,
            HereStep::Keep => stoppable(line, self.keep(work)).await,
        }
    }

    async fn build(&self, work: &HereWork, step: &DockerBuild, line: &Line) -> Result<(), PushError> {
        let plan = steps::here::build(step, &work.env).map_err(wrong)?;
        let key = self.built(&plan.image_name);
        let Some(files) = &work.files else {
            return Err(PushError::new(reason::COMMIT_FAILED, "the box packed no files"));
        };
        line.progress("building the image".into());
        // A login may be a part of a variable's value.
        let mask = self.request.mask(plan.logins.values().map(|(_, password)| password.as_str()));
        let context = context::context(files.open()?, files.shape, plan.dockerfile.clone()).await?;
        let spec = BuildSpec {
            dockerfile: plan.dockerfile,
            build_args: plan.build_args,
            labels: plan.labels,
            extra_hosts: plan.extra_hosts,
            quiet: step.quiet,
            no_cache: step.no_cache,
            squash: step.squash,
            network: self.has_network.then(|| containers::box_name(&self.request.name)),
            logins: plan.logins,
        };
        let (say, said) = mpsc::channel(SAID_QUEUE);
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let building = async move { self.engine.build(&key, spec, context, &say).await.map_err(failed) };
        let (built, ()) = tokio::join!(building, print(said, output, mask));
        built
    }

    /// The name of an image that this run builds.
    fn built(&self, image_name: &str) -> CommitKey {
        CommitKey { run_uid: self.request.uid.clone(), step: steps::here::built(image_name) }
    }

    async fn run(&self, work: &HereWork, step: &DockerRun, line: &Line) -> Result<(), PushError> {
        let plan = steps::here::run(step, &work.env).map_err(wrong)?;
        let own = self.built(&plan.image_name).image_name().map_err(failed)?;
        let image = if self.engine.image(&own).await.map_err(failed)?.is_some() { own } else { plan.image };
        if self.engine.image(&image).await.map_err(failed)?.is_none() {
            if self.request.beside.docker_local {
                let text = format!("image {image} is not on this machine, and --docker-local pulls none");
                return Err(PushError::new(reason::IMAGE_PULL_FAILED, text));
            }
            line.progress(self.request.mask(std::iter::empty()).text(&format!("pulling {image}")));
            let login = match &plan.login {
                Some(own) => login::for_pull(own, &image),
                None => login::of_pull(&self.request.logins, &image).await,
            };
            let pulled = async {
                self.engine.pull(&image, login, &|_| {}).await.map_err(|error| {
                    PushError::new(reason::IMAGE_PULL_FAILED, format!("image {image} cannot be pulled: {error}"))
                })
            };
            stoppable(line, pulled).await?;
        }
        let list = |words: Vec<String>| (!words.is_empty()).then_some(words);
        let spec = ContainerSpec {
            name: self.container(&step.name),
            image,
            hostname: Some(step.name.clone()),
            user: plan.user,
            working_dir: plan.working_dir,
            entrypoint: list(plan.entrypoint),
            command: list(plan.cmd),
            env: plan.env,
            labels: self.common(&pod_name(&self.request.name, 1)).labels(&format!("run-{}", step.name)),
            network: Network::Named(containers::box_name(&self.request.name)),
            aliases: vec![step.name.clone()],
            publish: step.ports.iter().filter_map(|port| port.parse().ok()).collect(),
            ..ContainerSpec::default()
        };
        if line.is_stopped() {
            return Err(PushError::stopped());
        }
        self.made.container(&spec.name);
        // To its end, even if the run has been stopped: the engine would make it all the same, behind whoever removes it.
        let id = self.engine.create(&spec).await.map_err(failed)?;
        self.engine.start(&id).await.map_err(failed)
    }

    async fn end(&self, name: &str) -> Result<(), PushError> {
        let container = self.container(name);
        if !self.made.has(&container) {
            let text = format!("no docker-run of this run has started {name}");
            return Err(PushError::new(reason::INVALID_PROPERTY, text));
        }
        self.engine.remove_container(&container).await.map_err(failed)
    }

    fn container(&self, name: &str) -> String {
        format!("{}-{name}", containers::box_name(&self.request.name))
    }

    fn common<'a>(&'a self, pod: &'a str) -> Common<'a> {
        Common { uid: &self.request.uid, run: &self.request.name, pod, owner: self.owner.as_ref() }
    }

    /// Makes an image of this engine of the box.
    async fn commit(&self, work: &HereWork, push: &DockerPush, line: &Line) -> Result<Option<String>, PushError> {
        let plan = docker_push::plan(push, &work.env, 0).map_err(wrong)?;
        let names: Vec<String> = plan.tags.iter().map(|tag| format!("{}:{tag}", plan.repository)).collect();
        let said = format!("made {}", names.join(", "));
        if let Some(built) = &push.image_name {
            let built = steps::here::image_name(built, &work.env).map_err(wrong)?;
            let own = self.built(&built).image_name().map_err(failed)?;
            for name in &names {
                self.engine.tag(&own, name).await.map_err(failed)?;
            }
            return Ok(Some(said));
        }
        line.progress("committing the box".into());
        let pod = pod_name(&self.request.name, 1);
        let found = self.engine.find_box(&self.request.uid, NAMESPACE, &pod).await.map_err(failed)?;
        let found = found.ok_or_else(|| PushError::new(reason::COMMIT_FAILED, "the box is gone"))?;
        let base = self.engine.base_image(&found).await.map_err(failed)?;
        let config = image_config::section(Some(&base.config), &plan.changes).into();
        let (author, message) = (plan.changes.author.clone(), plan.changes.message.clone());
        let commit = NamedCommit { names, config, author, message };
        self.engine.commit_named(&found, &commit).await.map_err(failed)?;
        Ok(Some(said))
    }

    /// Keeps the files that were packed. That there are none is no failure.
    async fn keep(&self, work: &HereWork) -> Result<Option<String>, PushError> {
        // What was kept before is gone since the run began.
        let (Some(files), Some(kept)) = (&work.files, &self.request.beside.keep_in) else {
            return Ok(Some("no artifacts found".into()));
        };
        let (archive, place) = (files.open()?, kept.clone());
        let unpacked = tokio::task::spawn_blocking(move || place.fill(archive)).await;
        let files = unpacked.map_err(|_| PushError::new(reason::COMMIT_FAILED, "unpacking broke off"))??;
        let s = if files == 1 { "" } else { "s" };
        Ok((!kept.passes()).then(|| format!("{files} file{s} kept in {}", kept.path().display())))
    }
}

/// Does something that may be broken off.
async fn stoppable<T>(line: &Line, work: impl Future<Output = Result<T, PushError>>) -> Result<T, PushError> {
    tokio::select! {
        done = work => done,
        () = line.stopped() => Err(PushError::stopped()),
    }
}

/// Prints what a build says, masked. What may begin a secret waits for more of it.
async fn print(mut said: mpsc::Receiver<String>, output: Option<mpsc::WeakSender<Bytes>>, mut mask: Mask) {
    let mut masked = Vec::new();
    loop {
        let text = said.recv().await;
        match &text {
            Some(text) => mask.push(text.as_bytes(), &mut masked),
            None => mask.flush(&mut masked),
        }
        let output = output.as_ref().and_then(mpsc::WeakSender::upgrade);
        let bytes = Bytes::from(std::mem::take(&mut masked));
        if let Some(output) = output.filter(|_| !bytes.is_empty()) {
            // Nobody reads any more: the build goes on all the same.
            let _ = output.send(bytes).await;
        }
        if text.is_none() {
            return;
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn failed(error: EngineError) -> PushError {
    PushError::new(reason::COMMIT_FAILED, error.to_string())
}

fn wrong(error: StepError) -> PushError {
    PushError::new(error.reason, error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_build_prints_is_masked_wherever_it_is_cut() {
        let (output, mut printed) = mpsc::channel(16);
        let (say, said) = mpsc::channel(16);
        let mask = Mask::new(["hunter2", "line one\nline two"].into_iter());
        let pieces = ["a hun", "ter2 b ", "aHVudGVyMg==", " line on", "e\n", "line two\nhunt"];
        for piece in pieces {
            say.send(piece.to_owned()).await.unwrap();
        }
        drop(say);
        print(said, Some(output.downgrade()), mask).await;
        drop(output);
        let mut all = Vec::new();
        while let Some(bytes) = printed.recv().await {
            assert!(!bytes.is_empty());
            all.extend_from_slice(&bytes);
        }
        assert_eq!(String::from_utf8(all).unwrap(), "a *** b ***== ***\nhunt");
    }
}
