//! Names do not change: seeded instances that come and go, listed in any order, as several replicas see them.
//!
//! **Invariant**, checked after every scan: a living instance has the names that it had when it was first seen by anybody,
//! whoever else lives, and each leads to its tool; whoever sees the same instances answers the same bytes. Of two whose
//! short ids are equal (`docs/architecture.md`, known limits) only the second holds, and no third one notices them.
//! **Bounds**: `SEEDS` runs (1,000 unless said), `SEED` has one again (`registry/simulation.rs`).
//! Left out on purpose: who is live (`registry/simulation.rs`); tools that an instance loads, which name others of its own.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use serde_json::value::to_raw_value;

use super::*;
use crate::endpoint::access::Access;
use crate::gateway::offered::Offered;
use crate::mcp::RawObject;
use crate::registry::entry::tests::{Random, sample};
use crate::registry::facts::Facts;
use crate::registry::foreign::{Row, Rows};
use crate::registry::simulation::for_each_seed;
use crate::registry::store::{Found, Scan};
use crate::registry::{Instance, Moment, Observer, View};

const REPLICAS: usize = 2;
const SCANS: u32 = 4;
/// They meet once they are made fit, are cut, are told twice, and are what others become.
const TOOLS: [&str; 9] = ["a", "a.b", "a/b", "a_b", "a.b", "", "é", "_", "a_b_000000"];

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
        let first = random.below(TOOLS.len() as u64) as usize;
        sources.push(Source {
            found: Found { entry: Arc::new(entry), modified: 0.0, readable: true },
            origin: if random.below(3) == 0 { Origin::Foreign } else { Origin::Ours },
            tools: (0..3).map(|step| TOOLS[(first + step * 2) % TOOLS.len()]).collect(),
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
        if !source.expect("whoever is listed was there").has_twin {
            let first = names.entry(member.id().to_owned()).or_insert_with(|| member.tools.clone());
            assert_eq!(*first, member.tools, "names of {} changed; SEED={seed}", member.id());
        }
    }
}
