//! What must hold for whatever bytes reach a parser: one check for each of them.
//!
//! The fuzz targets call the checks with what libFuzzer thinks of, `main.rs` with the seeds in `corpus/`.
//!
//! **Invariant**: a check panics if something does not hold; otherwise it says whether the parser took the input. The
//! same input gives the same outcome, always.
//! Left out on purpose: time and memory, which libFuzzer bounds from outside (`run.sh`).

pub mod chunked;
pub mod head;
pub mod jsonrpc;
pub mod registry;
pub mod skill;
pub mod sse;

use dcc_mcp_server::hash::fnv64;

/// A check, under the name of its fuzz target and of its folder in `corpus/`.
pub struct Target {
    pub name: &'static str,
    pub check: fn(&[u8]) -> bool,
}

pub const TARGETS: [Target; 7] = [
    Target { name: "request_head", check: head::request },
    Target { name: "response_head", check: head::response },
    Target { name: "chunked", check: chunked::body },
    Target { name: "sse", check: sse::stream },
    Target { name: "jsonrpc", check: jsonrpc::body },
    Target { name: "skill", check: skill::skill_md },
    Target { name: "registry", check: registry::entry },
];

/// Places to split a long input at; all places of a short one are among them.
const SPLITS_MAX: usize = 32;

/// The input in two parts, split at up to `SPLITS_MAX` places. Other inputs are split at other places.
fn splits(input: &[u8]) -> impl Iterator<Item = [&[u8]; 2]> {
    let step = input.len() / SPLITS_MAX + 1;
    let first = usize::try_from(fnv64(input) % step as u64).unwrap_or(0);
    (first..=input.len()).step_by(step).map(|at| [&input[..at], &input[at..]])
}
