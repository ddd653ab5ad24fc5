//! The gateway as a model test: four clients of the four revisions, three instances, and whatever may happen between
//! them in an order that a seed decides, against real processes.
//!
//! What must hold, whatever the order: every request gets one answer, or its connection breaks because the gateway was
//! killed; no message reaches another client than the one it is for, although ids and progress tokens are the same in
//! all; what a script asks is answered by the client of its call and by nobody else; a change of a resource is told to who
//! subscribed to it and to nobody else; each follower of the lists ends up with the lists as they are; one that was away is
//! told once of what changed and of nothing else. A task is seen only by who made it, never goes back, has the result of its
//! own call and the same whenever it is asked for, and is not there any more once its process is dead. `SEED=7 make model`
//! replays a seed, `SEEDS=100 make model` plays so many.
//!
//! **Bounds**: seeds are played two at a time; every wait has a deadline.

#[path = "../it/client.rs"]
#[allow(dead_code, reason = "made for the tests of tests/it")]
mod client;
#[path = "../it/folder.rs"]
#[allow(dead_code, reason = "made for the tests of tests/it")]
mod folder;
#[path = "../it/program.rs"]
#[allow(dead_code, reason = "made for the tests of tests/it")]
mod program;
#[path = "../it/skill.rs"]
#[allow(dead_code, reason = "made for the tests of tests/it")]
mod skill;
#[path = "../it/wait.rs"]
#[allow(dead_code, reason = "made for the tests of tests/it")]
mod wait;

mod asks;
mod calls;
mod errands;
mod follower;
mod game;
mod listings;
mod notes;
mod peer;
mod skills;
mod tasks;

use std::env;
use std::sync::Mutex;
use std::thread;

use crate::game::Game;

const SEEDS_BY_DEFAULT: u64 = 4;
const AT_ONCE: usize = 2;

#[test]
fn whatever_happens_every_client_hears_what_is_for_it() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("SEED and SEEDS are numbers"));
    let first = number("SEED");
    let count = number("SEEDS").unwrap_or(if first.is_some() { 1 } else { SEEDS_BY_DEFAULT });
    let first = first.unwrap_or(1);
    let seeds = Mutex::new(first..first + count);
    let faults = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.lock().expect("nobody panics with it").next() else { return };
                    let found = Game::new(seed).play();
                    faults.lock().expect("nobody panics with it").extend(found);
                }
            });
        }
    });
    let faults = faults.into_inner().expect("nobody panics with it");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Numbers that a seed decides (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A number below `most`.
    pub fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % most as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}
