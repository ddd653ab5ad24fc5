//! The command line as an operator meets it.

use std::fs;
use std::net::TcpListener;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{R06, Session, status};
use crate::program::{Start, World};
use crate::wait::{PATIENCE, until};

const FLAGS: &[&str] = &[
    "--host",
    "--advertise-host",
    "--mcp-port",
    "--gateway-port",
    "--registry-dir",
    "--stale-timeout",
    "--heartbeat-interval",
    "--server-name",
    "--instance-id",
    "--dcc",
    "--dcc-version",
    "--scene",
    "--display-name",
    "--skill-paths",
    "--load-skills",
    "--tool-list",
    "--call-timeout",
    "--drain-timeout",
    "--max-connections",
    "--auth-token-file",
    "--allowed-origins",
    "--allowed-hosts",
    "--log-level",
    "--log-file",
    "--log-dir",
    "--log-max-size",
    "--log-max-files",
];

#[test]
fn help_and_version() {
    let world = World::new();
    let help = world.run(["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    let text = stdout(&help);
    for word in FLAGS.iter().chain(&["healthcheck", "status", "--version", "DCC_MCP_GATEWAY_PORT", "9765"]) {
        assert!(text.contains(word), "{word} is in the help");
    }
    let version = world.run(["--version"], &[]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(stdout(&version).trim(), format!("dcc-mcp-server {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_word_is_named_in_one_line_with_exit_2() {
    let world = World::new();
    let cases: &[(&[&str], &str)] = &[
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--gateway-port", "many"], "--gateway-port"),
        (&["--gateway-port", "70000"], "--gateway-port"),
        (&["--mcp-port"], "--mcp-port"),
        (&["--mcp-port", "-1"], "--mcp-port"),
        (&["--heartbeat-interval", "0"], "--heartbeat-interval"),
        (&["--stale-timeout", "soon"], "--stale-timeout"),
        (&["--log-level", "loud"], "--log-level"),
        (&["--tool-list", "some"], "--tool-list"),
        (&["--instance-id", "../../etc/passwd"], "--instance-id"),
        (&["--auth-token-file", "/no/such/file"], "/no/such/file"),
        (&["--host", "not an address"], "--host"),
        (&["frobnicate"], "frobnicate"),
    ];
    for (args, named) in cases {
        let output = world.run(*args, &[]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(named), "{args:?}: {text:?} names {named}");
        assert_eq!(text.trim_end().lines().count(), 1, "{args:?}: one line: {text:?}");
    }
    let output = world.run(Vec::<&str>::new(), &[("DCC_MCP_GATEWAY_PORT", "many")]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("DCC_MCP_GATEWAY_PORT"), "{}", stderr(&output));
}

#[test]
fn what_is_accepted_is_said() {
    let world = World::new();
    for (args, accepted) in [(["--log-level", "loud"], "debug"), (["--tool-list", "some"], "meta")] {
        assert!(stderr(&world.run(args, &[])).contains(accepted), "{args:?}");
    }
}

#[test]
fn flags_win_over_variables_and_variables_over_defaults() {
    let world = World::new();
    let start = Start::new()
        .env("DCC_MCP_DCC", "from-variable")
        .env("DCC_MCP_SCENE", "/from/variable")
        .env("DCC_MCP_SERVER_NAME", "named-by-variable")
        .args(["--dcc", "from-flag"]);
    let instance = world.start(start);
    let entry = instance.entry().expect("an entry");
    assert_eq!(entry["dcc_type"], "from-flag");
    assert_eq!(entry["scene"], "/from/variable");
    assert_eq!(entry["server_name"], "named-by-variable");
    assert_eq!(Session::open(instance.address, R06).server["serverInfo"]["name"], "named-by-variable");
}

#[test]
fn the_longer_names_of_two_flags_are_accepted() {
    let world = World::new();
    world.start(Start::new().args(["--stale-timeout-secs", "20", "--heartbeat-secs", "2"]));
}

#[test]
fn an_unknown_variable_is_warned_about_once() {
    let world = World::new();
    let start = Start::new().env("DCC_MCP_GATEWAY_PROT", "9").env("DCC_MCP_MAYA_SKILL_PATHS", "/nowhere");
    let instance = world.start(start);
    world.wait_instances(1);
    let log = instance.stderr();
    assert_eq!(log.matches("DCC_MCP_GATEWAY_PROT").count(), 1, "{log}");
    let known = log.lines().any(|line| line.contains("DCC_MCP_MAYA_SKILL_PATHS") && line.contains("unknown"));
    assert!(!known, "skill paths of another application are known: {log}");
}

#[test]
fn healthcheck_tells_by_its_exit_code() {
    let world = World::new();
    let instance = world.start(Start::new());
    world.wait_instances(1);
    let url = |port: u16| format!("http://127.0.0.1:{port}/health");
    let (gateway, own) = (world.gateway().port(), instance.address.port());
    for port in [gateway, own] {
        let output = world.run(["healthcheck", &url(port)], &[]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    let port = gateway.to_string();
    assert_eq!(world.run(["healthcheck"], &[("DCC_MCP_GATEWAY_PORT", &port)]).status.code(), Some(0));
    let refused = world.run(["healthcheck", &url(crate::program::free_port())], &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(!stderr(&refused).is_empty(), "it says why");
    let not_found = world.run(["healthcheck", &format!("http://127.0.0.1:{own}/nothing")], &[]);
    assert_eq!(not_found.status.code(), Some(1));
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("an address").port();
    assert_eq!(world.run(["healthcheck", &url(silent)], &[]).status.code(), Some(1), "nobody answers there");
}

#[test]
fn status_shows_instances_from_the_gateway_or_from_the_registry() {
    let world = World::new();
    let registry = world.registry().display().to_string();
    let gateway_port = world.gateway().port().to_string();
    let mut first = world.start(Start::new().args(["--dcc", "maya", "--scene", "/shots/010.ma"]));
    let second = world.start(Start::new().args(["--dcc", "blender"]).no_gateway());
    world.wait_instances(2);
    let run = |args: &[&str]| {
        let fixed = ["status", "--registry-dir", &registry, "--gateway-port", &gateway_port];
        let output = world.run(fixed.iter().chain(args), &[]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    let table = run(&[]);
    for word in ["maya", "blender", first.short(), second.short()] {
        assert!(table.contains(word), "{word} in\n{table}");
    }
    let shown: Value = serde_json::from_str(&run(&["--json"])).expect("JSON");
    assert_eq!(shown["total"], json!(2), "{shown}");

    first.kill_9();
    until(PATIENCE, "no gateway", || status(world.gateway(), "/health").is_none());
    let table = run(&[]);
    assert!(table.contains(second.short()), "from the registry:\n{table}");
    let shown: Value = serde_json::from_str(&run(&["--json"])).expect("JSON");
    assert!(shown["instances"].to_string().contains(&second.instance_id), "{shown}");
    assert!(!shown["instances"].to_string().contains(&first.instance_id), "a dead one is not live: {shown}");
}

#[test]
fn a_port_that_is_taken_ends_with_exit_3() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let registry = world.registry().display().to_string();
    let output = world.run(["--mcp-port", &port, "--gateway-port", "0", "--registry-dir", &registry], &[]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains(&port), "{}", stderr(&output));
}

#[test]
fn a_foreign_holder_of_the_gateway_port_makes_a_plain_instance() {
    let world = World::new();
    let holder = TcpListener::bind(world.gateway()).expect("the gateway port");
    let mut instance = world.launch(Start::new());
    instance.wait_ready();
    assert!(!instance.is_gateway());
    assert_eq!(status(instance.address, "/health"), Some(200));
    drop(holder);
    until(PATIENCE, "the port is free, so it is taken", || instance.is_gateway());
    assert_eq!(world.wait_instances(1).len(), 1);
}

#[test]
fn logs_go_to_rotating_files_where_asked() {
    let world = World::new();
    let logs = world.path().join("logs");
    let folder = logs.display().to_string();
    let args =
        ["--log-file", "--log-dir", &folder, "--log-level", "trace", "--log-max-size", "4096", "--log-max-files", "3"];
    let mut instance = world.start(Start::new().args(args));
    world.wait_instances(1);
    let files = || fs::read_dir(&logs).map(|files| files.flatten().map(|file| file.path()).collect()).unwrap_or(vec![]);
    until(Duration::from_secs(30), "several files", || {
        let _ = status(instance.address, "/health");
        files().len() >= 2
    });
    until(Duration::from_secs(30), "no more than three", || {
        let _ = status(instance.address, "/health");
        files().len() == 3
    });
    for _ in 0..200 {
        let _ = status(instance.address, "/health");
    }
    instance.term();
    instance.wait_exit(PATIENCE);
    let files: Vec<_> = files();
    assert!(files.len() <= 3, "{files:?}");
    let text: String = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    assert!(text.lines().any(|line| line.contains('=')), "key=value lines: {text}");
    for file in files {
        let size = fs::metadata(&file).map(|data| data.len()).unwrap_or(0);
        assert!(size <= 4096 + 16 * 1024, "{}: {size} bytes", file.display());
    }
}

#[test]
fn logs_of_info_hold_no_arguments_and_no_results() {
    let world = World::new();
    crate::skill::probe(&world.skills());
    let skills = world.skills().display().to_string();
    let args = ["--log-level", "debug", "--skill-paths", &skills, "--load-skills", "all"];
    let instance = world.start(Start::new().args(args));
    world.wait_instances(1);
    let secret = "arguments-are-private";
    let mut session = Session::open(world.gateway(), R06);
    let tool = format!("{}__probe_tools__echo", instance.short());
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&tool));
    assert_eq!(session.structured(&tool, json!({"text": secret}))["text"], secret);
    assert!(!instance.stderr().contains(secret), "{}", instance.stderr());
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
