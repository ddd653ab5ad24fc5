pub mod arguments;
pub mod child;
pub mod discover;
pub mod document;
pub mod entry;
pub mod files;
pub mod manifest;
pub mod outcome;
pub mod run;
pub mod search;
pub mod set;
pub mod shelf;
#[cfg(test)]
mod testing;
pub mod yaml;
