//! `charges` and `credits adjust`: one charge explained, money given back once and never more than was taken.

use std::time::Duration;

use serde_json::Value;

use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::sender::{Retry, deliver};

const TOKEN: i64 = 42;

/// A daemon, a user with 1000 credits and a key.
fn rig(options: DaemonOptions) -> (Daemon, String) {
    let daemon = Daemon::start(options);
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, TOKEN);
    (daemon, user)
}

/// Charges one event; the charge's id.
fn charge(daemon: &Daemon, event: &str, quota: i64) -> String {
    let answer = daemon.post(Usage::new(event).remote_key(TOKEN).quota(quota).json()).json();
    assert_eq!(answer["success"], true, "{answer}");
    let shown = daemon.command_json(&["charges", "show", "--event", event]);
    shown["id"].as_str().unwrap().to_owned()
}

fn books_of(daemon: &Daemon, user: &str) -> (i64, String, i64) {
    let shown = daemon.command_json(&["credits", "show", user]);
    (
        shown["credits"].as_i64().unwrap(),
        shown["remainder"].as_str().unwrap().to_owned(),
        shown["unpaid"].as_i64().unwrap(),
    )
}

fn refund(daemon: &Daemon, arguments: &[&str]) -> Value {
    daemon.command_json(&[&["charges", "refund", "--reason", "failed task"], arguments].concat())
}

/// The refusal's exit code and words.
fn refused(daemon: &Daemon, arguments: &[&str]) -> (i32, String) {
    let output = daemon.command(arguments);
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn charge_and_full_refund_leave_balance_and_remainder_as_they_were() {
    let (daemon, user) = rig(DaemonOptions::new());
    charge(&daemon, "before", 1830);
    let before = books_of(&daemon, &user);
    assert_eq!(before, (997, "0.66".to_owned(), 0));
    let id = charge(&daemon, "e", 1177); // 2.354 credits: with the remainder three whole ones
    assert_eq!(books_of(&daemon, &user), (994, "0.014".to_owned(), 0));
    let given = refund(&daemon, &[&id]);
    assert_eq!((&given["amount"], &given["credits"], &given["repeated"]), (&"2.354".into(), &3.into(), &false.into()));
    assert_eq!(books_of(&daemon, &user), before);
    let history = daemon.command_json(&["credits", "history", &user]);
    assert_eq!((&history[0]["type"], &history[0]["amount"]), (&"REFUND".into(), &3.into()));
    assert_eq!(history[0]["reference"], Value::from(id.clone()), "with the ref of its charge");
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
}

#[test]
fn a_refund_is_given_once_whatever_is_repeated() {
    let (daemon, user) = rig(DaemonOptions::new());
    let id = charge(&daemon, "e", 5000);
    let part = [id.as_str(), "--amount", "2.5", "--idempotency-key", "ticket 7"];
    assert_eq!(refund(&daemon, &part)["repeated"], false);
    assert_eq!(refund(&daemon, &part)["repeated"], true);
    assert_eq!(books_of(&daemon, &user), (993, "0.5".to_owned(), 0));
    let other = ["charges", "refund", &id, "--amount", "3", "--idempotency-key", "ticket 7", "--reason", "r"];
    let (code, words) = refused(&daemon, &other);
    assert!(code == 1 && words.contains("ticket 7"), "{code} {words}");
    // All of the rest is given back once, key or not.
    assert_eq!(refund(&daemon, &[&id])["amount"], "7.5");
    assert_eq!(refund(&daemon, &[&id])["repeated"], true);
    assert_eq!(books_of(&daemon, &user), (1000, "0".to_owned(), 0));
    daemon.books().assert_whole();
}

#[test]
fn refunds_at_the_same_moment_never_give_more_than_was_taken() {
    let (daemon, user) = rig(DaemonOptions::new());
    let id = charge(&daemon, "e", 5000);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (daemon, id) = (&daemon, &id);
            scope.spawn(move || {
                let key = format!("key {}", number / 2); // each key twice, and three times 4 of 10
                let arguments =
                    ["charges", "refund", id, "--amount", "4", "--idempotency-key", &key, "--reason", "race"];
                daemon.command(&arguments);
            });
        }
    });
    assert_eq!(books_of(&daemon, &user), (998, "0".to_owned(), 0));
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
}

#[test]
fn more_than_was_taken_and_what_does_not_exist_are_refused() {
    let (daemon, user) = rig(DaemonOptions::new());
    let id = charge(&daemon, "e", 5000);
    let part = |amount: &str| {
        refused(&daemon, &["charges", "refund", &id, "--amount", amount, "--idempotency-key", "k", "--reason", "r"])
    };
    let (code, words) = part("10.000000000000001");
    assert!(code == 1 && words.contains("only 10 credits"), "{code} {words}");
    for odd in ["0", "-1", "ten", "0.0000000000000001"] {
        assert_ne!(part(odd).0, 0, "{odd}");
    }
    let (code, words) = refused(&daemon, &["charges", "refund", &id, "--amount", "1", "--reason", "r"]);
    assert!(code == 1 && words.contains("idempotency key"), "a part needs one: {words}");
    let (code, words) = refused(&daemon, &["charges", "refund", "no-such-charge", "--reason", "r"]);
    assert!(code == 1 && words.contains("no-such-charge"), "{code} {words}");
    assert_eq!(refused(&daemon, &["charges", "refund", &id]).0, 2, "without a reason");
    assert_eq!(books_of(&daemon, &user).0, 990);
}

#[test]
fn a_part_by_quota_goes_back_at_the_rate_of_its_charge() {
    let (daemon, user) = rig(DaemonOptions::new());
    let id = charge(&daemon, "e", 5000);
    // A change of the rate concerns later calls alone.
    daemon.books().set_option("UsdToCreditsRate", "2000");
    refund(&daemon, &[&id, "--quota", "1250", "--idempotency-key", "k"]);
    assert_eq!(books_of(&daemon, &user), (993, "0.5".to_owned(), 0));
}

#[test]
fn a_charge_rounded_by_itself_gives_its_rounded_price_back() {
    let (daemon, user) = rig(DaemonOptions::new().set("HOOKLEDGER__LEDGER__ROUNDING", "nearest"));
    let id = charge(&daemon, "e", 1830); // 3.66, rounded to 4
    refund(&daemon, &[&id, "--amount", "1.5", "--idempotency-key", "k"]);
    assert_eq!(books_of(&daemon, &user), (998, "0".to_owned(), 0), "round(3.66) - round(2.16)");
    refund(&daemon, &[&id]);
    assert_eq!(books_of(&daemon, &user), (1000, "0".to_owned(), 0));
    daemon.books().assert_whole();
}

#[test]
fn what_was_never_paid_is_no_longer_owed() {
    let (daemon, user) = rig(DaemonOptions::new().set("HOOKLEDGER__LEDGER__OVERDRAFT", "refuse"));
    charge(&daemon, "paid", 500_000);
    assert_eq!(books_of(&daemon, &user), (0, "0".to_owned(), 0));
    let unpaid = charge(&daemon, "unpaid", 5000);
    assert_eq!(books_of(&daemon, &user), (0, "0".to_owned(), 10));
    let given = refund(&daemon, &[&unpaid]);
    assert_eq!((&given["credits"], &given["unpaidLowered"]), (&0.into(), &10.into()));
    assert_eq!(books_of(&daemon, &user), (0, "0".to_owned(), 0));
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
}

#[test]
fn a_selection_is_reversed_once_and_a_repeat_takes_no_later_charges() {
    let (daemon, user) = rig(DaemonOptions::new());
    for number in 0..5 {
        let body = Usage::new(format!("bad-{number}")).remote_key(TOKEN).quota(1177).model("broken-model").json();
        assert_eq!(daemon.post(body).json()["success"], true);
    }
    let kept = charge(&daemon, "good", 500);
    let before = books_of(&daemon, &user);
    let asked = ["charges", "reverse", "--model", "broken-model", "--reason", "outage"];
    let shown = daemon.command_json(&[&asked[..], &["--dry-run"]].concat());
    assert_eq!((&shown["charges"], &shown["amount"]), (&5.into(), &"11.77".into()), "{shown}");
    assert_eq!(books_of(&daemon, &user), before, "shown, not given");
    let asked = [&asked[..], &["--idempotency-key", "outage 1"]].concat();
    let reversed = daemon.command_json(&asked);
    assert_eq!((&reversed["charges"], &reversed["amount"]), (&5.into(), &"11.77".into()), "{reversed}");
    assert_eq!(books_of(&daemon, &user), (999, "0".to_owned(), 0));
    // A later call of the same model is not part of the earlier reversal.
    let later = Usage::new("later").remote_key(TOKEN).quota(500).model("broken-model").json();
    daemon.post(later);
    assert_eq!(daemon.command_json(&asked)["charges"], 0);
    assert_eq!(books_of(&daemon, &user).0, 998);
    let other = ["charges", "reverse", "--user", &user, "--reason", "r", "--idempotency-key", "outage 1"];
    assert_eq!(refused(&daemon, &other).0, 1, "the key is another selection's");
    assert_eq!(
        refused(&daemon, &["charges", "reverse", "--reason", "r", "--idempotency-key", "k"]).0,
        1,
        "selects all"
    );
    // A repeat of a reversed event is still known.
    let repeat = Usage::new("bad-0").remote_key(TOKEN).quota(1177).model("broken-model").json();
    assert_ne!(daemon.post(repeat).json()["message"], "Event processed successfully");
    assert_eq!(daemon.command_json(&["charges", "show", &kept])["refunded"], "0");
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
}

#[test]
fn a_charge_is_explained_from_event_to_balance() {
    let (daemon, user) = rig(DaemonOptions::new());
    charge(&daemon, "first", 1830);
    let body = Usage::new("e").remote_key(TOKEN).quota(1177).request_id("req-1").json();
    daemon.post(body);
    let shown = daemon.command_json(&["charges", "show", "--event", "e"]);
    let id = shown["id"].as_str().unwrap();
    for (field, value) in [
        ("eventId", Value::from("e")),
        ("requestId", "req-1".into()),
        ("email", "user@example.com".into()),
        ("quota", 1177.into()),
        ("price", "2.354".into()),
        ("remainderBefore", "0.66".into()),
        ("remainderAfter", "0.014".into()),
        ("credits", 3.into()),
        ("balanceBefore", 997.into()),
    ] {
        assert_eq!(shown[field], value, "{field} in {shown}");
    }
    assert_eq!(shown["transaction"]["balance"], 994);
    assert_eq!(daemon.command_json(&["charges", "show", id])["id"], *id);
    assert_eq!(daemon.command_json(&["charges", "show", "--request", "req-1"])["id"], *id);
    let at = shown["calledAt"].as_str().unwrap();
    assert!(daemon.command_json(&["charges", "show", "--user", &user, "--at", at])["id"].is_string());
    refund(&daemon, &[id, "--amount", "1", "--idempotency-key", "k"]);
    let text = String::from_utf8(daemon.command(&["charges", "show", id]).stdout).unwrap();
    for words in ["1177 quota units", "= 2.354 credits", "997 before, 994 after", "failed task", "1 of 2.354"] {
        assert!(text.contains(words), "{words} is missing in\n{text}");
    }
    let listed = daemon.command_json(&["charges", "list", "--user", "user@example.com"]);
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["eventId"]), (2, &"e".into()), "newest first");
    assert_eq!(daemon.command_json(&["charges", "list", "--until", "2001-01-01 00:00:00"]), Value::Array(vec![]));
}

#[test]
fn a_charge_whose_user_is_gone_gives_nothing_back() {
    let (daemon, user) = rig(DaemonOptions::new());
    let id = charge(&daemon, "e", 5000);
    daemon.books().execute(&format!("DELETE FROM users WHERE id = '{user}'"));
    let (code, words) = refused(&daemon, &["charges", "refund", &id, "--reason", "r"]);
    assert!(code == 1 && words.contains(&id), "{code} {words}");
    assert_eq!(daemon.command_json(&["charges", "show", &id])["email"], Value::Null, "still told");
    assert_eq!(daemon.books().count("hookledger_refunds"), 0);
}

#[test]
fn an_adjustment_moves_a_balance_either_way_once() {
    let (daemon, user) = rig(DaemonOptions::new());
    let down =
        ["credits", "adjust", "--user", &user, "--amount", "-1500", "--reason", "chargeback", "--idempotency-key", "a"];
    assert_eq!(daemon.command_json(&down)["balance"], -500);
    assert_eq!(daemon.command_json(&down)["repeated"], true);
    let up = ["credits", "adjust", "--user", "user@example.com", "--amount", "20", "--reason", "sorry"];
    assert_eq!(daemon.command_json(&up)["balance"], -480);
    let grant = ["credits", "grant", "--user", &user, "--amount", "5", "--idempotency-key", "a"];
    assert_eq!(refused(&daemon, &grant).0, 1, "the key is an adjustment's");
    assert_eq!(refused(&daemon, &["credits", "adjust", "--user", &user, "--amount", "0", "--reason", "r"]).0, 1);
    assert_eq!(refused(&daemon, &["credits", "adjust", "--user", &user, "--amount", "1"]).0, 2, "without a reason");
    let history = daemon.command_json(&["credits", "history", &user]);
    assert_eq!((&history[1]["type"], &history[1]["amount"]), (&"ADMIN_ADJUST".into(), &(-1500).into()));
    daemon.books().assert_whole();
}

#[test]
fn without_a_daemon_money_is_given_back_directly() {
    let (daemon, user) = rig(DaemonOptions::new());
    let id = charge(&daemon, "e", 5000);
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(refund(&daemon, &[&id])["credits"], 10);
    assert_eq!(books_of(&daemon, &user).0, 1000);
    daemon.books().assert_whole();
}

#[test]
fn a_finished_reversal_selects_nothing_more_whatever_the_clock_did() {
    const DAY: Duration = Duration::from_secs(86_400);
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, TOKEN);
    let call = |event: &str| {
        let at = daemon.clock().now_secs();
        daemon.post(Usage::new(event).remote_key(TOKEN).quota(500).at_secs(at).json());
    };
    call("before");
    daemon.clock().advance(10 * DAY);
    call("ahead");
    daemon.clock().set_back(10 * DAY);
    let asked = ["charges", "reverse", "--user", &user, "--reason", "r", "--idempotency-key", "k"];
    assert_eq!(daemon.command_json(&asked)["charges"], 2, "what was booked ahead of time as well");
    call("after");
    assert_eq!(daemon.command_json(&asked)["charges"], 0);
    assert_eq!(daemon.books().balance(&user), 999);
    let long = "k".repeat(151);
    let too_long = ["charges", "reverse", "--user", &user, "--reason", "r", "--idempotency-key", &long];
    assert_eq!(refused(&daemon, &too_long).0, 1);
}

#[test]
fn reversals_of_many_pages_beside_each_other_and_beside_refunds_give_back_once() {
    const CALLS: usize = 300; // two pages
    let (daemon, user) = rig(DaemonOptions::new().answers_late());
    let bodies = (0..CALLS).map(|number| Usage::new(format!("e-{number}")).remote_key(TOKEN).quota(777).json());
    let retry = Retry::until(Duration::from_secs(30), Duration::from_millis(20));
    deliver(daemon.address(), SECRET, bodies.collect(), 16, retry).assert_all_acknowledged();
    let some = daemon.command_json(&["charges", "list", "--limit", "20"]);
    let some: Vec<String> =
        some.as_array().unwrap().iter().map(|charge| charge["id"].as_str().unwrap().to_owned()).collect();
    std::thread::scope(|scope| {
        for key in ["one", "two", "one"] {
            let (daemon, user) = (&daemon, &user);
            scope.spawn(move || {
                daemon.command(&["charges", "reverse", "--user", user, "--reason", "r", "--idempotency-key", key]);
            });
        }
        for id in &some {
            let daemon = &daemon;
            scope.spawn(move || daemon.command(&["charges", "refund", id, "--reason", "r"]));
        }
    });
    daemon.command_json(&["charges", "reverse", "--user", &user, "--reason", "r", "--idempotency-key", "last"]);
    assert_eq!(books_of(&daemon, &user), (1000, "0".to_owned(), 0));
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
}

#[test]
fn only_its_user_can_read_a_database_that_we_made() {
    only_on_sqlite!();
    use std::os::unix::fs::PermissionsExt;
    let (daemon, _) = rig(DaemonOptions::new());
    let mode = std::fs::metadata(daemon.database_file()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}
