//! Transcripts: what goes over the wire, request by request, as files that a person can read and compare.
//!
//! A file of `tests/transcripts/` is a list of exchanges. Lines that begin with `>` are sent, lines that begin with
//! `<` must come back; `#` begins a comment. The first line of a request names the port it goes to:
//! `> gateway POST /mcp`. What differs from run to run is masked: `<session>`, `<event>`, `<port>`, `<short>`, `<task>`,
//! `<time>`. `{session}` in a request is the id that the last `initialize` got, `{short}` begins the names of the instance's
//! tools, `{instance}` is its id, `{question}` the id of the last request that the server made, `{task}` that of the task
//! told of last, `{state}` the last `requestState`. `> the stream goes on` sends nothing: what comes is what the stream before
//! it says next. Files named `…-offer-…` are played with skills that have prompts and resources, tell and ask, those named
//! `…-asking` with one that asks.
//! `UPDATE=1 cargo test --test it transcripts` rewrites what came back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use std::{env, fs, thread};

use serde_json::Value;

use crate::client::{EventStream, R03, R06, R11, Reply, Session};
use crate::program::{Program, World};
use crate::wait::{PATIENCE, until};
use crate::{dialog, offer, skill};

/// Time after which a stream that stays open is taken for what it has said so far.
const STREAM_QUIET: Duration = Duration::from_millis(700);
/// Transcripts that are played at the same time: most of their time is waiting.
const AT_ONCE: usize = 4;
/// Headers of a reply that a client acts upon; the others are left out of the transcript.
const SHOWN_HEADERS: &[&str] = &["content-type", "mcp-session-id", "allow", "cache-control", "x-accel-buffering"];

/// The parts of a transcript file.
enum Part {
    Comment(String),
    Exchange { sent: Vec<String>, expected: Vec<String> },
}

struct Player {
    world: World,
    instance: Program,
    session: String,
    task: RefCell<String>,
    /// The last id of a request that the server made, as JSON text.
    question: String,
    /// The last `requestState`.
    state: String,
    /// The last stream, which may have more to say.
    stream: Option<EventStream>,
}

#[test]
fn what_is_said_is_what_the_transcripts_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).expect("tests/transcripts").flatten().map(|f| f.path()).collect();
    files.sort();
    assert!(files.len() >= 4, "the transcripts are there: {files:?}");
    let (left, faults) = (Mutex::new(files.into_iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(file) = left.lock().expect("nobody panics with it").next() else { return };
                    let fault = compare(&file);
                    faults.lock().expect("nobody panics with it").extend(fault);
                }
            });
        }
    });
    let faults = faults.into_inner().expect("nobody panics with it");
    assert!(faults.is_empty(), "transcripts differ (UPDATE=1 rewrites them):\n{}", faults.join("\n"));
}

/// Plays a file; what comes back differently, or nothing. With `UPDATE` set the file is rewritten.
fn compare(file: &Path) -> Option<String> {
    let before = fs::read_to_string(file).expect("a readable transcript");
    let after = Player::new(&file.to_string_lossy()).play(&before);
    if env::var_os("UPDATE").is_some() {
        fs::write(file, after).expect("the transcript is rewritten");
        return None;
    }
    (before != after).then(|| format!("{}\n{}", file.display(), difference(&before, &after)))
}

/// Every method of every revision, at both ports: what there is, what there is not, and what is only told or asked.
#[test]
fn every_method_is_in_a_transcript_of_every_revision() {
    let listed = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"];
    let called = ["tools/call", "prompts/get", "resources/read", "completion/complete"];
    let sessions = ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];
    let stateless = ["server/discover", "subscriptions/listen"];
    let core_tasks = ["tasks/get", "tasks/result", "tasks/list", "tasks/cancel"];
    let extension_tasks = ["tasks/get", "tasks/update", "tasks/cancel"];
    let told = ["notifications/initialized", "notifications/cancelled", "notifications/roots/list_changed"];
    let heard = ["notifications/progress", "notifications/message"];
    let asked = ["roots/list", "sampling/createMessage", "elicitation/create"];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut missing = Vec::new();
    for revision in [R03, R06, R11, "2026-07-28"] {
        for port in ["gateway", "instance"] {
            let texts = ["", "offer-"].map(|part| {
                fs::read_to_string(folder.join(format!("{revision}-{part}{port}.txt"))).expect("a readable transcript")
            });
            let mut wanted = [&listed[..], &called, &sessions, &stateless, &heard].concat();
            if revision != "2026-07-28" {
                wanted.extend([&told[..], &asked].concat());
            }
            match revision {
                R11 => wanted.extend(core_tasks),
                "2026-07-28" => wanted.extend(extension_tasks),
                _ => {}
            }
            let is_there = |method: &str| {
                // As it is sent, and as it is shown when it came.
                let forms = [format!("\"method\":\"{method}\""), format!("\"method\": \"{method}\"")];
                texts.iter().any(|text| forms.iter().any(|form| text.contains(form)))
            };
            missing.extend(wanted.iter().filter(|method| !is_there(method)).map(|m| format!("{revision} {port}: {m}")));
            let cursors =
                texts.iter().map(|text| text.matches("with a cursor that was never given").count()).sum::<usize>();
            assert_eq!(cursors, listed.len(), "{revision} {port}: a bad cursor for each list");
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

impl Player {
    fn new(file: &str) -> Player {
        let world = World::new();
        skill::probe(&world.skills());
        if file.contains("-asking") {
            skill::desk(&world.skills());
        }
        if file.contains("-offer-") {
            offer::write_skill(&world.skills());
            dialog::write_skill(&world.skills());
        }
        let instance = world.start_with_skills("maya");
        world.wait_instances(1);
        let tool = format!("{}__probe_tools__echo", instance.short());
        let mut session = Session::open(world.gateway(), R06);
        until(PATIENCE, "the tool is listed", || session.tool_names().contains(&tool));
        let (session, task, question, state) = (String::new(), RefCell::default(), String::new(), String::new());
        Player { world, instance, session, task, question, state, stream: None }
    }

    fn play(&mut self, text: &str) -> String {
        let mut out = String::new();
        for part in parse(text) {
            match part {
                Part::Comment(line) => out += &format!("{line}\n"),
                Part::Exchange { sent, .. } => {
                    for line in &sent {
                        out += format!("> {line}").trim_end();
                        out.push('\n');
                    }
                    for line in self.exchange(&sent) {
                        out += format!("< {line}").trim_end();
                        out.push('\n');
                    }
                }
            }
        }
        out
    }

    fn exchange(&mut self, sent: &[String]) -> Vec<String> {
        if sent == ["the stream goes on"] {
            let mut stream = self.stream.take().expect("a stream before it that may go on");
            return self.events(&mut stream);
        }
        let filled: Vec<String> = sent.iter().map(|line| self.fill(line)).collect();
        let first: Vec<&str> = filled[0].split(' ').collect();
        let [port, method, path] = first[..] else { panic!("a request begins with port, method, path: {}", sent[0]) };
        let address = match port {
            "gateway" => self.world.gateway(),
            "instance" => self.instance.address,
            other => panic!("the port is gateway or instance, not {other}"),
        };
        let split = filled.iter().position(String::is_empty).unwrap_or(filled.len());
        let headers: Vec<(&str, &str)> = filled[1..split].iter().filter_map(|line| line.split_once(": ")).collect();
        let body = filled.get(split + 1..).map(|lines| lines.join("\n")).filter(|body| !body.is_empty());
        let mut stream = EventStream::open(address, method, path, &headers, body.as_deref().map(str::as_bytes))
            .unwrap_or_else(|error| panic!("no reply to {filled:?}: {error}"));
        let lines = self.lines(&mut stream);
        if let Some(session) = stream.header("mcp-session-id") {
            self.session = session.to_owned();
        }
        if is_stream(&stream) {
            self.stream = Some(stream);
        }
        lines
    }

    fn lines(&mut self, stream: &mut EventStream) -> Vec<String> {
        let mut lines = vec![stream.status.to_string()];
        for name in SHOWN_HEADERS {
            if let Some(value) = stream.header(name) {
                let shown = if *name == "mcp-session-id" { "<session>" } else { value };
                lines.push(format!("{name}: {shown}"));
            }
        }
        let body = if is_stream(stream) { self.events(stream) } else { self.body(&stream.rest(PATIENCE)) };
        if !body.is_empty() {
            lines.push(String::new());
            lines.extend(body);
        }
        lines
    }

    fn events(&mut self, stream: &mut EventStream) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(event) = stream.next(STREAM_QUIET) {
            if event.comment.is_some() {
                continue;
            }
            let message: Value =
                event.data.as_deref().and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
            if message["method"].is_string() && !message["id"].is_null() {
                self.question = message["id"].to_string();
            }
            lines.extend(event.id.map(|_| "id: <event>".to_owned()));
            lines.extend(event.retry.map(|retry| format!("retry: {retry}")));
            if event.data.as_deref() == Some("") {
                lines.push("data:".to_owned());
            }
            for (number, line) in event.data.iter().flat_map(|data| self.json(data)).enumerate() {
                lines.push(format!("{}{line}", if number == 0 { "data: " } else { "      " }));
            }
            lines.push(String::new());
        }
        lines.pop();
        lines
    }

    fn body(&mut self, reply: &Reply) -> Vec<String> {
        let message: Value = serde_json::from_str(&reply.text()).unwrap_or_default();
        if let Some(state) = message["result"]["requestState"].as_str() {
            self.state = state.to_owned();
        }
        self.json(&reply.text())
    }

    /// The lines of a JSON text, indented and masked; any other text as it is.
    fn json(&self, text: &str) -> Vec<String> {
        let pretty = match serde_json::from_str::<Value>(text) {
            Ok(value) => serde_json::to_string_pretty(&value).expect("JSON encodes"),
            Err(_) => text.to_owned(),
        };
        pretty.lines().map(|line| self.mask(line)).collect()
    }

    fn mask(&self, line: &str) -> String {
        if let Some((start, id)) = line.split_once("\"taskId\": \"") {
            let id = id.split('"').next().unwrap_or_default();
            self.task.replace(id.to_owned());
            return format!("{start}\"taskId\": \"<task>\"{}", if line.ends_with(',') { "," } else { "" });
        }
        if let Some((start, _)) = line.split_once("At\": \"") {
            return format!("{start}At\": \"<time>\"{}", if line.ends_with(',') { "," } else { "" });
        }
        let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
        let masks: BTreeMap<String, &str> = [
            (self.instance.instance_id.clone(), "<instance>"),
            (self.instance.short().to_owned(), "<short>"),
            (self.instance.address.port().to_string(), "<port>"),
            (self.world.gateway().port().to_string(), "<port>"),
            (version, "\"version\": \"<version>\""),
        ]
        .into();
        let drawn = [(self.question.clone(), "<question>"), (self.state.clone(), "<state>")];
        let drawn = drawn.into_iter().filter(|(text, _)| !text.is_empty());
        // The longest first: the short form is a part of the id.
        let mut masks: Vec<_> = masks.into_iter().chain(drawn).collect();
        masks.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        masks.iter().fold(line.to_owned(), |line, (text, mask)| line.replace(text, mask))
    }

    fn fill(&self, line: &str) -> String {
        let task = self.task.borrow();
        let values = [
            ("{session}", self.session.as_str()),
            ("{short}", self.instance.short()),
            ("{instance}", &self.instance.instance_id),
            ("{question}", &self.question),
            ("{state}", &self.state),
            ("{task}", &task),
        ];
        values.iter().fold(line.to_owned(), |line, (name, value)| line.replace(name, value))
    }
}

fn is_stream(stream: &EventStream) -> bool {
    stream.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
}

fn parse(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for line in text.lines() {
        let (kind, rest) = (line.chars().next(), line.get(1..).map(|rest| rest.strip_prefix(' ').unwrap_or(rest)));
        let rest = rest.unwrap_or_default().to_owned();
        match (kind, parts.last_mut()) {
            (Some('>'), Some(Part::Exchange { sent, expected })) if expected.is_empty() => sent.push(rest),
            (Some('>'), _) => parts.push(Part::Exchange { sent: vec![rest], expected: Vec::new() }),
            (Some('<'), Some(Part::Exchange { expected, .. })) => expected.push(rest),
            (Some('<'), _) => panic!("an answer to nothing: {line}"),
            _ => parts.push(Part::Comment(line.to_owned())),
        }
    }
    parts
}

/// The first lines that differ.
fn difference(before: &str, after: &str) -> String {
    let count = before.lines().zip(after.lines()).take_while(|(old, new)| old == new).count();
    let part = |text: &str| text.lines().skip(count).take(8).collect::<Vec<_>>().join("\n    ");
    format!("  line {}, expected:\n    {}\n  got:\n    {}", count + 1, part(before), part(after))
}
