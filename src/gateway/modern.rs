//! Speaking 2026-07-28 to an instance: what goes into header fields and `_meta`, and what an answer asks for.
//!
//! **Invariant**: pure. What goes to the instance of one client says what that client offers, and nothing of another.

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::endpoint::desk::without_elicitation_id;
use crate::endpoint::rounds::lacking;
use crate::endpoint::service::{Answer, Failure, Payload};
use crate::json;
use crate::jsonrpc::{self, ErrorObject};
use crate::mcp::mirror::{Mirror, encoded};
use crate::mcp::{ClientCapabilities, LogLevel, MODERN, RawObject, URL_ELICITATION_REQUIRED};

/// What a request says beside its body.
pub type Fields = Vec<(String, String)>;

/// What an instance wants to know before it goes on.
#[derive(Debug, PartialEq)]
pub struct InputRequired {
    pub requests: Vec<InputRequest>,
    pub state: Option<String>,
}

#[derive(Debug, PartialEq)]
pub struct InputRequest {
    pub key: String,
    pub method: String,
    /// JSON text.
    pub params: String,
}

/// What is added to a request when it is repeated.
#[derive(Default)]
pub struct Again {
    pub responses: RawObject,
    pub state: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asking {
    result_type: String,
    #[serde(default)]
    input_requests: RawObject,
    request_state: Option<String>,
}

#[derive(Deserialize)]
struct Asked<'a> {
    method: String,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

/// The header fields that repeat a request. `name` is of what it is about; `arguments` are those that `mirror` repeats.
pub fn fields(method: &str, name: Option<&str>, mirror: Option<&Mirror>, arguments: Option<&str>) -> Fields {
    let mut fields = vec![("Mcp-Method".to_owned(), method.to_owned())];
    fields.extend(name.map(|name| ("Mcp-Name".to_owned(), encoded(name))));
    if let Some(mirror) = mirror {
        let arguments: Value = serde_json::from_str(arguments.unwrap_or("{}")).unwrap_or_default();
        fields.extend(mirror.repeat(&arguments));
    }
    fields
}

/// Whether `Mcp-Name` belongs to a method.
pub fn has_name(method: &str) -> bool {
    method.starts_with("tasks/") || matches!(method, "tools/call" | "prompts/get" | "resources/read")
}

/// Params with what every request must say, for a client that offers this; `again` where the request is repeated.
pub fn params(params: &[u8], client: ClientCapabilities, level: Option<LogLevel>, again: &Again) -> Vec<u8> {
    let mut members: RawObject = json::read(params).unwrap_or_default();
    let meta = members.get("_meta").and_then(|meta| serde_json::from_str::<RawObject>(meta.get()).ok());
    let mut meta = meta.unwrap_or_default();
    let mut say = |member: &str, value: Value| {
        if let Ok(value) = to_raw_value(&value) {
            meta.insert(format!("io.modelcontextprotocol/{member}"), value);
        }
    };
    say("protocolVersion", MODERN.into());
    say("clientCapabilities", client.declared().into());
    say("clientInfo", json!({"name": "dcc-mcp-server", "version": env!("CARGO_PKG_VERSION")}));
    if let Some(level) = level {
        say("logLevel", json!(level));
    }
    let mut add = |member: &str, value: Option<Box<RawValue>>| {
        value.map(|value| members.insert(member.to_owned(), value));
    };
    add("_meta", to_raw_value(&meta).ok());
    add("inputResponses", to_raw_value(&again.responses).ok().filter(|_| !again.responses.is_empty()));
    add("requestState", again.state.as_ref().and_then(|state| to_raw_value(state).ok()));
    jsonrpc::to_bytes(&members)
}

/// What a result asks for, if it is not yet the end.
pub fn input_required(result: &[u8]) -> Option<InputRequired> {
    let asking: Asking = json::read(result).ok()?;
    if asking.result_type != "input_required" {
        return None;
    }
    let requests = asking.input_requests.into_iter().map(|(key, asked)| {
        let Asked { method, params } = serde_json::from_str(asked.get()).ok()?;
        Some(InputRequest { key, method, params: params.map_or("{}", RawValue::get).to_owned() })
    });
    Some(InputRequired { requests: requests.collect::<Option<_>>()?, state: asking.request_state })
}

/// An error of older revisions by which an instance sends its user to a URL first, in the form of this one: the client asks
/// and repeats the request. `None` for any other error.
pub fn instead_of_url_error(error: &[u8], client: ClientCapabilities) -> Option<Answer> {
    let error: Map<String, Value> = json::read(error).ok()?;
    if error.get("code").and_then(Value::as_i64) != Some(i64::from(URL_ELICITATION_REQUIRED)) {
        return None;
    }
    let needed = ClientCapabilities { elicitation_url: true, ..ClientCapabilities::NONE };
    if !client.contains(needed) {
        return Some(Err(lacking(needed).into()));
    }
    let elicitations = error.get("data").and_then(|data| data.get("elicitations")).and_then(Value::as_array);
    let mut requests = Map::new();
    for (number, elicitation) in elicitations.into_iter().flatten().enumerate() {
        let params = without_elicitation_id(elicitation.clone());
        requests.insert(format!("url-{}", number + 1), json!({"method": "elicitation/create", "params": params}));
    }
    if requests.is_empty() {
        let message = error.get("message").and_then(Value::as_str).unwrap_or("it sends the user to no URL");
        return Some(Err(Failure::from(ErrorObject::new(jsonrpc::INTERNAL_ERROR, message))));
    }
    let result = json!({"resultType": "input_required", "inputRequests": requests});
    Some(Ok(Payload::Owned(jsonrpc::to_bytes(&result))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMS: ClientCapabilities = ClientCapabilities { elicitation: true, ..ClientCapabilities::NONE };

    fn value(text: &[u8]) -> Value {
        serde_json::from_slice(text).expect("it is JSON")
    }

    #[test]
    fn header_fields_hold_any_name() {
        for (name, expected) in [
            ("echo", "echo"),
            ("skill://a/b c", "skill://a/b c"),
            ("grüße", "=?base64?Z3LDvMOfZQ==?="),
            (" a", "=?base64?IGE=?="),
            ("a\nb", "=?base64?YQpi?="),
            ("=?base64?x?=", "=?base64?PT9iYXNlNjQ/eD89?="),
        ] {
            let fields = fields("tools/call", Some(name), None, None);
            assert_eq!(fields[1], ("Mcp-Name".to_owned(), expected.to_owned()));
        }
        let schema = r#"{"properties":{"region":{"type":"string","x-mcp-header":"Region"}}}"#;
        let mirror = Mirror::of(schema).expect("it is right");
        let fields = fields("tools/call", None, mirror.as_ref(), Some(r#"{"region":"eu","more":1}"#));
        assert_eq!(fields[1], ("Mcp-Param-Region".to_owned(), "eu".to_owned()));
    }

    #[test]
    fn every_request_says_what_its_client_offers() {
        let again = Again {
            responses: serde_json::from_str(r#"{"a":{"action":"cancel"}}"#).expect("an object"),
            state: Some("s".to_owned()),
        };
        let given = br#"{"name":"x","_meta":{"progressToken":7}}"#;
        let said = value(&params(given, FORMS, Some(LogLevel::Error), &again));
        assert_eq!(said["name"], "x");
        assert_eq!(said["_meta"]["progressToken"], 7);
        assert_eq!(said["_meta"]["io.modelcontextprotocol/clientCapabilities"], json!({"elicitation": {}}));
        assert_eq!(said["_meta"]["io.modelcontextprotocol/logLevel"], "error");
        assert_eq!((&said["inputResponses"]["a"]["action"], &said["requestState"]), (&json!("cancel"), &json!("s")));
        let plain = value(&params(b"{}", ClientCapabilities::NONE, None, &Again::default()));
        assert_eq!(plain.as_object().map(Map::len), Some(1), "{plain}");
        assert_eq!(plain["_meta"]["io.modelcontextprotocol/protocolVersion"], MODERN);
    }

    #[test]
    fn results_that_ask() {
        let asks =
            br#"{"resultType":"input_required","inputRequests":{"a":{"method":"roots/list"}},"requestState":"s"}"#;
        let request = InputRequest { key: "a".into(), method: "roots/list".into(), params: "{}".into() };
        assert_eq!(input_required(asks), Some(InputRequired { requests: vec![request], state: Some("s".into()) }));
        for other in [r#"{"content":[]}"#, r#"{"resultType":"complete"}"#, "[]", r#"{"resultType":7}"#] {
            assert_eq!(input_required(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_url_that_must_be_visited_first() {
        let urls = ClientCapabilities { elicitation_url: true, ..ClientCapabilities::NONE };
        let error = br#"{"code":-32042,"message":"go","data":{"elicitations":[{"mode":"url","url":"https://a"}]}}"#;
        let Some(Ok(asked)) = instead_of_url_error(error, urls) else { panic!("it is asked") };
        assert_eq!(value(asked.as_bytes())["inputRequests"]["url-1"]["params"]["url"], "https://a");
        let code = |answer: Option<Answer>| match answer {
            Some(Err(Failure::Error(error))) => value(error.as_bytes())["code"].as_i64(),
            _ => None,
        };
        assert_eq!(code(instead_of_url_error(error, FORMS)), Some(-32021));
        assert_eq!(code(instead_of_url_error(br#"{"code":-32042,"message":"go"}"#, urls)), Some(-32603));
        assert!(instead_of_url_error(br#"{"code":-32603,"message":"x"}"#, urls).is_none());
    }
}
