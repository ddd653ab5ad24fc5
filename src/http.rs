//! HTTP/1.1 for both sides: what a client sends us, and what we send to an instance.
//!
//! The rest of the program sees `server` (a `Handler` gets a `RequestHead` and an `Exchange`), `client` (`Pool` and
//! `Reply`) and `sse`; the other files serve these. Which engine is behind `server` is chosen by the feature
//! `tiny-http`; `docs/decisions/0001-http-engine.md` says why ours is the default.
//!
//! **Invariant**: nothing is accepted that two HTTP implementations could read differently; in doubt, 400 and close.
//! **Bounds**: the first two sections of `limits.rs`, collected here so that tests can shorten the times.
//! Left out on purpose: TLS, HTTP/2, content codings, upgrades. A reverse proxy in front does these.

pub mod canceller;
pub mod chunked;
pub mod client;
pub mod client_error;
pub mod connection;
pub mod engine;
pub mod fields;
pub mod head;
pub mod pool;
pub mod reply;
pub mod server;
pub mod sse;
pub mod target;
#[cfg(test)]
pub mod testing;
#[cfg(feature = "tiny-http")]
pub mod tiny;
pub mod wire;

use std::time::Duration;

use crate::limits;

/// The times of a server connection.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub idle: Duration,
    pub head: Duration,
    pub body: Duration,
    /// Bytes of a message a second, in either direction, below which its time runs out.
    pub bytes_per_second: u64,
    pub write_stall: Duration,
    pub linger: Duration,
    pub drain_idle: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            idle: limits::IDLE_KEEP_ALIVE,
            head: limits::HEAD_TIME_MAX,
            body: limits::BODY_TIME_MAX,
            bytes_per_second: limits::BODY_BYTES_PER_SECOND_MIN,
            write_stall: limits::WRITE_STALL_MAX,
            linger: limits::LINGER,
            drain_idle: limits::DRAIN_IDLE_MAX,
        }
    }
}

/// What is left of the time of a message of which `bytes` have moved: `base`, and what these bytes have earned.
pub fn time_left(base: Duration, bytes_per_second: u64, elapsed: Duration, bytes: usize) -> Duration {
    let earned = Duration::from_millis((bytes as u64).saturating_mul(1000) / bytes_per_second.max(1));
    (base + earned).saturating_sub(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_earn_time() {
        let seconds = Duration::from_secs;
        for (elapsed, bytes, left) in [(0, 0, 10), (4, 0, 6), (10, 0, 0), (11, 0, 0), (11, 5000, 4), (60, 20_000, 0)] {
            assert_eq!(time_left(seconds(10), 1000, seconds(elapsed), bytes), seconds(left), "{elapsed} s, {bytes}");
        }
        assert_eq!(time_left(seconds(1), 0, seconds(0), 1), seconds(2), "a rate of nothing is taken as one");
    }
}
