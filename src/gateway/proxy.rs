//! `/mcp/{instance}` and `/mcp/dcc/{type}`: requests handed through to one instance as they are.
//!
//! Bodies and streams pass unread. On the way by type, the session id is prefixed with the instance that opened it
//! (`<instance id>~<its own session id>`), so that a session stays where it began, at whichever replica it arrives.
//!
//! **Invariant**: only the header fields of MCP are handed on, in both directions; a client's token never is.
//! **Thread**: the connection's.
//! **Bounds**: those of `http/`; a POST gets the time of the instance's slowest tool and `ANSWER_GRACE`, as the instance's
//! own word about a time-out says more than ours; a GET stream ends after `STREAM_SILENCE_MAX` without a byte.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::deadline::Deadline;
use crate::gateway::rewrite::VIA;
use crate::gateway::snapshot::{Member, Snapshot};
use crate::http::client::Outgoing;
use crate::http::client_error::ClientError;
use crate::http::head::{Method, RequestHead};
use crate::http::reply::{Patience, Reply, Wake};
use crate::http::server::Exchange;
use crate::http::sse;
use crate::jsonrpc::{self, Body, ErrorObject, INTERNAL_ERROR, Message};
use crate::limits::{BODY_BYTES_MAX, SSE_COMMENT_EVERY};
use crate::logging::Quoted;
use crate::mcp::mirror;
use crate::status::{not_found, respond_json};

/// More than twice the pause between comment lines: a stream that is silent for longer is dead.
const STREAM_SILENCE_MAX: Duration = Duration::from_secs(3 * SSE_COMMENT_EVERY.as_secs());
/// How often a silent stream is looked after.
const STREAM_TICK: Duration = Duration::from_millis(500);
/// Time beyond a call's own, for the instance to end it and say so.
const ANSWER_GRACE: Duration = Duration::from_secs(2);
/// No stream is older than this; its client reconnects.
const STREAM_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

const REQUEST_HEADERS: [&str; 6] =
    ["accept", "content-type", "last-event-id", "mcp-protocol-version", "mcp-method", "mcp-name"];
const RESPONSE_HEADERS: [&str; 5] = ["content-type", "cache-control", "allow", "retry-after", "x-accel-buffering"];

/// Where a request goes, and whether its session id carries the instance.
pub struct Destination<'s> {
    pub member: &'s Member,
    pub session_prefix: Option<String>,
}

/// One request on its way.
pub struct Passage<'p> {
    pub request: &'p RequestHead,
    pub headers: &'p [(&'p str, &'p str)],
    pub call_timeout: Duration,
    /// The process is stopping: streams end, so that their clients reconnect elsewhere.
    pub draining: &'p AtomicBool,
}

/// The instance whose id begins with `prefix`, or what to answer instead.
pub fn by_prefix<'s>(snapshot: &'s Snapshot, prefix: &str) -> Result<Destination<'s>, (u16, String)> {
    match snapshot.by_prefix(prefix).as_slice() {
        [member] => Ok(Destination { member, session_prefix: None }),
        [] => Err((404, format!("no live instance has an id that begins with {prefix:?}; /instances lists them"))),
        several => Err((
            400,
            format!("{} live instances have an id that begins with {prefix:?}; use more of it", several.len()),
        )),
    }
}

/// The instance that the session names, or the best of the type: available before busy, then the least in flight.
pub fn by_type<'s>(snapshot: &'s Snapshot, dcc: &str, session: Option<&str>) -> Result<Destination<'s>, (u16, String)> {
    let chosen = session.and_then(|session| session.split_once('~')).map(|(instance, _)| instance);
    let pinned = snapshot.by_type(Some(dcc)).find(|member| chosen == Some(member.id()));
    let best = || snapshot.by_type(Some(dcc)).min_by_key(|member| (member.load_rank(), member.upstream.in_flight()));
    match pinned.or_else(best) {
        Some(member) => Ok(Destination { member, session_prefix: Some(format!("{}~", member.id())) }),
        None => Err((404, format!("no live instance is of type {dcc:?}; /instances lists them"))),
    }
}

/// Hands the request through and the answer back.
pub fn forward(passage: &Passage<'_>, to: &Destination<'_>, exchange: &mut Exchange<'_>) -> io::Result<()> {
    let body = match exchange.read_body() {
        Ok(body) => body,
        Err(refusal) => return exchange.refuse(&refusal),
    };
    let _counted = to.member.upstream.count();
    match send(passage, to, &body) {
        Ok((mut reply, deadline)) => relay(passage, to, exchange, &mut reply, deadline, &body),
        Err(error) => failed(passage, to, exchange, &error, &body),
    }
}

/// Answers a request whose destination is not there: in the terms of MCP where a session stands, since a client that
/// has one takes a 404 for the end of it and many never recover.
pub fn nowhere(passage: &Passage<'_>, exchange: &mut Exchange<'_>, status: u16, message: &str) -> io::Result<()> {
    let body = match exchange.read_body() {
        Ok(body) => body,
        Err(refusal) => return exchange.refuse(&refusal),
    };
    match jsonrpc::parse(&body) {
        Ok(Body::One(Message::Request { id, .. })) if passage.request.header("mcp-session-id").is_some() => {
            let error = ErrorObject::new(INTERNAL_ERROR, message);
            respond_json(exchange, 200, passage.headers, &jsonrpc::error(Some(id), &error))
        }
        _ if status == 404 => not_found(exchange, passage.headers, message),
        _ => {
            let body = json!({"error": {"code": "ambiguous_instance", "message": message}});
            respond_json(exchange, status, passage.headers, &jsonrpc::to_bytes(&body))
        }
    }
}

fn send(passage: &Passage<'_>, to: &Destination<'_>, body: &[u8]) -> Result<(Reply, Deadline), ClientError> {
    let upstream = &to.member.upstream;
    let request = passage.request;
    let authorization = upstream.authorization();
    let mut headers: Vec<(&str, &str)> =
        REQUEST_HEADERS.iter().filter_map(|name| Some((*name, request.header(name)?))).collect();
    headers.extend(request.headers().filter(|(name, _)| mirror::is_field(name)));
    if let Some(session) = request.header("mcp-session-id") {
        // Whichever instance opened it: another of ours goes on with the session of one that is gone.
        let own = to.session_prefix.as_ref().and_then(|_| session.split_once('~')).map_or(session, |(_, own)| own);
        headers.push(("Mcp-Session-Id", own));
    }
    headers.push(VIA);
    headers.extend(authorization.as_deref().map(|value| ("Authorization", value)));
    let is_stream = request.method() == Method::Get;
    let call_time = passage.call_timeout.max(to.member.slowest_tool) + ANSWER_GRACE;
    let deadline = Deadline::after(if is_stream { STREAM_AGE_MAX } else { call_time });
    let parts = [body];
    let outgoing = Outgoing {
        method: request.method().as_str(),
        target: upstream.target(),
        written: None,
        headers: &headers,
        body: if body.is_empty() { &[] } else { &parts },
        idempotent: request.method() != Method::Post,
    };
    Ok((upstream.pool().send(&outgoing, deadline)?, deadline))
}

fn relay(
    passage: &Passage<'_>,
    to: &Destination<'_>,
    exchange: &mut Exchange<'_>,
    reply: &mut Reply,
    deadline: Deadline,
    body: &[u8],
) -> io::Result<()> {
    loop {
        let patience = Patience { deadline, tick: None, watched: exchange.socket(), called: None };
        match reply.wait_head(&patience) {
            Ok(Wake::Ready) => break,
            Ok(Wake::Tick | Wake::Called) => {}
            Ok(Wake::WatchedGone) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Err(error) => return failed(passage, to, exchange, &error, body),
        }
    }
    let head = reply.head();
    let session = head.header("mcp-session-id");
    let session = session.map(|id| format!("{}{id}", to.session_prefix.as_deref().unwrap_or_default()));
    let mut named: Vec<(String, String)> =
        RESPONSE_HEADERS.iter().filter_map(|name| Some(((*name).to_owned(), head.header(name)?.to_owned()))).collect();
    named.extend(session.map(|id| ("Mcp-Session-Id".to_owned(), id)));
    let mut headers: Vec<(&str, &str)> = named.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    headers.extend_from_slice(passage.headers);
    let status = head.status();
    if head.header("content-type").is_some_and(|value| value.starts_with("text/event-stream")) {
        exchange.start_stream(status, &headers)?;
        return match passage.request.method() {
            Method::Get => relay_stream(passage, exchange, reply, deadline),
            _ => relay_answer(to, exchange, reply, deadline, body),
        };
    }
    match read_whole(to, exchange, reply, deadline) {
        Ok(answer) if answer.is_empty() => exchange.respond(status, &headers, &[]),
        Ok(answer) => exchange.respond(status, &headers, &[&answer]),
        Err(Some(error)) => failed(passage, to, exchange, &error, body),
        Err(None) => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

/// A stream of notifications, which may go on for ever.
fn relay_stream(
    passage: &Passage<'_>,
    exchange: &mut Exchange<'_>,
    reply: &mut Reply,
    deadline: Deadline,
) -> io::Result<()> {
    let mut piece = Vec::new();
    let mut heard = Instant::now();
    while !reply.is_complete() && heard.elapsed() < STREAM_SILENCE_MAX && !passage.draining.load(Ordering::Acquire) {
        let patience = Patience { deadline, tick: Some(STREAM_TICK), watched: exchange.socket(), called: None };
        match reply.read(&mut piece, &patience) {
            Ok(Wake::Ready) => exchange.write(&[&piece])?,
            Ok(Wake::Tick | Wake::Called) => continue,
            // What is left is to end the stream: its client reconnects, here or elsewhere.
            Ok(Wake::WatchedGone) | Err(_) => break,
        }
        piece.clear();
        heard = Instant::now();
    }
    exchange.finish()
}

/// An answer that comes as a stream. One that breaks off ends with an error, since clients would wait for the answer.
fn relay_answer(
    to: &Destination<'_>,
    exchange: &mut Exchange<'_>,
    reply: &mut Reply,
    deadline: Deadline,
    body: &[u8],
) -> io::Result<()> {
    let mut piece = Vec::new();
    while !reply.is_complete() {
        piece.clear();
        let patience = Patience { deadline, tick: None, watched: exchange.socket(), called: None };
        match reply.read(&mut piece, &patience) {
            Ok(Wake::Ready) => exchange.write(&[&piece])?,
            Ok(Wake::Tick | Wake::Called) => {}
            Ok(Wake::WatchedGone) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Err(error) => {
                if let Some(message) = failure(to, &error, body) {
                    // The blank line ends an event that was cut.
                    exchange.write(&[b"\n\n", &sse::encode(None, &message)])?;
                }
                break;
            }
        }
    }
    exchange.finish()
}

/// The whole body; `Err(None)`: the client is gone.
fn read_whole(
    to: &Destination<'_>,
    exchange: &Exchange<'_>,
    reply: &mut Reply,
    deadline: Deadline,
) -> Result<Vec<u8>, Option<ClientError>> {
    let mut answer = Vec::new();
    while !reply.is_complete() {
        let patience = Patience { deadline, tick: None, watched: exchange.socket(), called: None };
        if let Wake::WatchedGone = reply.read(&mut answer, &patience).map_err(Some)? {
            return Err(None);
        }
        if answer.len() > BODY_BYTES_MAX {
            // A part of it must not pass for the whole.
            let address = to.member.upstream.pool().authority().to_owned();
            return Err(Some(ClientError::TooLarge { address, limit: BODY_BYTES_MAX }));
        }
    }
    Ok(answer)
}

/// The instance did not answer: told as a JSON-RPC error to a request, as 502 or 504 to anything else.
fn failed(
    passage: &Passage<'_>,
    to: &Destination<'_>,
    exchange: &mut Exchange<'_>,
    error: &ClientError,
    body: &[u8],
) -> io::Result<()> {
    if let Some(message) = failure(to, error, body) {
        return respond_json(exchange, 200, passage.headers, &message);
    }
    let (status, code) = match error {
        ClientError::Timeout { .. } => (504, "instance_timeout"),
        _ => (502, "instance_unreachable"),
    };
    let body = json!({"error": {"code": code, "message": explained(to, error)}});
    respond_json(exchange, status, passage.headers, &jsonrpc::to_bytes(&body))
}

/// The JSON-RPC error that answers the request in `body`, if it is one.
fn failure(to: &Destination<'_>, error: &ClientError, body: &[u8]) -> Option<Vec<u8>> {
    log::warn!("event=proxy_failed instance={} error={}", to.member.id(), Quoted(&error));
    let Ok(Body::One(Message::Request { id, .. })) = jsonrpc::parse(body) else { return None };
    Some(jsonrpc::error(Some(id), &ErrorObject::new(INTERNAL_ERROR, explained(to, error))))
}

fn explained(to: &Destination<'_>, error: &ClientError) -> String {
    format!("{}: {error}; /instances lists what is live", to.member.upstream.instance.describe())
}
