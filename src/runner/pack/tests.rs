use super::*;
use crate::archive::{Entry, Kind, Reader};
use proptest::prelude::*;
use rstest::rstest;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;
use tempfile::TempDir;

/// A directory to pack, and where the archive goes.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        Self { dir }
    }

    /// What this shell script makes in the tree.
    fn made(script: &str) -> Self {
        let place = Self::new();
        let made = Command::new("sh").args(["-euc", script]).current_dir(place.path("tree")).status().unwrap();
        assert!(made.success());
        place
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    fn pack(&self, directories: &[&str]) -> Packed {
        let directories: Vec<OsString> = directories.iter().map(|path| self.path(path).into()).collect();
        run(&self.path("archive"), &self.path("report"), &directories).unwrap();
        take_report(&self.path("report"))
    }

    fn packed(&self) -> Vec<Entry> {
        assert_eq!(self.pack(&["tree"]), Packed::Archive);
        let mut reader = Reader::new(File::open(self.path("archive")).unwrap());
        std::iter::from_fn(|| reader.next_entry().unwrap()).collect()
    }

    fn refused(&self) -> (PackFault, String) {
        match self.pack(&["tree"]) {
            Packed::Archive => panic!("it was packed"),
            Packed::Refused { fault, message } => (fault, message),
        }
    }

    /// Modes, owners, sizes, times, links and contents of a directory, by programs that are not ours.
    fn listing(&self, tree: &str) -> String {
        let script = "find . -mindepth 1 \\( -type d -printf '%P d %m %U:%G %Ts\\n' \\) \
             -o \\( -type f -printf '%P f %m %U:%G %Ts %s %n ' -exec sha256sum {} \\; \\) \
             -o -printf '%P %y %U:%G %Ts %l\\n' | LC_ALL=C sort";
        let output = Command::new("sh").args(["-euc", script]).current_dir(self.path(tree)).output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Has GNU tar unpack the archive.
    fn unpack(&self) {
        fs::create_dir(self.path("copy")).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["-x", "-p", "--numeric-owner", "--warning=no-unknown-keyword", "-f"]).arg(self.path("archive"));
        assert!(tar.arg("-C").arg(self.path("copy")).status().unwrap().success());
    }
}

const EVERYTHING: &str = "
    echo hello > run; chmod 755 run; echo secret > private; chmod 600 private
    echo x > su; chmod 6755 su; mkdir sticky; chmod 1777 sticky
    mkdir -p empty a/b/c; echo deep > a/b/c/file; ln -s ../../run a/b/link; ln -s /etc/hosts absolute; ln -s nowhere dangling
    echo two > a/one; ln a/one a/two; ln a/one b-three; : > zero
    head -c 300000 /dev/urandom > large; mkdir a-b; echo y > a-b/x; mkdir locked; echo z > locked/z; chmod 555 locked
    long=$(printf 'n%.0s' $(seq 120)); mkdir -p $long/$long; echo l > $long/$long/l; ln -s $long/$long/$long short
    printf 'odd' > \"$(printf 'new\\nline \\303\\251 \\377')\"; touch -d @1 old; touch -h -d @1000000000 dangling";

#[test]
fn other_programs_unpack_what_was_packed() {
    let place = Place::made(EVERYTHING);
    let entries = place.packed();
    let paths: Vec<&[u8]> = entries.iter().map(|entry| entry.path.as_slice()).collect();
    let mut sorted = paths.clone();
    sorted.sort_by(|a, b| a.split(|c| *c == b'/').cmp(b.split(|c| *c == b'/')));
    assert_eq!(paths, sorted);
    place.unpack();
    let listing = place.listing("tree");
    assert_eq!(place.listing("copy"), listing);
    assert!(
        listing.contains("su f 6755") && listing.contains("a/two f 644") && listing.lines().count() > 25,
        "{listing}"
    );
    let bytes = fs::read(place.path("archive")).unwrap();
    place.packed();
    assert!(fs::read(place.path("archive")).unwrap() == bytes, "packed again it is the same");
}

#[test]
fn files_with_several_names_are_packed_once() {
    let place = Place::made(
        "mkdir z; head -c 100000 /dev/zero > b; ln b z/c; ln b a; ln -s b l; ln l m; echo x > ../o; ln ../o out",
    );
    let kinds: Vec<(String, Kind)> =
        place.packed().into_iter().map(|entry| (String::from_utf8(entry.path).unwrap(), entry.kind)).collect();
    let hard = || Kind::HardLink { target: b"a".to_vec() };
    let soft = || Kind::Symlink { target: b"b".to_vec() };
    assert_eq!(
        kinds,
        [
            ("a".to_owned(), Kind::File { size: 100_000, linked: true }),
            ("b".into(), hard()),
            ("l".into(), soft()),
            ("m".into(), soft()),
            // Its other name is not in the tree; its content is.
            ("out".into(), Kind::File { size: 2, linked: true }),
            ("z".into(), Kind::Directory),
            ("z/c".into(), hard()),
        ]
    );
    assert!(fs::metadata(place.path("archive")).unwrap().len() < 120_000);
}

#[rstest]
#[case::fifo("mkdir a; mkfifo a/pipe", "/a/pipe is a FIFO")]
#[case::whiteout(
    "mkdir -p usr; : > usr/.wh.bin",
    "/usr/.wh.bin has a name that begins with .wh., which means a deletion in an image; rename it"
)]
#[case::link_out("mkdir a; ln -s ../../etc a/l", "/a/l is a link to ../../etc, which is outside the image")]
#[case::sparse("truncate -s 8G disk.img", "/disk.img is a sparse file: it says 8.5 GB and holds 0 B")]
#[case::sparser(
    "truncate -s 1T disk.img; echo end >> disk.img",
    "/disk.img is a sparse file: it says 1099.5 GB and holds 4.0 kB"
)]
fn what_may_not_be_in_an_image_is_named(#[case] script: &str, #[case] message: &str) {
    assert_eq!(Place::made(script).refused(), (PackFault::Unsafe, message.to_owned()));
}

#[test]
fn sockets_and_devices_are_named() {
    let place = Place::new();
    let _socket = UnixListener::bind(place.path("tree/socket")).unwrap();
    assert_eq!(place.refused(), (PackFault::Unsafe, "/socket is a socket".into()));
    let report = place.pack(&["/dev"]);
    let Packed::Refused { fault: PackFault::Unsafe, message } = report else { panic!("{report:?}") };
    assert!(message.ends_with("is a device"), "{message}");
}

#[test]
fn holes_that_an_image_can_take_are_packed() {
    let place = Place::made("truncate -s 10M small; echo x > file");
    assert_eq!(place.packed()[1].kind, Kind::File { size: 10 << 20, linked: false });
}

#[test]
fn deep_trees_end_with_a_name_and_take_no_descriptors() {
    // Deeper than a process may have files open, and than a path may be long.
    let place = Place::made(
        "d=dddddddddddddddddddd; n=0; while [ $n -lt 300 ]; do mkdir $d; cd -P $d; n=$((n+1)); done; echo x > file",
    );
    let (fault, message) = place.refused();
    assert_eq!(fault, PackFault::Unsafe);
    assert!(message.contains("has a path of 3086 bytes; 3072 are the most"), "{message}");
    let place = Place::made("n=0; while [ $n -lt 1500 ]; do mkdir d; cd -P d; n=$((n+1)); done; echo x > f");
    assert_eq!(place.packed().len(), 1501);
}

#[test]
fn a_directory_with_a_file_is_chosen() {
    let place = Place::made("mkdir -p none/deep full/a; echo x > full/a/f; ln -s full link; echo x > file");
    for (directories, expected) in [
        (&["tree/none", "tree/full"][..], Packed::Archive),
        (&["tree/full", "tree/none"], Packed::Archive),
        (&["tree/link"], Packed::Archive),
        (&["tree/nowhere", "tree/full"], Packed::Archive),
    ] {
        assert_eq!(place.pack(directories), expected, "{directories:?}");
        let mut reader = Reader::new(File::open(place.path("archive")).unwrap());
        assert_eq!(reader.next_entry().unwrap().unwrap().path, b"a");
    }
    let Packed::Refused { fault, message } = place.pack(&["tree/none", "tree/file"]) else { panic!("it was packed") };
    let dir = place.dir.path().display();
    let expected = format!(
        "{dir}/tree/none holds no file and {dir}/tree/file is no directory; put there what the image is to hold"
    );
    assert_eq!((fault, message), (PackFault::Empty, expected));
}

#[test]
fn an_archive_that_cannot_be_written_is_told() {
    let place = Place::made("echo x > f");
    fs::create_dir(place.path("archive")).unwrap();
    let (fault, message) = place.refused();
    assert_eq!(fault, PackFault::Failed);
    assert!(message.starts_with("failed to write the archive: "), "{message}");
}

#[test]
fn a_report_is_taken_once_and_not_followed() {
    let place = Place::made("echo x > f");
    let report = place.path("report");
    assert_eq!(place.pack(&["tree"]), Packed::Archive);
    assert!(!report.exists(), "taken once");
    let lost = |packed: &Packed| matches!(packed, Packed::Refused { fault: PackFault::Failed, message } if message.starts_with("the packing left no report"));
    assert!(lost(&take_report(&report)));
    fs::write(place.path("other"), "\"archive\"").unwrap();
    symlink(place.path("other"), &report).unwrap();
    assert!(lost(&take_report(&report)));
    nix::unistd::mkfifo(&report, Mode::S_IRWXU).unwrap();
    assert!(lost(&take_report(&report)));
    fs::write(&report, "{}").unwrap();
    assert!(lost(&take_report(&report)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Any tree comes back by GNU tar as it was.
    #[test]
    fn any_tree_survives(
        files in proptest::collection::vec(("([a-c .é-]{1,3}/){0,3}[a-cx]{1,140}", 0..4_u8, 0..0o1000_u32, 0..5000_usize), 1..15)
    ) {
        let place = Place::new();
        for (path, kind, mode, size) in files {
            // Names that mean something else are made plain.
            let names = path.split('/').map(|name| name.replace('.', "d"));
            let path = names.fold(place.path("tree"), |path, name| path.join(name));
            if fs::symlink_metadata(&path).is_ok() || fs::create_dir_all(path.parent().unwrap()).is_err() {
                continue;
            }
            let made = match kind {
                0 => fs::create_dir(&path),
                1 => symlink("target", &path),
                2 if place.path("tree/first").exists() => fs::hard_link(place.path("tree/first"), &path),
                _ => fs::write(&path, vec![b'c'; size]),
            };
            if made.is_ok() && kind == 3 {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o400)).unwrap();
            }
        }
        fs::write(place.path("tree/first"), "first").unwrap();
        place.packed();
        place.unpack();
        prop_assert_eq!(place.listing("copy"), place.listing("tree"));
    }
}

#[test]
fn the_archive_belongs_to_who_owns_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    // Only root can give files away; another user has nothing to give.
    let other = if nix::unistd::geteuid().is_root() { 4321 } else { nix::unistd::geteuid().as_raw() };
    chown(dir.path(), Some(other), None).unwrap();
    let path = dir.path().join("packed-0.tar");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    hand_over(&file, &path).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.permissions().mode() & 0o777), (other, 0o600));
}
