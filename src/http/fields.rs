//! The fields of a head, what they say about the body, and how a head is written; for both sides.
//!
//! **Invariant**: there is one way to tell the length of a body, or the head is refused. What is written has no line
//! break in a field.
//! **Thread**: pure.
//! **Bounds**: a head of at most `HEAD_BYTES_MAX`, so that 16 bits tell a place in it.
//! Left out on purpose: the first line (`head.rs`).

use std::io;

/// How the length of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    Bytes(u64),
    Chunked,
    /// The connection ends with the body; responses only.
    UntilClose,
}

/// Why a head is refused, and with which status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadError {
    pub status: u16,
    pub message: &'static str,
}

/// The text of a head and where its fields are in it.
#[derive(Debug, Default)]
pub struct Fields {
    pub text: String,
    pub places: Places,
}

/// Where names and values are.
#[derive(Debug, Default)]
pub struct Places {
    list: Vec<(Span, Span)>,
    /// A bit for each length that a name has, modulo 64: most names that are asked for are not there.
    lengths: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    start: u16,
    length: u16,
}

/// What the fields say about the body and the connection.
#[derive(Default)]
pub struct Framing {
    pub length: Option<u64>,
    pub chunked: bool,
    pub hosts: usize,
    pub closes: bool,
    pub keeps_alive: bool,
    pub expects_continue: bool,
}

impl Places {
    /// Of these names and values, which are slices of the text.
    pub fn find<'t>(&mut self, text: &str, fields: impl Iterator<Item = (&'t str, &'t [u8])>) {
        self.list.clear();
        self.list.extend(fields.map(|(name, value)| (Span::within(text, name), span_of_value(text, value))));
        self.lengths = self.list.iter().fold(0, |lengths, (name, _)| lengths | length_bit(name.length.into()));
    }
}

impl Fields {
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.places.list.iter().map(|(name, value)| (name.of(&self.text), value.of(&self.text)))
    }

    /// The value of the first field of this name, in whatever case. Every request asks some thirty times.
    pub fn first(&self, name: &str) -> Option<&str> {
        if self.places.lengths & length_bit(name.len()) == 0 {
            return None;
        }
        for (span, value) in &self.places.list {
            if span.has_text(&self.text, name) {
                return Some(value.of(&self.text));
            }
        }
        None
    }

    /// The values of the fields of this name, in whatever case.
    pub fn named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let named = self.places.list.iter().filter(move |(span, _)| span.has_text(&self.text, name));
        named.map(|(_, value)| value.of(&self.text))
    }

    pub fn framing(&self) -> Result<Framing, HeadError> {
        let mut framing = Framing::default();
        for (name, value) in self.iter() {
            // The first letter keeps the many fields that mean nothing here away from the comparisons.
            match name.as_bytes().first().map(u8::to_ascii_lowercase) {
                Some(b'c') if name.eq_ignore_ascii_case("content-length") => framing.take_length(value)?,
                Some(b'c') if name.eq_ignore_ascii_case("connection") => framing.take_connection(value),
                Some(b't') if name.eq_ignore_ascii_case("transfer-encoding") => framing.take_coding(value)?,
                Some(b'h') if name.eq_ignore_ascii_case("host") => framing.hosts += 1,
                Some(b'e') if name.eq_ignore_ascii_case("expect") => framing.take_expectation(value)?,
                _ => {}
            }
        }
        match framing.chunked && framing.length.is_some() {
            true => Err(bad("Content-Length and Transfer-Encoding exclude each other")),
            false => Ok(framing),
        }
    }
}

fn span_of_value(text: &str, value: &[u8]) -> Span {
    // The text is UTF-8 and a value is cut at ASCII, so that it is UTF-8 as well.
    let value = std::str::from_utf8(value).unwrap_or_default();
    if value.is_empty() { Span::default() } else { Span::within(text, value) }
}

fn length_bit(length: usize) -> u64 {
    1 << (length % 64)
}

impl Framing {
    fn take_length(&mut self, value: &str) -> Result<(), HeadError> {
        if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad("Content-Length is not a number"));
        }
        let length = value.parse().map_err(|_| bad("Content-Length is too large a number"))?;
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(bad("Content-Length is given twice")),
        }
    }

    fn take_coding(&mut self, value: &str) -> Result<(), HeadError> {
        if self.chunked || !value.eq_ignore_ascii_case("chunked") {
            return Err(bad("Transfer-Encoding must be \"chunked\" and nothing else"));
        }
        self.chunked = true;
        Ok(())
    }

    fn take_connection(&mut self, value: &str) {
        for option in value.split(',').map(|option| option.trim_matches([' ', '\t'])) {
            self.closes |= option.eq_ignore_ascii_case("close");
            self.keeps_alive |= option.eq_ignore_ascii_case("keep-alive");
        }
    }

    fn take_expectation(&mut self, value: &str) -> Result<(), HeadError> {
        if !value.eq_ignore_ascii_case("100-continue") {
            return Err(HeadError { status: 417, message: "the only expectation that can be met is 100-continue" });
        }
        self.expects_continue = true;
        Ok(())
    }
}

impl Span {
    /// Where `part`, a slice of `whole`, is in it.
    pub fn within(whole: &str, part: &str) -> Span {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        debug_assert!(start + part.len() <= whole.len(), "only slices of the text are asked for");
        Span { start: start as u16, length: part.len() as u16 }
    }

    pub fn of(self, whole: &str) -> &str {
        let start = usize::from(self.start);
        whole.get(start..start + usize::from(self.length)).unwrap_or("")
    }

    /// Most names differ in length, which costs less to see than where they are in the text.
    #[inline(always)]
    fn has_text(self, whole: &str, name: &str) -> bool {
        usize::from(self.length) == name.len() && self.of(whole).eq_ignore_ascii_case(name)
    }
}

/// Fields that go with many requests, written once.
pub struct Written(Vec<u8>);

impl Written {
    pub fn new(fields: &[(&str, &str)]) -> io::Result<Written> {
        let mut out = Vec::new();
        fields.iter().try_for_each(|(name, value)| put_field(&mut out, name, value))?;
        Ok(Written(out))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Appends one field. A name or value that could end its line early is an error of the caller.
pub fn put_field(out: &mut Vec<u8>, name: &str, value: &str) -> io::Result<()> {
    let in_name = |b: u8| b.is_ascii_graphic() && b != b':';
    let in_value = |b: u8| b == b'\t' || (b >= b' ' && b != 0x7f);
    // Without a way out in between, which would keep the compiler from looking at many bytes at once.
    let is_sound = name.bytes().fold(!name.is_empty(), |sound, b| sound & in_name(b));
    if !value.bytes().fold(is_sound, |sound, b| sound & in_value(b)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a header field has a forbidden character"));
    }
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    Ok(())
}

/// Appends a status line.
pub fn put_status_line(out: &mut Vec<u8>, status: u16) {
    put_line(out, &["HTTP/1.1 ", &status.to_string(), " ", reason(status)]);
}

pub fn put_line(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "",
    }
}

/// A 400 with this message.
pub fn bad(message: &'static str) -> HeadError {
    HeadError { status: 400, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_can_be_smuggled_into_what_is_written() {
        for (name, value) in
            [("A", "b\r\nC: d"), ("A\r\nB", "c"), ("A", "\n"), ("A", "\0"), ("", "a"), ("A:", "a"), ("A b", "c")]
        {
            assert!(put_field(&mut Vec::new(), name, value).is_err(), "{name:?}: {value:?}");
        }
        let mut out = Vec::new();
        put_field(&mut out, "A", "b\tä").expect("sound");
        assert_eq!(out, "A: b\tä\r\n".as_bytes());
    }
}
