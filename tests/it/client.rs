//! The tests' own HTTP/1.1 and MCP client: independent of the program's, and able to send what no good client sends.
//!
//! **Bounds**: every read has a deadline; a reply that does not come is an error that says what was read so far.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::wait::PATIENCE;

/// The `Accept` of every MCP client.
pub const ACCEPT_BOTH: &str = "application/json, text/event-stream";

pub const R03: &str = "2025-03-26";
pub const R06: &str = "2025-06-18";
pub const R11: &str = "2025-11-25";
/// The revision without a handshake.
pub const MODERN: &str = "2026-07-28";

/// A reply that was read whole.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    /// Read and not used yet.
    buffer: Vec<u8>,
}

/// One event of a stream, or a comment line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    pub id: Option<String>,
    pub retry: Option<u64>,
    pub data: Option<String>,
    pub comment: Option<String>,
}

/// What a stream has said by some time.
pub enum Polled {
    Event(Event),
    Silence,
    /// The peer has ended the stream, in order or not.
    End,
}

/// A reply whose body is a stream of events, read as it comes.
pub struct EventStream {
    connection: Connection,
    framing: Framing,
    text: Vec<u8>,
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

/// An MCP session after its handshake.
pub struct Session {
    pub address: SocketAddr,
    pub path: String,
    pub id: String,
    pub revision: String,
    pub server: Value,
    token: Option<String>,
    connection: Option<Connection>,
    next_id: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
    Ended,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("not JSON ({error}), status {}: {}", self.status, self.text()))
    }

    /// The JSON-RPC message of a POST reply, whether it came as JSON or as the last message of a stream.
    #[track_caller]
    pub fn message(&self) -> Value {
        if !self.is_stream() {
            return self.json();
        }
        let messages: Vec<Value> = self.messages();
        let response = messages.into_iter().find(|message| message.get("method").is_none());
        response.unwrap_or_else(|| panic!("no response in the stream: {}", self.text()))
    }

    /// All JSON-RPC messages of a reply that is a stream.
    pub fn messages(&self) -> Vec<Value> {
        let mut text = self.body.clone();
        let mut messages = Vec::new();
        while let Some(event) = take_event(&mut text) {
            if let Some(data) = event.data.filter(|data| !data.is_empty()) {
                messages.push(serde_json::from_str(&data).expect("an event's data is a JSON-RPC message"));
            }
        }
        messages
    }

    pub fn is_stream(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
    }
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(PATIENCE))?;
        self.stream.write_all(bytes)
    }

    /// Sends a request; `Host` and `Content-Length` are added where they are not given.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> io::Result<Reply> {
        let address = self.stream.peer_addr()?;
        self.send(&encode(address, method, path, headers, body))?;
        self.read_reply(PATIENCE)
    }

    pub fn read_reply(&mut self, limit: Duration) -> io::Result<Reply> {
        let end = Instant::now() + limit;
        let (status, headers) = self.read_head(end)?;
        let head = Reply { status, headers, body: Vec::new() };
        self.read_body_of(head, end.saturating_duration_since(Instant::now()))
    }

    /// Only the head of the next reply, which may be an interim one (1xx).
    pub fn read_head_alone(&mut self, limit: Duration) -> io::Result<Reply> {
        let (status, headers) = self.read_any_head(Instant::now() + limit)?;
        Ok(Reply { status, headers, body: Vec::new() })
    }

    /// The body that belongs to this head.
    pub fn read_body_of(&mut self, mut reply: Reply, limit: Duration) -> io::Result<Reply> {
        let end = Instant::now() + limit;
        let mut framing = framing(reply.status, &reply.headers);
        while let Some(part) = self.read_part(&mut framing, end)? {
            reply.body.extend_from_slice(&part);
        }
        Ok(reply)
    }

    /// Nothing more will be sent; replies can still be read.
    pub fn end_sending(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// True once the peer has closed and everything was read.
    pub fn is_closed(&mut self, limit: Duration) -> bool {
        let closed = self.buffer.is_empty().then(|| self.fill(Instant::now() + limit));
        closed.is_some_and(|read| match read {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        })
    }

    /// The next head that is not an interim one.
    fn read_head(&mut self, end: Instant) -> io::Result<(u16, Vec<(String, String)>)> {
        loop {
            let head = self.read_any_head(end)?;
            if !(100..200).contains(&head.0) {
                return Ok(head);
            }
        }
    }

    fn read_any_head(&mut self, end: Instant) -> io::Result<(u16, Vec<(String, String)>)> {
        let length = self.take_head_length(end)?;
        let head = String::from_utf8_lossy(&self.buffer.drain(..length).collect::<Vec<u8>>()).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let status: u16 = status.ok_or_else(|| invalid(format!("not a status line: {head:?}")))?;
        let fields = lines.filter_map(|line| line.split_once(':'));
        let headers = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Ok((status, headers))
    }

    fn take_head_length(&mut self, end: Instant) -> io::Result<usize> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                return Ok(at + 4);
            }
            if self.fill(end)? == 0 {
                let text = String::from_utf8_lossy(&self.buffer).into_owned();
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    format!("closed before a head was whole: {text:?}"),
                ));
            }
        }
    }

    /// The next bytes of a body without its framing; `None` at its end.
    fn read_part(&mut self, framing: &mut Framing, end: Instant) -> io::Result<Option<Vec<u8>>> {
        match *framing {
            Framing::Ended => Ok(None),
            Framing::Length(0) => {
                *framing = Framing::Ended;
                Ok(None)
            }
            Framing::Length(left) => {
                if self.buffer.is_empty() && self.fill(end)? == 0 {
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("closed {left} bytes too early")));
                }
                let count = left.min(self.buffer.len());
                *framing = Framing::Length(left - count);
                Ok(Some(self.buffer.drain(..count).collect()))
            }
            Framing::UntilClose => {
                if self.buffer.is_empty() && self.fill(end)? == 0 {
                    *framing = Framing::Ended;
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.buffer)))
            }
            Framing::Chunked => self.read_chunk(framing, end),
        }
    }

    fn read_chunk(&mut self, framing: &mut Framing, end: Instant) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(line_end) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..line_end]).into_owned();
                let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16)
                    .map_err(|_| invalid(format!("not a chunk size: {line:?}")))?;
                if self.buffer.len() >= line_end + 2 + size + 2 {
                    let data = self.buffer[line_end + 2..line_end + 2 + size].to_vec();
                    self.buffer.drain(..line_end + 2 + size + 2);
                    if size == 0 {
                        *framing = Framing::Ended;
                        return Ok(None);
                    }
                    return Ok(Some(data));
                }
            }
            if self.fill(end)? == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed inside a chunked body"));
            }
        }
    }

    fn fill(&mut self, end: Instant) -> io::Result<usize> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 16 * 1024];
        let count = match self.stream.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        };
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

impl EventStream {
    /// Sends a request and reads the head of its reply.
    pub fn open(
        address: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> io::Result<EventStream> {
        let mut connection = Connection::open(address)?;
        connection.send(&encode(address, method, path, headers, body))?;
        let (status, headers) = connection.read_head(Instant::now() + PATIENCE)?;
        let framing = framing(status, &headers);
        Ok(EventStream { connection, framing, text: Vec::new(), status, headers })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The next event or comment; `None` when the stream ended or nothing came in time.
    pub fn next(&mut self, limit: Duration) -> Option<Event> {
        match self.poll(limit) {
            Polled::Event(event) => Some(event),
            Polled::Silence | Polled::End => None,
        }
    }

    /// As `next`, and tells silence from the end.
    pub fn poll(&mut self, limit: Duration) -> Polled {
        let end = Instant::now() + limit;
        loop {
            if let Some(event) = take_event(&mut self.text) {
                return Polled::Event(event);
            }
            match self.connection.read_part(&mut self.framing, end) {
                Ok(Some(part)) => self.text.extend_from_slice(&part),
                Err(error) if error.kind() == ErrorKind::TimedOut => return Polled::Silence,
                Ok(None) | Err(_) => return Polled::End,
            }
        }
    }

    /// The next event that is more than a time to come back after.
    pub fn next_after_retry(&mut self, limit: Duration) -> Option<Event> {
        let event = self.next(limit)?;
        if event.retry.is_some() && event.id.is_none() { self.next(limit) } else { Some(event) }
    }

    /// The next message; what is not a message (comments, priming events) is passed over.
    pub fn next_message(&mut self, limit: Duration) -> Option<(Event, Value)> {
        let end = Instant::now() + limit;
        loop {
            let event = self.next(end.saturating_duration_since(Instant::now()))?;
            let data = event.data.clone().filter(|data| !data.is_empty());
            if let Some(data) = data {
                let message = serde_json::from_str(&data).expect("an event's data is a JSON-RPC message");
                return Some((event, message));
            }
        }
    }

    /// Reads a stream up to its first id, and gives that.
    #[track_caller]
    pub fn settle(&mut self) -> String {
        loop {
            let event = self.next(PATIENCE).expect("a stream begins with an event that has an id");
            if let Some(id) = event.id {
                return id;
            }
        }
    }

    /// Waits for `notifications/tools/list_changed` and gives the id of its event.
    #[track_caller]
    pub fn wait_list_changed(&mut self, limit: Duration) -> Option<String> {
        let (event, message) = self.next_message(limit).expect("a list_changed in time");
        assert_eq!(message["method"], "notifications/tools/list_changed", "{message}");
        event.id
    }

    /// The rest of the body, for a reply that turned out not to be a stream of events.
    pub fn rest(&mut self, limit: Duration) -> Reply {
        let end = Instant::now() + limit;
        let mut body = std::mem::take(&mut self.text);
        while let Ok(Some(part)) = self.connection.read_part(&mut self.framing, end) {
            body.extend_from_slice(&part);
        }
        Reply { status: self.status, headers: self.headers.clone(), body }
    }

    /// True once the peer has ended the stream, in order or not.
    pub fn has_ended(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            match self.connection.read_part(&mut self.framing, end) {
                Ok(None) => return true,
                Ok(Some(_)) => {}
                Err(error) => return error.kind() != ErrorKind::TimedOut,
            }
        }
    }
}

impl Session {
    /// Initializes a session on `/mcp`.
    #[track_caller]
    pub fn open(address: SocketAddr, revision: &str) -> Session {
        Session::open_at(address, "/mcp", revision)
    }

    #[track_caller]
    pub fn open_at(address: SocketAddr, path: &str, revision: &str) -> Session {
        Session::open_with(address, path, revision, None)
    }

    #[track_caller]
    pub fn open_with(address: SocketAddr, path: &str, revision: &str, token: Option<&str>) -> Session {
        Session::open_as(address, path, token, initialize_params(revision))
    }

    /// The session of a client that answers what a server may ask.
    #[track_caller]
    pub fn open_answering(address: SocketAddr, path: &str, revision: &str) -> Session {
        let mut params = initialize_params(revision);
        params["capabilities"] = json!({"elicitation": {}, "sampling": {}, "roots": {"listChanged": true}});
        Session::open_as(address, path, None, params)
    }

    #[track_caller]
    fn open_as(address: SocketAddr, path: &str, token: Option<&str>, params: Value) -> Session {
        let revision = params["protocolVersion"].as_str().expect("a protocol version");
        let token = token.map(|token| format!("Bearer {token}"));
        let (id, path, revision) = (String::new(), path.to_owned(), revision.to_owned());
        let mut session =
            Session { address, path, id, revision, server: Value::Null, token, connection: None, next_id: 1 };
        let reply = session.post(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}));
        assert_eq!(reply.status, 200, "initialize: {}", reply.text());
        session.id = reply.header("mcp-session-id").unwrap_or_default().to_owned();
        session.server = reply.message()["result"].clone();
        session.revision = session.server["protocolVersion"].as_str().expect("a protocol version").to_owned();
        let reply = session.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        assert_eq!((reply.status, reply.body.len()), (202, 0), "notifications/initialized: {}", reply.text());
        session
    }

    /// The headers that a client sends in this session.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        let mut headers = vec![("Accept", ACCEPT_BOTH), ("Content-Type", "application/json")];
        if !self.id.is_empty() {
            headers.extend([("Mcp-Session-Id", self.id.as_str()), ("MCP-Protocol-Version", self.revision.as_str())]);
        }
        headers.extend(self.token.as_deref().map(|token| ("Authorization", token)));
        headers
    }

    /// POSTs one message over the session's connection; a connection that was closed meanwhile is opened again once.
    #[track_caller]
    pub fn post(&mut self, message: &Value) -> Reply {
        self.try_post(message).unwrap_or_else(|error| panic!("no reply to {message}: {error}"))
    }

    pub fn try_post(&mut self, message: &Value) -> io::Result<Reply> {
        let body = message.to_string().into_bytes();
        let reused = self.connection.take();
        let fresh = reused.is_none();
        let mut connection = match reused {
            Some(connection) => connection,
            None => Connection::open(self.address)?,
        };
        let path = self.path.clone();
        let outcome = connection.request("POST", &path, &self.headers(), Some(&body));
        match outcome {
            Err(error) if !fresh && is_lost(&error) => self.try_post(message),
            outcome => {
                self.connection = outcome.is_ok().then_some(connection);
                outcome
            }
        }
    }

    /// Sends a request and gives the whole JSON-RPC response.
    #[track_caller]
    pub fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.next_id();
        let reply = self.post(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        assert_eq!(reply.status, 200, "{method}: {}", reply.text());
        let message = reply.message();
        assert_eq!(message["id"], json!(id), "{method}: {message}");
        message
    }

    /// Sends a request that must succeed and gives its result.
    #[track_caller]
    pub fn result(&mut self, method: &str, params: Value) -> Value {
        let message = self.request(method, params);
        assert!(message["result"].is_object(), "{method}: {message}");
        message["result"].clone()
    }

    #[track_caller]
    pub fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.result("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    /// Calls a tool that must succeed and gives its structured content.
    #[track_caller]
    pub fn structured(&mut self, tool: &str, arguments: Value) -> Value {
        let result = self.call(tool, arguments);
        assert_ne!(result["isError"], json!(true), "{tool}: {result}");
        assert!(result["structuredContent"].is_object(), "{tool}: {result}");
        result["structuredContent"].clone()
    }

    /// Every tool, page by page.
    #[track_caller]
    pub fn tools(&mut self) -> Vec<Value> {
        let mut tools = Vec::new();
        let mut params = json!({});
        loop {
            let result = self.result("tools/list", params);
            tools.extend(result["tools"].as_array().expect("a list of tools").iter().cloned());
            let Some(cursor) = result["nextCursor"].as_str() else { return tools };
            params = json!({"cursor": cursor});
        }
    }

    #[track_caller]
    pub fn tool_names(&mut self) -> Vec<String> {
        names(&self.tools())
    }

    /// Opens the session's GET stream.
    #[track_caller]
    pub fn stream(&self, last_event_id: Option<&str>) -> EventStream {
        let stream = self.try_stream(last_event_id).expect("the head of a GET stream");
        assert_eq!(stream.status, 200, "GET {}", self.path);
        assert_eq!(stream.header("content-type").map(|kind| kind.split(';').next()), Some(Some("text/event-stream")));
        stream
    }

    pub fn try_stream(&self, last_event_id: Option<&str>) -> io::Result<EventStream> {
        let mut headers = self.headers();
        headers.retain(|(name, _)| *name != "Accept" && *name != "Content-Type");
        headers.push(("Accept", "text/event-stream"));
        headers.extend(last_event_id.map(|id| ("Last-Event-ID", id)));
        EventStream::open(self.address, "GET", &self.path, &headers, None)
    }

    /// POSTs one message on a connection of its own and gives the reply as a stream of events.
    pub fn post_stream(&self, message: &Value) -> io::Result<EventStream> {
        let body = message.to_string().into_bytes();
        EventStream::open(self.address, "POST", &self.path, &self.headers(), Some(&body))
    }

    pub fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The same session on another connection, to use beside this one.
    pub fn beside(&self) -> Session {
        Session {
            address: self.address,
            path: self.path.clone(),
            id: self.id.clone(),
            revision: self.revision.clone(),
            server: self.server.clone(),
            token: self.token.clone(),
            connection: None,
            next_id: self.next_id + 1000,
        }
    }
}

/// A GET on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Reply> {
    Connection::open(address)?.request("GET", path, &[], None)
}

/// The status of a GET, or nothing when there is no answer.
/// A request of 2026-07-28, from a client that offers these capabilities, and its reply.
#[track_caller]
pub fn modern(address: SocketAddr, path: &str, method: &str, params: &Value, capabilities: &Value) -> Reply {
    let mut connection = Connection::open(address).expect("a connection");
    connection.send(&modern_request(address, path, method, params, capabilities)).expect("it is sent");
    connection.read_reply(PATIENCE).expect("a reply")
}

/// The bytes of such a request.
pub fn modern_request(address: SocketAddr, path: &str, method: &str, params: &Value, capabilities: &Value) -> Vec<u8> {
    let mut params = params.clone();
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities.clone();
    let body = json!({"jsonrpc": "2.0", "id": "modern", "method": method, "params": params}).to_string();
    let mut headers = vec![
        ("Accept", ACCEPT_BOTH),
        ("Content-Type", "application/json"),
        ("MCP-Protocol-Version", MODERN),
        ("Mcp-Method", method),
    ];
    headers.extend(params["name"].as_str().or(params["uri"].as_str()).map(|name| ("Mcp-Name", name)));
    encode(address, "POST", path, &headers, Some(body.as_bytes()))
}

pub fn status(address: SocketAddr, path: &str) -> Option<u16> {
    get(address, path).ok().map(|reply| reply.status)
}

pub fn initialize_params(revision: &str) -> Value {
    json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "it", "version": "1"}})
}

pub fn names(tools: &[Value]) -> Vec<String> {
    tools.iter().map(|tool| tool["name"].as_str().expect("a tool has a name").to_owned()).collect()
}

/// All text of a call's result.
pub fn text_of(result: &Value) -> String {
    let content = result["content"].as_array().expect("a result has content");
    content.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
}

/// The bytes of a request.
pub fn encode(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if header_pairs(headers, "host").is_none() {
        head += &format!("Host: {address}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = body {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    [head.as_bytes(), body.unwrap_or_default()].concat()
}

fn framing(status: u16, headers: &[(String, String)]) -> Framing {
    if status == 204 || status == 304 {
        return Framing::Ended;
    }
    if header(headers, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Framing::Chunked;
    }
    match header(headers, "content-length").and_then(|length| length.parse().ok()) {
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    }
}

/// Takes one whole event off the front of `text`. A comment line counts as an event of its own.
fn take_event(text: &mut Vec<u8>) -> Option<Event> {
    let mut event = Event::default();
    let mut at = 0;
    while let Some(length) = find(&text[at..], b"\n") {
        let line = String::from_utf8_lossy(&text[at..at + length]).trim_end_matches('\r').to_owned();
        at += length + 1;
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "" if line.is_empty() && event == Event::default() => continue,
            "" if line.is_empty() => {
                text.drain(..at);
                return Some(event);
            }
            "" if event == Event::default() => {
                text.drain(..at);
                return Some(Event { comment: Some(value), ..Event::default() });
            }
            "id" => event.id = Some(value),
            "retry" => event.retry = value.parse().ok(),
            "data" => {
                event.data = Some(match event.data.take() {
                    Some(data) => data + "\n" + &value,
                    None => value,
                });
            }
            _ => {}
        }
    }
    None
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn header_pairs<'a>(headers: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
