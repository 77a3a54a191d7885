//! What the pipelines of a workflow leave for each other: one directory each.
//!
//! **Invariant:** all of it goes with the workflow, however it ends, and else with the next run of this machine.

use crate::{
    client::{
        exit::Exit,
        fault::{Fault, Stop, reason},
        here::no_temporary,
    },
    local::{Kept, Scratch},
    wercker::document::{Workflow, WorkflowNode},
};
use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// See the module.
pub(super) struct Outputs(Scratch);

impl Outputs {
    /// Makes room.
    pub(super) fn make() -> Result<Self, Stop> {
        Scratch::make().map(Self).map_err(|error| no_temporary(error.to_string()).into())
    }

    /// Where the output of a pipeline goes.
    pub(super) fn of(&self, workflow: &Workflow, name: &str) -> Result<Kept, Stop> {
        Ok(Kept::new(self.0.path(), format!("output-{}", number(workflow, name)?)))
    }

    /// What a pipeline begins with: the output of the one before it, or of the one that it names. Those of several come
    /// into directories of their names. None: the project.
    pub(super) fn source(&self, workflow: &Workflow, node: &WorkflowNode) -> Result<Option<PathBuf>, Stop> {
        let before: Vec<&str> = match &node.artifact {
            Some(artifact) => vec![artifact.value.as_str()],
            None => node.requires.iter().map(|required| required.value.as_str()).collect(),
        };
        match before.as_slice() {
            [] => Ok(None),
            [only] => {
                let path = self.of(workflow, only)?.path();
                // It ran, and had nothing to keep.
                fs::create_dir_all(&path).map_err(|error| failed(&error))?;
                Ok(Some(path))
            }
            several => {
                let all = self.0.path().join(format!("source-{}", number(workflow, &node.name.value)?));
                fs::create_dir(&all).map_err(|error| failed(&error))?;
                for name in several {
                    let from = self.of(workflow, name)?.path();
                    if from.is_dir() {
                        again(&from, &all.join(directory(name))).map_err(|error| failed(&error))?;
                    }
                }
                Ok(Some(all))
            }
        }
    }
}

/// The directory that a name has among others: its own, and never a way out of there. What cannot be in the name of a
/// directory is written as in an address, `a/b` as `a%2Fb`.
fn directory(name: &str) -> String {
    let only_dots = name.chars().all(|c| c == '.');
    let mut directory = String::new();
    for c in name.chars() {
        match c {
            '/' | '%' | '\0' => directory += &format!("%{:02X}", u32::from(c)),
            '.' if only_dots => directory += "%2E",
            _ => directory.push(c),
        }
    }
    // No name ends so: what is empty has a directory as well.
    if directory.is_empty() { "%".into() } else { directory }
}

/// The place of a pipeline in its workflow.
fn number(workflow: &Workflow, name: &str) -> Result<usize, Stop> {
    let found = workflow.nodes.iter().position(|node| node.name.value == name);
    found.ok_or_else(|| failed(&io::Error::other(format!("{name} is not in workflow {}", workflow.name.value))))
}

/// The same tree at another place: its files are the same ones.
fn again(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            again(&entry.path(), &to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, to)?;
        } else {
            fs::hard_link(entry.path(), to)?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

fn failed(error: &io::Error) -> Stop {
    Fault::new(reason::OUTPUT_FAILED, Exit::World, format!("the output of pipelines cannot be kept: {error}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wercker::read;
    use std::{collections::BTreeSet, path::Component};

    #[test]
    fn each_name_has_a_directory_of_its_own() {
        let names = ["a/b", "a_b", "a%2Fb", "a%b", "a%", "a", "%", "", ".", "..", "...", "%2E", "/", "//", "_", "\0"];
        let directories: BTreeSet<String> = names.map(directory).into();
        assert_eq!(directories.len(), names.len(), "{directories:?}");
        for directory in &directories {
            let parts: Vec<Component<'_>> = Path::new(directory).components().collect();
            assert!(matches!(parts.as_slice(), [Component::Normal(_)]), "{directory}");
        }
        // As scripts name it.
        assert_eq!(["npm-test", "a b", "v1.2"].map(directory), ["npm-test", "a b", "v1.2"]);
    }

    #[test]
    fn each_begins_with_what_was_left_before_it() {
        let text = "box: a\na: [npm-test]\nb: [npm-test]\nworkflows:\n- name: w\n  pipelines:\n  - name: a\n  - name: b\n    requires: [a]\n\
            \x20 - {name: c, pipelineName: b, requires: [a]}\n  - {name: d, pipelineName: b, requires: [b, c]}\n\
            \x20 - {name: e, pipelineName: b, requires: [b, c], artifactPipeline: a}\n";
        let document = read(text).unwrap();
        let workflow = &document.workflows[0];
        let kept = Outputs::make().ok().unwrap();
        let node = |name: &str| workflow.nodes.iter().find(|node| node.name.value == name).unwrap();
        let source = |name: &str| kept.source(workflow, node(name)).ok().unwrap();
        assert_eq!(source("a"), None);
        let output = |name: &str| kept.of(workflow, name).ok().unwrap().path();
        assert_eq!(source("b"), Some(output("a")));
        for name in ["b", "c"] {
            let output = output(name);
            fs::create_dir_all(output.join("dir")).unwrap();
            fs::write(output.join("dir/file"), name).unwrap();
            symlink("dir/file", output.join("link")).unwrap();
        }
        let both = source("d").unwrap();
        assert_eq!(fs::read(both.join("b/dir/file")).unwrap(), b"b");
        assert_eq!(fs::read(both.join("c/link")).unwrap(), b"c");
        assert_eq!(source("e"), Some(output("a")));
        let path = kept.0.path().to_owned();
        drop(kept);
        assert!(!path.exists());
    }
}
