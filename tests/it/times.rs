//! Bounds of time: heads, bodies and readers that do not come to an end.
//!
//! An idle connection ends after 75 s, too long for here: `src/http/engine.rs` tests it with shorter times.
//!
//! **Bounds**: each test waits for the limits of `src/limits.rs` (10 s), all its connections at once.
//! Left out on purpose: the engine `tiny-http`, which has no such bounds.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Connection, R06, Session, status};
use crate::dialog;
use crate::life::is_alive;
use crate::program::{Start, World};
use crate::wait::{PATIENCE, until, until_some};

/// What product.md gives a head, a body without a rate, and a reader that takes nothing.
const LIMIT: Duration = Duration::from_secs(10);
/// What a busy machine may add.
const GRACE: Duration = Duration::from_secs(4);
const SECOND: Duration = Duration::from_secs(1);

const POST: &str = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
    Accept: application/json, text/event-stream\r\n";

#[test]
fn single_bytes_do_not_extend_the_time_of_a_head_or_a_body() {
    let world = World::new();
    let instance = world.start(Start::new());
    let starts = [
        ("a head", "G".to_owned(), "head_timeout"),
        ("a head with a sound beginning", "GET /health HTTP/1.1\r\nHost: localhost\r\nX: ".to_owned(), "head_timeout"),
        ("a body", format!("{POST}Content-Length: 100000\r\n\r\n"), "body_timeout"),
        ("a body in one chunk", format!("{POST}Transfer-Encoding: chunked\r\n\r\nfffff\r\n"), "body_timeout"),
        ("a chunk size", format!("{POST}Transfer-Encoding: chunked\r\n\r\n1;"), "body_timeout"),
        (
            "a body that is waited for",
            format!("{POST}Expect: 100-continue\r\nContent-Length: 9999\r\n\r\n"),
            "body_timeout",
        ),
    ];
    thread::scope(|scope| {
        for address in [instance.address, world.gateway()] {
            for (what, start, code) in &starts {
                scope.spawn(move || check_trickle(address, what, start, code));
            }
        }
    });
    assert_eq!(status(instance.address, "/health"), Some(200));
}

/// Sends the start, then a byte a second.
fn check_trickle(address: SocketAddr, what: &str, start: &str, code: &str) {
    let mut connection = Connection::open(address).expect("a connection");
    // The time begins with the first byte, not with the connection.
    thread::sleep(SECOND * 2);
    connection.send(start.as_bytes()).expect("the start is sent");
    let started = Instant::now();
    let reply = loop {
        match connection.read_reply(SECOND) {
            Ok(reply) => break reply,
            Err(error) if error.kind() == ErrorKind::TimedOut => drop(connection.send(b"a")),
            Err(error) => panic!("{what}: {error}"),
        }
        assert!(started.elapsed() < LIMIT + GRACE, "{what} is waited for after {:?}", started.elapsed());
    };
    assert!(started.elapsed() > LIMIT - SECOND / 10, "{what} is refused after {:?}", started.elapsed());
    assert_eq!((reply.status, reply.json()["error"]["code"].as_str()), (408, Some(code)), "{what}");
    assert!(connection.is_closed(PATIENCE), "{what}: the connection ends");
}

#[test]
fn a_body_that_keeps_up_the_least_rate_is_waited_for() {
    let world = World::new();
    let instance = world.start(Start::new().no_gateway());
    let mut connection = Connection::open(instance.address).expect("a connection");
    let part = vec![b' '; 96 * 1024];
    let seconds = 13;
    connection.send(format!("{POST}Content-Length: {}\r\n\r\n", part.len() * seconds).as_bytes()).expect("a head");
    for second in 0..seconds {
        connection.send(&part).unwrap_or_else(|error| panic!("after {second} s: {error}"));
        thread::sleep(SECOND);
    }
    let reply = connection.read_reply(PATIENCE).expect("an answer");
    assert_eq!((reply.status, reply.json()["error"]["code"].as_i64()), (400, Some(-32700)), "{}", reply.text());
}

#[test]
fn a_reader_that_takes_nothing_is_let_go_and_keeps_no_thread() {
    let world = World::new();
    let instance = world.start(Start::new().no_gateway());
    let mut stalled = Connection::open(instance.address).expect("a connection");
    // More answers than the kernel holds for a reader who does not read.
    let requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2000);
    let sent = Instant::now();
    stalled.send(requests.as_bytes()).expect("the requests are sent");
    thread::sleep(LIMIT - SECOND * 2);
    assert!(instance.threads("conn-instance") > 0, "it is still waited for");
    assert_eq!(status(instance.address, "/health"), Some(200), "others are served");
    until(LIMIT + GRACE, "its thread has ended", || instance.threads("conn-instance") == 0);
    assert!(sent.elapsed() > LIMIT - SECOND / 10, "after {:?}", sent.elapsed());
    let mut answers = 0;
    while stalled.read_reply(PATIENCE).is_ok() {
        answers += 1;
    }
    assert!(answers > 0 && answers < 2000, "{answers} answers");
}

#[test]
fn a_client_that_does_not_read_and_does_not_come_back_ends_its_script() {
    let (world, _gateway, instance) = dialog::start();
    let session = Session::open(instance.address, R06);
    let note = world.path().join("note");
    let shout = dialog::call(json!(1), "talk__shout", json!({"note": note}), Some(json!(1)));
    let _stream = session.post_stream(&shout).expect("the head of a stream");
    let pid: u32 = until_some(PATIENCE, "the script runs", || fs::read_to_string(&note).ok()?.parse().ok());
    assert!(is_alive(pid));
    // The time of a reader that takes nothing, half a minute to come back, and the pause between two looks.
    until(Duration::from_secs(65), "the script is ended", || !is_alive(pid));
}
