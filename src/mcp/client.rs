//! What a client says that it offers to a server that asks it something.
//!
//! **Invariant**: pure. A set of these is a small number, so that a session id can carry it.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

/// The client capabilities that a server may make use of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCapabilities {
    pub roots: bool,
    pub sampling: bool,
    /// Sampling with tools, which is more than sampling.
    pub sampling_tools: bool,
    /// Elicitation by form.
    pub elicitation: bool,
    /// Elicitation by URL.
    pub elicitation_url: bool,
}

impl ClientCapabilities {
    /// How many sets of them there are.
    pub const SETS: usize = 32;

    pub const NONE: ClientCapabilities = ClientCapabilities {
        roots: false,
        sampling: false,
        sampling_tools: false,
        elicitation: false,
        elicitation_url: false,
    };

    /// As a number, for a session id.
    pub fn bits(self) -> u32 {
        u32::from(self.roots)
            | u32::from(self.sampling) << 1
            | u32::from(self.elicitation) << 2
            | u32::from(self.sampling_tools) << 3
            | u32::from(self.elicitation_url) << 4
    }

    pub fn from_bits(bits: u32) -> ClientCapabilities {
        ClientCapabilities {
            roots: bits & 1 != 0,
            sampling: bits & 2 != 0,
            elicitation: bits & 4 != 0,
            sampling_tools: bits & 8 != 0,
            elicitation_url: bits & 16 != 0,
        }
    }

    /// What a client must offer to be asked this; `None` for what no client is asked.
    pub fn needed_for(method: &str, params: &Value) -> Option<ClientCapabilities> {
        let none = ClientCapabilities::NONE;
        match (method, params.get("mode").and_then(Value::as_str)) {
            ("roots/list", _) => Some(ClientCapabilities { roots: true, ..none }),
            ("sampling/createMessage", _) => {
                let sampling_tools = ["tools", "toolChoice"].iter().any(|key| params.get(key).is_some());
                Some(ClientCapabilities { sampling: true, sampling_tools, ..none })
            }
            ("elicitation/create", Some("url")) => Some(ClientCapabilities { elicitation_url: true, ..none }),
            ("elicitation/create", Some("form")) => Some(ClientCapabilities { elicitation: true, ..none }),
            ("elicitation/create", None) if params.get("mode").is_none() => {
                Some(ClientCapabilities { elicitation: true, ..none })
            }
            _ => None,
        }
    }

    pub fn contains(self, needed: ClientCapabilities) -> bool {
        self.bits() & needed.bits() == needed.bits()
    }

    pub fn union(self, other: ClientCapabilities) -> ClientCapabilities {
        ClientCapabilities::from_bits(self.bits() | other.bits())
    }

    /// For people to read.
    pub fn in_words(self) -> String {
        let all = [
            (self.roots, "roots"),
            (self.sampling && !self.sampling_tools, "sampling"),
            (self.sampling_tools, "sampling with tools"),
            (self.elicitation, "elicitation by form"),
            (self.elicitation_url, "elicitation by URL"),
        ];
        let words: Vec<&str> = all.into_iter().filter(|(has, _)| *has).map(|(_, word)| word).collect();
        words.join(" and ")
    }

    /// As a client declares them.
    pub fn declared(self) -> Map<String, Value> {
        let mut members = Map::new();
        if self.roots {
            members.insert("roots".to_owned(), json!({}));
        }
        if self.sampling || self.sampling_tools {
            members.insert("sampling".to_owned(), if self.sampling_tools { json!({"tools": {}}) } else { json!({}) });
        }
        let elicitation = match (self.elicitation, self.elicitation_url) {
            (false, false) => return members,
            // The only form that older revisions know.
            (true, false) => json!({}),
            (false, true) => json!({"url": {}}),
            (true, true) => json!({"form": {}, "url": {}}),
        };
        members.insert("elicitation".to_owned(), elicitation);
        members
    }
}

/// A capability is offered by being there, whatever it holds.
impl<'de> Deserialize<'de> for ClientCapabilities {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<ClientCapabilities, D::Error> {
        let members = Map::<String, Value>::deserialize(input)?;
        Ok(ClientCapabilities::from(&members))
    }
}

impl From<&Map<String, Value>> for ClientCapabilities {
    fn from(members: &Map<String, Value>) -> ClientCapabilities {
        let object = |name: &str| members.get(name).and_then(Value::as_object);
        let has = |kinds: &Map<String, Value>, kind: &str| kinds.get(kind).is_some_and(Value::is_object);
        ClientCapabilities {
            roots: object("roots").is_some(),
            sampling: object("sampling").is_some(),
            sampling_tools: object("sampling").is_some_and(|kinds| has(kinds, "tools")),
            // Nothing said means forms, which were the only kind before 2025-11-25.
            elicitation: object("elicitation").is_some_and(|kinds| has(kinds, "form") || !has(kinds, "url")),
            elicitation_url: object("elicitation").is_some_and(|kinds| has(kinds, "url")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_has_its_number_and_is_declared_as_it_is_read() {
        for bits in 0..ClientCapabilities::SETS as u32 {
            let set = ClientCapabilities::from_bits(bits);
            assert_eq!(set.bits(), bits);
            let read = ClientCapabilities::from(&set.declared());
            let sampling = set.sampling || set.sampling_tools;
            assert_eq!(read, ClientCapabilities { sampling, ..set }, "{:?}", set.declared());
        }
    }

    #[test]
    fn what_a_question_needs() {
        let none = ClientCapabilities::NONE;
        for (method, params, needed) in [
            ("roots/list", json!({}), Some(ClientCapabilities { roots: true, ..none })),
            ("sampling/createMessage", json!({}), Some(ClientCapabilities { sampling: true, ..none })),
            (
                "sampling/createMessage",
                json!({"tools": []}),
                Some(ClientCapabilities { sampling: true, sampling_tools: true, ..none }),
            ),
            ("elicitation/create", json!({}), Some(ClientCapabilities { elicitation: true, ..none })),
            ("elicitation/create", json!({"mode": "form"}), Some(ClientCapabilities { elicitation: true, ..none })),
            ("elicitation/create", json!({"mode": "url"}), Some(ClientCapabilities { elicitation_url: true, ..none })),
            ("elicitation/create", json!({"mode": "smoke"}), None),
            ("elicitation/create", json!({"mode": 7}), None),
            ("ping", json!({}), None),
        ] {
            assert_eq!(ClientCapabilities::needed_for(method, &params), needed, "{method} {params}");
        }
        let forms = ClientCapabilities { elicitation: true, ..none };
        let both = forms.union(ClientCapabilities { elicitation_url: true, roots: true, ..none });
        assert_eq!(both.in_words(), "roots and elicitation by form and elicitation by URL");
        assert!(forms.contains(none) && forms.contains(forms) && !none.contains(forms));
    }
}
