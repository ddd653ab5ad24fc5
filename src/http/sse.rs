//! Server-sent events (WHATWG HTML, section 9.2), written and read.
//!
//! **Invariant**: splitting the input at any place gives the same events; line ends are CR, LF or CR LF.
//! **Thread**: pure.
//! **Bounds**: `SSE_EVENT_BYTES_MAX` for the bytes of one event, comments included.
//! Left out on purpose: the last event id as a state of the stream; whoever resumes one keeps it.

use std::fmt;
use std::time::Duration;

use crate::limits::SSE_EVENT_BYTES_MAX;

/// One event. `id` and `event` are `None` where the stream does not give them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: String,
    /// Milliseconds. A stream may set it without any data; then the event has all else empty.
    pub retry: Option<u64>,
}

/// An event is longer than the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// A stream on its way in.
#[derive(Debug)]
pub struct Decoder {
    /// Received and not yet taken apart, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// Where the search for the end of the current line goes on.
    scanned: usize,
    is_first_line: bool,
    after_cr: bool,
    event: Event,
    has_data: bool,
    /// Bytes of the lines of the current event.
    event_bytes: usize,
    event_bytes_max: usize,
}

/// An event with this id and data. Data of several lines take a `data:` field each.
pub fn encode(id: Option<&str>, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + id.map_or(0, str::len) + 16);
    if let Some(id) = id {
        // A line break would begin a field of its own, a NUL would void the id.
        out.extend_from_slice(b"id: ");
        out.extend(id.bytes().filter(|b| !matches!(b, b'\r' | b'\n' | 0)));
        out.push(b'\n');
    }
    let mut rest = data;
    loop {
        let end = rest.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(rest.len());
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        rest = match &rest[end..] {
            [] => break,
            [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
        };
    }
    out.push(b'\n');
    out
}

/// A line that clients ignore. It shows the way is open.
pub fn comment(text: &str) -> Vec<u8> {
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    format!(": {text}\n\n").into_bytes()
}

/// Tells the client how long to wait before it connects again.
pub fn retry(time: Duration) -> Vec<u8> {
    format!("retry: {}\n\n", time.as_millis()).into_bytes()
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

impl Decoder {
    pub fn new() -> Decoder {
        Decoder::bounded(SSE_EVENT_BYTES_MAX)
    }

    /// With another bound for the bytes of one event.
    pub fn bounded(event_bytes_max: usize) -> Decoder {
        Decoder {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            is_first_line: true,
            after_cr: false,
            event: Event::default(),
            has_data: false,
            event_bytes: 0,
            event_bytes_max,
        }
    }

    /// Takes what was received. `next` is to be called until it has no more.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event. An event that the stream did not end with an empty line is never given.
    #[expect(clippy::should_implement_trait, reason = "`None` is not the end: more may be pushed")]
    pub fn next(&mut self) -> Result<Option<Event>, TooLarge> {
        loop {
            if self.after_cr && self.start < self.buffer.len() {
                self.after_cr = false;
                if self.buffer[self.start] == b'\n' {
                    self.start += 1;
                    self.scanned = self.start;
                }
            }
            let Some(length) = self.buffer[self.scanned..].iter().position(|b| matches!(b, b'\r' | b'\n')) else {
                self.scanned = self.buffer.len();
                return self.check(self.buffer.len() - self.start).map(|()| None);
            };
            let (start, end) = (self.start, self.scanned + length);
            self.after_cr = self.buffer[end] == b'\r';
            self.start = end + 1;
            self.scanned = self.start;
            self.check(end - start)?;
            self.event_bytes += end - start + 1;
            if let Some(event) = self.take_line(start, end) {
                return Ok(Some(event));
            }
        }
    }

    fn check(&self, more: usize) -> Result<(), TooLarge> {
        if self.event_bytes + more > self.event_bytes_max { Err(TooLarge) } else { Ok(()) }
    }

    fn take_line(&mut self, start: usize, end: usize) -> Option<Event> {
        let mut line = &self.buffer[start..end];
        if std::mem::take(&mut self.is_first_line) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        let (name, value) = match line.iter().position(|b| *b == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match name {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(&value);
            }
            b"event" => self.event.event = Some(value.into_owned()).filter(|name| !name.is_empty()),
            b"id" if !value.contains('\0') => self.event.id = Some(value.into_owned()),
            b"retry" if value.bytes().all(|b| b.is_ascii_digit()) => {
                self.event.retry = value.parse().ok().or(self.event.retry);
            }
            _ => {}
        }
        None
    }

    /// An empty line ends the event. One without data is given only if it tells an id or a time.
    fn dispatch(&mut self) -> Option<Event> {
        self.event_bytes = 0;
        let event = std::mem::take(&mut self.event);
        let has_data = std::mem::take(&mut self.has_data);
        (has_data || event.id.is_some() || event.retry.is_some()).then_some(event)
    }
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event of the stream is longer than {SSE_EVENT_BYTES_MAX} bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{Random, for_seeds};

    fn decode<'a>(parts: impl Iterator<Item = &'a [u8]>, max: usize) -> Result<Vec<Event>, TooLarge> {
        let (mut decoder, mut events) = (Decoder::bounded(max), Vec::new());
        for part in parts {
            decoder.push(part);
            while let Some(event) = decoder.next()? {
                events.push(event);
            }
        }
        Ok(events)
    }

    /// `id|event|data|retry` of each event.
    fn check(raw: &str, expected: &[&str]) {
        let events = decode([raw.as_bytes()].into_iter(), 1000).expect("short enough");
        let shown: Vec<String> = events
            .iter()
            .map(|e| {
                let [id, event] = [&e.id, &e.event].map(|field| field.as_deref().unwrap_or("-"));
                format!("{id}|{event}|{}|{}", e.data, e.retry.map_or("-".to_owned(), |r| r.to_string()))
            })
            .collect();
        assert_eq!(shown, expected, "{raw:?}");
    }

    #[test]
    fn streams() {
        check("", &[]);
        check("data: a\n\n", &["-|-|a|-"]);
        check("data: a\r\n\r\ndata:b\r\rdata:  c\n\n", &["-|-|a|-", "-|-|b|-", "-|-| c|-"]);
        check("data: a\ndata: b\ndata\n\n", &["-|-|a\nb\n|-"]);
        check("id: 1\nevent: message\ndata: x\n\ndata: y\n\n", &["1|message|x|-", "-|-|y|-"]);
        check("\u{feff}data: a\n\n", &["-|-|a|-"]);
        check("data: a\n\n\u{feff}data: b\n\n", &["-|-|a|-"]);
        check(": comment\n\n:\n\ndata: a\n\n", &["-|-|a|-"]);
        check("retry: 4000\n\n", &["-|-||4000"]);
        check("retry: 4s\n\nretry:\n\n", &[]);
        check("id: 7\ndata:\n\n", &["7|-||-"]);
        check("id: 7\n\n", &["7|-||-"]);
        check("id: a\0b\ndata: x\n\n", &["-|-|x|-"]);
        check("event: only\n\n", &[]);
        check("unknown: x\nData: y\n\n", &[]);
        check("data: not ended\n", &[]);
        check("data: a\r\n\ndata: b\n\n", &["-|-|a|-", "-|-|b|-"]);
        check("data: {\"a\":\"b:c\"}\n\n", &["-|-|{\"a\":\"b:c\"}|-"]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (data, read) in [("{}", "{}"), ("", ""), ("a\nb", "a\nb"), ("a\r\nb\rc\n", "a\nb\nc\n"), (" a", " a")] {
            let mut raw = retry(Duration::from_secs(4));
            raw.extend(comment("still\nhere"));
            raw.extend(encode(Some("a\n-1"), data.as_bytes()));
            raw.extend(encode(None, data.as_bytes()));
            let events = decode([&raw[..]].into_iter(), 1000).expect("short enough");
            assert_eq!(events.len(), 3, "{data:?}");
            assert_eq!(events[0].retry, Some(4000));
            assert_eq!((events[1].id.as_deref(), &*events[1].data), (Some("a-1"), read));
            assert_eq!((events[2].id.as_deref(), &*events[2].data), (None, read));
        }
    }

    #[test]
    fn an_event_is_bounded_however_it_comes() {
        let max = 100;
        for raw in [format!("data: {}", "x".repeat(max)), "data: xx\n".repeat(20), format!(":{}\n", "x".repeat(max))] {
            assert_eq!(decode([raw.as_bytes()].into_iter(), max), Err(TooLarge), "{raw}");
            assert_eq!(decode(raw.as_bytes().chunks(1), max), Err(TooLarge), "{raw}");
        }
        let many = "data: x\n\n".repeat(100);
        assert_eq!(decode([many.as_bytes()].into_iter(), max).map(|events| events.len()), Ok(100));
    }

    #[test]
    fn mutated_streams_do_not_depend_on_where_they_are_split() {
        let seeds: &[&[u8]] = &[
            b"\xef\xbb\xbfid: 1\r\ndata: a\r\ndata: b\r\n\r\n: c\r\revent: x\rdata: y\r\r",
            b"retry: 10\n\ndata\n\nid\n\ndata:\xff\xfe\n\n",
        ];
        for_seeds(3000, |random: &mut Random| {
            let raw = random.mutated(seeds);
            let at_once = decode([&raw[..]].into_iter(), 60);
            assert_eq!(decode(raw.chunks(1), 60), at_once, "byte by byte");
            for at in 0..raw.len() {
                assert_eq!(decode([&raw[..at], &raw[at..]].into_iter(), 60), at_once, "split at {at}");
            }
        });
    }
}
