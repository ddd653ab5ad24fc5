//! Heads of requests and responses, and how long their bodies are (RFC 9110, RFC 9112): read strictly, written safely.
//!
//! A head is owned: its text in one string, its fields as ranges, and both allocations are used again for the next.
//!
//! **Invariant**: a head that came through `parse` has no bare CR or LF, no folded line, no control character, one
//! `Host` at most, and one way to tell the length of its body. What is written has no line break in a field.
//! **Thread**: pure.
//! **Bounds**: `HEAD_BYTES_MAX`, `HEADERS_MAX`, `TARGET_BYTES_MAX`.
//! Left out on purpose: the bodies themselves (`chunked.rs`, `connection.rs`, `client.rs`).

use std::io;
use std::mem::MaybeUninit;

use crate::http::target::{Target, is_host};
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    /// Any other token; no route takes it.
    Other,
}

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

#[derive(Debug)]
pub struct RequestHead {
    fields: Fields,
    method: Method,
    /// Where the path is in the text, unless it had to be decoded.
    path: Span,
    decoded_path: Option<String>,
    query: Option<Span>,
    is_http_1_0: bool,
    keeps_alive: bool,
    expects_continue: bool,
    body: BodyLength,
}

#[derive(Debug)]
pub struct ResponseHead {
    fields: Fields,
    status: u16,
    keeps_alive: bool,
    body: BodyLength,
}

/// The text of a head and where its fields are in it.
#[derive(Debug, Default)]
struct Fields {
    text: String,
    list: Vec<(Span, Span)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u16,
    end: u16,
}

/// What the fields say about the body and the connection.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    hosts: usize,
    closes: bool,
    keeps_alive: bool,
    expects_continue: bool,
}

/// Where the head at the beginning of `bytes` ends, once it is whole. `scanned` is how far it was looked through before.
pub fn head_end(bytes: &[u8], scanned: &mut usize) -> Result<Option<usize>, HeadError> {
    while let Some(step) = bytes[*scanned..].iter().position(|b| matches!(b, b'\r' | b'\n')) {
        let at = *scanned + step;
        *scanned = at;
        if bytes[at] == b'\n' {
            return Err(bad("a line of the head ends in LF without CR"));
        }
        match bytes.get(at + 1) {
            None => return too_long(bytes),
            Some(b'\n') => {}
            Some(_) => return Err(bad("the head has a CR without LF")),
        }
        *scanned = at + 2;
        if at >= 2 && bytes[at - 2..at] == *b"\r\n" {
            return if at + 2 > HEAD_BYTES_MAX { too_long(bytes) } else { Ok(Some(at + 2)) };
        }
    }
    *scanned = bytes.len();
    too_long(bytes)
}

fn too_long(bytes: &[u8]) -> Result<Option<usize>, HeadError> {
    if bytes.len() < HEAD_BYTES_MAX {
        return Ok(None);
    }
    match bytes[..HEAD_BYTES_MAX].contains(&b'\n') {
        true => Err(HeadError { status: 431, message: "the head is longer than 16 KiB" }),
        false => Err(HeadError { status: 414, message: "the request target is too long" }),
    }
}

impl Default for RequestHead {
    fn default() -> RequestHead {
        RequestHead {
            fields: Fields::default(),
            method: Method::Get,
            path: Span::default(),
            decoded_path: None,
            query: None,
            is_http_1_0: false,
            keeps_alive: false,
            expects_continue: false,
            body: BodyLength::Bytes(0),
        }
    }
}

impl RequestHead {
    /// Reads a whole head, as `head_end` found it, into this one. After an error nothing of it may be used.
    pub fn parse(&mut self, bytes: &[u8]) -> Result<(), HeadError> {
        // An empty line before a request is left over from a careless client's last body (RFC 9112 section 2.2).
        let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        if bytes.starts_with(b"\r\n") {
            return Err(bad("the head begins with empty lines"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| bad("the head is not UTF-8"))?;
        self.fields.text.clear();
        self.fields.text.push_str(text);
        let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        let outcome = parsed.parse_with_uninit_headers(self.fields.text.as_bytes(), &mut room);
        if let Err(error) = whole(outcome) {
            return Err(request_error(error, text));
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(bad("the request line is not whole"));
        };
        if method == "CONNECT" || method == "TRACE" {
            return Err(HeadError { status: 501, message: "CONNECT and TRACE are not served here" });
        }
        self.method = Method::from_token(method);
        self.is_http_1_0 = version == 0;
        let base = &self.fields.text;
        let target_span = Span::within(base, target);
        self.fields.list.clear();
        self.fields.list.extend(parsed.headers.iter().map(|header| field_span(base, header)));
        self.read_target(target_span)?;
        self.read_framing()
    }

    pub fn method(&self) -> Method {
        self.method
    }

    /// Percent-decoded, without dot segments; `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        self.decoded_path.as_deref().unwrap_or_else(|| self.path.of(&self.fields.text))
    }

    /// As it was sent, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.query.map(|span| span.of(&self.fields.text))
    }

    /// The first field of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.first(name)
    }

    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter()
    }

    pub fn header_count(&self, name: &str) -> usize {
        self.headers().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count()
    }

    pub fn body_length(&self) -> BodyLength {
        self.body
    }

    pub fn is_http_1_0(&self) -> bool {
        self.is_http_1_0
    }

    /// The client would send another request on this connection.
    pub fn keeps_alive(&self) -> bool {
        self.keeps_alive
    }

    /// The client waits for a `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    fn read_target(&mut self, span: Span) -> Result<(), HeadError> {
        let text = &self.fields.text;
        let target = span.of(text);
        if target.len() > TARGET_BYTES_MAX {
            return Err(HeadError { status: 414, message: "the request target is longer than 8 KiB" });
        }
        let parsed = Target::parse(target, self.method == Method::Options).map_err(bad)?;
        if parsed.authority.is_some_and(|authority| self.fields.first("host") != Some(authority)) {
            return Err(bad("the authority of the request target and the Host field differ"));
        }
        self.query = parsed.query.map(|query| Span::within(text, query));
        self.path = Span::default();
        self.decoded_path = match parsed.path {
            // The path "/" of an absolute target without one is not part of the text.
            std::borrow::Cow::Borrowed(path) if parsed.authority.is_none() || path != "/" => {
                self.path = Span::within(text, path);
                None
            }
            path => Some(path.into_owned()),
        };
        Ok(())
    }

    fn read_framing(&mut self) -> Result<(), HeadError> {
        let framing = self.fields.framing()?;
        if framing.hosts > 1 || (framing.hosts == 0 && !self.is_http_1_0) {
            return Err(bad("a request must have exactly one Host field"));
        }
        if self.fields.first("host").is_some_and(|host| !is_host(host)) {
            return Err(bad("the Host field is not a host with an optional port"));
        }
        if framing.chunked && self.is_http_1_0 {
            return Err(bad("HTTP/1.0 has no Transfer-Encoding"));
        }
        self.body = if framing.chunked { BodyLength::Chunked } else { BodyLength::Bytes(framing.length.unwrap_or(0)) };
        self.keeps_alive = !framing.closes && (framing.keeps_alive || !self.is_http_1_0);
        self.expects_continue = framing.expects_continue && !self.is_http_1_0;
        Ok(())
    }
}

impl Default for ResponseHead {
    fn default() -> ResponseHead {
        ResponseHead { fields: Fields::default(), status: 0, keeps_alive: false, body: BodyLength::Bytes(0) }
    }
}

impl ResponseHead {
    /// Reads a whole head, as `head_end` found it. A reason phrase in another encoding is no error: nobody reads it.
    pub fn parse(&mut self, bytes: &[u8], answers_head: bool) -> Result<(), HeadError> {
        self.fields.text.clear();
        self.fields.text.push_str(&String::from_utf8_lossy(bytes));
        let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let outcome = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            self.fields.text.as_bytes(),
            &mut room,
        );
        whole(outcome).map_err(|_| bad("the response head is malformed"))?;
        let (Some(status @ 100..=599), Some(version)) = (parsed.code, parsed.version) else {
            return Err(bad("the status line is malformed"));
        };
        self.status = status;
        let base = &self.fields.text;
        self.fields.list.clear();
        self.fields.list.extend(parsed.headers.iter().map(|header| field_span(base, header)));
        let framing = self.fields.framing()?;
        if framing.chunked && version == 0 {
            return Err(bad("HTTP/1.0 has no Transfer-Encoding"));
        }
        self.body = match framing.length {
            _ if answers_head || status < 200 || status == 204 || status == 304 => BodyLength::Bytes(0),
            _ if framing.chunked => BodyLength::Chunked,
            Some(length) => BodyLength::Bytes(length),
            None => BodyLength::UntilClose,
        };
        let wanted = !framing.closes && (framing.keeps_alive || version == 1);
        self.keeps_alive = wanted && self.body != BodyLength::UntilClose;
        Ok(())
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first field of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.first(name)
    }

    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter()
    }

    pub fn body_length(&self) -> BodyLength {
        self.body
    }

    /// The connection can be used again once the body was read.
    pub fn keeps_alive(&self) -> bool {
        self.keeps_alive
    }
}

impl Method {
    /// Methods are case-sensitive (RFC 9110 section 9.1).
    fn from_token(token: &str) -> Method {
        match token {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }
}

/// Appends one field. A name or value that could end its line early is an error of the caller.
pub fn put_field(out: &mut Vec<u8>, name: &str, value: &str) -> io::Result<()> {
    let is_plain = |b: u8| b == b'\t' || (b >= b' ' && b != 0x7f);
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') || !value.bytes().all(is_plain) {
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
        _ => "",
    }
}

impl Fields {
    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().map(|(name, value)| (name.of(&self.text), value.of(&self.text)))
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn framing(&self) -> Result<Framing, HeadError> {
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
    fn within(whole: &str, part: &str) -> Span {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        debug_assert!(start + part.len() <= whole.len(), "only slices of the text are asked for");
        Span { start: start as u16, end: (start + part.len()) as u16 }
    }

    fn of(self, whole: &str) -> &str {
        whole.get(usize::from(self.start)..usize::from(self.end)).unwrap_or("")
    }
}

fn field_span(text: &str, header: &httparse::Header<'_>) -> (Span, Span) {
    // The text is UTF-8 and a value is cut at ASCII, so that it is UTF-8 as well.
    let value = std::str::from_utf8(header.value).unwrap_or("");
    (Span::within(text, header.name), if value.is_empty() { Span::default() } else { Span::within(text, value) })
}

fn whole(outcome: httparse::Result<usize>) -> Result<(), httparse::Error> {
    match outcome {
        Ok(httparse::Status::Complete(_)) => Ok(()),
        Ok(httparse::Status::Partial) => Err(httparse::Error::Token),
        Err(error) => Err(error),
    }
}

fn request_error(error: httparse::Error, text: &str) -> HeadError {
    let version = text.split("\r\n").next().and_then(|line| line.rsplit(' ').next()).unwrap_or("");
    match error {
        httparse::Error::TooManyHeaders => HeadError { status: 431, message: "the head has more than 100 fields" },
        httparse::Error::Version if is_version(version) => {
            HeadError { status: 505, message: "only HTTP/1.1 and HTTP/1.0 are spoken here" }
        }
        httparse::Error::HeaderName => bad("a field name is malformed"),
        httparse::Error::HeaderValue => bad("a field value has a forbidden character"),
        _ => bad("the request line is malformed"),
    }
}

fn is_version(token: &str) -> bool {
    matches!(token.as_bytes(), [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn bad(message: &'static str) -> HeadError {
    HeadError { status: 400, message }
}
