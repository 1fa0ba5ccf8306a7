//! Spans that had agreed by their figures, and which of them are to be read after all. Which looks that takes is decided
//! here, for every database; what the spans rest on is in `proof`.
//!
//! A charge opens the agreed span that it falls into as it is written. One that was under way while the span was laid may
//! go by it: so each span is looked through for such charges until none can be under way any more, and then no more.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::StoreError;
use super::log::SourceFilter;
use super::rows::parameter;
use crate::domain::time::UnixMillis;

/// Twice as long as the database's longest deadline lets a charge be under way.
const UNDER_WAY_AT_MOST: Duration = Duration::from_secs(1200);

/// A row of `hookledger_spans` whose proof is `agreed`: first second, last second, milliseconds of the proof. As JSON, a
/// list of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct AgreedSpan(pub i64, pub i64, pub i64);

impl AgreedSpan {
    /// From rows of these three columns.
    pub fn listed(rows: Vec<(i64, i64, i64)>) -> Vec<Self> {
        rows.into_iter()
            .map(|(from_second, until_second, proved_at_ms)| Self(from_second, until_second, proved_at_ms))
            .collect()
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const MINUTE_MS: i64 = 60_000;

    /// Spans that agreed, which of them were charged since, and what was asked for.
    #[derive(Default)]
    struct Fake {
        agreed: Vec<AgreedSpan>,
        charged: Vec<AgreedSpan>,
        asked: RefCell<Vec<String>>,
    }

    impl SpanLooks for Fake {
        async fn agreed(&self, _of: &SourceFilter) -> Result<Vec<AgreedSpan>, StoreError> {
            Ok(self.agreed.clone())
        }

        async fn charged_since(&self, spans: &str) -> Result<Vec<AgreedSpan>, StoreError> {
            self.asked.borrow_mut().push(spans.to_owned());
            Ok(self.charged.clone())
        }
    }

    impl Fake {
        async fn stale(&self, checked: &CheckedSpans, now_ms: i64) -> Vec<AgreedSpan> {
            let of = SourceFilter { source: "s".to_owned(), filter: String::new() };
            let week_ago = UnixMillis::new(now_ms - 7 * 24 * 60 * MINUTE_MS);
            stale(self, checked, &of, week_ago, UnixMillis::new(now_ms)).await.unwrap()
        }
    }

    #[tokio::test]
    async fn a_span_is_looked_through_until_no_charge_can_have_gone_by_it() {
        let (proved, checked) = (1_000_000 * MINUTE_MS, CheckedSpans::default());
        let fake = Fake { agreed: vec![AgreedSpan(10, 20, proved)], ..Fake::default() };
        for minutes in [1, 19, 20, 21, 600] {
            assert_eq!(fake.stale(&checked, proved + minutes * MINUTE_MS).await, []);
        }
        assert_eq!(fake.asked.borrow().len(), 3, "at 1, 19 and 20 minutes");
        // Another life of the process knows nothing of that.
        fake.stale(&CheckedSpans::default(), proved + 601 * MINUTE_MS).await;
        assert_eq!(*fake.asked.borrow().last().unwrap(), format!("[[10,20,{proved}]]"));
        assert_eq!(fake.asked.borrow().len(), 4);
    }

    #[tokio::test]
    async fn what_was_charged_since_its_proof_is_stale_however_late_that_is_seen() {
        let (proved, checked) = (1_000_000 * MINUTE_MS, CheckedSpans::default());
        let (span, other) = (AgreedSpan(10, 20, proved), AgreedSpan(30, 40, proved));
        let fake = Fake { agreed: vec![span, other], charged: vec![span], ..Fake::default() };
        assert_eq!(fake.stale(&checked, proved + 600 * MINUTE_MS).await, [span]);
        // It was not reopened, as the pass was cut off: it is found again.
        assert_eq!(fake.stale(&checked, proved + 601 * MINUTE_MS).await, [span]);
    }

    #[tokio::test]
    async fn an_old_proof_is_stale_and_so_is_one_of_the_future() {
        let (proved, checked) = (1_000_000 * MINUTE_MS, CheckedSpans::default());
        let fake = Fake { agreed: vec![AgreedSpan(10, 20, proved)], ..Fake::default() };
        assert_eq!(fake.stale(&checked, proved - 1).await, fake.agreed);
        assert_eq!(fake.stale(&checked, proved + 8 * 24 * 60 * MINUTE_MS).await, fake.agreed);
    }
}
