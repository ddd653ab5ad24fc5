//! The way to one instance: its connections, our sessions there, and sending on them.
//!
//! An instance asks a client only for what our session there declared. So there is a session for each set of
//! capabilities that a client of ours has, and clients that offer the same share one.
//!
//! With an instance that knows 2026-07-28 there are no sessions; a client that speaks it is served in it. An instance that
//! knows nothing else is spoken to in it for older clients too.
//!
//! **Invariant**: ids of requests are ours alone, in all sessions of one instance.
//! **Thread**: that of whoever calls.
//! **Bounds**: `ClientCapabilities::SETS` sessions; `POOL_IDLE_MAX`; the deadline.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::deadline::Deadline;
use crate::endpoint::access::Access;
use crate::gateway::modern::{self, Again, Fields};
use crate::gateway::receive::{self, Awaited};
use crate::gateway::rewrite::{VIA, error_message, request_text};
use crate::gateway::upstream_error::UpstreamError;
use crate::gateway::waiting::{NoClient, Waiting};
use crate::http::client::{Outgoing, Pool};
use crate::http::client_error::ClientError;
use crate::http::fields::Written;
use crate::http::reply::Reply;
use crate::json;
use crate::jsonrpc;
use crate::limits::FAN_OUT_TIME_MAX;
use crate::logging::Quoted;
use crate::mcp::{ClientCapabilities, LogLevel, MODERN, Revision};

pub struct Link {
    pub pool: Pool,
    /// Path of its MCP endpoint.
    pub target: String,
    /// What it knows our sessions by, by what they declare; each is opened by the first call that needs it.
    sessions: [Mutex<Option<Arc<UpstreamSession>>>; ClientCapabilities::SETS],
    /// What is known of the revision without sessions: nothing yet, that it is not spoken, or how.
    modern: Mutex<Option<Option<Arc<UpstreamSession>>>>,
    next_id: AtomicU64,
    pub in_flight: AtomicU32,
    /// Holds the token for instances of our own kind; it may change (SIGHUP).
    access: Option<Arc<Access>>,
}

pub struct UpstreamSession {
    pub has_id: bool,
    /// There is no session: every request says everything itself.
    pub is_modern: bool,
    /// The header fields of requests that carry a message.
    posts: Written,
    /// Those of requests for a stream.
    gets: Written,
    /// What the instance offers.
    pub capabilities: Map<String, Value>,
    /// What we declared.
    pub client: ClientCapabilities,
    /// The least important log messages that were asked for; where none were, what the instance thinks best.
    level: Mutex<Option<LogLevel>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiscoverResult {
    supported_versions: Vec<String>,
    #[serde(default)]
    capabilities: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult {
    protocol_version: String,
    #[serde(default)]
    capabilities: Map<String, Value>,
}

/// What a request is about.
#[derive(Default, Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    uri: Option<Cow<'a, str>>,
}

impl UpstreamSession {
    /// An error if the instance said what cannot be sent in a header field.
    fn new(
        id: Option<&str>,
        revision: Option<&str>,
        client: ClientCapabilities,
        capabilities: Map<String, Value>,
    ) -> Result<UpstreamSession, UpstreamError> {
        let mut common = vec![VIA];
        common.extend(revision.map(|revision| ("MCP-Protocol-Version", revision)));
        common.extend(id.map(|id| ("Mcp-Session-Id", id)));
        let with = |own: &[(&str, &str)]| {
            Written::new(&[&common, own].concat())
                .map_err(|_| UpstreamError::NotMcp("its version or session id cannot be sent in a header field"))
        };
        Ok(UpstreamSession {
            has_id: id.is_some(),
            is_modern: revision == Some(MODERN),
            posts: with(&[("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")])?,
            gets: with(&[("Accept", "text/event-stream")])?,
            capabilities,
            client,
            level: Mutex::default(),
        })
    }

    fn modern(client: ClientCapabilities, capabilities: Map<String, Value>) -> Result<UpstreamSession, UpstreamError> {
        UpstreamSession::new(None, Some(MODERN), client, capabilities)
    }
}

impl Link {
    /// Connects to nobody yet. `access` holds the token for an instance of our own kind.
    pub fn new(host: &str, port: u16, target: &str, access: Option<Arc<Access>>) -> Link {
        Link {
            pool: Pool::new(host, port),
            target: target.to_owned(),
            modern: Mutex::default(),
            sessions: std::array::from_fn(|_| Mutex::new(None)),
            next_id: AtomicU64::new(1),
            in_flight: AtomicU32::new(0),
            access,
        }
    }

    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// What we present to it in `Authorization`.
    pub fn authorization(&self) -> Option<String> {
        let token = self.access.as_ref().and_then(|access| access.own_token())?;
        Some(format!("Bearer {token}"))
    }

    /// The session for clients that offer this, opened if there is none yet. Two first calls may each open one; the
    /// earlier is kept, since what was subscribed to in it is told on its stream alone.
    pub fn session(
        &self,
        client: ClientCapabilities,
        deadline: Deadline,
        waiting: &mut dyn Waiting,
    ) -> Result<Arc<UpstreamSession>, UpstreamError> {
        if let Some(session) = self.place(client).clone() {
            return Ok(session);
        }
        let session = match self.initialize(client, deadline, waiting) {
            Ok(session) => Arc::new(session),
            // It may know only the revision that has no handshake.
            Err(error @ (UpstreamError::Refused(_) | UpstreamError::Status(_) | UpstreamError::NotMcp(_))) => {
                let modern = self.modern(deadline, waiting)?.ok_or(error)?;
                Arc::new(UpstreamSession::modern(client, modern.capabilities.clone())?)
            }
            Err(error) => return Err(error),
        };
        Ok(Arc::clone(self.place(client).get_or_insert(session)))
    }

    /// How the instance is spoken to in 2026-07-28, if it knows that; asked once.
    pub fn modern(
        &self,
        deadline: Deadline,
        waiting: &mut dyn Waiting,
    ) -> Result<Option<Arc<UpstreamSession>>, UpstreamError> {
        if let Some(known) = lock(&self.modern).clone() {
            return Ok(known);
        }
        let found = match self.discover(deadline.sooner(FAN_OUT_TIME_MAX), waiting) {
            Ok(found) => found.map(Arc::new),
            // Some servers answer nothing to what they do not know.
            Err(UpstreamError::Http(ClientError::Timeout { .. }) | UpstreamError::Status(_))
            | Err(UpstreamError::NotMcp(_)) => None,
            Err(error) => return Err(error),
        };
        *lock(&self.modern) = Some(found.clone());
        Ok(found)
    }

    pub fn forget_modern(&self) {
        *lock(&self.modern) = None;
    }

    fn discover(
        &self,
        deadline: Deadline,
        waiting: &mut dyn Waiting,
    ) -> Result<Option<UpstreamSession>, UpstreamError> {
        let session = UpstreamSession::modern(ClientCapabilities::NONE, Map::new())?;
        let id = self.next_id();
        let (message, fields) = self.message(&session, id, "server/discover", b"{}");
        let mut reply = self.send_with(&session, &fields, &message, deadline, true)?;
        waiting.waits_for(&reply);
        let response = receive::response(&mut reply, &Awaited::stateless(id, deadline), waiting)?;
        let found: Option<DiscoverResult> = json::read(&response.text[response.part.clone()]).ok();
        let found = found.filter(|found| !response.is_error && found.supported_versions.iter().any(|v| v == MODERN));
        found.map(|found| UpstreamSession::modern(ClientCapabilities::NONE, found.capabilities)).transpose()
    }

    /// A request of our own in the session's revision, with the header fields that belong to it.
    pub fn message(&self, session: &UpstreamSession, id: u64, method: &str, params: &[u8]) -> (Vec<u8>, Fields) {
        if !session.is_modern {
            return (request_text(id, method, params), Fields::new());
        }
        let named: Named<'_> = json::read(params).unwrap_or_default();
        let name = named.name.or(named.uri).filter(|_| modern::has_name(method));
        let params = modern::params(params, session.client, None, &Again::default());
        (request_text(id, method, &params), modern::fields(method, name.as_deref(), None, None))
    }

    /// The instance knows this session no more.
    pub fn forget(&self, session: &Arc<UpstreamSession>) {
        let mut current = self.place(session.client);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *current = None;
        }
    }

    /// Asks for log messages down to this level, if nobody has yet. They are not worth failing a call.
    pub fn lower_level(&self, session: &UpstreamSession, wanted: LogLevel, deadline: Deadline) {
        let mut level = lock(&session.level);
        if session.is_modern
            || wanted >= level.unwrap_or(LogLevel::Info)
            || !session.capabilities.contains_key("logging")
        {
            return;
        }
        *level = Some(wanted);
        drop(level);
        let id = self.next_id();
        let message = request_text(id, "logging/setLevel", &jsonrpc::to_bytes(&json!({"level": wanted})));
        if let Err(error) = self.tell(session, &message, deadline.sooner(FAN_OUT_TIME_MAX)) {
            log::debug!("event=level_not_set address={} error={}", self.pool.authority(), Quoted(&error));
        }
    }

    /// Sends a notification, or the answer to a question of the instance.
    pub fn tell(&self, session: &UpstreamSession, message: &[u8], deadline: Deadline) -> Result<(), UpstreamError> {
        let mut reply = self.send(session, message, deadline, true)?;
        receive::wait_head(&mut reply, deadline, &mut NoClient)?;
        let status = reply.head().status();
        receive::rest(&mut reply, &mut Vec::new(), deadline, &mut NoClient)?;
        if status < 300 { Ok(()) } else { Err(UpstreamError::Status(status)) }
    }

    pub fn tell_cancelled(&self, session: &UpstreamSession, id: u64) {
        let params =
            format!(r#"{{"requestId":{id},"reason":"the client cancelled the call, went away or waited too long"}}"#);
        let message = jsonrpc::notification("notifications/cancelled", Some(params.as_bytes()));
        if let Err(error) = self.tell(session, &message, Deadline::after(FAN_OUT_TIME_MAX)) {
            log::debug!("event=cancel_not_delivered address={} error={}", self.pool.authority(), Quoted(&error));
        }
    }

    pub fn send(
        &self,
        session: &UpstreamSession,
        message: &[u8],
        deadline: Deadline,
        idempotent: bool,
    ) -> Result<Reply, UpstreamError> {
        self.send_with(session, &Fields::new(), message, deadline, idempotent)
    }

    /// The same with header fields of this request.
    pub fn send_with(
        &self,
        session: &UpstreamSession,
        fields: &Fields,
        message: &[u8],
        deadline: Deadline,
        idempotent: bool,
    ) -> Result<Reply, UpstreamError> {
        let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.request("POST", &session.posts, fields, &[message], deadline, idempotent)
    }

    /// The rest of a stream that broke off after this event.
    pub fn resume(&self, session: &UpstreamSession, last_id: &str, deadline: Deadline) -> Result<Reply, UpstreamError> {
        self.request("GET", &session.gets, vec![("Last-Event-ID", last_id)], &[], deadline, true)
    }

    /// The stream of a session.
    pub fn follow(&self, session: &UpstreamSession, deadline: Deadline) -> Result<Reply, UpstreamError> {
        self.request("GET", &session.gets, Vec::new(), &[], deadline, true)
    }

    fn request(
        &self,
        method: &str,
        written: &Written,
        more: Vec<(&str, &str)>,
        body: &[&[u8]],
        deadline: Deadline,
        idempotent: bool,
    ) -> Result<Reply, UpstreamError> {
        let authorization = self.authorization();
        let mut headers = more;
        headers.extend(authorization.as_deref().map(|value| ("Authorization", value)));
        let written = Some(written);
        let request = Outgoing { method, target: &self.target, written, headers: &headers, body, idempotent };
        Ok(self.pool.send(&request, deadline)?)
    }

    fn place(&self, client: ClientCapabilities) -> MutexGuard<'_, Option<Arc<UpstreamSession>>> {
        lock(&self.sessions[client.bits() as usize])
    }

    fn initialize(
        &self,
        client: ClientCapabilities,
        deadline: Deadline,
        waiting: &mut dyn Waiting,
    ) -> Result<UpstreamSession, UpstreamError> {
        let id = self.next_id();
        let params = json!({
            "protocolVersion": Revision::NEWEST.as_str(),
            "capabilities": client.declared(),
            "clientInfo": {"name": "dcc-mcp-server", "version": env!("CARGO_PKG_VERSION")},
        });
        let message = request_text(id, "initialize", &jsonrpc::to_bytes(&params));
        let none = UpstreamSession::new(None, None, client, Map::new())?;
        let mut reply = self.send(&none, &message, deadline, true)?;
        waiting.waits_for(&reply);
        let response = receive::response(&mut reply, &Awaited::alone(id, deadline), waiting)?;
        let result = &response.text[response.part.clone()];
        if response.is_error {
            return Err(UpstreamError::Refused(error_message(result)));
        }
        let result: InitializeResult =
            json::read(result).map_err(|_| UpstreamError::NotMcp("initialize was answered without a version"))?;
        let id = reply.head().header("mcp-session-id");
        let session = UpstreamSession::new(id, Some(&result.protocol_version), client, result.capabilities)?;
        drop(reply);
        match self.tell(&session, &jsonrpc::notification("notifications/initialized", None), deadline) {
            // Some servers have no word for a notification; the session stands all the same.
            Ok(()) | Err(UpstreamError::Status(_)) => Ok(session),
            Err(error) => Err(error),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_instance_names_itself_by_is_sent_back_whole_or_not_at_all() {
        let session = |id: Option<&str>, revision: Option<&str>| {
            let session = UpstreamSession::new(id, revision, ClientCapabilities::NONE, Map::new())?;
            Ok::<_, UpstreamError>(String::from_utf8_lossy(session.gets.bytes()).into_owned())
        };
        let [via, accept] = ["Via: 1.1 dcc-mcp-gateway\r\n", "Accept: text/event-stream\r\n"];
        assert_eq!(session(None, None).expect("sound"), [via, accept].concat());
        let named = ["MCP-Protocol-Version: 2025-06-18\r\n", "Mcp-Session-Id: a b\r\n"].concat();
        assert_eq!(session(Some("a b"), Some("2025-06-18")).expect("sound"), [via, &named, accept].concat());
        assert!(session(Some("a\r\nX: y"), None).is_err());
        assert!(session(None, Some("2025-06-18\n")).is_err());
    }
}
