//! A server that refuses: read-only, full, picky about sizes, not there yet. Senders are told 503 or 202, and all of it
//! passes by itself.

use std::time::Duration;

use crate::crashes::{usage_bodies, with_users};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::mariadb::PrivateServer;
use crate::kit::sender::{Retry, deliver};
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

fn patient() -> Retry {
    Retry::until(PATIENCE, Duration::from_millis(20))
}

fn event(id: &str) -> String {
    Usage::new(id).remote_key(1).quota(500).json()
}

fn assert_charged_once(daemon: &Daemon, events: i64) {
    let books = daemon.books();
    wait_until("nothing is pending", PATIENCE, || (books.count("hookledger_inbox") == 0).then_some(()));
    assert_eq!(books.count("hookledger_claims"), events);
    books.assert_whole();
    books.assert_carried_exactly();
}

fn wait_told(daemon: &Daemon, words: &str) {
    wait_until(&format!("it says {words:?}"), PATIENCE, || daemon.output().stderr.contains(words).then_some(()));
}

fn execute(server: &PrivateServer, sql: &str) {
    server.admin().execute(None, sql);
}

#[test]
fn a_server_that_became_read_only_is_waited_for() {
    only_on_a_server!();
    let server = PrivateServer::start();
    let daemon = Daemon::start(DaemonOptions::new().on(&server));
    with_users(&daemon);
    assert_eq!(daemon.post(event("before")).status, 200);
    execute(&server, "SET GLOBAL read_only = 1");
    let answer = daemon.post(event("during"));
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(!daemon.is_ready(), "the write that failed told");
    execute(&server, "SET GLOBAL read_only = 0");
    wait_until("it is ready again", PATIENCE, || daemon.is_ready().then_some(()));
    assert_eq!(daemon.post(event("during")).status, 200);

    execute(&server, "SET GLOBAL read_only = 1");
    daemon.kill();
    daemon.launch();
    wait_told(&daemon, "read-only");
    execute(&server, "SET GLOBAL read_only = 0");
    daemon.wait_ready();
    assert_eq!(daemon.post(event("after")).status, 200);
    assert_charged_once(&daemon, 3);
}

#[test]
fn connections_that_others_have_taken_show_in_readiness_and_pass() {
    only_on_a_server!();
    let server = PrivateServer::start();
    let daemon = Daemon::start(DaemonOptions::new().on(&server));
    with_users(&daemon);
    let others: Vec<_> = (0..10).map(|_| daemon.books().hold("SELECT 1")).collect();
    let account = daemon.guest().platform();
    execute(&server, &format!("SET GLOBAL max_connections = 10; KILL USER '{account}'"));
    let answer = daemon.post(event("e"));
    assert_eq!(answer.status, 503, "{}", answer.text());
    wait_told(&daemon, "Too many connections");
    assert!(!daemon.is_ready());
    drop(others);
    wait_until("it is ready again", PATIENCE, || daemon.is_ready().then_some(()));
    deliver(daemon.address(), SECRET, vec![event("e")], 1, patient()).assert_all_acknowledged();
    assert_charged_once(&daemon, 1);
}

#[test]
fn batches_are_cut_to_what_the_server_takes_at_once() {
    only_on_a_server!();
    const EVENTS: usize = 150;
    let server = PrivateServer::start();
    execute(&server, "SET GLOBAL max_allowed_packet = 1048576");
    // The first batches are only recorded, and settled later, by the page.
    let failing = DaemonOptions::new().fail_points("ledger.batch.before=4*return(error)->off");
    let daemon = Daemon::start(failing.on(&server));
    with_users(&daemon);
    wait_told(&daemon, "max_allowed_packet");
    // Quotation marks are written twice as long once more on the way to the server.
    let padding = serde_json::to_string(&"\"".repeat(31_000)).unwrap();
    let body = |number: usize| {
        let usage = Usage::new(format!("large-{number}")).remote_key(number as i64 % 5 + 1).quota(700);
        usage.data_field("padding", &padding).json()
    };
    let bodies = (0..EVENTS).map(body).collect();
    deliver(daemon.address(), SECRET, bodies, 64, patient()).assert_all_acknowledged();
    assert_charged_once(&daemon, EVENTS as i64);
    let log = daemon.output().stderr;
    assert!(!log.contains("could not be settled; its callers") || log.contains("a test made this step fail"), "{log}");
    assert!(!log.contains("bigger than") && !log.contains("Broken pipe"), "{log}");
}

#[test]
fn the_start_waits_for_a_server_that_comes_later() {
    only_on_a_server!();
    let server = PrivateServer::start();
    let mut daemon = Daemon::prepare(DaemonOptions::new().on(&server));
    server.stop();
    daemon.launch();
    wait_told(&daemon, "the database cannot be opened yet");
    server.start_again();
    daemon.wait_ready();
    with_users(&daemon);
    deliver(daemon.address(), SECRET, usage_bodies(5, "e"), 1, patient()).assert_all_acknowledged();
    assert_charged_once(&daemon, 5);
    assert_eq!(daemon.terminate(), 0);
    server.stop();
    daemon.set_environment("HOOKLEDGER__DATABASE__START_TIMEOUT", "300ms");
    daemon.launch();
    assert_eq!(daemon.wait_exit(PATIENCE), Some(3), "{}", daemon.output().stderr);
    server.start_again();
}

#[test]
fn what_no_waiting_mends_is_refused_at_once() {
    only_on_a_server!();
    let daemon = Daemon::prepare(DaemonOptions::new());
    let guest = daemon.guest();
    let (admin, login) = (guest.admin(), guest.login());
    let empty = format!("{}empty", guest.state());
    let wrong = login.of(&login.user, "not-the-password").url(guest.platform());
    for (url, code, words) in [
        (wrong, 3, "Access denied"),
        (login.of("nobody-at-all", "none").url(guest.platform()), 3, "Access denied"),
        (admin.url(&format!("{}nowhere", guest.state())), 3, "Unknown database"),
        (admin.url(&empty), 2, "lacks the platform's table users"),
    ] {
        admin.execute(None, &format!("CREATE DATABASE IF NOT EXISTS `{empty}`"));
        // The start would wait for five minutes.
        let elsewhere = DaemonOptions::new()
            .set("HOOKLEDGER__DATABASE__URL", url)
            .set("HOOKLEDGER__DATABASE__STATE_SCHEMA", guest.state());
        let refused = Daemon::prepare(elsewhere);
        refused.launch();
        let end = refused.wait_exit(PATIENCE);
        let log = refused.output().stderr;
        admin.execute(None, &format!("DROP DATABASE `{empty}`"));
        assert_eq!(end, Some(code), "{words}: {log}");
        assert!(log.contains(words), "{log}");
        assert!(!log.contains("not-the-password"), "{log}");
        let made = format!("SELECT count(*) FROM information_schema.schemata WHERE schema_name = '{}'", guest.state());
        assert_eq!(daemon.books().scalar_i64(&made), 0, "nothing was made there");
    }
}
