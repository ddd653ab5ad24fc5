//! Media types of the MCP endpoint: what a client sends, and what it says it takes.
//!
//! **Invariant**: an answer may be JSON or an event stream, so that a POST must accept both (transports, sending).
//! Left out on purpose: quality values; whoever lists a type takes it.

use crate::http::head::RequestHead;
use crate::jsonrpc::{ErrorObject, INVALID_REQUEST};

/// What nearly all clients send, so that it need not be taken apart.
const USUAL_ACCEPT: &str = "application/json, text/event-stream";

/// 415 or 406 with the reason, unless the message is JSON and both forms of an answer are taken.
pub fn check(request: &RequestHead) -> Result<(), (u16, ErrorObject)> {
    check_content_type(request)?;
    if request.header("accept") == Some(USUAL_ACCEPT) {
        return Ok(());
    }
    if !accepts(request, "application/json") || !accepts(request, "text/event-stream") {
        let text = "send \"Accept: application/json, text/event-stream\": an answer may come as either";
        return Err((406, ErrorObject::new(INVALID_REQUEST, text)));
    }
    Ok(())
}

/// 415 unless the body is said to be JSON, as it is (RFC 9110, sections 8.4 and 15.5.16).
pub fn check_content_type(request: &RequestHead) -> Result<(), (u16, ErrorObject)> {
    let content_type = request.header("content-type").unwrap_or_default();
    if content_type != "application/json" && !media_type(content_type).eq_ignore_ascii_case("application/json") {
        let text = "send the message with \"Content-Type: application/json\"";
        return Err((415, ErrorObject::new(INVALID_REQUEST, text)));
    }
    if request.header("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        let text = "send the message as it is, without Content-Encoding";
        return Err((415, ErrorObject::new(INVALID_REQUEST, text)));
    }
    Ok(())
}

/// Whether `Accept` lists a media type, by name or by a range that covers it (RFC 9110, section 12.5.1).
pub fn accepts(request: &RequestHead, wanted: &str) -> bool {
    let family = wanted.split('/').next().unwrap_or_default();
    request.all("accept").flat_map(|value| value.split(',')).map(media_type).any(|range| {
        range.eq_ignore_ascii_case(wanted)
            || range == "*/*"
            || range.strip_suffix("/*").is_some_and(|range| range.eq_ignore_ascii_case(family))
    })
}

fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}
