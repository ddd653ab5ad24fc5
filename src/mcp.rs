//! The types and words of the Model Context Protocol, and what differs between its revisions.
//!
//! Names are those of the specification's schema. What only passes through (schemas, content) stays JSON text.
//!
//! **Invariant**: pure; no thread, no clock, no I/O.
//! Left out on purpose: JSON-RPC framing (`jsonrpc.rs`) and HTTP (`endpoint.rs`).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A revision of the protocol that takes part in the `initialize` handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revision {
    R2025_03_26,
    R2025_06_18,
}

impl Revision {
    pub const ALL: [Revision; 2] = [Revision::R2025_03_26, Revision::R2025_06_18];
    pub const NEWEST: Revision = Revision::R2025_06_18;

    pub fn parse(text: &str) -> Option<Revision> {
        Revision::ALL.into_iter().find(|revision| revision.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Revision::R2025_03_26 => "2025-03-26",
            Revision::R2025_06_18 => "2025-06-18",
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

    /// `MCP-Protocol-Version` is checked from 2025-06-18 on.
    pub fn has_version_header(self) -> bool {
        self >= Revision::R2025_06_18
    }
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
    pub input_schema: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<ToolAnnotations>,
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
