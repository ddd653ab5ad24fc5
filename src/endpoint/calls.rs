//! Tool calls under way, so that `notifications/cancelled`, which comes on another connection, can reach them.
//!
//! **Invariant**: only the session that made a call can cancel it. A call is in the table exactly while its ticket lives.
//! **Bounds**: `CALLS_TRACKED_MAX`; a further call is served but cannot be cancelled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::CALLS_TRACKED_MAX;

#[derive(Default)]
pub struct CallTable {
    calls: Mutex<HashMap<Key, Arc<Call>>>,
}

/// Held by the thread that serves the call.
pub struct Ticket<'t> {
    /// Where it is listed, if it is.
    listed: Option<(&'t CallTable, Key)>,
    call: Arc<Call>,
}

/// Cancels the call of a ticket from another thread.
#[derive(Clone)]
pub struct Canceller(Arc<Call>);

/// Session and the id's JSON text: `1` and `"1"` are two ids.
type Key = (u128, Box<str>);

#[derive(Default)]
struct Call {
    cancelled: AtomicBool,
    wake: Mutex<Option<Wake>>,
}

type Wake = Box<dyn FnOnce() + Send>;

impl CallTable {
    pub fn begin(&self, session: u128, id: &str) -> Ticket<'_> {
        let key = (session, Box::from(id));
        let call = Arc::new(Call::default());
        let mut calls = lock(&self.calls);
        let tracked = calls.len() < CALLS_TRACKED_MAX && !calls.contains_key(&key);
        if tracked {
            calls.insert(key.clone(), Arc::clone(&call));
        }
        Ticket { listed: tracked.then_some((self, key)), call }
    }

    /// Cancels a call; false when there is none of that id in that session.
    pub fn cancel(&self, session: u128, id: &str) -> bool {
        let call = lock(&self.calls).get(&(session, Box::from(id))).cloned();
        let Some(call) = call else { return false };
        Canceller(call).cancel();
        true
    }

    pub fn len(&self) -> usize {
        lock(&self.calls).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Canceller {
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
        let wake = lock(&self.0.wake).take();
        if let Some(wake) = wake {
            wake();
        }
    }
}

impl Ticket<'_> {
    /// Of a call that no message can cancel.
    pub fn untracked() -> Ticket<'static> {
        Ticket { listed: None, call: Arc::default() }
    }

    pub fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.call))
    }

    pub fn is_cancelled(&self) -> bool {
        self.call.cancelled.load(Ordering::Acquire)
    }

    /// What to run, once, when the call is cancelled; at once if it already was.
    pub fn on_cancel(&self, wake: impl FnOnce() + Send + 'static) {
        *lock(&self.call.wake) = Some(Box::new(wake));
        if self.is_cancelled() {
            // Not under the lock: it may take its time.
            let wake = lock(&self.call.wake).take();
            wake.into_iter().for_each(|wake| wake());
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some((table, key)) = &self.listed {
            lock(&table.calls).remove(key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn only_the_own_session_cancels_and_only_once() {
        let table = CallTable::default();
        let woken = Arc::new(AtomicUsize::new(0));
        let ticket = table.begin(1, "7");
        let count = Arc::clone(&woken);
        ticket.on_cancel(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert!(!table.cancel(2, "7") && !table.cancel(1, "\"7\"") && !ticket.is_cancelled());
        assert!(table.cancel(1, "7") && table.cancel(1, "7") && ticket.is_cancelled());
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        drop(ticket);
        assert!(!table.cancel(1, "7"));
        assert!(table.is_empty());
    }

    #[test]
    fn a_hook_that_comes_late_runs_at_once() {
        let table = CallTable::default();
        let ticket = table.begin(1, "7");
        table.cancel(1, "7");
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        ticket.on_cancel(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(woken.load(Ordering::Relaxed), 1);
    }
}
