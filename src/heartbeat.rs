//! Keeps the own entry in the registry, and fresh, for as long as the own listener answers.
//!
//! Others say what the entry shall hold; the thread writes it at once and with each beat, and writes again whatever
//! was removed: entry, tool list, folder.
//!
//! **Invariant**: entry and tool list are wanted as a pair, and the list is on disk before the entry that names its
//! revision. After `stop` nothing is written any more.
//! **Thread**: `heartbeat` alone writes; what is wanted is shared under a lock that is never held during I/O, so that
//! no change can be lost to a full inbox and many changes make one writing.
//! **Bounds**: inbox of one, as two wake-ups are one; retries from `BEAT_RETRY_MIN` up to the interval. A writing that
//! does not come back is told after `SCAN_TIME_MAX`, and makes the registry unwritable after `BEAT_TIME_MAX`.
//! Left out on purpose: ending a process whose listener hangs (`app.rs`, by `failed_probes`).

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::backoff::{Backoff, Complaint};
use crate::hash::fnv64_hex;
use crate::limits::{BEAT_RETRY_MIN, BEAT_TIME_MAX, REGISTRY_RETRY_MAX, SCAN_TIME_MAX, TOOL_LIST_BYTES_MAX};
use crate::logging::Quoted;
use crate::metrics::{self, RegistryError};
use crate::os;
use crate::registry::entry::{Beat, Entry, EntryError, Status};
use crate::registry::store::{Store, StoreError};
use crate::worker::{Work, Worker};

/// Whether the own listener answers; takes at most `SELF_PROBE_TIME_MAX`.
pub type Probe = Box<dyn Fn() -> bool + Send>;

pub struct Heartbeat {
    worker: Worker<Wake>,
    shared: Arc<Shared>,
}

/// "Something is wanted that is not written yet."
struct Wake;

struct Shared {
    wanted: Mutex<Wanted>,
    health: Mutex<Health>,
    failed_probes: AtomicU32,
}

/// How the last beat went, and since when the next is being written.
#[derive(Debug, Default, PartialEq)]
struct Health {
    trouble: Option<Trouble>,
    writing_since: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq)]
enum Trouble {
    /// Nothing was written, on purpose: the own listener does not answer.
    Silent,
    /// It could not be written.
    Registry(String),
}

#[derive(Clone)]
struct Wanted {
    entry: Entry,
    tools: Option<Arc<[u8]>>,
    /// How often it was changed.
    change: u64,
}

struct State {
    store: Store,
    shared: Arc<Shared>,
    interval: Duration,
    probe: Probe,
    answers: bool,
    seq: u64,
    /// The last change that was written.
    written: u64,
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
            wanted: Mutex::new(Wanted { entry, tools, change: 0 }),
            health: Mutex::default(),
            failed_probes: AtomicU32::new(0),
        });
        let mut state = State {
            store,
            shared: shared.clone(),
            interval,
            probe,
            answers: true,
            seq: 0,
            written: 0,
            published,
            pauses: Backoff::new(BEAT_RETRY_MIN, interval),
            complaint: Complaint::new(REGISTRY_RETRY_MAX),
            has_ticked: false,
        };
        state.write().map_err(io::Error::other)?;
        Ok(Heartbeat { worker: Worker::start("heartbeat", 1, state)?, shared })
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

    /// The entry as it is wanted; its heartbeat is not filled in.
    pub fn entry(&self) -> Entry {
        lock(&self.shared.wanted).entry.clone()
    }

    /// Whether the last beat was written; else why not.
    pub fn health(&self) -> Result<(), String> {
        lock(&self.shared.health).told(Instant::now())
    }

    /// Whether the registry takes what we write. Where it does not, the silence of others says nothing about them.
    pub fn can_write(&self) -> bool {
        lock(&self.shared.health).can_write(Instant::now())
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
        next.change += u64::from(!is_same);
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
        let is_new = lock(&self.shared.wanted).change != self.written;
        if self.answers && is_new {
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
        log::warn!("event=heartbeat_withheld why=\"the own listener does not answer\" probes={failed}");
        lock(&self.shared.health).trouble = Some(Trouble::Silent);
        self.interval
    }

    fn stop(&mut self) {
        let own = lock(&self.shared.wanted).entry.clone();
        if let Err(error) = self.store.remove_own(&own) {
            log::warn!("event=own_entry_not_removed error={}", Quoted(&error));
        }
    }
}

impl State {
    /// Writes, and says when to write again.
    fn beat(&mut self) -> Duration {
        lock(&self.shared.health).writing_since = Some(Instant::now());
        let written = self.write();
        let trouble = written.as_ref().err().map(|error| Trouble::Registry(error.to_string()));
        *lock(&self.shared.health) = Health { trouble, writing_since: None };
        match written {
            Ok(()) => {
                log::trace!("heartbeat seq={}", self.seq);
                if self.complaint.succeeded() {
                    log::info!("event=registry_written_again path={}", Quoted(&self.store.root().display()));
                }
                self.pauses.succeeded();
                self.interval
            }
            Err(error) => {
                metrics::REGISTRY_ERRORS.record(RegistryError::Write);
                if self.complaint.failed(Instant::now()) {
                    log::warn!("event=heartbeat_not_written error={}", Quoted(&error));
                }
                self.pauses.failed()
            }
        }
    }

    /// Tool list first. If only that fails, the entry is written all the same, with the revision that is on disk.
    fn write(&mut self) -> Result<(), StoreError> {
        let Wanted { mut entry, tools, change } = lock(&self.shared.wanted).clone();
        let published = self.publish(&entry, tools);
        entry.tools_revision.clone_from(&self.published.1);
        entry.heartbeat = Beat { seq: self.seq + 1, at: os::wall_clock() };
        self.store.write_entry(&entry)?;
        self.seq += 1;
        published?;
        self.written = change;
        Ok(())
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

impl Health {
    fn told(&self, now: Instant) -> Result<(), String> {
        let silence = self.writing_for(now);
        if silence > SCAN_TIME_MAX {
            return Err(format!("the registry folder has not taken a heartbeat for {} s", silence.as_secs()));
        }
        match &self.trouble {
            None => Ok(()),
            Some(Trouble::Silent) => Err("the own listener does not answer".to_owned()),
            Some(Trouble::Registry(error)) => Err(error.clone()),
        }
    }

    fn can_write(&self, now: Instant) -> bool {
        !matches!(self.trouble, Some(Trouble::Registry(_))) && self.writing_for(now) <= BEAT_TIME_MAX
    }

    fn writing_for(&self, now: Instant) -> Duration {
        self.writing_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
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
        log::warn!("event=instance_id_taken instance={} pid={}", own.instance_id, there.pid);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::faults;
    use crate::registry::entry::tests::sample;
    use crate::registry::files::tests::Folder;

    const INTERVAL: Duration = Duration::from_millis(30);

    fn until(what: &str, condition: impl Fn() -> bool) {
        let patience = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < patience, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn read(store: &Store) -> Option<Entry> {
        store.read_entry("a").expect("the folder can be read")
    }

    fn seq(store: &Store) -> u64 {
        read(store).map_or(0, |entry| entry.heartbeat.seq)
    }

    #[test]
    fn registers_beats_comes_back_and_leaves() {
        let folder = Folder::new();
        let store = Store::open(&folder.0.join("made/when/needed"));
        store.publish_tools("a", b"[1]").expect("the list can be written");
        let beat = Heartbeat::start(store.clone(), sample("a"), INTERVAL, Box::new(|| true)).expect("it registers");
        assert_eq!(seq(&store), 1, "registered when start returns");
        until("it beats", || seq(&store) > 3);

        fs::remove_dir_all(store.root()).expect("the folder can be removed");
        until("entry and tools are made again", || seq(&store) > 3 && store.has_tools("a"));
        assert_eq!(store.read_tools("a").expect("readable").as_slice(), b"[1]");

        beat.set_tools(Arc::from(&b"[2]"[..])).expect("a small list");
        until("the new list is told", || read(&store).is_some_and(|entry| entry.tools_revision == fnv64_hex(b"[2]")));
        assert_eq!(store.read_tools("a").expect("readable").as_slice(), b"[2]");

        let huge = vec![b' '; TOOL_LIST_BYTES_MAX as usize + 1];
        assert_eq!(beat.set_tools(huge.into()), Err(EntryError::Field("tools")));

        let long = "x".repeat(5000);
        assert_eq!(beat.update(|entry| entry.scene = Some(long)), Err(EntryError::Field("scene")));
        beat.update(|entry| entry.instance_id = "b".to_owned()).expect("ignored");
        beat.set_status(Status::Draining).expect("a good status");
        until("the status is told", || read(&store).is_some_and(|entry| entry.status == Status::Draining));
        assert_eq!(beat.health(), Ok(()));

        assert!(beat.stop());
        assert_eq!(read(&store), None);
        assert!(!store.has_tools("a"));
        std::thread::sleep(INTERVAL * 3);
        assert_eq!(read(&store), None, "the beat has ended before");
    }

    #[test]
    fn a_change_is_written_at_once() {
        let folder = Folder::new();
        let store = Store::open(&folder.0);
        let hour = Duration::from_secs(3600);
        let beat = Heartbeat::start(store.clone(), sample("a"), hour, Box::new(|| true)).expect("it registers");
        for number in 0..100 {
            beat.set_gateway(Some(format!("127.0.0.1:{number}"))).expect("a good address");
        }
        until("the last change is told", || {
            read(&store).is_some_and(|entry| entry.gateway.as_deref() == Some("127.0.0.1:99"))
        });
        let before = seq(&store);
        beat.set_gateway(Some("127.0.0.1:99".to_owned())).expect("a good address");
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(seq(&store), before, "what is the same is not written");
        assert!(beat.stop());
    }

    #[test]
    fn no_beat_while_the_listener_hangs() {
        let folder = Folder::new();
        let store = Store::open(&folder.0);
        let answers = Arc::new(AtomicBool::new(false));
        let probe = {
            let answers = answers.clone();
            Box::new(move || answers.load(Ordering::Relaxed))
        };
        let beat = Heartbeat::start(store.clone(), sample("a"), INTERVAL, probe).expect("it registers");
        until("the probes fail", || beat.failed_probes() >= 3);
        beat.set_status(Status::Available).expect("a good status");
        assert!(beat.health().is_err());
        assert_eq!(seq(&store), 1);
        answers.store(true, Ordering::Relaxed);
        until("it beats again, with the change", || {
            read(&store).is_some_and(|entry| entry.status == Status::Available)
        });
        until("it is well", || beat.failed_probes() == 0 && beat.health() == Ok(()));
        assert!(beat.stop());
    }

    #[test]
    fn a_registry_that_fails_is_an_error_at_the_start_and_survived_later() {
        let folder = Folder::new();
        fs::write(folder.0.join("file"), "").expect("a file can be written");
        let blocked = Store::open(&folder.0.join("file"));
        assert!(Heartbeat::start(blocked, sample("a"), INTERVAL, Box::new(|| true)).is_err());

        let store = Store::open(&folder.0.join("registry"));
        let beat = Heartbeat::start(store.clone(), sample("a"), INTERVAL, Box::new(|| true)).expect("it registers");
        fs::remove_dir_all(store.root())
            .and_then(|()| fs::write(store.root(), ""))
            .or_else(|_| fs::remove_dir_all(store.root()).and_then(|()| fs::write(store.root(), "")))
            .expect("a file in the place of the folder");
        until("it is told", || beat.health().is_err());
        fs::remove_file(store.root()).expect("the file can be removed");
        until("it recovers", || beat.health() == Ok(()) && seq(&store) > 1);
        assert!(beat.stop());
    }

    #[test]
    fn a_writing_that_hangs_is_told() {
        let start = Instant::now();
        let after = |time: Duration, trouble: Option<Trouble>| {
            let health = Health { trouble, writing_since: Some(start) };
            (health.can_write(start + time), health.told(start + time).is_ok())
        };
        let instant = Duration::from_millis(1);
        assert_eq!(after(BEAT_TIME_MAX, None), (true, true));
        assert_eq!(after(BEAT_TIME_MAX + instant, None), (false, true), "slow, and nobody's silence counts");
        assert_eq!(after(SCAN_TIME_MAX + instant, None), (false, false));
        assert_eq!(after(Duration::ZERO, Some(Trouble::Silent)), (true, false), "that is not the registry's fault");
        assert_eq!(after(Duration::ZERO, Some(Trouble::Registry("full".to_owned()))), (false, false));
    }

    /// Every file operation of registering, publishing and beating fails in turn. It is told unless it does not matter,
    /// nobody else's file is touched, and the next beat mends all.
    #[test]
    fn each_file_operation_fails_once() {
        let operations = faults::with_each_failure(|nth, failing| {
            let folder = Folder::new();
            let store = Store::open(&folder.0);
            let others = bystanders(&store);
            let (mut state, shared) = registered(&store);
            let mut rested = Duration::ZERO;
            failing(&mut || rested = state.tick());
            let named = read(&store).map(|entry| entry.tools_revision).unwrap_or_default();
            assert!(named.is_empty() || store.has_tools("a"), "operation {nth}: a revision without its list");
            let is_whole = named == sample("a").tools_revision;
            assert!(
                is_whole || rested == BEAT_RETRY_MIN && lock(&shared.health).trouble.is_some(),
                "operation {nth}: told"
            );
            state.tick();
            assert_eq!(*lock(&shared.health), Health::default(), "operation {nth}");
            assert_eq!(read(&store).map(|entry| entry.tools_revision), Some(sample("a").tools_revision));
            assert!(store.has_tools("a"));
            assert_eq!(bystanders(&store), others, "operation {nth}");
        });
        assert!(operations > 8, "two files were written: {operations} operations");
    }

    /// The same at the end: what is left is told, and another process with our id keeps its entry.
    #[test]
    fn each_file_operation_of_leaving_fails_once() {
        let operations = faults::with_each_failure(|nth, failing| {
            let folder = Folder::new();
            let store = Store::open(&folder.0);
            let (mut state, _) = registered(&store);
            state.tick();
            let others = bystanders(&store);
            let failed = failing(&mut || Work::stop(&mut state));
            assert!(failed || (read(&store).is_none() && !store.has_tools("a")), "operation {nth}");
            Work::stop(&mut state);
            assert_eq!(bystanders(&store), others, "operation {nth}");
        });
        assert!(operations >= 7, "read and four removals: {operations} operations");
    }

    /// A heartbeat that has not written anything yet.
    fn registered(store: &Store) -> (State, Arc<Shared>) {
        let wanted = Wanted { entry: sample("a"), tools: Some(Arc::from(&b"[1]"[..])), change: 0 };
        let shared =
            Arc::new(Shared { wanted: Mutex::new(wanted), health: Mutex::default(), failed_probes: AtomicU32::new(0) });
        let state = State {
            store: store.clone(),
            shared: shared.clone(),
            interval: Duration::from_secs(5),
            probe: Box::new(|| true),
            answers: true,
            seq: 0,
            written: 0,
            published: (None, String::new()),
            pauses: Backoff::new(BEAT_RETRY_MIN, Duration::from_secs(5)),
            complaint: Complaint::new(REGISTRY_RETRY_MAX),
            has_ticked: true,
        };
        (state, shared)
    }

    /// Files beside ours, with what they hold; made where they are missing.
    fn bystanders(store: &Store) -> Vec<(String, Option<String>)> {
        let names =
            ["instances/b.json", "tools/b.json", "instances/.b.json.tmp", "instances/notes.txt", "services.json"];
        for name in names {
            let path = store.root().join(name);
            let folder = path.parent().expect("it is in a folder");
            if !folder.join("made").exists() {
                fs::create_dir_all(folder).expect("a folder can be made");
                fs::write(&path, name).expect("a file can be written");
            }
        }
        for folder in ["", "instances", "tools"] {
            fs::write(store.root().join(folder).join("made"), "").expect("a file can be written");
        }
        names.map(|name| (name.to_owned(), fs::read_to_string(store.root().join(name)).ok())).into()
    }
}
