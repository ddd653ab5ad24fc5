//! Who lives: what one observer concludes from its scans of the registry folder.
//!
//! An instance is live while its heartbeat changed within the stale timeout *as this observer saw it*, by its own
//! monotonic clock; clocks of two hosts are never compared. One rule, `judge` (`registry/track.rs`), decides for all:
//!
//! | what is known | verdict |
//! |---|---|
//! | same host and pid namespace, and the process is gone | dead; anybody removes its files |
//! | no change for the stale timeout, all of it observed while it could have been written | dead; a gateway removes its files |
//! | changed within the stale timeout, or seen for the first time with a recent heartbeat | live |
//! | seen for the first time with an old heartbeat, or unchanged for long, partly while we (or the registry) slept or the registry could not be written | its port answers: live; it does not: hidden; not known yet, or not any more: as before |
//!
//! **Invariant**: pure; the clock and the world come in as arguments. Nothing is dead by a time that was not observed.
//! What is unknown or of a newer form is not judged at all.
//! **Bounds**: `INSTANCES_MAX`, `OBSERVED_GAP_MAX`; as many tracks as a scan has entries.
//! Left out on purpose: files (`registry/store.rs`), and when to look (`scanner.rs`).

pub mod entry;
pub mod facts;
pub mod files;
pub mod foreign;
pub mod store;
mod track;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits::{INSTANCES_MAX, OBSERVED_GAP_MAX, PROBE_TIME_MAX};
use crate::registry::entry::Entry;
use crate::registry::facts::Facts;
use crate::registry::files::FolderId;
use crate::registry::foreign::Rows;
use crate::registry::store::{Scan, Skipped};
use crate::registry::track::{Round, Sighting, Track, Verdict};

/// A live instance.
#[derive(Clone, Debug)]
pub struct Instance {
    pub entry: Arc<Entry>,
    pub origin: Origin,
    /// When this process saw its heartbeat change last, or saw it first.
    pub beat_seen: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Of this program: a file of its own.
    Ours,
    /// Of another implementation: a row of `services.json`.
    Foreign,
}

/// All that is known of the registry at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Live ones, by type, then id.
    pub instances: Vec<Arc<Instance>>,
    /// Why the registry, or what it holds, cannot be read now; the instances are those that were read last.
    pub error: Option<String>,
    /// Whether all instances that were there at the start have been seen and judged.
    pub complete: bool,
    pub skipped: Skipped,
    /// When the scan that this comes from began; `None` before the first.
    pub scanned: Option<Instant>,
}

/// Time as an observer sees it: its monotonic clock, and the wall clock for first sights.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Instant,
    /// Seconds since the epoch.
    pub wall: f64,
}

/// A dead instance of ours whose files can be removed.
#[derive(Clone, Debug)]
pub struct Prune {
    pub entry: Arc<Entry>,
    pub death: Death,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Proven on this host: whoever sees it removes it.
    ProcessGone,
    /// Only a gateway removes it.
    Stale,
}

/// What one process has seen of each instance.
#[derive(Debug)]
pub struct Observer {
    own_id: Option<String>,
    stale: Duration,
    began: Option<Instant>,
    last: Option<Instant>,
    folder: Option<FolderId>,
    complete: bool,
    tracks: BTreeMap<String, Track>,
}

impl Death {
    /// Whether an observer removes the files of one that died so.
    pub fn is_for(self, is_gateway: bool) -> bool {
        self == Death::ProcessGone || is_gateway
    }
}

impl Instance {
    /// How an instance is called in messages to people and models.
    pub fn describe(&self) -> String {
        let Entry { instance_id, display_name, scene, mcp_url, .. } = &*self.entry;
        let label = display_name.as_deref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
        let scene = scene.as_deref().map(|scene| format!(", scene {scene}")).unwrap_or_default();
        format!("{} instance {instance_id}{label} at {mcp_url}{scene}", self.dcc())
    }

    /// The application type as it is shown.
    pub fn dcc(&self) -> &str {
        if self.entry.dcc_type.is_empty() { "unknown" } else { &self.entry.dcc_type }
    }
}

impl View {
    /// Before the first scan.
    pub fn unknown() -> View {
        View { instances: Vec::new(), error: None, complete: false, skipped: Skipped::default(), scanned: None }
    }

    /// Whether nothing but heartbeats and counts differs.
    pub fn says_the_same(&self, other: &View) -> bool {
        let same = |(one, other): (&Arc<Instance>, &Arc<Instance>)| {
            one.origin == other.origin
                && (Arc::ptr_eq(&one.entry, &other.entry) || one.entry.says_the_same(&other.entry))
        };
        self.complete == other.complete
            && self.error.is_some() == other.error.is_some()
            && self.instances.len() == other.instances.len()
            && self.instances.iter().zip(&other.instances).all(same)
    }
}

impl Observer {
    /// `own_id`: the observer's own instance, live whatever is seen of it.
    pub fn new(own_id: Option<String>, stale: Duration) -> Observer {
        let tracks = BTreeMap::new();
        Observer { own_id, stale, began: None, last: None, folder: None, complete: false, tracks }
    }

    /// Takes one scan in. `moment` is when it *began*: what is read later can only be newer.
    pub fn observe(&mut self, scan: &Scan, foreign: &Rows, moment: Moment, facts: &dyn Facts) -> (View, Vec<Prune>) {
        let began = *self.began.get_or_insert(moment.now);
        let gap = self.last.map_or(Duration::ZERO, |last| moment.now.saturating_duration_since(last));
        let step = facts.can_write().then(|| gap.min(OBSERVED_GAP_MAX));
        let round = Round { moment, step, stale: self.stale };
        let folder_is_new = self.last.is_some() && self.folder != scan.folder;
        (self.last, self.folder) = (Some(moment.now), scan.folder);

        let mut seen = BTreeMap::new();
        for found in &scan.found {
            self.sight(Sighting::of_ours(found), &round, &mut seen);
        }
        for row in &foreign.rows {
            self.sight(Sighting::of_row(row), &round, &mut seen);
        }
        self.keep_awaited(folder_is_new, &round, &mut seen);
        self.tracks = seen;

        let (mut view, prunes, unknown) = self.judge_all(&round, facts);
        let is_patient = moment.now.saturating_duration_since(began) < PROBE_TIME_MAX * 2;
        self.complete |= unknown == 0 || !is_patient;
        view.complete = self.complete;
        view.error = self.own_entry_unread(scan);
        let over_limit = view.skipped.over_limit + scan.skipped.over_limit;
        view.skipped = Skipped { over_limit, foreign: foreign.skipped, ..scan.skipped };
        (view, prunes)
    }

    /// What still holds when the folder could not be looked at: nobody came or went, but a process may have gone and,
    /// of those not heard of for long, a port may not answer.
    pub fn observe_failure(&mut self, error: String, moment: Moment, facts: &dyn Facts) -> View {
        let round = Round { moment, step: None, stale: self.stale };
        let (view, _, _) = self.judge_all(&round, facts);
        View { error: Some(error), complete: self.complete, ..view }
    }

    /// Where not even the own entry can be read, which was written a moment ago, the folder cannot be trusted.
    fn own_entry_unread(&self, scan: &Scan) -> Option<String> {
        let own = scan.found.iter().find(|found| self.own_id.as_ref() == Some(&found.entry.instance_id))?;
        (!own.readable).then(|| "entries cannot be read, not even our own".to_owned())
    }

    /// Moves the track of what was seen over to `seen`. The first sighting of an id in a scan counts: ours before rows.
    fn sight(&mut self, sighting: Sighting<'_>, round: &Round, seen: &mut BTreeMap<String, Track>) {
        let id = &sighting.entry.instance_id;
        if seen.contains_key(id) {
            return;
        }
        let track = match self.tracks.remove(id) {
            Some(track) if track.instance.origin == sighting.origin => track.seen_again(&sighting, round),
            _ => Track::seen_first(&sighting, round),
        };
        seen.insert(id.clone(), track);
    }

    /// What a scan no longer shows has gone, but for ourselves, and for those whose folder was taken from under them:
    /// they make it again with their next heartbeat.
    fn keep_awaited(&mut self, folder_is_new: bool, round: &Round, seen: &mut BTreeMap<String, Track>) {
        for (id, mut track) in std::mem::take(&mut self.tracks) {
            let is_own = self.own_id.as_deref() == Some(&id);
            track.is_awaited |= folder_is_new && track.was_live;
            if is_own || (track.is_awaited && track.was_live && track.instance.origin == Origin::Ours) {
                track.stay_silent(round);
                seen.entry(id).or_insert(track);
            }
        }
    }

    fn judge_all(&mut self, round: &Round, facts: &dyn Facts) -> (View, Vec<Prune>, usize) {
        let mut view = View { scanned: Some(round.moment.now), ..View::unknown() };
        let (mut prunes, mut unknown) = (Vec::new(), 0);
        for (id, track) in &mut self.tracks {
            let is_own = self.own_id.as_deref() == Some(id);
            let verdict = if is_own { Verdict::Live } else { track.judge(round, facts) };
            track.was_live = verdict == Verdict::Live;
            match verdict {
                Verdict::Live if is_own || view.instances.len() < INSTANCES_MAX => {
                    view.instances.push(track.instance.clone())
                }
                Verdict::Live => view.skipped.over_limit += 1,
                Verdict::Hidden => {}
                Verdict::Unknown => unknown += 1,
                Verdict::Dead(death) if track.instance.origin == Origin::Ours => {
                    prunes.push(Prune { entry: track.instance.entry.clone(), death });
                }
                Verdict::Dead(_) => {}
            }
        }
        let key = |instance: &Arc<Instance>| (instance.entry.dcc_type.clone(), instance.entry.instance_id.clone());
        view.instances.sort_by_cached_key(key);
        (view, prunes, unknown)
    }
}

#[cfg(test)]
pub mod simulation;
#[cfg(test)]
mod tests;
