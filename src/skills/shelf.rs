//! Which skills there are, which are loaded, which of their groups are active; and what follows from it.
//!
//! **Invariant**: pure; a skill becomes loaded only after all it depends on. A loaded skill stays loaded while its
//! folder changes, and is unloaded when it vanishes.
//! **Bounds**: `SKILLS_MAX`, kept by the discovery; `SKILL_DEPENDS_DEPTH_MAX`.
//! Left out on purpose: files (`discover.rs`) and threads (`skills.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::SKILL_DEPENDS_DEPTH_MAX;
use crate::skills::manifest::{Group, Skill};
use crate::skills::offer::Offer;
use crate::skills::prompts::PromptSet;
use crate::skills::resources::ResourceSet;
use crate::skills::set::{SkillTool, ToolSet};

/// A skill folder that was found and what is known of it.
#[derive(Clone, Debug)]
pub struct Found {
    pub folder: PathBuf,
    /// The last good reading; still there when a loaded skill's files become wrong while it is in use.
    pub skill: Option<Arc<Skill>>,
    /// Why the present files cannot be read.
    pub problem: Option<String>,
}

impl Found {
    pub fn name(&self) -> String {
        match &self.skill {
            Some(skill) => skill.name.clone(),
            None => self.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Loaded,
    Unloaded,
    Error,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Loaded => "loaded",
            Status::Unloaded => "unloaded",
            Status::Error => "error",
        }
    }
}

/// The state that the skill tools change.
#[derive(Debug, Default)]
pub struct Shelf {
    skills: BTreeMap<String, Found>,
    loaded: BTreeSet<String>,
    /// Groups switched by a call, where that differs from the manifest.
    groups: HashMap<(String, String), bool>,
}

/// What a load did.
#[derive(Debug, Default, PartialEq)]
pub struct Loaded {
    pub newly: Vec<String>,
    pub already: Vec<String>,
}

impl Shelf {
    /// Takes the folders of a new look, in the order of the search paths; returns warnings about names given twice.
    pub fn replace(&mut self, found: Vec<Found>) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut skills: BTreeMap<String, Found> = BTreeMap::new();
        for found in found {
            let name = found.name();
            match skills.get(&name) {
                Some(first) => warnings.push(format!(
                    "skill \"{name}\" in {} is left out: {} has the same name and comes first",
                    found.folder.display(),
                    first.folder.display()
                )),
                None => {
                    skills.insert(name, found);
                }
            }
        }
        self.loaded.retain(|name| skills.get(name).is_some_and(|found| found.skill.is_some()));
        self.groups.retain(|(skill, _), _| skills.contains_key(skill));
        self.skills = skills;
        warnings
    }

    pub fn all(&self) -> impl Iterator<Item = &Found> {
        self.skills.values()
    }

    pub fn get(&self, name: &str) -> Option<&Found> {
        self.skills.get(name).or_else(|| {
            let alike = |text: &str| text.to_lowercase().replace('_', "-");
            self.skills.iter().find(|(other, _)| alike(other) == alike(name)).map(|(_, found)| found)
        })
    }

    pub fn status(&self, found: &Found) -> Status {
        match (&found.problem, self.loaded.contains(&found.name())) {
            (Some(_), _) => Status::Error,
            (None, true) => Status::Loaded,
            (None, false) if self.obstacle(&found.name()).is_some() => Status::Error,
            (None, false) => Status::Unloaded,
        }
    }

    /// Why a skill cannot be loaded now.
    pub fn obstacle(&self, name: &str) -> Option<String> {
        if let Some(problem) = self.skills.get(name).and_then(|found| found.problem.clone()) {
            return Some(problem);
        }
        self.order(name, &mut Vec::new(), &mut Vec::new()).err()
    }

    /// Loads skills and what they depend on, all or none.
    pub fn load(&mut self, names: &[String]) -> Result<Loaded, String> {
        let mut order = Vec::new();
        let mut asked = Vec::new();
        for name in names {
            let found = self.get(name).ok_or_else(|| self.unknown(name))?;
            let name = found.name();
            if !self.loaded.contains(&name) {
                self.order(&name, &mut Vec::new(), &mut order)?;
            }
            asked.push(name);
        }
        let already = asked.into_iter().filter(|name| self.loaded.contains(name)).collect();
        let newly: Vec<String> = order.into_iter().filter(|name| self.loaded.insert(name.clone())).collect();
        Ok(Loaded { newly, already })
    }

    /// Unloads a skill; false if it was not loaded.
    pub fn unload(&mut self, name: &str) -> Result<bool, String> {
        let name = self.get(name).ok_or_else(|| self.unknown(name))?.name();
        let needing = self
            .loaded
            .iter()
            .filter(|other| self.skills[*other].skill.as_ref().is_some_and(|skill| skill.depends.contains(&name)));
        let needing: Vec<&str> = needing.map(String::as_str).filter(|other| *other != name).collect();
        if !needing.is_empty() && self.loaded.contains(&name) {
            return Err(format!("\"{name}\" is needed by {}: unload that first", needing.join(", ")));
        }
        self.groups.retain(|(skill, _), _| *skill != name);
        Ok(self.loaded.remove(&name))
    }

    /// Switches a group of a loaded skill; `skill` may be left out where only one loaded skill has such a group.
    /// Returns the skill and whether anything changed.
    pub fn switch_group(&mut self, skill: Option<&str>, group: &str, active: bool) -> Result<(String, bool), String> {
        let skill = match skill {
            Some(name) => self.get(name).ok_or_else(|| self.unknown(name))?.name(),
            None => self.skill_with_group(group)?,
        };
        if !self.loaded.contains(&skill) {
            return Err(format!("the skill \"{skill}\" is not loaded: call load_skill first"));
        }
        let Some(manifest) = self.skills[&skill].skill.clone() else { return Err(self.unknown(&skill)) };
        let Some(declared) = manifest.groups.iter().find(|other| other.name == group) else {
            let names: Vec<&str> = manifest.groups.iter().map(|group| group.name.as_str()).collect();
            return Err(match names.is_empty() {
                true => format!("the skill \"{skill}\" has no tool groups"),
                false => format!("the skill \"{skill}\" has no group \"{group}\"; it has {}", names.join(", ")),
            });
        };
        let before = self.is_active(&skill, declared);
        self.groups.insert((skill.clone(), group.to_owned()), active);
        Ok((skill, before != active))
    }

    pub fn is_active(&self, skill: &str, group: &Group) -> bool {
        let switched = self.groups.get(&(skill.to_owned(), group.name.clone()));
        switched.copied().unwrap_or(group.default_active)
    }

    /// What the loaded skills offer: tools, without those of inactive groups, prompts and resources.
    pub fn visible(&self, call_timeout: Duration) -> Offer {
        let skills = self.loaded.iter().filter_map(|name| self.skills.get(name)?.skill.as_deref());
        let resources = Arc::new(ResourceSet::new(skills.clone()));
        let prompts = Arc::new(PromptSet::new(skills.clone(), Arc::clone(&resources)));
        let tools = skills.flat_map(|skill| {
            let entries =
                skill.tools.iter().filter(|entry| self.is_visible(skill, &entry.name, entry.group.as_deref()));
            entries.filter_map(|entry| SkillTool::new(skill, entry, call_timeout)).map(Arc::new).collect::<Vec<_>>()
        });
        Offer { tools: Arc::new(ToolSet::new(tools.collect())), prompts, resources }
    }

    /// Whether a tool of a loaded skill is shown: it is in no group, or in one that is active.
    fn is_visible(&self, skill: &Skill, tool: &str, group: Option<&str>) -> bool {
        let mut in_groups = skill
            .groups
            .iter()
            .filter(|other| Some(other.name.as_str()) == group || other.tools.iter().any(|name| name == tool))
            .peekable();
        in_groups.peek().is_none() || in_groups.any(|group| self.is_active(&skill.name, group))
    }

    /// Appends a skill to `order` after all it depends on. `path` is the way from the skill that was asked for.
    fn order(&self, name: &str, path: &mut Vec<String>, order: &mut Vec<String>) -> Result<(), String> {
        if order.iter().any(|other| other == name) {
            return Ok(());
        }
        if let Some(at) = path.iter().position(|other| other == name) {
            return Err(format!("skills depend on each other in a circle: {} → {name}", path[at..].join(" → ")));
        }
        let found = self.skills.get(name).ok_or_else(|| match path.last() {
            Some(by) => format!("\"{by}\" depends on the skill \"{name}\", which is not there"),
            None => self.unknown(name),
        })?;
        let Some(skill) = &found.skill else {
            let problem = found.problem.as_deref().unwrap_or("its files cannot be read");
            return Err(format!("the skill \"{name}\" cannot be loaded: {problem}"));
        };
        if path.len() >= SKILL_DEPENDS_DEPTH_MAX {
            return Err(format!("\"{}\" depends on a chain of more than {SKILL_DEPENDS_DEPTH_MAX} skills", path[0]));
        }
        path.push(name.to_owned());
        for dependency in &skill.depends {
            self.order(dependency, path, order)?;
        }
        path.pop();
        order.push(name.to_owned());
        Ok(())
    }

    fn skill_with_group(&self, group: &str) -> Result<String, String> {
        let having = self.loaded.iter().filter(|name| {
            let skill = self.skills[*name].skill.as_ref();
            skill.is_some_and(|skill| skill.groups.iter().any(|other| other.name == group))
        });
        let having: Vec<&String> = having.collect();
        match having.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(format!("no loaded skill has a group \"{group}\"")),
            several => {
                let names: Vec<&str> = several.iter().map(|name| name.as_str()).collect();
                Err(format!("several skills have a group \"{group}\": give skill_name, one of {}", names.join(", ")))
            }
        }
    }

    fn unknown(&self, name: &str) -> String {
        let names: Vec<&str> = self.skills.keys().map(String::as_str).take(20).collect();
        match names.is_empty() {
            true => format!("there is no skill \"{name}\", and none at all: see --skill-paths"),
            false => format!(
                "there is no skill \"{name}\"; search_skills finds by words, and there are {}",
                names.join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skills::manifest;

    fn found(folder: &str, front: &str) -> Found {
        let folder = PathBuf::from(folder);
        let skill = manifest::parse(&folder, &format!("---\n{front}\n---\n")).expect("the front matter is right");
        Found { folder, skill: Some(Arc::new(skill)), problem: None }
    }

    fn shelf(skills: &[(&str, &str)]) -> Shelf {
        let mut shelf = Shelf::default();
        let skills = skills.iter().map(|(name, depends)| found(name, &format!("name: {name}\ndepends: [{depends}]")));
        assert_eq!(shelf.replace(skills.collect()), Vec::<String>::new());
        shelf
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_a_skill_depends_on_is_loaded_first() {
        let mut shelf =
            shelf(&[("a", "b, c"), ("b", "c"), ("c", ""), ("lost", "none"), ("x", "y"), ("y", "z"), ("z", "x")]);
        let loaded = shelf.load(&names(&["a"])).expect("all is there");
        assert_eq!(loaded, Loaded { newly: names(&["c", "b", "a"]), already: Vec::new() });
        let loaded = shelf.load(&names(&["c", "A"])).expect("all is there");
        assert_eq!(loaded, Loaded { newly: Vec::new(), already: names(&["c", "a"]) });
        for (name, expected) in [
            ("lost", "\"lost\" depends on the skill \"none\", which is not there"),
            ("y", "skills depend on each other in a circle: y → z → x → y"),
            ("q", "there is no skill \"q\"; search_skills finds by words, and there are a, b, c, lost, x, y, z"),
        ] {
            assert_eq!(shelf.load(&names(&["c", name])), Err(expected.to_owned()));
        }
        let lost = shelf.get("lost").expect("it is listed");
        assert_eq!(shelf.status(lost), Status::Error);
        assert_eq!(shelf.unload("c"), Err("\"c\" is needed by a, b: unload that first".to_owned()));
        assert_eq!(shelf.unload("a"), Ok(true));
        assert_eq!(shelf.unload("a"), Ok(false));
        let chain: Vec<(String, String)> = (0..40).map(|i| (format!("s{i}"), format!("s{}", i + 1))).collect();
        let mut deep = Shelf::default();
        deep.replace(chain.iter().map(|(name, next)| found(name, &format!("name: {name}\ndepends: {next}"))).collect());
        assert_eq!(deep.load(&names(&["s0"])), Err("\"s0\" depends on a chain of more than 32 skills".to_owned()));
    }

    #[test]
    fn a_name_given_twice_counts_once_and_what_vanished_is_unloaded() {
        let mut shelf = shelf(&[("a", ""), ("b", "")]);
        shelf.load(&names(&["a", "b"])).expect("all is there");
        let warnings = shelf.replace(vec![found("/one/a", "name: a"), found("/two/a", "name: a")]);
        assert_eq!(warnings, ["skill \"a\" in /two/a is left out: /one/a has the same name and comes first"]);
        let status: Vec<(String, Status)> = shelf.all().map(|found| (found.name(), shelf.status(found))).collect();
        assert_eq!(status, [("a".to_owned(), Status::Loaded)]);
    }

    #[test]
    fn groups_are_switched_only_where_it_is_clear() {
        let mut shelf = Shelf::default();
        let front =
            |name: &str| format!("name: {name}\ngroups: [{{name: g, default-active: true}}, {{name: {name}-only}}]");
        shelf.replace(vec![found("a", &front("a")), found("b", &front("b")), found("c", "name: c")]);
        assert_eq!(
            shelf.switch_group(Some("a"), "g", false),
            Err("the skill \"a\" is not loaded: call load_skill first".to_owned())
        );
        shelf.load(&names(&["a", "b", "c"])).expect("all is there");
        assert_eq!(
            shelf.switch_group(None, "g", false),
            Err("several skills have a group \"g\": give skill_name, one of a, b".to_owned())
        );
        assert_eq!(shelf.switch_group(None, "a-only", true), Ok(("a".to_owned(), true)));
        assert_eq!(shelf.switch_group(Some("a"), "a-only", true), Ok(("a".to_owned(), false)));
        assert_eq!(
            shelf.switch_group(Some("a"), "none", true),
            Err("the skill \"a\" has no group \"none\"; it has g, a-only".to_owned())
        );
        assert_eq!(shelf.switch_group(Some("c"), "g", true), Err("the skill \"c\" has no tool groups".to_owned()));
        assert_eq!(shelf.switch_group(None, "zz", true), Err("no loaded skill has a group \"zz\"".to_owned()));
    }
}
