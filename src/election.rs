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

pub mod passing;
pub mod probe;
pub mod step;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::backoff::Backoff;
use crate::election::passing::{Followed, Name, Word};
use crate::election::step::{Action, Event, Holds, Node, Pause, decide, pause_for};
use crate::http::server::{Handler, Server, bind};
use crate::limits::{BIND_RETRY_EVERY, FAREWELL_TIME_MAX, HANDOVER_GRACE, INBOX_MAX, WORKER_STOP_MAX, YIELD_PAUSE};
use crate::metrics;
use crate::version::Version;
use crate::worker;

/// Nothing is due; descriptors and orders wake the thread.
const LONG: Duration = Duration::from_secs(60);
/// A gateway without the name tries to take it, so that it can have standbys.
const NAME_RETRY_EVERY: Duration = Duration::from_secs(1);

pub struct Election {
    orders: Sender<Order>,
    bell: UnixStream,
    ended: Receiver<()>,
    failure: Arc<Mutex<Option<String>>>,
    serving: Arc<Mutex<Option<SocketAddr>>>,
}

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
    pub on_taking: Box<dyn Fn(Option<&str>) + Send>,
    /// Told once the port is ours.
    pub on_won: Box<dyn Fn(SocketAddr) + Send>,
    /// Told when the port was given up for a newer version; the server is to be drained.
    pub on_yielded: Box<dyn Fn(Server) + Send>,
}

enum Order {
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
        let (failure, serving) = (Arc::default(), Arc::default());
        let (orders, received) = bounded(INBOX_MAX);
        let (bell, rung) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        rung.set_nonblocking(true)?;
        let (end, ended) = bounded::<()>(0);
        let candidate = Candidate::new(candidacy, Arc::clone(&failure), Arc::clone(&serving));
        worker::spawn("election", move || {
            candidate.run(&received, &rung);
            drop(end);
        })?;
        Ok(Election { orders, bell, ended, failure, serving })
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
        self.send(Order::Resign(tell));
        told.recv_timeout(WORKER_STOP_MAX).ok().flatten()
    }

    /// Hands the port over to a newer version, if it is ours to hand over.
    pub fn hand_over(&self, version: Version) -> Yielded {
        let (tell, told) = bounded(1);
        self.send(Order::Yield(version, tell));
        told.recv_timeout(WORKER_STOP_MAX).unwrap_or(Yielded::NotServing)
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

/// What the thread owns.
struct Candidate {
    candidacy: Candidacy,
    failure: Arc<Mutex<Option<String>>>,
    serving: Arc<Mutex<Option<SocketAddr>>>,
    holds: Holds,
    listener: Option<TcpListener>,
    /// The service manager has the socket too: it is not to be shut down.
    is_lent: bool,
    name: Option<Name>,
    /// While we serve.
    server: Option<Server>,
    /// While another serves that we know of.
    followed: Option<Followed>,
    /// The instance that served until it died.
    died: Option<String>,
    leaving: Option<Leaving>,
    /// When the port was last handed over.
    yielded: Option<Instant>,
    moments: Backoff,
    first: bool,
    has_resigned: bool,
}

/// We have left; standbys that live hang up.
struct Leaving {
    standbys: Vec<UnixStream>,
    listener: TcpListener,
    until: Instant,
}

impl Candidate {
    fn new(
        candidacy: Candidacy,
        failure: Arc<Mutex<Option<String>>>,
        serving: Arc<Mutex<Option<SocketAddr>>>,
    ) -> Candidate {
        Candidate {
            candidacy,
            failure,
            serving,
            holds: Holds::Nothing,
            listener: None,
            is_lent: false,
            name: None,
            server: None,
            followed: None,
            died: None,
            leaving: None,
            yielded: None,
            moments: Backoff::new(Pause::Moment.time(), BIND_RETRY_EVERY),
            first: true,
            has_resigned: false,
        }
    }

    fn run(mut self, orders: &Receiver<Order>, bell: &UnixStream) {
        let mut is_stopping = false;
        let mut due = Instant::now();
        while !(is_stopping && self.leaving.is_none()) {
            if Instant::now() >= due {
                due = Instant::now() + self.tick();
            }
            self.wait(bell, due);
            let _ = (&*bell).read(&mut [0; INBOX_MAX]);
            let mut sooner = self.hear();
            for order in orders.try_iter() {
                match order {
                    Order::Resign(tell) => {
                        let _ = tell.send(self.resign());
                        sooner = Some(Duration::ZERO);
                    }
                    Order::Yield(version, tell) => {
                        let yielded = self.hand_over(&version);
                        let _ = tell.send(yielded);
                        sooner = (yielded == Yielded::Done).then_some(HANDOVER_GRACE).or(sooner);
                    }
                    Order::Stop => is_stopping = true,
                }
            }
            if let Some(pause) = sooner {
                due = Instant::now() + pause;
            }
        }
    }

    /// Until something is due, an order has come, or somebody has something to say.
    fn wait(&self, bell: &UnixStream, due: Instant) {
        let mut fds = vec![PollFd::new(bell, PollFlags::IN)];
        let heard = self.followed.iter().map(Followed::descriptor).chain(self.name.iter().flat_map(Name::descriptors));
        fds.extend(heard.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // No flags: only that they hang up.
        let leaving = self.leaving.iter().flat_map(|leaving| &leaving.standbys);
        fds.extend(leaving.map(|stream| PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::empty())));
        let left = due.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        // A failed wait is made good by the next; a short sleep keeps it from spinning.
        if poll(&mut fds, Some(&left)).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What is due, and when the next is.
    fn tick(&mut self) -> Duration {
        if self.server.is_some() {
            let is_named = self.name.is_some() || self.take_name() == Event::NameTaken;
            return if is_named { LONG } else { NAME_RETRY_EVERY };
        }
        if self.has_resigned {
            return self.see_off();
        }
        self.pursue()
    }

    /// Goes from one action to the next until there is something to wait for.
    fn pursue(&mut self) -> Duration {
        if let (None, Some(given)) = (&self.listener, &self.candidacy.given) {
            self.listener = given.try_clone().ok();
            (self.holds, self.is_lent) = (Holds::Given, true);
        }
        let mut event = Event::Due;
        loop {
            let node = Node { holds: self.holds_now(), follows: self.followed.is_some() };
            event = match decide(node, event) {
                Action::Join => self.join(),
                Action::Bind => self.bind(),
                Action::TakeName => self.take_name(),
                Action::Serve => return self.serve(),
                Action::Follow => return LONG,
                Action::LetGo => {
                    self.listener = None;
                    return Pause::Retry.time();
                }
                Action::Wait(Pause::Moment) => return self.moments.failed(),
                Action::Wait(pause) => {
                    let address = self.candidacy.address;
                    std::mem::take(&mut self.first).then(|| log::info!("event=standby address={address}"));
                    return pause.time();
                }
            }
        }
    }

    fn holds_now(&self) -> Holds {
        if self.listener.is_some() { self.holds } else { Holds::Nothing }
    }

    fn join(&mut self) -> Event {
        match passing::join(self.candidacy.address, &self.candidacy.version) {
            Ok(followed) => {
                self.followed = Some(followed);
                Event::Joined
            }
            Err(event) => event,
        }
    }

    fn bind(&mut self) -> Event {
        let address = self.candidacy.address;
        match bind(address) {
            Ok(listener) => {
                (self.listener, self.holds, self.is_lent) = (Some(listener), Holds::Own, false);
                Event::Bound
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                self.note(None);
                Event::InUse
            }
            Err(error) => {
                self.note(Some(format!("the gateway port {address} cannot be bound: {error}")));
                Event::NotBound
            }
        }
    }

    fn take_name(&mut self) -> Event {
        let Some(listener) = &self.listener else { return Event::NoNames };
        match passing::take(listener, self.is_lent, &self.candidacy.instance_id) {
            Ok(name) => {
                self.name = Some(name);
                Event::NameTaken
            }
            Err(event) => event,
        }
    }

    /// Accepts at once; that it works is proven after that, and only then told.
    fn serve(&mut self) -> Duration {
        let Candidacy { max_connections, handler, on_taking, on_won, address, .. } = &self.candidacy;
        on_taking(self.died.take().as_deref());
        (self.followed, self.leaving) = (None, None);
        let duplicate =
            self.listener.as_ref().ok_or(io::ErrorKind::NotConnected.into()).and_then(TcpListener::try_clone);
        let started = duplicate
            .and_then(|listener| Server::start("gateway", listener, *max_connections, Arc::clone(handler)))
            .map_err(|error| format!("the gateway port {address} cannot be served: {error}"));
        let proven = started.and_then(|server| match probe::answers(server.address()) {
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
                self.moments.succeeded();
                *lock(&self.serving) = Some(address);
                self.note(None);
                on_won(address);
                if self.name.is_some() { LONG } else { NAME_RETRY_EVERY }
            }
            Err(failure) => {
                // Others shall have it.
                (self.name, self.listener) = (None, None);
                self.note(Some(failure));
                Pause::AfterError.time()
            }
        }
    }

    /// Listens to standbys, or to the gateway that is followed. `Some`: what is due changes to this.
    fn hear(&mut self) -> Option<Duration> {
        if let Some(name) = &mut self.name {
            name.look();
        }
        if self.leaving.is_some() {
            return Some(self.see_off());
        }
        let mut due = None;
        while let Some(word) = self.followed.as_mut().and_then(Followed::hear) {
            due = Some(self.take(word));
        }
        due
    }

    /// Acts on a word of the gateway that is followed; when to go on.
    fn take(&mut self, word: Word) -> Duration {
        let own = &self.candidacy.version;
        match word {
            Word::Listener { listener, is_lent } => {
                if self.holds_now() == Holds::Nothing {
                    (self.holds, self.is_lent) = (Holds::Shared, is_lent);
                    self.note(None);
                }
                if self.holds == Holds::Shared {
                    self.listener = Some(listener);
                }
                self.moments.succeeded();
                self.died = None;
                std::mem::take(&mut self.first).then(|| log::info!("event=standby address={}", self.candidacy.address));
                LONG
            }
            Word::Bye(version) => {
                self.followed = None;
                pause_for(Some(&version), own)
            }
            Word::Free(version) => {
                (self.followed, self.listener) = (None, None);
                pause_for(Some(&version), own)
            }
            Word::Gone => {
                let followed = self.followed.take();
                // The name may outlive the connection by a moment; who joined a dead gateway in that has heard no name.
                let told = followed.and_then(|followed| followed.instance_id().map(str::to_owned));
                self.died = told.or(self.died.take()).filter(|_| self.listener.is_some());
                // Without the listener there is no hurry; a gateway that turns us away must not be asked in a circle.
                if self.listener.is_some() { Duration::ZERO } else { BIND_RETRY_EVERY }
            }
        }
    }

    fn resign(&mut self) -> Option<Server> {
        self.has_resigned = true;
        self.followed = None;
        let server = self.end_reign();
        let (name, listener) = (self.name.take(), self.listener.take());
        if let (Some(name), Some(listener)) = (name, listener) {
            let version = name.newest_standby().unwrap_or(&self.candidacy.version).clone();
            let standbys = name.leave(&version);
            if !standbys.is_empty() && !self.is_lent {
                self.leaving = Some(Leaving { standbys, listener, until: Instant::now() + FAREWELL_TIME_MAX });
            }
        }
        server
    }

    /// Gives the port up for a newer version, and goes on as a standby that lets it go first.
    fn hand_over(&mut self, version: &Version) -> Yielded {
        if self.server.is_none() {
            return Yielded::NotServing;
        }
        if self.yielded.is_some_and(|at| at.elapsed() < YIELD_PAUSE) {
            return Yielded::TooSoon;
        }
        let has_listener = self.name.as_ref().is_some_and(|name| name.has_standby_of(version));
        if self.is_lent && !has_listener {
            return Yielded::NotOurs;
        }
        self.yielded = Some(Instant::now());
        let server = self.end_reign();
        let name = self.name.take();
        if has_listener {
            self.holds = if self.holds == Holds::Given { Holds::Given } else { Holds::Shared };
            drop(name.map(|name| name.leave(version)));
        } else {
            self.listener = None;
            name.into_iter().for_each(|name| name.free(version));
        }
        log::info!("event=yielded to={version} standby_has_listener={has_listener}");
        server.into_iter().for_each(|server| (self.candidacy.on_yielded)(server));
        Yielded::Done
    }

    /// Nothing more is accepted here when this returns.
    fn end_reign(&mut self) -> Option<Server> {
        *lock(&self.serving) = None;
        let server = self.server.take()?;
        server.stop_accepting();
        metrics::GATEWAY_LEADER.set(0);
        Some(server)
    }

    /// One standby that hangs up has heard that we left, and lives. If none does, all have been stopped or hang, and
    /// their duplicates would keep the port from everybody.
    fn see_off(&mut self) -> Duration {
        let Some(Leaving { standbys, listener, until }) = &self.leaving else { return LONG };
        let one_lives = standbys.iter().any(|stream| matches!((&mut &*stream).read(&mut [0; 64]), Ok(0)));
        let left = until.saturating_duration_since(Instant::now());
        if !one_lives && !left.is_zero() {
            return left;
        }
        if !one_lives {
            log::warn!("event=no_standby_answers address={} listener=shut_down", self.candidacy.address);
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
        }
        self.leaving = None;
        LONG
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, target_os = "linux", not(feature = "tiny-http")))]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::deadline::Deadline;
    use crate::http::head::RequestHead;
    use crate::http::server::Exchange;

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
        assert!(passing::is_tcp_listener(&given));
    }
}
