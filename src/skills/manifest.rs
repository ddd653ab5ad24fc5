//! A skill folder (`SKILL.md`, with its sibling files) → a skill and its tools.
//!
//! Three forms are read alike: everything at the top level of the front matter (A), everything below
//! `metadata.dcc-mcp` and in sibling files (B), and scripts without any declaration (C). `docs/skills.md` shows them.
//!
//! **Invariant**: an error names the file and, wherever there is one, the line; what is read comes from inside the folder.
//! **Bounds**: those of `files.rs` and `yaml.rs`.
//! Left out on purpose: prompts and resources of a skill; unknown keys (a `debug` line).

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::skills::document::{Document, Fields, ManifestError};
use crate::skills::entry::ToolEntry;
use crate::skills::files;
use crate::skills::yaml::Node;

pub const FILE_NAME: &str = "SKILL.md";

#[derive(Clone, Debug)]
pub struct Skill {
    pub name: String,
    pub description: String,
    pub folder: PathBuf,
    /// The application it is for, lower case; `python` and `any` are for all of them.
    pub dcc: String,
    pub version: String,
    pub layer: Option<String>,
    pub license: Option<String>,
    pub compatibility: Option<String>,
    pub allowed_tools: Vec<String>,
    pub tags: Vec<String>,
    pub search_hints: Vec<String>,
    pub search_aliases: Vec<String>,
    pub depends: Vec<String>,
    pub tools: Vec<ToolEntry>,
    pub groups: Vec<Group>,
    /// `policy`, `external_deps`, `products`, `runtimes`: shown as they are.
    pub shown: Vec<(&'static str, Value)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: String,
    pub description: String,
    pub default_active: bool,
    pub tools: Vec<String>,
}

/// Reads the skill in `folder`.
pub fn read(folder: &Path) -> Result<Skill, ManifestError> {
    let text =
        files::read(folder, FILE_NAME).map_err(|source| ManifestError::Read { folder: folder.to_owned(), source })?;
    parse(folder, &text)
}

/// Reads a skill from the text of its `SKILL.md`; sibling files and scripts are looked up in `folder`.
pub fn parse(folder: &Path, text: &str) -> Result<Skill, ManifestError> {
    let document = Document::new(folder.join(FILE_NAME));
    let root = document.read(front_matter(&document, text)?)?;
    document.expect_map(&root, "the front matter")?;
    let fields = Fields::new(&document, &root)?;
    let folder_name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (groups_document, groups) = fields.list_or_file(folder, "groups")?;
    let (tools_document, tools) = fields.list_or_file(folder, "tools")?;
    let mut groups = groups_of(&groups_document, &groups)?;
    let tools = tools_of(folder, &tools_document, tools.as_deref(), &mut groups)?;
    let mut depends = fields.words("depends")?;
    for name in depends_file(folder) {
        if !depends.contains(&name) {
            depends.push(name);
        }
    }
    let or = |value: Option<String>, default: &str| {
        value
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
            .unwrap_or_else(|| default.to_owned())
    };
    Ok(Skill {
        name: or(document.text(&root, "name")?, &folder_name),
        description: or(document.text(&root, "description")?, ""),
        dcc: or(fields.text("dcc")?, "python").to_lowercase(),
        version: or(fields.text("version")?, "1.0.0"),
        layer: fields.text("layer")?,
        license: document.text(&root, "license")?,
        compatibility: document.text(&root, "compatibility")?,
        allowed_tools: document.words(&root, "allowed-tools")?,
        tags: fields.words("tags")?,
        search_hints: fields.words("search-hint")?,
        search_aliases: fields.words("search-aliases")?,
        depends,
        tools,
        groups,
        shown: fields.shown(),
        folder: folder.to_owned(),
    })
}

/// The text up to the line that ends the front matter; the first `---` stays, so that lines count from the file's first.
fn front_matter<'t>(document: &Document, text: &'t str) -> Result<&'t str, ManifestError> {
    let wrong = |what: &str| document.wrong_at(1, what);
    let mut end = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        match (index, line.trim_end() == "---") {
            (0, false) => break,
            (0, true) => {}
            (_, true) => return Ok(&text[..end]),
            (_, false) => {}
        }
        end += line.len();
    }
    match end {
        0 => Err(wrong("there is no front matter: the first line must be `---`")),
        _ => Err(wrong("the front matter has no end: a second line `---` is missing")),
    }
}

fn groups_of(document: &Document, nodes: &Option<Vec<Node>>) -> Result<Vec<Group>, ManifestError> {
    let mut groups: Vec<Group> = Vec::new();
    for node in nodes.iter().flatten() {
        document.expect_map(node, "an entry of `groups`")?;
        document.mention_unknown_keys(node, &["name", "description", "default-active", "tools"]);
        let name = document.text(node, "name")?.ok_or_else(|| document.wrong(node, "a group has no `name`"))?;
        if groups.iter().any(|group| group.name == name) {
            return Err(document.wrong(node, &format!("the group \"{name}\" is declared twice")));
        }
        groups.push(Group {
            name,
            description: document.text(node, "description")?.unwrap_or_default(),
            default_active: document.boolean(node, "default-active")?.unwrap_or(false),
            tools: document.words(node, "tools")?,
        });
    }
    Ok(groups)
}

/// The declared tools, or without a declaration one per script. A group that only tools name is added to `groups`.
fn tools_of(
    folder: &Path,
    document: &Document,
    nodes: Option<&[Node]>,
    groups: &mut Vec<Group>,
) -> Result<Vec<ToolEntry>, ManifestError> {
    let scripts = files::scripts(folder);
    let Some(nodes) = nodes else {
        let mut tools: Vec<ToolEntry> = scripts.iter().map(|script| ToolEntry::undeclared(script)).collect();
        tools.dedup_by(|second, first| second.name == first.name);
        return Ok(tools);
    };
    let mut tools: Vec<ToolEntry> = Vec::new();
    for node in nodes {
        let tool = ToolEntry::read(document, node, folder, &scripts)?;
        if tools.iter().any(|other| other.name == tool.name) {
            return Err(document.wrong(node, &format!("the tool \"{}\" is declared twice", tool.name)));
        }
        if let Some(name) = &tool.group
            && !groups.iter().any(|group| group.name == *name)
        {
            let name = name.clone();
            groups.push(Group { name, description: String::new(), default_active: false, tools: Vec::new() });
        }
        tools.push(tool);
    }
    Ok(tools)
}

/// `metadata/depends.md`: one skill a line, as a list or bare; headings and blank lines are passed over.
fn depends_file(folder: &Path) -> Vec<String> {
    let text = files::read(folder, "metadata/depends.md").unwrap_or_default();
    let names = text.lines().map(|line| line.trim().trim_start_matches(['-', '*']).trim().trim_matches('`').trim());
    names
        .filter(|name| !name.is_empty() && !name.starts_with(['#', '<']) && !name.contains(' '))
        .map(str::to_owned)
        .collect()
}
