//! The one owner of the writing connection: a thread that takes batches as plain data and answers after the commit.
//!
//! No transaction ever leaves it and nothing it does is cancelled. After an error or a panic the connection is thrown
//! away with whatever it had begun, and the next batch gets a fresh one.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::{self, Progress};
use super::refunds::{self, Reversal};
use super::retention;
use super::task_refunds;
use super::tokens::{self, Seen};
use super::{SqliteOptions, audit, books_write, connect, coverage, prices, record, settle, source_looks};
use crate::clock::SharedClock;
use crate::domain::event::Delivery;
use crate::domain::ids::{RecordIds, RemoteKeyId};
use crate::domain::log_snapshot::NumberedRow;
use crate::domain::outcome::RecordOutcome;
use crate::domain::refund::{RefundOutcome, RefundRequest};
use crate::domain::settlement::{Batch, LedgerPolicy, Plan, Purpose};
use crate::domain::time::UnixMillis;
use crate::storage::audit::{AcceptedDifference, NewAcceptance};
use crate::storage::books::{
    BooksError, Created, Granted, Ignored, NewAdjustment, NewGrant, NewIgnore, NewKey, NewUser,
};
use crate::storage::log::{RefundsSettled, SourceFilter, Span, TaskPlace, Trial, Tried};
use crate::storage::prices::{NewQuotaChange, QuotaChange};
use crate::storage::removal::Removal;
use crate::storage::skew;
use crate::storage::{AsStoreError, ConfiguredPrices, Poison, PriceLook, StoreError};

/// Batches that may wait. The Ledger and the Logger have one each under way; the rest are operators' requests.
const QUEUE: usize = 64;

type Reply<T, E = StoreError> = oneshot::Sender<Result<T, E>>;

/// What the owner is asked to do: plain data and a place for the answer.
pub enum Command {
    Settle(Batch, Purpose, Reply<Plan>),
    Log(LogCommand),
    Record(Vec<Delivery>, Reply<Vec<RecordOutcome>>),
    SetAside(Poison, Reply<()>),
    StorePrices(ConfiguredPrices, Reply<PriceLook>),
    NameQuotaChange(NewQuotaChange, Reply<QuotaChange, BooksError>),
    LookAtTokens(Seen, Reply<()>),
    Refund(Vec<RefundRequest>, bool, Reply<Vec<RefundOutcome>>),
    BeginReversal(Reversal, Reply<Option<UnixMillis>, BooksError>),
    FinishReversal(String, Reply<(), BooksError>),
    Retain(Removal, Reply<u64>),
    AddUser(NewUser, Reply<Created, BooksError>),
    AddKey(NewKey, Reply<Created, BooksError>),
    Grant(NewGrant, Reply<Granted, BooksError>),
    Adjust(NewAdjustment, Reply<Granted, BooksError>),
    IgnoreToken(NewIgnore, Reply<Ignored, BooksError>),
    AcceptDifference(NewAcceptance, Reply<AcceptedDifference>),
    Probe(Reply<()>),
    Close(Reply<()>),
}

/// What whoever reads the log asks beside settlements.
pub enum LogCommand {
    ForgetUnowned(Forgotten, Reply<()>),
    TryRows(Batch, Trial, Reply<Tried>),
    Cover(SourceFilter, Span, UnixMillis, Reply<()>),
    BeginCoverage(SourceFilter, i64, Reply<i64>),
    Reopen(SourceFilter, UnixMillis, Reply<()>),
    SetRowAside(Box<NumberedRow>, String, Reply<()>),
    SetNote(String, String, Reply<()>),
    SettleRefunds(Vec<TaskPlace>, Reply<RefundsSettled>),
}

/// Whose counts of rows that nobody pays for are to go.
pub struct Forgotten {
    pub source: String,
    pub from_second: i64,
    pub until_second: i64,
    pub token: Option<RemoteKeyId>,
}

/// What every write needs beside its connection.
pub struct Context {
    /// Rows of a log were settled here: events look for theirs.
    pub has_log: AtomicBool,
    pub options: SqliteOptions,
    /// Read once a batch: a reload replaces it.
    pub policy: Arc<ArcSwap<LedgerPolicy>>,
    pub clock: SharedClock,
    pub installation: String,
    pub ids: RecordIds,
    pub skew: skew::Noted,
}

/// The way to the owner.
#[derive(Clone)]
pub struct Writer {
    commands: mpsc::Sender<Command>,
    policy: Arc<ArcSwap<LedgerPolicy>>,
    is_writable: Arc<AtomicBool>,
}

impl Writer {
    /// Starts the owner on a thread of its own, so that no busy actor can hold up a commit.
    pub fn start(
        options: SqliteOptions,
        clock: SharedClock,
        installation: String,
        has_log: bool,
    ) -> std::io::Result<Self> {
        let (commands, queue) = mpsc::channel(QUEUE);
        let is_writable = Arc::new(AtomicBool::new(true));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let policy = Arc::new(ArcSwap::from_pointee(options.policy));
        let has_log = AtomicBool::new(has_log);
        let (ids, skew) = (RecordIds::new(), skew::Noted::default());
        let context = Context { has_log, options, policy: policy.clone(), clock, installation, ids, skew };
        let progress = Arc::new(Progress::default());
        let copying = checkpoint::run(context.options.clone(), progress.clone());
        let owner = Owner { context, connection: None, is_writable: is_writable.clone(), progress };
        // A panic in the copying must not end the owner.
        let copying = AssertUnwindSafe(copying).catch_unwind();
        let work = async move {
            let (closing, _) = tokio::join!(owner.run(queue), copying);
            // Only now is no connection left, and with the last one SQLite takes its files beside the database away.
            closing.and_then(|reply| reply.send(Ok(())).ok())
        };
        std::thread::Builder::new().name("ledger-writer".to_owned()).spawn(move || runtime.block_on(work))?;
        Ok(Writer { commands, policy, is_writable })
    }

    /// For the next batch and those after it; the one under way keeps what it began with.
    pub fn set_policy(&self, policy: LedgerPolicy) {
        self.policy.store(Arc::new(policy));
    }

    /// That of the next batch.
    pub fn policy(&self) -> LedgerPolicy {
        **self.policy.load()
    }

    /// Queues a command; refuses at once when too many wait.
    pub fn submit(&self, command: Command) -> Result<(), StoreError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => StoreError::Unavailable("it was closed".to_owned()),
        })
    }

    pub fn is_writable(&self) -> bool {
        self.is_writable.load(Ordering::Acquire) && !self.commands.is_closed()
    }

    /// Lets what waits finish, then closes the connection.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Close(reply)).await.is_ok() {
            answer.await.ok();
        }
    }
}

struct Owner {
    context: Context,
    connection: Option<SqliteConnection>,
    is_writable: Arc<AtomicBool>,
    progress: Arc<Progress>,
}

impl Owner {
    /// Works until it is told to close, and gives back whom to tell.
    async fn run(mut self, mut queue: mpsc::Receiver<Command>) -> Option<Reply<()>> {
        while let Some(command) = queue.recv().await {
            if let Command::Close(reply) = command {
                self.progress.close();
                self.fold_log().await;
                return Some(reply);
            }
            let work = async {
                self.carry_out(command).await;
                self.keep_log_short().await;
            };
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                self.connection = None;
            }
        }
        self.progress.close();
        None
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::Settle(batch, purpose, reply) => {
                self.answer(reply, async |writes, context| settle::settle(writes, context, &batch, purpose).await).await
            }
            Command::Log(command) => self.carry_out_for_the_log(command).await,
            Command::Record(deliveries, reply) => {
                self.answer(reply, async |writes, context| record::record(writes, context, &deliveries).await).await
            }
            Command::SetAside(poison, reply) => {
                self.answer(reply, async |writes, context| record::set_aside(writes, context, &poison).await).await
            }
            Command::NameQuotaChange(change, reply) => {
                self.answer(reply, async |writes, _| prices::name_change(writes, change).await).await
            }
            Command::StorePrices(configured, reply) => {
                self.answer(reply, async |writes, context| prices::store(writes, context, configured).await).await
            }
            Command::LookAtTokens(seen, reply) => {
                self.answer(reply, async |writes, context| tokens::note(writes, context, &seen).await).await
            }
            Command::Refund(requests, is_dry_run, reply) => {
                self.answer(reply, async |writes, context| {
                    refunds::refund(writes, context, &requests, is_dry_run).await
                })
                .await
            }
            Command::Retain(removal, reply) => {
                self.answer(reply, async |writes, _| retention::remove(writes, &removal).await).await
            }
            Command::Probe(reply) => self.answer(reply, async |writes, _| prices::probe(writes).await).await,
            command => self.carry_out_for_an_operator(command).await,
        }
    }

    async fn carry_out_for_the_log(&mut self, command: LogCommand) {
        match command {
            LogCommand::ForgetUnowned(Forgotten { source, from_second, until_second, token }, reply) => {
                self.answer(reply, async |writes, _| {
                    coverage::forget_unowned(writes, &source, from_second, until_second, token).await
                })
                .await
            }
            LogCommand::TryRows(batch, trial, reply) => {
                self.answer(reply, async |writes, context| settle::try_rows(writes, context, &batch, &trial).await)
                    .await
            }
            LogCommand::Cover(of, span, proved_at, reply) => {
                self.answer(reply, async |writes, _| coverage::cover(writes, &of, span, proved_at).await).await
            }
            LogCommand::Reopen(of, before, reply) => {
                self.answer(reply, async |writes, context| {
                    coverage::reopen(writes, &of, before, context.clock.now()).await
                })
                .await
            }
            LogCommand::SetRowAside(row, reason, reply) => {
                self.answer(reply, async |writes, context| {
                    coverage::set_row_aside(writes, context, &row, &reason).await
                })
                .await
            }
            LogCommand::SetNote(name, value, reply) => {
                self.answer(reply, async |writes, _| source_looks::set_note(writes, &name, &value).await).await
            }
            LogCommand::SettleRefunds(places, reply) => {
                self.answer(reply, async |writes, context| task_refunds::settle(writes, context, places).await).await
            }
            LogCommand::BeginCoverage(of, from_second, reply) => {
                self.answer(reply, async |writes, _| coverage::begin(writes, &of, from_second).await).await
            }
        }
    }

    async fn carry_out_for_an_operator(&mut self, command: Command) {
        match command {
            Command::AddUser(user, reply) => {
                self.answer(reply, async |writes, context| books_write::add_user(writes, context, user).await).await
            }
            Command::AddKey(key, reply) => {
                self.answer(reply, async |writes, context| books_write::add_key(writes, context, key).await).await
            }
            Command::Grant(grant, reply) => {
                self.answer(reply, async |writes, context| books_write::grant(writes, context, grant).await).await
            }
            Command::Adjust(adjustment, reply) => {
                self.answer(reply, async |writes, context| books_write::adjust(writes, context, adjustment).await).await
            }
            Command::IgnoreToken(ignore, reply) => {
                self.answer(reply, async |writes, context| tokens::ignore(writes, context, &ignore).await).await
            }
            Command::AcceptDifference(new, reply) => {
                self.answer(reply, async |writes, context| audit::accept(writes, context, &new).await).await
            }
            Command::BeginReversal(reversal, reply) => {
                self.answer(reply, async |writes, context| refunds::begin_reversal(writes, context, &reversal).await)
                    .await
            }
            Command::FinishReversal(key, reply) => {
                self.answer(reply, async |writes, _| refunds::finish_reversal(writes, &key).await).await
            }
            // The others are carried out above.
            _ => {}
        }
    }

    /// Leaves everything in the database file itself, for whoever copies that alone. A program that wrote nothing has
    /// no connection here, and must not disturb a daemon that runs beside it.
    async fn fold_log(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let folded = async {
            checkpoint::fold(&mut connection).await?;
            connection.close().await
        };
        if let Err(error) = folded.await {
            tracing::warn!(%error, "the write-ahead log stays beside the database; the next start reads it");
        }
    }

    async fn keep_log_short(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if checkpoint::after_commit(connection, &self.progress, self.context.options.lock_wait).await.is_err() {
            // The next batch gets a fresh connection, and meets the same trouble if it lasts.
            self.connection = None;
        }
    }

    /// Runs one piece of work; a panic in it costs this connection and this answer, never the owner.
    async fn answer<T, E>(
        &mut self,
        reply: Reply<T, E>,
        work: impl AsyncFnOnce(&mut SqliteConnection, &Context) -> Result<T, E>,
    ) where
        E: From<StoreError> + AsStoreError,
    {
        let connection = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => connect::writer(&self.context.options, false).await,
        };
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(error) => {
                self.is_writable.store(false, Ordering::Release);
                reply.send(Err(StoreError::from(error).into())).ok();
                return;
            }
        };
        let outcome = AssertUnwindSafe(work(&mut connection, &self.context)).catch_unwind().await;
        match outcome {
            Ok(result) => {
                let failed = result.as_ref().err().and_then(AsStoreError::as_store_error);
                let is_broken = matches!(failed, Some(StoreError::Unavailable(_)));
                if is_broken || result.is_ok() {
                    self.is_writable.store(!is_broken, Ordering::Release);
                }
                if failed.is_none() {
                    self.connection = Some(connection);
                }
                reply.send(result).ok();
            }
            // The panic was logged where it happened; the caller learns that the outcome is unknown.
            Err(_panic) => drop(reply),
        }
    }
}
