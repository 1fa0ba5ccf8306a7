//! What a person decides where nothing told: of a disputed side, of a row that could not be booked, of a refund without
//! its charge. How it is carried out is in `planner_decisions`.

use std::sync::Arc;

use super::event::UsageEvent;
use super::ids::{RecordId, RemoteKeyId};
use super::log_row::{RowDigest, RowIdentity};
use super::log_snapshot::NumberedRow;
use super::money::Credits;
use super::time::UnixMillis;

/// What is decided about, whole.
#[derive(Debug, Clone)]
pub enum Subject {
    Event(Arc<UsageEvent>),
    Row(Arc<NumberedRow>),
}

impl Subject {
    pub fn token(&self) -> RemoteKeyId {
        match self {
            Subject::Event(event) => event.content.remote_key_id,
            Subject::Row(row) => row.row.token,
        }
    }

    pub fn called_at(&self) -> UnixMillis {
        match self {
            Subject::Event(event) => event.content.called_at,
            Subject::Row(row) => UnixMillis::new(row.row.second.saturating_mul(1000)),
        }
    }
}

/// What is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the call of the alike charge: of this one, or of the nearest.
    Tie { with: Option<RecordId> },
    /// It is a call of its own.
    Charge,
    /// It is closed without a charge.
    Dismiss { reason: Option<Arc<str>> },
}

/// What a person decided of one subject.
#[derive(Debug, Clone)]
pub struct Decision {
    pub subject: Subject,
    pub verdict: Verdict,
}

/// What carrying out a decision came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecisionOutcome {
    /// By this very commit; whole credits that it deducted, below zero where it gave some back.
    Done {
        credits: Credits,
    },
    /// It was settled before, by a person or by itself: nothing moved.
    Settled,
    Refused(DecisionRefusal),
}

/// Why a decision is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecisionRefusal {
    #[error("waits for no person's decision: {0}")]
    NotDisputed(String),
    #[error("is {0} already")]
    Settled(&'static str),
    #[error("has no alike charge any more: charge it, or dismiss it")]
    NothingAlike,
    #[error("and the charge {0} may not be the same call, or that has both its sides")]
    NotAlike(RecordId),
    #[error("is a refund, and is given back by itself when its charge is found: `dismiss` closes it")]
    IsRefund,
    #[error("could not be booked, and has nothing to be tied to: charge it, or dismiss it")]
    IsFailed,
    #[error("is from before the platform's books were taken over: the platform billed it")]
    BeforeTakeover,
    #[error("cannot be charged: {0}")]
    NotChargeable(String),
    #[error("waits for another program that holds the user's row: ask again")]
    Busy,
}

/// How the id of a row begins.
const ROW: &str = "row";

/// The source of rows whose ids name none.
const DEFAULT_SOURCE: &str = "default";

/// The id under which a person names a row: `row:<second>:<digest>:<number>`, and the source where that has a name.
pub fn row_id(identity: &RowIdentity) -> String {
    let RowIdentity { source, second, digest, number } = identity;
    let source = if &**source == DEFAULT_SOURCE { String::new() } else { format!(":{source}") };
    format!("{ROW}:{second}:{}:{number}{source}", digest.as_str())
}

/// The row that an id names; none where it is no row's id.
pub fn parse_row_id(id: &str) -> Option<RowIdentity> {
    let mut parts = id.splitn(5, ':');
    let (kind, second, digest, number) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_digest = digest.len() == RowDigest::LENGTH && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if kind != ROW || !is_digest {
        return None;
    }
    let (second, number) = (second.parse().ok()?, number.parse().ok()?);
    let source = Arc::from(parts.next().unwrap_or(DEFAULT_SOURCE));
    Some(RowIdentity { source, second, digest: RowDigest::of_text(digest), number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rows_id_names_that_row_and_no_event() {
        let digest = RowDigest::of_text("0123456789abcdef0123456789abcdef");
        for source in ["default", "second", "a:b"] {
            let identity = RowIdentity { source: source.into(), second: 7, digest: digest.clone(), number: 2 };
            assert_eq!(parse_row_id(&row_id(&identity)), Some(identity));
        }
        for other in ["evt-1", "row:7:abc:0", "row:x:0123456789abcdef0123456789abcdef:0", "row"] {
            assert_eq!(parse_row_id(other), None, "{other}");
        }
    }
}
