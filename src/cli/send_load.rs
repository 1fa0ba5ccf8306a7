//! Sends the events of a feed and hears the answers: one by itself, or many over several connections at once.
//!
//! It runs beside the daemon that it measures, so it stays cheap: one thread, one connection for each worker.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use futures_util::future::try_join_all;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Body, Client, Method, Request, StatusCode, Url};
use serde::Deserialize;

use super::failure::{EXIT_FAILED, EXIT_FINE, Failure};
use super::http_client;
use super::output::Output;
use super::send_event::{Delivery, Feed};
use super::send_summary::{Single, Tally};

/// Above the longest wait of a daemon, and above that of new-api's sender.
const TIMEOUT: Duration = Duration::from_secs(30);

const MAX_RETRIES: u32 = 5;
/// Where an answer does not say how long to wait.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

const SIGNATURE: HeaderName = HeaderName::from_static("x-webhook-signature");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Where and how to send.
pub struct Target {
    pub url: Url,
    pub concurrency: u32,
    /// Requests that begin each second; none: as fast as answers come.
    pub per_second: Option<u32>,
    /// Whether to repeat what the daemon could not take now.
    pub retry: bool,
}

/// What came back for one request.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
    pub latency: Duration,
    retry_after: Option<Duration>,
}

/// What every answer says.
#[derive(Debug, Deserialize)]
pub struct AnswerBody<'a> {
    pub success: bool,
    #[serde(borrow)]
    pub message: Cow<'a, str>,
}

impl Answer {
    /// What the body says; a body of another shape has no success.
    pub fn read(&self) -> AnswerBody<'_> {
        let unreadable = AnswerBody { success: false, message: Cow::Borrowed("(an answer of another shape)") };
        serde_json::from_slice(&self.body).unwrap_or(unreadable)
    }

    pub fn is_fine(&self, body: &AnswerBody<'_>) -> bool {
        self.status.is_success() && body.success
    }
}

/// Sends the feed's only event and shows the answer.
pub async fn send_one(target: &Target, mut feed: Feed, output: Output) -> Result<u8, Failure> {
    let client = client(target)?;
    let Some(delivery) = feed.next()? else {
        return Ok(EXIT_FINE);
    };
    let started = Instant::now();
    let (answer, retried) = deliver(&client, target, &delivery).await;
    let mut tally = Tally::new()?;
    tally.add(&answer, retried);
    let summary = tally.summary(started.elapsed());
    let single = match &answer {
        Ok(answer) => Single::answered(feed.event_id(), answer, summary),
        // A program gets its object in any case.
        Err(reason) if output.json => Single::unanswered(feed.event_id(), reason, summary),
        Err(reason) => {
            return Err(Failure::refused(format!(
                "no answer from {}: {reason}. Is the daemon running, and is this its address?",
                target.url
            )));
        }
    };
    output.show(&single, Single::text)?;
    if let Some(hint) = single.hint() {
        eprintln!("hookledger: {hint}");
    }
    Ok(exit_code(single.summary.is_fine()))
}

/// Sends all events and shows what the answers came to.
pub async fn send_many(target: &Target, feed: Feed, output: Output) -> Result<u8, Failure> {
    let load = Load {
        client: client(target)?,
        target,
        progress: progress_bar(feed.total()),
        tally: RefCell::new(Tally::new()?),
        feed: RefCell::new(feed),
        started: Instant::now(),
        begun: Cell::new(0),
    };
    let started = load.started;
    try_join_all((0..target.concurrency).map(|_| load.work())).await?;
    let elapsed = started.elapsed();
    load.progress.finish_and_clear();
    let summary = load.tally.into_inner().summary(elapsed);
    output.show(&summary, |summary| summary.text())?;
    Ok(exit_code(summary.is_fine()))
}

fn exit_code(is_fine: bool) -> u8 {
    if is_fine { EXIT_FINE } else { EXIT_FAILED }
}

fn client(target: &Target) -> Result<Client, Failure> {
    let builder = if target.url.scheme() == "https" { http_client::encrypted() } else { http_client::plain() };
    http_client::build(builder.timeout(TIMEOUT).pool_max_idle_per_host(target.concurrency as usize))
}

/// Only a person at a terminal sees it.
fn progress_bar(total: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len}  {rate}  {eta} left") {
        Ok(style) => bar.with_style(style.with_key("rate", show_rate)),
        Err(_) => bar,
    }
}

/// The library's own rate has four digits after the point.
fn show_rate(state: &ProgressState, line: &mut dyn fmt::Write) {
    write!(line, "{:.0} a second", state.per_sec()).ok();
}

/// What the workers share, all on one thread.
struct Load<'a> {
    client: Client,
    target: &'a Target,
    progress: ProgressBar,
    tally: RefCell<Tally>,
    feed: RefCell<Feed>,
    started: Instant,
    /// Deliveries that have begun.
    begun: Cell<u32>,
}

impl Load<'_> {
    /// Sends one delivery after the other until there are none left.
    async fn work(&self) -> Result<(), Failure> {
        loop {
            let delivery = self.feed.borrow_mut().next()?;
            let Some(delivery) = delivery else {
                return Ok(());
            };
            let slot = self.wait_for_slot().await;
            let (mut answer, retried) = deliver(&self.client, self.target, &delivery).await;
            if let (Some(slot), Ok(answer)) = (slot, &mut answer) {
                // What waited for a free connection has waited for the daemon, too.
                answer.latency = slot.elapsed();
            }
            self.tally.borrow_mut().add(&answer, retried);
            self.progress.inc(1);
        }
    }
}

impl Load<'_> {
    /// Where there is a pace, waits until the next request is to begin.
    async fn wait_for_slot(&self) -> Option<Instant> {
        let per_second = self.target.per_second?;
        let number = self.begun.replace(self.begun.get().wrapping_add(1));
        let slot = self.started + Duration::from_secs(1) / per_second * number;
        tokio::time::sleep_until(slot.into()).await;
        Some(slot)
    }
}

/// Sends until there is an answer that stands; how often it was repeated. The error is a short reason.
async fn deliver(client: &Client, target: &Target, delivery: &Delivery) -> (Result<Answer, String>, u32) {
    let mut retried = 0;
    loop {
        let answer = attempt(client, target, delivery).await;
        match &answer {
            Ok(answer) if target.retry && retried < MAX_RETRIES && asks_for_retry(answer.status) => {
                tokio::time::sleep(answer.retry_after.unwrap_or(DEFAULT_WAIT).min(LONGEST_WAIT)).await;
                retried += 1;
            }
            _ => return (answer, retried),
        }
    }
}

fn asks_for_retry(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

async fn attempt(client: &Client, target: &Target, delivery: &Delivery) -> Result<Answer, String> {
    let mut request = Request::new(Method::POST, target.url.clone());
    request.headers_mut().insert(CONTENT_TYPE, JSON);
    request.headers_mut().insert(SIGNATURE, delivery.signature.clone());
    *request.body_mut() = Some(Body::from(delivery.body.clone()));
    let started = Instant::now();
    let response = client.execute(request).await.map_err(|error| http_client::reason(&error))?;
    let (status, retry_after) = (response.status(), response.headers().get(RETRY_AFTER).and_then(seconds));
    let body = response.bytes().await.map_err(|error| http_client::reason(&error))?;
    Ok(Answer { status, body, latency: started.elapsed(), retry_after })
}

/// `Retry-After` as this daemon writes it. The other form, a date, is for proxies: the default wait will do.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
impl Answer {
    /// An answer as a test would have it.
    pub fn fake(status: u16, body: &str, latency: Duration) -> Self {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, body: Bytes::from(body.to_owned()), latency, retry_after: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_2xx_that_says_success_is_fine() {
        for (status, body, is_fine) in [
            (200, r#"{"success":true,"message":"a\"b","eventId":"7"}"#, true),
            (202, r#"{"success":true,"message":"accepted"}"#, true),
            (200, r#"{"success":false,"message":"no key"}"#, false),
            (409, r#"{"success":true,"message":"?"}"#, false),
            (200, "<html>", false),
        ] {
            let answer = Answer::fake(status, body, Duration::ZERO);
            assert_eq!(answer.is_fine(&answer.read()), is_fine, "{status} {body}");
        }
    }

    #[test]
    fn a_wait_is_read_in_seconds() {
        assert_eq!(seconds(&HeaderValue::from_static("7")), Some(Duration::from_secs(7)));
        assert_eq!(seconds(&HeaderValue::from_static("Wed, 21 Oct 2026 07:28:00 GMT")), None);
    }
}
