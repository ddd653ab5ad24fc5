//! What an observer may ask about the world beside the files themselves, as a trait, so that tests can invent one.
//!
//! **Invariant**: asking never waits: a port is probed in the background, and the answer is there at a later scan. No answer
//! is older than what it is asked for.
//! **Thread**: `probe`, one for each port that is being probed; it ends with its answer.
//! **Bounds**: `PROBES_MAX`, `PROBE_TIME_MAX`. A name that resolves slowly keeps its thread that long, and no other.
//! Left out on purpose: what the answers mean (`registry.rs`).

use std::collections::HashMap;
use std::net::{IpAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::limits::{PROBE_TIME_MAX, PROBES_MAX};
use crate::registry::foreign;
use crate::{os, worker};

pub trait Facts {
    /// Where pids can be compared.
    fn host_id(&self) -> &str;

    /// True only if proven.
    fn process_is_gone(&self, pid: u32, start: Option<u64>) -> bool;

    /// Whether an advertised address is of this machine, as far as one can tell.
    fn is_this_host(&self, host: &str) -> bool;

    /// Whether somebody has accepted connections there since then; `None` while that is not known.
    fn port_answers(&self, host: &str, port: u16, since: Instant) -> Option<bool>;

    /// Whether the registry takes what we write; where it does not, no silence says anything.
    fn can_write(&self) -> bool;

    /// Whether a lock file in `locks/` is held; `None` if that cannot be told.
    fn lock_is_held(&self, name: &str) -> Option<bool>;
}

/// Asked whether the registry takes what this process writes.
pub type CanWrite = Box<dyn Fn() -> bool + Send>;

/// The world as it is.
pub struct HostFacts {
    root: PathBuf,
    can_write: CanWrite,
    own_address: Option<IpAddr>,
    own_name: Option<String>,
    probes: Arc<Mutex<Probes>>,
}

/// Ports asked about: since when, and `None` while the probe is under way. An answer is taken out by whoever asks next.
type Probes = HashMap<(String, u16), (Instant, Option<bool>)>;

impl HostFacts {
    /// `root` is the registry folder, for its locks.
    pub fn new(root: PathBuf, can_write: CanWrite) -> HostFacts {
        let (own_address, own_name) = (os::outward_address(), os::hostname());
        HostFacts { root, can_write, own_address, own_name, probes: Arc::default() }
    }
}

impl Facts for HostFacts {
    fn host_id(&self) -> &str {
        os::host_id()
    }

    fn process_is_gone(&self, pid: u32, start: Option<u64>) -> bool {
        os::process_is_gone(pid, start)
    }

    fn is_this_host(&self, host: &str) -> bool {
        match host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback() || Some(address) == self.own_address,
            Err(_) => host.eq_ignore_ascii_case("localhost") || self.own_name.as_deref() == Some(host),
        }
    }

    fn port_answers(&self, host: &str, port: u16, since: Instant) -> Option<bool> {
        let key = (host.to_owned(), port);
        let mut probes = lock(&self.probes);
        match probes.get(&key).copied() {
            Some((_, None)) => return None,
            Some((asked, answer)) => {
                probes.remove(&key);
                // Whoever asked may have lost interest, long ago.
                if asked >= since {
                    return answer;
                }
            }
            None => {}
        }
        // Answers that nobody came back for.
        if probes.len() >= PROBES_MAX {
            probes.retain(|_, (_, answer)| answer.is_none());
        }
        if probes.len() < PROBES_MAX {
            let now = Instant::now();
            probes.insert(key.clone(), (now, None));
            drop(probes);
            self.start_probe(key, now);
        }
        None
    }

    fn can_write(&self) -> bool {
        (self.can_write)()
    }

    fn lock_is_held(&self, name: &str) -> Option<bool> {
        foreign::lock_is_held(&self.root, name)
    }
}

impl HostFacts {
    fn start_probe(&self, key: (String, u16), asked: Instant) {
        let (probes, probed) = (self.probes.clone(), key.clone());
        let started = worker::spawn("probe", move || {
            let answer = accepts(&probed.0, probed.1);
            lock(&probes).insert(probed, (asked, Some(answer)));
        });
        if started.is_err() {
            // Out of threads: to be asked again.
            lock(&self.probes).remove(&key);
        }
    }
}

fn accepts(host: &str, port: u16) -> bool {
    let Ok(addresses) = os::addresses(host, port) else { return false };
    addresses.iter().take(2).any(|address| TcpStream::connect_timeout(address, PROBE_TIME_MAX).is_ok())
}

fn lock(probes: &Mutex<Probes>) -> MutexGuard<'_, Probes> {
    probes.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn ports_are_probed_in_the_background() {
        let facts = HostFacts::new(std::env::temp_dir(), Box::new(|| true));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be bound");
        let port = listener.local_addr().expect("it has an address").port();
        assert_eq!(ask(&facts, port), Some(true));
        drop(listener);
        assert_eq!(ask(&facts, port), Some(false));
    }

    /// In a run of `make chaos`, what was found out while a host was cut off hid its instances much later, when a full disk
    /// made their ports matter again.
    #[test]
    fn an_answer_that_nobody_came_for_is_not_believed_later() {
        let facts = HostFacts::new(std::env::temp_dir(), Box::new(|| true));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be bound");
        let port = listener.local_addr().expect("it has an address").port();
        assert_eq!(facts.port_answers("127.0.0.1", port, Instant::now()), None);
        let patience = Instant::now() + Duration::from_secs(5);
        while lock(&facts.probes).values().all(|(_, answer)| answer.is_none()) {
            assert!(Instant::now() < patience, "it is found out");
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(listener);
        assert_eq!(ask(&facts, port), Some(false));
    }

    fn ask(facts: &HostFacts, port: u16) -> Option<bool> {
        let since = Instant::now();
        assert_eq!(facts.port_answers("127.0.0.1", port, since), None, "the first question only starts the probe");
        while since.elapsed() < Duration::from_secs(5) {
            if let Some(answer) = facts.port_answers("127.0.0.1", port, since) {
                return Some(answer);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    #[test]
    fn own_addresses() {
        let facts = HostFacts::new(std::env::temp_dir(), Box::new(|| true));
        for host in ["127.0.0.1", "127.3.2.1", "::1", "localhost"] {
            assert!(facts.is_this_host(host), "{host}");
        }
        assert!(!facts.is_this_host("192.0.2.77") && !facts.is_this_host("no-such-host.example"));
    }
}
