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

use crate::json;
use crate::limits::{FOREIGN_ROWS_MAX, FOREIGN_TRIES_MAX, SERVICES_BYTES_MAX};
use crate::logging::Quoted;
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
        let (stamp, bytes) = match files::read_if_changed(&path, self.stamp, SERVICES_BYTES_MAX) {
            Some(Ok(read)) => read,
            Some(Err(Unread::Missing)) => return *self = Rows::default(),
            None | Some(Err(_)) => return,
        };
        match parse(&bytes) {
            Some((rows, skipped)) => {
                if skipped != self.skipped {
                    log::warn!("event=foreign_rows_skipped path={} count={skipped}", Quoted(&path.display()));
                }
                *self = Rows { rows, skipped, stamp: Some(stamp), failures: 0 };
            }
            None => {
                self.failures += 1;
                if self.failures >= FOREIGN_TRIES_MAX {
                    log::warn!("event=foreign_file_not_understood path={}", Quoted(&path.display()));
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
pub fn parse(bytes: &[u8]) -> Option<(Vec<Row>, usize)> {
    let texts: Vec<&RawValue> = json::read(bytes).ok()?;
    let mut skipped = texts.len().saturating_sub(FOREIGN_ROWS_MAX);
    let mut rows: Vec<Row> = Vec::new();
    for text in texts.iter().take(FOREIGN_ROWS_MAX) {
        match serde_json::from_str(text.get()).ok().and_then(|row| parse_row(&row)) {
            Some(Parsed::Gateway) => {}
            Some(Parsed::Instance(row)) => rows.push(row),
            None => skipped += 1,
        }
    }
    // Of several with the same id the newest first, and the last of those that are equally new.
    rows.reverse();
    rows.sort_by(|one, other| (one.id(), other.seq()).cmp(&(other.id(), one.seq())));
    rows.dedup_by(|later, kept| later.id() == kept.id());
    Some((rows, skipped))
}

enum Parsed {
    Gateway,
    Instance(Row),
}

impl Row {
    fn id(&self) -> &str {
        &self.entry.instance_id
    }

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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use serde_json::json;

    use super::*;
    use crate::registry::files::tests::Folder;

    /// A row as the existing adapters write it.
    pub const ROW: &str = r#"{"schema_version":1,"dcc_type":"maya","instance_id":"2f2c5299-7f5a-4656-b42f-a383154e7076",
        "host":"127.0.0.1","port":18951,"version":"2024.2","adapter_dcc":"maya","scene":"/scenes/shot010.ma",
        "documents":["a.psd"],"pid":17973,
        "sentinel_path":"/tmp/r/locks/maya-2f2c5299-7f5a-4656-b42f-a383154e7076.lock","display_name":"Maya-Rig",
        "metadata":{"mcp_url":"http://127.0.0.1:18951/mcp","server_name":"maya-server","count":3},"extras":{},
        "transport_address":null,"registered_at":{"secs_since_epoch":1795488507,"nanos_since_epoch":111307593},
        "last_heartbeat":{"secs_since_epoch":1795488512,"nanos_since_epoch":269398236},"status":"available"}"#;

    fn one(row: &Value) -> Option<Row> {
        let (mut rows, skipped) = parse(json!([row]).to_string().as_bytes()).expect("a whole array");
        assert!(rows.len() + skipped <= 1);
        rows.pop()
    }

    #[test]
    fn a_row_becomes_an_entry() {
        let row = one(&serde_json::from_str(ROW).expect("JSON")).expect("a good row");
        let entry = &row.entry;
        assert_eq!(entry.instance_id, "2f2c5299-7f5a-4656-b42f-a383154e7076");
        assert_eq!((entry.dcc_type.as_str(), entry.host.as_str(), entry.port), ("maya", "127.0.0.1", 18951));
        assert_eq!((entry.mcp_url.as_str(), entry.server_name.as_str()), ("http://127.0.0.1:18951/mcp", "maya-server"));
        assert_eq!((entry.version.as_deref(), entry.scene.as_deref()), (Some("2024.2"), Some("/scenes/shot010.ma")));
        assert_eq!((&entry.documents, entry.display_name.as_deref()), (&vec!["a.psd".to_owned()], Some("Maya-Rig")));
        assert_eq!((entry.pid, entry.heartbeat.seq, &entry.status), (17973, 1_795_488_512_269, &Status::Available));
        assert_eq!(row.lock.as_deref(), Some("maya-2f2c5299-7f5a-4656-b42f-a383154e7076.lock"));
    }

    #[test]
    fn all_but_four_fields_may_be_missing_or_odd() {
        let least = json!({"dcc_type": "maya", "instance_id": "a", "host": "10.0.0.7", "port": 7001});
        let entry = one(&least).expect("the least is enough").entry;
        assert_eq!((entry.mcp_url.as_str(), entry.pid, entry.heartbeat.seq), ("http://10.0.0.7:7001/mcp", 0, 0));
        for key in ["dcc_type", "instance_id", "host", "port"] {
            let mut row = least.clone();
            row[key] = Value::Null;
            assert_eq!(one(&row), None, "{key}");
        }
        for (key, value, is_taken) in [
            ("schema_version", json!(99), true),
            ("last_heartbeat", json!(1_795_488_512), true),
            ("last_heartbeat", json!(1_795_488_512.5), true),
            ("last_heartbeat", json!("yesterday"), true),
            ("last_heartbeat", json!(-5), true),
            ("status", json!("booting"), true),
            ("status", json!(7), true),
            ("documents", json!([1, null, "a"]), true),
            ("documents", json!({}), true),
            ("metadata", json!([]), true),
            ("metadata", json!({"mcp_url": "ftp://x"}), true),
            ("pid", json!(-1), true),
            ("port", json!(65536), false),
            ("port", json!(0), false),
            ("host", json!("0.0.0.0"), false),
            ("host", json!("[::1]"), true),
            ("instance_id", json!("../a"), false),
            ("dcc_type", json!("__gateway__"), false),
        ] {
            let mut row = least.clone();
            row[key] = value.clone();
            assert_eq!(one(&row).is_some(), is_taken, "{key} {value}");
        }
        let mut anywhere = least.clone();
        anywhere["host"] = json!("0.0.0.0");
        anywhere["metadata"] = json!({"mcp_url": "http://10.0.0.8:7001/mcp"});
        assert_eq!(one(&anywhere).map(|row| row.entry.host.clone()).as_deref(), Some("10.0.0.8"));
        let draining = json!({"dcc_type": "m", "instance_id": "a", "host": "h", "port": 1, "status": "shutting_down"});
        assert_eq!(one(&draining).map(|row| row.entry.status.clone()), Some(Status::Draining));
    }

    #[test]
    fn one_broken_row_spoils_no_other() {
        let text = format!(r#"[null, 3, {{"dcc_type": 5}}, {ROW}, {{"dcc_type": "__gateway__", "port": 9765}}]"#);
        let (rows, skipped) = parse(text.as_bytes()).expect("a whole array");
        assert_eq!((rows.len(), skipped), (1, 3));
        for torn in ["", "[", "{}", "null", &text[..text.len() - 1]] {
            assert!(parse(torn.as_bytes()).is_none(), "{torn}");
        }
    }

    #[test]
    fn mutated_rows_never_panic() {
        let seed = u64::from_le_bytes(crate::os::random_bytes());
        let mut random = entry::tests::Random(seed);
        let good = format!("[{ROW}]").into_bytes();
        for _ in 0..10_000 {
            let mut bytes = good.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = b"{}[]\",:0e-\\"[random.below(11) as usize];
            }
            for row in parse(&bytes).map(|(rows, _)| rows).unwrap_or_default() {
                assert_eq!(row.entry.check(), Ok(()), "seed {seed}");
            }
        }
    }

    #[test]
    fn the_file_is_read_when_it_changed_and_torn_ones_change_nothing() {
        let folder = Folder::new();
        let path = folder.0.join("services.json");
        let mut rows = Rows::default();
        rows.refresh(&folder.0);
        assert!(rows.rows.is_empty());
        fs::write(&path, format!("[{ROW}, {{}}]")).expect("written");
        rows.refresh(&folder.0);
        let first = rows.rows.clone();
        assert_eq!((first.len(), rows.skipped), (1, 1));
        rows.refresh(&folder.0);
        assert!(Arc::ptr_eq(&first[0].entry, &rows.rows[0].entry), "not read again");
        for torn in [&b""[..], &[0; 64], b"[{"] {
            fs::write(&path, torn).expect("written");
            for _ in 0..=FOREIGN_TRIES_MAX {
                rows.refresh(&folder.0);
                assert_eq!(rows.rows, first);
            }
        }
        fs::write(&path, "[ ]").expect("written");
        rows.refresh(&folder.0);
        assert!(rows.rows.is_empty());
    }

    #[test]
    fn names_of_locks() {
        for (path, expected) in [
            ("/tmp/r/locks/maya-1.lock", Some("maya-1.lock")),
            (r"C:\\r\locks\maya-1.lock", Some("maya-1.lock")),
            ("/tmp/r/locks/../../etc/passwd", None),
            ("/tmp/r/locks/..", None),
            ("/tmp/r/maya-1.lock", None),
            ("/tmp/r/locks/", None),
            ("maya-1.lock", None),
            ("/locks/a b", None),
        ] {
            assert_eq!(lock_name(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_lock_tells_whether_its_owner_lives() {
        let folder = Folder::new();
        fs::create_dir(folder.0.join("locks")).expect("made");
        let path = folder.0.join("locks/a.lock");
        assert_eq!(lock_is_held(&folder.0, "a.lock"), Some(false), "no file, no owner");
        fs::write(&path, "").expect("written");
        assert_eq!(lock_is_held(&folder.0, "a.lock"), Some(false));
        fs::create_dir(folder.0.join("locks/folder.lock")).expect("made");
        std::os::unix::fs::symlink(&path, folder.0.join("locks/link.lock")).expect("made");
        assert_eq!(lock_is_held(&folder.0, "link.lock"), None);

        let script = "exec 9>\"$0\"; flock 9 && echo held && exec sleep 60";
        let owner = Command::new("sh").args(["-c", script]).arg(&path).stdout(Stdio::piped()).spawn();
        let mut owner = owner.expect("a shell runs");
        let mut line = String::new();
        BufReader::new(owner.stdout.take().expect("piped")).read_line(&mut line).expect("it says so");
        assert_eq!(line, "held\n");
        assert_eq!(lock_is_held(&folder.0, "a.lock"), Some(true));
        owner.kill().and_then(|()| owner.wait()).expect("it can be killed");
        assert_eq!(lock_is_held(&folder.0, "a.lock"), Some(false));
    }
}
