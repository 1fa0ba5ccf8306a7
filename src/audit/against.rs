//! Holds the books against new-api's log over the time that is covered: figures first, and rows where they differ.
//!
//! Paced as any reading, and writes nothing. What differs is read again before it counts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::charges::second_text;
use super::report::{AuditReport, Difference, DifferenceKind, SourceReport};
use super::{AuditOptions, take_in};
use crate::config::{Live, Settings};
use crate::domain::log_row::{LogRow, RowIdentity, RowKind, number_rows};
use crate::domain::money::FEMTOS_PER_CREDIT;
use crate::gateway::{Gateway, GatewayError, Ids, Reading, ReadingError, Window};
use crate::polling::{FiguresError, Gap, Source, Verdict, compare_covered, covered_gaps};
use crate::storage::audit::{ClaimPlace, LoneEvent, ReadRow};
use crate::storage::log::{Proof, SourceFilter, Span};
use crate::storage::{Store, StoreError};

/// A span that differs and has at most this many rows is read; a larger one is halved.
const READ_AT_MOST_ROWS: u64 = 500;

/// Where figures prove nothing, spans are halved down to this.
const READ_AT_MOST_SECS: i64 = 3600;

/// Rows of one such span that the books may have.
const MOST_ROWS: u32 = 20_000;

/// Charges of one page.
const PAGE_ROWS: u32 = 2000;

/// Behind every id of a second.
const LAST_ID: &str = "~";

/// Why the log could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("no gateway is configured: set newapi.base_url, newapi.access_token and newapi.user_id")]
    NoGateway,
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Reading(#[from] ReadingError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<FiguresError> for SourceError {
    fn from(error: FiguresError) -> Self {
        match error {
            FiguresError::Gateway(error) => SourceError::Gateway(error),
            FiguresError::Store(error) => SourceError::Store(error),
        }
    }
}

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
    let of = source.source_filter();
    let mut told = SourceReport { source: of.source.clone(), ..SourceReport::default() };
    let spans = store.spans(&of).await?;
    let (found, notes) = (Vec::new(), Vec::new());
    let mut compared = Comparison { store, gateway, of, window_secs, spans: spans.clone(), found, notes };
    for covered in covered_gaps(&spans) {
        let Some(held) = compared.held(covered).await? else {
            compared.notes.push(format!(
                "new-api's log has no row left from {} to {}: nothing could be compared there.",
                second_text(covered.from_second),
                second_text(covered.until_second)
            ));
            continue;
        };
        if held.from_second > covered.from_second {
            let oldest = second_text(held.from_second);
            compared
                .notes
                .push(format!("The oldest row that new-api's log still has is of {oldest}: compared since then."));
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
    // Those that were accepted are known by now.
    let mut told = HashSet::new();
    let found = compared.found.into_iter().filter(|one| told.insert(one.id.clone())).collect();
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
    of: SourceFilter,
    /// How far the times of an event and its row may lie apart.
    window_secs: i64,
    spans: Vec<Span>,
    found: Vec<Difference>,
    notes: Vec<String>,
}

impl Comparison<'_> {
    /// The part of a span from the oldest row that the source still has; none: it has no row there.
    async fn held(&self, gap: Gap) -> Result<Option<Gap>, SourceError> {
        let books = self.store.figures(&self.of, gap.from_second, gap.until_second).await?.figures;
        let Some(all) = self.rows(gap).await? else { return Ok(Some(gap)) };
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
        let after = ClaimPlace { call_second: from_second - 1, id: LAST_ID.to_owned() };
        let event = self.store.lone_events(&after, until_second, 1).await?;
        Ok(row.iter().map(|row| row.second).chain(event.iter().map(|event| event.call_second)).min())
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
            let is_divisible = gap.from_second < gap.until_second;
            match compare_covered(self.gateway.as_ref(), self.store, &self.of, gap).await? {
                Verdict::Agreed(_) => told.spans_agreed += 1,
                Verdict::Differs(rows)
                    if is_divisible
                        && rows.map_or(gap.until_second - gap.from_second > READ_AT_MOST_SECS, |rows| {
                            rows > READ_AT_MOST_ROWS
                        }) =>
                {
                    left.extend(gap.halves().into_iter().rev());
                }
                Verdict::Differs(_) | Verdict::ReadFirst(_) | Verdict::ReadLast(_) => {
                    told.spans_read += 1;
                    let first = self.compare_rows(gap).await?;
                    if !first.is_empty() {
                        let again: HashSet<String> =
                            self.compare_rows(gap).await?.into_iter().map(|one| one.id).collect();
                        self.found.extend(first.into_iter().filter(|one| again.contains(&one.id)));
                    }
                }
            }
        }
        Ok(())
    }

    /// Rows that only one side has.
    async fn compare_rows(&mut self, gap: Gap) -> Result<Vec<Difference>, SourceError> {
        // An event may lie a little beside its row.
        let (from_second, until_second) = (gap.from_second - self.window_secs, gap.until_second + self.window_secs);
        let is_within = |second: i64| (gap.from_second..=gap.until_second).contains(&second);
        let rows = self.read(Gap { from_second: from_second.max(0), until_second }).await?;
        let known = self.store.read_rows(&self.of, from_second, until_second, MOST_ROWS).await?;
        if known.len() >= MOST_ROWS as usize {
            let (from, until) = (second_text(from_second), second_text(until_second));
            self.notes.push(format!(
                "From {from} to {until} the books have more than {MOST_ROWS} rows: not all were compared."
            ));
        }
        let mut unowned: HashMap<(i64, i64, bool), i64> = HashMap::new();
        for second in self.store.unowned_seconds(&self.of, from_second, until_second).await? {
            *unowned.entry((second.second, second.remote_key_id, false)).or_default() += second.rows;
            *unowned.entry((second.second, second.remote_key_id, true)).or_default() += second.refunds;
        }
        let mut events = self.events(from_second, until_second).await?;
        let identity = |row: &ReadRow| (row.second, row.digest.clone(), row.number);
        let known_ids: HashSet<_> = known.iter().map(identity).collect();
        let mut found = Vec::new();
        let mut at_source = HashSet::new();
        for (id, row) in rows {
            let place = (id.second, id.digest.as_str().to_owned(), i64::from(id.number));
            at_source.insert(place.clone());
            if known_ids.contains(&place) {
                continue;
            }
            let counted = unowned.entry((row.second, row.token.get(), row.kind == RowKind::Refund)).or_default();
            if *counted > 0 {
                *counted -= 1;
                continue;
            }
            if !self.is_of_an_event(&row, &mut events) && is_within(row.second) {
                found.push(missing(&id, &row));
            }
        }
        let is_gone = |row: &&ReadRow| is_within(row.second) && !at_source.contains(&identity(row));
        found.extend(known.iter().filter(is_gone).map(deleted));
        let is_alone = |event: &&LoneEvent| is_within(event.call_second) && !self.was_read(event.call_second);
        found.extend(events.iter().filter(is_alone).map(without_row));
        Ok(found)
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
            self.notes.push(format!("{unreadable} rows of new-api's log from {from} to {until} cannot be read."));
        }
        rows.sort_by_key(|row| row.second);
        Ok(number_rows(&Arc::from(self.of.source.as_str()), rows))
    }

    /// Charges of events of which no row tells.
    async fn events(&self, from_second: i64, until_second: i64) -> Result<Vec<LoneEvent>, SourceError> {
        let mut after = ClaimPlace { call_second: from_second - 1, id: LAST_ID.to_owned() };
        let mut events = Vec::new();
        loop {
            let page = self.store.lone_events(&after, until_second, PAGE_ROWS).await?;
            let Some(last) = page.last() else { return Ok(events) };
            after = ClaimPlace { call_second: last.call_second, id: last.claim_id.clone() };
            events.extend(page);
        }
    }

    fn was_read(&self, second: i64) -> bool {
        let holds = |span: &Span| span.proof == Proof::Read && (span.from_second..=span.until_second).contains(&second);
        self.spans.iter().any(holds)
    }

    /// Where figures proved a span, its events stand for their rows: each for one.
    fn is_of_an_event(&self, row: &LogRow, events: &mut Vec<LoneEvent>) -> bool {
        let is_same = |event: &LoneEvent| {
            event.remote_key_id == row.token.get()
                && (event.prompt_tokens, event.completion_tokens) == (row.prompt_tokens, row.completion_tokens)
                && event.units.is_none_or(|units| units == row.quota_units && *event.model == *row.model)
                && (event.call_second - row.second).abs() <= self.window_secs
        };
        let found = (row.kind == RowKind::Consumption).then(|| events.iter().position(is_same)).flatten();
        found.map(|place| events.swap_remove(place)).is_some()
    }

    /// Where every row was read, an event without one has none at the source.
    async fn lone_events(&mut self, gap: Gap) -> Result<(), SourceError> {
        if gap.from_second > gap.until_second {
            return Ok(());
        }
        for event in self.events(gap.from_second, gap.until_second).await? {
            self.found.push(without_row(&event));
        }
        Ok(())
    }
}

fn missing(id: &RowIdentity, row: &LogRow) -> Difference {
    let at = second_text(row.second);
    let (token, model, units) = (row.token.get(), &row.model, row.quota_units);
    let (kind, what) = match row.kind {
        RowKind::Consumption => (DifferenceKind::CallMissing, "a call"),
        RowKind::Refund => (DifferenceKind::RefundMissing, "a refund"),
    };
    let says = format!(
        "new-api's log has {what} of {at} of the token {token}, model {model}, {units} quota units, {} + {} tokens, that is \
         not known here.",
        row.prompt_tokens, row.completion_tokens
    );
    let subject = format!("row:{}:{}:{}", id.second, id.digest.as_str(), id.number);
    Difference::new(kind, None, Some(&subject), 0).since(Some(at)).saying(says)
}

fn deleted(row: &ReadRow) -> Difference {
    let at = second_text(row.second);
    let charge = match &row.claim_id {
        Some(claim) => format!("it is that of the charge {claim}"),
        None => format!("it is {} here", row.state),
    };
    let what = if row.is_refund { "refund" } else { "row" };
    let says = format!("A {what} of {at} of {} quota units is no longer in new-api's log; {charge}.", row.units);
    let subject = row.claim_id.clone().unwrap_or_else(|| format!("row:{}:{}:{}", row.second, row.digest, row.number));
    Difference::new(DifferenceKind::RowDeleted, row.user_id.as_deref(), Some(&subject), 0).since(Some(at)).saying(says)
}

fn without_row(event: &LoneEvent) -> Difference {
    let at = second_text(event.call_second);
    let (event_id, claim, moved) = (&event.event_id, &event.claim_id, event.moved);
    let says = format!(
        "The charge {claim} of {moved} credits for the call of {at} is of the event {event_id}, and new-api's log has no row \
         of that call."
    );
    let femtos = i128::from(-moved) * FEMTOS_PER_CREDIT;
    let kind = DifferenceKind::CallWithoutRow;
    Difference::new(kind, Some(&event.user_id), Some(claim), femtos).since(Some(at)).saying(says)
}
