//! What runs of a `wercker.yml` keep on this machine and begin with: outputs, the project and its files of variables.
//! Whatever a project or a box links to stays as it is.

use super::{
    local::{Project, Said, finish, read, sees, signal, wait},
    world::tool,
};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
};

fn project(yml: &str) -> Project {
    let project = Project::empty();
    project.write("wercker.yml", yml);
    project
}

fn with(project: &Project, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
    finish(project.command(arguments).envs(variables.iter().copied()).spawn().unwrap())
}

/// What the run prints, which has to end well.
fn prints(project: &Project, arguments: &[&str]) -> Vec<String> {
    let said = project.say(arguments);
    assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.all());
    let own = |line: &&str| !line.starts_with("packed ") && !line.contains(" kept in ");
    said.out.lines().filter(own).map(str::to_owned).collect()
}

fn git(directory: &Path, arguments: &[&str]) {
    let directory = directory.to_str().unwrap();
    let own = ["-C", directory, "-c", "user.name=x", "-c", "user.email=x@y"];
    tool("git", &[&own[..], arguments].concat(), "").unwrap();
}

const BUILD_AND_DEPLOY: &str = "box: busybox:local\nbuild:\n  - script: {code: 'test \"$N\" != bad; test \"$N\" = none || echo $N > $WERCKER_OUTPUT_DIR/file; rm -rf ./*'}\n\
    deploy:\n  - script: {code: 'ls; test ! -e file || cat file'}\n";

#[test]
fn a_deploy_begins_with_what_the_last_build_kept_and_with_nothing_older() {
    let project = project(BUILD_AND_DEPLOY);
    // As a cloned repository may have it: `output` would be the one beside the project.
    let precious = project.dir.path().join("output/precious");
    fs::create_dir(precious.parent().unwrap()).unwrap();
    fs::write(&precious, "x").unwrap();
    fs::create_dir(project.path(".wercker")).unwrap();
    symlink("../..", project.path(".wercker/latest")).unwrap();
    let deploy = project.say(&["deploy"]);
    assert_eq!(deploy.code, Some(2), "{}", deploy.all());
    assert!(deploy.err.contains(".wercker/latest is a link, and none is followed here"), "{}", deploy.all());
    // Each build, and what a deploy after it begins with.
    let of_project = vec!["wercker.yml".to_owned()];
    for (number, arguments, code, begins) in [
        ("1", &["build", "--artifacts"][..], 0, vec!["file".to_owned(), "1".to_owned()]),
        ("2", &["build", "--artifacts"], 0, vec!["file".to_owned(), "2".to_owned()]),
        ("bad", &["build", "--artifacts"], 1, of_project.clone()),
        ("3", &["build", "--artifacts"], 0, vec!["file".to_owned(), "3".to_owned()]),
        ("none", &["build", "--artifacts"], 0, of_project.clone()),
        ("4", &["build", "--artifacts"], 0, vec!["file".to_owned(), "4".to_owned()]),
        ("5", &["build"], 0, of_project),
    ] {
        let said = with(&project, arguments, &[("X_N", number)]);
        assert_eq!(said.code, Some(code), "{number}: {}", said.all());
        assert_eq!(prints(&project, &["deploy"]), begins, "{number}: {}", said.all());
    }
    assert!(precious.is_file());
}

#[test]
fn builds_at_once_keep_the_output_of_one_of_them() {
    let project = project(
        "box: busybox:local\nbuild:\n  - script: {code: 'for i in 1 2 3 4 5 6 7 8; do echo $N > $WERCKER_OUTPUT_DIR/$N-$i; done'}\n",
    );
    let build = |n: &str| project.command(&["build", "--artifacts"]).env("X_N", n).spawn().unwrap();
    for said in [build("a"), build("b")].map(finish) {
        assert_eq!(said.code, Some(0), "{}", said.all());
    }
    let names: Vec<String> = fs::read_dir(project.path(".wercker/latest/output"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let first = names[0].split_once('-').unwrap().0;
    assert!(names.len() == 8 && names.iter().all(|name| name.starts_with(first)), "{names:?}");
    assert_eq!(fs::read_dir(project.path(".wercker/latest")).unwrap().count(), 1);
}

#[test]
fn links_that_a_box_leaves_lead_to_nothing_of_this_machine() {
    let project = project(
        "box: busybox:local\nbuild:\n  - script: {code: 'ln -s $TARGET $WERCKER_OUTPUT_DIR/.git; ln -s /etc/hostname $WERCKER_OUTPUT_DIR/name'}\n\
         deploy:\n  - script: {code: 'readlink .git; test \"$(cat name)\" = \"$(cat /etc/hostname)\" && echo of the box'}\n\
         workflows:\n- {name: all, pipelines: [build, {name: deploy, requires: [build]}]}\n",
    );
    let target = project.dir.path().join("of-somebody");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("config"), "of somebody").unwrap();
    let said = with(&project, &["workflow", "all"], &[("X_TARGET", target.to_str().unwrap())]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.out.contains(&format!("{}\nof the box\n", target.display())), "{}", said.all());
    assert_eq!(fs::read(target.join("config")).unwrap(), b"of somebody");
}

#[test]
fn a_project_below_its_repository_has_the_rules_and_the_commit_of_it() {
    let project = project(
        "box: busybox:local\nbuild:\n  - script: {code: 'ls -A; echo \"on $WERCKER_GIT_BRANCH\"'}\n\
         deploy:\n  - script: {code: 'echo \"on $WERCKER_GIT_BRANCH\"'}\n\
         workflows:\n- {name: all, pipelines: [build, {name: deploy, requires: [build]}]}\n",
    );
    project.write(".env", "PASSWORD=of-somebody");
    let repository = project.dir.path();
    fs::write(repository.join(".gitignore"), ".env\n").unwrap();
    git(repository, &["init", "-q", "-b", "trunk"]);
    git(repository, &["commit", "-q", "--allow-empty", "-m", "one"]);
    let expected = ["wercker.yml", "on trunk"];
    assert_eq!(prints(&project, &["build"]), expected);
    assert_eq!(prints(&project, &["run", "-f", "wercker.yml", "--local", "build"]), expected);
    assert_eq!(prints(&project, &["workflow", "all"]), ["wercker.yml", "on trunk", "on trunk"]);
    let mounted = ["run", "-f", "wercker.yml", "--local", "build", "--direct-mount"];
    assert_eq!(prints(&project, &mounted), [".env", "wercker.yml", "on trunk"]);
}

#[test]
fn files_of_variables_are_read_and_are_in_no_source() {
    let project = project(
        "box: busybox:local\nbuild:\n  - script: {code: 'ls -A; echo \"$OWN $GIVEN $LATER\"'}\n\
         deploy:\n  - script: {code: 'ls -A; echo \"$OWN $GIVEN $LATER\"'}\n\
         workflows:\n- {name: all, pipelines: [build, {name: deploy, envFile: later.env, requires: [build]}]}\n",
    );
    for (name, text) in [("ENVIRONMENT", "OWN=own\n"), ("ci.env", "X_GIVEN=given\n"), ("later.env", "LATER=later\n")] {
        project.write(name, text);
    }
    assert_eq!(prints(&project, &["build"]), ["ci.env", "later.env", "wercker.yml", "own  "]);
    let given = prints(&project, &["build", "--environment", "ci.env"]);
    assert_eq!(given, ["later.env", "wercker.yml", " given "]);
    let all = prints(&project, &["workflow", "all"]);
    assert_eq!(all, ["ci.env", "wercker.yml", "own  ", "ci.env", "wercker.yml", "own  later"]);
    // Whole, the project would show them.
    let path = project.path("wercker.yml");
    for file in ["wercker.yml", path.to_str().unwrap()] {
        let arguments = ["build", "--direct-mount", "-f", file];
        let said = project.say(&arguments);
        assert_eq!(said.code, Some(1), "{}", said.all());
        assert!(said.err.contains("ENVIRONMENT, which no box may see; move it elsewhere"), "{}", said.all());
    }
    fs::remove_file(project.path("ENVIRONMENT")).unwrap();
    for file in ["wercker.yml", path.to_str().unwrap()] {
        prints(&project, &["build", "--direct-mount", "-f", file]);
    }
}

#[test]
fn ctrl_c_between_two_pipelines_is_the_end_of_the_workflow() {
    let project = project(
        "box: busybox:local\nbuild:\n  - script: {code: 'echo first'}\ndeploy:\n  - script: {code: 'sleep 3; echo second'}\n\
         workflows:\n- {name: all, pipelines: [build, {name: deploy, requires: [build]}]}\n",
    );
    let mut child = project.command(&["workflow", "all"]).spawn().unwrap();
    let (out, mut err) = (read(child.stdout.take().unwrap()), BufReader::new(child.stderr.take().unwrap()));
    // The last word on the first run; its box is removed then.
    sees(&mut err, " succeeded in ");
    signal(&child, "-INT");
    let err = read(err);
    let said = Said { code: wait(&mut child), out: out.join().unwrap(), err: err.join().unwrap() };
    assert!(matches!(said.code, Some(3 | 130)) && !said.out.contains("second"), "{}", said.all());
    // Other tests have boxes of this name at the same time; the directories are this one's own.
    assert_eq!(project.left("none"), Vec::<String>::new());
}

#[test]
fn a_port_that_a_killed_run_holds_is_had_by_the_next() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let project = project(&format!(
        "box:\n  id: busybox:local\n  ports: '{port}:8080'\nbuild:\n  - script: {{code: 'echo begun; sleep $LONG'}}\n"
    ));
    let arguments = ["build", "--expose-ports"];
    let mut child = project.command(&arguments).env("X_LONG", "300").spawn().unwrap();
    let (mut out, err) = (BufReader::new(child.stdout.take().unwrap()), read(child.stderr.take().unwrap()));
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(line, "begun\n", "{}", err.join().unwrap());
    let said = with(&project, &arguments, &[("X_LONG", "0")]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    // Somebody else keeps his.
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let said = with(&project, &arguments, &[("X_LONG", "0")]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.err.contains(&format!("port {port} of this machine, for port 8080 of the run")), "{}", said.all());
    let temporary = std::fs::read_dir(project.dir.path().join("tmp")).unwrap().count();
    assert_eq!(temporary, 0, "a directory without runs stays behind");
}
