//! What changes behind the address of new-api: its ids, its price unit, its rows, and the gateway itself.

use std::time::Duration;

use serde_json::Value;

use crate::kit::events::Usage;
use crate::kit::wait::wait_until;
use crate::source_conditions::{
    A_DAY, A_MINUTE, LOOKBACK, assert_no_condition, pulling, wait_for_condition, wait_until_over,
};
use crate::two_channels::{PATIENCE, Rig};

fn now(rig: &Rig) -> i64 {
    rig.daemon.clock().now_secs()
}

fn advance(rig: &Rig, duration: Duration) {
    rig.daemon.clock().advance(duration);
    rig.wait_for_a_pass();
}

/// Three calls that are charged and covered.
fn with_history(rig: &Rig) {
    for prompt in [1, 2, 3] {
        rig.newapi.call(&rig.call(now(rig)).tokens(prompt, 1));
    }
    rig.wait_for_charges(3);
    advance(rig, LOOKBACK);
}

/// As another installation: its own log, its own price unit.
fn replace_gateway(rig: &Rig) {
    rig.newapi.log(|log| log.truncate());
    rig.newapi.set_start_time(1_700_000_777);
    rig.newapi.set_version("v2.0.0");
    rig.newapi.set_quota_per_unit(1);
}

#[test]
fn ids_that_fall_back_are_told_for_a_day() {
    let rig = pulling(&[]);
    for prompt in [1, 2, 3, 4] {
        rig.newapi.call(&rig.call(now(&rig)).tokens(prompt, 1));
    }
    rig.wait_for_charges(4);
    rig.newapi.log(|log| log.truncate());
    rig.daemon.clock().advance(A_MINUTE * 2);
    for prompt in [5, 6] {
        rig.newapi.call(&rig.call(now(&rig)).tokens(prompt, 1));
    }
    rig.wait_for_charges(6);
    wait_for_condition(&rig, "ids_restarted", "fell from 4 to ");
    rig.daemon.clock().advance(A_DAY);
    wait_until_over(&rig, "ids_restarted");
    assert_eq!(rig.books().balance(&rig.user), 994);
}

#[test]
fn a_new_price_unit_of_new_api_counts_from_then_on_and_is_told() {
    let rig = pulling(&[]);
    rig.newapi.call(&rig.call(now(&rig)));
    rig.wait_for_charges(1);
    assert_no_condition(&rig);
    rig.newapi.set_quota_per_unit(250_000);
    let sentence = wait_until("it is told", PATIENCE, || {
        rig.daemon.clock().advance(Duration::from_secs(5));
        let status = rig.daemon.command_json(&["status"]);
        let condition = status["conditions"].as_array().unwrap().first().cloned()?;
        (condition["name"] == "quota_per_unit_changed").then(|| condition["message"].as_str().unwrap().to_owned())
    });
    assert!(sentence.contains("changed from 500000 to 250000 between 20"), "{sentence}");
    advance(&rig, A_MINUTE);
    rig.newapi.call(&rig.call(now(&rig)).tokens(2, 2));
    rig.wait_for_charges(2);
    assert_eq!(rig.books().balance(&rig.user), 1000 - 1 - 2, "the second call by the new unit");

    let dated = "SELECT COUNT(*) FROM hookledger_prices WHERE kind = 'quota_per_unit'";
    assert_eq!(rig.books().scalar_i64(dated), 2);
    rig.daemon.restart();
    rig.wait_for_a_pass();
    advance(&rig, A_MINUTE);
    assert_eq!(rig.books().scalar_i64(dated), 2, "a start does not fall back to ledger.quota_per_unit");
    let source = rig.daemon.command_json(&["status"])["source"].clone();
    assert_eq!(source["quotaPerUnit"], 250_000, "{source}");
}

#[test]
fn a_price_unit_that_is_none_leaves_the_last_one() {
    let rig = pulling(&[]);
    rig.newapi.set_option("QuotaPerUnit", "0");
    wait_for_condition(&rig, "quota_per_unit_changed", "no price can be computed");
    advance(&rig, A_MINUTE);
    let usage = Usage::new("e").at_secs(now(&rig)).remote_key(42).quota(500);
    assert_eq!(rig.daemon.post(usage.json()).status, 200);
    assert_eq!(rig.books().balance(&rig.user), 999);
}

#[test]
fn rows_that_were_deleted_are_found_by_the_daily_comparison() {
    let rig = pulling(&[]);
    with_history(&rig);
    rig.newapi.log(|log| log.delete(2));
    advance(&rig, A_DAY);
    wait_for_condition(&rig, "rows_deleted", "lacks 1 rows that were read");
    assert_eq!((rig.charges(), rig.books().balance(&rig.user)), (3, 997), "what was charged stays");
    advance(&rig, A_DAY * 2);
    wait_until_over(&rig, "rows_deleted");
}

#[test]
fn a_new_api_that_was_updated_is_still_the_same() {
    let rig = pulling(&[]);
    with_history(&rig);
    rig.newapi.set_start_time(1_700_000_777);
    rig.newapi.set_version("v2.0.0");
    let told = || (rig.daemon.command_json(&["status"])["source"]["version"] == "v2.0.0").then_some(());
    wait_until("the new version is told", PATIENCE, told);
    rig.newapi.call(&rig.call(now(&rig)).tokens(9, 9));
    rig.wait_for_charges(4);
    assert_no_condition(&rig);
}

#[test]
fn nothing_is_read_of_another_gateway_until_it_has_a_name() {
    let mut rig = pulling(&[]);
    with_history(&rig);
    replace_gateway(&rig);
    wait_for_condition(&rig, "source_changed", "v2.0.0");
    for prompt in [7, 8] {
        rig.newapi.call(&rig.call(now(&rig)).tokens(prompt, 1));
    }
    let failed = || rig.daemon.metric("hookledger_poll_runs_total{outcome=\"failed\"}").unwrap_or_default();
    let before = failed();
    rig.daemon.clock().advance(A_MINUTE);
    wait_until("passes end early", PATIENCE, || (failed() >= before + 2.0).then_some(()));
    assert_eq!((rig.charges(), rig.books().balance(&rig.user)), (3, 997));
    let status = rig.daemon.command_json(&["status"]);
    assert!(status["toDo"].to_string().contains("newapi.source"), "{status}");
    assert_eq!(status["source"]["quotaPerUnit"], 500_000, "its price unit does not count");

    rig.daemon.kill();
    rig.daemon.restart();
    wait_for_condition(&rig, "source_changed", "v2.0.0");
    rig.daemon.kill();
    rig.daemon.set_environment("HOOKLEDGER__NEWAPI__SOURCE", "second");
    rig.newapi.set_quota_per_unit(500_000);
    rig.daemon.restart();
    rig.wait_for_a_pass();
    rig.newapi.call(&rig.call(now(&rig)).tokens(9, 9));
    rig.wait_for_charges(4);
    let status = rig.daemon.command_json(&["status"]);
    assert_eq!((&status["conditions"], &status["source"]["name"]), (&Value::Array(Vec::new()), &Value::from("second")));
}

#[test]
fn status_tells_of_the_source_and_how_far_its_log_is_known() {
    let rig = pulling(&[]);
    with_history(&rig);
    let status = rig.daemon.command_json(&["status"]);
    let (source, coverage) = (&status["source"], &status["coverage"]);
    assert_eq!((&source["name"], &source["read"]), (&Value::from("default"), &Value::Bool(true)), "{source}");
    assert_eq!((&source["version"], &source["quotaPerUnit"]), (&Value::from("v1.0.0"), &Value::from(500_000)));
    assert!(source["lastPassAt"].as_str().unwrap().ends_with('Z') && source["lastFailure"].is_null(), "{source}");
    assert!(source["clockAheadSecs"].is_i64() && source["outOfReachSince"].is_null(), "{source}");
    let moment = |name: &str| coverage[name].as_str().unwrap().to_owned();
    assert!(moment("begins") < moment("coveredUntil"), "{coverage}");
    assert_eq!(moment("readUntil"), moment("coveredUntil"), "all of it was read row by row");
    let behind = coverage["behindSecs"].as_u64().unwrap();
    assert!((600..660).contains(&behind), "polling.lookback: {behind}");
    let covered = rig.daemon.metric("hookledger_coverage_timestamp_seconds").unwrap() as i64;
    assert!((now(&rig) - covered - 600).abs() < 30, "{covered}");

    let text = String::from_utf8(rig.daemon.command(&["status"]).stdout).unwrap();
    for word in ["source", "default, read", "new-api v1.0.0", "500000 units a dollar", "coverage", "ago), read to"] {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
    rig.newapi.fail(crate::kit::newapi::Fault::ServerError);
    let failed = wait_until("the failure is told", PATIENCE, || {
        let status = rig.daemon.command_json(&["status"]);
        status["source"]["outOfReachSince"].is_string().then_some(status)
    });
    assert!(failed["toDo"].to_string().contains("newapi.base_url"), "{failed}");
}

#[test]
fn another_filter_begins_where_the_former_one_ended() {
    let mut rig = pulling(&[]);
    with_history(&rig);
    rig.daemon.kill();
    // Called after the last second that was covered, and never told of.
    let missed = now(&rig);
    rig.newapi.call(&rig.call(missed).tokens(7, 7));
    rig.daemon.clock().advance(LOOKBACK * 3);
    rig.daemon.set_environment("HOOKLEDGER__NEWAPI__GROUP", "default");
    rig.daemon.restart();
    rig.wait_for_charges(4);
    let begins = "SELECT COUNT(*) FROM hookledger_meta WHERE name LIKE 'coverage_begins:%'";
    assert_eq!(rig.books().scalar_i64(begins), 2, "a coverage of its own");
    assert_eq!(rig.books().balance(&rig.user), 996);

    // And back: what was read meanwhile is known.
    rig.daemon.kill();
    rig.daemon.unset_environment("HOOKLEDGER__NEWAPI__GROUP");
    rig.daemon.restart();
    rig.wait_for_a_pass();
    assert_eq!((rig.charges(), rig.books().scalar_i64(begins)), (4, 2));
}
