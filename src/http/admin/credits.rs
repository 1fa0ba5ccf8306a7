//! `/admin/v1/credits`: balances, what moved them, and credits given.

use actix_web::web;
use serde::Deserialize;
use utoipa::IntoParams;

use super::AdminState;
use super::refusal::{ErrorAnswer, Refusal};
use super::request::{Body, NoQuery, Query, limit};
use crate::storage::books::{CreditsView, Granted, NewAdjustment, NewGrant, TransactionView};
use crate::telemetry::metrics;

/// Adds credits to a user's balance, once for each idempotency key.
#[utoipa::path(post, path = "/admin/v1/credits/grants", operation_id = "grantCredits", request_body = NewGrant, tag = "books", responses(
    (status = 200, description = "What was granted.", body = Granted),
    (status = 404, description = "There is no such user.", body = ErrorAnswer),
    (status = 409, description = "The idempotency key was used for another request.", body = ErrorAnswer),
    Refusal))]
pub async fn grant(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(grant): Body<NewGrant>,
) -> Result<web::Json<Granted>, Refusal> {
    let granted = state.store.grant(grant).await?;
    if !granted.repeated {
        metrics::credits_moved("RECHARGE", granted.amount.unsigned_abs());
    }
    Ok(web::Json(granted))
}

/// Adds credits to a user's balance or takes them away, once for each idempotency key.
#[utoipa::path(post, path = "/admin/v1/credits/adjustments", operation_id = "adjustCredits",
    request_body = NewAdjustment, tag = "books", responses(
    (status = 200, description = "What was adjusted.", body = Granted),
    (status = 404, description = "There is no such user.", body = ErrorAnswer),
    (status = 409, description = "The idempotency key was used for another request.", body = ErrorAnswer),
    Refusal))]
pub async fn adjust(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(adjustment): Body<NewAdjustment>,
) -> Result<web::Json<Granted>, Refusal> {
    let adjusted = state.store.adjust(adjustment).await?;
    if !adjusted.repeated {
        metrics::credits_moved("ADMIN_ADJUST", adjusted.amount.unsigned_abs());
    }
    Ok(web::Json(adjusted))
}

/// Shows a user's balance.
#[utoipa::path(get, path = "/admin/v1/credits/{user}", operation_id = "showCredits", tag = "books",
    params(("user" = String, Path, description = "Id or email, percent-encoded.")), responses(
    (status = 200, description = "The balance.", body = CreditsView),
    (status = 404, description = "There is no such user.", body = ErrorAnswer), Refusal))]
pub async fn show(
    state: web::Data<AdminState>,
    user: web::Path<String>,
    _: Query<NoQuery>,
) -> Result<web::Json<CreditsView>, Refusal> {
    Ok(web::Json(state.store.credits(user.into_inner()).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// How many to list at most.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 100_000, default = 50)]
    limit: Option<u32>,
}

/// Lists what moved a user's balance, newest first.
#[utoipa::path(get, path = "/admin/v1/credits/{user}/history", operation_id = "listTransactions", tag = "books",
    params(("user" = String, Path, description = "Id or email, percent-encoded."), HistoryQuery), responses(
    (status = 200, description = "The transactions.", body = Vec<TransactionView>),
    (status = 404, description = "There is no such user.", body = ErrorAnswer), Refusal))]
pub async fn history(
    state: web::Data<AdminState>,
    user: web::Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<web::Json<Vec<TransactionView>>, Refusal> {
    Ok(web::Json(state.store.history(user.into_inner(), query.limit.unwrap_or(50)).await?))
}
