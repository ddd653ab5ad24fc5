//! The tasks of an instance: calls that run on threads of their own, and whose results are fetched later.
//!
//! **Invariant**: a task is found only by its own id, which cannot be guessed, and by the owner it was begun for. It outlives
//! the connection that began it, not this process.
//! **Thread**: `task-<n>`, one for each that runs; requests about tasks are served by their connections.
//! **Bounds**: `TASKS_RUNNING_MAX`, `TASKS_MAX`, `TASKS_BYTES_MAX`, `TASK_TTL_MAX`; what has expired goes with the next look.
//! Left out on purpose: which call becomes a task (`mcp/tasks.rs`); how a script is run (`skills.rs`).

pub mod dialog;
pub mod serve;
pub mod task;
pub mod view;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::deadline::Deadline;
use crate::jsonrpc::{ErrorObject, INTERNAL_ERROR};
use crate::limits::{
    TASK_FETCH_TIME_MIN, TASK_TTL, TASK_TTL_MAX, TASKS_BYTES_MAX, TASKS_MAX, TASKS_PAGE, TASKS_RUNNING_MAX,
};
use crate::mcp::ClientCapabilities;
use crate::mcp::tasks::Place;
use crate::tasks::task::{Ending, Task};
use crate::worker;

/// All tasks; cheap to share.
#[derive(Clone, Default)]
pub struct TaskTable {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    tasks: Mutex<Tasks>,
    /// A task has ended its run.
    ended: Condvar,
    threads: AtomicU64,
}

#[derive(Default)]
struct Tasks {
    by_id: HashMap<String, Arc<Task>>,
    running: usize,
}

/// Whose task it is to be, and for how long it is kept.
pub struct Wanted<'a> {
    pub owner: &'a str,
    pub client: ClientCapabilities,
    pub ttl: Option<Duration>,
    /// The longest time that it may run.
    pub time_limit: Duration,
    pub tool: &'a str,
    /// It is hidden until its first questions are answered.
    pub is_asking_first: bool,
}

/// A place for one that runs.
struct Running(Arc<Shared>);

impl TaskTable {
    /// Begins a task that is what `run` makes of it.
    pub fn begin(
        &self,
        wanted: &Wanted<'_>,
        run: impl FnOnce(&Arc<Task>) -> Ending + Send + 'static,
    ) -> Result<Arc<Task>, ErrorObject> {
        let failed = |what: &str| ErrorObject::new(INTERNAL_ERROR, format!("no task can be begun: {what}"));
        let task = Arc::new(Task::new(wanted, ttl(wanted)));
        let mut tasks = self.lock();
        tasks.make_room(Instant::now());
        if tasks.running >= TASKS_RUNNING_MAX {
            return Err(failed(&format!("{TASKS_RUNNING_MAX} run already; try again when some have ended")));
        }
        if tasks.by_id.len() >= TASKS_MAX || tasks.bytes() > TASKS_BYTES_MAX {
            return Err(failed("too many results wait to be fetched"));
        }
        tasks.running += 1;
        tasks.by_id.insert(task.id.clone(), Arc::clone(&task));
        drop(tasks);
        let running = Running(Arc::clone(&self.shared));
        let number = self.shared.threads.fetch_add(1, Ordering::Relaxed);
        let same = Arc::clone(&task);
        let spawned = worker::spawn(&format!("task-{number}"), move || {
            same.end(run(&same));
            drop(running);
        });
        match spawned {
            Ok(_) => Ok(task),
            Err(error) => {
                self.lock().by_id.remove(&task.id);
                Err(failed(&error.to_string()))
            }
        }
    }

    pub fn find(&self, owner: &str, id: &str) -> Option<Arc<Task>> {
        let mut tasks = self.lock();
        tasks.expire(Instant::now());
        tasks.by_id.get(id).filter(|task| task.is_of(owner)).cloned()
    }

    /// One that its client does not know as a task yet, by its id, which is the state of the call.
    pub fn find_asking(&self, id: &str, tool: &str) -> Option<Arc<Task>> {
        let mut tasks = self.lock();
        tasks.expire(Instant::now());
        tasks.by_id.get(id).filter(|task| task.is_asking_first.load(Ordering::Acquire) && task.tool == tool).cloned()
    }

    /// Nobody will ask for it.
    pub fn forget(&self, task: &Task) {
        self.lock().by_id.remove(&task.id);
    }

    /// An owner's tasks that come after the place in the order of the list, the newest first; and whether there are more.
    pub fn page(&self, owner: &str, after: Option<&Place>) -> (Vec<Arc<Task>>, bool) {
        let mut tasks = self.lock();
        tasks.expire(Instant::now());
        let is_later = |task: &&Arc<Task>| after.is_none_or(|place| place_of(task) < *place);
        let mut own: Vec<Arc<Task>> =
            tasks.by_id.values().filter(|task| task.is_of(owner)).filter(is_later).cloned().collect();
        drop(tasks);
        own.sort_by_cached_key(|task| std::cmp::Reverse(place_of(task)));
        let has_more = own.len() > TASKS_PAGE;
        own.truncate(TASKS_PAGE);
        (own, has_more)
    }

    /// Waits until no task runs any more; false where some still do.
    pub fn drain(&self, deadline: Deadline) -> bool {
        let is_busy = |tasks: &mut Tasks| tasks.running > 0;
        let waited = self.shared.ended.wait_timeout_while(self.lock(), deadline.left(), is_busy);
        waited.unwrap_or_else(PoisonError::into_inner).0.running == 0
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place_of(task: &Task) -> Place {
    (view::time(task.created), task.id.clone())
}

/// What its client asks for; but no result is forgotten before it could be fetched.
fn ttl(wanted: &Wanted<'_>) -> Duration {
    let at_least = wanted.time_limit.saturating_add(TASK_FETCH_TIME_MIN);
    let usual = wanted.time_limit.saturating_add(TASK_TTL);
    wanted.ttl.unwrap_or(usual).max(at_least).min(TASK_TTL_MAX)
}

impl Tasks {
    /// Forgets what has had its time; what still runs then is ended.
    fn expire(&mut self, now: Instant) {
        self.by_id.retain(|_, task| {
            let stays = now < task.expires;
            if !stays {
                task.cancel();
            }
            stays
        });
    }

    /// The same, and for want of room what was fetched already, the oldest first.
    fn make_room(&mut self, now: Instant) {
        self.expire(now);
        let (mut count, mut bytes) = (self.by_id.len(), self.bytes());
        let mut fetched: Vec<Arc<Task>> = self.by_id.values().filter(|task| task.was_fetched()).cloned().collect();
        fetched.sort_by_key(|task| task.expires);
        for task in fetched {
            if count < TASKS_MAX && bytes <= TASKS_BYTES_MAX {
                return;
            }
            (count, bytes) = (count - 1, bytes - task.result_bytes());
            self.by_id.remove(&task.id);
        }
    }

    fn bytes(&self) -> usize {
        self.by_id.values().map(|task| task.result_bytes()).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).running -= 1;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(owner: &str) -> Wanted<'_> {
        let time_limit = Duration::from_secs(120);
        Wanted {
            owner,
            client: ClientCapabilities::default(),
            ttl: None,
            time_limit,
            tool: "t",
            is_asking_first: false,
        }
    }

    fn result(bytes: usize) -> Ending {
        Ending::Result { json: vec![b'x'; bytes], is_error: false, protocol_error: None }
    }

    fn begin(table: &TaskTable, owner: &str) -> Arc<Task> {
        let task = table.begin(&wanted(owner), |_| result(10)).expect("there is room");
        assert!(table.drain(Deadline::after(Duration::from_secs(5))));
        task
    }

    #[test]
    fn a_task_is_its_owners_alone() {
        let table = TaskTable::default();
        let (one, two) = (begin(&table, "one"), begin(&table, "two"));
        assert!(table.find("one", &one.id).is_some() && table.find("two", &two.id).is_some());
        assert!(table.find("two", &one.id).is_none() && table.find("", &one.id).is_none());
        let ids = |owner: &str| table.page(owner, None).0.iter().map(|task| task.id.clone()).collect::<Vec<_>>();
        assert_eq!((ids("one"), ids("two"), ids("")), (vec![one.id.clone()], vec![two.id.clone()], vec![]));
    }

    #[test]
    fn lists_have_pages() {
        let table = TaskTable::default();
        let mut all: Vec<Place> = (0..TASKS_PAGE + 3).map(|_| place_of(&begin(&table, "me"))).collect();
        all.sort_by(|left, right| right.cmp(left));
        let (first, has_more) = table.page("me", None);
        assert_eq!((first.len(), has_more), (TASKS_PAGE, true));
        let last = place_of(&first[TASKS_PAGE - 1]);
        let (second, has_more) = table.page("me", Some(&last));
        let seen: Vec<Place> = first.iter().chain(&second).map(|task| place_of(task)).collect();
        assert_eq!((seen, has_more), (all, false));
    }

    #[test]
    fn there_is_an_end_to_it() {
        let table = TaskTable::default();
        let (go, wait) = crossbeam_channel::bounded::<()>(0);
        for _ in 0..TASKS_RUNNING_MAX {
            let wait = wait.clone();
            let run = move |_: &Arc<Task>| {
                let _ = wait.recv();
                result(1)
            };
            table.begin(&wanted(""), run).expect("there is room");
        }
        assert!(table.begin(&wanted(""), |_| result(1)).is_err());
        assert!(!table.drain(Deadline::after(Duration::from_millis(1))));
        drop(go);
        assert!(table.drain(Deadline::after(Duration::from_secs(5))));
        for _ in 0..5 {
            let _ = table.begin(&wanted(""), |_| result(TASKS_BYTES_MAX / 2));
            assert!(table.drain(Deadline::after(Duration::from_secs(5))));
        }
        assert!(table.begin(&wanted(""), |_| result(1)).is_err(), "nothing of it was fetched");
        let (tasks, _) = table.page("", None);
        tasks.iter().for_each(|task| task.note_fetched());
        assert!(table.begin(&wanted(""), |_| result(1)).is_ok(), "what was fetched makes room");
    }

    #[test]
    fn how_long_a_task_is_kept() {
        let of = |ttl: Option<u64>| self::ttl(&Wanted { ttl: ttl.map(Duration::from_millis), ..wanted("") });
        assert_eq!(of(None), Duration::from_secs(120) + TASK_TTL);
        assert_eq!(of(Some(0)), Duration::from_secs(120) + TASK_FETCH_TIME_MIN);
        assert_eq!(of(Some(1_234_567)), Duration::from_millis(1_234_567));
        assert_eq!(of(Some(u64::MAX)), TASK_TTL_MAX);
    }

    #[test]
    fn what_has_had_its_time_is_forgotten_and_ended() {
        let table = TaskTable::default();
        let (go, wait) = crossbeam_channel::bounded::<()>(0);
        let run = move |_: &Arc<Task>| {
            let _ = wait.recv();
            result(1)
        };
        let task = table.begin(&wanted(""), run).expect("there is room");
        table.lock().expire(task.expires - Duration::from_millis(1));
        assert!(table.find("", &task.id).is_some() && !task.is_cancelled());
        table.lock().expire(task.expires);
        assert!(table.find("", &task.id).is_none() && task.is_cancelled());
        drop(go);
    }
}
