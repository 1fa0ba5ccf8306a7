//! What stands in the way of a sync, in words and exit codes.

use super::{BOTH, By, calls, numbers, refused, synced, time, unread};
use crate::commands::ran;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::newapi::rows::CONSUMPTION;
use crate::kit::newapi::{Endpoint, Fault, Row};
use crate::two_channels::UNITS_PER_CREDIT;

#[test]
fn without_a_gateway_it_says_what_to_set() {
    let daemon = Daemon::start(DaemonOptions::new());
    for _ in BOTH {
        let ended = ran(&daemon, &["sync"], &[]);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{ended:?}");
        for key in ["newapi.base_url", "newapi.access_token", "newapi.user_id"] {
            assert!(ended.stderr.contains(key), "{ended:?}");
        }
        if daemon.is_running() {
            assert_eq!(daemon.terminate(), 0);
        }
    }
}

#[test]
fn what_new_api_says_is_told_and_nothing_moves() {
    for by in BOTH {
        let rig = unread(by);
        calls(&rig, 42, rig.now_secs() - 100, 3);
        for (fault, words) in [
            (Fault::Html(200).on(Endpoint::LogRows), "is not new-api"),
            (Fault::Refused("no".to_owned()).on(Endpoint::LogRows), "new-api refuses"),
        ] {
            rig.newapi.fail(fault);
            let refusal = refused(&rig, &[], 1);
            assert!(refusal.contains(words), "{by:?}: {refusal}");
            rig.newapi.heal();
        }
        let token = rig.newapi.root_access_token();
        rig.newapi.set_access_token(1, "another-token-of-thirty-two-chars");
        let refusal = refused(&rig, &["--dry-run"], 1);
        assert!(refusal.contains("newapi.access_token") && !refusal.contains(&token), "{by:?}: {refusal}");
        rig.newapi.set_access_token(1, &token);
        assert_eq!(rig.charges(), 0);
        assert_eq!(numbers(&synced(&rig, &[]), ["read", "charged"]), [3, 3]);
        rig.assert_billed(3);
    }
}

#[test]
fn what_was_charged_before_a_failure_stays_and_is_told() {
    let rig = unread(By::Daemon);
    let at = rig.now_secs() - 200;
    // More than one answer holds: the window is divided.
    for number in 0..1100 {
        rig.newapi.call(&rig.call(at + number / 10).tokens(number % 50, 1));
    }
    let (since, until) = (time(at), time(at + 110));
    let span = ["--since", &since, "--until", &until];
    rig.newapi.fail(Fault::Html(200).on(Endpoint::LogRows).after(10));
    let refusal = refused(&rig, &span, 1);
    let charged = rig.charges();
    assert!((1..1100).contains(&charged), "{charged} were charged: {refusal}");
    assert!(refusal.contains(&format!("{charged} charged")), "{refusal}");
    rig.newapi.heal();
    let summary = synced(&rig, &span);
    assert_eq!(numbers(&summary, ["charged", "alreadyClaimed"]), [1100 - charged, charged], "{summary}");
    assert_eq!(rig.charges(), 1100);
    rig.books().assert_whole();
}

#[test]
fn a_row_that_nobody_can_read_holds_up_no_pass_after_a_sync_of_what_was_covered() {
    let rig = unread(By::Daemon);
    let at = rig.now_secs() - 100;
    calls(&rig, 42, at, 3);
    rig.advance_secs(900);
    assert_eq!(numbers(&synced(&rig, &[]), ["charged"]), [3]);
    // Written late, and of a token that cannot be.
    let row = Row::relayed(CONSUMPTION, at + 1, "gpt-4").token(-1, "alice-key").tokens(7, 5).quota(UNITS_PER_CREDIT);
    rig.newapi.insert(row);
    let refusal = refused(&rig, &["--since", &time(at)], 1);
    assert!(refusal.contains("cannot be read"), "{refusal}");
    calls(&rig, 42, rig.now_secs() - 10, 2);
    let refusal = refused(&rig, &[], 1);
    assert!(refusal.contains("all others do"), "{refusal}");
    rig.assert_billed(5);
}

#[test]
fn wrong_usage_is_told_before_anything_is_asked() {
    let rig = unread(By::Command);
    for arguments in [
        &["--beyond-grace"][..],
        &["--before-takeover"],
        &["--since", "yesterday"],
        &["--since", "2026-11-24 08:00:00", "--until", "2026-11-24 08:00:00"],
        &["--dry-run", "--yes"],
    ] {
        refused(&rig, arguments, 2);
    }
}
