//! The rows of a plan as lists of JSON, one parameter a table; the same for every database.
//!
//! The order of the fields is that of the statements in each store's `write`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::StoreError;
use super::log_writes;
use super::raw_meta::raw_meta;
use crate::domain::accounts::{AccountChange, Transaction};
use crate::domain::adoption::ForeignRecord;
use crate::domain::ids::{RecordId, RecordIds, RemoteKeyId, RequestId};
use crate::domain::matching::TieRule;
use crate::domain::money::{Credits, QuotaUnits};
use crate::domain::outcome::fit_column;
use crate::domain::ownership::KeyHolder;
use crate::domain::recording::InboxRow;
use crate::domain::refund::{RefundAmount, RefundPlan};
use crate::domain::settlement::{Adopted, Charge, Plan};
use crate::domain::side::SideIdentity;
use crate::domain::time::UnixMillis;

/// One parameter for a whole list, so that a statement's text does not depend on the batch's size.
pub fn parameter(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Refused(error.to_string()))
}

/// New rows of `webhook_logs`: id, event id as it is stored, payload, status, message.
pub fn new_logs<'a>(
    rows: &'a [InboxRow],
    stored_id: impl Fn(&'a InboxRow) -> Cow<'a, str>,
) -> Result<String, StoreError> {
    let new = rows.iter().filter(|row| !row.exists);
    let new = new.map(|row| (row.id.as_str(), stored_id(row), &*row.payload, row.status.as_str(), &row.message));
    parameter(&new.collect::<Vec<_>>())
}

/// Rows of `webhook_logs` whose state changes: id, status, message.
pub fn changed_logs(rows: &[InboxRow]) -> Result<String, StoreError> {
    let changed = rows.iter().filter(|row| row.exists);
    parameter(&changed.map(|row| (row.id.as_str(), row.status.as_str(), &row.message)).collect::<Vec<_>>())
}

/// Ids of rows that are processed without a claim: notices, and events of ignored tokens.
pub fn unclaimed_logs<'a>(rows: impl Iterator<Item = &'a InboxRow>) -> Result<String, StoreError> {
    parameter(&rows.map(|row| row.id.as_str()).collect::<Vec<_>>())
}

/// Ids of rows that wait for nothing any more.
pub fn no_longer_waiting(rows: &[InboxRow]) -> Result<String, StoreError> {
    let settled = rows.iter().filter(|row| row.exists && row.waiting.is_none());
    parameter(&settled.map(|row| row.id.as_str()).collect::<Vec<_>>())
}

/// Rows that wait: id, state, reason, token, time of the call, attempts, when they are due.
pub fn waiting(rows: &[InboxRow]) -> Result<String, StoreError> {
    let waiting = rows.iter().filter_map(|row| {
        let waiting = row.waiting.as_ref()?;
        let (token, called_at) = (waiting.remote_key_id.get(), waiting.called_at.as_millis());
        let due_at = waiting.due_at.map(UnixMillis::as_millis);
        let (status, reason) = (row.status.as_str(), waiting.reason.as_str());
        Some((row.id.as_str(), status, reason, token, called_at, waiting.attempts, due_at))
    });
    parameter(&waiting.collect::<Vec<_>>())
}

pub fn unknown_tokens(plan: &Plan) -> Result<String, StoreError> {
    parameter(&plan.unknown_tokens.iter().map(|token| token.get()).collect::<Vec<_>>())
}

/// Tokens with their present owners, and from when on they count as such.
pub type NewOwners = BTreeMap<RemoteKeyId, (UnixMillis, KeyHolder)>;

pub fn refunds(plan: &RefundPlan) -> Result<String, StoreError> {
    let rows = plan.refunds.iter().map(|(request, refund)| {
        let (credits, femtos) = refund.amount.split().map_err(|error| StoreError::Refused(error.to_string()))?;
        Ok(json!([
            refund.id.as_str(),
            refund.charge.call_second,
            refund.charge.id.as_str(),
            request.origin.as_str(),
            &*request.idempotency_key,
            refund.user_id.as_str(),
            credits.get(),
            femtos.get(),
            refund.credits.get(),
            refund.unpaid_lowered.get(),
            refund.remainder_before.get(),
            refund.remainder_after.get(),
            &*request.reason,
            refund.transaction_id.as_ref().map(RecordId::as_str),
            i64::from(request.amount == RefundAmount::Rest),
        ]))
    });
    parameter(&rows.collect::<Result<Vec<Value>, StoreError>>()?)
}

pub fn claims(charges: &[Charge]) -> Result<String, StoreError> {
    claims_at(charges.iter().map(|charge| (charge, charge.content.called_at)), None)
}

/// Each claim with the time of its usage record. `source`: what it was charged by, where that was not the channel.
pub fn claims_at<'a>(
    charges: impl Iterator<Item = (&'a Charge, UnixMillis)>,
    source: Option<&str>,
) -> Result<String, StoreError> {
    let rows = charges.map(|(charge, recorded_at)| {
        let content = &charge.content;
        let event = charge.event.as_ref();
        let event_id = event.and_then(|side| match &side.identity {
            SideIdentity::Event { event_id, .. } => Some(event_id.as_str()),
            SideIdentity::Row { .. } => None,
        });
        let (price_credits, price_femtos) =
            charge.price.credits.split().map_err(|error| StoreError::Refused(error.to_string()))?;
        Ok(json!([
            recorded_at.as_secs(),
            charge.id.as_str(),
            event_id,
            event.map(|side| side.at.as_millis()),
            event.and_then(|side| side.identity.request_id()).map(RequestId::as_str),
            event.and_then(|side| side.identity.log_id()),
            content.remote_key_id.get(),
            &*content.model,
            content.tokens.prompt,
            content.tokens.completion,
            charge.price.units.map(QuotaUnits::get),
            price_credits.get(),
            price_femtos.get(),
            charge.price.rate.micros(),
            charge.price.quota_per_unit.get(),
            charge.user_id.as_str(),
            charge.key_id.as_str(),
            charge.credits.get(),
            charge.unpaid.get(),
            charge.remainder_before.get(),
            charge.remainder_after.get(),
            charge.rounding.as_str(),
            source.unwrap_or(charge.channel.as_str()),
            log_writes::row_columns(charge.row.as_ref()),
            charge.tie.map(TieRule::as_str),
            event.is_none().then_some(content.remote_key_id.get()),
        ]))
    });
    parameter(&rows.collect::<Result<Vec<Value>, StoreError>>()?)
}

/// Records of others that took a call: id, time, user, credits, 1.
pub fn adopted_records(adopted: &[Adopted]) -> Result<String, StoreError> {
    let rows = adopted.iter().map(|Adopted { charge, recorded_at }| {
        (charge.id.as_str(), recorded_at.as_millis(), charge.user_id.as_str(), charge.credits.get(), 1)
    });
    parameter(&rows.collect::<Vec<_>>())
}

/// Records of others that took no call so far: id, time, user, credits, 0.
pub fn foreign_records(records: &[ForeignRecord]) -> Result<String, StoreError> {
    let rows = records.iter().map(|record| {
        (record.id.as_str(), record.recorded_at.as_millis(), record.user_id.as_str(), record.credits.get(), 0)
    });
    parameter(&rows.collect::<Vec<_>>())
}

/// `installation`: whose they are; none: another program's.
pub fn usage_records(installation: Option<&str>, charges: &[Charge]) -> Result<String, StoreError> {
    let rows = charges.iter().map(|charge| {
        let content = &charge.content;
        let meta = installation.map(|installation| raw_meta(installation, charge)).transpose();
        let meta = meta.map_err(|error| StoreError::Refused(error.to_string()))?;
        Ok(json!([
            charge.id.as_str(),
            charge.key_id.as_str(),
            content.called_at.to_column(),
            fit_column(&content.model),
            content.tokens.prompt,
            content.tokens.completion,
            content.tokens.total,
            charge.price.display_usd(),
            charge.credits.get(),
            meta,
        ]))
    });
    parameter(&rows.collect::<Result<Vec<Value>, StoreError>>()?)
}

pub fn transactions(rows: &[Transaction]) -> Result<String, StoreError> {
    let rows = rows.iter().map(|transaction| {
        json!([
            transaction.kind.as_str(),
            transaction.id.as_str(),
            transaction.user_id.as_str(),
            transaction.amount.get(),
            transaction.balance_after.get(),
            transaction.charge_id.as_ref().map(RecordId::as_str),
            fit_column(&transaction.description),
            transaction.created_at.to_column(),
        ])
    });
    parameter(&rows.collect::<Vec<Value>>())
}

pub fn balances(ids: &RecordIds, changes: &[AccountChange], now: UnixMillis) -> Result<String, StoreError> {
    let moving = changes.iter().filter(|change| change.creates_balance || change.balance_delta != Credits::ZERO);
    let rows =
        moving.map(|change| json!([ids.next(now).as_str(), change.user_id.as_str(), change.balance_delta.get()]));
    parameter(&rows.collect::<Vec<Value>>())
}

pub fn accounts(changes: &[AccountChange]) -> Result<String, StoreError> {
    let rows = changes.iter().map(|change| (change.user_id.as_str(), change.remainder.get(), change.unpaid.get()));
    parameter(&rows.collect::<Vec<_>>())
}

pub fn key_uses(plan: &Plan) -> Result<String, StoreError> {
    let rows = plan.key_uses.iter().map(|(key_id, used_at)| (key_id.as_str(), used_at.to_column()));
    parameter(&rows.collect::<Vec<_>>())
}

pub fn owners(changes: &NewOwners) -> Result<String, StoreError> {
    let rows = changes.iter().map(|(token, (from, holder))| {
        (token.get(), from.as_millis(), holder.user_id.as_str(), holder.key_id.as_str())
    });
    parameter(&rows.collect::<Vec<_>>())
}
