//! Clients that are confused or hostile: what they send is answered in the words of their revision, so that they can tell
//! which request it was and a person what to do.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::client::{ACCEPT_BOTH, Connection, MODERN, R03, R11, Reply, Session, modern};
use crate::offer;
use crate::program::{Program, Start, World};
use crate::skill;
use crate::wait::{PATIENCE, until};

fn start() -> (World, Program, Program) {
    let world = World::new();
    skill::probe(&world.skills());
    offer::write_skill(&world.skills());
    let gateway = world.start(Start::new());
    let instance = world.start_with_skills("maya");
    world.wait_instances(2);
    let tool = format!("{}__probe_tools__echo", instance.short());
    let mut session = Session::open(world.gateway(), R11);
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&tool));
    (world, gateway, instance)
}

/// Address, and what names of tools and prompts begin with there.
fn ports(world: &World, instance: &Program) -> [(SocketAddr, String); 2] {
    [(world.gateway(), format!("{}__", instance.short())), (instance.address, String::new())]
}

fn post(address: SocketAddr, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut all = vec![("Accept", ACCEPT_BOTH), ("Content-Type", "application/json")];
    all.extend_from_slice(headers);
    let mut connection = Connection::open(address).expect("a connection");
    connection.request("POST", "/mcp", &all, Some(body.as_bytes())).expect("a reply")
}

#[test]
fn a_mistake_in_a_request_is_answered_under_its_id() {
    let (world, _gateway, instance) = start();
    for (address, _) in ports(&world, &instance) {
        let (old, new) = (Session::open(address, R03), Session::open(address, R11));
        for (text, id) in [
            (r#"{"jsonrpc":"2.0","id":5,"method":"ping","params":[]}"#, json!(5)),
            (r#"{"jsonrpc":"2.0","id":"a","method":7}"#, json!("a")),
            (r#"{"jsonrpc":"1.0","id":6,"method":"ping"}"#, json!(6)),
            // An answer of a client goes under the id of a question of ours, which may be that of a request of its own.
            (r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{}}"#, Value::Null),
            (r#"{"jsonrpc":"2.0","id":8,"id":9,"method":"ping"}"#, Value::Null),
        ] {
            for session in [&old, &new] {
                let reply = post(address, &[("Mcp-Session-Id", &session.id)], text);
                let told = reply.json();
                assert_eq!((reply.status, &told["id"], &told["error"]["code"]), (400, &id, &json!(-32600)), "{text}");
                assert_eq!(told.get("id").is_none(), id.is_null(), "{text}");
            }
            let batch = format!(r#"[{{"jsonrpc":"2.0","id":1,"method":"ping"}},{text}]"#);
            let told = post(address, &[("Mcp-Session-Id", &old.id)], &batch).json();
            assert_eq!((&told[0]["result"], &told[1]["id"]), (&json!({}), &id), "{told}");
        }
        for text in ["null", "5", "[[]]"] {
            let told = post(address, &[("Mcp-Session-Id", &old.id)], text).json();
            let told = if told.is_array() { &told[0] } else { &told };
            assert_eq!(told["error"]["message"], "a message must be an object", "{text}");
        }
    }
}

#[test]
fn header_fields_that_are_there_twice_are_refused() {
    let (world, _gateway, instance) = start();
    for (address, prefix) in ports(&world, &instance) {
        let name = format!("{prefix}probe_tools__echo");
        let meta = json!({"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}});
        let params = json!({"name": name, "arguments": {"text": "x"}, "_meta": meta});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        let right = [("MCP-Protocol-Version", MODERN), ("Mcp-Method", "tools/call"), ("Mcp-Name", name.as_str())];
        assert_eq!(post(address, &right, &body).message()["result"]["resultType"], "complete");
        for twice in [("MCP-Protocol-Version", R11), ("Mcp-Method", "tools/list"), ("mcp-name", "x"), right[2]] {
            for headers in [[&right[..], &[twice]].concat(), [&[twice], &right[..]].concat()] {
                let reply = post(address, &headers, &body);
                let told = reply.json();
                assert_eq!((reply.status, &told["id"]), (400, &json!(1)), "{twice:?}: {told}");
                assert_eq!(told["error"]["code"], -32020, "{twice:?}: {told}");
            }
        }
        let sessions = [Session::open(address, R11), Session::open(address, R11)];
        let ids = [("Mcp-Session-Id", sessions[0].id.as_str()), ("Mcp-Session-Id", sessions[1].id.as_str())];
        let reply = post(address, &ids, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!(-32600)));
    }
}

#[test]
fn what_a_revision_has_not_is_refused_in_its_words() {
    let (world, _gateway, instance) = start();
    let version = |version| [("MCP-Protocol-Version", version)];
    for (address, _) in ports(&world, &instance) {
        for body in [r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#] {
            let reply = post(address, &version(MODERN), body);
            let told = reply.json();
            assert_eq!((reply.status, &told["error"]["code"]), (400, &json!(-32600)), "{told}");
            assert!(told["error"]["message"].as_str().is_some_and(|text| text.contains("inputResponses")), "{told}");
        }
        let reply = post(address, &version("2031-01-01"), r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        let told = reply.json();
        assert_eq!((reply.status, &told["error"]["code"]), (400, &json!(-32022)), "{told}");
        let data = &told["error"]["data"];
        assert_eq!((&data["requested"], &data["supported"][0]), (&json!("2031-01-01"), &json!(MODERN)), "{told}");
    }
}

#[test]
fn completion_goes_by_the_type_of_its_reference() {
    let (world, _gateway, instance) = start();
    for (address, prefix) in ports(&world, &instance) {
        let mut session = Session::open(address, R11);
        let argument = json!({"name": "shot", "value": "sh"});
        let name = format!("{prefix}shot_notes__review");
        let right = json!({"ref": {"type": "ref/prompt", "name": name}, "argument": argument});
        assert_eq!(session.result("completion/complete", right)["completion"]["total"], 2);
        for reference in [
            json!({"name": name}),
            json!({"type": "ref/nonsense", "name": name}),
            json!({"type": "ref/resource", "name": name}),
            json!({"type": "ref/prompt", "uri": "x://y"}),
            json!({"type": "ref/prompt", "name": format!("{prefix}none")}),
        ] {
            let params = json!({"ref": reference, "argument": argument});
            assert_eq!(session.request("completion/complete", params)["error"]["code"], -32602, "{reference}");
        }
        // 2026-07-28 has no more the code for a resource that is not there.
        let reference = json!({"type": "ref/resource", "uri": "none://{x}"});
        let params = json!({"ref": reference, "argument": {"name": "x", "value": ""}});
        assert_eq!(session.request("completion/complete", params.clone())["error"]["code"], -32002);
        let told = modern(address, "/mcp", "completion/complete", &params, &json!({})).message();
        assert_eq!(told["error"]["code"], -32602, "{told}");
    }
}

#[test]
fn errors_repeat_the_beginning_of_what_was_sent() {
    let (world, _gateway, instance) = start();
    for (address, _) in ports(&world, &instance) {
        let mut session = Session::open(address, R11);
        let long = "ä".repeat(100_000);
        for (method, params) in [
            (long.as_str(), json!({})),
            ("tools/call", json!({"name": long})),
            ("prompts/get", json!({"name": long})),
            ("tasks/get", json!({"taskId": long})),
            ("resources/read", json!({"uri": long})),
            ("resources/subscribe", json!({"uri": long})),
        ] {
            let error = session.request(method, params)["error"].clone();
            let text = error["message"].as_str().expect("a message");
            assert!(text.chars().count() < 400, "{method:.40}: {} characters", text.chars().count());
        }
    }
}

#[test]
fn odd_wishes_for_tasks() {
    let (world, _gateway, instance) = start();
    let offered = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    for (address, prefix) in ports(&world, &instance) {
        let mut session = Session::open(address, R11);
        let (name, release) = (format!("{prefix}probe_tools__hold"), world.path().join("never"));
        let mut call = json!({"name": name, "arguments": {"release": release}, "task": {"ttl": 200_000.0}});
        let task = session.result("tools/call", call.clone())["task"].clone();
        assert_eq!(task["ttl"], 200_000, "{task}");
        // Once it has ended nothing of it changes any more.
        let cancelled = session.result("tasks/cancel", json!({"taskId": task["taskId"]}));
        assert_eq!(session.request("tasks/cancel", json!({"taskId": task["taskId"]}))["error"]["code"], -32602);
        assert_eq!(session.result("tasks/get", json!({"taskId": task["taskId"]})), cancelled);
        // A call that asked nothing cannot be repeated.
        call["requestState"] = "0123456789abcdef0123456789abcdef".into();
        let told = modern(address, "/mcp", "tools/call", &call, &offered).message();
        assert_eq!(told["error"]["code"], -32602, "{told}");
    }
}
