//! The gateway's own tools: to find and choose instances, and to work with their skills.
//!
//! Questions about skills go to all instances that fit, at once, each with its own deadline, and come back merged; what
//! changes an instance goes to one, which the caller names unless only one fits.
//!
//! **Thread**: the caller's; `ask-*` threads wait for instances.
//! **Bounds**: those of `fan_out.rs`.
//! Left out on purpose: any knowledge of what skills are. Instances answer; here it is only gathered.

use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::deadline::Deadline;
use crate::gateway::catalogue::Catalogue;
use crate::gateway::fan_out::{Heard, fan_out};
use crate::gateway::names;
use crate::gateway::snapshot::{Member, Snapshot};
use crate::json;
use crate::jsonrpc;
use crate::mcp::lists::ListObject;
use crate::mcp::{CallToolResult, Tool, ToolAnnotations};
use crate::skills::tools::skill_tools;

/// Skill tools that are asked of every instance that fits.
const ASKED_OF_ALL: [&str; 4] = ["list_skills", "find_skills", "search_skills", "get_skill_info"];
const INSTANCE_TOOLS: [&str; 3] = ["list_dcc_instances", "get_dcc_instance", "connect_to_dcc"];

type Arguments = Map<String, Value>;

/// The definitions, as `tools/list` shows them.
pub fn own_tools() -> Vec<ListObject> {
    let skills = skill_tools().iter().cloned().map(with_routing_arguments);
    instance_tools().into_iter().chain(skills).map(|tool| ListObject::encode(&tool.raw())).collect()
}

pub fn is_own_tool(name: &str) -> bool {
    INSTANCE_TOOLS.contains(&name) || skill_tools().iter().any(|tool| tool.name == name)
}

/// Runs one of the gateway's own tools; `None`: there is none of that name.
pub fn call(catalogue: &Catalogue, name: &str, arguments: &Arguments, deadline: Deadline) -> Option<CallToolResult> {
    if let Some(wrong) = ["instance_id", "dcc"].iter().find(|name| !is_text_or_absent(arguments.get(**name))) {
        // Left out of account, it would lead the call to an instance that was not meant.
        return is_own_tool(name).then(|| CallToolResult::failed(format!("\"{wrong}\" must be a string")));
    }
    let snapshot = catalogue.settled();
    let result = match name {
        "list_dcc_instances" => Ok(list_instances(&snapshot, arguments)),
        "get_dcc_instance" => get_instance(&snapshot, arguments),
        "connect_to_dcc" => connect(&snapshot, arguments),
        _ if ASKED_OF_ALL.contains(&name) => ask_all(&snapshot, name, arguments, deadline),
        _ if is_own_tool(name) => ask_one(catalogue, &snapshot, name, arguments, deadline),
        _ => return None,
    };
    Some(result.map_or_else(|refused| *refused, CallToolResult::structured))
}

/// A failed result that says how to do better.
type Refused = Box<CallToolResult>;

fn refused(text: impl Into<String>) -> Refused {
    Box::new(CallToolResult::failed(text))
}

fn list_instances(snapshot: &Snapshot, arguments: &Arguments) -> Value {
    let instances: Vec<Value> = snapshot.by_type(text(arguments, "dcc")).map(|member| member.to_json()).collect();
    json!({"total": instances.len(), "instances": instances})
}

fn get_instance(snapshot: &Snapshot, arguments: &Arguments) -> Result<Value, Refused> {
    let member = one_of(fitting(snapshot, arguments)?, "instance_id")?;
    let mut shown = member.to_json();
    shown["tools"] = member.tools.iter().map(|(published, _)| published.as_str()).collect();
    Ok(shown)
}

/// The one instance that fits a type and hints, and the ways to talk to it.
fn connect(snapshot: &Snapshot, arguments: &Arguments) -> Result<Value, Refused> {
    let mut candidates = fitting(snapshot, arguments)?;
    for hint in ["scene", "document", "display_name"] {
        if let Some(wanted) = text(arguments, hint) {
            candidates.retain(|member| matches_hint(member, hint, &wanted.to_lowercase()));
        }
    }
    let member = one_of(candidates, "instance_id, scene, document or display_name")?;
    Ok(json!({
        "instance": member.to_json(),
        "endpoint": format!("/mcp/{}", member.id()),
        "tools": member.tools.iter().map(|(published, _)| published.as_str()).collect::<Vec<_>>(),
    }))
}

fn matches_hint(member: &Member, hint: &str, wanted: &str) -> bool {
    let entry = &member.upstream.instance.entry;
    let has = |value: &str| value.to_lowercase().contains(wanted);
    match hint {
        "scene" => entry.scene.as_deref().is_some_and(has),
        "document" => entry.documents.iter().any(|document| has(document)),
        _ => entry.display_name.as_deref().is_some_and(has),
    }
}

/// The instances that `instance_id` (or a prefix of it) and `dcc` leave.
fn fitting<'s>(snapshot: &'s Snapshot, arguments: &Arguments) -> Result<Vec<&'s Arc<Member>>, Refused> {
    let mut members: Vec<&Arc<Member>> = snapshot.by_type(text(arguments, "dcc")).collect();
    if let Some(prefix) = text(arguments, "instance_id") {
        let named: Vec<&str> = snapshot.by_prefix(prefix).iter().map(|member| member.id()).collect();
        members.retain(|member| named.contains(&member.id()));
    }
    if members.is_empty() {
        return Err(refused("no live instance fits; list_dcc_instances shows those there are"));
    }
    Ok(members)
}

fn one_of<'s>(members: Vec<&'s Arc<Member>>, choose_by: &str) -> Result<&'s Arc<Member>, Refused> {
    match members.as_slice() {
        [member] => Ok(member),
        [] => Err(refused("no live instance fits; list_dcc_instances shows those there are")),
        several => {
            let list: Vec<String> = several.iter().map(|member| member.upstream.instance.describe()).collect();
            Err(refused(format!("{} instances fit; choose one by {choose_by}:\n{}", several.len(), list.join("\n"))))
        }
    }
}

/// Asks every instance that fits and merges what they say about skills.
fn ask_all(snapshot: &Snapshot, name: &str, arguments: &Arguments, deadline: Deadline) -> Result<Value, Refused> {
    let members = fitting(snapshot, arguments)?;
    let asked: Vec<&Arc<Member>> = members.into_iter().filter(|member| member.may_be_asked()).collect();
    let heard = ask_each(&asked, name, without_routing(arguments), deadline);
    let mut skills = Vec::new();
    let mut instances = Vec::new();
    for Heard { member, answer } in heard {
        let mut shown = json!({"instance_id": member.id(), "dcc": member.dcc_type()});
        match answer {
            Ok(answer) => skills.extend(marked(skills_of(answer), &member)),
            Err(error) => shown["error"] = error.into(),
        }
        instances.push(shown);
    }
    Ok(json!({"total": skills.len(), "skills": skills, "instances": instances}))
}

/// The skills in an answer: its list, or itself where it is about one.
fn skills_of(answer: Value) -> Vec<Value> {
    match answer {
        Value::Object(mut members) => match members.remove("skills") {
            Some(Value::Array(skills)) => skills,
            _ => vec![Value::Object(members)],
        },
        other => vec![other],
    }
}

fn marked(mut skills: Vec<Value>, member: &Member) -> Vec<Value> {
    for skill in &mut skills {
        if let Value::Object(members) = skill {
            members.insert("instance_id".to_owned(), member.id().into());
        }
    }
    skills
}

/// Hands a tool that changes an instance to the one that fits: the named one, the only one, or the only one that has
/// the skill.
fn ask_one(
    catalogue: &Catalogue,
    snapshot: &Snapshot,
    name: &str,
    arguments: &Arguments,
    deadline: Deadline,
) -> Result<Value, Refused> {
    let mut members: Vec<&Arc<Member>> =
        fitting(snapshot, arguments)?.into_iter().filter(|member| member.may_be_asked()).collect();
    if members.len() > 1
        && let Some(skill) = text(arguments, "skill_name")
    {
        let question = Map::from_iter([("skill_name".to_owned(), skill.into())]);
        let heard = ask_each(&members, "get_skill_info", question, deadline);
        let having: Vec<&str> =
            heard.iter().filter(|heard| heard.answer.is_ok()).map(|heard| heard.member.id()).collect();
        if having.is_empty() {
            return Err(refused(format!("no live instance has a skill named {skill}; search_skills finds skills")));
        }
        members.retain(|member| having.contains(&member.id()));
    }
    let member = one_of(members, "instance_id")?;
    let answer = ask(member, name, &without_routing(arguments), deadline);
    catalogue.ask_again(member.id());
    match answer {
        Ok(Value::Object(mut members)) => {
            members.insert("instance_id".to_owned(), member.id().into());
            members.insert("tool_prefix".to_owned(), format!("{}__", names::short(member.id())).into());
            Ok(Value::Object(members))
        }
        Ok(other) => Ok(other),
        Err(error) => Err(refused(format!("{}: {error}", member.upstream.instance.describe()))),
    }
}

fn ask_each(members: &[&Arc<Member>], name: &str, arguments: Arguments, deadline: Deadline) -> Vec<Heard<Value>> {
    let name = name.to_owned();
    fan_out(members, deadline, move |member, deadline| ask(member, &name, &arguments, deadline))
}

/// Calls a tool of an instance for ourselves: its structured result, or what it says went wrong.
fn ask(member: &Member, name: &str, arguments: &Arguments, deadline: Deadline) -> Result<Value, String> {
    let params = jsonrpc::to_bytes(&json!({"name": name, "arguments": arguments}));
    let result = member.upstream.ask("tools/call", &params, deadline).map_err(|error| error.to_string())?;
    let result: Value = json::read(&result).map_err(|_| "its result cannot be read".to_owned())?;
    let said = result["content"][0]["text"].as_str().unwrap_or_default();
    if result["isError"] == true {
        return Err(said.to_owned());
    }
    match &result["structuredContent"] {
        Value::Null => Ok(serde_json::from_str(said).unwrap_or_else(|_| json!({"message": said}))),
        structured => Ok(structured.clone()),
    }
}

fn is_text_or_absent(value: Option<&Value>) -> bool {
    value.is_none_or(|value| value.is_string() || value.is_null())
}

fn text<'a>(arguments: &'a Arguments, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str).filter(|value| !value.is_empty())
}

/// The arguments that are the instance's own business.
fn without_routing(arguments: &Arguments) -> Arguments {
    let mut arguments = arguments.clone();
    arguments.remove("instance_id");
    arguments.remove("dcc");
    arguments
}

fn with_routing_arguments(mut tool: Tool) -> Tool {
    let mut schema: Value = serde_json::from_str(tool.input_schema.get()).unwrap_or_else(|_| json!({"type": "object"}));
    schema["properties"]["instance_id"] =
        json!({"type": "string", "description": "the instance, by its id or the beginning of it"});
    schema["properties"]["dcc"] =
        json!({"type": "string", "description": "only instances of this application type, for example maya"});
    tool.input_schema = raw_json(&schema);
    // Answers of several instances come merged, and that of one says which it was.
    let answer = match ASKED_OF_ALL.contains(&tool.name.as_str()) {
        true => json!({"total": {"type": "integer"}, "skills": {"type": "array"}, "instances": {"type": "array"}}),
        false => json!({"instance_id": {"type": "string"}, "tool_prefix": {"type": "string"}}),
    };
    tool.output_schema = Some(raw_json(&json!({"type": "object", "properties": answer})));
    tool
}

fn instance_tools() -> Vec<Tool> {
    let object = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    let id = json!({"type": "string", "description": "the instance, by its id or the beginning of it"});
    let dcc = json!({"type": "string", "description": "only instances of this application type, for example maya"});
    let hint = |of: &str| json!({"type": "string", "description": format!("a part of {of}, in any case")});
    vec![
        read_only(
            "list_dcc_instances",
            "List application instances",
            "Lists the live application instances (Maya, Blender, headless workers …) behind this endpoint, with their \
             scenes, documents and addresses. Their tools are named <first 8 digits of instance_id>__<tool>.",
            object(json!({"dcc": dcc}), &[]),
            &[("total", "integer"), ("instances", "array")],
        ),
        read_only(
            "get_dcc_instance",
            "Show one application instance",
            "Shows one live instance and the names of its tools.",
            object(json!({"instance_id": id}), &["instance_id"]),
            &[("instance_id", "string"), ("dcc_type", "string"), ("tools", "array")],
        ),
        read_only(
            "connect_to_dcc",
            "Choose an application instance",
            "Finds the instance to work with, by id, or by application type with a part of the scene, document or display \
             name, and answers the names of its tools. When several fit it lists them for you to choose.",
            object(
                json!({
                    "instance_id": id, "dcc": dcc, "scene": hint("the open scene's path"),
                    "document": hint("an open document's path"), "display_name": hint("the instance's label"),
                }),
                &[],
            ),
            &[("instance", "object"), ("endpoint", "string"), ("tools", "array")],
        ),
    ]
}

fn raw_json(value: &Value) -> Box<RawValue> {
    to_raw_value(value).expect("JSON encodes")
}

fn read_only(name: &str, title: &str, description: &str, input_schema: Value, answer: &[(&str, &str)]) -> Tool {
    let properties: Map<String, Value> =
        answer.iter().map(|(name, kind)| ((*name).to_owned(), json!({"type": kind}))).collect();
    let output_schema = json!({"type": "object", "properties": properties});
    let annotations = ToolAnnotations {
        read_only_hint: Some(true),
        destructive_hint: Some(false),
        idempotent_hint: Some(true),
        open_world_hint: Some(false),
        ..ToolAnnotations::default()
    };
    Tool {
        name: name.to_owned(),
        title: Some(title.to_owned()),
        description: Some(description.to_owned()),
        icons: Vec::new(),
        input_schema: raw_json(&input_schema),
        output_schema: Some(raw_json(&output_schema)),
        annotations: Some(annotations),
        execution: None,
        meta: None,
    }
}
