//! Many at once: however deliveries meet, each call is charged once and every balance is exact.

use std::collections::BTreeMap;

use super::{UNITS_PER_CREDIT, assert_account, assert_sound, customer};
use crate::kit::books::{Row, quoted};
use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::random::Random;
use crate::kit::sender::{Report, Retry, deliver};

/// How far a user's newest stamp may run ahead of the clock.
const STAMP_LEAD_MILLIS: i64 = 1000;

#[track_caller]
fn deliver_all(daemon: &Daemon, bodies: Vec<String>, connections: usize) -> Report {
    let report = deliver(daemon.address(), SECRET, bodies, connections, Retry::never());
    report.assert_all_acknowledged();
    report
}

#[test]
fn five_hundred_events_delivered_four_times_at_once_are_five_hundred_charges() {
    let daemon = Daemon::start(DaemonOptions::new().answers_late());
    let user = customer(&daemon, "user", 0, 1);
    let at = now_secs();
    // Copies lie beside each other, so that four of the connections carry them at the same moment.
    let four_each = (0..500).flat_map(|number| {
        let body = Usage::new(format!("evt-{number}")).quota(UNITS_PER_CREDIT + 1).at_secs(at).json();
        std::iter::repeat_n(body, 4)
    });
    let report = deliver_all(&daemon, four_each.collect(), 16);
    assert_eq!(report.statuses(), [(200, 2000)].into());
    let books = daemon.books();
    assert_eq!((books.count("hookledger_claims"), books.count("webhook_logs")), (500, 500));
    assert_account(&daemon, &user, -501, 0, "after 500 calls of 1.002 credits");
    let outcome = |name: &str| daemon.metric(&format!(r#"hookledger_webhook_requests_total{{outcome="{name}"}}"#));
    assert_eq!((outcome("processed"), outcome("duplicate")), (Some(500.0), Some(1500.0)));
    assert_sound(&daemon);
}

#[test]
fn a_hot_user_is_charged_to_the_credit() {
    let daemon = Daemon::start(DaemonOptions::new().answers_late());
    let user = customer(&daemon, "hot", 1_000_000, 1);
    let at = now_secs();
    let units = |number: i64| 400 + number % 777;
    let bodies = (0..5000).map(|number| {
        let usage = Usage::new(format!("evt-{number}")).model(&format!("m{}", number % 3));
        usage.quota(units(number)).at_secs(at).json()
    });
    deliver_all(&daemon, bodies.collect(), 64);
    let total: i64 = (0..5000).map(units).sum();
    let moved = total / UNITS_PER_CREDIT;
    assert_account(&daemon, &user, 1_000_000 - moved, total % UNITS_PER_CREDIT * 2, "after 5,000 calls");
    let books = daemon.books();
    let sums = "SELECT sum(creditCost) FROM usage_records";
    assert_eq!((books.count("usage_records"), books.scalar_i64(sums)), (5000, moved));
    let sums = "SELECT -sum(amount) FROM credit_transactions WHERE type = 'DEDUCT'";
    assert_eq!(books.scalar_i64(sums), moved);
    assert_sound(&daemon);
    assert_one_story(&daemon, &user);
}

/// Each stamp is the later of its commit's clock and the one before plus 1 ms, or repeats where that would run ahead.
#[track_caller]
fn assert_one_story(daemon: &Daemon, user: &str) {
    let sql = "SELECT balance, settled_at_ms AS clock, createdAt AS stamp
        FROM credit_transactions LEFT JOIN hookledger_claims ON claim_id = ref
        WHERE userId = USER ORDER BY createdAt, id";
    let rows = daemon.books().rows(&sql.replace("USER", &quoted(user)));
    let number = |row: &Row, name: &str| row[name].as_i64();
    let stamp = |row: &Row| {
        let written = row["stamp"].as_str().expect("a stamp is a text");
        let time = chrono::NaiveDateTime::parse_from_str(written, "%Y-%m-%d %H:%M:%S%.3f");
        time.expect("a stamp is written as every stamp is").and_utc().timestamp_millis()
    };
    for (before, row) in rows.iter().zip(&rows[1..]) {
        let (last, clock) = (stamp(before), number(row, "clock").expect("a deduction has a claim"));
        let next = clock.max(last + 1);
        let expected = if next > clock + STAMP_LEAD_MILLIS { last } else { next };
        assert_eq!(stamp(row), expected, "after {last}, when the clock showed {clock}");
    }
    let newest = rows.last().expect("there are transactions");
    assert_eq!(number(newest, "balance"), Some(daemon.books().balance(user)), "the newest holds the balance");
}

#[test]
fn stamps_stay_apart_while_a_second_holds_them() {
    let daemon = Daemon::start(DaemonOptions::new().fail_points("ledger.batch.before=1*sleep(200)").answers_late());
    let user = customer(&daemon, "user", 0, 1);
    let at = now_secs();
    let bodies = (0..400).map(|number| Usage::new(format!("e{number}")).quota(UNITS_PER_CREDIT).at_secs(at).json());
    deliver_all(&daemon, bodies.collect(), 64);
    let sql = "SELECT count(DISTINCT createdAt) FROM credit_transactions WHERE userId = USER AND type = 'DEDUCT'";
    assert_eq!(daemon.books().scalar_i64(&sql.replace("USER", &quoted(&user))), 400, "each has a stamp of its own");
    assert_one_story(&daemon, &user);
    assert_sound(&daemon);
}

/// Credits and thousandths at the end, per token.
type Ends = BTreeMap<i64, (i64, i64)>;

fn ends_of(bodies: Vec<String>, tokens: &[i64]) -> Ends {
    let daemon = Daemon::start(DaemonOptions::new().answers_late());
    let users: Vec<(i64, String)> =
        tokens.iter().map(|token| (*token, customer(&daemon, &format!("user{token}"), 1000, *token))).collect();
    deliver_all(&daemon, bodies, 8);
    assert_sound(&daemon);
    let end = |user: &String| (daemon.books().balance(user), super::carried_millis(&daemon, user));
    users.iter().map(|(token, user)| (*token, end(user))).collect()
}

#[test]
fn any_order_comes_to_the_same_end() {
    let tokens = [1, 2, 3, 4, 5];
    let mut random = Random::from_seed(20_251_124);
    let at = now_secs();
    let mut units_of = BTreeMap::<i64, i64>::new();
    let mut bodies = Vec::new();
    for number in 0..300 {
        let (token, units) = (*random.pick(&tokens), random.between(0..=5000));
        *units_of.entry(token).or_default() += units;
        let usage = Usage::new(format!("evt-{number}")).remote_key(token).quota(units);
        let body = usage.at_secs(at - random.between(0..=3600)).json();
        // Some are delivered twice.
        let copies = if random.chance(1, 5) { 2 } else { 1 };
        bodies.extend(std::iter::repeat_n(body, copies));
    }
    let end = |units: i64| (1000 - units / UNITS_PER_CREDIT, units % UNITS_PER_CREDIT * 2);
    let expected: Ends = tokens.iter().map(|token| (*token, end(units_of[token]))).collect();
    for seed in [1, 2, 3] {
        let mut shuffled = bodies.clone();
        Random::from_seed(seed).shuffle(&mut shuffled);
        assert_eq!(ends_of(shuffled, &tokens), expected, "credits and thousandths per token, order {seed}");
    }
}
