//! Whether a descriptor that came from another process is what it is taken for.
//!
//! **Invariant**: what is none, or one of another address, is closed.
//! **Thread**: pure, but for what it asks the kernel.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

/// The descriptor, if it is the only one and a TCP socket that listens at this address.
pub fn one_listener(mut arrived: Vec<OwnedFd>, address: SocketAddr) -> Option<TcpListener> {
    let one = arrived.pop().filter(|_| arrived.is_empty())?;
    listening(one).filter(|listener| listener.local_addr().is_ok_and(|at| at == address))
}

/// The descriptor as the TCP listener that it is, if it is one.
pub fn listening(socket: OwnedFd) -> Option<TcpListener> {
    is_tcp_listener(&socket).then(|| TcpListener::from(socket))
}

/// Whether it is a TCP socket that listens.
#[cfg(target_os = "linux")]
pub fn is_tcp_listener(socket: impl AsFd) -> bool {
    let socket = socket.as_fd();
    let domain = sockopt::socket_domain(socket);
    sockopt::socket_acceptconn(socket) == Ok(true)
        && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
        && (domain == Ok(AddressFamily::INET) || domain == Ok(AddressFamily::INET6))
        && sockopt::socket_protocol(socket) == Ok(Some(ipproto::TCP))
}

/// Asked where sockets are passed, which is on Linux alone.
#[cfg(not(target_os = "linux"))]
pub fn is_tcp_listener(_: impl AsFd) -> bool {
    false
}

#[cfg(all(target_os = "linux", test))]
mod tests {
    use super::*;

    #[test]
    fn one_listener_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let duplicate = || OwnedFd::from(listener.try_clone().expect("a duplicate"));
        assert!(one_listener(vec![duplicate()], address).is_some());
        assert!(one_listener(vec![duplicate(), duplicate()], address).is_none());
        assert!(one_listener(vec![duplicate()], "127.0.0.1:1".parse().expect("an address")).is_none());
        assert!(one_listener(vec![], address).is_none());
    }
}
