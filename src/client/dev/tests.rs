use super::{
    local::{Delta, Local, Looks},
    *,
};
use crate::archive::{Reader, sync};
use std::{fs, os::unix::fs::PermissionsExt as _};

/// What a delta says, a word each: `+path`, `-path`, `>link`, with the content of files.
fn told(local: &Local, delta: &Delta, sent: &mut Looks) -> Vec<String> {
    let mut packed = Vec::new();
    local.pack(delta, sent, &mut packed, |_, _| {}).expect("a vector takes everything");
    let mut reader = Reader::new(packed.as_slice());
    let mut told = Vec::new();
    while let Some(entry) = reader.next_entry().expect("an archive") {
        let mut content = Vec::new();
        let mut buffer = [0; 512];
        loop {
            match reader.content(&mut buffer).expect("content") {
                0 => break,
                count => content.extend_from_slice(&buffer[..count]),
            }
        }
        let mode = entry.mode;
        told.push(match sync::change(entry).expect("what we send is taken") {
            sync::Change::Gone(path) => format!("-{}", String::from_utf8_lossy(&path)),
            sync::Change::Is(entry) => {
                let path = String::from_utf8_lossy(&entry.path).into_owned();
                match entry.kind {
                    crate::archive::Kind::Directory => format!("{path}/"),
                    crate::archive::Kind::Symlink { target } => format!("{path}>{}", String::from_utf8_lossy(&target)),
                    _ => format!("{path} {mode:o} {}", String::from_utf8_lossy(&content)),
                }
            }
        });
    }
    told
}

/// What is sent now, after which the box has it.
fn bring(local: &Local, sent: &mut Looks) -> Vec<String> {
    let delta = local.delta(sent, &local.look().looks);
    told(local, &delta, sent)
}

fn directory() -> (tempfile::TempDir, Local) {
    let dir = tempfile::tempdir().expect("a directory");
    let local = Local { root: dir.path().to_owned(), ignore: vec!["*.log".into()] };
    (dir, local)
}

#[test]
fn what_came_changed_and_went_is_sent_once() {
    let (dir, local) = directory();
    let at = |path: &str| dir.path().join(path);
    let write = |path: &str, text: &str| fs::write(at(path), text).expect("a file");
    let mut sent = Looks::new();
    fs::create_dir_all(at("src/deep")).expect("a directory");
    fs::create_dir(at("target")).expect("a directory");
    for (path, text) in
        [("run.sh", "1"), ("src/deep/a", "2"), ("x.log", ""), ("target/big", ""), (".gitignore", "/target/")]
    {
        write(path, text);
    }
    fs::set_permissions(at("run.sh"), fs::Permissions::from_mode(0o755)).expect("a mode");
    std::os::unix::fs::symlink("run.sh", at("link")).expect("a link");
    std::os::unix::fs::symlink("/etc/passwd", at("out")).expect("a link");
    let expected = [".gitignore 644 /target/", "link>run.sh", "run.sh 755 1", "src/", "src/deep/", "src/deep/a 644 2"];
    assert_eq!(bring(&local, &mut sent), expected);
    assert_eq!(bring(&local, &mut sent), Vec::<String>::new());

    // As editors do it: another file takes its name; truncated and written; a mode.
    write("new", "3");
    fs::rename(at("new"), at("run.sh")).expect("a rename");
    write("src/deep/a", "22");
    assert_eq!(bring(&local, &mut sent), ["run.sh 644 3", "src/deep/a 644 22"]);
    fs::set_permissions(at("run.sh"), fs::Permissions::from_mode(0o700)).expect("a mode");
    assert_eq!(bring(&local, &mut sent), ["run.sh 700 3"]);

    // A directory that moves, a file in place of a directory, a link in place of a file.
    fs::rename(at("src/deep"), at("moved")).expect("a rename");
    fs::remove_file(at("link")).expect("a removal");
    fs::create_dir(at("link")).expect("a directory");
    assert_eq!(bring(&local, &mut sent), ["-src/deep/a", "-src/deep", "link/", "moved/", "moved/a 644 22"]);
    fs::remove_dir_all(at("moved")).expect("a removal");
    fs::remove_file(at("run.sh")).expect("a removal");
    assert_eq!(bring(&local, &mut sent), ["-run.sh", "-moved/a", "-moved"]);
}

#[test]
fn what_is_ignored_from_now_on_is_not_told_to_be_gone() {
    let (dir, local) = directory();
    let mut sent = Looks::new();
    fs::write(dir.path().join("a.tmp"), "x").expect("a file");
    assert_eq!(bring(&local, &mut sent), ["a.tmp 644 x"]);
    fs::write(dir.path().join(".gitignore"), "*.tmp").expect("a file");
    assert_eq!(bring(&local, &mut sent), [".gitignore 644 *.tmp"]);
    fs::remove_file(dir.path().join("a.tmp")).expect("a removal");
    assert_eq!(bring(&local, &mut sent), ["-a.tmp"]);
}

#[test]
fn a_directory_that_was_a_link_for_a_while_is_sent_again() {
    let (dir, local) = directory();
    let at = |path: &str| dir.path().join(path);
    let mut sent = Looks::new();
    fs::create_dir(at("web")).expect("a directory");
    fs::write(at("web/a"), "1").expect("a file");
    assert_eq!(bring(&local, &mut sent), ["web/", "web/a 644 1"]);
    // Its files are there still, behind the link.
    fs::rename(at("web"), at("web.log")).expect("a rename");
    std::os::unix::fs::symlink("web.log", at("web")).expect("a link");
    assert_eq!(bring(&local, &mut sent), ["-web/a", "web>web.log"]);
    fs::remove_file(at("web")).expect("a removal");
    fs::rename(at("web.log"), at("web")).expect("a rename");
    assert_eq!(bring(&local, &mut sent), ["web/", "web/a 644 1"]);
}

#[test]
fn rules_of_the_repository_around_it_count() {
    let (dir, _) = directory();
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("repo/apps/web/dist")).expect("a directory");
    fs::create_dir(at("repo/.git")).expect("a directory");
    for (path, text) in [
        (".gitignore", "*"),
        ("repo/.gitignore", "*.key\n/apps/web/dist\n/top\n"),
        ("repo/apps/.gitignore", "*.bak\n!kept.key\n"),
        ("repo/apps/web/.gitignore", "!b.bak\n"),
        ("repo/apps/web/a.key", ""),
        ("repo/apps/web/kept.key", ""),
        ("repo/apps/web/a.bak", ""),
        ("repo/apps/web/b.bak", ""),
        ("repo/apps/web/top", ""),
        ("repo/apps/web/dist/x", ""),
    ] {
        fs::write(at(path), text).expect("a file");
    }
    let sent = |root: &str| {
        let looks = Local { root: at(root), ignore: Vec::new() }.look().looks;
        looks.into_keys().map(|path| String::from_utf8(path).expect("text")).collect::<Vec<_>>()
    };
    assert_eq!(sent("repo/apps/web"), [".gitignore", "b.bak", "kept.key", "top"]);
    // Without a repository nothing above counts.
    fs::remove_dir(at("repo/.git")).expect("a removal");
    assert_eq!(sent("repo/apps/web").len(), 8);
}

#[test]
fn another_pod_has_nothing_of_what_was_sent() {
    let (dir, local) = directory();
    fs::write(dir.path().join("a"), "1").expect("a file");
    let mut has = keep::Has::default();
    for (pod, sent) in [("x-1", 1), ("x-1", 0), ("x-2", 1), ("x-2", 0)] {
        has.be_in(Some(pod));
        assert_eq!(bring(&local, &mut has.files).len(), sent, "{pod}");
    }
    // While no pod is named, the box is still the one it was.
    has.be_in(None);
    assert_eq!(bring(&local, &mut has.files), Vec::<String>::new());
}

#[test]
fn a_file_that_changes_or_goes_while_it_is_sent_is_sent_again() {
    let (dir, local) = directory();
    let mut sent = Looks::new();
    fs::write(dir.path().join("a"), "one").expect("a file");
    fs::write(dir.path().join("b"), "two").expect("a file");
    let delta = local.delta(&sent, &local.look().looks);
    fs::write(dir.path().join("a"), "longer").expect("a file");
    fs::remove_file(dir.path().join("b")).expect("a removal");
    assert_eq!(told(&local, &delta, &mut sent), ["a 644 longer"]);
    assert_eq!(bring(&local, &mut sent), Vec::<String>::new());
}

#[test]
fn the_run_gets_its_source_from_here_and_waits_for_it() {
    let mut run =
        json!({"spec": {"source": {"git": {"url": "x"}}, "revision": "main", "breakpoint": {"before": ["b"]}}});
    prepare("f", &mut run, "a").expect("a run");
    assert_eq!(run["spec"], json!({"source": {"none": {}}, "breakpoint": {"before": ["b", "a"]}}));
    assert_eq!(first_step("f", &json!({"steps": [{"name": "a"}, {"name": "b"}]})), Ok("a".into()));
    assert!(first_step("f", &json!({"steps": []})).is_err());
}
