//! The looks of an audit, as each store reads in pages, and differences that a person knows of.
//!
//! No SQL and no judgement here: what must agree is decided in `audit`.

use std::collections::HashMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::StoreError;
pub use super::audit_rows::{
    AuditFrame, AuditedAccount, AuditedClaim, AuditedRecord, AuditedRefund, AuditedTransaction, ClaimPlace,
    ClaimSource, ClaimedRow, LoneEvent, ReadRow, RefundTransaction, TransactionPlace, UnclaimedRecord, UnownedSecond,
    femtos,
};
use super::books::{BooksError, bounded};
use super::log::SourceFilter;

/// A difference that a person knows of.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewAcceptance {
    /// As the audit lists it: 16 hex digits.
    pub id: String,
    /// Why it is no matter, for whoever audits later.
    pub reason: String,
}

/// A difference that stays listed, and no longer counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedDifference {
    /// As the audit lists it.
    pub id: String,
    /// Why it is no matter.
    pub reason: String,
    /// When it was accepted, UTC.
    pub accepted_at: String,
}

impl NewAcceptance {
    /// The same, if it can be kept.
    pub fn checked(self) -> Result<Self, BooksError> {
        let id = self.id.trim().to_lowercase();
        if id.len() != DIFFERENCE_ID_DIGITS || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let says =
                format!("{:?} is no id of a difference: `hookledger audit` lists them, 16 hex digits each", self.id);
            return Err(BooksError::Invalid(says));
        }
        let reason = bounded("reason", &self.reason)?.to_owned();
        Ok(NewAcceptance { id, reason })
    }
}

/// Hex digits of a difference's id.
pub const DIFFERENCE_ID_DIGITS: usize = 16;

/// The looks of an audit. Each is one short statement on a reading connection.
#[async_trait]
pub trait AuditStore: Send + Sync + 'static {
    async fn audit_frame(&self) -> Result<AuditFrame, StoreError>;

    /// In the order of the calls, at most `limit`, behind `after`.
    async fn audited_claims(&self, after: &ClaimPlace, limit: u32) -> Result<Vec<AuditedClaim>, StoreError>;

    /// Looks through a page of usage records: those without a claim, and where the next page begins.
    async fn unclaimed_records(
        &self,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<UnclaimedRecord>, Option<String>), StoreError>;

    /// In the order of their ids, at most `limit`, behind `after`.
    async fn audited_refunds(&self, after: &str, limit: u32) -> Result<Vec<AuditedRefund>, StoreError>;

    /// By user, oldest first, at most `limit`, behind `after`.
    async fn audited_transactions(
        &self,
        after: Option<&TransactionPlace>,
        limit: u32,
    ) -> Result<Vec<AuditedTransaction>, StoreError>;

    /// Users who have credits, or owe some, and no transaction at all, where nobody else writes. At most `limit`.
    async fn untold_balances(&self, limit: u32) -> Result<Vec<(String, i64)>, StoreError>;

    /// Users of whom an account is kept, in the order of their ids, at most `limit`, behind `after`; and whether they are
    /// still there.
    async fn account_users(&self, after: &str, limit: u32) -> Result<Vec<(String, bool)>, StoreError>;

    /// The accounts of these users.
    async fn audited_accounts(&self, frame: &AuditFrame, users: &[String]) -> Result<Vec<AuditedAccount>, StoreError>;

    /// Of these users, those who are there.
    async fn emails(&self, users: &[String]) -> Result<HashMap<String, String>, StoreError>;

    async fn accepted_differences(&self) -> Result<Vec<AcceptedDifference>, StoreError>;

    /// Keeps that a person knows of a difference; the newest reason holds.
    async fn accept_difference(&self, new: NewAcceptance) -> Result<AcceptedDifference, BooksError>;

    /// Rows of a source that were read in this span, at most `limit`.
    async fn read_rows(
        &self,
        of: &SourceFilter,
        from_second: i64,
        until_second: i64,
        limit: u32,
    ) -> Result<Vec<ReadRow>, StoreError>;

    /// Looks through a page of charges, of calls of up to `until_second`, behind `after`: those of events without a row, and
    /// where the next page begins.
    async fn lone_events(
        &self,
        after: &ClaimPlace,
        until_second: i64,
        limit: u32,
    ) -> Result<(Vec<LoneEvent>, Option<ClaimPlace>), StoreError>;

    /// Rows of a source that nobody here pays for, in this span.
    async fn unowned_seconds(
        &self,
        of: &SourceFilter,
        from_second: i64,
        until_second: i64,
    ) -> Result<Vec<UnownedSecond>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_audit_lists_can_be_accepted() {
        let accept = |id: &str, reason: &str| {
            NewAcceptance { id: id.to_owned(), reason: reason.to_owned() }.checked().map(|new| new.id)
        };
        assert_eq!(accept(" 0123456789ABCDEF ", "known").unwrap(), "0123456789abcdef");
        for (id, reason) in [("", "known"), ("0123", "known"), ("0123456789abcdeg", "known"), ("0123456789abcdef", "")]
        {
            assert!(matches!(accept(id, reason), Err(BooksError::Invalid(_))), "{id:?} {reason:?}");
        }
    }
}
