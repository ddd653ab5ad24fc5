//! Requests about tasks: calls that become tasks, looking at them, waiting for them, answering what they ask.
//!
//! A tool that asks first (`ask_first`) is begun at once, but shown as a task only when its first questions are answered:
//! until then its call is answered with what is to be answered, and the task's id is the request state.
//!
//! **Invariant**: nobody reaches a task that is not theirs. Whoever waits for a result is asked what the task asks.
//! **Thread**: the connection's.
//! **Bounds**: a wait ends with the task, whose time is bounded.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::endpoint::asking::Questions;
use crate::endpoint::outlet::{Outlet, Progress};
use crate::endpoint::service::{Answer, Call, CallMethod, Failure, Payload};
use crate::http::wire;
use crate::jsonrpc::{self, ErrorObject, INTERNAL_ERROR};
use crate::mcp::ClientCapabilities;
use crate::mcp::tasks::{TaskParams, TaskUse, cursor, place, unknown_task, with_related_task};
use crate::skills::Skills;
use crate::skills::outcome::Outcome;
use crate::skills::set::SkillTool;
use crate::tasks::dialog::TaskDialog;
use crate::tasks::task::{Ending, Seen, Task, Watcher};
use crate::tasks::{TaskTable, Wanted, place_of, view};

/// The tasks of an instance as its service shows them.
pub struct TaskService {
    pub skills: Arc<Skills>,
    pub table: TaskTable,
}

/// What a client answers to questions of a task or of a call.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct InputParams {
    input_responses: Option<Map<String, Value>>,
    request_state: Option<String>,
}

impl TaskService {
    /// A call of a tool that becomes a task.
    pub fn begin(&self, tool: &Arc<SkillTool>, call: &Call<'_>, outlet: &mut Outlet<'_, '_>) -> Answer {
        match &call.tasks {
            TaskUse::Core { owner, wanted, client } => {
                let task = self.start(tool, call, (owner, *client), *wanted)?;
                Ok(Payload::Owned(jsonrpc::to_bytes(&json!({"task": view::core(&task)}))))
            }
            TaskUse::Extension { client, .. } if tool.ask_first => self.ask_first(tool, call, *client, outlet),
            TaskUse::Extension { client, .. } => {
                let params: InputParams = read(call)?;
                if params.request_state.is_some() {
                    return Err(unknown_state().into());
                }
                let task = self.start(tool, call, ("", *client), None)?;
                Ok(Payload::Typed(view::created(&task)))
            }
            TaskUse::Unknown => Err(ErrorObject::new(INTERNAL_ERROR, "this revision has no tasks").into()),
        }
    }

    /// `tasks/get`, `tasks/result`, `tasks/cancel`, `tasks/update`.
    pub fn serve(&self, call: &Call<'_>, outlet: &mut Outlet<'_, '_>) -> Answer {
        let (owner, is_core) = match &call.tasks {
            TaskUse::Core { owner, .. } => (owner.as_str(), true),
            TaskUse::Extension { .. } | TaskUse::Unknown => ("", false),
        };
        let task = self.table.find(owner, &call.name).ok_or_else(|| unknown_task(&call.name))?;
        let shown = || Payload::Owned(jsonrpc::to_bytes(&view::core(&task)));
        match call.method {
            CallMethod::TaskResult => result(&task, call, outlet),
            CallMethod::CancelTask if is_core => match task.cancel() {
                true => Ok(shown()),
                false => Err(ErrorObject::invalid_params("the task has ended already").into()),
            },
            CallMethod::CancelTask => {
                task.cancel();
                Ok(Payload::Owned(b"{}".to_vec()))
            }
            CallMethod::UpdateTask => {
                let params: InputParams = read(call)?;
                answer(&task, params.input_responses.unwrap_or_default())?;
                Ok(Payload::Owned(b"{}".to_vec()))
            }
            _ if is_core => Ok(shown()),
            _ => {
                if task.look().ending.is_some() {
                    task.note_fetched();
                }
                Ok(Payload::Owned(view::detailed(&task)))
            }
        }
    }

    /// `tasks/list`.
    pub fn list(&self, owner: &str, from: Option<&str>) -> Answer {
        let after = from.map(place).transpose()?;
        let (tasks, has_more) = self.table.page(owner, after.as_ref());
        let mut page = json!({"tasks": tasks.iter().map(|task| view::core(task)).collect::<Vec<_>>()});
        if let Some(last) = tasks.last().filter(|_| has_more) {
            page["nextCursor"] = cursor(&place_of(last)).into();
        }
        Ok(Payload::Owned(jsonrpc::to_bytes(&page)))
    }

    fn start(
        &self,
        tool: &Arc<SkillTool>,
        call: &Call<'_>,
        (owner, client): (&str, ClientCapabilities),
        params: Option<TaskParams>,
    ) -> Result<Arc<Task>, ErrorObject> {
        let (skills, tool) = (Arc::clone(&self.skills), Arc::clone(tool));
        let (arguments, deadline) = (call.arguments.unwrap_or("{}").to_owned(), call.deadline);
        let ttl = params.and_then(|params| params.ttl);
        let time_limit = tool.timeout.unwrap_or_default().max(deadline.limit());
        let is_asking_first = tool.ask_first && matches!(call.tasks, TaskUse::Extension { .. });
        let wanted = Wanted { owner, client, ttl, time_limit, tool: &tool.tool.name.clone(), is_asking_first };
        self.table.begin(&wanted, move |task| {
            let outcome = match TaskDialog::new(task) {
                Ok(mut dialog) => skills.call(&tool, &arguments, deadline, &task.script, None, &mut dialog),
                Err(error) => Outcome::failed(format!("{} cannot be run: {error}", tool.tool.name)),
            };
            Ending::Result {
                json: outcome.json,
                is_error: outcome.is_error,
                protocol_error: outcome.protocol_error.map(|error| *error),
            }
        })
    }

    /// One round of a call that asks before it becomes a task.
    fn ask_first(
        &self,
        tool: &Arc<SkillTool>,
        call: &Call<'_>,
        client: ClientCapabilities,
        outlet: &mut Outlet<'_, '_>,
    ) -> Answer {
        let params: InputParams = read(call)?;
        let mut first = Vec::new();
        let task = match &params.request_state {
            None => {
                let task = self.start(tool, call, ("", client), None)?;
                let watcher = task.watch().map_err(failed)?;
                let came = wait(&task, &watcher, outlet, |seen| !seen.questions.is_empty() || seen.ending.is_some());
                if let Err(failure) = came {
                    // Nobody knows its id.
                    task.cancel();
                    return Err(failure);
                }
                task
            }
            Some(state) => {
                let task = self.table.find_asking(state, &tool.tool.name).ok_or_else(unknown_state)?;
                first = task.look().questions;
                answer(&task, params.input_responses.unwrap_or_default())?;
                task
            }
        };
        let seen = task.look();
        // What the script asks after the answers, if it is that quick, is the task's.
        let is_first = |question| params.request_state.is_none() || first.contains(question);
        match seen.ending.as_deref() {
            // It had nothing to ask: it is no task, but a call that is over.
            Some(Ending::Result { json, .. }) if params.request_state.is_none() => {
                self.table.forget(&task);
                Ok(Payload::Owned(json.clone()))
            }
            None if seen.questions.iter().any(is_first) => {
                let asked = json!({"resultType": "input_required", "inputRequests": view::input_requests(&seen),
                    "requestState": task.id});
                Ok(Payload::Typed(jsonrpc::to_bytes(&asked)))
            }
            _ => {
                task.is_asking_first.store(false, Ordering::Release);
                Ok(Payload::Typed(view::created(&task)))
            }
        }
    }
}

/// Hands answers to a task. One to a question that is not open is passed over.
fn answer(task: &Task, responses: Map<String, Value>) -> Result<(), ErrorObject> {
    if let Some((key, _)) = responses.iter().find(|(key, value)| view::number(key).is_some() && !value.is_object()) {
        return Err(ErrorObject::invalid_params(format!("inputResponses[{key:?}] must be an object")));
    }
    for (key, value) in responses {
        if let Some(number) = view::number(&key) {
            task.answer(number, Ok(jsonrpc::to_bytes(&value)));
        }
    }
    Ok(())
}

/// Waits for the end of a task; meanwhile whoever waits is asked what the task asks.
fn result(task: &Arc<Task>, call: &Call<'_>, outlet: &mut Outlet<'_, '_>) -> Answer {
    let watcher = task.watch().map_err(failed)?;
    let waker = watcher.waker();
    call.ticket.on_cancel(waker);
    let mut progress = call.progress();
    let mut asked = Asked { questions: Questions::new(call.asker), open: Vec::new() };
    let ending = loop {
        watcher.clear();
        let seen = task.look();
        if let Some(ending) = seen.ending {
            break ending;
        }
        if call.ticket.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        asked.follow(task, &seen, outlet).map_err(|_| Failure::Cancelled)?;
        pause(task, &watcher, &asked.questions, (outlet, &mut progress))?;
        while let Some((number, answer)) = asked.questions.answer() {
            if let Some(at) = asked.open.iter().position(|(own, _)| *own == number) {
                task.answer(asked.open.swap_remove(at).1, answer);
            }
        }
    };
    for message in asked.questions.close() {
        // A client that is gone need not be told.
        let _ = outlet.notify(&message);
    }
    task.note_fetched();
    view::result(task, &ending).map(Payload::Owned).map_err(Failure::from)
}

/// Questions of a task that were put to one client: the numbers by which it knows them, and the task's own.
struct Asked<'q> {
    questions: Questions<'q>,
    open: Vec<(u64, u64)>,
}

impl Asked<'_> {
    /// Puts what is new, takes back what somebody else has answered.
    fn follow(&mut self, task: &Task, seen: &Seen, outlet: &mut Outlet<'_, '_>) -> io::Result<()> {
        let (kept, gone): (Vec<_>, Vec<_>) = self.open.iter().copied().partition(|(_, number)| seen.asks(*number));
        self.open = kept;
        for message in gone.into_iter().filter_map(|(own, _)| self.questions.withdraw(own)) {
            outlet.notify(&message)?;
        }
        for (number, question) in &seen.questions {
            if self.open.iter().any(|(_, asked)| asked == number) {
                continue;
            }
            let params = with_related_task(question.params.as_bytes(), &task.id);
            // A client that does not offer this leaves the question to others.
            let asked = self.questions.begin("null", &question.method, &String::from_utf8_lossy(&params));
            if let Ok((own, message)) = asked {
                self.open.push((own, *number));
                message.iter().try_for_each(|message| outlet.notify(message))?;
            }
        }
        Ok(())
    }
}

/// Waits until the task is as it shall be.
fn wait(
    task: &Task,
    watcher: &Watcher,
    outlet: &mut Outlet<'_, '_>,
    is_there: impl Fn(&Seen) -> bool,
) -> Result<(), Failure> {
    let nothing = Questions::new(None);
    loop {
        watcher.clear();
        if is_there(&task.look()) {
            return Ok(());
        }
        pause(task, watcher, &nothing, (outlet, &mut Progress::default()))?;
    }
}

/// Waits for a change, an answer, or time to show a sign of life. An error says that nobody waits any more.
fn pause(
    task: &Task,
    watcher: &Watcher,
    questions: &Questions<'_>,
    (outlet, progress): (&mut Outlet<'_, '_>, &mut Progress),
) -> Result<(), Failure> {
    let left = task.expires.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(unknown_task(&task.id).into());
    }
    let called: Vec<_> = std::iter::once(watcher.changed()).chain(questions.wake()).collect();
    let is_gone = wire::wait_any(&called, outlet.socket(), outlet.keep_alive_due().min(left)).map_err(failed)?;
    if is_gone && !outlet.lose() {
        return Err(Failure::Cancelled);
    }
    outlet.keep_alive(progress).map_err(|_| Failure::Cancelled)
}

fn read(call: &Call<'_>) -> Result<InputParams, ErrorObject> {
    serde_json::from_str(call.params)
        .map_err(|error| ErrorObject::invalid_params(format!("these params do not fit the method: {error}")))
}

fn unknown_state() -> ErrorObject {
    ErrorObject::invalid_params("this requestState is none of ours, or too old; call again without it")
}

fn failed(error: io::Error) -> ErrorObject {
    ErrorObject::new(INTERNAL_ERROR, format!("the task cannot be waited for: {error}"))
}
