//! The one `log::Log` of the program: standard error with the level filter of `simple_logger`, and a rotating file when
//! asked for. Also what a panic does: one line, and the end of the process.
//!
//! Both get the same line (`line.rs`); on standard error the level and the module stand before it.
//!
//! **Invariant**: logging never fails, ends or stops its caller: not by a full disk, not by a standard error that is
//! closed or that nobody reads. What could not be written is counted, and the count is written as soon as it can be. A panic
//! of any thread ends the process with `EXIT_THREAD_DIED`: half a server is worse than none.
//! **Thread**: any.
//! **Bounds**: `LOG_LINE_BYTES_MAX`, `PIPE_LINE_BYTES_MAX`, `STDERR_STALL_MAX`; the file's in `file.rs`.
//! Left out on purpose: a thread and a queue for lines. A line is in the kernel when its macro returns, so that the last
//! words of a process that is killed are not lost. The price: `--log-dir` belongs on a local disk.

pub mod file;
pub mod line;

use std::cell::Cell;
use std::fmt;
use std::io::{self, StderrLock, Write};
use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use simple_logger::SimpleLogger;

use self::file::{RotatingFile, Written};
use self::line::Stamp;
use crate::limits::{LOG_LINE_BYTES_MAX, PANIC_FILE_WAIT_MAX, PIPE_LINE_BYTES_MAX, STDERR_STALL_MAX};

/// Exit code of a process of which a thread has panicked.
pub const EXIT_THREAD_DIED: i32 = 5;

#[derive(Clone, Debug)]
pub struct LogConfig {
    pub level: LevelFilter,
    pub file: Option<FileConfig>,
}

/// Where the log files are, and how large and many.
#[derive(Clone, Debug)]
pub struct FileConfig {
    pub folder: PathBuf,
    /// Tells this process apart in the folder: the short instance id. Letters, digits, `-` and `_`.
    pub name: String,
    /// Bytes of one file, unless a single line is longer.
    pub bytes_max: u64,
    /// Files kept of this process, the one being written included; and files kept of all dead processes together.
    pub files_max: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub enum LogError {
    AlreadyStarted,
}

/// A value that somebody else chose, in a log line: as it is when it is plain, else in quotes with `"`, `\` and control
/// characters escaped.
pub struct Quoted<'a, T: ?Sized>(pub &'a T);

/// Starts logging for the whole process. A folder that cannot be written to is no error: it is said on standard error, and
/// tried again later. From now on a panic is logged, and ends the process after `last_deed`.
pub fn start(config: LogConfig, last_deed: fn()) -> Result<(), LogError> {
    let logger = Logger {
        stderr: Stderr::new(),
        file: config.file.map(|file| Mutex::new(RotatingFile::new(file))),
        filter: SimpleLogger::new().with_level(config.level),
    };
    LOGGER.set(logger).map_err(|_| LogError::AlreadyStarted)?;
    let logger = LOGGER.get().ok_or(LogError::AlreadyStarted)?;
    log::set_logger(logger).map_err(|_| LogError::AlreadyStarted)?;
    log::set_max_level(logger.filter.max_level());
    panic::set_hook(Box::new(move |info| {
        log_panic(info);
        last_deed();
        std::process::exit(EXIT_THREAD_DIED);
    }));
    Ok(())
}

/// Opens the log file anew, for SIGHUP after somebody moved it.
pub fn reopen() {
    if let Some(file) = LOGGER.get().and_then(|logger| logger.file.as_ref()) {
        file.lock().unwrap_or_else(PoisonError::into_inner).reopen();
    }
}

/// Until the guard is dropped, every line of this thread bears a new request id.
pub fn request() -> RequestGuard {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let id = LAST.fetch_add(1, Relaxed) + 1;
    RequestGuard { before: REQUEST.replace(Some(id)) }
}

/// The request id of this thread, for a thread that works for the same request.
pub fn request_id() -> Option<u64> {
    REQUEST.get()
}

/// As `request`, with the id of another thread.
pub fn request_of(id: Option<u64>) -> RequestGuard {
    RequestGuard { before: REQUEST.replace(id) }
}

#[must_use = "the id is taken back when the guard is dropped"]
pub struct RequestGuard {
    before: Option<u64>,
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        REQUEST.set(self.before);
    }
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

thread_local! {
    static REQUEST: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Logger {
    stderr: Stderr,
    file: Option<Mutex<RotatingFile>>,
    filter: SimpleLogger,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (thread, at) = (thread::current(), SystemTime::now());
        let request = REQUEST.try_with(Cell::get).unwrap_or_default();
        let stamp = Stamp { at, level: record.level(), thread: thread.name().unwrap_or("unnamed"), request };
        let line = line::format(&stamp, *record.args(), LOG_LINE_BYTES_MAX);
        self.stderr.write(record.level(), record.target(), &line);
        if let Some(mut file) = self.file.as_ref().and_then(locked) {
            let written = file.write(&line, at, Instant::now());
            self.tell(&stamp, written, file.folder());
        }
    }

    fn flush(&self) {}
}

impl Logger {
    /// Says on standard error that the file failed, or that it is back.
    fn tell(&self, stamp: &Stamp<'_>, written: Written, folder: &Path) {
        let folder = folder.display();
        let (level, message) = match written {
            Written::Yes | Written::StillFailed => return,
            Written::FailedNow(error) => {
                (Level::Error, format!("event=log_file_failed folder={} error={}", Quoted(&folder), Quoted(&error)))
            }
            Written::Again(lost) => {
                (Level::Warn, format!("event=log_file_back folder={} lost={lost}", Quoted(&folder)))
            }
        };
        let stamp = Stamp { at: stamp.at, level, thread: stamp.thread, request: None };
        self.stderr.write(level, module_path!(), &line::format(&stamp, format_args!("{message}"), LOG_LINE_BYTES_MAX));
    }
}

/// The file, unless this thread panics and does not get it soon: it may be the one that holds it.
fn locked(file: &Mutex<RotatingFile>) -> Option<MutexGuard<'_, RotatingFile>> {
    if !thread::panicking() {
        return Some(file.lock().unwrap_or_else(PoisonError::into_inner));
    }
    let end = Instant::now() + PANIC_FILE_WAIT_MAX;
    loop {
        match file.try_lock() {
            Ok(file) => return Some(file),
            Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= end => return None,
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

struct Stderr {
    /// Lines written to a pipe without room for them would block.
    bytes_max: usize,
    /// Nobody reads: no further line waits for that.
    stalled: AtomicBool,
    lost: AtomicU64,
}

impl Stderr {
    fn new() -> Stderr {
        let stat = fstat(io::stderr());
        let is_pipe = stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        Stderr {
            bytes_max: if is_pipe { PIPE_LINE_BYTES_MAX } else { LOG_LINE_BYTES_MAX },
            stalled: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        }
    }

    fn write(&self, level: Level, target: &str, line: &str) {
        // One thread at a time, or two would fill the room that each was promised.
        let mut stderr = io::stderr().lock();
        if !self.takes_a_line(&stderr) {
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        let lost = self.lost.swap(0, Relaxed);
        let was_told =
            lost == 0 || put(&mut stderr, Level::Warn, module_path!(), &format!("event=lines_lost count={lost}"));
        let was_put = was_told && put(&mut stderr, level, target, &line::shorten(line, self.bytes_max));
        let still_lost = if was_told { 0 } else { lost } + u64::from(!was_put);
        self.lost.fetch_add(still_lost, Relaxed);
    }

    /// Whether a write would not block. A reader who is only slow gets a moment, once.
    fn takes_a_line(&self, stderr: &StderrLock<'_>) -> bool {
        let patience = if self.stalled.load(Relaxed) { 0 } else { STDERR_STALL_MAX.as_millis() as i64 };
        let timeout = Timespec { tv_sec: patience / 1000, tv_nsec: patience % 1000 * 1_000_000 };
        let mut asked = [PollFd::new(stderr, PollFlags::OUT)];
        let mut answer = poll(&mut asked, Some(&timeout));
        if answer == Err(Errno::INTR) {
            answer = poll(&mut asked, Some(&timeout));
        }
        let answered = answer.is_ok_and(|count| count > 0);
        self.stalled.store(!answered, Relaxed);
        answered && asked[0].revents() == PollFlags::OUT
    }
}

/// Not with `simple_logger`, whose `eprintln!` panics when standard error takes no bytes, as on a full disk.
fn put(stderr: &mut StderrLock<'_>, level: Level, target: &str, line: &str) -> bool {
    let target = target.strip_prefix(concat!(env!("CARGO_CRATE_NAME"), "::")).unwrap_or(target);
    stderr.write_all(format!("{level:<5} [{target}] {line}\n").as_bytes()).is_ok()
}

/// One line instead of the several of the standard hook.
fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    log::error!("event=panic place={} message={}", Quoted(&place), Quoted(text));
}

impl<T: fmt::Display + ?Sized> fmt::Display for Quoted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line::write_quoted(f, &self.0.to_string())
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::AlreadyStarted => f.write_str("logging was started already"),
        }
    }
}

impl std::error::Error for LogError {}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    const CHILD: &str = "LOGGING_TEST_CHILD";
    /// The file's lock is held while the thread panics.
    const HOLD: &str = "LOGGING_TEST_HOLD";

    #[test]
    fn request_ids_nest_and_end() {
        assert_eq!(request_id(), None);
        let outer = request();
        let id = request_id();
        {
            let _inner = request();
            assert!(request_id() > id);
        }
        assert_eq!(request_id(), id);
        drop(outer);
        assert_eq!(request_id(), None);
        let _lent = request_of(Some(7));
        assert_eq!(request_id(), Some(7));
    }

    /// Runs in a process of its own, since logging is started once in a process. Ends as it should only if no line stopped or
    /// ended it before.
    #[test]
    fn child() {
        let Some(dir) = std::env::var_os(CHILD) else { return };
        let file = FileConfig { folder: dir.into(), name: "child".to_owned(), bytes_max: 1 << 30, files_max: 7 };
        let config = LogConfig { level: LevelFilter::Info, file: Some(file) };
        assert_eq!(start(config.clone(), last_deed), Ok(()));
        assert_eq!(start(config, last_deed), Err(LogError::AlreadyStarted));
        let _request = request();
        log::info!("event=first value={}", Quoted("a b\nc"));
        log::debug!("event=hidden");
        for number in 0..200 {
            log::warn!("event=long number={number} {}", "x".repeat(5000));
        }
        // Whoever panics finds the file taken by a thread that lets it go no more.
        let _held = std::env::var_os(HOLD).map(|_| LOGGER.get().unwrap().file.as_ref().unwrap().lock().unwrap());
        let dies = thread::Builder::new().name("worker".to_owned()).spawn(|| panic!("two\nlines"));
        // It does not come back: the process ends with the thread. If it does, this one ends with 0, which no caller takes.
        let _ = dies.unwrap().join();
    }

    fn last_deed() {
        log::error!("event=last");
    }

    /// Runs `child` and gives its standard error, if it was a pipe that somebody read, and its file.
    fn run_child(name: &str, stderr: Stdio) -> (String, String) {
        run_child_with(name, stderr, &[])
    }

    fn run_child_with(name: &str, stderr: Stdio, variables: &[(&str, &str)]) -> (String, String) {
        let dir = std::env::temp_dir().join(format!("dcc-mcp-logging-test-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", "logging::tests::child"]).env(CHILD, &dir);
        command.envs(variables.iter().copied());
        let output = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(EXIT_THREAD_DIED), "{name}: {}", output.status);
        let text = fs::read_to_string(dir.join("dcc-mcp-server.child.log")).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        (String::from_utf8(output.stderr).unwrap(), text)
    }

    fn check_file(text: &str) {
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 203);
        assert!(lines.iter().all(|line| line.starts_with("at=20") && line.contains("Z level=")));
        assert!(lines[0].ends_with(" request=1 event=first value=\"a b\\nc\""), "{}", lines[0]);
        assert!(is_panic(lines[201]), "{}", lines[201]);
        assert!(lines[202].ends_with(" event=last"), "{}", lines[202]);
    }

    fn is_panic(line: &str) -> bool {
        line.contains(" level=error thread=worker event=panic place=") && line.ends_with(" message=\"two\\nlines\"")
    }

    #[test]
    fn both_get_every_line() {
        let (stderr, file) = run_child("read", Stdio::piped());
        check_file(&file);
        let lines: Vec<&str> = stderr.lines().collect();
        assert_eq!(lines.len(), 203);
        assert!(lines[0].starts_with("INFO  [logging::tests] at=20"), "{}", lines[0]);
        assert!(lines[2].len() < 4096 && lines[2].ends_with("...[cut]"));
        assert!(is_panic(lines[201]), "{}", lines[201]);
    }

    /// As that of the thread that panics would be, if it did so while it wrote there.
    #[test]
    fn a_panic_does_not_wait_for_a_file_that_is_held() {
        let (stderr, file) = run_child_with("held", Stdio::piped(), &[(HOLD, "1")]);
        assert_eq!(file.lines().count(), 201);
        assert!(stderr.lines().nth(201).is_some_and(is_panic), "{stderr}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_under_standard_error_ends_nothing() {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        check_file(&run_child("full", full.into()).1);
    }

    #[test]
    fn a_closed_standard_error_ends_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        check_file(&run_child("closed", writer.into()).1);
    }

    #[test]
    fn a_standard_error_that_nobody_reads_stops_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        let started = Instant::now();
        check_file(&run_child("unread", writer.into()).1);
        assert!(started.elapsed() < Duration::from_secs(20));
        drop(reader);
    }
}
