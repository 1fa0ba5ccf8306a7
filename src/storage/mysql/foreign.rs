//! Reads usage records that other programs wrote: those that no claim of ours names.
//!
//! A settlement reads ten minutes of each of its keys, mostly our own rows. The platform's index of key and time holds
//! their ids as well, and ours are known by their end, so that nothing else is read of them: a third of a microsecond for
//! each. Only of the rest a claim is looked up, in the second of its record.

use std::collections::{BTreeSet, HashMap};

use futures_util::TryStreamExt;
use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::Query;
use sqlx::{MySql, MySqlConnection, Row};

use super::context::Context;
use crate::domain::adoption::{ForeignRecord, ForeignRecords, Wanted, spans};
use crate::domain::event::Content;
use crate::domain::ids::{IdMark, KeyId, RecordId, RemoteKeyId, UserId};
use crate::domain::money::Credits;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::stored::unreadable;

/// Ranges of one statement.
const MAX_RANGES: usize = 500;

/// A key, and when its records are asked for, both ends included.
pub type Range = (KeyId, UnixMillis, UnixMillis);

/// A statement about others' records in some ranges: what is asked, what their rows are joined with, what comes behind.
type Question = (&'static str, &'static str, &'static str);

// The first condition is met by the index alone, which is named: of a small table the server would rather read all rows,
// and of a busy one as well. A derived table would hide from it that the index is enough.
const FROM: &str = "FROM usage_records AS r {usage_index} LEFT JOIN hookledger_claims AS c \
     ON c.call_second = TIMESTAMPDIFF(SECOND, '1970-01-01', r.timestamp) AND c.claim_id = r.id COLLATE utf8mb4_bin ";

const OTHERS: &str = "WHERE RIGHT(CAST(r.id AS BINARY), {digits}) <> CAST(? AS BINARY) AND c.claim_id IS NULL AND ";

// Only others' rows are read whole.
const WHOLE: &str = "SELECT u.apiKeyId, u.id, k.userId, CAST(u.timestamp AS CHAR), u.model, u.promptTokens, \
     u.completionTokens, u.creditCost ";
const THEIR_ROWS: &str = "STRAIGHT_JOIN usage_records AS u FORCE INDEX (PRIMARY) ON u.id = r.id \
     STRAIGHT_JOIN api_keys AS k FORCE INDEX (PRIMARY) ON k.id = r.apiKeyId ";

const FOUND: Question = (WHOLE, THEIR_ROWS, "");

const UNNOTICED: Question = (
    WHOLE,
    THEIR_ROWS,
    " AND NOT EXISTS (SELECT 1 FROM hookledger_foreign_records AS n WHERE n.record_id = r.id COLLATE utf8mb4_bin) \
       LIMIT 5000",
);

/// How many one statement may find that were not noticed before.
pub const MAX_UNNOTICED: usize = 5000;

const COUNTED: Question = ("SELECT COUNT(*), CAST(MAX(r.timestamp) AS CHAR) ", "", "");

/// Records that may be of these calls. `keys`: of each token, present and former; all that are not held back are locked.
/// `reaches_back`: those count as well that are older than what is adopted by itself.
pub async fn of_calls(
    connection: &mut MySqlConnection,
    context: &Context,
    calls: &[Content],
    keys: &BTreeSet<(RemoteKeyId, KeyId)>,
    reaches_back: bool,
) -> Result<ForeignRecords, StoreError> {
    let Some(adopted_from) = context.adopted_from.get() else { return Ok(ForeignRecords::default()) };
    let adopted_from = if reaches_back { UnixMillis::ZERO } else { adopted_from };
    let spans = spans(calls.iter().map(|call| (call.remote_key_id, call.called_at)), adopted_from);
    let mut ranges: BTreeSet<Range> = BTreeSet::new();
    let mut tokens: HashMap<&str, Vec<RemoteKeyId>> = HashMap::new();
    for (token, key) in keys {
        tokens.entry(key.as_str()).or_default().push(*token);
        let spans = spans.get(token).into_iter().flatten();
        ranges.extend(spans.map(|(from, until)| (key.clone(), *from, *until)));
    }
    let ranges: Vec<Range> = ranges.into_iter().collect();
    let wanted = Wanted::of(calls.iter());
    let mut found = Vec::new();
    for ranges in ranges.chunks(MAX_RANGES) {
        let sql = statement(context, FOUND, ranges);
        let mut rows = bound(sqlx::query(sql), context, ranges).fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            let record = record(&row)?;
            for token in tokens.get(record.key_id.as_str()).into_iter().flatten() {
                if wanted.has(*token, &record) {
                    found.push((*token, record.clone()));
                }
            }
        }
    }
    Ok(ForeignRecords::new(found))
}

/// Records of others in these ranges that were not noticed before, no more than `MAX_UNNOTICED` for each statement.
pub async fn unnoticed(
    connection: &mut MySqlConnection,
    context: &Context,
    ranges: &[Range],
) -> Result<Vec<ForeignRecord>, StoreError> {
    let mut records = Vec::new();
    for ranges in ranges.chunks(MAX_RANGES) {
        for row in ask(connection, context, UNNOTICED, ranges).await? {
            records.push(record(&row)?);
        }
    }
    Ok(records)
}

/// How many records of others lie in these ranges, and when the newest is of.
pub async fn count(
    connection: &mut MySqlConnection,
    context: &Context,
    ranges: &[Range],
) -> Result<(i64, Option<UnixMillis>), StoreError> {
    let (mut count, mut newest) = (0, None);
    for ranges in ranges.chunks(MAX_RANGES) {
        for row in ask(connection, context, COUNTED, ranges).await? {
            count += row.try_get::<i64, _>(0)?;
            let at: Option<String> = row.try_get(1)?;
            newest = newest.max(at.and_then(|at| UnixMillis::from_column(&at)));
        }
    }
    Ok((count, newest))
}

async fn ask(
    connection: &mut MySqlConnection,
    context: &Context,
    question: Question,
    ranges: &[Range],
) -> Result<Vec<MySqlRow>, StoreError> {
    let sql = statement(context, question, ranges);
    Ok(bound(sqlx::query(sql), context, ranges).fetch_all(connection).await?)
}

/// Few different texts, so that the server and the driver need not learn each length.
fn padded(ranges: &[Range]) -> usize {
    ranges.len().next_power_of_two()
}

/// Constant ranges, which the server's index is read by; a list to join with would have it read all rows of each key.
fn statement(context: &Context, (asked, joined, tail): Question, ranges: &[Range]) -> sqlx::AssertSqlSafe<String> {
    const RANGE: &str = "(r.apiKeyId = ? AND r.timestamp BETWEEN CAST(? AS DATETIME(3)) AND CAST(? AS DATETIME(3)))";
    let list = vec![RANGE; padded(ranges)].join(" OR ");
    let others = OTHERS.replace("{digits}", &IdMark::DIGITS.to_string());
    context.sql(&format!("{asked}{FROM}{joined}{others}({list}){tail}"))
}

fn bound<'q>(
    mut query: Query<'q, MySql, MySqlArguments>,
    context: &Context,
    ranges: &[Range],
) -> Query<'q, MySql, MySqlArguments> {
    query = query.bind(IdMark::of(&context.installation.load()).to_string());
    for (key, from, until) in ranges.iter().cycle().take(padded(ranges)) {
        query = query.bind(key.as_str().to_owned()).bind(from.to_column()).bind(until.to_column());
    }
    query
}

fn record(row: &MySqlRow) -> Result<ForeignRecord, StoreError> {
    let (key_id, id, user_id): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let at: String = row.try_get(3)?;
    Ok(ForeignRecord {
        id: RecordId::parse(&id).map_err(|_| unreadable("usage_records.id", id))?,
        key_id: KeyId::parse(&key_id).map_err(|_| unreadable("usage_records.apiKeyId", key_id))?,
        user_id: UserId::parse(&user_id).map_err(|_| unreadable("api_keys.userId", user_id))?,
        model: row.try_get(4)?,
        prompt_tokens: row.try_get(5)?,
        completion_tokens: row.try_get(6)?,
        // Another program's odd date is no call's.
        recorded_at: UnixMillis::from_column(&at).unwrap_or(UnixMillis::ZERO),
        credits: Credits::new(i64::from(row.try_get::<i32, _>(7)?)),
    })
}
