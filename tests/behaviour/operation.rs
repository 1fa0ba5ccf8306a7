//! What an operator sees of a running daemon: metrics, logs, readiness.

use std::time::Duration;

use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::{Usage, ping};
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

fn with_user() -> Daemon {
    with_user_and(DaemonOptions::new())
}

fn with_user_and(options: DaemonOptions) -> Daemon {
    let daemon = Daemon::start(options);
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, 1);
    daemon
}

fn usage(id: &str) -> String {
    Usage::new(id).remote_key(1).quota(1000).json()
}

/// Log lines (JSON) that carry the given event id.
fn log_lines_of(daemon: &Daemon, event_id: &str) -> Vec<serde_json::Value> {
    let log = daemon.output().stderr;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter(|line| line["event_id"] == event_id).collect()
}

#[test]
fn metrics_tell_what_happened() {
    let daemon = with_user();
    // A repeat tells the same second.
    let first = usage("e-1");
    daemon.post(first.clone());
    daemon.post(first);
    daemon.post(Usage::new("e-2").remote_key(99).quota(5).json());
    daemon.post(ping("p-1"));
    daemon.post_with(&[], usage("e-3").as_bytes());
    for (name, value) in [
        ("hookledger_webhook_requests_total{outcome=\"processed\"}", 2.0),
        ("hookledger_webhook_requests_total{outcome=\"duplicate\"}", 1.0),
        ("hookledger_webhook_requests_total{outcome=\"failed\"}", 1.0),
        ("hookledger_webhook_requests_total{outcome=\"missing_signature\"}", 1.0),
        ("hookledger_ledger_settlements_total{source=\"webhook\",outcome=\"settled\"}", 1.0),
        ("hookledger_ledger_settlements_total{source=\"webhook\",outcome=\"already_settled\"}", 1.0),
        ("hookledger_ledger_settlements_total{source=\"webhook\",outcome=\"unknown_key\"}", 1.0),
        ("hookledger_ledger_credits_total{type=\"DEDUCT\"}", 2.0),
        ("hookledger_ledger_batch_size_count", 3.0),
        ("hookledger_ledger_commit_duration_seconds_count", 3.0),
        ("hookledger_webhook_duration_seconds_count", 5.0),
    ] {
        assert_eq!(daemon.metric(name), Some(value), "{name}");
    }
    let version = format!("hookledger_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(daemon.metric(&version), Some(1.0));
    for actor in ["receiver", "logger", "ledger", "scheduler", "supervisor"] {
        assert_eq!(daemon.metric(&format!("hookledger_actor_up{{actor=\"{actor}\"}}")), Some(1.0), "{actor}");
    }
    for (name, value) in [
        ("hookledger_events{status=\"failed\"}", 1.0),
        ("hookledger_events{status=\"pending\"}", 0.0),
        ("hookledger_parked_tokens", 1.0),
        ("hookledger_actor_mailbox_depth{actor=\"ledger\"}", 0.0),
    ] {
        wait_until(name, PATIENCE, || (daemon.metric(name) == Some(value)).then_some(()));
    }
    assert!(daemon.metric("process_open_fds").is_some());
}

#[test]
fn every_metric_is_described() {
    let daemon = with_user();
    daemon.post(usage("e-1"));
    let text = daemon.metrics();
    let described = |name: &str| text.lines().any(|line| line.starts_with(&format!("# HELP {name} ")));
    let mut names = 0;
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(described(name), "{name} has no help");
        assert!(name.starts_with("hookledger_") || name.starts_with("process_"), "{name} has a foreign prefix");
        names += 1;
    }
    assert!(names > 15, "{names} metrics");
}

#[test]
fn a_failure_is_logged_once_with_its_event_id() {
    let daemon = with_user();
    daemon.post(Usage::new("e-unknown").remote_key(99).quota(5).json());
    daemon.post(usage("e-conflict"));
    daemon.post(Usage::new("e-conflict").remote_key(1).quota(7).json());
    for (event_id, outcome) in [("e-unknown", "failed"), ("e-conflict", "conflict")] {
        let lines = wait_until("the line is there", PATIENCE, || {
            let lines = log_lines_of(&daemon, event_id);
            (!lines.is_empty()).then_some(lines)
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["outcome"], outcome);
        assert_eq!(lines[0]["level"], "WARN");
    }
}

#[test]
fn a_database_that_fails_shows_in_readiness_and_recovers_by_itself() {
    let mut daemon = with_user();
    daemon.set_environment("FAILPOINTS", "store.settle.written=return(error);store.record.written=return(error)");
    daemon.restart();
    let refused = daemon.post(usage("e-1"));
    assert_eq!(refused.status, 503);
    assert!(refused.header("Retry-After").is_some());
    // The next probe commits, since only batches fail here.
    wait_until("ready again", PATIENCE, || daemon.is_ready().then_some(()));
    daemon.unset_environment("FAILPOINTS");
    daemon.restart();
    assert_eq!(daemon.post(usage("e-1")).json()["message"], "Event processed successfully");
    daemon.books().assert_whole();
}

#[test]
fn a_second_daemon_on_the_same_files_is_refused() {
    let daemon = with_user();
    let second = daemon.command_with(
        &["serve"],
        &[("HOOKLEDGER__SERVER__LISTEN", "127.0.0.1:0"), ("HOOKLEDGER__METRICS__LISTEN", "")],
    );
    assert_eq!(second.status.code(), Some(2));
    let log = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(log.contains("another daemon"), "{log}");
    assert_eq!(daemon.post(usage("e-1")).status, 200, "the first goes on");
}
