//! Rates: each call is priced by the rate of its own second, whenever that changes and whenever it is settled.

use std::time::Duration;

use super::{assert_account, assert_sound, charge, customer};
use crate::kit::clock::MovableClock;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// Above the time between two looks at the rate, by the daemon's clock.
const LOOK: Duration = Duration::from_secs(6);

const INVALID: &str = r#"hookledger_source_condition{condition="rate_invalid"}"#;

const DOLLAR: i64 = 500_000;

fn set_rate(daemon: &Daemon, rate: &str) {
    daemon.books().set_option("UsdToCreditsRate", rate);
}

/// A call of one dollar at a second.
fn dollar(event_id: &str, at_secs: i64) -> Usage {
    Usage::new(event_id).quota(DOLLAR).at_secs(at_secs)
}

/// Moves the daemon's clock on to this second of the next minute.
fn move_to_second(clock: &MovableClock, second: i64) {
    let minute = clock.now_millis().div_euclid(60_000) + 1;
    let millis = minute * 60_000 + second * 1000 - clock.now_millis();
    clock.advance(Duration::from_millis(u64::try_from(millis).expect("the next minute lies ahead")));
}

fn newest_rate(daemon: &Daemon) -> (i64, i64) {
    let rows = daemon.books().rows(
        "SELECT from_second, value FROM hookledger_prices WHERE kind = 'usd_to_credits_micros'
         ORDER BY from_second DESC LIMIT 1",
    );
    (rows[0]["from_second"].as_i64().unwrap(), rows[0]["value"].as_i64().unwrap())
}

/// Lets the daemon look, and waits until it holds this rate; the second from which that counts.
#[track_caller]
fn noticed(daemon: &Daemon, micros: i64) -> i64 {
    daemon.clock().advance(LOOK);
    wait_until("the rate is noticed", PATIENCE, || {
        let (from_second, value) = newest_rate(daemon);
        (value == micros).then_some(from_second)
    })
}

/// Lets the daemon look, and waits until it shows the condition so.
#[track_caller]
fn wait_condition(daemon: &Daemon, holds: bool, what: &str) {
    daemon.clock().advance(LOOK);
    let shown = || daemon.metric(INVALID).filter(|value| (*value > 0.5) == holds);
    wait_until(&format!("rate_invalid is {holds} ({what})"), PATIENCE, shown);
}

/// A daemon on a database in which the option stood before the first start.
fn started_with(options: DaemonOptions, rate: &str) -> Daemon {
    let daemon = Daemon::prepare(options);
    let output = daemon.command(&["migrate"]);
    assert!(output.status.success(), "{output:?}");
    set_rate(&daemon, rate);
    daemon.launch();
    daemon.wait_ready();
    daemon
}

#[test]
fn a_rate_set_before_the_first_start_counts_from_the_beginning() {
    let options = DaemonOptions::new().set("HOOKLEDGER__LEDGER__USD_TO_CREDITS", 4000).movable_clock();
    let daemon = started_with(options, "7.25");
    let user = customer(&daemon, "user", 0, 1);
    let now = daemon.clock().now_secs();
    charge(&daemon, &dollar("now", now));
    assert_account(&daemon, &user, -7, 250, "a dollar at 7.25");
    charge(&daemon, &dollar("long before", now - 86_000));
    assert_account(&daemon, &user, -14, 500, "a dollar at 7.25, of a day before the first start");
    assert_eq!(newest_rate(&daemon), (0, 7_250_000));
    assert_sound(&daemon);
}

#[test]
fn the_configured_rate_holds_while_the_option_is_missing() {
    let options = DaemonOptions::new().set("HOOKLEDGER__LEDGER__USD_TO_CREDITS", "2500.5").movable_clock();
    let daemon = Daemon::start(options);
    let user = customer(&daemon, "user", 0, 1);
    charge(&daemon, &dollar("configured", daemon.clock().now_secs()));
    assert_account(&daemon, &user, -2500, 500, "a dollar at the configured rate");
    set_rate(&daemon, "10");
    let from = noticed(&daemon, 10_000_000);
    charge(&daemon, &dollar("option", from));
    assert_account(&daemon, &user, -2510, 500, "a dollar at the option's rate");
    daemon.clock().advance(Duration::from_secs(120));
    daemon.books().execute("DELETE FROM options");
    let from = noticed(&daemon, 2_500_500_000);
    charge(&daemon, &dollar("configured again", from));
    assert_account(&daemon, &user, -5011, 0, "two dollars at the configured rate, one at the option's");
    assert_sound(&daemon);
}

#[test]
fn a_new_rate_counts_from_the_next_minute_and_never_for_earlier_calls() {
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    let user = customer(&daemon, "user", 0, 1);
    let clock = daemon.clock();
    move_to_second(&clock, 10);
    let changed_at = clock.now_secs();
    set_rate(&daemon, "2000");
    let from = noticed(&daemon, 2_000_000_000);
    assert_eq!(from, (changed_at.div_euclid(60) + 1) * 60, "the next whole minute after it was noticed");

    charge(&daemon, &dollar("last of the old", from - 1));
    assert_account(&daemon, &user, -1000, 0, "the last second of the old rate");
    charge(&daemon, &dollar("first of the new", from));
    assert_account(&daemon, &user, -3000, 0, "the first second of the new rate");
    clock.advance(Duration::from_secs(7200));
    charge(&daemon, &dollar("late", from - 1));
    assert_account(&daemon, &user, -4000, 0, "settled two hours later, at the rate of its second");
    charge(&daemon, &dollar("late millisecond", 0).at_millis(from * 1000 - 1));
    assert_account(&daemon, &user, -5000, 0, "the last millisecond of the old rate");
    charge(&daemon, &dollar("late new", from + 3600));
    assert_account(&daemon, &user, -7000, 0, "at the new rate");
    assert_sound(&daemon);

    daemon.restart();
    charge(&daemon, &dollar("old after a restart", from - 30));
    assert_account(&daemon, &user, -8000, 0, "a restart forgets no rate");
    let rows = daemon.books().rows("SELECT rate_micros FROM hookledger_claims ORDER BY claim_id");
    let rates: Vec<_> = rows.iter().map(|row| row["rate_micros"].as_i64().unwrap() / 1_000_000).collect();
    assert_eq!(rates, [1000, 2000, 1000, 1000, 2000, 1000], "each claim names its rate");
}

#[test]
fn a_change_taken_back_within_its_minute_never_counts() {
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    let user = customer(&daemon, "user", 0, 1);
    let clock = daemon.clock();
    move_to_second(&clock, 5);
    set_rate(&daemon, "90000");
    let from = noticed(&daemon, 90_000_000_000);
    set_rate(&daemon, "1000");
    assert_eq!(noticed(&daemon, 1_000_000_000), from, "within the same minute");
    charge(&daemon, &dollar("after", from + 1));
    assert_account(&daemon, &user, -1000, 0, "a dollar at the rate that stayed");
    assert_sound(&daemon);
}

#[test]
fn rates_one_after_the_other_each_price_their_time() {
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    let user = customer(&daemon, "user", 0, 1);
    let rates = [("1", 1_000_000), ("0.000001", 1), ("999999.999999", 999_999_999_999)];
    let mut begins = Vec::new();
    for (text, micros) in rates {
        move_to_second(&daemon.clock(), 10);
        set_rate(&daemon, text);
        begins.push(noticed(&daemon, micros));
    }
    daemon.clock().advance(Duration::from_secs(600));
    // Backwards, so that no order of settling can pass for the order of time.
    charge(&daemon, &dollar("third", begins[2] + 5));
    charge(&daemon, &dollar("second", begins[1] + 5));
    charge(&daemon, &dollar("first", begins[0] + 5));
    let prices =
        daemon.books().rows("SELECT event_id, price_credits, price_femtos FROM hookledger_claims ORDER BY claim_id");
    let prices: Vec<_> =
        prices.iter().map(|row| (row["price_credits"].as_i64(), row["price_femtos"].as_i64())).collect();
    let femtos = |credits: i64, femtos: i64| (Some(credits), Some(femtos));
    assert_eq!(prices, [femtos(999_999, 999_999_000_000_000), femtos(0, 1_000_000_000), femtos(1, 0)]);
    assert_eq!(daemon.books().balance(&user), -1_000_001);
    assert_sound(&daemon);
}

#[test]
fn an_invalid_rate_keeps_the_last_good_one_and_is_told() {
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    let user = customer(&daemon, "user", 0, 1);
    set_rate(&daemon, "3000");
    let from = noticed(&daemon, 3_000_000_000);
    wait_condition(&daemon, false, "before");
    let mut spent = 0;
    for invalid in ["abc", "0", "-5", "1.1234567"] {
        set_rate(&daemon, invalid);
        wait_condition(&daemon, true, invalid);
        daemon.clock().advance(Duration::from_secs(120));
        charge(&daemon, &dollar(invalid, daemon.clock().now_secs().max(from)));
        spent += 3000;
        assert_account(&daemon, &user, -spent, 0, &format!("a dollar while the option is {invalid:?}"));
        assert_eq!(newest_rate(&daemon), (from, 3_000_000_000), "no entry is made of {invalid:?}");
        set_rate(&daemon, "3000");
        wait_condition(&daemon, false, "right again");
    }
    assert_eq!(newest_rate(&daemon), (from, 3_000_000_000), "the same rate is no change");
    assert_sound(&daemon);
}

#[test]
fn an_invalid_rate_at_the_first_start_leaves_the_configured_one() {
    let options = DaemonOptions::new().set("HOOKLEDGER__LEDGER__USD_TO_CREDITS", 5).movable_clock();
    let daemon = started_with(options, "free");
    let user = customer(&daemon, "user", 0, 1);
    wait_condition(&daemon, true, "at the first start");
    charge(&daemon, &dollar("now", daemon.clock().now_secs()));
    assert_account(&daemon, &user, -5, 0, "a dollar at the configured rate");
    assert_sound(&daemon);
}

#[test]
fn a_new_quota_per_dollar_counts_from_the_minute_after_its_start() {
    let mut daemon = Daemon::start(DaemonOptions::new().movable_clock());
    let user = customer(&daemon, "user", 0, 1);
    move_to_second(&daemon.clock(), 10);
    daemon.set_environment("HOOKLEDGER__LEDGER__QUOTA_PER_UNIT", 1_000_000);
    let before = daemon.clock().now_secs();
    daemon.restart();
    let from = (before.div_euclid(60) + 1) * 60;
    charge(&daemon, &dollar("old", from - 1));
    assert_account(&daemon, &user, -1000, 0, "half a million units are a dollar");
    charge(&daemon, &dollar("new", from));
    assert_account(&daemon, &user, -1500, 0, "half a million units are half a dollar");
    charge(&daemon, &Usage::new("cost").cost("0.002").at_secs(from));
    assert_account(&daemon, &user, -1502, 0, "a price in dollars stays what it is");
    let units = "SELECT price_units FROM hookledger_claims WHERE event_id = 'cost'";
    assert_eq!(daemon.books().scalar_i64(units), 2000, "in the units of its second");
    assert_sound(&daemon);
}

#[test]
fn a_rate_is_stored_once_also_where_the_clock_was_set_back_before_an_older_change() {
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    let user = customer(&daemon, "user", 0, 1);
    set_rate(&daemon, "2000");
    noticed(&daemon, 2_000_000_000);
    daemon.clock().set_offset_millis(-3_600_000);
    set_rate(&daemon, "3000");
    let stored = || daemon.books().scalar_i64("SELECT count(*) FROM hookledger_prices WHERE value = 3000000000");
    wait_until("the rate is noticed", PATIENCE, || (stored() > 0).then_some(()));
    // A further look, two minutes on; that the metric falls and rises proves that it took place.
    daemon.clock().advance(Duration::from_secs(120));
    set_rate(&daemon, "none");
    wait_condition(&daemon, true, "a look");
    set_rate(&daemon, "3000");
    wait_condition(&daemon, false, "another look");
    assert_eq!(stored(), 1, "entries of one change");
    charge(&daemon, &dollar("now", daemon.clock().now_secs()));
    assert_account(&daemon, &user, -3000, 0, "a dollar at the rate of today");
    assert_sound(&daemon);
}
