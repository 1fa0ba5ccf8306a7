//! One user's balance held against his transactions: pure, one transaction after the other, from our first one on.
//!
//! Each balance follows from the one before it. Where it does not, somebody else moved it.

use std::collections::VecDeque;

use super::report::{Difference, DifferenceKind};
use crate::domain::money::FEMTOS_PER_CREDIT;
use crate::domain::time::UnixMillis;
use crate::storage::audit::AuditedTransaction;

/// Transactions that one overwritten balance may have undone.
const MOST_UNDONE: usize = 64;

/// Breaks of one user that are kept; the rest is counted.
const MOST_BREAKS: usize = 10_000;

/// Breaks that lie closer together than this and cancel out are transactions of one instant in another order.
const TOGETHER_MILLIS: i64 = 10_000;

/// A user's transactions so far.
#[derive(Debug)]
pub struct Chain {
    pub user_id: String,
    /// After the newest transaction; none: none of ours came yet.
    balance: Option<i64>,
    last_at: Option<String>,
    current: Option<i64>,
    recent: VecDeque<(String, i64)>,
    breaks: Vec<Break>,
    /// Breaks beyond those that are kept.
    more: u64,
}

#[derive(Debug, Clone)]
struct Break {
    amount: i64,
    since: Option<String>,
    until: Option<String>,
    /// Of another program, where it was found.
    transaction: Option<(String, i64)>,
    /// Ours that it undid.
    undone: Vec<String>,
}

impl Chain {
    /// `starts_empty`: nobody else writes here, so that all began with nothing.
    pub fn new(user_id: &str, starts_empty: bool) -> Self {
        Chain {
            user_id: user_id.to_owned(),
            balance: starts_empty.then_some(0),
            last_at: None,
            current: None,
            recent: VecDeque::new(),
            breaks: Vec::new(),
            more: 0,
        }
    }

    /// The next transaction, and whether it is ours.
    pub fn follow(&mut self, transaction: &AuditedTransaction, is_ours: bool) {
        self.current = Some(transaction.current_credits.unwrap_or_default());
        let before = transaction.balance - transaction.amount;
        let Some(balance) = self.balance.or(is_ours.then_some(before)) else { return };
        let at = &transaction.place.created_at;
        if before != balance {
            let amount = before - balance;
            let undone = if is_ours { Vec::new() } else { self.undone_by(amount) };
            let told = (!is_ours).then(|| (transaction.place.id.clone(), transaction.amount));
            self.note(Break {
                amount,
                since: self.last_at.clone(),
                until: Some(at.clone()),
                transaction: told,
                undone,
            });
        }
        self.balance = Some(transaction.balance);
        self.last_at = Some(at.clone());
        self.recent.push_back((transaction.place.id.clone(), transaction.amount));
        if self.recent.len() > MOST_UNDONE {
            self.recent.pop_front();
        }
    }

    /// The newest transactions whose sum a balance lacks.
    fn undone_by(&self, amount: i64) -> Vec<String> {
        let (mut sum, mut undone) = (0, Vec::new());
        for (id, moved) in self.recent.iter().rev() {
            sum += moved;
            undone.push(id.clone());
            if sum == -amount {
                return undone;
            }
        }
        Vec::new()
    }

    fn note(&mut self, new: Break) {
        if self.breaks.len() >= MOST_BREAKS {
            self.more += 1;
            return;
        }
        self.breaks.push(new);
        let until = |one: &Break| one.until.as_deref().or(one.since.as_deref()).and_then(UnixMillis::from_column);
        let newest = self.breaks.last().and_then(until);
        let mut sum = 0;
        for place in (0..self.breaks.len()).rev() {
            let apart = until(&self.breaks[place]).zip(newest).map(|(one, other)| other.as_millis() - one.as_millis());
            if apart.is_none_or(|apart| apart.abs() > TOGETHER_MILLIS) {
                return;
            }
            sum += self.breaks[place].amount;
            if sum == 0 {
                self.breaks.truncate(place);
                return;
            }
        }
    }

    /// After the last transaction: what does not follow, and how much more does not.
    pub fn finish(mut self) -> (Vec<Difference>, u64) {
        if let (Some(balance), Some(current)) = (self.balance, self.current)
            && balance != current
        {
            let since = self.last_at.clone();
            let amount = current - balance;
            self.note(Break { amount, since, until: None, transaction: None, undone: Vec::new() });
        }
        let user = self.user_id;
        (self.breaks.iter().map(|one| difference(&user, one)).collect(), self.more)
    }
}

fn difference(user: &str, one: &Break) -> Difference {
    let kind = if one.undone.is_empty() { DifferenceKind::BalanceChanged } else { DifferenceKind::BalanceOverwritten };
    let subject = one.transaction.as_ref().map(|(id, _)| id.as_str());
    let femtos = i128::from(one.amount) * FEMTOS_PER_CREDIT;
    let says = match (&one.transaction, one.undone.as_slice()) {
        (Some((id, amount)), undone @ [_, ..]) => format!(
            "The transaction {id} of {amount} credits left a balance that lacks {}: another program read the balance \
             before and wrote it back after, which gave the user {} credits.",
            named(undone),
            one.amount
        ),
        (Some((id, amount)), []) => format!(
            "The transaction {id} of {amount} credits, which is not ours, left a balance that is {} credits off what \
             was there with it.",
            one.amount
        ),
        (None, _) => format!("The balance changed by {} credits without a transaction.", one.amount),
    };
    Difference::new(kind, Some(user), subject, femtos).since(one.since.clone()).until(one.until.clone()).saying(says)
}

fn named(undone: &[String]) -> String {
    match undone {
        [one] => format!("the transaction {one}"),
        [newest, .., oldest] => format!("{} transactions, from {oldest} to {newest}", undone.len()),
        [] => String::new(),
    }
}

/// A user of whom no transaction tells, although he has credits or owes some.
pub fn untold(user: &str, credits: i64) -> Difference {
    let femtos = i128::from(credits) * FEMTOS_PER_CREDIT;
    let says = format!("The user has {credits} credits, and no transaction tells of any.");
    Difference::new(DifferenceKind::BalanceChanged, Some(user), None, femtos).saying(says)
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
