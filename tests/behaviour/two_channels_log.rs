//! A log is what the gateway shows of it: late rows, crowded seconds, lost and moved tables, made-up ids, old dialects.

use crate::kit::newapi::{Called, Dialect, LogStore};
use crate::kit::wait::wait_until;

use super::two_channels::{COVERED_AFTER_SECS, DAY_SECS, PATIENCE, PULL, Rig};

#[test]
fn a_row_that_appears_eight_seconds_late_is_charged() {
    let rig = Rig::pulling();
    let at = rig.now_secs();
    rig.newapi.call(&rig.call(at).tokens(1, 1));
    let late = rig.newapi.call(&rig.call(at).tokens(2, 1).late());
    rig.wait_for_charges(1);
    rig.advance_secs(8);
    rig.wait_for_a_pass();
    rig.newapi.log(|log| log.reveal(late.log_id.unwrap()));
    rig.wait_for_charges(2);
    rig.cover_everything();
    rig.assert_billed(2);
}

#[test]
fn a_row_that_appears_a_quarter_of_an_hour_late_is_found_within_a_day() {
    let rig = Rig::pulling();
    let at = rig.now_secs();
    for prompt in 1..=700 {
        rig.newapi.call(&rig.call(at - prompt % 200).tokens(prompt, 1));
    }
    let late = rig.newapi.call(&rig.call(at).tokens(3, 1).late());
    let with_event = rig.newapi.call(&rig.call(at).tokens(4, 2).late());
    rig.post(&with_event.usage_by_cost("its row is late"));
    rig.wait_for_charges(701);
    rig.advance_secs(15 * 60);
    rig.wait_for_a_pass();
    for called in [late, with_event] {
        rig.newapi.log(|log| log.reveal(called.log_id.unwrap()));
    }
    rig.wait_for_a_pass();
    assert_eq!(rig.charges(), 701, "its second counts as read");
    rig.advance_secs(DAY_SECS);
    rig.wait_for_charges(702);
    rig.wait_for_a_pass();
    rig.assert_billed(702);
    assert_eq!(rig.tied(), 1);
}

#[test]
fn thousands_of_rows_of_one_second_are_as_many_calls() {
    const CALLS: i64 = 3000;
    let rig = Rig::pulling();
    let at = rig.now_secs() - 5;
    for number in 0..CALLS {
        // Dozens of them are equal.
        rig.newapi.call(&rig.call(at).tokens(number % 40, 1));
    }
    for number in 0..50 {
        let usage = crate::kit::events::Usage::new(format!("e-{number}")).remote_key(42).at_secs(at);
        rig.post(&usage.tokens(number % 40, 1).quota(super::two_channels::UNITS_PER_CREDIT));
    }
    crate::kit::wait::wait_until("all are charged", 9 * super::two_channels::PATIENCE, || {
        (rig.charges() >= CALLS).then_some(())
    });
    rig.cover_everything();
    rig.assert_billed(CALLS);
    assert_eq!(rig.tied(), 50);
}

/// Calls of which every third has no event, each told as it comes.
fn traffic(rig: &Rig, prefix: &str, calls: std::ops::Range<i64>) -> Vec<Called> {
    let at = rig.now_secs() - 8;
    let tell = |number: i64| {
        let called = rig.newapi.call(&rig.call(at + number % 4).tokens(number % 5, 3));
        if number % 3 != 0 {
            rig.post(&called.usage_by_cost(&format!("{prefix}-{number}")));
        }
        called
    };
    calls.map(tell).collect()
}

#[test]
fn a_log_that_is_emptied_under_traffic_begins_again_and_is_billed_on() {
    for dialect in [Dialect::Current, Dialect::Of2025] {
        let rig = Rig::start(&[PULL]);
        rig.newapi.speak(dialect);
        rig.wait_for_a_pass();
        rig.advance_secs(60);
        traffic(&rig, "before", 0..30);
        rig.wait_for_charges(30);
        rig.wait_for_a_pass();
        // Those told by events alone are gone from the log before anybody read them.
        let unread = rig.newapi.call(&rig.call(rig.now_secs() - 3).tokens(77, 1));
        rig.newapi.log(|log| log.truncate());
        rig.post(&unread.usage("unread"));
        // Without request ids, a row that equals a former one of its second is that row.
        rig.advance_secs(20);
        traffic(&rig, "after", 30..60);
        rig.wait_for_charges(61);
        rig.cover_everything();
        rig.assert_billed(61);
        // The figures of what was emptied differ from the books for ever, and that charges nobody.
        rig.advance_secs(DAY_SECS);
        rig.wait_for_a_pass();
        rig.assert_billed(61);
    }
}

#[test]
fn a_log_that_was_moved_and_has_new_ids_is_the_same_log() {
    for dialect in [Dialect::Current, Dialect::Of2025] {
        let rig = Rig::start(&[PULL]);
        rig.newapi.speak(dialect);
        rig.wait_for_a_pass();
        rig.advance_secs(60);
        let called = traffic(&rig, "before", 0..30);
        rig.wait_for_charges(30);
        rig.newapi.log(|log| log.renumber(1_000_000));
        rig.wait_for_a_pass();
        // Their events come again with the ids of before; new calls have ids that follow.
        rig.post(&called[1].usage_by_cost("before-1"));
        traffic(&rig, "after", 30..60);
        rig.wait_for_charges(60);
        rig.cover_everything();
        rig.advance_secs(DAY_SECS);
        rig.wait_for_a_pass();
        rig.assert_billed(60);
    }
}

#[test]
fn ids_that_are_made_up_for_each_answer_lead_nobody_astray() {
    let rig = Rig::start(&[PULL]);
    rig.newapi.keep_log_in(LogStore::ClickHouse);
    rig.wait_for_a_pass();
    rig.advance_secs(60);
    traffic(&rig, "first", 0..150);
    rig.wait_for_charges(150);
    traffic(&rig, "second", 150..280);
    rig.wait_for_charges(280);
    rig.cover_everything();
    rig.assert_billed(280);
    assert_eq!(rig.daemon.metric("hookledger_source_condition{condition=\"ids_unstable\"}"), Some(1.0));
}

#[test]
fn a_log_of_an_old_version_is_read_to_its_last_row() {
    let rig = Rig::start(&[PULL]);
    rig.newapi.speak(Dialect::BareList);
    rig.wait_for_a_pass();
    rig.advance_secs(60);
    traffic(&rig, "first", 0..100);
    rig.wait_for_charges(100);
    rig.wait_for_a_pass();
    traffic(&rig, "second", 100..135);
    rig.wait_for_charges(135);
    rig.cover_everything();
    rig.assert_billed(135);
    rig.advance_secs(DAY_SECS);
    rig.wait_for_a_pass();
    rig.assert_billed(135);
}

#[test]
fn an_upgrade_of_the_gateway_makes_no_row_another_row() {
    let rig = Rig::start(&[PULL]);
    rig.newapi.speak(Dialect::Of2025);
    rig.wait_for_a_pass();
    rig.advance_secs(60);
    let called = traffic(&rig, "old", 0..9);
    // What an old version wrote has no request id, and a new one shows it as an empty text.
    for called in called {
        rig.newapi.log(|log| log.change(called.log_id.unwrap(), |row| row.request_id = None));
    }
    rig.wait_for_charges(9);
    rig.newapi.speak(Dialect::Current);
    rig.wait_for_a_pass();
    rig.cover_everything();
    rig.assert_billed(9);
}

#[test]
fn a_node_whose_clock_is_a_quarter_of_an_hour_slow_costs_no_call_and_doubles_none() {
    const SLOW_SECS: i64 = 890;
    let rig = Rig::start(&[PULL]);
    rig.wait_for_a_pass();
    rig.advance_secs(2 * DAY_SECS / 24);
    rig.wait_for_a_pass();
    let now = rig.now_secs();
    // Its rows lie in seconds that are covered; the sender of the events has the right time.
    let slow = |prompt| rig.newapi.call(&rig.call(now - SLOW_SECS).tokens(prompt, 3));
    let (named, nameless, lost) = (slow(1), slow(2), slow(3));
    rig.post(&named.usage("named").at_secs(now));
    rig.post(&nameless.usage_by_cost("nameless").at_secs(now));
    rig.wait_for_a_pass();
    assert_eq!(rig.charges(), 2, "{} is not told of yet", lost.request_id);

    rig.advance_secs(DAY_SECS);
    rig.wait_for_charges(3);
    rig.cover_everything();
    assert_eq!((rig.tied(), rig.rows_in_state("disputed")), (1, 1), "one is named, of one a person is told");
    rig.assert_billed(3);
}

#[test]
fn a_row_that_nobody_can_read_holds_up_no_other() {
    let rig = Rig::pulling();
    let at = rig.now_secs() - 200;
    rig.newapi.call(&rig.call(at));
    // No version writes such an id; a hand in the gateway's database may.
    let strange = rig.newapi.call(&rig.call(at + 10).request_id(&"x".repeat(200)));
    rig.newapi.call(&rig.call(at + 20));
    rig.wait_for_charges(2);
    rig.advance_secs(COVERED_AFTER_SECS);
    let covered = |second: i64| {
        let spans = "SELECT COUNT(*) FROM hookledger_spans WHERE proof = 'read' AND";
        rig.books().scalar_i64(&format!("{spans} {second} BETWEEN from_second AND until_second")) > 0
    };
    wait_until("all other seconds are read", PATIENCE, || covered(at + 11).then_some(()));
    assert_eq!((covered(at + 9), covered(at + 10), covered(at + 11)), (true, false, true));
    // What comes later is read as well, and the pass says why it is not whole.
    rig.newapi.call(&rig.call(rig.now_secs() - 30));
    rig.wait_for_charges(3);
    let said = rig.daemon.command_json(&["status"])["source"]["lastFailure"].to_string();
    assert!(said.contains("1 rows of the log cannot be read (request_id must be at most 191"), "{said}");
    rig.newapi.log(|log| log.change(strange.log_id.unwrap(), |row| row.request_id = Some("mended".to_owned())));
    rig.wait_for_charges(4);
    wait_until("its second is read", PATIENCE, || covered(at + 10).then_some(()));
    rig.assert_billed(4);
}
