//! The shell around a script: which shell, what it runs, and how exported variables come back.
//! Called by the supervisor; [`dump`] is what the shell calls at its end.
//!
//! The shell sources the script's file, so the script's own `exit`, `return` or failure ends it,
//! and an EXIT trap hands the environment to `windlass-runner dump-env`: a program can print any
//! value, and no shell's quoting is involved. A script that sets an EXIT trap of its own takes the
//! place of ours; then the environment is kept only if the script runs to its last line.
//!
//! **Invariant:** the script's exit code is the shell's, but for one case: a script that passed
//! while its exports could not be kept ends with [`EXPORTS_LOST`], as later steps would go wrong.

use super::Error;
use crate::bounded;
use nix::unistd::{AccessFlags, access};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The subcommand that writes the environment to a file.
pub(super) const DUMP_COMMAND: &str = "dump-env";
/// Exit code of a script that passed but whose exports could not be kept.
const EXPORTS_LOST: i32 = 74;
/// How much a step may export in all.
const EXPORTS_BYTES: u64 = 1024 * 1024;
/// Where bash may be; looked for without the PATH, which the image could bend.
const BASH: [&str; 3] = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"];
/// What every other box has.
const SH: &str = "/bin/sh";

/// The shell for scripts.
///
/// # Errors
/// That there is none, for people.
pub(super) fn shell(wanted: Option<&str>) -> Result<PathBuf, String> {
    let runs = |path: &&str| access(*path, AccessFlags::X_OK).is_ok();
    match wanted {
        Some(path) if runs(&path) => Ok(path.into()),
        Some(path) => Err(format!("box.shell {path} is not an executable file of the image")),
        None => BASH
            .iter()
            .copied()
            .chain([SH])
            .find(runs)
            .map(PathBuf::from)
            .ok_or_else(|| format!("the image has no {SH}; script steps need one")),
    }
}

/// What the shell runs with `-c`; the script's file is its `$0`.
pub(super) fn wrapper(runner: &Path, exports: &Path) -> Vec<u8> {
    let dump = [&quoted(runner), b" dump-env ".as_slice(), &quoted(exports)].concat();
    // Tracing is switched off first, so that `set -x` in a script does not show what follows.
    let keep = [
        b"{ __windlass_code=$?; set +x; } 2>/dev/null\n".as_slice(),
        b"case ${__windlass_kept-} in '')\n__windlass_kept=1\n",
        &dump,
        b" || { echo 'windlass: the exported variables could not be kept' >&2 || :\n",
        format!("case $__windlass_code in 0) __windlass_code={EXPORTS_LOST};; esac; }}\n").as_bytes(),
        b"esac\nexit \"$__windlass_code\"\n",
    ]
    .concat();
    let trap = [b"trap ".as_slice(), &quoted_bytes(&keep), b" EXIT\n"].concat();
    [&trap, b"set -e\n. \"$0\"\n".as_slice(), &keep].concat()
}

/// Writes the file that the shell sources.
pub(super) fn write(path: &Path, script: &str) -> Result<(), Error> {
    let failed = |error| Error::new(format!("write the script {}", path.display()), error);
    let mut file = make(path).map_err(failed)?;
    file.write_all(script.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(failed)
}

/// Makes a file anew where steps can write: what they left there, a link or a pipe that nobody reads, is not opened.
pub(super) fn make(path: &Path) -> std::io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => OpenOptions::new().write(true).create_new(true).open(path),
    }
}

/// Takes the exports that the shell left, if it left any.
pub(super) fn take_exports(path: &Path) -> Option<Vec<u8>> {
    let exports = bounded::read(path, EXPORTS_BYTES);
    let _ = fs::remove_file(path);
    exports.filter(|exports| !exports.is_empty())
}

/// Writes this process's environment to `path`, each variable ended by NUL.
pub(super) fn dump(path: &Path) -> Result<(), Error> {
    let failed = |error| Error::new("keep the exported variables", error);
    let mut exports = Vec::new();
    for (name, value) in std::env::vars_os() {
        exports.extend([name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat());
    }
    if exports.len() as u64 > EXPORTS_BYTES {
        return Err(failed(io::Error::other("they hold more than 1 MiB")));
    }
    let unfinished = path.with_extension("new");
    let _ = fs::remove_file(&unfinished);
    let written = OpenOptions::new().write(true).create_new(true).open(&unfinished).and_then(|mut file| {
        // The script's umask may forbid everything.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(&exports)
    });
    written.and_then(|()| fs::rename(&unfinished, path)).map_err(failed)
}

/// A path as a shell's word.
pub(super) fn quoted(path: &Path) -> Vec<u8> {
    quoted_bytes(path.as_os_str().as_bytes())
}

/// Quotes for a POSIX shell.
fn quoted_bytes(text: &[u8]) -> Vec<u8> {
    let mut out = vec![b'\''];
    for byte in text {
        match byte {
            b'\'' => out.extend_from_slice(b"'\\''"),
            _ => out.push(*byte),
        }
    }
    out.push(b'\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_for_shells() {
        assert_eq!(quoted_bytes(b"a'b $c"), b"'a'\\''b $c'");
    }

    #[test]
    fn chooses_a_shell() {
        assert_eq!(shell(Some("/bin/sh")), Ok("/bin/sh".into()));
        assert_eq!(shell(Some("/no/zsh")), Err("box.shell /no/zsh is not an executable file of the image".into()));
        assert!(shell(None).is_ok());
    }

    #[test]
    fn takes_no_exports_from_links_pipes_and_giants() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exports");
        assert_eq!(take_exports(&path), None);
        fs::write(dir.path().join("other"), "A=1\0").unwrap();
        std::os::unix::fs::symlink(dir.path().join("other"), &path).unwrap();
        assert_eq!(take_exports(&path), None);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(take_exports(&path), None);
        File::create(&path).unwrap().set_len(EXPORTS_BYTES + 1).unwrap();
        assert_eq!(take_exports(&path), None);
        fs::write(&path, "A=1\0").unwrap();
        assert_eq!(take_exports(&path), Some(b"A=1\0".to_vec()));
        assert!(!path.exists(), "taken once");
    }
}
