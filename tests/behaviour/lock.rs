//! One writing process on a database: a second daemon is refused, and a command never writes beside a daemon.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use crate::commands::{fine, migrated, ran};
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon with a folder, ports and a socket of its own, on this database.
fn beside(database: &str) -> DaemonOptions {
    let options = DaemonOptions::new().set("HOOKLEDGER__DATABASE__URL", format!("sqlite://{database}"));
    options.set("HOOKLEDGER__ADMIN__SOCKET", "{folder}/own.sock")
}

#[track_caller]
fn assert_refused(second: &Daemon, first: &Daemon) {
    second.launch();
    let code = second.wait_exit(PATIENCE);
    let log = second.output().stderr;
    assert_eq!(code, Some(2), "{log}");
    let words = [first.database_file().display().to_string(), format!("pid {}", first.pid())];
    assert!(words.iter().all(|word| log.contains(word)), "it names {words:?}: {log}");
    assert!(first.is_ready());
}

#[test]
fn a_second_daemon_on_the_same_database_is_refused_by_whatever_name() {
    only_on_sqlite!();
    let first = Daemon::start(DaemonOptions::new());
    assert_refused(&Daemon::prepare(beside(&first.database_file().display().to_string())), &first);
    let linked = Daemon::prepare(beside("linked.db"));
    symlink(first.database_file(), linked.folder().join("linked.db")).unwrap();
    assert_refused(&linked, &first);
    let chained = Daemon::prepare(beside("chained.db"));
    symlink(linked.folder().join("linked.db"), chained.folder().join("chained.db")).unwrap();
    assert_refused(&chained, &first);
    let through_folder = Daemon::prepare(beside("folder/hookledger.db"));
    symlink(first.folder(), through_folder.folder().join("folder")).unwrap();
    assert_refused(&through_folder, &first);
    let unmigrated = beside(&first.database_file().display().to_string()).set("HOOKLEDGER__DATABASE__MIGRATE", "false");
    assert_refused(&Daemon::prepare(unmigrated), &first);
}

#[test]
fn a_link_to_a_database_that_is_not_there_yet_is_that_database() {
    only_on_sqlite!();
    let first = Daemon::prepare(DaemonOptions::new());
    let second = Daemon::prepare(beside("linked.db"));
    symlink(first.database_file(), second.folder().join("linked.db")).unwrap();
    second.launch();
    second.wait_ready();
    first.launch();
    assert_eq!(first.wait_exit(PATIENCE), Some(2));
    assert!(first.output().stderr.contains(&format!("pid {}", second.pid())), "{}", first.output().stderr);
}

#[test]
fn the_lock_tells_who_has_it_and_ends_with_him() {
    only_on_sqlite!();
    let first = Daemon::start(DaemonOptions::new());
    let lock = first.folder().join("hookledger.db.lock");
    let text = fs::read_to_string(&lock).unwrap();
    assert_eq!(text.lines().next(), Some(first.pid().to_string().as_str()), "{text}");
    assert_eq!(fs::metadata(&lock).unwrap().permissions().mode() & 0o777, 0o600);
    let second = Daemon::prepare(beside(&first.database_file().display().to_string()));
    first.kill();
    second.launch();
    second.wait_ready();
    assert_eq!(second.terminate(), 0);
    first.launch();
    first.wait_ready();
}

#[test]
fn no_command_writes_beside_a_daemon_that_it_cannot_reach() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new());
    let elsewhere = [("HOOKLEDGER__ADMIN__SOCKET", "/nonexistent/admin.sock")];
    let refused = ran(&daemon, &["user", "add", "--email", "a@example.com"], &elsewhere);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{refused:?}");
    let pid = format!("pid {}", daemon.pid());
    let words = [pid.as_str(), "/nonexistent/admin.sock", "admin.socket", "nothing was written"];
    assert!(words.iter().all(|word| refused.stderr.contains(word)), "it says {words:?}: {refused:?}");
    assert_eq!(daemon.books().count("users"), 0);
    // Looks need no lock.
    assert_eq!(ran(&daemon, &["user", "list"], &elsewhere).code, 0);
    daemon.kill();
    let added = ran(&daemon, &["user", "add", "--email", "a@example.com"], &elsewhere);
    assert_eq!(added.code, 0, "with the daemon gone it writes: {added:?}");
}

#[test]
fn commands_wait_for_each_other() {
    only_on_sqlite!();
    const COMMANDS: usize = 3;
    let daemon = migrated(DaemonOptions::new());
    std::thread::scope(|scope| {
        for number in 0..COMMANDS {
            let daemon = &daemon;
            scope.spawn(move || fine(daemon, &["user", "add", "--email", &format!("u{number}@example.com")]));
        }
    });
    assert_eq!(daemon.books().count("users"), COMMANDS as i64);
    daemon.books().assert_whole();
}

#[test]
fn a_daemon_waits_for_a_command_that_is_at_work() {
    only_on_sqlite!();
    let daemon = migrated(DaemonOptions::new());
    let user = daemon.add_user("user@example.com", 0);
    let slow = [("FAILPOINTS", "store.grant.written=sleep(6000)")];
    let lock = daemon.folder().join("hookledger.db.lock");
    fs::write(&lock, "").unwrap();
    let grant = ["credits", "grant", "--user", &user, "--amount", "5"];
    std::thread::scope(|scope| {
        let command = scope.spawn(|| ran(&daemon, &grant, &slow));
        wait_until("the command is at work", PATIENCE, || {
            fs::read_to_string(&lock).unwrap().contains("command").then_some(())
        });
        daemon.launch();
        daemon.wait_ready();
        assert_eq!(command.join().unwrap().code, 0);
    });
    assert!(daemon.output().stderr.contains("at work"), "it said what it waited for: {}", daemon.output().stderr);
    assert_eq!(daemon.books().balance(&user), 5);
    daemon.books().assert_whole();
}

#[test]
fn migrate_changes_nothing_beside_a_daemon() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new());
    fine(&daemon, &["migrate"]);
    let newest = "(SELECT max(version) FROM hookledger_migrations)";
    daemon.books().execute(&format!("DELETE FROM hookledger_migrations WHERE version = {newest}"));
    let before = daemon.books().count("hookledger_migrations");
    let refused = ran(&daemon, &["migrate"], &[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains(&format!("pid {}", daemon.pid())), "{refused:?}");
    assert_eq!(daemon.books().count("hookledger_migrations"), before);
}
