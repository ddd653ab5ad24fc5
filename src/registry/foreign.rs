//! Instances of other implementations, which share one file: the rows of `services.json`.
//!
//! It is read, never written. A row becomes an `Entry`, its `heartbeat.seq` being the milliseconds of its last
//! heartbeat, so that one rule of liveness serves both. An owner that holds a lock on its file in `locks/` is alive
//! while it does, whatever its heartbeat says.
//!
//! **Invariant**: no path of a row is opened; only its last part is used, below our own `locks/`. That is also right
//! where the folder is mounted at another place for the writer.
//! **Thread**: the caller's.
//! **Bounds**: `SERVICES_BYTES_MAX`, `FOREIGN_ROWS_MAX`, `FOREIGN_TRIES_MAX`.
//! Left out on purpose: rows without an address that can be called (`0.0.0.0`: whose?), and `__gateway__` rows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::limits::{FOREIGN_ROWS_MAX, FOREIGN_TRIES_MAX, SERVICES_BYTES_MAX};
use crate::registry::entry::{self, Beat, Entry, SCHEMA, Status};
use crate::registry::files::{self, Stamp, Unread};

/// The type of rows that are gateways.
const GATEWAY_TYPE: &str = "__gateway__";

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub entry: Arc<Entry>,
    /// Name of the file in `locks/` that its owner keeps locked for life.
    pub lock: Option<String>,
}

/// The rows as they were when the file was read last.
#[derive(Debug, Default)]
pub struct Rows {
    pub rows: Vec<Row>,
    pub skipped: usize,
    stamp: Option<Stamp>,
    failures: u32,
}

impl Rows {
    /// Reads the file if it changed. One that is not whole, as it may be while it is overwritten, changes nothing.
    pub fn refresh(&mut self, root: &Path) {
        let path = root.join("services.json");
        match files::look(&path) {
            Ok(stamp) if self.stamp == Some(stamp) => return,
            Ok(_) => {}
            Err(Unread::Missing) => return *self = Rows::default(),
            Err(_) => return,
        }
        let Ok((stamp, bytes)) = files::read(&path, SERVICES_BYTES_MAX) else { return };
        match parse(&bytes) {
            Some((rows, skipped)) => {
                if skipped != self.skipped {
                    log::warn!("rows of other adapters skipped path={} count={skipped}", path.display());
                }
                *self = Rows { rows, skipped, stamp: Some(stamp), failures: 0 };
            }
            None => {
                self.failures += 1;
                if self.failures >= FOREIGN_TRIES_MAX {
                    log::warn!("file of other adapters cannot be understood path={}", path.display());
                    (self.stamp, self.failures) = (Some(stamp), 0);
                }
            }
        }
    }
}

/// Whether the owner of a row holds its lock; `None` if that cannot be told.
pub fn lock_is_held(root: &Path, name: &str) -> Option<bool> {
    let file = match files::open(&root.join("locks").join(name)) {
        Ok(file) => file,
        Err(Unread::Missing) => return Some(false),
        Err(_) => return None,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            // At once, not when the file is closed: a new owner may want it.
            let _ = flock(&file, FlockOperation::Unlock);
            Some(false)
        }
        Err(Errno::WOULDBLOCK) => Some(true),
        Err(_) => None,
    }
}

/// The rows that are instances, one for each id, and how many could not be used; `None` if it is not a whole array.
fn parse(bytes: &[u8]) -> Option<(Vec<Row>, usize)> {
    let texts: Vec<&RawValue> = serde_json::from_slice(bytes).ok()?;
    let mut skipped = texts.len().saturating_sub(FOREIGN_ROWS_MAX);
    let mut rows = BTreeMap::<String, Row>::new();
    for text in texts.iter().take(FOREIGN_ROWS_MAX) {
        match serde_json::from_str(text.get()).ok().and_then(|row| parse_row(&row)) {
            Some(Parsed::Gateway) => {}
            Some(Parsed::Instance(row)) => {
                let older = rows.get(&row.entry.instance_id).is_some_and(|other| other.seq() > row.seq());
                if !older {
                    rows.insert(row.entry.instance_id.clone(), row);
                }
            }
            None => skipped += 1,
        }
    }
    Some((rows.into_values().collect(), skipped))
}

enum Parsed {
    Gateway,
    Instance(Row),
}

impl Row {
    fn seq(&self) -> u64 {
        self.entry.heartbeat.seq
    }
}

fn parse_row(row: &Map<String, Value>) -> Option<Parsed> {
    let text = |key: &str| row.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let dcc_type = text("dcc_type")?;
    if dcc_type == GATEWAY_TYPE {
        return Some(Parsed::Gateway);
    }
    let metadata = strings(row.get("metadata"));
    let port = row.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok())?;
    let (host, mcp_url) = address(text("host"), port, metadata.get("mcp_url"))?;
    let beat = row.get("last_heartbeat").and_then(seconds).unwrap_or(0.0);
    let documents = row.get("documents").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let entry = Entry {
        schema: SCHEMA,
        instance_id: text("instance_id")?,
        dcc_type,
        host,
        port,
        mcp_url,
        server_name: metadata.get("server_name").cloned().unwrap_or_default(),
        server_version: String::new(),
        version: text("version"),
        scene: text("scene"),
        documents: documents.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        display_name: text("display_name"),
        pid: row.get("pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
        pid_start: None,
        host_id: String::new(),
        registered_at: row.get("registered_at").and_then(seconds).unwrap_or(0.0),
        heartbeat: Beat { seq: (beat * 1000.0) as u64, at: beat },
        status: status(text("status")),
        tools_revision: String::new(),
        gateway: None,
        metadata,
    };
    entry.check().ok()?;
    Some(Parsed::Instance(Row {
        entry: Arc::new(entry),
        lock: text("sentinel_path").and_then(|path| lock_name(&path)),
    }))
}

/// The address to call. A row that advertises "any address" is reached only if its URL says where.
fn address(host: Option<String>, port: u16, url: Option<&String>) -> Option<(String, String)> {
    let host = host.map(|host| host.trim_matches(['[', ']']).to_owned()).filter(|host| entry::is_host(host));
    let url_host = url.and_then(|url| entry::split_url(url)).map(|(host, _, _)| host.to_owned());
    match (host, url_host, url) {
        (host, Some(url_host), Some(url)) => Some((host.unwrap_or(url_host), url.clone())),
        (Some(host), ..) => {
            let url = entry::mcp_url(&host, port);
            Some((host, url))
        }
        _ => None,
    }
}

fn strings(value: Option<&Value>) -> BTreeMap<String, String> {
    let pairs = value.and_then(Value::as_object).into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// A time in one of the forms that are in use.
fn seconds(value: &Value) -> Option<f64> {
    let seconds = match value {
        Value::Object(parts) => {
            let nanoseconds = parts.get("nanos_since_epoch").and_then(Value::as_f64).unwrap_or(0.0);
            parts.get("secs_since_epoch")?.as_f64()? + nanoseconds / 1e9
        }
        other => other.as_f64()?,
    };
    seconds.is_finite().then_some(seconds)
}

fn status(text: Option<String>) -> Status {
    match text.as_deref() {
        Some("shutting_down") => Status::Draining,
        _ => text.map(Status::from).unwrap_or_default(),
    }
}

/// The last part of a path like `<registry>/locks/<name>`, of whichever system.
fn lock_name(path: &str) -> Option<String> {
    let mut parts = path.rsplit(['/', '\\']);
    let (name, folder) = (parts.next()?, parts.next()?);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_plain = (1..=255).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain);
    (folder == "locks" && is_plain).then(|| name.to_owned())
}
