//! The table of flags: the one place from which the parser, `--help`, the known variables and the documentation come.
//!
//! **Invariant**: a flag that is not here does not exist; a default that is written here is parsed like a given value.
//! **Thread**: none; constants and pure functions.
//! **Bounds**: none needed.
//! Left out on purpose: what values mean (`value.rs`) and how flags depend on each other (`config.rs`).

/// What the program was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Serve,
    Healthcheck,
    Status,
}

/// One flag, and its variable.
#[derive(Debug)]
pub struct Flag {
    /// With its dashes.
    pub name: &'static str,
    /// Another spelling, kept for those who know it from elsewhere.
    pub alias: Option<&'static str>,
    /// None for what only makes sense on a command line.
    pub variable: Option<&'static str>,
    /// What stands for the value in `--help`.
    pub value: &'static str,
    pub default: Default,
    pub help: &'static str,
    pub form: Form,
    pub verbs: &'static [Verb],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    None,
    /// A value as it could be given.
    Value(&'static str),
    /// What takes the place of a value, in words.
    Words(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Takes a value, once.
    Single,
    /// Takes a value each time it is given.
    Repeatable,
    /// Takes true or false, or no value for true.
    Switch,
}

/// A section of `--help`.
pub struct Group {
    pub title: &'static str,
    pub flags: &'static [Flag],
}

const SERVE: &[Verb] = &[Verb::Serve];
const SERVE_STATUS: &[Verb] = &[Verb::Serve, Verb::Status];
const SERVE_HEALTHCHECK: &[Verb] = &[Verb::Serve, Verb::Healthcheck];
const ALL: &[Verb] = &[Verb::Serve, Verb::Healthcheck, Verb::Status];

/// What most flags are; each states where it differs.
const PLAIN: Flag = Flag {
    name: "",
    alias: None,
    variable: None,
    value: "",
    default: Default::None,
    help: "",
    form: Form::Single,
    verbs: SERVE,
};

pub static GROUPS: &[Group] = &[
    Group {
        title: "Network",
        flags: &[
            Flag {
                name: "--host",
                variable: Some("DCC_MCP_HOST"),
                value: "ADDRESS",
                default: Default::Value("127.0.0.1"),
                help: "Address to bind, for both ports.",
                verbs: ALL,
                ..PLAIN
            },
            Flag {
                name: "--advertise-host",
                variable: Some("DCC_MCP_ADVERTISE_HOST"),
                value: "HOST",
                default: Default::Words("--host, or the address on the route to the network"),
                help: "Address or name at which others reach this instance.",
                ..PLAIN
            },
            Flag {
                name: "--mcp-port",
                variable: Some("DCC_MCP_MCP_PORT"),
                value: "PORT",
                default: Default::Value("0"),
                help: "Port of this instance's own MCP endpoint; 0 lets the system choose.",
                verbs: SERVE_HEALTHCHECK,
                ..PLAIN
            },
            Flag {
                name: "--gateway-port",
                variable: Some("DCC_MCP_GATEWAY_PORT"),
                value: "PORT",
                default: Default::Value("9765"),
                help: "Well-known port to compete for; 0 never competes.",
                verbs: ALL,
                ..PLAIN
            },
        ],
    },
    Group {
        title: "Registry",
        flags: &[
            Flag {
                name: "--registry-dir",
                variable: Some("DCC_MCP_REGISTRY_DIR"),
                value: "FOLDER",
                default: Default::Words("<temp folder>/dcc-mcp-registry"),
                help: "Shared folder; the same for all that must see each other.",
                verbs: SERVE_STATUS,
                ..PLAIN
            },
            Flag {
                name: "--stale-timeout",
                alias: Some("--stale-timeout-secs"),
                variable: Some("DCC_MCP_STALE_TIMEOUT"),
                value: "SECONDS",
                default: Default::Value("30"),
                help: "An instance without a heartbeat for this long counts as dead. Longer than the heartbeat interval.",
                verbs: SERVE_STATUS,
                ..PLAIN
            },
            Flag {
                name: "--heartbeat-interval",
                alias: Some("--heartbeat-secs"),
                variable: Some("DCC_MCP_HEARTBEAT_INTERVAL"),
                value: "SECONDS",
                default: Default::Value("5"),
                help: "Time between two heartbeats, at least 1.",
                ..PLAIN
            },
        ],
    },
    Group {
        title: "This instance",
        flags: &[
            Flag {
                name: "--server-name",
                variable: Some("DCC_MCP_SERVER_NAME"),
                value: "NAME",
                default: Default::Value("dcc-mcp-server"),
                help: "Name told to MCP clients.",
                ..PLAIN
            },
            Flag {
                name: "--instance-id",
                variable: Some("DCC_MCP_INSTANCE_ID"),
                value: "UUID",
                default: Default::Words("random"),
                help: "Pins the id, so that the names of tools survive a restart.",
                ..PLAIN
            },
            Flag {
                name: "--dcc",
                variable: Some("DCC_MCP_DCC"),
                value: "TYPE",
                help: "Type of the application: maya, blender, houdini, generic ...",
                ..PLAIN
            },
            Flag {
                name: "--dcc-version",
                variable: Some("DCC_MCP_DCC_VERSION"),
                value: "VERSION",
                help: "Version of the application.",
                ..PLAIN
            },
            Flag {
                name: "--scene",
                variable: Some("DCC_MCP_SCENE"),
                value: "FILE",
                help: "The scene that is open.",
                ..PLAIN
            },
            Flag {
                name: "--display-name",
                variable: Some("DCC_MCP_DISPLAY_NAME"),
                value: "LABEL",
                help: "Label by which people tell two instances apart.",
                ..PLAIN
            },
        ],
    },
    Group {
        title: "Skills and tools",
        flags: &[
            Flag {
                name: "--skill-paths",
                variable: Some("DCC_MCP_SKILL_PATHS"),
                value: "FOLDERS",
                help: "Folders with skills, separated by : or ; and searched in this order: flags, DCC_MCP_SKILL_PATHS, \
               DCC_MCP_<DCC>_SKILL_PATHS for the type of --dcc. May be repeated.",
                form: Form::Repeatable,
                ..PLAIN
            },
            Flag {
                name: "--load-skills",
                variable: Some("DCC_MCP_LOAD_SKILLS"),
                value: "NAMES",
                help: "Skills loaded at start, separated by commas, or all. May be repeated.",
                form: Form::Repeatable,
                ..PLAIN
            },
            Flag {
                name: "--tool-list",
                variable: Some("DCC_MCP_TOOL_LIST"),
                value: "full|meta",
                default: Default::Value("full"),
                help: "What tools/list of the gateway shows: all tools, or only its own, with the others found by search.",
                ..PLAIN
            },
        ],
    },
    Group {
        title: "Calls and connections",
        flags: &[
            Flag {
                name: "--call-timeout",
                variable: Some("DCC_MCP_CALL_TIMEOUT"),
                value: "SECONDS",
                default: Default::Value("120"),
                help: "Time for one tool call, end to end.",
                ..PLAIN
            },
            Flag {
                name: "--drain-timeout",
                variable: Some("DCC_MCP_DRAIN_TIMEOUT"),
                value: "SECONDS",
                default: Default::Value("20"),
                help: "Time that calls under way get when the server is stopped.",
                ..PLAIN
            },
            Flag {
                name: "--max-connections",
                variable: Some("DCC_MCP_MAX_CONNECTIONS"),
                value: "COUNT",
                default: Default::Value("4096"),
                help: "Connections served at once by each port; more are answered 503.",
                ..PLAIN
            },
        ],
    },
    Group {
        title: "Security",
        flags: &[
            Flag {
                name: "--auth-token-file",
                variable: Some("DCC_MCP_AUTH_TOKEN_FILE"),
                value: "FILE",
                help: "Asks clients for a bearer token of this file, which holds one on each line.",
                verbs: SERVE_STATUS,
                ..PLAIN
            },
            Flag {
                name: "--allowed-origins",
                variable: Some("DCC_MCP_ALLOWED_ORIGINS"),
                value: "ORIGINS",
                default: Default::Words("loopback only"),
                help: "Web origins allowed besides loopback, as https://tools.example.com, separated by commas. May be \
               repeated.",
                form: Form::Repeatable,
                ..PLAIN
            },
            Flag {
                name: "--allowed-hosts",
                variable: Some("DCC_MCP_ALLOWED_HOSTS"),
                value: "HOSTS",
                default: Default::Words("loopback only; any when bound to another address"),
                help: "Names that clients may call the server by (Host), with or without a port, separated by commas. May be \
               repeated.",
                form: Form::Repeatable,
                ..PLAIN
            },
        ],
    },
    Group {
        title: "Logs",
        flags: &[
            Flag {
                name: "--log-level",
                variable: Some("DCC_MCP_LOG_LEVEL"),
                value: "LEVEL",
                default: Default::Value("info"),
                help: "error, warn, info, debug or trace.",
                ..PLAIN
            },
            Flag {
                name: "--log-file",
                variable: Some("DCC_MCP_LOG_FILE"),
                default: Default::Value("false"),
                help: "Also writes rotating files: a new one each day (UTC) and at --log-max-size.",
                form: Form::Switch,
                ..PLAIN
            },
            Flag {
                name: "--log-dir",
                variable: Some("DCC_MCP_LOG_DIR"),
                value: "FOLDER",
                default: Default::Words(
                    "$LOGS_DIRECTORY, else $XDG_STATE_HOME or ~/.local/state with /dcc-mcp-server/logs",
                ),
                help: "Folder of the log files; a local disk. Many processes may share it.",
                ..PLAIN
            },
            Flag {
                name: "--log-max-size",
                variable: Some("DCC_MCP_LOG_MAX_SIZE"),
                value: "BYTES",
                default: Default::Value("10MiB"),
                help: "Size of one log file, at least 4KiB. KiB, MiB and GiB (or k, M, G) may follow the number.",
                ..PLAIN
            },
            Flag {
                name: "--log-max-files",
                variable: Some("DCC_MCP_LOG_MAX_FILES"),
                value: "COUNT",
                default: Default::Value("7"),
                help: "Log files kept of each running process, and of all ended ones together.",
                ..PLAIN
            },
        ],
    },
    Group {
        title: "Program",
        flags: &[
            Flag {
                name: "--json",
                help: "With status: prints JSON.",
                form: Form::Switch,
                verbs: &[Verb::Status],
                ..PLAIN
            },
            Flag {
                name: "--help",
                alias: Some("-h"),
                help: "Prints this text.",
                form: Form::Switch,
                verbs: ALL,
                ..PLAIN
            },
            Flag {
                name: "--version",
                alias: Some("-V"),
                help: "Prints the version.",
                form: Form::Switch,
                verbs: ALL,
                ..PLAIN
            },
        ],
    },
];

/// Variables that other parts of the program read.
pub const OTHER_VARIABLES: [&str; 2] = ["DCC_MCP_PYTHON_EXECUTABLE", "DCC_MCP_ALLOW_AMBIENT_PYTHON"];

pub fn all() -> impl Iterator<Item = &'static Flag> {
    GROUPS.iter().flat_map(|group| group.flags)
}

/// The flag of a name or an alias.
pub fn flag(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name || flag.alias == Some(name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_variables_are_unique_and_agree() {
        let mut seen = BTreeSet::new();
        for flag in all() {
            assert!(seen.insert(flag.name) && flag.alias.is_none_or(|alias| seen.insert(alias)), "{}", flag.name);
            if let Some(variable) = flag.variable {
                let expected = format!("DCC_MCP_{}", flag.name[2..].replace('-', "_").to_uppercase());
                assert_eq!(variable, expected);
            }
            assert!(flag.help.ends_with('.') || flag.help.ends_with("..."), "{}", flag.name);
            assert_eq!(flag.value.is_empty(), flag.form == Form::Switch, "{}", flag.name);
        }
        assert_eq!(flag("--heartbeat-secs").map(|flag| flag.name), Some("--heartbeat-interval"));
    }

    /// `UPDATE=1` writes the tables anew.
    #[test]
    fn the_documentation_has_the_same_tables() {
        const BEGIN: &str = "<!-- The tables are made from src/config/flags.rs: UPDATE=1 cargo test --lib config -->\n";
        const END: &str = "<!-- End of the tables. -->";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let there = std::fs::read_to_string(path).expect("docs/configuration.md");
        let (before, rest) = there.split_once(BEGIN).expect("a mark where the tables begin");
        let (_, after) = rest.split_once(END).expect("a mark where they end");
        let tables: String = GROUPS.iter().map(table).collect();
        let expected = format!("{before}{BEGIN}{tables}\n{END}{after}");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, expected).expect("docs/configuration.md can be written");
        } else {
            assert!(there == expected, "docs/configuration.md differs from the table; UPDATE=1 writes it anew");
        }
    }

    fn table(group: &Group) -> String {
        let rows: String = group.flags.iter().map(row).collect();
        format!("\n### {}\n\n| Flag | Variable | Default | Meaning |\n|---|---|---|---|\n{rows}", group.title)
    }

    fn row(flag: &Flag) -> String {
        let code = |text: &str| format!("`{}`", text.replace('|', "\\|"));
        let value = if flag.value.is_empty() { String::new() } else { format!(" <{}>", flag.value) };
        let alias = flag.alias.map(|alias| format!(", {}", code(alias))).unwrap_or_default();
        let variable = flag.variable.map_or("–".to_owned(), code);
        let default = match flag.default {
            Default::None => "–".to_owned(),
            Default::Value(text) => code(text),
            Default::Words(text) => text.replace('<', "&lt;"),
        };
        let verbs = match flag.verbs {
            [Verb::Serve] => String::new(),
            verbs => format!(" ({})", verbs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let help = flag.help.replace('<', "&lt;");
        format!("| {}{alias} | {variable} | {default} | {help}{verbs} |\n", code(&format!("{}{value}", flag.name)))
    }
}
