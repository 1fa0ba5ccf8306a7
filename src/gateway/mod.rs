//! new-api as a source of facts: what can be asked, in our own words, and what can go wrong. No storage and no actor is
//! known here; when to ask, and what to do with the answers, is decided elsewhere.
//!
//! [`HttpGateway`] asks over HTTP; a test may answer in its place. [`Reading`] makes whole seconds out of pages.

mod answer;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod ids;
mod log_page;
mod pace;
mod pass;
mod reading;
mod request;
mod row;
mod window;

#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests_http;
#[cfg(test)]
mod tests_reading;
#[cfg(test)]
mod tests_retry;

use async_trait::async_trait;

pub use error::GatewayError;
pub use http::HttpGateway;
pub use ids::IdEvidence;
pub use log_page::{Dialect, LogPage};
pub use reading::{Ids, Piece, Reading, ReadingError};
pub use request::{Endpoint, REQUESTS, RequestStatus};
pub use row::UnreadableRow;
pub use window::Window;

use crate::domain::log_row::RowKind;
use crate::domain::money::QuotaPerUnit;
use crate::domain::time::UnixMillis;

/// What a gateway answers. Each call waits for its turn (`newapi.requests_per_second`, over all callers) and is tried
/// again after a failure that may pass, so that it takes long at times, but never for ever.
#[async_trait]
pub trait Gateway: Send + Sync {
    /// Version and price unit; needs no authentication, so that it tells nothing about the token.
    async fn status(&self) -> Result<GatewayStatus, GatewayError>;

    /// What new-api's options say of webhook and log. Needs the root user: [`GatewayError::NotRoot`] is no fault of the
    /// log, which an administrator can read as well.
    async fn options(&self) -> Result<GatewayOptions, GatewayError>;

    /// The page with this number, from 0, of the rows of this kind in this window, newest first. Each row of it was
    /// checked against what was asked.
    ///
    /// A window of several seconds that took too long is not asked for again: a shorter one helps, a repeat does not.
    async fn page(&self, window: Window, kind: RowKind, number: u32) -> Result<LogPage, GatewayError>;

    /// Sum of the quota units of all type-2 rows in the window, those of nobody's tokens among them. 0 proves nothing:
    /// older versions say it when their database fails.
    async fn quota_sum(&self, window: Window) -> Result<i64, GatewayError>;

    /// How many rows of this kind the window has. None: this version does not tell.
    async fn count(&self, window: Window, kind: RowKind) -> Result<Option<u64>, GatewayError>;
}

/// `GET /api/status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Empty if not told.
    pub version: String,
    pub quota_per_unit: StatedQuota,
    /// When this process of new-api started, in Unix seconds.
    pub started_at_second: Option<i64>,
    /// The source's clock, by the `Date` of its answer.
    pub source_time: Option<UnixMillis>,
}

/// What new-api says one US dollar is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatedQuota {
    /// This version does not say.
    Absent,
    Stated(QuotaPerUnit),
    /// It says what no price can be computed with, as written.
    Unusable(String),
}

/// What matters of `GET /api/option/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayOptions {
    /// Where webhooks go. None: the option is not there or empty, and none are sent.
    pub webhook_url: Option<String>,
    /// Whether consumption is logged at all. None: not said.
    pub log_consume_enabled: Option<bool>,
}
