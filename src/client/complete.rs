//! What a shell may offer for a word: names of runs, steps, services and Pipelines, from the cluster.
//!
//! `args` hangs these functions on its arguments; the shell calls us with `COMPLETE` set, kubectl with
//! `__complete`. **Invariant:** a word at a prompt waits no longer than [`PATIENCE`] and never prints an error: what
//! cannot be known in time is not offered.

use super::{
    args::{Display, Global, PHASES, Place},
    check::{Input, is_wercker},
    connect::{Cluster, newest_first},
    explain,
    project::{self, Project},
    topics,
    view::RunView,
};
use crate::wercker;
use clap_complete::engine::CompletionCandidate;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest wait for the cluster.
const PATIENCE: Duration = Duration::from_millis(300);
/// Most names that are offered.
const MOST: u32 = 200;

/// Names of runs, newest first, each with its phase.
pub(super) fn runs() -> Vec<CompletionCandidate> {
    let mut runs = ask(|cluster| async move { cluster.runs().list(&ListParams::default().limit(MOST)).await });
    runs.sort_by_key(newest_first);
    let offer = |(order, run): (usize, DynamicObject)| {
        let view = RunView::read(&run);
        let help = format!("{} {}", view.phase(), view.pipeline.as_deref().unwrap_or_default());
        candidate(&view.name, help.trim(), order)
    };
    let mut offered: Vec<_> = runs.into_iter().enumerate().map(offer).collect();
    offered.push(candidate("@latest", "the newest run of the namespace", usize::MAX));
    offered
}

/// Names of Pipelines.
pub(super) fn pipelines() -> Vec<CompletionCandidate> {
    named_pipelines("")
}

/// Names of pipelines in the file of this directory.
pub(super) fn pipelines_here() -> Vec<CompletionCandidate> {
    named(project::find().map(|file| names_in(&file).0))
}

/// Names of workflows in it.
pub(super) fn workflows_here() -> Vec<CompletionCandidate> {
    named(project::find().map(|file| names_in(&file).1))
}

/// The shell takes a word as it is offered: one of a file from elsewhere must not be more than a word to it.
fn named(names: Option<Vec<String>>) -> Vec<CompletionCandidate> {
    let plain = |name: &String| shlex::try_quote(name).is_ok_and(|quoted| quoted == *name);
    let names = names.into_iter().flatten().filter(plain);
    names.enumerate().map(|(order, name)| candidate(&name, "", order)).collect()
}

/// Names of pipelines and of workflows in a file; of one that cannot be read there are none.
fn names_in(file: &Path) -> (Vec<String>, Vec<String>) {
    let Ok(input) = Input::read(file) else { return Default::default() };
    if is_wercker(file, &input.text) {
        let document = wercker::read_all(&input.text).0;
        let pipelines = document.pipelines.iter().map(|pipeline| pipeline.name.value.clone()).collect();
        return (pipelines, document.workflows.iter().map(|workflow| workflow.name.value.clone()).collect());
    }
    let names = Project::of(&input).map(|project| project.names().into_iter().map(str::to_owned).collect());
    (names.unwrap_or_default(), Vec::new())
}

/// `pipeline/NAME`.
pub(super) fn sources() -> Vec<CompletionCandidate> {
    named_pipelines("pipeline/")
}

/// Steps of the run of this line, else of the latest.
pub(super) fn steps() -> Vec<CompletionCandidate> {
    let run = run_of_the_line();
    let steps = run.iter().flat_map(|run| &run.steps).enumerate();
    steps.map(|(order, step)| candidate(&step.name, &step.kind, order)).collect()
}

/// Services of that run.
pub(super) fn services() -> Vec<CompletionCandidate> {
    let services = run_of_the_line().map(|run| run.services).unwrap_or_default();
    services.iter().enumerate().map(|(order, name)| candidate(name, "", order)).collect()
}

/// Phases, as people write them.
pub(super) fn phases() -> Vec<CompletionCandidate> {
    PHASES.iter().enumerate().map(|(order, phase)| candidate(&phase.to_lowercase(), "", order)).collect()
}

/// Reasons that `explain` knows.
pub(super) fn reasons() -> Vec<CompletionCandidate> {
    explain::reasons().enumerate().map(|(order, (name, means))| candidate(name, means, order)).collect()
}

/// Topics of `help`.
pub(super) fn topics() -> Vec<CompletionCandidate> {
    topics::names().enumerate().map(|(order, name)| candidate(name, "", order)).collect()
}

fn candidate(value: &str, help: &str, order: usize) -> CompletionCandidate {
    let help = (!help.is_empty()).then(|| help.to_owned().into());
    CompletionCandidate::new(value).help(help).display_order(Some(order))
}

fn named_pipelines(prefix: &str) -> Vec<CompletionCandidate> {
    let found = ask(|cluster| async move {
        let resource = ApiResource::erase::<crate::api::Pipeline>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource);
        api.list(&ListParams::default().limit(MOST)).await
    });
    let names = found.into_iter().filter_map(|pipeline| pipeline.metadata.name).enumerate();
    names.map(|(order, name)| candidate(&format!("{prefix}{name}"), "", order)).collect()
}

fn run_of_the_line() -> Option<RunView> {
    let mut runs = ask(|cluster| async move { cluster.runs().list(&ListParams::default().limit(MOST)).await });
    runs.sort_by_key(newest_first);
    let words: Vec<String> = words().collect();
    let written = |run: &&DynamicObject| run.metadata.name.as_ref().is_some_and(|name| words.contains(name));
    runs.iter().find(written).or(runs.first()).map(RunView::read)
}

/// The line so far. What is not UTF-8 is no name that we know.
fn words() -> impl Iterator<Item = String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned())
}

/// Asks the cluster of the line. Whatever goes wrong, nothing is offered.
fn ask<F, A>(call: F) -> Vec<DynamicObject>
where
    F: FnOnce(Cluster) -> A + Send + 'static,
    A: Future<Output = kube::Result<kube::api::ObjectList<DynamicObject>>>,
{
    let (answer, answered) = std::sync::mpsc::channel();
    // A thread that is left behind ends with the process: a plugin of the kubeconfig that gives credentials blocks it
    // for as long as it likes.
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let place = place(words());
        let quiet = Display { quiet: 2, ..Display::default() };
        let found = runtime.block_on(async {
            let cluster = Cluster::open_unattended(&Global { place, display: quiet }, "windlass").await.ok()?;
            call(cluster).await.ok()
        });
        // Nobody waits for it any more if it took too long.
        let _ = answer.send(found);
        runtime.shutdown_background();
    });
    answered.recv_timeout(PATIENCE).ok().flatten().map(|list| list.items).unwrap_or_default()
}

/// Where the unfinished line leads. It cannot be parsed as a whole, as it is not whole.
fn place(words: impl Iterator<Item = String>) -> Place {
    let mut place = Place { request_timeout: Some(PATIENCE), ..Place::default() };
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag.to_owned(), Some(value.to_owned())),
            _ => (word.clone(), None),
        };
        let attached = word.strip_prefix("-n").filter(|rest| !rest.is_empty() && !word.starts_with("--"));
        if let Some(namespace) = attached {
            place.namespace = Some(namespace.to_owned());
            continue;
        }
        let mut value = || value.clone().or_else(|| words.next());
        match flag.as_str() {
            "-n" | "--namespace" => place.namespace = value(),
            "--context" => place.context = value(),
            "--kubeconfig" => place.kubeconfig = value().map(PathBuf::from),
            "--as" => place.as_user = value(),
            "--as-group" => place.as_group.extend(value()),
            _ => {}
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_directory_has_names() {
        let place = tempfile::tempdir().unwrap();
        let yml = place.path().join("wercker.yml");
        let text = "box: debian\nbuild:\n  - script: {code: make}\nrelease:\n  - script: {code: make}\n\
            workflows:\n  - name: all\n    pipelines: [build]\n";
        std::fs::write(&yml, text).unwrap();
        assert_eq!(names_in(&yml), (vec!["build".into(), "release".into()], vec!["all".into()]));
        let ours = place.path().join("windlass.yaml");
        let text = "apiVersion: windlass.dev/v1alpha1\nkind: Pipeline\nmetadata: {name: mine}\n\
            spec: {box: {image: debian}, steps: [{name: a, script: 'true'}]}\n";
        std::fs::write(&ours, text).unwrap();
        assert_eq!(names_in(&ours), (vec!["mine".into()], Vec::new()));
        assert_eq!(names_in(&place.path().join("none")), Default::default());
    }

    #[test]
    fn an_unfinished_line_says_where() {
        let of = |line: &str| place(line.split(' ').map(str::to_owned));
        let found = of("windlass -n team-a logs --context=prod --kubeconfig k --as ann --step");
        assert_eq!((found.namespace.as_deref(), found.context.as_deref()), (Some("team-a"), Some("prod")));
        assert_eq!((found.kubeconfig, found.as_user.as_deref()), (Some("k".into()), Some("ann")));
        assert_eq!(of("windlass logs -nteam-b").namespace.as_deref(), Some("team-b"));
        assert_eq!(of("windlass logs -n").namespace, None);
    }
}
