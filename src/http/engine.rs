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
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::deadline::Deadline;
use crate::http::Times;
use crate::http::connection::{Drain, Link, serve};
use crate::http::server::Handler;
use crate::limits::{ACCEPT_PAUSE_MAX, ACCEPT_PAUSE_MIN, CONNECTION_STACK_BYTES, LISTEN_BACKLOG};
use crate::metrics::{self, Refused};
use crate::os;
use crate::throttle::Throttle;
use crate::worker;

/// What a connection gets for which there is no place or no thread.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 86\r\n\
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
    /// Since when each answer is the last one of its connection.
    draining: OnceLock<Instant>,
    /// The time is over in which idle connections may send one more request.
    ends_idle: AtomicBool,
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
        let shared = Arc::new(Shared {
            max_connections,
            times,
            handler,
            is_stopping: AtomicBool::new(false),
            draining: OnceLock::new(),
            ends_idle: AtomicBool::new(false),
            open: Mutex::default(),
            ended: Condvar::new(),
        });
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
            let _ = thread.join();
        }
    }

    /// From now on each answer is the last one of its connection, and says so.
    pub fn begin_drain(&self) {
        let _ = self.shared.draining.set(Instant::now());
    }

    /// Ends each connection after its current answer or, if it is idle, after one more; idle ones that have none to
    /// ask for are ended `times.drain_idle` after the drain has begun. Cuts what is left at the deadline; true if nothing was cut. To be
    /// called after `stop_accepting`.
    pub fn drain(&self, deadline: Deadline) -> bool {
        self.begin_drain();
        let began = self.shared.draining.get().map_or(Duration::ZERO, Instant::elapsed);
        let grace = Deadline::after(self.shared.times.drain_idle.saturating_sub(began).min(deadline.left()));
        let open = self.shared.wait_for_all(self.shared.open(), grace);
        self.shared.ends_idle.store(true, Ordering::SeqCst);
        for link in open.links.values().filter(|link| link.is_idle.swap(false, Ordering::SeqCst)) {
            // Only the reading side: a request that has arrived meanwhile is still read and answered.
            let _ = link.stream.shutdown(Shutdown::Read);
        }
        let open = self.shared.wait_for_all(open, deadline);
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

    /// Until no connection is open, or the deadline.
    fn wait_for_all<'a>(&self, mut open: MutexGuard<'a, Open>, deadline: Deadline) -> MutexGuard<'a, Open> {
        while !open.links.is_empty() && !deadline.has_passed() {
            let waited = self.ended.wait_timeout(open, deadline.left());
            open = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        open
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
        // Whoever is connected already has perhaps sent a request; closing the last listener would reset the connection.
        for _ in 0..LISTEN_BACKLOG {
            let Ok((stream, peer)) = self.listener.accept() else { break };
            self.admit(stream, peer);
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
            os::let_others_finish();
            let shared = &place.shared;
            let drain = Drain { began: &shared.draining, ends_idle: &shared.ends_idle };
            serve(&connection, drain, shared.times, &*shared.handler);
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
    metrics::HTTP_REFUSED.record(Refused::Connections);
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use crossbeam_channel::{Receiver, Sender};

    use super::*;
    use crate::http::testing::{PATIENCE, connect, exchange, for_seeds, listen, paths, read_to_end, read_until};

    /// A time that runs out in a test.
    const SHORT: Duration = Duration::from_millis(200);
    const GET: &[u8] = b"GET /ignore HTTP/1.1\r\nHost: h\r\n\r\n";

    struct Running {
        server: Server,
        arrivals: Receiver<()>,
        release: Sender<()>,
    }

    fn start(max_connections: usize, times: Times) -> Running {
        let (handler, arrivals, release) = paths();
        let server = Server::start_with("test", listen(), max_connections, handler, times);
        Running { server: server.expect("a server starts"), arrivals, release }
    }

    fn post(path: &str, fields: &str, body: &str) -> String {
        format!("POST {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n{body}")
    }

    fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Deadline::after(PATIENCE);
        while !condition() {
            assert!(!deadline.has_passed(), "{what}");
            std::thread::yield_now();
        }
    }

    /// One answer, with this status, which announces the close; the request after it is not looked at.
    fn check_refused(server: &Server, raw: &str, status: u16) {
        let answer = exchange(server.address(), format!("{raw}GET /ignore HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{raw:?}: {answer:?}");
        let answers = answer.lines().filter(|line| line.starts_with("HTTP/1.1 ")).count();
        assert_eq!(answers, 1, "{raw:?}: {answer:?}");
        assert!(answer.contains("Connection: close\r\n") && answer.contains("{\"error\":"), "{raw:?}: {answer:?}");
    }

    #[test]
    fn what_is_refused_ends_the_connection() {
        let Running { server, .. } = start(64, Times { linger: SHORT, ..Times::default() });
        for (raw, status) in [
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\nHost: h\n\n".to_owned(), 400),
            ("GET / HTTP/2.0\r\nHost: h\r\n\r\n".to_owned(), 505),
            ("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n".to_owned(), 501),
            (format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(9000)), 414),
            (format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(20_000)), 414),
            (format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "a".repeat(20_000)), 431),
            (post("/echo", "Content-Length: 3\r\nContent-Length: 3", "abc"), 400),
            (post("/echo", "Content-Length: 3\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 400),
            (post("/echo", "Transfer-Encoding: gzip, chunked", "0\r\n\r\n"), 400),
            (post("/echo", "Transfer-Encoding: chunked", "3 \r\nabc\r\n0\r\n\r\n"), 400),
            (post("/echo", "Transfer-Encoding: chunked", "3\r\nabcd\r\n0\r\n\r\n"), 400),
            (post("/echo", "Transfer-Encoding: chunked", "0\r\nA\r\n\r\n"), 400),
            (post("/echo", "X: no length", ""), 411),
            (post("/echo", "X: no length", "a=b"), 411),
            (post("/echo", "Content-Length: 16777217", ""), 413),
            (post("/echo", "Content-Length: 200000000000000", ""), 413),
            (post("/echo", "Content-Length: 18446744073709551615", ""), 413),
            (post("/echo", "Content-Length: 16777217\r\nExpect: 100-continue", ""), 413),
            (post("/echo", "Content-Length: 3\r\nExpect: magic", "abc"), 417),
        ] {
            check_refused(&server, &raw, status);
        }
    }

    #[test]
    fn a_chunked_body_is_bounded_as_a_whole() {
        let Running { server, .. } = start(64, Times { linger: SHORT, ..Times::default() });
        let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
        check_refused(&server, &post("/echo", "Transfer-Encoding: chunked", &chunk.repeat(17)), 413);
        let whole =
            post("/echo", "Connection: close\r\nTransfer-Encoding: chunked", &format!("{}0\r\n\r\n", chunk.repeat(16)));
        assert!(exchange(server.address(), whole.as_bytes()).contains("Content-Length: 16777216\r\n"));
    }

    #[test]
    fn a_request_that_takes_too_long_is_refused() {
        let Running { server, .. } = start(64, Times { head: SHORT, body: SHORT, ..Times::default() });
        for (raw, code) in [
            ("GET / HTTP/1.1\r\nHo".to_owned(), "head_timeout"),
            ("\r".to_owned(), "head_timeout"),
            (post("/echo", "Content-Length: 5", "hel"), "body_timeout"),
            (post("/echo", "Transfer-Encoding: chunked", "5\r\nhel"), "body_timeout"),
        ] {
            let answer = exchange(server.address(), raw.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains(code), "{raw:?}: {answer:?}");
        }
    }

    #[test]
    fn single_bytes_do_not_extend_the_time() {
        let Running { server, .. } = start(64, Times { head: SHORT, body: SHORT, ..Times::default() });
        for raw in ["GET / HTTP/1.1\r\nX: ".to_owned(), post("/echo", "Content-Length: 100000", "")] {
            let mut stream = connect(server.address());
            stream.write_all(raw.as_bytes()).expect("sent");
            // A read that waits for a moment is what paces this sender.
            stream.set_read_timeout(Some(SHORT / 10)).expect("a socket has a timeout");
            let (started, mut first) = (Instant::now(), [0]);
            while !matches!(stream.read(&mut first), Ok(1)) {
                assert!(started.elapsed() < PATIENCE, "{raw:?} is waited for without end");
                let _ = stream.write_all(b"a");
            }
            assert!(read_until(&mut stream, "\r\n").ends_with("408 Request Timeout\r\n"), "{raw:?}");
        }
    }

    #[test]
    fn a_request_that_ends_early_is_told_so() {
        let Running { server, .. } = start(64, Times::default());
        for raw in [
            "GET / HT".to_owned(),
            post("/echo", "Content-Length: 5", "hel"),
            post("/echo", "Transfer-Encoding: chunked", "5\r\n"),
        ] {
            let mut stream = connect(server.address());
            stream.write_all(raw.as_bytes()).expect("sent");
            stream.shutdown(Shutdown::Write).expect("open");
            assert!(read_to_end(&mut stream).starts_with("HTTP/1.1 400 "), "{raw:?}");
        }
    }

    #[test]
    fn an_idle_connection_ends_without_a_word() {
        let Running { server, .. } = start(64, Times { idle: SHORT, ..Times::default() });
        assert_eq!(exchange(server.address(), b""), "");
        let answer = exchange(server.address(), GET);
        assert!(answer.ends_with("ignored") && !answer.contains("Connection: close"), "{answer:?}");
    }

    #[test]
    fn a_reader_that_stalls_is_let_go() {
        let Running { server, .. } = start(64, Times { write_stall: SHORT, ..Times::default() });
        let mut stream = connect(server.address());
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
        until("the connection begins", || server.connections() == 1);
        until("the connection ends", || server.connections() == 0);
    }

    #[test]
    fn a_body_that_nobody_reads_is_dropped_or_ends_the_connection() {
        let Running { server, .. } = start(64, Times { linger: SHORT, ..Times::default() });
        let (small, large) = ("x".repeat(60_000), "x".repeat(200_000));
        let check = |fields: &str, body: &str, answers: usize| {
            let raw = post("/ignore", fields, body) + &post("/close", "X: y", "");
            let answer = exchange(server.address(), raw.as_bytes());
            assert_eq!(answer.matches("HTTP/1.1 200").count(), answers, "{fields}: {answer:?}");
        };
        check(&format!("Content-Length: {}", small.len()), &small, 2);
        check(&format!("Content-Length: {}", large.len()), &large, 1);
        check("Transfer-Encoding: chunked", "1\r\nx\r\n0\r\n\r\n", 2);
        check("Transfer-Encoding: chunked", &format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len()), 1);
        check("Content-Length: 3\r\nExpect: 100-continue", "", 1);
    }

    #[test]
    fn a_broken_stream_has_no_end() {
        let Running { server, .. } = start(64, Times::default());
        let answer = exchange(server.address(), b"GET /broken HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(answer.ends_with("9\r\ntwo three\r\n"), "{answer:?}");
    }

    #[test]
    fn without_a_free_place_a_connection_is_refused_and_others_do_not_suffer() {
        let Running { server, .. } = start(2, Times::default());
        let mut inside = [connect(server.address()), connect(server.address())];
        for stream in &mut inside {
            stream.write_all(GET).expect("sent");
            read_until(stream, "ignored");
        }
        for _ in 0..20 {
            let answer = read_to_end(&mut connect(server.address()));
            let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
            assert!(head.starts_with("HTTP/1.1 503 ") && head.contains(&format!("Content-Length: {}\r\n", body.len())));
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
        }
        let [mut first, second] = inside;
        drop(second);
        until("the place is given back", || server.connections() == 1);
        first.write_all(GET).expect("sent");
        read_until(&mut first, "ignored");
        assert!(exchange(server.address(), b"GET /ignore HTTP/1.0\r\n\r\n").ends_with("ignored"));
    }

    #[test]
    fn a_client_is_gone_when_it_has_closed_and_not_when_it_sends_more() {
        let Running { server, arrivals, .. } = start(64, Times::default());
        let mut stream = connect(server.address());
        stream.write_all(b"GET /gone HTTP/1.1\r\nHost: h\r\n\r\nGET /gone HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
        arrivals.recv_timeout(PATIENCE).expect("the request arrives");
        assert!(arrivals.recv_timeout(SHORT).is_err(), "it is not gone yet");
        drop(stream);
        arrivals.recv_timeout(PATIENCE).expect("it is gone");
    }

    #[test]
    fn drain_ends_idle_connections_and_lets_answers_finish() {
        let times = Times { linger: SHORT, drain_idle: SHORT, ..Times::default() };
        let Running { server, arrivals, release } = start(64, times);
        let (mut idle, mut busy) = (connect(server.address()), connect(server.address()));
        idle.write_all(GET).expect("sent");
        read_until(&mut idle, "ignored");
        busy.write_all(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
        arrivals.recv_timeout(PATIENCE).expect("the request arrives");
        server.stop_accepting();
        std::thread::scope(|scope| {
            let drained = scope.spawn(|| server.drain(Deadline::after(PATIENCE)));
            assert_eq!(read_to_end(&mut idle), "");
            drop(release);
            let answer = read_to_end(&mut busy);
            assert!(answer.contains("Connection: close\r\n") && answer.ends_with("waited"), "{answer:?}");
            assert!(drained.join().expect("drain does not panic"));
        });
        assert_eq!(server.connections(), 0);
    }

    /// A balancer's request came just when the drain ended its connection, and was then cancelled as if its client had gone.
    #[test]
    fn a_request_that_meets_the_end_of_its_connection_is_answered() {
        let Running { server, arrivals, release } = start(64, Times { linger: SHORT, ..Times::default() });
        let mut stream = connect(server.address());
        until("it is open", || server.connections() == 1);
        let link = server.shared.open().links.values().next().cloned().expect("it is open");
        // It waits for its first byte; give it the time to.
        std::thread::sleep(SHORT);
        // As `drain` does; the request comes between the two.
        assert!(link.is_idle.swap(false, Ordering::SeqCst));
        stream.write_all(b"GET /stays HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("sent");
        arrivals.recv_timeout(PATIENCE).expect("the request arrives");
        link.stream.shutdown(Shutdown::Read).expect("an open socket");
        drop((link, release));
        assert!(read_to_end(&mut stream).ends_with("there"));
    }

    #[test]
    fn an_idle_connection_has_one_more_request_while_the_server_drains() {
        let Running { server, .. } = start(64, Times { linger: SHORT, ..Times::default() });
        let (mut idle, mut fresh) = (connect(server.address()), connect(server.address()));
        idle.write_all(GET).expect("sent");
        assert!(!read_until(&mut idle, "ignored").contains("Connection: close"));
        until("both are open", || server.connections() == 2);
        server.stop_accepting();
        std::thread::scope(|scope| {
            let drained = scope.spawn(|| server.drain(Deadline::after(PATIENCE)));
            until("it drains", || server.shared.draining.get().is_some());
            std::thread::sleep(SHORT);
            for stream in [&mut idle, &mut fresh] {
                stream.write_all(&GET.repeat(2)).expect("sent");
                let answer = read_to_end(stream);
                assert!(answer.contains("Connection: close\r\n") && answer.ends_with("ignored"), "{answer:?}");
                assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer:?}");
            }
            assert!(drained.join().expect("drain does not panic"));
        });
    }

    #[test]
    fn drain_cuts_what_is_left_at_the_deadline() {
        let Running { server, arrivals, release } = start(64, Times::default());
        let mut stream = connect(server.address());
        stream.write_all(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
        arrivals.recv_timeout(PATIENCE).expect("the request arrives");
        assert!(!server.drain(Deadline::after(SHORT)));
        assert_eq!(read_to_end(&mut stream), "");
        drop(release);
        until("the thread ends", || server.connections() == 0);
    }

    #[test]
    fn a_duplicate_of_the_listener_goes_on_after_the_server() {
        let listener = listen();
        let duplicate = listener.try_clone().expect("a listener can be duplicated");
        let server = Server::start("test", listener, 64, paths().0).expect("a server starts");
        assert!(exchange(server.address(), b"GET /ignore HTTP/1.0\r\n\r\n").ends_with("ignored"));
        let address = server.address();
        server.stop_accepting();
        let mut waiting = connect(address);
        waiting.write_all(b"GET /ignore HTTP/1.0\r\n\r\n").expect("sent");
        let _next = Server::start("test", duplicate, 64, paths().0).expect("a server starts");
        assert!(read_to_end(&mut waiting).ends_with("ignored"));
    }

    #[test]
    fn mutated_requests_get_an_answer_or_the_end() {
        let times = Times { idle: SHORT, head: SHORT, body: SHORT, linger: SHORT, ..Times::default() };
        let Running { server, .. } = start(64, times);
        let seeds: &[&[u8]] = &[
            b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /close HTTP/1.0\r\n\r\n",
        ];
        for_seeds(100, |random| {
            let raw = random.mutated(seeds);
            let mut stream = connect(server.address());
            stream.write_all(&raw).expect("sent");
            stream.shutdown(Shutdown::Write).expect("open");
            let answer = read_to_end(&mut stream);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 "), "{answer:?}");
        });
        assert!(exchange(server.address(), b"GET /ignore HTTP/1.0\r\n\r\n").ends_with("ignored"));
    }
}
