//! What a script that runs as a task tells and asks: its progress becomes the task's message, its questions wait in the task.
//!
//! **Invariant**: a client is asked only for what it said that it offers.
//! **Thread**: `task-<n>`.
//! Left out on purpose: log messages, which belong to a stream, and a task has none.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use serde::Deserialize;

use crate::endpoint::asking;
use crate::jsonrpc::ErrorObject;
use crate::skills::dialog::{Answer, Dialog};
use crate::tasks::task::{Task, Watcher};

pub struct TaskDialog<'t> {
    task: &'t Task,
    /// Woken by answers, among others.
    watcher: Watcher,
}

#[derive(Deserialize)]
struct Progress {
    message: Option<String>,
}

impl<'t> TaskDialog<'t> {
    pub fn new(task: &'t Task) -> io::Result<TaskDialog<'t>> {
        Ok(TaskDialog { task, watcher: task.watch()? })
    }
}

impl Dialog for TaskDialog<'_> {
    fn idle(&mut self) {
        if Instant::now() >= self.task.expires {
            self.task.cancel();
        }
    }

    fn tell(&mut self, method: &str, params: &str) {
        let progress = || serde_json::from_str::<Progress>(params).ok()?.message;
        if let Some(message) =
            Some(method).filter(|method| *method == "notifications/progress").and_then(|_| progress())
        {
            self.task.tell(&message);
        }
    }

    fn ask(&mut self, _: &str, method: &str, params: &str) -> Result<u64, ErrorObject> {
        asking::check(Some(self.task.client), method, params)?;
        self.task.ask(method, params)
    }

    fn answers(&self) -> Option<BorrowedFd<'_>> {
        Some(self.watcher.changed())
    }

    fn answer(&mut self) -> Option<(u64, Answer)> {
        // Emptied before the look, so that no answer goes unnoticed.
        self.watcher.clear();
        self.task.take_answer()
    }
}
