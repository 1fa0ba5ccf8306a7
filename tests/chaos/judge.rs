//! Whether the books are right: by the run's own count, by the rules that the kit knows, and by the daemon's own audit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use crate::calls::{Calls, UNITS_PER_CREDIT};
use crate::chaos::Chaos;
use crate::kit::books::{Books, Row};
use crate::kit::process::run;
use crate::kit::wait::{poll, wait_until};
use crate::rig::{CREDITS, Rig};

const PATIENCE: Duration = Duration::from_secs(120);
/// With which a command ends that a busy server or disk did not answer in time.
const OUT_OF_REACH: i32 = 3;
/// For a look at everything that hours have charged.
const LONG: Duration = Duration::from_secs(1800);
/// So many numbers are looked at with one statement, which reads all claims.
const AT_ONCE: i64 = 500_000;
const FEMTOS_PER_CREDIT: i128 = 1_000_000_000_000_000;
/// At 1,000 credits and 500,000 quota units a dollar.
const FEMTOS_PER_UNIT: i128 = FEMTOS_PER_CREDIT / UNITS_PER_CREDIT as i128;
/// Charges that are offered to the operator after a round.
const REFUNDABLE: usize = 40;

impl Chaos {
    /// Waits for quiet, and panics with everything that is wrong then.
    pub fn judge(&mut self) {
        wait_for_quiet(&self.rig);
        let problems = own_count(&self.rig, self.first_number, self.operator.added());
        assert!(problems.is_empty(), "the books are wrong by the run's own count:\n{}", problems.join("\n"));
        self.rig.daemon.books().assert_whole();
        self.rig.daemon.books().assert_carried_exactly();
        assert_audited(&self.rig);
        let charges = refundable(&self.rig.daemon.books(), self.first_number);
        let number_of = |id: &String| self.rig.users.iter().position(|user| user == id).expect("the user is ours");
        self.operator.refundable = charges.iter().map(|(charge, user)| (charge.clone(), number_of(user))).collect();
    }
}

/// The daemon's own audit finds nothing.
pub fn assert_audited(rig: &Rig) {
    let audit = wait_until("the audit reaches the database", PATIENCE, || {
        let audit = run(&mut rig.daemon.any_command(&["audit", "--strict"]), b"", LONG);
        (audit.status.code() != Some(OUT_OF_REACH)).then_some(audit)
    });
    assert!(
        audit.status.success(),
        "the audit found differences: {}{}",
        String::from_utf8_lossy(&audit.stdout),
        String::from_utf8_lossy(&audit.stderr)
    );
}

/// Until nothing waits, everything is charged, and the log was read once more, which would charge what is too much.
pub fn wait_for_quiet(rig: &Rig) {
    let books = rig.daemon.books();
    let expected = rig.calls.count();
    let is_quiet = || books.count("hookledger_inbox") == 0 && books.count("hookledger_claims") >= expected;
    if poll(PATIENCE, || is_quiet().then_some(())).is_none() {
        let waiting =
            books.rows("SELECT state, reason, count(*) AS events FROM hookledger_inbox GROUP BY state, reason");
        let problems = own_count(rig, 1, &[]);
        panic!("no quiet within {PATIENCE:?}: {waiting:?} wait;\n{}", problems.join("\n"));
    }
    rig.wait_for_passes(2.0, PATIENCE);
}

/// What is wrong with calls from this number on, and with all balances. `added`: what was given to each user since the
/// beginning; where that is not known, balances are not looked at.
pub fn own_count(rig: &Rig, first_number: i64, added: &[i64]) -> Vec<String> {
    let books = rig.daemon.books();
    let mut problems = Vec::new();
    for first in (first_number..rig.calls.next_number()).step_by(AT_ONCE as usize) {
        problems.extend(wrong_charges(&books, &rig.calls, &rig.users, first..first + AT_ONCE));
        problems.extend(wrong_events(&books, &rig.calls, first..first + AT_ONCE));
    }
    let (claims, records) = (books.count("hookledger_claims"), books.count("usage_records"));
    let expected = rig.calls.count();
    if (claims, records) != (expected, expected) {
        problems.push(format!("{expected} calls, {claims} claims, {records} usage records"));
    }
    let unsettled = books.scalar_i64("SELECT count(*) FROM webhook_logs WHERE status <> 'processed'");
    if unsettled != 0 {
        problems.push(format!("{unsettled} events of the inbox are not settled"));
    }
    if !added.is_empty() {
        problems.extend(wrong_balances(&books, rig, added));
    }
    problems
}

fn among(numbers: &Range<i64>) -> String {
    format!("prompt_tokens >= {} AND prompt_tokens < {}", numbers.start, numbers.end)
}

fn wrong_charges(books: &Books, calls: &Calls, users: &[String], numbers: Range<i64>) -> Vec<String> {
    let among = among(&numbers);
    let charged = books.rows(&format!(
        "SELECT prompt_tokens, user_id, count(*) AS times, CAST(sum(price_credits) AS SIGNED) AS credits,
             CAST(sum(price_femtos) AS SIGNED) AS femtos
           FROM hookledger_claims WHERE {among} GROUP BY prompt_tokens, user_id"
    ));
    let mut expected = calls.expected(numbers);
    let mut problems = Vec::new();
    for row in &charged {
        let number = whole(row, "prompt_tokens");
        let Some(call) = expected.remove(&number) else {
            problems.push(format!("call {number} was not made, or its charges are spread over users: {row:?}"));
            continue;
        };
        let (times, user) = (whole(row, "times"), text(row, "user_id"));
        let price = i128::from(whole(row, "credits")) * FEMTOS_PER_CREDIT + i128::from(whole(row, "femtos"));
        if times != call.times || user != users[call.user] {
            problems.push(format!("call {number} is charged {times} times to {user}: {call:?}"));
        }
        if price != i128::from(call.units) * i128::from(call.times) * FEMTOS_PER_UNIT {
            problems.push(format!("call {number} costs {price} femtocredits: {call:?}"));
        }
    }
    problems.extend(expected.iter().map(|(number, call)| format!("call {number} is not charged: {call:?}")));
    problems
}

/// Each event that got a 2xx is a side of one charge, of its own call, and no event is a side of two.
fn wrong_events(books: &Books, calls: &Calls, numbers: Range<i64>) -> Vec<String> {
    let among = among(&numbers);
    let rows = books
        .rows(&format!("SELECT event_id, prompt_tokens FROM hookledger_claims WHERE {among} AND event_id IS NOT NULL"));
    let mut sides: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for row in &rows {
        sides.entry(text(row, "event_id")).or_default().push(whole(row, "prompt_tokens"));
    }
    let twice = sides.iter().filter(|(_, numbers)| numbers.len() > 1);
    let mut problems: Vec<String> =
        twice.map(|(event, numbers)| format!("event {event} is charged with calls {numbers:?}")).collect();
    for (number, event) in calls.acknowledged(numbers) {
        match sides.get(&event).map(Vec::as_slice) {
            Some([own]) if *own == number => {}
            other => {
                problems.push(format!("event {event} of call {number} was acknowledged, and is charged as {other:?}"))
            }
        }
    }
    problems
}

fn wrong_balances(books: &Books, rig: &Rig, added: &[i64]) -> Vec<String> {
    let told = |sql: &str| -> BTreeMap<String, i64> {
        books.rows(sql).iter().map(|row| (text(row, "userId"), whole(row, "credits"))).collect()
    };
    let held = told("SELECT userId, currentCredits AS credits FROM user_credit_balances");
    let moved = told("SELECT userId, CAST(sum(amount) AS SIGNED) AS credits FROM credit_transactions GROUP BY userId");
    let units = rig.calls.units(rig.users.len());
    let mut problems = Vec::new();
    for (number, user) in rig.users.iter().enumerate() {
        // Fractions of a credit are carried, and become whole ones with later calls.
        let expected = CREDITS + added[number] - units[number].div_euclid(UNITS_PER_CREDIT);
        let found = (held.get(user).copied(), moved.get(user).copied());
        if found != (Some(expected), Some(expected)) {
            problems.push(format!("{user} should have {expected} credits; balance and sum of transactions: {found:?}"));
        }
    }
    let users: BTreeSet<&String> = rig.users.iter().collect();
    problems.extend(held.keys().filter(|user| !users.contains(user)).map(|user| format!("nobody knows {user}")));
    problems
}

fn refundable(books: &Books, first_number: i64) -> Vec<(String, String)> {
    let rows = books.rows(&format!(
        "SELECT claim_id, user_id FROM hookledger_claims
           WHERE prompt_tokens >= {first_number} AND price_credits >= 1 ORDER BY prompt_tokens LIMIT {REFUNDABLE}"
    ));
    rows.iter().map(|row| (text(row, "claim_id"), text(row, "user_id"))).collect()
}

fn whole(row: &Row, name: &str) -> i64 {
    row[name].as_i64().unwrap_or_else(|| panic!("{name} of {row:?} is no whole number"))
}

fn text(row: &Row, name: &str) -> String {
    row[name].as_str().unwrap_or_else(|| panic!("{name} of {row:?} is no text")).to_owned()
}
