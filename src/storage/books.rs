//! The operator's side of the books: users, keys, credits, and looks at what was booked.
//!
//! Shapes here are shown to people and programs; their JSON names stay.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::StoreError;
use crate::domain::ids::{KeyId, RemoteKeyId};
use crate::domain::time::UnixMillis;

/// Why the books refused a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BooksError {
    #[error("no user has the id or email {0}")]
    NoSuchUser(String),
    #[error("a user with the email {0} exists already")]
    EmailTaken(String),
    #[error("remote id {remote_id} is already the key {key_id} of another user ({user_id})")]
    RemoteIdTaken { remote_id: String, key_id: String, user_id: String },
    #[error("the idempotency key {0} was used for another user or amount")]
    IdempotencyConflict(String),
    #[error("no event has the id {0}")]
    NoSuchEvent(String),
    #[error("there is no key with {0}")]
    NoSuchKey(KeySelector),
    #[error("the key with {0} is not ACTIVE")]
    KeyNotActive(KeySelector),
    #[error("several users have a key with {0}")]
    SeveralKeyOwners(KeySelector),
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A user to add.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewUser {
    /// Every request takes it in place of the id.
    pub email: String,
    /// For people to read.
    #[serde(default)]
    pub name: Option<String>,
    /// Credits to begin with, of zero or more.
    #[serde(default)]
    pub credits: i64,
}

/// A token of new-api to give to a user.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewKey {
    /// Id or email.
    pub user: String,
    /// new-api's token id, above 0.
    pub remote_id: i64,
    /// For people to read.
    #[serde(default)]
    pub label: Option<String>,
}

/// Credits to give.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewGrant {
    /// Id or email.
    pub user: String,
    /// Whole credits, above 0.
    pub amount: i64,
    /// What for; the user sees it in the history.
    #[serde(default)]
    pub reason: Option<String>,
    /// The same key grants once, however often it is sent.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// The id of what was made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// Of the new row.
    pub id: String,
}

/// What was granted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Granted {
    /// `credit_transactions.id`
    pub id: String,
    /// `users.id`
    pub user_id: String,
    /// Whole credits.
    pub amount: i64,
    /// The balance after the grant (now, for a repeat).
    pub balance: i64,
    /// The idempotency key had granted this before: nothing was added.
    pub repeated: bool,
}

/// One user.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserView {
    /// `users.id`
    pub id: String,
    /// Names the user as well as the id does.
    pub email: String,
    /// For people to read.
    #[schema(required)]
    pub name: Option<String>,
    /// The balance; it can be below zero.
    pub credits: i64,
    /// How many keys the user has.
    pub keys: i64,
    /// UTC, as the table holds it.
    pub created_at: String,
}

/// One key.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyView {
    /// `api_keys.id`
    pub id: String,
    /// Who pays.
    pub user_id: String,
    /// Of the user.
    pub email: String,
    /// new-api's token id.
    #[schema(required)]
    pub remote_key_id: Option<String>,
    /// For people to read.
    pub label: String,
    /// ACTIVE, DISABLED or DELETED.
    pub status: String,
    /// UTC, as the table holds it.
    pub created_at: String,
    /// When a call was last charged, UTC.
    #[schema(required)]
    pub last_used_at: Option<String>,
}

/// What one user has.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreditsView {
    /// `users.id`
    pub user_id: String,
    /// Of the user.
    pub email: String,
    /// The balance; it can be below zero.
    pub credits: i64,
    /// What is owed below one whole credit, as a decimal.
    pub remainder: String,
    /// Refused for want of balance.
    pub unpaid: i64,
}

/// One movement of a balance.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransactionView {
    /// `credit_transactions.id`
    pub id: String,
    /// UTC, as the table holds it.
    pub created_at: String,
    /// DEDUCT, RECHARGE and the like.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whole credits; below zero where they were deducted.
    pub amount: i64,
    /// The balance after it.
    pub balance: i64,
    /// What for.
    #[schema(required)]
    pub description: Option<String>,
    /// What it belongs to.
    #[schema(required)]
    pub reference: Option<String>,
}

/// One event of the inbox.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// The sender's id.
    pub event_id: String,
    /// pending, processed, failed or dead.
    pub status: String,
    /// Why it is not settled.
    #[schema(required)]
    pub error_message: Option<String>,
    /// When it came in, UTC.
    pub created_at: String,
    /// When it was last worked on, UTC.
    pub processed_at: String,
}

/// One event with its body.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventDetail {
    #[serde(flatten)]
    pub event: EventView,
    /// The body as it came.
    pub payload: String,
    /// What was charged for it, if it was.
    #[schema(required)]
    pub charge: Option<ChargeView>,
}

/// What was charged for a call, and by which price.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChargeView {
    /// `usage_records.id`
    pub id: String,
    /// Who paid.
    pub user_id: String,
    /// `api_keys.id`
    pub key_id: String,
    /// What was called.
    pub model: String,
    /// Tokens in.
    pub prompt_tokens: i64,
    /// Tokens out.
    pub completion_tokens: i64,
    /// Quota units; absent where the sender priced in credits.
    #[schema(required)]
    pub quota: Option<i64>,
    /// The exact price in credits, as a decimal.
    pub price: String,
    /// Credits for one US dollar at the call's second.
    pub usd_to_credits: String,
    /// Quota units for one US dollar at the call's second.
    pub quota_per_unit: i64,
    /// Whole credits deducted.
    pub credits: i64,
    /// Owed below one credit before it, as a decimal.
    pub remainder_before: String,
    /// Owed below one credit after it, as a decimal.
    pub remainder_after: String,
}

/// A page of unsettled events to settle again.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewReplay {
    /// This event alone.
    #[serde(default)]
    pub event_id: Option<String>,
    /// Recorded at this time or later, in Unix milliseconds.
    #[serde(default)]
    pub since_ms: Option<i64>,
    /// Recorded before this time, in Unix milliseconds.
    #[serde(default)]
    pub until_ms: Option<i64>,
    /// Charge calls that are older than their key by more than the grace.
    #[serde(default)]
    pub beyond_grace: bool,
    /// Tell what would happen, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Where the last page ended.
    #[serde(default)]
    pub after: Option<String>,
}

/// What settling a page again came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// Events of this page.
    pub tried: u64,
    /// Events that were charged.
    pub charged: u64,
    /// Whole credits deducted by these charges.
    pub credits: i64,
    /// Events that had been charged before.
    pub already_charged: u64,
    /// Events that cannot be charged.
    pub still_failed: u64,
    /// Where the next page begins, if there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Names a key: by its own id, or by what new-api knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySelector {
    /// `api_keys.id`
    Id(KeyId),
    /// `api_keys.remoteKeyId`
    Remote(RemoteKeyId),
}

impl fmt::Display for KeySelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySelector::Id(id) => write!(formatter, "id {id}"),
            KeySelector::Remote(id) => write!(formatter, "remoteKeyId {id}"),
        }
    }
}

/// What the owner of an active key has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyBalance {
    /// Whole credits; 0 without a row of balances.
    pub credits: i64,
    pub user_id: String,
    pub key_id: String,
    /// Absent if the key has none that new-api could know.
    pub remote_key_id: Option<RemoteKeyId>,
    pub label: String,
    /// When the balance last moved; without one, when the key was made.
    pub last_updated: UnixMillis,
}

/// Which events to list.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// One of pending, processed, failed, dead.
    pub status: Option<String>,
    pub limit: u32,
}

/// What operators ask and do.
#[async_trait]
pub trait Books: Send + Sync + 'static {
    async fn add_user(&self, user: NewUser) -> Result<Created, BooksError>;
    async fn add_key(&self, key: NewKey) -> Result<Created, BooksError>;
    async fn grant(&self, grant: NewGrant) -> Result<Granted, BooksError>;
    /// Newest first, at most `limit`.
    async fn users(&self, limit: u32) -> Result<Vec<UserView>, BooksError>;
    /// Newest first, at most `limit`; of one user (id or email) where that is given.
    async fn keys(&self, user: Option<String>, limit: u32) -> Result<Vec<KeyView>, BooksError>;
    async fn credits(&self, user: String) -> Result<CreditsView, BooksError>;
    /// What the owner of an ACTIVE key has, as of the last commit. Never waits for a writer.
    async fn key_balance(&self, key: KeySelector) -> Result<KeyBalance, BooksError>;
    /// Newest first, at most `limit`.
    async fn history(&self, user: String, limit: u32) -> Result<Vec<TransactionView>, BooksError>;
    /// Newest first.
    async fn events(&self, filter: EventFilter) -> Result<Vec<EventView>, BooksError>;
    async fn event(&self, event_id: String) -> Result<EventDetail, BooksError>;
}
