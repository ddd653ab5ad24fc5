//! Resources that change: a note for each client, which it alone subscribes to, at every instance.
//!
//! All instances have the same skill folder, so that each tells of a change of the one file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::folder::write_by_rename;
use crate::follower::Follower;
use crate::game::holds_by;
use crate::wait::PATIENCE;

/// Between two changes that nobody may have heard of: skill folders are looked at every two seconds.
const AGAIN_AFTER: Duration = Duration::from_secs(3);

pub struct Notes {
    folder: PathBuf,
    count: u32,
    /// Those that changed in this round.
    changed: BTreeSet<usize>,
}

/// What the note of a client is called at the gateway.
pub fn uris(client: usize, instance_ids: &[String]) -> BTreeSet<String> {
    instance_ids.iter().map(|id| format!("dcc://{id}/skill://work/resources/note-{client}.txt")).collect()
}

impl Notes {
    pub fn new(folder: &Path, clients: usize) -> Notes {
        let mut notes = Notes { folder: folder.to_owned(), count: 0, changed: BTreeSet::new() };
        (0..clients).for_each(|client| notes.change(client));
        notes
    }

    /// A round begins: everybody subscribes again to what a gateway that has gone knew of.
    pub fn begin(&mut self, followers: &[Follower]) -> Option<String> {
        self.changed.clear();
        followers.iter().for_each(Follower::subscribe);
        let stand = holds_by(Instant::now() + PATIENCE, || followers.iter().all(Follower::stands));
        followers.iter().for_each(Follower::forget_updates);
        (!stand).then(|| "not all streams stand, and nobody disturbs them".to_owned())
    }

    /// Of one length always, and at no time shorter: the size of a resource is part of the list, which does not change here.
    pub fn change(&mut self, client: usize) {
        self.count += 1;
        write_by_rename(&self.folder.join(format!("note-{client}.txt")), format!("{:08}", self.count));
        self.changed.insert(client);
    }

    /// A client is told by every instance if its note changed.
    pub fn check(&self, client: usize, follower: &Follower) -> Option<String> {
        let is_told = || !self.changed.contains(&client) || follower.has_all_updates();
        (!holds_by(Instant::now() + PATIENCE, is_told))
            .then(|| format!("client {client} was not told of its note that changed: {:?}", follower.untold()))
    }

    /// After whatever happened: who subscribes again is told of what changes from now on.
    pub fn check_all_anew(&mut self, followers: &[Follower]) -> Option<String> {
        if let Some(fault) = self.begin(followers) {
            return Some(fault);
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let missing: Vec<usize> = (0..followers.len()).filter(|at| !followers[*at].has_all_updates()).collect();
            if missing.is_empty() {
                return None;
            }
            if Instant::now() > end {
                return Some(format!("clients {missing:?} were not told that their notes changed"));
            }
            missing.iter().for_each(|client| self.change(*client));
            holds_by(Instant::now() + AGAIN_AFTER, || followers.iter().all(Follower::has_all_updates));
        }
    }
}
