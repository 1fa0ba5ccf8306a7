//! `/admin/v1/sync`: new-api's log is read because a person asks for it. It is begun here and goes on by itself: no
//! request is held open for it, and whoever asked looks how it stands.

use actix_web::web;
use serde::Deserialize;
use utoipa::IntoParams;

use super::AdminState;
use super::refusal::{ErrorAnswer, Refusal};
use super::request::{Body, NoQuery, Query};
use crate::actors::scheduler::WakeUp;
use crate::actors::sync_document::{NewSync, SyncStatus};
use crate::actors::syncing;

/// Begins a sync, one at a time: how it stands, and its id.
#[utoipa::path(post, path = "/admin/v1/sync", operation_id = "beginSync", request_body = NewSync, tag = "log",
    responses(
    (status = 200, description = "It begins in a moment.", body = SyncStatus),
    (status = 409, description = "Another one is under way.", body = ErrorAnswer),
    (status = 422, description = "No new-api is configured.", body = ErrorAnswer), Refusal))]
pub async fn begin(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(asked): Body<NewSync>,
) -> Result<web::Json<SyncStatus>, Refusal> {
    let polling = &state.polling;
    syncing::check(&polling.live.get(), &asked)?;
    let begun = polling.syncs.ask(asked, state.http.clock.now())?;
    // If the Scheduler is down or busy, it looks at its desk within two seconds.
    state.directory.scheduler.try_send(WakeUp).ok();
    tracing::info!(sync = %begun.id, "an operator asked for a sync of new-api's log");
    Ok(web::Json(begun))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ShowQuery {
    /// Of one of the last sixteen; without it, the one that is under way or the last one.
    id: Option<String>,
}

/// Tells how a sync stands, since the daemon's start.
#[utoipa::path(get, path = "/admin/v1/sync", operation_id = "showSync", params(ShowQuery), tag = "log",
    responses(
    (status = 200, description = "How it stands.", body = SyncStatus),
    (status = 404, description = "There was none since the daemon's start.", body = ErrorAnswer), Refusal))]
pub async fn show(
    state: web::Data<AdminState>,
    Query(query): Query<ShowQuery>,
) -> Result<web::Json<SyncStatus>, Refusal> {
    state.polling.syncs.look(query.id.as_deref()).map(web::Json).ok_or(Refusal::NoSync)
}
