//! What people do with a run of a `wercker.yml` while it goes on.

use super::project;
use crate::cluster::{
    dev::{Running, free_port, get},
    installation::until,
    local::{read, sees, wait},
};
use std::{io::BufReader, time::Duration};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn with_attach_on_error_a_failed_step_waits_and_can_be_mended() {
    let project =
        project("box: busybox:local\nbuild:\n  - script: {name: bad, code: test -e /mended && echo it is mended}\n");
    let mut child = project.command(&["build", "--attach-on-error"]).spawn().unwrap();
    let (out, mut err) = (read(child.stdout.take().unwrap()), BufReader::new(child.stderr.take().unwrap()));
    let head = sees(&mut err, "> run ");
    let name = head.split_whitespace().nth(2).unwrap_or_else(|| panic!("{head}")).to_owned();
    let hint = sees(&mut err, &format!("windlass retry {name} --step bad"));
    assert!(hint.contains(&format!("windlass continue {name}")), "{hint}");
    for words in [&["shell", &name, "--", "touch", "/mended"][..], &["retry", &name, "--step", "bad"]] {
        let said = project.say(words);
        assert_eq!(said.code, Some(0), "{}", said.all());
    }
    let err = read(err);
    assert_eq!(
        (wait(&mut child), out.join().unwrap().as_str()),
        (Some(0), "it is mended\n"),
        "{}",
        err.join().unwrap()
    );
    assert_eq!(project.left(&name), Vec::<String>::new());
}

#[test]
fn dev_serves_each_save_and_goes_on_when_it_is_told_to() {
    let project = project(
        "box: busybox:local\ndev:\n  - internal/watch:\n      code: mkdir -p /tmp/www; cp text /tmp/www/index.html; exec httpd -f -p 5000 -h /tmp/www\n      reload: true\n\
         \x20 - script: {code: 'echo \"and on with $(cat text)\"'}\n",
    );
    project.write("text", "one");
    let port = free_port();
    let mut command = project.command(&["dev", "--publish", &format!("{port}:5000")]);
    command.env("WINDLASS_PROGRESS", "plain");
    let dev = Running::start(command);
    for text in ["one", "two"] {
        project.write("text", text);
        let serves = || (get(port).as_deref() == Some(text)).then_some(());
        until(text, PATIENCE, serves).unwrap_or_else(|late| panic!("{late}\n{}", dev.said()));
    }
    dev.interrupt();
    let (code, said) = dev.ends();
    assert!(code == Some(0) && said.contains("\nand on with two\n"), "{code:?} {said}");
    let name = said.split_whitespace().nth(2).unwrap_or_else(|| panic!("{said}"));
    assert_eq!(project.left(name), Vec::<String>::new());
}
