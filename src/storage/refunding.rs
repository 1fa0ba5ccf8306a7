//! From what a person asks to give back to what the ledger is to book, and to words about what came of it. The same for
//! every database; what may be given back is decided in `domain::refund`.

use std::sync::Arc;

use super::books::{Books, BooksError, bounded};
use super::charges::{ChargeSelector, NewRefund, NewReversal, Refunded, ReversalPlace, Reversed};
use crate::domain::ids::RecordId;
use crate::domain::money::{CreditFemtos, QuotaUnits};
use crate::domain::refund::{
    ChargeKey, Refund, RefundAmount, RefundOrigin, RefundOutcome, RefundRefusal, RefundRequest,
};

/// Charges that a reversal gives back in one transaction.
const REVERSAL_PAGE: usize = 256;

/// What is left of a column of 191 characters beside a charge's id.
const LONGEST_REVERSAL_KEY: usize = 150;

/// Gives one charge back, whole or in part.
pub async fn refund(store: &dyn Books, new: NewRefund) -> Result<Refunded, BooksError> {
    let reason = bounded("reason", &new.reason)?.to_owned();
    let amount = match (&new.amount, new.quota) {
        (None, None) => RefundAmount::Rest,
        (Some(text), None) => {
            let refused = |_| BooksError::Invalid(format!("the amount {text} is no decimal with at most 15 places"));
            let amount = CreditFemtos::parse(text).map_err(refused)?;
            if amount == CreditFemtos::ZERO {
                return Err(BooksError::Invalid("the amount must be above 0".to_owned()));
            }
            RefundAmount::Credits(amount)
        }
        (None, Some(units)) => match QuotaUnits::new(units).filter(|units| units.get() > 0) {
            Some(units) => RefundAmount::Quota(units),
            None => return Err(BooksError::Invalid("the quota must be above 0".to_owned())),
        },
        (Some(_), Some(_)) => return Err(BooksError::Invalid("name an amount or a quota, not both".to_owned())),
    };
    let idempotency_key = match (&new.idempotency_key, amount) {
        (Some(key), _) => bounded("idempotency key", key)?.to_owned(),
        // All that is left can be given back once: the charge itself is the key.
        (None, RefundAmount::Rest) => format!("all of {}", new.charge),
        (None, _) => {
            let message = "a part needs an idempotency key, so that a repeat gives nothing twice";
            return Err(BooksError::Invalid(message.to_owned()));
        }
    };
    let charge = store.charge_key(ChargeSelector::Id(new.charge.clone())).await?;
    let request = RefundRequest {
        charge,
        amount,
        origin: RefundOrigin::Operator,
        idempotency_key: Arc::from(idempotency_key.as_str()),
        reason: Arc::from(reason.as_str()),
    };
    let outcome = store.refund(vec![request], false).await?.pop();
    let (refund, repeated) = match outcome {
        Some(RefundOutcome::Refunded(refund)) => (refund, false),
        Some(RefundOutcome::Repeated(refund)) => (refund, true),
        Some(RefundOutcome::Refused(refusal)) => return Err(refused(refusal, &new.charge, &idempotency_key)),
        None => return Err(BooksError::NoSuchCharge(ChargeSelector::Id(new.charge))),
    };
    Ok(refunded(refund, repeated))
}

fn refunded(refund: Refund, repeated: bool) -> Refunded {
    let remainder = |remainder| CreditFemtos::from_parts(0, remainder).unwrap_or_default().to_string();
    Refunded {
        id: refund.id.to_string(),
        charge: refund.charge.id.to_string(),
        user_id: refund.user_id.to_string(),
        amount: refund.amount.to_string(),
        credits: refund.credits.get(),
        unpaid_lowered: refund.unpaid_lowered.get(),
        remainder_before: remainder(refund.remainder_before),
        remainder_after: remainder(refund.remainder_after),
        balance: refund.balance_after.get(),
        repeated,
    }
}

fn refused(refusal: RefundRefusal, charge: &str, idempotency_key: &str) -> BooksError {
    match refusal {
        RefundRefusal::KeyConflict => BooksError::IdempotencyConflict(idempotency_key.to_owned()),
        RefundRefusal::NoUser => BooksError::UserGone(charge.to_owned()),
        RefundRefusal::NothingLeft => BooksError::NothingLeft(charge.to_owned()),
        RefundRefusal::MoreThanLeft(left) => {
            BooksError::MoreThanLeft { charge: charge.to_owned(), left: left.to_string() }
        }
        RefundRefusal::NotPricedInQuota => {
            BooksError::Invalid(format!("the charge {charge} was priced in credits: name an amount, not a quota"))
        }
        RefundRefusal::TooLarge => BooksError::Invalid("the amount is larger than the books can hold".to_owned()),
        RefundRefusal::NoSuchCharge => BooksError::NoSuchCharge(ChargeSelector::Id(charge.to_owned())),
    }
}

/// Gives back one page of the selected charges, each as far as it was not given back yet.
pub async fn reverse(store: &dyn Books, new: NewReversal) -> Result<Reversed, BooksError> {
    let NewReversal { filter, reason, idempotency_key, dry_run, after } = new;
    if filter.is_empty() {
        return Err(BooksError::Invalid("a reversal must select: by user, key, remote id, model or time".to_owned()));
    }
    let reason: Arc<str> = Arc::from(bounded("reason", &reason)?);
    let idempotency_key = bounded("idempotency key", &idempotency_key)?.to_owned();
    if idempotency_key.chars().count() > LONGEST_REVERSAL_KEY {
        let message = format!("the idempotency key must have at most {LONGEST_REVERSAL_KEY} characters");
        return Err(BooksError::Invalid(message));
    }
    let begun = store.begin_reversal(filter.clone(), reason.clone(), &idempotency_key, dry_run).await?;
    let Some(settled_until) = begun else {
        return Ok(Reversed { amount: CreditFemtos::ZERO.to_string(), ..Reversed::default() });
    };
    let after = match after {
        Some(place) => Some(ChargeKey {
            call_second: place.call_second,
            id: RecordId::parse(&place.id).map_err(|error| BooksError::Invalid(error.to_string()))?,
        }),
        None => None,
    };
    let page = store.reversible(filter, settled_until, after, REVERSAL_PAGE).await?;
    let next = page.last().filter(|_| page.len() == REVERSAL_PAGE);
    let next = next.map(|key| ReversalPlace { call_second: key.call_second, id: key.id.to_string() });
    let request = |charge: ChargeKey| RefundRequest {
        idempotency_key: Arc::from(format!("{idempotency_key}/{}", charge.id).as_str()),
        charge,
        amount: RefundAmount::Rest,
        origin: RefundOrigin::Reversal,
        reason: reason.clone(),
    };
    let requests: Vec<RefundRequest> = page.into_iter().map(request).collect();
    let outcomes = if requests.is_empty() { Vec::new() } else { store.refund(requests, dry_run).await? };
    let mut reversed = Reversed { next, ..Reversed::default() };
    let mut amount = CreditFemtos::ZERO;
    for outcome in outcomes {
        match outcome {
            RefundOutcome::Refunded(refund) => {
                reversed.charges += 1;
                reversed.credits += refund.credits.get();
                reversed.unpaid_lowered += refund.unpaid_lowered.get();
                amount = amount.checked_add(refund.amount).unwrap_or(amount);
            }
            // Another run beside this one gave it back in between.
            RefundOutcome::Repeated(_)
            | RefundOutcome::Refused(RefundRefusal::NothingLeft | RefundRefusal::NoSuchCharge) => {}
            RefundOutcome::Refused(_) => reversed.refused += 1,
        }
    }
    reversed.amount = amount.to_string();
    if reversed.next.is_none() && !dry_run {
        // Later charges are not part of it, whatever a clock says of when they were booked.
        store.finish_reversal(&idempotency_key).await?;
    }
    Ok(reversed)
}
