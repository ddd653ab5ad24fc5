//! A skill folder (`SKILL.md`, with its sibling files) → a skill and its tools.
//!
//! Three forms are read alike: everything at the top level of the front matter (A), everything below
//! `metadata.dcc-mcp` and in sibling files (B), and scripts without any declaration (C). `docs/skills.md` shows them.
//!
//! **Invariant**: an error names the file and, wherever there is one, the line; what is read comes from inside the folder.
//! **Bounds**: those of `files.rs` and `yaml.rs`.
//! Left out on purpose: unknown keys (a `debug` line).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::skills::document::{Document, Fields, ManifestError};
use crate::skills::entry::ToolEntry;
use crate::skills::files;
use crate::skills::prompt_entry::{self, PromptEntry};
use crate::skills::resource_entry::{self, Resources};
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
    pub prompts: Vec<Arc<PromptEntry>>,
    pub resources: Resources,
    /// Tools and prompts are called `<skill>__<name>`; else by their own names alone.
    pub prefix: bool,
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
    let name = or(document.text(&root, "name")?, &folder_name);
    Ok(Skill {
        prompts: prompt_entry::read_all(folder, &fields)?,
        resources: resource_entry::read_all(folder, &name, &fields)?,
        name,
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
        prefix: fields.boolean("prefix")?.unwrap_or(true),
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
            (_, true) => return Ok(text.get(..end).unwrap_or(text)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skills::testing::Folder;

    fn read_files(files: &[(&str, &str)]) -> (Folder, Result<Skill, ManifestError>) {
        let folder = Folder::new();
        for (name, text) in files {
            folder.write(name, text);
        }
        let skill = read(folder.path());
        (folder, skill)
    }

    fn good(files: &[(&str, &str)]) -> (Folder, Skill) {
        let (folder, skill) = read_files(files);
        (folder, skill.unwrap_or_else(|error| panic!("{error}")))
    }

    const FORM_A: &str = r#"---
name: maya-geometry
description: "Create and edit geometry: spheres, cubes"
license: MIT
allowed-tools: ["Bash", "Read"]
dcc: Maya
version: 2.0
tags: [geometry, create]
search-hint: "polygon, mesh, sphere"
depends: [dcc-base]
groups:
  - name: rigging
    description: Joints
    default-active: true
    tools: [bind]
tools:
  - name: create_sphere
    title: Create a sphere
    description: Makes a sphere.
    input_schema:
      type: object
      required: [radius]
      properties:
        radius: {type: number, default: 1.0}
    output_schema: '{"type": "object", "properties": {"name": {"type": "string"}}}'
    read_only: false
    destructive: false
    idempotent: true
    source_file: scripts/sphere.py
    timeout_hint_secs: 600
    next-tools: {on-success: [bind], on-failure: [inspect]}
    defer-loading: true
  - name: bind
    annotations: {read_only_hint: true, title: Bind skin, openWorldHint: false}
    group: rigging
prompts:
  - name: review
    arguments: [{name: node, required: true, values: [a, b]}]
    messages: [{role: user, text: "Look at {{node}}"}, {resource: "maya://{{node}}"}]
resources:
  - {uri: "maya://notes", name: notes, text: Notes, mime_type: text/markdown}
  - {uri_template: "maya://{node}/notes", name: node, text: "Notes on {{node}}"}
unknown: 1
---
# Text
"#;

    #[test]
    fn form_a_has_everything_in_the_front_matter() {
        let (_folder, skill) = good(&[("SKILL.md", FORM_A), ("scripts/sphere.py", ""), ("scripts/bind.sh", "")]);
        assert_eq!((skill.name.as_str(), skill.dcc.as_str(), skill.version.as_str()), ("maya-geometry", "maya", "2.0"));
        assert_eq!(skill.allowed_tools, ["Bash", "Read"]);
        assert_eq!(skill.search_hints, ["polygon", "mesh", "sphere"]);
        assert_eq!(skill.depends, ["dcc-base"]);
        assert!(skill.groups[0].default_active);
        let [sphere, bind] = skill.tools.as_slice() else { panic!("two tools, not {}", skill.tools.len()) };
        let schema =
            r#"{"type":"object","required":["radius"],"properties":{"radius":{"type":"number","default":1.0}}}"#;
        assert_eq!(sphere.input_schema.get(), schema);
        let output = sphere.output_schema.as_ref().map(|schema| schema.get());
        assert_eq!(output, Some(r#"{"type":"object","properties":{"name":{"type":"string"}}}"#));
        assert_eq!(sphere.script, Ok(PathBuf::from("scripts/sphere.py")));
        assert_eq!(sphere.annotations.idempotent_hint, Some(true));
        assert_eq!(sphere.timeout, Some(std::time::Duration::from_secs(600)));
        assert!(sphere.defer_loading && sphere.next_tools.is_some());
        assert_eq!(bind.title.as_deref(), Some("Bind skin"));
        assert_eq!((bind.annotations.read_only_hint, bind.annotations.open_world_hint), (Some(true), Some(false)));
        assert_eq!(bind.script, Ok(PathBuf::from("scripts/bind.sh")));
        assert_eq!(bind.input_schema.get(), r#"{"type":"object"}"#);
    }

    #[test]
    fn form_b_has_sibling_files() {
        let front = "---\nname: b\ndescription: d\nmetadata:\n  dcc-mcp:\n    dcc: blender\n    layer: domain\n    tags: \"one, two\"\n    tools: tools.yaml\n    groups: groups.yaml\n---\n";
        let tools = "tools:\n  - name: echo-it\n    inputSchema: {properties: {text: {type: string}}}\n    group: extra\n  - name: hidden\n    group: late\n";
        let (_folder, skill) = good(&[
            ("SKILL.md", front),
            ("tools.yaml", tools),
            ("groups.yaml", "- name: extra\n  description: More\n"),
            ("scripts/ECHO_IT.py", ""),
            ("scripts/other.py", ""),
            ("metadata/depends.md", "# Needs\n\n- base\n* `maya-core`\nplain words are not names\n"),
        ]);
        assert_eq!((skill.dcc.as_str(), skill.layer.as_deref()), ("blender", Some("domain")));
        assert_eq!(skill.tags, ["one", "two"]);
        assert_eq!(skill.depends, ["base", "maya-core"]);
        assert_eq!(skill.tools[0].script, Ok(PathBuf::from("scripts/ECHO_IT.py")));
        assert_eq!(skill.tools[0].input_schema.get(), r#"{"type":"object","properties":{"text":{"type":"string"}}}"#);
        assert_eq!(
            skill.tools[1].script.as_ref().err().map(String::as_str),
            Some("none of the scripts in `scripts/` is called \"hidden\", and there is no `source_file`")
        );
        let groups: Vec<&str> = skill.groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(groups, ["extra", "late"]);

        let flat = "---\nname: f\nmetadata:\n  dcc-mcp.dcc: nuke\n---\n";
        let (_folder, skill) = good(&[("SKILL.md", flat), ("tools.yaml", "- {name: only}"), ("scripts/any.sh", "")]);
        assert_eq!((skill.dcc.as_str(), skill.tools[0].name.as_str()), ("nuke", "only"));
        assert_eq!(skill.tools[0].script, Ok(PathBuf::from("scripts/any.sh")));
    }

    #[test]
    fn form_c_has_a_tool_for_each_script() {
        let (folder, skill) = good(&[
            ("SKILL.md", "\u{feff}---\r\ndescription: Things\r\n---\r\n"),
            ("scripts/a-b.py", ""),
            ("scripts/c.sh", ""),
            ("scripts/_shared.py", ""),
            ("scripts/data.json", ""),
        ]);
        let names: Vec<&str> = skill.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["a-b", "c"]);
        assert_eq!(Some(skill.name.as_str()), folder.path().file_name().and_then(|name| name.to_str()));
        assert_eq!((skill.dcc.as_str(), skill.version.as_str()), ("python", "1.0.0"));
    }

    #[test]
    fn mistakes_name_file_and_line() {
        let tool = |lines: &str| format!("---\nname: x\ntools:\n- name: t\n{lines}---\n");
        for (file, text, expected) in [
            (
                "SKILL.md",
                "# No front matter\n".to_owned(),
                "SKILL.md:1: there is no front matter: the first line must be `---`",
            ),
            ("SKILL.md", String::new(), "SKILL.md:1: there is no front matter: the first line must be `---`"),
            (
                "SKILL.md",
                "---\nname: x\n".to_owned(),
                "SKILL.md:1: the front matter has no end: a second line `---` is missing",
            ),
            ("SKILL.md", "---\nname: [x\ndcc: y\n---\n".to_owned(), "SKILL.md:3: "),
            (
                "SKILL.md",
                "---\n- a\n---\n".to_owned(),
                "SKILL.md:2: the front matter must be a map of keys and values, not a list",
            ),
            (
                "SKILL.md",
                "---\nname: x\ndescription: [a]\n---\n".to_owned(),
                "SKILL.md:3: `description` must be text, not a list",
            ),
            ("SKILL.md", "---\nname: x\nname: y\n---\n".to_owned(), "SKILL.md:3: the key \"name\" is given twice"),
            (
                "SKILL.md",
                "---\ntags: {a: 1}\n---\n".to_owned(),
                "SKILL.md:2: `tags` must be a list of words, or words with commas",
            ),
            (
                "SKILL.md",
                "---\ntools: none.yaml\n---\n".to_owned(),
                "SKILL.md:2: `tools`: there is no file \"none.yaml\" in the skill folder",
            ),
            (
                "SKILL.md",
                "---\ntools: ../up.yaml\n---\n".to_owned(),
                "SKILL.md:2: `tools`: \"../up.yaml\" leads out of the skill folder; only files inside it are used",
            ),
            ("SKILL.md", "---\ntools:\n- description: d\n---\n".to_owned(), "SKILL.md:3: a tool has no `name`"),
            (
                "SKILL.md",
                "---\ntools: [{name: t}, {name: t}]\n---\n".to_owned(),
                "SKILL.md:2: the tool \"t\" is declared twice",
            ),
            (
                "SKILL.md",
                tool("  icons: [{src: 'x:y'}]\n"),
                "SKILL.md:5: `src` of an icon: clients take `https:` and `data:` URIs alone",
            ),
            ("SKILL.md", tool("  read_only: maybe\n"), "SKILL.md:5: `read-only` must be true or false"),
            (
                "SKILL.md",
                tool("  input_schema: '{\"type\": object}'\n"),
                "SKILL.md:5: `input-schema` is not valid JSON: expected value at line 1 column 10",
            ),
            ("SKILL.md", tool("  input_schema: '[]'\n"), "SKILL.md:5: `input-schema` must be a JSON object"),
            (
                "SKILL.md",
                tool("  outputSchema: {type: array}\n"),
                "SKILL.md:5: `outputSchema` must have the type \"object\"",
            ),
            (
                "SKILL.md",
                tool("  input_schema: [a]\n"),
                "SKILL.md:5: `input-schema` must be a map or JSON text, not a list",
            ),
            (
                "SKILL.md",
                tool("  timeout_hint_secs: soon\n"),
                "SKILL.md:5: `timeout_hint_secs` must be a number of seconds above 0",
            ),
            ("tools.yaml", "\ntools: x\n".to_owned(), "tools.yaml:2: `tools` must be a list, not a single value"),
            (
                "tools.yaml",
                "tools:\n  - name: t\n\tx: 1\n".to_owned(),
                "tools.yaml:2: while scanning a plain scalar, found a tab",
            ),
            ("tools.yaml", "other: 1\n".to_owned(), "tools.yaml:1: there is no list `tools` in this file"),
            ("groups.yaml", "- description: x\n".to_owned(), "groups.yaml:1: a group has no `name`"),
        ] {
            let front = if file == "SKILL.md" { text.as_str() } else { "---\nname: x\n---\n" };
            let (folder, skill) = read_files(&[("SKILL.md", front), (file, &text)]);
            let error = skill.map(|skill| skill.name).expect_err(&text).to_string();
            let expected = format!("{}/{expected}", folder.path().display());
            match expected.ends_with(": ") {
                true => assert!(error.starts_with(&expected), "{text:?} gave {error}"),
                false => assert_eq!(error, expected, "{text:?}"),
            }
        }
    }

    #[test]
    fn a_script_outside_costs_its_tool_alone() {
        let front = "---\ntools:\n- {name: bad, source_file: ../x.py}\n- {name: worse, source_file: /bin/ls}\n- {name: ok}\n---\n";
        let (_folder, skill) = good(&[("SKILL.md", front), ("scripts/ok.py", "")]);
        assert!(skill.tools[0].script.as_ref().is_err_and(|why| why.contains("leads out of the skill folder")));
        assert!(skill.tools[1].script.as_ref().is_err_and(|why| why.contains("leads out of the skill folder")));
        assert!(skill.tools[2].script.is_ok());
    }

    /// Mutated front matter gives a skill or an error, at once, whatever it is.
    #[test]
    fn mutations_neither_panic_nor_hang() {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_1234_u64);
        println!("seed {seed}");
        let mut state = seed;
        let mut next = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below.max(1) as u64) as usize
        };
        let pieces = [
            "\n", "---\n", "- ", ": ", "[", "]", "{", "}", "&a ", "*a", "!!str ", "|\n", ">-\n", "\t", "\"", "'",
            "\\u12", "#", "?", "\u{feff}", "\0", "é", "<<: ", "%TAG",
        ];
        let folder = Folder::new();
        folder.write("scripts/a.py", "");
        let started = std::time::Instant::now();
        for _ in 0..4000 {
            let mut text: Vec<char> = FORM_A.chars().collect();
            for _ in 0..=next(6) {
                let at = next(text.len());
                match next(4) {
                    0 => drop(text.drain(at..(at + next(40)).min(text.len()))),
                    1 => drop(text.splice(at..at, pieces[next(pieces.len())].chars()).count()),
                    2 => {
                        let end = (at + next(60)).min(text.len());
                        let copy: Vec<char> = text[at..end].to_vec();
                        text.splice(at..at, copy);
                    }
                    _ => text[at] = char::from(next(127) as u8),
                }
            }
            let text: String = text.into_iter().collect();
            if let Ok(skill) = parse(folder.path(), &text) {
                for tool in &skill.tools {
                    let schema: Value = serde_json::from_str(tool.input_schema.get()).expect("a schema is JSON");
                    assert_eq!(schema["type"], "object");
                }
            }
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "{:?}", started.elapsed());
    }
}
