//! Proof by figures: a span whose three figures agree with the books needs no reading.

use std::time::Duration;

use super::gaps::Gap;
use crate::domain::log_row::RowKind;
use crate::domain::planted;
use crate::domain::time::UnixMillis;
use crate::gateway::{Gateway, GatewayError, Window};
use crate::storage::log::{BookFigures, Figures, SourceFilter};
use crate::storage::{LogStore, StoreError, skew};

/// No event may lie nearer to either end than this: its row might lie beyond.
const LEAST_MARGIN_SECS: i64 = 2;

/// How far back from its end a span is shortened to end in a gap.
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
    /// It has to be read. How many rows the source says it has, if it says so.
    Differs(Option<u64>),
    /// Calls are too near to its beginning or end: this part is read, and the rest looked at by itself.
    ReadFirst(Gap),
    ReadLast(Gap),
}

/// No event may lie nearer to an end of a span than events and rows were seen apart, as far as they may be tied at all.
pub async fn margin_secs(store: &dyn LogStore, match_window: Duration, now: UnixMillis) -> Result<i64, StoreError> {
    let most = i64::try_from(match_window.as_secs()).unwrap_or(i64::MAX).max(LEAST_MARGIN_SECS);
    Ok(skew::largest_secs(store, now).await?.map_or(LEAST_MARGIN_SECS, |seen| seen.clamp(LEAST_MARGIN_SECS, most)))
}

/// Compares the source's figures with the books.
pub async fn compare(
    gateway: &dyn Gateway,
    store: &dyn LogStore,
    of: &SourceFilter,
    gap: Gap,
    margin_secs: i64,
) -> Result<Verdict, FiguresError> {
    match in_gaps(store, gap, margin_secs).await? {
        Quiet::Span(gap) => compare_covered(gateway, store, of, gap).await,
        Quiet::From(until_second) => Ok(Verdict::ReadFirst(Gap { until_second, ..gap })),
        Quiet::Until(from_second) => Ok(Verdict::ReadLast(Gap { from_second, ..gap })),
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
    Ok(compare_booked(gateway, gap, book).await?)
}

/// The same, with what the books expect of the span.
pub async fn compare_booked(gateway: &dyn Gateway, gap: Gap, book: BookFigures) -> Result<Verdict, GatewayError> {
    if book.priced_in_credits > 0 || (book.waiting_rows > 0 && !planted::is_on("waiting_rows_prove")) {
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

/// Rows that were read and are no longer in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowsMissing {
    pub count: i64,
    /// Between which seconds, where there are any.
    pub from_second: i64,
    pub until_second: i64,
}

impl RowsMissing {
    pub fn add(&mut self, count: i64, gap: Gap) {
        if count > 0 {
            let is_first = self.count == 0;
            self.from_second = if is_first { gap.from_second } else { self.from_second.min(gap.from_second) };
            self.until_second = self.until_second.max(gap.until_second);
            self.count += count;
        }
    }
}

/// How many rows fewer the source has of a span than the books know of; none where it does not say how many it has.
pub async fn missing_rows(
    gateway: &dyn Gateway,
    store: &dyn LogStore,
    of: &SourceFilter,
    gap: Gap,
) -> Result<i64, FiguresError> {
    let book = store.figures(of, gap.from_second, gap.until_second).await?;
    let Some(window) = Window::new(gap.from_second, gap.until_second) else { return Ok(0) };
    let said = gateway.count(window, RowKind::Consumption).await?.and_then(|rows| i64::try_from(rows).ok());
    Ok(said.map_or(0, |said| (book.figures.rows - said).max(0)))
}

/// Where a span begins and ends in quiet.
enum Quiet {
    /// Here, which may be a little before its end.
    Span(Gap),
    /// Its beginning, up to this second, is too busy.
    From(i64),
    /// Its end, from this second on, is too busy.
    Until(i64),
}

async fn in_gaps(store: &dyn LogStore, gap: Gap, margin_secs: i64) -> Result<Quiet, StoreError> {
    let begin = gap.from_second;
    let latest_begin = (begin + LONGEST_SHORTENING_SECS).min(gap.until_second);
    let seconds = store.event_seconds(begin - margin_secs, latest_begin + margin_secs).await?;
    match first_quiet_begin(&seconds, begin, latest_begin, margin_secs) {
        Some(quiet) if quiet == begin => {}
        Some(quiet) => return Ok(Quiet::From(quiet - 1)),
        None => return Ok(Quiet::From(latest_begin)),
    }
    let earliest_end = (gap.until_second - LONGEST_SHORTENING_SECS).max(begin);
    let seconds = store.event_seconds(earliest_end - margin_secs, gap.until_second + margin_secs).await?;
    Ok(match last_quiet_end(&seconds, earliest_end, gap.until_second, margin_secs) {
        Some(until_second) => Quiet::Span(Gap { until_second, ..gap }),
        None => Quiet::Until(earliest_end),
    })
}

/// The earliest second at or after `begin` around whose beginning no event lies.
fn first_quiet_begin(event_seconds: &[i64], begin: i64, latest: i64, margin_secs: i64) -> Option<i64> {
    let mut candidate = begin;
    for second in event_seconds {
        if *second >= candidate + margin_secs {
            break;
        }
        if *second >= candidate - margin_secs {
            candidate = second + margin_secs + 1;
        }
    }
    (candidate <= latest).then_some(candidate)
}

/// The latest second at or before `end` around whose end no event lies.
fn last_quiet_end(event_seconds: &[i64], earliest: i64, end: i64, margin_secs: i64) -> Option<i64> {
    let mut candidate = end;
    for second in event_seconds.iter().rev() {
        // The boundary lies between the candidate and the second after it.
        if *second > candidate + margin_secs {
            continue;
        }
        if *second <= candidate - margin_secs {
            break;
        }
        candidate = second - margin_secs - 1;
    }
    (candidate >= earliest).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_ends_where_no_event_is_near() {
        assert_eq!(last_quiet_end(&[], 0, 100, 2), Some(100));
        assert_eq!(last_quiet_end(&[98], 0, 100, 2), Some(100));
        assert_eq!(last_quiet_end(&[99], 0, 100, 2), Some(96));
        assert_eq!(last_quiet_end(&[95, 99, 102], 0, 100, 2), Some(92));
        assert_eq!(last_quiet_end(&[103], 0, 100, 2), Some(100));
        assert_eq!(first_quiet_begin(&[], 0, 100, 2), Some(0));
        assert_eq!(first_quiet_begin(&[2], 0, 100, 2), Some(0));
        assert_eq!(first_quiet_begin(&[-2], 0, 100, 2), Some(1));
        assert_eq!(first_quiet_begin(&[1, 4, 8], 0, 100, 2), Some(11));
        assert_eq!(first_quiet_begin(&[1, 4, 9], 0, 100, 2), Some(7));
        let crowded: Vec<i64> = (0..=100).collect();
        assert_eq!(last_quiet_end(&crowded, 0, 100, 2), None);
        assert_eq!(first_quiet_begin(&crowded, 0, 100, 2), None);
    }
}
