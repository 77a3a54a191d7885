//! Steps and flags that use the engine of this machine: images built, run, committed and pushed, volumes and ports.

use super::{config_of, project, put, run};
use crate::cluster::{
    local::{Project, open_registry, unique},
    push::config,
    world::tool,
};
use std::fs;

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

fn project_with(yml: &str, from: &str, to: &str) -> Project {
    project(&yml.replace(from, to))
}
