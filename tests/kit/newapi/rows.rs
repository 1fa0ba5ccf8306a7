//! A row of new-api's log, field for field as its administrators' endpoint shows it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub const TOP_UP: i64 = 1;
pub const CONSUMPTION: i64 = 2;
pub const MANAGE: i64 = 3;
pub const SYSTEM: i64 = 4;
pub const ERROR: i64 = 5;
pub const REFUND: i64 = 6;
pub const LOGIN: i64 = 7;

/// All fields are public: a test may write any row that some version could write. In the order of the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// 0 until the log has given it one.
    pub id: i64,
    pub user_id: i64,
    pub created_at: i64,
    #[serde(rename = "type")]
    pub kind: i64,
    pub content: String,
    pub username: String,
    pub token_name: String,
    pub model_name: String,
    pub quota: i64,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub use_time: i64,
    pub is_stream: bool,
    pub channel: i64,
    pub channel_name: String,
    pub token_id: i64,
    pub group: String,
    pub ip: String,
    /// None: the version that wrote it knew of none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
    /// A JSON document in a string.
    pub other: String,
}

impl Row {
    /// Of user 1 and nobody's token, with nothing in it.
    pub fn new(kind: i64, created_at_secs: i64) -> Self {
        Row {
            id: 0,
            user_id: 1,
            created_at: created_at_secs,
            kind,
            content: String::new(),
            username: "root".to_owned(),
            token_name: String::new(),
            model_name: String::new(),
            quota: 0,
            prompt_tokens: 0,
            completion_tokens: 0,
            use_time: 0,
            is_stream: false,
            channel: 0,
            channel_name: String::new(),
            token_id: 0,
            group: String::new(),
            ip: String::new(),
            request_id: None,
            other: String::new(),
        }
    }

    /// A row through the one channel that there is.
    pub fn relayed(kind: i64, created_at_secs: i64, model: &str) -> Self {
        let mut row = Row::new(kind, created_at_secs);
        row.model_name = model.to_owned();
        row.channel = 1;
        row.channel_name = "up".to_owned();
        row
    }

    pub fn token(mut self, id: i64, name: &str) -> Self {
        self.token_id = id;
        self.token_name = name.to_owned();
        self.group = "default".to_owned();
        self
    }

    pub fn tokens(mut self, prompt: i64, completion: i64) -> Self {
        self.prompt_tokens = prompt;
        self.completion_tokens = completion;
        self
    }

    pub fn quota(mut self, units: i64) -> Self {
        self.quota = units;
        self
    }

    pub fn content(mut self, text: &str) -> Self {
        self.content = text.to_owned();
        self
    }

    pub fn request_id(mut self, id: &str) -> Self {
        self.request_id = Some(id.to_owned());
        self
    }

    pub fn other(mut self, document: &Value) -> Self {
        self.other = document.to_string();
        self
    }

    /// What a relayed chat call leaves in `other`.
    pub fn chat_details(self) -> Self {
        let frames = if self.is_stream { 1 } else { -1000 };
        self.other(&json!({
            "admin_info": { "usage_billing_path": "upstream", "use_channel": ["1"] },
            "billing_source": "wallet",
            "cache_ratio": 0.5,
            "cache_tokens": 0,
            "completion_ratio": 4,
            "frt": frames,
            "group_ratio": 1,
            "model_price": -1,
            "model_ratio": 1.25,
            "request_conversion": ["OpenAI Compatible"],
            "request_path": "/v1/chat/completions",
            "user_group_ratio": -1,
        }))
    }
}
