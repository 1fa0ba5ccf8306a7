//! What a plan writes of the log, as lists of JSON; the same for every database.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::StoreError;
use super::log_content;
use super::rows::parameter;
use crate::domain::ids::RequestId;
use crate::domain::log_row::RowIdentity;
use crate::domain::log_snapshot::TaskMark;
use crate::domain::money::QuotaUnits;
use crate::domain::settlement::{ClaimSide, Correction, Plan, Tie};
use crate::domain::side::SideIdentity;

/// The columns of a claim's row: source, second, digest, number, request id, log id; all null where it has none.
pub fn row_columns(side: Option<&ClaimSide>) -> Value {
    let Some(SideIdentity::Row { row, request_id, log_id }) = side.map(|side| &side.identity) else {
        return json!([null, null, null, null, null, null]);
    };
    json!([
        &*row.source,
        row.second,
        row.digest.as_str(),
        row.number,
        request_id.as_ref().map(RequestId::as_str),
        log_id
    ])
}

/// Seconds of what is charged; none: nothing is.
pub fn seconds_of_charges(plan: &Plan) -> Result<Option<String>, StoreError> {
    let charged = plan.charges.iter().map(|charge| charge.content.called_at.as_secs());
    let adopted = plan.adopted.iter().map(|adopted| adopted.recorded_at.as_secs());
    let seconds: BTreeSet<i64> = charged.chain(adopted).collect();
    if seconds.is_empty() { Ok(None) } else { parameter(&seconds).map(Some) }
}

/// Sides of charges of before: second, id, event id, its milliseconds, request id, log id, the row's columns, rule.
pub fn ties(ties: &[Tie]) -> Result<String, StoreError> {
    let rows = ties.iter().map(|tie| {
        let SideIdentity::Event { event_id, request_id, log_id } = &tie.event.identity else { return Value::Null };
        json!([
            tie.claim.call_second,
            tie.claim.id.as_str(),
            event_id.as_str(),
            tie.event.at.as_millis(),
            request_id.as_ref().map(RequestId::as_str),
            log_id,
            row_columns(Some(&tie.row)),
            tie.rule.as_str(),
        ])
    });
    parameter(&rows.filter(|row| !row.is_null()).collect::<Vec<_>>())
}

/// Charges whose price was corrected: second, id, units, credits, femtos, credits in all, unpaid, price for people.
pub fn corrections(corrections: &[Correction]) -> Result<String, StoreError> {
    let rows = corrections.iter().map(|correction| {
        let (credits, femtos) =
            correction.price.credits.split().map_err(|error| StoreError::Refused(error.to_string()))?;
        Ok(json!([
            correction.claim.call_second,
            correction.claim.id.as_str(),
            correction.price.units.map(QuotaUnits::get),
            credits.get(),
            femtos.get(),
            correction.credits.get(),
            correction.unpaid.get(),
            correction.price.display_usd(),
        ]))
    });
    parameter(&rows.collect::<Result<Vec<Value>, StoreError>>()?)
}

/// Rows that were read: source, second, digest, number, state, the charge's second and id, open token, content,
/// reason, units, whether it is a refund, task.
pub fn rows(plan: &Plan) -> Result<String, StoreError> {
    let rows = plan.rows.iter().map(|write| {
        let RowIdentity { source, second, digest, number } = &write.identity;
        let content = match &write.open {
            Some(row) => Some(log_content::write(row).map_err(|error| StoreError::Refused(error.to_string()))?),
            None => None,
        };
        Ok(json!([
            &**source,
            second,
            digest.as_str(),
            number,
            write.state.as_str(),
            write.claim.as_ref().map(|claim| claim.call_second),
            write.claim.as_ref().map(|claim| claim.id.as_str()),
            write.open.as_ref().map(|row| row.token.get()),
            content,
            write.reason.as_deref(),
            write.units,
            i64::from(write.is_refund),
            write.task_id.as_deref().map(|id| id.chars().take(191).collect::<String>()),
        ]))
    });
    parameter(&rows.collect::<Result<Vec<Value>, StoreError>>()?)
}

/// Rows that look for their task's charge: source, second, digest, number, token, units of the submission.
pub fn task_marks(marks: &[TaskMark]) -> Result<String, StoreError> {
    let rows = marks.iter().map(|TaskMark { identity, token, stated_units }| {
        let RowIdentity { source, second, digest, number } = identity;
        json!([&**source, second, digest.as_str(), number, token.get(), stated_units])
    });
    parameter(&rows.collect::<Vec<Value>>())
}

/// Rows that nobody here pays for: source, second, token, name, rows, units, refunds.
pub fn unowned_rows(plan: &Plan) -> Result<String, StoreError> {
    let rows = plan.unowned_rows.iter().map(|rows| {
        let name: String = rows.token_name.chars().take(191).collect();
        json!([&*rows.source, rows.second, rows.token.get(), name, rows.row_count, rows.units, rows.refund_count])
    });
    parameter(&rows.collect::<Vec<Value>>())
}
