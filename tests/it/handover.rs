//! Gateways that leave on purpose: nothing is refused, nothing is lost, and only a newer version takes over.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Connection, R06, Reply, Session, encode, get};
use crate::program::{Program, Start, World, other_version};
use crate::skill;
use crate::wait::{PATIENCE, print, throughout, until, until_some};

const IS_PASSED: bool = cfg!(not(feature = "tiny-http"));

/// A process of this version.
fn start_as(world: &World, version: &str) -> Program {
    world.start(Start::new().through(&[&other_version(), version]).args(["--heartbeat-interval", "1"]))
}

fn yield_to(address: SocketAddr, body: &str, headers: &[(&str, &str)]) -> Reply {
    let mut connection = Connection::open(address).expect("connected");
    connection.send(&encode(address, "POST", "/gateway/yield", headers, Some(body.as_bytes()))).expect("sent");
    connection.read_reply(PATIENCE).expect("answered")
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[test]
fn busy_clients_do_not_notice_that_gateways_leave() {
    let world = World::new();
    skill::probe(&world.skills());
    let owner = world.start(Start::new().no_gateway().args([
        "--skill-paths",
        &world.skills().display().to_string(),
        "--load-skills",
        "all",
    ]));
    // IT_HANDOVERS=50 for the figure of the specification; it takes a minute.
    let handovers = std::env::var("IT_HANDOVERS").ok().and_then(|count| count.parse().ok()).unwrap_or(6);
    let mut programs: Vec<_> = (0..2).map(|_| world.start(Start::new())).collect();
    world.wait_instances(3);
    let tool = format!("{}__probe_tools__echo", owner.short());
    until(PATIENCE, "the tool is listed", || Session::open(world.gateway(), R06).tool_names().contains(&tool));
    let (stop, calls, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let gateway = world.gateway();
    thread::scope(|scope| {
        for number in 0..16 {
            let (stop, calls, failed, tool) = (&stop, &calls, &failed, &tool);
            // One session for all the time, kept over every handover.
            let mut session = Session::open(gateway, R06);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let id = session.next_id();
                    let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
                        "params": {"name": tool, "arguments": {"text": "x"}}});
                    let outcome = session.try_post(&request).map(|reply| reply.message());
                    let is_good =
                        outcome.as_ref().is_ok_and(|it| it["result"]["structuredContent"] == json!({"text": "x"}));
                    if !is_good {
                        print(&format!("failed: {outcome:?}"));
                    }
                    (if is_good { calls } else { failed }).fetch_add(1, Ordering::Relaxed);
                    // Some are idle for a while between two calls.
                    thread::sleep(Duration::from_millis(if number % 2 == 0 { 0 } else { 700 }));
                }
            });
        }
        let mut left = Vec::new();
        for _ in 0..handovers {
            until(PATIENCE, "one is the gateway", || programs.iter().any(Program::is_gateway));
            thread::sleep(Duration::from_millis(400));
            let leaving = programs.iter().position(Program::is_gateway).expect("one is");
            let leaving = programs.swap_remove(leaving);
            leaving.term();
            left.push(leaving);
            programs.push(world.start(Start::new()));
        }
        stop.store(true, Ordering::Relaxed);
        for mut program in left {
            assert_eq!(program.wait_exit(PATIENCE).code(), Some(0));
        }
    });
    let [calls, failed] = [&calls, &failed].map(|count| count.load(Ordering::Relaxed));
    print(&format!("{handovers} handovers: {calls} calls, {failed} failed"));
    assert!(calls > 50);
    if IS_PASSED {
        assert_eq!(failed, 0);
    }
}

#[test]
fn an_idle_connection_has_its_next_request_answered_while_the_process_stops() {
    if !IS_PASSED {
        return;
    }
    let world = World::new();
    let mut gateway = world.start(Start::new());
    let other = world.start(Start::new());
    until(PATIENCE, "the first one is the gateway", || gateway.is_gateway());
    thread::sleep(Duration::from_millis(300));
    let ports = [world.gateway(), gateway.address];
    let mut idle = ports.map(|address| {
        let mut connection = Connection::open(address).expect("connected");
        connection.send(&encode(address, "GET", "/health", &[], None)).expect("sent");
        assert_eq!(connection.read_reply(PATIENCE).expect("answered").status, 200);
        connection
    });
    gateway.term();
    until(PATIENCE, "the other one has the port", || other.is_gateway());
    thread::sleep(Duration::from_secs(2));
    for (connection, address) in idle.iter_mut().zip(ports) {
        connection.send(&encode(address, "GET", "/health", &[], None)).expect("it is still open");
        let reply = connection.read_reply(PATIENCE).expect("it is still answered");
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    }
    assert_eq!(gateway.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
#[cfg_attr(
    feature = "tiny-http",
    ignore = "nothing is passed on with tiny_http: standbys are not told for whom the port is free, and an old one may bind it first"
)]
fn a_newer_version_asks_for_the_port_and_keeps_it() {
    let world = World::new();
    let mut old: Vec<_> = (0..2).map(|_| world.start(Start::new().args(["--heartbeat-interval", "1"]))).collect();
    until(PATIENCE, "an old one is the gateway", || old.iter().any(Program::is_gateway));
    let new = start_as(&world, "99.0.0-rc.1");
    until(PATIENCE, "the newer one has it", || new.is_gateway() && !old.iter().any(Program::is_gateway));
    let leads = |program: &Program| program.stderr().matches("event=gateway address").count();
    thread::sleep(Duration::from_secs(4));
    assert!(new.is_gateway(), "and keeps it");
    assert_eq!(old.iter().map(leads).sum::<usize>() + leads(&new), 2, "it went over once");

    let same = start_as(&world, "99.0.0-rc.1");
    thread::sleep(Duration::from_secs(2));
    assert!(new.is_gateway() && !same.is_gateway(), "the same version does not disturb");
    let released = start_as(&world, "99.0.0");
    until(PATIENCE, "a release is newer than what led to it", || released.is_gateway());
    drop(released);
    drop((new, same));
    until(PATIENCE, "the old ones were its standbys all along", || old.iter().any(Program::is_gateway));
    assert!(old.iter_mut().all(|program| !program.has_ended()));
}

#[test]
fn who_asks_for_the_port_is_looked_at() {
    let world = World::new();
    let gateway = world.start(Start::new());
    until(PATIENCE, "it is the gateway", || gateway.is_gateway());
    let address = world.gateway();
    let newer = r#"{"challenger_version":"99.0.0"}"#;
    let code = |reply: &Reply| reply.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
    for (body, headers, status, expected) in [
        (newer, vec![JSON], 409, "no_such_instance"),
        (r#"{"challenger_version":"0.0.1"}"#, vec![JSON], 409, "not_newer"),
        (r#"{"challenger_version":"2024"}"#, vec![JSON], 400, "bad_request"),
        ("{}", vec![JSON], 400, "bad_request"),
        ("nonsense", vec![JSON], 400, "bad_request"),
        (newer, vec![("Content-Type", "text/plain")], 415, "unsupported_media_type"),
        (newer, vec![], 415, "unsupported_media_type"),
        (newer, vec![JSON, ("X-Forwarded-For", "10.0.0.1")], 403, "peer_not_allowed"),
        (newer, vec![JSON, ("Origin", "https://evil.example")], 403, "origin_not_allowed"),
    ] {
        let reply = yield_to(address, body, &headers);
        assert_eq!((reply.status, code(&reply).as_str()), (status, expected), "{body} {headers:?}");
    }
    let large = format!("{{\"challenger_version\":\"99.0.0\",\"x\":\"{}\"}}", "x".repeat(4000));
    assert_eq!(yield_to(address, &large, &[JSON]).status, 413);
    assert_eq!(get(address, "/gateway/yield").expect("answered").status, 405);
    assert_eq!(get(gateway.address, "/gateway/yield").expect("answered").status, 404, "not a route of an instance");
    throughout(Duration::from_millis(200), "it is still the gateway", || gateway.is_gateway());

    let challenger = world.start(Start::new().no_gateway().through(&[&other_version(), "99.0.0"]));
    world.wait_instances(2);
    let reply = yield_to(address, newer, &[JSON]);
    assert_eq!((reply.status, &reply.json()["yielded"]), (200, &json!(true)), "{}", reply.text());
    until(PATIENCE, "nobody took it, so it comes back", || {
        gateway.stderr().matches("event=gateway address").count() == 2
    });
    let reply = until_some(PATIENCE, "an answer", || get(address, "/instances").ok());
    assert_eq!(reply.json()["total"], json!(2));
    assert_eq!(code(&yield_to(address, newer, &[JSON])), "too_soon");
    drop(challenger);
}

#[test]
fn sockets_of_a_service_manager_outlive_the_process() {
    let world = World::new();
    let listeners = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    let [gateway, instance] = listeners.each_ref().map(|listener| listener.local_addr().expect("bound"));
    let sockets = || listeners.each_ref().map(|listener| listener.try_clone().expect("a duplicate").into()).into();
    let begin = || {
        let start = Start::new().with_sockets(sockets(), "gateway:instance").gateway_port(gateway.port());
        let mut program = world.launch(start);
        program.wait_ready();
        program
    };
    let mut first = begin();
    assert_eq!(first.address, instance);
    until(PATIENCE, "it is the gateway", || first.is_gateway());
    first.term();
    assert_eq!(first.wait_exit(PATIENCE).code(), Some(0));
    // Nobody serves, and nobody is refused: who connects now is answered by the next one.
    let waiting = [gateway, instance].map(|address| {
        let mut connection = Connection::open(address).expect("not refused");
        connection.send(&encode(address, "GET", "/health", &[], None)).expect("sent");
        connection
    });
    let second = begin();
    for mut connection in waiting {
        assert_eq!(connection.read_reply(PATIENCE).expect("answered").status, 200);
    }
    until(PATIENCE, "it is the gateway", || second.is_gateway());
}

#[test]
fn a_socket_that_is_not_what_the_flags_say_is_refused() {
    let world = World::new();
    let elsewhere = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let connected = std::net::TcpStream::connect(elsewhere.local_addr().expect("bound")).expect("connected");
    let (one, other) = (elsewhere.try_clone().expect("a duplicate"), UnixDatagram::unbound().expect("a socket"));
    for (socket, name, expected) in [
        (one.into(), "gateway", "is bound to 127.0.0.1:"),
        (connected.into(), "gateway", "is no TCP socket that listens"),
        (other.into(), "instance", "is no TCP socket that listens"),
    ] {
        let mut program = world.launch(Start::new().with_sockets(vec![socket], name));
        assert_eq!(program.wait_exit(PATIENCE).code(), Some(2));
        until(PATIENCE, "it says why", || program.stderr().contains(expected));
        assert_eq!(program.stderr().lines().count(), 1, "{}", program.stderr());
    }
}

#[test]
fn the_watchdog_hears_of_a_process_that_answers() {
    let world = World::new();
    let path = world.path().join("notify");
    let service = UnixDatagram::bind(&path).expect("a socket");
    service.set_read_timeout(Some(PATIENCE)).expect("a time");
    let start = Start::new().env("NOTIFY_SOCKET", &path.display().to_string()).env("WATCHDOG_USEC", "400000");
    let program = world.start(start);
    let heard = || {
        let mut bytes = [0; 64];
        let count = service.recv(&mut bytes).expect("word in time");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    assert_eq!(heard(), "READY=1");
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(heard(), "WATCHDOG=1");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "at least about twice in its time");
    program.term();
    until(PATIENCE, "it says that it stops", || heard() == "STOPPING=1");
}

#[test]
fn scripts_are_not_told_what_the_service_manager_says() {
    let world = World::new();
    let script = "#!/bin/sh\nenv | grep -c -e '^LISTEN_' -e '^NOTIFY_SOCKET=' -e '^WATCHDOG_' > count\nread n < count\necho \"{\\\"n\\\":$n}\"\n";
    skill::plain(&world.skills(), "tell", &[("tell.sh", script)]);
    let skills = world.skills().display().to_string();
    let start = Start::new().env("WATCHDOG_USEC", "60000000").env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "x");
    let program = world.start(start.args(["--skill-paths", &skills, "--load-skills", "all"]));
    let told: Value = Session::open(program.address, R06).structured("tell", json!({}));
    assert_eq!(told, json!({"n": 0}));
}
