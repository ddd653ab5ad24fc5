//! A client of one revision: how it sends a request, and what it may hear in return.
//!
//! Every client counts its requests from 1 and uses these numbers as progress tokens too, so that they collide.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{ACCEPT_BOTH, EventStream, Polled, R03, initialize_params};
use crate::wait::PATIENCE;

pub const STATELESS: &str = "2026-07-28";
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// The lists that can be followed.
pub const KINDS: [&str; 3] = ["tools", "prompts", "resources"];

/// Names of tools, names of prompts, URIs of resources.
pub type View = [BTreeSet<String>; 3];

/// What a client sends its requests with.
#[derive(Clone)]
pub struct Peer {
    pub number: usize,
    pub revision: String,
    address: SocketAddr,
    /// Empty in the stateless revision.
    session: String,
    /// Declares the extension for tasks with each request.
    declares_tasks: bool,
}

/// What came in return for one request.
#[derive(Debug)]
pub enum Heard {
    /// No connection, or it broke: why.
    Broken(#[expect(dead_code, reason = "shown where the test fails")] String),
    /// All messages to the end.
    All { status: u16, messages: Vec<Value> },
    /// The client went away by itself; what it had heard by then.
    Left(Vec<Value>),
    /// Neither an answer nor an end in time.
    Hung,
}

impl Peer {
    /// A client that has said hello, where its revision has that.
    pub fn connect(number: usize, revision: &str, address: SocketAddr) -> Result<Peer, String> {
        let mut peer =
            Peer { number, revision: revision.to_owned(), address, session: String::new(), declares_tasks: false };
        if revision == STATELESS {
            return Ok(peer);
        }
        let headers = [("Accept", ACCEPT_BOTH), ("Content-Type", "application/json")];
        let mut params = initialize_params(revision);
        if peer.can_be_asked() {
            params["capabilities"] = json!({"elicitation": {}});
        }
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).to_string();
        let answered = EventStream::open(address, "POST", "/mcp", &headers, Some(hello.as_bytes()));
        let reply = answered.map_err(|error| error.to_string())?;
        peer.session = reply.header("mcp-session-id").ok_or("no session id")?.to_owned();
        Ok(peer)
    }

    /// The same client, as one that knows tasks where its revision has them as an extension.
    pub fn declaring_tasks(&self) -> Peer {
        Peer { declares_tasks: true, ..self.clone() }
    }

    /// The same client, session included, at another port.
    pub fn at(&self, address: SocketAddr) -> Peer {
        Peer { address, ..self.clone() }
    }

    /// Whether both have one session at one port.
    pub fn is_same(&self, other: &Peer) -> bool {
        (&self.session, self.address) == (&other.session, other.address)
    }

    pub fn is_stateless(&self) -> bool {
        self.session.is_empty()
    }

    /// Elicitation came with 2025-06-18.
    pub fn can_be_asked(&self) -> bool {
        self.revision != R03
    }

    /// Sends a message and reads the head of the reply.
    pub fn open(&self, mut message: Value) -> io::Result<EventStream> {
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        let params = &message["params"];
        let name = params["name"].as_str().or(params["taskId"].as_str()).unwrap_or_default().to_owned();
        let mut headers = vec![("Accept", ACCEPT_BOTH), ("Content-Type", "application/json")];
        headers.push(("MCP-Protocol-Version", &self.revision));
        if self.is_stateless() {
            message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(STATELESS);
            let extensions = if self.declares_tasks { json!({TASKS: {}}) } else { json!({}) };
            let offered = json!({"elicitation": {}, "extensions": extensions});
            message["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = offered;
            headers.push(("Mcp-Method", &method));
            headers.extend((!name.is_empty()).then_some(("Mcp-Name", name.as_str())));
        } else {
            headers.push(("Mcp-Session-Id", &self.session));
        }
        EventStream::open(self.address, "POST", "/mcp", &headers, Some(message.to_string().as_bytes()))
    }

    /// Opens the GET stream of the session.
    pub fn open_stream(&self, last_event_id: Option<&str>) -> io::Result<EventStream> {
        let mut headers = vec![("Accept", "text/event-stream"), ("MCP-Protocol-Version", self.revision.as_str())];
        headers.push(("Mcp-Session-Id", &self.session));
        headers.extend(last_event_id.map(|id| ("Last-Event-ID", id)));
        EventStream::open(self.address, "GET", "/mcp", &headers, None)
    }

    /// Sends a message and reads everything that comes back, unless `leave` says that the client goes away.
    pub fn ask(&self, message: Value, leave: impl Fn() -> bool) -> Heard {
        self.ask_hearing(message, leave, |_| {})
    }

    /// The same, where each message of a stream is heard when it comes.
    pub fn ask_hearing(&self, message: Value, leave: impl Fn() -> bool, mut hear: impl FnMut(&Value)) -> Heard {
        let mut stream = match self.open(message) {
            Ok(stream) => stream,
            Err(error) => return Heard::Broken(error.to_string()),
        };
        if !stream.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            let body = stream.rest(PATIENCE).body;
            let messages =
                if body.is_empty() { Ok(Vec::new()) } else { serde_json::from_slice(&body).map(|one| vec![one]) };
            return match messages {
                Ok(messages) => Heard::All { status: stream.status, messages },
                Err(error) => Heard::Broken(error.to_string()),
            };
        }
        let end = Instant::now() + PATIENCE;
        let mut messages = Vec::new();
        loop {
            match stream.poll(Duration::from_millis(20)) {
                Polled::Event(event) => {
                    if let Some(data) = event.data.filter(|data| !data.is_empty()) {
                        let message = serde_json::from_str(&data).unwrap_or(Value::String(data));
                        hear(&message);
                        messages.push(message);
                    }
                }
                Polled::End => return Heard::All { status: stream.status, messages },
                Polled::Silence if leave() => return Heard::Left(messages),
                Polled::Silence if Instant::now() > end => return Heard::Hung,
                Polled::Silence => {}
            }
        }
    }

    /// One of the lists, or why it could not be had.
    pub fn list(&self, kind: usize, id: u64) -> Result<BTreeSet<String>, String> {
        let method = format!("{}/list", KINDS[kind]);
        match self.ask(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {}}), || false) {
            Heard::All { status: 200, messages } if messages.len() == 1 && messages[0]["id"] == json!(id) => {
                let list = messages[0]["result"][KINDS[kind]].as_array().ok_or_else(|| messages[0].to_string())?;
                let member = if KINDS[kind] == "resources" { "uri" } else { "name" };
                Ok(list.iter().filter_map(|item| item[member].as_str()).map(str::to_owned).collect())
            }
            other => Err(format!("{other:?}")),
        }
    }

    pub fn view(&self) -> Result<View, String> {
        Ok([self.list(0, 1)?, self.list(1, 1)?, self.list(2, 1)?])
    }
}
