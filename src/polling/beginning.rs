//! Where the coverage of a source and its filter begins.

use super::gaps::covered_until;
use super::pass::Pass;
use crate::config::StartFrom;
use crate::storage::StoreError;
use crate::storage::log::SourceFilter;

/// The note that keeps the name of the source that was read first.
const FIRST_SOURCE: &str = "first_source";

impl Pass {
    /// The first second of coverage: now, at the first pass of all; where the books of another program were taken over,
    /// a little before that; where another filter was in force, right after what was covered under that.
    pub(super) async fn begin(&self, of: &SourceFilter) -> Result<i64, StoreError> {
        let now = self.clock.now();
        let former = self.former_filter(of).await?;
        let begins = match (former, self.settings.start_from) {
            (Some(former), _) => {
                let former_begins = self.store.begin_coverage(&former, now.as_secs()).await?;
                covered_until(&self.store.spans(&former).await?, former_begins) + 1
            }
            (None, StartFrom::At(instant)) => instant.as_secs(),
            (None, StartFrom::Now) => match self.store.look_for_others().await? {
                Some(taken_over) if self.is_first_source(of).await? => {
                    taken_over.taken_over_at.minus(self.settings.lookback).as_secs()
                }
                _ => now.as_secs(),
            },
        };
        let begins = self.store.begin_coverage(of, begins.min(now.as_secs())).await?;
        // Only once the beginning is stored: the next filter begins where this one ends.
        let in_force = of.in_force_name();
        if self.store.note(&in_force).await?.as_deref() != Some(of.filter.as_str()) {
            self.store.set_note(&in_force, of.filter.clone()).await?;
        }
        Ok(begins)
    }

    /// The filter under which this source was read before this one.
    async fn former_filter(&self, of: &SourceFilter) -> Result<Option<SourceFilter>, StoreError> {
        let noted = self.store.note(&of.in_force_name()).await?;
        let former = noted.filter(|filter| *filter != of.filter);
        Ok(former.map(|filter| SourceFilter { source: of.source.clone(), filter }))
    }

    /// The source that was read first was there when the books were taken over; one that is named later has a history
    /// that nobody asked to bill.
    async fn is_first_source(&self, of: &SourceFilter) -> Result<bool, StoreError> {
        match self.store.note(FIRST_SOURCE).await? {
            Some(first) => Ok(first == of.source),
            None => self.store.set_note(FIRST_SOURCE, of.source.clone()).await.map(|()| true),
        }
    }
}
