//! What became of an event: nouns that state the fact, each with one meaning for every caller.

use super::ids::{MAX_ID_CHARS, RemoteKeyId};
use super::money::Credits;

/// What one settlement of one event came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettlementOutcome {
    /// Charged by this very commit.
    Settled { credits: Credits },
    /// Booked, but nothing deducted: `ledger.overdraft = "refuse"` and the account is empty.
    Unpaid { credits: Credits },
    /// The same event was charged before, or stands in the platform's own log.
    AlreadySettled,
    /// Another program has billed this call: its usage record is adopted, nothing is charged.
    Tied,
    /// The id is known with other content: nothing charged.
    Conflict,
    /// Stored, and charged in a moment: another session holds a row of its user.
    Deferred,
    /// Stored: an alike row of the log is charged, and whether it is the same call is not known yet.
    Waits,
    /// Stored, and not chargeable now (or known and in that state).
    Failed(Failure),
}

/// Why a stored event is not charged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("API Key not found for remoteKeyId: {0}")]
    UnknownKey(RemoteKeyId),
    #[error("Several users have the API key with remoteKeyId: {0}; remove it from all but its owner")]
    AmbiguousKey(RemoteKeyId),
    #[error(
        "Call is older than the API key with remoteKeyId: {0} by more than ledger.key_grace; replay it with \
         --beyond-grace"
    )]
    BeyondGrace(RemoteKeyId),
    #[error(
        "Call was made when remoteKeyId: {0} belonged to another user, whose key is gone; replay it with --beyond-grace"
    )]
    FormerOwner(RemoteKeyId),
    #[error("{IGNORED}{0}; `key ignore --undo` ends that")]
    IgnoredKey(RemoteKeyId),
    #[error("Another program holds the user's row; it is tried again at once")]
    Busy,
    #[error("Call is older than what is remembered (retention.claims): it is never charged")]
    BeyondMemory,
    #[error("Cannot be booked: {0}")]
    Unbookable(String),
    #[error(
        "Held: new-api's quota per unit changed about this second; name the second with `hookledger prices quota-changed`"
    )]
    QuotaUnknown,
    #[error("An alike row of the log is charged; whether it is the same call will show")]
    Alike,
    #[error("{DISPUTED}{0}")]
    Disputed(String),
    #[error("{DISMISSED}{0}")]
    Dismissed(String),
    /// As it was stored by an earlier settlement.
    #[error("{0}")]
    Stored(String),
}

/// How the message of an ignored token's event begins.
const IGNORED: &str = "API Key is ignored for remoteKeyId: ";

/// How the message of a disputed event begins.
const DISPUTED: &str = "Disputed: ";

/// How the message of an event begins that a person closed without a charge.
const DISMISSED: &str = "Dismissed: ";

impl Failure {
    /// Whether a stored message is that of a disputed event.
    pub fn is_disputed(message: &str) -> bool {
        message.starts_with(DISPUTED)
    }

    /// Whether a stored message is that of an event that was closed without a charge: its token is ignored, or a person
    /// dismissed it.
    pub fn closes(message: &str) -> bool {
        message.starts_with(IGNORED) || Failure::is_dismissed(message)
    }

    /// Whether a stored message is that of an event that a person dismissed.
    pub fn is_dismissed(message: &str) -> bool {
        message.starts_with(DISMISSED)
    }

    /// The text for `errorMsg`: at most 191 characters.
    pub fn message(&self) -> String {
        fit_column(&self.to_string())
    }
}

/// State of a row of `webhook_logs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InboxStatus {
    Pending,
    Processed,
    Failed,
    Dead,
}

impl InboxStatus {
    pub const ALL: [InboxStatus; 4] =
        [InboxStatus::Pending, InboxStatus::Processed, InboxStatus::Failed, InboxStatus::Dead];

    pub fn as_str(self) -> &'static str {
        match self {
            InboxStatus::Pending => "pending",
            InboxStatus::Processed => "processed",
            InboxStatus::Failed => "failed",
            InboxStatus::Dead => "dead",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        InboxStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// What making an event durable came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordOutcome {
    /// On disk by this very commit.
    Recorded,
    /// Was there before, with the same content, in this state.
    Known { status: InboxStatus, message: Option<String> },
    /// Its id was there before with other content.
    Conflict,
}

/// Cuts a text to what a `VARCHAR(191)` holds; U+0000, which not every column can hold, becomes U+FFFD.
pub fn fit_column(text: &str) -> String {
    text.chars().take(MAX_ID_CHARS).map(|character| if character == '\0' { '\u{FFFD}' } else { character }).collect()
}
