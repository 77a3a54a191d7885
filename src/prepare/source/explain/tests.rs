use super::super::address;
use super::*;

const HTTPS: &str = "https://git.example.com/team/hello.git";
const SSH: &str = "git@git.example.com:team/hello.git";

fn given(url: &str, secret: Option<&str>, stderr: &str) -> Problem {
    let address = address::parse(url).unwrap();
    problem(stderr, &Context { address: &address, secret })
}

fn check(url: &str, secret: Option<&str>, stderr: &str, expected: &str) {
    let (kind, why) = match given(url, secret, stderr) {
        Problem::Passing(why) => ("passing ", why),
        Problem::Lasting(why) => ("", why),
        other => panic!("{other:?} for {stderr}"),
    };
    assert_eq!(format!("{kind}{}: {}", why.reason, why.message), expected);
}

#[test]
fn knows_what_is_not_there() {
    assert_eq!(given(HTTPS, None, "fatal: couldn't find remote ref refs/heads/mian\n"), Problem::Missing);
    let stderr = "fatal: remote error: upload-pack: not our ref 3f9c2d1a3f9c2d1a3f9c2d1a3f9c2d1a3f9c2d1a\n";
    assert_eq!(given(HTTPS, None, stderr), Problem::Missing);
    let stderr = "error: Server does not allow request for unadvertised object 3f9c2d1a\n";
    assert_eq!(given(HTTPS, None, stderr), Problem::Unadvertised);
    assert_eq!(given(HTTPS, None, "fatal: remote error: want 3f9c2d1a not valid\n"), Problem::Unadvertised);
}

#[test]
fn a_server_cannot_speak_for_git() {
    let stderr = "remote: fatal: couldn't find remote ref x\nfatal: Out of memory, malloc failed\n";
    check(HTTPS, None, stderr, "SourceFailed: git: Out of memory, malloc failed");
}

#[test]
fn explains_logins() {
    let ask = "fatal: could not read Username for 'https://git.example.com': terminal prompts disabled\n";
    check(
        HTTPS,
        None,
        ask,
        "SourceAuthFailed: https://git.example.com/team/hello.git asks for a login; name a Secret in source.git.secretName",
    );
    check(
        HTTPS,
        Some("git-key"),
        ask,
        "SourceAuthFailed: https://git.example.com/team/hello.git refused username and password of Secret git-key",
    );
    check(
        HTTPS,
        Some("git-key"),
        "fatal: Authentication failed for 'https://git.example.com/team/hello.git/'\n",
        "SourceAuthFailed: https://git.example.com/team/hello.git refused username and password of Secret git-key",
    );
    check(
        HTTPS,
        Some("git-key"),
        "fatal: could not read Username for 'https://evil.example.com': terminal prompts disabled\n",
        "SourceAuthFailed: https://evil.example.com asks for a login; Secret git-key is only for https://git.example.com",
    );
    check(
        HTTPS,
        None,
        "fatal: unable to access 'https://git.example.com/team/hello.git/': The requested URL returned error: 403\n",
        "SourceAuthFailed: https://git.example.com/team/hello.git refused access; name a Secret in source.git.secretName",
    );
}

#[test]
fn explains_ssh() {
    let unknown = "No ED25519 host key is known for git.example.com and you have requested strict checking.\n\
                   Host key verification failed.\nfatal: Could not read from remote repository.\n";
    check(
        SSH,
        Some("git-key"),
        unknown,
        "SourceAuthFailed: the host key of git.example.com is not in known_hosts of Secret git-key, or has changed",
    );
    check(
        SSH,
        None,
        unknown,
        "SourceAuthFailed: git@git.example.com:team/hello.git asks for a key; name a Secret with ssh-privatekey and \
         known_hosts in source.git.secretName",
    );
    let denied = "git@git.example.com: Permission denied (publickey).\nfatal: Could not read from remote repository.\n";
    check(
        SSH,
        Some("git-key"),
        denied,
        "SourceAuthFailed: git@git.example.com:team/hello.git refused the key of Secret git-key",
    );
    check(
        SSH,
        Some("git-key"),
        &format!("Load key \"/tmp/x/ssh-privatekey\": error in libcrypto\n{denied}"),
        "SourceAuthFailed: ssh-privatekey of Secret git-key cannot be used; it must be a private key without passphrase",
    );
    check(
        SSH,
        Some("git-key"),
        "ERROR: Repository not found.\nfatal: Could not read from remote repository.\n\nPlease make sure you have the \
         correct access rights\nand the repository exists.\n",
        "SourceFailed: git: git@git.example.com:team/hello.git does not exist, or is only shown to those who may read it",
    );
}

#[test]
fn explains_the_network() {
    check(
        HTTPS,
        None,
        "fatal: unable to access 'https://git.example.com/team/hello.git/': Could not resolve host: git.example.com\n",
        "passing SourceFailed: cannot resolve git.example.com (source.git.url) from the cluster",
    );
    check(
        HTTPS,
        None,
        "fatal: unable to access 'https://git.example.com/team/hello.git/': Could not resolve proxy: proxy.local\n",
        "passing SourceFailed: cannot resolve proxy.local from the cluster",
    );
    check(
        SSH,
        None,
        "ssh: Could not resolve hostname git.example.com: Name or service not known\nfatal: Could not read from remote \
         repository.\n",
        "passing SourceFailed: cannot resolve git.example.com (source.git.url) from the cluster",
    );
    check(
        HTTPS,
        None,
        "fatal: unable to access 'https://git.example.com/team/hello.git/': Failed to connect to git.example.com port 443 \
         after 0 ms: Couldn't connect to server\n",
        "passing SourceFailed: git: cannot connect to https://git.example.com/team/hello.git: unable to access \
         'https://git.example.com/team/hello.git/': Failed to connect to git.example.com port 443 after 0 ms: Couldn't \
         connect to server",
    );
    check(
        HTTPS,
        None,
        "error: RPC failed; curl 28 Operation too slow. Less than 1000 bytes/sec transferred the last 60 seconds\nfatal: \
         early EOF\n",
        "passing SourceFailed: git: https://git.example.com/team/hello.git broke off: early EOF",
    );
}

#[test]
fn explains_the_rest() {
    check(
        HTTPS,
        None,
        "fatal: unable to access 'https://git.example.com/team/hello.git/': server certificate verification failed. \
         CAfile: none CRLfile: none\n",
        "SourceFailed: git: the certificate of git.example.com is not trusted: unable to access \
         'https://git.example.com/team/hello.git/': server certificate verification failed. CAfile: none CRLfile: none",
    );
    check(
        HTTPS,
        None,
        "fatal: repository 'https://git.example.com/team/hello.git/' not found\n",
        "SourceFailed: git: https://git.example.com/team/hello.git does not exist, or is only shown to those who may read it",
    );
    check(
        HTTPS,
        None,
        "error: unable to write file a: No space left on device\n",
        "SourceFailed: git: the disk of the node has no space left",
    );
    check(
        HTTPS,
        None,
        "fatal: transport 'ext' not allowed\n",
        "SourceFailed: git: only https, ssh and file addresses are fetched: transport 'ext' not allowed",
    );
    check(HTTPS, None, "", "SourceFailed: git: it failed without a word");
    check(HTTPS, None, "a\u{1b}[2Jb\n", "SourceFailed: git: a [2Jb");
    let Problem::Lasting(why) = given(HTTPS, None, &"é".repeat(9000)) else { panic!() };
    assert_eq!(why.message.chars().count(), "git: …".chars().count() + 500);
}
