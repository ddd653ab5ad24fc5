//! Arguments against a tool's input schema, as far as it keeps a model from a call that cannot work.
//!
//! Checked are `required` at the top level, and `type` and `enum` of the properties at the top level: what models get
//! wrong, and what can be told in one sentence. The script stays the judge of everything else.
//!
//! **Invariant**: pure; a schema that says something else than the above is never a reason to refuse a call.
//! **Bounds**: the schema's and the arguments' own.
//! Left out on purpose: nested values, patterns, ranges, references, combinations.

use serde_json::{Map, Value};

/// What is checked of a schema.
#[derive(Clone, Debug, Default)]
pub struct ArgumentRules {
    required: Vec<String>,
    properties: Vec<Property>,
}

#[derive(Clone, Debug)]
struct Property {
    name: String,
    /// Any of these; empty: any type.
    types: Vec<String>,
    /// One of these; empty: any value.
    values: Vec<Value>,
}

impl ArgumentRules {
    /// The rules of a schema, given as JSON text.
    pub fn of(schema: &str) -> ArgumentRules {
        let schema: Map<String, Value> = serde_json::from_str(schema).unwrap_or_default();
        let required = strings(schema.get("required"));
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let properties = properties.map(|(name, rule)| Property {
            name: name.clone(),
            types: match rule.get("type") {
                Some(Value::String(one)) => vec![one.clone()],
                several => strings(several),
            },
            values: rule.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        });
        ArgumentRules { required, properties: properties.collect() }
    }

    /// What is wrong with the arguments, in a sentence that names the argument.
    pub fn check(&self, arguments: &Map<String, Value>) -> Result<(), String> {
        if let Some(missing) = self.required.iter().find(|name| !arguments.contains_key(*name)) {
            let needed = self.properties.iter().find(|property| property.name == *missing);
            let kind = needed.map(Property::expected).filter(|kind| !kind.is_empty());
            let kind = kind.map(|kind| format!(" ({kind})")).unwrap_or_default();
            return Err(format!("the argument \"{missing}\"{kind} is missing"));
        }
        for property in &self.properties {
            let Some(value) = arguments.get(&property.name) else { continue };
            // A null for an argument that may be left out is how many models leave it out.
            if value.is_null() && !self.required.contains(&property.name) {
                continue;
            }
            if !property.types.is_empty() && !property.types.iter().any(|name| is_a(value, name)) {
                let (name, expected, given) = (&property.name, property.expected(), type_name(value));
                return Err(format!("the argument \"{name}\" must be {expected}, not {given}"));
            }
            if !property.values.is_empty() && !property.values.contains(value) {
                let accepted: Vec<String> = property.values.iter().map(Value::to_string).collect();
                let (name, accepted) = (&property.name, accepted.join(", "));
                return Err(format!("the argument \"{name}\" must be one of {accepted}, not {}", shortened(value)));
            }
        }
        Ok(())
    }
}

impl Property {
    fn expected(&self) -> String {
        self.types.join(" or ")
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Whether the value is of the named JSON Schema type; a type that is not known is taken for any.
fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "number" => value.is_number(),
        // JSON Schema counts 2.0 as an integer.
        "integer" => value.as_i64().is_some() || value.as_u64().is_some() || value.as_f64().is_some_and(is_whole),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => true,
    }
}

fn is_whole(number: f64) -> bool {
    number.is_finite() && number.fract() == 0.0
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80).and_then(|(at, _)| text.get(..at)) {
        Some(start) => format!("{start}…"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_and_what_is_not() {
        let schema = r#"{"type":"object","required":["file"],"properties":{
            "file":{"type":"string"}, "count":{"type":"integer"}, "scale":{"type":["number","null"]},
            "axis":{"enum":["x","y",3]}, "deep":{"type":"object","required":["a"]}, "odd":{"type":"colour"},
            "both":{"type":["string","array"]}}}"#;
        let rules = ArgumentRules::of(schema);
        for (arguments, expected) in [
            (r#"{"file":"a"}"#, ""),
            (r#"{"file":"a","count":2,"scale":1.5,"axis":3,"other":true}"#, ""),
            (r#"{"file":"a","count":2.0,"scale":null,"deep":{},"odd":1}"#, ""),
            (r#"{"file":"a","count":null}"#, ""),
            (r#"{}"#, r#"the argument "file" (string) is missing"#),
            (r#"{"file":null}"#, r#"the argument "file" must be string, not null"#),
            (r#"{"file":7}"#, r#"the argument "file" must be string, not number"#),
            (r#"{"file":"a","count":"2"}"#, r#"the argument "count" must be integer, not string"#),
            (r#"{"file":"a","count":2.5}"#, r#"the argument "count" must be integer, not number"#),
            (r#"{"file":"a","scale":"big"}"#, r#"the argument "scale" must be number or null, not string"#),
            (r#"{"file":"a","axis":"z"}"#, r#"the argument "axis" must be one of "x", "y", 3, not "z""#),
            (r#"{"file":"a","both":{}}"#, r#"the argument "both" must be string or array, not object"#),
        ] {
            let arguments: Map<String, Value> = serde_json::from_str(arguments).expect("a table of JSON");
            assert_eq!(rules.check(&arguments).err().unwrap_or_default(), expected);
        }
    }

    #[test]
    fn odd_schemas_refuse_nothing() {
        for schema in ["{}", "[]", "true", r#"{"required":"file","properties":[1]}"#, r#"{"properties":{"a":true}}"#] {
            assert_eq!(ArgumentRules::of(schema).check(&Map::new()), Ok(()), "{schema}");
        }
    }
}
