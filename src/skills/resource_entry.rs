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
use crate::skills::document::{Document, Fields, ManifestError, Source};
use crate::skills::files;
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
                "mime-type",
                "mimeType",
                "file",
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
        let (body, default_name) = match (document.text(node, "file")?, document.text(node, "text")?) {
            (Some(file), None) => {
                let at = document.find(node, "file").unwrap_or(node);
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
        let facts = Facts { name: file_name(&file).to_owned(), title: None, description: None, mime_type: None };
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

fn facts(document: &Document, node: &Node, name: String) -> Result<Facts, ManifestError> {
    Ok(Facts {
        name,
        title: document.text(node, "title")?,
        description: document.text(node, "description")?.map(|text| text.trim().to_owned()),
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
