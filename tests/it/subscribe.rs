//! Subscriptions to resources: who is told what, at the instance and through the gateway.

use std::time::Duration;

use serde_json::{Value, json};

use crate::backend::{Backend, Manner};
use crate::client::{ACCEPT_BOTH, EventStream, R11, Session};
use crate::folder::write;
use crate::program::{Program, Start, World};
use crate::wait::{PATIENCE, until};

const SKILL: &str = "---\nname: notes\ndescription: Notes\ntools: []\n---\n";
const UPDATED: &str = "notifications/resources/updated";
/// Time in which a notification that must not come would have come: the skill folder is looked at every 2 s.
const QUIET: Duration = Duration::from_secs(3);

struct Bench {
    world: World,
    _gateway: Program,
    instance: Program,
}

impl Bench {
    fn start() -> Bench {
        let world = World::new();
        write(&world.skills().join("notes/SKILL.md"), SKILL);
        let gateway = world.start(Start::new());
        let bench = Bench { instance: world.start_with_skills("maya"), world, _gateway: gateway };
        bench.write("a", "one");
        bench.write("b", "one");
        bench.world.wait_instances(2);
        for (address, uri) in bench.places("b") {
            let mut session = Session::open(address, R11);
            until(PATIENCE, "the resource is listed", || {
                session.result("resources/list", json!({})).to_string().contains(&format!("\"{uri}\""))
            });
        }
        bench
    }

    /// Texts of one length: the size of a file is part of the list, which should not change here.
    fn write(&self, name: &str, text: &str) {
        write(&self.world.skills().join(format!("notes/resources/{name}.txt")), text);
    }

    /// Where a resource can be subscribed to, and how it is called there.
    fn places(&self, name: &str) -> [(std::net::SocketAddr, String); 2] {
        let own = format!("skill://notes/resources/{name}.txt");
        let published = format!("dcc://{}/{own}", self.instance.instance_id);
        [(self.instance.address, own), (self.world.gateway(), published)]
    }
}

/// The URI that is said to have changed.
#[track_caller]
fn next_updated(stream: &mut EventStream) -> Value {
    let (_, message) = stream.next_message(PATIENCE).expect("a notification");
    assert_eq!(message["method"], UPDATED, "{message}");
    message["params"]["uri"].clone()
}

#[test]
fn who_subscribed_is_told_and_nobody_else() {
    let bench = Bench::start();
    let mut sessions = Vec::new();
    for ((address, a), (_, b)) in bench.places("a").into_iter().zip(bench.places("b")) {
        let (mut one, mut two, three) =
            (Session::open(address, R11), Session::open(address, R11), Session::open(address, R11));
        assert_eq!(one.server["capabilities"]["resources"]["subscribe"], json!(true));
        assert_eq!(one.result("resources/subscribe", json!({"uri": a})), json!({}));
        assert_eq!(two.result("resources/subscribe", json!({"uri": b})), json!({}));
        let streams = [one.stream(None), two.stream(None), three.stream(None)];
        sessions.push((one, two, streams, a, b));
    }
    bench.write("a", "two");
    for (_, _, [stream, ..], a, _) in &mut sessions {
        assert_eq!(next_updated(stream), json!(a));
    }
    bench.write("b", "two");
    for (one, two, [first, second, third], a, b) in &mut sessions {
        assert_eq!(next_updated(second), json!(b));
        assert!(third.next_message(QUIET).is_none() && first.next_message(Duration::ZERO).is_none());
        assert_eq!(one.result("resources/unsubscribe", json!({"uri": a})), json!({}));
        assert_eq!(two.result("resources/subscribe", json!({"uri": a})), json!({}));
    }
    bench.write("a", "six");
    for (_, _, [first, second, _], a, _) in &mut sessions {
        assert_eq!(next_updated(second), json!(a));
        assert!(first.next_message(QUIET).is_none(), "unsubscribed");
    }
}

#[test]
fn what_changed_while_there_was_no_stream_is_told_on_the_next() {
    let bench = Bench::start();
    for (round, (address, uri)) in bench.places("a").into_iter().enumerate() {
        let mut session = Session::open(address, R11);
        session.result("resources/subscribe", json!({"uri": uri}));
        let mut witness = Session::open(address, R11);
        witness.result("resources/subscribe", json!({"uri": uri}));
        let mut seen = witness.stream(None);
        bench.write("a", ["two", "six"][round]);
        assert_eq!(next_updated(&mut seen), json!(uri));
        assert_eq!(next_updated(&mut session.stream(None)), json!(uri));
    }
}

#[test]
fn a_listener_of_the_stateless_revision_names_resources() {
    let bench = Bench::start();
    let mut streams = Vec::new();
    for (address, uri) in bench.places("a") {
        let mut missing = bench.places("c").map(|(_, uri)| uri).to_vec();
        missing.push(uri.clone());
        let body = json!({"jsonrpc": "2.0", "id": "l", "method": "subscriptions/listen", "params": {
            "notifications": {"resourceSubscriptions": missing},
            "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {}}}});
        let headers = [
            ("Accept", ACCEPT_BOTH),
            ("Content-Type", "application/json"),
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", "subscriptions/listen"),
        ];
        let body = body.to_string();
        let mut stream = EventStream::open(address, "POST", "/mcp", &headers, Some(body.as_bytes())).expect("a stream");
        let (_, first) = stream.next_message(PATIENCE).expect("it is acknowledged");
        assert_eq!(first["params"]["notifications"], json!({"resourceSubscriptions": [uri]}));
        streams.push((stream, uri));
    }
    bench.write("a", "two");
    for (stream, uri) in &mut streams {
        let (_, message) = stream.next_message(PATIENCE).expect("a notification");
        let meta = json!({"io.modelcontextprotocol/subscriptionId": "l"});
        assert_eq!(message["params"], json!({"uri": uri, "_meta": meta}), "{message}");
    }
}

#[test]
fn what_cannot_be_subscribed_to_is_refused() {
    let bench = Bench::start();
    let backend = Backend::start(Manner::Json(json!({})), Vec::new());
    let _registered = backend.register(&bench.world.registry(), "maya");
    bench.world.wait_instances(3);
    for (address, uri) in bench.places("c") {
        let mut session = Session::open(address, R11);
        assert_eq!(session.request("resources/subscribe", json!({"uri": uri}))["error"]["code"], json!(-32002));
        assert_eq!(session.request("resources/subscribe", json!({}))["error"]["code"], json!(-32602));
        assert_eq!(session.result("resources/unsubscribe", json!({"uri": uri})), json!({}));
    }
    let mut session = Session::open(bench.world.gateway(), R11);
    let silent = format!("dcc://{}/notes://x", backend.id);
    let refused = session.request("resources/subscribe", json!({"uri": silent}));
    assert_eq!(refused["error"]["code"], json!(-32601), "it says nothing of subscriptions: {refused}");
}

#[test]
fn an_instance_that_comes_back_is_followed_again() {
    let bench = Bench::start();
    let [_, (address, uri)] = bench.places("a");
    let mut session = Session::open(address, R11);
    session.result("resources/subscribe", json!({"uri": uri}));
    let mut stream = session.stream(None);
    let Bench { world, _gateway, instance } = bench;
    let id = instance.instance_id.clone();
    drop(instance);
    world.wait_instances(1);
    let skills = world.skills().display().to_string();
    let again = Start::new().args(["--dcc", "maya", "--skill-paths", &skills, "--load-skills", "all"]);
    let _again = world.start(again.instance_id(&id));
    world.wait_instances(2);
    let mut changed = 0;
    until(PATIENCE, "a change is told", || {
        changed += 1;
        write(&world.skills().join("notes/resources/a.txt"), "y".repeat(20 + changed));
        let message = stream.next_message(Duration::from_secs(3)).map(|(_, message)| message);
        message.is_some_and(|message| message["method"] == UPDATED && message["params"]["uri"] == json!(uri))
    });
}
