//! Reading the params of requests, and of calls into the parts that a service may look at.
//!
//! **Invariant**: what is replaced later (name, progress token) is remembered as the very text inside the params.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::deadline::Deadline;
use crate::endpoint::calls::Ticket;
use crate::endpoint::service::{Call, CallMethod};
use crate::json::Text;
use crate::jsonrpc::ErrorObject;
use crate::mcp::params::{CallMeta, CallToolParams, CompleteParams, Object, ReadResourceParams, TaskIdParams};
use crate::mcp::tasks::TaskUse;

const NO_REFERENCE: &str =
    "\"ref\" must have the type \"ref/prompt\" and the name of a prompt, or \"ref/resource\" and the uri of a template";

/// The params of a method, or their `_meta`, as its type; missing ones are an empty object.
pub fn read<'a, T: Deserialize<'a>>(params: Option<&'a RawValue>) -> Result<T, ErrorObject> {
    let text = params.map_or("{}", RawValue::get);
    // As for `Object`, without reading it once more.
    if !text.starts_with('{') {
        return Err(ErrorObject::invalid_params("params and their \"_meta\" must be objects"));
    }
    serde_json::from_str(text)
        .map_err(|error| ErrorObject::invalid_params(format!("these params do not fit the method: {error}")))
}

/// The params of `tools/call`, `prompts/get`, `resources/read`, `completion/complete`, or of a method about one task.
pub fn read_call<'a>(
    method: &str,
    params: Option<&'a RawValue>,
    ticket: &'a Ticket<'a>,
    deadline: Deadline,
) -> Result<Call<'a>, ErrorObject> {
    let mut task = None;
    let (method, name, arguments, meta) = match method {
        "resources/read" => {
            let params: ReadResourceParams<'_> = read(params)?;
            (CallMethod::ReadResource, params.uri, None, params.meta)
        }
        "completion/complete" => {
            let read: CompleteParams<'_> = read(params)?;
            let Object(reference) = read.reference;
            match (&*reference.kind, reference.name, reference.uri) {
                ("ref/prompt", Some(name), _) => (CallMethod::CompletePrompt, name, None, read.meta),
                ("ref/resource", _, Some(uri)) => (CallMethod::CompleteResource, uri, None, read.meta),
                _ => return Err(ErrorObject::invalid_params(NO_REFERENCE)),
            }
        }
        "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update" => {
            let params: TaskIdParams<'_> = read(params)?;
            let method = match method {
                "tasks/get" => CallMethod::GetTask,
                "tasks/result" => CallMethod::TaskResult,
                "tasks/cancel" => CallMethod::CancelTask,
                _ => CallMethod::UpdateTask,
            };
            (method, params.task_id, None, params.meta)
        }
        method => {
            let params: CallToolParams<'_> = read(params)?;
            task = params.task;
            let method = if method == "prompts/get" { CallMethod::GetPrompt } else { CallMethod::CallTool };
            (method, params.name, params.arguments, params.meta)
        }
    };
    if arguments.is_some_and(|arguments| !arguments.get().starts_with('{')) {
        return Err(ErrorObject::invalid_params("\"arguments\" must be an object"));
    }
    let name_text = name.get();
    let Text(name) = serde_json::from_str(name_text)
        .map_err(|_| ErrorObject::invalid_params("the name, URI or id must be a string"))?;
    let told: Option<CallMeta<'_>> = meta.map(|meta| read(Some(meta))).transpose()?;
    Ok(Call {
        method,
        name,
        name_text,
        params: params.map_or("{}", RawValue::get),
        arguments: arguments.map(RawValue::get),
        progress_token: told.as_ref().and_then(|meta| meta.progress_token),
        log_level: told.and_then(|meta| meta.log_level),
        is_modern: false,
        asker: None,
        task: task.map(RawValue::get),
        tasks: TaskUse::Unknown,
        meta: meta.map(RawValue::get),
        ticket,
        deadline,
    })
}
