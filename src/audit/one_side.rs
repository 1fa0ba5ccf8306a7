//! What only new-api's log has, or only the books, in words.

use super::charges::second_text;
use super::report::{Difference, DifferenceKind};
use crate::domain::log_row::{LogRow, RowIdentity};
use crate::domain::money::FEMTOS_PER_CREDIT;
use crate::storage::audit::{LoneEvent, ReadRow};

pub fn missing(id: &RowIdentity, row: &LogRow) -> Difference {
    let at = second_text(row.second);
    let (token, model, units) = (row.token.get(), &row.model, row.quota_units);
    let (kind, what) = match row.is_refund() {
        false => (DifferenceKind::CallMissing, "a call"),
        true => (DifferenceKind::RefundMissing, "a refund"),
    };
    let says = format!(
        "new-api's log has {what} of {at} of the token {token}, model {model}, {units} quota units, {} + {} tokens, that is \
         not known here.",
        row.prompt_tokens, row.completion_tokens
    );
    let subject = format!("row:{}:{}:{}", id.second, id.digest.as_str(), id.number);
    Difference::new(kind, None, Some(&subject), 0).since(Some(at)).saying(says)
}

pub fn deleted(row: &ReadRow) -> Difference {
    let at = second_text(row.second);
    let charge = match &row.claim_id {
        Some(claim) => format!("it is that of the charge {claim}"),
        None => format!("it is {} here", row.state),
    };
    let what = if row.is_refund { "refund" } else { "row" };
    let says = format!("A {what} of {at} of {} quota units is no longer in new-api's log; {charge}.", row.units);
    let subject = row.claim_id.clone().unwrap_or_else(|| format!("row:{}:{}:{}", row.second, row.digest, row.number));
    Difference::new(DifferenceKind::RowDeleted, row.user_id.as_deref(), Some(&subject), 0).since(Some(at)).saying(says)
}

pub fn without_row(event: &LoneEvent) -> Difference {
    let at = second_text(event.call_second);
    let (event_id, claim, moved) = (&event.event_id, &event.claim_id, event.moved);
    let says = format!(
        "The charge {claim} of {moved} credits for the call of {at} is of the event {event_id}, and new-api's log has no row \
         of that call."
    );
    let femtos = i128::from(-moved) * FEMTOS_PER_CREDIT;
    let kind = DifferenceKind::CallWithoutRow;
    Difference::new(kind, Some(&event.user_id), Some(claim), femtos).since(Some(at)).saying(says)
}
