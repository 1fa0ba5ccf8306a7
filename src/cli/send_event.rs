//! The events that `send` sends: one after the other, signed, and each as often as asked, byte for byte the same.

use std::fmt::Write as _;
use std::sync::Arc;

use actix_web::web::Bytes;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::failure::Failure;
use crate::clock::SharedClock;
use crate::domain::signature::sign;

/// What the events are about.
#[derive(Debug, Clone)]
pub enum Content {
    Ping,
    Usage(UsageData),
}

/// `data` of a usage event, as the protocol writes it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageData {
    pub remote_key_id: i64,
    pub model: String,
    pub prompt_tokens: i32,
    pub completion_tokens: i32,
    pub total_tokens: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_written")]
    pub cost: Option<Arc<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credit_cost: Option<i64>,
}

fn as_written<S: serde::Serializer>(cost: &Option<Arc<RawValue>>, serializer: S) -> Result<S::Ok, S::Error> {
    cost.as_deref().serialize(serializer)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    event_id: &'a str,
    event_type: &'static str,
    /// Unix seconds, as the real sender has it.
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a UsageData>,
}

/// A signed body. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub body: Bytes,
    pub signature: HeaderValue,
}

/// Hands out what is to be sent. The copies of an event follow each other, so that several connections carry them at
/// the same time.
pub struct Feed {
    content: Content,
    secret: SecretString,
    clock: SharedClock,
    /// What all ids of this run begin with.
    id_stem: String,
    is_single: bool,
    events_left: u64,
    copies: u32,
    event_id: String,
    current: Option<(Delivery, u32)>,
    total: u64,
}

impl Feed {
    /// `event_id` names the event, where there is one only.
    pub fn new(
        content: Content,
        secret: SecretString,
        clock: SharedClock,
        event_id: Option<String>,
        events: u64,
        copies: u32,
    ) -> Self {
        let id_stem = event_id.unwrap_or_else(|| match content {
            Content::Ping => format!("ping-{}", Uuid::now_v7()),
            Content::Usage(_) => Uuid::now_v7().to_string(),
        });
        Feed {
            content,
            secret,
            clock,
            id_stem,
            is_single: events == 1,
            events_left: events,
            copies,
            event_id: String::new(),
            current: None,
            total: events.saturating_mul(u64::from(copies)),
        }
    }

    /// How many deliveries there are in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The id of the event that was handed out last.
    pub fn event_id(&self) -> &str {
        &self.event_id
    }

    /// The next delivery; none when all were handed out.
    pub fn next(&mut self) -> Result<Option<Delivery>, Failure> {
        if let Some((delivery, copies_left)) = self.current.take() {
            if copies_left > 1 {
                self.current = Some((delivery.clone(), copies_left - 1));
            }
            return Ok(Some(delivery));
        }
        if self.events_left == 0 {
            return Ok(None);
        }
        let delivery = self.make()?;
        self.events_left -= 1;
        if self.copies > 1 {
            self.current = Some((delivery.clone(), self.copies - 1));
        }
        Ok(Some(delivery))
    }

    fn make(&mut self) -> Result<Delivery, Failure> {
        self.event_id.clear();
        self.event_id.push_str(&self.id_stem);
        if !self.is_single {
            write!(self.event_id, "-{}", self.events_left).ok();
        }
        let (event_type, data) = match &self.content {
            Content::Ping => ("ping", None),
            Content::Usage(data) => ("usage", Some(data)),
        };
        let timestamp = self.clock.now().as_secs();
        let body = serde_json::to_vec(&Body { event_id: &self.event_id, event_type, timestamp, data })
            .map_err(|error| Failure::refused(format!("the event cannot be written as JSON: {error}")))?;
        let signature = HeaderValue::try_from(sign(self.secret.expose_secret(), &body))
            .map_err(|error| Failure::refused(format!("the event cannot be signed: {error}")))?;
        Ok(Delivery { body: Bytes::from(body), signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::domain::event::Delivery as Parsed;
    use crate::domain::parse::parse_body;
    use crate::domain::signature::Verifier;

    const SECRET: &str = "a-secret-that-is-long-enough-00000000";

    fn feed(content: Content, event_id: Option<&str>, events: u64, copies: u32) -> Feed {
        let event_id = event_id.map(str::to_owned);
        Feed::new(content, SecretString::from(SECRET), Arc::new(SystemClock), event_id, events, copies)
    }

    fn usage() -> Content {
        Content::Usage(UsageData {
            remote_key_id: 42,
            model: "通义".to_owned(),
            prompt_tokens: 3,
            completion_tokens: 4,
            total_tokens: 7,
            quota: None,
            cost: Some(RawValue::from_string("2e-06".to_owned()).unwrap().into()),
            credit_cost: None,
        })
    }

    #[test]
    fn the_daemon_takes_what_is_made() {
        let delivery = feed(usage(), Some("evt-1"), 1, 1).next().unwrap().unwrap();
        assert!(Verifier::new([SECRET]).verify(&delivery.body, delivery.signature.as_bytes()));
        let Parsed::Usage(event) = parse_body(&delivery.body).unwrap() else { panic!("no usage event") };
        assert_eq!(event.event_id.as_str(), "evt-1");
        assert_eq!((event.content.remote_key_id.get(), &*event.content.model), (42, "通义"));
        assert!(std::str::from_utf8(&delivery.body).unwrap().contains(r#""cost":2e-06}"#));
        let ping = feed(Content::Ping, None, 1, 1).next().unwrap().unwrap();
        let Parsed::Notice(ping) = parse_body(&ping.body).unwrap() else { panic!("no notice") };
        assert!(ping.event_id.as_str().starts_with("ping-"));
    }

    #[test]
    fn copies_are_the_same_and_events_are_not() {
        let mut feed = feed(usage(), None, 3, 2);
        assert_eq!(feed.total(), 6);
        let mut bodies = Vec::new();
        while let Some(delivery) = feed.next().unwrap() {
            bodies.push(delivery.body);
        }
        assert_eq!(bodies.len(), 6);
        assert!(bodies[0] == bodies[1] && bodies[2] == bodies[3] && bodies[4] == bodies[5]);
        assert!(bodies[1] != bodies[2] && bodies[3] != bodies[4]);
    }
}
