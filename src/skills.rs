pub mod entry;
pub mod files;
pub mod manifest;
#[cfg(test)]
mod testing;
pub mod yaml;
