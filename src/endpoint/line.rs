//! What the thread of a call tells whoever serves its client at the moment: first this request's connection, then the next
//! one's, in between nobody.
//!
//! **Invariant**: what is told comes in order and once. A call that nobody will attend to again cannot tell anything.
//! **Thread**: one thread tells, one at a time takes; a pipe wakes it.
//! **Bounds**: `LINE_MESSAGES_MAX`; `WRITE_STALL_MAX` for room; `PARKED_ANSWER_KEPT` for an answer nobody takes.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::http::wire::{self, Beside, Waited};
use crate::limits::{LINE_MESSAGES_MAX, PARKED_ANSWER_KEPT, WRITE_STALL_MAX};

/// `T` is the call's answer.
pub struct Line<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
    wake: PipeReader,
    waker: PipeWriter,
}

pub enum Event<T> {
    /// A notification, encoded.
    Message(Vec<u8>),
    /// The call waits for answers to questions that are new.
    Asks,
    Ends(T),
}

/// What there is for who attends.
pub enum Next<T> {
    Event(Event<T>),
    /// Nothing has come for as long as was waited.
    Quiet,
    ClientGone,
}

struct Inner<T> {
    events: VecDeque<Event<T>>,
    attended: Attended,
}

#[derive(Clone, Copy, PartialEq)]
enum Attended {
    Now,
    /// By nobody until the client's next request.
    Later,
    Never,
}

impl<T> Line<T> {
    /// Attended from the beginning.
    pub fn new() -> io::Result<Line<T>> {
        let (wake, waker) = io::pipe()?;
        rustix::io::ioctl_fionbio(&wake, true)?;
        rustix::io::ioctl_fionbio(&waker, true)?;
        let inner = Mutex::new(Inner { events: VecDeque::new(), attended: Attended::Now });
        Ok(Line { inner, changed: Condvar::new(), wake, waker })
    }

    /// Tells something. It is dropped where nobody listens now: nothing may be said between two requests.
    pub fn say(&self, message: &[u8]) -> io::Result<()> {
        let end = Instant::now() + WRITE_STALL_MAX;
        let mut inner = self.lock();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match inner.attended {
                Attended::Never => return Err(ErrorKind::ConnectionAborted.into()),
                Attended::Later => return Ok(()),
                Attended::Now if inner.events.len() < LINE_MESSAGES_MAX => break,
                Attended::Now if left.is_zero() => return Err(ErrorKind::TimedOut.into()),
                Attended::Now => inner = self.wait(inner, left).0,
            }
        }
        inner.events.push_back(Event::Message(message.to_vec()));
        self.wake_up();
        Ok(())
    }

    /// There are questions that nobody has seen. Said once, however often it is told before somebody looks.
    pub fn ask(&self) {
        let mut inner = self.lock();
        if !inner.events.iter().any(|event| matches!(event, Event::Asks)) {
            inner.events.push_back(Event::Asks);
            self.wake_up();
        }
    }

    /// Leaves the answer, and waits until it is taken or nobody comes for it.
    pub fn end(&self, answer: T) {
        let mut inner = self.lock();
        inner.events.push_back(Event::Ends(answer));
        self.wake_up();
        while inner.attended != Attended::Never && inner.events.iter().any(|event| matches!(event, Event::Ends(_))) {
            let (again, timed_out) = self.wait(inner, PARKED_ANSWER_KEPT);
            inner = again;
            if timed_out && inner.attended == Attended::Later {
                return;
            }
        }
    }

    /// Who took from it goes; the client will come again with another request.
    pub fn park(&self) {
        self.attend_to(Attended::Later);
    }

    pub fn attend(&self) {
        self.attend_to(Attended::Now);
    }

    /// Nobody will come again.
    pub fn close(&self) {
        self.attend_to(Attended::Never);
    }

    /// Takes what comes next, within `pause`. What is there goes before that the client is gone.
    pub fn next(&self, client: Option<BorrowedFd<'_>>, pause: Duration) -> io::Result<Next<T>> {
        if let Some(event) = self.take() {
            return Ok(Next::Event(event));
        }
        Ok(match wire::wait_readable(&self.wake, Beside { watched: client, called: None }, pause)? {
            Waited::Readable => {
                let _ = (&self.wake).read(&mut [0; LINE_MESSAGES_MAX]);
                self.take().map_or(Next::Quiet, Next::Event)
            }
            Waited::WatchedGone => Next::ClientGone,
            Waited::Called | Waited::TimedOut => Next::Quiet,
        })
    }

    fn take(&self) -> Option<Event<T>> {
        let event = self.lock().events.pop_front();
        self.changed.notify_all();
        event
    }

    fn attend_to(&self, attended: Attended) {
        self.lock().attended = attended;
        self.changed.notify_all();
    }

    fn wake_up(&self) {
        // A full pipe wakes as well.
        let _ = (&self.waker).write(&[0]);
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(&self, inner: MutexGuard<'g, Inner<T>>, time: Duration) -> (MutexGuard<'g, Inner<T>>, bool) {
        let (inner, waited) = self.changed.wait_timeout(inner, time).unwrap_or_else(PoisonError::into_inner);
        (inner, waited.timed_out())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn next(line: &Line<u32>) -> Option<String> {
        Some(match line.next(None, Duration::from_millis(1)).expect("it can wait") {
            Next::Event(Event::Message(message)) => String::from_utf8(message).expect("it is text"),
            Next::Event(Event::Asks) => "asks".to_owned(),
            Next::Event(Event::Ends(answer)) => format!("ends {answer}"),
            Next::Quiet => return None,
            Next::ClientGone => "gone".to_owned(),
        })
    }

    #[test]
    fn events_come_in_order_and_messages_only_while_somebody_listens() {
        let line = Line::new().expect("a line");
        line.say(b"a").expect("it is told");
        line.ask();
        line.park();
        line.say(b"b").expect("it is dropped");
        line.attend();
        line.say(b"c").expect("it is told");
        assert_eq!(next(&line).as_deref(), Some("a"));
        assert_eq!(next(&line).as_deref(), Some("asks"));
        assert_eq!(next(&line).as_deref(), Some("c"));
        assert_eq!(next(&line), None);
        line.close();
        assert!(line.say(b"d").is_err());
        line.end(7);
    }

    /// A script that wrote to standard error while its client was away made the queue grow with every line.
    #[test]
    fn that_something_is_asked_waits_once() {
        let line = Line::new().expect("a line");
        line.park();
        for _ in 0..1000 {
            line.ask();
        }
        line.attend();
        assert_eq!(next(&line).as_deref(), Some("asks"));
        assert_eq!(next(&line), None);
        line.ask();
        assert_eq!(next(&line).as_deref(), Some("asks"));
    }

    #[test]
    fn an_answer_waits_for_who_takes_it_and_a_full_line_for_room() {
        let line = Line::new().expect("a line");
        for _ in 0..LINE_MESSAGES_MAX {
            line.say(b"x").expect("there is room");
        }
        thread::scope(|scope| {
            let ends = scope.spawn(|| {
                line.say(b"y").expect("there is room in the end");
                line.end(7);
            });
            let taken: Vec<String> = std::iter::from_fn(|| {
                let event = std::iter::from_fn(|| Some(next(&line))).flatten().next();
                event.filter(|event| event != "ends 7")
            })
            .collect();
            assert_eq!(taken.len(), LINE_MESSAGES_MAX + 1);
            ends.join().expect("it ends");
        });
    }
}
