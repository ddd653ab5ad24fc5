//! The levels of log messages that sessions asked for.
//!
//! **Invariant**: a session that asked for nothing, or so long ago that it was forgotten, has `LogLevel::Info`.
//! **Thread**: any.
//! **Bounds**: `LOG_LEVELS_MAX`, the session that set its level first is forgotten first.
//! Left out on purpose: levels of sessions at other processes; a client that changes processes may set its level again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::limits::LOG_LEVELS_MAX;
use crate::mcp::LogLevel;

#[derive(Default)]
pub struct LevelTable {
    inner: Mutex<(HashMap<u128, LogLevel>, VecDeque<u128>)>,
}

impl LevelTable {
    pub fn set(&self, session: u128, level: LogLevel) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (levels, order) = &mut *inner;
        if levels.insert(session, level).is_none() {
            order.push_back(session);
        }
        if order.len() > LOG_LEVELS_MAX
            && let Some(oldest) = order.pop_front()
        {
            levels.remove(&oldest);
        }
    }

    pub fn of(&self, session: u128) -> LogLevel {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0.get(&session).copied().unwrap_or(LogLevel::Info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_belong_to_sessions_and_the_oldest_goes_first() {
        let levels = LevelTable::default();
        assert_eq!(levels.of(1), LogLevel::Info);
        levels.set(1, LogLevel::Debug);
        levels.set(1, LogLevel::Error);
        levels.set(2, LogLevel::Debug);
        assert_eq!((levels.of(1), levels.of(2)), (LogLevel::Error, LogLevel::Debug));
        for session in 2..=LOG_LEVELS_MAX as u128 + 1 {
            levels.set(session, LogLevel::Debug);
        }
        assert_eq!((levels.of(1), levels.of(2)), (LogLevel::Info, LogLevel::Debug));
    }
}
