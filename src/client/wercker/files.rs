//! The variables of a run of a `wercker.yml`: the caller's, those of the project's file, those of a workflow's pipeline.
//!
//! **Invariant:** what the project names is read inside of the project only; where the person who started the run says,
//! anywhere. All that was read, and the project's own file, is known, as it is kept out of the source.

use crate::{
    client::{
        exit::Exit,
        fault::{Fault, Stop, reason},
        manifest,
    },
    wercker::{
        document::Text,
        environment::{self, Environment},
    },
};
use std::path::{Path, PathBuf};

/// See the module.
pub(super) struct Files<'a> {
    project: &'a Path,
    /// What the file of the whole project says.
    lines: Vec<(String, String)>,
    /// Files of variables that were found, by their true paths.
    pub(super) read: Vec<PathBuf>,
    /// What is odd about them, for people.
    pub(super) odd: Vec<String>,
}

/// Most odd lines that are told.
const MOST_ODD: usize = 10;

impl<'a> Files<'a> {
    /// Reads the file that was given, else the project's own.
    ///
    /// # Errors
    /// `UnreadableFile`.
    pub(super) fn read(project: &'a Path, given: Option<&Path>) -> Result<Self, Stop> {
        let mut files = Self { project, lines: Vec::new(), read: Vec::new(), odd: Vec::new() };
        let own = project.join(environment::FILE);
        // Secrets may be in it, whether it is read or not.
        files.read.extend(own.canonicalize());
        files.lines = match given {
            Some(given) => files.lines_of(given)?,
            None if own.is_file() => {
                let own = files
                    .inside(&own, environment::FILE)
                    .map_err(|fault| fault.hint(format!("if that is meant: --environment {}", environment::FILE)))?;
                files.lines_of(&own)?
            }
            None => Vec::new(),
        };
        Ok(files)
    }

    /// The variables of a run, whose pipeline may have a file of its own.
    ///
    /// # Errors
    /// `UnreadableFile`.
    pub(super) fn environment(&mut self, own: Option<&Text>) -> Result<Environment, Stop> {
        let mut lines = self.lines.clone();
        if let Some(own) = own {
            let path = self.inside(&self.project.join(&own.value), &format!("envFile: {}", own.value))?;
            lines.extend(self.lines_of(&path)?);
        }
        let machine =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Ok(Environment::new(machine, lines))
    }

    fn lines_of(&mut self, path: &Path) -> Result<Vec<(String, String)>, Stop> {
        let text = manifest::read(path)?;
        // What stdin had is in no directory.
        self.read.extend(path.canonicalize());
        let odd = environment::idle_lines(&text).into_iter().take(MOST_ODD);
        self.odd.extend(odd.map(|(at, why)| format!("warning: {}:{at} sets nothing: {why}", path.display())));
        Ok(environment::lines(&text))
    }

    /// The true path of a file, which a link may lead out of the project.
    fn inside(&self, path: &Path, what: &str) -> Result<PathBuf, Fault> {
        let fault = |why: String| Fault::new(reason::UNREADABLE_FILE, Exit::Usage, format!("{what}: {why}"));
        let whole = path.canonicalize().map_err(|error| fault(error.to_string()).note("nothing was started"))?;
        // A pipe would be waited for.
        if !whole.is_file() {
            return Err(fault("is not a file".into()).note("nothing was started"));
        }
        if whole.starts_with(self.project) {
            return Ok(whole);
        }
        let why = format!("is {}, which is outside of the project", whole.display());
        Err(fault(why).note("nothing was started"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Span;
    use std::{fs, os::unix::fs::symlink};

    fn text(value: &str) -> Text {
        Text { value: value.into(), at: Span::default() }
    }

    fn said(stop: &Stop) -> &str {
        stop.message()
    }

    #[test]
    fn all_that_is_read_is_known() {
        let (project, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (project, elsewhere) = (project.path().canonicalize().unwrap(), elsewhere.path().canonicalize().unwrap());
        assert!(Files::read(&project, None).ok().unwrap().read.is_empty());
        for (path, line) in [
            (project.join("ENVIRONMENT"), "A=own"),
            (project.join("b.env"), "B=b"),
            (elsewhere.join("given"), "A=given"),
        ] {
            fs::write(path, line).unwrap();
        }
        let mut files = Files::read(&project, None).ok().unwrap();
        assert_eq!(files.environment(None).ok().unwrap().get("A"), Some("own"));
        assert_eq!(files.environment(Some(&text("b.env"))).ok().unwrap().get("B"), Some("b"));
        assert_eq!(files.read, ["ENVIRONMENT", "ENVIRONMENT", "b.env"].map(|name| project.join(name)));
        let mut files = Files::read(&project, Some(&elsewhere.join("given"))).ok().unwrap();
        assert_eq!(files.environment(None).ok().unwrap().get("A"), Some("given"));
        assert_eq!(files.read, [project.join("ENVIRONMENT"), elsewhere.join("given")]);
    }

    #[test]
    fn a_project_has_nothing_read_from_elsewhere() {
        let (project, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let project = project.path().canonicalize().unwrap();
        fs::write(elsewhere.path().join("credentials"), "KEY=of-somebody").unwrap();
        symlink(elsewhere.path().join("credentials"), project.join("b.env")).unwrap();
        let mut files = Files::read(&project, None).ok().unwrap();
        let up = format!("../{}/credentials", elsewhere.path().file_name().unwrap().to_str().unwrap());
        for path in ["b.env", &up] {
            let stop = files.environment(Some(&text(path))).err().unwrap();
            assert!(said(&stop).contains("outside of the project"), "{path}: {}", said(&stop));
        }
        nix::unistd::mkfifo(&project.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in ["pipe", "."] {
            let stop = files.environment(Some(&text(path))).err().unwrap();
            assert_eq!(said(&stop), format!("envFile: {path}: is not a file"));
        }
        fs::rename(project.join("b.env"), project.join("ENVIRONMENT")).unwrap();
        let stop = Files::read(&project, None).err().unwrap();
        assert!(said(&stop).contains("ENVIRONMENT: is ") && said(&stop).contains("outside"), "{}", said(&stop));
        let given = Files::read(&project, Some(&project.join("ENVIRONMENT"))).ok().unwrap();
        assert!(given.read.contains(&elsewhere.path().join("credentials").canonicalize().unwrap()));
    }
}
