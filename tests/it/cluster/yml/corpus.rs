//! The files of `tests/wercker/good`, each run as it is, and what must come of it.

use super::{config_of, name_images, programs, project, put, run};
use crate::{
    cluster::{
        local::{Project, Said},
        world::tool,
    },
    fast::wercker::files as corpus,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

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
pub(in crate::cluster) struct Case {
    pub(in crate::cluster) file: &'static str,
    pub(in crate::cluster) arguments: &'static [&'static str],
    /// Variables of the machine.
    pub(in crate::cluster) variables: &'static [(&'static str, &'static str)],
    /// Files of the project.
    files: &'static [(&'static str, &'static str)],
    pub(in crate::cluster) code: i32,
    /// Lines of the output, in this order.
    pub(in crate::cluster) lines: &'static [&'static str],
    /// Parts of the messages.
    said: &'static [&'static str],
    /// Parts that are nowhere.
    pub(in crate::cluster) unsaid: &'static [&'static str],
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

/// All files of a case's project but the `wercker.yml`.
pub(in crate::cluster) fn project_files(case: &Case) -> Vec<(String, String)> {
    let own = case.files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    programs().into_iter().chain(own).collect()
}

/// The cases that a cluster can play as well.
pub(in crate::cluster) fn in_cluster() -> Vec<Case> {
    name_images();
    let good = |case: &Case| IN_CLUSTER.contains(&case.file) && !matches!(case.code, 2 | 5);
    cases().into_iter().filter(good).collect()
}

/// The run of a case, as an object.
pub(in crate::cluster) fn object_of(case: &Case) -> Value {
    let project = project(&text_of(case).unwrap());
    put(&project, &project_files(case));
    let said = run(&project, &[case.arguments, &["-o", "json"]].concat(), case.variables);
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{}: {error}\n{}", case.file, said.all()))
}

fn text_of(case: &Case) -> Result<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/wercker/good/{}.yml", case.file));
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

fn play(case: &Case) -> Result<(), String> {
    let project = project(&text_of(case)?);
    put(&project, &project_files(case));
    let said = run(&project, case.arguments, case.variables);
    judge(case, &project, &said).map_err(|wrong| format!("{} {:?}: {wrong}\n{}", case.file, case.arguments, said.all()))
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
