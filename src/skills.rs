//! The skills of an instance: found, loaded, shown as tools, run.
//!
//! The parts in reading order: a folder is read (`yaml`, `files`, `document`, `entry`, `manifest`), found again and again
//! (`discover`), put on a shelf with what is loaded (`shelf`), from which the visible tools follow (`set`); agents work on
//! the shelf by tools (`tools`, `search`), and a call runs a script (`arguments`, `run`, `child`, `ending`, `outcome`).
//!
//! **Invariant**: the visible tools are one snapshot, replaced as a whole; a change is told after the new snapshot is in
//! place, in the order of the changes, and only if the tools' text has changed. No lock is held during I/O but the one
//! that orders these announcements, which nobody needs for reading.
//! **Thread**: `skills` looks at the folders; calls run on their callers' threads.
//! **Bounds**: those of the parts; the inbox of `skills` holds `INBOX_MAX` orders, more are one look less.
//! Left out on purpose: prompts and resources of skills.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::deadline::Deadline;
use crate::limits::{INBOX_MAX, SKILLS_SCAN_EVERY};
use crate::mcp::CallToolResult;
use crate::skills::child::{Cancel, Watch};
use crate::skills::discover::Discovery;
use crate::skills::outcome::Outcome;
use crate::skills::run::Interpreters;
use crate::skills::set::{SkillTool, ToolSet};
use crate::skills::shelf::Shelf;
use crate::skills::tools::Request;
use crate::worker::{Work, Worker};

pub mod arguments;
pub mod child;
pub mod discover;
pub mod document;
pub mod ending;
pub mod entry;
pub mod files;
pub mod json;
pub mod manifest;
pub mod outcome;
pub mod run;
pub mod search;
pub mod set;
pub mod shelf;
pub mod tail;
#[cfg(test)]
mod testing;
pub mod tools;
pub mod yaml;

pub struct SkillsConfig {
    /// Searched in this order; of two skills with one name the first counts.
    pub paths: Vec<PathBuf>,
    /// The instance's application; empty: skills for every application are shown.
    pub dcc: String,
    pub load: Load,
    pub call_timeout: Duration,
}

/// Which skills are loaded when they are found, at the start or later.
#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    None,
    All,
    Names(Vec<String>),
}

pub type OnChange = Box<dyn Fn(&ToolSet) + Send + Sync>;

/// The handle of the `skills` thread, and everything that needs no thread.
pub struct Skills {
    shared: Arc<Shared>,
    worker: Worker<Look>,
}

/// The order to look at the folders now.
struct Look;

struct Shared {
    shelf: Mutex<Shelf>,
    tools: Mutex<Arc<ToolSet>>,
    /// Held from making a snapshot to having told of it.
    announce: Mutex<OnChange>,
    call_timeout: Duration,
    interpreters: Interpreters,
}

impl Skills {
    /// Looks at the folders, loads what is to be loaded, and starts the thread that looks again. `on_change` is not
    /// called for the first tools.
    pub fn start(config: SkillsConfig, on_change: OnChange) -> io::Result<Skills> {
        Skills::start_with(config, Interpreters::from_environment(), on_change)
    }

    fn start_with(config: SkillsConfig, interpreters: Interpreters, on_change: OnChange) -> io::Result<Skills> {
        let shared = Arc::new(Shared {
            shelf: Mutex::default(),
            tools: Mutex::default(),
            announce: Mutex::new(Box::new(|_| {})),
            call_timeout: config.call_timeout,
            interpreters,
        });
        let discovery = Discovery::new(config.paths, &config.dcc);
        let mut looker = Looker { discovery, load: config.load, due: BTreeSet::new(), shared: Arc::clone(&shared) };
        looker.look();
        looker.warn_of_names_not_found();
        *lock(&shared.announce) = on_change;
        let worker = Worker::start("skills", INBOX_MAX, looker)?;
        Ok(Skills { shared, worker })
    }

    /// The visible tools now.
    pub fn tools(&self) -> Arc<ToolSet> {
        Arc::clone(&lock(&self.shared.tools))
    }

    /// Calls one of the skill tools (`tools::skill_tools`); `None`: there is no such tool.
    pub fn call_skill_tool(&self, name: &str, arguments: &Map<String, Value>) -> Option<CallToolResult> {
        let request = match tools::read(name, arguments)? {
            Ok(request) => request,
            Err(what) => return Some(CallToolResult::failed(what)),
        };
        let shelf = || lock(&self.shared.shelf);
        Some(match request {
            Request::List { status, dcc } => tools::list(&shelf(), status.as_deref(), dcc.as_deref()),
            Request::Search { query, tags, dcc } => tools::search(&shelf(), query.as_deref(), &tags, dcc.as_deref()),
            Request::About(name) => tools::about(&shelf(), &name, &self.shared.interpreters),
            Request::Change(change) => {
                let answer = tools::change(&mut shelf(), change);
                match answer {
                    Ok(answer) => tools::changed(answer, &self.shared.publish()),
                    Err(what) => CallToolResult::failed(format!("{name}: {what}")),
                }
            }
        })
    }

    /// Why a name is not among the tools, where a skill has such a tool that is not shown now.
    pub fn why_not(&self, name: &str) -> Option<String> {
        tools::not_loaded(&lock(&self.shared.shelf), name)
    }

    /// Runs a tool's script. `arguments` is JSON text of an object; `idle` is called about every `SSE_COMMENT_EVERY`;
    /// the script is ended when `cancel` says so or the peer of `watched` goes away. A tool that asks for more time
    /// than the deadline was made with gets it.
    pub fn call(
        &self,
        tool: &SkillTool,
        arguments: &str,
        deadline: Deadline,
        cancel: &Cancel,
        watched: Option<BorrowedFd<'_>>,
        idle: &mut dyn FnMut(),
    ) -> Outcome {
        let deadline = match tool.timeout {
            Some(timeout) if timeout > deadline.limit() => Deadline::after(timeout),
            _ => deadline,
        };
        run::run(tool, arguments, &self.shared.interpreters, Watch { deadline, cancel, watched, idle })
    }

    /// Looks at the folders soon.
    pub fn rescan(&self) {
        // A full inbox is full of the same order.
        let _ = self.worker.send(Look);
    }

    /// Ends the `skills` thread; tools can still be called.
    pub fn stop(&self) {
        self.worker.stop();
    }
}

impl Shared {
    /// Makes the visible tools anew and tells if they have changed.
    fn publish(&self) -> Arc<ToolSet> {
        let on_change = lock(&self.announce);
        let new = Arc::new(lock(&self.shelf).visible(self.call_timeout));
        let old = std::mem::replace(&mut *lock(&self.tools), Arc::clone(&new));
        if old.encoded() != new.encoded() {
            on_change(&new);
        }
        new
    }
}

/// A lock whose holder panicked is taken all the same: what it guards is replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state of the `skills` thread.
struct Looker {
    discovery: Discovery,
    load: Load,
    /// To be loaded as soon as what they depend on is there.
    due: BTreeSet<String>,
    shared: Arc<Shared>,
}

impl Looker {
    fn look(&mut self) {
        let (found, mut warnings) = self.discovery.look();
        let mut shelf = lock(&self.shared.shelf);
        let readable = |shelf: &Shelf| -> BTreeSet<String> {
            shelf.all().filter(|found| found.skill.is_some()).map(|found| found.name()).collect()
        };
        let before = readable(&shelf);
        warnings.extend(shelf.replace(found));
        let now = readable(&shelf);
        self.due.retain(|name| now.contains(name));
        self.due.extend(now.difference(&before).filter(|name| wants(&self.load, name)).cloned());
        self.due.retain(|name| match shelf.load(std::slice::from_ref(name)) {
            Ok(_) => false,
            Err(what) => {
                warnings.push(format!("skill={name} is not loaded: {what}"));
                true
            }
        });
        drop(shelf);
        self.discovery.tell(warnings);
        self.shared.publish();
    }

    fn warn_of_names_not_found(&self) {
        let Load::Names(names) = &self.load else { return };
        let shelf = lock(&self.shared.shelf);
        for name in names.iter().filter(|name| shelf.get(name).is_none()) {
            log::warn!("skill={name} is to be loaded but not found; it will be when it appears below a skill path");
        }
    }
}

fn wants(load: &Load, name: &str) -> bool {
    match load {
        Load::None => false,
        Load::All => true,
        Load::Names(names) => names.iter().any(|wanted| wanted == name),
    }
}

impl Work for Looker {
    type Message = Look;

    fn receive(&mut self, _: Look) {
        self.look();
    }

    fn tick(&mut self) -> Duration {
        self.look();
        SKILLS_SCAN_EVERY
    }
}
