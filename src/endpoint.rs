//! MCP over Streamable HTTP, for an instance and for the gateway alike: what they offer is behind `Service`.
//!
//! The order of the checks is the one that works for all known clients: names (403) and token (401), in the routes;
//! then method (405), body (413), content type (415), `Accept` (406), JSON (400), shape (400), session missing (400) or
//! ended or none of ours (404), protocol header (400). Once a session stands, whatever a request does wrong is answered
//! with status 200 and a JSON-RPC error, since many clients never recover from another status.
//!
//! **Invariant**: nothing is stored for a session (`session.rs`). A notification is answered 202 with an empty body.
//! **Thread**: the connection's.
//! **Bounds**: those of `http/server.rs`; `STREAMS_MAX`.
//! Left out on purpose: what tools there are and how they run.

pub mod access;
pub mod asking;
mod batch;
pub mod calls;
pub mod desk;
pub mod follow;
pub mod levels;
pub mod line;
pub mod listen;
pub mod media;
pub mod modern;
pub mod outlet;
pub mod params;
pub mod rounds;
pub mod service;
pub mod tasks;
pub mod trail;

use std::io;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::deadline::Deadline;
use crate::endpoint::asking::{AskTable, Asker};
use crate::endpoint::calls::CallTable;
use crate::endpoint::levels::LevelTable;
use crate::endpoint::outlet::{Outlet, Resumption};
use crate::endpoint::rounds::Rounds;
use crate::endpoint::service::{Answer, Failure, Payload, Service};
use crate::endpoint::trail::TrailTable;
use crate::http::head::{Method, RequestHead};
use crate::http::server::{Exchange, Refusal};
use crate::hub::Hub;
use crate::jsonrpc::{self, Body, ErrorObject, INVALID_REQUEST, METHOD_NOT_FOUND, Message, RequestId, Unread};
use crate::limits::ECHO_CHARS_MAX;
use crate::mcp::lists::Listed;
use crate::mcp::params::{CancelledParams, InitializeParams, PaginatedParams, SetLevelParams};
use crate::mcp::{MODERN, Revision};
use crate::session::{EndedSessions, Session};

pub struct Endpoint {
    pub service: Arc<dyn Service>,
    pub hub: Arc<Hub>,
    pub server_name: String,
    pub call_timeout: std::time::Duration,
    calls: CallTable,
    asking: AskTable,
    levels: LevelTable,
    rounds: Arc<Rounds>,
    ended: EndedSessions,
    trails: TrailTable,
}

/// The code for a request that its client cancelled; the specification names none, LSP's is the usual one.
const REQUEST_CANCELLED: i32 = -32800;

/// Why a message cannot be taken: the HTTP status and the error.
struct Refused(u16, ErrorObject);

impl Endpoint {
    pub fn new(
        service: Arc<dyn Service>,
        hub: Arc<Hub>,
        server_name: String,
        call_timeout: std::time::Duration,
    ) -> Endpoint {
        Endpoint {
            service,
            hub,
            server_name,
            call_timeout,
            calls: CallTable::default(),
            asking: AskTable::new(),
            levels: LevelTable::default(),
            rounds: Arc::default(),
            ended: EndedSessions::default(),
            trails: TrailTable::new(),
        }
    }

    /// Serves one request to the MCP endpoint; `headers` go with the answer.
    pub fn handle(
        &self,
        request: &RequestHead,
        exchange: &mut Exchange<'_>,
        headers: &[(&str, &str)],
    ) -> io::Result<()> {
        match request.method() {
            Method::Post => self.post(request, exchange, headers),
            _ if request.header("mcp-protocol-version") == Some(MODERN) => {
                method_not_allowed(exchange, headers, "POST")
            }
            Method::Get => self.follow(request, exchange, headers),
            Method::Delete => match self.session(request) {
                Ok(session) => {
                    self.ended.end(session);
                    self.hub.end(session.key);
                    self.trails.end(session.key);
                    exchange.respond(204, headers, &[])
                }
                Err(refused) => respond_refused(exchange, headers, None, &refused),
            },
            _ => method_not_allowed(exchange, headers, "GET, POST, DELETE"),
        }
    }

    fn post(&self, request: &RequestHead, exchange: &mut Exchange<'_>, headers: &[(&str, &str)]) -> io::Result<()> {
        let body = match exchange.read_body() {
            Ok(body) => body,
            Err(refusal) => return exchange.refuse(&refusal),
        };
        if let Err((status, error)) = media::check(request) {
            return respond_refused(exchange, headers, None, &Refused(status, error));
        }
        match jsonrpc::parse(&body) {
            Err(Unread { id, error }) => respond_refused(exchange, headers, id, &Refused(400, error)),
            Ok(Body::One(message)) => self.one(request, exchange, headers, message),
            Ok(Body::Batch(messages)) => self.batch(request, exchange, headers, messages),
        }
    }

    fn one(
        &self,
        request: &RequestHead,
        exchange: &mut Exchange<'_>,
        headers: &[(&str, &str)],
        message: Message<'_>,
    ) -> io::Result<()> {
        let (id, method, params) = match message {
            Message::Request { id, method, params } => (id, method, params),
            // Nothing that a client tells in the stateless revision concerns another request.
            Message::Notification { .. } if request.header("mcp-protocol-version") == Some(MODERN) => {
                return exchange.respond(202, headers, &[]);
            }
            other => {
                return match self.session(request) {
                    Ok(session) => match self.take(session, &other) {
                        Ok(()) => exchange.respond(202, headers, &[]),
                        Err(error) => respond_refused(exchange, headers, None, &Refused(400, error)),
                    },
                    Err(refused) => respond_refused(exchange, headers, None, &refused),
                };
            }
        };
        if modern::is_meant(request, params) {
            return self.modern(request, exchange, headers, (id, &method, params));
        }
        if method == "initialize" {
            return self.initialize(exchange, headers, id, params);
        }
        let session = match self.session(request) {
            Ok(session) => session,
            Err(refused) => return respond_refused(exchange, headers, Some(id), &refused),
        };
        let mut outlet = Outlet::new(exchange, headers, Some(self.resumption(session)));
        let answer = self.answer(session, id, &method, params, &mut outlet);
        write_answer(outlet, id, &answer)
    }

    fn initialize(
        &self,
        exchange: &mut Exchange<'_>,
        headers: &[(&str, &str)],
        id: RequestId<'_>,
        params: Option<&RawValue>,
    ) -> io::Result<()> {
        let params: InitializeParams = match params::read(params) {
            Ok(params) => params,
            Err(error) => return respond_refused(exchange, headers, Some(id), &Refused(200, error)),
        };
        let revision = Revision::negotiate(&params.protocol_version);
        let session = Session::begin(revision, params.capabilities, self.service.settled());
        let result = json!({
            "protocolVersion": revision.as_str(),
            "capabilities": tasks::with_core(capabilities(), revision),
            "serverInfo": {"name": self.server_name, "version": env!("CARGO_PKG_VERSION")},
            "instructions": self.service.instructions(),
        });
        let session_id = session.to_string();
        let mut all = vec![("Content-Type", "application/json"), ("Mcp-Session-Id", session_id.as_str())];
        all.extend_from_slice(headers);
        exchange.respond(200, &all, &[&jsonrpc::result(id, &jsonrpc::to_bytes(&result))])
    }

    fn answer(
        &self,
        session: Session,
        id: RequestId<'_>,
        method: &str,
        params: Option<&RawValue>,
        outlet: &mut Outlet<'_, '_>,
    ) -> Answer {
        if let Some(listed) = Listed::of_method(method) {
            return self.list(listed, Some(session.revision), params);
        }
        match method {
            "ping" => Ok(Payload::Owned(b"{}".to_vec())),
            "logging/setLevel" => {
                let SetLevelParams { level } = params::read(params)?;
                self.levels.set(session.key, level);
                Ok(Payload::Owned(b"{}".to_vec()))
            }
            "resources/subscribe" => self.subscribe(session.key, params, true),
            "resources/unsubscribe" => self.subscribe(session.key, params, false),
            "tools/call" | "prompts/get" | "resources/read" | "completion/complete" => {
                self.call(session, id, method, params, outlet)
            }
            "tasks/get" | "tasks/result" | "tasks/cancel" if session.revision.has_tasks() => {
                self.call(session, id, method, params, outlet)
            }
            "tasks/list" if session.revision.has_tasks() => self.list_tasks(session, params),
            "initialize" => Err(ErrorObject::new(INVALID_REQUEST, "initialize must not be part of a batch").into()),
            _ => Err(unknown_method(method).into()),
        }
    }

    fn list(&self, listed: Listed, revision: Option<Revision>, params: Option<&RawValue>) -> Answer {
        let params: PaginatedParams = params::read(params)?;
        if params.cursor.is_some() {
            return Err(ErrorObject::invalid_params("this cursor is none of ours; leave it out").into());
        }
        Ok(Payload::Shared(self.service.list(listed, revision)?))
    }

    fn call(
        &self,
        session: Session,
        id: RequestId<'_>,
        method: &str,
        params: Option<&RawValue>,
        outlet: &mut Outlet<'_, '_>,
    ) -> Answer {
        let ticket = self.calls.begin(session.key, id.text());
        let mut call = params::read_call(method, params, &ticket, Deadline::after(self.call_timeout))?;
        call.asker = Some(Asker::Stream { table: &self.asking, session: session.key, client: session.client });
        call.log_level = Some(self.levels.of(session.key));
        call.tasks = tasks::core_use(session, &call)?;
        let answer = self.service.call(&call, outlet);
        if ticket.is_cancelled() { Err(Failure::Cancelled) } else { answer }
    }

    /// Takes a notification, or the answer to a question.
    fn take(&self, session: Session, message: &Message<'_>) -> Result<(), ErrorObject> {
        match message {
            Message::Notification { method, params: Some(params) } if method == "notifications/cancelled" => {
                if let Ok(params) = serde_json::from_str::<CancelledParams<'_>>(params.get()) {
                    self.calls.cancel(session.key, params.request_id.get());
                }
            }
            Message::Response { id, result } => {
                // The question stays open: whoever asked could make nothing of it.
                if !result.unwrap_or_else(|error| error).get().starts_with('{') {
                    return Err(ErrorObject::new(INVALID_REQUEST, "a result or an error must be an object"));
                }
                self.asking.answer(session.key, id.text(), *result);
            }
            Message::Notification { .. } | Message::Request { .. } => {}
        }
        Ok(())
    }

    fn resumption(&self, session: Session) -> Resumption<'_> {
        Resumption { trails: &self.trails, session: session.key, state: self.service.state() }
    }

    /// The session that a request belongs to.
    fn session(&self, request: &RequestHead) -> Result<Session, Refused> {
        let mut ids = request.all("mcp-session-id");
        let Some(id) = ids.next() else {
            return Err(without_session(request));
        };
        if ids.next().is_some() {
            let text = "there is more than one Mcp-Session-Id header";
            return Err(Refused(400, ErrorObject::new(INVALID_REQUEST, text)));
        }
        let session = Session::parse(id).filter(|session| !self.ended.contains(*session)).ok_or_else(|| {
            Refused(
                404,
                ErrorObject::new(INVALID_REQUEST, "this session has ended or is none of ours; send initialize"),
            )
        })?;
        match request.header("mcp-protocol-version") {
            Some(version) if session.revision.has_version_header() && Revision::parse(version).is_none() => {
                let known = Revision::ALL.map(Revision::as_str).join(", ");
                let text = format!("this MCP-Protocol-Version is not spoken here; send one of {known}");
                Err(Refused(400, ErrorObject::new(INVALID_REQUEST, text)))
            }
            _ => Ok(session),
        }
    }
}

/// Why a message cannot be taken that names no session, by the revision that it names.
fn without_session(request: &RequestHead) -> Refused {
    let text = match request.header("mcp-protocol-version") {
        Some(MODERN) => {
            "2026-07-28 has no batches, and no responses of clients: send one request in a body, with the answers \
            in its inputResponses"
        }
        Some(version) if Revision::parse(version).is_none() => return modern::unsupported(version),
        _ => "the Mcp-Session-Id header is missing; send initialize first and repeat the id it answers",
    };
    Refused(400, ErrorObject::new(INVALID_REQUEST, text))
}

/// Answers a method that the route does not take.
pub fn method_not_allowed(exchange: &mut Exchange<'_>, headers: &[(&str, &str)], allow: &str) -> io::Result<()> {
    let body = json!({"error": {"code": "method_not_allowed", "message": format!("this route takes {allow}")}});
    let mut all = vec![("Content-Type", "application/json"), ("Allow", allow)];
    all.extend_from_slice(headers);
    exchange.respond(405, &all, &[&jsonrpc::to_bytes(&body)])
}

fn too_many_streams() -> Refusal {
    Refusal::new(503, "too_many_streams", "too many streams are open here; try again later")
}

fn write_answer(outlet: Outlet<'_, '_>, id: RequestId<'_>, answer: &Answer) -> io::Result<()> {
    match response(id, answer) {
        Some(parts) => outlet.finish(200, &parts),
        None if outlet.is_streaming() => outlet.finish(200, &[]),
        // A held request must end somehow: the client has stopped to care, its HTTP library has not.
        None => {
            let error = ErrorObject::new(REQUEST_CANCELLED, "the request was cancelled by its client");
            outlet.finish(200, &[&jsonrpc::error(Some(id), &error)])
        }
    }
}

/// The parts of a response; none for a cancelled request, which is not answered (utilities, cancellation).
fn response<'a>(id: RequestId<'a>, answer: &'a Answer) -> Option<[&'a [u8]; 5]> {
    let (member, payload): (&[u8], &Payload) = match answer {
        Ok(result) => (br#","result":"#, result),
        Err(Failure::Error(error)) => (br#","error":"#, error),
        Err(Failure::Cancelled) => return None,
    };
    Some([br#"{"jsonrpc":"2.0","id":"#, id.text().as_bytes(), member, payload.as_bytes(), b"}"])
}

fn respond_refused(
    exchange: &mut Exchange<'_>,
    headers: &[(&str, &str)],
    id: Option<RequestId<'_>>,
    Refused(status, error): &Refused,
) -> io::Result<()> {
    let mut all = vec![("Content-Type", "application/json")];
    all.extend_from_slice(headers);
    exchange.respond(*status, &all, &[&jsonrpc::error(id, error)])
}

/// What is offered, in every revision. That a list is empty now does not mean that it stays so.
fn capabilities() -> Value {
    json!({
        "tools": {"listChanged": true},
        "prompts": {"listChanged": true},
        "resources": {"subscribe": true, "listChanged": true},
        "completions": {},
        "logging": {},
    })
}

fn unknown_method(method: &str) -> ErrorObject {
    let known =
        "initialize, ping, logging/setLevel, completion/complete and the methods of tools, prompts and resources";
    ErrorObject::new(
        METHOD_NOT_FOUND,
        format!("method not found: {method:.ECHO_CHARS_MAX$}; this server answers {known}"),
    )
}
