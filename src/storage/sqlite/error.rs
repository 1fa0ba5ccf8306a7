//! Sorts the errors of SQLite into those that pass, and those that the data itself causes.

use crate::storage::StoreError;

/// Primary result codes that speak of the data, not of the moment: TOOBIG, CONSTRAINT, MISMATCH, RANGE.
const DATA_CODES: [u32; 4] = [18, 19, 20, 25];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        let primary = code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff);
        match primary {
            Some(code) if DATA_CODES.contains(&code) => StoreError::Refused(error.to_string()),
            _ => StoreError::Unavailable(error.to_string()),
        }
    }
}

/// A value that we stored ourselves and cannot read any more: someone changed it.
pub fn unreadable(what: &'static str, value: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("{what} holds {value}, which hookledger never writes: was it changed by hand?"))
}
