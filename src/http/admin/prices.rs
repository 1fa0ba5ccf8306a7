//! `/admin/v1/prices`: what calls are priced by, and when new-api's quota per unit changed.

use actix_web::web;

use super::AdminState;
use super::refusal::{ErrorAnswer, Refusal};
use super::request::{Body, NoQuery, Query};
use crate::actors::ledger::SettleWaiting;
use crate::storage::Waiting;
use crate::storage::prices::{NewQuotaChange, PricesView, QuotaChange};

/// Lists the dated prices, and the changes of new-api's quota per unit that were seen.
#[utoipa::path(get, path = "/admin/v1/prices", operation_id = "listPrices", tag = "prices",
    responses((status = 200, description = "Rates, quota per unit, and its changes.", body = PricesView), Refusal))]
pub async fn list(state: web::Data<AdminState>, _: Query<NoQuery>) -> Result<web::Json<PricesView>, Refusal> {
    Ok(web::Json(state.store.prices().await?))
}

/// Names the second from which new-api's new quota per unit counts; what waited for that is settled.
#[utoipa::path(post, path = "/admin/v1/prices/quota-changes", operation_id = "nameQuotaChange",
    request_body = NewQuotaChange, tag = "prices",
    responses((status = 200, description = "The change, with its second.", body = QuotaChange),
    (status = 409, description = "No change lies there that waits for its second.", body = ErrorAnswer), Refusal))]
pub async fn name_quota_change(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(change): Body<NewQuotaChange>,
) -> Result<web::Json<QuotaChange>, Refusal> {
    let change = state.store.name_quota_change(change).await?;
    tracing::info!(named = change.named, held = change.held, "the second of a change of quota per unit was named");
    // If the Ledger is down, it begins with them when it is back.
    state.directory.ledger.try_send(SettleWaiting(Waiting::Woken)).ok();
    Ok(web::Json(change))
}
