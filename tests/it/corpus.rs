//! Raw requests from `tests/it/corpus/*.txt`, each with the exact answers and whether the connection lives on, sent to
//! both ports of the built program.
//!
//! A file holds cases, with an empty line between two. A line of a case begins with
//!
//! - a letter: the name of the case;
//! - `> `: bytes to send. `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH` are escapes, `${name}` is a text of a `let` line above,
//!   `${3*text}` is that text three times;
//! - `< 100`: the interim answer is waited for before the next bytes are sent;
//! - `! end`: our side of the connection is ended, as when a client dies in the middle;
//! - `= 200 404 lives`: the answers, in order, and that the connection then serves another request; `200-` is an answer
//!   without its body (HEAD); `closes`: the last answer announces the end, and it comes; `ends`: it comes without that,
//!   since it is the client who has ended; `nothing ends`: it comes without any answer.
//!
//! **Invariant**: an answer more or less than the line says fails the case, so that nothing can be smuggled; every
//! refusal has a body that says why.
//! **Bounds**: `PATIENCE` for each answer.
//! Left out on purpose: whatever takes long to be refused (`times.rs`), and the engine `tiny-http`, whose framing is its
//! own.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::client::{Connection, Reply};
use crate::program::{Start, World};
use crate::wait::{PATIENCE, print};

/// Fewer cases than this were not read, but lost.
const CASES_MIN: usize = 150;
/// A path that no case asks for, so that its answer cannot be another's.
const NEXT: &[u8] = b"GET /after-the-case HTTP/1.1\r\nHost: localhost\r\n\r\n";

struct Case {
    /// File, line and name.
    name: String,
    steps: Vec<Step>,
    answers: Vec<Expected>,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Lives,
    Closes,
    Ends,
}

enum Step {
    Send(Vec<u8>),
    Await(u16),
    End,
}

#[derive(Clone, Copy)]
struct Expected {
    status: u16,
    has_body: bool,
}

#[test]
fn every_raw_request_gets_exactly_its_answer_on_both_ports() {
    let cases = read_all();
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let world = World::new();
    let instance = world.start(Start::new());
    let mut faults = Vec::new();
    for (port, address) in [("instance", instance.address), ("gateway", world.gateway())] {
        for case in &cases {
            if let Err(fault) = run(case, address) {
                faults.push(format!("{} ({port} port): {fault}", case.name));
            }
        }
    }
    print(&format!("{} raw requests on each of two ports", cases.len()));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn run(case: &Case, address: SocketAddr) -> Result<(), String> {
    let mut connection = Connection::open(address).map_err(|error| format!("no connection: {error}"))?;
    for step in &case.steps {
        match step {
            // What is refused half way is not taken to its end.
            Step::Send(bytes) => drop(connection.send(bytes)),
            Step::Await(status) => expect(&mut connection, Expected { status: *status, has_body: false }).map(drop)?,
            Step::End => connection.end_sending().map_err(|error| error.to_string())?,
        }
    }
    let mut last = None;
    for expected in &case.answers {
        last = Some(expect(&mut connection, *expected)?);
    }
    if case.end == End::Lives {
        connection.send(NEXT).map_err(|error| format!("the connection does not live: {error}"))?;
        return expect(&mut connection, Expected { status: 404, has_body: true }).map(drop);
    }
    let unannounced = last.filter(|last| case.end == End::Closes && last.header("connection") != Some("close"));
    if let Some(last) = unannounced {
        return Err(format!("the end is not announced: {:?}", last.headers));
    }
    match connection.is_closed(PATIENCE) {
        true => Ok(()),
        false => Err("the connection does not end, or more comes".to_owned()),
    }
}

fn expect(connection: &mut Connection, expected: Expected) -> Result<Reply, String> {
    let Expected { status, has_body } = expected;
    let head = connection.read_head_alone(PATIENCE).map_err(|error| format!("not {status}, but {error}"))?;
    let reply = match has_body {
        true => connection.read_body_of(head, PATIENCE).map_err(|error| format!("the body of {status}: {error}"))?,
        false => head,
    };
    if reply.status != status {
        return Err(format!("not {status}, but {} {}", reply.status, reply.text()));
    }
    let is_told_why = serde_json::from_slice(&reply.body)
        .is_ok_and(|body: serde_json::Value| body["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
    match has_body && status >= 400 && !is_told_why {
        true => Err(format!("{status} does not say why: {:?}", reply.text())),
        false => Ok(reply),
    }
}

fn read_all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/corpus");
    let entries = fs::read_dir(folder).expect("the folder of the corpus");
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.iter().flat_map(|file| read(file)).collect()
}

/// The cases of one file.
fn read(file: &Path) -> Vec<Case> {
    let text = fs::read_to_string(file).expect("a readable file");
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut texts = BTreeMap::new();
    let mut cases = Vec::new();
    let mut open: Option<Case> = None;
    for (number, line) in text.lines().enumerate() {
        let place = format!("{stem}.txt:{}", number + 1);
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (mark, &mut open) {
            ("" | "#", None) => {}
            ("let", None) => {
                let (name, value) = rest.split_once(" = ").unwrap_or_else(|| panic!("{place}: let name = text"));
                texts.insert(name.to_owned(), value.to_owned());
            }
            (_, None) => {
                let name = format!("{place}: {line}");
                open = Some(Case { name, steps: Vec::new(), answers: Vec::new(), end: End::Ends });
            }
            (">", Some(case)) => {
                let bytes = unescape(&expand(rest, &texts), &place);
                match case.steps.last_mut() {
                    Some(Step::Send(before)) => before.extend(bytes),
                    _ => case.steps.push(Step::Send(bytes)),
                }
            }
            ("<", Some(case)) => case.steps.push(Step::Await(rest.parse().expect("a status"))),
            ("!", Some(case)) => case.steps.push(Step::End),
            ("=", Some(_)) => {
                let mut case = open.take().expect("it is open");
                let (answers, end) = rest.rsplit_once(' ').unwrap_or_else(|| panic!("{place}: answers and the end"));
                case.end = match end {
                    "lives" => End::Lives,
                    "closes" => End::Closes,
                    "ends" => End::Ends,
                    _ => panic!("{place}: lives, closes or ends"),
                };
                case.answers = answers.split(' ').filter(|word| *word != "nothing").map(expected).collect();
                cases.push(case);
            }
            _ => panic!("{place}: {line:?} is none of the lines of a case"),
        }
    }
    assert!(open.is_none(), "{stem}.txt: the last case has no answers");
    cases
}

fn expected(word: &str) -> Expected {
    let number = word.trim_end_matches('-');
    Expected { status: number.parse().unwrap_or_else(|_| panic!("{word} is no status")), has_body: number == word }
}

/// Puts texts in the place of their names, from the inside of `${3*${name}}` outwards.
fn expand(line: &str, texts: &BTreeMap<String, String>) -> String {
    let mut line = line.to_owned();
    while let Some(start) = line.rfind("${") {
        let length = line[start..].find('}').expect("${ has an end");
        let inside = &line[start + 2..start + length];
        let text = match inside.split_once('*').map(|(count, text)| (count.parse(), text)) {
            Some((Ok(count), text)) => text.repeat(count),
            _ => texts.get(inside).unwrap_or_else(|| panic!("no text is called {inside}")).clone(),
        };
        line.replace_range(start..=start + length, &text);
    }
    line
}

fn unescape(text: &str, place: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits = [rest.next(), rest.next()].map(|digit| char::from(digit.unwrap_or(b'?')));
                let digits: String = digits.iter().collect();
                u8::from_str_radix(&digits, 16).unwrap_or_else(|_| panic!("{place}: \\x{digits}"))
            }
            other => panic!("{place}: \\{other:?} is no escape"),
        });
    }
    bytes
}

#[test]
fn the_notation_means_what_its_description_says() {
    let texts = BTreeMap::from([("A".to_owned(), "a\\r".to_owned())]);
    assert_eq!(unescape(&expand("${A}\\n\\t\\0\\\\\\x7f${3*xy}", &texts), "here"), b"a\r\n\t\0\\\x7fxyxyxy");
    assert_eq!(unescape(&expand("${2*${A}}", &texts), "here"), b"a\ra\r");
}
