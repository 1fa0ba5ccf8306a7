//! Decides what rows of asynchronous tasks give back: pure, from a snapshot read under the ledger's locks.
//!
//! Rows of one task form a group. Its first row is tied to a charge, all of them use that, and never is more given back
//! than the group's charges took. How money goes back is `refund`'s.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::ids::{RecordIds, RemoteKeyId, UserId};
use super::log_row::RowIdentity;
use super::money::{CreditFemtos, Credits, QuotaUnits};
use super::planted;
use super::pricing::Rounding;
use super::refund::{
    BookedCharge, ChargeKey, RefundAmount, RefundOrigin, RefundOutcome, RefundPlan, RefundPlanner, RefundRefusal,
    RefundRequest, RefundSnapshot,
};
use super::task_shares::{GroupCharge, parts};
use super::time::UnixMillis;

/// Charges that a row may mean are compared as far back as this. An older one with another owner or rate stands for
/// another task: tasks end within hours.
const COMPARED_SECS: i64 = 2 * 86_400;

/// What a column holds of a reason.
const LONGEST_REASON_CHARS: usize = 191;

/// Names a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    pub source: Arc<str>,
    pub token: RemoteKeyId,
    pub task_id: Arc<str>,
}

/// A row that looks for its task's charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    pub identity: RowIdentity,
    pub token: RemoteKeyId,
    pub model: Arc<str>,
    /// Old versions may not name the task: then it is a group of its own.
    pub task_id: Option<Arc<str>>,
    /// What it says that the submission cost.
    pub stated_units: Option<QuotaUnits>,
    /// What it gives back; none for a further charge, which only looks for its group.
    pub refund: Option<AskedBack>,
    /// Why it is still open, as it was told before.
    pub open_reason: Option<Arc<str>>,
}

/// What a refund's row asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedBack {
    pub units: Option<QuotaUnits>,
    /// new-api's words.
    pub reason: Option<Arc<str>>,
}

/// A row of a group, whatever became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskMember {
    pub identity: RowIdentity,
    pub is_refund: bool,
    /// It is consumption, and says nothing of an earlier price: it is the submission itself.
    pub is_submission: bool,
    /// Its charge, unless it is a refund.
    pub claim: Option<ChargeKey>,
    /// Its price, as the row says it.
    pub units: Option<QuotaUnits>,
}

/// What a charge is to groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskCharge {
    pub token: RemoteKeyId,
    /// Its price in quota units; of a charge priced in credits, what its row says.
    pub units: Option<QuotaUnits>,
    /// It is in no group.
    pub is_free: bool,
    /// A group is tied to it.
    pub is_tied: bool,
}

/// What the books said of everything that the rows touch.
#[derive(Debug, Default)]
pub struct TaskSnapshot {
    /// Oldest first, what charges before what gives back.
    pub rows: Vec<TaskRow>,
    pub groups: HashMap<TaskKey, ChargeKey>,
    pub members: HashMap<TaskKey, Vec<TaskMember>>,
    pub charges: HashMap<ChargeKey, TaskCharge>,
    pub books: RefundSnapshot,
    /// Users of whom another session holds a row.
    pub busy_users: HashSet<UserId>,
}

/// Why a row stays open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StaysOpen {
    #[error("no charge of its token and model has this price and was not given back")]
    NoCharge,
    #[error("the first row of its task has found no charge")]
    FirstRowOpen,
    #[error("the submission of its task is not charged")]
    NotBooked,
    #[error("the charges that it may mean differ in owner or rate: look which, and use `hookledger charges refund`")]
    Differ,
    #[error("it asks for more than is left of its task's charges")]
    NotEnough,
    #[error("it states no amount")]
    NoAmount,
    #[error("the user of its charge is gone")]
    NoUser,
    #[error("the books cannot hold the amount")]
    TooLarge,
}

impl StaysOpen {
    /// Only a person can tell: what happens to the charges that it may mean must not decide it later.
    fn needs_person(&self) -> bool {
        *self == StaysOpen::Differ
    }
}

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskRowState {
    /// Given back; the charge that its group is tied to.
    Refunded(Option<ChargeKey>),
    /// A further charge whose group is known now, or is for a person.
    Looked,
    Open {
        reason: Arc<str>,
        /// It is tried again.
        is_tried: bool,
    },
}

/// What to write, in one transaction or not at all.
#[derive(Debug, Default)]
pub struct TaskPlan {
    pub books: RefundPlan,
    pub groups: Vec<(TaskKey, ChargeKey)>,
    pub rows: Vec<(RowIdentity, TaskRowState)>,
    /// Rows whose money went back.
    pub refunded: u64,
    /// Whole credits that were added to balances.
    pub credits: i64,
    pub still_open: u64,
}

impl TaskRow {
    pub fn key(&self) -> Option<TaskKey> {
        let task_id = self.task_id.clone()?;
        Some(TaskKey { source: self.identity.source.clone(), token: self.token, task_id })
    }

    /// Its place among the rows of its token.
    pub fn order(&self) -> (i64, bool, &RowIdentity) {
        (self.identity.second, self.refund.is_some(), &self.identity)
    }
}

/// Plans the rows in their order. `rounding` counts for charges that do not tell how they were rounded themselves.
pub fn plan_task_refunds(snapshot: TaskSnapshot, rounding: Rounding, now: UnixMillis, ids: &RecordIds) -> TaskPlan {
    let TaskSnapshot { rows, groups, members, charges, books, busy_users } = snapshot;
    let free = charges.iter().filter(|(_, charge)| charge.is_free).map(|(key, _)| key.clone()).collect();
    let tied = charges.iter().filter(|(_, charge)| charge.is_tied).map(|(key, _)| key.clone()).collect();
    let refunds = RefundPlanner::new(books, rounding, now, ids);
    let mut planner =
        TaskPlanner { groups, members, charges, free, tied, busy_users, refunds, plan: TaskPlan::default() };
    for row in &rows {
        planner.settle(row);
    }
    TaskPlan { books: planner.refunds.finish(), ..planner.plan }
}

struct TaskPlanner<'a> {
    groups: HashMap<TaskKey, ChargeKey>,
    members: HashMap<TaskKey, Vec<TaskMember>>,
    charges: HashMap<ChargeKey, TaskCharge>,
    /// Charges that are in no group, by their time.
    free: BTreeSet<ChargeKey>,
    /// Charges that a group is tied to.
    tied: HashSet<ChargeKey>,
    busy_users: HashSet<UserId>,
    refunds: RefundPlanner<'a>,
    plan: TaskPlan,
}

/// What came of a refund that was not refused.
enum GivenBack {
    Done(Option<ChargeKey>),
    /// Another session holds its user: nothing changes.
    Held,
}

impl TaskPlanner<'_> {
    fn settle(&mut self, row: &TaskRow) {
        let Some(asked) = &row.refund else {
            let state = match self.charge_of(row) {
                Ok(_) => Some(TaskRowState::Looked),
                Err(why) if why.needs_person() => Some(TaskRowState::Looked),
                Err(_) => None,
            };
            self.plan.rows.extend(state.map(|state| (row.identity.clone(), state)));
            return;
        };
        match self.give_back(row, asked) {
            Ok(GivenBack::Done(claim)) => {
                self.plan.refunded += 1;
                self.plan.rows.push((row.identity.clone(), TaskRowState::Refunded(claim)));
            }
            Ok(GivenBack::Held) => self.plan.still_open += 1,
            Err(why) => {
                self.plan.still_open += 1;
                let (reason, is_tried) = (Arc::from(why.to_string()), !why.needs_person());
                if !is_tried || row.open_reason.as_ref() != Some(&reason) {
                    self.plan.rows.push((row.identity.clone(), TaskRowState::Open { reason, is_tried }));
                }
            }
        }
    }

    /// The charge that the row's group is tied to, or is from now on.
    fn charge_of(&mut self, row: &TaskRow) -> Result<ChargeKey, StaysOpen> {
        let Some(key) = row.key() else { return self.newest_charge(row, row.stated_units) };
        if let Some(charge) = self.groups.get(&key) {
            return Ok(charge.clone());
        }
        let members = self.members.get(&key).map(Vec::as_slice).unwrap_or_default();
        let charge = match submission(members) {
            Some(TaskMember { claim, units, .. }) => match claim.clone().ok_or(StaysOpen::NotBooked)? {
                // Another task's rows came before its submission, and were tied to this one: equal charges stand in for
                // each other.
                claim if self.tied.contains(&claim) => self.newest_charge(row, *units)?,
                claim => claim,
            },
            None => {
                let first = members.iter().min_by_key(|member| member.order());
                if first.is_some_and(|first| first.identity != row.identity) {
                    return Err(StaysOpen::FirstRowOpen);
                }
                self.newest_charge(row, row.stated_units)?
            }
        };
        if !planted::is_on("refund_of_a_used_charge") {
            self.free.remove(&charge);
        }
        self.tied.insert(charge.clone());
        self.plan.groups.push((key.clone(), charge.clone()));
        self.groups.insert(key, charge.clone());
        Ok(charge)
    }

    /// The newest charge before the row that is in no group, has this price and was not given back.
    fn newest_charge(&self, row: &TaskRow, units: Option<QuotaUnits>) -> Result<ChargeKey, StaysOpen> {
        let units = units.ok_or(StaysOpen::NoAmount)?;
        let booked = |key: &ChargeKey| {
            let (charge, booked) = (self.charges.get(key)?, self.refunds.charge(key)?);
            let is_meant = charge.token == row.token && booked.model == row.model && charge.units == Some(units);
            let is_unused = booked.refunded == CreditFemtos::ZERO || planted::is_on("refund_of_a_used_charge");
            (is_meant && is_unused).then_some(booked)
        };
        let before = self.free.iter().rev().filter(|key| key.call_second <= row.identity.second);
        let mut qualifying = before.filter_map(|key| booked(key).map(|booked| (key, booked)));
        let (newest, meant) = qualifying.next().ok_or(StaysOpen::NoCharge)?;
        let compared_from = newest.call_second.min(row.identity.second - COMPARED_SECS);
        let is_same = |other: &BookedCharge| other.user_id == meant.user_id && other.price == meant.price;
        let mut others = qualifying.take_while(|(key, _)| key.call_second >= compared_from);
        match others.all(|(_, other)| is_same(other)) {
            true => Ok(newest.clone()),
            false => Err(StaysOpen::Differ),
        }
    }

    fn give_back(&mut self, row: &TaskRow, asked: &AskedBack) -> Result<GivenBack, StaysOpen> {
        let units = asked.units.ok_or(StaysOpen::NoAmount)?;
        if units.get() == 0 {
            return Ok(GivenBack::Done(None));
        }
        let tied = self.charge_of(row)?;
        let charges = self.charges_of(row, &tied);
        let (_, first, _) = charges.first().ok_or(StaysOpen::NotBooked)?;
        if charges.iter().any(|(_, charge, _)| charge.user_id != first.user_id) {
            return Err(StaysOpen::Differ);
        }
        if self.busy_users.contains(&first.user_id) {
            return Ok(GivenBack::Held);
        }
        let parts = parts(units, &charges)?;
        self.book(row, asked, &parts)?;
        Ok(GivenBack::Done(Some(tied)))
    }

    /// The charges that the row may give back: the one that its group is tied to, and the task's further ones.
    fn charges_of(&self, row: &TaskRow, tied: &ChargeKey) -> Vec<GroupCharge> {
        let members = row.key().and_then(|key| self.members.get(&key)).map(Vec::as_slice).unwrap_or_default();
        // Where its group is tied to an equal charge, that of the submission stands in for the other's.
        let own = submission(members).and_then(|submission| submission.claim.as_ref());
        let claims = members.iter().filter_map(|member| member.claim.as_ref());
        let further: BTreeSet<&ChargeKey> = claims.filter(|claim| *claim != tied && Some(*claim) != own).collect();
        let whole = |key: &ChargeKey| {
            let units = self.charges.get(key).and_then(|charge| charge.units);
            Some((key.clone(), self.refunds.charge(key)?.clone(), units))
        };
        std::iter::once(tied).chain(further).filter_map(whole).collect()
    }

    /// Books every part, or none.
    fn book(&mut self, row: &TaskRow, asked: &AskedBack, parts: &[(ChargeKey, CreditFemtos)]) -> Result<(), StaysOpen> {
        let RowIdentity { source, second, digest, number } = &row.identity;
        let words = [row.task_id.as_deref().map(|id| format!("task {id}")), asked.reason.as_deref().map(str::to_owned)];
        let words = words.into_iter().flatten().collect::<Vec<_>>().join(": ");
        let words = if words.is_empty() { "new-api's log".to_owned() } else { words };
        let reason: Arc<str> = words.chars().take(LONGEST_REASON_CHARS).collect::<String>().into();
        let before = (parts.len() > 1).then(|| self.refunds.clone());
        let mut credits = Credits::ZERO;
        for (place, (charge, amount)) in parts.iter().enumerate() {
            let part = if place == 0 { String::new() } else { format!("/{}", place + 1) };
            let request = RefundRequest {
                charge: charge.clone(),
                amount: RefundAmount::Credits(*amount),
                origin: RefundOrigin::Log,
                idempotency_key: format!("{source}/{second}/{}/{number}{part}", digest.as_str()).into(),
                reason: reason.clone(),
            };
            match self.refunds.refund(&request) {
                Ok(RefundOutcome::Refunded(refund)) => credits = Credits::new(credits.get() + refund.credits.get()),
                Ok(_) => {}
                Err(refusal) => {
                    if let Some(before) = before {
                        self.refunds = before;
                    }
                    return Err(refusal.into());
                }
            }
        }
        self.plan.credits += credits.get();
        Ok(())
    }
}

/// The row of the task's submission, if that was read and names the task.
pub fn submission(members: &[TaskMember]) -> Option<&TaskMember> {
    members.iter().filter(|member| member.is_submission).min_by_key(|member| member.order())
}

impl From<RefundRefusal> for StaysOpen {
    fn from(refusal: RefundRefusal) -> Self {
        match refusal {
            RefundRefusal::NoUser => StaysOpen::NoUser,
            RefundRefusal::NoSuchCharge => StaysOpen::NotBooked,
            RefundRefusal::NothingLeft | RefundRefusal::MoreThanLeft(_) => StaysOpen::NotEnough,
            RefundRefusal::KeyConflict | RefundRefusal::NotPricedInQuota | RefundRefusal::TooLarge => {
                StaysOpen::TooLarge
            }
        }
    }
}

impl TaskMember {
    fn order(&self) -> (i64, bool, &RowIdentity) {
        (self.identity.second, self.is_refund, &self.identity)
    }
}

#[cfg(test)]
#[path = "task_refunds_tests.rs"]
mod tests;
