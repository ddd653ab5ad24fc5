//! Everything that one instance lists: as it published it in the registry, or as it told when it was asked.
//!
//! **Invariant**: objects stay as they were told; what the gateway has itself is left out.
//! **Thread**: a `fetch-*` thread asks; reading what was published is the catalogue's.
//! **Bounds**: `TOOLS_PER_INSTANCE_MAX` of each kind, `TOOLS_FETCH_TIME_MAX`.

use serde::Deserialize;
use serde_json::json;

use crate::deadline::Deadline;
use crate::gateway::meta::is_own_tool;
use crate::gateway::upstream::Upstream;
use crate::gateway::upstream_error::UpstreamError;
use crate::json;
use crate::jsonrpc;
use crate::limits::{TOOLS_FETCH_TIME_MAX, TOOLS_PER_INSTANCE_MAX};
use crate::logging::Quoted;
use crate::mcp::RawObject;
use crate::mcp::lists::Listed;
use crate::registry::Instance;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Offered {
    pub tools: Vec<RawObject>,
    pub prompts: Vec<RawObject>,
    pub resources: Vec<RawObject>,
    pub resource_templates: Vec<RawObject>,
}

/// What an answer to a list method has beside the list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    next_cursor: Option<String>,
}

impl Offered {
    /// Reads what an instance published: an object with a member for each list, or, in its first form, an array of tools.
    pub fn parse(published: &[u8]) -> Option<Offered> {
        if published.trim_ascii_start().starts_with(b"[") {
            let tools = json::read(published).ok()?;
            return Some(Offered { tools, ..Offered::default() });
        }
        json::read(published).ok()
    }

    /// At most so many of each kind.
    pub fn bounded(mut self, instance: &Instance) -> Offered {
        let lists = [&mut self.tools, &mut self.prompts, &mut self.resources, &mut self.resource_templates];
        for list in lists.into_iter().filter(|list| list.len() > TOOLS_PER_INSTANCE_MAX) {
            let id = &instance.entry.instance_id;
            log::warn!("event=too_much_offered instance={id} count={} limit={TOOLS_PER_INSTANCE_MAX}", list.len());
            list.truncate(TOOLS_PER_INSTANCE_MAX);
        }
        self
    }

    /// Asks an instance for all that it lists. Without its tools nothing is known; the rest may be missing.
    pub fn fetch(upstream: &Upstream) -> Option<Offered> {
        let deadline = Deadline::after(TOOLS_FETCH_TIME_MAX);
        let mut tools = fetch_list(upstream, Listed::Tools, deadline).map_err(|error| {
            log::debug!(
                "event=tools_not_told instance={} error={}",
                upstream.instance.entry.instance_id,
                Quoted(&error)
            );
        });
        if let Ok(tools) = &mut tools {
            tools.retain(|tool| text_of(tool, "name").is_some_and(|name| !is_own_tool(&name)));
        }
        let rest = |capability: &str, listed| match upstream.offers(capability, deadline) {
            Ok(true) => fetch_list(upstream, listed, deadline).unwrap_or_default(),
            _ => Vec::new(),
        };
        Some(Offered {
            tools: tools.ok()?,
            prompts: rest("prompts", Listed::Prompts),
            resources: rest("resources", Listed::Resources),
            resource_templates: rest("resources", Listed::ResourceTemplates),
        })
    }
}

/// A member of an object that is a string.
pub fn text_of(object: &RawObject, member: &str) -> Option<String> {
    serde_json::from_str(object.get(member)?.get()).ok()
}

/// All pages of one list.
fn fetch_list(upstream: &Upstream, listed: Listed, deadline: Deadline) -> Result<Vec<RawObject>, UpstreamError> {
    let mut objects = Vec::new();
    let mut cursor: Option<String> = None;
    while objects.len() <= TOOLS_PER_INSTANCE_MAX {
        let params = cursor.map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
        let page = upstream.ask(listed.method(), &jsonrpc::to_bytes(&params), deadline)?;
        let unreadable = |_| UpstreamError::NotMcp("its list cannot be read");
        let offered: Offered = json::read(&page).map_err(unreadable)?;
        let page: Page = json::read(&page).map_err(unreadable)?;
        objects.extend(match listed {
            Listed::Tools => offered.tools,
            Listed::Prompts => offered.prompts,
            Listed::Resources => offered.resources,
            Listed::ResourceTemplates => offered.resource_templates,
        });
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_what_is_published() {
        let counts =
            |text: &str| Offered::parse(text.as_bytes()).map(|offered| (offered.tools.len(), offered.prompts.len()));
        for (text, expected) in [
            (r#"[{"name":"a"}]"#, Some((1, 0))),
            (r#" {"tools":[{"name":"a"}],"prompts":[{"name":"p"}],"more":1}"#, Some((1, 1))),
            ("{}", Some((0, 0))),
            ("[1]", None),
            ("nonsense", None),
            (r#"{"tools":7}"#, None),
        ] {
            assert_eq!(counts(text), expected, "{text}");
        }
    }
}
