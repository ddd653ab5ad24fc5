//! The subcommands that ask a running server and end: `healthcheck` and `status`.
//!
//! **Invariant**: they change nothing, but that a look at the registry removes what is proven dead, as every look does.
//! **Thread**: `main`; the registry is read by a scanner's thread.
//! **Bounds**: `QUERY_TIME_MAX`, `WARM_UP_MAX`; a column is at most `COLUMN_MAX` wide.
//! Left out on purpose: https, which belongs to the proxy in front.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use std::{io, thread};

use serde_json::{Value, json};

use crate::deadline::Deadline;
use crate::endpoint::access::Access;
use crate::gateway::names;
use crate::http::client::{Outgoing, Pool};
use crate::http::client_error::ClientError;
use crate::json;
use crate::limits::{QUERY_TIME_MAX, WARM_UP_MAX};
use crate::registry::Instance;
use crate::registry::entry::split_url;
use crate::registry::store::Store;
use crate::scanner::{Scanner, Settings};

/// Why there is no good answer.
#[derive(Debug)]
pub enum QueryError {
    Url(String),
    NoAnswer { url: String, source: ClientError },
    Status { url: String, status: u16 },
    NotOurs { url: String },
    TokenFile { path: PathBuf, source: io::Error },
    Registry { path: PathBuf, error: String },
}

/// Asks for 200 at the URL.
pub fn healthcheck(url: &str) -> Result<(), QueryError> {
    get(url, None).map(drop)
}

/// The live instances as the gateway tells them (`{"total":N,"instances":[…]}`), or as the registry does when no gateway
/// listens.
pub fn instances(
    gateway: Option<SocketAddr>,
    token_file: Option<PathBuf>,
    registry_dir: PathBuf,
    stale_timeout: Duration,
) -> Result<Value, QueryError> {
    if let Some(gateway) = gateway {
        match instances_of_gateway(gateway, token_file) {
            Err(QueryError::NoAnswer { source: ClientError::Connect { .. }, .. }) => {}
            told => return told,
        }
    }
    instances_of_registry(registry_dir, stale_timeout)
}

/// The instances as columns for people.
pub fn table(told: &Value) -> String {
    const COLUMNS: [(&str, &str); 7] = [
        ("TYPE", "dcc_type"),
        ("ID", "short_id"),
        ("ADDRESS", "host"),
        ("STATUS", "status"),
        ("NAME", "display_name"),
        ("VERSION", "version"),
        ("SCENE", "scene"),
    ];
    let mut rows = vec![COLUMNS.map(|(title, _)| title.to_owned())];
    for instance in told["instances"].as_array().into_iter().flatten() {
        rows.push(COLUMNS.map(|(_, key)| match key {
            "host" => cell(&format!("{}:{}", instance["host"].as_str().unwrap_or_default(), instance["port"])),
            key => cell(instance[key].as_str().unwrap_or_default()),
        }));
    }
    let widest = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..COLUMNS.len()).map(widest).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  ", width = *width));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

const COLUMN_MAX: usize = 48;

/// What an instance says of itself, so that it cannot write to the terminal.
fn cell(text: &str) -> String {
    let visible = text.chars().map(|letter| if letter.is_control() { '?' } else { letter });
    let shown: String = visible.take(COLUMN_MAX).collect();
    if shown.is_empty() { "-".to_owned() } else { shown }
}

fn instances_of_gateway(gateway: SocketAddr, token_file: Option<PathBuf>) -> Result<Value, QueryError> {
    let token = match token_file {
        None => None,
        Some(path) => {
            let access = Access::new(IpAddr::V4(Ipv4Addr::LOCALHOST), vec![], vec![], Some(path.clone()));
            access.map_err(|source| QueryError::TokenFile { path, source })?.own_token()
        }
    };
    let url = format!("http://{gateway}/instances");
    let body = get(&url, token.as_deref())?;
    let told: Option<Value> = json::read(&body).ok();
    told.filter(|told| told["instances"].is_array()).ok_or(QueryError::NotOurs { url })
}

fn instances_of_registry(registry_dir: PathBuf, stale_timeout: Duration) -> Result<Value, QueryError> {
    let error = |error: String| QueryError::Registry { path: registry_dir.clone(), error };
    let settings = Settings { own_id: None, stale_timeout, can_write: Box::new(|| true) };
    let scanner = Scanner::start(Store::open(&registry_dir), settings, Box::new(|_| {}));
    let scanner = scanner.map_err(|source| error(source.to_string()))?;
    let deadline = Deadline::after(WARM_UP_MAX);
    let mut view = scanner.latest();
    while !view.complete && view.error.is_none() && !deadline.has_passed() {
        thread::sleep(Duration::from_millis(10));
        view = scanner.latest();
    }
    match (&view.error, view.scanned) {
        (Some(problem), _) => return Err(error(problem.clone())),
        (None, None) => return Err(error(format!("no answer within {} s", WARM_UP_MAX.as_secs()))),
        (None, Some(_)) => {}
    }
    let instances: Vec<Value> = view.instances.iter().map(|instance| shown(instance)).collect();
    Ok(json!({"total": instances.len(), "instances": instances}))
}

fn shown(instance: &Instance) -> Value {
    let mut shown = serde_json::to_value(&*instance.entry).unwrap_or_default();
    shown["dcc_type"] = instance.dcc().into();
    shown["short_id"] = names::short(&instance.entry.instance_id).into();
    shown
}

fn get(url: &str, token: Option<&str>) -> Result<Vec<u8>, QueryError> {
    let (host, port, path) = split_url(url).ok_or_else(|| QueryError::Url(url.to_owned()))?;
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
    let request =
        Outgoing { method: "GET", target: path, written: None, headers: &headers, body: &[], idempotent: true };
    let answer = Pool::new(host, port).ask(&request, Deadline::after(QUERY_TIME_MAX));
    let (head, body) = answer.map_err(|source| QueryError::NoAnswer { url: url.to_owned(), source })?;
    match head.status() {
        200 => Ok(body),
        status => Err(QueryError::Status { url: url.to_owned(), status }),
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueryError::Url(url) => write!(f, "{url:?} is not a URL of this server"),
            QueryError::NoAnswer { url, source } => write!(f, "no answer from {url}: {source}"),
            QueryError::Status { url, status: 401 } => write!(f, "{url} asks for a token; give --auth-token-file"),
            QueryError::Status { url, status } => write!(f, "{url} answered {status}"),
            QueryError::NotOurs { url } => write!(f, "{url} is served by another program"),
            QueryError::TokenFile { path, source } => {
                write!(f, "the token file {} cannot be used: {source}", path.display())
            }
            QueryError::Registry { path, error } => {
                write!(f, "the registry {} cannot be read: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for QueryError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let told = json!({"total": 2, "instances": [
            {"dcc_type": "maya", "short_id": "0f8fad5b", "host": "10.0.0.1", "port": 18812, "status": "available",
             "display_name": "Rig", "version": "2026", "scene": "/shots/010.ma"},
            {"dcc_type": "x\u{1b}[31m", "short_id": "11111111", "host": "h", "port": 1, "status": "busy", "version": null},
        ]});
        let expected = "\
TYPE    ID        ADDRESS         STATUS     NAME  VERSION  SCENE
maya    0f8fad5b  10.0.0.1:18812  available  Rig   2026     /shots/010.ma
x?[31m  11111111  h:1             busy       -     -        -
";
        assert_eq!(table(&told), expected);
        assert_eq!(cell(&"x".repeat(100)).len(), COLUMN_MAX);
    }

    #[test]
    fn nobody_listens_and_nobody_is_registered() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(matches!(healthcheck(&format!("http://{port}/health")), Err(QueryError::NoAnswer { .. })));
        let folder = std::env::temp_dir().join(format!("dcc-mcp-query-test-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let told = instances(Some(port), None, folder.clone(), Duration::from_secs(30)).unwrap();
        assert_eq!(told, json!({"total": 0, "instances": []}));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
