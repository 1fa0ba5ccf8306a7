//! Equal calls: how many there are is what is charged, whatever was lost and in whatever order the rest came.

use crate::kit::daemon::SECRET;
use crate::kit::events::Usage;
use crate::kit::newapi::{Called, Dialect};
use crate::kit::random::Random;
use crate::kit::sender::{Retry, deliver, start_delivery};

use super::two_channels::{PATIENCE, PULL, Rig};

/// One thing that reaches the daemon.
#[derive(Debug, Clone)]
enum Arrival {
    Event(Usage),
    Row(i64),
}

/// Lets the first things of all cases arrive at once, then the second ones, and so on; a pass after each.
#[track_caller]
fn arrive(rig: &Rig, cases: &[Vec<Vec<Arrival>>]) {
    let steps = cases.iter().map(Vec::len).max().unwrap_or_default();
    for step in 0..steps {
        let mut bodies = Vec::new();
        for arrival in cases.iter().filter_map(|case| case.get(step)).flatten() {
            match arrival {
                Arrival::Event(usage) => bodies.push(usage.json()),
                Arrival::Row(id) => rig.newapi.log(|log| log.reveal(*id)),
            }
        }
        deliver(rig.daemon.address(), SECRET, bodies, 2, Retry::never()).assert_all_acknowledged();
        rig.wait_for_a_pass();
    }
}

fn row_of(called: &Called) -> Arrival {
    Arrival::Row(called.log_id.unwrap())
}

/// Ten equal calls of one second, `lost` of whose events never come; all else in three steps of a random order.
fn ten_equal(rig: &Rig, case: i64, lost: usize, has_ids: bool, random: &mut Random) -> Vec<Vec<Arrival>> {
    let call = rig.call(rig.now_secs() - 60).tokens(100 + case, 7).late();
    let mut arrivals = Vec::new();
    for number in 0..10 {
        let called = rig.newapi.call(&call);
        arrivals.push(row_of(&called));
        if number >= lost {
            let event_id = format!("ten-{case}-{number}");
            let usage = if has_ids { called.usage(&event_id) } else { called.usage_by_cost(&event_id) };
            arrivals.push(Arrival::Event(usage));
        }
    }
    random.shuffle(&mut arrivals);
    let third = arrivals.len().div_ceil(3);
    arrivals.chunks(third).map(<[Arrival]>::to_vec).collect()
}

#[track_caller]
fn assert_ten_are_ten(dialect: Dialect, has_ids: bool) {
    let rig = Rig::start(&[PULL]);
    rig.newapi.speak(dialect);
    rig.wait_for_a_pass();
    rig.advance_secs(240);
    let random = &mut Random::new();
    let lost: Vec<usize> = (0..=10).chain([1, 5, 9]).collect();
    let cases: Vec<_> =
        lost.iter().enumerate().map(|(case, lost)| ten_equal(&rig, case as i64, *lost, has_ids, random)).collect();
    arrive(&rig, &cases);
    let events = lost.iter().map(|lost| 10 - *lost as i64).sum::<i64>();
    rig.assert_billed(10 * lost.len() as i64);
    assert_eq!(rig.tied(), events, "each event has its row");
    rig.cover_everything();
    rig.assert_billed(10 * lost.len() as i64);
}

#[test]
fn ten_equal_calls_in_one_second_are_ten_whatever_is_lost_in_whatever_order() {
    assert_ten_are_ten(Dialect::Current, false);
}

#[test]
fn ten_equal_calls_whose_events_name_them_are_ten_as_well() {
    assert_ten_are_ten(Dialect::Current, true);
}

#[test]
fn ten_equal_calls_of_a_log_without_request_ids_are_ten_as_well() {
    assert_ten_are_ten(Dialect::Of2025, false);
}

/// Events at 0 s, 50 s …, and the rows of the same calls 50 s later: each row may belong to two events.
fn chain(rig: &Rig, case: i64, calls: i64) -> Vec<Arrival> {
    let first = rig.now_secs() - 220;
    let mut arrivals = Vec::new();
    for number in 0..calls {
        let at = first + 50 * number;
        let call = rig.call(at + 50).tokens(200 + case, 3).late();
        let called = rig.newapi.call(&call);
        arrivals.push(Arrival::Event(called.usage_by_cost(&format!("chain-{case}-{number}")).at_secs(at)));
        arrivals.push(row_of(&called));
    }
    arrivals
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
    let insert_everywhere = |shorter: Vec<usize>| {
        (0..=shorter.len()).map(move |place| {
            let mut longer = shorter.clone();
            longer.insert(place, last);
            longer
        })
    };
    permutations(last).into_iter().flat_map(insert_everywhere).collect()
}

#[test]
fn events_at_0_and_50_seconds_and_rows_at_50_and_100_are_two_calls_in_every_order() {
    let rig = Rig::pulling();
    let orders = permutations(4);
    assert_eq!(orders.len(), 24);
    let in_order = |(case, order): (usize, &Vec<usize>)| {
        let arrivals = chain(&rig, case as i64, 2);
        order.iter().map(|place| vec![arrivals[*place].clone()]).collect::<Vec<_>>()
    };
    let cases: Vec<_> = orders.iter().enumerate().map(in_order).collect();
    arrive(&rig, &cases);
    rig.assert_billed(48);
    assert_eq!(rig.tied(), 48, "the larger matching was found each time");
}

#[test]
fn a_longer_chain_of_calls_that_may_be_each_other_is_matched_as_far_as_possible() {
    let rig = Rig::pulling();
    let random = &mut Random::new();
    let mut cases = Vec::new();
    for case in 0..24 {
        let mut arrivals = chain(&rig, case, 4);
        random.shuffle(&mut arrivals);
        cases.push(arrivals.into_iter().map(|arrival| vec![arrival]).collect());
    }
    arrive(&rig, &cases);
    rig.assert_billed(4 * 24);
    assert_eq!(rig.tied(), 4 * 24);
}

#[test]
fn equal_calls_with_different_request_ids_are_two_where_one_lost_its_event_and_one_its_row() {
    let rig = Rig::pulling();
    // The sender is known to name the calls' own ids.
    let known = rig.newapi.call(&rig.call(rig.now_secs() - 30).tokens(1, 1));
    rig.post(&known.usage("known"));
    rig.wait_for_a_pass();
    assert_eq!((rig.charges(), rig.tied()), (1, 1));
    let at = rig.now_secs() - 20;
    for (case, is_event_first) in [(2, true), (3, false)] {
        let call = rig.call(at).tokens(case, 1).late();
        let (row_is_lost, event_is_lost) = (rig.newapi.call(&call), rig.newapi.call(&call));
        let event = Arrival::Event(row_is_lost.usage(&format!("event-{case}")));
        let mut steps = vec![vec![event], vec![row_of(&event_is_lost)]];
        if !is_event_first {
            steps.reverse();
        }
        arrive(&rig, &[steps]);
    }
    rig.assert_billed(5);
    rig.cover_everything();
    rig.assert_billed(5);
}

#[test]
fn an_event_and_its_row_at_the_same_instant_are_one_call() {
    const ROUNDS: i64 = 5;
    const CALLS: i64 = 80;
    let rig = Rig::pulling();
    for round in 0..ROUNDS {
        let at = rig.now_secs() - 20;
        let call = |number: i64| rig.newapi.call(&rig.call(at).tokens(round * 1000 + number / 2, 9).late());
        let called: Vec<Called> = (0..CALLS).map(call).collect();
        let event = |(number, called): (usize, &Called)| called.usage_by_cost(&format!("{round}-{number}")).json();
        let bodies = called.iter().enumerate().map(event).collect();
        let reads = rig.newapi.count_of_log();
        rig.newapi.log(|log| log.reveal_all());
        crate::kit::wait::wait_until("the rows are being read", PATIENCE, || {
            (rig.newapi.count_of_log() > reads).then_some(())
        });
        let retry = Retry::until(PATIENCE, std::time::Duration::from_millis(20));
        start_delivery(rig.daemon.address(), SECRET, bodies, 8, retry).finish().assert_all_acknowledged();
        rig.wait_for_a_pass();
        assert_eq!((rig.charges(), rig.tied()), ((round + 1) * CALLS, (round + 1) * CALLS), "after round {round}");
    }
    rig.assert_billed(ROUNDS * CALLS);
}
