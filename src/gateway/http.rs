//! new-api asked over HTTP: one request at a time gets its turn, its timeout and its retries. What an answer means is
//! `answer`, what a log's page holds `log_page`.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rand::Rng;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::answer::{Answer, RawAnswer};
use super::error::GatewayError;
use super::log_page::{self, Dialect, LogPage};
use super::pace::{Pacer, Retries};
use super::request::{self, Endpoint};
use super::row::Asked;
use super::window::Window;
use super::{Gateway, GatewayOptions, GatewayStatus, StatedQuota};
use crate::config::{NewApiAccess, NewApiSettings};
use crate::domain::decimal::Decimal;
use crate::domain::log_row::RowKind;
use crate::domain::money::QuotaPerUnit;

/// Longest answer that is read. A full page is some 100 KiB.
const LARGEST_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// A machine that is there takes a connection sooner.
const LONGEST_CONNECT: Duration = Duration::from_secs(10);

const USER_HEADER: HeaderName = HeaderName::from_static("new-api-user");

/// One gateway, shared by all who ask it.
pub struct HttpGateway {
    client: Client,
    base_url: Url,
    access_token: SecretString,
    authentication: HeaderMap,
    timeout: Duration,
    page_size: u32,
    group: Option<String>,
    username: Option<String>,
    pacer: Pacer,
    retries: Retries,
    /// What the last page was answered in; a new-api may be upgraded meanwhile.
    is_bare: AtomicBool,
}

type Query = Vec<(&'static str, String)>;

impl HttpGateway {
    /// Sends nothing yet.
    pub fn new(access: &NewApiAccess, settings: &NewApiSettings) -> Result<Self, GatewayError> {
        Ok(HttpGateway {
            client: client(&access.base_url, settings.timeout)?,
            base_url: access.base_url.clone(),
            access_token: access.access_token.clone(),
            authentication: authentication(access)?,
            timeout: settings.timeout,
            page_size: settings.page_size,
            group: settings.group.clone(),
            username: settings.username.clone(),
            pacer: Pacer::new(settings.requests_per_second),
            retries: Retries { max_retries: settings.max_retries, base_backoff: settings.base_backoff },
            is_bare: AtomicBool::new(false),
        })
    }

    /// One answer, in turn and with retries. `repeat_slow` is false where asking for less helps more.
    async fn ask(&self, endpoint: Endpoint, query: &Query, repeat_slow: bool) -> Result<Answer, GatewayError> {
        let url = self.url(endpoint, query);
        let mut failures = 0;
        loop {
            let turn = self.pacer.take_turn(Instant::now())?;
            if !turn.is_zero() {
                tokio::time::sleep(turn).await;
            }
            let outcome = self.send(endpoint, url.clone()).await;
            request::count(endpoint, &outcome);
            let error = match outcome {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_too_slow() && !repeat_slow => return Err(error),
                Err(error) => error,
            };
            failures += 1;
            let jitter = rand::rng().random_range(0.0..=1.0);
            let pause = self.retries.pause_after(&error, failures, jitter);
            let is_limited = matches!(error, GatewayError::RateLimited { .. });
            if is_limited {
                // The allowance that is used up is everybody's, also after the last try.
                self.pacer.hold_back(Instant::now(), pause.unwrap_or(self.retries.base_backoff));
            }
            let Some(pause) = pause else { return Err(error) };
            tracing::debug!(endpoint = endpoint.as_str(), failures, %error, "new-api is asked again after a pause");
            if !is_limited {
                tokio::time::sleep(pause).await;
            }
        }
    }

    async fn send(&self, endpoint: Endpoint, url: Url) -> Result<Answer, GatewayError> {
        let mut request = self.client.get(url.clone()).timeout(self.timeout);
        if endpoint.needs_token() {
            request = request.headers(self.authentication.clone());
        }
        let response = request.send().await.map_err(|error| self.transport_error(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.read_body(response).await?;
        RawAnswer { endpoint, url, status, headers, body }.judge(self.access_token.expose_secret())
    }

    async fn read_body(&self, mut response: Response) -> Result<Vec<u8>, GatewayError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport_error(&error))? {
            if body.len() + chunk.len() > LARGEST_ANSWER_BYTES {
                return Err(GatewayError::TooLong { limit_bytes: LARGEST_ANSWER_BYTES });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn transport_error(&self, error: &reqwest::Error) -> GatewayError {
        if error.is_connect() {
            return GatewayError::OutOfReach { reason: reason(error) };
        }
        if error.is_timeout() {
            return GatewayError::TimedOut { after: self.timeout };
        }
        GatewayError::BrokenAnswer { reason: reason(error) }
    }

    fn url(&self, endpoint: Endpoint, query: &Query) -> Url {
        let mut url = self.base_url.clone();
        url.set_path(&format!("{}{}", self.base_url.path().trim_end_matches('/'), endpoint.path()));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// The filters of everything that is asked about the log.
    fn log_query(&self, window: Window, kind: RowKind) -> Query {
        let mut query = vec![
            ("type", kind.number().to_string()),
            ("start_timestamp", window.from_second().to_string()),
            ("end_timestamp", window.to_second().to_string()),
        ];
        query.extend(self.username.iter().map(|username| ("username", username.clone())));
        query.extend(self.group.iter().map(|group| ("group", group.clone())));
        query
    }

    fn dialect(&self) -> Dialect {
        if self.is_bare.load(Ordering::Relaxed) { Dialect::Bare } else { Dialect::Paged }
    }

    fn remember(&self, dialect: Dialect) {
        self.is_bare.store(dialect == Dialect::Bare, Ordering::Relaxed);
    }

    /// Asks in the dialect of the last answer; if this one has the other shape, once more in that.
    async fn log_page(
        &self,
        window: Window,
        kind: RowKind,
        number: u32,
        page_size: u32,
    ) -> Result<LogPage, GatewayError> {
        let assumed = self.dialect();
        let repeat_slow = window.is_single_second();
        let mut asked_in = assumed;
        loop {
            let mut query = self.log_query(window, kind);
            query.push(("p", asked_in.page_parameter(number).to_string()));
            query.push(("page_size", page_size.to_string()));
            let answer = match self.ask(Endpoint::Log, &query, repeat_slow).await {
                // Newer versions refuse a page 0: this one is newer than it was.
                Err(GatewayError::Refused { .. }) if asked_in == Dialect::Bare && assumed == Dialect::Bare => {
                    asked_in = Dialect::Paged;
                    self.remember(asked_in);
                    continue;
                }
                other => other?,
            };
            let page = log_page::split(&answer.data)?;
            if page.dialect == asked_in {
                let asked = Asked { window, kind, group: self.group.as_deref(), username: self.username.as_deref() };
                return page.read(asked, number, answer.source_time);
            }
            if asked_in != assumed {
                return Err(GatewayError::NotNewApi { found: "logs of two shapes by turns".to_owned() });
            }
            asked_in = page.dialect;
            self.remember(asked_in);
        }
    }
}

#[derive(Deserialize)]
struct StatusData<'a> {
    version: Option<String>,
    #[serde(borrow)]
    quota_per_unit: Option<&'a RawValue>,
    start_time: Option<i64>,
}

#[derive(Deserialize)]
struct OptionEntry {
    key: String,
    #[serde(default)]
    value: serde_json::Value,
}

#[derive(Deserialize)]
struct StatData {
    quota: Option<i64>,
}

#[async_trait]
impl Gateway for HttpGateway {
    async fn status(&self) -> Result<GatewayStatus, GatewayError> {
        let answer = self.ask(Endpoint::Status, &Query::new(), true).await?;
        let data: StatusData = read_data(&answer.data, "status")?;
        Ok(GatewayStatus {
            version: data.version.unwrap_or_default(),
            quota_per_unit: data.quota_per_unit.map_or(StatedQuota::Absent, |raw| stated_quota(raw.get())),
            started_at_second: data.start_time,
            source_time: answer.source_time,
        })
    }

    async fn options(&self) -> Result<GatewayOptions, GatewayError> {
        let answer = self.ask(Endpoint::Options, &Query::new(), true).await?;
        let entries: Vec<OptionEntry> = read_data(&answer.data, "options")?;
        let value = |key: &str| {
            let entry = entries.iter().find(|entry| entry.key == key)?;
            Some(entry.value.as_str().map_or_else(|| entry.value.to_string(), str::to_owned))
        };
        let webhook_url = value("webhook_url").map(|url| url.trim().to_owned()).filter(|url| !url.is_empty());
        let log_consume_enabled = value("LogConsumeEnabled").and_then(|text| text.trim().to_lowercase().parse().ok());
        Ok(GatewayOptions { webhook_url, log_consume_enabled })
    }

    async fn page(&self, window: Window, kind: RowKind, number: u32) -> Result<LogPage, GatewayError> {
        self.log_page(window, kind, number, self.page_size).await
    }

    async fn quota_sum(&self, window: Window) -> Result<i64, GatewayError> {
        let query = self.log_query(window, RowKind::Consumption);
        let answer = self.ask(Endpoint::LogStat, &query, window.is_single_second()).await?;
        let data: StatData = read_data(&answer.data, "sums")?;
        data.quota.ok_or_else(|| GatewayError::NotNewApi { found: "sums without a quota".to_owned() })
    }

    async fn count(&self, window: Window, kind: RowKind) -> Result<Option<u64>, GatewayError> {
        Ok(self.log_page(window, kind, 0, 1).await?.total)
    }
}

impl fmt::Debug for HttpGateway {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HttpGateway").field("base_url", &self.base_url.as_str()).finish_non_exhaustive()
    }
}

fn read_data<'a, T: Deserialize<'a>>(data: &'a RawValue, what: &str) -> Result<T, GatewayError> {
    serde_json::from_str(data.get())
        .map_err(|_| GatewayError::NotNewApi { found: format!("something else as its {what}") })
}

/// new-api prints it as a number that may have a fraction.
fn stated_quota(text: &str) -> StatedQuota {
    let whole = Decimal::parse(text).and_then(Decimal::to_whole).ok();
    match whole.and_then(QuotaPerUnit::new) {
        Some(quota) => StatedQuota::Stated(quota),
        None => StatedQuota::Unusable(text.chars().take(40).collect()),
    }
}

fn client(base_url: &Url, timeout: Duration) -> Result<Client, GatewayError> {
    // The library takes its cryptography from here, even to speak none. A second call changes nothing.
    rustls::crypto::ring::default_provider().install_default().ok();
    let builder = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .http1_only()
        .connect_timeout(timeout.min(LONGEST_CONNECT))
        .user_agent(concat!("hookledger/", env!("CARGO_PKG_VERSION")));
    // Plain HTTP works on machines without any CA certificate, too.
    let builder = if base_url.scheme() == "http" { builder.tls_certs_only([]) } else { builder };
    builder.build().map_err(|error| GatewayError::NoClient { reason: innermost(&error) })
}

fn authentication(access: &NewApiAccess) -> Result<HeaderMap, GatewayError> {
    let mut token = HeaderValue::from_str(access.access_token.expose_secret())
        .map_err(|_| GatewayError::NoClient { reason: "newapi.access_token does not fit into a header".to_owned() })?;
    token.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, token);
    headers.insert(USER_HEADER, HeaderValue::from(access.user_id));
    Ok(headers)
}

/// In few words, and without the URL.
fn reason(error: &reqwest::Error) -> String {
    let kind = causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        _ if error.is_timeout() => "no connection in time".to_owned(),
        Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => "connection closed".to_owned(),
        _ => innermost(error),
    }
}

/// The deepest cause: the layers above it only say that there was one.
fn innermost(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| "unknown cause".to_owned(), ToString::to_string)
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}
