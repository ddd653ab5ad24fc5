//! Who may talk to a server: the checks of `Host` and `Origin`, and the token.

use std::fs;

use rustix::process::Signal;
use serde_json::json;

use crate::client::{Connection, R06, Session, get};
use crate::folder::write;
use crate::program::{Start, World};
use crate::skill;
use crate::wait::{PATIENCE, until};

#[test]
fn host_and_origin_must_be_loopback_or_listed() {
    let world = World::new();
    let args = ["--allowed-hosts", "mcp.studio.example", "--allowed-origins", "https://tools.studio.example"];
    let instance = world.start(Start::new().args(args));
    world.wait_instances(1);
    let cases: &[(&str, &str, bool)] = &[
        ("Host", "localhost", true),
        ("Host", "localhost:1234", true),
        ("Host", "LOCALHOST:80", true),
        ("Host", "127.0.0.1", true),
        ("Host", "127.0.0.1:9", true),
        ("Host", "[::1]:9765", true),
        ("Host", "mcp.studio.example", true),
        ("Host", "evil.example", false),
        ("Host", "evil.example:9765", false),
        ("Host", "localhost.evil.example", false),
        ("Host", "127.0.0.1.evil.example", false),
        ("Host", "127.0.0.1@evil.example", false),
        ("Host", "sub.mcp.studio.example", false),
        ("Origin", "http://localhost", true),
        ("Origin", "http://localhost:3000", true),
        ("Origin", "https://127.0.0.1:8443", true),
        ("Origin", "http://[::1]:3000", true),
        ("Origin", "https://tools.studio.example", true),
        ("Origin", "null", false),
        ("Origin", "http://evil.example", false),
        ("Origin", "http://localhost.evil.example", false),
        ("Origin", "https://tools.studio.example.evil.example", false),
        ("Origin", "file://", false),
        ("Origin", "", false),
    ];
    for address in [world.gateway(), instance.address] {
        let session = Session::open(address, R06);
        for (name, value, allowed) in cases {
            for (method, path) in [("GET", "/health"), ("POST", "/mcp"), ("DELETE", "/mcp")] {
                if method == "DELETE" && *allowed || path == "/health" && *name == "Origin" && value.is_empty() {
                    continue;
                }
                let mut headers = session.headers();
                headers.push((name, value));
                let body = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
                let body = (method == "POST").then_some(body.as_slice());
                let mut connection = Connection::open(address).expect("a connection");
                let reply = connection.request(method, path, &headers, body).expect("a reply");
                let expected = if *allowed {
                    200
                } else if value.contains('@') {
                    400 // not a host at all
                } else {
                    403
                };
                assert_eq!(reply.status, expected, "{method} {path} {name}: {value:?}: {}", reply.text());
                assert_ne!(reply.header("access-control-allow-origin"), Some("*"));
                assert!(*allowed || reply.header("access-control-allow-origin").is_none(), "{name}: {value}");
            }
        }
        assert_eq!(Session::open(address, R06).beside().post(&ping()).status, 200);
    }
}

#[test]
fn every_route_but_liveness_and_readiness_wants_the_token() {
    let world = World::new();
    skill::probe(&world.skills());
    let tokens = world.path().join("tokens");
    write(&tokens, "first-token-0123456789\nsecond-token-0123456789\n");
    let (tokens_arg, skills) = (tokens.display().to_string(), world.skills().display().to_string());
    let with_token = || Start::new().args(["--auth-token-file", &tokens_arg, "--skill-paths", &skills]);
    let gateway = world.start(with_token());
    until(PATIENCE, "the first process is the gateway", || gateway.is_gateway());
    let instance = world.start(with_token().args(["--dcc", "maya", "--load-skills", "all"]));

    for address in [world.gateway(), instance.address] {
        for path in ["/health", "/readyz"] {
            until(PATIENCE, "open to everyone", || crate::client::status(address, path) == Some(200));
        }
        for (authorization, status) in [
            (None, 401),
            (Some("Bearer wrong"), 401),
            (Some("Bearer "), 401),
            (Some("Bearer first-token-0123456789x"), 401),
            (Some("Bearer first-token-012345678"), 401),
            (Some("Basic Zmlyc3QtdG9rZW4tMDEyMzQ1Njc4OQ=="), 401),
            (Some("first-token-0123456789"), 401),
            (Some("Bearer first-token-0123456789"), 200),
            (Some("bearer second-token-0123456789"), 200),
        ] {
            let mut headers = vec![("Accept", crate::client::ACCEPT_BOTH), ("Content-Type", "application/json")];
            headers.extend(authorization.map(|value| ("Authorization", value)));
            let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize",
                "params": crate::client::initialize_params(R06)})
            .to_string();
            let mut connection = Connection::open(address).expect("a connection");
            let reply = connection.request("POST", "/mcp", &headers, Some(body.as_bytes())).expect("a reply");
            assert_eq!(reply.status, status, "{authorization:?}: {}", reply.text());
            let challenge = reply.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer"));
            assert_eq!(challenge, status == 401, "{authorization:?}");
        }
    }
    assert_eq!(get(world.gateway(), "/instances").map(|reply| reply.status).ok(), Some(401));
    let headers = [("Authorization", "Bearer first-token-0123456789")];
    let mut connection = Connection::open(world.gateway()).expect("a connection");
    let metrics = connection.request("GET", "/metrics", &headers, None).expect("a reply");
    let refused = "dcc_mcp_http_refused_total{reason=\"unauthorized\"} ";
    let count = metrics.text().lines().find_map(|line| line.strip_prefix(refused)?.parse().ok());
    assert!(count.is_some_and(|count: u32| count >= 8), "{}", metrics.text());
    until(PATIENCE, "it is told", || gateway.stderr().contains("event=request_refused"));
    let told = gateway.stderr().lines().filter(|line| line.contains("event=request_refused")).count();
    assert!((1..8).contains(&told), "at most a line a second:\n{}", gateway.stderr());

    let mut session = Session::open_with(world.gateway(), "/mcp", R06, Some("second-token-0123456789"));
    let tool = format!("{}__probe_tools__echo", instance.short());
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&tool));
    assert_eq!(session.structured(&tool, json!({"text": "x"})), json!({"text": "x"}), "the gateway has the token too");
    for process in [&gateway, &instance] {
        assert!(!process.stderr().contains("token-0123456789"), "no token in a log:\n{}", process.stderr());
    }

    fs::write(&tokens, "third-token-0123456789\n").expect("the token file");
    gateway.signal(Signal::HUP);
    instance.signal(Signal::HUP);
    until(PATIENCE, "the new token is read", || {
        let headers = [("Authorization", "Bearer third-token-0123456789")];
        let mut connection = Connection::open(world.gateway()).expect("a connection");
        connection.request("GET", "/instances", &headers, None).is_ok_and(|reply| reply.status == 200)
    });
    assert_eq!(session.post(&ping()).status, 401, "the old one is no longer one");
    let mut session = Session::open_with(world.gateway(), "/mcp", R06, Some("third-token-0123456789"));
    until(PATIENCE, "the gateway presents the new token too", || {
        session.call(&tool, json!({"text": "x"}))["structuredContent"] == json!({"text": "x"})
    });
}

/// Revision 2026-07-28 has header fields of its own: without them in the answer no browser sends such a request.
#[test]
fn a_page_of_an_allowed_origin_may_send_what_mcp_has() {
    let world = World::new();
    let tokens = world.path().join("tokens");
    write(&tokens, "a-token-0123456789\n");
    let instance = world.start(Start::new().args(["--auth-token-file", &tokens.display().to_string()]));
    let asked = "authorization, mcp-method, mcp-name, mcp-param-scene, x-other";
    let headers = [("Origin", "http://localhost:6274"), ("Access-Control-Request-Headers", asked)];
    let mut connection = Connection::open(instance.address).expect("a connection");
    let reply = connection.request("OPTIONS", "/mcp", &headers, None).expect("a reply");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, Some("http://localhost:6274")));
    let allowed = reply.header("access-control-allow-headers").unwrap_or_default().to_ascii_lowercase();
    let allowed: Vec<&str> = allowed.split(", ").collect();
    for name in ["authorization", "content-type", "mcp-session-id", "mcp-method", "mcp-name", "mcp-param-scene"] {
        assert!(allowed.contains(&name), "{name}: {allowed:?}");
    }
    assert!(!allowed.contains(&"x-other"), "{allowed:?}");

    let reply = connection.request("POST", "/mcp", &headers, Some(b"{}")).expect("a reply");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (401, Some("http://localhost:6274")));
    let exposed = reply.header("access-control-expose-headers").unwrap_or_default();
    assert!(exposed.contains("WWW-Authenticate"), "a page can tell what is wanted: {exposed}");
}

#[test]
fn the_advertised_name_is_served_on_loopback_too() {
    let world = World::new();
    let instance = world.start(Start::new().args(["--advertise-host", "render07.studio"]));
    for (host, status) in [("render07.studio", 200), ("render07.studio:9765", 200), ("render08.studio", 403)] {
        let mut connection = Connection::open(instance.address).expect("a connection");
        connection.send(format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).expect("it is sent");
        assert_eq!(connection.read_reply(PATIENCE).map(|reply| reply.status).ok(), Some(status), "{host}");
    }
}

#[test]
fn a_token_of_the_client_goes_to_nobody_else() {
    let world = World::new();
    let _gateway = world.start(Start::new());
    let other = crate::backend::Backend::start(
        crate::backend::Manner::Json(json!({"content": []})),
        vec![crate::backend::tool("go")],
    );
    let _entry = other.register(&world.registry(), "maya");
    let mut session = Session::open_with(world.gateway(), "/mcp", R06, Some("of-the-client-only"));
    let name = format!("{}__go", other.short());
    until(PATIENCE, "the tool is listed", || session.tool_names().contains(&name));
    session.call(&name, json!({}));
    assert!(!other.heads().iter().any(|head| head.contains("of-the-client-only")), "{:?}", other.heads());
}

fn ping() -> serde_json::Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})
}
