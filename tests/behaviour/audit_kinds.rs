//! Kinds of difference that take a wrong hand in our own tables, and what an audit must not pass over in silence. At the end:
//! no kind is without a test that provokes it.

use std::fs;
use std::path::Path;

use crate::audit::{Charged, assert_agrees, assert_found, audited, copy, told};
use crate::commands::fine;
use crate::kit::books::Books;
use crate::two_channels::{PULL, Rig};

/// Takes away what keeps an event from being claimed twice, as a damaged index does.
fn drop_index_of_events(books: &Books) {
    let table = if books.is_sqlite() { "" } else { " ON hookledger_claims" };
    books.execute(&format!("DROP INDEX `hookledger_claims_event`{table}"));
}

/// All of a charge once more, under another id, with its money: only what it was for tells.
fn charge_again(charged: &Charged, event: &str, credits: i64) -> String {
    let (books, first) = (charged.books(), charged.id(event));
    // As if it had been booked a minute later.
    let second = format!("{}ffff{}", &first[..9], &first[13..]);
    let of_it = |column: &str| format!("{column} = '{first}'");
    copy(&books, "hookledger_claims", &of_it("claim_id"), &format!("claim_id = '{second}'"));
    copy(&books, "usage_records", &of_it("id"), &format!("id = '{second}'"));
    let balance = books.balance(&charged.user) - credits;
    let changes = format!("id = 'again', ref = '{second}', balance = {balance}, createdAt = '2100-01-01 00:00:00.000'");
    copy(&books, "credit_transactions", &of_it("ref"), &changes);
    books.execute(&format!("UPDATE user_credit_balances SET currentCredits = {balance}"));
    second
}

#[test]
fn an_event_that_is_charged_twice_is_named() {
    let charged = Charged::start();
    drop_index_of_events(&charged.books());
    let second = charge_again(&charged, "five", 5);
    let report = assert_found(&charged.daemon, &charged.user, &[("event_charged_twice", &second, "-5")]);
    let says = report["differences"][0]["says"].as_str().unwrap();
    assert!(says.contains("five") && says.contains(&charged.id_of_first("five", &second)), "{says}");
}

#[test]
fn a_balance_that_differs_where_our_own_chain_is_broken_counts() {
    let charged = Charged::start();
    let id = charged.id("five");
    charged.books().execute(&format!("DELETE FROM usage_records WHERE id = '{id}'"));
    charged.books().execute("UPDATE user_credit_balances SET currentCredits = currentCredits + 7");
    assert_found(&charged.daemon, &charged.user, &[("record_missing", &id, "0"), ("balance_differs", "", "7")]);
}

impl Charged {
    fn id_of_first(&self, event: &str, second: &str) -> String {
        self.books().scalar_text(&format!(
            "SELECT claim_id FROM hookledger_claims WHERE event_id = '{event}' AND claim_id <> '{second}'"
        ))
    }
}

#[test]
fn a_charge_whose_row_was_deleted_here_is_named() {
    let rig = Rig::start(&[PULL]);
    rig.wait_for_a_pass();
    rig.advance_secs(240);
    rig.newapi.call(&rig.call(rig.now_secs() - 20));
    rig.wait_for_charges(1);
    rig.cover_everything();
    assert_eq!(rig.daemon.terminate(), 0);
    let claim = rig.books().scalar_text("SELECT claim_id FROM hookledger_claims");
    rig.books().execute("DELETE FROM hookledger_rows");
    let (code, report) = audited(&rig.daemon, &[]);
    let unknown = ("row_unknown".to_owned(), claim, "0".to_owned());
    assert_eq!((code, told(&report["differences"])), (1, vec![unknown]), "{report:#}");
    assert_eq!(report["differences"][0]["userId"], rig.user.as_str(), "{report:#}");
}

#[test]
fn a_doubled_refund_is_named() {
    let charged = Charged::start();
    charged.daemon.command_json(&["charges", "refund", &charged.id("five"), "--reason", "test"]);
    let books = charged.books();
    copy(&books, "credit_transactions", "type = 'REFUND'", "id = 'zz-again', balance = balance + amount");
    books.execute("UPDATE user_credit_balances SET currentCredits = currentCredits + 5");
    assert_found(&charged.daemon, &charged.user, &[("transaction_doubled", "zz-again", "-5")]);
}

#[test]
fn what_is_kept_of_a_user_without_charges_is_looked_at() {
    let charged = Charged::start();
    let idle = charged.daemon.add_user("idle@example.com", 10);
    let gone = charged.daemon.add_user("gone@example.com", 10);
    for user in [&idle, &gone] {
        charged.books().execute(&format!(
            "REPLACE INTO hookledger_accounts (user_id, remainder_femtos, unpaid_credits) VALUES ('{user}', 0, 3)"
        ));
    }
    charged.books().execute(&format!("DELETE FROM users WHERE id = '{gone}'"));
    let (code, report) = audited(&charged.daemon, &[]);
    let differs = ("unpaid_differs".to_owned(), String::new(), "-3".to_owned());
    assert_eq!((code, told(&report["differences"])), (1, vec![differs]), "{report:#}");
    assert_eq!(report["differences"][0]["email"], "idle@example.com", "{report:#}");
}

#[test]
fn schemas_that_came_apart_are_no_books_that_agree() {
    only_on_a_server!();
    let charged = Charged::start();
    assert_eq!(charged.daemon.terminate(), 0);
    charged.books().execute(&format!("DROP DATABASE `{}`", charged.daemon.guest().state()));
    fine(&charged.daemon, &["migrate"]);
    let (code, report) = audited(&charged.daemon, &[]);
    assert_eq!(code, 1, "{report:#}");
    assert!(report["apart"].as_str().unwrap().contains("do not belong together"), "{report:#}");
    let told = crate::commands::ran(&charged.daemon, &["audit"], &[]).stdout;
    assert!(told.contains("hookledger repair") && told.contains("The books differ"), "{told}");
    charged.daemon.restart();
    charged.daemon.command_json(&["repair"]);
    assert_agrees(&charged.daemon);
}

/// Kinds as the report names them, from its source.
fn kinds() -> Vec<String> {
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/audit/report.rs")).unwrap();
    let body = source.split_once("pub enum DifferenceKind {").unwrap().1.split_once('}').unwrap().0;
    let names =
        body.lines().map(str::trim).filter(|line| !line.starts_with("//")).filter_map(|line| line.strip_suffix(','));
    let snake = |name: &str| {
        let parts = name.char_indices().map(|(at, letter)| match letter.is_uppercase() {
            true if at > 0 => format!("_{}", letter.to_lowercase()),
            _ => letter.to_lowercase().to_string(),
        });
        parts.collect::<String>()
    };
    names.map(snake).collect()
}

#[test]
fn every_kind_of_difference_is_provoked_by_a_test_and_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let files = ["audit.rs", "audit_kinds.rs", "audit_source.rs", "audit_source_spans.rs"];
    let tests: String = files.iter().map(|name| read(&format!("tests/behaviour/{name}"))).collect();
    let document = read("docs/OPERATIONS.md");
    let kinds = kinds();
    assert!(kinds.len() > 15, "{kinds:?}");
    for kind in kinds {
        assert!(tests.contains(&format!("\"{kind}\"")), "no test provokes {kind}");
        assert!(document.contains(&format!("`{kind}`")), "docs/OPERATIONS.md does not explain {kind}");
    }
}
