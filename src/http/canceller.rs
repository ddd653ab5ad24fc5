//! Ends the wait for a reply from another thread.
//!
//! **Invariant**: a canceller cannot reach the next user of a connection: the reply takes the socket away from it
//! before the connection goes back to the pool.
//! **Thread**: any.
//! **Bounds**: one for each reply that asks for it.
//! Left out on purpose: telling the server. Closing the connection is what HTTP/1.1 has for that.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone)]
pub struct Canceller {
    shared: Arc<Cancel>,
}

struct Cancel {
    is_cancelled: AtomicBool,
    /// Taken away when the reply ends, before its connection can get another user.
    stream: Mutex<Option<Arc<TcpStream>>>,
}

impl Canceller {
    pub fn new(stream: Option<Arc<TcpStream>>) -> Canceller {
        Canceller { shared: Arc::new(Cancel { is_cancelled: AtomicBool::new(false), stream: Mutex::new(stream) }) }
    }

    /// Shuts the connection down; the thread that waits for the reply gets `ClientError::Cancelled`. After the reply
    /// has ended this does nothing.
    pub fn cancel(&self) {
        self.shared.is_cancelled.store(true, Ordering::SeqCst);
        if let Some(stream) = &*self.stream() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled.load(Ordering::SeqCst)
    }

    /// The reply has ended; whoever cancels from now on does nothing.
    pub fn disarm(&self) {
        self.stream().take();
    }

    fn stream(&self) -> MutexGuard<'_, Option<Arc<TcpStream>>> {
        self.shared.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
