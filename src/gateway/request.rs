//! The paths that are asked, and the words in which requests to them are counted.

use metrics::counter;

use super::error::GatewayError;

/// The metric of all requests; `telemetry` describes it.
pub const REQUESTS: &str = "hookledger_newapi_requests_total";

/// What of new-api's API is used. Nothing here changes anything there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    Status,
    Options,
    Log,
    LogStat,
}

impl Endpoint {
    pub const ALL: [Endpoint; 4] = [Endpoint::Status, Endpoint::Options, Endpoint::Log, Endpoint::LogStat];

    /// The label of its requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Endpoint::Status => "status",
            Endpoint::Options => "option",
            Endpoint::Log => "log",
            Endpoint::LogStat => "log_stat",
        }
    }

    /// new-api redirects what lacks the slash at its end.
    pub(super) fn path(self) -> &'static str {
        match self {
            Endpoint::Status => "/api/status",
            Endpoint::Options => "/api/option/",
            Endpoint::Log => "/api/log/",
            Endpoint::LogStat => "/api/log/stat",
        }
    }

    pub(super) fn needs_token(self) -> bool {
        self != Endpoint::Status
    }
}

/// What became of one request; each retry is one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestStatus {
    Answered,
    /// Token, user, rights, or another refusal in new-api's own words.
    Refused,
    RateLimited,
    ServerFailed,
    OutOfReach,
    TimedOut,
    /// Broken off, too long, or not what was asked for.
    Unusable,
    NotNewApi,
}

impl RequestStatus {
    pub const ALL: [RequestStatus; 8] = [
        RequestStatus::Answered,
        RequestStatus::Refused,
        RequestStatus::RateLimited,
        RequestStatus::ServerFailed,
        RequestStatus::OutOfReach,
        RequestStatus::TimedOut,
        RequestStatus::Unusable,
        RequestStatus::NotNewApi,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            RequestStatus::Answered => "answered",
            RequestStatus::Refused => "refused",
            RequestStatus::RateLimited => "rate_limited",
            RequestStatus::ServerFailed => "server_failed",
            RequestStatus::OutOfReach => "out_of_reach",
            RequestStatus::TimedOut => "timed_out",
            RequestStatus::Unusable => "unusable",
            RequestStatus::NotNewApi => "not_new_api",
        }
    }

    /// None for what failed before anything was sent.
    fn of_failure(error: &GatewayError) -> Option<Self> {
        Some(match error {
            GatewayError::TokenRefused { .. }
            | GatewayError::WrongUser { .. }
            | GatewayError::NotAdmin { .. }
            | GatewayError::NotRoot { .. }
            | GatewayError::UserBanned { .. }
            | GatewayError::Refused { .. } => RequestStatus::Refused,
            GatewayError::RateLimited { .. } => RequestStatus::RateLimited,
            GatewayError::ServerFailed { .. } => RequestStatus::ServerFailed,
            GatewayError::OutOfReach { .. } => RequestStatus::OutOfReach,
            GatewayError::TimedOut { .. } => RequestStatus::TimedOut,
            GatewayError::BrokenAnswer { .. } | GatewayError::TooLong { .. } | GatewayError::FilterIgnored { .. } => {
                RequestStatus::Unusable
            }
            GatewayError::NotNewApi { .. } | GatewayError::Redirected { .. } => RequestStatus::NotNewApi,
            GatewayError::TooManyWaiting { .. } | GatewayError::NoClient { .. } => return None,
        })
    }
}

/// Counts one request by its outcome.
pub(super) fn count<T>(endpoint: Endpoint, outcome: &Result<T, GatewayError>) {
    let status = match outcome {
        Ok(_) => Some(RequestStatus::Answered),
        Err(error) => RequestStatus::of_failure(error),
    };
    if let Some(status) = status {
        counter!(REQUESTS, "endpoint" => endpoint.as_str(), "status" => status.as_str()).increment(1);
    }
}
