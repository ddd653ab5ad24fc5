//! Arguments of a tool that header fields repeat, so that what stands between can route by them (2026-07-28, transports,
//! custom headers from tool parameters).
//!
//! **Invariant**: pure; a mirror has only annotations that a client must follow.
//! **Bounds**: the schema's own.
//! Left out on purpose: annotations below `items`, `allOf` and the like, where no single argument is meant.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::base64;

/// Marks an argument in the input schema; its value is the end of the field's name.
const KEY: &str = "x-mcp-header";
const FIELD_PREFIX: &str = "Mcp-Param-";

/// Which arguments of a tool are repeated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mirror {
    fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq)]
struct Field {
    /// `Mcp-Param-…`.
    name: String,
    /// From the arguments down.
    path: Vec<String>,
}

/// What a request has as a header field.
pub enum Given<'h> {
    Absent,
    /// Decoded.
    Value(Cow<'h, str>),
    /// There twice, or not decodable.
    Malformed,
}

/// Whether a header field repeats an argument, of whatever tool.
pub fn is_field(name: &str) -> bool {
    name.get(..FIELD_PREFIX.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(FIELD_PREFIX))
}

impl Mirror {
    /// Of an input schema, given as JSON text; `None` where nothing is repeated. An error says which annotation no client
    /// may accept.
    pub fn of(schema: &str) -> Result<Option<Mirror>, String> {
        // Nearly every schema ends here.
        if !schema.contains(KEY) {
            return Ok(None);
        }
        let mut mirror = Mirror::default();
        if let Ok(Value::Object(schema)) = serde_json::from_str(schema) {
            mirror.collect(&schema, &mut Vec::new())?;
        }
        Ok(Some(mirror).filter(|mirror| !mirror.fields.is_empty()))
    }

    /// What is wrong with the header fields of a call, in a sentence.
    pub fn check<'h>(&self, arguments: &Value, given: impl Fn(&str) -> Given<'h>) -> Result<(), String> {
        for Field { name, path } in &self.fields {
            let argument = path.iter().try_fold(arguments, |value, member| value.get(member)).unwrap_or(&Value::Null);
            let agrees = match given(name) {
                Given::Malformed => false,
                Given::Absent => matches!(argument, Value::Null | Value::Array(_) | Value::Object(_)),
                Given::Value(text) => says(&text, argument),
            };
            if !agrees {
                return Err(format!("the {name} header must repeat the argument \"{}\"", path.join(".")));
            }
        }
        Ok(())
    }

    /// The header fields that repeat these arguments.
    pub fn repeat(&self, arguments: &Value) -> Vec<(String, String)> {
        let field = |Field { name, path }: &Field| {
            let value = match path.iter().try_fold(arguments, |value, member| value.get(member))? {
                Value::String(text) => encoded(text),
                value @ (Value::Bool(_) | Value::Number(_)) => value.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((name.clone(), value))
        };
        self.fields.iter().filter_map(field).collect()
    }

    fn collect(&mut self, schema: &Map<String, Value>, path: &mut Vec<String>) -> Result<(), String> {
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        for (argument, rule) in properties.filter_map(|(name, rule)| Some((name, rule.as_object()?))) {
            path.push(argument.clone());
            if let Some(end) = rule.get(KEY) {
                let field = field(end, rule.get("type"), path)?;
                if self.fields.iter().any(|other| other.name.eq_ignore_ascii_case(&field.name)) {
                    return Err(format!("two arguments have the `{KEY}` {end}"));
                }
                self.fields.push(field);
            }
            self.collect(rule, path)?;
            path.pop();
        }
        Ok(())
    }
}

fn field(end: &Value, kind: Option<&Value>, path: &[String]) -> Result<Field, String> {
    let is_token = |text: &&str| !text.is_empty() && text.bytes().all(is_token_byte);
    let end =
        end.as_str().filter(is_token).ok_or_else(|| format!("`{KEY}` must be the end of a header field's name"))?;
    match kind.and_then(Value::as_str) {
        Some("string" | "integer" | "boolean") => {
            Ok(Field { name: format!("{FIELD_PREFIX}{end}"), path: path.to_owned() })
        }
        _ => Err(format!(
            "`{KEY}` is for arguments of type string, integer or boolean, which \"{}\" is not",
            path.join(".")
        )),
    }
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A text as a header value: in Base64 where it has what a header cannot have, or looks as if it had.
pub fn encoded(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    match is_plain && text.trim() == text && !text.starts_with("=?") {
        true => text.to_owned(),
        false => format!("=?base64?{}?=", base64::encode(text.as_bytes())),
    }
}

/// Whether a header value is this argument. Integers count as numbers: 42.0 is 42.
fn says(text: &str, argument: &Value) -> bool {
    match argument {
        Value::String(argument) => text == argument,
        Value::Bool(argument) => text == if *argument { "true" } else { "false" },
        Value::Number(argument) => text.parse().is_ok_and(|number: f64| Some(number) == argument.as_f64()),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_repeat_arguments() {
        let schema = r#"{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},
            "options":{"properties":{"limit":{"type":"integer","x-mcp-header":"Limit"}}},
            "dry":{"type":"boolean","x-mcp-header":"Dry"}, "query":{"type":"string"}}}"#;
        let mirror = Mirror::of(schema).expect("the annotations are right").expect("there are some");
        for (arguments, fields, expected) in [
            (r#"{}"#, vec![], ""),
            (r#"{"region":null,"options":{}}"#, vec![], ""),
            (r#"{"region":"eu","query":"x"}"#, vec![("Mcp-Param-Region", "eu")], ""),
            (r#"{"options":{"limit":42}}"#, vec![("Mcp-Param-Limit", "42.0")], ""),
            (r#"{"dry":false}"#, vec![("Mcp-Param-Dry", "false")], ""),
            (r#"{"region":["eu"]}"#, vec![], ""),
            (r#"{"region":"eu"}"#, vec![("Mcp-Param-Region", "EU")], "Mcp-Param-Region region"),
            (r#"{"region":"eu"}"#, vec![], "Mcp-Param-Region region"),
            (r#"{"region":"eu"}"#, vec![("Mcp-Param-Region", "!")], "Mcp-Param-Region region"),
            (r#"{}"#, vec![("Mcp-Param-Region", "eu")], "Mcp-Param-Region region"),
            (r#"{"options":{"limit":42}}"#, vec![("Mcp-Param-Limit", "43")], "Mcp-Param-Limit options.limit"),
            (r#"{"options":7}"#, vec![("Mcp-Param-Limit", "7")], "Mcp-Param-Limit options.limit"),
            (r#"{"dry":true}"#, vec![("Mcp-Param-Dry", "True")], "Mcp-Param-Dry dry"),
        ] {
            let given = |name: &str| match fields.iter().find(|(field, _)| *field == name) {
                None => Given::Absent,
                Some((_, "!")) => Given::Malformed,
                Some((_, value)) => Given::Value(Cow::Borrowed(*value)),
            };
            let arguments: Value = serde_json::from_str(arguments).expect("a table of JSON");
            let wrong = mirror.check(&arguments, given).err().unwrap_or_default();
            let expected = expected
                .split_once(' ')
                .map(|(name, path)| format!("the {name} header must repeat the argument \"{path}\""));
            assert_eq!(wrong, expected.unwrap_or_default(), "{arguments}");
        }
    }

    #[test]
    fn what_is_repeated_agrees() {
        let schema = r#"{"properties":{"text":{"type":"string","x-mcp-header":"Text"},
            "deep":{"properties":{"on":{"type":"boolean","x-mcp-header":"On"}}}}}"#;
        let mirror = Mirror::of(schema).expect("the annotations are right").expect("there are some");
        for (arguments, expected) in [
            (r#"{"text":"eu","deep":{"on":true}}"#, vec![("Mcp-Param-On", "true"), ("Mcp-Param-Text", "eu")]),
            (r#"{"text":null}"#, vec![]),
            (r#"{"text":"grüße"}"#, vec![("Mcp-Param-Text", "=?base64?Z3LDvMOfZQ==?=")]),
            (r#"{"text":" x"}"#, vec![("Mcp-Param-Text", "=?base64?IHg=?=")]),
            (r#"{"text":"=?base64??="}"#, vec![("Mcp-Param-Text", "=?base64?PT9iYXNlNjQ/Pz0=?=")]),
        ] {
            let mut fields = mirror.repeat(&serde_json::from_str(arguments).expect("a table of JSON"));
            fields.sort();
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(fields, expected, "{arguments}");
        }
    }

    #[test]
    fn annotations_that_no_client_accepts() {
        for (properties, expected) in [
            (r#"{"a":{"type":"string"}}"#, ""),
            (r#"{"a":{"type":"number","x-mcp-header":"A"}}"#, "is for arguments of type"),
            (r#"{"a":{"x-mcp-header":"A"}}"#, "is for arguments of type"),
            (r#"{"a":{"type":"string","x-mcp-header":""}}"#, "must be the end"),
            (r#"{"a":{"type":"string","x-mcp-header":"A B"}}"#, "must be the end"),
            (r#"{"a":{"type":"string","x-mcp-header":7}}"#, "must be the end"),
            (
                r#"{"a":{"type":"string","x-mcp-header":"A"},"b":{"properties":{"c":{"type":"string","x-mcp-header":"a"}}}}"#,
                "two arguments have",
            ),
        ] {
            let wrong = Mirror::of(&format!(r#"{{"properties":{properties}}}"#)).err().unwrap_or_default();
            assert!(wrong.contains(expected) && wrong.is_empty() == expected.is_empty(), "{properties}: {wrong}");
        }
        assert_eq!(Mirror::of("x-mcp-header"), Ok(None));
    }
}
