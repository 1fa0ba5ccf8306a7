//! The matching against a brute-force one, and each rule by itself.

use proptest::prelude::*;

use super::*;
use crate::domain::ids::{EventId, RecordId};
use crate::domain::log_row::{RowDigest, RowIdentity};
use crate::domain::money::Credits;

const POLICY: MatchPolicy = MatchPolicy {
    match_window: Duration::from_secs(60),
    dispute_window: Duration::from_secs(900),
    request_ids_prove: true,
};

#[derive(Debug, Clone)]
struct Call {
    is_event: bool,
    second: i64,
    units: i64,
    request: Option<&'static str>,
}

fn event(second: i64) -> Call {
    Call { is_event: true, second, units: 500, request: None }
}

fn row(second: i64) -> Call {
    Call { is_event: false, ..event(second) }
}

fn put(neighbours: &mut Neighbours, number: usize, call: &Call) -> Place {
    let request_id = call.request.and_then(|id| RequestId::parse(id).ok());
    let identity = match call.is_event {
        true => SideIdentity::Event {
            event_id: EventId::parse(&format!("event-{number}")).unwrap(),
            request_id,
            log_id: None,
        },
        false => SideIdentity::Row {
            row: RowIdentity {
                source: "default".into(),
                second: call.second,
                digest: RowDigest::of_text(&number.to_string()),
                number: 0,
            },
            request_id,
            log_id: None,
        },
    };
    let facts = Facts {
        token: RemoteKeyId::new(7).unwrap(),
        model: "gpt-4".into(),
        prompt_tokens: 10,
        completion_tokens: 5,
        units: QuotaUnits::new(call.units),
        credits: CreditFemtos::from_credits(Credits::new(call.units)).unwrap(),
        at: UnixMillis::new((1_800_000_000 + call.second) * 1000),
    };
    let claim = ChargeKey { call_second: call.second, id: RecordId::parse(&format!("claim-{number}")).unwrap() };
    neighbours.add(identity, facts, Standing::Charged(claim), false)
}

/// Puts the calls in one by one and ties what can be tied; how many pairs there are in the end.
fn pairs(calls: &[Call]) -> usize {
    let mut neighbours = Neighbours::default();
    for (number, call) in calls.iter().enumerate() {
        let place = put(&mut neighbours, number, call);
        neighbours.tie(place, &POLICY);
    }
    let places = (0..calls.len()).map(Place);
    let tied = places.filter(|place| {
        let partner = neighbours.partner(*place);
        assert!(partner.is_none_or(|partner| neighbours.partner(partner) == Some(*place)), "a tie has two ends");
        partner.is_some()
    });
    tied.count() / 2
}

/// The largest number of pairs, by trying everything.
fn most_pairs(events: &[&Call], rows: &[&Call], used: u32) -> usize {
    let Some((event, rest)) = events.split_first() else { return 0 };
    let mut best = most_pairs(rest, rows, used);
    for (number, row) in rows.iter().enumerate() {
        let exact = event.request.is_some() && event.request == row.request;
        let different = event.request.is_some() && row.request.is_some() && event.request != row.request;
        let agree = event.units == row.units && (event.second - row.second).abs() <= 60;
        if used & (1 << number) == 0 && (exact || (agree && !different)) {
            best = best.max(1 + most_pairs(rest, rows, used | (1 << number)));
        }
    }
    best
}

fn call() -> impl Strategy<Value = Call> {
    (any::<bool>(), 0..300i64, 0..2i64).prop_map(|(is_event, second, units)| Call {
        is_event,
        second: second - second % 10,
        units: 500 + units,
        request: None,
    })
}

proptest! {
    #[test]
    fn as_many_calls_are_tied_as_can_be_in_any_order_of_arrival(calls in prop::collection::vec(call(), 0..12)) {
        let events: Vec<&Call> = calls.iter().filter(|call| call.is_event).collect();
        let rows: Vec<&Call> = calls.iter().filter(|call| !call.is_event).collect();
        prop_assert_eq!(pairs(&calls), most_pairs(&events, &rows, 0));
    }
}

#[test]
fn two_calls_whose_windows_overlap_are_two_in_every_order() {
    let calls = [event(0), event(50), row(50), row(100)];
    for order in permutations(4) {
        let calls: Vec<Call> = order.iter().map(|number| calls[*number].clone()).collect();
        assert_eq!(pairs(&calls), 2, "{order:?}");
    }
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(count - 1);
    shorter
        .iter()
        .flat_map(|order| {
            (0..count).map(move |place| {
                let mut longer = order.clone();
                longer.insert(place, count - 1);
                longer
            })
        })
        .collect()
}

#[test]
fn a_shared_request_id_ties_whatever_the_time_and_the_price() {
    let with = |call: Call, request, units| Call { request: Some(request), units, ..call };
    assert_eq!(pairs(&[with(event(0), "r-1", 500), with(row(7000), "r-1", 499)]), 1);
    assert_eq!(pairs(&[with(event(0), "r-1", 500), with(row(0), "r-2", 500)]), 0, "they are proved different");
    assert_eq!(pairs(&[with(event(0), "r-1", 500), row(0)]), 1, "one has no id: nothing proves them different");
}

#[test]
fn other_request_ids_prove_nothing_at_a_source_that_does_not_use_them() {
    let policy = MatchPolicy { request_ids_prove: false, ..POLICY };
    let mut neighbours = Neighbours::default();
    let told = put(&mut neighbours, 0, &Call { request: Some("mine"), ..event(0) });
    let read = put(&mut neighbours, 1, &Call { request: Some("theirs"), ..row(0) });
    assert!(neighbours.tie(read, &policy).is_some());
    assert_eq!(neighbours.partner(told), Some(read));
}

#[test]
fn of_several_sides_with_one_request_id_the_agreeing_one_is_tied() {
    let mut neighbours = Neighbours::default();
    let other = put(&mut neighbours, 0, &Call { request: Some("r"), units: 900, ..row(0) });
    let agreeing = put(&mut neighbours, 1, &Call { request: Some("r"), ..row(1) });
    let told = put(&mut neighbours, 2, &Call { request: Some("r"), ..event(0) });
    assert_eq!(neighbours.tie(told, &POLICY).map(|tied| tied.own.row), Some(agreeing));
    assert_eq!(neighbours.partner(other), None);
}

#[test]
fn what_differs_in_price_or_time_is_alike_until_it_is_tied() {
    let mut neighbours = Neighbours::default();
    let told = put(&mut neighbours, 0, &event(0));
    let rounded = put(&mut neighbours, 1, &Call { units: 501, ..row(3) });
    let late = put(&mut neighbours, 2, &row(180));
    let far = put(&mut neighbours, 3, &row(901));
    assert!(neighbours.tie(rounded, &POLICY).is_none());
    assert_eq!(neighbours.alike(rounded, &POLICY), Some(told));
    assert_eq!(neighbours.alike(late, &POLICY), Some(told));
    assert_eq!(neighbours.alike(far, &POLICY), None, "beyond the window of disputes");
    let partner = put(&mut neighbours, 4, &row(10));
    assert!(neighbours.tie(partner, &POLICY).is_some());
    assert_eq!(neighbours.alike(rounded, &POLICY), None, "the event has found its own row");
}
