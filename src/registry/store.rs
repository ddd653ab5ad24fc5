//! The registry folder: one file for each instance and one for its tools, written by that instance alone.
//!
//! ```text
//! <root>/instances/<id>.json    tools/<id>.json    services.json, locks/ (see foreign.rs)
//! ```
//!
//! A scan opens only files that changed since the last one. What is no entry is skipped, counted and logged once; if
//! its name was that of a known entry, the last good version goes on being told, unchanged, and so goes stale by itself.
//!
//! **Invariant**: nothing is removed here but what the caller names, and only while it still is what the caller saw.
//! **Thread**: the caller's; a `Store` has no state but the path.
//! **Bounds**: `FOLDER_NAMES_MAX`, `ENTRIES_MAX`, `ENTRY_BYTES_MAX`, `TOOL_LIST_BYTES_MAX`, `BROKEN_LOGGED_PER_SCAN_MAX`.
//! Left out on purpose: who lives (`registry.rs`).

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::limits::{BROKEN_LOGGED_PER_SCAN_MAX, ENTRIES_MAX, ENTRY_BYTES_MAX, FOLDER_NAMES_MAX, TOOL_LIST_BYTES_MAX};
use crate::logging::Quoted;
use crate::registry::entry::{self, Entry, EntryError, is_instance_id};
use crate::registry::files::{self, FolderId, Names, Stamp, Unread};

#[derive(Clone, Debug)]
pub struct Store {
    root: Arc<Path>,
}

/// What one look at the folder has found.
#[derive(Debug, Default)]
pub struct Scan {
    /// None: there is no folder.
    pub folder: Option<FolderId>,
    /// In the order of their ids.
    pub found: Vec<Found>,
    pub skipped: Skipped,
}

#[derive(Clone, Debug)]
pub struct Found {
    pub entry: Arc<Entry>,
    /// When its file changed last, in seconds since the epoch by the file system's clock.
    pub modified: f64,
    /// False: the file is there but could not be read now; this is what was read last.
    pub readable: bool,
}

/// How many names were passed over in one scan, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    pub names: usize,
    pub not_files: usize,
    pub too_large: usize,
    pub unreadable: usize,
    pub malformed: usize,
    pub newer_schema: usize,
    /// Beyond `FOLDER_NAMES_MAX`, `ENTRIES_MAX`, `INSTANCES_MAX` or `FOREIGN_ROWS_MAX`.
    pub over_limit: usize,
    /// Rows of `services.json`.
    pub foreign: usize,
}

/// What earlier scans have read.
#[derive(Debug, Default)]
pub struct ScanCache {
    slots: HashMap<String, Slot>,
    names_logged: bool,
}

#[derive(Debug, Default)]
struct Slot {
    stamp: Option<Stamp>,
    modified: f64,
    entry: Option<Arc<Entry>>,
    problem: Option<Problem>,
    logged: bool,
}

#[derive(Clone, Debug)]
enum Problem {
    NotAFile,
    TooLarge,
    Unreadable(String),
    Broken(EntryError),
}

#[derive(Debug)]
pub enum StoreError {
    /// The entry, or an id, that was to be written cannot be used.
    Entry(EntryError),
    /// The folder could not be listed.
    Scan {
        path: PathBuf,
        source: io::Error,
    },
    Read {
        path: PathBuf,
        source: io::Error,
    },
    NotAFile {
        path: PathBuf,
    },
    TooLarge {
        path: PathBuf,
        limit: u64,
    },
    Write {
        path: PathBuf,
        source: io::Error,
    },
    Remove {
        path: PathBuf,
        source: io::Error,
    },
}

impl Store {
    /// Touches nothing: folders are made when something is written, again and again if need be.
    pub fn open(root: &Path) -> Store {
        Store { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn write_entry(&self, entry: &Entry) -> Result<(), StoreError> {
        let bytes = entry.encode().map_err(StoreError::Entry)?;
        let path = self.entry_path(&entry.instance_id)?;
        files::replace(&path, &bytes).map_err(|source| StoreError::Write { path, source })
    }

    /// Writes a tool list unless just that one is there.
    pub fn publish_tools(&self, id: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.tools_path(id)?;
        if bytes.len() as u64 > TOOL_LIST_BYTES_MAX {
            return Err(StoreError::TooLarge { path, limit: TOOL_LIST_BYTES_MAX });
        }
        if files::read(&path, TOOL_LIST_BYTES_MAX).is_ok_and(|(_, there)| there == bytes) {
            return Ok(());
        }
        files::replace(&path, bytes).map_err(|source| StoreError::Write { path, source })
    }

    pub fn read_tools(&self, id: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.tools_path(id)?;
        match files::read(&path, TOOL_LIST_BYTES_MAX) {
            Ok((_, bytes)) => Ok(bytes),
            Err(unread) => Err(StoreError::unread(path, unread, TOOL_LIST_BYTES_MAX)),
        }
    }

    /// Whether a tool list is there, without reading it.
    pub fn has_tools(&self, id: &str) -> bool {
        self.tools_path(id).is_ok_and(|path| files::look(&path).is_ok())
    }

    /// Removes the files of an instance, whatever they hold. The entry goes first: what has no entry is not seen.
    pub fn remove(&self, id: &str) -> Result<(), StoreError> {
        let (entry, tools) = (self.entry_path(id)?, self.tools_path(id)?);
        self.remove_files(&[&entry, &tools, &files::temporary_of(&entry), &files::temporary_of(&tools)])
    }

    /// Removes our own files at the end, unless another process has taken the id over.
    pub fn remove_own(&self, own: &Entry) -> Result<(), StoreError> {
        match self.read_entry(&own.instance_id)? {
            Some(there) if !there.has_same_owner(own) => Ok(()),
            _ => self.remove(&own.instance_id),
        }
    }

    /// Removes the files of one that is dead, if they still are what its observer saw; false if they are not. The entry
    /// goes last, so that a removal that fails half-way is taken up again, and is looked at once more just before: on a slow
    /// file system, or in a process that was paused here, its owner may have come back meanwhile.
    pub fn remove_dead(&self, seen: &Entry) -> Result<bool, StoreError> {
        let id = &seen.instance_id;
        let (entry, tools) = (self.entry_path(id)?, self.tools_path(id)?);
        if !self.is_still(seen)? {
            return Ok(false);
        }
        self.remove_files(&[&files::temporary_of(&entry), &files::temporary_of(&tools), &tools])?;
        if !self.is_still(seen)? {
            return Ok(false);
        }
        self.remove_files(&[&entry])?;
        Ok(true)
    }

    fn is_still(&self, seen: &Entry) -> Result<bool, StoreError> {
        Ok(self.read_entry(&seen.instance_id)?.is_some_and(|there| there.is_same_beat(seen)))
    }

    /// Looks at the whole folder. An error means that nothing is known, not that nobody is there.
    pub fn scan(&self, cache: &mut ScanCache) -> Result<Scan, StoreError> {
        let folder = self.root.join("instances");
        let failed = |source| StoreError::Scan { path: folder.clone(), source };
        let names = list(&folder).map_err(failed)?;
        let mut scan = Scan::default();
        scan.skipped.names = names.odd;
        scan.skipped.over_limit = usize::from(names.more);
        let mut ids = BTreeSet::new();
        for name in names.names {
            match name.strip_suffix(".json").filter(|stem| is_instance_id(stem)) {
                Some(stem) => drop(ids.insert(stem.to_owned())),
                None if name.starts_with('.') && name.ends_with(".tmp") => {}
                None => scan.skipped.names += 1,
            }
        }
        // Some file systems leave a name out of a listing while its file is being replaced: ask for it by name.
        ids.extend(cache.slots.keys().cloned());
        cache.update(&folder, ids, &mut scan);
        // Last: whoever went missing because the folder was taken away meanwhile must be seen to have gone with it.
        scan.folder = files::folder_id(&folder).map_err(failed)?;
        cache.log_new(&folder, scan.skipped.names);
        Ok(scan)
    }

    /// The entry of one instance, if there is one that can be understood.
    pub fn read_entry(&self, id: &str) -> Result<Option<Entry>, StoreError> {
        let path = self.entry_path(id)?;
        match files::read(&path, ENTRY_BYTES_MAX) {
            Ok((_, bytes)) => Ok(entry::parse(&bytes, id).ok()),
            Err(Unread::Failed(source)) => Err(StoreError::Read { path, source }),
            Err(Unread::Missing | Unread::NotAFile | Unread::TooLarge) => Ok(None),
        }
    }

    fn remove_files(&self, paths: &[&Path]) -> Result<(), StoreError> {
        for path in paths {
            files::remove(path).map_err(|source| StoreError::Remove { path: path.to_path_buf(), source })?;
        }
        Ok(())
    }

    fn entry_path(&self, id: &str) -> Result<PathBuf, StoreError> {
        self.path("instances", id)
    }

    fn tools_path(&self, id: &str) -> Result<PathBuf, StoreError> {
        self.path("tools", id)
    }

    fn path(&self, folder: &str, id: &str) -> Result<PathBuf, StoreError> {
        if !is_instance_id(id) {
            return Err(StoreError::Entry(EntryError::Field("instance_id")));
        }
        Ok(self.root.join(folder).join(format!("{id}.json")))
    }
}

/// A folder that is not there is empty; its instances may be about to make it again (`registry.rs`).
fn list(folder: &Path) -> io::Result<Names> {
    match files::list(folder, FOLDER_NAMES_MAX) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Names::default()),
        other => other,
    }
}

impl ScanCache {
    fn update(&mut self, folder: &Path, ids: BTreeSet<String>, scan: &mut Scan) {
        let mut old = std::mem::take(&mut self.slots);
        for id in ids {
            if scan.found.len() == ENTRIES_MAX {
                scan.skipped.over_limit += 1;
                continue;
            }
            let mut slot = old.remove(&id).unwrap_or_default();
            if !slot.refresh(&folder.join(format!("{id}.json")), &id) {
                continue;
            }
            if let Some(problem) = &slot.problem {
                scan.skipped.count(problem);
            }
            if let Some(entry) = &slot.entry {
                let readable = !matches!(slot.problem, Some(Problem::Unreadable(_)));
                scan.found.push(Found { entry: entry.clone(), modified: slot.modified, readable });
            }
            self.slots.insert(id, slot);
        }
    }

    /// One line for each file that is found broken, up to a limit, and one for all the others.
    fn log_new(&mut self, folder: &Path, odd_names: usize) {
        let mut count = 0;
        for (id, slot) in &mut self.slots {
            let Some(problem) = slot.problem.as_ref().filter(|_| !slot.logged) else { continue };
            slot.logged = true;
            count += 1;
            if count <= BROKEN_LOGGED_PER_SCAN_MAX {
                let path = folder.join(format!("{id}.json"));
                let (path, reason) = (Quoted(&path.display()).to_string(), Quoted(problem));
                log::warn!("event=registry_file_skipped path={path} reason={reason}");
            }
        }
        if count > BROKEN_LOGGED_PER_SCAN_MAX {
            log::warn!("event=registry_files_skipped count={} named={BROKEN_LOGGED_PER_SCAN_MAX}", count);
        }
        if odd_names > 0 && !self.names_logged {
            log::warn!("event=other_files path={} count={odd_names}", Quoted(&folder.display()));
        }
        self.names_logged = odd_names > 0;
    }
}

impl Slot {
    /// Reads the file if it changed; false if there is none.
    fn refresh(&mut self, path: &Path, id: &str) -> bool {
        let Some(read) = files::read_if_changed(path, self.stamp, ENTRY_BYTES_MAX) else { return true };
        // Set only by a file that was read: all else is looked at again.
        self.stamp = None;
        match read {
            Ok((stamp, bytes)) => {
                self.stamp = Some(stamp);
                self.take(entry::parse(&bytes, id), stamp);
            }
            Err(Unread::Missing) => return false,
            Err(Unread::NotAFile) => self.problem = Some(Problem::NotAFile),
            Err(Unread::TooLarge) => self.problem = Some(Problem::TooLarge),
            Err(Unread::Failed(error)) => self.problem = Some(Problem::Unreadable(error.to_string())),
        }
        true
    }

    fn take(&mut self, parsed: Result<Entry, EntryError>, stamp: Stamp) {
        match parsed {
            Ok(entry) => {
                let entry = Some(Arc::new(entry));
                *self = Slot { stamp: Some(stamp), modified: stamp.modified(), entry, ..Slot::default() };
            }
            Err(error) => {
                if matches!(error, EntryError::NewerSchema(_)) {
                    // It is whole and its owner lives by other rules: not ours to show.
                    self.entry = None;
                }
                self.problem = Some(Problem::Broken(error));
            }
        }
    }
}

impl Skipped {
    fn count(&mut self, problem: &Problem) {
        let counter = match problem {
            Problem::NotAFile => &mut self.not_files,
            Problem::TooLarge => &mut self.too_large,
            Problem::Unreadable(_) => &mut self.unreadable,
            Problem::Broken(EntryError::NewerSchema(_)) => &mut self.newer_schema,
            Problem::Broken(_) => &mut self.malformed,
        };
        *counter += 1;
    }
}

impl StoreError {
    fn unread(path: PathBuf, unread: Unread, limit: u64) -> StoreError {
        match unread {
            Unread::Missing => StoreError::Read { path, source: ErrorKind::NotFound.into() },
            Unread::NotAFile => StoreError::NotAFile { path },
            Unread::TooLarge => StoreError::TooLarge { path, limit },
            Unread::Failed(source) => StoreError::Read { path, source },
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NotAFile => f.write_str("not a regular file"),
            Problem::TooLarge => write!(f, "larger than {ENTRY_BYTES_MAX} bytes"),
            Problem::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Problem::Broken(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Entry(error) => write!(f, "entry: {error}"),
            StoreError::Scan { path, source } => write!(f, "cannot list {}: {source}", path.display()),
            StoreError::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            StoreError::NotAFile { path } => write!(f, "{} is not a regular file", path.display()),
            StoreError::TooLarge { path, limit } => write!(f, "{} is larger than {limit} bytes", path.display()),
            StoreError::Write { path, source } => write!(f, "cannot write {}: {source}", path.display()),
            StoreError::Remove { path, source } => write!(f, "cannot remove {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for StoreError {}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::faults;
    use crate::registry::entry::tests::sample;
    use crate::registry::files::tests::Folder;

    fn ids(scan: &Scan) -> Vec<&str> {
        scan.found.iter().map(|found| found.entry.instance_id.as_str()).collect()
    }

    fn scan(store: &Store, cache: &mut ScanCache) -> Scan {
        store.scan(cache).expect("the folder can be read")
    }

    #[test]
    fn a_folder_full_of_everything() {
        let folder = Folder::new();
        let store = Store::open(&folder.0);
        store.write_entry(&sample("good")).expect("an entry can be written");
        let place = |name: &str| folder.0.join("instances").join(name);
        let good = fs::read(place("good.json")).expect("it is there");
        let text = String::from_utf8(good.clone()).expect("JSON is text");
        fs::write(place("torn.json"), &good[..good.len() / 2]).expect("written");
        fs::write(place("nul.json"), vec![0; good.len()]).expect("written");
        fs::write(place("empty.json"), "").expect("written");
        fs::write(place("huge.json"), vec![b' '; ENTRY_BYTES_MAX as usize + 1]).expect("written");
        fs::write(place("other.json"), &good).expect("written");
        fs::write(place("newer.json"), text.replace("\"schema\":1", "\"schema\":2")).expect("written");
        fs::write(place("junk.txt"), "junk").expect("written");
        fs::write(place("a b.json"), "junk").expect("written");
        fs::write(place(".good.json.tmp"), "half").expect("written");
        fs::create_dir(place("folder.json")).expect("made");
        symlink(place("good.json"), place("link.json")).expect("made");
        assert!(std::process::Command::new("mkfifo").arg(place("fifo.json")).status().expect("mkfifo runs").success());
        let names = || fs::read_dir(folder.0.join("instances")).expect("readable").count();
        let before = names();

        let mut cache = ScanCache::default();
        let first = scan(&store, &mut cache);
        assert_eq!(ids(&first), ["good"]);
        let expected = Skipped {
            names: 2,
            not_files: 3,
            too_large: 1,
            unreadable: 0,
            malformed: 4,
            newer_schema: 1,
            over_limit: 0,
            foreign: 0,
        };
        assert_eq!(first.skipped, expected);
        let second = scan(&store, &mut cache);
        assert_eq!(second.skipped, expected);
        assert!(Arc::ptr_eq(&first.found[0].entry, &second.found[0].entry), "not read again");
        assert_eq!(names(), before, "nothing was removed");
        assert!(store.read_tools("good").is_err() && store.read_tools("../good").is_err());
    }

    #[test]
    fn a_known_entry_survives_what_happens_to_its_file() {
        let folder = Folder::new();
        let store = Store::open(&folder.0);
        let path = folder.0.join("instances/a.json");
        let mut cache = ScanCache::default();
        assert_eq!(scan(&store, &mut cache).folder, None, "no folder is no error");
        let mut entry = sample("a");
        store.write_entry(&entry).expect("an entry can be written");
        assert_eq!(ids(&scan(&store, &mut cache)), ["a"]);

        fs::write(&path, [0; 100]).expect("written");
        let torn = scan(&store, &mut cache);
        assert_eq!((ids(&torn), torn.skipped.malformed, torn.found[0].readable), (vec!["a"], 1, true));
        entry.heartbeat.seq += 1;
        store.write_entry(&entry).expect("its owner writes it again");
        let mended = scan(&store, &mut cache);
        assert_eq!((mended.found[0].entry.heartbeat.seq, mended.skipped.malformed), (8, 0));

        assert!(faults::with_failure(3, || {
            let unreadable = scan(&store, &mut cache);
            assert_eq!((unreadable.found[0].readable, unreadable.skipped.unreadable), (false, 1));
        }));
        let (there, away) = (path.clone(), folder.0.join("away"));
        faults::before("look", move || {
            fs::rename(&there, &away).expect("a file system loses it");
            faults::before("look", move || fs::rename(away, there).expect("and has it again"));
        });
        let found = scan(&store, &mut cache);
        assert!(found.found[0].readable, "missing for a moment, just after it could not be read");

        fs::write(&path, br#"{"schema":2}"#).expect("written");
        assert!(ids(&scan(&store, &mut cache)).is_empty(), "a newer form is another's to show");
        fs::remove_file(&path).expect("removed");
        assert!(ids(&scan(&store, &mut cache)).is_empty());
    }

    #[test]
    fn a_scan_that_fails_says_so() {
        let folder = Folder::new();
        let store = Store::open(&folder.0);
        store.write_entry(&sample("a")).expect("an entry can be written");
        for nth in [1, 2, 7] {
            let mut cache = ScanCache::default();
            assert!(faults::with_failure(nth, || assert!(store.scan(&mut cache).is_err())));
        }
    }

    #[test]
    fn only_what_is_still_as_it_was_seen_is_removed() {
        let folder = Folder::new();
        let store = Store::open(&folder.0);
        let seen = sample("a");
        let beaten = Entry { heartbeat: entry::Beat { seq: 8, at: 0.0 }, ..seen.clone() };
        let restarted = Entry { pid: 4, ..seen.clone() };
        store.publish_tools("a", b"[]").expect("a list can be written");
        for there in [&beaten, &restarted] {
            store.write_entry(there).expect("an entry can be written");
            assert!(!store.remove_dead(&seen).expect("readable"));
            assert!(store.has_tools("a"));
        }
        store.remove_own(&seen).expect("readable");
        assert_eq!(store.read_entry("a").expect("readable"), Some(restarted), "a successor with the same id stays");

        store.write_entry(&seen).expect("an entry can be written");
        let operations = faults::with_each_failure(|nth, failing| {
            let mut outcome = None;
            if failing(&mut || outcome = Some(store.remove_dead(&seen))) {
                assert!(outcome.is_some_and(|outcome| outcome.is_err()), "operation {nth} is told");
                assert_eq!(
                    store.read_entry("a").expect("readable").as_ref(),
                    Some(&seen),
                    "taken up again after {nth}"
                );
            }
        });
        assert_eq!(operations, 10, "two looks of three operations, four removals");
        store.publish_tools("a", b"[]").expect("a list can be written");
        store.write_entry(&seen).expect("an entry can be written");
        assert!(store.remove_dead(&seen).expect("readable"));
        assert!(store.read_entry("a").expect("readable").is_none() && !store.has_tools("a"));
    }

    #[test]
    fn tools_are_written_when_they_change() {
        let folder = Folder::new();
        let store = Store::open(&folder.0);
        let stamp = || files::look(&folder.0.join("tools/a.json")).ok();
        store.publish_tools("a", b"[1]").expect("written");
        let first = stamp();
        store.publish_tools("a", b"[1]").expect("not written");
        assert_eq!(stamp(), first);
        store.publish_tools("a", b"[2]").expect("written");
        assert_ne!(stamp(), first);
        assert_eq!(store.read_tools("a").expect("readable"), b"[2]");
        let huge = vec![b' '; TOOL_LIST_BYTES_MAX as usize + 1];
        assert!(matches!(store.publish_tools("a", &huge), Err(StoreError::TooLarge { .. })));
    }

    #[test]
    fn ten_thousand_junk_files_are_read_once() {
        let folder = Folder::new();
        let store = Store::open(&folder.0);
        store.write_entry(&sample("good")).expect("an entry can be written");
        for number in 0..10_000 {
            fs::write(folder.0.join(format!("instances/junk-{number}.json")), "junk").expect("written");
        }
        let mut cache = ScanCache::default();
        for _ in 0..2 {
            let scan = scan(&store, &mut cache);
            assert_eq!((ids(&scan), scan.skipped.malformed), (vec!["good"], 10_000));
        }
        assert!(cache.slots.values().all(|slot| slot.stamp.is_some()));
    }
}
