//! The types and words of the Model Context Protocol, and what differs between its revisions.
//!
//! Names are those of the specification's schema. What only passes through (schemas, content) stays JSON text.
//!
//! **Invariant**: pure; no thread, no clock, no I/O.
//! Left out on purpose: JSON-RPC framing (`jsonrpc.rs`) and HTTP (`endpoint.rs`).

mod client;
pub mod lists;
pub mod mirror;
pub mod params;
pub mod tasks;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::json;
use crate::jsonrpc;
use crate::mcp::tasks::ToolExecution;

pub use client::ClientCapabilities;

/// A revision of the protocol that takes part in the `initialize` handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revision {
    R2025_03_26,
    R2025_06_18,
    R2025_11_25,
}

/// The revision without a handshake: every request tells its version by itself (`endpoint/modern.rs`).
pub const MODERN: &str = "2026-07-28";

impl Revision {
    pub const ALL: [Revision; 3] = [Revision::R2025_03_26, Revision::R2025_06_18, Revision::R2025_11_25];
    pub const NEWEST: Revision = Revision::R2025_11_25;

    pub fn parse(text: &str) -> Option<Revision> {
        Revision::ALL.into_iter().find(|revision| revision.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Revision::R2025_03_26 => "2025-03-26",
            Revision::R2025_06_18 => "2025-06-18",
            Revision::R2025_11_25 => "2025-11-25",
        }
    }

    /// The answer to `initialize`: the requested revision where we speak it, else our newest (lifecycle, version negotiation).
    pub fn negotiate(requested: &str) -> Revision {
        Revision::parse(requested).unwrap_or(Revision::NEWEST)
    }

    /// JSON-RPC batches came with 2025-03-26 and went with 2025-06-18.
    pub fn has_batches(self) -> bool {
        self == Revision::R2025_03_26
    }

    /// Tasks came with 2025-11-25.
    pub fn has_tasks(self) -> bool {
        self >= Revision::R2025_11_25
    }

    /// `MCP-Protocol-Version` is checked from 2025-06-18 on.
    pub fn has_version_header(self) -> bool {
        self >= Revision::R2025_06_18
    }
}

/// Levels of log messages (RFC 5424, section 6.2.1), the least important first.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

/// A tool as `tools/list` shows it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub icons: Vec<Icon>,
    pub input_schema: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<ToolAnnotations>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<ToolExecution>,
    #[serde(rename = "_meta", default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolAnnotations {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_hint: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destructive_hint: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent_hint: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_world_hint: Option<bool>,
}

/// An image that a client may show beside a tool, prompt or resource (from 2025-11-25 on).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Icon {
    pub src: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theme: Option<Theme>,
}

/// The background that an icon is made for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    Light,
    Dark,
}

/// A prompt as `prompts/list` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Prompt {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub icons: Vec<Icon>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<PromptArgument>,
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    pub meta: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptArgument {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub required: bool,
}

/// A resource as `resources/list` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    pub uri: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub icons: Vec<Icon>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// Bytes, before any encoding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    pub meta: Option<Map<String, Value>>,
}

/// A resource template as `resources/templates/list` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceTemplate {
    /// RFC 6570.
    pub uri_template: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub icons: Vec<Icon>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    pub meta: Option<Map<String, Value>>,
}

/// What a resource holds: text, or anything in Base64.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceContents {
    pub uri: String,
    pub mime_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
}

/// `resources/read` of what is not there (resources, error handling; until 2025-11-25).
pub const RESOURCE_NOT_FOUND: i32 = -32002;

/// The user must go to a URL first (2025-11-25, elicitation).
pub const URL_ELICITATION_REQUIRED: i32 = -32042;
/// A client does not offer what its request needs (2026-07-28).
pub const MISSING_CLIENT_CAPABILITY: i32 = -32021;

/// Values of one `completion/complete` (completion, result).
pub const COMPLETION_VALUES_MAX: usize = 100;

/// The result of `tools/call` for tools of our own; results of instances pass through as text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallToolResult {
    pub content: Vec<Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub structured_content: Option<Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_error: bool,
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    pub meta: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Content {
    Text { text: String },
}

impl Tool {
    /// The same, member by member.
    pub fn raw(&self) -> RawObject {
        json::read(&jsonrpc::to_bytes(self)).expect("a tool is an object")
    }
}

impl CallToolResult {
    /// A structured answer, given as text too for clients that only read that (tools, structured content).
    pub fn structured(value: Value) -> CallToolResult {
        let text = value.to_string();
        CallToolResult {
            content: vec![Content::Text { text }],
            structured_content: Some(value),
            is_error: false,
            meta: None,
        }
    }

    /// A tool that ran and failed: for the model to read, never a JSON-RPC error.
    pub fn failed(text: impl Into<String>) -> CallToolResult {
        CallToolResult {
            content: vec![Content::Text { text: text.into() }],
            structured_content: None,
            is_error: true,
            meta: None,
        }
    }
}

/// A tool, prompt or resource as its server told it: members by name, values as they were written.
pub type RawObject = BTreeMap<String, Box<RawValue>>;
