//! Unpacks zstd streams.
//!
//! [`super::scan`] reads layers through it.
//!
//! **Invariant:** memory is bounded by [`MAX_WINDOW`]; a stream that is cut off is an error, not an end.

use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};
use std::io::{self, Read};

/// Largest window that a stream may ask for: what RFC 8878, section 3.1.1.1.2, recommends to support, and what the levels
/// up to 19 use.
const MAX_WINDOW: u64 = 8 * 1024 * 1024;

/// The content of a stream: of its frames one after another, without those that are to be skipped.
pub(super) struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        Self { source, decoder }
    }

    /// Goes on to the next frame; `false` at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            let mut first = Vec::with_capacity(1);
            if (&mut self.source).take(1).read_to_end(&mut first)? == 0 {
                return Ok(false);
            }
            let length = match self.decoder.init(first.chain(&mut self.source)) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => length,
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
            };
            let skipped = io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
            if skipped < length.into() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.decoder.can_collect() == 0 {
            if self.decoder.is_finished() {
                if !self.next_frame()? {
                    return Ok(0);
                }
                continue;
            }
            self.decoder
                .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        }
        self.decoder.read(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn packed(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn unpacked(stream: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Frames::new(stream).read_to_end(&mut out).map(|_| out)
    }

    /// A frame that is to be skipped.
    fn skippable(content: &[u8]) -> Vec<u8> {
        [&0x184D_2A5F_u32.to_le_bytes()[..], &u32::try_from(content.len()).unwrap().to_le_bytes(), content].concat()
    }

    /// A frame of one block that repeats a byte 100 times, with this window descriptor.
    fn with_window(descriptor: u8) -> Vec<u8> {
        let block = (100_u32 << 3) | 0b011;
        [&[0x28, 0xb5, 0x2f, 0xfd, 0, descriptor][..], &block.to_le_bytes()[..3], b"x"].concat()
    }

    #[test]
    fn frames_follow_each_other() {
        let text: Vec<u8> = (0..400_000_u32).flat_map(|n| (n % 5000 * n % 251).to_le_bytes()).collect();
        let stream = [skippable(b"ignored"), packed(&text), skippable(b""), packed(b""), packed(b"more")].concat();
        assert!(unpacked(&stream).unwrap() == [&text[..], b"more"].concat());
    }

    #[test]
    fn the_window_is_bounded() {
        // An exponent of 13 means 2 to the power of 23.
        assert_eq!(unpacked(&with_window(13 << 3)).unwrap(), [b'x'; 100]);
        let error = unpacked(&with_window((13 << 3) | 1)).unwrap_err();
        assert!(error.to_string().contains("9437184"), "{error}");
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error() {
        let whole = [skippable(b"ignored"), packed(b"text, text, text")].concat();
        let between = skippable(b"ignored").len();
        for length in (1..whole.len()).filter(|length| *length != between) {
            assert!(unpacked(&whole[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(mut bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = unpacked(&bytes);
            bytes.splice(0..0, [0x28, 0xb5, 0x2f, 0xfd]);
            let _ = unpacked(&bytes);
        }

        #[test]
        fn what_was_changed_on_the_way_is_taken(text in "(abc|[a-z ]{1,9}){0,300}", at: prop::sample::Index, to: u8) {
            let mut stream = packed(text.as_bytes());
            let at = at.index(stream.len());
            stream[at] = to;
            let _ = unpacked(&stream);
        }
    }
}
