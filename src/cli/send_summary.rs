//! Counts answers and times them, and says in the end what it all came to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::failure::Failure;
use super::output::{table, visible};
use super::send_load::Answer;

/// Kinds of outcome that are told apart. Messages with a time or an id in them could be as many as the events.
const MAX_KINDS: usize = 40;
const OTHER_KINDS: &str = "others";

/// Longest latency that is told apart, in microseconds: a minute, and no request takes that long.
const LONGEST_MICROS: u64 = 60_000_000;

/// The running count.
pub struct Tally {
    sent: u64,
    ok: u64,
    retried: u64,
    outcomes: BTreeMap<String, u64>,
    latencies_us: Histogram<u64>,
    /// Reused, so that counting a known outcome allocates nothing.
    kind: String,
}

impl Tally {
    pub fn new() -> Result<Self, Failure> {
        let latencies_us = Histogram::new_with_bounds(1, LONGEST_MICROS, 3)
            .map_err(|error| Failure::refused(format!("latencies cannot be counted: {error}")))?;
        Ok(Tally { sent: 0, ok: 0, retried: 0, outcomes: BTreeMap::new(), latencies_us, kind: String::new() })
    }

    /// Counts one delivery, which had been repeated `retried` times before.
    pub fn add(&mut self, answer: &Result<Answer, String>, retried: u32) {
        self.sent += 1;
        self.retried += u64::from(retried);
        self.kind.clear();
        match answer {
            Ok(answer) => {
                let body = answer.read();
                self.ok += u64::from(answer.is_fine(&body));
                write!(self.kind, "{} {}", answer.status.as_u16(), body.message).ok();
                let micros = u64::try_from(answer.latency.as_micros()).unwrap_or(u64::MAX);
                self.latencies_us.saturating_record(micros);
            }
            Err(reason) => {
                write!(self.kind, "no answer: {reason}").ok();
            }
        }
        if let Some(count) = self.outcomes.get_mut(&self.kind) {
            *count += 1;
            return;
        }
        let kind = if self.outcomes.len() < MAX_KINDS { &self.kind } else { OTHER_KINDS };
        *self.outcomes.entry(kind.to_owned()).or_insert(0) += 1;
    }

    pub fn summary(self, elapsed: Duration) -> Summary {
        let seconds = elapsed.as_secs_f64();
        let latency_ms = (!self.latencies_us.is_empty()).then(|| LatencyMs::of(&self.latencies_us));
        Summary {
            sent: self.sent,
            ok: self.ok,
            retried: self.retried,
            outcomes: self.outcomes,
            seconds: rounded(seconds, 3),
            per_second: if seconds > 0.0 { rounded(self.sent as f64 / seconds, 1) } else { 0.0 },
            latency_ms,
        }
    }
}

/// What a run came to. The names in JSON stay.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub sent: u64,
    /// Answered 2xx with success.
    pub ok: u64,
    /// Requests that were repeated because the daemon could not take them.
    pub retried: u64,
    /// By status and message.
    pub outcomes: BTreeMap<String, u64>,
    pub seconds: f64,
    pub per_second: f64,
    /// Of the requests that were answered; absent if none was.
    pub latency_ms: Option<LatencyMs>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatencyMs {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl LatencyMs {
    fn of(latencies_us: &Histogram<u64>) -> Self {
        let at = |quantile| milliseconds(latencies_us.value_at_quantile(quantile));
        LatencyMs { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: milliseconds(latencies_us.max()) }
    }
}

fn milliseconds(micros: u64) -> f64 {
    rounded(micros as f64 / 1000.0, 3)
}

fn rounded(value: f64, places: i32) -> f64 {
    let scale = 10f64.powi(places);
    (value * scale).round() / scale
}

impl Summary {
    pub fn is_fine(&self) -> bool {
        self.ok == self.sent
    }

    pub fn text(&self) -> String {
        let Summary { sent, ok, retried, seconds, per_second, .. } = self;
        let mut text = format!("{sent} sent in {seconds} s ({per_second} a second), {ok} of them fine");
        if *retried > 0 {
            write!(text, ", {retried} repeats").ok();
        }
        let rows = self.outcomes.iter().map(|(kind, count)| vec![count.to_string(), kind.clone()]);
        write!(text, "\n\n{}", table(&["count", "answer"], rows)).ok();
        if let Some(LatencyMs { p50, p90, p99, max }) = self.latency_ms {
            write!(text, "\n\nlatency: p50 {p50} ms, p90 {p90} ms, p99 {p99} ms, max {max} ms").ok();
        }
        text
    }
}

/// What became of the only event of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Single {
    event_id: String,
    /// Absent without an answer.
    status: Option<u16>,
    success: bool,
    message: String,
    #[serde(flatten)]
    pub summary: Summary,
}

impl Single {
    pub fn answered(event_id: &str, answer: &Answer, summary: Summary) -> Self {
        let body = answer.read();
        Single {
            event_id: event_id.to_owned(),
            status: Some(answer.status.as_u16()),
            success: body.success,
            message: body.message.into_owned(),
            summary,
        }
    }

    pub fn unanswered(event_id: &str, reason: &str, summary: Summary) -> Self {
        let message = format!("no answer: {reason}");
        Single { event_id: event_id.to_owned(), status: None, success: false, message, summary }
    }

    pub fn text(&self) -> String {
        let status = self.status.map(|status| status.to_string()).unwrap_or_default();
        let latency = self.summary.latency_ms.map(|latency| format!(" ({} ms)", latency.max)).unwrap_or_default();
        let (message, event_id) = (visible(&self.message), visible(&self.event_id));
        format!("{status} {message}{latency}\nevent {event_id}")
    }

    /// What to do about an answer that newcomers meet.
    pub fn hint(&self) -> Option<&'static str> {
        match self.status? {
            403 if self.message.contains("signature") => Some(
                "the daemon has another secret: compare webhook.secrets, or name its secret's file with --secret-file",
            ),
            200 if self.message.starts_with("API Key not found") => {
                Some("the event is kept and will be charged once the key exists: `hookledger key add` adds it")
            }
            404 => Some("nothing takes events at this path: compare server.webhook_path, or correct --url"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESSED: &str = r#"{"success":true,"message":"Event processed successfully"}"#;

    #[test]
    fn a_summary_counts_by_answer_and_by_time() {
        let mut tally = Tally::new().unwrap();
        for millis in 1..=100 {
            tally.add(&Ok(Answer::fake(200, PROCESSED, Duration::from_millis(millis))), 0);
        }
        tally.add(&Err("connection refused".to_owned()), 0);
        let summary = tally.summary(Duration::from_secs(2));
        assert_eq!((summary.sent, summary.ok, summary.is_fine()), (101, 100, false));
        assert_eq!(summary.outcomes["200 Event processed successfully"], 100);
        assert_eq!(summary.outcomes["no answer: connection refused"], 1);
        assert!((summary.per_second - 50.5).abs() < 1e-9);
        let latency = summary.latency_ms.unwrap();
        for (found, expected) in [(latency.p50, 50.0), (latency.p90, 90.0), (latency.p99, 99.0), (latency.max, 100.0)] {
            assert!((found - expected).abs() < 0.1, "{found} {expected}");
        }
    }

    #[test]
    fn kinds_of_answers_are_bounded() {
        let mut tally = Tally::new().unwrap();
        for number in 0..1000 {
            tally.add(&Err(format!("reason {number}")), 1);
        }
        let summary = tally.summary(Duration::from_secs(1));
        assert_eq!((summary.outcomes.len(), summary.retried), (MAX_KINDS + 1, 1000));
        assert_eq!(summary.outcomes.values().sum::<u64>(), 1000);
        assert_eq!(summary.latency_ms, None);
    }

    #[test]
    fn a_single_answer_has_the_names_of_many() {
        let answer = Answer::fake(200, PROCESSED, Duration::from_millis(3));
        let mut tally = Tally::new().unwrap();
        tally.add(&Ok(Answer::fake(200, PROCESSED, Duration::from_millis(3))), 0);
        let single = Single::answered("evt-1", &answer, tally.summary(Duration::from_secs(1)));
        let json = serde_json::to_value(&single).unwrap();
        assert_eq!((&json["status"], &json["eventId"], &json["sent"]), (&200.into(), &"evt-1".into(), &1.into()));
        assert!(single.text().starts_with("200 Event processed successfully (3"), "{}", single.text());
    }
}
