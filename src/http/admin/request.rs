//! Reads what an operator sent, within limits: a JSON body, or a query. What is not known is refused, not ignored.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::web::BytesMut;
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::StreamExt;
use futures_util::future::{LocalBoxFuture, Ready, ready};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use super::refusal::Refusal;

/// Bytes of the largest body.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The most that one answer lists, as on the command line.
const MOST_LISTED: u32 = 100_000;

/// A JSON body. Whatever `Content-Type` says: there is nothing else that it could be.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Refusal;
    type Future = LocalBoxFuture<'static, Result<Self, Refusal>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        Box::pin(async move {
            let body = tokio::time::timeout(BODY_TIMEOUT, read(payload)).await.map_err(|_| Refusal::BodyTooSlow)??;
            Ok(Body(serde_json::from_slice(&body)?))
        })
    }
}

async fn read(mut payload: Payload) -> Result<BytesMut, Refusal> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Refusal::BodyBroken)?;
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(Refusal::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The query of a request; its type refuses unknown names.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = Refusal;
    type Future = Ready<Result<Self, Refusal>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let query = web::Query::<T>::from_query(request.query_string());
        ready(query.map(|query| Query(query.into_inner())).map_err(|error| {
            // Without the library's own words before ours.
            let actix_web::error::QueryPayloadError::Deserialize(error) = error else {
                return Refusal::Query(error.to_string());
            };
            Refusal::Query(error.to_string())
        }))
    }
}

/// For paths that take no query.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoQuery {}

/// How many to list, 1 to 100000.
pub fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let limit = text.parse().ok().filter(|limit| (1..=MOST_LISTED).contains(limit));
    limit.map(Some).ok_or_else(|| D::Error::custom(format!("limit must be a whole number between 1 and {MOST_LISTED}")))
}
