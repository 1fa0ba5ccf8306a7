//! Spans that had agreed by their figures, and which of them are to be read after all. Which looks that takes is decided
//! here, for every database; what the spans rest on is in `proof`.
//!
//! A charge opens the agreed span that it falls into as it is written. Only one that was under way while the span was laid
//! goes by it: so each span is looked through for such charges until none can be under way any more, and then no more.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::StoreError;
use super::log::{SourceFilter, Span};
use super::proof::Proof;
use super::rows::parameter;
use crate::domain::time::UnixMillis;

/// Far longer than a charge may be under way.
const UNDER_WAY_AT_MOST: Duration = Duration::from_secs(600);

/// A row of `hookledger_spans` whose proof is `agreed`: first second, last second, milliseconds of the proof. As JSON, a
/// list of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct AgreedSpan(pub i64, pub i64, pub i64);

impl AgreedSpan {
    pub fn reopened(self) -> Span {
        Span { from_second: self.0, until_second: self.1, proof: Proof::Reopened }
    }
}

/// What each store looks up.
pub trait SpanLooks {
    /// The spans of this source that agreed, oldest first.
    async fn agreed(&self, of: &SourceFilter) -> Result<Vec<AgreedSpan>, StoreError>;

    /// Those of a list in which something was charged since their proof.
    async fn charged_since(&self, spans: &str) -> Result<Vec<AgreedSpan>, StoreError>;
}

/// Spans that no charge can have gone by. Each life of the process looks for itself.
#[derive(Debug, Default)]
pub struct CheckedSpans {
    spans: Mutex<HashMap<SourceFilter, HashSet<AgreedSpan>>>,
}

impl CheckedSpans {
    fn of(&self, of: &SourceFilter) -> HashSet<AgreedSpan> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).get(of).cloned().unwrap_or_default()
    }

    fn replace(&self, of: &SourceFilter, spans: HashSet<AgreedSpan>) {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).insert(of.clone(), spans);
    }
}

/// The agreed spans that are to be read: proved before `proved_before`, or something was charged in them since.
pub async fn stale(
    looks: &impl SpanLooks,
    checked: &CheckedSpans,
    of: &SourceFilter,
    proved_before: UnixMillis,
    now: UnixMillis,
) -> Result<Vec<AgreedSpan>, StoreError> {
    // A proof that is dated ahead of the clock says nothing of what came after it.
    let is_outdated = |span: &AgreedSpan| span.2 < proved_before.as_millis() || span.2 > now.as_millis();
    let (mut stale, current): (Vec<_>, Vec<_>) = looks.agreed(of).await?.into_iter().partition(is_outdated);
    let before = checked.of(of);
    let unchecked: Vec<AgreedSpan> = current.iter().filter(|span| !before.contains(span)).copied().collect();
    let charged = if unchecked.is_empty() { Vec::new() } else { looks.charged_since(&parameter(&unchecked)?).await? };
    let done_before = now.minus(UNDER_WAY_AT_MOST).as_millis();
    let is_checked = |span: &AgreedSpan| before.contains(span) || (span.2 <= done_before && !charged.contains(span));
    checked.replace(of, current.into_iter().filter(is_checked).collect());
    stale.extend(charged);
    stale.sort_unstable_by_key(|span| span.0);
    Ok(stale)
}
