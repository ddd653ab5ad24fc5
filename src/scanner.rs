//! Looks at the registry again and again, and tells what came, went or changed.
//!
//! `latest()` is the newest view, heartbeats included; `out` gets a view only when it says something new.
//!
//! **Invariant**: a registry that fails takes nothing away: the last view stays, with the error in it.
//! **Thread**: `scanner` owns the observer and is the only one that waits for the folder. When that hangs, `latest()`
//! and `health()` still answer.
//! **Bounds**: inbox of one, as two nudges are one; `SCAN_EVERY`, `SCAN_RETRY_MAX`, `PRUNES_PER_SCAN_MAX`.
//! Left out on purpose: waiting for file events, which network file systems do not have.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backoff::{Backoff, Complaint};
use crate::limits::{PRUNES_PER_SCAN_MAX, REGISTRY_RETRY_MAX, SCAN_EVERY, SCAN_RETRY_MAX, SCAN_TIME_MAX};
use crate::os;
use crate::registry::facts::{Facts, HostFacts};
use crate::registry::foreign::Rows;
use crate::registry::store::{ScanCache, Store, StoreError};
use crate::registry::{Death, Moment, Observer, Prune, View};
use crate::worker::{Work, Worker};

/// What takes the views; it runs on the thread `scanner` and must not wait.
pub type Out = Box<dyn Fn(Arc<View>) + Send>;

#[derive(Clone, Debug)]
pub struct Settings {
    /// The own instance, shown live always.
    pub own_id: Option<String>,
    pub stale_timeout: Duration,
}

pub struct Scanner {
    worker: Worker<Nudge>,
    shared: Arc<Shared>,
}

/// "Look now."
struct Nudge;

struct Shared {
    view: Mutex<Arc<View>>,
    is_gateway: AtomicBool,
    started: Instant,
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
        let facts = Box::new(HostFacts::new(store.root().to_owned()));
        let view = Mutex::new(Arc::new(View::unknown()));
        let shared = Arc::new(Shared { view, is_gateway: AtomicBool::new(false), started: Instant::now() });
        let state = State::new(store, settings, facts, out, shared.clone());
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

    /// Looks now, not only when the time has come.
    pub fn nudge(&self) {
        // Full: it is about to look anyway.
        let _ = self.worker.send(Nudge);
    }

    pub fn stop(&self) -> bool {
        self.worker.stop()
    }
}

impl Shared {
    fn latest(&self) -> Arc<View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, view: Arc<View>) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

impl Work for State {
    type Message = Nudge;

    fn receive(&mut self, _: Nudge) {
        self.look();
    }

    fn tick(&mut self) -> Duration {
        let pause = self.look();
        // So that processes started together do not scan together for ever.
        let share =
            if self.has_ticked { 1.0 } else { f64::from(u32::from_le_bytes(os::random_bytes())) / 2f64.powi(32) };
        self.has_ticked = true;
        pause.mul_f64(share)
    }
}

impl State {
    fn new(store: Store, settings: Settings, facts: Box<dyn Facts + Send>, out: Out, shared: Arc<Shared>) -> State {
        State {
            store,
            cache: ScanCache::default(),
            foreign: Rows::default(),
            observer: Observer::new(settings.own_id, settings.stale_timeout),
            facts,
            told: None,
            out,
            shared,
            pauses: Backoff::new(SCAN_EVERY, SCAN_RETRY_MAX),
            complaint: Complaint::new(REGISTRY_RETRY_MAX),
            has_ticked: false,
        }
    }

    /// One scan and what follows from it; the pause until the next.
    fn look(&mut self) -> Duration {
        let moment = Moment { now: Instant::now(), wall: os::wall_clock() };
        match self.store.scan(&mut self.cache) {
            Ok(scan) => {
                self.foreign.refresh(self.store.root());
                let (view, prunes) = self.observer.observe(&scan, &self.foreign, moment, self.facts.as_ref());
                if self.complaint.succeeded() {
                    log::info!("registry can be read again path={}", self.store.root().display());
                }
                self.pauses.succeeded();
                self.tell(view);
                self.prune(&prunes);
                SCAN_EVERY
            }
            Err(error) => {
                self.tell_error(&error, moment.now);
                self.pauses.failed()
            }
        }
    }

    fn tell(&mut self, view: View) {
        let view = Arc::new(view);
        self.shared.set(view.clone());
        let has_news = self.told.as_ref().is_none_or(|told| !told.says_the_same(&view));
        if has_news && (view.complete || view.error.is_some()) {
            self.told = Some(view.clone());
            (self.out)(view);
        }
    }

    fn tell_error(&mut self, error: &StoreError, now: Instant) {
        if self.complaint.failed(now) {
            log::warn!("registry cannot be read error=\"{error}\"");
        }
        let last = self.shared.latest();
        self.tell(View { error: Some(error.to_string()), ..View::clone(&last) });
    }

    fn prune(&mut self, prunes: &[Prune]) {
        let is_gateway = self.shared.is_gateway.load(Ordering::Relaxed);
        let due = prunes.iter().filter(|prune| is_gateway || prune.death == Death::ProcessGone);
        for Prune { entry, death } in due.take(PRUNES_PER_SCAN_MAX) {
            let (id, dcc) = (&entry.instance_id, &entry.dcc_type);
            match self.store.remove_dead(entry) {
                Ok(true) => log::info!("dead instance removed instance={id} dcc={dcc} death={death:?}"),
                Ok(false) => log::debug!("instance changed before its removal instance={id}"),
                // Hidden it is in any case; tried again at the next scan.
                Err(error) => log::debug!("dead instance not removed instance={id} error=\"{error}\""),
            }
        }
    }
}
