//! What went wrong in the platform's own two channels (PROTOCOL, section 4, faults 3 to 9), each as it happened there.

use crate::kit::newapi::rows::{ERROR, LOGIN, MANAGE, TOP_UP};
use crate::kit::newapi::{Endpoint, Fault, Row, Token};
use crate::kit::wait::wait_until;

use super::two_channels::{PATIENCE, PULL, Rig, UNITS_PER_CREDIT};

#[test]
fn fault_3_webhook_and_poller_share_the_identity_of_a_call() {
    let rig = Rig::pulling();
    for number in 1..=6 {
        // Events come up to 40 s after the second that the log has; half of them before their row is read.
        let called = rig.newapi.call(&rig.call(rig.now_secs() - 45).tokens(number, 1).late());
        let usage = called.usage_by_cost(&format!("e-{number}")).at_secs(called.at_secs + number * 7 - 2);
        if number % 2 == 0 {
            rig.post(&usage);
        }
        rig.newapi.log(|log| log.reveal_all());
        rig.wait_for_a_pass();
        rig.post(&usage);
    }
    rig.wait_for_a_pass();
    rig.assert_billed(6);
    assert_eq!(rig.tied(), 6);
}

#[test]
fn fault_4_two_calls_of_one_second_are_two() {
    let rig = Rig::pulling();
    let at = rig.now_secs() - 20;
    for _ in 0..2 {
        rig.newapi.call(&rig.call(at));
    }
    rig.wait_for_charges(2);
    rig.cover_everything();
    rig.assert_billed(2);
}

#[test]
fn fault_5_both_channels_price_a_call_alike() {
    let rig = Rig::pulling();
    let by_log = rig.another_user(43);
    let at = rig.now_secs() - 200;
    for number in 0..9 {
        let units = [1, 617, 1830][number % 3];
        let second = at + number as i64;
        let told = rig.newapi.call(&rig.call(second).tokens(number as i64, 1).quota(units).late());
        rig.post(&told.usage_by_cost(&format!("e-{number}")));
        let read = crate::kit::newapi::Call::new(43, "gpt-4", second).tokens(number as i64, 1).quota(units);
        rig.newapi.call(&read);
    }
    rig.wait_for_charges(18);
    let books = rig.books();
    assert_eq!(books.balance(&rig.user), books.balance(&by_log));
    let prices = "SELECT COUNT(DISTINCT price_units) FROM hookledger_claims GROUP BY prompt_tokens
                    HAVING COUNT(DISTINCT price_units) > 1 OR COUNT(DISTINCT price_credits) > 1";
    assert_eq!(books.rows(&prices.replace("price_units) FROM", "price_units) AS prices FROM")).len(), 0);
    books.assert_whole();
    books.assert_carried_exactly();
}

#[test]
fn fault_6_each_call_is_charged_to_its_own_token() {
    let rig = Rig::pulling();
    let users = [43, 44].map(|token| rig.another_user(token));
    // Names of tokens are the console's: two may be equal.
    rig.newapi.world(|world| {
        let renamed = world.tokens.get_mut(&44).unwrap();
        renamed.name = "key-43".to_owned();
    });
    let at = rig.now_secs() - 20;
    for (token, calls) in [(42, 1), (43, 2), (44, 3)] {
        for _ in 0..calls {
            rig.newapi.call(&crate::kit::newapi::Call::new(token, "gpt-4", at).quota(UNITS_PER_CREDIT));
        }
    }
    rig.newapi.test_channel("gpt-4", 5000, at);
    rig.wait_for_charges(6);
    rig.cover_everything();
    let balances = [&rig.user, &users[0], &users[1]].map(|user| rig.books().balance(user));
    assert_eq!((rig.charges(), balances), (6, [999, 998, 997]));
    rig.books().assert_whole();
}

#[test]
fn fault_7_every_page_is_read_and_no_other_type_of_row() {
    let rig = Rig::pulling();
    let at = rig.now_secs() - 200;
    for number in 0..250 {
        rig.newapi.call(&rig.call(at + number % 40).tokens(number, 2));
        for kind in [TOP_UP, MANAGE, ERROR, LOGIN] {
            rig.newapi.insert(Row::new(kind, at + number % 40).token(42, "alice-key").tokens(1, 1).quota(700));
        }
    }
    rig.wait_for_charges(250);
    rig.cover_everything();
    rig.assert_billed(250);
}

#[test]
fn fault_8_events_do_not_move_what_counts_as_read() {
    let rig = Rig::pulling();
    rig.wait_for_a_pass();
    let lost = |seconds: i64, prompt: i64| rig.newapi.call(&rig.call(rig.now_secs() - seconds).tokens(prompt, 1));
    rig.newapi.fail(Fault::ServerError.on(Endpoint::LogRows));
    for prompt in 1..=5 {
        lost(40, prompt);
    }
    // Younger ones come in meanwhile, and rows between the two have no event either.
    rig.advance_secs(1200);
    for prompt in 6..=8 {
        lost(600, prompt);
        let called = lost(5, prompt + 10);
        rig.post(&called.usage_by_cost(&format!("young-{prompt}")));
    }
    assert_eq!(rig.charges(), 3);
    rig.newapi.heal();
    rig.wait_for_charges(11);
    rig.cover_everything();
    rig.assert_billed(11);
}

#[test]
fn fault_9_an_outage_is_never_taken_for_no_usage() {
    let rig = Rig::start(&[
        PULL,
        ("HOOKLEDGER__NEWAPI__MAX_RETRIES", "0"),
        ("HOOKLEDGER__NEWAPI__BASE_BACKOFF", "100ms"),
        ("HOOKLEDGER__NEWAPI__TIMEOUT", "1s"),
    ]);
    rig.wait_for_a_pass();
    let covered = || rig.daemon.metric("hookledger_coverage_timestamp_seconds").unwrap() as i64;
    let failed = || rig.daemon.metric("hookledger_poll_runs_total{outcome=\"failed\"}").unwrap_or_default();
    let faults = [
        Fault::ServerError,
        Fault::Html(502),
        Fault::Html(200),
        Fault::Refused("record not found".to_owned()),
        Fault::HalfABody,
        Fault::Cut,
        Fault::Hang,
        Fault::TimesIgnored,
        Fault::TooManyRequests,
    ];
    let mut calls = 0;
    for fault in faults {
        rig.wait_for_a_pass();
        let failed_by_now = failed();
        rig.newapi.fail(fault.clone().on(Endpoint::LogRows));
        // No pass that began before is left.
        wait_until(&format!("a pass fails by {fault:?}"), PATIENCE, || (failed() > failed_by_now).then_some(()));
        let (covered_before, failed_before) = (covered(), failed());
        calls += 1;
        rig.newapi.call(&rig.call(rig.now_secs()).tokens(calls, 1));
        rig.advance_secs(1200);
        wait_until(&format!("passes fail by {fault:?}"), PATIENCE, || (failed() >= failed_before + 2.0).then_some(()));
        assert_eq!(covered(), covered_before, "{fault:?}: nothing was read, nothing counts as read");
        assert_eq!(rig.charges(), calls - 1, "{fault:?}");
        rig.newapi.heal();
        rig.wait_for_charges(calls);
        wait_until(&format!("it counts as read after {fault:?}"), PATIENCE, || {
            (covered() > covered_before).then_some(())
        });
    }
    rig.assert_billed(calls);
}

#[test]
fn a_channel_test_is_nobodys_call() {
    let rig = Rig::pulling();
    rig.newapi.add_token(Token::new(43, "nobody").owned_by(1));
    rig.newapi.test_channel("gpt-4", 5000, rig.now_secs() - 5);
    rig.newapi.call(&rig.call(rig.now_secs() - 5));
    rig.wait_for_charges(1);
    rig.cover_everything();
    rig.assert_billed(1);
    assert_eq!(rig.rows_in_state("failed"), 0);
}
