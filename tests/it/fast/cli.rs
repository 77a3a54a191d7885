//! The real command line, with a cluster that is not there.

use serde_json::Value;
use std::{
    fs,
    io::Write,
    os::unix::ffi::OsStrExt as _,
    path::Path,
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
    let page = |arguments: &[&str]| {
        let said = place.say(arguments);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{arguments:?}");
        assert!(said.out.lines().count() > 10 && said.out.lines().count() <= 60, "{}", said.out);
        said.out
    };
    for arguments in [&["--help"][..], &["help"], &["help", "exit-codes"]] {
        page(arguments);
    }
    let (short, long) = (page(&["run", "-h"]), page(&["run", "--help"]));
    assert!(short.lines().count() <= 24 && !short.contains("--on-interrupt"), "{short}");
    assert!(short.contains("More flags and examples: windlass run --help"), "{short}");
    assert!(long.contains("Usage: windlass run") && long.contains("--on-interrupt"), "{long}");
    assert_eq!(long, page(&["help", "run"]));
}

/// Docker, which is silent here, is not blamed for a place of this machine, and what was made is removed.
#[test]
fn a_place_for_temporary_files_that_cannot_be_used_is_told_before_docker_is_asked() {
    let place = Place::new();
    let socket = place.directory.path().join("docker.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    place.write("runner", "");
    place.write(
        "wercker.yml",
        "box: debian\nbuild:\n  - script: {code: 'true'}\nworkflows:\n  - name: all\n    pipelines: [{name: build}]\n",
    );
    for arguments in [&["build"][..], &["workflow", "all"]] {
        let mut command = place.command();
        command.args(arguments).env("TMPDIR", "/nope").env("DOCKER_HOST", format!("unix://{}", socket.display()));
        command.env("WINDLASS_RUNNER", place.directory.path().join("runner"));
        command.env("XDG_CACHE_HOME", place.directory.path());
        let said = said(&command.output().expect("windlass runs"));
        let told = "error[NoTemporaryDirectory]: TMPDIR /nope, the directory for temporary files: No such file or \
                    directory (os error 2)\n  nothing was started\nhint: set TMPDIR to a directory that you can write to, \
                    and that Docker sees\n";
        assert_eq!((said.code, said.err.as_str()), (6, told), "{arguments:?}");
    }
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
fn a_runner_that_is_not_there_is_told_with_who_named_it() {
    let place = Place::new();
    let text = "{apiVersion: windlass.dev/v1alpha1, kind: Pipeline, metadata: {name: build}, \
        spec: {box: {image: debian}, steps: [{name: a, script: 'true'}]}}";
    place.write("windlass.yaml", text);
    let said = said(&place.command().arg("build").env("WINDLASS_RUNNER", "/nope").output().expect("windlass runs"));
    let words = "error[EngineUnreachable]: WINDLASS_RUNNER=/nope: there is no such file\n  nothing was started\n\
        hint: it names windlass-runner; unset it if that is beside windlass\n";
    assert_eq!((said.code, said.err.as_str()), (6, words));
}

#[test]
fn a_flag_that_only_docker_takes_is_not_left_out_in_a_cluster() {
    let place = Place::new();
    place.write("hello.yaml", "{apiVersion: windlass.dev/v1alpha1, kind: Pipeline, metadata: {name: a}, spec: {}}");
    let flags = ["--env-file=x", "--secret=a=b", "--source=.", "--publish=5000", "--docker-local", "--attach-on-error"];
    for flag in flags {
        let name = flag.split('=').next().expect("a flag");
        let words =
            format!("error[Usage]: {name} is for a run on Docker; this one is in a cluster\n  nothing was started\n");
        let run = place.say(&["run", "-f", "hello.yaml", flag]);
        assert_eq!((run.code, run.err.as_str()), (2, words.as_str()), "{flag}");
        if !["--source", "--publish"].contains(&name) {
            let dev = place.say(&["dev", "-f", "hello.yaml", flag]);
            assert_eq!((dev.code, dev.err), (2, words), "{flag}");
        }
    }
}

/// What `help json` promises: `error`, and last of all `end` with the exit code.
#[test]
fn what_stops_a_verb_before_a_run_begins_is_an_event_too() {
    let place = Place::new();
    place.write("ok.yml", "box: debian\nbuild: [{script: {code: 'true'}}]\n");
    place.write("hello.yaml", "{apiVersion: windlass.dev/v1alpha1, kind: Pipeline, metadata: {name: a}, spec: {}}");
    let cases: [(&[&str], &str); 8] = [
        (&["check", "nosuch"], "UnreadableFile"),
        (&["build", "-f", "nosuch"], "UnreadableFile"),
        (&["build", "-f", "ok.yml", "--env-file", "nosuch"], "UnreadableFile"),
        (&["build", "-f", "hello.yaml"], "WrongType"),
        (&["run", "nosuch"], "Usage"),
        (&["convert", "ok.yml"], "Usage"),
        (&["build", "--nosuch"], "Usage"),
        (&["build", "--publish", "x"], "Usage"),
    ];
    for (arguments, reason) in cases {
        let said = place.say(&[arguments, &["--json"]].concat());
        let events: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
        let of = |key: &str| events.iter().map(|event| event[key].clone()).collect::<Vec<_>>();
        let (types, last) = (of("type"), events.last().unwrap_or_else(|| panic!("{arguments:?}: {}", said.err)));
        assert_eq!((types.first(), types.last()), (Some(&"begin".into()), Some(&"end".into())), "{arguments:?}");
        assert!(types[1..types.len() - 1].iter().all(|kind| kind == "error"), "{arguments:?}: {types:?}");
        assert_eq!(of("seq"), (1..=events.len()).map(Value::from).collect::<Vec<_>>(), "{arguments:?}");
        assert_eq!((last["exit"].as_i64(), &last["reason"]), (Some(said.code.into()), &events[1]["reason"]));
        assert!(said.err.starts_with(&format!("error[{reason}]: ")), "{arguments:?}: {}", said.err);
        assert!(arguments[0] == "convert" || place.say(arguments).out.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_source_is_a_directory() {
    let place = Place::new();
    place.write("ok.yml", "box: debian\nbuild: [{script: {code: 'true'}}]\n");
    let runner = place.directory.path().join("kubeconfig");
    let mut command = place.command();
    command.args(["build", "-f", "ok.yml", "--source", "ok.yml"]).env(NOWHERE.0, NOWHERE.1);
    let said = said(&command.env("WINDLASS_RUNNER", runner).output().expect("windlass runs"));
    assert!(said.err.starts_with("error[Usage]: --source ") && said.code == 2, "{}", said.err);
    assert!(said.err.ends_with("/ok.yml: is not a directory\n  nothing was started\n"), "{}", said.err);
}

#[test]
fn who_reads_a_wercker_yml_is_told_where_it_is_not_read() {
    let place = Place::new();
    let text = "box: debian\nbuild: [{script: {code: 'true'}}]\n";
    place.write("ok.yml", text);
    let run = place.say(&["run", "-f", "ok.yml"]);
    let hint = "hint: it looks like a wercker.yml, which runs on Docker: windlass build -f";
    assert!(run.code == 2 && run.err.ends_with(&format!("{hint} ok.yml\n")), "{}", run.err);
    for verb in ["run", "build"] {
        let file = fs::File::open(place.directory.path().join("ok.yml")).expect("the file");
        let said = said(&place.command().args([verb, "-f", "-"]).stdin(file).output().expect("windlass runs"));
        assert!(said.code == 2 && said.err.ends_with(&format!("{hint} FILE\n")), "{verb}: {}", said.err);
    }
}

const NOWHERE: (&str, &str) = ("DOCKER_HOST", "unix:///nowhere.sock");

#[test]
fn a_workflow_is_judged_whole_before_its_first_pipeline() {
    let place = Place::new();
    let file = "box: debian\none: [{script: {code: 'true'}}]\ntwo: [{internal/docker-kill: {name: a}}]\n\
        three: {box: 'debian:$NOT_SET', steps: [{script: {code: 'true'}}]}\n\
        workflows: [{name: all, pipelines: [{name: one}, {name: two, requires: [one]}, {name: three, requires: [two]}]}]\n";
    place.write("wercker.yml", file);
    let runner = place.directory.path().join("kubeconfig");
    let mut command = place.command();
    command.args(["workflow", "all"]).env(NOWHERE.0, NOWHERE.1).env("WINDLASS_RUNNER", runner);
    let said = said(&command.env("XDG_CACHE_HOME", place.directory.path()).output().expect("windlass runs"));
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("wercker.yml:4:14") && said.err.contains("nothing was started"), "{}", said.err);
    assert_eq!(said.err.matches("NOT_SET is not set").count(), 1, "{}", said.err);
}

/// As `-f <(generate)`: it can be read once, and is in no directory of the project.
#[test]
fn a_file_may_be_a_pipe() {
    let place = Place::new();
    for (verb, exit) in [("build", 6), ("check", 0)] {
        let mut command = place.command();
        command.env(NOWHERE.0, NOWHERE.1).env("WINDLASS_RUNNER", place.directory.path().join("kubeconfig"));
        command.args([verb].iter().chain((verb == "build").then_some(&"-f"))).arg("/dev/stdin");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("windlass runs");
        let text = "{apiVersion: windlass.dev/v1alpha1, kind: Pipeline, metadata: {name: build}, \
            spec: {box: {image: debian}, steps: [{name: a, script: 'true'}]}}";
        child.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("stdin is read");
        let said = said(&child.wait_with_output().expect("windlass ends"));
        assert_eq!(said.code, exit, "{verb}: {}", said.err);
    }
}

#[test]
fn a_file_from_elsewhere_steers_neither_terminal_nor_shell() {
    let place = Place::new();
    place.write(
        "wercker.yml",
        "box: debian\n\"a\\e[2Jb\": [{script: {code: 'true'}}]\n'$(id)': [{script: {code: 'true'}}]\n",
    );
    let said = place.say(&["check"]);
    assert_eq!((said.code, said.err.as_str()), (0, "ok wercker.yml: 2 pipelines (a[2Jb, $(id))\n"));
    place.write("wercker.yml", "box: debian\nbuild: [{script: {code: 'true'}}]\n'$(id)': [{script: {code: 'true'}}]\n");
    let words = offered(&place, &["windlass", "run", ""]);
    assert!(words.lines().any(|word| word == "build") && !words.contains("$("), "{words}");
}

/// Nobody writes into it, so that opening it would wait for ever.
#[test]
fn a_pipe_that_has_the_name_of_a_file_is_none() {
    let place = Place::new();
    for name in ["wercker.yml", ".wercker.yml", "windlass.yaml"] {
        let made = Command::new("mkfifo").arg(place.directory.path().join(name)).status().expect("mkfifo runs");
        assert!(made.success(), "{name}");
    }
    for verb in ["check", "convert", "build", "dev"] {
        let mut child = place.command().arg(verb).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        let began = std::time::Instant::now();
        while child.try_wait().expect("a child").is_none() {
            if began.elapsed() > std::time::Duration::from_secs(30) {
                child.kill().expect("a child");
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let output = child.wait_with_output().expect("windlass ends");
        assert_eq!(output.status.code(), Some(2), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_pipeline_of_a_project_file_is_never_guessed() {
    let said = Place::new().say(&["run", "build"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("hint: windlass run --from pipeline/build\n"), "{}", said.err);
    for file in ["hello.yaml", "ci/hello"] {
        let said = Place::new().say(&["run", file]);
        assert!(said.err.contains(&format!("hint: windlass run -f {file}\n")), "{}", said.err);
    }
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

/// What the script of bash is offered for the last of the words.
fn offered(place: &Place, words: &[&str]) -> String {
    let mut command = place.command();
    command.env("COMPLETE", "bash").env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
    let said = said(&command.arg("--").args(words).output().expect("windlass runs"));
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{words:?}");
    said.out
}

#[test]
fn words_are_completed_and_a_cluster_that_is_away_is_no_error() {
    let place = Place::new();
    for (words, offers) in [
        (&["windlass", "re"][..], "retry"),
        (&["windlass", "run", "--on-"], "--on-interrupt"),
        (&["windlass", "run", "-o", "dig"], "digest"),
        (&["windlass", "list", "--status", "f"], "failed"),
        (&["windlass", "explain", "StepF"], "StepFailed"),
        // The cluster does not answer: what needs none is offered.
        (&["windlass", "logs", "@"], "@latest"),
        (&["windlass", "logs", "--step", ""], ""),
    ] {
        assert_eq!(offered(&place, words), offers, "{words:?}");
    }
    assert!(!offered(&place, &["windlass", ""]).contains("crds"));
}

#[test]
fn completion_scripts_ask_us() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let said = place.say(&["completion", shell]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{shell}");
        assert!(said.out.contains("COMPLETE") && said.out.contains("windlass"), "{shell}: {}", said.out);
    }
    // The script as bash runs it: sourced, and its function called for an unfinished word.
    let bin = Path::new(env!("CARGO_BIN_EXE_windlass")).parent().expect("a directory");
    place.write("windlass.bash", &place.say(&["completion", "bash"]).out);
    let script = "source ./windlass.bash; COMP_WORDS=(windlass canc); COMP_CWORD=1; COMP_TYPE=9; \
        _clap_complete_windlass windlass canc windlass; echo \"${COMPREPLY[@]}\"";
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let bash = Command::new("bash").args(["-c", script]).env("PATH", path).current_dir(place.directory.path()).output();
    assert_eq!(said(&bash.expect("bash runs")).out, "cancel\n");
}

#[test]
fn kubectl_is_answered_in_its_form() {
    let place = Place::new();
    let script = place.say(&["completion", "kubectl"]).out;
    assert_eq!(script, "#!/bin/sh\nexec kubectl-windlass __complete \"$@\"\n");
    assert_eq!(place.say(&["__complete", "stat"]).out, "status\tShow one run: steps, images, why it waits\n:4\n");
    assert_eq!(place.say(&["__complete", "-n", "x", "logs", "--tail", ""]).out, ":0\n");
}

#[test]
fn what_is_beside_a_run_is_shown_without_the_values_of_secrets() {
    let place = Place::new();
    let secret = "{apiVersion: v1, kind: Secret, metadata: {name: login}, stringData: {password: hunter2}}";
    let run = "{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {name: x}, spec: {}}";
    place.write("all.yaml", &format!("{secret}\n---\n{run}\n"));
    let said = place.say(&["run", "-f", "all.yaml", "--dry-run", "client"]);
    assert_eq!((said.code, said.err.as_str()), (0, "dry run: nothing was started\n"));
    assert!(said.out.contains("password: '***'") && !said.out.contains("hunter2"), "{}", said.out);
    let said = place.say(&["run", "-f", "all.yaml", "--dry-run", "client", "-o", "name"]);
    assert_eq!(said.out, "secret/login\npipelinerun.windlass.dev/x\n");
    place.write("broken.yaml", &format!("{secret}\n---\nkind: X\npassword: hunter2: x\n"));
    let said = place.say(&["run", "-f", "broken.yaml"]);
    assert!(said.code == 2 && !said.err.contains("hunter2"), "{}", said.err);
}

#[test]
fn a_value_that_no_flag_takes_is_told_before_the_cluster_is_asked() {
    for (arguments, told) in [
        (&["list", "--status", "faild"][..], "expected one of pending, queued"),
        (&["logs", "--since", "yesterday"], "neither a time ago such as 5m"),
        (&["status", "-o", "jsonpath={.a"], "is not closed"),
        (&["status", "-o", "table"], "expected json, yaml, name or jsonpath=TEMPLATE"),
        (&["list", "--as-group", "ops"], "--as-group needs --as"),
        (&["logs", "--service", "db", "--step", "a"], "cannot be used with"),
    ] {
        let said = Place::new().say(arguments);
        assert!(said.code == 2 && said.err.contains(told), "{arguments:?}: {}", said.err);
    }
}

#[test]
fn requests_are_said_without_headers_and_bodies() {
    let said = Place::new().say(&["-vv", "status", "x"]);
    assert_eq!(said.code, 6);
    let start = "* GET /apis/windlass.dev/v1alpha1/namespaces/team-a/pipelineruns/x no answer ";
    assert!(said.err.lines().any(|line| line.starts_with(start)), "{}", said.err);
    assert!(!Place::new().say(&["-v", "status", "x"]).err.contains("* GET"));
}

/// A cluster that takes connections and says nothing.
#[test]
fn a_wait_for_the_cluster_is_seen_after_a_second() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let place = Place::new();
    place.write("kubeconfig", &KUBECONFIG.replace("127.0.0.1:1", &address));
    let said = place.say(&["status", "x", "--request-timeout", "2s"]);
    assert_eq!(said.code, 6);
    let (first, rest) = said.err.split_once('\n').expect("two lines");
    assert_eq!(first, format!("waiting for http://{address}"));
    assert!(rest.starts_with("error[ClusterUnreachable]: no answer from "), "{rest}");
    let said = place.say(&["status", "x", "--request-timeout", "2s", "-q"]);
    assert!(said.err.starts_with("error["), "{}", said.err);
}

#[test]
fn a_reason_is_explained_offline() {
    let said = Place::new().say(&["explain", "stepfailed"]);
    assert!(said.code == 0 && said.out.starts_with("StepFailed\n  a step failed"), "{}", said.out);
    let said = Place::new().say(&["explain", "StepFialed"]);
    assert!(said.code == 5 && said.err.ends_with("hint: did you mean StepFailed?\n"), "{}", said.err);
}

/// What only prints.
const PRINTS: [&[&str]; 14] = [
    &["--help"],
    &["-h"],
    &["--version"],
    &["help"],
    &["help", "json"],
    &["run", "--help"],
    &["deploy", "-h"],
    &["controller", "--help"],
    &["version"],
    &["explain"],
    &["completion", "bash"],
    &["completion", "kubectl"],
    &["__complete", "re"],
    &["crds"],
];

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let place = Place::new();
    for arguments in PRINTS {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let said = said(&place.command().args(arguments).stdout(writer).output().expect("windlass runs"));
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let place = Place::new();
    let full = || fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    for arguments in PRINTS {
        let said = said(&place.command().args(arguments).stdout(full()).output().expect("windlass runs"));
        let words = "error[OutputFailed]: cannot write the output: No space left on device (os error 28)\n";
        // A shell that asks for words has a person at its prompt.
        let expected = if arguments[0] == "__complete" { "" } else { words };
        assert_eq!((said.code, said.err.as_str()), (6, expected), "{arguments:?}");
    }
    let mut command = place.command();
    command.env("COMPLETE", "bash").env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", "1").stdout(full());
    let said = said(&command.args(["--", "windlass", "re"]).output().expect("windlass runs"));
    assert_eq!((said.code, said.err.as_str()), (6, ""));
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
    assert!(say(&["run", "-h"]).out.contains("More flags and examples: kubectl windlass run --help"));
    assert!(!say(&["run", "--help"]).out.contains("  windlass "));
}

/// A plugin of the kubeconfig that gives credentials, and takes its time, asks, or answers.
#[test]
fn a_plugin_for_credentials_cannot_hold_up_a_prompt_or_talk_there() {
    let offer = |mode: &str, script: &str| {
        let place = Place::new();
        place.write("plugin", &format!("#!/bin/sh\ntouch ran\necho talks >&2\n{script}\n"));
        let path = place.directory.path().join("plugin");
        let mut mode_bits = fs::metadata(&path).expect("a file").permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode_bits, 0o755);
        fs::set_permissions(&path, mode_bits).expect("a mode");
        let user = format!(
            "user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: {}, interactiveMode: {mode}}}}}",
            path.display()
        );
        place.write("kubeconfig", &KUBECONFIG.replace("user: {}", &user));
        let began = std::time::Instant::now();
        assert_eq!(offered(&place, &["windlass", "logs", "@"]), "@latest", "{mode}");
        assert!(began.elapsed() < std::time::Duration::from_secs(3), "{mode}: {:?}", began.elapsed());
        place.directory.path().join("ran").exists()
    };
    assert!(offer("Never", "exec sleep 5"));
    assert!(offer("IfAvailable", "read answer; echo '{}'"));
    assert!(!offer("Always", "read answer; echo '{}'"));
}

#[test]
fn a_line_that_is_not_utf_8_is_completed_too() {
    let place = Place::new();
    let mut command = place.command();
    command.env("COMPLETE", "bash").env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", "4").arg("--");
    command.args(["windlass", "logs", "--step"]).arg(std::ffi::OsStr::from_bytes(b"\xff")).arg("@");
    let said = said(&command.output().expect("windlass runs"));
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "@latest", ""));
}

#[test]
fn a_target_that_no_pipeline_has_is_an_error() {
    let place = Place::new();
    let yml = "box: debian\nbuild: [script: {code: make}]\ndeploy: [script: {code: make}]\n\
        release: {staging: [script: {code: make}]}\n\
        workflows:\n- {name: none, pipelines: [build, {name: deploy, requires: [build]}]}\n\
        - {name: some, pipelines: [build, {name: release, requires: [build]}]}\n";
    place.write("wercker.yml", yml);
    let none =
        "hint: leave --deploy-target out; a step that reads the name gets it by -e WERCKER_DEPLOYTARGET_NAME=stagign\n";
    let near = "hint: --deploy-target staging\n";
    for (arguments, words, hint) in [
        (&["build"][..], "pipeline build has no targets, so none is \"stagign\"", none),
        (&["deploy"], "pipeline deploy has no targets, so none is \"stagign\"", none),
        (&["run", "release"], "pipeline release has no target \"stagign\" (it has staging)", near),
        (&["workflow", "none"], "workflow none has no targets, so none is \"stagign\"", none),
        (&["workflow", "some"], "workflow some has no target \"stagign\" (it has staging)", near),
    ] {
        let said = place.say(&[arguments, &["--deploy-target", "stagign"]].concat());
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{arguments:?}: {}", said.err);
        let expected = format!("error[Usage]: {words}\n  nothing was started\n{hint}");
        assert_eq!(said.err, expected, "{arguments:?}");
    }
    // No engine answers: it would have been started.
    let mut there = place.command();
    there.env("DOCKER_HOST", "unix:///nosuch").env("HOME", place.directory.path());
    there.args(["workflow", "some", "--deploy-target", "staging"]);
    let there = said(&there.output().expect("windlass runs"));
    assert!(there.err.contains("error[EngineUnreachable]"), "{}", there.err);
}
