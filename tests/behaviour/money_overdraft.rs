//! Empty accounts: the call has happened, so it is booked or remembered as unpaid, never forgotten.

use std::time::Duration;

use super::{UNITS_PER_CREDIT, assert_account, assert_sound, charge, customer};
use crate::kit::books::quoted;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::sender::{Retry, deliver};
use crate::kit::wait::wait_until;

const UNPAID: &str = "hookledger_ledger_unpaid_credits";

fn credits(event_id: &str, credits: i64) -> Usage {
    Usage::new(event_id).quota(credits * UNITS_PER_CREDIT)
}

fn forget_balance(daemon: &Daemon, user: &str) {
    daemon.books().execute(&format!("DELETE FROM user_credit_balances WHERE userId = {}", quoted(user)));
}

#[track_caller]
fn assert_unpaid(daemon: &Daemon, user: &str, credits: i64) {
    let sql = "SELECT coalesce((SELECT unpaid_credits FROM hookledger_accounts WHERE user_id = USER), 0)";
    assert_eq!(daemon.books().scalar_i64(&sql.replace("USER", &quoted(user))), credits, "unpaid of {user}");
}

/// The inbox is counted every few seconds of the daemon's clock.
#[track_caller]
fn assert_unpaid_metric(daemon: &Daemon, credits: f64) {
    daemon.clock().advance(Duration::from_secs(10));
    let shown = || daemon.metric(UNPAID).filter(|shown| shown.to_bits() == credits.to_bits());
    wait_until(&format!("{UNPAID} is {credits}"), Duration::from_secs(60), shown);
}

#[test]
fn a_call_is_booked_into_the_negative() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 5, 1);
    charge(&daemon, &credits("across zero", 12));
    assert_account(&daemon, &user, -7, 0, "from 5 down to below zero");
    charge(&daemon, &credits("below zero", 30));
    charge(&daemon, &Usage::new("a part").quota(1));
    assert_account(&daemon, &user, -37, 2, "from below zero");
    assert_unpaid(&daemon, &user, 0);
    daemon.grant(&user, 40);
    assert_account(&daemon, &user, 3, 2, "after a grant");
    assert_sound(&daemon);
}

#[test]
fn a_user_without_a_balance_gets_one() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 0, 1);
    let rows = || daemon.books().count("user_credit_balances");
    forget_balance(&daemon, &user);
    assert_eq!(rows(), 0);
    charge(&daemon, &credits("first", 3));
    assert_account(&daemon, &user, -3, 0, "after the first call");
    charge(&daemon, &credits("second", 4));
    assert_account(&daemon, &user, -7, 0, "after the second");
    assert_eq!(rows(), 1);
    assert_sound(&daemon);
}

#[test]
fn a_user_without_a_balance_gets_one_from_a_call_that_moves_nothing() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 0, 1);
    forget_balance(&daemon, &user);
    charge(&daemon, &Usage::new("small").quota(1));
    assert_account(&daemon, &user, 0, 2, "after a call below one credit");
    assert_eq!(daemon.books().count("user_credit_balances"), 1);
    assert_sound(&daemon);
}

#[test]
fn refuse_deducts_nothing_from_an_empty_account_and_keeps_what_is_unpaid() {
    let options = DaemonOptions::new().set("HOOKLEDGER__LEDGER__OVERDRAFT", "refuse").movable_clock();
    let daemon = Daemon::start(options);
    let user = customer(&daemon, "user", 5, 1);
    charge(&daemon, &credits("across zero", 12));
    assert_account(&daemon, &user, -7, 0, "above zero all of it is deducted, as the platform does");
    assert_unpaid(&daemon, &user, 0);
    charge(&daemon, &Usage::new("refused").quota(12 * UNITS_PER_CREDIT + 250));
    charge(&daemon, &Usage::new("refused too").quota(UNITS_PER_CREDIT + 250));
    assert_account(&daemon, &user, -7, 0, "nothing moves below zero");
    assert_unpaid(&daemon, &user, 14);
    let books = daemon.books();
    assert_eq!(books.inbox("refused"), Some(("processed".to_owned(), None)));
    let record = "SELECT creditCost FROM usage_records WHERE rawMeta LIKE '%\"refused\"%'";
    assert_eq!(books.scalar_i64(record), 0, "the call has a record that moved nothing");
    let meta = "SELECT CAST(json_extract(rawMeta, '$.unpaid') AS SIGNED) FROM usage_records WHERE rawMeta LIKE '%\"refused\"%'";
    assert_eq!(books.scalar_i64(meta), 12, "and tells what it should have moved");
    assert_eq!(daemon.metric(r#"hookledger_ledger_settlements_total{source="webhook",outcome="unpaid"}"#), Some(2.0));
    assert_unpaid_metric(&daemon, 14.0);
    assert_sound(&daemon);

    daemon.grant(&user, 107);
    charge(&daemon, &credits("paid again", 1));
    assert_account(&daemon, &user, 99, 0, "after a grant, calls are deducted again");
    assert_unpaid(&daemon, &user, 14);
    assert_sound(&daemon);
}

#[test]
fn refuse_counts_exactly_zero_and_no_balance_as_empty() {
    let daemon = Daemon::start(DaemonOptions::new().set("HOOKLEDGER__LEDGER__OVERDRAFT", "refuse"));
    let at_zero = customer(&daemon, "zero", 0, 1);
    let without = customer(&daemon, "without", 0, 2);
    let with_one = customer(&daemon, "one", 1, 3);
    forget_balance(&daemon, &without);
    for token in [1, 2, 3] {
        charge(&daemon, &credits(&format!("evt-{token}"), 2).remote_key(token));
    }
    let ends = [&at_zero, &without, &with_one].map(|user| daemon.books().balance(user));
    assert_eq!(ends, [0, 0, -1]);
    assert_unpaid(&daemon, &at_zero, 2);
    assert_unpaid(&daemon, &without, 2);
    assert_unpaid(&daemon, &with_one, 0);
    assert_sound(&daemon);
}

#[test]
fn refuse_stops_in_the_middle_of_a_batch() {
    let options = DaemonOptions::new().set("HOOKLEDGER__LEDGER__OVERDRAFT", "refuse");
    let daemon = Daemon::start(options.fail_points("ledger.batch.before=1*sleep(300)").answers_late());
    let user = customer(&daemon, "user", 10, 1);
    let bodies: Vec<String> = (0..30).map(|number| credits(&format!("evt-{number}"), 1).json()).collect();
    let report = deliver(daemon.address(), SECRET, bodies, 30, Retry::never());
    assert_eq!(report.statuses(), [(200, 30)].into());
    assert_account(&daemon, &user, 0, 0, "ten credits pay for ten of the calls");
    assert_unpaid(&daemon, &user, 20);
    assert_eq!(daemon.books().count("usage_records"), 30);
    assert_sound(&daemon);
}
