//! Which session wants to hear when which resource changes (`resources/subscribe`).
//!
//! **Invariant**: what a session wants and cannot be told, since it has no stream at the moment, is kept for its next
//! one; so is what it was told after the last event that it says it has heard. A session without a stream for long is
//! forgotten.
//! **Thread**: any; `sse-hub` alone says who has a stream.
//! **Bounds**: `SUBSCRIPTIONS_MAX`, `SUBSCRIPTIONS_PER_SESSION_MAX`, `SUBSCRIBER_SILENT_MAX`.
//! Left out on purpose: what a resource is; subscriptions at other processes, which a client makes anew.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::limits::{SUBSCRIBER_SILENT_MAX, SUBSCRIPTIONS_MAX, SUBSCRIPTIONS_PER_SESSION_MAX};

#[derive(Default)]
pub struct Subscriptions {
    sessions: Mutex<HashMap<u128, Subscriber>>,
}

/// There is no room for another one.
#[derive(Debug, PartialEq)]
pub struct TooMany;

#[derive(Default)]
struct Subscriber {
    uris: BTreeSet<Box<str>>,
    /// Changed, but not told yet.
    missed: BTreeSet<Box<str>>,
    /// Told last by the event of this number, which may have gone to a stream that its client had left.
    told: HashMap<Box<str>, u64>,
    /// Since when it was seen to have no stream.
    silent_since: Option<Instant>,
}

impl Subscriptions {
    pub fn add(&self, session: u128, uri: &str, now: Instant) -> Result<(), TooMany> {
        let mut sessions = self.lock();
        let all: usize = sessions.values().map(|subscriber| subscriber.uris.len()).sum();
        let new = || Subscriber { silent_since: Some(now), ..Subscriber::default() };
        if sessions.get(&session).is_some_and(|subscriber| subscriber.uris.contains(uri)) {
            return Ok(());
        }
        let own = sessions.get(&session).map_or(0, |subscriber| subscriber.uris.len());
        if all >= SUBSCRIPTIONS_MAX || own >= SUBSCRIPTIONS_PER_SESSION_MAX {
            return Err(TooMany);
        }
        sessions.entry(session).or_insert_with(new).uris.insert(uri.into());
        Ok(())
    }

    pub fn remove(&self, session: u128, uri: &str) {
        let mut sessions = self.lock();
        if let Some(subscriber) = sessions.get_mut(&session) {
            subscriber.uris.remove(uri);
            subscriber.missed.remove(uri);
            subscriber.told.remove(uri);
        }
        sessions.retain(|_, subscriber| !subscriber.uris.is_empty());
    }

    /// The session is over.
    pub fn end(&self, session: u128) {
        self.lock().remove(&session);
    }

    /// All that anybody wants to hear of.
    pub fn uris(&self) -> BTreeSet<Box<str>> {
        self.lock().values().flat_map(|subscriber| subscriber.uris.iter().cloned()).collect()
    }

    /// Who wants to hear of this resource.
    pub fn subscribers(&self, uri: &str) -> Vec<u128> {
        let sessions = self.lock();
        let wants = |(_, subscriber): &(&u128, &Subscriber)| subscriber.uris.contains(uri);
        sessions.iter().filter(wants).map(|(session, _)| *session).collect()
    }

    /// The session could not be told of this change.
    pub fn miss(&self, session: u128, uri: &str) {
        if let Some(subscriber) = self.lock().get_mut(&session).filter(|subscriber| subscriber.uris.contains(uri)) {
            subscriber.missed.insert(uri.into());
        }
    }

    /// The session was told of this change, by the event of this number.
    pub fn told(&self, session: u128, uri: &str, number: u64) {
        if let Some(subscriber) = self.lock().get_mut(&session).filter(|subscriber| subscriber.uris.contains(uri)) {
            subscriber.told.insert(uri.into(), number);
        }
    }

    /// The session has a stream now; gives what it has missed, and what came after the `last` event that it has heard.
    pub fn listens(&self, session: u128, last: Option<u64>) -> BTreeSet<Box<str>> {
        let mut sessions = self.lock();
        let Some(subscriber) = sessions.get_mut(&session) else { return BTreeSet::new() };
        subscriber.silent_since = None;
        let mut missed = std::mem::take(&mut subscriber.missed);
        let unheard = subscriber.told.iter().filter(|(_, number)| last.is_some_and(|last| **number > last));
        missed.extend(unheard.map(|(uri, _)| uri.clone()));
        missed
    }

    /// Forgets the sessions that did not listen for long. `is_listening` says who has a stream now.
    pub fn forget_silent(&self, now: Instant, is_listening: impl Fn(u128) -> bool) {
        self.lock().retain(|session, subscriber| {
            subscriber.silent_since = (!is_listening(*session)).then(|| subscriber.silent_since.unwrap_or(now));
            subscriber.silent_since.is_none_or(|since| now.duration_since(since) < SUBSCRIBER_SILENT_MAX)
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Subscriber>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_and_what_is_kept_for_later() {
        let (table, now) = (Subscriptions::default(), Instant::now());
        for (session, uri) in [(1, "a"), (1, "b"), (1, "a"), (2, "b")] {
            assert_eq!(table.add(session, uri, now), Ok(()));
        }
        assert_eq!((table.subscribers("a"), table.uris().len()), (vec![1], 2));
        table.miss(1, "a");
        table.miss(1, "a");
        table.miss(2, "a");
        table.miss(3, "a");
        assert_eq!(table.listens(1, None), BTreeSet::from(["a".into()]));
        assert!([1, 2, 3].map(|session| table.listens(session, None)).iter().all(BTreeSet::is_empty));
        table.told(1, "a", 5);
        table.told(1, "b", 7);
        table.told(1, "c", 9);
        for (last, expected) in [(None, &[][..]), (Some(4), &["a", "b"]), (Some(5), &["b"]), (Some(7), &[])] {
            let expected: BTreeSet<Box<str>> = expected.iter().copied().map(Box::from).collect();
            assert_eq!(table.listens(1, last), expected, "{last:?}");
        }
        table.remove(1, "b");
        table.end(2);
        assert_eq!(table.uris(), BTreeSet::from(["a".into()]));
    }

    #[test]
    fn who_does_not_listen_for_long_is_forgotten() {
        let (table, start) = (Subscriptions::default(), Instant::now());
        for session in 1..=3 {
            table.add(session, "a", start).expect("there is room");
        }
        let later = start + SUBSCRIBER_SILENT_MAX;
        table.listens(1, None);
        table.forget_silent(later, |session| session == 3);
        let mut left = table.subscribers("a");
        left.sort_unstable();
        assert_eq!(left, [1, 3]);
    }

    #[test]
    fn there_is_an_end_to_it() {
        let (table, now) = (Subscriptions::default(), Instant::now());
        for number in 0..SUBSCRIPTIONS_PER_SESSION_MAX {
            assert_eq!(table.add(0, &number.to_string(), now), Ok(()));
        }
        assert_eq!(table.add(0, "one more", now), Err(TooMany));
        assert_eq!(table.add(0, "0", now), Ok(()), "it is there already");
        let left = SUBSCRIPTIONS_MAX - SUBSCRIPTIONS_PER_SESSION_MAX;
        for number in 0..left as u128 {
            assert_eq!(table.add(1 + number, "a", now), Ok(()));
        }
        assert_eq!(table.add(u128::MAX, "a", now), Err(TooMany));
    }
}
