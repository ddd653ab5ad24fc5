//! What holds after every step of the simulated election (`simulation.rs` says it in words).

use super::{Kernel, Process, UNHELD_MAX};
use crate::election::step::Pause;
use crate::limits::HANDOVER_GRACE;

impl Kernel {
    pub(super) fn check(&self) {
        let serving: Vec<usize> =
            (0..self.processes.len()).filter(|number| self.processes[*number].is_serving).collect();
        assert!(serving.len() <= 1, "{serving:?} accept at {:?}; SEED={}", self.now, self.seed);
        for number in serving {
            let process = &self.processes[number];
            assert!(
                process.is_alive && process.listener.is_some(),
                "n{number} serves without a socket; SEED={}",
                self.seed
            );
        }
        assert!(self.name.is_none_or(|owner| self.processes[owner].is_alive), "SEED={}", self.seed);
        for process in self.processes.iter().filter(|process| !process.is_alive || process.has_resigned) {
            assert!(process.listener.is_none(), "one that is gone has a listener; SEED={}", self.seed);
        }
    }

    /// Nobody has anything to do now: each that competes serves, has something due, or will hear of the end of the one
    /// it follows.
    pub(super) fn check_nobody_sleeps_for_ever(&self) {
        for (number, process) in self.processes.iter().enumerate() {
            if !self.is_awake(number) || process.has_resigned || process.is_serving {
                continue;
            }
            let is_told = process.follows.is_some()
                && process.follows == self.name
                && self.joined.iter().any(|(standby, _)| *standby == number);
            assert!(
                is_told || process.due <= self.now + HANDOVER_GRACE.max(Pause::AfterError.time()),
                "n{number} waits for nothing at {:?}; SEED={}",
                self.now,
                self.seed
            );
        }
    }

    /// How long the port has had no socket, or nobody who serves, though somebody could have seen to it.
    pub(super) fn check_the_port(&mut self) {
        for process in &mut self.processes {
            // Time passes in small steps, so that a pause that ends in between is noticed.
            if !process.is_alive || process.has_resigned || self.now < process.paused_until {
                process.able_since = self.now;
            }
        }
        let stopped = |process: &Process| process.is_alive && self.now < process.paused_until;
        let living = || self.processes.iter().enumerate().filter(|(_, process)| process.is_alive);
        let is_given = self.processes.iter().any(|process| process.given.is_some());
        if is_given || living().any(|(_, process)| process.listener.is_some()) {
            self.held = self.now;
        }
        let is_blocked = living()
            .any(|(number, process)| stopped(process) && (process.listener.is_some() || self.name == Some(number)));
        if is_given || is_blocked || living().any(|(_, process)| process.is_serving) {
            self.served = self.now;
        }
        let competing = living().filter(|(number, process)| !process.has_resigned && self.is_awake(*number));
        let Some(able) = competing.map(|(_, process)| process.able_since).min() else { return };
        for (what, last) in [("a socket", self.held), ("anybody who serves", self.served)] {
            let without = self.now.saturating_sub(last.max(able));
            assert!(without <= UNHELD_MAX, "{without:?} without {what} at {:?}; SEED={}", self.now, self.seed);
        }
    }
}
