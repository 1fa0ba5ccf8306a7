//! The command line, with a daemon at work and without one: what is printed, what is written, how it ends.
//!
//! This file holds what its parts share.

#[path = "commands_books.rs"]
mod books;
#[path = "commands_config.rs"]
mod config;
#[path = "commands_events.rs"]
mod events;
#[path = "commands_exits.rs"]
mod exits;
#[path = "commands_secrecy.rs"]
mod secrecy;
#[path = "commands_send.rs"]
mod send;
#[path = "commands_server.rs"]
mod server;
#[path = "commands_start.rs"]
mod start;
#[path = "commands_stop.rs"]
mod stop;

use serde_json::Value;

use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::process::exit_code;

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn ran(daemon: &Daemon, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let output = daemon.command_with(arguments, variables);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a command prints UTF-8");
    Ran { code: exit_code(output.status), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Runs a command that must succeed; what it printed, without the last line break.
#[track_caller]
pub fn fine(daemon: &Daemon, arguments: &[&str]) -> String {
    let ran = ran(daemon, arguments, &[]);
    assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    ran.stdout.trim_end_matches('\n').to_owned()
}

/// Runs a command that must end with this code and print no result; its complaint.
#[track_caller]
pub fn failing(daemon: &Daemon, arguments: &[&str], code: i32) -> String {
    let ran = ran(daemon, arguments, &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{arguments:?}: {ran:?}");
    assert!(!ran.stderr.trim().is_empty(), "{arguments:?} failed without a word");
    ran.stderr
}

/// What `--json` prints on standard output, whatever the exit code.
#[track_caller]
fn json_of(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error} in {ran:?}"))
}

/// A database without a daemon.
pub fn migrated(options: DaemonOptions) -> Daemon {
    let daemon = Daemon::prepare(options);
    fine(&daemon, &["migrate"]);
    daemon
}

/// A daemon that was given no secret.
fn without_secret() -> DaemonOptions {
    DaemonOptions { without: vec!["WEBHOOK_SECRET".to_owned()], ..DaemonOptions::new() }
}
