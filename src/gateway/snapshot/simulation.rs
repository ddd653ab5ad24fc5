//! Names do not change: seeded instances that come and go, listed in any order, as several replicas see them.
//!
//! **Invariant**, checked after every scan: a living instance has the names that it had when it was first seen by anybody,
//! whoever else lives, and each leads to its tool; they are what product specification 6.5 says, by an account of it that
//! shares nothing with `names.rs`; whoever sees the same instances answers the same bytes, in the order that is promised.
//! Of two whose short ids are equal (`docs/architecture.md`, known limits) only that each name leads to its tool holds,
//! and no third one notices them.
//! **Bounds**: `SEEDS` runs (1,000 unless said), `SEED` has one again (`registry/simulation.rs`).
//! Left out on purpose: who is live (`registry/simulation.rs`); tools that an instance loads, which name others of its own.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use serde_json::value::to_raw_value;

use super::*;
use crate::endpoint::access::Access;
use crate::gateway::offered::Offered;
use crate::hash::fnv64;
use crate::mcp::RawObject;
use crate::registry::entry::tests::{Random, sample};
use crate::registry::facts::Facts;
use crate::registry::foreign::{Row, Rows};
use crate::registry::simulation::for_each_seed;
use crate::registry::store::{Found, Scan};
use crate::registry::{Instance, Moment, Observer, View};

const REPLICAS: usize = 2;
const SCANS: u32 = 4;
/// They meet once they are made fit, are cut, are told twice, and are what others become: the last but two is what the
/// second does beside others.
const TOOLS: [&str; 11] = [
    "a",
    "a.b",
    "a/b",
    "a_b",
    "a.b",
    "",
    "é",
    "_",
    "a_b_66522c",
    LONG,
    "a_tool_whose_name_is_too_long_for_most_clients_there_are.2",
];
const LONG: &str = "a_tool_whose_name_is_too_long_for_most_clients_there_are";

/// Nothing is known but what is read.
struct Nowhere;

impl Facts for Nowhere {
    fn host_id(&self) -> &str {
        "nowhere/1"
    }

    fn process_is_gone(&self, _: u32, _: Option<u64>) -> bool {
        false
    }

    fn is_this_host(&self, _: &str) -> bool {
        false
    }

    fn port_answers(&self, _: &str, _: u16, _: Instant) -> Option<bool> {
        None
    }

    fn can_write(&self) -> bool {
        true
    }

    fn lock_is_held(&self, _: &str) -> Option<bool> {
        None
    }
}

struct Source {
    found: Found,
    origin: Origin,
    tools: Vec<&'static str>,
    /// Another one has its short id.
    has_twin: bool,
}

/// One gateway: what it has seen, and been told in an order of its own.
struct Replica {
    observer: Observer,
    pieces: HashMap<String, Arc<Pieces>>,
    last: Option<Snapshot>,
}

#[test]
fn names_never_change() {
    let access = Access::new(IpAddr::V4(Ipv4Addr::LOCALHOST), Vec::new(), Vec::new(), None).expect("there is no file");
    let access = Arc::new(access);
    for_each_seed(|seed| run(seed, &access));
}

fn run(seed: u64, access: &Arc<Access>) {
    let mut random = Random(seed);
    let sources = sources(&mut random);
    let mut replicas: Vec<Replica> = (0..REPLICAS).map(|_| Replica::new(&sources, &mut random)).collect();
    let (start, mut names, mut answers) = (Instant::now(), HashMap::new(), HashMap::new());
    for scan in 0..SCANS {
        for replica in &mut replicas {
            // Each sees another part, in another order.
            let mut seen: Vec<&Source> = sources.iter().filter(|_| random.below(3) > 0).collect();
            shuffle(&mut seen, &mut random);
            let view = replica.look(&seen, start + Duration::from_millis(u64::from(scan) * 500));
            let snapshot = replica.build(&view, access);
            check(snapshot, &sources, &mut names, seed);
            let ids: Vec<String> = snapshot.members.iter().map(|member| member.id().to_owned()).collect();
            assert_eq!(ids.len(), seen.len(), "all that is there is shown; SEED={seed}");
            let place =
                |member: &Arc<Member>| (member.upstream.instance.entry.dcc_type.clone(), member.id().to_owned());
            assert!(snapshot.members.is_sorted_by_key(place), "by type, then id; SEED={seed}");
            let bytes = snapshot.list(Listed::Tools, Some(Revision::NEWEST));
            assert_eq!(*answers.entry(ids).or_insert_with(|| bytes.clone()), bytes, "SEED={seed}");
        }
    }
}

/// Instances of both origins, with some of the tools each.
fn sources(random: &mut Random) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    for number in 0..2 + random.below(5) {
        let twin = if random.below(8) == 0 { sources.last_mut() } else { None };
        let has_twin = twin.is_some();
        let first = match twin {
            Some(twin) => {
                twin.has_twin = true;
                names::short(&twin.found.entry.instance_id)
            }
            None => format!("{:08x}", random.next() as u32),
        };
        let mut entry = sample(&format!("{first}-0000-4000-8000-{number:012}"));
        entry.dcc_type = ["", "maya", "blender"][random.below(3) as usize].to_owned();
        sources.push(Source {
            found: Found { entry: Arc::new(entry), modified: 0.0, readable: true },
            origin: if random.below(3) == 0 { Origin::Foreign } else { Origin::Ours },
            tools: (0..1 + random.below(6)).map(|_| TOOLS[random.below(TOOLS.len() as u64) as usize]).collect(),
            has_twin,
        });
    }
    sources
}

fn shuffle<T>(list: &mut [T], random: &mut Random) {
    for at in (1..list.len()).rev() {
        list.swap(at, random.below(at as u64 + 1) as usize);
    }
}

impl Replica {
    fn new(sources: &[Source], random: &mut Random) -> Replica {
        let mut pieces = HashMap::new();
        for Source { found, origin, tools, .. } in sources {
            let mut tools = tools.clone();
            shuffle(&mut tools, random);
            let tool =
                |name: &&str| RawObject::from([("name".to_owned(), to_raw_value(name).expect("a string is JSON"))]);
            let offered = Offered { tools: tools.iter().map(tool).collect(), ..Offered::default() };
            let instance = Instance { entry: found.entry.clone(), origin: *origin, beat_seen: Instant::now() };
            pieces.insert(found.entry.instance_id.clone(), Arc::new(Pieces::of(&instance, &offered)));
        }
        Replica { observer: Observer::new(None, Duration::from_secs(30)), pieces, last: None }
    }

    fn look(&mut self, seen: &[&Source], now: Instant) -> View {
        let (mut scan, mut rows) = (Scan::default(), Rows::default());
        for source in seen {
            match source.origin {
                Origin::Ours => scan.found.push(source.found.clone()),
                Origin::Foreign => rows.rows.push(Row { entry: source.found.entry.clone(), lock: None }),
            }
        }
        let wall = seen.first().map_or(0.0, |source| source.found.entry.heartbeat.at);
        self.observer.observe(&scan, &rows, Moment { now, wall }, &Nowhere).0
    }

    fn build(&mut self, view: &View, access: &Arc<Access>) -> &Snapshot {
        let upstream = |instance: &Arc<Instance>| Arc::new(Upstream::new(instance.clone(), access));
        let upstreams: Vec<Arc<Upstream>> = view.instances.iter().map(upstream).collect();
        let told = |upstream| Told { upstream, pieces: &self.pieces[id_of(upstream)] };
        let told: Vec<Told<'_>> = upstreams.iter().map(told).collect();
        let snapshot = Snapshot::build(&[], false, &told, true, self.last.as_ref());
        self.last.insert(snapshot)
    }
}

fn id_of(upstream: &Upstream) -> &str {
    &upstream.instance.entry.instance_id
}

fn check(snapshot: &Snapshot, sources: &[Source], names: &mut HashMap<String, Vec<(String, String)>>, seed: u64) {
    for member in &snapshot.members {
        for (published, original) in &member.tools {
            let route = snapshot.tool(published).expect("what is published has a route");
            let leads_to = (id_of(&route.upstream), route.name.as_str());
            assert_eq!(leads_to, (member.id(), original.as_str()), "{published}; SEED={seed}");
        }
        let source = sources.iter().find(|source| source.found.entry.instance_id == member.id());
        let source = source.expect("whoever is listed was there");
        if !source.has_twin {
            check_names(member, &source.tools, seed);
            let first = names.entry(member.id().to_owned()).or_insert_with(|| member.tools.clone());
            assert_eq!(*first, member.tools, "names of {} changed; SEED={seed}", member.id());
        }
    }
}

/// What each tool is called, if no mark meets another name, by the words of the specification.
fn check_names(member: &Member, tools: &[&str], seed: u64) {
    let distinct: BTreeSet<&str> = tools.iter().copied().collect();
    assert_eq!(member.tools.len(), distinct.len(), "one name for each tool; SEED={seed}");
    let short: String = member.id().chars().take(8).collect();
    let plain = |tool: &str| -> String {
        let fit = tool.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        if tool.is_empty() { "_".to_owned() } else { fit }
    };
    for (published, original) in &member.tools {
        let name = plain(original);
        let is_alone = distinct.iter().filter(|other| plain(other) == name).count() == 1;
        let is_short = short.len() + 2 + name.len() <= 60;
        let mark = format!("_{:06x}", fnv64(original.as_bytes()) & 0xff_ffff);
        let marked = format!("{}{mark}", &name[..name.len().min(60 - short.len() - 2 - mark.len())]);
        let expected = if is_short && (name == *original || is_alone) { &name } else { &marked };
        let is_taken = expected != original && distinct.contains(expected.as_str());
        assert!(published.len() <= 60 && published.starts_with(&format!("{short}__")), "{published}; SEED={seed}");
        assert!(is_taken || published[short.len() + 2..] == *expected, "{published} of {original:?}; SEED={seed}");
    }
}
