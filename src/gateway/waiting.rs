//! Who waits for an instance, and what they are told meanwhile.
//!
//! **Invariant**: a client that waits is never left silent for long, and one that is gone is noticed at once. It hears
//! of its own call alone: progress, questions, and log messages of the level that it wants or above.
//! **Thread**: the connection's, or whichever the gateway itself waits on.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::deadline::Deadline;
use crate::endpoint::calls::Ticket;
use crate::endpoint::outlet::{Outlet, Progress};
use crate::endpoint::service::{Call, CallMethod};
use crate::gateway::modern::InputRequest;
use crate::gateway::relayed::{Asked, Relayed};
use crate::gateway::rewrite::error_message;
use crate::gateway::upstream_error::UpstreamError;
use crate::http::reply::{Patience, Reply, Wake};
use crate::http::wire::{self, Beside, Waited};
use crate::jsonrpc::{self, Message};
use crate::mcp::params::LoggingMessageParams;
use crate::mcp::tasks::with_related_task;
use crate::mcp::{LogLevel, RawObject};

pub trait Waiting {
    /// Whoever waits can end this reply from now on.
    fn waits_for(&mut self, reply: &Reply);
    fn patience(&self, deadline: Deadline) -> Patience<'_>;
    fn woken(&mut self, wake: &Wake) -> Result<(), UpstreamError>;
    /// Takes a notification of the instance.
    fn relay(&mut self, method: &str, params: Option<&str>, message: &[u8]) -> io::Result<()>;
    /// Takes a request of the instance; gives its answer where that is known at once.
    fn ask(&mut self, id: &str, method: &str, params: Option<&str>) -> io::Result<Option<Vec<u8>>>;
    /// All that came together was handed on.
    fn settle(&mut self) {}
    /// An answer for the instance that has come.
    fn answer(&mut self) -> Option<Vec<u8>>;
    /// Whoever waits does so no longer.
    fn is_cancelled(&self) -> bool;
    /// The instance will go on after this time; until then nobody need hold a connection.
    fn release(&mut self, retry: Duration) -> io::Result<()>;
}

/// The gateway itself waits.
pub struct NoClient;

impl Waiting for NoClient {
    fn waits_for(&mut self, _: &Reply) {}

    fn patience(&self, deadline: Deadline) -> Patience<'_> {
        Patience { deadline, tick: None, watched: None, called: None }
    }

    fn woken(&mut self, _: &Wake) -> Result<(), UpstreamError> {
        Ok(())
    }

    fn relay(&mut self, _: &str, _: Option<&str>, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn ask(&mut self, id: &str, method: &str, _: Option<&str>) -> io::Result<Option<Vec<u8>>> {
        match Relayed::new(None).ask(id, method, "{}") {
            Asked::Nobody(answer) => Ok(Some(answer)),
            Asked::Client(_) => Ok(None),
        }
    }

    fn answer(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn is_cancelled(&self) -> bool {
        false
    }

    fn release(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
    }
}

/// A client waits, whose connection may break off and must not fall silent.
pub struct Client<'o, 'x, 'c> {
    outlet: &'o mut Outlet<'x, 'c>,
    progress: Progress,
    ticket: &'o Ticket<'o>,
    relayed: Relayed<'o>,
    /// The task whose result is waited for, by the id that the client knows.
    task: Option<&'o str>,
    log_level: Option<LogLevel>,
    hears_of_urls: bool,
}

impl<'o, 'x, 'c> Client<'o, 'x, 'c> {
    pub fn new(call: &'o Call<'o>, outlet: &'o mut Outlet<'x, 'c>) -> Client<'o, 'x, 'c> {
        let (progress, relayed) = (call.progress(), Relayed::new(call.asker));
        let task = (call.method == CallMethod::TaskResult).then_some(&*call.name);
        let hears_of_urls = call.asker.is_some_and(|asker| asker.hears_of_urls());
        Client { outlet, progress, ticket: call.ticket, relayed, task, log_level: call.log_level, hears_of_urls }
    }

    /// The call has ended: takes back what was asked and is of no use any more.
    pub fn end(mut self) {
        for message in self.relayed.close() {
            // A client that is gone need not be told.
            let _ = self.outlet.notify(&message);
        }
    }
}

impl Client<'_, '_, '_> {
    /// Asks the client what an instance wants to know before the call is repeated, and waits for all the answers.
    pub fn put(&mut self, requests: &[InputRequest], deadline: Deadline) -> Result<RawObject, UpstreamError> {
        let (cancelled, canceller) = io::pipe().map_err(|_| UpstreamError::Cancelled)?;
        self.ticket.on_cancel(move || drop(canceller));
        for InputRequest { key, method, params } in requests {
            let id = jsonrpc::to_bytes(key);
            match self.relayed.ask(&String::from_utf8_lossy(&id), method, params) {
                Asked::Client(message) => {
                    let told = message.map_or(Ok(()), |message| self.outlet.notify(&message));
                    told.map_err(|_| UpstreamError::Cancelled)?;
                }
                Asked::Nobody(_) => {
                    return Err(UpstreamError::Unanswered(format!("answer, since it offers no {method} of this kind")));
                }
            }
        }
        let mut answers = RawObject::new();
        while answers.len() < requests.len() {
            while let Some(message) = self.relayed.answer() {
                answers.extend(answer_of(&message)?);
            }
            if answers.len() < requests.len() {
                self.wait_for_answer(&cancelled, deadline)?;
            }
        }
        Ok(answers)
    }

    fn wait_for_answer(&mut self, cancelled: &io::PipeReader, deadline: Deadline) -> Result<(), UpstreamError> {
        if deadline.has_passed() {
            return Err(UpstreamError::Unanswered("answer within the time of the call".to_owned()));
        }
        let beside = Beside { watched: self.outlet.socket(), called: self.relayed.wake() };
        match wire::wait_readable(cancelled, beside, self.outlet.keep_alive_due().min(deadline.left())) {
            Ok(Waited::Called) => Ok(()),
            Ok(Waited::TimedOut) => self.woken(&Wake::Tick),
            Ok(Waited::WatchedGone) => self.woken(&Wake::WatchedGone),
            Ok(Waited::Readable) | Err(_) => Err(UpstreamError::Cancelled),
        }
    }

    /// Whether a log message is important enough.
    fn wants(&self, params: Option<&str>) -> bool {
        let level = || serde_json::from_str::<LoggingMessageParams>(params?).ok().map(|message| message.level);
        self.log_level.is_some_and(|least| level().is_some_and(|level| level >= least))
    }
}

/// The key of a question, and its answer.
fn answer_of(message: &[u8]) -> Result<Option<(String, Box<RawValue>)>, UpstreamError> {
    let text = String::from_utf8_lossy(message);
    let Ok(Message::Response { id, result }) = jsonrpc::parse_one(&text) else { return Ok(None) };
    match result {
        Ok(result) => Ok(serde_json::from_str(id.text()).ok().map(|key| (key, result.to_owned()))),
        // There is no place for an error among the answers: the call ends with it.
        Err(error) => {
            Err(UpstreamError::Unanswered(format!("answer but an error: {}", error_message(error.get().as_bytes()))))
        }
    }
}

impl Waiting for Client<'_, '_, '_> {
    fn waits_for(&mut self, reply: &Reply) {
        let canceller = reply.canceller();
        self.ticket.on_cancel(move || canceller.cancel());
    }

    fn patience(&self, deadline: Deadline) -> Patience<'_> {
        let (tick, watched) = (Some(self.outlet.keep_alive_due()), self.outlet.socket());
        Patience { deadline, tick, watched, called: self.relayed.wake() }
    }

    fn woken(&mut self, wake: &Wake) -> Result<(), UpstreamError> {
        match wake {
            Wake::Ready | Wake::Called => Ok(()),
            Wake::Tick => self.outlet.keep_alive(&mut self.progress).map_err(|_| UpstreamError::Cancelled),
            Wake::WatchedGone if self.outlet.lose() => Ok(()),
            Wake::WatchedGone => Err(UpstreamError::Cancelled),
        }
    }

    fn relay(&mut self, method: &str, params: Option<&str>, message: &[u8]) -> io::Result<()> {
        let rewritten = match method {
            "notifications/message" if self.wants(params) => return self.outlet.notify(message),
            "notifications/elicitation/complete" if self.hears_of_urls => return self.outlet.notify(message),
            "notifications/progress" => params.and_then(|params| self.progress.relay(params)),
            "notifications/cancelled" => params.and_then(|params| self.relayed.withdraw(params)),
            // What concerns no call of its own reaches a client by the gateway's own word, if at all.
            _ => None,
        };
        rewritten.map_or(Ok(()), |message| self.outlet.notify(&message))
    }

    fn ask(&mut self, id: &str, method: &str, params: Option<&str>) -> io::Result<Option<Vec<u8>>> {
        let params = params.unwrap_or("{}");
        let params = match self.task {
            Some(task) => String::from_utf8_lossy(&with_related_task(params.as_bytes(), task)).into_owned().into(),
            None => Cow::Borrowed(params),
        };
        match self.relayed.ask(id, method, &params) {
            Asked::Client(message) => message.map_or(Ok(()), |message| self.outlet.notify(&message)).map(|()| None),
            Asked::Nobody(answer) => Ok(Some(answer)),
        }
    }

    fn settle(&mut self) {
        self.outlet.settle();
    }

    fn answer(&mut self) -> Option<Vec<u8>> {
        self.relayed.answer()
    }

    fn is_cancelled(&self) -> bool {
        self.ticket.is_cancelled()
    }

    fn release(&mut self, retry: Duration) -> io::Result<()> {
        self.outlet.release(retry)
    }
}
