//! The real command line, with a cluster that is not there.

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

const KUBECONFIG: &str = r#"{apiVersion: v1, kind: Config, current-context: gone,
    clusters: [{name: gone, cluster: {server: "http://127.0.0.1:1"}}],
    users: [{name: me, user: {}}],
    contexts: [{name: gone, context: {cluster: gone, user: me, namespace: team-a}}]}"#;

/// A directory with a kubeconfig of a cluster that does not answer.
struct Place {
    directory: TempDir,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("kubeconfig"), KUBECONFIG).expect("a kubeconfig");
        Self { directory }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        command.env_clear().env("KUBECONFIG", self.directory.path().join("kubeconfig"));
        command.current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    fn say(&self, arguments: &[&str]) -> Said {
        said(&self.command().args(arguments).output().expect("windlass runs"))
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).expect("a file");
    }
}

fn said(output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    Said { code: output.status.code().expect("an exit code"), out: text(&output.stdout), err: text(&output.stderr) }
}

#[test]
fn help_is_on_stdout_and_needs_nothing() {
    let place = Place::new();
    for arguments in [&["--help"][..], &["help"], &["help", "run"], &["run", "--help"], &["help", "exit-codes"]] {
        let said = place.say(arguments);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{arguments:?}");
        assert!(said.out.lines().count() > 10 && said.out.lines().count() <= 60, "{}", said.out);
    }
    let run = place.say(&["help", "run"]).out;
    assert!(run.contains("Usage: windlass run"), "{run}");
}

#[test]
fn a_typo_gets_a_suggestion() {
    let said = Place::new().say(&["statsu"]);
    assert_eq!(said.code, 2);
    assert_eq!(said.err, "error[Usage]: no such verb: statsu\nhint: did you mean 'status'?\n");
    let said = Place::new().say(&["help", "exit-code"]);
    assert!(said.code == 2 && said.err.ends_with("hint: did you mean 'exit-codes'?\n"), "{}", said.err);
}

#[test]
fn a_broken_file_is_told_with_its_place_before_the_cluster_is_asked() {
    let place = Place::new();
    place.write("hello.yaml", "kind: PipelineRun\nspec:\n  steps: [a, b\n");
    let said = place.say(&["run", "-f", "hello.yaml"]);
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    assert!(said.err.starts_with("error[YamlSyntax]: hello.yaml:4:1: "), "{}", said.err);
    let said = place.say(&["run", "-f", "missing.yaml"]);
    assert!(said.code == 2 && said.err.starts_with("error[UnreadableFile]: missing.yaml: "), "{}", said.err);
}

#[test]
fn a_pipeline_of_a_project_file_is_never_guessed() {
    let said = Place::new().say(&["run", "build"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("hint: windlass run --from pipeline/build\n"), "{}", said.err);
}

#[test]
fn a_dry_run_needs_no_cluster() {
    let place = Place::new();
    let mut command = place.command();
    command.args(["run", "-f", "-", "--dry-run", "client", "-p", "v=1"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("windlass runs");
    let text = "{apiVersion: windlass.dev/v1alpha1, kind: Pipeline, metadata: {name: hello}, spec: {}}";
    child.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("stdin is read");
    let said = said(&child.wait_with_output().expect("windlass ends"));
    assert_eq!((said.code, said.err.as_str()), (0, "dry run: nothing was started\n"));
    assert!(said.out.contains("generateName: hello-\n") && said.out.contains("namespace: team-a\n"), "{}", said.out);
}

#[test]
fn a_cluster_that_does_not_answer_is_named() {
    for arguments in [&["status", "x"][..], &["list"], &["logs"], &["cancel", "x"], &["retry", "x"]] {
        let said = Place::new().say(arguments);
        assert_eq!((said.code, said.out.as_str()), (6, ""), "{arguments:?}");
        let start = "error[ClusterUnreachable]: cannot reach http://127.0.0.1:1: ";
        assert!(said.err.starts_with(start) && said.err.contains("(context gone)"), "{}", said.err);
    }
}

#[test]
fn a_kubeconfig_that_is_missing_or_has_no_such_context_is_told() {
    let said = Place::new().say(&["list", "--kubeconfig", "nowhere"]);
    assert_eq!(said.code, 4);
    assert!(said.err.starts_with("error[InvalidKubeconfig]: cannot read nowhere: "), "{}", said.err);
    let said = Place::new().say(&["--context", "prod", "list"]);
    assert_eq!(said.code, 4);
    assert!(said.err.contains("no context \"prod\" (it has gone)"), "{}", said.err);
}

#[test]
fn completion_scripts_are_complete() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let said = place.say(&["completion", shell]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{shell}");
        assert!(said.out.contains("retry") && said.out.contains("on-interrupt"), "{shell}");
        assert!(!said.out.contains("crds"), "{shell}");
    }
    place.write("windlass.bash", &place.say(&["completion", "bash"]).out);
    let checked = Command::new("bash").arg("-n").arg(place.directory.path().join("windlass.bash")).status();
    assert!(checked.expect("bash runs").success());
}

#[test]
fn a_reason_is_explained_offline() {
    let said = Place::new().say(&["explain", "stepfailed"]);
    assert!(said.code == 0 && said.out.starts_with("StepFailed\n  a step failed"), "{}", said.out);
    let said = Place::new().say(&["explain", "StepFialed"]);
    assert!(said.code == 5 && said.err.ends_with("hint: did you mean StepFailed?\n"), "{}", said.err);
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let place = Place::new();
    let mut child = place.command().arg("explain").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    drop(child.stdout.take());
    let said = said(&child.wait_with_output().expect("windlass ends"));
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}

#[test]
fn as_a_plugin_it_says_so() {
    let place = Place::new();
    let plugin = place.directory.path().join("kubectl-windlass");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_windlass"), &plugin).expect("a link");
    let say = |arguments: &[&str]| {
        let output = Command::new(&plugin).args(arguments).current_dir(place.directory.path()).output();
        said(&output.expect("the plugin runs"))
    };
    assert!(say(&["--help"]).out.contains("Usage: kubectl windlass"));
    assert!(say(&["run", "build"]).err.contains("hint: kubectl windlass run --from pipeline/build\n"));
    assert!(say(&["completion", "bash"]).out.contains("kubectl-windlass"));
}
