//! The built program, run as several processes and talked to over HTTP.
//!
//! Nothing of the library is linked here: what these tests see is what an operator and a client see. Each test has a
//! world of its own: a fresh registry folder, a gateway port that was free, and processes that are killed when it ends.
//! With the engine `tiny-http` the hostile modules at the end are left out; all others pass with both engines.
//! `tidy.rs` is the exception: it reads `src/` and holds it to the rules of `docs/architecture.md`.

mod backend;
#[cfg_attr(feature = "tiny-http", expect(dead_code, reason = "hostile tests alone use parts of it"))]
mod client;
mod folder;
#[cfg_attr(feature = "tiny-http", expect(dead_code, reason = "hostile tests alone use parts of it"))]
mod program;
mod skill;
mod wait;

mod cli;
mod dialog;
mod faults;
mod gateway;
mod handover;
mod hosts;
mod life;
mod names;
mod odd;
mod offer;
mod protocol;
mod registry;
mod replicas;
mod resume;
mod rounds;
mod security;
mod skills;
mod streams;
mod subscribe;
mod takeover;
mod tasks;
mod tidy;
mod transcripts;

// Hostile input: what the engine `tiny-http` is known not to withstand (`docs/decisions/0001-http-engine.md`).
#[cfg(not(feature = "tiny-http"))]
mod bounds;
#[cfg(not(feature = "tiny-http"))]
mod corpus;
#[cfg(not(feature = "tiny-http"))]
mod numbers;
#[cfg(not(feature = "tiny-http"))]
mod times;
