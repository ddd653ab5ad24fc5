//! What holds after every scan and at every moment of the simulated registry, by the truth (`simulation.rs` says it in
//! words; what holds by what an observer was shown is in `pairs.rs`).

use super::pairs::Look;
use super::{BEAT, Kind, LATE, SCAN, STALE, Sky};
use crate::limits::FOREIGN_PID_GRACE;

/// From the moment that a node can write until all must list it: one beat to be seen, another that proves it where no clock
/// and no port has by then, the lateness of views, some scans, of which some show torn files.
const NOTICED: f64 = 2.0 * BEAT + LATE + 6.0 * SCAN;
/// From the last sign of life until nobody lists it any more; a silence counts two seconds a scan at most, and what could
/// not be judged by time is judged by its port, which is asked every five seconds, and answers at the third time.
const FORGOTTEN: f64 = STALE + LATE + 2.0 * SCAN + 7.0;
/// From a proof of death, or a silence that is long enough, until the file is gone: removals fail or are paused.
const REMOVED: f64 = LATE + 8.0;

impl Sky {
    pub(super) fn check(&self, look: &Look<'_>) {
        let Look { number, view, .. } = *look;
        let observer = &self.nodes[number];
        let ids = || view.instances.iter().map(|instance| &instance.entry.instance_id);
        assert!(ids().is_sorted_by(|one, next| one < next), "one place each, in order; SEED={}", self.seed);
        for of in (0..self.nodes.len()).filter(|of| *of != number) {
            let is_listed = look.listed(of).is_some();
            if is_listed {
                self.check_is_there(look, of);
            } else {
                self.check_is_not_there(look, of);
            }
        }
        self.check_pairs(look);
        let own = &observer.witnesses[number];
        assert!(own.beat.is_none() || look.listed(number).is_some(), "n{number} lists itself; SEED={}", self.seed);
        let own = look.sight.map(|sight| sight.shown[number].as_ref());
        let has_error = own.is_none_or(|own| own.is_some_and(|own| !own.is_readable));
        assert_eq!(view.error.is_some(), has_error, "n{number} tells {:?}; SEED={}", view.error, self.seed);
    }

    /// Who is dead or cut off is not listed for long; who has left, not at all.
    fn check_is_there(&self, look: &Look<'_>, of: usize) {
        let (node, observer) = (&self.nodes[of], &self.nodes[look.number]);
        let witness = &observer.witnesses[of];
        // A lock says it all.
        if node.is_alive && matches!(node.kind, Kind::Row { has_lock: true, .. }) {
            return;
        }
        // One that is paused, or cannot write because nobody can, is judged by its port, which the system keeps open.
        let is_far = node.host != observer.host;
        let cut_since = self.hosts[node.host].cut_since.min(self.hosts[observer.host].cut_since);
        let cut_since = cut_since.max(node.began);
        let away_since = if is_far { node.dead_since.min(cut_since) } else { node.dead_since };
        let unread = witness.unread.unwrap_or(away_since);
        let seen_since = away_since.max(observer.awake_since).max(observer.reading_since).max(unread);
        assert!(
            self.time - seen_since <= FORGOTTEN,
            "n{of} is away since {away_since} and listed by n{} at {}; SEED={}",
            look.number,
            self.time,
            self.seed
        );
    }

    /// Who lives and can be seen is listed, and stays listed.
    fn check_is_not_there(&self, look: &Look<'_>, of: usize) {
        let Look { number, .. } = *look;
        let (node, observer) = (&self.nodes[of], &self.nodes[number]);
        let witness = &observer.witnesses[of];
        let is_readable = witness.unread.is_none_or(|unread| self.time - unread > NOTICED);
        let well_for = self.time - node.well_since.max(observer.well_since);
        assert!(
            !(is_readable && self.is_well(of) && self.is_well(number) && well_for > NOTICED),
            "n{of} is well since {} and not listed by n{number} at {}; SEED={}",
            node.well_since,
            self.time,
            self.seed
        );
        assert!(
            !self.must_stay(look, of),
            "n{of} has beaten at {:?} and is not listed any more by n{number} at {}; SEED={}",
            node.beats,
            self.time,
            self.seed
        );
    }

    /// Whether somebody who was listed lives, has beaten in time, and can be seen to have.
    fn must_stay(&self, look: &Look<'_>, of: usize) -> bool {
        let (node, observer) = (&self.nodes[of], &self.nodes[look.number]);
        let Some(sight) = look.sight else { return false };
        // The last beat that everybody can have seen.
        let is_settled = self.time - node.beats[0] > LATE && !node.is_taken;
        let beat = if is_settled { node.beats[0] } else { node.beats[1] };
        let patience = match node.kind {
            Kind::Row { is_contained: true, .. } => FOREIGN_PID_GRACE.as_secs_f64(),
            _ => STALE,
        };
        let cut_last = self.hosts[node.host].cut_last.max(self.hosts[observer.host].cut_last);
        let is_there =
            self.time - node.there_since > LATE && sight.shown[of].as_ref().is_some_and(|shown| shown.is_current);
        // What was made again and cannot be read has not come back for the observer.
        let witness = &observer.witnesses[of];
        let has_read = observer.reading_since < beat && witness.unread.is_none_or(|unread| unread < witness.since);
        // Nor has what was taken away a second time at once: the beat that counts is the last one it was shown.
        let is_known = has_read && witness.since > self.time - patience + SCAN;
        let is_taken = node.is_taken && node.kind == Kind::Ours && is_known;
        node.is_alive
            && witness.is_listed
            && beat > self.time - patience + SCAN
            && beat > cut_last
            && (is_there || is_taken)
    }

    /// The files of the dead go, by whoever may remove them and is awake; at every moment.
    pub(super) fn check_the_files(&self) {
        for (of, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.is_alive && node.kind == Kind::Ours) {
            let Some(file) = &self.folder[of] else { continue };
            for (number, observer) in self.nodes.iter().enumerate() {
                let is_able = self.is_awake(number) && !self.is_cut(number) && observer.kind == Kind::Ours;
                if !is_able || observer.unreadable.is_some() {
                    continue;
                }
                let unread = observer.witnesses[of].unread.unwrap_or(node.dead_since);
                let cut_last = self.hosts[observer.host].cut_last;
                let since =
                    node.dead_since.max(observer.reading_since).max(observer.awake_since).max(cut_last).max(unread);
                let is_proven = file.entry.pid_start.is_some() && file.entry.host_id == self.host_id(observer.host);
                let has_time = |since: f64, time: f64| self.time - since <= time;
                assert!(
                    !is_proven || has_time(since, REMOVED),
                    "n{of} is dead since {}, which n{number} can see, and has a file at {}; SEED={}",
                    node.dead_since,
                    self.time,
                    self.seed
                );
                assert!(
                    !observer.is_gateway || has_time(since.max(observer.well_since), FORGOTTEN + REMOVED),
                    "n{of} is dead since {}, gateway n{number} is well, and its file is there at {}; SEED={}",
                    node.dead_since,
                    self.time,
                    self.seed
                );
            }
        }
    }

    pub(super) fn check_the_end(&self) {
        let has_gateway = self.nodes.iter().any(|node| node.is_alive && node.is_gateway && node.kind == Kind::Ours);
        for (of, (node, file)) in self.nodes.iter().zip(&self.folder).enumerate() {
            assert!(file.is_some() || !node.is_alive, "n{of} lives and has no entry; SEED={}", self.seed);
            assert!(
                file.is_none() || node.is_alive || !has_gateway || node.kind != Kind::Ours,
                "n{of} is dead and has an entry; SEED={}",
                self.seed
            );
        }
    }
}
