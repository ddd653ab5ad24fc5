//! JSON-RPC 2.0 as MCP uses it: messages read without touching what they carry, and written as bytes.
//!
//! A message borrows from the bytes that it was read from: `params`, `result` and ids stay the text they were, so that
//! a gateway can hand them on without parsing or copying them.
//!
//! **Invariant**: an id that is written is the exact text of the id that was read; an error to a message that was no
//! request, or whose id could not be read, has no id at all, since `"id": null` is refused by every schema of MCP.
//! **Bounds**: `JSON_DEPTH_MAX`, also within what is not read here but handed on; `BATCH_MESSAGES_MAX`.
//! Left out on purpose: what methods mean (`mcp.rs`, `endpoint.rs`).

use std::borrow::Cow;
use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::json::{self, Text};
use crate::limits::{BATCH_MESSAGES_MAX, JSON_DEPTH_MAX};

pub const PARSE_ERROR: i32 = -32700;
pub const INVALID_REQUEST: i32 = -32600;
pub const METHOD_NOT_FOUND: i32 = -32601;
pub const INVALID_PARAMS: i32 = -32602;
pub const INTERNAL_ERROR: i32 = -32603;

/// One message, borrowed from the bytes it was read from.
#[derive(Debug)]
pub enum Message<'a> {
    Request {
        id: RequestId<'a>,
        method: Cow<'a, str>,
        params: Option<&'a RawValue>,
    },
    Notification {
        method: Cow<'a, str>,
        params: Option<&'a RawValue>,
    },
    /// An answer to a request of ours: `result` or `error`, whichever it has.
    Response {
        id: RequestId<'a>,
        result: Result<&'a RawValue, &'a RawValue>,
    },
}

/// A string or a number, as the text it was sent as.
#[derive(Clone, Copy, Debug)]
pub struct RequestId<'a>(&'a RawValue);

/// A body: one message, or a batch (MCP 2025-03-26 only).
#[derive(Debug)]
pub enum Body<'a> {
    One(Message<'a>),
    Batch(Vec<Result<Message<'a>, Unread<'a>>>),
}

/// Why a message could not be read, and the id of the request that it seems to be.
#[derive(Debug)]
pub struct Unread<'a> {
    pub id: Option<RequestId<'a>>,
    pub error: ErrorObject,
}

/// The `error` member of a response.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorObject {
    pub code: i32,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl ErrorObject {
    pub fn new(code: i32, message: impl Into<String>) -> ErrorObject {
        ErrorObject { code, message: message.into(), data: None }
    }

    pub fn invalid_params(message: impl Into<String>) -> ErrorObject {
        ErrorObject::new(INVALID_PARAMS, message)
    }

    pub fn with_data(mut self, data: serde_json::Value) -> ErrorObject {
        self.data = Some(data);
        self
    }
}

impl From<ErrorObject> for Unread<'_> {
    fn from(error: ErrorObject) -> Self {
        Unread { id: None, error }
    }
}

impl fmt::Display for ErrorObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl<'a> RequestId<'a> {
    /// The id's JSON text: `7`, `"abc"`.
    pub fn text(&self) -> &'a str {
        self.0.get()
    }

    fn checked(raw: &'a RawValue) -> Result<RequestId<'a>, ErrorObject> {
        match raw.get().as_bytes().first() {
            Some(b'"' | b'-' | b'0'..=b'9') => Ok(RequestId(raw)),
            _ => Err(ErrorObject::new(
                INVALID_REQUEST,
                "\"id\" must be a string or a number; leave it out for a notification",
            )),
        }
    }
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Text<'a>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// What is left of a request that has a mistake somewhere.
#[derive(Deserialize)]
struct Remains<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// Keeps `"id": null` apart from an id that is not there.
fn present<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(input).map(Some)
}

/// Reads a body: one message or a batch.
pub fn parse(bytes: &[u8]) -> Result<Body<'_>, Unread<'_>> {
    let text = std::str::from_utf8(bytes).map_err(|_| ErrorObject::new(PARSE_ERROR, "the body is not UTF-8"))?;
    if !text.trim_ascii_start().starts_with('[') {
        return parse_one(text).map(Body::One);
    }
    let parts: Vec<&RawValue> = serde_json::from_str(text).map_err(parse_error)?;
    if parts.is_empty() || parts.len() > BATCH_MESSAGES_MAX {
        let message = format!("a batch holds 1 to {BATCH_MESSAGES_MAX} messages; this one has {}", parts.len());
        return Err(ErrorObject::new(INVALID_REQUEST, message).into());
    }
    Ok(Body::Batch(parts.into_iter().map(|part| parse_one(part.get())).collect()))
}

/// Reads one message.
pub fn parse_one(text: &str) -> Result<Message<'_>, Unread<'_>> {
    read_one(text).map_err(|error| Unread { id: id_in_remains(text), error })
}

fn read_one(text: &str) -> Result<Message<'_>, ErrorObject> {
    // A struct would be read from an array too, by the places of its values.
    if !text.trim_ascii_start().starts_with('{') {
        let is_json = serde_json::from_str::<IgnoredAny>(text).map_err(parse_error);
        return is_json.and_then(|_| Err(ErrorObject::new(INVALID_REQUEST, "a message must be an object")));
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(parse_error)?;
    // A `RawValue` of any depth is read without a stack; whoever gets it next may need one.
    if json::is_deeper_than(text, JSON_DEPTH_MAX) {
        let message = format!("a message must not be nested deeper than {JSON_DEPTH_MAX} levels");
        return Err(ErrorObject::new(INVALID_REQUEST, message));
    }
    if !matches!(&envelope.jsonrpc, Some(Text(version)) if version == "2.0") {
        return Err(ErrorObject::new(INVALID_REQUEST, "\"jsonrpc\" must be \"2.0\""));
    }
    let id = envelope.id.map(RequestId::checked).transpose()?;
    if let Some(params) = envelope.params
        && !params.get().starts_with('{')
    {
        return Err(ErrorObject::new(INVALID_REQUEST, "\"params\" must be an object"));
    }
    match (id, envelope.method.map(|Text(method)| method), envelope.result, envelope.error) {
        (Some(id), Some(method), None, None) => Ok(Message::Request { id, method, params: envelope.params }),
        (None, Some(method), None, None) => Ok(Message::Notification { method, params: envelope.params }),
        (Some(id), None, Some(result), None) => Ok(Message::Response { id, result: Ok(result) }),
        (Some(id), None, None, Some(error)) => Ok(Message::Response { id, result: Err(error) }),
        _ => Err(ErrorObject::new(
            INVALID_REQUEST,
            "a message is a request (id, method), a notification (method) or a response (id, result or error)",
        )),
    }
}

/// The id of a request that cannot be read as a whole. That of a response is none: its sender did not choose it, and may
/// have a request of its own under the same.
fn id_in_remains(text: &str) -> Option<RequestId<'_>> {
    let remains: Remains<'_> = serde_json::from_str(text).ok().filter(|_| text.trim_ascii_start().starts_with('{'))?;
    let is_request = remains.method.is_some() && remains.result.is_none() && remains.error.is_none();
    RequestId::checked(remains.id).ok().filter(|_| is_request)
}

/// A response that carries a result; `result` is JSON text.
pub fn result(id: RequestId<'_>, result: &[u8]) -> Vec<u8> {
    [br#"{"jsonrpc":"2.0","id":"#, id.text().as_bytes(), br#","result":"#, result, b"}"].concat()
}

/// A response that carries an error; without an id when there was none to read.
pub fn error(id: Option<RequestId<'_>>, error: &ErrorObject) -> Vec<u8> {
    let object = to_bytes(error);
    match id {
        Some(id) => [br#"{"jsonrpc":"2.0","id":"#, id.text().as_bytes(), br#","error":"#, &object, b"}"].concat(),
        None => [br#"{"jsonrpc":"2.0","error":"#, object.as_slice(), b"}"].concat(),
    }
}

/// A notification; `params` is JSON text.
pub fn notification(method: &str, params: Option<&[u8]>) -> Vec<u8> {
    match params {
        Some(params) => {
            [br#"{"jsonrpc":"2.0","method":""#, method.as_bytes(), br#"","params":"#, params, b"}"].concat()
        }
        None => [br#"{"jsonrpc":"2.0","method":""#, method.as_bytes(), br#""}"#].concat(),
    }
}

/// JSON text of a value that is always encodable: no map keys but strings, no failing `Serialize`.
pub fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the types of this program encode")
}

/// The whole message of `text` with one of its parts put in the place of another.
///
/// `part` must be borrowed from `text`, as the members of a parsed message are; what surrounds it is kept byte for byte.
pub fn splice(text: &str, replacements: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 64);
    let mut at = 0;
    for (part, new) in replacements {
        let start = part.as_ptr() as usize - text.as_ptr() as usize;
        out.extend_from_slice(&text.as_bytes()[at..start]);
        out.extend_from_slice(new.as_bytes());
        at = start + part.len();
    }
    out.extend_from_slice(&text.as_bytes()[at..]);
    out
}

fn parse_error(error: serde_json::Error) -> ErrorObject {
    let code = if error.is_data() { INVALID_REQUEST } else { PARSE_ERROR };
    ErrorObject::new(code, format!("the body is not a JSON-RPC message: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> String {
        match parse(text.as_bytes()) {
            Ok(Body::One(Message::Request { id, method, .. })) => format!("request {} {method}", id.text()),
            Ok(Body::One(Message::Notification { method, .. })) => format!("notification {method}"),
            Ok(Body::One(Message::Response { id, result })) => format!("response {} {}", id.text(), result.is_ok()),
            Ok(Body::Batch(messages)) => format!("batch {}", messages.len()),
            Err(Unread { id: None, error }) => error.code.to_string(),
            Err(Unread { id: Some(id), error }) => format!("{} to {}", error.code, id.text()),
        }
    }

    #[test]
    fn messages() {
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "request 1 ping"),
            (r#"{"jsonrpc":"2.0","id":"1","method":"ping","params":{}}"#, "request \"1\" ping"),
            (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, "notification notifications/initialized"),
            (r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, "response 7 true"),
            (r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":""}}"#, "response 7 false"),
            (r#" [{"jsonrpc":"2.0","id":1,"method":"ping"},5]"#, "batch 2"),
            ("[]", "-32600"),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, "-32600"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, "-32600"),
            (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, "-32600 to 1"),
            (r#"{"id":1,"method":"ping"}"#, "-32600 to 1"),
            (r#"{"jsonrpc":"2.0","id":"a","method":"ping","params":[1]}"#, "-32600 to \"a\""),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "-32600 to 1"),
            (r#"{"jsonrpc":"2.0","id":1}"#, "-32600"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, "-32600"),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, "-32600"),
            (r#"[["2.0",1,"ping",null,null,null]]"#, "batch 1"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#, "-32600"),
            ("nul", "-32700"),
            ("null", "-32600"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, "-32600"),
            ("{", "-32700"),
            ("", "-32700"),
            ("\u{1}", "-32700"),
            ("5", "-32600"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
        assert!(matches!(parse(b"\xff"), Err(unread) if unread.error.code == PARSE_ERROR));
        assert_eq!(kind(&format!("[{}1]", "1,".repeat(BATCH_MESSAGES_MAX))), "-32600");
        let nested = |levels: usize| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            kind(&format!(r#"{{"jsonrpc":"2.0","method":"a","params":{{"x":{open}{close}}}}}"#))
        };
        assert_eq!(nested(JSON_DEPTH_MAX - 2), "notification a");
        assert_eq!(nested(JSON_DEPTH_MAX - 1), "-32600");
        assert_eq!(kind(&"[".repeat(100_000)), "-32700");
        let by_place = parse_one(r#" ["2.0",1,"ping",null,null,null]"#).map(|_| ()).map_err(|unread| unread.error.code);
        assert_eq!(by_place, Err(-32600));
    }

    #[test]
    fn an_id_is_written_as_it_was_read_and_never_as_null() {
        let text = r#"{"jsonrpc":"2.0","id":"a\u0062","method":"ping"}"#;
        let Ok(Message::Request { id, .. }) = parse_one(text) else { panic!("a request") };
        assert_eq!(result(id, b"{}"), br#"{"jsonrpc":"2.0","id":"a\u0062","result":{}}"#);
        let no_id = error(None, &ErrorObject::new(PARSE_ERROR, "x"));
        assert_eq!(no_id, br#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"x"}}"#);
    }

    #[test]
    fn splice_keeps_all_but_the_parts() {
        let text = String::from(r#"{"name": "a", "n": 1 }"#);
        let (name, number) = (&text[9..12], &text[19..20]);
        assert_eq!(splice(&text, &[(name, "\"long\""), (number, "22")]), br#"{"name": "long", "n": 22 }"#);
    }
}
