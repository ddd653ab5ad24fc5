//! Streams of running calls that break, and clients that come back for the rest.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::backend::{Backend, Manner, tool};
use crate::client::{Event, EventStream, R03, R06, R11, Session};
use crate::dialog::call;
use crate::folder::write;
use crate::program::{Program, Start, World};
use crate::wait::{PATIENCE, until};

const SKILL: &str = "---
name: long
description: Takes its time
dcc: any
tools:
  - {name: work, source_file: scripts/work.py}
  - {name: release, source_file: scripts/release.py}
---
";

/// Notes its process id, tells progress, waits for the file `go`, tells progress again.
const WORK: &str = r#"
import json, os, sys, time
folder = json.load(sys.stdin)["folder"]
def progress(step):
    print(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": step}}), flush=True)
with open(os.path.join(folder, "pid.tmp"), "w") as note:
    note.write(str(os.getpid()))
os.rename(os.path.join(folder, "pid.tmp"), os.path.join(folder, "pid"))
progress(1)
while not os.path.exists(os.path.join(folder, "go")):
    time.sleep(0.02)
progress(2)
print(json.dumps({"folder": folder}))
"#;

const RELEASE: &str = r#"
import json, sys, time
text = json.load(sys.stdin)["text"]
print('{"jsonrpc":"2.0","method":"notifications/io.dcc-mcp/release","params":{"retryMs":200}}', flush=True)
time.sleep(0.5)
print(json.dumps({"text": text}))
"#;

fn start() -> (World, Program, Program) {
    let world = World::new();
    let folder = world.skills().join("long");
    for (name, text) in [("SKILL.md", SKILL), ("scripts/work.py", WORK), ("scripts/release.py", RELEASE)] {
        write(&folder.join(name), text);
    }
    let gateway = world.start(Start::new());
    let instance = world.start_with_skills("maya");
    world.wait_instances(2);
    (world, gateway, instance)
}

/// Address, path, and what the tools' names begin with.
fn ways(world: &World, instance: &Program) -> [(SocketAddr, String, String); 4] {
    let published = format!("{}__long__", instance.short());
    let mut session = Session::open(world.gateway(), R11);
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&format!("{published}work")));
    let (gateway, own) = (world.gateway(), "long__".to_owned());
    [
        (instance.address, "/mcp".to_owned(), own.clone()),
        (gateway, format!("/mcp/{}", instance.short()), own.clone()),
        (gateway, "/mcp/dcc/maya".to_owned(), own),
        (gateway, "/mcp".to_owned(), published),
    ]
}

/// A call of `work` under way, with its first events: the priming one and the first progress.
struct Work {
    stream: EventStream,
    primed: String,
    told: String,
    folder: std::path::PathBuf,
}

impl Work {
    fn begin(world: &World, session: &Session, prefix: &str, name: &str) -> Work {
        let folder = world.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let arguments = json!({"folder": folder.to_str()});
        let message = call(json!("same id"), &format!("{prefix}work"), arguments, Some(json!("same token")));
        let mut stream = session.post_stream(&message).expect("a reply");
        let primed = std::iter::from_fn(|| stream.next(PATIENCE)).find_map(|event| event.id).expect("a priming event");
        let (event, message) = stream.next_message(PATIENCE).expect("progress");
        assert_eq!(message["params"]["progress"], json!(1), "{message}");
        Work { stream, primed, told: event.id.expect("its id"), folder }
    }

    fn go(&self) {
        write(&self.folder.join("go"), "");
    }

    fn pid(&self) -> String {
        std::fs::read_to_string(self.folder.join("pid")).expect("it has told its process id")
    }

    fn has_ended(&self) -> bool {
        !Path::new("/proc").join(self.pid()).exists()
    }
}

/// The messages of a stream to its end: progress as its value, an answer as its structured content.
fn rest(stream: &mut EventStream) -> Vec<Value> {
    let seen = |(_, message): (Event, Value)| match message.get("method") {
        Some(_) => message["params"]["progress"].clone(),
        None => message["result"]["structuredContent"].clone(),
    };
    let messages = std::iter::from_fn(|| stream.next_message(PATIENCE)).map(seen).collect();
    assert!(stream.has_ended(PATIENCE), "the stream ends with the answer");
    messages
}

#[test]
fn a_broken_stream_goes_on_where_it_was() {
    let (world, _gateway, instance) = start();
    for (number, (address, path, prefix)) in ways(&world, &instance).into_iter().enumerate() {
        for revision in [R03, R06, R11] {
            let session = Session::open_at(address, &path, revision);
            let work = Work::begin(&world, &session, &prefix, &format!("broken-{number}-{revision}"));
            let (primed, told, answer) =
                (work.primed.clone(), work.told.clone(), json!({"folder": work.folder.to_str()}));
            let Work { stream, folder, .. } = work;
            drop(stream);
            let mut resumed = session.stream(Some(&told));
            // The newest connection is the one that is written to; the one before ends.
            let mut newer = session.stream(Some(&primed));
            assert_eq!(
                newer.next_message(PATIENCE).map(|(_, message)| message["params"]["progress"].clone()),
                Some(json!(1))
            );
            assert!(resumed.has_ended(PATIENCE), "{path}");
            write(&folder.join("go"), "");
            assert_eq!(rest(&mut newer), [json!(2), answer.clone()], "{path} {revision}");
            // An answer that got lost on the way can be had again.
            assert_eq!(rest(&mut session.stream(Some(&told))), [json!(2), answer], "{path} {revision}");
        }
    }
}

#[test]
fn no_session_reads_the_stream_of_another() {
    let (world, _gateway, instance) = start();
    for (number, (address, path, prefix)) in ways(&world, &instance).into_iter().enumerate() {
        let sessions = [Session::open_at(address, &path, R11), Session::open_at(address, &path, R11)];
        let works = [0, 1].map(|at| Work::begin(&world, &sessions[at], &prefix, &format!("two-{number}-{at}")));
        let told = [0, 1].map(|at| works[at].told.clone());
        let folders = [0, 1].map(|at| json!({"folder": works[at].folder.to_str()}));
        // A foreign id opens a stream of the session's own, which brings nothing of the other's call.
        let mut foreign = [sessions[0].stream(Some(&told[1])), sessions[1].stream(Some(&told[0]))];
        works.iter().for_each(Work::go);
        for (at, work) in works.into_iter().enumerate() {
            drop(work.stream);
            assert_eq!(rest(&mut sessions[at].stream(Some(&told[at]))), [json!(2), folders[at].clone()], "{path}");
            let message = foreign[at].next_message(Duration::from_millis(300));
            assert_eq!(message.map(|(_, message)| message), None, "{path}");
        }
    }
}

#[test]
fn a_call_whose_stream_broke_can_be_cancelled() {
    let (world, _gateway, instance) = start();
    for (number, (address, path, prefix)) in ways(&world, &instance).into_iter().enumerate() {
        let session = Session::open_at(address, &path, R11);
        let Work { stream, told, primed, folder } =
            Work::begin(&world, &session, &prefix, &format!("cancelled-{number}"));
        drop(stream);
        let mut resumed = session.stream(Some(&told));
        let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "same id"}});
        assert_eq!(session.beside().post(&cancel).status, 202);
        assert_eq!(rest(&mut resumed), Vec::<Value>::new(), "{path}: a cancelled call is not answered");
        let work = Work { stream: resumed, told, primed, folder };
        until(PATIENCE, "its script has ended", || work.has_ended());
    }
}

// tiny_http does not show the socket, so that its clients' going is not seen before something is written.
#[cfg(not(feature = "tiny-http"))]
#[test]
fn without_a_stream_that_can_be_resumed_the_call_ends_with_its_connection() {
    let (world, _gateway, instance) = start();
    for (number, (address, path, prefix)) in ways(&world, &instance).into_iter().enumerate() {
        let folder = world.path().join(format!("gone-{number}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let session = Session::open_at(address, &path, R11);
        // No progress is asked for: nothing is written before the answer.
        let message = call(json!(1), &format!("{prefix}work"), json!({"folder": folder.to_str()}), None);
        let body = message.to_string();
        let mut connection = crate::client::Connection::open(address).expect("a connection");
        connection
            .send(&crate::client::encode(address, "POST", &path, &session.headers(), Some(body.as_bytes())))
            .expect("it is sent");
        until(PATIENCE, "the script runs", || folder.join("pid").exists());
        let pid = std::fs::read_to_string(folder.join("pid")).expect("its process id");
        drop(connection);
        until(PATIENCE, "its script has ended", || !Path::new("/proc").join(&pid).exists());
    }
}

#[test]
fn the_gateway_comes_back_to_an_instance_whose_stream_broke() {
    let world = World::new();
    let _gateway = world.start(Start::new());
    world.wait_instances(1);
    let result = json!({"content": [{"type": "text", "text": "done"}]});
    let backend = Backend::start(Manner::ResumedStream { result: result.clone() }, vec![tool("go")]);
    let _entry = backend.register(&world.registry(), "maya");
    let name = format!("{}__go", backend.short());
    let mut session = Session::open(world.gateway(), R11);
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&name));
    let reply = session.post(&call(json!(1), &name, json!({}), Some(json!("token"))));
    let messages = reply.messages();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert_eq!(messages[0]["params"]["progressToken"], "token");
    assert_eq!(messages[1]["result"], result);
    assert_eq!(backend.requests_of("tools/call").len(), 1, "it was called once");
}

#[test]
fn a_tool_lets_its_client_go_and_answers_it_later() {
    let (world, _gateway, instance) = start();
    for (address, path, prefix) in ways(&world, &instance) {
        let session = Session::open_at(address, &path, R11);
        let message = call(json!(7), &format!("{prefix}release"), json!({"text": path}), None);
        let mut stream = session.post_stream(&message).expect("a reply");
        let events: Vec<Event> = std::iter::from_fn(|| stream.next(PATIENCE)).collect();
        assert_eq!(
            events.iter().filter_map(|event| event.retry).collect::<Vec<_>>(),
            [4000, 200],
            "{path}: {events:?}"
        );
        let ids: Vec<&String> = events.iter().filter_map(|event| event.id.as_ref()).collect();
        assert_eq!(ids.len(), 1, "{path}: {events:?}");
        // Where the connection's thread goes on with the call, nothing else may be sent on it.
        let closes = stream.header("connection") == Some("close");
        assert_eq!(closes, path == "/mcp", "{path}");
        assert_eq!(rest(&mut session.stream(Some(ids[0]))), [json!({"text": path})], "{path}");
    }
}
