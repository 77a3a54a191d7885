//! The directory of a run: laid out as the kubelet's and as a pod's, so that agent and `prepare` find their way.
//!
//! ```text
//! BASE/UID/owner                                         who removes it, and with which image
//! BASE/UID/pods/UID/volumes/kubernetes.io~empty-dir/{in,out,disk}     the box's three directories
//! BASE/UID/pods/UID/volumes/kubernetes.io~secret/{secret-N,push-N,…}  Secrets, ConfigMaps
//! BASE/UID/{dev/windlass, windlass/…}                    links to them, where `prepare` looks
//! BASE/UID/tmp                                           for git
//! ```
//!
//! `setup` makes it, `node` and the sweep of `owner` remove it.
//!
//! **Invariant:** nobody but the user can enter it (0700). What the box may write lies below; nothing of ours follows a
//! link there but the agent's own code, which follows none.

use super::{
    objects::{Keys, Objects},
    owner::{self, Owner},
};
use crate::{
    api::PipelineSpec,
    engine::docker::{
        DockerEngine,
        containers::{Bind, ContainerSpec, Network},
    },
    steps::logins,
    wire,
};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Most directories of earlier runs that a sweep looks at.
const MOST: usize = 1000;
/// Who owns a directory, and the image whose shell can remove what the box left.
const OWNER_FILE: &str = "owner";
/// Where the helper that removes files sees the directory.
const HELPER_DIR: &str = "/windlass-run";
/// Tries to remove a directory that somebody still writes to, and the pause between two.
const WRITER_TRIES: u32 = 50;
const WRITER_PAUSE: Duration = Duration::from_millis(20);
/// Tries to make the directory of all runs while others that end remove it.
const BASE_TRIES: u32 = 100;
/// How long the helper may take; the next run tries again.
const HELPER_PATIENCE: Duration = Duration::from_secs(60);

/// The directory of all local runs of this user, made if it is not there.
///
/// # Errors
/// When it cannot be made, or belongs to somebody else.
pub fn base() -> io::Result<PathBuf> {
    let path = base_path(&std::env::temp_dir())?;
    own_directory(&path)?;
    Ok(path)
}

/// Where it is. Links on the way are resolved: the engine is given the true path.
fn base_path(temporary: &Path) -> io::Result<PathBuf> {
    let resolved = temporary.canonicalize().map_err(|error| {
        io::Error::other(format!("TMPDIR {}, the directory for temporary files: {error}", temporary.display()))
    })?;
    Ok(resolved.join(format!("windlass-{}", nix::unistd::geteuid())))
}

/// Makes a directory that nobody else can enter. It may be there: everybody can make one of this name in /tmp.
fn own_directory(path: &Path) -> io::Result<()> {
    let told = |error: io::Error| io::Error::new(error.kind(), format!("cannot make {}: {error}", path.display()));
    for tries in 1.. {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(told(error)),
            Ok(()) | Err(_) => {}
        }
        let meta = match fs::symlink_metadata(path) {
            // Another run that ended has just removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < BASE_TRIES => continue,
            meta => meta.map_err(told)?,
        };
        if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::other(format!("{} is not a directory of yours; remove it", path.display())));
        }
        if meta.mode() & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(told)?;
        }
        break;
    }
    Ok(())
}

/// Removes the directory of all local runs if nothing is in it.
pub(super) fn leave_base() {
    if let Ok(path) = base_path(&std::env::temp_dir()) {
        // Another run may be in it.
        let _ = fs::remove_dir(path);
    }
}

/// Makes a directory that the sweep of a later run finds: with its owner, and an image whose shell can remove what a box
/// left in it.
pub(super) fn make_root(root: &Path, owner: &Owner, image: &str) -> io::Result<()> {
    for tries in 1.. {
        match DirBuilder::new().mode(0o700).create(root) {
            // Another run that ended has removed the directory of all, which was empty.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < BASE_TRIES => {
                own_directory(root.parent().unwrap_or(root))?;
            }
            made => {
                made?;
                break;
            }
        }
    }
    fs::write(root.join(OWNER_FILE), format!("{owner}\n{image}\n"))
}

/// A run's directory.
#[derive(Clone, Debug)]
pub(super) struct RunDirectory {
    /// The directory, which stands for the kubelet's folder and for `/` of the pod.
    pub(super) root: PathBuf,
    volumes: PathBuf,
}

impl RunDirectory {
    /// Makes it, with the Secrets and ConfigMaps that the pipeline names.
    ///
    /// # Errors
    /// When something cannot be written.
    pub(super) fn make(
        base: &Path,
        uid: &str,
        owner: &Owner,
        image: &str,
        spec: &PipelineSpec,
        objects: &Objects,
    ) -> io::Result<Self> {
        let root = base.join(uid);
        make_root(&root, owner, image)?;
        let volumes = root.join("pods").join(uid).join("volumes");
        let run = Self { root, volumes };
        let boxes = run.volumes.join("kubernetes.io~empty-dir");
        for (name, mode) in [(wire::IN_VOLUME, 0o755), (wire::OUT_VOLUME, 0o777), (wire::DISK_VOLUME, 0o777)] {
            let path = boxes.join(name);
            fs::create_dir_all(&path)?;
            // Set apart from the making: the umask must not decide who in the box may write.
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        fs::create_dir(run.root.join("tmp"))?;
        run.link(&boxes, "/dev/windlass")?;
        let (secrets, config_maps) = logins::env_objects(spec);
        for (index, name) in secrets.into_iter().enumerate() {
            run.object(&wire::secret_volume(index), objects.secrets.get(name), wire::SECRETS_DIR, Some(name))?;
        }
        for (index, name) in config_maps.into_iter().enumerate() {
            run.object(&format!("config-{index}"), objects.config_maps.get(name), wire::CONFIG_MAPS_DIR, Some(name))?;
        }
        for (index, name) in logins::push_secrets(spec).into_iter().enumerate() {
            run.object(&wire::push_volume(index), objects.secrets.get(name), wire::PUSH_SECRETS_DIR, Some(name))?;
        }
        let git = spec.source.as_ref().and_then(|source| source.git.as_ref()?.secret_name.as_deref());
        if let Some(name) = git {
            run.object("git", objects.secrets.get(name), wire::GIT_SECRET_DIR, None)?;
        }
        Ok(run)
    }

    /// Writes an object as a volume, where the agent finds it, with a link where `prepare` does. One that is missing
    /// is an empty directory, as with an optional volume.
    fn object(&self, volume: &str, keys: Option<&Keys>, place: &str, name: Option<&str>) -> io::Result<()> {
        let directory = self.volumes.join("kubernetes.io~secret").join(volume);
        fs::create_dir_all(&directory)?;
        for (key, value) in keys.into_iter().flatten() {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join(key))?;
            file.write_all(value)?;
        }
        self.link(&directory, &name.map_or_else(|| place.to_owned(), |name| format!("{place}/{name}")))
    }

    fn link(&self, to: &Path, place: &str) -> io::Result<()> {
        let link = self.root.join(place.trim_start_matches('/'));
        if let Some(parent) = link.parent() {
            fs::create_dir_all(parent)?;
        }
        symlink(to, link)
    }

    /// The box's directories.
    pub(super) fn binds(&self) -> Vec<Bind> {
        let boxes = self.volumes.join("kubernetes.io~empty-dir");
        let bind = |volume: &str, target: &str, read_only| Bind {
            source: boxes.join(volume),
            target: target.to_owned(),
            read_only,
        };
        vec![
            bind(wire::IN_VOLUME, wire::IN_DIR, true),
            bind(wire::OUT_VOLUME, wire::OUT_DIR, false),
            bind(wire::DISK_VOLUME, wire::DISK_DIR, false),
        ]
    }
}

/// Directories of earlier runs: path, owner, image.
pub(super) fn left(base: &Path) -> Vec<(PathBuf, String, String)> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten().take(MOST);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(path.join(OWNER_FILE)).ok()?;
        let (owner, image) = text.trim().split_once('\n')?;
        Some((path, owner.to_owned(), image.to_owned()))
    };
    entries.filter_map(|entry| read(entry.path())).collect()
}

/// Begins to remove a run's directory while its box may still be there; [`remove`] does the rest.
pub(super) async fn empty(path: &Path) {
    let pods = path.join("pods");
    // What the box still writes, or its root wrote, is for later.
    let _ = tokio::task::spawn_blocking(move || fs::remove_dir_all(pods)).await;
}

/// Removes a run's directory. Files that the box's root made may be beyond this user; then a container of the same
/// image takes them away.
pub(super) async fn remove(engine: &DockerEngine, path: &Path, image: &str, owner: &Owner) {
    let own = path.to_owned();
    let first = tokio::task::spawn_blocking(move || take_away(&own)).await;
    if !matches!(first, Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied) {
        return;
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let helper = ContainerSpec {
        name: format!("windlass-clean-{name}"),
        image: image.to_owned(),
        user: Some("0".into()),
        entrypoint: Some(["/bin/sh", "-c", "rm -rf \"$0\"/pods"].map(str::to_owned).into()),
        command: Some(vec![HELPER_DIR.into()]),
        labels: owner::labels(owner, BTreeMap::new()),
        binds: vec![Bind { source: path.to_owned(), target: HELPER_DIR.into(), read_only: false }],
        network: Network::None,
        ..ContainerSpec::default()
    };
    let Ok(id) = engine.create(&helper).await else { return };
    if engine.start(&id).await.is_ok() {
        let _ = tokio::time::timeout(HELPER_PATIENCE, engine.ended(&id)).await;
    }
    let _ = engine.remove_container(&id).await;
    let path = path.to_owned();
    let _ = tokio::task::spawn_blocking(move || take_away(&path)).await;
}

/// Removes what this user can remove. Whoever still writes there, as a `prepare` that was stopped in a large file, ends
/// soon.
fn take_away(path: &Path) -> io::Result<()> {
    let gone = |path: &Path| {
        let mut tries = 0;
        loop {
            match fs::remove_dir_all(path) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries < WRITER_TRIES => {
                    tries += 1;
                    thread::sleep(WRITER_PAUSE);
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => return Ok(()),
            }
        }
    };
    // Secrets first: they are this user's own files, and the rest may have to wait for a container.
    for pod in fs::read_dir(path.join("pods")).into_iter().flatten().flatten().take(MOST) {
        let _ = fs::remove_dir_all(pod.path().join("volumes/kubernetes.io~secret"));
    }
    // The owner stays known until the rest is gone: what is left is then found again.
    gone(&path.join("pods"))?;
    gone(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::files::Volumes;

    #[test]
    fn a_directory_goes_though_somebody_still_writes_to_it() {
        let base = tempfile::tempdir().unwrap();
        let run = base.path().join("0f1e");
        let disk = run.join("pods/0f1e/volumes/disk");
        fs::create_dir_all(&disk).unwrap();
        fs::write(run.join(OWNER_FILE), "x").unwrap();
        let (begun, wait) = std::sync::mpsc::channel();
        let writer = thread::spawn(move || {
            let until = std::time::Instant::now() + Duration::from_millis(200);
            let mut number = 0;
            while std::time::Instant::now() < until {
                number += 1;
                // It fails once its directory is gone, as a copy does.
                let _ = fs::write(disk.join(number.to_string()), "");
                let _ = begun.send(());
            }
        });
        wait.recv().unwrap();
        take_away(&run).unwrap();
        writer.join().unwrap();
        assert!(!run.exists());
    }

    #[test]
    fn a_place_that_cannot_be_used_is_named() {
        let error = base_path(Path::new("/nope")).unwrap_err().to_string();
        assert!(error.starts_with("TMPDIR /nope, the directory for temporary files: "), "{error}");
        let error = own_directory(Path::new("/proc/windlass-0")).unwrap_err().to_string();
        assert!(error.starts_with("cannot make /proc/windlass-0: "), "{error}");
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("windlass-0");
        fs::write(&file, "").unwrap();
        let error = own_directory(&file).unwrap_err().to_string();
        assert!(error.ends_with("/windlass-0 is not a directory of yours; remove it"), "{error}");
    }

    #[test]
    fn a_run_begins_though_others_that_end_remove_the_directory_of_all() {
        let temporary = tempfile::tempdir().unwrap();
        let base = temporary.path().join("windlass-0");
        let owner = Owner::me().unwrap();
        // With its sender, also that of a test that fails, the other thread ends.
        let (going_on, ended) = std::sync::mpsc::channel::<()>();
        thread::scope(|scope| {
            let base = &base;
            scope.spawn(move || {
                // Not at every moment: runs do not end that often, and each try to begin would be undone.
                while ended.recv_timeout(Duration::from_micros(20)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    let _ = fs::remove_dir(base);
                }
            });
            let _going_on = going_on;
            for number in 0..200 {
                own_directory(base).unwrap();
                let root = base.join(number.to_string());
                make_root(&root, &owner, "-").unwrap();
                assert_eq!(fs::metadata(base).unwrap().mode() & 0o777, 0o700);
                fs::remove_dir_all(&root).unwrap();
            }
        });
    }

    #[test]
    fn agent_and_prepare_find_the_same_files() {
        let base = tempfile::tempdir().unwrap();
        let spec: PipelineSpec = serde_json::from_value(serde_json::json!({
            "box": {"image": "debian"},
            "env": [{"name": "KEY", "secretKeyRef": {"name": "keys", "key": "api"}}],
            "steps": [{"name": "a", "script": "true"}],
        }))
        .unwrap();
        let keys = BTreeMap::from([("api".to_owned(), b"s3cret".to_vec())]);
        let objects = Objects { secrets: BTreeMap::from([("keys".into(), keys)]), ..Objects::default() };
        let (uid, owner) = ("0f1e2d3caaaa", Owner::me().unwrap());
        let run = RunDirectory::make(base.path(), uid, &owner, "debian", &spec, &objects).unwrap();
        let volumes = Volumes::new(&run.root, uid);
        assert_eq!(volumes.secret("secret-0", "api", 100).unwrap().as_deref(), Some(&b"s3cret"[..]));
        assert_eq!(fs::read(run.root.join("windlass/secrets/keys/api")).unwrap(), b"s3cret");
        fs::write(run.root.join("dev/windlass/in/plan.json"), "{}").unwrap();
        assert!(volumes.is_in("plan.json"));
        assert_eq!(run.binds()[0].source, volumes.in_dir());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&run.root), mode(&volumes.in_dir()), mode(&volumes.out_dir())), (0o700, 0o755, 0o777));
        assert_eq!(left(base.path()), [(run.root.clone(), owner.to_string(), "debian".to_owned())]);
    }
}
