//! A prompt that a script writes: it runs like a tool's, and what it prints becomes the messages.
//!
//! Printed text is one message of the user. A JSON object with `messages` is the result as it stands, and so is a whole
//! result of a tool, whose parts become messages.
//!
//! **Invariant**: pure. What comes out has a list of messages.
//! **Bounds**: those of `outcome.rs`.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::json;
use crate::jsonrpc::{self, ErrorObject, INTERNAL_ERROR};
use crate::mcp::Tool;
use crate::mcp::tasks::TaskSupport;
use crate::skills::arguments::ArgumentRules;
use crate::skills::manifest::Skill;
use crate::skills::outcome::Outcome;
use crate::skills::prompt_entry::{PromptEntry, Script};
use crate::skills::set::{SkillTool, full_name};

/// Any arguments: those of a prompt were looked at before.
const SCHEMA: &str = r#"{"type":"object"}"#;

/// The script of a prompt as what can be run.
pub fn runnable(skill: &Skill, entry: &PromptEntry, script: &Script) -> SkillTool {
    let name = full_name(skill, &entry.name);
    let input_schema = RawValue::from_string(SCHEMA.to_owned()).expect("it is JSON");
    SkillTool {
        tool: Tool {
            name,
            title: None,
            description: None,
            icons: Vec::new(),
            input_schema,
            output_schema: None,
            annotations: None,
            execution: None,
            meta: None,
        },
        bare_name: entry.name.clone(),
        skill: skill.name.clone(),
        dcc: skill.dcc.clone(),
        folder: skill.folder.clone(),
        script: script.file.clone(),
        timeout: None,
        dialog: script.dialog,
        ask_first: false,
        task_support: TaskSupport::Forbidden,
        rules: ArgumentRules::of(SCHEMA),
        mirror: None,
    }
}

/// JSON text of the result of `prompts/get`, of what the script of the prompt left behind.
pub fn result(outcome: &Outcome, description: Option<&str>) -> Result<Vec<u8>, ErrorObject> {
    let mut result: Map<String, Value> = json::read(&outcome.json).unwrap_or_default();
    let content = match result.remove("content") {
        Some(Value::Array(content)) => content,
        _ => Vec::new(),
    };
    if outcome.is_error {
        let text = content.first().and_then(|part| part["text"].as_str()).unwrap_or("the script of the prompt failed");
        return Err(ErrorObject::new(INTERNAL_ERROR, text));
    }
    let printed = result.remove("structuredContent").unwrap_or_default();
    let mut messages = match (&printed["messages"], &printed["message"]) {
        (Value::Array(_), _) => {
            let mut own = printed;
            own["messages"].as_array().filter(|messages| messages.iter().all(is_message)).ok_or_else(no_messages)?;
            own.as_object_mut().into_iter().for_each(|own| own.retain(|key, _| KEPT.contains(&key.as_str())));
            own
        }
        (_, Value::String(text)) => json!({"messages": [message(json!({"type": "text", "text": text}))]}),
        _ => json!({"messages": content.into_iter().map(message).collect::<Vec<_>>()}),
    };
    if let (None, Some(description)) = (messages.get("description"), description) {
        messages["description"] = description.into();
    }
    Ok(jsonrpc::to_bytes(&messages))
}

/// Members of the result that a script may give itself.
const KEPT: [&str; 3] = ["messages", "description", "_meta"];

fn message(content: Value) -> Value {
    json!({"role": "user", "content": content})
}

fn is_message(message: &Value) -> bool {
    matches!(message["role"].as_str(), Some("user" | "assistant")) && message["content"]["type"].is_string()
}

fn no_messages() -> ErrorObject {
    let text = "the script of the prompt printed messages that have no `role` (user, assistant) or no `content`";
    ErrorObject::new(INTERNAL_ERROR, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(result_of_tool: Value, is_error: bool) -> Result<Value, String> {
        let outcome = Outcome { json: jsonrpc::to_bytes(&result_of_tool), is_error, protocol_error: None };
        match result(&outcome, Some("d")) {
            Ok(result) => Ok(serde_json::from_slice(&result).expect("it is JSON")),
            Err(error) => Err(error.message),
        }
    }

    #[test]
    fn what_a_script_prints_becomes_messages() {
        let text = json!({"type": "text", "text": "x"});
        let one = json!({"description": "d", "messages": [{"role": "user", "content": text}]});
        let whole = json!({"description": "own", "messages": [{"role": "assistant", "content": text}]});
        let mut printed = whole.clone();
        printed["success"] = json!(true);
        for (given, expected) in [
            (json!({"content": [], "structuredContent": {"success": true, "message": "x"}}), one.clone()),
            (json!({"content": [text]}), one),
            (json!({"content": [], "structuredContent": printed}), whole),
            (json!({"content": []}), json!({"description": "d", "messages": []})),
        ] {
            assert_eq!(get(given.clone(), false), Ok(expected), "{given}");
        }
        let failed = json!({"content": [{"type": "text", "text": "no light"}], "isError": true});
        assert_eq!(get(failed, true), Err("no light".to_owned()));
        for bad in [json!([1]), json!([{"role": "user"}]), json!([{"role": "root", "content": text}])] {
            let printed = json!({"content": [], "structuredContent": {"messages": bad}});
            assert!(get(printed, false).is_err_and(|what| what.contains("no `role`")));
        }
    }
}
