//! All live instances and their tools as of one moment: immutable, shared, and all that a request needs.
//!
//! **Invariant**: order and names depend on the registry alone, so that every replica answers the same bytes: the
//! gateway's own tools, then by application type, instance, tool.
//! **Thread**: built on `catalogue`, read by any.
//! Left out on purpose: where it comes from (`gateway/catalogue.rs`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::to_raw_value;
use serde_json::{Map, Value};

use crate::gateway::names;
use crate::gateway::upstream::Upstream;
use crate::hash::fnv64;
use crate::limits::SCRIPT_TIME_MAX;
use crate::mcp::{ListToolsResult, RawTool, Revision};
use crate::registry::Instance;
use crate::registry::entry::Status;
use crate::session::State;

/// All that a request needs, as of one moment.
pub struct Snapshot {
    /// By application type, then id.
    pub members: Vec<Arc<Member>>,
    pub routes: HashMap<String, Route>,
    /// The result of `tools/list`.
    pub tools: ListToolsResult,
    pub state: State,
    /// Every instance of the first view has told its tools, or failed to.
    pub complete: bool,
}

/// One live instance and how to reach it.
pub struct Member {
    pub upstream: Arc<Upstream>,
    /// Published names of its tools with the names it knows them by.
    pub tools: Vec<(String, String)>,
    /// The longest time that any of them asks for; zero where none does.
    pub slowest_tool: Duration,
}

pub struct Route {
    pub upstream: Arc<Upstream>,
    /// The instance's own name for it.
    pub tool: String,
    /// What the tool itself asks for, where that is more than a call gets otherwise.
    pub timeout: Option<Duration>,
}

impl Snapshot {
    /// Where a published tool is.
    pub fn route(&self, published: &str) -> Option<&Route> {
        self.routes.get(published)
    }

    /// Where a tool would be that this snapshot does not know: `{short}__{tool}` names the one instance to ask, which may
    /// have loaded it a moment ago.
    pub fn likely_route(&self, published: &str) -> Option<Route> {
        let (short, tool) = published.split_once("__")?;
        let mut members = self.members.iter().filter(|member| names::short(member.id()) == short);
        let (Some(member), None) = (members.next(), members.next()) else { return None };
        Some(Route { upstream: Arc::clone(&member.upstream), tool: tool.to_owned(), timeout: None })
    }

    /// The members whose id begins with `prefix`; the one whose whole id it is, even where others begin with that.
    pub fn by_prefix(&self, prefix: &str) -> Vec<&Arc<Member>> {
        if let Some(member) = self.members.iter().find(|member| member.id().eq_ignore_ascii_case(prefix)) {
            return vec![member];
        }
        let prefix = prefix.to_ascii_lowercase();
        let begins = |member: &&Arc<Member>| member.id().to_ascii_lowercase().starts_with(&prefix);
        self.members.iter().filter(begins).collect()
    }

    /// The members of an application type (`None`: of every type).
    pub fn by_type(&self, dcc: Option<&str>) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter().filter(move |member| dcc.is_none_or(|dcc| member.dcc_type().eq_ignore_ascii_case(dcc)))
    }

    /// Of the gateway's own tools and what the instances told; `own_tools_only` keeps the latter from the list, not from
    /// being called.
    pub fn build(own_tools: &[RawTool], own_tools_only: bool, instances: &[Told<'_>], complete: bool) -> Snapshot {
        let mut listed: Vec<&RawTool> = own_tools.iter().collect();
        let mut published = Vec::new();
        let mut routes = HashMap::new();
        let mut members = Vec::new();
        for told in instances {
            let named = publish(told, &mut routes);
            let tools = named.iter().map(|(name, tool, _)| (name.clone(), tool.clone())).collect();
            let slowest_tool = told.tools.iter().filter_map(timeout_of).max().unwrap_or_default();
            members.push(Arc::new(Member { upstream: Arc::clone(told.upstream), tools, slowest_tool }));
            published.extend(named.into_iter().map(|(_, _, raw)| raw));
        }
        if !own_tools_only {
            listed.extend(&published);
        }
        let tools = ListToolsResult::encode(&listed);
        let state = State { tools: fnv64(&tools.bytes(Revision::NEWEST)) as u32, ..State::default() };
        Snapshot { members, routes, tools, state, complete }
    }
}

impl Member {
    pub fn id(&self) -> &str {
        &self.upstream.instance.entry.instance_id
    }

    pub fn dcc_type(&self) -> &str {
        self.upstream.instance.dcc()
    }

    /// Whether it is worth asking about skills. One that has none says so; one that is stopping is left in peace.
    pub fn may_be_asked(&self) -> bool {
        self.upstream.instance.entry.status != Status::Draining
    }

    /// Lower is better for new work.
    pub fn load_rank(&self) -> u8 {
        match self.upstream.instance.entry.status {
            Status::Available => 0,
            Status::Busy => 1,
            Status::Draining | Status::Other(_) => 2,
        }
    }

    /// As `/instances` and `list_dcc_instances` show it.
    pub fn to_json(&self) -> Value {
        let instance = &self.upstream.instance;
        let mut shown = serde_json::to_value(&*instance.entry).unwrap_or_default();
        shown["dcc_type"] = instance.dcc().into();
        shown["short_id"] = names::short(self.id()).into();
        shown["in_flight"] = self.upstream.in_flight().into();
        shown["tools"] = self.tools.len().into();
        shown
    }
}

/// An instance with its tools, on the way into a snapshot.
pub struct Told<'b> {
    pub upstream: &'b Arc<Upstream>,
    pub tools: &'b [RawTool],
}

/// Names the tools of one instance, sorted by their own names, and enters their routes.
fn publish(told: &Told<'_>, routes: &mut HashMap<String, Route>) -> Vec<(String, String, RawTool)> {
    let entry = &told.upstream.instance.entry;
    let mut tools: Vec<(String, &RawTool)> =
        told.tools.iter().filter_map(|tool| Some((tool_name(tool)?, tool))).collect();
    tools.sort_by(|left, right| left.0.cmp(&right.0));
    let originals: Vec<&str> = tools.iter().map(|(name, _)| name.as_str()).collect();
    let names = names::publish(&names::short(&entry.instance_id), &originals);
    let mut published = Vec::new();
    for ((original, tool), name) in tools.iter().zip(names) {
        let Some(mut name) = name else { continue };
        if routes.contains_key(&name) {
            name = names::beside(&entry.instance_id, &name, original);
        }
        let upstream = Arc::clone(told.upstream);
        let route = Route { upstream, tool: original.clone(), timeout: timeout_of(tool) };
        routes.insert(name.clone(), route);
        published.push((name.clone(), original.clone(), renamed(tool, &name, original, &told.upstream.instance)));
    }
    published
}

/// The tool under its published name; where it comes from is told in `_meta`.
fn renamed(tool: &RawTool, published: &str, original: &str, instance: &Instance) -> RawTool {
    let mut tool = tool.clone();
    let meta = tool.get("_meta").and_then(|meta| serde_json::from_str(meta.get()).ok());
    let mut meta: Map<String, Value> = meta.unwrap_or_default();
    meta.insert("io.dcc-mcp/tool".to_owned(), original.into());
    meta.insert("io.dcc-mcp/instance".to_owned(), instance.entry.instance_id.as_str().into());
    meta.insert("io.dcc-mcp/dcc".to_owned(), instance.dcc().into());
    for (member, value) in [("name", to_raw_value(published)), ("_meta", to_raw_value(&meta))] {
        tool.insert(member.to_owned(), value.expect("strings and maps of strings encode"));
    }
    tool
}

/// `io.dcc-mcp/timeout-secs` in `_meta`, as instances of ours tell it of tools that take long.
fn timeout_of(tool: &RawTool) -> Option<Duration> {
    let meta: Map<String, Value> = serde_json::from_str(tool.get("_meta")?.get()).ok()?;
    let seconds = meta.get("io.dcc-mcp/timeout-secs")?.as_f64()?;
    (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(SCRIPT_TIME_MAX).min(SCRIPT_TIME_MAX))
}

/// The name under which its instance knows a tool.
pub fn tool_name(tool: &RawTool) -> Option<String> {
    serde_json::from_str(tool.get("name")?.get()).ok()
}
