//! One instance as its registry file tells it.
//!
//! Times are seconds since the epoch, with fractions. They are for people and for first sights: whether an instance
//! lives is judged by changes of `heartbeat` alone, by whether it is the same and not by how old it is (`registry.rs`).
//!
//! **Invariant**: an `Entry` that came out of `parse` is safe to use: its id is a file name and nothing more, its
//! address is one that can be connected to, its texts are bounded and names are free of control characters. What the
//! writer writes passes the same check, so that no reader skips it.
//! **Bounds**: `ENTRY_BYTES_MAX`, `ENTRY_TEXT_BYTES_MAX`, `ENTRY_NAME_BYTES_MAX`, `ENTRY_LIST_MAX`.
//! Left out on purpose: files (`store.rs`) and other implementations' rows (`foreign.rs`).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::json;
use crate::limits::{ENTRY_BYTES_MAX, ENTRY_LIST_MAX, ENTRY_NAME_BYTES_MAX, ENTRY_TEXT_BYTES_MAX};
use crate::os;

/// The form that is written here, and the newest that is understood.
pub const SCHEMA: u64 = 1;
/// What the heartbeat is filled up to in a file: no count has more than 20 digits, no time more than 24.
const BEAT_BYTES: usize = 64;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Entry {
    pub schema: u64,
    /// Normally a UUID; `[A-Za-z0-9_-]`. Unique in the whole folder, rows of `services.json` included.
    pub instance_id: String,
    /// `maya`, `blender` …; may be empty.
    #[serde(default)]
    pub dcc_type: String,
    /// Advertised address: an IP address without brackets or a host name, never "any address".
    pub host: String,
    pub port: u16,
    pub mcp_url: String,
    #[serde(default)]
    pub server_name: String,
    /// Version of this program.
    #[serde(default)]
    pub server_version: String,
    /// Version of the application.
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default)]
    pub scene: Option<String>,
    #[serde(default)]
    pub documents: Vec<String>,
    #[serde(default)]
    pub display_name: Option<String>,
    pub pid: u32,
    /// `os::pid_start`.
    #[serde(default)]
    pub pid_start: Option<u64>,
    /// `os::host_id`: pids mean something to those with the same value only.
    #[serde(default)]
    pub host_id: String,
    #[serde(default)]
    pub registered_at: f64,
    pub heartbeat: Beat,
    #[serde(default)]
    pub status: Status,
    /// Hash of the published tool list; empty when none is published.
    #[serde(default)]
    pub tools_revision: String,
    /// The address that it serves as gateway.
    #[serde(default)]
    pub gateway: Option<String>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// The sign of life: `seq` is one more at each writing, `at` is the writer's clock.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Beat {
    pub seq: u64,
    #[serde(default)]
    pub at: f64,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(from = "String", into = "String")]
pub enum Status {
    #[default]
    Available,
    Busy,
    Draining,
    /// A status of a version to come, or of another implementation.
    Other(String),
}

/// Why bytes are no entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// Not JSON, or not of this shape: torn, filled with NULs, or something else altogether.
    Malformed,
    /// A form to come; its file is left alone.
    NewerSchema(u64),
    /// The id is not the one that the file is named after.
    OtherId,
    /// This field holds what cannot be used.
    Field(&'static str),
}

/// Reads an entry from the file `<file_stem>.json`.
pub fn parse(bytes: &[u8], file_stem: &str) -> Result<Entry, EntryError> {
    #[derive(Deserialize)]
    struct Versioned {
        schema: u64,
    }
    // On its own first: the rest of a newer form may have any shape.
    let Versioned { schema } = json::read(bytes).map_err(|_| EntryError::Malformed)?;
    if schema > SCHEMA {
        return Err(EntryError::NewerSchema(schema));
    }
    let entry: Entry = json::read(bytes).map_err(|_| EntryError::Malformed)?;
    entry.check()?;
    if entry.instance_id == file_stem { Ok(entry) } else { Err(EntryError::OtherId) }
}

impl Entry {
    /// The entry of this process, reachable at `host:port`, not yet beaten.
    pub fn of_this_process(instance_id: String, host: String, port: u16) -> Entry {
        let pid = std::process::id();
        Entry {
            schema: SCHEMA,
            instance_id,
            dcc_type: String::new(),
            mcp_url: mcp_url(&host, port),
            host,
            port,
            server_name: String::new(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            version: None,
            scene: None,
            documents: Vec::new(),
            display_name: None,
            pid,
            pid_start: os::pid_start(pid),
            host_id: os::host_id().to_owned(),
            registered_at: os::wall_clock(),
            heartbeat: Beat::default(),
            status: Status::Available,
            tools_revision: String::new(),
            gateway: None,
            metadata: BTreeMap::new(),
        }
    }

    /// The bytes of its file, as many at each heartbeat: where a network file system tells the size of the version before,
    /// those of the new one that were beyond it would be cut off.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        self.check()?;
        let mut bytes = serde_json::to_vec(self).map_err(|_| EntryError::Malformed)?;
        let beat = serde_json::to_vec(&self.heartbeat).map_err(|_| EntryError::Malformed)?;
        bytes.resize(bytes.len() + BEAT_BYTES.saturating_sub(beat.len()), b' ');
        bytes.push(b'\n');
        if bytes.len() as u64 > ENTRY_BYTES_MAX { Err(EntryError::Field("metadata")) } else { Ok(bytes) }
    }

    /// Whether all values can be used, by us and by those who read what we write.
    pub fn check(&self) -> Result<(), EntryError> {
        let texts = [
            ("server_name", Some(&self.server_name)),
            ("server_version", Some(&self.server_version)),
            ("version", self.version.as_ref()),
            ("scene", self.scene.as_ref()),
            ("display_name", self.display_name.as_ref()),
            ("host_id", Some(&self.host_id)),
            ("tools_revision", Some(&self.tools_revision)),
            ("gateway", self.gateway.as_ref()),
        ];
        let checks = [
            ("schema", self.schema == SCHEMA),
            ("instance_id", is_instance_id(&self.instance_id)),
            ("dcc_type", is_name(&self.dcc_type)),
            ("host", is_host(&self.host)),
            ("port", self.port != 0),
            ("mcp_url", is_mcp_url(&self.mcp_url)),
            ("status", is_name(self.status.as_str())),
            ("registered_at", self.registered_at.is_finite()),
            ("heartbeat", self.heartbeat.at.is_finite()),
            ("documents", self.documents.len() <= ENTRY_LIST_MAX && self.documents.iter().all(|text| is_text(text))),
            ("metadata", self.metadata.len() <= ENTRY_LIST_MAX),
            ("metadata", self.metadata.iter().all(|(key, value)| is_text(key) && is_text(value))),
        ];
        let texts = texts.into_iter().map(|(field, text)| (field, text.is_none_or(|text| is_text(text))));
        let wrong = checks.into_iter().chain(texts).find(|(_, good)| !good);
        wrong.map_or(Ok(()), |(field, _)| Err(EntryError::Field(field)))
    }

    /// Whether both were written by the same process.
    pub fn has_same_owner(&self, other: &Entry) -> bool {
        (&self.instance_id, self.pid, self.pid_start, &self.host_id)
            == (&other.instance_id, other.pid, other.pid_start, &other.host_id)
    }

    /// Whether both are of one sign of life: nobody has written anything in between. The time counts as well: a machine that
    /// is put back to an earlier state comes by the same count again.
    pub fn is_same_beat(&self, other: &Entry) -> bool {
        self.has_same_owner(other) && self.heartbeat == other.heartbeat && self.registered_at == other.registered_at
    }

    /// Whether nothing but the heartbeat differs.
    pub fn says_the_same(&self, other: &Entry) -> bool {
        let mut as_other = self.clone();
        as_other.heartbeat = other.heartbeat;
        as_other == *other
    }
}

/// Whether a text is safe as the name of a file: 1 to 64 of `[A-Za-z0-9_-]`.
pub fn is_instance_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=ENTRY_NAME_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain)
}

/// Whether a host is an IP address or a host name that can be connected to.
pub fn is_host(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => {
            // `::ffff:0.0.0.0` is no more an address than what it stands for.
            let address = address.to_canonical();
            !address.is_unspecified() && !address.is_multicast()
        }
        Err(_) => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            // All digits and dots is a mistyped or abbreviated address ("0", "127.1"), not a name.
            let numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            (1..=253).contains(&host.len()) && host.bytes().all(plain) && !numeric && !host.starts_with(['.', '-'])
        }
    }
}

/// `http://<host>:<port>/mcp`, with brackets where they are due.
pub fn mcp_url(host: &str, port: u16) -> String {
    if host.contains(':') { format!("http://[{host}]:{port}/mcp") } else { format!("http://{host}:{port}/mcp") }
}

/// Host (without brackets), port and path of an `http` URL that can be called; `None` for any other.
pub fn split_url(url: &str) -> Option<(&str, u16, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').filter(|(host, _)| host.contains(':'))?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port {
        "" => 80,
        _ => port.strip_prefix(':').filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()?,
    };
    let path_is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    (port != 0 && path_is_plain && is_host(host)).then_some((host, port, path))
}

fn is_mcp_url(url: &str) -> bool {
    url.len() <= ENTRY_TEXT_BYTES_MAX && split_url(url).is_some()
}

fn is_name(text: &str) -> bool {
    text.len() <= ENTRY_NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

fn is_text(text: &str) -> bool {
    text.len() <= ENTRY_TEXT_BYTES_MAX
}

impl Status {
    pub fn as_str(&self) -> &str {
        match self {
            Status::Available => "available",
            Status::Busy => "busy",
            Status::Draining => "draining",
            Status::Other(text) => text,
        }
    }
}

impl From<String> for Status {
    fn from(text: String) -> Status {
        match text.as_str() {
            "available" => Status::Available,
            "busy" => Status::Busy,
            "draining" => Status::Draining,
            _ => Status::Other(text),
        }
    }
}

impl From<Status> for String {
    fn from(status: Status) -> String {
        status.as_str().to_owned()
    }
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntryError::Malformed => f.write_str("not a registry entry"),
            EntryError::NewerSchema(schema) => write!(f, "written in form {schema}, newer than {SCHEMA}"),
            EntryError::OtherId => f.write_str("its id is not that of its file"),
            EntryError::Field(field) => write!(f, "its {field} cannot be used"),
        }
    }
}

impl std::error::Error for EntryError {}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// An entry with something in every field.
    pub fn sample(id: &str) -> Entry {
        let mut entry = Entry::of_this_process(id.to_owned(), "127.0.0.1".to_owned(), 18765);
        entry.dcc_type = "maya".to_owned();
        entry.server_name = "dcc-mcp-server".to_owned();
        entry.server_version = "0.1.0".to_owned();
        entry.version = Some("2024.2".to_owned());
        entry.scene = Some("/scenes/shot010.ma".to_owned());
        entry.documents = vec!["a.psd".to_owned()];
        entry.display_name = Some("Maya-Rig".to_owned());
        entry.heartbeat = Beat { seq: 7, at: os::wall_clock() };
        entry.status = Status::Busy;
        entry.tools_revision = "85944171f73967e8".to_owned();
        entry.metadata = BTreeMap::from([("user".to_owned(), "ada".to_owned())]);
        entry
    }

    #[test]
    fn what_is_written_is_read() {
        let entry = sample("2f2c5299-7f5a-4656-b42f-a383154e7076");
        let bytes = entry.encode().expect("a good entry can be written");
        assert_eq!(parse(&bytes, &entry.instance_id), Ok(entry));
    }

    /// Found by tests/faults, once in some dozen runs.
    #[test]
    fn each_heartbeat_has_the_same_size() {
        let written = sample("id");
        let size = |seq, at| {
            let entry = Entry { heartbeat: Beat { seq, at }, ..written.clone() };
            let bytes = entry.encode().expect("a good entry can be written");
            assert_eq!(parse(&bytes, "id"), Ok(entry));
            bytes.len()
        };
        let usual = size(9, 1795957722.0);
        for (seq, at) in [(10, 1795957722.43), (u64::MAX, 1795957722.431), (0, 0.0), (u64::MAX, -f64::MAX)] {
            assert_eq!(size(seq, at), usual, "{seq} {at}");
        }
    }

    #[test]
    fn the_least_entry_and_unknown_fields() {
        let least = json!({"schema": 1, "instance_id": "a", "host": "::1", "port": 1, "mcp_url": "http://[::1]:1/mcp",
            "pid": 1, "heartbeat": {"seq": 1, "of": "ours"}, "status": "dreaming", "what": {"is": ["this"]}});
        let entry = parse(least.to_string().as_bytes(), "a").expect("the least is enough");
        assert_eq!(entry.status, Status::Other("dreaming".to_owned()));
        assert_eq!((entry.dcc_type.as_str(), entry.gateway, entry.heartbeat.at), ("", None, 0.0));
    }

    #[test]
    fn each_field_is_checked() {
        let long = "x".repeat(ENTRY_TEXT_BYTES_MAX + 1);
        let good = serde_json::to_value(sample("id")).expect("an entry is JSON");
        for (field, value, expected) in [
            ("schema", json!(2), EntryError::NewerSchema(2)),
            ("schema", json!(0), EntryError::Field("schema")),
            ("schema", json!("1"), EntryError::Malformed),
            ("schema", Value::Null, EntryError::Malformed),
            ("instance_id", json!("other"), EntryError::OtherId),
            ("instance_id", json!(""), EntryError::Field("instance_id")),
            ("instance_id", json!("../id"), EntryError::Field("instance_id")),
            ("instance_id", json!("i".repeat(65)), EntryError::Field("instance_id")),
            ("dcc_type", json!("may\na"), EntryError::Field("dcc_type")),
            ("dcc_type", json!("x".repeat(65)), EntryError::Field("dcc_type")),
            ("host", json!("0.0.0.0"), EntryError::Field("host")),
            ("host", json!("::"), EntryError::Field("host")),
            ("host", json!("::ffff:0.0.0.0"), EntryError::Field("host")),
            ("host", json!("a b"), EntryError::Field("host")),
            ("host", json!(""), EntryError::Field("host")),
            ("port", json!(0), EntryError::Field("port")),
            ("port", json!(65536), EntryError::Malformed),
            ("port", json!(-1), EntryError::Malformed),
            ("mcp_url", json!("https://127.0.0.1:1/mcp"), EntryError::Field("mcp_url")),
            ("mcp_url", json!("http://0.0.0.0:1/mcp"), EntryError::Field("mcp_url")),
            ("pid", json!(-4), EntryError::Malformed),
            ("scene", json!(long), EntryError::Field("scene")),
            ("documents", json!(vec!["d"; ENTRY_LIST_MAX + 1]), EntryError::Field("documents")),
            ("documents", json!([long]), EntryError::Field("documents")),
            ("metadata", json!({ long.clone(): "v" }), EntryError::Field("metadata")),
            ("heartbeat", json!({"seq": -1}), EntryError::Malformed),
            ("status", json!("x".repeat(65)), EntryError::Field("status")),
        ] {
            let mut changed = good.clone();
            changed[field] = value;
            assert_eq!(parse(changed.to_string().as_bytes(), "id"), Err(expected), "{field}");
        }
        let newer = br#"{"schema": 9, "instance_id": {"a": 1}}"#;
        assert_eq!(parse(newer, "id"), Err(EntryError::NewerSchema(9)), "a newer form may have any shape");
        for torn in [&b""[..], b"{", b"[]", b"null", &[0; 300], b"{\"schema\":1}", b"\xff\xfe"] {
            assert_eq!(parse(torn, "id"), Err(EntryError::Malformed));
        }
        let mut entry = sample("id");
        entry.documents = vec!["d".repeat(ENTRY_TEXT_BYTES_MAX); 20];
        assert_eq!(entry.encode(), Err(EntryError::Field("metadata")), "larger than a reader takes");
    }

    #[test]
    fn urls() {
        for (url, expected) in [
            ("http://127.0.0.1:18951/mcp", Some(("127.0.0.1", 18951, "/mcp"))),
            ("http://[::1]:8/mcp", Some(("::1", 8, "/mcp"))),
            ("http://render-07.studio.local", Some(("render-07.studio.local", 80, "/"))),
            ("http://host/a/b?c=d", Some(("host", 80, "/a/b?c=d"))),
            ("http://user@host:1/mcp", None),
            ("http://host:1/mcp#x", None),
            ("http://host:1/m cp", None),
            ("http://host:1/mcp\r\nX: y", None),
            ("http://host:+1/mcp", None),
            ("http://host:0/mcp", None),
            ("http://host:/mcp", None),
            ("http://[host]:1/mcp", None),
            ("http://::1/mcp", None),
            ("http://[::]:1/mcp", None),
            ("http://0:1/mcp", None),
            ("http:///mcp", None),
            ("ftp://host/mcp", None),
        ] {
            assert_eq!(split_url(url), expected, "{url}");
        }
        assert_eq!(split_url(&mcp_url("fe80::1", 5)), Some(("fe80::1", 5, "/mcp")));
    }

    #[test]
    fn mutated_entries_never_panic_and_stay_themselves() {
        let good = sample("id").encode().expect("a good entry can be written");
        let seed = u64::from_le_bytes(os::random_bytes());
        let mut random = Random(seed);
        let mut accepted = 0;
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                match random.below(4) {
                    0 => bytes[at] = random.next() as u8,
                    1 => bytes.truncate(at.max(1)),
                    2 => bytes.insert(at, b"{}[]\",:0\\"[random.below(9) as usize]),
                    _ => drop(bytes.remove(at.min(bytes.len() - 1))),
                }
                if bytes.is_empty() {
                    bytes.push(0);
                }
            }
            if let Ok(entry) = parse(&bytes, "id") {
                accepted += 1;
                let again = entry.encode().expect("what was accepted can be written");
                assert_eq!(parse(&again, "id"), Ok(entry), "seed {seed}");
            }
        }
        assert!(accepted > 0, "some mutations are harmless; seed {seed}");
    }

    /// SplitMix64 (Steele, Lea, Flood), for tests that can be replayed.
    pub struct Random(pub u64);

    impl Random {
        #[allow(clippy::should_implement_trait, reason = "a seeded source of numbers, never iterated")]
        pub fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut value = self.0;
            value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            value ^ (value >> 31)
        }

        pub fn below(&mut self, limit: u64) -> u64 {
            self.next() % limit
        }
    }
}
