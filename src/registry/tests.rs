//! Liveness by tables: an invented world and clock, no file, no sleep.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use super::entry::tests::sample;
use super::foreign::Row;
use super::store::Found;
use super::track::{Evidence, judge};
use super::*;

const STALE: Duration = Duration::from_secs(30);
const EPOCH: f64 = 1_795_000_000.0;

/// A world in which everything is as the test says.
#[derive(Default)]
struct World {
    gone: RefCell<BTreeSet<u32>>,
    ports: RefCell<BTreeMap<u16, bool>>,
    locks: RefCell<BTreeMap<String, bool>>,
    is_full: Cell<bool>,
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

    fn port_answers(&self, _: &str, port: u16, _: Instant) -> Option<bool> {
        self.ports.borrow().get(&port).copied()
    }

    fn can_write(&self) -> bool {
        !self.is_full.get()
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
        ("silent for just so long, not all of it observed", Evidence { elapsed: STALE, ..fresh }, Some(false), Hidden),
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
fn another_life_with_the_same_count_of_heartbeats_is_a_change() {
    let before = entry("a", 1, EPOCH);
    let restarted = Entry { registered_at: 2.0, ..before.clone() };
    let other_process = Entry { pid: 11, ..before.clone() };
    let put_back = entry("a", 1, EPOCH + 20.0);
    for (name, after) in
        [("registered anew", restarted), ("another process", other_process), ("a machine that was put back", put_back)]
    {
        let mut watch = Watch::new(None);
        assert_eq!(watch.until(29.5, std::slice::from_ref(&before)), live(&["a"]));
        assert_eq!(watch.until(59.0, std::slice::from_ref(&after)), live(&["a"]), "{name}");
        assert_eq!(watch.until(60.0, &[after]), dead("a", Death::Stale), "{name}: and it does not beat");
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

/// Found by the simulation: a dead instance was listed again when another process had got its pid.
#[test]
fn what_a_port_answered_long_ago_counts_no_more() {
    let mut watch = Watch::new(None);
    let here = [Entry { host_id: "here/1".to_owned(), ..entry("a", 1, EPOCH) }];
    watch.world.is_full.set(true);
    watch.world.ports.borrow_mut().insert(18765, true);
    assert_eq!(watch.until(40.0, &here), live(&["a"]), "its port answers");
    watch.world.gone.borrow_mut().insert(10);
    watch.world.ports.borrow_mut().clear();
    assert_eq!(watch.until(60.0, &here).0, Vec::<String>::new());
    watch.world.gone.borrow_mut().clear();
    assert_eq!(watch.until(61.0, &here), live(&[]), "a process has its pid, and its port has not been asked");
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

/// Found by tests/chaos, where a gateway went on hiding instances for six seconds after its network was back.
#[test]
fn nobody_is_stale_for_what_nobody_could_write() {
    let mut watch = Watch::new(None);
    let mut there = entry("b", 1, EPOCH);
    there.port = 2;
    let both = [entry("a", 1, EPOCH), there];
    watch.world.ports.borrow_mut().extend([(18765, true), (2, true)]);
    assert_eq!(watch.until(20.0, &both), live(&["a", "b"]));
    watch.world.is_full.set(true);
    assert_eq!(watch.until(300.0, &both), live(&["a", "b"]));
    watch.world.ports.borrow_mut().insert(2, false);
    assert_eq!(watch.until(306.0, &both), live(&["a"]), "its port does not answer any more; its files stay");
    watch.world.ports.borrow_mut().insert(2, true);
    assert_eq!(watch.until(307.0, &both), live(&["a", "b"]), "and now it does, which is seen a second later");
    watch.until(312.0, &both);
    watch.world.is_full.set(false);
    assert_eq!(watch.until(341.5, &both), live(&["a", "b"]), "all the time there is to beat again");
    let (ids, prunes) = watch.until(342.0, &[entry("a", 2, EPOCH), both[1].clone()]);
    assert_eq!((ids, prunes), (vec!["a".to_owned()], vec![("b".to_owned(), Death::Stale)]));
}

#[test]
fn a_folder_that_fails_takes_only_the_dead() {
    let mut watch = Watch::new(Some("own"));
    let here = Entry { host_id: "here/1".to_owned(), pid: 77, ..entry("a", 1, EPOCH) };
    let (mut there, own) = (entry("b", 1, EPOCH), entry("own", 1, EPOCH));
    there.port = 2;
    watch.world.ports.borrow_mut().extend([(18765, true), (2, true)]);
    assert_eq!(watch.until(5.0, &[here, there, own]), live(&["a", "b", "own"]));
    let mut fail = |seconds: f64, world: &World| {
        let now = watch.start + Duration::from_secs_f64(seconds);
        let moment = Moment { now, wall: EPOCH + seconds };
        let view = watch.observer.observe_failure("stale handle".to_owned(), moment, world);
        assert!(view.error.is_some() && view.complete);
        view.instances.iter().map(|instance| instance.entry.instance_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(fail(600.0, &watch.world), ["a", "b", "own"]);
    watch.world.gone.borrow_mut().insert(77);
    watch.world.ports.borrow_mut().insert(2, false);
    assert_eq!(fail(601.0, &watch.world), ["b", "own"], "its port was asked a moment ago");
    assert_eq!(fail(606.0, &watch.world), ["own"]);
}

#[test]
fn what_cannot_be_read_at_all_is_told() {
    let mut watch = Watch::new(Some("own"));
    let mut scan = scan(&[entry("own", 1, EPOCH), entry("a", 1, EPOCH)]);
    for (own, other, is_told) in [(true, true, false), (true, false, false), (false, false, true)] {
        (scan.found[0].readable, scan.found[1].readable) = (own, other);
        let moment = Moment { now: watch.start, wall: EPOCH };
        let (view, _) = watch.observer.observe(&scan, &Rows::default(), moment, &watch.world);
        assert_eq!((view.instances.len(), view.error.is_some()), (2, is_told));
    }
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
