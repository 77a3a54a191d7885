//! `init`: a first pipeline for a project.
//!
//! What kind of project it is, its files say; what each kind needs is one row of [`PROJECTS`].
//!
//! **Invariant:** what it writes passes `check`, which a test asks for each kind. No file is written over.

use super::{
    Session,
    args::InitArgs,
    convert::{NAMES, write_new},
    exit::Exit,
    fault::{Fault, Stop, reason},
};
use std::path::{Path, PathBuf};

/// The file that is written.
const FILE: &str = "windlass.yaml";
/// The Pipeline in it: the one that `build` runs.
const PIPELINE: &str = "build";

/// A kind of project: a file that only such projects have, what people call it, the image of its box, and the code of
/// the steps of [`STEPS`]; empty where it needs none.
type Project = (&'static str, &'static str, &'static str, [&'static str; 3]);

/// The steps of a first pipeline, in their order.
const STEPS: [&str; 3] = ["install", "build", "test"];

/// In order of trust: the first whose file is there.
const PROJECTS: &[Project] = &[
    ("Cargo.toml", "Rust", "rust:1", ["", "cargo build --release", "cargo test --release"]),
    ("go.mod", "Go", "golang:1", ["", "go build ./...", "go test ./..."]),
    ("pnpm-lock.yaml", "Node.js with pnpm", "node:22", ["npx pnpm install --frozen-lockfile", "", "npx pnpm test"]),
    ("yarn.lock", "Node.js with yarn", "node:22", ["yarn install --frozen-lockfile", "", "yarn test"]),
    ("package-lock.json", "Node.js", "node:22", ["npm ci", "", "npm test"]),
    ("package.json", "Node.js", "node:22", ["npm install", "", "npm test"]),
    ("pyproject.toml", "Python", "python:3", ["pip install .", "", "python -m unittest"]),
    ("requirements.txt", "Python", "python:3", ["pip install -r requirements.txt", "", "python -m unittest"]),
    ("Gemfile", "Ruby", "ruby:3", ["bundle install", "", "bundle exec rake test"]),
    ("pom.xml", "Java with Maven", "maven:3", ["", "mvn --batch-mode package", ""]),
    ("build.gradle", "Java with Gradle", "gradle:8", ["", "gradle build", ""]),
    ("composer.json", "PHP", "composer:2", ["composer install --no-interaction", "", "composer test"]),
    ("Makefile", "make", "debian:12", ["apt-get update\napt-get install -y build-essential", "make", "make test"]),
];

/// For a directory of which nothing is known.
const ANY: Project = ("", "", "debian:12", ["", "echo \"hello from $WERCKER_RUN_NAME\"\nls -la", ""]);

/// `init`.
///
/// # Errors
/// `AlreadyExists`, or when the file cannot be written.
pub(super) fn init(session: &mut Session, args: &InitArgs) -> Result<Exit, Stop> {
    let directory = args.directory.clone().unwrap_or_else(|| PathBuf::from("."));
    if !directory.is_dir() {
        let message = format!("{} is not a directory", directory.display());
        return Err(Fault::new(reason::UNREADABLE_FILE, Exit::Usage, message).into());
    }
    if let Some(name) = NAMES.iter().find(|name| directory.join(name).exists()) {
        let fault = Fault::new(
            reason::ALREADY_EXISTS,
            Exit::Usage,
            format!("{} is a pipeline already", directory.join(name).display()),
        );
        return Err(fault
            .note("nothing was written")
            .hint(format!("{} convert {name} -o {FILE}", session.name))
            .into());
    }
    let project = PROJECTS.iter().find(|(sign, ..)| directory.join(sign).exists()).unwrap_or(&ANY);
    let name = name_of(&directory);
    let file = directory.join(FILE);
    write_new(&file, &text(project, &name, directory.join("Dockerfile").exists()))?;
    let (sign, kind, ..) = project;
    let found = if sign.is_empty() { String::new() } else { format!(" ({kind}: {sign})") };
    session.screen.message(&format!("{}: Pipeline {PIPELINE}{found}", file.display()))?;
    let program = session.name;
    session.screen.message(&format!("hint: on Docker: {program} build; in a cluster: {program} run -f {FILE}"))?;
    Ok(Exit::Success)
}

/// A name for the project: that of the directory, if it can be one.
fn name_of(directory: &Path) -> String {
    let full = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let name = full.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String =
        name.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).take(52).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "app".to_owned() } else { name.to_owned() }
}

fn text((_, _, image, codes): &Project, name: &str, dockerfile: bool) -> String {
    let mut out = format!(
        "# A first pipeline; every field: docs/reference/pipeline.md, or kubectl explain pipeline.spec\n\
         apiVersion: windlass.dev/v1alpha1\nkind: Pipeline\nmetadata:\n  name: {PIPELINE}\nspec:\n\
         \x20 # The container that all steps share.\n  box:\n    image: {image}\n\
         \x20 # Where the source comes from. Without it the steps begin in an empty directory.\n\
         \x20 # source:\n  #   git: {{url: \"https://git.example.com/team/{name}.git\", revision: main}}\n  steps:\n"
    );
    for (step, code) in STEPS.iter().zip(codes).filter(|(_, code)| !code.is_empty()) {
        out.push_str(&format!("  - name: {step}\n    script: |\n"));
        code.lines().for_each(|line| out.push_str(&format!("      {line}\n")));
    }
    if dockerfile {
        out.push_str(
            "  # The Dockerfile is not read: the box itself becomes the image. Do in steps what it does in RUN lines.\n",
        );
    }
    out.push_str(&format!(
        "  # The box with all that the steps did, as an image:\n  # - name: push\n  #   dockerPush:\n\
         \x20 #     repository: registry.example.com/team/{name}\n  #     tags: [latest]\n\
         \x20 #     # kubectl create secret docker-registry registry-login --docker-server=… --docker-username=… --docker-password=…\n\
         \x20 #     credentials: {{secretName: registry-login}}\n"
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::check::faults_of;

    #[test]
    fn every_first_pipeline_passes_the_check() {
        for project in PROJECTS.iter().chain([&ANY]) {
            for name in ["app", "007", "true"] {
                let text = text(project, name, true);
                assert_eq!(faults_of(&text), "", "{text}");
                // What is commented out is right as well.
                let all = text.replace("  # source:\n  #   git:", "  source:\n    git:");
                let all: String = all
                    .lines()
                    .map(|line| match line.strip_prefix("  # ") {
                        Some(rest) if rest.starts_with(['-', ' ']) && !rest.contains("kubectl") => {
                            format!("  {rest}\n")
                        }
                        _ => format!("{line}\n"),
                    })
                    .collect();
                assert!(all.contains("\n  - name: push\n    dockerPush:\n"), "{all}");
                assert_eq!(faults_of(&all), "", "{all}");
            }
        }
    }

    #[test]
    fn the_name_is_that_of_the_directory() {
        let place = tempfile::tempdir().unwrap();
        for (directory, name) in [("My_App", "my-app"), ("--", "app"), ("x.y", "x-y")] {
            let path = place.path().join(directory);
            std::fs::create_dir(&path).unwrap();
            assert_eq!(name_of(&path), name);
        }
    }
}
