//! The prompts that an instance shows: those of its loaded skills, and their messages with values put in.
//!
//! **Invariant**: names are unique and made like those of tools; equal skills make equal lists.
//! **Thread**: the caller's.
//! **Bounds**: `PROMPTS_MAX`, `RESULT_BYTES_MAX`, `RESOURCE_BYTES_MAX` an image.
//! Left out on purpose: prompts that ask their client for more (`input_required`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::base64;
use crate::jsonrpc::{self, ErrorObject, INTERNAL_ERROR};
use crate::limits::{PROMPTS_MAX, RESOURCE_BYTES_MAX, RESULT_BYTES_MAX};
use crate::mcp::{COMPLETION_VALUES_MAX, Prompt, ResourceContents};
use crate::skills::files;
use crate::skills::listing::{Listed, Listing};
use crate::skills::manifest::Skill;
use crate::skills::prompt_entry::{Argument, Body, PromptEntry, Role};
use crate::skills::resources::{ResourceSet, from_skill};
use crate::skills::set::full_name;
use crate::skills::template;

/// The prompts of the loaded skills.
#[derive(Debug, Default)]
pub struct PromptSet {
    prompts: Listing<SkillPrompt>,
    /// Where messages find the resources that they show.
    resources: Arc<ResourceSet>,
}

#[derive(Debug)]
struct SkillPrompt {
    prompt: Prompt,
    skill: String,
    folder: PathBuf,
    entry: Arc<PromptEntry>,
}

/// The result of `prompts/get`.
#[derive(Serialize)]
struct GetPromptResult<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    messages: Vec<PromptMessage<'a>>,
}

#[derive(Serialize)]
struct PromptMessage<'a> {
    role: Role,
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
enum Content<'a> {
    Text { text: String },
    Image { data: String, mime_type: &'a str },
    Audio { data: String, mime_type: &'a str },
    Resource { resource: ResourceContents },
}

impl PromptSet {
    pub fn new<'s>(skills: impl Iterator<Item = &'s Skill>, resources: Arc<ResourceSet>) -> PromptSet {
        let prompts = skills.flat_map(|skill| {
            skill.prompts.iter().map(|entry| SkillPrompt {
                prompt: entry.shown(&skill.name),
                skill: skill.name.clone(),
                folder: skill.folder.clone(),
                entry: Arc::clone(entry),
            })
        });
        PromptSet { prompts: Listing::new(prompts, PROMPTS_MAX), resources }
    }

    /// JSON text: the array of prompts.
    pub fn encoded(&self) -> Arc<[u8]> {
        self.prompts.encoded()
    }

    pub fn list(&self) -> impl Iterator<Item = &Prompt> {
        self.prompts.items().iter().map(|item| &item.prompt)
    }

    /// JSON text of the result of `prompts/get`, by the full name or by the prompt's own where only one has it.
    pub fn get(&self, name: &str, arguments: &Map<String, Value>) -> Result<Vec<u8>, ErrorObject> {
        let prompt = self.prompts.find(name).ok_or_else(|| {
            ErrorObject::invalid_params(format!("there is no prompt \"{name}\"; prompts/list names all"))
        })?;
        let values = values_of(prompt, arguments)?;
        let mut room = RESULT_BYTES_MAX;
        let mut messages = Vec::new();
        for message in &prompt.entry.messages {
            let content = self.content(&message.body, &values, &prompt.folder, room)?;
            room = room.checked_sub(content.len()).ok_or_else(too_large)?;
            messages.push(PromptMessage { role: message.role, content });
        }
        let result = GetPromptResult { description: prompt.entry.description.as_deref(), messages };
        let encoded = jsonrpc::to_bytes(&result);
        if encoded.len() > RESULT_BYTES_MAX { Err(too_large()) } else { Ok(encoded) }
    }

    /// Proposed values for an argument of a prompt.
    pub fn complete(&self, name: &str, argument: &str, typed: &str) -> Vec<String> {
        let arguments = self.prompts.find(name).map_or(&[][..], |item| &item.entry.arguments);
        Argument::complete(arguments, argument, typed, COMPLETION_VALUES_MAX)
    }

    /// Whether there is such a prompt.
    pub fn contains(&self, name: &str) -> bool {
        self.prompts.find(name).is_some()
    }

    /// Why some are not here; for the log.
    pub fn left_out(&self) -> impl Iterator<Item = &String> {
        self.prompts.left_out().iter()
    }

    fn content<'e>(
        &self,
        body: &'e Body,
        values: &template::Values,
        folder: &Path,
        room: usize,
    ) -> Result<Content<'e>, ErrorObject> {
        let fill = |text: &str| template::fill(text, values, room).ok_or_else(too_large);
        let data = |file: &str| {
            let limit = RESOURCE_BYTES_MAX.min(room as u64);
            let bytes = files::read_bytes(folder, file, limit);
            bytes
                .map(|bytes| base64::encode(&bytes))
                .map_err(|error| ErrorObject::new(INTERNAL_ERROR, error.to_string()))
        };
        Ok(match body {
            Body::Text(text) => Content::Text { text: fill(text)? },
            Body::Image { file, mime_type } => Content::Image { data: data(file)?, mime_type },
            Body::Audio { file, mime_type } => Content::Audio { data: data(file)?, mime_type },
            Body::Resource { uri } => {
                let uri = fill(uri)?;
                let resource = self.resources.contents(&uri).map_err(|error| {
                    ErrorObject::invalid_params(format!(
                        "the prompt shows a resource that cannot be read: {}",
                        error.message
                    ))
                })?;
                Content::Resource { resource }
            }
        })
    }
}

impl PromptEntry {
    /// As `prompts/list` shows it.
    pub fn shown(&self, skill: &str) -> Prompt {
        Prompt {
            name: full_name(skill, &self.name),
            title: self.title.clone(),
            description: self.description.clone(),
            arguments: self.arguments.iter().map(|argument| argument.shown.clone()).collect(),
            meta: Some(from_skill(skill)),
        }
    }
}

impl Listed for SkillPrompt {
    const KIND: &'static str = "prompt";

    fn key(&self) -> &str {
        &self.prompt.name
    }

    fn short_key(&self) -> Option<&str> {
        Some(&self.entry.name)
    }

    fn skill(&self) -> &str {
        &self.skill
    }

    fn encode(&self) -> Vec<u8> {
        jsonrpc::to_bytes(&self.prompt)
    }
}

impl Content<'_> {
    /// Bytes of what it holds.
    fn len(&self) -> usize {
        match self {
            Content::Text { text } => text.len(),
            Content::Image { data, .. } | Content::Audio { data, .. } => data.len(),
            Content::Resource { resource } => {
                [&resource.text, &resource.blob].into_iter().flatten().map(String::len).sum()
            }
        }
    }
}

/// A value for each declared argument; what is not declared is passed over.
fn values_of(prompt: &SkillPrompt, given: &Map<String, Value>) -> Result<Vec<(String, String)>, ErrorObject> {
    let mut values = Vec::new();
    for argument in &prompt.entry.arguments {
        let name = &argument.shown.name;
        let value = match given.get(name) {
            Some(Value::String(value)) => value.clone(),
            None if argument.shown.required => {
                let text = format!("the prompt \"{}\" needs the argument \"{name}\"", prompt.prompt.name);
                return Err(ErrorObject::invalid_params(text));
            }
            None => String::new(),
            Some(_) => {
                return Err(ErrorObject::invalid_params(format!(
                    "the argument \"{name}\" of a prompt must be a string"
                )));
            }
        };
        values.push((name.clone(), value));
    }
    Ok(values)
}

fn too_large() -> ErrorObject {
    ErrorObject::invalid_params(format!(
        "with these arguments the prompt would be larger than {RESULT_BYTES_MAX} bytes"
    ))
}
