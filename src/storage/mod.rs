//! The books behind a seam in the language of the domain: a batch in, outcomes out, redoable whole.
//!
//! Nothing above this folder knows SQL or which database runs. A store decides nothing about money: it reads a
//! snapshot under its locks, lets `domain` plan, writes the plan, commits, and only then answers.

mod agreed;
pub mod audit;
mod audit_rows;
pub mod backup;
pub mod books;
mod chains;
pub mod charges;
pub mod deciding;
mod decode;
pub mod disputes;
pub mod fence;
pub mod log;
mod log_content;
mod log_writes;
pub mod mysql;
mod near_claim;
mod neighbours;
pub mod noticed;
pub mod open;
mod parked;
mod price_list;
pub mod prices;
pub mod proof;
pub mod pulse;
mod raw_meta;
pub mod refunding;
mod removal;
pub mod repair;
mod rows;
pub mod skew;
pub mod sqlite;
mod stored;
pub mod takeover;
mod task_refunds;
mod views;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::event::{Delivery, UsageEvent};
use crate::domain::money::{QuotaPerUnit, Rate};
use crate::domain::outcome::{RecordOutcome, SettlementOutcome};
use crate::domain::repair::Apart;
use crate::domain::retention::BookTimes;
use crate::domain::settlement::{LedgerPolicy, Purpose};
use crate::domain::time::UnixMillis;
use crate::failpoint::InjectedFault;
use fence::Supervised;
use noticed::Notices;
use takeover::{FoundHistory, TakenOver};

pub use audit::AuditStore;
pub use books::{Books, BooksError};
pub use disputes::Disputes;
pub use log::LogStore;
pub use prices::Prices;

/// Why the books could not be read or written. Whatever it is, the batch was not half done: redo it whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database is out of reach, full, locked or failing: the same batch may succeed later.
    #[error("the database cannot be used now: {0}")]
    Unavailable(String),
    /// The database refused what was written: some event of the batch cannot be stored as it is.
    #[error("the database refused the data: {0}")]
    Refused(String),
    /// Another transaction was in the way: the same batch may be redone at once.
    #[error("another transaction was in the way: {0}")]
    Contended(String),
    /// A unique key is taken: by another transaction just now, or for good. The same batch may be redone at once.
    #[error("what was to be stored is there already: {0}")]
    Taken(String),
    /// The store's queue is full.
    #[error("too many writes are waiting for the database")]
    Overloaded,
    /// The owner of the writing connection failed in the middle; whether it committed is unknown.
    #[error("the writer of the database failed; what it was doing may have been committed")]
    OutcomeUnknown,
    /// Whoever asked was replaced meanwhile, and nothing of it was written.
    #[error("whoever asked for this was replaced meanwhile: nothing of it was written")]
    Replaced,
    /// No look at the rate has been stored yet.
    #[error("no price is known yet: `serve` stores the first at its start")]
    NoPrices,
}

impl From<InjectedFault> for StoreError {
    fn from(fault: InjectedFault) -> Self {
        StoreError::Unavailable(fault.to_string())
    }
}

/// Tells whether an error is the store's own: then the connection is not to be trusted with another transaction.
pub trait AsStoreError {
    fn as_store_error(&self) -> Option<&StoreError>;
}

impl AsStoreError for StoreError {
    fn as_store_error(&self) -> Option<&StoreError> {
        Some(self)
    }
}

impl AsStoreError for BooksError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            BooksError::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// Those events of a batch that one writer settles.
#[derive(Debug, Clone)]
pub struct Part {
    /// Which writer.
    pub lane: usize,
    /// Where the events stood in the batch.
    pub places: Vec<usize>,
    pub events: Vec<Arc<UsageEvent>>,
}

/// What the operator configured, for as long as the database and new-api do not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfiguredPrices {
    pub usd_to_credits: Rate,
    pub quota_per_unit: QuotaPerUnit,
    /// What the books hold stays, since new-api was not heard yet; `quota_per_unit` counts where they hold none.
    pub keeps_quota: bool,
    /// Present where `quota_per_unit` is what new-api itself says.
    pub heard: Option<HeardQuota>,
}

/// When new-api said its quota per unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeardQuota {
    pub at: UnixMillis,
    /// When it last said another, as far as this process knows.
    pub former_at: Option<UnixMillis>,
}

/// What a look at the rate came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceLook {
    /// A new value was stored, to count from this second (of several, the earliest).
    pub changed_from_second: Option<i64>,
    /// The quota per unit before and after, where that is what changed.
    pub quota_change: Option<(QuotaPerUnit, QuotaPerUnit)>,
    /// `options.UsdToCreditsRate` holds this, which is no rate: the last good one holds.
    pub invalid_rate: Option<String>,
    /// The quota per unit changed at a second that nobody has named yet: calls wait for it.
    pub has_holds: bool,
}

/// How many inbox rows wait, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InboxCounts {
    pub pending: i64,
    pub failed: i64,
    pub dead: i64,
    pub oldest_pending_at: Option<UnixMillis>,
    /// Credits that were refused for want of balance, over all users.
    pub unpaid_credits: i64,
    /// Distinct tokens without a key that have waiting events.
    pub parked_tokens: i64,
    /// Disputed events and rows.
    pub disputes_open: i64,
    /// Refunds without a charge.
    pub refunds_open: i64,
}

/// What the database takes of its disk, and what is left there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    /// The database with everything that belongs to it.
    pub size_bytes: u64,
    /// Free space that this user may fill, where that can be known.
    pub free_bytes: Option<u64>,
}

/// A token that several users have, and for which events wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmbiguousToken {
    pub remote_key_id: i64,
    /// Their emails, a few of them, separated by commas.
    pub users: String,
}

/// Why a row is kept as failed although its batch could have been settled without it.
#[derive(Debug, Clone)]
pub struct Poison {
    pub event: Arc<UsageEvent>,
    /// What the database said.
    pub reason: String,
}

/// The writes and looks of the running daemon.
///
/// Every method that writes is one transaction; it answers after the commit is durable. A call's future may be
/// dropped: the work itself is never cancelled.
#[async_trait]
pub trait LedgerStore: Notices + Send + Sync + 'static {
    /// Cuts a batch into parts that are settled each by itself, whatever becomes of the others.
    async fn parts(&self, events: Vec<Arc<UsageEvent>>) -> Vec<Part> {
        vec![Part { lane: 0, places: (0..events.len()).collect(), events }]
    }

    /// Settles events of one part: each is charged, or is stored with the reason why not, or was known. One outcome
    /// each.
    async fn settle(
        &self,
        lane: usize,
        events: Vec<Arc<UsageEvent>>,
        purpose: Purpose,
    ) -> Result<Vec<SettlementOutcome>, StoreError>;

    /// Makes a batch durable without settling it. One outcome each.
    async fn record(&self, deliveries: Vec<Delivery>) -> Result<Vec<RecordOutcome>, StoreError>;

    /// Stores an event that the database refuses to settle as failed, so that the others can go on.
    async fn set_aside(&self, poison: Poison) -> Result<(), StoreError>;

    /// Events to settle now, oldest first, at most `limit`, newer than `after` (an inbox id) where that is given.
    async fn waiting(
        &self,
        kind: Waiting,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<WaitingEvent>, StoreError>;

    /// Unsettled events that a person selected, the dead ones included; in pages as `waiting` answers.
    async fn selected(
        &self,
        selection: Selection,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<WaitingEvent>, StoreError>;

    /// Notes which tokens still have no key.
    async fn look_at_tokens(&self) -> Result<(), StoreError>;

    /// Stores the moment from which we bill, at the first start on a database that others have used; what it found.
    /// `max_age`: how far before it others' usage records still count as charges. Nothing at any later start, and on a
    /// database that is ours alone.
    async fn take_over(&self, _max_age: Duration) -> Result<Option<FoundHistory>, StoreError> {
        Ok(None)
    }

    /// Looks for what others have billed since then, and tells how it stands. Nothing where nobody else writes.
    async fn look_for_others(&self) -> Result<Option<TakenOver>, StoreError> {
        Ok(None)
    }

    /// Looks at the rate in `options` and at the configured values, and dates what changed.
    async fn look_at_prices(&self, configured: ConfiguredPrices) -> Result<PriceLook, StoreError>;

    /// What the books say of time.
    async fn book_times(&self) -> Result<BookTimes, StoreError>;

    /// From now on nothing that was called before this second is charged. Never moves back.
    async fn remember_claims_from(&self, second: i64) -> Result<(), StoreError>;

    /// Clears one page of what is older than `before`, oldest first; how many rows went, and where the next page begins.
    async fn remove_old(
        &self,
        what: OldRows,
        before: UnixMillis,
        page: Page,
    ) -> Result<(u64, Option<PagePlace>), StoreError>;

    /// Goes by this policy from the next batch on.
    fn set_policy(&self, policy: LedgerPolicy);

    async fn inbox_counts(&self) -> Result<InboxCounts, StoreError>;

    /// Asks the file system, not the database: works while that is locked or full.
    async fn disk_usage(&self) -> Result<DiskUsage, StoreError>;

    /// Tokens whose events wait because several users have them, at most `limit`, in their order.
    async fn ambiguous_tokens(&self, limit: usize) -> Result<Vec<AmbiguousToken>, StoreError>;

    /// About when the newest webhook of a call came in: when it was charged, or recorded to wait.
    async fn last_event_at(&self) -> Result<Option<UnixMillis>, StoreError>;

    /// Looks whether our state and the platform's tables belong together; while they don't, nothing is settled. One file
    /// cannot come apart.
    async fn look_whether_apart(&self) -> Result<Option<Apart>, StoreError> {
        Ok(None)
    }

    /// What the last look found: cheap, from memory.
    fn apart(&self) -> Option<Apart> {
        None
    }

    /// Proves that a commit works now.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Whether the last write worked: cheap, from memory.
    fn is_writable(&self) -> bool;

    /// Finishes the writes that wait, and closes.
    async fn close(&self);
}

/// What is cleared when it is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldRows {
    /// Processed rows of `webhook_logs`.
    Processed,
    /// Events whose retries are used up.
    Dead,
    /// The memory of what was charged: only behind the mark before which nothing is charged.
    Claims,
    /// What was noticed of other programs' usage records, by the time when it was.
    ForeignRecords,
    /// What was kept of rows of `webhook_logs` that another program has cleared, whatever their age.
    LogRows,
}

impl OldRows {
    pub const ALL: [OldRows; 5] =
        [OldRows::Processed, OldRows::Dead, OldRows::Claims, OldRows::ForeignRecords, OldRows::LogRows];

    pub fn as_str(self) -> &'static str {
        match self {
            OldRows::Processed => "processed",
            OldRows::Dead => "dead",
            OldRows::Claims => "claims",
            OldRows::ForeignRecords => "foreign_records",
            OldRows::LogRows => "log_rows",
        }
    }
}

/// Where a page ended, in the store's own order.
pub type PagePlace = (String, String);

/// One small step of a long walk.
#[derive(Debug, Clone)]
pub struct Page {
    pub after: Option<PagePlace>,
    pub limit: u32,
}

/// Which stored events are to be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Pending, or failed and due by the clock.
    Due,
    /// Failed for want of one owner of their token, which has one now.
    Woken,
}

/// What a person selects of the unsettled events; what is absent selects all.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub event_id: Option<String>,
    /// Recorded at this time or later.
    pub since: Option<UnixMillis>,
    /// Recorded before this time.
    pub until: Option<UnixMillis>,
}

/// An inbox row that waits.
#[derive(Debug, Clone)]
pub struct WaitingEvent {
    pub inbox_id: String,
    /// Absent if the stored payload is no usage event any more.
    pub event: Option<Arc<UsageEvent>>,
}

/// A whole store: the daemon's side and the operator's.
pub trait Store: LedgerStore + LogStore + Books + Disputes + Prices + AuditStore + Supervised {}
impl<T: LedgerStore + LogStore + Books + Disputes + Prices + AuditStore + Supervised> Store for T {}
