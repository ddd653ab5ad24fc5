//! One question to several instances at once, each with its own deadline.
//!
//! **Invariant**: one that does not answer in time is reported, not waited for.
//! **Thread**: `ask-<n>`, each asks one instance after the other.
//! **Bounds**: `FAN_OUT_TIME_MAX` for each instance, `FAN_OUT_THREADS_MAX` at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};

use crate::deadline::Deadline;
use crate::gateway::snapshot::Member;
use crate::limits::{FAN_OUT_THREADS_MAX, FAN_OUT_TIME_MAX};
use crate::worker;

/// What one instance answered, or why it did not.
pub struct Heard<T> {
    pub member: Arc<Member>,
    pub answer: Result<T, String>,
}

/// Asks all of them; the answers come in the order of the members.
pub fn fan_out<T: Send + 'static>(
    members: &[&Arc<Member>],
    deadline: Deadline,
    ask: impl Fn(&Member, Deadline) -> Result<T, String> + Send + Sync + 'static,
) -> Vec<Heard<T>> {
    let deadline = deadline.sooner(FAN_OUT_TIME_MAX);
    let (tell, told) = bounded(members.len());
    let round = Arc::new(Round {
        members: members.iter().map(|member| Arc::clone(member)).collect(),
        next: AtomicUsize::new(0),
        ask,
        deadline,
    });
    for number in 0..members.len().min(FAN_OUT_THREADS_MAX) {
        let (round, tell) = (Arc::clone(&round), tell.clone());
        // Without this thread the others do its share.
        let _ = worker::spawn(&format!("ask-{number}"), move || round.ask_next_ones(&tell));
    }
    drop(tell);
    let mut answers: Vec<Option<Result<T, String>>> = members.iter().map(|_| None).collect();
    let until = Instant::now() + deadline.left();
    while let Ok((place, answer)) = told.recv_deadline(until) {
        answers[place] = Some(answer);
    }
    let silent = || Err(format!("no answer within {} s", FAN_OUT_TIME_MAX.as_secs()));
    let heard = members.iter().zip(answers);
    heard.map(|(member, answer)| Heard { member: Arc::clone(member), answer: answer.unwrap_or_else(silent) }).collect()
}

/// One question on its way to several instances.
struct Round<F> {
    members: Vec<Arc<Member>>,
    next: AtomicUsize,
    ask: F,
    deadline: Deadline,
}

impl<T, F: Fn(&Member, Deadline) -> Result<T, String>> Round<F> {
    fn ask_next_ones(&self, tell: &Sender<(usize, Result<T, String>)>) {
        loop {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(member) = self.members.get(place) else { return };
            let _ = tell.send((place, (self.ask)(member, self.deadline)));
        }
    }
}
