//! One MCP endpoint over every live DCC instance. The modules below are in reading order, which is also the order of
//! the layers: a file uses only files above it, and `tests/it/tidy.rs` checks that. `docs/architecture.md` tells the story.

pub mod deadline;
pub mod hash;
pub mod limits;
pub mod worker;

pub mod jsonrpc;
pub mod mcp;
