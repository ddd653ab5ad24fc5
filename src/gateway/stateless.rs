//! Calls at instances that speak 2026-07-28: those of a client that speaks it too go through as they are; for an older
//! client, what the instance asks between two requests is asked on the stream of the call.
//!
//! **Invariant**: state and answers of a client that speaks this revision are the instance's business alone.
//! **Thread**: the connection's, or that of the call.
//! **Bounds**: the call's deadline, for all repeats together; those of `endpoint/asking.rs`.

use crate::deadline::Deadline;
use crate::endpoint::service::Call;
use crate::gateway::link::UpstreamSession;
use crate::gateway::modern::{self, Again};
use crate::gateway::receive::{self, Awaited};
use crate::gateway::rewrite::{Response, passed_params, request_text, rewritten_params};
use crate::gateway::upstream::Upstream;
use crate::gateway::upstream_error::UpstreamError;
use crate::gateway::waiting::{Client, NoClient};
use crate::mcp::mirror::Mirror;

impl Upstream {
    /// Hands on a call of a client that speaks this revision.
    pub(super) fn hand_through(
        &self,
        session: &UpstreamSession,
        (name, mirror): (&str, Option<&Mirror>),
        call: &Call<'_>,
        deadline: Deadline,
        client: &mut Client<'_, '_, '_>,
    ) -> Result<Response, UpstreamError> {
        let id = self.link.next_id();
        let params = passed_params(call, name, id);
        self.request_once(session, id, &params, (name, mirror), call, deadline, client)
    }

    /// Calls for a client of an older revision, and repeats the call with what it answers for as long as it is asked.
    pub(super) fn ask_and_repeat(
        &self,
        session: &UpstreamSession,
        about: (&str, Option<&Mirror>),
        call: &Call<'_>,
        deadline: Deadline,
        client: &mut Client<'_, '_, '_>,
    ) -> Result<Response, UpstreamError> {
        let mut again = Again::default();
        loop {
            let id = self.link.next_id();
            let params = rewritten_params(call, about.0, id);
            let params = modern::params(&params, session.client, call.log_level, &again);
            let response = self.request_once(session, id, &params, about, call, deadline, client)?;
            let result = &response.text[response.part.clone()];
            let required = if response.is_error { None } else { modern::input_required(result) };
            let Some(required) = required else { return Ok(response) };
            again = Again { responses: client.put(&required.requests, deadline)?, state: required.state };
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one request, each with another source")]
    fn request_once(
        &self,
        session: &UpstreamSession,
        id: u64,
        params: &[u8],
        (name, mirror): (&str, Option<&Mirror>),
        call: &Call<'_>,
        deadline: Deadline,
        client: &mut Client<'_, '_, '_>,
    ) -> Result<Response, UpstreamError> {
        let method = call.method.as_str();
        let named = Some(name).filter(|_| modern::has_name(method));
        let fields = modern::fields(method, named, mirror, call.arguments);
        let message = request_text(id, method, params);
        let mut reply = self.link.send_with(session, &fields, &message, deadline, false)?;
        let canceller = reply.canceller();
        // Closing the connection is what cancels a call in this revision.
        call.ticket.on_cancel(move || canceller.cancel());
        let result = receive::response(&mut reply, &Awaited::stateless(id, deadline), client);
        match result {
            _ if call.ticket.is_cancelled() => Err(UpstreamError::Cancelled),
            Err(UpstreamError::Status(status)) => {
                // It may have been replaced by something older.
                self.link.forget_modern();
                Err(UpstreamError::Status(status))
            }
            result => result,
        }
    }

    /// Whether the instance speaks this revision.
    pub fn is_stateless(&self, deadline: Deadline) -> Result<bool, UpstreamError> {
        Ok(self.link.modern(deadline, &mut NoClient)?.is_some())
    }
}
