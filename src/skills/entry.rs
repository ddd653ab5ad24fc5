//! One `tools:` entry of a manifest → a tool with its schemas, annotations and script.
//!
//! **Invariant**: pure but for looking where the script is; a schema that leaves this file is JSON text of an object
//! whose `type` is `object`, as `tools/list` must show it.
//! **Bounds**: `SCRIPT_TIME_MAX` for the time a tool asks for; sizes are those of the manifest.
//! Left out on purpose: whether a schema is a good one; clients check that by themselves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::json;
use crate::limits::SCRIPT_TIME_MAX;
use crate::mcp::mirror::Mirror;
use crate::mcp::tasks::TaskSupport;
use crate::mcp::{Icon, ToolAnnotations};
use crate::skills::document::{Document, ManifestError};
use crate::skills::files;
use crate::skills::icons;
use crate::skills::yaml::Node;

/// A tool as its author declared it.
#[derive(Clone, Debug)]
pub struct ToolEntry {
    /// The author's name, unique in its skill.
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    pub icons: Vec<Icon>,
    pub input_schema: Box<RawValue>,
    pub output_schema: Option<Box<RawValue>>,
    /// The arguments that header fields repeat, if any.
    pub mirror: Option<Arc<Mirror>>,
    pub annotations: ToolAnnotations,
    /// The script relative to the skill folder, or why there is none.
    pub script: Result<PathBuf, String>,
    pub group: Option<String>,
    pub next_tools: Option<Value>,
    pub call_examples: Option<Value>,
    pub execution: Option<String>,
    pub timeout: Option<Duration>,
    pub defer_loading: bool,
    pub search_aliases: Vec<String>,
    /// The script asks while it runs: its standard input stays open for the answers.
    pub dialog: bool,
    /// Whether it can be called as a task.
    pub task_support: TaskSupport,
    /// As a task it asks its first questions before it is one.
    pub ask_first: bool,
    /// Where it is declared, for messages: `file:line`.
    pub declared_at: String,
}

const KEYS: [&str; 26] = [
    "name",
    "title",
    "description",
    "icons",
    "input-schema",
    "inputSchema",
    "output-schema",
    "outputSchema",
    "read-only",
    "destructive",
    "idempotent",
    "open-world",
    "annotations",
    "source-file",
    "group",
    "next-tools",
    "execution",
    "timeout-hint-secs",
    "defer-loading",
    "call-examples",
    "search-aliases",
    "dialog",
    "task-support",
    "ask-first",
    "tags",
    "enabled",
];

impl ToolEntry {
    pub fn read(document: &Document, node: &Node, folder: &Path, scripts: &[String]) -> Result<Self, ManifestError> {
        document.expect_map(node, "an entry of `tools`")?;
        document.mention_unknown_keys(node, &KEYS);
        let name =
            document.text(node, "name")?.ok_or_else(|| document.wrong(node, "a tool has no `name`"))?.trim().to_owned();
        if name.is_empty() {
            return Err(document.wrong(node, "a tool has an empty `name`"));
        }
        let script = match document.text(node, "source-file")? {
            Some(file) => named_script(folder, &file),
            None => script_for(&name, scripts),
        };
        let annotations = annotations(document, node)?;
        let input_schema = schema(document, node, ["input-schema", "inputSchema"])?.unwrap_or_else(any_object);
        let mirror = Mirror::of(input_schema.get()).map_err(|what| document.wrong(node, &what))?;
        let declared_at = document.place(node);
        Ok(ToolEntry {
            title: document.text(node, "title")?.or_else(|| annotations.title.clone()),
            description: document.text(node, "description")?.map(|text| text.trim().to_owned()),
            icons: icons::read_all(document, node)?,
            input_schema,
            mirror: mirror.map(Arc::new),
            output_schema: schema(document, node, ["output-schema", "outputSchema"])?,
            annotations,
            script,
            group: document.text(node, "group")?.filter(|group| !group.is_empty()),
            next_tools: document.value(node, "next-tools"),
            call_examples: document.value(node, "call-examples"),
            execution: document.text(node, "execution")?,
            timeout: timeout(document, node)?,
            defer_loading: document.boolean(node, "defer-loading")?.unwrap_or(false),
            search_aliases: document.words(node, "search-aliases")?,
            dialog: document.boolean(node, "dialog")?.unwrap_or(false),
            task_support: task_support(document, node)?,
            ask_first: document.boolean(node, "ask-first")?.unwrap_or(false),
            declared_at,
            name,
        })
    }

    /// The tool of a script that no manifest declares (form C).
    pub fn undeclared(script: &str) -> ToolEntry {
        ToolEntry {
            name: files::stem(script).to_owned(),
            title: None,
            description: None,
            icons: Vec::new(),
            input_schema: any_object(),
            output_schema: None,
            mirror: None,
            annotations: ToolAnnotations::default(),
            script: Ok(PathBuf::from(script)),
            group: None,
            next_tools: None,
            call_examples: None,
            execution: None,
            timeout: None,
            defer_loading: false,
            search_aliases: Vec::new(),
            dialog: false,
            task_support: TaskSupport::Forbidden,
            ask_first: false,
            declared_at: script.to_owned(),
        }
    }
}

fn task_support(document: &Document, node: &Node) -> Result<TaskSupport, ManifestError> {
    let wrong = || document.wrong(node, "`task-support` must be forbidden, optional or required");
    let text = document.text(node, "task-support")?;
    text.map_or(Ok(TaskSupport::Forbidden), |text| TaskSupport::parse(&text).ok_or_else(wrong))
}

/// The schema of a tool that says nothing about its arguments.
fn any_object() -> Box<RawValue> {
    RawValue::from_string(r#"{"type":"object"}"#.to_owned()).expect("the text is JSON")
}

/// `source_file`: from the skill folder, or from its `scripts/`.
pub fn named_script(folder: &Path, file: &str) -> Result<PathBuf, String> {
    match files::inside(folder, file) {
        Err(files::FileError::Missing { .. }) => {
            let below = format!("scripts/{file}");
            match files::inside(folder, &below) {
                Ok(_) => Ok(PathBuf::from(below)),
                Err(files::FileError::Missing { .. }) => Err(format!("there is no script \"{file}\"")),
                Err(error) => Err(error.to_string()),
            }
        }
        Ok(_) => Ok(PathBuf::from(file)),
        Err(error) => Err(error.to_string()),
    }
}

/// The script whose stem is the tool's name, else the only script there is.
fn script_for(tool: &str, scripts: &[String]) -> Result<PathBuf, String> {
    let alike = |name: &str| name.to_lowercase().replace('-', "_");
    let same = scripts.iter().find(|script| alike(files::stem(script)) == alike(tool));
    match (same, scripts) {
        (Some(script), _) => Ok(PathBuf::from(script)),
        (None, [only]) => Ok(PathBuf::from(only)),
        (None, []) => Err("there is no script in `scripts/` and no `source_file`".to_owned()),
        (None, _) => {
            Err(format!("none of the scripts in `scripts/` is called \"{tool}\", and there is no `source_file`"))
        }
    }
}

/// A schema: a YAML map, or JSON text in a string.
fn schema(document: &Document, tool: &Node, keys: [&str; 2]) -> Result<Option<Box<RawValue>>, ManifestError> {
    let Some((key, node)) = keys.iter().find_map(|key| document.find(tool, key).map(|node| (key, node))) else {
        return Ok(None);
    };
    let text = match node.text() {
        Some(text) => text.to_owned(),
        None if node.map().is_some() => serde_json::to_string(node).unwrap_or_default(),
        None => {
            return Err(document.wrong(node, &format!("`{key}` must be a map or JSON text, not {}", node.kind_name())));
        }
    };
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| document.wrong(node, &format!("`{key}` is not valid JSON: {error}")))?;
    let Value::Object(object) = value else {
        return Err(document.wrong(node, &format!("`{key}` must be a JSON object")));
    };
    let typed = match object.get("type").and_then(Value::as_str) {
        Some("object") => text.trim().to_owned(),
        None if !object.contains_key("type") && object.is_empty() => r#"{"type":"object"}"#.to_owned(),
        None if !object.contains_key("type") => text.trim().replacen('{', r#"{"type":"object","#, 1),
        _ => return Err(document.wrong(node, &format!("`{key}` must have the type \"object\""))),
    };
    RawValue::from_string(json::compact(&typed)).map(Some).map_err(|error| document.wrong(node, &error.to_string()))
}

fn annotations(document: &Document, tool: &Node) -> Result<ToolAnnotations, ManifestError> {
    let given = document.find(tool, "annotations");
    if let Some(given) = given {
        document.expect_map(given, "`annotations`")?;
    }
    let hint = |short: &str, long: &str, camel: &str| -> Result<Option<bool>, ManifestError> {
        if let Some(value) = document.boolean(tool, short)? {
            return Ok(Some(value));
        }
        let Some(given) = given else { return Ok(None) };
        for key in [long, camel, short] {
            if let Some(value) = document.boolean(given, key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    };
    Ok(ToolAnnotations {
        title: given.map(|given| document.text(given, "title")).transpose()?.flatten(),
        read_only_hint: hint("read-only", "read-only-hint", "readOnlyHint")?,
        destructive_hint: hint("destructive", "destructive-hint", "destructiveHint")?,
        idempotent_hint: hint("idempotent", "idempotent-hint", "idempotentHint")?,
        open_world_hint: hint("open-world", "open-world-hint", "openWorldHint")?,
    })
}

fn timeout(document: &Document, tool: &Node) -> Result<Option<Duration>, ManifestError> {
    let Some(text) = document.text(tool, "timeout-hint-secs")? else { return Ok(None) };
    // Less than a nanosecond is nothing, too.
    let time = text.parse().ok().filter(|secs| *secs > 0.0).map(|secs| {
        let time = Duration::try_from_secs_f64(secs).unwrap_or(SCRIPT_TIME_MAX);
        time.min(SCRIPT_TIME_MAX)
    });
    match time {
        Some(time) if !time.is_zero() => Ok(Some(time)),
        _ => {
            let node = document.find(tool, "timeout-hint-secs").unwrap_or(tool);
            Err(document.wrong(node, "`timeout_hint_secs` must be a number of seconds above 0"))
        }
    }
}
