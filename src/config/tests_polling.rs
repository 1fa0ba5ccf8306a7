//! When and how far the log is read: what is accepted, and which combinations are refused.

use super::tests::{Folder, load_here};
use super::tests_problems::{problems_of, warnings_of};
use super::*;
use crate::domain::time::UnixMillis;

fn polling_of(text: &str) -> PollingSettings {
    let folder = Folder::new();
    load_here(Some(&folder.file("polling.toml", text, 0o600)), &[]).unwrap().settings.polling
}

#[test]
fn cron_expressions_of_five_fields_begin_at_second_0() {
    // 2026-11-24 22:19:49 UTC, a Tuesday.
    let last = UnixMillis::new(1_795_558_789_000);
    for (written, due_after_secs) in
        [("*/5 * * * *", 11), ("30 */5 * * * *", 41), (" 0  4 * * MON-FRI ", 5 * 3600 + 40 * 60 + 11)]
    {
        let cron = polling_of(&format!("polling.cron = \"{written}\"")).cron.unwrap();
        let is_due = |secs: u64| cron.is_due(Some(last), last.plus(std::time::Duration::from_secs(secs)));
        assert!(is_due(due_after_secs) && !is_due(due_after_secs - 1), "{written}");
        assert!(!cron.is_due(None, last), "nothing was missed before the first run");
    }
    for written in ["", "5m", "* * * *", "61 * * * *", "* * * * * * *", "every day at 4 o'clock"] {
        let problems = problems_of(&format!("polling.cron = \"{written}\""));
        assert!(problems.contains("must be a cron expression of five fields"), "{written}: {problems}");
    }
    let both = problems_of("polling.cron = \"*/5 * * * *\"\npolling.interval = \"5m\"");
    assert!(both.contains("polling.cron") && both.contains("keep one of the two"), "{both}");
}

#[test]
fn reading_begins_now_or_at_a_time() {
    let at = StartFrom::At(UnixMillis::new(1_795_558_789_000));
    for written in ["\"2026-11-24 22:19:49\"", "\"2026-11-25T06:19:49+08:00\"", "2026-11-24T22:19:49Z"] {
        assert_eq!(polling_of(&format!("polling.start_from = {written}")).start_from, at, "{written}");
    }
    assert_eq!(polling_of("polling.start_from = \"NOW\"").start_from, StartFrom::Now);
    for written in ["\"yesterday\"", "1795558789", "\"1960-01-01 00:00:00\""] {
        let problems = problems_of(&format!("polling.start_from = {written}"));
        assert!(problems.contains("polling.start_from"), "{written}: {problems}");
    }
}

#[test]
fn modes_are_words_and_pulling_needs_a_source() {
    assert_eq!(polling_of("polling.mode = \"off\"").mode, PollingMode::Off);
    assert!(problems_of("polling.mode = \"on\"").contains("\"auto\", \"pull\", \"off\""));
    let pull = "polling.mode = \"pull\"\n";
    assert!(problems_of(pull).contains("polling.mode") && problems_of(pull).contains("newapi.base_url"));
    let source = "[newapi]\nbase_url = \"http://new-api:3000\"\naccess_token = \"t\"\nuser_id = 1";
    assert_eq!(problems_of(&format!("{pull}{source}")), "");
}

#[test]
fn windows_that_contradict_each_other_are_refused() {
    for (text, message) in [
        ("match_window = \"16m\"", "polling.match_window ("),
        ("dispute_window = \"59s\"", "must not be longer than polling.dispute_window, 59s; got 1m"),
        ("settle_delay = \"11m\"", "must not be longer than polling.lookback, 10m; got 11m"),
        ("lookback = \"1d\"\nrecheck = \"23h\"", "must not be longer than polling.recheck, 23h; got 1d"),
        ("stale_loss = 1.01", "between 0 and 1"),
        ("pull_interval = \"999ms\"", "between 1s and 1h"),
        ("probe_interval = 60", "must be a duration"),
        ("cron = 5", "must be text in quotes"),
    ] {
        let problems = problems_of(&format!("[polling]\n{text}"));
        assert!(problems.contains(message) && problems.lines().count() == 1, "{text}: {problems:?}");
    }
    let warnings = warnings_of("polling.recheck = \"23h\"");
    assert!(warnings.len() == 1 && warnings[0].contains("polling.recheck is 23h"), "{warnings:?}");
}

#[test]
fn claims_outlive_every_second_look() {
    // A day, two days, seven days.
    for (text, least) in [
        ("claims = \"10d\"", "10d"),
        ("claims = \"11d\"\n[polling]\nrecheck = \"3d\"", "11d"),
        ("claims = \"33d\"\n[polling]\nfull_read_interval = \"30d\"", "33d"),
    ] {
        let problems = problems_of(&format!("[retention]\ndead = \"1d\"\n{text}"));
        let message = format!("polling.full_read_interval together, {least}; got {least}");
        assert!(problems.contains("retention.claims") && problems.contains(&message), "{text}: {problems}");
    }
    assert_eq!(problems_of("[retention]\ndead = \"1d\"\nclaims = \"11d\""), "");
    let shorter =
        "[retention]\ndead = \"1d\"\nclaims = \"4d\"\n[polling]\nfull_read_interval = \"1d\"\nrecheck = \"25h\"";
    assert_eq!(problems_of(shorter), "");
}
