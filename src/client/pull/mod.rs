//! `pull`: fetches a stored container, into a file or into the Docker of this machine.
//!
//! ```text
//! run's status ─> origin (artifact server or registry) ─> fetch ─> FILE.part ─> FILE ─> engine::docker
//!                            manifest ─> archive (where each byte goes) ─┘
//! ```
//!
//! **Invariant:** acts with the caller's own rights; what is saved or loaded has the digest that the run's status says.

mod archive;
mod fetch;
mod meter;
mod origin;

use super::{
    Session,
    args::PullArgs,
    connect::Cluster,
    docker,
    exit::Exit,
    fault::{Fault, Stop, reason},
    style::Sign,
    view::RunView,
};
use crate::{
    api::status::ArtifactStatus,
    engine::docker::DockerEngine,
    registry::{Image, digest::Digest},
};
use futures::StreamExt as _;
use origin::{Lost, Origin};
use std::path::{Path, PathBuf};
use tokio_util::io::ReaderStream;

/// Bytes that are read of the file at a time, while it is loaded.
const BUFFER: usize = 256 * 1024;
/// Hex digits of a digest that people are shown.
const SHOWN: usize = "sha256:".len() + 12;

/// A stored container, found.
pub(super) struct Stored {
    /// The run.
    pub run: String,
    /// What an engine calls it, as `windlass/hello:7`.
    pub image: String,
    digest: Digest,
    location: String,
}

/// `pull`.
///
/// # Errors
/// There is no such container, it cannot be fetched, or Docker does not take it.
pub(super) async fn pull(session: &mut Session, args: &PullArgs) -> Result<Exit, Stop> {
    let cluster = session.cluster().await?;
    let stored = find(session, &cluster, &args.run, args.artifact.as_deref()).await?;
    let file = match (&args.output, args.load) {
        (Some(file), _) => file.clone(),
        (None, true) => cached(&stored.digest)?,
        (None, false) => PathBuf::from(format!("{}.tar", stored.run)),
    };
    let docker = if args.load { Some(docker::connect()?) } else { None };
    save(session, &cluster, &stored, &file).await?;
    if args.output.is_some() || !args.load {
        done(session, &format!("saved as {}", file.display()))?;
    }
    if let Some(docker) = docker {
        load(&docker, &file).await?;
        if args.output.is_none() {
            remove(&file)?;
        }
        let hint = format!("start it: {} open {}", session.program, stored.run);
        done(session, &format!("loaded as {:<32}  {hint}", stored.image))?;
    }
    Ok(Exit::Success)
}

/// The same for `open`: into Docker, if it is not there.
///
/// # Errors
/// As [`pull`].
pub(super) async fn into_docker(
    session: &mut Session,
    cluster: &Cluster,
    stored: &Stored,
    docker: &DockerEngine,
) -> Result<(), Stop> {
    let there = docker.image(&stored.image).await.map_err(docker::engine)?.map(|image| image.id);
    // Engines call an image by the digest of its manifest, or of its config.
    if there.as_deref() == Some(stored.digest.as_str()) {
        return Ok(());
    }
    if let Some(there) = there {
        let origin = Origin::of(cluster, &stored.location).await?;
        let manifest = origin.manifest(&stored.digest).await.map_err(|lost| told(lost, stored))?;
        if Image::read(&manifest, "").is_ok_and(|image| image.config.as_str() == there) {
            return Ok(());
        }
    }
    let file = cached(&stored.digest)?;
    save(session, cluster, stored, &file).await?;
    load(docker, &file).await?;
    remove(&file)
}

/// Finds what a run stored.
///
/// # Errors
/// There is no such run, or it stored nothing of that name.
pub(super) async fn find(
    session: &mut Session,
    cluster: &Cluster,
    run: &str,
    artifact: Option<&str>,
) -> Result<Stored, Stop> {
    let view = RunView::read(&cluster.find_run(Some(run)).await?);
    session.name_run(Some(run), &view.name, &view.namespace)?;
    let found = choose(&view, artifact)?;
    let unreadable = || {
        let text = format!("{}: the status of {} is not whole", view.name, found.name);
        Fault::new(reason::CLUSTER_ERROR, Exit::World, text)
    };
    let digest = found.digest.as_deref().and_then(Digest::parse).ok_or_else(unreadable)?;
    let location = found.location.clone().ok_or_else(unreadable)?;
    Ok(Stored { image: image_name(&view, found), run: view.name, digest, location })
}

/// What the engine of this machine calls it: by Pipeline and build number, as people call the run.
fn image_name(view: &RunView, artifact: &ArtifactStatus) -> String {
    let name = view.pipeline.as_ref().unwrap_or(&view.name);
    let number = view.status.build_number.map_or_else(|| "latest".to_owned(), |number| number.to_string());
    match view.status.artifacts.len() {
        0 | 1 => format!("windlass/{name}:{number}"),
        _ => format!("windlass/{name}:{number}-{}", artifact.name),
    }
}

/// The artifact that is meant.
fn choose<'a>(view: &'a RunView, wanted: Option<&str>) -> Result<&'a ArtifactStatus, Fault> {
    let name = &view.name;
    let missing = |text: String| Fault::new(reason::NOT_FOUND, Exit::NotFound, text);
    let all = &view.status.artifacts;
    let names = all.iter().map(|artifact| artifact.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = match (wanted, all.as_slice()) {
        (_, []) => {
            let stores = view.steps.iter().any(|step| step.kind == "storeContainer");
            let why = match (stores, view.outcome()) {
                (false, _) => "it has no storeContainer step",
                (true, None) => "its storeContainer step has not ended",
                (true, Some(_)) => "its storeContainer step did not pass",
            };
            return Err(missing(format!("{name} has stored nothing: {why}")));
        }
        (None, [one]) => one,
        (None, _) => {
            let text = format!("{name} has stored several containers: {names}");
            return Err(Fault::usage(text).hint("--artifact NAME"));
        }
        (Some(wanted), all) => all
            .iter()
            .find(|artifact| artifact.name == wanted)
            .ok_or_else(|| missing(format!("{name} has stored no {wanted}; it has {names}")))?,
    };
    Ok(found)
}

/// Fetches it into a file.
async fn save(session: &mut Session, cluster: &Cluster, stored: &Stored, file: &Path) -> Result<(), Stop> {
    let origin = Origin::of(cluster, &stored.location).await?;
    let manifest = origin.manifest(&stored.digest).await.map_err(|lost| told(lost, stored))?;
    let unknown = |why: String| {
        let text = format!("{}: what is stored is no image: {why}", stored.run);
        Fault::new(reason::CLUSTER_ERROR, Exit::World, text)
    };
    let image = Image::read(&manifest, "").map_err(unknown)?;
    let pieces = archive::pieces(&manifest, &image, &stored.image).map_err(|error| unknown(error.to_string()))?;
    let part_path = file.with_added_extension("part");
    let mut part = fetch::Part::open(&part_path)?;
    let title = format!("{} stored container", stored.run);
    fetch::fetch(session, &origin, &pieces, &mut part, title).await.map_err(|stop| about(stop, stored))?;
    let renamed = std::fs::rename(&part_path, file);
    renamed.map_err(|error| unwritable(file, &error))?;
    let digest: String = stored.digest.as_str().chars().take(SHOWN).collect();
    done(session, &format!("verified {digest}"))
}

async fn load(docker: &DockerEngine, file: &Path) -> Result<(), Stop> {
    let open = tokio::fs::File::open(file).await.map_err(|error| unwritable(file, &error))?;
    docker.load(ReaderStream::with_capacity(open, BUFFER).boxed()).await.map_err(docker::engine)
}

/// Where a container is kept between fetching and loading. One that was cut off is found there again.
fn cached(digest: &Digest) -> Result<PathBuf, Stop> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let missing = || Fault::usage("neither XDG_CACHE_HOME nor HOME is set").hint("name a file with -o");
    let hex = digest.as_str().trim_start_matches("sha256:");
    Ok(cache.ok_or_else(missing)?.join("windlass/pull").join(format!("{hex}.tar")))
}

fn remove(file: &Path) -> Result<(), Stop> {
    std::fs::remove_file(file).map_err(|error| unwritable(file, &error).into())
}

fn unwritable(file: &Path, error: &std::io::Error) -> Fault {
    Fault::new(reason::OUTPUT_FAILED, Exit::World, format!("cannot write {}: {error}", file.display()))
}

/// Says that something is done.
fn done(session: &mut Session, what: &str) -> Result<(), Stop> {
    let line = format!("{} {what}", session.look.signed(Sign::Ok));
    Ok(session.screen.message(&line)?)
}

fn told(lost: Lost, stored: &Stored) -> Stop {
    let fault = match lost {
        Lost::For(fault) => *fault,
        Lost::Again(why) => Fault::new(reason::CLUSTER_UNREACHABLE, Exit::World, why),
    };
    about(fault.into(), stored)
}

/// Puts the run's name before what went wrong.
fn about(stop: Stop, stored: &Stored) -> Stop {
    match stop {
        Stop::Faults(mut faults) => {
            for fault in &mut faults {
                fault.message = format!("{}: {}", stored.run, fault.message);
            }
            Stop::Faults(faults)
        }
        Stop::ClosedPipe => Stop::ClosedPipe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::view::StepInfo;
    use rstest::rstest;

    fn view(artifacts: &[&str]) -> RunView {
        let mut view = RunView { name: "hello-7".into(), pipeline: Some("hello".into()), ..RunView::default() };
        view.status.build_number = Some(7);
        view.status.artifacts =
            artifacts.iter().map(|name| ArtifactStatus { name: (*name).into(), ..Default::default() }).collect();
        view.steps = vec![StepInfo { kind: "storeContainer".into(), ..StepInfo::default() }];
        view
    }

    #[rstest]
    #[case::the_only_one(&["app"], None, Ok("app"))]
    #[case::by_name(&["app", "db"], Some("db"), Ok("db"))]
    #[case::several(&["app", "db"], None, Err("hello-7 has stored several containers: app, db"))]
    #[case::another(&["app", "db"], Some("x"), Err("hello-7 has stored no x; it has app, db"))]
    #[case::none_yet(&[], None, Err("hello-7 has stored nothing: its storeContainer step has not ended"))]
    fn the_artifact_that_is_meant(
        #[case] artifacts: &[&str],
        #[case] wanted: Option<&str>,
        #[case] expected: Result<&str, &str>,
    ) {
        let view = view(artifacts);
        let found = choose(&view, wanted).map(|artifact| artifact.name.clone()).map_err(|fault| fault.message);
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn names_of_images() {
        let name = |view: &RunView| image_name(view, &view.status.artifacts[0]);
        assert_eq!(name(&view(&["app"])), "windlass/hello:7");
        assert_eq!(name(&view(&["app", "db"])), "windlass/hello:7-app");
        let inline = RunView { pipeline: None, ..view(&["app"]) };
        assert_eq!(name(&inline), "windlass/hello-7:7");
    }
}
