//! Tasks of instances, through the gateway. A task's id is published as `<instance id>~<its own id>`, so that every replica
//! finds it; whose task it is, is known to its instance (`mcp/tasks.rs`, `OWNER`).
//!
//! A client of 2026-07-28 that declares the extension is served by a request of that revision, since only it has the
//! extension's words; one of 2025-11-25 in the gateway's own session.
//!
//! **Invariant**: nothing about a task is kept here. Only instances of our own kind have tasks here: others know no owners, and
//! would show every client the tasks of all.
//! **Thread**: the connection's; `ask-*` threads wait for lists.
//! **Bounds**: `FAN_OUT_TIME_MAX` for a list; a wait for a result ends with its task.

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::deadline::Deadline;
use crate::endpoint::outlet::Outlet;
use crate::endpoint::service::{Answer, Call, CallMethod, Failure, Payload};
use crate::gateway::fan_out::fan_out;
use crate::gateway::snapshot::{Member, Route, Snapshot};
use crate::json;
use crate::jsonrpc::{self, ErrorObject, INTERNAL_ERROR};
use crate::limits::{TASK_TTL_MAX, TASKS_PAGE};
use crate::logging::Quoted;
use crate::mcp::RawObject;
use crate::mcp::tasks::{NO_TASK, OWNER, Place, TaskUse, cursor, place, unknown_task, with_related_task};

/// The id under which a task of an instance is published.
fn published(instance: &str, id: &str) -> String {
    format!("{instance}~{id}")
}

/// Calls a tool so that the call becomes a task.
pub fn begin(route: &Route, call: &Call<'_>, deadline: Deadline, outlet: &mut Outlet<'_, '_>) -> Answer {
    let instance = route.upstream.instance.entry.instance_id.as_str();
    if matches!(call.tasks, TaskUse::Extension { .. }) {
        let answer = route.upstream.call(&route.name, route.mirror.as_deref(), call, deadline, outlet)?;
        return Ok(Payload::Owned(with_published_id(answer.as_bytes(), instance)));
    }
    let answer = route.upstream.call(&route.name, None, call, deadline, outlet)?;
    let mut result: RawObject = json::read(answer.as_bytes()).unwrap_or_default();
    let task = result.get("task").map(|task| with_published_id(task.get().as_bytes(), instance));
    let Some(task) = task.and_then(|task| RawValue::from_string(String::from_utf8(task).ok()?).ok()) else {
        // What could not be reached, or a failure of ours, in words for a model.
        let result: Value = json::read(answer.as_bytes()).unwrap_or_default();
        let text = result["content"][0]["text"].as_str().unwrap_or("the instance has begun no task");
        return Err(ErrorObject::new(INTERNAL_ERROR, text).into());
    };
    result.insert("task".to_owned(), task);
    Ok(Payload::Owned(jsonrpc::to_bytes(&result)))
}

/// A request about one task.
pub fn serve(snapshot: &Snapshot, call: &Call<'_>, outlet: &mut Outlet<'_, '_>) -> Answer {
    let unknown = || Failure::from(unknown_task(&call.name));
    let (instance, id) = call.name.split_once('~').filter(|(_, id)| !id.is_empty()).ok_or_else(unknown)?;
    let is_it = |member: &&std::sync::Arc<Member>| member.id() == instance && member.has_owners();
    let upstream = &snapshot.members.iter().find(is_it).ok_or_else(unknown)?.upstream;
    // The id is looked up where it says; what is told of it names it as it was asked for.
    let named = |failure| with_asked_name(failure, &call.name);
    match (call.method, &call.tasks) {
        (_, TaskUse::Extension { .. }) => {
            let answer = upstream.call(id, None, call, call.deadline, outlet).map_err(named)?;
            Ok(Payload::Owned(with_published_id(answer.as_bytes(), instance)))
        }
        (CallMethod::TaskResult, _) => {
            let answer = upstream.call(id, None, call, Deadline::after(TASK_TTL_MAX), outlet).map_err(named)?;
            Ok(Payload::Owned(with_related_task(answer.as_bytes(), &call.name)))
        }
        _ => {
            let answer = upstream.call(id, None, call, call.deadline, outlet).map_err(named)?;
            Ok(Payload::Owned(with_published_id(answer.as_bytes(), instance)))
        }
    }
}

/// A page of the tasks of an owner at all instances. Every instance gives its part from the same place on; what is beyond
/// this page is asked for again with the next.
pub fn list(snapshot: &Snapshot, owner: &str, from: Option<&str>, deadline: Deadline) -> Answer {
    if let Some(cursor) = from {
        place(cursor)?;
    }
    let members: Vec<_> = snapshot.members.iter().filter(|member| member.has_tasks()).collect();
    let mut params = json!({"_meta": {OWNER: owner}});
    if let Some(cursor) = from {
        params["cursor"] = cursor.into();
    }
    let params = jsonrpc::to_bytes(&params);
    let heard = fan_out(&members, deadline, move |member, deadline| {
        let page = member.upstream.ask("tasks/list", &params, deadline).map_err(|error| error.to_string())?;
        json::read::<Page>(&page).map_err(|_| "its list cannot be read".to_owned())
    });
    let mut pages = Vec::new();
    for heard in heard {
        match heard.answer {
            Ok(page) => pages.push((heard.member.id().to_owned(), page)),
            Err(error) => log::warn!("event=tasks_not_listed instance={} error={}", heard.member.id(), Quoted(&error)),
        }
    }
    Ok(Payload::Owned(jsonrpc::to_bytes(&merged(pages))))
}

/// A page of one instance.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    tasks: Vec<Map<String, Value>>,
    next_cursor: Option<String>,
}

/// The newest of all pages, in the order of one instance's own list.
fn merged(pages: Vec<(String, Page)>) -> Value {
    let mut has_more = false;
    let mut tasks: Vec<(Place, Map<String, Value>)> = Vec::new();
    for (instance, page) in pages {
        has_more |= page.next_cursor.is_some();
        for mut task in page.tasks {
            let text = |member: &str| task.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
            let place = (text("createdAt"), text("taskId"));
            task.insert("taskId".to_owned(), published(&instance, &place.1).into());
            tasks.push((place, task));
        }
    }
    tasks.sort_by(|left, right| right.0.cmp(&left.0));
    has_more |= tasks.len() > TASKS_PAGE;
    tasks.truncate(TASKS_PAGE);
    let last = tasks.last().map(|(place, _)| cursor(place));
    let mut page = json!({"tasks": tasks.into_iter().map(|(_, task)| task).collect::<Vec<_>>()});
    if let Some(last) = last.filter(|_| has_more) {
        page["nextCursor"] = last.into();
    }
    page
}

/// The object with its `taskId`, if it has one, as it is published.
fn with_published_id(object: &[u8], instance: &str) -> Vec<u8> {
    let Ok(mut members) = json::read::<RawObject>(object) else { return object.to_vec() };
    let id = members.get("taskId").and_then(|id| serde_json::from_str::<String>(id.get()).ok());
    let id = id.and_then(|id| to_raw_value(&published(instance, &id)).ok());
    members.extend(id.map(|id| ("taskId".to_owned(), id)));
    jsonrpc::to_bytes(&members)
}

/// That a task is not there is told by the id that was asked for.
fn with_asked_name(failure: Failure, asked: &str) -> Failure {
    let Failure::Error(error) = &failure else { return failure };
    let told: Value = json::read(error.as_bytes()).unwrap_or_default();
    match told["message"].as_str() {
        Some(message) if message.starts_with(NO_TASK) => unknown_task(asked).into(),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(tasks: &[(&str, &str)], next: Option<&str>) -> Page {
        let task = |(created, id): &(&str, &str)| {
            Map::from_iter([("taskId".to_owned(), json!(id)), ("createdAt".to_owned(), json!(created))])
        };
        Page { tasks: tasks.iter().map(task).collect(), next_cursor: next.map(str::to_owned) }
    }

    fn ids(list: &Value) -> Vec<&str> {
        list["tasks"].as_array().expect("tasks").iter().filter_map(|task| task["taskId"].as_str()).collect()
    }

    #[test]
    fn lists_of_several_instances_are_one() {
        let pages = vec![
            ("a".to_owned(), page(&[("4", "z"), ("2", "x")], None)),
            ("b".to_owned(), page(&[("3", "y"), ("2", "w")], None)),
            ("c".to_owned(), page(&[], None)),
        ];
        let list = merged(pages);
        assert_eq!(ids(&list), ["a~z", "b~y", "a~x", "b~w"]);
        assert!(list.get("nextCursor").is_none());
        let list = merged(vec![("a".to_owned(), page(&[("4", "z")], Some("4/z")))]);
        assert_eq!(list["nextCursor"], "4/z");
        let many: Vec<(String, String)> = (0..TASKS_PAGE).map(|at| (format!("{at:04}"), at.to_string())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(created, id)| (created.as_str(), id.as_str())).collect();
        let list = merged(vec![("a".to_owned(), page(&many, None)), ("b".to_owned(), page(&[("0000", "x")], None))]);
        assert_eq!((ids(&list).len(), &list["nextCursor"]), (TASKS_PAGE, &json!("0000/x")));
    }

    #[test]
    fn ids_are_published_and_all_else_stays() {
        for (object, expected) in [
            (r#"{"taskId":"x","ttl":1.50}"#, r#"{"taskId":"i~x","ttl":1.50}"#),
            (r#"{"content":[]}"#, r#"{"content":[]}"#),
        ] {
            assert_eq!(String::from_utf8_lossy(&with_published_id(object.as_bytes(), "i")), expected);
        }
    }
}
