//! The eight tools by which an agent finds, loads and unloads skills.
//!
//! Their definitions are data (`tools.json`), since the gateway shows the same ones; here is what they answer.
//!
//! **Invariant**: a success has structured content that fits the output schema; a failure says what to do instead.
//! **Thread**: the caller's; the shelf is locked by who calls.
//! **Bounds**: answers are as large as the skills' own texts.
//! Left out on purpose: choosing an instance (the gateway's part).

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::json;
use crate::mcp::{CallToolResult, Tool};
use crate::skills::arguments::ArgumentRules;
use crate::skills::manifest::Skill;
use crate::skills::run::Interpreters;
use crate::skills::search;
use crate::skills::set::{ToolSet, full_name};
use crate::skills::shelf::{Found, Shelf, Status};

/// The definitions of the skill tools. Read once: every call is compared with their names.
pub fn skill_tools() -> &'static [Tool] {
    static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
        let text = json::compact(include_str!("tools.json"));
        serde_json::from_str(&text).expect("the file is part of the program, and a test reads it")
    });
    &TOOLS
}

/// A change of the shelf that a skill tool asks for; everything else only reads.
#[derive(Debug)]
pub enum Change {
    Load(Vec<String>),
    Unload(String),
    Group { skill: Option<String>, group: String, active: bool },
}

/// What a call of a skill tool asks for.
#[derive(Debug)]
pub enum Request {
    Change(Change),
    List {
        status: Option<String>,
        dcc: Option<String>,
    },
    /// `query` is `None` where no words were given: all skills then.
    Search {
        query: Option<String>,
        tags: Vec<String>,
        dcc: Option<String>,
    },
    About(String),
}

/// Reads a call; `None`: no such tool.
pub fn read(name: &str, arguments: &Map<String, Value>) -> Option<Result<Request, String>> {
    let tool = skill_tools().iter().find(|tool| tool.name == name)?;
    let rules = ArgumentRules::of(tool.input_schema.get());
    Some(rules.check(arguments).map_err(|what| format!("{name}: {what}")).and_then(|()| request(name, arguments)))
}

fn request(name: &str, arguments: &Map<String, Value>) -> Result<Request, String> {
    let text = |key: &str| arguments.get(key).and_then(Value::as_str).map(|text| text.trim().to_owned());
    let given = |key: &str| text(key).filter(|text| !text.is_empty());
    let texts = |key: &str| -> Vec<String> {
        let list = arguments.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let needed = |key: &str| given(key).ok_or_else(|| format!("{name}: the argument \"{key}\" is empty"));
    let group = |active| -> Result<Request, String> {
        Ok(Request::Change(Change::Group { skill: given("skill_name"), group: needed("group")?, active }))
    };
    match name {
        "list_skills" => Ok(Request::List { status: given("status"), dcc: given("dcc") }),
        "find_skills" => Ok(Request::Search { query: given("query"), tags: texts("tags"), dcc: given("dcc") }),
        "search_skills" => {
            Ok(Request::Search { query: Some(text("query").unwrap_or_default()), tags: Vec::new(), dcc: given("dcc") })
        }
        "get_skill_info" => Ok(Request::About(needed("skill_name")?)),
        "load_skill" => {
            let names: Vec<String> = given("skill_name").into_iter().chain(texts("skill_names")).collect();
            match names.is_empty() {
                true => Err("load_skill: give skill_name or skill_names".to_owned()),
                false => Ok(Request::Change(Change::Load(names))),
            }
        }
        "unload_skill" => Ok(Request::Change(Change::Unload(needed("skill_name")?))),
        "activate_tool_group" => group(true),
        _ => group(false),
    }
}

/// Does a change; the answer is made by `changed` once the new tools are in place.
pub fn change(shelf: &mut Shelf, change: Change) -> Result<Value, String> {
    match change {
        Change::Load(names) => {
            let done = shelf.load(&names)?;
            Ok(json!({"loaded": true, "newly_loaded": done.newly, "already_loaded": done.already}))
        }
        Change::Unload(name) => {
            let unloaded = shelf.unload(&name)?;
            Ok(json!({"unloaded": unloaded, "skill_name": name}))
        }
        Change::Group { skill, group, active } => {
            let (skill, changed) = shelf.switch_group(skill.as_deref(), &group, active)?;
            let found = shelf.get(&skill).and_then(|found| found.skill.as_ref());
            let tools = found.map(|skill| tools_in_group(skill, &group)).unwrap_or_default();
            Ok(json!({"group": group, "skill_name": skill, "active": active, "changed": changed, "tools": tools}))
        }
    }
}

/// The answer to a change: that of a load is completed by the tools that are now there.
pub fn changed(mut answer: Value, tools: &ToolSet) -> CallToolResult {
    if answer.get("loaded").is_some() {
        let skills: Vec<&str> = ["newly_loaded", "already_loaded"]
            .iter()
            .flat_map(|key| answer[key].as_array().into_iter().flatten().filter_map(Value::as_str))
            .collect();
        let tools = tools.tools.iter().filter(|tool| skills.contains(&tool.skill.as_str()));
        let tools: Vec<Value> = tools
            .map(|tool| json!({"name": tool.tool.name, "title": tool.tool.title, "description": tool.tool.description}))
            .collect();
        let names: Vec<Value> = tools.iter().map(|tool| tool["name"].clone()).collect();
        answer["registered_tools"] = names.into();
        answer["tools"] = tools.into();
    }
    CallToolResult::structured(answer)
}

pub fn list(shelf: &Shelf, status: Option<&str>, dcc: Option<&str>) -> CallToolResult {
    let of_status =
        |found: &&Found| status.is_none_or(|status| status == "all" || shelf.status(found).as_str() == status);
    let skills = shelf.all().filter(of_status).filter(|found| is_for(found, dcc));
    let skills: Vec<Value> = skills.map(|found| summary(shelf, found)).collect();
    CallToolResult::structured(json!({"total": skills.len(), "skills": skills}))
}

pub fn search(shelf: &Shelf, query: Option<&str>, tags: &[String], dcc: Option<&str>) -> CallToolResult {
    let words = search::words(query.unwrap_or_default());
    let mut hits: Vec<(u32, &Found)> = Vec::new();
    for found in shelf.all().filter(|found| is_for(found, dcc)) {
        let Some(skill) = &found.skill else { continue };
        let has = |tag: &String| skill.tags.iter().any(|other| other.eq_ignore_ascii_case(tag));
        let score = search::score(skill, &words);
        if tags.iter().all(has) && (query.is_none() || score > 0) {
            hits.push((score, found));
        }
    }
    // The shelf is in the order of names, and the sort keeps it among equals.
    hits.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let skills = hits.into_iter().map(|(score, found)| {
        let mut skill = summary(shelf, found);
        skill["score"] = score.into();
        skill
    });
    let skills: Vec<Value> = skills.collect();
    CallToolResult::structured(json!({"total": skills.len(), "skills": skills}))
}

pub fn about(shelf: &Shelf, name: &str, interpreters: &Interpreters) -> CallToolResult {
    let Some(found) = shelf.get(name) else {
        return CallToolResult::failed(format!(
            "there is no skill \"{name}\"; list_skills names all, search_skills finds by words"
        ));
    };
    let mut answer = summary(shelf, found);
    answer["folder"] = found.folder.display().to_string().into();
    if let Some(skill) = &found.skill {
        for (key, value) in [
            ("layer", json!(skill.layer)),
            ("license", json!(skill.license)),
            ("compatibility", json!(skill.compatibility)),
            ("allowed_tools", json!(skill.allowed_tools)),
            ("search_hints", json!(skill.search_hints)),
            ("search_aliases", json!(skill.search_aliases)),
            ("depends", json!(skill.depends)),
            ("groups", skill.groups.iter().map(|group| about_group(shelf, skill, group)).collect()),
            ("tools", skill.tools.iter().map(|tool| about_tool(skill, tool)).collect()),
            ("prompts", skill.prompts.iter().map(|prompt| json!(prompt.shown(skill))).collect()),
            ("resources", skill.resources.resources.iter().map(|entry| json!(entry.shown(&skill.name))).collect()),
            (
                "resource_templates",
                skill.resources.templates.iter().map(|entry| json!(entry.shown(&skill.name))).collect(),
            ),
        ] {
            if !value.is_null() {
                answer[key] = value;
            }
        }
        for (key, value) in &skill.shown {
            answer[*key] = value.clone();
        }
        let dependencies = skill.shown.iter().find(|(key, _)| *key == "external_deps");
        if let Some((_, dependencies)) = dependencies {
            let missing = |kind: &str, is_there: &dyn Fn(&str) -> bool| -> Vec<String> {
                needed_names(dependencies, kind).into_iter().filter(|name| !is_there(name)).collect()
            };
            answer["missing"] = json!({
                "binaries": missing("bin", &|name| interpreters.has(name)),
                "variables": missing("env", &|name| std::env::var_os(name).is_some()),
            });
        }
    }
    CallToolResult::structured(answer)
}

/// A tool that was not called because it is in no loaded skill: what to do about it.
pub fn not_loaded(shelf: &Shelf, name: &str) -> Option<String> {
    let has = |skill: &Skill| skill.tools.iter().any(|tool| full_name(skill, &tool.name) == name || tool.name == name);
    let found = shelf.all().find(|found| found.skill.as_deref().is_some_and(has))?;
    let skill = found.name();
    Some(match shelf.status(found) {
        Status::Loaded => {
            format!("\"{name}\" is in a group of the skill \"{skill}\" that is not active: call activate_tool_group")
        }
        Status::Unloaded => {
            format!("\"{name}\" is a tool of the skill \"{skill}\", which is not loaded: call load_skill")
        }
        Status::Error => format!("\"{name}\" is a tool of the skill \"{skill}\", which cannot be loaded"),
    })
}

fn is_for(found: &Found, dcc: Option<&str>) -> bool {
    let wanted = |dcc: &str| found.skill.as_ref().is_none_or(|skill| skill.dcc.eq_ignore_ascii_case(dcc));
    dcc.is_none_or(wanted)
}

fn summary(shelf: &Shelf, found: &Found) -> Value {
    let name = found.name();
    let mut summary = json!({"name": name, "description": "", "status": shelf.status(found).as_str(), "tools": []});
    if let Some(skill) = &found.skill {
        summary["description"] = skill.description.clone().into();
        summary["dcc"] = skill.dcc.clone().into();
        summary["version"] = skill.version.clone().into();
        summary["tags"] = skill.tags.clone().into();
        summary["tools"] = skill.tools.iter().map(|tool| full_name(skill, &tool.name)).collect();
    }
    if let Some(reason) = shelf.obstacle(&name) {
        summary["reason"] = reason.into();
    }
    summary
}

fn about_group(shelf: &Shelf, skill: &Skill, group: &crate::skills::manifest::Group) -> Value {
    json!({
        "name": group.name,
        "description": group.description,
        "active": shelf.is_active(&skill.name, group),
        "tools": tools_in_group(skill, &group.name),
    })
}

fn about_tool(skill: &Skill, tool: &crate::skills::entry::ToolEntry) -> Value {
    let mut about = json!({
        "name": full_name(skill, &tool.name),
        "input_schema": tool.input_schema,
        "annotations": tool.annotations,
    });
    for (key, value) in [
        ("title", json!(tool.title)),
        ("description", json!(tool.description)),
        ("output_schema", json!(tool.output_schema)),
        ("group", json!(tool.group)),
        ("next_tools", json!(tool.next_tools)),
        ("call_examples", json!(tool.call_examples)),
        ("execution", json!(tool.execution)),
        ("timeout_hint_secs", json!(tool.timeout.map(|timeout| timeout.as_secs_f64()))),
        ("script", json!(tool.script.as_ref().ok())),
        ("problem", json!(tool.script.as_ref().err())),
    ] {
        if !value.is_null() {
            about[key] = value;
        }
    }
    about
}

fn tools_in_group(skill: &Skill, group: &str) -> Vec<String> {
    let declared = skill.groups.iter().find(|other| other.name == group);
    let listed = |tool: &str| declared.is_some_and(|declared| declared.tools.iter().any(|name| name == tool));
    let tools = skill.tools.iter().filter(|tool| tool.group.as_deref() == Some(group) || listed(&tool.name));
    tools.map(|tool| full_name(skill, &tool.name)).collect()
}

/// The names of needed things of a kind (`bin`, `env`): `bin: [ffmpeg]`, `env_var: [{name: X}]`, or `[{type: bin, name: x}]`.
fn needed_names(dependencies: &Value, kind: &str) -> Vec<String> {
    let name_of = |item: &Value| {
        let named = item.get("name").or_else(|| item.get("value")).unwrap_or(item);
        named.as_str().map(str::to_owned)
    };
    let items = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    match dependencies {
        Value::Object(kinds) => {
            let of_kind = kinds.iter().filter(|(key, _)| key.starts_with(kind));
            of_kind.flat_map(|(_, value)| items(value)).filter_map(|item| name_of(&item)).collect()
        }
        Value::Array(list) => {
            let is_kind = |item: &&Value| item["type"].as_str().is_some_and(|name| name.starts_with(kind));
            list.iter().filter(is_kind).filter_map(name_of).collect()
        }
        _ => Vec::new(),
    }
}
