//! Texts with places for values: `{{argument}}` in prompts and resources, `{name}` in URIs.
//!
//! **Invariant**: pure; a value is put in as it is and never looked into for further places.
//! **Bounds**: a filled text stops growing at the limit it is given; matching takes time linear in the URI.
//! Left out on purpose: conditions and loops; of RFC 6570 everything beyond level 1.

use std::borrow::Cow;

/// What the places of a text hold.
pub type Values = [(String, String)];

/// The text with `{{name}}` replaced for every name that `values` has, whatever else stands in braces kept;
/// `None` beyond `limit` bytes.
pub fn fill(text: &str, values: &Values, limit: usize) -> Option<String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, name, after)) = next_place(rest) {
        match values.iter().find(|(other, _)| other == name) {
            Some((_, value)) => {
                out.push_str(before);
                out.push_str(value);
                rest = after;
            }
            // Two braces of three or more may still begin a place at the second one.
            None => {
                out.push_str(before);
                out.push('{');
                rest = rest.get(before.len() + 1..).unwrap_or_default();
            }
        }
        if out.len() > limit {
            return None;
        }
    }
    out.push_str(rest);
    (out.len() <= limit).then_some(out)
}

/// The next `{{name}}`: what is before it, the name without blanks around it, and what is after it.
fn next_place(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("{{")?;
    // Names are short: a far-off end is none of this place, and looking for it each time would cost a square.
    let near = rest.char_indices().nth(NAME_CHARS_MAX).and_then(|(end, _)| rest.get(..end)).unwrap_or(rest);
    let name = near.split_once("}}").map_or("", |(name, _)| name);
    let after = rest.strip_prefix(name).and_then(|after| after.strip_prefix("}}")).unwrap_or(rest);
    Some((before, name.trim(), after))
}

/// Characters of a name in braces, blanks around it included.
const NAME_CHARS_MAX: usize = 100;

/// A URI with places, such as `scene://{name}/nodes`.
#[derive(Clone, Debug, PartialEq)]
pub struct UriTemplate {
    text: String,
    /// What is before the first place, and each place with what follows it.
    head: String,
    parts: Vec<(String, String)>,
}

impl UriTemplate {
    /// Reads a template of RFC 6570 level 1; the error is for its author.
    pub fn parse(text: &str) -> Result<UriTemplate, String> {
        let mut pieces = text.split('{');
        let head = pieces.next().unwrap_or_default().to_owned();
        let mut parts: Vec<(String, String)> = Vec::new();
        for piece in pieces {
            let (name, literal) = piece.split_once('}').ok_or("a `{` has no `}`")?;
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            if name.is_empty() || !name.chars().all(plain) {
                return Err(format!("`{{{name}}}` is no plain name; operators of RFC 6570 are not known here"));
            }
            if parts.last().is_some_and(|(_, literal)| literal.is_empty()) {
                return Err(format!("`{{{name}}}` follows another name at once; where one ends could not be told"));
            }
            if parts.iter().any(|(other, _)| other == name) {
                return Err(format!("`{{{name}}}` is there twice"));
            }
            parts.push((name.to_owned(), literal.to_owned()));
        }
        match () {
            () if parts.is_empty() => Err("there is no `{name}` in it".to_owned()),
            () if head.contains('}') || parts.iter().any(|(_, literal)| literal.contains('}')) => {
                Err("a `}` has no `{`".to_owned())
            }
            () => Ok(UriTemplate { text: text.to_owned(), head, parts }),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|(name, _)| name.as_str())
    }

    /// The values with which the template gives `uri`. A value has at least one character and none of `/?#`.
    pub fn values_in(&self, uri: &str) -> Option<Vec<(String, String)>> {
        let mut rest = uri.strip_prefix(self.head.as_str())?;
        let mut values = Vec::new();
        for (index, (name, literal)) in self.parts.iter().enumerate() {
            let end = match index + 1 == self.parts.len() {
                true => rest.strip_suffix(literal.as_str())?.len(),
                false => {
                    let first = rest.chars().next()?.len_utf8();
                    first + rest.get(first..)?.find(literal.as_str())?
                }
            };
            let (value, after) = rest.split_at_checked(end)?;
            if value.is_empty() || value.contains(['/', '?', '#']) {
                return None;
            }
            values.push((name.clone(), decoded(value)?.into_owned()));
            rest = after.strip_prefix(literal.as_str())?;
        }
        Some(values)
    }
}

/// Percent-encoded, but for what RFC 3986 calls unreserved and for `keep`.
pub fn encoded(text: &str, keep: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match char::from(byte) {
            c if byte.is_ascii() && (c.is_ascii_alphanumeric() || "-._~".contains(c) || keep.contains(c)) => {
                out.push(c)
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `None`: what follows a `%` is not two hexadecimal digits, or the whole is not UTF-8.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        (rest, _) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                (after, out.push((digit(high)? << 4 | digit(low)?) as u8))
            }
            (b'%', _) => return None,
            (byte, after) => (after, out.push(*byte)),
        };
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn values_are_put_in_once() {
        let values = pairs(&[("a", "1"), ("b", "{{a}}"), ("empty", "")]);
        for (text, expected) in [
            ("", ""),
            ("no place", "no place"),
            ("{{a}}", "1"),
            ("x{{ a }}y{{a}}z", "x1y1z"),
            ("{{b}}", "{{a}}"),
            ("[{{empty}}]", "[]"),
            ("{{c}} {{a}}", "{{c}} 1"),
            ("{{{a}}}", "{1}"),
            ("{{{{a}}", "{{1"),
            ("{{", "{{"),
            // Characters of three bytes, in which no place begins two bytes on.
            ("{{世界", "{{世界"),
            ("{{a世}", "{{a世}"),
            ("{{a", "{{a"),
            ("{{a}", "{{a}"),
            ("{ {a}} {{}} é{{a}}é", "{ {a}} {{}} é1é"),
        ] {
            assert_eq!(fill(text, &values, 100).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_filled_text_is_bounded() {
        let values = pairs(&[("a", &"x".repeat(1000))]);
        let text = "{{a}}".repeat(100_000);
        let started = std::time::Instant::now();
        assert_eq!(fill(&text, &values, 10_000), None);
        assert_eq!(fill("{{a}}", &values, 1000).map(|text| text.len()), Some(1000));
        assert_eq!(fill("{{a}}.", &values, 1000), None);
        let braces = "{".repeat(100_000);
        assert_eq!(fill(&braces, &values, braces.len()), Some(braces.clone()));
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    }

    #[test]
    fn uris_are_matched() {
        for (template, uri, expected) in [
            ("t://{id}/data", "t://123/data", Some(vec![("id", "123")])),
            ("t://{id}/data", "t://a%2Fb%20c/data", Some(vec![("id", "a/b c")])),
            ("t://{id}/data", "t://1/2/data", None),
            ("t://{id}/data", "t:///data", None),
            ("t://{id}/data", "t://1/data/", None),
            ("t://{id}/data", "t://%zz/data", None),
            ("t://{id}/data", "t://%ff/data", None),
            ("t://{id}/data", "t://%2/data", None),
            ("t://{id}", "t://x?y", None),
            ("t://{a}-{b}", "t://1-2-3", Some(vec![("a", "1"), ("b", "2-3")])),
            ("t://{a}-{b}", "t://--3", Some(vec![("a", "-"), ("b", "3")])),
            ("t://{a}.txt", "t://x.txt.txt", Some(vec![("a", "x.txt")])),
            ("t://{a}/x/{b}", "t://é/x/ü", Some(vec![("a", "é"), ("b", "ü")])),
            ("t://{a}", "other", None),
        ] {
            let template = UriTemplate::parse(template).expect("it is a template");
            assert_eq!(template.values_in(uri), expected.map(|values| pairs(&values)), "{uri}");
        }
    }

    #[test]
    fn templates_beyond_level_1_are_refused() {
        for (text, expected) in [
            ("t://x", "there is no `{name}` in it"),
            ("t://{+path}", "`{+path}` is no plain name; operators of RFC 6570 are not known here"),
            ("t://{a,b}", "`{a,b}` is no plain name; operators of RFC 6570 are not known here"),
            ("t://{}", "`{}` is no plain name; operators of RFC 6570 are not known here"),
            ("t://{a", "a `{` has no `}`"),
            ("t://}{a}", "a `}` has no `{`"),
            ("t://{a}{b}", "`{b}` follows another name at once; where one ends could not be told"),
            ("t://{a}/{a}", "`{a}` is there twice"),
        ] {
            assert_eq!(UriTemplate::parse(text), Err(expected.to_owned()));
        }
    }

    #[test]
    fn what_a_uri_cannot_hold_is_encoded() {
        assert_eq!(encoded("a b/é~", "/"), "a%20b/%C3%A9~");
        assert_eq!(decoded("a%20b/%C3%A9~").as_deref(), Some("a b/é~"));
    }
}
