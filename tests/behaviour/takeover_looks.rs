//! No call is charged without a look for another program's record of it: however busy its key is, however many records
//! there are, and however late they are written.

use std::time::Duration;

use crate::kit::books::Books;
use crate::kit::clock::{now_millis, now_secs};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::platform::PlatformCall;
use crate::kit::sender::{Retry, deliver};
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const REPEATED: &str = "Event already processed (idempotent)";

/// The platform's user `u` with 5000 credits and the key `k` of token 1, and a daemon that has taken over.
#[track_caller]
fn taken_over(options: DaemonOptions) -> Daemon {
    let daemon = Daemon::prepare(options);
    daemon.books().platform_customer("u", "k", 1, 5000);
    daemon.launch();
    daemon.wait_ready();
    daemon
}

/// One credit, called now.
fn call(event_id: impl Into<String>) -> Usage {
    Usage::new(event_id).quota(500).at_secs(now_secs())
}

/// One of the platform's usage records as a statement, for a transaction that a test holds open.
fn record(id: &str, key_id: &str) -> String {
    format!(
        "INSERT INTO usage_records (id, apiKeyId, timestamp, model, promptTokens, completionTokens, totalTokens, creditCost)
           VALUES ('{id}', '{key_id}', UTC_TIMESTAMP(3), 'gpt-4', 100, 50, 150, 0)"
    )
}

#[test]
fn a_busy_key_is_looked_at_before_each_charge() {
    only_on_a_server!();
    const BUSY: i64 = 3000;
    let daemon = taken_over(DaemonOptions::new());
    let books = daemon.books();
    let at = now_secs();
    let busy = (0..BUSY).map(|number| Usage::new(format!("busy-{number}")).quota(500).tokens(number, 1).at_secs(at));
    let report = deliver(daemon.address(), SECRET, busy.map(|usage| usage.json()).collect(), 32, Retry::never());
    report.assert_all_acknowledged();
    wait_until("all are charged", PATIENCE, || (books.adopted_and_charged() == (0, BUSY)).then_some(()));
    // Its rows were read a moment ago.
    books.platform_bills(&PlatformCall::new("theirs", "k", now_millis()));
    assert_eq!(daemon.post(call("evt").json()).json()["message"], REPEATED);
    assert_eq!((books.adopted_and_charged(), books.balance("u")), ((1, BUSY), 5000 - BUSY - 1));
    books.assert_whole_beside_the_platform(0);
}

/// So many usage records of other calls, each within the same second, as one statement.
fn crowd(books: &Books, records: i64) {
    let digits = "(SELECT 0 AS d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION \
                  SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)";
    let number = "a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d";
    books.execute(&format!(
        "INSERT INTO usage_records (id, apiKeyId, timestamp, model, promptTokens, completionTokens, totalTokens, creditCost)
           SELECT CONCAT('crowd-', {number}), 'k', UTC_TIMESTAMP(3), 'gpt-4', {number}, 7, 0, 0
             FROM {digits} AS a JOIN {digits} AS b JOIN {digits} AS c JOIN {digits} AS d JOIN {digits} AS e
             WHERE {number} < {records}"
    ));
}

#[test]
fn among_many_records_each_is_found() {
    only_on_a_server!();
    const CROWD: i64 = 12_000;
    let daemon = taken_over(DaemonOptions::new().answers_late());
    let books = daemon.books();
    crowd(&books, CROWD);
    for id in ["a-first", "zzz-last"] {
        books.platform_bills(&PlatformCall::new(id, "k", now_millis()));
        assert_eq!(daemon.post(call(format!("of-{id}")).json()).json()["message"], REPEATED);
    }
    assert_eq!(books.adopted_and_charged(), (2, 0));
    books.assert_whole_beside_the_platform(CROWD);
}

#[test]
fn a_record_that_is_being_written_is_waited_for() {
    only_on_a_server!();
    let daemon = taken_over(DaemonOptions::new());
    let books = daemon.books();
    let mut open = books.hold(&record("theirs", "k"));
    assert_eq!(daemon.post(call("evt").json()).status, 202);
    open.and_then("COMMIT");
    drop(open);
    wait_until("it is adopted", PATIENCE, || (books.adopted_and_charged() == (1, 0)).then_some(()));
    // The token goes to another user; the record is of its former key.
    assert_eq!(daemon.post(call("seen").json()).json()["message"], "Event processed successfully");
    books.execute("UPDATE api_keys SET remoteKeyId = '9' WHERE id = 'k'");
    books.platform_customer("v", "kv", 1, 100);
    let later = |event_id: &str| Usage::new(event_id).quota(500).at_secs(now_secs() + 10).json();
    assert_eq!(daemon.post(later("changed")).status, 200);
    assert_eq!(books.balance("v"), 99, "he pays now");
    let mut open = books.hold(&record("theirs-too", "k"));
    assert_eq!(daemon.post(later("evt-too")).status, 202);
    open.and_then("COMMIT");
    drop(open);
    wait_until("it is adopted too", PATIENCE, || (books.inbox("evt-too")?.0 == "processed").then_some(()));
    assert_eq!(books.adopted_and_charged(), (2, 2));
    books.assert_whole_beside_the_platform(0);
}

#[test]
fn records_that_are_written_late_are_told() {
    only_on_a_server!();
    let daemon = taken_over(DaemonOptions::new().movable_clock());
    let books = daemon.books();
    let noticed = || books.count("hookledger_foreign_records");
    let looked_at = || {
        let marks = books.rows("SELECT value FROM hookledger_meta WHERE name = 'foreign_looked_at_ms'");
        marks.first().map(|row| row["value"].as_str().unwrap().parse::<i64>().unwrap())
    };
    let called_at = daemon.clock().now_secs() * 1000 + 2000;
    wait_until("the first look", PATIENCE, &looked_at);
    daemon.clock().advance(Duration::from_secs(3600));
    wait_until("a look much later", PATIENCE, || looked_at().filter(|at| *at > called_at + 1_000_000));
    books.platform_bills(&PlatformCall::new("late", "k", called_at));
    assert_eq!(noticed(), 0);
    daemon.clock().advance(Duration::from_secs(24 * 3600 + 60));
    wait_until("within a day it is noticed", PATIENCE, || (noticed() == 1).then_some(()));
    let status = daemon.command_json(&["status"]);
    let held = status["conditions"].as_array().unwrap().iter().any(|held| held["name"] == "foreign_deductions");
    assert!(held, "{status}");
}
