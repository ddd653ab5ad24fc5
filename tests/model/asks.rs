//! Calls that ask their client something while they run, and another client that tries to answer in its place.

use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde_json::{Value, json};

use crate::calls::Kill;
use crate::peer::{Heard, Peer};

/// Asks for a word, and answers with what it was given and what it was told.
pub const ASK: &str = r#"#!/bin/sh
read -r arguments
token=$(printf '%s' "$arguments" | sed 's/.*"token": *"\([^"]*\)".*/\1/')
printf '{"jsonrpc":"2.0","id":"word","method":"elicitation/create","params":{"message":"%s","requestedSchema":{"type":"object","properties":{"word":{"type":"string"}}}}}\n' "$token"
read -r answer
word=$(printf '%s' "$answer" | sed -n 's/.*"word": *"\([^"]*\)".*/\1/p')
printf '{"token":"%s","word":"%s"}\n' "$token" "$word"
"#;

const QUESTION: &str = "elicitation/create";

/// One such call under way.
pub struct Asking {
    peer: Peer,
    /// Of the call, and of its repetition where there is no session.
    ids: [u64; 2],
    target: usize,
    token: String,
    started: Instant,
    thread: JoinHandle<(Vec<Heard>, Instant)>,
}

impl Asking {
    /// `thief` answers every question of the call before its client does.
    pub fn start(peer: &Peer, ids: [u64; 2], (target, tool): (usize, String), thief: Option<Peer>) -> Asking {
        let token = format!("client-{}-asked-{}", peer.number, ids[0]);
        let call = Asked { peer: peer.clone(), thief, tool, token: token.clone() };
        let thread = thread::spawn(move || {
            let mut heard = vec![call.ask(ids[0], json!({}))];
            if let Some(more) = call.answers_to(&heard[0]) {
                heard.push(call.ask(ids[1], more));
            }
            (heard, Instant::now())
        });
        Asking { peer: peer.clone(), ids, target, token, started: Instant::now(), thread }
    }

    /// Waits for the end of the call; what it heard that it may not have heard, in a sentence.
    pub fn judge(self, kills: &[Kill]) -> Result<(), String> {
        let Asking { peer, ids, target, token, started, thread } = self;
        let (heard, end) = thread.join().map_err(|_| "the thread of a call panicked".to_owned())?;
        let judged = Judged {
            token: &token,
            word: if peer.can_be_asked() { &token } else { "" },
            gateway_died: kills.iter().any(|kill| kill.may_break(started, end)),
            target_died: kills.iter().any(|kill| kill.instance == target && kill.at <= end),
        };
        let last = heard.len() - 1;
        let judge = |(at, heard): (usize, &Heard)| judged.judge(heard, ids[at], at == last);
        let fault = heard.iter().enumerate().try_for_each(judge);
        let describe =
            |fault| format!("client {} ({}), {token} of {target}: {fault}: {heard:?}", peer.number, peer.revision);
        fault.map_err(describe)
    }
}

/// The client's side of it.
struct Asked {
    peer: Peer,
    thief: Option<Peer>,
    tool: String,
    token: String,
}

impl Asked {
    fn ask(&self, id: u64, more: Value) -> Heard {
        let mut params = json!({"name": self.tool, "arguments": {"token": self.token}});
        for (name, value) in more.as_object().into_iter().flatten() {
            params[name] = value.clone();
        }
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        self.peer.ask_hearing(
            message,
            || false,
            |heard| {
                if heard["method"] == QUESTION {
                    self.thief.iter().for_each(|thief| answer(thief, &heard["id"], "stolen"));
                    answer(&self.peer, &heard["id"], &self.token);
                }
            },
        )
    }

    /// What goes with the repetition of a call that was answered with questions.
    fn answers_to(&self, heard: &Heard) -> Option<Value> {
        let Heard::All { messages, .. } = heard else { return None };
        let result = &messages.last()?["result"];
        let questions = result["inputRequests"].as_object()?;
        let answers: Value = questions.keys().map(|key| (key.clone(), accepted(&self.token))).collect();
        Some(json!({"inputResponses": answers, "requestState": result["requestState"]}))
    }
}

pub fn accepted(word: &str) -> Value {
    json!({"action": "accept", "content": {"word": word}})
}

/// Posts an answer. Whether it arrives shows in what becomes of the call.
pub fn answer(peer: &Peer, id: &Value, word: &str) {
    let _ = peer.open(json!({"jsonrpc": "2.0", "id": id, "result": accepted(word)}));
}

/// What is known of a call when it has ended.
struct Judged<'a> {
    token: &'a str,
    /// What its script was told, if nothing came between.
    word: &'a str,
    gateway_died: bool,
    target_died: bool,
}

impl Judged<'_> {
    fn judge(&self, heard: &Heard, id: u64, is_last: bool) -> Result<(), &'static str> {
        let messages = match heard {
            Heard::Hung => return Err("neither an answer nor an end"),
            Heard::Broken(_) | Heard::Left(_) if self.gateway_died => return Ok(()),
            Heard::Broken(_) | Heard::Left(_) => return Err("the connection broke, and no gateway was killed"),
            Heard::All { status: 200, messages } => messages,
            Heard::All { .. } => return Err("not the status 200"),
        };
        let (answers, others): (Vec<&Value>, Vec<&Value>) =
            messages.iter().partition(|message| message.get("method").is_none());
        let is_ours = |other: &Value| other["method"] == QUESTION && other["params"]["message"] == self.token;
        // A question whose script has died is taken back.
        let is_taken_back = |other: &Value| {
            let id = &other["params"]["requestId"];
            other["method"] == "notifications/cancelled" && others.iter().any(|other| other["id"] == *id)
        };
        if !others.iter().all(|other| is_ours(other) || is_taken_back(other)) {
            return Err("a message that is none of this call's");
        }
        match answers[..] {
            [answer] if answer["id"] == json!(id) => self.judge_answer(answer, is_last),
            [] if self.gateway_died => Ok(()),
            [] => Err("the stream ended without an answer"),
            _ => Err("an answer to another request"),
        }
    }

    fn judge_answer(&self, answer: &Value, is_last: bool) -> Result<(), &'static str> {
        if answer["error"].is_object() || answer["result"]["isError"] == json!(true) {
            return if self.target_died { Ok(()) } else { Err("a failure, and its instance lives") };
        }
        if !is_last {
            let questions = answer["result"]["inputRequests"].as_object().into_iter().flatten();
            let mut questions = questions.map(|(_, question)| &question["params"]["message"]);
            return if questions.all(|message| message == self.token) {
                Ok(())
            } else {
                Err("a question of another call")
            };
        }
        let told = &answer["result"]["structuredContent"];
        if told["token"] != self.token {
            return Err("the answer of another call");
        }
        if told["word"] == self.word { Ok(()) } else { Err("its script was told something else than by its client") }
    }
}
