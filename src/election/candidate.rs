//! A process in the election: what the thread `election` owns, and how it does what `election/step.rs` decides.
//!
//! **Invariant**: nothing here waits for another process, but for the proof that the own listener answers.
//! **Thread**: `election`.
//! **Bounds**: `BIND_RETRY_EVERY`, `HANDOVER_GRACE`, `FAREWELL_TIME_MAX`, `YIELD_PAUSE`; descriptors that are waited for
//! are the standbys', of which there are `STANDBYS_MAX`.

use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown;

use crate::backoff::Backoff;
use crate::election::passing::{self, Followed, Name, Word};
use crate::election::step::{Action, Event, Holds, Node, Pause, decide, pause_for, pause_for_turn};
use crate::election::{Candidacy, Order, Standing, Yielded, probe};
use crate::http::server::{Server, bind};
use crate::limits::{BIND_RETRY_EVERY, FAREWELL_TIME_MAX, HANDOVER_GRACE, INBOX_MAX, YIELD_PAUSE};
use crate::metrics;
use crate::version::Version;

/// Nothing is due; descriptors and orders wake the thread.
const LONG: Duration = Duration::from_secs(60);
/// Clients that have waited for somebody to accept come first.
const PROVEN_AFTER: Duration = Duration::from_millis(5);
/// A gateway without the name tries to take it, so that it can have standbys.
const NAME_RETRY_EVERY: Duration = Duration::from_secs(1);

/// What the thread owns.
pub struct Candidate {
    candidacy: Candidacy,
    standing: Arc<Standing>,
    holds: Holds,
    listener: Option<TcpListener>,
    /// The service manager has the socket too: it is not to be shut down.
    is_lent: bool,
    name: Option<Name>,
    /// While we serve.
    server: Option<Server>,
    /// It has answered, and the role is told.
    is_proven: bool,
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
    pub fn new(candidacy: Candidacy, standing: Arc<Standing>) -> Candidate {
        Candidate {
            candidacy,
            standing,
            holds: Holds::Nothing,
            listener: None,
            is_lent: false,
            name: None,
            server: None,
            is_proven: false,
            followed: None,
            died: None,
            leaving: None,
            yielded: None,
            moments: Backoff::new(Pause::Moment.time(), BIND_RETRY_EVERY),
            first: true,
            has_resigned: false,
        }
    }

    pub fn run(mut self, orders: &Receiver<Order>, bell: &UnixStream) {
        let mut is_stopping = false;
        let mut due = Instant::now();
        while !(is_stopping && self.leaving.is_none()) {
            if Instant::now() >= due {
                due = Instant::now() + self.tick();
            }
            self.wait(bell, due);
            // Its other end is closed once nobody is left who could give an order.
            is_stopping |= matches!((&*bell).read(&mut [0; INBOX_MAX]), Ok(0));
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
        if self.server.is_some() && !self.is_proven {
            return self.prove();
        }
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
                self.standing.note(None);
                Event::InUse
            }
            Err(error) => {
                self.standing.note(Some(format!("the gateway port {address} cannot be bound: {error}")));
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

    /// Accepts at once; that it works is proven a moment later, and only then told.
    fn serve(&mut self) -> Duration {
        let Candidacy { max_connections, handler, on_taking, address, .. } = &self.candidacy;
        on_taking(self.died.take().as_deref());
        (self.followed, self.leaving) = (None, None);
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::NotConnected.into());
        let started = listener
            .and_then(TcpListener::try_clone)
            .and_then(|listener| Server::start("gateway", listener, *max_connections, Arc::clone(handler)));
        match started {
            Ok(server) => {
                self.server = Some(server);
                PROVEN_AFTER
            }
            Err(error) => self.give_up(format!("the gateway port {address} cannot be served: {error}")),
        }
    }

    fn prove(&mut self) -> Duration {
        let Some(address) = self.server.as_ref().map(Server::address) else { return LONG };
        if !probe::answers(address) {
            drop(self.end_reign());
            return self.give_up(format!("the gateway port {address} was bound, but does not answer"));
        }
        log::info!("event=gateway address={address}");
        metrics::GATEWAY_LEADER.set(1);
        if !std::mem::take(&mut self.first) {
            metrics::TAKEOVERS.add(1);
        }
        self.is_proven = true;
        self.moments.succeeded();
        self.standing.set_serving(Some(address));
        self.standing.note(None);
        (self.candidacy.on_won)(address);
        Duration::ZERO
    }

    /// Others shall have it.
    fn give_up(&mut self, failure: String) -> Duration {
        (self.name, self.listener) = (None, None);
        self.standing.note(Some(failure));
        Pause::AfterError.time()
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
                    self.standing.note(None);
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
                let turn = followed.as_ref().map_or(0, Followed::turn);
                // The name may outlive the connection by a moment; who joined a dead gateway in that has heard no name.
                let told = followed.and_then(|followed| followed.instance_id().map(str::to_owned));
                self.died = told.or(self.died.take()).filter(|_| self.listener.is_some());
                // Without the listener there is no hurry; a gateway that turns us away must not be asked in a circle.
                if self.listener.is_some() { pause_for_turn(turn) } else { BIND_RETRY_EVERY }
            }
        }
    }

    fn resign(&mut self) -> Option<Server> {
        self.has_resigned = true;
        self.followed = None;
        if self.name.as_ref().is_some_and(|name| name.newest_standby().is_none()) {
            // Nobody has a duplicate: the server's own is then the last one, and it accepts what waits before it closes it.
            (self.name, self.listener) = (None, None);
        }
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
        self.standing.set_serving(None);
        self.is_proven = false;
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
            let _ = rustix::net::shutdown(listener, Shutdown::Both);
        }
        self.leaving = None;
        LONG
    }
}
