//! For the tests of this folder: seeded random input, raw HTTP over loopback, and a handler with a path for each case.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use crate::http::head::RequestHead;
use crate::http::server::{Exchange, Handler, Refusal, bind};

/// Longer than anything a test waits for; a test that hangs fails by this.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// xorshift64: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    /// One of the inputs with a few bytes changed, doubled, taken out, or put in.
    pub fn mutated(&mut self, inputs: &[&[u8]]) -> Vec<u8> {
        const LIKELY: &[u8] = b"\r\n\r\n :;,0159afAZ%/.\t\0\xff";
        let mut bytes = inputs[self.below(inputs.len())].to_vec();
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len());
            let byte = LIKELY[self.below(LIKELY.len())];
            match self.below(4) {
                _ if bytes.is_empty() => bytes.push(byte),
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        bytes
    }
}

/// Runs the test for so many seeds and names the one that fails.
pub fn for_seeds(count: u64, test: impl Fn(&mut Random)) {
    for seed in 1..=count {
        let outcome = catch_unwind(AssertUnwindSafe(|| test(&mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)))));
        if let Err(panic) = outcome {
            eprintln!("seed {seed} fails");
            resume_unwind(panic);
        }
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a timeout");
    stream
}

/// Sends the bytes and reads all until the server closes.
pub fn exchange(address: SocketAddr, raw: &[u8]) -> String {
    let mut stream = connect(address);
    // The server may have answered and closed before it got everything.
    let _ = stream.write_all(raw);
    read_to_end(&mut stream)
}

pub fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("the server does not close"),
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

/// Reads until what was read ends in `end`.
pub fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(end.as_bytes()) {
        match stream.read(&mut byte) {
            Ok(1) => answer.push(byte[0]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&answer)),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Answers by path; `/wait` says on the first channel that it is there, and answers when the second one is closed.
pub struct Paths {
    pub arrived: Sender<()>,
    pub released: Receiver<()>,
}

impl Handler for Paths {
    fn handle(&self, request: &RequestHead, exchange: &mut Exchange<'_>) {
        let outcome = match request.path() {
            "/echo" => match exchange.read_body() {
                Ok(body) => exchange.respond(200, &[("X-Method", &format!("{:?}", request.method()))], &[&body]),
                Err(refusal) => exchange.refuse(&refusal),
            },
            "/ignore" => exchange.respond(200, &[("Content-Length", "99"), ("Date", "never")], &[b"ig", b"", b"nored"]),
            "/nothing" => exchange.respond(204, &[], &[b"not sent"]),
            "/many" => exchange.respond(200, &[], &[&b"0123456789"[..]; 40]),
            "/large" => exchange.respond(200, &[], &[&vec![b'x'; 8 << 20]]),
            "/close" => exchange.respond(200, &[("Connection", "close")], &[b"bye"]),
            "/stream" => stream(exchange, true),
            "/broken" => stream(exchange, false),
            "/last" => exchange.start_stream(200, &[]).and_then(|()| exchange.write_last(&[b"on", b"ly"])),
            "/twice" => {
                let first = exchange.respond(200, &[], &[b"one"]);
                assert!(exchange.respond(200, &[], &[b"two"]).is_err() && exchange.write(&[b"two"]).is_err());
                first
            }
            "/smuggle" => {
                assert!(exchange.respond(200, &[("A", "b\r\nC: d")], &[]).is_err());
                exchange.respond(200, &[], &[])
            }
            "/wait" => {
                let _ = self.arrived.send(());
                let _ = self.released.recv_timeout(PATIENCE);
                exchange.respond(200, &[], &[b"waited"])
            }
            "/stays" => {
                let _ = self.arrived.send(());
                let _ = self.released.recv_timeout(PATIENCE);
                let seen: &[u8] = if exchange.client_is_gone() { b"gone" } else { b"there" };
                exchange.respond(200, &[], &[seen])
            }
            "/gone" => {
                let _ = self.arrived.send(());
                while !exchange.client_is_gone() {
                    std::thread::yield_now();
                }
                let _ = self.arrived.send(());
                Ok(())
            }
            "/silent" => Ok(()),
            _ => exchange.refuse(&Refusal::new(404, "not_found", "no \"such\" path")),
        };
        // A client that is gone cannot be told.
        let _ = outcome;
    }
}

fn stream(exchange: &mut Exchange<'_>, whole: bool) -> io::Result<()> {
    exchange.start_stream(200, &[("Content-Type", "text/plain")])?;
    exchange.write(&[b"one "])?;
    exchange.write(&[])?;
    exchange.write(&[b"two", b" ", b"three"])?;
    if whole { exchange.finish() } else { Ok(()) }
}

/// The handler, the receiver of arrivals, and what releases those who wait when it is dropped.
pub fn paths() -> (Arc<Paths>, Receiver<()>, Sender<()>) {
    let (arrived, arrivals) = crossbeam_channel::unbounded();
    let (release, released) = crossbeam_channel::bounded(0);
    (Arc::new(Paths { arrived, released }), arrivals, release)
}

pub fn listen() -> TcpListener {
    bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port")
}
