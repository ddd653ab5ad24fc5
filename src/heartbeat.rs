//! Keeps the own entry in the registry, and fresh, for as long as the own listener answers.
//!
//! Others say what the entry shall hold; the thread writes it at once and with each beat, and writes again whatever
//! was removed: entry, tool list, folder.
//!
//! **Invariant**: entry and tool list are wanted as a pair, and the list is on disk before the entry that names its
//! revision. After `stop` nothing is written any more.
//! **Thread**: `heartbeat` alone writes; what is wanted is shared under a lock that is never held during I/O, so that
//! no change can be lost to a full inbox and many changes make one writing.
//! **Bounds**: inbox of one, as two wake-ups are one; retries from `BEAT_RETRY_MIN` up to the interval.
//! Left out on purpose: ending a process whose listener hangs (`app.rs`, by `failed_probes`).

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::backoff::{Backoff, Complaint};
use crate::hash::fnv64_hex;
use crate::limits::{BEAT_RETRY_MIN, REGISTRY_RETRY_MAX, TOOL_LIST_BYTES_MAX};
use crate::os;
use crate::registry::entry::{Beat, Entry, EntryError, Status};
use crate::registry::store::{Store, StoreError};
use crate::worker::{Work, Worker};

/// Whether the own listener answers; takes at most `SELF_PROBE_TIME_MAX`.
pub type Probe = Box<dyn Fn() -> bool + Send>;

pub struct Heartbeat {
    worker: Worker<Wake>,
    store: Store,
    shared: Arc<Shared>,
}

/// "Something is wanted that is not written yet."
struct Wake;

struct Shared {
    wanted: Mutex<Wanted>,
    health: Mutex<Result<(), String>>,
    failed_probes: AtomicU32,
}

#[derive(Clone)]
struct Wanted {
    entry: Entry,
    tools: Option<Arc<[u8]>>,
}

struct State {
    store: Store,
    shared: Arc<Shared>,
    interval: Duration,
    probe: Probe,
    answers: bool,
    seq: u64,
    /// The tool list that is on disk, unless somebody removed it, and its revision.
    published: (Option<Arc<[u8]>>, String),
    pauses: Backoff,
    complaint: Complaint,
    has_ticked: bool,
}

impl Heartbeat {
    /// Registers, then keeps beating. The listener answers and the tool list that `entry` names is published by now.
    /// An error means that the registry cannot be written.
    pub fn start(store: Store, entry: Entry, interval: Duration, probe: Probe) -> io::Result<Heartbeat> {
        warn_of_namesake(&store, &entry);
        let tools = read_tools(&store, &entry);
        let published = (tools.clone(), entry.tools_revision.clone());
        let shared = Arc::new(Shared {
            wanted: Mutex::new(Wanted { entry, tools }),
            health: Mutex::new(Ok(())),
            failed_probes: AtomicU32::new(0),
        });
        let mut state = State {
            store: store.clone(),
            shared: shared.clone(),
            interval,
            probe,
            answers: true,
            seq: 0,
            published,
            pauses: Backoff::new(BEAT_RETRY_MIN, interval),
            complaint: Complaint::new(REGISTRY_RETRY_MAX),
            has_ticked: false,
        };
        state.write().map_err(io::Error::other)?;
        Ok(Heartbeat { worker: Worker::start("heartbeat", 1, state)?, store, shared })
    }

    /// Changes what the entry says. Refused as a whole if readers would skip the result. The id stays.
    pub fn update(&self, change: impl FnOnce(&mut Entry)) -> Result<(), EntryError> {
        self.want(|wanted| {
            let id = wanted.entry.instance_id.clone();
            change(&mut wanted.entry);
            wanted.entry.instance_id = id;
        })
    }

    pub fn set_status(&self, status: Status) -> Result<(), EntryError> {
        self.update(|entry| entry.status = status)
    }

    pub fn set_gateway(&self, address: Option<String>) -> Result<(), EntryError> {
        self.update(|entry| entry.gateway = address)
    }

    /// Publishes another tool list, and goes on trying if the registry fails.
    pub fn set_tools(&self, tools: Arc<[u8]>) -> Result<(), EntryError> {
        if tools.len() as u64 > TOOL_LIST_BYTES_MAX {
            return Err(EntryError::Field("tools"));
        }
        self.want(|wanted| {
            wanted.entry.tools_revision = fnv64_hex(&tools);
            wanted.tools = Some(tools);
        })
    }

    /// The same for a list that the caller has put into the store himself.
    pub fn set_tools_revision(&self, revision: String) -> Result<(), EntryError> {
        let entry = Entry { tools_revision: revision, ..self.entry() };
        let tools = read_tools(&self.store, &entry);
        self.want(|wanted| {
            wanted.entry.tools_revision = entry.tools_revision;
            wanted.tools = tools;
        })
    }

    /// The entry as it is wanted; its heartbeat is not filled in.
    pub fn entry(&self) -> Entry {
        lock(&self.shared.wanted).entry.clone()
    }

    /// Whether the last beat was written; else why not.
    pub fn health(&self) -> Result<(), String> {
        lock(&self.shared.health).clone()
    }

    /// How many times in a row the own listener has not answered.
    pub fn failed_probes(&self) -> u32 {
        self.shared.failed_probes.load(Ordering::Relaxed)
    }

    /// Ends the beat, then removes entry and tool list; false if the registry did not answer in time.
    pub fn stop(&self) -> bool {
        self.worker.stop()
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) -> Result<(), EntryError> {
        let mut wanted = lock(&self.shared.wanted);
        let mut next = wanted.clone();
        change(&mut next);
        next.entry.encode()?;
        let is_same = next.entry == wanted.entry && next.tools == wanted.tools;
        *wanted = next;
        drop(wanted);
        if !is_same {
            // Full: the thread is about to look at what is wanted anyway.
            let _ = self.worker.send(Wake);
        }
        Ok(())
    }
}

impl Work for State {
    type Message = Wake;

    fn receive(&mut self, _: Wake) {
        // A listener that hangs is not advertised afresh; the beat writes the change when it answers again.
        if self.answers {
            self.beat();
        }
    }

    fn tick(&mut self) -> Duration {
        if !self.has_ticked {
            // Registered a moment ago. A random start keeps processes apart that were started together.
            self.has_ticked = true;
            return self.interval.mul_f64(f64::from(u32::from_le_bytes(os::random_bytes())) / 2f64.powi(32));
        }
        self.answers = (self.probe)();
        if self.answers {
            self.shared.failed_probes.store(0, Ordering::Relaxed);
            return self.beat();
        }
        let failed = self.shared.failed_probes.fetch_add(1, Ordering::Relaxed) + 1;
        log::warn!("no heartbeat: the own listener does not answer probes={failed}");
        *lock(&self.shared.health) = Err("the own listener does not answer".to_owned());
        self.interval
    }

    fn stop(&mut self) {
        if let Err(error) = self.store.remove_own(&lock(&self.shared.wanted).entry.clone()) {
            log::warn!("own entry not removed error=\"{error}\"");
        }
    }
}

impl State {
    /// Writes, and says when to write again.
    fn beat(&mut self) -> Duration {
        let written = self.write();
        *lock(&self.shared.health) = written.as_ref().copied().map_err(ToString::to_string);
        match written {
            Ok(()) => {
                log::trace!("heartbeat seq={}", self.seq);
                if self.complaint.succeeded() {
                    log::info!("registry can be written again path={}", self.store.root().display());
                }
                self.pauses.succeeded();
                self.interval
            }
            Err(error) => {
                if self.complaint.failed(Instant::now()) {
                    log::warn!("heartbeat not written error=\"{error}\"");
                }
                self.pauses.failed()
            }
        }
    }

    /// Tool list first. If only that fails, the entry is written all the same, with the revision that is on disk.
    fn write(&mut self) -> Result<(), StoreError> {
        let Wanted { mut entry, tools } = lock(&self.shared.wanted).clone();
        let published = self.publish(&entry, tools);
        entry.tools_revision.clone_from(&self.published.1);
        entry.heartbeat = Beat { seq: self.seq + 1, at: os::wall_clock() };
        self.store.write_entry(&entry)?;
        self.seq += 1;
        published
    }

    fn publish(&mut self, entry: &Entry, tools: Option<Arc<[u8]>>) -> Result<(), StoreError> {
        let id = &entry.instance_id;
        if let Some(tools) = &tools {
            let is_published = self.published.0.as_ref().is_some_and(|there| Arc::ptr_eq(there, tools));
            if !is_published || !self.store.has_tools(id) {
                self.store.publish_tools(id, tools)?;
            }
        }
        self.published = (tools, entry.tools_revision.clone());
        Ok(())
    }
}

/// Kept, so that the file can be written again when it was removed.
fn read_tools(store: &Store, entry: &Entry) -> Option<Arc<[u8]>> {
    let is_published = !entry.tools_revision.is_empty();
    is_published.then(|| store.read_tools(&entry.instance_id).ok()).flatten().map(Arc::from)
}

/// Two processes with one pinned id overwrite each other for ever; that is the operator's to mend.
fn warn_of_namesake(store: &Store, own: &Entry) {
    let Ok(Some(there)) = store.read_entry(&own.instance_id) else { return };
    let can_tell = there.host_id == own.host_id && !there.has_same_owner(own);
    if can_tell && !os::process_is_gone(there.pid, there.pid_start) {
        log::warn!("another process uses this instance id instance={} pid={}", own.instance_id, there.pid);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
