//! A sync at a terminal: a bar while it reads, and a question before it charges what nobody asked to bill.

use super::{BOTH, By, calls, rest, time, unread};
use crate::kit::clock::now_secs;
use crate::two_channels::{DAY_SECS, Rig};

/// Three calls of yesterday, which nobody charges by himself.
fn with_history(by: By) -> (Rig, String) {
    let rig = unread(By::Daemon);
    calls(&rig, 42, now_secs() - DAY_SECS, 3);
    rest(&rig, by);
    (rig, time(now_secs() - 2 * DAY_SECS))
}

#[test]
fn a_person_is_asked_before_history_is_charged_and_says_yes() {
    only_on_sqlite!();
    for by in BOTH {
        let (rig, since) = with_history(by);
        let seen = rig.daemon.at_a_terminal(&["sync", "--since", &since], "y\n");
        assert!(seen.text.contains("3 calls of 3 credits would be charged. Charge them now?"), "{by:?}: {seen:?}");
        assert!(seen.text.contains("% of the time"), "a bar: {by:?}: {seen:?}");
        let charged = seen.text.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == ["charged", "3"]);
        assert!(charged && !seen.text.contains("--yes"), "{by:?}: {seen:?}");
        assert_eq!((seen.code, rig.charges()), (Some(0), 3), "{by:?}");
        rig.assert_billed(3);
    }
}

#[test]
fn nothing_is_charged_where_a_person_says_anything_but_yes() {
    only_on_sqlite!();
    let (rig, since) = with_history(By::Daemon);
    for typed in ["n\n", "\n", "yesterday\n", ""] {
        let seen = rig.daemon.at_a_terminal(&["sync", "--since", &since], typed);
        assert!(seen.text.contains("Charge them now?"), "{typed:?}: {seen:?}");
        assert!(seen.text.contains("Nothing was charged yet") && seen.text.contains("--yes"), "{typed:?}: {seen:?}");
        assert_eq!((seen.code, rig.charges()), (Some(0), 0), "{typed:?}");
    }
    for arguments in [&["sync", "--since", &since, "--dry-run"][..], &["sync", "--since", &since, "--json"]] {
        let seen = rig.daemon.at_a_terminal(arguments, "y\n");
        assert!(!seen.text.contains("Charge them now?"), "{arguments:?}: {seen:?}");
        assert_eq!((seen.code, rig.charges()), (Some(0), 0), "{arguments:?}");
    }
}

#[test]
fn a_refusal_at_a_terminal_is_a_sentence_and_leaves_no_bar() {
    let (rig, _) = with_history(By::Daemon);
    let seen = rig.daemon.at_a_terminal(&["sync", "--key", "nobodys"], "");
    assert_eq!(seen.code, Some(1), "{seen:?}");
    let last = seen.text.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("nobodys") && last.contains("key list"), "{seen:?}");
}
