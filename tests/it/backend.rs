//! Fake MCP servers inside the test process, registered as instances of another host or as another adapter's rows.
//!
//! A backend records what it was asked, so that a test can say what reached it and what did not.
//! **Bounds**: a backend's threads end when its value goes; a connection that is silent on purpose is held until then.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, thread};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use crate::folder;
use crate::program::fresh_id;

/// Rows of a page in the `tools/list` of existing adapters.
pub const FOREIGN_PAGE: usize = 32;
const BEAT_EVERY: Duration = Duration::from_millis(300);

/// What a backend does with the calls that it gets.
#[derive(Clone)]
pub enum Manner {
    /// Accepts connections and reads, and never answers anything.
    Silent,
    /// Answers everything but `tools/call`, which it leaves hanging.
    SilentCalls,
    /// Answers a call with this result, as JSON.
    Json(Value),
    /// Answers a call with an event stream: so many progress notifications, then this result.
    Stream { steps: u64, result: Value },
    /// Answers a call with an event stream that breaks off before the response.
    BrokenStream,
    /// Asks this (method and params) on the stream of a call, and tells in its result what was answered.
    Asks(Value),
    /// Knows 2026-07-28 alone. Answers a call with these `inputRequests`, and a repeat with what was answered.
    Stateless(Value),
    /// Answers the first call by sending its user to a URL, later ones with a text.
    UrlFirst,
    /// The same after progress; whoever comes back for the rest gets this result.
    ResumedStream { result: Value },
}

/// A fake MCP server.
pub struct Backend {
    pub address: SocketAddr,
    pub id: String,
    shared: Arc<Shared>,
}

/// A backend's entry in the registry; beaten until it is dropped, then removed.
pub struct Registered {
    stop: Arc<(Mutex<bool>, Condvar)>,
    beater: Option<thread::JoinHandle<()>>,
    files: Vec<PathBuf>,
}

/// A row of `services.json` whose owner lives as long as this value.
pub struct ForeignRow {
    pub row: Value,
    _sentinel: fs::File,
}

struct Shared {
    manner: Manner,
    tools: Mutex<Vec<Value>>,
    /// Stateless, paged, strict about `Accept`, as existing Python adapters are.
    foreign: bool,
    requests: Mutex<Vec<Value>>,
    heads: Mutex<Vec<String>>,
    connections: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

impl Backend {
    pub fn start(manner: Manner, tools: Vec<Value>) -> Backend {
        Backend::launch(manner, tools, false)
    }

    /// As the Python servers of existing adapters are: no sessions, GET is 405, pages of 32.
    pub fn start_foreign(manner: Manner, tools: Vec<Value>) -> Backend {
        Backend::launch(manner, tools, true)
    }

    fn launch(manner: Manner, tools: Vec<Value>, foreign: bool) -> Backend {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            manner,
            tools: Mutex::new(tools),
            foreign,
            requests: Mutex::default(),
            heads: Mutex::default(),
            connections: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let serving = Arc::clone(&accepting);
                if let Ok(kept) = stream.try_clone() {
                    lock(&serving.connections).push(kept);
                }
                thread::spawn(move || serve(&serving, stream));
            }
        });
        Backend { address, id: fresh_id(), shared }
    }

    /// The first 8 hex digits of the instance id.
    pub fn short(&self) -> &str {
        &self.id[..8]
    }

    /// Every JSON-RPC message that arrived.
    pub fn requests(&self) -> Vec<Value> {
        lock(&self.shared.requests).clone()
    }

    /// The head of every request that arrived.
    pub fn heads(&self) -> Vec<String> {
        lock(&self.shared.heads).clone()
    }

    /// The messages of one method that arrived.
    pub fn requests_of(&self, method: &str) -> Vec<Value> {
        self.requests().into_iter().filter(|message| message["method"] == method).collect()
    }

    pub fn set_tools(&self, tools: Vec<Value>) {
        *lock(&self.shared.tools) = tools;
    }

    /// The entry of an instance of another host, of schema 1.
    pub fn entry(&self, dcc: &str) -> Value {
        json!({
            "schema": 1, "instance_id": self.id, "dcc_type": dcc, "host": "127.0.0.1", "port": self.address.port(),
            "mcp_url": format!("http://{}/mcp", self.address), "server_name": "fake", "server_version": "0.1.0",
            "version": "1", "scene": null, "documents": [], "display_name": format!("fake {dcc}"),
            "pid": 1, "pid_start": 1, "host_id": "test/1", "registered_at": now(),
            "heartbeat": {"seq": 1, "at": now()}, "status": "available", "tools_revision": "", "gateway": null,
            "metadata": {},
        })
    }

    /// Registers the backend without a tool list: whoever wants its tools has to ask it.
    pub fn register(&self, registry: &Path, dcc: &str) -> Registered {
        self.register_as(registry, self.entry(dcc))
    }

    /// Registers the backend with an entry that a test has changed.
    pub fn register_as(&self, registry: &Path, entry: Value) -> Registered {
        Registered::start(registry, entry, None)
    }

    /// Registers the backend with its tool list published beside its entry.
    pub fn register_published(&self, registry: &Path, dcc: &str) -> Registered {
        let tools = lock(&self.shared.tools).clone();
        let mut entry = self.entry(dcc);
        entry["tools_revision"] = json!("0123456789abcdef");
        Registered::start(registry, entry, Some(json!(tools)))
    }

    /// The row of an existing adapter for this backend, its sentinel held.
    pub fn foreign_row(&self, registry: &Path, dcc: &str) -> ForeignRow {
        let sentinel = registry.join("locks").join(format!("{dcc}-{}.lock", self.id));
        folder::write(&sentinel, "");
        let file = fs::File::options().write(true).open(&sentinel).expect("the sentinel opens");
        flock(&file, FlockOperation::NonBlockingLockExclusive).expect("nobody else holds the sentinel");
        let row = json!({
            "schema_version": 1, "dcc_type": dcc, "instance_id": self.id, "host": "127.0.0.1",
            "port": self.address.port(), "version": "2024.2", "adapter_dcc": dcc, "scene": "/scenes/shot010.ma",
            "documents": ["a.psd"], "pid": 17973, "sentinel_path": sentinel.display().to_string(),
            "display_name": "Maya-Rig",
            "metadata": {"mcp_url": format!("http://{}/mcp", self.address), "server_name": "rig"}, "extras": {},
            "transport_address": null,
            "registered_at": {"secs_since_epoch": now() as u64, "nanos_since_epoch": 111_307_593},
            "last_heartbeat": {"secs_since_epoch": now() as u64, "nanos_since_epoch": 269_398_236},
            "status": "available",
        });
        ForeignRow { row, _sentinel: file }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        for connection in lock(&self.shared.connections).drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Registered {
    fn start(registry: &Path, mut entry: Value, tools: Option<Value>) -> Registered {
        let name = format!("{}.json", entry["instance_id"].as_str().expect("an entry has an id"));
        let entry_file = registry.join("instances").join(&name);
        let tools_file = registry.join("tools").join(&name);
        if let Some(tools) = tools {
            folder::write_by_rename(&tools_file, tools.to_string());
        }
        // The clock of its host may be hours off.
        let skew = entry["heartbeat"]["at"].as_f64().map_or(0.0, |at| at - now());
        let skew = if skew.abs() < 60.0 { 0.0 } else { skew };
        folder::write_by_rename_at(&entry_file, entry.to_string(), clock(skew));
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (told, file) = (Arc::clone(&stop), entry_file.clone());
        let beater = thread::spawn(move || {
            let mut stopped = lock(&told.0);
            while !*stopped {
                let waited = told.1.wait_timeout(stopped, BEAT_EVERY);
                stopped = waited.unwrap_or_else(PoisonError::into_inner).0;
                let seq = entry["heartbeat"]["seq"].as_u64().unwrap_or(0) + 1;
                entry["heartbeat"] = json!({"seq": seq, "at": now() + skew});
                if !*stopped {
                    folder::write_by_rename_at(&file, entry.to_string(), clock(skew));
                }
            }
        });
        Registered { stop, beater: Some(beater), files: vec![entry_file, tools_file] }
    }

    /// Whether its entry is there.
    pub fn is_there(&self) -> bool {
        self.files[0].exists()
    }

    /// Stops the heartbeat and leaves the files, as a process does that hangs.
    pub fn stop_beating(&mut self) {
        *lock(&self.stop.0) = true;
        self.stop.1.notify_all();
        if let Some(beater) = self.beater.take() {
            let _ = beater.join();
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.stop_beating();
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
    }
}

/// A tool without a schema of its own.
pub fn tool(name: &str) -> Value {
    json!({"name": name, "description": format!("the fake {name}"), "inputSchema": {"type": "object"}})
}

/// Writes the rows of existing adapters.
pub fn write_rows(registry: &Path, rows: &[Value]) {
    let text = serde_json::to_string_pretty(rows).expect("rows encode");
    folder::write_by_rename(&registry.join("services.json"), text);
}

fn serve(shared: &Shared, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some((line, headers, body)) = read_request(&mut reader) {
        lock(&shared.heads).push(headers.join("\n"));
        let message: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if !message.is_null() {
            lock(&shared.requests).push(message.clone());
        }
        let answered = if matches!(shared.manner, Manner::Silent) {
            Ok(())
        } else if let Some(rest) = rest_of_stream(shared, &line, &headers) {
            write_rest(&mut writer, &rest)
        } else if !line.starts_with("POST ") {
            writer.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n")
        } else if shared.foreign && !accepts_both(&headers) {
            writer.write_all(b"HTTP/1.1 406 Not Acceptable\r\nContent-Length: 0\r\n\r\n")
        } else {
            answer(shared, &message, &mut writer)
        };
        if answered.is_err() {
            return;
        }
    }
}

fn answer(shared: &Shared, message: &Value, writer: &mut TcpStream) -> std::io::Result<()> {
    let Some(id) = message.get("id").filter(|_| message.get("method").is_some()) else {
        return writer.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
    };
    if let Manner::Stateless(requests) = &shared.manner {
        return write_json(writer, &stateless(shared, message, requests), "");
    }
    let result = match message["method"].as_str().unwrap_or("") {
        "initialize" => json!({
            "protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"},
        }),
        "ping" => json!({}),
        "tools/list" => page(shared, message),
        "tools/call" => return answer_call(shared, message, writer),
        _ => {
            let error = json!({"code": -32601, "message": "no such method"});
            return write_json(writer, &json!({"jsonrpc": "2.0", "id": id, "error": error}), "");
        }
    };
    let session = message["method"] == "initialize" && !shared.foreign;
    let extra = if session { "Mcp-Session-Id: fake-session\r\n" } else { "" };
    write_json(writer, &json!({"jsonrpc": "2.0", "id": id, "result": result}), extra)
}

fn answer_call(shared: &Shared, message: &Value, writer: &mut TcpStream) -> std::io::Result<()> {
    let response = |result: &Value| json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    match &shared.manner {
        Manner::Silent | Manner::SilentCalls => Ok(()),
        Manner::Stateless(_) => Ok(()),
        Manner::Json(result) => write_json(writer, &response(result), ""),
        Manner::UrlFirst => {
            let calls = lock(&shared.requests).iter().filter(|message| message["method"] == "tools/call").count();
            let elicitation =
                json!({"mode": "url", "elicitationId": "e1", "url": "https://example.com/go", "message": "Go there."});
            let error = json!({"code": -32042, "message": "go first", "data": {"elicitations": [elicitation]}});
            let answer = match calls {
                1 => json!({"jsonrpc": "2.0", "id": message["id"], "error": error}),
                _ => response(&json!({"content": [{"type": "text", "text": "welcome"}]})),
            };
            write_json(writer, &answer, "")
        }
        Manner::Asks(question) => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            writer.write_all(head.as_bytes())?;
            let id = format!("question {}", message["id"]);
            let question =
                json!({"jsonrpc": "2.0", "id": id, "method": question["method"], "params": question["params"]});
            write_chunk(writer, &format!("event: message\ndata: {question}\n\n"))?;
            let answered = || {
                let requests = lock(&shared.requests);
                requests.iter().find(|message| message["id"] == json!(id) && message.get("method").is_none()).cloned()
            };
            let answer = crate::wait::until_some(crate::wait::PATIENCE, "an answer", answered);
            let result = json!({"content": [], "structuredContent": {"answer": answer}});
            write_chunk(writer, &format!("event: message\ndata: {}\n\n", response(&result)))?;
            writer.write_all(b"0\r\n\r\n")
        }
        Manner::BrokenStream => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            writer.write_all(head.as_bytes())?;
            write_chunk(writer, "id: fake-0\ndata:\n\n")?;
            writer.shutdown(std::net::Shutdown::Both)
        }
        Manner::ResumedStream { .. } => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            writer.write_all(head.as_bytes())?;
            write_chunk(writer, "id: fake-0\ndata:\n\n")?;
            let params = json!({"progressToken": message["params"]["_meta"]["progressToken"], "progress": 1});
            let note = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
            write_chunk(writer, &format!("id: fake-1\ndata: {note}\n\n"))?;
            writer.shutdown(std::net::Shutdown::Both)
        }
        Manner::Stream { steps, result } => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            writer.write_all(head.as_bytes())?;
            write_chunk(writer, "id: fake-0\ndata:\n\n")?;
            let token = &message["params"]["_meta"]["progressToken"];
            for step in 1..=*steps {
                let params = json!({"progressToken": token, "progress": step, "total": steps, "message": format!("step {step}")});
                let note = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
                write_chunk(writer, &format!("event: message\ndata: {note}\n\n"))?;
            }
            write_chunk(writer, &format!("event: message\ndata: {}\n\n", response(result)))?;
            writer.write_all(b"0\r\n\r\n")
        }
    }
}

/// The response of a server that knows 2026-07-28 alone.
fn stateless(shared: &Shared, message: &Value, requests: &Value) -> Value {
    let (id, method, params) = (&message["id"], message["method"].as_str().unwrap_or(""), &message["params"]);
    let head = lock(&shared.heads).last().cloned().unwrap_or_default().to_ascii_lowercase();
    let says = |field: &str, value: &str| head.contains(&format!("{field}: {}", value.to_ascii_lowercase()));
    let is_right = params["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
        && params["_meta"]["io.modelcontextprotocol/clientCapabilities"].is_object()
        && says("mcp-protocol-version", "2026-07-28")
        && says("mcp-method", method)
        && params["name"].as_str().is_none_or(|name| says("mcp-name", name))
        && !head.contains("mcp-session-id");
    let result = match method {
        "initialize" => return json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "too old"}}),
        _ if !is_right => return json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32020, "message": head}}),
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}),
        "tools/list" => {
            json!({"resultType": "complete", "tools": *lock(&shared.tools), "ttlMs": 0, "cacheScope": "private"})
        }
        _ if params["requestState"] == "opaque 1" => json!({"resultType": "complete", "content": [],
            "structuredContent": {"answers": params["inputResponses"]}}),
        _ => json!({"resultType": "input_required", "inputRequests": requests, "requestState": "opaque 1"}),
    };
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// The response to the last call, for a request that names the last event of its stream.
fn rest_of_stream(shared: &Shared, line: &str, headers: &[String]) -> Option<Value> {
    let Manner::ResumedStream { result } = &shared.manner else { return None };
    let comes_back = line.starts_with("GET ")
        && header(headers, "last-event-id").as_deref() == Some("fake-1")
        && header(headers, "mcp-session-id").as_deref() == Some("fake-session");
    let requests = lock(&shared.requests);
    let call = requests.iter().rev().find(|message| message["method"] == "tools/call")?;
    comes_back.then(|| json!({"jsonrpc": "2.0", "id": call["id"], "result": result}))
}

fn write_rest(writer: &mut TcpStream, response: &Value) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    writer.write_all(head.as_bytes())?;
    write_chunk(writer, &format!("id: fake-2\ndata: {response}\n\n"))?;
    writer.write_all(b"0\r\n\r\n")
}

fn page(shared: &Shared, message: &Value) -> Value {
    let tools = lock(&shared.tools);
    if !shared.foreign {
        return json!({"tools": *tools});
    }
    let start: usize = message["params"]["cursor"].as_str().and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let end = tools.len().min(start + FOREIGN_PAGE);
    let mut result = json!({"tools": tools[start.min(end)..end]});
    if end < tools.len() {
        result["nextCursor"] = json!(end.to_string());
    }
    result
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<String>, Vec<u8>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let length = header(&lines, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0usize);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let first = lines.first()?.clone();
    Some((first, lines, body))
}

fn header(lines: &[String], name: &str) -> Option<String> {
    let fields = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

fn accepts_both(headers: &[String]) -> bool {
    let accept = header(headers, "accept").unwrap_or_default();
    accept.contains("application/json") && accept.contains("text/event-stream")
}

fn write_json(writer: &mut TcpStream, message: &Value, extra: &str) -> std::io::Result<()> {
    let body = message.to_string();
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{extra}Content-Length: {length}\r\n\r\n");
    writer.write_all((head + &body).as_bytes())
}

fn write_chunk(writer: &mut TcpStream, text: &str) -> std::io::Result<()> {
    writer.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
}

fn clock(skew: f64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs_f64(now() + skew)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
