//! Figures of reading the log, for a person: `make bench-log`. They print what they measured and assert the books alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::two_channels::Rig;
use super::two_channels_proof::{day_of, sweep, swept_by_hand};
use crate::kit::daemon::SECRET;
use crate::kit::database::is_sqlite;
use crate::kit::events::Usage;
use crate::kit::newapi::{Call, Endpoint, Fault, NewApi};
use crate::kit::sign::signed_request;
use crate::kit::wait::{pause, wait_until};
use crate::kit::wire::Connection;

const ROWS: i64 = 50_000;
const LONG: Duration = Duration::from_secs(300);

/// A daemon beside a log that it cannot read yet. `requests_per_second`: 0 is without a pace.
fn waiting_rig(requests_per_second: &str) -> Rig {
    let settings = [
        ("HOOKLEDGER__POLLING__MODE", "pull"),
        ("HOOKLEDGER__POLLING__START_FROM", "1970-01-02 00:00:00"),
        ("HOOKLEDGER__NEWAPI__MAX_RETRIES", "0"),
        ("HOOKLEDGER__NEWAPI__REQUESTS_PER_SECOND", requests_per_second),
    ];
    let newapi = NewApi::start();
    newapi.fail(Fault::ServerError.on(Endpoint::LogRows));
    let rig = Rig::start_beside(newapi, &settings);
    // Beside a platform, rows from before the books were taken over only tie.
    rig.advance_secs(7200);
    rig
}

fn rows_of_an_hour(rig: &Rig) {
    let begin = rig.now_secs() - 5400;
    for number in 0..ROWS {
        let call = Call::new(42, "gpt-4", begin + number * 3600 / ROWS).tokens(number % 1000, number % 7).quota(500);
        rig.newapi.call(&call);
    }
}

/// Latencies in milliseconds of events sent one after the other, sorted.
fn send_until(rig: &Rig, name: &str, stop: &AtomicBool) -> Vec<f64> {
    let mut connection = Connection::open(rig.daemon.address(), LONG).expect("a connection");
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let event = Usage::new(format!("{name}-{}", latencies.len())).remote_key(42).tokens(5000, 1).quota(500);
        let request = signed_request(SECRET, event.at_secs(rig.now_secs()).json().as_bytes());
        let sent = Instant::now();
        let answer = connection.request(&request).expect("an answer");
        assert!(answer.status < 300, "{}", answer.status);
        latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
        pause(Duration::from_millis(5));
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}

fn of(latencies: &[f64], part: f64) -> f64 {
    latencies[((latencies.len() - 1) as f64 * part) as usize]
}

/// Sends events for as long as the work lasts, and tells what they took.
fn beside(rig: &Rig, name: &str, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let latencies = thread::scope(|scope| {
        let sender = scope.spawn(|| send_until(rig, name, &stop));
        work();
        stop.store(true, Ordering::Relaxed);
        sender.join().expect("the sender")
    });
    let (p50, p99) = (of(&latencies, 0.5), of(&latencies, 0.99));
    println!("webhooks {name}: p50 {p50:.2} ms, p99 {p99:.2} ms of {}", latencies.len());
}

fn wait_for_rows(rig: &Rig, count: i64) {
    let charged = "SELECT COUNT(*) FROM hookledger_rows WHERE state = 'charged'";
    wait_until("every row is charged", LONG, || (rig.books().scalar_i64(charged) >= count).then_some(()));
}

#[test]
#[ignore = "a measurement: make bench-log"]
fn rows_a_second_of_a_catch_up() {
    let rig = waiting_rig("0");
    rows_of_an_hour(&rig);
    rig.newapi.heal();
    let started = Instant::now();
    wait_for_rows(&rig, ROWS);
    let elapsed = started.elapsed().as_secs_f64();
    println!("catch-up: {ROWS} rows in {elapsed:.1} s, {:.0} rows/s", ROWS as f64 / elapsed);
}

/// Calls of that hour whose events were charged, a hundred and more in each second, as the daemon claims them.
fn charged_events_of_an_hour(rig: &Rig, count: i64) {
    let begin = rig.now_secs() - 5400;
    let numbered = |name: &str| if is_sqlite() { format!("'{name}-' || n") } else { format!("CONCAT('{name}-', n)") };
    let (charged, event) = (numbered("charged"), numbered("event"));
    let numbers = if is_sqlite() {
        format!(
            "(WITH RECURSIVE counted(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n + 1 < {count})
               SELECT n, {begin} + n * 3600 / {count} AS second FROM counted)"
        )
    } else {
        format!("(SELECT seq AS n, {begin} + seq * 3600 DIV {count} AS second FROM seq_0_to_{})", count - 1)
    };
    rig.books().execute(&format!(
        "INSERT INTO hookledger_claims (call_second, claim_id, source, event_id, event_at_ms, remote_key_id, model,
             prompt_tokens, completion_tokens, price_units, price_credits, price_femtos, rate_micros, quota_per_unit,
             user_id, key_id, credits_moved, credits_unpaid, remainder_before, remainder_after, settled_at_ms, rounding)
           SELECT second, {charged}, 'webhook', {event}, second * 1000, 42, 'gpt-4', n % 1000, 7,
             500, 1, 0, 1000000000, 500000, '{}', 'key', 1, 0, 0, 0, second * 1000, 'carry' FROM {numbers} AS made",
        rig.user
    ));
}

#[test]
#[ignore = "a measurement: make bench-log"]
fn rows_a_second_whose_events_were_lost_among_many_that_came() {
    const CAME: i64 = 400_000;
    const LOST: i64 = 5_000;
    let rig = waiting_rig("0");
    charged_events_of_an_hour(&rig, CAME);
    let begin = rig.now_secs() - 5400;
    for number in 0..LOST {
        let call = Call::new(42, "gpt-4", begin + number * 3600 / LOST).tokens(5000 + number, 7).quota(500);
        rig.newapi.call(&call);
    }
    rig.newapi.heal();
    let started = Instant::now();
    wait_for_rows(&rig, LOST);
    let elapsed = started.elapsed().as_secs_f64();
    println!(
        "{LOST} rows whose events were lost, of an hour in which {CAME} came: {elapsed:.1} s, {:.0} rows/s",
        LOST as f64 / elapsed
    );
}

#[test]
#[ignore = "a measurement: make bench-log"]
fn what_a_catch_up_costs_the_webhooks() {
    let rig = waiting_rig("0");
    rows_of_an_hour(&rig);
    beside(&rig, "alone", || pause(Duration::from_secs(8)));
    rig.newapi.heal();
    beside(&rig, "beside a catch-up", || wait_for_rows(&rig, ROWS));
    let paced = waiting_rig("1");
    rows_of_an_hour(&paced);
    paced.newapi.heal();
    wait_until("a first row is charged", LONG, || (paced.charges() > 0).then_some(()));
    beside(&paced, "beside a catch-up at the default pace", || pause(Duration::from_secs(20)));
}

#[test]
#[ignore = "a measurement: make bench-log"]
fn a_hundred_thousand_rows_of_one_second() {
    const OF_ONE_SECOND: i64 = 100_000;
    let rig = waiting_rig("0");
    let second = rig.now_secs() - 5400;
    // A hundred of each are equal in everything.
    for number in 0..OF_ONE_SECOND {
        rig.newapi.call(&Call::new(42, "gpt-4", second).tokens(number % 1000, 7).quota(500));
    }
    rig.newapi.heal();
    let started = Instant::now();
    wait_until("every row is charged", LONG * 3, || (rig.charges() >= OF_ONE_SECOND).then_some(()));
    let elapsed = started.elapsed().as_secs_f64();
    rig.wait_for_a_pass();
    assert_eq!((rig.charges(), rig.books().balance(&rig.user)), (OF_ONE_SECOND, 1000 - OF_ONE_SECOND));
    println!("one second: {OF_ONE_SECOND} rows in {elapsed:.1} s, {:.0} rows/s", OF_ONE_SECOND as f64 / elapsed);
}

#[test]
#[ignore = "a measurement: make bench-log"]
fn requests_for_a_day_of_twenty_thousand_calls() {
    const CALLS: i64 = 20_000;
    for (what, loses_every) in [("all came by webhook", None), ("1 % lost their event", Some(100))] {
        let rig = swept_by_hand();
        day_of(&rig, CALLS, loses_every);
        let requests = sweep(&rig);
        wait_until("every call is charged", LONG, || (rig.charges() >= CALLS).then_some(()));
        println!("{CALLS} calls of a day, {what}: {requests} requests to /api/log*");
    }
}
