//! Clocks that jump, ours alone or new-api's with it: nothing is charged twice, nothing is left out in the end, and coverage
//! never claims a second that has not passed.

use std::time::Duration;

use crate::kit::newapi::{Call, Called, Token};
use crate::kit::wait::wait_until;
use crate::two_channels::{COVERED_AFTER_SECS, DAY_SECS, PATIENCE, PULL, Rig};

const HOUR_SECS: i64 = 3600;

/// Coverage has begun an hour and a quarter ago, so that a clock that is set back by an hour comes to lie behind that.
fn covered() -> Rig {
    let rig = Rig::start(&[PULL, ("HOOKLEDGER__POLLING__PROBE_INTERVAL", "1s")]);
    rig.wait_for_a_pass();
    rig.advance_secs(HOUR_SECS + 2 * COVERED_AFTER_SECS);
    rig.wait_for_a_pass();
    rig
}

fn set_clock(rig: &Rig, by_secs: i64) {
    let clock = rig.daemon.clock();
    clock.set_offset_millis(clock.offset_millis() + by_secs * 1000);
}

/// A call now, by new-api's clock, that differs from all others.
fn call(rig: &Rig, tokens: i64) -> Called {
    rig.newapi.call(&rig.call(rig.newapi.now_secs()).tokens(tokens, 1))
}

fn body(called: &Called, id: &str) -> String {
    called.usage(id).json()
}

/// Coverage ends before the earlier of both clocks, as soon as a pass has ended by them.
#[track_caller]
fn assert_claims_no_future(rig: &Rig) {
    rig.wait_for_a_pass();
    let covered = rig.daemon.metric("hookledger_coverage_timestamp_seconds").unwrap() as i64;
    let now = rig.now_secs().min(rig.newapi.now_secs());
    assert!(covered < now, "coverage reaches {} seconds beyond now", covered - now);
    let spans = rig.books().scalar_i64("SELECT MAX(until_second) FROM hookledger_spans");
    assert!(spans < now, "a span reaches {} seconds beyond now", spans - now);
}

/// Everything is charged once, also after each event came again, and by what both channels tell in the end.
fn assert_charged_once(rig: &Rig, calls: i64, bodies: &[String]) {
    rig.wait_for_charges(calls);
    for body in bodies {
        assert_eq!(rig.daemon.post(body).status, 200);
    }
    rig.cover_everything();
    rig.assert_billed(calls);
    assert_claims_no_future(rig);
    let audit = rig.daemon.command(&["audit", "--against-source"]);
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
}

#[test]
fn both_clocks_an_hour_back() {
    let rig = covered();
    let first = call(&rig, 1);
    let mut bodies = vec![body(&first, "e-1")];
    assert_eq!(rig.daemon.post(&bodies[0]).status, 200);
    rig.cover_everything();
    set_clock(&rig, -HOUR_SECS);
    // This hour is there for the second time, and was covered in the first.
    assert_claims_no_future(&rig);
    let with_event = call(&rig, 2);
    bodies.push(body(&with_event, "e-2"));
    assert_eq!(rig.daemon.post(&bodies[1]).status, 200);
    call(&rig, 3);
    rig.wait_for_charges(3);
    // Set right again.
    set_clock(&rig, HOUR_SECS);
    call(&rig, 4);
    assert_charged_once(&rig, 4, &bodies);
}

#[test]
fn our_clock_an_hour_back() {
    let rig = covered();
    let first = call(&rig, 1);
    let mut bodies = vec![body(&first, "e-1")];
    assert_eq!(rig.daemon.post(&bodies[0]).status, 200);
    rig.cover_everything();
    rig.newapi.set_now_secs(rig.now_secs());
    set_clock(&rig, -HOUR_SECS);
    assert_claims_no_future(&rig);
    // Its time lies too far ahead; its row tells of it when our clock is right again.
    let second = call(&rig, 2);
    bodies.push(body(&second, "e-2"));
    let answer = rig.daemon.post(&bodies[1]);
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_claims_no_future(&rig);
    assert_eq!(rig.charges(), 1);
    set_clock(&rig, HOUR_SECS);
    rig.newapi.follow(&rig.daemon.clock());
    assert_charged_once(&rig, 2, &bodies);
}

#[test]
fn our_clock_a_day_ahead_and_right_again() {
    let rig = covered();
    let first = call(&rig, 1);
    let mut bodies = vec![body(&first, "e-1")];
    assert_eq!(rig.daemon.post(&bodies[0]).status, 200);
    rig.newapi.set_now_secs(rig.now_secs());
    set_clock(&rig, DAY_SECS + HOUR_SECS);
    assert_claims_no_future(&rig);
    // It looks older than events may be; its row tells of it.
    let second = call(&rig, 2);
    bodies.push(body(&second, "e-2"));
    let answer = rig.daemon.post(&bodies[1]);
    assert_eq!(answer.status, 400, "{}", answer.text());
    rig.wait_for_charges(2);
    assert_claims_no_future(&rig);
    set_clock(&rig, -DAY_SECS - HOUR_SECS);
    rig.newapi.follow(&rig.daemon.clock());
    call(&rig, 3);
    assert_charged_once(&rig, 3, &bodies);
}

#[test]
fn both_clocks_a_day_ahead_and_right_again() {
    let rig = covered();
    let first = call(&rig, 1);
    let mut bodies = vec![body(&first, "e-1")];
    assert_eq!(rig.daemon.post(&bodies[0]).status, 200);
    set_clock(&rig, DAY_SECS);
    rig.wait_for_a_pass();
    let ahead = call(&rig, 2);
    bodies.push(body(&ahead, "e-2"));
    assert_eq!(rig.daemon.post(&bodies[1]).status, 200);
    rig.cover_everything();
    set_clock(&rig, -DAY_SECS);
    assert_claims_no_future(&rig);
    // Of this one no event comes, and its second counted as covered.
    call(&rig, 3);
    rig.wait_for_charges(3);
    assert_eq!(rig.daemon.post(&bodies[0]).status, 200, "it is charged already");
    // The next day comes, with the second of the call that was made ahead of its time.
    rig.advance_secs(DAY_SECS);
    assert_charged_once(&rig, 3, &bodies[1..]);
}

#[test]
fn what_waits_is_settled_whatever_the_clock_does() {
    for by_secs in [-HOUR_SECS, DAY_SECS] {
        let rig = covered();
        let called = call(&rig, 1);
        // Nobody has the token, until after the jump.
        rig.newapi.add_token(Token::new(77, "late-key").owned_by(1));
        let late = rig.newapi.call(&Call::new(77, "gpt-4", rig.newapi.now_secs()).quota(500));
        assert_eq!(rig.daemon.post(body(&called, "e-1")).status, 200);
        assert_eq!(rig.daemon.post(body(&late, "late")).status, 200);
        set_clock(&rig, by_secs);
        rig.wait_for_a_pass();
        set_clock(&rig, -by_secs);
        rig.daemon.add_key(&rig.user, 77);
        wait_until("the late one is charged", PATIENCE, || {
            rig.daemon.clock().advance(Duration::from_secs(10));
            (rig.charges() == 2).then_some(())
        });
        rig.cover_everything();
        rig.assert_billed(2);
        assert_claims_no_future(&rig);
    }
}
