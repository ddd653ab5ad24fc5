//! A seeded simulation of owners and observers on one folder: skewed clocks, pauses, crashes between any two steps,
//! restarts, late and reordered views, a folder that nobody can write, hosts that are cut off from it.
//!
//! **Invariant**, checked after every scan: whoever lives and can write is listed, once others could have seen it; who is
//! dead, or cut off, is not, the stale timeout and two scans later. At the end, in peace: exactly those who live have
//! files and are listed, by everybody, under one id each.
//! **Bounds**: `SEEDS` runs (1,000 unless said), on all processors; `SEED` has one again.
//! Left out on purpose: files and threads; only decisions are simulated.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::entry::tests::{Random, sample};
use super::store::Found;
use super::*;

const STALE: f64 = 30.0;
const BEAT: f64 = 5.0;
const SCAN: f64 = 0.5;
const STEP: f64 = 0.25;
const CHAOS: f64 = 150.0;
const PEACE: f64 = 90.0;
const EPOCH: f64 = 1_795_000_000.0;
/// What others know is so old at most.
const LATE_VIEWS: usize = 8;
const LATE: f64 = LATE_VIEWS as f64 * STEP;
/// From the moment that a node can write until all must list it: one beat to be seen, another that proves it where no clock
/// and no port has by then, the lateness of views, some scans.
const NOTICED: f64 = 2.0 * BEAT + LATE + 4.0 * SCAN;
/// From the last sign of life until nobody lists it any more; a silence counts two seconds a scan at most, and what could
/// not be judged by time is judged by its port, which is asked every five seconds.
const FORGOTTEN: f64 = STALE + LATE + 2.0 * SCAN + 6.0;

/// A process and what it sees.
struct Node {
    number: usize,
    entry: Entry,
    host: usize,
    is_alive: bool,
    is_gateway: bool,
    skew: f64,
    paused_until: f64,
    next_beat: f64,
    next_scan: f64,
    can_write: bool,
    observer: Observer,
    /// Removals it has decided on, and when it does what it has looked at before: a pause can be in between.
    removing: Vec<(usize, Arc<Entry>, f64)>,
    /// Since when it lives, is awake and can write; and since when it has not.
    well_since: f64,
    ill_since: f64,
}

struct Sky {
    random: Random,
    seed: u64,
    time: f64,
    start: Instant,
    nodes: Vec<Node>,
    folder: Folder,
    past: Vec<Folder>,
    full_until: f64,
    cut_until: Vec<f64>,
    next_pid: u32,
    in_peace: bool,
}

/// The entry of each node, if it is there.
type Folder = Vec<Option<Arc<Entry>>>;

/// What one observer can find out at one moment.
struct Truth<'a> {
    host: String,
    can_write: bool,
    is_cut: bool,
    /// Process id and port of those who live, and whether they can be reached: paused or not, but not where they are cut off.
    alive: Vec<(u32, u16, bool)>,
    /// Whether an answer is there already.
    chance: &'a RefCell<Random>,
}

impl Facts for Truth<'_> {
    fn host_id(&self) -> &str {
        &self.host
    }

    fn process_is_gone(&self, pid: u32, _: Option<u64>) -> bool {
        self.alive.iter().all(|(alive, _, _)| *alive != pid)
    }

    fn is_this_host(&self, _: &str) -> bool {
        false
    }

    fn port_answers(&self, _: &str, port: u16, _: Instant) -> Option<bool> {
        let is_there = self.chance.borrow_mut().below(2) == 0;
        is_there.then(|| !self.is_cut && self.alive.iter().any(|(_, open, is_reached)| *open == port && *is_reached))
    }

    fn can_write(&self) -> bool {
        self.can_write
    }

    fn lock_is_held(&self, _: &str) -> Option<bool> {
        None
    }
}

#[test]
fn simulation() {
    for_each_seed(|seed| Sky::new(seed).run());
}

/// Runs what `SEEDS` and `SEED` ask for, on all processors. Whoever fails says its seed.
pub fn for_each_seed(run: impl Fn(u64) + Sync) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, last) = number("SEED").map_or((0, number("SEEDS").unwrap_or(1000)), |seed| (seed, seed + 1));
    let next = AtomicU64::new(first);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last {
                        return;
                    }
                    run(seed);
                }
            });
        }
    });
}

impl Sky {
    fn new(seed: u64) -> Sky {
        let mut random = Random(seed);
        let count = 2 + random.below(6) as usize;
        let hosts = 1 + random.below(3) as usize;
        let mut sky = Sky {
            random,
            seed,
            time: 0.0,
            start: Instant::now(),
            nodes: Vec::new(),
            folder: vec![None; count],
            past: Vec::new(),
            full_until: 0.0,
            cut_until: vec![0.0; hosts],
            next_pid: 100,
            in_peace: false,
        };
        for number in 0..count {
            let node = sky.birth(number);
            sky.nodes.push(node);
        }
        sky
    }

    fn birth(&mut self, number: usize) -> Node {
        let skew = self.random.below(20_000) as f64 - 10_000.0;
        let host = self.random.below(self.cut_until.len() as u64) as usize;
        self.next_pid += 1;
        let mut entry = sample(&format!("n{number}"));
        (entry.pid, entry.pid_start, entry.port) = (self.next_pid, None, 1000 + number as u16);
        entry.host_id = format!("host/{host}");
        entry.registered_at = EPOCH + skew + self.time;
        entry.heartbeat = entry::Beat { seq: 0, at: 0.0 };
        let is_gateway = number == 0 || self.random.below(2) == 0;
        let observer = Observer::new(Some(entry.instance_id.clone()), Duration::from_secs_f64(STALE));
        Node {
            number,
            entry,
            host,
            is_alive: true,
            is_gateway,
            skew,
            paused_until: 0.0,
            next_beat: self.time,
            next_scan: self.time + self.random.below(500) as f64 / 1000.0,
            can_write: true,
            observer,
            removing: Vec::new(),
            well_since: self.time,
            ill_since: f64::INFINITY,
        }
    }

    fn run(mut self) {
        while self.time < CHAOS + PEACE {
            self.time += STEP;
            self.in_peace = self.time > CHAOS;
            self.happen();
            for number in 0..self.nodes.len() {
                self.act(number);
            }
            self.past.push(self.folder.clone());
            let old = self.past.len().saturating_sub(LATE_VIEWS);
            self.past.drain(..old);
        }
        self.check_the_end();
    }

    /// Draws what goes wrong in this step.
    fn happen(&mut self) {
        if self.in_peace {
            self.full_until = self.full_until.min(self.time);
            self.cut_until.iter_mut().for_each(|until| *until = until.min(self.time));
            self.nodes.iter_mut().for_each(|node| node.paused_until = node.paused_until.min(self.time));
        } else {
            let length = |random: &mut Random| 2.0 + random.below(60) as f64;
            match self.random.below(600) {
                0 => self.full_until = self.time + length(&mut self.random),
                1 | 2 => {
                    let host = self.random.below(self.cut_until.len() as u64) as usize;
                    self.cut_until[host] = self.time + length(&mut self.random);
                }
                _ => {}
            }
            for number in 0..self.nodes.len() {
                match self.random.below(1500) {
                    0 | 1 => self.nodes[number].is_alive = false,
                    2 | 3 => self.nodes[number].paused_until = self.time + length(&mut self.random),
                    4..20 if !self.nodes[number].is_alive => self.restart(number),
                    _ => {}
                }
            }
        }
        for number in 0..self.nodes.len() {
            let is_well = self.is_well(number);
            let node = &mut self.nodes[number];
            match is_well {
                true if node.well_since.is_infinite() => (node.well_since, node.ill_since) = (self.time, f64::INFINITY),
                false if node.ill_since.is_infinite() => (node.ill_since, node.well_since) = (self.time, f64::INFINITY),
                _ => {}
            }
        }
    }

    /// The same id in another process, which has seen nothing yet.
    fn restart(&mut self, number: usize) {
        let before = (self.nodes[number].well_since, self.nodes[number].ill_since);
        let mut node = self.birth(number);
        (node.well_since, node.ill_since) = before;
        self.nodes[number] = node;
    }

    fn is_cut(&self, number: usize) -> bool {
        self.time < self.cut_until[self.nodes[number].host]
    }

    fn is_well(&self, number: usize) -> bool {
        let node = &self.nodes[number];
        node.is_alive && self.time >= node.paused_until && !self.is_cut(number) && self.time >= self.full_until
    }

    fn act(&mut self, number: usize) {
        let node = &self.nodes[number];
        if !node.is_alive || self.time < node.paused_until {
            return;
        }
        self.remove(number);
        if self.time >= self.nodes[number].next_beat {
            self.beat(number);
        }
        if self.time >= self.nodes[number].next_scan {
            self.look(number);
            self.nodes[number].next_scan = self.time + SCAN;
        }
    }

    fn beat(&mut self, number: usize) {
        let can_write = self.time >= self.full_until && !self.is_cut(number);
        let time = self.time;
        let node = &mut self.nodes[number];
        node.can_write = can_write;
        node.next_beat = time + if can_write { BEAT } else { 1.0 };
        if can_write {
            node.entry.heartbeat = entry::Beat { seq: node.entry.heartbeat.seq + 1, at: EPOCH + node.skew + time };
            self.folder[number] = Some(Arc::new(node.entry.clone()));
        }
    }

    /// Removes what was looked at before, and looks at it once more. Between that and the removal there is no step here; that
    /// the system could still let somebody write in between is drawn, and costs the owner its entry until its next beat.
    fn remove(&mut self, number: usize) {
        let (is_cut, time) = (self.is_cut(number), self.time);
        let is_due = |(_, _, at): &(usize, Arc<Entry>, f64)| *at <= time;
        let due: Vec<_> = self.nodes[number].removing.extract_if(.., |removing| is_due(removing)).collect();
        for (dead, entry, _) in due.iter().filter(|_| !is_cut) {
            let is_unlucky = self.random.below(10) == 0;
            if !is_unlucky && !self.is_still(*dead, entry) {
                continue;
            }
            self.folder[*dead] = None;
            let owner = &mut self.nodes[*dead];
            if owner.well_since.is_finite() {
                owner.well_since = time;
            }
        }
    }

    fn is_still(&self, number: usize, seen: &Entry) -> bool {
        self.folder[number].as_ref().is_some_and(|there| {
            there.has_same_owner(seen)
                && there.heartbeat.seq == seen.heartbeat.seq
                && there.registered_at == seen.registered_at
        })
    }

    fn look(&mut self, number: usize) {
        let chance = RefCell::new(Random(self.random.next()));
        let is_cut = self.is_cut(number);
        let is_reached = |node: &Node| self.time >= self.cut_until[node.host];
        let alive = self.nodes.iter().filter(|node| node.is_alive);
        let alive = alive.map(|node| (node.entry.pid, node.entry.port, is_reached(node))).collect();
        let node = &self.nodes[number];
        let host = format!("host/{}", node.host);
        let facts = Truth { host, can_write: node.can_write, is_cut, alive, chance: &chance };
        let now = self.start + Duration::from_secs_f64(self.time);
        let moment = Moment { now, wall: EPOCH + node.skew + self.time };
        let (view, prunes) = if is_cut {
            (self.nodes[number].observer.observe_failure("cut off".to_owned(), moment, &facts), Vec::new())
        } else {
            let scan = self.view();
            self.nodes[number].observer.observe(&scan, &Rows::default(), moment, &facts)
        };
        let due = prunes.into_iter().filter(|prune| self.nodes[number].is_gateway || prune.death == Death::ProcessGone);
        let dead: Vec<Arc<Entry>> = due.map(|prune| prune.entry).collect();
        for seen in dead {
            let of = self.nodes.iter().find(|node| node.entry.instance_id == seen.instance_id);
            let of = of.expect("every entry is a node's").number;
            if self.is_still(of, &seen) && self.random.below(10) > 0 {
                let pause = if self.random.below(4) == 0 { self.random.below(8) as f64 * STEP } else { 0.0 };
                self.nodes[number].removing.push((of, seen, self.time + pause));
            }
        }
        self.check(number, &view);
    }

    /// The folder as somebody sees it: each entry as of some moment of the last seconds.
    fn view(&mut self) -> Scan {
        let mut found = Vec::new();
        for number in 0..self.nodes.len() {
            let back = self.random.below(1 + self.past.len() as u64) as usize;
            let then = if back == 0 { &self.folder } else { &self.past[self.past.len() - back] };
            if let Some(entry) = &then[number] {
                found.push(Found { entry: entry.clone(), modified: 0.0, readable: true });
            }
        }
        Scan { found, ..Scan::default() }
    }

    fn check(&self, number: usize, view: &View) {
        let listed: Vec<&str> = view.instances.iter().map(|instance| instance.entry.instance_id.as_str()).collect();
        let observer = &self.nodes[number];
        let awake_for = self.time - observer.well_since;
        for (other, node) in self.nodes.iter().enumerate() {
            let id = node.entry.instance_id.as_str();
            let is_listed = listed.contains(&id);
            assert_eq!(listed.iter().filter(|listed| **listed == id).count(), usize::from(is_listed), "one place each");
            let well_for = self.time - node.well_since.max(observer.well_since);
            assert!(
                is_listed || !(self.is_well(other) && self.is_well(number) && well_for > NOTICED),
                "{id} is well since {} and not listed by n{number} at {}; SEED={}",
                node.well_since,
                self.time,
                self.seed
            );
            // One that is paused, or cannot write because nobody can, is judged by its port, which the system keeps open.
            let is_away = !node.is_alive || self.is_cut(other);
            let away_for = (self.time - node.ill_since).min(awake_for);
            assert!(
                !is_listed || other == number || !is_away || away_for <= FORGOTTEN,
                "{id} is away since {} and listed by n{number} at {}; SEED={}",
                node.ill_since,
                self.time,
                self.seed
            );
        }
    }

    fn check_the_end(&mut self) {
        let has_gateway = self.nodes.iter().any(|node| node.is_alive && node.is_gateway);
        for (node, file) in self.nodes.iter().zip(&self.folder) {
            let id = &node.entry.instance_id;
            assert!(file.is_some() || !node.is_alive, "{id} lives and has no entry; SEED={}", self.seed);
            assert!(
                file.is_none() || node.is_alive || !has_gateway,
                "{id} is dead and has an entry; SEED={}",
                self.seed
            );
        }
    }
}
