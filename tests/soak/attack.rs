//! The attack of `make soak`: everything at once against the given ports, until the time is over.
//!
//! `attack SECONDS PORT [PORT …]`. The first port gets the 2,000 idle connections and the slow senders; the other kinds
//! go to all ports in turn. It prints one JSON line that counts what was really done, so that no attack that did not
//! reach its target can pass for one that was withstood.
//! **Bounds**: about 3,100 connections at a time; a pause after each connection of the paced kinds, so that the
//! attacker's own use of the processor stays alike for every server.
//! Left out on purpose: judging the answers. Whether others are still served is what `caller.rs` measures.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const IDLE: usize = 2000;
const SLOW_HEADS: usize = 500;
const SLOW_BODIES: usize = 500;
/// A slow sender sends one byte this often.
const BYTE_EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);
/// Threads of each paced kind, and what each pauses between two connections.
const THREADS: usize = 4;
const PAUSE: Duration = Duration::from_millis(60);
/// Connections that send whole requests without a pause.
const FLOODS: usize = 4;

const SLOW_HEAD: &[u8] = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ";
const SLOW_BODY: &[u8] = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
Accept: application/json, text/event-stream\r\nContent-Length: 100000\r\n\r\n{";
const HUGE_LENGTH: &[u8] = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
Accept: application/json, text/event-stream\r\nContent-Length: 200000000000000\r\n\r\n{";
const SMALL_HEAD: &[u8] = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
const LARGE_ANSWER: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

#[derive(Default)]
struct Counts {
    /// Connections that could not be opened, of whatever kind.
    not_opened: AtomicU64,
    idle: AtomicU64,
    slow_heads: AtomicU64,
    slow_bodies: AtomicU64,
    slow_bytes: AtomicU64,
    large_heads: AtomicU64,
    flood_heads: AtomicU64,
    huge_lengths: AtomicU64,
    random_bytes: AtomicU64,
    aborted_answers: AtomicU64,
}

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let Some((seconds, ports)) = numbers.split_first().filter(|(_, ports)| !ports.is_empty()) else {
        eprintln!("usage: attack SECONDS PORT [PORT ...]");
        std::process::exit(2);
    };
    let targets: Vec<SocketAddr> = ports.iter().map(|port| ([127, 0, 0, 1], *port as u16).into()).collect();
    let end = Instant::now() + Duration::from_secs(*seconds);
    let counts = Counts::default();
    let (first, counts, targets) = (targets[0], &counts, &targets);
    thread::scope(|scope| {
        scope.spawn(move || hold(first, end, IDLE, b"", false, &counts.idle, counts));
        scope.spawn(move || hold(first, end, SLOW_HEADS, SLOW_HEAD, true, &counts.slow_heads, counts));
        scope.spawn(move || hold(first, end, SLOW_BODIES, SLOW_BODY, true, &counts.slow_bodies, counts));
        for number in 0..THREADS {
            let target = targets[number % targets.len()];
            scope.spawn(move || again(end, || large_head(target), &counts.large_heads, counts));
            scope.spawn(move || again(end, || huge_length(target), &counts.huge_lengths, counts));
            scope.spawn(move || again(end, || aborted_answer(target), &counts.aborted_answers, counts));
            let mut seed = 0x9e37_79b9_7f4a_7c15 + number as u64;
            scope.spawn(move || again(end, || random_bytes(target, &mut seed), &counts.random_bytes, counts));
        }
        for number in 0..FLOODS {
            let target = targets[number % targets.len()];
            scope.spawn(move || while Instant::now() < end && flood(target, end, counts).is_err() {});
        }
    });
    println!("{}", counts.to_json());
}

/// Keeps `count` connections open, each with `opening` sent; a slow one then adds a byte now and then. Those that the
/// server ends are opened anew.
fn hold(
    target: SocketAddr,
    end: Instant,
    count: usize,
    opening: &[u8],
    is_slow: bool,
    opened: &AtomicU64,
    counts: &Counts,
) {
    let mut held: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
    while Instant::now() < end {
        let round = Instant::now();
        for place in &mut held {
            let is_open = place.as_mut().is_some_and(|stream| still_open(stream, is_slow, counts));
            if !is_open && Instant::now() < end {
                *place = open_held(target, opening).ok();
                if place.is_some() { opened } else { &counts.not_opened }.fetch_add(1, Relaxed);
            }
        }
        let pause = BYTE_EVERY.saturating_sub(round.elapsed());
        thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
    }
}

fn open_held(target: SocketAddr, opening: &[u8]) -> io::Result<TcpStream> {
    let mut stream = open(target)?;
    stream.write_all(opening)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn still_open(stream: &mut TcpStream, is_slow: bool, counts: &Counts) -> bool {
    let is_silent = matches!(stream.read(&mut [0; 512]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
    if is_silent && is_slow && stream.write(b" ").is_ok() {
        counts.slow_bytes.fetch_add(1, Relaxed);
    }
    is_silent
}

/// One connection after the other, with a pause after each.
fn again(end: Instant, mut attack: impl FnMut() -> io::Result<()>, done: &AtomicU64, counts: &Counts) {
    while Instant::now() < end {
        if attack().is_ok() { done } else { &counts.not_opened }.fetch_add(1, Relaxed);
        thread::sleep(PAUSE);
    }
}

/// A head of 64 KiB in small fields: too many of them and too long.
fn large_head(target: SocketAddr) -> io::Result<()> {
    let mut stream = open(target)?;
    let fields: String = (0..2000).map(|number| format!("X-Field-{number}: {number:020}\r\n")).collect();
    let _ = stream.write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    let _ = stream.write_all(fields.as_bytes());
    let _ = stream.read(&mut [0; 4096]);
    Ok(())
}

fn huge_length(target: SocketAddr) -> io::Result<()> {
    let mut stream = open(target)?;
    let _ = stream.write_all(HUGE_LENGTH);
    let _ = stream.read(&mut [0; 4096]);
    Ok(())
}

/// Asks for an answer and closes as soon as its first byte has come: the rest meets a reset.
fn aborted_answer(target: SocketAddr) -> io::Result<()> {
    let mut stream = open(target)?;
    let _ = stream.write_all(LARGE_ANSWER);
    let _ = stream.peek(&mut [0]);
    Ok(())
}

fn random_bytes(target: SocketAddr, seed: &mut u64) -> io::Result<()> {
    let mut stream = open(target)?;
    let bytes: Vec<u8> = (0..2048)
        .map(|_| {
            *seed ^= *seed << 13;
            *seed ^= *seed >> 7;
            *seed ^= *seed << 17;
            (*seed >> 32) as u8
        })
        .collect();
    let _ = stream.write_all(&bytes);
    let _ = stream.read(&mut [0; 4096]);
    Ok(())
}

/// Whole requests, 32 at a time, as fast as they are answered; an error is the end of the connection.
fn flood(target: SocketAddr, end: Instant, counts: &Counts) -> io::Result<()> {
    let mut stream = open(target).inspect_err(|_| {
        counts.not_opened.fetch_add(1, Relaxed);
        thread::sleep(PAUSE);
    })?;
    let heads = SMALL_HEAD.repeat(32);
    let mut answers = vec![0; 64 * 1024];
    while Instant::now() < end {
        stream.write_all(&heads)?;
        counts.flood_heads.fetch_add(32, Relaxed);
        if stream.read(&mut answers)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn open(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

impl Counts {
    fn to_json(&self) -> String {
        let all = [
            ("not_opened", &self.not_opened),
            ("idle", &self.idle),
            ("slow_heads", &self.slow_heads),
            ("slow_bodies", &self.slow_bodies),
            ("slow_bytes", &self.slow_bytes),
            ("large_heads", &self.large_heads),
            ("flood_heads", &self.flood_heads),
            ("huge_lengths", &self.huge_lengths),
            ("random_bytes", &self.random_bytes),
            ("aborted_answers", &self.aborted_answers),
        ];
        let members: Vec<String> =
            all.iter().map(|(name, count)| format!("\"{name}\":{}", count.load(Relaxed))).collect();
        format!("{{{}}}", members.join(","))
    }
}
