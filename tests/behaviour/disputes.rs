//! `disputes`: what the daemon cannot know is told to a person, whose word moves money once and is remembered.

use serde_json::{Value, json};

use crate::kit::clock::now_secs;
use crate::kit::daemon::Daemon;
use crate::kit::database::is_sqlite;
use crate::kit::events::Usage;
use crate::kit::newapi::Row;
use crate::kit::wait::wait_until;
use crate::two_channels::{PATIENCE, Rig};

const TOKEN: i64 = 42;
/// The row's price: 4 credits.
const ROW_UNITS: i64 = 2000;
/// What a sender makes of it that rounds: 5 credits.
const EVENT_UNITS: i64 = 2500;

/// Seconds are covered as soon as they have passed.
fn start() -> Rig {
    let rig = Rig::start(&[("HOOKLEDGER__POLLING__MODE", "pull"), ("HOOKLEDGER__POLLING__LOOKBACK", "1s")]);
    rig.wait_for_a_pass();
    rig
}

/// The event of a sender that knows no identity of the call, and rounds its price.
fn event(id: &str, at_secs: i64) -> Usage {
    Usage::new(id).remote_key(TOKEN).model("gpt-4").tokens(10, 5).quota(EVENT_UNITS).at_secs(at_secs)
}

/// A call of which the event is charged, and whose row is disputed: its id.
#[track_caller]
fn disputed_row(rig: &Rig) -> String {
    // A second that has not come cannot have been read before the row is there.
    let later = rig.now_secs() + 60;
    assert_eq!(rig.daemon.post(event("first", later).json()).status, 200);
    rig.newapi.call(&rig.call(later).quota(ROW_UNITS));
    rig.advance_secs(60);
    let row = wait_for_dispute(rig);
    assert_eq!(row["kind"], "row");
    row["id"].as_str().unwrap().to_owned()
}

/// A call of which the row is charged, and whose event `late` is disputed.
#[track_caller]
fn disputed_event(rig: &Rig) -> Usage {
    let now = now_secs();
    rig.newapi.call(&rig.call(now).quota(ROW_UNITS));
    rig.wait_for_charges(1);
    let late = event("late", now);
    assert_eq!(rig.daemon.post(late.json()).status, 202, "it waits for what the log says");
    assert_eq!(wait_for_dispute(rig)["id"], "late");
    late
}

fn list(daemon: &Daemon, arguments: &[&str]) -> Vec<Value> {
    let listed = daemon.command_json(&[&["disputes", "list"], arguments].concat());
    listed.as_array().unwrap().clone()
}

/// The only thing that a person must decide.
#[track_caller]
fn wait_for_dispute(rig: &Rig) -> Value {
    let listed = wait_until("a dispute", PATIENCE, || Some(list(&rig.daemon, &[])).filter(|listed| !listed.is_empty()));
    assert_eq!(listed.len(), 1, "{listed:?}");
    listed[0].clone()
}

fn decide(daemon: &Daemon, arguments: &[&str]) -> Value {
    daemon.command_json(&[&["disputes"], arguments].concat())
}

/// The refusal's words.
#[track_caller]
fn refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.command(&[&["disputes"], arguments].concat());
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Charges and balance, the same after the log was read again.
#[track_caller]
fn assert_books(rig: &Rig, charges: i64, balance: i64) {
    rig.wait_for_a_pass();
    assert_eq!((rig.charges(), rig.books().balance(&rig.user)), (charges, balance));
    rig.books().assert_whole();
    rig.books().assert_carried_exactly();
    assert_eq!(list(&rig.daemon, &[]), [Value::Null; 0], "nothing is left to decide");
}

fn wait_for_gauge(rig: &Rig, name: &str, value: f64) {
    wait_until(name, PATIENCE, || {
        rig.daemon.clock().advance(std::time::Duration::from_secs(1));
        (rig.daemon.metric(name) == Some(value)).then_some(())
    });
}

#[test]
fn a_dispute_is_listed_with_the_charge_beside_it() {
    let rig = start();
    let id = disputed_row(&rig);
    let listed = list(&rig.daemon, &["--user", "alice@example.com", "--remote-id", "42"]);
    let charge = rig.books().scalar_text("SELECT claim_id FROM hookledger_claims");
    let expected = json!({ "id": id, "kind": "row", "remoteKeyId": TOKEN, "userId": rig.user, "model": "gpt-4",
        "promptTokens": 10, "completionTokens": 5, "quota": ROW_UNITS, "price": "4",
        "reason": "Disputed: it may be the call of an event that is charged; price 2000 here, 2500 there" });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&listed[0][name], value, "{name}");
    }
    let alike = &listed[0]["alike"];
    assert_eq!((&alike["chargeId"], &alike["id"], &alike["price"]), (&json!(charge), &json!("first"), &json!("5")));
    assert!(list(&rig.daemon, &["--remote-id", "43"]).is_empty());
    let other = rig.daemon.add_user("bob@example.com", 0);
    assert!(list(&rig.daemon, &["--user", &other]).is_empty());
    wait_for_gauge(&rig, "hookledger_disputes_open", 1.0);
    let status = rig.daemon.command_json(&["status"]);
    assert_eq!((&status["backlog"]["disputesOpen"], &status["backlog"]["refundsOpen"]), (&json!(1), &json!(0)));
    decide(&rig.daemon, &["dismiss", &id]);
    wait_for_gauge(&rig, "hookledger_disputes_open", 0.0);
}

#[test]
fn a_tied_row_corrects_the_charge_of_its_event() {
    let rig = start();
    let id = disputed_row(&rig);
    assert_eq!(rig.books().balance(&rig.user), 995);
    let tied = decide(&rig.daemon, &["tie", &id]);
    assert_eq!((&tied["state"], &tied["credits"], &tied["repeated"]), (&json!("tied"), &json!(-1), &json!(false)));
    assert_books(&rig, 1, 996);
    let booked = "SELECT r.creditCost FROM usage_records AS r JOIN hookledger_claims AS c ON c.claim_id = r.id";
    assert_eq!(rig.books().scalar_i64(booked), 4, "on the same usage record");
    let history = rig.daemon.command_json(&["credits", "history", &rig.user]);
    assert_eq!((&history[0]["type"], &history[0]["amount"]), (&json!("REFUND"), &json!(1)));
    let again = decide(&rig.daemon, &["tie", &id]);
    assert_eq!(
        (&again["chargeId"], &again["credits"], &again["repeated"]),
        (&tied["chargeId"], &json!(0), &json!(true))
    );
    assert!(refused(&rig.daemon, &["charge", &id]).contains("is tied already"));
    assert!(refused(&rig.daemon, &["dismiss", &id]).contains("is tied already"));
    assert_books(&rig, 1, 996);
}

#[test]
fn a_tied_event_costs_what_its_row_did() {
    let rig = start();
    let late = disputed_event(&rig);
    let charge = list(&rig.daemon, &[])[0]["alike"]["chargeId"].as_str().unwrap().to_owned();
    assert!(refused(&rig.daemon, &["tie", "late", "--with", "no-such-charge"]).contains("no-such-charge"));
    let tied = decide(&rig.daemon, &["tie", "late", "--with", &charge]);
    assert_eq!((&tied["chargeId"], &tied["credits"]), (&json!(charge), &json!(0)));
    assert_eq!(rig.books().inbox("late"), Some(("processed".to_owned(), None)));
    let repeat = rig.daemon.post(late.json()).json();
    assert_eq!(repeat["message"], "Event already processed (idempotent)");
    assert_eq!(rig.daemon.command_json(&["events", "show", "late"])["charge"]["id"], json!(charge));
    assert_eq!(decide(&rig.daemon, &["tie", "late"])["repeated"], true);
    assert_books(&rig, 1, 996);
}

#[test]
fn a_charged_dispute_is_a_call_of_its_own() {
    let rig = start();
    let id = disputed_row(&rig);
    let charged = decide(&rig.daemon, &["charge", &id]);
    assert_eq!((&charged["state"], &charged["credits"]), (&json!("charged"), &json!(4)));
    assert_eq!(decide(&rig.daemon, &["charge", &id])["repeated"], true);
    assert!(refused(&rig.daemon, &["dismiss", &id]).contains("is charged already"));
    assert_books(&rig, 2, 991);
    let rig = start();
    let late = disputed_event(&rig);
    assert_eq!(decide(&rig.daemon, &["charge", "late"])["credits"], 5);
    assert_eq!(rig.daemon.post(late.json()).json()["message"], "Event already processed (idempotent)");
    assert_books(&rig, 2, 991);
}

#[test]
fn what_was_dismissed_is_never_charged() {
    let rig = start();
    let id = disputed_row(&rig);
    assert_eq!(decide(&rig.daemon, &["dismiss", &id, "--reason", "the sender rounds"])["state"], "dismissed");
    assert_eq!(decide(&rig.daemon, &["dismiss", &id])["repeated"], true);
    assert!(refused(&rig.daemon, &["charge", &id]).contains("is dismissed already"));
    assert_eq!(
        rig.books().scalar_text("SELECT reason FROM hookledger_rows WHERE state = 'dismissed'"),
        "Dismissed: the sender rounds"
    );
    assert_books(&rig, 1, 995);
    let rig = start();
    let late = disputed_event(&rig);
    decide(&rig.daemon, &["dismiss", "late", "--reason", "a test"]);
    let closed = Some(("processed".to_owned(), Some("Dismissed: a test".to_owned())));
    assert_eq!(rig.books().inbox("late"), closed);
    rig.daemon.command_json(&["events", "replay", "late"]);
    for _ in 0..2 {
        let repeat = rig.daemon.post(late.json());
        assert_eq!((repeat.status, &repeat.json()["message"]), (200, &json!("Dismissed: a test")));
        rig.daemon.restart();
    }
    assert_eq!(rig.books().inbox("late"), closed);
    assert_books(&rig, 1, 996);
}

#[test]
fn one_of_many_decisions_at_the_same_moment_is_carried_out() {
    let rig = start();
    let id = disputed_row(&rig);
    let codes: Vec<Option<i32>> = std::thread::scope(|scope| {
        let decisions = ["tie", "charge", "dismiss", "tie", "charge", "dismiss"].map(|verdict| {
            let (daemon, id) = (&rig.daemon, &id);
            scope.spawn(move || daemon.command(&["disputes", verdict, id]).status.code())
        });
        decisions.into_iter().map(|decision| decision.join().unwrap()).collect()
    });
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 2, "one decision, and its repeat: {codes:?}");
    let state = rig.books().scalar_text("SELECT state FROM hookledger_rows");
    let expected = match state.as_str() {
        "tied" => (1, 996),
        "charged" => (2, 991),
        _ => (1, 995),
    };
    assert_books(&rig, expected.0, expected.1);
}

#[test]
fn without_a_daemon_a_decision_goes_to_the_books_themselves() {
    let rig = start();
    let id = disputed_row(&rig);
    assert_eq!(rig.daemon.terminate(), 0);
    assert_eq!(list(&rig.daemon, &[])[0]["alike"]["id"], "first");
    assert_eq!(decide(&rig.daemon, &["tie", &id])["credits"], -1);
    assert_eq!(rig.books().balance(&rig.user), 996);
    rig.books().assert_whole();
}

#[test]
fn a_refund_without_a_charge_can_only_be_dismissed() {
    let rig = start();
    rig.newapi.refund_midjourney(500, now_secs());
    let refund = wait_for_dispute(&rig);
    let id = refund["id"].as_str().unwrap();
    assert_eq!((&refund["kind"], &refund["userId"], &refund["alike"]), (&json!("refund"), &Value::Null, &Value::Null));
    wait_for_gauge(&rig, "hookledger_refunds_open", 1.0);
    for verdict in ["charge", "tie"] {
        assert!(refused(&rig.daemon, &[verdict, id]).contains("is a refund"));
    }
    assert_eq!(decide(&rig.daemon, &["dismiss", id])["state"], "dismissed");
    assert_books(&rig, 0, 1000);
    let task = rig.newapi.submit_task("task-1", &rig.call(now_secs() - 3600).quota(ROW_UNITS));
    rig.newapi.fail_task(&task, rig.newapi.now_secs() + 1);
    let refund = wait_for_dispute(&rig);
    assert_eq!((&refund["kind"], &refund["userId"]), (&json!("refund"), &json!(rig.user)), "its charge is missing");
    decide(&rig.daemon, &["dismiss", refund["id"].as_str().unwrap()]);
    let looking = "SELECT COUNT(*) FROM hookledger_rows WHERE task_token IS NOT NULL";
    assert_eq!(rig.books().scalar_i64(looking), 0, "it looks for its charge no more");
    assert_books(&rig, 0, 1000);
}

#[test]
fn a_row_that_could_not_be_booked_is_charged_when_it_can_be() {
    let rig = start();
    rig.books().refuse_model("strange", "no such model");
    let now = now_secs();
    rig.newapi.insert(Row::relayed(2, now, "strange").token(TOKEN, "alice-key").tokens(10, 5).quota(ROW_UNITS));
    let failed = wait_for_dispute(&rig);
    let id = failed["id"].as_str().unwrap();
    assert_eq!(failed["kind"], "failed");
    assert!(failed["reason"].as_str().unwrap().contains("no such model"), "{failed}");
    assert!(refused(&rig.daemon, &["tie", id]).contains("nothing to be tied to"));
    assert!(refused(&rig.daemon, &["charge", id]).contains("no such model"));
    rig.books().execute("DROP TRIGGER no_such_model");
    let charged = decide(&rig.daemon, &["charge", id]);
    assert_eq!((&charged["state"], &charged["credits"]), (&json!("charged"), &json!(4)));
    assert_eq!(decide(&rig.daemon, &["charge", id])["repeated"], true);
    assert_books(&rig, 1, 996);
    rig.newapi
        .insert(Row::relayed(2, now_secs() + 1, "gpt-4").token(TOKEN, "alice-key").tokens(5_000_000_000, 5).quota(1));
    let failed = wait_for_dispute(&rig);
    let id = failed["id"].as_str().unwrap();
    assert!(refused(&rig.daemon, &["charge", id]).contains("token count"));
    decide(&rig.daemon, &["dismiss", id]);
    assert_books(&rig, 1, 996);
}

#[test]
fn a_replay_takes_rows_that_could_not_be_booked_along() {
    let rig = start();
    rig.books().refuse_model("strange", "no such model");
    let now = now_secs();
    for prompt in [10, 11] {
        rig.newapi.insert(Row::relayed(2, now, "strange").token(TOKEN, "alice-key").tokens(prompt, 5).quota(ROW_UNITS));
    }
    let listed =
        wait_until("both rows failed", PATIENCE, || Some(list(&rig.daemon, &[])).filter(|listed| listed.len() == 2));
    let replay = |arguments: &[&str]| {
        let told = rig.daemon.command_json(&[&["events", "replay"], arguments].concat());
        [&told["tried"], &told["charged"], &told["credits"], &told["stillFailed"]]
            .map(|number| number.as_i64().unwrap())
    };
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(replay(&["--all-failed"]), [2, 0, 0, 2]);
    rig.books().execute("DROP TRIGGER no_such_model");
    assert_eq!(replay(&[id, "--dry-run"]), [1, 1, 4, 0]);
    assert_eq!(rig.charges(), 0);
    assert_eq!(replay(&[id]), [1, 1, 4, 0]);
    assert_eq!(replay(&["--all-failed"]), [1, 1, 4, 0]);
    assert_eq!(replay(&["--all-failed"]), [0, 0, 0, 0]);
    assert_eq!(replay(&[id]), [0, 0, 0, 0]);
    assert_books(&rig, 2, 992);
}

#[test]
fn what_waits_for_no_person_is_refused() {
    let rig = start();
    let stray = Usage::new("stray").remote_key(77).quota(500);
    assert_eq!(rig.daemon.post(stray.json()).json()["success"], false);
    assert_eq!(rig.daemon.post(Usage::new("fine").remote_key(TOKEN).quota(500).json()).status, 200);
    for verdict in ["tie", "charge", "dismiss"] {
        assert!(refused(&rig.daemon, &[verdict, "stray"]).contains("API Key not found for remoteKeyId: 77"));
        assert!(refused(&rig.daemon, &[verdict, "nothing"]).contains("no dispute"));
        let row = "row:1800000000:0123456789abcdef0123456789abcdef:0";
        assert!(refused(&rig.daemon, &[verdict, row]).contains("no dispute"));
    }
    assert!(refused(&rig.daemon, &["dismiss", "fine"]).contains("is charged already"));
}

#[test]
fn a_decision_waits_for_a_row_that_another_program_holds() {
    only_on_a_server!();
    assert!(!is_sqlite());
    let rig = start();
    let id = disputed_row(&rig);
    let hold = rig.books().hold(&format!("SELECT * FROM users WHERE id = '{}' FOR UPDATE", rig.user));
    for verdict in ["tie", "charge"] {
        let output = rig.daemon.command(&["disputes", verdict, &id]);
        assert!(!output.status.success(), "{verdict}");
    }
    drop(hold);
    assert_eq!(rig.books().balance(&rig.user), 995);
    wait_until("the row is free", PATIENCE, || {
        rig.daemon.command(&["disputes", "tie", &id]).status.success().then_some(())
    });
    assert_books(&rig, 1, 996);
}

#[test]
fn a_shared_request_id_corrects_the_charge_without_a_person() {
    let rig = Rig::start(&[("HOOKLEDGER__POLLING__MODE", "pull")]);
    let now = now_secs();
    let late = rig.newapi.call(&rig.call(now).quota(ROW_UNITS).request_id("shared").late());
    assert_eq!(rig.daemon.post(event("first", now).request_id(&late.request_id).json()).status, 200);
    assert_eq!(rig.books().balance(&rig.user), 995);
    rig.newapi.log(|log| log.reveal_all());
    wait_until("the difference is booked", PATIENCE, || (rig.books().balance(&rig.user) == 996).then_some(()));
    assert_books(&rig, 1, 996);
}
