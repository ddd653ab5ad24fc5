//! A stub MCP server for `make bench`: canned answers as fast as a plain thread-per-connection loop gives them.
//!
//! `stub --registry DIR --instances N --tools M` listens on N ports, registers each as an instance of another host with
//! a published list of M tools, and prints one line `<instance id> <port>` each. It runs until it is ended.
//! Left out on purpose: everything that the benchmark does not send. It is neither a client's nor an operator's server.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const BEAT_EVERY: Duration = Duration::from_secs(2);
const CALL_RESULT: &str =
    r#"{"content":[{"type":"text","text":"{\"ok\":true}"}],"structuredContent":{"ok":true},"isError":false}"#;

/// One registered port.
struct Instance {
    id: String,
    port: u16,
    file: PathBuf,
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    let registry = PathBuf::from(value("--registry").unwrap_or_else(|| "registry".to_owned()));
    let count = value("--instances").and_then(|text| text.parse().ok()).unwrap_or(1u32);
    let tools = tools(value("--tools").and_then(|text| text.parse().ok()).unwrap_or(10u32));
    fs::create_dir_all(registry.join("instances"))?;
    fs::create_dir_all(registry.join("tools"))?;

    let published = format!("[{}]", tools.join(","));
    let list: Arc<str> = format!(r#"{{"tools":{published}}}"#).into();
    let mut instances = Vec::new();
    for number in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let id = format!("{:08x}-0000-4000-8000-{:012x}", 0xbe4c_0000u32 + number, port);
        let list = Arc::clone(&list);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let list = Arc::clone(&list);
                thread::spawn(move || serve(stream, &list));
            }
        });
        write(&registry.join("tools").join(format!("{id}.json")), &published)?;
        let file = registry.join("instances").join(format!("{id}.json"));
        instances.push(Instance { id, port, file });
    }
    for seq in 1u64.. {
        for instance in &instances {
            write(&instance.file, &instance.entry(seq))?;
            if seq == 1 {
                println!("{} {}", instance.id, instance.port);
            }
        }
        io::stdout().flush()?;
        thread::sleep(BEAT_EVERY);
    }
    Ok(())
}

impl Instance {
    fn entry(&self, seq: u64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        let Instance { id, port, .. } = self;
        format!(
            r#"{{"schema":1,"instance_id":"{id}","dcc_type":"stub","host":"127.0.0.1","port":{port},
"mcp_url":"http://127.0.0.1:{port}/mcp","server_name":"stub","server_version":"0.0.0","pid":1,"host_id":"bench/1",
"registered_at":1700000000,"heartbeat":{{"seq":{seq},"at":{now}}},"status":"available","tools_revision":"0123456789abcdef"}}"#
        )
    }
}

/// Answers requests of one connection until it ends.
fn serve(mut stream: TcpStream, list: &str) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(16 * 1024);
    let mut chunk = [0; 16 * 1024];
    let mut out = Vec::with_capacity(16 * 1024);
    loop {
        let Some(length) = request_length(&buffer) else {
            match stream.read(&mut chunk) {
                Ok(count @ 1..) => buffer.extend_from_slice(&chunk[..count]),
                _ => return,
            }
            continue;
        };
        out.clear();
        answer(&buffer[..length], list, &mut out);
        if stream.write_all(&out).is_err() {
            return;
        }
        buffer.drain(..length);
    }
}

/// Length of the whole request at the front of the buffer, once it is there.
fn request_length(buffer: &[u8]) -> Option<usize> {
    let head = find(buffer, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).ok()?;
    let field =
        text.lines().find(|line| line.get(..15).is_some_and(|name| name.eq_ignore_ascii_case("content-length:")));
    let body = field.and_then(|line| line[15..].trim().parse().ok()).unwrap_or(0);
    (buffer.len() >= head + body).then_some(head + body)
}

fn answer(request: &[u8], list: &str, out: &mut Vec<u8>) {
    if request.starts_with(b"GET /health") {
        return reply(out, &["{\"ok\":true}"]);
    }
    if !request.starts_with(b"POST ") {
        return out.extend_from_slice(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n");
    }
    let body = find(request, b"\r\n\r\n").map_or("", |at| std::str::from_utf8(&request[at + 4..]).unwrap_or(""));
    let Some(id) = id_of(body) else {
        return out.extend_from_slice(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
    };
    let result = if body.contains(r#""tools/call""#) {
        CALL_RESULT
    } else if body.contains(r#""tools/list""#) {
        list
    } else if body.contains(r#""initialize""#) {
        r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"stub","version":"0"}}"#
    } else {
        "{}"
    };
    reply(out, &[r#"{"jsonrpc":"2.0","id":"#, id, r#","result":"#, result, "}"]);
}

fn reply(out: &mut Vec<u8>, parts: &[&str]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    out.extend_from_slice(head.as_bytes());
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// The text of the id of a message without other members named so before it.
fn id_of(body: &str) -> Option<&str> {
    let rest = body.split_once(r#""id":"#)?.1.trim_start();
    let end = match rest.strip_prefix('"') {
        Some(inner) => inner.find('"')? + 2,
        None => rest.find([',', '}'])?,
    };
    Some(&rest[..end])
}

fn tools(count: u32) -> Vec<String> {
    let schema = r#"{"type":"object","properties":{"name":{"type":"string","description":"Name of the object"},"size":{"type":"number","description":"Edge length in scene units"}},"required":["name"]}"#;
    (0..count)
        .map(|number| {
            format!(
                r#"{{"name":"geometry__create_{number:02}","description":"Creates a piece of geometry in the open scene and gives its name back","inputSchema":{schema},"annotations":{{"readOnlyHint":false,"destructiveHint":false}}}}"#
            )
        })
        .collect()
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temp = path.with_file_name(format!(".{name}.tmp"));
    fs::write(&temp, text)?;
    fs::rename(&temp, path)
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
