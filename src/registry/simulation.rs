//! A seeded simulation of owners and observers on one folder: clocks that are wrong and set anew, pauses, crashes between
//! any two steps, restarts with the same id, pid or count of beats, reboots, late, torn and unreadable entries, a folder
//! that nobody can write or that is replaced, hosts that are cut off from it, rows of other implementations.
//!
//! **Invariant**, checked after every scan of every observer (`checks.rs`; of a pair, `pairs.rs`). By the truth: whoever
//! lives and can write is listed, once others could have seen it, and stays listed; who is dead, or cut off, is not, the
//! stale timeout and two scans later, and its files go; nothing of a living one is removed. By what the observer was
//! shown: nobody is stale for time that was not observed, and nobody is listed who is; a port that decides has been asked,
//! and decides as it answered. At the end, in peace: exactly those who live have files.
//!
//! The world is here, what befalls it in `events.rs`, what processes do and see in `deeds.rs`.
//! **Bounds**: `SEEDS` runs (1,000 unless said), on all processors; `SEED` has one again.
//! Left out on purpose: files (`store.rs`) and threads; only decisions are simulated.

mod checks;
mod deeds;
mod events;
mod pairs;
mod truth;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use self::pairs::Witness;
use super::entry::tests::{Random, sample};
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
/// Of the first node; the others have the next ones.
const PORT: u16 = 1000;
const NEVER: f64 = f64::NEG_INFINITY;

/// What a process is to the registry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    /// Of another implementation. It may hold a lock for life, and have a pid that means nothing to others of its host.
    Row {
        has_lock: bool,
        is_contained: bool,
    },
}

/// A process and what it sees.
struct Node {
    kind: Kind,
    entry: Entry,
    host: usize,
    is_alive: bool,
    is_gateway: bool,
    paused_until: f64,
    next_beat: f64,
    next_scan: f64,
    can_write: bool,
    observer: Observer,
    witnesses: Vec<Witness>,
    /// When it looked at the folder last, and which that was.
    looked: Option<(f64, u64)>,
    first_look: Option<f64>,
    /// Since when it has looked without a break.
    reading_since: f64,
    is_complete: bool,
    began: f64,
    /// Removals it has decided on, and when it does what it has looked at before: a pause can be in between.
    removing: Vec<Removal>,
    /// Whose file it cannot read, and until when.
    unreadable: Option<(usize, f64)>,
    /// Since when it lives, is awake and can write; is awake; is dead.
    well_since: f64,
    awake_since: f64,
    dead_since: f64,
    /// When its process has beaten last, and before that.
    beats: [f64; 2],
    /// Since when its file has been there without a break; whether the folder has been replaced since it beat last.
    there_since: f64,
    is_taken: bool,
}

struct Removal {
    of: usize,
    seen: File,
    at: f64,
}

#[derive(Clone)]
struct File {
    entry: Arc<Entry>,
    written: f64,
}

struct Host {
    boot: u64,
    /// Its clock is so wrong; when that changed last.
    skew: f64,
    set_at: f64,
    /// It has no way to the folder, nor to other hosts; when that was so last, and when it began.
    cut_until: f64,
    cut_last: f64,
    cut_since: f64,
    /// Whether it tells when a process started.
    has_starts: bool,
    /// It does not know the time yet when processes start.
    starts_in_the_dark: bool,
}

struct Sky {
    random: Random,
    seed: u64,
    time: f64,
    start: Instant,
    hosts: Vec<Host>,
    nodes: Vec<Node>,
    folder: Folder,
    past: Vec<Folder>,
    /// Another number is another folder.
    folder_number: u64,
    /// The clock of the file system.
    folder_skew: f64,
    full_until: f64,
    starts: u64,
    in_peace: bool,
}

/// The file of each node, if it is there.
type Folder = Vec<Option<File>>;

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
        let hosts = 1 + random.below(3);
        let hosts = (0..hosts).map(|_| Host::new(&mut random)).collect();
        let folder_skew = skew(&mut random);
        let mut sky = Sky {
            random,
            seed,
            time: 0.0,
            start: Instant::now(),
            hosts,
            nodes: Vec::new(),
            folder: vec![None; count],
            past: Vec::new(),
            folder_number: 0,
            folder_skew,
            full_until: 0.0,
            starts: 0,
            in_peace: false,
        };
        for number in 0..count {
            let kind = match sky.random.below(4) {
                0 if number > 1 => {
                    Kind::Row { has_lock: sky.random.below(2) == 0, is_contained: sky.random.below(2) == 0 }
                }
                _ => Kind::Ours,
            };
            let host = sky.random.below(sky.hosts.len() as u64) as usize;
            let node = sky.birth(number, kind, host);
            sky.nodes.push(node);
        }
        sky
    }

    fn birth(&mut self, number: usize, kind: Kind, host: usize) -> Node {
        self.starts += 1;
        let mut entry = sample(&format!("n{number}"));
        entry.pid = self.free_pid(host);
        (entry.host, entry.port) = (format!("h{host}"), PORT + number as u16);
        (entry.pid_start, entry.host_id) = match kind {
            Kind::Ours => (self.hosts[host].has_starts.then_some(self.starts), self.host_id(host)),
            Kind::Row { .. } => (None, String::new()),
        };
        entry.registered_at = if self.hosts[host].starts_in_the_dark { EPOCH } else { self.wall(host) };
        entry.heartbeat = entry::Beat { seq: 0, at: 0.0 };
        let observer = Observer::new(Some(entry.instance_id.clone()), Duration::from_secs_f64(STALE));
        Node {
            kind,
            entry,
            host,
            is_alive: true,
            is_gateway: number == 0 || self.random.below(2) == 0,
            paused_until: 0.0,
            next_beat: self.time,
            next_scan: self.time + self.random.below(500) as f64 / 1000.0,
            can_write: true,
            observer,
            witnesses: self.folder.iter().map(|_| Witness::default()).collect(),
            looked: None,
            first_look: None,
            reading_since: f64::INFINITY,
            is_complete: false,
            began: self.time,
            removing: Vec::new(),
            unreadable: None,
            well_since: self.time,
            awake_since: self.time,
            dead_since: f64::INFINITY,
            beats: [NEVER; 2],
            there_since: f64::INFINITY,
            is_taken: false,
        }
    }

    /// The lowest that no living process of the host has: the dead one's, as a rule, and the same on each host.
    fn free_pid(&self, host: usize) -> u32 {
        let is_free =
            |pid: &u32| !self.nodes.iter().any(|node| node.is_alive && node.host == host && node.entry.pid == *pid);
        (10..).find(is_free).expect("there are few processes")
    }

    fn host_id(&self, host: usize) -> String {
        format!("host/{host}/{}", self.hosts[host].boot)
    }

    fn wall(&self, host: usize) -> f64 {
        EPOCH + self.hosts[host].skew + self.time
    }

    /// When a file changed last, by the clock of the file system.
    fn modified(&self, file: &File) -> f64 {
        EPOCH + self.folder_skew + file.written
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.time)
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
            self.check_the_files();
        }
        self.check_the_end();
    }

    fn is_cut(&self, number: usize) -> bool {
        self.time < self.hosts[self.nodes[number].host].cut_until
    }

    fn is_awake(&self, number: usize) -> bool {
        self.nodes[number].is_alive && self.time >= self.nodes[number].paused_until
    }

    fn is_well(&self, number: usize) -> bool {
        self.is_awake(number) && !self.is_cut(number) && self.time >= self.full_until
    }
}

impl Host {
    fn new(random: &mut Random) -> Host {
        let (skew, has_starts) = (skew(random), random.below(3) > 0);
        // Two lives that differ in nothing are beyond what anybody could tell.
        let starts_in_the_dark = has_starts && random.below(3) == 0;
        Host {
            boot: 0,
            skew,
            set_at: NEVER,
            cut_until: 0.0,
            cut_last: NEVER,
            cut_since: f64::INFINITY,
            has_starts,
            starts_in_the_dark,
        }
    }
}

/// How wrong a clock is: not at all, around the stale timeout, by hours.
fn skew(random: &mut Random) -> f64 {
    match random.below(4) {
        0 | 1 => 0.0,
        2 => random.below(100) as f64 - 50.0,
        _ => random.below(20_000) as f64 - 10_000.0,
    }
}
