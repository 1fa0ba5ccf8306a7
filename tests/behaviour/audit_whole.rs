//! `hookledger audit` finds nothing where nothing is wrong, whatever the books have been through.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::audit::{assert_agrees, audited};
use crate::commands::fine;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::kit::newapi::Call;
use crate::kit::platform::PlatformCall;
use crate::kit::wait::wait_until;
use crate::two_channels::{PATIENCE, Rig};

const DAY: Duration = Duration::from_secs(86_400);

fn customer(daemon: &Daemon, name: &str, credits: i64, token: i64) -> String {
    let user = daemon.add_user(&format!("{name}@example.com"), credits);
    daemon.add_key(&user, token);
    user
}

/// 1.834 credits.
#[track_caller]
fn charge(daemon: &Daemon, event: &str, token: i64) {
    let usage = Usage::new(event).remote_key(token).quota(917).at_secs(daemon.clock().now_secs());
    let answer = daemon.post(usage.json());
    assert_eq!(answer.json()["success"], true, "{event}: {}", answer.text());
}

fn charge_of(daemon: &Daemon, event: &str) -> String {
    daemon.command_json(&["charges", "show", "--event", event])["id"].as_str().unwrap().to_owned()
}

#[test]
fn after_users_and_keys_were_deleted() {
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    let (stays, goes) = (customer(&daemon, "stays", 100, 1), customer(&daemon, "goes", 100, 2));
    let key = daemon.add_key(&stays, 3);
    for (event, token) in [("a", 1), ("b", 2), ("c", 3), ("d", 3), ("e", 1), ("f", 2)] {
        charge(&daemon, event, token);
    }
    let part =
        ["charges", "refund", &charge_of(&daemon, "c"), "--amount", "0.5", "--idempotency-key", "k", "--reason", "r"];
    daemon.command_json(&part);
    daemon.command_json(&["charges", "refund", &charge_of(&daemon, "b"), "--reason", "r"]);
    daemon.books().execute(&format!("DELETE FROM users WHERE id = '{goes}'; DELETE FROM api_keys WHERE id = '{key}'"));
    let report = assert_agrees(&daemon);
    assert_eq!(report["lookedAt"]["erasedCharges"], 4, "{report:#}");
    charge(&daemon, "g", 1);
    assert_agrees(&daemon);
    assert_eq!(daemon.terminate(), 0);
    assert_agrees(&daemon);
}

#[test]
fn after_charges_were_forgotten() {
    let options = DaemonOptions::new()
        .movable_clock()
        .set("HOOKLEDGER__RETENTION__DEAD", "1d")
        .set("HOOKLEDGER__RETENTION__WEBHOOK_LOGS", "2d")
        .set("HOOKLEDGER__RETENTION__CLAIMS", "11d")
        .set("HOOKLEDGER__LEDGER__OVERDRAFT", "refuse");
    let daemon = Daemon::start(options);
    customer(&daemon, "user", 100, 1);
    customer(&daemon, "poor", 1, 2);
    for number in 0..7 {
        charge(&daemon, &format!("old-{number}"), 1);
        charge(&daemon, &format!("poor-{number}"), 2);
    }
    let part = [
        "charges",
        "refund",
        &charge_of(&daemon, "old-3"),
        "--amount",
        "0.7",
        "--idempotency-key",
        "k",
        "--reason",
        "r",
    ];
    daemon.command_json(&part);
    daemon.command_json(&["charges", "refund", &charge_of(&daemon, "poor-6"), "--reason", "r"]);
    assert_agrees(&daemon);
    daemon.clock().advance(30 * DAY);
    charge(&daemon, "young", 1);
    charge(&daemon, "young-poor", 2);
    daemon.clock().advance(Duration::from_secs(600));
    let claims = || daemon.books().count("hookledger_claims");
    wait_until("the old ones are forgotten", PATIENCE, || (claims() == 2).then_some(()));
    charge(&daemon, "younger", 1);
    let report = assert_agrees(&daemon);
    assert_eq!(report["lookedAt"]["charges"], 3, "{report:#}");
    let cleared = "SELECT SUM(unpaid_credits) FROM hookledger_cleared_claims";
    assert!(daemon.books().scalar_i64(cleared) > 0, "what was forgotten is summed");
    daemon.books().execute("UPDATE hookledger_cleared_claims SET carried_femtos = carried_femtos + 1");
    assert_eq!(audited(&daemon, &[]).0, 1, "and counts");
}

#[test]
fn after_calls_were_refused_and_given_back() {
    let daemon = Daemon::start(DaemonOptions::new().movable_clock().set("HOOKLEDGER__LEDGER__OVERDRAFT", "refuse"));
    let user = customer(&daemon, "user", 3, 1);
    for number in 0..6 {
        charge(&daemon, &format!("e{number}"), 1);
    }
    let report = assert_agrees(&daemon);
    assert!(report["lookedAt"]["unpaidCredits"].as_i64().unwrap() > 0, "{report:#}");
    daemon.command_json(&["charges", "refund", &charge_of(&daemon, "e4"), "--reason", "r"]);
    assert_agrees(&daemon);
    let reverse = ["charges", "reverse", "--user", &user, "--reason", "r", "--idempotency-key", "all"];
    daemon.command_json(&reverse);
    daemon.grant(&user, 10);
    daemon.command_json(&["credits", "adjust", "--user", &user, "--amount", "-4", "--reason", "r"]);
    charge(&daemon, "after", 1);
    assert_agrees(&daemon);
}

#[test]
fn after_rates_and_rounding_changed() {
    let mut daemon = Daemon::start(DaemonOptions::new().movable_clock());
    customer(&daemon, "user", 1000, 1);
    charge(&daemon, "carried", 1);
    daemon.books().set_option("UsdToCreditsRate", "731.55");
    daemon.clock().advance(Duration::from_secs(61));
    let rates = "SELECT COUNT(*) FROM hookledger_prices WHERE kind = 'usd_to_credits_micros'";
    wait_until("the rate is noticed", PATIENCE, || (daemon.books().scalar_i64(rates) == 2).then_some(()));
    daemon.clock().advance(Duration::from_secs(121));
    charge(&daemon, "at another rate", 1);
    daemon.set_environment("HOOKLEDGER__LEDGER__ROUNDING", "nearest");
    daemon.restart();
    for event in ["n1", "n2", "n3"] {
        charge(&daemon, event, 1);
    }
    let at = daemon.clock().now_secs();
    let final_price = Usage::new("credits").remote_key(1).credit_cost(4).at_secs(at);
    assert_eq!(daemon.post(final_price.json()).json()["success"], true);
    for (event, amount) in [("n1", "0.4"), ("carried", "1.1")] {
        let charge = charge_of(&daemon, event);
        let part = ["charges", "refund", &charge, "--amount", amount, "--idempotency-key", event, "--reason", "r"];
        daemon.command_json(&part);
        daemon.command_json(&["charges", "refund", &charge, "--reason", "the rest"]);
    }
    assert_agrees(&daemon);
    daemon.set_environment("HOOKLEDGER__LEDGER__ROUNDING", "carry");
    daemon.restart();
    charge(&daemon, "carried again", 1);
    assert_agrees(&daemon);
}

#[test]
fn after_the_log_gave_back_and_corrected() {
    let rig = Rig::pulling();
    let at = rig.now_secs() - 60;
    let task = rig.newapi.submit_task("task-1", &Call::new(42, "sora-2", at).quota(1830));
    let dear = rig.newapi.call(&rig.call(at + 1).quota(6130));
    let cheap = rig.newapi.call(&rig.call(at + 2).quota(217));
    rig.wait_for_charges(3);
    rig.newapi.fail_task(&task, at + 5);
    let event = dear.usage("dear").quota(7999);
    rig.post(&event.request_id(&dear.request_id));
    let event = rig.newapi.call(&rig.call(at + 8).tokens(3, 3).quota(4444).late());
    rig.post(&event.usage("corrected").quota(9111));
    rig.post(&cheap.usage("cheap"));
    rig.newapi.log(|log| log.reveal_all());
    wait_until("the task is given back", PATIENCE, || (rig.rows_in_state("refunded") == 1).then_some(()));
    let corrected = "SELECT COUNT(*) FROM hookledger_claims WHERE event_id = 'corrected' AND price_units = 4444";
    wait_until("a price is corrected", PATIENCE, || (rig.books().scalar_i64(corrected) == 1).then_some(()));
    rig.books().assert_carried_exactly();
    assert_agrees(&rig.daemon);
}

#[test]
fn beside_a_platform_that_billed_before_and_after() {
    only_on_a_server!();
    let daemon = Daemon::prepare(DaemonOptions::new().movable_clock());
    let books = daemon.books();
    books.platform_customer("user", "key", 42, 1000);
    let now = daemon.clock().now_millis();
    for (id, seconds) in [("clxbefore000000000001", 60), ("clxbefore000000000002", 30)] {
        books.platform_bills(&PlatformCall::new(id, "key", now - seconds * 1000).credits(2));
    }
    daemon.launch();
    daemon.wait_ready();
    charge(&daemon, "adopted", 42);
    let ours = |event: &str| {
        let at = daemon.clock().now_secs();
        let usage = Usage::new(event).remote_key(42).model("ours").quota(917).at_secs(at);
        assert_eq!(daemon.post(usage.json()).json()["success"], true);
    };
    ours("first");
    books.platform_bills(&PlatformCall::new("clxafter0000000000001", "key", now).model("theirs").credits(3));
    ours("second");
    let report = assert_agrees(&daemon);
    let seen = &report["lookedAt"];
    assert_eq!((&seen["charges"], &seen["adoptedCharges"]), (&3.into(), &1.into()), "{report:#}");
    books.execute("UPDATE user_credit_balances SET currentCredits = 5");
    let (code, report) = audited(&daemon, &[]);
    assert_eq!((code, report["ofOthers"].as_array().unwrap().len()), (0, 1), "{report:#}");
}

#[test]
fn after_a_backup_was_restored() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    customer(&daemon, "user", 100, 1);
    charge(&daemon, "kept", 1);
    let backup = daemon.folder().join("backup.db").display().to_string();
    fine(&daemon, &["backup", &backup]);
    charge(&daemon, "lost", 1);
    assert_eq!(daemon.terminate(), 0);
    std::fs::remove_file(daemon.database_file()).unwrap();
    fine(&daemon, &["restore", &backup]);
    let report = assert_agrees(&daemon);
    assert_eq!(report["lookedAt"]["charges"], 1);
    daemon.restart();
    charge(&daemon, "lost", 1);
    assert_agrees(&daemon);
}

#[test]
fn after_a_repair() {
    only_on_a_server!();
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    customer(&daemon, "user", 100, 1);
    for event in ["a", "b", "c"] {
        charge(&daemon, event, 1);
    }
    daemon.command_json(&["charges", "refund", &charge_of(&daemon, "b"), "--reason", "r"]);
    assert_eq!(daemon.terminate(), 0);
    daemon.books().execute(&format!("DROP DATABASE `{}`", daemon.guest().state()));
    daemon.restart();
    daemon.command_json(&["repair"]);
    charge(&daemon, "d", 1);
    assert_agrees(&daemon);
}

#[test]
fn while_events_pour_in() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 1000, 1);
    customer(&daemon, "other", 1000, 2);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (sender, token) in [("a", 1), ("b", 2), ("c", 1)] {
            let (daemon, is_done) = (&daemon, &is_done);
            scope.spawn(move || {
                for number in 0.. {
                    if is_done.load(Ordering::Relaxed) {
                        break;
                    }
                    let usage = Usage::new(format!("{sender}-{number}")).remote_key(token).quota(250);
                    daemon.post(usage.json());
                }
            });
        }
        for round in 0..8 {
            let (code, report) = audited(&daemon, &["--strict"]);
            if code != 0 || report["counts"] != serde_json::json!({}) {
                is_done.store(true, Ordering::Relaxed);
                panic!("round {round}: {report:#}");
            }
            daemon.grant(&user, 1);
        }
        is_done.store(true, Ordering::Relaxed);
    });
    let report = assert_agrees(&daemon);
    assert!(report["lookedAt"]["charges"].as_i64().unwrap() > 20, "{report:#}");
}
