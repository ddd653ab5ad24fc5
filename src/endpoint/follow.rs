//! The GET stream of a session, the rest of a call's stream that broke, and the resources that a session wants to hear of.
//!
//! **Invariant**: a session is told only of resources to which it subscribed, each by the URI that it used.
//! **Thread**: the connection's.
//! **Bounds**: `STREAMS_MAX`; those of `subscriptions.rs`.

use std::io;
use std::time::Instant;

use crossbeam_channel::RecvTimeoutError;
use serde_json::value::RawValue;

use crate::deadline::Deadline;
use crate::endpoint::outlet::SSE_HEADERS;
use crate::endpoint::service::{Answer, Failure, Payload};
use crate::endpoint::trail::{Next, Reader};
use crate::endpoint::{Endpoint, Refused, media, params, respond_refused, too_many_streams};
use crate::http::head::RequestHead;
use crate::http::server::Exchange;
use crate::http::sse;
use crate::hub::Told;
use crate::jsonrpc::{ErrorObject, INTERNAL_ERROR, INVALID_REQUEST};
use crate::limits::{FAN_OUT_TIME_MAX, SSE_COMMENT_EVERY, SSE_RETRY};
use crate::mcp::params::SubscribeParams;

impl Endpoint {
    /// The GET stream of a session: what changes in the lists, and in resources to which it subscribed.
    pub(super) fn follow(
        &self,
        request: &RequestHead,
        exchange: &mut Exchange<'_>,
        headers: &[(&str, &str)],
    ) -> io::Result<()> {
        if !media::accepts(request, "text/event-stream") {
            let error = ErrorObject::new(INVALID_REQUEST, "a stream is opened with \"Accept: text/event-stream\"");
            return respond_refused(exchange, headers, None, &Refused(406, error));
        }
        let session = match self.session(request) {
            Ok(session) => session,
            Err(refused) => return respond_refused(exchange, headers, None, &refused),
        };
        let last_id = request.header("last-event-id");
        if let Some(rest) = last_id.and_then(|id| self.trails.resume(session.key, id)) {
            return resume(rest, exchange, headers);
        }
        // A successor that had not looked for a moment would tell of a change back to what it saw last, and of the next.
        self.service.settled();
        let told = last_id.map_or(Told::State(session.born), Told::parse);
        let Ok(stream) = self.hub.open(session.key, told) else {
            return exchange.refuse(&too_many_streams());
        };
        let mut all = SSE_HEADERS.to_vec();
        all.extend_from_slice(headers);
        exchange.start_stream(200, &all)?;
        exchange.write(&[&sse::retry(SSE_RETRY)])?;
        loop {
            match stream.next(SSE_COMMENT_EVERY) {
                Ok(event) => exchange.write(&[&event])?,
                Err(RecvTimeoutError::Timeout) => exchange.write(&[&sse::comment("")])?,
                Err(RecvTimeoutError::Disconnected) => return exchange.finish(),
            }
        }
    }

    /// `resources/subscribe`, or its contrary.
    pub(super) fn subscribe(&self, session: u128, params: Option<&RawValue>, wanted: bool) -> Answer {
        let SubscribeParams { uri } = params::read(params)?;
        if wanted {
            self.watch(session, &uri, Deadline::after(FAN_OUT_TIME_MAX))?;
        } else {
            self.hub.subscriptions.remove(session, &uri);
        }
        Ok(Payload::Owned(b"{}".to_vec()))
    }

    /// From now on the session is told when the resource changes. Entered first, so that no change falls in between.
    pub(super) fn watch(&self, session: u128, uri: &str, deadline: Deadline) -> Result<(), Failure> {
        let subscriptions = &self.hub.subscriptions;
        subscriptions.add(session, uri, Instant::now()).map_err(|_| {
            ErrorObject::new(INTERNAL_ERROR, "too many resources are subscribed to; unsubscribe from some first")
        })?;
        let watched = self.service.watch(uri, deadline);
        watched.inspect_err(|_| subscriptions.remove(session, uri))
    }
}

/// The rest of a call's stream, for a client that has lost it.
fn resume(mut rest: Reader, exchange: &mut Exchange<'_>, headers: &[(&str, &str)]) -> io::Result<()> {
    let mut all = SSE_HEADERS.to_vec();
    all.extend_from_slice(headers);
    exchange.start_stream(200, &all)?;
    exchange.write(&[&sse::retry(SSE_RETRY)])?;
    loop {
        match rest.next(SSE_COMMENT_EVERY) {
            Next::Event(event) => exchange.write(&[&event])?,
            Next::Silence => exchange.write(&[&sse::comment("")])?,
            Next::End => return exchange.finish(),
        }
    }
}
