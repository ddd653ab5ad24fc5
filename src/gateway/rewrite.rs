//! Messages on their way to an instance and back: what the two sides call by different names is put in its place, and
//! the rest stays the bytes it was.
//!
//! **Invariant**: pure. A message is parsed once, and only as deep as its envelope.

use std::io::Write;
use std::ops::Range;

use serde_json::value::to_raw_value;

use crate::endpoint::service::Call;
use crate::json;
use crate::jsonrpc::{self, Message};
use crate::mcp::RawObject;
use crate::mcp::tasks::{OWNER, TaskUse};

/// Told with every request of a gateway (RFC 9110, section 7.6.3), so that one that comes back to a gateway is known.
pub const VIA: (&str, &str) = ("Via", "1.1 dcc-mcp-gateway");

/// What came back for a request: the text, and where in it the `result` or `error` is.
pub struct Response {
    pub text: Vec<u8>,
    pub part: Range<usize>,
    pub is_error: bool,
}

impl Response {
    /// Whether the tool says that it failed. Looked for in the text's last bytes only, where writers put it: for the
    /// metric alone, and parsing every result for it would cost more than it tells.
    pub fn says_tool_failed(&self) -> bool {
        let result = &self.text[self.part.clone()];
        let tail = &result[result.len().saturating_sub(64)..];
        tail.windows(14).any(|window| window == br#""isError":true"#)
    }
}

pub fn request_text(id: u64, method: &str, params: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(params.len() + method.len() + 64);
    write!(text, r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":"#).expect("a vector takes all");
    text.extend_from_slice(params);
    text.push(b'}');
    text
}

/// The client's params with the instance's own name or URI, and our id as progress token; without what belongs to the
/// stateless revision.
pub fn rewritten_params(call: &Call<'_>, name: &str, id: u64) -> Vec<u8> {
    if let Some(owner) = told_owner(call) {
        return params_of_task(call, name, id, owner);
    }
    let meta = call.meta.filter(|meta| meta.contains(RESERVED)).map(|meta| without_reserved(meta, call, id));
    let params = replaced(call, name, id, meta);
    if call.is_modern && ANSWERS.iter().any(|member| call.params.contains(member)) {
        let mut members: RawObject = json::read(&params).unwrap_or_default();
        members.retain(|member, _| !ANSWERS.contains(&member.as_str()));
        return jsonrpc::to_bytes(&members);
    }
    params
}

/// The same with all that the stateless revision has, for an instance that speaks it too.
pub fn passed_params(call: &Call<'_>, name: &str, id: u64) -> Vec<u8> {
    replaced(call, name, id, None)
}

/// What a client answers to questions when it repeats a request (2026-07-28).
const ANSWERS: [&str; 2] = ["inputResponses", "requestState"];

fn replaced(call: &Call<'_>, name: &str, id: u64, meta: Option<String>) -> Vec<u8> {
    let name = jsonrpc::to_bytes(&name);
    let name = String::from_utf8_lossy(&name);
    let token = id.to_string();
    let mut parts: Vec<(&str, &str)> = vec![(call.name_text, &name)];
    if let (Some(old), Some(new)) = (call.meta, &meta) {
        parts.push((old, new));
    } else if let Some(old) = call.progress_token
        && call.progress().is_wanted()
    {
        parts.push((old.get(), &token));
    }
    // What an instance would take for the wish to make it a task.
    parts.extend(call.task.map(|task| (task, "null")));
    parts.sort_by_key(|(old, _)| old.as_ptr());
    jsonrpc::splice(call.params, &parts)
}

/// Whose task it is, where a request in our own session begins or concerns one.
fn told_owner<'c>(call: &'c Call<'_>) -> Option<&'c str> {
    match &call.tasks {
        TaskUse::Core { owner, wanted, .. } if wanted.is_some() || call.method.is_about_task() => Some(owner),
        _ => None,
    }
}

fn params_of_task(call: &Call<'_>, name: &str, id: u64, owner: &str) -> Vec<u8> {
    let mut members: RawObject = serde_json::from_str(call.params).unwrap_or_default();
    let meta = without_reserved(call.meta.unwrap_or("{}"), call, id);
    let mut meta: RawObject = serde_json::from_str(&meta).unwrap_or_default();
    meta.extend(to_raw_value(owner).ok().map(|owner| (OWNER.to_owned(), owner)));
    let named = if call.method.is_about_task() { "taskId" } else { "name" };
    members.extend(to_raw_value(name).ok().map(|name| (named.to_owned(), name)));
    members.extend(to_raw_value(&meta).ok().map(|meta| ("_meta".to_owned(), meta)));
    jsonrpc::to_bytes(&members)
}

/// What MCP itself puts into `_meta` is between one client and one server: an instance has a session with us.
const RESERVED: &str = "io.modelcontextprotocol/";

fn without_reserved(meta: &str, call: &Call<'_>, id: u64) -> String {
    let mut members: RawObject = serde_json::from_str(meta).unwrap_or_default();
    members.retain(|member, _| !member.starts_with(RESERVED));
    if call.progress().is_wanted()
        && let Ok(id) = to_raw_value(&id)
    {
        members.insert("progressToken".to_owned(), id);
    }
    String::from_utf8_lossy(&jsonrpc::to_bytes(&members)).into_owned()
}

/// Where in a message the answer to request `id` is, and whether it is an error.
pub fn response_in(text: &[u8], id: u64) -> Option<(Range<usize>, bool)> {
    let text = std::str::from_utf8(text).ok()?;
    let Ok(Message::Response { id: answered, result }) = jsonrpc::parse_one(text) else { return None };
    if answered.text().parse() != Ok(id) {
        return None;
    }
    let (raw, is_error) = match result {
        Ok(result) => (result.get(), false),
        Err(error) => (error.get(), true),
    };
    let start = raw.as_ptr() as usize - text.as_ptr() as usize;
    Some((start..start + raw.len(), is_error))
}

pub fn error_message(error: &[u8]) -> String {
    let message = json::read(error).ok().and_then(|error: serde_json::Value| {
        error.get("message").and_then(|message| message.as_str().map(str::to_owned))
    });
    message.unwrap_or_else(|| "it answered with an error".to_owned())
}
