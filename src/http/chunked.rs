//! The chunked transfer coding (RFC 9112 section 7.1), decoded as it comes in.
//!
//! **Invariant**: splitting the input at any place gives the same outcome; whatever is not exactly the grammar is an
//! error. Space around a chunk size is refused although the RFC would have it read: it is where two hops disagree.
//! **Bounds**: `CHUNK_LINE_BYTES_MAX` for one size line and for all trailers, `CHUNK_EXTENSION_BYTES_MAX` for all
//! extensions of a body. The size of the body is the caller's to bound.
//! Left out on purpose: the meaning of extensions and trailers, which are read and dropped.

use crate::limits::{CHUNK_EXTENSION_BYTES_MAX, CHUNK_LINE_BYTES_MAX};

/// A chunked body on its way in.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    /// Bytes of the current size line, or of the trailers.
    line: usize,
    extensions: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    SizeStart,
    Size(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastLf,
    Done,
}

impl Chunked {
    /// Takes as much of `input` as is part of the body, appends what it holds to `out`, and says how much that was.
    /// `out` grows by at most `room`; with no room left, decoding pauses. The error is the message of a 400.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>, room: usize) -> Result<usize, &'static str> {
        let mut at = 0;
        let full = out.len().saturating_add(room);
        while at < input.len() && self.state != State::Done {
            if let State::Data(left) = self.state {
                let here = (input.len() - at).min(usize::try_from(left).unwrap_or(usize::MAX)).min(full - out.len());
                if here == 0 {
                    break;
                }
                out.extend_from_slice(&input[at..at + here]);
                at += here;
                let left = left - here as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
            } else {
                self.state = self.step(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// The last chunk and the trailers have been read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// What one byte outside of chunk data does.
    fn step(&mut self, byte: u8) -> Result<State, &'static str> {
        self.line += 1;
        if self.line > CHUNK_LINE_BYTES_MAX {
            return Err("a chunk size line or the trailers are too long");
        }
        match (self.state, byte) {
            (State::SizeStart, _) => Ok(State::Size(hex(byte)?)),
            (State::Size(size), b'\r') => Ok(State::SizeEnd(size)),
            (State::Size(size), b';') => Ok(State::Extension(size)),
            (State::Size(size), _) if size >> 56 == 0 => Ok(State::Size(size << 4 | hex(byte)?)),
            (State::Size(_), _) => Err("a chunk size is too large"),
            (State::Extension(size), b'\r') => Ok(State::SizeEnd(size)),
            (State::Extension(size), b'\t' | b' '..=b'~') => self.extension(size),
            (State::Extension(_), _) => Err("a chunk extension has a forbidden character"),
            (State::SizeEnd(0), b'\n') => Ok(self.next_line(State::TrailerStart)),
            (State::SizeEnd(size), b'\n') => Ok(self.next_line(State::Data(size))),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(self.next_line(State::SizeStart)),
            (State::DataCr | State::DataLf, _) => Err("chunk data do not end where the chunk size says"),
            (State::TrailerStart, b'\r') => Ok(State::LastLf),
            (State::TrailerStart | State::TrailerName, _) if is_token(byte) => Ok(State::TrailerName),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerEnd),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            // All trailers share one bound, so that `line` is not set back here.
            (State::TrailerEnd, b'\n') => Ok(State::TrailerStart),
            (State::LastLf, b'\n') => Ok(State::Done),
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => Err("a trailer is malformed"),
            _ => Err("a line of the chunked body does not end in CR LF"),
        }
    }

    fn extension(&mut self, size: u64) -> Result<State, &'static str> {
        self.extensions += 1;
        if self.extensions > CHUNK_EXTENSION_BYTES_MAX {
            return Err("the chunk extensions are too long");
        }
        Ok(State::Extension(size))
    }

    fn next_line(&mut self, state: State) -> State {
        self.line = 0;
        state
    }
}

fn hex(byte: u8) -> Result<u64, &'static str> {
    char::from(byte).to_digit(16).map(u64::from).ok_or("a chunk size is not a hexadecimal number")
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{Random, for_seeds};

    /// The body and how much of the input was its; `Ok(None)` if it is not whole.
    type Outcome = Result<Option<(Vec<u8>, usize)>, &'static str>;

    fn decode<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Outcome {
        let (mut chunked, mut out, mut used) = (Chunked::default(), Vec::new(), 0);
        for part in parts {
            used += chunked.decode(part, &mut out, 1 << 40)?;
        }
        Ok(chunked.is_done().then_some((out, used)))
    }

    #[test]
    fn bodies() {
        let sound = |raw: &str, body: &str, rest: &str| {
            let expected = Ok(Some((body.as_bytes().to_vec(), raw.len() - rest.len())));
            assert_eq!(decode([raw.as_bytes()].into_iter()), expected, "{raw:?}");
        };
        sound("0\r\n\r\n", "", "");
        sound("5\r\nhello\r\n0\r\n\r\n", "hello", "");
        sound("5\r\nhello\r\n00A\r\n0123456789\r\n0\r\n\r\nGET /", "hello0123456789", "GET /");
        sound("1;a=b;c=\"d e\"\r\nx\r\n0;z\r\n\r\n", "x", "");
        sound("1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\nrest", "x", "rest");
        sound("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", "");
        for unfinished in ["", "5", "5\r\n", "5\r\nhel", "5\r\nhello\r\n", "0\r\n", "0\r\n\r", "0\r\nA: b\r\n"] {
            assert_eq!(decode([unfinished.as_bytes()].into_iter()), Ok(None), "{unfinished:?}");
        }
        for malformed in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1 ;a\r\n",
            "1\n",
            "1\r\r\n",
            "1\rx",
            "1;a\nb",
            "1;a\r\r\n",
            "1;\0\r\n",
            "1\r\nxy\r\n",
            "1\r\nx\n",
            "1\r\nx0\r\n",
            "1\r\nx\r0",
            "FFFFFFFFFFFFFFFFF\r\n",
            "10000000000000000\r\n",
            "0\r\n: a\r\n\r\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\nA\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: b\0\r\n\r\n",
            "0\r\n\n",
        ] {
            assert!(decode([malformed.as_bytes()].into_iter()).is_err(), "{malformed:?}");
        }
    }

    #[test]
    fn what_is_no_data_is_bounded() {
        let error = |raw: String| decode([raw.as_bytes()].into_iter()).expect_err("too much of it");
        assert!(error("0".repeat(CHUNK_LINE_BYTES_MAX + 1)).contains("too long"));
        assert!(error(format!("1;{}", "a".repeat(CHUNK_LINE_BYTES_MAX))).contains("too long"));
        assert!(error(format!("0\r\n{}", "A: b\r\n".repeat(CHUNK_LINE_BYTES_MAX / 6 + 1))).contains("too long"));
        let chunk = format!("1;{}\r\nx\r\n", "a".repeat(200));
        assert!(error(chunk.repeat(CHUNK_EXTENSION_BYTES_MAX / 200 + 1)).contains("extensions"));
    }

    #[test]
    fn decoding_pauses_without_room() {
        let (mut chunked, mut out) = (Chunked::default(), Vec::new());
        let raw = b"5\r\nhello\r\n0\r\n\r\n";
        let used = chunked.decode(raw, &mut out, 3).expect("sound");
        assert_eq!((used, &out[..]), (6, &b"hel"[..]));
        chunked.decode(&raw[used..], &mut out, 100).expect("sound");
        assert!(chunked.is_done());
        assert_eq!(out, b"hello");
    }

    #[test]
    fn mutated_bodies_do_not_depend_on_where_they_are_split() {
        let seeds: &[&[u8]] = &[
            b"5\r\nhello\r\n0\r\n\r\nGET",
            b"a;x=y\r\n0123456789\r\n1\r\n\n\r\n0\r\nA: b\r\n\r\n",
            b"00000000000000001\r\nx\r\n0;\r\n\r\n",
        ];
        for_seeds(3000, |random: &mut Random| {
            let raw = random.mutated(seeds);
            let at_once = decode([&raw[..]].into_iter());
            assert_eq!(decode(raw.chunks(1)), at_once, "byte by byte");
            for at in 0..raw.len() {
                assert_eq!(decode([&raw[..at], &raw[at..]].into_iter()), at_once, "split at {at}");
            }
        });
    }
}
