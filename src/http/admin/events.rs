//! `/admin/v1/events`: the inbox, one event, and settling again.

use actix_web::web;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::AdminState;
use super::refusal::{ErrorAnswer, Refusal};
use super::request::{Body, NoQuery, Query, limit};
use crate::actors::settling;
use crate::domain::outcome::InboxStatus;
use crate::storage::books::{EventDetail, EventFilter, EventView, NewReplay, Replayed};

/// What an event of the inbox is.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventStatus {
    /// Safe on disk, about to be settled.
    Pending,
    /// Settled.
    Processed,
    /// Not settled: tried again, or waiting for a key or for a person.
    Failed,
    /// Given up.
    Dead,
}

impl From<EventStatus> for InboxStatus {
    fn from(status: EventStatus) -> Self {
        match status {
            EventStatus::Pending => InboxStatus::Pending,
            EventStatus::Processed => InboxStatus::Processed,
            EventStatus::Failed => InboxStatus::Failed,
            EventStatus::Dead => InboxStatus::Dead,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only the events in this state.
    status: Option<EventStatus>,
    /// How many to list at most.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 100_000, default = 50)]
    limit: Option<u32>,
}

/// Lists the events, newest first.
#[utoipa::path(get, path = "/admin/v1/events", operation_id = "listEvents", params(ListQuery), tag = "events",
    responses((status = 200, description = "The events.", body = Vec<EventView>), Refusal))]
pub async fn list(
    state: web::Data<AdminState>,
    Query(query): Query<ListQuery>,
) -> Result<web::Json<Vec<EventView>>, Refusal> {
    let status = query.status.map(|status| InboxStatus::from(status).as_str().to_owned());
    let filter = EventFilter { status, limit: query.limit.unwrap_or(50) };
    Ok(web::Json(state.store.events(filter).await?))
}

/// Shows one event: its body, and what was charged for it.
#[utoipa::path(get, path = "/admin/v1/events/{eventId}", operation_id = "showEvent", tag = "events",
    params(("eventId" = String, Path, description = "The sender's id, percent-encoded: it may hold any character.")),
    responses(
    (status = 200, description = "The event.", body = EventDetail),
    (status = 404, description = "There is no such event.", body = ErrorAnswer), Refusal))]
pub async fn show(
    state: web::Data<AdminState>,
    event_id: web::Path<String>,
    _: Query<NoQuery>,
) -> Result<web::Json<EventDetail>, Refusal> {
    Ok(web::Json(state.store.event(event_id.into_inner()).await?))
}

/// Settles again a page of what is not settled; nothing is ever charged twice.
#[utoipa::path(post, path = "/admin/v1/events/replay", operation_id = "replayEvents", request_body = NewReplay, tag = "events",
    responses((status = 200, description = "What became of this page.", body = Replayed), Refusal))]
pub async fn replay(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(page): Body<NewReplay>,
) -> Result<web::Json<Replayed>, Refusal> {
    Ok(web::Json(settling::replay(state.store.as_ref(), page).await?))
}
