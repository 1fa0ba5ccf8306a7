//! The database goes away for far longer than an actor may hang: nobody is restarted, senders are told 503, and it passes
//! by itself.

use std::time::Duration;

use crate::crashes::{assert_charged_once, assert_documented, patient, usage_bodies, with_users};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::sender::{Report, Retry, deliver};
use crate::kit::wait::{Deadline, wait_until};
use crate::server_crashes::behind;
use crate::supervision::restarts;

const PATIENCE: Duration = Duration::from_secs(60);

/// How long it is away; `HOOKLEDGER_TEST_AWAY_SECS` says otherwise (300 for the five minutes of a long run).
const AWAY_SECS: u64 = 20;

/// A quarter of the time, and more than a busy machine keeps a thread waiting.
const HANG_TIMEOUT: &str = "5s";

fn options() -> DaemonOptions {
    DaemonOptions::new()
        .set("HOOKLEDGER__DATABASE__LOCK_WAIT", "1s")
        .set("HOOKLEDGER__SUPERVISOR__HEARTBEAT", "100ms")
        .set("HOOKLEDGER__SUPERVISOR__HANG_TIMEOUT", HANG_TIMEOUT)
        .set("HOOKLEDGER__SUPERVISOR__MAX_RESTARTS", 0)
}

/// Sends while the database is away, which nobody can acknowledge; what became of it.
fn send_while_away(daemon: &Daemon) -> Report {
    let secs = std::env::var("HOOKLEDGER_TEST_AWAY_SECS").map_or(AWAY_SECS, |text| text.parse().unwrap());
    let back = Deadline::after(Duration::from_secs(secs));
    let mut all = Report::default();
    let mut rounds = 0;
    while !back.has_passed() {
        let one = Retry { timeout: Duration::from_secs(30), ..Retry::never() };
        let report = deliver(daemon.address(), SECRET, usage_bodies(4, &format!("away-{rounds}")), 4, one);
        assert!(!daemon.is_ready(), "it says that it cannot take events");
        all.deliveries.extend(report.deliveries);
        rounds += 1;
    }
    all
}

/// The event by which it shows that the database is away.
fn first() -> String {
    usage_bodies(1, "first").remove(0)
}

fn wait_not_ready(daemon: &Daemon) {
    wait_until("it says that it is not ready", PATIENCE, || {
        daemon.try_post(first()).ok();
        (!daemon.is_ready()).then_some(())
    });
}

/// What was refused while it was away is accepted afterwards, beside what was charged already, and nobody was restarted.
fn assert_recovered(daemon: &Daemon, pid: u32, refused: Report, charged: i64) {
    wait_until("it is ready again", PATIENCE, || daemon.is_ready().then_some(()));
    assert!(refused.statuses().keys().all(|status| *status == 503), "{:?}", refused.statuses());
    let mut bodies: Vec<String> = refused.deliveries.into_iter().map(|delivery| delivery.body).collect();
    bodies.push(first());
    let events = charged + bodies.len() as i64;
    let report = deliver(daemon.address(), SECRET, bodies, 8, patient());
    report.assert_all_acknowledged();
    assert_documented(&report);
    assert_charged_once(&daemon.books(), events);
    assert!(daemon.is_running() && daemon.pid() == pid);
    for actor in ["receiver", "logger", "ledger", "scheduler"] {
        for cause in ["panic", "error", "hang", "exit"] {
            assert_eq!(restarts(daemon, actor, cause), 0, "{actor} by {cause}");
        }
    }
}

#[test]
fn a_database_that_another_program_locks_restarts_nobody() {
    let daemon = Daemon::start(options());
    with_users(&daemon);
    let pid = daemon.pid();
    let hold = daemon.books().hold_writers();
    wait_not_ready(&daemon);
    let refused = send_while_away(&daemon);
    drop(hold);
    assert_recovered(&daemon, pid, refused, 0);
}

#[test]
fn a_server_that_cannot_be_reached_restarts_nobody() {
    only_on_a_server!();
    let mut proxy = None;
    let daemon = behind(&mut proxy, options());
    let (proxy, pid) = (proxy.unwrap(), daemon.pid());
    proxy.refuse_and_cut();
    wait_not_ready(&daemon);
    let refused = send_while_away(&daemon);
    proxy.forward();
    assert_recovered(&daemon, pid, refused, 0);
}

#[test]
fn a_server_that_falls_silent_restarts_nobody() {
    only_on_a_server!();
    let mut proxy = None;
    let daemon = behind(&mut proxy, options());
    let (proxy, pid) = (proxy.unwrap(), daemon.pid());
    // Each owner of a connection waits for half a minute before it gives its connection up.
    proxy.fall_silent();
    let patient = Retry::until(2 * PATIENCE, Duration::from_millis(100));
    let report = deliver(daemon.address(), SECRET, usage_bodies(20, "silent"), 8, patient);
    report.assert_all_acknowledged();
    assert_documented(&report);
    assert_recovered(&daemon, pid, Report::default(), 20);
}
