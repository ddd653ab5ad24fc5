//! What a node does next in the election, as a pure function of what it holds and of what the last thing it did led to.
//!
//! Two things count on one host. The **listener** is the listening TCP socket of the gateway port; the kernel gives the
//! port to one socket alone, but several processes may hold that socket. The **name** is the abstract Unix socket that
//! stands for the right to accept on it; the kernel gives it to one process, and takes it from the dead at once.
//!
//! | holds | what happened | does |
//! |---|---|---|
//! | nothing | due, and follows nobody | asks the owner of the name for the listener |
//! | nothing | due again, or there is nobody to ask, or it has been asked | binds the port |
//! | nothing | the port is in use; it cannot be bound | waits 0.1 s; tells `/readyz`, waits 1 s |
//! | anything | has bound the port | takes the name |
//! | a listener | due, and follows nobody | takes the name |
//! | a listener | has the name | serves |
//! | the own one | the name cannot be had | serves: nobody else has this listener |
//! | one that others may have | another has the name | asks the owner for the listener, and follows it |
//! | the same | has asked; due while it follows | goes on following |
//! | the same | nobody answers for the name | again in a moment: its owner has gone, or is about to listen |
//! | a shared one | the owner is a stranger; there are no such names | lets the listener go, and binds later |
//! | a given one | the same | serves: those who share it let it go |
//!
//! **Invariant**: who accepts has the name, or a listener that nobody else can have. As the kernel gives name and port
//! to one each, no two processes accept on one address.
//! Left out on purpose: doing it (`election.rs`).

use std::time::Duration;

use crate::limits::{BIND_RETRY_EVERY, HANDOVER_GRACE, TURN_EVERY};
use crate::version::Version;

/// What a node holds of the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Nothing,
    /// It bound the port.
    Own,
    /// The service manager gave it the socket; standbys of a process before it may have a duplicate.
    Given,
    /// A gateway gave it a duplicate; others may have one as well.
    Shared,
}

/// A node that does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    pub holds: Holds,
    /// It is connected to the owner of the name and will notice its end.
    pub follows: bool,
}

/// What has happened, or what the last action has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time to try: at the start, after a pause, and when who was followed is gone.
    Due,
    /// The name's owner is of the same user; we follow it and it may give us the listener.
    Joined,
    /// Nobody listens at the name.
    Nobody,
    /// The name is somebody's of another user.
    Stranger,
    Bound,
    InUse,
    /// Another error than "address in use".
    NotBound,
    NameTaken,
    NameInUse,
    /// There are no abstract names here, or this one cannot be asked for.
    NoNames,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to the owner of the name.
    Join,
    Bind,
    TakeName,
    Serve,
    /// Until the one that is followed is gone.
    Follow,
    /// Close the shared listener, then wait.
    LetGo,
    Wait(Pause),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// For things that take microseconds.
    Moment,
    Retry,
    AfterError,
}

/// The next action of a node that does not serve.
pub fn decide(node: Node, event: Event) -> Action {
    match (node.holds, event) {
        (Holds::Nothing, Event::Due) if !node.follows => Action::Join,
        (Holds::Nothing, Event::InUse) => Action::Wait(Pause::Retry),
        (Holds::Nothing, Event::NotBound) => Action::Wait(Pause::AfterError),
        // Even while it follows: an owner of the name that gives nothing must not keep it from a port that is free.
        (Holds::Nothing, _) => Action::Bind,
        (Holds::Shared | Holds::Given, Event::Due | Event::Joined) if node.follows => Action::Follow,
        (_, Event::NameTaken) => Action::Serve,
        (Holds::Own, Event::NameInUse | Event::NoNames) => Action::Serve,
        (Holds::Shared | Holds::Given, Event::NameInUse) => Action::Join,
        (Holds::Shared | Holds::Given, Event::Nobody) => Action::Wait(Pause::Moment),
        (Holds::Shared, Event::Stranger | Event::NoNames) => Action::LetGo,
        (Holds::Given, Event::Stranger | Event::NoNames) => Action::Serve,
        (Holds::Own | Holds::Given | Holds::Shared, _) => Action::TakeName,
    }
}

impl Pause {
    pub fn time(self) -> Duration {
        match self {
            Pause::Moment => Duration::from_millis(2),
            Pause::Retry => BIND_RETRY_EVERY,
            Pause::AfterError => Duration::from_secs(1),
        }
    }
}

/// How long a node stands back when the gateway is gone: not at all, unless it went in favour of a newer version.
pub fn pause_for(favoured: Option<&Version>, own: &Version) -> Duration {
    if favoured.is_some_and(|favoured| own < favoured) { HANDOVER_GRACE } else { Duration::ZERO }
}

/// How long a standby that others come before stands back when the gateway is dead: all at once would take the
/// processors from the one that wins, and from its first answers.
pub fn pause_for_turn(turn: u32) -> Duration {
    TURN_EVERY.saturating_mul(turn).min(BIND_RETRY_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 10] = [
        Event::Due,
        Event::Joined,
        Event::Nobody,
        Event::Stranger,
        Event::Bound,
        Event::InUse,
        Event::NotBound,
        Event::NameTaken,
        Event::NameInUse,
        Event::NoNames,
    ];

    fn check(holds: Holds, follows: bool, event: Event, expected: Action) {
        assert_eq!(decide(Node { holds, follows }, event), expected, "{holds:?} {follows} {event:?}");
    }

    #[test]
    fn without_a_listener_the_port_is_tried_whatever_the_name_says() {
        check(Holds::Nothing, false, Event::Due, Action::Join);
        check(Holds::Nothing, true, Event::Due, Action::Bind);
        for event in [Event::Joined, Event::Nobody, Event::Stranger, Event::NoNames] {
            check(Holds::Nothing, event == Event::Joined, event, Action::Bind);
        }
        check(Holds::Nothing, false, Event::InUse, Action::Wait(Pause::Retry));
        check(Holds::Nothing, true, Event::InUse, Action::Wait(Pause::Retry));
        check(Holds::Nothing, true, Event::NotBound, Action::Wait(Pause::AfterError));
    }

    #[test]
    fn who_has_bound_the_port_serves_with_the_name_or_without() {
        check(Holds::Own, false, Event::Bound, Action::TakeName);
        check(Holds::Own, true, Event::Bound, Action::TakeName);
        check(Holds::Own, false, Event::Due, Action::TakeName);
        for event in [Event::NameTaken, Event::NameInUse, Event::NoNames] {
            check(Holds::Own, false, event, Action::Serve);
        }
    }

    #[test]
    fn who_shares_a_listener_serves_with_the_name_alone() {
        for holds in [Holds::Shared, Holds::Given] {
            check(holds, false, Event::Due, Action::TakeName);
            check(holds, false, Event::NameTaken, Action::Serve);
            check(holds, false, Event::NameInUse, Action::Join);
            check(holds, true, Event::Joined, Action::Follow);
            check(holds, true, Event::Due, Action::Follow);
            check(holds, false, Event::Nobody, Action::Wait(Pause::Moment));
        }
        for event in [Event::Stranger, Event::NoNames] {
            check(Holds::Given, false, event, Action::Serve);
        }
        check(Holds::Shared, false, Event::Stranger, Action::LetGo);
        check(Holds::Shared, false, Event::NoNames, Action::LetGo);
        for follows in [false, true] {
            for event in EVENTS.into_iter().filter(|event| *event != Event::NameTaken) {
                assert_ne!(decide(Node { holds: Holds::Shared, follows }, event), Action::Serve, "{event:?}");
                assert_ne!(decide(Node { holds: Holds::Nothing, follows }, event), Action::Serve, "{event:?}");
            }
        }
    }

    #[test]
    fn standbys_try_one_after_the_other_and_the_last_not_later_than_a_retry() {
        for (turn, pause) in [(0, Duration::ZERO), (1, TURN_EVERY), (2, 2 * TURN_EVERY), (u32::MAX, BIND_RETRY_EVERY)] {
            assert_eq!(pause_for_turn(turn), pause, "{turn}");
        }
    }

    #[test]
    fn only_an_older_one_stands_back() {
        let version = |text: &str| Version::parse(text).expect("a version");
        let own = version("1.2.0");
        assert_eq!(pause_for(None, &own), Duration::ZERO);
        for (favoured, pause) in [
            ("1.1.9", Duration::ZERO),
            ("1.2.0-rc.1", Duration::ZERO),
            ("1.2.0", Duration::ZERO),
            ("1.2.1-rc.1", HANDOVER_GRACE),
            ("2.0.0", HANDOVER_GRACE),
        ] {
            assert_eq!(pause_for(Some(&version(favoured)), &own), pause, "{favoured}");
        }
    }
}
