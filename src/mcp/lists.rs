//! Lists of tools, prompts and resources as results, encoded once for each revision.
//!
//! **Invariant**: a server sends no member that a revision does not know.

use std::sync::Arc;

use crate::jsonrpc;
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
}

impl ListResult {
    pub fn encode(listed: Listed, objects: &[&RawObject]) -> ListResult {
        ListResult { by_revision: Revision::ALL.map(|revision| encode_list(listed, objects, revision).into()) }
    }

    pub fn bytes(&self, revision: Revision) -> Arc<[u8]> {
        Arc::clone(&self.by_revision[revision as usize])
    }
}

/// Members of tools, prompts and resources that came later, with the revision they came with.
const LATER_MEMBERS: [(&str, Revision); 4] = [
    ("title", Revision::R2025_06_18),
    ("outputSchema", Revision::R2025_06_18),
    ("icons", Revision::R2025_11_25),
    ("execution", Revision::R2025_11_25),
];

fn encode_list(listed: Listed, objects: &[&RawObject], revision: Revision) -> Vec<u8> {
    let is_known = |member: &str| LATER_MEMBERS.iter().all(|(later, since)| *later != member || revision >= *since);
    let known = |object: &&RawObject| -> RawObject {
        object
            .iter()
            .filter(|(member, _)| is_known(member))
            .map(|(member, value)| (member.clone(), value.clone()))
            .collect()
    };
    let array = jsonrpc::to_bytes(&objects.iter().map(known).collect::<Vec<_>>());
    [br#"{""#, listed.member().as_bytes(), br#"":"#, array.as_slice(), b"}"].concat()
}
