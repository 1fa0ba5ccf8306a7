//! Holds the books against new-api's log over the time that is covered: figures first, and rows where they differ.
//!
//! Paced as any reading, and writes nothing. What differs is read again before it counts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::charges::second_text;
use super::matching::{Unmatched, unmatched};
use super::one_side::{deleted, missing, without_row};
use super::report::{AuditReport, Difference, SourceReport};
use super::source_error::SourceError;
use super::{AuditOptions, take_in};
use crate::config::{Live, Settings};
use crate::domain::log_row::{LogRow, RowIdentity, RowKind, number_rows};
use crate::gateway::{Gateway, Ids, Reading, Window};
use crate::polling::{Gap, Source, Verdict, another_gateway, compare_booked, covered_gaps};
use crate::storage::audit::{ClaimPlace, LoneEvent, ReadRow};
use crate::storage::log::{BookFigures, Proof, SourceFilter, Span};
use crate::storage::{Store, StoreError};

/// A span that differs and has at most this many rows, on either side, is read; a larger one is halved.
const READ_AT_MOST_ROWS: u64 = 500;

/// Where figures prove nothing, spans are halved down to this.
const READ_AT_MOST_SECS: i64 = 3600;

/// Rows of one such span that the books may have: of a second that cannot be halved, and of a little beside it.
const MOST_ROWS: usize = 500_000;

/// Rows or charges of one page.
const PAGE_ROWS: u32 = 2000;

/// What is summed by one statement.
const FIGURES_SECS: i64 = 24 * 3600;

/// Differences that are kept.
const MOST_KEPT: usize = 10_000;

/// Behind every id of a second.
const LAST_ID: &str = "~";

/// Compares what is covered, from the oldest row that the source still holds, and adds what it finds to the report.
pub async fn against_source(
    store: &dyn Store,
    settings: Settings,
    options: AuditOptions,
    report: &mut AuditReport,
) -> Result<(), SourceError> {
    let window_secs = i64::try_from(settings.polling.match_window.as_secs()).unwrap_or(i64::MAX);
    let source = Source::new(Live::new(settings));
    let gateway = source.gateway()?.ok_or(SourceError::NoGateway)?;
    // All rows of another one would be missing here, and all of ours there.
    if let Some(why) = another_gateway(&source, &gateway, store).await? {
        return Err(SourceError::AnotherGateway(why));
    }
    let of = source.source_filter();
    let mut told = SourceReport { source: of.source.clone(), ..SourceReport::default() };
    let spans = store.spans(&of).await?;
    let mut compared = Comparison::new(store, gateway, options, of, window_secs, spans.clone());
    for covered in covered_gaps(&spans) {
        let Some(held) = compared.held(covered).await? else {
            compared.note(format!(
                "new-api's log has no row left from {} to {}: nothing could be compared there.",
                second_text(covered.from_second),
                second_text(covered.until_second)
            ));
            continue;
        };
        if held.from_second > covered.from_second {
            let oldest = second_text(held.from_second);
            compared.note(format!("The oldest row that new-api's log still has is of {oldest}: compared since then."));
        }
        told.since = told.since.or(Some(second_text(held.from_second)));
        told.until = Some(second_text(held.until_second));
        compared.span(held, &mut told).await?;
        for read in spans.iter().filter(|span| span.proof == Proof::Read) {
            let from_second = read.from_second.max(held.from_second);
            let until_second = read.until_second.min(held.until_second);
            compared.lone_events(Gap { from_second, until_second }).await?;
        }
    }
    report.notes.append(&mut compared.notes);
    report.source = Some(told);
    report.unverified += compared.more;
    let found = compared.found;
    // Those that were accepted are known by now.
    let mut no_longer_found = std::mem::take(&mut report.no_longer_found);
    take_in(report, store, found, options.list_at_most).await?;
    let still: HashSet<String> = report.no_longer_found.iter().map(|one| one.id.clone()).collect();
    no_longer_found.retain(|one| still.contains(&one.id));
    report.no_longer_found = no_longer_found;
    Ok(())
}

struct Comparison<'a> {
    store: &'a dyn Store,
    gateway: Arc<dyn Gateway>,
    options: AuditOptions,
    of: SourceFilter,
    /// How far the times of an event and its row may lie apart.
    window_secs: i64,
    spans: Vec<Span>,
    /// An earlier stretch has rows at the source: what is gone of a later one was not cleared from the beginning.
    has_earlier_rows: bool,
    found: Vec<Difference>,
    told: HashSet<String>,
    /// Differences beyond those that are kept.
    more: u64,
    /// Charges of events whose rows were found although nobody read them, or not yet.
    explained: HashSet<String>,
    notes: Vec<String>,
}

impl<'a> Comparison<'a> {
    fn new(
        store: &'a dyn Store,
        gateway: Arc<dyn Gateway>,
        options: AuditOptions,
        of: SourceFilter,
        window_secs: i64,
        spans: Vec<Span>,
    ) -> Self {
        let (found, told, explained, notes) = Default::default();
        let (has_earlier_rows, more) = (false, 0);
        Comparison {
            store,
            gateway,
            options,
            of,
            window_secs,
            spans,
            has_earlier_rows,
            found,
            told,
            more,
            explained,
            notes,
        }
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Each once.
    fn tell(&mut self, difference: Difference) {
        if self.told.contains(&difference.id) {
            return;
        }
        if self.found.len() < MOST_KEPT {
            self.told.insert(difference.id.clone());
            self.found.push(difference);
        } else {
            self.more += 1;
        }
    }

    /// The part of a span from the oldest row that the source still has; none: it has no row there.
    async fn held(&mut self, gap: Gap) -> Result<Option<Gap>, SourceError> {
        let books = self.booked(gap).await?.figures;
        let Some(all) = self.rows(gap).await? else { return Ok(Some(gap)) };
        if self.has_earlier_rows {
            return Ok(Some(gap));
        }
        self.has_earlier_rows = all > 0;
        if all == 0 {
            return Ok((books.rows == 0).then_some(gap));
        }
        // Where the log goes back as far as the books do, all is compared; else what follows the oldest row that is left.
        let Some(first) = self.first_known(gap).await? else { return Ok(Some(gap)) };
        if self.rows(Gap { until_second: first, ..gap }).await?.is_none_or(|rows| rows > 0) {
            return Ok(Some(gap));
        }
        let (mut low, mut high) = (gap.from_second, gap.until_second);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.rows(Gap { until_second: middle, ..gap }).await? {
                Some(0) => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(Some(Gap { from_second: low, ..gap }))
    }

    /// The second of the first call of a span that the books know of.
    async fn first_known(&self, gap: Gap) -> Result<Option<i64>, SourceError> {
        let Gap { from_second, until_second } = gap;
        let row = self.store.read_rows(&self.of, from_second, until_second, 1).await?;
        let first_row = row.first().map(|row| row.second);
        let until_second = first_row.unwrap_or(until_second);
        let mut after = ClaimPlace { call_second: from_second - 1, id: LAST_ID.to_owned() };
        loop {
            let (events, next) = self.store.lone_events(&after, until_second, PAGE_ROWS).await?;
            match (events.first(), next) {
                (Some(event), _) => return Ok(Some(event.call_second)),
                (None, None) => return Ok(first_row),
                (None, Some(next)) => after = next,
            }
        }
    }

    async fn rows(&self, gap: Gap) -> Result<Option<u64>, SourceError> {
        let Some(window) = Window::new(gap.from_second, gap.until_second) else { return Ok(Some(0)) };
        let Some(calls) = self.gateway.count(window, RowKind::Consumption).await? else { return Ok(None) };
        if calls > 0 {
            return Ok(Some(calls));
        }
        Ok(self.gateway.count(window, RowKind::Refund).await?)
    }

    /// Halves what differs until it is small enough to be read.
    async fn span(&mut self, gap: Gap, told: &mut SourceReport) -> Result<(), SourceError> {
        let mut left = vec![gap];
        while let Some(gap) = left.pop() {
            let booked = self.booked(gap).await?;
            match compare_booked(self.gateway.as_ref(), gap, booked).await? {
                Verdict::Agreed(_) => told.spans_agreed += 1,
                Verdict::Differs(rows) if is_to_be_halved(gap, rows, booked) => {
                    left.extend(gap.halves().into_iter().rev());
                }
                Verdict::Differs(_) | Verdict::ReadFirst(_) | Verdict::ReadLast(_) => {
                    told.spans_read += 1;
                    let first = self.compare_rows(gap).await?;
                    if !first.is_empty() {
                        let again: HashSet<String> =
                            self.compare_rows(gap).await?.into_iter().map(|one| one.id).collect();
                        first.into_iter().filter(|one| again.contains(&one.id)).for_each(|one| self.tell(one));
                    }
                }
            }
        }
        Ok(())
    }

    /// What the books expect of a span, summed by short statements however long it is.
    async fn booked(&self, gap: Gap) -> Result<BookFigures, StoreError> {
        let (mut booked, mut from_second) = (BookFigures::default(), gap.from_second);
        while from_second <= gap.until_second {
            let started = Instant::now();
            let until_second = gap.until_second.min(from_second.saturating_add(FIGURES_SECS - 1));
            booked = booked.and(self.store.figures(&self.of, from_second, until_second).await?);
            from_second = until_second + 1;
            self.options.rest(started.elapsed()).await;
        }
        Ok(booked)
    }

    /// Rows that only one side has.
    async fn compare_rows(&mut self, gap: Gap) -> Result<Vec<Difference>, SourceError> {
        // An event may lie a little beside its row. Where every row was read, that is no matter.
        let beside = Gap {
            from_second: (gap.from_second - self.window_secs).max(0),
            until_second: gap.until_second + self.window_secs,
        };
        let wide = if self.were_read(beside) { gap } else { beside };
        let is_within = |second: i64| (gap.from_second..=gap.until_second).contains(&second);
        let rows = self.read(wide).await?;
        let Some(known) = self.known(wide).await? else { return Ok(Vec::new()) };
        let mut unowned: HashMap<(i64, i64, bool), i64> = HashMap::new();
        for second in self.store.unowned_seconds(&self.of, wide.from_second, wide.until_second).await? {
            *unowned.entry((second.second, second.remote_key_id, false)).or_default() += second.rows;
            *unowned.entry((second.second, second.remote_key_id, true)).or_default() += second.refunds;
        }
        let events = self.events(beside.from_second, beside.until_second).await?;
        let identity = |row: &ReadRow| (row.second, row.digest.clone(), row.number);
        let known_ids: HashSet<_> = known.iter().map(identity).collect();
        let mut at_source = HashSet::new();
        let (mut unknown_ids, mut unknown) = (Vec::new(), Vec::new());
        for (id, row) in rows {
            let place = (id.second, id.digest.as_str().to_owned(), i64::from(id.number));
            let is_known = known_ids.contains(&place);
            at_source.insert(place);
            let counted = unowned.entry((row.second, row.token.get(), row.kind == RowKind::Refund)).or_default();
            if !is_known && *counted > 0 {
                *counted -= 1;
            } else if !is_known {
                unknown_ids.push(id);
                unknown.push(row);
            }
        }
        // Where figures proved a span, its events stand for their rows: each for one.
        let left = unmatched(&unknown, &events, self.window_secs);
        let Unmatched { rows: rows_left, events: events_left, matched_events } = left;
        self.explained.extend(matched_events.iter().map(|place| events[*place].claim_id.clone()));
        let is_missing = |place: &&usize| is_within(unknown[**place].second);
        let mut found: Vec<Difference> =
            rows_left.iter().filter(is_missing).map(|place| missing(&unknown_ids[*place], &unknown[*place])).collect();
        let is_gone = |row: &&ReadRow| is_within(row.second) && !at_source.contains(&identity(row));
        found.extend(known.iter().filter(is_gone).map(deleted));
        let is_alone = |event: &&LoneEvent| is_within(event.call_second) && !self.was_read(event.call_second);
        found.extend(events_left.iter().map(|place| &events[*place]).filter(is_alone).map(without_row));
        Ok(found)
    }

    /// Rows of a span that the books have; none where they are too many to be held.
    async fn known(&mut self, gap: Gap) -> Result<Option<Vec<ReadRow>>, SourceError> {
        let mut known: Vec<ReadRow> = Vec::new();
        let (mut from_second, mut limit) = (gap.from_second, PAGE_ROWS);
        while known.len() + limit as usize <= MOST_ROWS {
            let page = self.store.read_rows(&self.of, from_second, gap.until_second, limit).await?;
            let last = page.last().map(|row| row.second).filter(|_| page.len() >= limit as usize);
            match last {
                None => {
                    known.extend(page);
                    return Ok(Some(known));
                }
                // A second may go on beyond its page: it is looked at as a whole.
                Some(last) if last > from_second => {
                    known.extend(page.into_iter().filter(|row| row.second < last));
                    from_second = last;
                }
                Some(_) => limit = limit.saturating_mul(2),
            }
        }
        let (from, until) = (second_text(gap.from_second), second_text(gap.until_second));
        self.note(format!("From {from} to {until} the books have more than {MOST_ROWS} rows: they were not compared."));
        self.more += 1;
        Ok(None)
    }

    async fn read(&mut self, gap: Gap) -> Result<Vec<(RowIdentity, LogRow)>, SourceError> {
        let Some(window) = Window::new(gap.from_second, gap.until_second) else { return Ok(Vec::new()) };
        let (mut rows, mut unreadable) = (Vec::new(), 0);
        for kind in [RowKind::Consumption, RowKind::Refund] {
            let mut reading = Reading::new(self.gateway.clone(), window, kind, Ids::Unknown);
            while let Some(piece) = reading.next_piece().await? {
                unreadable += piece.unreadable.len();
                rows.extend(piece.rows);
            }
        }
        if unreadable > 0 {
            let (from, until) = (second_text(gap.from_second), second_text(gap.until_second));
            self.note(format!("{unreadable} rows of new-api's log from {from} to {until} cannot be read."));
        }
        rows.sort_by_key(|row| row.second);
        Ok(number_rows(&Arc::from(self.of.source.as_str()), rows))
    }

    /// Charges of events of which no row tells.
    async fn events(&self, from_second: i64, until_second: i64) -> Result<Vec<LoneEvent>, SourceError> {
        let mut after = ClaimPlace { call_second: from_second - 1, id: LAST_ID.to_owned() };
        let mut events = Vec::new();
        loop {
            let (page, next) = self.store.lone_events(&after, until_second, PAGE_ROWS).await?;
            events.extend(page);
            match next {
                Some(next) => after = next,
                None => return Ok(events),
            }
        }
    }

    fn was_read(&self, second: i64) -> bool {
        self.were_read(Gap { from_second: second, until_second: second })
    }

    /// Spans that touch are one.
    fn were_read(&self, gap: Gap) -> bool {
        let holds = |span: &Span| {
            span.proof == Proof::Read && span.from_second <= gap.from_second && gap.until_second <= span.until_second
        };
        self.spans.iter().any(holds)
    }

    /// Where every row was read, an event without one has none at the source.
    async fn lone_events(&mut self, gap: Gap) -> Result<(), SourceError> {
        if gap.from_second > gap.until_second {
            return Ok(());
        }
        let mut after = ClaimPlace { call_second: gap.from_second - 1, id: LAST_ID.to_owned() };
        loop {
            let started = Instant::now();
            let (page, next) = self.store.lone_events(&after, gap.until_second, PAGE_ROWS).await?;
            for event in page.iter().filter(|event| !self.explained.contains(&event.claim_id)).collect::<Vec<_>>() {
                self.tell(without_row(event));
            }
            match next {
                Some(next) => after = next,
                None => return Ok(()),
            }
            self.options.rest(started.elapsed()).await;
        }
    }
}

fn is_to_be_halved(gap: Gap, rows: Option<u64>, booked: BookFigures) -> bool {
    let seconds = gap.until_second - gap.from_second;
    let known = booked.figures.rows.saturating_add(booked.figures.refunds).unsigned_abs();
    let is_large = rows.map_or(seconds > READ_AT_MOST_SECS, |rows| rows > READ_AT_MOST_ROWS);
    seconds > 0 && (is_large || known > READ_AT_MOST_ROWS)
}
