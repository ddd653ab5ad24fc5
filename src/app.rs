//! The program as a whole: builds all parts, wires them together, and takes them down in order.
//!
//! Start: log, skills, instance port, its own answer proven, tool list and entry in the registry, scanner, catalogue,
//! election. Only then are we ready.
//!
//! **Invariant**: nothing is announced before it works: the entry comes after the port answers, the role after the
//! gateway port answers, readiness after all of it. The stop order is `stop`, with a reason for each line.
//! **Thread**: `main` waits here for signals.
//! Left out on purpose: every decision; they are in the parts.

pub mod challenge;
pub mod error;
pub mod parts;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::app::challenge::{Challenger, is_served_by_older};
use crate::app::error::AppError;
use crate::app::parts::{Given, HeartbeatSlot};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::election::probe::{self, Probe};
use crate::election::{Candidacy, Election, Yielded};
use crate::endpoint::Endpoint;
use crate::endpoint::access::Access;
use crate::front::Front;
use crate::gateway::catalogue::Catalogue;
use crate::gateway::followers::Followers;
use crate::gateway::handover::Handover;
use crate::gateway::{GatewayService, GatewaySite};
use crate::heartbeat::Heartbeat;
use crate::http::server::Server;
use crate::hub::Hub;
use crate::instance::{InstanceService, state_of};
use crate::limits::{SEEN_TO_BE_GONE_AFTER, TAKEOVER_LOOK_MAX};
use crate::logging::{self, Quoted};
use crate::os::{self, Signal};
use crate::registry::Instance;
use crate::registry::store::Store;
use crate::scanner::{Scanner, Settings};
use crate::session::State;
use crate::skills::{Skills, groups};
use crate::status::{Check, Status};
use crate::tasks::TaskTable;
use crate::version::Version;
use crate::worker;

/// Runs the server until it is told to stop. `version` is the program's own.
pub fn run(config: Config, version: &'static str) -> Result<(), AppError> {
    // First of all: it takes descriptors by their numbers.
    let sockets = os::given_sockets().map_err(|error| AppError::Given("list", error.to_string()))?;
    let given = parts::given(&config, sockets)?;
    let instance_id = config.instance_id.clone().unwrap_or_else(os::uuid_v4);
    logging::start(parts::log_config(&config, &instance_id), groups::end_all)
        .map_err(|error| AppError::Log(error.to_string()))?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    let signals = os::signals().map_err(AppError::Thread)?;
    let app = App::start(config, &instance_id, version, given)?;
    let told_to_stop = app.wait(&signals);
    match &told_to_stop {
        Ok(()) => app.stop(signals),
        Err(_) => groups::end_all(),
    }
    told_to_stop
}

/// All parts, in the order they were started.
struct App {
    config: Config,
    instance_id: String,
    version: Version,
    draining: Arc<AtomicBool>,
    access: Arc<Access>,
    skills: Arc<Skills>,
    instance_hub: Arc<Hub>,
    instance: Server,
    heartbeat: Arc<Heartbeat>,
    scanner: Arc<Scanner>,
    catalogue: Arc<Catalogue>,
    gateway_hub: Arc<Hub>,
    tasks: TaskTable,
    election: Option<Arc<Election>>,
    /// The server of a gateway port that was handed over, while it is drained.
    former: Former,
}

type Former = Arc<Mutex<Option<Arc<Server>>>>;

impl App {
    fn start(config: Config, instance_id: &str, version: &str, given: Given) -> Result<App, AppError> {
        let advertised = parts::advertised_host(&config);
        let access = Arc::new(parts::access(&config, &advertised)?);
        let draining = Arc::new(AtomicBool::new(false));
        let store = Store::open(&config.registry_dir);

        // The instance: skills and their port.
        let slot = HeartbeatSlot::default();
        let instance_hub = Hub::start(State::default()).map_err(AppError::Thread)?;
        let tasks = TaskTable::default();
        let skills = Arc::new(parts::start_skills(&config, parts::publisher(&slot, &instance_hub))?);
        instance_hub.publish(state_of(&skills.offer()));
        let service = InstanceService::new(Arc::clone(&skills), tasks.clone());
        let instance =
            parts::serve_instance(&config, &access, &draining, service, &instance_hub, &slot, given.instance)?;
        let address = instance.address();
        if !probe::answers(address) {
            return Err(AppError::NoAnswer(address));
        }
        log::info!("event=instance address={address} instance={instance_id} dcc={}", Quoted(&config.dcc));

        // The registry: the list first, then the entry that points to it.
        let entry = parts::entry(&config, instance_id, version, &advertised, address.port());
        let heartbeat = parts::start_heartbeat(&config, &store, entry, address, &skills)?;
        let _ = slot.set(Arc::clone(&heartbeat));
        // What changed while the slot was empty was told to nobody.
        heartbeat.set_tools(skills.offer().published()).map_err(|error| AppError::Register(error.to_string()))?;

        // The gateway, or its standby: what it would serve is kept ready all along.
        let gateway_hub = Hub::start(State::default()).map_err(AppError::Thread)?;
        let catalogue = parts::start_catalogue(&config, &store, &access, &gateway_hub)?;
        let seen = Arc::clone(&catalogue);
        let beat = Arc::clone(&heartbeat);
        let settings = Settings {
            own_id: Some(instance_id.to_owned()),
            stale_timeout: config.stale_timeout,
            can_write: Box::new(move || beat.can_write()),
        };
        let scanner = Scanner::start(store, settings, Box::new(move |view| seen.see(view)));
        let scanner = Arc::new(scanner.map_err(AppError::Thread)?);
        let election = None;
        let mut app = App {
            config,
            instance_id: instance_id.to_owned(),
            version: Version::parse(version).ok_or_else(|| AppError::Version(version.to_owned()))?,
            draining,
            access,
            skills,
            instance_hub,
            instance,
            heartbeat,
            scanner,
            catalogue,
            gateway_hub,
            tasks,
            election,
            former: Former::default(),
        };
        app.compete(&advertised, given.gateway)?;
        os::notify("READY=1");
        Ok(app)
    }
}

impl App {
    /// Enters the election for the gateway port, unless that is switched off.
    fn compete(&mut self, advertised: &str, given: Option<TcpListener>) -> Result<(), AppError> {
        let Some(port) = self.config.gateway_port else { return Ok(()) };
        let slot: Arc<OnceLock<Arc<Election>>> = Arc::default();
        let followers = Followers::start(Arc::clone(&self.gateway_hub), Arc::clone(&self.catalogue));
        let followers = followers.map_err(AppError::Thread)?;
        let site = GatewaySite {
            endpoint: Endpoint::new(
                Arc::new(GatewayService { catalogue: Arc::clone(&self.catalogue), followers }),
                Arc::clone(&self.gateway_hub),
                self.config.server_name.clone(),
                self.config.call_timeout,
            ),
            catalogue: Arc::clone(&self.catalogue),
            status: Status::new(self.gateway_checks(&slot), Arc::clone(&self.draining)),
            settle: parts::settle(&self.scanner, &self.catalogue),
            handover: self.handover(advertised, &slot),
        };
        let heartbeat = Arc::clone(&self.heartbeat);
        let (scanner, looker) = (Arc::clone(&self.scanner), Arc::clone(&self.scanner));
        let catalogue = Arc::clone(&self.catalogue);
        let candidacy = Candidacy {
            address: SocketAddr::new(self.config.host, port),
            given,
            version: self.version.clone(),
            instance_id: self.instance_id.clone(),
            max_connections: self.config.max_connections,
            handler: Arc::new(Front { access: Arc::clone(&self.access), site }),
            on_taking: Box::new(move |died| {
                catalogue.hold(TAKEOVER_LOOK_MAX, died);
                let catalogue = Arc::clone(&catalogue);
                looker.look_soon(Box::new(move || catalogue.release()));
            }),
            on_won: Box::new(move |address| {
                scanner.set_gateway(true);
                if let Err(error) = heartbeat.set_gateway(Some(address.to_string())) {
                    log::error!("event=role_not_told error={}", Quoted(&error));
                }
            }),
            on_yielded: self.on_yielded(),
        };
        let election = Arc::new(Election::start(candidacy).map_err(AppError::Thread)?);
        let _ = slot.set(Arc::clone(&election));
        self.election = Some(election);
        Ok(())
    }

    fn handover(&self, advertised: &str, election: &Arc<OnceLock<Arc<Election>>>) -> Handover {
        let (scanner, election) = (Arc::clone(&self.scanner), Arc::clone(election));
        Handover {
            own: self.version.clone(),
            local: parts::local_addresses(&self.config, advertised),
            view: Box::new(move || scanner.latest()),
            hand_over: Box::new(move |version| {
                election.get().map_or(Yielded::NotServing, |election| election.hand_over(version))
            }),
        }
    }

    /// The port is another's: no role, no streams; what is under way there gets its time.
    fn on_yielded(&self) -> Box<dyn Fn(Server) + Send> {
        let (scanner, heartbeat, hub) = (self.scanner.clone(), self.heartbeat.clone(), self.gateway_hub.clone());
        let (former, time) = (Arc::clone(&self.former), self.config.drain_timeout);
        Box::new(move |server| {
            scanner.set_gateway(false);
            if let Err(error) = heartbeat.set_gateway(None) {
                log::error!("event=role_not_told error={}", Quoted(&error));
            }
            hub.end_all();
            let server = Arc::new(server);
            *former.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&server));
            let drain = move || {
                let drained = server.drain(Deadline::after(time));
                log::info!("event=gateway_drained drained={drained}");
            };
            if let Err(error) = worker::spawn("drain-gateway", drain) {
                log::warn!("event=not_drained error={}", Quoted(&error));
            }
        })
    }

    fn gateway_checks(&self, election: &Arc<OnceLock<Arc<Election>>>) -> Vec<Check> {
        let (scanner, catalogue) = (Arc::clone(&self.scanner), Arc::clone(&self.catalogue));
        let election = Arc::clone(election);
        vec![
            ("registry", Box::new(move || scanner.health())),
            ("heartbeat", parts::heartbeat_check(&self.heartbeat)),
            (
                "catalogue",
                Box::new(move || match catalogue.is_warm() {
                    true => Ok(()),
                    false => Err("not every instance has told its tools yet".to_owned()),
                }),
            ),
            ("gateway_port", Box::new(move || election.get().map_or(Ok(()), |election| election.health()))),
        ]
    }

    /// Waits for the signal to stop; reloads on the signal for that; ends when the own listener does not answer.
    fn wait(&self, signals: &Receiver<Signal>) -> Result<(), AppError> {
        let watchdog = os::watchdog();
        // Twice within the time in which it must hear of us.
        let pause =
            watchdog.map_or(self.config.heartbeat_interval, |time| self.config.heartbeat_interval.min(time / 2));
        let (mut silent, mut challenger) = (0, Challenger::default());
        let mut due = Instant::now() + pause;
        loop {
            match signals.recv_deadline(due) {
                Ok(Signal::Reload) => self.reload(),
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    let probes = self.probes();
                    silent = silences(silent, silent_one(&probes))?;
                    if watchdog.is_some() && probes.iter().all(|(_, probe)| *probe == Probe::Answers) {
                        os::notify("WATCHDOG=1");
                    }
                    self.challenge(&mut challenger);
                    due = Instant::now() + pause;
                }
            }
        }
    }

    /// What asking our listeners shows. A gateway that accepts and never answers would block every takeover.
    fn probes(&self) -> Vec<(SocketAddr, Probe)> {
        let gateway = self.election.as_ref().and_then(|election| election.serving());
        let ours = [Some(self.instance.address()), gateway].into_iter().flatten();
        ours.map(|address| (address, probe::probe(address))).collect()
    }

    /// Asks for the port where an older version serves it.
    fn challenge(&self, challenger: &mut Challenger) {
        let (Some(port), Some(election)) = (self.config.gateway_port, &self.election) else { return };
        let is_due = election.serving().is_none() && is_served_by_older(&self.scanner.latest(), port, &self.version);
        match is_due {
            true => challenger.ask(SocketAddr::new(self.config.host, port), &self.version, self.access.own_token()),
            false => challenger.rest(),
        }
    }

    fn reload(&self) {
        log::info!("event=reload");
        logging::reopen();
        self.skills.rescan();
        if let Err(error) = self.access.reload() {
            log::error!("event=token_file_kept error={}", Quoted(&error));
        }
    }

    /// When other gateways have seen that our entry is gone: until then they hand us calls, which we still take.
    fn seen_to_be_gone(&self) -> Deadline {
        let own = |instance: &Arc<Instance>| instance.entry.instance_id == self.instance_id;
        let alone = self.scanner.latest().instances.iter().all(own);
        Deadline::after(if alone { Duration::ZERO } else { SEEN_TO_BE_GONE_AFTER })
    }

    /// The stop order. A second signal ends the process at once.
    fn stop(&self, signals: Receiver<Signal>) {
        log::info!("event=stopping connections={}", self.instance.connections());
        os::notify("STOPPING=1");
        end_at_second_signal(signals);
        // Balancers look at /readyz: nothing new shall come. Clients that are here go elsewhere with their next request.
        self.draining.store(true, Ordering::Release);
        self.instance.begin_drain();
        // The beat ends before the entry goes, or the next beat would bring it back.
        self.heartbeat.stop();
        let seen_to_be_gone = self.seen_to_be_gone();
        // The port goes first of all that serves: a standby takes it while we still answer what we have.
        let gateway = self.election.as_ref().and_then(|election| election.resign());
        // Streams end, their clients reconnect to whoever serves now.
        self.gateway_hub.close_all();
        self.instance_hub.close_all();
        // Calls under way get their time, those of the gateway first: they may lead to our own instance.
        let deadline = Deadline::after(self.config.drain_timeout);
        let gateway_drained = gateway.is_none_or(|server| server.drain(deadline));
        let former = self.former.lock().unwrap_or_else(PoisonError::into_inner).take();
        let former_drained = former.is_none_or(|server| server.drain(deadline));
        std::thread::sleep(seen_to_be_gone.left().min(deadline.left()));
        self.instance.stop_accepting();
        // Tasks have their time too, though only those who wait for them hear of the end.
        let instance_drained = self.instance.drain(deadline) && self.tasks.drain(deadline);
        let drained = instance_drained && gateway_drained && former_drained;
        // Nobody waits for what still runs.
        groups::end_all();
        // Nobody asks any more: what served the answers can go.
        self.election.iter().for_each(|election| election.stop());
        self.scanner.stop();
        self.catalogue.stop();
        self.skills.stop();
        log::info!("event=stopped drained={drained}");
    }
}

/// Probes of the own listener that may fail in a row before the process gives itself up.
const SILENT_PROBES_MAX: u32 = 3;

fn silent_one(probes: &[(SocketAddr, Probe)]) -> Option<SocketAddr> {
    probes.iter().find(|(_, probe)| *probe == Probe::Silent).map(|(address, _)| *address)
}

/// How many probes in a row have shown a silent listener, after another one; an error once that is enough.
fn silences(before: u32, silent: Option<SocketAddr>) -> Result<u32, AppError> {
    match silent {
        None => Ok(0),
        Some(address) if before + 1 >= SILENT_PROBES_MAX => Err(AppError::ListenerLost(address)),
        Some(_) => Ok(before + 1),
    }
}

/// The first signal asked us to stop; the second is not to be argued with.
fn end_at_second_signal(signals: Receiver<Signal>) {
    let watch = move || {
        while let Ok(signal) = signals.recv() {
            if matches!(signal, Signal::Stop) {
                groups::end_all();
                std::process::exit(0);
            }
        }
    };
    if let Err(error) = worker::spawn("second-signal", watch) {
        log::warn!("event=second_signal_not_watched error={}", Quoted(&error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_given_up_when_it_was_silent_three_times_in_a_row() {
        let address = SocketAddr::from(([127, 0, 0, 1], 9765));
        let after = |probes: &[bool]| {
            let silent = |is_silent: bool| is_silent.then_some(address);
            probes.iter().try_fold(0, |before, probe| silences(before, silent(*probe))).ok()
        };
        assert_eq!(after(&[false]), Some(0));
        assert_eq!(after(&[true, true]), Some(2));
        assert_eq!(after(&[true, true, false, true, true]), Some(2));
        assert_eq!(after(&[true, true, false]), Some(0));
        assert_eq!(after(&[true, true, true]), None);
        assert!(matches!(silences(2, Some(address)), Err(AppError::ListenerLost(lost)) if lost == address));
    }
}
