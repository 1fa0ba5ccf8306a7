//! What was answered 2xx is charged once, wherever the process or one of its actors dies.

use std::time::Duration;

use crate::kit::books::Books;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::{Usage, ping};
use crate::kit::random::Random;
use crate::kit::sender::{Report, Retry, deliver, start_delivery};
use crate::kit::wait::wait_until;

pub const TOKENS: i64 = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// Users `user-1@…` to `user-5@…`, each with the token of his number.
pub fn with_users(daemon: &Daemon) {
    for token in 1..=TOKENS {
        let user = daemon.add_user(&format!("user-{token}@example.com"), 1000);
        daemon.add_key(&user, token);
    }
}

/// Events that cost different prices, spread over the tokens; some more than a credit, some less.
pub fn usage_bodies(count: usize, prefix: &str) -> Vec<String> {
    let body = |number: usize| {
        let token = number as i64 % TOKENS + 1;
        Usage::new(format!("{prefix}-{number}")).remote_key(token).quota(number as i64 % 7 * 310).json()
    };
    (0..count).map(body).collect()
}

pub fn patient() -> Retry {
    Retry::until(PATIENCE, Duration::from_millis(20))
}

/// Nothing waits any more, each event has its charge, and the books agree to the last femto.
pub fn assert_charged_once(books: &Books, events: i64) {
    wait_until("nothing is pending", PATIENCE, || (books.count("hookledger_inbox") == 0).then_some(()));
    assert_eq!(books.count("hookledger_claims"), events, "every event is charged once");
    books.assert_whole();
    books.assert_carried_exactly();
}

pub fn assert_documented(report: &Report) {
    for status in report.statuses().keys() {
        assert!([0, 200, 202, 503].contains(status), "undocumented answer {status}: {:?}", report.statuses());
    }
}

#[test]
fn killed_twenty_times_while_events_come_in() {
    const EVENTS: usize = 2000;
    const KILLS: usize = 20;
    let random = &mut Random::new();
    let daemon = Daemon::start(DaemonOptions::new());
    with_users(&daemon);
    let retry = Retry::until(5 * PATIENCE, Duration::from_millis(20));
    let ongoing = start_delivery(daemon.address(), SECRET, usage_bodies(EVENTS, "kill"), 32, retry);
    for kill in 0..KILLS {
        let goal = EVENTS * kill / KILLS + random.below(60) as usize;
        wait_until("more is acknowledged", PATIENCE, || (ongoing.acknowledged() >= goal).then_some(()));
        daemon.kill();
        daemon.restart();
    }
    let report = ongoing.finish();
    report.assert_all_acknowledged();
    assert_documented(&report);
    assert_charged_once(&daemon.books(), EVENTS as i64);
}

/// Fail points on the road of an event (a usage event or a ping), which traffic alone reaches.
fn points_on_the_road() -> impl Iterator<Item = &'static str> {
    let parts = ["receiver.", "ledger.", "logger.", "store.settle.", "store.record.", "webhook."];
    hookledger::failpoint::ALL.iter().copied().filter(move |point| parts.iter().any(|part| point.starts_with(part)))
}

/// Pings go through the Logger, usage events through the Ledger.
pub fn mixed_bodies(count: usize, prefix: &str) -> Vec<String> {
    let mut bodies = usage_bodies(count, prefix);
    bodies.extend((0..count).map(|number| ping(&format!("{prefix}-ping-{number}"))));
    bodies
}

#[test]
fn killed_at_every_fail_point_in_turn() {
    const EVENTS: usize = 60;
    let random = &mut Random::new();
    for point in points_on_the_road().chain(["scheduler.wake", "supervisor.look"]) {
        let mut daemon = Daemon::start(DaemonOptions::new());
        with_users(&daemon);
        let passes = random.below(if point == "scheduler.wake" { 2 } else { 5 });
        daemon.set_environment("FAILPOINTS", format!("{point}={passes}*off->1*return(kill)"));
        daemon.kill();
        daemon.launch();
        let ongoing = start_delivery(daemon.address(), SECRET, mixed_bodies(EVENTS, "mixed"), 8, patient());
        assert!(daemon.wait_exit(PATIENCE).is_some(), "{point} was never passed");
        daemon.unset_environment("FAILPOINTS");
        daemon.restart();
        let report = ongoing.finish();
        report.assert_all_acknowledged();
        assert_documented(&report);
        assert_charged_once(&daemon.books(), EVENTS as i64);
    }
}

#[test]
fn an_actor_that_panics_is_replaced_and_nothing_is_lost() {
    const EVENTS: usize = 200;
    for point in points_on_the_road().chain(["scheduler.wake"]) {
        let program = format!("{point}=2*off->1*panic->3*off->1*panic->3*off->1*panic");
        let daemon = Daemon::prepare(DaemonOptions::new().fail_points(&program));
        daemon.launch();
        // Some points panic during the start: readiness comes all the same.
        daemon.wait_ready();
        with_users(&daemon);
        let pid = daemon.pid();
        let report = deliver(daemon.address(), SECRET, mixed_bodies(EVENTS, "mixed"), 16, patient());
        report.assert_all_acknowledged();
        assert_documented(&report);
        assert_charged_once(&daemon.books(), EVENTS as i64);
        assert!(daemon.is_running() && daemon.pid() == pid, "{point}: the process was not restarted");
        wait_until(&format!("{point} panics"), PATIENCE, || {
            daemon.output().stderr.contains("a part of the daemon panicked").then_some(())
        });
    }
}

#[test]
fn a_step_that_fails_is_repeated_and_nothing_is_lost() {
    const EVENTS: usize = 100;
    for point in points_on_the_road() {
        let program = format!("{point}=1*off->3*return(error)->2*off->3*return(error)");
        let daemon = Daemon::start(DaemonOptions::new().fail_points(&program));
        with_users(&daemon);
        let report = deliver(daemon.address(), SECRET, mixed_bodies(EVENTS, "mixed"), 8, patient());
        report.assert_all_acknowledged();
        assert_documented(&report);
        assert_charged_once(&daemon.books(), EVENTS as i64);
    }
}

#[test]
fn restarts_are_counted_by_actor_and_cause() {
    let daemon = Daemon::start(DaemonOptions::new().fail_points("ledger.handle=1*panic->off;logger.handle=1*panic"));
    with_users(&daemon);
    deliver(daemon.address(), SECRET, mixed_bodies(20, "mixed"), 2, patient()).assert_all_acknowledged();
    for actor in ["ledger", "logger"] {
        let name = format!("hookledger_actor_restarts_total{{actor=\"{actor}\",cause=\"panic\"}}");
        assert_eq!(daemon.metric(&name), Some(1.0), "{name}");
        let up = format!("hookledger_actor_up{{actor=\"{actor}\"}}");
        wait_until("the actor is back", PATIENCE, || (daemon.metric(&up) == Some(1.0)).then_some(()));
    }
}

#[test]
fn an_actor_that_cannot_be_kept_alive_ends_the_process_with_70() {
    let options =
        DaemonOptions::new().fail_points("scheduler.wake=panic").set("HOOKLEDGER__SUPERVISOR__MAX_RESTARTS", "4");
    let daemon = Daemon::prepare(options);
    daemon.launch();
    assert_eq!(daemon.wait_exit(PATIENCE), Some(70));
    let log = daemon.output().stderr;
    assert!(log.contains("the supervisor gives up") && log.contains("scheduler"), "it says which and why: {log}");
}

#[test]
fn a_first_start_that_is_killed_leaves_a_whole_price_list() {
    let mut daemon = Daemon::prepare(DaemonOptions::new().fail_points("store.rates.written=return(kill)"));
    daemon.launch();
    assert!(daemon.wait_exit(PATIENCE).is_some());
    daemon.unset_environment("FAILPOINTS");
    daemon.restart();
    let prices = daemon.books().rows("SELECT kind, from_second FROM hookledger_prices WHERE from_second = 0");
    assert_eq!(prices.len(), 2, "a rate and a quota per dollar, from the beginning: {prices:?}");
    with_users(&daemon);
    deliver(daemon.address(), SECRET, usage_bodies(20, "first"), 2, patient()).assert_all_acknowledged();
    assert_charged_once(&daemon.books(), 20);
}

#[test]
fn a_grant_cut_off_by_a_kill_adds_once() {
    for point in ["store.grant.written", "store.grant.committed"] {
        let mut daemon = Daemon::start(DaemonOptions::new().fail_points(&format!("{point}=1*return(kill)")));
        let user = daemon.add_user("user@example.com", 0);
        let arguments = ["credits", "grant", "--user", &user, "--amount", "50", "--idempotency-key", "order-1"];
        assert!(!daemon.command(&arguments).status.success(), "{point}: the daemon died under the request");
        daemon.wait_exit(PATIENCE).unwrap();
        daemon.unset_environment("FAILPOINTS");
        daemon.restart();
        for _ in 0..2 {
            assert!(daemon.command(&arguments).status.success(), "the same request again is harmless");
        }
        assert_eq!(daemon.books().balance(&user), 50, "{point}");
        daemon.books().assert_whole();
    }
}

#[test]
fn a_refund_cut_off_by_a_kill_gives_back_once() {
    for point in ["store.refund.written", "store.refund.committed"] {
        let mut daemon = Daemon::start(DaemonOptions::new().fail_points(&format!("{point}=1*return(kill)")));
        let user = daemon.add_user("user@example.com", 100);
        daemon.add_key(&user, 7);
        daemon.post(Usage::new("e").remote_key(7).quota(1830).json());
        let charge = daemon.command_json(&["charges", "show", "--event", "e"])["id"].as_str().unwrap().to_owned();
        for arguments in [
            &["charges", "refund", &charge, "--amount", "1", "--reason", "r", "--idempotency-key", "k"][..],
            &["charges", "reverse", "--user", &user, "--reason", "r", "--idempotency-key", "k"],
        ] {
            // The first of them meets the kill; whatever was committed, the same request again is harmless.
            if !daemon.command(arguments).status.success() {
                daemon.wait_exit(PATIENCE).unwrap();
                daemon.unset_environment("FAILPOINTS");
                daemon.restart();
            }
            for _ in 0..2 {
                assert!(daemon.command(arguments).status.success(), "{point}");
            }
        }
        assert_eq!(daemon.books().balance(&user), 100, "{point}");
        daemon.books().assert_whole();
        daemon.books().assert_carried_exactly();
    }
}
