//! A backup of yesterday that was restored: coverage moved back with it, and the log is read again. What no log holds
//! does not come back.

use std::fs;

use super::{By, numbers, synced, unread};
use crate::backup::saved;
use crate::commands::fine;
use crate::kit::daemon::Daemon;
use crate::kit::events::Usage;
use crate::two_channels::{DAY_SECS, PULL, Rig};

fn remove_database(daemon: &Daemon) {
    for ending in ["", "-wal", "-shm"] {
        fs::remove_file(daemon.folder().join(format!("hookledger.db{ending}"))).ok();
    }
}

/// Calls of yesterday, a backup, and calls since: told by both channels, by the log alone, by an event alone, a task
/// that failed, and a grant. What the books said before they were lost.
struct Yesterday {
    rig: Rig,
    backup: String,
    balance: i64,
    remainder: i64,
}

const REMAINDER: &str = "SELECT remainder_femtos FROM hookledger_accounts";

impl Yesterday {
    #[track_caller]
    fn lived() -> Self {
        let rig = unread(By::Daemon);
        let call = |number: i64, at: i64| rig.newapi.call(&rig.call(at).tokens(number, 3).quota(1777));
        for number in 0..10 {
            call(number, rig.now_secs() - 100);
        }
        synced(&rig, &[]);
        let backup = saved(&rig.daemon, "yesterday.db").display().to_string();
        rig.advance_secs(DAY_SECS);
        for number in 0..30 {
            let called = call(number, rig.now_secs() - 1000 + number);
            if number % 3 == 0 {
                rig.post(&called.usage_by_cost(&format!("both-{number}")));
            }
        }
        let task = rig.newapi.submit_task("t-1", &rig.call(rig.now_secs() - 500).quota(1830));
        rig.newapi.fail_task(&task, rig.now_secs() - 400);
        synced(&rig, &[]);
        let remainder = rig.books().scalar_i64(REMAINDER);
        let balance = rig.books().balance(&rig.user);
        // What no log holds: 7 credits of a call without a row, and 100 that somebody gave.
        let lost = Usage::new("no row").remote_key(42).model("gpt-4").tokens(999, 1).quota(3500);
        rig.post(&lost.at_secs(rig.now_secs() - 300));
        rig.daemon.grant(&rig.user, 100);
        assert_eq!(rig.books().balance(&rig.user), balance - 7 + 100);
        assert_eq!(rig.daemon.terminate(), 0);
        remove_database(&rig.daemon);
        fine(&rig.daemon, &["restore", &backup]);
        Yesterday { rig, backup, balance, remainder }
    }

    #[track_caller]
    fn assert_healed(&self) {
        let rig = &self.rig;
        let found = (rig.books().balance(&rig.user), rig.books().scalar_i64(REMAINDER), rig.charges());
        assert_eq!(found, (self.balance, self.remainder, 41), "restored from {}", self.backup);
        assert_eq!(rig.rows_in_state("refunded"), 1);
        rig.books().assert_whole();
        rig.books().assert_carried_exactly();
    }
}

#[test]
fn a_restored_backup_is_healed_by_one_sync() {
    only_on_sqlite!();
    let yesterday = Yesterday::lived();
    let tried = synced(&yesterday.rig, &["--dry-run"]);
    let names = ["read", "charged", "credits", "refunded", "creditsGivenBack"];
    let healed = synced(&yesterday.rig, &[]);
    assert_eq!(numbers(&tried, names), numbers(&healed, names), "{tried} {healed}");
    assert_eq!(numbers(&healed, ["charged", "refunded"]), [31, 1], "{healed}");
    yesterday.assert_healed();
    // The sender's late repeats are events of calls that are charged.
    yesterday.rig.daemon.launch();
    yesterday.rig.daemon.wait_ready();
    yesterday.assert_healed();
}

#[test]
fn a_restored_backup_is_healed_by_the_daemons_start() {
    only_on_sqlite!();
    let mut yesterday = Yesterday::lived();
    yesterday.rig.daemon.set_environment(PULL.0, PULL.1);
    yesterday.rig.daemon.launch();
    yesterday.rig.daemon.wait_ready();
    yesterday.rig.wait_for_charges(41);
    yesterday.rig.wait_for_a_pass();
    yesterday.assert_healed();
}
