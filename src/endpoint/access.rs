//! Who may speak to us: Host, Origin and token, checked before a body is read.
//!
//! A web page can make a browser send requests to loopback; that is what the Host and Origin checks stop (DNS
//! rebinding). The two are never compared with each other: an attacker controls both.
//!
//! **Invariant**: a token is compared in constant time and appears in no message and no log.
//! **Thread**: the connection's; the token list is swapped as a whole on SIGHUP.
//! Left out on purpose: OAuth. TLS and identity providers belong to the proxy in front (docs).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::{fs, io};

use crate::http::head::RequestHead;
use crate::http::server::Refusal;

pub struct Access {
    /// Bound to loopback: `Host` must then name loopback or a listed host.
    loopback_only: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
    token_file: Option<PathBuf>,
    tokens: RwLock<Arc<Vec<String>>>,
}

impl Access {
    pub fn new(
        bound_to: IpAddr,
        hosts: Vec<String>,
        origins: Vec<String>,
        token_file: Option<PathBuf>,
    ) -> io::Result<Access> {
        let tokens = token_file.as_deref().map(read_tokens).transpose()?.unwrap_or_default();
        let loopback_only = bound_to.is_loopback();
        Ok(Access { loopback_only, hosts, origins, token_file, tokens: RwLock::new(Arc::new(tokens)) })
    }

    /// Reads the token file again; on an error the former tokens stay.
    pub fn reload(&self) -> io::Result<()> {
        if let Some(file) = &self.token_file {
            *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read_tokens(file)?);
        }
        Ok(())
    }

    /// The token that we present to instances of our own kind: the first one.
    pub fn own_token(&self) -> Option<String> {
        self.token_file.as_ref().and_then(|_| self.current_tokens().first().cloned())
    }

    /// 403 unless `Host` and `Origin` are allowed.
    pub fn check_names(&self, request: &RequestHead) -> Result<(), Refusal> {
        let host = request.header("host").unwrap_or_default();
        if !self.host_is_allowed(host) {
            return Err(forbidden("host_not_allowed", "this Host is not served here; add it to --allowed-hosts"));
        }
        match request.header("origin") {
            Some(origin) if !self.origin_is_allowed(origin) => {
                Err(forbidden("origin_not_allowed", "this Origin is not served here; add it to --allowed-origins"))
            }
            _ => Ok(()),
        }
    }

    /// 401 unless a token is presented, where tokens are asked for.
    pub fn check_token(&self, request: &RequestHead) -> Result<(), Refusal> {
        if self.token_file.is_none() {
            return Ok(());
        }
        let presented = request.header("authorization").and_then(bearer).unwrap_or_default();
        // All are compared, so that the time does not tell which one was close.
        let known = self.current_tokens().iter().fold(false, |known, token| known | equal(token, presented));
        if known {
            return Ok(());
        }
        let message = "this server wants \"Authorization: Bearer <token>\" with a token of its --auth-token-file";
        Err(Refusal { status: 401, code: "unauthorized", message: message.to_owned() })
    }

    pub fn origin_is_allowed(&self, origin: &str) -> bool {
        let host = origin.split_once("://").map(|(_, host)| without_port(host));
        host.is_some_and(names_loopback) || self.origins.iter().any(|listed| listed.eq_ignore_ascii_case(origin))
    }

    fn host_is_allowed(&self, host: &str) -> bool {
        let name = without_port(host);
        let listed = |listed: &String| listed.eq_ignore_ascii_case(host) || listed.eq_ignore_ascii_case(name);
        let anything_goes = !self.loopback_only && self.hosts.is_empty();
        anything_goes || names_loopback(name) || self.hosts.iter().any(listed)
    }

    fn current_tokens(&self) -> Arc<Vec<String>> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One token a line; blank lines and lines beginning with `#` are left out.
fn read_tokens(file: &Path) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(file)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let tokens: Vec<String> = lines.map(str::to_owned).collect();
    if tokens.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no token; put one on each line"));
    }
    Ok(tokens)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn equal(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let differs = left.iter().zip(right).fold(0u8, |differs, (a, b)| differs | (a ^ b));
    std::hint::black_box(differs) == 0 && left.len() == right.len()
}

/// `[::1]:80` → `[::1]`, `localhost:80` → `localhost`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()) => {
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

fn names_loopback(name: &str) -> bool {
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn forbidden(code: &'static str, message: &str) -> Refusal {
    Refusal { status: 403, code, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(bound_to: &str, hosts: &[&str]) -> Access {
        let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect();
        Access::new(bound_to.parse().unwrap(), owned(hosts), owned(&["https://studio.example"]), None).unwrap()
    }

    #[test]
    fn hosts() {
        for (bound_to, hosts, host, allowed) in [
            ("127.0.0.1", vec![], "localhost:9765", true),
            ("127.0.0.1", vec![], "LocalHost", true),
            ("127.0.0.1", vec![], "127.9.9.9:1", true),
            ("127.0.0.1", vec![], "[::1]:9765", true),
            ("::1", vec![], "[::1]", true),
            ("127.0.0.1", vec![], "evil.example", false),
            ("127.0.0.1", vec![], "evil.example:9765", false),
            ("127.0.0.1", vec![], "localhost.evil.example", false),
            ("127.0.0.1", vec![], "127.0.0.1.evil.example:80", false),
            ("127.0.0.1", vec![], "", false),
            ("127.0.0.1", vec!["mcp.studio"], "mcp.studio:443", true),
            ("0.0.0.0", vec![], "anything.example", true),
            ("0.0.0.0", vec!["mcp.studio"], "anything.example", false),
            ("0.0.0.0", vec!["mcp.studio"], "localhost:1", true),
        ] {
            assert_eq!(access(bound_to, &hosts).host_is_allowed(host), allowed, "{bound_to} {hosts:?} {host}");
        }
    }

    #[test]
    fn origins() {
        let access = access("127.0.0.1", &[]);
        for (origin, allowed) in [
            ("http://localhost:6274", true),
            ("http://127.0.0.1", true),
            ("http://[::1]:3000", true),
            ("https://studio.example", true),
            ("https://studio.example:8443", false),
            ("http://studio.example", false),
            ("null", false),
            ("", false),
            ("http://localhost.evil.example", false),
            ("https://evil.example", false),
        ] {
            assert_eq!(access.origin_is_allowed(origin), allowed, "{origin}");
        }
    }

    #[test]
    fn tokens_are_equal_only_to_themselves() {
        for (left, right, same) in [("a", "a", true), ("a", "b", false), ("a", "", false), ("ab", "a", false)] {
            assert_eq!(equal(left, right), same, "{left} {right}");
        }
        assert_eq!(bearer("bearer  x "), Some("x"));
        assert_eq!(bearer("Basic x"), None);
    }
}
