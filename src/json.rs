//! JSON text handled as text: made small without changing a value, an order or a number; and how bytes are read as JSON.
//!
//! **Invariant**: pure; valid JSON stays the same value.
//! Left out on purpose: checking it (`serde_json` does).

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::Error;

/// A string that is not copied unless something in it is escaped; serde copies every `Option<Cow<str>>`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// Reads a value. Text first and then JSON, as `serde_json` would bring another reader of everything along for bytes.
pub fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> serde_json::Result<T> {
    serde_json::from_str(str::from_utf8(bytes).map_err(serde_json::Error::custom)?)
}

/// Without the blanks between tokens, so that it fits into one line of an event stream.
pub fn compact(text: &str) -> String {
    let mut inside = Inside::default();
    text.chars().filter(|c| inside.take(*c) || !matches!(c, ' ' | '\n' | '\r' | '\t')).collect()
}

/// Whether arrays and objects of a valid text are nested deeper than `limit`.
pub fn is_deeper_than(text: &str, limit: usize) -> bool {
    // Most text is too short or has too few brackets for it, and counting them costs far less than reading strings. That
    // bit is all that `{` and `[` differ in.
    if text.len() <= 2 * limit || text.bytes().filter(|byte| byte | 0x20 == b'{').count() <= limit {
        return false;
    }
    let (mut depth, mut inside) = (0_usize, Inside::default());
    text.chars().any(|c| {
        match (inside.take(c), c) {
            (false, '{' | '[') => depth += 1,
            (false, '}' | ']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > limit
    })
}

/// Whether the reading stands inside a string.
#[derive(Default)]
struct Inside {
    string: bool,
    escaped: bool,
}

impl Inside {
    /// Takes the next character; true if it belongs to a string.
    fn take(&mut self, c: char) -> bool {
        let before = self.string;
        match (self.string, c) {
            (true, _) if self.escaped => self.escaped = false,
            (true, '\\') => self.escaped = true,
            (_, '"') => self.string = !self.string,
            _ => {}
        }
        before || self.string
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_no_json() {
        let read = |bytes: &[u8]| read::<String>(bytes).map_err(|error| error.to_string());
        assert_eq!(read("\"ä\"".as_bytes()), Ok("ä".to_owned()));
        assert_eq!(read(b"\"\xe4\"").unwrap_err(), "invalid utf-8 sequence of 1 bytes from index 1");
        assert!(read(b"\"a").is_err());
    }

    #[test]
    fn blanks_go_and_strings_stay() {
        for (text, expected) in [
            ("{ \"a b\" : [ 1 ,\n\t2 ] }", r#"{"a b":[1,2]}"#),
            (r#"{"q": "x \" y", "w": "\\" }"#, r#"{"q":"x \" y","w":"\\"}"#),
            ("", ""),
        ] {
            assert_eq!(compact(text), expected);
        }
    }

    #[test]
    fn depth_is_that_of_brackets_outside_strings() {
        assert!(!is_deeper_than(r#"{"a":["[[[[[[",1,[2]],"b":[]}"#, 3));
        assert!(is_deeper_than("[[[[1]]]]", 3));
        assert!(!is_deeper_than("[[[1]]]", 3));
    }
}
