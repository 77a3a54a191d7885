//! Steps of each kind.
//!
//! **Invariant:** every property of a step is used, or refused, or named in a comment.

use super::{
    super::{
        document::{Container, Pipeline, Step},
        out::{Map, Out},
        shell::double_quoted,
    },
    Converter, MOST_STEP_NAME, engine, push, registry,
    scripts::{self, Made},
    slug, unique,
};
use crate::{
    api::here::HereStep,
    yaml::{Node, reason, truth},
};
use std::collections::BTreeSet;

/// Longest name that people see.
const MOST_TITLE: usize = 128;

/// A step, before it has a name.
#[derive(Default)]
pub(super) struct Body {
    /// What goes below its kind, and the kind's name.
    pub(super) kind: Option<(&'static str, Out)>,
    /// Above the step.
    pub(super) notes: Vec<String>,
    /// Where it runs, if not where all do.
    pub(super) cwd: Option<String>,
    /// Shell code, for scripts.
    pub(super) code: String,
    /// Why a command that fails does not end the code.
    pub(super) goes_on: Option<&'static str>,
    /// Texts in which variables are expanded.
    pub(super) texts: Vec<String>,
    /// Variables that log in.
    pub(super) logins: Vec<String>,
    /// What the machine does in its place, in a run there.
    pub(super) here: Option<HereStep>,
    /// The image that is pushed in place of the box, in a run on this machine.
    pub(super) built: Option<String>,
}

/// The steps of a pipeline and its after-steps, in order.
pub(super) fn steps(converter: &mut Converter<'_>, pipeline: &Pipeline, main: &[Step]) -> Vec<Made> {
    let mut names = BTreeSet::new();
    if converter.document.source_dir.is_some() {
        names.insert("source-dir".to_owned());
    }
    let all = main.iter().map(|step| (false, step)).chain(pipeline.after_steps.iter().map(|step| (true, step)));
    let mut bodies: Vec<(bool, &Step, Body)> = Vec::new();
    for (after, step) in all {
        let mut body = body(converter, pipeline, step);
        body.cwd = cwd(step, converter.document.source_dir.is_some());
        bodies.push((after, step, body));
    }
    engine::refuse_twice(converter, bodies.iter().filter_map(|(_, step, body)| Some((*step, body.here.as_ref()?))));
    let codes: Vec<&str> = bodies.iter().map(|(_, _, body)| body.code.as_str()).collect();
    let texts: Vec<Vec<&str>> =
        bodies.iter().map(|(_, _, body)| body.texts.iter().map(String::as_str).collect()).collect();
    let exports = scripts::to_export(&codes, &texts);
    let mut made: Vec<Made> = Vec::new();
    // What is said of a step that is left out stands at the next, or at the end of the last.
    let mut left_out = Vec::new();
    for ((after, step, mut body), exports) in bodies.into_iter().zip(exports) {
        body.notes.splice(..0, left_out.drain(..));
        match body.kind.take() {
            Some(kind) => {
                let (here, built) = (body.here.take(), body.built.take());
                let (step_made, name) = one(converter, step, body, kind, after, &exports, &mut names);
                converter.beside.work.extend(here.map(|here| (name.clone(), here)));
                converter.beside.built.extend(built.map(|built| (name, built)));
                made.push(step_made);
                if let Some(checkpoint) = step.checkpoint.as_ref().filter(|_| converter.is_here()) {
                    made.push(engine::checkpoint(converter, checkpoint, after, &mut names));
                }
            }
            None => left_out = body.notes,
        }
    }
    if let Some(last) = made.last_mut() {
        last.out.notes(left_out);
    }
    made
}

/// Where a step runs. With `source-dir` that is what the first step made of `WERCKER_SOURCE_DIR`.
fn cwd(step: &Step, source_dir: bool) -> Option<String> {
    let runs_in_box = !step.is_internal() || matches!(step.id.as_str(), "watch" | "shell");
    let written = step.cwd.as_ref().map(|cwd| cwd.value.clone()).filter(|_| runs_in_box);
    match written {
        Some(cwd) if source_dir && !cwd.starts_with(['/', '$']) => Some(format!("$WERCKER_SOURCE_DIR/{cwd}")),
        None if source_dir && runs_in_box => Some("$WERCKER_SOURCE_DIR".into()),
        written => written,
    }
}

/// Puts a step together; its name beside it.
fn one(
    converter: &Converter<'_>,
    step: &Step,
    body: Body,
    (kind, value): (&'static str, Out),
    after: bool,
    exports: &[String],
    names: &mut BTreeSet<String>,
) -> (Made, String) {
    let mut out = Map::default();
    let title = step.title();
    out.notes(body.notes);
    if let Some(checkpoint) = step.checkpoint.as_ref().filter(|_| !converter.is_here()) {
        out.note(format!(
            "checkpoint {} is left out: a run can wait before any step, run --breakpoint before:STEP",
            checkpoint.value
        ));
    }
    let base = step.name.as_ref().map_or(step.id.as_str(), |name| name.value.as_str());
    let fallback = slug(&step.id, MOST_STEP_NAME, "step");
    let name = unique(&slug(base, MOST_STEP_NAME, &fallback), MOST_STEP_NAME, names);
    out.text("name", name.clone());
    if let Some(shown) = step.name.as_ref().filter(|shown| shown.value != name) {
        out.text("displayName", shown.value.chars().take(MOST_TITLE).collect::<String>());
    }
    out.maybe("cwd", body.cwd);
    let value = match value {
        Out::Text(code) if kind == "script" => {
            let (mut lines, notes) = scripts::before(&code, body.goes_on);
            out.notes(notes);
            if !exports.is_empty() {
                out.note("a later step uses what this one sets; Wercker had one shell for all steps");
                lines.insert_str(0, &format!("export {}\n", exports.join(" ")));
            }
            if converter.is_here() {
                lines.insert_str(0, &own_files(&body.code, &name, &step.owner));
            }
            // A line alone reads better beside its key.
            let one_line = lines.is_empty() && code.trim_end().lines().count() == 1;
            Out::Text(if one_line { code.trim_end().to_owned() } else { lines + &code })
        }
        Out::Map(watch) if kind == "watch" && converter.is_here() => {
            let own = own_files(&body.code, &name, &step.owner);
            Out::Map(watch.with("code", |code| own + &code))
        }
        other => other,
    };
    out.put(kind, value);
    (Made { out, after, at: step.at, title, code: body.code, texts: body.texts, logins: body.logins }, name)
}

/// What Wercker told a step, and the programs that it calls, of its own files: places below the run's reports. A box
/// without `mkdir` goes on without them.
fn own_files(code: &str, name: &str, owner: &str) -> String {
    let place = format!("$WERCKER_REPORT_DIR/{name}");
    let mut lines = format!(
        "export WERCKER_REPORT_ARTIFACTS_DIR=\"{place}/artifacts\" WERCKER_REPORT_MESSAGE_FILE=\"{place}/message.txt\" \
         WERCKER_REPORT_NUMBERS_FILE=\"{place}/numbers.ini\"\n"
    );
    // Steps that are there as files have their own.
    if !code.starts_with("export WERCKER_STEP_ROOT=") {
        let owner = double_quoted(owner);
        lines.push_str(&format!("export WERCKER_STEP_OWNER={owner} WERCKER_STEP_ROOT=\"{place}\"\n"));
    }
    lines.push_str(&format!("mkdir -p \"{place}/artifacts\" || :\n"));
    lines
}

fn body(converter: &mut Converter<'_>, pipeline: &Pipeline, step: &Step) -> Body {
    if step.is_script() {
        return script(converter, step);
    }
    if !step.is_internal() {
        return registry::body(converter, step);
    }
    match step.id.as_str() {
        "docker-push" | "docker-scratch-push" => push::body(converter, step),
        "watch" => watch(pipeline.box_.as_ref().or(converter.document.box_.as_ref()), step),
        "shell" => shell(step),
        "store-container" => Body { kind: Some(("storeContainer", Out::Map(Map::default()))), ..Body::default() },
        "docker-build" | "docker-run" | "docker-kill" if converter.is_here() => engine::body(converter, step),
        id => {
            refuse(converter, step, id);
            Body::default()
        }
    }
}

/// What needs the node's engine, which steps of a cluster must not have.
fn refuse(converter: &mut Converter<'_>, step: &Step, id: &str) {
    let (what, hint) = match id {
        "docker-build" => (
            "builds an image from a Dockerfile on the node's engine, which is root there",
            "make the box what the Dockerfile makes and push it with internal/docker-push, or call buildah or kaniko in a script",
        ),
        "docker-run" => (
            "starts a container on the node's engine, which is root there",
            "name its image under services: it starts before the steps, and its name is a host name",
        ),
        "docker-kill" => {
            ("ends a container that internal/docker-run started", "services end with the run; leave the step out")
        }
        _ => (
            "sends a step to Wercker's registry, which is gone",
            "keep the step's script in your source and call it from a script step",
        ),
    };
    converter.refuse(reason::NOT_IN_CLUSTER, step.at, &format!("internal/{id} {what}"), hint);
}

fn script(converter: &mut Converter<'_>, step: &Step) -> Body {
    let mut code = step.text("code").map(|text| text.value).unwrap_or_default();
    let mut notes = Vec::new();
    let goes_on = code.trim_start().starts_with("#!").then_some(scripts::OF_SHEBANG);
    if let Some(other) = scripts::interpreter(&code) {
        let said = format!(
            "The script begins with #! and {other}, and the shell of the box runs it all the same, as in Wercker. \
             Put it into a file of the source and call that."
        );
        notes.push(converter.lost(step.at, &said));
    }
    let others: Vec<String> = step
        .properties
        .iter()
        .filter(|property| property.name.value != "code")
        .filter_map(|property| Some(registry::assignment("script", &property.name.value, property.value.text()?)))
        .collect();
    if !others.is_empty() {
        notes.push("properties of a script are variables, as in Wercker".to_owned());
        let exports: String = others.iter().map(|line| format!("export {line}\n")).collect();
        code.insert_str(0, &exports);
    }
    Body { kind: Some(("script", Out::Text(code.clone()))), notes, code, goes_on, ..Body::default() }
}

/// `box_` is that of the pipeline.
fn watch(box_: Option<&Container>, step: &Step) -> Body {
    let mut watch = Map::default();
    let code = step.text("code").map(|text| text.value).unwrap_or_default();
    watch.text("code", code.clone());
    if step.text("reload").and_then(|text| truth(&text.value)) == Some(true) {
        watch.put("reload", Out::Truth(true));
    }
    let ports = box_.iter().flat_map(|container| &container.ports);
    let ports = ports.filter_map(|port| port.value.rsplit(':').next()?.split('/').next()?.parse::<u16>().ok());
    let ports: Vec<(Vec<String>, Out)> =
        ports.take(20).map(|port| (Vec::new(), Out::Number(i64::from(port)))).collect();
    if !ports.is_empty() {
        watch.note("ports of the box");
        watch.put("ports", Out::List(ports));
    }
    let notes = vec!["ends when you say so, windlass finish RUN; in Wercker Ctrl-C did it".to_owned()];
    Body { kind: Some(("watch", Out::Map(watch))), notes, code, ..Body::default() }
}

fn shell(step: &Step) -> Body {
    let mut shell = Map::default();
    if let Some(cmd) = step.property("cmd") {
        words(&mut shell, "cmd", &cmd.value);
    }
    let code = step.text("code").map(|text| text.value).unwrap_or_default();
    if !code.is_empty() {
        shell.text("code", code.clone());
    }
    Body { kind: Some(("shell", Out::Map(shell))), code, ..Body::default() }
}

/// A property that is text or a list: as it was written.
pub(super) fn words(out: &mut Map, key: &str, node: &Node) {
    match node.list() {
        Some(items) => {
            let words = items.iter().filter_map(Node::text).map(str::to_owned).collect();
            out.put(key, Out::Words(words));
        }
        None => out.maybe(key, node.text().filter(|text| !text.is_empty()).map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, here, here::Here};
    use crate::wercker::read;
    use serde_json::Value;
    use std::process::Command;

    /// The first step of a run of `build` on this machine.
    fn first_step(yml: &str) -> Value {
        let document = read(yml).unwrap();
        let options = Options { here: Some(Here::default()), ..Options::default() };
        let pipeline = document.pipeline("build").unwrap();
        let made = here(&document, &options, pipeline, None).unwrap();
        let object: Value = serde_yaml::from_str(&made.yaml).unwrap();
        object["spec"]["steps"][0].clone()
    }

    /// In Wercker all programs of a step had them, not only its own lines.
    #[test]
    fn what_a_step_is_told_of_its_files_reaches_the_scripts_it_calls() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["STEP_ROOT", "STEP_OWNER", "REPORT_ARTIFACTS_DIR", "REPORT_MESSAGE_FILE", "REPORT_NUMBERS_FILE"];
        let asks: String = names.iter().map(|name| format!("echo \"${{WERCKER_{name}-unset}}\"\n")).collect();
        std::fs::write(dir.path().join("ci.sh"), asks + "cd \"$WERCKER_STEP_ROOT\" && ls\n").unwrap();
        let step = first_step("box: a\nbuild:\n  - script: {code: sh ci.sh}\n");
        let mut shell = Command::new("sh");
        shell.args(["-ec", step["script"].as_str().unwrap()]).current_dir(dir.path());
        let out = shell.env("WERCKER_REPORT_DIR", "report").output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
        assert_eq!(
            said,
            "report/script\nwercker\nreport/script/artifacts\nreport/script/message.txt\nreport/script/numbers.ini\nartifacts\n"
        );
        // A watched step too.
        let step = first_step("box: a\nbuild:\n  - internal/watch: {code: sh ci.sh}\n");
        let code = step["watch"]["code"].as_str().unwrap();
        assert!(code.starts_with("export WERCKER_REPORT_ARTIFACTS_DIR=") && code.ends_with("\nsh ci.sh"), "{code}");
    }
}
