//! HTTP that breaks a bound or the framing: a clear refusal, then the connection ends and nothing else suffers.

use std::time::Duration;

use crate::client::{Connection, status};
use crate::program::{Start, World};
use crate::wait::{PATIENCE, until};

#[test]
fn what_breaks_a_bound_or_the_framing_is_refused_and_closed() {
    let world = World::new();
    let instance = world.start(Start::new());
    let get = |rest: &str| format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{rest}\r\n");
    let post = |rest: &str| format!("POST /mcp HTTP/1.1\r\nHost: localhost\r\n{rest}\r\n");
    let many: String = (0..101).map(|number| format!("X-{number}: 1\r\n")).collect();
    let cases = [
        ("a long header", get(&format!("X: {}\r\n", "a".repeat(17 * 1024))), 431),
        ("a head without an end", format!("GET /health HTTP/1.1\r\nX: {}", "a".repeat(20 * 1024)), 431),
        ("many headers", get(&many), 431),
        ("a long target", format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(9 * 1024)), 414),
        ("a body beyond all bounds", post("Content-Length: 200000000000000\r\n"), 413),
        ("a length twice", post("Content-Length: 2\r\nContent-Length: 3\r\n"), 400),
        ("a length and chunks", post("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"), 400),
        ("a signed length", post("Content-Length: +2\r\n"), 400),
        ("a negative length", post("Content-Length: -1\r\n"), 400),
        ("a length that is no number", post("Content-Length: two\r\n"), 400),
        ("an unknown transfer coding", post("Transfer-Encoding: gzip\r\n"), 400),
        ("a space before the colon", get("X : 1\r\n"), 400),
        ("a folded header", get("X: 1\r\n  2\r\n"), 400),
        ("bare line feeds", "GET /health HTTP/1.1\nHost: localhost\n\n".to_owned(), 400),
        ("no host", "GET /health HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("no HTTP", "hello there\r\n\r\n".to_owned(), 400),
        ("TLS", "\u{16}\u{3}\u{1}\0\u{5}\u{1}\r\n\r\n".to_owned(), 400),
    ];
    for address in [instance.address, world.gateway()] {
        for (what, bytes, expected) in &cases {
            let mut connection = Connection::open(address).expect("a connection");
            connection.send(bytes.as_bytes()).unwrap_or_else(|error| panic!("{what}: {error}"));
            let reply = connection.read_reply(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(reply.status, *expected, "{what}: {}", reply.text());
            assert!(reply.json()["error"]["message"].is_string(), "{what}: {}", reply.text());
            assert!(connection.is_closed(PATIENCE), "{what}: the connection ends");
            assert_eq!(status(address, "/health"), Some(200), "after {what}");
        }
    }
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let world = World::new();
    let instance = world.start(Start::new().no_gateway().args(["--max-connections", "4"]));
    let mut held: Vec<Connection> = Vec::new();
    until(PATIENCE, "the limit is reached", || {
        let mut connection = Connection::open(instance.address).expect("a connection");
        let reply = connection.request("GET", "/health", &[], None).expect("an answer");
        held.push(connection);
        reply.status == 503
    });
    assert!(held.len() <= 5, "{} connections were served", held.len() - 1);
    assert!(held.pop().is_some_and(|mut refused| refused.is_closed(PATIENCE)), "the refused one is closed");
    held.clear();
    until(PATIENCE, "places come back", || status(instance.address, "/health") == Some(200));
}

#[test]
fn a_body_in_chunks_and_pipelined_requests_are_understood() {
    let world = World::new();
    let instance = world.start(Start::new().no_gateway());
    let mut connection = Connection::open(instance.address).expect("a connection");
    let chunked = "POST /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let next = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    connection.send(format!("{chunked}{next}{next}").as_bytes()).expect("three requests at once");
    let answers: Vec<u16> = (0..3).filter_map(|_| connection.read_reply(PATIENCE).ok().map(|r| r.status)).collect();
    assert_eq!(answers, [405, 200, 200]);
    let mut slow = Connection::open(instance.address).expect("a connection");
    for byte in next.bytes() {
        slow.send(&[byte]).expect("a byte");
    }
    assert_eq!(slow.read_reply(Duration::from_secs(5)).map(|reply| reply.status).ok(), Some(200));
}

#[test]
fn clients_that_take_all_places_do_not_end_the_process() {
    let world = World::new();
    let args = ["--max-connections", "4", "--heartbeat-interval", "1"];
    let mut instance = world.start(Start::new().no_gateway().args(args));
    let _held: Vec<Connection> = (0..8).map(|_| Connection::open(instance.address).expect("a connection")).collect();
    until(PATIENCE, "no place is free", || status(instance.address, "/health") != Some(200));
    let beats = || instance.entry().and_then(|entry| entry["heartbeat"]["seq"].as_u64());
    let before = beats();
    // Three silent probes, one each heartbeat, would be the end.
    until(PATIENCE, "it goes on beating", || beats() > before.map(|seq| seq + 4));
    assert!(!instance.has_ended(), "full is not dead");
}

#[test]
fn a_refused_origin_is_refused_before_its_body() {
    let world = World::new();
    let instance = world.start(Start::new());
    let mut connection = Connection::open(instance.address).expect("a connection");
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {}\r\nOrigin: http://evil.example\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: 1000000\r\n\r\n",
        instance.address
    );
    connection.send(head.as_bytes()).expect("the head is sent");
    let reply = connection.read_reply(PATIENCE).expect("an answer without the body");
    assert_eq!(reply.status, 403, "{}", reply.text());
}
