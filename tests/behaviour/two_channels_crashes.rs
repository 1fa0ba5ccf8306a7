//! Killed anywhere in a run, or with another daemon at the same log: it goes on, and nothing is lost or charged twice.

use std::time::Duration;

use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::newapi::rows::CONSUMPTION;
use crate::kit::newapi::{Called, Row};
use crate::kit::random::Random;
use crate::kit::sender::{Retry, start_delivery};
use crate::kit::wait::wait_until;

use super::two_channels::{PATIENCE, PULL, Rig, UNITS_PER_CREDIT};

const POINTS: [&str; 7] = [
    "polling.piece.read",
    "polling.piece.settled",
    "polling.covered",
    "store.settle.begin",
    "store.settle.planned",
    "store.settle.written",
    "store.settle.committed",
];

/// Calls that lie some minutes apart, many equal to others; of half of them the event is told as well.
fn calls(rig: &Rig, count: i64) -> Vec<Called> {
    let now = rig.now_secs();
    (0..count).map(|number| rig.newapi.call(&rig.call(now - 1 - number * 9 % 2000).tokens(number % 6, 8))).collect()
}

fn bodies(called: &[Called]) -> Vec<String> {
    let told = called.iter().enumerate().filter(|(number, _)| number % 2 == 0);
    told.map(|(number, called)| called.usage_by_cost(&format!("e-{number}")).json()).collect()
}

#[test]
fn killed_at_any_point_of_a_run_it_goes_on_without_loss_or_double() {
    const CALLS: i64 = 400;
    let random = &mut Random::new();
    for point in POINTS {
        let mut rig = Rig::start(&[PULL]);
        rig.wait_for_a_pass();
        rig.daemon.kill();
        rig.advance_secs(3600);
        let called = calls(&rig, CALLS);
        let passed = random.below(2);
        rig.daemon.set_environment("FAILPOINTS", format!("{point}={passed}*off->1*return(kill)"));
        rig.daemon.launch();
        let retry = Retry::until(3 * PATIENCE, Duration::from_millis(20));
        let ongoing = start_delivery(rig.daemon.address(), SECRET, bodies(&called), 4, retry);
        assert!(rig.daemon.wait_exit(PATIENCE).is_some(), "{point} was never passed");
        rig.daemon.unset_environment("FAILPOINTS");
        rig.daemon.restart();
        ongoing.finish().assert_all_acknowledged();
        rig.wait_for_charges(CALLS);
        rig.cover_everything();
        rig.assert_billed(CALLS);
        assert_eq!(rig.tied(), CALLS / 2, "{point}");
    }
}

#[test]
fn a_step_that_fails_ends_the_pass_and_the_next_one_goes_on() {
    const CALLS: i64 = 60;
    for point in POINTS {
        let mut rig = Rig::start(&[PULL]);
        rig.wait_for_a_pass();
        rig.daemon.kill();
        rig.advance_secs(3600);
        rig.daemon.set_environment("FAILPOINTS", format!("{point}=1*off->2*return(error)->1*off->1*return(error)"));
        calls(&rig, CALLS);
        rig.daemon.restart();
        rig.wait_for_charges(CALLS);
        rig.cover_everything();
        rig.assert_billed(CALLS);
    }
}

#[test]
fn a_charge_whose_sides_moved_in_its_own_batch_is_known_after_a_restart() {
    only_on_a_server!();
    let rig = Rig::pulling();
    let at = rig.now_secs() - 100;
    // A charged row of another price, beside which two events wait.
    let call = rig.call(at).tokens(1, 1);
    rig.newapi.call(&call.clone().quota(7 * UNITS_PER_CREDIT));
    rig.wait_for_charges(1);
    let told = |second: i64, name: &str| {
        let usage = Usage::new(name).remote_key(42).tokens(1, 1).quota(UNITS_PER_CREDIT).at_secs(at + second);
        assert_eq!(rig.post(&usage), 202, "{name} waits");
    };
    told(40, "later");
    told(-50, "earlier");
    // The first row takes the nearer event, and gives it up to the second, which no other may be the call of.
    rig.newapi.log(|log| log.insert(row(at, "first")));
    rig.newapi.log(|log| log.insert(row(at + 95, "second")));
    rig.wait_for_charges(3);
    assert_eq!((rig.tied(), rig.books().balance(&rig.user)), (2, 1000 - 7 - 2));
    rig.daemon.restart();
    rig.wait_for_a_pass();
    let status = rig.daemon.command_json(&["status"]);
    assert_eq!(status["conditions"], serde_json::json!([]), "our state and the platform's tables belong together");
    rig.books().assert_whole();
}

/// One call of one credit, as the log has it.
fn row(at_secs: i64, request_id: &str) -> Row {
    let row = Row::relayed(CONSUMPTION, at_secs, "gpt-4").token(42, "alice-key").tokens(1, 1);
    row.quota(UNITS_PER_CREDIT).request_id(request_id)
}

#[test]
fn two_daemons_that_read_the_same_log_at_once_charge_each_call_once() {
    only_on_a_server!();
    const CALLS: i64 = 600;
    let rig = Rig::start(&[PULL]);
    rig.wait_for_a_pass();
    let mut options = DaemonOptions::new()
        .set("HOOKLEDGER__DATABASE__URL", rig.daemon.database_url())
        .set("HOOKLEDGER__DATABASE__STATE_SCHEMA", rig.daemon.guest().state())
        .set("HOOKLEDGER_TEST_CLOCK_FILE", rig.daemon.clock().file().display());
    for (name, value) in Rig::settings_for(&rig.newapi) {
        options = options.set(&name, value);
    }
    options = options.set(PULL.0, PULL.1);
    let other = Daemon::start(options);
    rig.advance_secs(3600);
    let called = calls(&rig, CALLS);
    let bodies = bodies(&called);
    let half = bodies.len() / 2;
    let retry = || Retry::until(PATIENCE, Duration::from_millis(20));
    // Some events reach both.
    let one = start_delivery(rig.daemon.address(), SECRET, bodies[..half + 40].to_vec(), 4, retry());
    let two = start_delivery(other.address(), SECRET, bodies[half - 40..].to_vec(), 4, retry());
    one.finish().assert_all_acknowledged();
    two.finish().assert_all_acknowledged();
    wait_until("all are charged", 2 * PATIENCE, || (rig.charges() >= CALLS).then_some(()));
    let passes = || other.metric("hookledger_poll_runs_total{outcome=\"done\"}").unwrap_or_default();
    let before = passes();
    rig.cover_everything();
    wait_until("the other has read as well", PATIENCE, || (passes() >= before + 2.0).then_some(()));
    rig.assert_billed(CALLS);
    assert_eq!(rig.tied(), CALLS / 2);
}
