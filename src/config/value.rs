//! What one value may be: from text to a checked type, or the words that say what is accepted.
//!
//! **Invariant**: a value that gets through needs no further check by whoever uses it.
//! **Thread**: `main`; pure functions.
//! **Bounds**: `ENTRY_TEXT_BYTES_MAX`, `ENTRY_NAME_BYTES_MAX`, `FLAG_TIME_MAX`, `FLAG_CONNECTIONS_MAX`.
//! Left out on purpose: whether files and folders exist, which can change while the server runs.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::limits::{ENTRY_NAME_BYTES_MAX, ENTRY_TEXT_BYTES_MAX, FLAG_CONNECTIONS_MAX, FLAG_TIME_MAX};

/// The value, or what is accepted instead.
pub type Parsed<T> = Result<T, &'static str>;

pub fn address(text: &str) -> Parsed<IpAddr> {
    if text == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    inner.parse().map_err(|_| "an IP address such as 127.0.0.1, 0.0.0.0 or ::1")
}

/// An address or a name at which others can reach us.
pub fn reachable_host(text: &str) -> Parsed<String> {
    let wrong = "an IP address or a host name, without scheme and port, and not 0.0.0.0 or ::";
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match inner.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() || address.is_multicast() => Err(wrong),
        Ok(address) => Ok(address.to_string()),
        Err(_) if is_host_name(text) => Ok(text.to_owned()),
        Err(_) => Err(wrong),
    }
}

pub fn port(text: &str) -> Parsed<u16> {
    digits(text).and_then(|text| text.parse().ok()).ok_or("a port from 0 to 65535")
}

pub fn connections(text: &str) -> Parsed<usize> {
    const _: () = assert!(FLAG_CONNECTIONS_MAX == 65_536);
    count(text, FLAG_CONNECTIONS_MAX).ok_or("a number from 1 to 65536")
}

pub fn files(text: &str) -> Parsed<usize> {
    count(text, 1000).ok_or("a number from 1 to 1000")
}

pub fn seconds(text: &str) -> Parsed<Duration> {
    const _: () = assert!(FLAG_TIME_MAX.as_secs() == 604_800);
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let time = text.parse().ok().filter(|_| plain).and_then(|time| Duration::try_from_secs_f64(time).ok());
    time.filter(|time| *time <= FLAG_TIME_MAX).ok_or("seconds from 0 to 604800, such as 30 or 0.5")
}

/// A time in which something has to happen.
pub fn seconds_above_zero(text: &str) -> Parsed<Duration> {
    let time = seconds(text).ok().filter(|time| !time.is_zero());
    time.ok_or("seconds above 0 and up to 604800, such as 30 or 0.5")
}

pub fn heartbeat_seconds(text: &str) -> Parsed<Duration> {
    let time = seconds(text).ok().filter(|time| *time >= Duration::from_secs(1));
    time.ok_or("seconds from 1 to 604800, such as 5 or 2.5")
}

pub fn bytes(text: &str) -> Parsed<u64> {
    const UNITS: [(&str, u32); 10] = [
        ("KiB", 10),
        ("MiB", 20),
        ("GiB", 30),
        ("k", 10),
        ("K", 10),
        ("m", 20),
        ("M", 20),
        ("g", 30),
        ("G", 30),
        ("", 0),
    ];
    const ALLOWED: std::ops::RangeInclusive<u64> = 4096..=64 << 30;
    let (number, shift) =
        UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift))).unwrap_or((text, 0));
    let number: Option<u64> = digits(number.trim_end()).and_then(|number| number.parse().ok());
    let bytes = number.and_then(|number| number.checked_mul(1 << shift)).filter(|bytes| ALLOWED.contains(bytes));
    bytes.ok_or("bytes from 4KiB to 64GiB, such as 500000, 512KiB or 10M")
}

pub fn boolean(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("true or false (also 1, yes, on, 0, no, off)"),
    }
}

pub fn log_level(text: &str) -> Parsed<LevelFilter> {
    let level = text.parse().ok().filter(|level| *level != LevelFilter::Off);
    level.ok_or("error, warn, info, debug or trace")
}

/// A UUID of any version, in lower case.
pub fn uuid(text: &str) -> Parsed<String> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths = groups.iter().map(|group| group.len());
    let hex = groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match hex && lengths.eq([8, 4, 4, 4, 12]) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("a UUID such as 0f8fad5b-d9cb-469f-a165-70867728950e"),
    }
}

/// An application type: it becomes a part of URL paths, of labels and of the name of a variable.
pub fn dcc(text: &str) -> Parsed<String> {
    const _: () = assert!(ENTRY_NAME_BYTES_MAX == 64);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match text.len() <= ENTRY_NAME_BYTES_MAX && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("at most 64 letters, digits, '-', '_' or '.', such as maya"),
    }
}

/// Text for people.
pub fn text(text: &str) -> Parsed<String> {
    const _: () = assert!(ENTRY_TEXT_BYTES_MAX == 4096);
    match text.len() <= ENTRY_TEXT_BYTES_MAX && !text.chars().any(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("at most 4096 bytes without control characters"),
    }
}

/// The name of a skill, or `all`.
pub fn skill_name(text: &str) -> Parsed<String> {
    match text.len() <= 128 && !text.chars().any(|letter| letter.is_control() || letter == '/') {
        true => Ok(text.to_owned()),
        false => Err("names of skills separated by commas, or all"),
    }
}

/// `scheme://host` or `scheme://host:port` as browsers send it (RFC 6454), in lower case.
pub fn origin(text: &str) -> Parsed<String> {
    let wrong = "origins such as https://tools.example.com or http://10.0.0.5:8080, without a path; not * or null";
    let text = text.to_ascii_lowercase();
    let (scheme, host) = text.split_once("://").ok_or(wrong)?;
    let scheme_is_plain = scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    match scheme_is_plain && is_host_and_port(host) {
        true => Ok(text),
        false => Err(wrong),
    }
}

/// A name as clients send it in `Host`, in lower case; IPv6 addresses in brackets.
pub fn host(text: &str) -> Parsed<String> {
    let text = text.to_ascii_lowercase();
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => Ok(format!("[{address}]")),
        _ if is_host_and_port(&text) => Ok(text),
        _ => Err("host names or addresses such as mcp.example.com or 10.0.0.5:9765, without a scheme; not *"),
    }
}

/// The folders of a search path. As bytes, since paths need not be UTF-8.
pub fn folders(list: &OsStr) -> impl Iterator<Item = PathBuf> + '_ {
    let folders = list.as_bytes().split(|byte| b":;".contains(byte)).filter(|folder| !folder.is_empty());
    folders.map(|folder| OsStr::from_bytes(folder).into())
}

/// The words of a comma-separated list.
pub fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn is_host_and_port(text: &str) -> bool {
    let (host, port_text) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, rest)) => {
            return address.parse::<std::net::Ipv6Addr>().is_ok()
                && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port_above_zero));
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    is_host_name(host) && port_text.is_none_or(is_port_above_zero)
}

fn is_port_above_zero(text: &str) -> bool {
    port(text).is_ok_and(|port| port > 0)
}

fn is_host_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with(['.', '-'])
}

fn count(text: &str, max: usize) -> Option<usize> {
    digits(text)?.parse().ok().filter(|count| (1..=max).contains(count))
}

/// Nothing but digits: the standard library would take a sign as well.
fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn check<T: Debug>(parse: impl Fn(&str) -> Parsed<T>, good: &[(&str, &str)], bad: &[&str]) {
        for (text, expected) in good {
            assert_eq!(parse(text).map(|value| format!("{value:?}")).as_deref(), Ok(*expected), "{text}");
        }
        for text in bad {
            assert!(parse(text).is_err(), "{text:?} is taken as {:?}", parse(text));
        }
    }

    #[test]
    fn values() {
        check(
            address,
            &[("0.0.0.0", "0.0.0.0"), ("::1", "::1"), ("[::1]", "::1"), ("localhost", "127.0.0.1")],
            &["", "x", "1.2.3", "1.2.3.4:80", " 1.2.3.4"],
        );
        check(
            reachable_host,
            &[("10.0.0.1", "\"10.0.0.1\""), ("[fd00::1]", "\"fd00::1\""), ("node-7.farm", "\"node-7.farm\"")],
            &["", "0.0.0.0", "::", "http://x", "x:80", "a b", "224.0.0.1", "x\n", ".x"],
        );
        check(port, &[("0", "0"), ("65535", "65535"), ("080", "80")], &["", "65536", "-1", "+1", "1.0", " 1", "http"]);
        check(connections, &[("1", "1"), ("65536", "65536")], &["0", "65537", "", "many", "-1"]);
        check(files, &[("1", "1"), ("1000", "1000")], &["0", "1001", "7.0"]);
        check(
            seconds,
            &[("0", "0ns"), ("5", "5s"), ("0.5", "500ms"), ("604800", "604800s"), (".5", "500ms")],
            &["", ".", "1.2.3", "-1", "+1", "inf", "nan", "1e3", "5s", "500ms", "604801", "99999999999999999999999"],
        );
        check(seconds_above_zero, &[("0.001", "1ms")], &["0", "0.0", "0.0000000001"]);
        check(heartbeat_seconds, &[("1", "1s"), ("2.5", "2.5s")], &["0.9", "0", "x"]);
        check(
            bytes,
            &[
                ("4096", "4096"),
                ("4KiB", "4096"),
                ("64k", "65536"),
                ("10MiB", "10485760"),
                ("10 MiB", "10485760"),
                ("10M", "10485760"),
                ("1G", "1073741824"),
            ],
            &[
                "",
                "MiB",
                "1",
                "3k",
                "4095",
                "65G",
                "1.5M",
                "-1M",
                "10MB",
                "18446744073709551616",
                "18446744073709551615G",
            ],
        );
        check(boolean, &[("1", "true"), ("Yes", "true"), ("off", "false"), ("FALSE", "false")], &["", "2", "maybe"]);
        check(log_level, &[("info", "Info"), ("WARN", "Warn")], &["", "off", "verbose", "5"]);
    }

    #[test]
    fn names() {
        let id = "0F8FAD5B-d9cb-469f-a165-70867728950e";
        let lower = format!("{:?}", id.to_ascii_lowercase());
        check(
            uuid,
            &[(id, &lower)],
            &["", "0f8fad5b", "0f8fad5b-d9cb-469f-a165-70867728950", "{x}", &id.replace('0', "g")],
        );
        check(
            dcc,
            &[("maya", "\"maya\""), ("3ds-max_2", "\"3ds-max_2\"")],
            &["a b", "a/b", "ä", "a\n", &"x".repeat(65)],
        );
        check(text, &[("Shot 010 ä", "\"Shot 010 ä\"")], &["a\nb", "\u{85}", &"x".repeat(4097)]);
        check(skill_name, &[("maya-geometry", "\"maya-geometry\"")], &["a/b", "a\0b"]);
        check(
            origin,
            &[
                ("https://Tools.example.com", "\"https://tools.example.com\""),
                ("http://[::1]:80", "\"http://[::1]:80\""),
                ("vscode-webview://x", "\"vscode-webview://x\""),
            ],
            &["", "*", "null", "https://", "https://x/", "https://*.x", "x.com", "http://x:0", "http://x:y", "://x"],
        );
        check(
            host,
            &[
                ("MCP.example.com", "\"mcp.example.com\""),
                ("10.0.0.5:9765", "\"10.0.0.5:9765\""),
                ("fd00::1", "\"[fd00::1]\""),
                ("[fd00::1]:80", "\"[fd00::1]:80\""),
            ],
            &["", "*", "http://x", "x/y", "x:", "x:70000", "a b", "[x]", "[::1]x"],
        );
    }

    #[test]
    fn lists() {
        let all = |list: &[u8]| folders(OsStr::from_bytes(list)).collect::<Vec<_>>();
        assert_eq!(all(b"/a:/b c;./d::;"), ["/a", "/b c", "./d"].map(PathBuf::from));
        assert_eq!(all(b"/a\xff:/b"), [PathBuf::from(OsStr::from_bytes(b"/a\xff")), PathBuf::from("/b")]);
        assert_eq!(words(" a, b c,,").collect::<Vec<_>>(), ["a", "b c"]);
    }
}
