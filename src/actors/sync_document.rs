//! What is asked of a sync and what is told of it, as routes and the command line write it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A reading of new-api's log that a person asks for. Without a span and a key: what the daemon itself would read next.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewSync {
    /// Rows of this time and later, in Unix milliseconds, whether they were read before or not.
    #[serde(default)]
    pub since_ms: Option<i64>,
    /// Rows of before this time, in Unix milliseconds.
    #[serde(default)]
    pub until_ms: Option<i64>,
    /// Only rows of this key's token: the key's id, or the token's in new-api.
    #[serde(default)]
    pub key: Option<String>,
    /// With a key: charge its rows as well that are older than the key by more than the grace.
    #[serde(default)]
    pub beyond_grace: bool,
    /// Charge calls of before the platform's billing was taken over which the platform did not bill.
    #[serde(default)]
    pub before_takeover: bool,
    /// Tell what would happen, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The sum is right: charge it.
    #[serde(default)]
    pub yes: bool,
}

/// What a sync came to; under way, what it came to so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Synced {
    /// Nothing was changed.
    pub dry_run: bool,
    /// It charges what is never charged by itself: without a yes it is a dry run.
    pub needs_yes: bool,
    /// Rows of the log.
    pub read: u64,
    /// Rows that were charged.
    pub charged: u64,
    /// Whole credits that charges moved.
    pub credits: i64,
    /// Rows whose call was charged already.
    pub tied: u64,
    /// Rows that were settled before.
    pub already_claimed: u64,
    /// Rows of tokens that nobody has, or nobody had then.
    pub parked: u64,
    /// Rows that wait: an event like theirs is charged, or several users have their token.
    pub waiting: u64,
    /// Sides of calls that are disputed from now on.
    pub disputed: u64,
    /// Rows that were given back.
    pub refunded: u64,
    /// Whole credits that were given back.
    pub credits_given_back: i64,
    /// Refunds that still look for their charge.
    pub refunds_open: u64,
    /// Rows that nobody pays for: nobody's tokens, ignored ones, and calls of before a taking over.
    pub ignored: u64,
    /// Rows that cannot be booked.
    pub failed: u64,
    /// Why nothing was read, where no second of the span that was asked for may be.
    #[schema(required)]
    pub nothing_read_because: Option<String>,
    /// Where coverage begins, UTC.
    #[schema(required)]
    pub coverage_begins: Option<String>,
    /// The last second that is covered, UTC.
    #[schema(required)]
    pub covered_until: Option<String>,
    /// The last second up to which every row was read, UTC.
    #[schema(required)]
    pub read_until: Option<String>,
}

/// How a sync stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// It begins in a moment.
    Waiting,
    /// Rows are read.
    Reading,
    /// It reached its end.
    Done,
    /// It did not; what was committed until then stays.
    Failed,
}

/// What was in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyncTrouble {
    /// Settings are missing.
    Configuration,
    /// It may not be done as it was asked for.
    Refused,
    /// new-api does not answer what was asked.
    Source,
    /// The database.
    Database,
    /// The daemon itself was interrupted.
    Interrupted,
}

/// Why a sync did not reach its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncFailure {
    pub trouble: SyncTrouble,
    /// A sentence that says what to do.
    pub message: String,
}

/// The sync that is under way, or the last one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncStatus {
    /// Another one has another id.
    pub id: String,
    pub state: SyncState,
    /// When it was asked for, UTC.
    pub asked_at: String,
    /// Seconds of the log that were read.
    pub done_secs: i64,
    /// Seconds of the log that it reads in all.
    pub total_secs: i64,
    /// The time of the last second that was read, UTC.
    #[schema(required)]
    pub at: Option<String>,
    pub synced: Synced,
    /// Where it failed.
    #[schema(required)]
    pub failure: Option<SyncFailure>,
}
