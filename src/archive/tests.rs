use super::header::BLOCK;
use super::*;
use proptest::prelude::*;
use rstest::rstest;
use std::io::Write as _;
use std::process::{Command, Stdio};

fn entry(path: &str, kind: Kind) -> Entry {
    Entry { path: path.into(), kind, mode: 0o755, uid: 1000, gid: 100, mtime: 1_000_000_000 }
}

fn file(path: &str) -> Entry {
    entry(path, Kind::File { size: 3, linked: false })
}

fn linked(path: &str) -> Entry {
    entry(path, Kind::File { size: 3, linked: true })
}

fn dir(path: &str) -> Entry {
    entry(path, Kind::Directory)
}

fn symlink(path: &str, target: &str) -> Entry {
    entry(path, Kind::Symlink { target: target.into() })
}

fn hard(path: &str, target: &str) -> Entry {
    entry(path, Kind::HardLink { target: target.into() })
}

/// An archive of these entries; a file holds `x`.
fn written(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.entry(entry, true).unwrap();
        writer.content(&vec![b'x'; usize::try_from(entry.size()).unwrap()]).unwrap();
    }
    writer.finish().unwrap()
}

/// All entries, with the bytes of their content.
fn read(archive: &[u8]) -> Result<Vec<(Entry, u64)>, ReadError> {
    let mut reader = Reader::new(archive);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let (mut buffer, mut length) = ([0; 700], 0);
        loop {
            match reader.content(&mut buffer)? {
                0 => break,
                more => length += more as u64,
            }
        }
        found.push((entry, length));
    }
    Ok(found)
}

fn refusal(entries: &[Entry]) -> (Fault, String) {
    let mut tree = Tree::default();
    let refused = entries.iter().find_map(|entry| tree.admit(entry).err()).expect("it was admitted");
    (refused.fault, short(&refused.to_string()))
}

#[test]
fn a_tree_of_everything_is_admitted() {
    let mut tree = Tree::default();
    for entry in [
        linked("a"),
        dir("bin"),
        file("bin/x"),
        hard("bin/y", "a"),
        dir("bin-2"),
        dir("empty"),
        dir("lib"),
        dir("lib/deep"),
        symlink("lib/deep/up", "../../bin/x"),
        symlink("lib/root", "/etc/../bin"),
        Entry { mode: 0o4755, ..file("su") },
    ] {
        tree.admit(&entry).unwrap();
    }
    assert_eq!((tree.files(), tree.bytes()), (6, 9));
}

#[rstest]
#[case::up(&[file("../x")], "/../x has a path that leads elsewhere")]
#[case::absolute(&[file("/x")], "//x has a path that leads elsewhere")]
#[case::inner(&[dir("a"), file("a/./x")], "/a/./x has a path that leads elsewhere")]
#[case::empty(&[file("")], "/ has a path that leads elsewhere")]
#[case::nul(&[file("a\0b")], "/a\u{fffd}b has a path that leads elsewhere")]
#[case::whiteout(&[file(".wh.etc")], "/.wh.etc has a name that begins with .wh., which means a deletion in an image; rename it")]
#[case::opaque(&[dir("a"), file("a/.wh..wh..opq")], "/a/.wh..wh..opq has a name that begins with .wh., which means a deletion in an image; rename it")]
#[case::whiteout_above(&[dir(".wh.a")], "/.wh.a has a name that begins with .wh., which means a deletion in an image; rename it")]
#[case::twice(&[file("a"), file("a")], "/a is there twice, or out of order")]
#[case::file_then_directory(&[file("a"), dir("a")], "/a is there twice, or out of order")]
#[case::back(&[file("b"), file("a")], "/a is there twice, or out of order")]
#[case::below_a_link(&[symlink("a", "/etc"), file("a/x")], "/a/x is not below a directory of this tree")]
#[case::below_a_file(&[file("a"), file("a/x")], "/a/x is not below a directory of this tree")]
#[case::below_nothing(&[dir("a"), file("b/x")], "/b/x is not below a directory of this tree")]
#[case::below_what_was_left(&[dir("a"), file("b"), file("c/x")], "/c/x is not below a directory of this tree")]
#[case::link_out(&[symlink("l", "../etc/passwd")], "/l is a link to ../etc/passwd, which is outside the image")]
#[case::link_out_below(&[dir("a"), symlink("a/l", "b/../../../x")], "/a/l is a link to b/../../../x, which is outside the image")]
#[case::link_above_root(&[symlink("l", "/../x")], "/l is a link to /../x, which is outside the image")]
#[case::empty_link(&[symlink("l", "")], "/l is a link that is empty or too long")]
#[case::hard_link_out(&[hard("h", "/etc/shadow")], "/h is a hard link to /etc/shadow, which is no file of this tree")]
#[case::hard_link_to_itself(&[hard("h", "h")], "/h is a hard link to h, which is no file of this tree")]
#[case::hard_link_to_a_link(&[symlink("a", "/x"), hard("h", "a")], "/h is a hard link to a, which is no file of this tree")]
#[case::hard_link_to_an_unmarked_file(&[file("a"), hard("h", "a")], "/h is a hard link to a, which is no file of this tree")]
#[case::owner(&[Entry { uid: u32::MAX, ..file("a") }], "/a belongs to 4294967295:100; numbers end at 2147483647")]
#[case::lines(&[symlink("a\nb", "../x\u{1b}[2J")], "/a\u{fffd}b is a link to ../x\u{fffd}[2J, which is outside the image")]
fn what_may_not_be_in_an_image(#[case] entries: &[Entry], #[case] message: &str) {
    assert_eq!(refusal(entries), (Fault::Unsafe, message.to_owned()));
}

#[test]
fn names_have_an_end() {
    let long = "n".repeat(256);
    assert!(refusal(&[file(&long)]).1.ends_with("has a name of 256 bytes; 255 are the most"));
    let mut entries = Vec::new();
    let mut path = "d".repeat(200);
    while path.len() <= MAX_PATH_BYTES {
        entries.push(dir(&path));
        path = format!("{path}/{}", "d".repeat(200));
    }
    entries.push(dir(&path));
    let (fault, message) = refusal(&entries);
    assert_eq!(fault, Fault::Unsafe);
    assert!(message.ends_with(&format!("has a path of {} bytes; {MAX_PATH_BYTES} are the most", path.len())));
    assert!(message.len() < 2 * 200 + 10, "{message}");
}

#[test]
fn messages_are_cut_in_their_middle_only_when_asked() {
    // What is to be masked can stand anywhere in a path, so a refusal has all of it.
    let path = "d/".repeat(300) + "x";
    assert_eq!(Refusal::unsafe_file(path.as_bytes(), "is a FIFO").to_string(), format!("/{path} is a FIFO"));
    for (message, want) in [
        ("é".repeat(400), "é".repeat(400)),
        (format!("{}-{}", "a".repeat(200), "é".repeat(200)), format!("{}…{}", "a".repeat(200), "é".repeat(200))),
        ("a\nb".into(), "a\u{fffd}b".into()),
        (String::new(), String::new()),
    ] {
        assert_eq!(short(&message), want);
    }
}

#[test]
fn sizes_and_counts_have_an_end() {
    let giant = |path: &str, size| entry(path, Kind::File { size, linked: false });
    let message = refusal(&[giant("a", MAX_BYTES), giant("b", 1)]);
    assert_eq!(message, (Fault::TooLarge, "/b makes it more than 10 GiB".into()));
    assert_eq!(refusal(&[giant("a", 1), giant("b", u64::MAX)]).0, Fault::TooLarge);
    let many: Vec<_> = (0..=MAX_ENTRIES).map(|n| file(&format!("{n:08}"))).collect();
    assert_eq!(refusal(&many), (Fault::TooLarge, "/01000000 is one file too many; 1000000 are the most".into()));
    let many: Vec<_> = (0..=100_000).map(|n| linked(&format!("{n:08}"))).collect();
    assert_eq!(refusal(&many).0, Fault::TooLarge);
}

#[test]
fn large_numbers_and_long_names_come_back() {
    let long = "d".repeat(180);
    let entries = [
        Entry { uid: u32::MAX, gid: 0o7_777_777, mtime: -5, ..linked("a") },
        Entry { uid: 0o10_000_000, mtime: 1 << 40, ..dir(&long) },
        file(&format!("{long}/é\n=1 x")),
        symlink(&format!("{long}/{long}"), &"t/".repeat(1000)),
        hard("z", &long),
    ];
    let found: Vec<_> = read(&written(&entries)).unwrap().into_iter().map(|(entry, _)| entry).collect();
    assert_eq!(found, entries);
    let giant = entry("g", Kind::File { size: 1 << 34, linked: false });
    let mut writer = Writer::new(Vec::new());
    writer.entry(&giant, false).unwrap();
    assert!(writer.finish().is_err(), "the content is missing");
    let mut header = Vec::new();
    Writer::new(&mut header).entry(&giant, false).unwrap();
    assert_eq!(Reader::new(header.as_slice()).next_entry().unwrap(), Some(giant));
}

#[test]
fn a_content_must_be_as_long_as_it_says() {
    let mut writer = Writer::new(Vec::new());
    writer.entry(&file("a"), false).unwrap();
    assert!(writer.content(b"four").is_err());
    writer.content(b"th").unwrap();
    assert!(writer.entry(&file("b"), false).is_err());
}

/// What GNU tar lists of an archive.
fn listed(archive: &[u8]) -> String {
    let mut tar = Command::new("tar")
        .args(["-t", "-v", "--numeric-owner", "--quoting-style=escape", "--utc", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(archive).unwrap();
    let output = tar.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn other_programs_read_it() {
    let long = "d".repeat(120);
    let archive = written(&[
        Entry { mode: 0o6755, ..linked("a") },
        Entry { uid: 2_147_483_647, mtime: -1, ..dir(&long) },
        symlink(&format!("{long}/l"), "/a"),
        hard("z", "a"),
    ]);
    let expected = format!(
        "-rwsr-sr-x 1000/100          3 2001-09-09 01:46 a\n\
         drwxr-xr-x 2147483647/100    0 1969-12-31 23:59 {long}/\n\
         lrwxrwxrwx 1000/100          0 2001-09-09 01:46 {long}/l -> /a\n\
         hrwxr-xr-x 1000/100          0 2001-09-09 01:46 z link to a\n"
    );
    let squeeze = |text: &str| text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    assert_eq!(squeeze(&listed(&archive)).replace("lrwxr-xr-x", "lrwxrwxrwx"), squeeze(&expected));
    // Marks are for the agent only.
    let mut plain = Writer::new(Vec::new());
    plain.entry(&linked("a"), false).unwrap();
    plain.content(b"xxx").unwrap();
    assert_eq!(plain.finish().unwrap().len(), 4 * BLOCK);
}

/// An archive of one file whose header is changed, with the checksum mended.
fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut archive = written(&[file("a")]);
    archive[at..at + bytes.len()].copy_from_slice(bytes);
    let sum = header::checksum(&archive[..BLOCK]);
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive
}

#[rstest]
#[case::character_device(b'3', "/a is a device")]
#[case::block_device(b'4', "/a is a device")]
#[case::fifo(b'6', "/a is a FIFO")]
fn what_has_no_place_in_an_image_is_refused_by_name(#[case] flag: u8, #[case] message: &str) {
    let Err(ReadError::Refused(refusal)) = read(&changed(156, &[flag])) else { panic!("it was taken") };
    assert_eq!((refusal.fault, refusal.to_string()), (Fault::Unsafe, message.to_owned()));
}

#[rstest]
#[case::unknown_kind(156, b"7")]
#[case::old_kind(156, b"\0")]
#[case::sparse(156, b"S")]
#[case::gnu_name(156, b"L")]
#[case::global(156, b"g")]
#[case::directory_without_slash(156, b"5")]
#[case::link_with_content(156, b"2")]
#[case::binary_size(124, b"\x80\0\0\0\0\0\0\0\0\0\0\x03")]
#[case::size_in_spaces(124, b"         3 \0")]
#[case::negative_size(124, b"-0000000003\0")]
#[case::gnu(257, b"ustar  \0")]
#[case::prefix(345, b"../..")]
#[case::size_too_large(124, b"00000007777\0")]
#[case::mode(100, b"9999999\0")]
fn what_the_runner_does_not_write_is_malformed(#[case] at: usize, #[case] bytes: &[u8]) {
    assert!(matches!(read(&changed(at, bytes)), Err(ReadError::Malformed(..))));
}

#[test]
fn archives_that_break_off_or_are_smeared_are_malformed() {
    let archive = written(&[file("a"), dir(&"d".repeat(150))]);
    assert_eq!(archive.len(), BLOCK * (2 + 3 + 2));
    for length in 0..archive.len() {
        assert!(matches!(read(&archive[..length]), Err(ReadError::Malformed(..))), "{length}");
    }
    for at in [0, 130, 148, 600, 1023, BLOCK * 2, BLOCK * 3 + 1, BLOCK * 3 + 400] {
        let mut smeared = archive.clone();
        smeared[at] ^= 0x55;
        assert!(matches!(read(&smeared), Err(ReadError::Malformed(..))), "{at}");
    }
}

#[rstest]
#[case::no_length(b"path=x\n")]
#[case::zero(b"0 path=x\n")]
#[case::short(b"3 path=x\n")]
#[case::long(b"99 path=x\n")]
#[case::huge(b"99999999999999999999 path=x\n")]
#[case::no_newline(b"9 path=xy")]
#[case::twice(b"10 path=x\n10 path=y\n")]
#[case::unknown(b"11 cmment=x\n")]
#[case::gnu_sparse(b"22 GNU.sparse.size=12\n")]
#[case::attributes(b"20 SCHILY.xattr.a=b\n")]
#[case::number(b"10 size=x\n")]
#[case::negative(b"11 size=-1\n")]
fn extended_headers_hold_known_records_only(#[case] records: &[u8]) {
    let mut archive = written(&[dir(&"d".repeat(150))]);
    let mut content = records.to_vec();
    content.resize(BLOCK, 0);
    archive[BLOCK..2 * BLOCK].copy_from_slice(&content);
    archive[124..136].copy_from_slice(format!("{:011o}\0", records.len()).as_bytes());
    let sum = header::checksum(&archive[..BLOCK]);
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert!(matches!(read(&archive), Err(ReadError::Malformed(_, "an extended header that cannot be read"))));
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let bytes = || proptest::collection::vec(1..=255_u8, 1..300);
    let kind = prop_oneof![
        (0..2000_u64, any::<bool>()).prop_map(|(size, linked)| Kind::File { size, linked }),
        bytes().prop_map(|target| Kind::Symlink { target }),
        bytes().prop_map(|target| Kind::HardLink { target }),
        Just(Kind::Directory),
    ];
    (bytes(), kind, 0..0o10000_u32, any::<u32>(), any::<u32>(), any::<i64>())
        .prop_map(|(path, kind, mode, uid, gid, mtime)| Entry { path, kind, mode, uid, gid, mtime })
}

proptest! {
    #[test]
    fn any_entry_comes_back(entries in proptest::collection::vec(any_entry(), 0..8)) {
        let found = read(&written(&entries)).unwrap();
        prop_assert_eq!(found, entries.iter().map(|entry| (entry.clone(), entry.size())).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..4000), at in 0..2000_usize) {
        let _ = read(&bytes);
        let mut archive = written(&[file("a"), dir(&"d".repeat(150))]);
        bytes.truncate(20);
        let end = (at + bytes.len()).min(archive.len());
        let begin = at.min(end);
        archive.splice(begin..end, bytes);
        let _ = read(&archive);
    }

    /// Whatever was admitted, unpacked by its own words, is a tree.
    #[test]
    fn what_is_admitted_is_a_tree(
        entries in proptest::collection::vec(("[ab](/[ab.]{1,2}){0,3}", 0..4_u8, "[ab./]{0,6}"), 0..12)
    ) {
        let mut tree = Tree::default();
        let (mut files, mut dirs) = (Vec::new(), vec![String::new()]);
        for (path, kind, target) in entries {
            let made = match kind {
                0 => linked(&path),
                1 => dir(&path),
                2 => symlink(&path, &target),
                _ => hard(&path, &target),
            };
            if tree.admit(&made).is_err() {
                break;
            }
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
            prop_assert!(dirs.contains(&parent));
            prop_assert!(!path.split('/').any(|name| name == "." || name == ".."));
            prop_assert!(!files.contains(&path) && !dirs.contains(&path));
            match kind {
                1 => dirs.push(path),
                3 => prop_assert!(files.contains(&target)),
                _ => files.push(path),
            }
        }
    }
}
