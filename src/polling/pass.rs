//! One pass over the log: from the first second that is not covered to the newest that may be read, oldest first.
//!
//! Coverage moves only behind committed rows; an error moves nothing, and the next pass begins where this one ended.

use std::sync::Arc;

use super::figures::{self, FiguresError, RowsMissing, Verdict};
use super::gaps::{Gap, covered_until, gaps, read_until, reopened};
use super::newest_id::newest_id;
use super::pieces::{self, WholePiece};
use super::probe::learn;
use super::recognition::{self, GatewayIdentity};
use super::refunds::tokens_of_tasks;
use super::rows::{self, Tally};
use super::source::Source;
use crate::clock::SharedClock;
use crate::config::PollingSettings;
use crate::domain::log_row::{LogRow, RowKind};
use crate::domain::planted;
use crate::domain::settlement::Purpose;
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::gateway::{Gateway, GatewayError, Ids, Reading, ReadingError, Window};
use crate::storage::log::{Proof, SourceFilter, Span};
use crate::storage::{Store, StoreError};

/// A span that differs and has at most this many rows is read; a larger one is halved, until the difference is found.
const READ_AT_MOST_ROWS: u64 = 500;

/// Why a pass ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PassError {
    #[error(transparent)]
    Reading(#[from] ReadingError),
    #[error("what was read could not be stored: {0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    AnotherGateway(String),
    /// Everything else was read.
    #[error("{count} rows of the log cannot be read ({first}); their seconds do not count as read, all others do")]
    Unreadable { count: usize, first: String },
}

impl PassError {
    /// What the gateway itself said, if that was in the way.
    pub fn gateway(&self) -> Option<&GatewayError> {
        match self {
            PassError::Reading(ReadingError::Gateway(error)) => Some(error),
            _ => None,
        }
    }
}

impl From<FiguresError> for PassError {
    fn from(error: FiguresError) -> Self {
        match error {
            FiguresError::Gateway(error) => PassError::Reading(error.into()),
            FiguresError::Store(error) => PassError::Store(error),
        }
    }
}

/// How much a pass reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eagerness {
    /// Events come in: figures prove what they can, and what is too young to be covered is left.
    Sweep,
    /// Rows are needed now: everything is read, up to the youngest that may be there.
    ReadAll,
}

/// What a pass came to, also where it ended early.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    pub tally: Tally,
    /// Sides that are disputed from now on.
    pub disputed: u64,
    /// Rows of tasks whose money went back.
    pub refunded: u64,
    /// Whole credits that were added to balances for them.
    pub credits_given_back: i64,
    /// Rows of tasks that still look for their charge.
    pub refunds_open: u64,
    pub spans_agreed: u64,
    /// Rows that nobody can read, and what is wrong with the first of them.
    pub unreadable: Option<(usize, String)>,
    /// Where coverage began, and the last second that is covered, in Unix seconds.
    pub coverage: Option<Coverage>,
    pub ids_made_up: bool,
    /// The largest id of before, and the newest, which is smaller: the log was emptied or restored.
    pub ids_fell: Option<(i64, i64)>,
    /// What a comparison of the last days found the source to lack; none where nothing was compared.
    pub missing: Option<RowsMissing>,
}

impl Report {
    /// An error if rows were met that nobody can read.
    pub(super) fn is_whole(&self) -> Result<(), PassError> {
        match self.unreadable.clone() {
            None => Ok(()),
            Some((count, first)) => Err(PassError::Unreadable { count, first }),
        }
    }
}

/// How far the log is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    pub begins: i64,
    /// Read, or proved by figures.
    pub covered_until: i64,
    /// Read row by row.
    pub read_until: i64,
}

/// A pass at work.
pub struct Pass {
    pub gateway: Arc<dyn Gateway>,
    pub store: Arc<dyn Store>,
    pub source: Source,
    pub clock: SharedClock,
    pub settings: PollingSettings,
    pub key_grace_secs: i64,
    pub report: Report,
}

impl Pass {
    /// What was heard of the source's clock long ago, or at a time that our clock has left since, says nothing of now:
    /// ours may have jumped.
    async fn hear_clock(&self) -> Result<(), PassError> {
        let (now, heard_at) = (self.clock.now(), self.source.memory().clock_heard_at);
        let is_fresh = |at| at <= now && now.since(at) <= self.settings.probe_interval;
        if heard_at.is_some_and(|at| is_fresh(at) || planted::is_on("clock_heard_long_ago")) {
            return Ok(());
        }
        let status = self.gateway.status().await.map_err(ReadingError::from)?;
        learn(&self.source, &status, self.clock.now());
        Ok(())
    }

    /// Where reading may end: the earlier of both clocks, less what is to be left.
    pub(super) fn ends(&self) -> (i64, i64) {
        let ours = self.clock.now().as_secs();
        let now = ours + self.source.memory().clock_ahead_secs.unwrap_or_default().min(0);
        let secs = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        if planted::is_on("covered_too_early") {
            return (now, now);
        }
        (now - secs(self.settings.settle_delay), now - secs(self.settings.lookback))
    }

    /// Reads what is to be read. What was done is in `report`, whatever comes of it.
    pub async fn run(&mut self, eagerness: Eagerness) -> Result<(), PassError> {
        let of = self.source.source_filter();
        let begins = self.begin(&of).await?;
        let known = match self.hear_clock().await {
            Ok(()) => self.recognise().await,
            Err(error) => Err(error),
        };
        let (readable, coverable) = self.ends();
        let done = match known {
            Ok(()) => self.read_gaps(&of, begins, readable, coverable, eagerness).await,
            Err(error) => Err(error),
        };
        let spans = self.store.spans(&of).await?;
        let covered = covered_until(&spans, begins);
        let read = read_until(&spans, begins);
        self.report.coverage = Some(Coverage { begins, covered_until: covered, read_until: read });
        self.settle_woken().await?;
        self.revisit(covered).await?;
        done?;
        self.read_owned_meanwhile(&of, coverable).await?;
        self.report.refunds_open = self.settle_refunds(None).await?;
        self.report.is_whole()
    }

    /// Nothing is read of a gateway that is not the one that the books know.
    pub(super) async fn recognise(&self) -> Result<(), PassError> {
        let (memory, name) = (self.source.memory(), self.source.source_filter().source);
        if let Some((_, why)) = memory.refused.filter(|(source, _)| *source == name) {
            return Err(PassError::AnotherGateway(why));
        }
        let said = match memory.gateway {
            Some(said) => said,
            None => GatewayIdentity::of(&self.gateway.status().await.map_err(ReadingError::from)?),
        };
        match recognition::recognise(&self.source, &self.gateway, self.store.as_ref(), &said).await? {
            None => Ok(()),
            Some(why) => Err(PassError::AnotherGateway(why)),
        }
    }

    async fn read_gaps(
        &mut self,
        of: &SourceFilter,
        begins: i64,
        readable: i64,
        coverable: i64,
        eagerness: Eagerness,
    ) -> Result<(), PassError> {
        let now = self.clock.now();
        let stale = self.store.stale_spans(of, now.minus(self.settings.full_read_interval), now).await?;
        self.store.reopen(of, &stale).await?;
        let spans = self.take_back_the_future(of, self.store.spans(of).await?, readable, coverable).await?;
        for gap in reopened(&spans) {
            self.read(of, gap, coverable).await?;
        }
        let end = if eagerness == Eagerness::Sweep { coverable } else { readable };
        for gap in gaps(&spans, begins, end) {
            match eagerness {
                Eagerness::Sweep => self.sweep(of, gap, coverable).await?,
                Eagerness::ReadAll => self.read(of, gap, coverable).await?,
            }
        }
        Ok(())
    }

    /// A clock that was set back left spans that claim seconds which have not passed: what happens in them is still to be
    /// read. So is what happened lately, as nobody knows when it was set back.
    async fn take_back_the_future(
        &self,
        of: &SourceFilter,
        spans: Vec<Span>,
        readable: i64,
        coverable: i64,
    ) -> Result<Vec<Span>, StoreError> {
        let Some(claimed) =
            spans.iter().map(|span| span.until_second).max().filter(|until| *until > readable.max(coverable))
        else {
            return Ok(spans);
        };
        tracing::warn!(
            ahead_secs = claimed - readable,
            "coverage reached beyond the present: a clock was set back. What it claimed of the future is read when it comes"
        );
        self.store.take_back(of, coverable).await?;
        self.store.spans(of).await
    }

    /// Proves what agrees; halves what differs until it is small enough to be read.
    async fn sweep(&mut self, of: &SourceFilter, gap: Gap, coverable: i64) -> Result<(), PassError> {
        // What is still to be looked at, the oldest last; and whether it is to be read without a look at its figures.
        let mut left = vec![(gap, false)];
        while let Some((gap, is_busy)) = left.pop() {
            if is_busy {
                self.read(of, gap, coverable).await?;
                continue;
            }
            let looked_at = self.clock.now();
            let margin_secs = figures::margin_secs(self.store.as_ref(), self.settings.match_window, looked_at).await?;
            match figures::compare(self.gateway.as_ref(), self.store.as_ref(), of, gap, margin_secs).await? {
                Verdict::Agreed(proved) => {
                    // What came since was not compared.
                    self.cover_since(of, proved, Proof::Agreed, looked_at).await?;
                    self.report.spans_agreed += 1;
                    left.extend(gap.after(proved.until_second).map(|rest| (rest, false)));
                }
                Verdict::Differs(Some(rows)) if rows > READ_AT_MOST_ROWS && gap.from_second < gap.until_second => {
                    left.extend(gap.halves().into_iter().rev().map(|half| (half, false)));
                }
                Verdict::Differs(_) => self.read(of, gap, coverable).await?,
                Verdict::ReadFirst(first) => {
                    left.extend(gap.after(first.until_second).map(|rest| (rest, false)));
                    left.push((first, true));
                }
                Verdict::ReadLast(last) => {
                    left.push((last, true));
                    left.extend(gap.before(last.from_second).map(|rest| (rest, false)));
                }
            }
        }
        Ok(())
    }

    /// Reads every row of the span, piece by piece, each settled before the next is asked for.
    pub(super) async fn read(&mut self, of: &SourceFilter, gap: Gap, coverable: i64) -> Result<(), PassError> {
        let Some(window) = Window::new(gap.from_second.max(0), gap.until_second) else { return Ok(()) };
        let ids = self.source.memory().ids;
        let mut reading = Reading::new(self.gateway.clone(), window, RowKind::Consumption, ids);
        while let Some(WholePiece { seconds, rows, unreadable }) = self.next_piece(&mut reading).await? {
            if planted::is_on("covered_before_settled") {
                self.cover(of, seconds, Proof::Read).await?;
            }
            self.count_anew(of, seconds, None).await?;
            self.settle(of, rows).await?;
            failpoint::hit("polling.piece.settled").map_err(StoreError::from)?;
            self.cover_readable(of, seconds, &unreadable, coverable).await?;
        }
        Ok(())
    }

    async fn settle(&mut self, of: &SourceFilter, rows: Vec<LogRow>) -> Result<(), PassError> {
        let numbered = pieces::numbered(of, rows);
        let tokens = tokens_of_tasks(&numbered);
        let tally = rows::settle(self.store.as_ref(), numbered, Purpose::Retry).await?;
        self.report.tally.add(tally);
        if !tokens.is_empty() {
            self.settle_refunds(Some(tokens)).await?;
        }
        Ok(())
    }

    pub(super) async fn cover(&self, of: &SourceFilter, seconds: Gap, proof: Proof) -> Result<(), StoreError> {
        self.cover_since(of, seconds, proof, self.clock.now()).await
    }

    async fn cover_since(
        &self,
        of: &SourceFilter,
        seconds: Gap,
        proof: Proof,
        proved_at: UnixMillis,
    ) -> Result<(), StoreError> {
        let Gap { from_second, until_second } = seconds;
        self.store.cover(of, Span { from_second, until_second, proof }, proved_at).await?;
        failpoint::hit("polling.covered").map_err(StoreError::from)
    }

    pub(super) async fn learn_ids(&mut self, ids: Ids, rows: &[LogRow]) -> Result<(), StoreError> {
        self.report.ids_made_up |= ids == Ids::MadeUp;
        self.source.remember(|memory| memory.ids = ids);
        if ids != Ids::Stable {
            return Ok(());
        }
        let known = match self.source.memory().newest_id {
            Some(known) => Some(known),
            None => self.store.newest_id(&self.source.source_filter().source).await?,
        };
        let (newest, fell) = newest_id(known, rows);
        self.report.ids_fell = fell.or(self.report.ids_fell);
        self.source.remember(|memory| memory.newest_id = newest);
        Ok(())
    }

    /// Compares the figures of what was covered lately again: late rows are found, and charged.
    pub async fn recheck(&mut self) -> Result<(), PassError> {
        let of = self.source.source_filter();
        let begins = self.begin(&of).await?;
        let (_, coverable) = self.ends();
        let covered = covered_until(&self.store.spans(&of).await?, begins);
        let from = coverable - i64::try_from(self.settings.recheck.as_secs()).unwrap_or(i64::MAX);
        let (from_second, until_second) = (from.max(begins), covered.min(coverable));
        if from_second > until_second {
            return Ok(());
        }
        let mut missing = RowsMissing::default();
        let mut left = vec![Gap { from_second, until_second }];
        while let Some(gap) = left.pop() {
            match figures::compare_covered(self.gateway.as_ref(), self.store.as_ref(), &of, gap).await? {
                Verdict::Agreed(_) => {}
                Verdict::Differs(_) if planted::is_on("late_row_skipped") => {}
                Verdict::Differs(Some(rows)) if rows > READ_AT_MOST_ROWS && gap.from_second < gap.until_second => {
                    left.extend(gap.halves().into_iter().rev());
                }
                Verdict::Differs(_) | Verdict::ReadFirst(_) | Verdict::ReadLast(_) => {
                    self.cover(&of, gap, Proof::Reopened).await?;
                    self.read(&of, gap, coverable).await?;
                    missing
                        .add(figures::missing_rows(self.gateway.as_ref(), self.store.as_ref(), &of, gap).await?, gap);
                }
            }
        }
        self.report.missing = Some(missing);
        self.report.is_whole()
    }
}
