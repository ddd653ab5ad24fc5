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

    pub fn has_template(&self, uri_template: &str) -> bool {
        self.templates.find(uri_template).is_some()
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
            icons: self.facts.icons.clone(),
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
            icons: self.facts.icons.clone(),
            mime_type: self.facts.mime_type.clone(),
            meta: Some(from_skill(skill)),
        }
    }
}

impl Listed for SkillResource {
    fn kind(&self) -> &'static str {
        "resource"
    }

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
    fn kind(&self) -> &'static str {
        "template"
    }

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
    ErrorObject::new(RESOURCE_NOT_FOUND, "there is no such resource; resources/list names all")
        .with_data(json!({"uri": uri}))
}

fn file_error(uri: &str, error: &FileError) -> ErrorObject {
    match error {
        FileError::Missing { .. } => not_found(uri),
        _ => ErrorObject::new(INTERNAL_ERROR, format!("\"{uri}\": {error}")).with_data(json!({"uri": uri})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skills::manifest;
    use crate::skills::testing::Folder;

    fn skill(folder: &Folder, front: &str) -> Skill {
        folder.write("s/SKILL.md", &format!("---\nname: s\n{front}\n---\n"));
        manifest::read(&folder.path().join("s")).unwrap_or_else(|error| panic!("{error}"))
    }

    fn set(skill: &Skill) -> ResourceSet {
        ResourceSet::new(std::iter::once(skill))
    }

    fn read(set: &ResourceSet, uri: &str) -> Value {
        match set.read(uri) {
            Ok(result) => {
                let result: Value = serde_json::from_slice(&result).expect("a result is JSON");
                assert_eq!(result["contents"].as_array().map(Vec::len), Some(1));
                result["contents"][0].clone()
            }
            Err(error) => json!({"code": error.code, "message": error.message, "data": error.data}),
        }
    }

    #[test]
    fn what_is_listed_can_be_read() {
        let folder = Folder::new();
        folder.write("s/resources/a.md", "# A é");
        folder.write("s/resources/plain", "p");
        folder.write("s/resources/b.resource.yaml", "[{uri: 'x:b', name: b, title: B, text: '{}', mimeType: application/json}, {uri_template: 'x://{id}/data', name: t, text: 'id is {{id}}', arguments: [{name: id, values: [12, 13, 2]}]}]");
        std::fs::write(folder.path().join("s/resources/c.png"), [0xff, 0, 1]).expect("a file can be written");
        let skill = skill(&folder, "");
        let set = set(&skill);
        let meta = json!({"io.dcc-mcp/skill": "s"});
        let expected = json!([
            {"uri": "skill://s/resources/a.md", "name": "a.md", "mimeType": "text/markdown", "size": 6, "_meta": meta},
            {"uri": "skill://s/resources/c.png", "name": "c.png", "mimeType": "image/png", "size": 3, "_meta": meta},
            {"uri": "skill://s/resources/plain", "name": "plain", "size": 1, "_meta": meta},
            {"uri": "x:b", "name": "b", "title": "B", "mimeType": "application/json", "size": 2, "_meta": meta},
        ]);
        assert_eq!(serde_json::from_slice::<Value>(&set.encoded()).expect("a list is JSON"), expected);
        assert_eq!(set.encoded().to_vec(), jsonrpc::to_bytes(&set.list()));
        let templates =
            r#"[{"uriTemplate":"x://{id}/data","name":"t","mimeType":"text/plain","_meta":{"io.dcc-mcp/skill":"s"}}]"#;
        assert_eq!(String::from_utf8_lossy(&set.encoded_templates()), templates);
        for (uri, mime_type, key, content) in [
            ("skill://s/resources/a.md", "text/markdown", "text", "# A é"),
            ("skill://s/resources/plain", "text/plain", "text", "p"),
            ("skill://s/resources/c.png", "image/png", "blob", "/wAB"),
            ("x:b", "application/json", "text", "{}"),
            ("x://123/data", "text/plain", "text", "id is 123"),
            ("x://%7B%7Bid%7D%7D/data", "text/plain", "text", "id is {{id}}"),
        ] {
            assert!(set.contains(uri), "{uri}");
            assert_eq!(read(&set, uri), json!({"uri": uri, "mimeType": mime_type, key: content}));
        }
        assert_eq!(set.complete("x://{id}/data", "id", "1"), ["12", "13"]);
        assert_eq!(set.complete("x://{id}/data", "other", ""), Vec::<String>::new());
        assert_eq!(set.complete("x://{ID}/data", "id", ""), Vec::<String>::new());
    }

    #[test]
    fn nothing_else_can_be_read() {
        let folder = Folder::new();
        folder.write("secret", "not of the skill");
        for name in ["gone", "swapped", "pipe"] {
            folder.write(&format!("s/resources/{name}"), "x");
        }
        let skill = skill(&folder, "resources: resources");
        let set = set(&skill);
        let place = |name: &str| folder.path().join("s/resources").join(name);
        for name in ["gone", "swapped", "pipe"] {
            std::fs::remove_file(place(name)).expect("it can be removed");
        }
        std::os::unix::fs::symlink("../../secret", place("swapped")).expect("a link can be made");
        assert!(std::process::Command::new("mkfifo").arg(place("pipe")).status().expect("mkfifo runs").success());
        let long = format!("skill://s/{}", "x".repeat(1_000_000));
        for (uri, code, message) in [
            ("skill://s/resources/gone", -32002, "there is no such resource"),
            ("skill://s/resources/swapped", -32603, "leads out of the skill folder"),
            ("skill://s/resources/pipe", -32603, "is not a regular file"),
            ("skill://s/resources/../SKILL.md", -32002, "there is no such resource"),
            ("skill://s/SKILL.md", -32002, "there is no such resource"),
            ("skill://s/resources/%2e%2e/SKILL.md", -32002, "there is no such resource"),
            ("file:///etc/passwd", -32002, "there is no such resource"),
            ("", -32002, "there is no such resource"),
            (&long, -32002, "there is no such resource"),
        ] {
            let got = read(&set, uri);
            assert_eq!((&got["code"], &got["data"]), (&json!(code), &json!({"uri": uri})));
            assert!(got["message"].as_str().is_some_and(|text| text.contains(message)), "{got}");
        }
    }

    #[test]
    fn large_contents_fit_into_a_reply_or_are_refused() {
        let folder = Folder::new();
        let limit = RESOURCE_BYTES_MAX as usize;
        folder.write("s/resources/whole", &"x".repeat(limit));
        folder.write("s/resources/escapes", &"\u{1}".repeat(limit));
        folder.write("s/resources/big", &"x".repeat(limit + 1));
        let skill = skill(&folder, "");
        let set = set(&skill);
        let long = |name: &str| set.read(&format!("skill://s/resources/{name}")).map(|bytes| bytes.len());
        assert!(long("whole").is_ok_and(|bytes| bytes < limit + 1000));
        assert!(long("escapes").is_ok_and(|bytes| bytes <= RESULT_BYTES_MAX));
        assert!(read(&set, "skill://s/resources/escapes")["blob"].is_string());
        let big = read(&set, "skill://s/resources/big");
        assert_eq!(big["code"], -32603);
        assert!(big["message"].as_str().is_some_and(|text| text.contains("is larger than 8388608 bytes")), "{big}");
    }

    #[test]
    fn changes_of_content_are_told() {
        let folder = Folder::new();
        folder.write("s/resources/a.txt", "one");
        folder.write("s/resources/b.txt", "one");
        let before = skill(&folder, "");
        assert_eq!(set(&skill(&folder, "")).changed_since(&set(&before)), Vec::<String>::new());
        folder.write("s/resources/a.txt", "one and two");
        folder.write("s/resources/new.txt", "new");
        std::fs::remove_file(folder.path().join("s/resources/b.txt")).expect("it can be removed");
        assert_eq!(set(&skill(&folder, "")).changed_since(&set(&before)), ["skill://s/resources/a.txt"]);
    }
}
