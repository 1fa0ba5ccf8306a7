//! Decides what one batch of usage events books: pure, from a snapshot read under the ledger's locks.
//!
//! Every store runs this same function between its reads and its writes, so that money is decided in one place.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::accounts::{Account, AccountChange, Transaction};
use super::adoption::ForeignRecords;
use super::decision::{Decision, DecisionOutcome, Subject};
use super::event::{Content, UsageEvent};
use super::ids::{KeyId, RecordId, RecordIds, RemoteKeyId, UserId};
use super::known::KnownEvents;
use super::log_snapshot::{LogSnapshot, NumberedRow, RowOutcome, RowWrite, TaskMark, UnownedRows};
use super::matching::{TieRule, Windows};
use super::money::{Credits, Remainder};
use super::outcome::{InboxStatus, SettlementOutcome};
use super::ownership::{KeyHolder, Owner, TokenHistory};
use super::planner::Planner;
use super::pricing::{ExactPrice, Overdraft, PriceBook, Rounding};
use super::recording::InboxRow;
use super::refund::ChargeKey;
use super::retry::RetryPolicy;
use super::side::{Channel, ConsumptionRow, SideIdentity};
use super::time::UnixMillis;

/// The operator's choices that decide what is booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerPolicy {
    pub rounding: Rounding,
    pub overdraft: Overdraft,
    /// How much older than its key a parked call may be.
    pub key_grace: Duration,
    pub retry: RetryPolicy,
    /// A source is configured: events look for their rows.
    pub reads_log: bool,
    pub windows: Windows,
}

/// Why a batch is settled: it decides which stored events are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The sender delivered them. What failed before is told, not tried.
    Delivery,
    /// Their time has come, or what they waited for has changed.
    Retry,
    /// A person asked for them, the dead ones too.
    Replay { beyond_grace: bool, is_dry_run: bool },
    /// A person had the log read.
    Sync(Leave),
}

/// What a person who has the log read allows beyond what is done by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leave {
    /// Calls that are older than their key by more than the grace, or that the rules list only.
    pub beyond_grace: bool,
    /// Calls of before the platform's books were taken over which it did not bill.
    pub before_takeover: bool,
    pub is_dry_run: bool,
}

impl ClaimSide {
    pub fn of_event(event: &UsageEvent) -> Self {
        let (event_id, request_id) = (event.event_id.clone(), event.request_id.clone());
        let identity = SideIdentity::Event { event_id, request_id, log_id: event.log_id };
        ClaimSide { identity, at: event.content.called_at }
    }
}

impl Plan {
    /// Nobody's books move.
    pub fn moves_nothing(&self) -> bool {
        self.charges.is_empty() && self.accounts.is_empty()
    }
}

impl Charge {
    pub fn key(&self) -> ChargeKey {
        ChargeKey { call_second: self.content.called_at.as_secs(), id: self.id.clone() }
    }
}

impl Purpose {
    /// A person decided about single calls: whatever their age is, they are charged if he says so.
    pub const BY_A_PERSON: Purpose = Purpose::Replay { beyond_grace: true, is_dry_run: false };

    /// Nothing of it is to be committed.
    pub fn is_dry_run(self) -> bool {
        match self {
            Purpose::Replay { is_dry_run, .. } | Purpose::Sync(Leave { is_dry_run, .. }) => is_dry_run,
            Purpose::Delivery | Purpose::Retry => false,
        }
    }

    /// A person saw the sum and said yes to calls of any age.
    pub(super) fn reaches_beyond_grace(self) -> bool {
        match self {
            Purpose::Replay { beyond_grace, .. } | Purpose::Sync(Leave { beyond_grace, .. }) => beyond_grace,
            Purpose::Delivery | Purpose::Retry => false,
        }
    }

    /// Rows of before the platform's books were taken over are charged as well, unless a record of it is theirs.
    pub fn reaches_before_takeover(self) -> bool {
        matches!(self, Purpose::Sync(Leave { before_takeover: true, .. }))
    }

    /// Rows that could not be booked, or that the rules only list.
    pub(super) fn tries_failed_rows(self) -> bool {
        matches!(self, Purpose::Replay { .. } | Purpose::Sync(Leave { beyond_grace: true, .. }))
    }

    pub(super) fn tries(self, status: InboxStatus) -> bool {
        match status {
            InboxStatus::Pending => true,
            InboxStatus::Failed => self != Purpose::Delivery,
            InboxStatus::Dead => matches!(self, Purpose::Replay { .. }),
            InboxStatus::Processed => false,
        }
    }
}

/// What the books said of everything that the batch touches.
#[derive(Debug)]
pub struct Snapshot {
    pub known: KnownEvents,
    /// Tokens that have no entry have no key.
    pub owners: HashMap<RemoteKeyId, Owner>,
    /// Tokens that have no entry were never looked at before.
    pub tokens: HashMap<RemoteKeyId, TokenHistory>,
    pub accounts: HashMap<UserId, Account>,
    /// Users of whom another session holds a row: their events wait, and nobody waits for them.
    pub busy_users: HashSet<UserId>,
    pub prices: PriceBook,
    /// The second from which claims are remembered; none: all are.
    pub memory_from_second: Option<i64>,
    /// Usage records of other programs that may be of these calls.
    pub foreign: ForeignRecords,
    /// What bears on the log's side; none where no log was ever read.
    pub log: Option<LogSnapshot>,
}

/// What to write, and what to tell each caller. A store writes all of it in one transaction, or nothing.
#[derive(Debug, Default)]
pub struct Plan {
    /// One for each event, in their order.
    pub outcomes: Vec<SettlementOutcome>,
    /// One for each row, in their order.
    pub row_outcomes: Vec<RowOutcome>,
    /// One for each decision, in their order.
    pub decisions: Vec<DecisionOutcome>,
    pub inbox: Vec<InboxRow>,
    pub charges: Vec<Charge>,
    /// Calls that another program has billed.
    pub adopted: Vec<Adopted>,
    pub transactions: Vec<Transaction>,
    pub accounts: Vec<AccountChange>,
    /// Each key's newest call in this batch.
    pub key_uses: Vec<(KeyId, UnixMillis)>,
    /// Tokens that no key has, at this look.
    pub unknown_tokens: BTreeSet<RemoteKeyId>,
    /// Tokens that this look is the first to see with this owner, and from when on he counts as such.
    pub new_owners: BTreeMap<RemoteKeyId, (UnixMillis, KeyHolder)>,
    /// Sides of charges that were there before.
    pub ties: Vec<Tie>,
    pub rows: Vec<RowWrite>,
    pub unowned_rows: Vec<UnownedRows>,
    /// Rows among those written that look for their task's charge.
    pub task_rows: Vec<TaskMark>,
    pub corrections: Vec<Correction>,
    /// Calls whose sides stated different prices.
    pub price_differences: u64,
    /// Sides that are disputed from now on.
    pub disputed: u64,
    /// An event was tied by its request id: this source puts them there.
    pub tied_by_request_id: bool,
}

/// A side with its time, as a claim keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimSide {
    pub identity: SideIdentity,
    pub at: UnixMillis,
}

/// The sides that a charge has from now on.
#[derive(Debug, Clone)]
pub struct Tie {
    pub claim: ChargeKey,
    pub event: ClaimSide,
    pub row: ClaimSide,
    pub rule: TieRule,
}

/// A charge whose price turned out to be another: the difference is booked on the same usage record.
#[derive(Debug, Clone)]
pub struct Correction {
    pub claim: ChargeKey,
    pub price: ExactPrice,
    /// What it comes to in all.
    pub credits: Credits,
    pub unpaid: Credits,
}

/// A call that is charged by this batch: a claim and its usage record.
#[derive(Debug, Clone)]
pub struct Charge {
    /// `usage_records.id`, and the claim's.
    pub id: RecordId,
    pub content: Content,
    /// The channel that it was charged for.
    pub channel: Channel,
    pub event: Option<ClaimSide>,
    pub row: Option<ClaimSide>,
    /// Present where it has both sides.
    pub tie: Option<TieRule>,
    pub user_id: UserId,
    pub key_id: KeyId,
    pub price: ExactPrice,
    pub rounding: Rounding,
    /// Whole credits deducted.
    pub credits: Credits,
    /// Whole credits that should have been deducted, and were not.
    pub unpaid: Credits,
    pub remainder_before: Remainder,
    pub remainder_after: Remainder,
}

/// A call that another program has billed: a claim of its usage record, and nothing else.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// As if we had charged what the other program did.
    pub charge: Charge,
    /// The record's own time.
    pub recorded_at: UnixMillis,
}

/// What is to be settled together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub events: Vec<Arc<UsageEvent>>,
    /// Rows of seconds that were read completely.
    pub rows: Vec<NumberedRow>,
    /// Tokens whose waiting sides are looked at again, beside those of the events and rows.
    pub revisited: BTreeSet<RemoteKeyId>,
    /// What a person decided, carried out after the events and rows.
    pub decisions: Vec<Decision>,
    /// Up to this second, included, no side is missing any more: what is still alike there is disputed.
    pub covered_until_second: Option<i64>,
}

impl Batch {
    pub fn of_events(events: Vec<Arc<UsageEvent>>) -> Self {
        Batch { events, ..Batch::default() }
    }

    /// It came from the log, or looks again at what did.
    pub fn has_rows(&self) -> bool {
        !self.rows.is_empty() || !self.revisited.is_empty() || !self.decisions.is_empty()
    }

    /// Every event that it is about.
    pub fn all_events(&self) -> impl Iterator<Item = &Arc<UsageEvent>> {
        let decided = self.decisions.iter().filter_map(|decision| match &decision.subject {
            Subject::Event(event) => Some(event),
            Subject::Row(_) => None,
        });
        self.events.iter().chain(decided)
    }

    /// Every row that it is about.
    pub fn all_rows(&self) -> impl Iterator<Item = &NumberedRow> {
        let decided = self.decisions.iter().filter_map(|decision| match &decision.subject {
            Subject::Row(row) => Some(&**row),
            Subject::Event(_) => None,
        });
        self.rows.iter().chain(decided)
    }

    /// Every token that it touches.
    pub fn tokens(&self) -> BTreeSet<RemoteKeyId> {
        self.calls().map(|(token, _)| token).chain(self.revisited.iter().copied()).collect()
    }

    /// Every call that it may charge.
    pub fn contents(&self) -> impl Iterator<Item = Content> + '_ {
        let events = self.all_events().map(|event| event.content.clone());
        let side = |row: &NumberedRow| ConsumptionRow::parse(row.identity.clone(), &row.row).ok();
        events.chain(self.all_rows().filter_map(side).map(|row| row.content))
    }

    /// Every call that it tells of.
    pub fn calls(&self) -> impl Iterator<Item = (RemoteKeyId, UnixMillis)> + '_ {
        let events = self.all_events().map(|event| (event.content.remote_key_id, event.content.called_at));
        let rows = self.all_rows().map(|row| (row.row.token, UnixMillis::new(row.row.second.saturating_mul(1000))));
        events.chain(rows)
    }
}

/// Plans a batch in its order, so that the deductions of a user keep theirs.
pub fn plan(
    batch: &Batch,
    snapshot: Snapshot,
    policy: LedgerPolicy,
    purpose: Purpose,
    now: UnixMillis,
    ids: &RecordIds,
) -> Plan {
    Planner::new(snapshot, policy, purpose, now, ids).plan(batch)
}

#[cfg(test)]
#[path = "settlement_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "two_channels_books.rs"]
mod two_channels_books;

#[cfg(test)]
#[path = "decision_tests.rs"]
mod decision_tests;

#[cfg(test)]
#[path = "two_channels_tests.rs"]
mod two_channels_tests;
