//! Runs of `wercker.yml` on the engine alone: the files of `tests/wercker/good`, as they are, and what only a run on this
//! machine does. Images that the files name are names of ours here; programs that they call print how they were called.

mod corpus;
mod engine;
mod gate;
mod handed;
mod killed;
mod people;
mod unsaid;
mod warned;

pub(super) use corpus::{Case, in_cluster, object_of, project_files};

use super::{
    local::{Project, Said},
    world::tool,
};
use std::{fs, os::unix::fs::PermissionsExt as _, sync::Once};

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

fn config_of(image: &str) -> Result<String, String> {
    tool("docker", &["image", "inspect", "--format", "{{json .Config}}", image], "").map_err(|_| format!("no {image}"))
}

/// Images of a run, by name and by label. One that has no name counts as well, so all are looked at.
fn images_of(uid: &str) -> Vec<String> {
    let by_name = format!("reference=windlass.invalid/commit/{uid}:*");
    let mut found = tool("docker", &["images", "-q", "--filter", &by_name], "").unwrap();
    let labelled = ["images", "-aq", "--filter", "label=windlass.dev/commit"];
    for id in tool("docker", &labelled, "").unwrap().lines() {
        // Another test may have removed it since.
        let config = tool("docker", &["inspect", "--format", "{{json .Config.Labels}}", id], "").unwrap_or_default();
        if config.contains(uid) {
            found.push_str(id);
        }
    }
    found.lines().map(str::to_owned).collect()
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
