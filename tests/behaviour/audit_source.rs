//! `hookledger audit --against-source`: what only new-api's log has, and what only the books have.

use serde_json::Value;

use crate::audit::{audited, told};
use crate::kit::events::Usage;
use crate::kit::newapi::{Call, Row, Token};
use crate::two_channels::{Rig, UNITS_PER_CREDIT};

/// Kinds and subjects of what differs, and the whole report.
#[track_caller]
pub fn compared(rig: &Rig) -> (Vec<String>, Value) {
    let (code, report) = audited(&rig.daemon, &["--against-source"]);
    let found: Vec<String> = told(&report["differences"]).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(code, i32::from(!found.is_empty()), "{report:#}");
    (found, report)
}

/// A log of which calls of three seconds were read and are covered.
#[track_caller]
pub fn covered() -> (Rig, i64) {
    let rig = Rig::pulling();
    let at = rig.now_secs() - 120;
    for second in 0..3 {
        rig.newapi.call(&rig.call(at + 10 * second));
    }
    // Nobody has this token: its row is counted and not kept.
    rig.newapi.add_token(Token::new(77, "nobody's"));
    rig.newapi.call(&Call::new(77, "gpt-4", at + 5).quota(900));
    rig.wait_for_charges(3);
    rig.cover_everything();
    let (found, report) = compared(&rig);
    assert!(found.is_empty(), "{report:#}");
    assert_eq!(report["source"]["source"], "default", "{report:#}");
    assert!(report["source"]["spansAgreed"].as_i64().unwrap() > 0, "{report:#}");
    (rig, at)
}

#[test]
fn a_call_that_is_missing_here_is_named() {
    let (rig, at) = covered();
    rig.newapi.call(&rig.call(at + 15).quota(3 * UNITS_PER_CREDIT));
    let before = rig.books().count("hookledger_rows");
    let (found, report) = compared(&rig);
    assert_eq!(found, ["call_missing"], "{report:#}");
    let says = report["differences"][0]["says"].as_str().unwrap();
    assert!(says.contains("1500 quota units") && says.contains("token 42"), "{says}");
    assert_eq!(rig.books().count("hookledger_rows"), before, "nothing is written");
    assert_eq!(audited(&rig.daemon, &[]).0, 0, "the books alone agree");
}

#[test]
fn a_row_that_was_deleted_at_the_source_is_named() {
    let (rig, at) = covered();
    let deleted = rig.newapi.log(|log| log.visible(at + 10, at + 10).next().unwrap().id);
    rig.newapi.log(|log| log.delete(deleted));
    let (found, report) = compared(&rig);
    assert_eq!(found, ["row_deleted"], "{report:#}");
    let one = &report["differences"][0];
    assert_eq!(one["userId"], rig.user.as_str(), "{one:#}");
    // Accepted, it stays listed.
    let id = one["id"].as_str().unwrap();
    rig.daemon.command_json(&["audit", "accept", id, "--reason", "known"]);
    let (found, report) = compared(&rig);
    assert_eq!((found.len(), report["accepted"].as_array().unwrap().len()), (0, 1), "{report:#}");
    assert_eq!(report["noLongerFound"], serde_json::json!([]), "{report:#}");
}

#[test]
fn what_the_source_has_cleared_from_its_beginning_is_no_difference() {
    let (rig, at) = covered();
    rig.newapi.log(|log| log.delete_before(at + 10));
    let (found, report) = compared(&rig);
    assert!(found.is_empty(), "{report:#}");
    assert!(report["notes"][0].as_str().unwrap().contains("oldest row"), "{report:#}");
    rig.newapi.log(|log| log.truncate());
    let (found, report) = compared(&rig);
    assert!(found.is_empty(), "{report:#}");
    assert!(report["notes"][0].as_str().unwrap().contains("no row left"), "{report:#}");
}

#[test]
fn a_row_that_is_charged_twice_has_one_at_the_source() {
    let rig = Rig::pulling();
    let at = rig.now_secs() - 60;
    // Two equal calls, of which the source loses one: charged twice for what it has once.
    let rows =
        [0, 1].map(|_| rig.newapi.insert(Row::relayed(2, at, "gpt-4").token(42, "alice-key").tokens(1, 1).quota(500)));
    rig.wait_for_charges(2);
    rig.cover_everything();
    assert!(compared(&rig).0.is_empty());
    rig.newapi.log(|log| log.delete(rows[0]));
    let (found, report) = compared(&rig);
    assert_eq!(found, ["row_deleted"], "{report:#}");
}

#[test]
fn events_that_figures_proved_stand_for_their_rows() {
    let rig = Rig::swept_every("20h");
    let at = rig.now_secs();
    rig.advance_secs(60);
    for number in 1..=3 {
        let called = rig.newapi.call(&rig.call(at + 10 * number).tokens(number, 2));
        rig.post(&called.usage(&format!("event-{number}")));
    }
    rig.wait_for_a_pass_by_clock_of(20 * 3600);
    let agreed = "SELECT COUNT(*) FROM hookledger_spans WHERE proof = 'agreed'";
    assert!(rig.books().scalar_i64(agreed) > 0);
    assert!(compared(&rig).0.is_empty());
    // One row more, of another price, and the event of another loses its own.
    rig.newapi.call(&rig.call(at + 15).tokens(9, 2).quota(700));
    let lost = rig.newapi.log(|log| log.visible(at + 30, at + 30).next().unwrap().id);
    rig.newapi.log(|log| log.delete(lost));
    let (found, report) = compared(&rig);
    assert_eq!(found, ["call_missing", "call_without_row"], "{report:#}");
}

#[test]
fn an_event_without_a_row_is_named() {
    let (rig, at) = covered();
    rig.post(&Usage::new("alone").remote_key(42).tokens(8, 8).quota(700).at_secs(at + 12));
    let (found, report) = compared(&rig);
    assert_eq!(found, ["call_without_row"], "{report:#}");
    assert!(report["differences"][0]["says"].as_str().unwrap().contains("alone"), "{report:#}");
}

#[test]
fn a_source_out_of_reach_ends_with_1() {
    let (rig, _) = covered();
    let arguments = ["audit", "--against-source"];
    let dead = [("HOOKLEDGER__NEWAPI__BASE_URL", "http://127.0.0.1:1"), ("HOOKLEDGER__NEWAPI__MAX_RETRIES", "0")];
    let ran = crate::commands::ran(&rig.daemon, &arguments, &dead);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(ran.stderr.contains("new-api"), "{ran:?}");
}
