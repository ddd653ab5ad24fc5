//! Who waits for an instance, and what they are told meanwhile.
//!
//! **Invariant**: a client that waits is never left silent for long, and one that is gone is noticed at once.
//! **Thread**: the connection's, or whichever the gateway itself waits on.

use std::io;

use crate::deadline::Deadline;
use crate::endpoint::calls::Ticket;
use crate::endpoint::outlet::{Outlet, Progress};
use crate::gateway::upstream_error::UpstreamError;
use crate::http::reply::{Patience, Reply, Wake};

pub trait Waiting {
    /// Whoever waits can end this reply from now on.
    fn waits_for(&mut self, reply: &Reply);
    fn patience(&self, deadline: Deadline) -> Patience<'_>;
    fn woken(&mut self, wake: &Wake) -> Result<(), UpstreamError>;
    fn relay(&mut self, method: &str, params: Option<&str>, message: &[u8]) -> io::Result<()>;
}

/// The gateway itself waits.
pub struct NoClient;

impl Waiting for NoClient {
    fn waits_for(&mut self, _: &Reply) {}

    fn patience(&self, deadline: Deadline) -> Patience<'_> {
        Patience { deadline, tick: None, watched: None }
    }

    fn woken(&mut self, _: &Wake) -> Result<(), UpstreamError> {
        Ok(())
    }

    fn relay(&mut self, _: &str, _: Option<&str>, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// A client waits, whose connection may break off and must not fall silent.
pub struct Client<'o, 'x, 'c> {
    pub outlet: &'o mut Outlet<'x, 'c>,
    pub progress: Progress,
    pub ticket: &'o Ticket<'o>,
}

impl Waiting for Client<'_, '_, '_> {
    fn waits_for(&mut self, reply: &Reply) {
        let canceller = reply.canceller();
        self.ticket.on_cancel(move || canceller.cancel());
    }

    fn patience(&self, deadline: Deadline) -> Patience<'_> {
        Patience { deadline, tick: Some(self.outlet.keep_alive_due()), watched: self.outlet.socket() }
    }

    fn woken(&mut self, wake: &Wake) -> Result<(), UpstreamError> {
        match wake {
            Wake::Ready => Ok(()),
            Wake::Tick => self.outlet.keep_alive(&mut self.progress).map_err(|_| UpstreamError::Cancelled),
            Wake::WatchedGone => Err(UpstreamError::Cancelled),
        }
    }

    fn relay(&mut self, method: &str, params: Option<&str>, message: &[u8]) -> io::Result<()> {
        if method != "notifications/progress" {
            return self.outlet.notify(message);
        }
        match params.and_then(|params| self.progress.relay(params)) {
            Some(message) => self.outlet.notify(&message),
            None => Ok(()),
        }
    }
}
