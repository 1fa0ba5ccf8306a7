//! What a look at the books shows of users, keys, balances and events, to people and programs; the JSON names stay.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::charges::ChargeView;

/// What ignoring a token came to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ignored {
    /// new-api's token id.
    pub remote_id: i64,
    /// Whether it is ignored now.
    pub is_ignored: bool,
    /// Waiting events that were closed without a charge.
    pub closed_events: u64,
}

/// A token that no key has, and what its waiting events come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnmatchedToken {
    /// new-api's token id.
    pub remote_id: i64,
    /// The token's name, where new-api's log told it.
    #[schema(required)]
    pub name: Option<String>,
    /// Events that wait for it.
    pub calls: u64,
    /// Quota units of the calls that are priced in them.
    pub quota: i64,
    /// Exact price of all calls in credits, as a decimal.
    pub credits: String,
    /// Oldest and newest call, UTC.
    pub first_seen: String,
    /// Newest call, UTC.
    pub last_seen: String,
    /// The command that gives it to a user.
    pub command: String,
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
