//! What every request passes before it reaches its route, on both ports: names, token, CORS, request id, metrics.
//!
//! **Invariant**: `/health` and `/readyz` need no token; everything else does, where tokens are asked for. CORS header
//! fields are given to allowed origins only, and never for `*`.
//! **Thread**: the connection's.
//! Left out on purpose: what the routes do (`endpoint.rs`, `status.rs`, `gateway.rs`).

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::endpoint::access::Access;
use crate::http::head::{Method, RequestHead};
use crate::http::server::{Exchange, Handler, Refusal};
use crate::logging::{self, Quoted};
use crate::mcp::mirror;
use crate::metrics::{self, Route};

/// The routes of one port.
pub trait Site: Send + Sync + 'static {
    fn route(&self, path: &str) -> Route;

    /// Serves an admitted request; `headers` go with every answer.
    fn serve(
        &self,
        route: Route,
        request: &RequestHead,
        exchange: &mut Exchange<'_>,
        headers: &[(&str, &str)],
    ) -> io::Result<()>;
}

pub struct Front<S> {
    pub access: Arc<Access>,
    pub site: S,
}

impl<S: Site> Handler for Front<S> {
    fn handle(&self, request: &RequestHead, exchange: &mut Exchange<'_>) {
        let started = Instant::now();
        let _request = logging::request();
        let route = self.site.route(request.path());
        let result = self.admit(route, request, exchange);
        let status = exchange.status().unwrap_or(0);
        metrics::HTTP_REQUESTS.record(route, status);
        // A stream lasts as long as its client likes; that is no measure of ours.
        if request.method() != Method::Get || !matches!(route, Route::Mcp | Route::McpInstance | Route::McpDcc) {
            metrics::REQUEST_DURATION.record(started.elapsed());
        }
        log::debug!(
            "event=request method={} path={} status={status} ms={}{}",
            request.method().as_str(),
            Quoted(request.path()),
            started.elapsed().as_millis(),
            result.err().map(|error| format!(" error={}", Quoted(&error))).unwrap_or_default(),
        );
    }
}

impl<S: Site> Front<S> {
    fn admit(&self, route: Route, request: &RequestHead, exchange: &mut Exchange<'_>) -> io::Result<()> {
        if let Err(refusal) = self.access.check_names(request) {
            return exchange.refuse(&refusal);
        }
        let origin = request.header("origin");
        if let Some(origin) = origin
            && request.method() == Method::Options
        {
            return preflight(request, exchange, origin);
        }
        let headers: &[(&str, &str)] = match origin {
            Some(origin) => &allowed(origin),
            None => &[],
        };
        let public = matches!(route, Route::Health | Route::Readyz);
        if !public && let Err(refusal) = self.access.check_token(request) {
            return unauthorized(exchange, &refusal, headers);
        }
        self.site.serve(route, request, exchange, headers)
    }
}

/// 401 names the scheme that is wanted (RFC 6750, section 3).
fn unauthorized(exchange: &mut Exchange<'_>, refusal: &Refusal, headers: &[(&str, &str)]) -> io::Result<()> {
    let scheme = ("WWW-Authenticate", "Bearer realm=\"dcc-mcp-server\"");
    exchange.refuse_with(refusal, &[&[scheme][..], headers].concat())
}

/// For a page of an allowed origin: it may read the answer and its session id (Fetch standard, CORS).
fn allowed(origin: &str) -> [(&str, &str); 3] {
    [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Expose-Headers", "Mcp-Session-Id, WWW-Authenticate"),
        ("Vary", "Origin"),
    ]
}

/// What a browser asks before it lets such a page send a request with these header fields.
fn preflight(request: &RequestHead, exchange: &mut Exchange<'_>, origin: &str) -> io::Result<()> {
    // Those that repeat a tool's arguments are named by the tool (2026-07-28).
    let asked = request.header("access-control-request-headers").unwrap_or_default().split(',').map(str::trim);
    let taken = FIELDS_OF_MCP.into_iter().chain(asked.filter(|name| mirror::is_field(name)));
    let taken = taken.collect::<Vec<_>>().join(", ");
    let headers = [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Methods", "GET, POST, DELETE"),
        ("Access-Control-Allow-Headers", taken.as_str()),
        ("Access-Control-Max-Age", "600"),
        ("Vary", "Origin, Access-Control-Request-Headers"),
    ];
    exchange.respond(204, &headers, &[])
}

/// The header fields of requests in all revisions that a browser does not send unasked.
const FIELDS_OF_MCP: [&str; 8] = [
    "Authorization",
    "Content-Type",
    "Accept",
    "Mcp-Session-Id",
    "MCP-Protocol-Version",
    "Last-Event-ID",
    "Mcp-Method",
    "Mcp-Name",
];
