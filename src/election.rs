//! Who serves the gateway port on this host: whoever can bind it. The others try again, and are ready all along.
//!
//! | we are  | bind succeeds            | address in use | another error             | listener stops answering |
//! |---------|--------------------------|----------------|---------------------------|--------------------------|
//! | standby | serve, prove it, gateway | try again      | tell `/readyz`, try again | –                        |
//! | gateway | –                        | –              | –                         | the process ends (app)   |
//!
//! **Invariant**: the role is claimed only after the own listener has answered. A resident is never disturbed. An
//! error other than "address in use" is not a lost election.
//! **Thread**: `election` owns the server of the gateway port.
//! **Bounds**: `BIND_RETRY_EVERY`, after other errors `BIND_PAUSE_AFTER_ERROR`.
//! Left out on purpose: agreement between hosts. Every replica has its own address and serves there.

pub mod step;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use rustix::io::Errno;

use crate::deadline::Deadline;
use crate::http::client::{Outgoing, Pool};
use crate::http::client_error::ClientError;
use crate::http::server::{Handler, Server, bind};
use crate::limits::{BIND_RETRY_EVERY, INBOX_MAX, SELF_PROBE_TIME_MAX, WORKER_STOP_MAX};
use crate::metrics;
use crate::worker::{Work, Worker};

const BIND_PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);
/// A gateway has nothing to try; it looks for orders.
const GATEWAY_TICK: Duration = Duration::from_secs(60);

pub struct Election {
    worker: Worker<Order>,
    failure: Arc<Mutex<Option<String>>>,
    serving: Arc<Mutex<Option<SocketAddr>>>,
}

pub struct Candidacy {
    pub address: SocketAddr,
    pub max_connections: usize,
    pub handler: Arc<dyn Handler>,
    /// Run when the port is bound and before anything on it is accepted: the first answer shall be complete.
    pub before_serving: Box<dyn Fn() + Send>,
    /// Told once the port is ours.
    pub on_won: Box<dyn Fn(SocketAddr) + Send>,
}

enum Order {
    /// Let go of the port; whoever was serving it is handed back to be drained.
    Resign(Sender<Option<Server>>),
}

/// What asking a listener of ours has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Answers,
    Silent,
    /// We lacked what it takes to ask (descriptors, ports, memory); that says nothing about the listener.
    NotAsked,
}

/// What one try to bind leads to.
#[derive(Debug, PartialEq)]
enum Step {
    Serve,
    TryAgain { after: Duration, failure: Option<String> },
}

fn step(bound: Result<(), &io::Error>, address: SocketAddr) -> Step {
    match bound {
        Ok(()) => Step::Serve,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Step::TryAgain { after: BIND_RETRY_EVERY, failure: None }
        }
        Err(error) => Step::TryAgain {
            after: BIND_PAUSE_AFTER_ERROR,
            failure: Some(format!("the gateway port {address} cannot be bound: {error}")),
        },
    }
}

impl Election {
    pub fn start(candidacy: Candidacy) -> io::Result<Election> {
        let (failure, serving) = (Arc::default(), Arc::default());
        let (noted, told) = (Arc::clone(&failure), Arc::clone(&serving));
        let candidate =
            Candidate { candidacy, server: None, failure: noted, serving: told, first: true, has_resigned: false };
        Ok(Election { worker: Worker::start("election", INBOX_MAX, candidate)?, failure, serving })
    }

    /// Where we serve as the gateway, if we do.
    pub fn serving(&self) -> Option<SocketAddr> {
        *lock(&self.serving)
    }

    /// What keeps us from competing, if anything does.
    pub fn health(&self) -> Result<(), String> {
        lock(&self.failure).clone().map_or(Ok(()), Err)
    }

    /// Stops accepting on the gateway port and ends the candidacy; the server, if we had won, is to be drained.
    pub fn resign(&self) -> Option<Server> {
        let (tell, told) = bounded(1);
        self.worker.send_within(Order::Resign(tell), WORKER_STOP_MAX);
        let server = told.recv_timeout(WORKER_STOP_MAX).ok().flatten();
        self.worker.stop();
        server
    }
}

struct Candidate {
    candidacy: Candidacy,
    server: Option<Server>,
    failure: Arc<Mutex<Option<String>>>,
    serving: Arc<Mutex<Option<SocketAddr>>>,
    first: bool,
    has_resigned: bool,
}

impl Work for Candidate {
    type Message = Order;

    fn receive(&mut self, Order::Resign(tell): Order) {
        self.has_resigned = true;
        *lock(&self.serving) = None;
        let server = self.server.take();
        if let Some(server) = &server {
            server.stop_accepting();
            metrics::GATEWAY_LEADER.set(0);
        }
        let _ = tell.send(server);
    }

    fn tick(&mut self) -> Duration {
        // Nothing to try: the port is ours, or is to be left to others.
        if self.server.is_some() || self.has_resigned {
            return GATEWAY_TICK;
        }
        let address = self.candidacy.address;
        let bound = bind(address);
        match (step(bound.as_ref().map(|_| ()), address), bound) {
            (Step::Serve, Ok(listener)) => self.serve(listener),
            (Step::TryAgain { after, failure }, _) => {
                self.note(failure);
                std::mem::take(&mut self.first).then(|| log::info!("event=standby address={address}"));
                after
            }
            (Step::Serve, Err(_)) => unreachable!("a step to serve comes from a listener"),
        }
    }
}

impl Candidate {
    fn serve(&mut self, listener: TcpListener) -> Duration {
        let Candidacy { max_connections, handler, before_serving, on_won, address } = &self.candidacy;
        before_serving();
        let started = Server::start("gateway", listener, *max_connections, Arc::clone(handler))
            .map_err(|error| format!("the gateway port {address} cannot be served: {error}"));
        let proven = started.and_then(|server| match answers(server.address()) {
            true => Ok(server),
            false => {
                server.stop_accepting();
                Err(format!("the gateway port {address} was bound, but does not answer"))
            }
        });
        match proven {
            Ok(server) => {
                let address = server.address();
                log::info!("event=gateway address={address}");
                metrics::GATEWAY_LEADER.set(1);
                if !std::mem::take(&mut self.first) {
                    metrics::TAKEOVERS.add(1);
                }
                self.server = Some(server);
                *lock(&self.serving) = Some(address);
                self.note(None);
                on_won(address);
                GATEWAY_TICK
            }
            Err(failure) => {
                self.note(Some(failure));
                BIND_PAUSE_AFTER_ERROR
            }
        }
    }

    /// Logs a failure when it is a new one.
    fn note(&self, failure: Option<String>) {
        let mut noted = lock(&self.failure);
        if let Some(failure) = failure.as_ref().filter(|failure| noted.as_ref() != Some(failure)) {
            log::error!("event=gateway_port_failed error=\"{failure}\"");
        }
        *noted = failure;
    }
}

/// Whether a listener of ours answers `GET /health` in time.
pub fn answers(address: SocketAddr) -> bool {
    probe(address) == Probe::Answers
}

/// Asks a listener of ours for `GET /health`, on a connection that is closed at once.
pub fn probe(address: SocketAddr) -> Probe {
    let address = reachable(address);
    let pool = Pool::new(&address.ip().to_string(), address.port());
    let request = Outgoing { method: "GET", target: "/health", headers: &[], body: &[], idempotent: true };
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
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_address_in_use_is_a_lost_election() {
        let address: SocketAddr = "127.0.0.1:9765".parse().unwrap();
        let after = |kind: io::ErrorKind| step(Err(&kind.into()), address);
        assert_eq!(step(Ok(()), address), Step::Serve);
        assert_eq!(after(io::ErrorKind::AddrInUse), Step::TryAgain { after: BIND_RETRY_EVERY, failure: None });
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::AddrNotAvailable, io::ErrorKind::Other] {
            assert!(matches!(after(kind), Step::TryAgain { failure: Some(text), .. } if text.contains("9765")));
        }
    }

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

    #[test]
    fn who_has_resigned_leaves_the_port_to_others() {
        struct Nobody;
        impl Handler for Nobody {
            fn handle(&self, _: &crate::http::head::RequestHead, _: &mut crate::http::server::Exchange<'_>) {}
        }
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let candidacy = Candidacy {
            address: held.local_addr().unwrap(),
            max_connections: 1,
            handler: Arc::new(Nobody),
            before_serving: Box::new(|| panic!("it must not serve")),
            on_won: Box::new(|_| {}),
        };
        let (failure, serving) = (Arc::default(), Arc::default());
        let mut candidate = Candidate { candidacy, server: None, failure, serving, first: true, has_resigned: false };
        assert_eq!(candidate.tick(), BIND_RETRY_EVERY);
        candidate.receive(Order::Resign(bounded(1).0));
        drop(held);
        assert_eq!(candidate.tick(), GATEWAY_TICK);
    }
}
