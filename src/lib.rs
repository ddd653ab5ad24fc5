//! One MCP endpoint over every live DCC instance. The modules below are in reading order, which is also the order of
//! the layers: a file uses only files above it. `docs/architecture.md` tells the story.

// A panic ends the process (`logging.rs`). Not in Cargo.toml, since tests panic as they like.
#![cfg_attr(
    not(test),
    deny(clippy::panic, clippy::unreachable, clippy::todo, clippy::unimplemented, clippy::string_slice)
)]

pub mod backoff;
pub mod base64;
pub mod deadline;
pub mod faults;
pub mod hash;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod os;
pub mod places;
pub mod throttle;
pub mod version;
pub mod worker;

pub mod json;
pub mod jsonrpc;
pub mod mcp;

pub mod http;
pub mod registry;

pub mod heartbeat;
pub mod hub;
pub mod scanner;
pub mod session;
pub mod skills;
pub mod subscriptions;

pub mod election;
pub mod endpoint;
pub mod front;
pub mod status;

pub mod gateway;
pub mod instance;
pub mod talk;
pub mod tasks;

pub mod config;
pub mod query;

pub mod app;
