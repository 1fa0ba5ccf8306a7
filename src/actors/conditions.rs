//! Named conditions that someone should look at: which hold, since when, and in which words.
//!
//! Whoever finds one sets it here, at every look; that it is logged once a change is this file's business.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::time::UnixMillis;
use crate::telemetry::metrics;

/// What can be wrong around the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// `options.UsdToCreditsRate` holds no rate.
    RateInvalid,
    /// Events wait since several users have their token.
    AmbiguousKey,
    /// Another program still bills on the platform's database.
    ForeignDeductions,
    /// Our state and the platform's tables were restored, dropped or replaced apart from each other.
    SchemasApart,
    /// new-api writes no consumption log.
    LoggingOff,
    /// new-api answers rows that were not asked for.
    FilterIgnored,
    /// The ids of its rows are made up for each answer.
    IdsUnstable,
    /// The ids of its rows fell back: its log was emptied or restored.
    IdsRestarted,
    /// Its clock and ours are far apart.
    ClockSkew,
    /// It says another price unit than before.
    QuotaPerUnitChanged,
    /// It lacks rows that were read.
    RowsDeleted,
    /// Calls came without their event.
    EventsMissing,
    /// Many calls are told differently by their event and their row.
    ChannelsDisagree,
    /// Calls whose event and row state different prices.
    PriceDiffers,
    /// It does not take the access token.
    TokenRefused,
    /// Something else answers in its place.
    NotNewApi,
    /// Another new-api answers in its place.
    SourceChanged,
}

impl Condition {
    pub const ALL: [Condition; 17] = [
        Condition::RateInvalid,
        Condition::AmbiguousKey,
        Condition::ForeignDeductions,
        Condition::SchemasApart,
        Condition::LoggingOff,
        Condition::FilterIgnored,
        Condition::IdsUnstable,
        Condition::IdsRestarted,
        Condition::ClockSkew,
        Condition::QuotaPerUnitChanged,
        Condition::RowsDeleted,
        Condition::EventsMissing,
        Condition::ChannelsDisagree,
        Condition::PriceDiffers,
        Condition::TokenRefused,
        Condition::NotNewApi,
        Condition::SourceChanged,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Condition::RateInvalid => "rate_invalid",
            Condition::AmbiguousKey => "ambiguous_key",
            Condition::ForeignDeductions => "foreign_deductions",
            Condition::SchemasApart => "schemas_apart",
            Condition::LoggingOff => "logging_off",
            Condition::FilterIgnored => "filter_ignored",
            Condition::IdsUnstable => "ids_unstable",
            Condition::IdsRestarted => "ids_restarted",
            Condition::ClockSkew => "clock_skew",
            Condition::QuotaPerUnitChanged => "quota_per_unit_changed",
            Condition::RowsDeleted => "rows_deleted",
            Condition::EventsMissing => "events_missing",
            Condition::ChannelsDisagree => "channels_disagree",
            Condition::PriceDiffers => "price_differs",
            Condition::TokenRefused => "token_refused",
            Condition::NotNewApi => "not_new_api",
            Condition::SourceChanged => "source_changed",
        }
    }
}

/// A condition that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub condition: Condition,
    pub first_seen: UnixMillis,
    pub last_seen: UnixMillis,
    /// One sentence with the figures.
    pub sentence: String,
}

/// What holds now, in memory: the next look after a start finds it again.
pub struct Conditions {
    held: Mutex<Vec<Held>>,
}

impl Default for Conditions {
    fn default() -> Self {
        // All that may hold are shown from the start, so that an alert has something to compare with.
        Condition::ALL.into_iter().for_each(|condition| metrics::condition(condition.as_str(), false));
        Conditions { held: Mutex::default() }
    }
}

impl Conditions {
    /// What a look at `now` found: the sentence if the condition holds, nothing if not.
    pub fn set(&self, condition: Condition, sentence: Option<String>, now: UnixMillis) {
        metrics::condition(condition.as_str(), sentence.is_some());
        let name = condition.as_str();
        let mut held = self.lock();
        let known = held.iter().position(|held| held.condition == condition);
        match (known, sentence) {
            (None, None) => {}
            (Some(index), None) => {
                held.remove(index);
                tracing::info!(condition = name, "a condition is over");
            }
            (None, Some(sentence)) => {
                tracing::error!(condition = name, "{sentence}");
                held.push(Held { condition, first_seen: now, last_seen: now, sentence });
            }
            (Some(index), Some(sentence)) => {
                let known = &mut held[index];
                if !differ_in_figures_only(&known.sentence, &sentence) {
                    tracing::error!(condition = name, "{sentence}");
                }
                *known = Held { condition, first_seen: known.first_seen, last_seen: now, sentence };
            }
        }
    }

    /// What holds, in the order in which it was first seen.
    pub fn held(&self) -> Vec<Held> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Figures move at every look: that is told, and not logged again.
fn differ_in_figures_only(before: &str, after: &str) -> bool {
    let words = |text: &str| text.chars().filter(|letter| !letter.is_ascii_digit()).collect::<String>();
    words(before) == words(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_that_move_are_no_change_and_other_words_are() {
        assert!(differ_in_figures_only("3 of 10 calls", "12 of 100 calls"));
        assert!(!differ_in_figures_only("3 calls (alice)", "3 calls (bob)"));
    }

    #[test]
    fn a_condition_keeps_its_first_look_until_it_is_over() {
        let conditions = Conditions::default();
        let at = |millis: i64| UnixMillis::new(1_800_000_000_000 + millis);
        let set = |sentence: Option<&str>, millis| {
            conditions.set(Condition::RateInvalid, sentence.map(str::to_owned), at(millis));
        };
        set(None, 0);
        assert_eq!(conditions.held(), []);
        set(Some("one"), 1);
        set(Some("two"), 2);
        let held = |first, last, sentence: &str| Held {
            condition: Condition::RateInvalid,
            first_seen: at(first),
            last_seen: at(last),
            sentence: sentence.to_owned(),
        };
        assert_eq!(conditions.held(), [held(1, 2, "two")]);
        set(None, 3);
        set(Some("three"), 4);
        assert_eq!(conditions.held(), [held(4, 4, "three")], "it began anew");
    }
}
