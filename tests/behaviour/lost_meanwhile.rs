//! The files of the embedded database vanish, or turn into others, under the running daemon: it says so and takes nothing
//! more, makes nothing in their place, and goes on with the very files that it had.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backup::folded_events;
use crate::commands::{migrated, ran};
use crate::crashes::assert_charged_once;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::kit::strace::Fault;
use crate::kit::wait::{pause, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);
const JUNK_BYTES: usize = 1 << 20;

/// A daemon that has charged an event, and the event.
fn charged() -> (Daemon, String) {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, 1);
    let before = event("before");
    assert_eq!(daemon.post(&before).status, 200);
    (daemon, before)
}

fn event(id: &str) -> String {
    Usage::new(id).remote_key(1).quota(700).json()
}

fn part(daemon: &Daemon, ending: &str) -> PathBuf {
    daemon.folder().join(format!("hookledger.db{ending}"))
}

fn junk() -> Vec<u8> {
    b"these are no books".iter().copied().cycle().take(JUNK_BYTES).collect()
}

fn wait_told(daemon: &Daemon, words: &str) {
    wait_until(&format!("it says {words:?}"), PATIENCE, || daemon.output().stderr.contains(words).then_some(()));
}

/// The next event is refused, and everybody who asks is told why.
#[track_caller]
fn assert_refused(daemon: &Daemon, id: &str, why: &str) {
    let answer = daemon.post(event(id));
    assert_eq!(answer.status, 503, "{why}: {}", answer.text());
    assert!(!daemon.is_ready(), "{why}");
    wait_told(daemon, why);
    let status = || daemon.command_json(&["status"]).to_string();
    wait_until(&format!("status says {why:?}"), PATIENCE, || status().contains(why).then_some(()));
}

/// What was not acknowledged meanwhile is charged by its repetition, and nobody was restarted.
#[track_caller]
fn assert_goes_on(daemon: &Daemon, pid: u32, id: &str, events: i64) {
    wait_until("it is ready again", PATIENCE, || daemon.is_ready().then_some(()));
    assert_eq!(daemon.post(event(id)).status, 200);
    assert_eq!(daemon.pid(), pid);
    assert_charged_once(&daemon.books(), events);
}

/// Puts something in the place of the database; the other way leaves the place empty.
type Replacing = fn(&Path);

const IN_ITS_PLACE: [(&str, Replacing); 4] = [
    ("nothing", |_| ()),
    ("an empty file", |place| drop(File::create(place).unwrap())),
    ("junk", |place| fs::write(place, junk()).unwrap()),
    ("another ledger", |place| {
        let other = migrated(DaemonOptions::new());
        fs::copy(other.database_file(), place).unwrap();
    }),
];

#[test]
fn a_database_that_was_taken_away_is_missed_at_once_and_taken_back() {
    only_on_sqlite!();
    let (daemon, _) = charged();
    let (pid, database, kept) = (daemon.pid(), daemon.database_file(), daemon.folder().join("kept.db"));
    for (round, (what, replace)) in IN_ITS_PLACE.into_iter().enumerate() {
        fs::rename(database, &kept).unwrap();
        replace(database);
        let found = fs::read(database).ok();
        let id = format!("during-{round}");
        assert_refused(&daemon, &id, "was removed or replaced");
        assert!(fs::read(database).ok() == found, "{what} was left alone");
        fs::rename(&kept, database).unwrap();
        assert_goes_on(&daemon, pid, &id, round as i64 + 2);
    }
    let log = daemon.output().stderr;
    assert_eq!(log.matches("the database is there again").count(), IN_ITS_PLACE.len(), "{log}");
}

#[test]
fn an_idle_daemon_misses_its_database_too() {
    only_on_sqlite!();
    let (daemon, _) = charged();
    fs::rename(daemon.database_file(), daemon.folder().join("kept.db")).unwrap();
    wait_until("it says that it is not ready", PATIENCE, || (!daemon.is_ready()).then_some(()));
    wait_told(&daemon, "was removed or replaced");
}

#[test]
fn a_log_that_was_taken_away_is_missed_and_taken_back() {
    only_on_sqlite!();
    let (daemon, _) = charged();
    let pid = daemon.pid();
    for (round, ending) in ["-wal", "-shm"].into_iter().enumerate() {
        let (file, kept, id) = (part(&daemon, ending), part(&daemon, ".kept"), format!("during-{round}"));
        fs::rename(&file, &kept).unwrap();
        assert_refused(&daemon, &id, &format!("hookledger.db{ending} was removed or replaced"));
        assert!(!file.exists(), "no new one was made");
        fs::rename(&kept, &file).unwrap();
        assert_goes_on(&daemon, pid, &id, round as i64 + 2);
    }
}

#[test]
fn what_was_open_is_there_until_the_daemon_ends() {
    only_on_sqlite!();
    let (daemon, before) = charged();
    for ending in ["", "-wal"] {
        fs::remove_file(part(&daemon, ending)).unwrap();
    }
    assert_refused(&daemon, "after", "was removed or replaced");
    // As docs/OPERATIONS.md says: the files are still open, and are read through the daemon's own descriptors.
    for entry in fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap() {
        let descriptor = entry.unwrap().path();
        let target = fs::read_link(&descriptor).unwrap_or_default().display().to_string();
        for (ending, name) in [("hookledger.db (deleted)", ""), ("hookledger.db-wal (deleted)", "-wal")] {
            if target.ends_with(ending) {
                fs::copy(&descriptor, daemon.folder().join(format!("rescued.db{name}"))).unwrap();
            }
        }
    }
    assert_eq!(daemon.terminate(), 0);
    for ending in ["", "-wal"] {
        fs::rename(daemon.folder().join(format!("rescued.db{ending}")), part(&daemon, ending)).unwrap();
    }
    daemon.launch();
    daemon.wait_ready();
    assert_eq!(daemon.post(before).status, 200, "what was acknowledged was saved");
    assert_eq!(daemon.post(event("after")).status, 200);
    assert_charged_once(&daemon.books(), 2);
}

/// Writes over the beginning of the file, as `cp` does where it is the longer one.
fn write_over(file: &Path, bytes: &[u8]) {
    OpenOptions::new().write(true).open(file).unwrap().write_all_at(bytes, 0).unwrap();
}

/// Changes the file itself: it stays the same one, and what is in it does not.
const IN_ITSELF: [(&str, Replacing, Option<&str>); 4] = [
    ("junk", |file| write_over(file, &junk()), Some("is no SQLite database")),
    ("nothing", |file| drop(File::create(file).unwrap()), Some("is an empty file")),
    // What comes of these at the next start, SQLite alone knows.
    ("half of it", |file| OpenOptions::new().write(true).open(file).unwrap().set_len(8192).unwrap(), None),
    (
        "another ledger",
        |file| {
            let other = migrated(DaemonOptions::new());
            write_over(file, &fs::read(other.database_file()).unwrap());
        },
        None,
    ),
];

/// Waits until everything has been copied from the log: from then on nobody has a reason to write to the file.
fn wait_folded(daemon: &Daemon) {
    wait_until("the log is copied", PATIENCE, || {
        let before = fs::read(daemon.database_file()).unwrap();
        pause(Duration::from_secs(1));
        let is_still = fs::read(daemon.database_file()).unwrap() == before;
        (is_still && folded_events(daemon) == Some(1)).then_some(())
    });
}

#[test]
fn a_database_that_was_overwritten_is_not_written_to_and_not_opened_again() {
    only_on_sqlite!();
    for (what, overwrite, at_the_start) in IN_ITSELF {
        let (daemon, _) = charged();
        let database = daemon.database_file();
        wait_folded(&daemon);
        overwrite(database);
        let found = fs::read(database).unwrap();
        assert_refused(&daemon, "after", "was overwritten or cut off");
        assert_eq!(daemon.terminate(), 0);
        assert!(fs::read(database).unwrap() == found, "{what} was left alone, also by the stop");
        assert!(part(&daemon, "-wal").exists(), "{what}: the log is kept for a person");
        if let Some(at_the_start) = at_the_start {
            let refused = ran(&daemon, &["serve"], &[]);
            assert_eq!(refused.code, 3, "{what}: {refused:?}");
            assert!(refused.stderr.contains(at_the_start), "{what}: {refused:?}");
            assert!(refused.stderr.contains("hookledger restore"), "{what}: {refused:?}");
            assert!(fs::read(database).unwrap() == found, "{what} was left alone by the start");
        }
    }
}

#[test]
fn a_database_that_an_operator_makes_smaller_is_not_taken_for_damaged() {
    only_on_sqlite!();
    let (daemon, _) = charged();
    let bytes = || fs::metadata(daemon.database_file()).unwrap().len();
    let (books, large) = (daemon.books(), 2 << 20);
    books.execute(&format!("CREATE TABLE notes (text BLOB); INSERT INTO notes VALUES (randomblob({large}))"));
    assert_eq!(daemon.post(event("large")).status, 200);
    wait_until("it is copied into the database", PATIENCE, || (bytes() > large).then_some(()));
    books.execute("DROP TABLE notes; VACUUM");
    for number in 0..1000 {
        assert_eq!(daemon.post(event(&format!("e-{number}"))).status, 200);
        if bytes() < large && number > 20 {
            break;
        }
    }
    assert!(bytes() < large, "it was cut by SQLite itself");
    assert!(daemon.is_ready() && !daemon.output().stderr.contains("overwritten"));
}

#[test]
fn a_link_that_leads_elsewhere_meanwhile_leads_nobody_astray() {
    only_on_sqlite!();
    let link = "{folder}/link.db";
    let daemon = Daemon::prepare(DaemonOptions::new().set("HOOKLEDGER__DATABASE__URL", format!("sqlite://{link}")));
    let (real, link) = (daemon.database_file(), daemon.folder().join("link.db"));
    symlink(real, &link).unwrap();
    daemon.launch();
    daemon.wait_ready();
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, 1);
    let other = migrated(DaemonOptions::new());
    let before = fs::read(other.database_file()).unwrap();
    fs::remove_file(&link).unwrap();
    symlink(other.database_file(), &link).unwrap();
    // After a failure it opens a connection anew.
    let fault = Fault::new("pwrite64", "error=EIO", 1, &["hookledger.db-wal"]).begin(&daemon);
    let body = event("e");
    assert!([202, 503].contains(&daemon.post(&body).status));
    drop(fault);
    wait_until("it is charged", PATIENCE, || (daemon.post(&body).status == 200).then_some(()));
    assert_charged_once(&daemon.books(), 1);
    assert!(fs::read(other.database_file()).unwrap() == before, "the other ledger was left alone");
}
