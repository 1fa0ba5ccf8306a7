//! Whether the books agree with themselves: claims, usage records, transactions, balances and remainders tell the same.
//!
//! The audit itself is asked in `run`.

use std::collections::{BTreeMap, BTreeSet};

use super::books::{Books, Transaction};
use super::ownership::user_name;
use super::prices::{FEMTOS, nearest};
use super::verdict::count_by;
use super::world::World;

pub fn judge(world: &World, books: &Books) -> Vec<String> {
    let mut wrong = Vec::new();
    wrong.extend(once(books));
    wrong.extend(records(books));
    for user in 0..world.rules.balances.len() {
        let found = user_books(world, books, user);
        wrong.extend(found.into_iter().map(|text| format!("{}: {text}", user_name(user))));
    }
    wrong
}

/// No event and no row is claimed twice, and no id is stored twice.
fn once(books: &Books) -> Vec<String> {
    let mut wrong = Vec::new();
    let events = count_by(books.claims.iter().filter_map(|claim| claim.event_id.clone()));
    let rows = count_by(books.claims.iter().filter_map(|claim| claim.row.clone()));
    let logged = count_by(books.logged.iter().map(|(_, event_id)| event_id.clone()));
    wrong
        .extend(events.iter().filter(|(_, count)| **count > 1).map(|(id, _)| format!("event {id:?} is claimed twice")));
    wrong.extend(rows.iter().filter(|(_, count)| **count > 1).map(|(row, _)| format!("row {row:?} is claimed twice")));
    wrong.extend(logged.iter().filter(|(_, count)| **count > 1).map(|(id, _)| format!("event {id:?} is logged twice")));
    let waiting = books.inbox.iter().filter_map(|left| left.event_id.as_ref());
    let both = waiting.filter(|id| events.contains_key(*id));
    wrong.extend(both.map(|id| format!("event {id:?} is charged, and waits")));
    // The row of a charge is known as such.
    let settled = books.rows.iter().filter(|left| left.state == "charged" || left.state == "tied");
    let settled: BTreeSet<_> = settled.filter_map(|left| left.row.clone()).collect();
    let lost = rows.keys().filter(|row| !settled.contains(*row));
    wrong.extend(lost.map(|row| format!("row {row:?} has a charge, and is not known to have")));
    let unclaimed = settled.iter().filter(|row| !rows.contains_key(*row));
    wrong.extend(unclaimed.map(|row| format!("row {row:?} is settled, and no charge has it")));
    wrong
}

/// Each charge has its usage record and its transactions.
fn records(books: &Books) -> Vec<String> {
    let mut wrong = Vec::new();
    let usage: BTreeMap<&str, i64> = books.usage.iter().map(|(id, credits)| (id.as_str(), *credits)).collect();
    if usage.len() != books.claims.len() {
        wrong.push(format!("{} usage records for {} charges", usage.len(), books.claims.len()));
    }
    let mut moved: BTreeMap<&str, i64> = BTreeMap::new();
    for transaction in &books.transactions {
        *moved.entry(transaction.charge.as_deref().unwrap_or_default()).or_default() -= transaction.amount;
    }
    for claim in &books.claims {
        let back: i64 = books.refunds.iter().filter(|refund| refund.claim == claim.id).map(|refund| refund.moved).sum();
        let by_transactions = moved.remove(claim.id.as_str()).unwrap_or_default();
        if usage.get(claim.id.as_str()) != Some(&claim.moved) || by_transactions != claim.moved - back {
            wrong.push(format!(
                "the charge {:?} moved {}, gave {back} back, its usage record says {:?}, its transactions {by_transactions}",
                claim.event_id, claim.moved, usage.get(claim.id.as_str())
            ));
        }
    }
    if let Some((charge, amount)) = moved.into_iter().find(|(_, amount)| *amount != 0) {
        wrong.push(format!("transactions of {amount} credits are of no charge ({charge:?})"));
    }
    let ids: BTreeSet<&str> = books.transactions.iter().map(|transaction| transaction.id.as_str()).collect();
    let named = books.refunds.iter().filter_map(|refund| refund.transaction.as_deref());
    wrong.extend(named.filter(|id| !ids.contains(id)).map(|_| "a refund names no transaction".to_owned()));
    wrong
}

fn user_books(world: &World, books: &Books, user: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let (name, begun) = (user_name(user), world.rules.balances[user]);
    let history: Vec<&Transaction> = books.transactions.iter().filter(|one| one.user == name).collect();
    let balance = books.balances.iter().find(|(owner, _)| *owner == name).map_or(0, |(_, balance)| *balance);
    let sum: i64 = history.iter().map(|transaction| transaction.amount).sum();
    if begun + sum != balance {
        wrong.push(format!("the balance is {balance} instead of {begun} and {sum}"));
    }
    wrong.extend(chain(begun, &history));
    if world.rules.refuses_overdraft {
        let taken = history.iter().filter(|one| one.kind == "DEDUCT" && one.balance - one.amount <= 0);
        wrong.extend(taken.map(|one| format!("{} credits were taken of an empty account", -one.amount)));
    }
    let account = books.accounts.iter().find(|(owner, ..)| *owner == name);
    let (remainder, unpaid) = account.map_or((0, 0), |(_, remainder, unpaid)| (*remainder, *unpaid));
    let claims: Vec<_> = books.claims.iter().filter(|claim| claim.user == name).collect();
    let refunds: Vec<_> = books.refunds.iter().filter(|refund| refund.user == name).collect();
    let moved: i64 = claims.iter().map(|claim| claim.moved + claim.unpaid).sum();
    let back: i64 = refunds.iter().map(|refund| refund.moved + refund.unpaid_lowered).sum();
    let lowered: i64 = refunds.iter().map(|refund| refund.unpaid_lowered).sum();
    if unpaid != claims.iter().map(|claim| claim.unpaid).sum::<i64>() - lowered {
        wrong.push(format!("{unpaid} credits are unpaid, and its charges say otherwise"));
    }
    if world.rules.rounds_to_nearest {
        let due: i128 = claims.iter().map(|claim| rounded(books, claim.id.as_str(), claim.femtos)).sum();
        if due != i128::from(moved - back) || remainder != 0 {
            wrong.push(format!("moved {moved} and {back} back under \"nearest\", due {due}, remainder {remainder}"));
        }
    } else {
        let price: i128 = claims.iter().map(|claim| claim.femtos).sum();
        let returned: i128 = refunds.iter().map(|refund| refund.femtos).sum();
        if price - returned != i128::from(moved - back) * FEMTOS + remainder {
            wrong.push(format!(
                "prices of {price} less {returned} are not {moved} less {back} and a remainder of {remainder}"
            ));
        }
    }
    if !(0..FEMTOS).contains(&remainder) {
        wrong.push(format!("a remainder of {remainder}"));
    }
    wrong
}

/// Each transaction's balance follows from the one before it.
fn chain(begun: i64, history: &[&Transaction]) -> Option<String> {
    let mut balance = begun;
    for transaction in history {
        balance += transaction.amount;
        if transaction.balance != balance {
            return Some(format!(
                "a transaction of {} says {}, which is {balance}",
                transaction.amount, transaction.balance
            ));
        }
    }
    None
}

/// What a charge comes to under "nearest": the rounded price, less that of what went back.
fn rounded(books: &Books, claim: &str, femtos: i128) -> i128 {
    let back: i128 = books.refunds.iter().filter(|refund| refund.claim == claim).map(|refund| refund.femtos).sum();
    nearest(femtos - back)
}
