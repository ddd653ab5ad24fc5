//! All live instances and their tools as of one moment: immutable, shared, and all that a request needs.
//!
//! **Invariant**: order and names depend on the registry alone, so that every replica answers the same bytes: the
//! gateway's own tools, then by application type, instance, tool.
//! **Thread**: built on `catalogue`, read by any.
//! Left out on purpose: where it comes from (`gateway/catalogue.rs`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::gateway::names;
use crate::gateway::pieces::{Named, Pieces, SCHEME};
use crate::gateway::upstream::Upstream;
use crate::hash::list_mark;
use crate::mcp::Revision;
use crate::mcp::lists::{ListObject, ListResult, Listed};
use crate::mcp::mirror::Mirror;
use crate::mcp::tasks::TaskSupport;
use crate::registry::Origin;
use crate::registry::entry::Status;
use crate::session::State;

/// All that a request needs, as of one moment.
pub struct Snapshot {
    /// By application type, then id.
    pub members: Vec<Arc<Member>>,
    tool_routes: HashMap<String, Route>,
    prompt_routes: HashMap<String, Route>,
    /// Instances by the resources that only they list.
    owners: HashMap<String, Option<Arc<Upstream>>>,
    /// What the lists were made of, with the own tools.
    pieces: Vec<Arc<Pieces>>,
    lists: Lists,
    pub state: State,
    /// Every instance of the first view has told its tools, or failed to.
    pub complete: bool,
}

#[derive(Clone)]
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
    /// Where nothing but members differs from the snapshot before, its lists are taken over.
    pub fn build(
        own_tools: &[ListObject],
        own_tools_only: bool,
        instances: &[Told<'_>],
        complete: bool,
        before: Option<&Snapshot>,
    ) -> Snapshot {
        let (mut tools, mut prompts, mut resources, mut templates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut tool_routes, mut prompt_routes, mut owners) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut members = Vec::new();
        for Told { upstream, pieces } in instances {
            let before = tools.len();
            enter(upstream, &pieces.tools, &mut tool_routes, &mut tools);
            let names = tools[before..].iter().zip(&pieces.tools);
            let names = names.map(|((name, _), tool)| (name.to_string(), tool.original.clone())).collect();
            let Pieces { slowest_tool, has_tasks, .. } = ***pieces;
            members.push(Arc::new(Member { upstream: Arc::clone(upstream), tools: names, slowest_tool, has_tasks }));
            enter(upstream, &pieces.prompts, &mut prompt_routes, &mut prompts);
            for (uri, resource) in &pieces.resources {
                let owner = || Some(Arc::clone(upstream));
                owners.entry(uri.clone()).and_modify(|owner| *owner = None).or_insert_with(owner);
                resources.push(resource);
            }
            templates.extend(pieces.resource_templates.iter().map(|(_, object)| object));
        }
        let pieces: Vec<Arc<Pieces>> = instances.iter().map(|told| Arc::clone(told.pieces)).collect();
        let same = |before: &&Snapshot| {
            before.pieces.len() == pieces.len() && before.pieces.iter().zip(&pieces).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if let Some(before) = before.filter(same) {
            let (lists, state) = (before.lists.clone(), before.state);
            return Snapshot { members, tool_routes, prompt_routes, owners, pieces, lists, state, complete };
        }
        let told = tools.iter().map(|(_, object)| &**object).filter(|_| !own_tools_only);
        let lists = Lists {
            tools: ListResult::encode(Listed::Tools, &own_tools.iter().chain(told).collect::<Vec<_>>()),
            prompts: ListResult::encode(
                Listed::Prompts,
                &prompts.iter().map(|(_, object)| &**object).collect::<Vec<_>>(),
            ),
            resources: ListResult::encode(Listed::Resources, &resources),
            resource_templates: ListResult::encode(Listed::ResourceTemplates, &templates),
        };
        let state = lists.state();
        Snapshot { members, tool_routes, prompt_routes, owners, pieces, lists, state, complete }
    }
}

impl Lists {
    fn state(&self) -> State {
        let mark = |list: &ListResult| list_mark(&list.bytes(Some(Revision::NEWEST))) as u32;
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
    pub pieces: &'b Arc<Pieces>,
}

/// Enters the routes of one instance's tools or prompts. A name that another instance has published already gives way.
fn enter<'p>(
    upstream: &Arc<Upstream>,
    pieces: &'p [Named],
    routes: &mut HashMap<String, Route>,
    listed: &mut Vec<(Cow<'p, str>, Cow<'p, ListObject>)>,
) {
    let id = &upstream.instance.entry.instance_id;
    for piece in pieces {
        let (mut name, mut object) = (Cow::Borrowed(&*piece.name), Cow::Borrowed(&piece.object));
        if routes.contains_key(&*name) {
            name = names::beside(id, &name, &piece.original).into();
            object = Cow::Owned(piece.called(&name));
        }
        let Named { original, timeout, mirror, task_support, .. } = piece;
        let (upstream, mirror) = (Arc::clone(upstream), mirror.clone());
        let route = Route { upstream, name: original.clone(), timeout: *timeout, mirror, task_support: *task_support };
        routes.insert(name.to_string(), route);
        listed.push((name, object));
    }
}

#[cfg(test)]
mod simulation;
