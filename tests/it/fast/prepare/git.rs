//! Git sources, from real repositories over files and HTTP.

use super::{
    pod::{self, Pod},
    server::{Manner, Origin, Server},
};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
    thread,
    time::Duration,
};
use windlass::wire::{GitOrder, Order, SourceOrder};

/// `me:s3cret-word`
const LOGIN: &str = "bWU6czNjcmV0LXdvcmQ=";

fn git(url: &str, revision: &str) -> GitOrder {
    let revision = (!revision.is_empty()).then(|| revision.to_owned());
    GitOrder { url: url.into(), revision, depth: 1, ..GitOrder::default() }
}

fn order(pod: &Pod, git: GitOrder) -> Order {
    Order { source: SourceOrder::Git(git), ..pod.order() }
}

/// Git in the fetched source, as a step would call it.
fn in_source(pod: &Pod, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command
        .args(["-c", "safe.directory=*"])
        .args(arguments)
        .current_dir(pod.source(""))
        .env("GIT_CONFIG_NOSYSTEM", "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn variables(pod: &Pod) -> Vec<String> {
    let plan = pod.plan();
    let own = plan.env.iter().filter(|v| v.name.starts_with("WERCKER_GIT_") && !v.secret);
    own.map(|v| format!("{}={}", v.name.trim_start_matches("WERCKER_GIT_"), v.value)).collect()
}

/// Three commits, a branch `feature/one` at the second, tags `v1` and (annotated) `v2`.
fn origin() -> Origin {
    let origin = Origin::new();
    origin.repository("team/hello.git", &[&[("a", "1\n")], &[("a", "2\n"), ("src/b", "b\n")], &[("a", "3\n")]]);
    origin.git("team/hello.git", &["branch", "feature/one", "HEAD~1"]);
    origin.git("team/hello.git", &["tag", "v1", "HEAD~2"]);
    origin.git("team/hello.git", &["tag", "-a", "v2", "-m", "two", "HEAD~1"]);
    origin.git("team/hello.git", &["update-ref", "refs/pull/7/head", "HEAD~1"]);
    origin
}

fn file_url(origin: &Origin, name: &str) -> String {
    format!("file://{}/{name}", origin.path().display())
}

#[test]
fn takes_a_branch_tag_ref_or_commit() {
    let origin = origin();
    let commit = |name: &str| origin.git("team/hello.git", &["rev-parse", &format!("{name}^{{commit}}")]);
    let server = Server::new(origin.path(), Manner::default());
    let second = commit("HEAD~1");
    for (revision, at, head, more) in [
        ("", "main", "main", "BRANCH=main"),
        ("main", "main", "main", "BRANCH=main"),
        ("feature/one", "feature/one", "feature/one", "BRANCH=feature/one"),
        ("refs/heads/feature/one", "feature/one", "feature/one", "BRANCH=feature/one"),
        ("v1", "v1", "HEAD", "TAG=v1"),
        ("v2", "v2", "HEAD", "TAG=v2"),
        ("refs/tags/v2", "v2", "HEAD", "TAG=v2"),
        ("refs/pull/7/head", "HEAD~1", "HEAD", ""),
        (second.as_str(), "HEAD~1", "HEAD", ""),
    ] {
        for url in [server.url("team/hello.git"), file_url(&origin, "team/hello.git")] {
            let pod = Pod::new();
            let output = pod.succeeds(&order(&pod, git(&url, revision)));
            let at = commit(at);
            assert_eq!(pod.plan().source_revision.as_deref(), Some(at.as_str()), "{revision}");
            assert_eq!(in_source(&pod, &["rev-parse", "HEAD"]), at);
            assert_eq!(in_source(&pod, &["rev-parse", "--abbrev-ref", "HEAD"]), head);
            assert_eq!(in_source(&pod, &["status", "--porcelain"]), "");
            assert_eq!(in_source(&pod, &["rev-list", "--count", "HEAD"]), "1");
            assert_eq!(in_source(&pod, &["config", "remote.origin.url"]), url);
            let mut expected = vec![format!("COMMIT={at}"), more.to_owned()];
            if url.starts_with("http") {
                expected.extend(["DOMAIN=127.0.0.1".into(), "OWNER=team".into()]);
            }
            expected.push("REPOSITORY=hello".into());
            expected.retain(|line| !line.is_empty());
            assert_eq!(variables(&pod), expected);
            let name = more.split_once('=').map(|(_, name)| format!("{name}@")).unwrap_or_default();
            assert!(output.contains(&format!("fetched {name}{} \"change ", &at[..7])), "{output}");
        }
    }
}

#[test]
fn a_branch_costs_one_fetch() {
    let origin = origin();
    let server = Server::new(origin.path(), Manner::default());
    let pod = Pod::new();
    pod.succeeds(&order(&pod, git(&server.url("team/hello.git"), "main")));
    let first = server.requests().iter().filter(|request| request.starts_with("GET ")).count();
    assert_eq!((first, server.requests().len()), (1, 3), "{:?}", server.requests());
}

#[test]
fn depth_is_kept() {
    let origin = origin();
    for (depth, count) in [(2, "2"), (0, "3")] {
        let pod = Pod::new();
        let git = GitOrder { depth, ..git(&file_url(&origin, "team/hello.git"), "main") };
        pod.succeeds(&order(&pod, git));
        assert_eq!(in_source(&pod, &["rev-list", "--count", "HEAD"]), count);
        if depth == 0 {
            assert_eq!(
                in_source(&pod, &["describe"]),
                format!("v2-1-g{}", in_source(&pod, &["rev-parse", "--short", "HEAD"]))
            );
        }
    }
}

#[test]
fn an_old_server_is_searched_for_a_commit() {
    let origin = origin();
    let server = Server::new(origin.path(), Manner { old_protocol: true, ..Manner::default() });
    let url = server.url("team/hello.git");
    // No ref names the first commit but a tag; the third one is the tip of a branch.
    origin.git("team/hello.git", &["tag", "-d", "v1"]);
    let first = origin.git("team/hello.git", &["rev-parse", "HEAD~2"]);
    let pod = Pod::new();
    let output = pod.succeeds(&order(&pod, git(&url, &first)));
    assert!(output.contains("fetching all history"), "{output}");
    assert_eq!(in_source(&pod, &["rev-parse", "HEAD"]), first);
    assert_eq!(fs::read_to_string(pod.source("a")).unwrap(), "1\n");
    let nowhere = "3f9c2d1a".repeat(5);
    let pod = Pod::new();
    pod.fails(
        &order(&pod, git(&url, &nowhere)),
        "SourceFailed",
        &format!("git: commit {nowhere} does not exist on {url}"),
    );
}

#[test]
fn says_what_does_not_exist() {
    let origin = origin();
    origin.repository("empty", &[]);
    let server = Server::new(origin.path(), Manner::default());
    let url = server.url("team/hello.git");
    let commit = "3f9c2d1a".repeat(5);
    for (revision, what) in [
        ("mian", "branch mian does not exist on"),
        ("refs/heads/mian", "branch mian does not exist on"),
        ("refs/tags/v9", "tag v9 does not exist on"),
        ("refs/pull/9/head", "refs/pull/9/head does not exist on"),
        (commit.as_str(), &format!("commit {commit} does not exist on")),
    ] {
        let pod = Pod::new();
        pod.fails(&order(&pod, git(&url, revision)), "SourceFailed", &format!("git: {what} {url}"));
    }
    let pod = Pod::new();
    let message = format!("git: neither branch nor tag 3f9c2d1 exists on {url}; give all digits of a commit");
    pod.fails(&order(&pod, git(&url, "3f9c2d1")), "SourceFailed", &message);
    let pod = Pod::new();
    let empty = server.url("empty");
    pod.fails(&order(&pod, git(&empty, "")), "SourceFailed", &format!("git: {empty} has no commits"));
    let pod = Pod::new();
    let nowhere = server.url("nowhere");
    let message = format!("git: {nowhere} does not exist, or is only shown to those who may read it");
    pod.fails(&order(&pod, git(&nowhere, "main")), "SourceFailed", &message);
}

#[test]
fn hostile_words_of_an_order_stay_words() {
    for (url, revision, message) in [
        ("ext::sh -c touch% /tmp/x", "main", "source.git.url must be a git address"),
        ("--upload-pack=id", "main", "source.git.url must be a git address"),
        ("http://me:pw@127.0.0.1/x", "main", "source.git.url must not hold a user or password"),
        ("file:///x", "--upload-pack=id", "source.git.revision \"--upload-pack=id\" must be a branch"),
        ("file:///x", "a:refs/heads/b", "source.git.revision \"a:refs/heads/b\" must be a branch"),
    ] {
        let pod = Pod::new();
        let output = pod.command(Some(&order(&pod, git(url, revision)))).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with(&format!("error[SourceFailed]: {message}")), "{text}");
        assert!(!text.contains("pw@"), "{text}");
    }
}

fn secret(pod: &Pod, pairs: &[(&str, &str)]) {
    fs::create_dir_all(pod.path("windlass/git")).unwrap();
    for (key, value) in pairs {
        fs::write(pod.path("windlass/git").join(key), value).unwrap();
    }
}

fn with_secret(url: &str) -> GitOrder {
    GitOrder { secret_name: Some("git-key".into()), ..git(url, "main") }
}

#[test]
fn a_password_reaches_the_server_and_nothing_else() {
    let origin = origin();
    let server = Server::new(origin.path(), Manner { login: Some(LOGIN), ..Manner::default() });
    let pod = Pod::new();
    secret(&pod, &[("username", "me\n"), ("password", "s3cret-word\n")]);
    let output = pod.succeeds(&order(&pod, with_secret(&server.url("team/hello.git"))));
    assert_eq!(fs::read_to_string(pod.source("a")).unwrap(), "3\n");
    assert!(server.requests().iter().any(|request| request.ends_with(LOGIN)));
    assert!(!output.contains("s3cret-word"));
    for file in pod.files("dev") {
        let content = fs::read(&file).unwrap();
        let found =
            [b"s3cret-word".as_slice(), LOGIN.as_bytes()].iter().any(|w| content.windows(w.len()).any(|c| c == *w));
        assert!(!found, "{file:?} holds the password");
    }
}

#[test]
fn a_wrong_or_missing_login_says_so() {
    let origin = origin();
    let server = Server::new(origin.path(), Manner { login: Some(LOGIN), ..Manner::default() });
    let url = server.url("team/hello.git");
    let pod = Pod::new();
    let message = format!("{url} asks for a login; name a Secret in source.git.secretName");
    pod.fails(&order(&pod, git(&url, "main")), "SourceAuthFailed", &message);
    let pod = Pod::new();
    secret(&pod, &[("username", "me"), ("password", "wrong-word")]);
    let message = format!("{url} refused username and password of Secret git-key");
    let output = pod.fails(&order(&pod, with_secret(&url)), "SourceAuthFailed", &message);
    assert!(!output.contains("wrong-word"), "{output}");
    let pod = Pod::new();
    secret(&pod, &[("token", "x"), ("password", "y")]);
    let message = "Secret git-key has no key username; it has: password, token";
    pod.fails(&order(&pod, with_secret(&url)), "SecretKeyNotFound", message);
    let pod = Pod::new();
    let message = "Secret git-key does not exist in namespace team; source.git needs it";
    pod.fails(&order(&pod, with_secret(&url)), "SecretNotFound", message);
}

#[test]
fn a_password_never_goes_to_another_host() {
    let origin = origin();
    let thief = Server::new(origin.path(), Manner { login: Some(LOGIN), ..Manner::default() });
    let to = Some(thief.url("").trim_end_matches('/').to_owned());
    let server = Server::new(origin.path(), Manner { redirect: to, ..Manner::default() });
    let pod = Pod::new();
    secret(&pod, &[("username", "me"), ("password", "s3cret-word")]);
    let asks = thief.url("").trim_end_matches('/').to_owned();
    let own = server.url("").trim_end_matches('/').to_owned();
    let message = format!("{asks} asks for a login; Secret git-key is only for {own}");
    pod.fails(&order(&pod, with_secret(&server.url("team/hello.git"))), "SourceAuthFailed", &message);
    let requests = thief.requests();
    assert!(!requests.is_empty() && requests.iter().all(|request| request.ends_with(' ')), "{requests:?}");
}

#[test]
fn a_passing_fault_is_overcome() {
    let origin = origin();
    let server = Server::new(origin.path(), Manner { broken: 1, ..Manner::default() });
    let pod = Pod::new();
    let output = pod.succeeds(&order(&pod, git(&server.url("team/hello.git"), "main")));
    assert!(output.contains("503; trying again"), "{output}");
}

#[test]
fn the_runs_time_ends_a_fetch_and_all_its_processes() {
    let origin = origin();
    let server = Server::new(origin.path(), Manner { silent: true, ..Manner::default() });
    let pod = Pod::new();
    let order = Order { deadline_ms: pod::now_ms() + 1500, ..order(&pod, git(&server.url("team/hello.git"), "main")) };
    let message = "the run took longer than its timeout; the source was being fetched";
    pod.fails(&order, "RunTimedOut", message);
    assert_eq!(server.requests().len(), 1);
    // The home of git is in every child's environment.
    let home = pod.path("tmp").display().to_string();
    let alive = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let of_git = |environment: Vec<u8>| String::from_utf8_lossy(&environment).contains(&format!("HOME={home}"));
        processes.filter_map(|process| fs::read(process.path().join("environ")).ok()).any(of_git)
    };
    // A killed process may take a moment to go.
    for _ in 0..1000 {
        if !alive() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("git runs on");
}

#[test]
fn submodules_come_when_asked_for() {
    let origin = Origin::new();
    let server = Server::new(origin.path(), Manner { login: Some(LOGIN), ..Manner::default() });
    origin.repository("inner", &[&[("in", "inner\n")]]);
    origin.repository("middle", &[&[("mid", "middle\n")]]);
    for (outer, inner, path) in [("middle", "inner", "deep"), ("outer", "middle", "lib")] {
        if outer == "outer" {
            origin.repository("outer", &[&[("out", "outer\n")]]);
        }
        origin
            .git(outer, &["submodule", "--quiet", "add", &format!("file://{}/{inner}", origin.path().display()), path]);
        origin.git(outer, &["config", "-f", ".gitmodules", &format!("submodule.{path}.url"), &format!("../{inner}")]);
        origin.git(outer, &["commit", "-qam", "submodule"]);
    }
    for (submodules, direct, deep) in [(0, false, false), (1, true, false), (2, true, true)] {
        let pod = Pod::new();
        secret(&pod, &[("username", "me"), ("password", "s3cret-word")]);
        let git = GitOrder { submodules, ..with_secret(&server.url("outer")) };
        pod.succeeds(&order(&pod, git));
        assert_eq!(pod.source("lib/mid").exists(), direct, "{submodules}");
        assert_eq!(pod.source("lib/deep/in").exists(), deep, "{submodules}");
        if direct {
            assert_eq!(in_source(&pod, &["-C", "lib", "status", "--porcelain"]), "");
        }
    }
}

#[test]
fn a_submodule_cannot_lead_to_files_or_programs() {
    let origin = Origin::new();
    origin.repository("inner", &[&[("in", "inner\n")]]);
    origin.repository("outer", &[&[("out", "outer\n")]]);
    origin.git("outer", &["submodule", "--quiet", "add", &file_url(&origin, "inner"), "lib"]);
    let server = Server::new(origin.path(), Manner::default());
    let mark = origin.path().join("mark");
    let ext = format!("ext::touch {}", mark.display());
    for (url, transport) in [(file_url(&origin, "inner"), "file"), (ext, "ext")] {
        origin.git("outer", &["config", "-f", ".gitmodules", "submodule.lib.url", &url]);
        origin.git("outer", &["commit", "-qam", "lead"]);
        let pod = Pod::new();
        let git = GitOrder { submodules: 1, ..git(&server.url("outer"), "main") };
        let message = format!(
            "submodules: git: only https, ssh and file addresses are fetched: transport '{transport}' not allowed"
        );
        pod.fails(&order(&pod, git), "SourceFailed", &message);
        assert!(!mark.exists(), "a program of the repository ran");
    }
}

#[test]
fn only_a_directory_or_some_of_them() {
    let origin = Origin::new();
    let files = [("top", "t"), ("app/main", "m"), ("app/sub/x", "x"), ("docs/d", "d"), ("lib/l", "l")];
    origin.repository("r", &[&files]);
    symlink("/etc", origin.path().join("r/out")).unwrap();
    origin.git("r", &["add", "-A"]);
    origin.git("r", &["commit", "-qm", "link"]);
    let url = file_url(&origin, "r");

    let pod = Pod::new();
    let sparse = vec!["app/sub".into(), "docs/".into()];
    pod.succeeds(&order(&pod, GitOrder { sparse, ..git(&url, "main") }));
    assert_eq!(pod.names("dev/windlass/disk/source"), [".git", "app", "docs", "out", "top"]);
    assert!(pod.source("app/main").exists() && pod.source("app/sub/x").exists());
    assert_eq!(in_source(&pod, &["status", "--porcelain"]), "");

    let pod = Pod::new();
    pod.succeeds(&order(&pod, GitOrder { directory: Some("app".into()), ..git(&url, "main") }));
    assert_eq!(pod.names("dev/windlass/disk/source"), ["main", "sub"]);
    assert_eq!(pod.names("dev/windlass/disk"), ["source"]);

    for (directory, what) in [
        ("nowhere", "does not exist in the repository"),
        ("out", "is not a directory of the repository"),
        ("out/ssl", "is not a directory of the repository"),
        ("../x", "must be a relative directory without .."),
        ("/etc", "must be a relative directory without .."),
    ] {
        let pod = Pod::new();
        let git = GitOrder { directory: Some(directory.into()), ..git(&url, "main") };
        pod.fails(&order(&pod, git), "SourceFailed", &format!("source.git.directory: {directory} {what}"));
    }
}

#[test]
fn every_uid_can_read_the_source() {
    let origin = origin();
    let pod = Pod::new();
    let mut command = Command::new("sh");
    // An image may start it with another umask.
    let inner = pod.command(Some(&order(&pod, git(&file_url(&origin, "team/hello.git"), "main"))));
    command.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap());
    }
    assert!(command.status().unwrap().success());
    for file in pod.files("dev/windlass/disk/source") {
        for path in file.ancestors().take_while(|path| path.starts_with(pod.source(""))) {
            let metadata = fs::symlink_metadata(path).unwrap();
            let needed = if metadata.is_dir() { 0o555 } else { 0o444 };
            assert_eq!(metadata.permissions().mode() & needed, needed, "{path:?}");
        }
    }
}

/// Makes a program of this name the first in the path of what `command` runs.
fn with_program(pod: &Pod, command: &mut Command, name: &str, script: &str) {
    let directory = pod.path("bin");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(name), script).unwrap();
    fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    let mut path = directory.into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    command.env("PATH", path);
}

#[test]
fn large_files_are_pulled_if_the_repository_has_them() {
    let origin = Origin::new();
    origin.repository("large", &[&[(".gitattributes", "*.bin filter=lfs\n"), ("x.bin", "pointer\n")]]);
    origin.repository("small", &[&[("x.bin", "content\n")]]);
    // Stands for git-lfs: notes how it is called, and writes the file.
    let script = "#!/bin/sh\nprintf '%s\\n' \"$*\" >> ../lfs-calls\n\
                  if [ \"$1\" = pull ]; then git config filter.lfs.smudge >> ../lfs-calls; echo large > x.bin; fi\n";
    for (name, lfs, calls, content) in [
        ("large", true, "version\npull origin\ngit-lfs smudge -- %f\n", "large\n"),
        ("large", false, "", "pointer\n"),
        ("small", true, "", "content\n"),
    ] {
        let pod = Pod::new();
        let mut command = pod.command(Some(&order(&pod, GitOrder { lfs, ..git(&file_url(&origin, name), "main") })));
        with_program(&pod, &mut command, "git-lfs", script);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(fs::read_to_string(pod.path("dev/windlass/disk/lfs-calls")).unwrap_or_default(), calls);
        assert_eq!(fs::read_to_string(pod.source("x.bin")).unwrap(), content);
    }
}

#[test]
fn git_gets_nothing_of_the_order_or_the_secrets() {
    let origin = origin();
    let pod = Pod::new();
    let mut command = pod.command(Some(&order(&pod, git(&file_url(&origin, "team/hello.git"), "main"))));
    let real = String::from_utf8(Command::new("sh").args(["-c", "command -v git"]).output().unwrap().stdout).unwrap();
    let log = pod.path("environment");
    let script = format!("#!/bin/sh\nenv >> {}\nexec {} \"$@\"\n", log.display(), real.trim());
    with_program(&pod, &mut command, "git", &script);
    command.env("UNRELATED_TOKEN", "s3cret-word");
    assert!(command.status().unwrap().success());
    let seen = fs::read_to_string(log).unwrap();
    assert!(seen.contains("GIT_TERMINAL_PROMPT=0"), "git was not seen");
    for word in ["WINDLASS_", "s3cret-word"] {
        assert!(!seen.contains(word), "git got {word}");
    }
}

#[test]
fn settings_that_the_box_plants_are_not_followed() {
    let origin = origin();
    let pod = Pod::new();
    // A box image that is quick could put these on the disk that it shares with this container.
    let mark = pod.path("mark");
    let hook = format!("#!/bin/sh\ntouch {}\n", mark.display());
    let mut command = pod.command(Some(&order(&pod, git(&file_url(&origin, "team/hello.git"), "main"))));
    let real = String::from_utf8(Command::new("sh").args(["-c", "command -v git"]).output().unwrap().stdout).unwrap();
    let planted = pod.path("planted");
    fs::create_dir_all(planted.join("hooks")).unwrap();
    fs::write(planted.join("hooks/post-checkout"), &hook).unwrap();
    fs::set_permissions(planted.join("hooks/post-checkout"), fs::Permissions::from_mode(0o755)).unwrap();
    let config =
        format!("[filter \"x\"]\n\tsmudge = touch {0}; cat\n[core]\n\tfsmonitor = touch {0}\n", mark.display());
    fs::write(planted.join("config"), config).unwrap();
    fs::create_dir_all(planted.join("info")).unwrap();
    fs::write(planted.join("info/attributes"), "* filter=x\n").unwrap();
    let script = format!(
        "#!/bin/sh\ncp -r {}/. {}/.git/\nexec {} \"$@\"\n",
        planted.display(),
        pod.path("dev/windlass/disk/source.part").display(),
        real.trim()
    );
    with_program(&pod, &mut command, "git", &script);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_to_string(pod.source("a")).unwrap(), "3\n");
    assert!(!mark.exists(), "a planted setting was followed");
}
