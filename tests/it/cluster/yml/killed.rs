//! Runs that use the engine, killed in the midst of it or beside each other.

use super::{gate::Gate, images_of, project, run};
use crate::cluster::{
    installation::until,
    local::{Project, finish, read, sees, signal, unique, wait},
    world::tool,
};
use std::{
    fs,
    io::BufReader,
    process::{Child, ChildStdout},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A run of `build`, and what comes of its output.
struct Begun {
    child: Child,
    name: String,
    uid: String,
    out: BufReader<ChildStdout>,
}

impl Begun {
    /// Starts it; its first step says `uid` and the run's.
    fn start(project: &Project) -> Self {
        let mut child = project.command(&["build"]).spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let head = sees(&mut err, "> run ");
        let name = head.split_whitespace().nth(2).unwrap_or_else(|| panic!("{head}")).to_owned();
        read(err);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let uid = sees(&mut out, "uid ").trim_start_matches("uid ").trim().to_owned();
        Self { child, name, uid, out }
    }

    /// Kills it once it has said this; then another run of the project goes by.
    fn killed_at(mut self, project: &Project, words: &str) -> (String, String) {
        sees(&mut self.out, words);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        assert!(!project.left(&self.name).is_empty(), "a kill leaves something");
        let next = run(project, &["run", "quick"], &[]);
        assert_eq!(next.code, Some(0), "{}", next.all());
        (self.name, self.uid)
    }
}

const QUICK: &str = "quick:\n  - script: {code: 'true'}\n";

#[test]
fn what_a_run_with_containers_and_images_left_is_swept() {
    let project = project(&format!(
        "box: busybox:local\nbuild:\n  - script: {{code: 'echo \"uid $WERCKER_RUN_ID\"; mkdir c; printf \"FROM busybox:local\\nRUN echo {} > /v\\n\" > c/Dockerfile'}}\n\
         \x20 - internal/docker-build: {{image-name: app, context: c}}\n\
         \x20 - internal/docker-run: {{name: web, image: app, cmd: sleep 600}}\n\
         \x20 - script: {{code: 'echo all there; sleep 600'}}\n{QUICK}",
        unique("swept"),
    ));
    let (name, uid) = Begun::start(&project).killed_at(&project, "all there");
    assert_eq!(project.left(&name), Vec::<String>::new());
    assert_eq!(images_of(&uid), Vec::<String>::new());
}

#[test]
fn a_build_ends_with_the_process_that_asked_for_it() {
    let mark = unique("mark");
    let project = project(&format!(
        "box: busybox:local\nbuild:\n  - script: {{code: 'echo \"uid $WERCKER_RUN_ID\"; mkdir c; printf \"FROM busybox:local\\nRUN : {mark}; echo \\$((40 + 2)) begun; sleep 600\\n\" > c/Dockerfile'}}\n\
         \x20 - internal/docker-build: {{image-name: app, context: c}}\n{QUICK}"
    ));
    let (name, uid) = Begun::start(&project).killed_at(&project, "42 begun");
    assert_eq!(project.left(&name), Vec::<String>::new());
    assert_eq!(images_of(&uid), Vec::<String>::new());
    // The engine sees for itself that nobody listens.
    let builds = || tool("docker", &["ps", "-a", "--no-trunc", "--format", "{{.Command}}"], "").unwrap();
    until("the build is over", PATIENCE, || (!builds().contains(&mark)).then_some(())).unwrap();
}

/// The engine makes it all the same, behind whoever removes what there is.
#[test]
fn a_container_that_was_asked_for_before_a_second_ctrl_c_goes_with_the_run() {
    let project = project(
        "box: busybox:local\nbuild:\n  - internal/docker-run: {name: web, image: busybox:local, cmd: sleep 600}\n",
    );
    let gate = Gate::before(&["POST ", "/containers/create?name=windlass-", "-web"]);
    let mut child = project.command(&["build"]).env("DOCKER_HOST", &gate.host).spawn().unwrap();
    let (out, mut err) = (read(child.stdout.take().unwrap()), BufReader::new(child.stderr.take().unwrap()));
    let name = sees(&mut err, "> run ").split_whitespace().nth(2).unwrap().to_owned();
    gate.sees(&["POST ", "/containers/create?name=windlass-", "-web"]);
    signal(&child, "-INT");
    sees(&mut err, "Ctrl-C again to stop now");
    signal(&child, "-INT");
    // It is looked for, and there is none yet.
    gate.sees(&["DELETE ", &format!("/containers/windlass-{name}-web")]);
    gate.open();
    let (code, err) = (wait(&mut child), read(err).join().unwrap());
    gate.answered();
    assert_eq!((code, out.join().unwrap().as_str()), (Some(130), ""), "{err}");
    assert_eq!(project.left(&name), Vec::<String>::new(), "{err}");
}

/// What prepares the box is through, and the box has not said yet that it runs: it goes on, and has to
/// hear of the cancel.
#[test]
fn a_run_that_is_cancelled_as_its_box_begins_has_its_after_steps() {
    let project = project(
        "box: busybox:local\nbuild:\n  steps:\n    - script: {code: echo of the step; sleep 600}\n\
         \x20 after-steps:\n    - script: {code: echo of the after-step}\n",
    );
    let gate = Gate::before(&["POST ", "/containers/", "/start"]);
    let mut child = project.command(&["build"]).env("DOCKER_HOST", &gate.host).spawn().unwrap();
    let (out, mut err) = (read(child.stdout.take().unwrap()), BufReader::new(child.stderr.take().unwrap()));
    gate.sees(&["POST ", "/containers/", "/start"]);
    until("the box may begin", PATIENCE, || project.has_made("windlass-runner").then_some(())).unwrap();
    signal(&child, "-INT");
    sees(&mut err, "cancelling");
    gate.open();
    let (code, err) = (wait(&mut child), read(err).join().unwrap());
    let out = out.join().unwrap();
    assert!(code == Some(3) && out.ends_with("of the after-step\n"), "{code:?} {out}\n{err}");
    // It may have begun before the box heard of the cancel, and is not called skipped then.
    assert!(!out.starts_with("of the step\n") || !err.contains("> skip"), "{out}\n{err}");
}

#[test]
fn two_runs_at_once_have_containers_of_the_same_name_each() {
    let project = project(
        "box: {id: busybox:local, volumes: 'meet:/meet'}\nbuild:\n\
         \x20 - internal/docker-run: {name: web, image: busybox:local, cmd: 'sh -c \"mkdir /w; echo $WERCKER_RUN_ID > /w/index.html; exec httpd -f -p 8000 -h /w\"'}\n\
         \x20 - script:\n      code: |\n        touch \"/meet/$WERCKER_RUN_ID\"\n        until test $(ls /meet | wc -l) = 2; do sleep 0.1; done\n\
         \x20       until found=$(wget -qO- http://web:8000/); do sleep 0.2; done\n        test \"$found\" = \"$WERCKER_RUN_ID\" && echo its own\n",
    );
    fs::create_dir(project.path("meet")).unwrap();
    let both = [(); 2].map(|()| project.command(&["build", "--enable-volumes"]).spawn().unwrap());
    for said in both.map(|child| std::thread::spawn(|| finish(child))).map(|thread| thread.join().unwrap()) {
        assert_eq!((said.code, said.out.as_str()), (Some(0), "its own\n"), "{}", said.all());
        let name = said.err.split_whitespace().nth(2).unwrap();
        assert_eq!(project.left(name), Vec::<String>::new());
    }
}
