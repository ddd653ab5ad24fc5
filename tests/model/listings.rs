//! A list that a client asks for while things happen, and whether it is whole.

use std::collections::BTreeSet;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::calls::Kill;
use crate::peer::Peer;

/// One `tools/list` under way.
pub struct Listing {
    /// Those that had not been killed when it was asked for.
    instances: Vec<usize>,
    asked: Instant,
    thread: JoinHandle<(Result<BTreeSet<String>, String>, Instant)>,
}

impl Listing {
    pub fn start(peer: &Peer, id: u64, instances: Vec<usize>) -> Listing {
        let (asking, asked) = (peer.clone(), Instant::now());
        let thread = thread::spawn(move || (asking.list(0, id), Instant::now()));
        Listing { instances, asked, thread }
    }

    /// Waits for the list; what is wrong with it, in a sentence. `tools` are those that each instance always has.
    pub fn judge(self, kills: &[Kill], tools: &[String]) -> Result<(), String> {
        let (list, end) = self.thread.join().map_err(|_| "the thread of a list panicked".to_owned())?;
        let list = match list {
            Ok(list) => list,
            Err(_) if kills.iter().any(|kill| kill.may_break(self.asked, end)) => return Ok(()),
            Err(error) => return Err(format!("a list was not answered, and its gateway lived: {error}")),
        };
        // Whoever has not been killed is on every list, also on the first one of a new gateway.
        let died = |at: usize| kills.iter().any(|kill| kill.instance == at && kill.at <= end);
        match self.instances.into_iter().find(|at| !died(*at) && !list.contains(&tools[*at])) {
            Some(at) => Err(format!("a list without the tools of {at}: {list:?}")),
            None => Ok(()),
        }
    }
}
