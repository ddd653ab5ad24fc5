//! Transcripts: what goes over the wire, request by request, as files that a person can read and compare.
//!
//! A file of `tests/transcripts/` is a list of exchanges. Lines that begin with `>` are sent, lines that begin with
//! `<` must come back; `#` begins a comment. The first line of a request names the port it goes to:
//! `> gateway POST /mcp`. What differs from run to run is masked: `<session>`, `<event>`, `<port>`, `<short>`
//! and the like.
//! `{session}` in a request is the id that the exchange before it got, `{state}` the `requestState` that came last, `{short}`
//! begins the names of the instance's tools. Files called `*-asking.txt` have a skill that asks.
//! `UPDATE=1 cargo test --test it transcripts` rewrites what came back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use serde_json::Value;

use crate::client::{EventStream, R06, Reply, Session};
use crate::program::{Program, World};
use crate::skill;
use crate::wait::{PATIENCE, until};

/// Time after which a stream that stays open is taken for what it has said so far.
const STREAM_QUIET: Duration = Duration::from_millis(700);
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
    state: RefCell<String>,
    question: RefCell<String>,
}

#[test]
fn what_is_said_is_what_the_transcripts_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).expect("tests/transcripts").flatten().map(|f| f.path()).collect();
    files.sort();
    assert!(files.len() >= 4, "the transcripts are there: {files:?}");
    let update = env::var_os("UPDATE").is_some();
    let mut faults = Vec::new();
    for file in files {
        let before = fs::read_to_string(&file).expect("a readable transcript");
        let after = Player::new(file.to_string_lossy().contains("-asking")).play(&before);
        if update {
            fs::write(&file, after).expect("the transcript is rewritten");
        } else if before != after {
            faults.push(format!("{}\n{}", file.display(), difference(&before, &after)));
        }
    }
    assert!(faults.is_empty(), "transcripts differ (UPDATE=1 rewrites them):\n{}", faults.join("\n"));
}

impl Player {
    fn new(asking: bool) -> Player {
        let world = World::new();
        skill::probe(&world.skills());
        if asking {
            skill::desk(&world.skills());
        }
        let instance = world.start_with_skills("maya");
        world.wait_instances(1);
        let tool = if asking { "desk__ask" } else { "probe_tools__echo" };
        let tool = format!("{}__{tool}", instance.short());
        let mut session = Session::open(world.gateway(), R06);
        until(PATIENCE, "the tool is listed", || session.tool_names().contains(&tool));
        Player { world, instance, session: String::new(), state: RefCell::default(), question: RefCell::default() }
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
        lines
    }

    fn lines(&self, stream: &mut EventStream) -> Vec<String> {
        let mut lines = vec![stream.status.to_string()];
        for name in SHOWN_HEADERS {
            if let Some(value) = stream.header(name) {
                let shown = if *name == "mcp-session-id" { "<session>" } else { value };
                lines.push(format!("{name}: {shown}"));
            }
        }
        let is_events = stream.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        let body = if is_events { self.events(stream) } else { self.body(&stream.rest(PATIENCE)) };
        if !body.is_empty() {
            lines.push(String::new());
            lines.extend(body);
        }
        lines
    }

    fn events(&self, stream: &mut EventStream) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(event) = stream.next(STREAM_QUIET) {
            if event.comment.is_some() {
                continue;
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

    fn body(&self, reply: &Reply) -> Vec<String> {
        self.json(&reply.text())
    }

    /// The lines of a JSON text, indented and masked; any other text as it is.
    fn json(&self, text: &str) -> Vec<String> {
        let pretty = match serde_json::from_str::<Value>(text) {
            Ok(value) => serde_json::to_string_pretty(&value).expect("JSON encodes"),
            Err(_) => text.to_owned(),
        };
        let value = |line: &str, name: &str| {
            let line = line.trim().trim_end_matches(',');
            Some(line.strip_prefix(&format!("\"{name}\": \""))?.strip_suffix('"')?.to_owned())
        };
        if let Some(state) = pretty.lines().find_map(|line| value(line, "requestState")) {
            self.state.replace(state);
        }
        let is_question =
            |id: &String| id.len() > 16 && id.bytes().all(|byte| byte == b'.' || byte.is_ascii_hexdigit());
        if let Some(question) = pretty.lines().find_map(|line| value(line, "id").filter(is_question)) {
            self.question.replace(question);
        }
        pretty.lines().map(|line| self.mask(line)).collect()
    }

    fn mask(&self, line: &str) -> String {
        let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
        let mut masks: BTreeMap<String, &str> = [
            (self.instance.instance_id.clone(), "<instance>"),
            (self.instance.short().to_owned(), "<short>"),
            (self.instance.address.port().to_string(), "<port>"),
            (self.world.gateway().port().to_string(), "<port>"),
            (version, "\"version\": \"<version>\""),
        ]
        .into();
        let (state, question) = (self.state.borrow().clone(), self.question.borrow().clone());
        masks.extend([(state, "<state>"), (question, "<question>")].into_iter().filter(|(text, _)| !text.is_empty()));
        // The longest first: the short form is a part of the id.
        let mut masks: Vec<_> = masks.into_iter().collect();
        masks.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        masks.iter().fold(line.to_owned(), |line, (text, mask)| line.replace(text, mask))
    }

    fn fill(&self, line: &str) -> String {
        line.replace("{session}", &self.session)
            .replace("{short}", self.instance.short())
            .replace("{state}", &self.state.borrow())
    }
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
