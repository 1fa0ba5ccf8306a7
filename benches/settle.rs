//! How many events a second the store settles, by batch size: the limit that everything above it works towards.
//!
//! `make bench` runs it. No HTTP, no actors: batches of fresh events of 2,000 users go straight into
//! `LedgerStore::settle`, each committed durably. Batch sizes may be given as arguments.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a benchmark that cannot start ends

use std::sync::Arc;
use std::time::{Duration, Instant};

use hookledger::clock::SystemClock;
use hookledger::domain::event::{Content, Tokens, UsageEvent};
use hookledger::domain::ids::{EventId, RemoteKeyId};
use hookledger::domain::matching::Windows;
use hookledger::domain::money::{QuotaPerUnit, QuotaUnits, Rate};
use hookledger::domain::pricing::{Overdraft, Price, Rounding};
use hookledger::domain::retry::RetryPolicy;
use hookledger::domain::settlement::{LedgerPolicy, Purpose};
use hookledger::domain::time::UnixMillis;
use hookledger::storage::books::{Books, NewKey, NewUser};
use hookledger::storage::sqlite::{SqliteOptions, SqliteStore};
use hookledger::storage::{ConfiguredPrices, LedgerStore};

const USERS: i64 = 2_000;
const SECONDS_PER_SIZE: u64 = 4;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let folder = std::env::temp_dir().join(format!("hookledger-bench-{}", std::process::id()));
    let options = SqliteOptions {
        path: folder.join("hookledger.db"),
        lock_wait: Duration::from_secs(2),
        max_readers: 2,
        policy: LedgerPolicy {
            rounding: Rounding::Carry,
            overdraft: Overdraft::Allow,
            key_grace: Duration::from_secs(3600),
            retry: RetryPolicy {
                max_attempts: 10,
                base_delay: Duration::from_secs(2),
                max_delay: Duration::from_secs(600),
            },
            reads_log: std::env::var_os("BENCH_READS_LOG").is_some(),
            windows: Windows { match_window: Duration::from_secs(60), dispute_window: Duration::from_secs(900) },
        },
    };
    let store = SqliteStore::open_for_daemon(&options, Arc::new(SystemClock), true).await.unwrap();
    let prices = ConfiguredPrices {
        usd_to_credits: Rate::parse("1000").unwrap(),
        quota_per_unit: QuotaPerUnit::new(500_000).unwrap(),
        keeps_quota: false,
        heard: None,
    };
    store.look_at_prices(prices).await.unwrap();
    for token in 1..=USERS {
        let email = format!("user-{token}@example.com");
        store
            .add_user(NewUser { email: email.clone(), name: None, credits: 1000, platform_database: false })
            .await
            .unwrap();
        store.add_key(NewKey { user: email, remote_id: token, label: None, platform_database: false }).await.unwrap();
    }
    let mut number = 0;
    println!("{:>6} {:>10} {:>10} {:>10}", "batch", "events/s", "p50 ms", "p99 ms");
    let asked: Vec<u32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if asked.is_empty() { vec![1, 16, 32, 64, 256, 512] } else { asked };
    for size in sizes {
        let (mut took, started) = (Vec::new(), Instant::now());
        let mut events = 0;
        while started.elapsed() < Duration::from_secs(SECONDS_PER_SIZE) {
            let batch: Vec<_> = (0..size).map(|_| event(&mut number)).collect();
            let begun = Instant::now();
            store.settle(0, batch, Purpose::Delivery).await.unwrap();
            took.push(begun.elapsed());
            events += size;
        }
        let rate = f64::from(events) / started.elapsed().as_secs_f64();
        took.sort();
        let millis = |part: usize| took[(took.len() - 1) * part / 100].as_secs_f64() * 1000.0;
        println!("{size:>6} {rate:>10.0} {:>10.2} {:>10.2}", millis(50), millis(99));
    }
    store.close().await;
    std::fs::remove_dir_all(folder).ok();
}

fn event(number: &mut u64) -> Arc<UsageEvent> {
    *number += 1;
    // Spread over the users, and ids without an order, as senders make them.
    let scrambled = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let millis = i64::try_from(1_795_558_800_000 + *number / 10).unwrap();
    let event_id = format!("{scrambled:016x}-{number}");
    let token = i64::try_from(scrambled % USERS.unsigned_abs()).unwrap() + 1;
    let payload = format!(
        r#"{{"eventId":"{event_id}","eventType":"usage","timestamp":{millis},"data":{{"remoteKeyId":{token},"model":"gpt-4o-mini","promptTokens":100,"completionTokens":50,"totalTokens":150,"cost":0.00366}}}}"#
    );
    Arc::new(UsageEvent {
        event_id: EventId::parse(&event_id).unwrap(),
        content: Content {
            remote_key_id: RemoteKeyId::new(token).unwrap(),
            model: Arc::from("gpt-4o-mini"),
            tokens: Tokens { prompt: 100, completion: 50, total: 150 },
            price: Price::Quota(QuotaUnits::new(1830).unwrap()),
            called_at: UnixMillis::new(millis),
        },
        request_id: None,
        log_id: None,
        payload: Arc::from(payload.as_str()),
    })
}
