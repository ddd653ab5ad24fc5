//! A skill folder (`SKILL.md`, with its sibling files) → a skill and its tools.
//!
//! Three forms are read alike: everything at the top level of the front matter (A), everything below
//! `metadata.dcc-mcp` and in sibling files (B), and scripts without any declaration (C). `docs/skills.md` shows them.
//!
//! **Invariant**: an error names the file and, wherever there is one, the line; what is read comes from inside the folder.
//! **Bounds**: those of `files.rs` and `yaml.rs`.
//! Left out on purpose: prompts and resources of a skill; unknown keys (a `debug` line).

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::skills::entry::ToolEntry;
use crate::skills::files::{self, FileError};
use crate::skills::yaml::{self, Node, YamlError};

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

#[derive(Debug)]
pub enum ManifestError {
    Read { folder: PathBuf, source: FileError },
    Wrong { path: PathBuf, line: usize, what: String },
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::Read { folder, source } => write!(f, "{}: {source}", folder.display()),
            ManifestError::Wrong { path, line, what } => write!(f, "{}:{line}: {what}", path.display()),
        }
    }
}

/// Reads the skill in `folder`.
pub fn read(folder: &Path) -> Result<Skill, ManifestError> {
    let text =
        files::read(folder, FILE_NAME).map_err(|source| ManifestError::Read { folder: folder.to_owned(), source })?;
    parse(folder, &text)
}

/// Reads a skill from the text of its `SKILL.md`; sibling files and scripts are looked up in `folder`.
pub fn parse(folder: &Path, text: &str) -> Result<Skill, ManifestError> {
    let document = Document { path: folder.join(FILE_NAME) };
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

/// One YAML text and its file, for messages.
pub struct Document {
    path: PathBuf,
}

impl Document {
    fn read(&self, text: &str) -> Result<Node, ManifestError> {
        yaml::parse(text).map_err(|YamlError { line, what }| ManifestError::Wrong {
            path: self.path.clone(),
            line,
            what,
        })
    }

    pub fn wrong(&self, node: &Node, what: &str) -> ManifestError {
        ManifestError::Wrong { path: self.path.clone(), line: node.line, what: what.to_owned() }
    }

    /// `file:line` of a value.
    pub fn place(&self, node: &Node) -> String {
        format!("{}:{}", self.path.display(), node.line)
    }

    pub fn expect_map(&self, node: &Node, what: &str) -> Result<(), ManifestError> {
        match node.map() {
            Some(_) => Ok(()),
            None => {
                Err(self.wrong(node, &format!("{what} must be a map of keys and values, not {}", node.kind_name())))
            }
        }
    }

    /// The value of a key; `-` and `_` are the same in keys.
    pub fn find<'n>(&self, node: &'n Node, key: &str) -> Option<&'n Node> {
        let found = node.map()?.iter().find(|(name, value)| same_key(name, key) && !value.is_null());
        found.map(|(_, value)| value)
    }

    pub fn text(&self, node: &Node, key: &str) -> Result<Option<String>, ManifestError> {
        let Some(value) = self.find(node, key) else { return Ok(None) };
        match value.text() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(self.wrong(value, &format!("`{key}` must be text, not {}", value.kind_name()))),
        }
    }

    pub fn boolean(&self, node: &Node, key: &str) -> Result<Option<bool>, ManifestError> {
        let Some(value) = self.find(node, key) else { return Ok(None) };
        match value.boolean() {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(value, &format!("`{key}` must be true or false"))),
        }
    }

    /// A list of words, or one text with commas between them.
    pub fn words(&self, node: &Node, key: &str) -> Result<Vec<String>, ManifestError> {
        match self.find(node, key) {
            Some(value) => self.words_of(value, key),
            None => Ok(Vec::new()),
        }
    }

    pub fn value(&self, node: &Node, key: &str) -> Option<Value> {
        self.find(node, key).and_then(|value| serde_json::to_value(value).ok())
    }

    pub fn mention_unknown_keys(&self, node: &Node, known: &[&str]) {
        for (key, value) in node.map().unwrap_or_default() {
            if !known.iter().any(|name| same_key(name, key)) {
                log::debug!("skill file={} key={key:?} is not known and ignored", self.place(value));
            }
        }
    }

    fn words_of(&self, value: &Node, key: &str) -> Result<Vec<String>, ManifestError> {
        let wrong = |node: &Node| self.wrong(node, &format!("`{key}` must be a list of words, or words with commas"));
        let words: Vec<&str> = match (value.text(), value.list()) {
            (Some(text), _) => text.split(',').collect(),
            (None, Some(items)) => {
                items.iter().map(|item| item.text().ok_or_else(|| wrong(item))).collect::<Result<_, _>>()?
            }
            (None, None) => return Err(wrong(value)),
        };
        Ok(words.into_iter().map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect())
    }
}

/// Where the keys of a skill are: below `metadata.dcc-mcp`, as `dcc-mcp.key` in `metadata`, or at the top.
struct Fields<'a> {
    document: &'a Document,
    places: Vec<(&'a Node, &'static str)>,
}

impl<'a> Fields<'a> {
    fn new(document: &'a Document, root: &'a Node) -> Result<Fields<'a>, ManifestError> {
        let mut places = Vec::new();
        if let Some(metadata) = document.find(root, "metadata") {
            if let Some(ours) = document.find(metadata, "dcc-mcp") {
                document.expect_map(ours, "`metadata.dcc-mcp`")?;
                document.mention_unknown_keys(ours, &KEYS);
                places.push((ours, ""));
            }
            places.push((metadata, "dcc-mcp."));
        }
        document.mention_unknown_keys(root, &KEYS);
        places.push((root, ""));
        Ok(Fields { document, places })
    }

    fn find(&self, key: &str) -> Option<&'a Node> {
        self.places.iter().find_map(|(node, prefix)| self.document.find(node, &format!("{prefix}{key}")))
    }

    fn text(&self, key: &str) -> Result<Option<String>, ManifestError> {
        let Some(value) = self.find(key) else { return Ok(None) };
        match value.text() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(self.document.wrong(value, &format!("`{key}` must be text, not {}", value.kind_name()))),
        }
    }

    fn words(&self, key: &str) -> Result<Vec<String>, ManifestError> {
        self.find(key).map(|value| self.document.words_of(value, key)).unwrap_or(Ok(Vec::new()))
    }

    fn shown(&self) -> Vec<(&'static str, Value)> {
        let value = |key: &str| self.find(key).and_then(|node| serde_json::to_value(node).ok());
        ["policy", "external_deps", "products", "runtimes"]
            .into_iter()
            .filter_map(|key| value(key).map(|value| (key, value)))
            .collect()
    }

    /// The list at `key`: given in place, in the file that is named, or in `<key>.yaml` beside; `None` if nowhere.
    fn list_or_file(&self, folder: &Path, key: &str) -> Result<(Document, Option<Vec<Node>>), ManifestError> {
        let here = || Document { path: self.document.path.clone() };
        let file = match self.find(key) {
            Some(node) if node.list().is_some() => return Ok((here(), node.list().map(<[Node]>::to_vec))),
            Some(node) => match node.text() {
                Some(name) => name.trim().to_owned(),
                None => {
                    return Err(self.document.wrong(node, &format!("`{key}` must be a list or the name of a file")));
                }
            },
            None => format!("{key}.yaml"),
        };
        let text = match (files::read(folder, &file), self.find(key)) {
            (Ok(text), _) => text,
            (Err(FileError::Missing { .. }), None) => return Ok((here(), None)),
            (Err(error), Some(node)) => return Err(self.document.wrong(node, &format!("`{key}`: {error}"))),
            (Err(source), None) => return Err(ManifestError::Read { folder: folder.to_owned(), source }),
        };
        let document = Document { path: folder.join(&file) };
        let root = document.read(&text)?;
        let items = match root.list() {
            Some(items) => Some(items.to_vec()),
            None => match document.find(&root, key) {
                Some(node) => match node.list() {
                    Some(items) => Some(items.to_vec()),
                    None => {
                        return Err(document.wrong(node, &format!("`{key}` must be a list, not {}", node.kind_name())));
                    }
                },
                None => return Err(document.wrong(&root, &format!("there is no list `{key}` in this file"))),
            },
        };
        Ok((document, items))
    }
}

const KEYS: [&str; 22] = [
    "name",
    "description",
    "license",
    "compatibility",
    "allowed-tools",
    "metadata",
    "dcc",
    "version",
    "tags",
    "search-hint",
    "search-aliases",
    "layer",
    "depends",
    "tools",
    "groups",
    "prompts",
    "resources",
    "policy",
    "external-deps",
    "products",
    "runtimes",
    "author",
];

fn same_key(left: &str, right: &str) -> bool {
    left.len() == right.len()
        && left
            .bytes()
            .zip(right.bytes())
            .all(|(a, b)| a == b || (matches!(a, b'-' | b'_') && matches!(b, b'-' | b'_')))
}

/// The text up to the line that ends the front matter; the first `---` stays, so that lines count from the file's first.
fn front_matter<'t>(document: &Document, text: &'t str) -> Result<&'t str, ManifestError> {
    let wrong = |what: &str| ManifestError::Wrong { path: document.path.clone(), line: 1, what: what.to_owned() };
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
