//! The process groups of the scripts that run, so that all can be ended when nobody waits for them any more.
//!
//! **Invariant**: a group is listed exactly while its call lasts.
//! **Thread**: any.
//! **Bounds**: `SCRIPTS_RUNNING_MAX`, kept by `run.rs`.

use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal};

/// Ends the process groups of all scripts that run: nobody is left to wait for them.
pub fn end_all() {
    for pid in GROUPS.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().filter_map(Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

/// The groups of the scripts that run. A number leaves with its call, a moment after its child was reaped: too short for
/// the kernel to come round to it again.
static GROUPS: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// That a script runs, for as long as this lives.
pub struct Listed(i32);

impl Listed {
    pub fn new(pid: u32) -> Listed {
        let group = pid.cast_signed();
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).push(group);
        Listed(group)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).retain(|group| *group != self.0);
    }
}
