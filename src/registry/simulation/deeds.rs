//! What a simulated process does: it beats, looks at the folder, removes whom the rule calls dead.
//!
//! **Invariant**: what was removed is what was seen to be dead, and nothing that was written since.

use std::sync::Arc;

use super::pairs::{Look, Shown, number_of};
use super::truth::Truth;
use super::{BEAT, File, Kind, Removal, SCAN, STEP, Sky};
use crate::registry::foreign::{Row, Rows};
use crate::registry::store::{Found, Scan};
use crate::registry::{Death, Moment, Prune, entry, files};

/// What one look at the folder shows.
pub(super) struct Sight {
    pub(super) scan: Scan,
    pub(super) rows: Rows,
    /// The same by node.
    pub(super) shown: Vec<Option<Shown>>,
}

impl Sky {
    pub(super) fn act(&mut self, number: usize) {
        if !self.is_awake(number) {
            return;
        }
        self.remove(number);
        if self.time >= self.nodes[number].next_beat {
            self.beat(number);
        }
        if self.time >= self.nodes[number].next_scan && self.nodes[number].kind == Kind::Ours {
            self.look(number);
            self.nodes[number].next_scan = self.time + SCAN;
        }
    }

    fn beat(&mut self, number: usize) {
        let can_write = self.time >= self.full_until && !self.is_cut(number);
        let (time, at) = (self.time, self.wall(self.nodes[number].host));
        let node = &mut self.nodes[number];
        node.can_write = can_write;
        node.next_beat = time + if can_write { BEAT } else { 1.0 };
        if can_write {
            let seq = match node.kind {
                Kind::Ours => node.entry.heartbeat.seq + 1,
                Kind::Row { .. } => (at * 1000.0) as u64,
            };
            node.entry.heartbeat = entry::Beat { seq, at };
            node.beats = [time, node.beats[0]];
            if self.folder[number].is_none() || node.there_since.is_infinite() {
                node.there_since = time;
            }
            node.is_taken = false;
            self.folder[number] = Some(File { entry: Arc::new(node.entry.clone()), written: time });
        }
    }

    /// Removes what was looked at before, and looks at it once more. Between that and the removal there is no step here; that
    /// the system could still let somebody write in between is drawn, and costs the owner its entry until its next beat.
    fn remove(&mut self, number: usize) {
        let (is_cut, time) = (self.is_cut(number), self.time);
        let is_due = |removal: &mut Removal| removal.at <= time;
        let due: Vec<_> = self.nodes[number].removing.extract_if(.., is_due).collect();
        for Removal { of, seen, .. } in due.iter().filter(|_| !is_cut) {
            let Some(there) = &self.folder[*of] else { continue };
            let is_unlucky = self.random.below(10) == 0;
            if !is_unlucky && !there.entry.is_same_beat(&seen.entry) {
                continue;
            }
            assert!(
                is_unlucky || there.written == seen.written,
                "n{number} removes what n{of} has written at {}, for what it wrote at {}; SEED={}",
                there.written,
                seen.written,
                self.seed
            );
            self.folder[*of] = None;
            let owner = &mut self.nodes[*of];
            owner.there_since = f64::INFINITY;
            if owner.well_since.is_finite() {
                owner.well_since = time;
            }
        }
    }

    fn look(&mut self, number: usize) {
        let truth = Truth::of(self, number);
        let (now, wall) = (self.now(), self.wall(self.nodes[number].host));
        let moment = Moment { now, wall };
        let sight = (!self.is_cut(number)).then(|| self.sight(number));
        self.bear_witness(number, sight.as_ref());
        let observer = &mut self.nodes[number].observer;
        let (view, prunes) = match &sight {
            Some(Sight { scan, rows, .. }) => observer.observe(scan, rows, moment, &truth),
            None => (observer.observe_failure("cut off".to_owned(), moment, &truth), Vec::new()),
        };
        let look = Look { number, wall, view: &view, prunes: &prunes, truth: &truth, sight: sight.as_ref() };
        self.check(&look);
        self.remember(&look);
        self.decide(number, &prunes);
    }

    /// A removal may fail, be paused, or be kept from the start by what is there by now.
    fn decide(&mut self, number: usize, prunes: &[Prune]) {
        let is_gateway = self.nodes[number].is_gateway;
        for prune in prunes.iter().filter(|prune| prune.death.is_for(is_gateway)) {
            assert!(
                is_gateway || prune.death == Death::ProcessGone,
                "only gateways remove the stale; SEED={}",
                self.seed
            );
            let of = number_of(&prune.entry);
            let Some(there) = self.folder[of].clone() else { continue };
            if there.entry.is_same_beat(&prune.entry) && self.random.below(10) > 0 {
                let pause = if self.random.below(4) == 0 { self.random.below(8) as f64 * STEP } else { 0.0 };
                // What was judged, not what is there: they differ where the look that has just been let it pass wrongly.
                let is_seen = self.nodes[number].witnesses[of]
                    .cached
                    .as_ref()
                    .filter(|seen| Arc::ptr_eq(&seen.entry, &prune.entry));
                let seen = is_seen.cloned().unwrap_or(there);
                self.nodes[number].removing.push(Removal { of, seen, at: self.time + pause });
            }
        }
    }

    /// The folder as somebody sees it: each entry as of some moment of the last seconds, some torn or unreadable, which
    /// shows what was read last.
    fn sight(&mut self, number: usize) -> Sight {
        let mut scan = Scan { folder: files::tests::folder_numbered(self.folder_number), ..Scan::default() };
        let (mut rows, mut shown) = (Rows::default(), Vec::new());
        for of in 0..self.nodes.len() {
            let back = self.random.below(1 + self.past.len() as u64) as usize;
            let is_torn = !self.in_peace && self.random.below(60) == 0;
            let then = if back == 0 { &self.folder } else { &self.past[self.past.len() - back] };
            let moment = self.time - back as f64 * STEP;
            let absent_at = &mut self.nodes[number].witnesses[of].absent_at;
            // Views go back in time, but whoever was seen to have gone does not come back from the past.
            if then[of].is_none() {
                *absent_at = Some(absent_at.map_or(moment, |absent| absent.max(moment)));
            }
            let then = then[of].clone().filter(|file| absent_at.is_none_or(|absent| file.written >= absent));
            let node = &self.nodes[number];
            let kind = self.nodes[of].kind;
            let is_readable =
                kind != Kind::Ours || node.unreadable.is_none_or(|(other, until)| other != of || self.time >= until);
            let is_current = is_readable && !is_torn;
            let cached = node.witnesses[of].cached.clone();
            let file = then.and_then(|file| if is_current { Some(file) } else { cached });
            if let Some(file) = &file {
                let (entry, modified) = (&file.entry, self.modified(file));
                match kind {
                    Kind::Ours => scan.found.push(Found { entry: entry.clone(), modified, readable: is_readable }),
                    Kind::Row { has_lock, .. } => {
                        rows.rows.push(Row { entry: entry.clone(), lock: has_lock.then(|| of.to_string()) });
                    }
                }
            }
            shown.push(file.map(|file| Shown { file, is_readable, is_current }));
        }
        Sight { scan, rows, shown }
    }
}
