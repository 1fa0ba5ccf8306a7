//! Proof that the books agree with themselves, and with new-api's log: what differs, whose, when, how much, what to do.
//!
//! Reads in short statements, page by page, and writes nothing. Whoever asks decides when; what the store keeps of it
//! (differences that a person knows of) is the store's. No SQL here, and no output.

mod against;
mod chain;
mod charges;
mod look;
mod matching;
mod naming;
mod one_side;
mod report;
mod says;
mod seen;
mod source_error;
mod sums;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

pub use against::against_source;
pub use report::{AuditReport, Difference, DifferenceKind, LookedAt, SourceReport};
pub use source_error::SourceError;

use crate::storage::{Store, StoreError};
use look::Look;
use naming::Suspects;
use seen::Seen;

/// How an audit goes about it.
#[derive(Debug, Clone, Copy)]
pub struct AuditOptions {
    /// How many differences are listed; the rest is counted.
    pub list_at_most: usize,
    /// Rows of one statement.
    pub page_rows: u32,
    /// After each page, rests this much of the time that the page took, in tenths: the disk is the daemon's.
    pub rest_tenths: u32,
}

impl Default for AuditOptions {
    fn default() -> Self {
        AuditOptions { list_at_most: 100, page_rows: 2000, rest_tenths: 0 }
    }
}

impl AuditOptions {
    /// For a database that a daemon is at work on.
    pub fn beside_a_daemon(list_at_most: usize) -> Self {
        AuditOptions { list_at_most, rest_tenths: 5, ..AuditOptions::default() }
    }

    async fn rest(&self, took: Duration) {
        if self.rest_tenths > 0 {
            tokio::time::sleep(took * self.rest_tenths / 10).await;
        }
    }
}

/// Audits the books from the database alone. What differs is looked at again before it counts: a daemon at work moves
/// things between two pages.
pub async fn audit(store: &dyn Store, options: AuditOptions) -> Result<AuditReport, StoreError> {
    let first = Look::run(store, options, Suspects::default()).await?;
    let (seen, confirmed) = confirm(store, options, first).await?;
    let mut report = AuditReport { looked_at: seen.looked_at, notes: seen.notes, ..AuditReport::default() };
    (report.unverified, report.unverified_of_others) = (seen.unlisted, seen.unlisted_of_others);
    report.apart = store.apart().map(|apart| apart.to_string());
    take_in(&mut report, store, confirmed, options.list_at_most).await?;
    Ok(report)
}

/// Looks again until what is told was seen twice.
async fn confirm(store: &dyn Store, options: AuditOptions, first: Seen) -> Result<(Seen, Vec<Difference>), StoreError> {
    if first.is_quiet() {
        return Ok((first, Vec::new()));
    }
    let second = Look::run(store, options, first.suspects.clone()).await?;
    let ids = |seen: &Seen| seen.differences.iter().map(|one| one.id.clone()).collect::<HashSet<_>>();
    // What only sums told is named by the second look alone.
    let seen_before = ids(&first);
    if second.differences.iter().all(|one| seen_before.contains(&one.id) || !one.kind.is_named_by_sums()) {
        let kept = second.differences.iter().filter(|one| seen_before.contains(&one.id)).cloned().collect();
        return Ok((second, kept));
    }
    let third = Look::run(store, options, second.suspects.clone()).await?;
    let seen_before = ids(&second);
    let kept = third.differences.iter().filter(|one| seen_before.contains(&one.id)).cloned().collect();
    Ok((third, kept))
}

/// Sorts differences into those that count, those of other writers and those that a person knows of.
async fn take_in(
    report: &mut AuditReport,
    store: &dyn Store,
    mut differences: Vec<Difference>,
    list_at_most: usize,
) -> Result<(), StoreError> {
    let mut known: HashMap<String, _> =
        store.accepted_differences().await?.into_iter().map(|one| (one.id.clone(), one)).collect();
    differences.sort_by(|one, other| (one.kind, &one.since, &one.id).cmp(&(other.kind, &other.since, &other.id)));
    for difference in differences {
        let accepted = known.remove(&difference.id);
        report.take(Difference { accepted, ..difference }, list_at_most);
    }
    report.no_longer_found = known.into_values().collect();
    report.no_longer_found.sort_by(|one, other| one.id.cmp(&other.id));
    let users: BTreeSet<String> = report.listed().filter_map(|one| one.user_id.clone()).collect();
    let emails = store.emails(&users.into_iter().collect::<Vec<_>>()).await?;
    report.name_users(&emails);
    Ok(())
}
