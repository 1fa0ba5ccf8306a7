//! What one look came to: as many differences as are kept, and whose doing those of balances are.

use std::collections::{HashMap, HashSet};

use super::naming::Suspects;
use super::report::{Difference, DifferenceKind, LookedAt};

/// Differences that one look keeps, of other programs' as many again.
const MOST_KEPT: usize = 10_000;

/// What a look came to.
#[derive(Debug, Default)]
pub struct Seen {
    pub looked_at: LookedAt,
    pub differences: Vec<Difference>,
    /// Differences beyond those that are kept.
    pub unlisted: u64,
    /// The same, of other programs' differences.
    pub unlisted_of_others: u64,
    pub suspects: Suspects,
    pub notes: Vec<String>,
    kept: usize,
    kept_of_others: usize,
}

impl Seen {
    pub fn is_quiet(&self) -> bool {
        let is_all = self.unlisted == 0 && self.unlisted_of_others == 0;
        self.differences.is_empty() && is_all && self.suspects.users.is_empty()
    }

    /// Keeps it, if there is room: many of other programs' take none from ours.
    pub fn tell(&mut self, difference: Difference) {
        let is_of_others = difference.kind.is_of_others();
        let kept = if is_of_others { &mut self.kept_of_others } else { &mut self.kept };
        if *kept < MOST_KEPT {
            *kept += 1;
            self.differences.push(difference);
        } else if is_of_others {
            self.unlisted_of_others += 1;
        } else {
            self.unlisted += 1;
        }
    }
}

/// A balance that differs is another program's doing only where our own chain of the user is whole. What missing, surplus
/// and changed transactions explain, one by one or all together, is told by those alone.
pub fn settle_balances(differences: &mut Vec<Difference>) {
    let own: HashSet<String> =
        differences.iter().filter(|one| !one.kind.is_of_others()).filter_map(|one| one.user_id.clone()).collect();
    let (mut told, mut sums): (HashMap<String, Vec<i128>>, HashMap<String, i128>) = Default::default();
    for one in differences.iter() {
        let Some(user) = &one.user_id else { continue };
        if one.kind.is_named_by_sums() {
            told.entry(user.clone()).or_default().push(one.femtos);
            *sums.entry(user.clone()).or_default() += one.femtos;
        } else if one.kind.is_of_others() {
            *sums.entry(user.clone()).or_default() -= one.femtos;
        }
    }
    differences.retain_mut(|one| {
        let Some(user) = one.user_id.as_ref().filter(|user| one.kind.is_of_others() && own.contains(*user)) else {
            return true;
        };
        if let Some(told) = told.get_mut(user) {
            if sums.get(user) == Some(&0) {
                return false;
            }
            if let Some(place) = told.iter().position(|femtos| *femtos == one.femtos) {
                told.swap_remove(place);
                return false;
            }
        }
        *one = one.clone().of_kind(DifferenceKind::BalanceDiffers);
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_of_other_programs_take_no_room_from_ours() {
        let mut seen = Seen::default();
        for _ in 0..=MOST_KEPT {
            seen.tell(Difference::new(DifferenceKind::BalanceChanged, Some("u"), None, 5));
        }
        assert_eq!((seen.differences.len(), seen.unlisted, seen.unlisted_of_others), (MOST_KEPT, 0, 1));
        seen.tell(Difference::new(DifferenceKind::RemainderDiffers, Some("u"), None, 5));
        assert_eq!((seen.differences.len(), seen.unlisted), (MOST_KEPT + 1, 0));
    }
}
