//! Hashes that are the same in every build, on every machine: FNV-1a, 64 bits, and a faster one for long texts.
//!
//! They mark revisions of tool lists and tell long names apart; replicas of different versions compare them, so that
//! the standard library's hasher, which promises no stable output, cannot serve.
//! `secret_mark` is another matter: a keyed hash, for marks from which the key must not be told.
//! Left out on purpose: any security of these two. Nothing trusts them against somebody who chooses the input.

#[allow(deprecated, reason = "see `secret_mark`")]
use std::hash::{Hasher, SipHasher};

/// FNV-1a (Fowler, Noll, Vo), 64 bits.
pub fn fnv64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A mark of what may be megabytes, such as a list of tools: eight bytes a step, each of which reaches both halves of the
/// mark. As stable as the other.
pub fn list_mark(bytes: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| {
        let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ (hash >> 32)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().chain([&last, &[0; 8]]);
    words.fold(bytes.len() as u64, |hash, word| step(hash, u64::from_le_bytes(*word)))
}

/// The hash as 16 hex digits.
pub fn fnv64_hex(bytes: &[u8]) -> String {
    format!("{:016x}", fnv64(bytes))
}

/// A mark of the key's owner, 32 hex digits: SipHash-2-4 under that key. Who has the mark has not the key.
#[allow(deprecated, reason = "it is the one keyed hash of the standard library with a fixed algorithm")]
pub fn secret_mark(key: u128, what: &str) -> String {
    let (low, high) = (key as u64, (key >> 64) as u64);
    let half = |number: u8| {
        let mut hasher = SipHasher::new_with_keys(low, high);
        hasher.write(&[number]);
        hasher.write(what.as_bytes());
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(1), half(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_of_one_key_and_one_thing() {
        let mark = secret_mark(1, "a");
        assert_eq!((mark.len(), &mark), (32, &secret_mark(1, "a")));
        let others = [secret_mark(2, "a"), secret_mark(1 << 64, "a"), secret_mark(1, "b")];
        assert!(!others.contains(&mark) && mark[..16] != mark[16..]);
    }

    #[test]
    fn each_byte_and_the_length_tell_in_both_halves_of_a_mark() {
        let bytes: Vec<u8> = (0..29).collect();
        let mark = list_mark(&bytes);
        assert_eq!(mark, 0xeb37_aa0f_3b62_642c, "replicas of other builds compare it");
        let mut others: Vec<Vec<u8>> =
            (0..bytes.len()).map(|at| [&bytes[..at], &[255], &bytes[at + 1..]].concat()).collect();
        others.extend([bytes[..28].to_vec(), [&bytes[..], &[0]].concat()]);
        for other in others.iter().map(|other| list_mark(other)) {
            assert!(other as u32 != mark as u32 && other >> 32 != mark >> 32);
        }
    }

    #[test]
    fn published_vectors() {
        for (input, expected) in [("", "cbf29ce484222325"), ("a", "af63dc4c8601ec8c"), ("foobar", "85944171f73967e8")] {
            assert_eq!(fnv64_hex(input.as_bytes()), expected);
        }
    }
}
