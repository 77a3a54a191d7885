//! Tests of the search for secrets.

use super::*;
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::io::Write;

const MIB: usize = 1 << 20;

fn secret(name: &str, value: &str) -> NamedSecret {
    NamedSecret { name: name.into(), value: Secret::new(value.into()) }
}

fn needles(value: &str) -> Needles {
    prepared(&[secret("other", "quite-another-value"), secret("key", value)]).unwrap()
}

fn prepared(secrets: &[NamedSecret]) -> Option<Needles> {
    Needles::new(secrets).unwrap_or_else(|error| panic!("{error}"))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Bytes that do not compress well.
fn noise(size: usize) -> Vec<u8> {
    (0..size).map(|n| u8::try_from(n * n / 7 % 251).unwrap()).collect()
}

/// A reader that gives pieces of one size.
struct Chunked<'a>(&'a [u8], usize);

impl Read for Chunked<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.1.min(self.0.len()).min(out.len());
        out[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        Ok(length)
    }
}

fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[156] = b'0';
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|b| u64::from(*b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header.extend_from_slice(content);
    header.resize(header.len().div_ceil(512) * 512, 0);
    header
}

fn found(path: Option<&str>) -> Verdict {
    Verdict::Found { name: "key".into(), path: path.map(Into::into) }
}

#[test]
fn names_secret_and_file() {
    let layer = [tar("etc/passwd", b"root:x:0:0"), tar("./root/.npmrc", b"//r/:_authToken=hunter2hunter2\n")].concat();
    for packed in [layer.clone(), gzip(&layer), zstd(&layer)] {
        let verdict = search_layer(&needles("hunter2hunter2"), Chunked(&packed, 77));
        assert_eq!(verdict, found(Some("/root/.npmrc")));
    }
}

#[test]
fn a_value_in_a_file_name_is_not_shown() {
    let layer = tar("tmp/hunter2hunter2.txt", b"x");
    assert_eq!(search_layer(&needles("hunter2hunter2"), &layer[..]), found(Some("/tmp/***.txt")));
}

#[test]
fn a_long_value_in_a_file_name_is_not_shown() {
    let value = "hunter2-".repeat(12);
    let layer = tar(&format!("tmp/{}", &value), b"x");
    assert_eq!(search_layer(&needles(&value), &layer[..]), found(Some("/tmp/***")));
}

#[test]
fn base64_at_each_alignment() {
    let value = "p~ss>w?rd-ÿ-0123";
    for before in 0..4 {
        let text = format!("{}{value}{}", "u".repeat(before), "tail");
        for encoded in [general_purpose::STANDARD.encode(&text), general_purpose::URL_SAFE.encode(&text)] {
            let content = format!("{{\"auth\":\"{encoded}\"}}");
            assert_eq!(search_layer(&needles(value), content.as_bytes()), found(None), "{before} {encoded}");
        }
    }
}

#[test]
fn a_newline_at_the_end_does_not_hide_a_value() {
    assert_eq!(search_layer(&needles("hunter2hunter2\n"), &b"a hunter2hunter2 b"[..]), found(None));
}

#[test]
fn a_part_of_a_long_value_is_enough() {
    let value: String = (0..5000).map(|n| char::from(b'a' + u8::try_from((n * n + n / 7) % 26).unwrap())).collect();
    assert_eq!(search_layer(&needles(&value), value.as_bytes()), found(None));
    assert!(needles(&value).longest < 400);
}

/// A value of its own for each number.
fn long(n: usize) -> String {
    let mut state = n as u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
    };
    let body: String = (0..400).map(|_| letter()).collect();
    format!("-----BEGIN PRIVATE KEY-----{body}")
}

/// Many long values take no more memory than fits, and each is still found, in each form, and nothing that only begins like one.
#[test]
fn many_long_values() {
    let secrets: Vec<_> = (0..1000).map(|n| secret(&format!("key-{n}"), &long(n))).collect();
    let needles = prepared(&secrets).unwrap();
    assert!(needles.automaton.memory_usage() < 8 * MIB, "{}", needles.automaton.memory_usage());
    for n in [0, 1, 499, 999] {
        let encoded = general_purpose::STANDARD.encode(format!("xy{}", long(n)));
        for text in [long(n), encoded] {
            let expected = Verdict::Found { name: format!("key-{n}"), path: None };
            assert_eq!(search_layer(&needles, Chunked(text.as_bytes(), 1000)), expected, "{n}");
        }
        let middle = middle(long(n).as_bytes()).to_vec();
        let almost = tar("file", &[&middle[..250], b"......"].concat());
        assert_eq!(search_layer(&needles, &almost[..]), Verdict::Clean, "{n}");
    }
}

/// Where a long value only begins, another that begins at the same place, or within, is found.
#[test]
fn values_within_what_only_begins_like_one() {
    let mut secrets: Vec<_> = (0..1000).map(|n| secret(&format!("key-{n}"), &long(n))).collect();
    let middle = String::from_utf8(middle(long(7).as_bytes()).to_vec()).unwrap();
    let (outer, inner) = (middle[..10].to_owned(), middle[5..60].to_owned());
    secrets.push(secret("inner", &inner));
    let text = format!("..{}..", &middle[..200]);
    assert_eq!(prepared(&secrets).unwrap().search(text.as_bytes()), Some("inner"));
    secrets.push(secret("outer", &outer));
    assert_eq!(prepared(&secrets).unwrap().search(text.as_bytes()), Some("outer"));
}

#[test]
fn values_that_are_too_many_are_said_to_be() {
    let secrets: Vec<_> = (0..20_000).map(|n| secret("key", &long(n))).collect();
    let Err(error) = Needles::new(&secrets) else { panic!("they were looked for") };
    assert_eq!(error.reason, "SecretsNotSearched");
    assert!(error.message.contains("cannot be looked for: 20000 are too many"), "{error}");
}

#[test]
fn short_values_are_not_looked_for() {
    assert!(prepared(&[secret("key", "12345\n")]).is_none());
    assert!(prepared(&[secret("key", "123456")]).is_some());
    assert!(prepared(&[]).is_none());
}

#[test]
fn what_cannot_be_read_is_said() {
    for packed in [gzip(&noise(100_000)), zstd(&noise(100_000))] {
        let Verdict::NotSearched(why) = search_layer(&needles("hunter2hunter2"), &packed[..40]) else {
            panic!("half a layer is clean")
        };
        assert!(why.starts_with("it cannot be unpacked: "), "{why}");
        assert_eq!(search_layer(&needles("hunter2hunter2"), &packed[..]), Verdict::Clean);
    }
    for unknown in [&b"\xfd7zXZ\0"[..], b"BZh9", &noise(5000), &[0; 100]] {
        let expected = Verdict::NotSearched("it is neither a tar nor compressed with gzip or zstd".into());
        assert_eq!(search_layer(&needles("hunter2hunter2"), unknown), expected);
    }
    // The last is a tar without files.
    for whole in [Vec::new(), tar("file", b"text"), vec![0; 1024]] {
        assert_eq!(search_layer(&needles("hunter2hunter2"), &whole[..]), Verdict::Clean);
    }
}

#[test]
fn zstd_is_unpacked_for_one_layer_at_a_time() {
    let needles = Arc::new(needles("hunter2hunter2"));
    let busy = needles.zstd.lock().unwrap();
    let (sent, verdict) = std::sync::mpsc::channel();
    let other = needles.clone();
    let search = std::thread::spawn(move || sent.send(search_layer(&other, &zstd(b"hunter2hunter2")[..])));
    assert_eq!(search_layer(&needles, &gzip(b"hunter2hunter2")[..]), found(None));
    assert!(verdict.recv_timeout(std::time::Duration::from_millis(50)).is_err());
    drop(busy);
    assert_eq!(verdict.recv().unwrap(), found(None));
    search.join().unwrap().unwrap();
}

#[test]
fn gzip_in_several_members_is_one_layer() {
    let layer = [gzip(b"nothing here "), gzip(b"but hunter2hunter2 here")].concat();
    assert_eq!(search_layer(&needles("hunter2hunter2"), &layer[..]), found(None));
}

#[tokio::test]
async fn beside_an_upload() {
    let needles = Arc::new(needles("hunter2hunter2"));
    let mut scan = Scan::start(needles.clone());
    for piece in [&b"aaa hunter2"[..], b"hunter2 bbb"] {
        scan.feed(Bytes::copy_from_slice(piece)).await;
    }
    assert_eq!(scan.verdict().await, found(None));
    let mut scan = Scan::start(needles);
    // Far more than waits in the queue: the search takes it all.
    for _ in 0..100 {
        scan.feed(Bytes::from(vec![0; 10_000])).await;
    }
    assert_eq!(scan.verdict().await, Verdict::Clean);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A value is found wherever it is, however the stream is cut.
    #[test]
    fn across_pieces(before in 0_usize..300_000, size in 1_usize..200_000) {
        let mut stream = vec![b'.'; before];
        stream.extend_from_slice(b"hunter2hunter2");
        stream.extend_from_slice(&[b'.'; 100]);
        prop_assert_eq!(search_layer(&needles("hunter2hunter2"), Chunked(&stream, size)), found(None));
    }

    /// Where the value is not, it is not found.
    #[test]
    fn nothing_else(text in "[a-z0-9+/=.]{0,500}") {
        prop_assume!(!text.contains("hunter2"));
        let value = "hunter2-hunter2-hunter2";
        prop_assert_eq!(search_layer(&needles(value), &tar("file", text.as_bytes())[..]), Verdict::Clean);
    }
}
