//! Sorts the server's errors: what passes when the transaction is redone, what the data itself causes, and the rest;
//! and reads the server's rows.

use sqlx::Row;
use sqlx::mysql::{MySqlDatabaseError, MySqlRow};

use crate::storage::StoreError;
use crate::storage::decode::BookRow;

/// Another transaction was in the way: deadlock, lock wait, a row or a definition that it has changed.
const CONTENDED: [u16; 4] = [1213, 1205, 1020, 1412];

/// A unique key is taken.
const TAKEN: u16 = 1062;

/// The data does not fit: no such parent, null, range, type, length, arithmetic, a trigger or check that refuses it.
const REFUSED: [u16; 11] = [1048, 1264, 1265, 1292, 1366, 1406, 1451, 1452, 1644, 1690, 4025];

/// What the server's error means; none if it was not the server's.
pub fn sort(error: &sqlx::Error) -> Option<StoreError> {
    let error = error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?;
    let text = format!("{} (error {})", error.message(), error.number());
    Some(match error.number() {
        number if CONTENDED.contains(&number) => StoreError::Contended(text),
        TAKEN => StoreError::Taken(text),
        number if REFUSED.contains(&number) => StoreError::Refused(text),
        _ => StoreError::Unavailable(text),
    })
}

/// The server's number of an error; none if it was not the server's.
pub fn number(error: &sqlx::Error) -> Option<u16> {
    Some(error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?.number())
}

impl BookRow for MySqlRow {
    fn number(&self, column: usize) -> Result<i64, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn optional_number(&self, column: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn text(&self, column: usize) -> Result<String, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn optional_text(&self, column: usize) -> Result<Option<String>, StoreError> {
        Ok(self.try_get(column)?)
    }
}
