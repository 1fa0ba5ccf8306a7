//! The two sides that tell of a call: the event that was sent, and the row of new-api's log.
//!
//! What makes two sides the same call is decided in `matching`; here is only what each of them is.

use std::sync::Arc;

use super::event::{Content, Tokens, UsageEvent};
use super::ids::{EventId, RequestId};
use super::log_row::{LogRow, RowIdentity, RowKind};
use super::money::QuotaUnits;
use super::pricing::Price;
use super::time::UnixMillis;

/// Which channel told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    Webhook,
    Log,
}

impl Channel {
    /// The names of `hookledger_claims.source`.
    pub fn as_str(self) -> &'static str {
        match self {
            Channel::Webhook => "webhook",
            Channel::Log => "log",
        }
    }
}

/// One side of a call, whole: enough to charge it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    Event(Arc<UsageEvent>),
    Row(Arc<ConsumptionRow>),
}

/// A row that is a side of a call, its values within what the books can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumptionRow {
    pub identity: RowIdentity,
    pub content: Content,
    pub request_id: Option<RequestId>,
    pub log_id: Option<i64>,
    /// The task that this row settles: a further charge of a call that was charged at its submission.
    pub task_id: Option<Arc<str>>,
}

/// Which event or row it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SideIdentity {
    Event { event_id: EventId, request_id: Option<RequestId>, log_id: Option<i64> },
    Row { row: RowIdentity, request_id: Option<RequestId>, log_id: Option<i64> },
}

impl SideIdentity {
    pub fn channel(&self) -> Channel {
        match self {
            SideIdentity::Event { .. } => Channel::Webhook,
            SideIdentity::Row { .. } => Channel::Log,
        }
    }

    pub fn request_id(&self) -> Option<&RequestId> {
        match self {
            SideIdentity::Event { request_id, .. } | SideIdentity::Row { request_id, .. } => request_id.as_ref(),
        }
    }

    pub fn log_id(&self) -> Option<i64> {
        match self {
            SideIdentity::Event { log_id, .. } | SideIdentity::Row { log_id, .. } => *log_id,
        }
    }
}

impl Side {
    pub fn content(&self) -> &Content {
        match self {
            Side::Event(event) => &event.content,
            Side::Row(row) => &row.content,
        }
    }

    pub fn identity(&self) -> SideIdentity {
        match self {
            Side::Event(event) => SideIdentity::Event {
                event_id: event.event_id.clone(),
                request_id: event.request_id.clone(),
                log_id: event.log_id,
            },
            Side::Row(row) => {
                SideIdentity::Row { row: row.identity.clone(), request_id: row.request_id.clone(), log_id: row.log_id }
            }
        }
    }

    pub fn channel(&self) -> Channel {
        match self {
            Side::Event(_) => Channel::Webhook,
            Side::Row(_) => Channel::Log,
        }
    }
}

/// Why two sides are tied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TieRule {
    /// They share an exact identity.
    Identity,
    /// They agree in everything, and nothing proves them different.
    Agreement,
    /// The event was priced in credits: of the rows that agree in all else, this one was the nearest.
    Nearest,
    /// One of them belongs to another program's record.
    Adoption,
    /// A person joined them.
    Person,
}

impl TieRule {
    const ALL: [TieRule; 5] =
        [TieRule::Identity, TieRule::Agreement, TieRule::Nearest, TieRule::Adoption, TieRule::Person];

    pub fn as_str(self) -> &'static str {
        match self {
            TieRule::Identity => "identity",
            TieRule::Agreement => "agreement",
            TieRule::Nearest => "nearest",
            TieRule::Adoption => "adoption",
            TieRule::Person => "person",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        TieRule::ALL.into_iter().find(|rule| rule.as_str() == text)
    }
}

/// Why a row is no side of a call that could be booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableRow {
    #[error("it is a refund")]
    Refund,
    #[error("a token count is below 0 or beyond what the books can hold")]
    Tokens,
    #[error("its time is no time between 1970 and 9999")]
    Time,
}

impl ConsumptionRow {
    /// Only type-2 rows with a quota of 0 or more are sides of a call.
    pub fn parse(identity: RowIdentity, row: &LogRow) -> Result<Self, UnusableRow> {
        let quota = QuotaUnits::new(row.quota_units).filter(|_| row.kind == RowKind::Consumption);
        let units = quota.ok_or(UnusableRow::Refund)?;
        let count = |tokens: i64| i32::try_from(tokens).ok().filter(|count| *count >= 0).ok_or(UnusableRow::Tokens);
        let (prompt, completion) = (count(row.prompt_tokens)?, count(row.completion_tokens)?);
        let total = prompt.checked_add(completion).ok_or(UnusableRow::Tokens)?;
        let millis = row.second.checked_mul(1000).filter(|at| (0..=UnixMillis::MAX.as_millis()).contains(at));
        let content = Content {
            remote_key_id: row.token,
            model: row.model.clone(),
            tokens: Tokens { prompt, completion, total },
            price: Price::Quota(units),
            called_at: UnixMillis::new(millis.ok_or(UnusableRow::Time)?),
        };
        let task_id = row.task.as_ref().and_then(|task| task.task_id.clone());
        Ok(ConsumptionRow { identity, content, request_id: row.request_id.clone(), log_id: row.log_id, task_id })
    }
}
