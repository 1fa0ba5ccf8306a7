//! Gives back what rows of tasks say, in one transaction a page: locks, reads, lets the domain plan, writes, commits.

use std::collections::BTreeSet;

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, SqliteConnection, SqliteExecutor};

use super::writer::Context;
use super::{snapshot, write};
use crate::domain::ids::UserId;
use crate::domain::refund::{BookedCharge, ChargeKey};
use crate::domain::task_refunds::{TaskCharge, TaskKey, TaskMember, TaskRow, plan_task_refunds};
use crate::failpoint;
use crate::storage::StoreError;
use crate::storage::log::{RefundsSettled, TaskPage, TaskPlace};
use crate::storage::neighbours::MAX_OPEN_SIDES;
use crate::storage::stored::unreadable;
use crate::storage::task_refunds::{self, Held, PAGE_ROWS, TaskLooks};

const PLACES: &str = "SELECT r.source, r.row_second, r.row_digest, r.row_nth, r.task_token FROM hookledger_rows AS r \
     WHERE (r.task_token, r.row_second, r.row_digest, r.row_nth, r.source) > (?2, ?3, ?4, ?5, ?6) \
       AND r.task_token IS NOT NULL AND r.state IN ('refund_open', 'charged', 'tied') \
       AND (?7 OR r.task_token IN (SELECT value FROM jsonb_each(?1))) \
     ORDER BY r.task_token, r.row_second, r.row_digest, r.row_nth, r.source LIMIT ?8";

const ROWS: &str = "SELECT r.source, r.row_second, r.row_digest, r.row_nth, r.task_token, r.state, r.content, r.reason, \
       r.task_id, r.stated_units, c.model \
     FROM jsonb_each(?1) AS e CROSS JOIN hookledger_rows AS r \
       ON r.row_second = (e.value ->> 1) AND r.row_digest = (e.value ->> 2) AND r.row_nth = (e.value ->> 3) \
       AND r.source = (e.value ->> 0) \
     LEFT JOIN hookledger_claims AS c ON c.call_second = r.call_second AND c.claim_id = r.claim_id \
     WHERE r.task_token IS NOT NULL AND r.state IN ('refund_open', 'charged', 'tied')";

const GROUPS: &str = "SELECT g.source, g.remote_key_id, g.task_id, g.call_second, g.claim_id \
     FROM jsonb_each(?1) AS e CROSS JOIN hookledger_task_groups AS g \
       ON g.task_id = (e.value ->> 2) AND g.remote_key_id = (e.value ->> 1) AND g.source = (e.value ->> 0)";

const MEMBERS: &str = "SELECT r.source, e.value ->> 1, r.task_id, r.row_second, r.row_digest, r.row_nth, \
       r.is_refund = 1 OR r.units < 0, r.stated_units IS NULL, r.call_second, r.claim_id, r.units \
     FROM jsonb_each(?1) AS e CROSS JOIN hookledger_rows AS r \
       ON r.task_id = (e.value ->> 2) AND r.source = (e.value ->> 0) \
     LEFT JOIN hookledger_claims AS c ON c.call_second = r.call_second AND c.claim_id = r.claim_id \
     WHERE r.state NOT IN ('dismissed', 'before_takeover', 'failed') \
       AND COALESCE(c.remote_key_id, r.open_token) = (e.value ->> 1) LIMIT ?2";

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

// Back to where twice as many as rows of a page were found.
const FREE_CHARGES: &str = concat!(
    "WITH wanted (token, units, until, model, since) AS MATERIALIZED (SELECT e.value ->> 0, e.value ->> 1, e.value ->> 2, \
       e.value ->> 3, COALESCE((SELECT n.call_second FROM hookledger_claims AS n WHERE n.task_token = (e.value ->> 0) \
         AND n.call_second <= (e.value ->> 2) AND n.model = (e.value ->> 3) AND ",
    units_of!("n"),
    " = (e.value ->> 1) AND ",
    is_free!("n"),
    " ORDER BY n.call_second DESC LIMIT 1 OFFSET 127), -1) FROM jsonb_each(?1) AS e) \
     SELECT DISTINCT c.call_second, c.claim_id FROM wanted AS w CROSS JOIN hookledger_claims AS c \
       ON c.task_token = w.token AND c.call_second BETWEEN w.since AND w.until AND c.model = w.model AND ",
    units_of!("c"),
    " = w.units AND ",
    is_free!("c")
);

const USERS: &str = "SELECT DISTINCT c.user_id FROM jsonb_each(?1) AS e CROSS JOIN hookledger_claims AS c \
     ON c.call_second = (e.value ->> 0) AND c.claim_id = (e.value ->> 1)";

const CHARGES: &str = concat!(
    "SELECT c.call_second, c.claim_id, c.user_id, EXISTS (SELECT 1 FROM users AS u WHERE u.id = c.user_id), c.model, \
       c.price_units, c.price_credits, c.price_femtos, c.rate_micros, c.quota_per_unit, c.remainder_before, \
       c.remainder_after, \
       COALESCE((SELECT SUM(r.price_credits) FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id), 0), \
       COALESCE((SELECT SUM(r.price_femtos) FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id), 0), \
       c.rounding, c.remote_key_id, ",
    units_of!("c"),
    ", EXISTS (SELECT 1 FROM hookledger_task_groups AS g WHERE g.call_second = c.call_second AND g.claim_id = c.claim_id) \
     FROM jsonb_each(?1) AS e CROSS JOIN hookledger_claims AS c \
     ON c.call_second = (e.value ->> 0) AND c.claim_id = (e.value ->> 1)"
);

/// Looks on the writing connection.
struct Looks<'a>(&'a mut SqliteConnection);

impl Looks<'_> {
    async fn all<T>(
        &mut self,
        sql: &'static str,
        list: &str,
        read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = sqlx::query(sql).bind(list.to_owned()).fetch_all(&mut *self.0).await?;
        rows.iter().map(read).collect()
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
        let rows = sqlx::query(MEMBERS).bind(tasks).bind(MAX_OPEN_SIDES).fetch_all(&mut *self.0).await?;
        rows.iter().map(task_refunds::member).collect()
    }

    async fn free_charges(&mut self, wanted: &str) -> Result<Vec<ChargeKey>, StoreError> {
        self.all(FREE_CHARGES, wanted, task_refunds::free_charge).await
    }

    async fn hold(&mut self, charges: &str) -> Result<Held, StoreError> {
        let users: Vec<String> = sqlx::query_scalar(USERS).bind(charges).fetch_all(&mut *self.0).await?;
        let parsed = users.iter().map(|user| UserId::parse(user).map_err(|_| unreadable("user_id", user)));
        let users: BTreeSet<UserId> = parsed.collect::<Result<_, _>>()?;
        Ok((snapshot::accounts(self.0, &users).await?, Default::default()))
    }

    async fn charges(&mut self, charges: &str) -> Result<Vec<(ChargeKey, BookedCharge, TaskCharge)>, StoreError> {
        self.all(CHARGES, charges, task_refunds::charge).await
    }
}

/// Rows of a page, in the order in which they are settled.
pub async fn places(reader: impl SqliteExecutor<'_>, page: &TaskPage) -> Result<Vec<TaskPlace>, StoreError> {
    let (tokens, token, second, digest, number, source) = task_refunds::page_parameters(page)?;
    let query = sqlx::query(PLACES).bind(tokens).bind(token).bind(second).bind(digest).bind(number).bind(source);
    let rows = query.bind(page.tokens.is_none()).bind(PAGE_ROWS).fetch_all(reader).await?;
    rows.iter().map(task_refunds::place).collect()
}

const NEW_GROUPS: &str = "INSERT INTO hookledger_task_groups (source, remote_key_id, task_id, call_second, claim_id, tied_at_ms) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, ?2 FROM jsonb_each(?1)";

macro_rules! of_rows {
    ($columns:literal) => {
        concat!(
            " FROM (SELECT value ->> 0 AS source, value ->> 1 AS second, value ->> 2 AS digest, value ->> 3 AS nth",
            $columns,
            " FROM jsonb_each(?1)) AS t WHERE hookledger_rows.row_second = t.second \
             AND hookledger_rows.row_digest = t.digest AND hookledger_rows.row_nth = t.nth \
             AND hookledger_rows.source = t.source"
        )
    };
}

const REFUNDED: &str = concat!(
    "UPDATE hookledger_rows SET state = 'refunded', call_second = t.call_second, claim_id = t.claim_id, \
       open_token = NULL, content = NULL, reason = NULL, task_token = NULL",
    of_rows!(", value ->> 4 AS call_second, value ->> 5 AS claim_id")
);

const LOOKED: &str = concat!("UPDATE hookledger_rows SET task_token = NULL", of_rows!(""));

const STILL_OPEN: &str = concat!(
    "UPDATE hookledger_rows SET reason = t.why, task_token = CASE WHEN t.is_tried = 1 THEN task_token END",
    of_rows!(", value ->> 4 AS why, value ->> 5 AS is_tried")
);

/// Settles the rows at these places, after the commit.
pub async fn settle(
    connection: &mut SqliteConnection,
    context: &Context,
    places: Vec<TaskPlace>,
) -> Result<RefundsSettled, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let settled = write_page(&mut transaction, context, places).await?;
    transaction.commit().await?;
    failpoint::hit("store.task_refunds.committed")?;
    Ok(settled)
}

/// The same for all pages, as a part of a transaction that is rolled back.
pub async fn settle_all(
    transaction: &mut SqliteConnection,
    context: &Context,
    mut page: TaskPage,
) -> Result<RefundsSettled, StoreError> {
    let mut all = RefundsSettled::default();
    loop {
        let places = places(&mut *transaction, &page).await?;
        if places.is_empty() {
            return Ok(all);
        }
        let settled = write_page(transaction, context, places).await?;
        match all.add(settled) {
            Some(next) => page.after = Some(next),
            None => return Ok(all),
        }
    }
}

async fn write_page(
    transaction: &mut SqliteConnection,
    context: &Context,
    places: Vec<TaskPlace>,
) -> Result<RefundsSettled, StoreError> {
    let snapshot = task_refunds::read(&mut Looks(transaction), &places).await?;
    let now = context.clock.now();
    let plan = plan_task_refunds(snapshot, context.policy.load().rounding, now, &context.ids);
    if plan.rows.is_empty() && plan.groups.is_empty() {
        return Ok(task_refunds::settled(&plan, places));
    }
    if !plan.books.refunds.is_empty() {
        write::refunds(transaction, context, &plan.books, now).await?;
    }
    let groups = sqlx::query(NEW_GROUPS).bind(task_refunds::groups(&plan)?).bind(now.as_millis());
    groups.execute(&mut *transaction).await?;
    let lists = [
        (REFUNDED, task_refunds::refunded_rows(&plan)?),
        (LOOKED, task_refunds::looked_rows(&plan)?),
        (STILL_OPEN, task_refunds::open_rows(&plan)?),
    ];
    for (sql, list) in lists {
        sqlx::query(sql).bind(list).execute(&mut *transaction).await?;
    }
    failpoint::hit("store.task_refunds.written")?;
    Ok(task_refunds::settled(&plan, places))
}
