//! A sync of one key: its token's rows and no others, and coverage stays where it was.

use super::{BOTH, By, calls, numbers, refused, rest, spans, synced, unread};
use crate::kit::newapi::Token;

#[test]
fn only_rows_of_the_key_are_settled() {
    for by in BOTH {
        let rig = unread(By::Daemon);
        let other = rig.another_user(43);
        let key = rig.books().scalar_text("SELECT id FROM api_keys WHERE remoteKeyId = '43'");
        let at = rig.now_secs() - 100;
        calls(&rig, 42, at, 4);
        calls(&rig, 43, at, 3);
        rest(&rig, by);
        let before = spans(&rig);
        let summary = synced(&rig, &["--key", &key]);
        assert_eq!(numbers(&summary, ["read", "charged", "tied"]), [3, 3, 0], "{by:?}: {summary}");
        assert_eq!((rig.books().balance(&other), rig.books().balance(&rig.user)), (997, 1000));
        let again = synced(&rig, &["--key", "43"]);
        assert_eq!(numbers(&again, ["read", "charged", "alreadyClaimed"]), [3, 0, 3], "by its token: {again}");
        assert_eq!(spans(&rig), before, "coverage stays where it was");
        assert_eq!(numbers(&synced(&rig, &[]), ["read", "charged"]), [7, 4]);
        assert_eq!((rig.books().balance(&other), rig.books().balance(&rig.user)), (997, 996));
        let refusal = refused(&rig, &["--key", "nobodys"], 1);
        assert!(refusal.contains("nobodys") && refusal.contains("key list"), "{refusal}");
        rig.books().assert_whole();
    }
}

#[test]
fn calls_that_are_older_than_the_key_are_charged_when_their_sum_was_shown() {
    for by in BOTH {
        let rig = unread(By::Daemon);
        for token in [43, 44] {
            rig.newapi.add_token(Token::new(token, &format!("late-{token}")).owned_by(1));
            calls(&rig, token, rig.now_secs() - 100, 3);
        }
        rig.advance_secs(2 * 3600);
        calls(&rig, 43, rig.now_secs() - 800, 2);
        let parked = synced(&rig, &[]);
        assert_eq!(numbers(&parked, ["read", "charged", "parked"]), [8, 0, 8], "{parked}");
        let user = rig.daemon.add_user("late@example.com", 1000);
        rig.daemon.add_key(&user, 43);
        rest(&rig, by);
        let before = spans(&rig);
        let names = ["read", "charged", "credits", "parked"];
        let within = synced(&rig, &["--key", "43"]);
        assert_eq!(numbers(&within, names), [5, 2, 2, 3], "{by:?}: within the grace: {within}");
        let asked = synced(&rig, &["--key", "43", "--beyond-grace"]);
        assert_eq!(numbers(&asked, names), [5, 3, 3, 0], "{asked}");
        assert_eq!((&asked["dryRun"], &asked["needsYes"]), (&true.into(), &true.into()), "{asked}");
        assert_eq!(rig.books().balance(&user), 998, "shown, not charged");
        let charged = synced(&rig, &["--key", "43", "--beyond-grace", "--yes"]);
        assert_eq!(numbers(&charged, names), [5, 3, 3, 0], "{charged}");
        assert_eq!((rig.books().balance(&user), rig.books().balance(&rig.user)), (995, 1000));
        let unowned = |token: i64| {
            let sum = "SELECT COALESCE(SUM(row_count), 0) FROM hookledger_unowned_rows WHERE remote_key_id =";
            rig.books().scalar_i64(&format!("{sum} {token}"))
        };
        assert_eq!((unowned(43), unowned(44)), (0, 3), "nobody else's are forgotten");
        assert_eq!(spans(&rig), before);
        let again = synced(&rig, &["--key", "43", "--beyond-grace", "--yes"]);
        assert_eq!(numbers(&again, ["charged"]), [0], "{again}");
        rig.books().assert_whole();
    }
}

#[test]
fn rows_that_the_rules_only_list_are_charged_beyond_the_grace() {
    let rig = unread(By::Daemon);
    let user = rig.another_user(43);
    rig.books().insert_user("rival", "rival@example.com");
    rig.books().insert_key("rivals", "rival", "43", "ACTIVE");
    // Older than the key of him who will be left: he was none of them.
    calls(&rig, 43, rig.now_secs() - 200, 2);
    assert_eq!(numbers(&synced(&rig, &[]), ["charged", "waiting"]), [0, 2]);
    rig.books().execute("DELETE FROM api_keys WHERE id = 'rivals'");
    rig.advance_secs(61);
    synced(&rig, &[]);
    assert_eq!((rig.charges(), rig.rows_in_state("failed")), (0, 2), "they are listed");
    assert_eq!(numbers(&synced(&rig, &["--key", "43"]), ["charged"]), [0]);
    let charged = synced(&rig, &["--key", "43", "--beyond-grace", "--yes"]);
    assert_eq!(numbers(&charged, ["charged", "credits"]), [2, 2], "{charged}");
    assert_eq!((rig.books().balance(&user), rig.rows_in_state("failed")), (998, 0));
    rig.books().assert_whole();
}
