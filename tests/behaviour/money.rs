//! Money: every call is charged once, exactly, to its owner, and the books say so to the letter.
//!
//! This file holds what its parts share; each part is one promise of the ledger.

#[path = "money_crowds.rs"]
mod crowds;
#[path = "money_identity.rs"]
mod identity;
#[path = "money_overdraft.rs"]
mod overdraft;
#[path = "money_owners.rs"]
mod owners;
#[path = "money_pending.rs"]
mod pending;
#[path = "money_poison.rs"]
mod poison;
#[path = "money_rates.rs"]
mod rates;
#[path = "money_rounding.rs"]
mod rounding;
#[path = "money_rows.rs"]
mod rows;
#[path = "money_shapes.rs"]
mod shapes;

use serde_json::json;

use crate::kit::books::quoted;
use crate::kit::daemon::Daemon;
use crate::kit::events::Usage;
use crate::kit::wire::Response;

/// Of the default rate and quota per dollar: 500,000 units are a dollar, which is 1,000 credits.
const UNITS_PER_CREDIT: i64 = 500;

/// Remainders are kept in 10^-15 credit; tests think in thousandths.
const FEMTOS_PER_MILLI: i64 = 1_000_000_000_000;

const PROCESSED: &str = "Event processed successfully";
const REPEATED: &str = "Event already processed (idempotent)";

/// Adds a user with these credits and a key for `token`; the user's id.
#[track_caller]
fn customer(daemon: &Daemon, name: &str, credits: i64, token: i64) -> String {
    let user = daemon.add_user(&format!("{name}@example.com"), credits);
    daemon.add_key(&user, token);
    user
}

/// What is owed below one credit, in thousandths of a credit; panics if that is no whole number of them.
#[track_caller]
fn carried_millis(daemon: &Daemon, user: &str) -> i64 {
    let sql = "SELECT coalesce((SELECT remainder_femtos FROM hookledger_accounts WHERE user_id = USER), 0)";
    let femtos = daemon.books().scalar_i64(&sql.replace("USER", &quoted(user)));
    assert_eq!(femtos % FEMTOS_PER_MILLI, 0, "{femtos} femtos of {user} are no whole thousandths");
    femtos / FEMTOS_PER_MILLI
}

/// Balance and remainder of a user, in credits and thousandths.
#[track_caller]
fn assert_account(daemon: &Daemon, user: &str, credits: i64, millis: i64, what: &str) {
    let found = (daemon.books().balance(user), carried_millis(daemon, user));
    assert_eq!(found, (credits, millis), "balance and thousandths carried, {what}");
}

/// The answer is this one to the letter.
#[track_caller]
fn assert_answer(answer: &Response, status: u16, success: bool, message: &str, event_id: &str) {
    let expected = json!({ "success": success, "message": message, "eventId": event_id });
    assert_eq!((answer.status, answer.json()), (status, expected));
}

/// Posts an event that must be charged now.
#[track_caller]
fn charge(daemon: &Daemon, usage: &Usage) {
    assert_answer(&daemon.post(usage.json()), 200, true, PROCESSED, usage.event_id());
}

/// Posts an event that must be stored and not charged; what is said about it.
#[track_caller]
fn refused(daemon: &Daemon, usage: &Usage) -> String {
    let answer = daemon.post(usage.json());
    let message = answer.json()["message"].as_str().expect("every answer has a message").to_owned();
    assert_answer(&answer, 200, false, &message, usage.event_id());
    assert_eq!(daemon.books().inbox(usage.event_id()), Some(("failed".to_owned(), Some(message.clone()))));
    message
}

/// Nothing in the books contradicts anything else, and no part of a credit is lost.
#[track_caller]
fn assert_sound(daemon: &Daemon) {
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
}
