//! Several messages in one body (2025-03-26), answered one after the other, together.
//!
//! **Invariant**: each request gets one answer, unless its client cancelled it.
//! **Thread**: the connection's.
//! **Bounds**: `BATCH_MESSAGES_MAX`; `RESULT_BYTES_MAX` for all answers, of which the last may go beyond. What comes after is
//! not served.

use std::io;

use crate::endpoint::outlet::Outlet;
use crate::endpoint::{Endpoint, Refused, respond_refused, response};
use crate::http::head::RequestHead;
use crate::http::server::Exchange;
use crate::jsonrpc::{self, ErrorObject, INTERNAL_ERROR, INVALID_REQUEST, Message, Unread};
use crate::limits::RESULT_BYTES_MAX;

impl Endpoint {
    /// Serves the messages of one body.
    pub(super) fn batch(
        &self,
        request: &RequestHead,
        exchange: &mut Exchange<'_>,
        headers: &[(&str, &str)],
        messages: Vec<Result<Message<'_>, Unread<'_>>>,
    ) -> io::Result<()> {
        let session = match self.session(request) {
            Ok(session) if session.revision.has_batches() => session,
            Ok(session) => {
                let text = format!("{} has no batches; send one message in a body", session.revision.as_str());
                let refused = Refused(400, ErrorObject::new(INVALID_REQUEST, text));
                return respond_refused(exchange, headers, None, &refused);
            }
            Err(refused) => return respond_refused(exchange, headers, None, &refused),
        };
        let mut outlet = Outlet::new(exchange, headers, Some(self.resumption(session)));
        let mut answers: Vec<Vec<u8>> = Vec::new();
        for message in messages {
            let is_full = answers.iter().map(Vec::len).sum::<usize>() > RESULT_BYTES_MAX;
            match message {
                Ok(Message::Request { id, .. }) if is_full => answers.push(jsonrpc::error(Some(id), &too_much())),
                Ok(Message::Request { id, method, params }) => {
                    let answer = self.answer(session, id, &method, params, &mut outlet);
                    answers.extend(response(id, &answer).map(|parts| parts.concat()));
                }
                Ok(other) => answers.extend(self.take(session, &other).err().map(|error| jsonrpc::error(None, &error))),
                Err(Unread { id, error }) => answers.push(jsonrpc::error(id, &error)),
            }
        }
        if answers.is_empty() {
            return outlet.finish(202, &[]);
        }
        outlet.finish(200, &[b"[", &answers.join(&b','), b"]"])
    }
}

/// To a request of a batch that is not served any more.
fn too_much() -> ErrorObject {
    let text = "the answers before this one are too large to go together; send fewer messages in one batch";
    ErrorObject::new(INTERNAL_ERROR, text)
}
