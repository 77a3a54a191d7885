//! Puts the source into the box's own file system, where a commit will find it. Called by the
//! supervisor before the first step.
//!
//! **Invariant:** nothing outside the chosen directories is written; modes, times and links are
//! kept, owners are not (the files belong to the box's user).

use super::Error;
use crate::wire;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Name of the directory of the source below the pipeline's.
const SOURCE: &str = "source";
/// The pipeline's directory where there is no better one.
const LAST_PIPELINE: &str = "/tmp/pipeline";
/// Directories beside it, for steps to use.
const BESIDE: [&str; 3] = ["output", "cache", "report"];

/// Where things are in the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// The source.
    pub(super) source: PathBuf,
    /// Holds `output`, `cache` and `report`.
    pub(super) pipeline: PathBuf,
    /// What is kept from run to run, if anything is.
    pub(super) cache: Option<PathBuf>,
}

/// What is known about the box.
pub(super) struct BoxFacts<'a> {
    /// `/pipeline`, but for tests.
    pub(super) pipeline: &'a Path,
    /// `box.workingDir`.
    pub(super) working_dir: Option<&'a str>,
    /// The source is mounted there already.
    pub(super) mounted: bool,
    /// The image's WORKDIR.
    pub(super) workdir: Option<PathBuf>,
    /// The user's home.
    pub(super) home: Option<PathBuf>,
}

/// A place that may be taken: what to write to, and what to call it when it is refused.
struct Candidate {
    dir: PathBuf,
    named: PathBuf,
}

/// Chooses and makes the places.
///
/// # Errors
/// Which places were tried, for people.
pub(super) fn choose(known: &BoxFacts<'_>) -> Result<Places, String> {
    let candidates = candidates(known);
    let taken = match candidates.first().filter(|_| known.mounted) {
        // Who may only read it can do that.
        Some(mounted) => Some(mounted),
        None => candidates.iter().find(|candidate| can_write(&candidate.dir)),
    };
    let Some(taken) = taken else {
        let tried: Vec<String> = candidates.iter().map(|c| c.named.display().to_string()).collect();
        let user = nix::unistd::geteuid();
        return Err(format!("user {user} cannot write {}; set box.workingDir", tried.join(", ")));
    };
    let source = taken.dir.clone();
    let beside = source.parent().filter(|_| source.file_name() == Some(OsStr::new(SOURCE)));
    // What is mounted is somebody's project: nothing of ours goes there.
    let last = if known.mounted { Path::new(LAST_PIPELINE) } else { &source };
    let pipelines = [Some(known.pipeline), beside, Some(last)];
    let pipeline = pipelines.into_iter().flatten().find(|dir| BESIDE.iter().all(|name| can_write(&dir.join(name))));
    let pipeline = pipeline.unwrap_or(last).to_owned();
    let cache = Some(PathBuf::from(wire::CACHE_DIR)).filter(|cache| cache.is_dir());
    Ok(Places { source, pipeline, cache })
}

/// Where the source may go, best first.
fn candidates(known: &BoxFacts<'_>) -> Vec<Candidate> {
    if let Some(dir) = known.working_dir {
        return vec![Candidate { dir: dir.into(), named: dir.into() }];
    }
    let below = |dir: &Path| Candidate { dir: dir.join(SOURCE), named: dir.into() };
    let mut list = vec![below(known.pipeline)];
    let workdir = known.workdir.iter().filter(|dir| dir.as_path() != Path::new("/"));
    list.extend(workdir.map(|dir| Candidate { dir: dir.clone(), named: dir.clone() }));
    let home = known.home.iter().filter(|dir| dir.is_absolute() && dir.as_path() != Path::new("/"));
    list.extend(home.map(|dir| Candidate { dir: dir.join("pipeline").join(SOURCE), named: dir.clone() }));
    list.push(below(Path::new(LAST_PIPELINE)));
    list
}

/// Makes the directory if it is missing; says whether files can be made in it.
fn can_write(dir: &Path) -> bool {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
    made.is_ok() && nix::unistd::eaccess(dir, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK).is_ok()
}

/// Copies the tree `from`, if there is one, into the directory `to`. `leave` is asked now and then
/// whether to give up; then the answer is `false`.
pub(super) fn copy(from: &Path, to: &Path, leave: &mut dyn FnMut() -> bool) -> Result<bool, Error> {
    match fs::symlink_metadata(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::new(format!("read {}", from.display()), error)),
        Ok(meta) => {
            let done = copy_children(from, to, leave)?;
            // The directory itself may belong to somebody else; then its time stays.
            let _ = keep_times(to, &meta);
            Ok(done)
        }
    }
}

fn copy_children(from: &Path, to: &Path, leave: &mut dyn FnMut() -> bool) -> Result<bool, Error> {
    let unread = |error| Error::new(format!("read {}", from.display()), error);
    for entry in fs::read_dir(from).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        if leave() {
            return Ok(false);
        }
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let unwritten = |error| Error::new(format!("copy the source to {}", target.display()), error);
        let meta = fs::symlink_metadata(&source).map_err(unwritten)?;
        if meta.is_dir() {
            make_dir(&target).map_err(unwritten)?;
            if !copy_children(&source, &target, leave)? {
                return Ok(false);
            }
            // Only now: the mode may forbid writing, and writing changes the time.
            fs::set_permissions(&target, meta.permissions()).map_err(unwritten)?;
        } else if meta.is_symlink() {
            make_room(&target).map_err(unwritten)?;
            fs::read_link(&source).and_then(|to| std::os::unix::fs::symlink(to, &target)).map_err(unwritten)?;
        } else if meta.is_file() {
            make_room(&target).map_err(unwritten)?;
            fs::copy(&source, &target).map_err(unwritten)?;
        } else {
            continue;
        }
        keep_times(&target, &meta).map_err(unwritten)?;
    }
    Ok(true)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        other => other,
    }
}

/// Takes away a file or link of the image that has the name of one of the source's.
fn make_room(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn keep_times(path: &Path, meta: &fs::Metadata) -> io::Result<()> {
    let accessed = TimeSpec::new(meta.atime(), meta.atime_nsec());
    let modified = TimeSpec::new(meta.mtime(), meta.mtime_nsec());
    Ok(utimensat(AT_FDCWD, path, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn copies_modes_times_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("sub/locked")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("sub/run.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(from.join("sub/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(from.join("sub/locked/ro"), "x").unwrap();
        fs::set_permissions(from.join("sub/locked/ro"), fs::Permissions::from_mode(0o444)).unwrap();
        fs::set_permissions(from.join("sub/locked"), fs::Permissions::from_mode(0o555)).unwrap();
        std::os::unix::fs::symlink("sub/run.sh", from.join("link")).unwrap();
        std::os::unix::fs::symlink("/nowhere", from.join("dangling")).unwrap();
        fs::write(to.join("link"), "of the image").unwrap();
        let old = TimeSpec::new(1_000_000_000, 0);
        for path in ["sub/run.sh", "sub"] {
            utimensat(AT_FDCWD, &from.join(path), &old, &old, UtimensatFlags::NoFollowSymlink).unwrap();
        }
        assert!(copy(&from, &to, &mut || false).unwrap());
        let mode = |path: &str| fs::symlink_metadata(to.join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("sub/run.sh"), mode("sub/locked/ro"), mode("sub/locked")), (0o755, 0o444, 0o555));
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("sub/run.sh"));
        assert_eq!(fs::read_link(to.join("dangling")).unwrap(), Path::new("/nowhere"));
        for path in ["sub/run.sh", "sub"] {
            assert_eq!(fs::metadata(to.join(path)).unwrap().mtime(), 1_000_000_000, "{path}");
        }
        assert!(!copy(&from, &to, &mut || true).unwrap(), "gives up when asked to");
    }

    #[test]
    fn no_source_is_an_empty_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert!(copy(&dir.path().join("none"), dir.path(), &mut || false).unwrap());
    }

    #[test]
    fn names_what_was_tried() {
        // Nobody can make directories below a file.
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let wanted = file.join("app").display().to_string();
        let known = BoxFacts { pipeline: &file, working_dir: Some(&wanted), mounted: false, workdir: None, home: None };
        let user = nix::unistd::geteuid();
        assert_eq!(choose(&known), Err(format!("user {user} cannot write {wanted}; set box.workingDir")));
    }

    #[test]
    fn takes_the_first_that_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let (good, home) = (dir.path().join("pipeline"), dir.path().join("home"));
        fs::create_dir(&home).unwrap();
        let mut known =
            BoxFacts { pipeline: &good, working_dir: None, mounted: false, workdir: Some(home.clone()), home: None };
        let places = choose(&known).unwrap();
        assert_eq!(places, Places { source: good.join("source"), pipeline: good.clone(), cache: None });
        assert!(good.join("report").is_dir());
        known.pipeline = &file;
        assert_eq!(choose(&known).unwrap(), Places { source: home.clone(), pipeline: home.clone(), cache: None });
        (known.workdir, known.home) = (Some("/".into()), Some(home.clone()));
        let pipeline = home.join("pipeline");
        assert_eq!(choose(&known).unwrap(), Places { source: pipeline.join("source"), pipeline, cache: None });
    }

    #[test]
    fn nothing_of_ours_goes_into_a_mounted_project() {
        let dir = tempfile::tempdir().unwrap();
        let (project, pipeline) = (dir.path().join("app"), dir.path().join("pipeline"));
        fs::create_dir(&project).unwrap();
        let wanted = project.display().to_string();
        let mut known =
            BoxFacts { pipeline: &pipeline, working_dir: Some(&wanted), mounted: true, workdir: None, home: None };
        assert_eq!(
            choose(&known).unwrap(),
            Places { source: project.clone(), pipeline: pipeline.clone(), cache: None }
        );
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        known.pipeline = &file;
        assert_eq!(
            choose(&known).unwrap(),
            Places { source: project.clone(), pipeline: LAST_PIPELINE.into(), cache: None }
        );
        assert_eq!(fs::read_dir(&project).unwrap().count(), 0);
    }
}
