//! Bounds of number: connections and descriptors at their limit and after it, and a listener that is lost.
//!
//! **Bounds**: where something was held, as many threads and descriptors are left at the end as there were before.
//! Left out on purpose: the engine `tiny-http`, which bounds requests, not connections, and does not survive a lack of
//! descriptors.

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::net::{Shutdown, getsockname, shutdown, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::json;

use crate::client::{Connection, R06, Session, status};
use crate::program::{Program, Start, World};
use crate::skill;
use crate::wait::{PATIENCE, until};

const SECOND: Duration = Duration::from_secs(1);
/// Long enough to give a listener up, with a heartbeat a second: three silent probes of two seconds at most.
const PROBED_OFTEN: Duration = Duration::from_secs(6);

#[test]
fn a_full_listener_refuses_at_once_serves_those_inside_and_counts_as_alive() {
    let world = World::new();
    skill::probe(&world.skills());
    let skills = world.skills().display().to_string();
    let limits = ["--max-connections", "4", "--heartbeat-interval", "1"];
    let skills = ["--skill-paths", &skills, "--load-skills", "all"];
    let mut instance = world.start(Start::new().no_gateway().args(limits).args(skills));
    let address = instance.address;
    let release = world.path().join("release");

    thread::scope(|scope| {
        let mut caller = Session::open(address, R06);
        let arguments = json!({"release": release});
        let call = scope.spawn(move || caller.call("probe_tools__hold", arguments));
        let mut held = fill(address);
        let end = Instant::now() + PROBED_OFTEN;
        while Instant::now() < end {
            let asked = Instant::now();
            assert!(matches!(status(address, "/health"), Some(503)), "there is no place");
            assert!(asked.elapsed() < SECOND, "refused after {:?}", asked.elapsed());
            for inside in &mut held {
                assert_eq!(inside.request("GET", "/readyz", &[], None).map(|reply| reply.status).ok(), Some(200));
            }
            assert!(!instance.has_ended(), "full is not dead:\n{}", instance.stderr());
            thread::sleep(SECOND / 20);
        }
        fs::write(&release, "").expect("the call is let go");
        let result = call.join().expect("the call is answered");
        assert_eq!(result["structuredContent"]["released"], json!(true), "{result}");
        drop(held);
    });
    until(PATIENCE, "places come back", || status(address, "/health") == Some(200));
    until(PATIENCE, "no thread is left", || instance.threads("conn-instance") == 0);
}

/// Takes all places that are left, and gives back the connections that have one.
fn fill(address: SocketAddr) -> Vec<Connection> {
    let mut held = Vec::new();
    until(PATIENCE, "all places are taken", || {
        let mut connection = Connection::open(address).expect("a connection");
        let reply = connection.request("GET", "/health", &[], None).expect("an answer");
        let has_place = reply.status == 200;
        if has_place {
            held.push(connection);
        }
        // The program's own probe may have had the last place for a moment.
        !has_place && held.len() == 3
    });
    held
}

#[test]
fn the_descriptor_limit_is_reached_and_released_and_nothing_is_left() {
    const MOST: u32 = 64;
    let world = World::new();
    let start = Start::new().no_gateway().descriptors(MOST).args(["--heartbeat-interval", "1"]);
    let mut instance = world.start(start);
    let address = instance.address;
    // The last part to start, after the port has been found ready.
    until(PATIENCE, "all is started", || instance.threads("scanner") == 1 && instance.threads("conn-instance") == 0);
    let (threads, descriptors) = (instance.threads(""), instance.descriptors().len());

    let mut inside = Connection::open(address).expect("a connection");
    let held: Vec<Connection> = (0..200).map(|_| Connection::open(address).expect("the backlog has room")).collect();
    until(PATIENCE, "no descriptor is free", || instance.descriptors().len() >= MOST as usize);
    let end = Instant::now() + PROBED_OFTEN;
    while Instant::now() < end {
        let reply = inside.request("GET", "/health", &[], None).expect("an answer to one who is inside");
        assert_eq!(reply.status, 200);
        assert!(!instance.has_ended(), "a lack of descriptors is no lost listener:\n{}", instance.stderr());
        thread::sleep(SECOND / 20);
    }
    let log = instance.stderr();
    let warnings = log.matches("event=accept_failed").count();
    assert!((1..=10).contains(&warnings), "{warnings} warnings in {PROBED_OFTEN:?}:\n{log}");

    drop((inside, held));
    until(PATIENCE, "it serves again", || status(address, "/health") == Some(200));
    until(PATIENCE, "it is ready again", || status(address, "/readyz") == Some(200));
    until(PATIENCE, "no thread is left", || instance.threads("") <= threads);
    until(PATIENCE, "no descriptor is left", || instance.descriptors().len() <= descriptors);
}

#[test]
fn a_listener_that_is_lost_ends_the_process_with_4() {
    let world = World::new();
    let heartbeat = ["--heartbeat-interval", "1"];
    let mut instance = world.start(Start::new().no_gateway().args(heartbeat));
    let mut gateway = world.start(Start::new().args(heartbeat));
    // It accepts a moment before it has the role; without that it would only let go and bind the port again.
    until(PATIENCE, "it is the gateway", || gateway.is_gateway());
    lose_listener(&instance, instance.address);
    lose_listener(&gateway, world.gateway());
    for (program, address) in [(&mut instance, None), (&mut gateway, Some(world.gateway()))] {
        let lost = address.unwrap_or(program.address);
        assert_eq!(program.wait_exit(PATIENCE).code(), Some(4), "{}", program.stderr());
        assert!(program.stderr().contains(&format!("the listener at {lost} does not answer")), "{}", program.stderr());
    }
}

/// Ends the listening of a socket of the program from outside, by a duplicate of it: its accepting thread goes on, and
/// nobody can connect.
fn lose_listener(program: &Program, address: SocketAddr) {
    let pid = Pid::from_raw(program.pid() as i32).expect("a process id is not zero");
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("the program runs");
    let duplicates = program.descriptors().into_iter().map(|number| {
        pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).expect("a parent may take descriptors of its child")
    });
    let listening = duplicates.filter(|fd| sockopt::socket_acceptconn(fd).unwrap_or(false));
    let is_at = |fd: &std::os::fd::OwnedFd| {
        getsockname(fd).ok().and_then(|name| SocketAddr::try_from(name).ok()) == Some(address)
    };
    let listener = listening.into_iter().find(is_at).expect("a socket that listens there");
    shutdown(&listener, Shutdown::Read).expect("it listened");
}
