//! Decides what giving money back books: pure, from a snapshot read under the ledger's locks.
//!
//! Money goes back through the same remainder as it came, with the sign turned, so that a charge and its full refund
//! leave balance and remainder as they were. Never twice (idempotency keys), never more than was taken.

use std::collections::HashMap;
use std::sync::Arc;

use super::accounts::{Account, AccountChange, Movement, OpenAccounts, Transaction, TransactionKind};
use super::ids::{RecordId, RecordIds, UserId};
use super::money::{AmountTooLarge, CreditFemtos, Credits, QuotaUnits, Remainder};
use super::pricing::{ExactPrice, Rounding, credits_to_give_back};
use super::time::UnixMillis;

/// Names a charge: the second of its call and its id, which together are its place among the claims.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChargeKey {
    pub call_second: i64,
    pub id: RecordId,
}

/// Who asks for a refund. Idempotency keys are told apart by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefundOrigin {
    /// A person, for one charge.
    Operator,
    /// A person, for a selection of charges.
    Reversal,
    /// A row of new-api's log.
    Log,
}

impl RefundOrigin {
    const ALL: [RefundOrigin; 3] = [RefundOrigin::Operator, RefundOrigin::Reversal, RefundOrigin::Log];

    pub fn as_str(self) -> &'static str {
        match self {
            RefundOrigin::Operator => "operator",
            RefundOrigin::Reversal => "reversal",
            RefundOrigin::Log => "log",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        RefundOrigin::ALL.into_iter().find(|origin| origin.as_str() == text)
    }
}

/// How much is to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundAmount {
    /// All that was not given back yet.
    Rest,
    /// Credits, exact.
    Credits(CreditFemtos),
    /// Quota units, at the charge's own rate.
    Quota(QuotaUnits),
}

/// One refund that is asked for.
#[derive(Debug, Clone)]
pub struct RefundRequest {
    pub charge: ChargeKey,
    pub amount: RefundAmount,
    pub origin: RefundOrigin,
    pub idempotency_key: Arc<str>,
    pub reason: Arc<str>,
}

/// A charge as the books hold it, with what was given back of it.
#[derive(Debug, Clone)]
pub struct BookedCharge {
    pub user_id: UserId,
    /// The user is still there.
    pub has_user: bool,
    pub model: Arc<str>,
    pub price: ExactPrice,
    pub remainder_before: Remainder,
    pub remainder_after: Remainder,
    /// Absent in charges of earlier versions.
    pub rounding: Option<Rounding>,
    /// Exact sum of its refunds so far.
    pub refunded: CreditFemtos,
}

impl BookedCharge {
    /// What was not given back yet.
    pub fn left(&self) -> CreditFemtos {
        self.price.credits.checked_sub(self.refunded).unwrap_or_default()
    }
}

/// A refund that was booked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    pub id: RecordId,
    pub charge: ChargeKey,
    pub user_id: UserId,
    /// Exact amount.
    pub amount: CreditFemtos,
    /// Whole credits added to the balance.
    pub credits: Credits,
    /// Whole credits by which the unpaid amount was lowered instead.
    pub unpaid_lowered: Credits,
    pub remainder_before: Remainder,
    pub remainder_after: Remainder,
    pub balance_after: Credits,
    pub transaction_id: Option<RecordId>,
}

/// What an idempotency key was used for before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierRefund {
    pub charge: ChargeKey,
    /// Asked for was all that was left, not an amount.
    pub is_rest: bool,
    pub refund: Refund,
}

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundOutcome {
    /// Booked by this very commit.
    Refunded(Refund),
    /// The idempotency key had given this back before: nothing was added.
    Repeated(Refund),
    Refused(RefundRefusal),
}

/// Why nothing was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundRefusal {
    NoSuchCharge,
    /// The idempotency key was used for another charge or amount.
    KeyConflict,
    /// The user is gone, and his books with him.
    NoUser,
    /// Nothing is left to give back.
    NothingLeft,
    /// More than is left, which is this.
    MoreThanLeft(CreditFemtos),
    /// A part by quota of a charge that was priced in credits.
    NotPricedInQuota,
    /// The books cannot hold the amount.
    TooLarge,
}

/// What the books said of everything that the requests touch.
#[derive(Debug, Default)]
pub struct RefundSnapshot {
    pub charges: HashMap<ChargeKey, BookedCharge>,
    pub earlier: HashMap<(RefundOrigin, Arc<str>), EarlierRefund>,
    pub accounts: HashMap<UserId, Account>,
}

/// What to write, in one transaction or not at all.
#[derive(Debug, Clone, Default)]
pub struct RefundPlan {
    /// One for each request, in their order.
    pub outcomes: Vec<RefundOutcome>,
    /// With the request that each answers.
    pub refunds: Vec<(RefundRequest, Refund)>,
    pub transactions: Vec<Transaction>,
    pub accounts: Vec<AccountChange>,
}

/// Plans refunds in their order. `rounding` counts for charges that do not tell how they were rounded themselves.
pub fn plan_refunds(
    requests: &[RefundRequest],
    snapshot: RefundSnapshot,
    rounding: Rounding,
    now: UnixMillis,
    ids: &RecordIds,
) -> RefundPlan {
    let mut planner = RefundPlanner::new(snapshot, rounding, now, ids);
    for request in requests {
        let outcome = planner.refund(request).unwrap_or_else(RefundOutcome::Refused);
        planner.plan.outcomes.push(outcome);
    }
    planner.finish()
}

/// Books refunds one after the other.
#[derive(Clone)]
pub(super) struct RefundPlanner<'a> {
    charges: HashMap<ChargeKey, BookedCharge>,
    earlier: HashMap<(RefundOrigin, Arc<str>), EarlierRefund>,
    open_accounts: OpenAccounts,
    rounding: Rounding,
    now: UnixMillis,
    ids: &'a RecordIds,
    plan: RefundPlan,
}

impl<'a> RefundPlanner<'a> {
    pub(super) fn new(snapshot: RefundSnapshot, rounding: Rounding, now: UnixMillis, ids: &'a RecordIds) -> Self {
        let RefundSnapshot { charges, earlier, accounts } = snapshot;
        let open_accounts = OpenAccounts::new(accounts);
        RefundPlanner { charges, earlier, open_accounts, rounding, now, ids, plan: RefundPlan::default() }
    }

    /// A charge as it stands after what was planned so far.
    pub(super) fn charge(&self, key: &ChargeKey) -> Option<&BookedCharge> {
        self.charges.get(key)
    }

    pub(super) fn finish(self) -> RefundPlan {
        let mut plan = self.plan;
        plan.accounts = self.open_accounts.finish();
        plan
    }

    pub(super) fn refund(&mut self, request: &RefundRequest) -> Result<RefundOutcome, RefundRefusal> {
        let charge = self.charges.get(&request.charge).ok_or(RefundRefusal::NoSuchCharge)?.clone();
        let key = (request.origin, request.idempotency_key.clone());
        if let Some(earlier) = self.earlier.get(&key) {
            let is_same = earlier.charge == request.charge
                && match asked(request.amount, &charge)? {
                    Some(amount) => !earlier.is_rest && amount == earlier.refund.amount,
                    None => earlier.is_rest,
                };
            let refund = earlier.refund.clone();
            return if is_same { Ok(RefundOutcome::Repeated(refund)) } else { Err(RefundRefusal::KeyConflict) };
        }
        if !charge.has_user {
            return Err(RefundRefusal::NoUser);
        }
        let left = charge.left();
        if left == CreditFemtos::ZERO {
            return Err(RefundRefusal::NothingLeft);
        }
        let amount = asked(request.amount, &charge)?.unwrap_or(left);
        if amount > left {
            return Err(RefundRefusal::MoreThanLeft(left));
        }
        let refund = self.book(request, &charge, amount).map_err(|_: AmountTooLarge| RefundRefusal::TooLarge)?;
        if let Some(charge) = self.charges.get_mut(&request.charge) {
            charge.refunded = charge.refunded.checked_add(amount).map_err(|_| RefundRefusal::TooLarge)?;
        }
        let is_rest = request.amount == RefundAmount::Rest;
        let earlier = EarlierRefund { charge: request.charge.clone(), is_rest, refund: refund.clone() };
        self.earlier.insert(key, earlier);
        self.plan.refunds.push((request.clone(), refund.clone()));
        Ok(RefundOutcome::Refunded(refund))
    }

    fn book(
        &mut self,
        request: &RefundRequest,
        charge: &BookedCharge,
        amount: CreditFemtos,
    ) -> Result<Refund, AmountTooLarge> {
        let account = self.open_accounts.get(&charge.user_id);
        let (remainder_before, unpaid) = (account.remainder, account.unpaid);
        let (due, remainder_after) = match rounding_of(charge, self.rounding) {
            Rounding::Carry => credits_to_give_back(amount, remainder_before)?,
            Rounding::Nearest => {
                let left_before = charge.price.credits.checked_sub(charge.refunded)?;
                let left_after = left_before.checked_sub(amount)?;
                let whole = left_before.to_nearest()?.checked_sub(left_after.to_nearest()?)?;
                (whole, remainder_before)
            }
        };
        // What was never paid is not given back: it is no longer owed.
        let unpaid_lowered = due.min(unpaid);
        let credits = due.checked_sub(unpaid_lowered)?;
        let movement = Movement {
            kind: TransactionKind::Refund,
            amount: credits,
            remainder: remainder_after,
            unpaid: unpaid.checked_sub(unpaid_lowered)?,
            charge_id: Some(request.charge.id.clone()),
            description: charge.model.clone(),
        };
        let transaction = self.open_accounts.book(&charge.user_id, movement, self.now, self.ids)?;
        let transaction_id = transaction.as_ref().map(|transaction| transaction.id.clone());
        self.plan.transactions.extend(transaction);
        Ok(Refund {
            id: self.ids.next(self.now),
            charge: request.charge.clone(),
            user_id: charge.user_id.clone(),
            amount,
            credits,
            unpaid_lowered,
            remainder_before,
            remainder_after,
            balance_after: self.open_accounts.get(&charge.user_id).balance.unwrap_or_default(),
            transaction_id,
        })
    }
}

/// The exact amount that a request names; none for all that is left.
fn asked(amount: RefundAmount, charge: &BookedCharge) -> Result<Option<CreditFemtos>, RefundRefusal> {
    match amount {
        RefundAmount::Rest => Ok(None),
        RefundAmount::Credits(amount) => Ok(Some(amount)),
        RefundAmount::Quota(units) => {
            let all = charge.price.units.ok_or(RefundRefusal::NotPricedInQuota)?;
            if units == all {
                return Ok(Some(charge.price.credits));
            }
            charge.price.of_units(units).map(Some).map_err(|_| RefundRefusal::TooLarge)
        }
    }
}

/// How the charge was rounded. Where it does not say so, its figures tell: a price with a fraction that left the
/// remainder alone was rounded by itself.
fn rounding_of(charge: &BookedCharge, present: Rounding) -> Rounding {
    if let Some(rounding) = charge.rounding {
        rounding
    } else if charge.remainder_before != charge.remainder_after {
        Rounding::Carry
    } else if charge.price.credits.has_fraction() {
        Rounding::Nearest
    } else {
        present
    }
}

#[cfg(test)]
#[path = "refund_tests.rs"]
mod tests;
