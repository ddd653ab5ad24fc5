//! Calls that take several requests of their client, since they ask it something (2026-07-28, multi round-trip requests).
//!
//! Such a call runs once, on a thread of its own. When it asks, the request is answered with `input_required` and the call
//! is parked; the client repeats the request with its answers and the state that we gave it, and the call goes on. The
//! state is a random number under which the call is found: there is nothing in it to be forged, and it is good for one
//! repeat of the request that it was given for.
//!
//! **Invariant**: a parked call is taken by one request, which is the same as the one that began it. A call ends at its own
//! deadline, whoever comes or does not, and with its client's connection while one serves it.
//! **Thread**: `call-*`, one a call, runs it; the connection's serves its client.
//! **Bounds**: `PARKED_CALLS_MAX`, the call's deadline, `PARKED_ANSWER_KEPT`, and those of `desk.rs` and `line.rs`.
//! Left out on purpose: parked calls of other processes; a client whose process has gone begins anew.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::deadline::Deadline;
use crate::endpoint::asking::Asker;
use crate::endpoint::calls::{Canceller, Ticket};
use crate::endpoint::desk::Desk;
use crate::endpoint::line::{Event, Line, Next};
use crate::endpoint::outlet::{Aside, Outlet, Progress};
use crate::endpoint::params::{read, read_call};
use crate::endpoint::service::{Answer, Asking, Call, Failure, Payload};
use crate::endpoint::{Endpoint, tasks};
use crate::hash::fnv64;
use crate::json;
use crate::jsonrpc::{self, ErrorObject, INTERNAL_ERROR, Message};
use crate::limits::PARKED_CALLS_MAX;
use crate::mcp::params::LoggingMessageParams;
use crate::mcp::tasks::{TaskUse, extension_missing};
use crate::mcp::{ClientCapabilities, LogLevel, MISSING_CLIENT_CAPABILITY, RawObject};
use crate::os;
use crate::worker;

/// The parked calls.
#[derive(Default)]
pub struct Rounds {
    parked: Mutex<HashMap<u128, Arc<Round>>>,
}

/// A call is over and nobody came for its answer, or there is no room for another one.
struct NotKept;

/// One call.
pub struct Round {
    /// Of what the repeated request must repeat.
    digest: u64,
    desk: Desk,
    line: Line<Answer>,
    canceller: Canceller,
    /// Its thread has ended. Looked at under the lock of the parked ones, so that none stays there for ever.
    is_over: AtomicBool,
}

/// Ends the call with the request that serves it, unless it is parked: nobody would come again.
struct Attending<'r>(&'r Round);

impl Drop for Attending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What a request that repeats another one has more.
#[derive(Default)]
struct Again {
    state: Option<String>,
    responses: RawObject,
}

/// What the client of the present request wants to hear.
struct Listener {
    progress: Progress,
    log_level: Option<LogLevel>,
}

#[derive(Deserialize)]
struct Failed {
    #[serde(default, rename = "isError")]
    is_error: bool,
}

impl Endpoint {
    /// Serves a request of the stateless revision whose call may ask its client, who offers this.
    pub(super) fn modern_call(
        &self,
        method: &str,
        params: Option<&RawValue>,
        capabilities: &Map<String, Value>,
        outlet: &mut Outlet<'_, '_>,
    ) -> Answer {
        let again = Again::read(params)?;
        // There is no message to cancel a call: its client closes the connection, which is watched.
        let ticket = Ticket::untracked();
        let mut call = read_call(method, params, &ticket, Deadline::after(self.call_timeout))?;
        call.is_modern = true;
        call.tasks = tasks::extension_use(capabilities);
        if call.method.is_about_task() && matches!(call.tasks, TaskUse::Extension { declared: false, .. }) {
            return Err(extension_missing().into());
        }
        let client = ClientCapabilities::from(capabilities);
        let listener = Listener { progress: call.progress(), log_level: call.log_level };
        if let Some((handle, round)) = again.state.as_deref().and_then(|state| self.rounds.take(state)) {
            return self.rounds.go_on(handle, &round, digest(&call), &again.responses, listener, outlet);
        }
        let asking = self.service.asking(&call);
        if again.state.is_some() && asking != Asking::Elsewhere {
            return Err(unknown_state().into());
        }
        if asking == Asking::Here && client != ClientCapabilities::NONE {
            let round = self.begin(method, params, &call, Desk::new(client, again.responses))?;
            return self.rounds.serve(&round, listener, outlet);
        }
        let desk = Desk::new(ClientCapabilities::NONE, RawObject::new());
        call.asker = Some(Asker::Desk(&desk));
        with_lack(self.service.call(&call, outlet), desk.lacks())
    }

    /// Starts a call on a thread of its own.
    fn begin(
        &self,
        method: &str,
        params: Option<&RawValue>,
        first: &Call<'_>,
        desk: Desk,
    ) -> Result<Arc<Round>, ErrorObject> {
        let failed = |error: io::Error| ErrorObject::new(INTERNAL_ERROR, format!("the call cannot be begun: {error}"));
        let (ticket, digest, tasks) = (Ticket::untracked(), digest(first), first.tasks.clone());
        let (line, canceller, is_over) = (Line::new().map_err(failed)?, ticket.canceller(), AtomicBool::new(false));
        let round = Arc::new(Round { digest, desk, line, canceller, is_over });
        let (method, params) = (method.to_owned(), params.map(ToOwned::to_owned));
        let deadline = Deadline::after(self.call_timeout);
        let (running, service, rounds) = (Arc::clone(&round), Arc::clone(&self.service), Arc::clone(&self.rounds));
        let name = format!("call-{:04x}", digest & 0xffff);
        let run = move || {
            let call = || -> Answer {
                let mut call = read_call(&method, params.as_deref(), &ticket, deadline)?;
                call.asker = Some(Asker::Desk(&running.desk));
                (call.is_modern, call.tasks) = (true, tasks);
                service.call(&call, &mut Outlet::aside(&*running))
            };
            running.line.end(call());
            rounds.forget(&running);
        };
        worker::spawn(&name, run).map_err(failed)?;
        Ok(round)
    }
}

impl Rounds {
    /// Goes on with a call that was parked.
    fn go_on(
        &self,
        handle: u128,
        round: &Arc<Round>,
        digest: u64,
        responses: &RawObject,
        listener: Listener,
        outlet: &mut Outlet<'_, '_>,
    ) -> Answer {
        // Before the answers are given: what the call says to them is for this request.
        round.line.attend();
        let is_same = if round.digest == digest { Ok(()) } else { Err(unknown_state()) };
        if let Err(error) = is_same.and_then(|()| round.desk.answer(responses)) {
            // The client may do better with the same state. If it cannot be kept, its next request is told so.
            round.line.park();
            let _ = self.keep(handle, round);
            return Err(error.into());
        }
        if round.desk.is_waiting() { self.park(round) } else { self.serve(round, listener, outlet) }
    }

    /// Hands on what a call tells, until it ends or asks.
    fn serve(&self, round: &Arc<Round>, mut listener: Listener, outlet: &mut Outlet<'_, '_>) -> Answer {
        let attending = Attending(round);
        loop {
            let told = match round.line.next(outlet.socket(), outlet.keep_alive_due()) {
                Ok(Next::Event(Event::Message(message))) => {
                    listener.told(message).map_or(Ok(()), |message| outlet.notify(&message))
                }
                Ok(Next::Event(Event::Asks)) if round.desk.is_waiting() => {
                    std::mem::forget(attending);
                    return self.park(round);
                }
                Ok(Next::Event(Event::Asks)) => Ok(()),
                Ok(Next::Event(Event::Ends(answer))) => return with_lack(answer, round.desk.lacks()),
                Ok(Next::Quiet) => outlet.keep_alive(&mut listener.progress),
                Ok(Next::ClientGone) => Err(io::ErrorKind::ConnectionAborted.into()),
                Err(error) => Err(error),
            };
            if told.is_err() {
                return Err(Failure::Cancelled);
            }
        }
    }

    /// Answers with what the call asks, and keeps it for the client's next request.
    fn park(&self, round: &Arc<Round>) -> Answer {
        round.line.park();
        let handle = u128::from_be_bytes(os::random_bytes::<16>());
        if let Err(NotKept) = self.keep(handle, round) {
            round.end();
            let text = "too many calls wait for what their clients answer; try again later";
            return Err(ErrorObject::new(INTERNAL_ERROR, text).into());
        }
        let (requests, state) = (round.desk.requests(), format!(r#","requestState":"{handle:032x}"}}"#));
        let head = br#"{"resultType":"input_required","inputRequests":"#;
        Ok(Payload::Typed([head, requests.as_slice(), state.as_bytes()].concat()))
    }

    /// The call to which a state belongs, for this request alone.
    fn take(&self, state: &str) -> Option<(u128, Arc<Round>)> {
        let handle = u128::from_str_radix(state, 16).ok().filter(|handle| format!("{handle:032x}") == state)?;
        Some((handle, self.lock().remove(&handle)?))
    }

    fn keep(&self, handle: u128, round: &Arc<Round>) -> Result<(), NotKept> {
        let mut parked = self.lock();
        if parked.len() >= PARKED_CALLS_MAX || round.is_over.load(Ordering::Relaxed) {
            return Err(NotKept);
        }
        parked.insert(handle, Arc::clone(round));
        Ok(())
    }

    /// The call has ended, and nobody came for its answer.
    fn forget(&self, round: &Arc<Round>) {
        let mut parked = self.lock();
        round.is_over.store(true, Ordering::Relaxed);
        parked.retain(|_, parked| !Arc::ptr_eq(parked, round));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Arc<Round>>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    /// Nobody will hear of this call again.
    fn end(&self) {
        self.line.close();
        self.canceller.cancel();
    }
}

impl Aside for Round {
    fn say(&self, message: &[u8]) -> io::Result<()> {
        self.line.say(message)
    }

    fn settle(&self) {
        if self.desk.has_news() {
            self.line.ask();
        }
    }
}

impl Again {
    fn read(params: Option<&RawValue>) -> Result<Again, ErrorObject> {
        let Some(params) = params.filter(|params| {
            let text = params.get();
            text.contains("\"requestState\"") || text.contains("\"inputResponses\"")
        }) else {
            return Ok(Again::default());
        };
        let members: RawObject = read(Some(params))?;
        let wrong = |what: &str| ErrorObject::invalid_params(what.to_owned());
        let state = members.get("requestState").map(|state| serde_json::from_str(state.get()));
        let responses = members.get("inputResponses").map(|responses| serde_json::from_str(responses.get()));
        Ok(Again {
            state: state.transpose().map_err(|_| wrong("requestState must be the string that was given"))?,
            responses: responses
                .transpose()
                .map_err(|_| wrong("inputResponses must be an object of answers by the keys of inputRequests"))?
                .unwrap_or_default(),
        })
    }
}

impl Listener {
    /// A message of the call as this client hears it, if it does: its request may have another token than the first one.
    fn told(&mut self, message: Vec<u8>) -> Option<Vec<u8>> {
        let text = String::from_utf8_lossy(&message);
        let Ok(Message::Notification { method, params }) = jsonrpc::parse_one(&text) else { return None };
        let params = params.map_or("{}", RawValue::get);
        match &*method {
            "notifications/progress" => self.progress.relay(params),
            "notifications/message" => {
                let level = serde_json::from_str::<LoggingMessageParams>(params).ok()?.level;
                self.log_level.is_some_and(|least| level >= least).then_some(message)
            }
            // The others concern questions on a stream, of which this revision has none.
            _ => None,
        }
    }
}

/// Of what a repeated request must repeat. One forged to have the same digest goes on with its own call all the same.
fn digest(call: &Call<'_>) -> u64 {
    let arguments: Value = serde_json::from_str(call.arguments.unwrap_or("{}")).unwrap_or_default();
    fnv64(json!([call.method.as_str(), call.name, arguments]).to_string().as_bytes())
}

fn unknown_state() -> ErrorObject {
    let text = "this requestState is unknown here: it has been used, has expired, or was given for another request; \
        call again without it";
    ErrorObject::invalid_params(text)
}

/// What a client would have to offer for its request to be served.
pub fn lacking(needed: ClientCapabilities) -> ErrorObject {
    let text = format!("this needs a client that offers {}", needed.in_words());
    ErrorObject::new(MISSING_CLIENT_CAPABILITY, text).with_data(json!({"requiredCapabilities": needed.declared()}))
}

/// A call that failed after it was refused a question says what its client would have to offer.
fn with_lack(answer: Answer, lacks: ClientCapabilities) -> Answer {
    let has_failed = || match &answer {
        Ok(result) => json::read::<Failed>(result.as_bytes()).is_ok_and(|result| result.is_error),
        Err(Failure::Error(_)) => true,
        Err(Failure::Cancelled) => false,
    };
    if lacks == ClientCapabilities::NONE || !has_failed() {
        return answer;
    }
    Err(lacking(lacks).into())
}
