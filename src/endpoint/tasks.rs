//! What the clients of each revision know of tasks, read from their requests and told to them.
//!
//! **Invariant**: a task's owner is a mark of the session that began it, from which nobody can tell the session.
//! **Thread**: the connection's.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::deadline::Deadline;
use crate::endpoint::service::{Answer, Call};
use crate::endpoint::{Endpoint, params};
use crate::hash::secret_mark;
use crate::json;
use crate::jsonrpc::ErrorObject;
use crate::limits::FAN_OUT_TIME_MAX;
use crate::mcp::params::{CallMeta, Object, PaginatedParams};
use crate::mcp::tasks::{EXTENSION, TaskParams, TaskUse, declares_extension};
use crate::mcp::{ClientCapabilities, MISSING_CLIENT_CAPABILITY, Revision};
use crate::session::Session;

impl Endpoint {
    /// `tasks/list`.
    pub(super) fn list_tasks(&self, session: Session, params: Option<&RawValue>) -> Answer {
        #[derive(Deserialize)]
        struct WithMeta<'a> {
            #[serde(borrow, rename = "_meta")]
            meta: Option<Object<CallMeta<'a>>>,
        }
        let WithMeta { meta } = params::read(params)?;
        let PaginatedParams { cursor } = params::read(params)?;
        let owner = owner(session, meta.as_ref().and_then(|Object(meta)| meta.owner.as_deref()));
        self.service.list_tasks(&owner, cursor.as_deref(), Deadline::after(FAN_OUT_TIME_MAX))
    }
}

/// What a request of a session says of tasks.
pub fn core_use(session: Session, call: &Call<'_>) -> Result<TaskUse, ErrorObject> {
    if !session.revision.has_tasks() {
        return Ok(TaskUse::Unknown);
    }
    let wrong = |error| ErrorObject::invalid_params(format!("\"task\" cannot be read: {error}"));
    let task: Option<Option<Object<TaskParams>>> = call.task.map(serde_json::from_str).transpose().map_err(wrong)?;
    let meta: Option<CallMeta<'_>> = call.meta.and_then(|meta| serde_json::from_str(meta).ok());
    let owner = owner(session, meta.as_ref().and_then(|meta| meta.owner.as_deref()));
    Ok(TaskUse::Core { owner, wanted: task.flatten().map(|Object(task)| task), client: session.client })
}

/// What a request of 2026-07-28 says of tasks, by the capabilities of its client.
pub fn extension_use(capabilities: &Map<String, Value>) -> TaskUse {
    let client: Option<ClientCapabilities> = serde_json::from_value(Value::Object(capabilities.clone())).ok();
    TaskUse::Extension { declared: declares_extension(capabilities), client: client.unwrap_or_default() }
}

/// Of the session, or of whoever a gateway asks for: it is told a mark of that client's session, which nobody can guess.
fn owner(session: Session, told: Option<&str>) -> String {
    let is_mark = |told: &&str| told.len() == 32 && told.bytes().all(|byte| byte.is_ascii_hexdigit());
    told.filter(is_mark).map_or_else(|| secret_mark(session.key, "tasks"), str::to_owned)
}

/// The capabilities with what a revision has of tasks.
pub fn with_core(mut capabilities: Value, revision: Revision) -> Value {
    if revision.has_tasks() {
        capabilities["tasks"] = json!({"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}});
    }
    capabilities
}

/// The same for 2026-07-28.
pub fn with_extension(mut capabilities: Value) -> Value {
    capabilities["extensions"] = json!({EXTENSION: {}});
    capabilities
}

/// Whether an error is the one that has a status of its own.
pub fn is_missing_capability(error: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Coded {
        code: i64,
    }
    json::read::<Coded>(error).is_ok_and(|error| error.code == i64::from(MISSING_CLIENT_CAPABILITY))
}
