//! A sync without a span: what a pass would read. And what one changes that is only tried.

use super::{BOTH, By, calls, numbers, rest, spans, synced, time, unread};
use crate::kit::newapi::{Call, Token};
use crate::two_channels::{DAY_SECS, Rig, UNITS_PER_CREDIT};

#[test]
fn a_sync_charges_what_no_event_told_and_a_second_one_finds_it_settled() {
    for by in BOTH {
        let rig = unread(by);
        let at = rig.now_secs() - 100;
        let equal: Vec<_> = (0..8).map(|_| rig.newapi.call(&rig.call(at))).collect();
        calls(&rig, 42, at, 3);
        if by == By::Daemon {
            for (number, called) in equal.iter().take(2).enumerate() {
                rig.post(&called.usage_by_cost(&format!("told-{number}")));
            }
        }
        let told = if by == By::Daemon { 2 } else { 0 };
        let names = ["read", "charged", "credits", "tied", "alreadyClaimed", "parked", "failed"];
        let first = synced(&rig, &[]);
        assert_eq!(numbers(&first, names), [11, 11 - told, 11 - told, told, 0, 0, 0], "{by:?}: {first}");
        let again = synced(&rig, &[]);
        assert_eq!(numbers(&again, names), [11, 0, 0, 0, 11, 0, 0], "{by:?}: too young to be covered: {again}");
        rig.advance_secs(660);
        let covered = synced(&rig, &[]);
        assert_eq!(covered["charged"], 0, "{covered}");
        rig.advance_secs(10);
        let after = synced(&rig, &[]);
        assert_eq!(numbers(&after, names), [0; 7], "{by:?}: what is covered is not read again: {after}");
        assert!(after["coveredUntil"].as_str().unwrap() >= time(at).replace(' ', "T").as_str(), "{after}");
        rig.assert_billed(11);
    }
}

#[test]
fn a_sync_that_is_only_tried_tells_what_a_sync_does_and_changes_nothing() {
    let rig = Rig::start(&[super::OFF]);
    synced(&rig, &[]);
    rig.newapi.add_token(Token::new(43, "nobodys").owned_by(1));
    let other = rig.another_user(44);
    rig.advance_secs(240);
    let at = rig.now_secs() - 100;
    // More than one transaction of a pass holds; prices that leave remainders.
    for number in 0..600 {
        let token = if number % 3 == 0 { 44 } else { 42 };
        let call = Call::new(token, "gpt-4", at + number / 20).tokens(number % 5, 5);
        rig.newapi.call(&call.quota(UNITS_PER_CREDIT / 3));
    }
    let equal: Vec<_> = (0..6).map(|_| rig.newapi.call(&rig.call(at + 3))).collect();
    for (number, called) in equal.iter().take(4).enumerate() {
        rig.post(&called.usage_by_cost(&format!("told-{number}")));
    }
    let task = rig.newapi.submit_task("t-1", &Call::new(42, "sora-2", at + 40).quota(1830));
    rig.newapi.fail_task(&task, at + 50);
    calls(&rig, 43, at, 5);
    rest(&rig, By::Command);
    let before = rig.books().dump();
    let tried = synced(&rig, &["--dry-run"]);
    assert_eq!(rig.books().dump(), before, "nothing was changed");
    assert_eq!((&tried["dryRun"], &tried["needsYes"]), (&true.into(), &false.into()), "{tried}");
    let names = ["read", "charged", "credits", "tied", "parked", "refunded", "creditsGivenBack", "refundsOpen"];
    let done = synced(&rig, &[]);
    assert_eq!(done["dryRun"], false);
    assert_eq!(numbers(&tried, names), numbers(&done, names), "{tried} {done}");
    assert_eq!(numbers(&done, ["read", "charged", "tied", "parked", "refunded"]), [613, 603, 4, 5, 1], "{done}");
    assert_ne!(rig.books().dump(), before);
    let again = synced(&rig, &["--dry-run"]);
    assert_eq!(numbers(&again, ["charged", "tied", "refunded", "alreadyClaimed"]), [0, 0, 0, 608], "{again}");
    assert!(rig.books().balance(&other) < 1000);
    rig.books().assert_whole();
    rig.books().assert_carried_exactly();
}

#[test]
fn a_sync_that_is_only_tried_reads_what_figures_proved_too_long_ago() {
    let mut rig = Rig::swept_every("20h");
    let at = rig.now_secs();
    rig.advance_secs(60);
    for number in 1..=3 {
        let called = rig.newapi.call(&rig.call(at + 10 * number).tokens(number, 2));
        rig.post(&called.usage(&format!("event-{number}")));
    }
    rig.wait_for_a_pass_by_clock_of(20 * 3600);
    assert!(spans(&rig).iter().any(|span| span.contains("agreed")), "{:?}", spans(&rig));
    // Nobody looks for longer than figures hold; a row that came late.
    rig.daemon.set_environment(super::OFF.0, super::OFF.1);
    rig.daemon.restart();
    rig.advance_secs(8 * DAY_SECS);
    rig.newapi.call(&rig.call(at + 15).tokens(9, 2));
    let tried = synced(&rig, &["--dry-run"]);
    let done = synced(&rig, &[]);
    let names = ["read", "charged", "credits", "tied"];
    assert_eq!(numbers(&tried, names), numbers(&done, names), "{tried} {done}");
    assert_eq!(numbers(&done, ["charged", "tied"]), [1, 3], "{done}");
}

#[test]
fn what_a_daemon_only_tries_moves_neither_money_nor_coverage() {
    let rig = unread(By::Daemon);
    calls(&rig, 42, rig.now_secs() - 100, 7);
    let before = spans(&rig);
    let tried = synced(&rig, &["--dry-run"]);
    assert_eq!(numbers(&tried, ["read", "charged", "credits"]), [7, 7, 7], "{tried}");
    assert_eq!((rig.charges(), rig.rows_in_state("charged"), spans(&rig)), (0, 0, before));
    assert_eq!(rig.books().balance(&rig.user), 1000);
    let counted = rig.daemon.metric("hookledger_poll_rows_total{result=\"charged\"}");
    assert!(counted.is_none_or(|counted| counted < 1.0), "{counted:?}");
}

#[test]
fn a_person_is_told_in_words() {
    let rig = unread(By::Daemon);
    calls(&rig, 42, rig.now_secs() - 100, 3);
    let tried = crate::commands::ran(&rig.daemon, &["sync", "--dry-run"], &[]);
    assert_eq!((tried.code, tried.stderr.as_str()), (0, ""), "no bar where no terminal is");
    let told = tried.stdout;
    assert!(told.contains("would be charged") && told.contains("coverage"), "{told}");
    let told = crate::commands::fine(&rig.daemon, &["sync"]);
    let line = told.lines().find(|line| line.starts_with("charged")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["charged", "3"], "{told}");
}
