//! Flags and environment → a checked `Config`. One table serves the parser, `--help` and the check of variables.
//!
//! **Invariant**: flags win over the environment, both over defaults. A wrong flag or value is one line that names it
//! and says what is accepted.
//! **Thread**: `main`, before anything else runs.
//! Left out on purpose: configuration files.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pico_args::Arguments;

use crate::skills::Load;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    Serve(Box<Config>),
    Help,
    Version,
}

#[derive(Debug)]
pub struct Config {
    pub host: IpAddr,
    pub advertise_host: Option<String>,
    pub mcp_port: u16,
    /// `None`: never compete for it.
    pub gateway_port: Option<u16>,
    pub registry_dir: PathBuf,
    pub stale_timeout: Duration,
    pub heartbeat_interval: Duration,
    pub server_name: String,
    pub instance_id: Option<String>,
    pub dcc: String,
    pub dcc_version: Option<String>,
    pub scene: Option<String>,
    pub display_name: Option<String>,
    pub skill_paths: Vec<PathBuf>,
    pub load_skills: Load,
    pub own_tools_only: bool,
    pub call_timeout: Duration,
    pub drain_timeout: Duration,
    pub max_connections: usize,
    pub auth_token_file: Option<PathBuf>,
    pub allowed_origins: Vec<String>,
    pub allowed_hosts: Vec<String>,
    pub log_level: log::LevelFilter,
    pub log_file: bool,
    pub log_dir: PathBuf,
    pub log_max_size: u64,
    pub log_max_files: usize,
    /// Variables that begin like ours and are none.
    pub warnings: Vec<String>,
}

/// Says what is wrong and what is accepted, in one line.
#[derive(Debug, PartialEq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

struct Flag {
    name: &'static str,
    alias: &'static str,
    variable: &'static str,
    default: &'static str,
    help: &'static str,
}

const fn flag(
    name: &'static str,
    alias: &'static str,
    variable: &'static str,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, alias, variable, default, help }
}

/// In the order of `--help`.
const FLAGS: [Flag; 27] = [
    flag("--host", "", "DCC_MCP_HOST", "127.0.0.1", "address to bind, both ports"),
    flag("--advertise-host", "", "DCC_MCP_ADVERTISE_HOST", "", "address that others reach us at"),
    flag("--mcp-port", "", "DCC_MCP_MCP_PORT", "0", "this instance's own port; 0: the system chooses"),
    flag("--gateway-port", "", "DCC_MCP_GATEWAY_PORT", "9765", "port to compete for; 0: never"),
    flag("--registry-dir", "", "DCC_MCP_REGISTRY_DIR", "", "shared folder (default: <temp dir>/dcc-mcp-registry)"),
    flag("--stale-timeout", "--stale-timeout-secs", "DCC_MCP_STALE_TIMEOUT", "30", "seconds without a beat: dead"),
    flag("--heartbeat-interval", "--heartbeat-secs", "DCC_MCP_HEARTBEAT_INTERVAL", "5", "seconds between beats"),
    flag("--server-name", "", "DCC_MCP_SERVER_NAME", "dcc-mcp-server", "name told to MCP clients"),
    flag("--instance-id", "", "DCC_MCP_INSTANCE_ID", "", "a UUID, to keep tool names over restarts"),
    flag("--dcc", "", "DCC_MCP_DCC", "", "application type: maya, blender, generic …"),
    flag("--dcc-version", "", "DCC_MCP_DCC_VERSION", "", "the application's version"),
    flag("--scene", "", "DCC_MCP_SCENE", "", "the open scene"),
    flag("--display-name", "", "DCC_MCP_DISPLAY_NAME", "", "label to tell two instances apart"),
    flag("--skill-paths", "", "DCC_MCP_SKILL_PATHS", "", "skill folders, \":\" or \";\" between"),
    flag("--load-skills", "", "DCC_MCP_LOAD_SKILLS", "", "skills loaded at start: names, or all"),
    flag("--tool-list", "", "DCC_MCP_TOOL_LIST", "full", "gateway's tools/list: full or meta"),
    flag("--call-timeout", "", "DCC_MCP_CALL_TIMEOUT", "120", "seconds for one tool call"),
    flag("--drain-timeout", "", "DCC_MCP_DRAIN_TIMEOUT", "20", "seconds that running calls get at stop"),
    flag("--max-connections", "", "DCC_MCP_MAX_CONNECTIONS", "4096", "per port; beyond: 503"),
    flag("--auth-token-file", "", "DCC_MCP_AUTH_TOKEN_FILE", "", "bearer tokens, one a line"),
    flag("--allowed-origins", "", "DCC_MCP_ALLOWED_ORIGINS", "", "web origins besides loopback"),
    flag("--allowed-hosts", "", "DCC_MCP_ALLOWED_HOSTS", "", "Host values besides loopback"),
    flag("--log-level", "", "DCC_MCP_LOG_LEVEL", "info", "error warn info debug trace"),
    flag("--log-file", "", "DCC_MCP_LOG_FILE", "false", "also write rotating files: true or false"),
    flag("--log-dir", "", "DCC_MCP_LOG_DIR", "", "their folder (default: <temp dir>/dcc-mcp-logs)"),
    flag("--log-max-size", "", "DCC_MCP_LOG_MAX_SIZE", "10485760", "bytes of one file"),
    flag("--log-max-files", "", "DCC_MCP_LOG_MAX_FILES", "7", "files kept"),
];

/// Variables of ours that are no flags.
const OTHER_VARIABLES: [&str; 2] = ["DCC_MCP_PYTHON_EXECUTABLE", "DCC_MCP_ALLOW_AMBIENT_PYTHON"];

pub fn parse(
    arguments: Vec<OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Command, UsageError> {
    let mut arguments = Arguments::from_vec(arguments);
    if arguments.contains(["-h", "--help"]) {
        return Ok(Command::Help);
    }
    if arguments.contains(["-V", "--version"]) {
        return Ok(Command::Version);
    }
    let environment: Vec<(String, String)> =
        environment.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    let mut source = Source { arguments, environment };
    let config = read(&mut source)?;
    match source.arguments.finish().first() {
        Some(rest) => Err(UsageError(format!("unknown argument {rest:?}; --help lists what there is"))),
        None => Ok(Command::Serve(Box::new(config))),
    }
}

/// The text of `--help`.
pub fn help() -> String {
    let mut out = String::from(
        "dcc-mcp-server: one MCP endpoint over every live DCC instance\n\nUsage: dcc-mcp-server [flags]\n\n",
    );
    for Flag { name, variable, default, help, .. } in &FLAGS {
        let default = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        out.push_str(&format!("  {name} <value>\n      {help}{default}\n      {variable}\n"));
    }
    out.push_str("  --help, --version\n\nExit codes: 0 stopped on request, 2 usage, 3 cannot bind or register,\n");
    out.push_str("4 a listener was lost, 5 a thread died\n");
    out
}

struct Source {
    arguments: Arguments,
    environment: Vec<(String, String)>,
}

impl Source {
    /// All values of a flag; without any, that of its variable; without that, the default.
    fn all(&mut self, name: &'static str) -> Result<Vec<String>, UsageError> {
        let flag = FLAGS.iter().find(|flag| flag.name == name).expect("only flags of the table are asked for");
        let mut values: Vec<String> = Vec::new();
        for spelling in [flag.name, flag.alias].into_iter().filter(|spelling| !spelling.is_empty()) {
            let given = self.arguments.values_from_str::<_, String>(spelling);
            values.extend(given.map_err(|error| UsageError(format!("{spelling}: {error}")))?);
        }
        if values.is_empty() {
            values.extend(self.variable(flag.variable));
        }
        if values.is_empty() && !flag.default.is_empty() {
            values.push(flag.default.to_owned());
        }
        Ok(values)
    }

    fn variable(&self, name: &str) -> Option<String> {
        let found = self.environment.iter().find(|(variable, value)| variable == name && !value.is_empty());
        found.map(|(_, value)| value.clone())
    }

    fn one(&mut self, name: &'static str) -> Result<Option<String>, UsageError> {
        let values = self.all(name)?;
        match values.len() {
            0 | 1 => Ok(values.into_iter().next()),
            _ => Err(UsageError(format!("{name} is given more than once"))),
        }
    }

    fn parsed<T: FromStr>(&mut self, name: &'static str, accepted: &str) -> Result<T, UsageError> {
        let value = self.one(name)?.unwrap_or_default();
        value.parse().map_err(|_| UsageError(format!("{name} does not take {value:?}; it takes {accepted}")))
    }

    fn seconds(&mut self, name: &'static str) -> Result<Duration, UsageError> {
        let seconds: f64 = self.parsed(name, "seconds, such as 30 or 2.5")?;
        let fits = (0.001..=86_400.0 * 365.0).contains(&seconds);
        let error = || UsageError(format!("{name} does not take {seconds}; it takes seconds above 0"));
        fits.then(|| Duration::from_secs_f64(seconds)).ok_or_else(error)
    }

    fn list(&mut self, name: &'static str, separators: &[char]) -> Result<Vec<String>, UsageError> {
        let values = self.all(name)?;
        let parts = values.iter().flat_map(|value| value.split(separators)).map(str::trim);
        Ok(parts.filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }
}

fn read(source: &mut Source) -> Result<Config, UsageError> {
    let temp = std::env::temp_dir();
    let dcc = source.one("--dcc")?.unwrap_or_default();
    let load = source.list("--load-skills", &[','])?;
    let config = Config {
        host: source.parsed("--host", "an IP address, such as 127.0.0.1 or 0.0.0.0")?,
        advertise_host: source.one("--advertise-host")?,
        mcp_port: source.parsed("--mcp-port", "a port, 0 to 65535")?,
        gateway_port: Some(source.parsed("--gateway-port", "a port, 0 to 65535")?).filter(|port| *port != 0),
        registry_dir: source.one("--registry-dir")?.map_or_else(|| temp.join("dcc-mcp-registry"), PathBuf::from),
        stale_timeout: source.seconds("--stale-timeout")?,
        heartbeat_interval: source.seconds("--heartbeat-interval")?,
        server_name: source.one("--server-name")?.unwrap_or_default(),
        instance_id: source.one("--instance-id")?,
        dcc_version: source.one("--dcc-version")?,
        scene: source.one("--scene")?,
        display_name: source.one("--display-name")?,
        skill_paths: skill_paths(source, &dcc)?,
        load_skills: match load.as_slice() {
            [] => Load::None,
            [all] if all == "all" => Load::All,
            _ => Load::Names(load),
        },
        own_tools_only: match source.one("--tool-list")?.as_deref() {
            Some("full") => false,
            Some("meta") => true,
            other => return Err(UsageError(format!("--tool-list does not take {other:?}; it takes full or meta"))),
        },
        call_timeout: source.seconds("--call-timeout")?,
        drain_timeout: source.seconds("--drain-timeout")?,
        max_connections: source.parsed("--max-connections", "a number of connections, 1 or more")?,
        auth_token_file: source.one("--auth-token-file")?.map(PathBuf::from),
        allowed_origins: source.list("--allowed-origins", &[','])?,
        allowed_hosts: source.list("--allowed-hosts", &[','])?,
        log_level: source.parsed("--log-level", "error, warn, info, debug or trace")?,
        log_file: source.parsed("--log-file", "true or false")?,
        log_dir: source.one("--log-dir")?.map_or_else(|| temp.join("dcc-mcp-logs"), PathBuf::from),
        log_max_size: source.parsed("--log-max-size", "a number of bytes")?,
        log_max_files: source.parsed("--log-max-files", "a number of files, 1 or more")?,
        warnings: unknown_variables(&source.environment),
        dcc,
    };
    check(config)
}

/// What single values do not show.
fn check(config: Config) -> Result<Config, UsageError> {
    let wrong = if config.heartbeat_interval < Duration::from_secs(1) {
        "--heartbeat-interval must be at least 1 second, or the shared folder is written without end"
    } else if config.stale_timeout <= config.heartbeat_interval {
        "--stale-timeout must be longer than --heartbeat-interval, or every instance counts as dead between two beats"
    } else if config.max_connections == 0 {
        "--max-connections must be 1 or more"
    } else if config.log_max_files == 0 {
        "--log-max-files must be 1 or more"
    } else if config.gateway_port == Some(config.mcp_port) {
        "--mcp-port and --gateway-port must differ"
    } else if config.instance_id.as_deref().is_some_and(|id| !crate::registry::entry::is_instance_id(id)) {
        "--instance-id takes letters, digits, - and _, normally a UUID"
    } else {
        return Ok(config);
    };
    Err(UsageError(wrong.to_owned()))
}

fn skill_paths(source: &mut Source, dcc: &str) -> Result<Vec<PathBuf>, UsageError> {
    let mut paths = source.list("--skill-paths", &[':', ';'])?;
    let own = format!("DCC_MCP_{}_SKILL_PATHS", dcc.to_ascii_uppercase());
    for variable in ["DCC_MCP_SKILL_PATHS".to_owned(), own] {
        let value = source.variable(&variable).unwrap_or_default();
        paths.extend(value.split([':', ';']).filter(|path| !path.is_empty()).map(str::to_owned));
    }
    let mut seen = std::collections::HashSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    Ok(paths.into_iter().map(PathBuf::from).collect())
}

fn unknown_variables(environment: &[(String, String)]) -> Vec<String> {
    let known = |name: &str| {
        FLAGS.iter().any(|flag| flag.variable == name)
            || OTHER_VARIABLES.contains(&name)
            || name.ends_with("_SKILL_PATHS")
    };
    let unknown = environment.iter().filter(|(name, _)| name.starts_with("DCC_MCP_") && !known(name));
    unknown.map(|(name, _)| format!("event=unknown_variable name={name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        let arguments = arguments.iter().map(OsString::from).collect();
        let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        match parse(arguments, environment) {
            Ok(Command::Serve(config)) => Ok(*config),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn flags_win_over_variables_and_both_over_defaults() {
        let port = |arguments: &[&str], environment: &[(&str, &str)]| run(arguments, environment).unwrap().gateway_port;
        assert_eq!(port(&[], &[]), Some(9765));
        assert_eq!(port(&[], &[("DCC_MCP_GATEWAY_PORT", "0")]), None);
        assert_eq!(port(&[], &[("DCC_MCP_GATEWAY_PORT", "")]), Some(9765));
        assert_eq!(port(&["--gateway-port", "7"], &[("DCC_MCP_GATEWAY_PORT", "8")]), Some(7));
        assert_eq!(run(&["--stale-timeout-secs", "9"], &[]).unwrap().stale_timeout, Duration::from_secs(9));
    }

    #[test]
    fn wrong_values_are_named() {
        for (arguments, part) in [
            (vec!["--mcp-port", "70000"], "0 to 65535"),
            (vec!["--frobnicate"], "unknown argument"),
            (vec!["--heartbeat-interval", "0.5"], "at least 1 second"),
            (vec!["--stale-timeout", "3"], "longer than"),
            (vec!["--tool-list", "some"], "full or meta"),
            (vec!["--host", "nowhere"], "an IP address"),
            (vec!["--dcc", "a", "--dcc", "b"], "more than once"),
            (vec!["--instance-id", "../x"], "normally a UUID"),
        ] {
            let error = run(&arguments, &[]).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn skill_paths_are_gathered_once_each() {
        let environment = [("DCC_MCP_SKILL_PATHS", "/a:/b"), ("DCC_MCP_MAYA_SKILL_PATHS", "/m;/a")];
        let config = run(&["--dcc", "maya", "--skill-paths", "/f"], &environment).unwrap();
        assert_eq!(config.skill_paths, ["/f", "/a", "/b", "/m"].map(PathBuf::from));
        assert_eq!(run(&[], &[("DCC_MCP_HOTS", "x")]).unwrap().warnings.len(), 1);
    }

    #[test]
    fn help_names_every_variable_and_fits_a_terminal() {
        let help = help();
        assert!(FLAGS.iter().all(|flag| help.contains(flag.variable) && help.contains(flag.name)));
        assert!(help.lines().all(|line| line.chars().count() <= 80));
    }
}
