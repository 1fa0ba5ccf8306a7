//! Keeps a replaced actor from writing: its thread cannot be ended, and may wake long after another took its place.
//!
//! Each life of an actor has an epoch and writes through a store of its own. The owner of the connection asks before it
//! begins a piece of work, and once more before its COMMIT, whether that epoch is still the one that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Store;
use super::pulse::OwnerPulse;

/// The epoch of an actor; each life begins a new one.
#[derive(Debug, Clone, Default)]
pub struct Epoch {
    current: Arc<AtomicU64>,
}

impl Epoch {
    /// Begins the next epoch: whatever was asked for in an earlier one is not committed any more.
    pub fn advance(&self) -> Fence {
        let epoch = self.current.fetch_add(1, Ordering::AcqRel) + 1;
        Fence { current: self.current.clone(), epoch }
    }
}

/// Around what one life of an actor writes.
#[derive(Debug, Clone)]
pub struct Fence {
    current: Arc<AtomicU64>,
    epoch: u64,
}

impl Fence {
    /// Whether the life that has this fence still counts.
    pub fn is_current(&self) -> bool {
        self.current.load(Ordering::Acquire) == self.epoch
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// Whether somebody with this fence, if he has one, may write.
pub fn may_write(fence: Option<&Fence>) -> bool {
    fence.is_none_or(Fence::is_current)
}

/// What supervision needs of a store.
pub trait Supervised {
    /// The same store, for one life of an actor: what it asks for is committed while the fence is current, and else
    /// refused as `StoreError::Replaced`.
    fn fenced(&self, fence: Fence) -> Arc<dyn Store>;

    /// How the owners of the writing connections get on.
    fn pulses(&self) -> Vec<Arc<OwnerPulse>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_life_counts() {
        let epoch = Epoch::default();
        let first = epoch.advance();
        assert!(first.is_current() && may_write(Some(&first)) && may_write(None));
        let second = epoch.advance();
        assert!(!first.is_current() && !may_write(Some(&first)) && second.is_current());
        assert_ne!(first.epoch(), second.epoch());
    }
}
