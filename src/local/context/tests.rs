use super::*;
use crate::archive::Writer;
use flate2::read::GzDecoder;
use futures::TryStreamExt as _;
use rstest::rstest;
use std::io::Write as _;

fn entry(path: &str, kind: Kind) -> Entry {
    Entry { path: path.into(), kind, mode: 0o644, uid: 0, gid: 0, mtime: 0 }
}

/// A line of the tables: `NAME`, `NAME/`, `NAME=content`, `NAME->symbolic link`, `NAME=>hard link`.
fn packed(lines: &[&str]) -> File {
    let mut writer = Writer::new(Vec::new());
    let targets: Vec<&str> = lines.iter().filter_map(|line| Some(line.split_once("=>")?.1)).collect();
    for line in lines {
        let (path, kind, content) = if let Some((path, target)) = line.split_once("=>") {
            (path, Kind::HardLink { target: target.into() }, "")
        } else if let Some((path, target)) = line.split_once("->") {
            (path, Kind::Symlink { target: target.into() }, "")
        } else if let Some(path) = line.strip_suffix('/') {
            (path, Kind::Directory, "")
        } else {
            let (path, content) = line.split_once('=').unwrap_or((line, ""));
            (path, Kind::File { size: content.len() as u64, linked: targets.contains(&path) }, content)
        };
        writer.entry(&entry(path, kind), true).unwrap();
        writer.content(content.as_bytes()).unwrap();
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&writer.finish().unwrap()).unwrap();
    file.rewind().unwrap();
    file
}

/// The context in the same form.
async fn made(packed: File, dockerfile: &str) -> Result<Vec<String>, PushError> {
    let pieces = context(packed, Shape::default(), dockerfile.into()).await?;
    let bytes: Vec<Bytes> = pieces.try_collect().await.unwrap();
    let mut reader = Reader::new(GzDecoder::new(io::Cursor::new(bytes.concat())));
    let mut lines = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let path = String::from_utf8(entry.path).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).unwrap();
        lines.push(match entry.kind {
            Kind::Directory => path + "/",
            Kind::Symlink { target } => format!("{path}->{}", text(&target)),
            Kind::HardLink { target } => format!("{path}=>{}", text(&target)),
            Kind::File { size: 0, .. } => path,
            Kind::File { size, .. } => {
                let mut content = vec![0; usize::try_from(size).unwrap()];
                let length = reader.content(&mut content).unwrap();
                format!("{path}={}", text(&content[..length]))
            }
        });
    }
    Ok(lines)
}

#[rstest]
#[case::no_such_file(&["Dockerfile", "a/", "a/b=>Dockerfile"], &["Dockerfile", "a/", "a/b=>Dockerfile"])]
#[case::files_before_it(&[".a", ".dockerignore=.a\n", "Dockerfile"], &[".dockerignore=.a\n", "Dockerfile"])]
#[case::a_directory(&[".dockerignore=d\n", "Dockerfile", "d/", "d/e", "e"], &[".dockerignore=d\n", "Dockerfile", "e"])]
#[case::an_exception(&[".dockerignore=d\n!d/f", "Dockerfile", "d/", "d/e", "d/f"], &[".dockerignore=d\n!d/f", "Dockerfile", "d/f"])]
#[case::the_two_of_the_engine(&[".dockerignore=*", "Dockerfile", "a"], &[".dockerignore=*", "Dockerfile"])]
#[case::another_name(&[".dockerignore=*", "dockerfile"], &[".dockerignore=*", "dockerfile"])]
#[case::only_one_of_both_names(&[".dockerignore=*", "Dockerfile", "dockerfile"], &[".dockerignore=*", "Dockerfile"])]
#[case::a_dockerfile_elsewhere(
    &[".dockerignore=*", "Dockerfile->d/one", "d/", "d/one->../e/two", "e/", "e/one", "e/two=x"],
    &[".dockerignore=*", "Dockerfile->d/one", "d/one->../e/two", "e/two=x"]
)]
#[case::a_link(&[".dockerignore->d/i", "Dockerfile", "a", "d/", "d/i=a"], &[".dockerignore->d/i", "Dockerfile", "d/", "d/i=a"])]
#[case::a_hard_link(&[".a=a", ".dockerignore=>.a", "Dockerfile", "a"], &[".a=a", ".dockerignore=>.a", "Dockerfile"])]
#[case::a_hard_link_of_what_stays_out(
    &[".dockerignore=*/deps", "Dockerfile", "t/", "t/deps/", "t/deps/x=content", "t/run=>t/deps/x", "t/z=>t/deps/x"],
    &[".dockerignore=*/deps", "Dockerfile", "t/", "t/run=content", "t/z=>t/run"]
)]
#[case::a_hard_link_that_stays_out(
    &[".dockerignore=b", "Dockerfile", "a=content", "b=>a", "c=>a"],
    &[".dockerignore=b", "Dockerfile", "a=content", "c=>a"]
)]
#[tokio::test]
async fn the_context_is_what_was_packed_less_what_is_named(#[case] lines: &[&str], #[case] expected: &[&str]) {
    assert_eq!(made(packed(lines), "Dockerfile").await.unwrap(), expected);
}

#[tokio::test]
async fn the_dockerfile_that_is_named_goes_along() {
    let lines = [".dockerignore=**", "Dockerfile", "d/", "d/[a]", "d/a", "d/dockerfile"];
    assert_eq!(made(packed(&lines), "./d/../d/[a]").await.unwrap(), [".dockerignore=**", "d/[a]"]);
    assert_eq!(made(packed(&lines), "none").await.unwrap(), [".dockerignore=**"]);
}

#[rstest]
#[case::a_pattern(&[".dockerignore=a\n[b", "Dockerfile"], ".dockerignore, line 2: pattern [b: a [ without its ]")]
#[case::a_directory(&[".dockerignore/", "Dockerfile"], ".dockerignore: .dockerignore is no file of the context")]
#[case::a_dead_link(&[".dockerignore->gone", "Dockerfile"], ".dockerignore: gone is no file of the context")]
#[case::a_ring(&[".dockerignore->a", "Dockerfile", "a->.dockerignore"], ".dockerignore: .dockerignore is no file of the context")]
#[tokio::test]
async fn what_is_broken_is_told_before_anything_is_sent(#[case] lines: &[&str], #[case] message: &str) {
    let error = made(packed(lines), "Dockerfile").await.unwrap_err();
    assert_eq!((error.reason, error.message.as_str()), (reason::INVALID_PROPERTY, message));
}

#[tokio::test]
async fn a_file_that_is_too_large_is_not_read() {
    let size = usize::try_from(dockerignore::MAX_BYTES).unwrap();
    for (size, is_well) in [(size, true), (size + 1, false)] {
        let file = format!(".dockerignore={}", "#".repeat(size));
        let made = made(packed(&[&file, "Dockerfile"]), "Dockerfile").await;
        assert_eq!(
            made.map_err(|error| error.message).err(),
            (!is_well).then(|| format!(".dockerignore has {size} bytes; 1048576 are the most"))
        );
    }
}
