//! `hookledger restore`: puts a backup where no database is, and refuses whatever would mix or lose anything.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::backup::saved;
use crate::commands::{Ran, failing, fine, migrated, ran};
use crate::kit::books::Books;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::kit::process::run;

/// A daemon that was stopped, and what was saved of it: one user with 10 credits and token 1.
fn stopped_with_backup() -> (Daemon, String) {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = daemon.add_user("user@example.com", 10);
    daemon.add_key(&user, 1);
    assert_eq!(daemon.post(Usage::new("first").quota(1500).json()).status, 200);
    let backup = saved(&daemon, "backup.db").display().to_string();
    assert_eq!(daemon.terminate(), 0);
    (daemon, backup)
}

/// Takes the database away, with what a look from outside leaves beside it.
fn remove_database(daemon: &Daemon) {
    for ending in ["", "-wal", "-shm"] {
        fs::remove_file(daemon.folder().join(format!("hookledger.db{ending}"))).ok();
    }
}

/// Nothing of a restore was left at the daemon's place.
#[track_caller]
fn assert_untouched(daemon: &Daemon, before: Option<&[u8]>) {
    assert!(fs::read(daemon.database_file()).ok().as_deref() == before, "what is there is as it was");
    assert!(!daemon.folder().join("hookledger.db.restoring").exists(), "no draft");
}

#[test]
fn a_lost_database_comes_back() {
    only_on_sqlite!();
    let (daemon, backup) = stopped_with_backup();
    let installation = daemon.books().scalar_text("SELECT value FROM hookledger_meta WHERE name = 'installation_id'");
    remove_database(&daemon);
    assert_eq!(ran(&daemon, &["serve"], &[]).code, 3);
    let restored = daemon.command_json(&["restore", &backup]);
    let expected = serde_json::json!({ "database": daemon.database_file(), "installation": installation,
        "bytes": fs::metadata(&backup).unwrap().len(), "events": 1, "charges": 1, "newestEvent": "first",
        "newestEventAt": daemon.books().scalar_text("SELECT createdAt FROM webhook_logs"), "isOutdated": false });
    assert_eq!(restored, expected);
    assert_eq!(fs::metadata(daemon.database_file()).unwrap().permissions().mode() & 0o777, 0o600);
    daemon.launch();
    daemon.wait_ready();
    assert_eq!(daemon.post(Usage::new("second").quota(500).json()).status, 200);
    let user = daemon.books().scalar_text("SELECT id FROM users");
    assert_eq!(daemon.books().balance(&user), 6);
    daemon.books().assert_whole();
}

#[test]
fn a_backup_goes_to_a_folder_that_is_not_there_yet() {
    only_on_sqlite!();
    let (_stopped, backup) = stopped_with_backup();
    let url = "sqlite://{folder}/not/there/yet.db";
    let daemon = Daemon::prepare(DaemonOptions::new().set("HOOKLEDGER__DATABASE__URL", url));
    let told = fine(&daemon, &["restore", &backup]);
    let database = daemon.folder().join("not/there/yet.db");
    assert!(told.contains(&database.display().to_string()) && told.contains("first"), "{told}");
    assert!(daemon.folder().join("not/there/yet.db.installation").exists());
    assert_eq!(Books::at(&database).count("users"), 1);
    daemon.launch();
    daemon.wait_ready();
}

#[test]
fn nothing_is_overwritten_or_mixed() {
    only_on_sqlite!();
    let (daemon, backup) = stopped_with_backup();
    let restore = ["restore", backup.as_str()];
    let before = fs::read(daemon.database_file()).unwrap();
    let complaint = failing(&daemon, &restore, 1);
    assert!(complaint.contains("move away") && complaint.contains("hookledger.db"), "{complaint}");
    assert_untouched(&daemon, Some(&before));
    fs::write(daemon.database_file(), "").unwrap();
    assert!(failing(&daemon, &restore, 1).contains("move away"), "an emptied file is for a person to look at");
    assert_untouched(&daemon, Some(b""));
    fs::remove_file(daemon.database_file()).unwrap();
    for ending in ["-wal", "-shm", "-journal"] {
        let left_over = daemon.folder().join(format!("hookledger.db{ending}"));
        fs::write(&left_over, "what a crash left").unwrap();
        let complaint = failing(&daemon, &restore, 1);
        assert!(complaint.contains(&left_over.display().to_string()), "{complaint}");
        assert_untouched(&daemon, None);
        fs::remove_file(left_over).unwrap();
    }
    fine(&daemon, &restore);
}

#[test]
fn a_running_daemon_is_not_restored_under() {
    only_on_sqlite!();
    let (daemon, backup) = stopped_with_backup();
    daemon.launch();
    daemon.wait_ready();
    // Even if somebody took its file away.
    let moved = daemon.folder().join("moved.db");
    fs::rename(daemon.database_file(), &moved).unwrap();
    let complaint = failing(&daemon, &["restore", &backup], 1);
    assert!(complaint.contains(&format!("pid {}", daemon.pid())), "{complaint}");
    assert_untouched(&daemon, None);
    fs::rename(&moved, daemon.database_file()).unwrap();
}

/// Runs statements on a database file.
fn sqlite(file: &Path, sql: &str) {
    let output = run(std::process::Command::new("sqlite3").arg(file).arg(sql), b"", std::time::Duration::from_secs(30));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_no_good_backup_is_refused_before_anything_is_made() {
    only_on_sqlite!();
    let (stopped, backup) = stopped_with_backup();
    let daemon = Daemon::prepare(DaemonOptions::new());
    let file = |name: &str| stopped.folder().join(name);
    fs::write(file("text"), "these are the books of somebody else\n".repeat(200)).unwrap();
    fs::write(file("empty"), "").unwrap();
    sqlite(&file("foreign"), "CREATE TABLE notes (text TEXT)");
    fs::copy(&backup, file("anonymous")).unwrap();
    sqlite(&file("anonymous"), "DELETE FROM hookledger_meta WHERE name = 'installation_id'");
    fs::copy(&backup, file("newer")).unwrap();
    Books::at(&file("newer")).insert_newer_version();
    fs::copy(&backup, file("in-use")).unwrap();
    fs::write(file("in-use-wal"), "the newest events").unwrap();
    let mut bytes = fs::read(&backup).unwrap();
    let whole = bytes.len();
    bytes.truncate(whole - 4096);
    fs::write(file("cut-off"), &bytes).unwrap();
    for (name, word) in [
        ("text", "no hookledger database"),
        ("empty", "no hookledger database"),
        ("foreign", "no hookledger database"),
        ("anonymous", "no installation id"),
        (".", "no hookledger database"),
        ("newer", "another version"),
        ("in-use", "hookledger backup"),
        ("cut-off", "damaged"),
    ] {
        let complaint = failing(&daemon, &["restore", &file(name).display().to_string()], 2);
        assert!(complaint.contains(word), "{name} is refused for {word:?}: {complaint}");
        assert_untouched(&daemon, None);
    }
    let complaint = failing(&daemon, &["restore", "/nonexistent/backup.db"], 1);
    assert!(complaint.contains("/nonexistent/backup.db"), "{complaint}");
    fine(&daemon, &["restore", &backup]);
}

#[test]
fn a_page_that_rotted_is_found() {
    only_on_sqlite!();
    let (_stopped, backup) = stopped_with_backup();
    let bytes = fs::read(&backup).unwrap();
    let daemon = Daemon::prepare(DaemonOptions::new());
    // Tables that are counted, and some that nothing reads but a check from end to end.
    for table in ["webhook_logs", "usage_records", "credit_transactions"] {
        let root = format!("SELECT rootpage FROM sqlite_master WHERE name = '{table}'");
        fs::write(&backup, &bytes).unwrap();
        let page = usize::try_from(Books::at(Path::new(&backup)).scalar_i64(&root)).unwrap() - 1;
        let mut rotted = bytes.clone();
        rotted[page * 4096..(page + 1) * 4096].fill(0x5a);
        fs::write(&backup, rotted).unwrap();
        let complaint = failing(&daemon, &["restore", &backup], 2);
        assert!(complaint.contains("damaged"), "{table}: {complaint}");
        assert_untouched(&daemon, None);
    }
}

#[test]
fn the_backup_of_another_installation_takes_no_lost_ones_place() {
    only_on_sqlite!();
    let (_stopped, backup) = stopped_with_backup();
    let daemon = migrated(DaemonOptions::new());
    fs::remove_file(daemon.database_file()).unwrap();
    let complaint = failing(&daemon, &["restore", &backup], 1);
    let marker = daemon.folder().join("hookledger.db.installation");
    assert!(complaint.contains(&marker.display().to_string()), "{complaint}");
    assert_untouched(&daemon, None);
    fs::remove_file(marker).unwrap();
    fine(&daemon, &["restore", &backup]);
    daemon.launch();
    daemon.wait_ready();
}

#[test]
fn a_database_that_was_copied_whole_is_as_good_as_a_backup() {
    only_on_sqlite!();
    let (stopped, _) = stopped_with_backup();
    let daemon = Daemon::prepare(DaemonOptions::new());
    fine(&daemon, &["restore", &stopped.database_file().display().to_string()]);
    daemon.launch();
    daemon.wait_ready();
    assert_eq!(daemon.books().count("users"), 1);
}

#[test]
fn a_restore_that_was_killed_can_be_repeated() {
    only_on_sqlite!();
    for point in ["store.restore.begun", "store.restore.copied", "store.restore.placed", "store.marker.before"] {
        let (_stopped, backup) = stopped_with_backup();
        let daemon = Daemon::prepare(DaemonOptions::new());
        let fault = format!("{point}=return(kill)");
        let Ran { code, stderr, .. } = ran(&daemon, &["restore", &backup], &[("FAILPOINTS", &fault)]);
        assert_eq!(code, 128 + 6, "{point}: {stderr}");
        if daemon.database_file().exists() {
            assert!(point == "store.restore.placed" || point == "store.marker.before", "{point}: whole or not at all");
        } else {
            fine(&daemon, &["restore", &backup]);
        }
        assert!(!daemon.folder().join("hookledger.db.restoring").exists(), "{point}");
        daemon.launch();
        daemon.wait_ready();
        daemon.books().assert_whole();
        assert_eq!(daemon.books().count("hookledger_claims"), 1, "{point}");
    }
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    only_on_sqlite!();
    let (_stopped, backup) = stopped_with_backup();
    let daemon = Daemon::prepare(DaemonOptions::new());
    for point in ["store.restore.begun", "store.restore.copied"] {
        let fault = format!("{point}=return(error)");
        assert_eq!(ran(&daemon, &["restore", &backup], &[("FAILPOINTS", &fault)]).code, 1);
        assert_untouched(&daemon, None);
    }
    fine(&daemon, &["restore", &backup]);
}
