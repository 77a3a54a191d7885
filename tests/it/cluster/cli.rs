//! The real command line on the real cluster: what it prints, where, and with which exit code.

use serde_json::Value;
use std::{
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Longest time that a command may take; one that hangs fails its test.
const PATIENCE: Duration = Duration::from_secs(120);

/// A namespace of one test, deleted with it.
struct Place {
    namespace: String,
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn tool(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    if std::env::var_os("KUBECONFIG").is_none() {
        command.env("KUBECONFIG", Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster/kubeconfig"));
    }
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Gives the input and waits, with an end.
fn finish(mut child: Child, input: &str) -> Output {
    let mut stdin = child.stdin.take().expect("stdin");
    let input = input.as_bytes().to_vec();
    let read = |mut from: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).map(|_| bytes).expect("a pipe")
        })
    };
    let out = read(Box::new(child.stdout.take().expect("stdout")));
    let err = read(Box::new(child.stderr.take().expect("stderr")));
    // Who reads no input may have ended already.
    std::thread::spawn(move || stdin.write_all(&input).ok());
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().expect("a child");
            panic!("the command did not end in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    Output { status, stdout: out.join().expect("a reader"), stderr: err.join().expect("a reader") }
}

fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl Place {
    fn new() -> Self {
        let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_nanos();
        let place = Self { namespace: format!("it-cli-{stamp:x}") };
        let made = finish(tool("kubectl", &["create", "namespace", &place.namespace]).spawn().expect("kubectl"), "");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let began = Instant::now();
        // A pod is refused until its service account is there.
        while !place.kubectl(&["get", "serviceaccount", "default"]).status.success() {
            assert!(began.elapsed() < PATIENCE, "no service account");
            std::thread::sleep(Duration::from_millis(50));
        }
        place
    }

    fn kubectl(&self, arguments: &[&str]) -> Output {
        let all = [&["-n", self.namespace.as_str()], arguments].concat();
        finish(tool("kubectl", &all).spawn().expect("kubectl"), "")
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let all = [&["-n", self.namespace.as_str()], arguments].concat();
        tool(env!("CARGO_BIN_EXE_windlass"), &all).env_remove("CI").spawn().expect("windlass runs")
    }

    fn say(&self, arguments: &[&str], input: &str) -> Said {
        said(finish(self.start(arguments), input))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut delete = tool("kubectl", &["delete", "namespace", &self.namespace, "--wait=false"]);
        drop(delete.spawn().and_then(|mut child| child.wait()));
    }
}

fn run(metadata: &str, steps: &str) -> String {
    format!(
        "apiVersion: windlass.dev/v1alpha1\nkind: PipelineRun\nmetadata: {metadata}\nspec:\n  pipelineSpec:\n    \
         box: {{image: \"busybox:local\", imagePullPolicy: Never}}\n{steps}\n"
    )
}

const FAILING: &str = "    steps:
    - {name: build, script: 'echo built; printf \"no end\"'}
    - {name: test, script: 'echo \"> ok    [1.0s] 2/3 test 1.0s\"; echo Error; exit 7'}
    - {name: push, script: 'echo never'}
    afterSteps:
    - {name: tell, script: 'echo told'}";
/// What is shown of it: the runner ends a step's last line, and the forged line is taken for the runner's.
const FAILING_PRINTS: &str = "built\nno end\nError\ntold\n";

#[test]
fn a_failing_run_is_followed_shown_and_started_again() {
    let place = Place::new();
    let text = run("{generateName: hello-}", FAILING);
    let said = place.say(&["run", "-f", "-", "--exit-code", "step"], &text);
    assert_eq!((said.code, said.out.as_str()), (Some(7), FAILING_PRINTS), "{}", said.err);
    let lines: Vec<&str> = said.err.lines().collect();
    assert!(lines[0].starts_with("> run   hello-") && lines[0].contains(&place.namespace), "{}", said.err);
    for (before, after) in [("1/3 build", "2/3 test"), ("2/3 test", "skip"), ("skip", "tell (after)")] {
        let at = |what: &str| lines.iter().position(|l| l.contains(what)).expect(what);
        assert!(at(before) < at(after), "{}", said.err);
    }
    assert!(said.err.contains("failed in ") && said.err.contains(": step test, exit code 7\n"), "{}", said.err);
    assert!(said.err.contains("  | Error\nhint: all of it: windlass -n it-cli-"), "{}", said.err);

    let status = place.say(&["status", "--exit-status"], "");
    assert_eq!(status.code, Some(1));
    assert!(status.out.contains("  Failed  StepFailed: step test (2 of 3) failed with exit code 7"), "{}", status.out);
    let logs = place.say(&["logs"], "");
    assert_eq!((logs.code, logs.out.as_str()), (Some(0), FAILING_PRINTS), "{}", logs.err);
    assert_eq!(place.say(&["logs", "--failed"], "").out, "Error\n");
    assert_eq!(place.say(&["logs", "@latest", "--step", "build", "--tail", "1"], "").out, "no end\n");
    let followed = place.say(&["logs", "-f"], "");
    assert_eq!((followed.code, followed.out.as_str()), (Some(1), FAILING_PRINTS), "{}", followed.err);

    let again = place.say(&["retry", "@latest", "-o", "name"], "");
    assert_eq!(again.code, Some(1), "{}", again.err);
    assert!(again.out.starts_with("pipelinerun.windlass.dev/hello-retry-") && again.out.lines().count() == 1);
    let list = place.say(&["list"], "");
    assert!(list.out.starts_with("NAME ") && list.out.lines().count() == 3, "{}", list.out);
    assert!(list.out.lines().nth(1).is_some_and(|l| l.starts_with("hello-retry-")), "{}", list.out);
}

/// `took 3.8s` in a text, or what follows another word.
fn time_after(text: &str, word: &str) -> String {
    let rest = text.split_once(word).map(|(_, rest)| rest).expect(word);
    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect()
}

#[test]
fn a_run_took_as_long_whoever_tells_it() {
    let place = Place::new();
    let steps = "    steps: [{name: a, script: sleep 1.2}, {name: b, script: 'echo b'}]";
    let said = place.say(&["run", "-f", "-"], &run("{name: timed}", steps));
    assert_eq!(said.code, Some(0), "{}", said.err);
    let took = time_after(&said.err, "timed succeeded in ");
    assert_eq!(time_after(&place.say(&["status", "timed"], "").out, ", took "), took);
    let summary = place.say(&["status", "timed", "-o", "jsonpath={.status.summary.duration}"], "").out;
    assert_eq!(summary, took);
    let followed = place.say(&["logs", "-f", "timed"], "");
    assert_eq!(time_after(&followed.err, "timed succeeded in "), took);
    // Both tell the same times of the same things, however long after.
    let ours = |text: &str| {
        let lines = text.lines().filter(|l| l.starts_with("> step") || l.starts_with("> ok"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ours(&said.err), ours(&followed.err));
    assert!(said.err.lines().any(|l| l.starts_with(&format!("> ok    [{took}] timed"))), "{}", said.err);
}

#[test]
fn output_is_chosen_by_time_step_and_service() {
    let place = Place::new();
    let text = run("{name: chosen}", "    steps: [{name: a, script: 'echo one; sleep 2; echo two'}]").replace(
        "    steps",
        "    services: [{name: db, image: \"busybox:local\", imagePullPolicy: Never, \
         command: [sh, -c, 'echo from the service; trap exit TERM; while :; do sleep 0.1; done']}]\n    steps",
    );
    let said = place.say(&["run", "-f", "-"], &text);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "one\ntwo\n"), "{}", said.err);
    assert_eq!(place.say(&["logs", "--prefix"], "").out, "[a] one\n[a] two\n");
    let stamped = place.say(&["logs", "--timestamps"], "").out;
    let second = stamped.lines().nth(1).and_then(|l| l.split(' ').next()).expect("a time").to_owned();
    assert_eq!(place.say(&["logs", "--since", &second], "").out, "two\n");
    assert_eq!(place.say(&["logs", "-f", "--since", &second], "").out, "two\n");
    assert_eq!(place.say(&["logs", "--service", "db"], "").out, "from the service\n");
    let wrong = place.say(&["logs", "--service", "dv"], "");
    assert!(wrong.code == Some(5) && wrong.err.ends_with("hint: did you mean \"db\"?\n"), "{}", wrong.err);
}

#[test]
fn a_service_that_dies_ends_the_steps_and_leaves_its_output() {
    let place = Place::new();
    let service = |command: &str, more: &str| {
        format!(
            "    services: [{{name: db, image: \"busybox:local\", imagePullPolicy: Never, command: [sh, -c, '{command}']{more}}}]\n    "
        )
    };
    let steps = "steps: [{name: a, script: 'sleep 60'}]\n    afterSteps: [{name: tell, script: 'echo no'}]";
    let later = run("{name: later}", &format!("{}{steps}", service("sleep 2; echo boom; exit 3", "")));
    let at_once = service("echo boom; exit 3", ", readiness: {tcp: 5432}");
    let at_once = run("{name: at-once}", &format!("{at_once}{steps}"));
    for (name, text) in [("later", later), ("at-once", at_once)] {
        let said = place.say(&["run", "-f", "-"], &text);
        let hint = format!("logs {name} --service db");
        assert!(said.code == Some(1) && said.err.contains("ServiceFailed") && said.err.contains(&hint), "{}", said.err);
        let pod = format!("pod/{name}-1");
        let ended = place.kubectl(&["wait", &pod, "--for=jsonpath={.status.phase}=Failed", "--timeout=60s"]);
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        let said = place.say(&["logs", name, "--service", "db"], "");
        assert!(said.out.contains("boom\n"), "{name}: {} {}", said.out, said.err);
        let phases = "jsonpath={range .status.steps[*]}{.name}={.phase} {end}";
        let phases = place.kubectl(&["get", "pipelinerun", name, "-o", phases]);
        let phases = String::from_utf8_lossy(&phases.stdout).into_owned();
        assert!(phases.contains("tell=Skipped") && !phases.contains("Running"), "{phases}");
    }
    let controller = "--as=system:serviceaccount:windlass-system:windlass-controller";
    for patch in
        [r#"{"metadata": {"labels": {"x": "y"}}}"#, r#"{"spec": {"containers": [{"name": "box", "image": "other"}]}}"#]
    {
        let patched = place.kubectl(&[controller, "patch", "pod/later-1", "-p", patch]);
        let said = String::from_utf8_lossy(&patched.stderr).into_owned();
        assert!(said.contains("the controller only ends a pod by its time"), "{patch}: {said}");
    }
}

#[test]
fn a_file_may_hold_what_the_run_needs() {
    let place = Place::new();
    let beside = "apiVersion: v1\nkind: Secret\nmetadata: {name: login}\nstringData: {password: hunter2}\n---\n\
        apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {stage: test}\n---\n";
    let steps = "    env: [{name: STAGE, configMapKeyRef: {name: settings, key: stage}}]\n    \
        steps: [{name: a, script: 'echo $STAGE'}]";
    let (one, two) = (run("{name: one}", steps), run("{name: two}", steps));
    let said = place.say(&["run", "-f", "-"], &format!("{beside}{one}---\n{two}"));
    assert_eq!((said.code, said.out.as_str()), (Some(0), "test\n"), "{}", said.err);
    assert!(said.err.starts_with("secret login applied\nconfigmap settings applied\nrun two started; one is followed"));
    assert!(!said.err.contains("hunter2"), "{}", said.err);
    let owner = "jsonpath={.metadata.managedFields[0].manager}";
    assert_eq!(place.kubectl(&["get", "secret", "login", "-o", owner]).stdout, b"windlass-cli");
    assert_eq!(place.say(&["status", "two", "--wait", "-q"], "").code, Some(0));
    let unknown =
        place.say(&["run", "-f", "-"], &format!("{{apiVersion: v1, kind: Sekret, metadata: {{name: x}}}}\n---\n{one}"));
    assert!(unknown.code == Some(2) && unknown.err.contains("no kind Sekret in apiVersion v1"), "{}", unknown.err);
    let typed = "apiVersion: v1\nkind: Secret\nmetadata: {name: other}\nstringData: {pin: 7391}\n---\n";
    let refused = place.say(&["run", "-f", "-"], &format!("{typed}{one}"));
    assert!(refused.code == Some(2) && !refused.err.contains("7391"), "{}", refused.err);
}

#[test]
fn a_run_is_named_by_its_build_number_and_a_list_goes_on() {
    let place = Place::new();
    let text = "apiVersion: windlass.dev/v1alpha1\nkind: Pipeline\nmetadata: {name: greet}\nspec:\n  \
        box: {image: \"busybox:local\", imagePullPolicy: Never}\n  steps: [{name: hello, script: 'echo hello'}]\n";
    let mut watching = place.start(&["list", "-w", "--no-headers"]);
    let mut shown = std::io::BufReader::new(watching.stdout.take().expect("stdout"));
    assert_eq!(place.say(&["run", "-f", "-", "-q"], text).code, Some(0));
    let mut line = String::new();
    while !line.contains(" Succeeded ") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut shown, &mut line).expect("a line") > 0, "it ended");
        assert!(line.starts_with("greet-"), "{line}");
    }
    watching.kill().and_then(|()| watching.wait()).expect("it ends");
    let named = place.say(&["status", "greet#1", "-o", "name"], "");
    assert_eq!(named.code, Some(0), "{}", named.err);
    assert!(named.out.starts_with("pipelinerun.windlass.dev/greet-"), "{}", named.out);
    let none = place.say(&["logs", "greet#9"], "");
    assert!(none.code == Some(5) && none.err.contains("no run 9 of pipeline \"greet\""), "{}", none.err);
}

#[test]
fn events_are_json_in_sequence_with_all_output() {
    let place = Place::new();
    let said = place.say(&["run", "-f", "-", "--json"], &run("{name: events}", FAILING));
    assert_eq!((said.code, said.err.as_str()), (Some(1), ""));
    let events: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let types: Vec<&str> = events.iter().filter_map(|e| e["type"].as_str()).collect();
    assert_eq!((types[0], types[1], types[types.len() - 1]), ("begin", "run.created", "end"));
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], i + 1, "{event}");
    }
    let output: String = events.iter().filter_map(|e| e["text"].as_str()).collect();
    assert_eq!(output, FAILING_PRINTS);
    let ends: Vec<_> = events.iter().filter(|e| e["type"] == "step.finished").collect();
    let results: Vec<_> = ends.iter().filter_map(|e| Some((e["step"].as_str()?, e["result"].as_str()?))).collect();
    let expected = [("build", "succeeded"), ("test", "failed"), ("push", "skipped"), ("tell", "succeeded")];
    assert_eq!(results, expected);
    assert_eq!(ends[1]["exitCode"], 7);
    assert_eq!(events[events.len() - 1]["exit"], 1);
}

#[test]
fn a_run_is_cancelled_from_elsewhere() {
    let place = Place::new();
    let steps = "    steps: [{name: sleep, script: 'echo begun; sleep 100'}]";
    let mut following = place.start(&["run", "-f", "-"]);
    following.stdin.take().expect("stdin").write_all(run("{name: long}", steps).as_bytes()).expect("stdin is read");
    let mut begun = [0_u8; 6];
    following.stdout.as_mut().expect("stdout").read_exact(&mut begun).expect("output");
    assert_eq!(&begun, b"begun\n");
    let status = place.say(&["status", "long", "--exit-status"], "");
    assert_eq!(status.code, Some(8), "{}", status.out);
    let twice = place.say(&["run", "-f", "-"], &run("{name: long}", steps));
    assert_eq!(twice.code, Some(2));
    assert!(twice.err.starts_with("error[AlreadyExists]: a run \"long\" exists already"), "{}", twice.err);
    let cancel = place.say(&["cancel", "long", "--wait"], "");
    assert_eq!(cancel.code, Some(0), "{}", cancel.err);
    assert!(cancel.err.starts_with("long cancelling ("), "{}", cancel.err);
    // `finish` closes stdin; it was taken above.
    following.stdin = place.start(&["version"]).stdin.take();
    let said = said(finish(following, ""));
    assert_eq!(said.code, Some(3), "{}", said.err);
    assert!(said.err.contains("long cancelled after "), "{}", said.err);
    // A wait is not told after what it waited for.
    let at = |what: &str| said.err.lines().position(|l| l.contains(what));
    assert!(at("Cancelling").is_none_or(|wait| Some(wait) < at("1/1 sleep ")), "{}", said.err);
}

#[test]
fn what_the_cluster_refuses_is_named() {
    let place = Place::new();
    let typo = run("{name: x}", "    stepz: [{name: a, script: b}]");
    let said = place.say(&["run", "-f", "-"], &typo);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert!(said.err.contains("error[UnknownKey]: stdin: spec.pipelineSpec.stepz: no such field\n"), "{}", said.err);
    let both = run("{name: x}", "    steps: [{name: a, script: b, shell: {}}]");
    let said = place.say(&["run", "-f", "-", "--dry-run", "server"], &both);
    assert_eq!(said.code, Some(2));
    let start = "error[InvalidStep]: stdin: spec.pipelineSpec.steps[0] (a): set exactly one of script, dockerPush";
    assert!(said.err.starts_with(start), "{}", said.err);
    let pipeline = "{apiVersion: windlass.dev/v1alpha1, kind: Pipeline, metadata: {name: p}, spec: {stepz: []}}";
    let said = place.say(&["run", "-f", "-"], pipeline);
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(said.err.contains("error[UnknownKey]: stdin: spec.stepz: no such field\n"), "{}", said.err);
    let said = place.say(&["status", "nobody"], "");
    assert_eq!(said.code, Some(5));
    assert!(said.err.starts_with("error[NotFound]: no run \"nobody\" in namespace it-cli-"), "{}", said.err);
}

#[test]
fn a_file_may_hold_the_pipeline_and_its_run() {
    let place = Place::new();
    let text = "apiVersion: windlass.dev/v1alpha1\nkind: Pipeline\nmetadata: {name: greet}\nspec:\n  \
        params: [{name: who}]\n  box: {image: \"busybox:local\", imagePullPolicy: Never}\n  \
        steps: [{name: hello, script: 'echo hello $(params.who) in $STAGE'}]\n";
    let said = place.say(&["run", "-f", "-", "-p", "who=you", "-e", "STAGE=test"], text);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "hello you in test\n"), "{}", said.err);
    assert!(said.err.starts_with("pipeline greet applied\n> run   greet-"), "{}", said.err);
    let said = place.say(&["run", "--from", "pipeline/greet", "-p", "who=us", "-q"], "");
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "hello us in\n", ""));
    let list = place.say(&["list", "--pipeline", "greet", "-o", "name"], "");
    assert_eq!(list.out.lines().count(), 2, "{}", list.out);
}
