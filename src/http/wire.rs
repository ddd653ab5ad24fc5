//! Bytes in and out of a TCP socket under time limits, for both sides.
//!
//! Reads and writes are tried first and waited for only when the kernel has nothing or no room, so that a small
//! message costs one system call. Nothing here blocks in a read or write; waiting is `poll(2)` with a time limit.
//!
//! **Invariant**: no call returns later than the time it was given.
//! **Bounds**: the caller's.
//! Left out on purpose: Windows, whose sockets have no `MSG_DONTWAIT`.

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};

use crate::http::time_left;

/// Parts of one message that are handed to the kernel as they are; with more, the rest is joined first.
const PARTS_MAX: usize = 16;

/// What a wait for bytes ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    Readable,
    /// The other socket that was watched has lost its peer.
    WatchedGone,
    /// The descriptor that calls has something to be read.
    Called,
    TimedOut,
}

/// What is looked at while bytes are waited for.
#[derive(Clone, Copy, Default)]
pub struct Beside<'a> {
    /// A socket whose peer may go.
    pub watched: Option<BorrowedFd<'a>>,
    /// Something that may become readable.
    pub called: Option<BorrowedFd<'a>>,
}

/// How long a whole message may take to be written.
#[derive(Clone, Copy, Debug)]
pub struct WriteTimes {
    /// For the peer to take at least one byte.
    pub stall: Duration,
    /// For all: `base`, and what the bytes taken have earned at this rate.
    pub base: Duration,
    pub bytes_per_second: u64,
}

/// Appends what is there to the spare capacity of `into`: `None` if nothing is yet, `Some(0)` at the end.
pub fn receive_now(stream: &TcpStream, into: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        match recv(stream, spare_capacity(into), RecvFlags::DONTWAIT) {
            Ok(count) => return Ok(Some(count.0)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The same, but waits as long as the socket's own read timeout says; `None` once that has passed.
pub fn receive_blocking(stream: &TcpStream, into: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        match recv(stream, spare_capacity(into), RecvFlags::empty()) {
            Ok(count) => return Ok(Some(count.0)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The same, but waits up to `time` when nothing is there; `None` once that has passed.
pub fn receive_within(stream: &TcpStream, into: &mut Vec<u8>, time: Duration) -> io::Result<Option<usize>> {
    let started = Instant::now();
    loop {
        if let Some(count) = receive_now(stream, into)? {
            return Ok(Some(count));
        }
        let left = time.saturating_sub(started.elapsed());
        if left.is_zero() || wait_readable(stream, Beside::default(), left)? == Waited::TimedOut {
            return Ok(None);
        }
    }
}

/// Waits until something can be read (or the end is reached), or something else that is looked at beside it happens.
pub fn wait_readable(stream: &impl AsFd, beside: Beside<'_>, time: Duration) -> io::Result<Waited> {
    let watched = beside.watched.map(|fd| (fd, GONE, Waited::WatchedGone));
    let called = beside.called.map(|fd| (fd, PollFlags::IN, Waited::Called));
    let unused = PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::empty());
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN), unused.clone(), unused];
    // What has come is worth more than who is gone: an answer that is there is still handed over.
    let mut means = [Waited::Readable; 3];
    let mut used = 1;
    for (fd, flags, meaning) in [watched, called].into_iter().flatten() {
        fds[used] = PollFd::from_borrowed_fd(fd, flags);
        means[used] = meaning;
        used += 1;
    }
    wait(&mut fds[..used], time)?;
    let happened = fds[..used].iter().position(|fd| !fd.revents().is_empty());
    Ok(happened.map_or(Waited::TimedOut, |at| means[at]))
}

/// Waits until one of these can be read, or the peer of the watched socket is gone, which is told.
pub fn wait_any(called: &[BorrowedFd<'_>], watched: Option<BorrowedFd<'_>>, time: Duration) -> io::Result<bool> {
    let mut fds: Vec<PollFd<'_>> = watched.iter().map(|fd| PollFd::from_borrowed_fd(*fd, GONE)).collect();
    fds.extend(called.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
    wait(&mut fds, time)?;
    Ok(watched.is_some() && !fds[0].revents().is_empty())
}

/// The peer has closed or broken the connection, whether or not bytes of it are still unread.
pub fn is_gone(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket, GONE)];
    wait(&mut fds, Duration::ZERO).is_err() || !fds[0].revents().is_empty()
}

/// Writes all parts as one message, with one system call if the kernel has room for it.
pub fn send_all(stream: &TcpStream, parts: &[&[u8]], times: &WriteTimes) -> io::Result<()> {
    if parts.len() > PARTS_MAX {
        return send_all(stream, &[&parts.concat()], times);
    }
    let mut slices = [IoSlice::new(&[]); PARTS_MAX];
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
    }
    let mut rest = &mut slices[..parts.len()];
    IoSlice::advance_slices(&mut rest, 0);
    let mut started = None;
    let mut sent = 0;
    while !rest.is_empty() {
        match sendmsg(stream, rest, &mut SendAncillaryBuffer::default(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => {
                sent += count;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(Errno::AGAIN) => {
                let waited = started.get_or_insert_with(Instant::now).elapsed();
                let left = time_left(times.base, times.bytes_per_second, waited, sent);
                wait_writable(stream, left.min(times.stall))?;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait_writable(stream: &TcpStream, time: Duration) -> io::Result<()> {
    let mut fds = [PollFd::new(stream, PollFlags::OUT)];
    if !time.is_zero() {
        wait(&mut fds, time)?;
    }
    match fds[0].revents().is_empty() {
        true => Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read fast enough")),
        false => Ok(()),
    }
}

/// A peer that has closed its sending side is gone for us; elsewhere than on Linux only a full close shows.
#[cfg(target_os = "linux")]
const GONE: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const GONE: PollFlags = PollFlags::empty();

fn wait(fds: &mut [PollFd<'_>], time: Duration) -> io::Result<()> {
    let started = Instant::now();
    loop {
        let left = time.saturating_sub(started.elapsed());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(fds, Some(&timeout)) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
