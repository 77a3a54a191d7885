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

/// A kind of project.
struct Project {
    /// A file that only such projects have.
    sign: &'static str,
    /// What people call it.
    name: &'static str,
    image: &'static str,
    /// Name and code of each step.
    steps: &'static [(&'static str, &'static str)],
}

/// In order of trust: the first whose file is there.
const PROJECTS: [Project; 13] = [
    Project {
        sign: "Cargo.toml",
        name: "Rust",
        image: "rust:1",
        steps: &[("build", "cargo build --release"), ("test", "cargo test --release")],
    },
    Project {
        sign: "go.mod",
        name: "Go",
        image: "golang:1",
        steps: &[("build", "go build ./..."), ("test", "go test ./...")],
    },
    Project {
        sign: "pnpm-lock.yaml",
        name: "Node.js with pnpm",
        image: "node:22",
        steps: &[("install", "npx pnpm install --frozen-lockfile"), ("test", "npx pnpm test")],
    },
    Project {
        sign: "yarn.lock",
        name: "Node.js with yarn",
        image: "node:22",
        steps: &[("install", "yarn install --frozen-lockfile"), ("test", "yarn test")],
    },
    Project {
        sign: "package-lock.json",
        name: "Node.js",
        image: "node:22",
        steps: &[("install", "npm ci"), ("test", "npm test")],
    },
    Project {
        sign: "package.json",
        name: "Node.js",
        image: "node:22",
        steps: &[("install", "npm install"), ("test", "npm test")],
    },
    Project {
        sign: "pyproject.toml",
        name: "Python",
        image: "python:3",
        steps: &[("install", "pip install ."), ("test", "python -m unittest")],
    },
    Project {
        sign: "requirements.txt",
        name: "Python",
        image: "python:3",
        steps: &[("install", "pip install -r requirements.txt"), ("test", "python -m unittest")],
    },
    Project {
        sign: "Gemfile",
        name: "Ruby",
        image: "ruby:3",
        steps: &[("install", "bundle install"), ("test", "bundle exec rake test")],
    },
    Project {
        sign: "pom.xml",
        name: "Java with Maven",
        image: "maven:3",
        steps: &[("build", "mvn --batch-mode package")],
    },
    Project { sign: "build.gradle", name: "Java with Gradle", image: "gradle:8", steps: &[("build", "gradle build")] },
    Project {
        sign: "composer.json",
        name: "PHP",
        image: "composer:2",
        steps: &[("install", "composer install --no-interaction"), ("test", "composer test")],
    },
    Project {
        sign: "Makefile",
        name: "make",
        image: "debian:12",
        steps: &[
            ("tools", "apt-get update\napt-get install -y --no-install-recommends build-essential"),
            ("build", "make"),
            ("test", "make test"),
        ],
    },
];

/// For a directory of which nothing is known.
const ANY: Project = Project {
    sign: "",
    name: "",
    image: "debian:12",
    steps: &[("hello", "echo \"hello from $WERCKER_RUN_NAME\"\nls -la")],
};

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
    let project = PROJECTS.iter().find(|project| directory.join(project.sign).exists()).unwrap_or(&ANY);
    let name = name_of(&directory);
    let file = directory.join(FILE);
    write_new(&file, &text(project, &name, directory.join("Dockerfile").exists()))?;
    let found = if project.sign.is_empty() { String::new() } else { format!(" ({}: {})", project.name, project.sign) };
    session.screen.message(&format!("{}: Pipeline {name}{found}", file.display()))?;
    let program = session.name;
    session
        .screen
        .message(&format!("hint: {program} check; then give it a source and run it: {program} run -f {FILE}"))?;
    Ok(Exit::Success)
}

/// A name for the Pipeline: that of the directory, if it can be one.
fn name_of(directory: &Path) -> String {
    let full = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let name = full.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String =
        name.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).take(52).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "app".to_owned() } else { name.to_owned() }
}

fn text(project: &Project, name: &str, dockerfile: bool) -> String {
    let mut out = format!(
        "# A first pipeline; every field: docs/reference/pipeline.md, or kubectl explain pipeline.spec\n\
         apiVersion: windlass.dev/v1alpha1\nkind: Pipeline\nmetadata:\n  name: \"{name}\"\nspec:\n\
         \x20 # The container that all steps share.\n  box:\n    image: {}\n\
         \x20 # Where the source comes from. Without it the steps begin in an empty directory.\n\
         \x20 # source:\n  #   git: {{url: \"https://git.example.com/team/{name}.git\", revision: main}}\n  steps:\n",
        project.image
    );
    for (step, code) in project.steps {
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
