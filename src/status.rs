//! `/health`, `/readyz` and `/metrics`, on both ports, and the answers to paths that are not there.
//!
//! **Invariant**: `/health` touches nothing: it says that requests are answered, no more. `/readyz` names what fails.
//! **Thread**: the connection's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value, json};

use crate::endpoint::method_not_allowed;
use crate::http::head::{Method, RequestHead};
use crate::http::server::Exchange;
use crate::jsonrpc;
use crate::metrics::{self, Route};

/// One check of `/readyz`: its name and how it stands.
pub type Check = (&'static str, Box<dyn Fn() -> Result<(), String> + Send + Sync>);

pub struct Status {
    checks: Vec<Check>,
    draining: Arc<AtomicBool>,
}

impl Status {
    pub fn new(checks: Vec<Check>, draining: Arc<AtomicBool>) -> Status {
        Status { checks, draining }
    }

    /// Whether the process is stopping.
    pub fn draining(&self) -> &AtomicBool {
        &self.draining
    }

    /// Serves the routes of this module; others are not found.
    pub fn serve(
        &self,
        route: Route,
        request: &RequestHead,
        exchange: &mut Exchange<'_>,
        headers: &[(&str, &str)],
    ) -> io::Result<()> {
        if !matches!(request.method(), Method::Get | Method::Head) && route != Route::Other {
            return method_not_allowed(exchange, headers, "GET, HEAD");
        }
        match route {
            Route::Health => respond_json(exchange, 200, headers, br#"{"ok":true}"#),
            Route::Readyz => {
                let (ready, checks) = self.readiness();
                let body = jsonrpc::to_bytes(&json!({"ready": ready, "checks": checks}));
                respond_json(exchange, if ready { 200 } else { 503 }, headers, &body)
            }
            Route::Metrics => {
                let mut text = String::new();
                metrics::exposition(&mut text);
                let mut all = vec![("Content-Type", "text/plain; version=0.0.4")];
                all.extend_from_slice(headers);
                exchange.respond(200, &all, &[text.as_bytes()])
            }
            _ => not_found(exchange, headers, "there is nothing at this path; the MCP endpoint is /mcp"),
        }
    }

    fn readiness(&self) -> (bool, Map<String, Value>) {
        let draining = self.draining.load(Ordering::Acquire);
        let stands = |outcome: Result<(), String>| outcome.map_or_else(Value::String, |()| "ok".into());
        let mut checks: Map<String, Value> =
            self.checks.iter().map(|(name, check)| ((*name).to_owned(), stands(check()))).collect();
        let drain = if draining { Err("this process is stopping".to_owned()) } else { Ok(()) };
        checks.insert("draining".to_owned(), stands(drain));
        (checks.values().all(|outcome| outcome == "ok"), checks)
    }
}

pub fn respond_json(exchange: &mut Exchange<'_>, status: u16, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
    let mut all = vec![("Content-Type", "application/json"), ("Cache-Control", "no-store")];
    all.extend_from_slice(headers);
    exchange.respond(status, &all, &[body])
}

pub fn not_found(exchange: &mut Exchange<'_>, headers: &[(&str, &str)], message: &str) -> io::Result<()> {
    let body = json!({"error": {"code": "not_found", "message": message}});
    respond_json(exchange, 404, headers, &jsonrpc::to_bytes(&body))
}
