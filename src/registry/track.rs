//! One instance as one observer sees it from scan to scan, and whether it lives: the rule that `registry.rs` tells.
//!
//! **Invariant**: pure; clock and world come in as arguments.
//! **Bounds**: `PORT_ASKED_EVERY`, `SILENT_PORT_ASKED_EVERY`, `PORT_ANSWER_KEPT`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits::{FOREIGN_PID_GRACE, PORT_ANSWER_KEPT, PORT_ASKED_EVERY, SILENT_PORT_ASKED_EVERY};
use crate::registry::entry::Entry;
use crate::registry::facts::Facts;
use crate::registry::foreign::Row;
use crate::registry::store::Found;
use crate::registry::{Death, Instance, Moment, Origin};

#[derive(Debug)]
pub(super) struct Track {
    pub(super) instance: Arc<Instance>,
    /// Name of a foreign row's lock.
    lock: Option<String>,
    /// Time without a change that was really observed.
    observed: Duration,
    /// Its heartbeat has changed before our eyes.
    has_beaten: bool,
    /// At first sight its heartbeat was recent by the wall clock.
    was_recent: bool,
    /// Whether its port answered, and when that was found out.
    port: Option<(bool, Instant)>,
    pub(super) was_live: bool,
    /// Its folder has been replaced; it is expected to come back.
    pub(super) is_awaited: bool,
}

/// What `judge` decides from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    pub(super) is_gone: bool,
    pub(super) observed: Duration,
    pub(super) elapsed: Duration,
    pub(super) stale: Duration,
    pub(super) has_beaten: bool,
    pub(super) was_recent: bool,
    pub(super) was_live: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Live,
    Hidden,
    /// Hidden until its port has been probed.
    Unknown,
    Dead(Death),
}

pub(super) fn judge(evidence: &Evidence, port: impl FnOnce() -> Option<bool>) -> Verdict {
    if evidence.is_gone {
        return Verdict::Dead(Death::ProcessGone);
    }
    if evidence.observed >= evidence.stale {
        return Verdict::Dead(Death::Stale);
    }
    if evidence.elapsed < evidence.stale && (evidence.has_beaten || evidence.was_recent) {
        return Verdict::Live;
    }
    match port() {
        Some(true) => Verdict::Live,
        Some(false) => Verdict::Hidden,
        None if evidence.was_live => Verdict::Live,
        None => Verdict::Unknown,
    }
}

/// What is the same for all tracks in one scan.
pub(super) struct Round {
    pub(super) moment: Moment,
    /// Time since the last scan, as far as it counts as observed. `None`: the registry does not take what we write, so
    /// nobody can have written, and whoever lives gets the whole stale timeout again when that is over.
    pub(super) step: Option<Duration>,
    pub(super) stale: Duration,
}

pub(super) struct Sighting<'a> {
    pub(super) entry: &'a Arc<Entry>,
    pub(super) origin: Origin,
    lock: Option<&'a String>,
    modified: Option<f64>,
    readable: bool,
}

impl Sighting<'_> {
    pub(super) fn of_ours(found: &Found) -> Sighting<'_> {
        let (entry, modified, readable) = (&found.entry, Some(found.modified), found.readable);
        Sighting { entry, origin: Origin::Ours, lock: None, modified, readable }
    }

    pub(super) fn of_row(row: &Row) -> Sighting<'_> {
        Sighting { entry: &row.entry, origin: Origin::Foreign, lock: row.lock.as_ref(), modified: None, readable: true }
    }

    fn instance(&self, beat_seen: Instant) -> Arc<Instance> {
        Arc::new(Instance { entry: self.entry.clone(), origin: self.origin, beat_seen })
    }

    fn is_recent(&self, round: &Round) -> bool {
        let recent = |at: f64| (round.moment.wall - at).abs() < round.stale.as_secs_f64();
        recent(self.entry.heartbeat.at) || self.modified.is_some_and(recent)
    }
}

impl Track {
    pub(super) fn seen_first(sighting: &Sighting<'_>, round: &Round) -> Track {
        Track {
            instance: sighting.instance(round.moment.now),
            lock: sighting.lock.cloned(),
            observed: Duration::ZERO,
            has_beaten: false,
            was_recent: sighting.is_recent(round),
            port: None,
            was_live: false,
            is_awaited: false,
        }
    }

    pub(super) fn seen_again(mut self, sighting: &Sighting<'_>, round: &Round) -> Track {
        let before = &self.instance.entry;
        self.is_awaited = false;
        self.lock = sighting.lock.cloned();
        if !before.is_same_beat(sighting.entry) {
            self.instance = sighting.instance(round.moment.now);
            (self.has_beaten, self.observed, self.port) = (true, Duration::ZERO, None);
            return self;
        }
        if !Arc::ptr_eq(before, sighting.entry) {
            self.instance = sighting.instance(self.instance.beat_seen);
        }
        if sighting.readable {
            self.stay_silent(round);
        }
        self
    }

    /// Its heartbeat has not changed since the last scan.
    pub(super) fn stay_silent(&mut self, round: &Round) {
        self.observed = round.step.map_or(Duration::ZERO, |step| self.observed + step);
    }

    pub(super) fn judge(&mut self, round: &Round, facts: &dyn Facts) -> Verdict {
        let instance = self.instance.clone();
        let entry = &instance.entry;
        if let Some(held) = self.lock.as_ref().and_then(|lock| facts.lock_is_held(lock)) {
            return if held { Verdict::Live } else { Verdict::Dead(Death::ProcessGone) };
        }
        if instance.origin == Origin::Foreign && self.is_missed(entry, facts) {
            return Verdict::Hidden;
        }
        let same_host = instance.origin == Origin::Ours && entry.host_id == facts.host_id();
        let evidence = Evidence {
            is_gone: same_host && facts.process_is_gone(entry.pid, entry.pid_start),
            observed: self.observed,
            elapsed: round.moment.now.saturating_duration_since(instance.beat_seen),
            stale: round.stale,
            has_beaten: self.has_beaten,
            was_recent: self.was_recent,
            was_live: self.was_live,
        };
        judge(&evidence, || self.port(entry, round.moment.now, facts))
    }

    /// What is known of its port. An old answer holds until there is a new one, but not for ever: nobody may have asked for
    /// long, as something else has decided meanwhile.
    fn port(&mut self, entry: &Entry, now: Instant, facts: &dyn Facts) -> Option<bool> {
        let age = |asked: Instant| now.saturating_duration_since(asked);
        let every = |answered| if answered { PORT_ASKED_EVERY } else { SILENT_PORT_ASKED_EVERY };
        self.port = self.port.filter(|(_, asked)| age(*asked) < PORT_ANSWER_KEPT);
        if self.port.is_none_or(|(answered, asked)| age(asked) >= every(answered)) {
            let beat_seen = self.instance.beat_seen;
            let since = now.checked_sub(PORT_ANSWER_KEPT).map_or(beat_seen, |oldest| oldest.max(beat_seen));
            let answer = facts.port_answers(&entry.host, entry.port, since);
            self.port = answer.map(|answer| (answer, now)).or(self.port);
        }
        self.port.map(|(answer, _)| answer)
    }

    /// A foreign row names a pid, but not of which pid namespace: that it is missing here proves nothing, unless its
    /// heartbeats are missing as well.
    fn is_missed(&self, entry: &Entry, facts: &dyn Facts) -> bool {
        let is_silent = !self.has_beaten || self.observed >= FOREIGN_PID_GRACE;
        is_silent && facts.is_this_host(&entry.host) && facts.process_is_gone(entry.pid, None)
    }
}
