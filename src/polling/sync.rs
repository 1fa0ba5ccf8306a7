//! The log read because a person asked for it: what a pass would read, or a span row by row, or the rows of one token.
//!
//! What is charged beyond what a pass charges by itself needs a yes to its sum: without one, everything is decided and
//! nothing is written. How that is done is in `trial`.

use super::gaps::{Gap, covered_until, gaps, read_until, reopened};
use super::pass::{Coverage, Pass, PassError};
use super::pieces::{self, WholePiece};
use super::probe;
use super::recognition::{self, GatewayIdentity};
use super::refunds::tokens_of_tasks;
use super::rows;
use super::trial::TrialRows;
use super::turn::LogTurn;
use super::waiting::{MOST_OWNED_MEANWHILE, MOST_WOKEN_ROWS};
use crate::domain::ids::RemoteKeyId;
use crate::domain::log_row::RowKind;
use crate::domain::settlement::{Leave, Purpose};
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::gateway::{Reading, ReadingError, Window};
use crate::storage::StoreError;
use crate::storage::log::SourceFilter;

/// The note that keeps when the books of another program were taken over.
const TAKEN_OVER_AT: &str = "taken_over_at_ms";

/// What a person asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct SyncOrder {
    /// In Unix seconds.
    pub from_second: Option<i64>,
    /// Included.
    pub until_second: Option<i64>,
    /// Rows of this token only.
    pub token: Option<RemoteKeyId>,
    pub leave: Leave,
    /// The sum was shown.
    pub has_said_yes: bool,
}

/// Why nothing is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyncRefused {
    #[error(
        "new-api's log of before {begins} is not read here: until then the platform billed; --before-takeover ties its \
         rows to what the platform billed, and shows the sum of the others before it charges them"
    )]
    BeforeCoverage { begins: String },
    #[error("no platform's billing was taken over here: leave --before-takeover away")]
    NothingTakenOver,
    #[error(transparent)]
    Pass(#[from] PassError),
}

impl From<StoreError> for SyncRefused {
    fn from(error: StoreError) -> Self {
        SyncRefused::Pass(error.into())
    }
}

/// What is to be read, and how.
#[derive(Debug, Clone)]
pub struct SyncPlan {
    scope: Scope,
    token: Option<RemoteKeyId>,
    pub(super) leave: Leave,
    begins: i64,
    readable: i64,
    pub(super) coverable: i64,
    /// It charges what nobody would have charged by himself.
    needs_yes: bool,
    /// Why the span that was asked for has nothing to read.
    nothing_because: Option<String>,
}

#[derive(Debug, Clone)]
enum Scope {
    /// What a pass would read now.
    Uncovered,
    /// Whatever is covered of it; none: nothing of it may be read yet.
    Span(Option<Gap>),
}

impl SyncPlan {
    pub fn is_dry_run(&self) -> bool {
        self.leave.is_dry_run
    }

    pub fn needs_yes(&self) -> bool {
        self.needs_yes
    }

    pub fn nothing_because(&self) -> Option<&str> {
        self.nothing_because.as_deref()
    }
}

/// Why no second of a span can be read, for a person.
fn nothing_because(from: i64, until: i64, readable: i64, has_since: bool) -> Option<String> {
    let moment = |second: i64| UnixMillis::new(second.saturating_mul(1000)).to_rfc3339();
    if from <= until.min(readable) {
        return None;
    }
    Some(if from > readable {
        let (from, readable) = (moment(from), moment(readable));
        format!("rows of {from} may not be read yet, the newest that may are of {readable}")
    } else if has_since {
        "no whole second lies between --since and --until".to_owned()
    } else {
        let from = moment(from);
        format!("the span ends before {from}, where reading would begin: --since says from when on to read")
    })
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncProgress {
    pub rows: u64,
    pub charged: u64,
    pub done_secs: i64,
    pub total_secs: i64,
    /// The last second that was read.
    pub until_second: Option<i64>,
}

/// Where progress is told.
pub type Tell<'a> = &'a (dyn Fn(SyncProgress) + Send + Sync);

impl Pass {
    /// Looks at the source, and decides what of the order is allowed.
    pub async fn plan_sync(&self, order: SyncOrder) -> Result<SyncPlan, SyncRefused> {
        let of = self.source.source_filter();
        let SyncOrder { from_second, until_second, token, mut leave, has_said_yes } = order;
        self.look_at_source(&of, !leave.is_dry_run).await?;
        let taken_over = self.store.note(TAKEN_OVER_AT).await?.and_then(|millis| millis.parse().ok());
        let taken_over: Option<UnixMillis> = taken_over.map(UnixMillis::new);
        if leave.before_takeover && taken_over.is_none() {
            return Err(SyncRefused::NothingTakenOver);
        }
        let begins = self.would_begin(&of, taken_over).await?;
        let (readable, coverable) = self.ends();
        let from = match (from_second, token) {
            (Some(from), _) => from,
            (None, Some(token)) => self.first_unpaid(&of, token, begins).await?,
            (None, None) => begins,
        };
        let is_history = from < begins;
        if is_history && taken_over.is_some() && !leave.before_takeover {
            let begins = UnixMillis::new(begins.saturating_mul(1000)).to_rfc3339();
            return Err(SyncRefused::BeforeCoverage { begins });
        }
        let needs_yes = is_history || leave.beyond_grace || leave.before_takeover;
        leave.is_dry_run |= needs_yes && !has_said_yes;
        if !leave.is_dry_run {
            self.begin(&of).await?;
        }
        let nothing_because = nothing_because(from, until_second.unwrap_or(readable), readable, from_second.is_some());
        let until = until_second.unwrap_or(readable).min(readable);
        let span = (from <= until).then_some(Gap { from_second: from, until_second: until });
        let scope = match (from_second, until_second, token) {
            (None, None, None) => Scope::Uncovered,
            _ => Scope::Span(span),
        };
        let nothing_because = nothing_because.filter(|_| matches!(scope, Scope::Span(None)));
        Ok(SyncPlan { scope, token, leave, begins, readable, coverable, needs_yes, nothing_because })
    }

    /// Learns its clock, and whether it is the one that the books know.
    async fn look_at_source(&self, of: &SourceFilter, may_note: bool) -> Result<(), PassError> {
        let status = self.gateway.status().await.map_err(ReadingError::from)?;
        probe::learn(&self.source, &status, self.clock.now());
        let (store, said) = (self.store.as_ref(), GatewayIdentity::of(&status));
        let (another, note) = recognition::look(&self.source, &self.gateway, store, &said).await?;
        if let Some(why) = another {
            return Err(PassError::AnotherGateway(why));
        }
        if let Some((name, value)) = note.filter(|_| may_note) {
            self.store.set_note(&name, value).await?;
        }
        tracing::debug!(source = %of.source, "new-api was looked at for a sync");
        Ok(())
    }

    /// Where rows of this token may lie that nobody has paid for: what is covered has no others.
    async fn first_unpaid(&self, of: &SourceFilter, token: RemoteKeyId, begins: i64) -> Result<i64, StoreError> {
        let uncovered = covered_until(&self.store.spans(of).await?, begins) + 1;
        let oldest = self.store.oldest_unpaid_row(of, token).await?;
        Ok(oldest.map_or(uncovered, |oldest| oldest.min(uncovered)).max(begins))
    }

    /// Reads what was planned. What was done is in `report`, whatever comes of it. `turn`: whoever reads the same log
    /// beside it takes turns with it, a piece each.
    pub async fn carry_out(&mut self, plan: &SyncPlan, turn: &LogTurn, tell: Tell<'_>) -> Result<(), PassError> {
        let of = self.source.source_filter();
        let mut trial = TrialRows::default();
        let done = self.read_planned(&of, plan, turn, &mut trial, tell).await;
        if plan.is_dry_run() {
            self.tell_coverage(&of, plan).await?;
            done?;
            self.try_rows(&mut trial, plan).await?;
            return self.report.is_whole();
        }
        let _turn = turn.take().await;
        let covered = self.tell_coverage(&of, plan).await?;
        match plan.token {
            Some(token) => self.report.disputed += self.store.revisit(vec![token], Some(covered)).await?,
            None => {
                self.settle_woken().await?;
                self.revisit(covered).await?;
            }
        }
        done?;
        if matches!(plan.scope, Scope::Uncovered) {
            self.read_owned_meanwhile(&of, plan.coverable).await?;
        }
        self.report.refunds_open = self.settle_refunds(plan.token.map(|token| vec![token])).await?;
        self.report.is_whole()
    }

    async fn tell_coverage(&mut self, of: &SourceFilter, plan: &SyncPlan) -> Result<i64, StoreError> {
        let (spans, begins) = (self.store.spans(of).await?, plan.begins);
        let covered_until = covered_until(&spans, begins);
        self.report.coverage = Some(Coverage { begins, covered_until, read_until: read_until(&spans, begins) });
        Ok(covered_until)
    }

    async fn read_planned(
        &mut self,
        of: &SourceFilter,
        plan: &SyncPlan,
        turn: &LogTurn,
        trial: &mut TrialRows,
        tell: Tell<'_>,
    ) -> Result<(), PassError> {
        let stretches = match &plan.scope {
            Scope::Span(span) => span.iter().copied().collect(),
            Scope::Uncovered => self.uncovered(of, plan, trial).await?,
        };
        let length = |gap: &Gap| gap.until_second - gap.from_second + 1;
        let total_secs = stretches.iter().map(length).sum();
        let mut progress = SyncProgress { total_secs, ..SyncProgress::default() };
        tell(progress);
        for stretch in stretches {
            let Some(window) = Window::new(stretch.from_second.max(0), stretch.until_second) else { continue };
            let ids = self.source.memory().ids;
            let mut reading = Reading::new(self.gateway.clone(), window, RowKind::Consumption, ids);
            loop {
                let _turn = turn.take().await;
                let Some(piece) = self.next_piece(&mut reading).await? else { break };
                let seconds = piece.seconds;
                let rows = self.take_piece(of, plan, piece, trial).await?;
                progress.rows += rows;
                progress.charged = self.report.tally.charged;
                progress.done_secs += length(&seconds);
                progress.until_second = Some(seconds.until_second);
                tell(progress);
            }
        }
        Ok(())
    }

    /// What a pass would read now, row by row.
    async fn uncovered(
        &mut self,
        of: &SourceFilter,
        plan: &SyncPlan,
        trial: &mut TrialRows,
    ) -> Result<Vec<Gap>, PassError> {
        let now = self.clock.now();
        let proved_before = now.minus(self.settings.full_read_interval);
        let stale = self.store.stale_spans(of, proved_before, now).await?;
        if !plan.is_dry_run() {
            self.store.reopen(of, &stale).await?;
        }
        let spans = self.store.spans(of).await?;
        let mut stretches = reopened(&spans);
        if plan.is_dry_run() {
            stretches.extend(stale.iter().map(|span| Gap { from_second: span.0, until_second: span.1 }));
        }
        stretches.extend(gaps(&spans, plan.begins, plan.readable));
        if plan.is_dry_run() {
            // What a pass does in the end, it does with what it has written.
            trial.hold(self.store.woken_rows(MOST_WOKEN_ROWS).await?);
            let owned = self.store.owned_meanwhile(of, self.key_grace_secs, MOST_OWNED_MEANWHILE).await?;
            for (from_second, until_second) in owned {
                let until_second = until_second.min(plan.coverable);
                stretches.extend((from_second <= until_second).then_some(Gap { from_second, until_second }));
            }
        }
        Ok(stretches)
    }

    /// Settles rows of a piece, or keeps them to be tried; how many of them were asked for.
    async fn take_piece(
        &mut self,
        of: &SourceFilter,
        plan: &SyncPlan,
        piece: WholePiece,
        trial: &mut TrialRows,
    ) -> Result<u64, PassError> {
        let WholePiece { seconds, rows, unreadable } = piece;
        let mut numbered = pieces::numbered(of, rows);
        if let Some(token) = plan.token {
            numbered.retain(|row| row.row.token == token);
        }
        let count = numbered.len() as u64;
        if plan.is_dry_run() {
            self.note_unreadable(&unreadable);
            trial.hold(numbered);
            if trial.is_full() {
                self.try_rows(trial, plan).await?;
            }
            return Ok(count);
        }
        self.count_anew(of, seconds, plan.token).await?;
        let tokens = tokens_of_tasks(&numbered);
        let tally = rows::settle(self.store.as_ref(), numbered, Purpose::Sync(plan.leave)).await?;
        self.report.tally.add(tally);
        if !tokens.is_empty() {
            self.settle_refunds(Some(tokens)).await?;
        }
        failpoint::hit("polling.piece.settled").map_err(StoreError::from)?;
        match plan.token {
            None => self.cover_readable(of, seconds, &unreadable, plan.coverable).await?,
            Some(_) => self.note_unreadable(&unreadable),
        }
        Ok(count)
    }
}
