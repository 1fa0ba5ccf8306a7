//! A sync of a span: whatever was read of it, row by row. What lies before coverage is charged only after its sum was
//! shown; what lies before a taking over only if that is said as well, and never what the platform billed.

use super::{BOTH, By, calls, numbers, refused, rest, spans, synced, time, unread};
use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::newapi::{Call, Called, NewApi, Token};
use crate::kit::platform::PlatformCall;
use crate::two_channels::{DAY_SECS, Rig, UNITS_PER_CREDIT};

#[test]
fn history_of_our_own_is_charged_after_its_sum_was_shown() {
    only_on_sqlite!();
    for by in BOTH {
        let rig = unread_with_history(by);
        let since = time(now_secs() - 2 * DAY_SECS);
        let span = ["--since", &since];
        let before = spans(&rig);
        let asked = synced(&rig, &span);
        let names = ["read", "charged", "credits", "alreadyClaimed"];
        assert_eq!(numbers(&asked, names), [5, 5, 5, 0], "{by:?}: {asked}");
        assert_eq!((&asked["dryRun"], &asked["needsYes"]), (&true.into(), &true.into()), "{asked}");
        assert_eq!((rig.charges(), spans(&rig)), (0, before), "shown, not charged");
        let words = crate::commands::fine(&rig.daemon, &["sync", "--since", &since]);
        assert!(words.contains("--yes"), "{words}");
        assert_eq!(rig.charges(), 0, "no terminal says yes");
        let charged = synced(&rig, &["--since", &since, "--yes"]);
        assert_eq!(numbers(&charged, names), [5, 5, 5, 0], "{by:?}: {charged}");
        assert_eq!(charged["coverageBegins"], asked["coverageBegins"], "coverage begins where it began");
        let again = synced(&rig, &["--since", &since, "--yes"]);
        assert_eq!(numbers(&again, names), [5, 0, 0, 5], "{again}");
        rig.assert_billed(5);
        rig.advance_secs(700);
        assert_eq!(numbers(&synced(&rig, &[]), ["charged"]), [0]);
        assert_eq!(spans(&rig).len(), 2, "history, and what is read by itself: {:?}", spans(&rig));
    }
}

/// Two calls of yesterday and three of a minute ago.
fn unread_with_history(by: By) -> Rig {
    let rig = unread(by);
    calls(&rig, 42, now_secs() - DAY_SECS, 2);
    calls(&rig, 42, rig.now_secs() - 60, 3);
    rig
}

#[test]
fn a_span_ends_where_it_is_told_to() {
    let rig = unread(By::Daemon);
    let at = rig.now_secs() - 100;
    calls(&rig, 42, at, 10);
    let (since, until) = (time(at + 2), time(at + 6));
    let summary = synced(&rig, &["--since", &since, "--until", &until]);
    assert_eq!(numbers(&summary, ["read", "charged"]), [4, 4], "from second 2 to before second 6: {summary}");
    assert_eq!(summary["needsYes"], false, "it lies behind the beginning of coverage");
    assert_eq!(numbers(&synced(&rig, &["--until", &until]), ["read", "charged"]), [6, 2]);
    assert_eq!(numbers(&synced(&rig, &[]), ["read", "charged"]), [10, 4]);
    rig.assert_billed(10);
    let future = synced(&rig, &["--since", "2100-01-01 00:00:00"]);
    assert_eq!(numbers(&future, ["read", "charged"]), [0, 0], "nothing may be read yet");
    let because = |summary: &serde_json::Value| summary["nothingReadBecause"].as_str().unwrap_or_default().to_owned();
    assert!(because(&future).contains("not be read yet"), "{future}");
    let words = crate::commands::fine(&rig.daemon, &["sync", "--since", "2100-01-01 00:00:00"]);
    assert!(words.contains("Nothing was read: ") && words.contains("not be read yet"), "{words}");
    let past = synced(&rig, &["--until", "2020-01-01 00:00:00"]);
    assert!(because(&past).contains("--since"), "{past}");
    assert_eq!(summary["nothingReadBecause"], serde_json::Value::Null, "{summary}");
}

#[test]
fn what_is_covered_is_read_again_where_that_is_asked_for() {
    let rig = unread(By::Daemon);
    let at = rig.now_secs() - 100;
    let late = rig.newapi.call(&rig.call(at + 5).late());
    calls(&rig, 42, at, 3);
    rig.advance_secs(900);
    assert_eq!(numbers(&synced(&rig, &[]), ["read", "charged"]), [3, 3]);
    let before = spans(&rig);
    rig.newapi.log(|log| log.reveal(late.log_id.unwrap()));
    assert_eq!(numbers(&synced(&rig, &[]), ["read", "charged"]), [0, 0]);
    let summary = synced(&rig, &["--since", &time(at)]);
    assert_eq!(numbers(&summary, ["charged", "alreadyClaimed"]), [1, 3], "{summary}");
    let after = spans(&rig);
    assert_eq!((before.len(), after.len()), (1, 1), "{before:?} {after:?}");
    assert!(after[0].contains("\"read\""), "{after:?}");
    rig.assert_billed(4);
}

/// A platform with one customer, just taken over. It billed what `bills` says of twenty calls: ten of two days ago, and
/// ten of half a day ago.
fn taken_over(bills: impl Fn(i64) -> bool) -> (Rig, i64) {
    let (rig, moment) = never_served(bills);
    rig.daemon.launch();
    rig.daemon.wait_ready();
    (rig, moment)
}

/// The same before its first start.
fn never_served(bills: impl Fn(i64) -> bool) -> (Rig, i64) {
    let newapi = NewApi::start();
    newapi.add_token(Token::new(42, "alice-key").owned_by(1));
    let mut options = DaemonOptions::new().movable_clock();
    for (name, value) in Rig::settings_for(&newapi).into_iter().chain([(super::OFF.0.to_owned(), "off".to_owned())]) {
        options = options.set(&name, value);
    }
    let daemon = Daemon::prepare(options);
    daemon.books().platform_customer("u", "k", 42, 1000);
    newapi.follow(&daemon.clock());
    let moment = now_secs();
    for number in 0..20 {
        // Beyond `webhook.max_age`, where nothing is adopted by itself, and within it. Equal ones are among them.
        let days = if number < 10 { 2 * DAY_SECS } else { DAY_SECS / 2 };
        let at = moment - days + number;
        let called = newapi.call(&Call::new(42, "gpt-4", at).tokens(number / 4, 2).quota(UNITS_PER_CREDIT));
        if bills(number) {
            daemon.books().platform_bills(&billed(&called, &format!("theirs-{number}")));
        }
    }
    (Rig { newapi, daemon, user: "u".to_owned() }, moment)
}

/// What the platform books of a call: a little later, and at a price of its own.
fn billed(called: &Called, id: &str) -> PlatformCall {
    let at_millis = called.at_secs * 1000 + 2300;
    PlatformCall::new(id, "k", at_millis).tokens(called.prompt_tokens, called.completion_tokens).credits(3)
}

#[test]
fn before_a_taking_over_what_the_platform_billed_is_tied_and_the_rest_charged_when_the_sum_was_shown() {
    only_on_a_server!();
    for by in BOTH {
        let (rig, moment) = taken_over(|number| number % 5 < 3);
        synced(&rig, &[]);
        rig.advance_secs(120);
        rest(&rig, by);
        let since = time(moment - 3 * DAY_SECS);
        let refusal = refused(&rig, &["--since", &since, "--yes"], 1);
        assert!(refusal.contains("--before-takeover"), "{refusal}");
        assert_eq!(rig.charges(), 0);
        let asked = synced(&rig, &["--since", &since, "--before-takeover"]);
        let names = ["read", "charged", "credits", "tied"];
        assert_eq!(numbers(&asked, names), [20, 8, 8, 12], "{by:?}: {asked}");
        assert_eq!((rig.charges(), rig.books().balance("u")), (0, 1000 - 36), "shown, not charged");
        let charged = synced(&rig, &["--since", &since, "--before-takeover", "--yes"]);
        assert_eq!(numbers(&charged, names), [20, 8, 8, 12], "{by:?}: {charged}");
        assert_eq!(rig.books().balance("u"), 1000 - 36 - 8);
        let again = synced(&rig, &["--since", &since, "--before-takeover", "--yes"]);
        assert_eq!(numbers(&again, ["charged", "alreadyClaimed"]), [0, 20], "{again}");
        rig.books().assert_whole_beside_the_platform(0);
    }
}

#[test]
fn rows_that_were_only_read_before_a_taking_over_are_charged_when_that_is_said() {
    only_on_a_server!();
    let (rig, moment) = taken_over(|_| true);
    for number in 0..3 {
        rig.newapi.call(&Call::new(42, "gpt-4", moment - 200 + number).tokens(77, 2).quota(UNITS_PER_CREDIT));
    }
    rig.advance_secs(60);
    let passed = synced(&rig, &[]);
    assert_eq!(numbers(&passed, ["read", "charged", "ignored"]), [3, 0, 3], "within lookback they only tie: {passed}");
    let since = time(moment - 300);
    let charged = synced(&rig, &["--since", &since, "--before-takeover", "--yes"]);
    assert_eq!(numbers(&charged, ["read", "charged"]), [3, 3], "{charged}");
    assert_eq!((rig.charges(), rig.rows_in_state("before_takeover"), rig.books().balance("u")), (3, 0, 1000 - 60 - 3));
}

#[test]
fn a_first_sync_on_a_platforms_database_takes_it_over_as_a_first_start_does() {
    only_on_a_server!();
    let (rig, moment) = never_served(|_| false);
    crate::commands::fine(&rig.daemon, &["migrate"]);
    let since = time(moment - 3 * DAY_SECS);
    let refusal = refused(&rig, &["--since", &since, "--dry-run"], 1);
    assert!(refusal.contains("start it once"), "{refusal}");
    let refusal = refused(&rig, &["--since", &since, "--yes"], 1);
    assert!(refusal.contains("--before-takeover"), "{refusal}");
    assert_eq!(numbers(&synced(&rig, &[]), ["read", "charged"]), [0, 0]);
    let asked = synced(&rig, &["--since", &since, "--before-takeover", "--dry-run"]);
    assert_eq!(numbers(&asked, ["read", "charged"]), [20, 20], "{asked}");
    assert_eq!(rig.charges(), 0);
}

#[test]
fn where_nothing_was_taken_over_nothing_reaches_before_it() {
    only_on_sqlite!();
    for by in BOTH {
        let rig = unread(by);
        let refusal = refused(&rig, &["--since", "2026-01-01 00:00:00", "--before-takeover"], 1);
        assert!(refusal.contains("no platform"), "{refusal}");
    }
}
