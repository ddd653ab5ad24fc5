//! The rotating log file of one process, in a folder that many processes may share.
//!
//! The file being written is `dcc-mcp-server.<name>.log`; `.log.1` is the one before it, and so on. It is locked
//! (`flock`) for as long as its process lives, so that nobody else writes into it and everybody can tell which files
//! belong to the dead: of those, the newest are kept, as many as a process keeps of its own.
//!
//! **Invariant**: only regular files whose names have exactly this form are ever renamed or removed. A trouble with the
//! folder never fails or stops a caller.
//! **Thread**: any, one at a time, under the logger's lock.
//! **Bounds**: size and number by flag; `FOLDER_NAMES_MAX` names are looked at; after a failure no file operation for
//! `LOG_RETRY_EVERY`.
//! Left out on purpose: compressing, and syncing to disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::FileConfig;
use super::line::utc_day;
use crate::faults::step;
use crate::limits::{FOLDER_NAMES_MAX, LOG_NAMES_MAX, LOG_RETRY_EVERY};

const PREFIX: &str = "dcc-mcp-server.";

pub struct RotatingFile {
    config: FileConfig,
    state: State,
    lost: u64,
}

enum State {
    /// Not tried yet, or to be opened anew.
    Unopened,
    Open(Live),
    Failed {
        until: Instant,
    },
}

struct Live {
    file: File,
    path: PathBuf,
    bytes: u64,
    day: u64,
}

/// What came of a line.
#[derive(Debug)]
pub enum Written {
    Yes,
    /// The first line after a failure, which has cost this many.
    Again(u64),
    /// The first failure of a row.
    FailedNow(io::Error),
    StillFailed,
}

impl RotatingFile {
    pub fn new(config: FileConfig) -> RotatingFile {
        RotatingFile { config, state: State::Unopened, lost: 0 }
    }

    /// Writes one line and its end.
    pub fn write(&mut self, line: &str, at: SystemTime, now: Instant) -> Written {
        if matches!(self.state, State::Failed { until } if now < until) {
            self.lost += 1;
            return Written::StillFailed;
        }
        let had_failed = matches!(self.state, State::Failed { .. });
        match self.try_write(line, utc_day(at)) {
            Ok(()) if had_failed => Written::Again(std::mem::take(&mut self.lost)),
            Ok(()) => Written::Yes,
            Err(error) => {
                self.state = State::Failed { until: now + LOG_RETRY_EVERY };
                self.lost += 1;
                if had_failed { Written::StillFailed } else { Written::FailedNow(error) }
            }
        }
    }

    /// Lets go of the file, which somebody may have moved, and opens it by its name at the next line.
    pub fn reopen(&mut self) {
        self.state = State::Unopened;
    }

    pub fn folder(&self) -> &Path {
        &self.config.folder
    }

    fn try_write(&mut self, line: &str, today: u64) -> io::Result<()> {
        let mut live = match std::mem::replace(&mut self.state, State::Unopened) {
            State::Open(live) => live,
            _ => open(&self.config, today)?,
        };
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        if rotation_is_due(live.bytes, live.day, bytes.len() as u64, today, self.config.bytes_max) {
            rotate(&live.path, self.config.files_max)?;
            live = open(&self.config, today)?;
        }
        // One call for the whole line, so that a killed process leaves whole lines.
        step("write")?;
        live.file.write_all(&bytes)?;
        live.bytes += bytes.len() as u64;
        self.state = State::Open(live);
        Ok(())
    }
}

/// A file is full when the next line would exceed its size, and old when its day (UTC) is over. A clock that is set
/// back does not rotate.
fn rotation_is_due(bytes: u64, day: u64, line: u64, today: u64, bytes_max: u64) -> bool {
    bytes > 0 && (bytes + line > bytes_max || today > day)
}

/// Moves every file one number up; the last is overwritten or removed.
fn rotate(path: &Path, files_max: usize) -> io::Result<()> {
    if files_max <= 1 {
        step("remove")?;
        return fs::remove_file(path);
    }
    for number in (0..files_max - 1).rev() {
        step("rename")?;
        match fs::rename(numbered(path, number), numbered(path, number + 1)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if number > 0 {
        name.push(format!(".{number}"));
    }
    PathBuf::from(name)
}

/// Opens the file of the first name that nobody else holds, and removes what is too old in the folder.
fn open(config: &FileConfig, today: u64) -> io::Result<Live> {
    step("make folder")?;
    DirBuilder::new().recursive(true).mode(0o750).create(&config.folder)?;
    for attempt in 1..=LOG_NAMES_MAX {
        let name = match attempt {
            1 => config.name.clone(),
            _ => format!("{}-{attempt}", config.name),
        };
        let path = config.folder.join(format!("{PREFIX}{name}.log"));
        if let Some(live) = open_and_lock(&path, today)? {
            prune(&config.folder, &name, config.files_max);
            return Ok(live);
        }
    }
    Err(io::Error::new(ErrorKind::WouldBlock, "other processes write to all files of this name"))
}

/// None if another process holds the file.
fn open_and_lock(path: &Path, today: u64) -> io::Result<Option<Live>> {
    // NONBLOCK and NOFOLLOW: in a folder that others may write to, the name could be a pipe or lead elsewhere.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o640).custom_flags(flags);
    step("open")?;
    let mut file = options.open(path)?;
    step("look")?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "the log file is not a regular file"));
    }
    if step("lock").is_err() || flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    // Between opening and locking, another process may have removed the file as one of the dead.
    if fs::symlink_metadata(path).map_or(true, |found| (found.dev(), found.ino()) != (facts.dev(), facts.ino())) {
        return Ok(None);
    }
    let mut bytes = file.metadata()?.len();
    if bytes > 0 && last_byte(&mut file)? != b'\n' {
        step("write")?;
        file.write_all(b"\n")?;
        bytes += 1;
    }
    let day = if bytes == 0 { today } else { facts.modified().map_or(today, utc_day) };
    Ok(Some(Live { file, path: path.to_owned(), bytes, day }))
}

/// A disk that was full, or a kill, can have left half a line.
fn last_byte(file: &mut File) -> io::Result<u8> {
    let mut byte = [0];
    step("read")?;
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// A file of this form in the folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    modified: SystemTime,
    file_name: String,
}

/// Removes own files beyond the count, and the oldest of the dead. What fails is left for the next time.
fn prune(dir: &Path, own: &str, files_max: usize) {
    let Ok(entries) = step("list").and_then(|()| fs::read_dir(dir)) else { return };
    let mut dead = Vec::new();
    // The locks are held until all is done, so that no process starts to write to a file that is about to go.
    let mut locks = Vec::new();
    let mut known: Vec<(String, bool)> = Vec::new();
    for entry in entries.take(FOLDER_NAMES_MAX).flatten() {
        let Some(file_name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let Some((name, number)) = name_and_number(&file_name) else { continue };
        let Ok(facts) = step("look").and_then(|()| entry.metadata()) else { continue };
        if !facts.is_file() {
            continue;
        }
        if name == own {
            if number >= files_max {
                let _ = step("remove").and_then(|()| fs::remove_file(entry.path()));
            }
            continue;
        }
        let is_dead = match known.iter().find(|(known, _)| known == name) {
            Some((_, is_dead)) => *is_dead,
            None => {
                let is_dead = is_unlocked(&dir.join(format!("{PREFIX}{name}.log")), &mut locks);
                known.push((name.to_owned(), is_dead));
                is_dead
            }
        };
        if is_dead {
            dead.push(Found { modified: facts.modified().unwrap_or(SystemTime::UNIX_EPOCH), file_name });
        }
    }
    for found in surplus(dead, files_max) {
        let _ = step("remove").and_then(|()| fs::remove_file(dir.join(found.file_name)));
    }
}

/// All but the newest.
fn surplus(mut files: Vec<Found>, keep: usize) -> Vec<Found> {
    files.sort();
    files.truncate(files.len().saturating_sub(keep));
    files
}

/// `dcc-mcp-server.<name>.log` or `….log.<number>` with a number that we would write.
fn name_and_number(file_name: &str) -> Option<(&str, usize)> {
    let rest = file_name.strip_prefix(PREFIX)?;
    let (name, number) = match rest.strip_suffix(".log") {
        Some(name) => (name, 0),
        None => {
            let (name, digits) = rest.split_once(".log.")?;
            let plain =
                digits.len() <= 6 && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
            (name, digits.parse().ok().filter(|_| plain)?)
        }
    };
    is_name(name).then_some((name, number))
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Whether no process holds the file; then we do, by what is put into `locks`.
fn is_unlocked(path: &Path, locks: &mut Vec<File>) -> bool {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    match step("open").and_then(|()| OpenOptions::new().read(true).custom_flags(flags).open(path)) {
        Ok(file) => {
            let unlocked = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            if unlocked {
                locks.push(file);
            }
            unlocked
        }
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::faults;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("dcc-mcp-log-test-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        fn text(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }

        fn log(&self, name: &str, bytes_max: u64, files_max: usize) -> RotatingFile {
            RotatingFile::new(FileConfig { folder: self.0.clone(), name: name.to_owned(), bytes_max, files_max })
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_folder_need_not_be_utf8() {
        let folder = Folder::new("bytes");
        let odd = folder.0.join(OsStr::from_bytes(b"\xff"));
        let name = "a".to_owned();
        let mut log = RotatingFile::new(FileConfig { folder: odd.clone(), name, bytes_max: 100, files_max: 3 });
        for number in 0..9 {
            write(&mut log, &format!("{number} {}", "x".repeat(60)));
        }
        assert_eq!(fs::read_dir(&odd).unwrap().count(), 3);
    }

    /// Writes today, which must succeed.
    fn write(log: &mut RotatingFile, line: &str) {
        let written = log.write(line, SystemTime::now(), Instant::now());
        assert!(matches!(written, Written::Yes), "{written:?}");
    }

    #[test]
    fn rotation_table() {
        for (bytes, day, line, today, due) in [
            (0, 5, 10, 5, false),
            (0, 5, 1000, 5, false),
            (0, 5, 10, 6, false),
            (90, 5, 10, 5, false),
            (90, 5, 11, 5, true),
            (100, 5, 1, 5, true),
            (1, 5, 1, 6, true),
            (1, 5, 1, 4, false),
        ] {
            assert_eq!(rotation_is_due(bytes, day, line, today, 100), due, "{bytes} {day} {line} {today}");
        }
    }

    #[test]
    fn names_of_ours() {
        for (name, expected) in [
            ("dcc-mcp-server.1f2e3d4c.log", Some(("1f2e3d4c", 0))),
            ("dcc-mcp-server.77-2.log.12", Some(("77-2", 12))),
            ("dcc-mcp-server..log", None),
            ("dcc-mcp-server.a.log.", None),
            ("dcc-mcp-server.a.log.0", None),
            ("dcc-mcp-server.a.log.+1", None),
            ("dcc-mcp-server.a.log.1.gz", None),
            ("dcc-mcp-server.a.b.log", None),
            ("dcc-mcp-server.a.txt", None),
            ("dcc-mcp-server.log", None),
            ("maya.log", None),
        ] {
            assert_eq!(name_and_number(name), expected, "{name}");
        }
    }

    #[test]
    fn surplus_keeps_the_newest() {
        let file = |second: u64| Found {
            modified: UNIX_EPOCH + Duration::from_secs(second),
            file_name: format!("dcc-mcp-server.{second}.log"),
        };
        assert_eq!(surplus(vec![file(3), file(1), file(2)], 2), [file(1)]);
        assert_eq!(surplus(vec![file(3), file(1)], 2), []);
        assert_eq!(surplus(vec![file(3), file(1)], 0), [file(1), file(3)]);
    }

    #[test]
    fn rotates_by_size_and_keeps_the_count() {
        let folder = Folder::new("size");
        fs::write(folder.0.join("dcc-mcp-server.me.log.9"), "from a time with more files").unwrap();
        let mut log = folder.log("me", 8, 3);
        for line in ["one", "two", "three", "four", "five-is-longer-than-a-file", "six"] {
            write(&mut log, line);
        }
        let live = "dcc-mcp-server.me.log";
        assert_eq!(folder.names(), [live, "dcc-mcp-server.me.log.1", "dcc-mcp-server.me.log.2"]);
        assert_eq!(folder.text(live), "six\n");
        assert_eq!(folder.text("dcc-mcp-server.me.log.1"), "five-is-longer-than-a-file\n");
        assert_eq!(folder.text("dcc-mcp-server.me.log.2"), "four\n");
        let mut only = folder.log("only", 8, 1);
        write(&mut only, "12345");
        write(&mut only, "6789");
        assert_eq!(folder.text("dcc-mcp-server.only.log"), "6789\n");
    }

    #[test]
    fn rotates_by_day() {
        let folder = Folder::new("day");
        let mut log = folder.log("me", 1000, 7);
        let day = |number: u64| UNIX_EPOCH + Duration::from_secs(number * 86_400);
        for (line, at) in [("a", day(5)), ("b", day(6) - Duration::from_millis(1)), ("c", day(6)), ("d", day(5))] {
            assert!(matches!(log.write(line, at, Instant::now()), Written::Yes));
        }
        assert_eq!(folder.text("dcc-mcp-server.me.log"), "c\nd\n");
        assert_eq!(folder.text("dcc-mcp-server.me.log.1"), "a\nb\n");
    }

    #[test]
    fn processes_do_not_write_into_each_others_files() {
        let folder = Folder::new("shared");
        let (mut first, mut second) = (folder.log("1", 1000, 7), folder.log("1", 1000, 7));
        write(&mut first, "first");
        write(&mut second, "second");
        assert_eq!(folder.text("dcc-mcp-server.1.log"), "first\n");
        assert_eq!(folder.text("dcc-mcp-server.1-2.log"), "second\n");
        drop(first);
        let mut again = folder.log("1", 1000, 7);
        write(&mut again, "again");
        assert_eq!(folder.text("dcc-mcp-server.1.log"), "first\nagain\n");
    }

    #[test]
    fn only_the_oldest_files_of_the_dead_are_removed() {
        let folder = Folder::new("dead");
        let mut alive = folder.log("alive", 4, 9);
        for line in ["aaa", "bbb", "ccc"] {
            write(&mut alive, line);
        }
        let old = |name: &str, second: u64| {
            let path = folder.0.join(name);
            fs::write(&path, "x").unwrap();
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        };
        for (number, name) in ["dead1.log", "dead1.log.1", "dead2.log.3", "dead3.log"].iter().enumerate() {
            old(&format!("dcc-mcp-server.{name}"), 100 + number as u64);
        }
        old("foreign.log", 1);
        old("dcc-mcp-server.notes.txt", 1);
        fs::create_dir(folder.0.join("dcc-mcp-server.folder.log")).unwrap();
        write(&mut folder.log("me", 100, 2), "line");
        let expected = [
            "dcc-mcp-server.alive.log",
            "dcc-mcp-server.alive.log.1",
            "dcc-mcp-server.alive.log.2",
            "dcc-mcp-server.dead2.log.3",
            "dcc-mcp-server.dead3.log",
            "dcc-mcp-server.folder.log",
            "dcc-mcp-server.me.log",
            "dcc-mcp-server.notes.txt",
            "foreign.log",
        ];
        assert_eq!(folder.names(), expected);
    }

    #[test]
    fn half_a_line_is_ended_before_the_next() {
        let folder = Folder::new("half");
        fs::write(folder.0.join("dcc-mcp-server.me.log"), "whole\nhal").unwrap();
        write(&mut folder.log("me", 1000, 7), "next");
        assert_eq!(folder.text("dcc-mcp-server.me.log"), "whole\nhal\nnext\n");
    }

    #[test]
    fn a_moved_file_is_left_alone_after_reopen() {
        let folder = Folder::new("moved");
        let mut log = folder.log("me", 1000, 7);
        write(&mut log, "before");
        fs::rename(folder.0.join("dcc-mcp-server.me.log"), folder.0.join("moved")).unwrap();
        log.reopen();
        write(&mut log, "after");
        assert_eq!(
            (folder.text("moved").as_str(), folder.text("dcc-mcp-server.me.log").as_str()),
            ("before\n", "after\n")
        );
    }

    #[test]
    fn a_failing_folder_is_said_once_and_tried_again_later() {
        let folder = Folder::new("failing");
        let place = folder.0.join("logs");
        fs::write(&place, "a file where the folder should be").unwrap();
        let config = FileConfig { folder: place.clone(), name: "me".to_owned(), bytes_max: 100, files_max: 7 };
        let mut log = RotatingFile::new(config);
        let start = Instant::now();
        let mut write = |after: Duration| log.write("line", SystemTime::now(), start + after);
        assert!(matches!(write(Duration::ZERO), Written::FailedNow(_)));
        assert!(matches!(write(Duration::from_secs(1)), Written::StillFailed));
        assert!(matches!(write(LOG_RETRY_EVERY), Written::StillFailed));
        fs::remove_file(&place).unwrap();
        assert!(matches!(write(LOG_RETRY_EVERY + Duration::from_secs(1)), Written::StillFailed));
        assert!(matches!(write(LOG_RETRY_EVERY * 2), Written::Again(4)));
        assert_eq!(fs::read_to_string(place.join("dcc-mcp-server.me.log")).unwrap(), "line\n");
    }

    /// Every file operation of writing, rotating and pruning fails in turn. Lines are lost only where that is said, files of
    /// the living and of strangers stay, and all is well again after the pause.
    #[test]
    fn each_file_operation_fails_once() {
        let operations = faults::with_each_failure(|nth, failing| {
            let folder = Folder::new(&format!("nth-{nth}"));
            let mut other = folder.log("other", 1000, 2);
            write(&mut other, "of the living");
            for name in
                ["notes.txt", "dcc-mcp-server.dead.log", "dcc-mcp-server.dead.log.1", "dcc-mcp-server.dead.log.2"]
            {
                fs::write(folder.0.join(name), "old\n").unwrap();
            }
            fs::write(folder.0.join("dcc-mcp-server.me.log"), "half a li").unwrap();
            fs::write(folder.0.join("dcc-mcp-server.me.log.7"), "from a time with more files").unwrap();
            let (mut log, start) = (folder.log("me", 12, 3), Instant::now());
            let mut outcomes = Vec::new();
            let mut put = |log: &mut RotatingFile, number: u32, after: Duration| {
                let written = log.write(&format!("line {number}"), SystemTime::now(), start + after);
                outcomes.push((number, written));
            };
            failing(&mut || (1..=3).for_each(|number| put(&mut log, number, Duration::ZERO)));
            (4..=5).for_each(|number| put(&mut log, number, LOG_RETRY_EVERY * 2));

            let lost =
                outcomes.iter().filter(|(_, written)| matches!(written, Written::FailedNow(_) | Written::StillFailed));
            let lost: Vec<u32> = lost.map(|(number, _)| *number).collect();
            let told = outcomes.iter().find_map(|(_, written)| match written {
                Written::Again(count) => Some(*count as usize),
                _ => None,
            });
            assert_eq!(told.unwrap_or(0), lost.len(), "operation {nth}: as many are told as are lost: {outcomes:?}");
            assert!(
                outcomes.iter().filter(|(number, _)| *number > 3).all(|(number, _)| !lost.contains(number)),
                "it recovers"
            );

            let texts: Vec<String> =
                folder.names().iter().filter(|name| name.contains(".me")).map(|name| folder.text(name)).collect();
            // Three files hold one line each at least; of the last two lines none may be missing.
            for number in [4, 5] {
                assert!(
                    texts.iter().any(|text| text.contains(&format!("line {number}\n"))),
                    "operation {nth}: {texts:?}"
                );
            }
            assert!(
                texts.iter().flat_map(|text| text.lines()).all(|line| line.starts_with("line ") || line == "half a li")
            );
            assert_eq!(folder.text("notes.txt"), "old\n", "operation {nth}");
            assert_eq!(folder.text("dcc-mcp-server.other.log"), "of the living\n", "operation {nth}");
            let own = |name: &&String| name.starts_with("dcc-mcp-server.me.log");
            assert!(folder.names().iter().filter(own).count() <= 3, "operation {nth}: {:?}", folder.names());
        });
        assert!(operations > 25, "three lines in three files: {operations} operations");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_not_followed() {
        let folder = Folder::new("symlink");
        fs::write(folder.0.join("victim"), "untouched").unwrap();
        std::os::unix::fs::symlink("victim", folder.0.join("dcc-mcp-server.me.log")).unwrap();
        let written = folder.log("me", 100, 7).write("line", SystemTime::now(), Instant::now());
        assert!(matches!(written, Written::FailedNow(_)), "{written:?}");
        assert_eq!(folder.text("victim"), "untouched");
    }
}
