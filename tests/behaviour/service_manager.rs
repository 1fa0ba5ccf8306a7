//! What a service manager is told, and when: ready, status, signs of life, reload, stop.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::database::{is_sqlite, unreachable_url};
use crate::kit::events::Usage;
use crate::kit::service_manager::{FakeManager, bind, has_line, managed};
use crate::kit::wait::{pause, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// How often a sign of life is due where a test looks for it.
const DUE: Duration = Duration::from_millis(400);

/// Hears a daemon from its first word on.
fn heard(options: DaemonOptions) -> (Daemon, FakeManager) {
    let daemon = Daemon::prepare(managed(options));
    let manager = FakeManager::of(&daemon);
    daemon.launch();
    (daemon, manager)
}

fn watched() -> DaemonOptions {
    DaemonOptions::new().set("WATCHDOG_USEC", DUE.as_micros())
}

fn credit(event_id: &str) -> String {
    Usage::new(event_id).quota(500).at_secs(now_secs()).json()
}

#[test]
fn it_is_ready_when_events_can_be_taken() {
    let (daemon, manager) = heard(DaemonOptions::new());
    let ready = manager.wait_for("READY=1", 0);
    assert!(daemon.is_ready(), "at once: {}", daemon.output().stderr);
    assert_ne!(daemon.post(credit("first")).status, 503);
    assert!(has_line(&ready, "STATUS=events are taken; channel "), "{ready}");
    let messages = manager.messages();
    let starting = messages.iter().position(|one| has_line(one, "STATUS=starting: ")).expect("the start is told");
    assert!(has_line(&messages[starting], "EXTEND_TIMEOUT_USEC="), "{messages:?}");
    assert!(starting < messages.iter().position(|one| has_line(one, "READY=1")).unwrap(), "{messages:?}");
}

#[test]
fn it_is_never_ready_without_its_database() {
    // A folder is no database.
    let url = if is_sqlite() { "sqlite:///dev" } else { unreachable_url() };
    let options = DaemonOptions::new()
        .set("HOOKLEDGER__DATABASE__URL", url)
        .set("HOOKLEDGER__DATABASE__START_TIMEOUT", "1s")
        .set("HOOKLEDGER__ADMIN__SOCKET", "{folder}/admin.sock");
    let (daemon, manager) = heard(options);
    assert_eq!(daemon.wait_exit(PATIENCE), Some(3), "{}", daemon.output().stderr);
    manager.wait_for("STATUS=starting: ", 0);
    assert_eq!(manager.count("READY=1"), 0, "{:?}", manager.messages());
}

#[test]
fn its_status_is_one_true_line_that_changes_with_what_happens() {
    let (daemon, manager) = heard(DaemonOptions::new());
    daemon.wait_ready();
    let quiet = manager.wait_for_status("it counted", |status| status.contains("0 pending, 0 failed, 0 dead"));
    assert!(quiet.starts_with("events are taken; channel idle; no log is read"), "{quiet}");
    assert_eq!(daemon.post(credit("of no key")).status, 200);
    let after = manager.wait_for_status("it changed", |status| status.contains("1 failed"));
    assert!(after.contains("channel healthy"), "{after}");
}

#[test]
fn what_the_operator_switched_off_is_told_and_is_no_failed_start() {
    let (_daemon, manager) = heard(DaemonOptions::new().set("HOOKLEDGER__WEBHOOK__ENABLED", "false"));
    let ready = manager.wait_for("READY=1", 0);
    assert!(has_line(&ready, "STATUS=events are not taken: Webhook is disabled; channel disabled"), "{ready}");
}

#[test]
fn it_gives_signs_of_life_while_it_gets_on() {
    let (daemon, manager) = heard(watched());
    daemon.wait_ready();
    let count = || manager.count("WATCHDOG=1");
    wait_until("signs of life come", PATIENCE, || (count() >= 3).then_some(()));
    assert!(daemon.signal("STOP"));
    // What it said before it stood still arrives, at its time; after that there is silence.
    let before = wait_until("a process that stands still gives none", PATIENCE, || {
        let before = count();
        pause(DUE * 3);
        (count() == before).then_some(before)
    });
    assert!(daemon.signal("CONT"));
    wait_until("they come again", PATIENCE, || (count() > before).then_some(()));
}

#[test]
fn nobody_who_did_not_ask_gets_signs_of_life() {
    let (daemon, manager) = heard(DaemonOptions::new());
    daemon.wait_ready();
    manager.wait_for_status("it goes on", |status| status.contains("0 pending"));
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(manager.count("WATCHDOG=1"), 0, "{:?}", manager.messages());
}

#[test]
fn a_reload_is_told_from_its_begin_to_its_end() {
    let daemon = Daemon::prepare(managed(DaemonOptions::new().config_file()));
    daemon.write_config("server.ack_timeout = \"2s\"\n");
    let manager = FakeManager::of(&daemon);
    daemon.launch();
    manager.wait_for("READY=1", 0);
    let texts = ["1s", "soon", "2s"].map(|time| format!("server.ack_timeout = \"{time}\"\n"));
    for (text, is_applied) in texts.iter().zip([true, false, true]) {
        let before = manager.messages().len();
        daemon.write_config(text);
        assert_eq!(daemon.reload(), is_applied);
        let ready = wait_until("the end is told", PATIENCE, || {
            let messages = manager.messages().split_off(before);
            let begin = messages.iter().position(|one| has_line(one, "RELOADING=1"))?;
            assert!(has_line(&messages[begin], "MONOTONIC_USEC="), "{messages:?}");
            messages.into_iter().skip(begin).find(|one| has_line(one, "READY=1"))
        });
        assert!(!has_line(&ready, "RELOADING=1"), "{ready}");
        let is_refused = |status: &str| status.contains("the last reload was refused");
        manager.wait_for_status("the outcome shows", |status| is_refused(status) != is_applied);
    }
}

#[test]
fn a_stop_is_told_before_what_is_under_way_is_finished() {
    let options = DaemonOptions::new()
        .fail_points("store.settle.written=1*sleep(5000)")
        .answers_late()
        .set("HOOKLEDGER__SERVER__SHUTDOWN_TIMEOUT", "15s");
    let (daemon, manager) = heard(options);
    daemon.wait_ready();
    let user = daemon.add_user("user@example.com", 100);
    daemon.add_key(&user, 1);
    thread::scope(|scope| {
        let answer = scope.spawn(|| daemon.post(credit("under way")));
        let arrived = "hookledger_channel_last_event_timestamp_seconds";
        wait_until("the event has arrived", PATIENCE, || daemon.metric(arrived));
        assert!(daemon.signal("TERM"));
        let stopping = manager.wait_for("STOPPING=1", 0);
        assert!(has_line(&stopping, "EXTEND_TIMEOUT_USEC=20000000"), "more than it may take: {stopping}");
        assert!(has_line(&stopping, "STATUS=stopping"), "{stopping}");
        let answer = answer.join().unwrap();
        assert!(answer.status == 200 && answer.closes(), "the next one is for who listens next: {answer:?}");
    });
    assert_eq!(daemon.wait_exit(PATIENCE), Some(0));
    let status = manager.status();
    assert!(status.is_some_and(|status| status.starts_with("stopping")), "it is the last: {:?}", manager.messages());
    assert_eq!(daemon.books().balance(&user), 99);
}

#[test]
fn a_manager_that_does_not_read_holds_up_nobody() {
    let daemon = Daemon::prepare(managed(DaemonOptions::new().set("WATCHDOG_USEC", 4000)));
    let _unread = bind(&daemon);
    daemon.launch();
    daemon.wait_ready();
    // More words than any socket keeps.
    pause(Duration::from_secs(2));
    assert_eq!(daemon.post(credit("evt")).status, 200);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn without_a_manager_or_behind_a_dead_one_it_works_as_ever() {
    let daemon = Daemon::start(managed(DaemonOptions::new()));
    let told = || daemon.output().stderr.contains("the service manager cannot be told");
    wait_until("it is told once", PATIENCE, || told().then_some(()));
    assert_eq!(daemon.post(credit("evt")).status, 200);
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(daemon.output().stderr.matches("the service manager cannot be told").count(), 1);
}

#[test]
fn a_journal_that_is_not_there_is_told_and_costs_no_line() {
    let daemon = Daemon::start(DaemonOptions::new().set("HOOKLEDGER__LOG__FORMAT", "journald"));
    let log = || daemon.output().stderr;
    if Path::new("/run/systemd/journal/socket").exists() {
        assert_eq!(log(), "", "all of it is in the journal");
    } else {
        wait_until("it is told", PATIENCE, || log().contains("hookledger is listening").then_some(()));
        assert!(log().contains("the journal cannot be reached"), "{}", log());
    }
}

/// Somebody else's standard error is not the journal, whatever an inherited variable says.
#[test]
fn what_is_not_connected_with_the_journal_gets_json() {
    let mut options = DaemonOptions::new().set("JOURNAL_STREAM", "1:1");
    options.without.push("HOOKLEDGER__LOG__FORMAT".to_owned());
    let daemon = Daemon::start(options);
    let log = || daemon.output().stderr;
    wait_until("it is told", PATIENCE, || log().contains("hookledger is listening").then_some(()));
    assert!(log().lines().all(|line| line.starts_with('{')), "{}", log());
}
