//! At most one log line a second for each kind of trouble that a peer can cause as often as it likes.
//!
//! **Invariant**: any thread may ask at any time; of all that ask within one second, one is told yes.
//! **Bounds**: two atomics for each place that logs.
//! Left out on purpose: which line is the one that gets through.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// One place that logs, as a `static`.
pub struct Throttle {
    /// The second after the first question of the process in which a line was last let through, plus one; 0 for never.
    last: AtomicU64,
    suppressed: AtomicU64,
}

impl Throttle {
    pub const fn new() -> Throttle {
        Throttle { last: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// Whether to write the line now, and how many were kept back since the last.
    pub fn allows(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        self.allows_at(START.get_or_init(Instant::now).elapsed().as_secs() + 1)
    }

    fn allows_at(&self, now: u64) -> Option<u64> {
        let last = self.last.load(Ordering::Relaxed);
        if last == now || self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_the_rest_is_counted() {
        let throttle = Throttle::new();
        let answers = [1, 1, 1, 2, 3, 3, 9].map(|second| throttle.allows_at(second));
        assert_eq!(answers, [Some(0), None, None, Some(2), Some(0), None, Some(1)]);
        assert!(throttle.allows().is_some());
    }
}
