//! A seeded simulation of the election on one host: processes that start, die, pause and leave between any two steps, that
//! hand over, that are of another user, that were given a socket, that are out of descriptors; a kernel that keeps port,
//! sockets and the name; strangers that have the name and say nothing.
//!
//! **Invariant**, checked after every step: no two processes accept on the address. In peace one serves, unless nobody
//! competes, and name and listeners are held by the living alone. Mid-run, whoever is awake has something to do or
//! waits for something that comes; and while one competes and is awake, the port is without a socket for `UNHELD_MAX` at
//! most, and not served for that long at most unless one that is stopped has the socket or the name. A newer version in
//! whose favour the gateway goes comes before older ones, and at once. Who serves takes the name where it can be had, those who stand by have the listener, nobody lets go what its own kind shares, and nobody goes
//! in a circle.
//!
//! The world and what befalls it are here, what a process does in `deeds.rs`, the invariants in `checks.rs`.
//! **Bounds**: `SEEDS` runs (1,000 unless said), `SEED` has one again (`registry/simulation.rs`).
//! Left out on purpose: the registry, which has no say in this.

mod checks;
mod deeds;

use std::time::Duration;

use super::step::{Event, Holds};
use crate::limits::HANDOVER_GRACE;
use crate::registry::entry::tests::Random;
use crate::registry::simulation::for_each_seed;
use crate::version::Version;

const CHAOS: Duration = Duration::from_secs(20);
const PEACE: Duration = Duration::from_secs(10);
/// The longest pause there is, one more attempt that finds the port in use, and the start of a process.
const UNHELD_MAX: Duration = HANDOVER_GRACE.saturating_add(Duration::from_millis(500));
/// Nothing is due.
const NEVER: Duration = Duration::from_secs(3600);
/// So much time passes from one look at the processes to the next at most.
const TICK_MAX: Duration = Duration::from_millis(200);
/// The newest of the versions.
const NEWEST: usize = 2;
/// Steps of all processes at one moment.
const STEPS_MAX: u32 = 1000;
/// Number of the owner of the name that is no process here.
const SQUATTER: usize = usize::MAX;

/// A listening socket; it is there as long as a living process holds a duplicate.
type Socket = usize;

/// What a standby hears of the gateway that it follows.
#[derive(Clone, Copy, Debug)]
enum Word {
    Listener(Socket),
    Bye(usize),
    Free(usize),
    Gone,
}

struct Process {
    user: u64,
    version: usize,
    is_alive: bool,
    /// It competes no more.
    has_resigned: bool,
    paused_until: Duration,
    /// It has no descriptors left.
    exhausted_until: Duration,
    given: Option<Socket>,
    holds: Holds,
    listener: Option<Socket>,
    follows: Option<usize>,
    /// In the middle of its steps: what the last one has led to.
    event: Option<Event>,
    due: Duration,
    heard: Vec<Word>,
    is_serving: bool,
    /// Since when it has served.
    serving_since: Duration,
    /// Since when it competes and is awake, and nothing it tried has failed.
    able_since: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Squat {
    Stranger,
    /// Of the same user; whoever asks is let in and gets nothing.
    Mute,
}

struct Kernel {
    random: Random,
    seed: u64,
    now: Duration,
    processes: Vec<Process>,
    sockets: usize,
    /// Who owns the name, and which standbys it has given the listener.
    name: Option<usize>,
    joined: Vec<(usize, bool)>,
    has_names: bool,
    /// Somebody else has the name and nothing to do with the port; of another user, or silent.
    squatted: Option<Squat>,
    /// When somebody took it last; since when nobody has it, if nobody has.
    named_since: Duration,
    name_free_since: Duration,
    versions: Vec<Version>,
    /// When the port was handed over to a newer version last, and who was told.
    yielded: Duration,
    told: Vec<usize>,
    /// When the port had a socket last, and when it was served or one that was stopped kept others from it.
    held: Duration,
    served: Duration,
}

impl Process {
    /// Also one that it has been sent and has not taken out yet.
    fn has_socket(&self) -> bool {
        self.listener.is_some() || self.heard.iter().any(|word| matches!(word, Word::Listener(_)))
    }
}

#[test]
fn simulation() {
    for_each_seed(|seed| Kernel::new(seed).run());
}

impl Kernel {
    fn new(seed: u64) -> Kernel {
        let mut random = Random(seed);
        let count = 2 + random.below(6) as usize;
        let users = if random.below(4) == 0 { 2 } else { 1 };
        let has_names = random.below(8) > 0;
        let versions = ["1.0.0", "1.1.0-rc.1", "1.1.0"].map(|text| Version::parse(text).expect("a version"));
        let mut kernel = Kernel {
            random,
            seed,
            now: Duration::ZERO,
            processes: Vec::new(),
            sockets: 0,
            name: None,
            joined: Vec::new(),
            has_names,
            squatted: None,
            named_since: Duration::ZERO,
            name_free_since: Duration::ZERO,
            versions: versions.into(),
            yielded: Duration::ZERO,
            told: Vec::new(),
            held: Duration::ZERO,
            served: Duration::ZERO,
        };
        if kernel.random.below(8) == 0 {
            kernel.squat();
        }
        // The service manager holds its socket for ever, and gives it to one process at a time.
        let given = (kernel.random.below(5) == 0).then(|| kernel.socket());
        for number in 0..count {
            let mut process = kernel.birth(users);
            process.given = given.filter(|_| number == 0);
            kernel.processes.push(process);
        }
        kernel
    }

    fn socket(&mut self) -> Socket {
        self.sockets += 1;
        self.sockets
    }

    fn birth(&mut self, users: u64) -> Process {
        Process {
            user: self.random.below(users),
            version: self.random.below(3) as usize,
            is_alive: true,
            has_resigned: false,
            paused_until: Duration::ZERO,
            exhausted_until: Duration::ZERO,
            given: None,
            holds: Holds::Nothing,
            listener: None,
            follows: None,
            event: None,
            due: self.now + Duration::from_millis(self.random.below(300)),
            heard: Vec::new(),
            is_serving: false,
            serving_since: NEVER,
            able_since: self.now,
        }
    }

    fn run(mut self) {
        let mut steps = 0;
        while self.now < CHAOS + PEACE {
            let is_peace = self.now >= CHAOS;
            if is_peace {
                self.processes.iter_mut().for_each(|process| process.paused_until = Duration::ZERO);
                if self.squatted == Some(Squat::Mute) {
                    self.squat();
                }
                if self.processes[0].given.is_some() {
                    // The service manager starts it again when it has ended.
                    if self.processes[0].has_resigned {
                        self.die(0);
                    }
                    self.restart(0);
                }
            } else if self.random.below(25) == 0 {
                self.happen();
            }
            self.owner_looks();
            steps += 1;
            assert!(steps < STEPS_MAX, "somebody goes in a circle at {:?}; SEED={}", self.now, self.seed);
            if !self.someone_acts() {
                steps = 0;
                self.check_nobody_sleeps_for_ever();
                self.let_time_pass();
            }
            // After each step, since a socket may be held for no time at all.
            self.check_the_port();
            self.check();
            self.check_standbys();
            self.check_the_favoured();
        }
        let competing = self.processes.iter().any(|process| process.is_alive && !process.has_resigned);
        let serving = self.processes.iter().filter(|process| process.is_serving).count();
        assert_eq!(serving, usize::from(competing), "one serves in peace; SEED={}", self.seed);
    }

    /// Something from outside.
    fn happen(&mut self) {
        let number = self.random.below(self.processes.len() as u64) as usize;
        match self.random.below(11) {
            0..3 => self.die(number),
            3..5 => {
                let pause = Duration::from_millis(1 + self.random.below(4000));
                self.processes[number].paused_until = self.now + pause;
            }
            5 => self.resign(number),
            6 => self.hand_over(number),
            7 => self.exhaust(number),
            8 if self.random.below(4) == 0 => self.squat(),
            _ => self.restart(number),
        }
    }

    /// Somebody takes the name while nobody has it, or lets go of it.
    fn squat(&mut self) {
        if self.squatted.take().is_some() {
            self.name_free_since = self.now;
            for process in self.processes.iter_mut().filter(|process| process.follows == Some(SQUATTER)) {
                process.heard.push(Word::Gone);
            }
        } else if self.name.is_none() {
            // Whoever was told of a handover finds the name in use, and lets go of what it was to have.
            self.told.clear();
            self.squatted = Some(if self.random.below(2) == 0 { Squat::Stranger } else { Squat::Mute });
        }
    }

    /// One that was given its socket would serve without the name then, whoever has a duplicate of it: that there are no
    /// names is taken for a thing of the whole system there.
    fn exhaust(&mut self, number: usize) {
        if self.processes.iter().all(|process| process.given.is_none()) {
            self.processes[number].exhausted_until = self.now + Duration::from_millis(self.random.below(500));
        }
    }

    fn is_awake(&self, number: usize) -> bool {
        let process = &self.processes[number];
        process.is_alive && self.now >= process.paused_until
    }

    fn die(&mut self, number: usize) {
        let process = &mut self.processes[number];
        process.is_alive = false;
        (process.is_serving, process.listener, process.follows, process.event) = (false, None, None, None);
        process.heard.clear();
        self.leave_name(number, Word::Gone);
        self.joined.retain(|(standby, _)| *standby != number);
    }

    fn restart(&mut self, number: usize) {
        if self.processes[number].is_alive {
            return;
        }
        let (user, given) = (self.processes[number].user, self.processes[number].given);
        self.processes[number] = Process { user, given, ..self.birth(1) };
    }

    /// The name is free, and who waited at it hears why.
    fn leave_name(&mut self, number: usize, word: Word) {
        if self.name == Some(number) {
            (self.name, self.name_free_since) = (None, self.now);
            for (standby, _) in std::mem::take(&mut self.joined) {
                self.processes[standby].heard.push(word);
            }
            if self.random.below(20) == 0 {
                self.squat();
            }
        }
    }

    fn resign(&mut self, number: usize) {
        if !self.is_awake(number) || self.processes[number].has_resigned || self.processes[number].event.is_some() {
            return;
        }
        let version = self.processes[number].version;
        self.processes[number].has_resigned = true;
        self.stop_following(number);
        self.processes[number].is_serving = false;
        self.leave_name(number, Word::Bye(version));
        (self.processes[number].listener, self.processes[number].due) = (None, NEVER);
    }

    fn stop_following(&mut self, number: usize) {
        self.processes[number].follows = None;
        self.processes[number].heard.clear();
        self.joined.retain(|(standby, _)| *standby != number);
    }

    /// A newer version asks it to.
    fn hand_over(&mut self, number: usize) {
        let process = &self.processes[number];
        if !self.is_awake(number) || !process.is_serving {
            return;
        }
        let is_named = self.name == Some(number);
        let has_standby = is_named
            && self.joined.iter().any(|(standby, is_given)| *is_given && self.processes[*standby].version == NEWEST);
        if process.holds == Holds::Given && !has_standby {
            return;
        }
        let due = self.now + HANDOVER_GRACE;
        let followers: Vec<usize> = self.joined.iter().map(|(standby, _)| *standby).collect();
        (self.yielded, self.told) = (self.now, if is_named { followers } else { Vec::new() });
        let process = &mut self.processes[number];
        (process.is_serving, process.due) = (false, due);
        if has_standby {
            if process.holds != Holds::Given {
                process.holds = Holds::Shared;
            }
            self.leave_name(number, Word::Bye(NEWEST));
        } else {
            process.listener = None;
            self.leave_name(number, Word::Free(NEWEST));
        }
    }

    /// An owner that is awake gives the listener to those who have come.
    fn owner_looks(&mut self) {
        let Some(owner) = self.name.filter(|owner| self.is_awake(*owner)) else { return };
        let Some(listener) = self.processes[owner].listener else { return };
        for (standby, is_given) in self.joined.iter_mut().filter(|(_, is_given)| !is_given) {
            *is_given = true;
            self.processes[*standby].heard.push(Word::Listener(listener));
        }
    }

    /// Lets one process that has something to do take one step; false if there is none.
    fn someone_acts(&mut self) -> bool {
        let count = self.processes.len();
        let first = self.random.below(count as u64) as usize;
        for number in (first..count).chain(0..first).filter(|number| self.is_awake(*number)).collect::<Vec<_>>() {
            let process = &mut self.processes[number];
            if let Some(event) = process.event.take() {
                self.step(number, event);
                return true;
            }
            if !process.heard.is_empty() {
                let word = process.heard.remove(0);
                self.hear(number, word);
                return true;
            }
            if process.due <= self.now && !process.is_serving {
                process.due = NEVER;
                if let (None, Some(given)) = (process.listener, process.given) {
                    (process.listener, process.holds) = (Some(given), Holds::Given);
                }
                process.event = Some(Event::Due);
                return true;
            }
            // A gateway without the name tries for it now and then.
            if process.is_serving && process.due <= self.now {
                process.due = self.now + Duration::from_secs(1);
                self.take_name(number);
                return true;
            }
        }
        false
    }

    fn let_time_pass(&mut self) {
        let alive = self.processes.iter().filter(|process| process.is_alive);
        let next = alive.map(|process| process.due.max(process.paused_until)).filter(|next| *next > self.now).min();
        let most = self.now + Duration::from_millis(1 + self.random.below(TICK_MAX.as_millis() as u64));
        self.now = next.unwrap_or(most).min(most);
    }
}
