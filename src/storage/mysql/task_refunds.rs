//! Gives back what rows of tasks say, in one transaction a page: locks, reads, lets the domain plan, writes.

use std::collections::BTreeSet;

use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, MySqlExecutor};

use super::context::{Context, Names};
use super::shard::End;
use super::{lock, refunds, snapshot, write};
use crate::domain::ids::{KeyId, RemoteKeyId, UserId};
use crate::domain::refund::{BookedCharge, ChargeKey};
use crate::domain::task_refunds::{TaskCharge, TaskKey, TaskMember, TaskRow, plan_task_refunds};
use crate::failpoint;
use crate::storage::StoreError;
use crate::storage::log::{RefundsSettled, TaskPage, TaskPlace};
use crate::storage::neighbours::MAX_OPEN_SIDES;
use crate::storage::stored::unreadable;
use crate::storage::task_refunds::{self, Held, PAGE_ROWS, TaskLooks};

const PLACES: &str = "SELECT r.source, r.row_second, r.row_digest, r.row_nth, r.task_token FROM hookledger_rows AS r \
     WHERE r.task_token >= ? AND (r.task_token, r.row_second, r.row_digest, r.row_nth, r.source) \
         > (?, ?, CAST(? AS CHAR CHARACTER SET utf8mb4) COLLATE utf8mb4_bin, ?, \
           CAST(? AS CHAR CHARACTER SET utf8mb4) COLLATE utf8mb4_bin) \
       AND r.state IN ('refund_open', 'charged', 'tied') AND (? = 1 OR r.task_token IN (SELECT e.v FROM JSON_TABLE(?, '$[*]' COLUMNS (v BIGINT PATH '$')) AS e)) \
     ORDER BY r.task_token, r.row_second, r.row_digest, r.row_nth, r.source LIMIT ?";

/// A list of rows' identities as a table: source, second, digest, number.
macro_rules! identities {
    () => {
        "JSON_TABLE(?, '$[*]' COLUMNS (c0 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', c1 BIGINT PATH '$[1]', \
           c2 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', c3 BIGINT PATH '$[3]', \
           c4 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[4]', \
           c5 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[5]')) AS e \
         STRAIGHT_JOIN hookledger_rows AS r FORCE INDEX (PRIMARY) ON r.row_second = e.c1 \
           AND r.row_digest = e.c2 COLLATE utf8mb4_bin AND r.row_nth = e.c3 AND r.source = e.c0 COLLATE utf8mb4_bin"
    };
}

/// A list of tasks as a table: source, token, task.
macro_rules! tasks {
    () => {
        "JSON_TABLE(?, '$[*]' COLUMNS (c0 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', c1 BIGINT PATH '$[1]', \
           c2 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]')) AS e"
    };
}

/// A list of charges as a table, and the charges.
macro_rules! charges {
    () => {
        "JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]')) AS e \
         STRAIGHT_JOIN hookledger_claims AS c ON c.call_second = e.a AND c.claim_id = e.v COLLATE utf8mb4_bin"
    };
}

const ROWS: &str = concat!(
    "SELECT r.source, r.row_second, r.row_digest, r.row_nth, r.task_token, r.state, r.content, r.reason, r.task_id, \
       r.stated_units, c.model FROM ",
    identities!(),
    " LEFT JOIN hookledger_claims AS c ON c.call_second = r.call_second AND c.claim_id = r.claim_id \
     WHERE r.task_token IS NOT NULL AND r.state IN ('refund_open', 'charged', 'tied')"
);

const GROUPS: &str = concat!(
    "SELECT g.source, g.remote_key_id, g.task_id, g.call_second, g.claim_id FROM ",
    tasks!(),
    " STRAIGHT_JOIN hookledger_task_groups AS g ON g.task_id = e.c2 COLLATE utf8mb4_bin \
       AND g.remote_key_id = e.c1 AND g.source = e.c0 COLLATE utf8mb4_bin"
);

const MEMBERS: &str = concat!(
    "SELECT r.source, e.c1, r.task_id, r.row_second, r.row_digest, r.row_nth, r.is_refund = 1 OR r.units < 0, \
       r.stated_units IS NULL, r.call_second, r.claim_id, r.units FROM ",
    tasks!(),
    " STRAIGHT_JOIN hookledger_rows AS r FORCE INDEX (rows_task) \
       ON r.task_id = e.c2 COLLATE utf8mb4_bin AND r.source = e.c0 COLLATE utf8mb4_bin \
     LEFT JOIN hookledger_claims AS c ON c.call_second = r.call_second AND c.claim_id = r.claim_id \
     WHERE r.state NOT IN ('dismissed', 'before_takeover', 'failed') AND COALESCE(c.remote_key_id, r.open_token) = e.c1 \
     LIMIT ?"
);

/// The price of a charge in quota units; of one priced in credits, what its row says.
macro_rules! units_of {
    ($claim:literal) => {
        concat!(
            "COALESCE(",
            $claim,
            ".price_units, (SELECT u.units FROM hookledger_rows AS u WHERE u.row_second = ",
            $claim,
            ".row_second AND u.row_digest = ",
            $claim,
            ".row_digest AND u.row_nth = ",
            $claim,
            ".row_nth AND u.source = ",
            $claim,
            ".row_source))"
        )
    };
}

/// A charge in no group, of which nothing was given back. One whose row names its task is that task's, unless that was tied
/// to an equal one before the row was read.
macro_rules! is_free {
    ($claim:literal) => {
        concat!(
            "NOT EXISTS (SELECT 1 FROM hookledger_task_groups AS g WHERE g.call_second = ",
            $claim,
            ".call_second AND g.claim_id = ",
            $claim,
            ".claim_id) AND NOT EXISTS (SELECT 1 FROM hookledger_rows AS t WHERE t.row_second = ",
            $claim,
            ".row_second AND t.row_digest = ",
            $claim,
            ".row_digest AND t.row_nth = ",
            $claim,
            ".row_nth AND t.source = ",
            $claim,
            ".row_source AND t.task_id IS NOT NULL AND (t.stated_units IS NOT NULL OR NOT EXISTS \
               (SELECT 1 FROM hookledger_task_groups AS h WHERE h.task_id = t.task_id AND h.source = t.source \
                 AND h.remote_key_id = ",
            $claim,
            ".remote_key_id))) \
             AND NOT EXISTS (SELECT 1 FROM hookledger_refunds AS f WHERE f.claim_id = ",
            $claim,
            ".claim_id)"
        )
    };
}

// Back to where twice as many as rows of a page were found. With its own limit, the list of them is made first.
const FREE_CHARGES: &str = concat!(
    "SELECT DISTINCT c.call_second, c.claim_id FROM (SELECT e.c0, e.c1, e.c2, e.c3, COALESCE( \
         (SELECT n.call_second FROM hookledger_claims AS n FORCE INDEX (claims_task) \
           WHERE n.task_token = e.c0 AND n.call_second <= e.c2 AND n.model = e.c3 COLLATE utf8mb4_bin AND ",
    units_of!("n"),
    " = e.c1 AND ",
    is_free!("n"),
    " ORDER BY n.call_second DESC LIMIT 1 OFFSET 127), -1) AS since \
       FROM JSON_TABLE(?, '$[*]' COLUMNS (c0 BIGINT PATH '$[0]', c1 BIGINT PATH '$[1]', c2 BIGINT PATH '$[2]', \
         c3 LONGTEXT CHARACTER SET utf8mb4 PATH '$[3]')) AS e LIMIT 1000) AS w \
     STRAIGHT_JOIN hookledger_claims AS c FORCE INDEX (claims_task) \
       ON c.task_token = w.c0 AND c.call_second BETWEEN w.since AND w.c2 AND c.model = w.c3 COLLATE utf8mb4_bin \
     WHERE ",
    units_of!("c"),
    " = w.c1 AND ",
    is_free!("c")
);

const CHARGES: &str = concat!(
    "SELECT c.call_second, c.claim_id, c.user_id, EXISTS (SELECT 1 FROM users AS u WHERE u.id = c.user_id \
       COLLATE {collation}), c.model, c.price_units, c.price_credits, c.price_femtos, c.rate_micros, c.quota_per_unit, \
       c.remainder_before, c.remainder_after, \
       CAST(COALESCE((SELECT SUM(r.price_credits) FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id), 0) AS SIGNED), \
       CAST(COALESCE((SELECT SUM(r.price_femtos) FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id), 0) AS SIGNED), \
       c.rounding, c.remote_key_id, ",
    units_of!("c"),
    ", EXISTS (SELECT 1 FROM hookledger_task_groups AS g WHERE g.call_second = c.call_second AND g.claim_id = c.claim_id) \
     FROM ",
    charges!()
);

/// Looks inside the transaction of a page.
struct Looks<'a> {
    connection: &'a mut MySqlConnection,
    context: &'a Context,
}

impl Looks<'_> {
    async fn all<T>(
        &mut self,
        sql: &'static str,
        list: &str,
        read: impl Fn(&MySqlRow) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let query = sqlx::query(self.context.sql(sql)).bind(list.to_owned());
        query.fetch_all(&mut *self.connection).await?.iter().map(read).collect()
    }
}

impl TaskLooks for Looks<'_> {
    async fn rows(&mut self, identities: &str) -> Result<Vec<TaskRow>, StoreError> {
        Ok(self.all(ROWS, identities, task_refunds::task_row).await?.into_iter().flatten().collect())
    }

    async fn groups(&mut self, tasks: &str) -> Result<Vec<(TaskKey, ChargeKey)>, StoreError> {
        self.all(GROUPS, tasks, task_refunds::group).await
    }

    async fn members(&mut self, tasks: &str) -> Result<Vec<(TaskKey, TaskMember)>, StoreError> {
        let query = sqlx::query(self.context.sql(MEMBERS)).bind(tasks.to_owned()).bind(MAX_OPEN_SIDES);
        query.fetch_all(&mut *self.connection).await?.iter().map(task_refunds::member).collect()
    }

    async fn free_charges(&mut self, wanted: &str) -> Result<Vec<ChargeKey>, StoreError> {
        self.all(FREE_CHARGES, wanted, task_refunds::free_charge).await
    }

    async fn hold(&mut self, charges: &str) -> Result<Held, StoreError> {
        let query = sqlx::query_scalar(self.context.sql(refunds::USERS)).bind(charges.to_owned());
        let users: Vec<String> = query.fetch_all(&mut *self.connection).await?;
        let parsed = users.iter().map(|user| UserId::parse(user).map_err(|_| unreadable("user_id", user)));
        let users: BTreeSet<UserId> = parsed.collect::<Result<_, _>>()?;
        let held = lock::lock(self.connection, self.context, &users, &BTreeSet::<KeyId>::new()).await?;
        Ok((held.accounts, held.busy_users))
    }

    async fn charges(&mut self, charges: &str) -> Result<Vec<(ChargeKey, BookedCharge, TaskCharge)>, StoreError> {
        self.all(CHARGES, charges, task_refunds::charge).await
    }
}

/// Rows of a page, in the order in which they are settled.
pub async fn places(
    reader: impl MySqlExecutor<'_>,
    names: &Names,
    page: &TaskPage,
) -> Result<Vec<TaskPlace>, StoreError> {
    let (tokens, token, second, digest, number, source) = task_refunds::page_parameters(page)?;
    let query = sqlx::query(names.sql(PLACES)).bind(token).bind(token).bind(second).bind(digest).bind(number);
    let query = query.bind(source).bind(i64::from(page.tokens.is_none())).bind(tokens).bind(PAGE_ROWS);
    query.fetch_all(reader).await?.iter().map(task_refunds::place).collect()
}

const NEW_GROUPS: &str = "INSERT INTO hookledger_task_groups (tied_at_ms, source, remote_key_id, task_id, call_second, claim_id) \
     SELECT ?, e.c0, e.c1, e.c2, e.c3, e.c4 FROM JSON_TABLE(?, '$[*]' COLUMNS ( \
       c0 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', c1 BIGINT PATH '$[1]', \
       c2 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', c3 BIGINT PATH '$[3]', \
       c4 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[4]')) AS e";

const REFUNDED: &str = concat!(
    "UPDATE ",
    identities!(),
    " SET r.state = 'refunded', r.call_second = CAST(e.c4 AS SIGNED), r.claim_id = e.c5, r.open_token = NULL, \
       r.content = NULL, r.reason = NULL, r.task_token = NULL"
);

const LOOKED: &str = concat!("UPDATE ", identities!(), " SET r.task_token = NULL");

const STILL_OPEN: &str = concat!(
    "UPDATE ",
    identities!(),
    " SET r.reason = e.c4, r.task_token = CASE WHEN e.c5 = '1' THEN r.task_token END"
);

/// Settles the rows at these places.
pub async fn settle(
    connection: &mut MySqlConnection,
    context: &Context,
    places: Vec<TaskPlace>,
) -> Result<End<RefundsSettled>, StoreError> {
    let tokens: BTreeSet<RemoteKeyId> = places.iter().map(|place| place.token).collect();
    snapshot::touch_tokens(connection, context, &tokens).await?;
    let looks = &mut Looks { connection: &mut *connection, context };
    let snapshot = task_refunds::read(looks, &places).await?;
    let now = context.clock.now();
    let plan = plan_task_refunds(snapshot, context.policy.load().rounding, now, &context.ids);
    if plan.rows.is_empty() && plan.groups.is_empty() {
        return Ok(End::RollBack(task_refunds::settled(&plan, places)));
    }
    write::refunds(connection, context, &plan.books, now).await?;
    let millis = now.as_millis().to_string();
    write::each(connection, context, NEW_GROUPS, &[&millis], task_refunds::groups(&plan)?, &[]).await?;
    write::each(connection, context, REFUNDED, &[], task_refunds::refunded_rows(&plan)?, &[]).await?;
    write::each(connection, context, LOOKED, &[], task_refunds::looked_rows(&plan)?, &[]).await?;
    write::each(connection, context, STILL_OPEN, &[], task_refunds::open_rows(&plan)?, &[]).await?;
    failpoint::hit("store.task_refunds.written")?;
    Ok(End::Commit(task_refunds::settled(&plan, places)))
}

/// The same for all pages, as a part of a transaction that is rolled back.
pub async fn settle_all(
    connection: &mut MySqlConnection,
    context: &Context,
    mut page: TaskPage,
) -> Result<RefundsSettled, StoreError> {
    let mut all = RefundsSettled::default();
    loop {
        let places = places(&mut *connection, &context.names, &page).await?;
        if places.is_empty() {
            return Ok(all);
        }
        let (End::Commit(settled) | End::RollBack(settled)) = settle(connection, context, places).await?;
        match all.add(settled) {
            Some(next) => page.after = Some(next),
            None => return Ok(all),
        }
    }
}
