//! From arguments and environment to a checked `Command`. The flags themselves are the table in `flags.rs`.
//!
//! **Invariant**: flags win over variables, both over defaults; what `parse` returns needs no further check. A wrong flag
//! or value is one line that names it and says what is accepted.
//! **Thread**: `main`; a pure function of its input, but for the system's temp folder.
//! **Bounds**: what the system allows for arguments; values as `value.rs` says.
//! Left out on purpose: a configuration file. Units, images and shells all have variables.

pub mod flags;
mod given;
pub mod help;
mod nearest;
#[cfg(test)]
mod papers;
mod value;

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use pico_args::Arguments;

use self::flags::{OTHER_VARIABLES, Verb, flag};
use self::given::{Environment, Given, free_argument, once_each, separate, shown, unexpected};
use self::nearest::nearest;
use self::value::Parsed;
use crate::skills::Load;

/// What the program was asked to do.
#[derive(Debug, PartialEq)]
pub enum Command {
    Serve(Box<Config>),
    /// Ask this URL for its health.
    Healthcheck {
        url: String,
    },
    /// List the instances: from the gateway at this address or, with none there, from the registry.
    Status(StatusConfig),
    Help,
    Version,
}

#[derive(Debug, PartialEq)]
pub struct StatusConfig {
    pub json: bool,
    pub gateway: Option<SocketAddr>,
    pub registry_dir: PathBuf,
    pub stale_timeout: Duration,
    pub auth_token_file: Option<PathBuf>,
}

/// Everything a server is told from outside.
#[derive(Debug, PartialEq)]
pub struct Config {
    pub host: IpAddr,
    pub advertise_host: Option<String>,
    /// 0: the system's choice.
    pub mcp_port: u16,
    /// None: never competes.
    pub gateway_port: Option<u16>,
    pub registry_dir: PathBuf,
    pub stale_timeout: Duration,
    pub heartbeat_interval: Duration,
    pub server_name: String,
    /// A UUID in lower case; None: a random one.
    pub instance_id: Option<String>,
    /// Empty when unknown.
    pub dcc: String,
    pub dcc_version: Option<String>,
    pub scene: Option<String>,
    pub display_name: Option<String>,
    /// In the order in which they are searched, each once.
    pub skill_paths: Vec<PathBuf>,
    pub load_skills: Load,
    pub tool_list: ToolList,
    pub call_timeout: Duration,
    pub drain_timeout: Duration,
    pub max_connections: usize,
    pub auth_token_file: Option<PathBuf>,
    /// `scheme://host[:port]` in lower case.
    pub allowed_origins: Vec<String>,
    /// `host[:port]` in lower case, IPv6 addresses in brackets.
    pub allowed_hosts: Vec<String>,
    pub log_level: LevelFilter,
    pub log_file: bool,
    pub log_dir: PathBuf,
    pub log_max_size: u64,
    pub log_max_files: usize,
    /// Variables that look like ours but are not known, to be logged once logging works.
    pub warnings: Vec<String>,
}

/// What `tools/list` of the gateway shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolList {
    Full,
    Meta,
}

/// Why the command line or the environment cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum UsageError {
    UnknownFlag { flag: String, nearest: Option<&'static str> },
    NotTakenBy { flag: &'static str, verb: Verb },
    NoValue { flag: &'static str },
    Twice { flag: &'static str },
    Value { name: String, value: String, accepted: &'static str },
    NotUtf8 { name: String },
    Unexpected { argument: String, nearest: Option<&'static str> },
    StaleTimeout { stale_timeout: Duration, heartbeat_interval: Duration },
    SamePort(u16),
    NoPort,
}

/// Reads the arguments, without the program's name, and the environment.
pub fn parse(args: Vec<OsString>, env: impl Iterator<Item = (OsString, OsString)>) -> Result<Command, UsageError> {
    // An empty variable counts as not set: units and compose files cannot always leave one out.
    let env: Environment = env
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let mut arguments = Arguments::from_vec(separate(args));
    let verb = verb(&mut arguments)?;
    let given = Given::read(verb, &env, |name| values_of(&mut arguments, name))?;
    if given.value("--help", value::boolean)? {
        return Ok(Command::Help);
    }
    if given.value("--version", value::boolean)? {
        return Ok(Command::Version);
    }
    let url = free_argument(arguments.finish(), verb)?;
    match verb {
        Verb::Serve => Ok(Command::Serve(Box::new(serve(&given, &env)?))),
        Verb::Healthcheck => Ok(Command::Healthcheck { url: health_url(url, &given)? }),
        Verb::Status => Ok(Command::Status(StatusConfig {
            json: given.value("--json", value::boolean)?,
            gateway: gateway_port(&given)?.map(|port| local_address(&given, port)).transpose()?,
            registry_dir: registry_dir(&given),
            stale_timeout: given.value("--stale-timeout", value::seconds_above_zero)?,
            auth_token_file: given.path("--auth-token-file"),
        })),
    }
}

fn serve(given: &Given, env: &Environment) -> Result<Config, UsageError> {
    let dcc = given.optional("--dcc", value::dcc)?.unwrap_or_default();
    let config = Config {
        host: given.value("--host", value::address)?,
        advertise_host: given.optional("--advertise-host", value::reachable_host)?,
        mcp_port: given.value("--mcp-port", value::port)?,
        gateway_port: gateway_port(given)?,
        registry_dir: registry_dir(given),
        stale_timeout: given.value("--stale-timeout", value::seconds_above_zero)?,
        heartbeat_interval: given.value("--heartbeat-interval", value::heartbeat_seconds)?,
        server_name: given.value("--server-name", value::text)?,
        instance_id: given.optional("--instance-id", value::uuid)?,
        skill_paths: skill_paths(given, env, &dcc),
        dcc,
        dcc_version: given.optional("--dcc-version", value::text)?,
        scene: given.optional("--scene", value::text)?,
        display_name: given.optional("--display-name", value::text)?,
        load_skills: load_skills(given)?,
        tool_list: given.value("--tool-list", tool_list)?,
        call_timeout: given.value("--call-timeout", value::seconds_above_zero)?,
        drain_timeout: given.value("--drain-timeout", value::seconds)?,
        max_connections: given.value("--max-connections", value::connections)?,
        auth_token_file: given.path("--auth-token-file"),
        allowed_origins: given.list("--allowed-origins", value::origin)?,
        allowed_hosts: given.list("--allowed-hosts", value::host)?,
        log_level: given.value("--log-level", value::log_level)?,
        log_file: given.value("--log-file", value::boolean)?,
        log_dir: given.path("--log-dir").unwrap_or_else(|| log_dir(env)),
        log_max_size: given.value("--log-max-size", value::bytes)?,
        log_max_files: given.value("--log-max-files", value::files)?,
        warnings: warnings(env),
    };
    check_together(config)
}

/// What no flag can be told to be wrong alone.
fn check_together(config: Config) -> Result<Config, UsageError> {
    let Config { stale_timeout, heartbeat_interval, mcp_port, gateway_port, .. } = config;
    if stale_timeout <= heartbeat_interval {
        return Err(UsageError::StaleTimeout { stale_timeout, heartbeat_interval });
    }
    if gateway_port == Some(mcp_port) {
        return Err(UsageError::SamePort(mcp_port));
    }
    Ok(config)
}

fn tool_list(text: &str) -> Parsed<ToolList> {
    match text {
        "full" => Ok(ToolList::Full),
        "meta" => Ok(ToolList::Meta),
        _ => Err("full or meta"),
    }
}

fn gateway_port(given: &Given) -> Result<Option<u16>, UsageError> {
    Ok(Some(given.value("--gateway-port", value::port)?).filter(|port| *port != 0))
}

fn registry_dir(given: &Given) -> PathBuf {
    given.path("--registry-dir").unwrap_or_else(|| std::env::temp_dir().join("dcc-mcp-registry"))
}

fn load_skills(given: &Given) -> Result<Load, UsageError> {
    let names = given.list("--load-skills", value::skill_name)?;
    Ok(match names.as_slice() {
        [] => Load::None,
        names if names.iter().any(|name| name == "all") => Load::All,
        _ => Load::Names(names),
    })
}

/// Flags first, then the variable for all, then that of the application type. This is the one flag to which its
/// variables add, as a studio's folders stay useful when somebody names one more.
fn skill_paths(given: &Given, env: &Environment, dcc: &str) -> Vec<PathBuf> {
    let of_dcc = dcc.to_ascii_uppercase().replace(['-', '.'], "_");
    let variables = ["DCC_MCP_SKILL_PATHS".to_owned(), format!("DCC_MCP_{of_dcc}_SKILL_PATHS")];
    let from_flags = given.sources("--skill-paths").iter().filter(|source| source.is_flag).map(|source| &source.value);
    let lists = from_flags.chain(variables.iter().filter_map(|name| env.get(name)));
    once_each(lists.flat_map(|list| value::folders(list)))
}

/// What systemd gives with `LogsDirectory=`, else the user's state folder (XDG Base Directory Specification).
fn log_dir(env: &Environment) -> PathBuf {
    let folder = |name: &str| {
        let list = env.get(name)?;
        value::folders(list).next().filter(|folder| folder.is_absolute())
    };
    let state = || folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
    let ours = || Some(state()?.join("dcc-mcp-server/logs"));
    folder("LOGS_DIRECTORY").or_else(ours).unwrap_or_else(|| std::env::temp_dir().join("dcc-mcp-server-logs"))
}

/// A misspelt variable would otherwise be the quietest of mistakes.
fn warnings(env: &Environment) -> Vec<String> {
    let known = || flags::all().filter_map(|flag| flag.variable).chain(OTHER_VARIABLES);
    let is_known = |name: &str| known().any(|known| known == name) || name.ends_with("_SKILL_PATHS");
    let unknown = env.keys().filter(|name| name.starts_with("DCC_MCP_") && !is_known(name));
    let warning = |name: &String| match nearest(name, known()) {
        Some(nearest) => format!("event=unknown_variable name={} did_you_mean={nearest}", shown(OsStr::new(name))),
        None => format!("event=unknown_variable name={}", shown(OsStr::new(name))),
    };
    unknown.map(warning).collect()
}

fn health_url(url: Option<OsString>, given: &Given) -> Result<String, UsageError> {
    let Some(url) = url else {
        let port = match (gateway_port(given)?, given.value("--mcp-port", value::port)?) {
            (Some(port), _) => port,
            (None, 0) => return Err(UsageError::NoPort),
            (None, port) => port,
        };
        return Ok(format!("http://{}/health", local_address(given, port)?));
    };
    let wrong = || UsageError::Value {
        name: "healthcheck".to_owned(),
        value: shown(&url),
        accepted: "a URL such as http://127.0.0.1:9765/health",
    };
    let text = url.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic())).ok_or_else(wrong)?;
    let authority = text.strip_prefix("http://").ok_or_else(wrong)?;
    match authority.split_once('/') {
        Some((host, _)) if value::host(host).is_ok() => Ok(text.to_owned()),
        None if value::host(authority).is_ok() => Ok(format!("{text}/health")),
        _ => Err(wrong()),
    }
}

/// Where a server on this machine that was started with the same flags answers.
fn local_address(given: &Given, port: u16) -> Result<SocketAddr, UsageError> {
    let host = match given.value("--host", value::address)? {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    Ok(SocketAddr::new(host, port))
}

fn verb(arguments: &mut Arguments) -> Result<Verb, UsageError> {
    let not_utf8 = |_| UsageError::NotUtf8 { name: "the first argument".to_owned() };
    match arguments.subcommand().map_err(not_utf8)?.as_deref() {
        None => Ok(Verb::Serve),
        Some("healthcheck") => Ok(Verb::Healthcheck),
        Some("status") => Ok(Verb::Status),
        Some(other) => Err(unexpected(OsStr::new(other))),
    }
}

/// All values of a flag, in the order in which they were given.
fn values_of(arguments: &mut Arguments, name: &'static str) -> Result<Vec<OsString>, UsageError> {
    let values = arguments.values_from_os_str(name, |value| Ok::<_, Infallible>(value.to_owned()));
    values.map_err(|_| UsageError::NoValue { flag: name })
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsageError::UnknownFlag { flag, nearest: Some(nearest) } => {
                write!(f, "unknown flag {flag}; did you mean {nearest}?")
            }
            UsageError::UnknownFlag { flag, nearest: None } => write!(f, "unknown flag {flag}; --help lists all flags"),
            UsageError::NotTakenBy { flag, verb } => write!(f, "{flag} is not taken by {verb}; --help lists all flags"),
            UsageError::NoValue { flag: name } => {
                let value = flag(name).map_or("VALUE", |flag| flag.value);
                write!(f, "{name} needs a value: {name} <{value}>")
            }
            UsageError::Twice { flag } => write!(f, "{flag} is given twice; it takes one value"),
            UsageError::Value { name, value, accepted } => {
                write!(f, "{name} does not take {value}; it takes {accepted}")
            }
            UsageError::NotUtf8 { name } => write!(f, "{name} is not UTF-8; only paths may be other bytes"),
            UsageError::Unexpected { argument, nearest: Some(nearest) } => {
                write!(f, "unexpected argument {argument}; did you mean {nearest}?")
            }
            UsageError::Unexpected { argument, nearest: None } => {
                write!(f, "unexpected argument {argument}; flags begin with --, and healthcheck or status comes first")
            }
            UsageError::StaleTimeout { stale_timeout, heartbeat_interval } => write!(
                f,
                "--stale-timeout of {} s must be longer than --heartbeat-interval of {} s; three times as long is safe",
                stale_timeout.as_secs_f64(),
                heartbeat_interval.as_secs_f64()
            ),
            UsageError::SamePort(port) => {
                write!(f, "--mcp-port and --gateway-port are both {port}; give two ports, or --mcp-port 0 for any")
            }
            UsageError::NoPort => {
                f.write_str("healthcheck has no port to ask; give a URL, --gateway-port or --mcp-port above 0")
            }
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Serve => "serve",
            Verb::Healthcheck => "healthcheck",
            Verb::Status => "status",
        })
    }
}

impl std::error::Error for UsageError {}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn os(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn run(args: &[&str], env: &[(&str, &str)]) -> Result<Command, UsageError> {
        parse(os(args), env.iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn config(args: &[&str], env: &[(&str, &str)]) -> Config {
        match run(args, env) {
            Ok(Command::Serve(config)) => *config,
            other => panic!("{args:?} {env:?}: {other:?}"),
        }
    }

    fn error(args: &[&str], env: &[(&str, &str)]) -> String {
        let error = run(args, env).expect_err("a usage error").to_string();
        assert!(!error.contains(char::is_control), "{error:?}");
        error
    }

    #[test]
    fn defaults() {
        let expected = Config {
            host: Ipv4Addr::LOCALHOST.into(),
            advertise_host: None,
            mcp_port: 0,
            gateway_port: Some(9765),
            registry_dir: std::env::temp_dir().join("dcc-mcp-registry"),
            stale_timeout: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(5),
            server_name: "dcc-mcp-server".to_owned(),
            instance_id: None,
            dcc: String::new(),
            dcc_version: None,
            scene: None,
            display_name: None,
            skill_paths: vec![],
            load_skills: Load::None,
            tool_list: ToolList::Full,
            call_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(20),
            max_connections: 4096,
            auth_token_file: None,
            allowed_origins: vec![],
            allowed_hosts: vec![],
            log_level: LevelFilter::Info,
            log_file: false,
            log_dir: "/home/me/.local/state/dcc-mcp-server/logs".into(),
            log_max_size: 10 * 1024 * 1024,
            log_max_files: 7,
            warnings: vec![],
        };
        assert_eq!(config(&[], &[("HOME", "/home/me"), ("DCC_MCP_DCC", ""), ("PATH", "/bin")]), expected);
    }

    /// Every flag has a value of its own here, given once by flag and once by variable, with the same result.
    #[test]
    fn flags_and_variables_mean_the_same() {
        let values = [
            ("--host", "0.0.0.0"),
            ("--advertise-host", "node7.farm"),
            ("--mcp-port", "18812"),
            ("--gateway-port", "0"),
            ("--registry-dir", "/r"),
            ("--stale-timeout", "10"),
            ("--heartbeat-interval", "1.5"),
            ("--server-name", "Studio"),
            ("--instance-id", "0F8FAD5B-D9CB-469F-A165-70867728950E"),
            ("--dcc", "maya"),
            ("--dcc-version", "2026"),
            ("--scene", "/shots/a b.ma"),
            ("--display-name", "Rig"),
            ("--skill-paths", "/a:/b;/a"),
            ("--load-skills", "one, two,one"),
            ("--tool-list", "meta"),
            ("--call-timeout", "0.25"),
            ("--drain-timeout", "0"),
            ("--max-connections", "64"),
            ("--auth-token-file", "/t"),
            ("--allowed-origins", "https://A.example,http://b:8080"),
            ("--allowed-hosts", "mcp.example,10.0.0.5:9765"),
            ("--log-level", "debug"),
            ("--log-file", "yes"),
            ("--log-dir", "/l"),
            ("--log-max-size", "1MiB"),
            ("--log-max-files", "3"),
        ];
        let flags: Vec<&flags::Flag> = flags::all().filter(|flag| flag.variable.is_some()).collect();
        assert_eq!(values.map(|(name, _)| name).to_vec(), flags.iter().map(|flag| flag.name).collect::<Vec<_>>());

        let by_equals: Vec<String> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let by_equals = config(&by_equals.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        let variables: Vec<_> =
            flags.iter().zip(values).map(|(flag, (_, value))| (flag.variable.unwrap(), value)).collect();
        assert_eq!(config(&[], &variables), by_equals);
        let words = values.iter().flat_map(|(name, value)| match *name {
            "--log-file" => vec!["--log-file"],
            name => vec![name, *value],
        });
        assert_eq!(config(&words.collect::<Vec<_>>(), &[]), by_equals);

        let expected = Config {
            host: Ipv4Addr::UNSPECIFIED.into(),
            advertise_host: Some("node7.farm".to_owned()),
            mcp_port: 18812,
            gateway_port: None,
            registry_dir: "/r".into(),
            stale_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_millis(1500),
            server_name: "Studio".to_owned(),
            instance_id: Some("0f8fad5b-d9cb-469f-a165-70867728950e".to_owned()),
            dcc: "maya".to_owned(),
            dcc_version: Some("2026".to_owned()),
            scene: Some("/shots/a b.ma".to_owned()),
            display_name: Some("Rig".to_owned()),
            skill_paths: vec!["/a".into(), "/b".into()],
            load_skills: Load::Names(vec!["one".to_owned(), "two".to_owned()]),
            tool_list: ToolList::Meta,
            call_timeout: Duration::from_millis(250),
            drain_timeout: Duration::ZERO,
            max_connections: 64,
            auth_token_file: Some("/t".into()),
            allowed_origins: vec!["https://a.example".to_owned(), "http://b:8080".to_owned()],
            allowed_hosts: vec!["mcp.example".to_owned(), "10.0.0.5:9765".to_owned()],
            log_level: LevelFilter::Debug,
            log_file: true,
            log_dir: "/l".into(),
            log_max_size: 1 << 20,
            log_max_files: 3,
            warnings: vec![],
        };
        assert_eq!(by_equals, expected);
    }

    #[test]
    fn flags_win_and_lists_replace() {
        let env = [
            ("DCC_MCP_DCC", "blender"),
            ("DCC_MCP_LOG_FILE", "true"),
            ("DCC_MCP_STALE_TIMEOUT", "not read, since a flag wins"),
            ("DCC_MCP_ALLOWED_HOSTS", "a"),
            ("DCC_MCP_LOAD_SKILLS", "a"),
        ];
        let args = "--dcc maya --log-file=false --stale-timeout-secs 60 --heartbeat-secs 6 --allowed-hosts b \
                    --allowed-hosts c,b --load-skills all";
        let config = config(&args.split_whitespace().collect::<Vec<_>>(), &env);
        assert_eq!((config.dcc.as_str(), config.log_file), ("maya", false));
        assert_eq!((config.stale_timeout.as_secs(), config.heartbeat_interval.as_secs()), (60, 6));
        assert!(self::config(&["--log-file", "on", "--dcc", "x"], &[]).log_file);
        assert!(!self::config(&["--log-file", "false"], &[]).log_file);
        assert_eq!((config.allowed_hosts, config.load_skills), (vec!["b".to_owned(), "c".to_owned()], Load::All));
    }

    #[test]
    fn skill_paths_add_up_in_order() {
        let env = [
            ("DCC_MCP_SKILL_PATHS", "/general;/flag"),
            ("DCC_MCP_3DS_MAX_SKILL_PATHS", "/max:/general"),
            ("DCC_MCP_MAYA_SKILL_PATHS", "/maya"),
        ];
        let max = config(&["--skill-paths", "/flag", "--dcc", "3ds-max", "--skill-paths=/second"], &env);
        assert_eq!(max.skill_paths, ["/flag", "/second", "/general", "/max"].map(PathBuf::from));
        assert_eq!(config(&[], &env).skill_paths, ["/general", "/flag"].map(PathBuf::from));
    }

    #[test]
    fn paths_need_not_be_utf8_but_the_rest_must() {
        let odd = |text: &str| OsString::from_vec([text.as_bytes(), b"\xff"].concat());
        let args = vec![odd("--registry-dir=/r"), "--log-dir".into(), odd("/l")];
        let Ok(Command::Serve(config)) = parse(args, std::iter::empty()) else { panic!("odd paths are taken") };
        assert_eq!((config.registry_dir.into_os_string(), config.log_dir.into_os_string()), (odd("/r"), odd("/l")));
        for (args, expected) in [
            (vec![odd("--scene=")], "--scene is not UTF-8; only paths may be other bytes"),
            (vec!["--dcc".into(), odd("m")], "--dcc is not UTF-8; only paths may be other bytes"),
            (vec![odd("x")], "the first argument is not UTF-8; only paths may be other bytes"),
            (vec!["--log-file".into(), odd("--x")], "unknown flag \"--x\u{fffd}\"; --help lists all flags"),
        ] {
            assert_eq!(parse(args, std::iter::empty()).unwrap_err().to_string(), expected);
        }
        let env = [("DCC_MCP_SCENE".into(), odd("")), (odd("DCC_MCP_"), "x".into())];
        let error = parse(vec![], env.into_iter()).unwrap_err().to_string();
        assert_eq!(error, "DCC_MCP_SCENE is not UTF-8; only paths may be other bytes");
    }

    #[test]
    fn usage_errors() {
        let cases: &[(&[&str], &str)] = &[
            (&["--dccc", "maya"], "unknown flag \"--dccc\"; did you mean --dcc?"),
            (&["--dccc=maya"], "unknown flag \"--dccc\"; did you mean --dcc?"),
            (&["--xyzzy"], "unknown flag \"--xyzzy\"; --help lists all flags"),
            (&["-x"], "unknown flag \"-x\"; --help lists all flags"),
            (&["--"], "unknown flag \"--\"; --help lists all flags"),
            (&["--json"], "--json is not taken by serve; --help lists all flags"),
            (&["status", "--dcc", "x"], "--dcc is not taken by status; --help lists all flags"),
            (&["--dcc"], "--dcc needs a value: --dcc <TYPE>"),
            (&["--dcc", ""], "--dcc needs a value: --dcc <TYPE>"),
            (&["--dcc="], "--dcc needs a value: --dcc <TYPE>"),
            (&["--dcc", "--scene", "x"], "--dcc needs a value: --dcc <TYPE>"),
            (&["--stale-timeout-secs"], "--stale-timeout-secs needs a value: --stale-timeout-secs <SECONDS>"),
            (&["--dcc", "a", "--dcc", "b"], "--dcc is given twice; it takes one value"),
            (
                &["--heartbeat-secs", "2", "--heartbeat-interval", "3"],
                "--heartbeat-interval is given twice; it takes one value",
            ),
            (&["--mcp-port", "70000"], "--mcp-port does not take \"70000\"; it takes a port from 0 to 65535"),
            (&["--tool-list", "some"], "--tool-list does not take \"some\"; it takes full or meta"),
            (
                &["--log-file=maybe"],
                "--log-file does not take \"maybe\"; it takes true or false (also 1, yes, on, 0, no, off)",
            ),
            (
                &["--log-level", "a\nb"],
                "--log-level does not take \"a\\nb\"; it takes error, warn, info, debug or trace",
            ),
            (
                &["--log-file", "maybe"],
                "unexpected argument \"maybe\"; flags begin with --, and healthcheck or status comes first",
            ),
            (&["stauts"], "unexpected argument \"stauts\"; did you mean status?"),
            (&["help"], "unexpected argument \"help\"; did you mean --help?"),
            (
                &["--dcc", "maya", "status"],
                "unexpected argument \"status\"; flags begin with --, and healthcheck or status comes first",
            ),
            (
                &["--stale-timeout", "5"],
                "--stale-timeout of 5 s must be longer than --heartbeat-interval of 5 s; three times as long is safe",
            ),
            (
                &["--mcp-port", "9765"],
                "--mcp-port and --gateway-port are both 9765; give two ports, or --mcp-port 0 for any",
            ),
            (
                &["--allowed-origins", "https://a.example,*"],
                "--allowed-origins does not take \"*\"; it takes origins such as https://tools.example.com or \
                 http://10.0.0.5:8080, without a path; not * or null",
            ),
        ];
        for (args, expected) in cases {
            assert_eq!(error(args, &[]), *expected, "{args:?}");
        }
        let long = error(&["--dcc", &"x".repeat(100_000)], &[]);
        assert!(long.len() < 300, "{long}");
        assert_eq!(
            error(&[], &[("DCC_MCP_GATEWAY_PORT", "many")]),
            "DCC_MCP_GATEWAY_PORT does not take \"many\"; it takes a port from 0 to 65535"
        );
    }

    #[test]
    fn unknown_variables_are_warned_about() {
        let env = [
            ("DCC_MCP_GATEWAY_PROT", "1"),
            ("DCC_MCP_XYZZY", "1"),
            ("DCC_MCP_EMPTY", ""),
            ("DCC_MCP_HOUDINI_SKILL_PATHS", "/h"),
            ("DCC_MCP_PYTHON_EXECUTABLE", "/p"),
            ("DCC_MCP_ALLOW_AMBIENT_PYTHON", "1"),
            ("DCC_OTHER", "1"),
        ];
        let expected = [
            "event=unknown_variable name=\"DCC_MCP_GATEWAY_PROT\" did_you_mean=DCC_MCP_GATEWAY_PORT",
            "event=unknown_variable name=\"DCC_MCP_XYZZY\"",
        ];
        assert_eq!(config(&[], &env).warnings, expected);
    }

    #[test]
    fn log_folders() {
        for (env, expected) in [
            (vec![("LOGS_DIRECTORY", "/var/log/dcc-mcp:/x"), ("HOME", "/h")], "/var/log/dcc-mcp"),
            (vec![("XDG_STATE_HOME", "/s"), ("HOME", "/h")], "/s/dcc-mcp-server/logs"),
            (vec![("XDG_STATE_HOME", "relative"), ("HOME", "/h")], "/h/.local/state/dcc-mcp-server/logs"),
            (vec![], std::env::temp_dir().join("dcc-mcp-server-logs").to_str().unwrap()),
        ] {
            assert_eq!(config(&[], &env).log_dir, PathBuf::from(expected), "{env:?}");
        }
    }

    #[test]
    fn help_and_version_win_over_what_is_missing() {
        assert_eq!(run(&["--help"], &[("DCC_MCP_HOST", "wrong")]), Ok(Command::Help));
        assert_eq!(run(&["status", "-h", "--xyzzy"], &[]), Ok(Command::Help));
        assert_eq!(run(&["-V"], &[]), Ok(Command::Version));
    }

    #[test]
    fn healthcheck() {
        let url = |args: &[&str], env: &[(&str, &str)]| match run(&[&["healthcheck"], args].concat(), env) {
            Ok(Command::Healthcheck { url }) => url,
            other => panic!("{args:?}: {other:?}"),
        };
        assert_eq!(url(&[], &[]), "http://127.0.0.1:9765/health");
        assert_eq!(
            url(&[], &[("DCC_MCP_HOST", "0.0.0.0"), ("DCC_MCP_LOG_LEVEL", "x")]),
            "http://127.0.0.1:9765/health"
        );
        assert_eq!(url(&["--host", "::", "--gateway-port", "80"], &[]), "http://[::1]:80/health");
        assert_eq!(url(&["--gateway-port=0", "--mcp-port=18812"], &[]), "http://127.0.0.1:18812/health");
        assert_eq!(url(&["http://node:1234"], &[]), "http://node:1234/health");
        assert_eq!(url(&["http://node:1234/readyz"], &[("DCC_MCP_GATEWAY_PORT", "0")]), "http://node:1234/readyz");
        let accepted = "it takes a URL such as http://127.0.0.1:9765/health";
        for bad in ["https://node", "node:1234", "http://", "http://a b/", "http://x/\n", "ftp://x"] {
            assert!(error(&["healthcheck", bad], &[]).ends_with(accepted), "{bad}");
        }
        assert!(error(&["healthcheck", "http://a", "b"], &[]).starts_with("unexpected argument \"b\""));
        assert!(error(&["healthcheck", "--gateway-port", "0"], &[]).starts_with("healthcheck has no port to ask"));
    }

    #[test]
    fn status() {
        let expected = StatusConfig {
            json: true,
            gateway: Some("127.0.0.1:9000".parse().unwrap()),
            registry_dir: "/r".into(),
            stale_timeout: Duration::from_secs(30),
            auth_token_file: Some("/t".into()),
        };
        let env = [("DCC_MCP_GATEWAY_PORT", "9000"), ("DCC_MCP_AUTH_TOKEN_FILE", "/t")];
        assert_eq!(run(&["status", "--json", "--registry-dir", "/r"], &env), Ok(Command::Status(expected)));
        let Ok(Command::Status(plain)) = run(&["status", "--gateway-port", "0"], &[]) else {
            panic!("status is taken")
        };
        assert_eq!((plain.json, plain.gateway), (false, None));
    }
}
