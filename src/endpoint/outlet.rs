//! The answer to one POST, as it grows: one JSON document, or, from the first notification on, an event stream.
//!
//! Which of the two is decided as late as possible: a call that says nothing on its way costs one write. One that is
//! silent for long becomes a stream too, for the comments that keep intermediaries from cutting it.
//!
//! A client that loses its stream comes back for the rest by GET (`trail.rs`); the call goes on meanwhile.
//!
//! **Invariant**: the first event of a stream carries an id and nothing else, so that no client takes a broken stream
//! for a server that cannot resume (an end without any id leaves some of them waiting for ever). Progress only grows.
//! **Thread**: the connection's.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Number;
use serde_json::value::RawValue;

use crate::endpoint::trail::{TrailTable, Writer};
use crate::http::server::Exchange;
use crate::http::sse;
use crate::jsonrpc;
use crate::limits::{SSE_COMMENT_EVERY, SSE_RETRY};
use crate::session::State;

pub struct Outlet<'x, 'c> {
    to: To<'x, 'c>,
    quiet_since: Instant,
}

/// Where it goes.
enum To<'x, 'c> {
    Exchange(Reply<'x, 'c>),
    Aside(&'x dyn Aside),
}

struct Reply<'x, 'c> {
    exchange: &'x mut Exchange<'c>,
    /// Header fields that go with every answer (session id, CORS).
    headers: &'x [(&'x str, &'x str)],
    /// None where a broken stream cannot be resumed.
    resumption: Option<Resumption<'x>>,
    /// Keeps the events, from the first one on.
    trail: Option<Writer<'x>>,
    /// Nothing more can be written to the connection.
    is_lost: bool,
}

/// Somebody else hands on what is said, and keeps the client from giving up.
pub trait Aside {
    fn say(&self, message: &[u8]) -> io::Result<()>;
    /// All that was asked so far can go out.
    fn settle(&self);
}

/// Whose stream it would be that is resumed, and which lists its client knows.
#[derive(Clone, Copy)]
pub struct Resumption<'x> {
    pub trails: &'x TrailTable,
    pub session: u128,
    pub state: State,
}

/// Progress of one call, as its client knows it.
#[derive(Default)]
pub struct Progress {
    /// The client's token, as JSON text.
    token: Option<String>,
    last: Option<f64>,
    /// The call itself has told progress: we add none of our own.
    told_by_call: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProgressParams<'a> {
    #[serde(borrow)]
    progress_token: &'a RawValue,
    progress: f64,
}

#[derive(Deserialize, Serialize)]
struct ScriptProgress {
    progress: Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProgressNotification<'a> {
    progress_token: &'a RawValue,
    #[serde(flatten)]
    told: ScriptProgress,
}

impl<'x, 'c> Outlet<'x, 'c> {
    /// `resumption` is none in a revision whose streams cannot be resumed.
    pub fn new(
        exchange: &'x mut Exchange<'c>,
        headers: &'x [(&'x str, &'x str)],
        resumption: Option<Resumption<'x>>,
    ) -> Outlet<'x, 'c> {
        Outlet::to(To::Exchange(Reply { exchange, headers, resumption, trail: None, is_lost: false }))
    }

    /// For a call that is not served by the connection of its client.
    pub fn aside(aside: &'x dyn Aside) -> Outlet<'x, 'c> {
        Outlet::to(To::Aside(aside))
    }

    fn to(to: To<'x, 'c>) -> Outlet<'x, 'c> {
        Outlet { to, quiet_since: Instant::now() }
    }

    /// The client's socket, to be watched while somebody else is waited for.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.to {
            To::Exchange(reply) if reply.is_connected() => reply.exchange.socket(),
            To::Exchange(_) | To::Aside(_) => None,
        }
    }

    pub fn is_streaming(&self) -> bool {
        matches!(&self.to, To::Exchange(reply) if reply.is_streaming())
    }

    /// Sends a notification ahead of the answer.
    pub fn notify(&mut self, message: &[u8]) -> io::Result<()> {
        self.quiet_since = Instant::now();
        match &mut self.to {
            To::Exchange(reply) => reply.notify(message),
            To::Aside(aside) => aside.say(message),
        }
    }

    /// All that the client was asked so far can go out: whoever asked waits now.
    pub fn settle(&self) {
        if let To::Aside(aside) = &self.to {
            aside.settle();
        }
    }

    /// To be called now and then while the answer is waited for: keeps intermediaries and clients from giving up. An error
    /// says that nobody waits for the answer any more.
    pub fn keep_alive(&mut self, progress: &mut Progress) -> io::Result<()> {
        let To::Exchange(reply) = &mut self.to else { return Ok(()) };
        if reply.trail.as_ref().is_some_and(|trail| trail.is_given_up(Instant::now())) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if self.quiet_since.elapsed() < SSE_COMMENT_EVERY {
            return Ok(());
        }
        self.quiet_since = Instant::now();
        reply.start_stream()?;
        match progress.still_running() {
            Some(message) => reply.notify(&message),
            None => reply.write(&sse::comment("")),
        }
    }

    /// How long to wait at most before the next `keep_alive`.
    pub fn keep_alive_due(&self) -> Duration {
        SSE_COMMENT_EVERY.saturating_sub(self.quiet_since.elapsed()).max(Duration::from_millis(10))
    }

    /// The client's connection has broken. True: it can come back for the rest, so the call goes on.
    pub fn lose(&mut self) -> bool {
        match &mut self.to {
            To::Exchange(reply) => reply.lose(),
            To::Aside(_) => false,
        }
    }

    /// Lets the client go while the call runs: it comes back for the rest after `retry`. Without effect where it cannot.
    pub fn release(&mut self, retry: Duration) -> io::Result<()> {
        match &mut self.to {
            To::Exchange(reply) => reply.release(retry),
            To::Aside(_) => Ok(()),
        }
    }

    /// Sends the answers and ends; `parts` make one JSON text. Without parts: 202, or the end of the stream.
    pub fn finish(self, status: u16, parts: &[&[u8]]) -> io::Result<()> {
        match self.to {
            To::Exchange(reply) => reply.finish(status, parts),
            // Its answer is not written here.
            To::Aside(_) => Ok(()),
        }
    }
}

impl Reply<'_, '_> {
    fn is_streaming(&self) -> bool {
        self.trail.is_some() || self.exchange.is_streaming()
    }

    fn notify(&mut self, message: &[u8]) -> io::Result<()> {
        self.start_stream()?;
        self.write_event(message)
    }

    fn lose(&mut self) -> bool {
        self.is_lost = true;
        self.trail.as_ref().inspect(|trail| trail.desert(Instant::now())).is_some()
    }

    fn release(&mut self, retry: Duration) -> io::Result<()> {
        if self.resumption.is_none() || !self.is_connected() {
            return Ok(());
        }
        // The thread of this connection runs the call and takes no other request.
        self.exchange.close_after();
        self.start_stream()?;
        self.write(&sse::retry(retry))?;
        if self.lose() && self.exchange.is_streaming() {
            // What fails here fails for a client that has gone by itself.
            let _ = self.exchange.finish();
            self.exchange.end_sending();
        }
        Ok(())
    }

    fn finish(mut self, status: u16, parts: &[&[u8]]) -> io::Result<()> {
        if self.is_streaming() {
            return self.finish_stream(parts);
        }
        if parts.is_empty() {
            return self.exchange.respond(202, self.headers, &[]);
        }
        let mut all = vec![("Content-Type", "application/json")];
        all.extend_from_slice(self.headers);
        self.exchange.respond(status, &all, parts)
    }

    fn finish_stream(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let last = (!parts.is_empty()).then(|| self.event(&parts.concat()));
        match last {
            _ if self.is_lost => Err(io::ErrorKind::ConnectionAborted.into()),
            Some(event) if self.is_connected() => self.exchange.write_last(&[&event]),
            _ => self.exchange.finish(),
        }
    }

    fn start_stream(&mut self) -> io::Result<()> {
        if self.is_streaming() {
            return Ok(());
        }
        let mut all = SSE_HEADERS.to_vec();
        all.extend_from_slice(self.headers);
        self.exchange.start_stream(200, &all)?;
        let Some(Resumption { trails, session, state }) = self.resumption else { return Ok(()) };
        self.trail = Some(trails.begin(session, state));
        self.write(&sse::retry(SSE_RETRY))?;
        self.write_event(b"")
    }

    fn write_event(&mut self, message: &[u8]) -> io::Result<()> {
        let event = self.event(message);
        self.write(&event)
    }

    /// An event as it is written, kept where the stream can be resumed.
    fn event(&self, message: &[u8]) -> Arc<Vec<u8>> {
        match &self.trail {
            Some(trail) => trail.push(message),
            None => Arc::new(sse::encode(None, message)),
        }
    }

    /// A connection that fails is an error only where its client cannot come back.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.is_connected() {
            return Ok(());
        }
        self.exchange.write(&[bytes]).or_else(|error| if self.lose() { Ok(()) } else { Err(error) })
    }

    /// The client is still at the connection on which it called.
    fn is_connected(&self) -> bool {
        !self.is_lost && self.trail.as_ref().is_none_or(Writer::is_first)
    }
}

/// Header fields of every event stream.
pub const SSE_HEADERS: [(&str, &str); 3] =
    [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")];

impl Progress {
    pub fn new(token: Option<&RawValue>) -> Progress {
        let usable = |token: &&RawValue| matches!(token.get().as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'));
        Progress { token: token.filter(usable).map(|token| token.get().to_owned()), ..Progress::default() }
    }

    pub fn is_wanted(&self) -> bool {
        self.token.is_some()
    }

    /// Progress told by whoever runs the call, under the client's own token. `None`: not asked for, not readable, or
    /// not more than was told already (utilities, progress: the value must increase).
    pub fn relay(&mut self, params: &str) -> Option<Vec<u8>> {
        let token = self.token.as_ref()?;
        let told: ProgressParams<'_> = serde_json::from_str(params).ok()?;
        if self.last.is_some_and(|last| told.progress <= last) {
            return None;
        }
        self.last = Some(told.progress);
        self.told_by_call = true;
        let params = jsonrpc::splice(params, &[(told.progress_token.get(), token)]);
        Some(jsonrpc::notification("notifications/progress", Some(&params)))
    }

    /// Progress told by a script: no token is in it.
    pub fn tell(&mut self, params: &str) -> Option<Vec<u8>> {
        let told: ScriptProgress = serde_json::from_str(params).ok()?;
        let token = self.token.as_ref()?;
        let told = ProgressNotification { progress_token: serde_json::from_str(token).ok()?, told };
        self.relay(&String::from_utf8_lossy(&jsonrpc::to_bytes(&told)))
    }

    /// A sign of life for a call that tells no progress of its own: clients give up after 60 s of silence.
    fn still_running(&mut self) -> Option<Vec<u8>> {
        let token = self.token.as_ref().filter(|_| !self.told_by_call)?;
        // Steps so small that the call's own first value is larger.
        let progress = self.last.map_or(1e-6, |last| last + 1e-6);
        self.last = Some(progress);
        let params = format!(r#"{{"progressToken":{token},"progress":{progress},"message":"still running"}}"#);
        Some(jsonrpc::notification("notifications/progress", Some(params.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    fn text(message: Option<Vec<u8>>) -> Option<String> {
        message.map(|message| String::from_utf8(message).unwrap())
    }

    #[test]
    fn relayed_progress_carries_the_clients_token_and_only_grows() {
        let token = raw("\"mine\"");
        let mut progress = Progress::new(Some(&token));
        let relayed = text(progress.relay(r#"{"progress":1,"progressToken":77,"total":3}"#));
        let expected = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1,"progressToken":"mine","total":3}}"#;
        assert_eq!(relayed.as_deref(), Some(expected));
        assert_eq!(progress.relay(r#"{"progress":1,"progressToken":77}"#), None);
        assert!(progress.relay(r#"{"progress":1.5,"progressToken":77}"#).is_some());
        assert_eq!(progress.still_running(), None);
        assert_eq!(progress.relay("not json"), None);
    }

    #[test]
    fn progress_of_scripts_gets_the_token_and_loses_what_is_no_progress() {
        let token = raw("7");
        let mut progress = Progress::new(Some(&token));
        let told =
            text(progress.tell(r#"{"progress":1,"total":3.5,"message":"a \u00e4","progressToken":"own","x":{}}"#));
        let expected = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":1,"total":3.5,"message":"a ä"}}"#;
        assert_eq!(told.as_deref(), Some(expected));
        for params in ["{}", "[]", r#"{"progress":"2"}"#, r#"{"progress":1}"#, r#"{"progress":2,"total":"all"}"#] {
            assert_eq!(progress.tell(params), None, "{params}");
        }
        assert!(progress.tell(r#"{"progress":2,"message":null}"#).is_some());
        assert_eq!(Progress::new(None).tell(r#"{"progress":1}"#), None);
    }

    #[test]
    fn signs_of_life_grow_and_leave_room() {
        let token = raw("3");
        let mut progress = Progress::new(Some(&token));
        assert!(text(progress.still_running()).unwrap().contains(r#""progressToken":3,"progress":0.000001,"#));
        assert!(text(progress.still_running()).unwrap().contains(r#""progress":0.000002,"#));
        assert!(progress.relay(r#"{"progress":0.1,"progressToken":9}"#).is_some());
        assert_eq!(Progress::new(None).still_running(), None);
        assert!(!Progress::new(Some(&raw("null"))).is_wanted());
    }
}
