//! Requests of clients while things happen, and whether what came back is what may come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde_json::{Value, json};

use crate::peer::{Heard, Peer};

/// One `tools/call` under way.
pub struct Call {
    pub peer: Peer,
    pub id: u64,
    /// The instance that runs it.
    pub target: usize,
    /// What its arguments and every message of it hold, and no other's.
    token: String,
    steps: usize,
    wants_progress: bool,
    is_cancelled: Arc<AtomicBool>,
    started: Instant,
    thread: JoinHandle<(Heard, Instant)>,
}

/// A process that was killed.
#[derive(Clone, Copy)]
pub struct Kill {
    pub at: Instant,
    /// From then on it was dead.
    pub over: Instant,
    pub instance: usize,
    pub was_gateway: bool,
    /// Another process was ready to go on with its listening socket.
    pub has_successor: bool,
}

impl Kill {
    /// Whether it may break the connection of a request that was made at this time. Once a gateway is dead the port
    /// goes on taking connections, if there is anybody to go on with it.
    pub fn may_break(&self, asked: Instant, ended: Instant) -> bool {
        self.was_gateway && self.at <= ended && (self.at >= asked || !self.has_successor)
    }
}

impl Call {
    pub fn start(peer: &Peer, id: u64, (target, tool): (usize, String), steps: usize, wants_progress: bool) -> Call {
        let token = format!("client-{}-request-{id}", peer.number);
        let arguments = json!({"token": token, "steps": steps, "pause": 0.03});
        let meta = if wants_progress { json!({"progressToken": id}) } else { json!({}) };
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        let (is_cancelled, started) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let (asking, leaves) = (peer.clone(), Arc::clone(&is_cancelled));
        let thread = thread::spawn(move || {
            // Where there are no sessions, a client cancels by going away.
            let heard = asking.ask(message, || asking.is_stateless() && leaves.load(Ordering::SeqCst));
            (heard, Instant::now())
        });
        Call { peer: peer.clone(), id, target, token, steps, wants_progress, is_cancelled, started, thread }
    }

    pub fn can_be_cancelled(&self) -> bool {
        !self.thread.is_finished() && (!self.peer.is_stateless() || self.wants_progress)
    }

    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::SeqCst);
        if !self.peer.is_stateless() {
            let params = json!({"requestId": self.id});
            let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
            let _ = self.peer.open(note);
        }
    }

    /// Waits for the end of the call; what it heard that it may not have heard, in a sentence.
    pub fn judge(self, kills: &[Kill]) -> Result<(), String> {
        let Call { peer, id, target, token, steps, wants_progress, is_cancelled, started, thread } = self;
        let (heard, end) = thread.join().map_err(|_| "the thread of a call panicked".to_owned())?;
        let judged = Judged {
            id,
            token: &token,
            steps: if wants_progress { steps } else { 0 },
            is_cancelled: is_cancelled.load(Ordering::SeqCst),
            gateway_died: kills.iter().any(|kill| kill.may_break(started, end)),
            target_died: kills.iter().any(|kill| kill.instance == target && kill.at <= end),
        };
        let describe =
            |fault| format!("client {} ({}), call {id} of {target}: {fault}: {heard:?}", peer.number, peer.revision);
        judged.judge(&heard).map_err(describe)
    }
}

/// What is known of a call when it has ended.
struct Judged<'a> {
    id: u64,
    token: &'a str,
    /// Steps of progress that it should hear.
    steps: usize,
    is_cancelled: bool,
    /// While it was under way, or nobody was there to go on.
    gateway_died: bool,
    target_died: bool,
}

impl Judged<'_> {
    fn judge(&self, heard: &Heard) -> Result<(), &'static str> {
        match heard {
            Heard::Hung => Err("neither an answer nor an end"),
            Heard::Broken(_) if self.gateway_died => Ok(()),
            Heard::Broken(_) => Err("the connection broke, and no gateway was killed"),
            Heard::Left(messages) => self.steps_of(messages).map(|_| ()),
            Heard::All { status: 200, messages } => self.judge_all(messages),
            Heard::All { .. } => Err("not the status 200"),
        }
    }

    fn judge_all(&self, messages: &[Value]) -> Result<(), &'static str> {
        let Some((answer, before)) = messages.split_last().filter(|(last, _)| last.get("method").is_none()) else {
            self.steps_of(messages)?;
            return if self.is_cancelled || self.gateway_died {
                Ok(())
            } else {
                Err("the stream ended without an answer")
            };
        };
        let steps = self.steps_of(before)?;
        if answer["id"] != json!(self.id) {
            return Err("an answer to another request");
        }
        if let Some(code) = answer["error"]["code"].as_i64() {
            let may_be = match code {
                -32800 => self.is_cancelled,
                -32602 => self.target_died,
                _ => false,
            };
            return if may_be { Ok(()) } else { Err("an error that is not due") };
        }
        if answer["result"]["isError"] == json!(true) {
            return if self.target_died { Ok(()) } else { Err("a failure, and its instance lives") };
        }
        if answer["result"]["structuredContent"]["token"] != json!(self.token) {
            return Err("the answer of another call");
        }
        if steps == self.steps { Ok(()) } else { Err("not all of its progress") }
    }

    /// Counts the steps of progress before an answer; whatever else is there must be of this call too.
    fn steps_of(&self, messages: &[Value]) -> Result<usize, &'static str> {
        let mut steps = 0;
        for message in messages {
            let params = &message["params"];
            match message["method"].as_str() {
                Some("notifications/progress") => {
                    steps += 1;
                    let expected = (json!(self.id), json!(steps), json!(self.token));
                    if (&params["progressToken"], &params["progress"], &params["message"])
                        != (&expected.0, &expected.1, &expected.2)
                    {
                        return Err("progress of another call, or not in order");
                    }
                }
                Some("notifications/message") if params["data"] == json!(self.token) => {}
                _ => return Err("a message that is none of this call's"),
            }
        }
        Ok(steps)
    }
}
