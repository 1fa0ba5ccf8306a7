//! The operator's side of the books: what is asked of users, keys and credits, and why it is refused.
//!
//! Shapes here are shown to people and programs; their JSON names stay. What is answered is `views` and `charges`.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::StoreError;
use super::charges::{ChargeDetail, ChargeFilter, ChargeSelector, ChargeView};
use super::repair::{NewRepair, Repaired};
use crate::domain::decision::DecisionRefusal;
use crate::domain::ids::{EventId, KeyId, RemoteKeyId};
use crate::domain::refund::{ChargeKey, RefundOutcome, RefundRequest};
use crate::domain::repair::Apart;
use crate::domain::time::UnixMillis;

pub use super::views::{
    CreditsView, EventDetail, EventView, Ignored, KeyView, Replayed, TransactionView, UnmatchedToken, UserView,
};

/// Why the books refused a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BooksError {
    #[error("no user has the id or email {0}")]
    NoSuchUser(String),
    #[error("a user with the email {0} exists already")]
    EmailTaken(String),
    #[error("remote id {remote_id} is already the key {key_id} of another user ({user_id})")]
    RemoteIdTaken { remote_id: String, key_id: String, user_id: String },
    #[error("the idempotency key {0} was used for another request")]
    IdempotencyConflict(String),
    #[error("no event has the id {0}")]
    NoSuchEvent(String),
    #[error("no dispute, failed row or open refund has the id {0}")]
    NoSuchDispute(String),
    #[error("{id} {refusal}")]
    Undecided { id: String, refusal: DecisionRefusal },
    #[error("there is no key with {0}")]
    NoSuchKey(KeySelector),
    #[error("no charge has {0}")]
    NoSuchCharge(ChargeSelector),
    #[error("several charges have {selector}: {}; name one of them by its id", ids.join(", "))]
    SeveralCharges { selector: ChargeSelector, ids: Vec<String> },
    #[error("the user of the charge {0} is gone, and his books with him")]
    UserGone(String),
    #[error("of the charge {0} nothing is left to give back")]
    NothingLeft(String),
    #[error("of the charge {charge} only {left} credits are left to give back")]
    MoreThanLeft { charge: String, left: String },
    #[error(
        "this is the platform's own database, and the platform makes its users, keys and credits: use it for that, or \
         say --platform-database"
    )]
    PlatformsOwn,
    #[error("{0}; nothing is given or taken until `hookledger repair` was run")]
    Apart(Apart),
    #[error("the key with {0} is not ACTIVE")]
    KeyNotActive(KeySelector),
    #[error("several users have a key with {0}")]
    SeveralKeyOwners(KeySelector),
    #[error("{0}")]
    NotThatSecond(String),
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
    /// On a platform's own database, which makes users, keys and credits itself: do it all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub platform_database: bool,
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
    /// On a platform's own database, which makes users, keys and credits itself: do it all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub platform_database: bool,
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
    /// On a platform's own database, which makes users, keys and credits itself: do it all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub platform_database: bool,
}

/// Credits added to or taken from a balance by a person.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewAdjustment {
    /// Id or email.
    pub user: String,
    /// Whole credits, of either sign and not 0.
    pub amount: i64,
    /// What for; the user sees it in the history.
    pub reason: String,
    /// The same key adjusts once, however often it is sent.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// On a platform's own database, which makes users, keys and credits itself: do it all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub platform_database: bool,
}

/// A token to be ignored, or no longer.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewIgnore {
    /// new-api's token id, above 0.
    pub remote_id: i64,
    /// End it.
    #[serde(default)]
    pub undo: bool,
    /// On a platform's own database, which makes users, keys and credits itself: do it all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub platform_database: bool,
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

/// A page of unsettled events to settle again.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewReplay {
    /// This event alone, or this row that could not be booked (`row:…`).
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
    async fn adjust(&self, adjustment: NewAdjustment) -> Result<Granted, BooksError>;
    /// Ignores a token and closes its waiting events without a charge, or ends that.
    async fn ignore_token(&self, ignore: NewIgnore) -> Result<Ignored, BooksError>;
    /// The ignored tokens, smallest first, at most `limit`.
    async fn ignored_tokens(&self, limit: u32) -> Result<Vec<Ignored>, BooksError>;
    /// Tokens that no key has and events wait for, most calls first, at most `limit`.
    async fn unmatched_tokens(&self, limit: u32) -> Result<Vec<UnmatchedToken>, BooksError>;
    /// Newest calls first, at most `limit`.
    async fn charges(&self, filter: ChargeFilter, limit: u32) -> Result<Vec<ChargeView>, BooksError>;
    async fn charge(&self, selector: ChargeSelector) -> Result<ChargeDetail, BooksError>;
    async fn charge_key(&self, selector: ChargeSelector) -> Result<ChargeKey, BooksError>;
    /// Books refunds, all in one transaction. One outcome each.
    async fn refund(&self, requests: Vec<RefundRequest>, is_dry_run: bool) -> Result<Vec<RefundOutcome>, BooksError>;
    /// Stores what a reversal selects, or finds it stored by an earlier run. Answers the newest settlement that it covers;
    /// none where an earlier run has given all of it back.
    async fn begin_reversal(
        &self,
        filter: ChargeFilter,
        reason: Arc<str>,
        idempotency_key: &str,
        is_dry_run: bool,
    ) -> Result<Option<UnixMillis>, BooksError>;
    /// Nothing more is selected under this key.
    async fn finish_reversal(&self, idempotency_key: &str) -> Result<(), BooksError>;
    /// Charges that are not given back whole, in the order of their calls, at most `limit`.
    async fn reversible(
        &self,
        filter: ChargeFilter,
        settled_until: UnixMillis,
        after: Option<ChargeKey>,
        limit: usize,
    ) -> Result<Vec<ChargeKey>, BooksError>;
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
    /// Puts one page of what came apart together again. One file cannot come apart.
    async fn repair(&self, _page: NewRepair) -> Result<Repaired, BooksError> {
        Ok(Repaired { one_file: true, ..Repaired::default() })
    }
}

/// A text of 1 to 191 characters without NUL, as the platform's columns hold it.
pub fn bounded<'a>(what: &str, text: &'a str) -> Result<&'a str, BooksError> {
    match EventId::parse(text) {
        Ok(_) if text.trim() == text => Ok(text),
        Ok(_) => Err(BooksError::Invalid(format!("the {what} must not begin or end with a space"))),
        Err(error) => Err(BooksError::Invalid(format!("the {what} {error}"))),
    }
}
