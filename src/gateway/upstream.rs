//! The gateway as an MCP client: one session and one pool of connections for each instance, shared by all calls.
//!
//! A call goes out as it came in but for the tool's name, the request id and the progress token, which are put in their
//! places without parsing or copying the rest; its answer comes back likewise.
//!
//! **Invariant**: ids are ours alone on an instance's session, so that clients with equal ids and tokens never meet.
//! **Thread**: that of whoever calls; nothing here waits for anything but the one instance, and for that not beyond
//! the call's deadline.
//! **Bounds**: `POOL_IDLE_MAX`, `BODY_BYTES_MAX`, the deadline.
//! Left out on purpose: answering requests of instances to clients; we declare no capability that would allow them any.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::deadline::Deadline;
use crate::endpoint::access::Access;
use crate::endpoint::outlet::Outlet;
use crate::endpoint::service::{Answer, Call, CallMethod, Failure, Payload, encoded};
use crate::gateway::receive;
use crate::gateway::rewrite::{Response, VIA, error_message, request_text, rewritten_params};
use crate::gateway::upstream_error::UpstreamError;
use crate::gateway::waiting::{Client, NoClient, Waiting};
use crate::http::client::{Outgoing, Pool};
use crate::http::client_error::ClientError;
use crate::http::reply::Reply;
use crate::jsonrpc::{self, ErrorObject, INTERNAL_ERROR};
use crate::limits::FAN_OUT_TIME_MAX;
use crate::mcp::{CallToolResult, Revision};
use crate::metrics::{self, Outcome};
use crate::registry::entry::split_url;
use crate::registry::{Instance, Origin};

/// How the gateway reaches one instance.
pub struct Upstream {
    pub instance: Arc<Instance>,
    link: Arc<Link>,
}

/// What outlives a change of the instance's entry (scene, status, tools).
struct Link {
    pool: Pool,
    /// Path of its MCP endpoint.
    target: String,
    /// What it knows our session by; opened by the first call.
    session: Mutex<Option<Arc<UpstreamSession>>>,
    next_id: AtomicU64,
    in_flight: AtomicU32,
    /// Holds the token for instances of our own kind; it may change (SIGHUP).
    access: Option<Arc<Access>>,
}

struct UpstreamSession {
    id: Option<String>,
    revision: String,
    capabilities: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult {
    protocol_version: String,
    #[serde(default)]
    capabilities: Map<String, Value>,
}

impl Upstream {
    pub fn new(instance: Arc<Instance>, access: &Arc<Access>) -> Upstream {
        let entry = &instance.entry;
        // Entries are checked when they are read; what is not a URL after all is met at its advertised address.
        let (host, port, target) = split_url(&entry.mcp_url).unwrap_or((&entry.host, entry.port, "/mcp"));
        let link = Link {
            pool: Pool::new(host, port),
            target: target.to_owned(),
            session: Mutex::new(None),
            next_id: AtomicU64::new(1),
            in_flight: AtomicU32::new(0),
            access: (instance.origin == Origin::Ours).then(|| Arc::clone(access)),
        };
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
        let token = self.link.access.as_ref().and_then(|access| access.own_token())?;
        Some(format!("Bearer {token}"))
    }

    /// Hands a call on under the instance's own name for what it is about, and relays what comes back.
    pub fn call(
        self: &Arc<Self>,
        name: &str,
        call: &Call<'_>,
        deadline: Deadline,
        outlet: &mut Outlet<'_, '_>,
    ) -> Answer {
        let started = Instant::now();
        let _counted = self.count();
        let result = self.forward(name, call, deadline, outlet);
        self.record(call.method, &result, started.elapsed());
        match result {
            Ok(Response { text, part, is_error: false }) => Ok(Payload::Part(text, part)),
            Ok(Response { text, part, is_error: true }) => Err(Failure::Error(Payload::Part(text, part))),
            Err(UpstreamError::Cancelled) => Err(Failure::Cancelled),
            Err(error) => {
                log::warn!("event=call_failed instance={} error=\"{error}\"", self.instance.entry.instance_id);
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
        Ok(self.session(deadline, &mut NoClient)?.capabilities.contains_key(capability))
    }

    /// A request of the gateway's own: the text of its `result`.
    pub fn ask(&self, method: &str, params: &[u8], deadline: Deadline) -> Result<Vec<u8>, UpstreamError> {
        let session = self.session(deadline, &mut NoClient)?;
        match self.ask_once(&session, method, params, deadline) {
            Err(UpstreamError::Status(404)) if session.id.is_some() => {
                self.forget(&session);
                self.ask_once(&*self.session(deadline, &mut NoClient)?, method, params, deadline)
            }
            result => result,
        }
    }

    fn ask_once(
        &self,
        session: &UpstreamSession,
        method: &str,
        params: &[u8],
        deadline: Deadline,
    ) -> Result<Vec<u8>, UpstreamError> {
        let id = self.link.next_id.fetch_add(1, Ordering::Relaxed);
        let mut reply = self.send(session, &request_text(id, method, params), deadline, true)?;
        let Response { text, part, is_error } = receive::response(&mut reply, id, deadline, &mut NoClient)?;
        if is_error { Err(UpstreamError::Refused(error_message(&text[part]))) } else { Ok(text[part].to_vec()) }
    }

    fn forward(
        self: &Arc<Self>,
        name: &str,
        call: &Call<'_>,
        deadline: Deadline,
        outlet: &mut Outlet<'_, '_>,
    ) -> Result<Response, UpstreamError> {
        let mut client = Client { outlet, progress: call.progress(), ticket: call.ticket };
        let session = self.session(deadline, &mut client)?;
        match self.forward_once(&session, name, call, deadline, &mut client) {
            // The instance was restarted under the same address: the request was not taken, so it may be repeated.
            Err(UpstreamError::Status(404)) if session.id.is_some() => {
                self.forget(&session);
                let session = self.session(deadline, &mut client)?;
                self.forward_once(&session, name, call, deadline, &mut client)
            }
            result => result,
        }
    }

    fn forward_once(
        self: &Arc<Self>,
        session: &Arc<UpstreamSession>,
        name: &str,
        call: &Call<'_>,
        deadline: Deadline,
        client: &mut Client<'_, '_, '_>,
    ) -> Result<Response, UpstreamError> {
        let id = self.link.next_id.fetch_add(1, Ordering::Relaxed);
        let message = request_text(id, call.method.as_str(), &rewritten_params(call, name, id));
        let mut reply = self.send(session, &message, deadline, false)?;
        let canceller = reply.canceller();
        let (upstream, cancelled_session) = (Arc::clone(self), Arc::clone(session));
        call.ticket.on_cancel(move || {
            canceller.cancel();
            upstream.notify_cancelled(&cancelled_session, id);
        });
        let result = receive::response(&mut reply, id, deadline, client);
        if call.ticket.is_cancelled() {
            return Err(UpstreamError::Cancelled);
        }
        if let Err(UpstreamError::Cancelled | UpstreamError::Http(ClientError::Timeout { .. })) = &result {
            // The client is gone or the time is over: nobody waits for the result any more.
            self.notify_cancelled(session, id);
        }
        result
    }

    /// Our session at the instance, opened if there is none yet. Two first calls may each open one; the later is kept.
    fn session(&self, deadline: Deadline, client: &mut dyn Waiting) -> Result<Arc<UpstreamSession>, UpstreamError> {
        if let Some(session) = lock(&self.link.session).clone() {
            return Ok(session);
        }
        let session = Arc::new(self.initialize(deadline, client)?);
        *lock(&self.link.session) = Some(Arc::clone(&session));
        Ok(session)
    }

    fn forget(&self, session: &Arc<UpstreamSession>) {
        let mut current = lock(&self.link.session);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *current = None;
        }
    }

    fn initialize(&self, deadline: Deadline, client: &mut dyn Waiting) -> Result<UpstreamSession, UpstreamError> {
        let id = self.link.next_id.fetch_add(1, Ordering::Relaxed);
        let params = json!({
            "protocolVersion": Revision::NEWEST.as_str(),
            "capabilities": {},
            "clientInfo": {"name": "dcc-mcp-server", "version": env!("CARGO_PKG_VERSION")},
        });
        let none = UpstreamSession { id: None, revision: String::new(), capabilities: Map::new() };
        let message = request_text(id, "initialize", &jsonrpc::to_bytes(&params));
        let mut reply = self.send(&none, &message, deadline, true)?;
        client.waits_for(&reply);
        let response = receive::response(&mut reply, id, deadline, client)?;
        let result = &response.text[response.part.clone()];
        if response.is_error {
            return Err(UpstreamError::Refused(error_message(result)));
        }
        let result: InitializeResult = serde_json::from_slice(result)
            .map_err(|_| UpstreamError::NotMcp("initialize was answered without a version"))?;
        let id = reply.head().header("mcp-session-id").map(str::to_owned);
        drop(reply);
        let session = UpstreamSession { id, revision: result.protocol_version, capabilities: result.capabilities };
        self.notify(&session, &jsonrpc::notification("notifications/initialized", None), deadline)?;
        Ok(session)
    }

    fn notify(&self, session: &UpstreamSession, message: &[u8], deadline: Deadline) -> Result<(), UpstreamError> {
        let mut reply = self.send(session, message, deadline, true)?;
        receive::wait_head(&mut reply, deadline, &mut NoClient)?;
        let mut rest = Vec::new();
        receive::rest(&mut reply, &mut rest, deadline, &mut NoClient)
    }

    fn notify_cancelled(&self, session: &UpstreamSession, id: u64) {
        let params =
            format!(r#"{{"requestId":{id},"reason":"the client cancelled the call, went away or waited too long"}}"#);
        let message = jsonrpc::notification("notifications/cancelled", Some(params.as_bytes()));
        if let Err(error) = self.notify(session, &message, Deadline::after(FAN_OUT_TIME_MAX)) {
            log::debug!("event=cancel_not_delivered instance={} error=\"{error}\"", self.instance.entry.instance_id);
        }
    }

    fn send(
        &self,
        session: &UpstreamSession,
        message: &[u8],
        deadline: Deadline,
        idempotent: bool,
    ) -> Result<Reply, UpstreamError> {
        let authorization = self.authorization();
        let accept = ("Accept", "application/json, text/event-stream");
        let mut headers = Vec::with_capacity(6);
        headers.extend([("Content-Type", "application/json"), accept, VIA]);
        if !session.revision.is_empty() {
            headers.push(("MCP-Protocol-Version", &session.revision));
        }
        headers.extend(session.id.as_deref().map(|id| ("Mcp-Session-Id", id)));
        headers.extend(authorization.as_deref().map(|value| ("Authorization", value)));
        let request =
            Outgoing { method: "POST", target: &self.link.target, headers: &headers, body: &[message], idempotent };
        Ok(self.link.pool.send(&request, deadline)?)
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
