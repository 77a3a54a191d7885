//! Files that go from one run to the next, and those that come with a step.

use super::{of_scripts, project, put, run};
use serde_json::Value;
use std::fs;

#[test]
fn a_pipeline_hands_its_files_on() {
    let yml = "box: busybox:local\nbuild:\n  - script: {code: 'mkdir -p $WERCKER_OUTPUT_DIR/d; echo made > $WERCKER_OUTPUT_DIR/d/file; ln -s d/file $WERCKER_OUTPUT_DIR/link'}\n\
        left:\n  - script: {code: 'cat link; echo left > left; rm link'}\nright:\n  - script: {code: 'cat d/file; echo right > $WERCKER_OUTPUT_DIR/right'}\n\
        both:\n  - script: {code: 'cat left/left right/right; ls left; echo \"$DEPLOY ${CI:-none} $GREETING\"'}\n\
        workflows:\n  - name: all\n    pipelines:\n      - name: build\n      - {name: left, requires: [build]}\n      - {name: right, requires: [build]}\n\
        \x20     - {name: both, requires: [left, right], envFile: both.env}\n";
    let project = project(yml);
    project.write("both.env", "GREETING=\"hi there\"\n");
    let said = run(&project, &["workflow", "all"], &[]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(of_scripts(&said), "made\nmade\nleft\nright\nd\nleft\ntrue true hi there\n", "{}", said.all());
    // That place goes with the workflow.
    assert!(!said.all().contains(" kept in ") && !said.err.contains("not run"), "{}", said.all());
    assert!(!project.path("left").exists() && !project.path(".wercker").exists());
    // The first failure is the end.
    project.write("wercker.yml", &yml.replace("'cat d/file;", "'exit 4;"));
    let said = run(&project, &["workflow", "all", "--exit-code", "step"], &[]);
    assert_eq!((said.code, of_scripts(&said).as_str()), (Some(4), "made\n"), "{}", said.all());
    assert!(said.err.contains("] not run: both\n"), "{}", said.all());
    project.write("wercker.yml", &yml.replace("'cat link;", "'exit 4;"));
    let said = run(&project, &["workflow", "all"], &[]);
    assert!(said.code == Some(1) && said.err.contains("] not run: right, both\n"), "{}", said.all());
}

#[test]
fn the_events_of_a_workflow_are_one_sequence() {
    let project = project(
        "box: busybox:local\none:\n  - script: {code: 'true'}\ntwo:\n  - script: {code: exit 3}\n\
         workflows:\n  - name: all\n    pipelines:\n      - name: one\n      - {name: two, requires: [one]}\n\
         \x20     - {name: three, pipelineName: one, requires: [two]}\n",
    );
    let said = run(&project, &["workflow", "all", "--json"], &[]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    let events: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let ends = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    assert_eq!((ends("begin"), ends("run.created"), ends("end")), (2, 2, 2), "{}", said.all());
    let [.., left, end] = events.as_slice() else { panic!("{}", said.all()) };
    assert_eq!((&left["type"], &left["message"]), (&"notice".into(), &"not run: three".into()), "{}", said.all());
    assert_eq!((&end["type"], &end["exit"]), (&"end".into(), &1.into()), "{}", said.all());
}

#[test]
fn the_cache_stays_and_a_deploy_begins_with_what_the_build_kept() {
    let project = project(
        "box: busybox:local\nbuild:\n  - script: {code: 'cat $WERCKER_CACHE_DIR/count || true; echo once >> /pipeline/cache/count; echo made > made'}\n\
         deploy:\n  - script: {code: 'ls; echo \"$WERCKER_APPLICATION_NAME $WERCKER_DEPLOY_ID = $WERCKER_RUN_ID\"'}\n",
    );
    assert_eq!(run(&project, &["build"], &[]).code, Some(0));
    let second = run(&project, &["build", "--artifacts"], &[]);
    assert_eq!((second.code, second.out.lines().next()), (Some(0), Some("once")), "{}", second.all());
    let deploy = run(&project, &["deploy"], &[]);
    assert_eq!(deploy.code, Some(0), "{}", deploy.all());
    let lines: Vec<&str> = deploy.out.lines().collect();
    assert!(lines.starts_with(&["bin", "made", "wercker.yml"]), "{}", deploy.all());
    let words: Vec<&str> = lines[3].split(' ').collect();
    assert!(words[0] == "app" && !words[1].is_empty() && words[1] == words[3], "{}", deploy.all());
}

#[test]
fn steps_that_are_files_have_their_files() {
    let project =
        project("box: busybox:local\nbuild:\n  - team/greet:\n      who: $NAME\n  - \"greet \\\"file://DIR\\\"\"\n");
    put(
        &project,
        &[
            (
                ".wercker/steps/team-greet/run.sh".into(),
                "false\ncat \"$WERCKER_STEP_ROOT/data\"\necho \"$WERCKER_GREET_WHO $WERCKER_STEP_OWNER\"\n".into(),
            ),
            (".wercker/steps/team-greet/data".into(), "its own file\n".into()),
            ("elsewhere/run.sh".into(), "#!/bin/bash\nfalse\necho \"by address $WERCKER_STEP_OWNER\"\n".into()),
        ],
    );
    let text = fs::read_to_string(project.path("wercker.yml")).unwrap();
    project.write("wercker.yml", &text.replace("DIR", project.path("elsewhere").to_str().unwrap()));
    let said = run(&project, &["build"], &[("X_NAME", "you")]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(0), "its own file\nyou team\nby address wercker\n"),
        "{}",
        said.all()
    );
}

#[test]
fn a_deploy_keeps_its_output_apart_from_that_of_a_build() {
    let project = project(
        "box: busybox:local\nbuild:\n  - script: {code: 'echo made > $WERCKER_OUTPUT_DIR/made'}\n\
         deploy:\n  - script: {code: 'ls; echo done > $WERCKER_OUTPUT_DIR/done'}\n",
    );
    for begins_with in ["bin\nwercker.yml\n", "bin\nwercker.yml\n"] {
        let deploy = run(&project, &["deploy", "--artifacts"], &[]);
        assert_eq!((deploy.code, of_scripts(&deploy).as_str()), (Some(0), begins_with), "{}", deploy.all());
        assert_eq!(fs::read_to_string(project.path(".wercker/latest_deploy/output/done")).unwrap(), "done\n");
        assert!(!project.path(".wercker/latest").exists());
    }
    assert_eq!(run(&project, &["build", "--artifacts"], &[]).code, Some(0));
    let deploy = run(&project, &["deploy"], &[]);
    assert_eq!((deploy.code, of_scripts(&deploy).as_str()), (Some(0), "made\n"), "{}", deploy.all());
}

#[test]
fn files_that_werckerignore_names_do_not_come_along() {
    let project = project("box: busybox:local\nbuild:\n  - script: {code: ls -A; ls sub}\n");
    for (name, text) in [(".werckerignore", "*.log\n/own\n!keep.log\n"), ("a.log", ""), ("keep.log", ""), ("own", "")] {
        project.write(name, text);
    }
    put(&project, &[("sub/own".into(), String::new()), ("sub/b.log".into(), String::new())]);
    let said = run(&project, &["build"], &[]);
    let expected = ".werckerignore\nbin\nkeep.log\nsub\nwercker.yml\nown\n";
    assert_eq!((said.code, said.out.as_str()), (Some(0), expected), "{}", said.all());
    // A file that the wercker.yml names counts in its place.
    project.write("other", "own\n");
    let text = fs::read_to_string(project.path("wercker.yml")).unwrap();
    project.write("wercker.yml", &format!("ignore-file: other\n{text}"));
    let said = run(&project, &["build"], &[]);
    let expected = ".werckerignore\na.log\nbin\nkeep.log\nother\nsub\nwercker.yml\nb.log\n";
    assert_eq!((said.code, said.out.as_str()), (Some(0), expected), "{}", said.all());
}
