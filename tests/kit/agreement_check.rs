//! Each rule of the books judged on books that break it: a rule that never fires proves nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::books::Books;
use super::database::Guest;
use super::folder::TestFolder;
use super::mariadb::shared_server;

const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");

/// Two users; `u` was granted 100 credits and charged 1.83 of them, carrying 0.83.
const WHOLE: &str = "
  INSERT INTO users (id, email, updatedAt)
    VALUES ('u', 'u@example.com', '2026-11-24 02:31:00.000'), ('v', 'v@example.com', '2026-11-24 02:31:00.000');
  INSERT INTO user_credit_balances (id, userId, currentCredits, updatedAt)
    VALUES ('b', 'u', 99, '2026-11-24 02:31:00.000');
  INSERT INTO api_keys (id, userId, label, maskedValue, fullValue, remoteKeyId, updatedAt)
    VALUES ('k', 'u', '', '', '', '7', '2026-11-24 02:31:00.000'), ('l', 'v', '', '', '', '8', '2026-11-24 02:31:00.000');
  INSERT INTO credit_transactions (id, userId, type, amount, balance, ref, createdAt) VALUES
    ('t1', 'u', 'BONUS', 100, 100, NULL, '2026-11-24 02:31:00.000'),
    ('t2', 'u', 'DEDUCT', -1, 99, 'r', '2026-11-24 02:31:00.001');
  INSERT INTO usage_records (id, apiKeyId, model, promptTokens, completionTokens, totalTokens, creditCost)
    VALUES ('r', 'k', 'gpt-4', 100, 50, 150, 1);
  INSERT INTO webhook_logs (id, eventId, payload, status)
    VALUES ('w', 'e', '{}', 'processed'), ('x', 'f', '{}', 'failed');
  INSERT INTO hookledger_inbox (inbox_id, state, reason, remote_key_id, called_at_ms, recorded_at_ms)
    VALUES ('x', 'failed', 'unknown_key', 9, 1000, 2000);
  INSERT INTO hookledger_accounts (user_id, remainder_femtos, unpaid_credits) VALUES ('u', 830000000000000, 0);
  INSERT INTO hookledger_claims (call_second, claim_id, source, event_id, event_at_ms, remote_key_id, model,
    prompt_tokens, completion_tokens, price_credits, price_femtos, rate_micros, quota_per_unit, user_id, key_id,
    credits_moved, credits_unpaid, remainder_before, remainder_after, settled_at_ms)
    VALUES (1, 'r', 'webhook', 'e', 1000, 7, 'gpt-4', 100, 50, 1, 830000000000000, 1, 1, 'u', 'k', 1, 0, 0, 0, 1);";

/// What breaks them, and a part of what is to be said of it.
const FAULTS: &[(&str, &str)] = &[
    ("UPDATE user_credit_balances SET currentCredits = 98", "user u has 98, his transactions sum to 99"),
    ("UPDATE credit_transactions SET ref = NULL WHERE id = 't2'", "refers to nothing, which does not exist"),
    ("UPDATE usage_records SET creditCost = 2", "deduction t2 of -1 refers to r, which cost 2"),
    ("DELETE FROM credit_transactions WHERE id = 't2'", "usage record r cost 1 and has 0 deductions"),
    (
        "INSERT INTO credit_transactions (id, userId, type, amount, balance, ref)
           VALUES ('t3', 'u', 'DEDUCT', -1, 98, 'r')",
        "usage record r cost 1 and has 2 deductions",
    ),
    ("UPDATE hookledger_claims SET user_id = 'v'", "deduction t2 was taken from user u, its claim charges v"),
    ("UPDATE hookledger_claims SET user_id = 'U'", "deduction t2 was taken from user u, its claim charges U"),
    ("UPDATE hookledger_claims SET key_id = 'K'", "key K moved 1, the record has key k and 1"),
    ("UPDATE hookledger_claims SET claim_id = 'R'", "claim R of event e: no such usage record"),
    ("UPDATE usage_records SET id = 'R'", "deduction t2 of -1 refers to r, which does not exist"),
    ("DELETE FROM hookledger_claims", "0 claims, 1 usage records"),
    ("UPDATE hookledger_claims SET claim_id = 'other'", "claim other of event e: no such usage record"),
    ("UPDATE hookledger_claims SET credits_moved = 2", "key k moved 2, the record has key k and 1"),
    ("UPDATE hookledger_claims SET claim_id = 'other'", "usage record r has 0 claims"),
    ("UPDATE hookledger_claims SET event_id = NULL", "event none of 1000 has 1 claims"),
    ("UPDATE credit_transactions SET balance = 98 WHERE id = 't2'", "transaction t2 of -1 leaves 98 after 100"),
    (
        "UPDATE credit_transactions SET createdAt = '2026-11-24 02:30:00.000' WHERE id = 't2'",
        "transaction t2 is of 2026-11-24 02:30:00.000, the one written before it of 2026-11-24 02:31:00.000",
    ),
    ("UPDATE hookledger_inbox SET state = 'dead'", "inbox row x (dead) is failed in webhook_logs"),
    ("DELETE FROM webhook_logs WHERE id = 'x'", "inbox row x (failed) is not in webhook_logs"),
    ("UPDATE hookledger_claims SET event_id = 'f'", "inbox row x (failed) was charged as r"),
    (
        "INSERT INTO hookledger_refunds VALUES ('g', 1, 'r', 'operator', 'i', 0, 'u', 1, 0, 1, 0, 0, 0, '', 't2', 1)",
        "refund g of r moved 1, its transaction t2 is of nothing for nothing",
    ),
    (
        "INSERT INTO hookledger_refunds VALUES ('g', 1, 'r', 'operator', 'i', 0, 'u', 1, 0, 1, 0, 0, 0, '', 't3', 1);
         INSERT INTO credit_transactions (id, userId, type, amount, balance, ref) VALUES ('t3', 'u', 'REFUND', 1, 100, 'R')",
        "refund g of r moved 1, its transaction t3 is of 1 for R",
    ),
    (
        "INSERT INTO credit_transactions (id, userId, type, amount, balance, ref) VALUES ('t3', 'u', 'REFUND', 1, 100, 'r')",
        "transaction t3 has 0 refunds",
    ),
    ("DELETE FROM api_keys WHERE id = 'k'", "of usage_records refers to no row of api_keys"),
];

/// Whole books, and what they lie in.
struct Rig {
    books: Books,
    _place: Box<dyn std::any::Any>,
}

/// What makes the tables of one kind of database.
fn migrations(database: &str) -> String {
    let folder = std::fs::read_dir(Path::new(MIGRATIONS).join(database)).expect("migrations");
    let mut files: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let text = |file: &std::path::PathBuf| std::fs::read_to_string(file).expect("a migration is a text");
    // The last statement of a file may stand without its end.
    files.iter().map(text).map(|text| text.trim_end().trim_end_matches(';').to_owned()).collect::<Vec<_>>().join(";\n")
}

fn in_a_file() -> Rig {
    let folder = TestFolder::new();
    let file = folder.path().join("books.db");
    std::fs::write(&file, b"").expect("an empty file is an empty database");
    let books = Books::at(&file);
    books.execute(&migrations("sqlite"));
    books.execute(WHOLE);
    Rig { books, _place: Box::new(folder) }
}

fn on_a_server() -> Rig {
    let guest = Guest::new(shared_server().admin());
    let state = guest.state();
    let tables = migrations("mysql");
    guest.login().execute(None, &format!("CREATE DATABASE `{state}`; USE `{state}`; {tables}"));
    let books = Books::of(&guest);
    books.execute(WHOLE);
    Rig { books, _place: Box::new(guest) }
}

const PLACES: &[fn() -> Rig] = &[in_a_file, on_a_server];

#[test]
fn whole_books_are_called_whole() {
    for place in PLACES {
        let books = &place().books;
        books.assert_whole();
        books.assert_carried_exactly();
        assert_eq!((books.balance("u"), books.balance("v")), (99, 0));
        assert_eq!(books.inbox("f"), Some(("failed".to_owned(), None)));
        assert_eq!(books.credits_moved(), [("u".to_owned(), 1)].into());
    }
}

#[track_caller]
fn assert_each_fault_is_named(place: fn() -> Rig) {
    for (fault, complaint) in FAULTS {
        let rig = place();
        // What references forbid is broken as well: a careless restore does it.
        rig.books.execute_unchecked(fault);
        let found = rig.books.disagreements();
        let is_named = found.iter().any(|line| line.contains(complaint));
        assert!(is_named, "{fault} should be called {complaint:?} by {}: {found:#?}", rig.books);
    }
}

#[test]
fn each_fault_in_a_file_is_named() {
    assert_each_fault_is_named(in_a_file);
}

#[test]
fn each_fault_on_a_server_is_named() {
    assert_each_fault_is_named(on_a_server);
}

#[test]
fn a_lost_femto_is_found() {
    for place in PLACES {
        let rig = place();
        rig.books.execute("UPDATE hookledger_accounts SET remainder_femtos = remainder_femtos - 1");
        let judged = catch_unwind(AssertUnwindSafe(|| rig.books.assert_carried_exactly()));
        assert!(judged.is_err(), "one femto is missing");
    }
}
