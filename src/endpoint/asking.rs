//! Questions to clients while their calls run (sampling, elicitation, roots), and the answers, which come on another
//! connection: from the session that made the call, or with its next request (`desk.rs`).
//!
//! **Invariant**: only the session that was asked can answer, once. A client is asked only for what it said that it
//! offers, in its `initialize` or its request. No question outlives its call.
//! **Thread**: the connection's; an answer is handed over by a queue and a pipe that wakes whoever waits.
//! **Bounds**: `QUESTIONS_PER_CALL_MAX`, `QUESTIONS_MAX`. How long is waited is the call's matter.
//! Left out on purpose: answers that arrive at another process than asked; the stream they belong to is here.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::endpoint::desk::{Answer, Desk, Waiting};
use crate::jsonrpc::{self, ErrorObject, INTERNAL_ERROR, METHOD_NOT_FOUND};
use crate::limits::{QUESTIONS_MAX, QUESTIONS_PER_CALL_MAX};
use crate::mcp::ClientCapabilities;
use crate::os;

/// The questions of all calls.
pub struct AskTable {
    open: Mutex<HashMap<Key, Waiting>>,
    /// Ids of questions never repeat within a session, whichever processes asked them.
    process: u64,
    count: AtomicU64,
}

/// How the client of one call can be asked.
#[derive(Clone, Copy)]
pub enum Asker<'t> {
    /// On the stream of the call; the answer is a message of its own.
    Stream { table: &'t AskTable, session: u128, client: ClientCapabilities },
    /// In the answer to the request; the answers come with the next one.
    Desk(&'t Desk),
}

/// The questions of one call.
pub struct Questions<'t> {
    asker: Option<Asker<'t>>,
    inbox: Option<Inbox>,
}

/// Session and number.
type Key = (u128, u64);

struct Inbox {
    answers: Receiver<(u64, Answer)>,
    sender: Sender<(u64, Answer)>,
    wake: PipeReader,
    waker: Arc<PipeWriter>,
    open: Vec<u64>,
}

impl AskTable {
    #[allow(clippy::new_without_default, reason = "it draws a random number")]
    pub fn new() -> AskTable {
        let process = u64::from_be_bytes(os::random_bytes::<8>());
        AskTable { open: Mutex::default(), process, count: AtomicU64::new(0) }
    }

    /// Takes a client's response; one to a question that nobody asked, or that was answered before, is passed over.
    pub fn answer(&self, session: u128, id: &str, result: Result<&RawValue, &RawValue>) {
        let Some(number) = self.number(id) else { return };
        let Some(waiting) = lock(&self.open).remove(&(session, number)) else { return };
        let text = |raw: &RawValue| raw.get().as_bytes().to_vec();
        waiting.give(number, result.map(text).map_err(text));
    }

    fn ask(&self, session: u128, waiting: Waiting) -> Result<u64, ErrorObject> {
        let mut open = lock(&self.open);
        if open.len() >= QUESTIONS_MAX {
            return Err(too_many());
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        open.insert((session, number), waiting);
        Ok(number)
    }

    /// The id of a question, as JSON text.
    fn id(&self, number: u64) -> String {
        format!("\"{:x}.{number:x}\"", self.process)
    }

    fn number(&self, id: &str) -> Option<u64> {
        let (_, number) = id.strip_prefix('"')?.strip_suffix('"')?.split_once('.')?;
        let number = u64::from_str_radix(number, 16).ok()?;
        (self.id(number) == id).then_some(number)
    }
}

impl<'t> Questions<'t> {
    pub fn new(asker: Option<Asker<'t>>) -> Questions<'t> {
        Questions { asker, inbox: None }
    }

    /// Asks; `id` is the JSON text of the asker's own id. Gives the number under which `answer` will give the answer, and
    /// the request to be written to the client, if it is asked on its stream.
    pub fn begin(&mut self, id: &str, method: &str, params: &str) -> Result<(u64, Option<Vec<u8>>), ErrorObject> {
        // Read for half characters too, which clients could not read.
        let value: Value = serde_json::from_str(params)
            .map_err(|error| ErrorObject::invalid_params(format!("these params cannot be read: {error}")))?;
        let needed = ClientCapabilities::needed_for(method, &value);
        let offers = |asker: &Asker<'t>| needed.is_some_and(|needed| asker.offers(needed));
        let asker = self.asker.filter(offers).ok_or_else(|| not_offered(method))?;
        let failed = |error: io::Error| ErrorObject::new(INTERNAL_ERROR, format!("no question can be asked: {error}"));
        let inbox = match &mut self.inbox {
            Some(inbox) => inbox,
            None => self.inbox.insert(Inbox::new().map_err(failed)?),
        };
        if inbox.open.len() >= QUESTIONS_PER_CALL_MAX {
            return Err(too_many());
        }
        let waiting = Waiting { answers: inbox.sender.clone(), wake: Arc::clone(&inbox.waker) };
        let (number, request) = match asker {
            Asker::Desk(desk) => (desk.ask(id, method, params, waiting)?, None),
            Asker::Stream { table, session, .. } => {
                let number = table.ask(session, waiting)?;
                let id = table.id(number);
                let params = with_elicitation_id(params, value);
                let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
                (number, Some(text.into_bytes()))
            }
        };
        inbox.open.push(number);
        Ok((number, request))
    }

    /// Readable once `answer` has an answer.
    pub fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.inbox.as_ref().map(|inbox| inbox.wake.as_fd())
    }

    /// An answer that has come.
    pub fn answer(&mut self) -> Option<(u64, Answer)> {
        let inbox = self.inbox.as_mut()?;
        let again = |_| {
            // The pipe is emptied before the queue is looked at once more, so that no answer goes unnoticed.
            let _ = (&inbox.wake).read(&mut [0; QUESTIONS_PER_CALL_MAX]);
            inbox.answers.try_recv()
        };
        let (number, answer) = inbox.answers.try_recv().or_else(again).ok()?;
        inbox.open.retain(|open| *open != number);
        Some((number, answer))
    }

    /// Ends one question; gives a notification for the client, unless it has answered already.
    pub fn withdraw(&mut self, number: u64) -> Option<Vec<u8>> {
        let (asker, inbox) = (self.asker?, self.inbox.as_mut()?);
        inbox.open.retain(|open| *open != number);
        let (table, session) = match asker {
            Asker::Stream { table, session, .. } => (table, session),
            Asker::Desk(desk) => {
                desk.withdraw(number);
                return None;
            }
        };
        lock(&table.open).remove(&(session, number))?;
        let id = table.id(number);
        let params = format!(r#"{{"requestId":{id},"reason":"the answer is not needed any more"}}"#);
        Some(jsonrpc::notification("notifications/cancelled", Some(params.as_bytes())))
    }

    /// Ends all questions; gives a notification for each that the client need not answer any more.
    pub fn close(&mut self) -> Vec<Vec<u8>> {
        let open = self.inbox.as_ref().map(|inbox| inbox.open.clone()).unwrap_or_default();
        let messages = open.into_iter().filter_map(|number| self.withdraw(number)).collect();
        self.inbox = None;
        messages
    }
}

impl Drop for Questions<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inbox {
    fn new() -> io::Result<Inbox> {
        let (answers, (wake, waker)) = (bounded(QUESTIONS_PER_CALL_MAX), io::pipe()?);
        rustix::io::ioctl_fionbio(&wake, true)?;
        rustix::io::ioctl_fionbio(&waker, true)?;
        Ok(Inbox { sender: answers.0, answers: answers.1, wake, waker: Arc::new(waker), open: Vec::new() })
    }
}

/// Whether a client that offers this can be asked such a thing; `None`: there is no client.
pub fn check(client: Option<ClientCapabilities>, method: &str, params: &str) -> Result<(), ErrorObject> {
    // Read for half characters too, which clients could not read.
    let value: Value = serde_json::from_str(params)
        .map_err(|error| ErrorObject::invalid_params(format!("these params cannot be read: {error}")))?;
    let needed = ClientCapabilities::needed_for(method, &value);
    let is_offered = client.zip(needed).is_some_and(|(client, needed)| client.contains(needed));
    if is_offered { Ok(()) } else { Err(not_offered(method)) }
}

impl Asker<'_> {
    /// What the client offers.
    pub fn client(&self) -> ClientCapabilities {
        match self {
            Asker::Stream { client, .. } => *client,
            Asker::Desk(desk) => desk.client(),
        }
    }

    /// Whether the client wants to hear that its user is back from a URL (2025-11-25).
    pub fn hears_of_urls(&self) -> bool {
        matches!(self, Asker::Stream { client, .. } if client.elicitation_url)
    }

    fn offers(&self, needed: ClientCapabilities) -> bool {
        match self {
            Asker::Stream { client, .. } => client.contains(needed),
            Asker::Desk(desk) => desk.offers(needed),
        }
    }
}

/// On a stream the question for a URL needs an id (2025-11-25), which 2026-07-28 does not have.
fn with_elicitation_id(params: &str, mut value: Value) -> Cow<'_, str> {
    if value.get("mode").and_then(Value::as_str) != Some("url") || value.get("elicitationId").is_some() {
        return Cow::Borrowed(params);
    }
    value["elicitationId"] = format!("{:032x}", u128::from_be_bytes(os::random_bytes::<16>())).into();
    Cow::Owned(value.to_string())
}

fn too_many() -> ErrorObject {
    ErrorObject::new(INTERNAL_ERROR, "too many questions wait for their answers; try again later")
}

fn not_offered(method: &str) -> ErrorObject {
    let what = match method {
        "roots/list" => "roots",
        "sampling/createMessage" => "sampling of this kind",
        "elicitation/create" => "elicitation of this kind",
        _ => "such a method",
    };
    ErrorObject::new(METHOD_NOT_FOUND, format!("the client offers no {what}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    const ALL: ClientCapabilities =
        ClientCapabilities { roots: true, sampling: true, elicitation: true, ..ClientCapabilities::NONE };

    fn is_awake(questions: &Questions<'_>) -> bool {
        let fd = questions.wake().expect("something was asked");
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&at_once)) == Ok(1)
    }

    fn id_of(request: &[u8]) -> String {
        let value: Value = serde_json::from_slice(request).expect("a request is JSON");
        value["id"].to_string()
    }

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).expect("it is JSON")
    }

    #[track_caller]
    fn begin(questions: &mut Questions<'_>, method: &str, params: &str) -> (u64, Vec<u8>) {
        let (number, request) = questions.begin("1", method, params).expect("it is asked");
        (number, request.expect("on the stream"))
    }

    #[test]
    fn only_who_was_asked_answers_and_only_once() {
        let table = AskTable::new();
        let mut questions = Questions::new(Some(Asker::Stream { table: &table, session: 1, client: ALL }));
        assert!(questions.wake().is_none() && questions.answer().is_none());
        let (first, request) = begin(&mut questions, "elicitation/create", r#"{"message":"?"}"#);
        let (second, other) = begin(&mut questions, "roots/list", "{}");
        let text = String::from_utf8_lossy(&request).into_owned();
        assert!(text.ends_with(r#","method":"elicitation/create","params":{"message":"?"}}"#), "{text}");
        table.answer(2, &id_of(&request), Ok(raw("{}")));
        table.answer(1, "7", Ok(raw("{}")));
        table.answer(1, "\"x.0\"", Ok(raw("{}")));
        assert!(!is_awake(&questions) && questions.answer().is_none());
        table.answer(1, &id_of(&other), Err(raw(r#"{"code":1}"#)));
        table.answer(1, &id_of(&request), Ok(raw(r#"{"a":1}"#)));
        table.answer(1, &id_of(&request), Ok(raw(r#"{"a":2}"#)));
        assert!(is_awake(&questions));
        assert_eq!(questions.answer(), Some((second, Err(br#"{"code":1}"#.to_vec()))));
        assert_eq!(questions.answer(), Some((first, Ok(br#"{"a":1}"#.to_vec()))));
        assert!(questions.answer().is_none() && !is_awake(&questions));
        assert!(questions.close().is_empty() && lock(&table.open).is_empty());
    }

    #[test]
    fn a_client_is_asked_for_what_it_offers() {
        let table = AskTable::new();
        let none = ClientCapabilities::NONE;
        let urls = ClientCapabilities { elicitation_url: true, ..none };
        for (client, method, params, is_asked) in [
            (Some(ALL), "sampling/createMessage", "{}", true),
            (Some(ALL), "sampling/createMessage", r#"{"tools":[]}"#, false),
            (Some(ALL), "elicitation/create", r#"{"mode":"form"}"#, true),
            (Some(ALL), "elicitation/create", r#"{"mode":"url"}"#, false),
            (Some(urls), "elicitation/create", r#"{"mode":"url"}"#, true),
            (Some(ALL), "roots/list", "{}", true),
            (Some(ALL), "ping", "{}", false),
            (Some(ALL), "roots/list", r#"{"x":"\ud800"}"#, false),
            (Some(none), "sampling/createMessage", "{}", false),
            (Some(none), "elicitation/create", "{}", false),
            (Some(none), "roots/list", "{}", false),
            (None, "roots/list", "{}", false),
        ] {
            let asker = client.map(|client| Asker::Stream { table: &table, session: 1, client });
            let asked = Questions::new(asker).begin("1", method, params);
            assert_eq!(asked.is_ok(), is_asked, "{method} {params}: {asked:?}");
        }
        assert!(lock(&table.open).is_empty(), "questions end with their call");
    }

    #[test]
    fn a_question_for_a_url_has_an_id_on_a_stream() {
        let of = |params: &str| -> Value {
            let value = serde_json::from_str(params).expect("it is JSON");
            serde_json::from_str(&with_elicitation_id(params, value)).expect("it is JSON")
        };
        assert_eq!(of(r#"{"mode":"url","url":"u"}"#)["elicitationId"].as_str().map(str::len), Some(32));
        for params in [r#"{"mode":"url","elicitationId":"own"}"#, r#"{"mode":"form"}"#, "{}"] {
            assert_eq!(of(params), serde_json::from_str::<Value>(params).expect("it is JSON"));
        }
    }

    #[test]
    fn questions_are_bounded_and_taken_back_at_the_end() {
        let table = AskTable::new();
        let mut questions = Questions::new(Some(Asker::Stream { table: &table, session: 1, client: ALL }));
        for _ in 0..QUESTIONS_PER_CALL_MAX {
            questions.begin("1", "roots/list", "{}").expect("there is room");
        }
        assert!(questions.begin("1", "roots/list", "{}").is_err());
        let last = questions.close();
        assert_eq!(last.len(), QUESTIONS_PER_CALL_MAX);
        let text = String::from_utf8_lossy(&last[0]).into_owned();
        assert!(text.contains("notifications/cancelled") && text.contains(&table.id(0)), "{text}");
    }
}
