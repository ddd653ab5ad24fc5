//! What a running script and the client of its call say to each other.
//!
//! **Invariant**: a client hears only of its own call, progress only if it gave a token, log messages only of the level
//! that it wants or above. What it hears was read and written anew, or is valid JSON as it stands.
//! **Thread**: the connection's.
//! **Bounds**: those of `skills/dialog.rs` and `endpoint/asking.rs`.

use std::borrow::Cow;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::endpoint::asking::Questions;
use crate::endpoint::outlet::{Outlet, Progress};
use crate::endpoint::service::Call;
use crate::jsonrpc::{self, ErrorObject};
use crate::limits::RESUME_TIME_MAX;
use crate::mcp::LogLevel;
use crate::skills::child::Cancel;
use crate::skills::dialog::{Answer, Dialog};

/// The client's part of one call.
pub struct Talk<'o, 'x, 'c> {
    outlet: &'o mut Outlet<'x, 'c>,
    progress: Progress,
    log_level: Option<LogLevel>,
    hears_of_urls: bool,
    questions: Questions<'o>,
    /// Ends the script.
    cancel: &'o Cancel,
    is_lost: bool,
}

/// `notifications/message`.
#[derive(Deserialize, Serialize)]
struct LoggingMessage<'a> {
    level: LogLevel,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    logger: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// `notifications/elicitation/complete`.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct ElicitationComplete<'a> {
    #[serde(borrow)]
    elicitation_id: Cow<'a, str>,
}

/// A script says by it that its client need not hold a connection until the end.
const RELEASE: &str = "notifications/io.dcc-mcp/release";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Release {
    #[serde(default = "one_second")]
    retry_ms: u64,
}

fn one_second() -> u64 {
    1000
}

impl<'o, 'x, 'c> Talk<'o, 'x, 'c> {
    pub fn new(call: &'o Call<'o>, outlet: &'o mut Outlet<'x, 'c>, cancel: &'o Cancel) -> Talk<'o, 'x, 'c> {
        let (progress, questions) = (call.progress(), Questions::new(call.asker));
        let hears_of_urls = call.asker.is_some_and(|asker| asker.hears_of_urls());
        Talk { outlet, progress, log_level: call.log_level, hears_of_urls, questions, cancel, is_lost: false }
    }

    /// Takes back what was asked and is of no use any more.
    pub fn end(mut self) {
        for message in self.questions.close() {
            self.send(&message);
        }
    }

    fn send(&mut self, message: &[u8]) {
        if !self.is_lost {
            let sent = self.outlet.notify(message);
            self.notice(&sent);
        }
    }

    /// The client need not hold its connection: it comes back for the rest.
    fn release(&mut self, params: &str) {
        let Ok(Release { retry_ms }) = serde_json::from_str(params) else { return };
        let released = self.outlet.release(Duration::from_millis(retry_ms).min(RESUME_TIME_MAX / 2));
        self.notice(&released);
    }

    /// A client that cannot be written to is tried once: it may have gone, or read nothing for as long as is waited.
    fn notice(&mut self, sent: &io::Result<()>) {
        if sent.is_err() {
            self.is_lost = true;
            self.cancel.cancel();
        }
    }
}

impl Dialog for Talk<'_, '_, '_> {
    fn peer_gone(&mut self) -> bool {
        self.outlet.lose()
    }

    fn idle(&mut self) {
        if !self.is_lost {
            let sent = self.outlet.keep_alive(&mut self.progress);
            self.notice(&sent);
        }
    }

    fn tell(&mut self, method: &str, params: &str) {
        if method == RELEASE {
            return self.release(params);
        }
        let message = match method {
            "notifications/progress" => self.progress.tell(params),
            "notifications/message" => self.log_level.and_then(|least| log_message(params, least)),
            // Who was sent to a URL has come back from it (2025-11-25).
            "notifications/elicitation/complete" if self.hears_of_urls => elicitation_complete(params),
            _ => None,
        };
        match message {
            Some(message) => self.send(&message),
            None => log::debug!("event=script_message_dropped method={method:?}"),
        }
    }

    fn ask(&mut self, id: &str, method: &str, params: &str) -> Result<u64, ErrorObject> {
        let (number, request) = self.questions.begin(id, method, params)?;
        request.iter().for_each(|request| self.send(request));
        Ok(number)
    }

    fn settle(&mut self) {
        self.outlet.settle();
    }

    fn answers(&self) -> Option<BorrowedFd<'_>> {
        self.questions.wake()
    }

    fn answer(&mut self) -> Option<(u64, Answer)> {
        self.questions.answer()
    }
}

fn elicitation_complete(params: &str) -> Option<Vec<u8>> {
    let params: ElicitationComplete<'_> = serde_json::from_str(params).ok()?;
    Some(jsonrpc::notification("notifications/elicitation/complete", Some(&jsonrpc::to_bytes(&params))))
}

/// A script's log message, if it is one and important enough.
fn log_message(params: &str, least: LogLevel) -> Option<Vec<u8>> {
    let message: LoggingMessage<'_> = serde_json::from_str(params).ok()?;
    // Read through: half characters would go to clients that cannot read them.
    serde_json::from_str::<Value>(message.data.get()).ok()?;
    let is_wanted = message.level >= least;
    is_wanted.then(|| jsonrpc::notification("notifications/message", Some(&jsonrpc::to_bytes(&message))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_messages_by_level() {
        let info = LogLevel::Info;
        for (params, expected) in [
            (r#"{"level":"info","data":"x"}"#, Some(r#"{"level":"info","data":"x"}"#)),
            (
                r#"{"data":{"b":1,"a":[2]},"logger":"a\u00e4","level":"emergency","more":1}"#,
                Some(r#"{"level":"emergency","logger":"aä","data":{"b":1,"a":[2]}}"#),
            ),
            (r#"{"level":"debug","data":"x"}"#, None),
            (r#"{"level":"loud","data":"x"}"#, None),
            (r#"{"level":"error"}"#, None),
            (r#"{"level":"error","data":"\ud800"}"#, None),
            ("{}", None),
        ] {
            let told = log_message(params, info).map(|message| String::from_utf8_lossy(&message).into_owned());
            let expected = expected
                .map(|params| format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{params}}}"#));
            assert_eq!(told, expected, "{params}");
        }
    }
}
