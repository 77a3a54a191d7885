//! The files of `tests/wercker`: what is made of good ones, what is said of broken ones.
//!
//! Beside `NAME.yml` stands what `windlass convert` prints: `NAME.pipelines.yaml` and, if it warns, `NAME.warnings`;
//! for broken files `NAME.errors`. `INSTA_UPDATE=always` writes them anew.

use super::crds::typed;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use windlass::{
    api::PipelineSpec,
    steps,
    wercker::{
        convert::{self, Options},
        read_all,
    },
    yaml::Findings,
};

/// The files of a folder, sorted by name.
pub(crate) fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wercker").join(folder);
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|end| end == "yml")).collect();
    paths.sort();
    paths
}

/// What stands beside a file is what was made of it; empty: no such file.
fn golden(path: &Path, end: &str, made: &str, wrong: &mut Vec<String>) {
    let file = path.with_extension(end);
    let there = fs::read_to_string(&file).unwrap_or_default();
    if there == made {
        return;
    }
    if std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always") {
        if made.is_empty() { fs::remove_file(&file).unwrap() } else { fs::write(&file, made).unwrap() }
    } else {
        wrong.push(format!("{} is\n{there}\nand should be\n{made}", file.display()));
    }
}

fn shown(findings: &Findings, text: &str) -> String {
    findings.list().iter().map(|found| found.render("wercker.yml", text)).collect()
}

/// Converts a text; all that is said, and the Pipelines if there are any.
pub(crate) fn converted(text: &str) -> (String, Option<String>) {
    let (document, findings) = read_all(text);
    if findings.has_errors() {
        return (shown(&findings, text), None);
    }
    let said = shown(&findings, text);
    let options = Options { file: "wercker.yml".into(), ..Options::default() };
    match convert::convert(&document, &options) {
        Ok(done) => (said + &shown(&done.findings, text), Some(done.yaml)),
        Err(more) => (said + &shown(&more, text), None),
    }
}

fn objects(yaml: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(yaml)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .collect()
}

#[test]
fn good_files_become_pipelines() {
    let mut wrong = Vec::new();
    let paths = files("good");
    assert!(paths.len() >= 60, "{}", paths.len());
    for path in &paths {
        let (said, yaml) = converted(&fs::read_to_string(path).unwrap());
        let Some(yaml) = yaml else {
            wrong.push(format!("{}: {said}", path.display()));
            continue;
        };
        golden(path, "pipelines.yaml", &yaml, &mut wrong);
        golden(path, "warnings", &said, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Types, schema and the rules of the controller; the API server's own are asked by a test in the cluster.
#[test]
fn pipelines_that_are_made_can_be_run() {
    for path in files("good") {
        let yaml = converted(&fs::read_to_string(&path).unwrap()).1.unwrap();
        for object in objects(&yaml) {
            let typed = typed(&object).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let spec: PipelineSpec = serde_json::from_value(typed["spec"].clone()).unwrap();
            let spec = steps::params::with_stand_ins(&spec).unwrap();
            assert_eq!(steps::pipeline::faults(&spec), [], "{}\n{yaml}", path.display());
        }
    }
}

#[test]
fn broken_files_are_told_with_their_places() {
    let mut wrong = Vec::new();
    let paths = files("broken");
    assert!(paths.len() >= 40, "{}", paths.len());
    for path in &paths {
        let text = fs::read_to_string(path).unwrap();
        match converted(&text) {
            (said, None) => {
                assert!(!said.contains("hunter2"), "{said}");
                golden(path, "errors", &said, &mut wrong);
            }
            (_, Some(yaml)) => wrong.push(format!("{} was converted: {yaml}", path.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn what_is_beside_a_file_belongs_to_one() {
    for (folder, ends) in [("good", &["yml", "pipelines.yaml", "warnings"][..]), ("broken", &["yml", "errors"])] {
        let stems: Vec<PathBuf> = files(folder).iter().map(|path| path.with_extension("")).collect();
        for entry in fs::read_dir(stems[0].parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            assert!(
                stems.iter().any(|stem| ends.iter().any(|end| stem.with_extension(end) == path)),
                "{}",
                path.display()
            );
        }
    }
}

/// No password of a file gets into what is written or said.
#[test]
fn passwords_are_not_copied() {
    for path in files("good") {
        let (said, yaml) = converted(&fs::read_to_string(&path).unwrap());
        assert!(!said.contains("hunter2") && !yaml.unwrap().contains("hunter2"), "{}", path.display());
    }
}

/// The same by the real command line.
struct Place(tempfile::TempDir);

impl Place {
    fn with(files: &[(&str, &str)]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = place.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        place
    }

    fn say(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        let output = command.env_clear().current_dir(self.0.path()).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }
}

const GOOD: &str = "box: debian:12\nbuild:\n  - script: {code: make}\ndeploy:\n  - script: {code: make deploy}\n\
    workflows:\n  - name: all\n    pipelines:\n      - name: build\n      - name: deploy\n        requires: [build]\n";

#[test]
fn check_says_what_is_right_and_what_is_wrong() {
    let place = Place::with(&[
        ("wercker.yml", GOOD),
        ("bad.yml", "box: debian:12\nbuild:\n  steps: [make]\n  after-step: []\n"),
    ]);
    let good = "ok wercker.yml: 2 pipelines (build, deploy), 1 workflow\n";
    assert_eq!(place.say(&["check"]), (0, String::new(), good.into()));
    let (code, out, err) = place.say(&["check", "bad.yml", "wercker.yml"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err,
        format!(
            "error[UnknownKey]: pipeline build: no such key: after-step\n  --> bad.yml:4:3\n4 |   after-step: []\n  |   \
             ^^^^^^^^^^ did you mean after-steps?\nbad.yml: 1 error, 0 warnings\n{good}"
        )
    );
    let (code, _, err) = place.say(&["check", "missing.yml"]);
    assert!(code == 2 && err.starts_with("error[UnreadableFile]: missing.yml: "), "{err}");
    let empty = Place::with(&[]);
    let (code, _, err) = empty.say(&["check"]);
    assert!(code == 2 && err.contains("hint: windlass init "), "{err}");
}

/// What `build` refuses before it starts, `check` refuses: a variable that is not set is no fault of the file.
#[test]
fn check_refuses_a_password_that_is_written_out() {
    let push = |password: &str| {
        format!(
            "box: debian:12\nbuild:\n  - internal/docker-push: {{repository: $WHERE/app, tag: a, username: $U, password: {password}}}\n"
        )
    };
    let (code, _, err) = Place::with(&[("wercker.yml", &push("hunter22"))]).say(&["check"]);
    assert!(code == 1 && err.contains("error[InvalidProperty]: internal/docker-push: password must be"), "{err}");
    let (code, _, err) = Place::with(&[("wercker.yml", &push("$PW"))]).say(&["check"]);
    assert!(code == 0, "{err}");
}

/// What a run says before it starts, `check` says: no more, and no less.
#[test]
fn check_warns_of_what_a_run_warns_of() {
    let calls = "box: debian:12\nbuild:\n  - script: {name: a, code: 'retry() { \"$@\"; }'}\n  - script: {name: b, code: retry true}\n\
        other: {box: $NOT_SET, steps: [{script: {code: make}}]}\n";
    let place = Place::with(&[("wercker.yml", calls)]);
    let (code, out, err) = place.say(&["check"]);
    let told = "warning[Changed]: Step b calls retry, a function of step a";
    assert!((code, out.as_str()) == (0, "") && err.starts_with(told), "{err}");
    assert!(err.ends_with("wercker.yml: 0 errors, 1 warning\n"), "{err}");
    assert_eq!(place.say(&["check", "--strict"]).0, 1);
    assert!(place.say(&["check", "--json"]).1.contains("\"reason\":\"Changed\""));
    // Each for its own pipelines only, and what all of them share once.
    let shared = "box: debian:12\nservices: [{id: redis, name: My_Cache}]\nbuild: [{script: {code: make}}]\n\
        deploy: {qa: [{script: {code: make}}], live: [{script: {code: make}}]}\n";
    let err = Place::with(&[("wercker.yml", shared)]).say(&["check"]).2;
    assert!(err.ends_with("wercker.yml: 0 errors, 1 warning\n"), "{err}");
}

#[test]
fn check_takes_what_runs_take() {
    let names: Vec<PathBuf> = files("good");
    let names: Vec<&str> = names.iter().map(|path| path.to_str().unwrap()).collect();
    let (code, _, err) = Place::with(&[]).say(&[&["check"], names.as_slice()].concat());
    assert_eq!(code, 0, "{err}");
    // Only a cluster does these otherwise.
    for name in ["cache-and-output", "workflow", "services-private", "watch-with-ports"] {
        let ok = |line: &str| line.starts_with("ok ") && line.contains(&format!("/{name}.yml: "));
        assert!(err.lines().any(ok), "{name}: {err}");
    }
}

#[test]
fn check_knows_what_docker_would_refuse() {
    let run = "internal/docker-run: {name: web, image: nginx}";
    let text = |between: &str| format!("box: debian:12\nbuild:\n  - {run}\n{between}  - {run}\n");
    let (code, _, err) = Place::with(&[("wercker.yml", &text(""))]).say(&["check"]);
    let told = "error[InvalidProperty]: internal/docker-run: a container web is there already\n  --> wercker.yml:4:";
    assert!(code == 1 && err.starts_with(told), "{err}");
    let (code, _, err) =
        Place::with(&[("wercker.yml", &text("  - internal/docker-kill: {name: web}\n"))]).say(&["check"]);
    assert_eq!((code, err.as_str()), (0, "ok wercker.yml: 1 pipeline (build)\n"));
}

#[test]
fn an_interpreter_that_is_no_shell_is_told() {
    let text = "box: debian:12\nbuild:\n  - script:\n      code: |\n        #!/usr/bin/env perl\n        print 1;\n";
    let (code, _, err) = Place::with(&[("wercker.yml", text)]).say(&["check"]);
    let told = "warning[Changed]: The script begins with #! and perl, and the shell of the box runs it all the same";
    assert!(code == 0 && err.starts_with(told), "{err}");
    let (_, out, err) = Place::with(&[("wercker.yml", text)]).say(&["convert"]);
    assert!(err.starts_with(told) && out.contains("# The script begins with #! and perl"), "{err}{out}");
    let (_, _, err) = Place::with(&[("wercker.yml", &text.replace("perl", "bash"))]).say(&["check", "--strict"]);
    assert_eq!(err, "ok wercker.yml: 1 pipeline (build)\n");
}

#[test]
fn check_gives_events() {
    let place = Place::with(&[("wercker.yml", "box: debian:12\nbuild:\n  - scirpt: {code: x}\n")]);
    let (code, out, err) = place.say(&["check", "--json"]);
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, err.as_str()), (1, ""));
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["begin", "diagnostic", "end"]);
    let found = &events[1];
    assert_eq!(
        (&found["file"], &found["line"], &found["column"], &found["reason"], &found["severity"], &found["seq"]),
        (&"wercker.yml".into(), &3.into(), &5.into(), &"StepGone".into(), &"error".into(), &2.into())
    );
    assert_eq!(found["hint"], "did you mean script?");
    assert_eq!(events[2]["exit"], 1);
}

#[test]
fn check_knows_our_own_kinds() {
    let run = "apiVersion: windlass.dev/v1alpha1\nkind: PipelineRun\nmetadata: {generateName: x-}\nspec:\n  pipelineSpec:\n    \
        box: {image: debian:12}\n    steps:\n    - {name: a, scripts: make}\n";
    let place = Place::with(&[("windlass.yaml", run)]);
    let (code, _, err) = place.say(&["check"]);
    assert!(code == 1 && err.contains("windlass.yaml:8:17\n") && err.contains("did you mean script?"), "{err}");
    let place = Place::with(&[("windlass.yaml", &run.replace("scripts", "script"))]);
    assert_eq!(place.say(&["check"]), (0, String::new(), "ok windlass.yaml: 1 object (x-)\n".into()));
}

#[test]
fn convert_writes_a_new_file_that_passes_the_check() {
    let config = "[remote \"origin\"]\n\turl = https://me:token@git.example.com/team/app.git\n";
    let place = Place::with(&[("wercker.yml", GOOD), (".git/config", config)]);
    let (code, out, err) = place.say(&["convert"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("url: https://git.example.com/team/app.git\n") && !out.contains("token"), "{out}");
    assert!(err.contains("warning[Changed]: Workflow all ran deploy after build"), "{err}");
    let (code, piped, _) = place.say(&["convert", "-o", "windlass.yaml"]);
    assert_eq!((code, piped.as_str()), (0, ""));
    assert_eq!(place.read("windlass.yaml"), out);
    let (code, _, err) = place.say(&["convert", "-o", "windlass.yaml"]);
    assert!(code == 2 && err.contains("error[AlreadyExists]: windlass.yaml exists\n"), "{err}");
    let (code, _, err) = place.say(&["check", "windlass.yaml"]);
    assert_eq!((code, err.as_str()), (0, "ok windlass.yaml: 2 objects (build, deploy)\n"));
}

#[test]
fn what_a_pipeline_cannot_hold_is_not_written() {
    let long = format!("box: debian:12\nbuild:\n  - script:\n      code: {}\n", "x".repeat(65_537));
    let (code, out, err) = Place::with(&[("wercker.yml", &long)]).say(&["convert"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.contains("the Pipeline made of it: spec.steps[0].script is text, expected at most 65536 characters"),
        "{err}"
    );
    let many = format!("box: debian:12\nservices: [{}]\nbuild: [npm-test]\n", ["redis"; 11].join(", "));
    let (code, _, err) = Place::with(&[("wercker.yml", &many)]).say(&["check"]);
    assert!(code == 1 && err.contains("services: more than 10\n  --> wercker.yml:2:82\n"), "{err}");
}

#[test]
fn examples_pass_the_check() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = fs::read_dir(root.join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    paths.push(root.join("examples/hello/run.yaml"));
    let names: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    let (code, _, err) = Place::with(&[]).say(&[&["check"], names.as_slice()].concat());
    assert_eq!(code, 0, "{err}");
    assert_eq!(err.lines().filter(|line| line.starts_with("ok ")).count(), paths.len(), "{err}");
}

#[test]
fn steps_that_are_there_as_files_are_put_in() {
    let yaml = "box: debian:12\nbuild:\n  - team/greet:\n      who: $NAME\n  - plain\n  - reader\n";
    let place = Place::with(&[
        ("wercker.yml", yaml),
        (".wercker/steps/team-greet/run.sh", "echo \"hello $WERCKER_GREET_WHO, $WERCKER_GREET_HOW\"\n"),
        (
            ".wercker/steps/team-greet/step.yml",
            "name: greet\nproperties:\n  - name: who\n  - name: how\n    default: loud\n",
        ),
        (".wercker/steps/plain/run.sh", "echo plain\n"),
        (".wercker/steps/plain/init.sh", "echo before\n"),
        (".wercker/steps/reader/run.sh", "cat \"$WERCKER_STEP_ROOT/data\"\n"),
        (".wercker/steps/reader/data", "x\n"),
    ]);
    let (code, out, err) = place.say(&["convert"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.contains("wercker.yml:6:5\n") && err.contains("reads files of its own ($WERCKER_STEP_ROOT): data"),
        "{err}"
    );
    fs::write(place.0.path().join("wercker.yml"), yaml.replace("  - reader\n", "")).unwrap();
    let (code, out, err) = place.say(&["convert"]);
    assert_eq!(code, 0, "{err}");
    for part in
        ["export WERCKER_GREET_HOW=\"loud\"\n", "export WERCKER_GREET_WHO=\"$NAME\"\n", "echo before\n", "echo plain\n"]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert_eq!(place.say(&["check"]).0, 0);
    assert_eq!(Place::with(&[("wercker.yml", yaml)]).say(&["check"]).0, 1);
}

#[test]
fn init_writes_a_first_pipeline_once() {
    let place = Place::with(&[("go.mod", "module x\n"), ("Dockerfile", "FROM scratch\n")]);
    let (code, out, err) = place.say(&["init"]);
    assert!(code == 0 && out.is_empty() && err.contains("(Go: go.mod)"), "{err}");
    let made = place.read("windlass.yaml");
    assert!(made.contains("go test ./...") && made.contains("\n  name: build\n"), "{made}");
    assert!(err.contains("hint: on Docker: windlass build; "), "{err}");
    assert_eq!(place.say(&["check"]).0, 0);
    let before = place.read("windlass.yaml");
    let (code, _, err) = place.say(&["init"]);
    assert!(code == 2 && err.starts_with("error[AlreadyExists]: "), "{err}");
    assert_eq!(place.read("windlass.yaml"), before);
    let other = Place::with(&[("wercker.yml", GOOD)]);
    let (code, _, err) = other.say(&["init"]);
    assert!(code == 2 && err.contains("hint: windlass convert wercker.yml -o windlass.yaml"), "{err}");
}

#[test]
fn a_hostile_file_is_refused_in_time() {
    let began = std::time::Instant::now();
    let many: String = (0..20_000).map(|i| format!("key{i}: [a, b]\n")).collect();
    let steps = format!("box: a\nbuild: [{}]\n", "x, ".repeat(90_000));
    let nodes: String = (0..20_000).map(|i| format!("      - {{name: n{i}, requires: [n{}]}}\n", i + 1)).collect();
    let flow = format!("box: a\nbuild: [x]\nworkflows:\n  - name: w\n    pipelines:\n{nodes}");
    let script: String = (0..30_000).map(|i| format!("        f{i}() {{ :; }}\n")).collect();
    let functions =
        format!("box: a\nbuild:\n  - script:\n      code: |\n{script}  - internal/docker-kill: {{name: x}}\n");
    for text in [
        many,
        steps,
        flow,
        "{".repeat(100_000),
        "- ".repeat(100_000),
        functions,
        "&a *a".into(),
        "\u{feff}\u{0}".into(),
    ] {
        let (said, yaml) = converted(&text);
        assert!(yaml.is_none() && !said.is_empty());
        assert!(said.len() < 100_000, "{}", said.len());
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}

mod any {
    use super::converted;
    use proptest::prelude::*;

    /// Lines that make a file, in any order and indentation.
    fn line() -> impl Strategy<Value = String> {
        let words = prop::sample::select(vec![
            "box: debian:12",
            "box:",
            "id: x",
            "tag: 1.10",
            "services:",
            "- redis",
            "build:",
            "steps:",
            "- script:",
            "code: make $A",
            "name: x",
            "- internal/docker-push:",
            "repository: a/b",
            "tag: $V, latest",
            "password: $P",
            "username: u",
            "ports: [80, 81/udp]",
            "after-steps:",
            "- npm-install",
            "workflows:",
            "- name: w",
            "pipelines:",
            "requires: [build]",
            "env: {A: 1}",
            "- internal/watch:",
            "reload: yes",
            "&a",
            "*a",
            "<<: *a",
            "? x",
            "|",
            "\"",
            "{",
            "]",
            "deploy: [x]",
        ]);
        (0..5usize, words).prop_map(|(indent, word)| format!("{}{word}", "  ".repeat(indent)))
    }

    proptest! {
        #[test]
        fn any_file_is_converted_or_told(lines in prop::collection::vec(line(), 0..25)) {
            let text = lines.join("\n");
            let (said, yaml) = converted(&text);
            match yaml {
                None => prop_assert!(said.contains("error["), "{text}"),
                Some(yaml) => {
                    for object in super::objects(&yaml) {
                        prop_assert!(super::typed(&object).is_ok(), "{text}\n{yaml}");
                    }
                }
            }
        }
    }
}

/// Wercker did so, too, and said nothing.
#[test]
fn a_repository_that_becomes_lower_case_is_told() {
    let of = |id: &str, repository: &str| {
        converted(&format!("box: debian:12\nbuild:\n  - internal/{id}: {{repository: '{repository}'}}\n"))
    };
    for id in ["docker-push", "docker-scratch-push"] {
        let (said, yaml) = of(id, "Quay.io:5000/Team/$APP_Name-X");
        let expected = format!(
            "warning[Changed]: pipeline build: internal/{id}: repository \"Quay.io:5000/Team/$APP_Name-X\": \
             repository names are lower-case\n"
        );
        assert!(
            said.starts_with(&expected) && said.contains("^ it is pushed in lower case, as in Wercker\n"),
            "{said}"
        );
        assert_eq!(said.matches("warning").count(), 1, "{said}");
        let yaml = yaml.expect("a Pipeline");
        assert!(yaml.contains("# pushed in lower case, as in Wercker: repository names are lower-case\n"), "{yaml}");
        for fine in [
            "Quay.io/team/app",
            "$REGISTRY/Team$$",
            "team/${APP}-x",
            "$Registry/team/app",
            "REGISTRY.example.com:5000/a",
        ] {
            let (said, _) = of(id, fine);
            assert_eq!(said.contains("lower"), fine.contains("/T"), "{fine}: {said}");
        }
    }
}

#[test]
fn ports_of_a_container_are_those_of_a_box() {
    let of = |port: &str| {
        let yml =
            format!("box: debian:12\nbuild:\n  - internal/docker-run: {{name: web, image: nginx, ports: '{port}'}}\n");
        shown(&read_all(&yml).1, &yml)
    };
    for port in ["9000", "9999:9000", "127.0.0.1:9999:9000/tcp, 53/udp", "127.0.0.1::9000", "$PORT"] {
        assert_eq!(of(port), "", "{port}");
    }
    let said = of("9999:http");
    let expected = "pipeline build: internal/docker-run: ports: \"9999:http\" is not a port\n";
    assert!(said.contains(expected) && said.contains("expected NUMBER, HOST:NUMBER or IP:HOST:NUMBER"), "{said}");
}
