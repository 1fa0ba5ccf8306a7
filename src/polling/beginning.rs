//! Where the coverage of a source and its filter begins.

use super::gaps::covered_until;
use super::pass::Pass;
use crate::config::StartFrom;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::log::SourceFilter;

/// The note that keeps the name of the source that was read first.
const FIRST_SOURCE: &str = "first_source";

impl Pass {
    /// The first second of coverage, stored at the first pass.
    pub(super) async fn begin(&self, of: &SourceFilter) -> Result<i64, StoreError> {
        let begins = match self.begun(of).await? {
            Some(begins) => begins,
            None => {
                let taken_over = self.store.look_for_others().await?.map(|others| others.taken_over_at);
                let begins = self.would_begin(of, taken_over).await?;
                if self.store.note(FIRST_SOURCE).await?.is_none() {
                    self.store.set_note(FIRST_SOURCE, of.source.clone()).await?;
                }
                self.store.begin_coverage(of, begins).await?
            }
        };
        // Only once the beginning is stored: the next filter begins where this one ends.
        let in_force = of.in_force_name();
        if self.store.note(&in_force).await?.as_deref() != Some(of.filter.as_str()) {
            self.store.set_note(&in_force, of.filter.clone()).await?;
        }
        Ok(begins)
    }

    /// Where coverage begins, or would begin if a pass began it now: now, at the first pass of all; where the books of
    /// another program were taken over, a little before that; where another filter was in force, right after what was
    /// covered under that. Changes nothing.
    pub(super) async fn would_begin(
        &self,
        of: &SourceFilter,
        taken_over: Option<UnixMillis>,
    ) -> Result<i64, StoreError> {
        if let Some(begins) = self.begun(of).await? {
            return Ok(begins);
        }
        let now = self.clock.now().as_secs();
        let begins = match (self.end_of_former_filter(of).await?, self.settings.start_from, taken_over) {
            (Some(covered_until), ..) => covered_until + 1,
            (None, StartFrom::At(instant), _) => instant.as_secs(),
            (None, StartFrom::Now, Some(taken_over)) if self.is_first_source(of).await? => {
                taken_over.minus(self.settings.lookback).as_secs()
            }
            (None, StartFrom::Now, _) => now,
        };
        Ok(begins.min(now))
    }

    async fn begun(&self, of: &SourceFilter) -> Result<Option<i64>, StoreError> {
        let stored = self.store.note(&of.coverage_name()).await?;
        Ok(stored.and_then(|second| second.parse().ok()))
    }

    /// The last second that was covered under the filter under which this source was read before.
    async fn end_of_former_filter(&self, of: &SourceFilter) -> Result<Option<i64>, StoreError> {
        let noted = self.store.note(&of.in_force_name()).await?;
        let Some(filter) = noted.filter(|filter| *filter != of.filter) else { return Ok(None) };
        let former = SourceFilter { source: of.source.clone(), filter };
        let Some(begins) = self.begun(&former).await? else { return Ok(None) };
        Ok(Some(covered_until(&self.store.spans(&former).await?, begins)))
    }

    /// The source that was read first was there when the books were taken over; one that is named later has a history
    /// that nobody asked to bill.
    async fn is_first_source(&self, of: &SourceFilter) -> Result<bool, StoreError> {
        Ok(self.store.note(FIRST_SOURCE).await?.is_none_or(|first| first == of.source))
    }
}
