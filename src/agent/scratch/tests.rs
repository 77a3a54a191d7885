use super::*;
use crate::archive::Kind;
use flate2::read::GzDecoder;
use rstest::rstest;
use std::thread;

fn entry(path: &str, kind: Kind) -> Entry {
    Entry { path: path.into(), kind, mode: 0o644, uid: 1000, gid: 100, mtime: 1_000_000_000 }
}

fn file(path: &str, size: u64) -> Entry {
    entry(path, Kind::File { size, linked: true })
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.entry(entry, true).unwrap();
        writer.content(&vec![b'x'; usize::try_from(entry.size()).unwrap()]).unwrap();
    }
    writer.finish().unwrap()
}

/// What was made: the document, and the layer as it was sent.
fn made(archive: &[u8], shape: Shape) -> Result<(serde_json::Value, Vec<u8>), PushError> {
    let (sender, mut pieces) = mpsc::channel(2);
    thread::scope(|scope| {
        let making = scope.spawn(|| make(archive, shape, sender));
        let mut layer = Vec::new();
        while let Some(piece) = pieces.blocking_recv() {
            assert!(piece.len() < 2 * PIECE_BYTES, "pieces are small");
            layer.extend_from_slice(&piece);
        }
        making.join().unwrap().map(|document| (serde_json::from_slice(&document).unwrap(), layer))
    })
}

fn unpacked(layer: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    GzDecoder::new(layer).read_to_end(&mut tar).unwrap();
    tar
}

fn entries(tar: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::new(tar);
    std::iter::from_fn(|| reader.next_entry().unwrap()).collect()
}

#[test]
fn the_layer_holds_the_files_in_their_shape_and_its_digest_is_told() {
    let packed = archive(&[
        file("a", 300_000),
        entry("d", Kind::Directory),
        entry("d/hard", Kind::HardLink { target: b"a".to_vec() }),
        entry("d/soft", Kind::Symlink { target: b"../a".to_vec() }),
    ]);
    let (document, layer) = made(&packed, Shape::default()).unwrap();
    let tar = unpacked(&layer);
    assert_eq!(document["rootfs"]["diff_ids"][0], crate::registry::digest::Digest::of(&tar).as_str());
    assert_eq!((&document["os"], document["architecture"].as_str()), (&"linux".into(), Some(architecture())));
    let kept = entries(&tar);
    assert_eq!(kept[0], Entry { kind: Kind::File { size: 300_000, linked: false }, ..file("a", 0) });
    assert_eq!(kept[1..], entries(&packed)[1..]);
    let shape = Shape { owner: Some((7, 8)), zero_times: true };
    let shaped = entries(&unpacked(&made(&packed, shape).unwrap().1));
    assert!(shaped.iter().all(|entry| (entry.uid, entry.gid, entry.mtime) == (7, 8, 0)));
    assert_eq!(made(&packed, shape).unwrap(), made(&packed, shape).unwrap(), "the same files give the same layer");
}

#[test]
fn times_make_a_difference_only_if_they_are_kept() {
    let later = Entry { mtime: 2_000_000_000, ..file("a", 5) };
    let (one, other) = (archive(&[file("a", 5)]), archive(&[later]));
    let zero = Shape { zero_times: true, ..Shape::default() };
    assert_eq!(made(&one, zero).unwrap(), made(&other, zero).unwrap());
    assert_ne!(made(&one, Shape::default()).unwrap(), made(&other, Shape::default()).unwrap());
}

#[rstest]
#[case::whiteout(archive(&[file(".wh.a", 1)]), reason::UNSAFE_FILE, "/.wh.a has a name")]
#[case::outside(archive(&[entry("l", Kind::Symlink { target: b"../x".to_vec() })]), reason::UNSAFE_FILE, "/l is a link to ../x")]
#[case::hard_link(archive(&[entry("l", Kind::HardLink { target: b"/x".to_vec() })]), reason::UNSAFE_FILE, "/l is a hard link to /x")]
#[case::above(archive(&[file("../x", 1)]), reason::UNSAFE_FILE, "/../x has a path that leads elsewhere")]
#[case::too_large({ let mut out = Vec::new(); Writer::new(&mut out).entry(&file("a", u64::MAX / 2), true).unwrap(); out }, reason::IMAGE_TOO_LARGE, "/a makes it more than 10 GiB")]
#[case::no_archive(b"#!/bin/sh\n".to_vec(), reason::COMMIT_FAILED, "the archive was changed")]
#[case::empty_file(Vec::new(), reason::COMMIT_FAILED, "the archive was changed")]
#[case::cut(archive(&[file("a", 3000)])[..2000].to_vec(), reason::COMMIT_FAILED, "the archive was changed")]
#[case::no_files(archive(&[entry("d", Kind::Directory)]), reason::EMPTY_IMAGE, "the archive holds no file")]
fn a_box_that_writes_to_its_archive_is_not_believed(
    #[case] archive: Vec<u8>,
    #[case] reason: &str,
    #[case] text: &str,
) {
    let error = made(&archive, Shape::default()).unwrap_err();
    assert_eq!(error.reason, reason, "{error}");
    assert!(error.message.starts_with(text) && !error.transient, "{error}");
}

#[test]
fn a_registry_that_leaves_ends_the_making() {
    let (sender, pieces) = mpsc::channel(1);
    drop(pieces);
    let error = make(archive(&[file("a", 3)]).as_slice(), Shape::default(), sender).unwrap_err();
    assert!(error.transient && error.message.contains("nobody takes it"), "{error}");
}
