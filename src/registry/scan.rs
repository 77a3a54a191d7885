//! Searches layers for the values of a run's secrets while they stream by.
//!
//! The door feeds each layer to a [`Scan`], and asks for its verdict before it closes the upload.
//!
//! A value is looked for as it is, and in base64 (standard and URL alphabet) at each of the three alignments. Values of
//! less than 6 bytes are not looked for: they are in every image by chance. Of a long value its middle is looked for.
//! Where there are many, the search is for the beginnings of their forms, and what follows each is compared.
//!
//! A layer is searched as a plain tar and inside gzip and zstd. One that unpacks to far more than it is costs time, not
//! memory; the upload waits, and the time limit of the step ends both.
//!
//! **Invariant:** memory is bounded by [`MAX_PATTERNS`], the values themselves and fixed buffers; no value is in a
//! verdict. A layer is `Clean` only if it was read to its end.

use super::{
    credentials::Secret,
    error::{PushError, plain},
    tar::{Entries, is_header},
    zstd::Frames,
};
use crate::archive::header::BLOCK;
use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use base64::{Engine, engine::general_purpose};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use std::{
    collections::HashMap,
    io::{self, Read},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// Shortest value that is looked for.
pub const SHORTEST: usize = 6;
/// Longest part of a value that is looked for.
const LONGEST: usize = 256;
/// Most bytes of patterns that are searched for by a table; it has up to a kilobyte for each.
const MAX_TABLE: usize = 16 * 1024;
/// Most bytes of patterns in all; the compact form takes some ten bytes for each, and a hundred while it is made.
const MAX_PATTERNS: usize = 256 * 1024;
/// How much is searched at a time.
const WINDOW: usize = 128 * 1024;
/// How many pieces wait for the search.
const QUEUE: usize = 8;

/// The value of a secret, and what it is called in messages.
#[derive(Clone)]
pub struct NamedSecret {
    /// Such as `secret "registry-login" key "password"` or a variable's name.
    pub name: String,
    /// The value.
    pub value: Secret<String>,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Clean,
    /// A value.
    Found {
        /// Its name.
        name: String,
        /// The file that holds it.
        path: Option<String>,
    },
    /// The layer could not be read to its end.
    NotSearched(String),
}

/// The values to look for, in all their forms.
pub struct Needles {
    /// Finds the beginnings of forms; whole ones come first.
    automaton: AhoCorasick,
    /// For each pattern, the forms that begin with it.
    forms: Vec<Vec<Form>>,
    longest: usize,
    /// Layers of a push come side by side, and zstd needs a large window: one at a time has it.
    zstd: Mutex<()>,
}

/// One form of a value.
struct Form {
    bytes: Vec<u8>,
    /// Of its secret.
    name: Arc<str>,
}

/// A form that was found, and where.
struct Hit<'a> {
    name: &'a str,
    range: Range<usize>,
}

impl Needles {
    /// Prepares a search; `None` if there is nothing to look for.
    ///
    /// # Errors
    /// The values are too many to be looked for at once, which those of an environment are not.
    pub fn new(secrets: &[NamedSecret]) -> Result<Option<Self>, PushError> {
        let mut all: Vec<Form> = Vec::new();
        for secret in secrets {
            let name: Arc<str> = secret.name.as_str().into();
            // `echo "$KEY" > file` drops newlines at the end.
            let value = middle(secret.value.expose().trim().as_bytes());
            if value.len() < SHORTEST {
                continue;
            }
            all.extend(forms(value).into_iter().map(|bytes| Form { bytes, name: Arc::clone(&name) }));
        }
        let Some(longest) = all.iter().map(|form| form.bytes.len()).max() else { return Ok(None) };
        let not_searched =
            |why: String| PushError::not_searched(&format!("the run's Secrets cannot be looked for: {why}"), false);
        let begin = begin(&all).ok_or_else(|| not_searched(format!("{} are too many", secrets.len())))?;
        // At one place the first pattern counts: a whole form before one of which more must follow.
        all.sort_by_key(|form| form.bytes.len() > begin);
        let (mut patterns, mut forms): (Vec<Vec<u8>>, Vec<Vec<Form>>) = (Vec::new(), Vec::new());
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        for form in all {
            let pattern = form.bytes.get(..begin).unwrap_or(&form.bytes).to_vec();
            match places.get(&pattern).and_then(|place| forms.get_mut(*place)) {
                Some(known) => known.push(form),
                None => {
                    places.insert(pattern.clone(), patterns.len());
                    patterns.push(pattern);
                    forms.push(vec![form]);
                }
            }
        }
        // A table is fastest; where it would be large, the compact form does.
        let total: usize = patterns.iter().map(Vec::len).sum();
        let kind = if total <= MAX_TABLE { AhoCorasickKind::DFA } else { AhoCorasickKind::ContiguousNFA };
        // A prefilter looks for the first bytes of patterns: with so many it stops at every few bytes of noise.
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .kind(Some(kind))
            .prefilter(false)
            .build(&patterns)
            .map_err(|error| not_searched(error.to_string()))?;
        Ok(Some(Self { automaton, forms, longest, zstd: Mutex::new(()) }))
    }

    /// The first form in `bytes`, from `start` on. One whose rest is not there yet is not found.
    fn find(&self, bytes: &[u8], mut start: usize) -> Option<Hit<'_>> {
        loop {
            let begin = self.automaton.find(Input::new(bytes).range(start..))?;
            let rest = bytes.get(begin.start()..).unwrap_or_default();
            let forms = self.forms.get(begin.pattern().as_usize())?;
            if let Some(form) = forms.iter().find(|form| rest.starts_with(&form.bytes)) {
                let end = begin.start() + form.bytes.len();
                return Some(Hit { name: &form.name, range: begin.start()..end });
            }
            start = begin.start() + 1;
        }
    }

    /// Searches bytes that are at hand.
    #[must_use]
    pub fn search(&self, bytes: &[u8]) -> Option<&str> {
        self.find(bytes, 0).map(|found| found.name)
    }

    /// Takes values out of a text.
    fn redact(&self, text: &[u8]) -> String {
        let (mut out, mut done) = (Vec::new(), 0);
        while let Some(found) = self.find(text, done) {
            out.extend_from_slice(text.get(done..found.range.start).unwrap_or_default());
            out.extend_from_slice(b"***");
            done = found.range.end;
        }
        out.extend_from_slice(text.get(done..).unwrap_or_default());
        plain(&String::from_utf8_lossy(&out))
    }

    /// Searches a stream, and names the file if it is a tar.
    fn search_stream(&self, mut stream: impl Read) -> io::Result<Verdict> {
        let mut entries = Entries::new();
        let mut window = vec![0; WINDOW + self.longest];
        let (mut begin, mut filled) = (0_u64, 0);
        loop {
            let free = window.get_mut(filled..).unwrap_or_default();
            let length = match stream.read(free) {
                Ok(0) => return Ok(Verdict::Clean),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            entries.feed(free.get(..length).unwrap_or_default());
            filled += length;
            let searched = window.get(..filled).unwrap_or_default();
            if let Some(found) = self.find(searched, 0) {
                let name = found.name.to_owned();
                let path = entries.name_at(begin + found.range.start as u64);
                let path = path.map(|path| format!("/{}", self.redact(path)));
                let path = path.map(|path| path.replacen("/./", "/", 1).replacen("//", "/", 1));
                return Ok(Verdict::Found { name, path });
            }
            // What may be the beginning of a match is searched again with what follows.
            let keep = (self.longest - 1).min(filled);
            window.copy_within(filled - keep..filled, 0);
            begin += (filled - keep) as u64;
            filled = keep;
        }
    }
}

/// A search of one layer, running beside its upload.
pub(super) struct Scan {
    pieces: Option<mpsc::Sender<Bytes>>,
    task: JoinHandle<Verdict>,
}

impl Scan {
    pub(super) fn start(needles: Arc<Needles>) -> Self {
        let (pieces, queue) = mpsc::channel(QUEUE);
        let task = tokio::task::spawn_blocking(move || {
            let stream = Pieces { queue, piece: Bytes::new() };
            search_layer(&needles, stream)
        });
        Self { pieces: Some(pieces), task }
    }

    /// Takes the next piece of the layer; waits while the search is behind.
    pub(super) async fn feed(&mut self, piece: Bytes) {
        if let Some(pieces) = &self.pieces
            && pieces.send(piece).await.is_err()
        {
            // It has its verdict.
            self.pieces = None;
        }
    }

    /// Whether the verdict is there before the end of the layer.
    pub(super) fn is_decided(&self) -> bool {
        self.pieces.is_none()
    }

    /// The layer is at its end: waits for the verdict.
    pub(super) async fn verdict(mut self) -> Verdict {
        self.pieces = None;
        self.task.await.unwrap_or_else(|_| Verdict::NotSearched("the search broke off".into()))
    }
}

/// The layer as the search reads it.
struct Pieces {
    queue: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.queue.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(out.len());
        let part = self.piece.split_to(length);
        if let Some(out) = out.get_mut(..length) {
            out.copy_from_slice(&part);
        }
        Ok(length)
    }
}

/// Searches a layer as it is pushed: packed, or plain.
pub(super) fn search_layer(needles: &Needles, mut stream: impl Read) -> Verdict {
    let mut magic = [0; BLOCK];
    let mut filled = 0;
    while let Some(free) = magic.get_mut(filled..).filter(|free| !free.is_empty()) {
        match stream.read(free) {
            Ok(0) | Err(_) => break,
            Ok(length) => filled += length,
        }
    }
    let magic = magic.get(..filled).unwrap_or_default();
    let whole = magic.chain(stream);
    let result = match Packing::of(magic) {
        Packing::Gzip => needles.search_stream(MultiGzDecoder::new(whole)),
        Packing::Zstd => {
            let _alone = needles.zstd.lock().unwrap_or_else(PoisonError::into_inner);
            needles.search_stream(Frames::new(whole))
        }
        Packing::Plain => needles.search_stream(whole).map(|verdict| match verdict {
            Verdict::Clean if !magic.is_empty() && !is_header(magic) => {
                Verdict::NotSearched("it is neither a tar nor compressed with gzip or zstd".into())
            }
            verdict => verdict,
        }),
    };
    result.unwrap_or_else(|error| Verdict::NotSearched(format!("it cannot be unpacked: {}", plain(&error.to_string()))))
}

/// How a layer is packed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
    Plain,
}

impl Packing {
    pub(super) fn of(begin: &[u8]) -> Self {
        if begin.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if begin.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else {
            Self::Plain
        }
    }
}

/// How much of each form is a pattern, so that all fit; `None` if that would be less than what is found by chance.
fn begin(forms: &[Form]) -> Option<usize> {
    let total = |begin: usize| forms.iter().map(|form| form.bytes.len().min(begin)).sum::<usize>();
    let mut begin = forms.iter().map(|form| form.bytes.len()).max()?;
    while total(begin) > MAX_PATTERNS {
        begin = begin.checked_sub(begin.div_ceil(8)).filter(|begin| *begin >= SHORTEST)?;
    }
    Some(begin)
}

/// The part of a value that is looked for.
fn middle(value: &[u8]) -> &[u8] {
    let skip = value.len().saturating_sub(LONGEST) / 2;
    value.get(skip..(skip + LONGEST).min(value.len())).unwrap_or(value)
}

/// A value as it is, and the characters of its base64 that do not depend on what stands before or after it.
fn forms(value: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![value.to_vec()];
    for before in 0..3 {
        let padded = [vec![0; before], value.to_vec()].concat();
        let bits = 8 * padded.len();
        let (first, last) = ((8 * before).div_ceil(6), bits / 6);
        for text in [general_purpose::STANDARD_NO_PAD.encode(&padded), general_purpose::URL_SAFE_NO_PAD.encode(&padded)]
        {
            let form = text.as_bytes().get(first..last).unwrap_or_default().to_vec();
            if form.len() >= SHORTEST && !forms.contains(&form) {
                forms.push(form);
            }
        }
    }
    forms
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
