//! Heads: the end is found however the bytes come; what is accepted has one reading, which is that of its plain lines;
//! written anew from what was read, it is read the same.

use dcc_mcp_server::http::fields::{BodyLength, put_field, put_line};
use dcc_mcp_server::http::head::{RequestHead, ResponseHead, head_end};
use dcc_mcp_server::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

/// A head that was read, taken apart into its first line and its fields without the parser's help.
struct Lines {
    first: String,
    fields: Vec<(String, String)>,
}

pub fn request(input: &[u8]) -> bool {
    let Some(raw) = whole_head(input) else { return false };
    let (mut fresh, mut used) = (RequestHead::default(), RequestHead::default());
    used.parse(b"OPTIONS /a%20b?q HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n").expect("sound");
    let outcome = fresh.parse(raw);
    assert_eq!(used.parse(raw), outcome, "a head that is used again reads otherwise");
    if let Err(error) = outcome {
        assert!((400..=505).contains(&error.status), "{error:?}");
        return false;
    }
    assert_eq!(request_facts(&used), request_facts(&fresh), "a head that is used again keeps something");

    let lines = Lines::of(raw.strip_prefix(b"\r\n").unwrap_or(raw));
    lines.check(fresh.headers());
    let words: Vec<&str> = lines.first.split(' ').collect();
    let [method, target, version] = words[..] else { panic!("a request line of three words: {:?}", lines.first) };
    assert!(is_token(method) && target.len() <= TARGET_BYTES_MAX, "{:?}", lines.first);
    assert_eq!(fresh.is_http_1_0(), version == "HTTP/1.0");
    assert!(version == "HTTP/1.0" || version == "HTTP/1.1", "{version}");
    check_path(fresh.path(), method);
    check_request_framing(&fresh, &lines);

    let query = fresh.query().map(|query| format!("?{query}")).unwrap_or_default();
    let line = format!("{method} {}{query} {version}", percent_encoded(fresh.path()));
    let written = lines.written(&line);
    let mut again = RequestHead::default();
    again.parse(&written).unwrap_or_else(|error| panic!("{error:?}: {:?}", String::from_utf8_lossy(&written)));
    assert_eq!(request_facts(&again), request_facts(&fresh));
    true
}

pub fn response(input: &[u8]) -> bool {
    let Some(raw) = whole_head(input) else { return false };
    let (mut fresh, mut used) = (ResponseHead::default(), ResponseHead::default());
    used.parse(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", false).expect("sound");
    let outcome = fresh.parse(raw, false);
    assert_eq!(used.parse(raw, false), outcome, "a head that is used again reads otherwise");
    if outcome.is_err() {
        return false;
    }
    assert_eq!(response_facts(&used), response_facts(&fresh), "a head that is used again keeps something");

    let lines = Lines::of(raw);
    lines.check(fresh.headers());
    let (version, rest) = lines.first.split_at(9);
    assert!(version == "HTTP/1.0 " || version == "HTTP/1.1 ", "{:?}", lines.first);
    assert!((100..600).contains(&fresh.status()));
    assert_eq!(rest.get(..3), Some(&*fresh.status().to_string()), "{:?}", lines.first);
    assert!(matches!(rest.as_bytes().get(3), None | Some(b' ')), "{:?}", lines.first);
    check_response_framing(&fresh, &lines);
    used.parse(raw, true).expect("whether it answers HEAD decides on nothing but the body");
    assert_eq!(used.body_length(), BodyLength::Bytes(0));

    let mut again = ResponseHead::default();
    again.parse(&lines.written(&lines.first), false).expect("what was read is read again");
    assert_eq!(response_facts(&again), response_facts(&fresh));
    true
}

/// The head at the beginning, found at once and found as it comes in byte by byte.
fn whole_head(input: &[u8]) -> Option<&[u8]> {
    let at_once = head_end(input, &mut 0);
    let mut scanned = 0;
    let mut bytewise = Ok(None);
    for end in 0..=input.len() {
        bytewise = head_end(&input[..end], &mut scanned);
        assert!(scanned <= end);
        if bytewise != Ok(None) {
            break;
        }
    }
    assert_eq!(bytewise, at_once, "byte by byte and at once");
    if at_once == Ok(None) {
        assert!(input.len() < HEAD_BYTES_MAX, "a head without end is waited for");
    }
    let end = at_once.ok().flatten()?;
    assert!(end <= HEAD_BYTES_MAX && input[..end].ends_with(b"\r\n\r\n"));
    Some(&input[..end])
}

impl Lines {
    fn of(raw: &[u8]) -> Lines {
        let text = String::from_utf8_lossy(raw);
        let text = text.strip_suffix("\r\n\r\n").expect("a head ends in an empty line");
        let mut lines = text.split("\r\n").map(str::to_owned);
        let first = lines.next().unwrap_or_default();
        let field = |line: String| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} has no colon"));
            (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
        };
        Lines { first, fields: lines.map(field).collect() }
    }

    /// What the parser found is what stands there, and nothing in it can be taken for the end of a line.
    fn check<'a>(&self, found: impl Iterator<Item = (&'a str, &'a str)>) {
        let found: Vec<(&str, &str)> = found.collect();
        let expected: Vec<(&str, &str)> = self.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(found, expected);
        assert!(found.len() <= HEADERS_MAX);
        assert!(found.iter().all(|(name, _)| is_token(name)), "{found:?}");
        let texts = found.iter().map(|(_, value)| *value).chain([&*self.first]);
        for text in texts {
            assert!(!text.bytes().any(|b| matches!(b, 0..=8 | 10..=31 | 127)), "{text:?}");
        }
    }

    fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| &**value).collect()
    }

    fn written(&self, first: &str) -> Vec<u8> {
        let mut out = Vec::new();
        put_line(&mut out, &[first]);
        for (name, value) in &self.fields {
            put_field(&mut out, name, value).expect("a field that was read can be written");
        }
        put_line(&mut out, &[]);
        out
    }

    /// Length and coding of the body, if there is just one way to tell them.
    fn body(&self) -> (Option<u64>, bool) {
        let (lengths, codings) = (self.values("content-length"), self.values("transfer-encoding"));
        assert!(
            lengths.len() + codings.len() <= 1,
            "two hops could read the length differently: {lengths:?} {codings:?}"
        );
        assert!(codings.iter().all(|coding| coding.eq_ignore_ascii_case("chunked")), "{codings:?}");
        let number = |text: &&str| {
            assert!(text.bytes().all(|b| b.is_ascii_digit()), "{text:?}");
            text.parse().expect("a length is a number")
        };
        (lengths.first().map(number), !codings.is_empty())
    }
}

fn check_path(path: &str, method: &str) {
    assert!(path.starts_with('/') || (path == "*" && method == "OPTIONS"), "{path:?}");
    assert!(!path.split(['/', '\\']).any(|segment| segment == "." || segment == ".."), "{path:?}");
    assert!(!path.bytes().any(|b| b.is_ascii_control()), "{path:?}");
}

fn check_request_framing(head: &RequestHead, lines: &Lines) {
    let (length, chunked) = lines.body();
    let expected = if chunked { BodyLength::Chunked } else { BodyLength::Bytes(length.unwrap_or(0)) };
    assert_eq!(head.body_length(), expected);
    assert!(!(chunked && head.is_http_1_0()));
    let hosts = lines.values("host").len();
    assert!(hosts == 1 || (hosts == 0 && head.is_http_1_0()), "{hosts} hosts");
}

fn check_response_framing(head: &ResponseHead, lines: &Lines) {
    let (length, chunked) = lines.body();
    let expected = match (head.status(), length) {
        (100..200 | 204 | 304, _) => BodyLength::Bytes(0),
        (_, Some(length)) => BodyLength::Bytes(length),
        (_, None) if chunked => BodyLength::Chunked,
        (_, None) => BodyLength::UntilClose,
    };
    assert_eq!(head.body_length(), expected);
    assert!(!(head.keeps_alive() && expected == BodyLength::UntilClose));
}

/// All that is known of a head.
fn request_facts(head: &RequestHead) -> impl PartialEq + std::fmt::Debug {
    (
        (head.method(), head.path().to_owned(), head.query().map(str::to_owned)),
        (head.is_http_1_0(), head.keeps_alive(), head.expects_continue(), head.body_length()),
        owned(head.headers()),
    )
}

fn response_facts(head: &ResponseHead) -> impl PartialEq + std::fmt::Debug {
    (head.status(), head.keeps_alive(), head.body_length(), owned(head.headers()))
}

fn owned<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn percent_encoded(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02x}") }).collect()
}
