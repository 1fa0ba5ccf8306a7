//! What is told of new-api and of its log: named conditions, from what looks and passes found.
//!
//! What happens in one moment (ids that fall back, another price unit) is told for a day, so that somebody sees it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::conditions::Condition;
use super::observed::Observed;
use crate::domain::money::QuotaPerUnit;
use crate::domain::time::UnixMillis;
use crate::polling::{ChannelFacts, Probe, Report, RowsMissing};
use crate::storage::log::Agreement;
use crate::storage::prices::QuotaChange;

const A_DAY: Duration = Duration::from_secs(86_400);
const AN_HOUR: Duration = Duration::from_secs(3600);

/// More disputed calls of a hundred than this, and the channels disagree.
const MOST_DISPUTED_OF_100: i64 = 5;

/// Looks that found price differences, kept for an hour.
const MOST_LOOKS: usize = 1000;

/// Why new-api did not answer, and the name of the condition that it means, if it means one.
pub type Failure = (Option<&'static str>, String);

/// What new-api was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// What it says of itself, by a look.
    Itself,
    /// Its log, by a pass.
    Log,
}

/// Sets the conditions, and keeps what only lasts.
pub struct SourceConditions {
    observed: Arc<Observed>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// What happened, until when it is told.
    lasting: Vec<(Condition, UnixMillis, String)>,
    /// Why the last look and the last pass got no answer.
    failures: [Option<Failure>; 2],
    /// How many more price differences were seen at which look, oldest first.
    differences: VecDeque<(UnixMillis, u64)>,
    /// How many there were at the last look.
    differences_seen: u64,
    /// A change of the price unit waits for its second.
    has_quota_change: bool,
}

impl SourceConditions {
    pub fn new(observed: Arc<Observed>) -> Self {
        SourceConditions { observed, kept: Mutex::default() }
    }

    fn set(&self, condition: Condition, sentence: Option<String>, now: UnixMillis) {
        self.observed.conditions.set(condition, sentence, now);
    }

    /// It happened at this instant.
    fn happened(&self, condition: Condition, sentence: String, now: UnixMillis) {
        {
            let mut kept = self.kept();
            kept.lasting.retain(|(known, ..)| *known != condition);
            kept.lasting.push((condition, now, sentence.clone()));
        }
        self.set(condition, Some(sentence), now);
    }

    /// What happened more than a day ago is over.
    fn forget_old(&self, now: UnixMillis) {
        let lasting = self.kept().lasting.clone();
        for (condition, at, _) in lasting.iter().filter(|(_, at, _)| now.since(*at) >= A_DAY) {
            self.kept().lasting.retain(|kept| (kept.0, kept.1) != (*condition, *at));
            self.set(*condition, None, now);
        }
    }

    /// What a look at new-api itself found.
    pub fn probed(&self, found: Probe, now: UnixMillis) {
        self.forget_old(now);
        self.set(Condition::LoggingOff, found.logging_off, now);
        self.set(Condition::ClockSkew, found.clock_skew, now);
        if found.failure.is_none() {
            self.set(Condition::SourceChanged, found.source_changed, now);
        }
        if let Some(sentence) = found.unusable_quota {
            self.happened(Condition::QuotaPerUnitChanged, sentence, now);
        }
        self.failed(Asked::Itself, found.failure, now);
    }

    /// Why new-api does not answer a look or a pass: what one of them found holds until that one finds otherwise.
    pub fn failed(&self, asked: Asked, failure: Option<Failure>, now: UnixMillis) {
        if let Some((None, reason)) = &failure {
            tracing::warn!(%reason, "new-api could not be looked at");
        }
        let failures = {
            let failures = &mut self.kept().failures;
            failures[asked as usize] = failure;
            failures.clone()
        };
        for condition in [Condition::TokenRefused, Condition::NotNewApi, Condition::FilterIgnored] {
            let of_this = |(name, _): &&Failure| *name == Some(condition.as_str());
            let found = failures.iter().flatten().find(of_this).map(|(_, sentence)| sentence.clone());
            self.set(condition, found, now);
        }
    }

    /// Another gateway answered in the place of the one that is known.
    pub fn changed(&self, why: String, now: UnixMillis) {
        self.set(Condition::SourceChanged, Some(why), now);
    }

    /// What a pass found, also where it ended early.
    pub fn passed(&self, report: &Report, now: UnixMillis) {
        let made_up = report.ids_made_up.then(|| {
            "the log's row ids are made up for each answer (a ClickHouse store): they are not used, and nothing is lost \
             by it"
                .to_owned()
        });
        self.set(Condition::IdsUnstable, made_up, now);
        if let Some((before, after)) = report.ids_fell {
            let sentence = format!(
                "the ids of new-api's log fell from {before} to {after}: the log was emptied or restored. Nothing is \
                 charged twice by it; calls that it lost before they were read have their event alone"
            );
            self.happened(Condition::IdsRestarted, sentence, now);
        }
        if let Some(missing) = report.missing {
            self.set(Condition::RowsDeleted, (missing.count > 0).then(|| of_missing(missing)), now);
        }
    }

    /// new-api said its price unit for the first time, and it is not the configured one: it counts from this second on.
    pub fn quota_changed(&self, (before, after): (QuotaPerUnit, QuotaPerUnit), from_second: i64, now: UnixMillis) {
        let (before, after) = (before.get(), after.get());
        let counts_from = UnixMillis::new(from_second.saturating_mul(1000)).to_rfc3339();
        let sentence = format!(
            "new-api's quota per unit is {after}, and not {before} as the books had it: calls before {counts_from} are \
             priced by {before}; set ledger.quota_per_unit to {after}"
        );
        self.happened(Condition::QuotaPerUnitChanged, sentence, now);
    }

    /// Changes of its price unit of which a person has to name the second: told until he has.
    pub fn quota_changes(&self, changes: &[QuotaChange], now: UnixMillis) {
        let mut open = changes.iter().filter(|change| change.named.is_none());
        let count = open.clone().count();
        let sentence = open.next().map(|change| {
            let QuotaChange { last_seen, first_seen, before, after, held, charged_by_the_old, .. } = change;
            let more = if count > 1 { format!(" ({} later changes likewise)", count - 1) } else { String::new() };
            format!(
                "new-api's quota per unit changed from {before} to {after} between {last_seen} and {first_seen}: {held} \
                 events and rows of that time wait, {charged_by_the_old} charges were made by {before}. Name the second: \
                 `hookledger prices quota-changed --at TIME`{more}"
            )
        });
        let was_open = std::mem::replace(&mut self.kept().has_quota_change, sentence.is_some());
        if sentence.is_some() || was_open {
            self.set(Condition::QuotaPerUnitChanged, sentence, now);
        }
    }

    /// How the calls of the last hour were told by both channels.
    pub fn compared(&self, facts: ChannelFacts, agreement: Agreement, is_pull: bool, now: UnixMillis) {
        let lost = facts.loss.without_event;
        let missing = (lost > 0 && !is_pull).then(|| {
            format!(
                "{lost} of the last hour's {} calls came without their event: the log told of them",
                facts.loss.rows
            )
        });
        self.set(Condition::EventsMissing, missing, now);
        let Agreement { calls, disputed } = agreement;
        let disagree = (disputed * 100 > calls * MOST_DISPUTED_OF_100).then(|| {
            format!(
                "{disputed} of {calls} sides of the last hour that is covered are disputed: events and rows tell the \
                 same calls differently, or tell of different calls"
            )
        });
        self.set(Condition::ChannelsDisagree, disagree, now);
    }

    /// So many calls had stated different prices on both channels, since the start.
    pub fn price_differences(&self, count: u64, now: UnixMillis) {
        let new = {
            let kept = &mut *self.kept();
            let increase = count.saturating_sub(std::mem::replace(&mut kept.differences_seen, count));
            if increase > 0 {
                kept.differences.push_back((now, increase));
            }
            kept.differences.retain(|(at, _)| now.since(*at) < AN_HOUR);
            if kept.differences.len() > MOST_LOOKS {
                kept.differences.pop_front();
            }
            kept.differences.iter().map(|(_, count)| count).sum::<u64>()
        };
        let sentence = (new > 0).then(|| {
            format!(
                "{new} calls of the last hour stated different prices in their event and their row: the row's counts"
            )
        });
        self.set(Condition::PriceDiffers, sentence, now);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_missing(missing: RowsMissing) -> String {
    let moment = |second: i64| UnixMillis::new(second.saturating_mul(1000)).to_rfc3339();
    format!(
        "new-api's log lacks {} rows that were read, between {} and {}: somebody deleted them; what was charged stays",
        missing.count,
        moment(missing.from_second),
        moment(missing.until_second)
    )
}
