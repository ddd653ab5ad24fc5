//! The gateway as an MCP client: calls of all clients go out on the sessions and connections of one link (`link.rs`).
//!
//! A call goes out as it came in but for the tool's name, the request id and the progress token, which are put in their
//! places without parsing or copying the rest; its answer comes back likewise.
//!
//! **Invariant**: ids are ours alone on an instance's session, so that clients with equal ids and tokens never meet.
//! **Thread**: that of whoever calls; nothing here waits for anything but the one instance, and for that not beyond
//! the call's deadline.
//! **Bounds**: `BODY_BYTES_MAX`, the deadline; an answer to an instance's question is delivered within
//! `FAN_OUT_TIME_MAX` or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::deadline::Deadline;
use crate::endpoint::access::Access;
use crate::endpoint::outlet::Outlet;
use crate::endpoint::service::{Answer, Call, CallMethod, Failure, Payload, encoded};
use crate::gateway::link::{Link, UpstreamSession};
use crate::gateway::modern;
use crate::gateway::receive::{self, Awaited};
use crate::gateway::rewrite::{Response, error_message, request_text, rewritten_params};
use crate::gateway::upstream_error::UpstreamError;
use crate::gateway::waiting::{Client, NoClient};
use crate::http::client::Pool;
use crate::http::client_error::ClientError;
use crate::http::reply::Reply;
use crate::jsonrpc::{self, ErrorObject, INTERNAL_ERROR, METHOD_NOT_FOUND};
use crate::limits::FAN_OUT_TIME_MAX;
use crate::logging::Quoted;
use crate::mcp::mirror::Mirror;
use crate::mcp::{CallToolResult, ClientCapabilities};
use crate::metrics::{self, Outcome};
use crate::registry::entry::split_url;
use crate::registry::{Instance, Origin};

/// How the gateway reaches one instance.
pub struct Upstream {
    pub instance: Arc<Instance>,
    /// What outlives a change of the instance's entry (scene, status, tools).
    pub(super) link: Arc<Link>,
}

impl Upstream {
    pub fn new(instance: Arc<Instance>, access: &Arc<Access>) -> Upstream {
        let entry = &instance.entry;
        // Entries are checked when they are read; what is not a URL after all is met at its advertised address.
        let (host, port, target) = split_url(&entry.mcp_url).unwrap_or((&entry.host, entry.port, "/mcp"));
        let access = (instance.origin == Origin::Ours).then(|| Arc::clone(access));
        let link = Link::new(host, port, target, access);
        Upstream { instance, link: Arc::new(link) }
    }

    /// The same way to the same instance, whose entry says something new.
    pub fn with(&self, instance: Arc<Instance>) -> Upstream {
        Upstream { instance, link: Arc::clone(&self.link) }
    }

    /// Calls under way at this instance, of this gateway.
    pub fn in_flight(&self) -> u32 {
        self.link.in_flight.load(Ordering::Relaxed)
    }

    pub fn pool(&self) -> &Pool {
        &self.link.pool
    }

    pub fn target(&self) -> &str {
        &self.link.target
    }

    /// What we present to it in `Authorization`.
    pub fn authorization(&self) -> Option<String> {
        self.link.authorization()
    }

    /// Hands a call on under the instance's own name for what it is about, and relays what comes back.
    /// `mirror` says which arguments header fields repeat.
    pub fn call(
        &self,
        name: &str,
        mirror: Option<&Mirror>,
        call: &Call<'_>,
        deadline: Deadline,
        outlet: &mut Outlet<'_, '_>,
    ) -> Answer {
        let started = Instant::now();
        let _counted = self.count();
        let result = self.forward((name, mirror), call, deadline, outlet);
        self.record(call.method, &result, started.elapsed());
        match result {
            Ok(Response { text, part, is_error: false }) => Ok(Payload::Part(text, part)),
            Ok(Response { text, part, is_error: true }) => {
                let client = call.asker.map(|asker| asker.client()).unwrap_or_default();
                let url_error = call.is_modern.then(|| modern::instead_of_url_error(&text[part.clone()], client));
                match url_error.flatten() {
                    Some(answer) => answer,
                    None => Err(Failure::Error(Payload::Part(text, part))),
                }
            }
            Err(UpstreamError::Cancelled) => Err(Failure::Cancelled),
            Err(error) => {
                log::warn!("event=call_failed instance={} error={}", self.instance.entry.instance_id, Quoted(&error));
                self.failed(call.method, &error)
            }
        }
    }

    fn record(&self, method: CallMethod, result: &Result<Response, UpstreamError>, time: Duration) {
        if let Some(kind) = result.as_ref().err().and_then(UpstreamError::kind) {
            metrics::UPSTREAM_ERRORS.record(kind);
        }
        if method != CallMethod::CallTool {
            return;
        }
        let outcome = match result {
            Ok(response) if response.is_error => Outcome::Refused,
            Ok(response) if response.says_tool_failed() => Outcome::ToolError,
            Ok(_) => Outcome::Ok,
            Err(UpstreamError::Cancelled) => Outcome::Cancelled,
            Err(UpstreamError::Http(ClientError::Timeout { .. })) => Outcome::Timeout,
            Err(_) => Outcome::Unreachable,
        };
        metrics::TOOL_CALLS.record(&self.instance.entry.dcc_type, outcome, time);
    }

    /// Which instance failed, how, and what can be done: for a model to read where it called a tool.
    fn failed(&self, method: CallMethod, error: &UpstreamError) -> Answer {
        let text = format!("{}: {error}", self.instance.describe());
        match method {
            CallMethod::CallTool => Ok(encoded(&CallToolResult::failed(text))),
            _ => Err(ErrorObject::new(INTERNAL_ERROR, text).into()),
        }
    }

    /// Whether the instance said at our handshake that it has this capability.
    pub fn offers(&self, capability: &str, deadline: Deadline) -> Result<bool, UpstreamError> {
        Ok(self.own_session(deadline)?.capabilities.contains_key(capability))
    }

    /// A request of the gateway's own: the text of its `result`.
    pub fn ask(&self, method: &str, params: &[u8], deadline: Deadline) -> Result<Vec<u8>, UpstreamError> {
        let Response { text, part, is_error } = self.own_request(method, params, deadline)?;
        if is_error { Err(UpstreamError::Refused(error_message(&text[part]))) } else { Ok(text[part].to_vec()) }
    }

    fn own_request(&self, method: &str, params: &[u8], deadline: Deadline) -> Result<Response, UpstreamError> {
        let session = self.own_session(deadline)?;
        match self.ask_once(&session, method, params, deadline) {
            Err(UpstreamError::Status(404)) if session.has_id => {
                self.link.forget(&session);
                self.ask_once(&*self.own_session(deadline)?, method, params, deadline)
            }
            result => result,
        }
    }

    /// Subscribes to a resource by its own URI, in the session whose stream `follow` reads.
    pub fn subscribe(&self, uri: &str, deadline: Deadline) -> Result<(), Failure> {
        let failed = |error: UpstreamError| -> Failure {
            ErrorObject::new(INTERNAL_ERROR, format!("{}: {error}", self.instance.describe())).into()
        };
        let session = self.own_session(deadline).map_err(failed)?;
        let resources = session.capabilities.get("resources").filter(|_| !session.is_modern);
        if resources.and_then(|offered| offered.get("subscribe")?.as_bool()) != Some(true) {
            let text = format!("{}: it does not tell when resources change", self.instance.describe());
            return Err(ErrorObject::new(METHOD_NOT_FOUND, text).into());
        }
        let params = jsonrpc::to_bytes(&json!({"uri": uri}));
        let Response { text, part, is_error } =
            self.own_request("resources/subscribe", &params, deadline).map_err(failed)?;
        if is_error { Err(Failure::Error(Payload::Part(text, part))) } else { Ok(()) }
    }

    /// The stream on which the instance tells the gateway itself what has changed, after its head.
    pub fn follow(&self, deadline: Deadline) -> Result<Reply, UpstreamError> {
        let session = self.own_session(deadline)?;
        let mut reply = self.link.follow(&session, deadline)?;
        receive::wait_head(&mut reply, deadline.sooner(FAN_OUT_TIME_MAX), &mut NoClient)?;
        match reply.head().status() {
            200 => Ok(reply),
            status => {
                if status == 404 {
                    self.link.forget(&session);
                }
                Err(UpstreamError::Status(status))
            }
        }
    }

    /// Whether both reach the same life of the same instance.
    pub fn is_same_way(&self, other: &Upstream) -> bool {
        Arc::ptr_eq(&self.link, &other.link)
    }

    /// The session of the gateway itself, which answers nothing.
    fn own_session(&self, deadline: Deadline) -> Result<Arc<UpstreamSession>, UpstreamError> {
        self.link.session(ClientCapabilities::default(), deadline, &mut NoClient)
    }

    fn ask_once(
        &self,
        session: &UpstreamSession,
        method: &str,
        params: &[u8],
        deadline: Deadline,
    ) -> Result<Response, UpstreamError> {
        let id = self.link.next_id();
        let (message, fields) = self.link.message(session, id, method, params);
        let mut reply = self.link.send_with(session, &fields, &message, deadline, true)?;
        let answer = |message: &[u8]| self.answer(session, message, deadline);
        let resume = |last_id: &str| self.link.resume(session, last_id, deadline);
        let awaited = Awaited { id, deadline, answer: &answer, in_session: !session.is_modern, resume: &resume };
        receive::response(&mut reply, &awaited, &mut NoClient)
    }

    fn forward(
        &self,
        about: (&str, Option<&Mirror>),
        call: &Call<'_>,
        deadline: Deadline,
        outlet: &mut Outlet<'_, '_>,
    ) -> Result<Response, UpstreamError> {
        let name = about.0;
        let offered = call.asker.map(|asker| asker.client()).unwrap_or_default();
        let mut client = Client::new(call, outlet);
        if call.is_modern
            && let Some(session) = self.link.modern(deadline, &mut client)?
        {
            return self.hand_through(&session, about, call, deadline, &mut client);
        }
        let session = self.link.session(offered, deadline, &mut client)?;
        if session.is_modern {
            let result = self.ask_and_repeat(&session, about, call, deadline, &mut client);
            client.end();
            return result;
        }
        let result = match self.forward_once(&session, name, call, deadline, &mut client) {
            // The instance was restarted under the same address: the request was not taken, so it may be repeated.
            Err(UpstreamError::Status(404)) if session.has_id => {
                self.link.forget(&session);
                let session = self.link.session(offered, deadline, &mut client)?;
                self.forward_once(&session, name, call, deadline, &mut client)
            }
            result => result,
        };
        client.end();
        result
    }

    fn forward_once(
        &self,
        session: &Arc<UpstreamSession>,
        name: &str,
        call: &Call<'_>,
        deadline: Deadline,
        client: &mut Client<'_, '_, '_>,
    ) -> Result<Response, UpstreamError> {
        call.log_level.inspect(|level| self.link.lower_level(session, *level, deadline));
        let id = self.link.next_id();
        let message = request_text(id, call.method.as_str(), &rewritten_params(call, name, id));
        let mut reply = self.link.send(session, &message, deadline, false)?;
        let cancels = |reply: &Reply| {
            let canceller = reply.canceller();
            let (link, session) = (Arc::clone(&self.link), Arc::clone(session));
            call.ticket.on_cancel(move || {
                canceller.cancel();
                link.tell_cancelled(&session, id);
            });
        };
        cancels(&reply);
        let resume = |last_id: &str| self.link.resume(session, last_id, deadline).inspect(cancels);
        let answer = |message: &[u8]| self.answer(session, message, deadline);
        let awaited = Awaited { id, deadline, answer: &answer, in_session: true, resume: &resume };
        let result = receive::response(&mut reply, &awaited, client);
        if call.ticket.is_cancelled() {
            return Err(UpstreamError::Cancelled);
        }
        if let Err(UpstreamError::Cancelled | UpstreamError::Http(ClientError::Timeout { .. })) = &result {
            // The client is gone or the time is over: nobody waits for the result any more.
            self.link.tell_cancelled(session, id);
        }
        result
    }

    /// Answers a question of the instance. One that does not get its answer ends with its call.
    fn answer(&self, session: &UpstreamSession, message: &[u8], deadline: Deadline) {
        if let Err(error) = self.link.tell(session, message, deadline.sooner(FAN_OUT_TIME_MAX)) {
            log::warn!(
                "event=answer_not_delivered instance={} error={}",
                self.instance.entry.instance_id,
                Quoted(&error)
            );
        }
    }

    /// Counts a request as under way until the guard is dropped.
    pub fn count(&self) -> InFlight<'_> {
        self.link.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(&self.link.in_flight)
    }
}

pub struct InFlight<'u>(&'u AtomicU32);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
