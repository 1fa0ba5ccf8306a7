//! What an answer means: new-api's envelope, its refusals in two languages, and everything that is not new-api at all.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::error::GatewayError;
use super::request::Endpoint;
use crate::domain::time::UnixMillis;

/// Longest piece of another's words that is repeated.
const SAID_CHARS: usize = 200;

/// An answer as it came, whole.
pub(super) struct RawAnswer {
    pub(super) endpoint: Endpoint,
    pub(super) url: Url,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// `data` of a success.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) data: Box<RawValue>,
    pub(super) source_time: Option<UnixMillis>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    success: bool,
    #[serde(default)]
    message: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl RawAnswer {
    /// The data, or why there is none. `token` never shows in what is told.
    pub(super) fn judge(self, token: &str) -> Result<Answer, GatewayError> {
        let status = self.status;
        if status.is_redirection() {
            return Err(GatewayError::Redirected { target: self.redirect_target() });
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(GatewayError::RateLimited { retry_after: self.retry_after() });
        }
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            return Err(GatewayError::ServerFailed { status: status.as_u16() });
        }
        let envelope = match std::str::from_utf8(&self.body).map(serde_json::from_str::<Envelope>) {
            Ok(Ok(envelope)) => envelope,
            Ok(Err(error)) => return Err(self.without_envelope(&error)),
            Err(_) => return Err(GatewayError::BrokenAnswer { reason: "it is not UTF-8".to_owned() }),
        };
        if !envelope.success || !status.is_success() {
            let said = tame(envelope.message.as_deref().unwrap_or_default(), token);
            return Err(refusal(self.endpoint, status, said));
        }
        let data = envelope.data.map_or_else(|| RawValue::NULL.to_owned(), ToOwned::to_owned);
        Ok(Answer { data, source_time: self.source_time() })
    }

    fn without_envelope(&self, error: &serde_json::Error) -> GatewayError {
        let status = self.status.as_u16();
        if !self.status.is_success() {
            let hint = match status {
                401 | 403 | 407 => ": a proxy may ask for credentials of its own",
                _ => "",
            };
            return GatewayError::NotNewApi { found: format!("status {status} without new-api's words{hint}") };
        }
        let start = self.body.trim_ascii_start().first();
        match (start, error.classify()) {
            (None, _) => GatewayError::BrokenAnswer { reason: "it is empty".to_owned() },
            (Some(b'<'), _) => GatewayError::NotNewApi { found: "a web page".to_owned() },
            (Some(b'{'), serde_json::error::Category::Data) => {
                GatewayError::NotNewApi { found: "JSON that new-api does not answer".to_owned() }
            }
            (Some(b'{'), _) => GatewayError::BrokenAnswer { reason: format!("{:?} in its JSON", error.classify()) },
            _ => GatewayError::NotNewApi { found: "something that is no JSON object".to_owned() },
        }
    }

    /// Where it points, without what may be secret there.
    fn redirect_target(&self) -> String {
        let location = self.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let Some(mut target) = location.and_then(|location| self.url.join(location).ok()) else {
            return "nowhere".to_owned();
        };
        target.set_query(None);
        target.set_fragment(None);
        // Both fail on addresses that cannot hold a name anyway.
        target.set_username("").ok();
        target.set_password(None).ok();
        tame(target.as_str(), "")
    }

    fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        text.trim().parse().ok().map(Duration::from_secs)
    }

    fn source_time(&self) -> Option<UnixMillis> {
        let text = self.headers.get(DATE)?.to_str().ok()?;
        let time = chrono::DateTime::parse_from_rfc2822(text).ok()?;
        Some(UnixMillis::new(time.timestamp_millis()))
    }
}

/// Another's words, safe to print and to log.
fn tame(text: &str, token: &str) -> String {
    let token = token.strip_prefix("Bearer ").unwrap_or(token).trim();
    let text = if token.is_empty() { text.to_owned() } else { text.replace(token, "********") };
    let mut tamed: String =
        text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(SAID_CHARS).collect();
    if tamed.trim().is_empty() {
        tamed = "without a reason".to_owned();
    }
    tamed
}

/// new-api says these in English or in Chinese, with status 200 more often than not.
fn refusal(endpoint: Endpoint, status: StatusCode, said: String) -> GatewayError {
    let lower = said.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let lacks_rights = says(&["insufficient", "privilege", "permission", "权限不足", "无权限"]);
    if says(&["new-api-user"]) {
        GatewayError::WrongUser { said }
    } else if says(&["banned", "封禁"]) {
        GatewayError::UserBanned { said }
    } else if lacks_rights || (status == StatusCode::FORBIDDEN && !says(&["access token"])) {
        match endpoint {
            Endpoint::Options => GatewayError::NotRoot { said },
            _ => GatewayError::NotAdmin { said },
        }
    } else if status == StatusCode::UNAUTHORIZED || says(&["access token", "unauthorized", "无权进行此操作", "未登录"])
    {
        GatewayError::TokenRefused { said }
    } else {
        GatewayError::Refused { said }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    const TOKEN: &str = "Bearer aTokenThatNobodyMaySee";

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> RawAnswer {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()));
        RawAnswer {
            endpoint: Endpoint::Log,
            url: Url::parse("http://new-api:3000/api/log/").unwrap(),
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn judged(status: u16, body: &str) -> GatewayError {
        answer(status, &[], body).judge(TOKEN).unwrap_err()
    }

    fn refused(message: &str) -> String {
        serde_json::json!({"message": message, "success": false}).to_string()
    }

    #[test]
    fn a_success_has_data_and_the_sources_time() {
        let date = ("date", "Tue, 24 Nov 2026 22:19:49 GMT");
        let found = answer(200, &[date], r#" {"data":{"a":1},"message":"","success":true} "#).judge(TOKEN).unwrap();
        assert_eq!((found.data.get(), found.source_time), (r#"{"a":1}"#, Some(UnixMillis::new(1_795_558_789_000))));
        let found = answer(200, &[("date", "today")], r#"{"success":true}"#).judge(TOKEN).unwrap();
        assert_eq!((found.data.get(), found.source_time), ("null", None));
    }

    #[test]
    fn a_refusal_is_told_by_its_words_in_both_languages() {
        type Expected = fn(String) -> GatewayError;
        let (token, user): (Expected, Expected) =
            (|said| GatewayError::TokenRefused { said }, |said| GatewayError::WrongUser { said });
        let (admin, banned): (Expected, Expected) =
            (|said| GatewayError::NotAdmin { said }, |said| GatewayError::UserBanned { said });
        let other: Expected = |said| GatewayError::Refused { said };
        for (status, message, expected) in [
            (200, "Unauthorized, the access token is invalid", token),
            (200, "无权进行此操作，access token 无效", token),
            (401, "无权进行此操作，未登录且未提供 access token", token),
            (401, "who are you?", token),
            (401, "Unauthorized, New-Api-User does not match", user),
            (401, "无权进行此操作，未提供 New-Api-User", user),
            (200, "无权进行此操作，权限不足", admin),
            (200, "Unauthorized, insufficient privileges", admin),
            (403, "go away", admin),
            (200, "用户已被封禁", banned),
            (200, "User has been banned", banned),
            (200, "database is locked", other),
            (400, "page must be a positive integer", other),
        ] {
            assert_eq!(judged(status, &refused(message)), expected(message.to_owned()), "{status} {message}");
        }
        let options = RawAnswer { endpoint: Endpoint::Options, ..answer(200, &[], &refused("权限不足")) };
        assert_eq!(options.judge(TOKEN).unwrap_err(), GatewayError::NotRoot { said: "权限不足".to_owned() });
        assert_eq!(judged(200, r#"{"success":false}"#), other("without a reason".to_owned()));
    }

    #[test]
    fn what_is_not_new_api_is_told_from_what_broke() {
        for (status, body, found) in [
            (200, "<!doctype html><title>New API</title>", "a web page"),
            (200, "\n  <html>", "a web page"),
            (401, "<html>401</html>", "status 401 without new-api's words: a proxy may ask"),
            (404, "404 page not found", "status 404"),
            (404, r#"{"error":{"message":"Invalid URL"}}"#, "status 404"),
            (200, r#"{"ok":true}"#, "JSON that new-api does not answer"),
            (200, r#"{"success":"yes"}"#, "JSON that new-api does not answer"),
            (200, "[]", "no JSON object"),
            (200, "hello", "no JSON object"),
        ] {
            let error = judged(status, body);
            assert!(matches!(&error, GatewayError::NotNewApi { found: shown } if shown.contains(found)), "{error}");
            assert_eq!(error.condition(), Some("not_new_api"));
        }
        for body in ["", "  ", r#"{"success":true,"data":{"items":[{"id"#, r#"{"success":true,"data":nul}"#] {
            let error = judged(200, body);
            assert!(matches!(error, GatewayError::BrokenAnswer { .. }) && error.may_pass(), "{body}: {error}");
        }
        let broken = RawAnswer { body: b"{\"success\":true,\"data\":\"\xff\"}".to_vec(), ..answer(200, &[], "") };
        assert!(matches!(broken.judge(TOKEN), Err(GatewayError::BrokenAnswer { .. })));
    }

    #[test]
    fn failures_of_the_server_count_by_their_status() {
        assert_eq!(judged(429, ""), GatewayError::RateLimited { retry_after: None });
        let asked = answer(429, &[("retry-after", "7")], "").judge(TOKEN).unwrap_err();
        assert_eq!(asked, GatewayError::RateLimited { retry_after: Some(Duration::from_secs(7)) });
        assert_eq!(judged(502, "<html>Bad Gateway</html>"), GatewayError::ServerFailed { status: 502 });
        assert!(judged(504, "").is_too_slow() && !judged(502, "").is_too_slow());
    }

    #[test]
    fn a_redirect_is_named_without_secrets() {
        let target = |location: &str| match answer(302, &[("location", location)], "").judge(TOKEN) {
            Err(GatewayError::Redirected { target }) => target,
            other => panic!("{other:?}"),
        };
        assert_eq!(target("https://u:p@console.example.com/login?ticket=1#x"), "https://console.example.com/login");
        assert_eq!(target("/new/api/log/"), "http://new-api:3000/new/api/log/");
        let nowhere = answer(301, &[], "").judge(TOKEN).unwrap_err();
        assert_eq!(nowhere, GatewayError::Redirected { target: "nowhere".to_owned() });
    }

    #[test]
    fn anothers_words_are_short_and_without_the_token() {
        let said = format!("bad\ntoken aTokenThatNobodyMaySee {}", "x".repeat(1000));
        let GatewayError::Refused { said } = judged(200, &refused(&said)) else { panic!("another outcome") };
        assert!(said.starts_with("bad token ******** xxx") && said.chars().count() == SAID_CHARS, "{said}");
    }
}
