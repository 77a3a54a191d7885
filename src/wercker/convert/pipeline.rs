//! The spec of one pipeline, or of one deploy target of it.
//!
//! **Invariant:** the order of keys is that of the reference, so that two conversions can be compared.

use super::{
    super::{
        document::{Pipeline, Step, Text},
        out::{Map, Out, map},
        shell,
    },
    CONFIG_MAP, Converter, SECRET, containers, from_key,
    scripts::{self, Made},
    steps,
};
use crate::{
    steps::{expand, links},
    yaml::reason,
};
use std::collections::BTreeSet;

/// Minutes of Wercker that are also ours.
const STEP_MINUTES: u32 = 25;
const SILENT_MINUTES: u32 = 5;
/// Variables of Wercker that runs here do not have, and what is like them.
const NO_VARIABLES: [(&str, &str); 16] = [
    ("WERCKER_BUILD_ID", "WERCKER_RUN_ID"),
    ("WERCKER_BUILD_URL", "WERCKER_RUN_NAME"),
    ("WERCKER_DEPLOY_ID", "WERCKER_RUN_ID"),
    ("WERCKER_DEPLOY_URL", "WERCKER_RUN_NAME"),
    ("WERCKER_RUN_URL", "WERCKER_RUN_NAME"),
    ("WERCKER_APPLICATION_ID", "WERCKER_GIT_REPOSITORY"),
    ("WERCKER_APPLICATION_NAME", "WERCKER_GIT_REPOSITORY"),
    ("WERCKER_APPLICATION_OWNER_NAME", "WERCKER_GIT_OWNER"),
    ("WERCKER_APPLICATION_URL", ""),
    ("WERCKER_STARTED_BY", ""),
    ("WERCKER_MAIN_PIPELINE_STARTED", ""),
    ("WERCKER_STEP_ROOT", ""),
    ("WERCKER_STEP_OWNER", ""),
    ("WERCKER_REPORT_NUMBERS_FILE", ""),
    ("WERCKER_REPORT_MESSAGE_FILE", ""),
    ("WERCKER_REPORT_ARTIFACTS_DIR", ""),
];

/// The spec.
pub(super) fn spec(converter: &mut Converter<'_>, pipeline: &Pipeline, target: Option<&(Text, Vec<Step>)>) -> Map {
    let mut params = containers::Params::default();
    let document = converter.document;
    let no_services = Vec::new();
    let services = pipeline.services.as_ref().unwrap_or(&document.services);
    let services = if pipeline.box_.is_none() && document.box_.is_none() { &no_services } else { services };
    let mut spec = Map::default();
    if converter.is_here() {
        converter.beside.docker = pipeline.docker.is_some();
    } else if let Some(at) = pipeline.docker {
        let hint =
            "use dockerPush for images of the box; a build from a Dockerfile needs a builder such as kaniko or buildah";
        converter.refuse(
            reason::NOT_IN_CLUSTER,
            at,
            "docker: true gives steps the node's engine, which is root there",
            hint,
        );
    }
    let box_ = pipeline.box_.as_ref().or(document.box_.as_ref());
    let box_ = box_
        .map(|container| containers::box_(converter, container, services, pipeline.base_path.as_ref(), &mut params));
    let made_services = containers::services(converter, services, &mut params);
    let main = target.map_or(&pipeline.steps, |(_, steps)| steps);
    let made = steps::steps(converter, pipeline, main);
    if !params.list().is_empty() {
        spec.note("Variables that the box or a service names: a run gives them, windlass run --from pipeline/NAME -p NAME=VALUE");
        spec.list("params", params.list());
    }
    spec.put("box", Out::Map(box_.unwrap_or_default()));
    spec.list("services", made_services);
    source(converter, &mut spec);
    env(converter, pipeline, target, &made, &mut spec);
    variables(converter, pipeline, services.iter().map(containers::alias).collect(), &made, &mut spec);
    for note in session_notes(converter, pipeline, main, &made) {
        spec.note(note);
    }
    let (before, after): (Vec<Made>, Vec<Made>) = made.into_iter().partition(|made| !made.after);
    if before.is_empty() && !converter.findings.has_errors() {
        let who = if converter.is_here() { "can be run" } else { "a cluster can run" };
        let said = format!("pipeline {} has no step that {who}", pipeline.name.value);
        converter.refuse(reason::NOT_IN_CLUSTER, pipeline.name.at, &said, "give it a script step, or take it out");
    }
    let mut list = Vec::new();
    if let Some(directory) = &document.source_dir {
        let mut first = Map::default();
        let code = format!("export WERCKER_SOURCE_DIR=\"$WERCKER_ROOT\"/{}\n", quoted(&directory.value));
        first.note("source-dir: the whole source is there, and the other steps run in this directory of it");
        first.text("name", "source-dir");
        first.text("script", code);
        list.push(first);
    }
    list.extend(before.into_iter().map(|made| made.out));
    spec.list("steps", list);
    spec.list("afterSteps", after.into_iter().map(|made| made.out).collect());
    if let Some((minutes, _)) = document.command_timeout.filter(|(minutes, _)| *minutes != STEP_MINUTES) {
        spec.text("stepTimeout", format!("{minutes}m"));
    }
    if let Some((minutes, _)) = document.no_response_timeout.filter(|(minutes, _)| *minutes != SILENT_MINUTES) {
        spec.text("noOutputTimeout", format!("{minutes}m"));
    }
    spec
}

fn quoted(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| text.to_owned(), |quoted| quoted.into_owned())
}

/// Wercker copied the project; a cluster fetches it.
fn source(converter: &mut Converter<'_>, spec: &mut Map) {
    // The directory of the file, with what its ignore file leaves.
    if converter.is_here() {
        return;
    }
    if let Some(file) = &converter.document.ignore_file {
        let said = format!("ignore-file {} does not count: the source is what git has.", file.value);
        let note = converter.lost(file.at, &said);
        spec.note(note);
    }
    match &converter.options.git {
        Some(url) => {
            let mut git = Map::default();
            git.note("a private repository needs secretName: NAME, see docs/reference/pipeline.md");
            git.text("url", url.clone());
            let mut source = Map::default();
            source.put("git", Out::Map(git));
            spec.put("source", Out::Map(source));
        }
        None => spec.note(
            "The source: Wercker copied the project; here say where git has it, or give source in the run:\n\
             source: {git: {url: \"https://git.example.com/team/app.git\", revision: main}}",
        ),
    }
}

/// Variables that Wercker set by the kind of run, and those that log in.
fn env(
    converter: &mut Converter<'_>,
    pipeline: &Pipeline,
    target: Option<&(Text, Vec<Step>)>,
    made: &[Made],
    spec: &mut Map,
) {
    let mut list = Vec::new();
    let deploys = converter.options.here.as_ref().is_some_and(|here| here.deploys);
    if pipeline.name.value == "deploy" || target.is_some() || deploys {
        let mut entry = Map::default();
        entry.note("$CI and $BUILD are set here as well");
        entry.text("name", "DEPLOY");
        entry.text("value", "true");
        list.push(entry);
    }
    if let Some((target, _)) = target {
        list.push(map([("name", "WERCKER_DEPLOYTARGET_NAME"), ("value", target.value.as_str())]));
    }
    for (made, login) in made.iter().flat_map(|made| made.logins.iter().map(move |login| (made, login))) {
        converter.protect(login, made.at);
    }
    let logins: BTreeSet<&str> = made.iter().flat_map(|made| &made.logins).map(String::as_str).collect();
    if !logins.is_empty() {
        spec.note(containers::secret_note(&logins.iter().copied().collect::<Vec<_>>()));
    }
    list.extend(logins.into_iter().map(|name| from_key(name, "secretKeyRef", SECRET, name)));
    spec.list("env", list);
}

/// Variables that nothing in the file sets.
fn variables(converter: &mut Converter<'_>, pipeline: &Pipeline, services: Vec<String>, made: &[Made], spec: &mut Map) {
    if converter.is_here() {
        return from_outside(spec);
    }
    let containers = pipeline.box_.as_ref().or(converter.document.box_.as_ref());
    let mut set: BTreeSet<String> =
        containers.iter().flat_map(|container| &container.env).map(|(name, _)| name.value.clone()).collect();
    set.extend(made.iter().flat_map(|made| made.logins.iter().cloned()));
    let mut outside = BTreeSet::new();
    for made in made {
        set.extend(shell::assigned(&made.code).into_iter().map(str::to_owned));
        let used =
            shell::used(&made.code).into_iter().chain(made.texts.iter().flat_map(|text| expand::variables(text)));
        for name in used.filter(|name| !set.contains(*name) && !shell::is_known(name)) {
            // Names in small letters are a script's own, as a rule, and link variables come from services.
            let linked = services.iter().any(|alias| name.starts_with(&format!("{}_", links::prefix(alias))));
            if !linked && !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                outside.insert(name.to_owned());
            }
        }
    }
    for (name, instead) in NO_VARIABLES {
        let first = made.iter().find(|made| {
            shell::used(&made.code).contains(name) || made.texts.iter().any(|t| expand::variables(t).any(|v| v == name))
        });
        if let Some(made) = first {
            let instead = if instead.is_empty() { String::new() } else { format!("; {instead} is the nearest") };
            let note = converter.lost(made.at, &format!("{name} is not set here{instead}."));
            spec.note(note);
        }
    }
    if outside.is_empty() {
        return;
    }
    let names: Vec<&str> = outside.iter().map(String::as_str).collect();
    spec.note(format!(
        "Variables that Wercker had from its web page, or X_ variables of your machine. Those seen here: {}. \
         Put plain ones into the ConfigMap and protected ones into the Secret: \
         kubectl create configmap {CONFIG_MAP} --from-literal=NAME=VALUE",
        names.join(", ")
    ));
    from_outside(spec);
}

/// The variables of the run, wherever they are used.
fn from_outside(spec: &mut Map) {
    let from = |kind: &str, name: &str| {
        let mut reference = map([("name", name)]);
        reference.put("optional", Out::Truth(true));
        let mut entry = Map::default();
        entry.put(kind, Out::Map(reference));
        entry
    };
    spec.list("envFrom", vec![from("configMapRef", CONFIG_MAP), from("secretRef", SECRET)]);
}

/// What steps shared by other ways than variables.
fn session_notes(converter: &mut Converter<'_>, pipeline: &Pipeline, main: &[Step], made: &[Made]) -> Vec<String> {
    let mut notes = scripts::shared_functions(converter, made);
    // A run on this machine keeps both.
    if converter.is_here() {
        return notes;
    }
    let code: String = made.iter().map(|made| made.code.as_str()).collect::<Vec<_>>().join("\n");
    if code.contains("WERCKER_CACHE_DIR") || code.contains("/pipeline/cache") {
        let at = made
            .iter()
            .find(|m| m.code.contains("CACHE_DIR") || m.code.contains("/pipeline/cache"))
            .map_or(pipeline.name.at, |m| m.at);
        notes
            .push(converter.lost(at, "$WERCKER_CACHE_DIR is an empty directory in each run: caches are not kept yet."));
    }
    let scratch = main.iter().any(|step| step.is_internal() && step.id == "docker-scratch-push");
    if !scratch && (code.contains("WERCKER_OUTPUT_DIR") || code.contains("/pipeline/output")) {
        let at = made
            .iter()
            .find(|m| m.code.contains("OUTPUT_DIR") || m.code.contains("/pipeline/output"))
            .map_or(pipeline.name.at, |m| m.at);
        let said = "Files in $WERCKER_OUTPUT_DIR end with the run: artifacts are not kept yet, nor handed to the next pipeline.";
        notes.push(converter.lost(at, said));
    }
    notes
}
