//! One call, two channels: charged once in whatever order its sides arrive, and told where nobody can know.

use proptest::prelude::*;

use super::two_channels_books::{Ledger, Told, at};
use super::*;
use crate::domain::ids::EventId;
use crate::domain::known::{KnownEvent, OpenEvent};
use crate::domain::log_snapshot::RowOutcome;

#[test]
fn whichever_channel_is_first_a_call_is_charged_once() {
    let mut ledger = Ledger::default();
    assert!(matches!(ledger.event("e", &at(0)), SettlementOutcome::Settled { .. }));
    assert_eq!(ledger.rows(&[at(2)]), [RowOutcome::Tied]);
    let mut ledger = Ledger::default();
    ledger.rows(&[at(2)]);
    assert_eq!(ledger.event("e", &at(0)), SettlementOutcome::Tied);
    assert_eq!((ledger.charges(), ledger.balance), (1, -1));
    ledger.rows(&[at(2)]);
    assert_eq!(ledger.event("e", &at(0)), SettlementOutcome::AlreadySettled);
    assert_eq!((ledger.charges(), ledger.open()), (1, 0), "repeats change nothing");
}

#[test]
fn a_moved_tie_takes_its_claim_along() {
    for order in [[0, 1, 2, 3], [3, 0, 2, 1], [2, 1, 3, 0], [1, 2, 0, 3], [0, 3, 2, 1], [2, 3, 1, 0]] {
        let mut ledger = Ledger::default();
        for step in order {
            match step {
                0 => drop(ledger.event("e0", &at(0))),
                1 => drop(ledger.event("e50", &at(50))),
                2 => drop(ledger.rows(&[at(50)])),
                _ => drop(ledger.rows(&[at(100)])),
            }
        }
        ledger.cover(2000);
        assert_eq!((ledger.charges(), ledger.open()), (2, 0), "{order:?}");
    }
}

#[test]
fn calls_with_different_request_ids_are_two_where_the_source_puts_them_there() {
    let mut ledger = Ledger::default();
    ledger.event("known", &at(0).request("r-0"));
    ledger.rows(&[at(0).request("r-0")]);
    ledger.event("only-event", &at(10).request("r-1"));
    ledger.rows(&[at(10).request("r-2")]);
    ledger.cover(2000);
    assert_eq!((ledger.charges(), ledger.open()), (3, 0));
}

#[test]
fn a_side_takes_the_partner_that_it_names_from_one_that_merely_agreed() {
    // Nothing has shown yet that the source puts the calls' own ids there.
    let (a, b) = (at(0).request("a"), at(10).request("b"));
    for lost in [None, Some(0), Some(1), Some(2), Some(3)] {
        for order in orders(4) {
            let mut ledger = Ledger::default();
            for step in order.into_iter().filter(|step| lost != Some(*step)) {
                match step {
                    0 => drop(ledger.event("a", &a)),
                    1 => drop(ledger.event("b", &b)),
                    2 => drop(ledger.rows(std::slice::from_ref(&a))),
                    _ => drop(ledger.rows(std::slice::from_ref(&b))),
                }
            }
            ledger.cover(2000);
            assert_eq!((ledger.charges(), ledger.open(), ledger.balance), (2, 0, -2), "without {lost:?}");
        }
    }
}

fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
    let insert_everywhere = |shorter: Vec<usize>| {
        (0..=shorter.len()).map(move |place| {
            let mut longer = shorter.clone();
            longer.insert(place, last);
            longer
        })
    };
    orders(last).into_iter().flat_map(insert_everywhere).collect()
}

#[test]
fn one_call_told_differently_is_disputed_and_not_charged_twice() {
    let renamed = Told { model: "other-name", ..at(1) };
    for (event, row) in [(at(0).units(500), at(1).units(499)), (at(0), renamed), (at(0), at(180))] {
        let mut ledger = Ledger::default();
        ledger.event("e", &event);
        assert_eq!(ledger.rows(std::slice::from_ref(&row)), [RowOutcome::Waiting]);
        assert_eq!(ledger.cover(100).disputed, u64::from(row.second < 100), "only what is covered");
        ledger.cover(2000);
        assert_eq!((ledger.charges(), ledger.open()), (1, 1));
        let mut ledger = Ledger::default();
        ledger.rows(&[row]);
        assert_eq!(ledger.event("e", &event), SettlementOutcome::Waits);
        assert_eq!(ledger.cover(2000).disputed, 1);
        assert_eq!((ledger.charges(), ledger.open()), (1, 1));
        assert_eq!(ledger.cover(2000).disputed, 0, "once");
    }
}

#[test]
fn a_dispute_ends_when_either_side_finds_its_true_partner() {
    let mut ledger = Ledger::default();
    ledger.event("e", &at(0));
    ledger.rows(&[at(300)]);
    ledger.cover(2000);
    assert_eq!((ledger.charges(), ledger.open()), (1, 1));
    ledger.rows(&[at(20)]);
    assert_eq!((ledger.charges(), ledger.open(), ledger.balance), (2, 0, -2), "the other row is a call of its own");
}

#[test]
fn more_waiting_sides_than_charges_beside_them_are_calls_of_their_own() {
    let mut ledger = Ledger::default();
    ledger.event("e", &at(0));
    ledger.rows(&[at(300), at(301), at(302)]);
    ledger.cover(2000);
    assert_eq!((ledger.charges(), ledger.open()), (3, 1));
}

#[test]
fn a_dispute_without_a_charge_beside_it_waits_again_until_it_is_decided() {
    let mut ledger = Ledger::default();
    ledger.event("e0", &at(0));
    ledger.event("e500", &at(500));
    ledger.rows(&[at(250).units(499), at(251).units(499)]);
    ledger.cover(2000);
    assert_eq!((ledger.charges(), ledger.open(), ledger.waiting_rows()), (2, 2, 0), "one beside each");
    assert_eq!(ledger.rows(&[at(10)]), [RowOutcome::Tied], "the true partner of one of the two");
    assert_eq!((ledger.charges(), ledger.open(), ledger.waiting_rows()), (2, 2, 1));
    ledger.cover(2000);
    assert_eq!((ledger.charges(), ledger.open(), ledger.waiting_rows()), (3, 1, 0), "a call of its own");
}

#[test]
fn with_a_shared_request_id_the_rows_price_decides() {
    for row_first in [false, true] {
        let mut ledger = Ledger::default();
        let (event, row) = (at(0).units(1000).request("r"), at(400).units(4000).request("r"));
        if row_first {
            ledger.rows(std::slice::from_ref(&row));
        }
        ledger.event("e", &event);
        ledger.rows(&[row]);
        assert_eq!((ledger.charges(), ledger.units(), ledger.balance), (1, 4000, -8));
    }
    let mut ledger = Ledger::default();
    ledger.event("e", &at(0).units(4000).request("r"));
    ledger.rows(&[at(0).units(1000).request("r")]);
    assert_eq!((ledger.charges(), ledger.units(), ledger.balance), (1, 1000, -2));
}

/// Equal calls of which each event and each row may be lost; seconds are far enough apart to be told apart, or equal.
fn calls() -> impl Strategy<Value = Vec<(i64, bool, bool, bool)>> {
    prop::collection::vec((0..4i64, any::<bool>(), any::<bool>(), any::<bool>()), 1..10)
}

proptest! {
    #[test]
    fn charges_are_events_and_rows_less_the_pairs(calls in calls(), seed in any::<u64>()) {
        // Where calls are equal in their second or over an hour apart, the largest matching is plain counting.
        let mut steps: Vec<(bool, i64)> = Vec::new();
        let mut expected = 0;
        for second in 0..4 {
            let of_second = calls.iter().filter(|call| call.0 == second);
            let events = of_second.clone().filter(|call| call.1).count();
            let rows = of_second.filter(|call| call.2).count();
            expected += events.max(rows);
            steps.extend(std::iter::repeat_n((true, second * 4000), events));
            if rows > 0 {
                steps.push((false, second * 4000));
            }
        }
        let mut random = seed;
        let mut ledger = Ledger::default();
        let mut events = 0;
        while !steps.is_empty() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (is_event, second) = steps.swap_remove((random >> 33) as usize % steps.len());
            if is_event {
                events += 1;
                ledger.event(&format!("e{events}"), &at(second));
            } else {
                let rows = calls.iter().filter(|call| call.0 * 4000 == second && call.2).map(|_| at(second));
                let rows: Vec<Told> = rows.collect();
                ledger.rows(&rows);
                ledger.rows(&rows);
            }
        }
        prop_assert_eq!(ledger.charges(), expected);
        prop_assert_eq!(ledger.open(), 0);
        prop_assert_eq!(ledger.balance, -(expected as i64));
    }
}

#[test]
fn an_open_event_is_pending_and_answers_so_again() {
    let mut ledger = Ledger::default();
    ledger.rows(&[at(300)]);
    assert_eq!(ledger.event("e", &at(0)), SettlementOutcome::Waits);
    assert_eq!(ledger.event("e", &at(0)), SettlementOutcome::Waits);
    let (_, known, _) = &ledger.known[&EventId::parse("e").unwrap()];
    assert!(matches!(known, KnownEvent::Open(OpenEvent { status: InboxStatus::Pending, .. })));
}
