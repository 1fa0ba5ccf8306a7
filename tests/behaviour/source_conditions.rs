//! What is told of new-api and of its log: each condition is named with its figures, and over when it is over.

use std::time::Duration;

use serde_json::Value;

use crate::kit::clock::now_secs;
use crate::kit::events::Usage;
use crate::kit::newapi::{Endpoint, Fault, LogStore};
use crate::kit::wait::wait_until;
use crate::two_channels::{PATIENCE, Rig};

pub const A_MINUTE: Duration = Duration::from_secs(61);
/// Until the youngest seconds are covered.
pub const LOOKBACK: Duration = Duration::from_secs(660);
pub const A_DAY: Duration = Duration::from_secs(86_460);

/// A gateway without webhooks, looked at every second.
pub fn pulling(settings: &[(&str, &str)]) -> Rig {
    let base = [("HOOKLEDGER__POLLING__MODE", "pull"), ("HOOKLEDGER__POLLING__PROBE_INTERVAL", "1s")];
    let rig = Rig::start(&[&base, settings].concat());
    rig.wait_for_a_pass();
    rig
}

fn held(rig: &Rig, name: &str) -> Option<Value> {
    let status = rig.daemon.command_json(&["status"]);
    status["conditions"].as_array().unwrap().iter().find(|condition| condition["name"] == name).cloned()
}

fn metric(rig: &Rig, name: &str) -> Option<f64> {
    rig.daemon.metric(&format!("hookledger_source_condition{{condition=\"{name}\"}}"))
}

/// Waits until it is told everywhere; answers its sentence.
#[track_caller]
pub fn wait_for_condition(rig: &Rig, name: &str, words: &str) -> String {
    let what = format!("{name}: {words}");
    let condition = wait_until(&what, PATIENCE, || {
        held(rig, name).filter(|condition| condition["message"].as_str().is_some_and(|text| text.contains(words)))
    });
    assert_eq!(metric(rig, name), Some(1.0), "{name}");
    assert!(condition["firstSeen"].as_str() <= condition["lastSeen"].as_str(), "{condition}");
    condition["message"].as_str().unwrap().to_owned()
}

#[track_caller]
pub fn wait_until_over(rig: &Rig, name: &str) {
    wait_until(&format!("{name} is over"), PATIENCE, || held(rig, name).is_none().then_some(()));
    assert_eq!(metric(rig, name), Some(0.0), "{name}");
}

#[track_caller]
pub fn assert_no_condition(rig: &Rig) {
    assert_eq!(rig.daemon.command_json(&["status"])["conditions"], Value::Array(Vec::new()));
}

fn advice(rig: &Rig) -> String {
    rig.daemon.command_json(&["status"])["toDo"].to_string()
}

#[test]
fn what_keeps_the_log_from_being_read_is_named_until_it_is_over() {
    let rig = pulling(&[]);
    // Outside of every window: whoever ignores the filter answers it.
    rig.newapi.call(&rig.call(now_secs() - 200_000));
    let token = rig.newapi.root_access_token();
    rig.newapi.set_access_token(1, "another-token-of-this-user");
    wait_for_condition(&rig, "token_refused", "newapi.access_token");
    assert!(advice(&rig).contains("newapi.user_id"), "{}", advice(&rig));
    rig.newapi.set_access_token(1, &token);
    wait_until_over(&rig, "token_refused");

    rig.newapi.fail(Fault::Html(200));
    wait_for_condition(&rig, "not_new_api", "a web page");
    rig.newapi.heal();
    wait_until_over(&rig, "not_new_api");

    rig.newapi.fail(Fault::TimesIgnored);
    wait_for_condition(&rig, "filter_ignored", "asked for rows of type 2");
    let looks = rig.newapi.count(Endpoint::Options);
    rig.newapi.wait_for_requests(Endpoint::Options, looks + 2, PATIENCE);
    wait_for_condition(&rig, "filter_ignored", "asked for rows of type 2");
    let logged = rig.daemon.output().stderr.matches("\"filter_ignored\"").count();
    assert_eq!(logged, 1, "looks that work do not end it: it is logged once");
    rig.newapi.heal();
    wait_until_over(&rig, "filter_ignored");
    rig.wait_for_a_pass();
    assert_no_condition(&rig);
}

#[test]
fn a_log_that_is_off_and_a_clock_that_is_far_off_are_named() {
    let rig = pulling(&[]);
    rig.newapi.log_consumption(false);
    wait_for_condition(&rig, "logging_off", "LogConsumeEnabled");
    rig.newapi.log_consumption(true);
    wait_until_over(&rig, "logging_off");
    rig.newapi.skew_date_secs(120);
    wait_for_condition(&rig, "clock_skew", "s ahead of ours");
    assert!(advice(&rig).contains("NTP"));
    rig.newapi.skew_date_secs(-300);
    wait_for_condition(&rig, "clock_skew", "s behind ours");
    rig.newapi.skew_date_secs(0);
    wait_until_over(&rig, "clock_skew");
}

#[test]
fn ids_that_are_made_up_are_named_and_not_used() {
    let rig = pulling(&[]);
    rig.newapi.keep_log_in(LogStore::ClickHouse);
    for prompt in [1, 2, 3] {
        rig.newapi.call(&rig.call(now_secs()).tokens(prompt, 1));
    }
    rig.wait_for_charges(3);
    wait_for_condition(&rig, "ids_unstable", "ClickHouse");
    assert_eq!(rig.books().scalar_i64("SELECT COUNT(*) FROM hookledger_claims WHERE row_log_id IS NOT NULL"), 0);
}

#[test]
fn calls_whose_event_is_lost_are_counted() {
    let rig = Rig::start(&[
        ("HOOKLEDGER__POLLING__STALE_AFTER", "2s"),
        ("HOOKLEDGER__POLLING__INTERVAL", "1s"),
        ("HOOKLEDGER__POLLING__PROBE_INTERVAL", "1s"),
    ]);
    rig.newapi.set_option("webhook_url", "http://127.0.0.1:1/api/webhooks/events");
    let called = rig.newapi.call(&rig.call(now_secs()).tokens(1, 1));
    assert_eq!(rig.daemon.post(called.usage("e").json()).status, 200);
    rig.newapi.call(&rig.call(now_secs() + 1).tokens(2, 2));
    rig.wait_for_charges(2);
    wait_for_condition(&rig, "events_missing", "1 of the last hour's 2 calls");
    assert!(advice(&rig).contains("webhook_secret"));
    rig.daemon.clock().advance(Duration::from_secs(4000));
    wait_until_over(&rig, "events_missing");
}

#[test]
fn prices_that_differ_are_counted_for_an_hour_and_the_rows_price_counts() {
    let rig = pulling(&[]);
    let called = rig.newapi.call(&rig.call(now_secs()).late());
    assert_eq!(rig.daemon.post(called.usage("dear").quota(1500).json()).status, 200);
    assert_eq!(rig.books().balance(&rig.user), 997);
    rig.newapi.log(|log| log.reveal_all());
    wait_for_condition(&rig, "price_differs", "1 calls of the last hour");
    assert_eq!((rig.charges(), rig.books().balance(&rig.user)), (1, 999));
    for (kind, credits) in [("DEDUCT", 3.0), ("REFUND", 2.0)] {
        let metric = format!("hookledger_ledger_credits_total{{type=\"{kind}\"}}");
        assert_eq!(rig.daemon.metric(&metric), Some(credits), "{kind}");
    }
    rig.daemon.clock().advance(Duration::from_secs(3700));
    wait_until_over(&rig, "price_differs");
}

#[test]
fn channels_that_tell_the_same_calls_differently_disagree_until_the_hour_is_over() {
    let rig = pulling(&[]);
    let at = now_secs();
    let rounded = Usage::new("rounded").at_secs(at).remote_key(42).model("gpt-4").tokens(10, 5).quota(600);
    assert_eq!(rig.daemon.post(rounded.json()).status, 200);
    rig.newapi.call(&rig.call(at));
    rig.wait_for_a_pass();
    assert_eq!(rig.charges(), 1, "an alike call is charged: the row waits");
    rig.daemon.clock().advance(Duration::from_secs(1800));
    wait_for_condition(&rig, "channels_disagree", "1 of 2 sides");
    assert!(advice(&rig).contains("round prices"));
    rig.daemon.clock().advance(Duration::from_secs(4000));
    wait_until_over(&rig, "channels_disagree");
    assert_eq!(rig.books().balance(&rig.user), 999, "nothing was guessed");
}

#[test]
fn rows_of_the_log_settle_by_its_own_source_in_the_metrics() {
    let rig = pulling(&[]);
    for _ in 0..3 {
        rig.newapi.call(&rig.call(now_secs()));
    }
    rig.wait_for_charges(3);
    let settled = |source: &str| {
        let name = format!("hookledger_ledger_settlements_total{{source=\"{source}\",outcome=\"settled\"}}");
        rig.daemon.metric(&name)
    };
    wait_until("the rows are counted", PATIENCE, || (settled("log") == Some(3.0)).then_some(()));
    assert_eq!(settled("webhook"), Some(0.0));
    assert_eq!(rig.daemon.metric("hookledger_ledger_credits_total{type=\"DEDUCT\"}"), Some(3.0));
    assert_eq!(rig.daemon.metric("hookledger_poll_rows_total{result=\"charged\"}"), Some(3.0));
}
