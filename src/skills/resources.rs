//! The resources that an instance shows: those of its loaded skills, and what they hold.
//!
//! **Invariant**: only files of skill folders are read, each time they are asked for; equal skills make equal lists.
//! **Thread**: the caller's.
//! **Bounds**: `RESOURCES_MAX`, `RESOURCE_BYTES_MAX`, `RESULT_BYTES_MAX`.
//! Left out on purpose: subscriptions; `changed_since` tells what their keeper needs.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::base64;
use crate::jsonrpc::{self, ErrorObject, INTERNAL_ERROR};
use crate::limits::{RESOURCE_BYTES_MAX, RESOURCE_URI_BYTES_MAX, RESOURCES_MAX, RESULT_BYTES_MAX};
use crate::mcp::{COMPLETION_VALUES_MAX, RESOURCE_NOT_FOUND, Resource, ResourceContents, ResourceTemplate};
use crate::skills::files::{self, FileError};
use crate::skills::listing::{Listed, Listing};
use crate::skills::manifest::Skill;
use crate::skills::media;
use crate::skills::prompt_entry::Argument;
use crate::skills::resource_entry::{Body, ResourceEntry, TemplateEntry};
use crate::skills::set::META_SKILL;
use crate::skills::template;

/// Resources and templates of the loaded skills.
#[derive(Debug, Default)]
pub struct ResourceSet {
    resources: Listing<SkillResource>,
    templates: Listing<SkillTemplate>,
}

#[derive(Debug)]
struct SkillResource {
    skill: String,
    folder: PathBuf,
    entry: Arc<ResourceEntry>,
}

#[derive(Debug)]
struct SkillTemplate {
    skill: String,
    entry: Arc<TemplateEntry>,
}

impl ResourceSet {
    pub fn new<'s>(skills: impl Iterator<Item = &'s Skill> + Clone) -> ResourceSet {
        let resources = skills.clone().flat_map(|skill| {
            skill.resources.resources.iter().map(|entry| SkillResource {
                skill: skill.name.clone(),
                folder: skill.folder.clone(),
                entry: Arc::clone(entry),
            })
        });
        let templates = skills.flat_map(|skill| {
            skill
                .resources
                .templates
                .iter()
                .map(|entry| SkillTemplate { skill: skill.name.clone(), entry: Arc::clone(entry) })
        });
        ResourceSet {
            resources: Listing::new(resources, RESOURCES_MAX),
            templates: Listing::new(templates, RESOURCES_MAX),
        }
    }

    /// JSON text: the array of resources.
    pub fn encoded(&self) -> Arc<[u8]> {
        self.resources.encoded()
    }

    /// JSON text: the array of templates.
    pub fn encoded_templates(&self) -> Arc<[u8]> {
        self.templates.encoded()
    }

    pub fn list(&self) -> Vec<Resource> {
        self.resources.items().iter().map(|item| item.entry.shown(&item.skill)).collect()
    }

    pub fn templates(&self) -> Vec<ResourceTemplate> {
        self.templates.items().iter().map(|item| item.entry.shown(&item.skill)).collect()
    }

    /// Whether `uri` can be read.
    pub fn contains(&self, uri: &str) -> bool {
        self.resources.find(uri).is_some() || self.template_of(uri).is_some()
    }

    /// JSON text of the result of `resources/read`.
    pub fn read(&self, uri: &str) -> Result<Vec<u8>, ErrorObject> {
        let contents = self.contents(uri)?;
        Ok(jsonrpc::to_bytes(&json!({"contents": [contents]})))
    }

    pub fn contents(&self, uri: &str) -> Result<ResourceContents, ErrorObject> {
        if let Some(item) = self.resources.find(uri) {
            let bytes = match &item.entry.body {
                Body::Text(text) => text.clone().into_bytes(),
                Body::File(file) => files::read_bytes(&item.folder, file, RESOURCE_BYTES_MAX)
                    .map_err(|error| file_error(uri, &error))?,
            };
            return Ok(contents_of(uri, item.entry.facts.mime_type.as_deref(), bytes));
        }
        let Some((template, values)) = self.template_of(uri) else { return Err(not_found(uri)) };
        let text = template::fill(&template.text, &values, RESOURCE_BYTES_MAX as usize).ok_or_else(|| {
            let text = format!("\"{uri}\" would be larger than {RESOURCE_BYTES_MAX} bytes");
            ErrorObject::new(INTERNAL_ERROR, text).with_data(json!({"uri": uri}))
        })?;
        Ok(contents_of(uri, template.facts.mime_type.as_deref(), text.into_bytes()))
    }

    /// Proposed values for a name in a template's URI.
    pub fn complete(&self, uri_template: &str, argument: &str, typed: &str) -> Vec<String> {
        let arguments = self.templates.find(uri_template).map_or(&[][..], |item| &item.entry.arguments);
        Argument::complete(arguments, argument, typed, COMPLETION_VALUES_MAX)
    }

    /// The listed resources whose content is another than in `before`, in the order of the list.
    pub fn changed_since(&self, before: &ResourceSet) -> Vec<String> {
        let is_other = |item: &&SkillResource| {
            before.resources.find(&item.entry.uri).is_some_and(|old| old.entry.mark != item.entry.mark)
        };
        self.resources.items().iter().filter(is_other).map(|item| item.entry.uri.clone()).collect()
    }

    /// Why some are not here; for the log.
    pub fn left_out(&self) -> impl Iterator<Item = &String> {
        self.resources.left_out().iter().chain(self.templates.left_out())
    }

    fn template_of(&self, uri: &str) -> Option<(&TemplateEntry, Vec<(String, String)>)> {
        if uri.len() > RESOURCE_URI_BYTES_MAX {
            return None;
        }
        let mut templates = self.templates.items().iter();
        templates.find_map(|item| item.entry.uri.values_in(uri).map(|values| (item.entry.as_ref(), values)))
    }
}

impl ResourceEntry {
    /// As `resources/list` shows it.
    pub fn shown(&self, skill: &str) -> Resource {
        Resource {
            uri: self.uri.clone(),
            name: self.facts.name.clone(),
            title: self.facts.title.clone(),
            description: self.facts.description.clone(),
            mime_type: self.facts.mime_type.clone(),
            size: self.size,
            meta: Some(from_skill(skill)),
        }
    }
}

impl TemplateEntry {
    /// As `resources/templates/list` shows it.
    pub fn shown(&self, skill: &str) -> ResourceTemplate {
        ResourceTemplate {
            uri_template: self.uri.as_str().to_owned(),
            name: self.facts.name.clone(),
            title: self.facts.title.clone(),
            description: self.facts.description.clone(),
            mime_type: self.facts.mime_type.clone(),
            meta: Some(from_skill(skill)),
        }
    }
}

impl Listed for SkillResource {
    const KIND: &'static str = "resource";

    fn key(&self) -> &str {
        &self.entry.uri
    }

    fn short_key(&self) -> Option<&str> {
        None
    }

    fn skill(&self) -> &str {
        &self.skill
    }

    fn encode(&self) -> Vec<u8> {
        jsonrpc::to_bytes(&self.entry.shown(&self.skill))
    }
}

impl Listed for SkillTemplate {
    const KIND: &'static str = "template";

    fn key(&self) -> &str {
        self.entry.uri.as_str()
    }

    fn short_key(&self) -> Option<&str> {
        None
    }

    fn skill(&self) -> &str {
        &self.skill
    }

    fn encode(&self) -> Vec<u8> {
        jsonrpc::to_bytes(&self.entry.shown(&self.skill))
    }
}

/// `_meta` of what is from a skill.
pub fn from_skill(skill: &str) -> Map<String, Value> {
    Map::from_iter([(META_SKILL.to_owned(), skill.into())])
}

/// Text where it is, else Base64; also where text would grow beyond a reply by what JSON escapes.
fn contents_of(uri: &str, mime_type: Option<&str>, bytes: Vec<u8>) -> ResourceContents {
    let fits = |text: &str| text.len() <= RESULT_BYTES_MAX / 6 || escaped_len(text) <= RESULT_BYTES_MAX;
    let (text, blob, default) = match String::from_utf8(bytes) {
        Ok(text) if fits(&text) => (Some(text), None, media::TEXT),
        Ok(text) => (None, Some(base64::encode(text.as_bytes())), media::TEXT),
        Err(error) => (None, Some(base64::encode(error.as_bytes())), media::BINARY),
    };
    ResourceContents { uri: uri.to_owned(), mime_type: mime_type.unwrap_or(default).to_owned(), text, blob }
}

/// Bytes of a text as JSON, at most.
fn escaped_len(text: &str) -> usize {
    let length = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.bytes().map(length).sum()
}

fn not_found(uri: &str) -> ErrorObject {
    ErrorObject::new(RESOURCE_NOT_FOUND, format!("there is no resource \"{uri}\"; resources/list names all"))
        .with_data(json!({"uri": uri}))
}

fn file_error(uri: &str, error: &FileError) -> ErrorObject {
    match error {
        FileError::Missing { .. } => not_found(uri),
        _ => ErrorObject::new(INTERNAL_ERROR, format!("\"{uri}\": {error}")).with_data(json!({"uri": uri})),
    }
}
