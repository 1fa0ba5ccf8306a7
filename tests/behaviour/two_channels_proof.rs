//! Figures that agree prove a day without reading it; figures that say nothing prove nothing.

use crate::kit::daemon::SECRET;
use crate::kit::newapi::{Called, Fault};
use crate::kit::sender::{Retry, deliver};
use crate::kit::wait::wait_until;

use super::two_channels::{PATIENCE, Rig};

/// A call each so many seconds, as 20,000 a day come.
const EVERY_SECS: i64 = 4;
const CALLS: i64 = 2000;

/// A channel that does well, whose log is swept only when [`sweep`] says so.
pub fn swept_by_hand() -> Rig {
    Rig::swept_every("30h")
}

/// Calls all over some hours, every so manieth of which has lost its event; the daemon is told of them at their end.
fn day(rig: &Rig, loses_every: Option<usize>) -> Vec<Called> {
    day_of(rig, CALLS, loses_every)
}

/// The same of so many calls.
pub fn day_of(rig: &Rig, calls: i64, loses_every: Option<usize>) -> Vec<Called> {
    let begin = rig.now_secs() + 10;
    rig.advance_secs(calls * EVERY_SECS + 60);
    let call = |number: i64| {
        let jitter = number * 7 % 3;
        rig.newapi.call(&rig.call(begin + number * EVERY_SECS + jitter).tokens(number % 11, 8))
    };
    let called: Vec<Called> = (0..calls).map(call).collect();
    let is_lost = |number: usize| loses_every.is_some_and(|every| number % every == every / 2);
    let told = called.iter().enumerate().filter(|(number, _)| !is_lost(*number));
    let bodies = told.map(|(number, called)| called.usage_by_cost(&format!("e-{number}")).json()).collect();
    deliver(rig.daemon.address(), SECRET, bodies, 8, Retry::never()).assert_all_acknowledged();
    called
}

/// Lets a sweep come that may cover all of the day; how many requests it took.
#[track_caller]
pub fn sweep(rig: &Rig) -> u64 {
    let ended = || rig.daemon.metric("hookledger_poll_runs_total{outcome=\"done\"}").unwrap_or_default();
    let before = ended();
    rig.newapi.forget_requests();
    rig.advance_secs(30 * 3600);
    wait_until("a sweep", PATIENCE, || (ended() > before).then_some(()));
    rig.newapi.count_of_log()
}

fn spans(rig: &Rig, proof: &str) -> i64 {
    rig.books().scalar_i64(&format!(
        "SELECT COALESCE(SUM(until_second - from_second + 1), 0) FROM hookledger_spans WHERE proof = '{proof}'"
    ))
}

#[test]
fn a_day_whose_events_all_came_is_proved_by_a_few_requests() {
    let rig = swept_by_hand();
    day(&rig, None);
    rig.wait_for_charges(CALLS);
    let requests = sweep(&rig);
    assert!(requests < 20, "{requests} requests for a day that agrees");
    assert!(spans(&rig, "agreed") > CALLS * EVERY_SECS, "it is proved");
    rig.assert_billed(CALLS);
    let requests = sweep(&rig);
    assert!(requests < 20, "{requests} requests for another day, and a look back");
    rig.assert_billed(CALLS);
}

#[test]
fn a_day_that_lost_one_event_in_a_hundred_is_charged_in_full() {
    let rig = swept_by_hand();
    day(&rig, Some(100));
    assert_eq!(rig.charges(), CALLS - CALLS / 100);
    sweep(&rig);
    rig.wait_for_charges(CALLS);
    rig.assert_billed(CALLS);
}

#[test]
fn a_day_that_lost_one_event_is_searched_not_read() {
    let rig = swept_by_hand();
    day(&rig, Some(1500));
    assert_eq!(rig.charges(), CALLS - 1);
    let requests = sweep(&rig);
    rig.wait_for_charges(CALLS);
    // 2000 rows are 20 pages and two totals; halving finds a part of at most 500.
    assert!(spans(&rig, "agreed") > CALLS * EVERY_SECS / 2, "most of it is proved");
    assert!(requests < 60, "{requests} requests to find one call");
    rig.assert_billed(CALLS);
}

#[test]
fn an_event_that_comes_late_opens_what_had_agreed() {
    let rig = Rig::swept_every("2h");
    let at = rig.now_secs() + 30;
    rig.advance_secs(120);
    let called: Vec<Called> = (1..=5).map(|number| rig.newapi.call(&rig.call(at + number).tokens(number, 1))).collect();
    for (number, called) in called.iter().enumerate() {
        rig.post(&called.usage_by_cost(&format!("e-{number}")));
    }
    let is_proved = |proof: &str| {
        let count = format!(
            "SELECT COUNT(*) FROM hookledger_spans WHERE proof = '{proof}' AND {at} BETWEEN from_second AND until_second"
        );
        wait_until(&format!("the second is {proof}"), PATIENCE, || (rig.books().scalar_i64(&count) == 1).then_some(()));
    };
    rig.advance_secs(3 * 3600);
    is_proved("agreed");
    assert_eq!(rig.tied(), 0);
    rig.post(&called[0].usage_by_cost("one that nobody made").tokens(99, 9));
    assert_eq!(rig.charges(), 6);
    rig.advance_secs(3 * 3600);
    is_proved("read");
    wait_until("each row has its event", PATIENCE, || (rig.tied() == 5).then_some(()));
    assert_eq!(rig.charges(), 6, "and one event has no row");
    rig.books().assert_whole();
}

#[test]
fn a_sum_of_zero_proves_nothing() {
    let rig = swept_by_hand();
    let at = rig.now_secs() + 30;
    rig.advance_secs(120);
    // Free calls: as many rows as events, and both cost nothing in all.
    let free: Vec<Called> =
        (1..=3).map(|number| rig.newapi.call(&rig.call(at + number).tokens(number, 1).quota(0))).collect();
    for (number, called) in free.iter().enumerate() {
        rig.post(&called.usage_by_cost(&format!("e-{number}")));
    }
    sweep(&rig);
    assert_eq!((spans(&rig, "agreed"), rig.tied()), (0, 3), "it was read");
    // A database that fails behind an old version says 0 as well.
    rig.newapi.fail(Fault::StatisticsOfZero);
    let paid = rig.newapi.call(&rig.call(rig.now_secs() - 3000).tokens(4, 1));
    rig.post(&paid.usage_by_cost("paid"));
    let lost = rig.newapi.call(&rig.call(rig.now_secs() - 2000).tokens(5, 1));
    drop(lost);
    sweep(&rig);
    rig.wait_for_charges(5);
    assert_eq!(spans(&rig, "agreed"), 0);
    assert_eq!(rig.books().balance(&rig.user), 998);
    rig.books().assert_whole();
}
