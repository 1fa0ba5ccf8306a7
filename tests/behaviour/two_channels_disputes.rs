//! A call that its event and its row tell differently is charged once, and a person is told; two calls stay two.

use crate::kit::events::Usage;
use crate::kit::newapi::Called;
use crate::kit::wait::wait_until;

use super::two_channels::{DAY_SECS, PATIENCE, Rig, UNITS_PER_CREDIT};

/// A sender that tells this call differently than the log does.
struct Teller {
    name: &'static str,
    tell: fn(&Called, Usage) -> Usage,
}

const TELLERS: [Teller; 3] = [
    // 617 units are $0.001234.
    Teller { name: "rounds", tell: |_, usage| usage.cost("0.0012") },
    Teller { name: "renames", tell: |_, usage| usage.model("gpt-4-0613") },
    Teller { name: "stamps-the-start", tell: |called, usage| usage.at_secs(called.at_secs - 180) },
];

fn dispute(is_event_first: bool) {
    let rig = Rig::pulling();
    for (case, Teller { name, tell }) in (1..).zip(TELLERS) {
        let called = rig.newapi.call(&rig.call(rig.now_secs() - 20).tokens(case, 4).quota(617).late());
        let usage = tell(&called, called.usage_by_cost(name));
        if is_event_first {
            assert_eq!(rig.post(&usage), 200);
            rig.newapi.log(|log| log.reveal_all());
        } else {
            rig.newapi.log(|log| log.reveal_all());
            rig.wait_for_charges(case);
            assert_eq!(rig.post(&usage), 202, "{name}: it waits");
        }
        rig.wait_for_a_pass();
        assert_eq!(rig.charges(), case, "{name}: one charge");
    }
    let told = || if is_event_first { rig.rows_in_state("disputed") } else { rig.disputed_events() };
    assert_eq!(told(), 0, "their partners may still come");
    rig.cover_everything();
    assert_eq!((rig.charges(), told()), (3, 3), "one charge each, and a person is told of the other side");
    rig.books().assert_whole();
    rig.books().assert_carried_exactly();
    rig.advance_secs(DAY_SECS);
    rig.wait_for_a_pass();
    assert_eq!((rig.charges(), told()), (3, 3), "and it stays so");
}

#[test]
fn a_cost_that_was_rounded_a_renamed_model_and_an_early_timestamp_are_disputed_not_charged_twice() {
    dispute(true);
}

#[test]
fn they_are_disputed_where_the_row_came_first_as_well() {
    dispute(false);
}

/// Two calls that differ in price alone: of one only the row comes, of the other the event at once and the row late.
struct TwoCalls {
    event_is_lost: Called,
    row_is_late: Called,
}

impl TwoCalls {
    fn new(rig: &Rig, case: i64) -> Self {
        let call = rig.call(rig.now_secs() - 20).tokens(case, 5).late();
        let event_is_lost = rig.newapi.call(&call);
        let row_is_late = rig.newapi.call(&call.quota(2 * UNITS_PER_CREDIT));
        TwoCalls { event_is_lost, row_is_late }
    }

    /// What comes at once.
    fn begin(&self, rig: &Rig, is_event_first: bool) {
        let event = || rig.post(&self.row_is_late.usage_by_cost(&format!("event-{}", self.row_is_late.request_id)));
        if is_event_first {
            event();
        }
        rig.newapi.log(|log| log.reveal(self.event_is_lost.log_id.unwrap()));
        rig.wait_for_a_pass();
        if !is_event_first {
            event();
        }
    }
}

#[track_caller]
fn assert_two_charges(rig: &Rig, calls: i64) {
    assert_eq!((rig.charges(), rig.books().balance(&rig.user)), (2 * calls, 1000 - 3 * calls));
    assert_eq!((rig.rows_in_state("disputed"), rig.rows_in_state("waiting"), rig.disputed_events()), (0, 0, 0));
    assert_eq!(rig.books().count("hookledger_inbox"), 0, "no event waits");
    rig.books().assert_whole();
    rig.books().assert_carried_exactly();
}

#[test]
fn two_calls_of_which_one_lost_its_event_and_one_has_its_row_late_are_two_in_the_end() {
    let rig = Rig::pulling();
    let calls = [(1, true), (2, false)].map(|(case, is_event_first)| {
        let calls = TwoCalls::new(&rig, case);
        calls.begin(&rig, is_event_first);
        calls
    });
    rig.wait_for_a_pass();
    assert_eq!(rig.charges(), 2, "what may be one call is charged once for now");
    for call in calls {
        rig.newapi.log(|log| log.reveal(call.row_is_late.log_id.unwrap()));
    }
    rig.wait_for_a_pass();
    assert_two_charges(&rig, 2);
}

#[test]
fn a_dispute_ends_when_a_row_that_came_after_all_was_the_true_partner() {
    let rig = Rig::pulling();
    let calls = [(1, true), (2, false)].map(|(case, is_event_first)| {
        let calls = TwoCalls::new(&rig, case);
        calls.begin(&rig, is_event_first);
        calls
    });
    rig.cover_everything();
    assert_eq!((rig.charges(), rig.rows_in_state("disputed"), rig.disputed_events()), (2, 1, 1));
    for call in calls {
        rig.newapi.log(|log| log.reveal(call.row_is_late.log_id.unwrap()));
    }
    rig.advance_secs(DAY_SECS);
    rig.wait_for_a_pass();
    assert_two_charges(&rig, 2);
}

#[test]
fn calls_that_are_not_alike_never_wait_for_each_other() {
    let rig = Rig::pulling();
    let at = rig.now_secs() - 20;
    let row_is_lost = rig.newapi.call(&rig.call(at).tokens(11, 5).late());
    let event_is_lost = rig.newapi.call(&rig.call(at).tokens(12, 5));
    assert_eq!(rig.post(&row_is_lost.usage_by_cost("row-is-lost")), 200);
    rig.wait_for_charges(2);
    drop(event_is_lost);
    rig.cover_everything();
    rig.assert_billed(2);
    assert_eq!((rig.rows_in_state("disputed"), rig.disputed_events()), (0, 0));
}

#[test]
fn alike_calls_that_their_request_ids_prove_different_are_charged_at_once() {
    let rig = Rig::pulling();
    let known = rig.newapi.call(&rig.call(rig.now_secs() - 30).tokens(1, 1));
    rig.post(&known.usage("known"));
    rig.wait_for_a_pass();
    for (case, is_event_first) in [(2, true), (3, false)] {
        let calls = TwoCalls::new(&rig, case);
        let event = || rig.post(&calls.row_is_late.usage(&format!("named-{case}")));
        if is_event_first {
            assert_eq!(event(), 200);
        }
        rig.newapi.log(|log| log.reveal(calls.event_is_lost.log_id.unwrap()));
        rig.wait_for_a_pass();
        if !is_event_first {
            assert_eq!(event(), 200, "nothing to wait for");
        }
    }
    assert_eq!((rig.charges(), rig.books().balance(&rig.user)), (5, 1000 - 1 - 6));
    rig.books().assert_whole();
}

#[test]
fn an_event_that_waits_for_the_log_does_not_wait_for_the_next_sweep() {
    let rig = Rig::start(&[("HOOKLEDGER__POLLING__STALE_LOSS", "1")]);
    rig.wait_for_a_pass_by_clock();
    let called = rig.newapi.call(&rig.call(rig.now_secs()).quota(617));
    rig.post(&Usage::new("keeps-it-healthy").at_secs(rig.now_secs()).remote_key(42).tokens(1, 1).quota(500));
    rig.wait_for_a_pass_by_clock();
    assert_eq!(rig.charges(), 2, "the log told of the call");
    assert_eq!(rig.post(&called.usage_by_cost("rounded").cost("0.0012")), 202, "it waits");
    // `polling.interval`, where sweeps are an hour apart.
    rig.wait_for_a_pass_by_clock_of(301);
    wait_until("it is disputed", PATIENCE, || (rig.disputed_events() == 1).then_some(()));
    assert_eq!(rig.charges(), 2);
}
