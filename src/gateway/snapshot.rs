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
use crate::gateway::offered::{Offered, text_of};
use crate::gateway::upstream::Upstream;
use crate::hash::fnv64;
use crate::limits::SCRIPT_TIME_MAX;
use crate::mcp::lists::{ListResult, Listed};
use crate::mcp::mirror::Mirror;
use crate::mcp::tasks::TaskSupport;
use crate::mcp::{RawObject, Revision};
use crate::registry::entry::Status;
use crate::registry::{Instance, Origin};
use crate::session::State;

/// All that a request needs, as of one moment.
pub struct Snapshot {
    /// By application type, then id.
    pub members: Vec<Arc<Member>>,
    tool_routes: HashMap<String, Route>,
    prompt_routes: HashMap<String, Route>,
    /// Instances by the resources that only they list.
    owners: HashMap<String, Option<Arc<Upstream>>>,
    lists: Lists,
    pub state: State,
    /// Every instance of the first view has told its tools, or failed to.
    pub complete: bool,
}

struct Lists {
    tools: ListResult,
    prompts: ListResult,
    resources: ListResult,
    resource_templates: ListResult,
}

/// One live instance and how to reach it.
pub struct Member {
    pub upstream: Arc<Upstream>,
    /// Published names of its tools with the names it knows them by.
    pub tools: Vec<(String, String)>,
    /// The longest time that any of them asks for; zero where none does.
    pub slowest_tool: Duration,
    /// Any of them can be called as a task.
    has_tasks: bool,
}

#[derive(Clone)]
pub struct Route {
    pub upstream: Arc<Upstream>,
    /// The instance's own name for it; of a resource, its URI.
    pub name: String,
    /// What a tool itself asks for, where that is more than a call gets otherwise.
    pub timeout: Option<Duration>,
    /// Of a tool: its arguments that header fields repeat.
    pub mirror: Option<Arc<Mirror>>,
    /// Whether it can be called as a task.
    pub task_support: TaskSupport,
}

impl Snapshot {
    /// Where a published tool is.
    pub fn tool(&self, published: &str) -> Option<&Route> {
        self.tool_routes.get(published)
    }

    /// Where a published prompt is.
    pub fn prompt(&self, published: &str) -> Option<&Route> {
        self.prompt_routes.get(published)
    }

    /// Where a resource is: `dcc://<instance id>/<its own URI>`, or its own URI where only one instance lists that, since
    /// results of tools name resources as their instance does.
    pub fn resource(&self, uri: &str) -> Option<Route> {
        let (upstream, name) = match uri.strip_prefix(SCHEME) {
            Some(rest) => {
                let (id, name) = rest.split_once('/')?;
                (self.members.iter().find(|member| member.id() == id).map(|member| &member.upstream)?, name)
            }
            None => (self.owners.get(uri)?.as_ref()?, uri),
        };
        Some(Route::plain(upstream, name))
    }

    /// A list, encoded.
    pub fn list(&self, listed: Listed, revision: Option<Revision>) -> Arc<[u8]> {
        match listed {
            Listed::Tools => &self.lists.tools,
            Listed::Prompts => &self.lists.prompts,
            Listed::Resources => &self.lists.resources,
            Listed::ResourceTemplates => &self.lists.resource_templates,
        }
        .bytes(revision)
    }

    /// Objects that have no place in the list of their kind.
    pub fn left_out(&self) -> usize {
        let Lists { tools, prompts, resources, resource_templates } = &self.lists;
        [tools, prompts, resources, resource_templates].iter().map(|list| list.left_out).sum()
    }

    /// Tools of instances.
    pub fn tool_count(&self) -> usize {
        self.tool_routes.len()
    }

    /// Where a tool would be that this snapshot does not know: `{short}__{tool}` names the one instance to ask, which may
    /// have loaded it a moment ago.
    pub fn likely_route(&self, published: &str) -> Option<Route> {
        let (short, tool) = published.split_once("__")?;
        let mut members = self.members.iter().filter(|member| names::short(member.id()) == short);
        let (Some(member), None) = (members.next(), members.next()) else { return None };
        Some(Route::plain(&member.upstream, tool))
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
    pub fn build(own_tools: &[RawObject], own_tools_only: bool, instances: &[Told<'_>], complete: bool) -> Snapshot {
        let (mut tools, mut prompts, mut resources, mut templates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut tool_routes, mut prompt_routes, mut owners) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut members = Vec::new();
        for told in instances {
            let named = publish(told, &told.offered.tools, &mut tool_routes);
            let names = named.iter().map(|(name, tool, _)| (name.clone(), tool.clone())).collect();
            let slowest_tool = told.offered.tools.iter().filter_map(timeout_of).max().unwrap_or_default();
            let has_tasks = told.offered.tools.iter().any(|tool| TaskSupport::of(tool) != TaskSupport::Forbidden);
            let upstream = Arc::clone(told.upstream);
            members.push(Arc::new(Member { upstream, tools: names, slowest_tool, has_tasks }));
            tools.extend(named.into_iter().map(|(_, _, raw)| raw));
            prompts.extend(publish(told, &told.offered.prompts, &mut prompt_routes).into_iter().map(|(_, _, raw)| raw));
            for (uri, resource) in addressed(told, &told.offered.resources, "uri") {
                owners.entry(uri).and_modify(|owner| *owner = None).or_insert_with(|| Some(Arc::clone(told.upstream)));
                resources.push(resource);
            }
            templates.extend(addressed(told, &told.offered.resource_templates, "uriTemplate").map(|(_, raw)| raw));
        }
        let listed = own_tools.iter().chain(tools.iter().filter(|_| !own_tools_only)).collect::<Vec<_>>();
        let encode = |listed, objects: &[RawObject]| ListResult::encode(listed, &objects.iter().collect::<Vec<_>>());
        let lists = Lists {
            tools: ListResult::encode(Listed::Tools, &listed),
            prompts: encode(Listed::Prompts, &prompts),
            resources: encode(Listed::Resources, &resources),
            resource_templates: encode(Listed::ResourceTemplates, &templates),
        };
        let state = lists.state();
        Snapshot { members, tool_routes, prompt_routes, owners, lists, state, complete }
    }
}

impl Lists {
    fn state(&self) -> State {
        let mark = |list: &ListResult| fnv64(&list.bytes(Some(Revision::NEWEST))) as u32;
        State {
            tools: mark(&self.tools),
            prompts: mark(&self.prompts),
            resources: mark(&self.resources) ^ mark(&self.resource_templates).rotate_left(1),
        }
    }
}

impl Route {
    /// To a thing of which nothing more is known.
    fn plain(upstream: &Arc<Upstream>, name: &str) -> Route {
        let (upstream, name) = (Arc::clone(upstream), name.to_owned());
        Route { upstream, name, timeout: None, mirror: None, task_support: TaskSupport::Forbidden }
    }
}

impl Member {
    pub fn id(&self) -> &str {
        &self.upstream.instance.entry.instance_id
    }

    pub fn dcc_type(&self) -> &str {
        self.upstream.instance.dcc()
    }

    /// Whether it knows whose a task is.
    pub fn has_owners(&self) -> bool {
        self.upstream.instance.origin == Origin::Ours
    }

    /// Whether it may have tasks of a client of ours.
    pub fn has_tasks(&self) -> bool {
        self.has_tasks && self.has_owners()
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

/// An instance with what it offers, on the way into a snapshot.
pub struct Told<'b> {
    pub upstream: &'b Arc<Upstream>,
    pub offered: &'b Offered,
}

/// Begins the URI of every resource of an instance.
const SCHEME: &str = "dcc://";

/// The URI under which a resource of an instance is published.
pub fn published_uri(instance: &Instance, uri: &str) -> String {
    format!("{SCHEME}{}/{uri}", instance.entry.instance_id)
}

/// Names the tools or prompts of one instance, sorted by their own names, and enters their routes.
fn publish(
    told: &Told<'_>,
    objects: &[RawObject],
    routes: &mut HashMap<String, Route>,
) -> Vec<(String, String, RawObject)> {
    let entry = &told.upstream.instance.entry;
    let mut named: Vec<(String, &RawObject)> =
        objects.iter().filter_map(|object| Some((text_of(object, "name")?, object))).collect();
    named.sort_by(|left, right| left.0.cmp(&right.0));
    let originals: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    let names = names::publish(&names::short(&entry.instance_id), &originals);
    let is_ours = told.upstream.instance.origin == Origin::Ours;
    let mut published = Vec::new();
    for ((original, object), name) in named.iter().zip(names) {
        let Some(mut name) = name else { continue };
        if routes.contains_key(&name) {
            name = names::beside(&entry.instance_id, &name, original);
        }
        let upstream = Arc::clone(told.upstream);
        let (timeout, mirror) = (timeout_of(object), mirror_of(object));
        let task_support = if is_ours { TaskSupport::of(object) } else { TaskSupport::Forbidden };
        routes.insert(name.clone(), Route { upstream, name: original.clone(), timeout, mirror, task_support });
        let mut raw = renamed(object, ("name", &name), ("io.dcc-mcp/tool", original), &told.upstream.instance);
        if !is_ours {
            // A task there would be everybody's (`gateway/tasks.rs`).
            raw.remove("execution");
        }
        published.push((name, original.clone(), raw));
    }
    published
}

/// Resources or templates of one instance, sorted, each with its own URI.
fn addressed<'o>(
    told: &Told<'o>,
    objects: &'o [RawObject],
    member: &'static str,
) -> impl Iterator<Item = (String, RawObject)> + use<'o> {
    let instance = &told.upstream.instance;
    let mut sorted: Vec<(String, &RawObject)> =
        objects.iter().filter_map(|object| Some((text_of(object, member)?, object))).collect();
    sorted.sort_by(|left, right| left.0.cmp(&right.0));
    sorted.into_iter().map(move |(uri, object)| {
        let raw = renamed(object, (member, &published_uri(instance, &uri)), ("io.dcc-mcp/uri", &uri), instance);
        (uri, raw)
    })
}

/// The object under its published name; where it comes from is told in `_meta`.
fn renamed(
    object: &RawObject,
    (member, published): (&str, &str),
    (original_key, original): (&str, &str),
    instance: &Instance,
) -> RawObject {
    let mut object = object.clone();
    let meta = object.get("_meta").and_then(|meta| serde_json::from_str(meta.get()).ok());
    let mut meta: Map<String, Value> = meta.unwrap_or_default();
    meta.insert(original_key.to_owned(), original.into());
    meta.insert("io.dcc-mcp/instance".to_owned(), instance.entry.instance_id.as_str().into());
    meta.insert("io.dcc-mcp/dcc".to_owned(), instance.dcc().into());
    for (member, value) in [(member, to_raw_value(published)), ("_meta", to_raw_value(&meta))] {
        object.insert(member.to_owned(), value.expect("strings and maps of strings encode"));
    }
    object
}

/// An annotation that no client accepts is not followed here either.
fn mirror_of(tool: &RawObject) -> Option<Arc<Mirror>> {
    Mirror::of(tool.get("inputSchema")?.get()).ok().flatten().map(Arc::new)
}

/// `io.dcc-mcp/timeout-secs` in `_meta`, as instances of ours tell it of tools that take long.
fn timeout_of(tool: &RawObject) -> Option<Duration> {
    let meta: Map<String, Value> = serde_json::from_str(tool.get("_meta")?.get()).ok()?;
    let seconds = meta.get("io.dcc-mcp/timeout-secs")?.as_f64()?;
    (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(SCRIPT_TIME_MAX).min(SCRIPT_TIME_MAX))
}
