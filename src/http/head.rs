//! Heads of requests and responses (RFC 9110, RFC 9112), read strictly.
//!
//! A head is owned: its text in one string, its fields as ranges, and both allocations are used again for the next.
//!
//! **Invariant**: a head that came through `parse` has no bare CR or LF, no folded line, no control character, one
//! `Host` at most, and one way to tell the length of its body.
//! **Thread**: pure.
//! **Bounds**: `HEAD_BYTES_MAX`, `HEADERS_MAX`, `TARGET_BYTES_MAX`.
//! Left out on purpose: the bodies themselves (`chunked.rs`, `connection.rs`, `client.rs`).

use std::borrow::Cow;
use std::mem::MaybeUninit;

use memchr::memchr2;

use crate::http::fields::{BodyLength, Fields, HeadError, Span, bad};
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

impl Method {
    /// The token; `OTHER` for one that no route takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Other => "OTHER",
        }
    }
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
    lacks_length: bool,
    body: BodyLength,
}

#[derive(Debug)]
pub struct ResponseHead {
    fields: Fields,
    status: u16,
    keeps_alive: bool,
    body: BodyLength,
}

/// Where the head at the beginning of `bytes` ends, once it is whole. `scanned` is where its lines that were looked at
/// before end.
pub fn head_end(bytes: &[u8], scanned: &mut usize) -> Result<Option<usize>, HeadError> {
    // What is beyond the bound decides nothing, or it would matter how much has come at once.
    let bytes = bytes.get(..HEAD_BYTES_MAX).unwrap_or(bytes);
    loop {
        let rest = bytes.get(*scanned..).unwrap_or_default();
        let Some(length) = memchr2(b'\r', b'\n', rest) else { return too_long(bytes) };
        match rest.get(length..).unwrap_or_default() {
            [b'\r', b'\n', ..] => {}
            [b'\r'] => return too_long(bytes),
            [b'\r', ..] => return Err(bad("the head has a CR without LF")),
            _ => return Err(bad("a line of the head ends in LF without CR")),
        }
        let is_end = length == 0 && *scanned > 0;
        *scanned += length + "\r\n".len();
        if is_end {
            return Ok(Some(*scanned));
        }
    }
}

fn too_long(bytes: &[u8]) -> Result<Option<usize>, HeadError> {
    if bytes.len() < HEAD_BYTES_MAX {
        return Ok(None);
    }
    match bytes.contains(&b'\n') {
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
            lacks_length: false,
            body: BodyLength::Bytes(0),
        }
    }
}

impl RequestHead {
    /// Reads a whole head, as `head_end` found it, into this one. After an error nothing of it may be used.
    ///
    /// Never inlined: its room for header fields would be part of the stack of connections that wait for a first request.
    #[inline(never)]
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
        self.fields.places.find(base, parsed.headers.iter().map(|field| (field.name, field.value)));
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

    /// All fields of this name, in whatever case.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.fields.named(name)
    }

    pub fn body_length(&self) -> BodyLength {
        self.body
    }

    pub fn is_http_1_0(&self) -> bool {
        self.is_http_1_0
    }

    /// The method is one that comes with a body, and nothing says how long that is (RFC 9110 section 15.5.12).
    pub fn lacks_length(&self) -> bool {
        self.lacks_length
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
        let host = self.fields.first("host").unwrap_or_default();
        if parsed.authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(host)) {
            return Err(bad("the authority of the request target and the Host field differ"));
        }
        self.query = parsed.query.map(|query| Span::within(text, query));
        (self.path, self.decoded_path) = match parsed.path {
            Cow::Borrowed(path) => (Span::within(text, path), None),
            Cow::Owned(path) => (Span::default(), Some(path)),
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
        let has_length = framing.chunked || framing.length.is_some();
        self.lacks_length = !has_length && matches!(self.method, Method::Post | Method::Put);
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
        // An empty line that a server leaves over is not passed over: where it is from, the bytes after it may be too.
        if bytes.starts_with(b"\r\n") {
            return Err(bad("the response head begins with an empty line"));
        }
        self.fields.text.clear();
        match std::str::from_utf8(bytes) {
            Ok(text) => self.fields.text.push_str(text),
            Err(_) => self.fields.text.push_str(&String::from_utf8_lossy(bytes)),
        }
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
        self.fields.places.find(base, parsed.headers.iter().map(|field| (field.name, field.value)));
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

fn whole(outcome: httparse::Result<usize>) -> Result<(), httparse::Error> {
    match outcome {
        Ok(httparse::Status::Complete(_)) => Ok(()),
        Ok(httparse::Status::Partial) => Err(httparse::Error::Token),
        Err(error) => Err(error),
    }
}

fn request_error(error: httparse::Error, text: &str) -> HeadError {
    let mut words = text.split("\r\n").next().unwrap_or("").split(' ');
    let version = words.nth(2).filter(|_| words.next().is_none()).unwrap_or("");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fields::put_field;
    use crate::http::testing::{Random, for_seeds};

    /// As a connection does it: find the end, then parse.
    fn request(raw: &[u8]) -> Result<Option<RequestHead>, HeadError> {
        let mut head = RequestHead::default();
        let Some(end) = head_end(raw, &mut 0)? else { return Ok(None) };
        head.parse(&raw[..end]).map(|()| Some(head))
    }

    fn response(raw: &str, answers_head: bool) -> Result<ResponseHead, HeadError> {
        let mut head = ResponseHead::default();
        match head_end(raw.as_bytes(), &mut 0)? {
            Some(end) => head.parse(&raw.as_bytes()[..end], answers_head).map(|()| head),
            None => Err(bad("not whole")),
        }
    }

    #[test]
    fn a_request_head_is_read() {
        let raw = "POST /mcp/dcc/my%20app?x=1 HTTP/1.1\r\nHost: localhost:9765\r\nX-One:  a b \t\r\nx-one: second\r\n\
                   Content-Length: 12\r\nEXPECT: 100-Continue\r\nEmpty:\r\nUmlaut: ä\r\n\r\n";
        let head = request(raw.as_bytes()).expect("it is sound").expect("it is whole");
        assert_eq!(head.method(), Method::Post);
        assert_eq!((head.path(), head.query()), ("/mcp/dcc/my app", Some("x=1")));
        assert_eq!(head.header("x-ONE"), Some("a b"));
        assert_eq!(head.header("empty"), Some(""));
        assert_eq!(head.header("umlaut"), Some("ä"));
        assert_eq!(head.header("none"), None);
        assert_eq!(head.all("X-One").count(), 2);
        assert_eq!(head.headers().count(), 7);
        assert_eq!(head.body_length(), BodyLength::Bytes(12));
        assert!(head.keeps_alive() && head.expects_continue() && !head.is_http_1_0());
    }

    #[test]
    fn a_head_that_is_used_again_keeps_nothing() {
        let mut head = RequestHead::default();
        head.parse(b"POST /a%20b?q HTTP/1.0\r\nContent-Length: 3\r\nA: b\r\n\r\n").expect("sound");
        head.parse(b"GET /c HTTP/1.1\r\nHost: h\r\n\r\n").expect("sound");
        assert_eq!((head.path(), head.query(), head.header("a")), ("/c", None, None));
        assert_eq!((head.method(), head.body_length()), (Method::Get, BodyLength::Bytes(0)));
        assert!(head.keeps_alive());
    }

    /// Each with what is between the brackets as its whole head, or after a sound request line and host.
    #[test]
    fn what_is_refused_and_with_which_status() {
        let whole = |raw: &str, expected: Result<(), u16>| {
            let outcome = request(raw.as_bytes()).map(|head| assert!(head.is_some(), "{raw:?} is whole"));
            assert_eq!(outcome.map_err(|error| error.status), expected, "{raw:?}");
        };
        let line = |line: &str, expected| whole(&format!("{line}\r\nHost: h\r\n\r\n"), expected);
        let fields =
            |fields: &str, expected| whole(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n"), expected);
        for method in ["GET", "POST", "DELETE", "OPTIONS", "PATCH", "get", "M-SEARCH", "X!"] {
            line(&format!("{method} / HTTP/1.1"), Ok(()));
        }
        line("OPTIONS * HTTP/1.1", Ok(()));
        line("GET http://h/x HTTP/1.1", Ok(()));
        line("GET http://h HTTP/1.0", Ok(()));
        for request_line in [
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            " GET / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET\t/ HTTP/1.1",
            "GET /\tHTTP/1.1",
            "GET / HTTP/1.1\t",
            "GET /",
            "GET",
            "GET / ",
            "GET / HTTP",
            "GET / http/1.1",
            "GET / HTTP/1",
            "GET / HTTP/1.10",
            "GET / HTTP/ 1.1",
            "GET / FTP/1.1",
            "GET /a b HTTP/1.1",
            "GET /\u{e4} HTTP/1.1",
            "GET /%2e%2e/x HTTP/1.1",
            "GET /\0 HTTP/1.1",
            "GET /\x7f HTTP/1.1",
            "G(T / HTTP/1.1",
            "G\u{e4}T / HTTP/1.1",
            ": / HTTP/1.1",
            "GET * HTTP/1.1",
            "GET other HTTP/1.1",
            "GET http://other/ HTTP/1.1",
            "GET https://h/ HTTP/1.1",
            "\r\nGET / HTTP/1.1 x",
        ] {
            line(request_line, Err(400));
        }
        line("GET / HTTP/2.0", Err(505));
        line("GET / HTTP/1.2", Err(505));
        line("GET / HTTP/0.9", Err(505));
        line("CONNECT h:80 HTTP/1.1", Err(501));
        line("TRACE / HTTP/1.1", Err(501));
        line(&format!("GET /{} HTTP/1.1", "a".repeat(TARGET_BYTES_MAX)), Err(414));
        line(&format!("GET /{} HTTP/1.1", "a".repeat(TARGET_BYTES_MAX - 1)), Ok(()));
        whole("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(505));
        whole("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", Ok(()));
        whole("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", Err(400));
        whole("GET / HTTP/1.1\r\n\r\n", Err(400));
        whole("GET / HTTP/1.0\r\n\r\n", Ok(()));
        whole("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Err(400));
        whole("GET http://h/ HTTP/1.0\r\n\r\n", Err(400));
        whole("GET http://HOST/ HTTP/1.1\r\nHost: host\r\n\r\n", Ok(()));
        for host in ["", "a b", "a/b", "u@h", "h:x", "a,b", "h\u{e4}"] {
            whole(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), Err(400));
        }
        for sound in [
            "Content-Length: 0",
            "content-length: 18446744073709551615",
            "Content-Length:5",
            "Content-Length: 005",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: CHUNKED",
            "transfer-encoding:\tchunked\t",
            "Content_Length: 7",
            "X: a\tb",
            "X: \u{fc}",
            "Expect: 100-continue",
        ] {
            fields(sound, Ok(()));
        }
        for unsound in [
            "Host: h",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\ncontent-length: 6",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            "Content-Length:",
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: 5, 5",
            "Content-Length: 5 5",
            "Content-Length: 0x5",
            "Content-Length: 5.0",
            "Content-Length: \u{665}",
            "Content-Length: 18446744073709551616",
            "Content-Length: 99999999999999999999999",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding:",
            "Transfer-Encoding:\r\n chunked",
            "Transfer-Encoding : chunked",
            "Content-Length : 5",
            " Content-Length: 5",
            "X: a\r\n b",
            "X: a\r\n\tb",
            "X : a",
            "X\t: a",
            "X",
            ": a",
            "X(: a",
            "\u{e4}: a",
            "X: a\0b",
            "X: a\x01b",
            "X: a\x7fb",
            "X: a\rb: c",
            "X: a\nTransfer-Encoding: chunked",
            "X: a\r\r\nb: c",
        ] {
            fields(unsound, Err(400));
        }
        fields("Expect: 200-maybe", Err(417));
        fields("Expect: 100-continue, x", Err(417));
        fields(&vec!["A: b"; HEADERS_MAX - 1].join("\r\n"), Ok(()));
        fields(&vec!["A: b"; HEADERS_MAX].join("\r\n"), Err(431));
        fields(&format!("A: {}", "b".repeat(HEAD_BYTES_MAX)), Err(431));
        whole("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(400));
        assert_eq!(request(b"GET / HTTP/1.1\r\nX: \xff\r\nHost: h\r\n\r\n").map_err(|e| e.status).err(), Some(400));
        assert_eq!(request(&[b'a'; HEAD_BYTES_MAX]).map_err(|e| e.status).err(), Some(414));
    }

    #[test]
    fn the_connection_goes_on_as_the_version_and_the_options_say() {
        for (version, connection, expected) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: x, CLOSE\r\n", false),
            ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
            ("1.1", "Connection: enclosed\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let raw = format!("GET / HTTP/{version}\r\nHost: h\r\n{connection}\r\n");
            let head = request(raw.as_bytes()).expect("sound").expect("whole");
            assert_eq!(head.keeps_alive(), expected, "{raw:?}");
        }
    }

    #[test]
    fn response_bodies_are_as_long_as_status_and_fields_say() {
        use BodyLength::{Bytes, Chunked, UntilClose};
        let check = |raw: &str, answers_head: bool, expected: Option<(u16, BodyLength, bool)>| {
            let outcome = response(raw, answers_head).ok();
            assert_eq!(outcome.map(|h| (h.status(), h.body_length(), h.keeps_alive())), expected, "{raw:?}");
        };
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, Some((200, Bytes(5), true)));
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, Some((200, Bytes(0), true)));
        check("HTTP/1.1 204 No Content\r\n\r\n", false, Some((204, Bytes(0), true)));
        check("HTTP/1.1 304 \r\nContent-Length: 5\r\n\r\n", false, Some((304, Bytes(0), true)));
        check("HTTP/1.1 100 Continue\r\n\r\n", false, Some((100, Bytes(0), true)));
        check("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", false, Some((200, Chunked, true)));
        check("HTTP/1.1 200 OK\r\n\r\n", false, Some((200, UntilClose, false)));
        check("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", false, Some((200, Bytes(1), false)));
        check(
            "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n",
            false,
            Some((200, Bytes(1), true)),
        );
        check("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n", false, Some((200, Bytes(1), false)));
        for malformed in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\nX: a\n\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 600 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "<html>\r\n\r\n",
        ] {
            check(malformed, false, None);
        }
        let latin1 = b"HTTP/1.1 404 Nicht gef\xfcnden\r\nA: \xff\r\nContent-Length: 0\r\n\r\n";
        let mut head = ResponseHead::default();
        assert_eq!(head.parse(latin1, false), Ok(()));
        assert_eq!((head.status(), head.header("a")), (404, Some("\u{fffd}")));
    }

    /// Mutated heads do not panic, and it makes no difference where the bytes were split on their way.
    #[test]
    fn mutated_heads() {
        let seeds: &[&[u8]] = &[
            b"POST /mcp?x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\nConnection: close\r\n\r\n",
            b"GET http://h:1/%41 HTTP/1.0\r\nHost: h:1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Type: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ];
        for_seeds(3000, |random: &mut Random| {
            let raw = random.mutated(seeds);
            let at_once = head_end(&raw, &mut 0);
            let mut scanned = 0;
            let mut stepwise = Ok(None);
            for end in 0..=raw.len() {
                stepwise = head_end(&raw[..end], &mut scanned);
                if !matches!(stepwise, Ok(None)) {
                    break;
                }
            }
            assert_eq!(stepwise, at_once);
            if let Ok(Some(end)) = at_once {
                let mut head = RequestHead::default();
                if head.parse(&raw[..end]).is_ok() {
                    assert!(head.path() == "*" || head.path().starts_with('/'));
                    assert!(head.headers().all(|(name, value)| put_field(&mut Vec::new(), name, value).is_ok()));
                }
                let _ = ResponseHead::default().parse(&raw[..end], false);
            }
        });
    }
}
