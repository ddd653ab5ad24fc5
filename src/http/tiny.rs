//! The engine of the design card: the same interface over `tiny_http` (feature `tiny-http`).
//!
//! **Invariant**: heads go through the same strict reader as with our own engine, so that handlers see no difference.
//! **Thread**: `http-<name>` takes requests from tiny_http's queue; `req-<name>`, one for each request, answers it. The
//! threads that accept and read are tiny_http's own and have no names.
//! **Bounds**: `max_connections` requests at a time, `BODY_BYTES_MAX`. tiny_http bounds neither heads nor times.
//! Left out on purpose: a way around its known defects, which `docs/decisions/0001-http-engine.md` lists. Among them:
//! the socket of a client cannot be watched, an idle connection cannot be closed, an answer cannot be broken off. In
//! the place of all sockets stands one that loses its peer when draining ends, so that no call outlives the server.
//! tiny_http ends accepting only by taking one more connection, which nobody then answers, and with it all requests on
//! the connections that it has. So it is left running until the server is dropped, and the socket is shut down instead;
//! one of a service manager, which others go on with, is accepted from to the end.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::deadline::Deadline;
use crate::http::connection::length_required;
use crate::http::head::RequestHead;
use crate::http::server::{Exchange, Handler, Refusal, Transport};
use crate::http::wire;
use crate::limits::{BODY_BYTES_MAX, CONNECTION_STACK_BYTES, READ_BYTES};
use crate::os;
use crate::worker;

/// A listener that is served.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// What accepts, until that is to end; `None` also where it must not.
    listener: Mutex<Option<TcpListener>>,
    queue: Arc<tiny_http::Server>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    handler: Arc<dyn Handler>,
    is_draining: AtomicBool,
    has_ended: AtomicBool,
    requests: Mutex<usize>,
    ended: Condvar,
    watched: UnixStream,
    /// The peer of `watched`.
    cut: Mutex<Option<UnixStream>>,
}

/// A request that is being answered; counted until it is dropped.
struct Place(Arc<Shared>);

impl Server {
    pub fn start(
        name: &'static str,
        listener: TcpListener,
        max_connections: usize,
        handler: Arc<dyn Handler>,
    ) -> io::Result<Server> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(false)?;
        let duplicate = if os::has_given_sockets() { None } else { Some(listener.try_clone()?) };
        let queue = Arc::new(tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?);
        let (requests, ended) = (Mutex::new(0), Condvar::new());
        let (is_draining, has_ended) = (AtomicBool::new(false), AtomicBool::new(false));
        let (watched, peer) = UnixStream::pair()?;
        let cut = Mutex::new(Some(peer));
        let shared = Arc::new(Shared { handler, is_draining, has_ended, requests, ended, watched, cut });
        let (source, places) = (queue.clone(), shared.clone());
        let thread = worker::spawn(&format!("http-{name}"), move || {
            // An error is the end of accepting, not of the connections that there are.
            while !places.has_ended.load(Ordering::SeqCst) {
                if let Ok(request) = source.recv() {
                    dispatch(name, request, &places, max_connections);
                }
            }
        })?;
        let (listener, thread) = (Mutex::new(duplicate), Mutex::new(Some(thread)));
        Ok(Server { address, shared, listener, queue, thread })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests that are being answered; tiny_http does not tell its connections.
    pub fn connections(&self) -> usize {
        *self.shared.requests()
    }

    /// tiny_http's own accepting thread ends a moment later, with the error that this is to it.
    pub fn stop_accepting(&self) {
        if let Some(listener) = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
    }

    /// From now on each answer is the last one of its connection, and says so.
    pub fn begin_drain(&self) {
        self.shared.is_draining.store(true, Ordering::SeqCst);
    }

    /// Waits for the answers under way; false if some are left at the deadline, for whom the client is then gone.
    pub fn drain(&self, deadline: Deadline) -> bool {
        self.begin_drain();
        let mut requests = self.shared.requests();
        while *requests > 0 && !deadline.has_passed() {
            let waited = self.shared.ended.wait_timeout(requests, deadline.left());
            requests = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.shared.cut.lock().unwrap_or_else(PoisonError::into_inner).take();
        *requests == 0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_accepting();
        self.shared.has_ended.store(true, Ordering::SeqCst);
        self.queue.unblock();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.map(JoinHandle::join);
    }
}

impl Shared {
    fn requests(&self) -> MutexGuard<'_, usize> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.requests() -= 1;
        self.0.ended.notify_all();
    }
}

fn dispatch(name: &str, request: tiny_http::Request, shared: &Arc<Shared>, max: usize) {
    let mut requests = shared.requests();
    if *requests >= max {
        drop(requests);
        let _ = request.respond(tiny_http::Response::from_string("no place is free").with_status_code(503));
        return;
    }
    *requests += 1;
    drop(requests);
    let place = Place(shared.clone());
    // If there is no thread for it, tiny_http answers 500 when the request is dropped.
    let _ = worker::spawn_small(&format!("req-{name}"), CONNECTION_STACK_BYTES, move || answer(request, &place.0));
}

fn answer(request: tiny_http::Request, shared: &Shared) {
    let peer = request.remote_addr().copied().unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let mut head = RequestHead::default();
    let parsed = head.parse(head_text(&request).as_bytes());
    let keeps_alive = parsed.is_ok() && head.keeps_alive() && !shared.is_draining.load(Ordering::SeqCst);
    let lacks_length = head.lacks_length();
    let mut transport = Tiny { request: Some(request), writer: None, shared, keeps_alive, lacks_length, peer };
    let mut out = Vec::new();
    let mut exchange = Exchange::new(&head, &mut transport, &mut out);
    if let Err(error) = parsed {
        let _ = exchange.refuse(&error.into());
    } else {
        shared.handler.handle(&head, &mut exchange);
    }
    exchange.answer_if_silent();
}

/// The head as it was before tiny_http read it, as far as it can tell.
fn head_text(request: &tiny_http::Request) -> String {
    let version = request.http_version();
    let fields = request.headers().iter().map(|header| format!("{}: {}\r\n", header.field, header.value));
    let fields: String = fields.collect();
    format!("{} {} HTTP/{}.{}\r\n{fields}\r\n", request.method(), request.url(), version.0, version.1)
}

struct Tiny<'a> {
    /// Given up for the writer when the answer begins.
    request: Option<tiny_http::Request>,
    writer: Option<Box<dyn Write + Send>>,
    shared: &'a Shared,
    keeps_alive: bool,
    lacks_length: bool,
    peer: SocketAddr,
}

impl Transport for Tiny<'_> {
    fn read_body(&mut self) -> Result<Vec<u8>, Refusal> {
        let too_large = || Refusal::new(413, "body_too_large", format!("at most {BODY_BYTES_MAX} bytes are taken"));
        if self.lacks_length {
            return Err(length_required());
        }
        let Some(request) = &mut self.request else { return Ok(Vec::new()) };
        if request.body_length().is_some_and(|length| length > BODY_BYTES_MAX) {
            return Err(too_large());
        }
        let mut body = Vec::with_capacity(request.body_length().unwrap_or(0).min(READ_BYTES));
        let read = request.as_reader().take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut body);
        match read {
            Ok(length) if length > BODY_BYTES_MAX => Err(too_large()),
            Ok(length) if request.body_length().is_none_or(|whole| whole == length) => Ok(body),
            Ok(_) => Err(Refusal::new(400, "body_incomplete", "the request body ended early")),
            Err(_) => Err(Refusal::new(400, "bad_request", "the request body is malformed")),
        }
    }

    fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        if let Some(request) = self.request.take() {
            self.writer = Some(request.into_writer());
        }
        let Some(writer) = &mut self.writer else { return Err(io::ErrorKind::NotConnected.into()) };
        for part in parts {
            writer.write_all(part)?;
        }
        writer.flush()
    }

    fn closes(&self) -> bool {
        !self.keeps_alive
    }

    fn close(&mut self) {
        self.keeps_alive = false;
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.watched.as_fd())
    }

    fn client_is_gone(&self) -> bool {
        wire::is_gone(self.shared.watched.as_fd())
    }

    fn peer(&self) -> SocketAddr {
        self.peer
    }
}
