//! Fan-out of change notifications to the GET streams of all sessions.
//!
//! The hub knows, for each session with a stream, which state of the lists it was told. A new state is compared with
//! that: one notification for each kind that differs, with an event id that says what the client knows from then on.
//! So a client that comes back with its last id, here or at another replica, is told exactly what it missed.
//!
//! **Invariant**: a message goes to one stream of a session, the newest (transports, multiple connections).
//! **Thread**: `sse-hub` owns all streams; a stream's own connection thread takes from its queue and writes.
//! **Bounds**: `STREAMS_MAX`, `STREAMS_PER_SESSION_MAX` (the oldest is closed), `SSE_QUEUE_MAX` (a full queue closes
//! the stream: its client reconnects and loses nothing).
//! A resource that changed is told to the sessions that subscribed to it, or kept for their next stream. What was told to a
//! client that had left, which only its last id shows, is told again.
//! Left out on purpose: a history of events. What the last id says is compared.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::json;

use crate::http::sse;
use crate::jsonrpc;
use crate::limits::{INBOX_MAX, SSE_QUEUE_MAX, STREAMS_MAX, STREAMS_PER_SESSION_MAX, WORKER_STOP_MAX};
use crate::metrics;
use crate::os;
use crate::session::State;
use crate::subscriptions::Subscriptions;
use crate::worker::{Work, Worker};

/// The handle; cheap to share.
pub struct Hub {
    /// Who wants to hear of which resource.
    pub subscriptions: Arc<Subscriptions>,
    worker: Worker<Order>,
    next_stream: AtomicU64,
}

/// One open stream: what its connection thread reads from. Gone from the hub when this is dropped.
pub struct Stream {
    number: u64,
    session: u128,
    events: Receiver<Arc<[u8]>>,
    hub: Arc<Hub>,
}

/// The hub cannot take another stream now.
#[derive(Debug)]
pub struct TooManyStreams;

/// The last thing a client heard, read from its `Last-Event-ID`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Told {
    State(State),
    /// And the event with this number of this process, but none after it.
    Event {
        state: State,
        process: u64,
        number: u64,
    },
    /// An id of another server or of an unknown form: everything counts as changed.
    Unknown,
}

enum Order {
    Open { number: u64, session: u128, told: Told, queue: Sender<Arc<[u8]>> },
    Close { number: u64, session: u128 },
    End { session: u128 },
    Publish(State),
    EndAll,
    Updated(Box<str>),
    CloseAll,
}

impl Hub {
    pub fn start(state: State) -> io::Result<Arc<Hub>> {
        let subscriptions: Arc<Subscriptions> = Arc::default();
        let fan_out = FanOut {
            state,
            subscriptions: Arc::clone(&subscriptions),
            sessions: HashMap::new(),
            streams: 0,
            ids: EventIds::new(),
            is_closed: false,
        };
        let worker = Worker::start("sse-hub", INBOX_MAX, fan_out)?;
        Ok(Arc::new(Hub { subscriptions, worker, next_stream: AtomicU64::new(0) }))
    }

    /// Opens a stream for a session that was told `told`.
    pub fn open(self: &Arc<Hub>, session: u128, told: Told) -> Result<Stream, TooManyStreams> {
        let (queue, events) = bounded(SSE_QUEUE_MAX);
        let number = self.next_stream.fetch_add(1, Ordering::Relaxed);
        self.worker.send(Order::Open { number, session, told, queue }).map_err(|_| TooManyStreams)?;
        Ok(Stream { number, session, events, hub: Arc::clone(self) })
    }

    /// Tells every session what differs from what it was told. Call it after the new lists are in place.
    pub fn publish(&self, state: State) {
        self.send_patiently(Order::Publish(state));
    }

    /// Tells every session that subscribed to this resource that its content has changed.
    pub fn updated(&self, uri: &str) {
        self.send_patiently(Order::Updated(uri.into()));
    }

    /// Ends the streams of a session that its client has ended.
    pub fn end(&self, session: u128) {
        self.send_patiently(Order::End { session });
    }

    /// Ends every stream; their clients come back to whoever serves now.
    pub fn end_all(&self) {
        self.send_patiently(Order::EndAll);
    }

    /// Ends every stream, and each that is opened later; their connection threads write the end and go.
    pub fn close_all(&self) {
        self.send_patiently(Order::CloseAll);
    }

    /// The inbox is full only for moments, since the hub never blocks; it refuses only when the process ends.
    fn send_patiently(&self, order: Order) {
        self.worker.send_within(order, WORKER_STOP_MAX);
    }
}

impl Stream {
    /// The next event, as the bytes to write; an error says that the time is over or the stream was closed.
    pub fn next(&self, within: Duration) -> Result<Arc<[u8]>, crossbeam_channel::RecvTimeoutError> {
        self.events.recv_timeout(within)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.hub.send_patiently(Order::Close { number: self.number, session: self.session });
    }
}

impl Told {
    /// Reads a `Last-Event-ID`.
    pub fn parse(id: &str) -> Told {
        let Some((state, event)) = id.split_once('-') else { return Told::Unknown };
        let Some(state) = State::parse(state) else { return Told::Unknown };
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        match event.split_once('.').map(|(process, count)| (number(process), number(count))) {
            Some((Some(process), Some(number))) => Told::Event { state, process, number },
            _ => Told::State(state),
        }
    }
}

/// Event ids never repeat within a session, whichever processes wrote them: the tail names process and count.
pub struct EventIds {
    process: u64,
    count: AtomicU64,
}

impl EventIds {
    #[allow(clippy::new_without_default, reason = "it draws a random number")]
    pub fn new() -> EventIds {
        EventIds { process: u64::from_be_bytes(os::random_bytes::<8>()), count: AtomicU64::new(0) }
    }

    /// A new id for a client that knows `state`, and its number.
    pub fn next(&self, state: State) -> (String, u64) {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        (format!("{state}-{:x}.{number:x}", self.process), number)
    }
}

/// What the thread owns.
struct FanOut {
    state: State,
    subscriptions: Arc<Subscriptions>,
    sessions: HashMap<u128, Listener>,
    streams: usize,
    ids: EventIds,
    /// The process is stopping: a client that comes back is to find another.
    is_closed: bool,
}

struct Listener {
    told: State,
    /// Oldest first; the last one is written to.
    streams: Vec<(u64, Sender<Arc<[u8]>>)>,
}

impl Work for FanOut {
    type Message = Order;

    fn receive(&mut self, order: Order) {
        match order {
            Order::Open { number, session, told, queue } => self.open(number, session, told, queue),
            Order::Close { number, session } => self.close(number, session),
            Order::End { session } => {
                self.sessions.remove(&session);
                self.subscriptions.end(session);
            }
            Order::Updated(uri) => self.updated(&uri),
            Order::Publish(state) => self.publish(state),
            Order::EndAll => self.sessions.clear(),
            Order::CloseAll => {
                self.is_closed = true;
                self.sessions.clear();
            }
        }
        self.streams = self.sessions.values().map(|listener| listener.streams.len()).sum();
        metrics::SSE_STREAMS.set(self.streams as i64);
    }

    fn tick(&mut self) -> Duration {
        let sessions = &self.sessions;
        self.subscriptions.forget_silent(Instant::now(), |session| sessions.contains_key(&session));
        Duration::from_secs(60)
    }
}

impl FanOut {
    fn open(&mut self, number: u64, session: u128, told: Told, queue: Sender<Arc<[u8]>>) {
        if self.is_closed || self.streams >= STREAMS_MAX {
            return; // dropping the queue ends the stream
        }
        let (told, last) = match told {
            Told::Event { state, process, number } => (state, (process == self.ids.process).then_some(number)),
            Told::State(state) => (state, None),
            Told::Unknown => (self.state.all_different(), None),
        };
        let listener = self.sessions.entry(session).or_insert(Listener { told, streams: Vec::new() });
        listener.told = told;
        listener.streams.push((number, queue));
        if listener.streams.len() > STREAMS_PER_SESSION_MAX {
            listener.streams.remove(0);
        }
        if told == self.state {
            listener.send(sse::encode(Some(&self.ids.next(told).0), b""));
        } else {
            listener.tell(self.state, &self.ids);
        }
        let missed = self.subscriptions.listens(session, last);
        missed.iter().for_each(|uri| self.tell_updated(session, uri));
    }

    fn close(&mut self, number: u64, session: u128) {
        if let Some(listener) = self.sessions.get_mut(&session) {
            listener.streams.retain(|(open, _)| *open != number);
            if listener.streams.is_empty() {
                self.sessions.remove(&session);
            }
        }
    }

    fn publish(&mut self, state: State) {
        self.state = state;
        for listener in self.sessions.values_mut() {
            listener.tell(state, &self.ids);
        }
        // The subscriptions of one whose streams are all closed are kept until that is an old story.
        self.sessions.retain(|_, listener| !listener.streams.is_empty());
    }

    fn updated(&mut self, uri: &str) {
        for session in self.subscriptions.subscribers(uri) {
            self.tell_updated(session, uri);
        }
    }

    fn tell_updated(&mut self, session: u128, uri: &str) {
        let params = jsonrpc::to_bytes(&json!({"uri": uri}));
        let message = jsonrpc::notification("notifications/resources/updated", Some(&params));
        let told = self.sessions.get_mut(&session).and_then(|listener| {
            let (id, number) = self.ids.next(listener.told);
            listener.send(sse::encode(Some(&id), &message)).then_some(number)
        });
        match told {
            Some(number) => self.subscriptions.told(session, uri, number),
            None => self.subscriptions.miss(session, uri),
        }
    }
}

impl Listener {
    /// One notification for each kind that changed; each id says what is known once it has been read.
    fn tell(&mut self, now: State, ids: &EventIds) {
        for (method, known) in changes(self.told, now) {
            self.told = known;
            let message = jsonrpc::notification(method, None);
            self.send(sse::encode(Some(&ids.next(known).0), &message));
        }
    }

    /// To the newest stream that takes it; one that does not is closed. False if there is none.
    fn send(&mut self, event: Vec<u8>) -> bool {
        let event: Arc<[u8]> = event.into();
        while let Some((_, queue)) = self.streams.last() {
            if queue.try_send(Arc::clone(&event)).is_ok() {
                return true;
            }
            metrics::SSE_DROPPED.add(1);
            self.streams.pop();
        }
        false
    }
}

impl State {
    /// A state in which every list differs from this one.
    fn all_different(self) -> State {
        State { tools: !self.tools, prompts: !self.prompts, resources: !self.resources }
    }
}

/// The notifications that lead from one state to another, each with the state that is known after it.
fn changes(from: State, to: State) -> Vec<(&'static str, State)> {
    let mut known = from;
    let mut changes = Vec::new();
    if from.tools != to.tools {
        known.tools = to.tools;
        changes.push(("notifications/tools/list_changed", known));
    }
    if from.prompts != to.prompts {
        known.prompts = to.prompts;
        changes.push(("notifications/prompts/list_changed", known));
    }
    if from.resources != to.resources {
        known.resources = to.resources;
        changes.push(("notifications/resources/list_changed", known));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: State = State { tools: 1, prompts: 1, resources: 1 };
    const B: State = State { tools: 2, prompts: 1, resources: 1 };
    const C: State = State { tools: 2, prompts: 2, resources: 3 };
    const WITHIN: Duration = Duration::from_secs(5);

    fn methods(from: State, to: State) -> Vec<&'static str> {
        changes(from, to).into_iter().map(|(method, _)| method.split('/').nth(1).unwrap()).collect()
    }

    #[test]
    fn one_notification_a_kind() {
        for (from, to, expected) in [
            (A, A, vec![]),
            (A, B, vec!["tools"]),
            (B, C, vec!["prompts", "resources"]),
            (A, C, vec!["tools", "prompts", "resources"]),
        ] {
            assert_eq!(methods(from, to), expected);
            assert_eq!(changes(from, to).last().map_or(from, |last| last.1), to);
        }
    }

    fn next(stream: &Stream) -> String {
        String::from_utf8(stream.next(WITHIN).expect("an event").to_vec()).unwrap()
    }

    #[test]
    fn a_resumed_stream_is_told_what_it_missed_and_nothing_else() {
        let hub = Hub::start(A).unwrap();
        let first = hub.open(7, Told::State(A)).unwrap();
        let primed = next(&first);
        assert!(primed.ends_with("data: \n\n"), "{primed}");
        let id = primed.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
        assert!(matches!(Told::parse(id), Told::Event { state: A, number: 0, .. }), "{id}");
        drop(first);

        hub.publish(B);
        let same = hub.open(7, Told::State(B)).unwrap();
        assert!(next(&same).ends_with("data: \n\n"));
        let behind = hub.open(8, Told::parse(id)).unwrap();
        assert!(next(&behind).contains("notifications/tools/list_changed"));
        let lost = hub.open(9, Told::parse("who knows")).unwrap();
        assert_eq!((0..3).map(|_| next(&lost)).filter(|event| event.contains("list_changed")).count(), 3);
        assert!(behind.events.is_empty() && same.events.is_empty() && lost.events.is_empty());
    }

    #[test]
    fn what_was_told_to_a_client_that_had_left_is_told_again() {
        let hub = Hub::start(A).unwrap();
        for uri in ["a", "b"] {
            hub.subscriptions.add(7, uri, Instant::now()).unwrap();
        }
        let id_of = |event: &str| event.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
        let first = hub.open(7, Told::State(A)).unwrap();
        let primed = id_of(&next(&first));
        hub.updated("a");
        let heard = id_of(&next(&first));
        hub.updated("b");
        hub.updated("a");
        hub.updated("c");
        for (id, expected) in [(&heard, &["a", "b"][..]), (&primed, &["a", "b"]), (&format!("{A}-1.0"), &[])] {
            let again = hub.open(7, Told::parse(id)).unwrap();
            next(&again);
            let mut told: Vec<String> = expected.iter().map(|_| next(&again)).collect();
            for uri in expected {
                assert!(told.iter().any(|event| event.contains(&format!(r#""uri":"{uri}""#))), "{id}: {told:?}");
            }
            hub.updated("b");
            let last = next(&again);
            assert!(last.contains(r#""uri":"b""#) && again.events.is_empty(), "{id}: {last}");
            told.push(last);
            let up_to_date = hub.open(7, Told::parse(&id_of(told.last().unwrap()))).unwrap();
            assert!(next(&up_to_date).ends_with("data: \n\n") && up_to_date.events.is_empty());
        }
    }

    #[test]
    fn the_newest_stream_of_a_session_is_written_to() {
        let hub = Hub::start(A).unwrap();
        let old = hub.open(7, Told::State(A)).unwrap();
        let new = hub.open(7, Told::State(A)).unwrap();
        next(&old);
        next(&new);
        hub.publish(B);
        assert!(next(&new).contains("tools/list_changed"));
        assert!(old.events.is_empty());
        hub.close_all();
        assert_eq!(new.next(WITHIN).map(|_| ()), Err(crossbeam_channel::RecvTimeoutError::Disconnected));
        let late = hub.open(7, Told::State(B)).unwrap();
        assert_eq!(late.next(WITHIN).map(|_| ()), Err(crossbeam_channel::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_reader_that_does_not_keep_up_is_closed() {
        let hub = Hub::start(A).unwrap();
        let slow = hub.open(7, Told::State(A)).unwrap();
        next(&slow);
        for round in 0..=SSE_QUEUE_MAX as u32 {
            hub.publish(State { tools: 100 + round, ..A });
        }
        // The hub takes orders in turn: once this stream is primed, all of the above has been sent.
        next(&hub.open(8, Told::Unknown).unwrap());
        let taken = std::iter::from_fn(|| slow.next(WITHIN).ok()).count();
        assert_eq!(taken, SSE_QUEUE_MAX);
    }
}
