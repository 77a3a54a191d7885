//! Runs on the engine of this machine: the real command line, the real runner, no part of the cluster but its engine and
//! registries. Only the comparison with a run of the cluster needs the installation.

use super::{
    engines::Which,
    push::{config, files, repository},
    world::{World, tool, verdict},
};
use crate::terminal::Person;
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longest time that a run may take; one that hangs fails its test.
const PATIENCE: Duration = Duration::from_secs(90);

/// A project directory of one test, with its own place for temporary files.
pub(super) struct Project {
    pub(super) dir: TempDir,
    engine: Which,
}

pub(super) struct Said {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Said {
    /// Both outputs, for the message of a test that fails.
    pub(super) fn all(&self) -> String {
        format!("exit {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.out, self.err)
    }
}

impl Project {
    /// A project with a pipeline `build` (block YAML, indented by two), run on the cluster's engine.
    pub(super) fn new(spec: &str) -> Self {
        Self::on(Which::Clusters, spec)
    }

    /// The same with a pipeline of another name.
    pub(super) fn of(name: &str, spec: &str) -> Self {
        Self::made(Which::Clusters, name, spec)
    }

    /// The same on another engine.
    pub(super) fn on(engine: Which, spec: &str) -> Self {
        Self::made(engine, "build", spec)
    }

    fn made(engine: Which, name: &str, spec: &str) -> Self {
        let project = Self { engine, ..Self::empty() };
        project.write("windlass.yaml", &pipeline(name, spec));
        project
    }

    /// A project without a file, on the cluster's engine.
    pub(super) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["app", "tmp", "docker", "cache"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        Self { dir, engine: Which::Clusters }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("app").join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        self.program(Command::new(env!("CARGO_BIN_EXE_windlass")), arguments)
    }

    fn program(&self, mut command: Command, arguments: &[&str]) -> Command {
        let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/image/windlass-runner");
        assert!(runner.is_file(), "no {}: run `make binaries` first", runner.display());
        command.args(arguments).current_dir(self.dir.path().join("app"));
        command.env("WINDLASS_RUNNER", runner).env("TMPDIR", self.dir.path().join("tmp"));
        command.env("DOCKER_CONFIG", self.dir.path().join("docker")).env_remove("KUBECONFIG");
        command.env("XDG_CACHE_HOME", self.dir.path().join("cache"));
        command.env("DOCKER_HOST", self.engine.host());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(super) fn say(&self, arguments: &[&str]) -> Said {
        finish(self.command(arguments).spawn().unwrap())
    }

    /// Whether a run has a file of this name in its directory.
    pub(super) fn has_made(&self, name: &str) -> bool {
        let mut places = vec![self.dir.path().join("tmp")];
        while let Some(place) = places.pop() {
            // What it makes and removes meanwhile.
            for entry in fs::read_dir(place).into_iter().flatten().flatten() {
                if entry.file_name() == name {
                    return true;
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    places.push(entry.path());
                }
            }
        }
        false
    }

    /// What is left of this project's runs: their directories, and the names of their containers and networks.
    pub(super) fn left(&self, run: &str) -> Vec<String> {
        let mut left: Vec<String> = fs::read_dir(self.dir.path().join("tmp"))
            .unwrap()
            .flat_map(|base| fs::read_dir(base.unwrap().path()).unwrap())
            .map(|entry| entry.unwrap().path().display().to_string())
            .collect();
        let filter = format!("name=windlass-{run}");
        for list in [&["ps", "-a"][..], &["network", "ls"]] {
            let all = [list, &["--filter", &filter, "--format", "{{.ID}}"]].concat();
            left.extend(self.engine.docker(&all).lines().map(str::to_owned));
        }
        left
    }
}

pub(super) fn pipeline(name: &str, spec: &str) -> String {
    format!("apiVersion: windlass.dev/v1alpha1\nkind: Pipeline\nmetadata: {{name: {name}}}\nspec:\n{spec}\n---\n")
}

pub(super) fn read(from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    let mut from = from;
    std::thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).map(|_| text).unwrap()
    })
}

/// Waits for the end, with an end.
pub(super) fn finish(mut child: Child) -> Said {
    let (out, err) = (read(child.stdout.take().unwrap()), read(child.stderr.take().unwrap()));
    let code = wait(&mut child);
    Said { code, out: out.join().unwrap(), err: err.join().unwrap() }
}

pub(super) fn wait(child: &mut Child) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the command did not end in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(super) fn signal(child: &Child, name: &str) {
    tool("kill", &[name, &child.id().to_string()], "").unwrap();
}

/// A name that no other test and no other run of the tests has.
pub(super) fn unique(what: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    format!("{what}-{time}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(super) fn open_registry() -> String {
    std::env::var("WINDLASS_REGISTRY").unwrap()
}

#[test]
fn ten_steps_share_one_box_with_the_project_in_it() {
    let steps: String = (1..=10)
        .map(|i| {
            format!("  - {{name: s{i}, script: 'echo step {i} after $LAST; export LAST={i}; echo {i} >> seen'}}\n")
        })
        .collect();
    let project = Project::new(&format!(
        "  box: {{image: 'busybox:local'}}\n  steps:\n{steps}  - {{name: all, script: 'cat seen hello.txt; ls'}}"
    ));
    project.write("hello.txt", "from the project\n");
    project.write("secret.key", "stays here");
    project.write(".windlassignore", "secret.key\n");
    let said = project.say(&["build", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let events: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&events[0]["type"], &events[0]["mode"]), (&json!("begin"), &json!("local")));
    assert_eq!(events.last().unwrap()["exit"], 0);
    let text = |event: &Value| event["text"].as_str().unwrap_or_default().to_owned();
    let log: String = events.iter().filter(|event| event["type"] == "log").map(text).collect();
    assert!(log.contains("step 1 after\n") && log.contains("step 10 after 9\n"), "{log}");
    assert!(log.contains("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\nfrom the project\n"), "{log}");
    assert!(!log.contains("secret.key"), "{log}");
    let run = events[1]["run"].as_str().unwrap();
    assert_eq!(project.left(run), Vec::<String>::new());
    assert!(!project.path("seen").exists(), "steps work on a copy");
}

#[test]
fn a_failing_step_ends_with_its_own_code_after_the_after_steps() {
    let project = Project::new(
        "  box: {image: 'busybox:local'}\n  steps:\n  - {name: bad, script: 'echo out of luck; exit 7'}\n  - {name: never, script: 'echo never'}\n\
         \x20 afterSteps: [{name: tell, script: 'echo \"$WERCKER_RESULT at $WERCKER_FAILED_STEP_DISPLAY_NAME\"'}]",
    );
    let said = project.say(&["build", "--exit-code", "step"]);
    assert_eq!((said.code, said.out.as_str()), (Some(7), "out of luck\nfailed at bad\n"), "{}", said.all());
    for words in ["1/2 bad", "exit code 7", "skip", "look in: windlass build --breakpoint on-failure"] {
        assert!(said.err.contains(words), "{words}: {}", said.all());
    }
    assert_eq!(project.say(&["build"]).code, Some(1));
    let run = said.err.split_whitespace().nth(2).unwrap();
    assert_eq!(project.left(run), Vec::<String>::new());
}

#[test]
fn a_step_that_takes_too_long_is_ended() {
    let project = Project::new(
        "  box: {image: 'busybox:local'}\n  steps: [{name: slow, timeout: 1s, script: 'trap \"\" TERM; sleep 100 & wait; sleep 100'}]",
    );
    let began = Instant::now();
    let said = project.say(&["build"]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(said.err.contains("StepTimedOut") || said.err.contains("longer than 1s"), "{}", said.all());
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}

#[test]
fn services_are_at_their_names_and_at_localhost() {
    let service = "sleep 1; mkdir -p /w; echo served >/w/index.html; exec httpd -f -p 8088 -h /w";
    let project = Project::new(&format!(
        "  box: {{image: 'busybox:local'}}\n  services:\n  - name: web\n    image: 'busybox:local'\n    command: [sh, -c, '{service}']\n\
         \x20   ports: [8088]\n    readiness: {{http: {{port: 8088, path: /index.html}}}}\n\
         \x20 - name: file\n    image: 'busybox:local'\n    command: [sh, -c, 'sleep 1; touch /ready; exec sleep 600']\n\
         \x20   readiness: {{exec: {{command: [test, -e, /ready]}}}}\n\
         \x20 steps: [{{name: get, script: 'wget -qO- http://web:8088/; wget -qO- http://localhost:8088/; wget -qO- ${{WEB_PORT/tcp/http}}'}}]"
    ));
    let said = project.say(&["build"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "served\nserved\nserved\n"), "{}", said.all());
    let run = said.err.split_whitespace().nth(2).unwrap();
    assert_eq!(project.left(run), Vec::<String>::new());
}

#[test]
fn a_service_that_ends_fails_the_run_with_its_last_words() {
    let project = Project::new(
        "  box: {image: 'busybox:local'}\n  services: [{name: db, image: 'busybox:local', command: [sh, -c, 'sleep 1; echo no disk; exit 3']}]\n\
         \x20 steps: [{name: a, script: 'sleep 60'}]",
    );
    let said = project.say(&["build"]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(said.err.contains("ServiceFailed: service db ended with exit code 3: no disk"), "{}", said.all());
}

#[test]
fn secrets_are_masked_and_kept_out_of_images() {
    let repository = format!("{}/local/{}", open_registry(), unique("leak"));
    let push = format!("  - {{name: push, dockerPush: {{repository: '{repository}', tags: [t]}}}}");
    let project = Project::new(&format!(
        "  box: {{image: 'busybox:local'}}\n  env: [{{name: KEY, secretKeyRef: {{name: keys, key: api}}}}]\n  steps:\n\
         \x20 - {{name: use, script: 'echo \"$KEY $TOKEN $PLAIN\"; ls *.env; echo $TOKEN > /leak'}}\n{push}"
    ));
    project.write("keys.env", "api=a-key-of-somebody\n");
    project.write("secret.env", "TOKEN=a-token-of-somebody\n");
    project.write("plain.env", "# comment\nPLAIN=shown\n");
    let arguments = ["build", "--secret", "keys=keys.env", "--secret-env", "secret.env", "--env-file", "plain.env"];
    let said = project.say(&arguments);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(said.out.starts_with("*** *** shown\nplain.env\n"), "{}", said.all());
    assert!(said.err.contains("the value of variable TOKEN is in /leak"), "{}", said.all());
    assert!(!said.all().contains("of-somebody"), "{}", said.all());
    let image = format!("docker://{repository}:t");
    assert!(tool("skopeo", &["inspect", "--tls-verify=false", &image], "").is_err(), "it was pushed");
    // Without them the run says what to give.
    let missing = project.say(&["build"]);
    let words = "SecretNotFound: Secret keys does not exist; env KEY needs it; give it with --secret NAME=FILE";
    assert!(missing.err.contains(words), "{}", missing.all());
}

#[test]
fn the_docker_login_is_used_and_only_for_its_host() {
    let registry = std::env::var("WINDLASS_TLS_REGISTRY").unwrap();
    let ca = format!("{registry}={}", std::env::var("WINDLASS_TLS_REGISTRY_CA").unwrap());
    let repository = format!("{registry}/local/{}", unique("private"));
    let project = Project::new(&format!(
        "  box: {{image: 'busybox:local'}}\n  steps: [{{name: push, dockerPush: {{repository: '{repository}', tags: [t], credentials: {{secretName: login}}}}}}]"
    ));
    // The log of the step says it as the end of the run does.
    let unknown = project.say(&["build"]);
    let words = "if it is yours, say so: --registry-ca HOST=FILE";
    assert!(unknown.out.contains(words) && unknown.err.contains(words), "{}", unknown.all());
    assert!(!unknown.all().contains("administrator"), "{}", unknown.all());
    let arguments = ["build", "--registry-ca", &ca, "-o", "digest"];
    let refused = project.say(&arguments);
    assert_eq!(refused.code, Some(1), "{}", refused.all());
    assert!(refused.err.contains("(401)"), "{}", refused.all());
    let variable = |name: &str| std::env::var(name).unwrap();
    let auth = json!({"username": variable("WINDLASS_DEMO_USER"), "password": variable("WINDLASS_DEMO_PASSWORD")});
    let config = json!({"auths": {registry.as_str(): auth}}).to_string();
    fs::write(project.dir.path().join("docker/config.json"), config).unwrap();
    let said = project.say(&arguments);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.out.starts_with(&format!("{repository}@sha256:")), "{}", said.all());
    assert!(!said.all().contains(&variable("WINDLASS_DEMO_PASSWORD")), "{}", said.all());
}

#[test]
fn an_image_from_scratch_holds_the_output() {
    let repository = format!("{}/local/{}", open_registry(), unique("scratch"));
    let project = Project::new(&format!(
        "  box: {{image: 'busybox:local'}}\n  steps:\n  - {{name: make, script: 'echo x > $WERCKER_OUTPUT_DIR/x'}}\n\
         \x20 - {{name: push, dockerScratchPush: {{repository: '{repository}', tags: [t]}}}}"
    ));
    let said = project.say(&["build"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let image = format!("{repository}:t");
    tool("docker", &["pull", "-q", &image], "").unwrap();
    let found = files(&image);
    tool("docker", &["rmi", &image], "").unwrap();
    assert!(found.contains("x"), "{found:?}");
}

/// Reads lines until one holds the words.
pub(super) fn sees(from: &mut impl BufRead, words: &str) -> String {
    let mut all = String::new();
    loop {
        let begin = all.len();
        assert!(from.read_line(&mut all).unwrap() > 0, "no {words:?} in {all}");
        if all[begin..].contains(words) {
            return all[begin..].to_owned();
        }
    }
}

#[test]
fn people_enter_a_run_that_waits_and_let_it_go_on() {
    let project = Project::new(
        "  box: {image: 'debian:local'}\n  env: [{name: STAGE, value: test}]\n  steps:\n  - {name: look, shell: {}}\n\
         \x20 - {name: bad, script: 'test -e /mended && echo it is mended'}",
    );
    let mut child = project.command(&["build", "--breakpoint", "on-failure"]).spawn().unwrap();
    let (out, mut err) = (read(child.stdout.take().unwrap()), BufReader::new(child.stderr.take().unwrap()));
    let hint = sees(&mut err, "attach with: windlass shell build-");
    let run = hint.split("windlass shell ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();

    let mut person = Person::starts(project.command(&["shell", &run]).env_remove("CI"));
    person.sees(&format!("attaching to {run}; Ctrl-P Ctrl-Q detaches"));
    person.prompts();
    person.types("echo it is $STAGE\n");
    person.sees("\nit is test\r\nready> ");
    person.has_size("30 90");
    person.types("\u{10}\u{11}");
    person.sees(&format!("detached; {run} goes on as it was: windlass shell {run}"));
    assert_eq!(person.leaves(), Some(0));
    let mut person = Person::starts(project.command(&["shell", &run]).env_remove("CI"));
    person.prompts();
    person.types("exit\n");
    person.sees(&format!("left; what {run} does now is shown where it was started"));
    assert_eq!(person.leaves(), Some(0));

    // The next step fails, and waits.
    let hint = sees(&mut err, &format!("windlass retry {run} --step bad"));
    assert!(hint.contains(&format!("windlass continue {run}")), "{hint}");
    let mend = project.say(&["shell", &run, "--", "sh", "-c", "touch /mended; echo $STAGE; echo err >&2; exit 7"]);
    assert_eq!((mend.code, mend.out.as_str(), mend.err.as_str()), (Some(7), "test\n", "err\n"), "{}", mend.all());
    let finish = project.say(&["finish", &run]);
    assert_eq!(finish.code, Some(2), "{}", finish.all());
    assert!(finish.err.contains("step bad waits at a breakpoint, which finish does not end"), "{}", finish.all());
    for verb in ["status", "logs", "cancel"] {
        let said = project.say(&[verb, &run]);
        assert_eq!(said.code, Some(2), "{}", said.all());
        assert!(said.err.contains(&format!("{run} runs on Docker here")), "{}", said.all());
    }
    let retry = project.say(&["retry", &run, "--step", "bad"]);
    assert_eq!(retry.code, Some(0), "{}", retry.all());
    let err = read(err);
    let said = Said { code: wait(&mut child), out: out.join().unwrap(), err: err.join().unwrap() };
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.out.contains("it is mended\n"), "{}", said.all());
    assert_eq!(project.left(&run), Vec::<String>::new());
}

#[test]
fn a_strict_umask_does_not_shut_the_box_out() {
    let project = Project::new(
        "  box: {image: 'busybox:local', user: '1000'}\n  steps: [{name: a, script: 'cat sub/hello.txt; sh run.sh; id -u'}]",
    );
    fs::create_dir(project.path("sub")).unwrap();
    project.write("sub/hello.txt", "hello\n");
    project.write("run.sh", "echo it runs");
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 077; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_windlass")]);
    let said = finish(project.program(shell, &["build"]).spawn().unwrap());
    assert_eq!((said.code, said.out.as_str()), (Some(0), "hello\nit runs\n1000\n"), "{}", said.all());
}

#[test]
fn a_source_may_hold_the_directory_of_temporary_files() {
    let project = Project::new("  box: {image: 'busybox:local'}\n  steps: [{name: a, script: 'ls app; ls tmp'}]");
    let source = project.dir.path().display().to_string();
    let said = project.say(&["build", "--source", &source]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "windlass.yaml\n"), "{}", said.all());
}

#[test]
fn what_cannot_start_is_told_and_leaves_nothing() {
    let registry = open_registry();
    for (image, words) in [
        (format!("{registry}/none/such:1"), "ImagePullFailed: image"),
        ("none-such".to_owned(), "ImagePullFailed: image none-such is not on this machine"),
    ] {
        let policy = if image == "none-such" { "Never" } else { "IfNotPresent" };
        let project = Project::new(&format!(
            "  box: {{image: '{image}', imagePullPolicy: {policy}}}\n  steps: [{{name: a, script: 'true'}}]"
        ));
        let said = project.say(&["build"]);
        assert_eq!(said.code, Some(1), "{}", said.all());
        assert!(said.err.contains(words), "{words}: {}", said.all());
        let run = said.err.split_whitespace().nth(2).unwrap();
        assert_eq!(project.left(run), Vec::<String>::new());
    }
}

#[test]
fn what_cannot_be_run_starts_nothing() {
    let project = Project::new("  box: {image: 'busybox:local'}\n  steps: [{name: a, scirpt: 'true'}]");
    let said = project.say(&["build"]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(
        said.err.contains("error[UnknownKey]: spec.steps[0]: no such key: scirpt\n  --> windlass.yaml:6:"),
        "{}",
        said.all()
    );
    project.write(
        "windlass.yaml",
        &pipeline("build", "  box: {image: 'busybox:local'}\n  steps: [{name: a, script: 'true'}]"),
    );
    let missing = project.say(&["run", "bild"]);
    assert_eq!(missing.code, Some(5), "{}", missing.all());
    assert!(
        missing.err.contains("it has build") && missing.err.contains("hint: windlass run build"),
        "{}",
        missing.all()
    );
    let wrong = project.say(&["build", "-n", "team"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.all());
    for (host, words) in [("tcp://192.0.2.1:2375", "needs an engine on this machine"), ("unix:///none", "/none")] {
        let said = finish(project.command(&["build"]).env("DOCKER_HOST", host).spawn().unwrap());
        assert_eq!(said.code, Some(6), "{}", said.all());
        assert!(said.err.contains("error[EngineUnreachable]") && said.err.contains(words), "{}", said.all());
    }
}

/// The pipeline of `examples/hello` with its files inline, so that both runs have the same source.
fn hello(repository: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello");
    let text = fs::read_to_string(root.join("run.yaml")).unwrap();
    let mut run: Value = serde_yaml::from_str(&text).unwrap();
    let mut names: Vec<PathBuf> = fs::read_dir(root.join("app")).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let file = |path: &PathBuf| json!({"path": path.file_name().unwrap().to_str(), "content": fs::read_to_string(path).unwrap()});
    run["spec"]["pipelineSpec"]["source"] = json!({"inline": {"files": names.iter().map(file).collect::<Vec<_>>()}});
    run["spec"]["pipelineSpec"]["steps"][2]["dockerPush"]["repository"] = json!(repository);
    run
}

#[tokio::test]
async fn hello_gives_the_same_image_here_and_in_the_cluster() {
    let world = World::new().await;
    let (there, here) = (repository(&world, "hello"), repository(&world, "hello-local"));
    let mut run = hello(&there);
    run["metadata"] = json!({"name": "hello"});
    world.apply(&serde_yaml::to_string(&run).unwrap());
    let project = Project::new("  box: {image: 'busybox:local'}\n  steps: [{name: a, script: 'true'}]");
    project.write("run.yaml", &serde_yaml::to_string(&hello(&here)).unwrap());
    let said = project.say(&["run", "-f", "run.yaml", "--local"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let status = world.end("hello").await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?}", verdict(&status));
    let [one, other] = [&there, &here].map(|repository| config(&format!("{repository}:latest")));
    assert_eq!(one["config"], other["config"]);
    let base = |config: &Value| config["rootfs"]["diff_ids"][0].clone();
    assert_eq!(base(&one), base(&other));
    assert_eq!(one["history"].as_array().map(Vec::len), other["history"].as_array().map(Vec::len));
    let listed = [&there, &here].map(|repository| {
        let image = format!("{repository}:latest");
        tool("docker", &["pull", "-q", &image], "").unwrap();
        let found = files(&image);
        tool("docker", &["rmi", &image], "").unwrap();
        found
    });
    assert_eq!(listed[0], listed[1]);
    assert!(listed[0].iter().all(|name| !name.starts_with("dev/windlass")), "nothing of ours is in the image");
}
