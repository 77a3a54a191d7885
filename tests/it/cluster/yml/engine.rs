//! Steps and flags that use the engine of this machine: images built, run, committed and pushed, volumes and ports.

use super::{PATH, config_of, images_of, project, put, run};
use crate::cluster::{
    dev::{free_port, get},
    installation::until,
    local::{Project, open_registry, read, sees, signal, unique, wait},
    push::config,
    world::tool,
};
use std::{fs, io::BufReader, time::Duration};

const PATIENCE: Duration = Duration::from_secs(60);

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
    let said = run(&project, &["build"], &[("X_VERSION", "1.4")]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.out.contains("\n1.4\n"), "{}", said.all());
    let image = format!("{repository}:one");
    let pushed = config(&image).to_string();
    assert!(pushed.contains("\"/v\"") && !pushed.contains("windlass.dev"), "{pushed}");
    let name = said.err.split_whitespace().nth(2).unwrap();
    assert_eq!(project.left(name), Vec::<String>::new());
}

#[test]
fn what_a_build_prints_is_masked_and_its_image_goes_with_the_run() {
    let secret = unique("hunter2");
    let project = project(
        "box: busybox:local\nbuild:\n  - script: {code: 'mkdir c; printf \"FROM busybox:local\\nARG T\\nRUN echo \\$T \\$((40 + 2))\\n\" > c/Dockerfile'}\n\
         \x20 - internal/docker-build: {image-name: app, context: c, build-args: T=$TOKEN}\n\
         \x20 - script: {code: 'echo \"uid $WERCKER_RUN_ID\"; until test -e /go; do sleep 0.1; done'}\n",
    );
    let mut command = project.command(&["build"]);
    let mut child = command.env("X_PATH", PATH).env("XXX_TOKEN", &secret).spawn().unwrap();
    let (mut out, err) = (BufReader::new(child.stdout.take().unwrap()), read(child.stderr.take().unwrap()));
    assert_eq!(sees(&mut out, " 42\n"), "*** 42\n");
    let uid = sees(&mut out, "uid ").trim_start_matches("uid ").trim().to_owned();
    // While the run lives its image is found, so that the search for it finds something.
    assert!(!images_of(&uid).is_empty(), "no image of {uid}");
    signal(&child, "-INT");
    let (code, out, err) = (wait(&mut child), read(out).join().unwrap(), err.join().unwrap());
    assert_eq!(code, Some(3), "{out}{err}");
    assert!(!out.contains(&secret) && !err.contains(&secret), "{out}{err}");
    assert_eq!(images_of(&uid), Vec::<String>::new());
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
    let port = free_port();
    let yml = format!(
        "box:\n  id: busybox:local\n  volumes: shared:/shared\n  ports: ['127.0.0.1:{port}:8083']\nbuild:\n  - script: {{code: 'ls /shared; echo made > /shared/made'}}\n"
    );
    let project = project(&yml);
    put(&project, &[("shared/there".into(), "x".into())]);
    let without = run(&project, &["build"], &[]);
    assert_eq!(without.code, Some(1), "{}", without.all());
    let said = run(&project, &["build", "--enable-volumes", "--expose-ports", "--no-remove"], &[]);
    let name = said.err.split_whitespace().find(|word| word.starts_with("build-")).unwrap();
    let stayed = Stayed(format!("windlass-{name}"));
    assert_eq!((said.code, said.out.as_str()), (Some(0), "there\n"), "{}", said.all());
    assert!(said.err.contains(&format!("http://localhost:{port} is port 8083 of the box")), "{}", said.all());
    assert_eq!(fs::read_to_string(project.path("shared/made")).unwrap(), "made\n");
    tool("docker", &["inspect", &stayed.0], "").unwrap();
    let wrong = project_with(&yml, ":8083", ":8083/icmp");
    let said = run(&wrong, &["build", "--expose-ports"], &[]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.err.contains("\n  --> wercker.yml:4:11"), "{}", said.all());
}

#[test]
fn a_container_of_a_step_is_at_the_port_that_is_named() {
    let port = free_port();
    let yml = format!(
        "box: busybox:local\nbuild:\n  - internal/docker-run:\n      name: web\n      image: busybox:local\n      ports: '{port}:8000'\n\
         \x20     cmd: sh -c 'mkdir /w; echo served > /w/index.html; exec httpd -f -p 8000 -h /w'\n\
         \x20 - script: {{code: 'echo begun; sleep 300'}}\n"
    );
    let project = project(&yml);
    let mut child = project.command(&["build", "--expose-ports"]).env("X_PATH", PATH).spawn().unwrap();
    let (mut out, err) = (BufReader::new(child.stdout.take().unwrap()), read(child.stderr.take().unwrap()));
    sees(&mut out, "begun");
    let serves = || (get(port).as_deref() == Some("served")).then_some(());
    let served = until("the page", PATIENCE, serves);
    signal(&child, "-INT");
    let (code, err) = (wait(&mut child), err.join().unwrap());
    assert_eq!((served, code), (Ok(()), Some(3)), "{err}");
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

/// A container that a run left on purpose, until the end of its test.
struct Stayed(String);

impl Drop for Stayed {
    fn drop(&mut self) {
        // A test that fails tells of its own failure.
        let _ = tool("docker", &["rm", "-fv", &self.0], "");
        let _ = tool("docker", &["network", "rm", &self.0], "");
    }
}

fn project_with(yml: &str, from: &str, to: &str) -> Project {
    project(&yml.replace(from, to))
}
