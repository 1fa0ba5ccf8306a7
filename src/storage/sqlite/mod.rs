//! The embedded database: one file, one owner of the writing connection, readers that never wait for it.
//!
//! SQLite admits one writer at a time, so `BEGIN IMMEDIATE` is the lock that a settlement takes first: whatever it
//! reads after that cannot change before it commits. Nothing outside this folder knows that.

mod audit;
mod backup;
mod books_read;
mod books_write;
mod charges;
mod checkpoint;
mod command;
mod connect;
mod coverage;
mod disk;
mod disk_thread;
mod disputes;
mod error;
mod fenced;
mod files;
mod inbox;
mod inspect;
mod lock;
mod log;
mod log_store;
mod looks;
mod marker;
mod migrate;
mod opening;
mod presence;
mod prices;
#[cfg(test)]
mod query_plans;
mod record;
mod refunds;
mod restore;
mod retention;
mod settle;
mod snapshot;
mod source_looks;
mod task_refunds;
mod tokens;
mod write;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqlitePool;
use tokio::sync::oneshot;

use super::agreed::CheckedSpans;
use super::books::{
    Books, BooksError, Created, CreditsView, EventDetail, EventFilter, EventView, Granted, Ignored, KeyBalance,
    KeySelector, KeyView, NewAdjustment, NewGrant, NewIgnore, NewKey, NewUser, TransactionView, UnmatchedToken,
    UserView,
};
use super::charges::{ChargeDetail, ChargeFilter, ChargeSelector, ChargeView};
use super::noticed::Noticed;
use super::removal::Removal;
use super::{
    AmbiguousToken, ConfiguredPrices, DiskUsage, InboxCounts, LedgerStore, OldRows, Page, PagePlace, Poison, PriceLook,
    Selection, StoreError, Waiting, WaitingEvent,
};
use crate::clock::SharedClock;
use crate::domain::event::{Delivery, UsageEvent};
use crate::domain::outcome::{RecordOutcome, SettlementOutcome};
use crate::domain::refund::{ChargeKey, RefundOutcome, RefundRequest};
use crate::domain::retention::BookTimes;
use crate::domain::settlement::{Batch, LedgerPolicy, Purpose};
use crate::domain::time::UnixMillis;
use command::Command;
use refunds::Reversal;
use writer::Writer;

pub use backup::{BackupError, backup};
pub use lock::{DatabaseLock, Holder, Role};
pub use migrate::MigrateError;
pub use restore::{RestoreError, restore};

/// How to open the embedded database.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    pub path: PathBuf,
    /// How long a statement waits for another process's write lock.
    pub lock_wait: Duration,
    pub max_readers: u32,
    /// Holds until `set_policy`.
    pub policy: LedgerPolicy,
}

/// The embedded database, open.
#[derive(Clone)]
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
    /// For the question that each call waits for: no operator's long look holds these up.
    balance_readers: SqlitePool,
    clock: SharedClock,
    path: PathBuf,
    noticed: Arc<Noticed>,
    checked_spans: Arc<CheckedSpans>,
}

/// Makes the folder that the database is to lie in, if it is missing.
pub fn make_folder(options: &SqliteOptions) -> Result<(), MigrateError> {
    migrate::make_folder(options)
}

/// Creates the database if there never was one, and brings its tables up to date.
pub async fn migrate(options: &SqliteOptions, _lock: &DatabaseLock) -> Result<(), MigrateError> {
    migrate::run(options).await
}

/// Whether the database is there and up to date: an error says what else it is.
pub async fn check(options: &SqliteOptions) -> Result<(), MigrateError> {
    migrate::check(options).await.map(drop)
}

impl SqliteStore {
    async fn write<T, E: From<StoreError>>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Command,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        self.writer.submit(command(reply))?;
        answer.await.unwrap_or_else(|_| Err(StoreError::OutcomeUnknown.into()))
    }
}

#[async_trait]
impl LedgerStore for SqliteStore {
    async fn settle(
        &self,
        _lane: usize,
        events: Vec<Arc<UsageEvent>>,
        purpose: Purpose,
    ) -> Result<Vec<SettlementOutcome>, StoreError> {
        let batch = Batch::of_events(events);
        Ok(self.settle_batch(batch, purpose).await?.outcomes)
    }

    async fn record(&self, deliveries: Vec<Delivery>) -> Result<Vec<RecordOutcome>, StoreError> {
        self.write(|reply| Command::Record(deliveries, reply)).await
    }

    async fn set_aside(&self, poison: Poison) -> Result<(), StoreError> {
        self.write(|reply| Command::SetAside(poison, reply)).await
    }

    async fn waiting(
        &self,
        kind: Waiting,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<WaitingEvent>, StoreError> {
        inbox::waiting(&self.readers, kind, after, limit, self.clock.now()).await
    }

    async fn selected(
        &self,
        selection: Selection,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<WaitingEvent>, StoreError> {
        inbox::selected(&self.readers, selection, after, limit).await
    }

    async fn look_at_tokens(&self) -> Result<(), StoreError> {
        let seen = tokens::see(&self.readers, self.clock.now()).await?;
        self.write(|reply| Command::LookAtTokens(seen, reply)).await
    }

    async fn look_at_prices(&self, configured: ConfiguredPrices) -> Result<PriceLook, StoreError> {
        if let Some(look) = prices::look(&self.readers, configured, self.clock.now()).await? {
            return Ok(look);
        }
        self.write(|reply| Command::StorePrices(configured, reply)).await
    }

    async fn book_times(&self) -> Result<BookTimes, StoreError> {
        retention::times(&self.readers).await
    }

    async fn remember_claims_from(&self, second: i64) -> Result<(), StoreError> {
        self.write(|reply| Command::Retain(Removal::Mark(second), reply)).await.map(drop)
    }

    async fn remove_old(
        &self,
        what: OldRows,
        before: UnixMillis,
        page: Page,
    ) -> Result<(u64, Option<PagePlace>), StoreError> {
        let (removal, next) = retention::find(&self.readers, what, before, &page).await?;
        if removal.is_empty() {
            return Ok((0, None));
        }
        Ok((self.write(|reply| Command::Retain(removal, reply)).await?, next))
    }

    fn set_policy(&self, policy: LedgerPolicy) {
        self.writer.set_policy(policy);
    }

    async fn inbox_counts(&self) -> Result<InboxCounts, StoreError> {
        inbox::counts(&self.readers).await
    }

    async fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        let writer = self.writer.clone();
        disk::usage(self.path.clone(), move || writer.look()).await
    }

    async fn ambiguous_tokens(&self, limit: usize) -> Result<Vec<AmbiguousToken>, StoreError> {
        looks::ambiguous_tokens(&self.readers, limit).await
    }

    async fn last_event_at(&self) -> Result<Option<UnixMillis>, StoreError> {
        looks::last_event_at(&self.readers).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.write(Command::Probe).await
    }

    fn is_writable(&self) -> bool {
        self.writer.is_writable()
    }

    /// Folds the write-ahead log into the database as well.
    async fn close(&self) {
        // Readers first: an open one keeps the log from being folded.
        self.readers.close().await;
        self.balance_readers.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl Books for SqliteStore {
    async fn add_user(&self, user: NewUser) -> Result<Created, BooksError> {
        self.write(|reply| Command::AddUser(user, reply)).await
    }

    async fn add_key(&self, key: NewKey) -> Result<Created, BooksError> {
        self.write(|reply| Command::AddKey(key, reply)).await
    }

    async fn grant(&self, grant: NewGrant) -> Result<Granted, BooksError> {
        self.write(|reply| Command::Grant(grant, reply)).await
    }

    async fn adjust(&self, adjustment: NewAdjustment) -> Result<Granted, BooksError> {
        self.write(|reply| Command::Adjust(adjustment, reply)).await
    }

    async fn ignore_token(&self, ignore: NewIgnore) -> Result<Ignored, BooksError> {
        let mut total = 0;
        loop {
            let ignored: Result<Ignored, BooksError> =
                self.write(|reply| Command::IgnoreToken(ignore.clone(), reply)).await;
            let ignored = match ignored {
                // Between two pages somebody gave the token to a user: what was closed until then stays so.
                Err(BooksError::Invalid(_)) if total > 0 => {
                    return Ok(Ignored { remote_id: ignore.remote_id, is_ignored: false, closed_events: total });
                }
                ignored => ignored?,
            };
            total += ignored.closed_events;
            if !ignored.is_full_page() {
                return Ok(Ignored { closed_events: total, ..ignored });
            }
        }
    }

    async fn ignored_tokens(&self, limit: u32) -> Result<Vec<Ignored>, BooksError> {
        Ok(tokens::ignored(&self.readers, limit).await?)
    }

    async fn unmatched_tokens(&self, limit: u32) -> Result<Vec<UnmatchedToken>, BooksError> {
        Ok(tokens::unmatched(&self.readers, limit).await?)
    }

    async fn charges(&self, filter: ChargeFilter, limit: u32) -> Result<Vec<ChargeView>, BooksError> {
        charges::list(&self.readers, filter, limit).await
    }

    async fn charge(&self, selector: ChargeSelector) -> Result<ChargeDetail, BooksError> {
        charges::detail(&self.readers, selector).await
    }

    async fn charge_key(&self, selector: ChargeSelector) -> Result<ChargeKey, BooksError> {
        charges::key(&self.readers, selector).await
    }

    async fn refund(&self, requests: Vec<RefundRequest>, is_dry_run: bool) -> Result<Vec<RefundOutcome>, BooksError> {
        Ok(self.write(|reply| Command::Refund(requests, is_dry_run, reply)).await.map_err(BooksError::from)?)
    }

    async fn begin_reversal(
        &self,
        filter: ChargeFilter,
        reason: Arc<str>,
        idempotency_key: &str,
        is_dry_run: bool,
    ) -> Result<Option<UnixMillis>, BooksError> {
        if is_dry_run {
            return Ok(Some(UnixMillis::MAX));
        }
        let selection = super::rows::parameter(&charges::with_user_id(&self.readers, filter).await?)?;
        let reversal = Reversal { idempotency_key: idempotency_key.to_owned(), selection, reason };
        self.write(|reply| Command::BeginReversal(reversal, reply)).await
    }

    async fn finish_reversal(&self, idempotency_key: &str) -> Result<(), BooksError> {
        let key = idempotency_key.to_owned();
        self.write(|reply| Command::FinishReversal(key, reply)).await
    }

    async fn reversible(
        &self,
        filter: ChargeFilter,
        settled_until: UnixMillis,
        after: Option<ChargeKey>,
        limit: usize,
    ) -> Result<Vec<ChargeKey>, BooksError> {
        charges::reversible(&self.readers, filter, settled_until, after, limit).await
    }

    async fn users(&self, limit: u32) -> Result<Vec<UserView>, BooksError> {
        Ok(books_read::users(&self.readers, limit).await?)
    }

    async fn keys(&self, user: Option<String>, limit: u32) -> Result<Vec<KeyView>, BooksError> {
        books_read::keys(&self.readers, user, limit).await
    }

    async fn credits(&self, user: String) -> Result<CreditsView, BooksError> {
        books_read::credits(&self.readers, user).await
    }

    async fn key_balance(&self, key: KeySelector) -> Result<KeyBalance, BooksError> {
        books_read::key_balance(&self.balance_readers, key).await
    }

    async fn history(&self, user: String, limit: u32) -> Result<Vec<TransactionView>, BooksError> {
        books_read::history(&self.readers, user, limit).await
    }

    async fn events(&self, filter: EventFilter) -> Result<Vec<EventView>, BooksError> {
        Ok(inbox::events(&self.readers, filter).await?)
    }

    async fn event(&self, event_id: String) -> Result<EventDetail, BooksError> {
        inbox::event(&self.readers, event_id).await
    }
}
