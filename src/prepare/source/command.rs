//! Runs git: a clean environment, bounded output, and an end when the preparation ends.
//!
//! Called by `git`, `checkout` and `repository`.
//!
//! **Invariant:** a child gets neither the order nor any other variable but those listed here, and no
//! child outlives [`Processes::kill`].

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    collections::{BTreeSet, VecDeque},
    ffi::OsString,
    io::{self, Read},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// Variables that reach git: where programs are, and how the network is left.
const PASSED: [&str; 12] = [
    "PATH",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
];
/// Most that is kept of what git prints; of its errors the end.
pub(super) const OUTPUT_BYTES: usize = 64 * 1024;

/// Settings of every git here. As settings of the command they win over those of any file.
///
/// History is full of commits that a strict check refuses although they do no harm, so these are let by.
const SETTINGS: [(&str, &str); 23] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.fsync", "none"),
    ("core.alternateRefsCommand", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("protocol.allow", "never"),
    ("protocol.https.allow", "always"),
    ("protocol.http.allow", "always"),
    ("protocol.ssh.allow", "always"),
    ("protocol.version", "2"),
    ("http.sslVerify", "true"),
    ("http.followRedirects", "initial"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
    ("credential.helper", ""),
    ("fetch.fsckObjects", "true"),
    ("fetch.unpackLimit", "1"),
    ("fetch.fsck.zeroPaddedFilemode", "ignore"),
    ("fetch.fsck.missingSpaceBeforeDate", "ignore"),
    ("fetch.fsck.badTimezone", "ignore"),
    ("fetch.fsck.badDate", "ignore"),
    ("fetch.fsck.missingEmail", "ignore"),
];

/// How git ended.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// What all git commands of a fetch have in common.
pub(super) struct Git {
    /// Directory for its files, which no other container sees.
    pub(super) home: std::path::PathBuf,
    /// Settings beyond [`SETTINGS`].
    pub(super) settings: Vec<(String, String)>,
    /// How ssh is called.
    pub(super) ssh: String,
    pub(super) processes: Processes,
}

impl Git {
    /// A git command that runs in `directory`.
    pub(super) fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new("git");
        command.env_clear().current_dir(directory).stdin(Stdio::null());
        command.envs(PASSED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        command.env("HOME", &self.home).env("TMPDIR", &self.home).env("LC_ALL", "C");
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_ATTR_NOSYSTEM", "1");
        command.env("GIT_CONFIG_GLOBAL", self.home.join("gitconfig"));
        command.env("GIT_SSH_COMMAND", &self.ssh).env("GIT_SSH_VARIANT", "ssh");
        let own = self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let mut count = 0;
        for (key, value) in SETTINGS.into_iter().chain(own) {
            command.env(format!("GIT_CONFIG_KEY_{count}"), key).env(format!("GIT_CONFIG_VALUE_{count}"), value);
            count += 1;
        }
        command.env("GIT_CONFIG_COUNT", count.to_string());
        command
    }

    /// Runs a git command to its end.
    pub(super) fn run(&self, command: &mut Command) -> io::Result<Output> {
        self.processes.run(command)
    }
}

/// The processes that run now; all can be killed at once.
#[derive(Clone, Default)]
pub(crate) struct Processes(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    killed: bool,
    groups: BTreeSet<i32>,
}

impl Processes {
    fn run(&self, command: &mut Command) -> io::Result<Output> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let (mut child, group) = {
            // Spawned under the lock, so that no child appears after `kill`.
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.killed {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let child = command.spawn()?;
            let group = i32::try_from(child.id()).map_err(io::Error::other)?;
            state.groups.insert(group);
            (child, group)
        };
        let errors = child.stderr.take().map(|stream| thread::spawn(move || last(stream)));
        let stdout = child.stdout.take().map(first).unwrap_or_default();
        let stderr = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
        let status = child.wait();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).groups.remove(&group);
        Ok(Output { success: status?.success(), stdout: text(stdout), stderr: text(stderr) })
    }

    /// Kills what runs, with all its children; nothing is started after that.
    pub(crate) fn kill(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.killed = true;
        for group in &state.groups {
            // A group that has just ended is no failure.
            let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
        }
    }

    /// Whether [`Self::kill`] was called.
    pub(super) fn killed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).killed
    }
}

/// The beginning of a stream; the rest is read and dropped, so that the writer can end.
fn first(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A stream that breaks is one that ended.
    let _ = stream.by_ref().take(OUTPUT_BYTES as u64).read_to_end(&mut bytes);
    let _ = io::copy(&mut stream, &mut io::sink());
    bytes
}

/// The end of a stream, where programs say why they failed.
fn last(mut stream: impl Read) -> Vec<u8> {
    let mut kept = VecDeque::with_capacity(OUTPUT_BYTES);
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        let new = buffer.get(..n).unwrap_or_default();
        kept.drain(..(kept.len() + n).saturating_sub(OUTPUT_BYTES));
        kept.extend(new);
    }
    kept.into()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Quotes a word for `sh`, as git runs helpers through it.
pub(super) fn quoted(word: &Path) -> String {
    let text: OsString = word.into();
    format!("'{}'", text.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn keeps_the_end_of_errors_and_the_beginning_of_answers() {
        let text: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        assert_eq!(last(text.as_slice()), text[text.len() - OUTPUT_BYTES..]);
        assert_eq!(first(text.as_slice()), text[..OUTPUT_BYTES]);
        assert_eq!(last(&b"ab"[..]), b"ab");
    }

    #[test]
    fn kills_children_of_children_and_starts_none_afterwards() {
        let processes = Processes::default();
        let begin = Instant::now();
        let killer = thread::spawn({
            let processes = processes.clone();
            move || {
                while processes.0.lock().unwrap().groups.is_empty() {
                    thread::yield_now();
                }
                processes.kill();
            }
        });
        // Without the kill of the whole group, the inner sleep would hold the pipe for a minute.
        let output = processes.run(Command::new("sh").args(["-c", "sleep 60; true"])).unwrap();
        killer.join().unwrap();
        assert!(!output.success);
        assert!(begin.elapsed() < Duration::from_secs(30));
        assert!(processes.run(&mut Command::new("true")).is_err());
    }

    #[test]
    fn git_sees_only_listed_variables() {
        let git = Git {
            home: "/nowhere".into(),
            settings: vec![("a.b".into(), "c".into())],
            ssh: "ssh".into(),
            processes: Processes::default(),
        };
        let command = git.command(Path::new("/"));
        let names: Vec<_> = command.get_envs().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        for name in &names {
            let own = ["HOME", "TMPDIR", "LC_ALL"].contains(&name.as_str()) || name.starts_with("GIT_");
            assert!(own || PASSED.contains(&name.as_str()), "{name}");
        }
        assert!(names.contains(&format!("GIT_CONFIG_VALUE_{}", SETTINGS.len())));
    }

    #[test]
    fn quotes_for_the_shell() {
        assert_eq!(quoted(Path::new("/a b/c'd")), r"'/a b/c'\''d'");
    }
}
