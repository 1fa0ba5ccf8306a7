//! `/admin/v1/audit`: differences that a person knows of. The audit itself reads the database and needs no daemon.

use actix_web::web;

use super::AdminState;
use super::refusal::{ErrorAnswer, Refusal};
use super::request::{Body, NoQuery, Query};
use crate::storage::audit::{AcceptedDifference, NewAcceptance};

/// Accepts a difference that an audit listed: it stays listed, and no longer counts.
#[utoipa::path(post, path = "/admin/v1/audit/accepted", operation_id = "acceptDifference",
    request_body = NewAcceptance, tag = "audit", responses(
    (status = 200, description = "It is accepted, with the reason given last.", body = AcceptedDifference),
    (status = 400, description = "The id or the reason cannot be kept.", body = ErrorAnswer),
    Refusal))]
pub async fn accept(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(new): Body<NewAcceptance>,
) -> Result<web::Json<AcceptedDifference>, Refusal> {
    Ok(web::Json(state.store.accept_difference(new).await?))
}
