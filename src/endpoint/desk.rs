//! Questions of one call whose client answers them with its next request (2026-07-28, multi round-trip requests).
//!
//! **Invariant**: a client is asked only for what this request said that it offers, and each question gets one answer. The
//! keys of open questions differ. What a client answers has the form of an answer to that question.
//! **Thread**: that of the call asks, that of a request answers.
//! **Bounds**: `QUESTIONS_PER_CALL_MAX`, kept by `asking.rs`; the size of a request bounds its answers.
//! Left out on purpose: which requests belong together (`rounds.rs`); whether an answer fits the schema of its question,
//! which is for whoever asked.

use std::io::{PipeWriter, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::jsonrpc::{self, ErrorObject};
use crate::mcp::{ClientCapabilities, RawObject};

pub struct Desk {
    client: ClientCapabilities,
    inner: Mutex<Inner>,
}

/// JSON text: the `result`, or the `error`.
pub type Answer = Result<Vec<u8>, Vec<u8>>;

/// Where the answers to the questions of one call go.
#[derive(Clone)]
pub struct Waiting {
    pub answers: Sender<(u64, Answer)>,
    pub wake: Arc<PipeWriter>,
}

struct Inner {
    open: Vec<Question>,
    count: u64,
    /// A question that no client has seen yet.
    has_news: bool,
    /// Answers that came with the request itself, before their questions.
    early: RawObject,
    /// What was asked for and is not offered.
    lacks: ClientCapabilities,
}

struct Question {
    number: u64,
    key: String,
    method: String,
    params: Box<RawValue>,
    waiting: Waiting,
}

/// One of `inputRequests`.
#[derive(Serialize)]
struct InputRequest<'a> {
    method: &'a str,
    params: &'a RawValue,
}

impl Waiting {
    pub fn give(&self, number: u64, answer: Answer) {
        // The queue has room for every question of the call; whoever has stopped waiting needs no answer.
        let _ = self.answers.try_send((number, answer));
        let _ = (&*self.wake).write(&[0]);
    }
}

impl Desk {
    /// For a client that offers this, and has answered some questions before they are asked.
    pub fn new(client: ClientCapabilities, early: RawObject) -> Desk {
        let inner = Inner { open: Vec::new(), count: 0, has_news: false, early, lacks: ClientCapabilities::NONE };
        Desk { client, inner: Mutex::new(inner) }
    }

    pub fn client(&self) -> ClientCapabilities {
        self.client
    }

    /// Notes a question; `false` where the client does not offer what it needs.
    pub fn offers(&self, needed: ClientCapabilities) -> bool {
        let has = self.client.contains(needed);
        if !has {
            let mut inner = self.lock();
            inner.lacks = inner.lacks.union(needed);
        }
        has
    }

    /// What was asked for and not offered.
    pub fn lacks(&self) -> ClientCapabilities {
        self.lock().lacks
    }

    /// Takes a question; `id` is the JSON text of the asker's own id for it, which becomes its key.
    pub fn ask(&self, id: &str, method: &str, params: &str, waiting: Waiting) -> Result<u64, ErrorObject> {
        let unreadable = |error| ErrorObject::invalid_params(format!("these params cannot be read: {error}"));
        let params = match serde_json::from_str(params) {
            Ok(value) => to_raw_value(&without_elicitation_id(value)),
            Err(error) => Err(error),
        };
        let params = params.map_err(unreadable)?;
        let mut inner = self.lock();
        inner.count += 1;
        let number = inner.count;
        let key = inner.free_key(serde_json::from_str::<String>(id).unwrap_or_else(|_| id.to_owned()));
        if let Some(answer) = inner.early.remove(&key).filter(|answer| is_answer(method, answer)) {
            waiting.give(number, Ok(answer.get().as_bytes().to_vec()));
        } else {
            inner.open.push(Question { number, key, method: method.to_owned(), params, waiting });
            inner.has_news = true;
        }
        Ok(number)
    }

    /// Nobody needs the answer any more; false where it has come already.
    pub fn withdraw(&self, number: u64) -> bool {
        let mut inner = self.lock();
        let before = inner.open.len();
        inner.open.retain(|question| question.number != number);
        inner.open.len() < before
    }

    /// Whether there is a question that the client has not seen.
    pub fn has_news(&self) -> bool {
        let inner = self.lock();
        inner.has_news && !inner.open.is_empty()
    }

    /// Whether any question waits for its answer.
    pub fn is_waiting(&self) -> bool {
        !self.lock().open.is_empty()
    }

    /// Takes answers by their keys: all of them, or none where one has not the form of an answer. Others are passed over.
    pub fn answer(&self, responses: &RawObject) -> Result<(), ErrorObject> {
        let mut inner = self.lock();
        for question in &inner.open {
            if responses.get(&question.key).is_some_and(|answer| !is_answer(&question.method, answer)) {
                let text = format!("inputResponses.{} is no result of {}", question.key, question.method);
                return Err(ErrorObject::invalid_params(text));
            }
        }
        inner.open.retain(|question| match responses.get(&question.key) {
            Some(answer) => {
                question.waiting.give(question.number, Ok(answer.get().as_bytes().to_vec()));
                false
            }
            None => true,
        });
        Ok(())
    }

    /// `inputRequests`: all that is open, as JSON text. The client is taken to know of it from now on.
    pub fn requests(&self) -> Vec<u8> {
        let mut inner = self.lock();
        inner.has_news = false;
        let requests = inner.open.iter().filter_map(|Question { key, method, params, .. }| {
            Some((key.clone(), to_raw_value(&InputRequest { method, params }).ok()?))
        });
        jsonrpc::to_bytes(&requests.collect::<RawObject>())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn free_key(&self, wanted: String) -> String {
        let is_free = |key: &String| self.open.iter().all(|question| question.key != *key);
        let other = || (2..).map(|number| format!("{wanted}-{number}")).find(is_free);
        if is_free(&wanted) { wanted } else { other().unwrap_or_default() }
    }
}

/// Params of a question for a URL as this revision has them: it took the id away.
pub fn without_elicitation_id(mut params: Value) -> Value {
    if params.get("mode").and_then(Value::as_str) == Some("url")
        && let Some(members) = params.as_object_mut()
    {
        members.remove("elicitationId");
    }
    params
}

/// Whether this is a result of such a request, as far as every result of it is alike.
fn is_answer(method: &str, answer: &RawValue) -> bool {
    // Read through: half characters would go to scripts that cannot read them.
    let Ok(Value::Object(members)) = serde_json::from_str(answer.get()) else { return false };
    let has = |name: &str, is: fn(&Value) -> bool| members.get(name).is_some_and(is);
    match method {
        "elicitation/create" => match members.get("action").and_then(Value::as_str) {
            Some("accept") => members.get("content").is_none_or(Value::is_object),
            Some("decline" | "cancel") => true,
            _ => false,
        },
        "sampling/createMessage" => has("role", Value::is_string) && members.contains_key("content"),
        "roots/list" => has("roots", Value::is_array),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use crossbeam_channel::{Receiver, bounded};

    use super::*;

    const ALL: ClientCapabilities = ClientCapabilities {
        roots: true,
        sampling: true,
        sampling_tools: true,
        elicitation: true,
        elicitation_url: true,
    };

    fn waiting() -> (Waiting, Receiver<(u64, Answer)>) {
        let (answers, taken) = bounded(16);
        let (_, wake) = io::pipe().expect("a pipe");
        (Waiting { answers, wake: Arc::new(wake) }, taken)
    }

    fn object(text: &str) -> RawObject {
        serde_json::from_str(text).expect("an object")
    }

    fn requests(desk: &Desk) -> Value {
        serde_json::from_slice(&desk.requests()).expect("it is JSON")
    }

    #[test]
    fn answers_find_their_questions_by_key() {
        let desk = Desk::new(ALL, RawObject::new());
        let (waiting, taken) = waiting();
        let url = without_elicitation_id(serde_json::json!({"mode": "url", "url": "u", "elicitationId": "e"}));
        assert_eq!(url, serde_json::json!({"mode": "url", "url": "u"}));
        for (id, method) in [("\"name\"", "elicitation/create"), ("7", "roots/list"), ("\"7\"", "roots/list")] {
            desk.ask(id, method, r#"{"message":"?"}"#, waiting.clone()).expect("it is asked");
        }
        assert!(desk.has_news() && desk.is_waiting());
        let asked = requests(&desk);
        assert_eq!(asked["name"], serde_json::json!({"method": "elicitation/create", "params": {"message": "?"}}));
        assert!(asked.get("7").is_some() && asked.get("7-2").is_some(), "{asked}");
        assert!(!desk.has_news() && desk.is_waiting());
        desk.answer(&object(r#"{"other":1,"7":{"roots":[]}}"#)).expect("it is taken");
        assert_eq!(taken.try_recv(), Ok((2, Ok(br#"{"roots":[]}"#.to_vec()))));
        assert!(taken.try_recv().is_err() && desk.is_waiting() && !desk.has_news());
        assert_eq!(requests(&desk).as_object().map(|open| open.len()), Some(2), "what is missing is asked again");
        assert!(desk.withdraw(1) && !desk.withdraw(1) && !desk.withdraw(2));
        desk.answer(&object(r#"{"name":{"action":"accept"},"7-2":{"roots":[1]}}"#)).expect("it is taken");
        assert_eq!(taken.try_recv().map(|(number, _)| number), Ok(3));
        assert!(taken.try_recv().is_err() && !desk.is_waiting());
    }

    #[test]
    fn what_is_no_answer_is_refused_as_a_whole() {
        for (method, good, bad) in [
            (
                "elicitation/create",
                &[r#"{"action":"accept","content":{"a":1}}"#, r#"{"action":"cancel"}"#, r#"{"action":"accept"}"#][..],
                &["12345", "null", "{}", r#"{"action":"maybe"}"#, r#"{"action":"accept","content":[]}"#][..],
            ),
            (
                "sampling/createMessage",
                &[r#"{"role":"assistant","content":{"type":"text","text":"x"},"model":"m"}"#],
                &["[]", r#"{"content":{}}"#, r#"{"role":"assistant"}"#],
            ),
            ("roots/list", &[r#"{"roots":[]}"#], &[r#"{"roots":{}}"#, r#"{"roots":["\ud800"]}"#]),
        ] {
            for (answer, is_good) in good.iter().map(|text| (text, true)).chain(bad.iter().map(|text| (text, false))) {
                let desk = Desk::new(ALL, RawObject::new());
                let (waiting, taken) = waiting();
                for id in ["\"a\"", "\"b\""] {
                    desk.ask(id, method, "{}", waiting.clone()).expect("it is asked");
                }
                let given = object(&format!(r#"{{"a":{},"b":{answer}}}"#, good[0]));
                assert_eq!(desk.answer(&given).is_ok(), is_good, "{method} {answer}");
                assert_eq!(taken.len(), if is_good { 2 } else { 0 }, "{method} {answer}");
            }
        }
    }

    #[test]
    fn an_answer_may_come_before_its_question() {
        let early = object(r#"{"a":{"roots":[]},"b":12345,"c":{"roots":[]}}"#);
        let desk = Desk::new(ALL, early);
        let (waiting, taken) = waiting();
        desk.ask("\"a\"", "roots/list", "{}", waiting.clone()).expect("it is asked");
        assert_eq!(taken.try_recv(), Ok((1, Ok(br#"{"roots":[]}"#.to_vec()))));
        desk.ask("\"a\"", "roots/list", "{}", waiting.clone()).expect("it is asked");
        desk.ask("\"b\"", "roots/list", "{}", waiting).expect("it is asked");
        assert!(taken.try_recv().is_err(), "each is used once, and only as what it is");
        assert_eq!(requests(&desk).as_object().map(|open| open.len()), Some(2));
    }

    #[test]
    fn what_is_not_offered_is_remembered() {
        let desk = Desk::new(ClientCapabilities { roots: true, ..ClientCapabilities::NONE }, RawObject::new());
        let sampling = ClientCapabilities { sampling: true, ..ClientCapabilities::NONE };
        assert!(desk.offers(ClientCapabilities { roots: true, ..ClientCapabilities::NONE }));
        assert_eq!(desk.lacks(), ClientCapabilities::NONE);
        assert!(!desk.offers(sampling));
        assert_eq!(desk.lacks(), sampling);
    }
}
