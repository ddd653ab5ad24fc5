//! A child process under watch: its input written, its output read, its time kept, all in one loop that never blocks.
//!
//! **Invariant**: every call returns; the child and the rest of its process group do not outlive it, but for what the
//! script put into a group of its own or let go of its output on purpose. A group is signalled only while its leader is
//! not reaped yet, so that its number cannot have gone to somebody else.
//! **Thread**: the caller's; the loop waits in `poll` only.
//! **Bounds**: `SCRIPT_OUTPUT_BYTES_MAX`, the deadline, and those of `dialog.rs`, `ending.rs` and `tail.rs`.
//! Left out on purpose: what is run (`run.rs`) and what its output means (`outcome.rs`).

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::deadline::Deadline;
use crate::limits::{SCRIPT_OUTPUT_BYTES_MAX, SSE_COMMENT_EVERY};
use crate::os;
use crate::skills::dialog::{Conversation, Dialog};
use crate::skills::ending::{Seen, Stage, Step, Why, step};
use crate::skills::groups::Listed;
use crate::skills::tail::Tail;
use crate::worker;

/// Ends a call from another thread. Cheap until a script runs.
#[derive(Debug, Default)]
pub struct Cancel {
    cancelled: AtomicBool,
    /// The loop waits for the end of this pipe.
    wake: Mutex<Option<PipeWriter>>,
}

/// What the loop watches beside the child.
pub struct Watch<'a> {
    pub deadline: Deadline,
    pub cancel: &'a Cancel,
    /// A socket whose peer waits for the result; when the peer is gone, the child is ended, unless the dialog goes on.
    pub watched: Option<BorrowedFd<'a>>,
    /// Whom the child talks to.
    pub dialog: &'a mut dyn Dialog,
}

#[derive(Debug)]
pub enum End {
    Exited(ExitStatus),
    Ended(Why),
}

#[derive(Debug)]
pub struct Finished {
    pub end: End,
    pub stdout: Vec<u8>,
    pub stderr: Tail,
}

impl Cancel {
    pub fn new() -> Cancel {
        Cancel::default()
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        drop(self.wake.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// A pipe that ends when the call is cancelled.
    fn arm(&self) -> io::Result<PipeReader> {
        let (reader, writer) = io::pipe()?;
        let mut wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock: a cancel before this point has set the flag, one after it finds the pipe.
        *wake = (!self.is_cancelled()).then_some(writer);
        Ok(reader)
    }

    fn disarm(&self) {
        drop(self.wake.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Starts the command in a process group of its own, gives it `input`, and sees it through. The standard input of one
/// that asks stays open after `input`, for the answers.
pub fn run(mut command: Command, input: &[u8], asks: bool, watch: Watch<'_>) -> io::Result<Finished> {
    let wake = watch.cancel.arm()?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let cancel = watch.cancel;
    let finished = os::not_inheriting(|| command.spawn()).and_then(|child| {
        let _listed = Listed::new(child.id());
        Running::new(child, input, Conversation::new(asks, watch.deadline)).see_through(&wake, watch)
    });
    cancel.disarm();
    finished
}

struct Running<'i> {
    child: Child,
    pid: Option<Pid>,
    /// Readable once the child has exited; without it (old kernels, other systems) the loop looks every `LOOK_EVERY`.
    exit: Option<OwnedFd>,
    input: &'i [u8],
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    talk: Conversation,
    err: Tail,
    stage: Stage,
    /// The child was seen to have ended; it is reaped last.
    has_exited: bool,
}

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Which of the watched descriptors have something.
#[derive(Default)]
struct Ready {
    cancelled: bool,
    peer_gone: bool,
}

impl<'i> Running<'i> {
    fn new(mut child: Child, input: &'i [u8], talk: Conversation) -> Running<'i> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let exit = pid.and_then(exit_fd);
        let err = Tail::default();
        Running { child, pid, exit, input, stdin, stdout, stderr, talk, err, stage: Stage::Working, has_exited: false }
    }

    fn see_through(mut self, wake: &PipeReader, watch: Watch<'_>) -> io::Result<Finished> {
        let Watch { deadline, mut watched, dialog, .. } = watch;
        self.unblock().map_err(|error| self.abandon(error))?;
        let mut idle_due = Instant::now() + SSE_COMMENT_EVERY;
        let mut ready = Ready::default();
        loop {
            self.pump(dialog);
            let now = Instant::now();
            if now >= idle_due {
                dialog.idle();
                idle_due = now + SSE_COMMENT_EVERY;
            }
            if !self.has_exited && self.child_has_exited() {
                self.has_exited = true;
                // What the child wrote before it ended must be in before its pipes are judged.
                self.pump(dialog);
            }
            let stop = self.stop_reason(&ready, deadline);
            let pipes_closed = self.stdout.is_none() && self.stderr.is_none();
            match step(self.stage, Seen { now, has_exited: self.has_exited, pipes_closed, stop }) {
                Step::Stay => {}
                Step::Go(stage, signal) => {
                    signal.into_iter().for_each(|signal| self.signal(signal));
                    self.close_input();
                    self.stage = stage;
                    continue;
                }
                Step::Finish { kill_group, why } => return self.finish(kill_group, why),
                Step::GiveUp(why) => return self.give_up(why),
            }
            dialog.settle();
            let waited = self.wait(wake, watched, dialog.answers(), self.pause(now, idle_due, deadline));
            ready = waited.map_err(|error| self.abandon(error))?;
            if ready.peer_gone && dialog.peer_gone() {
                (watched, ready.peer_gone) = (None, false);
            }
        }
    }

    fn unblock(&self) -> io::Result<()> {
        for fd in [
            self.stdin.as_ref().map(AsFd::as_fd),
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
        ] {
            fd.map(|fd| rustix::io::ioctl_fionbio(fd, true)).transpose()?;
        }
        Ok(())
    }

    fn stop_reason(&self, ready: &Ready, deadline: Deadline) -> Option<Why> {
        if self.talk.printed() > SCRIPT_OUTPUT_BYTES_MAX {
            Some(Why::TooMuchOutput)
        } else if ready.cancelled {
            Some(Why::Cancelled)
        } else if ready.peer_gone {
            Some(Why::PeerGone)
        } else {
            deadline.has_passed().then_some(Why::TimedOut)
        }
    }

    /// How long nothing but an event is worth a turn.
    fn pause(&self, now: Instant, idle_due: Instant, deadline: Deadline) -> Duration {
        let stage_due = match self.stage {
            Stage::Working => now + deadline.left(),
            Stage::Lingering { until } | Stage::Terminating { until, .. } | Stage::Killed { until, .. } => until,
        };
        let pause = stage_due.min(idle_due).saturating_duration_since(now);
        if self.exit.is_none() { pause.min(LOOK_EVERY) } else { pause }
    }

    /// Waits until a pipe can be used, an answer comes, the child exits, the call is cancelled, the peer goes, or the
    /// time is over.
    fn wait(
        &self,
        wake: &PipeReader,
        watched: Option<BorrowedFd<'_>>,
        answers: Option<BorrowedFd<'_>>,
        pause: Duration,
    ) -> io::Result<Ready> {
        let is_working = self.stage == Stage::Working;
        let mut fds = Vec::with_capacity(7);
        if is_working {
            fds.push(PollFd::new(wake, PollFlags::IN));
            fds.extend(watched.map(|fd| PollFd::from_borrowed_fd(fd, peer_gone_flags())));
        }
        let extra = fds.len();
        // Once the child has exited its descriptor stays readable and would keep the loop turning.
        fds.extend(self.exit.as_ref().filter(|_| !self.has_exited).map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(answers.filter(|_| self.talk.is_waiting()).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let has_input = !self.input.is_empty() || !self.talk.answers().is_empty();
        fds.extend(self.stdin.as_ref().filter(|_| has_input).map(|fd| PollFd::new(fd, PollFlags::OUT)));
        let is_heard = !self.talk.is_backed_up();
        fds.extend(self.stdout.as_ref().filter(|_| is_heard).map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.stderr.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        // Rounded up, or the last millisecond would be waited for in many turns.
        let pause = Timespec::try_from(pause + Duration::from_millis(1)).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match rustix::event::poll(&mut fds, Some(&pause)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        let has = |at: usize| at < extra && !fds[at].revents().is_empty();
        Ok(Ready { cancelled: has(0), peer_gone: has(1) })
    }

    /// Writes and reads what can be without waiting.
    fn pump(&mut self, dialog: &mut dyn Dialog) {
        self.talk.collect(dialog);
        self.feed();
        let discards = !matches!(self.stage, Stage::Working | Stage::Lingering { .. });
        if let Some(pipe) = self.stdout.as_mut().filter(|_| !self.talk.is_backed_up()) {
            let talk = &mut self.talk;
            let has_ended = read_some(pipe, &mut |bytes| {
                if !discards && talk.printed() <= SCRIPT_OUTPUT_BYTES_MAX {
                    talk.hear(bytes, dialog);
                }
            });
            if has_ended {
                self.talk.end(dialog);
                self.stdout = None;
            }
        }
        let err = &mut self.err;
        if self.stderr.as_mut().is_some_and(|pipe| read_some(pipe, &mut |bytes| err.push(bytes))) {
            self.stderr = None;
        }
    }

    /// Writes the arguments, then answers. A script that does not read them closes the pipe, which is its right.
    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        let mut answers = self.talk.answers();
        let is_read = write_some(stdin, &mut self.input) && (!self.input.is_empty() || write_some(stdin, &mut answers));
        let left = answers.len();
        self.talk.written(self.talk.answers().len() - left);
        if !is_read || (self.input.is_empty() && !self.talk.is_answering()) {
            self.close_input();
        }
    }

    fn close_input(&mut self) {
        self.stdin = None;
        self.talk.stop_answering();
    }

    /// Whether the child has ended; it is not reaped by this.
    fn child_has_exited(&self) -> bool {
        let Some(pid) = self.pid else { return true };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(None))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            // The group may be empty already, which is as good.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }

    fn finish(mut self, kill_group: bool, why: Option<Why>) -> io::Result<Finished> {
        if kill_group {
            self.signal(Signal::KILL);
        }
        let status = self.child.wait()?;
        Ok(finished(why.map_or(End::Exited(status), End::Ended), self.talk, self.err))
    }

    /// It cannot be watched: it must not go on unwatched either.
    fn abandon(&mut self, error: io::Error) -> io::Error {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        error
    }

    /// A killed process that does not end hangs inside the kernel; a thread of its own waits for it.
    fn give_up(self, why: Why) -> io::Result<Finished> {
        let Running { mut child, talk, err, .. } = self;
        log::warn!("pid={} does not end after SIGKILL; the call goes on without it", child.id());
        worker::spawn("reap-script", move || drop(child.wait()))?;
        Ok(finished(End::Ended(why), talk, err))
    }
}

/// What is left of a child. An author who waits in vain is told so where he looks first.
fn finished(end: End, talk: Conversation, mut err: Tail) -> Finished {
    if let Some(advice) = talk.advice() {
        err.push(format!("\n({advice})").as_bytes());
    }
    Finished { end, stdout: talk.into_output(), stderr: err }
}

/// Writes until all is written or the pipe is full; false when nobody reads it.
fn write_some(pipe: &mut impl Write, input: &mut &[u8]) -> bool {
    loop {
        if input.is_empty() {
            return true;
        }
        match pipe.write(input) {
            Ok(written) => *input = &input[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Reads what is there, up to a share that lets the other pipes have their turn; true at the end.
fn read_some(pipe: &mut impl Read, keep: &mut dyn FnMut(&[u8])) -> bool {
    let mut buffer = [0; 16 * 1024];
    for _ in 0..16 {
        match pipe.read(&mut buffer) {
            Ok(0) => return true,
            Ok(count) => keep(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
    false
}

#[cfg(target_os = "linux")]
fn exit_fd(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn exit_fd(_pid: Pid) -> Option<OwnedFd> {
    None
}

#[cfg(target_os = "linux")]
fn peer_gone_flags() -> PollFlags {
    PollFlags::RDHUP
}

/// Errors and hang-ups are always told.
#[cfg(not(target_os = "linux"))]
fn peer_gone_flags() -> PollFlags {
    PollFlags::empty()
}
