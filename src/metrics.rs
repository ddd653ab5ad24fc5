//! What the program counts about itself, as static atomics, and its text form for Prometheus (exposition format 0.0.4).
//!
//! **Invariant**: no label has values that a client can choose. Labels are closed enums, except `dcc`, which comes from
//! the registry and is bounded.
//! **Thread**: any. Recording is a few relaxed additions; `TOOL_CALLS` and `instances` also take a short read lock.
//! **Bounds**: `DCC_LABELS_MAX`; everything else is fixed when it is compiled.
//! Left out on purpose: resets, averages and rates, which are the reader's to compute.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use self::series::{Counter, Counters, Gauge, Histogram, Label, family, label, sample};
use crate::limits::{DCC_LABELS_MAX, ENTRY_NAME_BYTES_MAX};

mod process;
pub mod series;

label! {
    /// What a request asked for.
    Route {
        Mcp = "mcp",
        McpInstance = "mcp_instance",
        McpDcc = "mcp_dcc",
        Health = "health",
        Readyz = "readyz",
        Instances = "instances",
        Metrics = "metrics",
        Page = "page",
        Yield = "yield",
        Other = "other",
    }
}

label! {
    /// How a tool call ended.
    Outcome {
        Ok = "ok",
        ToolError = "tool_error",
        Unreachable = "unreachable",
        Timeout = "timeout",
        Cancelled = "cancelled",
        Refused = "refused",
    }
}

label! {
    /// What went wrong between the gateway and an instance.
    UpstreamError {
        Connect = "connect",
        Timeout = "timeout",
        Closed = "closed",
        Protocol = "protocol",
        TooLarge = "too_large",
    }
}

label! {
    /// What went wrong with the registry folder.
    RegistryError {
        Read = "read",
        Write = "write",
        Malformed = "malformed",
        TooLarge = "too_large",
        NewerSchema = "newer_schema",
        OverLimit = "over_limit",
        Foreign = "foreign",
    }
}

label! {
    /// The bound or check for which a request was refused before it reached its route. The texts are the codes of the
    /// refusals in `http/server.rs` and `endpoint/access.rs`.
    Refused {
        BadRequest = "bad_request",
        HeadTimeout = "head_timeout",
        HeadTooLarge = "head_too_large",
        TargetTooLong = "target_too_long",
        BodyTimeout = "body_timeout",
        BodyIncomplete = "body_incomplete",
        BodyTooLarge = "body_too_large",
        Connections = "connections",
        Streams = "too_many_streams",
        HostNotAllowed = "host_not_allowed",
        OriginNotAllowed = "origin_not_allowed",
        Unauthorized = "unauthorized",
        InternalError = "internal_error",
        Other = "other",
    }
}

impl Refused {
    /// The reason that a refusal's code stands for.
    pub fn of_code(code: &str) -> Refused {
        Refused::ALL.iter().copied().find(|reason| reason.text() == code).unwrap_or(Refused::Other)
    }
}

pub static HTTP_REQUESTS: HttpRequests = HttpRequests::new();
pub static HTTP_REFUSED: Counters<Refused, { Refused::COUNT }> = Counters::new();
pub static REQUEST_DURATION: Histogram = Histogram::new();
pub static TOOL_CALLS: ToolCalls = ToolCalls::new(&DCCS);
pub static UPSTREAM_ERRORS: Counters<UpstreamError, { UpstreamError::COUNT }> = Counters::new();
pub static TOOLS: Gauge = Gauge::new();
pub static GATEWAY_LEADER: Gauge = Gauge::new();
pub static TAKEOVERS: Counter = Counter::new();
pub static SSE_STREAMS: Gauge = Gauge::new();
pub static SSE_DROPPED: Counter = Counter::new();
pub static REGISTRY_SCAN: Histogram = Histogram::new();
pub static REGISTRY_ERRORS: Counters<RegistryError, { RegistryError::COUNT }> = Counters::new();

static INSTANCES: Instances = Instances::new(&DCCS);
static DCCS: Dccs = Dccs::new();

/// Sets the number of live instances of each application type; types that are no longer there are told as 0.
pub fn instances<'a>(dcc_types: impl Iterator<Item = &'a str>) {
    INSTANCES.set(dcc_types);
}

/// Everything, as the body of `/metrics`.
pub fn exposition(out: &mut String) {
    let version = env!("CARGO_PKG_VERSION");
    family(out, "dcc_mcp_build_info", "gauge", "Version of the program; the value is always 1.");
    sample(out, "dcc_mcp_build_info", &[("version", version)], 1);
    INSTANCES.write(out);
    TOOLS.write(out, "dcc_mcp_tools", "Tools of all instances in the catalogue.");
    GATEWAY_LEADER.write(out, "dcc_mcp_gateway_leader", "Whether this process serves the gateway port.");
    TAKEOVERS.write(out, "dcc_mcp_takeovers_total", "Times this process took the gateway port over from another.");
    HTTP_REQUESTS.write(out);
    HTTP_REFUSED.write(out, "dcc_mcp_http_refused_total", "reason", "Requests refused before they reached a route.");
    REQUEST_DURATION.write(
        out,
        "dcc_mcp_request_duration_seconds",
        "Time from a request's head to the end of its answer.",
    );
    TOOL_CALLS.write(out);
    let help = "Requests to instances that failed below MCP.";
    UPSTREAM_ERRORS.write(out, "dcc_mcp_upstream_errors_total", "kind", help);
    SSE_STREAMS.write(out, "dcc_mcp_sse_streams", "Open event streams of clients.");
    SSE_DROPPED.write(out, "dcc_mcp_sse_dropped_total", "Event streams closed because their reader did not keep up.");
    REGISTRY_SCAN.write(out, "dcc_mcp_registry_scan_seconds", "Time that one scan of the registry folder took.");
    let help = "Registry operations that failed, and files that were skipped.";
    REGISTRY_ERRORS.write(out, "dcc_mcp_registry_errors_total", "kind", help);
    process::write(out);
}

/// The statuses that the program sends by itself. Others can come from an instance through a proxy route.
const STATUSES: [u16; 25] = [
    0, 200, 202, 204, 400, 401, 403, 404, 405, 406, 408, 409, 411, 413, 414, 415, 417, 431, 500, 501, 502, 503, 504,
    505, 508,
];

/// `dcc_mcp_http_requests_total`.
pub struct HttpRequests {
    counts: [[AtomicU64; STATUSES.len() + 1]; Route::COUNT],
}

impl HttpRequests {
    const fn new() -> HttpRequests {
        HttpRequests { counts: [const { [const { AtomicU64::new(0) }; STATUSES.len() + 1] }; Route::COUNT] }
    }

    /// Counts an answered request; status 0 is one whose client went away before the answer.
    pub fn record(&self, route: Route, status: u16) {
        let place = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len());
        self.counts[route.index()][place].fetch_add(1, Relaxed);
    }

    /// Only the pairs that occurred: most never do.
    fn write(&self, out: &mut String) {
        let name = "dcc_mcp_http_requests_total";
        family(out, name, "counter", "Requests by route and status; status none is a client that went away.");
        for (route, counts) in Route::ALL.iter().zip(&self.counts) {
            for (place, count) in counts.iter().enumerate() {
                let status = match STATUSES.get(place) {
                    None => "other".to_owned(),
                    Some(0) => "none".to_owned(),
                    Some(status) => status.to_string(),
                };
                match count.load(Relaxed) {
                    0 => {}
                    count => sample(out, name, &[("route", route.text()), ("status", &status)], count),
                }
            }
        }
    }
}

/// The application types seen so far. A place once given is kept; the last place stands for all further types.
struct Dccs {
    names: RwLock<Vec<String>>,
}

const OTHER_DCC: usize = DCC_LABELS_MAX;

impl Dccs {
    const fn new() -> Dccs {
        Dccs { names: RwLock::new(Vec::new()) }
    }

    fn place(&self, dcc: &str) -> usize {
        let dcc = if dcc.is_empty() { "unknown" } else { dcc };
        if let Some(place) = self.names().iter().position(|name| name == dcc) {
            return place;
        }
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        match names.iter().position(|name| name == dcc) {
            Some(place) => place,
            None if names.len() == DCC_LABELS_MAX || dcc.len() > ENTRY_NAME_BYTES_MAX => OTHER_DCC,
            None => {
                names.push(dcc.to_owned());
                names.len() - 1
            }
        }
    }

    fn names(&self) -> std::sync::RwLockReadGuard<'_, Vec<String>> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every place that is given, in alphabetical order, the last one at the end.
    fn sorted(&self) -> Vec<(String, usize)> {
        let mut all: Vec<_> = self.names().iter().cloned().zip(0..).collect();
        all.sort();
        all.push(("other".to_owned(), OTHER_DCC));
        all
    }
}

/// `dcc_mcp_instances`.
struct Instances {
    dccs: &'static Dccs,
    counts: [AtomicU64; DCC_LABELS_MAX + 1],
}

impl Instances {
    const fn new(dccs: &'static Dccs) -> Instances {
        Instances { dccs, counts: [const { AtomicU64::new(0) }; DCC_LABELS_MAX + 1] }
    }

    fn set<'a>(&self, dcc_types: impl Iterator<Item = &'a str>) {
        let mut counts = [0; DCC_LABELS_MAX + 1];
        dcc_types.for_each(|dcc| counts[self.dccs.place(dcc)] += 1);
        self.counts.iter().zip(counts).for_each(|(place, count)| place.store(count, Relaxed));
    }

    fn write(&self, out: &mut String) {
        family(out, "dcc_mcp_instances", "gauge", "Live instances by application type.");
        for (dcc, place) in self.dccs.sorted() {
            let count = self.counts[place].load(Relaxed);
            if place != OTHER_DCC || count > 0 {
                sample(out, "dcc_mcp_instances", &[("dcc", &dcc)], count);
            }
        }
    }
}

/// `dcc_mcp_tool_calls_total` and `dcc_mcp_tool_call_duration_seconds`.
pub struct ToolCalls {
    dccs: &'static Dccs,
    counts: [[AtomicU64; Outcome::COUNT]; DCC_LABELS_MAX + 1],
    duration: Histogram,
}

impl ToolCalls {
    const fn new(dccs: &'static Dccs) -> ToolCalls {
        let counts = [const { [const { AtomicU64::new(0) }; Outcome::COUNT] }; DCC_LABELS_MAX + 1];
        ToolCalls { dccs, counts, duration: Histogram::new() }
    }

    pub fn record(&self, dcc: &str, outcome: Outcome, took: Duration) {
        self.counts[self.dccs.place(dcc)][outcome.index()].fetch_add(1, Relaxed);
        self.duration.record(took);
    }

    /// All outcomes of a type that was called at all: a rate of errors needs the zeros too.
    fn write(&self, out: &mut String) {
        let name = "dcc_mcp_tool_calls_total";
        family(out, name, "counter", "Tool calls by application type and outcome.");
        for (dcc, place) in self.dccs.sorted() {
            let counts = self.counts[place].each_ref().map(|count| count.load(Relaxed));
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            for (outcome, count) in Outcome::ALL.iter().zip(counts) {
                sample(out, name, &[("dcc", &dcc), ("outcome", outcome.text())], count);
            }
        }
        self.duration.write(out, "dcc_mcp_tool_call_duration_seconds", "Time that a tool call took, end to end.");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn small_families_read_exactly_so() {
        static DCCS: Dccs = Dccs::new();
        static CALLS: ToolCalls = ToolCalls::new(&DCCS);
        static LIVE: Instances = Instances::new(&DCCS);
        LIVE.set(["maya", "blender", "maya", ""].into_iter());
        LIVE.set(["maya", "ma\"ya\\\n"].into_iter());
        CALLS.record("maya", Outcome::Ok, Duration::from_micros(300));
        CALLS.record("maya", Outcome::Timeout, Duration::from_secs(120));
        CALLS.record("maya", Outcome::Timeout, Duration::from_millis(130_500));
        let requests = HttpRequests::new();
        for (route, status) in [(Route::Mcp, 200), (Route::Mcp, 200), (Route::Other, 0), (Route::McpDcc, 299)] {
            requests.record(route, status);
        }
        let mut out = String::new();
        LIVE.write(&mut out);
        CALLS.write(&mut out);
        requests.write(&mut out);
        let expected = r#"# HELP dcc_mcp_instances Live instances by application type.
# TYPE dcc_mcp_instances gauge
dcc_mcp_instances{dcc="blender"} 0
dcc_mcp_instances{dcc="ma\"ya\\\n"} 1
dcc_mcp_instances{dcc="maya"} 1
dcc_mcp_instances{dcc="unknown"} 0
# HELP dcc_mcp_tool_calls_total Tool calls by application type and outcome.
# TYPE dcc_mcp_tool_calls_total counter
dcc_mcp_tool_calls_total{dcc="maya",outcome="ok"} 1
dcc_mcp_tool_calls_total{dcc="maya",outcome="tool_error"} 0
dcc_mcp_tool_calls_total{dcc="maya",outcome="unreachable"} 0
dcc_mcp_tool_calls_total{dcc="maya",outcome="timeout"} 2
dcc_mcp_tool_calls_total{dcc="maya",outcome="cancelled"} 0
dcc_mcp_tool_calls_total{dcc="maya",outcome="refused"} 0
# HELP dcc_mcp_tool_call_duration_seconds Time that a tool call took, end to end.
# TYPE dcc_mcp_tool_call_duration_seconds histogram
dcc_mcp_tool_call_duration_seconds_bucket{le="0.00025"} 0
dcc_mcp_tool_call_duration_seconds_bucket{le="0.0005"} 1
dcc_mcp_tool_call_duration_seconds_bucket{le="0.001"} 1
dcc_mcp_tool_call_duration_seconds_bucket{le="0.0025"} 1
dcc_mcp_tool_call_duration_seconds_bucket{le="0.005"} 1
dcc_mcp_tool_call_duration_seconds_bucket{le="0.01"} 1
dcc_mcp_tool_call_duration_seconds_bucket{le="0.025"} 1
dcc_mcp_tool_call_duration_seconds_bucket{le="0.1"} 1
dcc_mcp_tool_call_duration_seconds_bucket{le="0.25"} 1
dcc_mcp_tool_call_duration_seconds_bucket{le="0.5"} 1
dcc_mcp_tool_call_duration_seconds_bucket{le="1"} 1
dcc_mcp_tool_call_duration_seconds_bucket{le="5"} 1
dcc_mcp_tool_call_duration_seconds_bucket{le="10"} 1
dcc_mcp_tool_call_duration_seconds_bucket{le="30"} 1
dcc_mcp_tool_call_duration_seconds_bucket{le="120"} 2
dcc_mcp_tool_call_duration_seconds_bucket{le="+Inf"} 3
dcc_mcp_tool_call_duration_seconds_sum 250.500300
dcc_mcp_tool_call_duration_seconds_count 3
# HELP dcc_mcp_http_requests_total Requests by route and status; status none is a client that went away.
# TYPE dcc_mcp_http_requests_total counter
dcc_mcp_http_requests_total{route="mcp",status="200"} 2
dcc_mcp_http_requests_total{route="mcp_dcc",status="other"} 1
dcc_mcp_http_requests_total{route="other",status="none"} 1
"#;
        assert_eq!(out, expected);
    }

    #[test]
    fn application_types_are_bounded() {
        static DCCS: Dccs = Dccs::new();
        static LIVE: Instances = Instances::new(&DCCS);
        let names: Vec<String> = (0..1000).map(|number| format!("dcc{number:04}")).collect();
        LIVE.set(names.iter().map(String::as_str).chain(["other"]));
        let mut out = String::new();
        LIVE.write(&mut out);
        assert_eq!(out.lines().count(), 2 + DCC_LABELS_MAX + 1);
        let others = 1000 - DCC_LABELS_MAX + 1;
        assert_eq!(out.lines().last(), Some(format!("dcc_mcp_instances{{dcc=\"other\"}} {others}").as_str()));
        assert_eq!(DCCS.place(&"x".repeat(ENTRY_NAME_BYTES_MAX + 1)), OTHER_DCC);
    }

    #[test]
    fn refusal_codes_find_their_reason() {
        assert_eq!(Refused::of_code("body_too_large"), Refused::BodyTooLarge);
        assert_eq!(Refused::of_code("something_new"), Refused::Other);
    }

    /// Every name of product.md 10 is there; every line parses; no family or sample occurs twice; histograms add up.
    #[test]
    fn the_whole_text_is_valid() {
        HTTP_REQUESTS.record(Route::Health, 200);
        REQUEST_DURATION.record(Duration::from_millis(3));
        TOOL_CALLS.record("houdini", Outcome::Ok, Duration::from_millis(20));
        instances(["houdini"].into_iter());
        let mut out = String::new();
        exposition(&mut out);
        let families = families(&out);
        for name in [
            "dcc_mcp_build_info",
            "dcc_mcp_instances",
            "dcc_mcp_tools",
            "dcc_mcp_gateway_leader",
            "dcc_mcp_http_requests_total",
            "dcc_mcp_http_refused_total",
            "dcc_mcp_request_duration_seconds",
            "dcc_mcp_tool_calls_total",
            "dcc_mcp_tool_call_duration_seconds",
            "dcc_mcp_upstream_errors_total",
            "dcc_mcp_sse_streams",
            "dcc_mcp_sse_dropped_total",
            "dcc_mcp_registry_scan_seconds",
            "dcc_mcp_registry_errors_total",
            "dcc_mcp_takeovers_total",
        ] {
            assert!(families.get(name).is_some_and(|(_, samples)| !samples.is_empty()), "{name}");
        }
        for (name, (kind, samples)) in &families {
            if kind == "histogram" {
                check_histogram(name, samples);
            }
        }
    }

    type Families = BTreeMap<String, (String, Vec<(String, f64)>)>;

    /// Family → its type and its samples (name with labels, value).
    fn families(text: &str) -> Families {
        let (mut families, mut seen) = (Families::new(), BTreeSet::new());
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty());
                current = name.to_owned();
                assert!(families.insert(current.clone(), (String::new(), Vec::new())).is_none(), "twice: {line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(name == current && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(kind != "counter" || name.ends_with("_total"), "{line}");
                families.get_mut(name).unwrap().0 = kind.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(seen.insert(series.to_owned()), "twice: {line}");
                let name = series.split('{').next().unwrap();
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                assert!(series.contains('{') == series.ends_with('}'), "{line}");
                let (kind, samples) = families.get_mut(&current).unwrap();
                let suffix = name.strip_prefix(&current).unwrap();
                assert!(suffix.is_empty() != (kind == "histogram"), "{line}");
                samples.push((series.to_owned(), value.parse().unwrap()));
            }
        }
        families
    }

    fn check_histogram(name: &str, samples: &[(String, f64)]) {
        let value = |series: String| samples.iter().find(|(found, _)| *found == series).map(|(_, value)| *value);
        let buckets: Vec<f64> =
            samples.iter().filter(|(series, _)| series.contains("_bucket{le=")).map(|(_, value)| *value).collect();
        assert!(buckets.is_sorted() && buckets.len() > 10, "{name}: {buckets:?}");
        let count = value(format!("{name}_count")).unwrap();
        assert_eq!(value(format!("{name}_bucket{{le=\"+Inf\"}}")), Some(count), "{name}");
        assert!(value(format!("{name}_sum")).is_some(), "{name}");
    }
}
