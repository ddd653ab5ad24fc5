//! Chunked bodies: the same however they come and however much room there is; accepted exactly when a plain reading of
//! the grammar from front to back accepts them.

use dcc_mcp_server::http::chunked::Chunked;
use dcc_mcp_server::limits::{CHUNK_EXTENSION_BYTES_MAX, CHUNK_LINE_BYTES_MAX};

use super::splits;

/// The body and how much of the input was its; `Ok(None)` if it is not whole.
type Outcome = Result<Option<(Vec<u8>, usize)>, &'static str>;

pub fn body(input: &[u8]) -> bool {
    let at_once = decode([input]);
    assert_eq!(decode(input.chunks(1)), at_once, "byte by byte");
    for parts in splits(input) {
        assert_eq!(decode(parts), at_once, "split at {}", parts[0].len());
    }
    for room in [1, 3, 64] {
        assert_eq!(decode_in_rooms(input, room), at_once, "room for {room}");
    }
    let accepted = at_once.ok().flatten();
    assert_eq!(accepted, read_plainly(input), "the grammar says otherwise");
    let Some((body, used)) = accepted else { return false };
    let end: &[u8] = if body.is_empty() { b"0\r\n\r\n" } else { b"\r\n0\r\n\r\n" };
    let size = if body.is_empty() { String::new() } else { format!("{:X}\r\n", body.len()) };
    let written = [size.as_bytes(), &body, end].concat();
    assert_eq!(decode([&written[..]]), Ok(Some((body, written.len()))), "written anew");
    assert_eq!(decode([&input[..used], b"0\r\n"]).map(|body| body.map(|(_, used)| used)), Ok(Some(used)), "it goes on");
    true
}

fn decode<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut chunked, mut out, mut used) = (Chunked::default(), Vec::new(), 0);
    for part in parts {
        let taken = chunked.decode(part, &mut out, usize::MAX)?;
        assert!(taken == part.len() || chunked.is_done(), "it pauses although there is room");
        used += taken;
    }
    Ok(chunked.is_done().then_some((out, used)))
}

fn decode_in_rooms(input: &[u8], room: usize) -> Outcome {
    let (mut chunked, mut out, mut used) = (Chunked::default(), Vec::new(), 0);
    loop {
        let before = out.len();
        let taken = chunked.decode(&input[used..], &mut out, room)?;
        assert!(out.len() - before <= room, "more than there is room for");
        used += taken;
        if taken == 0 {
            return Ok(chunked.is_done().then_some((out, used)));
        }
    }
}

/// RFC 9112 section 7.1 with our bounds, for a body that is there as a whole.
fn read_plainly(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut rest, mut body, mut extensions) = (input, Vec::new(), 0);
    loop {
        let line = take_line(&mut rest)?;
        let (size, extension) = match line.iter().position(|b| *b == b';') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        extensions += extension.len();
        let is_sound = !size.is_empty()
            && size.iter().all(u8::is_ascii_hexdigit)
            && extension.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'))
            && line.len() + 2 <= CHUNK_LINE_BYTES_MAX
            && extensions <= CHUNK_EXTENSION_BYTES_MAX;
        let size = std::str::from_utf8(size).ok().filter(|_| is_sound)?;
        match usize::from_str_radix(size, 16).ok()? {
            0 => break,
            size => body.extend_from_slice(rest.split_off(..size)?),
        }
        rest = rest.strip_prefix(b"\r\n")?;
    }
    let trailers = rest.len();
    loop {
        let line = take_line(&mut rest)?;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|b| *b == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let is_name = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        if name.is_empty()
            || !name.iter().all(is_name)
            || !value.iter().all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..))
        {
            return None;
        }
    }
    (trailers - rest.len() <= CHUNK_LINE_BYTES_MAX).then(|| (body, input.len() - rest.len()))
}

/// The line up to the next CR LF; none if it holds a CR or LF.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = rest.split_off(..end)?;
    *rest = &rest[2..];
    (!line.iter().any(|b| matches!(b, b'\r' | b'\n'))).then_some(line)
}
