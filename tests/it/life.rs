//! Processes that come, serve, die and stop.

use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::Signal;
use serde_json::json;

use crate::client::{R03, R06, Session, get, status, text_of};
use crate::program::{PROGRAM, Start, World};
use crate::skill;
use crate::wait::{PATIENCE, promise, until, until_some};

/// `--drain-timeout`.
const DRAIN_DEFAULT: Duration = Duration::from_secs(20);
/// What the specification promises for a death that everyone should notice.
const NOTICED: Duration = Duration::from_secs(1);

/// See docs/decisions/0002-simple-logger.md. A pipe that is closed or not read is tested beside `src/logging.rs`.
#[test]
fn a_full_disk_under_standard_error_costs_nothing_but_log_lines() {
    let world = World::new();
    let onto_full = ["sh", "-c", "exec \"$0\" \"$@\" 2>/dev/full", PROGRAM];
    let mut instance = world.start(Start::new().through(&onto_full).args(["--log-level", "debug"]));
    world.wait_instances(1);
    for address in [instance.address, world.gateway()] {
        assert_eq!(status(address, "/nothing"), Some(404));
        assert!(!Session::open(address, R06).tool_names().is_empty());
    }
    instance.signal(Signal::TERM);
    assert_eq!(instance.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn an_instance_registers_lists_its_tools_and_answers_a_call() {
    let world = World::new();
    skill::probe(&world.skills());
    let skills = world.skills().display().to_string();
    let args = ["--dcc", "maya", "--dcc-version", "2024.2", "--scene", "/scenes/shot.ma", "--display-name", "Rig"];
    let instance =
        world.start(Start::new().args(args).args(["--skill-paths", &skills, "--load-skills", "probe-tools"]));

    let listed = world.wait_instances(1);
    let expected = [
        ("instance_id", json!(instance.instance_id)),
        ("dcc_type", json!("maya")),
        ("version", json!("2024.2")),
        ("scene", json!("/scenes/shot.ma")),
        ("display_name", json!("Rig")),
        ("host", json!("127.0.0.1")),
        ("port", json!(instance.address.port())),
        ("mcp_url", json!(format!("http://{}/mcp", instance.address))),
    ];
    for (field, value) in expected {
        assert_eq!(listed[0][field], value, "{field} of {}", listed[0]);
    }

    let arguments = json!({"text": "hello, \u{e9}\u{4e16}", "count": 3});
    for (address, tool) in [
        (instance.address, "probe_tools__echo".to_owned()),
        (instance.address, "echo".to_owned()),
        (world.gateway(), format!("{}__probe_tools__echo", instance.short())),
    ] {
        for revision in [R03, R06] {
            let mut session = Session::open(address, revision);
            assert_eq!(session.revision, revision);
            let result = session.call(&tool, arguments.clone());
            assert_ne!(result["isError"], json!(true), "{result}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text_of(&result)).ok(), Some(arguments.clone()));
            if revision == R06 {
                assert_eq!(result["structuredContent"], arguments);
            }
        }
    }

    let mut session = Session::open(instance.address, R06);
    let tools = session.tools();
    let echo = tools.iter().find(|tool| tool["name"] == "probe_tools__echo").expect("the loaded tool is listed");
    assert_eq!(echo["description"], "Gives its arguments back");
    assert_eq!(echo["inputSchema"]["required"], json!(["text"]));
    assert_eq!(echo["annotations"]["readOnlyHint"], json!(true));
    assert_eq!(echo["annotations"]["idempotentHint"], json!(true));
}

#[test]
fn liveness_and_readiness_on_both_ports() {
    let world = World::new();
    let instance = world.start(Start::new());
    world.wait_instances(1);
    for address in [instance.address, world.gateway()] {
        let health = get(address, "/health").expect("an answer");
        assert_eq!((health.status, health.json()), (200, json!({"ok": true})));
        let ready = get(address, "/readyz").expect("an answer");
        assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
        assert!(ready.json()["checks"].is_object(), "{}", ready.text());
    }
}

#[test]
fn an_instance_that_was_killed_is_hidden() {
    promise("kill -9 of an instance hides it", NOTICED, || {
        let world = World::new();
        skill::probe(&world.skills());
        let _gateway = world.start(Start::new());
        let mut victim = world.start_with_skills("maya");
        world.wait_instances(2);
        let mut session = Session::open(world.gateway(), R06);
        let prefix = format!("{}__", victim.short());
        until(PATIENCE, "the victim's tools are listed", || {
            session.tool_names().iter().any(|name| name.starts_with(&prefix))
        });
        victim.kill_9();
        let killed = Instant::now();
        until(PATIENCE, "the victim is not listed", || world.instances().is_some_and(|list| list.len() == 1));
        let time = killed.elapsed();
        assert!(!session.tool_names().iter().any(|name| name.starts_with(&prefix)), "its tools are gone with it");
        until(PATIENCE, "its entry is removed", || !victim.is_registered());
        time
    });
}

#[test]
fn the_standby_goes_on_with_the_session_of_a_killed_gateway() {
    promise("kill -9 of the gateway: the standby answers the same session in full", NOTICED, || {
        let world = World::new();
        skill::probe(&world.skills());
        let mut gateway = world.start(Start::new());
        until(PATIENCE, "the first process is the gateway", || gateway.is_gateway());
        let others: Vec<_> = ["maya", "blender", "houdini"].map(|dcc| world.start_with_skills(dcc)).into();
        world.wait_instances(4);
        let mut session = Session::open(world.gateway(), R06);
        let lasting = |names: Vec<String>, gone: &str| -> Vec<String> {
            names.into_iter().filter(|name| !name.starts_with(gone)).collect()
        };
        let before = until_some(PATIENCE, "the tools of all three are listed", || {
            let names = session.tool_names();
            let complete = others.iter().all(|other| names.iter().any(|name| name.starts_with(other.short())));
            complete.then_some(names)
        });
        let before = lasting(before, gateway.short());

        gateway.kill_9();
        let killed = Instant::now();
        let request = json!({"jsonrpc": "2.0", "id": 77, "method": "tools/list", "params": {}});
        let reply = until_some(PATIENCE, "an answer after the kill", || session.try_post(&request).ok());
        let time = killed.elapsed();
        assert_eq!(reply.status, 200, "the same session goes on: {}", reply.text());
        let message = reply.message();
        let tools = message["result"]["tools"].as_array().unwrap_or_else(|| panic!("no tools: {message}"));
        let after = lasting(crate::client::names(tools), gateway.short());
        assert_eq!(after, before, "the first answer is complete, under the same names, in the same order");

        let tool = format!("{}__probe_tools__echo", others[1].short());
        assert_eq!(session.structured(&tool, json!({"text": "still here"})), json!({"text": "still here"}));
        until(PATIENCE, "exactly one has taken over", || others.iter().filter(|other| other.is_gateway()).count() == 1);
        time
    });
}

#[test]
fn sigterm_lets_calls_finish() {
    let world = World::new();
    skill::probe(&world.skills());
    let gateway = world.start(Start::new());
    until(PATIENCE, "the first process is the gateway", || gateway.is_gateway());
    let mut instance = world.start_with_skills("maya");
    world.wait_instances(2);
    let release = world.path().join("release");
    let tool = format!("{}__probe_tools__hold", instance.short());
    let mut listing = Session::open(world.gateway(), R06);
    until(PATIENCE, "the tool is listed", || listing.tool_names().contains(&tool));

    let calls = [(instance.address, "probe_tools__hold".to_owned()), (world.gateway(), tool)].map(|(address, tool)| {
        let path = release.display().to_string();
        thread::spawn(move || Session::open(address, R06).call(&tool, json!({"release": path})))
    });
    until(PATIENCE, "both scripts run", || children(instance.pid()).len() == 2);
    instance.term();
    until(PATIENCE, "the entry is removed", || !instance.is_registered());
    until(PATIENCE, "the instance is not listed", || world.instances().is_some_and(|list| list.len() == 1));
    until(PATIENCE, "the own port accepts no more", || status(instance.address, "/health").is_none());
    assert!(!instance.has_ended(), "it waits for its calls");
    fs::write(&release, "").expect("the release file");
    for call in calls {
        let result = call.join().expect("the call is answered");
        assert_eq!(result["structuredContent"], json!({"released": true}), "{result}");
    }
    assert_eq!(instance.wait_exit(PATIENCE).code(), Some(0));
    assert!(!instance.is_registered(), "no heartbeat brought the entry back");
}

#[test]
fn sigterm_of_the_gateway_ends_streams_and_a_standby_takes_the_port() {
    let world = World::new();
    let mut gateway = world.start(Start::new());
    until(PATIENCE, "the first process is the gateway", || gateway.is_gateway());
    let standby = world.start(Start::new());
    world.wait_instances(2);
    let mut session = Session::open(world.gateway(), R06);
    let mut stream = session.stream(None);
    let proxied = Session::open_at(world.gateway(), &format!("/mcp/{}", standby.instance_id), R06);
    let mut proxied = proxied.stream(None);
    assert!(proxied.next(PATIENCE).is_some(), "the stream of the other instance is passed on");
    gateway.term();
    assert!(stream.has_ended(PATIENCE), "streams end, so that clients connect again");
    assert!(proxied.has_ended(PATIENCE), "those passed on too");
    assert_eq!(gateway.wait_exit(DRAIN_DEFAULT / 2).code(), Some(0), "and do not hold the stop");
    until(PATIENCE, "the standby serves the port", || standby.is_gateway());
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let reply = until_some(PATIENCE, "an answer of the standby", || session.try_post(&request).ok());
    assert_eq!(reply.message()["result"], json!({}), "the session goes on");
}

#[test]
fn calls_that_come_while_an_instance_stops_are_answered() {
    let world = World::new();
    skill::probe(&world.skills());
    let gateway = world.start(Start::new());
    until(PATIENCE, "the first process is the gateway", || gateway.is_gateway());
    let mut instance = world.start_with_skills("maya");
    world.wait_instances(2);
    let tool = format!("{}__probe_tools__echo", instance.short());
    let mut session = Session::open(world.gateway(), R06);
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&tool));
    instance.term();
    let call = json!({"name": tool, "arguments": {"text": "x"}});
    until(PATIENCE, "the tool is not known any more", || {
        let answer = session.request("tools/call", call.clone());
        let gone = answer["error"]["code"] == json!(-32602);
        assert!(gone || answer["result"]["structuredContent"] == json!({"text": "x"}), "{answer}");
        gone
    });
    assert_eq!(instance.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn sigterm_of_the_gateway_ends_streams_that_pass_through_it() {
    let world = World::new();
    let mut gateway = world.start(Start::new());
    until(PATIENCE, "the first process is the gateway", || gateway.is_gateway());
    let instance = world.start(Start::new().no_gateway());
    world.wait_instances(2);
    let session = Session::open_at(world.gateway(), &format!("/mcp/{}", instance.short()), R06);
    let mut stream = session.stream(None);
    assert!(stream.next(PATIENCE).is_some(), "the instance's own stream");
    gateway.term();
    let exit = gateway.wait_exit(Duration::from_secs(10));
    assert_eq!(exit.code(), Some(0), "before the drain time of 20 s is over");
    assert!(stream.has_ended(PATIENCE));
}

#[test]
fn a_second_sigterm_does_not_wait() {
    let world = World::new();
    skill::probe(&world.skills());
    let mut instance = world.start_with_skills("maya");
    let (address, never) = (instance.address, world.path().join("never").display().to_string());
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "probe_tools__hold", "arguments": {"release": never}}});
    let call = thread::spawn(move || Session::open(address, R06).try_post(&request).is_ok());
    until(PATIENCE, "the script runs", || children(instance.pid()).len() == 1);
    instance.term();
    until(PATIENCE, "the entry is removed", || !instance.is_registered());
    assert!(!instance.has_ended(), "the first one waits for the call");
    instance.term();
    let exit = instance.wait_exit(Duration::from_secs(3));
    assert!(exit.code().is_some(), "it ends by itself: {exit}");
    let _ = call.join();
}

#[test]
fn calls_beyond_the_drain_time_do_not_hold_the_process() {
    let world = World::new();
    skill::probe(&world.skills());
    let skills = world.skills().display().to_string();
    let args = ["--drain-timeout", "1", "--skill-paths", &skills, "--load-skills", "all"];
    let mut instance = world.start(Start::new().args(args));
    let (address, note) = (instance.address, world.path().join("note"));
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "probe_tools__sleep", "arguments": {"note": note.display().to_string()}}});
    let call = thread::spawn(move || Session::open(address, R06).try_post(&request).is_ok());
    let script = until_some(PATIENCE, "the script runs", || noted_pid(&note));
    instance.term();
    let exit = instance.wait_exit(Duration::from_secs(8));
    assert_eq!(exit.code(), Some(0));
    until(PATIENCE, "the script does not outlive the server", || !is_alive(script));
    let _ = call.join();
}

#[test]
fn twenty_started_at_once_are_all_listed() {
    let world = World::new();
    let mut programs: Vec<_> = (0..20).map(|_| world.launch(Start::new().args(["--dcc", "maya"]))).collect();
    for program in &mut programs {
        program.wait_ready();
    }
    let listed = world.wait_instances(20);
    let mut ids: Vec<_> = programs.iter().map(|program| program.instance_id.clone()).collect();
    ids.sort();
    let mut shown: Vec<_> = listed.iter().map(|entry| entry["instance_id"].as_str().unwrap_or("").to_owned()).collect();
    assert!(shown.is_sorted(), "sorted by type, then id: {shown:?}");
    shown.sort();
    assert_eq!(shown, ids);
    assert_eq!(programs.iter().filter(|program| program.is_gateway()).count(), 1, "one of them is the gateway");
}

#[test]
fn an_entry_and_a_folder_that_were_removed_come_back() {
    let world = World::new();
    let instance = world.start(Start::new().args(["--heartbeat-interval", "1"]));
    world.wait_instances(1);
    fs::rename(world.registry(), world.path().join("aside")).expect("the registry folder is moved away");
    until(PATIENCE, "the entry is written again", || instance.is_registered());
    assert_eq!(world.wait_instances(1)[0]["instance_id"], json!(instance.instance_id));
}

#[test]
fn a_pinned_instance_keeps_its_names_over_a_restart() {
    let world = World::new();
    skill::probe(&world.skills());
    let _gateway = world.start(Start::new());
    let id = crate::program::fresh_id();
    let skills = world.skills().display().to_string();
    let start = || Start::new().instance_id(&id).args(["--skill-paths", &skills, "--load-skills", "all"]);
    let mut session = Session::open(world.gateway(), R06);
    let tool = format!("{}__probe_tools__echo", &id[..8]);
    for round in 0..2 {
        let mut instance = world.start(start());
        until(PATIENCE, "its tools are listed", || session.tool_names().contains(&tool));
        assert_eq!(session.structured(&tool, json!({"text": "x", "count": round}))["count"], json!(round));
        instance.term();
        instance.wait_exit(PATIENCE);
        until(PATIENCE, "its tools are gone", || !session.tool_names().contains(&tool));
    }
}

/// The running children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// The process id that a script has written into a file.
pub fn noted_pid(note: &std::path::Path) -> Option<u32> {
    fs::read_to_string(note).ok()?.trim().parse().ok()
}

pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z'))
}
