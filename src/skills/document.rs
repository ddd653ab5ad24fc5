//! Access to the values of a manifest by key, with messages that name file and line.
//!
//! **Invariant**: a value of the wrong kind is an error of the author, never a default.
//! **Bounds**: those of `files.rs` and `yaml.rs`.
//! Left out on purpose: what the keys mean (`manifest.rs`, `entry.rs`).

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::skills::files::{self, FileError};
use crate::skills::yaml::{self, Node, YamlError};

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

/// One YAML text and its file, for messages.
pub struct Document {
    path: PathBuf,
}

impl Document {
    pub fn new(path: PathBuf) -> Document {
        Document { path }
    }

    pub fn read(&self, text: &str) -> Result<Node, ManifestError> {
        yaml::parse(text).map_err(|YamlError { line, what }| ManifestError::Wrong {
            path: self.path.clone(),
            line,
            what,
        })
    }

    pub fn wrong(&self, node: &Node, what: &str) -> ManifestError {
        self.wrong_at(node.line, what)
    }

    pub fn wrong_at(&self, line: usize, what: &str) -> ManifestError {
        ManifestError::Wrong { path: self.path.clone(), line, what: what.to_owned() }
    }

    /// `file:line` of a value.
    pub fn place(&self, node: &Node) -> String {
        format!("{}:{}", self.path.display(), node.line)
    }

    /// The path, from the skill folder, of a file that an entry names: from there, or from where this document is.
    pub fn locate(&self, folder: &Path, file: &str) -> Result<String, FileError> {
        let file = file.trim().trim_start_matches("./");
        let missing = match files::inside(folder, file) {
            Ok(_) => return Ok(file.to_owned()),
            Err(missing @ FileError::Missing { .. }) => missing,
            Err(error) => return Err(error),
        };
        let place = self.path.strip_prefix(folder).ok().and_then(Path::parent).and_then(Path::to_str);
        match place.filter(|place| !place.is_empty()).map(|place| format!("{place}/{file}")) {
            Some(beside) => files::inside(folder, &beside).map(|_| beside).map_err(|_| missing),
            None => Err(missing),
        }
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
                log::debug!("event=skill_key_ignored file={} key={key:?}", self.place(value));
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
pub struct Fields<'a> {
    document: &'a Document,
    places: Vec<(&'a Node, &'static str)>,
}

impl<'a> Fields<'a> {
    pub fn new(document: &'a Document, root: &'a Node) -> Result<Fields<'a>, ManifestError> {
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

    pub fn text(&self, key: &str) -> Result<Option<String>, ManifestError> {
        let Some(value) = self.find(key) else { return Ok(None) };
        match value.text() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(self.document.wrong(value, &format!("`{key}` must be text, not {}", value.kind_name()))),
        }
    }

    pub fn boolean(&self, key: &str) -> Result<Option<bool>, ManifestError> {
        let Some(value) = self.find(key) else { return Ok(None) };
        match value.boolean() {
            Some(value) => Ok(Some(value)),
            None => Err(self.document.wrong(value, &format!("`{key}` must be true or false"))),
        }
    }

    pub fn words(&self, key: &str) -> Result<Vec<String>, ManifestError> {
        self.find(key).map(|value| self.document.words_of(value, key)).unwrap_or(Ok(Vec::new()))
    }

    pub fn shown(&self) -> Vec<(&'static str, Value)> {
        let value = |key: &str| self.find(key).and_then(|node| serde_json::to_value(node).ok());
        ["policy", "external_deps", "products", "runtimes"]
            .into_iter()
            .filter_map(|key| value(key).map(|value| (key, value)))
            .collect()
    }

    /// The list at `key`: given in place, in the file that is named, or in `<key>.yaml` beside; `None` if nowhere.
    pub fn list_or_file(&self, folder: &Path, key: &str) -> Result<(Document, Option<Vec<Node>>), ManifestError> {
        let file = match self.find(key) {
            Some(node) if node.list().is_some() => return Ok((self.here(), node.list().map(<[Node]>::to_vec))),
            Some(node) => match node.text() {
                Some(name) => name.trim().to_owned(),
                None => {
                    return Err(self.document.wrong(node, &format!("`{key}` must be a list or the name of a file")));
                }
            },
            None => format!("{key}.yaml"),
        };
        match (files::read(folder, &file), self.find(key)) {
            (Ok(text), _) => entries_in(folder, &file, &text, key).map(|(document, items)| (document, Some(items))),
            (Err(FileError::Missing { .. }), None) => Ok((self.here(), None)),
            (Err(error), Some(node)) => Err(self.document.wrong(node, &format!("`{key}`: {error}"))),
            (Err(source), None) => Err(ManifestError::Read { folder: folder.to_owned(), source }),
        }
    }

    /// What `key` gives: a list in place; or a file, a folder or a pattern such as `prompts/*.prompt.yaml`, where nothing
    /// is given those of `defaults` that are there. YAML files hold entries; in a folder only those called
    /// `*.prompt.yaml` (for `prompts`) do.
    pub fn sources(&self, folder: &Path, key: &str, defaults: &[&str]) -> Result<Vec<Source>, ManifestError> {
        let node = self.find(key);
        let names: Vec<&str> = match node {
            Some(node) if node.list().is_some() => {
                let items = node.list().map(<[Node]>::to_vec).unwrap_or_default();
                return Ok(vec![Source::Entries(self.here(), items)]);
            }
            Some(node) => match node.text() {
                Some(name) => vec![name.trim()],
                None => {
                    let what = format!("`{key}` must be a list, or the name of a file, a folder or several (`*`)");
                    return Err(self.document.wrong(node, &what));
                }
            },
            None => defaults.to_vec(),
        };
        let mut sources = Vec::new();
        for name in names {
            let endings = match files::is_folder(folder, name) {
                true => [".yaml", ".yml"].map(|ending| format!(".{}{ending}", key.trim_end_matches('s'))),
                false => [".yaml", ".yml"].map(str::to_owned),
            };
            let files = match (files::matching(folder, name), node) {
                (Ok(files), _) => files,
                (Err(error), Some(node)) => return Err(self.document.wrong(node, &format!("`{key}`: {error}"))),
                (Err(_), None) => continue,
            };
            for file in files {
                if !endings.iter().any(|ending| file.ends_with(ending.as_str())) {
                    sources.push(Source::Plain(file));
                    continue;
                }
                let text = files::read(folder, &file)
                    .map_err(|source| ManifestError::Read { folder: folder.to_owned(), source })?;
                let (document, items) = entries_in(folder, &file, &text, key)?;
                sources.push(Source::Entries(document, items));
            }
        }
        Ok(sources)
    }

    fn here(&self) -> Document {
        Document { path: self.document.path.clone() }
    }
}

/// Where entries of a skill are.
pub enum Source {
    /// In this document.
    Entries(Document, Vec<Node>),
    /// This file, relative to the skill folder, holds none; it is one.
    Plain(String),
}

/// The entries in a file: a list, one at `key`, or a single entry.
fn entries_in(folder: &Path, file: &str, text: &str, key: &str) -> Result<(Document, Vec<Node>), ManifestError> {
    let document = Document { path: folder.join(file) };
    let root = document.read(text)?;
    if let Some(items) = root.list() {
        return Ok((document, items.to_vec()));
    }
    let Some(node) = document.find(&root, key) else {
        return match document.find(&root, "name") {
            Some(_) => Ok((document, vec![root])),
            // Other servers make prompts of workflows too, which are not known here.
            None if key == "prompts" && document.find(&root, "workflows").is_some() => Ok((document, Vec::new())),
            None => Err(document.wrong(&root, &format!("there is no list `{key}` in this file"))),
        };
    };
    match node.list() {
        Some(items) => Ok((document, items.to_vec())),
        None => Err(document.wrong(node, &format!("`{key}` must be a list, not {}", node.kind_name()))),
    }
}

const KEYS: [&str; 23] = [
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
    "prefix",
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
