//! What a new-api knows besides its log: users, their tokens, and options. Knows nothing of HTTP.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::log::Log;

/// What a user may do, by new-api's own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Common = 1,
    Admin = 10,
    Root = 100,
}

#[derive(Debug, Clone)]
pub struct User {
    pub id: i64,
    pub name: String,
    pub role: Role,
    pub access_token: String,
    pub is_banned: bool,
}

impl User {
    pub fn new(id: i64, name: &str, role: Role) -> Self {
        let access_token = format!("access-token-of-{name}");
        User { id, name: name.to_owned(), role, access_token, is_banned: false }
    }
}

pub const TOKEN_ENABLED: i64 = 1;
pub const TOKEN_DISABLED: i64 = 2;

/// A key for the gateway, in the order of the wire. There its key is masked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub id: i64,
    /// Its owner.
    pub user_id: i64,
    pub key: String,
    pub status: i64,
    pub name: String,
    pub created_time: i64,
    pub accessed_time: i64,
    /// -1: never.
    pub expired_time: i64,
    pub remain_quota: i64,
    pub unlimited_quota: bool,
    pub model_limits_enabled: bool,
    pub model_limits: String,
    pub allow_ips: String,
    pub used_quota: i64,
    pub group: String,
    pub cross_group_retry: bool,
    #[serde(rename = "DeletedAt")]
    pub deleted_at: Option<String>,
}

impl Token {
    /// Enabled, without limits, of user 1.
    pub fn new(id: i64, name: &str) -> Self {
        Token {
            id,
            user_id: 1,
            key: format!("{id:0>44}Last"),
            status: TOKEN_ENABLED,
            name: name.to_owned(),
            created_time: 1_700_000_000,
            accessed_time: 1_700_000_000,
            expired_time: -1,
            remain_quota: 50_000_000,
            unlimited_quota: true,
            model_limits_enabled: false,
            model_limits: String::new(),
            allow_ips: String::new(),
            used_quota: 0,
            group: String::new(),
            cross_group_retry: false,
            deleted_at: None,
        }
    }

    pub fn owned_by(mut self, user_id: i64) -> Self {
        self.user_id = user_id;
        self
    }

    pub fn masked(&self) -> Token {
        let mut token = self.clone();
        let first: String = self.key.chars().take(4).collect();
        let last: String = self.key.chars().skip(self.key.chars().count().saturating_sub(4)).collect();
        token.key = format!("{first}**********{last}");
        token
    }
}

/// Everything that a gateway keeps.
#[derive(Debug)]
pub struct World {
    pub users: Vec<User>,
    pub tokens: BTreeMap<i64, Token>,
    /// In no order that means anything.
    pub options: BTreeMap<String, String>,
    pub log: Log,
    pub version: String,
    pub start_time: i64,
}

impl Default for World {
    /// A new installation with its first user, `root`.
    fn default() -> Self {
        let options = [
            ("SelfUseModeEnabled", "true"),
            ("DataExportEnabled", "true"),
            ("webhook_url", ""),
            ("webhook_secret", ""),
            ("QuotaPerUnit", "500000"),
            ("LogConsumeEnabled", "true"),
            ("Price", "7.3"),
            ("DisplayInCurrencyEnabled", "true"),
            ("ServerAddress", ""),
            ("RetryTimes", "0"),
            ("QuotaForNewUser", "0"),
            ("GitHubClientSecret", "never shown"),
            ("SMTPToken", "never shown"),
        ];
        World {
            users: vec![User::new(1, "root", Role::Root)],
            tokens: BTreeMap::new(),
            options: options.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            log: Log::default(),
            version: "v1.0.0".to_owned(),
            start_time: 1_700_000_000,
        }
    }
}

impl World {
    pub fn user(&self, id: i64) -> Option<&User> {
        self.users.iter().find(|user| user.id == id)
    }

    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }

    /// False: consumption is not written to the log.
    pub fn logs_consumption(&self) -> bool {
        self.option("LogConsumeEnabled") != Some("false")
    }

    pub fn quota_per_unit(&self) -> i64 {
        self.option("QuotaPerUnit").and_then(|text| text.parse().ok()).unwrap_or(500_000)
    }
}

/// Options that new-api shows to nobody.
pub fn is_secret(key: &str) -> bool {
    ["Token", "Secret", "Key", "secret", "api_key"].iter().any(|ending| key.ends_with(ending))
}
