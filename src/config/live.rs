//! A value in force: read anew for each piece of work, replaced whole by a reload.
//!
//! Whoever begins something with one value goes on with it; what begins later gets the next.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Shared by everybody who goes by the value. Clones share it.
pub struct Live<T> {
    current: Arc<ArcSwap<T>>,
}

impl<T> Live<T> {
    pub fn new(value: T) -> Self {
        Live { current: Arc::new(ArcSwap::from_pointee(value)) }
    }

    /// The value that is in force now. Never waits.
    pub fn get(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Puts another value in force.
    pub fn replace(&self, value: T) {
        self.current.store(Arc::new(value));
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Live { current: self.current.clone() }
    }
}

impl<T> fmt::Debug for Live<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Live")
    }
}
