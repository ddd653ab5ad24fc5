//! Folders of the tests: fresh for each, removed at its end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;
use std::{env, fs, process};

/// A folder that is gone when this value is.
pub struct TempFolder(PathBuf);

impl TempFolder {
    pub fn new() -> TempFolder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("dcc-mcp-it-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).expect("a fresh folder below the temporary one");
        TempFolder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes a file and the folders above it.
pub fn write(path: &Path, text: impl AsRef<[u8]>) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("the folder of a test file");
    }
    fs::write(path, text).expect("a test file");
}

/// Writes a file as writers of the registry do: beside its place, then renamed over it.
pub fn write_by_rename(path: &Path, text: impl AsRef<[u8]>) {
    write_by_rename_at(path, text, SystemTime::now());
}

/// The same by a clock that says something else.
pub fn write_by_rename_at(path: &Path, text: impl AsRef<[u8]>, modified: SystemTime) {
    let name = path.file_name().expect("a file name").to_string_lossy();
    let temp = path.with_file_name(format!(".{name}.tmp"));
    write(&temp, text);
    let file = fs::File::options().write(true).open(&temp).expect("the file just written");
    file.set_modified(modified).expect("a time that the file system knows");
    fs::rename(&temp, path).expect("rename over the old file");
}
