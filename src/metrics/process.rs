//! The process metrics under the names that every Prometheus client library uses, read from `/proc` at each scrape.
//!
//! **Invariant**: a fact that the system does not give is left out, never told as 0.
//! **Thread**: the one that answers `/metrics`.
//! **Bounds**: a handful of small files; descriptors are as many as the process may have.
//! Left out on purpose: other systems than Linux, where these families are missing.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::series::{family, sample};

/// The kernel tells times in units of 1/100 s (`USER_HZ`), whatever its own clock is; see time(7).
const TICKS_PER_SECOND: u64 = 100;

pub fn write(out: &mut String) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status_number(&status, "VmRSS:").map(|kib| kib * 1024);
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
    let started = boot_time().and_then(|boot| Some(hundredths(boot * TICKS_PER_SECOND + start_ticks(&stat)?)));

    let cpu = cpu_ticks(&stat).map(hundredths);
    write_one(out, "process_cpu_seconds_total", "counter", "CPU time used, user and system.", cpu);
    write_one(out, "process_resident_memory_bytes", "gauge", "Resident memory.", memory.map(|bytes| bytes.to_string()));
    write_one(out, "process_open_fds", "gauge", "Open file descriptors.", descriptors.map(|count| count.to_string()));
    let most = getrlimit(Resource::Nofile).current.map(|count| count.to_string());
    write_one(out, "process_max_fds", "gauge", "File descriptors the process may have open.", most);
    write_one(out, "process_start_time_seconds", "gauge", "When the process started, since the epoch.", started);
    let threads = status_number(&status, "Threads:").map(|count| count.to_string());
    write_one(out, "process_threads", "gauge", "Threads of the process.", threads);
}

fn write_one(out: &mut String, name: &str, kind: &str, help: &str, value: Option<String>) {
    if let Some(value) = value {
        family(out, name, kind, help);
        sample(out, name, &[], value);
    }
}

/// Ticks as seconds in decimal.
fn hundredths(ticks: u64) -> String {
    format!("{}.{:02}", ticks / TICKS_PER_SECOND, ticks % TICKS_PER_SECOND)
}

/// Fields 14 and 15 of `/proc/<pid>/stat`, see proc_pid_stat(5).
fn cpu_ticks(stat: &str) -> Option<u64> {
    Some(stat_field(stat, 14)? + stat_field(stat, 15)?)
}

/// Field 22: ticks between boot and the start of the process.
fn start_ticks(stat: &str) -> Option<u64> {
    stat_field(stat, 22)
}

/// Counted behind the last `)`, as the command's name may hold spaces and parentheses.
fn stat_field(stat: &str, field: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(field - 3)?.parse().ok()
}

fn status_number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Seconds since the epoch at which the system was started.
fn boot_time() -> Option<u64> {
    status_number(&fs::read_to_string("/proc/stat").ok()?, "btime ")
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 150 25 0 0 20 0 3 0 8123 1000 200 18446744073709551615";
        assert_eq!((cpu_ticks(stat), start_ticks(stat)), (Some(175), Some(8123)));
        assert_eq!((cpu_ticks(""), start_ticks("7 (x) S 1")), (None, None));
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t3\n";
        assert_eq!((status_number(status, "VmRSS:"), status_number(status, "Threads:")), (Some(2048), Some(3)));
        assert_eq!(status_number(status, "VmSwap:"), None);
        assert_eq!(hundredths(175), "1.75");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_told_plausibly() {
        let mut out = String::new();
        write(&mut out);
        let value = |name: &str| -> f64 {
            let line = out.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap();
            line.parse().unwrap()
        };
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!((3.0..=value("process_max_fds")).contains(&value("process_open_fds")));
        assert!(value("process_threads") >= 1.0);
        let age =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
