//! What running scripts tell and ask: progress, log messages, questions and their answers.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{ACCEPT_BOTH, Connection, EventStream, R03, R06, R11, Session, text_of};
use crate::folder::write;
use crate::program::{Program, Start, World};
use crate::wait::{PATIENCE, until};

const SKILL: &str = "---
name: talk
description: Tells and asks
dcc: any
tools:
  - {name: steps, source_file: scripts/steps.py}
  - {name: flood, source_file: scripts/flood.py}
  - {name: shout, source_file: scripts/shout.py}
  - {name: ask, source_file: scripts/ask.py, dialog: true}
  - {name: ask_in_vain, source_file: scripts/ask.py}
---
";

const STEPS: &str = r#"
import json, sys
def say(method, **params):
    print(json.dumps({"jsonrpc": "2.0", "method": "notifications/" + method, "params": params}), flush=True)
count = json.load(sys.stdin).get("count", 3)
print("words between")
say("message", level="debug", data="not for everybody")
for step in range(1, count + 1):
    say("progress", progress=step, total=count, message=f"frame {step}", progressToken="none of the script's")
say("progress", progress=1)
say("message", level="warning", logger="steps", data={"left": 0})
say("unknown")
print("and after")
"#;

const FLOOD: &str = r#"
import sys
line = '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"debug","data":"again"}}\n'
while True: sys.stdout.write(line * 100)
"#;

/// Notes its process id into the file `note` and tells progress without end, more than any socket takes.
const SHOUT: &str = r#"
import itertools, json, os, sys
with open(json.load(sys.stdin)["note"], "w") as note:
    note.write(str(os.getpid()))
for step in itertools.count(1):
    params = {"progress": step, "message": "x" * 60000}
    print(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}), flush=True)
"#;

/// Asks what it is told to ask, and gives back what it is answered.
const ASK: &str = r#"
import json, sys
arguments = json.loads(sys.stdin.readline())
print(json.dumps({"jsonrpc": "2.0", "id": 1, "method": arguments["method"], "params": arguments.get("params", {})}), flush=True)
print(json.dumps({"answer": json.loads(sys.stdin.readline())}))
"#;

/// Writes the skill `talk`, which tells and asks.
pub fn write_skill(skills: &Path) {
    let folder = skills.join("talk");
    for (name, text) in [
        ("SKILL.md", SKILL),
        ("scripts/steps.py", STEPS),
        ("scripts/flood.py", FLOOD),
        ("scripts/shout.py", SHOUT),
        ("scripts/ask.py", ASK),
    ] {
        write(&folder.join(name), text);
    }
}

pub fn start() -> (World, Program, Program) {
    let world = World::new();
    write_skill(&world.skills());
    let gateway = world.start(Start::new());
    let instance = world.start_with_skills("maya");
    world.wait_instances(2);
    (world, gateway, instance)
}

pub fn call(id: Value, name: &str, arguments: Value, token: Option<Value>) -> Value {
    let meta = token.map_or_else(|| json!({}), |token| json!({"progressToken": token}));
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": name, "arguments": arguments, "_meta": meta}})
}

fn ask_by(tool: &str, method: &str, params: &Value) -> Value {
    call(json!("call"), tool, json!({"method": method, "params": params}), None)
}

/// Where the tool that asks is found: address, path, name.
fn ways(world: &World, instance: &Program) -> [(SocketAddr, String, String); 4] {
    let published = format!("{}__talk__ask", instance.short());
    let mut session = Session::open(world.gateway(), R11);
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&published));
    let gateway = world.gateway();
    [
        (instance.address, "/mcp".to_owned(), "talk__ask".to_owned()),
        (gateway, format!("/mcp/{}", instance.short()), "talk__ask".to_owned()),
        (gateway, "/mcp/dcc/maya".to_owned(), "talk__ask".to_owned()),
        (gateway, "/mcp".to_owned(), published),
    ]
}

/// All messages of a stream to its end.
fn rest(stream: &mut EventStream) -> Vec<Value> {
    std::iter::from_fn(|| stream.next_message(PATIENCE)).map(|(_, message)| message).collect()
}

#[test]
fn progress_and_log_messages_reach_the_client_of_the_call() {
    let (world, _gateway, instance) = start();
    let through = format!("{}__talk__steps", instance.short());
    for (address, name) in [(instance.address, "talk__steps"), (world.gateway(), through.as_str())] {
        for revision in [R03, R06, R11] {
            let mut session = Session::open(address, revision);
            until(PATIENCE, "the tool is listed", || session.tool_names().contains(&name.to_owned()));
            let token = json!("a \u{e9}");
            let mut stream =
                session.post_stream(&call(json!(1), name, json!({}), Some(token.clone()))).expect("a reply");
            let messages = rest(&mut stream);
            let told = |method: &str| -> Vec<&Value> {
                messages
                    .iter()
                    .filter(|message| message["method"] == method)
                    .map(|message| &message["params"])
                    .collect()
            };
            let steps = told("notifications/progress");
            let expected: Vec<Value> = (1..=3)
                .map(|step| {
                    json!({"progressToken": token, "progress": step, "total": 3, "message": format!("frame {step}")})
                })
                .collect();
            assert_eq!(steps, expected.iter().collect::<Vec<_>>(), "with the client's token, growing");
            let log = json!({"level": "warning", "logger": "steps", "data": {"left": 0}});
            assert_eq!(told("notifications/message"), [&log]);
            let answer = messages.last().expect("an answer");
            assert_eq!((&answer["id"], messages.len()), (&json!(1), 5));
            assert_eq!(text_of(&answer["result"]), r#"{"message":"words between\nand after","success":true}"#);
        }
    }
}

#[test]
fn without_a_token_there_is_no_progress_and_scripts_are_heard_quickly() {
    let (_world, _gateway, instance) = start();
    let mut session = Session::open(instance.address, R06);
    let reply = session.post(&call(json!(1), "talk__steps", json!({}), None));
    assert_eq!(reply.messages().len(), 2, "a log message and the answer: {}", reply.text());
    let mut stream =
        session.post_stream(&call(json!(2), "talk__steps", json!({"count": 3000}), Some(json!(2)))).expect("a reply");
    assert_eq!(rest(&mut stream).len(), 3002, "none is lost");
}

#[test]
fn the_stateless_revision_hears_log_messages_where_it_asks_for_them() {
    let (world, _gateway, instance) = start();
    let through = format!("{}__talk__steps", instance.short());
    ways(&world, &instance);
    let cases = [(None, &[][..]), (Some("debug"), &["debug", "warning"]), (Some("error"), &[])];
    let places = [(instance.address, "talk__steps"), (world.gateway(), through.as_str())];
    for ((level, expected), (address, name)) in cases.into_iter().flat_map(|case| places.map(|place| (case, place))) {
        let mut message = call(json!(1), name, json!({}), None);
        message["params"]["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}});
        if let Some(level) = level {
            message["params"]["_meta"]["io.modelcontextprotocol/logLevel"] = json!(level);
        }
        let headers = [
            ("Accept", ACCEPT_BOTH),
            ("Content-Type", "application/json"),
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", "tools/call"),
            ("Mcp-Name", name),
        ];
        let mut connection = Connection::open(address).expect("a connection");
        let body = message.to_string();
        let reply = connection.request("POST", "/mcp", &headers, Some(body.as_bytes())).expect("a reply");
        assert_eq!(reply.message()["result"]["resultType"], "complete", "{}", reply.text());
        let messages = if reply.is_stream() { reply.messages() } else { Vec::new() };
        let levels: Vec<&str> = messages.iter().filter_map(|message| message["params"]["level"].as_str()).collect();
        assert_eq!(levels, expected);
    }
}

#[test]
fn a_session_hears_log_messages_of_the_level_that_it_set() {
    let (world, _gateway, instance) = start();
    let through = format!("{}__talk__steps", instance.short());
    for (address, name) in [(instance.address, "talk__steps"), (world.gateway(), through.as_str())] {
        let mut other = Session::open(address, R11);
        until(PATIENCE, "the tool is listed", || other.tool_names().contains(&name.to_owned()));
        let mut session = Session::open(address, R11);
        assert!(session.server["capabilities"]["logging"].is_object());
        let levels = |session: &mut Session| -> Vec<String> {
            let reply = session.post(&call(json!(1), name, json!({}), None));
            let messages = if reply.is_stream() { reply.messages() } else { Vec::new() };
            messages.iter().filter_map(|message| Some(message["params"]["level"].as_str()?.to_owned())).collect()
        };
        for (level, expected) in [("debug", &["debug", "warning"][..]), ("warning", &["warning"]), ("error", &[])] {
            assert_eq!(session.result("logging/setLevel", json!({"level": level})), json!({}));
            assert_eq!(levels(&mut session), expected, "{level} at {address}");
            assert_eq!(levels(&mut other), ["warning"], "a session of its own has a level of its own");
        }
        for params in [json!({"level": "loud"}), json!({"level": 7}), json!({})] {
            assert_eq!(session.request("logging/setLevel", params)["error"]["code"], json!(-32602));
        }
    }
}

#[test]
fn a_script_that_floods_is_ended() {
    let (_world, _gateway, instance) = start();
    let mut session = Session::open(instance.address, R06);
    let started = Instant::now();
    let result = session.call("talk__flood", json!({}));
    assert_eq!(result["isError"], json!(true));
    assert!(text_of(&result).contains("flood.py printed more than 8 MiB and was ended"), "{result}");
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_script_that_asks_without_saying_so_fails_with_advice() {
    let (_world, _gateway, instance) = start();
    let mut session = Session::open_answering(instance.address, "/mcp", R11);
    let result = session.call("talk__ask_in_vain", json!({"method": "roots/list"}));
    assert_eq!(result["isError"], json!(true));
    let advice = "it asked for roots/list, but only a tool declared with `dialog: true` is answered";
    assert!(text_of(&result).contains(advice), "{result}");
}

#[test]
fn the_client_is_asked_and_its_answer_reaches_the_script() {
    let (world, _gateway, instance) = start();
    for (address, path, tool) in ways(&world, &instance) {
        let session = Session::open_answering(address, &path, R11);
        for (method, params) in [
            ("elicitation/create", json!({"message": "Which shot?", "requestedSchema": {"type": "object"}})),
            ("sampling/createMessage", json!({"messages": [], "maxTokens": 5})),
            ("roots/list", json!({})),
        ] {
            let mut stream = session.post_stream(&ask_by(&tool, method, &params)).expect("a reply");
            let (_, question) = stream.next_message(PATIENCE).expect("the question");
            assert_eq!((&question["method"], &question["params"]), (&json!(method), &params));
            let answer = json!({"action": "accept", "content": {"shot": "a\nb \u{e9}"}});
            let mut other = Session::open_answering(address, &path, R11);
            for wrong in [json!({"result": 7}), json!({"result": [answer]}), json!({"error": "no"})] {
                let mut message = json!({"jsonrpc": "2.0", "id": question["id"]});
                message.as_object_mut().expect("an object").extend(wrong.as_object().expect("an object").clone());
                let reply = session.beside().post(&message);
                assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!(-32600)), "{message}");
            }
            for (who, result) in [(&mut other, json!({"stolen": 1})), (&mut session.beside(), answer.clone())] {
                let reply = who.post(&json!({"jsonrpc": "2.0", "id": question["id"], "result": result}));
                assert_eq!((reply.status, reply.body.len()), (202, 0));
            }
            let messages = rest(&mut stream);
            assert_eq!(messages.len(), 1, "{messages:?}");
            let expected = json!({"jsonrpc": "2.0", "id": 1, "result": answer});
            assert_eq!(messages[0]["result"]["structuredContent"]["answer"], expected);
        }
    }
}

#[test]
fn a_client_that_offers_nothing_is_not_asked() {
    let (world, _gateway, instance) = start();
    let mut plain = Session::open(instance.address, R11);
    let mut through = Session::open(world.gateway(), R11);
    let name = format!("{}__talk__ask", instance.short());
    until(PATIENCE, "the tool is listed", || through.tool_names().contains(&name));
    for (session, name) in [(&mut plain, "talk__ask"), (&mut through, name.as_str())] {
        for method in ["elicitation/create", "sampling/createMessage", "roots/list", "tools/list"] {
            let answer = session.structured(name, json!({"method": method}));
            assert_eq!(answer["answer"]["error"]["code"], json!(-32601), "{answer}");
        }
    }
    let mut forms_only = Session::open_answering(instance.address, "/mcp", R11);
    let by_url = json!({"method": "elicitation/create", "params": {"mode": "url", "url": "https://example.com"}});
    assert_eq!(forms_only.structured("talk__ask", by_url)["answer"]["error"]["code"], json!(-32601));
}

#[test]
fn clients_with_equal_ids_answer_their_own_questions() {
    let (world, _gateway, instance) = start();
    for (address, path, tool) in ways(&world, &instance) {
        let sessions: Vec<Session> = (0..3).map(|_| Session::open_answering(address, &path, R11)).collect();
        let mut asked: Vec<(EventStream, Value)> = sessions
            .iter()
            .map(|session| {
                let mut stream = session.post_stream(&ask_by(&tool, "roots/list", &json!({}))).expect("a reply");
                let (_, question) = stream.next_message(PATIENCE).expect("the question");
                (stream, question["id"].clone())
            })
            .collect();
        // Each answers all questions that it could guess; only its own is heard.
        for (number, session) in sessions.iter().enumerate().rev() {
            for (_, id) in &asked {
                let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"roots": [number]}});
                assert_eq!(session.beside().post(&answer).status, 202);
            }
        }
        for (number, (stream, _)) in asked.iter_mut().enumerate() {
            let messages = rest(stream);
            let answer = &messages[0]["result"]["structuredContent"]["answer"];
            assert_eq!(
                (messages.len(), answer),
                (1, &json!({"jsonrpc": "2.0", "id": 1, "result": {"roots": [number]}}))
            );
        }
    }
}

#[test]
fn clients_that_offer_less_are_not_asked_beside_those_that_offer_more() {
    let (world, _gateway, instance) = start();
    let [.., (address, path, tool)] = ways(&world, &instance);
    let answering = Session::open_answering(address, &path, R11);
    let mut stream = answering.post_stream(&ask_by(&tool, "roots/list", &json!({}))).expect("a reply");
    let (_, question) = stream.next_message(PATIENCE).expect("the question");
    let refused = Session::open(address, R11).structured(&tool, json!({"method": "roots/list"}));
    assert_eq!(refused["answer"]["error"]["code"], json!(-32601), "{refused}");
    let error = json!({"code": -1, "message": "no"});
    answering.beside().post(&json!({"jsonrpc": "2.0", "id": question["id"], "error": error}));
    assert_eq!(rest(&mut stream)[0]["result"]["structuredContent"]["answer"]["error"], error);
}

#[test]
fn a_question_ends_with_its_call() {
    let (world, _gateway, instance) = start();
    for (address, path, tool) in ways(&world, &instance) {
        let session = Session::open_answering(address, &path, R11);
        let mut stream = session.post_stream(&ask_by(&tool, "roots/list", &json!({}))).expect("a reply");
        let (_, question) = stream.next_message(PATIENCE).expect("the question");
        let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "call"}});
        assert_eq!(session.beside().post(&cancel).status, 202);
        let messages = rest(&mut stream);
        assert_eq!(messages.len(), 1, "the call itself is not answered: {messages:?}");
        assert_eq!(messages[0]["method"], "notifications/cancelled");
        assert_eq!(messages[0]["params"]["requestId"], question["id"]);
        let late = session.beside().post(&json!({"jsonrpc": "2.0", "id": question["id"], "result": {}}));
        assert_eq!(late.status, 202);
    }
}
