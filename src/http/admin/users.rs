//! `/admin/v1/users`: who has a balance.

use actix_web::web;
use serde::Deserialize;
use utoipa::IntoParams;

use super::AdminState;
use super::refusal::{ErrorAnswer, Refusal};
use super::request::{Body, NoQuery, Query, limit};
use crate::storage::books::{Created, NewUser, UserView};
use crate::telemetry::metrics;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// How many to list at most.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 100_000, default = 100)]
    limit: Option<u32>,
}

/// Lists the users, newest first.
#[utoipa::path(get, path = "/admin/v1/users", operation_id = "listUsers", params(ListQuery), tag = "books",
    responses((status = 200, description = "The users.", body = Vec<UserView>), Refusal))]
pub async fn list(
    state: web::Data<AdminState>,
    Query(query): Query<ListQuery>,
) -> Result<web::Json<Vec<UserView>>, Refusal> {
    Ok(web::Json(state.store.users(query.limit.unwrap_or(100)).await?))
}

/// Adds a user.
#[utoipa::path(post, path = "/admin/v1/users", operation_id = "addUser", request_body = NewUser, tag = "books", responses(
    (status = 200, description = "The new user's id.", body = Created),
    (status = 409, description = "A user has this email already.", body = ErrorAnswer), Refusal))]
pub async fn add(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(user): Body<NewUser>,
) -> Result<web::Json<Created>, Refusal> {
    let credits = user.credits;
    let added = state.store.add_user(user).await?;
    metrics::credits_moved("RECHARGE", credits.unsigned_abs());
    Ok(web::Json(added))
}
