//! The answer to a request, waited for in steps.
//!
//! **Invariant**: a connection goes back to the pool only when its reply was read to the end and nothing came after it.
//! **Thread**: the caller's.
//! **Bounds**: `INTERIM_REPLIES_MAX`, the caller's patience; how much of a body to keep is the caller's to bound.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::http::canceller::Canceller;
use crate::http::chunked::Chunked;
use crate::http::client_error::ClientError;
use crate::http::fields::BodyLength;
use crate::http::head::{ResponseHead, head_end};
use crate::http::pool::{Connection, Peer};
use crate::http::wire::{self, Beside, Waited};
use crate::limits::{ANSWER_AT_ONCE, INTERIM_REPLIES_MAX, READ_BYTES};

/// How to wait for a reply.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    pub deadline: Deadline,
    /// Wake after this much silence.
    pub tick: Option<Duration>,
    /// Wake when the peer of this socket is gone.
    pub watched: Option<BorrowedFd<'a>>,
    /// Wake when this can be read.
    pub called: Option<BorrowedFd<'a>>,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The head is there; or there is more of the body, or its end.
    Ready,
    Tick,
    WatchedGone,
    Called,
}

/// The answer to a request, on its way.
pub struct Reply {
    peer: Arc<Peer>,
    /// Taken when the reply ends.
    connection: Option<Connection>,
    head: ResponseHead,
    stage: Stage,
    answers_head: bool,
    /// Told by the head; kept apart since `ask` gives the head away.
    keeps_alive: bool,
    interim: usize,
    was_pooled: bool,
    /// Nothing was waited for yet.
    is_new: bool,
    canceller: OnceLock<Canceller>,
}

enum Stage {
    Head,
    Bytes(u64),
    Chunks(Chunked),
    UntilClose,
    Complete,
    Failed,
}

impl Reply {
    /// `Ready` when the head is there.
    pub fn wait_head(&mut self, patience: &Patience<'_>) -> Result<Wake, ClientError> {
        self.receive_at_once(patience)?;
        while matches!(self.stage, Stage::Head) {
            if !self.take_head()? {
                match self.wait(patience, "the answer")? {
                    Wake::Ready => self.receive()?,
                    other => return Ok(other),
                }
            }
        }
        match self.stage {
            Stage::Failed => Err(self.protocol("the answer has failed before")),
            _ => Ok(Wake::Ready),
        }
    }

    /// The head, after `wait_head` was `Ready`.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// Gives the head away, when all that is left is to drop the reply.
    pub fn take_response_head(&mut self) -> ResponseHead {
        std::mem::take(&mut self.head)
    }

    /// Appends what has come of the body, waiting for at least something of it or for its end.
    pub fn read(&mut self, out: &mut Vec<u8>, patience: &Patience<'_>) -> Result<Wake, ClientError> {
        let before = out.len();
        loop {
            self.take_body(out)?;
            if out.len() > before || self.is_complete() {
                return Ok(Wake::Ready);
            }
            match self.wait(patience, "the rest of the answer")? {
                Wake::Ready => self.receive_body(out)?,
                other => return Ok(other),
            }
        }
    }

    /// The body was read to its end.
    pub fn is_complete(&self) -> bool {
        matches!(self.stage, Stage::Complete)
    }

    /// For another thread, to end this reply.
    pub fn canceller(&self) -> Canceller {
        let stream = || self.connection.as_ref().map(|connection| connection.stream.clone());
        self.canceller.get_or_init(|| Canceller::new(stream())).clone()
    }

    /// Of a request that was just sent.
    pub fn new(peer: &Arc<Peer>, connection: Connection, answers_head: bool, was_pooled: bool) -> Reply {
        Reply {
            peer: peer.clone(),
            connection: Some(connection),
            head: ResponseHead::default(),
            stage: Stage::Head,
            answers_head,
            keeps_alive: false,
            interim: 0,
            was_pooled,
            is_new: true,
            canceller: OnceLock::new(),
        }
    }

    /// Reads the head from what was received; false if it is not whole yet.
    fn take_head(&mut self) -> Result<bool, ClientError> {
        let Some(connection) = &mut self.connection else { return Err(self.closed()) };
        let unread = &connection.input[connection.start..];
        let parsed = head_end(unread, &mut 0).and_then(|end| match end {
            Some(end) => self.head.parse(&unread[..end], self.answers_head).map(|()| Some(end)),
            None => Ok(None),
        });
        match parsed {
            Ok(None) => return Ok(false),
            Ok(Some(end)) => connection.start += end,
            Err(error) => return Err(self.protocol(error.message)),
        }
        if self.head.status() >= 200 {
            self.keeps_alive = self.head.keeps_alive();
            self.stage = match self.head.body_length() {
                BodyLength::Bytes(0) => Stage::Complete,
                BodyLength::Bytes(length) => Stage::Bytes(length),
                BodyLength::Chunked => Stage::Chunks(Chunked::default()),
                BodyLength::UntilClose => Stage::UntilClose,
            };
            return Ok(true);
        }
        self.interim += 1;
        if self.head.status() == 101 || self.interim > INTERIM_REPLIES_MAX {
            return Err(self.protocol("an interim reply that was not asked for"));
        }
        Ok(true)
    }

    /// Moves what was received into `out`, as far as it is body.
    fn take_body(&mut self, out: &mut Vec<u8>) -> Result<(), ClientError> {
        let Some(connection) = &mut self.connection else { return Err(self.closed()) };
        let unread = &connection.input[connection.start..];
        match &mut self.stage {
            Stage::Head | Stage::Failed => return Err(self.protocol("no head was read before the body")),
            Stage::Complete => {}
            Stage::Bytes(left) => {
                let here = unread.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                out.extend_from_slice(&unread[..here]);
                connection.start += here;
                *left -= here as u64;
                if *left == 0 {
                    self.stage = Stage::Complete;
                }
            }
            Stage::Chunks(chunked) => match chunked.decode(unread, out, usize::MAX - out.len()) {
                Ok(used) => {
                    connection.start += used;
                    if chunked.is_done() {
                        self.stage = Stage::Complete;
                    }
                }
                Err(message) => return Err(self.protocol(message)),
            },
            Stage::UntilClose => {
                out.extend_from_slice(unread);
                connection.start = connection.input.len();
            }
        }
        Ok(())
    }

    /// Waits for bytes, at most a tick and never beyond the deadline.
    fn wait(&mut self, patience: &Patience<'_>, phase: &'static str) -> Result<Wake, ClientError> {
        let left = patience.deadline.left();
        let time = patience.tick.map_or(left, |tick| tick.min(left));
        let beside = Beside { watched: patience.watched, called: patience.called };
        let Some(connection) = &self.connection else { return Err(self.closed()) };
        match wire::wait_readable(&connection.stream, beside, time) {
            Ok(Waited::Readable) => Ok(Wake::Ready),
            Ok(Waited::WatchedGone) => Ok(Wake::WatchedGone),
            Ok(Waited::Called) => Ok(Wake::Called),
            Ok(Waited::TimedOut) if time < left => Ok(Wake::Tick),
            Ok(Waited::TimedOut) => {
                let limit = patience.deadline.limit();
                Err(self.fail(|address| ClientError::Timeout { address, phase, limit }))
            }
            Err(source) => Err(self.fail(|address| ClientError::Read { address, source })),
        }
    }

    /// The first bytes of an answer that does not take long; nothing when it does, or when there is no time for that.
    fn receive_at_once(&mut self, patience: &Patience<'_>) -> Result<(), ClientError> {
        let left = patience.deadline.left();
        let time = patience.tick.map_or(left, |tick| tick.min(left));
        let is_first = std::mem::replace(&mut self.is_new, false);
        let Some(connection) = &mut self.connection else { return Err(self.closed()) };
        if !is_first || time <= ANSWER_AT_ONCE {
            return Ok(());
        }
        let received = wire::receive_blocking(&connection.stream, &mut connection.input);
        self.check(received)
    }

    /// Receives into the connection's own buffer.
    fn receive(&mut self) -> Result<(), ClientError> {
        let Some(connection) = &mut self.connection else { return Err(self.closed()) };
        connection.make_room();
        let received = wire::receive_now(&connection.stream, &mut connection.input);
        self.check(received)
    }

    /// Receives into `out` where the bytes are the body itself, else into the connection's buffer.
    fn receive_body(&mut self, out: &mut Vec<u8>) -> Result<(), ClientError> {
        let Some(connection) = &mut self.connection else { return Err(self.closed()) };
        let room = match self.stage {
            Stage::Bytes(left) => READ_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX)),
            Stage::UntilClose => READ_BYTES,
            _ => return self.receive(),
        };
        out.reserve(room);
        let before = out.len();
        let received = wire::receive_now(&connection.stream, out);
        if matches!((&received, &self.stage), (Ok(Some(0)), Stage::UntilClose)) {
            self.stage = Stage::Complete;
            return Ok(());
        }
        if let Stage::Bytes(left) = &mut self.stage {
            let came = (out.len() - before) as u64;
            if came > *left {
                // More than the reply: kept apart, so that the connection is not used again.
                connection.input.extend_from_slice(&out[before + *left as usize..]);
                out.truncate(before + *left as usize);
            }
            *left -= came.min(*left);
            if *left == 0 {
                self.stage = Stage::Complete;
            }
        }
        self.check(received)
    }

    fn check(&mut self, received: io::Result<Option<usize>>) -> Result<(), ClientError> {
        match received {
            Ok(Some(0)) => Err(self.closed()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(self.closed()),
            Err(source) => Err(self.fail(|address| ClientError::Read { address, source })),
        }
    }

    fn closed(&mut self) -> ClientError {
        let has_input = self.connection.as_ref().is_some_and(|connection| !connection.input.is_empty());
        let before_answer = matches!(self.stage, Stage::Head) && !has_input && self.interim == 0;
        let was_pooled = self.was_pooled;
        self.fail(|address| ClientError::Closed { address, before_answer, was_pooled })
    }

    fn protocol(&mut self, what: &'static str) -> ClientError {
        self.fail(|address| ClientError::Protocol { address, what })
    }

    /// After an error the connection is of no use. If it was cancelled, that is the error.
    fn fail(&mut self, error: impl FnOnce(String) -> ClientError) -> ClientError {
        self.stage = Stage::Failed;
        let address = self.peer.authority.clone();
        match self.canceller.get() {
            Some(canceller) if canceller.is_cancelled() => ClientError::Cancelled { address },
            _ => error(address),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(canceller) = self.canceller.get() {
            canceller.disarm();
            if canceller.is_cancelled() {
                return;
            }
        }
        if self.is_complete()
            && self.keeps_alive
            && let Some(connection) = self.connection.take()
        {
            self.peer.put_idle(connection);
        }
    }
}

impl AsFd for Reply {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_ref().expect("taken only on drop").stream.as_fd()
    }
}
