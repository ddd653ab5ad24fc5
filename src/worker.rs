//! Threads: every one is named and started here, and a worker is a state owned by one of them.
//!
//! A worker has one bounded inbox, a tick, and a handle whose methods send. `tick` runs when no message came for the
//! time that the last tick asked for, and after at most that time even when messages keep coming.
//!
//! **Invariant**: every thread has a name. One that panics ends the process (`logging.rs`); nobody has to look for its end.
//! **Bounds**: inbox capacity given at the start; `stop` waits at most `WORKER_STOP_MAX`.
//! Left out on purpose: pools, and joining threads that only serve one connection.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};

use crate::limits::WORKER_STOP_MAX;

/// The state of a worker thread and what it does.
pub trait Work: Send + 'static {
    type Message: Send + 'static;

    /// Takes one message from the inbox.
    fn receive(&mut self, message: Self::Message);

    /// Does the periodic part and says when the next is due.
    fn tick(&mut self) -> Duration;

    /// Runs last, when the worker was told to stop.
    fn stop(&mut self) {}
}

/// The handle of a worker thread. Dropping it without `stop` leaves the thread running until its last sender is gone.
pub struct Worker<M> {
    inbox: Sender<Order<M>>,
    ended: Receiver<()>,
    name: &'static str,
}

enum Order<M> {
    Message(M),
    Stop,
}

impl<M: Send + 'static> Worker<M> {
    pub fn start(name: &'static str, capacity: usize, state: impl Work<Message = M>) -> io::Result<Worker<M>> {
        let (inbox, orders) = bounded(capacity);
        let (end, ended) = bounded::<()>(0);
        spawn(name, move || {
            run(state, &orders);
            // The inbox goes before the end is told, so that nothing is taken after `stop` has returned.
            drop(orders);
            drop(end);
        })?;
        Ok(Worker { inbox, ended, name })
    }

    /// Puts a message into the inbox, or gives it back when that is full or the worker has ended.
    pub fn send(&self, message: M) -> Result<(), M> {
        self.inbox.try_send(Order::Message(message)).or_else(|error| match error.into_inner() {
            Order::Message(message) => Err(message),
            // Only what was sent comes back.
            Order::Stop => Ok(()),
        })
    }

    /// The same, waiting a bounded time for a place in the inbox; false if the message was not taken.
    pub fn send_within(&self, message: M, limit: Duration) -> bool {
        self.inbox.send_timeout(Order::Message(message), limit).is_ok()
    }

    /// Tells the worker to stop and waits for it; false if it did not end in time.
    pub fn stop(&self) -> bool {
        let ended = match self.inbox.send_timeout(Order::Stop, WORKER_STOP_MAX) {
            Ok(()) => self.ended.recv_timeout(WORKER_STOP_MAX) == Err(RecvTimeoutError::Disconnected),
            Err(SendTimeoutError::Disconnected(_)) => true,
            // Its inbox is full, and it takes nothing out.
            Err(SendTimeoutError::Timeout(_)) => false,
        };
        if !ended {
            log::warn!("thread={} did not stop within {} s", self.name, WORKER_STOP_MAX.as_secs());
        }
        ended
    }
}

/// Starts a thread of the program.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    spawn_as(thread::Builder::new(), name, Box::new(body))
}

/// The same with a stack of this size, for threads of which there may be thousands.
pub fn spawn_small(name: &str, stack_bytes: usize, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    spawn_as(thread::Builder::new().stack_size(stack_bytes), name, Box::new(body))
}

/// Boxed, so that there is one copy of this in the program and not one for each thread's work.
fn spawn_as(builder: thread::Builder, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    builder.name(name.to_owned()).spawn(body)
}

fn run<W: Work>(mut state: W, orders: &Receiver<Order<W::Message>>) {
    let mut due = Instant::now() + state.tick();
    loop {
        match orders.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(Order::Message(message)) => state.receive(message),
            Ok(Order::Stop) => return state.stop(),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= due {
            due = Instant::now() + state.tick();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sum {
        total: u32,
        out: Sender<u32>,
    }

    impl Work for Sum {
        type Message = u32;

        fn receive(&mut self, message: u32) {
            self.total += message;
        }

        fn tick(&mut self) -> Duration {
            Duration::from_secs(60)
        }

        fn stop(&mut self) {
            let _ = self.out.send(self.total);
        }
    }

    #[test]
    fn messages_before_stop_are_taken_and_stop_is_last() {
        let (out, total) = bounded(1);
        let worker = Worker::start("sum", 8, Sum { total: 0, out }).expect("a thread can be started");
        for number in [1, 2, 3] {
            assert_eq!(worker.send(number), Ok(()));
        }
        assert!(worker.stop());
        assert_eq!(total.recv(), Ok(6));
        assert_eq!(worker.send(4), Err(4));
    }

    /// Works on one message for as long as the test likes.
    struct Stuck(Receiver<()>);

    impl Work for Stuck {
        type Message = ();

        fn receive(&mut self, (): ()) {
            let _ = self.0.recv();
        }

        fn tick(&mut self) -> Duration {
            Duration::from_secs(60)
        }
    }

    #[test]
    fn one_that_is_stuck_behind_a_full_inbox_is_not_said_to_have_ended() {
        let (go_on, waits) = bounded(0);
        let worker = Worker::start("stuck", 1, Stuck(waits)).expect("a thread can be started");
        while worker.send(()).is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(!worker.stop(), "its inbox is full");
        drop(go_on);
        assert!(worker.stop());
    }
}
