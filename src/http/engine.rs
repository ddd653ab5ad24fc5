//! Our own engine: one thread accepts, and each connection has a thread.
//!
//! **Invariant**: at most `max_connections` threads serve; a place is taken before a thread is started and given back
//! when it ends, however it ends. The accepting thread never waits for a client.
//! **Thread**: `http-<name>` accepts; `conn-<name>` are the connections.
//! **Bounds**: `max_connections`; pauses between `ACCEPT_PAUSE_MIN` and `ACCEPT_PAUSE_MAX` when descriptors are short.
//! Left out on purpose: shutting the listening socket down. Others may hold a duplicate and go on accepting.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::deadline::Deadline;
use crate::http::Times;
use crate::http::connection::{Link, serve};
use crate::http::server::Handler;
use crate::limits::{ACCEPT_PAUSE_MAX, ACCEPT_PAUSE_MIN, CONNECTION_STACK_BYTES};
use crate::throttle::Throttle;
use crate::worker;

/// What a connection gets for which there is no place or no thread.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 84\r\n\
Retry-After: 1\r\nConnection: close\r\n\r\n\
{\"error\":{\"code\":\"too_many_connections\",\"message\":\"no place is free, try again soon\"}}";

/// A listener that is served.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<Accepting>>,
}

struct Accepting {
    /// The accepting thread ends when this is dropped.
    wake: PipeWriter,
    thread: JoinHandle<()>,
}

struct Shared {
    max_connections: usize,
    times: Times,
    handler: Arc<dyn Handler>,
    is_stopping: AtomicBool,
    is_draining: AtomicBool,
    open: Mutex<Open>,
    /// Told whenever a connection ends.
    ended: Condvar,
}

#[derive(Default)]
struct Open {
    next: u64,
    links: HashMap<u64, Arc<Link>>,
}

/// A connection's place; given back on drop.
struct Place {
    shared: Arc<Shared>,
    id: u64,
}

impl Server {
    /// Serves the listener until `stop_accepting`. `name` tells the threads of several servers apart.
    pub fn start(
        name: &'static str,
        listener: TcpListener,
        max_connections: usize,
        handler: Arc<dyn Handler>,
    ) -> io::Result<Server> {
        Server::start_with(name, listener, max_connections, handler, Times::default())
    }

    pub fn start_with(
        name: &'static str,
        listener: TcpListener,
        max_connections: usize,
        handler: Arc<dyn Handler>,
        times: Times,
    ) -> io::Result<Server> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (is_stopping, is_draining) = (AtomicBool::new(false), AtomicBool::new(false));
        let (open, ended) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { max_connections, times, handler, is_stopping, is_draining, open, ended });
        let (woken, wake) = io::pipe()?;
        let acceptor = Acceptor { shared: shared.clone(), listener, woken, connection_name: format!("conn-{name}") };
        let thread = worker::spawn(&format!("http-{name}"), move || acceptor.run())?;
        Ok(Server { address, shared, accepting: Mutex::new(Some(Accepting { wake, thread })) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.open().links.len()
    }

    /// Returns when no further connection will be accepted and the listener is closed here.
    pub fn stop_accepting(&self) {
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Accepting { wake, thread }) = accepting {
            self.shared.is_stopping.store(true, Ordering::Relaxed);
            drop(wake);
            // It cannot have panicked: that ends the process.
            let _ = thread.join();
        }
    }

    /// Ends idle connections at once and the others after their current answer; cuts what is left at the deadline.
    /// True if nothing was cut. To be called after `stop_accepting`.
    pub fn drain(&self, deadline: Deadline) -> bool {
        self.shared.is_draining.store(true, Ordering::SeqCst);
        let mut open = self.shared.open();
        for link in open.links.values().filter(|link| link.is_idle.load(Ordering::SeqCst)) {
            // Only the reading side: a request that has arrived meanwhile is still read and answered.
            let _ = link.stream.shutdown(Shutdown::Read);
        }
        while !open.links.is_empty() && !deadline.has_passed() {
            let waited = self.shared.ended.wait_timeout(open, deadline.left());
            open = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        for link in open.links.values() {
            let _ = link.stream.shutdown(Shutdown::Both);
        }
        open.links.is_empty()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_accepting();
        self.drain(Deadline::after(Duration::ZERO));
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for this connection, if one is free.
    fn take_place(self: &Arc<Shared>, link: &Arc<Link>) -> Option<Place> {
        let mut open = self.open();
        if open.links.len() >= self.max_connections {
            return None;
        }
        let id = open.next;
        open.next += 1;
        open.links.insert(id, link.clone());
        Some(Place { shared: self.clone(), id })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.open().links.remove(&self.id);
        self.shared.ended.notify_all();
    }
}

struct Acceptor {
    shared: Arc<Shared>,
    listener: TcpListener,
    woken: PipeReader,
    connection_name: String,
}

impl Acceptor {
    fn run(self) {
        let mut pause = ACCEPT_PAUSE_MIN;
        while !self.shared.is_stopping.load(Ordering::Relaxed) {
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSE_MIN;
                    self.admit(stream, peer);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.wait(true, None),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    // Descriptors or memory are short; they come back when others let go of theirs.
                    _ => {
                        log_accept(&error);
                        self.wait(false, Some(pause));
                        pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                    }
                },
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        // Where the listener's non-blocking mode is inherited (not on Linux), it is taken back.
        if cfg!(not(target_os = "linux")) && stream.set_nonblocking(false).is_err() {
            return;
        }
        let link = Arc::new(Link { stream, peer, is_idle: AtomicBool::new(true) });
        let Some(place) = self.shared.take_place(&link) else { return refuse(&link, "no place is free") };
        let connection = link.clone();
        let spawned = worker::spawn_small(&self.connection_name, CONNECTION_STACK_BYTES, move || {
            let shared = &place.shared;
            serve(&connection, &shared.is_draining, shared.times, &*shared.handler);
        });
        if spawned.is_err() {
            refuse(&link, "no thread can be started");
        }
    }

    /// Until a connection can be accepted (if asked), the server stops, or the pause is over.
    fn wait(&self, for_connections: bool, pause: Option<Duration>) {
        let events = if for_connections { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [PollFd::new(&self.woken, PollFlags::IN), PollFd::new(&self.listener, events)];
        let used = if for_connections { 2 } else { 1 };
        let pause =
            pause.map(|pause| Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) });
        // A failed wait is tried again by the loop; without memory even for that, a short sleep keeps it from spinning.
        if let Err(error) = poll(&mut fds[..used], pause.as_ref())
            && error != Errno::INTR
        {
            std::thread::sleep(ACCEPT_PAUSE_MIN);
        }
    }
}

/// Says 503 without waiting. What has arrived is read first, since closing on unread bytes would reset the connection
/// and could take the answer with it.
fn refuse(link: &Link, why: &str) {
    static THROTTLE: Throttle = Throttle::new();
    if let Some(suppressed) = THROTTLE.allows() {
        log::warn!("event=connection_refused peer={} reason={why:?} suppressed={suppressed}", link.peer);
    }
    let socket = link.stream.as_fd();
    let _ = rustix::net::send(socket, BUSY, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    let _ = link.stream.shutdown(Shutdown::Write);
    let _ = rustix::net::recv(socket, &mut [0; 4096], RecvFlags::DONTWAIT);
}

fn log_accept(error: &io::Error) {
    static THROTTLE: Throttle = Throttle::new();
    if let Some(suppressed) = THROTTLE.allows() {
        log::warn!("event=accept_failed error={error:?} suppressed={suppressed}");
    }
}
