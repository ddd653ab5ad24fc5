//! GET streams: what they begin with, what they announce and when, and what a client is told that was away.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{R06, Session};
use crate::program::{Program, Start, World};
use crate::skill;
use crate::wait::{PATIENCE, promise, until, until_some};

/// Time in which a notification that must not come would have come: twice the scan of the registry, and more.
const QUIET: Duration = Duration::from_millis(1500);

#[test]
fn list_changed_comes_when_the_new_tool_is_listed() {
    promise("list_changed on the gateway after load_skill on an instance", Duration::from_secs(1), || {
        let (world, _gateway, instance) = gateway_and_instance();
        let mut session = Session::open(world.gateway(), R06);
        let mut stream = session.stream(None);
        stream.settle();
        let mut direct = Session::open(instance.address, R06);
        let tool = format!("{}__probe_tools__echo", instance.short());
        assert!(!session.tool_names().contains(&tool), "the skill is not loaded yet");

        let asked = Instant::now();
        let loaded = direct.structured("load_skill", json!({"skill_name": "probe-tools"}));
        assert_eq!(loaded["loaded"], json!(true), "{loaded}");
        stream.wait_list_changed(PATIENCE);
        let time = asked.elapsed();
        assert!(session.tool_names().contains(&tool), "the new tool is listed when the notification arrives");
        assert_eq!(session.structured(&tool, json!({"text": "x"})), json!({"text": "x"}));
        assert!(stream.next_message(QUIET).is_none(), "one change, one notification");
        time
    });
}

#[test]
fn an_instance_announces_its_own_changes() {
    let (_world, _gateway, instance) = gateway_and_instance();
    let mut session = Session::open(instance.address, R06);
    let mut stream = session.stream(None);
    for (tool, listed) in [("load_skill", true), ("unload_skill", false)] {
        session.structured(tool, json!({"skill_name": "probe-tools"}));
        stream.wait_list_changed(PATIENCE);
        let names = session.tool_names();
        assert_eq!(names.contains(&"probe_tools__echo".to_owned()), listed, "after {tool}: {names:?}");
    }
}

#[test]
fn a_stream_begins_with_the_time_to_wait_and_an_id() {
    let (world, _gateway, instance) = gateway_and_instance();
    for address in [world.gateway(), instance.address] {
        let session = Session::open(address, R06);
        let mut stream = session.stream(None);
        assert_eq!(stream.header("x-accel-buffering"), Some("no"));
        assert_eq!(stream.header("cache-control"), Some("no-store"));
        let first = stream.next(PATIENCE).expect("something at once");
        assert_eq!(first.retry, Some(4000), "{first:?}");
        let id = first.id.or_else(|| stream.next(PATIENCE).and_then(|event| event.id));
        assert!(id.is_some_and(|id| !id.is_empty()), "an id that a client can come back with");
    }
}

#[test]
fn every_session_gets_each_change_once_under_an_id_of_its_own() {
    let (world, _gateway, instance) = gateway_and_instance();
    let sessions: Vec<_> = (0..3).map(|_| Session::open(world.gateway(), R06)).collect();
    let mut streams: Vec<_> = sessions.iter().map(|session| session.stream(None)).collect();
    let mut seen: Vec<HashSet<String>> = streams.iter_mut().map(|stream| HashSet::from([stream.settle()])).collect();
    let mut direct = Session::open(instance.address, R06);
    for tool in ["load_skill", "unload_skill", "load_skill"] {
        direct.structured(tool, json!({"skill_name": "probe-tools"}));
        for (stream, ids) in streams.iter_mut().zip(&mut seen) {
            let id = stream.wait_list_changed(PATIENCE).expect("a notification has an event id");
            assert!(ids.insert(id), "an id does not repeat within a session");
        }
    }
    for stream in &mut streams {
        assert!(stream.next_message(QUIET).is_none(), "nothing more than one for each change");
    }
}

#[test]
fn a_client_that_was_away_is_told_once_by_any_process_if_something_changed() {
    let (world, mut gateway, instance) = gateway_and_instance();
    let _standby = world.start(Start::new());
    world.wait_instances(3);
    let session = Session::open(world.gateway(), R06);
    let mut stream = session.stream(None);
    let id = stream.settle();
    drop(stream);

    let mut again = session.stream(Some(&id));
    assert!(again.next_message(QUIET).is_none(), "nothing had changed");
    drop(again);

    gateway.kill_9();
    let mut direct = Session::open(instance.address, R06);
    direct.structured("load_skill", json!({"skill_name": "probe-tools"}));
    let tool = format!("{}__probe_tools__echo", instance.short());
    until(PATIENCE, "a successor lists the new tool", || {
        let request = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/list", "params": {}});
        session.beside().try_post(&request).is_ok_and(|reply| reply.text().contains(&tool))
    });

    let mut elsewhere = session.stream(Some(&id));
    let newer = elsewhere.wait_list_changed(PATIENCE).expect("a notification has an event id");
    assert!(elsewhere.next_message(QUIET).is_none(), "exactly one");
    drop(elsewhere);
    let mut last = session.stream(Some(&newer));
    assert!(last.next_message(QUIET).is_none(), "what it was told is not told again");
}

/// Found by `make clients`: a client that came back at once was told of a change back to what a successor had last seen.
#[test]
fn a_successor_knows_at_least_what_its_predecessor_told() {
    let world = World::new();
    skill::probe(&world.skills());
    let mut gateway = world.start(Start::new());
    let skills = world.skills().display().to_string();
    let instance = world.start(Start::new().no_gateway().args(["--dcc", "maya", "--skill-paths", &skills]));
    world.wait_instances(2);
    let session = Session::open(world.gateway(), R06);
    for round in 0..8 {
        let standby = world.start(Start::new());
        world.wait_instances(3);
        let mut stream = session.stream(None);
        stream.settle();
        // Each looks at the registry twice a second: now one is first, now the other.
        thread::sleep(Duration::from_millis(70) * round);
        let (tell, told) = std::sync::mpsc::channel();
        let mut resumed = thread::scope(|scope| {
            let following = scope.spawn(|| {
                let id = stream.wait_list_changed(PATIENCE).expect("a notification has an event id");
                tell.send(()).expect("somebody waits for it");
                assert!(stream.next_message(PATIENCE).is_none(), "one change, one notification");
                until_some(PATIENCE, "a successor answers", || session.try_stream(Some(&id)).ok())
            });
            let mut direct = Session::open(instance.address, R06);
            let change = if round % 2 == 0 { "load_skill" } else { "unload_skill" };
            direct.structured(change, json!({"skill_name": "probe-tools"}));
            told.recv_timeout(PATIENCE).expect("the change is told");
            std::mem::replace(&mut gateway, standby).kill_9();
            following.join().expect("the stream goes on at the successor")
        });
        assert!(resumed.next_message(QUIET).is_none(), "round {round}: nothing has changed since");
    }
}

#[test]
fn the_same_state_has_the_same_id_on_another_process() {
    let (world, mut gateway, _instance) = gateway_and_instance();
    let standby = world.start(Start::new());
    world.wait_instances(3);
    let session = Session::open(world.gateway(), R06);
    let mut stream = session.stream(None);
    let id = stream.settle();
    let before = session.beside().tool_names();
    gateway.kill_9();
    assert!(stream.has_ended(PATIENCE), "the stream ends with its process");
    until(PATIENCE, "a successor answers", || world.instances().is_some_and(|list| list.len() == 2));
    assert_eq!(session.beside().tool_names(), before, "a process without skills leaves with no tool");
    let mut elsewhere = session.stream(Some(&id));
    assert!(elsewhere.next_message(QUIET).is_none(), "nothing has changed, so nothing is told by {}", standby.short());
}

#[test]
fn an_id_that_is_not_understood_counts_as_changed() {
    let (world, _gateway, _instance) = gateway_and_instance();
    let session = Session::open(world.gateway(), R06);
    for id in ["nonsense", "0", "../../etc/passwd", "ffffffffffffffff-1"] {
        let mut stream = session.stream(Some(id));
        let mut told: Vec<String> = std::iter::from_fn(|| stream.next_message(Duration::from_millis(500)))
            .map(|(_, message)| message["method"].as_str().unwrap_or_default().to_owned())
            .collect();
        told.sort();
        let kinds = ["prompts", "resources", "tools"].map(|kind| format!("notifications/{kind}/list_changed"));
        assert_eq!(told, kinds, "exactly one of each kind for {id:?}");
    }
}

#[test]
fn a_silent_stream_is_kept_open_by_comments() {
    let (world, _gateway, _instance) = gateway_and_instance();
    let session = Session::open(world.gateway(), R06);
    let mut stream = session.stream(None);
    stream.settle();
    let event = stream.next(Duration::from_secs(20)).expect("a comment line at least every 15 s");
    assert!(event.comment.is_some(), "{event:?}");
}

#[test]
fn a_ninth_stream_of_a_session_closes_the_oldest() {
    let (world, _gateway, _instance) = gateway_and_instance();
    let session = Session::open(world.gateway(), R06);
    let mut streams: Vec<_> = (0..8).map(|_| session.stream(None)).collect();
    for stream in &mut streams {
        stream.settle();
    }
    let mut ninth = session.stream(None);
    ninth.settle();
    assert!(streams[0].has_ended(PATIENCE), "the oldest makes room");
    assert!(!streams[7].has_ended(Duration::from_millis(300)), "the others stay");
}

/// A gateway without skills, and a `maya` instance with the skill `probe-tools` that is not loaded.
fn gateway_and_instance() -> (World, Program, Program) {
    let world = World::new();
    skill::probe(&world.skills());
    let gateway = world.start(Start::new());
    until(PATIENCE, "the first process is the gateway", || gateway.is_gateway());
    let skills = world.skills().display().to_string();
    let instance = world.start(Start::new().args(["--dcc", "maya", "--skill-paths", &skills]));
    world.wait_instances(2);
    (world, gateway, instance)
}
