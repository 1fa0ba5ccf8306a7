//! `/admin/v1/charges`: what was charged and why, and giving it back. What may be given back is decided below.

use actix_web::web;
use serde::Deserialize;
use utoipa::IntoParams;

use super::AdminState;
use super::refusal::{ErrorAnswer, Refusal};
use super::request::{Body, NoQuery, Query, limit};
use crate::domain::accounts::TransactionKind;
use crate::domain::time::UnixMillis;
use crate::storage::books::BooksError;
use crate::storage::charges::{
    ChargeDetail, ChargeFilter, ChargeSelector, ChargeView, NewRefund, NewReversal, Refunded, Reversed,
};
use crate::storage::refunding;
use crate::telemetry::metrics;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only those of this user: id or email.
    user: Option<String>,
    /// Only those of this key: `api_keys.id`.
    key: Option<String>,
    /// Only those of this token of new-api.
    remote_id: Option<i64>,
    /// Only those of this model.
    model: Option<String>,
    /// Calls of this second or later, in Unix milliseconds.
    since_ms: Option<i64>,
    /// Calls before this, in Unix milliseconds.
    until_ms: Option<i64>,
    /// How many to list at most.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 100_000, default = 50)]
    limit: Option<u32>,
}

/// Lists what was charged, newest calls first.
#[utoipa::path(get, path = "/admin/v1/charges", operation_id = "listCharges", params(ListQuery), tag = "charges",
    responses(
    (status = 200, description = "The charges.", body = Vec<ChargeView>),
    (status = 404, description = "There is no such user.", body = ErrorAnswer), Refusal))]
pub async fn list(
    state: web::Data<AdminState>,
    Query(query): Query<ListQuery>,
) -> Result<web::Json<Vec<ChargeView>>, Refusal> {
    let ListQuery { user, key, remote_id, model, since_ms, until_ms, limit } = query;
    let filter = ChargeFilter { user, key, remote_id, model, since_ms, until_ms };
    Ok(web::Json(state.store.charges(filter, limit.unwrap_or(50)).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FindQuery {
    /// The charge of this event.
    event: Option<String>,
    /// The charge of the call with this request id of new-api.
    request: Option<String>,
    /// The charge of this user (id or email) nearest to `atMs`, within five minutes.
    user: Option<String>,
    /// When the user's call was made, in Unix milliseconds.
    at_ms: Option<i64>,
}

impl FindQuery {
    fn into_selector(self) -> Result<ChargeSelector, BooksError> {
        match (self.event, self.request, self.user, self.at_ms) {
            (Some(id), None, None, None) => Ok(ChargeSelector::Event(id)),
            (None, Some(id), None, None) => Ok(ChargeSelector::Request(id)),
            (None, None, Some(user), Some(at)) => Ok(ChargeSelector::UserAt { user, at: UnixMillis::new(at) }),
            _ => Err(BooksError::Invalid("name an event, or a request, or a user and atMs".to_owned())),
        }
    }
}

/// Explains the charge of an event, of a request, or of a user at a time.
#[utoipa::path(get, path = "/admin/v1/charges/find", operation_id = "findCharge", params(FindQuery), tag = "charges",
    responses(
    (status = 200, description = "The charge, from its event to the balance.", body = ChargeDetail),
    (status = 404, description = "There is no such charge or user.", body = ErrorAnswer),
    (status = 409, description = "Several charges fit; the message names them.", body = ErrorAnswer), Refusal))]
pub async fn find(
    state: web::Data<AdminState>,
    Query(query): Query<FindQuery>,
) -> Result<web::Json<ChargeDetail>, Refusal> {
    Ok(web::Json(state.store.charge(query.into_selector()?).await?))
}

/// Explains one charge, from its event to the balance.
#[utoipa::path(get, path = "/admin/v1/charges/{chargeId}", operation_id = "showCharge", tag = "charges",
    params(("chargeId" = String, Path, description = "The charge's id, which is that of its usage record.")),
    responses(
    (status = 200, description = "The charge.", body = ChargeDetail),
    (status = 404, description = "There is no such charge.", body = ErrorAnswer), Refusal))]
pub async fn show(
    state: web::Data<AdminState>,
    charge_id: web::Path<String>,
    _: Query<NoQuery>,
) -> Result<web::Json<ChargeDetail>, Refusal> {
    Ok(web::Json(state.store.charge(ChargeSelector::Id(charge_id.into_inner())).await?))
}

/// Gives back one charge, or a part of it; never more than was taken.
#[utoipa::path(post, path = "/admin/v1/charges/refunds", operation_id = "refundCharge", request_body = NewRefund,
    tag = "charges", responses(
    (status = 200, description = "What was given back.", body = Refunded),
    (status = 404, description = "There is no such charge.", body = ErrorAnswer),
    (status = 409, description = "Less is left, or the idempotency key was used for something else.",
        body = ErrorAnswer),
    Refusal))]
pub async fn refund(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(new): Body<NewRefund>,
) -> Result<web::Json<Refunded>, Refusal> {
    let refunded = refunding::refund(state.store.as_ref(), new).await?;
    if !refunded.repeated {
        metrics::credits_moved(TransactionKind::Refund.as_str(), refunded.credits.unsigned_abs());
    }
    Ok(web::Json(refunded))
}

/// Gives back a page of a selection of charges, each as far as it was not given back yet.
#[utoipa::path(post, path = "/admin/v1/charges/reversals", operation_id = "reverseCharges", request_body = NewReversal,
    tag = "charges", responses(
    (status = 200, description = "What this page came to.", body = Reversed),
    (status = 404, description = "There is no such user.", body = ErrorAnswer),
    (status = 409, description = "The idempotency key was used for another selection.", body = ErrorAnswer), Refusal))]
pub async fn reverse(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(page): Body<NewReversal>,
) -> Result<web::Json<Reversed>, Refusal> {
    let is_dry_run = page.dry_run;
    let reversed = refunding::reverse(state.store.as_ref(), page).await?;
    if !is_dry_run {
        metrics::credits_moved(TransactionKind::Refund.as_str(), reversed.credits.unsigned_abs());
    }
    Ok(web::Json(reversed))
}
