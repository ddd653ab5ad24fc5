//! What the catalogue knows of one instance: how to reach it, and what it has told of its tools.
//!
//! **Invariant**: a list that was published counts more than an answer over HTTP.
//! **Thread**: `catalogue`; reads the registry, waits for no instance.
//! **Bounds**: those of `Offered`, `TOOLS_FETCH_TIME_MAX`.

use std::sync::Arc;
use std::time::Instant;

use crate::endpoint::access::Access;
use crate::gateway::offered::Offered;
use crate::gateway::pieces::Pieces;
use crate::gateway::upstream::Upstream;
use crate::limits::TOOLS_FETCH_TIME_MAX;
use crate::logging::Quoted;
use crate::registry::Instance;
use crate::registry::store::Store;

/// One instance.
pub struct Known {
    pub upstream: Arc<Upstream>,
    pub pieces: Arc<Pieces>,
    /// The revision that this was read for.
    revision: String,
    /// It has told its tools, or failed to, at least once.
    pub answered: bool,
    pub fetch: Fetch,
}

/// Asking over HTTP, for those that publish nothing in the registry.
pub enum Fetch {
    NotNeeded,
    Due(Instant),
    UnderWay { since: Instant },
}

impl Known {
    pub fn new(instance: Arc<Instance>, access: &Arc<Access>) -> Known {
        let upstream = Arc::new(Upstream::new(instance, access));
        Known { upstream, pieces: Arc::default(), revision: String::new(), answered: false, fetch: Fetch::NotNeeded }
    }

    /// Takes what it has told, by whichever way.
    pub fn offers(&mut self, offered: Offered) {
        let instance = &self.upstream.instance;
        self.pieces = Arc::new(Pieces::of(instance, &offered.bounded(instance)));
    }

    /// Reads the published list if it is another than the one we have; without one, asking is due.
    pub fn read(&mut self, store: &Store) {
        let entry = Arc::clone(&self.upstream.instance.entry);
        if !entry.tools_revision.is_empty() && self.revision == entry.tools_revision {
            return;
        }
        let publishes = !entry.tools_revision.is_empty();
        let published = publishes.then(|| read_published(store, &entry.instance_id)).flatten();
        match published {
            Some(offered) => {
                self.offers(offered);
                self.revision = entry.tools_revision.clone();
                self.answered = true;
                self.fetch = Fetch::NotNeeded;
            }
            None if matches!(self.fetch, Fetch::NotNeeded) => self.fetch = Fetch::Due(Instant::now()),
            None => {}
        }
    }
}

impl Fetch {
    /// `Some` while under way. One that has not been heard of for long is lost, and due again.
    pub fn settle(&mut self, now: Instant) -> Option<()> {
        let Fetch::UnderWay { since } = *self else { return None };
        if now.duration_since(since) < TOOLS_FETCH_TIME_MAX * 2 {
            return Some(());
        }
        *self = Fetch::Due(now);
        None
    }
}

fn read_published(store: &Store, instance_id: &str) -> Option<Offered> {
    match store.read_tools(instance_id) {
        Ok(bytes) => Offered::parse(&bytes),
        Err(error) => {
            log::debug!("event=tool_list_unreadable instance={instance_id} error={}", Quoted(&error));
            None
        }
    }
}
