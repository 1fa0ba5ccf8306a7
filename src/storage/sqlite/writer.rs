//! The one owner of the writing connection: a thread that takes batches as plain data and answers after the commit.
//!
//! No transaction ever leaves it and nothing it does is cancelled. After an error or a panic the connection is thrown
//! away with whatever it had begun, and the next batch gets a fresh one.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::FutureExt;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::{self, Progress};
use super::command::{Command, Forgotten, LogCommand, Reply};
use super::fenced::{self, CurrentFence};
use super::presence::Presence;
use super::{
    SqliteOptions, audit, books_write, connect, coverage, disk_thread, prices, record, refunds, retention, settle,
    source_looks, task_refunds, tokens,
};
use crate::clock::SharedClock;
use crate::domain::ids::RecordIds;
use crate::domain::settlement::LedgerPolicy;
use crate::storage::fence::{Fence, may_write};
use crate::storage::pulse::OwnerPulse;
use crate::storage::skew;
use crate::storage::{AsStoreError, StoreError};

/// Batches that may wait. The Ledger and the Logger have one each under way; the rest are operators' requests.
const QUEUE: usize = 64;

/// A command may wait this often for another program's lock, and no disk that works takes this long for one.
const LOCK_WAITS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(1);

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
    commands: mpsc::Sender<(Command, Option<Fence>)>,
    policy: Arc<ArcSwap<LedgerPolicy>>,
    is_writable: Arc<AtomicBool>,
    /// Around what is submitted here.
    pub(super) fence: Option<Fence>,
    pub(super) pulse: Arc<OwnerPulse>,
    presence: Option<Arc<Presence>>,
}

impl Writer {
    /// Starts the owner on a thread of its own, so that no busy actor can hold up a commit.
    pub fn start(
        options: SqliteOptions,
        clock: SharedClock,
        installation: String,
        has_log: bool,
        presence: Option<Arc<Presence>>,
    ) -> std::io::Result<Self> {
        let (commands, queue) = mpsc::channel(QUEUE);
        let is_writable = Arc::new(AtomicBool::new(true));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let policy = Arc::new(ArcSwap::from_pointee(options.policy));
        let has_log = AtomicBool::new(has_log);
        let (ids, skew) = (RecordIds::new(), skew::Noted::default());
        let context = Context { has_log, options, policy: policy.clone(), clock, installation, ids, skew };
        let progress = Arc::new(Progress::default());
        let copying = checkpoint::run(context.options.clone(), progress.clone(), presence.clone());
        let deadline = PATIENCE.max(context.options.lock_wait * LOCK_WAITS);
        let pulse = Arc::new(OwnerPulse::new("ledger-writer", deadline).with_disk(disk_thread::look));
        let owner = Owner {
            context,
            connection: None,
            fence: Arc::new(ArcSwapOption::empty()),
            pulse: pulse.clone(),
            is_writable: is_writable.clone(),
            progress,
            presence: presence.clone(),
        };
        // A panic in the copying must not end the owner.
        let copying = AssertUnwindSafe(copying).catch_unwind();
        let work = async move {
            let (closing, _) = tokio::join!(owner.run(queue), copying);
            // Only now is no connection left, and with the last one SQLite takes its files beside the database away.
            closing.and_then(|reply| reply.send(Ok(())).ok())
        };
        let thread = pulse.clone();
        let work = move || {
            let _end = thread.until_end();
            runtime.block_on(work)
        };
        std::thread::Builder::new().name("ledger-writer".to_owned()).spawn(work)?;
        Ok(Writer { commands, policy, is_writable, fence: None, pulse, presence })
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
        self.commands.try_send((command, self.fence.clone())).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => StoreError::Unavailable("it was closed".to_owned()),
        })
    }

    pub fn is_writable(&self) -> bool {
        self.is_writable.load(Ordering::Acquire) && !self.commands.is_closed()
    }

    /// Looks whether the files are still those that were opened, also where nobody writes. Asks the file system.
    pub fn look(&self) {
        if !is_there(self.presence.as_deref()) {
            self.is_writable.store(false, Ordering::Release);
        }
    }

    /// Lets what waits finish, then closes the connection.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send((Command::Close(reply), None)).await.is_ok() {
            answer.await.ok();
        }
    }
}

struct Owner {
    context: Context,
    connection: Option<SqliteConnection>,
    fence: CurrentFence,
    pulse: Arc<OwnerPulse>,
    is_writable: Arc<AtomicBool>,
    progress: Arc<Progress>,
    presence: Option<Arc<Presence>>,
}

impl Owner {
    /// Works until it is told to close, and gives back whom to tell.
    async fn run(mut self, mut queue: mpsc::Receiver<(Command, Option<Fence>)>) -> Option<Reply<()>> {
        while let Some((command, fence)) = queue.recv().await {
            if let Command::Close(reply) = command {
                self.pulse.closes();
                self.progress.close();
                self.fold_log().await;
                return Some(reply);
            }
            self.fence.store(fence.map(Arc::new));
            self.pulse.moves();
            let work = async {
                self.carry_out(command).await;
                self.pulse.moves();
                self.keep_log_short().await;
            };
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                self.connection = None;
            }
            self.pulse.rests();
        }
        self.pulse.closes();
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
            LogCommand::Reopen(of, spans, reply) => {
                self.answer(reply, async |writes, _| coverage::reopen(writes, &of, &spans).await).await
            }
            LogCommand::TakeBack(of, after_second, reply) => {
                self.answer(reply, async |writes, _| coverage::take_back(writes, &of, after_second).await).await
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
        if let Some(presence) = &self.presence
            && presence.end().await.is_err()
        {
            // What lies there is left to a person, with the log beside it: a last connection would fold that in.
            return std::mem::forget(self.connection.take());
        }
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
        let Some(connection) = self.connection.as_mut().filter(|_| is_there(self.presence.as_deref())) else {
            return;
        };
        if checkpoint::after_commit(connection, &self.progress, self.context.options.lock_wait).await.is_err() {
            // The next batch gets a fresh connection, and meets the same trouble if it lasts.
            self.connection = None;
        }
    }

    /// Refuses what would be written to a file that is not the ledger any more.
    fn check_presence(&self) -> Result<(), StoreError> {
        let Some(presence) = &self.presence else { return Ok(()) };
        presence.check().map_err(|lost| StoreError::Unavailable(lost.to_string()))
    }

    async fn connected(&mut self) -> Result<SqliteConnection, StoreError> {
        self.check_presence()?;
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = connect::writer(&self.context.options, false, disk_thread::NAME).await?;
        fenced::guard(&mut connection, &self.fence).await?;
        if !self.is_writable.load(Ordering::Acquire) {
            checkpoint::after_failure(&mut connection, self.context.options.lock_wait).await?;
        }
        Ok(connection)
    }

    fn is_asked_by_one_who_lives(&self) -> bool {
        may_write(self.fence.load().as_deref())
    }

    /// Runs one piece of work; a panic in it costs this connection and this answer, never the owner.
    async fn answer<T, E>(
        &mut self,
        reply: Reply<T, E>,
        work: impl AsyncFnOnce(&mut SqliteConnection, &Context) -> Result<T, E>,
    ) where
        E: From<StoreError> + AsStoreError,
    {
        if !self.is_asked_by_one_who_lives() {
            return drop(reply.send(Err(StoreError::Replaced.into())));
        }
        let mut connection = match self.connected().await {
            Ok(connection) => connection,
            Err(error) => {
                self.is_writable.store(false, Ordering::Release);
                reply.send(Err(error.into())).ok();
                return;
            }
        };
        let outcome = AssertUnwindSafe(work(&mut connection, &self.context)).catch_unwind().await;
        match outcome {
            // Its COMMIT was turned into a ROLLBACK, or would have been.
            Ok(Err(_)) if !self.is_asked_by_one_who_lives() => {
                tracing::warn!("what a replaced part of the daemon had asked for was rolled back");
                reply.send(Err(StoreError::Replaced.into())).ok();
            }
            Ok(result) => {
                // Taken away since: what was committed there is not acknowledged.
                let result = result.and_then(|done| Ok(self.check_presence().map(|()| done)?));
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

fn is_there(presence: Option<&Presence>) -> bool {
    presence.is_none_or(|presence| presence.check().is_ok())
}
