//! The connections to one server: opened, kept while idle, taken again.
//!
//! **Invariant**: a connection that is handed out has no unread bytes, and was open when it was last looked at.
//! **Thread**: any; the list of idle connections has a lock that is held for no system call but `close`.
//! **Bounds**: `CONNECT_TIME_MAX`, `POOL_IDLE_MAX`, `POOL_IDLE_TIME_MAX`. Name resolution is the system's and has the
//! system's own time limit; instances are registered by address.
//! Left out on purpose: a bound on connections in use. Each belongs to a request, and those are bounded.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::deadline::Deadline;
use crate::http::client_error::ClientError;
use crate::http::wire::{self, Beside, Waited};
use crate::limits::{
    ANSWER_AT_ONCE, CONNECT_TIME_MAX, HEAD_BYTES_MAX, POOL_FRESH_TIME, POOL_IDLE_MAX, POOL_IDLE_TIME_MAX,
};
use crate::os;

/// A server, and the connections to it that wait for use.
pub struct Peer {
    /// As the name system wants it: no brackets.
    host: String,
    port: u16,
    /// As `Host` wants it.
    pub authority: String,
    idle: Mutex<Vec<Connection>>,
}

/// A connection with what belongs to it, used again from request to request.
pub struct Connection {
    pub stream: Arc<TcpStream>,
    /// Received and not yet used, from `start` on.
    pub input: Vec<u8>,
    pub start: usize,
    pub out: Vec<u8>,
    used_at: Instant,
}

impl Peer {
    /// Connects to nobody yet.
    pub fn new(host: &str, port: u16) -> Peer {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Peer { host, port, authority, idle: Mutex::default() }
    }

    /// The connection used last, if it can still be used.
    pub fn take_idle(&self) -> Option<Connection> {
        loop {
            let connection = self.idle().pop()?;
            let unused = connection.used_at.elapsed();
            if unused < POOL_FRESH_TIME || (unused < POOL_IDLE_TIME_MAX && connection.is_quiet()) {
                return Some(connection);
            }
        }
    }

    pub fn put_idle(&self, mut connection: Connection) {
        if connection.start != connection.input.len() {
            return;
        }
        connection.input.clear();
        connection.start = 0;
        connection.used_at = Instant::now();
        let mut idle = self.idle();
        if idle.len() < POOL_IDLE_MAX {
            idle.push(connection);
        }
    }

    pub fn connect(&self, deadline: Deadline) -> Result<Connection, ClientError> {
        let failed = |source| ClientError::Connect { address: self.authority.clone(), source };
        let deadline = deadline.sooner(CONNECT_TIME_MAX);
        let addresses = os::addresses(&self.host, self.port).map_err(failed)?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            let left = deadline.left();
            if left.is_zero() {
                last = io::ErrorKind::TimedOut.into();
                break;
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => return Connection::new(stream).map_err(failed),
                Err(error) => last = error,
            }
        }
        match last.kind() {
            io::ErrorKind::TimedOut => {
                let (address, limit) = (self.authority.clone(), deadline.limit());
                Err(ClientError::Timeout { address, phase: "a connection", limit })
            }
            _ => Err(failed(last)),
        }
    }

    /// Closes connections that nobody used for a while.
    pub fn close_stale(&self) {
        self.idle().retain(|connection| connection.used_at.elapsed() < POOL_IDLE_TIME_MAX);
    }

    pub fn idle_count(&self) -> usize {
        self.idle().len()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_AT_ONCE))?;
        let (input, out) = (Vec::with_capacity(8 * 1024), Vec::with_capacity(512));
        Ok(Connection { stream: Arc::new(stream), input, start: 0, out, used_at: Instant::now() })
    }

    /// Neither closed nor with bytes that nobody asked for.
    fn is_quiet(&self) -> bool {
        wire::wait_readable(&self.stream, Beside::default(), Duration::ZERO)
            .is_ok_and(|waited| waited == Waited::TimedOut)
    }

    /// Room to receive, at the cost of what was used already.
    pub fn make_room(&mut self) {
        if self.start > 0 {
            self.input.drain(..self.start);
            self.start = 0;
        }
        if self.input.len() == self.input.capacity() {
            self.input.reserve(HEAD_BYTES_MAX);
        }
    }
}
