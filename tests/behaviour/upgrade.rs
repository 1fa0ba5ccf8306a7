//! A database of an earlier version goes on as if nothing had happened; one of a newer version is left alone.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::commands::{fine, migrated, ran};
use crate::kit::books::Books;
use crate::kit::clock::now_millis;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;

/// When the samples were made: 2026-11-24 12:00:00 UTC.
const MADE_AT_SECS: i64 = 1_795_521_600;

fn samples() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let samples: Vec<_> = files.filter(|path| path.extension().is_some_and(|ending| ending == "db")).collect();
    assert!(!samples.is_empty());
    samples
}

/// A daemon, not started, for which it is ten minutes later than when the samples were made.
fn prepared(sample: &Path) -> Daemon {
    let options =
        DaemonOptions { secret: "sample-secret-0123456789abcdef0123456789".to_owned(), ..DaemonOptions::new() };
    let daemon = Daemon::prepare(options.movable_clock());
    daemon.clock().set_offset_millis((MADE_AT_SECS + 600) * 1000 - now_millis());
    fs::copy(sample, daemon.database_file()).unwrap();
    daemon
}

/// The event as the sample's script sent it.
fn event(event_id: &str, token: i64, quota: i64, seconds_after: i64) -> Usage {
    Usage::new(event_id).remote_key(token).quota(quota).at_secs(MADE_AT_SECS + seconds_after)
}

fn credits(daemon: &Daemon, email: &str) -> (Value, Value) {
    let shown = daemon.command_json(&["credits", "show", email]);
    (shown["credits"].clone(), shown["remainder"].clone())
}

/// Every transaction, in the order in which they were written.
fn transactions(books: &Books) -> Vec<crate::kit::books::Row> {
    books.rows("SELECT id, userId, type, amount, balance, ref, desc, createdAt FROM credit_transactions ORDER BY id")
}

fn message(daemon: &Daemon, usage: &Usage) -> String {
    let answer = daemon.post(usage.json());
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn assert_goes_on(daemon: &Daemon) {
    daemon.launch();
    daemon.wait_ready();
    assert_eq!(credits(daemon, "alice@example.com"), (996.into(), "0.9".into()));
    assert_eq!(credits(daemon, "bob@example.com"), ((-10).into(), "0".into()));
    assert_eq!(credits(daemon, "carol@example.com"), (20.into(), "0".into()));

    let charges = daemon.books().count("hookledger_claims");
    for (event_id, token, quota, seconds_after) in
        [("charged-1", 42, 1830, 1), ("charged-2", 42, 620, 2), ("charged-3", 43, 30_000, 3), ("free-1", 43, 0, 4)]
    {
        let answer = daemon.post(event(event_id, token, quota, seconds_after).json());
        assert_eq!((answer.status, &answer.json()["success"]), (200, &true.into()), "{event_id}: {}", answer.text());
    }
    assert_eq!(daemon.post(event("charged-1", 42, 1831, 1).json()).status, 409, "the same id with other content");
    assert_eq!(daemon.books().count("hookledger_claims"), charges, "a repeat is a duplicate");
    let grant = ["credits", "grant", "--user", "bob@example.com", "--amount", "50", "--idempotency-key", "gift-1"];
    assert_eq!(daemon.command_json(&grant)["repeated"], true);

    let dead = daemon.command_json(&["events", "list", "--status", "dead"]);
    assert_eq!((dead.as_array().map(Vec::len), &dead[0]["eventId"]), (Some(1), &"dead-1".into()), "{dead}");
    assert!(message(daemon, &event("ambiguous-1", 44, 500, 6)).contains("Several users"));

    daemon.add_key("carol@example.com", 45);
    let charged = || credits(daemon, "carol@example.com").0 == 17;
    crate::kit::wait::wait_until("what waited for its key is charged", std::time::Duration::from_secs(60), || {
        charged().then_some(())
    });
    let answer = daemon.post(event("new-1", 42, 50, 500).json());
    assert_eq!(answer.json()["success"], true, "{}", answer.text());
    assert_eq!(credits(daemon, "alice@example.com"), (995.into(), "0".into()), "the remainder went on");
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
}

#[test]
fn a_database_of_an_earlier_version_goes_on() {
    only_on_sqlite!();
    for sample in samples() {
        let daemon = prepared(&sample);
        let before = transactions(&daemon.books());
        assert_goes_on(&daemon);
        let after = transactions(&daemon.books());
        assert!(before.iter().all(|row| after.contains(row)), "the history is as before");
        assert_eq!(after.len(), before.len() + 2, "two charges were added");
        let marker = fs::read_to_string(daemon.folder().join("hookledger.db.installation")).unwrap();
        let installation = "SELECT value FROM hookledger_meta WHERE name = 'installation_id'";
        assert_eq!(marker.trim(), daemon.books().scalar_text(installation), "it is remembered from now on");
    }
}

#[test]
fn a_backup_of_an_earlier_version_is_restored_and_brought_up_to_date() {
    only_on_sqlite!();
    for sample in samples() {
        let daemon = prepared(&sample);
        // Also the current program can save it, before anything is changed.
        fine(&daemon, &["backup", "before.db"]);
        // A look from outside leaves files beside it.
        for ending in ["", "-wal", "-shm"] {
            fs::remove_file(daemon.folder().join(format!("hookledger.db{ending}"))).ok();
        }
        let restored = daemon.command_json(&["restore", "before.db"]);
        assert_eq!((&restored["events"], &restored["charges"]), (&7.into(), &4.into()));
        let known = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite")).unwrap().count();
        let is_outdated = daemon.books().count("hookledger_migrations") < known as i64;
        assert_eq!(restored["isOutdated"], is_outdated);
        assert_goes_on(&daemon);
    }
}

#[test]
fn a_database_that_a_newer_version_changed_is_left_alone() {
    only_on_sqlite!();
    let daemon = migrated(DaemonOptions::new());
    daemon.add_user("user@example.com", 10);
    daemon.books().execute(
        "INSERT INTO hookledger_migrations (version, description, success, checksum, execution_time)
           SELECT 9999, 'from the future', 1, checksum, 0 FROM hookledger_migrations LIMIT 1",
    );
    let before = fs::read(daemon.database_file()).unwrap();
    let commands: [&[&str]; 9] = [
        &["serve"],
        &["migrate"],
        &["user", "list"],
        &["key", "list"],
        &["credits", "show", "user@example.com"],
        &["credits", "history", "user@example.com"],
        &["events", "list"],
        &["user", "add", "--email", "new@example.com"],
        &["backup", "copy.db"],
    ];
    for arguments in commands {
        let refused = ran(&daemon, arguments, &[]);
        assert_eq!(refused.code, 2, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains("9999") && refused.stderr.contains("version"), "{arguments:?}: {refused:?}");
        assert!(fs::read(daemon.database_file()).unwrap() == before, "{arguments:?} changed it");
    }
    assert!(!daemon.folder().join("copy.db").exists());
}
