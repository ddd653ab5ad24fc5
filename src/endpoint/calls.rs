//! Tool calls under way, so that `notifications/cancelled`, which comes on another connection, can reach them.
//!
//! **Invariant**: only the session that made a call can cancel it. A call is in the table exactly while its ticket lives.
//! **Bounds**: `CALLS_TRACKED_MAX`; a further call is served but cannot be cancelled.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::CALLS_TRACKED_MAX;

#[derive(Default)]
pub struct CallTable {
    calls: Mutex<Slots>,
}

/// A call costs no search, cancelling one does: that is rare.
#[derive(Default)]
struct Slots {
    used: Vec<Option<Listed>>,
    free: Vec<usize>,
}

struct Listed {
    session: u128,
    /// The id's JSON text: `1` and `"1"` are two ids.
    id: Box<str>,
    call: Arc<Call>,
}

/// Held by the thread that serves the call.
pub struct Ticket<'t> {
    /// Where it is listed, if it is.
    listed: Option<(&'t CallTable, usize)>,
    call: Arc<Call>,
}

/// Cancels the call of a ticket from another thread.
#[derive(Clone)]
pub struct Canceller(Arc<Call>);

#[derive(Default)]
struct Call {
    cancelled: AtomicBool,
    wake: Mutex<Option<Wake>>,
}

type Wake = Box<dyn FnOnce() + Send>;

impl CallTable {
    pub fn begin(&self, session: u128, id: &str) -> Ticket<'_> {
        let call = Arc::new(Call::default());
        let listed = Listed { session, id: Box::from(id), call: Arc::clone(&call) };
        let place = lock(&self.calls).put(listed);
        Ticket { listed: place.map(|place| (self, place)), call }
    }

    /// Cancels the calls of this id in this session, of which there is one where the client keeps to the protocol; false
    /// when there is none.
    pub fn cancel(&self, session: u128, id: &str) -> bool {
        let calls = lock(&self.calls).find(session, id);
        calls.iter().for_each(|call| Canceller(Arc::clone(call)).cancel());
        !calls.is_empty()
    }
}

impl Slots {
    fn put(&mut self, listed: Listed) -> Option<usize> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.used.len() == CALLS_TRACKED_MAX => return None,
            None => {
                self.used.push(None);
                self.used.len() - 1
            }
        };
        self.used[place] = Some(listed);
        Some(place)
    }

    fn find(&self, session: u128, id: &str) -> Vec<Arc<Call>> {
        let listed = self.used.iter().flatten().filter(|listed| listed.session == session && *listed.id == *id);
        listed.map(|listed| Arc::clone(&listed.call)).collect()
    }

    fn take(&mut self, place: usize) {
        self.used[place] = None;
        self.free.push(place);
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
        if let Some((table, place)) = self.listed {
            lock(&table.calls).take(place);
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
    }

    #[test]
    fn a_place_is_used_again_and_there_are_so_many() {
        let table = CallTable::default();
        drop(table.begin(1, "1"));
        let tickets: Vec<Ticket<'_>> = (0..=CALLS_TRACKED_MAX).map(|id| table.begin(1, &id.to_string())).collect();
        assert!((0..CALLS_TRACKED_MAX).all(|id| table.cancel(1, &id.to_string())));
        assert!(!table.cancel(1, &CALLS_TRACKED_MAX.to_string()), "there was no place for it");
        drop(tickets);
        assert!(table.begin(1, "1").listed.is_some() && !table.cancel(1, "1"));
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
