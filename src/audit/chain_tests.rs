//! What breaks a user's chain of balances, and what does not.

use super::*;
use crate::storage::audit::TransactionPlace;

/// Second, whether it is ours, amount, balance.
type Told = (i64, bool, i64, i64);

fn followed(starts_empty: bool, current: i64, told: &[Told]) -> Vec<(DifferenceKind, String)> {
    let mut chain = Chain::new("user", starts_empty);
    for (number, (second, is_ours, amount, balance)) in told.iter().enumerate() {
        let created_at = UnixMillis::new(1_795_500_000_000 + second * 1000).to_column();
        let place = TransactionPlace { user_id: "user".to_owned(), created_at, id: number.to_string() };
        let transaction = AuditedTransaction {
            place,
            kind: "DEDUCT".to_owned(),
            amount: *amount,
            balance: *balance,
            reference: None,
            has_record: false,
            claim: None,
            is_known_refund: false,
            current_credits: Some(current),
        };
        chain.follow(&transaction, *is_ours);
    }
    chain.finish().0.into_iter().map(|one| (one.kind, one.credits)).collect()
}

#[test]
fn a_chain_begins_with_our_first_transaction() {
    let theirs_then_ours = [(0, false, 10, 999), (1, true, -5, 95), (2, false, 5, 100)];
    assert_eq!(followed(false, 100, &theirs_then_ours), []);
    assert_eq!(followed(false, 7, &[(0, false, 10, 999)]), [], "nothing of ours");
    let changed = (DifferenceKind::BalanceChanged, "85".to_owned());
    assert_eq!(followed(true, 95, &[(0, true, 10, 95)]), [changed], "where all is ours it begins with nothing");
}

#[test]
fn a_balance_written_back_is_told_with_what_it_undid() {
    let lost = [(0, true, 100, 100), (1, true, -5, 95), (2, true, -3, 92), (60, false, 50, 150), (61, true, -1, 149)];
    assert_eq!(followed(true, 149, &lost), [(DifferenceKind::BalanceOverwritten, "8".to_owned())]);
}

#[test]
fn what_changed_without_a_transaction_is_told_once() {
    let changed = |credits: &str| (DifferenceKind::BalanceChanged, credits.to_owned());
    assert_eq!(followed(true, 105, &[(0, true, 100, 100)]), [changed("5")], "since the newest");
    let between = [(0, true, 100, 100), (60, true, -5, 75), (90, true, -5, 70)];
    assert_eq!(followed(true, 70, &between), [changed("-20")]);
    let twice = [(0, true, 100, 100), (60, true, -5, 75), (90, true, -5, 90)];
    assert_eq!(followed(true, 90, &twice), [changed("-20"), changed("20")], "half a minute apart");
}

#[test]
fn the_order_of_one_instant_is_no_difference() {
    // Booked in the order -5, +20, -1; stamped +20, -5, -1.
    let shuffled = [(0, true, 100, 100), (10, false, 20, 115), (11, true, -5, 95), (12, true, -1, 114)];
    assert_eq!(followed(true, 114, &shuffled), []);
    let at_the_end = [(0, true, 100, 100), (10, false, 20, 115), (11, true, -5, 95)];
    assert_eq!(followed(true, 115, &at_the_end), []);
}
