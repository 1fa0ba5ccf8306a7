//! Every answer to a sender: its status, its words and its metric, in one place.
//!
//! The order of the variants is the order in which the protocol checks them.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, HttpResponseBuilder};
use serde::Serialize;

use crate::actors::receiver::Refusal;
use crate::domain::event::NoticeKind;
use crate::domain::outcome::{Failure, InboxStatus, RecordOutcome, SettlementOutcome};

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    ForbiddenSource,
    NotFound,
    WrongMethod {
        allowed: &'static str,
    },
    TooLarge {
        limit_bytes: usize,
    },
    BodyTooSlow,
    BodyBroken,
    MissingSignature,
    BadSignature,
    TooManyBadSignatures {
        retry_after: Duration,
    },
    RateLimited {
        retry_after: Duration,
    },
    Malformed {
        message: String,
    },
    UnknownType {
        message: String,
        event_id: String,
    },
    Ping {
        event_id: String,
    },
    Expired {
        message: String,
        event_id: String,
    },
    Disabled {
        event_id: String,
    },
    Unavailable {
        message: &'static str,
    },
    Conflict {
        event_id: String,
    },
    Processed {
        event_id: String,
    },
    Duplicate {
        event_id: String,
    },
    Accepted {
        event_id: String,
    },
    /// Accepted, until the log tells whether an alike row is the same call.
    Waiting {
        event_id: String,
    },
    Failed {
        message: String,
        event_id: String,
    },
}

/// The words for a service that cannot take an event now.
pub const TRY_AGAIN: &str = "Event could not be stored now, please repeat it";
pub const TOO_BUSY: &str = "Too many requests are under way, please repeat it";

/// How long a sender should wait where we do not know better.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The body of every answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    success: bool,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
}

impl Answer {
    pub fn of_refusal(refusal: Refusal) -> Self {
        match refusal {
            Refusal::MissingSignature => Answer::MissingSignature,
            Refusal::BadSignature => Answer::BadSignature,
            Refusal::TooManyBadSignatures { retry_after } => Answer::TooManyBadSignatures { retry_after },
            Refusal::RateLimited { retry_after } => Answer::RateLimited { retry_after },
            Refusal::Malformed(problem) => Answer::Malformed { message: problem.to_string() },
            Refusal::Expired { event_id, event_time, our_time } => Answer::Expired {
                message: format!("Timestamp outside the tolerance: event {event_time}, here {our_time}"),
                event_id: event_id.to_string(),
            },
            Refusal::Disabled { event_id } => Answer::Disabled { event_id: event_id.to_string() },
        }
    }

    pub fn of_settlement(outcome: SettlementOutcome, event_id: &str) -> Self {
        let event_id = event_id.to_owned();
        match outcome {
            SettlementOutcome::Settled { .. } | SettlementOutcome::Unpaid { .. } => Answer::Processed { event_id },
            SettlementOutcome::AlreadySettled | SettlementOutcome::Tied => Answer::Duplicate { event_id },
            SettlementOutcome::Deferred => Answer::Accepted { event_id },
            SettlementOutcome::Waits => Answer::Waiting { event_id },
            SettlementOutcome::Conflict => Answer::Conflict { event_id },
            SettlementOutcome::Failed(failure) => Answer::of_failure(&failure, event_id),
        }
    }

    fn of_failure(failure: &Failure, event_id: String) -> Self {
        Answer::Failed { message: failure.message(), event_id }
    }

    /// For a usage event that was recorded instead of settled.
    pub fn of_record(outcome: RecordOutcome, event_id: &str) -> Self {
        let event_id = event_id.to_owned();
        match outcome {
            RecordOutcome::Recorded | RecordOutcome::Known { status: InboxStatus::Pending, .. } => {
                Answer::Accepted { event_id }
            }
            RecordOutcome::Known { status: InboxStatus::Processed, .. } => Answer::Duplicate { event_id },
            RecordOutcome::Known { status: InboxStatus::Failed | InboxStatus::Dead, message } => {
                Answer::Failed { message: message.unwrap_or_default(), event_id }
            }
            RecordOutcome::Conflict => Answer::Conflict { event_id },
        }
    }

    /// For what moves no credits.
    pub fn of_notice(kind: &NoticeKind, event_id: &str) -> Self {
        let event_id = event_id.to_owned();
        match kind.message() {
            Some(message) => Answer::UnknownType { message, event_id },
            None => Answer::Ping { event_id },
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Answer::ForbiddenSource | Answer::BadSignature => StatusCode::FORBIDDEN,
            Answer::NotFound => StatusCode::NOT_FOUND,
            Answer::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Answer::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Answer::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Answer::BodyBroken | Answer::MissingSignature | Answer::Malformed { .. } | Answer::Expired { .. } => {
                StatusCode::BAD_REQUEST
            }
            Answer::TooManyBadSignatures { .. } | Answer::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Answer::Disabled { .. } | Answer::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Answer::Conflict { .. } => StatusCode::CONFLICT,
            Answer::Accepted { .. } | Answer::Waiting { .. } => StatusCode::ACCEPTED,
            Answer::UnknownType { .. }
            | Answer::Ping { .. }
            | Answer::Processed { .. }
            | Answer::Duplicate { .. }
            | Answer::Failed { .. } => StatusCode::OK,
        }
    }

    fn is_success(&self) -> bool {
        matches!(
            self,
            Answer::Ping { .. }
                | Answer::Processed { .. }
                | Answer::Duplicate { .. }
                | Answer::Accepted { .. }
                | Answer::Waiting { .. }
        )
    }

    /// Label of `hookledger_webhook_requests_total`.
    pub fn outcome(&self) -> &'static str {
        match self {
            Answer::ForbiddenSource => "forbidden_source",
            Answer::TooLarge { .. } => "too_large",
            Answer::MissingSignature => "missing_signature",
            Answer::BadSignature => "bad_signature",
            Answer::TooManyBadSignatures { .. } | Answer::RateLimited { .. } => "rate_limited",
            Answer::Malformed { .. }
            | Answer::NotFound
            | Answer::WrongMethod { .. }
            | Answer::BodyTooSlow
            | Answer::BodyBroken => "malformed",
            Answer::UnknownType { .. } => "unknown_type",
            Answer::Ping { .. } | Answer::Processed { .. } => "processed",
            Answer::Expired { .. } => "expired",
            Answer::Disabled { .. } => "disabled",
            Answer::Unavailable { .. } => "unavailable",
            Answer::Conflict { .. } => "conflict",
            Answer::Duplicate { .. } => "duplicate",
            Answer::Accepted { .. } => "accepted",
            Answer::Waiting { .. } => "waiting",
            Answer::Failed { message, .. } if Failure::is_disputed(message) => "disputed",
            Answer::Failed { .. } => "failed",
        }
    }

    fn message(&self) -> String {
        match self {
            Answer::ForbiddenSource => "Source address is not allowed".to_owned(),
            Answer::NotFound => "No such path".to_owned(),
            Answer::WrongMethod { allowed } => format!("Method not allowed, use {allowed}"),
            Answer::TooLarge { limit_bytes } => format!("Body is larger than {limit_bytes} bytes"),
            Answer::BodyTooSlow => "Body did not arrive in time".to_owned(),
            Answer::BodyBroken => "Body could not be read".to_owned(),
            Answer::MissingSignature => "Missing webhook signature".to_owned(),
            Answer::BadSignature => "Invalid webhook signature".to_owned(),
            Answer::TooManyBadSignatures { .. } => "Too many invalid webhook signatures".to_owned(),
            Answer::RateLimited { .. } => "Too many requests".to_owned(),
            Answer::Malformed { message }
            | Answer::UnknownType { message, .. }
            | Answer::Expired { message, .. }
            | Answer::Failed { message, .. } => message.clone(),
            Answer::Ping { .. } => "Webhook is working".to_owned(),
            Answer::Disabled { .. } => "Webhook is disabled".to_owned(),
            Answer::Unavailable { message } => (*message).to_owned(),
            Answer::Conflict { .. } => {
                "Event ID is known with other content: nothing was charged for this delivery".to_owned()
            }
            Answer::Processed { .. } => "Event processed successfully".to_owned(),
            Answer::Duplicate { .. } => "Event already processed (idempotent)".to_owned(),
            Answer::Accepted { .. } | Answer::Waiting { .. } => "Event accepted, processing".to_owned(),
        }
    }

    pub fn event_id(&self) -> Option<&str> {
        match self {
            Answer::UnknownType { event_id, .. }
            | Answer::Ping { event_id }
            | Answer::Expired { event_id, .. }
            | Answer::Disabled { event_id }
            | Answer::Conflict { event_id }
            | Answer::Processed { event_id }
            | Answer::Duplicate { event_id }
            | Answer::Accepted { event_id }
            | Answer::Waiting { event_id }
            | Answer::Failed { event_id, .. } => Some(event_id),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Answer::TooManyBadSignatures { retry_after } | Answer::RateLimited { retry_after } => Some(*retry_after),
            Answer::Unavailable { .. } | Answer::Disabled { .. } => Some(DEFAULT_RETRY_AFTER),
            _ => None,
        }
    }

    /// Logs what an operator should see, once.
    pub fn log(&self) {
        let (status, outcome, event_id) = (self.status().as_u16(), self.outcome(), self.event_id().unwrap_or_default());
        let message = self.message();
        match self {
            Answer::Conflict { .. } | Answer::Unavailable { .. } => {
                tracing::warn!(event_id, status, outcome, reason = %message, "webhook not taken");
            }
            Answer::Failed { .. } => {
                tracing::warn!(event_id, status, outcome, reason = %message, "webhook stored, not charged");
            }
            Answer::Processed { .. } | Answer::Duplicate { .. } | Answer::Ping { .. } => {
                tracing::debug!(event_id, status, outcome, "webhook answered");
            }
            Answer::Accepted { .. } | Answer::Waiting { .. } | Answer::UnknownType { .. } => {
                tracing::info!(event_id, status, outcome, reason = %message, "webhook recorded");
            }
            // Anyone can cause these: a line each at debug, so that a flood does not fill the disk.
            _ => tracing::debug!(event_id, status, outcome, reason = %message, "webhook refused"),
        }
    }

    pub fn into_response(self) -> HttpResponse {
        let mut builder = HttpResponseBuilder::new(self.status());
        if let Some(wait) = self.retry_after() {
            let seconds = wait.as_secs_f64().ceil().max(1.0);
            builder.insert_header((RETRY_AFTER, format!("{seconds:.0}")));
        }
        match &self {
            Answer::WrongMethod { allowed } => {
                builder.insert_header(("Allow", *allowed));
            }
            // What is left of the body is not worth reading.
            Answer::TooLarge { .. } | Answer::BodyTooSlow | Answer::BodyBroken => {
                builder.insert_header((CONNECTION, HeaderValue::from_static("close")));
                builder.force_close();
            }
            _ => {}
        }
        builder.json(Body { success: self.is_success(), message: &self.message(), event_id: self.event_id() })
    }
}
