//! MCP over Streamable HTTP as both ports speak it: statuses and codes for what is right and for what is not.
//!
//! Each refusal is sent over a connection that is used again afterwards: a mistake costs a client its request, no more.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{ACCEPT_BOTH, Connection, EventStream, MODERN, R03, R06, R11, Reply, Session, initialize_params};
use crate::program::{Program, Start, World};
use crate::skill;
use crate::wait::PATIENCE;

/// A request that is wrong in one way, and what it gets.
struct Wrong {
    what: &'static str,
    method: &'static str,
    /// Put in the place of the right header; an empty value leaves it out.
    header: Option<(&'static str, &'static str)>,
    body: &'static str,
    status: u16,
    code: Option<i64>,
    /// What the message must speak of, so that it says what to do.
    says: &'static str,
}

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

const fn post(what: &'static str, body: &'static str, status: u16, code: i64, says: &'static str) -> Wrong {
    Wrong { what, method: "POST", header: None, body, status, code: Some(code), says }
}

const fn with(
    what: &'static str,
    header: (&'static str, &'static str),
    status: u16,
    code: Option<i64>,
    says: &'static str,
) -> Wrong {
    Wrong { what, method: "POST", header: Some(header), body: PING, status, code, says }
}

const WRONG: &[Wrong] = &[
    post(
        "unknown tool",
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"no_such_tool","arguments":{}}}"#,
        200,
        -32602,
        "no_such_tool",
    ),
    post(
        "no tool name",
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"arguments":{}}}"#,
        200,
        -32602,
        "name",
    ),
    post("no params", r#"{"jsonrpc":"2.0","id":2,"method":"tools/call"}"#, 200, -32602, "name"),
    post(
        "a name that is a number",
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":5}}"#,
        200,
        -32602,
        "name",
    ),
    post(
        "arguments that are a list",
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"list_skills","arguments":[1]}}"#,
        200,
        -32602,
        "arguments",
    ),
    post(
        "a bad cursor",
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{"cursor":"nonsense"}}"#,
        200,
        -32602,
        "cursor",
    ),
    post(
        "a cursor that is a number",
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{"cursor":7}}"#,
        200,
        -32602,
        "string",
    ),
    post("unknown method", r#"{"jsonrpc":"2.0","id":2,"method":"no/such"}"#, 200, -32601, "no/such"),
    post("half a message", r#"{"jsonrpc":"2.0","id":2,"#, 400, -32700, ""),
    post("not JSON", "hello", 400, -32700, ""),
    post("nothing", "", 400, -32700, ""),
    post(
        "two messages in a row",
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":2,"method":"ping"}"#,
        400,
        -32700,
        "",
    ),
    post("no version", r#"{"id":2,"method":"ping"}"#, 400, -32600, "jsonrpc"),
    post("another version", r#"{"jsonrpc":"1.0","id":2,"method":"ping"}"#, 400, -32600, "jsonrpc"),
    post("an id that is null", r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, 400, -32600, "id"),
    post("an id that is a list", r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#, 400, -32600, "id"),
    post("params that are a list", r#"{"jsonrpc":"2.0","id":2,"method":"ping","params":[]}"#, 400, -32600, "params"),
    post("a method that is a number", r#"{"jsonrpc":"2.0","id":2,"method":7}"#, 400, -32600, ""),
    post("neither method nor result", r#"{"jsonrpc":"2.0","id":2}"#, 400, -32600, ""),
    post("a string", r#""hello""#, 400, -32600, ""),
    post("a batch", r#"[{"jsonrpc":"2.0","id":2,"method":"ping"}]"#, 400, -32600, "batch"),
    with("a version that is not spoken", ("MCP-Protocol-Version", "1999-01-01"), 400, None, "2025-06-18"),
    with("no Accept", ("Accept", ""), 406, None, "text/event-stream"),
    with("Accept without a stream", ("Accept", "application/json"), 406, None, "text/event-stream"),
    with("Accept of something else", ("Accept", "text/html"), 406, None, "text/event-stream"),
    with("no content type", ("Content-Type", ""), 415, None, "application/json"),
    with("another content type", ("Content-Type", "text/plain"), 415, None, "application/json"),
    with("a content coding", ("Content-Encoding", "gzip"), 415, None, "Content-Encoding"),
    with("no session", ("Mcp-Session-Id", ""), 400, None, "ession"),
    with("a session of somebody else", ("Mcp-Session-Id", "1868a90c-0f3e-4c3c-9e2f-8d3ff2c9e2aa"), 404, None, "ession"),
    Wrong { what: "PUT", method: "PUT", header: None, body: PING, status: 405, code: None, says: "" },
    Wrong { what: "PATCH", method: "PATCH", header: None, body: PING, status: 405, code: None, says: "" },
];

#[test]
fn what_is_wrong_is_refused_and_the_connection_goes_on() {
    let (world, instance) = gateway_with_instance();
    for address in [world.gateway(), instance.address] {
        let session = Session::open(address, R06);
        let mut connection = Connection::open(address).expect("a connection");
        for wrong in WRONG {
            let mut headers = session.headers();
            if let Some((name, value)) = wrong.header {
                headers.retain(|(key, _)| *key != name);
                headers.extend((!value.is_empty()).then_some((name, value)));
            }
            let reply = connection.request(wrong.method, "/mcp", &headers, Some(wrong.body.as_bytes()));
            let reply = reply.unwrap_or_else(|error| panic!("{}: {error}", wrong.what));
            check_refusal(wrong, &reply);

            let ping = connection.request("POST", "/mcp", &session.headers(), Some(PING.as_bytes()));
            let ping = ping.unwrap_or_else(|error| panic!("the connection is usable after {}: {error}", wrong.what));
            assert_eq!(ping.message()["result"], json!({}), "after {}", wrong.what);
        }
    }
}

#[test]
fn arguments_of_the_wrong_type_are_told_by_name() {
    let (world, instance) = gateway_with_instance();
    for (address, tool) in [
        (world.gateway(), format!("{}__probe_tools__echo", instance.short())),
        (instance.address, "probe_tools__echo".to_owned()),
    ] {
        let mut session = Session::open(address, R06);
        for arguments in [json!({"text": 5}), json!({"count": 1}), json!({"text": "x", "count": "many"})] {
            let message = session.request("tools/call", json!({"name": tool, "arguments": arguments}));
            let refused = message["error"]["code"] == -32602 || message["result"]["isError"] == json!(true);
            assert!(refused, "{arguments}: {message}");
            let named = if arguments["text"] == "x" { "count" } else { "text" };
            assert!(message.to_string().contains(named), "{arguments}: says which one: {message}");
        }
    }
}

#[test]
fn notifications_and_responses_get_exactly_202_and_nothing() {
    let (world, instance) = gateway_with_instance();
    for address in [world.gateway(), instance.address] {
        for revision in [R03, R06] {
            let mut session = Session::open(address, revision);
            for message in [
                json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
                json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 4711}}),
                json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}),
                json!({"jsonrpc": "2.0", "method": "notifications/never/heard/of"}),
                json!({"jsonrpc": "2.0", "id": 99, "result": {}}),
                json!({"jsonrpc": "2.0", "id": "x", "error": {"code": -1, "message": "no"}}),
            ] {
                let reply = session.post(&message);
                assert_eq!((reply.status, reply.text()), (202, String::new()), "{message}");
            }
            assert_eq!(session.result("ping", json!({})), json!({}));
        }
    }
}

#[test]
fn the_version_is_negotiated_and_never_an_error() {
    let (world, instance) = gateway_with_instance();
    let cases = [(R03, R03), (R06, R06), (R11, R11), ("2024-11-05", R11), ("2026-07-28", R11), ("nonsense", R11)];
    for address in [world.gateway(), instance.address] {
        for (asked, answered) in cases {
            let session = Session::open(address, asked);
            assert_eq!(session.revision, answered, "asked for {asked}");
            let id = session.id.as_bytes();
            assert!(!id.is_empty() && id.iter().all(|byte| (0x21..=0x7e).contains(byte)), "{}", session.id);
            assert!(session.server["capabilities"]["tools"]["listChanged"].as_bool().unwrap_or(false));
            assert_eq!(session.server["serverInfo"]["name"], "dcc-mcp-server");
        }
    }
    let ids = [(); 2].map(|()| Session::open(world.gateway(), R06).id);
    assert_ne!(ids[0], ids[1], "a session id is never given twice");
}

#[test]
fn a_session_knows_its_revision() {
    let (world, _instance) = gateway_with_instance();
    let older = Session::open(world.gateway(), R03);
    let reply = send(&older, Some(("MCP-Protocol-Version", "1999-01-01")), PING);
    assert_eq!(reply.status, 200, "2025-03-26 does not know the header: {}", reply.text());
    let newer = Session::open(world.gateway(), R06);
    let reply = send(&newer, Some(("MCP-Protocol-Version", "")), PING);
    assert_eq!(reply.status, 200, "the session tells its revision: {}", reply.text());
}

#[test]
fn batches_are_for_sessions_of_2025_03_26() {
    let (world, instance) = gateway_with_instance();
    for address in [world.gateway(), instance.address] {
        let session = Session::open(address, R03);
        let reply = send(
            &session,
            None,
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/initialized"},
                {"jsonrpc":"2.0","id":"two","method":"no/such"},{"jsonrpc":"2.0","id":3,"method":"tools/list"},7]"#,
        );
        assert_eq!(reply.status, 200, "{}", reply.text());
        let answers = if reply.is_stream() { Value::Array(reply.messages()) } else { reply.json() };
        let answers = answers.as_array().expect("an array of answers").clone();
        let of = |id: Value| answers.iter().find(|answer| answer["id"] == id).cloned().unwrap_or_default();
        assert_eq!(of(json!(1))["result"], json!({}));
        assert_eq!(of(json!("two"))["error"]["code"], json!(-32601));
        assert!(of(json!(3))["result"]["tools"].is_array());
        let broken = answers.iter().find(|answer| answer.get("id").is_none()).expect("an answer to the number");
        assert_eq!(broken["error"]["code"], json!(-32600));
        assert_eq!(answers.len(), 4, "nothing for the notification: {answers:?}");

        let quiet = r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#;
        let reply = send(&session, None, quiet);
        assert_eq!((reply.status, reply.text()), (202, String::new()));
        let reply = send(&session, None, "[]");
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!(-32600)));

        let nested =
            format!(r#"[{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}}]"#, initialize_params(R03));
        let reply = send(&session, None, &nested);
        assert!(reply.text().contains("-32600"), "initialize stands alone: {}", reply.text());
    }
}

#[test]
fn the_answers_to_a_batch_are_bounded() {
    let world = World::new();
    // Each of its results is some 10 MB: as text, and structured.
    skill::plain(&world.skills(), "much", &[("much.sh", "#!/bin/sh\nhead -c 5000000 /dev/zero | tr '\\0' x\n")]);
    let instance = world.start_with_skills("python");
    let session = Session::open(instance.address, R03);
    let call = |id| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "much"}});
    let reply = send(&session, None, &json!([call(1), call(2), call(3), call(4)]).to_string());
    let answers = if reply.is_stream() { Value::Array(reply.messages()) } else { reply.json() };
    let answers = answers.as_array().expect("an array of answers");
    assert_eq!(answers.len(), 4, "each request gets its answer");
    for (answer, is_served) in answers.iter().zip([true, true, false, false]) {
        assert_eq!(answer["result"].is_object(), is_served, "{}", answer["id"]);
        assert_eq!(answer["error"]["code"] == json!(-32603), !is_served, "{}", answer["id"]);
    }
}

#[test]
fn an_ended_session_is_404_and_others_go_on() {
    let (world, instance) = gateway_with_instance();
    for address in [world.gateway(), instance.address] {
        let mut ended = Session::open(address, R06);
        let mut other = Session::open(address, R06);
        let mut stream = ended.stream(None);
        let deleted = request(&ended, "DELETE", None);
        assert!(matches!(deleted.status, 200 | 204), "DELETE: {} {}", deleted.status, deleted.text());
        assert!(stream.has_ended(PATIENCE), "its streams end with it");
        for method in ["POST", "GET", "DELETE"] {
            let body = (method == "POST").then_some(PING);
            assert_eq!(request(&ended, method, body).status, 404, "{method}");
        }
        let reply = ended.post(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": initialize_params(R06)}));
        assert!(matches!(reply.status, 200 | 400 | 404), "initialize with an old session: {}", reply.status);
        assert_eq!(other.result("ping", json!({})), json!({}));
    }
}

#[test]
fn get_and_delete_are_checked_like_post() {
    let (world, instance) = gateway_with_instance();
    for address in [world.gateway(), instance.address] {
        let session = Session::open(address, R06);
        let id = session.id.as_str();
        let stream = "text/event-stream";
        let cases = [
            ("GET", vec![("Mcp-Session-Id", id)], 406),
            ("GET", vec![("Mcp-Session-Id", id), ("Accept", "application/json")], 406),
            ("GET", vec![("Accept", stream)], 400),
            ("GET", vec![("Accept", stream), ("Mcp-Session-Id", "not-ours")], 404),
            ("GET", vec![("Accept", stream), ("Mcp-Session-Id", id), ("MCP-Protocol-Version", "1999-01-01")], 400),
            ("DELETE", vec![], 400),
            ("DELETE", vec![("Mcp-Session-Id", "not-ours")], 404),
        ];
        let mut connection = Connection::open(address).expect("a connection");
        for (method, headers, status) in cases {
            let reply = connection.request(method, "/mcp", &headers, None).expect("a reply");
            assert_eq!(reply.status, status, "{method} {headers:?}: {}", reply.text());
            assert!(reply.json()["error"].is_object(), "{}", reply.text());
        }
        assert_eq!(send(&session, None, PING).message()["result"], json!({}));
    }
}

#[test]
fn wildcards_and_parameters_in_headers_are_understood() {
    let (world, _instance) = gateway_with_instance();
    let session = Session::open(world.gateway(), R06);
    for (name, value) in [
        ("Accept", "*/*"),
        ("Accept", "text/event-stream;q=0.5, application/json;q=0.9"),
        ("Accept", "APPLICATION/JSON, Text/Event-Stream"),
        ("Accept", "application/*, text/*"),
        ("Content-Type", "application/json; charset=utf-8"),
        ("Content-Type", "Application/JSON"),
    ] {
        assert_eq!(send(&session, Some((name, value)), PING).status, 200, "{name}: {value}");
    }
}

#[test]
fn a_probe_for_the_stateless_revision_is_answered_at_once() {
    let (world, instance) = gateway_with_instance();
    let body = json!({"jsonrpc": "2.0", "id": "probe", "method": "server/discover", "params": {"_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}});
    for address in [world.gateway(), instance.address] {
        let headers = [
            ("Accept", ACCEPT_BOTH),
            ("Content-Type", "application/json"),
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", "server/discover"),
        ];
        let asked = Instant::now();
        let mut connection = Connection::open(address).expect("a connection");
        let text = body.to_string();
        let reply = connection.request("POST", "/mcp", &headers, Some(text.as_bytes())).expect("an answer");
        assert!(asked.elapsed() < Duration::from_secs(2), "at once");
        check_no_null_id(&reply);
        let message = reply.json();
        if reply.status == 200 && message["result"].is_object() {
            assert!(message["result"]["supportedVersions"].is_array(), "{message}");
        } else {
            assert!(matches!(reply.status, 200 | 400 | 404), "{} {message}", reply.status);
            assert!(message["error"]["code"].is_i64(), "{message}");
            let listed = message["error"]["data"]["supported"].as_array();
            let legacy = listed.is_some_and(|list| list.contains(&json!(R06)));
            assert!(message["error"]["code"] != -32022 || legacy, "-32022 must list what we speak: {message}");
        }
    }
}

#[test]
fn ids_are_given_back_as_they_came() {
    let (world, instance) = gateway_with_instance();
    for address in [world.gateway(), instance.address] {
        let session = Session::open(address, R06);
        for id in ["0", "-7", "9007199254740993", r#""7""#, r#""""#, r#""a \"b\" \u00e9""#, "1.5"] {
            let reply = send(&session, None, &format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#));
            assert_eq!(reply.status, 200);
            let expected = format!(r#""id":{id}"#);
            assert!(reply.text().contains(&expected), "{expected} in {}", reply.text());
        }
    }
}

#[test]
fn missing_arguments_are_no_arguments() {
    let (world, _instance) = gateway_with_instance();
    let mut session = Session::open(world.gateway(), R06);
    let result = session.result("tools/call", json!({"name": "list_dcc_instances"}));
    assert_ne!(result["isError"], json!(true), "{result}");
}

/// They were read by the places of their values.
#[test]
fn an_array_is_no_object() {
    let (world, instance) = gateway_with_instance();
    for address in [world.gateway(), instance.address] {
        let mut old = Session::open(address, R03);
        let reply = old.post(&json!([["2.0", 1, "ping", null, null, null]]));
        assert_eq!(reply.json()[0]["error"]["code"], json!(-32600), "{}", reply.text());
        let mut session = Session::open(address, R11);
        for (method, params) in [
            ("tools/call", json!({"name": "list_skills", "_meta": [1, null, null]})),
            ("tools/call", json!({"name": "list_skills", "task": [1000]})),
            ("tasks/list", json!({"_meta": [1, null, null]})),
            ("completion/complete", json!({"ref": [null, "n://x"], "argument": {"name": "a", "value": "b"}})),
        ] {
            assert_eq!(session.request(method, params.clone())["error"]["code"], json!(-32602), "{method} {params}");
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": [MODERN, {}]}});
        let headers = [
            ("Accept", ACCEPT_BOTH),
            ("Content-Type", "application/json"),
            ("MCP-Protocol-Version", MODERN),
            ("Mcp-Method", "tools/list"),
        ];
        let mut connection = Connection::open(address).expect("a connection");
        let body = body.to_string();
        let reply = connection.request("POST", "/mcp", &headers, Some(body.as_bytes())).expect("a reply");
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!(-32602)), "{}", reply.text());
    }
}

#[test]
fn what_is_not_offered_is_not_found() {
    let (world, instance) = gateway_with_instance();
    for address in [world.gateway(), instance.address] {
        let mut session = Session::open(address, R06);
        for (capability, method) in
            [("resources", "resources/list"), ("prompts", "prompts/list"), ("completions", "completion/complete")]
        {
            if session.server["capabilities"].get(capability).is_none() {
                assert_eq!(session.request(method, json!({}))["error"]["code"], json!(-32601), "{method}");
            }
        }
    }
}

#[test]
fn unknown_paths_are_404_with_a_json_body() {
    let (world, instance) = gateway_with_instance();
    for address in [world.gateway(), instance.address] {
        let mut connection = Connection::open(address).expect("a connection");
        for path in ["/nothing", "/mcp2", "/healthz", "/%6dcp/x/y/z", "/favicon.ico"] {
            let reply = connection.request("GET", path, &[], None).expect("a reply");
            assert_eq!(reply.status, 404, "{path}: {}", reply.text());
            assert!(reply.json()["error"]["code"].is_string(), "{path}: {}", reply.text());
            assert!(reply.json()["error"]["message"].is_string(), "{path}: {}", reply.text());
        }
        for (method, path) in [("POST", "/health"), ("DELETE", "/readyz"), ("PUT", "/mcp")] {
            let reply = connection.request(method, path, &[], Some(b"")).expect("a reply");
            assert_eq!(reply.status, 405, "{method} {path}: {}", reply.text());
            assert!(reply.header("allow").is_some_and(|allow| !allow.is_empty()), "{method} {path}");
        }
    }
    assert_eq!(
        Connection::open(instance.address)
            .and_then(|mut c| c.request("GET", "/instances", &[], None))
            .expect("a reply")
            .status,
        404,
        "only the gateway lists instances"
    );
}

#[test]
fn a_stream_of_a_call_begins_with_an_event_id() {
    let (world, instance) = gateway_with_instance();
    let tool = format!("{}__probe_tools__echo", instance.short());
    let session = Session::open(world.gateway(), R06);
    let call = json!({"jsonrpc": "2.0", "id": 31, "method": "tools/call",
        "params": {"name": tool, "arguments": {"text": "x"}, "_meta": {"progressToken": 5}}});
    let mut stream: EventStream = session.post_stream(&call).expect("a reply");
    assert_eq!(stream.status, 200);
    if stream.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        let first = stream.next(PATIENCE).expect("an event");
        assert!(first.id.is_some(), "an id before anything else: {first:?}");
        let mut answer = None;
        while let Some((_, message)) = stream.next_message(PATIENCE) {
            answer = Some(message);
        }
        assert_eq!(answer.expect("an answer")["id"], json!(31), "the answer comes last");
    }
}

/// A gateway that is also a `maya` instance with the skill `probe-tools` loaded.
fn gateway_with_instance() -> (World, Program) {
    let world = World::new();
    skill::probe(&world.skills());
    let skills = world.skills().display().to_string();
    let args = ["--dcc", "maya", "--skill-paths", &skills, "--load-skills", "all"];
    let instance = world.start(Start::new().args(args));
    world.wait_instances(1);
    (world, instance)
}

fn send(session: &Session, header: Option<(&str, &str)>, body: &str) -> Reply {
    let mut headers = session.headers();
    if let Some((name, value)) = header {
        headers.retain(|(key, _)| *key != name);
        headers.extend((!value.is_empty()).then_some((name, value)));
    }
    let mut connection = Connection::open(session.address).expect("a connection");
    let reply = connection.request("POST", "/mcp", &headers, Some(body.as_bytes())).expect("a reply");
    check_no_null_id(&reply);
    reply
}

fn request(session: &Session, method: &str, body: Option<&str>) -> Reply {
    let mut connection = Connection::open(session.address).expect("a connection");
    let body = body.map(str::as_bytes);
    connection.request(method, "/mcp", &session.headers(), body).expect("a reply")
}

fn check_refusal(wrong: &Wrong, reply: &Reply) {
    let what = wrong.what;
    assert_eq!(reply.status, wrong.status, "{what}: {}", reply.text());
    check_no_null_id(reply);
    let body = reply.message();
    if let Some(code) = wrong.code {
        assert_eq!(body["error"]["code"], json!(code), "{what}: {body}");
    }
    let message = body["error"]["message"].as_str().unwrap_or_else(|| panic!("{what}: no message in {body}"));
    assert!(message.contains(wrong.says), "{what}: {message:?} speaks of {:?}", wrong.says);
    if wrong.status == 405 {
        assert!(reply.header("allow").is_some_and(|allow| allow.contains("POST")), "{what}: {:?}", reply.headers);
    }
}

fn check_no_null_id(reply: &Reply) {
    let text: String = reply.text().chars().filter(|c| !c.is_whitespace()).collect();
    assert!(!text.contains(r#""id":null"#), "no id at all rather than null: {text}");
}
