//! `hookledger audit --against-source` where it is easily deceived: another gateway, a stretch whose rows are all gone, many
//! rows of one second, equal calls close to each other, and rows that came late.

use crate::audit::{audited, copy};
use crate::audit_source::{compared, covered};
use crate::commands::{fine, ran};
use crate::kit::events::Usage;
use crate::kit::newapi::{Call, NewApi};
use crate::two_channels::{PULL, Rig, UNITS_PER_CREDIT};

#[test]
fn a_refund_that_is_missing_here_is_named() {
    let rig = Rig::pulling();
    let at = rig.now_secs() - 120;
    let task = rig.newapi.submit_task("task-1", &Call::new(42, "sora-2", at).quota(1830));
    rig.wait_for_charges(1);
    rig.cover_everything();
    assert!(compared(&rig).0.is_empty());
    rig.newapi.fail_task(&task, at + 5);
    let (found, report) = compared(&rig);
    assert_eq!(found, ["refund_missing"], "{report:#}");
    let says = report["differences"][0]["says"].as_str().unwrap();
    assert!(says.contains("a refund") && says.contains("1830 quota units"), "{says}");
}

#[test]
fn another_gateway_is_not_compared_with() {
    let (rig, _) = covered();
    let other = NewApi::start();
    other.follow(&rig.daemon.clock());
    other.set_version("v9.9.9");
    let elsewhere = Rig::settings_for(&other);
    let variables: Vec<(&str, &str)> = elsewhere.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let ended = ran(&rig.daemon, &["audit", "--against-source"], &variables);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{ended:?}");
    assert!(ended.stderr.contains("another new-api answers"), "{ended:?}");
}

#[test]
fn only_calls_of_the_group_that_is_read_are_compared() {
    let rig = Rig::start(&[PULL, ("HOOKLEDGER__NEWAPI__GROUP", "default")]);
    rig.wait_for_a_pass();
    rig.advance_secs(240);
    let at = rig.now_secs() - 120;
    rig.newapi.call(&rig.call(at));
    let of_others = rig.newapi.call(&rig.call(at + 1).late()).log_id.unwrap();
    rig.newapi.log(|log| log.change(of_others, |row| row.group = "vip".to_owned()));
    rig.newapi.log(|log| log.reveal(of_others));
    rig.wait_for_charges(1);
    rig.cover_everything();
    let (found, report) = compared(&rig);
    assert!(found.is_empty(), "{report:#}");
    rig.newapi.call(&rig.call(at + 3));
    assert_eq!(compared(&rig).0, ["call_missing"]);
}

#[test]
fn an_accepted_difference_of_the_log_is_not_told_as_gone_by_who_does_not_look() {
    let (rig, at) = covered();
    let deleted = rig.newapi.log(|log| log.visible(at + 10, at + 10).next().unwrap().id);
    rig.newapi.log(|log| log.delete(deleted));
    let (_, report) = compared(&rig);
    let id = report["differences"][0]["id"].as_str().unwrap().to_owned();
    fine(&rig.daemon, &["audit", "accept", &id, "--reason", "known"]);
    let words = fine(&rig.daemon, &["audit"]);
    assert!(words.contains(&id) && words.contains("--against-source"), "{words}");
    assert!(!words.contains("not there any more"), "{words}");
    let words = fine(&rig.daemon, &["audit", "--against-source"]);
    assert!(words.contains("Accepted, and not counted"), "{words}");
}

/// A stretch of history that was read by hand, and what is read by itself since: between them lies what nobody read.
fn two_stretches() -> (Rig, i64) {
    let (rig, at) = covered();
    let history = at - 10_000;
    for second in 0..3 {
        rig.newapi.call(&rig.call(history + second).tokens(70 + second, 1));
    }
    let (since, until) = (crate::sync::time(history - 5), crate::sync::time(history + 60));
    rig.daemon.command_json(&["sync", "--since", &since, "--until", &until, "--yes"]);
    assert!(compared(&rig).0.is_empty());
    (rig, at)
}

#[test]
fn a_later_stretch_without_a_row_left_is_compared_where_an_earlier_one_has_rows() {
    only_on_sqlite!();
    let (rig, at) = two_stretches();
    let ids: Vec<i64> = rig.newapi.log(|log| log.visible(at - 60, at + 60).map(|row| row.id).collect());
    ids.iter().for_each(|id| rig.newapi.log(|log| log.delete(*id)));
    let (found, report) = compared(&rig);
    assert_eq!(found, ["row_deleted"; 3], "{report:#}");
}

#[test]
fn more_rows_than_are_held_at_once_hide_none() {
    let (rig, at) = covered();
    assert_eq!(rig.daemon.terminate(), 0);
    // Some ten thousand rows of a second that the log does not have.
    for doubled in 0..15 {
        let changes = format!("row_nth = row_nth + {}, claim_id = NULL", 1_i64 << doubled);
        copy(&rig.books(), "hookledger_rows", &format!("row_second = {at}"), &changes);
    }
    let (code, report) = audited(&rig.daemon, &["--against-source", "--limit", "3"]);
    assert_eq!(code, 1);
    let counts = report["counts"].as_object().unwrap();
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["row_deleted"], "{report:#}");
    let more = report["unverified"].as_u64().unwrap();
    assert_eq!(counts["row_deleted"].as_u64().unwrap() + more, (1 << 15) - 1, "{report:#}");
}

/// Events whose rows nobody read: figures prove that they are there.
fn proved_by_figures(calls: impl Fn(&Rig, i64)) -> (Rig, i64) {
    let rig = Rig::swept_every("20h");
    let at = rig.now_secs();
    rig.advance_secs(400);
    calls(&rig, at);
    rig.wait_for_a_pass_by_clock_of(20 * 3600);
    assert!(rig.books().scalar_i64("SELECT COUNT(*) FROM hookledger_spans WHERE proof = 'agreed'") > 0);
    assert!(compared(&rig).0.is_empty());
    (rig, at)
}

#[test]
fn equal_calls_close_to_each_other_do_not_hide_a_missing_one() {
    let (rig, at) = proved_by_figures(|rig, at| {
        for number in 1..=10 {
            let called = rig.newapi.call(&rig.call(at + 30 * number));
            rig.post(&called.usage(&format!("event-{number}")));
        }
    });
    rig.newapi.call(&rig.call(at + 115));
    let (found, report) = compared(&rig);
    assert_eq!(found, ["call_missing"], "{report:#}");
    assert!(report["differences"][0]["since"].as_str().unwrap().contains(crate::sync::time(at + 115).as_str()));
}

#[test]
fn a_row_that_came_late_explains_its_event() {
    let (rig, at) = covered();
    let call = rig.call(at + 12).tokens(8, 8).quota(2 * UNITS_PER_CREDIT);
    rig.post(&Usage::new("before its row").remote_key(42).model("gpt-4").tokens(8, 8).quota(1000).at_secs(at + 12));
    let (found, report) = compared(&rig);
    assert_eq!(found, ["call_without_row"], "{report:#}");
    rig.newapi.call(&call);
    let (found, report) = compared(&rig);
    assert!(found.is_empty(), "{report:#}");
}
