//! One question to several instances at once, each with its own deadline.
//!
//! **Invariant**: one that does not answer in time is reported, not waited for.
//! **Thread**: `ask-<n>`, each asks one instance after the other; the caller's own where there is none of these to be had.
//! **Bounds**: `FAN_OUT_TIME_MAX` for all, `FAN_OUT_THREADS_MAX` at a time, `FAN_OUT_THREADS_ALL_MAX` for all callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};

use crate::deadline::Deadline;
use crate::gateway::snapshot::Member;
use crate::limits::{FAN_OUT_THREADS_ALL_MAX, FAN_OUT_THREADS_MAX, FAN_OUT_TIME_MAX};
use crate::places::Places;
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
    let start = |number: usize| {
        let place = PLACES.take()?;
        let (round, tell) = (Arc::clone(&round), tell.clone());
        let ask = move || {
            round.ask_next_ones(&tell);
            drop(place);
        };
        worker::spawn(&format!("ask-{number}"), ask).ok()
    };
    // Those that are started do the share of those that are not.
    if (0..members.len().min(FAN_OUT_THREADS_MAX)).map_while(start).count() == 0 {
        round.ask_next_ones(&tell);
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

/// For the threads that ask.
static PLACES: Places = Places::new(FAN_OUT_THREADS_ALL_MAX);

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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::endpoint::access::Access;
    use crate::gateway::snapshot::{Snapshot, Told};
    use crate::gateway::upstream::Upstream;
    use crate::registry::entry::tests::sample;
    use crate::registry::{Instance, Origin};

    #[test]
    fn without_a_thread_the_caller_asks_by_itself() {
        let access = Access::new(IpAddr::V4(Ipv4Addr::LOCALHOST), vec![], vec![], None).expect("there is no file");
        let access = Arc::new(access);
        let upstream = |id: &str| {
            let instance = Instance { entry: Arc::new(sample(id)), origin: Origin::Ours, beat_seen: Instant::now() };
            Arc::new(Upstream::new(Arc::new(instance), &access))
        };
        let (upstreams, pieces) = (["a", "b", "c"].map(upstream), Arc::default());
        let told: Vec<Told<'_>> = upstreams.iter().map(|upstream| Told { upstream, pieces: &pieces }).collect();
        let snapshot = Snapshot::build(&[], false, &told, true, None);
        let members: Vec<&Arc<Member>> = snapshot.members.iter().collect();
        let asked_by = || -> Vec<_> {
            let heard = fan_out(&members, Deadline::after(Duration::from_secs(5)), |_, _| Ok(thread::current().id()));
            heard.into_iter().filter_map(|heard| heard.answer.ok()).collect()
        };
        let own = thread::current().id();
        assert!(asked_by().iter().all(|by| *by != own));
        let places: Vec<_> = std::iter::from_fn(|| PLACES.take()).collect();
        assert_eq!(asked_by(), [own; 3]);
        drop(places);
        assert_eq!(asked_by().len(), 3);
    }
}
