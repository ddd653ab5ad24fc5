//! Waiting with a deadline, and promises of the specification about time.
//!
//! **Bounds**: nothing here waits without an end; a poll every few milliseconds is the only pause in these tests.

use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Long enough for anything that has no promise of its own, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

const POLL_EVERY: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; panics with `what` when it does not within `limit`.
#[track_caller]
pub fn until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    until_some(limit, what, || condition().then_some(()));
}

/// Waits until `poll` gives something; panics with `what` when it does not within `limit`.
#[track_caller]
pub fn until_some<T>(limit: Duration, what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < end, "after {} ms still not: {what}", limit.as_millis());
        std::thread::sleep(POLL_EVERY);
    }
}

/// Checks that `condition` holds all the time for `span`.
#[track_caller]
pub fn throughout(span: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(condition(), "not all the time: {what}");
        std::thread::sleep(POLL_EVERY);
    }
}

/// Prints a figure even where the test passes, whose output is not shown otherwise.
pub fn print(line: &str) {
    let _ = writeln!(io::stdout().lock(), "    {line}");
}

/// Measures what the specification promises to take less than `limit`, prints it, and lets a noisy machine try three
/// times: a promise that is kept is kept in one of them, a mechanism that is missing is not.
#[track_caller]
pub fn promise(what: &str, limit: Duration, mut measure: impl FnMut() -> Duration) {
    let mut taken = Vec::new();
    for _ in 0..3 {
        let time = measure();
        print(&format!("{what}: {:.1} ms (promised: {} ms)", time.as_secs_f64() * 1e3, limit.as_millis()));
        if time < limit {
            return;
        }
        taken.push(time);
    }
    panic!("{what}: promised within {limit:?}, took {taken:?}");
}
