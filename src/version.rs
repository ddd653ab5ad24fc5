//! Versions of this program, compared as semantic versions (semver.org 2.0.0, section 11).
//!
//! **Invariant**: pure. What is no version has no place in the order: it is not parsed.
//! **Bounds**: `VERSION_BYTES_MAX`; numbers are of 64 bits.
//! Left out on purpose: build metadata, which says nothing about what is newer, and ranges.

use std::cmp::Ordering;
use std::fmt;

use crate::limits::VERSION_BYTES_MAX;

/// Ordered by what is newer; two that differ in build metadata alone are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    numbers: [u64; 3],
    stage: Stage,
}

/// A release is newer than what led to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Before(Vec<Identifier>),
    Released,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Identifier {
    Number(u64),
    Text(String),
}

impl Version {
    /// `1.2.3`, `1.2.3-rc.1`, `1.2.3-rc.1+linux`.
    pub fn parse(text: &str) -> Option<Version> {
        if text.len() > VERSION_BYTES_MAX {
            return None;
        }
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        if !build.is_none_or(|build| build.split('.').all(is_word)) {
            return None;
        }
        let (numbers, stage) = text.split_once('-').map_or((text, None), |(numbers, stage)| (numbers, Some(stage)));
        let mut parts = numbers.split('.').map(number);
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        if parts.next().is_some() {
            return None;
        }
        let stage = match stage {
            None => Stage::Released,
            Some(words) => Stage::Before(words.split('.').map(identifier).collect::<Option<_>>()?),
        };
        Some(Version { numbers, stage })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        let Stage::Before(identifiers) = &self.stage else { return Ok(()) };
        for (at, identifier) in identifiers.iter().enumerate() {
            f.write_str(if at == 0 { "-" } else { "." })?;
            match identifier {
                Identifier::Number(number) => write!(f, "{number}")?,
                Identifier::Text(text) => f.write_str(text)?,
            }
        }
        Ok(())
    }
}

/// Numbers are older than words.
impl Ord for Identifier {
    fn cmp(&self, other: &Identifier) -> Ordering {
        match (self, other) {
            (Identifier::Number(one), Identifier::Number(other)) => one.cmp(other),
            (Identifier::Text(one), Identifier::Text(other)) => one.cmp(other),
            (Identifier::Number(_), Identifier::Text(_)) => Ordering::Less,
            (Identifier::Text(_), Identifier::Number(_)) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Identifier {
    fn partial_cmp(&self, other: &Identifier) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn identifier(word: &str) -> Option<Identifier> {
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(word).map(Identifier::Number);
    }
    is_word(word).then(|| Identifier::Text(word.to_owned()))
}

/// Without leading zeros.
fn number(word: &str) -> Option<u64> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    is_plain.then(|| word.parse().ok()).flatten()
}

fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap_or_else(|| panic!("{text} is a version"))
    }

    #[test]
    fn the_order_is_that_of_the_standard() {
        let rising = [
            "0.0.1",
            "0.9.0",
            "0.10.0",
            "1.0.0-0",
            "1.0.0-2",
            "1.0.0-10",
            "1.0.0--",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1-rc.1",
            "2.0.0",
            "18446744073709551615.0.0",
        ];
        for (at, text) in rising.iter().enumerate() {
            assert_eq!(version(text).to_string(), *text);
            for (other_at, other) in rising.iter().enumerate() {
                assert_eq!(version(text).cmp(&version(other)), at.cmp(&other_at), "{text} and {other}");
            }
        }
        assert_eq!(version("1.0.0+a"), version("1.0.0+b.1"));
        assert_eq!(version("1.0.0-rc.1+a").to_string(), "1.0.0-rc.1");
    }

    #[test]
    fn what_is_no_version_is_not_taken_for_one() {
        let long = format!("1.0.0-{}", "a".repeat(VERSION_BYTES_MAX));
        for text in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "2024",
            "v1.2.3",
            "1.2.x",
            "01.2.3",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3-a..b",
            "1.2.3+",
            "1.2.3+a b",
            "-1.2.3",
            "+1.2.3",
            " 1.2.3",
            "1.2.3\n",
            "1.2.3-ä",
            "18446744073709551616.0.0",
            &long,
        ] {
            assert_eq!(Version::parse(text), None, "{text:?}");
        }
    }
}
