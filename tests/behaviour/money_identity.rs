//! Which events are the same: identity is by bytes, and a repeat is recognised however it comes.

use super::{PROCESSED, REPEATED, UNITS_PER_CREDIT, assert_account, assert_answer, assert_sound, charge, customer};
use crate::kit::clock::{now_millis, now_secs};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::database::is_sqlite;
use crate::kit::events::Usage;
use crate::kit::sender::{Attempt, Report, Retry, deliver};

/// Ids that a collation may take for one another: case, trailing space, accent (composed and not), emoji.
const ALIKE: &[&str] = &["evt-A", "evt-a", "evt-A ", "evt-Á", "evt-A\u{301}", "x😀", "x😁", "ｅvt-A", "evt-A\u{200B}"];

fn one_credit(event_id: &str, at_secs: i64) -> Usage {
    Usage::new(event_id).quota(UNITS_PER_CREDIT).at_secs(at_secs)
}

fn stored_ids(daemon: &Daemon, sql: &str) -> Vec<String> {
    daemon.books().rows(sql).iter().map(|row| row["event"].as_str().unwrap().to_owned()).collect()
}

/// The message of every answer, in the order of the bodies.
fn messages(report: &Report) -> Vec<String> {
    let message = |attempt: &Attempt| match attempt {
        Attempt::Answered { text, .. } => {
            let body: serde_json::Value = serde_json::from_str(text).expect("every answer is JSON");
            body["message"].as_str().expect("every answer has a message").to_owned()
        }
        Attempt::Unanswered(reason) => panic!("not answered: {reason}"),
    };
    report.deliveries.iter().map(|delivery| message(delivery.attempts.last().unwrap())).collect()
}

/// Every id is in the log. Where the platform's collation takes ids for equal, the later ones are marked.
fn assert_logged_apart(daemon: &Daemon) {
    let logged = stored_ids(daemon, "SELECT eventId AS event FROM webhook_logs ORDER BY id");
    if is_sqlite() {
        assert_eq!(logged, ALIKE);
        return;
    }
    assert_eq!(logged.len(), ALIKE.len(), "{logged:?}");
    for (logged, id) in logged.iter().zip(ALIKE) {
        let mark = logged.strip_prefix(id).unwrap_or_else(|| panic!("{logged} is no name of {id}"));
        let is_mark =
            mark.len() == 9 && mark.starts_with('#') && mark[1..].bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(mark.is_empty() || is_mark, "{logged} for {id}");
    }
}

#[test]
fn ids_that_look_alike_are_so_many_events() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 100, 1);
    let at = now_secs();
    let count = i64::try_from(ALIKE.len()).unwrap();
    for event_id in ALIKE {
        charge(&daemon, &one_credit(event_id, at));
    }
    assert_account(&daemon, &user, 100 - count, 0, "after ids that look alike");
    for event_id in ALIKE {
        assert_answer(&daemon.post(one_credit(event_id, at).json()), 200, true, REPEATED, event_id);
    }
    assert_account(&daemon, &user, 100 - count, 0, "after a repeat of each");
    assert_eq!(stored_ids(&daemon, "SELECT event_id AS event FROM hookledger_claims ORDER BY claim_id"), ALIKE);
    assert_logged_apart(&daemon);
    assert_sound(&daemon);
}

#[test]
fn ids_that_look_alike_are_told_apart_within_one_batch() {
    // The first batch is held up, so that the others make up the second.
    let daemon = Daemon::start(DaemonOptions::new().fail_points("ledger.batch.before=1*sleep(300)").answers_late());
    let user = customer(&daemon, "user", 100, 1);
    let at = now_secs();
    let twice = ALIKE.iter().chain(ALIKE);
    let bodies: Vec<String> = twice.map(|event_id| one_credit(event_id, at).json()).collect();
    let count = bodies.len();
    let report = deliver(daemon.address(), SECRET, bodies, count, Retry::never());
    assert_eq!(report.statuses(), [(200, count)].into());
    assert_account(&daemon, &user, 100 - i64::try_from(ALIKE.len()).unwrap(), 0, "each was charged once");
    let messages = messages(&report);
    let charged = messages.iter().filter(|message| *message == PROCESSED).count();
    let repeated = messages.iter().filter(|message| *message == REPEATED).count();
    assert_eq!((charged, repeated), (ALIKE.len(), ALIKE.len()), "{messages:?}");
    assert_sound(&daemon);
}

#[test]
fn a_repeat_written_differently_is_still_the_same_call() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 100, 1);
    let at = now_secs();
    let usage = Usage::new("same").remote_key(1).model("m").tokens(1, 2).cost("0.001").at_secs(at);
    charge(&daemon, &usage);
    let rewritten = [
        usage.clone().data_field("remoteKeyId", r#""1""#),
        usage.clone().data_field("cost", "1e-3"),
        usage.clone().data_field("cost", "0.00100"),
        usage.clone().data_field("model", r#""\u006d""#),
        usage.clone().total_tokens(3),
        usage.clone().data_field("promptTokens", "1.0"),
        usage.clone().timestamp(at * 1000),
        usage.clone().data_field("unknown", "null"),
    ];
    for repeat in rewritten {
        assert_answer(&daemon.post(repeat.json()), 200, true, REPEATED, "same");
    }
    assert_account(&daemon, &user, 99, 0, "after one call");
    assert_sound(&daemon);
}

#[test]
fn a_known_id_with_other_content_charges_nothing() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 100, 1);
    daemon.add_key(&user, 2);
    let at = now_millis();
    let usage = Usage::new("same").remote_key(1).model("m").tokens(1, 2).quota(UNITS_PER_CREDIT).at_millis(at);
    charge(&daemon, &usage);
    let others = [
        ("key", usage.clone().remote_key(2)),
        ("model", usage.clone().model("M")),
        ("prompt tokens", usage.clone().tokens(2, 2)),
        ("completion tokens", usage.clone().tokens(1, 1)),
        ("total", usage.clone().total_tokens(4)),
        ("price", usage.clone().quota(UNITS_PER_CREDIT + 1)),
        ("kind of price", usage.clone().without_data_field("quota").credit_cost(1)),
        ("time", usage.clone().at_millis(at + 1)),
    ];
    for (what, other) in others {
        let answer = daemon.post(other.json());
        let body = answer.json();
        assert_eq!((answer.status, &body["success"]), (409, &false.into()), "other {what}: {body}");
        assert_eq!(body["eventId"], "same");
        assert_account(&daemon, &user, 99, 0, &format!("after one call and a conflict in its {what}"));
    }
    assert_answer(&daemon.post(usage.json()), 200, true, REPEATED, "same");
    assert_eq!(daemon.metric(r#"hookledger_webhook_requests_total{outcome="conflict"}"#), Some(8.0));
    assert_sound(&daemon);
}

#[test]
fn a_cleared_inbox_opens_nothing_to_a_second_charge() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 100, 1);
    let usage = one_credit("evt", now_secs());
    charge(&daemon, &usage);
    daemon.books().execute("DELETE FROM webhook_logs");
    assert_answer(&daemon.post(usage.json()), 200, true, REPEATED, "evt");
    daemon.restart();
    assert_answer(&daemon.post(usage.json()), 200, true, REPEATED, "evt");
    assert_account(&daemon, &user, 99, 0, "after one call");
    assert_sound(&daemon);
}
