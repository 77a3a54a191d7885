//! Copies a directory of this machine: the source of a local run. One that is mounted is only looked at.
//!
//! Called by `source::copy`, in a thread of its own.
//!
//! What git ignores is left out, as a fetch would not bring it either, and what the ignore file says; a pattern with `!`
//! brings back what git ignores. `.git` comes along, but for its configuration, hooks and logs: they may hold logins, and an
//! image is made of this.
//!
//! **Invariant:** reads only what is below the directory, follows no link, and writes nothing but the copy. A program of
//! the project's own git configuration is never run.

use super::{
    Fetched, address,
    command::{Git, OUTPUT_BYTES, Processes},
    not_written,
};
use crate::{
    api::condition::reason,
    prepare::{Directory, failure::failure, layout::Layout},
    wire::Failure,
};
use gix_ignore::{Search, glob::pattern::Case, search::Ignore};
use std::{
    collections::BTreeSet,
    fs::{self, File, FileTimes, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

/// Largest ignore file.
const IGNORE_BYTES: u64 = 1024 * 1024;
/// The configuration of a repository's copy.
const GIT_CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n";
/// What the copy lets every user of the box do, beside what the owner may: its user is not known.
const READABLE: u32 = 0o044;
const SEARCHABLE: u32 = 0o055;
const OWNER_EXECUTES: u32 = 0o100;

/// Copies the directory into `to`, which is empty.
///
/// # Errors
/// `SourceFailed` with the file that cannot be read.
pub(super) fn copy(from: &Directory, to: &Path, layout: &Layout, processes: &Processes) -> Result<Fetched, Failure> {
    let wrong = |message: String| failure(reason::SOURCE_FAILED, message);
    let git = git(from, layout, processes)?;
    let (ignored, fetched) = match (&git, &from.of) {
        (Some(git), Some(project)) => (BTreeSet::new(), facts(git, project)),
        (Some(git), None) => (ignored(git, &from.path)?, facts(git, &from.path)),
        (None, _) => Default::default(),
    };
    let own = from.path.join(&from.ignore_file);
    let mut patterns = Search::default();
    if !from.ignore.is_empty() {
        let text = from.ignore.join("\n");
        let _ = patterns.add_patterns_buffer(text.as_bytes(), PathBuf::from("/"), None, Ignore::default());
    }
    if !from.ignore_file.is_empty() && own.is_file() {
        let text = read(&own).map_err(|e| wrong(format!("cannot read {}: {e}", own.display())))?;
        // It only fails for a file without a directory.
        let _ = patterns.add_patterns_buffer(
            &text,
            PathBuf::from("/").join(&from.ignore_file),
            Some(Path::new("/")),
            Ignore::default(),
        );
    }
    let apart = from.apart.iter().filter_map(|path| fs::metadata(path).ok()).map(|meta| (meta.dev(), meta.ino()));
    let apart = apart.collect();
    let walk = Walk { from: &from.path, ignored, patterns, apart, processes };
    walk.directory(Path::new(""), to)?;
    let own = to.join(".git");
    // A link came along as one, and leads wherever the project, or a box before, wants it to.
    if fs::symlink_metadata(&own).is_ok_and(|meta| meta.is_dir()) {
        let config = OpenOptions::new().write(true).create_new(true).open(own.join("config"));
        config.and_then(|mut file| file.write_all(GIT_CONFIG.as_bytes())).map_err(not_written)?;
    }
    Ok(fetched)
}

/// Looks at a directory that the box has mounted.
///
/// # Errors
/// `SourceFailed` if it is none.
pub(super) fn mounted(from: &Directory, layout: &Layout, processes: &Processes) -> Result<Fetched, Failure> {
    // As the engine mounts it: by its true path, however it was written.
    let inside = |apart: &PathBuf| apart.canonicalize().is_ok_and(|apart| apart.starts_with(&from.path));
    if let Some(apart) = from.apart.iter().find(|apart| inside(apart)) {
        let what = format!("{} holds {}, which no box may see", from.path.display(), apart.display());
        let way = if apart.is_dir() { "set TMPDIR" } else { "move it elsewhere" };
        let message = format!("{what}; {way}, or work on a copy: --direct-mount=false");
        return Err(failure(reason::SOURCE_FAILED, message));
    }
    Ok(git(from, layout, processes)?.map(|git| facts(&git, &from.path)).unwrap_or_default())
}

/// How git is asked about the directory, if it is part of a repository.
fn git(from: &Directory, layout: &Layout, processes: &Processes) -> Result<Option<Git>, Failure> {
    let wrong = |message: String| failure(reason::SOURCE_FAILED, message);
    let meta = fs::metadata(&from.path).map_err(|e| wrong(format!("cannot read {}: {e}", from.path.display())))?;
    if !meta.is_dir() {
        return Err(wrong(format!("{} is no directory", from.path.display())));
    }
    let git = Git {
        home: layout.own(),
        // The project may belong to another user, and git only reads here.
        settings: vec![("safe.directory".into(), "*".into())],
        ssh: "false".into(),
        processes: processes.clone(),
    };
    let project = from.of.as_ref().unwrap_or(&from.path);
    Ok(project.ancestors().any(|directory| directory.join(".git").exists()).then_some(git))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > IGNORE_BYTES {
        return Err(io::Error::other(format!("it is larger than {} MiB", IGNORE_BYTES >> 20)));
    }
    fs::read(path)
}

/// What git ignores, relative to the directory. What cannot be told is an error: keys are ignored so that they stay here.
fn ignored(git: &Git, directory: &Path) -> Result<BTreeSet<PathBuf>, Failure> {
    let wrong = |why: String| failure(reason::SOURCE_FAILED, format!("cannot tell what git ignores: {why}"));
    let mut command = git.command(directory);
    command.args(["ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z"]);
    let output = git.run(&mut command).map_err(|error| wrong(format!("git: {error}")))?;
    if !output.success {
        return Err(wrong(output.stderr.trim().to_owned()));
    }
    if output.stdout.len() >= OUTPUT_BYTES {
        return Err(wrong("the list is too long; ignore directories instead of the files in them".into()));
    }
    let names = output.stdout.split('\0').filter(|name| !name.is_empty());
    Ok(names.map(|name| PathBuf::from(name.trim_end_matches('/'))).collect())
}

/// Whether a path is one of git's own files that may hold a login: in addresses, headers, or written by a hook.
fn may_hold_a_login(path: &Path) -> bool {
    let Ok(own) = path.strip_prefix(".git") else { return false };
    let first = own.components().next().map(|first| first.as_os_str().to_string_lossy().into_owned());
    match first.as_deref() {
        Some("config" | "config.worktree" | "hooks" | "logs" | "FETCH_HEAD" | "credentials") => true,
        Some("modules" | "worktrees") => own.file_name().is_some_and(|name| name == "config" || name == "FETCH_HEAD"),
        Some(_) | None => false,
    }
}

/// What is known of the commit that the directory is at.
fn facts(git: &Git, directory: &Path) -> Fetched {
    let say = |arguments: &[&str]| {
        let output = git.run(git.command(directory).args(arguments)).ok().filter(|output| output.success)?;
        Some(output.stdout.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let head = say(&["rev-parse", "HEAD", "--abbrev-ref", "HEAD"]).unwrap_or_default();
    let mut words = head.lines();
    let revision = words.next().map(str::to_owned);
    // Without a branch git says HEAD.
    let branch = words.next().filter(|branch| *branch != "HEAD").map(str::to_owned);
    let remote = say(&["config", "--get", "remote.origin.url"]).unwrap_or_default();
    let address = address::parse(&remote).ok();
    Fetched {
        revision,
        branch,
        tag: say(&["tag", "--points-at", "HEAD"]).and_then(|tags| tags.lines().last().map(str::to_owned)),
        domain: address.as_ref().map(|a| a.host.to_owned()).filter(|host| !host.is_empty()),
        owner: address.as_ref().and_then(address::Address::owner),
        repository: address.as_ref().and_then(address::Address::repository),
    }
}

/// One copy.
struct Walk<'a> {
    from: &'a Path,
    ignored: BTreeSet<PathBuf>,
    patterns: Search,
    /// Devices and numbers of directories that never come along.
    apart: Vec<(u64, u64)>,
    processes: &'a Processes,
}

impl Walk<'_> {
    /// Copies what is in the directory `at`, relative to where the walk began.
    fn directory(&self, at: &Path, to: &Path) -> Result<(), Failure> {
        let here = self.from.join(at);
        let unread = |path: &Path, error: &io::Error| {
            failure(reason::SOURCE_FAILED, format!("cannot read {}: {error}", path.display()))
        };
        for entry in fs::read_dir(&here).map_err(|e| unread(&here, &e))? {
            if self.processes.killed() {
                return Err(failure(reason::CANCELLED, "stopped"));
            }
            let entry = entry.map_err(|e| unread(&here, &e))?;
            let (path, relative, target) = (entry.path(), at.join(entry.file_name()), to.join(entry.file_name()));
            // One that has just gone, as the temporary files of editors do, is no loss.
            let meta = match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                meta => meta.map_err(|e| unread(&path, &e))?,
            };
            if self.apart.contains(&(meta.dev(), meta.ino())) || self.leaves_out(&relative, meta.is_dir()) {
                continue;
            }
            let mode = meta.permissions().mode();
            if meta.is_dir() {
                fs::create_dir(&target).map_err(not_written)?;
                self.directory(&relative, &target)?;
                fs::set_permissions(&target, Permissions::from_mode(mode | SEARCHABLE)).map_err(not_written)?;
                keep_times(&target, &meta);
            } else if meta.is_symlink() {
                let link = fs::read_link(&path).map_err(|e| unread(&path, &e))?;
                std::os::unix::fs::symlink(link, &target).map_err(not_written)?;
            } else if meta.is_file() {
                fs::copy(&path, &target).map_err(|e| unread(&path, &e))?;
                let more = if mode & OWNER_EXECUTES == 0 { READABLE } else { SEARCHABLE };
                fs::set_permissions(&target, Permissions::from_mode(mode | more)).map_err(not_written)?;
                keep_times(&target, &meta);
            }
        }
        Ok(())
    }

    fn leaves_out(&self, path: &Path, is_dir: bool) -> bool {
        if may_hold_a_login(path) {
            return true;
        }
        let bytes = path.as_os_str().as_bytes();
        match self.patterns.pattern_matching_relative_path(bytes.into(), Some(is_dir), Case::Sensitive) {
            Some(found) => !found.pattern.is_negative(),
            None => self.ignored.contains(path),
        }
    }
}

/// Build tools go by the time of a file. One that cannot be kept costs a rebuild and nothing else.
fn keep_times(path: &Path, meta: &fs::Metadata) {
    let times = FileTimes::new();
    let times = meta.modified().map_or(times, |time| times.set_modified(time));
    let _ = File::open(path).and_then(|file| file.set_times(times));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn project() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("a.c", "int main"),
            ("build/a.o", "object"),
            ("sub/run.sh", "#!/bin/sh"),
            ("secret.key", "k"),
            (".gitignore", "build/\n*.log\n"),
            ("x.log", "log"),
            (".windlassignore", "secret.key\n!x.log\n"),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(if name.ends_with(".sh") { 0o700 } else { 0o600 }))
                .unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        dir
    }

    fn copied(project: &Path) -> (tempfile::TempDir, Fetched) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("tmp")).unwrap();
        fs::create_dir_all(root.path().join("to")).unwrap();
        let from =
            Directory { path: project.to_owned(), ignore_file: ".windlassignore".into(), ..Directory::default() };
        let layout = Layout::new(Some(root.path().to_owned()));
        let fetched = copy(&from, &root.path().join("to"), &layout, &Processes::default()).unwrap();
        (root, fetched)
    }

    fn git(project: &Path, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=x", "-c", "user.email=x@y"]).args(arguments).current_dir(project);
        assert!(command.output().unwrap().status.success(), "{arguments:?}");
    }

    #[test]
    fn without_git_only_the_ignore_file_counts() {
        let project = project();
        let (root, fetched) = copied(project.path());
        let to = root.path().join("to");
        assert_eq!(fetched, Fetched::default());
        for (name, there) in [("a.c", true), ("build/a.o", true), ("x.log", true), ("secret.key", false)] {
            assert_eq!(to.join(name).exists(), there, "{name}");
        }
        let mode = |name: &str| fs::symlink_metadata(to.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("a.c"), mode("sub/run.sh")), (0o644, 0o755), "the box's user must be able to read them");
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
    }

    #[test]
    fn what_git_ignores_stays_here_unless_it_is_brought_back() {
        let project = project();
        let marker = project.path().join("ran");
        git(project.path(), &["init", "-q", "-b", "main"]);
        git(project.path(), &["config", "core.fsmonitor", &format!("touch {}", marker.display())]);
        git(project.path(), &["remote", "add", "origin", "https://git.example.com/team/hello.git"]);
        git(project.path(), &["config", "http.extraHeader", "Authorization: Basic t0ken-t0ken"]);
        fs::write(project.path().join("kept.log"), "tracked").unwrap();
        git(project.path(), &["-c", "core.fsmonitor=false", "add", "-f", "kept.log", "a.c"]);
        git(project.path(), &["-c", "core.fsmonitor=false", "commit", "-q", "-m", "one"]);
        let _ = fs::remove_file(&marker);
        fs::write(project.path().join("sub/y.log"), "").unwrap();
        let (root, fetched) = copied(project.path());
        let to = root.path().join("to");
        for (name, there) in [
            ("a.c", true),
            ("build", false),
            ("x.log", true),
            ("kept.log", true),
            ("sub/run.sh", true),
            (".git/HEAD", true),
        ] {
            assert_eq!(to.join(name).exists(), there, "{name}");
        }
        assert_eq!(fetched.branch.as_deref(), Some("main"));
        assert_eq!(fetched.revision.map(|commit| commit.len()), Some(40));
        let repository = (fetched.domain.unwrap(), fetched.owner.unwrap(), fetched.repository.unwrap());
        assert_eq!(repository, ("git.example.com".into(), "team".into(), "hello".into()));
        assert!(!marker.exists(), "a program of the project's configuration ran");
        let found = Command::new("grep").args(["-rl", "t0ken-t0ken"]).arg(&to).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "a login of the project's configuration came along");
        git(&to, &["log", "-1"]);
        // Below the repository's own directory its rules count as well.
        let (root, _) = copied(&project.path().join("sub"));
        assert!(root.path().join("to/run.sh").exists() && !root.path().join("to/y.log").exists());
    }

    #[test]
    fn a_source_that_holds_the_directories_of_runs_does_not_hold_them_in_its_copy() {
        let project = project();
        let base = project.path().join("tmp/windlass-1000");
        let root = base.join("0f1e");
        for directory in ["tmp", "to"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(base.join("key"), "of another run").unwrap();
        let copied = |path: &Path| {
            let apart = vec![base.clone(), root.clone()];
            let from = Directory { path: path.to_owned(), apart, ..Directory::default() };
            copy(&from, &root.join("to"), &Layout::new(Some(root.clone())), &Processes::default()).unwrap();
        };
        copied(project.path());
        assert!(root.join("to/tmp").is_dir() && !root.join("to/tmp/windlass-1000").exists());
        copied(&base);
        assert!(root.join("to/key").is_file() && !root.join("to/0f1e").exists());
    }

    #[test]
    fn what_git_cannot_tell_is_no_reason_to_copy_everything() {
        let project = project();
        fs::create_dir(project.path().join(".git")).unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("tmp")).unwrap();
        let from = Directory { path: project.path().to_owned(), ..Directory::default() };
        let layout = Layout::new(Some(root.path().to_owned()));
        let failure = copy(&from, root.path(), &layout, &Processes::default()).unwrap_err();
        assert!(failure.message.starts_with("cannot tell what git ignores: "), "{}", failure.message);
    }

    #[test]
    fn a_repository_that_is_a_link_is_copied_as_one_and_nothing_is_written_through_it() {
        let (outside, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("config"), "of somebody").unwrap();
        std::os::unix::fs::symlink(outside.path(), kept.path().join(".git")).unwrap();
        let root = tempfile::tempdir().unwrap();
        for directory in ["tmp", "to"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        // As of what a box left: git is asked about the project.
        let project = tempfile::tempdir().unwrap();
        let of = Some(project.path().to_owned());
        let from = Directory { path: kept.path().to_owned(), of, ..Directory::default() };
        let layout = Layout::new(Some(root.path().to_owned()));
        copy(&from, &root.path().join("to"), &layout, &Processes::default()).unwrap();
        assert_eq!(fs::read(outside.path().join("config")).unwrap(), b"of somebody");
        assert_eq!(fs::read_link(root.path().join("to/.git")).unwrap(), outside.path());
    }

    #[test]
    fn what_is_mounted_stays_where_it_is_and_holds_nothing_of_runs() {
        let (project, root) = (project(), tempfile::tempdir().unwrap());
        fs::create_dir_all(root.path().join("tmp")).unwrap();
        let layout = Layout::new(Some(root.path().to_owned()));
        let mut from = Directory { path: project.path().to_owned(), mounted: true, ..Directory::default() };
        from.apart = vec![root.path().to_owned(), project.path().join("not there")];
        mounted(&from, &layout, &Processes::default()).unwrap();
        let base = project.path().join("tmp/windlass-0");
        fs::create_dir_all(&base).unwrap();
        for (apart, words) in [
            (base, "windlass-0, which no box may see; set TMPDIR, or work on a copy"),
            (project.path().join("sub/../secret.key"), "secret.key, which no box may see; move it elsewhere, or"),
        ] {
            from.apart = vec![apart];
            let refused = mounted(&from, &layout, &Processes::default()).unwrap_err();
            assert!(refused.message.contains(words), "{}", refused.message);
        }
    }
}
