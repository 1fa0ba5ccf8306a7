//! What finds nothing proves nothing: books that are falsified a little, one way at a time, must be found wrong.

use crate::judge::own_count;
use crate::rig::Rig;

/// One charge of an event, which each of these changes in one way.
const ONE: &str = "(SELECT least_id FROM (SELECT min(claim_id) AS least_id FROM hookledger_claims
  WHERE event_id IS NOT NULL AND source = 'webhook' AND price_credits > 0) AS found)";

/// What went wrong, and the statements that make it so and put it right again. They change one row each.
fn falsifications() -> Vec<(&'static str, String, String)> {
    let of_claim = |change: &str| format!("UPDATE hookledger_claims SET {change} WHERE claim_id = {ONE}");
    let balance = |sign: &str| {
        format!(
            "UPDATE user_credit_balances SET currentCredits = currentCredits {sign} 1
               WHERE userId = (SELECT user_id FROM hookledger_claims WHERE claim_id = {ONE})"
        )
    };
    let tokens = |change: &str| of_claim(&format!("prompt_tokens = prompt_tokens {change}"));
    let price = |change: &str| of_claim(&format!("price_credits = price_credits {change}"));
    let event = |before: &str, id: &str| {
        let id = if before.is_empty() { id.to_owned() } else { format!("{before} || {id}") };
        of_claim(&format!("event_id = {id}"))
    };
    vec![
        ("a charge of a call that nobody made, in place of another", tokens("+ 100000000"), tokens("- 100000000")),
        ("a call that is charged twice, and one that is not", tokens("+ 1"), tokens("- 1")),
        ("a price", price("+ 1"), price("- 1")),
        ("a balance", balance("-"), balance("+")),
        ("an event that was acknowledged", event("'x-'", "event_id"), event("", "substr(event_id, 3)")),
    ]
}

/// The daemon does not run.
pub fn judge_finds_each(rig: &Rig, added: &[i64]) {
    let books = rig.daemon.books();
    for (what, change, back) in falsifications() {
        books.execute(&change);
        let problems = own_count(rig, 1, added);
        assert!(!problems.is_empty(), "{what} was falsified, and nobody found it");
        let is_in_the_sums = ["a price", "a balance"].contains(&what);
        let audit = rig.daemon.command(&["audit", "--strict"]);
        assert!(!is_in_the_sums || audit.status.code() == Some(1), "{what} was falsified, and the audit is content");
        books.execute(&back);
        let problems = own_count(rig, 1, added);
        assert!(problems.is_empty(), "{what} was put right: {problems:?}");
    }
}
