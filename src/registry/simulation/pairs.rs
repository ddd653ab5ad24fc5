//! What the simulation knows of one observer and one other, beside the product: what it was shown, for how long in vain.
//!
//! **Invariant**: nothing in here is asked of the code under test.

use std::sync::Arc;

use super::deeds::Sight;
use super::truth::Truth;
use super::{File, Kind, PORT, SCAN, STALE, Sky};
use crate::limits::{FOREIGN_PID_GRACE, PORT_ANSWER_KEPT, PORT_ASKED_EVERY, PROBE_TIME_MAX, SILENT_PORT_ASKED_EVERY};
use crate::registry::entry::{self, Entry};
use crate::registry::facts::Facts;
use crate::registry::{Death, Instance, Prune, View};

/// A silence counts so much from one scan to the next at most.
const GAP_MAX: f64 = 2.0;

#[derive(Default)]
pub(super) struct Witness {
    /// The file as it was read last.
    pub(super) cached: Option<File>,
    /// The sign of life that it was shown, when first, whether another one came before it, and the silence since, as far as
    /// it was observed while anybody could write.
    pub(super) beat: Option<Arc<Entry>>,
    pub(super) since: f64,
    pub(super) has_changed: bool,
    pub(super) silence: f64,
    /// It was listed at the last scan; its folder was taken away since it was seen.
    pub(super) is_listed: bool,
    pub(super) is_awaited: bool,
    /// When its port was asked last, what it answered last, and when; how often it was asked in vain since.
    pub(super) asked: Option<f64>,
    answer: Option<(bool, f64)>,
    pub(super) withheld: u8,
    /// Of which moment a view was that did not show it.
    pub(super) absent_at: Option<f64>,
    /// When its file could not be read last.
    pub(super) unread: Option<f64>,
}

/// An entry as a scan shows it.
pub(super) struct Shown {
    pub(super) file: File,
    pub(super) is_readable: bool,
    /// Neither torn nor unreadable.
    pub(super) is_current: bool,
}

/// One scan and what was made of it.
pub(super) struct Look<'a> {
    pub(super) number: usize,
    pub(super) wall: f64,
    pub(super) view: &'a View,
    pub(super) prunes: &'a [Prune],
    pub(super) truth: &'a Truth,
    /// None: the folder could not be looked at.
    pub(super) sight: Option<&'a Sight>,
}

impl Witness {
    /// `step`: how much of the silence counts; none: nobody can have written.
    fn see(&mut self, shown: Option<&Shown>, step: Option<f64>, time: f64) {
        let Some(shown) = shown else { return self.silence = step.map_or(0.0, |step| self.silence + step) };
        let is_same = self.beat.as_ref().is_some_and(|before| sign(before) == sign(&shown.file.entry));
        if !is_same {
            (self.has_changed, self.since, self.silence) = (self.beat.is_some(), time, 0.0);
            (self.asked, self.answer) = (None, None);
        } else if shown.is_readable {
            self.silence = step.map_or(0.0, |step| self.silence + step);
        }
        (self.beat, self.is_awaited) = (Some(shown.file.entry.clone()), false);
    }

    /// What its port answered last, if that is not too long ago.
    fn answer_at(&self, time: f64) -> Option<bool> {
        let (answer, at) = self.answer?;
        (time - at < PORT_ANSWER_KEPT.as_secs_f64()).then_some(answer)
    }
}

/// What makes a sign of life another one.
fn sign(entry: &Entry) -> (u32, Option<u64>, &str, f64, entry::Beat) {
    (entry.pid, entry.pid_start, &entry.host_id, entry.registered_at, entry.heartbeat)
}

impl Sky {
    /// Takes down what the observer is being shown.
    pub(super) fn bear_witness(&mut self, number: usize, sight: Option<&Sight>) {
        let Some(sight) = sight else { return };
        let (time, kinds): (f64, Vec<Kind>) = (self.time, self.nodes.iter().map(|node| node.kind).collect());
        let node = &mut self.nodes[number];
        let step = node.looked.map_or(0.0, |(last, _)| (time - last).min(GAP_MAX));
        let step = node.can_write.then_some(step);
        if node.looked.is_none_or(|(last, _)| time - last > 2.0 * SCAN) {
            node.reading_since = time;
        }
        node.first_look.get_or_insert(time);
        let is_replaced = node.looked.is_some_and(|(_, folder)| folder != self.folder_number);
        node.looked = Some((time, self.folder_number));
        for (of, shown) in sight.shown.iter().enumerate() {
            let witness = &mut node.witnesses[of];
            if node.unreadable.is_some_and(|(other, until)| other == of && time < until) {
                witness.unread = Some(time);
            }
            witness.cached = shown.as_ref().map(|shown| shown.file.clone());
            if shown.is_none() {
                witness.is_awaited |= is_replaced && witness.is_listed && kinds[of] == Kind::Ours;
                if !(of == number || witness.is_awaited && witness.is_listed) {
                    *witness = Witness { absent_at: witness.absent_at, unread: witness.unread, ..Witness::default() };
                    continue;
                }
            }
            witness.see(shown.as_ref(), step, time);
        }
    }

    /// Takes down what came of it.
    pub(super) fn remember(&mut self, look: &Look<'_>) {
        let time = self.time;
        self.nodes[look.number].is_complete = look.view.complete;
        for (of, witness) in self.nodes[look.number].witnesses.iter_mut().enumerate() {
            witness.is_listed = look.listed(of).is_some();
            if let Some(answer) = look.truth.asked(of) {
                (witness.asked, witness.answer) = (Some(time), answer.map(|answer| (answer, time)).or(witness.answer));
                witness.withheld = if answer.is_some() { 0 } else { witness.withheld + 1 };
            }
        }
    }
}

/// What holds between an observer and each other, by what it was shown.
impl Sky {
    pub(super) fn check_pairs(&self, look: &Look<'_>) {
        let node = &self.nodes[look.number];
        for (of, witness) in node.witnesses.iter().enumerate() {
            let told = || format!("n{of} by n{} at {}; SEED={}", look.number, self.time, self.seed);
            let Some(beat) = &witness.beat else {
                assert!(look.listed(of).is_none(), "listed, though it has left: {}", told());
                continue;
            };
            if let Some(instance) = look.listed(of) {
                assert_eq!(sign(&instance.entry), sign(beat), "listed as it was: {}", told());
                let ago = self.now().duration_since(instance.beat_seen).as_secs_f64();
                assert_eq!(ago, self.time - witness.since, "seconds since its beat was seen: {}", told());
            }
            if of != look.number {
                match self.nodes[of].kind {
                    Kind::Ours => self.check_death(look, of, beat, &told()),
                    Kind::Row { has_lock, .. } => self.check_row(look, of, has_lock, &told()),
                }
                check_port(look, of, witness, self.time, &told());
            }
        }
        // Whose port has been asked, did not answer yet, and is not known otherwise.
        let is_unknown = |of: usize| {
            look.truth.asked(of) == Some(None)
                && look.listed(of).is_none()
                && node.witnesses[of].answer_at(self.time).is_none()
        };
        let is_known = !(0..self.nodes.len()).any(is_unknown);
        let has_time = node.first_look.is_none_or(|first| self.time - first < 2.0 * PROBE_TIME_MAX.as_secs_f64());
        let is_complete = node.is_complete || look.sight.is_some() && (is_known || !has_time);
        assert_eq!(
            look.view.complete, is_complete,
            "complete for n{} at {}; SEED={}",
            look.number, self.time, self.seed
        );
    }

    /// Dead is who is proven to be, or silent for the stale timeout, all of it observed; nobody else.
    fn check_death(&self, look: &Look<'_>, of: usize, beat: &Entry, told: &str) {
        let witness = &self.nodes[look.number].witnesses[of];
        let is_gone = beat.host_id == look.truth.host_id() && look.truth.process_is_gone(beat.pid, beat.pid_start);
        let death = match () {
            () if is_gone => Some(Death::ProcessGone),
            () if witness.silence >= STALE => Some(Death::Stale),
            () => None,
        };
        if look.sight.is_some() {
            assert_eq!(look.pruned(of).map(|prune| prune.death), death, "silent for {}: {told}", witness.silence);
        }
        let is_owner = |node: &super::Node| {
            node.is_alive
                && (node.entry.pid, node.entry.pid_start, &node.entry.host_id)
                    == (beat.pid, beat.pid_start, &beat.host_id)
        };
        assert!(death != Some(Death::ProcessGone) || !self.nodes.iter().any(is_owner), "its process is there: {told}");
        if death.is_some() {
            assert!(look.listed(of).is_none(), "listed, though {death:?}: {told}");
        } else {
            self.check_beat(look, of, told);
        }
    }

    /// A lock says it all; a pid that is missing on its host says so with some patience.
    fn check_row(&self, look: &Look<'_>, of: usize, has_lock: bool, told: &str) {
        let (node, witness) = (&self.nodes[of], &self.nodes[look.number].witnesses[of]);
        assert!(look.pruned(of).is_none(), "files of others are not ours to remove: {told}");
        let is_listed = look.listed(of).is_some();
        if has_lock && look.sight.is_some() {
            return assert_eq!(is_listed, node.is_alive, "listed as its lock says: {told}");
        }
        let beat = witness.beat.as_ref().expect("it was shown");
        let is_missing = look.truth.is_this_host(&beat.host) && look.truth.process_is_gone(beat.pid, None);
        if is_missing && (!witness.has_changed || witness.silence >= FOREIGN_PID_GRACE.as_secs_f64())
            || witness.silence >= STALE
        {
            return assert!(!is_listed, "listed, though its process is missing, or its beats are: {told}");
        }
        self.check_beat(look, of, told);
    }

    /// Of one that is not dead: what its beats say, and what its port has to.
    fn check_beat(&self, look: &Look<'_>, of: usize, told: &str) {
        let witness = &self.nodes[look.number].witnesses[of];
        let is_listed = look.listed(of).is_some();
        let silent_for = self.time - witness.since;
        if witness.has_changed && silent_for < STALE {
            return assert!(is_listed, "not listed, though it has beaten {silent_for} s ago: {told}");
        }
        let is_first = !witness.has_changed && silent_for == 0.0;
        if is_first && let Some(shown) = look.sight.and_then(|sight| sight.shown[of].as_ref()) {
            let modified = (self.nodes[of].kind == Kind::Ours).then_some(self.modified(&shown.file));
            let is_recent = |at: f64| (look.wall - at).abs() < STALE;
            if is_recent(shown.file.entry.heartbeat.at) || modified.is_some_and(is_recent) {
                return assert!(is_listed, "not listed, though recent at first sight: {told}");
            }
            return assert!(look.truth.asked(of).is_some(), "old at first sight, and not asked: {told}");
        }
        let asked = if look.truth.asked(of).is_some() { Some(self.time) } else { witness.asked };
        let asked_ago = asked.map_or(f64::INFINITY, |asked| self.time - asked);
        if !is_listed {
            assert!(
                asked_ago < SILENT_PORT_ASKED_EVERY.as_secs_f64(),
                "hidden, and not asked for {asked_ago} s: {told}"
            );
        } else if silent_for >= STALE {
            assert!(asked_ago < PORT_ASKED_EVERY.as_secs_f64(), "believed, and not asked for {asked_ago} s: {told}");
        }
    }
}

/// A port that was asked decides; while it has not answered, it is as it was.
fn check_port(look: &Look<'_>, of: usize, witness: &Witness, time: f64, told: &str) {
    let Some(answer) = look.truth.asked(of) else { return };
    let before = witness.answer_at(time);
    let expected = answer.or(before).unwrap_or(witness.is_listed);
    assert_eq!(
        look.listed(of).is_some(),
        expected,
        "its port said {answer:?} at {time}, and {before:?} before: {told}"
    );
}

impl Look<'_> {
    pub(super) fn listed(&self, of: usize) -> Option<&Instance> {
        self.view.instances.iter().find(|instance| number_of(&instance.entry) == of).map(AsRef::as_ref)
    }

    pub(super) fn pruned(&self, of: usize) -> Option<&Prune> {
        self.prunes.iter().find(|prune| number_of(&prune.entry) == of)
    }
}

pub(super) fn number_of(entry: &Entry) -> usize {
    usize::from(entry.port - PORT)
}
