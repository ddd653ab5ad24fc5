//! The prompts that an instance shows: those of its loaded skills, and their messages with values put in.
//!
//! **Invariant**: names are unique and made like those of tools; equal skills make equal lists.
//! **Thread**: the caller's.
//! **Bounds**: `PROMPTS_MAX`, `RESULT_BYTES_MAX`, `RESOURCE_BYTES_MAX` an image.
//! Left out on purpose: running the script of a prompt (`run.rs`, `prompt_script.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::base64;
use crate::jsonrpc::{self, ErrorObject, INTERNAL_ERROR};
use crate::limits::{ECHO_CHARS_MAX, PROMPTS_MAX, RESOURCE_BYTES_MAX, RESULT_BYTES_MAX};
use crate::mcp::{COMPLETION_VALUES_MAX, Prompt, ResourceContents};
use crate::skills::files;
use crate::skills::listing::{Listed, Listing};
use crate::skills::manifest::Skill;
use crate::skills::prompt_entry::{Argument, Body, PromptEntry, Role};
use crate::skills::prompt_script;
use crate::skills::resources::{ResourceSet, from_skill};
use crate::skills::set::{SkillTool, full_name};
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
    /// What writes it, where that is a script.
    script: Option<SkillTool>,
}

/// A prompt that a script writes, with what it is called with.
pub struct Written<'p> {
    pub script: &'p SkillTool,
    /// JSON text of an object.
    pub arguments: String,
    pub description: Option<&'p str>,
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
                prompt: entry.shown(skill),
                skill: skill.name.clone(),
                folder: skill.folder.clone(),
                entry: Arc::clone(entry),
                script: entry.script.as_ref().map(|script| prompt_script::runnable(skill, entry, script)),
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

    /// A prompt that a script writes, by its name as below; `None` for any other.
    pub fn written(&self, name: &str, arguments: &Map<String, Value>) -> Result<Option<Written<'_>>, ErrorObject> {
        let Some(prompt) = self.prompts.find(name) else { return Ok(None) };
        let Some(script) = &prompt.script else { return Ok(None) };
        let given = values_of(prompt, arguments)?.into_iter().filter(|(name, _)| arguments.contains_key(name));
        let given: Map<String, Value> = given.map(|(name, value)| (name, value.into())).collect();
        let description = prompt.entry.description.as_deref();
        Ok(Some(Written { script, arguments: Value::Object(given).to_string(), description }))
    }

    /// Whether the script of a prompt asks while it runs.
    pub fn asks(&self, name: &str) -> bool {
        self.prompts.find(name).and_then(|prompt| prompt.script.as_ref()).is_some_and(|script| script.dialog)
    }

    /// JSON text of the result of `prompts/get`, by the full name or by the prompt's own where only one has it.
    pub fn get(&self, name: &str, arguments: &Map<String, Value>) -> Result<Vec<u8>, ErrorObject> {
        let prompt = self.prompts.find(name).ok_or_else(|| {
            ErrorObject::invalid_params(format!(
                "there is no prompt \"{name:.ECHO_CHARS_MAX$}\"; prompts/list names all"
            ))
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
    pub fn shown(&self, skill: &Skill) -> Prompt {
        Prompt {
            name: full_name(skill, &self.name),
            title: self.title.clone(),
            description: self.description.clone(),
            icons: self.icons.clone(),
            arguments: self.arguments.iter().map(|argument| argument.shown.clone()).collect(),
            meta: Some(from_skill(&skill.name)),
        }
    }
}

impl Listed for SkillPrompt {
    fn kind(&self) -> &'static str {
        "prompt"
    }

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::skills::manifest;
    use crate::skills::testing::Folder;

    fn skill(folder: &Folder, name: &str, entries: &str) -> Skill {
        folder.write(&format!("{name}/SKILL.md"), &format!("---\nname: {name}\n{entries}\n---\n"));
        manifest::read(&folder.path().join(name)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn set(skills: &[Skill]) -> PromptSet {
        PromptSet::new(skills.iter(), Arc::new(ResourceSet::new(skills.iter())))
    }

    fn get(set: &PromptSet, name: &str, arguments: Value) -> Value {
        match set.get(name, arguments.as_object().expect("an object")) {
            Ok(result) => serde_json::from_slice(&result).expect("a result is JSON"),
            Err(error) => json!({"code": error.code, "message": error.message}),
        }
    }

    #[test]
    fn a_prompt_has_its_values_put_in() {
        let folder = Folder::new();
        let review = r#"prompts:
- name: review
  title: Review
  description: Looks closely.
  arguments: [{name: file, description: What, required: true}, {name: how, values: [well, quickly, quietly]}]
  template: "Review {{file}} {{ how }}. {{unknown}}""#;
        let skills = [skill(&folder, "my-a", review), skill(&folder, "b", "prompts: [{name: plain, template: Hello}]")];
        let set = set(&skills);
        let listed = r#"[{"name":"b__plain","_meta":{"io.dcc-mcp/skill":"b"}},{"name":"my_a__review","title":"Review","description":"Looks closely.","arguments":[{"name":"file","description":"What","required":true},{"name":"how","required":false}],"_meta":{"io.dcc-mcp/skill":"my-a"}}]"#;
        assert_eq!(String::from_utf8_lossy(&set.encoded()), listed);
        let message = |text: &str| json!({"role": "user", "content": {"type": "text", "text": text}});
        for (name, arguments, expected) in [
            ("b__plain", json!({}), json!({"messages": [message("Hello")]})),
            ("plain", json!({"more": 1}), json!({"messages": [message("Hello")]})),
            (
                "my_a__review",
                json!({"file": "{{how}}", "how": "well"}),
                json!({"description": "Looks closely.", "messages": [message("Review {{how}} well. {{unknown}}")]}),
            ),
            (
                "review",
                json!({"file": "x"}),
                json!({"description": "Looks closely.", "messages": [message("Review x . {{unknown}}")]}),
            ),
            (
                "review",
                json!({"how": "x"}),
                json!({"code": -32602, "message": "the prompt \"my_a__review\" needs the argument \"file\""}),
            ),
            (
                "review",
                json!({"file": 1}),
                json!({"code": -32602, "message": "the argument \"file\" of a prompt must be a string"}),
            ),
            (
                "none",
                json!({}),
                json!({"code": -32602, "message": "there is no prompt \"none\"; prompts/list names all"}),
            ),
        ] {
            assert_eq!(get(&set, name, arguments), expected);
        }
        for (name, argument, typed, expected) in [
            ("my_a__review", "how", "qui", &["quickly", "quietly"][..]),
            ("review", "how", "", &["well", "quickly", "quietly"]),
            ("review", "how", "x", &[]),
            ("review", "file", "", &[]),
            ("review", "none", "", &[]),
            ("none", "how", "", &[]),
        ] {
            assert_eq!(set.complete(name, argument, typed), expected, "{name} {argument} {typed}");
        }
    }

    #[test]
    fn messages_show_images_and_resources() {
        let folder = Folder::new();
        folder.write("a/pictures/dot.png", "\u{1}png");
        folder.write("a/sound.bin", "wave");
        let shown = r#"prompts:
- name: shown
  arguments: [{name: uri}]
  messages:
  - {role: assistant, text: Look}
  - image: pictures/dot.png
  - {audio: sound.bin, mime_type: audio/x-own}
  - resource: "{{uri}}""#;
        let skills = [
            skill(&folder, "a", shown),
            skill(&folder, "b", "resources: [{uri: 'test://x', name: x, text: 'Hi', mime_type: text/css}]"),
        ];
        let set = set(&skills);
        let got = get(&set, "shown", json!({"uri": "test://x"}));
        let expected = json!({"messages": [
            {"role": "assistant", "content": {"type": "text", "text": "Look"}},
            {"role": "user", "content": {"type": "image", "data": "AXBuZw==", "mimeType": "image/png"}},
            {"role": "user", "content": {"type": "audio", "data": "d2F2ZQ==", "mimeType": "audio/x-own"}},
            {"role": "user", "content": {"type": "resource", "resource": {"uri": "test://x", "mimeType": "text/css", "text": "Hi"}}},
        ]});
        assert_eq!(got, expected);
        assert_eq!(get(&set, "shown", json!({"uri": "test://y"}))["code"], -32602);
        std::fs::remove_file(folder.path().join("a/pictures/dot.png")).expect("it can be removed");
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("a/pictures/dot.png"))
            .expect("a link can be made");
        let gone = get(&set, "shown", json!({"uri": "test://x"}));
        assert_eq!(gone["code"], -32603);
        assert!(gone["message"].as_str().is_some_and(|text| text.contains("leads out of the skill folder")), "{gone}");
    }

    #[test]
    fn results_are_bounded() {
        let folder = Folder::new();
        folder.write("a/big.txt", &"x".repeat(6 * 1024 * 1024));
        let many = "{text: '{{x}}'}, ".repeat(40);
        let front = format!(
            "prompts:\n- {{name: square, arguments: [{{name: x}}], template: '{}'}}\n- {{name: many, arguments: [{{name: x}}], messages: [{many}]}}\n- {{name: files, messages: [{{resource: 'a:b'}}, {{resource: 'a:b'}}, {{resource: 'a:b'}}]}}\nresources: [{{uri: 'a:b', file: big.txt}}]",
            "{{x}}".repeat(100_000)
        );
        let skills = [skill(&folder, "a", &front)];
        let set = set(&skills);
        let million = "x".repeat(1024 * 1024);
        for (name, value) in
            [("square", million.as_str()), ("many", &million), ("many", &"\u{1}".repeat(100_000)), ("files", "")]
        {
            let got = get(&set, name, json!({"x": value}));
            assert_eq!(got["code"], -32602, "{name}");
            assert!(got["message"].as_str().is_some_and(|text| text.contains("would be larger than")), "{got}");
        }
        let fine = set.get("square", json!({"x": "y"}).as_object().expect("an object")).expect("it is small");
        assert!(fine.len() < 200_000);
    }
}
