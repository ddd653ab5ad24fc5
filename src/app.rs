//! The program as a whole: builds all parts, wires them together, and takes them down in order.
//!
//! Start: log, skills, instance port, its own answer proven, tool list and entry in the registry, scanner, catalogue,
//! election. Only then are we ready.
//!
//! **Invariant**: nothing is announced before it works: the entry comes after the port answers, the role after the
//! gateway port answers, readiness after all of it. The stop order is `stop`, with a reason for each line.
//! **Thread**: `main` waits here for signals.
//! Left out on purpose: every decision; they are in the parts.

pub mod error;
pub mod parts;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::app::error::AppError;
use crate::app::parts::HeartbeatSlot;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::election::{self, Candidacy, Election, Probe};
use crate::endpoint::Endpoint;
use crate::endpoint::access::Access;
use crate::front::Front;
use crate::gateway::catalogue::Catalogue;
use crate::gateway::followers::Followers;
use crate::gateway::{GatewayService, GatewaySite};
use crate::heartbeat::Heartbeat;
use crate::http::server::Server;
use crate::hub::Hub;
use crate::instance::state_of;
use crate::limits::{SEEN_TO_BE_GONE_AFTER, TAKEOVER_LOOK_MAX};
use crate::logging::{self, Quoted};
use crate::os::{self, Signal};
use crate::registry::Instance;
use crate::registry::store::Store;
use crate::scanner::{Scanner, Settings};
use crate::session::State;
use crate::skills::{Skills, child};
use crate::status::{Check, Status};
use crate::tasks::TaskTable;
use crate::worker;

/// Runs the server until it is told to stop.
pub fn run(config: Config) -> Result<(), AppError> {
    let instance_id = config.instance_id.clone().unwrap_or_else(os::uuid_v4);
    logging::start(parts::log_config(&config, &instance_id)).map_err(|error| AppError::Log(error.to_string()))?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    let signals = os::signals().map_err(AppError::Thread)?;
    let app = App::start(config, &instance_id)?;
    let told_to_stop = app.wait(&signals);
    match &told_to_stop {
        Ok(()) => app.stop(signals),
        Err(_) => child::end_all(),
    }
    told_to_stop
}

/// All parts, in the order they were started.
struct App {
    config: Config,
    instance_id: String,
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
}

impl App {
    fn start(config: Config, instance_id: &str) -> Result<App, AppError> {
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
        let instance = parts::serve_instance(&config, &access, &draining, &skills, &instance_hub, &slot, &tasks)?;
        let address = instance.address();
        if !election::answers(address) {
            return Err(AppError::NoAnswer(address));
        }
        log::info!("event=instance address={address} instance={instance_id} dcc={}", Quoted(&config.dcc));

        // The registry: the list first, then the entry that points to it.
        let entry = parts::entry(&config, instance_id, &advertised, address.port());
        let heartbeat = parts::start_heartbeat(&config, &store, entry, address, &skills)?;
        let _ = slot.set(Arc::clone(&heartbeat));
        // What changed while the slot was empty was told to nobody.
        heartbeat.set_tools(skills.offer().published()).map_err(|error| AppError::Register(error.to_string()))?;

        // The gateway, or its standby: what it would serve is kept ready all along.
        let gateway_hub = Hub::start(State::default()).map_err(AppError::Thread)?;
        let catalogue = parts::start_catalogue(&config, &store, &access, &gateway_hub)?;
        let seen = Arc::clone(&catalogue);
        let settings = Settings { own_id: Some(instance_id.to_owned()), stale_timeout: config.stale_timeout };
        let scanner = Scanner::start(store, settings, Box::new(move |view| seen.see(view)));
        let scanner = Arc::new(scanner.map_err(AppError::Thread)?);
        let election = None;
        let mut app = App {
            config,
            instance_id: instance_id.to_owned(),
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
        };
        app.compete()?;
        os::notify("READY=1");
        Ok(app)
    }
}

impl App {
    /// Enters the election for the gateway port, unless that is switched off.
    fn compete(&mut self) -> Result<(), AppError> {
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
        };
        let heartbeat = Arc::clone(&self.heartbeat);
        let (scanner, looker) = (Arc::clone(&self.scanner), Arc::clone(&self.scanner));
        let catalogue = Arc::clone(&self.catalogue);
        let candidacy = Candidacy {
            address: SocketAddr::new(self.config.host, port),
            max_connections: self.config.max_connections,
            handler: Arc::new(Front { access: Arc::clone(&self.access), site }),
            before_serving: Box::new(move || {
                let fresh = looker.look_now(TAKEOVER_LOOK_MAX) && catalogue.flush(TAKEOVER_LOOK_MAX);
                log::debug!("event=looked_before_serving fresh={fresh}");
            }),
            on_won: Box::new(move |address| {
                scanner.set_gateway(true);
                if let Err(error) = heartbeat.set_gateway(Some(address.to_string())) {
                    log::error!("event=role_not_told error=\"{error}\"");
                }
            }),
        };
        let election = Arc::new(Election::start(candidacy).map_err(AppError::Thread)?);
        let _ = slot.set(Arc::clone(&election));
        self.election = Some(election);
        Ok(())
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
        let mut silent = 0;
        loop {
            match signals.recv_timeout(self.config.heartbeat_interval) {
                Ok(Signal::Reload) => self.reload(),
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => silent = silences(silent, self.silent_listener())?,
            }
        }
    }

    /// A listener of ours that does not answer. A gateway that accepts and never answers would block every takeover.
    fn silent_listener(&self) -> Option<SocketAddr> {
        let gateway = self.election.as_ref().and_then(|election| election.serving());
        [Some(self.instance.address()), gateway]
            .into_iter()
            .flatten()
            .find(|address| election::probe(*address) == Probe::Silent)
    }

    fn reload(&self) {
        log::info!("event=reload");
        logging::reopen();
        self.skills.rescan();
        if let Err(error) = self.access.reload() {
            log::error!("event=token_file_kept error=\"{error}\"");
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
        // Balancers look at /readyz: nothing new shall come.
        self.draining.store(true, Ordering::Release);
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
        std::thread::sleep(seen_to_be_gone.left().min(deadline.left()));
        self.instance.stop_accepting();
        // Tasks have their time too, though only those who wait for them hear of the end.
        let drained = self.instance.drain(deadline) && self.tasks.drain(deadline) && gateway_drained;
        // Nobody waits for what still runs.
        child::end_all();
        // Nobody asks any more: what served the answers can go.
        self.scanner.stop();
        self.catalogue.stop();
        self.skills.stop();
        log::info!("event=stopped drained={drained}");
    }
}

/// Probes of the own listener that may fail in a row before the process gives itself up.
const SILENT_PROBES_MAX: u32 = 3;

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
                child::end_all();
                std::process::exit(0);
            }
        }
    };
    if let Err(error) = worker::spawn("second-signal", watch) {
        log::warn!("event=second_signal_not_watched error=\"{error}\"");
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
