//! What befalls the simulated hosts, processes and folder, as the seed draws it; in peace, nothing any more.

use super::{Kind, Sky, skew};
use crate::registry::entry::tests::Random;

impl Sky {
    pub(super) fn happen(&mut self) {
        if self.in_peace {
            let time = self.time;
            self.full_until = self.full_until.min(time);
            self.hosts.iter_mut().for_each(|host| host.cut_until = host.cut_until.min(time));
            for node in &mut self.nodes {
                node.paused_until = node.paused_until.min(time);
                node.unreadable = None;
            }
        } else {
            self.befall_all();
            for number in 0..self.nodes.len() {
                self.befall(number);
            }
        }
        self.take_note();
    }

    /// What befalls a host or the folder.
    fn befall_all(&mut self) {
        let host = self.random.below(self.hosts.len() as u64) as usize;
        match self.random.below(600) {
            0 => self.full_until = self.time + length(&mut self.random),
            1 | 2 => self.hosts[host].cut_until = self.time + length(&mut self.random),
            3 => (self.hosts[host].skew, self.hosts[host].set_at) = (skew(&mut self.random), self.time),
            4 => {
                self.hosts[host].boot += 1;
                for number in 0..self.nodes.len() {
                    if self.nodes[number].host == host {
                        self.die(number);
                    }
                }
            }
            5 => self.replace_folder(),
            _ => {}
        }
    }

    /// What befalls a process.
    fn befall(&mut self, number: usize) {
        let node = &self.nodes[number];
        let is_young = self.time - node.began < 3.0;
        match self.random.below(1500) {
            0 | 1 => self.die(number),
            2 | 3 => self.nodes[number].paused_until = self.time + length(&mut self.random),
            4..20 if !node.is_alive => {
                let host = match self.random.below(4) {
                    0 => self.random.below(self.hosts.len() as u64) as usize,
                    _ => node.host,
                };
                self.restart(number, host);
            }
            20 => self.leave(number),
            21 if node.entry.heartbeat.seq > 2 => {
                // A copy of the machine is put back: the same process has beaten less often.
                let seq = self.random.below(node.entry.heartbeat.seq - 2);
                self.nodes[number].entry.heartbeat.seq = seq;
            }
            22 => self.crash(number),
            23..100 if is_young => self.crash(number),
            100 => {
                let of = self.random.below(self.nodes.len() as u64) as usize;
                self.nodes[number].unreadable = Some((of, self.time + length(&mut self.random)));
            }
            _ => {}
        }
    }

    pub(super) fn die(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if node.is_alive {
            (node.is_alive, node.dead_since) = (false, self.time);
        }
    }

    /// It is started again at once.
    fn crash(&mut self, number: usize) {
        if self.is_awake(number) {
            self.die(number);
            self.restart(number, self.nodes[number].host);
        }
    }

    /// The same id in another process, which has seen nothing yet.
    fn restart(&mut self, number: usize, host: usize) {
        let kind = self.nodes[number].kind;
        self.nodes[number] = self.birth(number, kind, host);
    }

    /// It ends on request, and takes its file along if it can.
    fn leave(&mut self, number: usize) {
        if self.is_awake(number) && !self.is_cut(number) {
            self.die(number);
            self.folder[number] = None;
        }
    }

    /// Somebody has moved the folder away; whoever lives makes it again.
    fn replace_folder(&mut self) {
        self.folder_number += 1;
        self.folder.fill(None);
        self.past.clear();
        for node in &mut self.nodes {
            node.is_taken = true;
            node.well_since = self.time;
            if node.kind != Kind::Ours {
                node.there_since = f64::INFINITY;
            }
        }
    }

    /// Since when everybody has been as it is.
    fn take_note(&mut self) {
        let time = self.time;
        for host in &mut self.hosts {
            let is_cut = time < host.cut_until;
            host.cut_since = if is_cut { host.cut_since.min(time) } else { f64::INFINITY };
            host.cut_last = if is_cut { time } else { host.cut_last };
        }
        for number in 0..self.nodes.len() {
            let (is_well, is_awake) = (self.is_well(number), self.is_awake(number));
            let node = &mut self.nodes[number];
            node.well_since = if is_well { node.well_since.min(time) } else { f64::INFINITY };
            node.awake_since = if is_awake { node.awake_since.min(time) } else { f64::INFINITY };
        }
    }
}

fn length(random: &mut Random) -> f64 {
    2.0 + random.below(60) as f64
}
