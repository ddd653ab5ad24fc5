//! YAML text → a tree whose every value knows its line, so that an author is told where the mistake is.
//!
//! The tree keeps the order of keys, and scalars as they were written: `version: 1.0` is the text `1.0` to who asks for
//! text, and the number 1.0 in a schema.
//!
//! **Invariant**: the only file that names the YAML parser; no input panics, overflows the stack or grows beyond the bounds.
//! **Bounds**: `YAML_DEPTH_MAX`; `YAML_WEIGHT_MAX` for the tree with all aliases written out (a few lines of aliases of
//! aliases would otherwise make billions of values).
//! Left out on purpose: further documents of a stream, tags, merge keys, keys that are not scalars.

use std::collections::HashMap;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use yaml_rust2::Yaml;
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::{Marker, TScalarStyle};

use crate::limits::{YAML_DEPTH_MAX, YAML_WEIGHT_MAX};

/// A value and the line (1 is the first of the text) it stands on.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub line: usize,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `plain`: written without quotes, so that it may be a number, a boolean or null.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// What is wrong, and on which line.
#[derive(Clone, Debug, PartialEq)]
pub struct YamlError {
    pub line: usize,
    pub what: String,
}

/// Reads the first document of `text`; an empty one is an empty map.
pub fn parse(text: &str) -> Result<Node, YamlError> {
    let mut parser = Parser::new_from_str(text);
    let mut tree = Tree::default();
    loop {
        let (event, mark) = parser
            .next_token()
            .map_err(|error| YamlError { line: error.marker().line(), what: error.info().to_owned() })?;
        match event {
            Event::StreamEnd | Event::DocumentEnd => {
                return Ok(tree.root.unwrap_or(Node { line: 1, kind: Kind::Map(Vec::new()) }));
            }
            event => tree.take(event, mark)?,
        }
    }
}

impl Node {
    /// The text of a scalar; `None` for null, lists and maps.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if matches!(Yaml::from_str(text), Yaml::Null))
    }

    pub fn boolean(&self) -> Option<bool> {
        match &self.kind {
            Kind::Scalar { text, plain: true } => Yaml::from_str(text).as_bool(),
            _ => None,
        }
    }

    pub fn list(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn map(&self) -> Option<&[(String, Node)]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a key of a map, unless it is null.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.map()?.iter().find(|(name, value)| name == key && !value.is_null()).map(|(_, value)| value)
    }

    /// What it is, in an author's words.
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { .. } if self.is_null() => "nothing",
            Kind::Scalar { .. } => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    fn weight(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar { text, .. } => text.len(),
            Kind::List(items) => items.iter().map(Node::weight).sum(),
            Kind::Map(entries) => entries.iter().map(|(key, value)| key.len() + value.weight()).sum(),
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar { .. } => 0,
            Kind::List(items) => items.iter().map(Node::depth).max().unwrap_or(0),
            Kind::Map(entries) => entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
        }
    }
}

/// As JSON, keys in the author's order.
impl Serialize for Node {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match &self.kind {
            Kind::Scalar { text, plain: false } => out.serialize_str(text),
            Kind::Scalar { text, plain: true } => match Yaml::from_str(text) {
                Yaml::Null => out.serialize_unit(),
                Yaml::Boolean(value) => out.serialize_bool(value),
                Yaml::Integer(value) => out.serialize_i64(value),
                number @ Yaml::Real(_) => number.as_f64().serialize(out),
                _ => out.serialize_str(text),
            },
            Kind::List(items) => {
                let mut list = out.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Kind::Map(entries) => {
                let mut map = out.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

/// The tree as far as it is read: the values that are still open, outermost first.
#[derive(Default)]
struct Tree {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    weight: usize,
}

struct Open {
    node: Node,
    anchor: usize,
    /// The key that was read and waits for its value.
    key: Option<String>,
}

impl Tree {
    fn take(&mut self, event: Event, mark: Marker) -> Result<(), YamlError> {
        let line = mark.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == TScalarStyle::Plain && tag.is_none();
                self.grow(line, 1 + text.len())?;
                self.close(Node { line, kind: Kind::Scalar { text, plain } }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(Node { line, kind: Kind::List(Vec::new()) }, anchor),
            Event::MappingStart(anchor, _) => self.open(Node { line, kind: Kind::Map(Vec::new()) }, anchor),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(done) => self.close(done.node, done.anchor),
                None => Err(YamlError { line, what: "a value ends that did not begin".to_owned() }),
            },
            Event::Alias(anchor) => {
                let Some(value) = self.anchors.get(&anchor) else {
                    return Err(YamlError { line, what: "an alias stands inside the value that it names".to_owned() });
                };
                let (weight, depth) = (value.weight(), value.depth());
                self.check_depth(line, self.open.len() + depth)?;
                self.grow(line, weight)?;
                let value = self.anchors[&anchor].clone();
                self.close(value, 0)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        self.check_depth(node.line, self.open.len() + 1)?;
        self.grow(node.line, 1)?;
        self.open.push(Open { node, anchor, key: None });
        Ok(())
    }

    /// Puts a finished value into the one that is open around it.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        if anchor != 0 {
            self.grow(node.line, node.weight())?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(around) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut around.node.kind, around.key.take()) {
            (Kind::Map(entries), Some(key)) => entries.push((key, node)),
            (Kind::Map(entries), None) => around.key = Some(key_of(node, entries)?),
            (Kind::List(items), _) => items.push(node),
            (Kind::Scalar { .. }, _) => {}
        }
        Ok(())
    }

    fn grow(&mut self, line: usize, weight: usize) -> Result<(), YamlError> {
        self.weight += weight;
        if self.weight > YAML_WEIGHT_MAX {
            let what = format!("with its aliases written out this is larger than {YAML_WEIGHT_MAX} bytes");
            return Err(YamlError { line, what });
        }
        Ok(())
    }

    fn check_depth(&self, line: usize, depth: usize) -> Result<(), YamlError> {
        if depth > YAML_DEPTH_MAX {
            return Err(YamlError { line, what: format!("nested deeper than {YAML_DEPTH_MAX} levels") });
        }
        Ok(())
    }
}

fn key_of(node: Node, entries: &[(String, Node)]) -> Result<String, YamlError> {
    let line = node.line;
    let Kind::Scalar { text, .. } = node.kind else {
        return Err(YamlError { line, what: "a key must be a single value".to_owned() });
    };
    // Few keys in a map are the rule; the bound keeps this search from growing with the square of a hostile one.
    if entries.len() >= crate::limits::YAML_KEYS_MAX {
        return Err(YamlError { line, what: format!("more than {} keys in one map", crate::limits::YAML_KEYS_MAX) });
    }
    if entries.iter().any(|(key, _)| *key == text) {
        return Err(YamlError { line, what: format!("the key \"{text}\" is given twice") });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        match parse(text) {
            Ok(node) => serde_json::to_string(&node).expect("a tree encodes"),
            Err(error) => format!("{}: {}", error.line, error.what),
        }
    }

    #[test]
    fn values_and_their_order() {
        for (text, expected) in [
            ("", "{}"),
            ("b: 1\na: [x, 'y', 2.5, true, ~]\n", r#"{"b":1,"a":["x","y",2.5,true,null]}"#),
            ("v: 1.0\nw: '1.0'\nx: yes\n", r#"{"v":1.0,"w":"1.0","x":"yes"}"#),
            ("t: >\n  one\n  two\nu: |\n  three\n", r#"{"t":"one two\n","u":"three\n"}"#),
            ("a: &x {k: 1}\nb: *x\n", r#"{"a":{"k":1},"b":{"k":1}}"#),
            ("---\na: 1\n---\nb: 2\n", r#"{"a":1}"#),
            ("1: one\ntrue: two\n", r#"{"1":"one","true":"two"}"#),
        ] {
            assert_eq!(json(text), expected, "{text:?}");
        }
        let node = parse("name: x\nversion: 1.0\n").expect("it is YAML");
        assert_eq!(node.get("version").and_then(Node::text), Some("1.0"));
        assert_eq!(node.get("version").map(|version| version.line), Some(2));
    }

    #[test]
    fn mistakes_carry_their_line() {
        for (text, expected) in [
            ("a: 1\na: 2\n", "2: the key \"a\" is given twice"),
            ("a: &x [1, *x]\n", "1: an alias stands inside the value that it names"),
            ("a: 1\nb: [1, 2\nc: 3\n", "3:"),
            ("a: 1\n? [x]\n: 2\n", "2: a key must be a single value"),
        ] {
            let got = json(text);
            assert!(got.starts_with(expected), "{text:?} gave {got}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..20 {
            let below = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(", ")));
        }
        assert!(json(&bomb).contains("with its aliases written out"), "{}", json(&bomb));
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(json(&deep).contains("nested deeper"), "{}", json(&deep));
        let mut chain = String::from("a0: &a0 [x]\n");
        for level in 1..100 {
            chain.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert!(json(&chain).contains("nested deeper"), "{}", json(&chain));
    }
}
