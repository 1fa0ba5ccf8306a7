//! How far events and their rows lie apart: the largest that was seen yesterday and today says how near to the ends of a
//! span an event may lie whose row lies beyond.
//!
//! One note for days of an even number and one for the others, so that a day overtakes the one before the last.

use std::sync::atomic::{AtomicI64, Ordering};

use super::{LogStore, StoreError};
use crate::domain::settlement::{ClaimSide, Plan};
use crate::domain::time::UnixMillis;

const NOTES: [&str; 2] = ["largest_skew_even_days", "largest_skew_odd_days"];

/// A note is the day, and then as many digits as milliseconds of a day take.
const OF_A_DAY: i64 = 100_000_000;

const DAY_MILLIS: i64 = 24 * 3600 * 1000;

/// What this process has noted, so that a tie costs no write.
#[derive(Default)]
pub struct Noted([AtomicI64; 2]);

impl Noted {
    /// What a plan adds to it, if anything: the note and its value, of which the larger one holds.
    pub fn news(&self, plan: &Plan, now: UnixMillis) -> Option<(&'static str, i64)> {
        let (place, value) = figure(plan, now)?;
        (self.0[place].load(Ordering::Acquire) < value).then_some((NOTES[place], value))
    }

    /// The plan is in the books, with its news.
    pub fn committed(&self, plan: &Plan, now: UnixMillis) {
        if let Some((place, value)) = figure(plan, now) {
            self.0[place].fetch_max(value, Ordering::AcqRel);
        }
    }
}

fn figure(plan: &Plan, now: UnixMillis) -> Option<(usize, i64)> {
    let ties = plan.ties.iter().map(|tie| (&tie.event, &tie.row));
    let charges = plan.charges.iter().filter_map(|charge| Some((charge.event.as_ref()?, charge.row.as_ref()?)));
    let apart = |(event, row): (&ClaimSide, &ClaimSide)| event.at.as_millis().abs_diff(row.at.as_millis());
    let largest = ties.chain(charges).map(apart).max()?;
    let day = now.as_millis().div_euclid(DAY_MILLIS);
    let value = day * OF_A_DAY + i64::try_from(largest).unwrap_or(i64::MAX).min(OF_A_DAY - 1);
    Some((usize::from(day.rem_euclid(2) == 1), value))
}

/// In seconds, rounded up; none was seen yesterday or today.
pub async fn largest_secs(store: &dyn LogStore, now: UnixMillis) -> Result<Option<i64>, StoreError> {
    let yesterday = now.as_millis().div_euclid(DAY_MILLIS) - 1;
    let mut largest = None;
    for name in NOTES {
        let noted: Option<i64> = store.note(name).await?.and_then(|value| value.parse().ok());
        let of_late = noted.filter(|value| value.div_euclid(OF_A_DAY) >= yesterday);
        largest = largest.max(of_late.map(|value| (value.rem_euclid(OF_A_DAY) + 999) / 1000));
    }
    Ok(largest)
}
