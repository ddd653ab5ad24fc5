//! Where the catalogue's snapshot is kept, and who waits for a better one.
//!
//! **Invariant**: every wait has an end: that of the warm-up, or that of the hold.
//! **Thread**: `catalogue` puts; connections take and wait; `election` holds.
//! **Bounds**: `WARM_UP_MAX`; the caller's for a hold.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::gateway::snapshot::Snapshot;
use crate::limits::WARM_UP_MAX;

pub struct Current {
    state: Mutex<State>,
    /// Told when a snapshot was put in place, and when lists are held no longer.
    changed: Condvar,
    since: Instant,
}

struct State {
    snapshot: Arc<Snapshot>,
    /// Lists wait: for a fresh look at the registry, and until then at most.
    held: Option<Instant>,
}

impl Current {
    pub fn new(snapshot: Snapshot) -> Current {
        let state = State { snapshot: Arc::new(snapshot), held: None };
        Current { state: Mutex::new(state), changed: Condvar::new(), since: Instant::now() }
    }

    pub fn put(&self, snapshot: Snapshot) {
        let before = std::mem::replace(&mut self.lock().snapshot, Arc::new(snapshot));
        self.changed.notify_all();
        // Taking a large one apart takes time; nobody waits for that.
        drop(before);
    }

    /// Lists wait from now on until `release`, for at most `limit`.
    pub fn hold(&self, limit: Duration) {
        self.lock().held = Some(Instant::now() + limit);
    }

    pub fn release(&self) {
        self.lock().held = None;
        self.changed.notify_all();
    }

    /// The snapshot as it is.
    pub fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.lock().snapshot)
    }

    /// The snapshot, once lists are not held.
    pub fn settled(&self) -> Arc<Snapshot> {
        self.wait(|_| true)
    }

    /// The same, and complete, as long as the warm-up may last.
    pub fn warm(&self) -> Arc<Snapshot> {
        self.wait(|snapshot| snapshot.complete)
    }

    fn wait(&self, will_do: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let warm_up_ends = self.since + WARM_UP_MAX;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let until = match state.held.filter(|until| *until > now) {
                Some(until) => until,
                None if now >= warm_up_ends || will_do(&state.snapshot) => return Arc::clone(&state.snapshot),
                None => warm_up_ends,
            };
            let left = until.saturating_duration_since(now);
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(complete: bool) -> Snapshot {
        Snapshot::build(&[], false, &[], complete, None)
    }

    #[test]
    fn lists_are_held_until_they_are_released_or_the_time_is_over() {
        let current = Current::new(snapshot(true));
        assert!(current.settled().complete && current.warm().complete, "nothing is held at first");
        let limit = Duration::from_millis(100);
        current.hold(limit);
        let began = Instant::now();
        current.now();
        current.settled();
        assert!(began.elapsed() >= limit, "nobody has released it");

        current.hold(Duration::from_secs(600));
        std::thread::scope(|scope| {
            let held = [scope.spawn(|| current.settled()), scope.spawn(|| current.warm())];
            std::thread::sleep(limit);
            assert!(held.iter().all(|held| !held.is_finished()));
            current.release();
            held.into_iter().for_each(|held| drop(held.join().expect("it does not panic")));
        });
    }

    #[test]
    fn a_snapshot_that_becomes_complete_ends_the_wait_for_it() {
        let current = Current::new(snapshot(false));
        assert!(!current.settled().complete);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| current.warm());
            current.put(snapshot(true));
            assert!(waiting.join().expect("it does not panic").complete);
        });
    }
}
