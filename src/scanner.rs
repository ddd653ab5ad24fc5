//! Looks at the registry again and again, and tells what came, went or changed.
//!
//! `latest()` is the newest view, heartbeats included; `out` gets a view only when it says something new.
//!
//! **Invariant**: a registry that fails takes nothing away: the last view stays, with the error in it, but for those who
//! are found dead without it.
//! **Thread**: `scanner` owns the observer and is the only one that waits for the folder. When that hangs, `latest()`
//! and `health()` still answer.
//! **Bounds**: inbox of one; `SCAN_EVERY`, `SCAN_RETRY_MAX`, `PRUNES_PER_SCAN_MAX`, `SLEPT_AFTER`.
//! Left out on purpose: waiting for file events, which network file systems do not have.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[cfg(test)]
use crossbeam_channel::bounded;

use crate::backoff::{Backoff, Complaint};
use crate::limits::{PRUNES_PER_SCAN_MAX, REGISTRY_RETRY_MAX, SCAN_EVERY, SCAN_RETRY_MAX, SCAN_TIME_MAX, SLEPT_AFTER};
use crate::logging::Quoted;
use crate::metrics::{self, RegistryError};
use crate::os;
use crate::registry::facts::{CanWrite, Facts, HostFacts};
use crate::registry::foreign::Rows;
use crate::registry::store::{ScanCache, Skipped, Store, StoreError};
use crate::registry::{Moment, Observer, Prune, View};
use crate::worker::{Work, Worker};

/// What takes the views; it runs on the thread `scanner` and must not wait.
pub type Out = Box<dyn Fn(Arc<View>) + Send>;

pub struct Settings {
    /// The own instance, shown live always.
    pub own_id: Option<String>,
    pub stale_timeout: Duration,
    pub can_write: CanWrite,
}

pub struct Scanner {
    worker: Worker<Nudge>,
    shared: Arc<Shared>,
}

/// "Look now, and do this when it is done." It runs on the thread `scanner` and must not wait.
struct Nudge(Box<dyn FnOnce() + Send>);

struct Shared {
    view: Mutex<Arc<View>>,
    is_gateway: AtomicBool,
    started: Instant,
    pace: Mutex<Pace>,
}

/// How old what we know is, for requests that come just when a process that was paused wakes.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// When the last scan that ended began.
    seen: Instant,
    /// Until the next.
    pause: Duration,
    /// It was said already that a scan is overdue, and none has ended in time since.
    is_waited_for: bool,
    /// The scan that ended was itself overdue, and nobody has waited for it: what it saw may not be in the lists yet.
    is_news: bool,
}

impl Pace {
    fn has_slept(&self, now: Instant) -> bool {
        !self.is_waited_for && (self.is_news || self.is_overdue(now))
    }

    fn is_overdue(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) > self.pause + SLEPT_AFTER
    }
}

struct State {
    store: Store,
    cache: ScanCache,
    foreign: Rows,
    observer: Observer,
    facts: Box<dyn Facts + Send>,
    told: Option<Arc<View>>,
    out: Out,
    shared: Arc<Shared>,
    pauses: Backoff,
    complaint: Complaint,
    has_ticked: bool,
}

impl Scanner {
    /// The first scan starts at once.
    pub fn start(store: Store, settings: Settings, out: Out) -> io::Result<Scanner> {
        let Settings { own_id, stale_timeout, can_write } = settings;
        let facts = Box::new(HostFacts::new(store.root().to_owned(), can_write));
        let shared = Arc::new(Shared::new());
        let observer = Observer::new(own_id, stale_timeout);
        let state = State::new(store, observer, facts, out, shared.clone());
        Ok(Scanner { worker: Worker::start("scanner", 1, state)?, shared })
    }

    pub fn latest(&self) -> Arc<View> {
        self.shared.latest()
    }

    /// Whether the registry is read, and in time.
    pub fn health(&self) -> Result<(), String> {
        let view = self.latest();
        if let Some(error) = &view.error {
            return Err(error.clone());
        }
        let silence = view.scanned.unwrap_or(self.shared.started).elapsed();
        if silence > SCAN_TIME_MAX {
            return Err(format!("the registry folder has not answered for {} s", silence.as_secs()));
        }
        Ok(())
    }

    /// Whether this process is a gateway, which removes the files of stale instances.
    pub fn set_gateway(&self, is_gateway: bool) {
        self.shared.is_gateway.store(is_gateway, Ordering::Relaxed);
    }

    /// Looks as soon as it can, and then does `after`; not at all where another waits for the same already.
    pub fn look_soon(&self, after: Box<dyn FnOnce() + Send>) {
        let _ = self.worker.send(Nudge(after));
    }

    /// Looks now and waits for it; false if that took longer than `limit`.
    #[cfg(test)]
    pub fn look_now(&self, limit: Duration) -> bool {
        let (tell, told) = bounded(1);
        let nudge = Nudge(Box::new(move || {
            let _ = tell.send(());
        }));
        self.worker.send_within(nudge, limit) && told.recv_timeout(limit).is_ok()
    }

    /// For a process that was paused: `act` is done, once, when the scan is overdue, before anybody else gets an answer
    /// here. A registry that is slow is no such case, after the first time.
    pub fn on_waking(&self, act: impl FnOnce()) {
        let mut pace = lock(&self.shared.pace);
        if pace.has_slept(Instant::now()) {
            pace.is_waited_for = true;
            act();
        }
    }

    pub fn stop(&self) -> bool {
        self.worker.stop()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn new() -> Shared {
        let started = Instant::now();
        Shared {
            view: Mutex::new(Arc::new(View::unknown())),
            is_gateway: AtomicBool::new(false),
            started,
            pace: Mutex::new(Pace { seen: started, pause: Duration::ZERO, is_waited_for: false, is_news: false }),
        }
    }

    fn latest(&self) -> Arc<View> {
        lock(&self.view).clone()
    }

    fn set(&self, view: Arc<View>) {
        *lock(&self.view) = view;
    }

    /// A scan that began then has ended, and the next is due after this pause.
    fn looked(&self, began: Instant, pause: Duration) {
        let mut pace = lock(&self.pace);
        let is_news = !pace.is_waited_for && pace.is_overdue(began);
        let is_waited_for = pace.is_waited_for && began.elapsed() > SLEPT_AFTER;
        *pace = Pace { seen: began, pause, is_waited_for, is_news };
    }
}

impl Work for State {
    type Message = Nudge;

    fn receive(&mut self, Nudge(after): Nudge) {
        // Nobody who waits for the view waits for files to be removed.
        let (_, prunes) = self.look();
        after();
        self.prune(&prunes);
    }

    fn tick(&mut self) -> Duration {
        let (pause, prunes) = self.look();
        self.prune(&prunes);
        // So that processes started together do not scan together for ever.
        let share =
            if self.has_ticked { 1.0 } else { f64::from(u32::from_le_bytes(os::random_bytes())) / 2f64.powi(32) };
        self.has_ticked = true;
        pause.mul_f64(share)
    }
}

impl State {
    fn new(store: Store, observer: Observer, facts: Box<dyn Facts + Send>, out: Out, shared: Arc<Shared>) -> State {
        State {
            store,
            cache: ScanCache::default(),
            foreign: Rows::default(),
            observer,
            facts,
            told: None,
            out,
            shared,
            pauses: Backoff::new(SCAN_EVERY, SCAN_RETRY_MAX),
            complaint: Complaint::new(REGISTRY_RETRY_MAX),
            has_ticked: false,
        }
    }

    /// One scan and what follows from it; the pause until the next, and whose files can be removed.
    fn look(&mut self) -> (Duration, Vec<Prune>) {
        let began = Instant::now();
        let (pause, prunes) = self.look_at(began);
        self.shared.looked(began, pause);
        (pause, prunes)
    }

    fn look_at(&mut self, now: Instant) -> (Duration, Vec<Prune>) {
        let moment = Moment { now, wall: os::wall_clock() };
        let scanned = self.store.scan(&mut self.cache);
        metrics::REGISTRY_SCAN.record(now.elapsed());
        match scanned {
            Ok(scan) => {
                self.foreign.refresh(self.store.root());
                let (view, prunes) = self.observer.observe(&scan, &self.foreign, moment, self.facts.as_ref());
                if self.complaint.succeeded() {
                    log::info!("event=registry_read_again path={}", Quoted(&self.store.root().display()));
                }
                self.pauses.succeeded();
                self.tell(view);
                (SCAN_EVERY, prunes)
            }
            Err(error) => {
                metrics::REGISTRY_ERRORS.record(RegistryError::Read);
                self.tell_error(&error, moment);
                (self.pauses.failed(), Vec::new())
            }
        }
    }

    fn tell(&mut self, view: View) {
        count_skipped(&self.shared.latest().skipped, &view.skipped);
        let view = Arc::new(view);
        self.shared.set(view.clone());
        let has_news = self.told.as_ref().is_none_or(|told| !told.says_the_same(&view));
        if has_news && (view.complete || view.error.is_some()) {
            self.told = Some(view.clone());
            (self.out)(view);
        }
    }

    fn tell_error(&mut self, error: &StoreError, moment: Moment) {
        if self.complaint.failed(moment.now) {
            log::warn!("event=registry_not_read error={}", Quoted(&error));
        }
        let last = self.shared.latest();
        let view = self.observer.observe_failure(error.to_string(), moment, self.facts.as_ref());
        self.tell(View { skipped: last.skipped, scanned: last.scanned, ..view });
    }

    fn prune(&mut self, prunes: &[Prune]) {
        let is_gateway = self.shared.is_gateway.load(Ordering::Relaxed);
        let due = prunes.iter().filter(|prune| prune.death.is_for(is_gateway));
        for Prune { entry, death } in due.take(PRUNES_PER_SCAN_MAX) {
            let (id, dcc) = (&entry.instance_id, &entry.dcc_type);
            match self.store.remove_dead(entry) {
                Ok(true) => log::info!("event=instance_removed instance={id} dcc={} death={death:?}", Quoted(dcc)),
                Ok(false) => log::debug!("event=instance_kept instance={id}"),
                // Hidden it is in any case; tried again at the next scan.
                Err(error) => log::debug!("event=instance_not_removed instance={id} error={}", Quoted(&error)),
            }
        }
    }
}

/// Counts what is skipped now and was not before: a broken file counts once, not at every scan.
fn count_skipped(before: &Skipped, now: &Skipped) {
    for (kind, before, now) in [
        (RegistryError::Read, before.unreadable + before.not_files, now.unreadable + now.not_files),
        (RegistryError::Malformed, before.malformed, now.malformed),
        (RegistryError::TooLarge, before.too_large, now.too_large),
        (RegistryError::NewerSchema, before.newer_schema, now.newer_schema),
        (RegistryError::OverLimit, before.over_limit, now.over_limit),
        (RegistryError::Foreign, before.foreign, now.foreign),
    ] {
        metrics::REGISTRY_ERRORS.add(kind, now.saturating_sub(before) as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use crossbeam_channel::Receiver;

    use super::*;
    use crate::faults;
    use crate::heartbeat::Heartbeat;
    use crate::registry::entry::Status;
    use crate::registry::entry::tests::sample;
    use crate::registry::files::tests::Folder;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn start_in(folder: &Folder, own: Option<&str>, stale: Duration) -> (Scanner, Receiver<Arc<View>>) {
        let (send, views) = bounded(64);
        let can_write = Box::new(|| true);
        let settings = Settings { own_id: own.map(str::to_owned), stale_timeout: stale, can_write };
        let out = Box::new(move |view| drop(send.try_send(view)));
        (Scanner::start(Store::open(&folder.0), settings, out).expect("a thread can be started"), views)
    }

    fn next(views: &Receiver<Arc<View>>, scanner: &Scanner) -> Arc<View> {
        scanner.look_now(PATIENCE);
        views.recv_timeout(PATIENCE).expect("there is news")
    }

    fn ids(view: &View) -> Vec<&str> {
        view.instances.iter().map(|instance| instance.entry.instance_id.as_str()).collect()
    }

    #[test]
    fn what_comes_changes_and_goes_is_told_once() {
        let folder = Folder::new();
        let store = Store::open(&folder.0);
        let (scanner, views) = start_in(&folder, None, Duration::from_secs(30));
        assert!(next(&views, &scanner).instances.is_empty(), "the first complete scan is told");

        let beat = Heartbeat::start(store.clone(), sample("a"), Duration::from_millis(20), Box::new(|| true));
        let beat = beat.expect("it registers");
        let first = next(&views, &scanner);
        assert_eq!(ids(&first), ["a"]);
        let first_seq = first.instances[0].entry.heartbeat.seq;
        let patience = Instant::now() + PATIENCE;
        while scanner.latest().instances.iter().all(|instance| instance.entry.heartbeat.seq <= first_seq + 2) {
            assert!(Instant::now() < patience, "the latest view has fresh heartbeats");
            scanner.look_now(PATIENCE);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(views.is_empty(), "heartbeats are no news");

        beat.set_status(Status::Draining).expect("a good status");
        assert_eq!(next(&views, &scanner).instances[0].entry.status, Status::Draining);
        assert!(beat.stop());
        assert!(next(&views, &scanner).instances.is_empty());
        assert_eq!(scanner.health(), Ok(()));
        assert!(scanner.stop());
    }

    #[test]
    fn the_dead_of_this_host_are_removed_by_anybody_the_stale_by_a_gateway() {
        let folder = Folder::new();
        let store = Store::open(&folder.0);
        let mut child = Command::new("true").spawn().expect("true runs");
        let gone = crate::registry::entry::Entry { pid: child.id(), ..sample("gone") };
        child.wait().expect("true ends");
        let mut stale = sample("stale");
        stale.host_id = "elsewhere/1".to_owned();
        for entry in [&gone, &stale] {
            store.write_entry(entry).expect("an entry can be written");
            store.publish_tools(&entry.instance_id, b"[]").expect("a list can be written");
        }
        let (scanner, views) = start_in(&folder, None, Duration::from_millis(700));
        assert_eq!(ids(&next(&views, &scanner)), ["stale"], "provisionally live by its time");
        assert!(next(&views, &scanner).instances.is_empty(), "hidden when it went stale");
        assert_eq!(store.read_entry("gone").expect("readable"), None);
        assert!(!store.has_tools("gone"));
        std::thread::sleep(SCAN_EVERY * 2);
        assert!(store.has_tools("stale"), "not removed by a plain instance");
        scanner.set_gateway(true);
        let patience = Instant::now() + PATIENCE;
        while store.has_tools("stale") || store.read_entry("stale").expect("readable").is_some() {
            assert!(Instant::now() < patience, "removed by a gateway");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(scanner.stop());
    }

    #[test]
    fn who_has_slept_is_told_once_and_a_slow_registry_is_no_sleep() {
        let start = Instant::now();
        let pace = Pace { seen: start, pause: SCAN_EVERY, is_waited_for: false, is_news: false };
        let after = |pace: Pace, time: Duration| pace.has_slept(start + time);
        let late = SCAN_EVERY + SLEPT_AFTER + Duration::from_millis(1);
        assert!(!after(pace, SCAN_EVERY + SLEPT_AFTER) && after(pace, late));
        assert!(!after(Pace { pause: SCAN_RETRY_MAX, ..pace }, late), "it fails, and is left in peace for longer");
        assert!(!after(Pace { is_waited_for: true, ..pace }, late * 100));

        let folder = Folder::new();
        let (scanner, _views) = start_in(&folder, None, Duration::from_secs(30));
        scanner.look_now(PATIENCE);
        assert!(scanner.stop());
        let told = |scanner: &Scanner| {
            let mut told = false;
            scanner.on_waking(|| told = true);
            told
        };
        std::thread::sleep(late);
        assert!(told(&scanner) && !told(&scanner), "once");
        scanner.shared.looked(start, SCAN_EVERY);
        assert!(!told(&scanner), "the scan was slow");
        scanner.shared.looked(Instant::now(), SCAN_EVERY);
        std::thread::sleep(late);
        assert!(told(&scanner), "it was in time, and we have slept again");

        scanner.shared.looked(Instant::now(), SCAN_EVERY);
        assert!(!told(&scanner), "all is as usual");
        std::thread::sleep(late);
        scanner.shared.looked(Instant::now(), SCAN_EVERY);
        assert!(told(&scanner) && !told(&scanner), "the scan came first, and the lists may not know of it");
        scanner.shared.looked(Instant::now(), SCAN_EVERY);
        assert!(!told(&scanner), "it was waited for");
        std::thread::sleep(late);
        scanner.shared.looked(Instant::now(), SCAN_EVERY);
        scanner.shared.looked(Instant::now(), SCAN_EVERY);
        assert!(!told(&scanner), "nobody asked until the next scan");
    }

    /// Every file operation of looking and removing fails in turn: the living stay listed, what is unknown stays where it is,
    /// the dead are never listed again, and the next look has removed their files.
    #[test]
    fn each_file_operation_fails_once() {
        let mut child = Command::new("true").spawn().expect("true runs");
        let pid = child.id();
        child.wait().expect("true ends");
        let operations = faults::with_each_failure(|nth, failing| {
            let folder = Folder::new();
            let store = Store::open(&folder.0);
            for id in ["alive", "gone"] {
                store.publish_tools(id, b"[]").expect("a list can be written");
                store.write_entry(&sample(id)).expect("an entry can be written");
            }
            for name in ["junk.json", "notes.txt", ".gone.json.tmp.bak"] {
                fs::write(folder.0.join("instances").join(name), "somebody's").expect("written");
            }
            let shared = Arc::new(Shared::new());
            let facts = Box::new(HostFacts::new(folder.0.clone(), Box::new(|| true)));
            let observer = Observer::new(None, Duration::from_secs(30));
            let mut state = State::new(store.clone(), observer, facts, Box::new(|_| {}), shared.clone());
            state.tick();
            assert_eq!(ids(&shared.latest()), ["alive", "gone"]);
            store.write_entry(&crate::registry::entry::Entry { pid, ..sample("gone") }).expect("written");
            failing(&mut || {
                state.tick();
            });
            let view = shared.latest();
            assert!(ids(&view).contains(&"alive"), "operation {nth}");
            let is_told = view.error.is_some() || view.skipped.unreadable > 0;
            assert!(is_told || ids(&view) == ["alive"], "operation {nth}: the dead are listed and nothing is told");
            state.tick();
            assert_eq!(ids(&shared.latest()), ["alive"], "operation {nth}");
            assert!(shared.latest().error.is_none());
            state.tick();
            assert!(
                store.read_entry("gone").expect("readable").is_none() && !store.has_tools("gone"),
                "operation {nth}"
            );
            assert!(
                store.read_entry("alive").expect("readable").is_some() && store.has_tools("alive"),
                "operation {nth}"
            );
            for name in ["junk.json", "notes.txt", ".gone.json.tmp.bak"] {
                assert!(folder.0.join("instances").join(name).exists(), "operation {nth}: {name}");
            }
        });
        assert!(operations > 12, "a scan, a look before removing, four removals: {operations} operations");
    }

    #[test]
    fn a_failing_registry_keeps_the_last_view_and_recovers() {
        let folder = Folder::new();
        let store = Store::open(&folder.0);
        store.write_entry(&sample("a")).expect("an entry can be written");
        let (scanner, views) = start_in(&folder, None, Duration::from_secs(30));
        assert_eq!(ids(&next(&views, &scanner)), ["a"]);
        let (there, aside) = (folder.0.join("instances"), folder.0.join("aside"));
        fs::rename(&there, &aside).and_then(|()| fs::write(&there, "")).expect("a file in the place of the folder");
        let failing = next(&views, &scanner);
        // Between the two the folder may be missing for one scan, which is no news.
        assert_eq!(ids(&failing), ["a"]);
        assert!(failing.error.is_some() && scanner.health().is_err());
        fs::remove_file(&there).and_then(|()| fs::rename(&aside, &there)).expect("the folder comes back");
        let again = next(&views, &scanner);
        assert_eq!((ids(&again), again.error.is_none()), (vec!["a"], true));
        assert_eq!(scanner.health(), Ok(()));
        assert!(scanner.stop());
    }
}
