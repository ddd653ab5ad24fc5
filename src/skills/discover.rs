//! Looking at the skill folders: which there are, and which have changed since the last look.
//!
//! A folder is read again only when the names, sizes or times of its files have changed; so its mistakes are told once
//! for each change, and a look at unchanged folders costs a few system calls a file.
//!
//! **Invariant**: what cannot be read is passed over; links in circles end at once, since nothing below two levels of a
//! search path is entered, but for the files of a skill, `SKILL_FOLDER_DEPTH_MAX` levels deep.
//! **Thread**: `skills`, and whoever starts it.
//! **Bounds**: `SKILLS_MAX` skills, `FOLDER_NAMES_MAX` names in a search path, `SKILL_FILES_MAX` files of a skill.
//! Left out on purpose: file system events; many of the file servers that hold skills have none.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::hash::fnv64;
use crate::limits::{FOLDER_NAMES_MAX, SKILL_FILES_MAX, SKILL_FOLDER_DEPTH_MAX, SKILLS_MAX};
use crate::logging::Quoted;
use crate::skills::manifest::{self, Skill};
use crate::skills::shelf::Found;

/// Finds skills below the search paths and remembers what it has read.
#[derive(Debug)]
pub struct Discovery {
    paths: Vec<PathBuf>,
    dcc: String,
    known: HashMap<PathBuf, Known>,
    /// Warnings of the last look, so that a lasting one is told once.
    told: HashSet<String>,
}

#[derive(Clone, Debug)]
struct Known {
    fingerprint: u64,
    skill: Option<Arc<Skill>>,
    problem: Option<String>,
}

impl Discovery {
    pub fn new(paths: Vec<PathBuf>, dcc: &str) -> Discovery {
        Discovery { paths, dcc: dcc.to_lowercase(), known: HashMap::new(), told: HashSet::new() }
    }

    /// All skills for this instance's application, in the order of the search paths, and what to `tell`.
    pub fn look(&mut self) -> (Vec<Found>, Vec<String>) {
        let mut warnings = Vec::new();
        let folders = skill_folders(&self.paths, &mut warnings);
        let mut known = HashMap::new();
        let mut found = Vec::new();
        for folder in folders {
            let now = self.know(&folder);
            if now.skill.as_ref().is_none_or(|skill| is_for(&skill.dcc, &self.dcc)) {
                found.push(Found { folder: folder.clone(), skill: now.skill.clone(), problem: now.problem.clone() });
            }
            known.insert(folder, now);
        }
        self.known = known;
        (found, warnings)
    }

    /// Logs the warnings of one look that the look before did not have.
    pub fn tell(&mut self, warnings: Vec<String>) {
        for warning in &warnings {
            if !self.told.contains(warning) {
                log::warn!("{warning}");
            }
        }
        self.told = warnings.into_iter().collect();
    }

    fn know(&self, folder: &Path) -> Known {
        let fingerprint = fingerprint(folder);
        let before = self.known.get(folder);
        if let Some(before) = before.filter(|before| before.fingerprint == fingerprint) {
            return before.clone();
        }
        match manifest::read(folder) {
            Ok(skill) => {
                for tool in &skill.tools {
                    if let Err(reason) = &tool.script {
                        log::warn!(
                            "skill={} tool={} is left out: {}: {reason}",
                            skill.name,
                            tool.name,
                            tool.declared_at
                        );
                    }
                }
                Known { fingerprint, skill: Some(Arc::new(skill)), problem: None }
            }
            Err(error) => {
                log::warn!("event=skill_skipped reason={}", Quoted(&error));
                let skill = before.and_then(|before| before.skill.clone());
                Known { fingerprint, skill, problem: Some(error.to_string()) }
            }
        }
    }
}

/// Whether a skill for `skill` is shown to an instance of `dcc`.
fn is_for(skill: &str, dcc: &str) -> bool {
    dcc.is_empty() || skill == dcc || skill == "python" || skill == "any"
}

/// The folders with a `SKILL.md`: search paths and what stands directly in them, each once.
fn skill_folders(paths: &[PathBuf], warnings: &mut Vec<String>) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut seen = HashSet::new();
    let is_skill = |folder: &Path| folder.join(manifest::FILE_NAME).is_file();
    for path in paths {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => {
                warnings.push(format!("skill path {} cannot be read: {error}", path.display()));
                continue;
            }
        };
        let below = entries.take(FOLDER_NAMES_MAX).flatten().map(|entry| entry.path());
        let mut below: Vec<PathBuf> = below.filter(|folder| is_skill(folder)).collect();
        below.sort();
        let itself = Some(path.clone()).filter(|path| is_skill(path));
        for folder in itself.into_iter().chain(below) {
            // Two ways to one folder (a path given twice, a link) are one skill.
            if !seen.insert(folder.canonicalize().unwrap_or_else(|_| folder.clone())) {
                continue;
            }
            if folders.len() >= SKILLS_MAX {
                warnings.push(format!("more than {SKILLS_MAX} skills: those after {} are left out", folder.display()));
                return folders;
            }
            folders.push(folder);
        }
    }
    folders
}

/// A hash of the names, sizes and times of a skill's files, those nearest to its folder first.
fn fingerprint(folder: &Path) -> u64 {
    let mut facts = Vec::new();
    let mut waiting = VecDeque::from([(folder.to_owned(), 0)]);
    while let Some((folder, level)) = waiting.pop_front() {
        collect_facts(&folder, level, &mut waiting, &mut facts);
    }
    facts.sort();
    fnv64(facts.concat().as_bytes())
}

/// Adds the files of a folder to `facts`, and the folders in it to those that wait to be looked into.
fn collect_facts(folder: &Path, level: usize, waiting: &mut VecDeque<(PathBuf, usize)>, facts: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().take(SKILL_FILES_MAX) {
        let path = entry.path();
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if facts.len() + waiting.len() >= SKILL_FILES_MAX {
            return;
        }
        if metadata.is_dir() {
            // Running a Python script fills `__pycache__`, which is no change of the skill; nor are `.git` and its like.
            let name = entry.file_name();
            let passed_over = name == "__pycache__" || name.as_encoded_bytes().starts_with(b".");
            // A link deep in a skill may lead in a circle.
            let is_here = level == 0 || entry.file_type().is_ok_and(|kind| kind.is_dir());
            if level < SKILL_FOLDER_DEPTH_MAX && is_here && !passed_over {
                waiting.push_back((path, level + 1));
            }
        } else {
            let (time, nanos) = (metadata.mtime(), metadata.mtime_nsec());
            facts.push(format!("{}\0{}\0{time}\0{nanos}\0{:o}\0", path.display(), metadata.len(), metadata.mode()));
        }
    }
}
