//! What an endpoint serves, and the forms in which calls go in and answers come out.
//!
//! **Invariant**: what an instance answered passes as the text it was.
//! Left out on purpose: HTTP and sessions (`endpoint.rs`); which tools there are (`instance.rs`, `gateway.rs`).

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::deadline::Deadline;
use crate::endpoint::asking::Asker;
use crate::endpoint::calls::Ticket;
use crate::endpoint::outlet::{Outlet, Progress};
use crate::jsonrpc::{self, ErrorObject};
use crate::mcp::{CallToolResult, LogLevel, Revision};
use crate::session::State;

/// What is served: the tools of one instance, or of all.
pub trait Service: Send + Sync + 'static {
    /// Marks of the lists as they are now.
    fn state(&self) -> State;

    /// The result of `tools/list`, encoded.
    fn list_tools(&self, revision: Revision) -> Result<Arc<[u8]>, ErrorObject>;

    /// Runs a tool and waits for its result.
    fn call_tool(&self, call: &ToolCall<'_>, outlet: &mut Outlet<'_, '_>) -> Answer;

    /// What an agent should know before it begins.
    fn instructions(&self) -> &str;
}

/// One `tools/call`, with the parts of it that a service may look at.
pub struct ToolCall<'a> {
    pub name: Cow<'a, str>,
    /// The name as JSON text inside `params`, to be replaced there.
    pub name_text: &'a str,
    pub params: &'a str,
    pub arguments: Option<&'a str>,
    /// `_meta` as JSON text inside `params`.
    pub meta: Option<&'a str>,
    /// The progress token as JSON text inside `meta`.
    pub progress_token: Option<&'a RawValue>,
    /// Log messages are wanted from this level on.
    pub log_level: Option<LogLevel>,
    /// How the client can be asked something while the call runs.
    pub asker: Option<Asker<'a>>,
    pub ticket: &'a Ticket<'a>,
    pub deadline: Deadline,
}

/// The answer to a request: the JSON text of `result`, or why there is none.
pub type Answer = Result<Payload, Failure>;

/// JSON text on its way through.
pub enum Payload {
    Owned(Vec<u8>),
    Shared(Arc<[u8]>),
    /// A part of what an instance answered.
    Part(Vec<u8>, Range<usize>),
}

pub enum Failure {
    /// The JSON text of the `error` member.
    Error(Payload),
    /// The client took the call back, or is gone: there is nobody to answer.
    Cancelled,
}

impl Payload {
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Payload::Owned(bytes) => bytes,
            Payload::Shared(bytes) => bytes,
            Payload::Part(bytes, range) => &bytes[range.clone()],
        }
    }
}

impl From<ErrorObject> for Failure {
    fn from(error: ErrorObject) -> Failure {
        Failure::Error(Payload::Owned(jsonrpc::to_bytes(&error)))
    }
}

impl ToolCall<'_> {
    pub fn progress(&self) -> Progress {
        Progress::new(self.progress_token)
    }
}

/// A result of our own as an answer.
pub fn encoded(result: &CallToolResult) -> Payload {
    Payload::Owned(jsonrpc::to_bytes(result))
}

pub fn unknown_tool(name: &str) -> ErrorObject {
    ErrorObject::invalid_params(format!("unknown tool: {name}; tools/list shows what there is"))
}
