//! Runs of `wercker.yml` on the engine alone: the files of `tests/wercker/good`, as they are, and what only a run on this
//! machine does. Images that the files name are names of ours here; programs that they call print how they were called.

use super::{
    local::{Project, Said, open_registry, unique},
    push::config,
    world::tool,
};
use crate::fast::wercker::files as corpus;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Mutex, Once,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Images of the files, and which of ours has their name.
const IMAGES: [(&str, &str); 27] = [
    ("debian:12", "debian:local"),
    ("golang:1.22", "debian:local"),
    ("node:22", "debian:local"),
    ("python:3.10", "debian:local"),
    ("alpine:3.20", "busybox:local"),
    ("busybox:latest", "busybox:local"),
    ("team/tool:1", "debian:local"),
    ("team/builder:latest", "debian:local"),
    ("turing/builder:latest", "debian:local"),
    ("quay.io/team/builder:latest", "debian:local"),
    ("registry.example.com/team/builder:latest", "debian:local"),
    ("registry.example.com:5000/team/box:new", "debian:local"),
    ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/builder:latest", "debian:local"),
    ("koalaman/shellcheck-alpine:stable", "debian:local"),
    ("postgres:16", "busybox:local"),
    ("redis:latest", "busybox:local"),
    ("mongo:7", "busybox:local"),
    ("mysql:8.4", "busybox:local"),
    ("nginx:latest", "busybox:local"),
    ("httpd:latest", "busybox:local"),
    ("team/my_service.v2:latest", "busybox:local"),
    ("registry.example.com/team/api:2", "busybox:local"),
    ("registry.example.com/team/db:latest", "busybox:local"),
    ("nodesource/trusty:latest", "debian:local"),
    ("postgres:latest", "busybox:local"),
    ("node:latest", "debian:local"),
    ("debian:latest", "debian:local"),
];

/// Programs of the project, before those of the image.
const PROGRAMS: [&str; 11] =
    ["make", "npm", "go", "python", "tool", "shellcheck", "apt-get", "bundle", "pip", "ssh-keyscan", "ssh-keygen"];
pub(super) const PATH: &str = "/pipeline/source/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Files that cannot run here, and why.
const NOT_HERE: [(&str, &str); 5] = [
    ("box-digest", "an image of this digest does not exist"),
    ("doc-shell", "waits for a person"),
    ("doc-watch", "goes on until it is told to end"),
    ("watch-with-ports", "goes on until it is told to end"),
    ("services-map", "its entrypoint is in no image here"),
];

/// Files that run in the cluster too, once they are converted: those whose images have a tag there (without one the
/// kubelet pulls), and that need nothing that only this machine has.
const IN_CLUSTER: [&str; 27] = [
    "after-steps",
    "anchors",
    "bare-list",
    "base-path",
    "box-entrypoint-lost",
    "box-env-list",
    "box-host-with-port",
    "box-map",
    "box-per-pipeline",
    "box-shell",
    "box-string",
    "box-tag-is-a-number",
    "deploy-targets",
    "deploy-targets-only",
    "helpers-fail",
    "name-of-a-pipeline",
    "script-helpers",
    "script-properties",
    "script-shebang",
    "shared-shell",
    "shared-variable",
    "source-dir",
    "source-dir-and-base-path",
    "step-names",
    "steps-done-wrong",
    "targets-and-code",
    "timeouts",
];

/// A run of a file.
pub(super) struct Case {
    pub(super) file: &'static str,
    pub(super) arguments: &'static [&'static str],
    /// Variables of the machine.
    pub(super) variables: &'static [(&'static str, &'static str)],
    /// Files of the project.
    files: &'static [(&'static str, &'static str)],
    pub(super) code: i32,
    /// Lines of the output, in this order.
    pub(super) lines: &'static [&'static str],
    /// Parts of the messages.
    said: &'static [&'static str],
    /// Parts that are nowhere.
    pub(super) unsaid: &'static [&'static str],
    /// Files that the run leaves, below the project.
    left: &'static [&'static str],
    /// Images that the run leaves, with parts of their configs.
    images: &'static [(&'static str, &'static [&'static str])],
}

const CASE: Case = Case {
    file: "",
    arguments: &["build"],
    variables: &[],
    files: &[],
    code: 0,
    lines: &[],
    said: &[],
    unsaid: &[],
    left: &[],
    images: &[],
};

const fn prints(file: &'static str, lines: &'static [&'static str]) -> Case {
    Case { file, lines, ..CASE }
}

const fn pushes(
    file: &'static str,
    pipeline: &'static [&'static str],
    images: &'static [(&'static str, &'static [&'static str])],
) -> Case {
    Case { file, arguments: pipeline, images, ..CASE }
}

/// A pushed image stays here.
const HERE: &[&str] = &["deploy", "--docker-local"];
const HERE_BUILD: &[&str] = &["build", "--docker-local"];

fn cases() -> Vec<Case> {
    let mut cases = boxes();
    cases.extend(services());
    cases.extend(steps());
    cases.extend(variables());
    cases.extend(targets());
    cases
}

fn boxes() -> Vec<Case> {
    vec![
        prints("box-aws", &["make"]),
        prints("box-entrypoint-lost", &["tool --version"]),
        prints("box-env-list", &[]),
        prints("box-host-with-port", &[]),
        prints("box-map", &[]),
        Case { unsaid: &["hunter2"], ..prints("box-password-in-clear-is-not-copied", &["make"]) },
        Case { arguments: &["run", "lint"], ..prints("box-per-pipeline", &["shellcheck *.sh"]) },
        prints("box-per-pipeline", &["make"]),
        Case {
            variables: &[("XXX_BOX_PASSWORD", "hunter2")],
            unsaid: &["hunter2"],
            ..prints("box-private", &["make"])
        },
        Case {
            file: "box-private",
            code: 2,
            said: &[
                "error[UndefinedVariable]: the variable BOX_PASSWORD is not set\n  --> wercker.yml:5:13",
                "nothing was started",
            ],
            ..CASE
        },
        prints("box-shell", &[]),
        prints("box-string", &["ID=debian"]),
        prints("box-tag-is-a-number", &["python --version"]),
        Case {
            variables: &[("X_GO_VERSION", "1.22"), ("X_PG_VERSION", "16"), ("XXX_PG_PASSWORD", "hunter2")],
            unsaid: &["hunter2"],
            ..prints("box-variable", &["go version"])
        },
        prints("base-path", &["/go/src/example.com/app"]),
        prints("anchors", &["setup", "make"]),
        Case { arguments: &["run", "test"], ..prints("anchors", &["setup", "make test"]) },
        prints("bare-list", &["hello"]),
    ]
}

fn services() -> Vec<Case> {
    vec![
        prints("services-names", &["hello"]),
        prints("services-of-a-pipeline-replace", &["make"]),
        Case { arguments: &["run", "test"], ..prints("services-of-a-pipeline-replace", &["make test"]) },
        Case {
            variables: &[("X_REG_USER", "ci"), ("XXX_REG_PASSWORD", "hunter2")],
            unsaid: &["hunter2"],
            ..prints("services-private", &["make test"])
        },
        Case { file: "services-strings", ..CASE },
    ]
}

fn steps() -> Vec<Case> {
    const SOURCE_DIR: &[(&str, &str)] = &[("services/api/name.txt", "the api\n"), ("services/api/sub/x", "")];
    vec![
        prints("after-steps", &["make test", "the run has passed"]),
        Case {
            code: 1,
            unsaid: &["\nnever\n"],
            ..prints("helpers-fail", &["info: looking", "failed: no Makefile", "look has failed"])
        },
        Case { file: "long-script", said: &["1/1 many-lines"], ..CASE },
        Case { arguments: &["run", "Build_And.Test"], ..prints("name-of-a-pipeline", &["make"]) },
        prints("registry-step-with-owner", &["npm test"]),
        prints("step-with-colon-only", &["npm test"]),
        Case { files: &[("Makefile", "")], ..prints("script-helpers", &["info: begin", "success: done", "mine"]) },
        Case {
            variables: &[("X_TASTE", "much")],
            files: &[("sub dir/x", "")],
            ..prints("script-properties", &["sweet much"])
        },
        prints("script-shebang", &["goes on"]),
        Case {
            files: &[("VERSION", "1.4\n")],
            code: 1,
            said: &["functions end with their step here", "  --> wercker.yml:10:7"],
            ..CASE
        }
        .of("shared-shell"),
        prints("shared-variable", &["version is 1.4", "the run has passed after 1.4"]),
        prints("shebang-and-done-wrong", &["hello goes on", "made by \"create-file\""]),
        Case {
            files: SOURCE_DIR,
            ..prints(
                "source-dir-and-base-path",
                &["in /srv/app/services/api of /srv/app/services/api", "the api", "then in /srv/app/services/api/sub"],
            )
        },
        Case { files: SOURCE_DIR, ..prints("source-dir", &[]) },
        prints("step-names", &["1", "2", "3", "4", "5", "6"]),
        Case { files: &[("sub/x", "")], ..prints("steps-done-wrong", &["installing", "done"]) },
        prints("texts-that-look-otherwise", &[]),
        prints("timeouts-that-are-ours", &["make"]),
        prints("timeouts", &["make"]),
        Case {
            images: &[("debian:w-tools", &["\"Env\""])],
            said: &["made debian:w-tools"],
            ..prints("checkpoint", &["make tools", "make"])
        },
        Case { file: "doc-store-container", code: 2, said: &["storeContainer", "no artifact store"], ..CASE },
    ]
}

fn variables() -> Vec<Case> {
    vec![
        Case {
            variables: &[("XXX_API_TOKEN", "hunter2"), ("X_REGION", "us")],
            unsaid: &["hunter2"],
            ..prints("variables-from-outside", &["1"])
        },
        Case {
            arguments: &["build", "--artifacts"],
            files: &[("dist/app.js", "// app\n")],
            left: &[".wercker/latest/output/dist/app.js"],
            ..prints("cache-and-output", &[])
        },
        Case {
            arguments: &["workflow", "all"],
            files: &[("test.env", "LEVEL=2\n")],
            ..prints("workflow", &["make", "make test", "make deploy"])
        },
        Case {
            arguments: &["workflow", "al"],
            code: 5,
            said: &["no workflow \"al\" in wercker.yml (it has all)", "hint: windlass workflow all"],
            ..prints("workflow", &[])
        },
        Case {
            variables: &[("X_DEPLOY_PRIVATE", "key\\nkey"), ("X_A", "1"), ("X_SLACK_URL", "http://127.0.0.1:9/")],
            code: 1,
            said: &["add-to-known"],
            ..prints("registry-steps", &[])
        },
    ]
}

fn targets() -> Vec<Case> {
    vec![
        Case { arguments: &["deploy"], ..prints("deploy-targets", &["no target", "after"]) },
        Case {
            arguments: &["deploy", "--deploy-target", "Production"],
            ..prints("deploy-targets", &["to Production", "after"])
        },
        Case {
            arguments: &["deploy", "--deploy-target", "production"],
            code: 2,
            said: &["no target \"production\" (it has staging, Production)", "hint: --deploy-target Production"],
            ..prints("deploy-targets", &[])
        },
        Case { arguments: &["deploy", "--deploy-target", "us"], ..prints("deploy-targets-only", &["us"]) },
        Case {
            arguments: &["deploy"],
            code: 2,
            said: &["pipeline deploy has targets and no steps of its own: eu, us"],
            ..prints("deploy-targets-only", &[])
        },
        Case {
            arguments: &["deploy", "--deploy-target", "staging", "--exit-code", "step"],
            code: 7,
            ..prints("targets-and-code", &["to staging, deploy is true"])
        },
    ]
}

/// Files that push, one after the other: some give the same name to their images.
fn pushed() -> Vec<Case> {
    vec![
        pushes("doc-docker-push", HERE, &[("turing/bar:my-amazing-tag", &["\"5000/tcp\"", "\"8080/tcp\""])]),
        pushes("doc-entrypoint", HERE, &[("turing/bar:my-amazing-tag", &["\"Entrypoint\":[\"my-entrypoint\"]"])]),
        pushes("doc-hub-registry", HERE, &[("turing/bar:my-amazing-tag", &[])]),
        pushes("doc-hub-v2", HERE, &[("turing/bar:my-amazing-tag", &["\"Cmd\":[\"my-amazing-command\"]"])]),
        pushes("doc-ecr", &["run", "push-to-ecr", "--docker-local"], &[("your_repo_name:latest", &[])]),
        pushes(
            "doc-every-push-property",
            HERE,
            &[
                (
                    "registry.example.com/turing/bar:one",
                    &[
                        "\"5000/tcp\"",
                        "\"8080/udp\"",
                        "\"/cache\"",
                        "\"WorkingDir\":\"/srv\"",
                        "\"Cmd\":[\"serve\",\"--port\",\"5000\"]",
                        "\"Entrypoint\":[\"/bin/app\",\"with words\"]",
                        "\"User\":\"1000\"",
                        "\"B=two words\"",
                        "\"com.example.a\":\"1\"",
                        "\"StopSignal\":\"SIGINT\"",
                    ],
                ),
                ("registry.example.com/turing/bar:three", &[]),
            ],
        ),
        pushes("doc-gcr-bare-list", HERE, &[("gcr.io/my-project/my-image:latest", &[])]),
        pushes("doc-quay", HERE, &[("quay.io/knuth/foo:my-amazing-tag", &[])]),
        Case { code: 2, said: &["an image from scratch goes to a registry"], ..pushes("doc-scratch", HERE_BUILD, &[]) },
        pushes("push-azure", HERE, &[("team.azurecr.io/app:latest", &[])]),
        pushes("push-cmd-with-dollar", HERE_BUILD, &[("team/app:latest", &["\"Cmd\":[\"sh\",\"-c\",\"echo "])]),
        Case {
            variables: &[("X_VERSION", "1.4")],
            ..pushes(
                "push-lists-and-maps",
                HERE_BUILD,
                &[
                    (
                        "team/app:1.4",
                        &["\"com.example.a\":\"b=c\"", "\"WORKERS=4\"", "\"53/udp\"", "\"Cmd\":[\"serve\",\"--all\"]"],
                    ),
                    ("team/app:1.0", &[]),
                ],
            )
        },
        pushes("push-number-tag", HERE_BUILD, &[("team/app:1.10", &[])]),
        pushes("push-twice-one-secret", HERE, &[("team/app:a", &[]), ("quay.io/team/app:b", &[])]),
        pushes(
            "push-v1-and-http",
            HERE_BUILD,
            &[("registry.example.com/team/app:latest", &[]), ("registry.example.com:5000/team/app:latest", &[])],
        ),
        pushes("push-without-login", HERE_BUILD, &[("registry.example.com/team/app:latest", &[])]),
        Case {
            variables: &[],
            code: 2,
            said: &["error[UndefinedVariable]: the variable PASSWORD is not set\n  --> wercker.yml:4:7"],
            ..pushes("doc-docker-push", &["deploy"], &[])
        },
    ]
}

impl Case {
    fn of(self, file: &'static str) -> Self {
        Self { file, ..self }
    }
}

/// The images of the files, once.
fn name_images() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (name, ours) in IMAGES {
            tool("docker", &["tag", ours, name], "").unwrap();
        }
    });
}

/// The programs of every project.
fn programs() -> Vec<(String, String)> {
    PROGRAMS.map(|name| (format!("bin/{name}"), "#!/bin/sh\necho \"${0##*/}${*:+ $*}\"\n".to_owned())).to_vec()
}

/// All files of a case's project but the `wercker.yml`.
pub(super) fn project_files(case: &Case) -> Vec<(String, String)> {
    let own = case.files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    programs().into_iter().chain(own).collect()
}

/// The cases that a cluster can play as well.
pub(super) fn in_cluster() -> Vec<Case> {
    name_images();
    let good = |case: &Case| IN_CLUSTER.contains(&case.file) && !matches!(case.code, 2 | 5);
    cases().into_iter().filter(good).collect()
}

/// The run of a case, as an object.
pub(super) fn object_of(case: &Case) -> Value {
    let project = project(&text_of(case).unwrap());
    put(&project, &project_files(case));
    let said = run(&project, &[case.arguments, &["-o", "json"]].concat(), case.variables);
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{}: {error}\n{}", case.file, said.all()))
}

fn text_of(case: &Case) -> Result<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/wercker/good/{}.yml", case.file));
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// A project with a file of the corpus, or with this text.
fn project(text: &str) -> Project {
    name_images();
    let project = Project::empty();
    project.write("wercker.yml", text);
    put(&project, &programs());
    project
}

fn put(project: &Project, files: &[(String, String)]) {
    for (name, text) in files {
        let path = project.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn play(case: &Case) -> Result<(), String> {
    let project = project(&text_of(case)?);
    put(&project, &project_files(case));
    let said = run(&project, case.arguments, case.variables);
    judge(case, &project, &said).map_err(|wrong| format!("{} {:?}: {wrong}\n{}", case.file, case.arguments, said.all()))
}

fn run(project: &Project, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
    let mut command = project.command(arguments);
    command.env("X_PATH", PATH).envs(variables.iter().copied());
    super::local::finish(command.spawn().unwrap())
}

/// What scripts printed, without what is said of the files that are handed on.
fn of_scripts(said: &Said) -> String {
    let own = |line: &&str| !line.starts_with("packed ") && !line.contains(" kept in ");
    said.out.split_inclusive('\n').filter(own).collect()
}

fn judge(case: &Case, project: &Project, said: &Said) -> Result<(), String> {
    if said.code != Some(case.code) {
        return Err(format!("expected exit {}", case.code));
    }
    let mut left = said.out.lines();
    for line in case.lines {
        if !left.any(|found| found == *line) {
            return Err(format!("{line:?} is not in the output, in order"));
        }
    }
    if let Some(part) = case.said.iter().find(|part| !said.all().contains(*part)) {
        return Err(format!("{part:?} is not said"));
    }
    if let Some(part) = case.unsaid.iter().find(|part| said.all().contains(*part)) {
        return Err(format!("{part:?} is said"));
    }
    if let Some(file) = case.left.iter().find(|file| !project.path(file).exists()) {
        return Err(format!("there is no {file}"));
    }
    for (image, parts) in case.images {
        let config = config_of(image)?;
        tool("docker", &["rmi", image], "").unwrap();
        if let Some(part) = parts.iter().find(|part| !config.contains(*part)) {
            return Err(format!("{part} is not in the config of {image}: {config}"));
        }
    }
    Ok(())
}

fn config_of(image: &str) -> Result<String, String> {
    tool("docker", &["image", "inspect", "--format", "{{json .Config}}", image], "").map_err(|_| format!("no {image}"))
}

/// Every file that can run here does, as its row says.
#[test]
fn every_file_runs_as_it_should() {
    let (cases, next, wrong) = (cases(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let told = |result: Result<(), String>| {
        if let Err(message) = result {
            wrong.lock().unwrap().push(message);
        }
    };
    std::thread::scope(|threads| {
        threads.spawn(|| pushed().iter().for_each(|case| told(play(case))));
        for _ in 0..3 {
            threads.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    told(play(case));
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len() + pushed().len(), wrong.join("\n\n"));
    // No file is forgotten.
    let played: BTreeSet<&str> = cases.iter().chain(&pushed()).map(|case| case.file).collect();
    for path in corpus("good") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(played.contains(name) || NOT_HERE.iter().any(|(other, _)| *other == name), "{name} is not run");
    }
}

#[test]
fn a_pipeline_hands_its_files_on() {
    let yml = "box: busybox:local\nbuild:\n  - script: {code: 'mkdir -p $WERCKER_OUTPUT_DIR/d; echo made > $WERCKER_OUTPUT_DIR/d/file; ln -s d/file $WERCKER_OUTPUT_DIR/link'}\n\
        left:\n  - script: {code: 'cat link; echo left > left; rm link'}\nright:\n  - script: {code: 'cat d/file; echo right > $WERCKER_OUTPUT_DIR/right'}\n\
        both:\n  - script: {code: 'cat left/left right/right; ls left; echo \"$DEPLOY ${CI:-none} $GREETING\"'}\n\
        workflows:\n  - name: all\n    pipelines:\n      - name: build\n      - {name: left, requires: [build]}\n      - {name: right, requires: [build]}\n\
        \x20     - {name: both, requires: [left, right], envFile: both.env}\n";
    let project = project(yml);
    project.write("both.env", "GREETING=\"hi there\"\n");
    let said = run(&project, &["workflow", "all"], &[]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(of_scripts(&said), "made\nmade\nleft\nright\nd\nleft\ntrue true hi there\n", "{}", said.all());
    assert!(!project.path("left").exists() && !project.path(".wercker").exists());
    // The first failure is the end.
    project.write("wercker.yml", &yml.replace("'cat d/file;", "'exit 4;"));
    let said = run(&project, &["workflow", "all", "--exit-code", "step"], &[]);
    assert_eq!((said.code, of_scripts(&said).as_str()), (Some(4), "made\n"), "{}", said.all());
}

#[test]
fn the_cache_stays_and_a_deploy_begins_with_what_the_build_kept() {
    let project = project(
        "box: busybox:local\nbuild:\n  - script: {code: 'cat $WERCKER_CACHE_DIR/count || true; echo once >> $WERCKER_CACHE_DIR/count; echo made > made'}\n\
         deploy:\n  - script: {code: 'ls; echo \"$WERCKER_APPLICATION_NAME $WERCKER_DEPLOY_ID = $WERCKER_RUN_ID\"'}\n",
    );
    assert_eq!(run(&project, &["build"], &[]).code, Some(0));
    let second = run(&project, &["build", "--artifacts"], &[]);
    assert_eq!((second.code, second.out.lines().next()), (Some(0), Some("once")), "{}", second.all());
    let deploy = run(&project, &["deploy"], &[]);
    assert_eq!(deploy.code, Some(0), "{}", deploy.all());
    let lines: Vec<&str> = deploy.out.lines().collect();
    assert!(lines.starts_with(&["bin", "made", "wercker.yml"]), "{}", deploy.all());
    let words: Vec<&str> = lines[3].split(' ').collect();
    assert!(words[0] == "app" && !words[1].is_empty() && words[1] == words[3], "{}", deploy.all());
}

#[test]
fn steps_that_are_files_have_their_files() {
    let project =
        project("box: busybox:local\nbuild:\n  - team/greet:\n      who: $NAME\n  - \"greet \\\"file://DIR\\\"\"\n");
    put(
        &project,
        &[
            (
                ".wercker/steps/team-greet/run.sh".into(),
                "false\ncat \"$WERCKER_STEP_ROOT/data\"\necho \"$WERCKER_GREET_WHO $WERCKER_STEP_OWNER\"\n".into(),
            ),
            (".wercker/steps/team-greet/data".into(), "its own file\n".into()),
            ("elsewhere/run.sh".into(), "#!/bin/bash\nfalse\necho \"by address $WERCKER_STEP_OWNER\"\n".into()),
        ],
    );
    let text = fs::read_to_string(project.path("wercker.yml")).unwrap();
    project.write("wercker.yml", &text.replace("DIR", project.path("elsewhere").to_str().unwrap()));
    let said = run(&project, &["build"], &[("X_NAME", "you")]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(0), "its own file\nyou team\nby address wercker\n"),
        "{}",
        said.all()
    );
}

#[test]
fn the_engine_builds_runs_and_pushes() {
    let repository = format!("{}/local/{}", open_registry(), unique("built"));
    let project = project(&format!(
        "box: busybox:local\nbuild:\n  - script: {{code: 'printf \"FROM busybox:local\\nARG V\\nRUN echo \\$V > /v\\nCMD [\\\"cat\\\", \\\"/v\\\"]\\n\" > docker/Dockerfile'}}\n\
         \x20 - internal/docker-build: {{image-name: app, context: docker, build-args: 'V=$VERSION', labels: {{by: $VERSION}}}}\n\
         \x20 - internal/docker-run: {{name: web, image: app, cmd: 'sh -c \"mkdir /w; cp /v /w/index.html; exec httpd -f -p 8000 -h /w\"'}}\n\
         \x20 - script: {{code: 'for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://web:8000/ && break; sleep 1; done'}}\n\
         \x20 - internal/docker-kill: {{name: web}}\n\
         \x20 - internal/docker-push: {{repository: '{repository}', tag: one, image-name: app}}\n"
    ));
    put(&project, &[("docker/x".into(), String::new())]);
    let said = run(&project, &["build"], &[("X_VERSION", "1.4"), ("XXX_TOKEN", "hunter2")]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.out.contains("\n1.4\n") && !said.all().contains("hunter2"), "{}", said.all());
    let image = format!("{repository}:one");
    let pushed = config(&image).to_string();
    assert!(pushed.contains("\"/v\"") && !pushed.contains("windlass.dev"), "{pushed}");
    let name = said.err.split_whitespace().nth(2).unwrap();
    assert_eq!(project.left(name), Vec::<String>::new());
    let built = tool("docker", &["images", "-q", "--filter", "reference=windlass.invalid/commit/*"], "").unwrap();
    let own =
        built.lines().filter(|id| tool("docker", &["inspect", id], "").is_ok_and(|text| text.contains("hunter2")));
    assert_eq!(own.count(), 0, "the image that was built is gone");
}

#[test]
fn a_box_becomes_an_image_and_an_image_a_box() {
    let name = unique("local/box");
    let project = project(
        "box: busybox:local\nbuild:\n  - script: {code: 'echo here > /made; exit 3'}\nlook:\n  box: later\n  steps:\n    - script: {code: cat /made}\n",
    );
    let said = run(&project, &["build", "--commit", &name, "--tag", "w-kept", "--message", "why"], &[]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    let image = format!("{name}:w-kept");
    let of_box = config_of(&image).unwrap();
    assert!(!of_box.contains("windlass-runner"), "{of_box}");
    let text = fs::read_to_string(project.path("wercker.yml")).unwrap();
    project.write("wercker.yml", &text.replace("box: later", &format!("box: {name}")));
    let said = run(&project, &["run", "look", "--checkpoint", "kept", "--docker-local"], &[]);
    tool("docker", &["rmi", &image], "").unwrap();
    assert_eq!((said.code, said.out.as_str()), (Some(0), "here\n"), "{}", said.all());
}

#[test]
fn volumes_ports_and_containers_are_there_if_they_are_asked_for() {
    let yml = "box:\n  id: busybox:local\n  volumes: shared:/shared\n  ports: ['127.0.0.1:18083:8083']\nbuild:\n  - script: {code: 'ls /shared; echo made > /shared/made'}\n";
    let project = project(yml);
    put(&project, &[("shared/there".into(), "x".into())]);
    let without = run(&project, &["build"], &[]);
    assert_eq!(without.code, Some(1), "{}", without.all());
    let said = run(&project, &["build", "--enable-volumes", "--expose-ports", "--no-remove"], &[]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "there\n"), "{}", said.all());
    assert!(said.err.contains("http://localhost:18083 is port 8083 of the box"), "{}", said.all());
    assert_eq!(fs::read_to_string(project.path("shared/made")).unwrap(), "made\n");
    let name = said.err.lines().find_map(|line| line.strip_prefix("run ")).unwrap_or(&said.err);
    let name = name.split_whitespace().find(|word| word.starts_with("build-")).unwrap();
    let container = format!("windlass-{name}");
    tool("docker", &["rm", "-fv", &container], "").unwrap();
    let wrong = project_with(yml, "18083:8083", "18083:8083/icmp");
    let said = run(&wrong, &["build", "--expose-ports"], &[]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.err.contains("\n  --> wercker.yml:4:11"), "{}", said.all());
}

fn project_with(yml: &str, from: &str, to: &str) -> Project {
    project(&yml.replace(from, to))
}

#[test]
fn steps_get_the_engine_only_with_docker_true() {
    let project = project(
        "box: busybox:local\nbuild:\n  docker: true\n  steps:\n    - script: {code: 'test -S ${DOCKER_HOST#unix://} && echo \"$DOCKER_NETWORK_NAME\"'}\n\
         plain:\n  - script: {code: 'test -e /var/run/docker.sock || echo none'}\n",
    );
    let said = run(&project, &["build"], &[]);
    assert!(said.code == Some(0) && said.out.starts_with("windlass-build-"), "{}", said.all());
    let said = run(&project, &["run", "plain"], &[]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "none\n"), "{}", said.all());
}

#[test]
fn a_wrong_file_is_told_at_its_place() {
    let project = project("box: busybox:local\nbuild:\n  steps: [script]\n  after-step: []\n");
    let said = run(&project, &["build"], &[]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{}", said.all());
    let words = "error[UnknownKey]: pipeline build: no such key: after-step\n  --> wercker.yml:4:3\n4 |   after-step: []\n  |   ^^^^^^^^^^ did you mean after-steps?\n";
    assert!(said.err.contains(words) && said.err.contains("nothing was started"), "{}", said.all());
    project.write("wercker.yml", "box: busybox:local\nbuild:\n  - grunt: {tasks: x}\n");
    let said = run(&project, &["build"], &[]);
    assert!(said.code == Some(2) && said.err.contains("hint: script: npx grunt TASKS"), "{}", said.all());
    let said = run(&project, &["run", "bild"], &[]);
    assert!(said.code == Some(5) && said.err.contains("hint: windlass run build"), "{}", said.all());
}
