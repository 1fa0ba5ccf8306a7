//! What the books say of the log's side of a batch: neighbours among which its sides find their partners.

use std::collections::HashMap;
use std::sync::Arc;

use super::ids::{EventId, KeyId, RemoteKeyId, UserId};
use super::known::OpenEvent;
use super::log_row::{LogRow, RowIdentity, RowKind};
use super::matching::{MatchPolicy, Neighbours, Place, Standing};
use super::money::{Credits, QuotaUnits};
use super::pricing::{ExactPrice, Rounding};
use super::refund::ChargeKey;
use super::settlement::Charge;
use super::side::Side;
use super::side::SideIdentity;
use super::time::UnixMillis;

/// What became of a row that was read. Rows of tokens without a key have no state: they are counted by second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowState {
    /// It was the first to tell of its call.
    Charged,
    /// Its event was charged before.
    Tied,
    /// An alike event is charged: it is one call told differently, or two.
    Waiting,
    /// Nothing told which: a person decides, or its true partner.
    Disputed,
    /// A person said that it is no call of its own.
    Dismissed,
    /// Several users have its token.
    Ambiguous,
    /// new-api's quota per unit changed about its second: a person has to name the second.
    Held,
    /// It gives back what no charge is found for.
    RefundOpen,
    Refunded,
    /// From before the platform's books were taken over, and no record of theirs is it: nothing is charged.
    BeforeTakeover,
    /// The books cannot hold it.
    Failed,
}

impl RowState {
    pub const ALL: [RowState; 11] = [
        RowState::Charged,
        RowState::Tied,
        RowState::Waiting,
        RowState::Disputed,
        RowState::Dismissed,
        RowState::Ambiguous,
        RowState::Held,
        RowState::RefundOpen,
        RowState::Refunded,
        RowState::BeforeTakeover,
        RowState::Failed,
    ];

    /// The names of `hookledger_rows.state`.
    pub fn as_str(self) -> &'static str {
        match self {
            RowState::Charged => "charged",
            RowState::Tied => "tied",
            RowState::Waiting => "waiting",
            RowState::Disputed => "disputed",
            RowState::Dismissed => "dismissed",
            RowState::Ambiguous => "ambiguous",
            RowState::Held => "held",
            RowState::RefundOpen => "refund_open",
            RowState::Refunded => "refunded",
            RowState::BeforeTakeover => "before_takeover",
            RowState::Failed => "failed",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        RowState::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// It is kept whole, because it may still be charged or given back.
    pub fn is_open(self) -> bool {
        matches!(
            self,
            RowState::Waiting
                | RowState::Disputed
                | RowState::Ambiguous
                | RowState::Held
                | RowState::RefundOpen
                | RowState::Failed
        )
    }
}

/// A row, and which of the equal rows of its second it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedRow {
    pub identity: RowIdentity,
    pub row: LogRow,
}

/// What one row came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOutcome {
    /// Charged by this very commit.
    Charged { credits: Credits },
    /// Its call was charged before: nothing moved.
    Tied,
    /// This very row was settled before.
    AlreadyClaimed,
    /// Nobody here has its token, or nobody had it then: counted, not charged.
    Parked,
    /// It waits, because an alike event is charged, because several users have its token, or because nobody knows its
    /// price yet.
    Waiting,
    /// It gives back what a charge took: that is looked for.
    RefundOpen,
    /// Nobody's call, or one that a person closed.
    Ignored,
    /// Another session holds a row of its user: nothing was stored, it is to be settled again soon.
    Deferred,
    /// The books cannot hold it: stored, listed, not charged.
    Failed(String),
}

/// What becomes of a row in the books.
#[derive(Debug, Clone)]
pub struct RowWrite {
    pub identity: RowIdentity,
    pub state: RowState,
    /// The call that it is a side of.
    pub claim: Option<ChargeKey>,
    /// Whole, while it is open.
    pub open: Option<Arc<LogRow>>,
    pub reason: Option<String>,
    /// Its quota units: what the source's own sum is held against. A row that is there already keeps its own.
    pub units: i64,
    pub is_refund: bool,
    /// The asynchronous task that it belongs to.
    pub task_id: Option<Arc<str>>,
}

/// A row that looks for its task's charge: which charge it is, is decided by itself (`task_refunds`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskMark {
    pub identity: RowIdentity,
    pub token: RemoteKeyId,
    /// What it says that its task's submission cost, in quota units.
    pub stated_units: Option<i64>,
}

impl TaskMark {
    /// None where the row looks for none: calls, submissions, and what says nothing of whose it is.
    pub fn of(numbered: &NumberedRow) -> Option<Self> {
        let NumberedRow { identity, row } = numbered;
        let is_further = row.task_id().is_some() && row.stated_units().is_some();
        let is_looking = !row.token.is_nobody() && (row.is_refund() || is_further);
        let stated_units = row.stated_units().or_else(|| row.refunded_units());
        is_looking.then(|| TaskMark { identity: identity.clone(), token: row.token, stated_units })
    }
}

impl RowWrite {
    /// The row of a charge that has one.
    pub fn of_charge(charge: &Charge) -> Option<Self> {
        let SideIdentity::Row { row, .. } = &charge.row.as_ref()?.identity else { return None };
        Some(RowWrite {
            identity: row.clone(),
            state: if charge.event.is_some() { RowState::Tied } else { RowState::Charged },
            claim: Some(charge.key()),
            open: None,
            reason: None,
            units: charge.price.units.map_or(0, QuotaUnits::get),
            is_refund: false,
            task_id: None,
        })
    }

    /// A row that the database itself refuses to settle.
    pub fn failed(numbered: &NumberedRow, reason: &str) -> Self {
        RowWrite {
            identity: numbered.identity.clone(),
            state: RowState::Failed,
            claim: None,
            open: Some(Arc::new(numbered.row.clone())),
            reason: Some(super::outcome::Failure::Unbookable(reason.to_owned()).message()),
            units: numbered.row.quota_units,
            is_refund: numbered.row.kind == RowKind::Refund,
            task_id: numbered.row.task.as_ref().and_then(|task| task.task_id.clone()),
        }
    }
}

/// Rows of one second that nobody here pays for: what explains a difference to the source's own figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnownedRows {
    /// The source's name.
    pub source: Arc<str>,
    pub token: RemoteKeyId,
    pub token_name: Arc<str>,
    pub second: i64,
    pub row_count: i64,
    /// Quota units; below zero where older versions wrote refunds so.
    pub units: i64,
    pub refund_count: i64,
}

/// A charge near the batch, as far as a tie may correct its price.
#[derive(Debug, Clone)]
pub struct NearCharge {
    pub user_id: UserId,
    pub key_id: KeyId,
    pub price: ExactPrice,
    pub credits: Credits,
    pub unpaid: Credits,
    pub rounding: Rounding,
}

impl NearCharge {
    pub fn of(charge: &Charge) -> Self {
        NearCharge {
            user_id: charge.user_id.clone(),
            key_id: charge.key_id.clone(),
            price: charge.price,
            credits: charge.credits,
            unpaid: charge.unpaid,
            rounding: charge.rounding,
        }
    }
}

/// An event that waits beside its row, or is disputed.
#[derive(Debug, Clone)]
pub struct OpenEventSide {
    pub place: Place,
    pub open: OpenEvent,
    pub is_disputed: bool,
}

/// A row that waits or is disputed.
#[derive(Debug, Clone)]
pub struct OpenRowSide {
    pub place: Place,
    pub row: Arc<LogRow>,
    pub is_disputed: bool,
}

/// Everything about the log that the plan of a batch depends on.
#[derive(Debug)]
pub struct LogSnapshot {
    pub policy: MatchPolicy,
    pub neighbours: Neighbours,
    /// Charges of the neighbours; those of other programs are not among them.
    pub charges: HashMap<ChargeKey, NearCharge>,
    pub known_rows: HashMap<RowIdentity, RowState>,
    pub open_events: HashMap<EventId, OpenEventSide>,
    pub open_rows: HashMap<RowIdentity, OpenRowSide>,
    /// Rows before this instant only tie: the platform billed then.
    pub taken_over_at: Option<UnixMillis>,
}

impl LogSnapshot {
    /// Sides that wait: what comes of this batch may charge them.
    pub fn open_sides(&self) -> impl Iterator<Item = &Side> + '_ {
        self.neighbours.open().filter_map(|place| match &self.neighbours.node(place).standing {
            Standing::Open(side) => Some(side),
            _ => None,
        })
    }
}
