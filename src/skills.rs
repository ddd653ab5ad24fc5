//! The skills of an instance: found, loaded, shown as tools, run.
//!
//! The parts in reading order: a folder is read (`yaml`, `files`, `document`, `entry`, `prompt_entry`, `resource_entry`,
//! `manifest`), found again and again (`discover`), put on a shelf with what is loaded (`shelf`), from which follows what is
//! offered (`set`, `prompts`, `resources`, `offer`); agents work on the shelf by tools (`tools`, `search`), and a call runs a
//! script (`arguments`, `run`, `child`, `dialog`, `ending`, `outcome`).
//!
//! **Invariant**: what is offered is one snapshot, replaced as a whole; a change is told after the new snapshot is in
//! place, in the order of the changes, and only if a client can see it. No lock is held during I/O but the one
//! that orders these announcements, which nobody needs for reading.
//! **Thread**: `skills` looks at the folders; calls run on their callers' threads.
//! **Bounds**: those of the parts; the inbox of `skills` holds `INBOX_MAX` orders, more are one look less.
//! Left out on purpose: who is told of a change (`app.rs`).

use std::collections::{BTreeSet, HashSet};
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
use crate::skills::dialog::Dialog;
use crate::skills::discover::Discovery;
use crate::skills::offer::Offer;
use crate::skills::outcome::Outcome;
use crate::skills::run::Interpreters;
use crate::skills::set::{SkillTool, ToolSet};
use crate::skills::shelf::Shelf;
use crate::skills::tools::Request;
use crate::worker::{Work, Worker};

pub mod arguments;
pub mod child;
pub mod dialog;
pub mod discover;
pub mod document;
pub mod ending;
pub mod entry;
#[cfg(test)]
mod examples;
pub mod files;
pub mod groups;
pub mod icons;
pub mod listing;
pub mod manifest;
pub mod media;
pub mod offer;
pub mod outcome;
pub mod prompt_entry;
pub mod prompt_script;
pub mod prompts;
pub mod resource_entry;
pub mod resources;
pub mod run;
pub mod search;
pub mod set;
pub mod shelf;
pub mod tail;
pub mod template;
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

pub type OnChange = Box<dyn Fn(&Offer, &Offer) + Send + Sync>;

/// The handle of the `skills` thread, and everything that needs no thread.
pub struct Skills {
    shared: Arc<Shared>,
    worker: Worker<Look>,
}

/// The order to look at the folders now.
struct Look;

struct Shared {
    shelf: Mutex<Shelf>,
    offer: Mutex<Arc<Offer>>,
    /// Held from making a snapshot to having told of it.
    announce: Mutex<OnChange>,
    call_timeout: Duration,
    interpreters: Interpreters,
}

impl Skills {
    /// Looks at the folders, loads what is to be loaded, and starts the thread that looks again. `on_change` is not
    /// called for the first offer.
    pub fn start(config: SkillsConfig, on_change: OnChange) -> io::Result<Skills> {
        Skills::start_with(config, Interpreters::from_environment(), on_change)
    }

    fn start_with(config: SkillsConfig, interpreters: Interpreters, on_change: OnChange) -> io::Result<Skills> {
        let shared = Arc::new(Shared {
            shelf: Mutex::default(),
            offer: Mutex::default(),
            announce: Mutex::new(Box::new(|_, _| {})),
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

    /// What is offered now.
    pub fn offer(&self) -> Arc<Offer> {
        Arc::clone(&lock(&self.shared.offer))
    }

    /// The visible tools now.
    pub fn tools(&self) -> Arc<ToolSet> {
        Arc::clone(&self.offer().tools)
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
                    Ok(answer) => tools::changed(answer, &self.shared.publish().tools),
                    Err(what) => CallToolResult::failed(format!("{name}: {what}")),
                }
            }
        })
    }

    /// Why a name is not among the tools, where a skill has such a tool that is not shown now.
    pub fn why_not(&self, name: &str) -> Option<String> {
        tools::not_loaded(&lock(&self.shared.shelf), name)
    }

    /// Runs a tool's script. `arguments` is JSON text of an object; `dialog` is what the script talks to;
    /// the script is ended when `cancel` says so or the peer of `watched` goes away. A tool that asks for more time
    /// than the deadline was made with gets it.
    pub fn call(
        &self,
        tool: &SkillTool,
        arguments: &str,
        deadline: Deadline,
        cancel: &Cancel,
        watched: Option<BorrowedFd<'_>>,
        dialog: &mut dyn Dialog,
    ) -> Outcome {
        let deadline = match tool.timeout {
            Some(timeout) if timeout > deadline.limit() => Deadline::after(timeout),
            _ => deadline,
        };
        run::run(tool, arguments, &self.shared.interpreters, Watch { deadline, cancel, watched, dialog })
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
    /// Makes the offer anew and tells if it has changed.
    fn publish(&self) -> Arc<Offer> {
        let on_change = lock(&self.announce);
        let new = Arc::new(lock(&self.shelf).visible(self.call_timeout));
        let old = std::mem::replace(&mut *lock(&self.offer), Arc::clone(&new));
        let told: HashSet<&String> = old.left_out().collect();
        new.left_out().filter(|what| !told.contains(what)).for_each(|what| log::warn!("{what}"));
        if !new.is_same(&old) {
            on_change(&old, &new);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use serde_json::json;

    use super::*;
    use crate::skills::arguments::ArgumentRules;
    use crate::skills::set::SKILL_TOOLS;
    use crate::skills::testing::Folder;
    use crate::skills::tools::skill_tools;

    struct Bench {
        skills: Skills,
        changes: Arc<AtomicUsize>,
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            self.skills.stop();
        }
    }

    fn start(folder: &Folder, dcc: &str, load: Load) -> Bench {
        let config = SkillsConfig {
            paths: vec![folder.path().to_owned()],
            dcc: dcc.to_owned(),
            load,
            call_timeout: Duration::from_secs(20),
        };
        let changes = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&changes);
        let on_change = move |_: &Offer, _: &Offer| {
            seen.fetch_add(1, Ordering::SeqCst);
        };
        Bench { skills: Skills::start(config, Box::new(on_change)).expect("a thread can be started"), changes }
    }

    impl Bench {
        fn names(&self) -> Vec<String> {
            self.skills.tools().tools.iter().map(|tool| tool.tool.name.clone()).collect()
        }

        /// Calls a skill tool; its answer fits its output schema.
        fn ask(&self, tool: &str, arguments: Value) -> Value {
            let arguments = arguments.as_object().cloned().unwrap_or_default();
            let result = self.skills.call_skill_tool(tool, &arguments).expect("there is such a tool");
            if result.is_error {
                assert_eq!(result.structured_content, None);
                let crate::mcp::Content::Text { text } = &result.content[0];
                return json!({"failed": text});
            }
            let answer = result.structured_content.expect("a success is structured");
            let tools = skill_tools();
            let definition = tools.iter().find(|definition| definition.name == tool).expect("it is defined");
            let schema = definition.output_schema.as_ref().expect("it has an output schema");
            let object = answer.as_object().expect("the answer is an object");
            assert_eq!(ArgumentRules::of(schema.get()).check(object), Ok(()));
            answer
        }

        fn wait_for(&self, what: impl Fn() -> bool) {
            let started = Instant::now();
            while !what() {
                assert!(started.elapsed() < Duration::from_secs(10), "it did not come");
                self.skills.rescan();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn write_skill(folder: &Folder, name: &str, front: &str) {
        folder.write(&format!("{name}/SKILL.md"), &format!("---\nname: {name}\n{front}\n---\n"));
        folder.write(&format!("{name}/scripts/run.sh"), "echo hello");
    }

    #[test]
    fn the_definitions_are_complete() {
        let tools = skill_tools();
        assert_eq!(tools.len(), 8);
        for tool in tools {
            assert!(tool.title.is_some() && tool.description.is_some() && tool.annotations.is_some(), "{}", tool.name);
            for schema in [Some(&tool.input_schema), tool.output_schema.as_ref()] {
                let schema = schema.expect("both schemas are there").get();
                assert!(schema.starts_with(r#"{"type":"object""#) && !schema.contains('\n'), "{schema}");
            }
        }
    }

    #[test]
    fn without_a_prefix_names_are_bare_and_nobody_elses() {
        assert_eq!(skill_tools().iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), SKILL_TOOLS);
        let folder = Folder::new();
        let own = "prefix: false\ntools: [{name: run}, {name: load_skill}]\nprompts: [{name: ask, template: What?}]";
        write_skill(&folder, "a", own);
        write_skill(&folder, "b", "metadata: {dcc-mcp: {prefix: false}}");
        write_skill(&folder, "c", "prompts: [{name: ask, template: Why?}]");
        let bench = start(&folder, "any", Load::All);
        assert_eq!(bench.names(), ["c__run", "run"]);
        let offer = bench.skills.offer();
        assert_eq!(offer.prompts.list().map(|prompt| prompt.name.as_str()).collect::<Vec<_>>(), ["ask", "c__ask"]);
        assert_eq!(
            offer.left_out().map(String::as_str).collect::<Vec<_>>(),
            [
                "skill=a tool=load_skill is left out: every instance has a tool of this name",
                "skill=b tool=run is left out: the skill a has a tool of the same name",
            ]
        );
        assert_eq!(bench.ask("get_skill_info", json!({"skill_name": "a"}))["tools"][0]["name"], "run");
    }

    #[test]
    fn loading_shows_tools_and_unloading_hides_them() {
        let folder = Folder::new();
        write_skill(&folder, "my-mesh", "tools: [{name: run}, {name: rare, source_file: run.sh, group: more}]");
        write_skill(&folder, "for-maya", "dcc: maya");
        folder.write("broken/SKILL.md", "---\nname: [\n---\n");
        let bench = start(&folder, "blender", Load::None);
        assert_eq!(bench.names(), Vec::<String>::new());
        assert_eq!(&bench.skills.tools().encoded()[..], b"[]");

        let list = bench.ask("list_skills", json!({}));
        assert_eq!(list["total"], 2, "{list}");
        assert_eq!(list["skills"][0]["status"], "error");
        assert!(
            list["skills"][0]["reason"].as_str().is_some_and(|reason| reason.contains("broken/SKILL.md:")),
            "{list}"
        );
        assert_eq!(bench.ask("list_skills", json!({"status": "unloaded"}))["skills"][0]["name"], "my-mesh");
        assert_eq!(bench.ask("search_skills", json!({"query": "rare things"}))["skills"][0]["name"], "my-mesh");
        assert_eq!(bench.ask("find_skills", json!({"tags": ["none"]}))["total"], 0);
        assert!(bench.skills.why_not("run").is_some_and(|why| why.contains("call load_skill")));

        let loaded = bench.ask("load_skill", json!({"skill_name": "my-mesh"}));
        assert_eq!(loaded["newly_loaded"], json!(["my-mesh"]));
        assert_eq!(loaded["registered_tools"], json!(["my_mesh__run"]));
        assert_eq!((bench.names(), bench.changes.load(Ordering::SeqCst)), (vec!["my_mesh__run".to_owned()], 1));
        let again = bench.ask("load_skill", json!({"skill_names": ["my_mesh"]}));
        assert_eq!(again["already_loaded"], json!(["my-mesh"]));
        assert_eq!(bench.changes.load(Ordering::SeqCst), 1, "nothing changed, nothing is told");

        let tools = bench.skills.tools();
        let tool = tools.find("run").expect("the bare name is unique");
        assert_eq!(tool.tool.name, "my_mesh__run");
        let cancel = Cancel::new();
        let outcome =
            bench.skills.call(tool, "{}", Deadline::after(Duration::from_secs(20)), &cancel, None, &mut || {});
        let result: Value = serde_json::from_slice(&outcome.json).expect("a result is JSON");
        assert_eq!(result["structuredContent"], json!({"success": true, "message": "hello"}));

        let active = bench.ask("activate_tool_group", json!({"group": "more"}));
        assert_eq!((&active["changed"], &active["tools"]), (&json!(true), &json!(["my_mesh__rare"])));
        assert_eq!(bench.names(), ["my_mesh__rare", "my_mesh__run"]);
        bench.ask("deactivate_tool_group", json!({"group": "more", "skill_name": "my-mesh"}));
        assert_eq!((bench.names().len(), bench.changes.load(Ordering::SeqCst)), (1, 3));
        assert_eq!(bench.ask("unload_skill", json!({"skill_name": "my-mesh"}))["unloaded"], true);
        assert_eq!((bench.names().len(), bench.changes.load(Ordering::SeqCst)), (0, 4));
    }

    #[test]
    fn wrong_calls_say_what_is_right() {
        let folder = Folder::new();
        write_skill(&folder, "a", "");
        let bench = start(&folder, "", Load::None);
        assert!(bench.skills.call_skill_tool("no_such_tool", &Map::new()).is_none());
        for (tool, arguments, expected) in [
            ("load_skill", json!({}), "load_skill: give skill_name or skill_names"),
            ("load_skill", json!({"skill_name": "b"}), "load_skill: there is no skill \"b\"; search_skills finds"),
            (
                "load_skill",
                json!({"skill_name": 1}),
                "load_skill: the argument \"skill_name\" must be string, not number",
            ),
            (
                "list_skills",
                json!({"status": "new"}),
                "list_skills: the argument \"status\" must be one of \"all\", \"loaded\"",
            ),
            ("search_skills", json!({}), "search_skills: the argument \"query\" (string) is missing"),
            ("get_skill_info", json!({"skill_name": "b"}), "there is no skill \"b\"; list_skills names all"),
            ("unload_skill", json!({"skill_name": " "}), "unload_skill: the argument \"skill_name\" is empty"),
            ("activate_tool_group", json!({"group": "g"}), "activate_tool_group: no loaded skill has a group \"g\""),
        ] {
            let failed = bench.ask(tool, arguments);
            assert!(failed["failed"].as_str().is_some_and(|text| text.starts_with(expected)), "{failed}");
        }
    }

    #[test]
    fn changes_of_folders_are_noticed() {
        let folder = Folder::new();
        write_skill(&folder, "a", "tools: [{name: run}]");
        let bench = start(&folder, "", Load::Names(vec!["a".to_owned(), "late".to_owned()]));
        assert_eq!(bench.names(), ["a__run"]);
        write_skill(&folder, "a", "tools: [{name: run}, {name: new, source_file: run.sh}]");
        bench.wait_for(|| bench.names() == ["a__new", "a__run"]);
        // A mistake made while the skill is in use leaves the last good tools.
        folder.write("a/SKILL.md", "---\nname: a\ntools: 7\n---\n");
        bench.wait_for(|| bench.ask("list_skills", json!({}))["skills"][0]["status"] == "error");
        assert_eq!(bench.names(), ["a__new", "a__run"]);
        write_skill(&folder, "late", "depends: [later]");
        bench.wait_for(|| bench.ask("list_skills", json!({}))["total"] == 2);
        assert_eq!(bench.names(), ["a__new", "a__run"]);
        write_skill(&folder, "later", "tools: []");
        bench.wait_for(|| bench.names() == ["a__new", "a__run", "late__run"]);
        std::fs::remove_dir_all(folder.path().join("a")).expect("it can be removed");
        bench.wait_for(|| bench.names() == ["late__run"]);
        write_skill(&folder, "a", "tools: [{name: run}]");
        bench.wait_for(|| bench.names() == ["a__run", "late__run"]);
    }

    #[test]
    fn prompts_and_resources_come_and_go_with_their_skill() {
        let folder = Folder::new();
        write_skill(&folder, "a", "prompts: [{name: ask, template: Hello}]");
        folder.write("a/resources/deep/er/notes.txt", "one");
        let bench = start(&folder, "", Load::None);
        let lists = || {
            let offer = bench.skills.offer();
            (offer.prompts.list().count(), offer.resources.list().len(), bench.changes.load(Ordering::SeqCst))
        };
        assert_eq!(lists(), (0, 0, 0));
        bench.ask("load_skill", json!({"skill_name": "a"}));
        assert_eq!(lists(), (1, 1, 1));
        let about = bench.ask("get_skill_info", json!({"skill_name": "a"}));
        assert_eq!(about["prompts"][0]["name"], "a__ask");
        assert_eq!(about["resources"][0]["uri"], "skill://a/resources/deep/er/notes.txt");
        assert_eq!(about["resource_templates"], json!([]));
        let before = bench.skills.offer();
        folder.write("a/resources/deep/er/notes.txt", "two!");
        bench.wait_for(|| bench.changes.load(Ordering::SeqCst) == 2);
        assert_eq!(
            bench.skills.offer().resources.changed_since(&before.resources),
            ["skill://a/resources/deep/er/notes.txt"]
        );
        folder.write("a/resources/more.txt", "more");
        bench.wait_for(|| lists() == (1, 2, 3));
        folder.write("a/prompts.yaml", "- {name: not read, template: since the front matter has a list}");
        bench.ask("unload_skill", json!({"skill_name": "a"}));
        assert_eq!(lists(), (0, 0, 4));
    }

    #[test]
    fn everything_about_a_skill_is_told() {
        let folder = Folder::new();
        let front = "license: MIT\nexternal_deps: {bin: [sh, no-such-program], env_var: [{name: NO_SUCH_VARIABLE}]}\npolicy: {x: 1}\ntools: [{name: run, call_examples: [{a: 1}]}, {name: gone, source_file: gone.py}]";
        write_skill(&folder, "a", front);
        let bench = start(&folder, "", Load::All);
        assert_eq!(bench.names(), ["a__run"]);
        let about = bench.ask("get_skill_info", json!({"skill_name": "a"}));
        assert_eq!(about["missing"], json!({"binaries": ["no-such-program"], "variables": ["NO_SUCH_VARIABLE"]}));
        assert_eq!(
            (&about["license"], &about["policy"], &about["status"]),
            (&json!("MIT"), &json!({"x": 1}), &json!("loaded"))
        );
        assert_eq!(about["tools"][0]["call_examples"], json!([{"a": 1}]));
        assert_eq!(about["tools"][1]["problem"], "there is no script \"gone.py\"");
    }

    #[test]
    fn folders_that_lead_in_circles_or_nowhere_do_no_harm() {
        let folder = Folder::new();
        write_skill(&folder, "a", "tools: [{name: run}]");
        for (target, link) in [(".", "a/loop"), ("..", "up"), ("a", "again"), ("nowhere", "lost"), ("itself", "itself")]
        {
            std::os::unix::fs::symlink(target, folder.path().join(link)).expect("a link can be made");
        }
        folder.write("not-a-folder", "");
        let bench = start(&folder, "", Load::All);
        assert_eq!(bench.names(), ["a__run"]);
    }
}
