//! Why the books could not be held against new-api's log.

use crate::gateway::{GatewayError, ReadingError};
use crate::polling::PassError;
use crate::storage::StoreError;

/// Why the log could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("no gateway is configured: set newapi.base_url, newapi.access_token and newapi.user_id")]
    NoGateway,
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Reading(#[from] ReadingError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    AnotherGateway(String),
}

impl From<PassError> for SourceError {
    fn from(error: PassError) -> Self {
        match error {
            PassError::Reading(error) => SourceError::Reading(error),
            PassError::Store(error) => SourceError::Store(error),
            other @ (PassError::AnotherGateway(_) | PassError::Unreadable { .. }) => {
                SourceError::AnotherGateway(other.to_string())
            }
        }
    }
}
