//! Whether a listener of ours answers, asked as a client would ask.
//!
//! **Thread**: the caller's; it waits for at most `SELF_PROBE_TIME_MAX`.
//! Left out on purpose: what follows from the answer (`election.rs`, `heartbeat.rs`, `app.rs`).

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;

use crate::deadline::Deadline;
use crate::http::client::{Outgoing, Pool};
use crate::http::client_error::ClientError;
use crate::limits::SELF_PROBE_TIME_MAX;

/// What asking a listener of ours has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Answers,
    Silent,
    /// We lacked what it takes to ask (descriptors, ports, memory); that says nothing about the listener.
    NotAsked,
}

/// Whether a listener of ours answers `GET /health` in time.
pub fn answers(address: SocketAddr) -> bool {
    probe(address) == Probe::Answers
}

/// Asks a listener of ours for `GET /health`, on a connection that is closed at once.
pub fn probe(address: SocketAddr) -> Probe {
    let address = reachable(address);
    let pool = Pool::new(&address.ip().to_string(), address.port());
    let request =
        Outgoing { method: "GET", target: "/health", written: None, headers: &[], body: &[], idempotent: true };
    shown(&pool.ask(&request, Deadline::after(SELF_PROBE_TIME_MAX)).map(|(head, _)| head.status()))
}

/// Any status is an answer. So is a refusal because all places are taken, even where it is cut off before it is read:
/// full is not dead, and clients must not be able to make it so. Nor is a process dead that lacks the descriptor to ask.
fn shown(outcome: &Result<u16, ClientError>) -> Probe {
    let is_short = |source: &io::Error| {
        let code = source.raw_os_error().map(Errno::from_raw_os_error);
        matches!(code, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL))
    };
    match outcome {
        Ok(_) | Err(ClientError::Closed { .. } | ClientError::Write { .. }) => Probe::Answers,
        Err(ClientError::Connect { source, .. }) if is_short(source) => Probe::NotAsked,
        _ => Probe::Silent,
    }
}

/// An address bound to all interfaces is reached on loopback.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn full_is_not_dead_and_a_probe_without_a_descriptor_shows_nothing() {
        let address = "127.0.0.1:9765".to_owned();
        let connect = |code: Errno| Err(ClientError::Connect { address: address.clone(), source: code.into() });
        let closed = ClientError::Closed { address: address.clone(), before_answer: true, was_pooled: false };
        let timeout = ClientError::Timeout { address: address.clone(), phase: "an answer", limit: Duration::ZERO };
        for (outcome, expected) in [
            (Ok(200), Probe::Answers),
            (Ok(503), Probe::Answers),
            (Ok(403), Probe::Answers),
            (Err(closed), Probe::Answers),
            (Err(timeout), Probe::Silent),
            (connect(Errno::CONNREFUSED), Probe::Silent),
            (connect(Errno::MFILE), Probe::NotAsked),
            (connect(Errno::NFILE), Probe::NotAsked),
            (connect(Errno::ADDRNOTAVAIL), Probe::NotAsked),
        ] {
            assert_eq!(shown(&outcome), expected, "{outcome:?}");
        }
    }

    #[test]
    fn all_interfaces_are_reached_on_loopback() {
        for (bound, probed) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.7:1", "10.0.0.7:1")] {
            assert_eq!(reachable(bound.parse().unwrap()), probed.parse().unwrap());
        }
    }
}
