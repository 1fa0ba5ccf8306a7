//! The moment from which we bill, and what other programs write after it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::{MySqlConnection, MySqlPool, Row};

use super::context::{Context, Names};
use super::foreign::{self, Range};
use super::retention::IDS;
use super::shard::End;
use super::write;
use crate::domain::adoption::{ForeignRecord, TIE_WITHIN};
use crate::domain::ids::KeyId;
use crate::domain::retention::FOREIGN_RECORDS_KEPT_FOR;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::rows::parameter;
use crate::storage::takeover::{ForeignDeductions, FoundHistory, TakenOver};

/// Between two looks through all keys.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Records that came no later than this ago are told.
const TOLD_FOR: Duration = Duration::from_secs(24 * 3600);

/// Users named in the telling.
const USERS_NAMED: i64 = 3;

/// Keys that are read at once.
const KEYS_PAGE: i64 = 500;

const MARKS: &str = "SELECT name, CAST(value AS SIGNED) FROM hookledger_meta \
     WHERE name IN ('taken_over_at_ms', 'adopted_from_ms', 'foreign_newest_at_ms', 'foreign_looked_at_ms', \
       'adopted_forgotten')";

/// What is stored of the taking over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    pub taken_over_at: Option<UnixMillis>,
    adopted_from: Option<UnixMillis>,
    newest_foreign: Option<UnixMillis>,
    looked_at: Option<UnixMillis>,
    /// Adopted records that are no longer kept one by one.
    adopted_forgotten: i64,
}

/// When the keys were last gone through by this process; 0 before the first time.
#[derive(Debug, Default)]
pub struct LastLook(AtomicI64);

impl LastLook {
    fn is_due(&self, now: UnixMillis) -> bool {
        let last = UnixMillis::new(self.0.load(Ordering::Acquire));
        now < last || now.since(last) >= LOOK_EVERY
    }
}

pub async fn marks(readers: &MySqlPool, names: &Names) -> Result<Marks, sqlx::Error> {
    let mut marks = Marks::default();
    for row in sqlx::query(names.sql(MARKS)).fetch_all(readers).await? {
        let value = row.try_get(1)?;
        let at = Some(UnixMillis::new(value));
        match row.try_get::<String, _>(0)?.as_str() {
            "taken_over_at_ms" => marks.taken_over_at = at,
            "adopted_from_ms" => marks.adopted_from = at,
            "foreign_newest_at_ms" => marks.newest_foreign = at,
            "adopted_forgotten" => marks.adopted_forgotten = value,
            _ => marks.looked_at = at,
        }
    }
    Ok(marks)
}

/// Lets settlements go by what is stored.
pub async fn remember(readers: &MySqlPool, context: &Context) -> Result<(), sqlx::Error> {
    let marks = marks(readers, &context.names).await?;
    if let Some(from) = marks.adopted_from {
        context.key_looks.adopt_from(from);
    }
    let noticed: Option<i64> =
        sqlx::query_scalar(context.sql("SELECT MAX(recorded_at_ms) FROM hookledger_foreign_records"))
            .fetch_one(readers)
            .await?;
    for at in [marks.newest_foreign, noticed.map(UnixMillis::new)].into_iter().flatten() {
        context.key_looks.saw(at);
    }
    Ok(())
}

/// What the database holds of others, at the first start on it.
pub async fn history(
    readers: &MySqlPool,
    names: &Names,
    moment: UnixMillis,
    max_age: Duration,
) -> Result<FoundHistory, StoreError> {
    let adopted_from = moment.minus(max_age);
    let mut connection = readers.acquire().await?;
    let (mut usage_records, mut newest, mut after) = (0, None, String::new());
    loop {
        let keys = keys_after(&mut connection, &after).await?;
        let Some(last) = keys.last() else { break };
        after = last.to_string();
        let ranges = from(keys, adopted_from);
        let (count, at) = foreign::count(&mut connection, names, &ranges).await?;
        usage_records += count;
        newest = newest.max(at);
    }
    // All of them: at the first start none is ours.
    let sql =
        "SELECT (SELECT COUNT(*) FROM webhook_logs), (SELECT COUNT(*) FROM users), (SELECT COUNT(*) FROM api_keys)";
    let row = sqlx::query(sql).fetch_one(&mut *connection).await?;
    Ok(FoundHistory {
        taken_over_at: moment,
        adopted_from,
        usage_records,
        newest_record_at: newest,
        webhook_logs: row.try_get(0)?,
        users: row.try_get(1)?,
        keys: row.try_get(2)?,
    })
}

/// Stores the moment, unless another start was faster; whether it is this one.
pub async fn store(
    connection: &mut MySqlConnection,
    context: &Context,
    found: &FoundHistory,
) -> Result<End<bool>, StoreError> {
    let first = put(connection, context, "taken_over_at_ms", found.taken_over_at).await?;
    if !first {
        return Ok(End::RollBack(false));
    }
    put(connection, context, "adopted_from_ms", found.adopted_from).await?;
    if let Some(newest) = found.newest_record_at {
        put(connection, context, "foreign_newest_at_ms", newest).await?;
    }
    Ok(End::Commit(true))
}

async fn put(
    connection: &mut MySqlConnection,
    context: &Context,
    name: &str,
    at: UnixMillis,
) -> Result<bool, StoreError> {
    let done = sqlx::query(context.sql("INSERT IGNORE INTO hookledger_meta (name, value) VALUES (?, ?)"))
        .bind(name.to_owned())
        .bind(at.as_millis().to_string())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Goes through all keys for records of others later than the moment, if that is due.
pub async fn see(
    readers: &MySqlPool,
    context: &Context,
    last: &LastLook,
) -> Result<Option<Vec<ForeignRecord>>, StoreError> {
    let now = context.clock.now();
    if !last.is_due(now) {
        return Ok(None);
    }
    let marks = marks(readers, &context.names).await?;
    let Some(moment) = marks.taken_over_at else { return Ok(None) };
    let just_after = moment.plus(Duration::from_millis(1));
    // A record may be written some time after its call.
    let since = marks.looked_at.map_or(just_after, |at| at.minus(TIE_WITHIN).max(just_after));
    let mut connection = readers.acquire().await?;
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let keys = keys_after(&mut connection, &after).await?;
        let Some(key) = keys.last() else { break };
        after = key.to_string();
        found.extend(foreign::find(&mut connection, &context.names, &from(keys, since)).await?.0);
    }
    found.iter().for_each(|record| context.key_looks.saw(record.recorded_at));
    last.0.store(now.as_millis(), Ordering::Release);
    Ok(Some(found))
}

/// Writes down what a look saw.
pub async fn note(
    connection: &mut MySqlConnection,
    context: &Context,
    seen: &[ForeignRecord],
    at: UnixMillis,
) -> Result<End<()>, StoreError> {
    write::foreign_records(connection, context, seen, at).await?;
    sqlx::query(context.sql(
        "INSERT INTO hookledger_meta (name, value) VALUES ('foreign_looked_at_ms', ?) \
         ON DUPLICATE KEY UPDATE value = VALUES(value)",
    ))
    .bind(at.as_millis().to_string())
    .execute(connection)
    .await?;
    Ok(End::Commit(()))
}

/// Forgets records that were noticed long ago; how many were adopted and when the newest was stays known.
pub async fn forget(connection: &mut MySqlConnection, context: &Context, ids: &[String]) -> Result<u64, StoreError> {
    let ids = parameter(&ids)?;
    let found = format!(
        "SELECT CAST(COALESCE(SUM(f.is_adopted), 0) AS SIGNED), MAX(f.recorded_at_ms) FROM {IDS} \
         STRAIGHT_JOIN hookledger_foreign_records AS f FORCE INDEX (PRIMARY) \
         ON f.record_id = e.v COLLATE utf8mb4_bin FOR UPDATE"
    );
    let (adopted, newest) = sqlx::query_as::<_, (i64, Option<i64>)>(context.sql(&found))
        .bind(ids.clone())
        .fetch_one(&mut *connection)
        .await?;
    let Some(newest) = newest else { return Ok(0) };
    for (name, value, sum) in [
        ("adopted_forgotten", adopted, "CAST(value AS SIGNED) + CAST(VALUES(value) AS SIGNED)"),
        ("foreign_newest_at_ms", newest, "GREATEST(CAST(value AS SIGNED), CAST(VALUES(value) AS SIGNED))"),
    ] {
        let sql =
            format!("INSERT INTO hookledger_meta (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE value = {sum}");
        sqlx::query(context.sql(&sql)).bind(name).bind(value.to_string()).execute(&mut *connection).await?;
    }
    let sql = format!(
        "DELETE f FROM {IDS} STRAIGHT_JOIN hookledger_foreign_records AS f FORCE INDEX (PRIMARY) \
         ON f.record_id = e.v COLLATE utf8mb4_bin"
    );
    Ok(sqlx::query(context.sql(&sql)).bind(ids).execute(connection).await?.rows_affected())
}

/// How the taking over stands.
pub async fn told(readers: &MySqlPool, context: &Context) -> Result<Option<TakenOver>, StoreError> {
    let marks = marks(readers, &context.names).await?;
    let Some(taken_over_at) = marks.taken_over_at else { return Ok(None) };
    let now = context.clock.now();
    let told_from = now.minus(TOLD_FOR).as_millis();
    // A call that waited for long may take a record that was noticed and forgotten long ago: nobody bills still.
    let recorded_after = taken_over_at.max(now.minus(FOREIGN_RECORDS_KEPT_FOR)).as_millis();
    let kept = sqlx::query_scalar::<_, i64>(
        context.sql("SELECT COUNT(*) FROM hookledger_foreign_records WHERE is_adopted = 1"),
    )
    .fetch_one(readers)
    .await?;
    let adopted = marks.adopted_forgotten.saturating_add(kept);
    let row = sqlx::query(context.sql(
        "SELECT COUNT(*), COUNT(DISTINCT user_id), MAX(recorded_at_ms), CAST(COALESCE(SUM(credits), 0) AS SIGNED), \
           CAST(COALESCE(SUM(is_adopted), 0) AS SIGNED) \
         FROM hookledger_foreign_records WHERE noticed_at_ms > ? AND recorded_at_ms > ?",
    ))
    .bind(told_from)
    .bind(recorded_after)
    .fetch_one(readers)
    .await?;
    let (records, newest): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(2)?);
    let Some(newest) = newest else { return Ok(Some(TakenOver { taken_over_at, adopted, foreign: None })) };
    let emails: Vec<String> = sqlx::query_scalar(context.sql(
        "SELECT DISTINCT u.email FROM hookledger_foreign_records AS f \
         STRAIGHT_JOIN users AS u ON u.id = f.user_id COLLATE {collation} \
         WHERE f.noticed_at_ms > ? AND f.recorded_at_ms > ? ORDER BY u.email LIMIT ?",
    ))
    .bind(told_from)
    .bind(recorded_after)
    .bind(USERS_NAMED)
    .fetch_all(readers)
    .await?;
    let foreign = ForeignDeductions {
        records,
        users: row.try_get(1)?,
        emails,
        newest_at: UnixMillis::new(newest),
        credits: row.try_get(3)?,
        adopted: row.try_get(4)?,
    };
    Ok(Some(TakenOver { taken_over_at, adopted, foreign: Some(foreign) }))
}

async fn keys_after(connection: &mut MySqlConnection, after: &str) -> Result<Vec<KeyId>, StoreError> {
    let keys: Vec<String> = sqlx::query_scalar("SELECT id FROM api_keys WHERE id > ? ORDER BY id LIMIT ?")
        .bind(after.to_owned())
        .bind(KEYS_PAGE)
        .fetch_all(connection)
        .await?;
    Ok(keys.iter().filter_map(|key| KeyId::parse(key).ok()).collect())
}

fn from(keys: Vec<KeyId>, since: UnixMillis) -> Vec<Range> {
    keys.into_iter().map(|key| (key, since, UnixMillis::MAX)).collect()
}
