use super::*;
use crate::agent::fixture::POD_UID;
use std::os::unix::fs::{PermissionsExt, symlink};

fn volumes() -> (tempfile::TempDir, Volumes) {
    let kubelet = tempfile::tempdir().unwrap();
    let volumes = Volumes::new(kubelet.path(), POD_UID);
    std::fs::create_dir_all(volumes.out_dir()).unwrap();
    std::fs::create_dir_all(volumes.in_dir()).unwrap();
    (kubelet, volumes)
}

#[test]
fn a_file_is_read_in_pieces_and_whole() {
    let (_kubelet, volumes) = volumes();
    std::fs::write(volumes.out_dir().join("journal"), b"0123456789").unwrap();
    assert_eq!(volumes.read_out_at("journal", 4, 3).unwrap().unwrap(), b"456");
    assert_eq!(volumes.read_out_at("journal", 8, 100).unwrap().unwrap(), b"89");
    assert_eq!(volumes.read_out_at("journal", 99, 100).unwrap().unwrap(), b"");
    assert_eq!(volumes.read_out("journal", 10).unwrap().unwrap(), b"0123456789");
    assert_eq!(volumes.read_out("other", 10).unwrap(), None);
}

#[test]
fn before_the_volumes_there_is_nothing() {
    let kubelet = tempfile::tempdir().unwrap();
    let volumes = Volumes::new(kubelet.path(), POD_UID);
    assert_eq!(volumes.read_out_at("journal", 0, 10).unwrap(), None);
    assert!(!volumes.is_in("cancel"));
    assert!(volumes.put_in("cancel", b"").is_err());
    assert_eq!(volumes.secret_keys("push-0").unwrap(), Vec::<String>::new());
}

#[test]
fn a_large_file_is_refused() {
    let (_kubelet, volumes) = volumes();
    let file = std::fs::File::create(volumes.out_dir().join("request")).unwrap();
    // A hole costs the box nothing.
    file.set_len(1 << 40).unwrap();
    assert!(matches!(volumes.read_out("request", 1000), Err(FileError::TooLarge { cap: 1000, .. })));
}

#[test]
fn hostile_files_are_not_opened() {
    let (kubelet, volumes) = volumes();
    let (out, secret) = (volumes.out_dir(), kubelet.path().join("secret"));
    std::fs::write(&secret, b"of the node").unwrap();
    symlink(&secret, out.join("link")).unwrap();
    symlink("journal", out.join("inner")).unwrap();
    symlink("/proc/self/environ", out.join("magic")).unwrap();
    symlink(kubelet.path(), out.join("dir")).unwrap();
    std::fs::create_dir(out.join("folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(out.join("socket")).unwrap();
    let fifo = out.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    for name in ["link", "inner", "magic", "dir", "dir/secret", "folder", "socket", "fifo", "../in", "../../../secret"]
    {
        assert!(volumes.read_out(name, 100).is_err(), "{name} was read");
        assert!(volumes.read_out_at(name, 0, 100).is_err(), "{name} was read");
    }
}

#[test]
fn an_archive_is_a_regular_file_or_none() {
    let (kubelet, volumes) = volumes();
    let (archive, secret) = (volumes.disk_dir().join("packed-1.tar"), kubelet.path().join("secret"));
    assert!(volumes.open_disk("packed-1.tar").unwrap().is_none(), "there is no volume");
    std::fs::create_dir_all(volumes.disk_dir()).unwrap();
    assert!(volumes.open_disk("packed-1.tar").unwrap().is_none());
    std::fs::write(&secret, b"of the node").unwrap();
    symlink(&secret, &archive).unwrap();
    assert!(volumes.open_disk("packed-1.tar").is_err());
    std::fs::remove_file(&archive).unwrap();
    nix::unistd::mkfifo(&archive, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    assert!(volumes.open_disk("packed-1.tar").is_err());
    std::fs::remove_file(&archive).unwrap();
    std::fs::write(&archive, b"tar").unwrap();
    let read = std::io::read_to_string(volumes.open_disk("packed-1.tar").unwrap().unwrap()).unwrap();
    assert_eq!(read, "tar");
}

#[test]
fn a_file_is_put_once_and_for_all_to_read() {
    let (_kubelet, volumes) = volumes();
    assert!(volumes.put_in("answer-1.json", b"first").unwrap());
    assert!(!volumes.put_in("answer-1.json", b"second").unwrap());
    let path = volumes.in_dir().join("answer-1.json");
    assert_eq!(std::fs::read(&path).unwrap(), b"first");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(names(&volumes.in_dir(), "in").unwrap(), ["answer-1.json"], "nothing else is left");
    assert!(volumes.is_in("answer-1.json"));
}

#[test]
fn only_an_agent_gives_a_verdict_and_only_on_its_step() {
    let (_kubelet, volumes) = volumes();
    let verdict = Verdict::Passed { at: jiff::Timestamp::UNIX_EPOCH, images: Vec::new(), message: None };
    let path = volumes.in_dir().join("verdict-1.json");
    assert_eq!(volumes.verdict(1).unwrap(), None);
    assert!(volumes.put_in("verdict-1.json", &verdict.to_bytes(1)).unwrap());
    assert_eq!(volumes.verdict(1).unwrap(), Some(verdict.clone()));
    // Another user of the volume could have planted it, or moved one of ours.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(volumes.verdict(1).unwrap(), None);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(65532), None).unwrap();
        assert_eq!(volumes.verdict(1).unwrap(), None);
    }
    assert!(volumes.put_in("verdict-2.json", &verdict.to_bytes(1)).unwrap());
    assert_eq!(volumes.verdict(2).unwrap(), None);
    // What another release wrote is not done again.
    for bytes in
        [&b"nonsense"[..], br#"{"version":2,"step":3,"verdict":{}}"#, br#"{"version":1,"step":3,"verdict":{}}"#]
    {
        std::fs::write(volumes.in_dir().join("verdict-3.json"), bytes).unwrap();
        assert!(matches!(volumes.verdict(3).unwrap(), Some(Verdict::Failed { reason, .. }) if reason == "Interrupted"));
    }
}

#[test]
fn what_a_crash_left_of_a_file_is_in_nobodys_way() {
    let (_kubelet, volumes) = volumes();
    std::fs::write(volumes.in_dir().join(".answer-1.json.part"), b"fir").unwrap();
    assert!(volumes.put_in("answer-1.json", b"first").unwrap());
    assert_eq!(std::fs::read(volumes.in_dir().join("answer-1.json")).unwrap(), b"first");
}

#[test]
fn secrets_lie_behind_the_kubelets_links() {
    let (_kubelet, volumes) = volumes();
    let volume = volumes.secrets_dir().join("push-0");
    std::fs::create_dir_all(volume.join("..2026_01_01")).unwrap();
    std::fs::write(volume.join("..2026_01_01/password"), b"pw").unwrap();
    symlink("..2026_01_01", volume.join("..data")).unwrap();
    symlink("..data/password", volume.join("password")).unwrap();
    symlink("/etc/passwd", volume.join("outside")).unwrap();
    assert_eq!(volumes.secret("push-0", "password", 10).unwrap().unwrap(), b"pw");
    assert_eq!(volumes.secret("push-0", "username", 10).unwrap(), None);
    assert_eq!(volumes.secret("push-1", "password", 10).unwrap(), None);
    assert!(volumes.secret("push-0", "password", 1).is_err());
    assert!(volumes.secret("push-0", "outside", 9999).is_err());
    assert_eq!(volumes.secret_keys("push-0").unwrap(), ["outside", "password"]);
}

#[test]
fn keys_that_cannot_all_be_listed_are_an_error() {
    let (_kubelet, volumes) = volumes();
    let volume = volumes.secrets_dir().join("secret-0");
    std::fs::create_dir_all(&volume).unwrap();
    for key in 0..1000 {
        std::fs::write(volume.join(key.to_string()), "").unwrap();
    }
    assert_eq!(volumes.secret_keys("secret-0").unwrap().len(), 1000);
    std::fs::write(volume.join("more"), "").unwrap();
    assert!(matches!(volumes.secret_keys("secret-0"), Err(FileError::TooMany { cap: 1000, .. })));
    std::fs::write(volumes.secrets_dir().join("secret-1"), "a file").unwrap();
    assert!(matches!(volumes.secret_keys("secret-1"), Err(FileError::System { .. })));
}
