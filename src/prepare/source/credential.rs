//! Credentials for git: the mounted Secret, and the helper that answers git's question for a password.
//!
//! Called by `git`; the helper is this very executable, called by git.
//!
//! **Invariant:** a password is read only by the helper and goes only to git's pipe; it is given for the
//! exact scheme, host and port of the repository's address. A key lies only in the private directory.

use super::{
    address::{Address, Transport},
    command::quoted,
};
use crate::{
    api::condition::reason,
    prepare::{failure::failure, layout::Layout, mounts},
    steps::logins::no_key,
    wire::{Failure, GitOrder},
};
use std::{
    fs::OpenOptions,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// A credential is at most this long; also what git asks.
const CREDENTIAL_BYTES: u64 = 64 * 1024;
/// Keys of a Secret for https.
const USERNAME: &str = "username";
/// See [`USERNAME`].
const PASSWORD: &str = "password";
/// Keys of a Secret for ssh.
const PRIVATE_KEY: &str = "ssh-privatekey";
/// See [`PRIVATE_KEY`].
const KNOWN_HOSTS: &str = "known_hosts";

/// Options of every ssh. The key of another host is never trusted at first sight, no password is asked
/// for, and no file of the image or its user plays a part.
const SSH: &str = "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes \
                   -o IdentityAgent=none -o GlobalKnownHostsFile=/dev/null -o UpdateHostKeys=no -o ForwardAgent=no \
                   -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4";

/// How git gets at credentials.
pub(super) struct Access {
    /// Settings for git.
    pub(super) settings: Vec<(String, String)>,
    /// How ssh is called.
    pub(super) ssh: String,
}

/// Looks at the Secret, and makes it usable for git.
///
/// # Errors
/// When the Secret or one of its keys is missing.
pub(super) fn access(
    order: &GitOrder,
    namespace: &str,
    layout: &Layout,
    address: &Address<'_>,
    home: &Path,
) -> Result<Access, Failure> {
    let without_key = format!("{SSH} -o UserKnownHostsFile=/dev/null");
    let mut access = Access { settings: Vec::new(), ssh: without_key };
    let Some(name) = &order.secret_name else { return Ok(access) };
    let directory = layout.git_secret();
    let keys = mounts::keys(&directory)?;
    if keys.is_empty() {
        let message = format!("Secret {name} does not exist in namespace {namespace}; source.git needs it");
        return Err(failure(reason::SECRET_NOT_FOUND, message));
    }
    let needed: &[&str] = match address.transport {
        Transport::Http => &[USERNAME, PASSWORD],
        Transport::Ssh => &[PRIVATE_KEY],
        Transport::File => &[],
    };
    if let Some(key) = needed.iter().find(|needed| keys.iter().all(|key| key != *needed)) {
        let message = no_key("Secret", name, key, keys.iter().map(String::as_str));
        return Err(failure(reason::SECRET_KEY_NOT_FOUND, message));
    }
    match address.transport {
        Transport::Http => access.settings.push(("credential.helper".into(), helper(&directory, &address.origin)?)),
        Transport::Ssh => {
            if keys.iter().all(|key| key != KNOWN_HOSTS) {
                let port = address.port.map_or_else(String::new, |port| format!("-p {port} "));
                let message = format!(
                    "the host key of {host} cannot be checked: Secret {name} has no key {KNOWN_HOSTS}; put the output \
                     of ssh-keyscan {port}{host} there",
                    host = address.host
                );
                return Err(failure(reason::SOURCE_AUTH_FAILED, message));
            }
            access.ssh = ssh_with_key(&directory, home).map_err(|e| {
                failure(reason::SOURCE_AUTH_FAILED, format!("cannot take the ssh key from Secret {name}: {e}"))
            })?;
        }
        Transport::File => {}
    }
    Ok(access)
}

/// The helper's command line, which git hands to a shell and to which it adds what it wants.
fn helper(directory: &Path, origin: &str) -> Result<String, Failure> {
    let own = std::env::current_exe()
        .map_err(|e| failure(reason::SOURCE_FAILED, format!("cannot find this program for git: {e}")))?;
    let (own, directory, origin) = (quoted(&own), quoted(directory), quoted(Path::new(origin)));
    // Without the mark git would take a quoted path for the name of one of its own helpers.
    Ok(format!("!{own} prepare credential --secret {directory} --origin {origin}"))
}

/// Copies key and known hosts to where ssh takes them: it refuses a key that others can read, and a
/// mounted one can be.
fn ssh_with_key(secret: &Path, home: &Path) -> io::Result<String> {
    for name in [PRIVATE_KEY, KNOWN_HOSTS] {
        // ssh refuses a key without an end of line, or with those of another system.
        let mut text = read_text(&secret.join(name))?.replace("\r\n", "\n");
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(home.join(name))?;
        file.write_all(text.as_bytes())?;
    }
    let (key, hosts) = (quoted(&home.join(PRIVATE_KEY)), quoted(&home.join(KNOWN_HOSTS)));
    Ok(format!("{SSH} -i {key} -o UserKnownHostsFile={hosts}"))
}

/// Arguments of the helper.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct CredentialArguments {
    /// Directory of the Secret.
    #[arg(long)]
    secret: PathBuf,
    /// Scheme, host and port that it is for.
    #[arg(long)]
    origin: String,
    /// What git wants: get, store or erase.
    operation: String,
}

/// Answers git's question on standard input; silence means that there is no credential.
pub(crate) fn answer(arguments: &CredentialArguments) -> ExitCode {
    let mut question = String::new();
    let asked = io::stdin().take(CREDENTIAL_BYTES).read_to_string(&mut question).is_ok();
    if !asked || arguments.operation != "get" || origin(&question).as_ref() != Some(&arguments.origin) {
        return ExitCode::SUCCESS;
    }
    match credential(&arguments.secret).and_then(|text| io::stdout().write_all(text.as_bytes())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot use the mounted credential: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Scheme, host and port of git's question; a line that comes twice makes it no question of git.
fn origin(question: &str) -> Option<String> {
    let line = |name: &str| {
        let mut values = question.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        values.next().filter(|_| values.next().is_none())
    };
    Some(format!("{}://{}", line("protocol")?, line("host")?.to_ascii_lowercase()))
}

/// Git's form of a credential. One line end at the end of a value belongs to the file it was made from.
fn credential(secret: &Path) -> io::Result<String> {
    let mut answer = String::new();
    for name in [USERNAME, PASSWORD] {
        let text = read_text(&secret.join(name))?;
        let value = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
        if value.contains(['\n', '\0']) {
            return Err(io::Error::other(format!("{name} holds more than one line")));
        }
        answer = format!("{answer}{name}={value}\n");
    }
    Ok(answer)
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut budget = CREDENTIAL_BYTES;
    let bytes = mounts::value(path, &mut budget).map_err(io::Error::other)?;
    let bytes = bytes.ok_or_else(|| io::Error::other("it is longer than 64 KiB"))?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn reads_whom_git_asks_for() {
        for (question, expected) in [
            ("protocol=https\nhost=Git.example.com:8443\n\n", Some("https://git.example.com:8443")),
            ("capability[]=authtype\nhost=h\nprotocol=http\nwwwauth[]=Basic realm=\"x\"\n", Some("http://h")),
            ("protocol=https\nhost=h\nhost=evil\n", None),
            ("protocol=https\n", None),
            ("host=h\n", None),
            ("", None),
        ] {
            assert_eq!(origin(question).as_deref(), expected, "{question:?}");
        }
    }

    #[test]
    fn takes_values_as_files_have_them() {
        let secret = tempfile::tempdir().unwrap();
        let given = |username: &str, password: &str| {
            fs::write(secret.path().join(USERNAME), username).unwrap();
            fs::write(secret.path().join(PASSWORD), password).unwrap();
            credential(secret.path()).map_err(|e| e.to_string())
        };
        assert_eq!(given("me\n", " p=w \r\n"), Ok("username=me\npassword= p=w \n".into()));
        assert_eq!(given("me", "pw"), Ok("username=me\npassword=pw\n".into()));
        assert_eq!(given("me", "pw\nhost=evil"), Err("password holds more than one line".into()));
        assert!(given("me", &"p".repeat(70_000)).is_err());
    }
}
