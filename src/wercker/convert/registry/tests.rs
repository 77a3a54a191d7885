use super::*;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// Runs a step of ours in a directory, with programs of `bin` before all others; exit code and output.
fn run(shell: &str, directory: &Path, step: &str, properties: &[(&str, &str)], env: &[(&str, &str)]) -> (i32, String) {
    let shipped = shipped(step).unwrap();
    let id = shipped.names[0];
    let lines: String = properties.iter().map(|(name, value)| format!("{}\n", assignment(id, name, value))).collect();
    let path = format!("{}:/usr/bin:/bin", directory.join("bin").display());
    let mut command = Command::new(shell);
    command.args(["-ec", &format!("{lines}{}", shipped.code)]).current_dir(directory);
    command.env_clear().env("PATH", path).env("HOME", directory).envs(env.iter().copied());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code().unwrap(), text)
}

/// A directory with programs that write down how they were called.
fn place(programs: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("bin")).unwrap();
    for program in programs {
        let path = directory.path().join("bin").join(program);
        fs::write(&path, "#!/bin/sh\necho \"$(basename \"$0\") $*\"\ncase \"$*\" in *--config*) cat ;; esac\n")
            .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory
}

const SHELLS: [&str; 2] = ["/bin/sh", "/bin/bash"];

#[test]
fn package_steps_call_their_tools() {
    for shell in SHELLS {
        let place = place(&["apt-get", "npm", "bundle", "pip", "sudo"]);
        let run = |step: &str, properties: &[(&str, &str)]| run(shell, place.path(), step, properties, &[]);
        let (code, said) = run("install-packages", &[("packages", "git  curl")]);
        assert!(code == 0 && said.contains("install -y --no-install-recommends git curl"), "{said}");
        assert_eq!(run("npm-install", &[("options", "--production")]), (0, "npm install --production\n".into()));
        assert_eq!(run("npm-test", &[]), (0, "npm test \n".replace(" \n", "\n")));
        assert_eq!(run("bundle-install", &[("jobs", "2")]), (0, "bundle install --jobs 2\n".into()));
        assert_eq!(run("pip-install", &[("packages_list", "a b")]), (0, "pip install a b\n".into()));
        assert_eq!(run("pip-install", &[("requirements_file", "no.txt")]).0, 1);
        fs::write(place.path().join("requirements.txt"), "a\n").unwrap();
        assert_eq!(run("pip-install", &[]), (0, "pip install -r requirements.txt\n".into()));
    }
}

#[test]
fn files_are_created_and_not_replaced() {
    for shell in SHELLS {
        let place = place(&[]);
        let file = place.path().join("a/b.txt");
        let properties = [("filename", "a/b.txt"), ("content", "x $A `id` \"q\" \\ \n%s")];
        let env = [("A", "1")];
        assert_eq!(run(shell, place.path(), "create-file", &properties, &env), (0, String::new()));
        assert_eq!(fs::read_to_string(&file).unwrap(), "x 1 `id` \"q\" \\ \n%s");
        let (code, said) = run(shell, place.path(), "create-file", &properties, &env);
        assert!(code == 1 && said.contains("exists"), "{said}");
        let again = [("filename", "a/b.txt"), ("content", "y"), ("overwrite", "true")];
        assert_eq!(run(shell, place.path(), "create-file", &again, &env).0, 0);
        assert_eq!(fs::read_to_string(&file).unwrap(), "y");
    }
}

#[test]
fn keys_are_written_for_their_host() {
    for shell in SHELLS {
        let place = place(&[]);
        let properties = [("keyname", "DEPLOY"), ("host", "git.example.com")];
        let env = [("DEPLOY_PRIVATE", "-----BEGIN-----\\nabc\\n-----END-----")];
        assert_eq!(run(shell, place.path(), "add-ssh-key", &properties, &env), (0, String::new()));
        let key = place.path().join(".ssh/id_windlass_DEPLOY");
        assert_eq!(fs::read_to_string(&key).unwrap(), "-----BEGIN-----\nabc\n-----END-----\n");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let config = fs::read_to_string(place.path().join(".ssh/config")).unwrap();
        assert!(config.starts_with("Host git.example.com\n  IdentityFile "), "{config}");
        assert_eq!(run(shell, place.path(), "add-ssh-key", &properties, &[]).0, 1);
        // What a property holds is never carried out.
        let hostile = [("keyname", "A}`touch hit`"), ("host", "x")];
        let (code, said) = run(shell, place.path(), "add-ssh-key", &hostile, &env);
        assert!(code == 1 && said.contains("letters, digits and _"), "{said}");
        assert!(!place.path().join("hit").exists());
    }
}

#[test]
fn slack_is_told_without_the_address_in_an_argument() {
    for shell in SHELLS {
        let place = place(&["curl"]);
        let url = ("url", "https://hooks.example.com/T0/SECRET");
        let env = [
            ("WERCKER_RESULT", "failed"),
            ("WERCKER_FAILED_STEP_DISPLAY_NAME", "say \"hi\""),
            ("WERCKER_RUN_NAME", "r-1"),
        ];
        // The channel of the test's own program would be thrown away with its output.
        let curl = place.path().join("bin/curl");
        fs::write(&curl, "#!/bin/sh\n{ echo \"$*\"; cat; } >&2\n").unwrap();
        let (code, said) = run(shell, place.path(), "slack-notifier", &[url, ("channel", "#builds")], &env);
        let (arguments, config) = said.split_once('\n').unwrap();
        assert_eq!(code, 0, "{said}");
        assert!(!arguments.contains("SECRET") && config.contains("https://hooks.example.com/T0/SECRET"), "{said}");
        let body: serde_json::Value = serde_json::from_str(arguments.split("--data ").nth(1).unwrap()).unwrap();
        assert_eq!(body["channel"], "#builds");
        assert!(body["text"].as_str().unwrap().ends_with("has failed at step say \"hi\""), "{body}");
        let passed = [("WERCKER_RESULT", "passed")];
        assert_eq!(
            run(shell, place.path(), "slack-notifier", &[url, ("notify_on", "failed")], &passed),
            (0, String::new())
        );
    }
}

#[test]
fn hosts_are_known_by_their_fingerprint() {
    for shell in SHELLS {
        let place = place(&[]);
        let bin = place.path().join("bin");
        for (name, code) in [
            ("ssh-keyscan", "#!/bin/sh\necho 'h ssh-rsa one'\necho 'h ssh-rsa two'\n"),
            (
                "ssh-keygen",
                "#!/bin/sh\nfor last; do :; done\ngrep -q two \"$last\" && echo '256 SHA256:wanted h' || echo other\n",
            ),
        ] {
            fs::write(bin.join(name), code).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let run = |properties: &[(&str, &str)]| run(shell, place.path(), "add-to-known_hosts", properties, &[]);
        assert_eq!(run(&[("hostname", "h"), ("fingerprint", "SHA256:wanted")]), (0, String::new()));
        assert_eq!(fs::read_to_string(place.path().join(".ssh/known_hosts")).unwrap(), "h ssh-rsa two\n");
        assert_eq!(run(&[("hostname", "h"), ("fingerprint", "SHA256:none")]).0, 1);
    }
}
