//! A disk that is slow, and gets on, makes answers late and ends nothing: a restart would have to do the same again.

use std::time::Duration;

use crate::crashes::{assert_charged_once, assert_documented, patient, usage_bodies, with_users};
use crate::disk_writes::FILES;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::sender::{deliver, start_delivery};
use crate::kit::strace::Fault;
use crate::kit::wait::wait_until;
use crate::supervision::restarts;

const PATIENCE: Duration = Duration::from_secs(60);

/// An owner of a connection that makes no step for eight seconds hangs, unless its disk gets on.
fn options() -> DaemonOptions {
    DaemonOptions::new()
        .set("HOOKLEDGER__DATABASE__LOCK_WAIT", "300ms")
        .set("HOOKLEDGER__SUPERVISOR__HEARTBEAT", "100ms")
        .set("HOOKLEDGER__SUPERVISOR__HANG_TIMEOUT", "5s")
}

fn assert_nobody_was_replaced(daemon: &Daemon, pid: u32) {
    assert!(daemon.is_running() && daemon.pid() == pid, "the daemon was not restarted");
    for actor in ["receiver", "logger", "ledger", "scheduler"] {
        for cause in ["panic", "error", "hang", "exit"] {
            assert_eq!(restarts(daemon, actor, cause), 0, "{actor} by {cause}");
        }
    }
}

#[test]
fn a_commit_of_many_slow_writes_is_no_hang() {
    only_on_sqlite!();
    const EVENTS: usize = 40;
    let daemon = Daemon::start(options());
    with_users(&daemon);
    let pid = daemon.pid();
    let slow = Fault::new("pwrite64", "delay_enter=200000", "1+", &FILES).begin(&daemon);
    let ongoing = start_delivery(daemon.address(), SECRET, usage_bodies(EVENTS, "slow"), EVENTS, patient());
    // A batch takes some hundred writes.
    wait_until("a batch has taken longer than a hang may", PATIENCE, || {
        let writes = slow.trace().matches("hookledger.db-wal>, \"\"").count();
        (writes > 60 || !daemon.is_running()).then_some(())
    });
    assert!(daemon.is_running(), "a slow disk is no hang: {}", daemon.output().stderr);
    drop(slow);
    let report = ongoing.finish();
    report.assert_all_acknowledged();
    assert_documented(&report);
    assert_charged_once(&daemon.books(), EVENTS as i64);
    assert_nobody_was_replaced(&daemon, pid);
}

#[test]
fn copying_the_log_to_a_slow_disk_holds_up_nobody() {
    only_on_sqlite!();
    const EVENTS: usize = 150;
    let daemon = Daemon::start(options().answers_late());
    with_users(&daemon);
    let pid = daemon.pid();
    // The database itself, into which the pages are copied from the log.
    let slow = Fault::new("pwrite64,fdatasync", "delay_enter=200000", "1+", &["hookledger.db"]).begin(&daemon);
    let report = deliver(daemon.address(), SECRET, usage_bodies(EVENTS, "copied"), 8, patient());
    report.assert_all_acknowledged();
    assert_eq!(report.statuses().keys().collect::<Vec<_>>(), [&200], "{:?}", report.statuses());
    wait_until("pages were copied meanwhile", PATIENCE, || slow.was_reached().then_some(()));
    drop(slow);
    assert_charged_once(&daemon.books(), EVENTS as i64);
    assert_nobody_was_replaced(&daemon, pid);
}
