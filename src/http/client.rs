//! A blocking HTTP client: one pool of connections for each server, and a reply that is waited for in steps.
//!
//! Whoever waits says how long (`Patience`), may be woken in between to do something of his own, and may watch another
//! socket, so that a call ends when the client it is made for is gone.
//!
//! **Invariant**: a connection goes back to the pool only when its reply was read to the end and nothing came after it.
//! **Thread**: the caller's.
//! **Bounds**: `BODY_BYTES_MAX` for whole replies, `WRITE_STALL_MAX`, the deadline of the call; `pool.rs`.
//! Left out on purpose: redirects, proxies, cookies, compression; no instance needs them.

use std::io;
use std::sync::Arc;

use crate::deadline::Deadline;
use crate::http::client_error::ClientError;
use crate::http::fields::{BodyLength, Written, put_field, put_line};
use crate::http::head::ResponseHead;
use crate::http::pool::{Connection, Peer};
use crate::http::reply::{Patience, Reply};
use crate::http::wire::{self, WriteTimes};
use crate::limits::{BODY_BYTES_MAX, WRITE_STALL_MAX};

/// Connections to one server. Clones share them.
#[derive(Clone)]
pub struct Pool {
    peer: Arc<Peer>,
}

/// A request to be sent. `Host` and `Content-Length` are added.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    pub method: &'a str,
    pub target: &'a str,
    /// What goes before `headers`, if anything.
    pub written: Option<&'a Written>,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [&'a [u8]],
    /// Sending it twice does no harm: `ask` does so when a pooled connection turns out to be closed.
    pub idempotent: bool,
}

impl Pool {
    /// Connects to nobody yet. `host` is a name or an address, with or without brackets.
    pub fn new(host: &str, port: u16) -> Pool {
        Pool { peer: Arc::new(Peer::new(host, port)) }
    }

    /// `host:port`, as in a URL.
    pub fn authority(&self) -> &str {
        &self.peer.authority
    }

    /// Sends the request on a pooled connection, or a new one. The reply is then to be waited for.
    pub fn send(&self, request: &Outgoing<'_>, deadline: Deadline) -> Result<Reply, ClientError> {
        while let Some(mut connection) = self.peer.take_idle() {
            // Its server had closed it: the request was not taken as a whole, so that it is safe to send it again.
            if self.write(&mut connection, request, deadline)?.is_ok() {
                return Ok(Reply::new(&self.peer, connection, request.method == "HEAD", true));
            }
        }
        let mut connection = self.peer.connect(deadline)?;
        match self.write(&mut connection, request, deadline)? {
            Ok(()) => Ok(Reply::new(&self.peer, connection, request.method == "HEAD", false)),
            Err(source) => Err(ClientError::Write { address: self.peer.authority.clone(), source }),
        }
    }

    /// The whole reply.
    pub fn ask(&self, request: &Outgoing<'_>, deadline: Deadline) -> Result<(ResponseHead, Vec<u8>), ClientError> {
        let patience = Patience { deadline, tick: None, watched: None, called: None };
        loop {
            let mut reply = self.send(request, deadline)?;
            match reply.wait_head(&patience) {
                // Each turn uses up a pooled connection, so that this ends.
                Err(error) if request.idempotent && error.is_stale_connection() => continue,
                other => other?,
            };
            let too_large = matches!(reply.head().body_length(), BodyLength::Bytes(n) if n > BODY_BYTES_MAX as u64);
            let mut body = Vec::new();
            while !too_large && body.len() <= BODY_BYTES_MAX && !reply.is_complete() {
                reply.read(&mut body, &patience)?;
            }
            if too_large || body.len() > BODY_BYTES_MAX {
                return Err(ClientError::TooLarge { address: self.authority().to_owned(), limit: BODY_BYTES_MAX });
            }
            return Ok((reply.take_response_head(), body));
        }
    }

    /// Closes connections that nobody used for a while. Called now and then, since a pool has no thread of its own.
    pub fn close_stale(&self) {
        self.peer.close_stale();
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
        if put_request_head(out, request, &self.peer.authority).is_err() {
            let what = "the request has a character that HTTP does not allow in its head";
            return Err(ClientError::Request { address: self.peer.authority.clone(), what });
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
                let (address, limit) = (self.peer.authority.clone(), deadline.limit().min(WRITE_STALL_MAX));
                Err(ClientError::Timeout { address, phase: "the request to be taken", limit })
            }
            sent => Ok(sent),
        }
    }
}

fn put_request_head(out: &mut Vec<u8>, request: &Outgoing<'_>, authority: &str) -> io::Result<()> {
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if !is_plain(request.method) || !is_plain(request.target) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    put_line(out, &[request.method, " ", request.target, " HTTP/1.1"]);
    put_field(out, "Host", authority)?;
    out.extend_from_slice(request.written.map_or(&[], Written::bytes));
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::http::reply::Wake;
    use crate::http::server::Server;
    use crate::http::testing::{PATIENCE, for_seeds, listen, paths, read_until};
    use crate::limits::{HEAD_BYTES_MAX, INTERIM_REPLIES_MAX};

    /// A time that runs out in a test.
    const SHORT: Duration = Duration::from_millis(100);
    const GET: Outgoing<'_> =
        Outgoing { method: "GET", target: "/ignore", written: None, headers: &[], body: &[], idempotent: true };
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    fn server() -> (Server, Pool) {
        let server = Server::start("test", listen(), 64, paths().0).expect("a server starts");
        let pool = Pool::new("127.0.0.1", server.address().port());
        (server, pool)
    }

    /// A server that follows a script: for each connection, what it sends for each request head, then it closes.
    fn scripted(connections: Vec<Vec<Vec<u8>>>) -> Pool {
        let listener: TcpListener = listen();
        let port = listener.local_addr().expect("it has an address").port();
        thread::spawn(move || {
            for answers in connections {
                let (mut stream, _) = listener.accept().expect("a client connects");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a timeout");
                for answer in answers {
                    read_until(&mut stream, "\r\n\r\n");
                    let _ = stream.write_all(&answer);
                }
            }
        });
        Pool::new("127.0.0.1", port)
    }

    /// A listener whose connections are accepted by the kernel and answered by nobody.
    fn silent() -> (TcpListener, Pool) {
        let listener = listen();
        let pool = Pool::new("127.0.0.1", listener.local_addr().expect("it has an address").port());
        (listener, pool)
    }

    fn soon() -> Deadline {
        Deadline::after(PATIENCE)
    }

    fn patience() -> Patience<'static> {
        Patience { deadline: soon(), tick: None, watched: None, called: None }
    }

    #[test]
    fn replies() {
        let check = |raw: &str, expected: Result<(u16, &str), &str>| {
            let pool = scripted(vec![vec![raw.as_bytes().to_vec()]]);
            match (pool.ask(&GET, soon()), expected) {
                (Ok((head, body)), Ok((status, text))) => {
                    assert_eq!((head.status(), &*String::from_utf8_lossy(&body)), (status, text), "{raw:?}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{raw:?}: {error}"),
                (outcome, _) => panic!("{raw:?}: {:?}", outcome.map(|(head, body)| (head.status(), body))),
            }
        };
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok((200, "ok")));
        check("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", Ok((404, "")));
        check("HTTP/1.1 204 No\r\n\r\n", Ok((204, "")));
        check("HTTP/1.1 200 OK\r\n\r\nuntil the end", Ok((200, "until the end")));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Ok((200, "ok")));
        check(
            "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Ok((200, "ok")),
        );
        check("", Err("without an answer"));
        check("HTTP/1.1 200 OK\r\nContent-", Err("within its answer"));
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", Err("within its answer"));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", Err("within its answer"));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay", Err("chunk data"));
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", Err("given twice"));
        check("HTTP/1.1 101 Switching\r\n\r\n", Err("interim"));
        check(&"HTTP/1.1 100 C\r\n\r\n".repeat(INTERIM_REPLIES_MAX + 1), Err("interim"));
        check("SSH-2.0-OpenSSH_9.6\r\n\r\n", Err("malformed"));
        check(&format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(HEAD_BYTES_MAX)), Err("longer than 16 KiB"));
        check("HTTP/1.1 200 OK\r\nContent-Length: 16777217\r\n\r\n", Err("longer than 16777216"));
    }

    #[test]
    fn requests_arrive_as_they_were_given() {
        let (_server, pool) = server();
        let parts: &[&[u8]] = &[b"a", b"", b"bc", &[b'd'; 100_000]];
        let headers = &[("Content-Length", "1"), ("host", "x"), ("X-A", "b")];
        let request = Outgoing { method: "POST", target: "/echo", headers, body: parts, idempotent: false, ..GET };
        let (head, body) = pool.ask(&request, soon()).expect("an answer");
        assert_eq!((head.status(), head.header("x-method")), (200, Some("Post")));
        assert_eq!(body, parts.concat());
        for (target, headers) in [("/a b", &[][..]), ("", &[]), ("/\r\n", &[]), ("/", &[("A", "b\r\nC: d")])] {
            let error = pool.ask(&Outgoing { target, headers, ..GET }, soon()).expect_err("it is refused");
            assert!(matches!(error, ClientError::Request { .. }), "{target:?}: {error}");
        }
    }

    #[test]
    fn a_connection_is_used_again_only_if_its_reply_was_read_whole() {
        let (server, pool) = server();
        let kept = || pool.peer.idle_count();
        for target in ["/ignore", "/stream", "/nothing", "/large"] {
            pool.ask(&Outgoing { target, ..GET }, soon()).expect("an answer");
            assert_eq!(kept(), 1, "{target}");
        }
        pool.ask(&Outgoing { method: "HEAD", ..GET }, soon()).expect("an answer");
        assert!(cfg!(feature = "tiny-http") || server.connections() == 1);
        pool.ask(&Outgoing { target: "/close", ..GET }, soon()).expect("an answer");
        assert_eq!(kept(), 0);
        let mut reply = pool.send(&Outgoing { target: "/large", ..GET }, soon()).expect("it is sent");
        reply.wait_head(&patience()).expect("a head");
        drop(reply);
        assert_eq!(kept(), 0, "most of the reply is unread");
        let surplus = scripted(vec![vec![[OK, b"more"].concat()]]);
        surplus.ask(&GET, soon()).expect("an answer");
        assert_eq!(surplus.peer.idle_count(), 0, "bytes after the reply");
        pool.ask(&GET, soon()).expect("an answer");
        pool.close_stale();
        assert_eq!(kept(), 1, "it was used a moment ago");
    }

    #[test]
    fn a_request_is_sent_again_only_if_that_does_no_harm() {
        let script = || scripted(vec![vec![OK.to_vec(), Vec::new()], vec![OK.to_vec()]]);
        let pool = script();
        pool.ask(&GET, soon()).expect("an answer");
        let (_, body) = pool.ask(&GET, soon()).expect("an answer from a second connection");
        assert_eq!(body, b"ok");
        let pool = script();
        let once = Outgoing { idempotent: false, ..GET };
        pool.ask(&once, soon()).expect("an answer");
        assert!(pool.ask(&once, soon()).expect_err("it may have been served").is_stale_connection());
        let pool = scripted(vec![vec![Vec::new()], vec![OK.to_vec()]]);
        let error = pool.ask(&GET, soon()).expect_err("a new connection is not tried twice");
        assert!(!error.is_stale_connection(), "{error}");
    }

    #[test]
    fn a_body_comes_in_parts() {
        let (_server, pool) = server();
        let mut reply = pool.send(&Outgoing { target: "/stream", ..GET }, soon()).expect("it is sent");
        assert_eq!(reply.wait_head(&patience()).expect("a head"), Wake::Ready);
        assert_eq!(reply.head().header("content-type"), Some("text/plain"));
        let mut body = Vec::new();
        while !reply.is_complete() {
            assert_eq!(reply.read(&mut body, &patience()).expect("more"), Wake::Ready);
        }
        assert_eq!(body, b"one two three");
    }

    #[test]
    fn a_wait_has_an_end() {
        let (_listener, pool) = silent();
        let mut reply = pool.send(&GET, soon()).expect("it is sent");
        let tick = Patience { tick: Some(SHORT), ..patience() };
        assert_eq!(reply.wait_head(&tick).expect("a tick"), Wake::Tick);
        let client = listen();
        let there = TcpStream::connect(client.local_addr().expect("it has an address")).expect("it listens");
        let (mut here, _) = client.accept().expect("it connects");
        here.write_all(b"more bytes are no end").expect("sent");
        let watching = Patience { watched: Some(there.as_fd()), ..tick };
        assert_eq!(reply.wait_head(&watching).expect("a tick"), Wake::Tick);
        drop(here);
        assert_eq!(reply.wait_head(&Patience { tick: None, ..watching }).expect("it is told"), Wake::WatchedGone);
        let short = Patience { deadline: Deadline::after(SHORT), ..patience() };
        let error = reply.wait_head(&short).expect_err("the deadline passes");
        assert!(matches!(error, ClientError::Timeout { phase: "the answer", limit: SHORT, .. }), "{error}");
        assert!(reply.wait_head(&patience()).is_err(), "it has failed for good");
    }

    #[test]
    fn a_server_that_takes_nothing_does_not_hold_us() {
        let (_listener, pool) = silent();
        let large = vec![b'x'; 16 << 20];
        let request = Outgoing { method: "POST", body: &[&large], ..GET };
        let error = pool.ask(&request, Deadline::after(SHORT)).expect_err("the kernel takes less than this");
        assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    }

    #[test]
    fn cancelling_wakes_the_waiting_thread_and_harms_nobody_after() {
        let (_listener, pool) = silent();
        let mut reply = pool.send(&GET, soon()).expect("it is sent");
        let canceller = reply.canceller();
        let other = thread::spawn(move || canceller.cancel());
        let error = reply.wait_head(&patience()).expect_err("it is cancelled");
        assert!(matches!(error, ClientError::Cancelled { .. }), "{error}");
        other.join().expect("cancelling does not panic");

        let (_server, pool) = server();
        let mut reply = pool.send(&GET, soon()).expect("it is sent");
        let late = reply.canceller();
        let mut body = Vec::new();
        reply.wait_head(&patience()).expect("a head");
        reply.read(&mut body, &patience()).expect("a body");
        drop(reply);
        late.cancel();
        assert_eq!(pool.peer.idle_count(), 1);
        pool.ask(&GET, soon()).expect("the connection still works");
    }

    #[test]
    fn nobody_there() {
        let (listener, pool) = silent();
        drop(listener);
        let error = pool.ask(&GET, soon()).expect_err("nobody listens");
        assert!(error.to_string().contains("nothing listens on 127.0.0.1:"), "{error}");
        assert_eq!(error.address(), pool.authority());
        let error = Pool::new("no.such.host.invalid", 1).ask(&GET, soon()).expect_err("no such name");
        assert!(matches!(error, ClientError::Connect { .. }), "{error}");
        assert_eq!(Pool::new("::1", 80).authority(), "[::1]:80");
        assert_eq!(Pool::new("[::1]", 80).authority(), "[::1]:80");
    }

    #[test]
    fn mutated_replies_end_in_a_reply_or_an_error() {
        let seeds: &[&[u8]] = &[
            OK,
            b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nto the end",
        ];
        for_seeds(100, |random| {
            let pool = scripted(vec![vec![random.mutated(seeds)]]);
            match pool.ask(&GET, soon()) {
                Ok((head, _)) => assert!((200..600).contains(&head.status())),
                Err(error) => assert!(!matches!(error, ClientError::Timeout { .. }), "{error}"),
            }
        });
    }
}
