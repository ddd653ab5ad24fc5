//! How a task is shown: in the core form of 2025-11-25, and in that of the extension for 2026-07-28.
//!
//! **Invariant**: pure but for looking at the task. In the extension's form a task holds its result or error; in the core
//! form `tasks/result` does, marked with the task it is of.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::json;
use crate::jsonrpc::{self, ErrorObject};
use crate::limits::TASK_POLL_EVERY;
use crate::logging::line::Utc;
use crate::mcp::tasks::{TaskStatus, with_related_task};
use crate::tasks::task::{Ending, Question, Seen, Task};

/// The code for what was cancelled; the specification names none, LSP's is the usual one.
const REQUEST_CANCELLED: i32 = -32800;

/// `Task` of 2025-11-25.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CoreTask<'a> {
    task_id: &'a str,
    status: TaskStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_message: Option<&'a str>,
    created_at: String,
    last_updated_at: String,
    ttl: u64,
    poll_interval: u64,
}

/// The same in the extension, where times say their unit.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExtensionTask<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    result_type: Option<&'a str>,
    task_id: &'a str,
    status: TaskStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_message: Option<&'a str>,
    created_at: String,
    last_updated_at: String,
    ttl_ms: u64,
    poll_interval_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_requests: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ErrorObject>,
}

/// RFC 3339, in UTC.
pub fn time(at: SystemTime) -> String {
    Utc(at).to_string()
}

/// A task of 2025-11-25.
pub fn core(task: &Task) -> Value {
    let seen = task.look();
    json!(CoreTask {
        task_id: &task.id,
        status: seen.status(true),
        status_message: seen.message.as_deref(),
        created_at: time(task.created),
        last_updated_at: time(seen.updated),
        ttl: millis(task.ttl),
        poll_interval: millis(TASK_POLL_EVERY),
    })
}

/// What a call that became a task is answered with in the extension.
pub fn created(task: &Task) -> Vec<u8> {
    let seen = Seen { ending: None, questions: Default::default(), ..task.look() };
    jsonrpc::to_bytes(&extension(task, &seen, Some("task")))
}

/// A task with all that there is to say of it.
pub fn detailed(task: &Task) -> Vec<u8> {
    let seen = task.look();
    let mut shown = extension(task, &seen, None);
    match seen.ending.as_deref() {
        Some(Ending::Result { protocol_error: Some(error), .. }) => shown.error = Some(error),
        Some(Ending::Result { json, .. }) => shown.result = json::read(json).ok(),
        Some(Ending::Cancelled) => {}
        None if seen.questions.is_empty() => {}
        None => shown.input_requests = Some(input_requests(&seen)),
    }
    jsonrpc::to_bytes(&shown)
}

/// The open questions, by the keys under which they are to be answered.
pub fn input_requests(seen: &Seen) -> Map<String, Value> {
    let shown = |(number, question): &(u64, Question)| {
        let params: Value = serde_json::from_str(&question.params).unwrap_or_default();
        (key(*number), json!({"method": question.method, "params": params}))
    };
    seen.questions.iter().map(shown).collect()
}

fn key(number: u64) -> String {
    format!("q{number}")
}

/// The number of a question, from the key of its answer.
pub fn number(key: &str) -> Option<u64> {
    let number = key.strip_prefix('q')?.parse().ok()?;
    (self::key(number) == key).then_some(number)
}

/// The result of a task of 2025-11-25, which is what the call would have been answered with.
pub fn result(task: &Task, ending: &Ending) -> Result<Vec<u8>, ErrorObject> {
    match ending {
        Ending::Cancelled => Err(ErrorObject::new(REQUEST_CANCELLED, "the task was cancelled")),
        Ending::Result { json, .. } => Ok(with_related_task(json, &task.id)),
    }
}

fn extension<'a>(task: &'a Task, seen: &'a Seen, result_type: Option<&'a str>) -> ExtensionTask<'a> {
    ExtensionTask {
        result_type,
        task_id: &task.id,
        status: seen.status(false),
        status_message: seen.message.as_deref(),
        created_at: time(task.created),
        last_updated_at: time(seen.updated),
        ttl_ms: millis(task.ttl),
        poll_interval_ms: millis(TASK_POLL_EVERY),
        input_requests: None,
        result: None,
        error: None,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::tasks::RELATED_TASK;

    fn task() -> Task {
        Task::sample()
    }

    fn value(text: &[u8]) -> Value {
        serde_json::from_slice(text).expect("it is JSON")
    }

    #[test]
    fn a_task_in_both_forms() {
        let task = task();
        task.tell("half done");
        let shown = core(&task);
        for (member, expected) in [
            ("taskId", json!(task.id)),
            ("status", json!("working")),
            ("statusMessage", json!("half done")),
            ("createdAt", json!(time(task.created))),
            ("ttl", json!(60_000)),
            ("pollInterval", json!(millis(TASK_POLL_EVERY))),
        ] {
            assert_eq!(shown[member], expected, "{member}");
        }
        task.ask("roots/list", r#"{"a":1}"#).expect("there is room");
        assert_eq!(core(&task)["status"], "input_required");
        let detailed = value(&detailed(&task));
        assert_eq!(detailed["inputRequests"], json!({"q0": {"method": "roots/list", "params": {"a": 1}}}));
        let created = value(&created(&task));
        assert_eq!((&created["resultType"], &created["ttlMs"]), (&json!("task"), &json!(60_000)));
        assert!(created.get("inputRequests").is_none() && created.get("ttl").is_none());
    }

    #[test]
    fn results_in_both_forms() {
        let task = task();
        let json = br#"{"content":[],"_meta":{"a":1.50}}"#.to_vec();
        task.end(Ending::Result { json, is_error: false, protocol_error: None });
        let ending = task.look().ending.expect("it has ended");
        let expected = json!({"content": [], "_meta": {"a": 1.5, RELATED_TASK: {"taskId": task.id}}});
        assert_eq!(value(&result(&task, &ending).expect("a result")), expected);
        assert_eq!(value(&detailed(&task))["result"], json!({"content": [], "_meta": {"a": 1.5}}));

        let failed = self::task();
        let protocol_error = Some(ErrorObject::new(-32603, "broken"));
        failed.end(Ending::Result { json: b"{\"isError\":true}".to_vec(), is_error: true, protocol_error });
        let shown = value(&detailed(&failed));
        assert_eq!((&shown["status"], &shown["error"]["code"]), (&json!("failed"), &json!(-32603)));
        assert!(shown.get("result").is_none());

        let cancelled = self::task();
        cancelled.cancel();
        let ending = cancelled.look().ending.expect("it has ended");
        assert!(result(&cancelled, &ending).is_err());
        let shown = value(&detailed(&cancelled));
        assert!(shown["status"] == "cancelled" && shown.get("result").is_none() && shown.get("error").is_none());
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        for (text, expected) in
            [("q0", Some(0)), ("q17", Some(17)), ("q", None), ("q-1", None), ("q01", None), ("17", None), ("", None)]
        {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
