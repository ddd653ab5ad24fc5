//! Tasks: calls whose result is fetched later. MCP has them in two forms: methods of its own in 2025-11-25, and the
//! extension `io.modelcontextprotocol/tasks` for 2026-07-28.
//!
//! **Invariant**: pure.
//! Left out on purpose: tasks that a server asks of a client.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use crate::json;
use crate::jsonrpc::{self, ErrorObject, METHOD_NOT_FOUND};
use crate::limits::ECHO_CHARS_MAX;
use crate::mcp::{ClientCapabilities, MISSING_CLIENT_CAPABILITY, RawObject};

/// The extension, as both sides declare it.
pub const EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// `_meta` of what belongs to a task (2025-11-25).
pub const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";
/// `_meta` of requests of a gateway: whose task it is, since all its clients share its session at an instance.
pub const OWNER: &str = "io.dcc-mcp/owner";

/// Whether a tool can be, or must be, called as a task (2025-11-25: `execution.taskSupport`).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskSupport {
    #[default]
    Forbidden,
    Optional,
    Required,
}

/// `execution` of a tool.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ToolExecution {
    pub task_support: TaskSupport,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    Working,
    InputRequired,
    Completed,
    Failed,
    Cancelled,
}

/// `params.task` of a call.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct TaskParams {
    /// Milliseconds that the task is to be kept for: any number to the schema, and floating to some clients.
    #[serde(deserialize_with = "milliseconds")]
    pub ttl: Option<Duration>,
}

/// What the client of a request knows of tasks.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskUse {
    /// Its revision has none.
    Unknown,
    /// 2025-11-25. A call is to be a task where it says so.
    Core { owner: String, wanted: Option<TaskParams>, client: ClientCapabilities },
    /// 2026-07-28. Where the client declares the extension, the server decides which call is a task.
    Extension { declared: bool, client: ClientCapabilities },
}

fn milliseconds<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    let wrong = || D::Error::custom("\"ttl\" must be a number of milliseconds from 0 on");
    let given: Option<f64> = Deserialize::deserialize(input).map_err(|_| wrong())?;
    let given = given.map(|given| if given >= 0.0 { Ok(given / 1000.0) } else { Err(wrong()) }).transpose()?;
    Ok(given.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
}

impl TaskSupport {
    pub fn parse(text: &str) -> Option<TaskSupport> {
        serde_json::from_value(text.into()).ok()
    }

    /// Of a tool as its server told it.
    pub fn of(tool: &RawObject) -> TaskSupport {
        let execution = tool.get("execution").and_then(|raw| serde_json::from_str::<ToolExecution>(raw.get()).ok());
        execution.unwrap_or_default().task_support
    }
}

impl TaskUse {
    /// Whether a call of a tool becomes a task, or why it cannot be called so.
    pub fn decide(&self, support: TaskSupport, tool: &str) -> Result<bool, ErrorObject> {
        let no_task = || ErrorObject::new(METHOD_NOT_FOUND, format!("{tool} cannot be called as a task"));
        let only_task = || ErrorObject::new(METHOD_NOT_FOUND, format!("{tool} can only be called as a task"));
        match (self, support) {
            (TaskUse::Core { wanted: Some(_), .. }, TaskSupport::Forbidden) => Err(no_task()),
            (TaskUse::Core { wanted, .. }, TaskSupport::Optional) => Ok(wanted.is_some()),
            (TaskUse::Core { wanted: Some(_), .. }, TaskSupport::Required) => Ok(true),
            (TaskUse::Extension { declared, .. }, TaskSupport::Optional) => Ok(*declared),
            (TaskUse::Extension { declared: true, .. }, TaskSupport::Required) => Ok(true),
            (TaskUse::Extension { declared: false, .. }, TaskSupport::Required) => Err(extension_missing()),
            (TaskUse::Core { wanted: None, .. } | TaskUse::Unknown, TaskSupport::Required) => Err(only_task()),
            (_, TaskSupport::Forbidden) | (TaskUse::Unknown, TaskSupport::Optional) => Ok(false),
        }
    }
}

/// Whether a client of 2026-07-28 declares the extension.
pub fn declares_extension(capabilities: &serde_json::Map<String, Value>) -> bool {
    capabilities.get("extensions").and_then(|extensions| extensions.get(EXTENSION)).is_some_and(Value::is_object)
}

/// Where a task stands in a list, which has the newest first: by the time of its creation as it is shown, then by its id at its
/// own server. The same at every server, so that a gateway can merge lists.
pub type Place = (String, String);

/// The cursor for what comes after this place.
pub fn cursor((created, id): &Place) -> String {
    format!("{created}/{id}")
}

/// The place that a cursor stands for.
pub fn place(cursor: &str) -> Result<Place, ErrorObject> {
    let parts = cursor.split_once('/').filter(|(created, id)| {
        let is_time = created.len() == 24 && created.ends_with('Z') && created.is_ascii();
        is_time && !id.is_empty()
    });
    let (created, id) =
        parts.ok_or_else(|| ErrorObject::invalid_params("this cursor is none of ours; leave it out"))?;
    Ok((created.to_owned(), id.to_owned()))
}

/// The answer to a client that would have to declare the extension.
pub fn extension_missing() -> ErrorObject {
    let text = format!("this needs the client capability extensions[\"{EXTENSION}\"]");
    let needed = json!({"requiredCapabilities": {"extensions": {EXTENSION: {}}}});
    ErrorObject::new(MISSING_CLIENT_CAPABILITY, text).with_data(needed)
}

/// How that answer begins.
pub const NO_TASK: &str = "there is no task";

/// The answer to a request about a task that is not there, or not the client's.
pub fn unknown_task(id: &str) -> ErrorObject {
    let shown: String = id.chars().take(ECHO_CHARS_MAX).collect();
    ErrorObject::invalid_params(format!("{NO_TASK} {shown:?}; it may have been kept for its whole time"))
}

/// The object with the mark in its `_meta`.
pub fn with_related_task(object: &[u8], id: &str) -> Vec<u8> {
    let mut members: RawObject = json::read(object).unwrap_or_default();
    let meta = members.get("_meta").and_then(|meta| serde_json::from_str(meta.get()).ok());
    let mut meta: RawObject = meta.unwrap_or_default();
    if let Ok(related) = to_raw_value(&json!({"taskId": id})) {
        meta.insert(RELATED_TASK.to_owned(), related);
    }
    if let Ok(meta) = to_raw_value(&meta) {
        members.insert("_meta".to_owned(), meta);
    }
    jsonrpc::to_bytes(&members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_call_becomes_a_task() {
        let core = |wanted: bool| TaskUse::Core {
            owner: String::new(),
            wanted: wanted.then(TaskParams::default),
            client: ClientCapabilities::default(),
        };
        let extension = |declared| TaskUse::Extension { declared, client: ClientCapabilities::default() };
        let code = |result: Result<bool, ErrorObject>| result.map_err(|error| error.code);
        use TaskSupport::{Forbidden, Optional, Required};
        for (client, forbidden, optional, required) in [
            (TaskUse::Unknown, Ok(false), Ok(false), Err(-32601)),
            (core(false), Ok(false), Ok(false), Err(-32601)),
            (core(true), Err(-32601), Ok(true), Ok(true)),
            (extension(false), Ok(false), Ok(false), Err(-32021)),
            (extension(true), Ok(false), Ok(true), Ok(true)),
        ] {
            for (support, expected) in [(Forbidden, forbidden), (Optional, optional), (Required, required)] {
                assert_eq!(code(client.decide(support, "t")), expected, "{client:?} {support:?}");
            }
        }
    }

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let place = ("2026-11-24T08:00:00.123Z".to_owned(), "ab".to_owned());
        assert_eq!(self::place(&cursor(&place)), Ok(place));
        for wrong in ["", "/", "x/y", "2026-11-24T08:00:00.123Z/", "2026-11-24T08:00:00.123Z"] {
            assert_eq!(self::place(wrong).map_err(|error| error.code), Err(-32602), "{wrong}");
        }
    }

    #[test]
    fn a_time_is_any_number_of_milliseconds() {
        let seconds = |text: &str| {
            let params: Result<TaskParams, _> = serde_json::from_str(&format!(r#"{{"ttl":{text}}}"#));
            params.map(|params| params.ttl).map_err(|error| error.to_string())
        };
        for (text, expected) in [
            ("null", None),
            ("0", Some(Duration::ZERO)),
            ("60000", Some(Duration::from_secs(60))),
            ("60000.0", Some(Duration::from_secs(60))),
            ("6e4", Some(Duration::from_secs(60))),
            ("1e300", Some(Duration::MAX)),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for wrong in ["-1", "\"60000\"", "true", "{}"] {
            assert!(seconds(wrong).is_err_and(|error| error.contains("from 0 on")), "{wrong}");
        }
        assert_eq!(serde_json::from_str::<TaskParams>("{}").expect("it is optional"), TaskParams::default());
    }

    #[test]
    fn what_a_tool_says() {
        for (tool, expected) in [
            (r#"{"name":"t"}"#, TaskSupport::Forbidden),
            (r#"{"name":"t","execution":{}}"#, TaskSupport::Forbidden),
            (r#"{"name":"t","execution":{"taskSupport":"optional"}}"#, TaskSupport::Optional),
            (r#"{"name":"t","execution":{"taskSupport":"required","more":1}}"#, TaskSupport::Required),
            (r#"{"name":"t","execution":{"taskSupport":"perhaps"}}"#, TaskSupport::Forbidden),
            (r#"{"name":"t","execution":"async"}"#, TaskSupport::Forbidden),
        ] {
            let tool: RawObject = serde_json::from_str(tool).expect("it is an object");
            assert_eq!(TaskSupport::of(&tool), expected);
        }
    }
}
