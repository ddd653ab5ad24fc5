//! What a simulated process does: what `election/step.rs` decides, in a world that may say no.
//!
//! **Invariant**: one step at a time, so that anything may happen between two.

use std::time::Duration;

use super::{Kernel, NEVER, SQUATTER, Squat, Word};
use crate::election::step::{Action, Event, Holds, Node, Pause, decide, pause_for};
use crate::version::Version;

impl Kernel {
    pub(super) fn step(&mut self, number: usize, event: Event) {
        let process = &self.processes[number];
        let holds = if process.listener.is_some() { process.holds } else { Holds::Nothing };
        let event = match decide(Node { holds, follows: process.follows.is_some() }, event) {
            Action::Join => self.join(number),
            Action::Bind => self.bind(number),
            Action::TakeName => self.take_name(number),
            Action::Serve => return self.serve(number),
            Action::Follow => return,
            Action::LetGo => {
                self.check_letting_go(number, event);
                self.processes[number].listener = None;
                return self.rest(number, Pause::Retry.time());
            }
            Action::Wait(pause) => return self.rest(number, pause.time()),
        };
        self.processes[number].event = Some(event);
    }

    fn rest(&mut self, number: usize, pause: Duration) {
        self.processes[number].due = self.now + pause;
    }

    fn join(&mut self, number: usize) -> Event {
        let has_names = self.has_names && !self.is_exhausted(number);
        match self.name {
            _ if !has_names => Event::NoNames,
            _ if self.squatted == Some(Squat::Stranger) => Event::Stranger,
            _ if self.squatted == Some(Squat::Mute) => {
                self.stop_following(number);
                self.processes[number].follows = Some(SQUATTER);
                Event::Joined
            }
            None => Event::Nobody,
            Some(owner) if self.processes[owner].user != self.processes[number].user => Event::Stranger,
            Some(owner) => {
                self.stop_following(number);
                self.processes[number].follows = Some(owner);
                self.joined.push((number, false));
                Event::Joined
            }
        }
    }

    fn bind(&mut self, number: usize) -> Event {
        let is_held = self.processes.iter().any(|process| process.given.is_some() || process.has_socket());
        match self.random.below(40) {
            _ if is_held => Event::InUse,
            0 => {
                self.processes[number].able_since = self.now + Pause::AfterError.time();
                Event::NotBound
            }
            _ => {
                let socket = self.socket();
                (self.processes[number].listener, self.processes[number].holds) = (Some(socket), Holds::Own);
                Event::Bound
            }
        }
    }

    pub(super) fn take_name(&mut self, number: usize) -> Event {
        let has_names = self.has_names && !self.is_exhausted(number);
        match self.name {
            _ if !has_names => Event::NoNames,
            _ if self.squatted.is_some() => Event::NameInUse,
            Some(owner) if owner != number => Event::NameInUse,
            _ => {
                if self.name != Some(number) {
                    (self.name, self.named_since) = (Some(number), self.now);
                }
                Event::NameTaken
            }
        }
    }

    fn is_exhausted(&mut self, number: usize) -> bool {
        let process = &mut self.processes[number];
        let is_exhausted = self.now < process.exhausted_until;
        if is_exhausted {
            process.able_since = process.able_since.max(process.exhausted_until + Pause::AfterError.time());
        }
        is_exhausted
    }

    fn serve(&mut self, number: usize) {
        self.stop_following(number);
        self.check_turn(number);
        if self.random.below(40) == 0 {
            // It does not prove to work: others shall have it.
            self.processes[number].listener = None;
            self.leave_name(number, Word::Gone);
            self.processes[number].able_since = self.now + Pause::AfterError.time();
            return self.rest(number, Pause::AfterError.time());
        }
        (self.processes[number].is_serving, self.processes[number].serving_since) = (true, self.now);
        self.rest(number, Duration::from_secs(1));
    }

    pub(super) fn hear(&mut self, number: usize, word: Word) {
        let own = self.versions[self.processes[number].version].clone();
        let pause = |version: usize, versions: &[Version]| pause_for(Some(&versions[version]), &own);
        let process = &mut self.processes[number];
        let pause = match word {
            Word::Listener(listener) => {
                if process.listener.is_none() {
                    process.holds = Holds::Shared;
                }
                if process.holds == Holds::Shared {
                    process.listener = Some(listener);
                }
                process.due = NEVER;
                return;
            }
            Word::Bye(version) => {
                process.follows = None;
                pause(version, &self.versions)
            }
            Word::Free(version) => {
                (process.follows, process.listener) = (None, None);
                pause(version, &self.versions)
            }
            Word::Gone => {
                process.follows = None;
                if process.listener.is_some() { Duration::ZERO } else { Pause::Retry.time() }
            }
        };
        self.rest(number, pause);
    }
}
