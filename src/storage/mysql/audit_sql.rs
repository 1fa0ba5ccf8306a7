//! The statements of an audit's looks. Pages are found by primary key and drive the joins.

// The ids of charges follow the order in which they were settled; claims lie in the order of their calls.
pub const FRAME: &str = "SELECT COALESCE((SELECT MAX(id) FROM usage_records WHERE id < '1'), ''), \
     COALESCE((SELECT MAX(n.claim_id) FROM (SELECT claim_id FROM hookledger_claims \
       ORDER BY call_second DESC, claim_id DESC LIMIT 1000) AS n WHERE n.claim_id < '1'), ''), \
     COALESCE((SELECT MAX(refund_id) FROM hookledger_refunds), ''), \
     (SELECT CAST(value AS SIGNED) FROM hookledger_meta WHERE name = 'claims_remembered_from_second'), \
     EXISTS (SELECT 1 FROM hookledger_meta WHERE name = 'claims_cleared_unsummed')";

pub const CLAIMS: &str = "SELECT c.call_second, c.claim_id, c.source, CONVERT(c.event_id USING utf8mb4), c.event_at_ms, \
       c.row_source, c.row_second, c.row_digest, c.row_nth, c.tie_rule, c.prompt_tokens, c.completion_tokens, \
       c.price_units, c.price_credits, c.price_femtos, c.rate_micros, c.quota_per_unit, c.user_id, c.key_id, \
       c.credits_moved, c.credits_unpaid, c.remainder_before, c.remainder_after, c.rounding, u.id IS NOT NULL, \
       k.id IS NOT NULL, TIMESTAMPDIFF(SECOND, '1970-01-01', r.timestamp), r.apiKeyId, CAST(r.promptTokens AS SIGNED), \
       CAST(r.completionTokens AS SIGNED), CAST(r.creditCost AS SIGNED), w.state, w.claim_id \
     FROM (SELECT call_second, claim_id FROM hookledger_claims \
           WHERE call_second >= ? AND (call_second > ? OR claim_id > ?) ORDER BY call_second, claim_id LIMIT ?) AS p \
     STRAIGHT_JOIN hookledger_claims AS c ON c.call_second = p.call_second AND c.claim_id = p.claim_id \
     LEFT JOIN users AS u ON u.id = c.user_id COLLATE {collation} \
     LEFT JOIN api_keys AS k ON k.id = c.key_id COLLATE {collation} \
     LEFT JOIN usage_records AS r ON r.id = c.claim_id COLLATE {collation} \
     LEFT JOIN hookledger_rows AS w ON w.row_second = c.row_second AND w.row_digest = c.row_digest \
       AND w.row_nth = c.row_nth AND w.source = c.row_source ORDER BY c.call_second, c.claim_id";

pub const PAGE_END: &str = "SELECT id FROM usage_records WHERE id > ? AND id < '1' ORDER BY id LIMIT 1 OFFSET ?";

pub const UNCLAIMED: &str = "SELECT r.id, TIMESTAMPDIFF(SECOND, '1970-01-01', r.timestamp), k.userId, \
       CAST(r.creditCost AS SIGNED), r.rawMeta \
     FROM usage_records AS r LEFT JOIN hookledger_claims AS c \
       ON c.call_second = TIMESTAMPDIFF(SECOND, '1970-01-01', r.timestamp) AND c.claim_id = r.id COLLATE utf8mb4_bin \
     LEFT JOIN api_keys AS k ON k.id = r.apiKeyId \
     WHERE r.id > ? AND r.id <= ? AND c.claim_id IS NULL ORDER BY r.id";

pub const REFUNDS: &str = "SELECT f.refund_id, f.claim_id, f.call_second, f.user_id, u.id IS NOT NULL, f.price_credits, \
       f.price_femtos, f.credits_moved, f.unpaid_lowered, f.remainder_before, f.remainder_after, f.refunded_at_ms, \
       f.transaction_id, t.userId, CAST(t.amount AS SIGNED), t.type = 'REFUND', t.ref, c.claim_id IS NOT NULL, c.rounding \
     FROM (SELECT refund_id FROM hookledger_refunds WHERE refund_id > ? ORDER BY refund_id LIMIT ?) AS p \
     STRAIGHT_JOIN hookledger_refunds AS f ON f.refund_id = p.refund_id \
     LEFT JOIN users AS u ON u.id = f.user_id COLLATE {collation} \
     LEFT JOIN credit_transactions AS t ON t.id = f.transaction_id COLLATE {collation} \
     LEFT JOIN hookledger_claims AS c ON c.call_second = f.call_second AND c.claim_id = f.claim_id ORDER BY f.refund_id";

/// A page of transactions of those that a condition names, by user, oldest first.
pub fn transactions_sql(condition: &str) -> String {
    format!(
        "SELECT t.userId, CAST(t.createdAt AS CHAR), t.id, CAST(t.type AS CHAR), CAST(t.amount AS SIGNED), \
           CAST(t.balance AS SIGNED), t.ref, r.id IS NOT NULL, c.source, f.refund_id IS NOT NULL, \
           CAST(b.currentCredits AS SIGNED) \
         FROM (SELECT id FROM credit_transactions WHERE {condition} ORDER BY userId, createdAt, id LIMIT ?) AS p \
         STRAIGHT_JOIN credit_transactions AS t ON t.id = p.id LEFT JOIN usage_records AS r ON r.id = t.ref \
         LEFT JOIN hookledger_claims AS c \
           ON c.call_second = TIMESTAMPDIFF(SECOND, '1970-01-01', r.timestamp) AND c.claim_id = r.id COLLATE utf8mb4_bin \
         LEFT JOIN hookledger_refunds AS f ON t.type = 'REFUND' AND f.claim_id = t.ref COLLATE utf8mb4_bin \
           AND f.transaction_id = t.id COLLATE utf8mb4_bin \
         LEFT JOIN user_credit_balances AS b ON b.userId = t.userId ORDER BY t.userId, t.createdAt, t.id"
    )
}

pub const ACCOUNT_USERS: &str = "SELECT a.user_id, u.id IS NOT NULL \
     FROM (SELECT user_id FROM hookledger_accounts WHERE user_id > ? ORDER BY user_id LIMIT ?) AS a \
     LEFT JOIN users AS u ON u.id = a.user_id COLLATE {collation} ORDER BY a.user_id";

// What a charge or a refund changed of what is owed below one credit. Parts are summed in two halves: a whole sum can be
// beyond 64 bits.
pub const ACCOUNTS: &str = "SELECT e.v, COALESCE(a.remainder_femtos, 0), COALESCE(a.unpaid_credits, 0), \
       COALESCE(g.carried_credits, 0), COALESCE(g.carried_femtos, 0), COALESCE(g.unpaid_credits, 0), \
       CAST(COALESCE(s.credits, 0) AS SIGNED), CAST(COALESCE(s.high, 0) AS SIGNED), \
       CAST(COALESCE(s.low, 0) AS SIGNED), CAST(COALESCE(s.unpaid, 0) AS SIGNED) \
     FROM JSON_TABLE(?, '$[*]' COLUMNS (v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$')) AS e \
     LEFT JOIN hookledger_accounts AS a ON a.user_id = e.v COLLATE utf8mb4_bin \
     LEFT JOIN hookledger_cleared_claims AS g ON g.user_id = e.v COLLATE utf8mb4_bin \
     LEFT JOIN (SELECT m.user_id, SUM(m.credits) AS credits, SUM(m.femtos DIV 1000000000) AS high, \
         SUM(m.femtos % 1000000000) AS low, SUM(m.unpaid) AS unpaid FROM ( \
       SELECT c.user_id, IF(c.source <> 'adopted' AND (c.rounding = 'carry' \
             OR (c.rounding IS NULL AND c.remainder_before <> c.remainder_after)), \
           c.price_credits - c.credits_moved - c.credits_unpaid, 0) AS credits, \
         IF(c.source <> 'adopted' AND (c.rounding = 'carry' \
             OR (c.rounding IS NULL AND c.remainder_before <> c.remainder_after)), c.price_femtos, 0) AS femtos, \
         c.credits_unpaid AS unpaid \
       FROM usage_records AS r STRAIGHT_JOIN hookledger_claims AS c \
         ON c.call_second = TIMESTAMPDIFF(SECOND, '1970-01-01', r.timestamp) AND c.claim_id = r.id COLLATE utf8mb4_bin \
       WHERE r.id > ? AND r.id < '1' \
       UNION ALL SELECT user_id, 0, remainder_after - remainder_before, -unpaid_lowered FROM hookledger_refunds \
         WHERE refund_id > ?) AS m GROUP BY m.user_id) AS s ON s.user_id = e.v COLLATE utf8mb4_bin";

pub const READ_ROWS: &str = "SELECT w.row_second, w.row_digest, w.row_nth, w.state, w.claim_id, c.user_id, w.units, \
       w.is_refund FROM hookledger_rows AS w \
     LEFT JOIN hookledger_claims AS c ON c.call_second = w.call_second AND c.claim_id = w.claim_id \
     WHERE w.row_second BETWEEN ? AND ? AND w.source = ? ORDER BY w.row_second, w.row_digest, w.row_nth LIMIT ?";

pub const CLAIMS_PAGE_END: &str = "SELECT call_second, claim_id FROM hookledger_claims \
     WHERE call_second >= ? AND (call_second > ? OR claim_id > ?) AND call_second <= ? \
     ORDER BY call_second, claim_id LIMIT 1 OFFSET ?";

pub const LONE_EVENTS: &str = "SELECT call_second, claim_id, COALESCE(CONVERT(event_id USING utf8mb4), ''), remote_key_id, \
       model, prompt_tokens, completion_tokens, price_units, user_id, credits_moved FROM hookledger_claims \
     WHERE call_second >= ? AND (call_second > ? OR claim_id > ?) \
       AND call_second <= ? AND (call_second < ? OR claim_id <= ?) AND row_second IS NULL \
     ORDER BY call_second, claim_id";

pub const UNOWNED: &str = "SELECT row_second, remote_key_id, row_count, refund_count FROM hookledger_unowned_rows \
     WHERE row_second BETWEEN ? AND ? AND source = ?";
