//! The Ledger: settles events in batches, each batch in one commit, deductions of one user in their order.
//!
//! It decides nothing about money (`domain::settlement` does) and owns no connection (the store does).

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};

use super::Directory;
use super::batching::{Batcher, Reply};
use super::guard::{Guard, Look};
use super::progress::Wait;
use super::settling::{self, PageEnd};
use crate::clock::SharedClock;
use crate::config::{Live, Settings};
use crate::domain::event::UsageEvent;
use crate::domain::outcome::SettlementOutcome;
use crate::domain::settlement::Purpose;
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::storage::{Store, StoreError, Waiting};

/// Between two tries of events whose users' rows another program holds.
const HELD_PAUSE: Duration = Duration::from_millis(200);

/// Settle this event and tell what became of it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Settle {
    pub event: Arc<UsageEvent>,
    pub reply: Reply<SettlementOutcome>,
}

/// Settle what the inbox holds unsettled. Carries no event, may come at any time and any number of times.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SettleWaiting(pub Waiting);

/// What the Ledger is made of; the Supervisor makes a fresh one from it.
#[derive(Clone)]
pub struct LedgerParts {
    pub store: Arc<dyn Store>,
    pub directory: Arc<Directory>,
    pub clock: SharedClock,
    pub live: Live<Settings>,
}

pub struct Ledger {
    parts: LedgerParts,
    fresh: Batcher<Arc<UsageEvent>, SettlementOutcome>,
    due: Rounds,
    woken: Rounds,
    /// A round is coming for events whose users' rows another program holds.
    tries_held_soon: bool,
    guard: Guard,
}

/// Rounds over stored events of one kind: one at a time, with growing pauses while the database fails.
#[derive(Default)]
struct Rounds {
    is_under_way: bool,
    /// Asked for while one was under way: what changed meanwhile may have been missed.
    is_wanted_again: bool,
    failures: u32,
    not_before: Option<UnixMillis>,
}

impl Ledger {
    pub fn new(mut parts: LedgerParts, guard: Guard) -> Self {
        parts.store = parts.store.fenced(guard.fence());
        let fresh = Batcher::new(parts.directory.ledger.capacity());
        Ledger { parts, fresh, due: Rounds::default(), woken: Rounds::default(), tries_held_soon: false, guard }
    }

    fn settle_next(&mut self, context: &mut Context<Self>) {
        let max_batch = self.parts.live.get().ledger.max_batch;
        let Some((events, replies)) = self.fresh.begin(max_batch) else {
            return;
        };
        let store = self.parts.store.clone();
        let work = async move {
            failpoint::pass("ledger.batch.before").await?;
            settling::settle(store_as_ledger(&store), events, Purpose::Delivery).await
        };
        let done = self.guard.watch(Wait::Database, work).into_actor(self).map(move |outcomes, ledger, context| {
            if let Err(error) = &outcomes {
                tracing::error!(%error, events = replies.len(), "a batch could not be settled; its callers keep their events");
            }
            let outcomes = outcomes.and_then(|outcomes| {
                failpoint::hit("ledger.reply")?;
                Ok(outcomes)
            });
            if outcomes.as_deref().is_ok_and(|outcomes| settling::deferred(outcomes) > 0) {
                ledger.try_held_again_soon(context);
            }
            match ledger.fresh.finish(replies, outcomes) {
                Ok(()) => ledger.settle_next(context),
                Err(ending) => ledger.guard.end(ending, context),
            }
        });
        context.spawn(done);
    }

    fn rounds(&mut self, kind: Waiting) -> &mut Rounds {
        match kind {
            Waiting::Due => &mut self.due,
            Waiting::Woken => &mut self.woken,
        }
    }

    fn begin_round(&mut self, kind: Waiting, context: &mut Context<Self>) {
        let (now, longest) = (self.parts.clock.now(), self.parts.live.get().retry.max_delay);
        let rounds = self.rounds(kind);
        if rounds.is_under_way {
            rounds.is_wanted_again = true;
            return;
        }
        // A clock that was set back must not keep the pause for longer than it was meant.
        let is_early = rounds.not_before.is_some_and(|at| now < at && at.since(now) <= longest);
        if !is_early {
            self.settle_waiting_from(kind, None, context);
        }
    }

    fn settle_waiting_from(&mut self, kind: Waiting, after: Option<String>, context: &mut Context<Self>) {
        let rounds = self.rounds(kind);
        rounds.is_under_way = true;
        let (store, limit) = (self.parts.store.clone(), self.parts.live.get().ledger.max_batch);
        let work = async move { settling::settle_waiting(store_as_ledger(&store), kind, after, limit).await };
        let seen = self.guard.watch(Wait::Database, work);
        let done = seen.into_actor(self).map(move |end, ledger, context| ledger.end_page(kind, end, context));
        context.spawn(done);
    }

    /// Whoever holds a user's rows mostly lets go within moments: that user is not to wait for the next second's look.
    fn try_held_again_soon(&mut self, context: &mut Context<Self>) {
        if !std::mem::replace(&mut self.tries_held_soon, true) {
            context.run_later(HELD_PAUSE, |ledger, context| {
                ledger.tries_held_soon = false;
                ledger.begin_round(Waiting::Due, context);
            });
        }
    }

    fn end_page(&mut self, kind: Waiting, end: Result<PageEnd, StoreError>, context: &mut Context<Self>) {
        let (now, retry) = (self.parts.clock.now(), self.parts.live.get().retry.policy());
        let rounds = self.rounds(kind);
        rounds.is_under_way = false;
        match end {
            Ok(PageEnd { next, has_deferred }) => {
                rounds.failures = 0;
                rounds.not_before = None;
                if next.is_some() || std::mem::take(&mut rounds.is_wanted_again) {
                    self.settle_waiting_from(kind, next, context);
                }
                if has_deferred {
                    self.try_held_again_soon(context);
                }
            }
            Err(error) => {
                let pause = retry.back_off(rounds.failures);
                rounds.failures = rounds.failures.saturating_add(1);
                rounds.not_before = Some(now.plus(pause));
                tracing::warn!(%error, pause_ms = pause.as_millis(), "stored events stay unsettled for now");
            }
        }
    }
}

fn store_as_ledger(store: &Arc<dyn Store>) -> &dyn crate::storage::LedgerStore {
    store.as_ref()
}

impl Actor for Ledger {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.parts.directory.ledger.capacity());
        // What an earlier life left unsettled is settled beside new events.
        self.begin_round(Waiting::Due, context);
        self.begin_round(Waiting::Woken, context);
    }
}

impl Handler<Settle> for Ledger {
    type Result = ();

    fn handle(&mut self, message: Settle, context: &mut Self::Context) {
        self.parts.directory.ledger.taken();
        if !self.guard.goes_on(context) {
            return;
        }
        // The reply is dropped with the message, and its caller takes the other road.
        if let Err(fault) = failpoint::hit("ledger.handle") {
            return self.guard.end(fault.into(), context);
        }
        // A refused push drops the reply: the caller sees that, and has the event recorded instead.
        self.fresh.push(message.event, message.reply).ok();
        self.settle_next(context);
    }
}

impl Handler<SettleWaiting> for Ledger {
    type Result = ();

    fn handle(&mut self, SettleWaiting(kind): SettleWaiting, context: &mut Self::Context) {
        self.parts.directory.ledger.taken();
        if self.guard.goes_on(context) {
            self.begin_round(kind, context);
        }
    }
}

impl Handler<Look> for Ledger {
    type Result = ();

    fn handle(&mut self, _: Look, context: &mut Self::Context) {
        self.parts.directory.ledger.taken();
        if self.guard.goes_on(context) {
            self.settle_next(context);
        }
    }
}
