//! Why new-api did not answer what was asked, and what a person can change about it. No text here ever holds a token.

use std::time::Duration;

use super::window::Window;

/// A request without the answer that was asked for. Displays what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    #[error(
        "new-api refuses the access token ({said}): make a new one in its console, under personal settings, and set \
         newapi.access_token"
    )]
    TokenRefused { said: String },
    #[error(
        "newapi.user_id does not fit newapi.access_token ({said}): set it to the number of the user in new-api whose \
         token it is"
    )]
    WrongUser { said: String },
    #[error("the user of newapi.access_token is no administrator of new-api ({said}): take an administrator's token")]
    NotAdmin { said: String },
    #[error(
        "the user of newapi.access_token is not the root user of new-api ({said}), so its options cannot be read; its \
         log can"
    )]
    NotRoot { said: String },
    #[error("new-api has banned the user of newapi.access_token ({said}): enable it, or take another's token")]
    UserBanned { said: String },
    #[error("what answers at newapi.base_url is not new-api ({found}): check the address, and any proxy before it")]
    NotNewApi { found: String },
    #[error(
        "newapi.base_url redirects to {target}, and a token is never sent after a redirect: set newapi.base_url to \
         where new-api is"
    )]
    Redirected { target: String },
    #[error(
        "new-api limits how often it is asked, everything behind this address together: lower \
         newapi.requests_per_second, or raise its GLOBAL_API_RATE_LIMIT"
    )]
    RateLimited {
        /// What the answer asked to wait, if it said.
        retry_after: Option<Duration>,
    },
    #[error("new-api refuses: {said}")]
    Refused { said: String },
    #[error("new-api, or a proxy before it, fails with status {status}: look at its own log")]
    ServerFailed { status: u16 },
    #[error("new-api is out of reach ({reason}): check newapi.base_url, and whether it runs")]
    OutOfReach { reason: String },
    #[error("new-api did not answer within {}ms: it is slow, or newapi.timeout too short", after.as_millis())]
    TimedOut { after: Duration },
    #[error("new-api's answer broke off or is no JSON ({reason})")]
    BrokenAnswer { reason: String },
    #[error("new-api's answer is longer than {limit_bytes} bytes")]
    TooLong { limit_bytes: usize },
    #[error(
        "new-api ignores the filter {filter}: asked for rows of type {kind} from second {window}, it answered {found}; \
         nothing of that answer counts"
    )]
    FilterIgnored { filter: &'static str, kind: i64, window: Window, found: String },
    #[error(
        "requests to new-api wait {}s for their turn already: raise newapi.requests_per_second", wait.as_secs()
    )]
    TooManyWaiting { wait: Duration },
    #[error("the HTTP client cannot be set up: {reason}")]
    NoClient { reason: String },
}

impl GatewayError {
    /// Whether the same request may be answered a moment later.
    pub fn may_pass(&self) -> bool {
        match self {
            GatewayError::RateLimited { .. }
            | GatewayError::ServerFailed { .. }
            | GatewayError::OutOfReach { .. }
            | GatewayError::TimedOut { .. }
            | GatewayError::BrokenAnswer { .. } => true,
            GatewayError::TokenRefused { .. }
            | GatewayError::WrongUser { .. }
            | GatewayError::NotAdmin { .. }
            | GatewayError::NotRoot { .. }
            | GatewayError::UserBanned { .. }
            | GatewayError::NotNewApi { .. }
            | GatewayError::Redirected { .. }
            | GatewayError::Refused { .. }
            | GatewayError::TooLong { .. }
            | GatewayError::FilterIgnored { .. }
            | GatewayError::TooManyWaiting { .. }
            | GatewayError::NoClient { .. } => false,
        }
    }

    /// Whether less would have been answered in time: a proxy that gave up waiting says so by its status.
    pub fn is_too_slow(&self) -> bool {
        matches!(self, GatewayError::TimedOut { .. } | GatewayError::ServerFailed { status: 408 | 504 | 524 })
    }

    /// The named condition that someone should look at, where this means one.
    pub fn condition(&self) -> Option<&'static str> {
        match self {
            GatewayError::TokenRefused { .. }
            | GatewayError::WrongUser { .. }
            | GatewayError::NotAdmin { .. }
            | GatewayError::UserBanned { .. } => Some("token_refused"),
            GatewayError::NotNewApi { .. } | GatewayError::Redirected { .. } => Some("not_new_api"),
            GatewayError::FilterIgnored { .. } => Some("filter_ignored"),
            _ => None,
        }
    }
}
