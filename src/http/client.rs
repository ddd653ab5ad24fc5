//! A blocking HTTP client: one pool of connections for each server, and a reply that is waited for in steps.
//!
//! Whoever waits says how long (`Patience`), may be woken in between to do something of his own, and may watch another
//! socket, so that a call ends when the client it is made for is gone.
//!
//! **Invariant**: a connection goes back to the pool only when its reply was read to the end and nothing came after
//! it. A canceller cannot reach the next user of a connection.
//! **Thread**: the caller's.
//! **Bounds**: `CONNECT_TIME_MAX`, `POOL_IDLE_MAX`, `POOL_IDLE_TIME_MAX`, `BODY_BYTES_MAX` for whole replies, and the
//! deadline of the call. Name resolution is the system's and has the system's own time limit; instances are
//! registered by address.
//! Left out on purpose: redirects, proxies, cookies, compression; no instance needs them.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::deadline::Deadline;
use crate::http::chunked::Chunked;
use crate::http::client_error::ClientError;
use crate::http::head::{BodyLength, ResponseHead, head_end, put_field, put_line};
use crate::http::wire::{self, Waited, WriteTimes};
use crate::limits::{
    BODY_BYTES_MAX, CONNECT_TIME_MAX, HEAD_BYTES_MAX, INTERIM_REPLIES_MAX, POOL_FRESH_TIME, POOL_IDLE_MAX,
    POOL_IDLE_TIME_MAX, READ_BYTES, WRITE_STALL_MAX,
};

/// Connections to one server. Clones share them.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

/// A request to be sent. `Host` and `Content-Length` are added.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [&'a [u8]],
    /// Sending it twice does no harm: `ask` does so when a pooled connection turns out to be closed.
    pub idempotent: bool,
}

/// How to wait for a reply.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    pub deadline: Deadline,
    /// Wake after this much silence.
    pub tick: Option<Duration>,
    /// Wake when the peer of this socket is gone.
    pub watched: Option<BorrowedFd<'a>>,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The head is there; or there is more of the body, or its end.
    Ready,
    Tick,
    WatchedGone,
}

/// The answer to a request, on its way.
pub struct Reply {
    pool: Arc<Inner>,
    /// Taken when the reply ends.
    connection: Option<Connection>,
    head: ResponseHead,
    stage: Stage,
    answers_head: bool,
    interim: usize,
    was_pooled: bool,
    canceller: OnceLock<Canceller>,
}

/// Ends the wait for a reply from another thread.
#[derive(Clone)]
pub struct Canceller {
    shared: Arc<Cancel>,
}

struct Cancel {
    is_cancelled: AtomicBool,
    /// Taken away when the reply ends, before its connection can get another user.
    stream: Mutex<Option<Arc<TcpStream>>>,
}

enum Stage {
    Head,
    Bytes(u64),
    Chunks(Chunked),
    UntilClose,
    Complete,
    Failed,
}

struct Inner {
    /// As the name system wants it: no brackets.
    host: String,
    port: u16,
    /// As `Host` wants it.
    authority: String,
    idle: Mutex<Vec<Connection>>,
}

struct Connection {
    stream: Arc<TcpStream>,
    /// Received and not yet used, from `start` on.
    input: Vec<u8>,
    start: usize,
    out: Vec<u8>,
    used_at: Instant,
}

impl Pool {
    /// Connects to nobody yet. `host` is a name or an address, with or without brackets.
    pub fn new(host: &str, port: u16) -> Pool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Pool { inner: Arc::new(Inner { host, port, authority, idle: Mutex::default() }) }
    }

    /// `host:port`, as in a URL.
    pub fn authority(&self) -> &str {
        &self.inner.authority
    }

    /// Sends the request on a pooled connection, or a new one. The reply is then to be waited for.
    pub fn send(&self, request: &Outgoing<'_>, deadline: Deadline) -> Result<Reply, ClientError> {
        while let Some(mut connection) = self.inner.take_idle() {
            // Its server had closed it: the request was not taken as a whole, so that it is safe to send it again.
            if self.inner.write(&mut connection, request, deadline)?.is_ok() {
                return Ok(Reply::new(&self.inner, connection, request, true));
            }
        }
        let mut connection = self.inner.connect(deadline)?;
        match self.inner.write(&mut connection, request, deadline)? {
            Ok(()) => Ok(Reply::new(&self.inner, connection, request, false)),
            Err(source) => Err(ClientError::Write { address: self.inner.authority.clone(), source }),
        }
    }

    /// The whole reply.
    pub fn ask(&self, request: &Outgoing<'_>, deadline: Deadline) -> Result<(ResponseHead, Vec<u8>), ClientError> {
        let patience = Patience { deadline, tick: None, watched: None };
        loop {
            let mut reply = self.send(request, deadline)?;
            match reply.wait_head(&patience) {
                // Each turn uses up a pooled connection, so that this ends.
                Err(error) if request.idempotent && error.is_stale_connection() => continue,
                other => other?,
            };
            let mut body = Vec::new();
            while !reply.is_complete() {
                reply.read(&mut body, &patience)?;
                if body.len() > BODY_BYTES_MAX {
                    return Err(ClientError::TooLarge { address: self.authority().to_owned(), limit: BODY_BYTES_MAX });
                }
            }
            return Ok((std::mem::take(&mut reply.head), body));
        }
    }

    /// Closes connections that nobody used for a while. Called now and then, since a pool has no thread of its own.
    pub fn close_stale(&self) {
        self.inner.idle().retain(|connection| connection.used_at.elapsed() < POOL_IDLE_TIME_MAX);
    }

    /// Closes all idle connections: the server is known to be gone.
    pub fn close_idle(&self) {
        self.inner.idle().clear();
    }
}

impl Reply {
    /// `Ready` when the head is there.
    pub fn wait_head(&mut self, patience: &Patience<'_>) -> Result<Wake, ClientError> {
        while matches!(self.stage, Stage::Head) {
            if !self.take_head()? {
                match self.wait(patience, "the answer")? {
                    Wake::Ready => self.receive()?,
                    other => return Ok(other),
                }
            }
        }
        match self.stage {
            Stage::Failed => Err(self.protocol("the answer has failed before")),
            _ => Ok(Wake::Ready),
        }
    }

    /// The head, after `wait_head` was `Ready`.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// Appends what has come of the body, waiting for at least something of it or for its end.
    pub fn read(&mut self, out: &mut Vec<u8>, patience: &Patience<'_>) -> Result<Wake, ClientError> {
        let before = out.len();
        loop {
            self.take_body(out)?;
            if out.len() > before || self.is_complete() {
                return Ok(Wake::Ready);
            }
            match self.wait(patience, "the rest of the answer")? {
                Wake::Ready => self.receive_body(out)?,
                other => return Ok(other),
            }
        }
    }

    /// The body was read to its end.
    pub fn is_complete(&self) -> bool {
        matches!(self.stage, Stage::Complete)
    }

    /// For another thread, to end this reply.
    pub fn canceller(&self) -> Canceller {
        let canceller = self.canceller.get_or_init(|| {
            let stream = Mutex::new(self.connection.as_ref().map(|connection| connection.stream.clone()));
            Canceller { shared: Arc::new(Cancel { is_cancelled: AtomicBool::new(false), stream }) }
        });
        canceller.clone()
    }

    fn new(pool: &Arc<Inner>, connection: Connection, request: &Outgoing<'_>, was_pooled: bool) -> Reply {
        Reply {
            pool: pool.clone(),
            connection: Some(connection),
            head: ResponseHead::default(),
            stage: Stage::Head,
            answers_head: request.method == "HEAD",
            interim: 0,
            was_pooled,
            canceller: OnceLock::new(),
        }
    }

    /// Reads the head from what was received; false if it is not whole yet.
    fn take_head(&mut self) -> Result<bool, ClientError> {
        let Some(connection) = &mut self.connection else { return Err(self.closed()) };
        let unread = &connection.input[connection.start..];
        let parsed = head_end(unread, &mut 0).and_then(|end| match end {
            Some(end) => self.head.parse(&unread[..end], self.answers_head).map(|()| Some(end)),
            None => Ok(None),
        });
        match parsed {
            Ok(None) => return Ok(false),
            Ok(Some(end)) => connection.start += end,
            Err(error) => return Err(self.protocol(error.message)),
        }
        if self.head.status() >= 200 {
            self.stage = match self.head.body_length() {
                BodyLength::Bytes(0) => Stage::Complete,
                BodyLength::Bytes(length) => Stage::Bytes(length),
                BodyLength::Chunked => Stage::Chunks(Chunked::default()),
                BodyLength::UntilClose => Stage::UntilClose,
            };
            return Ok(true);
        }
        self.interim += 1;
        if self.head.status() == 101 || self.interim > INTERIM_REPLIES_MAX {
            return Err(self.protocol("an interim reply that was not asked for"));
        }
        Ok(true)
    }

    /// Moves what was received into `out`, as far as it is body.
    fn take_body(&mut self, out: &mut Vec<u8>) -> Result<(), ClientError> {
        let Some(connection) = &mut self.connection else { return Err(self.closed()) };
        let unread = &connection.input[connection.start..];
        match &mut self.stage {
            Stage::Head | Stage::Failed => return Err(self.protocol("no head was read before the body")),
            Stage::Complete => {}
            Stage::Bytes(left) => {
                let here = unread.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                out.extend_from_slice(&unread[..here]);
                connection.start += here;
                *left -= here as u64;
                if *left == 0 {
                    self.stage = Stage::Complete;
                }
            }
            Stage::Chunks(chunked) => match chunked.decode(unread, out, usize::MAX - out.len()) {
                Ok(used) => {
                    connection.start += used;
                    if chunked.is_done() {
                        self.stage = Stage::Complete;
                    }
                }
                Err(message) => return Err(self.protocol(message)),
            },
            Stage::UntilClose => {
                out.extend_from_slice(unread);
                connection.start = connection.input.len();
            }
        }
        Ok(())
    }

    /// Waits for bytes, at most a tick and never beyond the deadline.
    fn wait(&mut self, patience: &Patience<'_>, phase: &'static str) -> Result<Wake, ClientError> {
        let left = patience.deadline.left();
        let time = patience.tick.map_or(left, |tick| tick.min(left));
        let Some(connection) = &self.connection else { return Err(self.closed()) };
        match wire::wait_readable(&connection.stream, patience.watched, time) {
            Ok(Waited::Readable) => Ok(Wake::Ready),
            Ok(Waited::WatchedGone) => Ok(Wake::WatchedGone),
            Ok(Waited::TimedOut) if time < left => Ok(Wake::Tick),
            Ok(Waited::TimedOut) => {
                let limit = patience.deadline.limit();
                Err(self.fail(|address| ClientError::Timeout { address, phase, limit }))
            }
            Err(source) => Err(self.fail(|address| ClientError::Read { address, source })),
        }
    }

    /// Receives into the connection's own buffer.
    fn receive(&mut self) -> Result<(), ClientError> {
        let Some(connection) = &mut self.connection else { return Err(self.closed()) };
        connection.make_room();
        let received = wire::receive_now(&connection.stream, &mut connection.input);
        self.check(received)
    }

    /// Receives into `out` where the bytes are the body itself, else into the connection's buffer.
    fn receive_body(&mut self, out: &mut Vec<u8>) -> Result<(), ClientError> {
        let Some(connection) = &mut self.connection else { return Err(self.closed()) };
        let room = match self.stage {
            Stage::Bytes(left) => READ_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX)),
            Stage::UntilClose => READ_BYTES,
            _ => return self.receive(),
        };
        out.reserve(room);
        let before = out.len();
        let received = wire::receive_now(&connection.stream, out);
        if matches!((&received, &self.stage), (Ok(Some(0)), Stage::UntilClose)) {
            self.stage = Stage::Complete;
            return Ok(());
        }
        if let Stage::Bytes(left) = &mut self.stage {
            let came = (out.len() - before) as u64;
            if came > *left {
                // More than the reply: kept apart, so that the connection is not used again.
                connection.input.extend_from_slice(&out[before + *left as usize..]);
                out.truncate(before + *left as usize);
            }
            *left -= came.min(*left);
            if *left == 0 {
                self.stage = Stage::Complete;
            }
        }
        self.check(received)
    }

    fn check(&mut self, received: io::Result<Option<usize>>) -> Result<(), ClientError> {
        match received {
            Ok(Some(0)) => Err(self.closed()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(self.closed()),
            Err(source) => Err(self.fail(|address| ClientError::Read { address, source })),
        }
    }

    fn closed(&mut self) -> ClientError {
        let has_input = self.connection.as_ref().is_some_and(|connection| !connection.input.is_empty());
        let before_answer = matches!(self.stage, Stage::Head) && !has_input && self.interim == 0;
        let was_pooled = self.was_pooled;
        self.fail(|address| ClientError::Closed { address, before_answer, was_pooled })
    }

    fn protocol(&mut self, what: &'static str) -> ClientError {
        self.fail(|address| ClientError::Protocol { address, what })
    }

    /// After an error the connection is of no use. If it was cancelled, that is the error.
    fn fail(&mut self, error: impl FnOnce(String) -> ClientError) -> ClientError {
        self.stage = Stage::Failed;
        let address = self.pool.authority.clone();
        match self.canceller.get() {
            Some(canceller) if canceller.is_cancelled() => ClientError::Cancelled { address },
            _ => error(address),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(canceller) = self.canceller.get() {
            canceller.stream().take();
            if canceller.is_cancelled() {
                return;
            }
        }
        if self.is_complete()
            && self.head.keeps_alive()
            && let Some(connection) = self.connection.take()
        {
            self.pool.put_idle(connection);
        }
    }
}

impl Canceller {
    /// Shuts the connection down; the thread that waits for the reply gets `ClientError::Cancelled`. After the reply
    /// has ended this does nothing.
    pub fn cancel(&self) {
        self.shared.is_cancelled.store(true, Ordering::SeqCst);
        if let Some(stream) = &*self.stream() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled.load(Ordering::SeqCst)
    }

    fn stream(&self) -> MutexGuard<'_, Option<Arc<TcpStream>>> {
        self.shared.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection used last, if it can still be used.
    fn take_idle(&self) -> Option<Connection> {
        loop {
            let connection = self.idle().pop()?;
            let unused = connection.used_at.elapsed();
            if unused < POOL_FRESH_TIME || (unused < POOL_IDLE_TIME_MAX && connection.is_quiet()) {
                return Some(connection);
            }
        }
    }

    fn put_idle(&self, mut connection: Connection) {
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

    fn connect(&self, deadline: Deadline) -> Result<Connection, ClientError> {
        let failed = |source| ClientError::Connect { address: self.authority.clone(), source };
        let deadline = deadline.sooner(CONNECT_TIME_MAX);
        let addresses: Vec<SocketAddr> = (&*self.host, self.port).to_socket_addrs().map_err(failed)?.collect();
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

    /// The outer error is one that another connection would not help; the inner one is of this connection.
    fn write(
        &self,
        connection: &mut Connection,
        request: &Outgoing<'_>,
        deadline: Deadline,
    ) -> Result<io::Result<()>, ClientError> {
        let out = &mut connection.out;
        out.clear();
        if put_request_head(out, request, &self.authority).is_err() {
            let what = "the request has a character that HTTP does not allow in its head";
            return Err(ClientError::Request { address: self.authority.clone(), what });
        }
        let left = deadline.left();
        let times = WriteTimes { stall: WRITE_STALL_MAX, base: left, bytes_per_second: u64::MAX };
        let sent = if request.body.is_empty() {
            wire::send_all(&connection.stream, &[out], &times)
        } else if let [body] = request.body {
            wire::send_all(&connection.stream, &[out, body], &times)
        } else {
            wire::send_all(&connection.stream, &[&[&out[..]], request.body].concat(), &times)
        };
        match sent {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let (address, limit) = (self.authority.clone(), deadline.limit().min(WRITE_STALL_MAX));
                Err(ClientError::Timeout { address, phase: "the request to be taken", limit })
            }
            sent => Ok(sent),
        }
    }
}

impl Connection {
    fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let (input, out) = (Vec::with_capacity(8 * 1024), Vec::with_capacity(512));
        Ok(Connection { stream: Arc::new(stream), input, start: 0, out, used_at: Instant::now() })
    }

    /// Neither closed nor with bytes that nobody asked for.
    fn is_quiet(&self) -> bool {
        wire::wait_readable(&self.stream, None, Duration::ZERO).is_ok_and(|waited| waited == Waited::TimedOut)
    }

    fn make_room(&mut self) {
        if self.start > 0 {
            self.input.drain(..self.start);
            self.start = 0;
        }
        if self.input.len() == self.input.capacity() {
            self.input.reserve(HEAD_BYTES_MAX);
        }
    }
}

impl AsFd for Reply {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_ref().expect("taken only on drop").stream.as_fd()
    }
}

fn put_request_head(out: &mut Vec<u8>, request: &Outgoing<'_>, authority: &str) -> io::Result<()> {
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if !is_plain(request.method) || !is_plain(request.target) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    put_line(out, &[request.method, " ", request.target, " HTTP/1.1"]);
    put_field(out, "Host", authority)?;
    let is_ours =
        |name: &str| ["host", "content-length", "transfer-encoding"].iter().any(|o| o.eq_ignore_ascii_case(name));
    for (name, value) in request.headers.iter().filter(|(name, _)| !is_ours(name)) {
        put_field(out, name, value)?;
    }
    let length: usize = request.body.iter().map(|part| part.len()).sum();
    if length > 0 || !matches!(request.method, "GET" | "HEAD" | "DELETE" | "OPTIONS") {
        put_line(out, &["Content-Length: ", &length.to_string()]);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}
