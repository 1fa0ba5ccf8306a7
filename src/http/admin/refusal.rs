//! Every answer to an operator that is no success: its status, its words and its shape, in one place.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, Responder, ResponseError};
use serde::Serialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use super::request::MAX_BODY_BYTES;
use crate::actors::sync_desk::SyncUnderWay;
use crate::actors::sync_document::{SyncFailure, SyncTrouble};
use crate::storage::StoreError;
use crate::storage::books::BooksError;

/// The body of every refusal.
#[derive(Serialize, ToSchema)]
pub struct ErrorAnswer {
    /// Always false.
    pub success: bool,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Why an operator's request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("Missing token: send Authorization: Bearer …")]
    MissingToken,
    #[error("Invalid token")]
    WrongToken,
    #[error("Too many invalid tokens")]
    TooManyWrongTokens { retry_after: Duration },
    #[error("No such path")]
    NoSuchPath,
    #[error("Method not allowed, use {allowed}")]
    WrongMethod { allowed: String },
    #[error("Body is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    #[error("Body did not arrive in time")]
    BodyTooSlow,
    #[error("Body could not be read")]
    BodyBroken,
    #[error("Body is not what this path takes: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("The query is not what this path takes: {0}")]
    Query(String),
    #[error("No such sync since the daemon was started")]
    NoSync,
    #[error(transparent)]
    SyncUnderWay(#[from] SyncUnderWay),
    #[error("{}", .0.message)]
    Sync(SyncFailure),
    #[error(transparent)]
    Books(#[from] BooksError),
}

impl From<SyncFailure> for Refusal {
    fn from(failure: SyncFailure) -> Self {
        Refusal::Sync(failure)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Refusal::Books(error.into())
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::MissingToken | Refusal::WrongToken => StatusCode::UNAUTHORIZED,
            Refusal::TooManyWrongTokens { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refusal::NoSuchPath | Refusal::NoSync => StatusCode::NOT_FOUND,
            Refusal::SyncUnderWay(_) => StatusCode::CONFLICT,
            Refusal::Sync(failure) => match failure.trouble {
                SyncTrouble::Configuration => StatusCode::UNPROCESSABLE_ENTITY,
                SyncTrouble::Refused | SyncTrouble::Source => StatusCode::BAD_REQUEST,
                SyncTrouble::Database | SyncTrouble::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
            },
            Refusal::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::BodyBroken | Refusal::Malformed(_) | Refusal::Query(_) => StatusCode::BAD_REQUEST,
            Refusal::Books(error) => match error {
                BooksError::NoSuchUser(_)
                | BooksError::NoSuchEvent(_)
                | BooksError::NoSuchDispute(_)
                | BooksError::NoSuchKey(_)
                | BooksError::NoSuchCharge(_) => StatusCode::NOT_FOUND,
                BooksError::EmailTaken(_)
                | BooksError::RemoteIdTaken { .. }
                | BooksError::IdempotencyConflict(_)
                | BooksError::Undecided { .. }
                | BooksError::PlatformsOwn
                | BooksError::Apart(_)
                | BooksError::SeveralCharges { .. }
                | BooksError::UserGone(_)
                | BooksError::NothingLeft(_)
                | BooksError::MoreThanLeft { .. }
                | BooksError::KeyNotActive(_)
                | BooksError::NotThatSecond(_)
                | BooksError::SeveralKeyOwners(_) => StatusCode::CONFLICT,
                BooksError::Invalid(_) => StatusCode::BAD_REQUEST,
                BooksError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            },
        }
    }

    /// Logs what an operator should see, once. Before the token, anyone can cause these: then a line each at debug.
    fn log(&self) {
        let status = self.status().as_u16();
        match self {
            Refusal::Books(error) => tracing::warn!(status, %error, "an operator's request was refused"),
            other => tracing::debug!(status, error = %other, "an operator's request was refused"),
        }
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    fn error_response(&self) -> HttpResponse {
        self.log();
        let mut builder = HttpResponseBuilder::new(self.status());
        match self {
            Refusal::MissingToken | Refusal::WrongToken => {
                builder.insert_header((WWW_AUTHENTICATE, "Bearer"));
            }
            Refusal::TooManyWrongTokens { retry_after } => {
                let seconds = retry_after.as_secs_f64().ceil().max(1.0);
                builder.insert_header((RETRY_AFTER, format!("{seconds:.0}")));
            }
            Refusal::WrongMethod { allowed } => {
                builder.insert_header((ALLOW, allowed.as_str()));
            }
            Refusal::Books(BooksError::Store(_)) => {
                builder.insert_header((RETRY_AFTER, "1"));
            }
            // What is left of the body is not worth reading.
            Refusal::TooLarge | Refusal::BodyTooSlow | Refusal::BodyBroken => {
                builder.force_close();
            }
            _ => {}
        }
        builder.json(ErrorAnswer { success: false, message: self.to_string() })
    }
}

impl Responder for Refusal {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.error_response()
    }
}

/// Those that every route may answer.
impl IntoResponses for Refusal {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let described = [
            ("400", "The query or the body is not what this path takes; the message says where."),
            ("401", "On server.listen: the token is missing or wrong."),
            ("413", "The body is too large."),
            ("429", "On server.listen: too many wrong tokens came from this address."),
            ("503", "The database cannot be used now; ask again."),
        ];
        let response = |description: &str| {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorAnswer"))).build();
            ResponseBuilder::new().description(description).content("application/json", content).build().into()
        };
        described.into_iter().map(|(status, description)| (status.to_owned(), response(description))).collect()
    }
}
