//! Unit tests and properties of the decision what giving money back books.

use proptest::prelude::*;

use super::*;
use crate::domain::money::{QuotaPerUnit, Rate};
use crate::domain::pricing::credits_to_move;

const NOW: i64 = 1_795_558_800_000;

fn femtos(text: &str) -> CreditFemtos {
    CreditFemtos::parse(text).unwrap()
}

fn key() -> ChargeKey {
    ChargeKey { call_second: 1, id: RecordId::parse("charge").unwrap() }
}

fn user() -> UserId {
    UserId::parse("u").unwrap()
}

fn request(key_text: &str, amount: RefundAmount) -> RefundRequest {
    let (idempotency_key, reason) = (Arc::from(key_text), Arc::from("failed"));
    RefundRequest { charge: key(), amount, origin: RefundOrigin::Operator, idempotency_key, reason }
}

/// A charge of that price and the account of its user, both right after it was booked on an empty account.
fn booked(price: CreditFemtos, remainder: Remainder, rounding: Rounding) -> (RefundSnapshot, i64) {
    let (moved, remainder_after) = credits_to_move(price, remainder, rounding).unwrap();
    let price = ExactPrice {
        units: None,
        credits: price,
        rate: Rate::parse("1000").unwrap(),
        quota_per_unit: QuotaPerUnit::new(500_000).unwrap(),
    };
    let charge = BookedCharge {
        user_id: user(),
        has_user: true,
        model: Arc::from("m"),
        price,
        remainder_before: remainder,
        remainder_after,
        rounding: Some(rounding),
        refunded: CreditFemtos::ZERO,
    };
    let account = Account {
        balance: Some(Credits::ZERO.checked_sub(moved).unwrap()),
        remainder: remainder_after,
        ..Account::default()
    };
    let snapshot = RefundSnapshot {
        charges: HashMap::from([(key(), charge)]),
        earlier: HashMap::new(),
        accounts: HashMap::from([(user(), account)]),
    };
    (snapshot, moved.get())
}

fn refund(snapshot: RefundSnapshot, requests: &[RefundRequest], rounding: Rounding) -> RefundPlan {
    plan_refunds(requests, snapshot, rounding, UnixMillis::new(NOW), &RecordIds::new())
}

#[test]
fn a_full_refund_gives_back_what_was_moved_and_the_carried_fraction() {
    let (snapshot, moved) = booked(femtos("3.66"), Remainder::new(500_000_000_000_000).unwrap(), Rounding::Carry);
    assert_eq!(moved, 4);
    let plan = refund(snapshot, &[request("k", RefundAmount::Rest)], Rounding::Carry);
    let [account] = plan.accounts.as_slice() else { panic!("{plan:?}") };
    assert_eq!((account.balance_delta.get(), account.remainder.get()), (4, 500_000_000_000_000));
    let [transaction] = plan.transactions.as_slice() else { panic!("{plan:?}") };
    assert_eq!((transaction.kind.as_str(), transaction.amount.get()), ("REFUND", 4));
    assert_eq!(transaction.charge_id, Some(key().id));
}

#[test]
fn a_repeat_gives_nothing_and_a_key_belongs_to_one_request() {
    let (snapshot, _) = booked(femtos("10"), Remainder::ZERO, Rounding::Carry);
    let part = RefundAmount::Credits(femtos("4"));
    let other = RefundAmount::Credits(femtos("5"));
    let asked = [request("k", part), request("k", part), request("k", other), request("k2", part)];
    let plan = refund(snapshot, &asked, Rounding::Carry);
    let [first, repeat, conflict, second] = plan.outcomes.as_slice() else { panic!("{plan:?}") };
    let RefundOutcome::Refunded(booked) = first else { panic!("{first:?}") };
    assert_eq!(repeat, &RefundOutcome::Repeated(booked.clone()));
    assert_eq!(conflict, &RefundOutcome::Refused(RefundRefusal::KeyConflict));
    assert!(matches!(second, RefundOutcome::Refunded(refund) if refund.balance_after == Credits::new(-2)));
    assert_eq!(plan.accounts[0].balance_delta, Credits::new(8));
}

#[test]
fn never_more_than_was_taken() {
    let (snapshot, _) = booked(femtos("10"), Remainder::ZERO, Rounding::Carry);
    let asked = [
        request("a", RefundAmount::Credits(femtos("10.000000000000001"))),
        request("b", RefundAmount::Credits(femtos("9.5"))),
        request("c", RefundAmount::Credits(femtos("0.6"))),
        request("d", RefundAmount::Rest),
        request("e", RefundAmount::Rest),
    ];
    let plan = refund(snapshot, &asked, Rounding::Carry);
    assert_eq!(plan.outcomes[0], RefundOutcome::Refused(RefundRefusal::MoreThanLeft(femtos("10"))));
    assert_eq!(plan.outcomes[2], RefundOutcome::Refused(RefundRefusal::MoreThanLeft(femtos("0.5"))));
    assert_eq!(plan.outcomes[4], RefundOutcome::Refused(RefundRefusal::NothingLeft));
    assert_eq!((plan.accounts[0].balance_delta, plan.accounts[0].remainder), (Credits::new(10), Remainder::ZERO));
}

#[test]
fn what_was_never_paid_is_no_longer_owed_before_anything_is_given_back() {
    let (mut snapshot, _) = booked(femtos("10"), Remainder::ZERO, Rounding::Carry);
    snapshot.accounts.insert(user(), Account { unpaid: Credits::new(4), ..Account::default() });
    let plan = refund(snapshot, &[request("k", RefundAmount::Rest)], Rounding::Carry);
    let RefundOutcome::Refunded(refund) = &plan.outcomes[0] else { panic!("{plan:?}") };
    assert_eq!((refund.credits, refund.unpaid_lowered), (Credits::new(6), Credits::new(4)));
    assert_eq!(plan.accounts[0].unpaid, Credits::ZERO);
}

#[test]
fn refusals_say_why() {
    let outcome = |change: fn(&mut RefundSnapshot), amount| {
        let (mut snapshot, _) = booked(femtos("10"), Remainder::ZERO, Rounding::Carry);
        change(&mut snapshot);
        let plan = refund(snapshot, &[request("k", amount)], Rounding::Carry);
        assert!(plan.accounts.is_empty() && plan.transactions.is_empty() && plan.refunds.is_empty());
        plan.outcomes[0].clone()
    };
    let gone = |snapshot: &mut RefundSnapshot| snapshot.charges.values_mut().for_each(|charge| charge.has_user = false);
    assert_eq!(
        outcome(|snapshot| snapshot.charges.clear(), RefundAmount::Rest),
        RefundOutcome::Refused(RefundRefusal::NoSuchCharge)
    );
    assert_eq!(outcome(gone, RefundAmount::Rest), RefundOutcome::Refused(RefundRefusal::NoUser));
    let units = RefundAmount::Quota(QuotaUnits::new(1).unwrap());
    assert_eq!(outcome(|_| {}, units), RefundOutcome::Refused(RefundRefusal::NotPricedInQuota));
}

proptest! {
    /// In whatever parts, and whatever the remainder was: charge and full refund leave the books as they were.
    #[test]
    fn parts_that_make_up_the_whole_leave_balance_and_remainder_as_they_were(
        price in 1i64..9_000_000_000_000_000_000,
        remainder in 0i64..1_000_000_000_000_000,
        cuts in prop::collection::vec(0.0f64..1.0, 0..6),
        is_carried in any::<bool>(),
    ) {
        let price = CreditFemtos::ZERO
            .plus_remainder(Remainder::new(price % 1_000_000_000_000_000).unwrap()).unwrap()
            .checked_add(CreditFemtos::from_credits(Credits::new(price / 1_000_000_000_000_000)).unwrap()).unwrap();
        let rounding = if is_carried { Rounding::Carry } else { Rounding::Nearest };
        let (snapshot, moved) = booked(price, Remainder::new(remainder).unwrap(), rounding);
        // Parts of about these shares of what is left, then the rest.
        let mut left = price.get();
        let mut requests = Vec::new();
        for (number, share) in cuts.iter().enumerate() {
            let part = (left as f64 * share / 2.0) as i128;
            if part > 0 {
                left -= part;
                let text = format!("{}.{:015}", part / 1_000_000_000_000_000, part % 1_000_000_000_000_000);
                requests.push(request(&number.to_string(), RefundAmount::Credits(femtos(&text))));
            }
        }
        requests.push(request("rest", RefundAmount::Rest));
        let plan = refund(snapshot, &requests, rounding);
        for outcome in &plan.outcomes {
            prop_assert!(matches!(outcome, RefundOutcome::Refunded(_)), "{outcome:?}");
        }
        prop_assert_eq!(plan.accounts[0].balance_delta.get(), moved);
        prop_assert_eq!(plan.accounts[0].remainder.get(), remainder);
        for refund in plan.refunds.iter().map(|(_, refund)| refund) {
            prop_assert!(refund.credits >= Credits::ZERO);
        }
    }
}

#[test]
fn a_change_of_rounding_gives_back_neither_more_nor_less() {
    for (booked_with, now_set) in [(Rounding::Carry, Rounding::Nearest), (Rounding::Nearest, Rounding::Carry)] {
        let (snapshot, moved) = booked(femtos("3"), Remainder::ZERO, booked_with);
        let requests = [request("a", RefundAmount::Credits(femtos("0.5"))), request("b", RefundAmount::Rest)];
        let plan = refund(snapshot, &requests, now_set);
        assert_eq!((plan.accounts[0].balance_delta.get(), plan.accounts[0].remainder), (moved, Remainder::ZERO));
    }
}

#[test]
fn all_that_is_left_is_another_request_than_a_part() {
    let (snapshot, _) = booked(femtos("10"), Remainder::ZERO, Rounding::Carry);
    let requests = [request("k", RefundAmount::Credits(femtos("1"))), request("k", RefundAmount::Rest)];
    let plan = refund(snapshot, &requests, Rounding::Carry);
    assert_eq!(plan.outcomes[1], RefundOutcome::Refused(RefundRefusal::KeyConflict));
}
