//! What somebody may have meant who wrote a word that is not known.
//!
//! **Invariant**: a guess is one of the known words, or none is made.
//! **Thread**: `main`; pure functions.
//! **Bounds**: words longer than `LENGTH_MAX` are not guessed at.
//! Left out on purpose: languages other than that of the flags.

/// What the writer of `word` may have meant; words within two changes (three in long ones), or that it begins.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LENGTH_MAX: usize = 64;
    if word.len() > LENGTH_MAX || word.len() < 4 {
        return None;
    }
    let changes_max = if word.len() >= 12 { 3 } else { 2 };
    let scored = known.map(|known| if known.starts_with(word) { (1, known) } else { (distance(word, known), known) });
    scored.min_by_key(|(changes, _)| *changes).filter(|(changes, _)| *changes <= changes_max).map(|(_, known)| known)
}

/// Letters to insert, remove or replace to make one word of the other (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (place, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = place + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flags;

    #[test]
    fn nearest_words() {
        for (word, expected) in [
            ("--dccc", Some("--dcc")),
            ("--hots", Some("--host")),
            ("--gatway-port", Some("--gateway-port")),
            ("--gateway_port", Some("--gateway-port")),
            ("--stale", Some("--stale-timeout")),
            ("--heartbeat", Some("--heartbeat-interval")),
            ("--xyzzy", None),
            ("-x", None),
        ] {
            assert_eq!(nearest(word, flags::all().map(|flag| flag.name)), expected, "{word}");
        }
        let distances = [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("flaw", "lawn", 2)];
        for (left, right, expected) in distances {
            assert_eq!(distance(left, right), expected);
        }
    }
}
