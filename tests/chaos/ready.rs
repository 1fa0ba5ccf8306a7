//! How long it takes from a kill to ready where a million calls are in the books already: a figure for a person.

use std::sync::Arc;
use std::time::Duration;

use crate::chaos::database;
use crate::kit::books::Books;
use crate::kit::database::is_sqlite;
use crate::kit::random::Random;
use crate::kit::wait::{Stopwatch, pause, wait_until};
use crate::load::{Load, Misfortunes, Pace};
use crate::rig::Rig;
use crate::settings::Settings;
use crate::tally::Tally;

/// Made with one statement for each table.
const AT_ONCE: i64 = 50_000;
const USERS: i64 = 200;
const STARTS: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(120);

const PACE: Pace = Pace { threads: 8, between: Duration::from_millis(80), misfortunes: Misfortunes::FEW };

/// Bounded by the number of calls and of starts.
pub fn run(settings: &Settings) {
    let in_the_books = settings.calls;
    println!("time to ready on {} with {in_the_books} calls in the books ...", database());
    let random = &mut Random::from_seed(settings.seed);
    let rig = Rig::start(&[]);
    rig.daemon.kill();
    let books = rig.daemon.books();
    let making = Stopwatch::start();
    add_calls(&books, in_the_books);
    println!("made within {:.0} s", making.elapsed().as_secs_f64());
    rig.daemon.launch();
    rig.daemon.wait_ready();
    let calls = Arc::clone(&rig.calls);
    let load = Load::start(rig.daemon.address(), rig.newapi.handle(), calls, PACE, random, Arc::default());
    let mut tally = Tally::default();
    for _ in 0..STARTS {
        pause(Duration::from_millis(300 + random.below(700)));
        let since = Stopwatch::start();
        rig.daemon.kill();
        rig.daemon.launch();
        wait_until("it is ready", PATIENCE, || rig.daemon.is_ready().then_some(()));
        tally.ready_after(since.elapsed());
    }
    load.close();
    let expected = in_the_books + rig.calls.count();
    wait_until("all is charged", PATIENCE, || (books.count("hookledger_claims") == expected).then_some(()));
    let counts = ["hookledger_claims", "usage_records", "credit_transactions", "webhook_logs"];
    let counts = counts.map(|table| format!("{table} {}", books.count(table)));
    println!("rows: {}", counts.join(", "));
    let (median, high, largest, count) = tally.ready_times().expect("it was started");
    let millis = |duration: Duration| duration.as_millis();
    println!(
        "from a kill to ready, of {count} under load: median {} ms, p99 {} ms, largest {} ms",
        millis(median),
        millis(high),
        millis(largest)
    );
}

/// Calls `from` to `until` as a table: 1.5 credits each, ten a second from 2026-01-01 on, of users who take turns.
fn made(from: i64, until: i64) -> String {
    if is_sqlite() {
        format!(
            "(WITH RECURSIVE counted(n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM counted WHERE n + 1 < {until})
               SELECT n, n % {USERS} AS u, n / {USERS} AS k, 1767225600 + n / 10 AS second,
                 strftime('%Y-%m-%d %H:%M:%f', 1767225600 + n / 10, 'unixepoch') AS stamp,
                 printf('%012d', n) AS id, 1 + (n / {USERS}) % 2 AS moved,
                 (n / {USERS} + 1) / 2 * 3 + (n / {USERS} + 1) % 2 AS taken FROM counted)"
        )
    } else {
        format!(
            "(SELECT seq AS n, seq % {USERS} AS u, seq DIV {USERS} AS k, 1767225600 + seq DIV 10 AS second,
                 FROM_UNIXTIME(1767225600 + seq DIV 10) AS stamp, LPAD(seq, 12, '0') AS id,
                 1 + (seq DIV {USERS}) % 2 AS moved,
                 (seq DIV {USERS} + 1) DIV 2 * 3 + (seq DIV {USERS} + 1) % 2 AS taken
               FROM seq_{from}_to_{})",
            until - 1
        )
    }
}

/// Calls of before, as the daemon books them: claim, usage record, transaction, log of the event, balance.
fn add_calls(books: &Books, count: i64) {
    let users = made(0, USERS);
    books.execute(&format!(
        "INSERT INTO users (id, email, updatedAt) SELECT 'u' || u, 'u' || u || '@example.com', stamp FROM {users} AS made;
         INSERT INTO api_keys (id, userId, label, maskedValue, fullValue, remoteKeyId, updatedAt)
           SELECT 'k' || u, 'u' || u, 'bench', '', '', 1000 + u, stamp FROM {users} AS made;
         INSERT INTO credit_transactions (id, userId, type, amount, balance, createdAt)
           SELECT 'first-' || u, 'u' || u, 'RECHARGE', 1000000000, 1000000000, '2025-12-31 00:00:00.000' FROM {users} AS made"
    ));
    for from in (0..count).step_by(AT_ONCE as usize) {
        let made = made(from, count.min(from + AT_ONCE));
        books.execute(&format!(
            "INSERT INTO hookledger_claims (call_second, claim_id, source, event_id, event_at_ms, remote_key_id, model,
                 prompt_tokens, completion_tokens, price_units, price_credits, price_femtos, rate_micros, quota_per_unit,
                 user_id, key_id, credits_moved, credits_unpaid, remainder_before, remainder_after, settled_at_ms, rounding)
               SELECT second, 'r' || id, 'webhook', 'evt-' || n, second * 1000, 1000 + u, 'gpt-4.1', 900, 120, 750, 1,
                 500000000000000, 1000000000, 500000, 'u' || u, 'k' || u, moved, 0, (moved - 1) * 500000000000000,
                 (2 - moved) * 500000000000000, second * 1000, 'carry' FROM {made} AS made"
        ));
        books.execute(&format!(
            "INSERT INTO usage_records (id, apiKeyId, timestamp, model, promptTokens, completionTokens, totalTokens,
                 creditCost, rawMeta)
               SELECT 'r' || id, 'k' || u, stamp, 'gpt-4.1', 900, 120, 1020, moved, '{{}}' FROM {made} AS made"
        ));
        books.execute(&format!(
            "INSERT INTO credit_transactions (id, userId, type, amount, balance, ref, `desc`, createdAt)
               SELECT 't' || id, 'u' || u, 'DEDUCT', -moved, 1000000000 - taken, 'r' || id, 'gpt-4.1', stamp
                 FROM {made} AS made"
        ));
        books.execute(&format!(
            "INSERT INTO webhook_logs (id, eventId, payload, status, processedAt, createdAt)
               SELECT 'w' || id, 'evt-' || n, '{{}}',
                 'processed', stamp, stamp FROM {made} AS made"
        ));
    }
    let last = made(count - USERS, count);
    books.execute(&format!(
        "INSERT INTO user_credit_balances (id, userId, currentCredits, updatedAt)
           SELECT 'b' || u, 'u' || u, 1000000000 - taken, stamp FROM {last} AS made;
         INSERT INTO hookledger_accounts (user_id, remainder_femtos, unpaid_credits)
           SELECT 'u' || u, (2 - moved) * 500000000000000, 0 FROM {last} AS made"
    ));
}
