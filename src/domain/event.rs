//! The event of one call, as parsed: what it tells, and what makes two deliveries the same.

use std::sync::Arc;

use super::ids::{EventId, RemoteKeyId, RequestId};
use super::pricing::Price;
use super::time::UnixMillis;

/// What a rightly signed body turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    Usage(UsageEvent),
    /// Something that moves no credits, and is logged all the same.
    Notice(Notice),
}

/// A body that is recorded as processed and never charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub event_id: EventId,
    pub kind: NoticeKind,
    /// The body as received.
    pub payload: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeKind {
    /// Ours: proves the path.
    Ping,
    /// A type that we don't know.
    UnknownType { event_type: String },
    /// new-api's notification to a user: its id is derived from its bytes.
    Notification { kind: String },
}

impl NoticeKind {
    /// The text stored as `errorMsg` and answered; none for a ping.
    pub fn message(&self) -> Option<String> {
        match self {
            NoticeKind::Ping => None,
            NoticeKind::UnknownType { event_type: kind } | NoticeKind::Notification { kind } => {
                Some(super::outcome::fit_column(&format!("Unknown event type: {kind}")))
            }
        }
    }
}

/// One call of one token, and its price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEvent {
    pub event_id: EventId,
    pub content: Content,
    pub request_id: Option<RequestId>,
    /// Id of the row in new-api's log, where the sender knows it.
    pub log_id: Option<i64>,
    /// The body as received: kept byte for byte.
    pub payload: Arc<str>,
}

/// What must agree for two deliveries of one id to be the same event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub remote_key_id: RemoteKeyId,
    /// Whole, however long: the shared tables get it cut.
    pub model: Arc<str>,
    pub tokens: Tokens,
    pub price: Price,
    /// The event's own time.
    pub called_at: UnixMillis,
}

/// Token counts, each within the platform's 32-bit columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tokens {
    pub prompt: i32,
    pub completion: i32,
    pub total: i32,
}
