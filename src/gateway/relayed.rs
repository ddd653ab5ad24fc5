//! Questions that an instance asks while it runs a call: handed to the client of that call under ids of ours, and the
//! answers handed back under its own.
//!
//! **Invariant**: only the client of the call is asked, and only for what it offers; what it answers goes to the session
//! that asked, once.
//! **Thread**: that of whoever calls.
//! **Bounds**: those of `endpoint/asking.rs`; no question outlives its call.

use std::os::fd::BorrowedFd;

use crate::endpoint::asking::{Asker, Questions};
use crate::jsonrpc;
use crate::mcp::params::CancelledParams;

/// The questions of one call.
pub struct Relayed<'q> {
    questions: Questions<'q>,
    /// Number of a question and the instance's own id for it, as JSON text.
    open: Vec<(u64, Box<str>)>,
}

/// What becomes of a request of an instance.
#[derive(Debug, PartialEq)]
pub enum Asked {
    /// It is to be written to the client, or needs no word of its own.
    Client(Option<Vec<u8>>),
    /// It is answered with this at once.
    Nobody(Vec<u8>),
}

impl<'q> Relayed<'q> {
    pub fn new(asker: Option<Asker<'q>>) -> Relayed<'q> {
        Relayed { questions: Questions::new(asker), open: Vec::new() }
    }

    /// Takes a request of the instance; `id` is its JSON text.
    pub fn ask(&mut self, id: &str, method: &str, params: &str) -> Asked {
        if method == "ping" {
            return Asked::Nobody(response(id, "result", b"{}"));
        }
        match self.questions.begin(id, method, params) {
            Ok((number, message)) => {
                self.open.push((number, id.into()));
                Asked::Client(message)
            }
            Err(error) => Asked::Nobody(response(id, "error", &jsonrpc::to_bytes(&error))),
        }
    }

    /// The instance needs no answer any more: what the client is told.
    pub fn withdraw(&mut self, params: &str) -> Option<Vec<u8>> {
        let params: CancelledParams<'_> = serde_json::from_str(params).ok()?;
        let at = self.open.iter().position(|(_, id)| &**id == params.request_id.get())?;
        let (number, _) = self.open.swap_remove(at);
        self.questions.withdraw(number)
    }

    /// An answer of the client, as the message for the instance.
    pub fn answer(&mut self) -> Option<Vec<u8>> {
        while let Some((number, answer)) = self.questions.answer() {
            if let Some(at) = self.open.iter().position(|(open, _)| *open == number) {
                let (_, id) = self.open.swap_remove(at);
                return Some(match answer {
                    Ok(result) => response(&id, "result", &result),
                    Err(error) => response(&id, "error", &error),
                });
            }
        }
        None
    }

    /// Readable when there is an answer.
    pub fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.questions.wake()
    }

    /// The call has ended: what the client is told of questions that it need not answer.
    pub fn close(&mut self) -> Vec<Vec<u8>> {
        self.questions.close()
    }
}

/// `member` is `result` or `error`; the texts are JSON.
pub fn response(id: &str, member: &str, text: &[u8]) -> Vec<u8> {
    let head = format!(r#"{{"jsonrpc":"2.0","id":{id},"{member}":"#);
    [head.as_bytes(), text, b"}"].concat()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;
    use crate::endpoint::asking::AskTable;
    use crate::mcp::ClientCapabilities;

    const ALL: ClientCapabilities =
        ClientCapabilities { roots: true, sampling: true, elicitation: true, ..ClientCapabilities::NONE };

    fn text(bytes: Option<Vec<u8>>) -> Option<String> {
        bytes.map(|bytes| String::from_utf8(bytes).expect("it is text"))
    }

    /// Our id of the question, which the client would answer.
    fn asked(relayed: &mut Relayed<'_>, id: &str) -> String {
        let Asked::Client(Some(message)) = relayed.ask(id, "roots/list", "{}") else { panic!("it is asked") };
        serde_json::from_slice::<Value>(&message).expect("a request")["id"].to_string()
    }

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).expect("it is JSON")
    }

    #[test]
    fn equal_ids_of_two_calls_never_meet() {
        let table = AskTable::new();
        let of = |session| Relayed::new(Some(Asker::Stream { table: &table, session, client: ALL }));
        let (mut one, mut two) = (of(1), of(2));
        let (first, second) = (asked(&mut one, "7"), asked(&mut two, "7"));
        assert_ne!(first, second);
        table.answer(2, &first, Ok(raw("{\"stolen\":1}")));
        table.answer(2, &second, Ok(raw("{\"b\":2}")));
        table.answer(1, &first, Err(raw("{\"code\":-1}")));
        assert_eq!(text(one.answer()).as_deref(), Some(r#"{"jsonrpc":"2.0","id":7,"error":{"code":-1}}"#));
        assert_eq!(text(two.answer()).as_deref(), Some(r#"{"jsonrpc":"2.0","id":7,"result":{"b":2}}"#));
        assert_eq!((one.answer(), two.answer()), (None, None));
    }

    #[test]
    fn what_no_client_can_be_asked_is_answered_at_once() {
        let mut nobody = Relayed::new(None);
        let pong = Asked::Nobody(br#"{"jsonrpc":"2.0","id":"a","result":{}}"#.to_vec());
        assert_eq!(nobody.ask("\"a\"", "ping", "{}"), pong);
        for method in ["roots/list", "tools/list", "nonsense"] {
            let Asked::Nobody(refusal) = nobody.ask("1", method, "{}") else { panic!("{method} is refused") };
            assert!(String::from_utf8_lossy(&refusal).contains("-32601"), "{method}");
        }
    }

    #[test]
    fn a_question_can_be_withdrawn_once() {
        let table = AskTable::new();
        let mut relayed = Relayed::new(Some(Asker::Stream { table: &table, session: 1, client: ALL }));
        let id = asked(&mut relayed, "\"q\"");
        assert_eq!(relayed.withdraw(r#"{"requestId":"other"}"#), None);
        let told = text(relayed.withdraw(r#"{"requestId":"q","reason":"enough"}"#)).expect("the client is told");
        assert!(told.contains(&id) && !told.contains("\"q\""), "{told}");
        table.answer(1, &id, Ok(raw("{}")));
        assert_eq!((relayed.answer(), relayed.withdraw(r#"{"requestId":"q"}"#)), (None, None));
    }
}
