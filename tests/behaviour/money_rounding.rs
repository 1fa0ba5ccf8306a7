//! Fractions of a credit: carried to the last femto, or rounded call by call as the platform did.

use super::{UNITS_PER_CREDIT, assert_account, assert_sound, charge, customer};
use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::sender::{Retry, deliver};

fn deductions(daemon: &Daemon) -> i64 {
    daemon.books().scalar_i64("SELECT count(*) FROM credit_transactions WHERE type = 'DEDUCT'")
}

#[test]
fn a_thousand_calls_of_one_unit_cost_two_credits() {
    let daemon = Daemon::start(DaemonOptions::new().answers_late());
    let user = customer(&daemon, "user", 10, 1);
    let at = now_secs();
    let bodies = (0..1000).map(|number| Usage::new(format!("evt-{number}")).cost("0.000002").at_secs(at).json());
    let report = deliver(daemon.address(), SECRET, bodies.collect(), 16, Retry::never());
    assert_eq!(report.statuses(), [(200, 1000)].into());
    assert_account(&daemon, &user, 8, 0, "after 1,000 calls of 0.002 credits");
    assert_eq!((daemon.books().count("usage_records"), deductions(&daemon)), (1000, 2), "a call each 500 moves one");
    assert_sound(&daemon);
}

#[test]
fn a_remainder_outlives_a_restart_and_a_grant() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 10, 1);
    charge(&daemon, &Usage::new("first").quota(499));
    assert_account(&daemon, &user, 10, 998, "one unit below a credit");
    daemon.restart();
    daemon.grant(&user, 5);
    assert_account(&daemon, &user, 15, 998, "a grant leaves the remainder");
    charge(&daemon, &Usage::new("second").quota(1));
    assert_account(&daemon, &user, 14, 0, "the unit that was missing moves the credit");
    assert_sound(&daemon);
}

#[test]
fn odd_rates_lose_nothing_over_many_calls() {
    // 1 unit of 3 is a third of 7.000001 credits: no decimal of 15 places; each call is rounded to a femto.
    let options = DaemonOptions::new()
        .set("HOOKLEDGER__LEDGER__USD_TO_CREDITS", "7.000001")
        .set("HOOKLEDGER__LEDGER__QUOTA_PER_UNIT", 3);
    let daemon = Daemon::start(options);
    let user = customer(&daemon, "user", 0, 1);
    for number in 0..3 {
        charge(&daemon, &Usage::new(format!("evt-{number}")).quota(1));
    }
    let sql = "SELECT remainder_femtos FROM hookledger_accounts";
    let femtos = i128::from(daemon.books().scalar_i64(sql));
    // Three times 2333333666666667 femtos.
    let expected: i128 = 3 * 2_333_333_666_666_667;
    let credits = -i128::from(daemon.books().balance(&user));
    assert_eq!(credits * 1_000_000_000_000_000 + femtos, expected, "femtos moved and carried");
    assert_sound(&daemon);
}

#[test]
fn nearest_rounds_each_call_as_the_platform_did() {
    let daemon = Daemon::start(DaemonOptions::new().set("HOOKLEDGER__LEDGER__ROUNDING", "nearest"));
    let user = customer(&daemon, "user", 100, 1);
    let half = UNITS_PER_CREDIT / 2;
    // Units of a call and the credits that it moves: halves go up, small calls are free, nothing is carried.
    let calls = [(0, 0), (1, 0), (half - 1, 0), (half, 1), (half - 1, 0), (749, 1), (750, 2), (1830, 4), (113, 0)];
    let mut balance = 100;
    for (number, (units, credits)) in calls.into_iter().enumerate() {
        charge(&daemon, &Usage::new(format!("evt-{number}")).quota(units));
        balance -= credits;
        assert_account(&daemon, &user, balance, 0, &format!("after a call of {units} units"));
    }
    charge(&daemon, &Usage::new("in-dollars").cost("0.0005"));
    charge(&daemon, &Usage::new("in-credits").credit_cost(7));
    assert_account(&daemon, &user, balance - 8, 0, "after half a thousandth of a dollar, and 7 credits");
    let books = daemon.books();
    let costs = books.rows("SELECT creditCost FROM usage_records ORDER BY id");
    let costs: Vec<_> = costs.iter().map(|row| row["creditCost"].as_i64().unwrap()).collect();
    assert_eq!(costs, [0, 0, 0, 1, 0, 1, 2, 4, 0, 1, 7]);
    assert_eq!(deductions(&daemon), 6, "a free call has no transaction");
    books.assert_whole();
}

#[test]
fn the_two_ways_part_at_small_calls() {
    let spend = |rounding: &str| {
        let daemon = Daemon::start(DaemonOptions::new().set("HOOKLEDGER__LEDGER__ROUNDING", rounding));
        let user = customer(&daemon, "user", 100, 1);
        for number in 0..10 {
            charge(&daemon, &Usage::new(format!("free-{number}")).quota(249));
            charge(&daemon, &Usage::new(format!("dear-{number}")).quota(750));
        }
        daemon.books().assert_whole();
        100 - daemon.books().balance(&user)
    };
    // 10 x 249 + 10 x 750 units are 19.98 credits.
    assert_eq!((spend("carry"), spend("nearest")), (19, 20));
}
