//! Gathers what rows of tasks may give back, by a constant number of looks; the same for every database.
//!
//! Everything happens under the lock of the rows' tokens. What is given back is decided in `domain::task_refunds`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::StoreError;
use super::decode::{BookRow, booked_charge};
use super::log::{RefundsSettled, TaskPage, TaskPlace};
use super::neighbours::row_identity;
use super::rows::parameter;
use super::stored::unreadable;
use crate::domain::accounts::Account;
use crate::domain::ids::{RecordId, RemoteKeyId, UserId};
use crate::domain::log_row::RowIdentity;
use crate::domain::log_snapshot::RowState;
use crate::domain::money::QuotaUnits;
use crate::domain::refund::{BookedCharge, ChargeKey, RefundSnapshot};
use crate::domain::task_refunds::{
    AskedBack, TaskCharge, TaskKey, TaskMember, TaskPlan, TaskRow, TaskRowState, TaskSnapshot, submission,
};

/// Rows of one transaction. A look brings twice as many charges for each, so that none of them takes another's.
pub const PAGE_ROWS: i64 = 64;

/// Accounts whose rows are held, and users whose rows another session holds.
pub type Held = (HashMap<UserId, Account>, HashSet<UserId>);

/// What each store looks up. Lists are JSON; every look is one statement.
pub trait TaskLooks {
    /// Rows that look for their task's charge, by `[source, second, digest, number]`.
    async fn rows(&mut self, identities: &str) -> Result<Vec<TaskRow>, StoreError>;

    /// Groups by `[source, token, task]`.
    async fn groups(&mut self, tasks: &str) -> Result<Vec<(TaskKey, ChargeKey)>, StoreError>;

    /// Every row of these groups.
    async fn members(&mut self, tasks: &str) -> Result<Vec<(TaskKey, TaskMember)>, StoreError>;

    /// The newest charges in no group of which nothing was given back, and which no task names as its submission's
    /// unless its group is tied to another, by `[token, units, until second, model]`.
    async fn free_charges(&mut self, wanted: &str) -> Result<Vec<ChargeKey>, StoreError>;

    /// Locks and reads the accounts of these charges' users, by `[second, id]`.
    async fn hold(&mut self, charges: &str) -> Result<Held, StoreError>;

    /// The charges themselves.
    async fn charges(&mut self, charges: &str) -> Result<Vec<(ChargeKey, BookedCharge, TaskCharge)>, StoreError>;
}

/// Everything that the plan for these rows depends on.
pub async fn read(looks: &mut impl TaskLooks, places: &[TaskPlace]) -> Result<TaskSnapshot, StoreError> {
    let identities: Vec<Value> = places.iter().map(|place| identity_columns(&place.identity)).collect();
    let mut rows = looks.rows(&parameter(&identities)?).await?;
    rows.sort_by(|one, other| (one.token, one.order()).cmp(&(other.token, other.order())));
    let tasks: BTreeSet<TaskKey> = rows.iter().filter_map(TaskRow::key).collect();
    let tasks = parameter(&tasks.iter().map(task_columns).collect::<Vec<_>>())?;
    let groups: HashMap<TaskKey, ChargeKey> = looks.groups(&tasks).await?.into_iter().collect();
    let mut members: HashMap<TaskKey, Vec<TaskMember>> = HashMap::new();
    for (key, member) in looks.members(&tasks).await? {
        members.entry(key).or_default().push(member);
    }
    let wanted: BTreeSet<_> = rows
        .iter()
        .filter(|row| !row.key().is_some_and(|key| groups.contains_key(&key)))
        .filter_map(|row| {
            let members = row.key().and_then(|key| members.get(&key)).map(Vec::as_slice).unwrap_or_default();
            let units = submission(members).map_or(row.stated_units, |submission| submission.units);
            Some((row.token, units?, row.identity.second, row.model.clone()))
        })
        .collect();
    let wanted: Vec<Value> = wanted
        .into_iter()
        .map(|(token, units, second, model)| json!([token.get(), units.get(), second, &*model]))
        .collect();
    let free: BTreeSet<ChargeKey> = looks.free_charges(&parameter(&wanted)?).await?.into_iter().collect();
    let of_members = members.values().flatten().filter_map(|member| member.claim.clone());
    let keys: BTreeSet<ChargeKey> = free.iter().cloned().chain(groups.values().cloned()).chain(of_members).collect();
    let keys: Vec<(i64, &str)> = keys.iter().map(|key| (key.call_second, key.id.as_str())).collect();
    let keys = parameter(&keys)?;
    let (accounts, busy_users) = looks.hold(&keys).await?;
    let mut snapshot = TaskSnapshot {
        rows,
        groups,
        members,
        charges: HashMap::new(),
        books: RefundSnapshot { accounts, ..RefundSnapshot::default() },
        busy_users,
    };
    for (key, booked, charge) in looks.charges(&keys).await? {
        let is_free = free.contains(&key);
        snapshot.charges.insert(key.clone(), TaskCharge { is_free, ..charge });
        snapshot.books.charges.insert(key, booked);
    }
    Ok(snapshot)
}

/// What a page came to. A full page may have more behind it.
pub fn settled(plan: &TaskPlan, places: Vec<TaskPlace>) -> RefundsSettled {
    let is_full = i64::try_from(places.len()).unwrap_or(i64::MAX) >= PAGE_ROWS;
    RefundsSettled {
        refunded: plan.refunded,
        credits: plan.credits,
        still_open: plan.still_open,
        next: places.into_iter().next_back().filter(|_| is_full),
    }
}

/// The tokens that a page is cut to, as JSON, and where it begins: token, second, digest, number, source.
pub fn page_parameters(page: &TaskPage) -> Result<(String, i64, i64, String, i64, String), StoreError> {
    let tokens: BTreeSet<i64> = page.tokens.iter().flatten().map(|token| token.get()).collect();
    let (token, second, digest, number, source) = match &page.after {
        Some(TaskPlace { token, identity: RowIdentity { source, second, digest, number } }) => {
            (token.get(), *second, digest.as_str().to_owned(), i64::from(*number), source.to_string())
        }
        None => (-1, -1, String::new(), -1, String::new()),
    };
    Ok((parameter(&tokens)?, token, second, digest, number, source))
}

fn identity_columns(identity: &RowIdentity) -> Value {
    let RowIdentity { source, second, digest, number } = identity;
    json!([&**source, second, digest.as_str(), number])
}

fn task_columns(key: &TaskKey) -> Value {
    json!([&*key.source, key.token.get(), &*key.task_id])
}

/// Groups that are tied from now on: source, token, task, the charge's second and id.
pub fn groups(plan: &TaskPlan) -> Result<String, StoreError> {
    let rows = plan.groups.iter().map(|(key, charge)| {
        json!([&*key.source, key.token.get(), &*key.task_id, charge.call_second, charge.id.as_str()])
    });
    parameter(&rows.collect::<Vec<Value>>())
}

/// Rows that were given back: source, second, digest, number, the charge's second and id.
pub fn refunded_rows(plan: &TaskPlan) -> Result<String, StoreError> {
    changed(plan, |RowIdentity { source, second, digest, number }, state| match state {
        TaskRowState::Refunded(charge) => {
            let (at, id) = charge.as_ref().map(|charge| (charge.call_second, charge.id.as_str())).unzip();
            Some(json!([&**source, second, digest.as_str(), number, at, id]))
        }
        _ => None,
    })
}

/// Rows that look for nothing any more: source, second, digest, number.
pub fn looked_rows(plan: &TaskPlan) -> Result<String, StoreError> {
    changed(plan, |identity, state| (*state == TaskRowState::Looked).then(|| identity_columns(identity)))
}

/// Rows that stay open: source, second, digest, number, reason, whether they are tried again.
pub fn open_rows(plan: &TaskPlan) -> Result<String, StoreError> {
    changed(plan, |RowIdentity { source, second, digest, number }, state| match state {
        TaskRowState::Open { reason, is_tried } => {
            Some(json!([&**source, second, digest.as_str(), number, &**reason, i64::from(*is_tried)]))
        }
        _ => None,
    })
}

fn changed(
    plan: &TaskPlan,
    columns: impl Fn(&RowIdentity, &TaskRowState) -> Option<Value>,
) -> Result<String, StoreError> {
    parameter(&plan.rows.iter().filter_map(|(identity, state)| columns(identity, state)).collect::<Vec<_>>())
}

fn identity(row: &impl BookRow, from: usize) -> Result<RowIdentity, StoreError> {
    row_identity(&row.text(from)?, row.number(from + 1)?, &row.text(from + 2)?, row.number(from + 3)?)
}

fn token(row: &impl BookRow, column: usize) -> Result<RemoteKeyId, StoreError> {
    let token = row.number(column)?;
    RemoteKeyId::new(token).ok_or_else(|| unreadable("a token", token))
}

fn charge_key(row: &impl BookRow, from: usize) -> Result<Option<ChargeKey>, StoreError> {
    let (Some(call_second), Some(id)) = (row.optional_number(from)?, row.optional_text(from + 1)?) else {
        return Ok(None);
    };
    let id = RecordId::parse(&id).map_err(|_| unreadable("claim_id", id))?;
    Ok(Some(ChargeKey { call_second, id }))
}

/// Columns: source, second, digest, number, token.
pub fn place(row: &impl BookRow) -> Result<TaskPlace, StoreError> {
    Ok(TaskPlace { identity: identity(row, 0)?, token: token(row, 4)? })
}

/// Columns: source, second, digest, number, token, state, content, reason, task, stated units, the claim's model. None
/// where the row has neither content nor charge.
pub fn task_row(row: &impl BookRow) -> Result<Option<TaskRow>, StoreError> {
    let content = row.optional_text(6)?.as_deref().and_then(super::log_content::read);
    let is_refund = row.text(5)? == RowState::RefundOpen.as_str();
    let model = match (&content, row.optional_text(10)?) {
        (Some(content), _) if is_refund => content.model.clone(),
        (_, Some(model)) if !is_refund => Arc::from(model.as_str()),
        _ => return Ok(None),
    };
    let refund = content.filter(|_| is_refund).map(|content| AskedBack {
        units: content.refunded_units().and_then(QuotaUnits::new),
        reason: content.task.and_then(|task| task.reason),
    });
    let stated = row.optional_number(9)?.and_then(QuotaUnits::new);
    Ok(Some(TaskRow {
        identity: identity(row, 0)?,
        token: token(row, 4)?,
        model,
        task_id: row.optional_text(8)?.map(Arc::from),
        stated_units: stated.or_else(|| refund.as_ref().and_then(|refund| refund.units)),
        refund,
        open_reason: row.optional_text(7)?.map(Arc::from),
    }))
}

/// Columns: source, token, task, and the charge's second and id.
pub fn group(row: &impl BookRow) -> Result<(TaskKey, ChargeKey), StoreError> {
    let charge = charge_key(row, 3)?.ok_or_else(|| unreadable("hookledger_task_groups", "no charge"))?;
    Ok((task_key(row)?, charge))
}

/// Columns: source, token, task, second, digest, number, whether it is a refund, whether it states no earlier price,
/// its charge's second and id, and its units.
pub fn member(row: &impl BookRow) -> Result<(TaskKey, TaskMember), StoreError> {
    let key = task_key(row)?;
    let identity = row_identity(&key.source, row.number(3)?, &row.text(4)?, row.number(5)?)?;
    let is_refund = row.flag(6)?;
    let is_submission = !is_refund && row.flag(7)?;
    let claim = charge_key(row, 8)?.filter(|_| !is_refund);
    let units = row.optional_number(10)?.and_then(QuotaUnits::new);
    Ok((key, TaskMember { identity, is_refund, is_submission, claim, units }))
}

/// Columns: the charge's second and id.
pub fn free_charge(row: &impl BookRow) -> Result<ChargeKey, StoreError> {
    charge_key(row, 0)?.ok_or_else(|| unreadable("hookledger_claims", "no id"))
}

/// Columns: those of a charge as a refund needs it, its token, its price in units, whether a group is tied to it.
pub fn charge(row: &impl BookRow) -> Result<(ChargeKey, BookedCharge, TaskCharge), StoreError> {
    let (key, booked) = booked_charge(row)?;
    let units = row.optional_number(16)?.and_then(QuotaUnits::new);
    Ok((key, booked, TaskCharge { token: token(row, 15)?, units, is_free: false, is_tied: row.flag(17)? }))
}

fn task_key(row: &impl BookRow) -> Result<TaskKey, StoreError> {
    Ok(TaskKey { source: row.text(0)?.into(), token: token(row, 1)?, task_id: row.text(2)?.into() })
}
