//! What a person must decide, in the shapes that people and programs see, and what each store looks up for it. The JSON
//! names stay; the way from a request to what is booked is `deciding`.

use std::collections::HashMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::StoreError;
use super::books::BooksError;
use crate::domain::decision::{Decision, DecisionOutcome, Subject};
use crate::domain::ids::{EventId, RemoteKeyId};
use crate::domain::log_row::RowIdentity;
use crate::domain::log_snapshot::{LogSnapshot, NumberedRow};
use crate::domain::ownership::Owner;
use crate::domain::pricing::PriceBook;
use crate::domain::settlement::Batch;
use crate::domain::time::UnixMillis;

/// What kind of decision is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DisputeKind {
    /// A disputed event: tie, charge or dismiss.
    Event,
    /// A disputed row of new-api's log: tie, charge or dismiss.
    Row,
    /// A row that could not be booked: charge or dismiss.
    Failed,
    /// A refund without its charge: dismiss.
    Refund,
}

impl DisputeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            DisputeKind::Event => "event",
            DisputeKind::Row => "row",
            DisputeKind::Failed => "failed",
            DisputeKind::Refund => "refund",
        }
    }
}

/// Something that a person must decide.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisputeView {
    /// Names it in a decision: the sender's id of the event, or `row:…`.
    pub id: String,
    /// What is asked for.
    pub kind: DisputeKind,
    /// new-api's token id; 0 where the row names none.
    pub remote_key_id: i64,
    /// Whose the token is now; absent where nobody or several have it.
    #[schema(required)]
    pub user_id: Option<String>,
    /// `api_keys.id`, with the user.
    #[schema(required)]
    pub key_id: Option<String>,
    /// When the call was made, UTC.
    pub called_at: String,
    /// What was called.
    pub model: String,
    /// Tokens in.
    pub prompt_tokens: i64,
    /// Tokens out.
    pub completion_tokens: i64,
    /// Quota units; absent where the sender priced in credits.
    #[schema(required)]
    pub quota: Option<i64>,
    /// The exact price in credits, as a decimal; absent where it has none.
    #[schema(required)]
    pub price: Option<String>,
    /// Which fields differ, or why it could not be booked.
    #[schema(required)]
    pub reason: Option<String>,
    /// When it came in, UTC.
    pub since: String,
    /// The charge that may be of the same call: what `tie` takes if no other is named.
    #[schema(required)]
    pub alike: Option<AlikeView>,
}

/// The charge beside a dispute.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlikeView {
    /// Of the charge.
    pub charge_id: String,
    /// The event or the row (`row:…`) that it was charged for.
    pub id: String,
    /// When that says that the call was made, UTC.
    pub called_at: String,
    /// What was called.
    pub model: String,
    /// Quota units; absent where the sender priced in credits.
    #[schema(required)]
    pub quota: Option<i64>,
    /// The exact price in credits, as a decimal.
    pub price: String,
}

/// Which disputes: what is absent selects all.
#[derive(Debug, Clone, Default)]
pub struct DisputeFilter {
    /// Id or email of who has the token now.
    pub user: Option<String>,
    /// new-api's token id.
    pub remote_id: Option<i64>,
}

/// It is the call of an alike charge.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewTie {
    /// Of the dispute.
    pub id: String,
    /// The charge's id; without it, the nearest one in price and then in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<String>,
}

/// It is a call of its own.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewOwnCharge {
    /// Of the dispute.
    pub id: String,
}

/// It is closed without a charge.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewDismissal {
    /// Of the dispute.
    pub id: String,
    /// Why, for whoever looks at it later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a decision came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// Of the dispute.
    pub id: String,
    /// What it is now: tied, charged, dismissed; of a row that could not be booked, also waiting or `refund_open`.
    pub state: String,
    /// The charge that it is a side of.
    #[schema(required)]
    pub charge_id: Option<String>,
    /// Whole credits that were deducted by this decision; below zero where some were given back.
    pub credits: i64,
    /// It was so before: nothing moved.
    pub repeated: bool,
}

/// A dispute as a store finds it.
#[derive(Debug, Clone)]
pub struct FoundDispute {
    pub subject: Subject,
    pub kind: DisputeKind,
    pub reason: Option<String>,
    pub since: UnixMillis,
}

/// A row of `hookledger_rows`.
#[derive(Debug, Clone)]
pub struct FoundRow {
    pub state: String,
    /// Whole, while it is open.
    pub content: Option<String>,
    pub claim_id: Option<String>,
}

/// Which rows that could not be booked.
#[derive(Debug, Clone, Default)]
pub struct FailedRows {
    /// Read at this time or later.
    pub since: Option<UnixMillis>,
    /// Read before this time.
    pub until: Option<UnixMillis>,
    /// Where the last page ended.
    pub after: Option<RowIdentity>,
}

/// The charge of an event.
#[derive(Debug, Clone)]
pub struct EventClaim {
    pub claim_id: String,
    /// A row tells of it as well.
    pub has_row: bool,
}

/// A row's identity in the order of `hookledger_rows`: second, digest, number, source; before all of them without one.
pub fn row_place(after: Option<RowIdentity>) -> (i64, String, i64, String) {
    after.map_or((i64::MIN, String::new(), 0, String::new()), |row| {
        (row.second, row.digest.as_str().to_owned(), row.number.into(), row.source.to_string())
    })
}

/// Disputes, and what ends them.
#[async_trait]
pub trait Disputes: Send + Sync + 'static {
    /// Newest calls first, of these tokens or of all, at most `limit` events and as many rows.
    async fn open_disputes(&self, tokens: Option<Vec<i64>>, limit: u32) -> Result<Vec<FoundDispute>, StoreError>;

    /// What of the log is near a batch, as of the last commit.
    async fn near(&self, batch: &Batch) -> Result<(LogSnapshot, PriceBook), StoreError>;

    /// Whose these tokens are now.
    async fn owners(&self, tokens: &[RemoteKeyId]) -> Result<HashMap<RemoteKeyId, Owner>, StoreError>;

    async fn claim_of_event(&self, event_id: &EventId, at: UnixMillis) -> Result<Option<EventClaim>, StoreError>;

    /// Rows that could not be booked, in the order of their identities, read in this time.
    async fn failed_rows(&self, selection: FailedRows, limit: usize) -> Result<Vec<NumberedRow>, StoreError>;

    async fn row(&self, identity: &RowIdentity) -> Result<Option<FoundRow>, StoreError>;

    /// Carries out one decision, in one transaction.
    async fn decide(&self, decision: Decision) -> Result<DecisionOutcome, BooksError>;
}
