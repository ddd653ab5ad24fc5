//! `POST /gateway/yield`: a newer version of this program asks for the gateway port.
//!
//! **Invariant**: the port is handed over only to a version that is newer than ours and of which an instance lives on
//! this host, and only at the word of a process of this host. The same version or an older one never gets it.
//! **Thread**: the connection's; it waits for `election` for a moment.
//! **Bounds**: `YIELD_BODY_BYTES_MAX`; how often it may happen is the election's to say.
//! Left out on purpose: Host, Origin and token, which are checked before any route (`front.rs`).

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use crate::election::Yielded;
use crate::endpoint::{media, method_not_allowed};
use crate::http::head::{Method, RequestHead};
use crate::http::server::{Exchange, Refusal};
use crate::json;
use crate::jsonrpc;
use crate::limits::YIELD_BODY_BYTES_MAX;
use crate::os;
use crate::registry::{Origin, View};
use crate::status::respond_json;
use crate::version::Version;

pub struct Handover {
    pub own: Version,
    /// Addresses of this host besides loopback.
    pub local: Vec<IpAddr>,
    pub view: Box<dyn Fn() -> Arc<View> + Send + Sync>,
    pub hand_over: Box<dyn Fn(Version) -> Yielded + Send + Sync>,
}

/// Who hands a request on says so in one of these: it comes from anywhere, whatever its last hop is.
const FORWARDED: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

#[derive(Deserialize)]
struct Wish {
    challenger_version: String,
}

impl Handover {
    pub fn serve(
        &self,
        request: &RequestHead,
        exchange: &mut Exchange<'_>,
        headers: &[(&str, &str)],
    ) -> io::Result<()> {
        if request.method() != Method::Post {
            return method_not_allowed(exchange, headers, "POST");
        }
        match self.grant(request, exchange) {
            Ok(version) => {
                let body = json!({"yielded": true, "from": self.own.to_string(), "to": version.to_string()});
                respond_json(exchange, 200, headers, &jsonrpc::to_bytes(&body))
            }
            Err(Refusal { status, code, message }) => {
                let body = json!({"error": {"code": code, "message": message}});
                respond_json(exchange, status, headers, &jsonrpc::to_bytes(&body))
            }
        }
    }

    fn grant(&self, request: &RequestHead, exchange: &mut Exchange<'_>) -> Result<Version, Refusal> {
        let is_forwarded = FORWARDED.iter().any(|name| request.header(name).is_some());
        if is_forwarded || !self.is_local(exchange.peer().ip()) {
            let message = "only a process of this host may ask for the port, and not through a proxy";
            return Err(Refusal::new(403, "peer_not_allowed", message));
        }
        if let Err((status, error)) = media::check_content_type(request) {
            return Err(Refusal::new(status, "unsupported_media_type", error.message));
        }
        let body = exchange.read_body()?;
        if body.len() > YIELD_BODY_BYTES_MAX {
            return Err(Refusal::new(413, "body_too_large", format!("it has at most {YIELD_BODY_BYTES_MAX} bytes")));
        }
        let version = challenger(&body)?;
        self.check(&version)?;
        match (self.hand_over)(version.clone()) {
            Yielded::Done => Ok(version),
            Yielded::NotServing => Err(conflict("not_serving", "this process does not serve the gateway port")),
            Yielded::TooSoon => Err(conflict("too_soon", "the port was handed over a moment ago, and came back")),
            Yielded::NotOurs => {
                let message = "the socket is the service manager's; restart the service instead";
                Err(conflict("socket_is_not_ours", message))
            }
        }
    }

    fn check(&self, challenger: &Version) -> Result<(), Refusal> {
        if *challenger <= self.own {
            let message = format!("{challenger} is not newer than {}", self.own);
            return Err(conflict("not_newer", message));
        }
        let lives = (self.view)().instances.iter().any(|instance| {
            instance.origin == Origin::Ours
                && os::is_this_boot(&instance.entry.host_id)
                && Version::parse(&instance.entry.server_version).as_ref() == Some(challenger)
        });
        if lives {
            return Ok(());
        }
        Err(conflict("no_such_instance", format!("no instance of version {challenger} lives on this host")))
    }

    fn is_local(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        peer.is_loopback() || self.local.iter().any(|local| local.to_canonical() == peer)
    }
}

fn challenger(body: &[u8]) -> Result<Version, Refusal> {
    let bad = |message: &str| Refusal::new(400, "bad_request", message);
    let wish: Wish = json::read(body).map_err(|_| bad("the body must be {\"challenger_version\":\"x.y.z\"}"))?;
    Version::parse(&wish.challenger_version).ok_or_else(|| bad("challenger_version is no semantic version"))
}

fn conflict(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::new(409, code, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Instance;
    use crate::registry::entry::Entry;
    use crate::registry::entry::tests::sample;

    fn handover(versions: &[(&str, &str)]) -> Handover {
        let instance = |(version, host_id): &(&str, &str)| {
            let entry =
                Entry { server_version: (*version).to_owned(), host_id: (*host_id).to_owned(), ..sample("challenger") };
            Arc::new(Instance { entry: Arc::new(entry), origin: Origin::Ours, beat_seen: std::time::Instant::now() })
        };
        let view = Arc::new(View { instances: versions.iter().map(instance).collect(), ..View::unknown() });
        Handover {
            own: Version::parse("1.9.0").expect("a version"),
            local: vec!["10.0.0.7".parse().expect("an address")],
            view: Box::new(move || Arc::clone(&view)),
            hand_over: Box::new(|_| Yielded::Done),
        }
    }

    #[test]
    fn only_a_newer_version_that_lives_here_is_given_way() {
        let there = handover(&[("2.0.0", "elsewhere/1"), ("1.10.0", os::host_id()), ("1.9.0", os::host_id())]);
        for (version, expected) in [
            ("1.10.0", None),
            ("1.10.0-rc.1", Some("no_such_instance")),
            ("1.9.1", Some("no_such_instance")),
            ("2.0.0", Some("no_such_instance")),
            ("1.9.0", Some("not_newer")),
            ("1.9.0-rc.1", Some("not_newer")),
            ("1.8.12", Some("not_newer")),
        ] {
            let version = Version::parse(version).expect("a version");
            let outcome = there.check(&version);
            assert_eq!(
                outcome.as_ref().err().map(|refusal| (refusal.status, refusal.code)),
                expected.map(|code| (409, code))
            );
        }
    }

    #[test]
    fn peers_of_this_host() {
        let here = handover(&[]);
        for (peer, is_local) in [
            ("127.0.0.1", true),
            ("127.3.4.5", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.7", true),
            ("::ffff:10.0.0.7", true),
            ("10.0.0.8", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(here.is_local(peer.parse().expect("an address")), is_local, "{peer}");
        }
    }

    #[test]
    fn bodies() {
        assert!(challenger(br#"{"challenger_version":"1.2.3","more":[1]}"#).is_ok());
        for body in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"challenger_version":1}"#,
            r#"{"challenger_version":"2024"}"#,
            r#"{"challenger_version":"1.2.3"} x"#,
            "\u{0}",
        ] {
            assert_eq!(challenger(body.as_bytes()).map_err(|refusal| refusal.status), Err(400), "{body}");
        }
    }
}
