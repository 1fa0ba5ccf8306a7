//! `/admin/v1/repair`: our state and the platform's tables, put together again.

use actix_web::web;

use super::AdminState;
use super::refusal::Refusal;
use super::request::{Body, NoQuery, Query};
use crate::actors::ledger::SettleWaiting;
use crate::storage::Waiting;
use crate::storage::repair::{NewRepair, Repaired};

/// Puts one page of what came apart together again; after the last, what waited is settled.
#[utoipa::path(post, path = "/admin/v1/repair", operation_id = "repair", request_body = NewRepair, tag = "books",
    responses((status = 200, description = "What this page came to.", body = Repaired), Refusal))]
pub async fn repair(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(page): Body<NewRepair>,
) -> Result<web::Json<Repaired>, Refusal> {
    let is_dry_run = page.dry_run;
    let repaired = state.store.repair(page).await?;
    if repaired.next.is_none() && !is_dry_run {
        state.observed.looked_whether_apart(state.store.apart().as_ref(), state.http.clock.now());
        for kind in [Waiting::Due, Waiting::Woken] {
            // If the Ledger is down, it begins with them when it is back.
            state.directory.ledger.try_send(SettleWaiting(kind)).ok();
        }
    }
    Ok(web::Json(repaired))
}
