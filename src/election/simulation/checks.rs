//! What holds after every step of the simulated election (`simulation.rs` says it in words).

use std::time::Duration;

use super::{Kernel, NEWEST, Process, SQUATTER, Squat, TICK_MAX, UNHELD_MAX};
use crate::election::step::{Event, Holds, Pause};
use crate::limits::{BIND_RETRY_EVERY, HANDOVER_GRACE};

/// A newer version that the port is given up for has it by then, even where it has to bind it.
const FAVOURED_MAX: Duration = BIND_RETRY_EVERY.saturating_mul(4);

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
            let is_joined = self.joined.iter().any(|(standby, _)| *standby == number);
            let is_told = match process.follows {
                Some(SQUATTER) => self.squatted == Some(Squat::Mute),
                follows => follows.is_some() && follows == self.name && is_joined,
            };
            assert!(
                is_told || process.due <= self.now + HANDOVER_GRACE.max(Pause::AfterError.time()),
                "n{number} waits for nothing at {:?}; SEED={}",
                self.now,
                self.seed
            );
        }
    }

    /// Who serves takes the name, and those who compete as well are given the listener.
    pub(super) fn check_standbys(&self) {
        if !self.has_names || self.squatted.is_some() {
            return;
        }
        let has_time = |since: Duration| self.now.saturating_sub(since) <= UNHELD_MAX;
        for (number, process) in self.processes.iter().enumerate().filter(|(number, _)| self.is_awake(*number)) {
            let since = process.serving_since.max(process.able_since).max(self.name_free_since);
            // It tries before it serves, and then every second.
            let could_at_once = self.name_free_since.max(process.able_since) + TICK_MAX < process.serving_since;
            let may_wait = !process.is_serving || self.name.is_some() || (has_time(since) && !could_at_once);
            assert!(may_wait, "n{number} serves without the name at {:?}; SEED={}", self.now, self.seed);
            let Some(owner) = self.name.map(|owner| &self.processes[owner]).filter(|owner| owner.is_serving) else {
                continue;
            };
            let since = process.able_since.max(self.named_since).max(owner.serving_since).max(owner.able_since);
            let may_lack =
                process.has_resigned || process.user != owner.user || process.listener.is_some() || has_time(since);
            assert!(may_lack, "n{number} stands by without the listener at {:?}; SEED={}", self.now, self.seed);
        }
    }

    /// Whether a newer version, of whom the port was given up for, has been able to take it all along.
    fn is_favoured_able(&self) -> bool {
        let is_newest = |number: &usize| self.processes[*number].version == NEWEST && self.is_awake(*number);
        let is_able = |number: &usize| {
            !self.processes[*number].has_resigned && self.processes[*number].able_since <= self.yielded
        };
        self.told.iter().any(|number| is_newest(number) && is_able(number))
    }

    /// An older one that was told takes no port from a newer one.
    pub(super) fn check_turn(&self, number: usize) {
        let is_in_time = self.now.saturating_sub(self.yielded) < HANDOVER_GRACE && self.told.contains(&number);
        let is_older = self.processes[number].version < NEWEST;
        assert!(
            !(is_in_time && is_older && self.is_favoured_able()),
            "n{number} comes before a newer one at {:?}; SEED={}",
            self.now,
            self.seed
        );
    }

    /// The newer one does not wait.
    pub(super) fn check_the_favoured(&self) {
        let waited = self.now.saturating_sub(self.yielded.max(self.served));
        let is_late = waited > FAVOURED_MAX && self.served <= self.yielded;
        assert!(
            !(is_late && self.is_favoured_able()),
            "nobody serves {waited:?} after {:?}, when a newer one was given the port; SEED={}",
            self.yielded,
            self.seed
        );
    }

    /// Only one that was turned away at the name, or could not ask, lets go of what others may accept on.
    pub(super) fn check_letting_go(&self, number: usize, event: Event) {
        let may_let_go = matches!(event, Event::Stranger | Event::NoNames);
        assert!(may_let_go, "n{number} lets go of the listener at {:?}; SEED={}", self.now, self.seed);
    }

    /// How long the port has had no socket, or nobody who serves, though somebody could have seen to it.
    pub(super) fn check_the_port(&mut self) {
        for process in &mut self.processes {
            // Time passes in small steps, so that a pause that ends in between is noticed.
            if !process.is_alive || process.has_resigned || self.now < process.paused_until {
                process.able_since = self.now;
            }
        }
        let stopped =
            |process: &Process| process.is_alive && self.now < process.paused_until.max(process.exhausted_until);
        let living = || self.processes.iter().enumerate().filter(|(_, process)| process.is_alive);
        let is_given = self.processes.iter().any(|process| process.given.is_some());
        if is_given || living().any(|(_, process)| process.has_socket()) {
            self.held = self.now;
        }
        // A silent owner of the name keeps those who share a listener from serving; the port is held.
        let is_mute = self.squatted == Some(Squat::Mute) && living().any(|(_, process)| process.holds == Holds::Shared);
        let is_blocked = is_mute
            || living()
                .any(|(number, process)| stopped(process) && (process.has_socket() || self.name == Some(number)));
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
