//! One line an event, `key=value`, to standard error and, when asked for, to a file that rotates by size and day.
//!
//! Standard error goes through `simple_logger`. Its `eprintln!` panics when the stream is closed or its disk is full;
//! that panic is caught here, since a server must not end because nobody reads its log.
//!
//! **Invariant**: one event is one line, whatever a client sent: control characters are escaped. A log that cannot be
//! written stops or slows nothing.
//! **Thread**: any; the file is behind one lock, held for one write.
//! **Bounds**: `LOG_LINE_BYTES_MAX`; the file's size and count are the operator's.
//! Left out on purpose: targets other than a stream and files; journald and collectors read those.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use crate::limits::LOG_LINE_BYTES_MAX;

pub struct LogConfig {
    pub level: LevelFilter,
    pub file: Option<FileConfig>,
}

#[derive(Clone)]
pub struct FileConfig {
    pub folder: PathBuf,
    /// Tells the files of processes that share a folder apart.
    pub name: String,
    pub bytes_max: u64,
    pub files_max: usize,
}

/// A file that failed is tried again after this time.
const FILE_RETRY: Duration = Duration::from_secs(30);

static LOGGER: OnceLock<Logger> = OnceLock::new();

thread_local! {
    static REQUEST: RefCell<Option<u64>> = const { RefCell::new(None) };
    static WRITING: Cell<bool> = const { Cell::new(false) };
}

/// Starts the log. Fails when the file's folder cannot be made, or when it was started before.
pub fn start(config: LogConfig) -> io::Result<()> {
    let stderr = SimpleLogger::new().with_level(config.level);
    let file = config.file.map(RotatingFile::open).transpose()?.map(Mutex::new);
    let logger = LOGGER.get_or_init(|| Logger { stderr, file });
    log::set_logger(logger).map_err(|_| io::Error::other("the log was started before"))?;
    log::set_max_level(config.level);
    panic::set_hook(Box::new(|panic| {
        if !WRITING.get() {
            log::error!("event=panic what={}", Quoted(&panic.to_string()));
        }
    }));
    Ok(())
}

/// Opens the file anew: whoever moved it away gets the old one.
pub fn reopen() {
    if let Some(file) = LOGGER.get().and_then(|logger| logger.file.as_ref()) {
        file.lock().unwrap_or_else(PoisonError::into_inner).reopen();
    }
}

/// Marks what this thread logs, until the guard is dropped, with a number of its own.
pub fn request() -> RequestMark {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    RequestMark(REQUEST.replace(Some(NEXT.fetch_add(1, Ordering::Relaxed))))
}

pub struct RequestMark(Option<u64>);

impl Drop for RequestMark {
    fn drop(&mut self) {
        REQUEST.set(self.0);
    }
}

/// Text from elsewhere as a value: quoted where it needs to be, and always on one line.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
        if plain { f.write_str(self.0) } else { write!(f, "{:?}", self.0) }
    }
}

struct Logger {
    stderr: SimpleLogger,
    file: Option<Mutex<RotatingFile>>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.stderr.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = line(record);
        WRITING.set(true);
        let _ = panic::catch_unwind(AssertUnwindSafe(|| {
            let metadata = record.metadata().clone();
            self.stderr.log(&Record::builder().metadata(metadata).args(format_args!("{line}")).build());
        }));
        WRITING.set(false);
        if let Some(file) = &self.file {
            let text = format!("{:<5} [{}] {line}\n", record.level(), record.target());
            file.lock().unwrap_or_else(PoisonError::into_inner).write(text.as_bytes(), SystemTime::now());
        }
    }

    fn flush(&self) {}
}

/// The event's time, thread, request and text, as one bounded line.
fn line(record: &Record<'_>) -> String {
    let mut line = format!("at={}", timestamp(SystemTime::now()));
    if let Some(name) = std::thread::current().name() {
        let _ = write!(line, " thread={name}");
    }
    if let Some(request) = REQUEST.with_borrow(|request| *request) {
        let _ = write!(line, " request={request:x}");
    }
    line.push(' ');
    let text = record.args().to_string();
    for c in text.chars() {
        if line.len() >= LOG_LINE_BYTES_MAX {
            line.push_str(" (cut)");
            break;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// `2026-11-24T08:00:00.123Z` (RFC 3339, UTC).
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Days since 1970-01-01 as year, month, day of the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day is the last of a year; 146,097 days are 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

struct RotatingFile {
    config: FileConfig,
    file: Option<File>,
    bytes: u64,
    day: u64,
    failed: Option<Instant>,
}

/// Whether a file of this size and day is full before `more` bytes are written today.
fn rotation_is_due(bytes: u64, day: u64, more: u64, today: u64, bytes_max: u64) -> bool {
    bytes > 0 && (day != today || bytes + more > bytes_max)
}

impl RotatingFile {
    fn open(config: FileConfig) -> io::Result<RotatingFile> {
        fs::create_dir_all(&config.folder)?;
        let mut file = RotatingFile { config, file: None, bytes: 0, day: day_of(SystemTime::now()), failed: None };
        file.reopen_file()?;
        Ok(file)
    }

    fn write(&mut self, line: &[u8], now: SystemTime) {
        if self.failed.is_some_and(|failed| failed.elapsed() < FILE_RETRY) {
            return;
        }
        let today = day_of(now);
        let due = rotation_is_due(self.bytes, self.day, line.len() as u64, today, self.config.bytes_max);
        let written = (|| {
            if due {
                self.rotate();
            }
            if self.file.is_none() {
                self.reopen_file()?;
            }
            self.day = today;
            match &mut self.file {
                Some(file) => file.write_all(line),
                None => Ok(()),
            }
        })();
        match written {
            Ok(()) => (self.bytes, self.failed) = (self.bytes + line.len() as u64, None),
            // The lines of the next half minute are on standard error alone.
            Err(_) => (self.file, self.failed) = (None, Some(Instant::now())),
        }
    }

    fn reopen(&mut self) {
        self.file = None;
        self.failed = None;
    }

    fn reopen_file(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(self.path(0))?;
        self.bytes = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Moves each file one number up; the oldest falls off the end.
    fn rotate(&mut self) {
        self.file = None;
        let oldest = self.config.files_max.saturating_sub(1);
        let _ = fs::remove_file(self.path(oldest));
        for number in (0..oldest).rev() {
            let _ = fs::rename(self.path(number), self.path(number + 1));
        }
    }

    fn path(&self, number: usize) -> PathBuf {
        let FileConfig { folder, name, .. } = &self.config;
        match number {
            0 => folder.join(format!("{name}.log")),
            number => folder.join(format!("{name}.log.{number}")),
        }
    }
}

fn day_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_488_507, "2026-11-24T02:48:27.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn values_stay_on_one_line() {
        for (text, expected) in [("plain/path", "plain/path"), ("", "\"\""), ("a b", "\"a b\""), ("a\nb", "\"a\\nb\"")]
        {
            assert_eq!(Quoted(text).to_string(), expected);
        }
        let args = format_args!("event=x\nevent=forged");
        assert!(!line(&Record::builder().args(args).build()).contains('\n'));
    }

    #[test]
    fn rotation() {
        for (bytes, day, more, today, due) in
            [(0, 1, 500, 2, false), (10, 1, 10, 1, false), (95, 1, 10, 1, true), (10, 1, 1, 2, true)]
        {
            assert_eq!(rotation_is_due(bytes, day, more, today, 100), due, "{bytes} {day} {more} {today}");
        }
    }

    #[test]
    fn files_are_rotated_and_counted() {
        let folder = std::env::temp_dir().join(format!("dcc-mcp-log-{}", crate::os::uuid_v4()));
        let config = FileConfig { folder: folder.clone(), name: "t".to_owned(), bytes_max: 10, files_max: 3 };
        let mut file = RotatingFile::open(config).expect("a log in a new folder");
        for text in ["one-one-1\n", "two-two-2\n", "three-3-3\n", "four-4-4-\n"] {
            file.write(text.as_bytes(), SystemTime::now());
        }
        let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["t.log", "t.log.1", "t.log.2"]);
        assert_eq!(fs::read_to_string(folder.join("t.log")).unwrap(), "four-4-4-\n");
        fs::remove_dir_all(folder).unwrap();
    }
}
