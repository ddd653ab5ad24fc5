//! What one simulated observer can find out at one moment beside the files: the truth, but that answers of ports come late.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use super::{Kind, PORT, Sky};
use crate::registry::entry::tests::Random;
use crate::registry::facts::Facts;

/// A port that was asked so often in vain answers.
const WITHHELD_MAX: u8 = 2;

pub(super) struct Truth {
    host_id: String,
    host: String,
    can_write: bool,
    is_cut: bool,
    /// Pids of the host with the start of each.
    pids: Vec<(u32, Option<u64>)>,
    /// Of each node, whether it has its lock, can be reached (paused or not: the system keeps its port open), and how often
    /// an answer of its port has been withheld.
    others: Vec<(bool, bool, u8)>,
    chance: RefCell<Random>,
    /// Which ports were asked in this scan, and what they answered.
    asked: RefCell<BTreeMap<usize, Option<bool>>>,
}

impl Truth {
    pub(super) fn of(sky: &mut Sky, number: usize) -> Truth {
        let chance = RefCell::new(Random(sky.random.next()));
        let node = &sky.nodes[number];
        let is_visible = |kind| !matches!(kind, Kind::Row { is_contained: true, .. });
        let here = sky.nodes.iter().filter(|other| other.is_alive && other.host == node.host && is_visible(other.kind));
        let others = sky.nodes.iter().zip(&node.witnesses).enumerate().map(|(of, (other, witness))| {
            let is_way = other.host == node.host || !(sky.is_cut(of) || sky.is_cut(number));
            (other.is_alive, other.is_alive && is_way, witness.withheld)
        });
        Truth {
            host_id: sky.host_id(node.host),
            host: format!("h{}", node.host),
            can_write: node.can_write,
            is_cut: sky.is_cut(number),
            pids: here.map(|other| (other.entry.pid, other.entry.pid_start)).collect(),
            others: others.collect(),
            chance,
            asked: RefCell::default(),
        }
    }

    pub(super) fn asked(&self, number: usize) -> Option<Option<bool>> {
        self.asked.borrow().get(&number).copied()
    }
}

impl Facts for Truth {
    fn host_id(&self) -> &str {
        &self.host_id
    }

    fn process_is_gone(&self, pid: u32, start: Option<u64>) -> bool {
        let there = self.pids.iter().find(|(there, _)| *there == pid);
        there.is_none_or(|(_, there)| start.is_some() && start != *there)
    }

    fn is_this_host(&self, host: &str) -> bool {
        host == self.host
    }

    fn port_answers(&self, _: &str, port: u16, _: Instant) -> Option<bool> {
        let number = usize::from(port - PORT);
        let (_, is_reached, withheld) = self.others[number];
        let is_there = withheld >= WITHHELD_MAX || self.chance.borrow_mut().below(2) == 0;
        let answer = is_there.then_some(is_reached);
        self.asked.borrow_mut().insert(number, answer);
        answer
    }

    fn can_write(&self) -> bool {
        self.can_write
    }

    fn lock_is_held(&self, name: &str) -> Option<bool> {
        let number: usize = name.parse().expect("a lock is called by the number of its node");
        (!self.is_cut).then_some(self.others[number].0)
    }
}
