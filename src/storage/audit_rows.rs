//! What an audit looks at: rows of the books with what they refer to, from columns in the order of each store's statements;
//! the same for every database. Figures are plain numbers, since they may be wrong.

use super::StoreError;
use super::decode::BookRow;
use crate::domain::money::FEMTOS_PER_CREDIT;
use crate::domain::time::UnixMillis;

/// What holds for a whole look.
#[derive(Debug, Clone, Default)]
pub struct AuditFrame {
    /// The newest charge: younger ones are left to the next audit.
    pub newest_charge: String,
    pub newest_refund: String,
    /// Claims of before this second may be cleared.
    pub remembered_from_second: Option<i64>,
    /// Some were cleared by a version that did not sum them.
    pub has_unsummed: bool,
    pub installation: String,
    /// How ids of ours end; none: nobody else writes here.
    pub id_mark: Option<String>,
}

/// A claim's place among the claims.
#[derive(Debug, Clone, Default)]
pub struct ClaimPlace {
    pub call_second: i64,
    pub id: String,
}

/// A claim, and what it refers to, as of one instant.
#[derive(Debug, Clone)]
pub struct AuditedClaim {
    pub call_second: i64,
    pub id: String,
    pub is_adopted: bool,
    pub event: Option<(i64, String)>,
    pub row: Option<ClaimedRow>,
    /// A tie may have changed its price after it was charged.
    pub may_be_corrected: bool,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub price_units: Option<i64>,
    pub price_femtos: i128,
    pub rate_micros: i64,
    pub quota_per_unit: i64,
    pub user_id: String,
    pub key_id: String,
    pub moved: i64,
    pub unpaid: i64,
    pub remainder_before: i64,
    pub remainder_after: i64,
    pub rounding: Option<String>,
    pub has_user: bool,
    pub has_key: bool,
    pub record: Option<AuditedRecord>,
}

/// The usage record of a claim.
#[derive(Debug, Clone)]
pub struct AuditedRecord {
    pub second: i64,
    pub key_id: String,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub credits: i64,
}

/// The row that a claim names, and whose it is among the rows that were read.
#[derive(Debug, Clone)]
pub struct ClaimedRow {
    pub source: String,
    pub second: i64,
    pub digest: String,
    pub number: i64,
    /// None: it is not among the rows that were read.
    pub state: Option<String>,
    pub claim_id: Option<String>,
}

impl AuditedClaim {
    /// Columns: second, id, source, event id and milliseconds, the row's source, second, digest, number, tie rule, prompt,
    /// completion, units, credits, femtos, rate, quota per unit, user, key, moved, unpaid, remainder before and after,
    /// rounding, user there, key there, the record's second, key, prompt, completion, credits, the row's state and claim.
    pub fn read(row: &impl BookRow) -> Result<Self, StoreError> {
        let event = match (row.optional_number(4)?, row.optional_text(3)?) {
            (Some(at), Some(id)) => Some((at, id)),
            _ => None,
        };
        let claimed_row = match row.optional_text(5)? {
            None => None,
            Some(source) => Some(ClaimedRow {
                source,
                second: row.optional_number(6)?.unwrap_or_default(),
                digest: row.optional_text(7)?.unwrap_or_default(),
                number: row.optional_number(8)?.unwrap_or_default(),
                state: row.optional_text(31)?,
                claim_id: row.optional_text(32)?,
            }),
        };
        let record = match row.optional_text(27)? {
            None => None,
            Some(key_id) => Some(AuditedRecord {
                second: row.number(26)?,
                key_id,
                prompt_tokens: row.number(28)?,
                completion_tokens: row.number(29)?,
                credits: row.number(30)?,
            }),
        };
        let rule = row.optional_text(9)?;
        Ok(AuditedClaim {
            call_second: row.number(0)?,
            id: row.text(1)?,
            is_adopted: row.text(2)? == "adopted",
            event,
            row: claimed_row,
            may_be_corrected: rule.is_some_and(|rule| ["identity", "nearest", "person"].contains(&rule.as_str())),
            prompt_tokens: row.number(10)?,
            completion_tokens: row.number(11)?,
            price_units: row.optional_number(12)?,
            price_femtos: femtos(row.number(13)?, row.number(14)?),
            rate_micros: row.number(15)?,
            quota_per_unit: row.number(16)?,
            user_id: row.text(17)?,
            key_id: row.text(18)?,
            moved: row.number(19)?,
            unpaid: row.number(20)?,
            remainder_before: row.number(21)?,
            remainder_after: row.number(22)?,
            rounding: row.optional_text(23)?,
            has_user: row.flag(24)?,
            has_key: row.flag(25)?,
            record,
        })
    }
}

/// Whole credits and parts of one, in parts.
pub fn femtos(credits: i64, parts: i64) -> i128 {
    i128::from(credits) * FEMTOS_PER_CREDIT + i128::from(parts)
}

/// A usage record that no claim tells of.
#[derive(Debug, Clone)]
pub struct UnclaimedRecord {
    pub id: String,
    pub second: i64,
    pub user_id: Option<String>,
    pub credits: i64,
    pub raw_meta: Option<String>,
}

/// A refund, and what it refers to, as of one instant.
#[derive(Debug, Clone)]
pub struct AuditedRefund {
    pub id: String,
    pub claim_id: String,
    pub call_second: i64,
    pub user_id: String,
    pub has_user: bool,
    pub amount_femtos: i128,
    pub moved: i64,
    pub unpaid_lowered: i64,
    pub remainder_before: i64,
    pub remainder_after: i64,
    pub refunded_at: UnixMillis,
    pub transaction_id: Option<String>,
    pub transaction: Option<RefundTransaction>,
    pub has_claim: bool,
    /// Of its charge; none where that is gone or does not say.
    pub rounding: Option<String>,
}

/// What the transaction of a refund says.
#[derive(Debug, Clone)]
pub struct RefundTransaction {
    pub user_id: String,
    pub amount: i64,
    pub is_refund: bool,
    pub reference: Option<String>,
}

impl AuditedRefund {
    /// Columns: id, claim, second, user, user there, credits, femtos, moved, unpaid lowered, remainder before and after,
    /// when, transaction, its user, amount, whether it is a refund, its reference, the claim there, the claim's rounding.
    pub fn read(row: &impl BookRow) -> Result<Self, StoreError> {
        let transaction = match row.optional_text(13)? {
            None => None,
            Some(user_id) => Some(RefundTransaction {
                user_id,
                amount: row.number(14)?,
                is_refund: row.flag(15)?,
                reference: row.optional_text(16)?,
            }),
        };
        Ok(AuditedRefund {
            id: row.text(0)?,
            claim_id: row.text(1)?,
            call_second: row.number(2)?,
            user_id: row.text(3)?,
            has_user: row.flag(4)?,
            amount_femtos: femtos(row.number(5)?, row.number(6)?),
            moved: row.number(7)?,
            unpaid_lowered: row.number(8)?,
            remainder_before: row.number(9)?,
            remainder_after: row.number(10)?,
            refunded_at: UnixMillis::new(row.number(11)?),
            transaction_id: row.optional_text(12)?,
            transaction,
            has_claim: row.flag(17)?,
            rounding: row.optional_text(18)?,
        })
    }
}

/// A transaction's place: by user, oldest first.
#[derive(Debug, Clone)]
pub struct TransactionPlace {
    pub user_id: String,
    pub created_at: String,
    pub id: String,
}

/// A transaction, what it refers to, and what its user has, as of one instant.
#[derive(Debug, Clone)]
pub struct AuditedTransaction {
    pub place: TransactionPlace,
    pub kind: String,
    pub amount: i64,
    pub balance: i64,
    pub reference: Option<String>,
    pub has_record: bool,
    /// Of the record that it refers to; none: that has none.
    pub claim: Option<ClaimSource>,
    /// A refund of ours tells of it.
    pub is_known_refund: bool,
    /// None: the user has no row of balances.
    pub current_credits: Option<i64>,
}

/// Whose charge a claim tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimSource {
    Ours,
    /// Another program billed the call.
    Adopted,
}

impl AuditedTransaction {
    /// Columns: user, created, id, type, amount, balance, reference, record there, the claim's source, known as a refund,
    /// what the user has.
    pub fn read(row: &impl BookRow) -> Result<Self, StoreError> {
        let source = row.optional_text(8)?;
        let claim = source.map(|source| if source == "adopted" { ClaimSource::Adopted } else { ClaimSource::Ours });
        Ok(AuditedTransaction {
            place: TransactionPlace { user_id: row.text(0)?, created_at: row.text(1)?, id: row.text(2)? },
            kind: row.text(3)?,
            amount: row.number(4)?,
            balance: row.number(5)?,
            reference: row.optional_text(6)?,
            has_record: row.flag(7)?,
            claim,
            is_known_refund: row.flag(9)?,
            current_credits: row.optional_number(10)?,
        })
    }
}

/// What a user owes by his account, and what came after the frame, as of one instant.
#[derive(Debug, Clone)]
pub struct AuditedAccount {
    pub user_id: String,
    pub remainder: i64,
    pub unpaid: i64,
    /// What claims that were cleared had changed.
    pub cleared_femtos: i128,
    pub cleared_unpaid: i64,
    /// What charges and refunds after the frame changed.
    pub since_femtos: i128,
    pub since_unpaid: i64,
}

impl AuditedAccount {
    /// Columns: user, remainder, unpaid, cleared credits, femtos and unpaid, credits since, thousand millions of femtos and
    /// the rest since, unpaid since.
    pub fn read(row: &impl BookRow) -> Result<Self, StoreError> {
        let since = femtos(row.number(6)?, row.number(8)?) + i128::from(row.number(7)?) * 1_000_000_000;
        Ok(AuditedAccount {
            user_id: row.text(0)?,
            remainder: row.number(1)?,
            unpaid: row.number(2)?,
            cleared_femtos: femtos(row.number(3)?, row.number(4)?),
            cleared_unpaid: row.number(5)?,
            since_femtos: since,
            since_unpaid: row.number(9)?,
        })
    }
}

/// A row that was read, as an audit compares it with the source.
#[derive(Debug, Clone)]
pub struct ReadRow {
    pub second: i64,
    pub digest: String,
    pub number: i64,
    pub state: String,
    pub claim_id: Option<String>,
    pub user_id: Option<String>,
    pub units: i64,
    pub is_refund: bool,
}

impl ReadRow {
    /// Columns: second, digest, number, state, claim, user, units, whether it is a refund.
    pub fn read(row: &impl BookRow) -> Result<Self, StoreError> {
        Ok(ReadRow {
            second: row.number(0)?,
            digest: row.text(1)?,
            number: row.number(2)?,
            state: row.text(3)?,
            claim_id: row.optional_text(4)?,
            user_id: row.optional_text(5)?,
            units: row.number(6)?,
            is_refund: row.flag(7)?,
        })
    }
}

/// A charge of an event of which no row tells.
#[derive(Debug, Clone)]
pub struct LoneEvent {
    pub call_second: i64,
    pub claim_id: String,
    pub event_id: String,
    pub remote_key_id: i64,
    pub model: String,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub units: Option<i64>,
    pub user_id: String,
    pub moved: i64,
}

impl LoneEvent {
    /// Columns: second, id, event, token, model, prompt, completion, units, user, moved.
    pub fn read(row: &impl BookRow) -> Result<Self, StoreError> {
        Ok(LoneEvent {
            call_second: row.number(0)?,
            claim_id: row.text(1)?,
            event_id: row.text(2)?,
            remote_key_id: row.number(3)?,
            model: row.text(4)?,
            prompt_tokens: row.number(5)?,
            completion_tokens: row.number(6)?,
            units: row.optional_number(7)?,
            user_id: row.text(8)?,
            moved: row.number(9)?,
        })
    }
}

/// Rows of one second and token that nobody here pays for.
#[derive(Debug, Clone)]
pub struct UnownedSecond {
    pub second: i64,
    pub remote_key_id: i64,
    pub rows: i64,
    pub refunds: i64,
}
