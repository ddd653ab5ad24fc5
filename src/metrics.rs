//! Figures about the running process, as Prometheus reads them (text exposition format 0.0.4).
//!
//! **Invariant**: no label has values that a client chooses; application types come from the registry and are bounded.
//! **Thread**: any; recording is a few relaxed atomic additions.
//! **Bounds**: `DCC_LABELS_MAX` application types, the rest counts as `other`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Application types with a label of their own.
const DCC_LABELS_MAX: usize = 64;
/// Upper bounds of the histograms' buckets, in seconds.
const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0];

pub static HTTP_REQUESTS: Requests = Requests { counts: Mutex::new(BTreeMap::new()) };
pub static REQUEST_DURATION: Histogram = Histogram::new();
pub static TOOL_CALLS: ToolCalls = ToolCalls { counts: Mutex::new(BTreeMap::new()), duration: Histogram::new() };
pub static SSE_STREAMS: Gauge = Gauge(AtomicI64::new(0));
pub static SSE_DROPPED: Counter = Counter(AtomicU64::new(0));
pub static TOOLS: Gauge = Gauge(AtomicI64::new(0));
pub static GATEWAY_LEADER: Gauge = Gauge(AtomicI64::new(0));
pub static TAKEOVERS: Counter = Counter(AtomicU64::new(0));
static INSTANCES: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// The routes that requests are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    Mcp,
    McpInstance,
    McpDcc,
    Health,
    Readyz,
    Instances,
    Metrics,
    Other,
}

/// How a tool call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Ok,
    ToolError,
    Unreachable,
    Timeout,
    Cancelled,
    Refused,
}

pub struct Counter(AtomicU64);
pub struct Gauge(AtomicI64);

pub struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    microseconds: AtomicU64,
}

pub struct Requests {
    counts: Mutex<BTreeMap<(Route, u16), u64>>,
}

pub struct ToolCalls {
    counts: Mutex<BTreeMap<(String, Outcome), u64>>,
    duration: Histogram,
}

impl Counter {
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

impl Gauge {
    pub fn set(&self, to: i64) {
        self.0.store(to, Ordering::Relaxed);
    }
}

impl Histogram {
    const fn new() -> Histogram {
        Histogram {
            buckets: [const { AtomicU64::new(0) }; BUCKETS.len()],
            count: AtomicU64::new(0),
            microseconds: AtomicU64::new(0),
        }
    }

    pub fn record(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, "histogram", help);
        let mut total = 0;
        for (bound, count) in BUCKETS.iter().zip(&self.buckets) {
            total += count.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        let count = self.count.load(Ordering::Relaxed).max(total);
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum {}", self.microseconds.load(Ordering::Relaxed) as f64 / 1e6);
        let _ = writeln!(out, "{name}_count {count}");
    }
}

impl Requests {
    pub fn record(&self, route: Route, status: u16) {
        *lock(&self.counts).entry((route, status)).or_default() += 1;
    }
}

impl ToolCalls {
    pub fn record(&self, dcc: &str, outcome: Outcome, time: Duration) {
        let mut counts = lock(&self.counts);
        let key = (label(dcc, counts.keys().map(|(dcc, _)| dcc.as_str())), outcome);
        *counts.entry(key).or_default() += 1;
        drop(counts);
        self.duration.record(time);
    }
}

/// Takes the application types of the live instances.
pub fn instances<'a>(types: impl Iterator<Item = &'a str>) {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for dcc in types {
        let label = label(dcc, counts.keys().map(String::as_str));
        *counts.entry(label).or_default() += 1;
    }
    *lock(&INSTANCES) = counts;
}

/// Everything, as Prometheus reads it.
pub fn exposition(out: &mut String) {
    head(out, "dcc_mcp_build_info", "gauge", "The version that runs.");
    let _ = writeln!(out, "dcc_mcp_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    head(out, "dcc_mcp_instances", "gauge", "Live instances by application type.");
    for (dcc, count) in lock(&INSTANCES).iter() {
        let _ = writeln!(out, "dcc_mcp_instances{{dcc=\"{dcc}\"}} {count}");
    }
    for (name, gauge, help) in [
        ("dcc_mcp_tools", &TOOLS, "Tools of live instances."),
        ("dcc_mcp_gateway_leader", &GATEWAY_LEADER, "1 while this process serves the gateway port."),
        ("dcc_mcp_sse_streams", &SSE_STREAMS, "Open GET streams."),
    ] {
        head(out, name, "gauge", help);
        let _ = writeln!(out, "{name} {}", gauge.0.load(Ordering::Relaxed));
    }
    for (name, counter, help) in [
        ("dcc_mcp_sse_dropped_total", &SSE_DROPPED, "Streams closed because their reader did not keep up or was gone."),
        ("dcc_mcp_takeovers_total", &TAKEOVERS, "Times this process took over the gateway port."),
    ] {
        head(out, name, "counter", help);
        let _ = writeln!(out, "{name} {}", counter.0.load(Ordering::Relaxed));
    }
    head(out, "dcc_mcp_http_requests_total", "counter", "Requests answered, by route and status.");
    for ((route, status), count) in lock(&HTTP_REQUESTS.counts).iter() {
        let _ = writeln!(out, "dcc_mcp_http_requests_total{{route=\"{}\",status=\"{status}\"}} {count}", snake(route));
    }
    REQUEST_DURATION.write(out, "dcc_mcp_request_duration_seconds", "Time from a whole head to the end of the answer.");
    head(
        out,
        "dcc_mcp_tool_calls_total",
        "counter",
        "Tool calls handed to instances, by application type and outcome.",
    );
    for ((dcc, outcome), count) in lock(&TOOL_CALLS.counts).iter() {
        let _ = writeln!(out, "dcc_mcp_tool_calls_total{{dcc=\"{dcc}\",outcome=\"{}\"}} {count}", snake(outcome));
    }
    TOOL_CALLS.duration.write(out, "dcc_mcp_tool_call_duration_seconds", "Time of tool calls handed to instances.");
}

/// A type's label: itself while there is room and it needs no escaping, else `other`.
fn label<'a>(dcc: &str, known: impl Iterator<Item = &'a str>) -> String {
    let plain = !dcc.is_empty() && dcc.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    let mut distinct: Vec<&str> = known.collect();
    distinct.dedup();
    let room = distinct.len() < DCC_LABELS_MAX || distinct.contains(&dcc);
    if plain && room { dcc.to_owned() } else { "other".to_owned() }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// `ToolError` → `tool_error`.
fn snake(value: &impl std::fmt::Debug) -> String {
    let mut out = String::new();
    for c in format!("{value:?}").chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative() {
        let histogram = Histogram::new();
        for milliseconds in [0, 7, 700, 120_000] {
            histogram.record(Duration::from_millis(milliseconds));
        }
        let mut out = String::new();
        histogram.write(&mut out, "t", "Times.");
        for line in ["t_bucket{le=\"0.0005\"} 1", "t_bucket{le=\"0.01\"} 2", "t_bucket{le=\"1\"} 3", "t_count 4"] {
            assert!(out.lines().any(|found| found == line), "{line} in {out}");
        }
    }

    #[test]
    fn labels_are_plain_and_few() {
        let many: Vec<String> = (0..DCC_LABELS_MAX).map(|number| format!("t{number}")).collect();
        let known = || many.iter().map(String::as_str);
        for (dcc, expected) in [("t1", "t1"), ("maya", "other"), ("a\"b", "other"), ("", "other")] {
            assert_eq!(label(dcc, known()), expected);
        }
        assert_eq!(label("maya", known().take(3)), "maya");
        assert_eq!(snake(&Outcome::ToolError), "tool_error");
    }
}
