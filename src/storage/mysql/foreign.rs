//! Reads usage records that other programs wrote: those that no claim of ours names.
//!
//! A claim lies in the second of its usage record, so both are found by their keys. A settlement reads ten minutes of
//! each of its keys, mostly our own rows; where those are many, it looks less often, see `KeyLooks`.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};

use super::context::{Context, Names};
use crate::domain::adoption::{ForeignRecord, ForeignRecords, spans};
use crate::domain::ids::{KeyId, RecordId, RemoteKeyId, UserId};
use crate::domain::money::Credits;
use crate::domain::settlement::Batch;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::stored::unreadable;

/// Rows of one key that a look may read each time without being felt.
const FREE_ROWS: i64 = 200;

/// What a look at a busier key has to be worth: so long per row until the next one.
const PAUSE_MILLIS_PER_ROW: i64 = 1;

/// Busy keys that are remembered; beyond, all are forgotten and looked at again.
const MAX_BUSY_KEYS: usize = 10_000;

/// Ranges of one statement.
const MAX_RANGES: usize = 500;

/// Records that one statement may find.
const MAX_RECORDS: usize = 10_000;

/// A key, and when its records are asked for, both ends included.
pub type Range = (KeyId, UnixMillis, UnixMillis);

const OURS: &str = "FROM usage_records AS r LEFT JOIN hookledger_claims AS c \
     ON c.call_second = TIMESTAMPDIFF(SECOND, '1970-01-01', r.timestamp) AND c.claim_id = r.id COLLATE utf8mb4_bin WHERE ";

// The index tells everything about rows of our own: only others' are read whole.
const FOUND: (&str, &str) = (
    "SELECT f.k, CAST(f.n AS SIGNED), r.id, k.userId, CAST(r.timestamp AS CHAR), r.model, r.promptTokens, \
       r.completionTokens, r.creditCost FROM \
     (SELECT r.apiKeyId AS k, IF(c.claim_id IS NULL, r.id, NULL) AS id, COUNT(*) AS n ",
    " GROUP BY 1, 2 LIMIT 10000) AS f LEFT JOIN usage_records AS r ON r.id = f.id LEFT JOIN api_keys AS k ON k.id = f.k",
);

const COUNTED: (&str, &str) = ("SELECT COUNT(*), CAST(MAX(r.timestamp) AS CHAR) ", " AND c.claim_id IS NULL");

/// What a settlement remembers of its keys between looks, and how far adoption reaches.
#[derive(Debug, Default)]
pub struct KeyLooks {
    /// Milliseconds; 0 before the first start has stored it.
    adopted_from: AtomicI64,
    newest_foreign: AtomicI64,
    /// Keys with many rows, and when they are looked at again.
    busy: Mutex<HashMap<KeyId, UnixMillis>>,
}

impl KeyLooks {
    pub fn adopt_from(&self, at: UnixMillis) {
        self.adopted_from.store(at.as_millis(), Ordering::Release);
    }

    /// Another program's record of this time was seen: calls that it may be of are looked for each time.
    pub fn saw(&self, recorded_at: UnixMillis) {
        self.newest_foreign.fetch_max(recorded_at.as_millis(), Ordering::AcqRel);
    }

    fn adopted_from(&self) -> Option<UnixMillis> {
        Some(self.adopted_from.load(Ordering::Acquire)).filter(|at| *at > 0).map(UnixMillis::new)
    }

    /// A busy key's rows were read a moment ago, and no known record of another program can be in this range.
    fn may_skip(&self, (key, from, _): &Range, now: UnixMillis) -> bool {
        from.as_millis() > self.newest_foreign.load(Ordering::Acquire)
            && self.busy().get(key).is_some_and(|again_at| now < *again_at)
    }

    fn note(&self, rows: &HashMap<String, i64>, asked: impl Iterator<Item = KeyId>, now: UnixMillis) {
        let mut busy = self.busy();
        for key in asked {
            match rows.get(key.as_str()).copied().unwrap_or_default() {
                ..FREE_ROWS => drop(busy.remove(&key)),
                rows => {
                    if busy.len() >= MAX_BUSY_KEYS {
                        busy.clear();
                    }
                    busy.insert(key, UnixMillis::new(now.as_millis() + rows * PAUSE_MILLIS_PER_ROW));
                }
            }
        }
    }

    fn busy(&self) -> MutexGuard<'_, HashMap<KeyId, UnixMillis>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records that may be of these calls. `keys`: of each token, present and former.
pub async fn of_calls(
    connection: &mut MySqlConnection,
    context: &Context,
    batch: &Batch,
    keys: &BTreeSet<(RemoteKeyId, KeyId)>,
) -> Result<ForeignRecords, StoreError> {
    let (looks, now) = (&context.key_looks, context.clock.now());
    let Some(adopted_from) = looks.adopted_from() else { return Ok(ForeignRecords::default()) };
    let spans = spans(batch.calls(), adopted_from);
    let ranges = keys.iter().flat_map(|(token, key)| {
        let spans = spans.get(token).into_iter().flatten();
        spans.map(|(from, until)| (key.clone(), *from, *until))
    });
    let ranges: BTreeSet<Range> = ranges.filter(|range| !looks.may_skip(range, now)).collect();
    let ranges: Vec<Range> = ranges.into_iter().collect();
    let (records, rows) = find(connection, &context.names, &ranges).await?;
    looks.note(&rows, ranges.into_iter().map(|(key, ..)| key), now);
    records.iter().for_each(|record| looks.saw(record.recorded_at));
    let mut tokens: HashMap<&KeyId, Vec<RemoteKeyId>> = HashMap::new();
    for (token, key) in keys {
        tokens.entry(key).or_default().push(*token);
    }
    let of_tokens = records.iter().flat_map(|record| {
        let tokens = tokens.get(&record.key_id).into_iter().flatten();
        tokens.map(move |token| (*token, record.clone()))
    });
    Ok(ForeignRecords::new(of_tokens))
}

/// Records of others in these ranges, and how many rows each key has there.
pub async fn find(
    connection: &mut MySqlConnection,
    names: &Names,
    ranges: &[Range],
) -> Result<(Vec<ForeignRecord>, HashMap<String, i64>), StoreError> {
    let (mut records, mut rows_of_keys) = (Vec::new(), HashMap::new());
    for ranges in ranges.chunks(MAX_RANGES) {
        for row in ask(connection, names, FOUND, ranges).await? {
            let key: String = row.try_get(0)?;
            *rows_of_keys.entry(key).or_default() += row.try_get::<i64, _>(1)?;
            if records.len() < MAX_RECORDS {
                records.extend(record(&row)?);
            }
        }
    }
    Ok((records, rows_of_keys))
}

/// How many records of others lie in these ranges, and when the newest is of.
pub async fn count(
    connection: &mut MySqlConnection,
    names: &Names,
    ranges: &[Range],
) -> Result<(i64, Option<UnixMillis>), StoreError> {
    let (mut count, mut newest) = (0, None);
    for ranges in ranges.chunks(MAX_RANGES) {
        for row in ask(connection, names, COUNTED, ranges).await? {
            count += row.try_get::<i64, _>(0)?;
            let at: Option<String> = row.try_get(1)?;
            newest = newest.max(at.and_then(|at| UnixMillis::from_column(&at)));
        }
    }
    Ok((count, newest))
}

/// Constant ranges, which the server's index is read by; a list to join with would have it read all rows of each key.
async fn ask(
    connection: &mut MySqlConnection,
    names: &Names,
    (head, tail): (&str, &str),
    ranges: &[Range],
) -> Result<Vec<MySqlRow>, StoreError> {
    const RANGE: &str = "(r.apiKeyId = ? AND r.timestamp BETWEEN CAST(? AS DATETIME(3)) AND CAST(? AS DATETIME(3)))";
    let Some(last) = ranges.last() else { return Ok(Vec::new()) };
    // Few different texts, so that the server and the driver need not learn each length.
    let length = ranges.len().next_power_of_two();
    let list = vec![RANGE; length].join(" OR ");
    let mut query = sqlx::query(names.sql(&format!("{head}{OURS}({list}){tail}")));
    for (key, from, until) in ranges.iter().chain(std::iter::repeat(last)).take(length) {
        query = query.bind(key.as_str().to_owned()).bind(from.to_column()).bind(until.to_column());
    }
    Ok(query.fetch_all(connection).await?)
}

/// None of the row that counts our own.
fn record(row: &MySqlRow) -> Result<Option<ForeignRecord>, StoreError> {
    let (Some(id), Some(user_id), Some(at)) = (
        row.try_get::<Option<String>, _>(2)?,
        row.try_get::<Option<String>, _>(3)?,
        row.try_get::<Option<String>, _>(4)?,
    ) else {
        return Ok(None);
    };
    let key_id: String = row.try_get(0)?;
    Ok(Some(ForeignRecord {
        id: RecordId::parse(&id).map_err(|_| unreadable("usage_records.id", id))?,
        key_id: KeyId::parse(&key_id).map_err(|_| unreadable("usage_records.apiKeyId", key_id))?,
        user_id: UserId::parse(&user_id).map_err(|_| unreadable("api_keys.userId", user_id))?,
        model: row.try_get(5)?,
        prompt_tokens: row.try_get(6)?,
        completion_tokens: row.try_get(7)?,
        // Another program's odd date is no call's.
        recorded_at: UnixMillis::from_column(&at).unwrap_or(UnixMillis::ZERO),
        credits: Credits::new(i64::from(row.try_get::<i32, _>(8)?)),
    }))
}
