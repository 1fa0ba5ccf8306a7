//! Where replacing does not help: exit 70 with the reason, and the next start waits longer each time, until a run was
//! healthy.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::crashes::{mixed_bodies, with_users};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::sender::{Retry, deliver};
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn an_actor_that_fails_at_once_for_ever_ends_the_process_and_is_named() {
    for (actor, place, action, cause) in [
        ("receiver", "receiver.handle", "return(exit)", "exit"),
        ("logger", "logger.handle", "panic(boom of a test)", "panic: boom of a test"),
        ("ledger", "ledger.handle", "return(error)", "error: a test made this step fail: ledger.handle"),
        ("scheduler", "scheduler.wake", "panic(boom of a test)", "panic: boom of a test"),
    ] {
        let options = DaemonOptions::new().set("HOOKLEDGER__SUPERVISOR__MAX_RESTARTS", 4);
        let mut daemon = Daemon::start(options);
        with_users(&daemon);
        daemon.kill();
        daemon.set_environment("FAILPOINTS", format!("{place}={action}"));
        daemon.launch();
        let mut rounds = 0;
        let end = wait_until(&format!("the {actor} is given up"), PATIENCE, || {
            // The logger alone could take all of them while the ledger is being replaced.
            let bodies = mixed_bodies(4, &format!("round-{rounds}"));
            rounds += 1;
            deliver(daemon.address(), SECRET, bodies, 4, Retry::never());
            daemon.wait_exit(Duration::from_millis(50))
        });
        assert_eq!(end, 70, "{actor}");
        let log = daemon.output().stderr;
        let reason = format!("the {actor} ended ({cause}): more than 4 ends of actors within 60s");
        assert!(log.contains(&reason), "it says which and why, {reason:?}: {log}");
        assert!(log.contains("draining") && log.contains("stopped"), "{actor}: {log}");
    }
}

/// Where it is remembered that the supervisor gave up.
fn record(daemon: &Daemon) -> PathBuf {
    daemon.state_folder().join("gave-up.json")
}

fn give_up(daemon: &Daemon) -> serde_json::Value {
    daemon.launch();
    assert_eq!(daemon.wait_exit(PATIENCE), Some(70));
    serde_json::from_slice(&fs::read(record(daemon)).unwrap()).unwrap()
}

fn unable_to_keep_its_scheduler() -> DaemonOptions {
    DaemonOptions::new().fail_points("scheduler.wake=panic").set("HOOKLEDGER__SUPERVISOR__MAX_RESTARTS", 1)
}

#[test]
fn each_start_after_an_exit_with_70_waits_longer_until_a_run_was_healthy() {
    let mut daemon = Daemon::prepare(unable_to_keep_its_scheduler());
    let first = give_up(&daemon);
    assert_eq!(first["times"], 1);
    assert!(first["reason"].as_str().unwrap().contains("the scheduler ended (panic"), "{first}");
    assert!(!daemon.output().stderr.contains("this start waits"));
    let second = give_up(&daemon);
    let waited = second["lastAtMs"].as_i64().unwrap() - first["lastAtMs"].as_i64().unwrap();
    assert!(second["times"] == 2 && waited >= 1000, "the second start waited for a second: {second}, {waited} ms");
    let log = daemon.output().stderr;
    assert!(log.contains("the supervisor has given up 1 times in a row: this start waits"), "{log}");

    daemon.unset_environment("FAILPOINTS");
    // Ten of them make a healthy run, which is not over before the metric was looked at.
    daemon.set_environment("HOOKLEDGER__SUPERVISOR__WINDOW", "2s");
    daemon.launch();
    daemon.wait_ready();
    let times = daemon.metric("hookledger_supervisor_give_ups");
    assert_eq!(times, Some(2.0), "an alert can see it");
    wait_until("it is forgotten", PATIENCE, || (!record(&daemon).exists()).then_some(()));
    daemon.restart();
    assert_eq!(daemon.metric("hookledger_supervisor_give_ups"), Some(0.0));
}

#[test]
fn a_stop_that_was_asked_for_and_a_junk_record_make_no_start_wait() {
    let mut daemon = Daemon::prepare(unable_to_keep_its_scheduler());
    give_up(&daemon);
    daemon.unset_environment("FAILPOINTS");
    daemon.launch();
    daemon.wait_ready();
    assert!(record(&daemon).exists(), "it has not run for long enough");
    assert_eq!(daemon.terminate(), 0);
    assert!(!record(&daemon).exists(), "whoever stops it was there");
    fs::write(record(&daemon), "junk").unwrap();
    daemon.launch();
    daemon.wait_ready();
    assert!(daemon.output().stderr.contains("how often the supervisor gave up cannot be read"));
}

#[test]
fn a_start_that_waits_can_be_ended() {
    let daemon = Daemon::prepare(unable_to_keep_its_scheduler());
    give_up(&daemon);
    let kept = serde_json::json!({ "times": 9, "lastAtMs": i64::MAX / 2, "reason": "of a test" });
    fs::write(record(&daemon), kept.to_string()).unwrap();
    daemon.launch();
    wait_until("it waits", PATIENCE, || daemon.output().stderr.contains("this start waits 60s").then_some(()));
    assert!(daemon.signal("TERM"));
    assert!(daemon.wait_exit(Duration::from_secs(10)).is_some());
}
