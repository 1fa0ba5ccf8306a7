//! Sorts the errors of SQLite into those that pass, and those that the data itself causes; and reads its rows.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::storage::StoreError;
use crate::storage::decode::BookRow;

/// Primary result codes that speak of the data, not of the moment: TOOBIG, CONSTRAINT, MISMATCH, RANGE.
const DATA_CODES: [u32; 4] = [18, 19, 20, 25];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let Some(sorted) = crate::storage::mysql::error::sort(&error) {
            return sorted;
        }
        if matches!(error, sqlx::Error::ColumnDecode { .. }) {
            // A value of another type than the column's: SQLite lets other programs store such.
            return StoreError::Refused(error.to_string());
        }
        let code = error.as_database_error().and_then(|error| error.code());
        let primary = code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff);
        match primary {
            Some(code) if DATA_CODES.contains(&code) => StoreError::Refused(error.to_string()),
            _ => StoreError::Unavailable(error.to_string()),
        }
    }
}

impl BookRow for SqliteRow {
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
