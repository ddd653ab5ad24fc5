//! Reading what an instance answers to one request: a document, or a stream whose notifications and questions are handed
//! on in order.
//!
//! **Invariant**: whoever waits is told of every wake-up, and may end the wait.
//! **Thread**: that of whoever calls.
//! **Bounds**: `BODY_BYTES_MAX`, the deadline.

use serde_json::value::RawValue;

use crate::deadline::Deadline;
use crate::gateway::rewrite::{Response, response_in};
use crate::gateway::upstream_error::UpstreamError;
use crate::gateway::waiting::Waiting;
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
}

impl Awaited<'static> {
    /// Of a request during which nothing can be answered.
    pub fn alone(id: u64, deadline: Deadline) -> Awaited<'static> {
        Awaited { id, deadline, answer: &|_| {}, in_session: true }
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
    let streamed = reply.head().header("content-type").is_some_and(|value| value.starts_with("text/event-stream"));
    if status == 200 && streamed {
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
    let mut decoder = Decoder::new();
    let mut bytes = Vec::new();
    loop {
        while let Some(event) = decoder.next().map_err(|_| UpstreamError::NotMcp("an event of it is too large"))? {
            let text = event.data.into_bytes();
            if let Some((part, is_error)) = response_in(&text, awaited.id) {
                return Ok(Response { text, part, is_error });
            }
            hand_on(&text, awaited, client)?;
        }
        if reply.is_complete() {
            return Err(UpstreamError::NotMcp("its stream ended without an answer"));
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
