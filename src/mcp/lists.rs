//! Lists of tools, prompts and resources as results, encoded once for each revision.
//!
//! **Invariant**: a server sends no member that a revision does not know.
//! **Bounds**: `LIST_BYTES_MAX`; what comes after is left out.
//! Left out on purpose: pages (`docs/architecture.md`, protocol).

use std::sync::Arc;

use serde_json::Value;

use crate::limits::LIST_BYTES_MAX;
use crate::mcp::{RawObject, Revision};

/// What a server lists, each kind with a method of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    Tools,
    Prompts,
    Resources,
    ResourceTemplates,
}

impl Listed {
    /// The member of the result that holds the list.
    pub fn member(self) -> &'static str {
        match self {
            Listed::Tools => "tools",
            Listed::Prompts => "prompts",
            Listed::Resources => "resources",
            Listed::ResourceTemplates => "resourceTemplates",
        }
    }

    pub fn method(self) -> &'static str {
        match self {
            Listed::Tools => "tools/list",
            Listed::Prompts => "prompts/list",
            Listed::Resources => "resources/list",
            Listed::ResourceTemplates => "resources/templates/list",
        }
    }

    pub fn of_method(method: &str) -> Option<Listed> {
        let all = [Listed::Tools, Listed::Prompts, Listed::Resources, Listed::ResourceTemplates];
        all.into_iter().find(|listed| listed.method() == method)
    }
}

/// An object of a list, encoded for each revision when it becomes known, so that a list is only put together.
#[derive(Clone)]
pub struct ListObject {
    /// The newest one's text is whole; others that are the same are that one.
    by_revision: [Arc<str>; Revision::ALL.len()],
    /// For 2026-07-28.
    modern: Arc<str>,
}

/// The result of a list method, encoded once for each revision.
#[derive(Clone)]
pub struct ListResult {
    by_revision: [Arc<[u8]>; Revision::ALL.len()],
    /// For 2026-07-28.
    modern: Arc<[u8]>,
    /// Objects that have no place in it.
    pub left_out: usize,
}

impl ListObject {
    pub fn encode(object: &RawObject) -> ListObject {
        let newest: Arc<str> = encode_object(object, Some(Revision::NEWEST)).into();
        let by_revision = Revision::ALL.map(|revision| {
            let is_later = |(later, since): &(&str, Revision)| *since > revision && object.contains_key(*later);
            match LATER_MEMBERS.iter().any(is_later) {
                true => encode_object(object, Some(revision)).into(),
                false => Arc::clone(&newest),
            }
        });
        let modern = if object.contains_key(GONE_MEMBER) { encode_object(object, None).into() } else { newest };
        ListObject { by_revision, modern }
    }

    /// `None` is 2026-07-28.
    fn text(&self, revision: Option<Revision>) -> &Arc<str> {
        revision.map_or(&self.modern, |revision| &self.by_revision[revision as usize])
    }

    /// With all its members.
    pub fn whole(&self) -> &str {
        self.text(Some(Revision::NEWEST))
    }
}

impl ListResult {
    pub fn encode(listed: Listed, objects: &[&ListObject]) -> ListResult {
        // The same ones in every revision, of which the newest has the longest text.
        let (shown, beyond) = objects.split_at(count_that_fits(objects));
        let newest: Arc<[u8]> = join(listed, shown, Some(Revision::NEWEST)).into();
        let in_revision = |revision| {
            let is_whole =
                |object: &&ListObject| Arc::ptr_eq(object.text(revision), object.text(Some(Revision::NEWEST)));
            if shown.iter().all(is_whole) { Arc::clone(&newest) } else { join(listed, shown, revision).into() }
        };
        let by_revision = Revision::ALL.map(|revision| in_revision(Some(revision)));
        ListResult { by_revision, modern: in_revision(None), left_out: beyond.len() }
    }

    /// `None` is 2026-07-28.
    pub fn bytes(&self, revision: Option<Revision>) -> Arc<[u8]> {
        Arc::clone(revision.map_or(&self.modern, |revision| &self.by_revision[revision as usize]))
    }
}

/// Members of tools, prompts and resources that came later, with the revision they came with.
const LATER_MEMBERS: [(&str, Revision); 4] = [
    ("title", Revision::R2025_06_18),
    ("outputSchema", Revision::R2025_06_18),
    ("icons", Revision::R2025_11_25),
    ("execution", Revision::R2025_11_25),
];

/// A member that went with 2026-07-28.
const GONE_MEMBER: &str = "execution";

/// How many objects from the first on make a list of at most `LIST_BYTES_MAX`.
fn count_that_fits(objects: &[&ListObject]) -> usize {
    let mut left = LIST_BYTES_MAX;
    let fits = |object: &&&ListObject| {
        // With the comma after it.
        let bytes = object.whole().len() + 1;
        let has_place = bytes <= left;
        left = left.saturating_sub(bytes);
        has_place
    };
    objects.iter().take_while(fits).count()
}

fn join(listed: Listed, objects: &[&ListObject], revision: Option<Revision>) -> Vec<u8> {
    let texts = || objects.iter().map(|object| object.text(revision));
    let mut out = Vec::with_capacity(texts().map(|text| text.len() + 1).sum::<usize>() + listed.member().len() + 8);
    out.extend_from_slice(&[br#"{""#, listed.member().as_bytes(), br#"":["#].concat());
    for (at, text) in texts().enumerate() {
        out.extend_from_slice(if at == 0 { b"" } else { b"," });
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(b"]}");
    out
}

fn encode_object(object: &RawObject, revision: Option<Revision>) -> String {
    let is_known = |member: &str| match revision {
        Some(revision) => LATER_MEMBERS.iter().all(|(later, since)| *later != member || revision >= *since),
        None => member != GONE_MEMBER,
    };
    let mut out = String::from("{");
    for (at, (member, value)) in object.iter().filter(|(member, _)| is_known(member)).enumerate() {
        out.push_str(if at == 0 { "" } else { "," });
        write_text(&mut out, member);
        out.push(':');
        out.push_str(value.get());
    }
    out.push('}');
    out
}

/// A member's name, which may need escaping.
fn write_text(out: &mut String, text: &str) {
    out.push_str(&Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_revision_gets_what_it_knows() {
        let tool = r#"{"name":"t","title":"T","execution":{"taskSupport":"optional"},"icons":[]}"#;
        let tool: RawObject = serde_json::from_str(tool).expect("it is an object");
        let list = ListResult::encode(Listed::Tools, &[&ListObject::encode(&tool)]);
        for (revision, expected) in [
            (Some(Revision::R2025_03_26), r#"{"tools":[{"name":"t"}]}"#),
            (Some(Revision::R2025_06_18), r#"{"tools":[{"name":"t","title":"T"}]}"#),
            (
                Some(Revision::R2025_11_25),
                r#"{"tools":[{"execution":{"taskSupport":"optional"},"icons":[],"name":"t","title":"T"}]}"#,
            ),
            (None, r#"{"tools":[{"icons":[],"name":"t","title":"T"}]}"#),
        ] {
            assert_eq!(String::from_utf8_lossy(&list.bytes(revision)), expected);
        }
    }

    #[test]
    fn what_has_no_place_is_left_out_from_the_end() {
        let object = |name: &str, bytes: usize| {
            let text = format!(r#"{{"name":"{name}","title":"{}"}}"#, "x".repeat(bytes));
            ListObject::encode(&serde_json::from_str(&text).expect("an object"))
        };
        let objects = [object("a", 9 << 20), object("b", 6 << 20), object("c", 6 << 20), object("d", 1)];
        let names = |list: &ListResult, revision| {
            let bytes = list.bytes(revision);
            assert!(bytes.len() <= LIST_BYTES_MAX + 64, "{}", bytes.len());
            ["a", "b", "c", "d"].map(|name| {
                let text = format!(r#""name":"{name}""#);
                bytes.windows(text.len()).any(|window| window == text.as_bytes())
            })
        };
        let list = ListResult::encode(Listed::Tools, &objects.iter().collect::<Vec<_>>());
        assert_eq!(list.left_out, 2);
        for revision in Revision::ALL {
            assert_eq!(names(&list, Some(revision)), [true, true, false, false], "{}", revision.as_str());
        }
        let list = ListResult::encode(Listed::Tools, &objects[..2].iter().collect::<Vec<_>>());
        assert_eq!((list.left_out, names(&list, None)), (0, [true, true, false, false]));
    }
}
