//! What a script left behind → the result of its call.
//!
//! **Invariant**: pure. A result is valid JSON on one line, below `RESULT_BYTES_MAX`; a failed one says in its first
//! words what happened. Structured content that may not fit the tool's output schema is left out.
//! **Bounds**: `RESULT_BYTES_MAX`, `RESULT_DEPTH_MAX`.
//! Left out on purpose: checking a result against the output schema; clients do that.

use std::borrow::Cow;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::json;
use crate::jsonrpc::{self, ErrorObject, INTERNAL_ERROR};
use crate::limits::{RESULT_BYTES_MAX, RESULT_DEPTH_MAX, SCRIPT_OUTPUT_BYTES_MAX, SCRIPT_STDERR_TAIL_BYTES};
use crate::mcp::{CallToolResult, RawObject};
use crate::skills::child::{End, Finished};
use crate::skills::ending::Why;

/// The result of a call, encoded.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// JSON text of a `CallToolResult`.
    pub json: Vec<u8>,
    pub is_error: bool,
    /// The error with which the script answered, where it spoke JSON-RPC.
    pub protocol_error: Option<Box<ErrorObject>>,
}

impl Outcome {
    pub fn failed(text: impl Into<String>) -> Outcome {
        Outcome { json: jsonrpc::to_bytes(&CallToolResult::failed(text)), is_error: true, protocol_error: None }
    }
}

/// The script and tool that an outcome is of.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// For messages.
    pub script: &'a str,
    pub time_limit: Duration,
    pub has_output_schema: bool,
}

pub fn outcome(finished: Finished, of: Of<'_>) -> Outcome {
    let Finished { end, stdout, stderr } = finished;
    let stderr = stderr.text();
    let status = match end {
        End::Ended(why) => return failure(&what_ended(why, of), &stderr, None),
        End::Exited(status) => status,
    };
    let length = stdout.len();
    let printed = match String::from_utf8(stdout) {
        Ok(text) => text,
        Err(error) if status.success() => {
            let at = error.utf8_error().valid_up_to();
            let what = format!(
                "{} printed something that is not UTF-8 text (byte {at} of {length}); write files to disk and print their paths",
                of.script
            );
            return failure(&what, &stderr, None);
        }
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    let printed = printed.trim();
    if !status.success() {
        return failure(&format!("{} {}", of.script, exit_text(status)), &stderr, Some(printed));
    }
    if let Some(response) = response(printed) {
        return answered(&response, of, &stderr);
    }
    match read_output(printed) {
        Output::Object { success } => object(printed, success, of),
        Output::Text => object(&serde_json::json!({"success": true, "message": printed}).to_string(), true, of),
        Output::Broken(reason) => {
            let what = format!("{} printed what begins like JSON but is not valid JSON: {reason}", of.script);
            failure(&what, &stderr, Some(printed))
        }
    }
}

fn what_ended(why: Why, of: Of<'_>) -> String {
    let script = of.script;
    match why {
        Why::TimedOut => format!(
            "{script} did not end within {} s and was ended; give it less to do, or raise timeout_hint_secs or --call-timeout",
            of.time_limit.as_secs_f64()
        ),
        Why::TooMuchOutput => format!(
            "{script} printed more than {} MiB and was ended; write large data to a file and print its path",
            SCRIPT_OUTPUT_BYTES_MAX / (1024 * 1024)
        ),
        Why::Cancelled => format!("{script} was ended: the call was cancelled"),
        Why::PeerGone => format!("{script} was ended: who asked for the call has gone"),
    }
}

fn exit_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("was ended by signal {signal} ({name})"),
            None => format!("was ended by signal {signal}"),
        },
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// The names of the signals that have one number on every system, and what they usually mean.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL, perhaps for want of memory",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// A failed call: what happened, the end of standard error, and the end of what was printed.
fn failure(what: &str, stderr: &str, printed: Option<&str>) -> Outcome {
    let mut text = what.to_owned();
    if !stderr.is_empty() {
        text.push_str("\n\nstandard error:\n");
        text.push_str(stderr);
    }
    if let Some(printed) = printed.filter(|printed| !printed.is_empty()) {
        text.push_str("\n\nstandard output:\n");
        text.push_str(&end_of(printed));
    }
    Outcome::failed(text)
}

fn end_of(text: &str) -> String {
    let from = text.len().checked_sub(SCRIPT_STDERR_TAIL_BYTES).filter(|from| *from > 0);
    match from.and_then(|from| (from..=text.len()).find_map(|from| text.get(from..))) {
        Some(end) => format!("…{end}"),
        None => text.to_owned(),
    }
}

/// A script's answer in the form of a JSON-RPC response.
#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    method: Option<IgnoredAny>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Value>,
}

/// What is looked at in a result that a script wrote itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OwnResult {
    content: Vec<OwnContent>,
    #[serde(default, deserialize_with = "present")]
    structured_content: Option<Map<String, Value>>,
    #[serde(default)]
    is_error: bool,
    #[serde(rename = "_meta", default, deserialize_with = "present")]
    _meta: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct OwnContent {
    r#type: String,
}

/// Not `null`: clients' schemas know objects only.
fn present<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Map<String, Value>>, D::Error> {
    Map::deserialize(input).map(Some)
}

const CONTENT_TYPES: [&str; 5] = ["text", "image", "audio", "resource", "resource_link"];

/// The response in the last line, if there is one.
fn response(printed: &str) -> Option<Response<'_>> {
    let line = printed.rsplit('\n').next().filter(|line| line.starts_with('{') && line.contains("\"jsonrpc\""))?;
    let response: Response<'_> = serde_json::from_str(line).ok()?;
    let is_one = response.jsonrpc == "2.0" && response.method.is_none();
    (is_one && response.result.is_some() != response.error.is_some()).then_some(response)
}

fn answered(response: &Response<'_>, of: Of<'_>, stderr: &str) -> Outcome {
    let Some(result) = response.result.map(RawValue::get) else {
        let error = response.error.clone().unwrap_or_default();
        let message = error.get("message").and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned);
        let code = error.get("code").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok());
        let outcome = failure(&format!("{}: {message}", of.script), stderr, None);
        let error = ErrorObject::new(code.unwrap_or(INTERNAL_ERROR), message);
        return Outcome { protocol_error: Some(Box::new(error)), ..outcome };
    };
    let has_content = serde_json::from_str::<RawObject>(result).is_ok_and(|members| members.contains_key("content"));
    let wrong = |what: String| failure(&format!("{} answered with a wrong result: {what}", of.script), stderr, None);
    match read_output(result) {
        Output::Object { .. } if has_content => match own_result(result, of) {
            Ok(outcome) => outcome,
            Err(what) => wrong(what),
        },
        Output::Object { success } => object(result, success, of),
        Output::Text => wrong("it must be an object".to_owned()),
        Output::Broken(reason) => wrong(reason),
    }
}

/// A whole `CallToolResult`: passed on as it is.
fn own_result(text: &str, of: Of<'_>) -> Result<Outcome, String> {
    let result: OwnResult = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if let Some(content) = result.content.iter().find(|content| !CONTENT_TYPES.contains(&content.r#type.as_str())) {
        return Err(format!("content of type {:?}; there are {}", content.r#type, CONTENT_TYPES.join(", ")));
    }
    if of.has_output_schema && !result.is_error && result.structured_content.is_none() {
        return Err("the tool declares an output schema, so that structuredContent is needed".to_owned());
    }
    let json = json::compact(text).into_bytes();
    match json.len() {
        0..=RESULT_BYTES_MAX => Ok(Outcome { json, is_error: result.is_error, protocol_error: None }),
        _ => Err("it is too large to be passed on".to_owned()),
    }
}

#[derive(Debug, PartialEq)]
enum Output {
    Object { success: bool },
    Text,
    Broken(String),
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    success: Option<Value>,
}

fn read_output(text: &str) -> Output {
    let is_object = text.starts_with('{');
    // `[INFO] done` and `[2026-11-24] done` are text; `[{`, `[[` and `["` are the start of a list.
    let is_list = text.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(['{', '[', '"']));
    if !is_object && !is_list {
        return Output::Text;
    }
    if json::is_deeper_than(text, RESULT_DEPTH_MAX) {
        return Output::Broken(format!("nested deeper than {RESULT_DEPTH_MAX} levels"));
    }
    // Passing over a string does not look into its escapes; halves of surrogate pairs would go to clients that refuse them.
    if (text.contains("\\ud") || text.contains("\\uD"))
        && let Err(error) = serde_json::from_str::<Value>(text)
    {
        return Output::Broken(error.to_string());
    }
    let read = match is_object {
        true => serde_json::from_str::<Head>(text)
            .map(|head| Output::Object { success: head.success != Some(Value::Bool(false)) }),
        false => serde_json::from_str::<IgnoredAny>(text).map(|_| Output::Text),
    };
    read.unwrap_or_else(|error| Output::Broken(error.to_string()))
}

/// A result whose structured content is this object (JSON text), given as text too.
fn object(text: &str, success: bool, of: Of<'_>) -> Outcome {
    let structured = json::compact(text);
    let shows_structured = success || !of.has_output_schema;
    let mut copy = jsonrpc::to_bytes(&text);
    if copy.len() + structured.len() > RESULT_BYTES_MAX - 128 {
        if !shows_structured {
            return Outcome::failed(format!("{} failed, and its answer is too large to be passed on", of.script));
        }
        copy = jsonrpc::to_bytes(&format!("The result has {} bytes; it is in structuredContent.", structured.len()));
    }
    let mut json = br#"{"content":[{"type":"text","text":"#.to_vec();
    json.extend_from_slice(&copy);
    json.extend_from_slice(b"}]");
    if shows_structured {
        json.extend_from_slice(br#","structuredContent":"#);
        json.extend_from_slice(structured.as_bytes());
    }
    if !success {
        json.extend_from_slice(br#","isError":true"#);
    }
    json.push(b'}');
    if json.len() > RESULT_BYTES_MAX {
        return Outcome::failed(format!("the answer of {} is too large to be passed on", of.script));
    }
    Outcome { json, is_error: !success, protocol_error: None }
}
