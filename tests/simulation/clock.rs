//! The clock that the production steps are handed: it shows what the scenario says.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use hookledger::clock::Clock;
use hookledger::domain::time::UnixMillis;

/// Ours, which may be wrong; the gateway has its own.
#[derive(Debug, Clone, Default)]
pub struct SimClock(Arc<AtomicI64>);

impl SimClock {
    pub fn show_millis(&self, millis: i64) {
        self.0.store(millis, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> UnixMillis {
        UnixMillis::new(self.0.load(Ordering::SeqCst))
    }
}
