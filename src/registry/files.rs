//! The few file operations that the registry is made of, none of which trusts what it finds.
//!
//! **Invariant**: a file is replaced whole or not at all. Only regular files are read: no link is followed, no FIFO
//! or device is waited for, and a file that grows while it is read is read up to its bound.
//! **Thread**: the caller's. On a network file system any of these may hang; only `scanner` and `heartbeat` wait then.
//! **Bounds**: given by the caller for every reading.
//! Left out on purpose: what the files mean, and locks: no two writers share a file.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::faults::step;
use crate::limits::REPLACE_TRIES_MAX;

/// What tells one version of a file from the next. A new version is another inode, as the old one is still in place
/// while it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

/// Which folder it is: device, inode, and birth where that is known, as inodes are used again at once. Another folder
/// under the same name has lost its files for the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderId(u64, u64, Option<SystemTime>);

/// Why a file was not read.
#[derive(Debug)]
pub enum Unread {
    /// There is none.
    Missing,
    /// A link, a folder, a FIFO …
    NotAFile,
    TooLarge,
    Failed(io::Error),
}

/// Names in a folder, sorted.
#[derive(Debug, Default)]
pub struct Names {
    pub names: Vec<String>,
    /// Names that are not text.
    pub odd: usize,
    /// The folder holds more than were read.
    pub more: bool,
}

impl Stamp {
    /// Time of the last change, in seconds since the epoch, by the file system's clock.
    pub fn modified(&self) -> f64 {
        self.modified.0 as f64 + self.modified.1 as f64 / 1e9
    }

    fn of(metadata: &Metadata) -> Result<Stamp, Unread> {
        if !metadata.is_file() {
            return Err(Unread::NotAFile);
        }
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Ok(Stamp { inode: metadata.ino(), modified, size: metadata.size() })
    }
}

/// Looks at a file without opening it.
pub fn look(path: &Path) -> Result<Stamp, Unread> {
    step("look")?;
    Stamp::of(&fs::symlink_metadata(path)?)
}

/// Reads a whole file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<(Stamp, Vec<u8>), Unread> {
    let file = open(path)?;
    step("look")?;
    let stamp = Stamp::of(&file.metadata()?)?;
    if stamp.size > limit {
        return Err(Unread::TooLarge);
    }
    step("read")?;
    let mut bytes = Vec::with_capacity(stamp.size as usize);
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(Unread::TooLarge) } else { Ok((stamp, bytes)) }
}

/// Reads a file unless it still is the version that is known. One that is missing is looked for again: some file systems
/// lose a file for a moment while it is replaced, between finding its name and looking at it.
pub fn read_if_changed(path: &Path, known: Option<Stamp>, limit: u64) -> Option<Result<(Stamp, Vec<u8>), Unread>> {
    let once = || match look(path) {
        Ok(stamp) if known == Some(stamp) => None,
        Ok(_) => Some(read(path, limit)),
        Err(unread) => Some(Err(unread)),
    };
    match once() {
        Some(Err(Unread::Missing)) => once(),
        other => other,
    }
}

/// Opens what ought to be a regular file; never waits and never follows a link.
pub fn open(path: &Path) -> Result<File, Unread> {
    step("open")?;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?)
}

/// Names in a folder, at most `limit` of them.
pub fn list(folder: &Path, limit: usize) -> io::Result<Names> {
    step("list")?;
    let mut found = Names::default();
    for (count, item) in fs::read_dir(folder)?.enumerate() {
        step("list")?;
        let name = item?.file_name();
        if count == limit {
            found.more = true;
            break;
        }
        match name.into_string() {
            Ok(name) => found.names.push(name),
            Err(_) => found.odd += 1,
        }
    }
    found.names.sort_unstable();
    Ok(found)
}

/// Which folder is there now, if any.
pub fn folder_id(folder: &Path) -> io::Result<Option<FolderId>> {
    step("look")?;
    match fs::metadata(folder) {
        Ok(metadata) => Ok(Some(FolderId(metadata.dev(), metadata.ino(), metadata.created().ok()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts a new version in the place of a file: written beside it, on disk, then renamed. A folder that is missing is made.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut tries = 1;
    loop {
        match replace_once(path, bytes) {
            // Whoever clears away after a process that had our id, and died, has taken what it left half-written for this.
            Err(error) if error.kind() == ErrorKind::NotFound && tries < REPLACE_TRIES_MAX => tries += 1,
            other => return other,
        }
    }
}

fn replace_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_of(path);
    let file = match create(&temporary) {
        // Left over by one who died while writing, or put there by somebody else.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            remove(&temporary)?;
            create(&temporary)?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make_folder(path)?;
            create(&temporary)?
        }
        other => other?,
    };
    let written = fill(file, bytes).and_then(|()| {
        step("rename")?;
        fs::rename(&temporary, path)
    });
    if let Err(error) = written {
        // It holds disk space that may be what is missing.
        let _ = step("remove").and_then(|()| fs::remove_file(&temporary));
        return Err(error);
    }
    sync_folder(path);
    Ok(())
}

/// Removes a file, or a link itself; false if there was none.
pub fn remove(path: &Path) -> io::Result<bool> {
    step("remove")?;
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where the next version of a file is written: always the same name, as each new one is scanned by virus scanners.
pub fn temporary_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}

/// Never opens what is there already: neither a link nor a FIFO in the place of our file gets a byte.
fn create(path: &Path) -> io::Result<File> {
    step("create")?;
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Closes it as soon as it can: each script that starts closes it too, and with a folder that hangs waits for that.
fn fill(mut file: File, bytes: &[u8]) -> io::Result<()> {
    step("write")?;
    file.write_all(bytes)?;
    step("sync")?;
    // Before the rename: else a power cut leaves the new name on a file of NULs.
    file.sync_data()
}

fn make_folder(path: &Path) -> io::Result<()> {
    step("make folder")?;
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Some file systems cannot; the rename is done all the same.
fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent() {
        let _ = step("sync folder").and_then(|()| File::open(folder)).and_then(|folder| folder.sync_all());
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Unread {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT) => Unread::Missing,
            // How a link and a socket answer when they are opened.
            Some(Errno::LOOP | Errno::NXIO) => Unread::NotAFile,
            _ => Unread::Failed(error),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::{faults, os};

    /// A fresh folder, removed at the end.
    pub struct Folder(pub PathBuf);

    impl Folder {
        #[allow(clippy::new_without_default, reason = "it makes a folder")]
        pub fn new() -> Folder {
            let path = std::env::temp_dir().join(format!("dcc-mcp-test-{}", os::uuid_v4()));
            fs::create_dir(&path).expect("a temporary folder can be made");
            Folder(path)
        }
    }

    /// An invented folder, for those who only compare.
    pub fn folder_numbered(number: u64) -> Option<FolderId> {
        Some(FolderId(0, number, None))
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = Folder::new();
        let path = folder.0.join("sub/a.json");
        replace(&path, b"old").expect("the folder is made");
        let operations = faults::with_each_failure(|nth, failing| {
            fs::write(&path, b"old").expect("written");
            let mut outcome = None;
            failing(&mut || outcome = Some(replace(&path, b"new")));
            let expected = if outcome.is_some_and(|outcome| outcome.is_ok()) { b"new" } else { b"old" };
            assert_eq!(fs::read(&path).expect("the file is there"), expected, "operation {nth} failed");
            assert!(!temporary_of(&path).exists(), "operation {nth} failed and left something");
        });
        assert_eq!(operations, 5, "create, write, sync, rename; that the folder is not synced does not matter");
    }

    fn take_away(temporary: PathBuf, times: u32) {
        faults::before("rename", move || {
            fs::remove_file(&temporary).expect("it is being written");
            if times > 1 {
                take_away(temporary, times - 1);
            }
        });
    }

    /// Found by tests/model: a process that was started again under a pinned id ended with "cannot register"; found once more
    /// by tests/chaos, where two of its neighbours cleared away after its former life at the same time.
    #[test]
    fn a_file_that_is_taken_away_while_it_is_written_is_written_again() {
        let folder = Folder::new();
        let path = folder.0.join("a.json");
        take_away(temporary_of(&path), REPLACE_TRIES_MAX - 1);
        replace(&path, b"new").expect("it is written again");
        assert_eq!(fs::read(&path).expect("the file is there"), b"new");

        take_away(temporary_of(&path), REPLACE_TRIES_MAX);
        assert_eq!(
            replace(&path, b"newer").map_err(|error| error.kind()),
            Err(ErrorKind::NotFound),
            "but not for ever"
        );
        assert_eq!(fs::read(&path).expect("the file is there"), b"new");
    }

    #[test]
    fn what_lies_in_the_way_is_not_written_through() {
        let folder = Folder::new();
        let (path, victim) = (folder.0.join("a.json"), folder.0.join("victim"));
        fs::write(&victim, "victim").expect("a file can be written");
        std::os::unix::fs::symlink(&victim, temporary_of(&path)).expect("a link can be made");
        replace(&path, b"new").expect("the link is removed");
        std::os::unix::fs::symlink(&victim, folder.0.join("b.json")).expect("a link can be made");
        replace(&folder.0.join("b.json"), b"new").expect("the link is replaced");
        assert_eq!(fs::read(&victim).expect("still there"), b"victim");
        assert!(look(&folder.0.join("b.json")).is_ok(), "a regular file by now");

        fs::create_dir(temporary_of(&folder.0.join("c.json"))).expect("a folder can be made");
        assert!(replace(&folder.0.join("c.json"), b"new").is_err());
    }
}
