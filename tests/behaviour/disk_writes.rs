//! The disk is full, fails or dawdles at each single write and sync of the embedded database in turn: an answer is a
//! documented one and true, and as soon as the disk works again everything goes on and is charged once.
//!
//! `make test` takes a few of them by chance; `HOOKLEDGER_TEST_FAULTS=all` takes each.

use std::time::Duration;

use crate::crashes::{TOKENS, assert_charged_once, with_users};
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::kit::random::Random;
use crate::kit::strace::{Fault, Injection};
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// What SQLite has open.
pub const FILES: [&str; 3] = ["hookledger.db", "hookledger.db-wal", "hookledger.db-shm"];

/// What changes a file, and what befalls it. A full disk is told while writing or while making room; a failing one
/// anywhere.
const FAULTS: [(&str, &str); 8] = [
    ("pwrite64", "error=ENOSPC"),
    ("pwrite64", "error=EIO"),
    ("fdatasync", "error=EIO"),
    ("fdatasync", "error=ENOSPC"),
    ("ftruncate", "error=ENOSPC"),
    ("ftruncate", "error=EIO"),
    ("pwrite64", "delay_enter=300000"),
    ("fdatasync", "delay_enter=300000"),
];

/// More calls than one event ever takes: where none is left, the sweep of that fault ends.
const MOST_CALLS: u32 = 200;

pub fn takes_all() -> bool {
    std::env::var("HOOKLEDGER_TEST_FAULTS").is_ok_and(|value| value == "all")
}

/// Which calls are to fail: each in turn, or the first and two more by chance.
fn turns(random: &mut Random) -> Vec<u32> {
    if takes_all() {
        return (1..=MOST_CALLS).collect();
    }
    let second = 2 + random.below(4) as u32;
    vec![1, second, second + 1 + random.below(12) as u32]
}

/// Nothing of the event is left to do: its commit is on the disk, and its pages are copied into the database.
fn is_copied(injection: &Injection) -> bool {
    let into_database = |line: &str| line.contains("fdatasync(") && line.contains("hookledger.db>");
    injection.trace().lines().any(|line| into_database(line) && line.trim_end().ends_with("= 0"))
}

/// Sends one event under the fault, and again without it. Whether the fault was reached.
fn one(daemon: &Daemon, fault: &Fault, id: &str, token: i64) -> bool {
    let body = Usage::new(id).remote_key(token).quota(token * 310).json();
    let injection = fault.begin(daemon);
    let answer = daemon.try_post(&body);
    wait_until("the fault is reached, or nothing is left to do", PATIENCE, || {
        (injection.was_reached() || is_copied(&injection)).then_some(())
    });
    let was_reached = injection.was_reached();
    drop(injection);
    let books = daemon.books();
    let stored = |table: &str, column: &str| {
        books.scalar_i64(&format!("SELECT COUNT(*) AS n FROM {table} WHERE `{column}` = '{id}'"))
    };
    match answer.map(|answer| answer.status) {
        Ok(200) => assert_eq!(stored("hookledger_claims", "event_id"), 1, "{fault:?}: 200 says that it is charged"),
        Ok(202) => assert_eq!(stored("webhook_logs", "eventId"), 1, "{fault:?}: 202 says that it is recorded"),
        Ok(503) => {}
        undocumented => panic!("{fault:?}: {undocumented:?}"),
    }
    wait_until("it is ready again", PATIENCE, || daemon.is_ready().then_some(()));
    wait_until("the event is charged", PATIENCE, || {
        let status = daemon.post(&body).status;
        assert!([200, 202, 503].contains(&status), "{fault:?}: {status}");
        (status == 200).then_some(())
    });
    was_reached
}

#[test]
fn each_write_in_turn_may_fail() {
    only_on_sqlite!();
    let random = &mut Random::new();
    let daemon = Daemon::start(DaemonOptions::new());
    with_users(&daemon);
    let (pid, mut events, mut reached) = (daemon.pid(), 0, 0);
    for (calls, what) in FAULTS {
        let mut reached_of_this = 0;
        for when in turns(random) {
            events += 1;
            if !one(&daemon, &Fault::new(calls, what, when, &FILES), &format!("e-{events}"), events % TOKENS + 1) {
                break;
            }
            reached_of_this += 1;
        }
        println!("{calls} {what}: {reached_of_this} calls failed, one after another");
        reached += reached_of_this;
    }
    assert!(reached > FAULTS.len(), "the faults were met: {reached}");
    assert_charged_once(&daemon.books(), events);
    let audit = daemon.command(&["audit"]);
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    assert!(daemon.is_running() && daemon.pid() == pid, "nothing of it ended the daemon");
}
