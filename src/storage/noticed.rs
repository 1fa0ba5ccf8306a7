//! What committed settlements moved and noticed beside their outcomes, counted for whoever tells of it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::accounts::TransactionKind;
use crate::domain::settlement::{Plan, Purpose};

/// Whole credits, whichever way they went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    pub deducted: u64,
    pub refunded: u64,
}

/// Counters of a store, since its process began.
#[derive(Debug, Default)]
pub struct Noticed {
    deducted: AtomicU64,
    refunded: AtomicU64,
    price_differences: AtomicU64,
}

impl Noticed {
    /// A plan was committed.
    pub fn committed(&self, plan: &Plan, purpose: Purpose) {
        if purpose.is_dry_run() {
            return;
        }
        for transaction in &plan.transactions {
            let counter = match transaction.kind {
                TransactionKind::Deduct => &self.deducted,
                TransactionKind::Refund => &self.refunded,
                // No settlement makes these.
                TransactionKind::Recharge | TransactionKind::AdminAdjust => continue,
            };
            counter.fetch_add(transaction.amount.get().unsigned_abs(), Ordering::Relaxed);
        }
        self.price_differences.fetch_add(plan.price_differences, Ordering::Relaxed);
    }

    /// What was moved since this was last asked: each credit is told once, whoever asks.
    pub fn take_moved(&self) -> Moved {
        Moved { deducted: self.deducted.swap(0, Ordering::Relaxed), refunded: self.refunded.swap(0, Ordering::Relaxed) }
    }

    /// Calls whose event and row stated different prices.
    pub fn price_differences(&self) -> u64 {
        self.price_differences.load(Ordering::Relaxed)
    }
}

/// A store that counts what its settlements came to.
pub trait Notices {
    fn noticed(&self) -> &Noticed;
}
