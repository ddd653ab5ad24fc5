//! `resources` of a manifest → resources and templates: declared ones, and files that are ones by themselves.
//!
//! **Invariant**: an error names file and line; a file is inside the skill folder; URIs are unique in a skill.
//! **Bounds**: `RESOURCE_URI_BYTES_MAX`; the rest is that of the manifest and of `files.rs`.
//! Left out on purpose: reading the files (`resources.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use crate::hash::fnv64;
use crate::limits::RESOURCE_URI_BYTES_MAX;
use crate::mcp::Icon;
use crate::skills::document::{Document, Fields, ManifestError, Source};
use crate::skills::files;
use crate::skills::icons;
use crate::skills::media;
use crate::skills::prompt_entry::{Argument, needed_name};
use crate::skills::template::{UriTemplate, encoded};
use crate::skills::yaml::Node;

#[derive(Clone, Debug)]
pub struct ResourceEntry {
    pub uri: String,
    pub facts: Facts,
    /// Bytes of the content.
    pub size: Option<u64>,
    pub body: Body,
    /// Another number when the content has changed.
    pub mark: u64,
}

#[derive(Clone, Debug)]
pub struct TemplateEntry {
    pub uri: UriTemplate,
    pub facts: Facts,
    /// What the URI's names may be, for completion.
    pub arguments: Vec<Argument>,
    /// With a `{{name}}` for what each of the URI's names is.
    pub text: String,
}

/// What a resource and a template both tell.
#[derive(Clone, Debug)]
pub struct Facts {
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    pub icons: Vec<Icon>,
    pub mime_type: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Body {
    /// Relative to the skill folder.
    File(String),
    Text(String),
}

/// The resources and templates of a skill.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    pub resources: Vec<Arc<ResourceEntry>>,
    pub templates: Vec<Arc<TemplateEntry>>,
}

/// Reads those of the skill `skill` in `folder`.
pub fn read_all(folder: &Path, skill: &str, fields: &Fields<'_>) -> Result<Resources, ManifestError> {
    let mut reading = Reading { folder, skill, all: Resources::default(), declared_files: BTreeSet::new() };
    let mut plain = Vec::new();
    for source in fields.sources(folder, "resources", &["resources.yaml", "resources"])? {
        match source {
            Source::Entries(document, nodes) => {
                nodes.iter().try_for_each(|node| reading.entry(&document, node))?;
            }
            Source::Plain(file) => plain.push(file),
        }
    }
    // A file that an entry tells more about is not listed by itself as well.
    plain.retain(|file| !reading.declared_files.contains(file));
    plain.into_iter().for_each(|file| reading.plain(file));
    Ok(reading.all)
}

struct Reading<'a> {
    folder: &'a Path,
    skill: &'a str,
    all: Resources,
    declared_files: BTreeSet<String>,
}

impl Reading<'_> {
    fn entry(&mut self, document: &Document, node: &Node) -> Result<(), ManifestError> {
        document.expect_map(node, "an entry of `resources`")?;
        document.mention_unknown_keys(
            node,
            &[
                "uri",
                "uri-template",
                "uriTemplate",
                "name",
                "title",
                "description",
                "icons",
                "mime-type",
                "mimeType",
                "file",
                "source",
                "text",
                "arguments",
                "tags",
            ],
        );
        let template = match document.text(node, "uri-template")? {
            None => document.text(node, "uriTemplate")?,
            given => given,
        };
        match template {
            Some(template) => self.template(document, node, template.trim()),
            None => self.resource(document, node),
        }
    }

    fn template(&mut self, document: &Document, node: &Node, template: &str) -> Result<(), ManifestError> {
        let uri = check_uri(template).and_then(|()| UriTemplate::parse(template));
        let uri = uri.map_err(|what| document.wrong(node, &format!("`uri_template` {template:?}: {what}")))?;
        if self.all.templates.iter().any(|other| other.uri == uri) {
            return Err(document.wrong(node, &format!("the template \"{template}\" is declared twice")));
        }
        for key in ["uri", "file"] {
            if document.find(node, key).is_some() {
                return Err(document.wrong(node, &format!("`uri_template` goes with `text`, not with `{key}`")));
            }
        }
        let arguments = Argument::read_all(document, node)?;
        if let Some(other) = arguments.iter().find(|argument| uri.names().all(|name| name != argument.shown.name)) {
            let what = format!("the argument \"{}\" is not in `uri_template`", other.shown.name);
            return Err(document.wrong(node, &what));
        }
        let text = document.text(node, "text")?.ok_or_else(|| document.wrong(node, "a template has no `text`"))?;
        let mut facts = facts(document, node, needed_name(document, node, "a template")?)?;
        facts.mime_type.get_or_insert_with(|| media::TEXT.to_owned());
        self.all.templates.push(Arc::new(TemplateEntry { uri, facts, arguments, text }));
        Ok(())
    }

    fn resource(&mut self, document: &Document, node: &Node) -> Result<(), ManifestError> {
        let (body, default_name) = match (named_file(document, node)?, document.text(node, "text")?) {
            (Some(file), None) => {
                let at = document.find(node, "file").or_else(|| document.find(node, "source")).unwrap_or(node);
                let located = document.locate(self.folder, &file);
                let file = located.map_err(|error| document.wrong(at, &format!("`file`: {error}")))?;
                self.declared_files.insert(file.clone());
                let name = file_name(&file).to_owned();
                (Body::File(file), Some(name))
            }
            (None, Some(text)) => (Body::Text(text), None),
            _ => return Err(document.wrong(node, "a resource has either `file` or `text`")),
        };
        let name = match (document.find(node, "name"), default_name) {
            (None, Some(name)) => name,
            _ => needed_name(document, node, "a resource")?,
        };
        let uri = match document.text(node, "uri")?.map(|uri| uri.trim().to_owned()) {
            Some(uri) => uri,
            None => self.uri_of(if let Body::File(file) = &body { file } else { &name }),
        };
        check_uri(&uri).map_err(|what| document.wrong(node, &format!("`uri` {uri:?}: {what}")))?;
        if self.all.resources.iter().any(|other| other.uri == uri) {
            return Err(document.wrong(node, &format!("the resource \"{uri}\" is declared twice")));
        }
        let facts = facts(document, node, name)?;
        self.add(uri, facts, body);
        Ok(())
    }

    fn plain(&mut self, file: String) {
        let uri = self.uri_of(&file);
        if check_uri(&uri).is_err() || self.all.resources.iter().any(|other| other.uri == uri) {
            log::debug!("event=skill_resource_ignored skill={} file={file:?}", self.skill);
            return;
        }
        let name = file_name(&file).to_owned();
        let facts = Facts { name, title: None, description: None, icons: Vec::new(), mime_type: None };
        self.add(uri, facts, Body::File(file));
    }

    fn add(&mut self, uri: String, mut facts: Facts, body: Body) {
        let (size, mark) = match &body {
            Body::Text(text) => (Some(text.len() as u64), fnv64(text.as_bytes())),
            Body::File(file) => match files::inside(self.folder, file).ok().and_then(|path| fs::metadata(path).ok()) {
                Some(now) => {
                    let state = format!("{}.{}.{}.{}", now.len(), now.mtime(), now.mtime_nsec(), now.ino());
                    (Some(now.len()), fnv64(state.as_bytes()))
                }
                None => (None, 0),
            },
        };
        if facts.mime_type.is_none() {
            facts.mime_type = match &body {
                Body::File(file) => media::type_of(file).map(str::to_owned),
                Body::Text(_) => Some(media::TEXT.to_owned()),
            };
        }
        self.all.resources.push(Arc::new(ResourceEntry { uri, facts, size, body, mark }));
    }

    fn uri_of(&self, path: &str) -> String {
        format!("skill://{}/{}", encoded(self.skill, ""), encoded(path, "/"))
    }
}

/// `file`, which other servers of such skills write as `source: {type: file, path: …}`.
fn named_file(document: &Document, node: &Node) -> Result<Option<String>, ManifestError> {
    let Some(source) = document.find(node, "source") else { return document.text(node, "file") };
    document.expect_map(source, "`source`")?;
    match (document.text(source, "type")?.as_deref(), document.text(source, "path")?) {
        (None | Some("file"), Some(path)) => Ok(Some(path)),
        _ => Err(document.wrong(source, "`source` must be `{type: file, path: …}`")),
    }
}

fn facts(document: &Document, node: &Node, name: String) -> Result<Facts, ManifestError> {
    Ok(Facts {
        name,
        title: document.text(node, "title")?,
        description: document.text(node, "description")?.map(|text| text.trim().to_owned()),
        icons: icons::read_all(document, node)?,
        mime_type: media::declared(document, node)?,
    })
}

fn file_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

/// A scheme, and something after it that a URI can hold (RFC 3986, section 3.1).
fn check_uri(uri: &str) -> Result<(), String> {
    let (scheme, rest) = uri.split_once(':').ok_or("it does not begin with a scheme such as `skill:`")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(plain) || rest.is_empty() {
        return Err("it does not begin with a scheme such as `skill:`".to_owned());
    }
    if uri.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("it has a blank or a control character".to_owned());
    }
    if uri.len() > RESOURCE_URI_BYTES_MAX {
        return Err(format!("it is longer than {RESOURCE_URI_BYTES_MAX} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SKILL_FILES_MAX;
    use crate::skills::manifest::{self, Skill};
    use crate::skills::testing::Folder;

    fn read(folder: &Folder, front: &str) -> Result<Skill, ManifestError> {
        folder.write("s/SKILL.md", &format!("---\nname: my skill\n{front}\n---\n"));
        manifest::read(&folder.path().join("s"))
    }

    fn uris(skill: &Skill) -> Vec<&str> {
        skill.resources.resources.iter().map(|entry| entry.uri.as_str()).collect()
    }

    #[test]
    fn resources_are_found_in_every_form() {
        let folder = Folder::new();
        folder.write("secret.txt", "not of the skill");
        folder.write("s/resources/a.md", "a");
        folder.write("s/resources/deep/er/b é.bin", "b");
        folder.write("s/resources/.hidden", "no");
        folder.write("s/resources/data.yaml", "any: thing");
        folder.write("s/resources/a.resource.yaml", "name: A\nuri: x://a\nfile: a.md\n");
        folder.write("s/more.yaml", "resources:\n- {name: t, text: t}\n- {name: n, file: resources/data.yaml}\n");
        folder.write("s/1/2/3/4/5.txt", "too deep");
        let links = [
            ("../../secret.txt", "s/resources/out.txt"),
            ("/etc", "s/resources/etc"),
            ("..", "s/resources/up"),
            ("a.md", "s/resources/alias.md"),
        ];
        for (target, link) in links {
            std::os::unix::fs::symlink(target, folder.path().join(link)).expect("a link can be made");
        }
        let whole = [
            "x://a",
            "skill://my%20skill/resources/alias.md",
            "skill://my%20skill/resources/data.yaml",
            "skill://my%20skill/resources/deep/er/b%20%C3%A9.bin",
        ];
        for (front, expected) in [
            ("", &whole[..]),
            ("resources: resources", &whole),
            ("resources: ./resources/", &whole),
            ("resources: resources/*.resource.yaml", &whole[..1]),
            (
                "resources: resources/*.md",
                &["skill://my%20skill/resources/a.md", "skill://my%20skill/resources/alias.md"],
            ),
            ("resources: resources/a.md", &["skill://my%20skill/resources/a.md"]),
            ("resources: more.yaml", &["skill://my%20skill/t", "skill://my%20skill/resources/data.yaml"]),
            ("resources: [{uri: 'y:z', text: t, name: n}]", &["y:z"]),
            ("resources: '1'", &["skill://my%20skill/1/2/3/4/5.txt"]),
            ("resources: [{uri: 'y:z', source: {type: file, path: resources/a.md}}]", &["y:z"]),
            ("resources: []", &[]),
        ] {
            let skill = read(&folder, front).unwrap_or_else(|error| panic!("{front}: {error}"));
            assert_eq!(uris(&skill), expected, "{front}");
        }
        std::fs::create_dir(folder.path().join("s/1/2/3/4/4")).expect("a folder can be made");
        folder.write("s/1/2/3/4/4/6.txt", "too deep");
        assert_eq!(uris(&read(&folder, "resources: '1'").expect("it is read")).len(), 1);
        let skill = read(&folder, "").expect("it is read");
        let entry = &skill.resources.resources[0];
        assert_eq!((entry.facts.name.as_str(), entry.facts.mime_type.as_deref()), ("A", Some("text/markdown")));
        assert_eq!(entry.size, Some(1));
    }

    #[test]
    fn a_folder_of_too_many_files_is_cut() {
        let folder = Folder::new();
        for index in 0..SKILL_FILES_MAX + 50 {
            folder.write(&format!("s/resources/{index}.txt"), "");
        }
        assert_eq!(uris(&read(&folder, "").expect("it is read")).len(), SKILL_FILES_MAX);
    }

    #[test]
    fn mistakes_name_file_and_line() {
        let long = format!("resources:\n- {{name: n, text: t, uri: 'x:{}'}}", "y".repeat(RESOURCE_URI_BYTES_MAX));
        for (front, expected) in [
            (
                "resources:\n- x",
                "SKILL.md:4: an entry of `resources` must be a map of keys and values, not a single value",
            ),
            ("resources:\n- {name: n}", "SKILL.md:4: a resource has either `file` or `text`"),
            ("resources:\n- {name: n, text: t, file: SKILL.md}", "SKILL.md:4: a resource has either `file` or `text`"),
            ("resources:\n- {text: t}", "SKILL.md:4: a resource has no `name`"),
            ("resources:\n- {name: n, text: t, icons: [{}]}", "SKILL.md:4: an icon has no `src`"),
            (
                "resources:\n- {name: n, text: t, uri_template: 'x:{y}', icons: 1}",
                "SKILL.md:4: `icons` must be a list of icons",
            ),
            (
                "resources:\n- {name: n, source: {type: url, path: 'x:y'}}",
                "SKILL.md:4: `source` must be `{type: file, path: …}`",
            ),
            ("resources:\n- file: none", "SKILL.md:4: `file`: there is no file \"none\" in the skill folder"),
            (
                "resources:\n- file: ../secret",
                "SKILL.md:4: `file`: \"../secret\" leads out of the skill folder; only files inside it are used",
            ),
            (
                "resources:\n- file: /etc/passwd",
                "SKILL.md:4: `file`: \"/etc/passwd\" leads out of the skill folder; only files inside it are used",
            ),
            (
                "resources: ..",
                "SKILL.md:3: `resources`: \"..\" leads out of the skill folder; only files inside it are used",
            ),
            ("resources: none", "SKILL.md:3: `resources`: there is no file \"none\" in the skill folder"),
            ("resources: '*/*'", "SKILL.md:3: `resources`: there is no file \"*/*\" in the skill folder"),
            (
                "resources: {a: 1}",
                "SKILL.md:3: `resources` must be a list, or the name of a file, a folder or several (`*`)",
            ),
            (
                "resources:\n- {name: n, text: t, uri: relative}",
                "SKILL.md:4: `uri` \"relative\": it does not begin with a scheme such as `skill:`",
            ),
            (
                "resources:\n- {name: n, text: t, uri: 'x:a b'}",
                "SKILL.md:4: `uri` \"x:a b\": it has a blank or a control character",
            ),
            (long.as_str(), "it is longer than 2048 bytes"),
            (
                "resources:\n- {name: n, text: t}\n- {name: n, text: u}",
                "SKILL.md:5: the resource \"skill://my%20skill/n\" is declared twice",
            ),
            (
                "resources:\n- {name: n, text: t, uri_template: 'x:{+y}'}",
                "SKILL.md:4: `uri_template` \"x:{+y}\": `{+y}` is no plain name; operators of RFC 6570 are not known here",
            ),
            ("resources:\n- {name: n, uri_template: 'x:{y}'}", "SKILL.md:4: a template has no `text`"),
            ("resources:\n- {text: n, uri_template: 'x:{y}'}", "SKILL.md:4: a template has no `name`"),
            (
                "resources:\n- {name: n, file: f, uri_template: 'x:{y}'}",
                "SKILL.md:4: `uri_template` goes with `text`, not with `file`",
            ),
            (
                "resources:\n- {name: n, text: t, uri_template: 'x:{y}', arguments: [{name: z}]}",
                "SKILL.md:4: the argument \"z\" is not in `uri_template`",
            ),
        ] {
            let folder = Folder::new();
            folder.write("secret", "not of the skill");
            let error = read(&folder, front).map(|skill| skill.name).expect_err(front).to_string();
            assert!(error.ends_with(expected), "{front} gave {error}");
        }
    }
}
