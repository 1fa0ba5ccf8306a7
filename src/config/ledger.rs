//! Settings of pricing and booking. The arithmetic is `domain`.

use std::time::Duration;

use ::config::ValueKind;

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::Reader;
use super::values::{self, Parsed};
use crate::domain::money::{MAX_RATE, QuotaPerUnit, Rate};
use crate::domain::pricing::{Overdraft, Rounding};

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "ledger",
    keys: &[
        ("usd_to_credits", Kind::Text, Effect::AtReload),
        ("quota_per_unit", Kind::Number, Effect::AtReload),
        ("rounding", Kind::Text, Effect::AtReload),
        ("overdraft", Kind::Text, Effect::AtReload),
        ("key_grace", Kind::Text, Effect::AtReload),
        ("max_batch", Kind::Number, Effect::AtReload),
        ("shards", Kind::Number, Effect::AtStart),
    ],
};

/// What a call costs and how it is booked.
#[derive(Debug, Clone)]
pub struct LedgerSettings {
    /// Holds until the database has a rate.
    pub usd_to_credits: Rate,
    /// Holds until new-api has said its own.
    pub quota_per_unit: QuotaPerUnit,
    pub rounding: Rounding,
    pub overdraft: Overdraft,
    /// How much older than its key a parked call may be and still be charged by itself.
    pub key_grace: Duration,
    /// Events settled in one transaction, at most.
    pub max_batch: usize,
    /// Connections to a server that settle side by side, each for its share of the users. 0: the store chooses.
    pub shards: usize,
}

impl LedgerSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let usd_to_credits = section.parse("usd_to_credits", parse_rate);
        if let Some(rate) = usd_to_credits {
            section.show("usd_to_credits", rate);
        }
        let quota_per_unit = section.integer("quota_per_unit", 1..=MAX_RATE).and_then(QuotaPerUnit::new);
        let rounding = section.choice("rounding", &[("carry", Rounding::Carry), ("nearest", Rounding::Nearest)]);
        let overdraft = section.choice("overdraft", &[("allow", Overdraft::Allow), ("refuse", Overdraft::Refuse)]);
        let key_grace = section.duration("key_grace", Duration::ZERO..=Duration::from_secs(365 * 86_400));
        let max_batch = section.integer("max_batch", 1..=4096);
        let shards = section.integer("shards", 0..=64);
        if rounding == Some(Rounding::Nearest) {
            section.warn(
                "ledger.rounding is \"nearest\": calls below half a credit are free, others up to half a credit dearer",
            );
        }
        if overdraft == Some(Overdraft::Refuse) {
            section.warn("ledger.overdraft is \"refuse\": calls that were made without credits are never paid for");
        }
        Some(LedgerSettings {
            usd_to_credits: usd_to_credits?,
            quota_per_unit: quota_per_unit?,
            rounding: rounding?,
            overdraft: overdraft?,
            key_grace: key_grace?,
            max_batch: max_batch?,
            shards: shards?,
        })
    }
}

/// A rate may be written as a number or as text. TOML's floats are doubles by the time they get here; a valid rate
/// has at most 15 digits, which a double gives back as they were written.
fn parse_rate(kind: &ValueKind) -> Parsed<Rate> {
    let text = match kind {
        ValueKind::String(text) => text.clone(),
        ValueKind::I64(number) => number.to_string(),
        ValueKind::Float(number) => number.to_string(),
        other => return Err(format!("must be a number such as 1000 or 7.25; got {}", values::describe(other))),
    };
    Rate::parse(&text).map_err(|error| format!("{error}; got {}", values::describe(kind)))
}
