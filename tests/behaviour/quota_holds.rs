//! new-api's quota per unit changes between two looks: what was called in between waits until a person names the second.

use crate::kit::events::Usage;
use crate::kit::newapi::{Endpoint, Fault};
use crate::kit::wait::wait_until;
use crate::source_conditions::{pulling, wait_for_condition, wait_until_over};
use crate::two_channels::{PATIENCE, Rig};

/// How long nobody could look.
const BLIND_SECS: i64 = 300;

/// From now on nobody can look; a look that was under way is over.
fn fail(rig: &Rig) {
    rig.newapi.fail(Fault::ServerError);
    let asked = rig.newapi.count(Endpoint::Status);
    rig.newapi.wait_for_requests(Endpoint::Status, asked + 2, PATIENCE);
}

/// The unit is halved while new-api is out of reach; answers a second before which the old one was seen last.
fn with_a_change(rig: &Rig) -> i64 {
    fail(rig);
    let began = rig.now_secs() + 10;
    rig.advance_secs(BLIND_SECS);
    rig.newapi.set_quota_per_unit(250_000);
    rig.newapi.heal();
    wait_for_condition(rig, "quota_per_unit_changed", "Name the second");
    began
}

fn usage(id: &str, second: i64, prompt: i64) -> Usage {
    Usage::new(id).at_secs(second).remote_key(42).tokens(prompt, 1).quota(500)
}

fn name_the_second(rig: &Rig, second: i64) -> std::process::Output {
    let at = chrono::DateTime::from_timestamp(second, 0).unwrap().to_rfc3339();
    rig.daemon.command(&["prices", "quota-changed", "--at", &at, "--json"])
}

#[test]
fn calls_of_the_time_in_which_the_price_unit_changed_wait_for_a_person() {
    let rig = pulling(&[]);
    let began = with_a_change(&rig);
    let (before, after) = (began + 100, began + 200);
    assert_eq!(rig.post(&usage("before", before, 1)), 200);
    assert_eq!(rig.post(&usage("after", after, 2)), 200);
    rig.newapi.call(&rig.call(before).tokens(3, 1));
    rig.newapi.call(&rig.call(after).tokens(4, 1));
    // After the look that showed the new unit.
    rig.advance_secs(5);
    // By dollars, whatever the unit is.
    assert_eq!(rig.post(&Usage::new("dollars").at_secs(after).remote_key(42).tokens(5, 1).cost("0.001")), 200);
    assert_eq!(rig.post(&usage("now", rig.now_secs(), 6)), 200);
    wait_until("both rows wait", PATIENCE, || (rig.rows_in_state("held") == 2).then_some(()));
    assert_eq!(rig.books().balance(&rig.user), 1000 - 1 - 2, "the dollars, and what was called since, by the new unit");
    let held = "SELECT COUNT(*) FROM webhook_logs WHERE status = 'failed' AND errorMsg LIKE 'Held: %quota-changed%'";
    assert_eq!(rig.books().scalar_i64(held), 2);
    let prices = rig.daemon.command_json(&["prices", "list"]);
    let change = &prices["quotaChanges"][0];
    assert_eq!((&change["before"], &change["after"], &change["held"]), (&500_000.into(), &250_000.into(), &4.into()));
    assert!(change["named"].is_null() && prices["quotaChanges"].as_array().unwrap().len() == 1, "{prices}");

    // A replay and a start change nothing of it.
    rig.daemon.command_json(&["events", "replay", "--all-failed"]);
    rig.daemon.restart();
    rig.wait_for_a_pass();
    wait_for_condition(&rig, "quota_per_unit_changed", "4 events and rows of that time wait");
    assert_eq!(rig.books().balance(&rig.user), 997);

    assert_eq!(name_the_second(&rig, began - 600).status.code(), Some(1), "outside of that time");
    let named = name_the_second(&rig, began + 150);
    assert!(named.status.success(), "{}", String::from_utf8_lossy(&named.stderr));
    rig.wait_for_charges(6);
    assert_eq!(rig.books().balance(&rig.user), 997 - 1 - 2 - 1 - 2, "each by the unit of its own second");
    wait_until_over(&rig, "quota_per_unit_changed");
    rig.books().assert_whole();
    assert_eq!(name_the_second(&rig, began + 150).status.code(), Some(0), "the same again is no error");
    assert_eq!(name_the_second(&rig, began + 151).status.code(), Some(1), "another second is");
    assert_eq!(rig.charges(), 6);
}

#[test]
fn what_was_charged_before_anybody_knew_is_told() {
    let rig = pulling(&[]);
    let mut called_at = 0;
    fail(&rig);
    for id in ["one", "two"] {
        rig.advance_secs(BLIND_SECS);
        called_at = rig.now_secs();
        assert_eq!(rig.post(&usage(id, called_at, 1)), 200);
    }
    rig.newapi.set_quota_per_unit(250_000);
    rig.newapi.heal();
    wait_for_condition(&rig, "quota_per_unit_changed", "2 charges were made by 500000");
    let named = name_the_second(&rig, called_at);
    let told: serde_json::Value = serde_json::from_slice(&named.stdout).unwrap();
    assert_eq!((&told["chargedByTheOld"], &told["creditsByTheOld"]), (&2.into(), &2.into()), "{told}");
    assert_eq!(rig.books().balance(&rig.user), 998, "what stands charged stays");
}
