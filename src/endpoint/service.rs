//! What an endpoint serves, and the forms in which calls go in and answers come out.
//!
//! **Invariant**: what an instance answered passes as the text it was.
//! Left out on purpose: HTTP and sessions (`endpoint.rs`); which tools there are (`instance.rs`, `gateway.rs`).

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use serde_json::json;
use serde_json::value::RawValue;

use crate::deadline::Deadline;
use crate::endpoint::asking::Asker;
use crate::endpoint::calls::Ticket;
use crate::endpoint::outlet::{Outlet, Progress};
use crate::jsonrpc::{self, ErrorObject};
use crate::limits::ECHO_CHARS_MAX;
use crate::mcp::lists::Listed;
use crate::mcp::mirror::Mirror;
use crate::mcp::tasks::TaskUse;
use crate::mcp::{CallToolResult, LogLevel, RESOURCE_NOT_FOUND, Revision};
use crate::session::State;

/// What is served: the tools of one instance, or of all.
pub trait Service: Send + Sync + 'static {
    /// Marks of the lists as they are now.
    fn state(&self) -> State;

    /// As `state`, once that can be relied on: what a client is told to have changed is told against it.
    fn settled(&self) -> State {
        self.state()
    }

    /// The result of a list method, encoded; no revision is 2026-07-28.
    fn list(&self, listed: Listed, revision: Option<Revision>) -> Result<Arc<[u8]>, ErrorObject>;

    /// Runs a tool, fills in a prompt, reads a resource or completes an argument, and waits for the result.
    fn call(&self, call: &Call<'_>, outlet: &mut Outlet<'_, '_>) -> Answer;

    /// Whether what runs for this call may ask its client something.
    fn asking(&self, call: &Call<'_>) -> Asking;

    /// Sees to it that the hub is told when this resource changes.
    fn watch(&self, uri: &str, deadline: Deadline) -> Result<(), Failure>;

    /// Which arguments of a tool header fields repeat; `None` where there is no such tool or it repeats none.
    fn mirror(&self, tool: &str) -> Option<Arc<Mirror>>;

    /// The tasks of an owner, encoded; a page from the cursor on.
    fn list_tasks(&self, owner: &str, cursor: Option<&str>, deadline: Deadline) -> Answer;

    /// What an agent should know before it begins.
    fn instructions(&self) -> &str;
}

/// Who asks the client of a call, if anybody does, in a revision without streams for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    Nobody,
    /// What this process runs: its questions are held here for the client's next request.
    Here,
    /// Whoever the call is handed to (another server, a task) sees the client's requests itself.
    Elsewhere,
}

/// The methods that work on one of the things that are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallMethod {
    CallTool,
    GetPrompt,
    ReadResource,
    /// Of a prompt's argument; the call's name is the prompt's.
    CompletePrompt,
    /// Of a template's variable; the call's name is the template.
    CompleteResource,
    /// The call's name is the task's id, here and below.
    GetTask,
    TaskResult,
    CancelTask,
    UpdateTask,
}

/// One request for one of these, with the parts of it that a service may look at.
pub struct Call<'a> {
    pub method: CallMethod,
    /// Of the tool or prompt; of a resource, the URI.
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
    /// Of the stateless revision.
    pub is_modern: bool,
    /// How the client can be asked something while the call runs.
    pub asker: Option<Asker<'a>>,
    /// `task` as JSON text inside `params`.
    pub task: Option<&'a str>,
    /// What the client knows of tasks.
    pub tasks: TaskUse,
    pub ticket: &'a Ticket<'a>,
    pub deadline: Deadline,
}

/// The answer to a request: the JSON text of `result`, or why there is none.
pub type Answer = Result<Payload, Failure>;

/// JSON text on its way through.
pub enum Payload {
    Owned(Vec<u8>),
    /// A result that says by itself of what type it is (2026-07-28).
    Typed(Vec<u8>),
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
            Payload::Owned(bytes) | Payload::Typed(bytes) => bytes,
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

impl CallMethod {
    pub fn is_about_task(self) -> bool {
        matches!(self, CallMethod::GetTask | CallMethod::TaskResult | CallMethod::CancelTask | CallMethod::UpdateTask)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            CallMethod::CallTool => "tools/call",
            CallMethod::GetPrompt => "prompts/get",
            CallMethod::ReadResource => "resources/read",
            CallMethod::CompletePrompt | CallMethod::CompleteResource => "completion/complete",
            CallMethod::GetTask => "tasks/get",
            CallMethod::TaskResult => "tasks/result",
            CallMethod::CancelTask => "tasks/cancel",
            CallMethod::UpdateTask => "tasks/update",
        }
    }
}

impl Call<'_> {
    pub fn progress(&self) -> Progress {
        Progress::new(self.progress_token)
    }
}

/// A result of our own as an answer.
pub fn encoded(result: &CallToolResult) -> Payload {
    Payload::Owned(jsonrpc::to_bytes(result))
}

pub fn unknown_tool(name: &str) -> ErrorObject {
    ErrorObject::invalid_params(format!("unknown tool: {name:.ECHO_CHARS_MAX$}; tools/list shows what there is"))
}

pub fn unknown_prompt(name: &str) -> ErrorObject {
    ErrorObject::invalid_params(format!("unknown prompt: {name:.ECHO_CHARS_MAX$}; prompts/list shows what there is"))
}

/// The code is the one of revisions up to 2025-11-25; `endpoint/modern.rs` gives it the newer one.
pub fn unknown_resource(uri: &str) -> ErrorObject {
    let known = "resources/list and resources/templates/list show what there is";
    let text = format!("there is no resource {uri:.ECHO_CHARS_MAX$}; {known}");
    ErrorObject::new(RESOURCE_NOT_FOUND, text).with_data(json!({"uri": uri}))
}
