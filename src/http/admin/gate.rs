//! Who may ask on the senders' listener: whoever has the token, and nobody else.
//!
//! Nothing of a request is read before its token holds. Wrong ones use up the allowance of their source for bad requests;
//! right ones are never held against it.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, ResponseError, web};

use super::AdminState;
use super::refusal::Refusal;
use crate::actors::limits::Source;
use crate::http::source::client_address;

const SCHEME: &str = "Bearer";

/// Lets a request with the right token through.
pub async fn only_with_token(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let refusal = match request.app_data::<web::Data<AdminState>>() {
        Some(state) => check(request.request(), state).err(),
        None => Some(Refusal::NoSuchPath),
    };
    match refusal {
        None => Ok(next.call(request).await?.map_into_boxed_body()),
        Some(refusal) => Ok(request.into_response(refusal.error_response())),
    }
}

fn check(request: &HttpRequest, state: &AdminState) -> Result<(), Refusal> {
    let policy = state.http.policy_of(request);
    let token = policy.admin_token.as_ref().ok_or(Refusal::NoSuchPath)?;
    let given = request.headers().get(AUTHORIZATION).ok_or(Refusal::MissingToken)?;
    if bearer(given.as_bytes()).is_some_and(|given| token.is(given)) {
        return Ok(());
    }
    let Some(address) = client_address(request, &policy.trusted_proxies) else {
        return Err(Refusal::WrongToken);
    };
    match state.limits.check_bad(Source::of(address)) {
        Ok(()) => Err(Refusal::WrongToken),
        Err(retry_after) => Err(Refusal::TooManyWrongTokens { retry_after }),
    }
}

/// The token after the scheme, whose case does not matter.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(SCHEME.len())?;
    let token = rest.strip_prefix(b" ")?;
    scheme.eq_ignore_ascii_case(SCHEME.as_bytes()).then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_asked_for() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for wrong in [&b"abc"[..], b"Basic abc", b"Bearer", b"Bearerabc", b""] {
            assert_eq!(bearer(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
    }
}
