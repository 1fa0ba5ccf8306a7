//! What the owner of the writing connection is asked to do: plain data, and a place for the answer.

use tokio::sync::oneshot;

use super::refunds::Reversal;
use super::tokens::Seen;
use crate::domain::event::Delivery;
use crate::domain::ids::RemoteKeyId;
use crate::domain::log_snapshot::NumberedRow;
use crate::domain::outcome::RecordOutcome;
use crate::domain::refund::{RefundOutcome, RefundRequest};
use crate::domain::settlement::{Batch, Plan, Purpose};
use crate::domain::time::UnixMillis;
use crate::storage::audit::{AcceptedDifference, NewAcceptance};
use crate::storage::books::{
    BooksError, Created, Granted, Ignored, NewAdjustment, NewGrant, NewIgnore, NewKey, NewUser,
};
use crate::storage::log::{RefundsSettled, SourceFilter, Span, TaskPlace, Trial, Tried};
use crate::storage::prices::{NewQuotaChange, QuotaChange};
use crate::storage::removal::Removal;
use crate::storage::{ConfiguredPrices, Poison, PriceLook, StoreError};

pub type Reply<T, E = StoreError> = oneshot::Sender<Result<T, E>>;

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
    Reopen(SourceFilter, String, Reply<()>),
    TakeBack(SourceFilter, i64, Reply<()>),
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
