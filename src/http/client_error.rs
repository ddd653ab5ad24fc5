//! What can go wrong between a request and the end of its reply, with the address and, where there is one, the limit.
//!
//! **Thread**: pure.
//! Left out on purpose: statuses. A reply that says 500 is a reply.

use std::fmt;
use std::io;
use std::time::Duration;

#[derive(Debug)]
pub enum ClientError {
    /// No connection: nobody listens there, no way, no such name.
    Connect {
        address: String,
        source: io::Error,
    },
    /// `phase` is what was waited for.
    Timeout {
        address: String,
        phase: &'static str,
        limit: Duration,
    },
    /// `before_answer`: not one byte of it had come. `was_pooled`: on a connection that had been used before.
    Closed {
        address: String,
        before_answer: bool,
        was_pooled: bool,
    },
    Write {
        address: String,
        source: io::Error,
    },
    Read {
        address: String,
        source: io::Error,
    },
    /// What came is not HTTP as it must be.
    Protocol {
        address: String,
        what: &'static str,
    },
    /// What was to be sent is not.
    Request {
        address: String,
        what: &'static str,
    },
    TooLarge {
        address: String,
        limit: usize,
    },
    /// By a `Canceller`.
    Cancelled {
        address: String,
    },
}

impl ClientError {
    /// A pooled connection was closed before any answer: most likely it had been idle for too long for the server. The
    /// request may have been taken all the same, so that only one that does no harm twice may be sent again.
    pub fn is_stale_connection(&self) -> bool {
        matches!(self, ClientError::Closed { before_answer: true, was_pooled: true, .. })
    }

    pub fn address(&self) -> &str {
        match self {
            ClientError::Connect { address, .. }
            | ClientError::Timeout { address, .. }
            | ClientError::Closed { address, .. }
            | ClientError::Write { address, .. }
            | ClientError::Read { address, .. }
            | ClientError::Protocol { address, .. }
            | ClientError::Request { address, .. }
            | ClientError::TooLarge { address, .. }
            | ClientError::Cancelled { address } => address,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Connect { address, source } if source.kind() == io::ErrorKind::ConnectionRefused => {
                write!(f, "nothing listens on {address}; is the process still running?")
            }
            ClientError::Connect { address, source } => write!(f, "cannot connect to {address}: {source}"),
            ClientError::Timeout { address, phase, limit } => {
                write!(f, "waited {} s for {phase} from {address}", limit.as_secs_f64())
            }
            ClientError::Closed { address, before_answer: true, .. } => {
                write!(f, "{address} closed the connection without an answer; it may have ended")
            }
            ClientError::Closed { address, .. } => write!(f, "{address} closed the connection within its answer"),
            ClientError::Write { address, source } => write!(f, "cannot send to {address}: {source}"),
            ClientError::Read { address, source } => write!(f, "cannot read from {address}: {source}"),
            ClientError::Protocol { address, what } => write!(f, "{address} does not speak HTTP as expected: {what}"),
            ClientError::Request { address, what } => write!(f, "nothing was sent to {address}: {what}"),
            ClientError::TooLarge { address, limit } => {
                write!(f, "the answer from {address} is longer than {limit} bytes")
            }
            ClientError::Cancelled { address } => write!(f, "the request to {address} was cancelled"),
        }
    }
}

impl std::error::Error for ClientError {}
