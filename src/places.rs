//! A bounded number of places, for what any thread may start.
//!
//! **Invariant**: a place is given back when its guard is dropped, however its holder ends.
//! **Thread**: any.
//! **Bounds**: the number given when it is compiled.
//! Left out on purpose: waiting for a place. Full means a refusal at once.

use std::sync::atomic::{AtomicUsize, Ordering};

pub struct Places {
    taken: AtomicUsize,
    most: usize,
}

/// One of them, for as long as it lives.
#[must_use = "the place is given back when this is dropped"]
pub struct Place(&'static Places);

impl Places {
    pub const fn new(most: usize) -> Places {
        Places { taken: AtomicUsize::new(0), most }
    }

    /// `None` where all are taken.
    pub fn take(&'static self) -> Option<Place> {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Place(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_holder_ends() {
        static TWO: Places = Places::new(2);
        let (one, other) = (TWO.take(), TWO.take());
        assert!(one.is_some() && other.is_some() && TWO.take().is_none());
        drop(one);
        let again = TWO.take();
        assert!(again.is_some() && TWO.take().is_none());
    }
}
