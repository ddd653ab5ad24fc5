//! Calls that become tasks, in both forms: their results, what they ask, whose they are, and how long they live.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{ACCEPT_BOTH, Connection, R03, R06, R11, Reply, Session, text_of};
use crate::folder::write;
use crate::program::{Program, Start, World};
use crate::wait::{PATIENCE, until, until_some};

const SKILL: &str = "---
name: job
description: Has tools that are tasks
dcc: any
tools:
  - {name: plain, source_file: scripts/say.py}
  - {name: say, source_file: scripts/say.py, task_support: optional}
  - {name: must, source_file: scripts/say.py, task_support: required}
  - {name: ask, source_file: scripts/ask.py, task_support: optional, dialog: true}
  - {name: first, source_file: scripts/ask.py, task_support: required, dialog: true, ask_first: true}
---
";

/// Notes its process id, tells how far it is, waits for as long as it is told, notes its end, and says something or fails.
const SAY: &str = r#"
import json, os, sys, time
arguments = json.load(sys.stdin)
note = arguments.get("note")
def keep(name):
    if note:
        with open(f"{note}.{name}.tmp", "w") as file:
            file.write(str(os.getpid()))
        os.rename(f"{note}.{name}.tmp", f"{note}.{name}")
keep("begun")
params = {"progress": 1, "message": "half way"}
print(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}), flush=True)
time.sleep(arguments.get("seconds", 0))
keep("ended")
if "error" in arguments:
    print(json.dumps({"jsonrpc": "2.0", "error": {"code": -32050, "message": arguments["error"]}}))
else:
    print(json.dumps({"text": arguments.get("text", ""), "success": not arguments.get("fail")}))
"#;

/// Asks for two things, one after the other.
const ASK: &str = r#"
import json, sys
json.loads(sys.stdin.readline())
answers = []
for text in ["one?", "two?"]:
    schema = {"type": "object", "properties": {"it": {"type": "string"}}}
    params = {"message": text, "requestedSchema": schema}
    print(json.dumps({"jsonrpc": "2.0", "id": text, "method": "elicitation/create", "params": params}), flush=True)
    answer = json.loads(sys.stdin.readline())
    answers.append(answer.get("result", {}).get("content", {}).get("it", "nothing"))
print(json.dumps({"answers": answers}))
"#;

const EXTENSION: &str = "io.modelcontextprotocol/tasks";
const RELATED: &str = "io.modelcontextprotocol/related-task";

fn start_with(args: &[&str]) -> (World, Program, Program) {
    let world = World::new();
    let folder = world.skills().join("job");
    for (name, text) in [("SKILL.md", SKILL), ("scripts/say.py", SAY), ("scripts/ask.py", ASK)] {
        write(&folder.join(name), text);
    }
    let gateway = world.start(Start::new());
    let skills = world.skills().display().to_string();
    let all = ["--dcc", "maya", "--skill-paths", &skills, "--load-skills", "all"];
    let instance = world.start(Start::new().args(all.iter().chain(args).copied()));
    world.wait_instances(2);
    (world, gateway, instance)
}

/// Address, path, and what the tools' names begin with.
fn ways(world: &World, instance: &Program) -> [(SocketAddr, String, String); 4] {
    let published = format!("{}__job__", instance.short());
    let mut session = Session::open(world.gateway(), R11);
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&format!("{published}say")));
    let (gateway, own) = (world.gateway(), "job__".to_owned());
    [
        (instance.address, "/mcp".to_owned(), own.clone()),
        (gateway, format!("/mcp/{}", instance.short()), own.clone()),
        (gateway, "/mcp/dcc/maya".to_owned(), own),
        (gateway, "/mcp".to_owned(), published),
    ]
}

/// Calls a tool as a task of 2025-11-25 and gives the task's id.
#[track_caller]
fn begin(session: &mut Session, tool: &str, arguments: Value) -> String {
    let result = session.result("tools/call", json!({"name": tool, "arguments": arguments, "task": {"ttl": 190000}}));
    let task = &result["task"];
    assert!(["working", "input_required"].contains(&task["status"].as_str().unwrap_or_default()), "{result}");
    assert_eq!((&task["ttl"], result.get("content")), (&json!(190000), None), "{result}");
    assert!(task["createdAt"].is_string() && task["lastUpdatedAt"].is_string() && task["pollInterval"].is_u64());
    task["taskId"].as_str().expect("an id").to_owned()
}

#[track_caller]
fn code(session: &mut Session, method: &str, params: Value) -> Value {
    let answer = session.request(method, params);
    assert!(answer.get("result").is_none(), "{method}: {answer}");
    answer["error"]["code"].clone()
}

fn status(session: &mut Session, id: &str) -> String {
    let task = session.result("tasks/get", json!({"taskId": id}));
    assert_eq!(task["taskId"], id, "{task}");
    task["status"].as_str().expect("a status").to_owned()
}

#[test]
fn a_result_is_fetched_later() {
    let (world, _gateway, instance) = start_with(&[]);
    for (address, path, prefix) in ways(&world, &instance) {
        let mut session = Session::open_at(address, &path, R11);
        assert_eq!(session.server["capabilities"]["tasks"]["requests"], json!({"tools": {"call": {}}}), "{path}");
        let tools = session.tools();
        let supports = |name: &str| {
            let is_it = |tool: &&Value| tool["name"] == format!("{prefix}{name}");
            tools.iter().find(is_it).expect("it is listed")["execution"]["taskSupport"].clone()
        };
        assert_eq!(
            ["plain", "say", "must"].map(supports),
            [Value::Null, json!("optional"), json!("required")],
            "{path}"
        );

        let say = format!("{prefix}say");
        let id = begin(&mut session, &say, json!({"text": path, "seconds": 0.3}));
        let running = session.result("tasks/get", json!({"taskId": id}));
        assert!(running["status"] == "working" && running.get("result").is_none(), "{running}");
        let result = session.beside().result("tasks/result", json!({"taskId": id}));
        assert_eq!(result["structuredContent"]["text"], path, "{result}");
        assert_eq!(result["_meta"][RELATED], json!({"taskId": id}), "{result}");
        let ended = session.result("tasks/get", json!({"taskId": id}));
        assert_eq!((&ended["status"], &ended["statusMessage"]), (&json!("completed"), &json!("half way")), "{path}");
        assert_eq!(session.result("tasks/result", json!({"taskId": id})), result, "it can be had again");

        let failed = begin(&mut session, &say, json!({"fail": true}));
        assert_eq!(session.result("tasks/result", json!({"taskId": failed}))["isError"], true, "{path}");
        assert_eq!(status(&mut session, &failed), "failed", "{path}");
        assert_eq!(session.call(&say, json!({"text": "plain"}))["structuredContent"]["text"], "plain", "{path}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let (world, _gateway, instance) = start_with(&[]);
    for (address, path, prefix) in ways(&world, &instance) {
        let mut session = Session::open_at(address, &path, R11);
        let call = |name: &str, task: Value| match task {
            Value::Null => json!({"name": format!("{prefix}{name}"), "arguments": {}}),
            task => json!({"name": format!("{prefix}{name}"), "arguments": {}, "task": task}),
        };
        assert_eq!(code(&mut session, "tools/call", call("plain", json!({}))), -32601, "{path}");
        assert_eq!(code(&mut session, "tools/call", call("must", Value::Null)), -32601, "{path}");
        for task in [json!({"ttl": -1}), json!({"ttl": "long"}), json!("yes")] {
            assert_eq!(code(&mut session, "tools/call", call("say", task.clone())), -32602, "{path}: {task}");
        }
        let id = begin(&mut session, &format!("{prefix}say"), json!({}));
        session.result("tasks/result", json!({"taskId": id}));
        assert_eq!(code(&mut session, "tasks/cancel", json!({"taskId": id})), -32602, "{path}: it has ended");
        let mut unknown = vec![json!("nonsense"), json!(format!("{}x", &id[..id.len() - 1])), json!(7), json!(null)];
        unknown.extend([json!(""), json!("~"), json!(format!("{id}~{id}")), json!(format!("~{id}"))]);
        for wrong in unknown {
            for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
                assert_eq!(code(&mut session, method, json!({"taskId": wrong})), -32602, "{path} {method} {wrong}");
            }
        }
        assert_eq!(code(&mut session, "tasks/list", json!({"cursor": "nonsense"})), -32602, "{path}");
        assert_eq!(code(&mut session, "tasks/update", json!({"taskId": id})), -32601, "{path}: of the newer form");
        for revision in [R03, R06] {
            let mut older = Session::open_at(address, &path, revision);
            assert!(older.server["capabilities"].get("tasks").is_none(), "{path} {revision}");
            let result = older.result("tools/call", call("say", json!({"ttl": 90000})));
            assert!(result["content"].is_array(), "{path} {revision}: older revisions have no tasks: {result}");
            for method in ["tasks/get", "tasks/result", "tasks/cancel", "tasks/list"] {
                assert_eq!(code(&mut older, method, json!({"taskId": id})), -32601, "{path} {revision} {method}");
            }
        }
    }
}

#[test]
fn a_cancelled_task_ends_its_script() {
    let (world, _gateway, instance) = start_with(&[]);
    for (number, (address, path, prefix)) in ways(&world, &instance).into_iter().enumerate() {
        let mut session = Session::open_at(address, &path, R11);
        let note = world.path().join(format!("cancelled-{number}"));
        let id = begin(&mut session, &format!("{prefix}say"), json!({"note": note, "seconds": 60}));
        let pid = begun(&note);
        let mut waiting = session.beside();
        let waited = thread::spawn({
            let id = id.clone();
            move || waiting.request("tasks/result", json!({"taskId": id}))
        });
        assert_eq!(session.result("tasks/cancel", json!({"taskId": id}))["status"], "cancelled", "{path}");
        assert_eq!(status(&mut session, &id), "cancelled", "{path}");
        assert!(waited.join().expect("an answer")["error"].is_object(), "{path}: who waits hears of it");
        until(PATIENCE, "its script has ended", || !is_running(&pid));
    }
}

/// The process id of a script that has begun.
fn begun(note: &Path) -> String {
    let file = note.with_extension("begun");
    until_some(PATIENCE, "the script runs", || std::fs::read_to_string(&file).ok())
}

fn is_running(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

#[test]
fn a_task_outlives_its_connection_and_its_gateway() {
    let (world, mut gateway, instance) = start_with(&[]);
    let [.., (address, path, prefix)] = ways(&world, &instance);
    let mut session = Session::open_at(address, &path, R11);
    let note = world.path().join("long");
    let id = begin(&mut session, &format!("{prefix}say"), json!({"note": note, "seconds": 2, "text": "done"}));
    begun(&note);
    gateway.kill_9();
    until(PATIENCE, "the other one is the gateway", || instance.is_gateway());
    let result = session.beside().result("tasks/result", json!({"taskId": id}));
    assert_eq!(result["structuredContent"]["text"], "done", "{result}");
    assert_eq!(session.beside().result("tasks/list", json!({}))["tasks"][0]["taskId"], json!(id));
}

#[test]
fn clients_see_their_own_tasks_alone() {
    let (world, _gateway, instance) = start_with(&[]);
    let list = |session: &mut Session, params: Value| -> BTreeSet<String> {
        let page = session.result("tasks/list", params);
        let ids = page["tasks"].as_array().expect("a list").iter();
        ids.map(|task| task["taskId"].as_str().expect("an id").to_owned()).collect()
    };
    for (address, path, prefix) in ways(&world, &instance) {
        let mut sessions = [Session::open_at(address, &path, R11), Session::open_at(address, &path, R11)];
        let owned: Vec<BTreeSet<String>> = sessions
            .iter_mut()
            .map(|session| (0..3).map(|_| begin(session, &format!("{prefix}say"), json!({}))).collect())
            .collect();
        for (at, session) in sessions.iter_mut().enumerate() {
            assert_eq!(list(session, json!({})), owned[at], "{path}");
            for id in &owned[1 - at] {
                for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
                    assert_eq!(code(session, method, json!({"taskId": id})), -32602, "{path} {method}");
                }
            }
            // What a gateway tells an instance is of no use to a client that tells it.
            for owner in ["", "0", "00000000000000000000000000000000", "ffffffffffffffffffffffffffffffff"] {
                let params = json!({"_meta": {"io.dcc-mcp/owner": owner}});
                assert!(list(session, params).is_subset(&owned[at]), "{path}");
            }
        }
    }
}

#[test]
fn lists_of_all_instances_are_one_and_have_pages() {
    let (world, _gateway, first) = start_with(&[]);
    let second = world.start_with_skills("houdini");
    world.wait_instances(3);
    let mut session = Session::open(world.gateway(), R11);
    let tools = [&first, &second].map(|instance| format!("{}__job__say", instance.short()));
    until(PATIENCE, "the tools are listed", || {
        let names = session.tool_names();
        tools.iter().all(|tool| names.contains(tool))
    });
    let mut begun = Vec::new();
    for number in 0..104 {
        let tool = &tools[number % 2];
        let id = until_some(PATIENCE, "there is a place", || {
            let params = json!({"name": tool, "arguments": {}, "task": {}});
            session.request("tools/call", params)["result"]["task"]["taskId"].as_str().map(str::to_owned)
        });
        begun.push(id);
    }
    let (mut seen, mut params, mut pages) = (Vec::new(), json!({}), 0);
    loop {
        let page = session.result("tasks/list", params);
        seen.extend(
            page["tasks"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|task| (task["createdAt"].to_string(), task["taskId"].as_str().expect("an id").to_owned())),
        );
        pages += 1;
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        params = json!({"cursor": cursor});
    }
    assert_eq!(pages, 2);
    assert!(seen.is_sorted_by(|left, right| left.0 >= right.0), "the newest first");
    let ids: BTreeSet<String> = seen.iter().map(|(_, id)| id.clone()).collect();
    assert_eq!((seen.len(), ids), (begun.len(), begun.into_iter().collect()));
}

#[test]
fn what_a_task_asks_is_answered_by_whoever_waits_for_it() {
    let (world, _gateway, instance) = start_with(&[]);
    for (address, path, prefix) in ways(&world, &instance) {
        let mut session = Session::open_answering(address, &path, R11);
        let id = begin(&mut session, &format!("{prefix}ask"), json!({}));
        until(PATIENCE, "it asks", || status(&mut session, &id) == "input_required");
        let wait = json!({"jsonrpc": "2.0", "id": "wait", "method": "tasks/result", "params": {"taskId": id}});
        let mut stream = session.post_stream(&wait).expect("a reply");
        for (expected, answer) in [("one?", "1"), ("two?", "2")] {
            let (_, question) = stream.next_message(PATIENCE).expect("a question");
            assert_eq!(question["params"]["message"], expected, "{path}: {question}");
            assert_eq!(question["params"]["_meta"][RELATED], json!({"taskId": id}), "{path}: {question}");
            let answer = json!({"action": "accept", "content": {"it": answer}});
            let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": answer});
            assert_eq!(session.beside().post(&answer).status, 202);
        }
        let (_, result) = stream.next_message(PATIENCE).expect("the result");
        assert_eq!(result["result"]["structuredContent"]["answers"], json!(["1", "2"]), "{path}: {result}");

        // A client that offers nothing is not asked.
        let mut mute = Session::open_at(address, &path, R11);
        let id = begin(&mut mute, &format!("{prefix}ask"), json!({}));
        let result = mute.result("tasks/result", json!({"taskId": id}));
        assert_eq!(result["structuredContent"]["answers"], json!(["nothing", "nothing"]), "{path}");
    }
}

/// A client of 2026-07-28.
struct Modern {
    address: SocketAddr,
    path: String,
    capabilities: Value,
}

impl Modern {
    fn new(address: SocketAddr, path: &str, capabilities: Value) -> Modern {
        Modern { address, path: path.to_owned(), capabilities }
    }

    fn send(&self, method: &str, mut params: Value) -> Reply {
        let name = params.get("name").or(params.get("taskId")).and_then(Value::as_str).unwrap_or_default().to_owned();
        params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": self.capabilities});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let headers = [
            ("Accept", ACCEPT_BOTH),
            ("Content-Type", "application/json"),
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", method),
            ("Mcp-Name", name.as_str()),
        ];
        let mut connection = Connection::open(self.address).expect("a connection");
        connection.request("POST", &self.path, &headers, Some(message.as_bytes())).expect("a reply")
    }

    #[track_caller]
    fn result(&self, method: &str, params: Value) -> Value {
        let message = self.send(method, params).message();
        assert!(message["result"].is_object(), "{method}: {message}");
        message["result"].clone()
    }

    #[track_caller]
    fn begin(&self, params: Value) -> String {
        let result = self.result("tools/call", params);
        assert_eq!((&result["resultType"], result.get("task")), (&json!("task"), None), "{result}");
        assert!(result["ttlMs"].is_u64() && result["pollIntervalMs"].is_u64(), "{result}");
        result["taskId"].as_str().expect("an id").to_owned()
    }

    #[track_caller]
    fn wait(&self, id: &str, wanted: &str) -> Value {
        let is_there = || {
            let task = self.result("tasks/get", json!({"taskId": id}));
            assert_eq!((&task["resultType"], &task["taskId"]), (&json!("complete"), &json!(id)), "{task}");
            (task["status"] == wanted).then_some(task)
        };
        until_some(PATIENCE, wanted, is_there)
    }
}

#[test]
fn the_extension_has_tasks_where_the_tool_says_so() {
    let (world, _gateway, instance) = start_with(&[]);
    for (address, path, prefix) in ways(&world, &instance) {
        let client = Modern::new(address, &path, json!({"extensions": {EXTENSION: {}}}));
        let offered = client.result("server/discover", json!({}));
        assert!(offered["capabilities"]["extensions"][EXTENSION].is_object(), "{path}: {offered}");
        let call = |tool: &str, arguments: Value| json!({"name": format!("{prefix}{tool}"), "arguments": arguments});
        for tool in ["say", "must"] {
            let id = client.begin(call(tool, json!({"text": tool})));
            let task = client.wait(&id, "completed");
            assert_eq!(task["result"]["structuredContent"]["text"], tool, "{path}: {task}");
            assert!(task["result"].get("_meta").is_none(), "{path}: {task}");
        }
        let plain = client.result("tools/call", call("plain", json!({"text": "x"})));
        assert_eq!((&plain["resultType"], plain.get("taskId")), (&json!("complete"), None), "{path}");

        let failed = client.wait(&client.begin(call("say", json!({"fail": true}))), "completed");
        assert_eq!(failed["result"]["isError"], true, "{path}: the tool has failed, not the task");
        let broken = client.wait(&client.begin(call("say", json!({"error": "broken"}))), "failed");
        assert_eq!((&broken["error"]["code"], broken.get("result")), (&json!(-32050), None), "{path}: {broken}");

        let id = client.begin(call("say", json!({"seconds": 60})));
        for _ in 0..2 {
            assert_eq!(client.result("tasks/cancel", json!({"taskId": id}))["resultType"], "complete", "{path}");
        }
        client.wait(&id, "cancelled");
        for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
            let params = json!({"taskId": "nonsense", "inputResponses": {}});
            assert_eq!(client.send(method, params).message()["error"]["code"], -32602, "{path} {method}");
        }
        for method in ["tasks/result", "tasks/list"] {
            let reply = client.send(method, json!({"taskId": id}));
            assert_eq!((reply.status, &reply.message()["error"]["code"]), (404, &json!(-32601)), "{path} {method}");
        }
        // One who does not know the extension, and one of 2025-11-25.
        let simple = Modern::new(address, &path, json!({}));
        let result = simple.result("tools/call", call("say", json!({"text": "at once"})));
        assert_eq!(result["structuredContent"]["text"], "at once", "{path}: {result}");
        let missing = json!({"extensions": {EXTENSION: {}}});
        for (method, params) in [("tools/call", call("must", json!({}))), ("tasks/get", json!({"taskId": id}))] {
            let reply = simple.send(method, params);
            let error = &reply.message()["error"];
            assert_eq!((reply.status, &error["code"]), (400, &json!(-32021)), "{path} {method}: {error}");
            assert_eq!(error["data"]["requiredCapabilities"], missing, "{path} {method}");
        }
        let mut older = Session::open_at(address, &path, R11);
        assert_eq!(code(&mut older, "tasks/get", json!({"taskId": id})), -32602, "{path}");
    }
}

#[test]
fn a_task_of_the_extension_asks_and_is_updated() {
    let (world, _gateway, instance) = start_with(&[]);
    let capabilities = json!({"extensions": {EXTENSION: {}}, "elicitation": {}});
    let accept = |text: &str| json!({"action": "accept", "content": {"it": text}});
    for (address, path, prefix) in ways(&world, &instance) {
        let client = Modern::new(address, &path, capabilities.clone());
        let ask = json!({"name": format!("{prefix}ask"), "arguments": {}});
        let id = client.begin(ask.clone());
        for (expected, answer) in [("one?", "1"), ("two?", "2")] {
            let asks =
                |task: &Value| task["inputRequests"].as_object()?.iter().next().map(|(k, v)| (k.clone(), v.clone()));
            let (key, request) = until_some(PATIENCE, expected, || {
                asks(&client.result("tasks/get", json!({"taskId": id})))
                    .filter(|(_, request)| request["params"]["message"] == expected)
            });
            assert_eq!(request["method"], "elicitation/create", "{path}");
            let wrong = json!({"taskId": id, "inputResponses": {key.clone(): 7}});
            assert_eq!(client.send("tasks/update", wrong).message()["error"]["code"], -32602, "{path}");
            let responses = json!({key: accept(answer), "q99": {}, "nonsense": 7});
            client.result("tasks/update", json!({"taskId": id, "inputResponses": responses}));
        }
        let task = client.wait(&id, "completed");
        assert_eq!(task["result"]["structuredContent"]["answers"], json!(["1", "2"]), "{path}: {task}");

        // A client that cannot be asked is not.
        let mute = Modern::new(address, &path, json!({"extensions": {EXTENSION: {}}}));
        let task = mute.wait(&mute.begin(ask), "completed");
        assert_eq!(task["result"]["structuredContent"]["answers"], json!(["nothing", "nothing"]), "{path}: {task}");

        // The first question comes before there is a task, the second in it.
        let first = format!("{prefix}first");
        let round = client.result("tools/call", json!({"name": first, "arguments": {}}));
        assert_eq!((&round["resultType"], round.get("taskId")), (&json!("input_required"), None), "{path}: {round}");
        let state = round["requestState"].as_str().expect("a state");
        assert_eq!(client.send("tasks/get", json!({"taskId": state})).message()["error"]["code"], -32602, "{path}");
        let again = client.result("tools/call", json!({"name": first, "arguments": {}, "requestState": state}));
        assert_eq!(again["inputRequests"], round["inputRequests"], "{path}: what is missing is asked for again");
        let key = round["inputRequests"].as_object().expect("requests").keys().next().expect("one");
        let answered = |tool: &str, state: &str| json!({"name": tool, "arguments": {}, "requestState": state, "inputResponses": {key: accept("first")}});
        for (tool, state) in [(first.as_str(), "forged"), (&format!("{prefix}must"), state)] {
            let reply = client.send("tools/call", answered(tool, state)).message();
            assert!(reply["error"]["code"] == -32602 || tool != first, "{path}: {reply}");
        }
        let id = client.begin(answered(&first, state));
        let asked = client.wait(&id, "input_required");
        let key = asked["inputRequests"].as_object().expect("requests").keys().next().expect("one").clone();
        client.result("tasks/update", json!({"taskId": id, "inputResponses": {key: accept("second")}}));
        let task = client.wait(&id, "completed");
        assert_eq!(task["result"]["structuredContent"]["answers"], json!(["first", "second"]), "{path}: {task}");
    }
}

#[test]
fn a_stop_waits_for_tasks_as_long_as_for_calls() {
    let (world, _gateway, mut instance) = start_with(&["--drain-timeout", "4"]);
    let mut session = Session::open(instance.address, R11);
    let notes = ["short", "endless"].map(|name| world.path().join(name));
    begin(&mut session, "job__say", json!({"note": notes[0], "seconds": 1.5}));
    begin(&mut session, "job__say", json!({"note": notes[1], "seconds": 60}));
    let pids = [begun(&notes[0]), begun(&notes[1])];
    let stopped = Instant::now();
    instance.term();
    assert!(instance.wait_exit(PATIENCE).success());
    assert!(stopped.elapsed() > Duration::from_secs(3), "{:?}", stopped.elapsed());
    assert!(notes[0].with_extension("ended").exists() && !notes[1].with_extension("ended").exists());
    until(PATIENCE, "no script is left", || !pids.iter().any(|pid| is_running(pid)));
}

#[test]
fn tasks_that_run_are_bounded() {
    let (world, _gateway, instance) = start_with(&[]);
    ways(&world, &instance);
    let mut session = Session::open(instance.address, R11);
    let long = json!({"name": "job__say", "arguments": {"seconds": 60}, "task": {}});
    let ids: Vec<String> = (0..64)
        .map(|_| session.result("tools/call", long.clone())["task"]["taskId"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(code(&mut session, "tools/call", long.clone()), -32603);
    assert_eq!(text_of(&session.call("job__plain", json!({"text": "x"}))), r#"{"text": "x", "success": true}"#);
    for id in &ids {
        assert_eq!(session.result("tasks/cancel", json!({"taskId": id}))["status"], "cancelled");
    }
    until(PATIENCE, "there is a place again", || session.request("tools/call", long.clone()).get("result").is_some());
}
