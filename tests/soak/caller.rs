//! The well-behaved client of `make soak`: calls one tool at a steady rate and tells how it fared.
//!
//! `caller PORT SECONDS PER_SECOND`, with the message in `SOAK_BODY` and the session in `SOAK_SESSION`. Every second call
//! comes on a new connection, the others on one that is kept: a newcomer must get in as well. It prints one JSON line.
//! A call is due at its time, however late the one before ended, and its time is counted from then: a server that
//! stalls for a second shows in twenty calls, not in one.
//! **Bounds**: `PATIENCE` for a call.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [port, seconds, per_second] = numbers[..] else {
        eprintln!("usage: caller PORT SECONDS PER_SECOND");
        std::process::exit(2);
    };
    let request = request();
    let target: SocketAddr = ([127, 0, 0, 1], port as u16).into();
    let started = Instant::now();
    let mut kept = None;
    let mut took = Vec::new();
    let (mut failed, mut first_failure) = (0, String::new());
    for number in 0..seconds * per_second {
        let due = started + Duration::from_micros(number * 1_000_000 / per_second);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut fresh = None;
        match call(target, if number % 2 == 0 { &mut kept } else { &mut fresh }, request.as_bytes()) {
            Ok(()) => took.push(due.elapsed().as_micros()),
            Err(error) => {
                failed += 1;
                kept = None;
                if first_failure.is_empty() {
                    first_failure = error.to_string().replace(['"', '\\', '\n', '\r'], " ");
                }
            }
        }
    }
    took.sort_unstable();
    let at =
        |share: f64| took.get(((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1))).unwrap_or(&0);
    println!(
        r#"{{"answered":{},"failed":{failed},"first_failure":"{first_failure}","p50":{},"p99":{},"max":{}}}"#,
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn request() -> String {
    let body = std::env::var("SOAK_BODY").unwrap_or_default();
    let mut fields = String::from("Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n");
    if let Some(session) = std::env::var("SOAK_SESSION").ok().filter(|session| !session.is_empty()) {
        fields += &format!("Mcp-Session-Id: {session}\r\nMCP-Protocol-Version: 2025-06-18\r\n");
    }
    format!("POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// One call on the connection, which is opened if there is none; an answer that is not the result is an error.
fn call(target: SocketAddr, connection: &mut Option<TcpStream>, request: &[u8]) -> io::Result<()> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => TcpStream::connect_timeout(&target, PATIENCE)?,
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !is_whole(&answer) {
        match stream.read(&mut piece)? {
            0 => return Err(io::Error::other(format!("it closed after {:?}", String::from_utf8_lossy(&answer)))),
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    if !text.starts_with("HTTP/1.1 200 ") || !text.contains("\"result\"") || text.contains("\"isError\":true") {
        return Err(io::Error::other(text.into_owned()));
    }
    if !text.to_ascii_lowercase().contains("\r\nconnection: close") {
        *connection = Some(stream);
    }
    Ok(())
}

/// Whether an answer with a length, or with chunks, is there to its end.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.map_or_else(|| answer.ends_with(b"0\r\n\r\n"), |length| answer.len() >= end + 4 + length)
}
