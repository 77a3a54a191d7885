//! The cache of a project: a directory of this machine that its runs have as `$WERCKER_CACHE_DIR`.
//!
//! **Invariant:** the box's user, whoever that is, may write there; other users of this machine cannot get in, and had no
//! part in making it.

use super::whole;
use crate::{
    client::{
        exit::Exit,
        fault::{Fault, Stop, reason},
    },
    engine::docker::containers::Bind,
    local, wire,
};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

/// Variable that says where the caches of this user are.
const VARIABLE: &str = "XDG_CACHE_HOME";
/// From this size on people are told of a cache. Wercker kept none that was larger.
const LARGE_BYTES: u64 = 1000 << 20;
/// Most files that are looked at to tell.
const MOST_FILES: usize = 50_000;

/// The cache of a project, made if it is not there yet.
///
/// # Errors
/// When it cannot be made, or may be somebody else's.
pub(super) fn of(project: &Path) -> Result<PathBuf, Stop> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = match set(VARIABLE).or_else(|| Some(set("HOME")?.join(".cache"))) {
        Some(of_user) => Ok(of_user.join("windlass")),
        None => local::base(),
    };
    let made = base.and_then(|base| make(&base, project));
    let cache = made.map_err(|error| {
        let said = format!("the cache of {}: {error}", project.display());
        Fault::new(reason::UNREADABLE_FILE, Exit::World, said).hint(format!("set {VARIABLE} to another place"))
    })?;
    whole(&cache)
}

/// Makes the cache of a project below the directory of all.
fn make(base: &Path, project: &Path) -> io::Result<PathBuf> {
    let name = project.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let hash = Sha256::digest(project.as_os_str().as_bytes());
    let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let own = base.join(format!("{name}-{hash}"));
    DirBuilder::new().recursive(true).mode(0o700).create(&own)?;
    let user = nix::unistd::geteuid().as_raw();
    for (directory, meta) in [(base, fs::metadata(base)?), (&own, fs::symlink_metadata(&own)?)] {
        // In a directory like /tmp anybody can make one of this name first.
        if !meta.is_dir() || meta.uid() != user {
            return Err(io::Error::other(format!("{} is not a directory of yours", directory.display())));
        }
    }
    if fs::symlink_metadata(&own)?.mode() & 0o077 != 0 {
        fs::set_permissions(&own, Permissions::from_mode(0o700))?;
    }
    let cache = own.join("cache");
    DirBuilder::new().recursive(true).create(&cache)?;
    // Once it is the box's it may belong to another user.
    if fs::metadata(&cache)?.mode() & 0o777 != 0o777 {
        fs::set_permissions(&cache, Permissions::from_mode(0o777))?;
    }
    Ok(cache)
}

/// What people are told of a cache that grew large, and how it is emptied: its files may belong to the box's root.
pub(super) fn too_large(binds: &[Bind]) -> Option<String> {
    told(&binds.iter().find(|bind| bind.target == wire::CACHE_DIR)?.source, MOST_FILES, LARGE_BYTES)
}

fn told(cache: &Path, most_files: usize, large: u64) -> Option<String> {
    let why = match size(cache, most_files) {
        (_, false) => format!("has more than {most_files} files"),
        (bytes, true) if bytes >= large => format!("has {} MiB", bytes >> 20),
        (_, true) => return None,
    };
    let mount = format!("{}:/cache", cache.display());
    // No path has what cannot be quoted.
    let mount = shlex::try_quote(&mount).map_or_else(|_| mount.clone(), std::borrow::Cow::into_owned);
    Some(format!(
        "the cache of this project {why}; to empty it: docker run --rm -v {mount} busybox find /cache -mindepth 1 -delete"
    ))
}

/// Bytes of the files in a directory as far as they may be seen, and whether those are all.
fn size(directory: &Path, most_files: usize) -> (u64, bool) {
    let (mut open, mut files, mut bytes) = (vec![directory.to_owned()], 0, 0_u64);
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            files += 1;
            if files > most_files {
                return (bytes, false);
            }
            // Of a link its own.
            let Ok(meta) = entry.metadata() else { continue };
            bytes = bytes.saturating_add(meta.blocks() * 512);
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    (bytes, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_project_has_one_of_its_own_where_nobody_else_gets_in() {
        let place = tempfile::tempdir().unwrap();
        let base = place.path().join("windlass");
        let cache = make(&base, Path::new("/src/app")).unwrap();
        // As `printf /src/app | sha256sum` has it: the name stays from release to release.
        assert!(cache.ends_with("windlass/app-c0167fc91cc666ff/cache"), "{}", cache.display());
        assert_eq!(make(&base, Path::new("/src/app")).unwrap(), cache);
        assert_ne!(make(&base, Path::new("/other/app")).unwrap(), cache);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&cache), mode(cache.parent().unwrap())), (0o777, 0o700));
        // Somebody was faster.
        fs::remove_dir_all(cache.parent().unwrap()).unwrap();
        let other = place.path().join("other");
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, cache.parent().unwrap()).unwrap();
        let error = make(&base, Path::new("/src/app")).unwrap_err().to_string();
        assert!(error.contains("is not a directory of yours"), "{error}");
        assert_eq!(fs::read_dir(other).unwrap().count(), 0);
    }

    #[test]
    fn a_large_one_is_told_of() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("sub")).unwrap();
        fs::write(place.path().join("sub/file"), vec![7; 3 << 20]).unwrap();
        // What is behind a link is not the cache's.
        std::os::unix::fs::symlink("/", place.path().join("link")).unwrap();
        let cache = place.path().to_owned();
        assert_eq!(told(&cache, 3, 4 << 20), None);
        let said = told(&cache, 3, 3 << 20).unwrap();
        assert!(said.starts_with("the cache of this project has 3 MiB; to empty it: docker run --rm -v /"), "{said}");
        assert!(told(&cache, 2, 4 << 20).unwrap().contains("has more than 2 files"));
        let quoted = place.path().join("it's; rm");
        fs::create_dir(&quoted).unwrap();
        let said = told(&quoted, 0, 0).unwrap();
        assert_eq!(shlex::split(&said).unwrap().iter().filter(|word| word.ends_with("it's; rm:/cache")).count(), 1);
        let bind = Bind { source: cache, target: wire::CACHE_DIR.into(), read_only: false };
        assert_eq!(too_large(&[bind]), None);
    }
}
