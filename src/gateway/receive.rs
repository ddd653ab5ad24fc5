//! Reading what an instance answers to one request: a document, or a stream whose notifications and questions are handed
//! on in order.
//!
//! A stream that ends before its answer is asked for again from its last event on, as MCP has it (transports, resumability).
//!
//! **Invariant**: whoever waits is told of every wake-up, and may end the wait.
//! **Thread**: that of whoever calls.
//! **Bounds**: `BODY_BYTES_MAX`, the deadline, `RESUMPTIONS_MAX`.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::deadline::Deadline;
use crate::gateway::rewrite::{Response, response_in};
use crate::gateway::upstream_error::UpstreamError;
use crate::gateway::waiting::Waiting;
use crate::http::client_error::ClientError;
use crate::http::reply::{Reply, Wake};
use crate::http::sse::Decoder;
use crate::jsonrpc::{self, Message};
use crate::limits::BODY_BYTES_MAX;

/// The response that is waited for.
pub struct Awaited<'a> {
    pub id: u64,
    pub deadline: Deadline,
    /// Sends the instance an answer to what it asked on the way.
    pub answer: &'a dyn Fn(&[u8]),
    /// It belongs to a session, of which 404 says that it is over.
    pub in_session: bool,
    /// Asks for the rest of a stream that ended after the event of this id.
    pub resume: &'a dyn Fn(&str) -> Result<Reply, UpstreamError>,
}

const NO_ANSWER: UpstreamError = UpstreamError::NotMcp("its stream ended without an answer");
/// How often a stream is asked for again that brings nothing new.
const RESUMPTIONS_MAX: usize = 2;
/// The pause before that, where the instance names none.
const RETRY: Duration = Duration::from_secs(1);

impl Awaited<'static> {
    /// Of a request during which nothing can be answered.
    pub fn alone(id: u64, deadline: Deadline) -> Awaited<'static> {
        Awaited { id, deadline, answer: &|_| {}, in_session: true, resume: &|_| Err(NO_ANSWER) }
    }

    /// Of a request that belongs to no session (2026-07-28).
    pub fn stateless(id: u64, deadline: Deadline) -> Awaited<'static> {
        Awaited { in_session: false, ..Awaited::alone(id, deadline) }
    }
}

/// Reads the response, as one document or from a stream.
pub fn response(reply: &mut Reply, awaited: &Awaited<'_>, client: &mut dyn Waiting) -> Result<Response, UpstreamError> {
    wait_head(reply, awaited.deadline, client)?;
    let status = reply.head().status();
    if is_stream(reply) {
        return events(reply, awaited, client);
    }
    let mut text = Vec::new();
    rest(reply, &mut text, awaited.deadline, client)?;
    match response_in(&text, awaited.id) {
        _ if status == 404 && awaited.in_session => Err(UpstreamError::Status(status)),
        Some((part, is_error)) => Ok(Response { text, part, is_error }),
        None if status == 200 => Err(UpstreamError::NotMcp("its answer is no response to this request")),
        None => Err(UpstreamError::Status(status)),
    }
}

fn events(reply: &mut Reply, awaited: &Awaited<'_>, client: &mut dyn Waiting) -> Result<Response, UpstreamError> {
    let mut place = Place { last_id: None, retry: RETRY, in_vain: 0 };
    loop {
        let broken = match stream(reply, awaited, client, &mut place) {
            Ok(Some(response)) => return Ok(response),
            Ok(None) => None,
            Err(error) if has_broken(&error) => Some(error),
            Err(error) => return Err(error),
        };
        let Some(last_id) = place.last_id.clone().filter(|_| place.in_vain < RESUMPTIONS_MAX) else {
            return Err(broken.unwrap_or(NO_ANSWER));
        };
        if broken.is_none() {
            // It lets us go for the while, and so we let go whoever waits for us.
            client.release(place.retry).map_err(|_| UpstreamError::Cancelled)?;
        }
        // What broke is mostly an instance that died: whoever waits is to know at once.
        if broken.is_none() || place.in_vain > 0 {
            pause(place.retry, awaited.deadline, client)?;
        }
        place.in_vain += 1;
        match (awaited.resume)(&last_id) {
            Ok(resumed) => *reply = resumed,
            Err(error) => return Err(broken.unwrap_or(error)),
        }
        wait_head(reply, awaited.deadline, client)?;
        if !is_stream(reply) {
            return Err(broken.unwrap_or(NO_ANSWER));
        }
    }
}

fn has_broken(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::Http(ClientError::Closed { .. } | ClientError::Read { .. }))
}

/// How far a stream was read, whichever connections brought it.
struct Place {
    last_id: Option<String>,
    retry: Duration,
    /// Resumptions since the last event.
    in_vain: usize,
}

/// Reads one connection's part of a stream: up to the response, or to its end.
fn stream(
    reply: &mut Reply,
    awaited: &Awaited<'_>,
    client: &mut dyn Waiting,
    place: &mut Place,
) -> Result<Option<Response>, UpstreamError> {
    let mut decoder = Decoder::new();
    let mut bytes = Vec::new();
    loop {
        while let Some(event) = decoder.next().map_err(|_| UpstreamError::NotMcp("an event of it is too large"))? {
            place.retry = event.retry.map_or(place.retry, Duration::from_millis);
            if event.id.is_some() {
                (place.last_id, place.in_vain) = (event.id, 0);
            }
            let text = event.data.into_bytes();
            if let Some((part, is_error)) = response_in(&text, awaited.id) {
                return Ok(Some(Response { text, part, is_error }));
            }
            hand_on(&text, awaited, client)?;
        }
        if reply.is_complete() {
            return Ok(None);
        }
        bytes.clear();
        client.settle();
        let wake = reply.read(&mut bytes, &client.patience(awaited.deadline))?;
        client.woken(&wake)?;
        while let Some(answer) = client.answer() {
            (awaited.answer)(&answer);
        }
        decoder.push(&bytes);
    }
}

/// Waits before a stream is asked for again, as its server wishes.
fn pause(time: Duration, deadline: Deadline, client: &dyn Waiting) -> Result<(), UpstreamError> {
    const STEP: Duration = Duration::from_millis(50);
    let until = deadline.sooner(time);
    while !until.has_passed() {
        if client.is_cancelled() {
            return Err(UpstreamError::Cancelled);
        }
        std::thread::sleep(until.left().min(STEP));
    }
    Ok(())
}

fn is_stream(reply: &Reply) -> bool {
    let kind = reply.head().header("content-type");
    reply.head().status() == 200 && kind.is_some_and(|value| value.starts_with("text/event-stream"))
}

fn hand_on(text: &[u8], awaited: &Awaited<'_>, client: &mut dyn Waiting) -> Result<(), UpstreamError> {
    // Whoever cannot be written to has gone.
    let gone = |_| UpstreamError::Cancelled;
    match jsonrpc::parse_one(&String::from_utf8_lossy(text)) {
        Ok(Message::Notification { method, params }) => {
            client.relay(&method, params.map(RawValue::get), text).map_err(gone)
        }
        Ok(Message::Request { id, method, params }) => {
            let answer = client.ask(id.text(), &method, params.map(RawValue::get)).map_err(gone)?;
            answer.iter().for_each(|answer| (awaited.answer)(answer));
            Ok(())
        }
        Ok(Message::Response { .. }) | Err(_) => Ok(()),
    }
}

pub fn wait_head(reply: &mut Reply, deadline: Deadline, client: &mut dyn Waiting) -> Result<(), UpstreamError> {
    loop {
        let wake = reply.wait_head(&client.patience(deadline))?;
        client.woken(&wake)?;
        if matches!(wake, Wake::Ready) {
            return Ok(());
        }
    }
}

pub fn rest(
    reply: &mut Reply,
    out: &mut Vec<u8>,
    deadline: Deadline,
    client: &mut dyn Waiting,
) -> Result<(), UpstreamError> {
    while !reply.is_complete() {
        let wake = reply.read(out, &client.patience(deadline))?;
        client.woken(&wake)?;
        if out.len() > BODY_BYTES_MAX {
            return Err(UpstreamError::NotMcp("its answer is larger than 16 MiB"));
        }
    }
    Ok(())
}
