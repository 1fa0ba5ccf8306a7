//! `/admin/v1/disputes`: what a person must decide, and the decisions. What they book is decided below.

use actix_web::web;
use serde::Deserialize;
use utoipa::IntoParams;

use super::AdminState;
use super::refusal::{ErrorAnswer, Refusal};
use super::request::{Body, NoQuery, Query, limit};
use crate::storage::deciding;
use crate::storage::disputes::{Decided, DisputeFilter, DisputeView, NewDismissal, NewOwnCharge, NewTie};
use crate::telemetry::metrics;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only those of tokens that this user has now: id or email.
    user: Option<String>,
    /// Only those of this token of new-api.
    remote_id: Option<i64>,
    /// How many to list at most.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 100_000, default = 50)]
    limit: Option<u32>,
}

/// Lists what a person must decide, newest calls first.
#[utoipa::path(get, path = "/admin/v1/disputes", operation_id = "listDisputes", params(ListQuery), tag = "disputes",
    responses(
    (status = 200, description = "Disputed events and rows, rows that could not be booked, refunds without a charge.",
        body = Vec<DisputeView>),
    (status = 404, description = "There is no such user.", body = ErrorAnswer), Refusal))]
pub async fn list(
    state: web::Data<AdminState>,
    Query(query): Query<ListQuery>,
) -> Result<web::Json<Vec<DisputeView>>, Refusal> {
    let ListQuery { user, remote_id, limit } = query;
    let filter = DisputeFilter { user, remote_id };
    Ok(web::Json(deciding::list(state.store.as_ref(), filter, limit.unwrap_or(50)).await?))
}

/// Joins a disputed side and the charge beside it, at the row's price: it is one call.
#[utoipa::path(post, path = "/admin/v1/disputes/tie", operation_id = "tieDispute", request_body = NewTie,
    tag = "disputes", responses(
    (status = 200, description = "What it is now.", body = Decided),
    (status = 404, description = "There is no such dispute.", body = ErrorAnswer),
    (status = 409, description = "It is not disputed, was decided otherwise, or is not alike.", body = ErrorAnswer),
    Refusal))]
pub async fn tie(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(new): Body<NewTie>,
) -> Result<web::Json<Decided>, Refusal> {
    Ok(told(&state, deciding::tie(state.store.as_ref(), new).await?))
}

/// Charges a disputed side, or a row that could not be booked: it is a call of its own.
#[utoipa::path(post, path = "/admin/v1/disputes/charge", operation_id = "chargeDispute", request_body = NewOwnCharge,
    tag = "disputes", responses(
    (status = 200, description = "What it is now.", body = Decided),
    (status = 404, description = "There is no such dispute.", body = ErrorAnswer),
    (status = 409, description = "It is not disputed, was decided otherwise, or cannot be charged.", body = ErrorAnswer),
    Refusal))]
pub async fn charge(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(new): Body<NewOwnCharge>,
) -> Result<web::Json<Decided>, Refusal> {
    Ok(told(&state, deciding::charge(state.store.as_ref(), new).await?))
}

/// Closes a disputed side, a row that could not be booked, or a refund, without a charge.
#[utoipa::path(post, path = "/admin/v1/disputes/dismiss", operation_id = "dismissDispute", request_body = NewDismissal,
    tag = "disputes", responses(
    (status = 200, description = "What it is now.", body = Decided),
    (status = 404, description = "There is no such dispute.", body = ErrorAnswer),
    (status = 409, description = "It is not disputed, or was decided otherwise.", body = ErrorAnswer),
    Refusal))]
pub async fn dismiss(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(new): Body<NewDismissal>,
) -> Result<web::Json<Decided>, Refusal> {
    Ok(told(&state, deciding::dismiss(state.store.as_ref(), new).await?))
}

fn told(state: &AdminState, decided: Decided) -> web::Json<Decided> {
    metrics::moved(state.store.noticed().take_moved());
    tracing::info!(id = %decided.id, state = %decided.state, repeated = decided.repeated, "a dispute was decided");
    web::Json(decided)
}
