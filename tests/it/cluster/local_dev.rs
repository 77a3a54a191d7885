//! `windlass dev` and people at a terminal, on the engine of this machine: the real command line, and no part of the
//! cluster but its engine.

use super::{
    dev::{Running, free_port, get},
    local::Project,
};
use crate::terminal::Person;
use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that reads its file once, so that only a restart shows what changed.
const SERVER: &str = "  box: {image: 'busybox:local'}
  steps:
  - {name: install, script: 'echo made in $PWD; echo made > made'}
  - name: serve
    watch:
      code: 'mkdir -p /tmp/www; cp text /tmp/www/index.html; exec httpd -f -p 5000 -h /tmp/www'
      reload: true
      ignore: ['made']
  - {name: next, script: 'echo \"and on with $(cat text)\"'}
  afterSteps: [{name: tell, script: 'echo \"after-steps saw $WERCKER_RESULT\"'}]";

struct Served {
    project: Project,
    port: u16,
    dev: Running,
}

impl Served {
    /// `windlass dev` that serves the file `text`.
    fn starts(spec: &str, flags: &[&str]) -> Self {
        let project = Project::of("dev", spec);
        project.write("text", "one");
        let port = free_port();
        let publish = format!("{port}:5000");
        let mut command = project.command(&[&["dev", "--publish", &publish], flags].concat());
        command.env("WINDLASS_PROGRESS", "plain");
        let served = Self { project, port, dev: Running::start(command) };
        served.serves("one");
        served
    }

    fn serves(&self, text: &str) {
        let began = Instant::now();
        while get(self.port).as_deref() != Some(text) {
            let there = get(self.port);
            assert!(began.elapsed() < PATIENCE, "it does not serve {text:?}, but {there:?}: {}", self.dev.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn name(&self) -> String {
        let said = self.dev.said();
        said.split_whitespace().nth(2).unwrap_or_else(|| panic!("{said}")).to_owned()
    }
}

#[test]
fn each_save_restarts_the_server_and_ctrl_c_lets_the_run_go_on() {
    let served = Served::starts(SERVER, &[]);
    let name = served.name();
    // Written in place; then as editors do it.
    served.project.write("text", "two");
    served.serves("two");
    served.project.write("text.new", "three");
    fs::rename(served.project.path("text.new"), served.project.path("text")).unwrap();
    served.serves("three");
    assert_eq!(fs::read_to_string(served.project.path("made")).unwrap(), "made\n");
    served.dev.interrupt();
    let Served { project, port, dev } = served;
    let (code, said) = dev.ends();
    assert_eq!(code, Some(0), "{said}");
    for told in [
        &format!("> run   {name} on local Docker, . is mounted as the source\n"),
        "made in /pipeline/source\n",
        &format!("2/3 serve, http://localhost:{port}\n"),
        "2/3 serve: text changed; starts again\n",
        "finishing step serve (Ctrl-C again stops now)",
        "\nand on with three\n",
        "after-steps saw passed",
        &format!("{name} succeeded in"),
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    assert_eq!(project.left(&name), Vec::<String>::new());
}

#[test]
fn a_second_ctrl_c_stops_at_once_and_leaves_nothing() {
    // Who does not end when told has to be stopped.
    let stubborn = SERVER.replace("mkdir -p", "trap \"\" TERM; mkdir -p").replace("exec httpd", "httpd");
    let served = Served::starts(&stubborn, &[]);
    let name = served.name();
    served.dev.interrupt();
    served.dev.says("finishing step serve");
    served.dev.interrupt();
    let Served { project, dev, .. } = served;
    let (code, said) = dev.ends();
    assert!(code == Some(3) && said.contains(&format!("stopping {name} at once")), "{code:?} {said}");
    assert!(!said.contains("after-steps saw"), "{said}");
    assert_eq!(project.left(&name), Vec::<String>::new());
}

#[test]
fn without_a_mount_steps_work_on_a_copy() {
    let served = Served::starts(SERVER, &["--direct-mount=false"]);
    assert!(!served.project.path("made").exists());
    served.dev.interrupt();
    let (code, said) = served.dev.ends();
    assert!(code == Some(0) && !said.contains("mounted"), "{code:?} {said}");
}

#[test]
fn build_works_in_the_directory_itself_if_it_is_told_to() {
    let project = Project::of(
        "build",
        "  box: {image: 'busybox:local', user: '65534'}\n  steps: [{name: a, script: 'cat text; pwd; ls -d $WERCKER_OUTPUT_DIR'}]",
    );
    project.write("text", "of the project\n");
    let said = project.say(&["build", "--direct-mount"]);
    assert!(
        said.code == Some(0) && said.out.starts_with("of the project\n/pipeline/source\n/tmp/pipeline/output\n"),
        "{}",
        said.all()
    );
    let names = fs::read_dir(project.path("")).unwrap().count();
    assert_eq!(names, 2, "nothing of ours is in the project");
}

#[test]
fn the_port_of_a_run_that_was_killed_is_free_for_the_next() {
    let killed = Served::starts(SERVER, &[]);
    let (name, port) = (killed.name(), killed.port);
    // Drop kills it.
    let Served { project, dev, .. } = killed;
    drop(dev);
    assert!(!project.left(&name).is_empty());
    let mut command = project.command(&["dev", "--publish", &format!("{port}:5000")]);
    command.env("WINDLASS_PROGRESS", "plain");
    let again = Served { project, port, dev: Running::start(command) };
    again.dev.says("2/3 serve, http://localhost:");
    again.serves("one");
    assert_eq!(again.project.left(&name).len(), 1, "its own directory is all there is");
    again.dev.interrupt();
    let (code, said) = again.dev.ends();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_port_that_is_taken_is_told_before_anything_is_started() {
    let project = Project::of("dev", SERVER);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let said = project.say(&["dev", "--publish", &format!("{port}:5000")]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.err.contains(&format!("port {port} of this machine")) && said.err.contains("nothing was started"));
}

#[test]
fn a_shell_step_is_given_the_terminal_of_who_sits_there() {
    let project = Project::of(
        "build",
        "  box: {image: 'busybox:local'}\n  steps:\n  - {name: set, script: 'export VERSION=1.4'}\n  - {name: look, shell: {}}\n\
        \x20 - {name: again, shell: {}}\n  - {name: next, script: 'echo \"went on with $(cat made)\"'}",
    );
    let mut person = Person::starts(&project.command(&["build"]));
    let before = person.settings();
    person.sees("step look:");
    person.prompts();
    person.types("echo it is $VERSION; echo mended > made\n");
    person.sees("\nit is 1.4\r\nready> ");
    person.has_size("30 90");
    person.types("sleep 1000; echo code $?\n");
    person.sees("sleep 1000");
    std::thread::sleep(Duration::from_millis(300));
    person.types("\u{3}");
    person.sees("ready> ");
    person.types("exit 3\n");
    person.sees("left step look; build-");
    // What is typed for the next shell arrives there, each byte of it.
    person.sees("step again:");
    person.prompts();
    person.types("echo second $((40 + 2))\n");
    person.sees("\nsecond 42");
    person.types("exit\n");
    person.sees("went on with mended");
    assert_eq!(person.leaves(), Some(0), "{}", person.seen());
    let after = person.settings();
    assert_eq!((after.local_modes, after.input_modes), (before.local_modes, before.input_modes));
}

#[test]
fn the_program_prints_what_the_pictures_show() {
    let place = tempfile::tempdir().unwrap();
    let port = free_port().to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/pictures/record.py");
    let project = Project::of("build", SERVER);
    let record = |what: &str| {
        // The environment of a command of a project leads to the engine, and to the runner.
        let command = project.command(&[]);
        let mut record = std::process::Command::new("python3");
        record
            .arg(script)
            .args(["--port", &port, what])
            .arg(place.path())
            .envs(command.get_envs().filter_map(|(n, v)| Some((n, v?))));
        let done = record.env("WINDLASS", command.get_program()).env("BOX", "busybox:local").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    record("--out");
    record("--compare");
}
