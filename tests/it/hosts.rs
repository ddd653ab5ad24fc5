//! Several hosts with one shared folder: each replica is the gateway of an address of its own; clocks are hours apart,
//! processes are paused.
//!
//! Left out on purpose: what needs rights, as a network that is cut does (`tests/faults/`).

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::backend::{Backend, Manner, Registered, tool};
use crate::client::{R06, Session, get, status};
use crate::program::{Program, Start, World};
use crate::wait::{PATIENCE, print, until, until_some};

const STALE: Duration = Duration::from_secs(3);

/// The address of a host's gateway; hosts are 127.0.0.1, 127.0.0.2 …
fn gateway_of(world: &World, host: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), world.gateway().port()))
}

/// A replica of this host that serves as its gateway.
fn replica(world: &World, host: u8) -> Program {
    let address = format!("127.0.0.{host}");
    let times = ["--heartbeat-interval", "1", "--stale-timeout", "3"];
    let program = world.start(Start::new().args(["--host", &address]).args(times));
    until(PATIENCE, "its gateway is ready", || status(gateway_of(world, host), "/readyz") == Some(200));
    program
}

/// An instance of another host whose clock is so many seconds off.
fn instance(world: &World, dcc: &str, skew: f64) -> (Backend, Registered) {
    let backend = Backend::start(Manner::Json(json!({"content": []})), vec![tool("go"), tool("stop")]);
    let mut entry = backend.entry(dcc);
    let shifted = entry["heartbeat"]["at"].as_f64().expect("a time") + skew;
    (entry["heartbeat"]["at"], entry["registered_at"]) = (json!(shifted), json!(shifted));
    let registered = backend.register_as(&world.registry(), entry);
    (backend, registered)
}

/// The bytes of `tools/list`; nothing while nobody answers.
fn listed(gateway: SocketAddr) -> Option<String> {
    let mut session = Session::open(gateway, R06);
    let request = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {}});
    session.try_post(&request).ok().map(|reply| reply.text())
}

#[test]
fn replicas_of_three_hosts_give_the_same_bytes_whatever_their_clocks_say() {
    let world = World::new();
    let mut replicas: Vec<_> = (1..=3).map(|host| replica(&world, host)).collect();
    let hour = 3600.0;
    let skews = [0.0, -hour, hour, -10.0 * hour, 10.0 * hour, -400.0 * hour];
    let mut instances: Vec<_> = skews
        .iter()
        .zip(["maya", "blender", "maya", "houdini", "maya", "blender"])
        .map(|(skew, dcc)| instance(&world, dcc, *skew))
        .collect();
    let same = |what: &str, live: &[(Backend, Registered)]| {
        until_some(PATIENCE, what, || {
            let all: Vec<_> = (1..=3).map(|host| listed(gateway_of(&world, host))).collect::<Option<_>>()?;
            let is_whole = live.iter().all(|(backend, _)| all[0].contains(&format!("{}__go", backend.short())));
            let count = all[0].matches("__go\"").count();
            (is_whole && count == live.len() && all.iter().all(|list| *list == all[0])).then(|| all[0].clone())
        })
    };
    let first = same("all three list the same, in full", &instances);
    thread::sleep(STALE * 2);
    assert_eq!(same("and still do when nobody is new any more", &instances), first);

    drop(instances.remove(1));
    instances.push(instance(&world, "blender", 20.0 * hour));
    let second = same("one has left, one has come", &instances);
    assert_ne!(second, first);
    replicas[1].kill_9();
    replicas[1] = replica(&world, 2);
    assert_eq!(listed(gateway_of(&world, 2)), Some(second), "the first answer after a restart");
}

#[test]
fn a_paused_replica_removes_nobody_and_shows_no_dead_when_it_wakes() {
    let world = World::new();
    let (_awake, paused) = (replica(&world, 1), replica(&world, 2));
    let (early, early_entry) = instance(&world, "maya", 0.0);
    let (mut late, mut late_entry) = instance(&world, "maya", 3600.0);
    let gateway = gateway_of(&world, 2);
    let shows = |id: &str| world.ids_at(gateway).is_some_and(|ids| ids.iter().any(|listed| listed == id));
    until(PATIENCE, "the replica shows both", || shows(&early.id) && shows(&late.id));
    for round in 0..3 {
        paused.signal(Signal::STOP);
        let (newcomer, newcomer_entry) = instance(&world, "houdini", -3600.0);
        let gone = late.id.clone();
        drop((late, late_entry));
        // Clients that ask it meanwhile wait in its backlog and are served the moment it wakes.
        let asked = thread::spawn(move || (get(gateway, "/instances").ok(), Instant::now()));
        let asked_tools = thread::spawn(move || listed(gateway));
        until(PATIENCE, "it has been missing for long", || {
            world
                .instances()
                .is_some_and(|list| list.iter().all(|entry| entry["instance_id"] != json!(paused.instance_id)))
        });
        thread::sleep(STALE);
        let woken = Instant::now();
        paused.signal(Signal::CONT);
        let (reply, answered) = asked.join().expect("the client ends");
        let text = reply.expect("an answer").text();
        print(&format!("round {round}: answered {} ms after it woke", (answered - woken).as_millis()));
        assert!(!text.contains(&gone), "the dead are not shown: {text}");
        assert!(text.contains(&early.id), "and the living are: {text}");
        let tools = asked_tools.join().expect("the client ends").expect("an answer");
        assert!(!tools.contains(&gone[..8]) && tools.contains(early.short()), "nor in the list: {tools}");
        until(PATIENCE, "it is back by itself", || {
            assert!(early_entry.is_there() && newcomer_entry.is_there(), "nobody who lives is removed");
            shows(&newcomer.id)
                && paused.is_registered()
                && world.ids_at(world.gateway()).is_some_and(|ids| ids.contains(&paused.instance_id))
        });
        (late, late_entry) = (newcomer, newcomer_entry);
    }
}

#[test]
fn a_paused_instance_is_gone_after_the_stale_time_out_and_comes_back_by_itself() {
    let world = World::new();
    let gateways = [replica(&world, 1), replica(&world, 2)];
    let times = ["--heartbeat-interval", "1", "--stale-timeout", "3"];
    let other = world.start(Start::new().no_gateway().args(times));
    world.wait_instances(3);
    other.signal(Signal::STOP);
    let stopped = Instant::now();
    world.wait_instances(2);
    let time = stopped.elapsed();
    print(&format!("a paused instance is gone after {} ms", time.as_millis()));
    // Stale, two scans, and what a busy machine takes; its last beat may be a second old.
    assert!(time > STALE - Duration::from_millis(1500) && time < STALE * 2, "{time:?}");
    until(PATIENCE, "its files are removed", || !other.is_registered());
    assert!(gateways.iter().all(Program::is_registered));
    other.signal(Signal::CONT);
    world.wait_instances(3);
    assert_eq!(status(other.address, "/readyz"), Some(200));
}
