//! Calls that become tasks, in both forms: begun, looked at, waited for, answered, cancelled, by their own client and by
//! another, through the gateway and at the instance itself.
//!
//! Here is what is asked, one request after the other and one beside them; `tasks.rs` judges what was heard.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Dice;
use crate::asks::{accepted, answer};
use crate::calls::Kill;
use crate::peer::{Heard, Peer};
use crate::tasks::{Kept, Story};
use crate::wait::PATIENCE;

const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Ids of requests about one task, which no other request of its client has.
const IDS_OF_A_TASK: u64 = 100_000;
/// Tasks that are asked for again in later rounds.
const KEPT: usize = 6;

/// All tasks of a game.
#[derive(Default)]
pub struct Errands {
    under_way: Vec<JoinHandle<Story>>,
    begun: u64,
    kept: Vec<Kept>,
    /// Requests about tasks so far.
    pub asked: usize,
    /// A client of 2025-11-25 to whom no task belongs.
    pub stranger: Option<Peer>,
}

/// Who begins a task, where, and who tries to reach it beside its client.
pub struct Plan {
    pub client: Peer,
    pub target: usize,
    /// At the instance's own port.
    pub is_direct: bool,
    pub thief: Peer,
    pub tool: String,
    pub token: String,
    pub steps: usize,
    pub number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Begin,
    Get,
    Result,
    List,
    Cancel,
    Update,
    /// By another client, with this method.
    Steal(&'static str),
}

/// One request about the task, and what came of it.
#[derive(Debug)]
pub struct Step {
    pub kind: Kind,
    pub id: u64,
    pub asked: Instant,
    pub ended: Instant,
    pub heard: Heard,
}

struct Runner {
    plan: Plan,
    next_id: AtomicU64,
    steps: Mutex<Vec<Step>>,
}

impl Errands {
    pub fn next_number(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    /// What is asked, and after which pauses, the dice decide before it begins.
    pub fn start(&mut self, plan: Plan, dice: &mut Dice) {
        let has_result = !plan.client.is_stateless();
        let mut orders = Vec::new();
        for _ in 0..dice.below(5) {
            let kind = match dice.below(20) {
                6..9 if has_result => Kind::Result,
                9..12 if has_result => Kind::List,
                12..15 => Kind::Cancel,
                15..20 => Kind::Steal(["tasks/get", "tasks/result", "tasks/cancel"][dice.below(3)]),
                _ => Kind::Get,
            };
            orders.push((kind, Duration::from_millis(dice.below(60) as u64)));
        }
        let waits_beside = has_result && dice.chance(30);
        let runner = Runner { next_id: AtomicU64::new(plan.number * IDS_OF_A_TASK), plan, steps: Mutex::default() };
        self.under_way.push(thread::spawn(move || runner.run(&orders, waits_beside)));
    }

    /// Waits for what is under way; what is wrong with it, or with tasks of earlier rounds, in sentences. All instances live.
    pub fn settle(&mut self, kills: &[Kill], gateway: SocketAddr, instances: &[SocketAddr]) -> Vec<String> {
        let mut faults = Vec::new();
        let mut known = std::mem::take(&mut self.kept);
        let mut stories: Vec<Story> = Vec::new();
        for thread in std::mem::take(&mut self.under_way) {
            match thread.join() {
                Ok(story) => stories.push(story),
                Err(_) => faults.push("the thread of a task panicked".to_owned()),
            }
        }
        self.asked += stories.iter().map(|story| story.steps.len()).sum::<usize>();
        for story in &stories {
            match story.judge(kills, &stories) {
                Ok(kept) => known.extend(kept),
                Err(fault) => faults.push(fault),
            }
        }
        for kept in known {
            let has_died = kills.iter().any(|kill| kill.instance == kept.target && kill.at > kept.since);
            faults.extend(kept.check(gateway, instances[kept.target], has_died));
            self.kept.extend((!has_died).then_some(kept));
        }
        let beyond = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..beyond);
        faults
    }
}

impl Runner {
    fn run(self, orders: &[(Kind, Duration)], waits_beside: bool) -> Story {
        let task = self.begin();
        if let Some(task) = &task {
            thread::scope(|scope| {
                if waits_beside {
                    scope.spawn(|| self.ask(Kind::Result, task));
                }
                for (kind, pause) in orders {
                    thread::sleep(*pause);
                    self.ask(*kind, task);
                }
                self.see_through(task);
            });
        }
        let steps = self.steps.into_inner().unwrap_or_else(PoisonError::into_inner);
        Story { plan: self.plan, task, steps }
    }

    /// Calls the tool; the task's id. A call that asks first is repeated with the answers.
    fn begin(&self) -> Option<String> {
        let mut params = json!({"name": self.plan.tool, "arguments":
            {"token": self.plan.token, "steps": self.plan.steps, "pause": 0.03}});
        if !self.plan.client.is_stateless() {
            params["task"] = json!({"ttl": 600_000});
        }
        let mut result = self.send(Kind::Begin, "tools/call", params.clone())?["result"].clone();
        if let Some(questions) = result["inputRequests"].as_object() {
            params["inputResponses"] = self.answers_to(questions.keys());
            params["requestState"] = result["requestState"].clone();
            result = self.send(Kind::Begin, "tools/call", params)?["result"].clone();
        }
        let task = if self.plan.client.is_stateless() { &result } else { &result["task"] };
        task["taskId"].as_str().map(str::to_owned)
    }

    /// Asks until it is known what became of the task, and then once more.
    fn see_through(&self, task: &str) {
        let kind = if self.plan.client.is_stateless() { Kind::Get } else { Kind::Result };
        let end = Instant::now() + PATIENCE;
        let mut is_over = false;
        while !is_over && Instant::now() < end {
            let Some(answer) = self.ask(kind, task) else {
                // A gateway has a successor, an instance has none.
                if self.plan.is_direct {
                    return;
                }
                thread::sleep(AGAIN_AFTER);
                continue;
            };
            let status = answer["result"]["status"].as_str();
            is_over = answer["error"].is_object() || answer["result"].is_object() && !is_open(status);
            if let Some(questions) = answer["result"]["inputRequests"].as_object() {
                let responses = self.answers_to(questions.keys());
                self.send(Kind::Update, "tasks/update", json!({"taskId": task, "inputResponses": responses}));
            } else if !is_over {
                thread::sleep(AGAIN_AFTER);
            }
        }
        self.ask(kind, task);
        self.ask(Kind::Get, task);
        if kind == Kind::Result {
            self.ask(Kind::List, task);
        }
    }

    fn ask(&self, kind: Kind, task: &str) -> Option<Value> {
        let method = match kind {
            Kind::Result => "tasks/result",
            Kind::List => return self.send(kind, "tasks/list", json!({})),
            Kind::Cancel => "tasks/cancel",
            Kind::Steal(method) => method,
            Kind::Begin | Kind::Get | Kind::Update => "tasks/get",
        };
        self.send(kind, method, json!({"taskId": task}))
    }

    /// Sends a request, answers what is asked meanwhile, and notes all that came; its answer, if there was one.
    fn send(&self, kind: Kind, method: &str, params: Value) -> Option<Value> {
        let id = self.next_id.fetch_add(1, Ordering::SeqCst);
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let Plan { client, thief, token, .. } = &self.plan;
        let asked = Instant::now();
        let sender = if matches!(kind, Kind::Steal(_)) { thief } else { client };
        let heard = sender.ask_hearing(
            message,
            || false,
            |heard| {
                if heard["method"] == "elicitation/create" {
                    if !thief.is_stateless() {
                        answer(thief, &heard["id"], "stolen");
                    }
                    answer(client, &heard["id"], token);
                }
            },
        );
        let last = match &heard {
            Heard::All { messages, .. } => messages.iter().find(|message| message.get("method").is_none()).cloned(),
            _ => None,
        };
        let step = Step { kind, id, asked, ended: Instant::now(), heard };
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step);
        last
    }

    fn answers_to<'a>(&self, keys: impl Iterator<Item = &'a String>) -> Value {
        let answers: BTreeMap<&String, Value> = keys.map(|key| (key, accepted(&self.plan.token))).collect();
        json!(answers)
    }
}

/// Whether a status is one of those that pass; without one it is a result.
pub fn is_open(status: Option<&str>) -> bool {
    matches!(status, Some("working" | "input_required"))
}
