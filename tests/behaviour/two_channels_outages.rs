//! Events that stop for a while, and gateways and daemons that are away: what was called meanwhile is charged once.

use std::cell::Cell;

use crate::kit::newapi::Fault;
use crate::kit::wait::wait_until;

use super::two_channels::{PATIENCE, PULL, Rig, WEBHOOK_URL};

const WEEK_SECS: i64 = 7 * 24 * 3600;

#[track_caller]
fn wait_for_state(rig: &Rig, state: &str) {
    let name = format!("hookledger_channel_state{{state=\"{state}\"}}");
    wait_until(&format!("the channel is {state}"), PATIENCE, || (rig.daemon.metric(&name) == Some(1.0)).then_some(()));
}

#[test]
fn a_webhook_that_is_switched_off_in_new_api_under_traffic_and_on_again_loses_no_call() {
    let rig = Rig::start(&[]);
    rig.wait_until_coverage_has_begun();
    rig.advance_secs(90);
    let calls = Cell::new(0);
    let call = |has_event: bool| {
        calls.set(calls.get() + 1);
        let called = rig.newapi.call(&rig.call(rig.now_secs() - 1).tokens(calls.get(), 1));
        if has_event {
            rig.post(&called.usage_by_cost(&format!("e-{}", calls.get())));
        }
    };
    (0..10).for_each(|_| call(true));
    wait_for_state(&rig, "healthy");
    rig.newapi.remove_option("webhook_url");
    (0..10).for_each(|_| call(false));
    rig.advance_secs(61);
    wait_for_state(&rig, "disabled");
    rig.wait_for_charges(20);
    // On again; those in between are read before the channel is trusted, or by the next sweep.
    rig.newapi.set_option("webhook_url", WEBHOOK_URL);
    (0..5).for_each(|_| call(false));
    (0..200).for_each(|_| call(true));
    rig.advance_secs(61);
    (0..10).for_each(|_| call(true));
    wait_until("it is not disabled any more", PATIENCE, || {
        (rig.daemon.metric("hookledger_channel_state{state=\"disabled\"}") == Some(0.0)).then_some(())
    });
    rig.advance_secs(2 * 3600);
    rig.wait_for_charges(calls.get());
    rig.wait_for_a_pass_by_clock();
    rig.assert_billed(calls.get());
}

/// Calls all over a week, the first a little after coverage began.
fn week_of_calls(rig: &Rig, from_secs: i64) -> i64 {
    const CALLS: i64 = 600;
    for number in 0..CALLS {
        rig.newapi.call(&rig.call(from_secs + 60 + number * 1000).tokens(number % 9, 2));
    }
    CALLS
}

#[test]
fn a_week_without_the_gateway_is_caught_up() {
    let rig = Rig::start(&[PULL, ("HOOKLEDGER__NEWAPI__MAX_RETRIES", "0")]);
    rig.wait_for_a_pass();
    rig.newapi.fail(Fault::Cut);
    let calls = week_of_calls(&rig, rig.now_secs());
    rig.advance_secs(WEEK_SECS);
    wait_until("passes fail", PATIENCE, || {
        rig.daemon.metric("hookledger_poll_runs_total{outcome=\"failed\"}").filter(|failed| *failed >= 2.0)
    });
    assert_eq!(rig.charges(), 0);
    rig.newapi.heal();
    rig.wait_for_charges(calls);
    rig.wait_for_a_pass();
    rig.assert_billed(calls);
}

#[test]
fn a_week_without_the_daemon_is_caught_up() {
    let rig = Rig::start(&[]);
    rig.wait_until_coverage_has_begun();
    rig.daemon.kill();
    let calls = week_of_calls(&rig, rig.now_secs());
    rig.advance_secs(WEEK_SECS);
    rig.daemon.restart();
    rig.wait_for_charges(calls);
    rig.wait_for_a_pass_by_clock();
    rig.assert_billed(calls);
}

#[test]
fn a_quiet_night_is_idle_and_nothing_to_look_at() {
    let rig = Rig::start(&[]);
    rig.wait_until_coverage_has_begun();
    rig.advance_secs(60);
    for number in 1..=20 {
        let called = rig.newapi.call(&rig.call(rig.now_secs() - 20 + number).tokens(number, 1));
        rig.post(&called.usage_by_cost(&format!("evening-{number}")));
    }
    wait_for_state(&rig, "healthy");
    for _ in 0..16 {
        rig.advance_secs(1800);
        rig.wait_for_a_pass_by_clock();
        // A probe that was under way while the clock was moved sees two times at once; the next one does not.
        wait_until("the night is quiet", PATIENCE, || {
            let status = rig.daemon.command_json(&["status"]);
            let is_quiet = status["channel"]["state"] == "idle" && status["conditions"] == serde_json::json!([]);
            is_quiet.then_some(())
        });
    }
    rig.assert_billed(20);
    assert_eq!(rig.tied(), 20, "what came before the night was read");
}
