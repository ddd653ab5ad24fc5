//! The gateway between its clients and instances that answer, stream, hang, or are gone.

use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::{Value, json};

use crate::backend::{Backend, Manner, tool};
use crate::client::{Connection, R03, R06, Session, names, text_of};
use crate::life::{is_alive, noted_pid};
use crate::program::{Program, Start, World};
use crate::skill;
use crate::wait::{PATIENCE, print, until, until_some};

/// What `tools/list` and calls to others may take while one instance hangs.
const UNDISTURBED: Duration = Duration::from_millis(50);
/// Beyond this the others do wait for the one that hangs, however busy the machine is.
const DISTURBED: Duration = Duration::from_millis(1000);

#[test]
fn an_instance_that_never_answers_disturbs_nobody() {
    let (world, _gateway) = gateway(&["--call-timeout", "2"]);
    let hanging = Backend::start(Manner::SilentCalls, vec![tool("hang")]);
    let _hanging = hanging.register(&world.registry(), "maya");
    let mute = Backend::start(Manner::Silent, vec![]);
    let _mute = mute.register(&world.registry(), "maya");
    let quick = Backend::start(Manner::Json(json!({"content": [{"type": "text", "text": "quick"}]})), vec![tool("go")]);
    let _quick = quick.register(&world.registry(), "blender");
    world.wait_instances(4);
    let (hang, go) = (format!("{}__hang", hanging.short()), format!("{}__go", quick.short()));
    let mut session = Session::open(world.gateway(), R06);
    until(PATIENCE, "both tools are listed", || {
        let names = session.tool_names();
        names.contains(&hang) && names.contains(&go)
    });

    let mut asking = session.beside();
    let tool_name = hang.clone();
    let own = thread::spawn(move || {
        let asked = Instant::now();
        (asking.call(&tool_name, json!({})), asked.elapsed())
    });
    until(PATIENCE, "the call hangs", || !hanging.requests_of("tools/call").is_empty());
    let mut list = Vec::new();
    let mut call = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        session.tools();
        list.push(start.elapsed());
        let start = Instant::now();
        assert_eq!(text_of(&session.call(&go, json!({}))), "quick");
        call.push(start.elapsed());
    }
    report("tools/list while an instance hangs", &mut list);
    report("tools/call to another while an instance hangs", &mut call);

    let (result, time) = own.join().expect("the call is answered");
    print(&format!("a call to the instance that hangs: {} ms (its time-out: 2000 ms)", time.as_millis()));
    assert!(time > Duration::from_millis(1500) && time < Duration::from_secs(6), "at its deadline: {time:?}");
    assert_eq!(result["isError"], json!(true), "{result}");
    assert!(text_of(&result).contains(hanging.short()), "names the instance: {}", text_of(&result));
}

#[test]
fn an_instance_that_is_gone_is_named_at_once() {
    let (world, _gateway) = gateway(&[]);
    let backend = Backend::start(Manner::Json(json!({"content": []})), vec![tool("go")]);
    let mut entry = backend.register(&world.registry(), "maya");
    let name = format!("{}__go", backend.short());
    let mut session = Session::open(world.gateway(), R06);
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&name));
    let short = backend.short().to_owned();
    entry.stop_beating();
    drop(backend);
    let asked = Instant::now();
    let message = session.request("tools/call", json!({"name": name, "arguments": {}}));
    assert!(asked.elapsed() < Duration::from_secs(5), "no wait for what refuses the connection");
    let result = &message["result"];
    assert_eq!(result["isError"], json!(true), "{message}");
    assert!(text_of(result).contains(&short), "names the instance: {}", text_of(result));
}

#[test]
fn a_stale_instance_is_hidden_and_comes_back_with_its_heartbeat() {
    let (world, _gateway) = gateway(&["--stale-timeout", "3", "--heartbeat-interval", "1"]);
    let backend = Backend::start(Manner::Json(json!({"content": []})), vec![tool("go")]);
    let mut entry = backend.register(&world.registry(), "maya");
    let name = format!("{}__go", backend.short());
    let mut session = Session::open(world.gateway(), R06);
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&name));
    entry.stop_beating();
    until(PATIENCE, "it is hidden", || world.instances().is_some_and(|list| list.len() == 1));
    assert!(!session.tool_names().contains(&name), "and its tools with it");
    drop(entry);
    let _again = backend.register(&world.registry(), "maya");
    until(PATIENCE, "it is back", || session.tool_names().contains(&name));
}

#[test]
fn results_pass_unchanged() {
    let result = json!({
        "content": [
            {"type": "text", "text": "text \u{1f600} with \"quotes\"", "annotations": {"audience": ["user"], "priority": 0.5}},
            {"type": "image", "data": "iVBORw0KGgo=", "mimeType": "image/png"},
            {"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav"},
            {"type": "resource", "resource": {"uri": "file:///a.txt", "mimeType": "text/plain", "text": "a"}},
            {"type": "resource", "resource": {"uri": "file:///a.bin", "blob": "AAEC"}},
            {"type": "resource_link", "uri": "file:///b", "name": "b", "size": 7},
            {"type": "not_yet_invented", "x": [1, 2.50, null]},
        ],
        "structuredContent": {"big": 9_007_199_254_740_993_u64, "nested": {"empty": {}, "list": []}, "null": null},
        "isError": false,
        "_meta": {"example.com/key": {"a": 1}},
        "unknownField": true,
    });
    let failed = json!({"content": [{"type": "text", "text": "no"}], "isError": true});
    for expected in [result, failed] {
        for manner in [Manner::Json(expected.clone()), Manner::Stream { steps: 0, result: expected.clone() }] {
            let (world, _gateway) = gateway(&[]);
            let backend = Backend::start(manner, vec![tool("give")]);
            let _entry = backend.register(&world.registry(), "maya");
            let name = format!("{}__give", backend.short());
            let mut session = Session::open(world.gateway(), R06);
            until(PATIENCE, "the tool is listed", || session.tool_names().contains(&name));
            let arguments = json!({"deep": {"list": [1, "two", null, {"x": 9_007_199_254_740_993_u64}]}});
            assert_eq!(session.call(&name, arguments.clone()), expected);
            let arrived = backend.requests_of("tools/call");
            assert_eq!(arrived[0]["params"]["name"], json!("give"), "under the instance's own name");
            assert_eq!(arrived[0]["params"]["arguments"], arguments);
        }
    }
}

#[test]
fn progress_is_relayed_before_the_answer() {
    let (world, _gateway) = gateway(&[]);
    let result = json!({"content": [{"type": "text", "text": "done"}]});
    let backend = Backend::start(Manner::Stream { steps: 3, result: result.clone() }, vec![tool("count")]);
    let _entry = backend.register(&world.registry(), "maya");
    let name = format!("{}__count", backend.short());
    let mut session = Session::open(world.gateway(), R06);
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&name));
    for token in [json!("token \u{e9}"), json!(4711)] {
        let call = json!({"jsonrpc": "2.0", "id": "call-1", "method": "tools/call",
            "params": {"name": name, "arguments": {}, "_meta": {"progressToken": token, "kept": true}}});
        let mut stream = session.post_stream(&call).expect("a reply");
        assert_eq!(stream.header("content-type").map(|kind| kind.split(';').next()), Some(Some("text/event-stream")));
        let first = stream.next_after_retry(PATIENCE).expect("an event");
        assert!(first.id.is_some(), "an event id before anything else: {first:?}");
        let mut messages = Vec::new();
        while let Some((_, message)) = stream.next_message(PATIENCE) {
            messages.push(message);
        }
        let (answer, notes) = messages.split_last().expect("messages");
        assert_eq!(answer["id"], json!("call-1"));
        assert_eq!(answer["result"], result);
        let steps: Vec<_> = notes.iter().map(|note| note["params"]["progress"].as_u64()).collect();
        assert_eq!(steps, [Some(1), Some(2), Some(3)], "in order: {notes:?}");
        for note in notes {
            assert_eq!(note["method"], "notifications/progress");
            assert_eq!(note["params"]["progressToken"], token, "the client's own token");
            assert_eq!(note["params"]["total"], json!(3));
        }
    }
    assert_eq!(backend.requests_of("tools/call")[0]["params"]["_meta"]["kept"], json!(true), "_meta goes along");
}

#[test]
fn a_cancelled_call_ends_its_script() {
    let world = World::new();
    skill::probe(&world.skills());
    let _gateway = world.start(Start::new());
    let instance = world.start_with_skills("maya");
    world.wait_instances(2);
    let through = format!("{}__probe_tools__sleep", instance.short());
    let mut listing = Session::open(world.gateway(), R06);
    until(PATIENCE, "the tool is listed", || listing.tool_names().contains(&through));
    for (address, tool, id) in [
        (instance.address, "probe_tools__sleep".to_owned(), json!("direct")),
        (world.gateway(), through.clone(), json!("a string")),
        (world.gateway(), through, json!(12345)),
    ] {
        let note = world.path().join(format!("note-{id}"));
        let session = Session::open(address, R06);
        let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": tool, "arguments": {"note": note.display().to_string()}}});
        let mut calling = session.beside();
        let reply = thread::spawn(move || calling.try_post(&call));
        let script = until_some(PATIENCE, "the script runs", || noted_pid(&note));
        let mut cancelling = session.beside();
        let unknown = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "other"}});
        assert_eq!(cancelling.post(&unknown).status, 202);
        assert!(is_alive(script), "the cancellation of another call is not ours");
        let stranger = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
        assert_eq!(Session::open(address, R06).post(&stranger).status, 202);
        assert!(is_alive(script), "another session's request of the same id is not ours");
        let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": id, "reason": "enough"}});
        assert_eq!(cancelling.post(&cancel).status, 202);
        until(PATIENCE, "the script is ended", || !is_alive(script));
        until(PATIENCE, "the request ends too", || reply.is_finished());
    }
}

#[test]
fn a_path_leads_to_one_instance() {
    let world = World::new();
    skill::probe(&world.skills());
    let _gateway = world.start(Start::new().args(["--dcc", "generic"]));
    let skills = world.skills().display().to_string();
    let start = |id: &str, dcc: &str| {
        let args = ["--dcc", dcc, "--skill-paths", &skills, "--load-skills", "all"];
        world.start(Start::new().instance_id(id).args(args))
    };
    let first = start("aaaa1111-0000-4000-8000-000000000001", "maya");
    let second = start("aaaa2222-0000-4000-8000-000000000002", "blender");
    world.wait_instances(3);

    for path in [format!("/mcp/{}", first.instance_id), "/mcp/aaaa1".to_owned(), "/mcp/dcc/maya".to_owned()] {
        check_proxy(&world, &path, &first);
    }
    check_proxy(&world, "/mcp/aaaa2222", &second);
    check_proxy(&world, "/mcp/dcc/blender", &second);

    let mut connection = Connection::open(world.gateway()).expect("a connection");
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": crate::client::initialize_params(R06)});
    for (path, says) in [("/mcp/aaaa", "aaaa"), ("/mcp/ffff", "ffff"), ("/mcp/dcc/nuke", "nuke")] {
        let headers = [("Accept", crate::client::ACCEPT_BOTH), ("Content-Type", "application/json")];
        let reply = connection.request("POST", path, &headers, Some(body.to_string().as_bytes())).expect("a reply");
        assert!((400..500).contains(&reply.status), "{path}: {} {}", reply.status, reply.text());
        assert!(reply.json()["error"]["message"].as_str().is_some_and(|text| text.contains(says)), "{}", reply.text());
    }
    let headers = [("Accept", crate::client::ACCEPT_BOTH), ("Content-Type", "text/plain")];
    let reply = connection.request("POST", "/mcp/aaaa1111", &headers, Some(body.to_string().as_bytes()));
    assert_eq!(reply.expect("a reply").status, 415, "what any web page could send is not passed on");
}

#[test]
fn the_best_instance_of_a_type_is_available_before_busy() {
    let (world, _gateway) = gateway(&[]);
    let busy = Backend::start(Manner::Json(json!({"content": []})), vec![tool("on_busy")]);
    let mut entry = busy.entry("maya");
    entry["status"] = json!("busy");
    let _busy = busy.register_as(&world.registry(), entry);
    let free = Backend::start(Manner::Json(json!({"content": []})), vec![tool("on_free")]);
    let _free = free.register(&world.registry(), "maya");
    world.wait_instances(3);
    for _ in 0..4 {
        let mut session = Session::open_at(world.gateway(), "/mcp/dcc/maya", R06);
        assert_eq!(session.tool_names(), ["on_free"]);
    }
}

#[test]
fn the_gateway_tells_of_its_instances() {
    let world = World::new();
    skill::probe(&world.skills());
    let _gateway = world.start(Start::new().args(["--dcc", "generic"]));
    let maya = world.start(Start::new().args(["--dcc", "maya", "--scene", "/shots/010.ma", "--display-name", "Rig"]));
    let other = world.start(Start::new().args(["--dcc", "maya", "--scene", "/shots/020.ma"]));
    world.wait_instances(3);
    let mut session = Session::open(world.gateway(), R06);

    let listed = session.structured("list_dcc_instances", json!({}));
    for id in [&maya.instance_id, &other.instance_id] {
        assert!(listed.to_string().contains(id.as_str()), "{listed}");
    }
    let shown = session.structured("get_dcc_instance", json!({"instance_id": maya.short()}));
    assert!(shown.to_string().contains(&maya.instance_id) && shown.to_string().contains("/shots/010.ma"), "{shown}");

    let connected = session.structured("connect_to_dcc", json!({"dcc": "maya", "scene": "020"}));
    assert!(connected.to_string().contains(&other.instance_id), "{connected}");
    assert!(!connected.to_string().contains(&maya.instance_id), "{connected}");
    let choice = session.call("connect_to_dcc", json!({"dcc": "maya"})).to_string();
    assert!(choice.contains(&maya.instance_id) && choice.contains(&other.instance_id), "a list to choose: {choice}");
    let none = session.call("get_dcc_instance", json!({"instance_id": "ffffffff"}));
    assert_eq!(none["isError"], json!(true), "{none}");
}

#[test]
fn skills_are_found_and_loaded_through_the_gateway() {
    let world = World::new();
    skill::probe(&world.skills());
    let _gateway = world.start(Start::new());
    let skills = world.skills().display().to_string();
    let args = |dcc: &'static str| ["--dcc", dcc, "--skill-paths", skills.as_str()].map(str::to_owned);
    let maya = world.start(Start::new().args(args("maya")));
    let blender = world.start(Start::new().args(args("blender")));
    world.wait_instances(3);
    let mut session = Session::open(world.gateway(), R06);
    for (finder, arguments) in [
        ("list_skills", json!({})),
        ("search_skills", json!({"query": "parrot"})),
        ("search_skills", json!({"query": "echo"})),
        ("find_skills", json!({"query": "probe"})),
        ("get_skill_info", json!({"skill_name": "probe-tools"})),
    ] {
        let found = session.structured(finder, arguments.clone()).to_string();
        assert!(found.contains("probe-tools"), "{finder} {arguments}: {found}");
    }
    let nothing = session.call("search_skills", json!({"query": "zzzyyyxxx"}));
    assert!(!nothing.to_string().contains("probe-tools"), "{nothing}");

    let ambiguous = session.call("load_skill", json!({"skill_name": "probe-tools"}));
    assert_eq!(ambiguous["isError"], json!(true), "two instances fit: {ambiguous}");
    let loaded = session.structured("load_skill", json!({"skill_name": "probe-tools", "dcc": "blender"}));
    assert!(loaded.to_string().contains("echo"), "{loaded}");
    let tool = format!("{}__probe_tools__echo", blender.short());
    until(PATIENCE, "the tool of the chosen one is listed", || session.tool_names().contains(&tool));
    let loaded = session.structured("load_skill", json!({"skill_name": "probe-tools", "instance_id": maya.short()}));
    assert!(loaded.to_string().contains("echo"), "{loaded}");
    let other = format!("{}__probe_tools__echo", maya.short());
    until(PATIENCE, "the tool of the other one is listed", || session.tool_names().contains(&other));
    session.structured("unload_skill", json!({"skill_name": "probe-tools", "instance_id": maya.instance_id}));
    until(PATIENCE, "it is gone again", || {
        let names = session.tool_names();
        names.contains(&tool) && !names.contains(&other)
    });
    let unknown = session.call("load_skill", json!({"skill_name": "no-such-skill", "dcc": "maya"}));
    assert_eq!(unknown["isError"], json!(true), "{unknown}");
}

#[test]
fn the_meta_list_is_short_and_calls_still_work() {
    let (world, _gateway) = gateway(&["--tool-list", "meta"]);
    let backend = Backend::start(Manner::Json(json!({"content": [{"type": "text", "text": "ok"}]})), vec![tool("go")]);
    let _entry = backend.register(&world.registry(), "maya");
    world.wait_instances(2);
    let mut session = Session::open(world.gateway(), R06);
    let name = format!("{}__go", backend.short());
    until(PATIENCE, "the tool can be called", || {
        session.request("tools/call", json!({"name": name, "arguments": {}}))["result"]["content"][0]["text"] == "ok"
    });
    assert!(session.tool_names().iter().all(|name| !name.contains("__")), "only the meta tools");
}

#[test]
fn meta_tools_are_described() {
    let (world, _gateway) = gateway(&[]);
    let mut session = Session::open(world.gateway(), R06);
    let tools = session.tools();
    let wanted = [
        "list_dcc_instances",
        "get_dcc_instance",
        "connect_to_dcc",
        "list_skills",
        "search_skills",
        "find_skills",
        "get_skill_info",
        "load_skill",
        "unload_skill",
        "activate_tool_group",
        "deactivate_tool_group",
    ];
    for name in wanted {
        let tool = tools.iter().find(|tool| tool["name"] == name).unwrap_or_else(|| panic!("{name} is listed"));
        assert!(tool["title"].is_string() && tool["description"].is_string(), "{tool}");
        assert_eq!(tool["inputSchema"]["type"], "object", "{tool}");
        assert_eq!(tool["outputSchema"]["type"], "object", "{tool}");
        assert!(tool["annotations"]["readOnlyHint"].is_boolean(), "{tool}");
    }
    let older = Session::open(world.gateway(), R03).tools();
    for tool in older {
        for field in ["title", "outputSchema"] {
            assert!(tool.get(field).is_none(), "2025-03-26 knows no {field}: {tool}");
        }
    }
}

#[test]
fn an_instance_that_is_named_wrongly_is_not_guessed() {
    let (world, _gateway) = gateway(&[]);
    let mut session = Session::open(world.gateway(), R06);
    for (tool, arguments) in [
        ("get_dcc_instance", json!({"instance_id": 7})),
        ("list_skills", json!({"dcc": ["maya"]})),
        ("unload_skill", json!({"skill_name": "any", "instance_id": {}})),
    ] {
        let result = session.call(tool, arguments);
        assert_eq!(result["isError"], json!(true), "{tool}: {result}");
        assert!(text_of(&result).contains("must be a string"), "{tool}: {result}");
    }
}

#[test]
fn a_row_that_leads_back_to_the_gateway_is_no_circle() {
    let world = World::new();
    skill::probe(&world.skills());
    let gateway = world.start_with_skills("maya");
    world.wait_instances(1);
    let mut session = Session::open(world.gateway(), R06);
    until(PATIENCE, "its own tools are listed", || session.tools().len() > 3);
    let before = session.tool_names();
    let id = crate::program::fresh_id();
    let row = json!({"dcc_type": "maya", "instance_id": id, "host": "127.0.0.1", "port": world.gateway().port(),
        "pid": gateway.pid(), "status": "available"});
    crate::backend::write_rows(&world.registry(), &[row]);
    world.wait_instances(2);
    let asked = Instant::now();
    let found = session.structured("list_skills", json!({}));
    assert!(asked.elapsed() < Duration::from_secs(4), "nobody waits for himself: {:?}", asked.elapsed());
    assert!(found["skills"].as_array().is_some_and(|skills| skills.len() == 1), "{found}");
    assert_eq!(session.tool_names(), before);
    let threads = fs::read_dir(format!("/proc/{}/task", gateway.pid())).expect("its threads").count();
    assert!(threads < 100, "{threads} threads");
}

#[test]
fn an_answer_too_large_to_pass_is_not_cut() {
    let (world, _gateway) = gateway(&[]);
    let text = "x".repeat(17 * 1024 * 1024);
    let large = Backend::start(Manner::Json(json!({"content": [{"type": "text", "text": text}]})), vec![tool("go")]);
    let _large = large.register(&world.registry(), "maya");
    world.wait_instances(2);
    let mut session = Session::open_at(world.gateway(), &format!("/mcp/{}", large.short()), R06);
    let answer = session.request("tools/call", json!({"name": "go"}));
    assert_eq!(answer["error"]["code"], json!(-32603), "{}", answer["error"]);
}

#[test]
fn what_has_no_place_in_the_list_is_called_all_the_same() {
    let (world, _gateway) = gateway(&[]);
    let answer = json!({"content": [{"type": "text", "text": "ok"}]});
    let large = |name: String| {
        let mut tool = tool(&name);
        tool["description"] = json!("x".repeat(1 << 20));
        tool
    };
    let backends = ["blender", "houdini", "maya"].map(|dcc| {
        let tools = (0..7).map(|number| large(format!("large{number}"))).collect();
        let backend = Backend::start(Manner::Json(answer.clone()), tools);
        let entry = backend.register_published(&world.registry(), dcc);
        (backend, entry)
    });
    let mut session = Session::open(world.gateway(), R06);
    let name = |backend: usize, tool: usize| format!("{}__large{tool}", backends[backend].0.short());
    let last = name(2, 6);
    until(PATIENCE, "the last one is known", || {
        session.request("tools/call", json!({"name": last}))["result"]["content"][0]["text"] == "ok"
    });
    let reply = session.post(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}));
    assert!(reply.body.len() < 16 << 20, "a client takes it: {} bytes", reply.body.len());
    let names = names(reply.message()["result"]["tools"].as_array().expect("a list"));
    let listed = |backend: usize| (0..7).filter(|tool| names.contains(&name(backend, *tool))).count();
    assert_eq!((listed(0), listed(1), listed(2)), (7, 7, 1), "in the order of types");
    assert_eq!(reply.message()["result"].get("nextCursor"), None);
}

#[test]
fn a_tool_is_called_right_after_it_was_loaded() {
    let (world, _gateway) = gateway(&[]);
    skill::probe(&world.skills());
    let instance = world.start(Start::new().args(["--skill-paths", &world.skills().display().to_string()]));
    world.wait_instances(2);
    let mut session = Session::open(world.gateway(), R06);
    let loaded =
        session.structured("load_skill", json!({"skill_name": "probe-tools", "instance_id": instance.instance_id}));
    let tool = format!("{}probe_tools__echo", loaded["tool_prefix"].as_str().expect("the prefix of its tools"));
    assert_eq!(session.structured(&tool, json!({"text": "x"})), json!({"text": "x"}), "before the list tells of it");
    let unknown = session.request("tools/call", json!({"name": format!("{}__no_such", instance.short())}));
    assert_eq!(unknown["error"]["code"], json!(-32602), "{unknown}");
}

#[test]
fn a_call_is_cancelled_while_its_instance_does_not_even_greet() {
    let (world, _gateway) = gateway(&[]);
    let mute = Backend::start(Manner::Silent, vec![tool("go")]);
    let _mute = mute.register_published(&world.registry(), "maya");
    let name = format!("{}__go", mute.short());
    let mut session = Session::open(world.gateway(), R06);
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&name));
    let mut calling = session.beside();
    let call = json!({"jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": {"name": name}});
    let reply = thread::spawn(move || calling.try_post(&call));
    until(PATIENCE, "the gateway says hello", || !mute.requests_of("initialize").is_empty());
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 77}});
    assert_eq!(session.post(&cancel).status, 202);
    until(PATIENCE, "the request ends", || reply.is_finished());
}

#[test]
fn an_answer_that_breaks_off_on_its_way_ends_with_an_error() {
    let (world, _gateway) = gateway(&[]);
    let broken = Backend::start(Manner::BrokenStream, vec![tool("go")]);
    let _broken = broken.register(&world.registry(), "maya");
    world.wait_instances(2);
    let mut session = Session::open_at(world.gateway(), &format!("/mcp/{}", broken.short()), R06);
    let answer = session.request("tools/call", json!({"name": "go"}));
    assert_eq!(answer["error"]["code"], json!(-32603), "{answer}");
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains(broken.short())), "{answer}");
}

#[test]
fn a_session_by_type_goes_on_at_another_instance() {
    let (world, _gateway) = gateway(&[]);
    let [mut first, mut second] = [(); 2].map(|()| world.start(Start::new().no_gateway().args(["--dcc", "maya"])));
    world.wait_instances(3);
    let mut session = Session::open_at(world.gateway(), "/mcp/dcc/maya", R06);
    let opened_by_first = session.id.starts_with(&first.instance_id);
    if opened_by_first { &mut first } else { &mut second }.kill_9();
    world.wait_instances(2);
    assert!(!session.tool_names().is_empty(), "the other one takes the session over");
}

#[test]
fn a_silent_call_is_kept_open_by_comments() {
    let world = World::new();
    skill::probe(&world.skills());
    let _gateway = world.start(Start::new());
    let instance = world.start_with_skills("maya");
    world.wait_instances(2);
    let through = format!("{}__probe_tools__sleep", instance.short());
    let mut listing = Session::open(world.gateway(), R06);
    until(PATIENCE, "the tool is listed", || listing.tool_names().contains(&through));
    let calls = [(instance.address, "probe_tools__sleep".to_owned()), (world.gateway(), through)];
    let waiting = calls.map(|(address, tool)| {
        let note = world.path().join(format!("note-{}", address.port())).display().to_string();
        thread::spawn(move || {
            let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": {"name": tool, "arguments": {"note": note}}});
            let mut stream = Session::open(address, R06).post_stream(&call).expect("a stream within 20 s");
            let primed = stream.next_after_retry(PATIENCE).expect("an event with an id first");
            (primed.id.is_some(), stream.next(PATIENCE).is_some_and(|event| event.comment.is_some()))
        })
    });
    for wait in waiting {
        assert_eq!(wait.join().expect("the stream is read"), (true, true), "an id, then a comment");
    }
}

fn gateway(args: &[&str]) -> (World, Program) {
    let world = World::new();
    fs::create_dir_all(world.registry().join("instances")).expect("the registry folder");
    let gateway = world.start(Start::new().args(args.iter().copied()));
    world.wait_instances(1);
    (world, gateway)
}

#[track_caller]
fn check_proxy(world: &World, path: &str, instance: &Program) {
    let mut through = Session::open_at(world.gateway(), path, R06);
    let mut direct = Session::open(instance.address, R06);
    assert_eq!(through.tools(), direct.tools(), "{path}: the instance's own list");
    assert_eq!(through.structured("probe_tools__echo", json!({"text": path})), json!({"text": path}));
    let unknown = through.request("tools/call", json!({"name": "no_such"}));
    assert_eq!(unknown["error"]["code"], json!(-32602), "{unknown}");
    let mut stream = through.stream(None);
    assert!(stream.next(PATIENCE).is_some(), "{path}: the instance's own stream");
    direct.structured("unload_skill", json!({"skill_name": "probe-tools"}));
    stream.wait_list_changed(PATIENCE);
    direct.structured("load_skill", json!({"skill_name": "probe-tools"}));
    let mut connection = Connection::open(world.gateway()).expect("a connection");
    let ended = connection.request("DELETE", path, &through.headers(), None).expect("a reply");
    assert!(matches!(ended.status, 200 | 204), "{path}: DELETE {}", ended.status);
    let after: Value = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    assert_eq!(through.post(&after).status, 404, "{path}: the session is ended");
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    let [median_ms, worst_ms] = [median, worst].map(|time| time.as_secs_f64() * 1e3);
    print(&format!(
        "{what}: median {median_ms:.2} ms, worst {worst_ms:.2} ms (promised: under {} ms)",
        UNDISTURBED.as_millis()
    ));
    assert!(median < UNDISTURBED, "{what}: median {median:?}");
    assert!(worst < DISTURBED, "{what}: worst {worst:?}");
}
