//! What may be heard of a task: by whom, in which order, and what after its instance was killed.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::{Value, json};

use crate::calls::Kill;
use crate::errands::{Kind, Plan, Step, is_open};
use crate::peer::{Heard, Peer};

const RELATED: &str = "io.modelcontextprotocol/related-task";
const CANCELLED: i64 = -32800;
const UNKNOWN: i64 = -32602;
const UNREACHABLE: i64 = -32603;

/// All that was asked about one task, in the order in which it ended.
pub struct Story {
    pub plan: Plan,
    /// Its id, if it was told.
    pub task: Option<String>,
    pub steps: Vec<Step>,
}

/// What a client was told of its task.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Open,
    Completed(Option<Value>),
    Cancelled,
    /// In one way or the other.
    Over,
}

/// A task that is over, whose client asks for it again later.
pub struct Kept {
    client: Peer,
    is_direct: bool,
    pub target: usize,
    /// Its process lived then.
    pub since: Instant,
    tool: String,
    task: String,
    told: Told,
}

impl Story {
    /// What is wrong with it, in a sentence. `all` are the tasks of this time, also of others.
    pub fn judge(&self, kills: &[Kill], all: &[Story]) -> Result<Option<Kept>, String> {
        let mut told: Vec<(&Step, Told)> = Vec::new();
        let describe = |step: &Step, fault: &str| {
            let Plan { client, target, token, .. } = &self.plan;
            let task = self.task.as_deref().unwrap_or("none");
            format!(
                "client {} ({}), {token} of {target}, task {task}: {fault}: {step:?}",
                client.number, client.revision
            )
        };
        for step in &self.steps {
            let heard = self.hear(step, kills, all).map_err(|fault| describe(step, fault))?;
            told.extend(heard.map(|told| (step, told)));
        }
        for (before, first) in &told {
            if let Some((after, _)) = told.iter().find(|(after, then)| !may_follow(first, then, before, after)) {
                return Err(describe(after, &format!("this is not what was told before, in {}: {first:?}", before.id)));
            }
        }
        let (Some(task), Some(last)) = (&self.task, self.steps.last()) else { return Ok(None) };
        if self.has_died(kills, last) {
            return Ok(None);
        }
        let result = told.iter().map(|(_, told)| told).find(|told| matches!(told, Told::Completed(Some(_))));
        let known = result.or(told.iter().map(|(_, told)| told).find(|told| **told == Told::Cancelled));
        let known = known.ok_or_else(|| describe(last, "it never came to an end"))?.clone();
        let Plan { client, is_direct, target, tool, .. } = &self.plan;
        Ok(Some(Kept {
            client: client.clone(),
            is_direct: *is_direct,
            target: *target,
            since: last.ended,
            tool: tool.clone(),
            task: task.clone(),
            told: known,
        }))
    }

    /// Whether its instance was killed before the end of this step.
    fn has_died(&self, kills: &[Kill], step: &Step) -> bool {
        kills.iter().any(|kill| kill.instance == self.plan.target && kill.at <= step.ended)
    }

    /// Whether it was begun, and its instance was dead, before this was asked.
    fn is_gone(&self, kills: &[Kill], step: &Step) -> bool {
        let begun = self.steps.iter().filter(|step| step.kind == Kind::Begin).map(|step| step.ended).max();
        let took_it = |kill: &Kill| begun.is_some_and(|begun| begun < kill.at) && kill.over < step.asked;
        kills.iter().any(|kill| kill.instance == self.plan.target && took_it(kill))
    }

    fn hear(&self, step: &Step, kills: &[Kill], all: &[Story]) -> Result<Option<Told>, &'static str> {
        let has_died = self.has_died(kills, step);
        let may_break = match self.plan.is_direct {
            true => has_died,
            false => kills.iter().any(|kill| kill.may_break(step.asked, step.ended)),
        };
        let messages = match &step.heard {
            Heard::Hung => return Err("neither an answer nor an end"),
            Heard::Broken(_) | Heard::Left(_) if may_break => return Ok(None),
            Heard::Broken(_) | Heard::Left(_) => return Err("the connection broke, and nobody was killed"),
            Heard::All { messages, .. } => messages,
        };
        let (answers, others): (Vec<&Value>, Vec<&Value>) =
            messages.iter().partition(|message| message.get("method").is_none());
        if !others.iter().all(|other| self.is_ours(step.kind, other, &others)) {
            return Err("a message that is none of this task's");
        }
        let answer = match answers[..] {
            [answer] if answer["id"] == json!(step.id) => answer,
            [] if may_break => return Ok(None),
            [] => return Err("the stream ended without an answer"),
            _ => return Err("an answer to another request, or more than one"),
        };
        let code = answer["error"]["code"].as_i64();
        if has_died && (code.is_some() || answer["result"]["isError"] == json!(true)) {
            return Ok(None);
        }
        match (step.kind, code) {
            (Kind::Steal(_), Some(UNKNOWN | -32601)) => Ok(None),
            (Kind::Steal(_), _) => Err("another client has reached it"),
            (Kind::Cancel, Some(UNKNOWN)) => Ok(Some(Told::Over)),
            (Kind::Result, Some(CANCELLED)) if self.was_cancelled(step) => Ok(Some(Told::Cancelled)),
            (_, Some(_)) => Err("an error, and its instance lives"),
            (Kind::List, None) => self.hear_list(step, &answer["result"], kills, all),
            (_, None) if self.is_gone(kills, step) => Err("its process is dead, and it is told of"),
            (kind, None) => self.hear_result(kind, &answer["result"]),
        }
    }

    /// What comes before the answer: questions of the task to whoever waits for it, and that they are taken back.
    fn is_ours(&self, kind: Kind, other: &Value, others: &[&Value]) -> bool {
        let is_question = |other: &Value| other["method"] == "elicitation/create";
        let id = &other["params"]["requestId"];
        let is_taken_back = other["method"] == "notifications/cancelled"
            && others.iter().any(|question| is_question(question) && question["id"] == *id);
        let related = &other["params"]["_meta"][RELATED]["taskId"];
        let is_its_own = other["params"]["message"] == self.plan.token
            && Some(related) == self.task.as_ref().map(|id| json!(id)).as_ref();
        kind == Kind::Result && (is_question(other) && is_its_own || is_taken_back)
    }

    fn was_cancelled(&self, step: &Step) -> bool {
        self.steps.iter().any(|other| other.kind == Kind::Cancel && other.asked <= step.ended)
    }

    /// A client's list has its own tasks, each of those whose instance lives, and no other's.
    fn hear_list(
        &self,
        step: &Step,
        result: &Value,
        kills: &[Kill],
        all: &[Story],
    ) -> Result<Option<Told>, &'static str> {
        let list = result["tasks"].as_array().ok_or("no list of tasks")?;
        let has =
            |story: &Story| story.task.as_ref().is_some_and(|id| list.iter().any(|task| task["taskId"] == json!(id)));
        for story in all {
            let is_own = story.plan.client.is_same(&self.plan.client);
            let began = story.steps.iter().rfind(|step| step.kind == Kind::Begin);
            let is_known = story.task.is_some() && began.is_some_and(|began| began.ended < step.asked);
            match has(story) {
                true if !is_own => return Err("a task of another client is in the list"),
                true if story.is_gone(kills, step) => return Err("a task whose process is dead is in the list"),
                false if is_own && is_known && !story.has_died(kills, step) => {
                    return Err("a task is missing in the list");
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn hear_result(&self, kind: Kind, result: &Value) -> Result<Option<Told>, &'static str> {
        let is_extension = self.plan.client.is_stateless();
        let status = |task: &Value| match task["status"].as_str() {
            Some("completed") => Ok(Told::Completed(None)),
            Some("cancelled") => Ok(Told::Cancelled),
            status if is_open(status) => Ok(Told::Open),
            _ => Err("a status that no task of this game has"),
        };
        let is_it = |task: &Value| self.task.is_none() || self.task.as_deref() == task["taskId"].as_str();
        match kind {
            Kind::Begin if result["resultType"] == "input_required" => {
                let questions = result["inputRequests"].as_object().into_iter().flatten();
                let is_ours =
                    questions.map(|(_, question)| question).all(|q| q["params"]["message"] == self.plan.token);
                if is_ours { Ok(None) } else { Err("a question of another task") }
            }
            Kind::Begin if is_extension && result["resultType"] != "task" => Err("it has become no task"),
            Kind::Begin => {
                let task = if is_extension { result } else { &result["task"] };
                if is_it(task) { status(task).map(Some) } else { Err("another task") }
            }
            Kind::Get if !is_it(result) => Err("another task"),
            Kind::Get if is_extension && result["status"] == "completed" => self.hear_completed(&result["result"]),
            Kind::Get => {
                let questions = result["inputRequests"].as_object().into_iter().flatten();
                let mut questions = questions.map(|(_, question)| &question["params"]["message"]);
                if questions.all(|message| *message == self.plan.token) {
                    status(result).map(Some)
                } else {
                    Err("a question of another task")
                }
            }
            Kind::Cancel if is_extension => Ok(Some(Told::Over)),
            Kind::Cancel if is_it(result) && result["status"] == "cancelled" => Ok(Some(Told::Cancelled)),
            Kind::Cancel => Err("it is not cancelled"),
            Kind::Result if result["_meta"][RELATED]["taskId"].as_str() != self.task.as_deref() => Err("another task"),
            Kind::Result => self.hear_completed(result),
            Kind::Update | Kind::List | Kind::Steal(_) => Ok(None),
        }
    }

    fn hear_completed(&self, result: &Value) -> Result<Option<Told>, &'static str> {
        let told = &result["structuredContent"];
        let is_own = told["token"] == self.plan.token && told.get("word").is_none_or(|word| *word == self.plan.token);
        if is_own {
            Ok(Some(Told::Completed(Some(result.clone()))))
        } else {
            Err("the result of another call, or answers of another client")
        }
    }
}

/// Whether a task can be the one and the other, where `after` was told at any time before or after, and may be told by then.
fn may_follow(first: &Told, then: &Told, before: &Step, after: &Step) -> bool {
    match (first, then) {
        (Told::Open, _) | (Told::Over, Told::Over | Told::Completed(_) | Told::Cancelled) => true,
        (_, Told::Open) => after.asked < before.ended,
        (Told::Completed(_), Told::Cancelled) | (Told::Cancelled, Told::Completed(_)) => false,
        (Told::Completed(Some(one)), Told::Completed(Some(other))) => one == other,
        (Told::Completed(_) | Told::Cancelled, _) => true,
    }
}

impl Kept {
    /// Where nobody disturbs it: the same as before, or an error if its process was killed.
    pub fn check(&self, gateway: SocketAddr, instance: SocketAddr, has_died: bool) -> Option<String> {
        let client = self.client.at(if self.is_direct { instance } else { gateway });
        let method = if client.is_stateless() { "tasks/get" } else { "tasks/result" };
        let ask = |method: &str, params: Value| {
            client.ask(json!({"jsonrpc": "2.0", "id": "kept", "method": method, "params": params}), || false)
        };
        if has_died {
            // One that the successor could tell of in its place.
            let arguments = json!({"token": "another", "steps": 0, "pause": 0});
            let mut call = json!({"name": self.tool, "arguments": arguments});
            if !client.is_stateless() {
                call["task"] = json!({});
            }
            ask("tools/call", call);
        }
        let heard = ask(method, json!({"taskId": self.task}));
        let answer = match &heard {
            Heard::All { messages, .. } if messages.len() == 1 && messages[0]["id"] == "kept" => &messages[0],
            _ => return Some(format!("a kept task was not answered for: {heard:?}")),
        };
        let is_right = match &self.told {
            // The gateway may not know of its successor yet.
            _ if has_died => [json!(UNKNOWN), json!(UNREACHABLE)].contains(&answer["error"]["code"]),
            Told::Completed(Some(result)) if client.is_stateless() => answer["result"]["result"] == *result,
            Told::Completed(Some(result)) => answer["result"] == *result,
            _ if client.is_stateless() => answer["result"]["status"] == "cancelled",
            _ => answer["error"]["code"] == CANCELLED,
        };
        let Kept { task, told, .. } = self;
        (!is_right).then(|| format!("task {task}, which was {told:?}, dead: {has_died}, is now: {answer}"))
    }
}
