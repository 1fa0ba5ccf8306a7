//! How a daemon ends: what is under way is answered and in the books, and the exit code is 0.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::kit::books::Books;
use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::kit::wait::wait_until;
use crate::kit::wire::http_request;

const PATIENCE: Duration = Duration::from_secs(20);

/// Below `server.shutdown_timeout`.
const SOON: Duration = Duration::from_secs(15);

fn with_user(options: DaemonOptions) -> (Daemon, String) {
    let daemon = Daemon::start(options);
    let user = daemon.add_user("user@example.com", 100);
    daemon.add_key(&user, 1);
    (daemon, user)
}

fn credit(event_id: &str) -> String {
    Usage::new(event_id).quota(500).at_secs(now_secs()).json()
}

/// Waits until the daemon has begun with its first event.
#[track_caller]
fn wait_arrived(daemon: &Daemon) {
    let arrived = "hookledger_channel_last_event_timestamp_seconds";
    wait_until("the event has arrived", PATIENCE, || daemon.metric(arrived));
}

#[track_caller]
fn assert_books(daemon: &Daemon, user: &str, balance: i64) {
    assert_eq!(daemon.books().balance(user), balance);
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
}

#[test]
fn the_last_events_before_the_end_are_in_the_books() {
    let (daemon, user) = with_user(DaemonOptions::new());
    for event_id in ["last but one", "last"] {
        assert_eq!(daemon.post(credit(event_id)).status, 200);
    }
    assert_eq!(daemon.terminate(), 0);
    assert_books(&daemon, &user, 98);
    for event_id in ["last but one", "last"] {
        assert_eq!(daemon.books().inbox(event_id), Some(("processed".to_owned(), None)));
    }
    let log = daemon.output().stderr;
    assert!(log.contains("SIGTERM") && log.lines().last().is_some_and(|line| line.contains("stopped")), "{log}");
}

/// The last commit comes as late as one can: while the daemon stops.
#[test]
fn a_stopped_daemon_leaves_everything_in_one_file() {
    only_on_sqlite!();
    let (daemon, user) = with_user(DaemonOptions::new().fail_points("store.settle.written=1*sleep(700)"));
    let answer = thread::scope(|scope| {
        let answer = scope.spawn(|| daemon.post(credit("last")));
        wait_arrived(&daemon);
        assert_eq!(daemon.terminate(), 0);
        answer.join().expect("it is answered")
    });
    assert_eq!(answer.status, 200);
    let left = fs::metadata(daemon.folder().join("hookledger.db-wal")).map_or(0, |log| log.len());
    assert_eq!(left, 0, "bytes left in the write-ahead log, which a stop folds into the database");
    // What an operator copies, who sees one file.
    let copy = daemon.folder().join("copy.db");
    fs::copy(daemon.database_file(), &copy).unwrap();
    let copied = Books::at(&copy);
    assert_eq!((copied.count("webhook_logs"), copied.balance(&user)), (1, 99), "nothing is missing in the copy");
    copied.assert_whole();
}

#[test]
fn an_event_that_is_being_settled_is_finished_and_answered() {
    let (daemon, user) = with_user(DaemonOptions::new().fail_points("store.settle.written=1*sleep(700)"));
    thread::scope(|scope| {
        let answer = scope.spawn(|| daemon.post(credit("under way")));
        wait_arrived(&daemon);
        assert_eq!(daemon.terminate(), 0);
        let answer = answer.join().expect("it is answered");
        assert_eq!((answer.status, answer.json()["success"].as_bool()), (200, Some(true)), "{}", answer.text());
    });
    assert_books(&daemon, &user, 99);
}

#[test]
fn committed_events_are_answered_before_the_end() {
    let (daemon, user) = with_user(DaemonOptions::new().fail_points("webhook.answer=2*sleep(500)"));
    thread::scope(|scope| {
        let answers: Vec<_> = ["one", "two"].map(|event_id| scope.spawn(|| daemon.post(credit(event_id)))).into();
        wait_until("both are committed", PATIENCE, || (daemon.books().count("hookledger_claims") == 2).then_some(()));
        assert_eq!(daemon.terminate(), 0);
        for answer in answers {
            assert_eq!(answer.join().expect("it is answered").status, 200);
        }
    });
    assert_books(&daemon, &user, 98);
}

#[test]
fn sigint_ends_it_as_well() {
    let (daemon, user) = with_user(DaemonOptions::new());
    assert_eq!(daemon.post(credit("evt")).status, 200);
    assert!(daemon.signal("INT"));
    assert_eq!(daemon.wait_exit(PATIENCE), Some(0));
    assert_books(&daemon, &user, 99);
}

#[test]
fn an_idle_connection_does_not_hold_it_up() {
    let (daemon, _) = with_user(DaemonOptions::new());
    let mut idle = daemon.connection();
    let answer = idle.request(&http_request("GET", "/readyz", &[], b"")).expect("an answer");
    assert!(answer.status == 200 && !answer.closes(), "the connection is kept");
    assert!(daemon.signal("TERM"));
    assert_eq!(daemon.wait_exit(SOON), Some(0), "a sender keeps its connection open between events");
}

#[test]
fn half_a_request_holds_it_up_no_longer_than_allowed() {
    // Nothing else ends it any sooner.
    let options = DaemonOptions::new().set("HOOKLEDGER__SERVER__BODY_TIMEOUT", "60s");
    let (daemon, _) = with_user(options.set("HOOKLEDGER__SERVER__SHUTDOWN_TIMEOUT", "1s"));
    let mut slow = daemon.connection();
    let request = daemon.signed_request(credit("half"));
    slow.send(&request[..request.len() - 10]).expect("the first part");
    // The head has arrived once another request is answered behind it.
    assert_eq!(daemon.post(credit("whole")).status, 200);
    assert!(daemon.signal("TERM"));
    assert_eq!(daemon.wait_exit(SOON), Some(0));
    assert_eq!(daemon.books().inbox("half"), None, "half an event is none");
}

#[test]
fn a_new_connection_is_refused_after_the_end_and_works_after_a_start() {
    let (daemon, user) = with_user(DaemonOptions::new());
    assert_eq!(daemon.terminate(), 0);
    assert!(daemon.try_post(credit("too early")).is_err());
    daemon.launch();
    daemon.wait_ready();
    assert_eq!(daemon.post(credit("in time")).status, 200);
    assert_books(&daemon, &user, 99);
}
