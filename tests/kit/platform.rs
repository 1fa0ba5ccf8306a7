//! The platform's own program, as far as it writes what the daemon finds: users with keys, calls that it bills itself,
//! and its log of webhooks.

use super::books::{Books, quoted};
use super::events::Usage;

/// Rules of the books that only hold where nobody else writes: not every usage record is ours to claim, and the
/// platform's ids do not sort.
const OF_OURS_ALONE: &[&str] = &[
    "there are as many claims as usage records: ",
    "a user's transactions were stamped in the order in which they were written: ",
];

/// One call as the platform books it.
#[derive(Debug, Clone)]
pub struct PlatformCall {
    id: String,
    key_id: String,
    at_millis: i64,
    model: String,
    tokens: (i64, i64),
    credits: i64,
    raw_meta: Option<String>,
}

impl PlatformCall {
    /// A call as `Usage::new` makes it: model `gpt-4`, 100 and 50 tokens; one credit.
    pub fn new(id: &str, key_id: &str, at_millis: i64) -> Self {
        PlatformCall {
            id: id.to_owned(),
            key_id: key_id.to_owned(),
            at_millis,
            model: "gpt-4".to_owned(),
            tokens: (100, 50),
            credits: 1,
            raw_meta: Some(r#"{"requestId":"theirs","quota":500}"#.to_owned()),
        }
    }

    pub fn model(mut self, model: &str) -> Self {
        self.model = model.to_owned();
        self
    }

    pub fn tokens(mut self, prompt: i64, completion: i64) -> Self {
        self.tokens = (prompt, completion);
        self
    }

    pub fn credits(mut self, credits: i64) -> Self {
        self.credits = credits;
        self
    }

    pub fn raw_meta(mut self, raw_meta: Option<&str>) -> Self {
        self.raw_meta = raw_meta.map(str::to_owned);
        self
    }
}

/// An instant as the tables hold it.
fn column(millis: i64) -> String {
    format!("CAST(FROM_UNIXTIME({millis} / 1000) AS DATETIME(3))")
}

impl Books {
    /// A user with a balance and a key, as the platform makes them.
    #[track_caller]
    pub fn platform_customer(&self, user_id: &str, key_id: &str, remote_id: i64, credits: i64) {
        self.insert_user(user_id, &format!("{user_id}@example.com"));
        self.insert_key(key_id, user_id, &remote_id.to_string(), "ACTIVE");
        let user = quoted(user_id);
        self.execute(&format!(
            "INSERT INTO user_credit_balances (id, userId, currentCredits, updatedAt)
               VALUES ({user}, {user}, {credits}, '2026-01-01');
             INSERT INTO credit_transactions (id, userId, type, amount, balance, createdAt)
               VALUES ({user}, {user}, 'RECHARGE', {credits}, {credits}, '2026-01-01')"
        ));
    }

    /// Bills a call as the platform does, in one transaction; without a deduction where it cost nothing.
    #[track_caller]
    pub fn platform_bills(&self, call: &PlatformCall) {
        let PlatformCall { id, key_id, at_millis, model, tokens: (prompt, completion), credits, raw_meta } = call;
        let (id, key, model) = (quoted(id), quoted(key_id), quoted(model));
        let (at, raw_meta) = (column(*at_millis), raw_meta.as_ref().map_or("NULL".to_owned(), |meta| quoted(meta)));
        self.execute(&format!(
            "START TRANSACTION;
             SELECT userId INTO @user FROM api_keys WHERE id = {key};
             SELECT currentCredits INTO @held FROM user_credit_balances WHERE userId = @user FOR UPDATE;
             INSERT INTO usage_records (id, apiKeyId, timestamp, model, promptTokens, completionTokens, totalTokens,
                 costUsd, creditCost, rawMeta)
               VALUES ({id}, {key}, {at}, {model}, {prompt}, {completion}, {prompt} + {completion}, 0.001, {credits},
                 {raw_meta});
             INSERT INTO credit_transactions (id, userId, type, amount, balance, ref, `desc`, createdAt)
               SELECT {id}, @user, 'DEDUCT', -{credits}, @held - {credits}, {id}, {model},
                 GREATEST(UTC_TIMESTAMP(3), (SELECT MAX(createdAt) + INTERVAL 1000 MICROSECOND FROM
                   credit_transactions WHERE userId = @user)) FROM dual WHERE {credits} <> 0;
             UPDATE user_credit_balances SET currentCredits = @held - {credits} WHERE userId = @user;
             COMMIT"
        ));
    }

    /// A row of the platform's own log of webhooks.
    #[track_caller]
    pub fn platform_logs(&self, usage: &Usage, status: &str) {
        let (id, payload) = (quoted(usage.event_id()), quoted(&usage.json()));
        let status = quoted(status);
        self.execute(&format!(
            "INSERT INTO webhook_logs (id, eventId, payload, status) VALUES (CONCAT('log-', {id}), {id}, {payload}, {status})"
        ));
    }

    /// As `assert_whole`, beside the platform: of its usage records, so many took no call of ours.
    #[track_caller]
    pub fn assert_whole_beside_the_platform(&self, left: i64) {
        let problems = self.disagreements();
        let is_ours = |problem: &&String| !OF_OURS_ALONE.iter().any(|rule| problem.starts_with(rule));
        let is_unclaimed = |problem: &&String| problem.ends_with(" has 0 claims");
        let problems: Vec<&String> = problems.iter().filter(is_ours).filter(|problem| !is_unclaimed(problem)).collect();
        assert!(problems.is_empty(), "{self} does not agree with itself: {problems:?}");
        let claims_of = "(SELECT count(*) FROM hookledger_claims AS c WHERE c.claim_id = r.id COLLATE utf8mb4_bin)";
        let claimed = |condition: &str| {
            self.scalar_i64(&format!("SELECT count(*) FROM usage_records AS r WHERE {claims_of} {condition}"))
        };
        assert_eq!((claimed("> 1"), claimed("= 0")), (0, left), "records with several claims, and with none");
        self.assert_carried_exactly();
    }

    /// How many calls were adopted, and how many charged by us.
    #[track_caller]
    pub fn adopted_and_charged(&self) -> (i64, i64) {
        let of = |source: &str| {
            self.scalar_i64(&format!("SELECT count(*) FROM hookledger_claims WHERE source = '{source}'"))
        };
        (of("adopted"), of("webhook"))
    }
}
