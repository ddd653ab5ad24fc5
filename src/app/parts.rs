//! Builds the parts of the program from its configuration, one function a part; `app.rs` puts them together.
//!
//! **Invariant**: with `app.rs`, the only code that sees `Config`; a part is given its own few parameters.
//! **Thread**: `main`.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use crate::app::error::AppError;
use crate::config::{Config, ToolList};
use crate::election::listener::listening;
use crate::election::probe;
use crate::endpoint::Endpoint;
use crate::endpoint::access::Access;
use crate::front::Front;
use crate::gateway::catalogue::{Catalogue, CatalogueSettings};
use crate::gateway::meta;
use crate::hash::fnv64_hex;
use crate::heartbeat::Heartbeat;
use crate::http::server::{Server, bind};
use crate::hub::Hub;
use crate::instance::{InstanceService, InstanceSite, state_of};
use crate::limits::SETTLE_MAX;
use crate::logging::{FileConfig, LogConfig, Quoted};
use crate::os;
use crate::registry::entry::Entry;
use crate::registry::store::Store;
use crate::scanner::Scanner;
use crate::skills::{OnChange, Skills, SkillsConfig};
use crate::status::{Check, Status};

/// Filled once the instance is registered; what is started before looks here.
pub type HeartbeatSlot = Arc<OnceLock<Arc<Heartbeat>>>;

/// What happens when the visible tools change: the list is published with the entry that points to it, and the
/// streams are told.
pub fn publisher(slot: &HeartbeatSlot, hub: &Arc<Hub>) -> OnChange {
    let (slot, hub) = (Arc::clone(slot), Arc::clone(hub));
    Box::new(move |before, offer| {
        if let Some(Err(error)) = slot.get().map(|heartbeat| heartbeat.set_tools(offer.published())) {
            log::error!("event=tools_not_published error={}", Quoted(&error));
        }
        hub.publish(state_of(offer));
        offer.resources.changed_since(&before.resources).iter().for_each(|uri| hub.updated(uri));
    })
}

pub fn start_skills(config: &Config, on_change: OnChange) -> Result<Skills, AppError> {
    let skills = SkillsConfig {
        paths: config.skill_paths.clone(),
        dcc: config.dcc.clone(),
        load: config.load_skills.clone(),
        call_timeout: config.call_timeout,
    };
    Skills::start(skills, on_change).map_err(AppError::Thread)
}

pub fn start_heartbeat(
    config: &Config,
    store: &Store,
    mut entry: Entry,
    address: SocketAddr,
    skills: &Skills,
) -> Result<Arc<Heartbeat>, AppError> {
    let register = |error: String| AppError::Register(error);
    let tools = skills.offer().published();
    store.publish_tools(&entry.instance_id, &tools).map_err(|error| register(error.to_string()))?;
    entry.tools_revision = fnv64_hex(&tools);
    let probe = Box::new(move || probe::answers(address));
    let heartbeat = Heartbeat::start(store.clone(), entry, config.heartbeat_interval, probe);
    heartbeat.map(Arc::new).map_err(|error| register(error.to_string()))
}

pub fn start_catalogue(
    config: &Config,
    store: &Store,
    access: &Arc<Access>,
    hub: &Arc<Hub>,
) -> Result<Arc<Catalogue>, AppError> {
    let settings = CatalogueSettings {
        store: store.clone(),
        own_tools: meta::own_tools(),
        own_tools_only: config.tool_list == ToolList::Meta,
        access: Arc::clone(access),
    };
    Catalogue::start(settings, Arc::clone(hub)).map_err(AppError::Thread)
}

pub fn entry(config: &Config, instance_id: &str, version: &str, advertised: &str, port: u16) -> Entry {
    let mut entry = Entry::of_this_process(instance_id.to_owned(), advertised.to_owned(), port);
    version.clone_into(&mut entry.server_version);
    entry.dcc_type.clone_from(&config.dcc);
    entry.server_name.clone_from(&config.server_name);
    entry.version.clone_from(&config.dcc_version);
    entry.scene.clone_from(&config.scene);
    entry.display_name.clone_from(&config.display_name);
    entry
}

/// `--advertise-host`, else the address bound if it is a specific one, else our own on the way to the network.
pub fn advertised_host(config: &Config) -> String {
    let bound = || (!config.host.is_unspecified()).then(|| config.host.to_string());
    let outward = || os::outward_address().map(|address| address.to_string());
    let host = config.advertise_host.clone().or_else(bound).or_else(outward).or_else(os::hostname);
    host.unwrap_or_else(|| "127.0.0.1".to_owned())
}

pub fn access(config: &Config, advertised: &str) -> Result<Access, AppError> {
    let mut hosts = config.allowed_hosts.clone();
    // The name we tell others to use is always served; where all names are, a list would only shut the others out.
    if !hosts.is_empty() || config.host.is_loopback() {
        hosts.push(advertised.to_owned());
    }
    Access::new(config.host, hosts, config.allowed_origins.clone(), config.auth_token_file.clone())
        .map_err(|error| AppError::TokenFile(config.auth_token_file.clone().unwrap_or_default(), error))
}

pub fn log_config(config: &Config, instance_id: &str) -> LogConfig {
    let name = crate::gateway::names::short(instance_id);
    let file = FileConfig {
        folder: config.log_dir.clone(),
        name,
        bytes_max: config.log_max_size,
        files_max: config.log_max_files,
    };
    LogConfig { level: config.log_level, file: config.log_file.then_some(file) }
}

pub fn serve_instance(
    config: &Config,
    access: &Arc<Access>,
    draining: &Arc<AtomicBool>,
    service: InstanceService,
    hub: &Arc<Hub>,
    heartbeat: &HeartbeatSlot,
    given: Option<TcpListener>,
) -> Result<Server, AppError> {
    let heartbeat = Arc::clone(heartbeat);
    let registered: Check = (
        "registered",
        Box::new(move || heartbeat.get().map_or(Err("not registered yet".to_owned()), |heartbeat| heartbeat.health())),
    );
    let site = InstanceSite {
        endpoint: Endpoint::new(Arc::new(service), Arc::clone(hub), config.server_name.clone(), config.call_timeout),
        status: Status::new(vec![registered], Arc::clone(draining)),
    };
    let address = SocketAddr::new(config.host, config.mcp_port);
    let listener = given.map_or_else(|| bind_beside(address, config.gateway_port), Ok);
    let listener = listener.map_err(|error| AppError::Bind(address, error))?;
    let front = Arc::new(Front { access: Arc::clone(access), site });
    Server::start("instance", listener, config.max_connections, front).map_err(|error| AppError::Bind(address, error))
}

/// Binds where the port is the system's choice, but not the gateway's: nobody could serve there then.
fn bind_beside(address: SocketAddr, gateway_port: Option<u16>) -> io::Result<TcpListener> {
    let first = bind(address)?;
    let is_taken = address.port() == 0 && first.local_addr().ok().map(|at| at.port()) == gateway_port;
    // Bound while the first one is held, it is another port.
    if is_taken { bind(address) } else { Ok(first) }
}

/// Where this process was paused, lists wait for the scan that is overdue.
pub fn settle(scanner: &Arc<Scanner>, catalogue: &Arc<Catalogue>) -> Box<dyn Fn() + Send + Sync> {
    let (scanner, catalogue) = (Arc::clone(scanner), Arc::clone(catalogue));
    Box::new(move || {
        scanner.on_waking(|| {
            catalogue.hold(SETTLE_MAX, None);
            let catalogue = Arc::clone(&catalogue);
            scanner.look_soon(Box::new(move || catalogue.release()));
        });
    })
}

/// Listening sockets that the service manager has given us.
#[derive(Default)]
pub struct Given {
    pub gateway: Option<TcpListener>,
    pub instance: Option<TcpListener>,
}

/// The sockets by their names: `instance`, and any other name for the gateway port. Each must be what the flags say.
pub fn given(config: &Config, sockets: Vec<(String, OwnedFd)>) -> Result<Given, AppError> {
    let mut given = Given::default();
    for (name, socket) in sockets {
        let (place, port) = match name.as_str() {
            "instance" => (&mut given.instance, config.mcp_port),
            _ => (&mut given.gateway, config.gateway_port.unwrap_or_default()),
        };
        let is_instance = name == "instance";
        let wrong = |what: String| AppError::Given(if is_instance { "instance" } else { "gateway" }, what);
        let listener = listening(socket).ok_or_else(|| wrong("is no TCP socket that listens".to_owned()))?;
        let at = listener.local_addr().map_err(|error| wrong(error.to_string()))?;
        let is_any_port = is_instance && port == 0;
        if at.ip() != config.host || (at.port() != port && !is_any_port) {
            let flag = if is_instance { "--mcp-port" } else { "--gateway-port" };
            return Err(wrong(format!(
                "is bound to {at}, but --host and {flag} say {}",
                SocketAddr::new(config.host, port)
            )));
        }
        if place.replace(listener).is_some() {
            return Err(wrong("is given twice".to_owned()));
        }
    }
    Ok(given)
}

/// Addresses of this host besides loopback, as far as they are known.
pub fn local_addresses(config: &Config, advertised: &str) -> Vec<IpAddr> {
    let bound = Some(config.host).filter(|host| !host.is_unspecified());
    [bound, advertised.parse().ok(), os::outward_address()].into_iter().flatten().collect()
}

pub fn heartbeat_check(heartbeat: &Arc<Heartbeat>) -> Box<dyn Fn() -> Result<(), String> + Send + Sync> {
    let heartbeat = Arc::clone(heartbeat);
    Box::new(move || heartbeat.health())
}
