//! The log's side of the books: rows of new-api's log come down the same road as events, and what was read is kept.
//!
//! What a row comes to is decided in `domain`; which windows are read, and when, by whoever reads them.

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::StoreError;
pub use super::agreed::AgreedSpan;
use super::noticed::Notices;
pub use super::proof::Proof;
use crate::domain::ids::RemoteKeyId;
use crate::domain::log_row::RowDigest;
use crate::domain::log_row::RowIdentity;
use crate::domain::log_snapshot::{NumberedRow, RowOutcome};
use crate::domain::planted;
use crate::domain::settlement::{Leave, Purpose};
use crate::domain::time::UnixMillis;

/// Which rows of which gateway: coverage belongs to both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceFilter {
    /// `newapi.source`
    pub source: String,
    /// What narrows the log: group and user name, or nothing.
    pub filter: String,
}

/// Seconds that were read completely, or proved; both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from_second: i64,
    pub until_second: i64,
    pub proof: Proof,
}

impl SourceFilter {
    /// Under which name the beginning of its coverage is kept in `hookledger_meta`: at most 64 characters.
    pub fn coverage_name(&self) -> String {
        let digest = hex::encode(Sha256::digest(format!("{}\n{}", self.source, self.filter)));
        format!("coverage_begins:{}", &digest[..16])
    }

    /// The same for the filter under which this source is read now.
    pub fn in_force_name(&self) -> String {
        format!("filter_in_force:{}", &hex::encode(Sha256::digest(&self.source))[..16])
    }

    /// The same for what the gateway last said of itself.
    pub fn gateway_name(&self) -> String {
        format!("gateway_seen:{}", &hex::encode(Sha256::digest(&self.source))[..16])
    }
}

impl Span {
    /// What there is once this span, proved at `now`, was laid over others: what it covers of them goes, and what has the
    /// same proof and touches it becomes one with it. In the order of their seconds, each with when it was proved.
    ///
    /// Proofs by figures stay apart, since each is opened again by its age and by what is charged in it afterwards.
    pub fn laid_over(self, now: UnixMillis, near: impl Iterator<Item = (Span, UnixMillis)>) -> Vec<(Span, UnixMillis)> {
        let mut whole = self;
        let mut beside = Vec::new();
        for (old, proved_at) in near {
            if old.proof == self.proof && (old.proof != Proof::Agreed || planted::is_on("agreed_is_joined")) {
                whole.from_second = whole.from_second.min(old.from_second);
                whole.until_second = whole.until_second.max(old.until_second);
                continue;
            }
            let before = Span { until_second: old.until_second.min(self.from_second - 1), ..old };
            let after = Span { from_second: old.from_second.max(self.until_second + 1), ..old };
            let is_left = |part: &Span| part.from_second <= part.until_second;
            beside.extend([before, after].into_iter().filter(is_left).map(|part| (part, proved_at)));
        }
        beside.push((whole, now));
        beside.sort_by_key(|(span, _)| span.from_second);
        beside
    }
}

/// Counts and sums of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Type-2 rows.
    pub rows: i64,
    /// Their quota units.
    pub units: i64,
    /// Type-6 rows.
    pub refunds: i64,
}

/// What the books expect of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BookFigures {
    /// Rows that are known, and events that have none yet.
    pub figures: Figures,
    /// Events priced in credits: what their rows cost in quota is not known.
    pub priced_in_credits: i64,
    /// Rows of seconds that are not read as a whole, of which nobody knows whether an event tells of them as well: they
    /// would count twice.
    pub waiting_rows: i64,
}

impl BookFigures {
    /// Of two spans that do not overlap.
    pub fn and(self, other: Self) -> Self {
        let (one, two) = (self.figures, other.figures);
        BookFigures {
            figures: Figures {
                rows: one.rows + two.rows,
                units: one.units + two.units,
                refunds: one.refunds + two.refunds,
            },
            priced_in_credits: self.priced_in_credits + other.priced_in_credits,
            waiting_rows: self.waiting_rows + other.waiting_rows,
        }
    }
}

/// How many of our calls came without their event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowLoss {
    /// Calls of tokens that have a key, without those that carry a task's id.
    pub rows: i64,
    pub without_event: i64,
    /// The newest row among them, in Unix seconds.
    pub newest_second: Option<i64>,
}

impl RowLoss {
    /// With what was found of other seconds.
    pub fn and(self, other: Self) -> Self {
        RowLoss {
            rows: self.rows + other.rows,
            without_event: self.without_event + other.without_event,
            newest_second: self.newest_second.max(other.newest_second),
        }
    }
}

/// How the two channels told of the calls of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Agreement {
    /// Charges, and sides that are disputed.
    pub calls: i64,
    /// Sides that are disputed.
    pub disputed: i64,
}

impl Agreement {
    /// With what was found of other seconds.
    pub fn and(self, other: Self) -> Self {
        Agreement { calls: self.calls + other.calls, disputed: self.disputed + other.disputed }
    }
}

/// A row that was read, as it is found again: whatever became of its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRow {
    pub second: i64,
    pub digest: RowDigest,
    pub is_refund: bool,
}

/// The newest row whose id was stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewestId {
    pub second: i64,
    pub log_id: i64,
}

/// Rows of one user's tokens, which one writer settles.
#[derive(Debug, Clone)]
pub struct RowPart {
    pub lane: usize,
    /// Where the rows stood in the batch.
    pub places: Vec<usize>,
    pub rows: Vec<NumberedRow>,
}

/// Where a look at rows of tasks stopped: by token, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskPlace {
    pub token: RemoteKeyId,
    pub identity: RowIdentity,
}

/// Which rows that look for their task's charge are settled in one transaction.
#[derive(Debug, Clone, Default)]
pub struct TaskPage {
    /// Only those of these tokens; none: all.
    pub tokens: Option<Vec<RemoteKeyId>>,
    pub after: Option<TaskPlace>,
}

/// What one page of them came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefundsSettled {
    pub refunded: u64,
    /// Whole credits that were added to balances.
    pub credits: i64,
    pub still_open: u64,
    /// Where to go on; none: that were all.
    pub next: Option<TaskPlace>,
}

/// How rows are tried.
#[derive(Debug, Clone)]
pub struct Trial {
    /// What of it is to be allowed; it is a dry run whatever that says.
    pub leave: Leave,
    /// Up to this second, included, no side is missing any more.
    pub covered_until_second: Option<i64>,
    /// Whose open refunds are tried.
    pub refunds_of: TaskPage,
}

impl Trial {
    pub fn purpose(&self) -> Purpose {
        Purpose::Sync(Leave { is_dry_run: true, ..self.leave })
    }
}

/// What rows would come to.
#[derive(Debug, Clone, Default)]
pub struct Tried {
    /// One for each row, in their order.
    pub outcomes: Vec<RowOutcome>,
    pub disputed: u64,
    pub refunds: RefundsSettled,
}

/// Which of these keys (own id, token) a person means: names are compared byte for byte, own ids first.
pub fn token_named(keys: &[(String, Option<String>)], name: &str) -> Option<RemoteKeyId> {
    let by_id = keys.iter().find(|(id, _)| id == name).and_then(|(_, token)| token.as_deref());
    let by_token = || keys.iter().find_map(|(_, token)| token.as_deref().filter(|token| *token == name));
    by_id.or_else(by_token).and_then(RemoteKeyId::parse).filter(|token| !token.is_nobody())
}

impl RefundsSettled {
    /// Adds a page; where the next one begins.
    pub fn add(&mut self, page: RefundsSettled) -> Option<TaskPlace> {
        self.refunded += page.refunded;
        self.credits += page.credits;
        self.still_open += page.still_open;
        page.next
    }
}

/// The writes and looks of whoever reads the log.
#[async_trait]
pub trait LogStore: Notices + Send + Sync + 'static {
    /// Cuts rows into parts that are settled each by itself.
    async fn row_parts(&self, rows: Vec<NumberedRow>) -> Vec<RowPart> {
        vec![RowPart { lane: 0, places: (0..rows.len()).collect(), rows }]
    }

    /// Settles rows of seconds that were read completely, in one transaction. One outcome each.
    async fn settle_rows(
        &self,
        lane: usize,
        rows: Vec<NumberedRow>,
        purpose: Purpose,
    ) -> Result<Vec<RowOutcome>, StoreError>;

    /// Gives back what rows of tasks say, as far as their charges are found; the rest stays open and says why.
    async fn settle_refunds(&self, page: TaskPage) -> Result<RefundsSettled, StoreError>;

    /// Stores a row that the database refuses to settle as failed, so that the others can go on.
    async fn set_row_aside(&self, row: NumberedRow, reason: String) -> Result<(), StoreError>;

    /// What the books expect the source to say of a span.
    async fn figures(&self, of: &SourceFilter, from_second: i64, until_second: i64) -> Result<BookFigures, StoreError>;

    /// Seconds of the span in which the books have an event, in order.
    async fn event_seconds(&self, from_second: i64, until_second: i64) -> Result<Vec<i64>, StoreError>;

    /// How the rows of a span fared that are ours.
    async fn row_loss(&self, of: &SourceFilter, from_second: i64, until_second: i64) -> Result<RowLoss, StoreError>;

    /// Seconds of rows that nobody paid for when they were read, of tokens that have a key now: the earliest and the
    /// latest that may be charged, a token each, at most `limit`. `grace_secs`: how much older than its key a row may be.
    async fn owned_meanwhile(
        &self,
        of: &SourceFilter,
        grace_secs: i64,
        limit: usize,
    ) -> Result<Vec<(i64, i64)>, StoreError>;

    /// Rows that waited because several users had their token, which has one owner now, oldest first, at most `limit`.
    async fn woken_rows(&self, limit: usize) -> Result<Vec<NumberedRow>, StoreError>;

    /// Looks again at every side of these tokens that waits for its partner. Up to `covered_until_second`, included, no side is missing any
    /// more: what is alike there is disputed. How many became so.
    async fn revisit(&self, tokens: Vec<RemoteKeyId>, covered_until_second: Option<i64>) -> Result<u64, StoreError>;

    /// Tokens that have sides which wait for their partner, at most `limit`, in their order, above `after`.
    async fn tokens_with_waiting_sides(
        &self,
        after: Option<RemoteKeyId>,
        limit: usize,
    ) -> Result<Vec<RemoteKeyId>, StoreError>;

    /// Forgets what was counted of rows that nobody here pays for, of this token or of all, before a window is read again.
    async fn forget_unowned(
        &self,
        source: &str,
        from_second: i64,
        until_second: i64,
        token: Option<RemoteKeyId>,
    ) -> Result<(), StoreError>;

    /// Decides rows, and what tasks among them or before them give back, as `settle_rows` and `settle_refunds` would, and
    /// writes nothing.
    async fn try_rows(&self, lane: usize, rows: Vec<NumberedRow>, trial: Trial) -> Result<Tried, StoreError>;

    /// The second of the oldest row of this token that was read and that nobody has paid for.
    async fn oldest_unpaid_row(&self, of: &SourceFilter, token: RemoteKeyId) -> Result<Option<i64>, StoreError>;

    /// What was covered of this source, oldest first.
    async fn spans(&self, of: &SourceFilter) -> Result<Vec<Span>, StoreError>;

    /// Spans that had agreed and are to be read after all: something was charged in them since, or they were proved before
    /// `proved_before`.
    async fn stale_spans(
        &self,
        of: &SourceFilter,
        proved_before: UnixMillis,
        now: UnixMillis,
    ) -> Result<Vec<AgreedSpan>, StoreError>;

    /// Opens those of these spans that are still as they were found.
    async fn reopen(&self, of: &SourceFilter, spans: &[AgreedSpan]) -> Result<(), StoreError>;

    /// Takes back what claims seconds behind this one.
    async fn take_back(&self, of: &SourceFilter, after_second: i64) -> Result<(), StoreError>;

    /// Every row of the span that was there at `proved_at` is committed.
    async fn cover(&self, of: &SourceFilter, span: Span, proved_at: UnixMillis) -> Result<(), StoreError>;

    /// How the calls of a span were told by both channels.
    async fn agreement(&self, from_second: i64, until_second: i64) -> Result<Agreement, StoreError>;

    /// The newest row of this source, at or before that second, within what was read under this filter.
    async fn newest_row(&self, of: &SourceFilter, until_second: i64) -> Result<Option<KnownRow>, StoreError>;

    /// The largest id among the newest charges that have a row of this source.
    async fn newest_id(&self, source: &str) -> Result<Option<NewestId>, StoreError>;

    /// The token of a key that a person names, by its own id or by that of its token; none: no key has it.
    async fn token_of(&self, key: &str) -> Result<Option<RemoteKeyId>, StoreError>;

    /// What was noted under this name.
    async fn note(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Notes it, in place of what was noted before.
    async fn set_note(&self, name: &str, value: String) -> Result<(), StoreError>;

    /// The second at which coverage of this source begins, stored at the first call and the same ever after.
    async fn begin_coverage(&self, of: &SourceFilter, from_second: i64) -> Result<i64, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLIER: UnixMillis = UnixMillis::ZERO;
    const NOW: UnixMillis = UnixMillis::MAX;

    fn span(from_second: i64, until_second: i64, proof: Proof) -> Span {
        Span { from_second, until_second, proof }
    }

    fn laid(new: Span, near: &[Span]) -> Vec<(Span, UnixMillis)> {
        new.laid_over(NOW, near.iter().map(|old| (*old, EARLIER)))
    }

    #[test]
    fn what_touches_and_was_read_is_one_span() {
        let found = laid(span(10, 19, Proof::Read), &[span(0, 9, Proof::Read), span(20, 29, Proof::Read)]);
        assert_eq!(found, [(span(0, 29, Proof::Read), NOW)]);
    }

    #[test]
    fn a_reading_inside_an_agreed_span_leaves_its_ends_as_old_as_they_are() {
        let found = laid(span(10, 19, Proof::Read), &[span(0, 29, Proof::Agreed)]);
        let ends = [(span(0, 9, Proof::Agreed), EARLIER), (span(20, 29, Proof::Agreed), EARLIER)];
        assert_eq!(found, [ends[0], (span(10, 19, Proof::Read), NOW), ends[1]]);
    }

    #[test]
    fn what_agreed_earlier_stays_as_old_as_it_is() {
        let found = laid(span(10, 19, Proof::Agreed), &[span(0, 9, Proof::Agreed), span(15, 29, Proof::Agreed)]);
        let (before, after) = ((span(0, 9, Proof::Agreed), EARLIER), (span(20, 29, Proof::Agreed), EARLIER));
        assert_eq!(found, [before, (span(10, 19, Proof::Agreed), NOW), after]);
    }
}
