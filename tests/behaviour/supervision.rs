//! Every actor fails in every way under load: nothing is lost or doubled, senders get documented answers only, and the
//! process goes on.

use std::time::Duration;

use crate::crashes::{assert_charged_once, assert_documented, mixed_bodies, with_users};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::sender::{Report, Retry, deliver, start_delivery};
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// So many events of each kind come in at a time, for as long as an actor has not failed often enough.
const EVENTS_AT_A_TIME: usize = 80;
const MOST_EVENTS: usize = 8000;

/// How often the whole matrix is gone through; `HOOKLEDGER_TEST_SUPERVISION_ROUNDS` says otherwise (17: 1,020 failures).
const ROUNDS: usize = 1;

/// Where an actor passes with each message, how often it fails there, and after how many passes each time.
const PLACES: [(&str, &str, usize, usize); 4] = [
    ("receiver", "receiver.handle", 4, 40),
    ("logger", "logger.handle", 4, 20),
    ("ledger", "ledger.handle", 4, 20),
    ("scheduler", "scheduler.wake", 3, 1),
];

/// 15 of each cause.
const CAUSES: [&str; 4] = ["panic", "error", "hang", "exit"];

/// Long enough that a busy machine does not look like a hang, and far shorter than a thread hangs here.
fn hang_timeout(cause: &str) -> &'static str {
    if cause == "hang" { "5s" } else { "15s" }
}

fn action(cause: &str) -> &'static str {
    match cause {
        "panic" => "panic(boom of a test)",
        "error" => "return(error)",
        "exit" => "return(exit)",
        "hang" => "sleep(20000)",
        _ => panic!("no such cause: {cause}"),
    }
}

fn fail_points(cause: &str) -> String {
    let program = |(_, place, times, passes): (&str, &str, usize, usize)| {
        let one = format!("{passes}*off->1*{}", action(cause));
        format!("{place}={}", vec![one; times].join("->"))
    };
    PLACES.map(program).join(";")
}

/// Supervised so that a hang is found within the test's patience, and with a budget for all that will be done to it.
fn options(cause: &str) -> DaemonOptions {
    DaemonOptions::new()
        .set("HOOKLEDGER__SUPERVISOR__MAX_RESTARTS", 40)
        .set("HOOKLEDGER__SUPERVISOR__HEARTBEAT", "200ms")
        .set("HOOKLEDGER__SUPERVISOR__HANG_TIMEOUT", hang_timeout(cause))
}

pub fn restarts(daemon: &Daemon, actor: &str, cause: &str) -> usize {
    let name = format!("hookledger_actor_restarts_total{{actor=\"{actor}\",cause=\"{cause}\"}}");
    daemon.metric(&name).unwrap_or_else(|| panic!("{name} is not there")) as usize
}

fn hung_threads(daemon: &Daemon, actor: &str) -> f64 {
    daemon.metric(&format!("hookledger_actor_hung_threads{{actor=\"{actor}\"}}")).unwrap_or_default()
}

/// For as long as a number of hangs one after the other may hold up an event.
fn most_patient() -> Retry {
    Retry::until(5 * PATIENCE, Duration::from_millis(20))
}

fn bodies(from: usize) -> Vec<String> {
    mixed_bodies(EVENTS_AT_A_TIME, &format!("{from}"))
}

/// Sends events until every actor has failed as often as it was told to; how many usage events were sent.
fn send_until_all_have_failed(daemon: &Daemon, cause: &str) -> i64 {
    let mut sent = 0;
    let are_done = || PLACES.iter().all(|(actor, _, times, _)| restarts(daemon, actor, cause) >= *times);
    while !are_done() {
        assert!(sent < MOST_EVENTS, "after {sent} events not every actor has ended by {cause} as often as it should");
        let report = deliver(daemon.address(), SECRET, bodies(sent), 16, most_patient());
        assert_fine(&report);
        sent += EVENTS_AT_A_TIME;
    }
    sent as i64
}

fn assert_fine(report: &Report) {
    report.assert_all_acknowledged();
    assert_documented(report);
}

fn every_actor_ends_by(cause: &str) {
    let rounds = std::env::var("HOOKLEDGER_TEST_SUPERVISION_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    for _ in 0..rounds {
        let daemon = Daemon::prepare(options(cause).fail_points(&fail_points(cause)));
        daemon.launch();
        daemon.wait_ready();
        with_users(&daemon);
        let pid = daemon.pid();
        let sent = send_until_all_have_failed(&daemon, cause);
        // Threads that hung wake while events go on coming in, and find themselves replaced.
        let ongoing = start_delivery(daemon.address(), SECRET, bodies(sent as usize), 4, most_patient());
        for (actor, _, times, _) in PLACES {
            wait_until(&format!("no thread of the {actor} hangs"), PATIENCE, || {
                (hung_threads(&daemon, actor) == 0.0).then_some(())
            });
            for other in CAUSES {
                let expected = if other == cause { times } else { 0 };
                assert_eq!(restarts(&daemon, actor, other), expected, "{actor} by {other}, where all end by {cause}");
            }
        }
        assert_fine(&ongoing.finish());
        assert_charged_once(&daemon.books(), sent + EVENTS_AT_A_TIME as i64);
        assert!(daemon.is_running() && daemon.pid() == pid, "the process was not restarted");
        assert_told(&daemon, cause);
    }
}

/// Status tells the same as the metrics, and what was said last.
fn assert_told(daemon: &Daemon, cause: &str) {
    // The last one may have ended a moment ago.
    let status = wait_until("all run", PATIENCE, || {
        let status = daemon.command_json(&["status"]);
        let do_run = status["actors"].as_array().unwrap().iter().all(|told| told["state"] == "running");
        do_run.then_some(status)
    });
    for (actor, _, times, _) in PLACES {
        let told = status["actors"].as_array().unwrap().iter().find(|told| told["name"] == actor).unwrap();
        assert_eq!(told["restarts"], times, "{told}");
        assert_eq!((&told["restartsByCause"][cause], &told["lastCause"]), (&times.into(), &cause.into()), "{told}");
        let error = told["lastError"].as_str().unwrap_or_default();
        let expected = match cause {
            "panic" => "boom of a test",
            "error" => "a test made this step fail",
            "hang" => "no progress for",
            _ => "",
        };
        assert!(error.contains(expected), "{told}");
    }
}

#[test]
fn every_actor_panics_under_load() {
    every_actor_ends_by("panic");
}

#[test]
fn every_actor_fails_under_load() {
    every_actor_ends_by("error");
}

#[test]
fn every_actor_hangs_under_load() {
    every_actor_ends_by("hang");
}

#[test]
fn every_actor_stops_under_load() {
    every_actor_ends_by("exit");
}
