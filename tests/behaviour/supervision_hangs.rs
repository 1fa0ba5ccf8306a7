//! What hangs and cannot be ended: an actor is fenced and replaced, and where nobody may take a place the process ends at
//! once.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::crashes::{assert_charged_once, assert_documented, patient, usage_bodies, with_users};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::database::is_sqlite;
use crate::kit::events::Usage;
use crate::kit::mariadb::PrivateServer;
use crate::kit::sender::{deliver, start_delivery};
use crate::kit::wait::{pause, wait_until};
use crate::supervision::restarts;

const PATIENCE: Duration = Duration::from_secs(90);

fn options(hang_timeout: &str) -> DaemonOptions {
    DaemonOptions::new()
        .set("HOOKLEDGER__SUPERVISOR__HEARTBEAT", "100ms")
        .set("HOOKLEDGER__SUPERVISOR__HANG_TIMEOUT", hang_timeout)
}

fn event(id: &str) -> String {
    Usage::new(id).remote_key(1).quota(700).json()
}

/// Waits until the first settlement has written, and sleeps before its COMMIT.
fn wait_in_transaction(daemon: &Daemon) {
    if !is_sqlite() {
        daemon.books().wait_for_transaction("trx_rows_modified >= 8", PATIENCE);
        return;
    }
    let is_locked = || {
        let mut looks = Command::new("sqlite3");
        looks.arg(daemon.database_file()).arg("BEGIN IMMEDIATE; ROLLBACK").stderr(Stdio::null());
        !looks.status().unwrap().success()
    };
    // Other writes hold the lock for an instant.
    wait_until("a transaction stays open", PATIENCE, || (0..20).all(|_| is_locked()).then_some(()));
}

fn wait_told(daemon: &Daemon, words: &str) {
    wait_until(&format!("it says {words:?}"), PATIENCE, || daemon.output().stderr.contains(words).then_some(()));
}

#[test]
fn what_a_replaced_actor_had_asked_for_is_not_committed() {
    // The first event's transaction is whole but for its COMMIT when the second one makes the Ledger hang.
    let points = "store.settle.written=1*sleep(15000)->off;ledger.handle=1*off->1*sleep(25000)->off";
    // Its transactions are looked at: on a server that others use as well they could be another's.
    let server = (!is_sqlite()).then(PrivateServer::start);
    let options = options("2s").fail_points(points);
    let daemon = Daemon::start(server.iter().fold(options, DaemonOptions::on));
    with_users(&daemon);
    let first = start_delivery(daemon.address(), SECRET, vec![event("first")], 1, patient());
    wait_in_transaction(&daemon);
    let second = start_delivery(daemon.address(), SECRET, vec![event("second")], 1, patient());
    wait_until("the ledger is replaced", PATIENCE, || (restarts(&daemon, "ledger", "hang") >= 1).then_some(()));
    wait_told(&daemon, "what a replaced part of the daemon had asked for was rolled back");
    first.finish().assert_all_acknowledged();
    second.finish().assert_all_acknowledged();
    let hung = "hookledger_actor_hung_threads{actor=\"ledger\"}";
    wait_until("its thread has ended", PATIENCE, || (daemon.metric(hung) == Some(0.0)).then_some(()));
    assert_charged_once(&daemon.books(), 2);
}

#[test]
fn an_owner_of_a_connection_that_hangs_ends_the_process_at_once() {
    let points = "store.settle.written=2*off->1*sleep(600000)->off";
    let quick = options("5s").set("HOOKLEDGER__DATABASE__LOCK_WAIT", "300ms").fail_points(points);
    let mut daemon = Daemon::start(quick);
    with_users(&daemon);
    let ongoing = start_delivery(daemon.address(), SECRET, usage_bodies(40, "owner"), 4, patient());
    assert_eq!(daemon.wait_exit(PATIENCE), Some(70));
    let log = daemon.output().stderr;
    assert!(log.contains("the owner of a writing connection (ledger-writer"), "it says which: {log}");
    assert!(log.contains("exit 70 at once") && !log.contains("draining"), "{log}");
    daemon.unset_environment("FAILPOINTS");
    daemon.launch();
    daemon.wait_ready();
    wait_told(&daemon, "the supervisor has given up 1 times in a row");
    let report = ongoing.finish();
    report.assert_all_acknowledged();
    assert_documented(&report);
    assert_charged_once(&daemon.books(), 40);
}

#[test]
fn a_supervisor_that_hangs_ends_the_process_at_once() {
    let points = "supervisor.look=10*off->1*sleep(600000)->off";
    let daemon = Daemon::prepare(options("2s").fail_points(points));
    daemon.launch();
    assert_eq!(daemon.wait_exit(PATIENCE), Some(70));
    let log = daemon.output().stderr;
    assert!(log.contains("the supervisor hangs") && log.contains("exit 70 at once"), "{log}");
}

#[test]
fn a_supervisor_that_fails_ends_the_process_after_a_drain() {
    for action in ["panic", "return(error)", "return(exit)"] {
        let daemon = Daemon::prepare(options("15s").fail_points(&format!("supervisor.look=30*off->1*{action}->off")));
        daemon.launch();
        assert_eq!(daemon.wait_exit(PATIENCE), Some(70), "{action}");
        let log = daemon.output().stderr;
        assert!(log.contains("the supervisor itself ended") && log.contains("stopped"), "{action}: {log}");
    }
}

#[test]
fn work_that_nothing_wakes_any_more_is_a_hang() {
    only_on_sqlite!();
    // It may wait for sixteen commands of the owner, each for ten times this lock.
    let points = "ledger.batch.before=1*return(stall)->off;logger.batch.before=1*return(stall)->off";
    let quick = options("5s").set("HOOKLEDGER__DATABASE__LOCK_WAIT", "100ms").fail_points(points);
    let daemon = Daemon::start(quick);
    with_users(&daemon);
    let report = deliver(daemon.address(), SECRET, usage_bodies(20, "stall"), 4, patient());
    report.assert_all_acknowledged();
    assert_documented(&report);
    // All may be charged before the logger's time is over: it was asked for something later.
    for actor in ["ledger", "logger"] {
        wait_until(&format!("the {actor} is replaced"), PATIENCE, || {
            (restarts(&daemon, actor, "hang") > 0).then_some(())
        });
    }
    for actor in ["ledger", "logger"] {
        assert_eq!(restarts(&daemon, actor, "hang"), 1, "{actor}");
    }
    assert_charged_once(&daemon.books(), 20);
}

#[test]
fn a_process_that_was_stopped_for_long_takes_nobody_for_hung() {
    let daemon = Daemon::start(options("5s"));
    with_users(&daemon);
    let pid = daemon.pid();
    for stop in 0..2 {
        assert!(daemon.signal("STOP"));
        pause(Duration::from_secs(10));
        assert!(daemon.signal("CONT"));
        let body = event(&format!("e-{stop}"));
        deliver(daemon.address(), SECRET, vec![body], 1, patient()).assert_all_acknowledged();
    }
    assert!(daemon.is_running() && daemon.pid() == pid);
    for actor in ["receiver", "logger", "ledger", "scheduler"] {
        assert_eq!(restarts(&daemon, actor, "hang"), 0, "{actor}");
    }
}
