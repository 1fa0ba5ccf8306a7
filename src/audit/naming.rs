//! Names the charges whose transactions disagree, once sums have told of which users and hours they are.

use std::collections::{HashMap, HashSet};

use super::charges::second_text;
use super::report::{Difference, DifferenceKind};
use super::sums::hour;
use crate::domain::money::FEMTOS_PER_CREDIT;
use crate::storage::audit::AuditedTransaction;

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
#[derive(Debug)]
pub struct Naming {
    suspects: Suspects,
    charges: HashMap<String, Told>,
    at_most: usize,
    /// Users of whom not all charges were held.
    crowded: HashSet<String>,
}

#[derive(Debug, Default)]
struct Told {
    /// User, credits moved, second of the call.
    charge: Option<(String, i64, i64)>,
    transactions: Vec<TellingTransaction>,
    /// Of refunds that we know of, which are held against those.
    refunds: Vec<TellingTransaction>,
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
        Naming { suspects, charges: HashMap::new(), at_most: MOST_CHARGES, crowded: HashSet::new() }
    }

    fn told(&mut self, charge_id: &str, user: &str) -> Option<&mut Told> {
        if !self.suspects.users.contains(user) || !self.suspects.hours.contains(&hour(charge_id)) {
            return None;
        }
        if self.charges.len() >= self.at_most && !self.charges.contains_key(charge_id) {
            self.crowded.insert(user.to_owned());
            return None;
        }
        Some(self.charges.entry(charge_id.to_owned()).or_default())
    }

    pub fn charge(&mut self, id: &str, user: &str, moved: i64, call_second: i64) {
        if let Some(told) = self.told(id, user) {
            told.charge = Some((user.to_owned(), moved, call_second));
        }
    }

    pub fn transaction(&mut self, charge_id: &str, transaction: &AuditedTransaction) {
        if let Some(told) = self.told(charge_id, &transaction.place.user_id) {
            let list = if transaction.is_known_refund { &mut told.refunds } else { &mut told.transactions };
            list.push(TellingTransaction::of(transaction));
        }
    }

    /// What disagrees. `disagreeing`: users whose sums still do.
    pub fn finish(self, disagreeing: &HashSet<String>) -> Vec<Difference> {
        let mut charges: Vec<(String, Told)> = self.charges.into_iter().collect();
        charges.sort_by(|one, other| one.0.cmp(&other.0));
        let mut found: Vec<Difference> = charges.into_iter().filter_map(|(id, told)| difference(&id, told)).collect();
        let named: HashSet<String> = found.iter().filter_map(|one| one.user_id.clone()).collect();
        let is_open = |user: &&String| disagreeing.contains(*user) && !named.contains(*user);
        found.extend(self.crowded.iter().filter(is_open).map(|user| unnamed(user)));
        found
    }
}

impl TellingTransaction {
    fn of(transaction: &AuditedTransaction) -> Self {
        TellingTransaction {
            id: transaction.place.id.clone(),
            user_id: transaction.place.user_id.clone(),
            amount: transaction.amount,
            created_at: transaction.place.created_at.clone(),
        }
    }
}

/// Sums disagree, and there are too many charges to see which.
fn unnamed(user: &str) -> Difference {
    let says = "What the charges of this user moved and what their transactions say disagree, and more charges disagree \
                than are looked at one by one: mend those that are named, and audit again.";
    Difference::new(DifferenceKind::TransactionDiffers, Some(user), None, 0).saying(says.to_owned())
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
        (transactions @ [first, ..], None) => {
            if let Some((original, double)) = doubled(transactions, &told.refunds, sum + moved) {
                let says = format!("{charge} has the transaction {} twice: {} is the second.", original.id, double.id);
                let femtos = i128::from(-double.amount) * FEMTOS_PER_CREDIT;
                let found = Difference::new(DifferenceKind::TransactionDoubled, Some(&user), Some(&double.id), femtos);
                return Some(found.since(Some(second_text(second))).saying(says));
            }
            let count = transactions.len();
            let says = format!("{charge} has {count} transactions of {sum} credits in all, {} first.", first.id);
            (DifferenceKind::TransactionDiffers, charge_id, says)
        }
    };
    let femtos = i128::from(-moved - sum) * FEMTOS_PER_CREDIT;
    Some(Difference::new(kind, Some(&user), Some(subject), femtos).since(Some(second_text(second))).saying(says))
}

/// The last one is there before, or among the refunds, and is what is too much: which one it repeats, and itself.
fn doubled<'a>(
    transactions: &'a [TellingTransaction],
    refunds: &'a [TellingTransaction],
    surplus: i64,
) -> Option<(&'a TellingTransaction, &'a TellingTransaction)> {
    let (last, before) = transactions.split_last()?;
    let original = before.iter().chain(refunds).find(|one| one.amount == last.amount)?;
    (last.amount == surplus).then_some((original, last))
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
    use crate::storage::audit::TransactionPlace;

    const AT: &str = "2026-11-24 08:00:00.000";

    fn transaction(id: &str, user: &str, amount: i64, is_known_refund: bool) -> AuditedTransaction {
        let place = TransactionPlace { user_id: user.to_owned(), created_at: AT.to_owned(), id: id.to_owned() };
        AuditedTransaction {
            place,
            kind: "DEDUCT".to_owned(),
            amount,
            balance: 0,
            reference: Some("c".to_owned()),
            has_record: true,
            claim: None,
            is_known_refund,
            current_credits: Some(0),
        }
    }

    fn suspects() -> Suspects {
        Suspects { users: ["u", "v"].map(str::to_owned).into(), hours: [-1].into() }
    }

    fn named(
        charge: Option<(&str, i64)>,
        transactions: &[(&str, &str, i64)],
        refunds: &[(&str, &str, i64)],
    ) -> Option<(DifferenceKind, String, String)> {
        let mut naming = Naming::of(suspects());
        if let Some((user, moved)) = charge {
            naming.charge("c", user, moved, 0);
        }
        for (list, is_refund) in [(transactions, false), (refunds, true)] {
            for (id, user, amount) in list {
                naming.transaction("c", &transaction(id, user, *amount, is_refund));
            }
        }
        let found = naming.finish(&HashSet::new()).pop()?;
        Some((found.kind, found.subject.unwrap(), found.credits))
    }

    #[test]
    fn each_disagreement_has_its_name() {
        use DifferenceKind::{TransactionDiffers, TransactionDoubled, TransactionMissing, TransactionUnexplained};
        let told = |kind, subject: &str, credits: &str| Some((kind, subject.to_owned(), credits.to_owned()));
        let of_u = Some(("u", 5));
        assert_eq!(named(of_u, &[("t", "u", -5)], &[]), None);
        assert_eq!(named(of_u, &[("t", "u", -5)], &[("r", "u", 5)]), None, "a refund is held against its own row");
        assert_eq!(named(of_u, &[("t", "u", -8), ("x", "u", 3)], &[]), None, "corrected by a tie");
        assert_eq!(named(of_u, &[], &[]), told(TransactionMissing, "c", "-5"));
        assert_eq!(named(of_u, &[("t", "u", -5), ("x", "u", -5)], &[]), told(TransactionDoubled, "x", "5"));
        let twice = named(of_u, &[("t", "u", -5), ("x", "u", 5)], &[("r", "u", 5)]);
        assert_eq!(twice, told(TransactionDoubled, "x", "-5"), "a refund twice");
        assert_eq!(named(of_u, &[("t", "u", -50)], &[]), told(TransactionDiffers, "c", "45"));
        assert_eq!(named(of_u, &[("t", "v", -5)], &[]), told(TransactionDiffers, "t", "0"));
        assert_eq!(named(None, &[("t", "u", -7)], &[]), told(TransactionUnexplained, "t", "7"));
        assert_eq!(named(None, &[], &[("r", "u", 7)]), None);
        assert_eq!(named(Some(("w", 5)), &[], &[]), None, "no suspect");
    }

    #[test]
    fn who_does_not_fit_in_is_told_as_long_as_his_sums_disagree() {
        let mut naming = Naming { at_most: 1, ..Naming::of(suspects()) };
        naming.charge("a", "u", 5, 0);
        naming.charge("b", "v", 5, 0);
        naming.transaction("a", &transaction("t", "u", -5, false));
        let disagreeing: HashSet<String> = ["u", "v"].map(str::to_owned).into();
        let found = naming.finish(&disagreeing);
        let told: Vec<_> = found.iter().map(|one| (one.kind, one.user_id.as_deref())).collect();
        assert_eq!(told, [(DifferenceKind::TransactionDiffers, Some("v"))]);
        let mut naming = Naming { at_most: 0, ..Naming::of(suspects()) };
        naming.charge("b", "v", 5, 0);
        assert_eq!(naming.finish(&HashSet::new()), [], "what a daemon was at work on agrees by now");
    }
}
