//! Requests of revision 2026-07-28: each says everything about itself, and nothing is kept between them.
//!
//! A request is modern when its `params._meta` or its `MCP-Protocol-Version` says so; all others are `endpoint.rs`'s.
//! What the header fields say must be what the body says, or two hops could act on different things.
//!
//! **Invariant**: no session is looked at or made. An error to a readable request echoes its id; the statuses are those
//! that the revision fixes.
//! **Thread**: the connection's.
//! **Bounds**: those of `endpoint.rs`.
//! Left out on purpose: `subscriptions/listen` (`listen.rs`); calls (`rounds.rs`); event ids and resumption, which this
//! revision took away.

use std::borrow::Cow;
use std::io;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::base64;
use crate::endpoint::outlet::Outlet;
use crate::endpoint::params::read;
use crate::endpoint::service::{Answer, Failure, Payload};
use crate::endpoint::{Endpoint, Refused, capabilities, respond_refused, tasks};
use crate::http::head::RequestHead;
use crate::http::server::Exchange;
use crate::json;
use crate::jsonrpc::{self, ErrorObject, INVALID_PARAMS, METHOD_NOT_FOUND, RequestId};
use crate::limits::ECHO_CHARS_MAX;
use crate::mcp::lists::Listed;
use crate::mcp::mirror::Given;
use crate::mcp::params::Object;
use crate::mcp::{MODERN, RESOURCE_NOT_FOUND, Revision};

const HEADER_MISMATCH: i32 = -32020;
const UNSUPPORTED_PROTOCOL_VERSION: i32 = -32022;

const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const SERVER_KEY: &str = "io.modelcontextprotocol/serverInfo";

/// Header fields that repeat what the body says.
const CHECKED_FIELDS: [&str; 3] = ["MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"];

const COMPLETE: &[u8] = br#","result":{"resultType":"complete""#;
/// What is offered may change at any moment, and is told when it does: nothing to be kept without asking.
const CACHEABLE: &[u8] = br#","result":{"resultType":"complete","ttlMs":0,"cacheScope":"private""#;

/// The reserved members of `params._meta`.
#[derive(Default, Deserialize)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<String>,
    #[serde(rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    result_type: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct WithMeta {
    #[serde(rename = "_meta")]
    meta: Option<Object<Meta>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    uri: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "taskId")]
    task_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Called<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

/// Whether a request is of the stateless revision.
pub fn is_meant(request: &RequestHead, params: Option<&RawValue>) -> bool {
    let says_so = || {
        params.is_some_and(|params| {
            // One byte is looked for faster than a text, and few have it.
            params.get().as_bytes().contains(&b'/')
                && params.get().contains(VERSION_KEY)
                && meta(Some(params)).is_ok_and(|meta| meta.version.is_some())
        })
    };
    request.header("mcp-protocol-version") == Some(MODERN) || says_so()
}

impl Endpoint {
    /// Serves one modern request.
    pub(super) fn modern(
        &self,
        request: &RequestHead,
        exchange: &mut Exchange<'_>,
        headers: &[(&str, &str)],
        (id, method, params): (RequestId<'_>, &str, Option<&RawValue>),
    ) -> io::Result<()> {
        let capabilities = match check(request, method, params) {
            Ok(capabilities) => capabilities,
            Err(refused) => return respond_refused(exchange, headers, Some(id), &refused),
        };
        if method == "tools/call"
            && let Err(error) = self.check_mirrored(request, params)
        {
            return respond_refused(exchange, headers, Some(id), &Refused(400, error));
        }
        if method == "subscriptions/listen" {
            return self.listen(exchange, headers, id, params);
        }
        let mut outlet = Outlet::new(exchange, headers, None);
        let (answer, cacheable) = match method {
            "server/discover" => (Ok(Payload::Owned(jsonrpc::to_bytes(&self.discovered()))), true),
            "tools/call"
            | "prompts/get"
            | "resources/read"
            | "completion/complete"
            | "tasks/get"
            | "tasks/update"
            | "tasks/cancel" => {
                let answer = self.modern_call(method, params, &capabilities, &mut outlet);
                (answer.map_err(with_newer_code), method == "resources/read")
            }
            _ => match Listed::of_method(method) {
                Some(listed) => (self.list(listed, None, params), true),
                None => {
                    let text = format!(
                        "method not found: {method:.ECHO_CHARS_MAX$}; server/discover tells what {MODERN} has here"
                    );
                    let refused = Refused(404, ErrorObject::new(METHOD_NOT_FOUND, text));
                    drop(outlet);
                    return respond_refused(exchange, headers, Some(id), &refused);
                }
            },
        };
        write_answer(outlet, id, &answer, cacheable)
    }

    fn discovered(&self) -> Value {
        json!({
            "supportedVersions": supported_versions(),
            "capabilities": tasks::with_extension(capabilities()),
            "instructions": self.service.instructions(),
            "_meta": {SERVER_KEY: {"name": self.server_name, "version": env!("CARGO_PKG_VERSION")}},
        })
    }

    /// What the header fields of a call must repeat of its arguments.
    fn check_mirrored(&self, request: &RequestHead, params: Option<&RawValue>) -> Result<(), ErrorObject> {
        let Called { name, arguments } = read(params)?;
        let Some(mirror) = self.service.mirror(&name) else { return Ok(()) };
        let arguments: Value = read(arguments)?;
        let given = |field: &str| match (request.header(field), request.all(field).count()) {
            (None, _) => Given::Absent,
            (Some(value), 1) => decoded(value).map_or(Given::Malformed, Given::Value),
            _ => Given::Malformed,
        };
        mirror.check(&arguments, given).map_err(|text| ErrorObject::new(HEADER_MISMATCH, text))
    }
}

/// A missing resource is one of the wrong params in this revision, and its former code must not be sent.
fn with_newer_code(failure: Failure) -> Failure {
    let Failure::Error(error) = &failure else { return failure };
    let Ok(mut members) = json::read::<Map<String, Value>>(error.as_bytes()) else { return failure };
    if code(&members) != Some(RESOURCE_NOT_FOUND) {
        return failure;
    }
    members.insert("code".to_owned(), INVALID_PARAMS.into());
    Failure::Error(Payload::Owned(jsonrpc::to_bytes(&members)))
}

fn code(error: &Map<String, Value>) -> Option<i32> {
    error.get("code").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok())
}

/// What the header fields and `_meta` must say before a method is looked at; gives what the client offers.
fn check(request: &RequestHead, method: &str, params: Option<&RawValue>) -> Result<Map<String, Value>, Refused> {
    let meta = meta(params).map_err(|error| Refused(400, error))?;
    let (Some(version), Some(capabilities)) = (&meta.version, meta.capabilities) else {
        let text = format!(
            "params._meta must hold \"{VERSION_KEY}\" and \"io.modelcontextprotocol/clientCapabilities\" in {MODERN}"
        );
        return Err(Refused(400, ErrorObject::invalid_params(text)));
    };
    let mismatch = |text: String| Err(Refused(400, ErrorObject::new(HEADER_MISMATCH, text)));
    // Whoever stands between may go by the one, and this server by the other.
    if let Some(field) = CHECKED_FIELDS.iter().find(|field| request.all(field).count() > 1) {
        return mismatch(format!("there is more than one {field} header"));
    }
    match request.header("mcp-protocol-version") {
        Some(header) if header == version => {}
        Some(header) => {
            return mismatch(format!("MCP-Protocol-Version is {header:?}, but params._meta says {version:?}"));
        }
        None => return mismatch("the MCP-Protocol-Version header is missing; it repeats params._meta".to_owned()),
    }
    if version != MODERN {
        return Err(unsupported(version));
    }
    if request.header("mcp-method") != Some(method) {
        return mismatch(format!("the Mcp-Method header must be {method:?}, as in the body"));
    }
    let is_of_task = matches!(method, "tasks/get" | "tasks/update" | "tasks/cancel");
    if is_of_task || matches!(method, "tools/call" | "prompts/get" | "resources/read") {
        let Named { name, uri, task_id } = read(params).map_err(|error| Refused(400, error))?;
        let named = match method {
            "resources/read" => uri,
            _ if is_of_task => task_id,
            _ => name,
        };
        let header = request.header("mcp-name").and_then(decoded);
        if header.is_none() || header.as_deref() != named.as_deref() {
            return mismatch(
                "the Mcp-Name header must be params.name, params.uri of a resource, or params.taskId of a task"
                    .to_owned(),
            );
        }
    }
    Ok(capabilities)
}

/// The answer to a revision that is not spoken here, at least not without a session.
pub(super) fn unsupported(version: &str) -> Refused {
    let data = json!({"supported": supported_versions(), "requested": version});
    let text = format!("revision {version:?} is not spoken here; data.supported lists what is");
    Refused(400, ErrorObject::new(UNSUPPORTED_PROTOCOL_VERSION, text).with_data(data))
}

/// All that we speak, newest first.
fn supported_versions() -> Vec<&'static str> {
    std::iter::once(MODERN).chain(Revision::ALL.iter().rev().map(|revision| revision.as_str())).collect()
}

fn meta(params: Option<&RawValue>) -> Result<Meta, ErrorObject> {
    let with_meta: WithMeta = read(params)?;
    Ok(with_meta.meta.map(|Object(meta)| meta).unwrap_or_default())
}

/// A header value as it was meant: `=?base64?…?=` holds what a header cannot.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(text) => String::from_utf8(base64::decode(text)?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(value)),
    }
}

/// Every result says of what type it is, and one that may be kept for how long; what does so already stays as it is.
fn write_answer(outlet: Outlet<'_, '_>, id: RequestId<'_>, answer: &Answer, cacheable: bool) -> io::Result<()> {
    let head: &[u8] = br#"{"jsonrpc":"2.0","id":"#;
    match answer {
        Ok(result) if matches!(result, Payload::Typed(_)) || says_its_type(result.as_bytes()) => {
            outlet.finish(200, &[head, id.text().as_bytes(), br#","result":"#, result.as_bytes(), b"}"])
        }
        Ok(result) => {
            let members = result.as_bytes().trim_ascii().strip_prefix(b"{").unwrap_or(b"}").trim_ascii_start();
            let comma: &[u8] = if members.starts_with(b"}") { b"" } else { b"," };
            let mark: &[u8] = if cacheable { CACHEABLE } else { COMPLETE };
            outlet.finish(200, &[head, id.text().as_bytes(), mark, comma, members, b"}"])
        }
        Err(Failure::Error(error)) => {
            let status = if tasks::is_missing_capability(error.as_bytes()) { 400 } else { 200 };
            outlet.finish(status, &[head, id.text().as_bytes(), br#","error":"#, error.as_bytes(), b"}"])
        }
        // Its client is gone: nothing more may be sent.
        Err(Failure::Cancelled) => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

fn says_its_type(result: &[u8]) -> bool {
    const TYPE: &[u8] = b"\"resultType\"";
    result.windows(TYPE.len()).any(|window| window == TYPE)
        && json::read::<Typed>(result).is_ok_and(|result| result.result_type.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values() {
        for (value, expected) in [
            ("echo", Some("echo")),
            ("=?base64?Z3LDvMOfZQ==?=", Some("grüße")),
            ("=?base64??=", Some("")),
            ("=?base64?Z3L?=", None),
            ("=?base64?Z3 DvA==?=", None),
            ("=?base64?/w==?=", None),
        ] {
            assert_eq!(decoded(value).as_deref(), expected, "{value}");
        }
    }
}
