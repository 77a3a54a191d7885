//! What a `wercker.yml` has the engine of this machine do: what is said of it, and that nothing of it stays.

use super::{
    local::{Project, Said, open_registry, unique},
    world::tool,
};

/// A secret that a value of a Dockerfile cannot be: image names have no capitals.
const SECRET: &str = "Hunter2Secret";

fn project(dockerfile: &str, steps: &str) -> Project {
    let project = Project::empty();
    project.write("Dockerfile", dockerfile);
    project.write("wercker.yml", &format!("box: busybox:local\nbuild:\n  steps:\n{steps}"));
    project
}

fn build(project: &Project, arguments: &[&str]) -> Said {
    let mut command = project.command(&[&["build"], arguments].concat());
    super::local::finish(command.env("XXX_TOKEN", SECRET).spawn().unwrap())
}

/// IDs of images with this label that a run made, those without a name too. Docker keeps the layers before our own label for
/// the next build.
fn images(label: &str) -> String {
    let (own, ours) = (format!("label={label}"), "label=windlass.dev/commit");
    tool("docker", &["images", "-aq", "--no-trunc", "--filter", &own, "--filter", ours], "").unwrap()
}

#[test]
fn what_the_engine_says_is_masked() {
    let step = "    - internal/docker-build: {image-name: app, build-args: 'T=$TOKEN'}\n";
    // What is in Docker's cache prints nothing.
    let anew = unique("anew");
    let printing =
        format!("FROM busybox:local\nARG T\nRUN echo \"said $T.\"; printf \"{{$T}}\" | base64; echo {anew}\n");
    let said = build(&project(&printing, step), &[]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.out.contains("said ***."), "{}", said.all());
    // Of `{Hunter2Secret}` in base64, all but what stands at its ends.
    assert!(!said.all().contains("SHVudGVyMlNlY3Jl") && !said.all().contains("h1bnRlcjJTZWNyZX"), "{}", said.all());
    let failed = build(&project("ARG T\nFROM $T\n", step), &["-o", "json"]);
    assert_eq!(failed.code, Some(1), "{}", failed.all());
    assert!(failed.out.contains("must be lowercase"), "{}", failed.all());
    for said in [said, failed] {
        assert!(!said.all().contains(SECRET), "{}", said.all());
    }
}

#[test]
fn an_image_of_the_box_is_made_or_the_run_has_failed() {
    let name = unique("local/kept");
    let steps = "    - script: {code: 'true'}\n  after-steps:\n    - script: {code: 'exit 1'}\n";
    let project = project("", steps);
    let said = build(&project, &["--commit", &name]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    tool("docker", &["rmi", &format!("{name}:latest")], "").unwrap();
    let said = build(&project, &["--commit", "Bad Name!"]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.err.contains("--commit Bad Name!") && said.err.contains("nothing was started"), "{}", said.all());
}

#[test]
fn images_of_one_name_go_with_the_run() {
    let label = unique("local-twice");
    let steps = format!(
        "    - internal/docker-build: {{image-name: app, labels: 'twice={label}', build-args: N=1}}\n\
         \x20   - internal/docker-build: {{image-name: app, labels: 'twice={label}', build-args: N=2}}\n\
         \x20   - internal/docker-run: {{name: it, image: app}}\n"
    );
    let said = build(&project("FROM busybox:local\nARG N\nRUN echo $N > /n\nCMD cat /n\n", &steps), &[]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(images(&format!("twice={label}")), "", "{}", said.all());
}

/// Also one that names a registry of this machine, as the doors of pushes do.
#[test]
fn with_docker_local_what_was_built_keeps_the_name_that_it_was_given() {
    let repository = format!("{}/local/{}", open_registry(), unique("mine"));
    let steps = format!(
        "    - internal/docker-build: {{image-name: app}}\n    - internal/docker-push: {{repository: '{repository}', tag: one, image-name: app}}\n"
    );
    let said = build(&project("FROM busybox:local\n", &steps), &["--docker-local"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let image = format!("{repository}:one");
    let names = tool("docker", &["inspect", "-f", "{{json .RepoTags}}", &image], "");
    assert_eq!(names.as_deref(), Ok(format!("[\"{image}\"]\n").as_str()));
    tool("docker", &["rmi", &image], "").unwrap();
}

#[test]
fn with_docker_local_nothing_is_pulled() {
    let project = project("", "    - internal/docker-run: {name: it, image: '127.0.0.1:1/not/there:1'}\n");
    let said = build(&project, &["--docker-local"]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    let words = "image 127.0.0.1:1/not/there:1 is not on this machine, and --docker-local pulls none";
    assert!(said.err.contains(words), "{}", said.all());
}

#[test]
fn what_stays_is_named_with_the_commands_that_remove_it() {
    let project = project("", "    - internal/docker-run: {name: it, image: 'busybox:local', cmd: sleep 60}\n");
    let said = build(&project, &["--no-remove"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let name = said.err.split_whitespace().nth(2).unwrap();
    assert_eq!(project.left(name).len(), 3, "{}", said.all());
    let commands = said.err.lines().find_map(|line| line.strip_prefix("this stays; to remove it: ")).unwrap();
    tool("sh", &["-c", commands], "").unwrap();
    assert_eq!(project.left(name), Vec::<String>::new(), "{commands}");
}

#[test]
fn a_volume_can_be_read_only_and_is_made_once_the_run_starts() {
    let project = Project::empty();
    let yml = "box: {id: 'busybox:local', volumes: 'made:/made:ro'}\nbuild:\n  - script: {code: '! touch /made/x && ls -d /made'}\n";
    project.write("wercker.yml", yml);
    let away = project.command(&["build", "--enable-volumes"]).env("DOCKER_HOST", "unix:///nowhere.sock").output();
    assert_eq!(away.unwrap().status.code(), Some(6));
    assert!(!project.path("made").exists());
    let said = build(&project, &["--enable-volumes"]);
    assert_eq!((said.code, said.out.lines().last()), (Some(0), Some("/made")), "{}", said.all());
    assert!(project.path("made").is_dir());
}

#[test]
fn a_link_that_leaves_the_context_is_told_as_one() {
    let steps = "    - script: {code: ln -s ../shared shared}\n    - internal/docker-build: {image-name: app}\n";
    let said = build(&project("FROM busybox:local\n", steps), &[]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(said.err.contains("the context of the build: /shared is a link to ../shared"), "{}", said.all());
}

#[test]
fn what_dockerignore_names_is_not_in_the_context() {
    let anew = unique("anew");
    let dockerfile = format!("FROM busybox:local\nCOPY . /c\nRUN cd /c; find .; cat run; echo {anew}\n");
    let project = project(&dockerfile, "    - internal/docker-build: {image-name: app}\n");
    project.write(".dockerignore", "# not for images\n/Dockerfile\n*.env\n!example.env\nkeys\n!keys/public\ndeps/\n");
    for file in ["secret.env", "example.env", "keys/private", "keys/public", "deps/run"] {
        std::fs::create_dir_all(project.path(file).parent().unwrap()).unwrap();
        project.write(file, "x\n");
    }
    project.write("deps/run", "still there\n");
    std::fs::hard_link(project.path("deps/run"), project.path("run")).unwrap();
    let said = build(&project, &[]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let mut found: Vec<&str> = said.out.lines().filter(|line| line.starts_with("./")).collect();
    found.sort_unstable();
    let expected = ["./.dockerignore", "./example.env", "./keys", "./keys/public", "./run", "./wercker.yml"];
    assert_eq!(found, expected, "{}", said.all());
    assert!(said.out.contains("still there"), "{}", said.all());
    project.write(".dockerignore", "*.env\n[keys\n");
    let said = build(&project, &[]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    let message = "step docker-build, .dockerignore, line 2: pattern [keys: a [ without its ]\n";
    assert!(said.err.contains(message) && !said.out.contains("FROM"), "{}", said.all());
}
