//! Registry entries, ours and others' rows: one that is accepted is safe to use and is the same when it is written and
//! read again; a torn one is never taken for a whole one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use dcc_mcp_server::limits::{ENTRY_BYTES_MAX, FOREIGN_ROWS_MAX};
use dcc_mcp_server::registry::entry::{self, Entry, EntryError, SCHEMA};
use dcc_mcp_server::registry::foreign;
use serde_json::Value;

use super::splits;

pub fn entry(input: &[u8]) -> bool {
    let is_entry = own(input);
    let has_rows = rows(input);
    is_entry || has_rows
}

fn own(input: &[u8]) -> bool {
    let value: Value = serde_json::from_slice(input).unwrap_or_default();
    let stem = value["instance_id"].as_str().unwrap_or("id");
    let outcome = entry::parse(input, stem);
    if let Some(schema) = value["schema"].as_u64().filter(|schema| *schema > SCHEMA) {
        assert_eq!(outcome, Err(EntryError::NewerSchema(schema)), "a newer form is left alone, whatever its shape");
    }
    let Ok(found) = outcome else { return false };
    assert_eq!(found.instance_id, stem);
    assert_eq!(entry::parse(input, &format!("{stem}0")), Err(EntryError::OtherId));
    let whole = input.trim_ascii_end();
    for [torn, rest] in splits(whole).filter(|[_, rest]| !rest.is_empty()) {
        assert_eq!(entry::parse(torn, stem), Err(EntryError::Malformed), "without its last {} bytes", rest.len());
        let filled = [torn, &vec![0; rest.len()]].concat();
        assert_eq!(entry::parse(&filled, stem), Err(EntryError::Malformed), "with NULs in their place");
    }
    check(&found);
    true
}

fn rows(input: &[u8]) -> bool {
    let Some((rows, skipped)) = foreign::parse(input) else { return false };
    let count = serde_json::from_slice::<Vec<&serde_json::value::RawValue>>(input).map_or(0, |rows| rows.len());
    assert!(rows.len() + skipped <= count && rows.len() <= FOREIGN_ROWS_MAX);
    let ids: BTreeSet<&str> = rows.iter().map(|row| &*row.entry.instance_id).collect();
    assert_eq!(ids.len(), rows.len(), "an id twice");
    for row in &rows {
        check(&row.entry);
        if let Some(lock) = &row.lock {
            assert_stays_inside(lock);
        }
    }
    !rows.is_empty()
}

/// Safe to use, and the same again when it was written and read.
fn check(entry: &Entry) {
    assert_eq!(entry.check(), Ok(()));
    assert_stays_inside(&format!("{}.json", entry.instance_id));
    let own_url = entry::mcp_url(&entry.host, entry.port);
    assert_eq!(entry::split_url(&own_url), Some((&*entry.host, entry.port, "/mcp")), "{own_url}");
    let (host, port, path) = entry::split_url(&entry.mcp_url).expect("an address can be called");
    assert!(path.starts_with('/') && port != 0 && entry.port != 0);
    for host in [host, &entry.host] {
        assert!(!host.bytes().any(|b| b.is_ascii_control() || b"/@[] ".contains(&b)), "{host:?}");
        if let Ok(address) = host.parse::<IpAddr>() {
            let address = address.to_canonical();
            assert!(!address.is_unspecified() && !address.is_multicast(), "{host} cannot be connected to");
        }
    }
    let written = match entry.encode() {
        Ok(written) => written,
        Err(error) => {
            let bytes = serde_json::to_vec(entry).expect("an entry is JSON").len() as u64;
            assert!(bytes >= ENTRY_BYTES_MAX, "{error}");
            return;
        }
    };
    assert!(written.len() as u64 <= ENTRY_BYTES_MAX);
    assert_eq!(entry::parse(&written, &entry.instance_id).as_ref(), Ok(entry), "written and read");
}

fn assert_stays_inside(name: &str) {
    let folder = Path::new("/registry");
    assert_eq!(folder.join(name).parent(), Some(folder), "{name:?}");
    assert_eq!(folder.join(name).file_name().and_then(|name| name.to_str()), Some(name));
}
