//! Sorts the server's errors: what passes when the transaction is redone, what the data itself causes, and the rest.

use sqlx::mysql::MySqlDatabaseError;

use crate::storage::StoreError;

/// Another transaction was in the way: deadlock, lock wait, a unique key that it has just taken, a changed definition.
const CONTENDED: [u16; 5] = [1213, 1205, 1062, 1020, 1412];

/// The data does not fit: no such parent, null, range, type, length, JSON, arithmetic.
const REFUSED: [u16; 10] = [1048, 1264, 1265, 1292, 1366, 1406, 1451, 1452, 1690, 4025];

/// What the server's error means; none if it was not the server's.
pub fn sort(error: &sqlx::Error) -> Option<StoreError> {
    let error = error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?;
    let text = format!("{} (error {})", error.message(), error.number());
    Some(match error.number() {
        number if CONTENDED.contains(&number) => StoreError::Contended(text),
        number if REFUSED.contains(&number) => StoreError::Refused(text),
        _ => StoreError::Unavailable(text),
    })
}
