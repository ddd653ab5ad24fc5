//! JSON-RPC 2.0 as MCP uses it: messages read without touching what they carry, and written as bytes.
//!
//! A message borrows from the bytes that it was read from: `params`, `result` and ids stay the text they were, so that
//! a gateway can hand them on without parsing or copying them.
//!
//! **Invariant**: an id that is written is the exact text of the id that was read; an error to a message whose id
//! could not be read has no id at all, since `"id": null` is refused by every schema of MCP.
//! **Bounds**: `JSON_DEPTH_MAX`, also within what is not read here but handed on; `BATCH_MESSAGES_MAX`.
//! Left out on purpose: what methods mean (`mcp.rs`, `endpoint.rs`).

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::json;
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
    Batch(Vec<Result<Message<'a>, ErrorObject>>),
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
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
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
pub fn parse(bytes: &[u8]) -> Result<Body<'_>, ErrorObject> {
    let text = std::str::from_utf8(bytes).map_err(|_| ErrorObject::new(PARSE_ERROR, "the body is not UTF-8"))?;
    if !text.trim_ascii_start().starts_with('[') {
        return parse_one(text).map(Body::One);
    }
    let parts: Vec<&RawValue> = serde_json::from_str(text).map_err(parse_error)?;
    if parts.is_empty() || parts.len() > BATCH_MESSAGES_MAX {
        return Err(ErrorObject::new(
            INVALID_REQUEST,
            format!("a batch holds 1 to {BATCH_MESSAGES_MAX} messages; this one has {}", parts.len()),
        ));
    }
    Ok(Body::Batch(parts.into_iter().map(|part| parse_one(part.get())).collect()))
}

/// Reads one message.
pub fn parse_one(text: &str) -> Result<Message<'_>, ErrorObject> {
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(parse_error)?;
    // A struct would be read from an array too, by the places of its values.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(ErrorObject::new(INVALID_REQUEST, "a message must be an object"));
    }
    // A `RawValue` of any depth is read without a stack; whoever gets it next may need one.
    if json::is_deeper_than(text, JSON_DEPTH_MAX) {
        let message = format!("a message must not be nested deeper than {JSON_DEPTH_MAX} levels");
        return Err(ErrorObject::new(INVALID_REQUEST, message));
    }
    if envelope.jsonrpc.as_deref() != Some("2.0") {
        return Err(ErrorObject::new(INVALID_REQUEST, "\"jsonrpc\" must be \"2.0\""));
    }
    let id = envelope.id.map(RequestId::checked).transpose()?;
    if let Some(params) = envelope.params
        && !params.get().starts_with('{')
    {
        return Err(ErrorObject::new(INVALID_REQUEST, "\"params\" must be an object"));
    }
    match (id, envelope.method, envelope.result, envelope.error) {
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
            Err(error) => error.code.to_string(),
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
            (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, "-32600"),
            (r#"{"id":1,"method":"ping"}"#, "-32600"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#, "-32600"),
            (r#"[["2.0",1,"ping",null,null,null]]"#, "batch 1"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#, "-32600"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, "-32600"),
            ("{", "-32700"),
            ("", "-32700"),
            ("\u{1}", "-32700"),
            ("5", "-32600"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
        assert!(matches!(parse(b"\xff"), Err(error) if error.code == PARSE_ERROR));
        assert_eq!(kind(&format!("[{}1]", "1,".repeat(BATCH_MESSAGES_MAX))), "-32600");
        let nested = |levels: usize| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            kind(&format!(r#"{{"jsonrpc":"2.0","method":"a","params":{{"x":{open}{close}}}}}"#))
        };
        assert_eq!(nested(JSON_DEPTH_MAX - 2), "notification a");
        assert_eq!(nested(JSON_DEPTH_MAX - 1), "-32600");
        assert_eq!(kind(&"[".repeat(100_000)), "-32700");
        let by_place = parse_one(r#" ["2.0",1,"ping",null,null,null]"#).map(|_| ()).map_err(|error| error.code);
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
