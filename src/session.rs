//! Session ids that carry their own state, so that any process accepts a session that another one opened.
//!
//! `dcc1-<revision>-<capabilities>-<catalogue state>-<random>`, for example
//! `dcc1-20250618-05-9f1c22d0.00000000.00000000-5d0e…`. Visible ASCII as MCP asks (transports, session management);
//! 128 random bits make it unguessable. It is no credential: who may speak to us is decided by `endpoint/access.rs`.
//!
//! **Invariant**: nothing about a session has to be stored; only ids that a client ended are remembered.
//! **Bounds**: `ENDED_SESSIONS_MAX`, the oldest is forgotten first.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::limits::ENDED_SESSIONS_MAX;
use crate::mcp::{ClientCapabilities, Revision};
use crate::os;

/// What one `initialize` agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub revision: Revision,
    pub client: ClientCapabilities,
    /// What the lists held when the session began: a stream opened later is told what changed since.
    pub born: State,
    /// Tells this session from all others.
    pub key: u128,
}

/// Marks of the three lists that a client may follow; equal marks mean equal lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub tools: u32,
    pub prompts: u32,
    pub resources: u32,
}

/// Sessions that their clients ended with DELETE: they get 404 from then on.
#[derive(Default)]
pub struct EndedSessions {
    inner: Mutex<(HashSet<u128>, VecDeque<u128>)>,
}

impl Session {
    pub fn begin(revision: Revision, client: ClientCapabilities, born: State) -> Session {
        Session { revision, client, born, key: u128::from_be_bytes(os::random_bytes::<16>()) }
    }

    /// Reads an id that this program wrote, in whichever process; `None` for any other text.
    pub fn parse(id: &str) -> Option<Session> {
        let mut rest = Reader(id.as_bytes());
        rest.skip(b"dcc1-")?;
        let revision = rest.take(8)?;
        let revision = Revision::ALL.into_iter().find(|known| compact(*known).eq(revision.iter().copied()))?;
        rest.skip(b"-")?;
        let bits = rest.hex(2)? as u32;
        let client = ClientCapabilities::from_bits(bits);
        rest.skip(b"-")?;
        let born = rest.state()?;
        rest.skip(b"-")?;
        let key = u128::from(rest.hex(16)?) << 64 | u128::from(rest.hex(16)?);
        // One id has one spelling, or an ended session could come back as another.
        (rest.is_empty() && client.bits() == bits).then_some(Session { revision, client, born, key })
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.revision.as_str().replace('-', "");
        write!(f, "dcc1-{revision}-{:02x}-{}-{:032x}", self.client.bits(), self.born, self.key)
    }
}

impl State {
    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<State> {
        let mut rest = Reader(text.as_bytes());
        rest.state().filter(|_| rest.is_empty())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{:08x}.{:08x}", self.tools, self.prompts, self.resources)
    }
}

impl EndedSessions {
    pub fn end(&self, session: Session) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (keys, order) = &mut *inner;
        if keys.insert(session.key) {
            order.push_back(session.key);
        }
        if order.len() > ENDED_SESSIONS_MAX
            && let Some(oldest) = order.pop_front()
        {
            keys.remove(&oldest);
        }
    }

    pub fn contains(&self, session: Session) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).0.contains(&session.key)
    }
}

/// The date without its dashes.
fn compact(revision: Revision) -> impl Iterator<Item = u8> {
    revision.as_str().bytes().filter(|byte| *byte != b'-')
}

/// What is left of a text whose parts have fixed lengths.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn skip(&mut self, text: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    /// So many digits, 16 at most, as they are written here: lower case.
    fn hex(&mut self, digits: usize) -> Option<u64> {
        self.take(digits)?.iter().try_fold(0, |sum, byte| {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return None,
            };
            Some(sum << 4 | u64::from(digit))
        })
    }

    fn state(&mut self) -> Option<State> {
        let tools = self.hex(8)? as u32;
        self.skip(b".")?;
        let prompts = self.hex(8)? as u32;
        self.skip(b".")?;
        Some(State { tools, prompts, resources: self.hex(8)? as u32 })
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Session {
        let client = ClientCapabilities { roots: true, elicitation: true, ..ClientCapabilities::NONE };
        Session::begin(Revision::R2025_06_18, client, State { tools: 0x9f1c_22d0, prompts: 0, resources: 7 })
    }

    #[test]
    fn an_id_says_all_there_is_to_know() {
        let session = sample();
        let id = session.to_string();
        assert!(id.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
        assert_eq!(Session::parse(&id), Some(session));
        assert_ne!(sample().key, session.key);
    }

    #[test]
    fn other_texts_are_no_sessions() {
        let id = sample().to_string();
        for other in
            ["", "dcc1", "x", &id[1..], &id[..id.len() - 1], &id.to_uppercase(), &format!("{id}0"), &format!("{id}-")]
        {
            assert_eq!(Session::parse(other), None, "{other}");
        }
        assert_eq!(Session::parse(&id.replace("20250618", "19990101")), None);
        assert_eq!(Session::parse(&id.replace("-05-", "-25-")), None, "a bit that means nothing");
        assert_eq!(Session::parse(&id.replace("9f1c22d0", "9F1C22D0")), None);
    }

    #[test]
    fn the_oldest_ended_session_is_forgotten_first() {
        let ended = EndedSessions::default();
        let first = sample();
        ended.end(first);
        assert!(ended.contains(first));
        for _ in 0..ENDED_SESSIONS_MAX {
            ended.end(sample());
        }
        assert!(!ended.contains(first));
    }
}
