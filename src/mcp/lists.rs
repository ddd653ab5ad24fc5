//! Lists of tools, prompts and resources as results, encoded once for each revision.
//!
//! **Invariant**: a server sends no member that a revision does not know.
//! **Bounds**: `LIST_BYTES_MAX`; what comes after is left out.
//! Left out on purpose: pages (`docs/architecture.md`, protocol).

use std::sync::Arc;

use crate::jsonrpc;
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

/// The result of a list method, encoded once for each revision: a server sends no member that a revision does not know.
#[derive(Clone)]
pub struct ListResult {
    by_revision: [Arc<[u8]>; Revision::ALL.len()],
    /// For 2026-07-28.
    modern: Arc<[u8]>,
    /// Objects that have no place in it.
    pub left_out: usize,
}

impl ListResult {
    pub fn encode(listed: Listed, objects: &[&RawObject]) -> ListResult {
        // The same ones in every revision, of which the newest has the longest text.
        let (shown, beyond) = objects.split_at(count_that_fits(objects));
        let newest: Arc<[u8]> = encode_list(listed, shown, Some(Revision::NEWEST)).into();
        let by_revision = Revision::ALL.map(|revision| {
            let is_later = |(later, since): &(&str, Revision)| *since > revision && has(shown, later);
            match LATER_MEMBERS.iter().any(is_later) {
                true => encode_list(listed, shown, Some(revision)).into(),
                false => Arc::clone(&newest),
            }
        });
        let modern = if has(shown, GONE_MEMBER) { encode_list(listed, shown, None).into() } else { newest };
        ListResult { by_revision, modern, left_out: beyond.len() }
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

/// How many objects from the first on make a list of at most `LIST_BYTES_MAX`.
fn count_that_fits(objects: &[&RawObject]) -> usize {
    let mut left = LIST_BYTES_MAX;
    let fits = |object: &&&RawObject| {
        // Quotes, colon and comma of each member; braces and the comma after them.
        let bytes: usize = object.iter().map(|(member, value)| member.len() + value.get().len() + 4).sum::<usize>() + 3;
        let has_place = bytes <= left;
        left = left.saturating_sub(bytes);
        has_place
    };
    objects.iter().take_while(fits).count()
}

/// A member that went with 2026-07-28.
const GONE_MEMBER: &str = "execution";

fn has(objects: &[&RawObject], member: &str) -> bool {
    objects.iter().any(|object| object.contains_key(member))
}

fn encode_list(listed: Listed, objects: &[&RawObject], revision: Option<Revision>) -> Vec<u8> {
    let is_known = |member: &str| match revision {
        Some(revision) => LATER_MEMBERS.iter().all(|(later, since)| *later != member || revision >= *since),
        None => member != GONE_MEMBER,
    };
    let mut out = [br#"{""#, listed.member().as_bytes(), br#"":["#].concat();
    for (at, object) in objects.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{" } else { b",{" });
        for (at, (member, value)) in object.iter().filter(|(member, _)| is_known(member)).enumerate() {
            out.extend_from_slice(if at == 0 { b"" } else { b"," });
            write_text(&mut out, member);
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

/// A member's name; nearly all need no escaping.
fn write_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(&jsonrpc::to_bytes(&text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_revision_gets_what_it_knows() {
        let tool = r#"{"name":"t","title":"T","execution":{"taskSupport":"optional"},"icons":[]}"#;
        let tool: RawObject = serde_json::from_str(tool).expect("it is an object");
        let list = ListResult::encode(Listed::Tools, &[&tool]);
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
        let object = |name: &str, bytes: usize| -> RawObject {
            let text = format!(r#"{{"name":"{name}","title":"{}"}}"#, "x".repeat(bytes));
            serde_json::from_str(&text).expect("an object")
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
