//! `hookledger backup`: consistent while events pour in, whole or not there at all, and never in anybody's way.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::commands::{Ran, failing, fine, migrated, ran};
use crate::crashes::{usage_bodies, with_users};
use crate::kit::books::Books;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::process::run;
use crate::kit::sender::{Retry, deliver, start_delivery};
use crate::kit::wait::{pause, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

pub fn patient() -> Retry {
    Retry::until(PATIENCE, Duration::from_millis(20))
}

/// Runs `backup FILE`, which must succeed; where the file lies.
#[track_caller]
pub fn saved(daemon: &Daemon, name: &str) -> PathBuf {
    fine(daemon, &["backup", name]);
    daemon.folder().join(name)
}

/// Names in a folder that begin so.
fn names(folder: &Path, beginning: &str) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(beginning)).collect();
    names.sort();
    names
}

#[test]
fn a_backup_under_load_holds_what_was_acknowledged_and_can_go_on_elsewhere() {
    only_on_sqlite!();
    const BEFORE: usize = 300;
    const DURING: usize = 6000;
    // Paced, so that the load outlasts the backup, however slow that is.
    let daemon = Daemon::start(DaemonOptions::new().fail_points("ledger.batch.before=sleep(50)"));
    let patient = || Retry::until(Duration::from_secs(300), Duration::from_millis(20));
    with_users(&daemon);
    let before = usage_bodies(BEFORE, "before");
    deliver(daemon.address(), SECRET, before.clone(), 16, patient()).assert_all_acknowledged();
    let during = usage_bodies(DURING, "during");
    let ongoing = start_delivery(daemon.address(), SECRET, during.clone(), 32, patient());
    wait_until("the load is on", PATIENCE, || (ongoing.acknowledged() >= 200).then_some(()));
    let acknowledged = ongoing.acknowledged() as i64;
    let backup = saved(&daemon, "first.db");
    assert!(!ongoing.is_finished(), "the load went on during the backup");
    let copy = Books::at(&backup);
    let events = copy.count("webhook_logs");
    assert!(events >= BEFORE as i64 + acknowledged, "{events} events, {acknowledged} of the load were acknowledged");
    assert!(events < (BEFORE + DURING) as i64, "of one instant, in the middle");
    assert_eq!(copy.scalar_i64("SELECT count(*) FROM webhook_logs WHERE eventId LIKE 'before-%'"), BEFORE as i64);
    copy.assert_whole();
    copy.assert_carried_exactly();
    ongoing.finish().assert_all_acknowledged();
    daemon.books().assert_whole();

    let elsewhere = Daemon::prepare(DaemonOptions::new());
    fine(&elsewhere, &["restore", &backup.display().to_string()]);
    elsewhere.books().assert_whole();
    elsewhere.launch();
    elsewhere.wait_ready();
    // Everything again: what the backup has is a repeat, the rest is charged.
    let bodies = [before, during].concat();
    deliver(elsewhere.address(), SECRET, bodies, 32, patient()).assert_all_acknowledged();
    let books = elsewhere.books();
    wait_until("nothing is pending", PATIENCE, || (books.count("hookledger_inbox") == 0).then_some(()));
    assert_eq!(books.count("hookledger_claims"), (BEFORE + DURING) as i64);
    assert_eq!(books.credits_moved(), daemon.books().credits_moved(), "both came to the same");
    books.assert_whole();
    books.assert_carried_exactly();
}

#[test]
fn what_was_saved_is_told_to_people_and_programs() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new());
    let told = daemon.command_json(&["backup", "empty.db"]);
    assert_eq!((&told["events"], &told["newestEvent"]), (&0.into(), &serde_json::Value::Null));
    with_users(&daemon);
    deliver(daemon.address(), SECRET, usage_bodies(7, "told"), 1, patient()).assert_all_acknowledged();
    let told = daemon.command_json(&["backup", "told.db"]);
    let file = daemon.folder().join("told.db");
    let installation = daemon.books().scalar_text("SELECT value FROM hookledger_meta WHERE name = 'installation_id'");
    let newest = daemon.books().scalar_text("SELECT max(createdAt) FROM webhook_logs");
    let metadata = fs::metadata(&file).unwrap();
    let expected = serde_json::json!({ "file": file, "bytes": metadata.len(), "installation": installation,
        "events": 7, "charges": 7, "newestEvent": "told-6", "newestEventAt": newest });
    assert_eq!(told, expected);
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(names(daemon.folder(), "told.db"), ["told.db"], "nothing beside it");
    let facts = fine(&daemon, &["backup", "facts.db"]);
    let words = ["facts.db", &installation, "told-6", &newest];
    assert!(words.iter().all(|word| facts.contains(word)), "{facts}");
}

#[test]
fn a_backup_needs_no_daemon_and_leaves_nothing_beside_the_database() {
    only_on_sqlite!();
    let daemon = migrated(DaemonOptions::new());
    daemon.add_user("user@example.com", 10);
    let before = names(daemon.folder(), "hookledger.db");
    let backup = saved(&daemon, "copy.db");
    assert_eq!(Books::at(&backup).count("users"), 1);
    assert_eq!(names(daemon.folder(), "hookledger.db"), before);
}

#[test]
fn a_backup_overwrites_nothing() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new());
    let folder = daemon.folder();
    fs::write(folder.join("mine.txt"), "a diary").unwrap();
    std::os::unix::fs::symlink("hookledger.db", folder.join("link.db")).unwrap();
    std::os::unix::fs::symlink("nowhere/at/all", folder.join("dangling.db")).unwrap();
    let before = names(folder, "");
    let own = ["hookledger.db", "link.db", "hookledger.db-wal", "hookledger.db-shm", "hookledger.db-journal"];
    let others = ["mine.txt", ".", "dangling.db", "no/such/folder/copy.db"];
    for name in own.iter().chain(&["hookledger.db.lock", "hookledger.db.installation"]).chain(&others) {
        let complaint = failing(&daemon, &["backup", name], 1);
        assert!(complaint.contains("name a") || complaint.contains("cannot be written"), "{name}: {complaint}");
    }
    assert_eq!(names(folder, ""), before, "nothing was made");
    assert_eq!(fs::read_to_string(folder.join("mine.txt")).unwrap(), "a diary");
    daemon.add_user("user@example.com", 10);
    daemon.books().assert_whole();
}

#[test]
fn a_backup_that_was_killed_leaves_at_most_a_partial_file_which_the_next_one_replaces() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new());
    with_users(&daemon);
    for point in ["store.backup.begun", "store.backup.copied"] {
        let fault = format!("{point}=return(kill)");
        let killed = ran(&daemon, &["backup", "copy.db"], &[("FAILPOINTS", &fault)]);
        assert_eq!(killed.code, 128 + 6, "{point}: {killed:?}");
        assert_eq!(names(daemon.folder(), "copy.db"), ["copy.db.partial"], "{point}");
        // As SQLite leaves it when it is killed in the middle.
        fs::write(daemon.folder().join("copy.db.partial-journal"), "half a page").unwrap();
        let backup = saved(&daemon, "copy.db");
        assert_eq!(names(daemon.folder(), "copy.db"), ["copy.db"], "{point}");
        Books::at(&backup).assert_whole();
        fs::remove_file(backup).unwrap();
    }
}

#[test]
fn a_backup_that_fails_leaves_nothing() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new());
    for point in ["store.backup.begun", "store.backup.copied"] {
        let fault = format!("{point}=return(error)");
        let Ran { code, stderr, .. } = ran(&daemon, &["backup", "copy.db"], &[("FAILPOINTS", &fault)]);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("copy.db") && stderr.contains("nothing was left"), "{stderr}");
        assert!(names(daemon.folder(), "copy.db").is_empty(), "{point}");
    }
    // A disk on which one page fits, as the program meets it.
    let script = format!("ulimit -f 8; exec {} backup copy.db", env!("CARGO_BIN_EXE_hookledger"));
    let mut limited = Command::new("bash");
    limited.args(["-c", &format!("trap '' XFSZ; {script}")]).current_dir(daemon.folder());
    limited.env("HOOKLEDGER__DATABASE__URL", format!("sqlite://{}", daemon.database_file().display()));
    let output = run(&mut limited, b"", PATIENCE);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("copy.db") && stderr.contains("nothing was left"), "{stderr}");
    assert!(names(daemon.folder(), "copy.db").is_empty());
    saved(&daemon, "copy.db");
}

#[test]
fn two_backups_to_one_name_do_not_mix() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new());
    let slow = [("FAILPOINTS", "store.backup.begun=sleep(8000)")];
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ran(&daemon, &["backup", "copy.db"], &slow));
        let partial = daemon.folder().join("copy.db.partial");
        wait_until("the first has begun", PATIENCE, || partial.exists().then_some(()));
        assert!(failing(&daemon, &["backup", "copy.db"], 1).contains("under way"));
        let first = first.join().unwrap();
        assert_eq!(first.code, 0, "{first:?}");
    });
    assert_eq!(names(daemon.folder(), "copy.db"), ["copy.db"]);
    Books::at(&daemon.folder().join("copy.db")).assert_whole();
}

/// Events in the database file itself, without what only the write-ahead log has; none while the file is being changed.
pub fn folded_events(daemon: &Daemon) -> Option<i64> {
    let file = format!("file:{}?immutable=1", daemon.database_file().display());
    let mut command = Command::new("sqlite3");
    command.args(["-readonly", &file, "SELECT count(*) FROM webhook_logs"]);
    let output = run(&mut command, b"", PATIENCE);
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

#[test]
fn the_write_ahead_log_recovers_from_a_long_look() {
    only_on_sqlite!();
    const EVENTS: usize = 400;
    let daemon = Daemon::start(DaemonOptions::new());
    with_users(&daemon);
    // As long as this looks at one instant, as a backup does, nothing newer is folded.
    let mut command = Command::new("sqlite3");
    command.arg(daemon.database_file()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut look = command.spawn().unwrap();
    let mut statements = look.stdin.take().unwrap();
    statements.write_all(b"BEGIN; SELECT count(*) FROM webhook_logs;\n").unwrap();
    let mut first_byte = [0u8];
    look.stdout.as_mut().unwrap().read_exact(&mut first_byte).unwrap();
    assert_eq!(&first_byte, b"0");
    deliver(daemon.address(), SECRET, usage_bodies(EVENTS, "log"), 8, patient()).assert_all_acknowledged();
    // Long enough for the daemon to try in vain.
    pause(Duration::from_secs(1));
    assert!(folded_events(&daemon).is_none_or(|events| events < EVENTS as i64), "the log holds them");
    drop(statements);
    look.wait().unwrap();
    // No further commit is needed: the daemon's next own one is a look that it takes once a minute.
    wait_until("everything is folded", PATIENCE / 3, || (folded_events(&daemon) == Some(EVENTS as i64)).then_some(()));
    daemon.books().assert_whole();
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(names(daemon.folder(), "hookledger.db-"), Vec::<String>::new(), "a stopped daemon leaves no log");
}
