//! One hash that is the same in every build, on every machine: FNV-1a, 64 bits.
//!
//! It marks revisions of tool lists and tells long names apart; replicas of different versions compare it, so that
//! the standard library's hasher, which promises no stable output, cannot serve.
//! `secret_mark` is another matter: a keyed hash, for marks from which the key must not be told.
//! Left out on purpose: any security of FNV. Nothing trusts it against somebody who chooses the input.

#[allow(deprecated, reason = "see `secret_mark`")]
use std::hash::{Hasher, SipHasher};

/// FNV-1a (Fowler, Noll, Vo), 64 bits.
pub fn fnv64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
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
    fn published_vectors() {
        for (input, expected) in [("", "cbf29ce484222325"), ("a", "af63dc4c8601ec8c"), ("foobar", "85944171f73967e8")] {
            assert_eq!(fnv64_hex(input.as_bytes()), expected);
        }
    }
}
