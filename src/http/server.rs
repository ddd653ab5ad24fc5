//! What the rest of the program knows of the HTTP server: a `Handler` is given a request head and an `Exchange`.
//!
//! **Invariant**: one request, one answer. An answer has its length or is chunked, never both; a connection whose
//! framing is in doubt, or whose request body was not read to its end, says `Connection: close` and is closed.
//! **Thread**: `Exchange` is used by the thread of its connection only.
//! **Bounds**: `BODY_BYTES_MAX`, `LISTEN_BACKLOG`; times are the engine's.
//! Left out on purpose: routes, and what a status means for MCP (`endpoint.rs`).

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::BorrowedFd;
use std::time::SystemTime;

use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::http::fields::{HeadError, put_field, put_line, put_status_line};
use crate::http::head::{Method, RequestHead};
use crate::limits::LISTEN_BACKLOG;
use crate::logging::line::civil_date;
use crate::metrics::{self, Refused};
use crate::throttle::Throttle;

#[cfg(not(feature = "tiny-http"))]
pub type Server = crate::http::engine::Server;
#[cfg(feature = "tiny-http")]
pub type Server = crate::http::tiny::Server;

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, request: &RequestHead, exchange: &mut Exchange<'_>);
}

/// A request that is not served, with what the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// One word for programs, such as `body_too_large`.
    pub code: &'static str,
    pub message: String,
}

/// One request's body and answer.
pub struct Exchange<'a> {
    transport: &'a mut dyn Transport,
    /// The head of the answer, or of a chunk; its allocation lives as long as the connection.
    out: &'a mut Vec<u8>,
    is_head: bool,
    is_http_1_0: bool,
    status: Option<u16>,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Due,
    /// Parts are still to come: as chunks, until the connection closes, or not at all (HEAD).
    Stream(Stream),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Chunks,
    UntilClose,
    NoBody,
}

/// What an engine does for an exchange.
pub trait Transport {
    /// The whole request body; its own framing and bounds.
    fn read_body(&mut self) -> Result<Vec<u8>, Refusal>;
    /// Writes the parts as one message.
    fn send(&mut self, parts: &[&[u8]]) -> io::Result<()>;
    /// Asked when the head of the answer is written: whether this connection will take no other request.
    fn closes(&self) -> bool;
    /// The connection is to end after this exchange.
    fn close(&mut self);
    fn socket(&self) -> Option<BorrowedFd<'_>>;
    fn client_is_gone(&self) -> bool;
    /// False: the socket looks as if its client had gone, by our own doing.
    fn shows_its_client(&self) -> bool {
        true
    }
    fn peer(&self) -> SocketAddr;
}

impl<'a> Exchange<'a> {
    /// For the engines.
    pub fn new(head: &RequestHead, transport: &'a mut dyn Transport, out: &'a mut Vec<u8>) -> Exchange<'a> {
        let (is_head, is_http_1_0) = (head.method() == Method::Head, head.is_http_1_0());
        Exchange { transport, out, is_head, is_http_1_0, status: None, answer: Answer::Due }
    }

    /// The whole body. A client that waits for `100 Continue` gets it first; what is refused here was not read.
    pub fn read_body(&mut self) -> Result<Vec<u8>, Refusal> {
        self.transport.read_body()
    }

    /// Answers with a body of known length. `Content-Length`, `Date` and `Connection` are set here.
    pub fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[&[u8]]) -> io::Result<()> {
        self.begin(status, headers)?;
        self.answer = Answer::Done;
        if !has_no_content(status) {
            let length: usize = body.iter().map(|part| part.len()).sum();
            put_line(self.out, &["Content-Length: ", &length.to_string()]);
        }
        self.out.extend_from_slice(b"\r\n");
        let has_body = !self.is_head && !has_no_content(status);
        self.send(if has_body { body } else { &[] }, b"")
    }

    /// Answers with `{"error":{"code":"…","message":"…"}}`.
    pub fn refuse(&mut self, refusal: &Refusal) -> io::Result<()> {
        self.refuse_with(refusal, &[])
    }

    /// The same with header fields.
    pub fn refuse_with(&mut self, refusal: &Refusal, headers: &[(&str, &str)]) -> io::Result<()> {
        metrics::HTTP_REFUSED.record(Refused::of_code(refusal.code));
        log_refusal(refusal, self.peer());
        let error = serde_json::json!({ "error": { "code": refusal.code, "message": refusal.message } });
        let body = error.to_string();
        let mut all = vec![("Content-Type", "application/json")];
        all.extend_from_slice(headers);
        self.respond(refusal.status, &all, &[body.as_bytes()])
    }

    /// Begins an answer of unknown length; `write` adds to it and `finish` ends it.
    pub fn start_stream(&mut self, status: u16, headers: &[(&str, &str)]) -> io::Result<()> {
        if self.is_http_1_0 {
            self.transport.close();
        }
        self.begin(status, headers)?;
        let stream = match self.is_http_1_0 {
            _ if self.is_head || has_no_content(status) => Stream::NoBody,
            true => Stream::UntilClose,
            false => Stream::Chunks,
        };
        if !self.is_http_1_0 && !has_no_content(status) {
            put_line(self.out, &["Transfer-Encoding: chunked"]);
        }
        self.out.extend_from_slice(b"\r\n");
        self.answer = Answer::Stream(stream);
        self.send(&[], b"")
    }

    /// Sends the parts as one chunk. Nothing is sent for nothing, since an empty chunk would end the stream.
    pub fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.write_chunk(parts, b"\r\n")
    }

    /// Sends the parts as one chunk and ends the answer with it.
    pub fn write_last(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        if parts.iter().all(|part| part.is_empty()) {
            return self.finish();
        }
        self.write_chunk(parts, b"\r\n0\r\n\r\n")?;
        self.answer = Answer::Done;
        Ok(())
    }

    /// Ends a streamed answer. Without this the client sees it broken off.
    pub fn finish(&mut self) -> io::Result<()> {
        let Answer::Stream(stream) = self.answer else { return Err(misuse("finish without start_stream")) };
        self.answer = Answer::Done;
        self.out.clear();
        match stream {
            Stream::Chunks => self.send(&[b"0\r\n\r\n"], b""),
            Stream::UntilClose | Stream::NoBody => Ok(()),
        }
    }

    /// The status of the answer, once it was begun.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    pub fn has_responded(&self) -> bool {
        self.answer != Answer::Due
    }

    /// What an engine does last: a handler that left its request without an answer has made a mistake.
    pub fn answer_if_silent(&mut self) {
        if !self.has_responded() {
            let _ = self.refuse(&Refusal::new(500, "internal_error", "nothing here has answered the request"));
        }
    }

    /// An answer was started and not finished.
    pub fn is_streaming(&self) -> bool {
        matches!(self.answer, Answer::Stream(_))
    }

    /// The connection takes no other request. To be said before the answer begins, so that its head says so.
    pub fn close_after(&mut self) {
        self.transport.close();
    }

    /// Nothing more is sent on this connection, whose thread goes on with something else.
    pub fn end_sending(&mut self) {
        if let Some(socket) = self.transport.socket() {
            // It fails where the client has closed it, which is as good.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
        }
    }

    /// The client's socket, to be watched while a call runs; `None` if the engine does not show it.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.transport.socket().filter(|_| self.transport.shows_its_client())
    }

    /// The client has closed the connection. Further requests that wait to be read do not count as that.
    pub fn client_is_gone(&self) -> bool {
        self.transport.client_is_gone()
    }

    pub fn peer(&self) -> SocketAddr {
        self.transport.peer()
    }

    /// Writes the head up to what tells the length of the body.
    fn begin(&mut self, status: u16, headers: &[(&str, &str)]) -> io::Result<()> {
        if self.answer != Answer::Due {
            return Err(misuse("a second answer to one request"));
        }
        self.status = Some(status);
        self.out.clear();
        put_status_line(self.out, status);
        for (name, value) in headers {
            if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
                self.transport.close();
            } else if !is_set_here(name) {
                put_field(self.out, name, value)?;
            }
        }
        put_date(self.out, SystemTime::now());
        if self.transport.closes() {
            self.transport.close();
            put_line(self.out, &["Connection: close"]);
        } else if self.is_http_1_0 {
            put_line(self.out, &["Connection: keep-alive"]);
        }
        Ok(())
    }

    fn write_chunk(&mut self, parts: &[&[u8]], end: &[u8]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let Answer::Stream(stream) = self.answer else { return Err(misuse("write without start_stream")) };
        self.out.clear();
        match stream {
            Stream::NoBody => Ok(()),
            _ if length == 0 => Ok(()),
            Stream::UntilClose => self.send(parts, b""),
            Stream::Chunks => {
                put_line(self.out, &[&format!("{length:x}")]);
                self.send(parts, end)
            }
        }
    }

    /// Sends `out`, the parts and the end as one message. After a failure the connection is of no use.
    fn send(&mut self, parts: &[&[u8]], end: &[u8]) -> io::Result<()> {
        const ROOM: usize = 8;
        let mut room: [&[u8]; ROOM] = [&[]; ROOM];
        let sent = if parts.len() + 2 <= ROOM {
            room[0] = self.out;
            room[1..=parts.len()].copy_from_slice(parts);
            room[parts.len() + 1] = end;
            self.transport.send(&room[..parts.len() + 2])
        } else {
            self.transport.send(&[&[&self.out[..]], parts, &[end]].concat())
        };
        if sent.is_err() {
            self.answer = Answer::Done;
            self.transport.close();
        }
        sent
    }
}

impl Refusal {
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into() }
    }
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Refusal {
        let code = match error.status {
            414 => "target_too_long",
            417 => "expectation_failed",
            431 => "head_too_large",
            501 => "not_implemented",
            505 => "version_not_supported",
            _ => "bad_request",
        };
        Refusal::new(error.status, code, error.message)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.message)
    }
}

fn log_refusal(refusal: &Refusal, peer: SocketAddr) {
    static THROTTLE: Throttle = Throttle::new();
    if let Some(suppressed) = THROTTLE.allows() {
        let Refusal { status, code, .. } = refusal;
        log::info!("event=request_refused peer={peer} status={status} code={code} suppressed={suppressed}");
    }
}

/// Opens a listening socket. Never with `SO_REUSEPORT`: two listeners on one port must exclude each other.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = open_socket(family)?;
    // Without this a takeover of the port waits a minute for the connections of the one before in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Closed when a script is started: set at once where the system can, so that none started meanwhile inherits it.
#[cfg(target_os = "linux")]
fn open_socket(family: AddressFamily) -> io::Result<std::os::fd::OwnedFd> {
    Ok(rustix::net::socket_with(family, SocketType::STREAM, rustix::net::SocketFlags::CLOEXEC, None)?)
}

#[cfg(not(target_os = "linux"))]
fn open_socket(family: AddressFamily) -> io::Result<std::os::fd::OwnedFd> {
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    Ok(socket)
}

/// RFC 9110 section 6.6.1: an origin server with a clock sends the date. Put together by hand, since every answer has
/// one, and formatting it would be a twentieth of what a small answer costs.
fn put_date(out: &mut Vec<u8>, now: SystemTime) {
    const DAYS: [&str; 7] = ["Thu, ", "Fri, ", "Sat, ", "Sun, ", "Mon, ", "Tue, ", "Wed, "];
    const MONTHS: [&str; 12] =
        [" Jan ", " Feb ", " Mar ", " Apr ", " May ", " Jun ", " Jul ", " Aug ", " Sep ", " Oct ", " Nov ", " Dec "];
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize - 1]);
    let two = |number: u64| [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
    let ([h, hh], [m, mm], [s, ss]) = (two(second / 3600), two(second / 60 % 60), two(second % 60));
    let clock = [b' ', h, hh, b':', m, mm, b':', s, ss];
    let day = two(day);
    let year = [two(year / 100), two(year)];
    for part in [b"Date: ", weekday.as_bytes(), &day, month.as_bytes(), year.as_flattened(), &clock, b" GMT\r\n"] {
        out.extend_from_slice(part);
    }
}

fn has_no_content(status: u16) -> bool {
    status < 200 || status == 204 || status == 304
}

/// Fields that follow from the framing, which is ours to tell.
fn is_set_here(name: &str) -> bool {
    ["content-length", "transfer-encoding", "connection", "keep-alive", "date"]
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other))
}

fn misuse(what: &str) -> io::Error {
    io::Error::other(what)
}

/// These run with both engines.
#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;
    use crate::deadline::Deadline;
    use crate::http::testing::{PATIENCE, connect, exchange, listen, paths, read_to_end, read_until};

    fn start() -> Server {
        Server::start("test", listen(), 64, paths().0).expect("a server starts")
    }

    /// The answers to the raw bytes, without dates.
    fn answers(server: &Server, raw: &str) -> String {
        let all = exchange(server.address(), raw.as_bytes());
        let lines = all.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: "));
        lines.collect()
    }

    #[test]
    fn answers_have_their_length_or_are_chunked() {
        let server = start();
        let check = |request: &str, expected: &str| {
            let raw = format!("{request} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            assert_eq!(answers(&server, &raw), expected.replace('\n', "\r\n"), "{request}");
        };
        check("GET /ignore", "HTTP/1.1 200 OK\nConnection: close\nContent-Length: 7\n\nignored");
        check("HEAD /ignore", "HTTP/1.1 200 OK\nConnection: close\nContent-Length: 7\n\n");
        check("GET /nothing", "HTTP/1.1 204 No Content\nConnection: close\n\n");
        check("GET /twice", "HTTP/1.1 200 OK\nConnection: close\nContent-Length: 3\n\none");
        check("GET /smuggle", "HTTP/1.1 200 OK\nConnection: close\nContent-Length: 0\n\n");
        let many = "0123456789".repeat(40);
        check("GET /many", &format!("HTTP/1.1 200 OK\nConnection: close\nContent-Length: 400\n\n{many}"));
        let head = "HTTP/1.1 200 OK\nContent-Type: text/plain\nConnection: close\nTransfer-Encoding: chunked\n\n";
        check("GET /stream", &format!("{head}4\none \n9\ntwo three\n0\n\n"));
        check("HEAD /stream", head);
        let head = "HTTP/1.1 200 OK\nConnection: close\nTransfer-Encoding: chunked\n\n";
        check("GET /last", &format!("{head}4\nonly\n0\n\n"));
        let error = r#"{"error":{"code":"not_found","message":"no \"such\" path"}}"#;
        let head = "HTTP/1.1 404 Not Found\nContent-Type: application/json\nConnection: close\nContent-Length: ";
        check("GET /none", &format!("{head}{}\n\n{error}", error.len()));
    }

    #[test]
    fn bodies_are_read_with_either_framing() {
        let server = start();
        let check = |fields: &str, body: &str, expected: &str| {
            let raw = format!("POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n\r\n{body}");
            let answer = answers(&server, &raw);
            assert!(answer.ends_with(expected), "{raw:?}: {answer:?}");
        };
        check("Content-Length: 5", "hello", "\r\n\r\nhello");
        check("Content-Length: 0", "", "Content-Length: 0\r\n\r\n");
        let refused = answers(&server, "POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert!(refused.starts_with("HTTP/1.1 411 ") && refused.contains("length_required"), "{refused:?}");
        check("Transfer-Encoding: chunked", "5\r\nhello\r\n6;x\r\n world\r\n0\r\n\r\n", "\r\n\r\nhello world");
        let long = "0123456789abcdef".repeat(20_000);
        check(&format!("Content-Length: {}", long.len()), &long, &format!("\r\n\r\n{long}"));
        let chunks: String = long
            .as_bytes()
            .chunks(5000)
            .map(|c| format!("{:x}\r\n{}\r\n", c.len(), String::from_utf8_lossy(c)))
            .collect();
        check("Transfer-Encoding: chunked", &format!("{chunks}0\r\n\r\n"), &format!("\r\n\r\n{long}"));
    }

    #[test]
    fn requests_in_a_row_are_answered_in_order() {
        let server = start();
        let raw = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\none\
                   POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nGET \
                   POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n\
                   GET /stream HTTP/1.1\r\nHost: h\r\n\r\n\
                   GET /close HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let answer = answers(&server, raw);
        let places: Vec<_> = ["\r\n\r\none", "ignored", "\r\n\r\ntwo", "two three\r\n0\r\n\r\n", "bye"]
            .iter()
            .map(|part| answer.find(part).unwrap_or_else(|| panic!("{part:?} is not in {answer:?}")))
            .collect();
        assert!(places.is_sorted(), "{answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 5, "{answer:?}");
    }

    #[test]
    fn a_client_that_expects_it_is_told_to_continue() {
        let server = start();
        let mut stream = connect(server.address());
        let head = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("sent");
        assert!(read_until(&mut stream, "\r\n\r\n").starts_with("HTTP/1.1 100"));
        stream.write_all(b"ok").expect("sent");
        assert!(read_until(&mut stream, "\r\n\r\nok").starts_with("HTTP/1.1 200 OK"));
    }

    #[test]
    fn http_1_0_gets_no_chunks_and_stays_only_if_asked() {
        let server = start();
        let answer = answers(&server, "GET /stream HTTP/1.0\r\n\r\n");
        assert!(answer.ends_with("\r\nConnection: close\r\n\r\none two three"), "{answer:?}");
        let twice = "GET /ignore HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /ignore HTTP/1.0\r\n\r\n";
        let answer = answers(&server, twice);
        assert_eq!(answer.matches("ignored").count(), 2, "{answer:?}");
        assert!(answer.contains("Connection: keep-alive") && answer.contains("Connection: close"), "{answer:?}");
    }

    #[test]
    fn a_handler_that_does_not_answer_costs_one_request() {
        let server = start();
        let answer = answers(&server, "GET /silent HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("internal_error"), "{answer:?}");
        assert!(answers(&server, "GET /ignore HTTP/1.0\r\n\r\n").ends_with("ignored"));
    }

    #[test]
    fn an_answer_under_way_is_finished_when_the_server_stops() {
        let (handler, arrivals, release) = paths();
        let server = Server::start("test", listen(), 64, handler).expect("a server starts");
        let mut stream = connect(server.address());
        stream.write_all(b"GET /wait HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("sent");
        arrivals.recv_timeout(PATIENCE).expect("it arrives");
        server.stop_accepting();
        drop(release);
        assert!(server.drain(Deadline::after(PATIENCE)));
        assert!(read_to_end(&mut stream).ends_with("\r\n\r\nwaited"));
        assert_eq!(server.connections(), 0);
    }

    /// With tiny_http it was read and never answered.
    #[test]
    fn a_request_on_an_open_connection_is_answered_while_the_server_stops() {
        let server = start();
        let mut stream = connect(server.address());
        stream.write_all(b"GET /ignore HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
        read_until(&mut stream, "ignored");
        server.stop_accepting();
        stream.write_all(b"GET /ignore HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("sent");
        assert!(read_until(&mut stream, "ignored").starts_with("HTTP/1.1 200 OK"));
    }

    #[test]
    fn the_date_is_the_one_of_the_rfc() {
        let check = |seconds: u64, expected: &str| {
            let mut out = Vec::new();
            put_date(&mut out, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(String::from_utf8_lossy(&out), format!("Date: {expected} GMT\r\n"));
        };
        check(0, "Thu, 01 Jan 1970 00:00:00");
        check(784_111_777, "Sun, 06 Nov 1994 08:49:37");
        check(951_782_400, "Tue, 29 Feb 2000 00:00:00");
        check(951_868_799, "Tue, 29 Feb 2000 23:59:59");
        check(1_709_251_199, "Thu, 29 Feb 2024 23:59:59");
        check(1_735_689_599, "Tue, 31 Dec 2024 23:59:59");
        check(4_107_542_400, "Mon, 01 Mar 2100 00:00:00");
    }

    #[test]
    fn a_port_has_one_listener() {
        let first = listen();
        let address = first.local_addr().expect("it has an address");
        assert_eq!(bind(address).map(drop).map_err(|e| e.kind()), Err(io::ErrorKind::AddrInUse));
        drop(first);
        assert!(bind(address).is_ok());
    }
}
