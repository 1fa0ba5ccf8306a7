//! The Logger: makes durable what cannot be settled at once, logs what moves no credits, and keeps the counts of the
//! inbox true. It settles nothing.

use std::sync::Arc;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};

use super::Directory;
use super::batching::{Batcher, Reply};
use super::conditions::Condition;
use super::guard::{Guard, Look};
use super::observed::{Counted, Observed};
use super::progress::Wait;
use crate::clock::SharedClock;
use crate::config::{Live, Settings};
use crate::domain::event::Delivery;
use crate::domain::outcome::RecordOutcome;
use crate::failpoint;
use crate::storage::{AmbiguousToken, InboxCounts, Store, StoreError};
use crate::telemetry::metrics;

/// Make this delivery durable and tell what is stored under its id.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Record {
    pub delivery: Delivery,
    pub reply: Reply<RecordOutcome>,
}

/// Count what waits.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CountInbox;

/// Ambiguous tokens that are named; of more it is only said that there are.
const TOKENS_NAMED: usize = 5;

/// What the Logger is made of.
#[derive(Clone)]
pub struct LoggerParts {
    pub store: Arc<dyn Store>,
    pub directory: Arc<Directory>,
    pub clock: SharedClock,
    pub live: Live<Settings>,
    pub observed: Arc<Observed>,
}

pub struct Logger {
    parts: LoggerParts,
    waiting: Batcher<Delivery, RecordOutcome>,
    is_counting: bool,
    guard: Guard,
}

impl Logger {
    pub fn new(mut parts: LoggerParts, guard: Guard) -> Self {
        parts.store = parts.store.fenced(guard.fence());
        let waiting = Batcher::new(parts.directory.logger.capacity());
        Logger { parts, waiting, is_counting: false, guard }
    }

    fn record_next(&mut self, context: &mut Context<Self>) {
        let max_batch = self.parts.live.get().ledger.max_batch;
        let Some((deliveries, replies)) = self.waiting.begin(max_batch) else {
            return;
        };
        let store = self.parts.store.clone();
        let work = async move {
            failpoint::pass("logger.batch.before").await?;
            store.record(deliveries).await
        };
        let done = self.guard.watch(Wait::Database, work).into_actor(self).map(move |outcomes, logger, context| {
            if let Err(error) = &outcomes {
                tracing::error!(%error, events = replies.len(), "a batch could not be recorded; its senders are told to repeat");
            }
            let outcomes = outcomes.and_then(|outcomes| {
                failpoint::hit("logger.reply")?;
                Ok(outcomes)
            });
            match logger.waiting.finish(replies, outcomes) {
                Ok(()) => logger.record_next(context),
                Err(ending) => logger.guard.end(ending, context),
            }
        });
        context.spawn(done);
    }

    fn tell(&self, counts: InboxCounts, tokens: &[AmbiguousToken]) {
        let (observed, now) = (&self.parts.observed, self.parts.clock.now());
        let age = counts.oldest_pending_at.map(|oldest| now.since(oldest)).unwrap_or_default();
        metrics::inbox_counted(&counts, age);
        observed.inbox_counted(Counted { counts, at: now });
        observed.conditions.set(Condition::AmbiguousKey, told_of(tokens), now);
    }
}

/// Names the tokens and their users; nothing where none is ambiguous.
fn told_of(tokens: &[AmbiguousToken]) -> Option<String> {
    if tokens.is_empty() {
        return None;
    }
    let shown = tokens.iter().take(TOKENS_NAMED).map(|token| format!("{} ({})", token.remote_key_id, token.users));
    let shown: Vec<String> = shown.collect();
    let more = if tokens.len() > TOKENS_NAMED { ", and more" } else { "" };
    Some(format!("calls wait uncharged, since several users have their token: {}{more}", shown.join(", ")))
}

impl Actor for Logger {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.parts.directory.logger.capacity());
    }
}

impl Handler<Record> for Logger {
    type Result = ();

    fn handle(&mut self, message: Record, context: &mut Self::Context) {
        self.parts.directory.logger.taken();
        if !self.guard.goes_on(context) {
            return;
        }
        // The reply is dropped with the message, and its caller answers 503.
        if let Err(fault) = failpoint::hit("logger.handle") {
            return self.guard.end(fault.into(), context);
        }
        // A refused push drops the reply: the caller answers 503.
        self.waiting.push(message.delivery, message.reply).ok();
        self.record_next(context);
    }
}

impl Handler<CountInbox> for Logger {
    type Result = ();

    fn handle(&mut self, _: CountInbox, context: &mut Self::Context) {
        self.parts.directory.logger.taken();
        if !self.guard.goes_on(context) || std::mem::replace(&mut self.is_counting, true) {
            return;
        }
        let store = self.parts.store.clone();
        let work = async move { Ok((store.inbox_counts().await?, store.ambiguous_tokens(TOKENS_NAMED + 1).await?)) };
        let seen = self.guard.watch(Wait::Database, work);
        let done = seen.into_actor(self).map(|look: Result<_, StoreError>, logger, _| {
            logger.is_counting = false;
            match look {
                Ok((counts, tokens)) => logger.tell(counts, &tokens),
                Err(error) => tracing::warn!(%error, "the inbox could not be counted; its gauges are old"),
            }
        });
        context.spawn(done);
    }
}

impl Handler<Look> for Logger {
    type Result = ();

    fn handle(&mut self, _: Look, context: &mut Self::Context) {
        self.parts.directory.logger.taken();
        if self.guard.goes_on(context) {
            self.record_next(context);
        }
    }
}
