//! A ledger that vanished is never replaced by a fresh one, and a first start that was cut off is no such ledger.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::commands::{failing, fine, migrated, ran};
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

fn marker(daemon: &Daemon) -> PathBuf {
    daemon.folder().join("hookledger.db.installation")
}

fn installation(daemon: &Daemon) -> String {
    daemon.books().scalar_text("SELECT value FROM hookledger_meta WHERE name = 'installation_id'")
}

/// What lies where the database should be.
fn found(daemon: &Daemon) -> Option<Vec<u8>> {
    fs::read(daemon.database_file()).ok()
}

/// Neither `serve` nor `migrate` goes on, and neither changes what is there.
#[track_caller]
fn assert_lost(daemon: &Daemon, what: &str) {
    let before = found(daemon);
    for arguments in [["migrate"], ["serve"]] {
        let refused = ran(daemon, &arguments, &[]);
        assert_eq!(refused.code, 3, "{arguments:?} where the database {what}: {refused:?}");
        let file = marker(daemon).display().to_string();
        let words = [what, "hookledger restore", &file];
        assert!(words.iter().all(|word| refused.stderr.contains(word)), "it says {words:?}: {refused:?}");
        assert!(found(daemon) == before, "{arguments:?} left alone what {what}");
    }
    for arguments in [&["user", "list"] as &[&str], &["user", "add", "--email", "a@example.com"]] {
        assert!(failing(daemon, arguments, 3).contains(what));
        assert!(found(daemon) == before, "{arguments:?} left alone what {what}");
    }
}

#[test]
fn a_lost_ledger_is_not_replaced_by_an_empty_one() {
    only_on_sqlite!();
    let daemon = migrated(DaemonOptions::new());
    daemon.add_user("user@example.com", 10);
    let (database, kept) = (daemon.database_file(), daemon.folder().join("kept.db"));
    fs::rename(database, &kept).unwrap();
    assert_lost(&daemon, "is missing");
    File::create(database).unwrap();
    assert_lost(&daemon, "is an empty file");
    fs::remove_file(database).unwrap();
    sqlite(database, "CREATE TABLE notes (text TEXT)");
    assert_lost(&daemon, "has no tables of hookledger");
    fs::copy(&kept, database).unwrap();
    sqlite(database, "DELETE FROM hookledger_meta WHERE name = 'installation_id'");
    assert_lost(&daemon, "has no installation id");
    fs::copy(&kept, database).unwrap();
    daemon.launch();
    daemon.wait_ready();
    assert_eq!(daemon.books().count("users"), 1, "the right one is accepted again");
}

#[test]
fn a_write_ahead_log_beside_an_emptied_ledger_is_kept_for_a_person() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new());
    daemon.add_user("user@example.com", 10);
    daemon.kill();
    let log = daemon.folder().join("hookledger.db-wal");
    let before = fs::read(&log).unwrap();
    assert!(!before.is_empty());
    File::create(daemon.database_file()).unwrap();
    assert_lost(&daemon, "is an empty file");
    assert!(fs::read(&log).unwrap() == before);
}

#[test]
fn another_database_in_its_place_is_refused_until_a_person_says_that_it_is_meant() {
    only_on_sqlite!();
    let (daemon, other) = (migrated(DaemonOptions::new()), migrated(DaemonOptions::new()));
    let (own, others) = (installation(&daemon), installation(&other));
    fs::copy(other.database_file(), daemon.database_file()).unwrap();
    for arguments in [["migrate"], ["serve"]] {
        let refused = ran(&daemon, &arguments, &[]);
        assert_eq!(refused.code, 3, "{refused:?}");
        let file = marker(&daemon).display().to_string();
        let words = [own.as_str(), &others, &file];
        assert!(words.iter().all(|word| refused.stderr.contains(word)), "it says {words:?}: {refused:?}");
    }
    assert_eq!(installation(&daemon), others, "nothing was changed");
    fs::remove_file(marker(&daemon)).unwrap();
    fine(&daemon, &["migrate"]);
    assert_eq!(fs::read_to_string(marker(&daemon)).unwrap().trim(), others);
}

#[test]
fn without_its_marker_a_ledger_begins_anew() {
    only_on_sqlite!();
    let daemon = migrated(DaemonOptions::new());
    let first = installation(&daemon);
    fs::remove_file(daemon.database_file()).unwrap();
    fs::remove_file(marker(&daemon)).unwrap();
    daemon.launch();
    daemon.wait_ready();
    let second = installation(&daemon);
    assert_ne!(first, second);
    assert_eq!(fs::read_to_string(marker(&daemon)).unwrap().trim(), second);
    assert_eq!(fs::metadata(marker(&daemon)).unwrap().permissions().mode() & 0o777, 0o600);
}

/// The next start of a daemon whose first one was cut off.
#[track_caller]
fn assert_starts(daemon: &mut Daemon, cut_off: &str) {
    daemon.unset_environment("FAILPOINTS");
    daemon.launch();
    daemon.wait_ready();
    daemon.add_user("user@example.com", 10);
    assert_eq!(fs::read_to_string(marker(daemon)).unwrap().trim(), installation(daemon), "{cut_off}");
    daemon.books().assert_whole();
    let names = fs::read_dir(daemon.folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let drafts: Vec<_> = names.filter(|name| name.to_string_lossy().contains("draft")).collect();
    assert!(drafts.is_empty(), "{cut_off}: {drafts:?}");
}

#[test]
fn a_first_start_that_was_cut_off_is_no_lost_ledger() {
    only_on_sqlite!();
    for point in ["store.migrate.tables", "store.marker.before", "store.marker.written"] {
        let mut daemon = Daemon::prepare(DaemonOptions::new().fail_points(&format!("{point}=return(kill)")));
        daemon.launch();
        assert!(daemon.wait_exit(PATIENCE).is_some(), "{point} was passed");
        assert!(!marker(&daemon).exists(), "{point}");
        assert_starts(&mut daemon, point);
    }
    for ending in [".lock", "", "-wal", ".installation"] {
        let mut daemon = Daemon::prepare(DaemonOptions::new());
        daemon.launch();
        let awaited = daemon.folder().join(format!("hookledger.db{ending}"));
        wait_until("the start got that far", PATIENCE, || awaited.exists().then_some(()));
        daemon.kill();
        assert_starts(&mut daemon, ending);
    }
}

fn sqlite(file: &Path, sql: &str) {
    let status = std::process::Command::new("sqlite3").arg(file).arg(sql).status().unwrap();
    assert!(status.success());
}
