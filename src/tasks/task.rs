//! One task: what became of it so far, what it asks, and who waits for it.
//!
//! **Invariant**: an ending is final, and the first one counts. Each question is answered once.
//! **Thread**: that of the task asks and ends; connections look, answer and cancel. A pipe wakes whoever waits.
//! **Bounds**: `QUESTIONS_PER_CALL_MAX`; watchers are connections.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use crate::jsonrpc::{ErrorObject, INTERNAL_ERROR};
use crate::limits::{QUESTIONS_PER_CALL_MAX, TASK_MESSAGE_BYTES_MAX};
use crate::mcp::ClientCapabilities;
use crate::mcp::tasks::TaskStatus;
use crate::os;
use crate::skills::child::Cancel;
use crate::skills::dialog::Answer;
use crate::tasks::Wanted;

pub struct Task {
    /// 32 hex digits, from 128 random bits.
    pub id: String,
    owner: String,
    pub tool: String,
    /// Its client does not know it as a task yet.
    pub is_asking_first: AtomicBool,
    /// What the client that began it can be asked.
    pub client: ClientCapabilities,
    pub created: SystemTime,
    pub ttl: Duration,
    /// When it is forgotten.
    pub expires: Instant,
    /// Ends the script.
    pub script: Cancel,
    state: Mutex<State>,
}

struct State {
    updated: SystemTime,
    /// What the script told last of its progress.
    message: Option<String>,
    ending: Option<Arc<Ending>>,
    was_fetched: bool,
    /// By their numbers, which ascend.
    questions: Vec<(u64, Question)>,
    next_question: u64,
    answers: VecDeque<(u64, Answer)>,
    watchers: Vec<Weak<Pipe>>,
}

/// How a task ended.
#[derive(Debug, PartialEq)]
pub enum Ending {
    /// JSON text of a `CallToolResult`, and the error that the script made of it where it spoke JSON-RPC.
    Result {
        json: Vec<u8>,
        is_error: bool,
        protocol_error: Option<ErrorObject>,
    },
    Cancelled,
}

/// What a script asks of the client, as JSON text.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub method: String,
    pub params: String,
}

/// A task as of one moment.
pub struct Seen {
    pub updated: SystemTime,
    pub message: Option<String>,
    pub ending: Option<Arc<Ending>>,
    pub questions: Vec<(u64, Question)>,
}

/// Wakes a thread that waits in `poll`.
struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
}

/// Somebody who waits for a change of a task.
pub struct Watcher(Arc<Pipe>);

impl Task {
    pub fn new(wanted: &Wanted<'_>, ttl: Duration) -> Task {
        let (created, expires) = (SystemTime::now(), Instant::now() + ttl);
        let state = State {
            updated: created,
            message: None,
            ending: None,
            was_fetched: false,
            questions: Vec::new(),
            next_question: 0,
            answers: VecDeque::new(),
            watchers: Vec::new(),
        };
        Task {
            id: format!("{:032x}", u128::from_be_bytes(os::random_bytes::<16>())),
            owner: wanted.owner.to_owned(),
            tool: wanted.tool.to_owned(),
            is_asking_first: AtomicBool::new(wanted.is_asking_first),
            client: wanted.client,
            created,
            ttl,
            expires,
            script: Cancel::new(),
            state: Mutex::new(state),
        }
    }

    /// Whether this owner knows it.
    pub fn is_of(&self, owner: &str) -> bool {
        self.owner == owner && !self.is_asking_first.load(Ordering::Acquire)
    }

    pub fn look(&self) -> Seen {
        let state = self.lock();
        Seen {
            updated: state.updated,
            message: state.message.clone(),
            ending: state.ending.clone(),
            questions: state.questions.clone(),
        }
    }

    /// The script tells how far it is.
    pub fn tell(&self, message: &str) {
        let longest = message.len().min(TASK_MESSAGE_BYTES_MAX);
        let kept = (0..=longest).rev().find_map(|end| message.get(..end)).unwrap_or_default();
        self.change(|state| state.message = Some(kept.to_owned()));
    }

    /// The script asks; the number is the one under which its answer will come.
    pub fn ask(&self, method: &str, params: &str) -> Result<u64, ErrorObject> {
        let question = Question { method: method.to_owned(), params: params.to_owned() };
        let mut state = self.lock();
        if state.ending.is_some() || state.questions.len() >= QUESTIONS_PER_CALL_MAX {
            return Err(ErrorObject::new(INTERNAL_ERROR, "too many questions wait for their answers"));
        }
        let number = state.next_question;
        state.next_question += 1;
        state.questions.push((number, question));
        drop(state);
        self.change(|_| {});
        Ok(number)
    }

    /// Answers a question; one that is not open is passed over.
    pub fn answer(&self, number: u64, answer: Answer) {
        let place = |state: &State| state.questions.iter().position(|(open, _)| *open == number);
        if place(&self.lock()).is_some() {
            self.change(|state| {
                if let Some(place) = place(state) {
                    state.questions.remove(place);
                    state.answers.push_back((number, answer));
                }
            });
        }
    }

    /// An answer for the script.
    pub fn take_answer(&self) -> Option<(u64, Answer)> {
        self.lock().answers.pop_front()
    }

    /// The first ending counts.
    pub fn end(&self, ending: Ending) {
        self.change(|state| {
            state.ending = Some(Arc::new(ending));
            state.questions.clear();
        });
    }

    /// Ends it from outside; false if it has ended already. Its script is ended soon after.
    pub fn cancel(&self) -> bool {
        let was_running = self.lock().ending.is_none();
        self.end(Ending::Cancelled);
        self.script.cancel();
        was_running
    }

    pub fn is_cancelled(&self) -> bool {
        self.lock().ending.as_deref() == Some(&Ending::Cancelled)
    }

    pub fn note_fetched(&self) {
        self.lock().was_fetched = true;
    }

    pub fn was_fetched(&self) -> bool {
        self.lock().was_fetched
    }

    pub fn result_bytes(&self) -> usize {
        match self.lock().ending.as_deref() {
            Some(Ending::Result { json, .. }) => json.len(),
            Some(Ending::Cancelled) | None => 0,
        }
    }

    /// From now on whoever watches is woken by every change.
    pub fn watch(&self) -> io::Result<Watcher> {
        let pipe = Arc::new(Pipe::new()?);
        self.lock().watchers.push(Arc::downgrade(&pipe));
        Ok(Watcher(pipe))
    }

    #[cfg(test)]
    pub fn sample() -> Task {
        let (client, ttl) = (ClientCapabilities::default(), Duration::from_secs(60));
        let wanted = Wanted { owner: "", client, ttl: None, time_limit: ttl, tool: "t", is_asking_first: false };
        Task::new(&wanted, ttl)
    }

    /// One that has ended stays as it is.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        if state.ending.is_some() {
            return;
        }
        change(&mut state);
        state.updated = SystemTime::now();
        state.watchers.retain(|watcher| watcher.upgrade().inspect(|pipe| pipe.wake()).is_some());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Whether this question is open.
    pub fn asks(&self, number: u64) -> bool {
        self.questions.iter().any(|(open, _)| *open == number)
    }

    pub fn status(&self, error_is_failure: bool) -> TaskStatus {
        match self.ending.as_deref() {
            Some(Ending::Cancelled) => TaskStatus::Cancelled,
            Some(Ending::Result { protocol_error: Some(_), .. }) => TaskStatus::Failed,
            Some(Ending::Result { is_error: true, .. }) if error_is_failure => TaskStatus::Failed,
            Some(Ending::Result { .. }) => TaskStatus::Completed,
            None if self.questions.is_empty() => TaskStatus::Working,
            None => TaskStatus::InputRequired,
        }
    }
}

impl Watcher {
    /// Readable after a change.
    pub fn changed(&self) -> BorrowedFd<'_> {
        self.0.reader.as_fd()
    }

    /// Wakes it as a change does.
    pub fn waker(&self) -> impl FnOnce() + Send + use<> {
        let pipe = Arc::clone(&self.0);
        move || pipe.wake()
    }

    /// To be called before each look.
    pub fn clear(&self) {
        self.0.clear();
    }
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let (reader, writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        Ok(Pipe { reader, writer })
    }

    /// A pipe that is full wakes as well.
    fn wake(&self) {
        let _ = (&self.writer).write(&[0]);
    }

    fn clear(&self) {
        while matches!((&self.reader).read(&mut [0; 256]), Ok(256)) {}
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(fd: BorrowedFd<'_>) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&at_once)) == Ok(1)
    }

    fn task() -> Task {
        Task::sample()
    }

    fn result(text: &str, is_error: bool) -> Ending {
        Ending::Result { json: text.into(), is_error, protocol_error: None }
    }

    #[test]
    fn questions_are_answered_once_and_whoever_waits_is_woken() {
        let task = task();
        let watcher = task.watch().expect("a pipe");
        assert!(!is_readable(watcher.changed()));
        let first = task.ask("roots/list", "{}").expect("there is room");
        let second = task.ask("elicitation/create", "{}").expect("there is room");
        assert_eq!(task.look().status(true), TaskStatus::InputRequired);
        assert!(is_readable(watcher.changed()));
        watcher.clear();
        assert!(!is_readable(watcher.changed()));
        task.answer(second, Ok(b"2".to_vec()));
        task.answer(second, Ok(b"again".to_vec()));
        task.answer(99, Ok(b"nobody asked".to_vec()));
        assert_eq!(task.look().questions.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [first]);
        assert!(is_readable(watcher.changed()));
        task.answer(first, Err(b"1".to_vec()));
        assert_eq!(task.look().status(true), TaskStatus::Working);
        assert_eq!(task.take_answer(), Some((second, Ok(b"2".to_vec()))));
        assert_eq!(task.take_answer(), Some((first, Err(b"1".to_vec()))));
        assert_eq!(task.take_answer(), None);
    }

    #[test]
    fn the_first_ending_counts() {
        let task = task();
        task.ask("roots/list", "{}").expect("there is room");
        assert!(task.cancel() && !task.cancel());
        let cancelled = task.look();
        task.end(result("{}", false));
        task.tell("what a script says while it is ended");
        assert!(!task.cancel());
        assert_eq!((task.look().updated, task.look().message), (cancelled.updated, None));
        assert!(task.is_cancelled() && task.script.is_cancelled() && task.look().questions.is_empty());
        assert!(task.ask("roots/list", "{}").is_err());
        let protocol_error = Some(ErrorObject::new(-1, "x"));
        for (ending, core, extension) in [
            (result("{}", false), TaskStatus::Completed, TaskStatus::Completed),
            (result("{}", true), TaskStatus::Failed, TaskStatus::Completed),
            (
                Ending::Result { json: Vec::new(), is_error: true, protocol_error },
                TaskStatus::Failed,
                TaskStatus::Failed,
            ),
            (Ending::Cancelled, TaskStatus::Cancelled, TaskStatus::Cancelled),
        ] {
            let task = self::task();
            task.end(ending);
            assert!(!task.cancel());
            assert_eq!((task.look().status(true), task.look().status(false)), (core, extension));
        }
    }
}
