//! Sorts the errors of SQLite into those that pass, and those that the data itself causes.

use crate::storage::StoreError;

/// Primary result codes that speak of the data, not of the moment: TOOBIG, CONSTRAINT, MISMATCH, RANGE.
const DATA_CODES: [u32; 4] = [18, 19, 20, 25];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
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

/// A stored value that makes no sense: it concerns the events that touch it, and no others.
pub fn unreadable(what: &'static str, value: impl std::fmt::Debug) -> StoreError {
    StoreError::Refused(format!("{what} holds {value:?}, which hookledger never writes: was it changed by hand?"))
}
