//! Every example, created as a user does it: `kubectl create -f FILE`, then its end.

use super::{
    watch::is_served,
    world::{World, tool, verdict},
};
use std::{collections::BTreeSet, fs, path::Path};
use windlass::api::PipelineRunStatus;

/// What an example comes to.
struct Example {
    /// Below `examples`.
    file: &'static str,
    /// Reason of the run.
    reason: &'static str,
    /// Lines of the box's output.
    prints: &'static [&'static str],
    /// What the runner is told once the run waits for a person.
    told: Option<&'static str>,
    /// First tags of the image that it pushes; the build number follows.
    tags: &'static [&'static str],
}

const EXAMPLES: [Example; 14] = [
    Example { file: "01-hello.yaml", reason: "Succeeded", prints: &["hello"], told: None, tags: &[] },
    Example {
        file: "after-steps.yaml",
        reason: "StepFailed",
        prints: &[
            "one warning",
            "2 of 5 failed",
            "the run has failed",
            "Unit tests: step test (2 of 3) failed with exit code 3",
        ],
        told: None,
        tags: &[],
    },
    Example {
        file: "breakpoint.yaml",
        reason: "Succeeded",
        prints: &["deploying what was built"],
        told: Some("continue"),
        tags: &[],
    },
    Example {
        file: "git-private.yaml",
        reason: "Succeeded",
        prints: &["./greet_test", "0 of 3 tests failed"],
        told: None,
        tags: &[],
    },
    Example {
        file: "hello/run.yaml",
        reason: "Succeeded",
        prints: &["0 of 3 tests failed", "the run has passed"],
        told: None,
        tags: &["1.4.2", "latest"],
    },
    Example { file: "non-root.yaml", reason: "Succeeded", prints: &["/tmp/build", "hello"], told: None, tags: &[] },
    Example {
        file: "params-and-pipeline.yaml",
        reason: "Succeeded",
        prints: &["hello, windlass (build 1)"],
        told: None,
        tags: &[],
    },
    Example {
        file: "push-with-credentials.yaml",
        reason: "Succeeded",
        prints: &[],
        told: None,
        tags: &["1.0", "latest"],
    },
    Example {
        file: "shell.yaml",
        reason: "Succeeded",
        prints: &["deploying 1.4.2"],
        told: Some("continue"),
        tags: &[],
    },
    Example {
        file: "services.yaml",
        reason: "Succeeded",
        prints: &["web says: hello from a service"],
        told: None,
        tags: &[],
    },
    Example {
        file: "watch.yaml",
        reason: "Succeeded",
        prints: &["this step runs once", "serving: hello from a watched server", "the server is done"],
        told: Some("finish"),
        tags: &[],
    },
    Example {
        file: "push-with-password.yaml",
        reason: "Succeeded",
        prints: &[],
        told: None,
        tags: &["my-amazing-tag"],
    },
    Example { file: "store-container.yaml", reason: "Succeeded", prints: &["built"], told: None, tags: &[] },
    Example { file: "scratch.yaml", reason: "Succeeded", prints: &[], told: None, tags: &["latest"] },
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The YAML files of `examples` and of the folders in it.
fn files() -> BTreeSet<String> {
    let (base, mut folders, mut found) = (root().join("examples"), vec![root().join("examples")], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "yaml") {
                found.insert(path.strip_prefix(&base).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// Creates what is in the file; the name of the run in it.
fn create(world: &World, file: &str) -> String {
    let path = root().join("examples").join(file);
    let made = world.kubectl(&["create", "-o", "name", "-f", path.to_str().unwrap()], "");
    let made = made.unwrap_or_else(|error| panic!("{file}: {error}"));
    let runs: Vec<&str> = made.lines().filter_map(|line| line.strip_prefix("pipelinerun.windlass.dev/")).collect();
    assert_eq!(runs.len(), 1, "{file} makes one run: {made}");
    runs[0].to_owned()
}

#[tokio::test]
async fn every_example_runs_as_it_is() {
    assert_eq!(files(), EXAMPLES.iter().map(|example| example.file.to_owned()).collect(), "all are in the table");
    let publish = |arguments: &[&str]| {
        let script = root().join("tests/cluster/git-serve.sh");
        let app = root().join("examples/hello/app");
        let arguments = [&["publish", app.to_str().unwrap()], arguments].concat();
        tool(script.to_str().unwrap(), &arguments, "").unwrap();
    };
    publish(&["hello"]);
    publish(&["example", "--private"]);
    let world = World::new().await;
    let started: Vec<_> = EXAMPLES.iter().map(|example| (example, create(&world, example.file))).collect();
    for (example, run) in started {
        if let Some(verb) = example.told {
            let waits = |s: &PipelineRunStatus| verdict(s).0 == "WaitingForUser" || is_served(s);
            world.until(&run, "waiting", |s| !s.conditions.is_empty() && waits(s)).await;
            let exec = ["exec", &format!("{run}-1"), "-c", "box", "--", "/dev/windlass/in/windlass-runner", verb];
            world.kubectl(&exec, "").unwrap_or_else(|error| panic!("{}: {error}", example.file));
        }
        let status = world.end(&run).await;
        assert_eq!(verdict(&status).0, example.reason, "{}: {:?}", example.file, verdict(&status));
        let log = world.log(&run).await;
        for line in example.prints {
            assert!(log.lines().any(|printed| printed == *line), "{} does not print {line:?}: {log}", example.file);
        }
        let number = status.build_number.unwrap().to_string();
        let mut tags = example.tags.to_vec();
        if !tags.is_empty() {
            tags.push(&number);
        }
        let pushed: Vec<_> = status.steps.iter().flat_map(|step| &step.images).flat_map(|image| &image.tags).collect();
        assert_eq!(pushed, tags, "{}", example.file);
    }
}
