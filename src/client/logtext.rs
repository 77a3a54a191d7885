//! The box's output as the API server sends it with timestamps, turned back into what was printed.
//!
//! `logs` feeds it chunks of one or more connections. **Invariant:** over any split into chunks and any
//! number of reconnects each byte comes out once and in order, as long as the server still has it.

use super::header;
use jiff::Timestamp;

/// Longest timestamp the server writes: 35 characters; a longer first word is not one.
const LONGEST_STAMP: usize = 40;

/// A part of the output, at most one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// When the line was printed; only on its first piece.
    pub stamp: Option<String>,
    /// What was printed, with the line end if it is in this piece.
    pub bytes: Vec<u8>,
}

/// Where in the line the decoder is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Collecting the timestamp.
    Stamp(Vec<u8>),
    /// In a line that was passed on by an earlier connection: this many bytes are left out.
    Known(usize),
    /// At the beginning of a line that may be a header: held until that is certain.
    Held(String, Vec<u8>),
    /// In a line that is passed on as it comes.
    Body,
}

/// How far an earlier connection came.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Time of the last line.
    time: Timestamp,
    /// How many lines had that time.
    lines: usize,
    /// Bytes of the last one that were passed on.
    bytes: usize,
}

/// Takes timestamps off and leaves out what an earlier connection gave.
#[derive(Debug)]
pub(super) struct Decoder {
    place: Place,
    reached: Option<Mark>,
    /// Set by a reconnect until the line is found at which to go on; with the lines of that time seen so far.
    seek: Option<(Mark, usize)>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { place: Place::Stamp(Vec::new()), reached: None, seek: None }
    }
}

impl Decoder {
    /// From when the next connection has to begin: whole seconds, as the server compares no finer.
    #[must_use]
    pub(super) fn since(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.reached?.time.as_second()).ok()
    }

    /// The connection ended. Gives what was held back.
    pub(super) fn reconnect(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if let Place::Held(stamp, bytes) = &mut self.place {
            let piece = Piece { stamp: Some(std::mem::take(stamp)), bytes: std::mem::take(bytes) };
            self.pass(piece, &mut pieces);
        }
        self.place = Place::Stamp(Vec::new());
        self.seek = self.reached.map(|mark| (mark, 0));
        pieces
    }

    /// Takes bytes as they came and gives what is new.
    pub(super) fn feed(&mut self, mut chunk: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while !chunk.is_empty() {
            let end = chunk.iter().position(|b| *b == b'\n').map_or(chunk.len(), |i| i + 1);
            let (line, rest) = chunk.split_at(end);
            chunk = rest;
            self.feed_line(line, &mut pieces);
        }
        pieces
    }

    /// `part` holds no line end but at its end.
    fn feed_line(&mut self, part: &[u8], pieces: &mut Vec<Piece>) {
        let ends = part.ends_with(b"\n");
        match &mut self.place {
            Place::Stamp(head) => {
                let space = part.iter().position(|b| *b == b' ');
                match space {
                    Some(at) if head.len() + at <= LONGEST_STAMP => {
                        let (word, rest) = part.split_at(at);
                        head.extend_from_slice(word);
                        let head = std::mem::take(head);
                        self.begin_line(&head, rest, pieces);
                    }
                    _ if !ends && head.len() + part.len() <= LONGEST_STAMP => head.extend_from_slice(part),
                    _ => {
                        // No timestamp: words of the server itself, passed on as they are.
                        let mut text = std::mem::take(head);
                        text.extend_from_slice(part);
                        self.place = if ends { Place::Stamp(Vec::new()) } else { Place::Body };
                        pieces.push(Piece { stamp: None, bytes: text });
                    }
                }
                return;
            }
            Place::Known(left) => {
                let skip = part.len().min(*left);
                *left -= skip;
                let done = *left == 0 && skip < part.len();
                if done {
                    self.place = Place::Body;
                    let rest = part.get(skip..).unwrap_or_default().to_vec();
                    self.pass(Piece { stamp: None, bytes: rest }, pieces);
                }
            }
            Place::Held(stamp, held) => {
                held.extend_from_slice(part);
                if ends || !may_be_header(held) {
                    let piece = Piece { stamp: Some(std::mem::take(stamp)), bytes: std::mem::take(held) };
                    self.place = Place::Body;
                    self.pass(piece, pieces);
                }
            }
            Place::Body => self.pass(Piece { stamp: None, bytes: part.to_vec() }, pieces),
        }
        if ends {
            self.place = Place::Stamp(Vec::new());
        }
    }

    /// `rest` begins with the space after the word.
    fn begin_line(&mut self, word: &[u8], rest: &[u8], pieces: &mut Vec<Piece>) {
        let text = String::from_utf8_lossy(word).into_owned();
        let Ok(time) = text.parse::<Timestamp>() else {
            self.place = Place::Body;
            let mut bytes = word.to_vec();
            bytes.extend_from_slice(rest);
            if bytes.ends_with(b"\n") {
                self.place = Place::Stamp(Vec::new());
            }
            pieces.push(Piece { stamp: None, bytes });
            return;
        };
        let body = rest.get(1..).unwrap_or_default();
        self.place = match self.known(time) {
            Some(bytes) => Place::Known(bytes),
            None => {
                let lines = self.reached.filter(|m| m.time == time).map_or(1, |m| m.lines + 1);
                self.reached = Some(Mark { time, lines, bytes: 0 });
                Place::Held(text, Vec::new())
            }
        };
        if !body.is_empty() {
            self.feed_line(body, pieces);
        }
    }

    /// How many bytes of a line that begins at `time` an earlier connection gave; none: it is new.
    fn known(&mut self, time: Timestamp) -> Option<usize> {
        let (mark, seen) = self.seek.as_mut()?;
        if time < mark.time {
            return Some(usize::MAX);
        }
        if time == mark.time {
            *seen += 1;
            if *seen < mark.lines {
                return Some(usize::MAX);
            }
            let bytes = mark.bytes;
            self.seek = None;
            return Some(bytes);
        }
        self.seek = None;
        None
    }

    fn pass(&mut self, piece: Piece, pieces: &mut Vec<Piece>) {
        if let Some(mark) = &mut self.reached {
            mark.bytes += piece.bytes.len();
        }
        pieces.push(piece);
    }
}

/// Whether more bytes could make this beginning of a line a header.
fn may_be_header(bytes: &[u8]) -> bool {
    let common = bytes.len().min(header::PREFIX.len());
    bytes.len() <= header::LONGEST && bytes.get(..common) == header::PREFIX.get(..common)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOG: &str = "2026-11-21T13:03:07.1Z one\n2026-11-21T13:03:07.123456789Z > step  [0.1s] 1/2 build\n\
        2026-11-21T13:03:07.123456789Z cc -O2\n2026-11-21T13:03:07.123456789Z \n\
        2026-11-21T13:03:09+00:00 a long line that is still being prin";
    const TEXT: &str = "one\n> step  [0.1s] 1/2 build\ncc -O2\n\na long line that is still being prin";

    fn text(pieces: &[Piece]) -> String {
        String::from_utf8(pieces.iter().flat_map(|p| p.bytes.clone()).collect()).expect("utf-8")
    }

    #[test]
    fn timestamps_are_taken_off_and_kept_aside() {
        let mut decoder = Decoder::default();
        let mut pieces = decoder.feed(LOG.as_bytes());
        pieces.extend(decoder.reconnect());
        assert_eq!(text(&pieces), TEXT);
        assert_eq!(pieces[0].stamp.as_deref(), Some("2026-11-21T13:03:07.1Z"));
        assert_eq!(decoder.since(), Some("2026-11-21T13:03:09Z".parse().unwrap()));
    }

    #[test]
    fn words_of_the_server_itself_are_passed_on() {
        let mut decoder = Decoder::default();
        let said = "unable to retrieve container logs for docker://0a1b\nabc\n";
        assert_eq!(text(&decoder.feed(said.as_bytes())), said);
    }

    #[test]
    fn a_line_that_may_be_a_header_comes_whole() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed("2026-11-21T13:03:07Z > step  [0.1s] 1/2 bu".as_bytes()), []);
        assert_eq!(text(&decoder.feed(b"ild\n")), "> step  [0.1s] 1/2 build\n");
        // A prompt without a line end is not held.
        assert_eq!(text(&decoder.feed(b"2026-11-21T13:03:08Z password:")), "password:");
    }

    proptest! {
        /// Any split into chunks, any reconnects: each byte once.
        #[test]
        fn nothing_is_lost_or_doubled(
            chunk in 1_usize..40,
            cuts in proptest::collection::vec(0_usize..LOG.len(), 0..5),
        ) {
            let mut decoder = Decoder::default();
            let mut pieces = Vec::new();
            for cut in cuts.into_iter().chain([LOG.len()]) {
                // The server begins at the second asked for, and gives more than was there before.
                let since = decoder.since();
                let from = since.map_or(0, |s| if s.as_second() % 60 == 9 { LOG.rfind('\n').unwrap() + 1 } else { 0 });
                let given = LOG.as_bytes().get(from..cut.max(from)).unwrap();
                for part in given.chunks(chunk) {
                    pieces.extend(decoder.feed(part));
                }
                pieces.extend(decoder.reconnect());
            }
            prop_assert_eq!(text(&pieces), TEXT);
        }
    }
}
