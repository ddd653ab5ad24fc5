//! Calls that take several requests of their client (2026-07-28): at the instance, through the gateway, and between
//! clients and instances of different ages.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::backend::{Backend, Manner, Registered, tool};
use crate::client::{Connection, EventStream, R06, R11, Reply, Session, modern, modern_request, text_of};
use crate::folder::write;
use crate::program::{Program, Start, World};
use crate::wait::{PATIENCE, until};

const SKILL: &str = "---
name: talk
description: Asks in rounds
dcc: any
tools:
  - {name: ask, source_file: scripts/ask.py, dialog: true}
  - {name: plain, source_file: scripts/plain.sh}
prompts:
  - name: brief
    description: A brief about what the user says
    arguments: [{name: tone, required: true}]
    source_file: scripts/brief.sh
    dialog: true
---
";

/// Notes its process id, asks one question of `rounds` after the other, each an array of questions, tells progress before
/// and after, and gives all the answers.
const ASK: &str = r#"
import json, os, sys
arguments = json.loads(sys.stdin.readline())
if "note" in arguments:
    with open(arguments["note"], "a") as note:
        note.write(f"{os.getpid()}\n")
def say(message):
    print(json.dumps(message), flush=True)
def progress(step):
    say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": step}})
    say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": step}})
answers = []
for step, questions in enumerate(arguments["rounds"]):
    progress(2 * step + 1)
    say([{"jsonrpc": "2.0", **question} for question in questions])
    for _ in questions:
        answers.append(json.loads(sys.stdin.readline()))
    progress(2 * step + 2)
refused = any("error" in answer for answer in answers)
print(json.dumps({"answers": answers, "success": not (refused and arguments.get("must"))}))
"#;

const BRIEF: &str = r#"#!/bin/sh
read -r arguments
echo '{"jsonrpc":"2.0","id":"subject","method":"elicitation/create","params":{"message":"About what?"}}'
read -r answer
echo "Of $arguments: $answer"
"#;

const FORM: &str = "elicitation/create";

fn forms() -> Value {
    json!({"elicitation": {}})
}

fn everything() -> Value {
    json!({"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}})
}

fn question(key: &str) -> Value {
    json!({"id": key, "method": FORM, "params": {"message": format!("{key}?"), "requestedSchema": {"type": "object"}}})
}

fn accepted(value: &str) -> Value {
    json!({"action": "accept", "content": {"value": value}})
}

struct Bench {
    world: World,
    _gateway: Program,
    instance: Program,
}

/// Where a tool is called, and how it is named there.
struct Place {
    address: SocketAddr,
    path: String,
    name: String,
}

impl Bench {
    fn start(args: &[&str]) -> Bench {
        let world = World::new();
        let folder = world.skills().join("talk");
        write(&folder.join("SKILL.md"), SKILL);
        write(&folder.join("scripts/ask.py"), ASK);
        write(&folder.join("scripts/plain.sh"), "#!/bin/sh\ncat\n");
        write(&folder.join("scripts/brief.sh"), BRIEF);
        let gateway = world.start(Start::new().args(args.iter().copied()));
        let skills = world.skills().display().to_string();
        let instance = Start::new().args(["--dcc", "maya", "--skill-paths", &skills, "--load-skills", "all"]);
        let instance = world.start(instance.args(args.iter().copied()));
        world.wait_instances(2);
        let bench = Bench { world, _gateway: gateway, instance };
        let mut session = Session::open(bench.world.gateway(), R11);
        let published = format!("{}__talk__ask", bench.instance.short());
        until(PATIENCE, "the tool is listed", || session.tool_names().contains(&published));
        bench
    }

    /// The instance itself, the gateway's two ways to it, and the gateway.
    fn places(&self) -> [Place; 4] {
        let place = |address, path: &str, name: String| Place { address, path: path.to_owned(), name };
        let (gateway, short, own) = (self.world.gateway(), self.instance.short(), || "talk__ask".to_owned());
        [
            place(self.instance.address, "/mcp", own()),
            place(gateway, &format!("/mcp/{short}"), own()),
            place(gateway, "/mcp/dcc/maya", own()),
            place(gateway, "/mcp", format!("{short}__talk__ask")),
        ]
    }
}

impl Place {
    fn call(&self, arguments: &Value, again: &Value, capabilities: &Value) -> Reply {
        let mut params = json!({"name": self.name, "arguments": arguments});
        for (member, value) in again.as_object().expect("an object") {
            params[member] = value.clone();
        }
        modern(self.address, &self.path, "tools/call", &params, capabilities)
    }

    /// The result of a call that must be answered with one.
    #[track_caller]
    fn result(&self, arguments: &Value, again: &Value, capabilities: &Value) -> Value {
        let reply = self.call(arguments, again, capabilities);
        let message = reply.message();
        assert!(reply.status == 200 && message["result"].is_object(), "{} {message}", reply.status);
        message["result"].clone()
    }

    /// The state of a call that must ask.
    #[track_caller]
    fn begin(&self, arguments: &Value) -> Value {
        let result = self.result(arguments, &json!({}), &forms());
        assert_eq!(result["resultType"], "input_required", "{result}");
        result["requestState"].clone()
    }
}

/// What is asked.
fn keys(result: &Value) -> Vec<&str> {
    result["inputRequests"].as_object().into_iter().flat_map(|asked| asked.keys()).map(String::as_str).collect()
}

#[track_caller]
fn check_refused(reply: &Reply, code: i32) -> Value {
    let message = reply.message();
    assert_eq!(message["error"]["code"], json!(code), "{message}");
    message["error"].clone()
}

#[test]
fn a_call_asks_and_goes_on_with_the_answers() {
    let bench = Bench::start(&[]);
    for (number, place) in bench.places().iter().enumerate() {
        let note = bench.world.path().join(format!("note-{number}"));
        let arguments = json!({"rounds": [[question("name"), question("age")], [question("name")]], "note": note});
        let first = place.result(&arguments, &json!({}), &forms());
        assert_eq!(first["resultType"], "input_required");
        assert!(first.get("content").is_none() && first.get("ttlMs").is_none(), "{first}");
        assert_eq!(keys(&first), ["age", "name"], "both at once");
        assert_eq!(first["inputRequests"]["name"], json!({"method": FORM, "params": question("name")["params"]}));
        let answers = json!({"name": accepted("a\nb \u{e9}"), "age": {"action": "decline"}, "other": {"x": 1}});
        let again = json!({"requestState": first["requestState"], "inputResponses": answers});
        let second = place.result(&arguments, &again, &forms());
        assert_eq!(keys(&second), ["name"]);
        assert_ne!(second["requestState"], first["requestState"]);
        let again = json!({"requestState": second["requestState"], "inputResponses": {"name": accepted("c")}});
        let last = place.result(&arguments, &again, &forms());
        assert_eq!((&last["resultType"], &last["isError"]), (&json!("complete"), &Value::Null), "{last}");
        let mut given = last["structuredContent"]["answers"].as_array().expect("answers").clone();
        given[..2].sort_by_key(|answer| answer["id"].to_string());
        let expected = [
            json!({"jsonrpc": "2.0", "id": "age", "result": {"action": "decline"}}),
            json!({"jsonrpc": "2.0", "id": "name", "result": accepted("a\nb \u{e9}")}),
            json!({"jsonrpc": "2.0", "id": "name", "result": accepted("c")}),
        ];
        assert_eq!(given, expected);
        let pids = fs::read_to_string(&note).expect("the script ran");
        assert_eq!(pids.lines().count(), 1, "it ran once");
    }
}

#[test]
fn a_state_is_good_for_one_repeat_of_its_own_request() {
    let bench = Bench::start(&[]);
    let arguments = json!({"rounds": [[question("a"), question("b")]]});
    let both = json!({"a": accepted("1"), "b": accepted("2")});
    for place in &bench.places() {
        let state = place.begin(&arguments);
        let text = state.as_str().expect("a string");
        for forged in [json!(format!("{text}-TAMPERED")), json!(text.to_uppercase()), json!(""), json!(7), json!({})] {
            let again = json!({"requestState": forged, "inputResponses": both});
            // A state may have no letters.
            if forged != state {
                check_refused(&place.call(&arguments, &again, &forms()), -32602);
            }
        }
        let again = json!({"requestState": state, "inputResponses": both});
        check_refused(&place.call(&json!({"rounds": [[question("a")]]}), &again, &forms()), -32602);
        let other = Place { name: place.name.replace("ask", "plain"), path: place.path.clone(), ..*place };
        check_refused(&other.call(&arguments, &again, &forms()), -32602);
        for wrong in [json!({"a": 12345}), json!([1]), json!({"a": {"action": "perhaps"}, "b": accepted("2")})] {
            let again = json!({"requestState": state, "inputResponses": wrong});
            check_refused(&place.call(&arguments, &again, &forms()), -32602);
        }
        // None of that has done it any harm.
        let again = json!({"requestState": state, "inputResponses": {"b": accepted("2"), "c": accepted("3")}});
        let partly = place.result(&arguments, &again, &forms());
        assert_eq!(partly["resultType"], "input_required", "what is missing is asked for again: {partly}");
        assert_eq!(keys(&partly), ["a"]);
        check_refused(&place.call(&arguments, &again, &forms()), -32602);
        let again = json!({"requestState": partly["requestState"], "inputResponses": {"a": accepted("1")}});
        assert_eq!(place.result(&arguments, &again, &forms())["resultType"], "complete");
        check_refused(&place.call(&arguments, &again, &forms()), -32602);
    }
}

#[test]
fn answers_may_come_with_the_first_request() {
    let bench = Bench::start(&[]);
    let arguments = json!({"rounds": [[question("a")], [question("b")]]});
    for place in &bench.places() {
        let early = json!({"inputResponses": {"a": accepted("1"), "b": 12345}});
        let asked = place.result(&arguments, &early, &forms());
        assert_eq!(keys(&asked), ["b"]);
        check_refused(&place.call(&arguments, &json!({"inputResponses": null}), &forms()), -32602);
    }
}

#[test]
fn a_client_is_asked_for_what_this_request_offers() {
    let bench = Bench::start(&[]);
    let sampling = json!({"id": "s", "method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}});
    let mut with_tools = sampling.clone();
    with_tools["params"]["tools"] = json!([]);
    let url = json!({"id": "u", "method": FORM, "params": {"mode": "url", "message": "?", "url": "https://a.example"}});
    let cases = [
        (&sampling, json!({"sampling": {}}), None),
        (&sampling, json!({}), Some(json!({"sampling": {}}))),
        (&sampling, forms(), Some(json!({"sampling": {}}))),
        (&with_tools, json!({"sampling": {}}), Some(json!({"sampling": {"tools": {}}}))),
        (&with_tools, everything(), None),
        (&url, forms(), Some(json!({"elicitation": {"url": {}}}))),
        (&url, json!({"elicitation": {"url": {}}}), None),
        (&question("f"), json!({"elicitation": {"url": {}}}), Some(json!({"elicitation": {}}))),
        (&question("f"), json!({"elicitation": {"form": {}}}), None),
    ];
    for place in &bench.places() {
        for (question, offered, lacking) in &cases {
            let arguments = json!({"rounds": [[question]], "must": true});
            let reply = place.call(&arguments, &json!({}), offered);
            match lacking {
                None => assert_eq!(reply.message()["result"]["resultType"], "input_required", "{}", reply.text()),
                Some(lacking) => {
                    // Its progress has begun a stream only where that was asked for.
                    assert_eq!(reply.status, 400, "{}", reply.text());
                    assert_eq!(check_refused(&reply, -32021)["data"]["requiredCapabilities"], *lacking);
                }
            }
        }
        let copes = json!({"rounds": [[question("f")]]});
        let result = place.result(&copes, &json!({}), &json!({}));
        assert_eq!(result["structuredContent"]["answers"][0]["error"]["code"], json!(-32601), "{result}");
        let one_of_two = json!({"rounds": [[question("f"), sampling]]});
        let asked = place.result(&one_of_two, &json!({}), &forms());
        assert_eq!(keys(&asked), ["f"]);
    }
}

#[test]
fn each_round_hears_of_itself() {
    let bench = Bench::start(&[]);
    let arguments = json!({"rounds": [[question("a")]]});
    for place in &bench.places() {
        let hear = |again: &Value, token: &str, level: Option<&str>| {
            let mut params = json!({"name": place.name, "arguments": arguments, "_meta": {"progressToken": token}});
            if let Some(level) = level {
                params["_meta"]["io.modelcontextprotocol/logLevel"] = json!(level);
            }
            again.as_object().into_iter().flatten().for_each(|(member, value)| params[member] = value.clone());
            let reply = modern(place.address, &place.path, "tools/call", &params, &forms());
            let messages = reply.messages();
            let told = |method: &str| -> Vec<Value> {
                let told = messages.iter().filter(|message| message["method"] == method);
                told.map(|message| message["params"].clone()).collect()
            };
            (told("notifications/progress"), told("notifications/message").len(), reply.message()["result"].clone())
        };
        let (progress, logged, result) = hear(&json!({}), "one", Some("debug"));
        assert_eq!((progress, logged), (vec![json!({"progressToken": "one", "progress": 1})], 1));
        let again = json!({"requestState": result["requestState"], "inputResponses": {"a": accepted("1")}});
        let (progress, logged, result) = hear(&again, "two", None);
        assert_eq!((progress, logged), (vec![json!({"progressToken": "two", "progress": 2})], 0), "{result}");
    }
}

/// The process that a script noted.
fn noted(note: &std::path::Path) -> u32 {
    let mut pid = None;
    until(PATIENCE, "the script runs", || {
        pid = fs::read_to_string(note).ok().and_then(|text| text.lines().last()?.parse().ok());
        pid.is_some()
    });
    pid.expect("it was noted")
}

fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_parked_call_ends_at_its_time() {
    let bench = Bench::start(&["--call-timeout", "3"]);
    for (number, place) in bench.places().iter().enumerate() {
        let note = bench.world.path().join(format!("note-{number}"));
        let arguments = json!({"rounds": [[question("a")]], "note": note});
        let started = Instant::now();
        let state = place.begin(&arguments);
        let pid = noted(&note);
        assert!(lives(pid) && started.elapsed() < Duration::from_secs(3), "it waits for its answer");
        until(PATIENCE, "it is ended", || !lives(pid));
        let again = json!({"requestState": state, "inputResponses": {"a": accepted("1")}});
        let late = place.result(&arguments, &again, &forms());
        assert_eq!(late["isError"], json!(true));
        assert!(text_of(&late).contains("did not end within 3 s"), "who comes too late is told so: {late}");
        check_refused(&place.call(&arguments, &again, &forms()), -32602);
    }
}

#[test]
#[cfg_attr(feature = "tiny-http", ignore = "tiny_http does not show the socket: that a client has gone is not seen")]
fn a_client_that_goes_ends_its_call_in_any_round() {
    let bench = Bench::start(&[]);
    for (number, place) in bench.places().iter().enumerate() {
        let note = bench.world.path().join(format!("note-{number}"));
        let arguments = json!({"rounds": [[question("a")]], "note": note});
        let state = place.begin(&arguments);
        let pid = noted(&note);
        // The script is kept from going on, so that it is waited for.
        let pid_of_script = Pid::from_raw(pid.cast_signed()).expect("a process id");
        kill_process(pid_of_script, Signal::STOP).expect("it is stopped");
        let params = json!({"name": place.name, "arguments": arguments, "requestState": state,
            "inputResponses": {"a": accepted("1")}, "_meta": {"progressToken": 1}});
        let request = modern_request(place.address, &place.path, "tools/call", &params, &forms());
        let mut connection = Connection::open(place.address).expect("a connection");
        connection.send(&request).expect("it is sent");
        thread::sleep(Duration::from_millis(300));
        assert!(lives(pid));
        drop(connection);
        until(PATIENCE, "its script is ended", || !lives(pid));
    }
}

#[test]
fn parked_calls_are_bounded() {
    let bench = Bench::start(&[]);
    let name = "talk__brief";
    let get = || {
        let params = json!({"name": name, "arguments": {"tone": "dry"}});
        modern(bench.instance.address, "/mcp", "prompts/get", &params, &forms())
    };
    let mut states = Vec::new();
    for _ in 0..64 {
        states.push(get().message()["result"]["requestState"].clone());
    }
    assert!(states.iter().all(Value::is_string), "{states:?}");
    let error = check_refused(&get(), -32603);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("too many calls wait")), "{error}");
    let params = json!({"name": name, "arguments": {"tone": "dry"}, "requestState": states[0],
        "inputResponses": {"subject": accepted("x")}});
    let reply = modern(bench.instance.address, "/mcp", "prompts/get", &params, &forms());
    assert_eq!(reply.message()["result"]["resultType"], "complete");
    assert_eq!(get().message()["result"]["resultType"], "input_required", "there is a place again");
}

#[test]
fn clients_of_equal_requests_have_calls_of_their_own() {
    let bench = Bench::start(&[]);
    let arguments = json!({"rounds": [[question("a")]]});
    for place in &bench.places() {
        let states: Vec<Value> = (0..3).map(|_| place.begin(&arguments)).collect();
        for (number, state) in states.iter().enumerate().rev() {
            let again = json!({"requestState": state, "inputResponses": {"a": accepted(&number.to_string())}});
            let result = place.result(&arguments, &again, &forms());
            assert_eq!(result["structuredContent"]["answers"][0]["result"], accepted(&number.to_string()));
        }
    }
}

#[test]
fn prompts_ask_too() {
    let bench = Bench::start(&[]);
    let published = format!("{}__talk__brief", bench.instance.short());
    for (address, name) in [(bench.instance.address, "talk__brief"), (bench.world.gateway(), published.as_str())] {
        let mut params = json!({"name": name, "arguments": {"tone": "dry", "more": "not declared"}});
        let asked = modern(address, "/mcp", "prompts/get", &params, &forms()).message()["result"].clone();
        assert_eq!(asked["inputRequests"]["subject"]["params"], json!({"message": "About what?"}), "{asked}");
        params["requestState"] = asked["requestState"].clone();
        params["inputResponses"] = json!({"subject": accepted("x")});
        let result = modern(address, "/mcp", "prompts/get", &params, &forms()).message()["result"].clone();
        assert_eq!(
            (&result["resultType"], &result["description"]),
            (&json!("complete"), &json!("A brief about what the user says"))
        );
        let text = result["messages"][0]["content"]["text"].as_str().expect("a text");
        assert!(text.starts_with(r#"Of {"tone":"dry"}: {"jsonrpc":"2.0","id":"subject","result":"#), "{text}");
        // An older client is asked on its stream.
        let session = Session::open_answering(address, "/mcp", R11);
        let get = json!({"jsonrpc": "2.0", "id": 1, "method": "prompts/get",
            "params": {"name": name, "arguments": {"tone": "dry"}}});
        let mut stream = session.post_stream(&get).expect("a stream");
        answer_next(&session, &mut stream, &accepted("y"));
        let (_, message) = stream.next_message(PATIENCE).expect("the answer");
        assert!(message["result"]["messages"][0].to_string().contains("\\\"y\\\""), "{message}");
        let missing = modern(address, "/mcp", "prompts/get", &json!({"name": name}), &forms());
        check_refused(&missing, -32602);
    }
}

/// Answers the question that comes next on the stream; gives it.
#[track_caller]
fn answer_next(session: &Session, stream: &mut EventStream, answer: &Value) -> Value {
    let (_, question) = stream.next_message(PATIENCE).expect("the question");
    let reply = session.beside().post(&json!({"jsonrpc": "2.0", "id": question["id"], "result": answer}));
    assert_eq!(reply.status, 202, "{question}");
    question
}

/// A gateway before one backend.
struct Foreign {
    _gateway: Program,
    backend: Backend,
    _registered: Registered,
    place: Place,
}

fn foreign(manner: Manner) -> (World, Foreign) {
    let world = World::new();
    let gateway = world.start(Start::new());
    let backend = Backend::start(manner, vec![tool("go")]);
    let registered = backend.register(&world.registry(), "maya");
    let name = format!("{}__go", backend.short());
    let mut session = Session::open(world.gateway(), R06);
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&name));
    let place = Place { address: world.gateway(), path: "/mcp".to_owned(), name };
    (world, Foreign { _gateway: gateway, backend, _registered: registered, place })
}

#[test]
fn what_an_older_instance_asks_is_asked_between_two_requests() {
    let question = json!({"method": FORM, "params": {"message": "?", "requestedSchema": {"type": "object"}}});
    let (_world, Foreign { backend, place, .. }) = &foreign(Manner::Asks(question.clone()));
    let arguments = json!({"x": 1});
    let asked = place.result(&arguments, &json!({}), &forms());
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let (key, request) = asked["inputRequests"].as_object().and_then(|asked| asked.iter().next()).expect("a question");
    assert_eq!(request, &question);
    let mut responses = json!({});
    let again = json!({"requestState": asked["requestState"], "inputResponses": responses});
    let once_more = place.result(&arguments, &again, &forms());
    assert_eq!(once_more["inputRequests"], asked["inputRequests"], "nothing was answered");
    responses[key] = accepted("yes");
    let again = json!({"requestState": once_more["requestState"], "inputResponses": responses});
    let result = place.result(&arguments, &again, &forms());
    assert_eq!(result["structuredContent"]["answer"]["result"], accepted("yes"), "{result}");
    check_refused(&place.call(&arguments, &again, &forms()), -32602);
    let calls = backend.requests_of("tools/call");
    assert_eq!(calls.len(), 1, "it was called once");
    assert_eq!(calls[0]["params"], json!({"name": "go", "arguments": arguments, "_meta": {}}), "nothing of 2026-07-28");
    let offered = &backend.requests_of("initialize").pop().expect("a session")["params"]["capabilities"];
    assert_eq!(*offered, forms(), "our session offers what the client offers");
}

#[test]
fn what_a_newer_instance_asks_is_asked_on_the_stream_of_an_older_client() {
    let requests = json!({
        "name": {"method": FORM, "params": {"message": "?", "requestedSchema": {"type": "object"}}},
        "where": {"method": "roots/list"},
    });
    let (_world, Foreign { backend, place, .. }) = &foreign(Manner::Stateless(requests.clone()));
    let session = Session::open_answering(place.address, "/mcp", R11);
    let call = json!({"jsonrpc": "2.0", "id": "c", "method": "tools/call",
        "params": {"name": place.name, "arguments": {"x": 1}}});
    let mut stream = session.post_stream(&call).expect("a stream");
    let answers = [accepted("yes"), json!({"roots": []})];
    let asked = answers.each_ref().map(|answer| answer_next(&session, &mut stream, answer)["method"].clone());
    assert_eq!(asked, [json!(FORM), json!("roots/list")]);
    let (_, message) = stream.next_message(PATIENCE).expect("the answer");
    let given = &message["result"]["structuredContent"]["answers"];
    assert_eq!(*given, json!({"name": answers[0], "where": answers[1]}), "{message}");
    let calls = backend.requests_of("tools/call");
    assert_eq!(calls.len(), 2);
    let declared = &calls[1]["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(*declared, json!({"elicitation": {}, "sampling": {}, "roots": {}}));
    // One that offers nothing is told what the instance wants.
    let mut plain = Session::open(place.address, R11);
    let result = plain.call(&place.name, json!({}));
    assert!(text_of(&result).contains("it offers no elicitation/create"), "{result}");
    // One that refuses ends its call.
    let mut stream = session.post_stream(&call).expect("a stream");
    let (_, question) = stream.next_message(PATIENCE).expect("the question");
    let error = json!({"code": -1, "message": "the user said no"});
    session.beside().post(&json!({"jsonrpc": "2.0", "id": question["id"], "error": error}));
    let last = std::iter::from_fn(|| stream.next_message(PATIENCE)).map(|(_, message)| message).last();
    let last = last.expect("an answer");
    assert!(last["id"] == "c" && last["result"].to_string().contains("the user said no"), "{last}");
}

#[test]
fn a_newer_client_and_a_newer_instance_see_each_others_words() {
    let requests = json!({"name": {"method": FORM, "params": {"message": "?"}}});
    let (_world, Foreign { backend, place, .. }) = &foreign(Manner::Stateless(requests.clone()));
    let arguments = json!({"x": 1});
    let asked = place.result(&arguments, &json!({}), &everything());
    assert_eq!(asked, json!({"resultType": "input_required", "inputRequests": requests, "requestState": "opaque 1"}));
    let again = json!({"requestState": "opaque 1", "inputResponses": {"name": accepted("yes")}});
    let result = place.result(&arguments, &again, &everything());
    assert_eq!(result["structuredContent"]["answers"], json!({"name": accepted("yes")}));
    let calls = backend.requests_of("tools/call");
    assert_eq!((calls.len(), &calls[1]["params"]["name"]), (2, &json!("go")));
    let declared = &calls[1]["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(*declared, everything(), "as the client said it");
    assert_eq!(backend.requests_of("server/discover").len(), 1, "it was asked once what it knows");
}

#[test]
fn a_url_that_must_be_visited_first() {
    let (_world, Foreign { place, .. }) = &foreign(Manner::UrlFirst);
    let asked = place.result(&json!({}), &json!({}), &everything());
    assert_eq!(asked["inputRequests"]["url-1"]["params"]["url"], "https://example.com/go", "{asked}");
    let again = json!({"inputResponses": {"url-1": {"action": "accept"}}});
    assert_eq!(text_of(&place.result(&json!({}), &again, &everything())), "welcome");

    let (_world, Foreign { place, .. }) = &foreign(Manner::UrlFirst);
    let reply = place.call(&json!({}), &json!({}), &forms());
    assert_eq!(reply.status, 400);
    let lacking = check_refused(&reply, -32021);
    assert_eq!(lacking["data"]["requiredCapabilities"], json!({"elicitation": {"url": {}}}));

    let (_world, Foreign { place, .. }) = &foreign(Manner::UrlFirst);
    let mut older = Session::open(place.address, R11);
    let refused = older.request("tools/call", json!({"name": place.name}));
    assert_eq!(refused["error"]["code"], json!(-32042), "as 2025-11-25 has it: {refused}");
    assert_eq!(refused["error"]["data"]["elicitations"][0]["elicitationId"], "e1");
}
