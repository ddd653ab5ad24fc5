//! The params of the methods of MCP, as far as a server looks at them.
//!
//! **Invariant**: what is handed on or replaced stays the JSON text it is.

use std::borrow::Cow;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::mcp::{ClientCapabilities, LogLevel};

/// What must be an object. A struct alone would be read from an array too, by the places of its values.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Object<T>, D::Error> {
        let text = <&RawValue>::deserialize(input)?.get();
        if !text.starts_with('{') {
            return Err(D::Error::custom("an object is expected"));
        }
        serde_json::from_str(text).map(Object).map_err(D::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitializeParams {
    pub protocol_version: String,
    #[serde(default)]
    pub capabilities: ClientCapabilities,
}

#[derive(Deserialize)]
pub struct PaginatedParams {
    pub cursor: Option<String>,
}

#[derive(Deserialize)]
pub struct CallToolParams<'a> {
    #[serde(borrow)]
    pub name: &'a RawValue,
    #[serde(borrow)]
    pub arguments: Option<&'a RawValue>,
    /// The call is to be a task (2025-11-25).
    #[serde(borrow)]
    pub task: Option<&'a RawValue>,
    #[serde(borrow, rename = "_meta")]
    pub meta: Option<&'a RawValue>,
}

/// The params of the methods of tasks.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskIdParams<'a> {
    #[serde(borrow)]
    pub task_id: &'a RawValue,
    #[serde(borrow, rename = "_meta")]
    pub meta: Option<&'a RawValue>,
}

/// The params of `prompts/get` have the form of a call's.
#[derive(Deserialize)]
pub struct ReadResourceParams<'a> {
    #[serde(borrow)]
    pub uri: &'a RawValue,
    #[serde(borrow, rename = "_meta")]
    pub meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub struct CompleteParams<'a> {
    #[serde(borrow, rename = "ref")]
    pub reference: Object<Reference<'a>>,
    pub argument: Object<CompleteArgument>,
    #[serde(borrow, rename = "_meta")]
    pub meta: Option<&'a RawValue>,
}

/// What is completed: an argument of a prompt (`ref/prompt`, by name) or a variable of a resource template
/// (`ref/resource`, by URI).
#[derive(Deserialize)]
pub struct Reference<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub name: Option<&'a RawValue>,
    #[serde(borrow)]
    pub uri: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub struct CompleteArgument {
    pub name: String,
    pub value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallMeta<'a> {
    #[serde(borrow)]
    pub progress_token: Option<&'a RawValue>,
    /// From 2026-07-28 on: log messages are wanted, from this level on.
    #[serde(rename = "io.modelcontextprotocol/logLevel")]
    pub log_level: Option<LogLevel>,
    /// Of a gateway's request: whose task it is.
    #[serde(borrow, rename = "io.dcc-mcp/owner")]
    pub owner: Option<Cow<'a, str>>,
}

/// Also those of `resources/unsubscribe` and `notifications/resources/updated`.
#[derive(Deserialize)]
pub struct SubscribeParams<'a> {
    #[serde(borrow)]
    pub uri: Cow<'a, str>,
}

#[derive(Deserialize)]
pub struct SetLevelParams {
    pub level: LogLevel,
}

/// `notifications/message`, as far as it is filtered.
#[derive(Deserialize)]
pub struct LoggingMessageParams {
    pub level: LogLevel,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelledParams<'a> {
    #[serde(borrow)]
    pub request_id: &'a RawValue,
}
