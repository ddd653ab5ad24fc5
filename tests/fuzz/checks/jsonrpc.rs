//! JSON-RPC bodies: what is read borrows from the text and agrees with what plain JSON says; a message that is written
//! with other parts, as a gateway does, is the same message but for these; every answer can be read.

use dcc_mcp_server::jsonrpc::{self, Body, INVALID_REQUEST, Message, PARSE_ERROR, RequestId, Unread};
use dcc_mcp_server::limits::{BATCH_MESSAGES_MAX, JSON_DEPTH_MAX};
use serde_json::Value;

pub fn body(input: &[u8]) -> bool {
    let value: Option<Value> = serde_json::from_slice(input).ok();
    match jsonrpc::parse(input) {
        Ok(Body::One(message)) => {
            let text = std::str::from_utf8(input).expect("only UTF-8 is read");
            check_message(text, &message, value.as_ref());
            check_rewritten(text, &message);
            true
        }
        Ok(Body::Batch(messages)) => {
            assert!((1..=BATCH_MESSAGES_MAX).contains(&messages.len()));
            let text = std::str::from_utf8(input).expect("only UTF-8 is read");
            for (index, message) in messages.iter().enumerate() {
                match message {
                    Ok(message) => check_message(text, message, value.as_ref().map(|value| &value[index])),
                    Err(unread) => check_refusal(unread),
                }
            }
            messages.iter().any(Result::is_ok)
        }
        Err(unread) => {
            check_refusal(&unread);
            assert!(value.is_none() || unread.error.code == INVALID_REQUEST, "it is JSON: {}", unread.error);
            false
        }
    }
}

fn check_refusal(unread: &Unread<'_>) {
    let Unread { id, error } = unread;
    assert!([PARSE_ERROR, INVALID_REQUEST].contains(&error.code), "{error}");
    id.iter().for_each(|id| check_id(*id));
    if id.is_none() {
        let answer: Value = serde_json::from_slice(&jsonrpc::error(None, error)).expect("a refusal is JSON");
        assert_eq!((&answer["error"]["code"], answer.get("id")), (&error.code.into(), None));
    }
}

/// `value` is what plain JSON says of the message; it is stricter in what is passed on unread (lone surrogates).
fn check_message(text: &str, message: &Message<'_>, value: Option<&Value>) {
    for part in parts(message) {
        let (from, whole) = (part.as_ptr() as usize, text.as_ptr() as usize);
        assert!(from >= whole && from + part.len() <= whole + text.len(), "a part is not of the text");
        assert!(depth(part) < JSON_DEPTH_MAX, "nested {} deep", depth(part));
    }
    if let Message::Request { params: Some(params), .. } | Message::Notification { params: Some(params), .. } = message
    {
        assert!(params.get().starts_with('{'), "params must be an object: {params}");
    }
    let agrees = |key: &str, part: Option<&str>| {
        let Some(value) = value else { return };
        let part: Option<Value> = part.map(|part| serde_json::from_str(part).expect("a part is JSON"));
        assert_eq!(
            value.get(key).filter(|member| !member.is_null()),
            part.as_ref().filter(|part| !part.is_null()),
            "{key}"
        );
    };
    let named = |method: &str| {
        assert!(value.is_none_or(|value| value["method"] == *method), "{method:?}");
    };
    match message {
        Message::Request { id, method, params } => {
            check_id(*id);
            named(method);
            agrees("id", Some(id.text()));
            agrees("params", params.map(|params| params.get()));
        }
        Message::Notification { method, params } => {
            named(method);
            agrees("id", None);
            agrees("params", params.map(|params| params.get()));
        }
        Message::Response { id, result } => {
            check_id(*id);
            agrees("id", Some(id.text()));
            agrees("result", result.ok().map(|result| result.get()));
            agrees("error", result.err().map(|error| error.get()));
        }
    }
}

/// An answer to this id carries the id's very text.
fn check_id(id: RequestId<'_>) {
    assert!(id.text().starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']), "{}", id.text());
    let refusal = jsonrpc::ErrorObject::new(INVALID_REQUEST, "a \"reason\"");
    for (answer, is_ok) in [(jsonrpc::result(id, b"{}"), true), (jsonrpc::error(Some(id), &refusal), false)] {
        let answer = String::from_utf8(answer).expect("an answer is text");
        match jsonrpc::parse_one(&answer) {
            Ok(Message::Response { id: answered, result }) => {
                assert_eq!((answered.text(), result.is_ok()), (id.text(), is_ok));
            }
            other => panic!("{answer} is {other:?}"),
        }
    }
}

/// Each part alone put in the place of itself changes nothing; another id changes nothing but the id.
fn check_rewritten(text: &str, message: &Message<'_>) {
    for part in parts(message) {
        assert_eq!(jsonrpc::splice(text, &[(part, part)]), text.as_bytes());
    }
    let (Message::Request { id, .. } | Message::Response { id, .. }) = message else { return };
    let other = String::from_utf8(jsonrpc::splice(text, &[(id.text(), "\"another\"")])).expect("text stays text");
    let again = jsonrpc::parse_one(&other).unwrap_or_else(|unread| panic!("{}: {other}", unread.error));
    let (before, after) = (parts(message), parts(&again));
    assert_eq!(after[0], "\"another\"");
    assert_eq!(before[1..], after[1..]);
    assert_eq!(std::mem::discriminant(message), std::mem::discriminant(&again));
}

/// The parts that are kept as text, the id first.
fn parts<'a>(message: &Message<'a>) -> Vec<&'a str> {
    match message {
        Message::Request { id, params, .. } => {
            [id.text()].into_iter().chain(params.map(|params| params.get())).collect()
        }
        Message::Notification { params, .. } => params.iter().map(|params| params.get()).collect(),
        Message::Response { id, result } => {
            let (Ok(part) | Err(part)) = result;
            vec![id.text(), part.get()]
        }
    }
}

fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
