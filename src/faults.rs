//! Where a test can make a file operation fail: each is announced by `step` before it is done.
//!
//! **Invariant**: outside of unit tests `step` is nothing.
//! **Thread**: a failure is ordered for the thread that orders it, so that tests can run side by side.

#[cfg(not(test))]
pub fn step(_: &'static str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub use orders::{before, step, with_each_failure, with_failure};

#[cfg(test)]
mod orders {
    use std::cell::Cell;
    use std::io::{self, ErrorKind};

    /// What another process does meanwhile, and before which operation.
    type Meanwhile = (&'static str, Box<dyn FnOnce()>);

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
        static BEFORE: Cell<Option<Meanwhile>> = const { Cell::new(None) };
    }

    /// Does something, as another process might, before the next operation of this name on this thread.
    pub fn before(operation: &'static str, action: impl FnOnce() + 'static) {
        BEFORE.set(Some((operation, Box::new(action))));
    }

    /// Runs `body` with the `nth` file operation (from 1) failing; false if there were fewer.
    pub fn with_failure(nth: u32, body: impl FnOnce()) -> bool {
        LEFT.set(Some(nth));
        body();
        LEFT.take().is_none()
    }

    /// Runs `body` with the first file operation failing, then the second, until there are no more; gives their number.
    /// `body` is told which one fails, and makes its part of the world anew.
    pub fn with_each_failure(mut body: impl FnMut(u32, &dyn Fn(&mut dyn FnMut()) -> bool)) -> u32 {
        for nth in 1.. {
            let has_failed = Cell::new(false);
            body(nth, &|part| {
                let failed = with_failure(nth, part);
                has_failed.set(failed);
                failed
            });
            if !has_failed.get() {
                return nth - 1;
            }
        }
        unreachable!("the numbers do not end")
    }

    pub fn step(operation: &'static str) -> io::Result<()> {
        match BEFORE.take() {
            Some((awaited, action)) if awaited == operation => action(),
            other => BEFORE.set(other),
        }
        match LEFT.get() {
            Some(1) => {
                LEFT.set(None);
                Err(io::Error::new(ErrorKind::StorageFull, operation))
            }
            left => {
                LEFT.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}
