//! Who serves the gateway port on this host. What is decided, and when, is the table in `election/step.rs`; here it is done.
//!
//! A gateway gives its listener to the other processes of the same user (`election/passing.rs`). They wake when it dies
//! or leaves, one wins the name and accepts on the listener that it has already, so that no client is ever refused.
//! Where that cannot be (another user, another system, a foreign holder of the port) they try to bind the port again and
//! again.
//!
//! **Invariant**: no two processes accept on one address. The role is told to others only after the own listener has
//! answered. A resident is disturbed by a newer version alone. An error other than "address in use" is not a lost
//! election.
//! **Thread**: `election` owns the listener, the name and the server of the gateway port. It never waits for a standby.
//! **Bounds**: `BIND_RETRY_EVERY`, `STANDBYS_MAX`, `HANDOVER_GRACE`, `FAREWELL_TIME_MAX`, `YIELD_PAUSE`.
//! Left out on purpose: agreement between hosts, where every replica has its own address and serves there; and taking
//! the port from a gateway that is stopped as a whole (SIGSTOP), which would serve beside its successor when it wakes.

pub mod candidate;
pub mod listener;
pub mod passing;
pub mod probe;
pub mod step;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::election::candidate::Candidate;
use crate::http::server::{Handler, Server};
use crate::limits::{FAREWELL_TIME_MAX, INBOX_MAX, SELF_PROBE_TIME_MAX, WORKER_STOP_MAX};
use crate::logging::Quoted;
use crate::version::Version;
use crate::worker;

pub struct Election {
    orders: Sender<Order>,
    bell: UnixStream,
    ended: Receiver<()>,
    standing: Arc<Standing>,
}

pub type OnTaking = Box<dyn Fn(Option<&str>) + Send>;

/// What runs on the thread `election` must not wait.
pub struct Candidacy {
    pub address: SocketAddr,
    /// A socket of the service manager, listening at that address.
    pub given: Option<TcpListener>,
    pub version: Version,
    pub instance_id: String,
    pub max_connections: usize,
    pub handler: Arc<dyn Handler>,
    /// Run before anything is accepted, with the instance that served until it died, if one did.
    pub on_taking: OnTaking,
    /// Told once the port is ours.
    pub on_won: Box<dyn Fn(SocketAddr) + Send>,
    /// Told when the port was given up for a newer version; the server is to be drained.
    pub on_yielded: Box<dyn Fn(Server) + Send>,
}

pub enum Order {
    /// Let go of the port; whoever was serving it is handed back to be drained.
    Resign(Sender<Option<Server>>),
    /// Hand the port over to this version.
    Yield(Version, Sender<Yielded>),
    Stop,
}

/// What came of the wish to hand the port over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yielded {
    Done,
    NotServing,
    /// It was handed over not long ago, and came back.
    TooSoon,
    /// The socket is the service manager's, and the other process does not have it.
    NotOurs,
}

impl Election {
    pub fn start(candidacy: Candidacy) -> io::Result<Election> {
        let standing = Arc::new(Standing::default());
        let (orders, received) = bounded(INBOX_MAX);
        let (bell, rung) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        rung.set_nonblocking(true)?;
        let (end, ended) = bounded::<()>(0);
        let candidate = Candidate::new(candidacy, Arc::clone(&standing));
        worker::spawn("election", move || {
            candidate.run(&received, &rung);
            drop(end);
        })?;
        Ok(Election { orders, bell, ended, standing })
    }

    /// Where we serve as the gateway, if we do.
    pub fn serving(&self) -> Option<SocketAddr> {
        *lock(&self.standing.serving)
    }

    /// What keeps us from competing, if anything does.
    pub fn health(&self) -> Result<(), String> {
        lock(&self.standing.failure).clone().map_or(Ok(()), Err)
    }

    /// Stops accepting on the gateway port and ends the candidacy; the server, if we had won, is to be drained.
    pub fn resign(&self) -> Option<Server> {
        let (tell, told) = bounded(1);
        self.send(Order::Resign(tell));
        told.recv_timeout(ANSWER_TIME_MAX).ok().flatten()
    }

    /// Hands the port over to a newer version, if it is ours to hand over.
    pub fn hand_over(&self, version: Version) -> Yielded {
        let (tell, told) = bounded(1);
        self.send(Order::Yield(version, tell));
        told.recv_timeout(ANSWER_TIME_MAX).unwrap_or(Yielded::NotServing)
    }

    /// Ends the thread, after `resign`; waits until a standby has shown that it lives.
    pub fn stop(&self) {
        self.send(Order::Stop);
        if self.ended.recv_timeout(FAREWELL_TIME_MAX + WORKER_STOP_MAX) != Err(RecvTimeoutError::Disconnected) {
            log::warn!("thread=election did not stop in time");
        }
    }

    fn send(&self, order: Order) {
        if self.orders.send_timeout(order, WORKER_STOP_MAX).is_ok() {
            // Full: it has been rung often enough.
            let _ = (&self.bell).write(&[0]);
        }
    }
}

/// The thread may be about to prove that the listener answers. A server that is handed back to nobody would be cut off.
const ANSWER_TIME_MAX: Duration = SELF_PROBE_TIME_MAX.saturating_add(WORKER_STOP_MAX);

/// How we stand, for others to see.
#[derive(Default)]
pub struct Standing {
    failure: Mutex<Option<String>>,
    serving: Mutex<Option<SocketAddr>>,
}

impl Standing {
    pub fn set_serving(&self, address: Option<SocketAddr>) {
        *lock(&self.serving) = address;
    }

    /// Logs a failure when it is a new one.
    pub fn note(&self, failure: Option<String>) {
        let mut noted = lock(&self.failure);
        if let Some(failure) = failure.as_ref().filter(|failure| noted.as_ref() != Some(failure)) {
            log::error!("event=gateway_port_failed error={}", Quoted(&failure));
        }
        *noted = failure;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(target_os = "linux", not(feature = "tiny-http")))]
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::deadline::Deadline;
    use crate::http::head::RequestHead;
    use crate::http::server::Exchange;
    use crate::limits::HANDOVER_GRACE;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Answers with its number.
    struct Numbered(u16);

    impl Handler for Numbered {
        fn handle(&self, _: &RequestHead, exchange: &mut Exchange<'_>) {
            let _ = exchange.respond(200, &[("Connection", "close")], &[self.0.to_string().as_bytes()]);
        }
    }

    struct Member {
        election: Election,
        /// The instance that was said to have died, each time that the port was taken.
        takings: Receiver<Option<String>>,
        yielded: Receiver<()>,
    }

    fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
    }

    fn enter(address: SocketAddr, number: u16, version: &str) -> Member {
        let (take, takings) = bounded(16);
        let (hand_over, yielded) = bounded(16);
        let election = Election::start(Candidacy {
            address,
            given: None,
            version: Version::parse(version).expect("a version"),
            instance_id: format!("member-{number}"),
            max_connections: 64,
            handler: Arc::new(Numbered(number)),
            on_taking: Box::new(move |died| {
                let _ = take.try_send(died.map(str::to_owned));
            }),
            on_won: Box::new(|_| {}),
            on_yielded: Box::new(move |server| {
                server.drain(Deadline::after(Duration::ZERO));
                let _ = hand_over.try_send(());
            }),
        });
        Member { election: election.expect("a thread can be started"), takings, yielded }
    }

    fn until(what: &str, condition: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Who answers; it never happens that nobody listens.
    fn ask(address: SocketAddr) -> u16 {
        let mut stream = TcpStream::connect(address).expect("not refused");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer.rsplit("\r\n").next().and_then(|number| number.parse().ok()).expect("a number")
    }

    #[test]
    fn one_goes_on_where_another_leaves_and_nobody_is_refused() {
        let address = free_address();
        let mut members = vec![enter(address, 0, "1.0.0")];
        until("the first serves", || members[0].election.serving() == Some(address));
        for number in 1..12 {
            members.push(enter(address, number, "1.0.0"));
            // The port cannot be bound as long as it is served: that they wake says that they were given the listener.
            std::thread::sleep(Duration::from_millis(150));
            until("one serves", || members.iter().any(|member| member.election.serving().is_some()));
            let leaving = members.iter().position(|member| member.election.serving().is_some()).expect("one serves");
            assert_eq!(members.iter().filter(|member| member.election.serving().is_some()).count(), 1);
            let leaving = members.swap_remove(leaving);
            let server = leaving.election.resign().expect("it has served");
            ask(address);
            assert!(leaving.takings.try_iter().all(|died| died.is_none()), "none has died");
            server.drain(Deadline::after(Duration::ZERO));
            leaving.election.stop();
        }
        assert!(
            members.iter().flat_map(|member| member.takings.try_iter()).all(|died| died.is_none()),
            "none has died"
        );
    }

    #[test]
    fn a_newer_version_is_let_go_first_and_keeps_the_port() {
        let address = free_address();
        let old = [enter(address, 0, "1.9.0"), enter(address, 1, "1.9.0"), enter(address, 2, "1.10.0-rc.1")];
        until("one serves", || old.iter().any(|member| member.election.serving().is_some()));
        let new = enter(address, 7, "1.10.0");
        let serving = || old.iter().find(|member| member.election.serving().is_some()).expect("an old one serves");
        // It is known as a standby once it has the listener.
        std::thread::sleep(Duration::from_millis(200));
        let resident = serving();
        let version = Version::parse("1.10.0").expect("a version");
        assert_eq!(new.election.hand_over(version.clone()), Yielded::NotServing);
        assert_eq!(resident.election.hand_over(version.clone()), Yielded::Done);
        assert_eq!(ask(address), 7);
        assert_eq!(resident.yielded.try_iter().count(), 1);
        std::thread::sleep(HANDOVER_GRACE + Duration::from_millis(300));
        assert_eq!(ask(address), 7, "the older ones do not take it back");

        drop(new.election.resign());
        new.election.stop();
        assert!(ask(address) < 3, "they are its standbys");
    }

    #[test]
    fn a_port_that_was_given_up_for_nobody_comes_back_and_is_kept_for_a_while() {
        let address = free_address();
        let [one, other] = [enter(address, 0, "1.0.0"), enter(address, 1, "1.0.0")];
        until("one serves", || one.election.serving().or(other.election.serving()).is_some());
        let resident = if one.election.serving().is_some() { &one } else { &other };
        let version = Version::parse("9.0.0").expect("a version");
        assert_eq!(resident.election.hand_over(version.clone()), Yielded::Done);
        assert!(TcpStream::connect(address).is_err(), "for one without a duplicate the port itself is let go");
        until("one serves again", || one.election.serving().or(other.election.serving()).is_some());
        if resident.election.serving().is_some() {
            assert_eq!(resident.election.hand_over(version), Yielded::TooSoon);
        }
    }

    /// It went round and round without a pause instead.
    #[test]
    fn an_election_that_nobody_holds_any_more_ends() {
        let address = free_address();
        let member = enter(address, 0, "1.0.0");
        until("it serves", || member.election.serving().is_some());
        drop(member);
        until("the port is free again", || TcpListener::bind(address).is_ok());
    }

    #[test]
    fn a_given_socket_is_served_and_handed_on_but_never_shut_down() {
        let given = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = given.local_addr().expect("it has an address");
        let start = |number, given: Option<&TcpListener>| {
            let candidacy = Candidacy {
                address,
                given: given.map(|given| given.try_clone().expect("a duplicate")),
                version: Version::parse("1.0.0").expect("a version"),
                instance_id: format!("member-{number}"),
                max_connections: 64,
                handler: Arc::new(Numbered(number)),
                on_taking: Box::new(|_| {}),
                on_won: Box::new(|_| {}),
                on_yielded: Box::new(drop),
            };
            Election::start(candidacy).expect("a thread can be started")
        };
        let service = start(0, Some(&given));
        until("it serves", || service.serving().is_some());
        let standby = start(1, None);
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(service.hand_over(Version::parse("9.0.0").expect("a version")), Yielded::NotOurs);
        drop(service.resign());
        service.stop();
        assert_eq!(ask(address), 1);
        let again = start(2, Some(&given));
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!((again.serving(), ask(address)), (None, 1), "a resident of the same version is not disturbed");
        drop(standby.resign());
        standby.stop();
        assert_eq!(ask(address), 2);
        drop(again.resign());
        again.stop();
        assert!(listener::is_tcp_listener(&given));
    }
}
