//! A sync beside others that read the same log: a second one, the daemon's own passes, and one that was killed.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::{By, calls, numbers, refused, synced, unread};
use crate::admin_api::asked_on_socket;
use crate::commands::ran;
use crate::kit::newapi::{Endpoint, Fault};
use crate::kit::wait::wait_until;
use crate::two_channels::{PATIENCE, Rig};

fn standing(rig: &Rig) -> Value {
    asked_on_socket(&rig.daemon, "GET", "/admin/v1/sync", b"").json()
}

#[test]
fn a_second_one_at_once_is_told_so() {
    let rig = unread(By::Daemon);
    calls(&rig, 42, rig.now_secs() - 100, 5);
    rig.newapi.forget_requests();
    rig.newapi.fail(Fault::Delay(Duration::from_secs(60)).on(Endpoint::LogRows).times(1));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| synced(&rig, &[]));
        rig.newapi.wait_for_requests(Endpoint::LogRows, 1, PATIENCE);
        let refusal = refused(&rig, &["--dry-run"], 1);
        assert!(refusal.contains("another sync is under way"), "{refusal}");
        assert_eq!(standing(&rig)["state"], "reading");
        rig.newapi.heal();
        assert_eq!(numbers(&first.join().unwrap(), ["read", "charged"]), [5, 5]);
    });
    assert_eq!(numbers(&synced(&rig, &["--dry-run"]), ["charged"]), [0]);
    rig.assert_billed(5);
}

#[test]
fn a_client_that_is_killed_leaves_the_daemon_at_work() {
    let rig = unread(By::Daemon);
    calls(&rig, 42, rig.now_secs() - 100, 5);
    rig.newapi.forget_requests();
    rig.newapi.fail(Fault::Delay(Duration::from_secs(60)).on(Endpoint::LogRows).times(1));
    let mut command = rig.daemon.any_command(&["sync"]);
    let mut client = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    rig.newapi.wait_for_requests(Endpoint::LogRows, 1, PATIENCE);
    client.kill().unwrap();
    client.wait().unwrap();
    rig.newapi.heal();
    wait_until("the sync has ended", PATIENCE, || (standing(&rig)["state"] == "done").then_some(()));
    assert_eq!(numbers(&standing(&rig)["synced"], ["read", "charged"]), [5, 5]);
    rig.assert_billed(5);
}

#[test]
fn a_daemon_that_stops_ends_a_sync_in_words_and_the_next_one_goes_on() {
    let rig = unread(By::Daemon);
    calls(&rig, 42, rig.now_secs() - 100, 5);
    rig.newapi.forget_requests();
    rig.newapi.fail(Fault::Delay(Duration::from_secs(60)).on(Endpoint::LogRows).times(1));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| refused(&rig, &[], 1));
        rig.newapi.wait_for_requests(Endpoint::LogRows, 1, PATIENCE);
        assert_eq!(rig.daemon.terminate(), 0);
        let words = client.join().unwrap();
        assert!(words.contains("repeat the command") || words.contains("ask again"), "{words}");
    });
    rig.newapi.heal();
    assert_eq!(numbers(&synced(&rig, &[]), ["read", "charged"]), [5, 5]);
    rig.assert_billed(5);
}

#[test]
fn a_command_that_is_killed_in_the_middle_is_made_good_by_the_next_one() {
    for place in ["polling.piece.settled", "polling.covered", "polling.piece.read", "store.settle.committed"] {
        let rig = unread(By::Command);
        calls(&rig, 42, rig.now_secs() - 100, 5);
        rig.advance_secs(900);
        let killed = ran(&rig.daemon, &["sync"], &[("FAILPOINTS", &format!("{place}=return(kill)"))]);
        assert_ne!(killed.code, 0, "{place}: {killed:?}");
        let summary = synced(&rig, &[]);
        let [charged, claimed] = numbers(&summary, ["charged", "alreadyClaimed"]);
        assert!(charged + claimed == 5 || place == "polling.covered", "{place}: {summary}");
        rig.assert_billed(5);
    }
}

#[test]
fn a_span_that_is_killed_in_the_middle_is_read_again_by_the_next_pass() {
    let rig = unread(By::Command);
    rig.newapi.add_token(crate::kit::newapi::Token::new(43, "nobodys").owned_by(1));
    let at = rig.now_secs() - 100;
    calls(&rig, 43, at, 5);
    rig.advance_secs(900);
    assert_eq!(numbers(&synced(&rig, &[]), ["parked"]), [5]);
    let parked = || rig.books().scalar_i64("SELECT COALESCE(SUM(row_count), 0) FROM hookledger_unowned_rows");
    assert_eq!(parked(), 5);
    // What was counted is forgotten, and not counted again.
    let arguments = ["sync", "--since", &super::time(at - 10)];
    let killed = ran(&rig.daemon, &arguments, &[("FAILPOINTS", "store.settle.begin=return(kill)")]);
    assert_ne!(killed.code, 0, "{killed:?}");
    assert_eq!(parked(), 0);
    assert_eq!(numbers(&synced(&rig, &[]), ["parked"]), [5], "it was opened, so that a pass reads it");
    assert_eq!(parked(), 5);
    assert_eq!(numbers(&synced(&rig, &[]), ["read"]), [0]);
}

#[test]
fn syncs_and_the_daemons_own_passes_charge_each_call_once() {
    let rig = Rig::pulling();
    let at = rig.now_secs() - 200;
    std::thread::scope(|scope| {
        for round in 0..3 {
            let rig = &rig;
            scope.spawn(move || {
                for number in 0..40 {
                    rig.newapi.call(&rig.call(at + number / 4 + round).tokens(number % 7, round));
                }
                let since = super::time(at);
                for arguments in [&["sync"][..], &["sync", "--since", &since], &["sync", "--key", "42"]] {
                    // One at a time: whoever comes second is told so.
                    let ended = ran(&rig.daemon, arguments, &[]);
                    assert!(ended.code == 0 || ended.stderr.contains("another sync"), "{ended:?}");
                }
            });
        }
    });
    rig.wait_for_charges(120);
    synced(&rig, &[]);
    rig.assert_billed(120);
}
