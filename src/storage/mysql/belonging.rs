//! Looks whether the platform's tables and our own belong together: at the newest ends of both, so that a look is cheap
//! however large they are.

use std::collections::HashSet;

use sqlx::mysql::MySql;
use sqlx::{Executor, MySqlPool, Row};

use super::context::Names;
use crate::domain::repair::{Ends, WrittenRecord};
use crate::storage::StoreError;
use crate::storage::raw_meta;
use crate::storage::rows::parameter;

/// How many of the newest are looked at.
const NEWEST: i64 = 200;

// In one statement, as of one instant: a settlement writes both sides.
const CLAIMS: &str = "SELECT COUNT(*) > 0, \
       CAST(COALESCE(SUM(u.id IS NOT NULL AND k.id IS NOT NULL AND r.id IS NULL), 0) AS SIGNED) FROM \
       (SELECT call_second, claim_id, user_id, key_id FROM hookledger_claims \
        ORDER BY call_second DESC, claim_id DESC LIMIT ?) AS c \
     LEFT JOIN users AS u ON u.id = c.user_id COLLATE {collation} \
     LEFT JOIN api_keys AS k ON k.id = c.key_id COLLATE {collation} \
     LEFT JOIN usage_records AS r ON r.id = c.claim_id COLLATE {collation}";

// Ids of ours are UUIDv7, and begin with 0 for some thousand years.
const RECORDS: &str = "SELECT id, rawMeta FROM usage_records WHERE id < '1' ORDER BY id DESC LIMIT ?";

const CLAIMED: &str = "SELECT c.claim_id FROM JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', \
       v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]')) AS e \
     STRAIGHT_JOIN hookledger_claims AS c ON c.call_second = e.a AND c.claim_id = e.v COLLATE utf8mb4_bin";

const MARK: &str = "SELECT CAST(value AS SIGNED) FROM hookledger_meta WHERE name = 'claims_remembered_from_second'";

/// The newest ends of both sides. Records are read before their claims and the mark after: neither is ever behind.
pub async fn look(readers: &MySqlPool, names: &Names) -> Result<Ends, StoreError> {
    let claims = sqlx::query(names.sql(CLAIMS)).bind(NEWEST).fetch_one(readers).await?;
    let unbooked: i64 = claims.try_get(1)?;
    let rows: Vec<(String, Option<String>)> = sqlx::query_as(RECORDS).bind(NEWEST).fetch_all(readers).await?;
    let records: Vec<WrittenRecord> = rows.into_iter().filter_map(|(id, meta)| written(id, meta.as_deref())).collect();
    let places: Vec<(i64, &str)> = records.iter().map(|record| (record.call_second, record.id.as_str())).collect();
    let claimed = claimed(readers, names, &places).await?;
    let remembered_from_second = mark(readers, names).await?;
    Ok(Ends {
        unbooked_claims: usize::try_from(unbooked).unwrap_or(0),
        has_claims: claims.try_get::<i64, _>(0)? != 0,
        records,
        claimed,
        remembered_from_second,
    })
}

fn written(id: String, meta: Option<&str>) -> Option<WrittenRecord> {
    let meta = raw_meta::read(meta?)?;
    Some(WrittenRecord { id, call_second: meta.called_at().as_secs(), installation: meta.installation })
}

/// Which of these, each a call's second and an id, are claims.
pub async fn claimed<'e>(
    executor: impl Executor<'e, Database = MySql>,
    names: &Names,
    places: &[(i64, &str)],
) -> Result<HashSet<String>, StoreError> {
    let found: Vec<String> =
        sqlx::query_scalar(names.sql(CLAIMED)).bind(parameter(&places)?).fetch_all(executor).await?;
    Ok(found.into_iter().collect())
}

/// The second from which claims are remembered; none: all are.
pub async fn mark<'e>(executor: impl Executor<'e, Database = MySql>, names: &Names) -> Result<Option<i64>, StoreError> {
    let mark: Option<Option<i64>> = sqlx::query_scalar(names.sql(MARK)).fetch_optional(executor).await?;
    Ok(mark.flatten())
}
