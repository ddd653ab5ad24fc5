//! One event as one line: `at=2026-11-24T08:00:00.123Z level=info thread=main request=7 <message>`.
//!
//! Messages are `key=value` pairs; a value that somebody else chose is written through `Quoted`, so that it cannot
//! pass for further pairs.
//!
//! **Invariant**: whatever a message holds, its line has no control character, and so no second line.
//! **Thread**: any; pure functions.
//! **Bounds**: a message is formatted only as far as its line may be long.
//! Left out on purpose: local time. Logs of several hosts are read side by side.

use std::fmt::{self, Display, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::Level;

use super::Quoted;

/// Ends a line that was cut.
const CUT: &str = "...[cut]";

/// What stands before the message.
pub struct Stamp<'a> {
    pub at: SystemTime,
    pub level: Level,
    pub thread: &'a str,
    pub request: Option<u64>,
}

/// The line without its end, at most `bytes_max` long.
pub fn format(stamp: &Stamp<'_>, message: fmt::Arguments<'_>, bytes_max: usize) -> String {
    let mut line = format!("at={} level={}", Utc(stamp.at), level_name(stamp.level));
    let _ = write!(line, " thread={}", Quoted(stamp.thread));
    if let Some(request) = stamp.request {
        let _ = write!(line, " request={request}");
    }
    line.push(' ');
    let mut rest = Bounded { line, bytes_max };
    // An error is either the bound or a value that failed to format itself; there is nobody to tell either way.
    let cut = rest.write_fmt(message).is_err();
    let mut line = rest.line;
    if cut {
        cut_to(&mut line, bytes_max - CUT.len());
        line.push_str(CUT);
    }
    line
}

/// The line as it is, or cut to `bytes_max` and marked.
pub fn shorten(line: &str, bytes_max: usize) -> String {
    let mut short = line.to_owned();
    if short.len() > bytes_max {
        cut_to(&mut short, bytes_max - CUT.len());
        short.push_str(CUT);
    }
    short
}

/// Days since 1970-01-01 in UTC.
pub fn utc_day(at: SystemTime) -> u64 {
    since_epoch(at).as_secs() / DAY
}

const DAY: u64 = 24 * 60 * 60;

/// `2026-11-24T08:00:00.123Z`. Times before 1970 read as its first moment.
pub struct Utc(pub SystemTime);

impl Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = since_epoch(self.0);
        let (year, month, day) = civil_date(time.as_secs() / DAY);
        let second = time.as_secs() % DAY;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", time.subsec_millis())
    }
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Days since 1970-01-01 → year, month (1 to 12), day. Years are counted from March, so that the leap day comes last and the
/// lengths of the months before it repeat evenly: 153 days in five.
pub fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    const DAYS_FROM_0000_03_01_TO_1970: u64 = 719_468;
    let days = days + DAYS_FROM_0000_03_01_TO_1970;
    let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    // Each leap day so far is taken out, and its exceptions are put back in, before dividing by plain years.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next_year, month, day)
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// The form that `Quoted` describes.
pub fn write_quoted(out: &mut impl Write, text: &str) -> fmt::Result {
    let odd = |character: char| character.is_whitespace() || "\"\\=".contains(character) || breaks_line(character);
    if !text.is_empty() && !text.contains(odd) {
        return out.write_str(text);
    }
    out.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            _ => write_visibly(out, character)?,
        }
    }
    out.write_char('"')
}

/// Takes a message up to the bound, with what would break the line escaped.
struct Bounded {
    line: String,
    bytes_max: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            write_visibly(&mut self.line, character)?;
            if self.line.len() > self.bytes_max {
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

fn write_visibly(out: &mut impl Write, character: char) -> fmt::Result {
    match character {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        _ if breaks_line(character) => write!(out, "\\u{{{:x}}}", u32::from(character)),
        _ => out.write_char(character),
    }
}

/// Control characters, the line ends of Unicode, and what reorders or hides text around it on a terminal.
fn breaks_line(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(character, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn cut_to(line: &mut String, bytes_max: usize) {
    let end = (0..=bytes_max.min(line.len())).rev().find(|end| line.is_char_boundary(*end));
    line.truncate(end.unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LOG_LINE_BYTES_MAX;

    fn check(message: fmt::Arguments<'_>, expected: &str) {
        let stamp = Stamp { at: UNIX_EPOCH, level: Level::Info, thread: "main", request: None };
        let line = format(&stamp, message, LOG_LINE_BYTES_MAX);
        assert_eq!(line, format!("at=1970-01-01T00:00:00.000Z level=info thread=main {expected}"));
    }

    #[test]
    fn stamps() {
        let at = UNIX_EPOCH + Duration::from_millis(1_795_507_200_123);
        let stamp = Stamp { at, level: Level::Warn, thread: "conn 7", request: Some(12) };
        let line = format(&stamp, format_args!("event=x"), 1000);
        assert_eq!(line, "at=2026-11-24T08:00:00.123Z level=warn thread=\"conn 7\" request=12 event=x");
    }

    #[test]
    fn one_event_stays_one_line() {
        check(format_args!("event=plain äöü 値"), "event=plain äöü 値");
        check(format_args!("a\nat=2026 level=error\r\tb"), "a\\nat=2026 level=error\\r\\tb");
        check(
            format_args!("\0\x1b[31m\x7f\u{85}\u{2028}\u{202e}"),
            "\\u{0}\\u{1b}[31m\\u{7f}\\u{85}\\u{2028}\\u{202e}",
        );
        check(format_args!("path={}", Quoted("x\nat=1")), "path=\"x\\nat=1\"");
    }

    #[test]
    fn quoted_values() {
        for (value, expected) in [
            ("maya", "maya"),
            ("/a/b-c_d.e:1?x", "/a/b-c_d.e:1?x"),
            ("値", "値"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a=b", "\"a=b\""),
            ("say \"hi\" \\", "\"say \\\"hi\\\" \\\\\""),
            ("a\u{a0}b", "\"a\u{a0}b\""),
            ("\n", "\"\\n\""),
            ("\u{feff}", "\"\\u{feff}\""),
        ] {
            assert_eq!(Quoted(value).to_string(), expected);
        }
    }

    #[test]
    fn long_messages_are_cut_and_marked() {
        let stamp = Stamp { at: UNIX_EPOCH, level: Level::Info, thread: "main", request: None };
        for text in ["x".repeat(100_000), "値".repeat(50_000), "\n".repeat(100_000), "\u{202e}".repeat(20_000)] {
            let line = format(&stamp, format_args!("{text}"), LOG_LINE_BYTES_MAX);
            assert!((LOG_LINE_BYTES_MAX - 8..=LOG_LINE_BYTES_MAX).contains(&line.len()), "{}", line.len());
            assert!(line.ends_with(CUT));
        }
        let room = LOG_LINE_BYTES_MAX - format(&stamp, format_args!(""), LOG_LINE_BYTES_MAX).len();
        let exact = format(&stamp, format_args!("{}", "x".repeat(room)), LOG_LINE_BYTES_MAX);
        assert!(exact.len() == LOG_LINE_BYTES_MAX && exact.ends_with('x'));
        assert_eq!(shorten("abc", 3), "abc");
        assert_eq!(shorten(&"値".repeat(10), 16), format!("値値{CUT}"));
    }

    #[test]
    fn dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_781, (2026, 11, 24)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
            (157_053, (2399, 12, 31)),
        ] {
            assert_eq!(civil_date(days), date);
        }
    }

    /// Counting day by day through four centuries, by the rule of leap years as everybody knows it.
    #[test]
    fn dates_agree_with_counting() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..160_000 {
            assert_eq!(civil_date(days), (year, month, day), "day {days}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            day += 1;
            if day > lengths[month as usize - 1] {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    /// Seeded: any text makes a line without control characters within the bound.
    #[test]
    fn any_text_makes_one_line() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for round in 0..2000 {
            let text: String = (0..round % 200)
                .filter_map(|_| {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    char::from_u32((seed % if seed & 64 == 0 { 0x80 } else { 0x11_0000 }) as u32)
                })
                .collect();
            let stamp = Stamp { at: UNIX_EPOCH, level: Level::Info, thread: &text, request: None };
            let line = format(&stamp, format_args!("{text} {}", Quoted(&text)), 200);
            assert!(!line.chars().any(breaks_line), "{line:?}");
        }
    }
}
