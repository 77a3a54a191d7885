//! What goes wrong beside the steps of a run, and is told all the same: services that die, images that are not made,
//! checkpoints that nobody made.

use super::{project, run};
use crate::cluster::{local::unique, world::tool};
use serde_json::Value;

const SERVICE: &str = r#"
box: {id: 'busybox:local', volumes: 'meet:/meet'}
services:
- id: busybox:local
  name: web
  volumes: meet:/meet
  env: {PW: $PW}
  cmd: /bin/sh -c 'echo x >> /meet/starts; echo no user $PW; exit 3'
build:
- script: {code: 'while [ "$(wc -l < /meet/starts)" -lt 2 ]; do sleep 0.1; done'}
"#;

/// The step waits until the service was started again: by then its first end was told.
#[test]
fn a_service_that_dies_is_told_once_and_the_run_goes_on() {
    let project = project(SERVICE);
    let said = run(&project, &["build", "--enable-volumes"], &[("XXX_PW", "hunter22")]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let name = said.err.split_whitespace().find(|word| word.starts_with("build-")).unwrap();
    let told = format!(
        "service web ended (exit code 3): no user ***; it is started again; all it said: \
         docker logs windlass-{name}-web (gone with the run, unless with --no-remove)\n"
    );
    assert_eq!((said.err.matches(&told).count(), said.err.matches("service web").count()), (1, 1), "{}", said.all());
    assert!(!said.all().contains("hunter22"), "{}", said.all());
    assert_eq!(project.left(name), Vec::<String>::new());
}

/// Docker takes no name that looks like an ID.
#[test]
fn programs_are_told_that_the_image_of_a_run_was_not_made() {
    let project = project("box: busybox:local\nbuild:\n  - script: {code: 'true'}\n");
    let name = "a".repeat(64);
    let said = run(&project, &["build", "--json", "--commit", &name], &[]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    let events: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [.., error, end] = events.as_slice() else { panic!("{}", said.all()) };
    for event in [error, end] {
        assert_eq!(event["reason"], "CommitFailed", "{event}");
        let message = event["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("--commit {name}: no image was made: commit the box: ")), "{message}");
    }
    assert_eq!((&error["type"], &end["type"], &end["exit"]), (&"error".into(), &"end".into(), &1.into()));
    assert!(
        said.err.starts_with(&format!("error[CommitFailed]: --commit {name}: no image was made: ")),
        "{}",
        said.all()
    );
}

#[test]
fn a_checkpoint_that_nobody_made_is_named_with_those_there_are() {
    let name = unique("local/points");
    let yml = format!("box: {name}\nbuild:\n  - script: {{code: 'true'}}\n");
    let project = project(&yml);
    let none = run(&project, &["build", "--checkpoint", "nosuch"], &[]);
    assert_eq!((none.code, none.out.as_str()), (Some(5), ""), "{}", none.all());
    let words =
        format!("error[NotFound]: checkpoint nosuch: there is no image {name}:w-nosuch; checkpoints of {name}: ");
    assert!(none.err.contains(&format!("{words}none\n  nothing was started\n")), "{}", none.all());
    let image = format!("{name}:w-deps");
    tool("docker", &["tag", "busybox:local", &image], "").unwrap();
    let other = run(&project, &["build", "--checkpoint", "nosuch"], &[]);
    let there = run(&project, &["build", "--checkpoint", "deps"], &[]);
    tool("docker", &["rmi", &image], "").unwrap();
    assert!(other.code == Some(5) && other.err.contains(&format!("{words}deps\n")), "{}", other.all());
    assert_eq!(there.code, Some(0), "{}", there.all());
}
