//! `subscriptions/listen`: a stream of the changes that its client asked for (2026-07-28).
//!
//! **Invariant**: a listener hears of nothing that it did not ask for; everything on its stream is marked with its request.
//! **Thread**: the connection's.
//! **Bounds**: the stream counts among `STREAMS_MAX`, its resources are those of `subscriptions.rs`.

use std::io;

use crossbeam_channel::RecvTimeoutError;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::deadline::Deadline;
use crate::endpoint::outlet::SSE_HEADERS;
use crate::endpoint::params::read;
use crate::endpoint::{Endpoint, Refused, respond_refused, too_many_streams};
use crate::http::server::Exchange;
use crate::http::sse;
use crate::hub::{Hub, Told};
use crate::jsonrpc::{self, Message, RequestId};
use crate::limits::{FAN_OUT_TIME_MAX, SSE_COMMENT_EVERY, SUBSCRIPTIONS_PER_SESSION_MAX};
use crate::mcp::RawObject;
use crate::mcp::params::{Object, SubscribeParams};
use crate::os;

const SUBSCRIPTION_KEY: &str = "io.modelcontextprotocol/subscriptionId";
const UPDATED: &str = "notifications/resources/updated";

#[derive(Deserialize)]
struct ListenParams {
    notifications: Object<Filter>,
}

/// What a listener asks for. Only kinds that are offered are honoured.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    tools_list_changed: bool,
    #[serde(default)]
    prompts_list_changed: bool,
    #[serde(default)]
    resources_list_changed: bool,
    #[serde(default)]
    resource_subscriptions: Vec<String>,
}

impl Filter {
    /// What is asked for: the member that asks for it, and the notification that it is.
    fn wanted(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let all = [
            (self.tools_list_changed, "toolsListChanged", "notifications/tools/list_changed"),
            (self.prompts_list_changed, "promptsListChanged", "notifications/prompts/list_changed"),
            (self.resources_list_changed, "resourcesListChanged", "notifications/resources/list_changed"),
        ];
        all.into_iter().filter(|(wanted, ..)| *wanted).map(|(_, member, method)| (member, method))
    }

    /// What an event of the hub, which is written for sessions, means for this listener.
    fn about(&self, event: &[u8], id: RequestId<'_>) -> Vec<Vec<u8>> {
        if let Some(uri) = updated(event) {
            return vec![notification(UPDATED, id, &json!({"uri": uri}))];
        }
        let told = self.wanted().filter(|(_, method)| tells(event, method));
        told.map(|(_, method)| notification(method, id, &json!({}))).collect()
    }
}

/// The resources of a listener; gone with it.
struct Subscribed<'h> {
    hub: &'h Hub,
    key: u128,
}

impl Drop for Subscribed<'_> {
    fn drop(&mut self) {
        self.hub.subscriptions.end(self.key);
    }
}

impl Endpoint {
    /// A stream of the changes that its client asked for, until that goes or we stop.
    pub(super) fn listen(
        &self,
        exchange: &mut Exchange<'_>,
        headers: &[(&str, &str)],
        id: RequestId<'_>,
        params: Option<&RawValue>,
    ) -> io::Result<()> {
        let ListenParams { notifications: Object(notifications) } = match read(params) {
            Ok(params) => params,
            Err(error) => return respond_refused(exchange, headers, Some(id), &Refused(200, error)),
        };
        let key = u128::from_be_bytes(os::random_bytes::<16>());
        let subscribed = Subscribed { hub: &self.hub, key };
        let deadline = Deadline::after(FAN_OUT_TIME_MAX);
        let uris = notifications.resource_subscriptions.iter().take(SUBSCRIPTIONS_PER_SESSION_MAX);
        let uris: Vec<&String> = uris.filter(|uri| self.watch(key, uri, deadline).is_ok()).collect();
        let Ok(stream) = self.hub.open(key, Told::State(self.service.settled())) else {
            return exchange.refuse(&too_many_streams());
        };
        let mut all = SSE_HEADERS.to_vec();
        all.extend_from_slice(headers);
        exchange.start_stream(200, &all)?;
        let mut honoured: Map<String, Value> =
            notifications.wanted().map(|(member, _)| (member.to_owned(), true.into())).collect();
        if !uris.is_empty() {
            honoured.insert("resourceSubscriptions".to_owned(), json!(uris));
        }
        let acknowledged =
            notification("notifications/subscriptions/acknowledged", id, &json!({"notifications": honoured}));
        exchange.write(&[&sse::encode(None, &acknowledged)])?;
        loop {
            match stream.next(SSE_COMMENT_EVERY) {
                Ok(event) => {
                    for message in notifications.about(&event, id) {
                        exchange.write(&[&sse::encode(None, &message)])?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => exchange.write(&[&sse::comment("")])?,
                Err(RecvTimeoutError::Disconnected) => {
                    drop(subscribed);
                    let result = format!(r#"{{"resultType":"complete","_meta":{}}}"#, mark(id));
                    let response = jsonrpc::result(id, result.as_bytes());
                    return exchange.write_last(&[&sse::encode(None, &response)]);
                }
            }
        }
    }
}

/// A notification on a listener's stream, marked with the request that opened it.
fn notification(method: &str, id: RequestId<'_>, params: &Value) -> Vec<u8> {
    let mut members: RawObject = serde_json::from_value(params.clone()).unwrap_or_default();
    members.extend(RawValue::from_string(mark(id)).ok().map(|mark| ("_meta".to_owned(), mark)));
    jsonrpc::notification(method, Some(&jsonrpc::to_bytes(&members)))
}

/// `_meta` as JSON text, with the request's id as it was sent: of a long number a float would be another one.
fn mark(id: RequestId<'_>) -> String {
    format!(r#"{{"{SUBSCRIPTION_KEY}":{}}}"#, id.text())
}

/// The resource that has changed, if that is what an event says.
fn updated(event: &[u8]) -> Option<String> {
    let data = event.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"data: "))?;
    let Ok(Message::Notification { method, params }) = jsonrpc::parse_one(std::str::from_utf8(data).ok()?) else {
        return None;
    };
    let SubscribeParams { uri } = serde_json::from_str(params.filter(|_| method == UPDATED)?.get()).ok()?;
    Some(uri.into_owned())
}

/// Of the other events of the hub only the kind counts.
fn tells(event: &[u8], method: &str) -> bool {
    event.windows(method.len()).any(|window| window == method.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_hear_of_their_own_request() {
        for text in [r#""a""#, "7", "123456789012345678901234567890"] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{text},"method":"subscriptions/listen"}}"#);
            let Ok(Message::Request { id, .. }) = jsonrpc::parse_one(&body) else { panic!("a request") };
            let told = notification("notifications/x", id, &json!({"uri": "u"}));
            let expected = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/x","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{text}}},"uri":"u"}}}}"#
            );
            assert_eq!(String::from_utf8(told).expect("it is text"), expected);
        }
    }
}
