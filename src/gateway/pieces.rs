//! What one instance adds to the lists, ready to be put together: named, dressed and read once for as long as it offers
//! the same, not at every change of another instance.
//!
//! **Invariant**: depends on the instance alone.
//! **Thread**: made on `catalogue`, read by any.
//! **Bounds**: those of `Offered`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::to_raw_value;
use serde_json::{Map, Value};

use crate::gateway::names;
use crate::gateway::offered::{Offered, text_of};
use crate::limits::SCRIPT_TIME_MAX;
use crate::mcp::RawObject;
use crate::mcp::lists::ListObject;
use crate::mcp::mirror::Mirror;
use crate::mcp::tasks::TaskSupport;
use crate::registry::{Instance, Origin};

#[derive(Default)]
pub struct Pieces {
    /// These two sorted by the instance's own names.
    pub tools: Vec<Named>,
    pub prompts: Vec<Named>,
    /// With the instance's own URIs, and sorted by them.
    pub resources: Vec<(String, ListObject)>,
    pub resource_templates: Vec<(String, ListObject)>,
    /// The longest time that a tool asks for; zero where none does.
    pub slowest_tool: Duration,
    /// Any tool can be called as a task.
    pub has_tasks: bool,
}

/// A tool or prompt.
pub struct Named {
    /// Under which it is published, unless another instance has that name already.
    pub name: String,
    pub original: String,
    pub object: ListObject,
    pub timeout: Option<Duration>,
    pub mirror: Option<Arc<Mirror>>,
    pub task_support: TaskSupport,
}

/// Tells one life of an instance from the next: a restart under the same id is another upstream, and pieces are made
/// for one type and origin.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub instance_id: String,
    mcp_url: String,
    pid: u32,
    dcc: String,
    is_ours: bool,
}

impl Key {
    pub fn of(instance: &Instance) -> Key {
        let (entry, dcc, is_ours) = (&instance.entry, instance.dcc().to_owned(), instance.origin == Origin::Ours);
        Key { instance_id: entry.instance_id.clone(), mcp_url: entry.mcp_url.clone(), pid: entry.pid, dcc, is_ours }
    }
}

impl Pieces {
    pub fn of(instance: &Instance, offered: &Offered) -> Pieces {
        Pieces {
            tools: named(instance, &offered.tools),
            prompts: named(instance, &offered.prompts),
            resources: addressed(instance, &offered.resources, "uri"),
            resource_templates: addressed(instance, &offered.resource_templates, "uriTemplate"),
            slowest_tool: offered.tools.iter().filter_map(timeout_of).max().unwrap_or_default(),
            has_tasks: offered.tools.iter().any(|tool| TaskSupport::of(tool) != TaskSupport::Forbidden),
        }
    }
}

impl Named {
    /// The same under another name.
    pub fn called(&self, name: &str) -> ListObject {
        let mut object: RawObject = serde_json::from_str(self.object.whole()).unwrap_or_default();
        object.insert("name".to_owned(), to_raw_value(name).expect("strings encode"));
        ListObject::encode(&object)
    }
}

/// Begins the URI of every resource of an instance.
pub const SCHEME: &str = "dcc://";

/// The URI under which a resource of an instance is published.
pub fn published_uri(instance: &Instance, uri: &str) -> String {
    format!("{SCHEME}{}/{uri}", instance.entry.instance_id)
}

/// The tools or prompts of one instance under their published names, sorted by their own.
fn named(instance: &Instance, objects: &[RawObject]) -> Vec<Named> {
    let mut sorted: Vec<(String, &RawObject)> =
        objects.iter().filter_map(|object| Some((text_of(object, "name")?, object))).collect();
    sorted.sort_by(|left, right| left.0.cmp(&right.0));
    let originals: Vec<&str> = sorted.iter().map(|(name, _)| name.as_str()).collect();
    let names = names::publish(&names::short(&instance.entry.instance_id), &originals);
    let is_ours = instance.origin == Origin::Ours;
    let mut published = Vec::new();
    for ((original, object), name) in sorted.into_iter().zip(names) {
        let Some(name) = name else { continue };
        let (timeout, mirror) = (timeout_of(object), mirror_of(object));
        let task_support = if is_ours { TaskSupport::of(object) } else { TaskSupport::Forbidden };
        let mut object = renamed(object, ("name", &name), ("io.dcc-mcp/tool", &original), instance);
        if !is_ours {
            // A task there would be everybody's (`gateway/tasks.rs`).
            object.remove("execution");
        }
        let object = ListObject::encode(&object);
        published.push(Named { name, original, object, timeout, mirror, task_support });
    }
    published
}

/// Resources or templates of one instance, sorted, each with its own URI.
fn addressed(instance: &Instance, objects: &[RawObject], member: &str) -> Vec<(String, ListObject)> {
    let mut sorted: Vec<(String, &RawObject)> =
        objects.iter().filter_map(|object| Some((text_of(object, member)?, object))).collect();
    sorted.sort_by(|left, right| left.0.cmp(&right.0));
    let dress = |(uri, object): (String, &RawObject)| {
        let object = renamed(object, (member, &published_uri(instance, &uri)), ("io.dcc-mcp/uri", &uri), instance);
        (uri, ListObject::encode(&object))
    };
    sorted.into_iter().map(dress).collect()
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
