//! What is safe on disk and not settled yet: settled by itself, also by the next start, once.

use std::time::Duration;

use serde_json::json;

use super::{REPEATED, UNITS_PER_CREDIT, assert_account, assert_answer, assert_sound, charge, customer, refused};
use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::database::is_sqlite;
use crate::kit::events::Usage;
use crate::kit::wait::wait_until;

const ACCEPTED: &str = "Event accepted, processing";

/// The Ledger's fresh batches fail; what is pending is still settled.
const NO_FRESH_BATCH: &str = "ledger.batch.before=return(error)";

/// No settlement at all begins.
const NO_SETTLEMENT: &str = "store.settle.begin=return(error)";

const PATIENCE: Duration = Duration::from_secs(20);

fn credits(event_id: &str, credits: i64, at_secs: i64) -> Usage {
    Usage::new(event_id).quota(credits * UNITS_PER_CREDIT).at_secs(at_secs)
}

fn pending_of(daemon: &Daemon) -> i64 {
    daemon.books().scalar_i64("SELECT count(*) FROM webhook_logs WHERE status = 'pending'")
}

#[track_caller]
fn wait_settled(daemon: &Daemon) {
    wait_until("nothing is pending", PATIENCE, || (pending_of(daemon) == 0).then_some(()));
}

#[test]
fn an_accepted_event_is_settled_without_a_restart() {
    let daemon = Daemon::start(DaemonOptions::new().fail_points(NO_FRESH_BATCH));
    let user = customer(&daemon, "user", 100, 1);
    let at = now_secs();
    for number in 0..5 {
        let usage = credits(&format!("evt-{number}"), 2, at);
        assert_answer(&daemon.post(usage.json()), 202, true, ACCEPTED, usage.event_id());
    }
    wait_settled(&daemon);
    assert_account(&daemon, &user, 90, 0, "after five calls of two credits");
    let logs = daemon.books().rows("SELECT DISTINCT status, errorMsg FROM webhook_logs");
    assert_eq!(json!(logs), json!([{ "status": "processed", "errorMsg": null }]));
    assert_answer(&daemon.post(credits("evt-0", 2, at).json()), 200, true, REPEATED, "evt-0");
    assert_account(&daemon, &user, 90, 0, "after a repeat");
    assert_sound(&daemon);
}

#[test]
fn a_restart_settles_what_it_finds_pending() {
    let mut daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 100, 1);
    daemon.set_environment("FAILPOINTS", NO_SETTLEMENT);
    daemon.restart();
    let at = now_secs();
    let usages: Vec<Usage> = (0..30).map(|number| credits(&format!("evt-{number}"), 1, at)).collect();
    for usage in &usages {
        assert_answer(&daemon.post(usage.json()), 202, true, ACCEPTED, usage.event_id());
    }
    assert_answer(&daemon.post(usages[0].json()), 202, true, ACCEPTED, "evt-0");
    let conflict = daemon.post(credits("evt-0", 3, at).json());
    assert_eq!(conflict.status, 409, "{}", conflict.text());
    assert_eq!((pending_of(&daemon), daemon.books().count("hookledger_claims")), (30, 0));
    assert_account(&daemon, &user, 100, 0, "nothing is charged yet");
    daemon.books().assert_whole();

    daemon.unset_environment("FAILPOINTS");
    daemon.restart();
    wait_settled(&daemon);
    assert_account(&daemon, &user, 70, 0, "after thirty calls");
    for usage in &usages {
        let inbox = daemon.books().inbox(usage.event_id());
        assert_eq!(inbox, Some(("processed".to_owned(), None)), "{}", usage.event_id());
        assert_answer(&daemon.post(usage.json()), 200, true, REPEATED, usage.event_id());
    }
    assert_account(&daemon, &user, 70, 0, "after a repeat of each");
    assert_eq!(daemon.books().count("hookledger_inbox"), 0);
    assert_sound(&daemon);
}

#[test]
fn more_than_a_batch_of_pending_events_is_settled() {
    let mut daemon = Daemon::start(DaemonOptions::new().set("HOOKLEDGER__LEDGER__MAX_BATCH", 7));
    let user = customer(&daemon, "user", 100, 1);
    daemon.set_environment("FAILPOINTS", NO_SETTLEMENT);
    daemon.restart();
    let at = now_secs();
    for number in 0..40 {
        // Every eighth has no key: it leaves the pages full of what stays.
        let token = if number % 8 == 0 { 99 } else { 1 };
        let usage = credits(&format!("evt-{number}"), 1, at).remote_key(token);
        assert_eq!(daemon.post(usage.json()).status, 202);
    }
    daemon.unset_environment("FAILPOINTS");
    daemon.restart();
    wait_settled(&daemon);
    assert_account(&daemon, &user, 65, 0, "after 35 of 40 calls");
    let failed = "SELECT count(*) FROM webhook_logs WHERE status = 'failed'
        AND errorMsg = 'API Key not found for remoteKeyId: 99'";
    assert_eq!(daemon.books().scalar_i64(failed), 5);
    assert_sound(&daemon);
}

#[test]
fn a_pending_event_is_priced_by_its_own_second() {
    let mut daemon = Daemon::start(DaemonOptions::new().movable_clock());
    let user = customer(&daemon, "user", 0, 1);
    daemon.set_environment("FAILPOINTS", NO_SETTLEMENT);
    daemon.restart();
    let at = daemon.clock().now_secs();
    assert_eq!(daemon.post(Usage::new("evt").quota(1).at_secs(at).json()).status, 202);
    // The dearer rate begins after the call, and long before it is settled.
    daemon.books().set_option("UsdToCreditsRate", "500000");
    daemon.clock().advance(Duration::from_secs(3600));
    daemon.unset_environment("FAILPOINTS");
    daemon.restart();
    wait_settled(&daemon);
    assert_account(&daemon, &user, 0, 2, "a unit at the rate of its own second");
    daemon.clock().advance(Duration::from_secs(120));
    charge(&daemon, &Usage::new("dear").quota(1).at_secs(daemon.clock().now_secs()));
    assert_account(&daemon, &user, -1, 2, "a unit at the rate of today");
    assert_sound(&daemon);
}

#[test]
fn the_guides_query_lists_failures() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 100, 1);
    for number in 0..12 {
        refused(&daemon, &credits(&format!("lost-{number}"), 1, now_secs()).remote_key(100 + number));
        charge(&daemon, &credits(&format!("fine-{number}"), 1, now_secs()));
    }
    let rows = daemon.books().rows(
        "SELECT eventId, errorMsg, createdAt FROM webhook_logs WHERE status = 'failed' ORDER BY createdAt DESC LIMIT 10",
    );
    let found: Vec<_> = rows.iter().map(|row| (row["eventId"].as_str(), row["errorMsg"].as_str())).collect();
    let newest_first = (2..12).rev().map(|number| {
        let message = format!("API Key not found for remoteKeyId: {}", 100 + number);
        (format!("lost-{number}"), message)
    });
    let expected: Vec<_> = newest_first.collect();
    let expected: Vec<_> = expected.iter().map(|(id, message)| (Some(id.as_str()), Some(message.as_str()))).collect();
    assert_eq!(found, expected);
    let stamps: Vec<_> = rows.iter().map(|row| row["createdAt"].as_str().unwrap()).collect();
    assert!(stamps.iter().all(|stamp| stamp.len() == 23), "{stamps:?}");
    assert_account(&daemon, &user, 88, 0, "after twelve calls");
    assert_sound(&daemon);
}

#[test]
fn the_guides_count_by_status_works() {
    let daemon = Daemon::start(DaemonOptions::new());
    customer(&daemon, "user", 100, 1);
    charge(&daemon, &credits("fine", 1, now_secs()));
    refused(&daemon, &credits("lost", 1, now_secs()).remote_key(2));
    // The guide's text is MySQL's; only its date arithmetic is written for SQLite.
    let an_hour_ago = if is_sqlite() { "datetime('now', '-1 hour')" } else { "DATE_SUB(NOW(), INTERVAL 1 HOUR)" };
    let rows = daemon.books().rows(&format!(
        "SELECT status, COUNT(*) as count, MAX(processedAt) as latest FROM webhook_logs
         WHERE createdAt > {an_hour_ago} GROUP BY status"
    ));
    let found: Vec<_> = rows.iter().map(|row| (row["status"].as_str(), row["count"].as_i64())).collect();
    assert_eq!(found, [(Some("failed"), Some(1)), (Some("processed"), Some(1))]);
}
