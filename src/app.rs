//! The program as a whole: builds all parts, wires them together, and takes them down in order.
//!
//! Start: log, skills, instance port, its own answer proven, tool list and entry in the registry, scanner, catalogue,
//! election. Only then are we ready.
//!
//! **Invariant**: nothing is announced before it works: the entry comes after the port answers, the role after the
//! gateway port answers, readiness after all of it. The stop order is `stop`, with a reason for each line.
//! **Thread**: `main` waits here for signals.
//! Left out on purpose: every decision; they are in the parts.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::config::Config;
use crate::deadline::Deadline;
use crate::election::{self, Candidacy, Election};
use crate::endpoint::Endpoint;
use crate::endpoint::access::Access;
use crate::front::Front;
use crate::gateway::catalogue::{Catalogue, CatalogueSettings};
use crate::gateway::{GatewayService, GatewaySite, meta};
use crate::hash::fnv64_hex;
use crate::heartbeat::Heartbeat;
use crate::http::server::{Server, bind};
use crate::hub::Hub;
use crate::instance::{InstanceService, InstanceSite, state_of};
use crate::logging::{self, FileConfig, LogConfig, Quoted};
use crate::os::{self, Signal};
use crate::registry::entry::Entry;
use crate::registry::store::Store;
use crate::scanner::{Scanner, Settings};
use crate::session::State;
use crate::skills::set::ToolSet;
use crate::skills::{Skills, SkillsConfig};
use crate::status::{Check, Status};
use crate::worker;

/// Why the program could not start, or had to end. The exit codes are part of the command line's contract.
#[derive(Debug)]
pub enum AppError {
    Log(String),
    TokenFile(std::path::PathBuf, io::Error),
    Bind(SocketAddr, io::Error),
    NoAnswer(SocketAddr),
    Register(String),
    Thread(io::Error),
    ListenerLost(SocketAddr),
}

impl AppError {
    pub fn exit_code(&self) -> u8 {
        match self {
            AppError::Log(_) | AppError::TokenFile(..) => 2,
            AppError::Bind(..) | AppError::NoAnswer(_) | AppError::Register(_) => 3,
            AppError::ListenerLost(_) => 4,
            AppError::Thread(_) => 5,
        }
    }
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppError::Log(error) => write!(f, "the log folder cannot be used: {error}; see --log-dir"),
            AppError::TokenFile(file, error) => write!(f, "the token file {} cannot be used: {error}", file.display()),
            AppError::Bind(address, error) => {
                write!(f, "{address} cannot be bound: {error}; see --host and --mcp-port")
            }
            AppError::NoAnswer(address) => write!(f, "{address} is bound, but does not answer"),
            AppError::Register(error) => write!(f, "cannot register: {error}; see --registry-dir"),
            AppError::Thread(error) => write!(f, "a thread cannot be started: {error}"),
            AppError::ListenerLost(address) => write!(f, "the listener at {address} does not answer any more"),
        }
    }
}

/// Runs the server until it is told to stop.
pub fn run(config: Config) -> Result<(), AppError> {
    let instance_id = config.instance_id.clone().unwrap_or_else(os::uuid_v4);
    logging::start(log_config(&config, &instance_id)).map_err(|error| AppError::Log(error.to_string()))?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    let signals = os::signals().map_err(AppError::Thread)?;
    let app = App::start(config, &instance_id)?;
    app.wait(&signals)?;
    app.stop(signals);
    Ok(())
}

/// All parts, in the order they were started.
struct App {
    config: Config,
    draining: Arc<AtomicBool>,
    access: Arc<Access>,
    skills: Arc<Skills>,
    instance_hub: Arc<Hub>,
    instance: Server,
    heartbeat: Arc<Heartbeat>,
    scanner: Arc<Scanner>,
    catalogue: Arc<Catalogue>,
    gateway_hub: Arc<Hub>,
    election: Option<Arc<Election>>,
}

impl App {
    fn start(config: Config, instance_id: &str) -> Result<App, AppError> {
        let advertised = advertised_host(&config);
        let access = Arc::new(access(&config, &advertised)?);
        let draining = Arc::new(AtomicBool::new(false));
        let store = Store::open(&config.registry_dir);

        // The instance: skills and their port.
        let slot = HeartbeatSlot::default();
        let instance_hub = Hub::start(State::default()).map_err(AppError::Thread)?;
        let skills = Arc::new(start_skills(&config, publisher(&slot, &instance_hub))?);
        instance_hub.publish(state_of(&skills.tools()));
        let instance = serve_instance(&config, &access, &draining, &skills, &instance_hub, &slot)?;
        let address = instance.address();
        if !election::answers(address) {
            return Err(AppError::NoAnswer(address));
        }
        log::info!("event=instance address={address} instance={instance_id} dcc={}", Quoted(&config.dcc));

        // The registry: the list first, then the entry that points to it.
        let entry = entry(&config, instance_id, &advertised, address.port());
        let heartbeat = start_heartbeat(&config, &store, entry, address, &skills)?;
        let _ = slot.set(Arc::clone(&heartbeat));

        // The gateway, or its standby: what it would serve is kept ready all along.
        let gateway_hub = Hub::start(State::default()).map_err(AppError::Thread)?;
        let catalogue = start_catalogue(&config, &store, &access, &gateway_hub)?;
        let seen = Arc::clone(&catalogue);
        let settings = Settings { own_id: Some(instance_id.to_owned()), stale_timeout: config.stale_timeout };
        let scanner = Scanner::start(store, settings, Box::new(move |view| seen.see(view)));
        let scanner = Arc::new(scanner.map_err(AppError::Thread)?);
        let election = None;
        let mut app = App {
            config,
            draining,
            access,
            skills,
            instance_hub,
            instance,
            heartbeat,
            scanner,
            catalogue,
            gateway_hub,
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
        let site = GatewaySite {
            endpoint: Endpoint::new(
                Arc::new(GatewayService { catalogue: Arc::clone(&self.catalogue) }),
                Arc::clone(&self.gateway_hub),
                self.config.server_name.clone(),
                self.config.call_timeout,
            ),
            catalogue: Arc::clone(&self.catalogue),
            status: Status::new(self.gateway_checks(&slot), Arc::clone(&self.draining)),
        };
        let heartbeat = Arc::clone(&self.heartbeat);
        let scanner = Arc::clone(&self.scanner);
        let candidacy = Candidacy {
            address: SocketAddr::new(self.config.host, port),
            max_connections: self.config.max_connections,
            handler: Arc::new(Front { access: Arc::clone(&self.access), site }),
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
            ("heartbeat", heartbeat_check(&self.heartbeat)),
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
        let address = self.instance.address();
        let mut silent = 0;
        loop {
            match signals.recv_timeout(self.config.heartbeat_interval) {
                Ok(Signal::Reload) => self.reload(),
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if election::answers(address) => silent = 0,
                Err(RecvTimeoutError::Timeout) => silent += 1,
            }
            if silent >= SILENT_PROBES_MAX {
                return Err(AppError::ListenerLost(address));
            }
        }
    }

    fn reload(&self) {
        log::info!("event=reload");
        logging::reopen();
        self.skills.rescan();
        if let Err(error) = self.access.reload() {
            log::error!("event=token_file_kept error=\"{error}\"");
        }
    }

    /// The stop order. A second signal ends the process at once.
    fn stop(&self, signals: Receiver<Signal>) {
        log::info!("event=stopping calls={}", self.instance.connections());
        os::notify("STOPPING=1");
        end_at_second_signal(signals);
        // Balancers look at /readyz: nothing new shall come.
        self.draining.store(true, Ordering::Release);
        // The beat ends before the entry goes, or the next beat would bring it back.
        self.heartbeat.stop();
        // The port goes first of all that serves: a standby takes it while we still answer what we have.
        let gateway = self.election.as_ref().and_then(|election| election.resign());
        // Streams end, their clients reconnect to whoever serves now.
        self.gateway_hub.close_all();
        self.instance_hub.close_all();
        // Calls under way get their time, those of the gateway first: they may lead to our own instance.
        let deadline = Deadline::after(self.config.drain_timeout);
        let gateway_drained = gateway.is_none_or(|server| server.drain(deadline));
        self.instance.stop_accepting();
        let drained = self.instance.drain(deadline) && gateway_drained;
        // Nobody asks any more: what served the answers can go.
        self.scanner.stop();
        self.catalogue.stop();
        self.skills.stop();
        log::info!("event=stopped drained={drained}");
    }
}

/// Probes of the own listener that may fail in a row before the process gives itself up.
const SILENT_PROBES_MAX: u32 = 3;

type HeartbeatSlot = Arc<OnceLock<Arc<Heartbeat>>>;

/// What happens when the visible tools change: the list is published with the entry that points to it, and the
/// streams are told.
fn publisher(slot: &HeartbeatSlot, hub: &Arc<Hub>) -> Box<dyn Fn(&ToolSet) + Send + Sync> {
    let (slot, hub) = (Arc::clone(slot), Arc::clone(hub));
    Box::new(move |tools| {
        if let Some(Err(error)) = slot.get().map(|heartbeat| heartbeat.set_tools(tools.encoded())) {
            log::error!("event=tools_not_published error=\"{error}\"");
        }
        hub.publish(state_of(tools));
    })
}

fn start_skills(config: &Config, on_change: Box<dyn Fn(&ToolSet) + Send + Sync>) -> Result<Skills, AppError> {
    let skills = SkillsConfig {
        paths: config.skill_paths.clone(),
        dcc: config.dcc.clone(),
        load: config.load_skills.clone(),
        call_timeout: config.call_timeout,
    };
    Skills::start(skills, on_change).map_err(AppError::Thread)
}

fn start_heartbeat(
    config: &Config,
    store: &Store,
    mut entry: Entry,
    address: SocketAddr,
    skills: &Skills,
) -> Result<Arc<Heartbeat>, AppError> {
    let register = |error: String| AppError::Register(error);
    let tools = skills.tools().encoded();
    store.publish_tools(&entry.instance_id, &tools).map_err(|error| register(error.to_string()))?;
    entry.tools_revision = fnv64_hex(&tools);
    let probe = Box::new(move || election::answers(address));
    let heartbeat = Heartbeat::start(store.clone(), entry, config.heartbeat_interval, probe);
    let heartbeat = heartbeat.map_err(|error| register(error.to_string()))?;
    heartbeat.set_tools(tools).map_err(|error| register(error.to_string()))?;
    Ok(Arc::new(heartbeat))
}

fn start_catalogue(
    config: &Config,
    store: &Store,
    access: &Access,
    hub: &Arc<Hub>,
) -> Result<Arc<Catalogue>, AppError> {
    let settings = CatalogueSettings {
        store: store.clone(),
        own_tools: meta::own_tools(),
        own_tools_only: config.own_tools_only,
        token: access.own_token(),
    };
    Catalogue::start(settings, Arc::clone(hub)).map_err(AppError::Thread)
}

fn entry(config: &Config, instance_id: &str, advertised: &str, port: u16) -> Entry {
    let mut entry = Entry::of_this_process(instance_id.to_owned(), advertised.to_owned(), port);
    entry.dcc_type.clone_from(&config.dcc);
    entry.server_name.clone_from(&config.server_name);
    entry.version.clone_from(&config.dcc_version);
    entry.scene.clone_from(&config.scene);
    entry.display_name.clone_from(&config.display_name);
    entry
}

/// `--advertise-host`, else the address bound if it is a specific one, else our own on the way to the network.
fn advertised_host(config: &Config) -> String {
    let bound = || (!config.host.is_unspecified()).then(|| config.host.to_string());
    let outward = || os::outward_address().map(|address| address.to_string());
    let host = config.advertise_host.clone().or_else(bound).or_else(outward).or_else(os::hostname);
    host.unwrap_or_else(|| "127.0.0.1".to_owned())
}

fn access(config: &Config, advertised: &str) -> Result<Access, AppError> {
    let mut hosts = config.allowed_hosts.clone();
    if !hosts.is_empty() {
        hosts.push(advertised.to_owned());
    }
    Access::new(config.host, hosts, config.allowed_origins.clone(), config.auth_token_file.clone())
        .map_err(|error| AppError::TokenFile(config.auth_token_file.clone().unwrap_or_default(), error))
}

fn log_config(config: &Config, instance_id: &str) -> LogConfig {
    let name = format!("dcc-mcp-server.{}", crate::gateway::names::short(instance_id));
    let file = FileConfig {
        folder: config.log_dir.clone(),
        name,
        bytes_max: config.log_max_size,
        files_max: config.log_max_files,
    };
    LogConfig { level: config.log_level, file: config.log_file.then_some(file) }
}

/// The first signal asked us to stop; the second is not to be argued with.
fn end_at_second_signal(signals: Receiver<Signal>) {
    let watch = move || {
        while let Ok(signal) = signals.recv() {
            if matches!(signal, Signal::Stop) {
                std::process::exit(0);
            }
        }
    };
    if let Err(error) = worker::spawn("second-signal", watch) {
        log::warn!("event=second_signal_not_watched error=\"{error}\"");
    }
}

fn serve_instance(
    config: &Config,
    access: &Arc<Access>,
    draining: &Arc<AtomicBool>,
    skills: &Arc<Skills>,
    hub: &Arc<Hub>,
    heartbeat: &HeartbeatSlot,
) -> Result<Server, AppError> {
    let service = Arc::new(InstanceService::new(Arc::clone(skills)));
    let heartbeat = Arc::clone(heartbeat);
    let registered: Check = (
        "registered",
        Box::new(move || heartbeat.get().map_or(Err("not registered yet".to_owned()), |heartbeat| heartbeat.health())),
    );
    let site = InstanceSite {
        endpoint: Endpoint::new(service, Arc::clone(hub), config.server_name.clone(), config.call_timeout),
        status: Status::new(vec![registered], Arc::clone(draining)),
    };
    let address = SocketAddr::new(config.host, config.mcp_port);
    let listener = bind(address).map_err(|error| AppError::Bind(address, error))?;
    let front = Arc::new(Front { access: Arc::clone(access), site });
    Server::start("instance", listener, config.max_connections, front).map_err(|error| AppError::Bind(address, error))
}

fn heartbeat_check(heartbeat: &Arc<Heartbeat>) -> Box<dyn Fn() -> Result<(), String> + Send + Sync> {
    let heartbeat = Arc::clone(heartbeat);
    Box::new(move || heartbeat.health())
}
