//! For the tests of this folder: seeded random input, and raw HTTP over loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

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
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the server does not close"),
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
