//! What must hold in the books at every instant, judged from the database alone.

use std::collections::BTreeMap;

use super::books::{Books, Row};

/// 10^-15 credit is the unit in which fractions are kept.
const FEMTOS_PER_CREDIT: i128 = 1_000_000_000_000_000;

/// How many offences of one rule are shown.
const SHOWN: usize = 5;

/// Each rule and a statement that finds what breaks it, as one text a row called `offence`. They mean the same on every
/// database: `SHARED(a, b)`, `OWN(a, b)` and `BYTES(a, b)` say that two ids are the same, byte by byte; `a` is the column
/// to look up, of a table of the platform, of one of ours, or one of ours that holds bytes.
const RULES: &[(&str, &str)] = &[
    (
        "a user's balance is the sum of all his transactions",
        "SELECT 'user ' || id || ' has ' || held || ', his transactions sum to ' || moved AS offence FROM (
           SELECT users.id AS id,
             coalesce((SELECT currentCredits FROM user_credit_balances WHERE SHARED(userId, users.id)), 0) AS held,
             coalesce((SELECT sum(amount) FROM credit_transactions WHERE SHARED(userId, users.id)), 0) AS moved
           FROM users) AS account WHERE held <> moved",
    ),
    (
        "every DEDUCT refers to the usage record of its amount",
        "SELECT 'deduction ' || deduction.id || ' of ' || deduction.amount || ' refers to '
             || coalesce(deduction.ref, 'nothing') || ', which '
             || CASE WHEN record.id IS NULL THEN 'does not exist' ELSE 'cost ' || record.creditCost END AS offence
           FROM credit_transactions AS deduction LEFT JOIN usage_records AS record ON SHARED(record.id, deduction.ref)
           LEFT JOIN (SELECT told.ref AS ref, -sum(told.amount) AS amount FROM credit_transactions AS told
             LEFT JOIN hookledger_refunds AS refund ON OWN(refund.transaction_id, told.id)
             WHERE refund.refund_id IS NULL GROUP BY told.ref) AS charged ON SHARED(charged.ref, deduction.ref)
           WHERE deduction.type = 'DEDUCT' AND (record.id IS NULL OR record.creditCost <> charged.amount)",
    ),
    (
        "every usage record has exactly one DEDUCT if it cost anything, else none, unless a tie corrected it",
        "SELECT 'usage record ' || id || ' cost ' || creditCost || ' and has ' || deductions || ' deductions' AS offence
           FROM (SELECT record.id AS id, record.creditCost AS creditCost, count(deduction.id) AS deductions
             FROM usage_records AS record
             LEFT JOIN credit_transactions AS deduction
               ON SHARED(deduction.ref, record.id) AND deduction.type = 'DEDUCT'
             WHERE NOT EXISTS (SELECT 1 FROM hookledger_claims AS claim
               WHERE OWN(claim.claim_id, record.id) AND claim.tie_rule IN ('identity', 'nearest', 'person'))
             GROUP BY record.id, record.creditCost) AS booked WHERE deductions <> (creditCost <> 0)",
    ),
    (
        "a deduction is taken from the user whom the claim charges",
        "SELECT 'deduction ' || deduction.id || ' was taken from user ' || deduction.userId || ', its claim charges '
             || claim.user_id AS offence
           FROM credit_transactions AS deduction
           JOIN hookledger_claims AS claim
             ON OWN(claim.claim_id, deduction.ref) AND SHARED(deduction.ref, claim.claim_id)
           WHERE deduction.type = 'DEDUCT' AND NOT SHARED(deduction.userId, claim.user_id)",
    ),
    (
        "there are as many claims as usage records",
        "SELECT claims || ' claims, ' || records || ' usage records' AS offence FROM (
           SELECT (SELECT count(*) FROM hookledger_claims) AS claims, (SELECT count(*) FROM usage_records) AS records)
             AS numbers WHERE claims <> records",
    ),
    (
        "every claim is of one usage record, with its key, tokens and credits",
        "SELECT 'claim ' || claim.claim_id || ' of event ' || coalesce(claim.event_id, 'none') || ': '
             || CASE WHEN record.id IS NULL THEN 'no such usage record'
               ELSE 'key ' || claim.key_id || ' moved ' || claim.credits_moved || ', the record has key '
                 || record.apiKeyId || ' and ' || record.creditCost END AS offence
           FROM hookledger_claims AS claim LEFT JOIN usage_records AS record ON SHARED(record.id, claim.claim_id)
           WHERE record.id IS NULL OR record.creditCost <> claim.credits_moved
             OR NOT SHARED(record.apiKeyId, claim.key_id)
             OR record.promptTokens <> claim.prompt_tokens OR record.completionTokens <> claim.completion_tokens",
    ),
    (
        "every usage record has exactly one claim",
        "SELECT 'usage record ' || id || ' has ' || claims || ' claims' AS offence FROM (
           SELECT record.id AS id, count(claim.claim_id) AS claims FROM usage_records AS record
           LEFT JOIN hookledger_claims AS claim ON OWN(claim.claim_id, record.id) GROUP BY record.id) AS claimed
           WHERE claims <> 1",
    ),
    (
        "no event is claimed twice, and a claim by webhook names its event",
        "SELECT 'event ' || coalesce(event_id, 'none') || ' of ' || coalesce(event_at_ms, 'no time') || ' has '
             || count(*) || ' claims' AS offence FROM hookledger_claims WHERE source = 'webhook'
           GROUP BY event_at_ms, event_id HAVING count(*) > 1 OR event_id IS NULL OR event_at_ms IS NULL",
    ),
    (
        "a user's transactions tell one story, each balance following from the one before",
        "SELECT 'user ' || userId || ': transaction ' || id || ' of ' || amount || ' leaves ' || balance || ' after '
             || held AS offence
           FROM (SELECT userId, id, amount, balance,
             coalesce(lag(balance) OVER (PARTITION BY userId ORDER BY createdAt, id), 0) AS held
           FROM credit_transactions) AS told WHERE balance <> held + amount",
    ),
    (
        "a user's transactions were stamped in the order in which they were written",
        "SELECT 'user ' || userId || ': transaction ' || id || ' is of ' || createdAt
             || ', the one written before it of ' || earlier AS offence
           FROM (SELECT userId, id, createdAt,
             lag(createdAt) OVER (PARTITION BY userId ORDER BY id) AS earlier FROM credit_transactions
             WHERE type <> 'ADMIN_ADJUST') AS told
           WHERE createdAt < earlier",
    ),
    (
        "no charged event waits in the inbox, and every waiting one is in webhook_logs with its state",
        "SELECT 'inbox row ' || inbox.inbox_id || ' (' || inbox.state || ') '
             || CASE WHEN log.id IS NULL THEN 'is not in webhook_logs'
               WHEN claim.claim_id IS NOT NULL THEN 'was charged as ' || claim.claim_id
               ELSE 'is ' || log.status || ' in webhook_logs' END AS offence
           FROM hookledger_inbox AS inbox LEFT JOIN webhook_logs AS log ON SHARED(log.id, inbox.inbox_id)
           LEFT JOIN hookledger_claims AS claim
             ON BYTES(claim.event_id, log.eventId) AND claim.event_at_ms = inbox.called_at_ms
           WHERE log.id IS NULL OR log.status <> inbox.state OR claim.claim_id IS NOT NULL",
    ),
    (
        "every refund is told by the REFUND transaction of its charge and amount, if it moved any",
        "SELECT 'refund ' || refund.refund_id || ' of ' || refund.claim_id || ' moved ' || refund.credits_moved
             || ', its transaction ' || coalesce(refund.transaction_id, 'nowhere') || ' is of '
             || coalesce(told.amount, 'nothing') || ' for ' || coalesce(told.ref, 'nothing') AS offence
           FROM hookledger_refunds AS refund LEFT JOIN credit_transactions AS told
             ON SHARED(told.id, refund.transaction_id) AND told.type = 'REFUND'
               AND SHARED(told.userId, refund.user_id)
           WHERE coalesce(told.amount, 0) <> refund.credits_moved
             OR (refund.credits_moved <> 0 AND NOT coalesce(SHARED(told.ref, refund.claim_id), 0))",
    ),
    (
        "every REFUND belongs to one refund, or to a charge that a tie corrected",
        "SELECT 'transaction ' || id || ' has ' || refunds || ' refunds' AS offence FROM (
           SELECT told.id AS id, count(refund.refund_id) AS refunds FROM credit_transactions AS told
           LEFT JOIN hookledger_refunds AS refund ON OWN(refund.transaction_id, told.id)
           WHERE told.type = 'REFUND' AND NOT EXISTS (SELECT 1 FROM hookledger_claims AS claim
             WHERE OWN(claim.claim_id, told.ref) AND claim.tie_rule IN ('identity', 'nearest', 'person'))
           GROUP BY told.id) AS refunded WHERE refunds <> 1",
    ),
];

/// What SQLite can break beyond that.
const FILE_RULES: &[(&str, &str)] = &[
    (
        "the file is sound",
        "SELECT integrity_check AS offence FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
    ),
    (
        "every reference holds",
        "SELECT 'row ' || coalesce(rowid, 'none') || ' of ' || \"table\" || ' refers to no row of ' || parent AS offence
           FROM pragma_foreign_key_check",
    ),
];

/// MySQL checks references as they are written, and by nothing afterwards.
const SERVER_RULES: &[(&str, &str)] = &[(
    "every reference holds",
    "SELECT 'row ' || id || ' of ' || place || ' refers to no row of ' || parent AS offence FROM (
       SELECT child.id AS id, 'api_keys' AS place, 'users' AS parent
         FROM api_keys AS child LEFT JOIN users ON users.id = child.userId WHERE users.id IS NULL
       UNION ALL SELECT child.id, 'usage_records', 'api_keys'
         FROM usage_records AS child LEFT JOIN api_keys ON api_keys.id = child.apiKeyId WHERE api_keys.id IS NULL
       UNION ALL SELECT child.id, 'credit_transactions', 'users'
         FROM credit_transactions AS child LEFT JOIN users ON users.id = child.userId WHERE users.id IS NULL
       UNION ALL SELECT child.id, 'user_credit_balances', 'users'
         FROM user_credit_balances AS child LEFT JOIN users ON users.id = child.userId WHERE users.id IS NULL) AS orphan",
)];

/// Writes out `SHARED(a, b)`, `OWN(a, b)` and `BYTES(a, b)`. On MySQL the platform's columns take `a` and `A` for one
/// another, and an index only helps in its own collation: so it finds the candidates, and the bytes decide.
fn written_out(sql: &str, is_sqlite: bool) -> String {
    let mut written = String::new();
    let mut rest = sql;
    while let Some((at, name)) =
        ["SHARED(", "OWN(", "BYTES("].iter().filter_map(|name| Some((rest.find(name)?, *name))).min()
    {
        let (inside, after) = rest[at + name.len()..].split_once(')').expect("a rule closes its brackets");
        let (column, other) = inside.split_once(", ").expect("a rule names two columns");
        written.push_str(&rest[..at]);
        let bytes = format!("{column} = {other} COLLATE utf8mb4_bin");
        written.push_str(&match (is_sqlite, name) {
            (true, _) => format!("({column} = {other})"),
            (false, "OWN(") => format!("({bytes})"),
            (false, "BYTES(") => format!("({column} = CAST({other} AS BINARY))"),
            (false, _) => format!("({column} = {other} COLLATE utf8mb4_unicode_ci AND {bytes})"),
        });
        rest = after;
    }
    written + rest
}

impl Books {
    /// Panics with every rule that the books break. Needs no pause of the daemon: all rules see one instant.
    #[track_caller]
    pub fn assert_whole(&self) {
        let problems = self.disagreements();
        assert!(problems.is_empty(), "{self} does not agree with itself:\n{}", problems.join("\n"));
    }

    /// What `assert_whole` complains of, a line each.
    #[track_caller]
    pub fn disagreements(&self) -> Vec<String> {
        let part = |(rule, sql): &(&str, &str)| {
            let (rule, sql) = (super::books::quoted(rule), written_out(sql, self.is_sqlite()));
            format!("SELECT {rule} AS rule, shown.* FROM (SELECT found.* FROM ({sql}) AS found LIMIT {SHOWN}) AS shown")
        };
        // One statement is one look.
        let more = if self.is_sqlite() { FILE_RULES } else { SERVER_RULES };
        let sql = RULES.iter().chain(more).map(part).collect::<Vec<_>>().join(" UNION ALL ");
        let text = |row: &Row, name: &str| row[name].as_str().unwrap_or("?").to_owned();
        self.rows(&sql).iter().map(|row| format!("{}: {}", text(row, "rule"), text(row, "offence"))).collect()
    }

    /// Under `ledger.rounding = "carry"`: per user, exact prices = credits moved + unpaid + what is carried, to the
    /// last femto.
    #[track_caller]
    pub fn assert_carried_exactly(&self) {
        // Femtos are summed in two halves: a whole sum can be beyond 64 bits.
        let rows = self.rows(
            "SELECT user_id, sum(price_credits) AS credits,
               sum(CAST((price_femtos - price_femtos % 1000000000) / 1000000000 AS SIGNED)) AS high,
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
