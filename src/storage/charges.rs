//! What was charged and what was given back, in the shapes that people and programs see; their JSON names stay.
//!
//! The way from a request to what is booked is `refunding`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::books::TransactionView;
use crate::domain::money::CreditFemtos;
use crate::domain::time::UnixMillis;

/// One charge, with its price and what it moved.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChargeView {
    /// `usage_records.id`
    pub id: String,
    /// The channel that told of the call first: `webhook` or `log`.
    pub source: String,
    /// The sender's id of the event.
    #[schema(required)]
    pub event_id: Option<String>,
    /// new-api's `request_id`.
    #[schema(required)]
    pub request_id: Option<String>,
    /// Of the row in new-api's log.
    #[schema(required)]
    pub log_id: Option<i64>,
    /// When the call was made, UTC.
    pub called_at: String,
    /// When it was charged, UTC.
    pub settled_at: String,
    /// Who paid.
    pub user_id: String,
    /// `api_keys.id`
    pub key_id: String,
    /// new-api's token id.
    pub remote_key_id: i64,
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
    /// Whole credits that were refused for want of balance.
    pub unpaid: i64,
    /// What the user owed below one credit before and after, as decimals.
    pub remainder_before: String,
    /// The same after the charge.
    pub remainder_after: String,
    /// Exact credits given back so far, as a decimal.
    pub refunded: String,
}

/// A charge explained from event to balance.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChargeDetail {
    #[serde(flatten)]
    pub charge: ChargeView,
    /// Absent where the user is gone.
    #[schema(required)]
    pub email: Option<String>,
    /// Absent where the key is gone.
    #[schema(required)]
    pub key_label: Option<String>,
    /// When the event came in, UTC; absent without one, or where its log row was cleared.
    #[schema(required)]
    pub received_at: Option<String>,
    /// Absent where no whole credit moved.
    #[schema(required)]
    pub transaction: Option<TransactionView>,
    /// The balance before the transaction; absent without one.
    #[schema(required)]
    pub balance_before: Option<i64>,
    /// Oldest first.
    pub refunds: Vec<RefundView>,
}

/// Something that was given back of a charge.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefundView {
    /// Of the refund.
    pub id: String,
    /// UTC.
    pub refunded_at: String,
    /// `operator`, `reversal` or `log`.
    pub origin: String,
    /// Why, in the words of whoever gave it back.
    pub reason: String,
    /// The same key gives back once.
    pub idempotency_key: String,
    /// Exact credits, as a decimal.
    pub amount: String,
    /// Whole credits added to the balance.
    pub credits: i64,
    /// Whole credits by which the unpaid amount was lowered instead.
    pub unpaid_lowered: i64,
    /// What the user owed below one credit before it, as a decimal.
    pub remainder_before: String,
    /// The same after it.
    pub remainder_after: String,
    /// Absent where no whole credit moved.
    #[schema(required)]
    pub transaction: Option<TransactionView>,
}

/// Which charges: what is absent selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChargeFilter {
    /// Id or email.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `api_keys.id`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// new-api's token id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<i64>,
    /// What was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Calls of this second or later, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Calls before this, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
}

impl ChargeFilter {
    pub fn is_empty(&self) -> bool {
        *self == ChargeFilter::default()
    }

    /// The seconds of the calls, first and last.
    pub fn seconds(&self) -> (i64, i64) {
        let since = self.since_ms.map_or(0, |millis| UnixMillis::new(millis).as_secs());
        let until = self.until_ms.map_or(i64::MAX, |millis| UnixMillis::new(millis.saturating_sub(1)).as_secs());
        (since, until)
    }
}

/// Names one charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargeSelector {
    /// `usage_records.id`
    Id(String),
    /// The sender's id of the event.
    Event(String),
    /// new-api's `request_id`.
    Request(String),
    /// The charge of a user (id or email) whose call lies nearest to an instant, within five minutes.
    UserAt { user: String, at: UnixMillis },
}

impl std::fmt::Display for ChargeSelector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ChargeSelector::Id(id) => write!(formatter, "the id {id}"),
            ChargeSelector::Event(id) => write!(formatter, "the event {id}"),
            ChargeSelector::Request(id) => write!(formatter, "the request id {id}"),
            ChargeSelector::UserAt { user, at } => write!(formatter, "the user {user} within five minutes of {at}"),
        }
    }
}

/// One charge to give back, whole or in part.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewRefund {
    /// The charge's id.
    pub charge: String,
    /// Credits, a decimal with at most fifteen places; without amount and quota all that is left.
    #[serde(default)]
    pub amount: Option<String>,
    /// Quota units, at the charge's own rate.
    #[serde(default)]
    pub quota: Option<i64>,
    /// Why, for whoever looks at the charge later.
    pub reason: String,
    /// The same key gives back once, however often it is sent. A part needs one.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// What a refund came to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refunded {
    /// Of the refund.
    pub id: String,
    /// The charge's id.
    pub charge: String,
    /// Who paid.
    pub user_id: String,
    /// Exact credits, as a decimal.
    pub amount: String,
    /// Whole credits added to the balance.
    pub credits: i64,
    /// Whole credits by which the unpaid amount was lowered instead.
    pub unpaid_lowered: i64,
    /// What the user owed below one credit before it, as a decimal.
    pub remainder_before: String,
    /// The same after it.
    pub remainder_after: String,
    /// The balance after it (now, for a repeat).
    pub balance: i64,
    /// The idempotency key had given this back before: nothing was added.
    pub repeated: bool,
}

/// A selection of charges to give back, page by page.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewReversal {
    /// At least one field selects.
    pub filter: ChargeFilter,
    /// Why, for whoever looks at the charges later.
    pub reason: String,
    /// Keeps what was selected: a repeat goes on with the same charges and gives nothing twice.
    pub idempotency_key: String,
    /// Tell what would be given back, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Where the last page ended.
    #[serde(default)]
    pub after: Option<ReversalPlace>,
}

/// A charge's place among the charges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReversalPlace {
    /// Unix seconds.
    pub call_second: i64,
    /// The charge's id.
    pub id: String,
}

/// What a page of a reversal came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reversed {
    /// Charges of this page of which something was given back.
    pub charges: u64,
    /// Exact credits, as a decimal.
    pub amount: String,
    /// Whole credits added to balances.
    pub credits: i64,
    /// Whole credits by which unpaid amounts were lowered instead.
    pub unpaid_lowered: i64,
    /// Charges whose user is gone, or whose amount does not fit the books.
    pub refused: u64,
    /// Where the next page begins, if there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<ReversalPlace>,
}

impl Reversed {
    /// Adds another page's figures.
    pub fn add(&mut self, page: &Reversed) {
        let sum = [&self.amount, &page.amount].into_iter().filter_map(|amount| CreditFemtos::parse(amount).ok());
        self.amount = sum.fold(CreditFemtos::ZERO, |sum, amount| sum.checked_add(amount).unwrap_or(sum)).to_string();
        self.charges += page.charges;
        self.credits += page.credits;
        self.unpaid_lowered += page.unpaid_lowered;
        self.refused += page.refused;
    }
}
