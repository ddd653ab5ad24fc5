//! Why an instance gave no answer, in words that help a model or a person on.

use std::fmt;

use crate::http::client_error::ClientError;
use crate::metrics;

/// Why an instance gave no answer. `Display` says what to do about it.
#[derive(Debug)]
pub enum UpstreamError {
    Http(ClientError),
    /// It answered with another status than MCP has for this.
    Status(u16),
    /// What it answered is no response to the request.
    NotMcp(&'static str),
    /// It refused the handshake.
    Refused(String),
    /// It asked the client something and got no answer; says what is missing.
    Unanswered(String),
    Cancelled,
}

impl UpstreamError {
    /// The failure as metrics tell it; None where the instance did its part.
    pub fn kind(&self) -> Option<metrics::UpstreamError> {
        Some(match self {
            UpstreamError::Http(ClientError::Connect { .. }) => metrics::UpstreamError::Connect,
            UpstreamError::Http(ClientError::Timeout { .. }) => metrics::UpstreamError::Timeout,
            UpstreamError::Http(ClientError::Closed { .. } | ClientError::Write { .. } | ClientError::Read { .. }) => {
                metrics::UpstreamError::Closed
            }
            UpstreamError::Http(ClientError::TooLarge { .. }) => metrics::UpstreamError::TooLarge,
            UpstreamError::Http(ClientError::Protocol { .. }) | UpstreamError::Status(_) | UpstreamError::NotMcp(_) => {
                metrics::UpstreamError::Protocol
            }
            UpstreamError::Http(ClientError::Request { .. } | ClientError::Cancelled { .. })
            | UpstreamError::Refused(_)
            | UpstreamError::Unanswered(_)
            | UpstreamError::Cancelled => return None,
        })
    }
}

impl From<ClientError> for UpstreamError {
    fn from(error: ClientError) -> UpstreamError {
        match error {
            ClientError::Cancelled { .. } => UpstreamError::Cancelled,
            error => UpstreamError::Http(error),
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamError::Http(ClientError::Timeout { limit, .. }) => write!(
                f,
                "no answer within {} s; the call was cancelled. The application may be busy or hung: look at it, or use another instance (list_dcc_instances)",
                limit.as_secs_f32()
            ),
            UpstreamError::Http(error) => write!(
                f,
                "{error}; it may have ended or be restarting, and the call may have run in part. list_dcc_instances shows what is live"
            ),
            UpstreamError::Status(status) => write!(f, "answered with HTTP status {status}; see its log"),
            UpstreamError::NotMcp(what) => write!(f, "{what}; see its log"),
            UpstreamError::Refused(message) => write!(f, "{message}"),
            UpstreamError::Unanswered(what) => write!(f, "it asked, but the client gave it no {what}"),
            UpstreamError::Cancelled => write!(f, "the call was cancelled"),
        }
    }
}
