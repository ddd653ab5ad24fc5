//! Two replicas with addresses of their own and one registry: a session that one of them opened goes on at the other.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{EventStream, R03, R06, R11, Session};
use crate::folder::write;
use crate::program::{Program, Start, World};
use crate::skill;
use crate::wait::{PATIENCE, until};

const A: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const B: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Time in which a notification that must not come would have come: twice the scan of the registry, and more.
const QUIET: Duration = Duration::from_millis(1500);
/// Skills, and the lists that change with each.
const SKILLS: [(&str, &[&str]); 3] = [("probe-tools", &["tools"]), ("ask", &["prompts"]), ("notes", &["resources"])];

const ASK: &str = r#"---
name: ask
description: A prompt
tools: []
prompts:
  - {name: well, description: Asks, template: "Well?"}
---
"#;

const NOTES: &str = r#"---
name: notes
description: A resource
tools: []
resources:
  - {uri: "notes://one", name: one, mime_type: text/plain, text: "One."}
---
"#;

/// Both replicas, and an instance with all skills, none of them loaded.
struct Bench {
    world: World,
    replicas: [Program; 2],
    instance: Program,
}

impl Bench {
    fn start() -> Bench {
        let world = World::new();
        skill::probe(&world.skills());
        write(&world.skills().join("ask/SKILL.md"), ASK);
        write(&world.skills().join("notes/SKILL.md"), NOTES);
        let replicas = [A, B].map(|host| world.start(Start::new().host(host)));
        let skills = world.skills().display().to_string();
        let instance = world.start(Start::new().no_gateway().args(["--dcc", "maya", "--skill-paths", &skills]));
        let bench = Bench { world, replicas, instance };
        bench.until_both("all three instances are known", |session| {
            session.structured("list_dcc_instances", json!({}))["instances"].as_array().map(Vec::len) == Some(3)
        });
        bench
    }

    fn set_loaded(&self, skill: &str, wanted: bool) {
        let tool = if wanted { "load_skill" } else { "unload_skill" };
        Session::open(self.instance.address, R06).structured(tool, json!({"skill_name": skill}));
        let name = format!("{}__", self.instance.short());
        self.until_both("both replicas list what is loaded", |session| match skill {
            "ask" => session.result("prompts/list", json!({})).to_string().contains(&name) == wanted,
            "notes" => session.result("resources/list", json!({})).to_string().contains("notes://one") == wanted,
            _ => session.tool_names().iter().any(|tool| tool.starts_with(&name)) == wanted,
        });
    }

    fn until_both(&self, what: &str, holds: impl Fn(&mut Session) -> bool) {
        for host in [A, B] {
            let mut session = Session::open(self.world.gateway_at(host), R11);
            until(PATIENCE, what, || holds(&mut session));
        }
    }

    /// The same session, spoken with at another replica.
    fn moved(&self, session: &Session, host: Ipv4Addr) -> Session {
        let mut moved = session.beside();
        moved.address = self.world.gateway_at(host);
        moved
    }
}

#[test]
fn a_session_of_one_replica_lists_calls_and_follows_at_the_other() {
    let bench = Bench::start();
    bench.set_loaded("probe-tools", true);
    let tool = format!("{}__probe_tools__echo", bench.instance.short());
    for revision in [R03, R06, R11] {
        let mut at_a = Session::open(bench.world.gateway_at(A), revision);
        let mut at_b = bench.moved(&at_a, B);
        assert_eq!(at_a.tools(), at_b.tools(), "the same tools under the same names in the same order");
        assert_eq!(at_b.structured(&tool, json!({"text": revision})), json!({"text": revision}));
        let mut stream = at_b.stream(None);
        stream.settle();
        bench.set_loaded("ask", true);
        assert_eq!(told(&mut stream), ["notifications/prompts/list_changed"], "{revision}");
        bench.set_loaded("ask", false);
    }
}

#[test]
fn a_stream_resumed_at_the_other_replica_tells_of_each_kind_that_changed_once() {
    let bench = Bench::start();
    let session = Session::open(bench.world.gateway_at(A), R11);
    let mut stream = session.stream(None);
    let mut id = stream.settle();
    drop(stream);
    let mut here = B;
    for (skill, kinds) in SKILLS.into_iter().chain([("", &[][..])]) {
        if !skill.is_empty() {
            bench.set_loaded(skill, true);
        }
        let mut stream = bench.moved(&session, here).stream(Some(&id));
        let (newer, heard) = listen(&mut stream);
        let expected: Vec<String> = kinds.iter().map(|kind| format!("notifications/{kind}/list_changed")).collect();
        assert_eq!(heard, expected, "after {skill:?}");
        id = newer;
        here = if here == A { B } else { A };
    }
    // All at once, and back to where it was: one of each kind, then none.
    SKILLS.iter().for_each(|(skill, _)| bench.set_loaded(skill, false));
    let (newer, heard) = listen(&mut bench.moved(&session, here).stream(Some(&id)));
    assert_eq!(heard.len(), 3, "one of each kind: {heard:?}");
    SKILLS.iter().for_each(|(skill, _)| bench.set_loaded(skill, true));
    SKILLS.iter().for_each(|(skill, _)| bench.set_loaded(skill, false));
    let (_, heard) = listen(&mut bench.moved(&session, B).stream(Some(&newer)));
    assert!(heard.is_empty(), "nothing is different in the end: {heard:?}");
}

#[test]
fn a_client_moves_on_when_its_replica_is_killed() {
    let mut bench = Bench::start();
    bench.set_loaded("probe-tools", true);
    let tool = format!("{}__probe_tools__echo", bench.instance.short());
    let session = Session::open(bench.world.gateway_at(A), R06);
    let mut stream = session.stream(None);
    let id = stream.settle();
    bench.replicas[0].kill_9();
    assert!(stream.has_ended(PATIENCE), "the stream ends with its process");
    let mut at_b = bench.moved(&session, B);
    let reply = at_b.post(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}));
    assert_eq!(reply.status, 200, "never 404: {}", reply.text());
    assert!(reply.text().contains(&tool), "the first list is complete");
    assert_eq!(at_b.structured(&tool, json!({"text": "on"})), json!({"text": "on"}));
    let (_, heard) = listen(&mut at_b.stream(Some(&id)));
    assert!(heard.is_empty(), "a replica without skills leaves with no tool: {heard:?}");
}

#[test]
fn clients_may_go_to_and_fro_between_replicas() {
    let bench = Bench::start();
    bench.set_loaded("probe-tools", true);
    let tool = format!("{}__probe_tools__echo", bench.instance.short());
    thread::scope(|scope| {
        for revision in [R03, R06, R11] {
            let (bench, tool) = (&bench, &tool);
            scope.spawn(move || {
                let session = Session::open(bench.world.gateway_at(A), revision);
                let mut ways = [bench.moved(&session, A), bench.moved(&session, B)];
                for round in 0..40 {
                    let text = format!("{revision} {round}");
                    assert_eq!(ways[round % 2].structured(tool, json!({"text": text})), json!({"text": text}));
                }
            });
        }
    });
}

/// All that a resumed stream tells until it is quiet, and the last id.
#[track_caller]
fn listen(stream: &mut EventStream) -> (String, Vec<String>) {
    let (mut id, mut heard) = (String::new(), Vec::new());
    while let Some(event) = stream.next(QUIET) {
        id = event.id.unwrap_or(id);
        if let Some(data) = event.data.filter(|data| !data.is_empty()) {
            let message: Value = serde_json::from_str(&data).expect("an event's data is a JSON-RPC message");
            heard.push(message["method"].as_str().unwrap_or_default().to_owned());
        }
    }
    assert!(!id.is_empty(), "a stream begins with an id");
    (id, heard)
}

/// What a stream tells next, and that it is nothing more.
#[track_caller]
fn told(stream: &mut EventStream) -> Vec<String> {
    let first = stream.next_message(PATIENCE).expect("a notification in time");
    let more = std::iter::from_fn(|| stream.next_message(QUIET));
    std::iter::once(first)
        .chain(more)
        .map(|(_, message)| message["method"].as_str().unwrap_or_default().to_owned())
        .collect()
}
