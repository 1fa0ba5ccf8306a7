//! Rows of tokens that nobody has, that several have, and that were said to be nobody's.

use crate::kit::newapi::{Call, Token};

use super::two_channels::{PULL, Rig, UNITS_PER_CREDIT};

fn call_of(token: i64, at_secs: i64, prompt: i64) -> Call {
    Call::new(token, "gpt-4", at_secs).tokens(prompt, 6).quota(UNITS_PER_CREDIT)
}

#[test]
fn a_key_that_is_added_later_gets_the_rows_of_its_grace_and_no_older_ones() {
    let rig = Rig::start(&[PULL]);
    rig.newapi.add_token(Token::new(43, "late").owned_by(1));
    rig.wait_for_a_pass();
    rig.advance_secs(60);
    for prompt in 1..=3 {
        rig.newapi.call(&call_of(43, rig.now_secs() - 5, prompt));
    }
    rig.wait_for_a_pass();
    rig.advance_secs(2 * 3600);
    for prompt in 4..=8 {
        rig.newapi.call(&call_of(43, rig.now_secs() - 5, prompt));
    }
    let told = rig.newapi.call(&call_of(43, rig.now_secs() - 5, 9));
    assert_eq!(rig.daemon.post(told.usage_by_cost("told").json()).json()["success"], false);
    rig.cover_everything();
    assert_eq!((rig.charges(), rig.books().count("hookledger_rows")), (0, 0), "they are parked");
    let sum = "SELECT COALESCE(SUM(row_count), 0) FROM hookledger_unowned_rows WHERE remote_key_id = 43";
    assert_eq!(rig.books().scalar_i64(sum), 9);
    let user = rig.daemon.add_user("late@example.com", 1000);
    rig.daemon.add_key(&user, 43);
    rig.wait_for_charges(6);
    rig.cover_everything();
    assert_eq!((rig.charges(), rig.books().balance(&user), rig.books().balance(&rig.user)), (6, 994, 1000));
    assert_eq!((rig.books().scalar_i64(sum), rig.tied()), (3, 1), "the older ones stay counted");
    rig.books().assert_whole();
}

#[test]
fn a_key_that_is_added_later_is_found_while_events_do_well() {
    let rig = Rig::start(&[]);
    rig.newapi.add_token(Token::new(43, "late").owned_by(1));
    rig.wait_for_a_pass_by_clock();
    rig.newapi.call(&call_of(43, rig.now_secs() - 5, 1));
    let healthy = |number: i64| {
        let called = rig.newapi.call(&rig.call(rig.now_secs() - 2).tokens(number, 1));
        rig.post(&called.usage_by_cost(&format!("healthy-{number}")));
    };
    healthy(1);
    rig.advance_secs(1500);
    healthy(2);
    let user = rig.daemon.add_user("late@example.com", 1000);
    rig.daemon.add_key(&user, 43);
    healthy(3);
    rig.wait_for_a_pass_by_clock();
    healthy(4);
    rig.wait_for_a_pass_by_clock();
    assert_eq!((rig.charges(), rig.books().balance(&user), rig.books().balance(&rig.user)), (5, 999, 996));
    rig.books().assert_whole();
}

#[test]
fn rows_of_a_token_that_two_users_have_wait_until_one_of_them_is_left() {
    let rig = Rig::pulling();
    let books = rig.books();
    let user = rig.another_user(43);
    books.insert_user("rival", "rival@example.com");
    books.insert_key("rivals", "rival", "43", "ACTIVE");
    // Older than the key of him who will be left: he was none of them.
    for prompt in 11..=12 {
        rig.newapi.call(&call_of(43, rig.now_secs() - 20, prompt));
    }
    rig.advance_secs(30);
    for prompt in 1..=3 {
        rig.newapi.call(&call_of(43, rig.now_secs() - 5, prompt));
    }
    let told = rig.newapi.call(&call_of(43, rig.now_secs() - 5, 4));
    assert_eq!(rig.daemon.post(told.usage_by_cost("told").json()).json()["success"], false);
    rig.cover_everything();
    assert_eq!((rig.charges(), rig.rows_in_state("ambiguous")), (0, 6), "nobody is charged");
    books.execute("DELETE FROM api_keys WHERE id = 'rivals'");
    rig.advance_secs(61);
    rig.wait_for_charges(4);
    rig.cover_everything();
    assert_eq!((rig.charges(), books.balance(&user), books.balance("rival")), (4, 996, 0));
    assert_eq!((rig.rows_in_state("ambiguous"), rig.rows_in_state("failed"), rig.tied()), (0, 2, 1));
    books.assert_whole();
}

#[test]
fn rows_of_an_ignored_token_charge_nobody_and_trouble_nobody() {
    let rig = Rig::pulling();
    rig.newapi.add_token(Token::new(43, "ours").owned_by(1));
    let ignored = rig.daemon.command(&["key", "ignore", "--remote-id", "43"]);
    assert!(ignored.status.success(), "{ignored:?}");
    for prompt in 1..=3 {
        rig.newapi.call(&call_of(43, rig.now_secs() - 5, prompt));
        rig.newapi.call(&rig.call(rig.now_secs() - 5).tokens(prompt, 1));
    }
    rig.wait_for_charges(3);
    rig.cover_everything();
    rig.assert_billed(3);
    assert_eq!(rig.books().count("hookledger_rows"), 3);
    let status = rig.daemon.command_json(&["status"]);
    assert_eq!(status["conditions"], serde_json::json!([]));
}
