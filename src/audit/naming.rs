//! Names the charges whose transactions disagree, once sums have told of which users and hours they are.

use std::collections::{HashMap, HashSet};

use super::charges::second_text;
use super::report::{Difference, DifferenceKind};
use super::sums::hour;
use crate::domain::money::FEMTOS_PER_CREDIT;

/// Charges that are held against their transactions one by one. Beyond, sums alone tell.
const MOST_CHARGES: usize = 500_000;

/// Where sums disagree.
#[derive(Debug, Clone, Default)]
pub struct Suspects {
    pub users: HashSet<String>,
    /// Of the charges.
    pub hours: HashSet<i64>,
}

/// The charges and transactions of suspects.
#[derive(Debug, Default)]
pub struct Naming {
    suspects: Suspects,
    charges: HashMap<String, Told>,
    pub is_full: bool,
}

#[derive(Debug, Default)]
struct Told {
    /// User, credits moved, second of the call.
    charge: Option<(String, i64, i64)>,
    transactions: Vec<TellingTransaction>,
}

#[derive(Debug)]
struct TellingTransaction {
    id: String,
    user_id: String,
    amount: i64,
    created_at: String,
}

impl Naming {
    pub fn of(suspects: Suspects) -> Self {
        Naming { suspects, ..Naming::default() }
    }

    fn told(&mut self, charge_id: &str, user: &str) -> Option<&mut Told> {
        if !self.suspects.users.contains(user) || !self.suspects.hours.contains(&hour(charge_id)) {
            return None;
        }
        if self.charges.len() >= MOST_CHARGES && !self.charges.contains_key(charge_id) {
            self.is_full = true;
            return None;
        }
        Some(self.charges.entry(charge_id.to_owned()).or_default())
    }

    pub fn charge(&mut self, id: &str, user: &str, moved: i64, call_second: i64) {
        if let Some(told) = self.told(id, user) {
            told.charge = Some((user.to_owned(), moved, call_second));
        }
    }

    pub fn transaction(&mut self, charge_id: &str, user: &str, id: &str, amount: i64, created_at: &str) {
        if let Some(told) = self.told(charge_id, user) {
            let (id, user_id, created_at) = (id.to_owned(), user.to_owned(), created_at.to_owned());
            told.transactions.push(TellingTransaction { id, user_id, amount, created_at });
        }
    }

    /// What disagrees.
    pub fn finish(self) -> Vec<Difference> {
        let mut charges: Vec<(String, Told)> = self.charges.into_iter().collect();
        charges.sort_by(|one, other| one.0.cmp(&other.0));
        charges.into_iter().filter_map(|(id, told)| difference(&id, told)).collect()
    }
}

fn difference(charge_id: &str, mut told: Told) -> Option<Difference> {
    told.transactions.sort_by(|one, other| (&one.created_at, &one.id).cmp(&(&other.created_at, &other.id)));
    let sum: i64 = told.transactions.iter().map(|one| one.amount).sum();
    let Some((user, moved, second)) = told.charge else { return unexplained(charge_id, &told.transactions, sum) };
    let others = told.transactions.iter().find(|one| one.user_id != user);
    if sum == -moved && others.is_none() {
        return None;
    }
    let charge = format!("The charge {charge_id} of {moved} credits for the call of {}", second_text(second));
    let (kind, subject, says) = match (told.transactions.as_slice(), others) {
        ([], _) => {
            let says = format!("{charge} moved the balance, and no transaction tells of it.");
            (DifferenceKind::TransactionMissing, charge_id, says)
        }
        (_, Some(other)) => {
            let says =
                format!("{charge} of the user {user} has the transaction {} of the user {}.", other.id, other.user_id);
            (DifferenceKind::TransactionDiffers, other.id.as_str(), says)
        }
        (transactions @ [.., last], None) if doubles(transactions, sum + moved) => {
            let says = format!("{charge} has the transaction {} twice: {} is the second.", transactions[0].id, last.id);
            (DifferenceKind::TransactionDoubled, last.id.as_str(), says)
        }
        (transactions @ [first, ..], None) => {
            let count = transactions.len();
            let says = format!("{charge} has {count} transactions of {sum} credits in all, {} first.", first.id);
            (DifferenceKind::TransactionDiffers, charge_id, says)
        }
    };
    let femtos = i128::from(-moved - sum) * FEMTOS_PER_CREDIT;
    Some(Difference::new(kind, Some(&user), Some(subject), femtos).since(Some(second_text(second))).saying(says))
}

/// The last one is there before, and is what is too much.
fn doubles(transactions: &[TellingTransaction], surplus: i64) -> bool {
    let Some((last, before)) = transactions.split_last() else { return false };
    last.amount == surplus && before.iter().any(|one| one.amount == last.amount)
}

fn unexplained(charge_id: &str, transactions: &[TellingTransaction], sum: i64) -> Option<Difference> {
    let first = transactions.first().filter(|_| sum != 0)?;
    let says =
        format!("The transaction {} of {sum} credits refers to the charge {charge_id}, which never was.", first.id);
    let femtos = i128::from(-sum) * FEMTOS_PER_CREDIT;
    let difference =
        Difference::new(DifferenceKind::TransactionUnexplained, Some(&first.user_id), Some(&first.id), femtos);
    Some(difference.since(Some(first.created_at.clone())).saying(says))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(
        charge: Option<(&str, i64)>,
        transactions: &[(&str, &str, i64)],
    ) -> Option<(DifferenceKind, String, String)> {
        let users = ["u", "v"].map(str::to_owned).into();
        let mut naming = Naming::of(Suspects { users, hours: [-1].into() });
        if let Some((user, moved)) = charge {
            naming.charge("c", user, moved, 0);
        }
        for (id, user, amount) in transactions {
            naming.transaction("c", user, id, *amount, "2026-11-24 08:00:00.000");
        }
        let found = naming.finish().pop()?;
        Some((found.kind, found.subject.unwrap(), found.credits))
    }

    #[test]
    fn each_disagreement_has_its_name() {
        use DifferenceKind::{TransactionDiffers, TransactionDoubled, TransactionMissing, TransactionUnexplained};
        let told = |kind, subject: &str, credits: &str| Some((kind, subject.to_owned(), credits.to_owned()));
        let of_u = Some(("u", 5));
        assert_eq!(named(of_u, &[("t", "u", -5)]), None);
        assert_eq!(named(of_u, &[("t", "u", -8), ("x", "u", 3)]), None, "corrected by a tie");
        assert_eq!(named(of_u, &[]), told(TransactionMissing, "c", "-5"));
        assert_eq!(named(of_u, &[("t", "u", -5), ("x", "u", -5)]), told(TransactionDoubled, "x", "5"));
        assert_eq!(named(of_u, &[("t", "u", -50)]), told(TransactionDiffers, "c", "45"));
        assert_eq!(named(of_u, &[("t", "v", -5)]), told(TransactionDiffers, "t", "0"));
        assert_eq!(named(None, &[("t", "u", -7)]), told(TransactionUnexplained, "t", "7"));
        assert_eq!(named(Some(("w", 5)), &[]), None, "no suspect");
    }
}
