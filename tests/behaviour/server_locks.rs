//! Rows that other sessions of the server hold: only whom they concern waits, and no update is lost.

use std::time::Duration;

use crate::crashes::{usage_bodies, with_users};
use crate::kit::books::Books;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::mariadb::PrivateServer;
use crate::kit::sender::{Retry, deliver, start_delivery};
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const HELD: i64 = 1;

fn user_of(books: &Books, token: i64) -> String {
    books.scalar_text(&format!("SELECT userId FROM api_keys WHERE remoteKeyId = '{token}'"))
}

/// An event of the token that costs a credit.
fn event(id: &str, token: i64) -> String {
    Usage::new(id).remote_key(token).quota(500).json()
}

fn wait_settled(books: &Books, events: i64) {
    wait_until("nothing waits", PATIENCE, || (books.count("hookledger_inbox") == 0).then_some(()));
    assert_eq!(books.count("hookledger_claims"), events);
    books.assert_whole();
    books.assert_carried_exactly();
}

#[test]
fn whose_row_is_held_waits_alone_and_is_settled_after_the_release() {
    only_on_a_server!();
    let daemon = Daemon::start(DaemonOptions::new());
    with_users(&daemon);
    let books = daemon.books();
    let user = user_of(&books, HELD);
    let mut events = 0;
    for row in [
        format!("SELECT id FROM user_credit_balances WHERE userId = '{user}' FOR UPDATE"),
        format!("SELECT id FROM users WHERE id = '{user}' FOR UPDATE"),
        format!("SELECT id FROM api_keys WHERE remoteKeyId = '{HELD}' FOR UPDATE"),
    ] {
        let hold = books.hold(&row);
        for round in 0..20 {
            let id = format!("e-{events}");
            let answer = daemon.post(event(&id, HELD));
            assert_eq!((answer.status, answer.json()["success"].as_bool()), (202, Some(true)), "{row}");
            assert_eq!(books.inbox(&id).unwrap().0, "pending", "{row}");
            for token in 2..=5 {
                let answer = daemon.post(event(&format!("e-{events}-{token}"), token));
                assert_eq!((answer.status, round), (200, round), "{row}: the others go on");
            }
            events += 1;
        }
        assert_eq!(books.count("hookledger_inbox"), 20, "{row}");
        drop(hold);
        wait_until("the user is settled, without another event", PATIENCE, || {
            (books.count("hookledger_inbox") == 0).then_some(())
        });
    }
    assert_eq!(books.balance(&user), 1000 - events);
    wait_settled(&books, events * 5);
}

#[test]
fn held_events_are_tried_again_without_the_every_second_look() {
    only_on_a_server!();
    // The Scheduler begins nothing, and nobody replaces it.
    let hung = DaemonOptions::new().fail_points("scheduler.wake=pause");
    let daemon = Daemon::start(hung.set("HOOKLEDGER__SUPERVISOR__HANG_TIMEOUT", "1h"));
    with_users(&daemon);
    let books = daemon.books();
    let user = user_of(&books, HELD);
    let hold = books.hold(&format!("SELECT id FROM users WHERE id = '{user}' FOR UPDATE"));
    assert_eq!(daemon.post(event("e", HELD)).status, 202);
    drop(hold);
    wait_settled(&books, 1);
}

#[test]
fn a_deadlock_redoes_the_whole_batch() {
    only_on_a_server!();
    let server = PrivateServer::start();
    // The other one comes while it still waits.
    let daemon = Daemon::start(DaemonOptions::new().set("HOOKLEDGER__DATABASE__LOCK_WAIT", "8s").on(&server));
    with_users(&daemon);
    let books = daemon.books();
    let user = user_of(&books, HELD);
    let deadlocks = || {
        let sql = "SELECT CAST(VARIABLE_VALUE AS SIGNED) AS value FROM information_schema.GLOBAL_STATUS
                   WHERE VARIABLE_NAME = 'INNODB_DEADLOCKS'";
        books.scalar_i64(sql)
    };
    let before = deadlocks();
    // Much was written there: the server ends the lighter of the two, which is ours.
    let heavy: Vec<String> = (0..300).map(|number| format!("('x{number}', '', CURRENT_TIMESTAMP(3))")).collect();
    let mut other = books.hold(&format!(
        "INSERT INTO options (`key`, value, updatedAt) VALUES {};
         INSERT INTO webhook_logs (id, eventId, payload, status) VALUES ('other', 'e', '{{}}', 'pending')",
        heavy.join(", ")
    ));
    let posted = start_delivery(daemon.address(), SECRET, vec![event("e", HELD)], 1, Retry::never());
    // The settlement waits for the other's event.
    books.wait_for_transaction("trx_state = 'LOCK WAIT'", PATIENCE);
    other.and_then(&format!("SELECT id FROM users WHERE id = '{user}' FOR UPDATE"));
    wait_until("the server ends one of them", PATIENCE, || (deadlocks() > before).then_some(()));
    other.and_then("ROLLBACK");
    drop(other);
    posted.finish().assert_all_acknowledged();
    wait_settled(&books, 1);
    assert_eq!(books.balance(&user), 999, "charged once");
}

#[test]
fn an_event_that_another_session_holds_is_not_given_up() {
    only_on_a_server!();
    let daemon = Daemon::start(DaemonOptions::new().set("HOOKLEDGER__DATABASE__LOCK_WAIT", "1s"));
    with_users(&daemon);
    let books = daemon.books();
    let other =
        books.hold("INSERT INTO webhook_logs (id, eventId, payload, status) VALUES ('other', 'held', '{}', 'pending')");
    let held = event("held", HELD);
    let answer = daemon.post(&held);
    assert_eq!(answer.status, 503, "nothing can be promised: {}", answer.text());
    drop(other);
    let retry = Retry::until(PATIENCE, Duration::from_millis(100));
    deliver(daemon.address(), SECRET, vec![held], 1, retry).assert_all_acknowledged();
    wait_until("it is charged", PATIENCE, || {
        (books.inbox("held") == Some(("processed".to_owned(), None))).then_some(())
    });
    wait_settled(&books, 1);
}

/// Top-ups by another connection in the middle of every batch, each of `statement`, which adds 3 to user 1.
fn top_ups(statement: &str) -> (Daemon, i64) {
    const EVENTS: usize = 300;
    let daemon = Daemon::start(DaemonOptions::new().fail_points("store.settle.planned=sleep(20)"));
    with_users(&daemon);
    let books = daemon.books();
    let user = user_of(&books, HELD);
    let statement = statement.replace("USER", &format!("'{user}'"));
    let retry = Retry::until(PATIENCE, Duration::from_millis(20));
    let ongoing = start_delivery(daemon.address(), SECRET, usage_bodies(EVENTS, "e"), 4, retry);
    let mut added = 0;
    while !ongoing.is_finished() {
        books.execute(&statement);
        added += 3;
    }
    ongoing.finish().assert_all_acknowledged();
    wait_until("nothing waits", PATIENCE, || (books.count("hookledger_inbox") == 0).then_some(()));
    assert_eq!(books.count("hookledger_claims"), EVENTS as i64);
    assert!(added > 3, "it happened in the middle");
    (daemon, added)
}

fn moved(books: &Books, user: &str) -> i64 {
    books.credits_moved().get(user).copied().unwrap_or_default()
}

#[test]
fn top_ups_in_the_middle_of_batches_are_not_lost() {
    only_on_a_server!();
    for statement in [
        "UPDATE user_credit_balances SET currentCredits = currentCredits + 3 WHERE userId = USER",
        "START TRANSACTION; SELECT currentCredits INTO @read FROM user_credit_balances WHERE userId = USER FOR UPDATE;
         UPDATE user_credit_balances SET currentCredits = @read + 3 WHERE userId = USER; COMMIT",
    ] {
        let (daemon, added) = top_ups(statement);
        let books = daemon.books();
        let user = user_of(&books, HELD);
        assert_eq!(books.balance(&user), 1000 + added - moved(&books, &user), "{statement}");
        books.assert_carried_exactly();
    }
}

#[test]
fn what_another_program_overwrites_shows_between_balance_and_transactions() {
    only_on_a_server!();
    let daemon = Daemon::start(DaemonOptions::new());
    with_users(&daemon);
    let books = daemon.books();
    let user = user_of(&books, HELD);
    let mut other =
        books.hold(&format!("SELECT currentCredits INTO @read FROM user_credit_balances WHERE userId = '{user}'"));
    assert_eq!(daemon.post(event("lost", HELD)).status, 200);
    assert_eq!(books.balance(&user), 999);
    other.and_then(&format!("UPDATE user_credit_balances SET currentCredits = @read + 100 WHERE userId = '{user}'"));
    other.and_then("COMMIT");
    drop(other);
    assert_eq!(books.balance(&user), 1100, "the other program wrote what it had computed");
    assert_eq!(daemon.post(event("next", HELD)).status, 200);
    let chain = books.rows(&format!(
        "SELECT type, amount, balance FROM credit_transactions WHERE userId = '{user}' ORDER BY createdAt, id"
    ));
    let last = chain.last().unwrap();
    assert_eq!((last["amount"].as_i64(), last["balance"].as_i64()), (Some(-1), Some(1099)), "{chain:?}");
    let sum: i64 = chain.iter().filter_map(|row| row["amount"].as_i64()).sum();
    assert_eq!((books.balance(&user), sum), (1099, 998), "101 that no transaction tells of: the other's");
    assert!(!books.disagreements().is_empty(), "a look at the books names it");
    assert_eq!(moved(&books, &user), 2);
    books.assert_carried_exactly();
}
