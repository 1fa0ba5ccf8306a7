//! What waits and is settled by itself later: parked tokens, ambiguous keys, errors on their schedule.

use std::time::Duration;

use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
const TOKEN: i64 = 7;

/// When tokens were last looked at.
pub const TOKEN_LOOKS: &str =
    "SELECT coalesce((SELECT CAST(value AS SIGNED) FROM hookledger_meta WHERE name = 'tokens_looked_at_ms'), 0)";

fn daemon_with_clock() -> Daemon {
    Daemon::start(DaemonOptions::new().movable_clock())
}

/// Delivers an event of the token, made now by the daemon's clock.
fn deliver(daemon: &Daemon, id: &str) -> serde_json::Value {
    let at = daemon.clock().now_secs();
    daemon.post(Usage::new(id).remote_key(TOKEN).quota(1000).at_secs(at).json()).json()
}

fn park(daemon: &Daemon, id: &str) {
    let answer = deliver(daemon, id);
    assert_eq!(answer["message"], format!("API Key not found for remoteKeyId: {TOKEN}"));
    assert_eq!(daemon.books().inbox(id).unwrap().0, "failed");
}

fn wait_processed(daemon: &Daemon, id: &str) {
    wait_until(&format!("{id} is processed"), PATIENCE, || {
        (daemon.books().inbox(id).unwrap() == ("processed".to_owned(), None)).then_some(())
    });
}

/// Moves the clock and waits until the tokens were looked at by it.
fn advance(daemon: &Daemon, by: Duration) {
    let now = daemon.clock().advance(by);
    wait_until("the tokens were looked at", PATIENCE, || {
        let look = daemon.books().scalar_i64(TOKEN_LOOKS);
        (look >= now).then_some(())
    });
}

#[test]
fn a_key_added_late_settles_what_waited_for_it_once() {
    let daemon = daemon_with_clock();
    let user = daemon.add_user("user@example.com", 100);
    for number in 0..5 {
        park(&daemon, &format!("e-{number}"));
    }
    advance(&daemon, 20 * MINUTE);
    daemon.add_key(&user, TOKEN);
    for number in 0..5 {
        wait_processed(&daemon, &format!("e-{number}"));
    }
    assert_eq!(daemon.books().balance(&user), 90);
    assert_eq!(deliver(&daemon, "e-new")["message"], "Event processed successfully");
    assert_eq!(daemon.books().count("hookledger_inbox"), 0);
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
}

#[test]
fn a_key_that_another_program_inserts_is_noticed_within_a_minute() {
    let daemon = daemon_with_clock();
    let user = daemon.add_user("user@example.com", 100);
    park(&daemon, "e");
    daemon.books().insert_key("k", &user, &TOKEN.to_string(), "ACTIVE");
    daemon.clock().advance(MINUTE);
    wait_processed(&daemon, "e");
    assert_eq!(daemon.books().balance(&user), 98);
    daemon.books().assert_whole();
}

#[test]
fn history_of_a_token_is_never_billed_by_surprise() {
    let daemon = daemon_with_clock();
    let user = daemon.add_user("user@example.com", 100);
    park(&daemon, "old");
    advance(&daemon, 600 * MINUTE);
    park(&daemon, "young");
    daemon.add_key(&user, TOKEN);
    wait_processed(&daemon, "young");
    let (status, message) = wait_until("the old one says why", PATIENCE, || {
        let found = daemon.books().inbox("old").unwrap();
        found.1.as_ref().is_some_and(|message| message.contains("ledger.key_grace")).then_some(found)
    });
    assert_eq!(status, "failed", "{message:?}");
    assert_eq!(daemon.books().balance(&user), 98, "one of the two");
    advance_and_expect_no_charge(&daemon, &user);
    daemon.books().assert_whole();
}

fn advance_and_expect_no_charge(daemon: &Daemon, user: &str) {
    daemon.clock().advance(1440 * MINUTE);
    assert_eq!(deliver(daemon, "later")["message"], "Event processed successfully");
    assert_eq!(daemon.books().balance(user), 96);
    assert_eq!(daemon.books().inbox("old").unwrap().0, "failed");
}

#[test]
fn an_ambiguous_key_waits_until_one_owner_is_left() {
    let daemon = daemon_with_clock();
    let (one, other) = (daemon.add_user("one@example.com", 100), daemon.add_user("other@example.com", 100));
    daemon.add_key(&one, TOKEN);
    let books = daemon.books();
    books.insert_key("k", &other, &TOKEN.to_string(), "ACTIVE");
    assert_eq!(deliver(&daemon, "e")["success"], false);
    books.execute("DELETE FROM api_keys WHERE id = 'k'");
    daemon.clock().advance(MINUTE);
    wait_processed(&daemon, "e");
    assert_eq!((books.balance(&one), books.balance(&other)), (98, 100));
    books.assert_whole();
}

#[test]
fn errors_come_back_on_their_schedule_until_they_are_dead() {
    // By the machine's clock alone none of them is due before the test is over.
    let options = DaemonOptions::new().movable_clock().set("HOOKLEDGER__RETRY__MAX_ATTEMPTS", "3");
    let options = options.set("HOOKLEDGER__RETRY__BASE_DELAY", "10m").set("HOOKLEDGER__RETRY__MAX_DELAY", "1h");
    let daemon = Daemon::start(options);
    let user = daemon.add_user("user@example.com", 0);
    daemon.add_key(&user, TOKEN);
    let books = daemon.books();
    let lowest = "UPDATE user_credit_balances SET currentCredits = -2147483647";
    books.execute(lowest);
    for id in ["mended", "dead"] {
        assert_eq!(deliver(&daemon, id)["success"], false);
    }
    let attempts = |id: &str| {
        books.scalar_i64(&format!(
            "SELECT attempts FROM hookledger_inbox JOIN webhook_logs ON id = inbox_id WHERE eventId = '{id}'"
        ))
    };
    assert_eq!((attempts("mended"), attempts("dead")), (1, 1));
    daemon.clock().advance(10 * MINUTE);
    wait_until("the second try", PATIENCE, || (attempts("mended") == 2 && attempts("dead") == 2).then_some(()));
    // Room for one of the two.
    books.execute("UPDATE user_credit_balances SET currentCredits = -2147483645");
    daemon.clock().advance(20 * MINUTE);
    let count =
        |status: &str| books.scalar_i64(&format!("SELECT count(*) FROM webhook_logs WHERE status = '{status}'"));
    wait_until("one is charged, one dead", PATIENCE, || (count("processed") == 1 && count("dead") == 1).then_some(()));
    daemon.clock().advance(1440 * MINUTE);
    assert_eq!(books.count("hookledger_claims"), 1, "a dead one stays dead");
}
