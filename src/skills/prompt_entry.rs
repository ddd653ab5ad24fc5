//! One entry of `prompts` in a manifest → a prompt with its arguments and messages.
//!
//! **Invariant**: an error names file and line; a file that a message shows is inside the skill folder.
//! **Bounds**: sizes are those of the manifest.
//! Left out on purpose: putting values in (`prompts.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::mcp::{Icon, PromptArgument};
use crate::skills::document::{Document, Fields, ManifestError, Source};
use crate::skills::entry::named_script;
use crate::skills::icons;
use crate::skills::media;
use crate::skills::yaml::Node;

/// A prompt as its author declared it.
#[derive(Clone, Debug)]
pub struct PromptEntry {
    /// The author's name, unique in its skill.
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    pub icons: Vec<Icon>,
    pub arguments: Vec<Argument>,
    /// Empty where a script writes them.
    pub messages: Vec<Message>,
    pub script: Option<Script>,
}

/// What writes the messages when they are asked for.
#[derive(Clone, Debug)]
pub struct Script {
    /// Relative to the skill folder.
    pub file: PathBuf,
    /// It asks while it runs.
    pub dialog: bool,
}

#[derive(Clone, Debug)]
pub struct Argument {
    pub shown: PromptArgument,
    /// Values that are proposed to who types one.
    pub values: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub role: Role,
    pub body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    User,
    Assistant,
}

/// What a message shows. Texts and URIs have places for arguments.
#[derive(Clone, Debug)]
pub enum Body {
    Text(String),
    /// Files are relative to the skill folder.
    Image {
        file: String,
        mime_type: String,
    },
    Audio {
        file: String,
        mime_type: String,
    },
    /// A resource of any loaded skill.
    Resource {
        uri: String,
    },
}

/// The prompts of a skill.
pub fn read_all(folder: &Path, fields: &Fields<'_>) -> Result<Vec<Arc<PromptEntry>>, ManifestError> {
    let mut prompts: Vec<Arc<PromptEntry>> = Vec::new();
    for source in fields.sources(folder, "prompts", &["prompts.yaml", "prompts/*.prompt.yaml"])? {
        let (document, nodes) = match source {
            Source::Entries(document, nodes) => (document, nodes),
            Source::Plain(file) => {
                return Err(Document::new(folder.join(file)).wrong_at(1, "prompts are read from .yaml files"));
            }
        };
        for node in &nodes {
            let prompt = PromptEntry::read(folder, &document, node)?;
            if prompts.iter().any(|other| other.name == prompt.name) {
                return Err(document.wrong(node, &format!("the prompt \"{}\" is declared twice", prompt.name)));
            }
            prompts.push(Arc::new(prompt));
        }
    }
    Ok(prompts)
}

impl PromptEntry {
    fn read(folder: &Path, document: &Document, node: &Node) -> Result<PromptEntry, ManifestError> {
        document.expect_map(node, "an entry of `prompts`")?;
        document.mention_unknown_keys(node, &KEYS);
        let script = Script::read(folder, document, node)?;
        let messages = match (document.text(node, "template")?, document.find(node, "messages"), &script) {
            (Some(text), None, None) => vec![Message { role: Role::User, body: Body::Text(text) }],
            (None, Some(messages), None) => {
                let list = messages.list().filter(|list| !list.is_empty());
                let list = list.ok_or_else(|| document.wrong(messages, "`messages` must be a list of messages"))?;
                list.iter().map(|message| Message::read(folder, document, message)).collect::<Result<_, _>>()?
            }
            (None, None, Some(_)) => Vec::new(),
            _ => return Err(document.wrong(node, "a prompt has one of `template`, `messages`, `source_file`")),
        };
        Ok(PromptEntry {
            name: needed_name(document, node, "a prompt")?,
            title: document.text(node, "title")?,
            description: document.text(node, "description")?.map(|text| text.trim().to_owned()),
            icons: icons::read_all(document, node)?,
            arguments: Argument::read_all(document, node)?,
            messages,
            script,
        })
    }
}

const KEYS: [&str; 10] =
    ["name", "title", "description", "icons", "arguments", "template", "messages", "source-file", "dialog", "tags"];

impl Script {
    fn read(folder: &Path, document: &Document, node: &Node) -> Result<Option<Script>, ManifestError> {
        let dialog = document.boolean(node, "dialog")?;
        let Some(file) = document.text(node, "source-file")? else {
            return match dialog {
                Some(true) => Err(document.wrong(node, "`dialog` is for a prompt with a `source_file`")),
                _ => Ok(None),
            };
        };
        let at = document.find(node, "source-file").unwrap_or(node);
        let file = named_script(folder, &file).map_err(|what| document.wrong(at, &format!("`source_file`: {what}")))?;
        Ok(Some(Script { file, dialog: dialog.unwrap_or(false) }))
    }
}

impl Argument {
    /// `arguments` of a prompt or a template.
    pub fn read_all(document: &Document, node: &Node) -> Result<Vec<Argument>, ManifestError> {
        let Some(given) = document.find(node, "arguments") else { return Ok(Vec::new()) };
        let list = given.list().ok_or_else(|| document.wrong(given, "`arguments` must be a list of arguments"))?;
        let mut arguments: Vec<Argument> = Vec::new();
        for node in list {
            document.expect_map(node, "an entry of `arguments`")?;
            document.mention_unknown_keys(node, &["name", "title", "description", "required", "values", "type"]);
            let name = needed_name(document, node, "an argument")?;
            if arguments.iter().any(|other| other.shown.name == name) {
                return Err(document.wrong(node, &format!("the argument \"{name}\" is declared twice")));
            }
            let shown = PromptArgument {
                name,
                title: document.text(node, "title")?,
                description: document.text(node, "description")?,
                required: document.boolean(node, "required")?.unwrap_or(false),
            };
            arguments.push(Argument { shown, values: document.words(node, "values")? });
        }
        Ok(arguments)
    }

    /// The proposed values of an argument that begin with what is typed so far.
    pub fn complete(arguments: &[Argument], name: &str, typed: &str, max: usize) -> Vec<String> {
        let argument = arguments.iter().find(|argument| argument.shown.name == name);
        let values = argument.into_iter().flat_map(|argument| &argument.values);
        values.filter(|value| value.starts_with(typed)).take(max).cloned().collect()
    }
}

impl Message {
    fn read(folder: &Path, document: &Document, node: &Node) -> Result<Message, ManifestError> {
        document.expect_map(node, "an entry of `messages`")?;
        document.mention_unknown_keys(
            node,
            &["role", "text", "content", "image", "audio", "resource", "mime-type", "mimeType"],
        );
        let role = match document.text(node, "role")?.as_deref() {
            None | Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some(_) => {
                let at = document.find(node, "role").unwrap_or(node);
                return Err(document.wrong(at, "`role` must be user or assistant"));
            }
        };
        // `content` is what other servers of such skills call `text`.
        let kinds = ["text", "content", "image", "audio", "resource"];
        let mut given = kinds.into_iter().filter(|kind| document.find(node, kind).is_some());
        let (Some(kind), None) = (given.next(), given.next()) else {
            return Err(document.wrong(node, "a message has one of `text`, `image`, `audio`, `resource`"));
        };
        let value = document.text(node, kind)?.unwrap_or_default();
        let body = match kind {
            "text" | "content" => Body::Text(value),
            "resource" => Body::Resource { uri: value },
            _ => {
                let wrong = |what: String| document.wrong(document.find(node, kind).unwrap_or(node), &what);
                let file = document.locate(folder, &value).map_err(|error| wrong(format!("`{kind}`: {error}")))?;
                let mime_type = media::declared(document, node)?.or_else(|| media::type_of(&file).map(str::to_owned));
                match mime_type.filter(|mime_type| mime_type.starts_with(kind)) {
                    Some(mime_type) if kind == "image" => Body::Image { file, mime_type },
                    Some(mime_type) => Body::Audio { file, mime_type },
                    None => return Err(wrong(format!("`{kind}`: give `mime_type: {kind}/…` for this file"))),
                }
            }
        };
        Ok(Message { role, body })
    }
}

/// A `name` that is there and not empty.
pub fn needed_name(document: &Document, node: &Node, what: &str) -> Result<String, ManifestError> {
    let name = document.text(node, "name")?.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.ok_or_else(|| document.wrong(node, &format!("{what} has no `name`")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skills::manifest::{self, Skill};
    use crate::skills::testing::Folder;

    fn read(files: &[(&str, &str)]) -> (Folder, Result<Skill, ManifestError>) {
        let folder = Folder::new();
        for (name, text) in files {
            folder.write(name, text);
        }
        let skill = manifest::read(folder.path());
        (folder, skill)
    }

    #[test]
    fn prompts_are_found_in_every_form() {
        let b = |value: &str| format!("---\nname: b\nmetadata:\n  dcc-mcp:\n    prompts: {value}\n---\n");
        let one = "name: one\ntemplate: t\n";
        for (front, expected) in [
            (
                "---\nprompts: [{name: a, template: t}, {name: b, messages: [{text: t}]}]\n---\n".to_owned(),
                &["a", "b"][..],
            ),
            ("---\nprompts: [{name: a, messages: [{content: t}]}]\n---\n".to_owned(), &["a"]),
            (b("more.yaml"), &[]),
            (b("prompts.yaml"), &["two", "three"]),
            (b("prompts/*.prompt.yaml"), &["one", "z"]),
            (b("prompts/o*.prompt.yaml"), &["one"]),
            (b("prompts/one.prompt.yaml"), &["one"]),
            (b("[]"), &[]),
            // What is not named is read where it is.
            ("---\nname: b\n---\n".to_owned(), &["two", "three", "one", "z"]),
        ] {
            let (_folder, skill) = read(&[
                ("SKILL.md", &front),
                ("prompts.yaml", "prompts:\n- {name: two, template: t}\n- {name: three, template: t}\n"),
                ("more.yaml", "workflows:\n- file: x.yaml\n"),
                ("prompts/one.prompt.yaml", one),
                ("prompts/z.prompt.yaml", "- name: z\n  template: t\n"),
                ("prompts/README.md", "not a prompt"),
            ]);
            let skill = skill.unwrap_or_else(|error| panic!("{front}: {error}"));
            let names: Vec<&str> = skill.prompts.iter().map(|prompt| prompt.name.as_str()).collect();
            assert_eq!(names, expected, "{front}");
        }
    }

    #[test]
    fn mistakes_name_file_and_line() {
        let front = |lines: &str| format!("---\nname: x\nprompts:\n- name: p\n{lines}---\n");
        let b = |value: &str| format!("---\nname: b\nprompts: {value}\n---\n");
        for (file, text, expected) in [
            ("SKILL.md", front(""), "SKILL.md:4: a prompt has one of `template`, `messages`, `source_file`"),
            (
                "SKILL.md",
                front("  template: t\n  messages: [{text: t}]\n"),
                "SKILL.md:4: a prompt has one of `template`, `messages`, `source_file`",
            ),
            ("SKILL.md", front("  template: [t]\n"), "SKILL.md:5: `template` must be text, not a list"),
            ("SKILL.md", front("  messages: []\n"), "SKILL.md:5: `messages` must be a list of messages"),
            (
                "SKILL.md",
                front("  messages: [t]\n"),
                "SKILL.md:5: an entry of `messages` must be a map of keys and values, not a single value",
            ),
            (
                "SKILL.md",
                front("  messages:\n  - {role: system, text: t}\n"),
                "SKILL.md:6: `role` must be user or assistant",
            ),
            (
                "SKILL.md",
                front("  messages:\n  - {role: user}\n"),
                "SKILL.md:6: a message has one of `text`, `image`, `audio`, `resource`",
            ),
            (
                "SKILL.md",
                front("  messages:\n  - {text: t, image: a.png}\n"),
                "SKILL.md:6: a message has one of `text`, `image`, `audio`, `resource`",
            ),
            (
                "SKILL.md",
                front("  messages:\n  - image: a.png\n"),
                "SKILL.md:6: `image`: there is no file \"a.png\" in the skill folder",
            ),
            (
                "SKILL.md",
                front("  messages:\n  - image: ../a.png\n"),
                "SKILL.md:6: `image`: \"../a.png\" leads out of the skill folder; only files inside it are used",
            ),
            (
                "SKILL.md",
                front("  messages:\n  - image: SKILL.md\n"),
                "SKILL.md:6: `image`: give `mime_type: image/…` for this file",
            ),
            ("SKILL.md", front("  template: t\n  icons: x\n"), "SKILL.md:6: `icons` must be a list of icons"),
            (
                "SKILL.md",
                front("  template: t\n  arguments: x\n"),
                "SKILL.md:6: `arguments` must be a list of arguments",
            ),
            (
                "SKILL.md",
                front("  template: t\n  arguments:\n  - {title: x}\n"),
                "SKILL.md:7: an argument has no `name`",
            ),
            (
                "SKILL.md",
                front("  template: t\n  arguments:\n  - {name: x}\n  - {name: x}\n"),
                "SKILL.md:8: the argument \"x\" is declared twice",
            ),
            (
                "SKILL.md",
                front("  template: t\n  arguments:\n  - {name: x, required: maybe}\n"),
                "SKILL.md:7: `required` must be true or false",
            ),
            ("SKILL.md", b("\n- {name: ' ', template: t}"), "SKILL.md:4: a prompt has no `name`"),
            (
                "SKILL.md",
                b("[{name: x, template: t}, {name: x, template: t}]"),
                "SKILL.md:3: the prompt \"x\" is declared twice",
            ),
            (
                "SKILL.md",
                b("{a: 1}"),
                "SKILL.md:3: `prompts` must be a list, or the name of a file, a folder or several (`*`)",
            ),
            ("SKILL.md", front("  source_file: no.sh\n"), "SKILL.md:5: `source_file`: there is no script \"no.sh\""),
            (
                "SKILL.md",
                front("  template: t\n  dialog: true\n"),
                "SKILL.md:4: `dialog` is for a prompt with a `source_file`",
            ),
            ("SKILL.md", b("none.yaml"), "SKILL.md:3: `prompts`: there is no file \"none.yaml\" in the skill folder"),
            (
                "SKILL.md",
                b("../*.yaml"),
                "SKILL.md:3: `prompts`: \"..\" leads out of the skill folder; only files inside it are used",
            ),
            ("SKILL.md", b("SKILL.md"), "SKILL.md:1: prompts are read from .yaml files"),
            ("prompts.yaml", "other: 1\n".to_owned(), "prompts.yaml:1: there is no list `prompts` in this file"),
            (
                "prompts.yaml",
                "\nprompts: x\n".to_owned(),
                "prompts.yaml:2: `prompts` must be a list, not a single value",
            ),
            (
                "prompts/a.prompt.yaml",
                "name: a\ntemplate: {}\n".to_owned(),
                "prompts/a.prompt.yaml:2: `template` must be text, not a map",
            ),
        ] {
            let skill = if file == "SKILL.md" { text.as_str() } else { "---\nname: x\n---\n" };
            let (folder, skill) = read(&[("SKILL.md", skill), (file, &text)]);
            let error = skill.map(|skill| skill.name).expect_err(&text).to_string();
            assert_eq!(error, format!("{}/{expected}", folder.path().display()), "{text}");
        }
    }
}
