//! The tools that an instance shows: one immutable snapshot, sorted, with its JSON text made once.
//!
//! **Invariant**: names are unique, in the alphabet that MCP 2025-11-25 asks for, and in byte order; equal skills make
//! equal text, byte for byte.
//! **Bounds**: `TOOLS_PER_INSTANCE_MAX`, `TOOLS_BYTES_MAX`, `TOOL_NAME_BYTES_MAX`.
//! Left out on purpose: which skills are loaded (`shelf.rs`).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::hash::fnv64;
use crate::jsonrpc;
use crate::limits::{TOOL_NAME_BYTES_MAX, TOOLS_BYTES_MAX, TOOLS_PER_INSTANCE_MAX};
use crate::mcp::Tool;
use crate::mcp::mirror::Mirror;
use crate::mcp::tasks::{TaskSupport, ToolExecution};
use crate::skills::arguments::ArgumentRules;
use crate::skills::entry::ToolEntry;
use crate::skills::manifest::Skill;

/// `_meta` of a tool: the skill it is from.
pub const META_SKILL: &str = "io.dcc-mcp/skill";
/// `_meta` of a tool: tools that make sense after it.
pub const META_NEXT_TOOLS: &str = "io.dcc-mcp/next-tools";
/// `_meta` of a tool: not worth a place in a model's context until it is searched for.
pub const META_DEFER_LOADING: &str = "io.dcc-mcp/defer-loading";
/// `_meta` of a tool: `sync` or `async`.
pub const META_EXECUTION: &str = "io.dcc-mcp/execution";
/// `_meta` of a tool: seconds that a call may take, where that is more than usual; who relays it should wait as long.
pub const META_TIMEOUT_SECS: &str = "io.dcc-mcp/timeout-secs";

/// The names of the tools by which skills are found and loaded; a skill without a prefix must not take them.
pub const SKILL_TOOLS: [&str; 8] = [
    "list_skills",
    "find_skills",
    "search_skills",
    "get_skill_info",
    "load_skill",
    "unload_skill",
    "activate_tool_group",
    "deactivate_tool_group",
];

/// A tool that can be called.
#[derive(Debug)]
pub struct SkillTool {
    pub tool: Tool,
    /// The tool's own name, without its skill's.
    pub bare_name: String,
    pub skill: String,
    pub dcc: String,
    pub folder: PathBuf,
    /// Relative to the folder.
    pub script: PathBuf,
    /// More than the instance's call timeout, if the tool asks for it.
    pub timeout: Option<Duration>,
    /// Its script asks while it runs.
    pub dialog: bool,
    pub task_support: TaskSupport,
    /// As a task it asks its first questions before it is one.
    pub ask_first: bool,
    pub rules: ArgumentRules,
    /// Its arguments that header fields repeat, if any.
    pub mirror: Option<Arc<Mirror>>,
}

/// The visible tools.
#[derive(Debug, Default)]
pub struct ToolSet {
    pub tools: Vec<Arc<SkillTool>>,
    /// Why tools that should be here are not; for the log.
    pub left_out: Vec<String>,
    bare: HashMap<String, Option<usize>>,
    encoded: Arc<[u8]>,
}

impl ToolSet {
    /// A set of the given tools. Of two with the same name the first is taken.
    pub fn new(tools: Vec<Arc<SkillTool>>) -> ToolSet {
        let (mut by_name, mut left_out) = (BTreeMap::<String, (Arc<SkillTool>, Vec<u8>)>::new(), Vec::new());
        let mut bytes = 2;
        for tool in tools {
            let encoded = jsonrpc::to_bytes(&tool.tool);
            let reason = match by_name.get(&tool.tool.name) {
                _ if SKILL_TOOLS.contains(&tool.tool.name.as_str()) => {
                    "every instance has a tool of this name".to_owned()
                }
                Some((first, _)) => format!("the skill {} has a tool of the same name", first.skill),
                None if by_name.len() >= TOOLS_PER_INSTANCE_MAX => format!("more than {TOOLS_PER_INSTANCE_MAX} tools"),
                None if bytes + encoded.len() + 1 > TOOLS_BYTES_MAX => {
                    format!("the list would be larger than {TOOLS_BYTES_MAX} bytes")
                }
                None => {
                    bytes += encoded.len() + 1;
                    by_name.insert(tool.tool.name.clone(), (tool, encoded));
                    continue;
                }
            };
            left_out.push(format!("skill={} tool={} is left out: {reason}", tool.skill, tool.tool.name));
        }
        let (tools, texts): (Vec<Arc<SkillTool>>, Vec<Vec<u8>>) = by_name.into_values().unzip();
        let mut bare: HashMap<String, Option<usize>> = HashMap::new();
        for (index, tool) in tools.iter().enumerate() {
            bare.entry(tool.bare_name.clone()).and_modify(|unique| *unique = None).or_insert(Some(index));
        }
        let encoded = [b"[".as_slice(), &texts.join(&b','), b"]"].concat().into();
        ToolSet { tools, left_out, bare, encoded }
    }

    /// The tool of a full name, or of a tool's own name where only one tool has it.
    pub fn find(&self, name: &str) -> Option<&Arc<SkillTool>> {
        let index = self.tools.binary_search_by(|tool| tool.tool.name.as_str().cmp(name)).ok();
        index.or_else(|| self.bare.get(name).copied().flatten()).map(|index| &self.tools[index])
    }

    /// JSON text: the array of tools.
    pub fn encoded(&self) -> Arc<[u8]> {
        if self.encoded.is_empty() { Arc::from(b"[]".as_slice()) } else { Arc::clone(&self.encoded) }
    }
}

impl SkillTool {
    /// The callable tool of an entry; `None` when it has no script.
    pub fn new(skill: &Skill, entry: &ToolEntry, call_timeout: Duration) -> Option<SkillTool> {
        let script = entry.script.as_ref().ok()?.clone();
        let timeout = entry.timeout.filter(|timeout| *timeout > call_timeout);
        let tool = Tool {
            name: full_name(skill, &entry.name),
            title: Some(entry.title.clone().unwrap_or_else(|| title_of(&entry.name))),
            description: Some(description_of(skill, entry)),
            icons: entry.icons.clone(),
            input_schema: entry.input_schema.clone(),
            output_schema: entry.output_schema.clone(),
            annotations: Some(entry.annotations.clone()).filter(|annotations| *annotations != Default::default()),
            execution: execution_of(entry),
            meta: Some(meta_of(skill, entry, timeout)),
        };
        Some(SkillTool {
            rules: ArgumentRules::of(tool.input_schema.get()),
            mirror: entry.mirror.clone(),
            tool,
            bare_name: entry.name.clone(),
            skill: skill.name.clone(),
            dcc: skill.dcc.clone(),
            folder: skill.folder.clone(),
            script,
            timeout,
            dialog: entry.dialog,
            task_support: entry.task_support,
            ask_first: entry.ask_first && entry.dialog,
        })
    }
}

/// What a tool or prompt of a skill is called.
pub fn full_name(skill: &Skill, own: &str) -> String {
    joined(skill.prefix.then_some(skill.name.as_str()), own)
}

/// `<skill>__<tool>`, `-` in the skill's name as `_`.
fn joined(skill: Option<&str>, own: &str) -> String {
    let original = match skill {
        Some(skill) => format!("{}__{own}", skill.replace('-', "_")),
        None => own.to_owned(),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let name: String = original.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    if name.len() <= TOOL_NAME_BYTES_MAX {
        return name;
    }
    let kept = name.get(..TOOL_NAME_BYTES_MAX - 9).unwrap_or(&name);
    format!("{kept}_{:08x}", fnv64(original.as_bytes()) >> 32)
}

/// `create_sphere` → `Create sphere`.
fn title_of(name: &str) -> String {
    let words = name.replace(['_', '-'], " ");
    let mut letters = words.trim().chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn description_of(skill: &Skill, entry: &ToolEntry) -> String {
    match &entry.description {
        Some(description) if !description.is_empty() => description.clone(),
        _ if skill.description.is_empty() => format!("{} (skill {})", title_of(&entry.name), skill.name),
        _ => format!("{}: {}", title_of(&entry.name), skill.description),
    }
}

/// Told where a tool can be called as a task.
fn execution_of(entry: &ToolEntry) -> Option<ToolExecution> {
    let execution = ToolExecution { task_support: entry.task_support };
    Some(execution).filter(|execution| *execution != ToolExecution::default())
}

fn meta_of(skill: &Skill, entry: &ToolEntry, timeout: Option<Duration>) -> Map<String, Value> {
    let mut meta = Map::new();
    meta.insert(META_SKILL.to_owned(), skill.name.clone().into());
    if let Some(next) = &entry.next_tools {
        meta.insert(META_NEXT_TOOLS.to_owned(), next.clone());
    }
    if entry.defer_loading {
        meta.insert(META_DEFER_LOADING.to_owned(), true.into());
    }
    if let Some(execution) = &entry.execution {
        meta.insert(META_EXECUTION.to_owned(), execution.clone().into());
    }
    if let Some(timeout) = timeout {
        meta.insert(META_TIMEOUT_SECS.to_owned(), timeout.as_secs().max(1).into());
    }
    meta
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skills::manifest;
    use crate::skills::testing::Folder;

    #[test]
    fn names_are_in_the_alphabet_and_short_enough() {
        for (skill, tool, expected) in [
            ("maya-geometry", "create_sphere", "maya_geometry__create_sphere"),
            ("a", "b-c", "a__b-c"),
            ("my skill", "büro/x", "my_skill__b_ro_x"),
        ] {
            assert_eq!(joined(Some(skill), tool), expected);
        }
        assert_eq!(joined(None, "b-c/d"), "b-c_d");
        let (one, other) = (joined(Some("s"), &"x".repeat(300)), joined(Some("s"), &"x".repeat(301)));
        assert_eq!((one.len(), other.len()), (TOOL_NAME_BYTES_MAX, TOOL_NAME_BYTES_MAX));
        assert_ne!(one, other);
        assert_eq!(title_of("create_sphere"), "Create sphere");
        assert_eq!(title_of(""), "");
    }

    /// A skill with more to show than can be published kept its whole instance from starting.
    #[test]
    fn a_list_is_bounded_in_bytes() {
        let folder = Folder::new();
        folder.write("SKILL.md", "---\nname: s\n---\n");
        folder.write("scripts/t.sh", "");
        let skill = manifest::read(folder.path()).expect("it is right");
        let tools = ["a", "b", "c", "d", "e"].map(|name| {
            let mut tool =
                SkillTool::new(&skill, &skill.tools[0], Duration::from_secs(1)).expect("the script is there");
            tool.tool.name = name.to_owned();
            tool.tool.description = Some("x".repeat(if name == "d" { 9 } else { TOOLS_BYTES_MAX / 3 - 1000 }));
            Arc::new(tool)
        });
        let set = ToolSet::new(tools.into());
        let names: Vec<&str> = set.tools.iter().map(|tool| tool.tool.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        let shown: Vec<&Tool> = set.tools.iter().map(|tool| &tool.tool).collect();
        assert_eq!(set.encoded().to_vec(), jsonrpc::to_bytes(&shown));
        assert!(set.encoded().len() <= TOOLS_BYTES_MAX);
        assert_eq!(set.left_out, ["skill=s tool=e is left out: the list would be larger than 4194304 bytes"]);
    }
}
