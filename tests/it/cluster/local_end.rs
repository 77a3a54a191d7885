//! How runs on the engine of this machine end before their time: Ctrl-C at every moment, a kill, and what the next run sweeps.

use super::{
    engines::Which,
    local::{Project, Said, pipeline, read, sees, signal, wait},
    world::tool,
};
use rstest::rstest;
use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

/// A run whose step has begun: it prints `begun` and sleeps. The rest of its stdout and all of its stderr are read.
struct Begun {
    child: Child,
    name: String,
    out: std::thread::JoinHandle<String>,
    err: std::thread::JoinHandle<String>,
}

impl Begun {
    fn start(project: &Project) -> Self {
        Self::reading(project, true)
    }

    /// The same, and nothing more is read of its stdout, which is closed.
    fn start_unread(project: &Project) -> Self {
        Self::reading(project, false)
    }

    fn reading(project: &Project, reads: bool) -> Self {
        let mut child = project.command(&["build"]).spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut head = String::new();
        err.read_line(&mut head).unwrap();
        let name = head.split_whitespace().nth(2).unwrap_or_else(|| panic!("{head}")).to_owned();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        assert_eq!(first, "begun\n");
        let out = if reads { read(out) } else { read(std::io::empty()) };
        Self { child, name, out, err: read(err) }
    }

    fn end(mut self) -> Said {
        let code = wait(&mut self.child);
        Said { code, out: self.out.join().unwrap(), err: self.err.join().unwrap() }
    }
}

const SLEEPS: &str = "  box: {image: 'busybox:local'}\n  services: [{name: idle, image: 'busybox:local', command: [sleep, '600']}]\n\
    \x20 steps: [{name: long, script: 'echo begun; sleep 300'}]\n\
    \x20 afterSteps: [{name: tell, script: 'echo \"after-steps saw $WERCKER_RESULT\"'}]";

#[test]
fn a_first_ctrl_c_runs_the_after_steps_and_leaves_nothing() {
    let project = Project::new(SLEEPS);
    let begun = Begun::start(&project);
    let name = begun.name.clone();
    assert!(!project.left(&name).is_empty());
    signal(&begun.child, "-INT");
    let said = begun.end();
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(said.out, "after-steps saw failed\n", "{}", said.all());
    assert!(said.err.contains("stopping step long, then after-steps (Ctrl-C again to stop now)"), "{}", said.all());
    assert_eq!(project.left(&name), Vec::<String>::new());
}

#[test]
fn a_second_ctrl_c_ends_it_at_once_and_leaves_nothing() {
    let after = SLEEPS.replace("echo \"after", "sleep 60; echo \"after");
    let project = Project::new(&after);
    let begun = Begun::start(&project);
    let (name, began) = (begun.name.clone(), Instant::now());
    signal(&begun.child, "-INT");
    std::thread::sleep(Duration::from_millis(500));
    signal(&begun.child, "-INT");
    let said = begun.end();
    assert_eq!((said.code, said.out.as_str()), (Some(130), ""), "{}", said.all());
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(project.left(&name), Vec::<String>::new());
}

/// It ends with us, and 0 would say that it had succeeded.
#[test]
fn a_run_whose_output_nobody_reads_is_stopped_and_says_so() {
    let project = Project::new(
        "  box: {image: 'busybox:local'}\n  steps: [{name: talks, script: 'while echo begun; do sleep 0.1; done'}]",
    );
    let begun = Begun::start_unread(&project);
    let name = begun.name.clone();
    let said = begun.end();
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.err.contains(&format!("nobody reads the output any more: {name} was stopped\n")), "{}", said.all());
    assert_eq!(project.left(&name), Vec::<String>::new());
}

/// The containers and networks of the process, by the label of their owner.
fn owned(pid: u32) -> Vec<String> {
    let mut found = Vec::new();
    for list in [&["ps", "-a"][..], &["network", "ls"]] {
        let label = r#"{{.Label "windlass.dev/local-owner"}}"#;
        let format = ["--filter", "label=windlass.dev/local-owner", "--format", label];
        let all = tool("docker", &[list, &format].concat(), "").unwrap();
        found.extend(all.lines().filter(|owner| owner.contains(&format!("/{pid}/"))).map(str::to_owned));
    }
    found
}

#[test]
fn ctrl_c_at_any_moment_of_the_start_leaves_nothing() {
    let project = Project::new(SLEEPS);
    // Before the run is told of, then so many milliseconds after it was.
    for delay in [None, Some(0), Some(50), Some(100), Some(200), Some(400), Some(800)] {
        let mut child = project.command(&["build"]).spawn().unwrap();
        let (out, mut err) = (read(child.stdout.take().unwrap()), BufReader::new(child.stderr.take().unwrap()));
        if let Some(delay) = delay {
            sees(&mut err, "> run ");
            std::thread::sleep(Duration::from_millis(delay));
        }
        signal(&child, "-INT");
        let err = read(err);
        let said = Said { code: wait(&mut child), out: out.join().unwrap(), err: err.join().unwrap() };
        // Before the signal is caught it ends the process, which has made nothing yet.
        let expected = [None, Some(3), Some(130)];
        assert!(expected[usize::from(delay.is_some())..].contains(&said.code), "{delay:?}: {}", said.all());
        assert_eq!(owned(child.id()), Vec::<String>::new(), "{delay:?}: {}", said.all());
        assert_eq!(project.left("none"), Vec::<String>::new(), "{delay:?}: {}", said.all());
    }
}

#[test]
fn ctrl_c_while_it_cleans_up_does_not_stop_that() {
    let project = Project::new(SLEEPS);
    let begun = Begun::start(&project);
    let (pid, name) = (begun.child.id(), begun.name.clone());
    for _ in 0..2 {
        signal(&begun.child, "-INT");
        std::thread::sleep(Duration::from_millis(100));
    }
    while Path::new(&format!("/proc/{pid}/fd")).exists() && !owned(pid).is_empty() {
        signal(&begun.child, "-INT");
        signal(&begun.child, "-TERM");
        signal(&begun.child, "-HUP");
    }
    let said = begun.end();
    assert_eq!(project.left(&name), Vec::<String>::new(), "{}", said.all());
}

#[rstest]
#[case(Which::Clusters)]
#[case(Which::Debians)]
#[case(Which::GraphDriver)]
fn what_a_killed_run_left_is_swept_and_a_living_one_is_left_alone(#[case] engine: Which) {
    let project = Project::on(engine, SLEEPS);
    project.write(
        "quick.yaml",
        &pipeline("quick", "  box: {image: 'busybox:local'}\n  steps: [{name: a, script: 'sleep 2'}]"),
    );
    let (mut killed, living) = (Begun::start(&project), Begun::start(&project));
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    let filter = format!("name=windlass-{}", killed.name);
    let containers = || engine.docker(&["ps", "-aq", "--filter", &filter]);
    assert_eq!(containers().lines().count(), 2, "the box and its service outlive a kill");
    let said = project.say(&["run", "-f", "quick.yaml", "--local"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(containers(), "");
    assert_eq!(engine.docker(&["network", "ls", "-q", "--filter", &filter]), "");
    // The other run has its box, its service and its directory still, and ends as it should.
    assert_eq!(project.left(&living.name).len(), 4, "{:?}", project.left(&living.name));
    signal(&living.child, "-INT");
    let (name, said) = (living.name.clone(), living.end());
    assert_eq!((said.code, said.out.as_str()), (Some(3), "after-steps saw failed\n"), "{}", said.all());
    assert_eq!(project.left(&name), Vec::<String>::new());
}
