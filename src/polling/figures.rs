//! Proof by figures: a span whose three figures agree with the books needs no reading.

use super::gaps::Gap;
use crate::domain::log_row::RowKind;
use crate::gateway::{Gateway, GatewayError, Window};
use crate::storage::log::{Figures, SourceFilter};
use crate::storage::{LogStore, StoreError};

/// No event may lie this near to either end: its row might lie beyond.
const MARGIN_SECS: i64 = 2;

/// How far a span is shortened at either end to begin and end in a gap.
const LONGEST_SHORTENING_SECS: i64 = 900;

/// Why figures could not be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FiguresError {
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The part of the span that is proved: it begins where the span does, and may end before it.
    Agreed(Gap),
    /// It begins among events: it has to be read up to this second, included, and the rest may be compared.
    BeginsAmongEvents(i64),
    /// It has to be read. How many rows the source says it has, if it says so.
    Differs(Option<u64>),
}

/// Compares the source's figures with the books.
pub async fn compare(
    gateway: &dyn Gateway,
    store: &dyn LogStore,
    of: &SourceFilter,
    gap: Gap,
) -> Result<Verdict, FiguresError> {
    let latest_begin = gap.from_second.saturating_add(LONGEST_SHORTENING_SECS).min(gap.until_second);
    let seconds = store.event_seconds(gap.from_second - MARGIN_SECS, latest_begin + MARGIN_SECS).await?;
    match first_quiet_begin(&seconds, gap.from_second, latest_begin) {
        Some(begin) if begin == gap.from_second => {}
        Some(begin) => return Ok(Verdict::BeginsAmongEvents(begin - 1)),
        None => return Ok(Verdict::Differs(None)),
    }
    match ending_in_a_gap(store, gap).await? {
        Some(gap) => compare_covered(gateway, store, of, gap).await,
        None => Ok(Verdict::Differs(None)),
    }
}

/// The same for a span that is covered: its ends are where they are.
pub async fn compare_covered(
    gateway: &dyn Gateway,
    store: &dyn LogStore,
    of: &SourceFilter,
    gap: Gap,
) -> Result<Verdict, FiguresError> {
    let book = store.figures(of, gap.from_second, gap.until_second).await?;
    if book.priced_in_credits > 0 {
        return Ok(Verdict::Differs(None));
    }
    let Some(window) = Window::new(gap.from_second, gap.until_second) else { return Ok(Verdict::Differs(None)) };
    let Some(rows) = gateway.count(window, RowKind::Consumption).await? else { return Ok(Verdict::Differs(None)) };
    if i64::try_from(rows).ok() != Some(book.figures.rows) {
        return Ok(Verdict::Differs(Some(rows)));
    }
    let units = gateway.quota_sum(window).await?;
    // A database fault at the gateway answers 0 as well.
    let proves_nothing = units == 0 && rows > 0;
    let refunds = gateway.count(window, RowKind::Refund).await?.and_then(|refunds| i64::try_from(refunds).ok());
    let said = refunds.map(|refunds| Figures { rows: book.figures.rows, units, refunds });
    match said == Some(book.figures) && !proves_nothing {
        true => Ok(Verdict::Agreed(gap)),
        false => Ok(Verdict::Differs(Some(rows))),
    }
}

/// The span, shortened so that no event lies near its end. None where one lies all along it.
async fn ending_in_a_gap(store: &dyn LogStore, gap: Gap) -> Result<Option<Gap>, StoreError> {
    let earliest_end = (gap.until_second - LONGEST_SHORTENING_SECS).max(gap.from_second);
    let seconds = store.event_seconds(earliest_end - MARGIN_SECS, gap.until_second + MARGIN_SECS).await?;
    Ok(last_quiet_end(&seconds, earliest_end, gap.until_second).map(|until_second| Gap { until_second, ..gap }))
}

/// The first second at or after `begin` before which no event is near.
fn first_quiet_begin(event_seconds: &[i64], begin: i64, latest: i64) -> Option<i64> {
    let mut candidate = begin;
    for second in event_seconds {
        // The boundary lies between the candidate and the second before it.
        if *second < candidate - MARGIN_SECS {
            continue;
        }
        if *second >= candidate + MARGIN_SECS {
            break;
        }
        candidate = second + MARGIN_SECS + 1;
    }
    (candidate <= latest).then_some(candidate)
}

/// The latest second at or before `end` around whose end no event lies.
fn last_quiet_end(event_seconds: &[i64], earliest: i64, end: i64) -> Option<i64> {
    let mut candidate = end;
    for second in event_seconds.iter().rev() {
        // The boundary lies between the candidate and the second after it.
        if *second > candidate + MARGIN_SECS {
            continue;
        }
        if *second <= candidate - MARGIN_SECS {
            break;
        }
        candidate = second - MARGIN_SECS - 1;
    }
    (candidate >= earliest).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_begins_where_no_event_is_near() {
        assert_eq!(first_quiet_begin(&[], 0, 100), Some(0));
        assert_eq!(first_quiet_begin(&[-3, 2], 0, 100), Some(0));
        assert_eq!(first_quiet_begin(&[1], 0, 100), Some(4));
        assert_eq!(first_quiet_begin(&[-2, 2, 5], 0, 100), Some(8));
        assert_eq!(first_quiet_begin(&[-2, 4], 0, 100), Some(1), "that is how far the margin reaches");
        let crowded: Vec<i64> = (0..=110).collect();
        assert_eq!(first_quiet_begin(&crowded, 0, 100), None);
    }

    #[test]
    fn a_span_ends_where_no_event_is_near() {
        assert_eq!(last_quiet_end(&[], 0, 100), Some(100));
        assert_eq!(last_quiet_end(&[98], 0, 100), Some(100));
        assert_eq!(last_quiet_end(&[99], 0, 100), Some(96));
        assert_eq!(last_quiet_end(&[95, 99, 102], 0, 100), Some(92));
        assert_eq!(last_quiet_end(&[103], 0, 100), Some(100));
        let crowded: Vec<i64> = (0..=100).collect();
        assert_eq!(last_quiet_end(&crowded, 0, 100), None);
    }
}
