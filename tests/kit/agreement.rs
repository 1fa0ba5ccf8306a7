//! What must hold in the books at every instant, judged from the database alone.

use std::collections::BTreeMap;

use super::books::{Books, Row};

/// 10^-15 credit is the unit in which fractions are kept.
const FEMTOS_PER_CREDIT: i128 = 1_000_000_000_000_000;

/// How many offences of one rule are shown.
const SHOWN: usize = 5;

/// Each rule and a statement that finds what breaks it, as one text a row.
const RULES: &[(&str, &str)] = &[
    (
        "a user's balance is the sum of all his transactions",
        "SELECT printf('user %s has %d, his transactions sum to %d', id, held, moved) FROM (
           SELECT users.id AS id,
             coalesce((SELECT currentCredits FROM user_credit_balances WHERE userId = users.id), 0) AS held,
             coalesce((SELECT sum(amount) FROM credit_transactions WHERE userId = users.id), 0) AS moved
           FROM users) WHERE held <> moved",
    ),
    (
        "every DEDUCT refers to the usage record of its amount",
        "SELECT printf('deduction %s of %d refers to %s, which %s', deduction.id, deduction.amount,
             coalesce(deduction.ref, 'nothing'),
             CASE WHEN record.id IS NULL THEN 'does not exist' ELSE 'cost ' || record.creditCost END)
           FROM credit_transactions AS deduction LEFT JOIN usage_records AS record ON record.id = deduction.ref
           WHERE deduction.type = 'DEDUCT' AND (record.id IS NULL OR record.creditCost <> -deduction.amount)",
    ),
    (
        "every usage record has exactly one DEDUCT if it cost anything, else none",
        "SELECT printf('usage record %s cost %d and has %d deductions', id, creditCost, deductions) FROM (
           SELECT record.id AS id, record.creditCost AS creditCost, count(deduction.id) AS deductions
           FROM usage_records AS record
           LEFT JOIN credit_transactions AS deduction ON deduction.ref = record.id AND deduction.type = 'DEDUCT'
           GROUP BY record.id) WHERE deductions <> (creditCost <> 0)",
    ),
    (
        "a deduction is taken from the user whom the claim charges",
        "SELECT printf('deduction %s was taken from user %s, its claim charges %s', deduction.id, deduction.userId,
             claim.user_id)
           FROM credit_transactions AS deduction JOIN hookledger_claims AS claim ON claim.claim_id = deduction.ref
           WHERE deduction.type = 'DEDUCT' AND deduction.userId <> claim.user_id",
    ),
    (
        "there are as many claims as usage records",
        "SELECT printf('%d claims, %d usage records', claims, records) FROM (
           SELECT (SELECT count(*) FROM hookledger_claims) AS claims, (SELECT count(*) FROM usage_records) AS records)
           WHERE claims <> records",
    ),
    (
        "every claim is of one usage record, with its key, tokens and credits",
        "SELECT printf('claim %s of event %s: %s', claim.claim_id, coalesce(claim.event_id, 'none'),
             CASE WHEN record.id IS NULL THEN 'no such usage record'
               ELSE printf('key %s moved %d, the record has key %s and %d',
                 claim.key_id, claim.credits_moved, record.apiKeyId, record.creditCost) END)
           FROM hookledger_claims AS claim LEFT JOIN usage_records AS record ON record.id = claim.claim_id
           WHERE record.id IS NULL OR record.creditCost <> claim.credits_moved OR record.apiKeyId <> claim.key_id
             OR record.promptTokens <> claim.prompt_tokens OR record.completionTokens <> claim.completion_tokens",
    ),
    (
        "every usage record has exactly one claim",
        "SELECT printf('usage record %s has %d claims', id, claims) FROM (
           SELECT record.id AS id, count(claim.claim_id) AS claims FROM usage_records AS record
           LEFT JOIN hookledger_claims AS claim ON claim.claim_id = record.id GROUP BY record.id)
           WHERE claims <> 1",
    ),
    (
        "no event is claimed twice, and a claim by webhook names its event",
        "SELECT printf('event %s of %s has %d claims', coalesce(event_id, 'none'), coalesce(event_at_ms, 'no time'),
             count(*)) FROM hookledger_claims WHERE source = 'webhook'
           GROUP BY event_at_ms, event_id HAVING count(*) > 1 OR event_id IS NULL OR event_at_ms IS NULL",
    ),
    (
        "a user's transactions tell one story, each balance following from the one before",
        "SELECT printf('user %s: transaction %s of %d leaves %d after %d', userId, id, amount, balance, before) FROM (
           SELECT userId, id, amount, balance,
             coalesce(lag(balance) OVER (PARTITION BY userId ORDER BY createdAt, id), 0) AS before
           FROM credit_transactions) WHERE balance <> before + amount",
    ),
    (
        "a user's transactions were stamped in the order in which they were written",
        "SELECT printf('user %s: transaction %s is of %s, the one written before it of %s',
             userId, id, createdAt, earlier)
           FROM (SELECT userId, id, createdAt,
             lag(createdAt) OVER (PARTITION BY userId ORDER BY id) AS earlier FROM credit_transactions
             WHERE type <> 'ADMIN_ADJUST')
           WHERE createdAt < earlier",
    ),
    (
        "no charged event waits in the inbox, and every waiting one is in webhook_logs with its state",
        "SELECT printf('inbox row %s (%s) %s', inbox.inbox_id, inbox.state,
             CASE WHEN log.id IS NULL THEN 'is not in webhook_logs'
               WHEN claim.claim_id IS NOT NULL THEN 'was charged as ' || claim.claim_id
               ELSE 'is ' || log.status || ' in webhook_logs' END)
           FROM hookledger_inbox AS inbox LEFT JOIN webhook_logs AS log ON log.id = inbox.inbox_id
           LEFT JOIN hookledger_claims AS claim
             ON claim.event_id = log.eventId AND claim.event_at_ms = inbox.called_at_ms
           WHERE log.id IS NULL OR log.status <> inbox.state OR claim.claim_id IS NOT NULL",
    ),
    (
        "every refund is told by the REFUND transaction of its charge and amount, if it moved any",
        "SELECT printf('refund %s of %s moved %d, its transaction %s is of %s for %s', refund.refund_id, refund.claim_id,
             refund.credits_moved, coalesce(refund.transaction_id, 'nowhere'), coalesce(told.amount, 'nothing'),
             coalesce(told.ref, 'nothing'))
           FROM hookledger_refunds AS refund LEFT JOIN credit_transactions AS told ON told.id = refund.transaction_id
             AND told.type = 'REFUND' AND told.userId = refund.user_id
           WHERE coalesce(told.amount, 0) <> refund.credits_moved
             OR (refund.credits_moved <> 0 AND told.ref IS NOT refund.claim_id)",
    ),
    (
        "every REFUND belongs to one refund",
        "SELECT printf('transaction %s has %d refunds', id, refunds) FROM (
           SELECT told.id AS id, count(refund.refund_id) AS refunds FROM credit_transactions AS told
           LEFT JOIN hookledger_refunds AS refund ON refund.transaction_id = told.id
           WHERE told.type = 'REFUND' GROUP BY told.id) WHERE refunds <> 1",
    ),
    ("the file is sound", "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'"),
    (
        "every reference holds",
        "SELECT printf('row %d of %s refers to no row of %s', rowid, \"table\", parent) FROM pragma_foreign_key_check",
    ),
];

impl Books {
    /// Panics with every rule that the books break. Needs no pause of the daemon: all rules see one instant.
    #[track_caller]
    pub fn assert_whole(&self) {
        let problems = self.disagreements();
        assert!(problems.is_empty(), "{} does not agree with itself:\n{}", self.file().display(), problems.join("\n"));
    }

    /// What `assert_whole` complains of, a line each.
    #[track_caller]
    pub fn disagreements(&self) -> Vec<String> {
        let part = |(rule, sql): &(&str, &str)| {
            let rule = super::books::quoted(rule);
            format!("SELECT {rule} AS rule, * FROM (SELECT * FROM ({sql}) LIMIT {SHOWN})")
        };
        // One statement is one look; the first part names the columns.
        let parts: Vec<String> = RULES.iter().map(part).collect();
        let sql = format!("SELECT '' AS rule, '' AS offence WHERE 0 UNION ALL {}", parts.join(" UNION ALL "));
        let text = |row: &Row, name: &str| row[name].as_str().unwrap_or("?").to_owned();
        self.rows(&sql).iter().map(|row| format!("{}: {}", text(row, "rule"), text(row, "offence"))).collect()
    }

    /// Under `ledger.rounding = "carry"`: per user, exact prices = credits moved + unpaid + what is carried, to the
    /// last femto.
    #[track_caller]
    pub fn assert_carried_exactly(&self) {
        // Femtos are summed in two halves: a whole sum can be beyond 64 bits.
        let rows = self.rows(
            "SELECT user_id, sum(price_credits) AS credits, sum(price_femtos / 1000000000) AS high,
               sum(price_femtos % 1000000000) AS low, sum(taken) AS taken,
               coalesce((SELECT remainder_femtos FROM hookledger_accounts
                 WHERE hookledger_accounts.user_id = booked.user_id), 0) AS carried
             FROM (SELECT user_id, price_credits, price_femtos, credits_moved + credits_unpaid AS taken
                   FROM hookledger_claims
                   UNION ALL SELECT user_id, -price_credits, -price_femtos, -(credits_moved + unpaid_lowered)
                   FROM hookledger_refunds) AS booked GROUP BY user_id",
        );
        for row in rows {
            let number = |name: &str| i128::from(row[name].as_i64().unwrap_or_else(|| panic!("{name} of {row:?}")));
            let priced = number("credits") * FEMTOS_PER_CREDIT + number("high") * 1_000_000_000 + number("low");
            let booked = number("taken") * FEMTOS_PER_CREDIT + number("carried");
            assert_eq!(priced, booked, "femtos priced, and femtos booked or carried, of user {}", row["user_id"]);
        }
    }

    /// Credits moved by charges, per user id.
    #[track_caller]
    pub fn credits_moved(&self) -> BTreeMap<String, i64> {
        let rows = self.rows("SELECT user_id, sum(credits_moved) AS moved FROM hookledger_claims GROUP BY user_id");
        let entry = |row: &Row| Some((row["user_id"].as_str()?.to_owned(), row["moved"].as_i64()?));
        rows.iter().map(|row| entry(row).unwrap_or_else(|| panic!("{row:?}"))).collect()
    }
}
