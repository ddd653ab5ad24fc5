//! Changes of resources, as instances tell them: for each instance with a resource that a client of ours subscribed to,
//! a thread that is subscribed there, reads that instance's stream and tells our clients.
//!
//! What is wanted is looked at anew every `FOLLOWERS_LOOK_EVERY`, so that nothing has to be undone where a client goes, an
//! instance restarts or a stream breaks: each look leads to what should be.
//!
//! **Invariant**: an instance without a subscribed resource has no thread. After a gap everything counts as changed.
//! **Thread**: `followers` owns the list; `follow-*` threads, one an instance, wait for their instance alone.
//! **Bounds**: `FOLLOWERS_MAX`, `FOLLOW_TIME_MAX`; the subscriptions are those of `subscriptions.rs`.
//! Left out on purpose: other messages on those streams; lists are known from the registry.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::backoff::Backoff;
use crate::deadline::Deadline;
use crate::gateway::catalogue::Catalogue;
use crate::gateway::names;
use crate::gateway::upstream::Upstream;
use crate::gateway::upstream_error::UpstreamError;
use crate::http::reply::{Patience, Reply, Wake};
use crate::http::sse::Decoder;
use crate::hub::Hub;
use crate::jsonrpc::{self, Message};
use crate::limits::{
    FAN_OUT_TIME_MAX, FOLLOW_RETRY_MAX, FOLLOW_TIME_MAX, FOLLOWERS_LOOK_EVERY, FOLLOWERS_MAX, INBOX_MAX,
};
use crate::logging::Quoted;
use crate::mcp::params::SubscribeParams;
use crate::worker::{self, Work, Worker};

/// The handle.
pub struct Followers {
    worker: Worker<Look>,
}

/// Somebody subscribed: look at once.
struct Look;

impl Followers {
    pub fn start(hub: Arc<Hub>, catalogue: Arc<Catalogue>) -> io::Result<Followers> {
        let worker = Worker::start("followers", INBOX_MAX, List { hub, catalogue, following: HashMap::new() })?;
        Ok(Followers { worker })
    }

    pub fn look(&self) {
        // A full inbox is full of the same order.
        let _ = self.worker.send(Look);
    }
}

/// Resources of one instance: its own URI, with those under which clients subscribed.
type Wanted = HashMap<String, BTreeSet<Box<str>>>;

/// What the thread owns.
struct List {
    hub: Arc<Hub>,
    catalogue: Arc<Catalogue>,
    following: HashMap<String, Following>,
}

struct Following {
    upstream: Arc<Upstream>,
    wanted: Arc<Mutex<Wanted>>,
    /// Dropped, it ends the thread.
    _end: Sender<()>,
}

impl Work for List {
    type Message = Look;

    fn receive(&mut self, _: Look) {
        self.look();
    }

    fn tick(&mut self) -> Duration {
        self.look();
        FOLLOWERS_LOOK_EVERY
    }
}

impl List {
    fn look(&mut self) {
        let mut wanted = self.wanted();
        self.following.retain(|id, following| match wanted.get(id) {
            // A restart under the same id is another way, and another thread.
            Some((upstream, _)) => upstream.is_same_way(&following.upstream),
            None => false,
        });
        for (id, (upstream, resources)) in wanted.drain() {
            if let Some(following) = self.following.get(&id) {
                *following.wanted.lock().unwrap_or_else(PoisonError::into_inner) = resources;
            } else if self.following.len() < FOLLOWERS_MAX {
                self.begin(id, upstream, resources);
            }
        }
    }

    /// By instance.
    fn wanted(&self) -> HashMap<String, (Arc<Upstream>, Wanted)> {
        let snapshot = self.catalogue.now();
        let mut by_instance: HashMap<String, (Arc<Upstream>, Wanted)> = HashMap::new();
        for uri in self.hub.subscriptions.uris() {
            let Some(route) = snapshot.resource(&uri) else { continue };
            let id = route.upstream.instance.entry.instance_id.clone();
            let (_, wanted) = by_instance.entry(id).or_insert_with(|| (route.upstream, Wanted::new()));
            wanted.entry(route.name).or_default().insert(uri);
        }
        by_instance
    }

    fn begin(&mut self, id: String, upstream: Arc<Upstream>, resources: Wanted) {
        let (end, ended) = bounded(0);
        let wanted = Arc::new(Mutex::new(resources));
        let mut follower = Follower {
            hub: Arc::clone(&self.hub),
            upstream: Arc::clone(&upstream),
            wanted: Arc::clone(&wanted),
            ended,
            subscribed: BTreeSet::new(),
            pauses: Backoff::new(FOLLOWERS_LOOK_EVERY, FOLLOW_RETRY_MAX),
        };
        if worker::spawn(&format!("follow-{}", names::short(&id)), move || follower.run()).is_ok() {
            self.following.insert(id, Following { upstream, wanted, _end: end });
        }
    }
}

/// What a `follow-*` thread owns.
struct Follower {
    hub: Arc<Hub>,
    upstream: Arc<Upstream>,
    wanted: Arc<Mutex<Wanted>>,
    ended: Receiver<()>,
    /// At the instance, in the session of the present stream.
    subscribed: BTreeSet<String>,
    pauses: Backoff,
}

impl Follower {
    fn run(&mut self) {
        let mut is_first = true;
        loop {
            if let Err(error) = self.listen(is_first) {
                let id = &self.upstream.instance.entry.instance_id;
                log::debug!("event=not_followed instance={id} error={}", Quoted(&error));
            }
            is_first = false;
            let pause = self.pauses.failed();
            if self.has_ended(pause) {
                break;
            }
        }
        for uri in std::mem::take(&mut self.subscribed) {
            let _ = self.tell("resources/unsubscribe", &uri);
        }
    }

    fn has_ended(&self, within: Duration) -> bool {
        self.ended.recv_timeout(within) == Err(RecvTimeoutError::Disconnected)
    }

    /// Reads one stream until it ends.
    fn listen(&mut self, is_first: bool) -> Result<(), UpstreamError> {
        self.subscribed.clear();
        self.reconcile()?;
        let deadline = Deadline::after(FOLLOW_TIME_MAX);
        let mut reply = self.upstream.follow(deadline)?;
        self.pauses.succeeded();
        if !is_first {
            self.wanted().into_values().flatten().for_each(|uri| self.hub.updated(&uri));
        }
        let mut decoder = Decoder::new();
        while !reply.is_complete() && !self.has_ended(Duration::ZERO) && !deadline.has_passed() {
            self.reconcile()?;
            let bytes = read_some(&mut reply, deadline)?;
            decoder.push(&bytes);
            while let Some(event) = decoder.next().map_err(|_| UpstreamError::NotMcp("an event of it is too large"))? {
                self.hear(&event.data);
            }
        }
        Ok(())
    }

    fn wanted(&self) -> Wanted {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Subscribes and unsubscribes until the instance is asked for what is wanted. Asking twice does no harm.
    fn reconcile(&mut self) -> Result<(), UpstreamError> {
        let wanted: BTreeSet<String> = self.wanted().into_keys().collect();
        for uri in wanted.difference(&self.subscribed.clone()) {
            self.tell("resources/subscribe", uri)?;
            self.subscribed.insert(uri.clone());
        }
        for uri in self.subscribed.clone().difference(&wanted) {
            self.tell("resources/unsubscribe", uri)?;
            self.subscribed.remove(uri);
        }
        Ok(())
    }

    /// A resource that the instance refuses (it may be gone for the moment) is as good as subscribed: it does not change.
    fn tell(&self, method: &str, uri: &str) -> Result<(), UpstreamError> {
        let params = jsonrpc::to_bytes(&serde_json::json!({"uri": uri}));
        match self.upstream.ask(method, &params, Deadline::after(FAN_OUT_TIME_MAX)) {
            Ok(_) | Err(UpstreamError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn hear(&self, message: &str) {
        let Ok(Message::Notification { method, params: Some(params) }) = jsonrpc::parse_one(message) else { return };
        if method != "notifications/resources/updated" {
            return;
        }
        let Ok(SubscribeParams { uri }) = serde_json::from_str(params.get()) else { return };
        let wanted = self.wanted();
        wanted.get(&*uri).into_iter().flatten().for_each(|published| self.hub.updated(published));
    }
}

/// What has come; nothing after a while of silence.
fn read_some(reply: &mut Reply, deadline: Deadline) -> Result<Vec<u8>, UpstreamError> {
    let patience = Patience { deadline, tick: Some(FOLLOWERS_LOOK_EVERY), watched: None, called: None };
    let mut bytes = Vec::new();
    match reply.read(&mut bytes, &patience)? {
        Wake::Ready | Wake::Tick | Wake::WatchedGone | Wake::Called => Ok(bytes),
    }
}
