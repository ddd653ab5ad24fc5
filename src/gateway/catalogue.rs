//! What the gateway offers: one immutable snapshot of all live instances and their tools.
//!
//! The scanner's views come in; a changed tool list is read from the registry, or asked for over HTTP where an instance
//! publishes none. Then a new snapshot is put in place, and only after that the change is told to the streams.
//!
//! **Invariant**: no request waits for an instance here.
//! **Thread**: `catalogue` owns the builder; `fetch-*` threads ask instances and report back.
//! **Bounds**: `TOOLS_PER_INSTANCE_MAX`, `LIST_BYTES_MAX`, `TOOLS_FETCH_TIME_MAX`, `FAN_OUT_THREADS_MAX` fetches at a
//! time, `DEATH_CONFIRMED_MAX`.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::endpoint::access::Access;
use crate::gateway::current::Current;
use crate::gateway::known::{Fetch, Known};
use crate::gateway::names;
use crate::gateway::offered::Offered;
use crate::gateway::pieces::Key;
use crate::gateway::snapshot::{Snapshot, Told};
use crate::hub::Hub;
use crate::limits::{
    DEATH_CONFIRMED_MAX, FAN_OUT_THREADS_MAX, INBOX_MAX, LIST_BYTES_MAX, TOOLS_FETCH_EVERY, WORKER_STOP_MAX,
};
use crate::mcp::lists::ListObject;
use crate::metrics;
use crate::registry::store::Store;
use crate::registry::{Instance, View};
use crate::worker::{self, Work, Worker};

/// Where the snapshot is kept.
pub struct Catalogue {
    current: Current,
    worker: OnceLock<Worker<Order>>,
}

pub struct CatalogueSettings {
    pub store: Store,
    /// The gateway's own tools, which come first.
    pub own_tools: Vec<ListObject>,
    /// `--tool-list meta`: list the own tools alone; the others can be called all the same.
    pub own_tools_only: bool,
    /// Holds the token for instances of our own kind.
    pub access: Arc<Access>,
}

/// The warm-up is over and the registry has not been read even once.
#[derive(Debug)]
pub struct NotReady;

enum Order {
    View(Arc<View>),
    Fetched {
        key: Key,
        offered: Option<Offered>,
    },
    /// Something was loaded there: ask again soon.
    AskAgain {
        instance_id: String,
    },
    /// Not to be shown: it has died before our eyes.
    Hide {
        instance_id: String,
    },
    /// Lists need not wait any longer.
    Release,
}

impl Catalogue {
    pub fn start(settings: CatalogueSettings, hub: Arc<Hub>) -> io::Result<Arc<Catalogue>> {
        let catalogue = Arc::new(Catalogue {
            current: Current::new(Snapshot::build(&settings.own_tools, settings.own_tools_only, &[], false, None)),
            worker: OnceLock::new(),
        });
        let builder = Builder {
            settings,
            hub,
            out: Arc::downgrade(&catalogue),
            view: None,
            hidden: None,
            is_stale: false,
            known: HashMap::new(),
            complete: false,
            left_out: 0,
        };
        let worker = Worker::start("catalogue", INBOX_MAX, builder)?;
        let _ = catalogue.worker.set(worker);
        Ok(catalogue)
    }

    /// Takes what the scanner saw.
    pub fn see(&self, view: Arc<View>) {
        self.send(Order::View(view));
    }

    /// Tools of this instance may have changed without a word in the registry.
    pub fn ask_again(&self, instance_id: &str) {
        self.send(Order::AskAgain { instance_id: instance_id.to_owned() });
    }

    /// Lists wait from now on until `release`, for at most `limit`. The instance that served until it died is left out.
    pub fn hold(&self, limit: Duration, died: Option<&str>) {
        self.current.hold(limit);
        if let Some(instance_id) = died {
            self.send(Order::Hide { instance_id: instance_id.to_owned() });
        }
    }

    /// What was seen so far is to be in the snapshot; then lists wait no longer.
    pub fn release(&self) {
        self.send(Order::Release);
    }

    /// The snapshot as it is.
    pub fn now(&self) -> Arc<Snapshot> {
        self.current.now()
    }

    /// The snapshot, after the fresh look of a new gateway.
    pub fn settled(&self) -> Arc<Snapshot> {
        self.current.settled()
    }

    /// The same, held back also while the first one is not complete: less than everything would be taken for
    /// everything.
    pub fn warm(&self) -> Result<Arc<Snapshot>, NotReady> {
        let snapshot = self.current.warm();
        if snapshot.complete || !snapshot.members.is_empty() { Ok(snapshot) } else { Err(NotReady) }
    }

    pub fn is_warm(&self) -> bool {
        self.now().complete
    }

    pub fn stop(&self) {
        if let Some(worker) = self.worker.get() {
            worker.stop();
        }
    }

    fn send(&self, order: Order) {
        if let Some(worker) = self.worker.get() {
            worker.send_within(order, WORKER_STOP_MAX);
        }
    }
}

/// What the thread owns.
struct Builder {
    settings: CatalogueSettings,
    hub: Arc<Hub>,
    out: Weak<Catalogue>,
    view: Option<Arc<View>>,
    hidden: Option<Hidden>,
    /// The snapshot is from before somebody was hidden, or shown again.
    is_stale: bool,
    known: HashMap<Key, Known>,
    complete: bool,
    /// What the last snapshot left out of its lists, which is logged once.
    left_out: usize,
}

/// One that has died before our eyes: left out until the registry says the same, or this time.
struct Hidden {
    instance_id: String,
    /// The life that ended. `None`: it began and ended between two of our looks, so that no view has shown it yet.
    life: Option<Key>,
    until: Instant,
}

impl Work for Builder {
    type Message = Order;

    fn receive(&mut self, order: Order) {
        match order {
            Order::View(view) => {
                let is_news = !self.shows_the_same(&view);
                self.view = Some(view);
                self.find_hidden();
                // Such as the death of one that is hidden: lists that are held shall not wait for it.
                if !is_news {
                    return;
                }
                self.read_tools();
            }
            // At once: most looks that follow have no more news than that, and lists are held until they end.
            Order::Hide { instance_id } => {
                self.hide(instance_id);
                return self.leave_out();
            }
            Order::Fetched { key, offered } => self.take_fetched(&key, offered),
            Order::AskAgain { instance_id } => self.ask_again(&instance_id),
            Order::Release => {
                // Whom the look has not shown is not there to be left out; a later life would be taken for it.
                self.hidden.take_if(|hidden| hidden.life.is_none());
                self.leave_out();
                self.out.upgrade().inspect(|out| out.current.release());
                return;
            }
        }
        self.start_fetches();
        self.rebuild();
    }

    fn tick(&mut self) -> Duration {
        for known in self.known.values() {
            known.upstream.pool().close_stale();
        }
        if self.hidden.take_if(|hidden| hidden.until <= Instant::now()).is_some() {
            // The registry goes on saying that it lives.
            self.is_stale = true;
        }
        // Also where the look does not come to an end.
        self.leave_out();
        self.start_fetches();
        Duration::from_millis(500)
    }
}

impl Builder {
    /// Reads the tool lists that changed, and forgets the instances that are gone.
    fn read_tools(&mut self) {
        let Some(view) = self.view.clone() else { return };
        let live: HashMap<Key, &Arc<Instance>> =
            self.shown(&view).map(|instance| (Key::of(instance), instance)).collect();
        self.known.retain(|key, _| live.contains_key(key));
        let access = &self.settings.access;
        for (key, instance) in live {
            let known = self.known.entry(key).or_insert_with(|| Known::new(Arc::clone(instance), access));
            if !Arc::ptr_eq(&known.upstream.instance, instance) {
                known.upstream = Arc::new(known.upstream.with(Arc::clone(instance)));
            }
            known.read(&self.settings.store);
        }
    }

    fn hide(&mut self, instance_id: String) {
        let hidden = Hidden { instance_id, life: None, until: Instant::now() + DEATH_CONFIRMED_MAX };
        // Another one is shown again.
        self.is_stale |= self.hidden.replace(hidden).is_some();
        self.find_hidden();
    }

    /// Puts a snapshot in place of one that shows who is hidden, or does not show who is no longer.
    fn leave_out(&mut self) {
        if self.is_stale {
            self.read_tools();
            self.rebuild();
        }
    }

    /// A later life under the same id is shown.
    fn find_hidden(&mut self) {
        let (Some(Hidden { instance_id, life: life @ None, .. }), Some(view)) = (&mut self.hidden, &self.view) else {
            return;
        };
        let died = view.instances.iter().find(|instance| instance.entry.instance_id == *instance_id);
        *life = died.map(|instance| Key::of(instance));
        self.is_stale |= life.is_some();
    }

    fn shown<'a>(&self, view: &'a View) -> impl Iterator<Item = &'a Arc<Instance>> {
        let hidden = self.hidden.as_ref().and_then(|hidden| hidden.life.clone());
        view.instances.iter().filter(move |instance| hidden.as_ref().is_none_or(|hidden| Key::of(instance) != *hidden))
    }

    fn shows_the_same(&self, view: &View) -> bool {
        let Some(before) = &self.view else { return false };
        let same = |(one, other): (&Arc<Instance>, &Arc<Instance>)| {
            one.origin == other.origin && one.entry.says_the_same(&other.entry)
        };
        before.complete == view.complete
            && self.shown(before).count() == self.shown(view).count()
            && self.shown(before).zip(self.shown(view)).all(same)
    }

    fn take_fetched(&mut self, key: &Key, offered: Option<Offered>) {
        let Some(known) = self.known.get_mut(key) else { return };
        // It may have published its list meanwhile, which counts more than an answer that is older.
        if matches!(known.fetch, Fetch::NotNeeded) {
            return;
        }
        known.answered = true;
        known.fetch = Fetch::Due(Instant::now() + TOOLS_FETCH_EVERY);
        if let Some(offered) = offered {
            known.offers(offered);
        }
    }

    fn ask_again(&mut self, instance_id: &str) {
        let due = Instant::now();
        for known in self.known.values_mut() {
            if known.upstream.instance.entry.instance_id == instance_id && matches!(known.fetch, Fetch::Due(_)) {
                known.fetch = Fetch::Due(due);
            }
        }
    }

    fn start_fetches(&mut self) {
        let now = Instant::now();
        let mut under_way = self.known.values_mut().filter_map(|known| known.fetch.settle(now)).count();
        for (key, known) in &mut self.known {
            if under_way >= FAN_OUT_THREADS_MAX {
                return;
            }
            if !matches!(known.fetch, Fetch::Due(due) if due <= now) {
                continue;
            }
            let (key, upstream, out) = (key.clone(), Arc::clone(&known.upstream), self.out.clone());
            let name = format!("fetch-{}", names::short(&key.instance_id));
            let started = worker::spawn(&name, move || {
                let offered = Offered::fetch(&upstream);
                if let Some(out) = out.upgrade() {
                    out.send(Order::Fetched { key, offered });
                }
            });
            if started.is_err() {
                return; // no thread to be had now: it stays due
            }
            known.fetch = Fetch::UnderWay { since: now };
            under_way += 1;
        }
    }

    /// Puts a new snapshot in place if anything visible changed, then tells the streams.
    fn rebuild(&mut self) {
        let (Some(view), Some(out)) = (&self.view, self.out.upgrade()) else { return };
        let told: Vec<Told<'_>> = self
            .shown(view)
            .filter_map(|instance| self.known.get(&Key::of(instance)))
            .map(|known| Told { upstream: &known.upstream, pieces: &known.pieces })
            .collect();
        self.complete = self.complete || (view.complete && self.known.values().all(|known| known.answered));
        let CatalogueSettings { own_tools, own_tools_only, .. } = &self.settings;
        let snapshot = Snapshot::build(own_tools, *own_tools_only, &told, self.complete, Some(&out.now()));
        metrics::instances(self.shown(view).map(|instance| instance.dcc()));
        metrics::TOOLS.set(snapshot.tool_count() as i64);
        if snapshot.left_out() > 0 && self.left_out != snapshot.left_out() {
            log::warn!("event=lists_too_large left_out={} limit={LIST_BYTES_MAX}", snapshot.left_out());
        }
        self.left_out = snapshot.left_out();
        self.is_stale = false;
        let state = snapshot.state;
        out.current.put(snapshot);
        self.hub.publish(state);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::registry::Origin;
    use crate::registry::entry::tests::sample;
    use crate::registry::files::tests::Folder;
    use crate::session::State;

    fn view(ids: &[&str]) -> Arc<View> {
        let instance = |id: &&str| {
            Arc::new(Instance { entry: Arc::new(sample(id)), origin: Origin::Ours, beat_seen: Instant::now() })
        };
        Arc::new(View { instances: ids.iter().map(instance).collect(), complete: true, ..View::unknown() })
    }

    /// Found by `make bench-takeover`: a gateway that had come and died between two looks of its successor was listed.
    #[test]
    fn who_has_died_is_left_out_also_where_only_the_look_that_follows_shows_it() {
        let folder = Folder::new();
        let access =
            Access::new(IpAddr::V4(Ipv4Addr::LOCALHOST), Vec::new(), Vec::new(), None).expect("there is no file");
        let (store, access) = (Store::open(&folder.0), Arc::new(access));
        let settings = CatalogueSettings { store, own_tools: Vec::new(), own_tools_only: false, access };
        let hub = Hub::start(State::default()).expect("a thread can be had");
        let catalogue = Catalogue::start(settings, hub).expect("a thread can be had");
        let listed = |died, seen: &[&[&str]]| {
            catalogue.hold(Duration::from_secs(60), Some(died));
            seen.iter().for_each(|ids| catalogue.see(view(ids)));
            catalogue.release();
            let members: Vec<String> =
                catalogue.settled().members.iter().map(|member| member.id().to_owned()).collect();
            members
        };
        assert_eq!(listed("new", &[&["old"], &["new", "old"]]), ["old"]);
        assert_eq!(listed("old", &[]), ["new"], "and one that is shown goes, with no view at all");
        assert_eq!(listed("other", &[]), ["new", "old"], "nobody was to be seen");
        catalogue.see(view(&["new", "old", "other"]));
        assert_eq!(listed("none", &[]), ["new", "old", "other"], "it is another life");

        catalogue.hold(Duration::from_secs(60), Some("new"));
        let end = Instant::now() + DEATH_CONFIRMED_MAX;
        while catalogue.now().members.len() == 3 {
            assert!(Instant::now() < end, "it is left out, though the look does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        catalogue.stop();
    }
}
