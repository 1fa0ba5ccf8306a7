//! Exit codes: 2 for wrong usage, 3 for a database out of reach; and nothing is made or changed on the way.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{Ran, failing, fine, migrated, ran};
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::database::is_sqlite;
use crate::kit::process::run;

/// One of each command that needs the database, in words that the command line takes.
const ON_BOOKS: &[&[&str]] = &[
    &["user", "list"],
    &["user", "add", "--email", "a@example.com"],
    &["key", "list"],
    &["key", "add", "--user", "a@example.com", "--remote-id", "1"],
    &["credits", "grant", "--user", "a@example.com", "--amount", "1"],
    &["credits", "show", "a@example.com"],
    &["credits", "history", "a@example.com"],
    &["events", "list"],
    &["events", "show", "evt"],
    &["backup", "copy.db"],
];

const WRONG_USAGE: &[&[&str]] = &[
    &["frobnicate"],
    &["--nonsense"],
    &["serve", "extra"],
    &["serve", "--config"],
    &["check-config", "extra"],
    &["migrate", "--force"],
    &["secret", "extra"],
    &["user"],
    &["user", "add"],
    &["user", "add", "--email", "a@example.com", "--credits", "many"],
    &["user", "add", "--email", "a@example.com", "--credits=-1"],
    &["user", "drop"],
    &["key", "add", "--user", "a@example.com"],
    &["key", "add", "--user", "a@example.com", "--remote-id", "zero"],
    &["key", "add", "--user", "a@example.com", "--remote-id", "0"],
    &["key", "add", "--user", "a@example.com", "--remote-id", "9223372036854775808"],
    &["credits", "grant", "--user", "a@example.com"],
    &["credits", "grant", "--user", "a@example.com", "--amount=-5"],
    &["credits", "grant", "--user", "a@example.com", "--amount", "0"],
    &["credits", "grant", "--user", "a@example.com", "--amount", "1.5"],
    &["credits", "show"],
    &["events", "list", "--status", "lost"],
    &["events", "show"],
    &["send"],
    &["send", "--quota", "5"],
    &["send", "--ping", "--remote-key-id", "1"],
    &["send", "--remote-key-id", "1", "--quota", "1", "--cost", "1"],
    &["send", "--remote-key-id", "1", "--count", "0"],
    &["backup"],
    &["restore"],
];

#[test]
fn wrong_usage_ends_with_2_and_touches_nothing() {
    let daemon = Daemon::prepare(DaemonOptions::new());
    for arguments in WRONG_USAGE {
        let complaint = failing(&daemon, arguments, 2);
        assert!(complaint.contains("Usage:") || complaint.contains("--help"), "{arguments:?}: {complaint}");
    }
    assert_eq!(fs::read_dir(daemon.folder()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn help_and_version_are_results() {
    let daemon = Daemon::prepare(DaemonOptions::new());
    let version = fine(&daemon, &["--version"]);
    assert_eq!(version, format!("hookledger {}", env!("CARGO_PKG_VERSION")));
    let help = fine(&daemon, &["--help"]);
    for command in
        ["serve", "check-config", "migrate", "secret", "send", "user", "key", "credits", "events", "backup", "restore"]
    {
        let is_listed = help.lines().any(|line| line.split_whitespace().next() == Some(command));
        assert!(is_listed, "{command} is not in the help");
        assert!(!fine(&daemon, &[command, "--help"]).is_empty());
    }
}

#[test]
fn a_missing_database_ends_with_3_and_is_not_made() {
    only_on_sqlite!();
    let daemon = Daemon::prepare(DaemonOptions::new());
    for arguments in ON_BOOKS {
        let complaint = failing(&daemon, arguments, 3);
        let file = daemon.database_file().display().to_string();
        assert!(complaint.contains(&file) && complaint.contains("migrate"), "{arguments:?}: {complaint}");
        failing(&daemon, &[*arguments, &["--json"]].concat(), 3);
    }
    assert_eq!(fs::read_dir(daemon.folder()).unwrap().count(), 0, "only serve and migrate make a database");
}

#[test]
fn serve_that_may_not_migrate_ends_with_3_on_a_missing_database() {
    let daemon = Daemon::prepare(DaemonOptions::new().set("HOOKLEDGER__DATABASE__MIGRATE", "false"));
    let Ran { code, stderr, .. } = ran(&daemon, &["serve"], &[]);
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("hookledger migrate"), "{stderr}");
    assert!(!is_sqlite() || !daemon.database_file().exists());
}

#[test]
fn a_file_that_is_no_database_ends_with_3_and_is_left_alone() {
    only_on_sqlite!();
    let daemon = Daemon::prepare(DaemonOptions::new());
    let text = "these are the books of somebody else\n".repeat(200);
    fs::write(daemon.database_file(), &text).unwrap();
    for arguments in ON_BOOKS.iter().chain([&["migrate"] as &[&str]].iter()) {
        failing(&daemon, arguments, 3);
    }
    assert_eq!(fs::read_to_string(daemon.database_file()).unwrap(), text);
}

#[test]
fn a_database_of_a_newer_version_ends_with_2() {
    let daemon = migrated(DaemonOptions::new());
    daemon.books().insert_newer_version();
    for arguments in ON_BOOKS.iter().chain([&["migrate"] as &[&str], &["serve"]].iter()) {
        let Ran { code, stderr, .. } = ran(&daemon, arguments, &[]);
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
        // A server is backed up with its own tools, whatever its version.
        let told = if arguments[0] == "backup" && !is_sqlite() { "server's own tools" } else { "version" };
        assert!(stderr.contains(told), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_database_locked_by_another_program_ends_with_3() {
    only_on_sqlite!();
    let daemon = migrated(DaemonOptions::new());
    let script =
        format!("{} user add --email a@example.com\necho ended with $? > ended\n", env!("CARGO_BIN_EXE_hookledger"));
    fs::write(daemon.folder().join("add.sh"), script).unwrap();
    // The other program holds the lock while it runs the command.
    let mut other = Command::new("sqlite3");
    other.arg(daemon.database_file()).current_dir(daemon.folder());
    other.env("HOOKLEDGER__DATABASE__URL", format!("sqlite://{}", daemon.database_file().display()));
    other.env("HOOKLEDGER__DATABASE__LOCK_WAIT", "100ms");
    run(&mut other, b"BEGIN IMMEDIATE;\n.shell sh add.sh\nROLLBACK;\n", Duration::from_secs(30));
    let ended = fs::read_to_string(daemon.folder().join("ended")).unwrap();
    assert_eq!(ended.trim(), "ended with 3");
    assert_eq!(daemon.books().count("users"), 0);
}
