//! `/admin/v1/keys`: which user pays for which token of new-api.

use actix_web::web;
use serde::Deserialize;
use utoipa::IntoParams;

use super::AdminState;
use super::refusal::{ErrorAnswer, Refusal};
use super::request::{Body, NoQuery, Query, limit};
use crate::actors::ledger::SettleWaiting;
use crate::storage::Waiting;
use crate::storage::books::{Created, Ignored, KeyView, NewIgnore, NewKey, UnmatchedToken};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only the keys of this user: id or email.
    user: Option<String>,
    /// How many to list at most.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 100_000, default = 100)]
    limit: Option<u32>,
}

/// Lists the keys, newest first.
#[utoipa::path(get, path = "/admin/v1/keys", operation_id = "listKeys", params(ListQuery), tag = "books", responses(
    (status = 200, description = "The keys.", body = Vec<KeyView>),
    (status = 404, description = "There is no such user.", body = ErrorAnswer), Refusal))]
pub async fn list(
    state: web::Data<AdminState>,
    Query(query): Query<ListQuery>,
) -> Result<web::Json<Vec<KeyView>>, Refusal> {
    Ok(web::Json(state.store.keys(query.user, query.limit.unwrap_or(100)).await?))
}

/// Gives a token of new-api to a user; what waited for it is then charged.
#[utoipa::path(post, path = "/admin/v1/keys", operation_id = "addKey", request_body = NewKey, tag = "books", responses(
    (status = 200, description = "The new key's id.", body = Created),
    (status = 404, description = "There is no such user.", body = ErrorAnswer),
    (status = 409, description = "Another user has this token already.", body = ErrorAnswer), Refusal))]
pub async fn add(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(key): Body<NewKey>,
) -> Result<web::Json<Created>, Refusal> {
    let created = state.store.add_key(key).await?;
    // Events that waited for this key are settled at once; if the Ledger is down, a look within a minute wakes them.
    state.directory.ledger.try_send(SettleWaiting(Waiting::Woken)).ok();
    Ok(web::Json(created))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TokensQuery {
    /// How many to list at most.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 100_000, default = 100)]
    limit: Option<u32>,
}

/// Lists tokens that no key has and events wait for, most calls first.
#[utoipa::path(get, path = "/admin/v1/keys/unmatched", operation_id = "listUnmatchedTokens", params(TokensQuery),
    tag = "books", responses((status = 200, description = "The tokens.", body = Vec<UnmatchedToken>), Refusal))]
pub async fn unmatched(
    state: web::Data<AdminState>,
    Query(query): Query<TokensQuery>,
) -> Result<web::Json<Vec<UnmatchedToken>>, Refusal> {
    Ok(web::Json(state.store.unmatched_tokens(query.limit.unwrap_or(100)).await?))
}

/// Lists tokens whose calls are charged to nobody.
#[utoipa::path(get, path = "/admin/v1/keys/ignored", operation_id = "listIgnoredTokens", params(TokensQuery),
    tag = "books", responses((status = 200, description = "The tokens.", body = Vec<Ignored>), Refusal))]
pub async fn ignored(
    state: web::Data<AdminState>,
    Query(query): Query<TokensQuery>,
) -> Result<web::Json<Vec<Ignored>>, Refusal> {
    Ok(web::Json(state.store.ignored_tokens(query.limit.unwrap_or(100)).await?))
}

/// Ignores a token, so that its calls are charged to nobody, or ends that.
#[utoipa::path(post, path = "/admin/v1/keys/ignored", operation_id = "ignoreToken", request_body = NewIgnore,
    tag = "books", responses((status = 200, description = "What it came to.", body = Ignored), Refusal))]
pub async fn ignore(
    state: web::Data<AdminState>,
    _: Query<NoQuery>,
    Body(ignore): Body<NewIgnore>,
) -> Result<web::Json<Ignored>, Refusal> {
    Ok(web::Json(state.store.ignore_token(ignore).await?))
}
