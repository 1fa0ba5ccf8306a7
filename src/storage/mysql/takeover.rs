//! The moment from which we bill, and what other programs write after it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
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

/// Between two walks through all that was written since the moment, as late as it was written.
const WALK_EVERY: Duration = Duration::from_secs(20 * 3600);

/// Keys of which a look walks through everything.
const WALK_PAGE: i64 = 100;

/// Records that came no later than this ago are told.
const TOLD_FOR: Duration = Duration::from_secs(24 * 3600);

/// Users named in the telling.
const USERS_NAMED: i64 = 3;

/// Keys that are read at once.
const KEYS_PAGE: i64 = 500;

const MARKS: &str = "SELECT name, CAST(value AS SIGNED) FROM hookledger_meta \
     WHERE name IN ('taken_over_at_ms', 'adopted_from_ms', 'foreign_looked_at_ms', 'adopted_forgotten')";

/// How far adoption reaches back, for settlements; nothing before the first start has stored it.
#[derive(Debug, Default)]
pub struct AdoptedFrom(AtomicI64);

impl AdoptedFrom {
    fn set(&self, at: UnixMillis) {
        self.0.store(at.as_millis(), Ordering::Release);
    }

    pub fn get(&self) -> Option<UnixMillis> {
        Some(self.0.load(Ordering::Acquire)).filter(|at| *at > 0).map(UnixMillis::new)
    }
}

/// What is stored of the taking over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    pub taken_over_at: Option<UnixMillis>,
    adopted_from: Option<UnixMillis>,
    looked_at: Option<UnixMillis>,
    /// Adopted records that are no longer kept one by one.
    adopted_forgotten: i64,
}

/// When the keys were last gone through by this process.
#[derive(Debug, Default)]
pub struct LastLook(Mutex<Looked>);

#[derive(Debug, Default)]
struct Looked {
    at: Option<UnixMillis>,
    walk_began_at: Option<UnixMillis>,
    /// The key after which a walk goes on that is under way.
    walked_to: Option<String>,
}

impl LastLook {
    fn with<T>(&self, of: impl FnOnce(&mut Looked) -> T) -> T {
        of(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_due(&self, now: UnixMillis) -> bool {
        self.with(|looked| has_passed(looked.at, LOOK_EVERY, now))
    }

    /// After which key to walk on; none: no walk is due.
    fn walks_after(&self, now: UnixMillis) -> Option<String> {
        self.with(|looked| {
            if looked.walked_to.is_none() && has_passed(looked.walk_began_at, WALK_EVERY, now) {
                looked.walk_began_at = Some(now);
                looked.walked_to = Some(String::new());
            }
            looked.walked_to.clone()
        })
    }
}

/// Where the clock was set back, it has.
fn has_passed(since: Option<UnixMillis>, duration: Duration, now: UnixMillis) -> bool {
    since.is_none_or(|since| now < since || now.since(since) >= duration)
}

/// What a look saw.
#[derive(Debug)]
pub struct Seen {
    at: UnixMillis,
    records: Vec<ForeignRecord>,
    /// It did not end early because there were so many.
    is_whole: bool,
}

pub async fn marks(readers: &MySqlPool, names: &Names) -> Result<Marks, sqlx::Error> {
    let mut marks = Marks::default();
    for row in sqlx::query(names.sql(MARKS)).fetch_all(readers).await? {
        let value = row.try_get(1)?;
        let at = Some(UnixMillis::new(value));
        match row.try_get::<String, _>(0)?.as_str() {
            "taken_over_at_ms" => marks.taken_over_at = at,
            "adopted_from_ms" => marks.adopted_from = at,
            "adopted_forgotten" => marks.adopted_forgotten = value,
            _ => marks.looked_at = at,
        }
    }
    Ok(marks)
}

/// Lets settlements go by what is stored.
pub async fn remember(readers: &MySqlPool, context: &Context) -> Result<(), sqlx::Error> {
    if let Some(from) = marks(readers, &context.names).await?.adopted_from {
        context.adopted_from.set(from);
    }
    Ok(())
}

/// What the database holds of others, at the first start on it.
pub async fn history(
    readers: &MySqlPool,
    context: &Context,
    moment: UnixMillis,
    max_age: Duration,
) -> Result<FoundHistory, StoreError> {
    let adopted_from = moment.minus(max_age);
    let mut connection = readers.acquire().await?;
    let (mut usage_records, mut newest, mut after) = (0, None, String::new());
    loop {
        let keys = keys_after(&mut connection, &after, KEYS_PAGE).await?;
        let Some(last) = keys.last() else { break };
        after = last.to_string();
        let ranges = from(keys, adopted_from);
        let (count, at) = foreign::count(&mut connection, context, &ranges).await?;
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

/// Goes through all keys for records of others later than the moment, if that is due: those of the last minutes, and of
/// some keys all, since a record may be written long after its call. In a day all keys have had their turn.
pub async fn see(readers: &MySqlPool, context: &Context, last: &LastLook) -> Result<Option<Seen>, StoreError> {
    let now = context.clock.now();
    if !last.is_due(now) {
        return Ok(None);
    }
    let marks = marks(readers, &context.names).await?;
    let Some(moment) = marks.taken_over_at else { return Ok(None) };
    let just_after = moment.plus(Duration::from_millis(1));
    let since = marks.looked_at.map_or(just_after, |at| at.minus(TIE_WITHIN).max(just_after));
    let mut connection = readers.acquire().await?;
    let mut seen = Seen { at: now, records: Vec::new(), is_whole: true };
    let mut after = String::new();
    while seen.is_whole {
        let keys = keys_after(&mut connection, &after, KEYS_PAGE).await?;
        let Some(key) = keys.last() else { break };
        after = key.to_string();
        seen.add(foreign::unnoticed(&mut connection, context, &from(keys, since)).await?);
    }
    if seen.is_whole
        && let Some(after) = last.walks_after(now)
    {
        let keys = keys_after(&mut connection, &after, WALK_PAGE).await?;
        let walked_to = keys.last().map(KeyId::to_string);
        // What was noticed before that is forgotten.
        let since = just_after.max(now.minus(FOREIGN_RECORDS_KEPT_FOR));
        seen.add(foreign::unnoticed(&mut connection, context, &from(keys, since)).await?);
        if seen.is_whole {
            last.with(|looked| looked.walked_to = walked_to);
        }
    }
    // What was too much is noticed by the next look, which is due at once.
    if seen.is_whole {
        last.with(|looked| looked.at = Some(now));
    }
    Ok(Some(seen))
}

impl Seen {
    fn add(&mut self, records: Vec<ForeignRecord>) {
        self.is_whole &= records.len() < foreign::MAX_UNNOTICED;
        self.records.extend(records);
    }
}

/// Writes down what a look saw.
pub async fn note(connection: &mut MySqlConnection, context: &Context, seen: &Seen) -> Result<End<()>, StoreError> {
    write::foreign_records(connection, context, &seen.records, seen.at).await?;
    if seen.is_whole {
        sqlx::query(context.sql(
            "INSERT INTO hookledger_meta (name, value) VALUES ('foreign_looked_at_ms', ?) \
             ON DUPLICATE KEY UPDATE value = VALUES(value)",
        ))
        .bind(seen.at.as_millis().to_string())
        .execute(connection)
        .await?;
    }
    Ok(End::Commit(()))
}

/// Forgets records that were noticed long ago; how many were adopted stays known.
pub async fn forget(connection: &mut MySqlConnection, context: &Context, ids: &[String]) -> Result<u64, StoreError> {
    let ids = parameter(&ids)?;
    let found = format!(
        "SELECT CAST(SUM(f.is_adopted) AS SIGNED) FROM {IDS} \
         STRAIGHT_JOIN hookledger_foreign_records AS f FORCE INDEX (PRIMARY) \
         ON f.record_id = e.v COLLATE utf8mb4_bin FOR UPDATE"
    );
    let adopted: Option<i64> =
        sqlx::query_scalar(context.sql(&found)).bind(ids.clone()).fetch_one(&mut *connection).await?;
    let Some(adopted) = adopted else { return Ok(0) };
    sqlx::query(context.sql(
        "INSERT INTO hookledger_meta (name, value) VALUES ('adopted_forgotten', ?) \
         ON DUPLICATE KEY UPDATE value = CAST(value AS SIGNED) + CAST(VALUES(value) AS SIGNED)",
    ))
    .bind(adopted.to_string())
    .execute(&mut *connection)
    .await?;
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

async fn keys_after(connection: &mut MySqlConnection, after: &str, page: i64) -> Result<Vec<KeyId>, StoreError> {
    let keys: Vec<String> = sqlx::query_scalar("SELECT id FROM api_keys WHERE id > ? ORDER BY id LIMIT ?")
        .bind(after.to_owned())
        .bind(page)
        .fetch_all(connection)
        .await?;
    Ok(keys.iter().filter_map(|key| KeyId::parse(key).ok()).collect())
}

fn from(keys: Vec<KeyId>, since: UnixMillis) -> Vec<Range> {
    keys.into_iter().map(|key| (key, since, UnixMillis::MAX)).collect()
}
