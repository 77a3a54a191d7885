//! Git over ssh, with a real server on localhost.

use super::{pod::Pod, server::Origin};
use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};
use tempfile::TempDir;
use windlass::wire::{GitOrder, Order, SourceOrder};

/// A server that lets the current user in with the key `good`.
struct Sshd {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

impl Sshd {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for key in ["host", "other-host", "good", "bad"] {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(key)));
        }
        if nix::unistd::getuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {host}\nAuthorizedKeysFile {good}.pub\nStrictModes no\nUsePAM no\n\
             PidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
             SetEnv GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*\n",
            host = path("host").display(),
            good = path("good").display(),
        );
        fs::write(path("config"), config).unwrap();
        let sshd = Command::new("sh").args(["-c", "PATH=$PATH:/usr/sbin command -v sshd"]).output().unwrap();
        let sshd = PathBuf::from(String::from_utf8(sshd.stdout).unwrap().trim());
        let log = fs::File::create(path("log")).unwrap();
        let mut command = Command::new(sshd);
        command.args(["-D", "-e", "-f"]).arg(path("config")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server = Self { port, child: command.spawn().unwrap(), directory };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(server.child.try_wait().unwrap().is_none(), "sshd ended: {}", server.text("log"));
            thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    fn url(&self, origin: &Origin) -> String {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
        format!("ssh://{user}@127.0.0.1:{}{}/team/hello.git", self.port, origin.path().display())
    }

    fn known_hosts(&self, key: &str) -> String {
        format!("[127.0.0.1]:{} {}", self.port, self.text(&format!("{key}.pub")))
    }
}

fn origin() -> Origin {
    let origin = Origin::new();
    origin.repository("team/hello.git", &[&[("a", "1\n")]]);
    origin
}

fn pod(pairs: &[(&str, &str)]) -> Pod {
    let pod = Pod::new();
    fs::create_dir_all(pod.path("windlass/git")).unwrap();
    for (key, value) in pairs {
        let path = pod.path("windlass/git").join(key);
        fs::write(&path, value).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
    }
    pod
}

fn order(pod: &Pod, url: &str, secret: bool) -> Order {
    let git = GitOrder {
        url: url.into(),
        revision: Some("main".into()),
        secret_name: secret.then(|| "git-key".into()),
        depth: 1,
        ..GitOrder::default()
    };
    Order { source: SourceOrder::Git(git), ..pod.order() }
}

#[test]
fn a_key_opens_the_repository_and_is_left_nowhere() {
    let (sshd, origin) = (Sshd::new(), origin());
    let key = sshd.text("good");
    // As some tools store it: without the last end of line.
    let pod = pod(&[("ssh-privatekey", key.trim_end()), ("known_hosts", &sshd.known_hosts("host"))]);
    pod.succeeds(&order(&pod, &sshd.url(&origin), true));
    assert_eq!(fs::read_to_string(pod.source("a")).unwrap(), "1\n");
    let part = key.lines().nth(2).unwrap();
    for file in pod.files("dev") {
        assert!(!holds(&file, part), "{file:?} holds the key");
    }
}

fn holds(file: &Path, text: &str) -> bool {
    fs::read(file).unwrap().windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn a_host_or_key_that_is_not_known_says_so() {
    let (sshd, origin) = (Sshd::new(), origin());
    let url = sshd.url(&origin);
    let (good, bad, known) = (sshd.text("good"), sshd.text("bad"), sshd.known_hosts("host"));
    let no_host = "the host key of 127.0.0.1 is not in known_hosts of Secret git-key, or has changed";
    for (key, hosts, message) in [
        (good.as_str(), sshd.known_hosts("other-host"), no_host),
        (&good, "example.com ssh-ed25519 AAAA\n".into(), no_host),
        (&bad, known.clone(), &format!("{url} refused the key of Secret git-key")),
        (
            "no key\n",
            known.clone(),
            "ssh-privatekey of Secret git-key cannot be used; it must be a private key without passphrase",
        ),
    ] {
        let pod = pod(&[("ssh-privatekey", key), ("known_hosts", &hosts)]);
        pod.fails(&order(&pod, &url, true), "SourceAuthFailed", message);
    }
    let without_hosts = pod(&[("ssh-privatekey", &good)]);
    let port = url.trim_start_matches("ssh://").split('/').next().and_then(|server| server.rsplit_once(':')).unwrap().1;
    let message = format!(
        "the host key of 127.0.0.1 cannot be checked: Secret git-key has no key known_hosts; put the output of \
         ssh-keyscan -p {port} 127.0.0.1 there"
    );
    without_hosts.fails(&order(&without_hosts, &url, true), "SourceAuthFailed", &message);
    let without_secret = pod(&[]);
    let message =
        format!("{url} asks for a key; name a Secret with ssh-privatekey and known_hosts in source.git.secretName");
    without_secret.fails(&order(&without_secret, &url, false), "SourceAuthFailed", &message);
}
