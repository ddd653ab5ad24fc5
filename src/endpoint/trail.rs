//! What was written on the streams of running calls, kept for clients that lose theirs: one that comes back with the id
//! of the last event it read (transports, resumability) gets the rest, the answer included.
//!
//! An event id is `<state>-<process>.<stream>.<event>`: an id of another process, or of a stream that is gone, still says
//! which lists the client knows (`hub.rs`).
//!
//! **Invariant**: only the session of the call can resume its stream. At most one connection is written to, the newest.
//! **Thread**: the call's pushes; that of the connection which has come back waits and writes.
//! **Bounds**: `TRAIL_EVENTS_MAX` of a call that runs (the oldest go first); `TRAILS_BYTES_MAX` and `TRAILS_DONE_MAX` of
//! those that have ended; `RESUME_TIME_MAX` after the end, or without a reader.
//! Left out on purpose: streams of other processes, and of 2026-07-28, which has no resumption; a thread that tidies up: what is
//! too old goes when the next stream begins.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::http::sse;
use crate::limits::{RESUME_TIME_MAX, TRAIL_EVENTS_MAX, TRAILS_BYTES_MAX, TRAILS_DONE_MAX};
use crate::os;
use crate::session::State;

/// The trails of all calls.
pub struct TrailTable {
    /// Ids never repeat within a session, whichever processes wrote them.
    process: u64,
    next: AtomicU64,
    trails: Mutex<Trails>,
    bytes: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Trails {
    by_number: HashMap<u64, Arc<Trail>>,
    /// Those of calls that have ended, the oldest first.
    done: VecDeque<(Instant, u64)>,
}

/// The events of one stream.
struct Trail {
    session: u128,
    inner: Mutex<Inner>,
    more: Condvar,
    /// Of all trails.
    bytes: Arc<AtomicUsize>,
}

struct Inner {
    /// With their numbers, which follow each other.
    events: VecDeque<(u64, Event)>,
    next: u64,
    /// Who is written to: the call's own connection, then each that has come back.
    holder: u64,
    /// Since when nobody is.
    deserted: Option<Instant>,
    is_done: bool,
}

/// As it goes over the wire.
type Event = Arc<Vec<u8>>;

/// The call's end of a trail. When it is dropped, there will be no more events.
pub struct Writer<'t> {
    table: &'t TrailTable,
    number: u64,
    trail: Arc<Trail>,
    state: State,
}

/// The end of a client that has come back.
pub struct Reader {
    trail: Arc<Trail>,
    holder: u64,
    next: u64,
}

#[derive(Debug, PartialEq)]
pub enum Next {
    Event(Event),
    /// Nothing within the time.
    Silence,
    /// The call has ended, or another connection took over.
    End,
}

/// The holder that is a call's own connection.
const FIRST: u64 = 0;

impl TrailTable {
    #[allow(clippy::new_without_default, reason = "it draws a random number")]
    pub fn new() -> TrailTable {
        let process = u64::from_be_bytes(os::random_bytes::<8>());
        TrailTable { process, next: AtomicU64::new(0), trails: Mutex::default(), bytes: Arc::default() }
    }

    /// A new stream of a session whose client knows `state`.
    pub fn begin(&self, session: u128, state: State) -> Writer<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let inner = Inner { events: VecDeque::new(), next: 0, holder: FIRST, deserted: None, is_done: false };
        let bytes = Arc::clone(&self.bytes);
        let trail = Arc::new(Trail { session, inner: Mutex::new(inner), more: Condvar::new(), bytes });
        let mut trails = lock(&self.trails);
        self.tidy(&mut trails, Instant::now());
        trails.by_number.insert(number, Arc::clone(&trail));
        Writer { table: self, number, trail, state }
    }

    /// Goes on after the event that a `Last-Event-ID` names, where that is one of this session.
    pub fn resume(&self, session: u128, id: &str) -> Option<Reader> {
        let (number, event) = self.parse(id)?;
        let mut trails = lock(&self.trails);
        self.tidy(&mut trails, Instant::now());
        let trail = trails.by_number.get(&number).filter(|trail| trail.session == session).map(Arc::clone)?;
        drop(trails);
        let mut inner = lock(&trail.inner);
        inner.holder += 1;
        inner.deserted = None;
        let holder = inner.holder;
        drop(inner);
        // Whoever was written to until now ends.
        trail.more.notify_all();
        Some(Reader { trail, holder, next: event + 1 })
    }

    /// Forgets what a session has left behind: its client has ended it.
    pub fn end(&self, session: u128) {
        let mut trails = lock(&self.trails);
        for trail in trails.by_number.values().filter(|trail| trail.session == session) {
            let mut inner = lock(&trail.inner);
            // Not to be resumed any more; a call without its connection is given up with its next look.
            inner.deserted = inner.deserted.and(Instant::now().checked_sub(RESUME_TIME_MAX));
        }
        trails.by_number.retain(|_, trail| trail.session != session);
    }

    fn parse(&self, id: &str) -> Option<(u64, u64)> {
        let (_, tail) = id.split_once('-')?;
        let mut parts = tail.split('.').map(|part| u64::from_str_radix(part, 16).ok());
        let (process, number, event) = (parts.next()??, parts.next()??, parts.next()??);
        (process == self.process && parts.next().is_none()).then_some((number, event))
    }

    fn tidy(&self, trails: &mut Trails, now: Instant) {
        while let Some((ended, number)) = trails.done.front().copied() {
            let is_old = now.duration_since(ended) >= RESUME_TIME_MAX;
            let is_too_much =
                self.bytes.load(Ordering::Relaxed) > TRAILS_BYTES_MAX || trails.done.len() > TRAILS_DONE_MAX;
            if !is_old && !is_too_much {
                return;
            }
            trails.done.pop_front();
            trails.by_number.remove(&number);
        }
    }
}

impl Writer<'_> {
    /// Keeps an event, and gives it as it is to be written.
    pub fn push(&self, message: &[u8]) -> Event {
        let mut inner = lock(&self.trail.inner);
        let id = format!("{}-{:x}.{:x}.{:x}", self.state, self.table.process, self.number, inner.next);
        let event = Arc::new(sse::encode(Some(&id), message));
        let number = inner.next;
        inner.next += 1;
        self.trail.bytes.fetch_add(event.len(), Ordering::Relaxed);
        inner.events.push_back((number, Arc::clone(&event)));
        while inner.events.len() > 1
            && (inner.events.len() > TRAIL_EVENTS_MAX || self.trail.bytes.load(Ordering::Relaxed) > TRAILS_BYTES_MAX)
        {
            let gone = inner.events.pop_front().map_or(0, |(_, event)| event.len());
            self.trail.bytes.fetch_sub(gone, Ordering::Relaxed);
        }
        drop(inner);
        self.trail.more.notify_all();
        event
    }

    /// Whether the call's own connection is the one to write to.
    pub fn is_first(&self) -> bool {
        let inner = lock(&self.trail.inner);
        inner.holder == FIRST && inner.deserted.is_none()
    }

    /// The call's own connection is of no use any more.
    pub fn desert(&self, now: Instant) {
        self.trail.desert(FIRST, now);
    }

    /// Nobody has come back for too long: the call may end.
    pub fn is_given_up(&self, now: Instant) -> bool {
        lock(&self.trail.inner).deserted.is_some_and(|since| now.duration_since(since) >= RESUME_TIME_MAX)
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        lock(&self.trail.inner).is_done = true;
        self.trail.more.notify_all();
        let (mut trails, now) = (lock(&self.table.trails), Instant::now());
        if trails.by_number.contains_key(&self.number) {
            trails.done.push_back((now, self.number));
        }
        self.table.tidy(&mut trails, now);
    }
}

impl Trail {
    fn desert(&self, holder: u64, now: Instant) {
        let mut inner = lock(&self.inner);
        if inner.holder == holder && inner.deserted.is_none() {
            inner.deserted = Some(now);
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        let events = lock(&self.inner).events.iter().map(|(_, event)| event.len()).sum();
        self.bytes.fetch_sub(events, Ordering::Relaxed);
    }
}

impl Reader {
    /// The next event. One that was let go for want of room is passed over.
    pub fn next(&mut self, within: Duration) -> Next {
        let has_news = |inner: &Inner, next: u64| inner.next > next || inner.is_done || inner.holder != self.holder;
        let waiting = |inner: &mut Inner| !has_news(inner, self.next);
        let waited = self.trail.more.wait_timeout_while(lock(&self.trail.inner), within, waiting);
        let (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if inner.holder != self.holder {
            return Next::End;
        }
        match inner.events.iter().find(|(number, _)| *number >= self.next) {
            Some((number, event)) => {
                self.next = number + 1;
                Next::Event(Arc::clone(event))
            }
            None if inner.is_done => Next::End,
            None => Next::Silence,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.trail.desert(self.holder, Instant::now());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;
    const PATIENT: Duration = Duration::from_secs(5);

    fn id_of(event: &[u8]) -> String {
        let text = String::from_utf8_lossy(event).into_owned();
        text.lines().find_map(|line| line.strip_prefix("id: ")).expect("an event has an id").to_owned()
    }

    fn read(reader: &mut Reader) -> Vec<String> {
        let mut events = Vec::new();
        while let Next::Event(event) = reader.next(AT_ONCE) {
            let text = String::from_utf8_lossy(&event).into_owned();
            events.extend(text.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned));
        }
        events
    }

    #[test]
    fn the_rest_comes_after_the_last_event_and_nothing_twice() {
        let table = TrailTable::new();
        let writer = table.begin(1, State::default());
        let ids: Vec<String> = ["", "a", "b"].map(|data| id_of(&writer.push(data.as_bytes()))).to_vec();
        let mut reader = table.resume(1, &ids[0]).expect("it can be resumed");
        assert_eq!(read(&mut reader), ["a", "b"]);
        assert_eq!(reader.next(AT_ONCE), Next::Silence);
        writer.push(b"answer");
        drop(writer);
        assert_eq!((read(&mut reader), reader.next(AT_ONCE)), (vec!["answer".to_owned()], Next::End));
        drop(reader);
        let mut again = table.resume(1, &ids[2]).expect("it is kept for a while");
        assert_eq!((read(&mut again), again.next(AT_ONCE)), (vec!["answer".to_owned()], Next::End));
    }

    #[test]
    fn no_session_resumes_the_stream_of_another() {
        let (table, other) = (TrailTable::new(), TrailTable::new());
        let writer = table.begin(1, State::default());
        let id = id_of(&writer.push(b""));
        assert!(table.resume(2, &id).is_none() && other.resume(1, &id).is_none());
        let forged = id.replace(".0.", ".1.");
        for id in [forged.as_str(), "", "-", "x-1.2.3", "00000000.00000000.00000000-1.2", &format!("{id}.0")] {
            assert!(table.resume(1, id).is_none(), "{id}");
        }
        assert!(table.resume(1, &id).is_some());
        table.end(1);
        assert!(table.resume(1, &id).is_none());
    }

    #[test]
    fn the_newest_connection_is_the_one_that_is_written_to() {
        let table = TrailTable::new();
        let writer = table.begin(1, State::default());
        let id = id_of(&writer.push(b""));
        assert!(writer.is_first());
        let mut old = table.resume(1, &id).expect("it can be resumed");
        assert!(!writer.is_first());
        let mut new = table.resume(1, &id).expect("it can be resumed");
        assert_eq!(old.next(PATIENT), Next::End);
        drop(old);
        assert!(!writer.is_given_up(Instant::now() + RESUME_TIME_MAX), "the newer one is still there");
        writer.push(b"x");
        assert_eq!(read(&mut new), ["x"]);
    }

    #[test]
    fn who_does_not_come_back_is_given_up() {
        let table = TrailTable::new();
        let writer = table.begin(1, State::default());
        let (id, now) = (id_of(&writer.push(b"")), Instant::now());
        let later = now + RESUME_TIME_MAX;
        assert!(!writer.is_given_up(later));
        writer.desert(now);
        assert!(!writer.is_first() && writer.is_given_up(later));
        assert!(!writer.is_given_up(later - Duration::from_millis(1)));
        let reader = table.resume(1, &id).expect("it can be resumed");
        assert!(!writer.is_given_up(later));
        drop(reader);
        assert!(writer.is_given_up(Instant::now() + RESUME_TIME_MAX));
        table.end(1);
        assert!(writer.is_given_up(Instant::now()), "its session has ended");
    }

    #[test]
    fn what_is_kept_has_an_end() {
        let table = TrailTable::new();
        let writer = table.begin(1, State::default());
        let id = id_of(&writer.push(b""));
        for number in 0..TRAIL_EVENTS_MAX + 10 {
            writer.push(number.to_string().as_bytes());
        }
        let left = read(&mut table.resume(1, &id).expect("it can be resumed"));
        assert_eq!((left.len(), left[0].as_str()), (TRAIL_EVENTS_MAX, "10"));
        drop(writer);
        let part = vec![b'x'; TRAILS_BYTES_MAX / 8];
        for _ in 0..20 {
            table.begin(2, State::default()).push(&part);
        }
        assert!(table.bytes.load(Ordering::Relaxed) <= TRAILS_BYTES_MAX);
        assert!(table.resume(1, &id).is_none(), "the oldest goes first");
        for _ in 0..TRAILS_DONE_MAX + 10 {
            table.begin(3, State::default()).push(b"");
        }
        assert!(lock(&table.trails).by_number.len() <= TRAILS_DONE_MAX);
    }

    #[test]
    fn a_reader_is_woken() {
        let table = TrailTable::new();
        std::thread::scope(|scope| {
            let writer = table.begin(1, State::default());
            let id = id_of(&writer.push(b""));
            let mut reader = table.resume(1, &id).expect("it can be resumed");
            let waiting = scope.spawn(move || (reader.next(PATIENT), reader.next(PATIENT)));
            let event = writer.push(b"answer");
            drop(writer);
            assert_eq!(waiting.join().expect("it reads"), (Next::Event(event), Next::End));
        });
    }
}
