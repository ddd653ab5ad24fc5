//! The names under which the gateway publishes the tools of instances (product specification 6.5).
//!
//! `{short}__{tool}`: the first 8 hex digits of the instance id, and the tool's own name as far as every known client
//! takes it: `^[A-Za-z0-9_-]{1,60}$`. What does not fit is changed and, where two would meet, marked with a hash of
//! the original.
//!
//! **Invariant**: two tools of one instance never share a name, and a name depends only on the instance's own tools,
//! never on which other instances exist.
//! **Thread**: pure.

use std::collections::{HashMap, HashSet};

use crate::hash::fnv64;

/// Longest published name: Cursor takes 60 characters for server and tool together.
pub const NAME_LENGTH_MAX: usize = 60;
/// Digits of an instance id in a name.
const SHORT_LENGTH: usize = 8;
/// `_` and 6 hex digits.
const MARK_LENGTH: usize = 7;
const TOOL_LENGTH_MAX: usize = NAME_LENGTH_MAX - SHORT_LENGTH - "__".len();

/// The first 8 hex digits of an instance id; of its hash, when it has not as many.
pub fn short(instance_id: &str) -> String {
    let digits: String = instance_id.chars().filter(|c| *c != '-').take(SHORT_LENGTH).collect();
    if digits.len() == SHORT_LENGTH && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return digits.to_ascii_lowercase();
    }
    format!("{:08x}", fnv64(instance_id.as_bytes()) as u32)
}

/// The published names of one instance's tools, in their order. Of a name that is there twice only the first gets one.
pub fn publish(short: &str, tools: &[&str]) -> Vec<Option<String>> {
    let plain: Vec<String> = tools.iter().map(|tool| allowed(tool)).collect();
    let mut wanted: HashMap<&str, usize> = HashMap::new();
    let distinct: HashSet<(&str, &str)> = tools.iter().copied().zip(plain.iter().map(String::as_str)).collect();
    for (_, name) in distinct {
        *wanted.entry(name).or_default() += 1;
    }
    let mut seen = HashSet::new();
    let mut taken: HashSet<String> = tools.iter().filter(|tool| fits(tool)).map(|tool| (*tool).to_owned()).collect();
    let mut names = Vec::with_capacity(tools.len());
    for (tool, plain) in tools.iter().zip(&plain) {
        let name = if !seen.insert(*tool) {
            None
        } else if fits(tool)
            || (plain.len() <= TOOL_LENGTH_MAX && wanted[plain.as_str()] == 1 && !taken.contains(plain))
        {
            Some(plain.clone())
        } else {
            Some(marked(tool, plain, &taken))
        };
        taken.extend(name.clone());
        names.push(name.map(|name| format!("{short}__{name}")));
    }
    names
}

/// A name in place of one that another instance with the same short id has already published.
pub fn beside(instance_id: &str, published: &str, tool: &str) -> String {
    let hash = fnv64(format!("{instance_id}/{tool}").as_bytes()) & 0xff_ffff;
    let kept = published.get(..NAME_LENGTH_MAX - MARK_LENGTH).unwrap_or(published);
    format!("{kept}_{hash:06x}")
}

fn fits(tool: &str) -> bool {
    (1..=TOOL_LENGTH_MAX).contains(&tool.len()) && allowed(tool) == tool
}

fn allowed(tool: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let name: String = tool.chars().map(keep).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}

/// The name cut to make room for a hash of the original; hashed again in the rare case that this is taken too.
fn marked(tool: &str, plain: &str, taken: &HashSet<String>) -> String {
    let kept = plain.get(..TOOL_LENGTH_MAX - MARK_LENGTH).unwrap_or(plain);
    let mut hash = fnv64(tool.as_bytes());
    loop {
        let name = format!("{kept}_{:06x}", hash & 0xff_ffff);
        if !taken.contains(&name) {
            return name;
        }
        hash = fnv64(&hash.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(tools: &[&str]) -> Vec<String> {
        publish("1a2b3c4d", tools).into_iter().map(|name| name.unwrap_or_default()).collect()
    }

    #[test]
    fn short_ids() {
        assert_eq!(short("2F2c5299-7f5a-4656-b42f-a383154e7076"), "2f2c5299");
        assert_eq!(short("maya-1").len(), 8);
        assert_ne!(short("maya-1"), short("maya-2"));
    }

    #[test]
    fn names_that_fit_stay() {
        assert_eq!(published(&["maya_geometry__create_sphere"]), ["1a2b3c4d__maya_geometry__create_sphere"]);
        assert_eq!(published(&["a.b/c d"]), ["1a2b3c4d__a_b_c_d"]);
        assert_eq!(published(&[""]), ["1a2b3c4d___"]);
    }

    #[test]
    fn names_that_meet_are_told_apart_in_any_order() {
        let forward = published(&["a_b", "a.b", "a/b"]);
        assert_eq!(forward[0], "1a2b3c4d__a_b");
        let mut backward = published(&["a/b", "a.b", "a_b"]);
        backward.reverse();
        assert_eq!(forward, backward);
        assert_eq!(forward.iter().collect::<HashSet<_>>().len(), 3);
        assert_eq!(published(&["x", "x"]), ["1a2b3c4d__x", ""]);
    }

    #[test]
    fn long_names_are_cut_and_marked() {
        let long = "m".repeat(200);
        let longer = "m".repeat(201);
        let names = published(&[&long, &longer, &"n".repeat(50)]);
        assert!(names.iter().all(|name| name.len() == NAME_LENGTH_MAX));
        assert_ne!(names[0], names[1]);
        assert!(beside("other", &names[0], &long).len() <= NAME_LENGTH_MAX);
    }

    #[test]
    fn whatever_tools_are_called_names_are_distinct_and_allowed() {
        let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
        for round in 0..500 {
            let tools: Vec<String> = (0..20)
                .map(|_| {
                    let mut tool = String::new();
                    for _ in 0..(fnv64(&seed.to_be_bytes()) % 60) {
                        seed = fnv64(&seed.to_be_bytes());
                        tool.push(['a', 'b', '_', '.', 'é', '/', '-'][(seed % 7) as usize]);
                    }
                    seed = fnv64(&seed.to_be_bytes());
                    tool
                })
                .collect();
            let distinct: HashSet<&str> = tools.iter().map(String::as_str).collect();
            let names: HashSet<String> =
                publish("1a2b3c4d", &distinct.iter().copied().collect::<Vec<_>>()).into_iter().flatten().collect();
            assert_eq!(names.len(), distinct.len(), "round {round}: {tools:?}");
            let fine = |name: &String| name.len() <= NAME_LENGTH_MAX && allowed(name) == *name;
            assert!(names.iter().all(fine), "round {round}: {names:?}");
        }
    }
}
