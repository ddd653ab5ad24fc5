//! The request target and the `Host` field: which resource of which server is meant.
//!
//! **Invariant**: a path that comes out of here has no percent-encoding left, no control character, no `.` or `..`
//! segment and no separator that was hidden by encoding, so that comparing it with a route decides.
//! **Bounds**: the target is at most `TARGET_BYTES_MAX` long, checked by the caller.
//! Left out on purpose: decoding of the query; no route of ours has parameters that need it.

use std::borrow::Cow;

/// A request target, taken apart (RFC 9112 section 3.2).
#[derive(Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Given in absolute form only.
    pub authority: Option<&'a str>,
    /// Percent-decoded; `*` for the asterisk form. Borrowed if it is a part of the target as it was sent.
    pub path: Cow<'a, str>,
    pub query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// The error is the message of a 400.
    pub fn parse(target: &'a str, asterisk_allowed: bool) -> Result<Target<'a>, &'static str> {
        if target == "*" && asterisk_allowed {
            return Ok(Target { authority: None, path: Cow::Owned("*".to_owned()), query: None });
        }
        let (authority, rest) = split_authority(target)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        if query.is_some_and(|query| !query.bytes().all(is_query_byte)) {
            return Err("the query of the request target has a character that must be percent-encoded");
        }
        let path = if path.is_empty() && authority.is_some() { Cow::Owned("/".to_owned()) } else { decode_path(path)? };
        Ok(Target { authority, path, query })
    }
}

/// Whether a `Host` value or an authority is a host with an optional port, and nothing more (RFC 9110 section 7.2).
pub fn is_host(value: &str) -> bool {
    let (host, port) = if let Some(rest) = value.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else { return false };
        if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
            return false;
        }
        match after.strip_prefix(':') {
            Some(port) => ("v6", Some(port)),
            None if after.is_empty() => ("v6", None),
            None => return false,
        }
    } else {
        match value.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (value, None),
        }
    };
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    !host.is_empty()
        && host.bytes().all(is_name)
        && port.is_none_or(|port| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()))
}

fn split_authority(target: &str) -> Result<(Option<&str>, &str), &'static str> {
    if target.starts_with('/') {
        return Ok((None, target));
    }
    let rest = match target.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => rest,
        _ => return Err("the request target must be a path, or an absolute http URI"),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if !is_host(authority) {
        return Err("the authority of the request target is not a host with an optional port");
    }
    Ok((Some(authority), path))
}

fn decode_path(path: &str) -> Result<Cow<'_, str>, &'static str> {
    if !path.starts_with('/') {
        return Err("the path of the request target must begin with a slash");
    }
    let decoded = if path.contains('%') { Cow::Owned(decode_percent(path)?) } else { Cow::Borrowed(path) };
    if !path.bytes().all(|b| b == b'%' || is_path_byte(b)) {
        return Err("the path of the request target has a character that must be percent-encoded");
    }
    if decoded.split('/').any(|segment| segment == "." || segment == "..") {
        return Err("the path of the request target has a dot segment");
    }
    Ok(decoded)
}

fn decode_percent(path: &str) -> Result<String, &'static str> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err("the path of the request target has a bad percent-encoding");
        };
        match u8::try_from(high * 16 + low) {
            Ok(b'/' | b'\\' | 0x7f) | Ok(0..0x20) | Err(_) => {
                return Err("the path of the request target hides a separator or a control character");
            }
            Ok(byte) => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map_err(|_| "the path of the request target is not UTF-8")
}

/// RFC 3986 `pchar` without `%`, and the slash.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}

/// What browsers send in queries is more than RFC 3986 allows; a fragment or a non-ASCII byte is refused.
fn is_query_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let check = |target: &str, expected: Result<(Option<&str>, &str, Option<&str>), &str>| {
            let parsed = Target::parse(target, false);
            match (&parsed, expected) {
                (Ok(t), Ok((authority, path, query))) => {
                    assert_eq!((t.authority, &*t.path, t.query), (authority, path, query), "{target}");
                }
                (Err(message), Err(part)) => assert!(message.contains(part), "{target}: {message}"),
                _ => panic!("{target}: {parsed:?}"),
            }
        };
        check("/", Ok((None, "/", None)));
        check("/mcp?a=b?c", Ok((None, "/mcp", Some("a=b?c"))));
        check("/mcp?", Ok((None, "/mcp", Some(""))));
        check("/mcp/dcc/my%20app", Ok((None, "/mcp/dcc/my app", None)));
        check("/%C3%A9", Ok((None, "/é", None)));
        check("/a%252e%252e/b", Ok((None, "/a%2e%2e/b", None)));
        check("/...", Ok((None, "/...", None)));
        check("//x", Ok((None, "//x", None)));
        check("http://h:1/mcp?x", Ok((Some("h:1"), "/mcp", Some("x"))));
        check("HTTP://h", Ok((Some("h"), "/", None)));
        check("http://h?q", Ok((Some("h"), "/", Some("q"))));
        for (target, part) in [
            ("", "must be a path"),
            ("*", "must be a path"),
            ("mcp", "must be a path"),
            ("host:443", "must be a path"),
            ("https://h/", "must be a path"),
            ("ftp://h/", "must be a path"),
            ("http:///mcp", "authority"),
            ("http://user@h/", "authority"),
            ("http://h:port/", "authority"),
            ("http://h#f", "authority"),
            ("/%", "bad percent"),
            ("/%4", "bad percent"),
            ("/%zz", "bad percent"),
            ("/%+1", "bad percent"),
            ("/a%2fb", "hides"),
            ("/a%5Cb", "hides"),
            ("/%00", "hides"),
            ("/%0d%0a", "hides"),
            ("/%7f", "hides"),
            ("/%ff", "UTF-8"),
            ("/..", "dot segment"),
            ("/a/../b", "dot segment"),
            ("/./b", "dot segment"),
            ("/%2e%2e/b", "dot segment"),
            ("/.%2e", "dot segment"),
            ("/a\\b", "must be percent-encoded"),
            ("/a#b", "must be percent-encoded"),
            ("/a b", "must be percent-encoded"),
            ("/é", "must be percent-encoded"),
            ("/a?é", "query"),
            ("/a?b#c", "query"),
        ] {
            check(target, Err(part));
        }
        assert_eq!(Target::parse("*", true).map(|t| t.path.into_owned()), Ok("*".to_owned()));
    }

    #[test]
    fn hosts() {
        for host in ["localhost", "localhost:9765", "127.0.0.1:1", "[::1]", "[::1]:80", "a_b.c-d~", "h:"] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "", ":80", "h:80:80", "h:x", "h:123456", "a b", "a/b", "u@h", "[::1", "[]", "[::1]x", "[::1]:x", "a,b", "é",
        ] {
            assert!(!is_host(host), "{host}");
        }
    }
}
