//! What a running script says, line by line: output, or JSON-RPC messages to the one who called it, and their answers.
//!
//! A line of standard output that is a JSON-RPC 2.0 request or notification, or an array of them, is a message
//! (`docs/skills.md`); every other line is output, as it always was. Which of the two is decided when the line is whole.
//!
//! **Invariant**: output is kept byte for byte and in its order; each question of a script that is listened to gets one
//! answer, one line, unless the call ends before.
//! **Thread**: the caller's.
//! **Bounds**: `SCRIPT_MESSAGE_BYTES_MAX`, `SCRIPT_MESSAGES_MAX`, `QUESTIONS_PER_CALL_MAX`; depth is that of `jsonrpc.rs`.
//! Left out on purpose: pipes (`child.rs`), and where messages go (whoever implements `Dialog`).

use std::os::fd::BorrowedFd;

use serde_json::value::RawValue;

use crate::deadline::Deadline;
use crate::json;
use crate::jsonrpc::{self, Body, ErrorObject, INTERNAL_ERROR, METHOD_NOT_FOUND, Message};
use crate::limits::{QUESTIONS_PER_CALL_MAX, SCRIPT_MESSAGE_BYTES_MAX, SCRIPT_MESSAGES_MAX};

/// Whom a running script talks to.
pub trait Dialog {
    /// Called about every `SSE_COMMENT_EVERY`, so that a silent script does not look like a dead one.
    fn idle(&mut self);

    /// The peer that is watched has gone. True: the script goes on without it.
    fn peer_gone(&mut self) -> bool {
        false
    }

    /// The script tells something; `params` is JSON text of an object.
    fn tell(&mut self, method: &str, params: &str);

    /// The script asks something under an id of its own, given as JSON text. Its answer will come from `answer` under the
    /// number given here.
    fn ask(&mut self, id: &str, method: &str, params: &str) -> Result<u64, ErrorObject>;

    /// All that was asked so far can go out together: the script has nothing more to say for the moment.
    fn settle(&mut self) {}

    /// Readable when `answer` has something to give.
    fn answers(&self) -> Option<BorrowedFd<'_>>;

    /// An answer that has come.
    fn answer(&mut self) -> Option<(u64, Answer)>;
}

/// JSON text: the `result`, or the `error`.
pub type Answer = Result<Vec<u8>, Vec<u8>>;

/// Nobody listens: only time is told.
impl<F: FnMut()> Dialog for F {
    fn idle(&mut self) {
        self();
    }

    fn tell(&mut self, _: &str, _: &str) {}

    fn ask(&mut self, _: &str, method: &str, _: &str) -> Result<u64, ErrorObject> {
        Err(ErrorObject::new(METHOD_NOT_FOUND, format!("nobody is there to answer {method}")))
    }

    fn answers(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn answer(&mut self) -> Option<(u64, Answer)> {
        None
    }
}

/// One script's part of the dialog, and its output.
#[derive(Debug)]
pub struct Conversation {
    hearing: Hearing,
    /// After it nothing is passed on: a client that reads slowly must not keep the script beyond its time.
    deadline: Deadline,
    /// What was printed and is no message, and perhaps the beginning of a line that will be one.
    output: Vec<u8>,
    /// Where in `output` the line begins that is not whole yet.
    line: usize,
    messages: usize,
    /// Bytes of messages beyond `SCRIPT_MESSAGES_MAX` or the deadline.
    ignored: usize,
    /// Questions without an answer: their number, and the script's own id as JSON text.
    open: Vec<(u64, Box<str>)>,
    /// Lines for the script's standard input.
    answers: Vec<u8>,
    asked_in_vain: Option<String>,
}

/// Whether a script gets answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hearing {
    /// Its tool does not say that it asks: its standard input ended after the arguments.
    Never,
    Now,
    /// It no longer reads its standard input, or is being ended.
    NoMore,
}

/// What a script may ask its caller.
const QUESTIONS: [&str; 3] = ["sampling/createMessage", "elicitation/create", "roots/list"];

impl Conversation {
    /// With a script whose tool says that it asks, or with one that only tells.
    pub fn new(asks: bool, deadline: Deadline) -> Conversation {
        Conversation {
            hearing: if asks { Hearing::Now } else { Hearing::Never },
            deadline,
            output: Vec::new(),
            line: 0,
            messages: 0,
            ignored: 0,
            open: Vec::new(),
            answers: Vec::new(),
            asked_in_vain: None,
        }
    }

    /// Takes what was printed.
    pub fn hear(&mut self, bytes: &[u8], dialog: &mut dyn Dialog) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.output.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.end_line(dialog);
            }
        }
    }

    /// The last line need not have an end.
    pub fn end(&mut self, dialog: &mut dyn Dialog) {
        self.end_line(dialog);
    }

    /// Bytes that count as output.
    pub fn printed(&self) -> usize {
        self.output.len() + self.ignored
    }

    /// The script does not read its answers: it is not listened to until it does.
    pub fn is_backed_up(&self) -> bool {
        self.answers.len() >= SCRIPT_MESSAGE_BYTES_MAX
    }

    pub fn is_waiting(&self) -> bool {
        !self.open.is_empty()
    }

    /// Takes the answers that have come.
    pub fn collect(&mut self, dialog: &mut dyn Dialog) {
        while self.is_waiting()
            && let Some((number, answer)) = dialog.answer()
        {
            if let Some(at) = self.open.iter().position(|(open, _)| *open == number) {
                let (_, id) = self.open.swap_remove(at);
                self.answer(&id, &answer);
            }
        }
    }

    /// What the script's standard input should get next; `written` bytes of it are then taken off.
    pub fn answers(&self) -> &[u8] {
        &self.answers
    }

    pub fn written(&mut self, count: usize) {
        self.answers.drain(..count);
    }

    /// No answer can reach the script any more.
    pub fn stop_answering(&mut self) {
        if self.hearing == Hearing::Now {
            self.hearing = Hearing::NoMore;
        }
        self.open.clear();
        self.answers = Vec::new();
    }

    pub fn is_answering(&self) -> bool {
        self.hearing == Hearing::Now
    }

    /// What a script's author should know when it failed.
    pub fn advice(&self) -> Option<String> {
        let method = self.asked_in_vain.as_deref()?;
        Some(format!("it asked for {method}, but only a tool declared with `dialog: true` is answered"))
    }

    pub fn into_output(self) -> Vec<u8> {
        self.output
    }

    fn end_line(&mut self, dialog: &mut dyn Dialog) {
        let line = std::mem::replace(&mut self.line, self.output.len());
        if !may_be_message(&self.output[line..]) {
            return;
        }
        let text = self.output.split_off(line);
        match messages(&text) {
            Some(_) if self.messages >= SCRIPT_MESSAGES_MAX || self.deadline.has_passed() => self.ignored += text.len(),
            Some(messages) => messages.into_iter().for_each(|message| self.take(message, dialog)),
            None => self.output.extend_from_slice(&text),
        }
        self.line = self.output.len();
    }

    fn take(&mut self, message: Message<'_>, dialog: &mut dyn Dialog) {
        self.messages += 1;
        match message {
            Message::Notification { method, params } => dialog.tell(&method, text_of(params)),
            Message::Request { id, method, params } => self.ask(id.text(), &method, text_of(params), dialog),
            Message::Response { .. } => {}
        }
    }

    fn ask(&mut self, id: &str, method: &str, params: &str, dialog: &mut dyn Dialog) {
        match self.hearing {
            Hearing::Never => self.asked_in_vain = Some(method.chars().take(100).collect()),
            Hearing::NoMore => {}
            Hearing::Now => match self.question(id, method, params, dialog) {
                Ok(number) => self.open.push((number, id.into())),
                Err(error) => self.answer(id, &Err(jsonrpc::to_bytes(&error))),
            },
        }
    }

    fn question(&self, id: &str, method: &str, params: &str, dialog: &mut dyn Dialog) -> Result<u64, ErrorObject> {
        if !QUESTIONS.contains(&method) {
            let known = QUESTIONS.join(", ");
            return Err(ErrorObject::new(METHOD_NOT_FOUND, format!("method not found: {method}; ask for {known}")));
        }
        if self.open.len() >= QUESTIONS_PER_CALL_MAX {
            let text = format!("{QUESTIONS_PER_CALL_MAX} questions wait already; read an answer first");
            return Err(ErrorObject::new(INTERNAL_ERROR, text));
        }
        dialog.ask(id, method, params)
    }

    /// Puts an answer into one line, whatever line breaks the client wrote between its tokens.
    fn answer(&mut self, id: &str, answer: &Answer) {
        let (member, text) = match answer {
            Ok(result) => ("result", result),
            Err(error) => ("error", error),
        };
        let text = match text.len() {
            0..=SCRIPT_MESSAGE_BYTES_MAX => json::compact(&String::from_utf8_lossy(text)),
            size => {
                let limit = SCRIPT_MESSAGE_BYTES_MAX / (1024 * 1024);
                let error =
                    ErrorObject::new(INTERNAL_ERROR, format!("the answer has {size} bytes, more than {limit} MiB"));
                return self.answer(id, &Err(jsonrpc::to_bytes(&error)));
            }
        };
        self.answers.extend_from_slice(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"{member}\":{text}}}\n").as_bytes());
    }
}

/// Spares most lines from being read as JSON.
fn may_be_message(line: &[u8]) -> bool {
    let has = |word: &[u8]| line.windows(word.len()).any(|window| window == word);
    line.len() <= SCRIPT_MESSAGE_BYTES_MAX
        && matches!(line.trim_ascii_start().first(), Some(b'{' | b'['))
        && has(b"\"jsonrpc\"")
}

/// What a line says: one message, or several in an array. `None`: it is output, all of it.
fn messages(line: &[u8]) -> Option<Vec<Message<'_>>> {
    let messages = match jsonrpc::parse(line).ok()? {
        Body::One(message) => vec![message],
        Body::Batch(messages) => messages.into_iter().collect::<Result<_, _>>().ok()?,
    };
    messages.iter().all(|message| !matches!(message, Message::Response { .. })).then_some(messages)
}

fn text_of(params: Option<&RawValue>) -> &str {
    params.map_or("{}", RawValue::get)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Notes what it hears; answers questions when it is told to.
    #[derive(Default)]
    struct Client {
        heard: Vec<String>,
        asked: u64,
        answers: Vec<(u64, Answer)>,
    }

    impl Dialog for Client {
        fn idle(&mut self) {}

        fn tell(&mut self, method: &str, params: &str) {
            self.heard.push(format!("{method} {params}"));
        }

        fn ask(&mut self, _: &str, method: &str, params: &str) -> Result<u64, ErrorObject> {
            self.asked += 1;
            self.heard.push(format!("{method} {params} = {}", self.asked));
            Ok(self.asked)
        }

        fn answers(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        fn answer(&mut self) -> Option<(u64, Answer)> {
            self.answers.pop()
        }
    }

    fn conversation(asks: bool) -> Conversation {
        Conversation::new(asks, Deadline::after(Duration::from_secs(60)))
    }

    /// The output; the client notes what it hears.
    fn hear(mut talk: Conversation, client: &mut Client, text: &str, chunk: usize) -> String {
        text.as_bytes().chunks(chunk).for_each(|part| talk.hear(part, client));
        talk.end(client);
        String::from_utf8_lossy(&talk.into_output()).into_owned()
    }

    #[test]
    fn a_line_is_output_or_a_message_however_it_comes() {
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}"#;
        let told = r#"notifications/progress {"progress":1}"#;
        let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        let deep =
            format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"a":{}{}}}}}"#, "[".repeat(200), "]".repeat(200));
        let long =
            format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"a":"{}"}}}}"#, "x".repeat(SCRIPT_MESSAGE_BYTES_MAX));
        for (text, output, heard) in [
            ("", "", &[][..]),
            ("a\n\nb", "a\n\nb", &[]),
            (progress, "", &[told]),
            (&format!("a\n{progress}\nb\n"), "a\nb\n", &[told]),
            (&format!("  {progress}\r\n{progress}"), "", &[told, told]),
            (&format!("x{progress}\n"), &format!("x{progress}\n"), &[]),
            (&format!("{progress} x\n"), &format!("{progress} x\n"), &[]),
            (&format!(" [{progress}, {progress}]\nx"), "x", &[told, told]),
            (&format!("[{progress},{response}]\n"), &format!("[{progress},{response}]\n"), &[]),
            (&format!("[{progress},1]\n"), &format!("[{progress},1]\n"), &[]),
            ("[\"jsonrpc\"]", "[\"jsonrpc\"]", &[]),
            (response, response, &[]),
            ("{\"jsonrpc\":\"2.0\",\n\"method\":\"x\"}", "{\"jsonrpc\":\"2.0\",\n\"method\":\"x\"}", &[]),
            (r#"{"jsonrpc":"1.0","method":"x"}"#, r#"{"jsonrpc":"1.0","method":"x"}"#, &[]),
            (r#"{"a":"\"jsonrpc\"","method":"x"}"#, r#"{"a":"\"jsonrpc\"","method":"x"}"#, &[]),
            (r#"{"jsonrpc":"2.0","method":"x"}"#, "", &["x {}"]),
            (&deep, &deep, &[]),
            (&long, &long, &[]),
        ] {
            for chunk in [1, 7, 1 << 20] {
                if text.len() > 100_000 && chunk < 1 << 20 {
                    continue;
                }
                let (talk, mut client) = (conversation(false), Client::default());
                let start = &text[..text.len().min(200)];
                assert_eq!(hear(talk, &mut client, text, chunk), output, "{start} by {chunk}");
                assert_eq!(client.heard, heard, "{start} by {chunk}");
            }
        }
    }

    #[test]
    fn questions_are_answered_in_one_line_with_the_scripts_own_id() {
        let (mut talk, mut client) = (conversation(true), Client::default());
        let ask = |id: &str, method: &str| format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\"}}\n");
        let asked = [ask("\"a\"", "roots/list"), ask("7", "elicitation/create"), ask("8", "tools/list")].concat();
        talk.hear(asked.as_bytes(), &mut client);
        assert_eq!(client.heard, ["roots/list {} = 1", "elicitation/create {} = 2"]);
        client.answers = vec![
            (9, Ok(b"{}".to_vec())),
            (1, Err(b"{\n\"code\":\r\n1}".to_vec())),
            (2, Ok(b"{\"a\":\"b c\"}".to_vec())),
        ];
        talk.collect(&mut client);
        let text = String::from_utf8_lossy(talk.answers()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with(
                r#"{"jsonrpc":"2.0","id":8,"error":{"code":-32601,"message":"method not found: tools/list"#
            )
        );
        let expected =
            [r#"{"jsonrpc":"2.0","id":7,"result":{"a":"b c"}}"#, r#"{"jsonrpc":"2.0","id":"a","error":{"code":1}}"#];
        assert_eq!(lines[1..], expected);
        assert!(!talk.is_waiting());
        talk.written(text.len());
        assert!(talk.answers().is_empty() && talk.advice().is_none() && talk.into_output().is_empty());
    }

    #[test]
    fn a_script_that_may_not_ask_is_told_why_and_a_closed_one_is_not_listened_to() {
        let question = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\"}\n";
        let (mut talk, mut client) = (conversation(false), Client::default());
        talk.hear(question, &mut client);
        assert!(talk.advice().is_some_and(|advice| advice.contains("roots/list") && advice.contains("`dialog: true`")));
        let mut talk = conversation(true);
        talk.hear(question, &mut client);
        talk.stop_answering();
        talk.hear(question, &mut client);
        client.answers.push((1, Ok(b"{}".to_vec())));
        talk.collect(&mut client);
        assert_eq!((client.asked, talk.advice(), talk.answers()), (1, None, &[][..]));
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let (mut talk, mut client) = (conversation(true), Client::default());
        let question = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\"}\n";
        for _ in 0..=QUESTIONS_PER_CALL_MAX {
            talk.hear(question, &mut client);
        }
        assert_eq!(client.asked, QUESTIONS_PER_CALL_MAX as u64);
        assert!(String::from_utf8_lossy(talk.answers()).contains("questions wait already"));
        client.answers.push((1, Ok(vec![b' '; SCRIPT_MESSAGE_BYTES_MAX + 1])));
        talk.collect(&mut client);
        assert!(String::from_utf8_lossy(talk.answers()).contains("more than 4 MiB"));

        let mut talk = conversation(false);
        let message = b"{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n";
        client.heard.clear();
        for _ in 0..SCRIPT_MESSAGES_MAX + 3 {
            talk.hear(message, &mut client);
        }
        assert_eq!((client.heard.len(), talk.printed()), (SCRIPT_MESSAGES_MAX, 3 * message.len()));

        let mut talk = Conversation::new(false, Deadline::after(Duration::ZERO));
        client.heard.clear();
        talk.hear(message, &mut client);
        assert_eq!((client.heard.len(), talk.printed()), (0, message.len()), "its time is over");
    }
}
