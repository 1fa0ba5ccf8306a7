//! Bodies as a sender writes them: each number goes out as the text that the test gave.

use std::fmt::Display;

use super::clock::now_secs;

/// Builds the body of a usage event. It has no price until one is given, so that no test charges by accident.
#[derive(Debug, Clone)]
pub struct Usage {
    event_id: String,
    timestamp: String,
    data: Vec<(String, String)>,
}

impl Usage {
    /// A call of token 1, model `gpt-4`, 100 and 50 tokens, made now.
    pub fn new(event_id: impl Into<String>) -> Self {
        let usage = Usage { event_id: event_id.into(), timestamp: now_secs().to_string(), data: Vec::new() };
        usage.remote_key(1).model("gpt-4").tokens(100, 50)
    }

    pub fn event_id(&self) -> &str {
        &self.event_id
    }

    pub fn remote_key(self, remote_key_id: i64) -> Self {
        self.data_field("remoteKeyId", remote_key_id)
    }

    pub fn model(self, model: &str) -> Self {
        self.data_field("model", quoted(model))
    }

    pub fn tokens(self, prompt: i64, completion: i64) -> Self {
        self.data_field("promptTokens", prompt).data_field("completionTokens", completion)
    }

    /// Absent unless given: then it is the sum.
    pub fn total_tokens(self, total: i64) -> Self {
        self.data_field("totalTokens", total)
    }

    /// A price in quota units.
    pub fn quota(self, units: i64) -> Self {
        self.data_field("quota", units)
    }

    /// A price in US dollars, as JSON writes it: `0.0123`, `2e-06`.
    pub fn cost(self, dollars: &str) -> Self {
        self.data_field("cost", dollars)
    }

    /// A price in whole credits.
    pub fn credit_cost(self, credits: i64) -> Self {
        self.data_field("creditCost", credits)
    }

    pub fn request_id(self, request_id: &str) -> Self {
        self.data_field("requestId", quoted(request_id))
    }

    pub fn log_id(self, log_id: i64) -> Self {
        self.data_field("logId", log_id)
    }

    pub fn at_secs(self, seconds: i64) -> Self {
        self.timestamp(seconds)
    }

    pub fn at_millis(self, millis: i64) -> Self {
        self.timestamp(millis)
    }

    /// The timestamp as any JSON text, right or wrong.
    pub fn timestamp(mut self, json: impl Display) -> Self {
        self.timestamp = json.to_string();
        self
    }

    /// A field of `data` as any JSON text, right or wrong; replaces the one of that name.
    pub fn data_field(mut self, name: &str, json: impl Display) -> Self {
        let json = json.to_string();
        match self.data.iter_mut().find(|(known, _)| known == name) {
            Some((_, value)) => *value = json,
            None => self.data.push((name.to_owned(), json)),
        }
        self
    }

    pub fn without_data_field(mut self, name: &str) -> Self {
        self.data.retain(|(known, _)| known != name);
        self
    }

    /// The body, always the same bytes for the same event.
    pub fn json(&self) -> String {
        let data: Vec<String> = self.data.iter().map(|(name, json)| format!("{}:{json}", quoted(name))).collect();
        format!(
            r#"{{"eventId":{},"eventType":"usage","timestamp":{},"data":{{{}}}}}"#,
            quoted(&self.event_id),
            self.timestamp,
            data.join(",")
        )
    }
}

impl From<Usage> for String {
    fn from(usage: Usage) -> Self {
        usage.json()
    }
}

/// An event that proves the path and is never charged.
pub fn ping(event_id: &str) -> String {
    format!(r#"{{"eventId":{},"eventType":"ping","timestamp":{}}}"#, quoted(event_id), now_secs())
}

/// What the stock new-api sends to users: no event, and no event id.
pub fn notification(kind: &str) -> String {
    format!(
        r#"{{"type":{},"title":"t","content":"{{{{value}}}}","values":["v"],"timestamp":{}}}"#,
        quoted(kind),
        now_secs()
    )
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("every text is a JSON string")
}
