//! Sums that show whether two lists of amounts say the same of each charge, without keeping either list.
//!
//! Each amount counts times a number that is made of its charge's id. Where every charge's amounts agree, the whole sum is
//! zero, in whatever order they come; where it is not, the user and the hour tell where to look.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

const HOUR_MILLIS: i64 = 3_600_000;

/// The hour of an id that is no UUIDv7.
const NO_HOUR: i64 = -1;

/// What one user's charges and refunds come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserSums {
    /// Zero if charges and transactions agree.
    pub told: u64,
    /// What is owed below one credit, by charges and refunds.
    pub owed_femtos: i128,
    pub unpaid: i64,
    /// Refunds that a repair made again without their parts of credits.
    pub rebuilt_refunds: u64,
}

/// Amounts by hour of the charge, over all users.
#[derive(Debug, Default)]
pub struct HourSums(HashMap<i64, u64>);

impl HourSums {
    pub fn add(&mut self, charge_id: &str, weight: u64) {
        let hour = self.0.entry(hour(charge_id)).or_default();
        *hour = hour.wrapping_add(weight);
    }

    /// Hours in which charges and transactions disagree.
    pub fn disagreeing(&self) -> impl Iterator<Item = i64> + '_ {
        self.0.iter().filter(|(_, sum)| **sum != 0).map(|(hour, _)| *hour)
    }
}

/// An amount of a charge, as it counts in sums.
pub fn weight(charge_id: &str, amount: i64) -> u64 {
    let mut hasher = DefaultHasher::new();
    charge_id.hash(&mut hasher);
    // Odd, so that no amount of credits makes it vanish.
    (hasher.finish() | 1).wrapping_mul(amount.cast_unsigned())
}

/// When an id was made, in Unix milliseconds, where it says so.
pub fn made_at_millis(id: &str) -> Option<i64> {
    let bytes = id.as_bytes();
    let is_ours = bytes.len() == 36 && bytes[8] == b'-' && bytes[13] == b'-' && bytes[14] == b'7';
    let digits = is_ours.then(|| Some(format!("{}{}", id.get(..8)?, id.get(9..13)?))).flatten()?;
    i64::from_str_radix(&digits, 16).ok()
}

pub fn hour(id: &str) -> i64 {
    made_at_millis(id).map_or(NO_HOUR, |millis| millis / HOUR_MILLIS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_agree_by_charge_and_not_only_in_sum() {
        let charges = [("a", 5), ("b", 7)];
        let sum = |amounts: &[(&str, i64)]| {
            amounts.iter().fold(0u64, |sum, (id, amount)| sum.wrapping_add(weight(id, *amount)))
        };
        let charged = sum(&charges);
        assert_eq!(charged.wrapping_add(sum(&[("b", -7), ("a", -5)])), 0);
        assert_eq!(charged.wrapping_add(sum(&[("b", -7), ("a", -8), ("a", 3)])), 0, "a correction in two parts");
        assert_ne!(charged.wrapping_add(sum(&[("b", -5), ("a", -7)])), 0, "the same in all, of other charges");
        assert_ne!(charged.wrapping_add(sum(&[("b", -7)])), 0);
    }

    #[test]
    fn an_id_of_ours_says_when_it_was_made() {
        assert_eq!(made_at_millis("019aabcd-ef01-7000-8000-000000000000"), Some(0x019a_abcd_ef01));
        for other in
            ["", "clx0a2b3c4d5e6f7g8h9", "0a9d1c3e-6a0f-4f5e-9f61-2f9a4bb0a1c7", "é19aabcd-ef01-7000-8000-0000000000"]
        {
            assert_eq!(made_at_millis(other), None, "{other}");
        }
    }
}
