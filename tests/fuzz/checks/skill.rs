//! SKILL.md: the same twice, whatever follows the front matter and whichever line ends the author's editor writes;
//! tools that can be published as they are, with scripts inside the folder; prompts and resources that can be had as
//! they are listed; values that stay the same as JSON.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use dcc_mcp_server::json;
use dcc_mcp_server::jsonrpc::INVALID_PARAMS;
use dcc_mcp_server::limits::{SCRIPT_TIME_MAX, YAML_DEPTH_MAX, YAML_KEYS_MAX};
use dcc_mcp_server::skills::arguments::ArgumentRules;
use dcc_mcp_server::skills::files;
use dcc_mcp_server::skills::manifest::{self, Skill};
use dcc_mcp_server::skills::prompts::PromptSet;
use dcc_mcp_server::skills::resources::ResourceSet;
use dcc_mcp_server::skills::yaml::{self, Kind, Node};
use serde_json::{Map, Value};

/// Longer JSON is not read again: aliases make megabytes of a few lines.
const REREAD_BYTES_MAX: usize = 64 * 1024;
/// YAML has no longer keys in one line.
const KEY_BYTES_MAX: usize = 100;

/// The folder that every SKILL.md here stands in: two scripts and a file of tools.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    // The package is this folder for the fuzz targets, and the one two levels above for the replay.
    let places = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|place| place.join("tests/fuzz/skill"));
    places.into_iter().find(|place| place.is_dir()).expect("the folder is part of the source")
});

pub fn skill_md(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    check_yaml(text);
    let outcome = shown(text);
    assert_eq!(shown(text), outcome, "read twice");
    if !text.contains('\r') {
        let other = text.replace('\n', "\r\n");
        assert_eq!(shown(&other).is_ok(), outcome.is_ok(), "with CR LF: {:?} and {outcome:?}", shown(&other));
    }
    let Ok(skill) = manifest::parse(&FOLDER, text) else { return false };
    assert_eq!(shown(&format!("{text}\n---\ntools: [{{name: more}}]\n---\n")), outcome, "the text after it counts");
    check_skill(&skill);
    true
}

fn check_skill(skill: &Skill) {
    assert!(!skill.name.is_empty() && skill.folder == *FOLDER);
    let groups: Vec<&str> = skill.groups.iter().map(|group| &*group.name).collect();
    assert_unique(&groups);
    assert_unique(&skill.tools.iter().map(|tool| &*tool.name).collect::<Vec<_>>());
    for tool in &skill.tools {
        assert!(!tool.name.is_empty() && tool.name.trim() == tool.name, "{:?}", tool.name);
        assert!(tool.group.as_deref().is_none_or(|group| groups.contains(&group)), "{:?}", tool.group);
        assert!(tool.timeout.is_none_or(|time| time > Duration::ZERO && time <= SCRIPT_TIME_MAX), "{:?}", tool.timeout);
        if let Ok(script) = &tool.script {
            let script = script.to_str().expect("it was given as text");
            assert!(files::inside(&FOLDER, script).is_ok(), "{script:?} is no script of the folder");
        }
        for schema in [Some(&tool.input_schema), tool.output_schema.as_ref()].into_iter().flatten() {
            let value: Value = serde_json::from_str(schema.get()).expect("a schema is JSON");
            assert_eq!(value["type"], "object", "{schema}");
            assert_eq!(json::compact(schema.get()), schema.get(), "it does not fit into one line");
            ArgumentRules::of(schema.get());
        }
    }
    check_offer(skill);
}

/// What a skill lists can be had: every resource, and every prompt unless it shows a resource that is not there.
fn check_offer(skill: &Skill) {
    let resources = Arc::new(ResourceSet::new(std::iter::once(skill)));
    let prompts = PromptSet::new(std::iter::once(skill), Arc::clone(&resources));
    for list in [resources.encoded(), resources.encoded_templates(), prompts.encoded()] {
        assert!(serde_json::from_slice::<Vec<Value>>(&list).is_ok(), "{}", String::from_utf8_lossy(&list));
    }
    for resource in resources.list() {
        let read = resources.read(&resource.uri).unwrap_or_else(|error| panic!("{error}: {resource:?}"));
        let read: Value = serde_json::from_slice(&read).expect("a result is JSON");
        assert_eq!(read["contents"][0]["uri"], *resource.uri);
    }
    for prompt in prompts.list() {
        let values = prompt.arguments.iter().map(|argument| (argument.name.clone(), "{{x}}".into()));
        match prompts.get(&prompt.name, &Map::from_iter(values)) {
            Ok(result) => assert!(serde_json::from_slice::<Map<String, Value>>(&result).is_ok()),
            Err(error) => assert_eq!(error.code, INVALID_PARAMS, "{error}"),
        }
    }
}

/// YAML in bounds; as JSON, which is YAML, it is the same again.
fn check_yaml(text: &str) {
    let Ok(node) = yaml::parse(text) else { return };
    check_node(&node, 1);
    let json = serde_json::to_string(&node).expect("a tree encodes");
    let has_long_keys = has_long_keys(&node);
    if json.len() > REREAD_BYTES_MAX || has_long_keys {
        return;
    }
    let again = yaml::parse(&json).unwrap_or_else(|error| panic!("{error:?}: {json}"));
    assert_eq!(serde_json::to_string(&again).expect("a tree encodes"), json);
}

fn check_node(node: &Node, depth: usize) {
    assert!(depth <= YAML_DEPTH_MAX, "nested {depth} deep");
    assert!(node.line > 0);
    match &node.kind {
        Kind::Scalar { .. } => {}
        Kind::List(items) => items.iter().for_each(|item| check_node(item, depth + 1)),
        Kind::Map(entries) => {
            assert!(entries.len() <= YAML_KEYS_MAX);
            assert_unique(&entries.iter().map(|(key, _)| &**key).collect::<Vec<_>>());
            entries.iter().for_each(|(_, value)| check_node(value, depth + 1));
        }
    }
}

fn has_long_keys(node: &Node) -> bool {
    match &node.kind {
        Kind::Scalar { .. } => false,
        Kind::List(items) => items.iter().any(has_long_keys),
        Kind::Map(entries) => entries.iter().any(|(key, value)| key.len() > KEY_BYTES_MAX || has_long_keys(value)),
    }
}

fn assert_unique(names: &[&str]) {
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]), "twice: {names:?}");
}

/// A skill with all that is in it, or why it is none.
fn shown(text: &str) -> Result<String, String> {
    manifest::parse(&FOLDER, text).map(|skill| format!("{skill:?}")).map_err(|error| error.to_string())
}
