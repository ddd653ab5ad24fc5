//! Why the program could not start, or had to end, and its exit codes, which are part of the command line's contract.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug)]
pub enum AppError {
    Log(String),
    TokenFile(PathBuf, io::Error),
    Bind(SocketAddr, io::Error),
    NoAnswer(SocketAddr),
    Register(String),
    Thread(io::Error),
    Version(String),
    /// A socket of the service manager, and what is wrong with it.
    Given(&'static str, String),
    ListenerLost(SocketAddr),
}

impl AppError {
    pub fn exit_code(&self) -> u8 {
        match self {
            AppError::Log(_) | AppError::TokenFile(..) | AppError::Version(_) | AppError::Given(..) => 2,
            AppError::Bind(..) | AppError::NoAnswer(_) | AppError::Register(_) => 3,
            AppError::ListenerLost(_) => 4,
            AppError::Thread(_) => 5,
        }
    }
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppError::Log(error) => write!(f, "logging cannot start: {error}"),
            AppError::TokenFile(file, error) => write!(f, "the token file {} cannot be used: {error}", file.display()),
            AppError::Bind(address, error) => {
                write!(f, "{address} cannot be bound: {error}; see --host and --mcp-port")
            }
            AppError::NoAnswer(address) => write!(f, "{address} is bound, but does not answer"),
            AppError::Register(error) => write!(f, "cannot register: {error}; see --registry-dir"),
            AppError::Thread(error) => write!(f, "a thread cannot be started: {error}"),
            AppError::Given(name, wrong) => write!(f, "the socket {name} of LISTEN_FDS {wrong}"),
            AppError::Version(version) => write!(f, "{version} is no version"),
            AppError::ListenerLost(address) => write!(f, "the listener at {address} does not answer any more"),
        }
    }
}
