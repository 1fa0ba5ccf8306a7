//! Taking over from the platform's own billing: what it billed is not billed again, what it missed is, and it is told
//! if it goes on.

use std::time::Duration;

use serde_json::json;

use crate::kit::books::Books;
use crate::kit::clock::{now_millis, now_secs};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::platform::PlatformCall;
use crate::kit::sender::{Retry, deliver};
use crate::kit::wait::wait_until;

const UNITS_PER_CREDIT: i64 = 500;
const PATIENCE: Duration = Duration::from_secs(20);
const PROCESSED: &str = "Event processed successfully";
const REPEATED: &str = "Event already processed (idempotent)";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A database with the platform's user `u` who has 100 credits, and his key `k` for token 1; nothing has started yet.
#[track_caller]
fn platform(options: DaemonOptions) -> Daemon {
    let daemon = Daemon::prepare(options);
    daemon.books().platform_customer("u", "k", 1, 100);
    daemon
}

#[track_caller]
fn start(daemon: &Daemon) {
    daemon.launch();
    daemon.wait_ready();
}

/// One credit, called this long ago.
fn call(event_id: impl Into<String>, seconds_ago: i64) -> Usage {
    Usage::new(event_id).quota(UNITS_PER_CREDIT).at_secs(now_secs() - seconds_ago)
}

/// What the platform books of such a call.
fn billed(id: &str, seconds_ago: i64) -> PlatformCall {
    PlatformCall::new(id, "k", now_millis() - seconds_ago * 1000)
}

#[track_caller]
fn assert_posted(daemon: &Daemon, usage: &Usage, message: &str) {
    let answer = daemon.post(usage.json());
    let expected = json!({ "success": true, "message": message, "eventId": usage.event_id() });
    assert_eq!((answer.status, answer.json()), (200, expected));
}

#[test]
fn two_receivers_for_ten_minutes_bill_each_call_once() {
    only_on_a_server!();
    let daemon = platform(DaemonOptions::new());
    let books = daemon.books();
    let failed_long_ago = call("old-failure", 3000);
    books.platform_logs(&failed_long_ago, "failed");
    // Before the moment the platform billed three of four; of every second it logged the event.
    for number in 0..40 {
        let event_id = format!("before-{number}");
        if number % 4 != 0 {
            books.platform_bills(&billed(&event_id, 600 - number * 15).tokens(number, 1));
        }
        if number % 4 == 2 {
            books.platform_logs(&call(event_id, 600 - number * 15).tokens(number, 1), "processed");
        }
    }
    start(&daemon);
    assert_eq!(books.adopted_and_charged(), (0, 0), "nothing of the history is billed by the start");
    let log = daemon.output().stderr;
    assert!(log.contains("30 usage records of other programs since"), "{log}");
    for number in 0..40 {
        let expected = if number % 4 == 0 { PROCESSED } else { REPEATED };
        assert_posted(&daemon, &call(format!("before-{number}"), 600 - number * 15).tokens(number, 1), expected);
    }
    assert_eq!(books.adopted_and_charged(), (20, 10), "what was logged is known without a claim");
    // Both run: the platform is faster with every second call.
    for number in 0..20 {
        let event_id = format!("both-{number}");
        if number % 2 == 0 {
            books.platform_bills(&billed(&event_id, 0).tokens(number, 2));
        }
        let expected = if number % 2 == 0 { REPEATED } else { PROCESSED };
        assert_posted(&daemon, &call(event_id, 1).tokens(number, 2), expected);
    }
    for number in 0..10 {
        assert_posted(&daemon, &call(format!("alone-{number}"), 0).tokens(number, 3), PROCESSED);
    }
    assert_posted(&daemon, &failed_long_ago, REPEATED);
    assert_eq!(books.adopted_and_charged(), (30, 30));
    assert_eq!(books.balance("u"), 100 - 40 - 30, "forty by the platform, thirty by us: each of seventy calls once");
    assert_eq!(books.inbox("old-failure"), Some(("failed".to_owned(), None)), "no old failure is retried");
    books.assert_whole_beside_the_platform(10);
    let outcome = r#"hookledger_ledger_settlements_total{source="webhook",outcome="tied"}"#;
    assert_eq!(daemon.metric(outcome), Some(30.0));
}

#[test]
fn rows_of_the_platforms_log_are_repeats_and_nothing_more() {
    only_on_a_server!();
    let daemon = platform(DaemonOptions::new());
    let books = daemon.books();
    let states = ["processed", "failed", "pending", "dead", "whatever"];
    for state in states {
        books.platform_logs(&call(state, 60), state);
    }
    start(&daemon);
    for state in states {
        assert_posted(&daemon, &call(state, 60), REPEATED);
        assert_posted(&daemon, &call(state, 7).tokens(9, 9).quota(123_456), REPEATED);
    }
    // The steps that retry have run once what waited for its key is charged.
    assert_eq!(daemon.post(call("ours", 1).remote_key(9).json()).json()["success"], false);
    books.insert_key("late", "u", "9", "ACTIVE");
    assert!(daemon.command(&["events", "replay", "--all-failed"]).status.success());
    wait_until("what waited is charged", PATIENCE, || (books.balance("u") == 99).then_some(()));
    for state in states {
        assert_eq!(books.inbox(state), Some((state.to_owned(), None)), "left as it was");
    }
    assert_eq!(books.adopted_and_charged(), (0, 1));
    books.assert_whole_beside_the_platform(0);
}

#[test]
fn of_two_equal_calls_the_one_that_nobody_billed_is_charged() {
    only_on_a_server!();
    let daemon = platform(DaemonOptions::new());
    let books = daemon.books();
    books.platform_bills(&billed("theirs", 30));
    start(&daemon);
    let (one, two) = (call("one", 31), call("two", 31));
    assert_posted(&daemon, &one, REPEATED);
    assert_posted(&daemon, &two, PROCESSED);
    assert_posted(&daemon, &one, REPEATED);
    assert_eq!((books.adopted_and_charged(), books.balance("u")), ((1, 1), 98));
    books.assert_whole_beside_the_platform(0);
}

#[test]
fn only_token_model_counts_and_time_tell_a_call() {
    only_on_a_server!();
    let daemon = platform(DaemonOptions::new());
    let books = daemon.books();
    let long_model = "m".repeat(300);
    let at = now_secs();
    let billed_before = |id: &str, seconds: i64| PlatformCall::new(id, "k", (at - seconds) * 1000);
    books.platform_bills(&billed("free", 30).tokens(1, 1).credits(0));
    books.platform_bills(&billed("dear", 30).tokens(2, 1).credits(7).raw_meta(None));
    books.platform_bills(&billed("odd", 30).tokens(3, 1).raw_meta(Some("[1, {\"installation\": 5")));
    books.platform_bills(&billed("cut", 30).tokens(4, 1).model(&long_model[..191]));
    books.platform_bills(&billed_before("far", 330).tokens(5, 1));
    books.platform_bills(&billed_before("near", 290).tokens(6, 1));
    books.platform_bills(&billed("other-model", 30).tokens(7, 1).model("GPT-4"));
    books.platform_bills(&billed("other-counts", 30).tokens(8, 2));
    start(&daemon);
    assert_posted(&daemon, &call("free", 31).tokens(1, 1), REPEATED);
    assert_posted(&daemon, &call("dear", 31).tokens(2, 1), REPEATED);
    assert_posted(&daemon, &call("odd", 31).tokens(3, 1), REPEATED);
    assert_posted(&daemon, &call("cut", 31).tokens(4, 1).model(&long_model), REPEATED);
    assert_posted(&daemon, &call("far", 0).at_secs(at).tokens(5, 1), PROCESSED);
    assert_posted(&daemon, &call("near", 0).at_secs(at).tokens(6, 1), REPEATED);
    assert_posted(&daemon, &call("other-model", 31).tokens(7, 1), PROCESSED);
    assert_posted(&daemon, &call("other-counts", 31).tokens(8, 1), PROCESSED);
    assert_eq!(books.adopted_and_charged(), (5, 3));
    books.assert_whole_beside_the_platform(3);
}

#[test]
fn a_record_older_than_max_age_before_the_moment_takes_no_part() {
    only_on_a_server!();
    let daemon = platform(DaemonOptions::new().set("HOOKLEDGER__WEBHOOK__MAX_AGE", "1h"));
    let books = daemon.books();
    books.platform_bills(&billed("older", 3620));
    start(&daemon);
    assert_posted(&daemon, &call("ours", 3500), PROCESSED);
    assert_eq!(books.adopted_and_charged(), (0, 1));
    books.assert_whole_beside_the_platform(1);
}

#[test]
fn any_key_of_the_token_counts_and_no_other() {
    only_on_a_server!();
    let daemon = platform(DaemonOptions::new());
    let books = daemon.books();
    books.insert_key("k-deleted", "u", "1", "DELETED");
    books.execute(
        "INSERT INTO api_keys (id, userId, label, maskedValue, fullValue, updatedAt)
      VALUES ('k-without', 'u', '', '', '', '2026-01-01')",
    );
    books.platform_bills(&PlatformCall::new("of-deleted", "k-deleted", now_millis()));
    books.platform_bills(&PlatformCall::new("of-none", "k-without", now_millis()));
    start(&daemon);
    assert_posted(&daemon, &call("one", 1), REPEATED);
    assert_posted(&daemon, &call("two", 1), PROCESSED);
    let key = "SELECT key_id FROM hookledger_claims WHERE source = 'adopted'";
    assert_eq!(books.scalar_text(key), "k-deleted");
    books.assert_whole_beside_the_platform(1);
}

#[test]
fn many_at_once_take_each_record_once() {
    only_on_a_server!();
    let daemon = platform(DaemonOptions::new());
    let books = daemon.books();
    books.platform_customer("v", "kv", 2, 100);
    for number in 0..20 {
        books.platform_bills(&billed(&format!("u-{number}"), 20));
        books.platform_bills(&PlatformCall::new(&format!("v-{number}"), "kv", now_millis()));
    }
    start(&daemon);
    let at = now_secs();
    let thrice = (0..80).flat_map(|number| {
        let usage = Usage::new(format!("evt-{number}")).quota(UNITS_PER_CREDIT).at_secs(at);
        std::iter::repeat_n(usage.remote_key(1 + number % 2).json(), 3)
    });
    let report = deliver(daemon.address(), SECRET, thrice.collect(), 24, Retry::never());
    report.assert_all_acknowledged();
    assert_eq!(books.adopted_and_charged(), (40, 40));
    assert_eq!((books.balance("u"), books.balance("v")), (100 - 40, 100 - 40));
    books.assert_whole_beside_the_platform(0);
}

#[test]
fn an_adopted_call_is_repeated_shown_and_given_back_like_any() {
    only_on_a_server!();
    let daemon = platform(DaemonOptions::new());
    let books = daemon.books();
    let at = now_secs();
    books.platform_bills(&PlatformCall::new("theirs", "k", (at - 297) * 1000).credits(5));
    start(&daemon);
    let usage = call("evt", 0).at_secs(at);
    assert_posted(&daemon, &usage, REPEATED);
    daemon.restart();
    assert_posted(&daemon, &usage, REPEATED);
    let other = daemon.post(usage.clone().tokens(1, 1).json());
    assert_eq!((other.status, books.adopted_and_charged()), (409, (1, 0)), "the same id with other content");
    let shown = daemon.command_json(&["events", "show", "evt"]);
    assert_eq!(shown["charge"]["id"], "theirs", "{shown}");
    let given = ["charges", "refund", "theirs", "--amount", "5", "--idempotency-key", "t", "--reason", "failed task"];
    daemon.command_json(&given);
    assert_eq!(books.balance("u"), 100);
    books.assert_whole_beside_the_platform(0);
}

/// The condition's sentence, if it holds.
fn condition(daemon: &Daemon) -> Option<String> {
    let status = daemon.command_json(&["status"]);
    let held = status["conditions"].as_array()?.iter().find(|held| held["name"] == "foreign_deductions")?;
    Some(held["message"].as_str()?.to_owned())
}

#[test]
fn who_bills_after_the_moment_is_told_until_he_has_stopped_for_a_day() {
    only_on_a_server!();
    let daemon = platform(DaemonOptions::new().movable_clock());
    let books = daemon.books();
    books.platform_bills(&billed("before", 30).tokens(7, 7));
    start(&daemon);
    let status = || daemon.command_json(&["status"])["takingOver"].clone();
    wait_until("the first look", PATIENCE, || status()["at"].is_string().then_some(()));
    assert_eq!(condition(&daemon), None, "what lies before the moment is history");
    books.platform_bills(&billed("tied", -2).credits(3));
    assert_posted(&daemon, &call("tied", 0), REPEATED);
    let sentence = wait_until("an adopted one is told", PATIENCE, || condition(&daemon));
    assert!(
        sentence.contains("1 usage records of 1 users (u@example.com) since we took over, 3 credits"),
        "{sentence}"
    );
    books.platform_bills(&billed("alone", -2).tokens(9, 9).credits(4));
    daemon.clock().advance(Duration::from_secs(61));
    let sentence = wait_until("the other one is noticed", PATIENCE, || {
        condition(&daemon).filter(|sentence| sentence.contains("2 usage records"))
    });
    assert!(sentence.contains("7 credits") && sentence.ends_with("1 of them stand for a call that we did not charge"));
    assert_eq!(status()["adoptedRecords"], 1);
    let shown = String::from_utf8(daemon.command(&["status"]).stdout).unwrap();
    assert!(shown.contains("1 of the platform's records adopted"), "{shown}");
    let metric = r#"hookledger_source_condition{condition="foreign_deductions"}"#;
    assert_eq!(daemon.metric(metric), Some(1.0));
    let moment = status()["at"].clone();
    daemon.restart();
    wait_until("it is told after a start as well", PATIENCE, || condition(&daemon));
    assert_eq!(status()["at"], moment, "the moment is stored once");
    daemon.clock().advance(DAY);
    wait_until("a day later it is over", PATIENCE, || condition(&daemon).is_none().then_some(()));
    assert_eq!(daemon.metric(metric), Some(0.0));
    books.assert_whole_beside_the_platform(2);
}

#[test]
fn what_was_noticed_of_others_is_forgotten_after_a_month() {
    only_on_a_server!();
    let daemon = platform(DaemonOptions::new().movable_clock());
    let books = daemon.books();
    start(&daemon);
    books.platform_bills(&billed("tied", -2));
    assert_posted(&daemon, &call("tied", 0), REPEATED);
    // Its event waits for a key, and the platform has billed it to a key of another token.
    books.insert_key("other", "u", "99", "ACTIVE");
    books.platform_bills(&PlatformCall::new("late", "other", now_millis() + 2000).tokens(9, 9));
    let late = call("late", 0).remote_key(9).tokens(9, 9);
    assert_eq!(daemon.post(late.json()).json()["success"], false);
    let status = || daemon.command_json(&["status"])["takingOver"]["adoptedRecords"].clone();
    let kept = || books.count("hookledger_foreign_records");
    daemon.clock().advance(Duration::from_secs(61));
    wait_until("both are noticed", PATIENCE, || (kept() == 2).then_some(()));
    daemon.clock().advance(29 * DAY);
    wait_until("they are not told any more", PATIENCE, || condition(&daemon).is_none().then_some(()));
    assert_eq!((kept(), status()), (2, json!(1)), "and kept");
    daemon.clock().advance(DAY);
    wait_until("they are forgotten", PATIENCE, || (kept() == 0).then_some(()));
    daemon.restart();
    wait_until("how many were adopted is not", PATIENCE, || (status() == json!(1)).then_some(()));
    // A call that waited all the time is still not charged again, and does not mean that somebody bills still.
    books.execute("UPDATE api_keys SET remoteKeyId = '9' WHERE id = 'other'");
    let replayed = daemon.command(&["events", "replay", "late", "--beyond-grace", "--yes"]);
    assert!(replayed.status.success(), "{replayed:?}");
    daemon.clock().advance(Duration::from_secs(61));
    wait_until("it is adopted", PATIENCE, || (status() == json!(2)).then_some(()));
    assert_eq!((books.adopted_and_charged(), condition(&daemon)), ((2, 0), None));
    books.assert_whole_beside_the_platform(0);
}

/// Everything that the platform's deployment compares.
fn schema(books: &Books) -> Vec<String> {
    let of = |what: &str, columns: &str| {
        let schema = match what {
            "triggers" => "trigger_schema",
            "routines" => "routine_schema",
            _ => "table_schema",
        };
        let sql = format!(
            "SELECT concat_ws('|', {columns}) AS line FROM information_schema.{what}
               WHERE {schema} = database() ORDER BY line"
        );
        books.rows(&sql).iter().map(|row| row["line"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let columns = "table_name, ordinal_position, column_name, column_type, is_nullable, column_default, extra, \
                   collation_name, column_key, column_comment";
    [
        of("tables", "table_name, table_type, engine, row_format, table_collation, create_options, table_comment"),
        of("columns", columns),
        of("statistics", "table_name, index_name, non_unique, seq_in_index, column_name, sub_part, index_type"),
        of("triggers", "trigger_name, event_object_table"),
        of("routines", "routine_name"),
    ]
    .concat()
}

#[test]
fn the_platforms_schema_is_the_same_after_everything() {
    only_on_a_server!();
    let daemon = platform(DaemonOptions::new());
    let books = daemon.books();
    let before = schema(&books);
    assert!(before.len() > 60, "{before:?}");
    books.platform_bills(&billed("theirs", 30));
    start(&daemon);
    assert_posted(&daemon, &call("tied", 30), REPEATED);
    assert_posted(&daemon, &call("charged", 30), PROCESSED);
    daemon.post(call("parked", 1).remote_key(77).json());
    daemon.add_key("u", 77);
    wait_until("what waited is charged", PATIENCE, || (books.adopted_and_charged() == (1, 2)).then_some(()));
    daemon.add_user("new@example.com", 5);
    daemon.grant("u", 5);
    daemon.command_json(&["charges", "refund", "theirs", "--reason", "r"]);
    daemon.command_json(&["key", "ignore", "--remote-id", "5"]);
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(schema(&books), before);
}
