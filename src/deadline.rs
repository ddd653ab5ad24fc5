//! The time by which something must be done, handed down a call so that its parts share it.
//!
//! **Invariant**: a deadline never moves; a part may only ask for a sooner one of its own.
//! Left out on purpose: wall-clock time. Deadlines are monotonic and mean nothing outside this process.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// `limit` from now.
    pub fn after(limit: Duration) -> Deadline {
        Deadline { at: Instant::now() + limit, limit }
    }

    /// The sooner of this deadline and `limit` from now.
    pub fn sooner(self, limit: Duration) -> Deadline {
        let other = Deadline::after(limit);
        if other.at < self.at { other } else { self }
    }

    /// Time left; zero once it has passed.
    pub fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub fn has_passed(self) -> bool {
        self.left().is_zero()
    }

    /// What was granted at the start, for messages ("no answer within 120 s").
    pub fn limit(self) -> Duration {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sooner_never_extends() {
        let short = Deadline::after(Duration::from_secs(1));
        assert_eq!(short.sooner(Duration::from_secs(60)), short);
        let long = Deadline::after(Duration::from_secs(60));
        assert_eq!(long.sooner(Duration::from_secs(1)).limit(), Duration::from_secs(1));
        assert!(Deadline::after(Duration::ZERO).has_passed());
    }
}
