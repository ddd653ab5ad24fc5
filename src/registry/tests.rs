//! Liveness by tables and by a seeded simulation: an invented world and clock, no file, no sleep.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::entry::tests::{Random, sample};
use super::*;
use crate::limits::SCAN_EVERY;

const STALE: Duration = Duration::from_secs(30);
const EPOCH: f64 = 1_795_000_000.0;

/// A world in which everything is as the test says.
#[derive(Default)]
struct World {
    gone: RefCell<BTreeSet<u32>>,
    ports: RefCell<BTreeMap<u16, bool>>,
    locks: RefCell<BTreeMap<String, bool>>,
}

impl Facts for World {
    fn host_id(&self) -> &str {
        "here/1"
    }

    fn process_is_gone(&self, pid: u32, _: Option<u64>) -> bool {
        self.gone.borrow().contains(&pid)
    }

    fn is_this_host(&self, host: &str) -> bool {
        host == "127.0.0.1"
    }

    fn port_answers(&self, _: &str, port: u16) -> Option<bool> {
        self.ports.borrow().get(&port).copied()
    }

    fn lock_is_held(&self, name: &str) -> Option<bool> {
        self.locks.borrow().get(name).copied()
    }
}

/// An entry of another host whose clock is as ours.
fn entry(id: &str, seq: u64, at: f64) -> Entry {
    let mut entry = sample(id);
    (entry.host_id, entry.pid, entry.pid_start) = ("there/1".to_owned(), 10, None);
    entry.heartbeat = entry::Beat { seq, at };
    entry.registered_at = 1.0;
    entry
}

fn scan(entries: &[Entry]) -> Scan {
    let found = |entry: &Entry| Found { entry: Arc::new(entry.clone()), modified: 0.0, readable: true };
    Scan { found: entries.iter().map(found).collect(), ..Scan::default() }
}

/// One observer and its clock.
struct Watch {
    observer: Observer,
    world: World,
    foreign: Rows,
    start: Instant,
    seconds: f64,
}

impl Watch {
    fn new(own: Option<&str>) -> Watch {
        let observer = Observer::new(own.map(str::to_owned), STALE);
        let (world, foreign) = (World::default(), Rows::default());
        Watch { observer, world, foreign, start: Instant::now(), seconds: 0.0 }
    }

    /// Scans every half second after now, up to `seconds` from the start, at least once; the last result.
    fn until(&mut self, seconds: f64, entries: &[Entry]) -> (Vec<String>, Vec<(String, Death)>) {
        let scan = scan(entries);
        loop {
            self.seconds = (self.seconds + 0.5).min(seconds);
            let last = self.once(&scan);
            if self.seconds >= seconds {
                return last;
            }
        }
    }

    fn once(&mut self, scan: &Scan) -> (Vec<String>, Vec<(String, Death)>) {
        let now = self.start + Duration::from_secs_f64(self.seconds);
        let moment = Moment { now, wall: EPOCH + self.seconds };
        let (view, prunes) = self.observer.observe(scan, &self.foreign, moment, &self.world);
        let live = view.instances.iter().map(|instance| instance.entry.instance_id.clone()).collect();
        (live, prunes.iter().map(|prune| (prune.entry.instance_id.clone(), prune.death)).collect())
    }
}

fn live(ids: &[&str]) -> (Vec<String>, Vec<(String, Death)>) {
    (ids.iter().map(|id| (*id).to_owned()).collect(), Vec::new())
}

fn dead(id: &str, death: Death) -> (Vec<String>, Vec<(String, Death)>) {
    (Vec::new(), vec![(id.to_owned(), death)])
}

#[test]
fn verdicts() {
    use Verdict::{Dead, Hidden, Live, Unknown};
    let second = Duration::from_secs;
    let fresh = Evidence {
        is_gone: false,
        observed: second(1),
        elapsed: second(1),
        stale: STALE,
        has_beaten: true,
        was_recent: false,
        was_live: true,
    };
    let slept = Evidence { elapsed: second(90), ..fresh };
    let first = Evidence { has_beaten: false, was_live: false, ..fresh };
    for (name, evidence, port, expected) in [
        ("beating", fresh, None, Live),
        ("gone", Evidence { is_gone: true, ..fresh }, Some(true), Dead(Death::ProcessGone)),
        ("gone and stale", Evidence { is_gone: true, observed: STALE, ..fresh }, None, Dead(Death::ProcessGone)),
        ("just before", Evidence { observed: second(29), elapsed: second(29), ..fresh }, None, Live),
        ("stale", Evidence { observed: STALE, elapsed: STALE, ..fresh }, Some(true), Dead(Death::Stale)),
        ("we slept, it answers", slept, Some(true), Live),
        ("we slept, it does not", slept, Some(false), Hidden),
        ("we slept, not asked yet", slept, None, Live),
        ("recent at first sight", Evidence { was_recent: true, ..first }, None, Live),
        ("old at first sight, answers", first, Some(true), Live),
        ("old at first sight, does not", first, Some(false), Hidden),
        ("old at first sight, not asked yet", first, None, Unknown),
    ] {
        assert_eq!(judge(&evidence, || port), expected, "{name}");
    }
}

#[test]
fn stale_by_our_own_clock_and_back_with_the_next_heartbeat() {
    for skew in [0.0, -36_000.0, 36_000.0] {
        let mut watch = Watch::new(None);
        watch.world.ports.borrow_mut().insert(18765, true);
        let at = EPOCH + skew;
        assert_eq!(watch.until(0.0, &[entry("a", 1, at)]), live(&["a"]), "skew {skew}");
        assert_eq!(watch.until(9.5, &[entry("a", 1, at)]), live(&["a"]));
        assert_eq!(watch.until(10.0, &[entry("a", 2, at + 10.0)]), live(&["a"]));
        assert_eq!(watch.until(39.5, &[entry("a", 2, at + 10.0)]), live(&["a"]));
        assert_eq!(watch.until(40.0, &[entry("a", 2, at + 10.0)]), dead("a", Death::Stale));
        assert_eq!(watch.until(99.0, &[entry("a", 2, at + 10.0)]), dead("a", Death::Stale), "hidden, not forgotten");
        assert_eq!(watch.until(99.0, &[entry("a", 3, at)]), live(&["a"]), "it lived after all");
    }
}

#[test]
fn an_old_heartbeat_at_first_sight() {
    let old = entry("a", 1, EPOCH - 3600.0);
    let mut watch = Watch::new(None);
    assert_eq!(watch.until(5.0, std::slice::from_ref(&old)), live(&[]), "its port is not known yet");
    watch.world.ports.borrow_mut().insert(18765, true);
    assert_eq!(watch.until(5.5, std::slice::from_ref(&old)), live(&["a"]));
    assert_eq!(watch.until(30.0, std::slice::from_ref(&old)), live(&["a"]));
    assert_eq!(watch.until(30.5, std::slice::from_ref(&old)), dead("a", Death::Stale), "and must beat then");

    let mut watch = Watch::new(None);
    watch.world.ports.borrow_mut().insert(18765, false);
    assert_eq!(watch.until(5.0, std::slice::from_ref(&old)), live(&[]));
    assert_eq!(watch.until(5.0, &[entry("a", 2, EPOCH - 3600.0)]), live(&["a"]), "it beats");

    let mut recent_file = scan(&[old]);
    recent_file.found[0].modified = EPOCH - 3.0;
    assert_eq!(Watch::new(None).once(&recent_file), live(&["a"]), "the clock of its writer is wrong");
}

#[test]
fn a_missing_process_of_this_host_is_dead_at_once() {
    let mut watch = Watch::new(None);
    let here = Entry { host_id: "here/1".to_owned(), ..entry("a", 1, EPOCH) };
    let there = entry("b", 1, EPOCH);
    assert_eq!(watch.until(0.0, &[here.clone(), there.clone()]), live(&["a", "b"]));
    watch.world.gone.borrow_mut().insert(10);
    let (ids, prunes) = watch.until(0.5, &[here, there]);
    assert_eq!((ids, prunes), (vec!["b".to_owned()], vec![("a".to_owned(), Death::ProcessGone)]));
}

#[test]
fn ourselves_always() {
    let mut watch = Watch::new(Some("a"));
    watch.world.gone.borrow_mut().insert(10);
    let own = Entry { host_id: "here/1".to_owned(), ..entry("a", 1, EPOCH - 3600.0) };
    assert_eq!(watch.until(100.0, &[own]), live(&["a"]));
    assert_eq!(watch.until(200.0, &[]), live(&["a"]), "though its file is gone");
}

#[test]
fn a_paused_observer_judges_nobody_by_the_time_it_slept() {
    for (port, expected) in [(None, live(&["a"])), (Some(true), live(&["a"])), (Some(false), live(&[]))] {
        let mut watch = Watch::new(None);
        watch.until(0.0, &[entry("a", 1, EPOCH)]);
        assert_eq!(watch.until(4.0, &[entry("a", 2, EPOCH)]), live(&["a"]));
        watch.seconds = 600.0;
        watch.world.ports.borrow_mut().extend(port.map(|port| (18765, port)));
        let woken = watch.until(600.0, &[entry("a", 2, EPOCH)]);
        assert_eq!(woken, expected, "nothing to be removed either");
        assert_eq!(watch.until(601.0, &[entry("a", 3, EPOCH)]), live(&["a"]));
    }
    let mut watch = Watch::new(None);
    watch.until(4.0, &[entry("a", 2, EPOCH)]);
    watch.seconds = 600.0;
    watch.until(600.0, &[entry("a", 2, EPOCH)]);
    assert_eq!(watch.until(630.0, &[entry("a", 2, EPOCH)]), dead("a", Death::Stale), "what was observed counts");
}

#[test]
fn unreadable_is_not_silent() {
    let mut watch = Watch::new(None);
    watch.world.ports.borrow_mut().insert(18765, true);
    watch.until(1.0, &[entry("a", 1, EPOCH)]);
    let mut unreadable = scan(&[entry("a", 1, EPOCH)]);
    unreadable.found[0].readable = false;
    for _ in 0..200 {
        watch.seconds += 0.5;
        assert_eq!(watch.once(&unreadable), live(&["a"]));
    }
}

#[test]
fn a_folder_that_was_replaced_takes_nobody_with_it() {
    let mut watch = Watch::new(None);
    let all = [entry("a", 1, EPOCH), entry("b", 1, EPOCH)];
    assert_eq!(watch.until(1.0, &all), live(&["a", "b"]));
    let replaced = |entries: &[Entry]| Scan {
        folder: files::folder_id(std::path::Path::new("/")).expect("there is a root"),
        ..scan(entries)
    };
    watch.seconds = 1.5;
    assert_eq!(watch.once(&replaced(&[])), live(&["a", "b"]), "awaited");
    watch.seconds = 4.0;
    assert_eq!(watch.once(&replaced(&[entry("a", 2, EPOCH)])), live(&["a", "b"]));
    watch.seconds = 5.0;
    assert_eq!(watch.once(&replaced(&[])), live(&["b"]), "a came and has left");
    for _ in 0..60 {
        watch.seconds += 0.5;
        watch.once(&replaced(&[]));
    }
    assert_eq!(watch.once(&replaced(&[])).0, Vec::<String>::new(), "b has not come back in time");
    let plain = watch.until(60.0, &[entry("a", 5, EPOCH + 50.0)]);
    assert_eq!(plain.0, ["a"]);
    assert_eq!(watch.until(61.0, &[]), live(&[]), "what leaves a folder that stays has left");
}

fn row(id: &str, seq: u64, lock: Option<&str>) -> Row {
    let entry = Entry { host_id: String::new(), host: "127.0.0.1".to_owned(), ..entry(id, seq, EPOCH) };
    Row { entry: Arc::new(entry), lock: lock.map(str::to_owned) }
}

#[test]
fn rows_of_others() {
    let mut watch = Watch::new(None);
    watch.foreign.rows = vec![row("a", 1, Some("a.lock")), row("b", 1, None), row("ours", 1, None)];
    watch.world.locks.borrow_mut().insert("a.lock".to_owned(), true);
    let ours = [entry("ours", 1, EPOCH)];
    assert_eq!(watch.until(1.0, &ours), live(&["a", "b", "ours"]));
    let (ids, prunes) = watch.until(60.0, &ours);
    assert_eq!(ids, ["a"], "a lock is stronger than a heartbeat");
    assert_eq!(prunes, [("ours".to_owned(), Death::Stale)], "files of others are not ours to remove");
    watch.foreign.rows[1] = row("b", 2, None);
    watch.world.locks.borrow_mut().insert("a.lock".to_owned(), false);
    assert_eq!(watch.until(60.5, &[]), live(&["b"]));
    watch.world.gone.borrow_mut().insert(10);
    assert_eq!(watch.until(70.0, &[]), live(&["b"]), "its pid may be of another namespace");
    assert_eq!(watch.until(75.5, &[]), live(&[]), "but now its beats are missing too");
    let mut newcomer = Watch { foreign: watch.foreign, world: watch.world, ..Watch::new(None) };
    assert_eq!(newcomer.until(0.0, &[]), live(&[]), "not believed at first sight");
    newcomer.foreign.rows[1] = row("b", 3, None);
    assert_eq!(newcomer.until(0.5, &[]), live(&["b"]));
}

#[test]
fn order_and_bound() {
    let mut watch = Watch::new(Some("zz"));
    let mut entries: Vec<Entry> = (0..INSTANCES_MAX + 5).map(|n| entry(&format!("i{n:05}"), 1, EPOCH)).collect();
    entries[3].dcc_type = "blender".to_owned();
    entries.push(entry("zz", 1, EPOCH));
    let moment = Moment { now: watch.start, wall: EPOCH };
    let (view, _) = watch.observer.observe(&scan(&entries), &Rows::default(), moment, &watch.world);
    assert_eq!((view.instances.len(), view.skipped.over_limit), (INSTANCES_MAX + 1, 5));
    assert_eq!(view.instances[0].entry.instance_id, "i00003");
    assert_eq!(view.instances.last().map(|last| last.entry.instance_id.as_str()), Some("zz"), "ourselves always");
}

/// Complete when every first sight has its answer, or has had its time.
#[test]
fn complete() {
    let mut watch = Watch::new(None);
    let old = scan(&[entry("a", 1, 0.0)]);
    let mut observe = |millis: u64| {
        let moment = Moment { now: watch.start + Duration::from_millis(millis), wall: EPOCH };
        watch.observer.observe(&old, &Rows::default(), moment, &watch.world).0.complete
    };
    assert!(!observe(0) && !observe(500) && observe(1000) && observe(1500));
}

/// A node of the simulation: what it has written, and what it does.
struct Node {
    entry: Entry,
    is_alive: bool,
    paused_until: f64,
    next_beat: f64,
    died: Option<f64>,
}

/// Several observers and owners on one folder: skewed clocks, pauses, deaths, late views. A live and unpaused instance
/// is never pruned and never gone for long; a dead one is gone after the stale timeout of observed time. `SEEDS` says how
/// many are run, `SEED` replays one.
#[test]
fn simulation() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = number("SEED").map_or(0..number("SEEDS").unwrap_or(300), |seed| seed..seed + 1);
    for seed in seeds {
        simulate(seed);
    }
}

fn simulate(seed: u64) {
    let mut random = Random(seed);
    let count = 2 + random.below(6) as usize;
    let mut nodes: Vec<Node> = (0..count)
        .map(|n| Node {
            entry: Entry {
                port: 1000 + n as u16,
                ..entry(&format!("n{n}"), 1, EPOCH + random.below(20_000) as f64 - 10_000.0)
            },
            is_alive: true,
            paused_until: 0.0,
            next_beat: random.below(5000) as f64 / 1000.0,
            died: None,
        })
        .collect();
    let mut watches: Vec<Watch> = (0..count).map(|n| Watch::new(Some(&format!("n{n}")))).collect();
    let mut views: Vec<Vec<Entry>> = vec![nodes.iter().map(|node| node.entry.clone()).collect(); 4];
    let mut time = 0.0;
    while time < 200.0 {
        time += SCAN_EVERY.as_secs_f64();
        for node in &mut nodes {
            if node.is_alive && time >= node.paused_until && time >= node.next_beat {
                node.entry.heartbeat.seq += 1;
                node.next_beat = time + 5.0;
            }
            match random.below(1200) {
                0 => (node.is_alive, node.died) = (false, node.died.or(Some(time))),
                1 | 2 if node.is_alive => node.paused_until = time + random.below(70) as f64,
                _ => {}
            }
        }
        views.remove(0);
        views.push(nodes.iter().map(|node| node.entry.clone()).collect());
        for (n, watch) in watches.iter_mut().enumerate() {
            if !nodes[n].is_alive || time < nodes[n].paused_until {
                continue;
            }
            // A view may be up to three scans old, and older than the one before.
            let view = &views[random.below(4) as usize];
            watch.seconds = time;
            // The system accepts connections for a paused process. Not every answer is there at once.
            let is_first = watch.observer.last.is_none();
            let answers = nodes.iter().filter(|_| is_first || random.below(2) == 0);
            *watch.world.ports.borrow_mut() = answers.map(|node| (node.entry.port, node.is_alive)).collect();
            let (live, prunes) = watch.once(&scan(view));
            check_node(seed, time, &nodes, n, &live, &prunes);
        }
    }
}

fn check_node(seed: u64, time: f64, nodes: &[Node], n: usize, live: &[String], prunes: &[(String, Death)]) {
    // Pauses are at most 70 s; after one, the next beat is due at once, and views are at most two seconds late.
    for node in nodes {
        let id = &node.entry.instance_id;
        let is_well = node.is_alive && time > node.paused_until + 8.0;
        assert!(!is_well || live.contains(id), "{id} lives and is not shown by n{n} at {time}; SEED={seed}");
        assert!(!is_well || prunes.iter().all(|(pruned, _)| pruned != id), "{id} lives and is pruned; SEED={seed}");
        let observer = &nodes[n];
        let was_awake = node.died.is_some_and(|died| time > died + 33.0 && time > observer.paused_until + 33.0);
        let is_dead = !node.is_alive && was_awake;
        assert!(!is_dead || !live.contains(id), "{id} is dead and shown by n{n} at {time}; SEED={seed}");
    }
    assert!(live.contains(&nodes[n].entry.instance_id), "n{n} shows itself; SEED={seed}");
}
