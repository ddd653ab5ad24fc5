//! One server connection of our own engine: its requests, one after the other, until it ends.
//!
//! **Invariant**: bytes are read in order and once; a request begins where the body of the one before ended. Where
//! that place is in doubt, or the rest of a body is too long to be thrown away, the connection ends.
//! **Thread**: `conn-<name>`, one for each connection; it alone reads and writes the socket.
//! **Bounds**: the times of `Times`; `BODY_BYTES_MAX`, `UNREAD_BODY_BYTES_MAX`, `LINGER_BYTES_MAX`.
//! Left out on purpose: who is let in and when all must end (`engine.rs`).

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::deadline::Deadline;
use crate::http::chunked::Chunked;
use crate::http::fields::BodyLength;
use crate::http::head::{RequestHead, head_end};
use crate::http::server::{Exchange, Handler, Refusal, Transport};
use crate::http::{Times, time_left, wire};
use crate::limits::{
    BODY_BYTES_MAX, CONNECTION_BUFFER_KEPT_BYTES, HEAD_BYTES_MAX, LINGER_BYTES_MAX, READ_BYTES, UNREAD_BODY_BYTES_MAX,
};

/// Room for what a client sends at once; most requests are smaller. Thousands of idle connections have this each.
const INPUT_BYTES: usize = 2 * 1024;
/// Room for a body until more than that has come.
const BODY_BYTES_FIRST: usize = 4 * 1024;
/// How every TLS connection begins (RFC 8446 section 5.1); no request does.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a connection and those who may end it share.
pub struct Link {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    /// No request is being read or answered. Whoever turns it to false decides: the connection's own thread, that there is
    /// a request; the one that drains, that there is none, and shuts the reading side.
    pub is_idle: AtomicBool,
}

/// How the server ends its connections.
#[derive(Clone, Copy)]
pub struct Drain<'a> {
    /// Each after its next answer.
    pub began: &'a OnceLock<Instant>,
    /// Idle ones at once.
    pub ends_idle: &'a AtomicBool,
}

/// Serves requests until the connection ends.
pub fn serve(link: &Link, drain: Drain<'_>, times: Times, handler: &dyn Handler) {
    if link.stream.set_nodelay(true).is_err() || link.stream.set_read_timeout(Some(times.idle)).is_err() {
        return;
    }
    let mut connection = Connection {
        link,
        drain,
        times,
        input: Vec::with_capacity(INPUT_BYTES),
        start: 0,
        body: BodyLength::Bytes(0),
        is_body_read: true,
        lacks_length: false,
        expects_continue: false,
        keeps_alive: true,
        must_linger: false,
        is_shut: false,
    };
    let mut head = RequestHead::default();
    let mut out = Vec::new();
    while connection.serve_one(&mut head, &mut out, handler) {}
    if connection.must_linger || drain.began.get().is_some() {
        connection.linger();
    }
}

struct Connection<'a> {
    link: &'a Link,
    drain: Drain<'a>,
    times: Times,
    /// What was received; from `start` on it is not used yet.
    input: Vec<u8>,
    start: usize,
    body: BodyLength,
    is_body_read: bool,
    lacks_length: bool,
    expects_continue: bool,
    keeps_alive: bool,
    /// Something may still be coming that must not break the answer that is under way.
    must_linger: bool,
    /// The reading side may have been shut by our own drain, so that a client that stays looks like one that has gone.
    is_shut: bool,
}

impl Connection<'_> {
    /// One request and its answer; false when the connection is to end.
    fn serve_one(&mut self, head: &mut RequestHead, out: &mut Vec<u8>, handler: &dyn Handler) -> bool {
        match self.read_head(head) {
            Ok(true) => {}
            Ok(false) => return false,
            Err(refusal) => {
                self.cut_body();
                // Nothing of the head is to be relied on; the answer is that to a plain request.
                let _ = Exchange::new(&RequestHead::default(), self, out).refuse(&refusal);
                return false;
            }
        }
        self.body = head.body_length();
        self.lacks_length = head.lacks_length();
        self.is_body_read = self.body == BodyLength::Bytes(0) && !self.lacks_length;
        self.expects_continue = head.expects_continue() && !self.is_body_read;
        self.keeps_alive = head.keeps_alive();
        let mut exchange = Exchange::new(head, self, out);
        handler.handle(head, &mut exchange);
        exchange.answer_if_silent();
        // A stream without its end is broken off, so that the client does not take it for whole.
        let is_whole = !exchange.is_streaming();
        is_whole && self.keeps_alive && self.skip_body()
    }

    /// False: the connection has ended, or was idle for too long.
    fn read_head(&mut self, head: &mut RequestHead) -> Result<bool, Refusal> {
        let mut scanned = 0;
        let mut deadline = None;
        loop {
            // No line may ever end in it: its client waits for our half of the handshake.
            if self.input.get(self.start) == Some(&TLS_HANDSHAKE) {
                return Err(Refusal::new(
                    400,
                    "bad_request",
                    "TLS is not spoken here; use http://, or a proxy that ends TLS",
                ));
            }
            if let Some(end) = head_end(&self.input[self.start..], &mut scanned)? {
                head.parse(&self.input[self.start..self.start + end])?;
                self.start += end;
                return Ok(true);
            }
            let received = if self.start == self.input.len() {
                self.receive_first()
            } else {
                let deadline = *deadline.get_or_insert_with(|| Deadline::after(self.times.head));
                self.make_room();
                match wire::receive_within(&self.link.stream, &mut self.input, deadline.left()) {
                    Ok(None) => return Err(Refusal::new(408, "head_timeout", "the request head took too long")),
                    Ok(Some(0)) => return Err(Refusal::new(400, "bad_request", "the request ended within its head")),
                    other => other,
                }
            };
            if !matches!(received, Ok(Some(1..))) {
                return Ok(false);
            }
        }
    }

    /// Waits for the first bytes of a request, as long as a connection may be idle.
    fn receive_first(&mut self) -> io::Result<Option<usize>> {
        self.input.clear();
        self.start = 0;
        if self.input.capacity() > CONNECTION_BUFFER_KEPT_BYTES {
            self.input = Vec::with_capacity(INPUT_BYTES);
        }
        // In this order, so that whoever drains sees an idle connection, or this sees that idle ones end.
        self.link.is_idle.store(true, Ordering::SeqCst);
        let is_ending = self.drain.ends_idle.load(Ordering::SeqCst);
        let received = match is_ending {
            true => wire::receive_now(&self.link.stream, &mut self.input),
            false => wire::receive_blocking(&self.link.stream, &mut self.input),
        };
        // A request that came at the moment when the connection was ended is answered all the same.
        self.is_shut |= !self.link.is_idle.swap(false, Ordering::SeqCst) || is_ending;
        received
    }

    /// Room for the rest of a head.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.input.drain(..self.start);
            self.start = 0;
        }
        if self.input.len() == self.input.capacity() {
            self.input.reserve(HEAD_BYTES_MAX - HEAD_BYTES_MAX.min(self.input.len()) + 1);
        }
    }

    fn read_length(&mut self, length: usize) -> Result<Vec<u8>, Refusal> {
        let here = length.min(self.input.len() - self.start);
        let mut body = Vec::with_capacity(length.min(BODY_BYTES_FIRST.max(here)));
        body.extend_from_slice(&self.input[self.start..self.start + here]);
        self.start += here;
        let started = Instant::now();
        while body.len() < length {
            // Memory follows what has come, not what was announced; twice the room each time that it is full.
            if body.len() == body.capacity() {
                body.reserve_exact((length - body.len()).min(BODY_BYTES_FIRST.max(body.len())));
            }
            self.receive_body(started, &mut body)?;
        }
        // What came beyond this body is the next request.
        let surplus = body.split_off(length);
        if !surplus.is_empty() {
            self.input = surplus;
            self.start = 0;
        }
        Ok(body)
    }

    fn read_chunked(&mut self, bytes_max: usize) -> Result<Vec<u8>, Refusal> {
        let mut body = Vec::new();
        let mut chunked = Chunked::default();
        let started = Instant::now();
        loop {
            let room = bytes_max + 1 - body.len();
            let used = chunked
                .decode(&self.input[self.start..], &mut body, room)
                .map_err(|message| Refusal::new(400, "bad_request", message))?;
            self.start += used;
            if body.len() > bytes_max {
                return Err(too_large());
            }
            if chunked.is_done() {
                return Ok(body);
            }
            let mut input = std::mem::take(&mut self.input);
            input.clear();
            self.start = 0;
            if body.len() > input.capacity() {
                input.reserve(READ_BYTES); // a large body in larger pieces
            }
            let left = time_left(self.times.body, self.times.bytes_per_second, started.elapsed(), body.len());
            let received = wire::receive_within(&self.link.stream, &mut input, left);
            self.input = input;
            check_body(received)?;
        }
    }

    fn receive_body(&mut self, started: Instant, body: &mut Vec<u8>) -> Result<(), Refusal> {
        let left = time_left(self.times.body, self.times.bytes_per_second, started.elapsed(), body.len());
        check_body(wire::receive_within(&self.link.stream, body, left))
    }

    fn send_continue(&mut self) -> Result<(), Refusal> {
        if !std::mem::take(&mut self.expects_continue) || self.start < self.input.len() {
            return Ok(());
        }
        self.send(&[b"HTTP/1.1 100 Continue\r\n\r\n"]).map_err(|_| ended_early())
    }

    /// Throws away a body that nobody asked for; false if the connection cannot go on after it.
    fn skip_body(&mut self) -> bool {
        if self.is_body_read {
            return true;
        }
        self.is_body_read = true;
        let skipped = match self.body {
            BodyLength::Bytes(length) => self.read_length(length as usize).map(drop),
            BodyLength::Chunked | BodyLength::UntilClose => self.read_chunked(UNREAD_BODY_BYTES_MAX).map(drop),
        };
        self.must_linger |= skipped.is_err();
        skipped.is_ok()
    }

    /// The rest of the request cannot be told from the next one, or is not wanted.
    fn cut_body(&mut self) {
        self.is_body_read = true;
        self.keeps_alive = false;
        self.must_linger = true;
    }

    /// A socket that is closed on unread bytes resets the connection, and the peer loses an answer that it has not
    /// read yet. So the peer is told the end first, and what it still sends is thrown away for a short time.
    fn linger(&mut self) {
        let deadline = Deadline::after(self.times.linger);
        let mut total = 0;
        if self.link.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        while total < LINGER_BYTES_MAX {
            self.input.clear();
            match wire::receive_within(&self.link.stream, &mut self.input, deadline.left()) {
                Ok(Some(count @ 1..)) => total += count,
                _ => return,
            }
        }
    }
}

impl Transport for Connection<'_> {
    fn read_body(&mut self) -> Result<Vec<u8>, Refusal> {
        if std::mem::replace(&mut self.is_body_read, true) {
            return Ok(Vec::new());
        }
        let read = match self.body {
            _ if self.lacks_length => Err(length_required()),
            BodyLength::Bytes(length) if length > BODY_BYTES_MAX as u64 => Err(too_large()),
            BodyLength::Bytes(length) => self.send_continue().and_then(|()| self.read_length(length as usize)),
            _ => self.send_continue().and_then(|()| self.read_chunked(BODY_BYTES_MAX)),
        };
        if read.is_err() {
            self.cut_body();
        }
        read
    }

    fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let Times { write_stall, bytes_per_second, .. } = self.times;
        wire::send_all(
            &self.link.stream,
            parts,
            &wire::WriteTimes { stall: write_stall, base: write_stall, bytes_per_second },
        )
    }

    fn closes(&self) -> bool {
        let cannot_skip = match self.body {
            _ if self.is_body_read => false,
            BodyLength::Bytes(length) => self.expects_continue || length > UNREAD_BODY_BYTES_MAX as u64,
            BodyLength::Chunked | BodyLength::UntilClose => self.expects_continue,
        };
        !self.keeps_alive || cannot_skip || self.drain.began.get().is_some()
    }

    fn close(&mut self) {
        self.keeps_alive = false;
        self.must_linger |= !self.is_body_read;
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.link.stream.as_fd())
    }

    fn client_is_gone(&self) -> bool {
        self.shows_its_client() && wire::is_gone(self.link.stream.as_fd())
    }

    fn shows_its_client(&self) -> bool {
        !self.is_shut
    }

    fn peer(&self) -> SocketAddr {
        self.link.peer
    }
}

fn check_body(received: io::Result<Option<usize>>) -> Result<(), Refusal> {
    match received {
        Ok(Some(1..)) => Ok(()),
        Ok(None) => Err(Refusal::new(408, "body_timeout", "the request body took too long")),
        Ok(Some(0)) | Err(_) => Err(ended_early()),
    }
}

fn ended_early() -> Refusal {
    Refusal::new(400, "body_incomplete", "the request body ended early")
}

/// What follows such a head may be a body all the same; nothing says where the next request would begin.
pub fn length_required() -> Refusal {
    Refusal::new(411, "length_required", "the request has no body that is announced; send Content-Length")
}

fn too_large() -> Refusal {
    Refusal::new(413, "body_too_large", format!("a request body has at most {BODY_BYTES_MAX} bytes"))
}
