//! All that an instance offers at one moment.
//!
//! **Invariant**: immutable; its parts belong to the same moment.

use std::sync::Arc;

use crate::skills::prompts::PromptSet;
use crate::skills::resources::ResourceSet;
use crate::skills::set::ToolSet;

/// Tools, prompts and resources of the loaded skills.
#[derive(Debug, Default)]
pub struct Offer {
    pub tools: Arc<ToolSet>,
    pub prompts: Arc<PromptSet>,
    pub resources: Arc<ResourceSet>,
}

impl Offer {
    /// Whether nothing that a client can see is another: no list, and no content of a resource.
    pub fn is_same(&self, other: &Offer) -> bool {
        self.tools.encoded() == other.tools.encoded()
            && self.prompts.encoded() == other.prompts.encoded()
            && self.resources.encoded() == other.resources.encoded()
            && self.resources.encoded_templates() == other.resources.encoded_templates()
            && self.resources.changed_since(&other.resources).is_empty()
    }

    /// Why something that should be here is not; for the log.
    pub fn left_out(&self) -> impl Iterator<Item = &String> {
        self.tools.left_out.iter().chain(self.prompts.left_out()).chain(self.resources.left_out())
    }
}
