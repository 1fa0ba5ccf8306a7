//! The Ledger: settles events in batches, each batch in one commit, deductions of one user in their order.
//!
//! It decides nothing about money (`domain::settlement` does) and owns no connection (the store does).

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};

use super::Directory;
use super::batching::{Batcher, Reply};
use super::settling;
use super::supervisor::Guard;
use crate::clock::SharedClock;
use crate::config::RetrySettings;
use crate::domain::event::UsageEvent;
use crate::domain::outcome::SettlementOutcome;
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::storage::{Store, StoreError};

/// Settle this event and tell what became of it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Settle {
    pub event: Arc<UsageEvent>,
    pub reply: Reply<SettlementOutcome>,
}

/// Settle what the inbox holds unsettled. Carries nothing, may come at any time and any number of times.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SettlePending;

/// What the Ledger is made of; the Supervisor makes a fresh one from it.
#[derive(Clone)]
pub struct LedgerParts {
    pub store: Arc<dyn Store>,
    pub directory: Arc<Directory>,
    pub clock: SharedClock,
    pub retry: RetrySettings,
    pub max_batch: usize,
}

pub struct Ledger {
    parts: LedgerParts,
    fresh: Batcher<Arc<UsageEvent>, SettlementOutcome>,
    pending: PendingRounds,
    _guard: Guard,
}

/// Rounds over the pending events: one at a time, with growing pauses while the database fails.
#[derive(Default)]
struct PendingRounds {
    is_under_way: bool,
    failures: u32,
    not_before: Option<UnixMillis>,
}

impl Ledger {
    pub fn new(parts: LedgerParts, guard: Guard) -> Self {
        let fresh = Batcher::new(parts.max_batch, parts.directory.ledger.capacity());
        Ledger { parts, fresh, pending: PendingRounds::default(), _guard: guard }
    }

    fn settle_next(&mut self, context: &mut Context<Self>) {
        let Some((events, replies)) = self.fresh.begin() else {
            return;
        };
        let store = self.parts.store.clone();
        let work = async move {
            failpoint::hit("ledger.batch.before")?;
            settling::settle(store_as_ledger(&store), events).await
        };
        let done = work.into_actor(self).map(move |outcomes, ledger, context| {
            if let Err(error) = &outcomes {
                tracing::error!(%error, events = replies.len(), "a batch could not be settled; its callers keep their events");
            }
            let outcomes = outcomes.and_then(|outcomes| {
                failpoint::hit("ledger.reply")?;
                Ok(outcomes)
            });
            ledger.fresh.finish(replies, outcomes);
            ledger.settle_next(context);
        });
        context.spawn(done);
    }

    fn settle_pending_from(&mut self, after: Option<String>, context: &mut Context<Self>) {
        self.pending.is_under_way = true;
        let (store, limit) = (self.parts.store.clone(), self.parts.max_batch);
        let work = async move { settling::settle_pending(store_as_ledger(&store), after, limit).await };
        let done = work.into_actor(self).map(|next, ledger, context| {
            ledger.pending.is_under_way = false;
            match next {
                Ok(next) => {
                    ledger.pending.failures = 0;
                    ledger.pending.not_before = None;
                    if next.is_some() {
                        ledger.settle_pending_from(next, context);
                    }
                }
                Err(error) => {
                    let pause = back_off(&ledger.parts.retry, ledger.pending.failures);
                    ledger.pending.failures = ledger.pending.failures.saturating_add(1);
                    ledger.pending.not_before = Some(ledger.parts.clock.now().plus(pause));
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "pending events stay pending for now");
                }
            }
        });
        context.spawn(done);
    }
}

/// Doubles with every failure, within the configured bounds.
fn back_off(retry: &RetrySettings, failures: u32) -> Duration {
    let factor = 2u32.saturating_pow(failures.min(16));
    retry.base_delay.saturating_mul(factor).min(retry.max_delay)
}

fn store_as_ledger(store: &Arc<dyn Store>) -> &dyn crate::storage::LedgerStore {
    store.as_ref()
}

impl Actor for Ledger {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.parts.directory.ledger.capacity());
        // What an earlier life left unsettled is settled beside new events.
        self.settle_pending_from(None, context);
    }
}

impl Handler<Settle> for Ledger {
    type Result = ();

    fn handle(&mut self, message: Settle, context: &mut Self::Context) {
        self.parts.directory.ledger.taken();
        if let Err(error) = failpoint::hit("ledger.handle") {
            message.reply.send(Err(StoreError::from(error))).ok();
            return;
        }
        // A refused push drops the reply: the caller sees that, and has the event recorded instead.
        self.fresh.push(message.event, message.reply).ok();
        self.settle_next(context);
    }
}

impl Handler<SettlePending> for Ledger {
    type Result = ();

    fn handle(&mut self, _: SettlePending, context: &mut Self::Context) {
        self.parts.directory.ledger.taken();
        let is_early = self.pending.not_before.is_some_and(|at| self.parts.clock.now() < at);
        if !self.pending.is_under_way && !is_early {
            self.settle_pending_from(None, context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let retry = RetrySettings { base_delay: Duration::from_secs(2), max_delay: Duration::from_secs(60) };
        let pauses: Vec<u64> = (0..8).map(|failures| back_off(&retry, failures).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(back_off(&retry, u32::MAX), Duration::from_secs(60));
    }
}
