//! The built program, run as several processes and talked to over HTTP.
//!
//! Nothing of the library is linked here: what these tests see is what an operator and a client see. Each test has a
//! world of its own: a fresh registry folder, a gateway port that was free, and processes that are killed when it ends.
//! `tidy.rs` is the exception: it reads `src/` and holds it to the rules of `docs/architecture.md`.

mod backend;
mod client;
mod folder;
mod program;
mod skill;
mod wait;

mod bounds;
mod cli;
mod corpus;
mod gateway;
mod life;
mod names;
mod numbers;
mod protocol;
mod registry;
mod security;
mod skills;
mod streams;
mod tidy;
mod times;
mod transcripts;
