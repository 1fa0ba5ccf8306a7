//! The database's server dies, or the link to it breaks: what was answered 2xx is charged once, and the daemon recovers
//! by itself.

use std::time::Duration;

use crate::crashes::{usage_bodies, with_users};
use crate::kit::books::Books;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::mariadb::PrivateServer;
use crate::kit::proxy::Proxy;
use crate::kit::random::Random;
use crate::kit::sender::{Retry, deliver, start_delivery};
use crate::kit::wait::{poll, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// How often the server is killed; `HOOKLEDGER_TEST_KILLS` says otherwise.
const KILLS: usize = 5;
const EVENTS_BETWEEN: usize = 120;

fn patient() -> Retry {
    Retry::until(2 * PATIENCE, Duration::from_millis(20))
}

fn assert_charged_once(books: &Books, events: i64) {
    wait_until("nothing is pending", PATIENCE, || (books.count("hookledger_inbox") == 0).then_some(()));
    assert_eq!(books.count("hookledger_claims"), events, "every event is charged once");
    books.assert_whole();
    books.assert_carried_exactly();
}

#[test]
fn the_server_killed_under_load_costs_time_and_nothing_else() {
    only_on_a_server!();
    let kills = std::env::var("HOOKLEDGER_TEST_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let events = kills * EVENTS_BETWEEN;
    let random = &mut Random::new();
    let server = PrivateServer::start();
    let daemon = Daemon::start(DaemonOptions::new().on(&server));
    with_users(&daemon);
    let pid = daemon.pid();
    let ongoing = start_delivery(daemon.address(), SECRET, usage_bodies(events, "kill"), 16, patient());
    for kill in 0..kills {
        let goal = events * kill / kills + random.below(EVENTS_BETWEEN as u64 / 2) as usize;
        wait_until("more is acknowledged", PATIENCE, || (ongoing.acknowledged() >= goal).then_some(()));
        server.kill();
        server.start_again();
    }
    let report = ongoing.finish();
    report.assert_all_acknowledged();
    for status in report.statuses().keys() {
        assert!([200, 202, 503].contains(status), "undocumented answer {status}: {:?}", report.statuses());
    }
    assert_charged_once(&daemon.books(), events as i64);
    assert!(daemon.is_running() && daemon.pid() == pid, "the daemon was not restarted");
    wait_until("it says that it is ready", PATIENCE, || daemon.is_ready().then_some(()));
}

#[test]
fn without_traffic_a_dead_server_shows_in_readiness_and_passes() {
    only_on_a_server!();
    let server = PrivateServer::start();
    let daemon = Daemon::start(DaemonOptions::new().on(&server));
    with_users(&daemon);
    server.kill();
    wait_until("it says that it is not ready", PATIENCE, || (!daemon.is_ready()).then_some(()));
    let answer = daemon.post(Usage::new("e").remote_key(1).quota(500).json());
    assert_eq!(answer.status, 503, "{}", answer.text());
    server.start_again();
    wait_until("it is ready again", PATIENCE, || daemon.is_ready().then_some(()));
    deliver(daemon.address(), SECRET, usage_bodies(10, "after"), 1, patient()).assert_all_acknowledged();
    assert_charged_once(&daemon.books(), 10);
}

/// A daemon whose link to the suite's server goes through a proxy, with users.
pub fn behind(proxy_of: &mut Option<Proxy>, options: DaemonOptions) -> Daemon {
    let daemon = Daemon::prepare(options);
    let login = daemon.guest().login();
    let proxy = Proxy::start(format!("{}:{}", login.host, login.port).parse().unwrap());
    let mut through = login.clone();
    (through.host, through.port) = ("127.0.0.1".to_owned(), proxy.address().port());
    let (url, state) = (through.url(daemon.guest().platform()), daemon.guest().state().to_owned());
    let mut daemon = daemon;
    daemon.set_environment("HOOKLEDGER__DATABASE__URL", url);
    daemon.set_environment("HOOKLEDGER__DATABASE__STATE_SCHEMA", state);
    // What is counted in bytes must be the same bytes each time.
    daemon.set_environment("HOOKLEDGER__DATABASE__TLS", "off");
    daemon.launch();
    daemon.wait_ready();
    with_users(&daemon);
    *proxy_of = Some(proxy);
    daemon
}

/// Where the link breaks, counted in bytes of one direction from a quiet moment on.
const CUTS: usize = 35;

#[test]
fn the_link_cut_anywhere_in_a_settlement_loses_and_doubles_nothing() {
    only_on_a_server!();
    let random = &mut Random::new();
    let mut proxy = None;
    let daemon = behind(&mut proxy, DaemonOptions::new());
    let proxy = proxy.unwrap();
    let mut bodies = Vec::new();
    for cut in 0..2 * CUTS {
        let body = Usage::new(format!("cut-{cut}")).remote_key(cut as i64 % 5 + 1).quota(700).json();
        bodies.push(body.clone());
        match cut % 2 {
            0 => proxy.truncate_to_server(random.below(6000) as usize),
            _ => proxy.truncate_to_client(random.below(3000) as usize),
        }
        let answer = daemon.post(&body);
        assert!([200, 202, 503].contains(&answer.status), "{}", answer.text());
        proxy.forward();
    }
    deliver(daemon.address(), SECRET, bodies, 4, patient()).assert_all_acknowledged();
    assert_charged_once(&daemon.books(), 2 * CUTS as i64);
}

#[test]
fn a_link_that_falls_silent_in_a_transaction_is_given_up_and_its_locks_with_it() {
    only_on_a_server!();
    let mut proxy = None;
    let slow = DaemonOptions::new().fail_points("store.settle.written=1*sleep(6000)->off").answers_late();
    // Its transactions are looked at: on a server that others use as well they could be another's.
    let server = PrivateServer::start();
    let daemon = behind(&mut proxy, slow.on(&server));
    let (proxy, books) = (proxy.unwrap(), daemon.books());
    let body = Usage::new("e").remote_key(1).quota(700).json();
    let posted = start_delivery(daemon.address(), SECRET, vec![body.clone()], 1, Retry::never());
    books.wait_for_transaction("trx_rows_modified >= 8", PATIENCE);
    proxy.fall_silent();
    posted.finish();
    deliver(daemon.address(), SECRET, vec![body], 1, patient()).assert_all_acknowledged();
    let processed = || poll(PATIENCE, || Some(books.inbox("e")?.0).filter(|status| status == "processed"));
    assert!(processed().is_some(), "{:?}", books.inbox("e"));
    assert_charged_once(&books, 1);
    assert!(daemon.output().stderr.contains("was given up"), "it says so");
}

#[test]
fn an_answer_to_a_commit_that_never_comes_is_looked_up() {
    only_on_a_server!();
    let server = PrivateServer::start();
    for is_committed in [true, false] {
        let mut proxy = None;
        let slow = DaemonOptions::new().fail_points("store.settle.written=1*sleep(6000)->off").answers_late();
        let daemon = behind(&mut proxy, slow.on(&server));
        let proxy = proxy.unwrap();
        let books = daemon.books();
        let body = Usage::new("e").remote_key(1).quota(700).json();
        let posted = start_delivery(daemon.address(), SECRET, vec![body.clone()], 1, Retry::never());
        books.wait_for_transaction("trx_rows_modified >= 8", PATIENCE);
        if is_committed {
            // The order to commit arrives, what comes of it does not get back.
            proxy.truncate_to_client(0);
            wait_until("it is committed", PATIENCE, || (books.count("hookledger_claims") == 1).then_some(()));
        } else {
            proxy.cut();
        }
        proxy.forward();
        posted.finish();
        deliver(daemon.address(), SECRET, vec![body], 1, patient()).assert_all_acknowledged();
        assert_charged_once(&books, 1);
        let processed = || poll(PATIENCE, || Some(books.inbox("e")?.0).filter(|status| status == "processed"));
        assert!(processed().is_some(), "{:?}", books.inbox("e"));
    }
}
