//! What the books know of an event id, and whether a delivery is a repeat of it or contradicts it.

use std::collections::HashMap;

use super::event::{Content, NoticeKind, UsageEvent};
use super::ids::{EventId, RecordId};
use super::outcome::InboxStatus;
use super::planted;

/// What is stored under an event id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownEvent {
    /// In the inbox, not settled: pending, failed or dead.
    Open(OpenEvent),
    /// Charged. The content is known while the inbox keeps the row.
    Charged { content: Option<Content> },
    /// Processed without a charge: its token is ignored, or a person dismissed it.
    Closed { content: Option<Content>, message: String },
    /// In `webhook_logs` without a charge of ours: a notice, or another program's row, which counts as a repeat.
    Logged { notice: Option<NoticeKind> },
}

/// An inbox row that waits for its settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenEvent {
    /// `webhook_logs.id`
    pub inbox_id: RecordId,
    pub status: InboxStatus,
    /// `webhook_logs.errorMsg`
    pub message: Option<String>,
    /// Errors so far.
    pub attempts: u32,
    /// It waits because several users have its token.
    pub is_ambiguous: bool,
    /// Absent if the stored payload cannot be read any more.
    pub content: Option<Content>,
}

/// What is known of the ids of one batch.
pub type KnownEvents = HashMap<EventId, KnownEvent>;

/// How a usage event stands to what is known of its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    New,
    Open(OpenEvent),
    Charged,
    /// Processed without a charge, for the reason given.
    Closed(String),
    Conflicting,
}

/// Compares a usage event with what is stored under its id.
pub fn standing(known: Option<&KnownEvent>, event: &UsageEvent) -> Standing {
    let differs = |content: &Option<Content>| content.as_ref().is_some_and(|content| *content != event.content);
    match known {
        None => Standing::New,
        Some(KnownEvent::Open(open)) if differs(&open.content) => Standing::Conflicting,
        Some(KnownEvent::Open(open)) => Standing::Open(open.clone()),
        Some(KnownEvent::Charged { content }) if differs(content) => Standing::Conflicting,
        Some(KnownEvent::Closed { content, .. }) if differs(content) => Standing::Conflicting,
        Some(KnownEvent::Closed { message, .. }) => Standing::Closed(message.clone()),
        Some(KnownEvent::Charged { .. }) if planted::is_on("repeat_is_new") => Standing::New,
        Some(KnownEvent::Charged { .. } | KnownEvent::Logged { notice: None }) => Standing::Charged,
        Some(KnownEvent::Logged { notice: Some(_) }) => Standing::Conflicting,
    }
}
