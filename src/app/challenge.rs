//! Asking an older gateway of this host to hand the port over to us.
//!
//! **Invariant**: asked only where the registry shows a gateway here that is older. Whether it gives way is its decision.
//! **Thread**: `main`, at each of its looks; it waits for at most `SELF_PROBE_TIME_MAX`.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::deadline::Deadline;
use crate::election::probe::reachable;
use crate::http::client::{Outgoing, Pool};
use crate::json;
use crate::jsonrpc;
use crate::limits::SELF_PROBE_TIME_MAX;
use crate::logging::Quoted;
use crate::os;
use crate::registry::View;
use crate::version::Version;

/// Whether somebody older than us serves this port on this host.
pub fn is_served_by_older(view: &View, port: u16, own: &Version) -> bool {
    view.instances.iter().any(|instance| {
        let entry = &instance.entry;
        let serves = entry.gateway.as_ref().and_then(|address| address.parse::<SocketAddr>().ok());
        serves.is_some_and(|address| address.port() == port)
            && os::is_this_boot(&entry.host_id)
            && Version::parse(&entry.server_version).is_some_and(|version| version < *own)
    })
}

/// Asks again and again; the log says what came of it when that is something new.
#[derive(Default)]
pub struct Challenger {
    last: Option<Answer>,
}

/// What a gateway that was asked has said.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Yields,
    Refuses { status: u16, code: String },
    None(String),
}

impl Challenger {
    /// Asks once.
    pub fn ask(&mut self, address: SocketAddr, own: &Version, token: Option<String>) {
        let address = reachable(address);
        let answer = answer_of(address, own, token);
        if !self.is_news(&answer) {
            return;
        }
        match answer {
            Answer::Yields => log::info!("event=gateway_yields address={address}"),
            Answer::Refuses { status, code } => {
                let code = Quoted(&code);
                log::info!("event=gateway_does_not_yield address={address} status={status} code={code}");
            }
            Answer::None(error) => {
                log::info!("event=gateway_does_not_yield address={address} error={}", Quoted(&error));
            }
        }
    }

    /// There is nobody to be asked now.
    pub fn rest(&mut self) {
        self.last = None;
    }

    fn is_news(&mut self, answer: &Answer) -> bool {
        self.last.replace(answer.clone()).as_ref() != Some(answer)
    }
}

fn answer_of(address: SocketAddr, own: &Version, token: Option<String>) -> Answer {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("Content-Type", "application/json")];
    headers.extend(authorization.as_deref().map(|value| ("Authorization", value)));
    let body = jsonrpc::to_bytes(&json!({"challenger_version": own.to_string()}));
    let request = Outgoing {
        method: "POST",
        target: "/gateway/yield",
        written: None,
        headers: &headers,
        body: &[&body],
        idempotent: false,
    };
    let pool = Pool::new(&address.ip().to_string(), address.port());
    match pool.ask(&request, Deadline::after(SELF_PROBE_TIME_MAX)) {
        Ok((head, _)) if head.status() == 200 => Answer::Yields,
        Ok((head, body)) => {
            let said: Value = json::read(&body).unwrap_or_default();
            let code = said["error"]["code"].as_str().unwrap_or_default().to_owned();
            Answer::Refuses { status: head.status(), code }
        }
        Err(error) => Answer::None(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::registry::entry::Entry;
    use crate::registry::entry::tests::sample;
    use crate::registry::{Instance, Origin};

    #[test]
    fn only_an_older_gateway_of_this_port_and_host_is_asked() {
        let own = Version::parse("1.2.0").expect("a version");
        for (version, gateway, host_id, expected) in [
            ("1.1.9", Some("127.0.0.1:9765"), os::host_id(), true),
            ("1.2.0-rc.1", Some("0.0.0.0:9765"), os::host_id(), true),
            ("1.2.0", Some("127.0.0.1:9765"), os::host_id(), false),
            ("1.3.0", Some("127.0.0.1:9765"), os::host_id(), false),
            ("", Some("127.0.0.1:9765"), os::host_id(), false),
            ("1.1.9", Some("127.0.0.1:9766"), os::host_id(), false),
            ("1.1.9", Some("nonsense"), os::host_id(), false),
            ("1.1.9", None, os::host_id(), false),
            ("1.1.9", Some("127.0.0.1:9765"), "elsewhere/1", false),
        ] {
            let (server_version, gateway) = (version.to_owned(), gateway.map(str::to_owned));
            let entry = Entry { server_version, gateway, host_id: host_id.to_owned(), ..sample("a") };
            let entry = Arc::new(entry);
            let instance = Arc::new(Instance { entry, origin: Origin::Ours, beat_seen: Instant::now() });
            let view = View { instances: vec![instance], ..View::unknown() };
            assert_eq!(is_served_by_older(&view, 9765, &own), expected, "{version} {host_id}");
        }
    }

    #[test]
    fn the_same_answer_is_told_once() {
        let refuses = |code: &str| Answer::Refuses { status: 409, code: code.to_owned() };
        let mut challenger = Challenger::default();
        for (answer, is_told) in [
            (refuses("too_soon"), true),
            (refuses("too_soon"), false),
            (refuses("no_such_instance"), true),
            (Answer::None("nothing listens".to_owned()), true),
            (Answer::None("nothing listens".to_owned()), false),
            (refuses("no_such_instance"), true),
            (Answer::Yields, true),
        ] {
            assert_eq!(challenger.is_news(&answer), is_told, "{answer:?}");
        }
        challenger.rest();
        assert!(challenger.is_news(&Answer::Yields), "it is another challenge");
    }
}
