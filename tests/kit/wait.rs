//! The only place of the tests that waits: everything else polls a condition here, within a bound.

use std::time::{Duration, Instant};

/// Between two looks at a condition.
const STEP: Duration = Duration::from_millis(10);

/// A moment up to which something may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
}

impl Deadline {
    pub fn after(duration: Duration) -> Self {
        Deadline { at: Instant::now() + duration }
    }

    /// What is left; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }
}

/// What has passed since a moment.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    from: Instant,
}

impl Stopwatch {
    pub fn start() -> Self {
        Stopwatch { from: Instant::now() }
    }

    pub fn elapsed(self) -> Duration {
        self.from.elapsed()
    }
}

/// Polls until `probe` finds something; panics with `what` if it has not within `timeout`.
#[track_caller]
pub fn wait_until<T>(what: &str, timeout: Duration, probe: impl FnMut() -> Option<T>) -> T {
    match poll(timeout, probe) {
        Some(found) => found,
        None => panic!("waited {timeout:?} in vain until {what}"),
    }
}

/// Polls until `probe` finds something; nothing if it has not within `timeout`. Looks at least once.
pub fn poll<T>(timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Deadline::after(timeout);
    loop {
        let is_last_look = deadline.has_passed();
        if let Some(found) = probe() {
            return Some(found);
        }
        if is_last_look {
            return None;
        }
        pause(STEP.min(deadline.remaining()));
    }
}

/// Lets time pass where that itself is what the test is about. To wait for something, use [`wait_until`].
#[allow(clippy::disallowed_methods)] // the tests' one sleeper
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
