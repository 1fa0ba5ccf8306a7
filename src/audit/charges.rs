//! What one charge or one refund must say by itself: pure, from what was read of it at one instant.

use super::report::{Difference, DifferenceKind};
use crate::domain::money::{CreditFemtos, FEMTOS_PER_CREDIT, QuotaPerUnit, QuotaUnits, Rate, Remainder};
use crate::domain::pricing::{ExactPrice, Rounding};
use crate::domain::time::UnixMillis;
use crate::storage::audit::{AuditedClaim, AuditedRefund};

/// What a charge is to the sums of its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its user and all his books are gone.
    NoUser,
    /// Its usage record went with its key.
    Erased,
    /// Another program billed the call.
    Adopted,
    Whole,
}

pub fn standing(claim: &AuditedClaim) -> Standing {
    match claim {
        AuditedClaim { has_user: false, .. } => Standing::NoUser,
        AuditedClaim { is_adopted: true, .. } => Standing::Adopted,
        AuditedClaim { record: None, has_key: false, .. } => Standing::Erased,
        _ => Standing::Whole,
    }
}

/// How it changed what is owed below one credit; nothing where it was rounded by itself.
pub fn owed_femtos(claim: &AuditedClaim) -> i128 {
    match is_carried(claim) {
        true => claim.price_femtos - i128::from(claim.moved + claim.unpaid) * FEMTOS_PER_CREDIT,
        false => 0,
    }
}

/// Where it does not say how it was rounded, its figures tell.
fn is_carried(claim: &AuditedClaim) -> bool {
    match claim.rounding.as_deref().and_then(Rounding::parse) {
        Some(rounding) => rounding == Rounding::Carry,
        None => claim.remainder_before != claim.remainder_after,
    }
}

/// What is wrong with a charge of ours.
pub fn differences(claim: &AuditedClaim) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut tell = |kind, credits: i64, says: String| {
        let femtos = i128::from(credits) * FEMTOS_PER_CREDIT;
        let difference = Difference::new(kind, Some(&claim.user_id), Some(&claim.id), femtos);
        found.push(difference.since(Some(second_text(claim.call_second))).saying(says));
    };
    match record_problem(claim) {
        None => {}
        Some((kind, credits, problem)) => tell(kind, credits, format!("{} {problem}", charge_text(claim))),
    }
    if let Some(problem) = figures_problem(claim) {
        tell(DifferenceKind::ClaimDiffers, 0, format!("{} {problem}", charge_text(claim)));
    }
    if let Some(row) = &claim.row {
        let place = format!("row {} no. {} of {}", row.digest, row.number, second_text(row.second));
        match (&row.state, &row.claim_id) {
            (None, _) => {
                let says =
                    format!("{} names the {place}, which is not among the rows that were read.", charge_text(claim));
                tell(DifferenceKind::RowUnknown, 0, says);
            }
            (Some(_), Some(other)) if *other == claim.id => {}
            (Some(state), other) => {
                let whose = match other {
                    Some(other) => format!("which is that of the charge {other}: one call, charged twice."),
                    None => format!("which is {state} and belongs to no charge."),
                };
                let says = format!("{} names the {place}, {whose}", charge_text(claim));
                tell(DifferenceKind::RowChargedTwice, -claim.moved, says);
            }
        }
    }
    found
}

pub fn charge_text(claim: &AuditedClaim) -> String {
    format!("The charge {} of {} credits for the call of {}", claim.id, claim.moved, second_text(claim.call_second))
}

fn record_problem(claim: &AuditedClaim) -> Option<(DifferenceKind, i64, String)> {
    let Some(record) = &claim.record else {
        let says = "has no usage record, while its user and key are there.";
        return claim.has_key.then(|| (DifferenceKind::RecordMissing, 0, says.to_owned()));
    };
    let mut problems = Vec::new();
    if record.credits != claim.moved {
        problems.push(format!("{} credits", record.credits));
    }
    if record.key_id != claim.key_id {
        problems.push(format!("the key {} instead of {}", record.key_id, claim.key_id));
    }
    if (record.prompt_tokens, record.completion_tokens) != (claim.prompt_tokens, claim.completion_tokens) {
        let (prompt, completion) = (record.prompt_tokens, record.completion_tokens);
        let (asked, answered) = (claim.prompt_tokens, claim.completion_tokens);
        problems.push(format!("{prompt} + {completion} tokens instead of {asked} + {answered}"));
    }
    if record.second != claim.call_second {
        problems.push(format!("the time {}", second_text(record.second)));
    }
    let says = format!("has a usage record that says {}.", problems.join(", "));
    (!problems.is_empty()).then(|| (DifferenceKind::RecordDiffers, record.credits - claim.moved, says))
}

/// Whether price, rate and what moved add up.
fn figures_problem(claim: &AuditedClaim) -> Option<String> {
    let priced = claim.price_units.map(|units| priced(claim, units));
    if priced.is_some_and(|priced| priced != Some(claim.price_femtos)) {
        return Some("states a price that is not its units at its rate.".to_owned());
    }
    let (before, after) = (i128::from(claim.remainder_before), i128::from(claim.remainder_after));
    let taken = i128::from(claim.moved + claim.unpaid) * FEMTOS_PER_CREDIT;
    let carried = claim.price_femtos + before == taken + after;
    let nearest = before == after && nearest(claim.price_femtos) == Some(claim.moved + claim.unpaid);
    let adds_up = match claim.rounding.as_deref().and_then(Rounding::parse) {
        // What a tie corrected went through the remainder later.
        Some(Rounding::Carry) => carried || claim.may_be_corrected,
        Some(Rounding::Nearest) => nearest,
        None => carried || nearest || claim.may_be_corrected,
    };
    (!adds_up).then(|| {
        let price = super::report::credits_text(claim.price_femtos);
        format!("costs {price} credits, and moved {} with {} unpaid.", claim.moved, claim.unpaid)
    })
}

fn priced(claim: &AuditedClaim, units: i64) -> Option<i128> {
    let rate = Rate::from_micros(claim.rate_micros)?;
    let quota_per_unit = QuotaPerUnit::new(claim.quota_per_unit)?;
    let price = ExactPrice { units: None, credits: CreditFemtos::ZERO, rate, quota_per_unit };
    price.of_units(QuotaUnits::new(units)?).ok().map(CreditFemtos::get)
}

fn nearest(femtos: i128) -> Option<i64> {
    let whole = i64::try_from(femtos / FEMTOS_PER_CREDIT).ok()?;
    let part = i64::try_from(femtos % FEMTOS_PER_CREDIT).ok()?;
    let rounded = CreditFemtos::from_parts(whole, Remainder::new(part)?)?.to_nearest().ok()?;
    Some(rounded.get())
}

/// A refund that a repair made again knows the whole credits only.
pub fn is_rebuilt(refund: &AuditedRefund) -> bool {
    refund.transaction_id.as_deref() == Some(refund.id.as_str())
}

/// What is wrong with a refund whose user is there.
pub fn refund_differences(refund: &AuditedRefund, remembered_from_second: Option<i64>) -> Vec<Difference> {
    let mut problems = Vec::new();
    match (&refund.transaction_id, &refund.transaction) {
        (None, _) if refund.moved == 0 => {}
        (None, _) | (Some(_), None) => problems.push("its transaction is gone".to_owned()),
        (Some(_), Some(told)) => {
            if told.amount != refund.moved {
                problems.push(format!("its transaction is of {} credits", told.amount));
            }
            if told.user_id != refund.user_id {
                problems.push(format!("its transaction is of the user {}", told.user_id));
            }
            if !told.is_refund || told.reference.as_deref() != Some(refund.claim_id.as_str()) {
                problems.push("its transaction is no refund of that charge".to_owned());
            }
        }
    }
    if !refund.has_claim && remembered_from_second.is_none_or(|from| refund.call_second >= from) {
        problems.push("the memory of its charge is gone".to_owned());
    }
    if !is_rebuilt(refund) && !adds_up(refund) {
        let amount = super::report::credits_text(refund.amount_femtos);
        problems.push(format!("it is of {amount} credits, and lowered what is unpaid by {}", refund.unpaid_lowered));
    }
    if problems.is_empty() {
        return Vec::new();
    }
    let moved = i128::from(refund.moved) * FEMTOS_PER_CREDIT;
    let difference = Difference::new(DifferenceKind::RefundDiffers, Some(&refund.user_id), Some(&refund.id), moved);
    let (id, claim, moved) = (&refund.id, &refund.claim_id, refund.moved);
    let says = format!("The refund {id} of the charge {claim} moved {moved} credits: {}.", problems.join(", "));
    vec![difference.since(Some(refund.refunded_at.to_column())).saying(says)]
}

fn adds_up(refund: &AuditedRefund) -> bool {
    let (before, after) = (i128::from(refund.remainder_before), i128::from(refund.remainder_after));
    let given = i128::from(refund.moved + refund.unpaid_lowered) * FEMTOS_PER_CREDIT;
    let carried = before + given == refund.amount_femtos + after;
    // The rounded price before it, less that after it.
    let nearest = before == after && (given - refund.amount_femtos).abs() < FEMTOS_PER_CREDIT;
    match refund.rounding.as_deref().and_then(Rounding::parse) {
        Some(Rounding::Carry) => carried,
        Some(Rounding::Nearest) => nearest,
        None => carried || nearest,
    }
}

pub fn second_text(second: i64) -> String {
    UnixMillis::new(second.saturating_mul(1000)).to_column()
}
