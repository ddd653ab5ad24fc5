//! A client that follows the lists: it looks at a list again when it is told that it changed, and at no other time.
//!
//! It also subscribes to resources of its own, and must hear of no other's.
//!
//! When its stream breaks it comes back with the last event id; without a session there is none, so that it looks at
//! all lists again. Whether it missed a change shows in what it has for the lists.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{EventStream, Polled};
use crate::peer::{Heard, KINDS, Peer, View};
use crate::wait::PATIENCE;

/// The id of every `subscriptions/listen`, which is the same in all clients on purpose.
const LISTEN: u64 = 7;
const UPDATED: &str = "notifications/resources/updated";
const FOLLOWING: u8 = 0;
const AWAY: u8 = 1;
const GONE: u8 = 2;

pub struct Follower {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    peer: Peer,
    /// The resources that it subscribes to.
    own: BTreeSet<String>,
    /// Those that it was told of.
    updated: Mutex<BTreeSet<String>>,
    wanted: AtomicU8,
    /// Drop the stream and come back.
    comes_back: AtomicBool,
    /// A stream is open and has begun.
    stands: AtomicBool,
    view: Mutex<View>,
    /// Changes that it was told of, of each kind.
    told: Mutex<[usize; 3]>,
    faults: Mutex<Vec<String>>,
}

impl Follower {
    /// Begins to follow; what it has for the lists is from before its stream.
    pub fn start(peer: Peer, own: BTreeSet<String>) -> Follower {
        let view = peer.view().expect("the lists of a gateway that nobody disturbs");
        let shared = Arc::new(Shared {
            peer,
            own,
            updated: Mutex::default(),
            wanted: AtomicU8::new(FOLLOWING),
            comes_back: AtomicBool::new(false),
            stands: AtomicBool::new(false),
            view: Mutex::new(view),
            told: Mutex::default(),
            faults: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || own.run());
        Follower { shared, thread: Some(thread) }
    }

    pub fn go_away(&self) {
        self.shared.wanted.store(AWAY, Ordering::SeqCst);
    }

    pub fn come_back(&self) {
        self.shared.wanted.store(FOLLOWING, Ordering::SeqCst);
    }

    /// Closes the stream and opens it again.
    pub fn reopen(&self) {
        self.shared.comes_back.store(true, Ordering::SeqCst);
    }

    pub fn is_away(&self) -> bool {
        self.shared.wanted.load(Ordering::SeqCst) == AWAY
    }

    pub fn stands(&self) -> bool {
        self.shared.stands.load(Ordering::SeqCst) && !self.shared.comes_back.load(Ordering::SeqCst)
    }

    pub fn view(&self) -> View {
        lock(&self.shared.view).clone()
    }

    pub fn told(&self) -> [usize; 3] {
        *lock(&self.shared.told)
    }

    /// Subscribes again to what may have been forgotten: a gateway knows nothing of subscriptions at another.
    pub fn subscribe(&self) {
        if self.shared.peer.is_stateless() {
            return self.reopen();
        }
        for uri in &self.shared.own {
            let params = json!({"uri": uri});
            let message = json!({"jsonrpc": "2.0", "id": LISTEN, "method": "resources/subscribe", "params": params});
            match self.shared.peer.ask(message, || false) {
                Heard::All { status: 200, messages } if messages.len() == 1 && messages[0]["result"] == json!({}) => {}
                other => self.shared.fault(format!("{uri} cannot be subscribed to: {other:?}")),
            }
        }
    }

    /// Those of its resources that it was not told of since the last `forget_updates`.
    pub fn untold(&self) -> Vec<String> {
        self.shared.own.difference(&lock(&self.shared.updated)).cloned().collect()
    }

    pub fn has_all_updates(&self) -> bool {
        self.untold().is_empty()
    }

    pub fn forget_updates(&self) {
        lock(&self.shared.updated).clear();
    }

    pub fn take_faults(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.shared.faults))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.wanted.store(GONE, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut last_event_id: Option<String> = None;
        loop {
            match self.wanted.load(Ordering::SeqCst) {
                GONE => return,
                FOLLOWING => {
                    self.comes_back.store(false, Ordering::SeqCst);
                    match self.open(last_event_id.as_deref()) {
                        Ok(mut stream) if stream.status == 200 => self.follow(&mut stream, &mut last_event_id),
                        Ok(stream) => self.fault(format!("a stream was refused with {}", stream.status)),
                        Err(_) => {}
                    }
                    self.stands.store(false, Ordering::SeqCst);
                }
                _ => {}
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn open(&self, last_event_id: Option<&str>) -> io::Result<EventStream> {
        if !self.peer.is_stateless() {
            return self.peer.open_stream(last_event_id);
        }
        let wanted = json!({"toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true,
            "resourceSubscriptions": self.own});
        let params = json!({"notifications": wanted});
        self.peer.open(json!({"jsonrpc": "2.0", "id": LISTEN, "method": "subscriptions/listen", "params": params}))
    }

    /// Reads a stream to its end, or until something else is wanted.
    fn follow(&self, stream: &mut EventStream, last_event_id: &mut Option<String>) {
        while self.wanted.load(Ordering::SeqCst) == FOLLOWING && !self.comes_back.load(Ordering::SeqCst) {
            match stream.poll(Duration::from_millis(20)) {
                Polled::End => return,
                Polled::Silence => {}
                Polled::Event(event) => {
                    let data = event.data.filter(|data| !data.is_empty());
                    if event.id.is_some() {
                        *last_event_id = event.id;
                        self.stands.store(true, Ordering::SeqCst);
                    }
                    if let Some(data) = data {
                        self.hear(&serde_json::from_str(&data).unwrap_or_default());
                    }
                }
            }
        }
    }

    fn hear(&self, message: &Value) {
        let subscription = &message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
        if self.peer.is_stateless() && message.get("method").is_some() && *subscription != json!(LISTEN) {
            return self.fault(format!("a message of no stream of this client: {message}"));
        }
        let method = message["method"].as_str().unwrap_or_default();
        if method == "notifications/subscriptions/acknowledged" {
            (0..KINDS.len()).for_each(|kind| self.look(kind));
            return self.stands.store(true, Ordering::SeqCst);
        }
        let uri = message["params"]["uri"].as_str().unwrap_or_default();
        match KINDS.iter().position(|kind| method == format!("notifications/{kind}/list_changed")) {
            Some(kind) => {
                self.look(kind);
                lock(&self.told)[kind] += 1;
            }
            None if self.peer.is_stateless() && message["result"]["resultType"] == json!("complete") => {}
            None if method == UPDATED && self.own.contains(uri) => {
                lock(&self.updated).insert(uri.to_owned());
            }
            None => self.fault(format!("a message that has no place on this stream: {message}")),
        }
    }

    /// Looks at a list until it is answered: the gateway may be gone for a moment.
    fn look(&self, kind: usize) {
        let end = Instant::now() + PATIENCE;
        loop {
            let list: Result<BTreeSet<String>, String> = self.peer.list(kind, 1);
            match list {
                Ok(list) => {
                    lock(&self.view)[kind] = list;
                    return;
                }
                Err(error) if Instant::now() > end => return self.fault(format!("a list was not answered: {error}")),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn fault(&self, what: String) {
        lock(&self.faults).push(format!("client {} ({}): {what}", self.peer.number, self.peer.revision));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
