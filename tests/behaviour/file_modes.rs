//! Files that others can read or change are named at the start: secrets, books, configuration.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap_or_else(|error| panic!("{path:?}: {error}"));
}

/// The warnings of one start about modes.
fn warnings_of_a_start(daemon: &Daemon) -> Vec<String> {
    let before = daemon.output().stderr.len();
    daemon.restart();
    let log = daemon.output().stderr.split_off(before);
    log.lines().filter(|line| line.contains("\"WARN\"") && line.contains("chmod")).map(str::to_owned).collect()
}

#[track_caller]
fn assert_one(warnings: &[String], file: &Path) {
    let name = file.display().to_string();
    assert!(warnings.len() == 1 && warnings[0].contains(&name), "one about {name}: {warnings:?}");
}

#[test]
fn a_secret_that_others_can_read_is_named_at_the_start() {
    let mut options = DaemonOptions::new().set("HOOKLEDGER__WEBHOOK__SECRETS_FILE", "{folder}/secrets");
    options.without.push("WEBHOOK_SECRET".to_owned());
    let daemon = Daemon::prepare(options);
    let file = daemon.folder().join("secrets");
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    for mode in [0o600, 0o400] {
        set_mode(&file, mode);
        assert_eq!(warnings_of_a_start(&daemon), Vec::<String>::new(), "{mode:o}");
    }
    for mode in [0o640, 0o604, 0o620] {
        set_mode(&file, mode);
        assert_one(&warnings_of_a_start(&daemon), &file);
    }
}

#[test]
fn a_generated_secret_is_looked_at_as_well() {
    only_on_sqlite!();
    let mut options = DaemonOptions::new();
    options.without.push("WEBHOOK_SECRET".to_owned());
    let daemon = Daemon::prepare(options);
    assert_eq!(warnings_of_a_start(&daemon), Vec::<String>::new());
    let file = daemon.folder().join("webhook-secret");
    set_mode(&file, 0o644);
    assert_one(&warnings_of_a_start(&daemon), &file);
}

#[test]
fn books_that_others_can_reach_are_named_at_the_start() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new());
    set_mode(daemon.database_file(), 0o640);
    assert_eq!(warnings_of_a_start(&daemon), Vec::<String>::new(), "a group that reads is meant");
    for mode in [0o644, 0o660, 0o606] {
        set_mode(daemon.database_file(), mode);
        let warnings = warnings_of_a_start(&daemon);
        let name = daemon.database_file().display().to_string();
        // SQLite gives the files beside the database its own mode.
        assert!(!warnings.is_empty() && warnings.iter().all(|one| one.contains(&name)), "{mode:o}: {warnings:?}");
    }
    set_mode(daemon.database_file(), 0o600);
    daemon.terminate();
    set_mode(daemon.folder(), 0o777);
    assert_one(&warnings_of_a_start(&daemon), daemon.folder());
}

#[test]
fn a_configuration_that_others_can_change_is_named() {
    let daemon = Daemon::prepare(DaemonOptions::new().config_file());
    daemon.write_config("server.ack_timeout = \"2s\"\n");
    for (mode, is_told) in [(0o600, false), (0o644, false), (0o664, true), (0o646, true)] {
        set_mode(&daemon.config_file(), mode);
        let output = daemon.command(&["check-config"]);
        let warned = String::from_utf8_lossy(&output.stderr).contains("can be changed by others");
        assert!(output.status.success() && warned == is_told, "{mode:o}: {output:?}");
    }
}
