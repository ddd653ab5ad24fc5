//! Pauses that double while something goes on failing: before trying again, or before saying so again.
//!
//! **Invariant**: pure; the caller waits.
//! **Bounds**: the longest pause, given at the start.

use std::time::{Duration, Instant};

/// Pauses between tries.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

/// One log line when a failure begins, further ones at growing distances, one when it is over.
#[derive(Debug)]
pub struct Complaint {
    pauses: Backoff,
    again_at: Option<Instant>,
}

impl Backoff {
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        let first = first.min(longest);
        Backoff { first, longest, next: first }
    }

    /// The pause after one more failure.
    pub fn failed(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }

    pub fn succeeded(&mut self) {
        self.next = self.first;
    }
}

impl Complaint {
    pub fn new(longest: Duration) -> Complaint {
        Complaint { pauses: Backoff::new(Duration::from_secs(1), longest), again_at: None }
    }

    /// Whether this failure is to be told.
    pub fn failed(&mut self, now: Instant) -> bool {
        let is_due = self.again_at.is_none_or(|at| now >= at);
        if is_due {
            self.again_at = Some(now + self.pauses.failed());
        }
        is_due
    }

    /// Whether there was a failure before, so that its end is to be told.
    pub fn succeeded(&mut self) -> bool {
        self.pauses.succeeded();
        self.again_at.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(3));
        let pauses = [500, 1000, 2000, 3000, 3000];
        assert_eq!(pauses.map(|_| backoff.failed().as_millis() as u64), pauses);
        backoff.succeeded();
        assert_eq!(backoff.failed(), Duration::from_millis(500));
    }

    #[test]
    fn a_failure_is_told_less_and_less_often() {
        let (start, mut complaint) = (Instant::now(), Complaint::new(Duration::from_secs(4)));
        assert!(!complaint.succeeded(), "nothing was wrong");
        let told: Vec<u64> = (0..20).filter(|second| complaint.failed(start + Duration::from_secs(*second))).collect();
        assert_eq!(told, [0, 1, 3, 7, 11, 15, 19]);
        assert!(complaint.succeeded() && !complaint.succeeded());
    }
}
