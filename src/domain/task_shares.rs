//! How a refund in quota units is spread over the charges of its task: pure arithmetic, which books nothing.

use super::money::{CreditFemtos, QuotaUnits};
use super::refund::{BookedCharge, ChargeKey};
use super::task_refunds::StaysOpen;

/// Shares of a price are rounded by themselves; so much may be missing or left over when they are put together.
const ROUNDED_FEMTOS: i128 = 16;

/// A charge of a group, and its price in quota units: of one priced in credits, what its row says.
pub(super) type GroupCharge = (ChargeKey, BookedCharge, Option<QuotaUnits>);

/// How much of each charge goes back, so that all together it is these units.
pub(super) fn parts(units: QuotaUnits, charges: &[GroupCharge]) -> Result<Vec<(ChargeKey, CreditFemtos)>, StaysOpen> {
    let mut room = CreditFemtos::ZERO;
    for (_, charge, _) in charges {
        room = room.checked_add(charge.left()).map_err(|_| StaysOpen::TooLarge)?;
    }
    if room == CreditFemtos::ZERO {
        return Err(StaysOpen::NotEnough);
    }
    let all: Option<i64> = charges.iter().try_fold(0_i64, |sum, (.., units)| sum.checked_add((*units)?.get()));
    let is_whole = charges.iter().all(|(_, charge, _)| charge.refunded == CreditFemtos::ZERO);
    let asked = if is_whole && all == Some(units.get()) { room } else { in_credits(units, charges)? };
    // A last share takes what roundings of the earlier ones have left.
    let mut left = if (asked.get() - room.get()).abs() <= ROUNDED_FEMTOS { room } else { asked };
    if left > room {
        return Err(StaysOpen::NotEnough);
    }
    let mut parts = Vec::new();
    for (key, charge, _) in charges {
        let part = charge.left().min(left);
        left = left.checked_sub(part).map_err(|_| StaysOpen::TooLarge)?;
        if part > CreditFemtos::ZERO {
            parts.push((key.clone(), part));
        }
    }
    Ok(parts)
}

/// What the units are at the charges' own rate; of a charge priced in credits, the share that they are of its row.
fn in_credits(units: QuotaUnits, charges: &[GroupCharge]) -> Result<CreditFemtos, StaysOpen> {
    let (_, first, row_units) = charges.first().ok_or(StaysOpen::NotBooked)?;
    let amount = match (charges, first.price.units) {
        ([_], Some(all)) if all == units => Ok(first.price.credits),
        ([_], None) => first.price.credits.share(units, row_units.ok_or(StaysOpen::NoAmount)?),
        (charges, Some(_)) => {
            let has_rate = |other: &BookedCharge| {
                let (price, other) = (&first.price, &other.price);
                other.units.is_some() && other.rate == price.rate && other.quota_per_unit == price.quota_per_unit
            };
            if !charges.iter().all(|(_, other, _)| has_rate(other)) {
                return Err(StaysOpen::Differ);
            }
            first.price.of_units(units)
        }
        (_, None) => return Err(StaysOpen::Differ),
    };
    amount.map_err(|_| StaysOpen::TooLarge)
}
