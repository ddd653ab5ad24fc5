//! When a script is over: the policy of ending a child process, as a table of stage and what is seen.
//!
//! **Invariant**: pure; from every stage a run of turns leads to an end within the sum of the grace times.
//! **Bounds**: `SCRIPT_TERM_GRACE`, `SCRIPT_KILL_GRACE`, `SCRIPT_PIPE_GRACE`.
//! Left out on purpose: signals and pipes themselves (`child.rs`).

use std::time::Instant;

use rustix::process::Signal;

use crate::limits::{SCRIPT_KILL_GRACE, SCRIPT_PIPE_GRACE, SCRIPT_TERM_GRACE};

/// Why a script was ended before it ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    TimedOut,
    TooMuchOutput,
    Cancelled,
    PeerGone,
}

/// How far the end of a child has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Working,
    /// The child is gone, and something that it started holds its output; read on until then.
    Lingering {
        until: Instant,
    },
    Terminating {
        until: Instant,
        why: Why,
    },
    Killed {
        until: Instant,
        why: Why,
    },
}

/// What the loop sees in one turn.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub now: Instant,
    pub has_exited: bool,
    /// Nobody holds the child's output any more.
    pub pipes_closed: bool,
    pub stop: Option<Why>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Stay,
    Go(Stage, Option<Signal>),
    /// The child is gone: end what is left of its group, if anything may be, and give the result.
    Finish {
        kill_group: bool,
        why: Option<Why>,
    },
    /// It cannot even be killed now.
    GiveUp(Why),
}

/// The whole policy of ending a child.
pub fn step(stage: Stage, seen: Seen) -> Step {
    let Seen { now, has_exited, pipes_closed, stop } = seen;
    match stage {
        Stage::Working => match stop {
            Some(why) if has_exited => Step::Finish { kill_group: true, why: Some(why) },
            Some(why) => Step::Go(Stage::Terminating { until: now + SCRIPT_TERM_GRACE, why }, Some(Signal::TERM)),
            None if has_exited && pipes_closed => Step::Finish { kill_group: false, why: None },
            None if has_exited => Step::Go(Stage::Lingering { until: now + SCRIPT_PIPE_GRACE }, None),
            None => Step::Stay,
        },
        Stage::Lingering { until } => match stop {
            Some(Why::TooMuchOutput) => Step::Finish { kill_group: true, why: stop },
            _ if pipes_closed => Step::Finish { kill_group: false, why: None },
            _ if now >= until => Step::Finish { kill_group: true, why: None },
            _ => Step::Stay,
        },
        Stage::Terminating { why, .. } if has_exited && pipes_closed => {
            Step::Finish { kill_group: true, why: Some(why) }
        }
        Stage::Terminating { until, why } if now >= until => {
            Step::Go(Stage::Killed { until: now + SCRIPT_KILL_GRACE, why }, Some(Signal::KILL))
        }
        Stage::Terminating { .. } => Step::Stay,
        Stage::Killed { why, .. } if has_exited => Step::Finish { kill_group: true, why: Some(why) },
        Stage::Killed { until, why } if now >= until => Step::GiveUp(why),
        Stage::Killed { .. } => Step::Stay,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_stage_and_what_is_seen_in_it() {
        let now = Instant::now();
        let later = now + Duration::from_secs(9);
        let why = Why::TimedOut;
        let go = |stage, signal| Step::Go(stage, signal);
        let finish = |kill_group, why| Step::Finish { kill_group, why };
        let lingering = Stage::Lingering { until: later };
        let terminating = Stage::Terminating { until: later, why };
        let killed = Stage::Killed { until: later, why };
        // stage, now, child gone, pipes closed, reason to stop → step
        for (stage, at, has_exited, pipes_closed, stop, expected) in [
            (Stage::Working, now, false, false, None, Step::Stay),
            (Stage::Working, now, false, true, None, Step::Stay),
            (Stage::Working, now, true, true, None, finish(false, None)),
            (Stage::Working, now, true, false, None, go(Stage::Lingering { until: now + SCRIPT_PIPE_GRACE }, None)),
            (
                Stage::Working,
                now,
                false,
                false,
                Some(why),
                go(Stage::Terminating { until: now + SCRIPT_TERM_GRACE, why }, Some(Signal::TERM)),
            ),
            (Stage::Working, now, true, true, Some(why), finish(true, Some(why))),
            (lingering, now, true, false, None, Step::Stay),
            (lingering, now, true, true, None, finish(false, None)),
            (lingering, later, true, false, None, finish(true, None)),
            (lingering, now, true, false, Some(Why::TimedOut), Step::Stay),
            (lingering, now, true, false, Some(Why::TooMuchOutput), finish(true, Some(Why::TooMuchOutput))),
            (terminating, now, false, false, Some(why), Step::Stay),
            (terminating, now, true, false, None, Step::Stay),
            (terminating, now, true, true, None, finish(true, Some(why))),
            (
                terminating,
                later,
                false,
                false,
                None,
                go(Stage::Killed { until: later + SCRIPT_KILL_GRACE, why }, Some(Signal::KILL)),
            ),
            (killed, now, false, false, None, Step::Stay),
            (killed, now, true, false, None, finish(true, Some(why))),
            (killed, later, false, false, None, Step::GiveUp(why)),
        ] {
            let seen = Seen { now: at, has_exited, pipes_closed, stop };
            assert_eq!(step(stage, seen), expected, "{stage:?} {seen:?}");
        }
    }
}
