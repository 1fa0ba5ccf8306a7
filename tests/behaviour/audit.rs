//! `hookledger audit`: what somebody does to the books is found and named, with user, amount and what to do; what a person
//! knows of no longer counts.

use serde_json::Value;

use crate::commands::{Ran, failing, fine, ran};
use crate::kit::books::{Books, quoted};
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::two_channels::{PULL, Rig, UNITS_PER_CREDIT};

/// What an audit printed, and how it ended.
#[track_caller]
pub fn audited(daemon: &Daemon, options: &[&str]) -> (i32, Value) {
    let Ran { code, stdout, stderr } = ran(daemon, &[&["audit", "--json"], options].concat(), &[]);
    (code, serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout} {stderr}")))
}

/// Nothing differs, whoever wrote it. The report.
#[track_caller]
pub fn assert_agrees(daemon: &Daemon) -> Value {
    let (code, report) = audited(daemon, &["--strict"]);
    assert_eq!((code, &report["counts"]), (0, &serde_json::json!({})), "{report:#}");
    report
}

/// Kind, subject and credits of what is listed.
pub fn told(list: &Value) -> Vec<(String, String, String)> {
    let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let list = list.as_array().unwrap();
    list.iter().map(|one| (text(one, "kind"), text(one, "subject"), text(one, "credits"))).collect()
}

/// Exactly this counts as a difference, of this user.
#[track_caller]
pub fn assert_found(daemon: &Daemon, user: &str, expected: &[(&str, &str, &str)]) -> Value {
    let (code, report) = audited(daemon, &[]);
    let expected = expected
        .iter()
        .map(|(kind, subject, credits)| ((*kind).to_owned(), (*subject).to_owned(), (*credits).to_owned()));
    assert_eq!(told(&report["differences"]), expected.collect::<Vec<_>>(), "{report:#}");
    for one in report["differences"].as_array().unwrap() {
        assert_eq!((&one["userId"], &one["email"]), (&user.into(), &"user@example.com".into()), "{one:#}");
        assert!(one["says"].as_str().unwrap().len() > 20 && one["whatToDo"].as_str().unwrap().len() > 20, "{one:#}");
    }
    assert_eq!(code, 1, "{report:#}");
    report
}

/// A user with 1000 credits of whom calls of 3, 5 and 7.5 credits are charged.
pub struct Charged {
    pub daemon: Daemon,
    pub user: String,
}

impl Charged {
    #[track_caller]
    pub fn start() -> Self {
        let daemon = Daemon::start(DaemonOptions::new().movable_clock());
        let user = daemon.add_user("user@example.com", 1000);
        daemon.add_key(&user, 42);
        let charged = Charged { daemon, user };
        for (event, halves) in [("three", 6), ("five", 10), ("seven", 15)] {
            charged.charge(event, halves * UNITS_PER_CREDIT / 2);
        }
        assert_agrees(&charged.daemon);
        charged
    }

    #[track_caller]
    pub fn charge(&self, event: &str, quota: i64) {
        let at = self.daemon.clock().now_secs();
        let usage = Usage::new(event).remote_key(42).quota(quota).at_secs(at);
        assert_eq!(self.daemon.post(usage.json()).json()["message"], "Event processed successfully");
    }

    pub fn books(&self) -> Books {
        self.daemon.books()
    }

    pub fn id(&self, event: &str) -> String {
        self.books().scalar_text(&format!("SELECT claim_id FROM hookledger_claims WHERE event_id = {}", quoted(event)))
    }
}

#[test]
fn a_deleted_usage_record_is_named() {
    let charged = Charged::start();
    let id = charged.id("five");
    charged.books().execute(&format!("DELETE FROM usage_records WHERE id = '{id}'"));
    assert_found(&charged.daemon, &charged.user, &[("record_missing", &id, "0")]);
}

#[test]
fn a_changed_usage_record_is_named() {
    let charged = Charged::start();
    let id = charged.id("five");
    charged.books().execute(&format!("UPDATE usage_records SET creditCost = 4 WHERE id = '{id}'"));
    assert_found(&charged.daemon, &charged.user, &[("record_differs", &id, "-1")]);
    charged.books().execute(&format!(
        "UPDATE usage_records SET creditCost = 5, timestamp = '2026-01-01 00:00:00.000' WHERE id = '{id}'"
    ));
    let report = assert_found(&charged.daemon, &charged.user, &[("record_differs", &id, "0")]);
    let says = report["differences"][0]["says"].as_str().unwrap();
    assert!(says.contains("2026-01-01 00:00:00.000"), "{says}");
}

#[test]
fn a_claim_that_is_gone_is_named() {
    let charged = Charged::start();
    let id = charged.id("three");
    charged.books().execute(&format!("DELETE FROM hookledger_claims WHERE claim_id = '{id}'"));
    // Whole credits, so that what is owed below one still adds up.
    assert_found(&charged.daemon, &charged.user, &[("claim_missing", &id, "-3")]);
}

#[test]
fn a_doubled_transaction_is_named() {
    let charged = Charged::start();
    let id = charged.id("five");
    charged.books().execute(&format!(
        "INSERT INTO credit_transactions (id, userId, type, amount, balance, ref, `desc`, createdAt)
           SELECT 'doubled', userId, type, amount, balance, ref, `desc`, createdAt FROM credit_transactions
           WHERE ref = '{id}'"
    ));
    let report = assert_found(&charged.daemon, &charged.user, &[("transaction_doubled", "doubled", "5")]);
    assert!(report["differences"][0]["says"].as_str().unwrap().contains(&id), "{report:#}");
}

#[test]
fn a_deleted_and_a_changed_transaction_are_named() {
    let charged = Charged::start();
    let (three, five) = (charged.id("three"), charged.id("five"));
    charged.books().execute(&format!("DELETE FROM credit_transactions WHERE ref = '{three}'"));
    let missing = ("transaction_missing", three.as_str(), "-3");
    assert_found(&charged.daemon, &charged.user, &[missing]);
    charged.books().execute(&format!("UPDATE credit_transactions SET amount = -50 WHERE ref = '{five}'"));
    assert_found(&charged.daemon, &charged.user, &[missing, ("transaction_differs", &five, "45")]);
}

#[test]
fn a_transaction_for_no_charge_is_named() {
    let charged = Charged::start();
    let ours = charged.id("five");
    // As if its usage record and its charge had been wiped out together.
    charged.books().execute(&format!(
        "DELETE FROM usage_records WHERE id = '{ours}'; DELETE FROM hookledger_claims WHERE claim_id = '{ours}'"
    ));
    let (_, report) = audited(&charged.daemon, &[]);
    let found = told(&report["differences"]);
    assert_eq!(found.len(), 1, "{report:#}");
    assert_eq!((found[0].0.as_str(), found[0].2.as_str()), ("transaction_unexplained", "5"), "{report:#}");
}

#[test]
fn figures_of_a_charge_that_were_changed_are_named() {
    let charged = Charged::start();
    let id = charged.id("three");
    let set = |what: &str| {
        charged.books().execute(&format!("UPDATE hookledger_claims SET {what} WHERE claim_id = '{id}'"));
    };
    set("remainder_after = 1");
    assert_found(&charged.daemon, &charged.user, &[("claim_differs", &id, "0")]);
    set("remainder_after = 0, price_credits = 4");
    let (_, report) = audited(&charged.daemon, &[]);
    let kinds: Vec<_> = told(&report["differences"]).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["claim_differs", "remainder_differs"], "{report:#}");
    set("price_credits = 3");
    charged.books().execute("UPDATE hookledger_accounts SET remainder_femtos = 250000000000000");
    assert_found(&charged.daemon, &charged.user, &[("remainder_differs", "", "0.25")]);
    charged.books().execute("UPDATE hookledger_accounts SET remainder_femtos = 500000000000000, unpaid_credits = 2");
    assert_found(&charged.daemon, &charged.user, &[("unpaid_differs", "", "-2")]);
}

#[test]
fn a_refund_that_was_changed_is_named() {
    let charged = Charged::start();
    let refund = ["charges", "refund", &charged.id("five"), "--reason", "test"];
    let id = charged.daemon.command_json(&refund)["id"].as_str().unwrap().to_owned();
    assert_agrees(&charged.daemon);
    let books = charged.books();
    books.execute("UPDATE credit_transactions SET amount = 6, balance = balance + 1 WHERE type = 'REFUND'");
    books.execute("UPDATE user_credit_balances SET currentCredits = currentCredits + 1");
    assert_found(&charged.daemon, &charged.user, &[("refund_differs", &id, "5")]);
}

/// Another program read the balance before a call was charged, and writes it back with a top-up after.
fn lose_an_update(charged: &Charged) -> String {
    let books = charged.books();
    let held = books.balance(&charged.user);
    charged.charge("overwritten", 2 * UNITS_PER_CREDIT);
    books.execute(&format!(
        "INSERT INTO credit_transactions (id, userId, type, amount, balance, createdAt)
           SELECT 'theirs', userId, 'RECHARGE', 50, {held} + 50, MAX(createdAt) FROM credit_transactions GROUP BY userId;
         UPDATE user_credit_balances SET currentCredits = {held} + 50"
    ));
    charged.id("overwritten")
}

#[test]
fn a_lost_update_of_another_writer_is_put_down_to_him() {
    let charged = Charged::start();
    let id = lose_an_update(&charged);
    let (code, report) = audited(&charged.daemon, &[]);
    let overwritten = ("balance_overwritten".to_owned(), "theirs".to_owned(), "2".to_owned());
    assert_eq!(told(&report["ofOthers"]), [overwritten], "{report:#}");
    assert_eq!((code, &report["differences"]), (0, &serde_json::json!([])), "{report:#}");
    let one = &report["ofOthers"][0];
    assert_eq!(one["userId"], charged.user.as_str());
    let undone = charged.books().scalar_text(&format!("SELECT id FROM credit_transactions WHERE ref = '{id}'"));
    assert!(one["says"].as_str().unwrap().contains(&undone), "{one:#}");
    assert!(one["since"].is_string() && one["until"].is_string(), "{one:#}");
    assert_eq!(audited(&charged.daemon, &["--strict"]).0, 1);
    charged.charge("after", UNITS_PER_CREDIT);
    let (_, later) = audited(&charged.daemon, &[]);
    assert_eq!(later["ofOthers"][0]["id"], one["id"], "its id stays");
}

#[test]
fn a_changed_balance_is_told_until_it_is_accepted() {
    let charged = Charged::start();
    charged.books().execute("UPDATE user_credit_balances SET currentCredits = currentCredits + 7");
    let (code, report) = audited(&charged.daemon, &["--strict"]);
    assert_eq!(told(&report["ofOthers"]), [("balance_changed".to_owned(), String::new(), "7".to_owned())]);
    assert_eq!(code, 1, "{report:#}");
    let id = report["ofOthers"][0]["id"].as_str().unwrap().to_owned();
    charged.charge("after", UNITS_PER_CREDIT);
    let accept = ["audit", "accept", &id, "--reason", "a gift by hand"];
    assert!(fine(&charged.daemon, &accept).contains(&id));
    let (code, report) = audited(&charged.daemon, &["--strict"]);
    assert_eq!((code, told(&report["ofOthers"]).len(), &report["accepted"][0]["id"]), (0, 0, &id.as_str().into()));
    assert_eq!(report["accepted"][0]["accepted"]["reason"], "a gift by hand", "{report:#}");
    charged.books().execute("UPDATE user_credit_balances SET currentCredits = currentCredits + 1");
    assert_eq!(audited(&charged.daemon, &["--strict"]).0, 1, "another one counts");
    charged.books().execute("UPDATE user_credit_balances SET currentCredits = currentCredits - 8");
    let (_, report) = audited(&charged.daemon, &["--strict"]);
    assert_eq!((told(&report["accepted"]).len(), &report["noLongerFound"][0]["id"]), (0, &id.as_str().into()));
}

#[test]
fn what_is_accepted_must_be_what_an_audit_lists() {
    let charged = Charged::start();
    for refused in
        [["audit", "accept", "nonsense", "--reason", "x"], ["audit", "accept", "0123456789abcdef", "--reason", ""]]
    {
        failing(&charged.daemon, &refused, 1);
    }
    failing(&charged.daemon, &["audit", "accept", "0123456789abcdef"], 2);
    failing(&charged.daemon, &["audit", "--strict", "accept", "0123456789abcdef", "--reason", "x"], 2);
    failing(&charged.daemon, &["audit", "--against-source"], 2);
    assert_eq!(charged.daemon.terminate(), 0);
    fine(&charged.daemon, &["audit", "accept", "0123456789abcdef", "--reason", "without a daemon"]);
    let (code, report) = audited(&charged.daemon, &[]);
    assert_eq!((code, &report["noLongerFound"][0]["reason"]), (0, &"without a daemon".into()), "{report:#}");
}

#[test]
fn people_are_told_what_whose_and_how_much() {
    let charged = Charged::start();
    let id = charged.id("five");
    charged.books().execute(&format!("DELETE FROM usage_records WHERE id = '{id}'"));
    lose_an_update(&charged);
    let Ran { code, stdout, .. } = ran(&charged.daemon, &["audit"], &[]);
    assert_eq!(code, 1);
    for words in ["2 differences:", "record missing", &id, "user@example.com", "The books differ.", "balance differs"] {
        assert!(stdout.contains(words), "{words:?} in {stdout}");
    }
    let Ran { stdout, .. } = ran(&charged.daemon, &["audit", "--limit", "1"], &[]);
    assert!(stdout.contains("1 more are not listed") && stdout.contains("2 differences:"), "{stdout}");
    let (_, report) = audited(&charged.daemon, &["--limit", "1"]);
    assert_eq!((&report["more"], report["counts"].as_object().unwrap().len()), (&1.into(), 2), "{report:#}");
}

/// Copies the rows of a table that a condition selects, changed.
pub fn copy(books: &Books, table: &str, condition: &str, changes: &str) {
    let columns = books.written_columns(table);
    books.execute(&format!(
        "CREATE TABLE kit_copy AS SELECT {columns} FROM {table} WHERE {condition}; UPDATE kit_copy SET {changes};
         INSERT INTO {table} ({columns}) SELECT {columns} FROM kit_copy; DROP TABLE kit_copy"
    ));
}

#[test]
fn a_row_and_an_event_that_are_charged_twice_are_named() {
    let rig = Rig::start(&[PULL]);
    rig.wait_for_a_pass();
    rig.advance_secs(240);
    rig.newapi.call(&rig.call(rig.now_secs() - 20));
    rig.wait_for_charges(1);
    assert_agrees(&rig.daemon);
    let books = rig.books();
    let first = books.scalar_text("SELECT claim_id FROM hookledger_claims");
    // Everything of a charge once more: only its row tells.
    let second = format!("{}0000{}", &first[..9], &first[13..]);
    copy(&books, "hookledger_claims", "1 = 1", &format!("claim_id = '{second}', untied_row_token = NULL"));
    copy(&books, "usage_records", "1 = 1", &format!("id = '{second}'"));
    let changes = format!("id = 'theirs', ref = '{second}', balance = balance + amount");
    copy(&books, "credit_transactions", "type = 'DEDUCT'", &changes);
    books.execute("UPDATE user_credit_balances SET currentCredits = currentCredits - 1");
    let (code, report) = audited(&rig.daemon, &[]);
    assert_eq!(
        (code, told(&report["differences"])),
        (1, vec![("row_charged_twice".to_owned(), second.clone(), "-1".to_owned())])
    );
    let says = report["differences"][0]["says"].as_str().unwrap();
    assert!(says.contains(&first), "{says}");
}
