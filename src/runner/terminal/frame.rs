//! What a terminal and who is attached to it send each other: frames of one byte of kind, two of
//! length, and the content. Used by both sides.
//!
//! **Invariant:** pure; a stream that is no sequence of frames is an error, not a guess.

/// Most bytes of content in a frame.
pub(super) const MOST: usize = 16 * 1024;

const DATA: u8 = b'd';
const SIZE: u8 = b's';
const LEFT: u8 = b'x';

/// Rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) rows: u16,
    pub(super) columns: u16,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// What was typed, or printed.
    Data(Vec<u8>),
    /// How large the window is.
    Size(Size),
    /// The shell ended with this code; nothing follows.
    Left(i32),
}

impl Frame {
    /// Appends it to `out`; data that is longer than [`MOST`] as several.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let mut put = |kind: u8, content: &[u8]| {
            let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
            out.push(kind);
            out.extend(length.to_be_bytes());
            out.extend_from_slice(content);
        };
        match self {
            Self::Data(bytes) => bytes.chunks(MOST).for_each(|chunk| put(DATA, chunk)),
            Self::Size(size) => put(SIZE, &[size.rows.to_be_bytes(), size.columns.to_be_bytes()].concat()),
            Self::Left(code) => put(LEFT, &code.to_be_bytes()),
        }
    }
}

/// Reads frames from bytes as they come.
#[derive(Debug, Default)]
pub(super) struct Reader {
    rest: Vec<u8>,
}

impl Reader {
    /// Takes bytes; gives the frames that are whole by now.
    ///
    /// # Errors
    /// When the bytes are no frames; the connection is then of no use.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, String> {
        self.rest.extend_from_slice(bytes);
        let (mut frames, mut used) = (Vec::new(), 0);
        while let Some([kind, high, low, rest @ ..]) = self.rest.get(used..) {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some(content) = rest.get(..length).filter(|_| length <= MOST) else {
                if length > MOST {
                    return Err(format!("a frame of {length} bytes"));
                }
                break;
            };
            frames.push(match (*kind, content) {
                (DATA, data) => Frame::Data(data.to_vec()),
                (SIZE, [a, b, c, d]) => {
                    Frame::Size(Size { rows: u16::from_be_bytes([*a, *b]), columns: u16::from_be_bytes([*c, *d]) })
                }
                (LEFT, [a, b, c, d]) => Frame::Left(i32::from_be_bytes([*a, *b, *c, *d])),
                _ => return Err(format!("a frame of kind {kind} with {length} bytes")),
            });
            used += 3 + length;
        }
        self.rest.drain(..used);
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..100).prop_map(Frame::Data),
            (any::<u16>(), any::<u16>()).prop_map(|(rows, columns)| Frame::Size(Size { rows, columns })),
            any::<i32>().prop_map(Frame::Left),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            frames in proptest::collection::vec(frame(), 0..20),
            cut in 1usize..50,
        ) {
            let mut bytes = Vec::new();
            frames.iter().for_each(|frame| frame.put(&mut bytes));
            let mut reader = Reader::default();
            let read: Vec<_> = bytes.chunks(cut).flat_map(|chunk| reader.take(chunk).unwrap()).collect();
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Reader::default().take(&bytes);
        }
    }

    #[test]
    fn long_data_is_several_frames_and_giants_are_refused() {
        let mut bytes = Vec::new();
        Frame::Data(vec![7; MOST + 1]).put(&mut bytes);
        let read = Reader::default().take(&bytes).unwrap();
        assert_eq!(read, [Frame::Data(vec![7; MOST]), Frame::Data(vec![7])]);
        assert!(Reader::default().take(&[DATA, 0xff, 0xff]).is_err());
        assert!(Reader::default().take(b"GET / HTTP/1.1").is_err());
    }
}
