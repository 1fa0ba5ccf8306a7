//! The document that a running daemon tells of itself: one shape for the admin routes and for `hookledger status`.
//!
//! Names in it stay. What is seen is collected in `http::admin::status`; how a person reads it is `cli::status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Events that wait longer than this to be settled show that something is wrong.
const LONG_PENDING_SECS: u64 = 60;

/// A running daemon, seen without asking any of its parts.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// UTC.
    pub started_at: String,
    /// Since the start.
    pub uptime_secs: u64,
    pub database: DatabaseStatus,
    pub webhook: WebhookStatus,
    pub channel: ChannelStatus,
    /// Absent where no gateway is configured.
    #[schema(required)]
    pub source: Option<SourceStatus>,
    /// Absent where no log is read, and until the first pass after a start.
    #[schema(required)]
    pub coverage: Option<CoverageStatus>,
    /// Those that hold, in the order in which they were first seen.
    pub conditions: Vec<ConditionStatus>,
    /// The parts of the daemon, each kept alive by the supervisor.
    pub actors: Vec<ActorStatus>,
    /// Absent until the first count after a start.
    #[schema(required)]
    pub backlog: Option<BacklogStatus>,
    /// Absent on a database that no other program writes to, and until the first look after a start.
    #[schema(required)]
    pub taking_over: Option<TakingOverStatus>,
    pub listeners: ListenerStatus,
    /// What a person should do, a sentence each; empty where nothing is wrong.
    pub to_do: Vec<String>,
}

/// Where the books lie, and whether they can be written.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// Without a password.
    pub url: String,
    /// Whether the last write worked.
    pub writable: bool,
    /// Why not, where it is not writable.
    #[schema(required)]
    pub problem: Option<String>,
}

/// Whether events are taken.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStatus {
    /// The setting `webhook.enabled`.
    pub enabled: bool,
    /// The same word as `GET /readyz`.
    pub ready: bool,
    /// Why not, where it is not ready.
    #[schema(required)]
    pub why_not: Option<String>,
}

/// What the event channel is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelName {
    Healthy,
    Idle,
    Stale,
    Disabled,
    Pull,
}

impl ChannelName {
    pub fn as_str(self) -> &'static str {
        match self {
            ChannelName::Healthy => "healthy",
            ChannelName::Idle => "idle",
            ChannelName::Stale => "stale",
            ChannelName::Disabled => "disabled",
            ChannelName::Pull => "pull",
        }
    }
}

/// How the event channel does.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelStatus {
    /// healthy: events come in; idle: none for ten minutes; disabled: by `webhook.enabled`.
    pub state: ChannelName,
    /// When this process found it so, UTC.
    pub since: String,
    /// When the newest usage event came in, UTC; of an earlier life of the daemon about when.
    #[schema(required)]
    pub last_event_at: Option<String>,
}

/// The gateway whose log is read.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The setting `newapi.source`.
    pub name: String,
    /// False where `polling.mode` is off.
    pub read: bool,
    /// As new-api tells it; absent until it did.
    #[schema(required)]
    pub version: Option<String>,
    /// What one US dollar is in its quota units, as it tells; absent until it did.
    #[schema(required)]
    pub quota_per_unit: Option<i64>,
    /// How far its clock is ahead of ours; below zero: behind.
    #[schema(required)]
    pub clock_ahead_secs: Option<i64>,
    /// Since when it has not answered, UTC; absent while it does.
    #[schema(required)]
    pub out_of_reach_since: Option<String>,
    /// When its log was last read to the end, UTC, by this process.
    #[schema(required)]
    pub last_pass_at: Option<String>,
    /// When a reading last ended early, UTC, by this process.
    #[schema(required)]
    pub last_failure_at: Option<String>,
    /// Why it did.
    #[schema(required)]
    pub last_failure: Option<String>,
}

/// How far new-api's log is known.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CoverageStatus {
    /// UTC: nothing before is ever read by itself.
    pub begins: String,
    /// UTC: every second up to here was read, or proved by its figures. Before `begins` until the first one was.
    pub covered_until: String,
    /// The same for what was read row by row.
    pub read_until: String,
    /// How far the former lies back.
    pub behind_secs: u64,
}

/// Something around the daemon that someone should look at.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConditionStatus {
    /// As in the metric `hookledger_source_condition`.
    pub name: String,
    /// UTC, of this process.
    pub first_seen: String,
    /// UTC.
    pub last_seen: String,
    /// One sentence with the figures.
    pub message: String,
}

/// What the supervisor sees an actor do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActorState {
    Running,
    Restarting,
}

/// One part of the daemon.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActorStatus {
    /// supervisor, logger, ledger, receiver or scheduler.
    pub name: String,
    /// running, or restarting while it is being replaced.
    pub state: ActorState,
    /// Whether it is running.
    pub up: bool,
    /// Since its last progress. Waiting for the database or new-api within its deadline does not count.
    pub progress_age_secs: u64,
    /// Its threads that were given up as hung, and that have not ended.
    pub hung_threads: u64,
    /// Since the start.
    pub restarts: u64,
    /// The restarts by their cause: panic, error, hang, exit.
    pub restarts_by_cause: BTreeMap<String, u64>,
    /// Of the last restart.
    #[schema(required)]
    pub last_cause: Option<String>,
    /// When it last ended, UTC.
    #[schema(required)]
    pub last_ended_at: Option<String>,
    /// What it said when it last ended, if anything.
    #[schema(required)]
    pub last_error: Option<String>,
}

/// What waits, as it was last counted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BacklogStatus {
    /// Events on disk that are about to be settled.
    pub pending: i64,
    /// Events that are tried again, or wait for a key or for a person.
    pub failed: i64,
    /// Events that were given up.
    pub dead: i64,
    /// Absent where none is pending.
    #[schema(required)]
    pub oldest_pending_age_secs: Option<u64>,
    /// Tokens without a key that have waiting events.
    pub parked_tokens: i64,
    /// Events and rows of new-api's log that may be one call or two: a person decides.
    pub disputes_open: i64,
    /// Refunds in new-api's log for which no charge was found.
    pub refunds_open: i64,
    /// Credits not deducted for want of balance, over all users.
    pub unpaid_credits: i64,
    /// UTC.
    pub counted_at: String,
}

/// What became of the platform's own billing.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TakingOverStatus {
    /// The first start on this database, UTC: what was called before is not billed.
    pub at: String,
    /// The platform's usage records that took a call, so that it was not charged again.
    pub adopted_records: i64,
}

/// Where the daemon listens.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// For senders: address and port.
    pub server: String,
    /// For Prometheus; absent where it is switched off.
    #[schema(required)]
    pub metrics: Option<String>,
    /// The socket's path.
    pub admin_socket: String,
    /// Whether a token opens the admin routes on the senders' listener.
    pub admin_on_server: bool,
}

impl Status {
    /// The same in one line, for those who show no more: whether events are taken, channel, coverage, backlog.
    ///
    /// It has no ages, so that it is another one only where something happened.
    pub fn line(&self) -> String {
        let taken = match &self.webhook.why_not {
            None => "events are taken".to_owned(),
            Some(why_not) => format!("events are not taken: {why_not}"),
        };
        let is_read = self.source.as_ref().is_some_and(|source| source.read);
        let coverage = match self.coverage.as_ref().filter(|_| is_read) {
            Some(coverage) => format!("the log is covered until {}", coverage.covered_until),
            None if is_read => "the log was not read yet".to_owned(),
            None => "no log is read".to_owned(),
        };
        let backlog = match &self.backlog {
            None => "backlog not counted yet".to_owned(),
            Some(BacklogStatus { pending, failed, dead, .. }) => {
                format!("{pending} pending, {failed} failed, {dead} dead")
            }
        };
        let held: Vec<&str> = self.conditions.iter().map(|condition| condition.name.as_str()).collect();
        let held = if held.is_empty() { String::new() } else { format!("; conditions: {}", held.join(", ")) };
        format!("{taken}; channel {}; {coverage}; {backlog}{held}", self.channel.state.as_str())
    }

    /// What a person should do about what stands here.
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if !self.database.writable {
            advice.push(
                "free disk space, or end the program that locks the database; what was answered is safe, and it goes \
                 on by itself"
                    .to_owned(),
            );
        }
        if !self.webhook.enabled {
            advice.push("set webhook.enabled = true to take events again".to_owned());
        }
        if let Some(source) = &self.source {
            advice.extend(source.advice());
        }
        let down: Vec<&str> = self.actors.iter().filter(|actor| !actor.up).map(|actor| actor.name.as_str()).collect();
        if !down.is_empty() {
            advice.push(format!("look at the log if this stays down: {}", down.join(", ")));
        }
        let hung: Vec<&str> =
            self.actors.iter().filter(|actor| actor.hung_threads > 0).map(|actor| actor.name.as_str()).collect();
        if !hung.is_empty() {
            advice.push(format!("restart the daemon when it suits you, threads of it hang: {}", hung.join(", ")));
        }
        advice.extend(self.conditions.iter().filter_map(|condition| advice_on(&condition.name)).map(str::to_owned));
        if let Some(backlog) = &self.backlog {
            advice.extend(backlog.advice());
        }
        advice
    }
}

impl SourceStatus {
    fn advice(&self) -> Option<String> {
        let since = self.out_of_reach_since.as_ref().filter(|_| self.read)?;
        Some(format!("look at new-api, and at newapi.base_url: it has not answered since {since}"))
    }
}

impl BacklogStatus {
    fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if self.oldest_pending_age_secs.is_some_and(|age| age > LONG_PENDING_SECS) {
            advice.push("look at the log: events wait to be settled for more than a minute".to_owned());
        }
        if self.parked_tokens > 0 {
            advice.push("`hookledger key unmatched` lists the tokens without a key, each with what to do".to_owned());
        }
        if self.disputes_open > 0 || self.refunds_open > 0 {
            advice.push("`hookledger disputes list` shows what a person must decide".to_owned());
        }
        if self.failed > 0 {
            advice.push("`hookledger events list --status failed` says why events are not charged".to_owned());
        }
        if self.dead > 0 {
            advice.push(
                "`hookledger events list --status dead` says why events were given up, and `hookledger events replay` \
                 tries them again"
                    .to_owned(),
            );
        }
        advice
    }
}

fn advice_on(condition: &str) -> Option<&'static str> {
    match condition {
        "rate_invalid" => Some("set UsdToCreditsRate in the table `options` to a decimal above 0, such as 1000"),
        "ambiguous_key" => {
            Some("take the token from all users but one (`hookledger key list`); what waits is then charged")
        }
        "foreign_deductions" => Some(
            "end the platform's own billing: point new-api's webhook_url here alone, and keep its usage sync from being \
             started",
        ),
        "schemas_apart" => {
            Some("run `hookledger repair --dry-run`, then `hookledger repair`; what waits is then settled")
        }
        "logging_off" => Some("switch the option LogConsumeEnabled on in new-api, so that lost events are found"),
        "filter_ignored" => Some("update new-api: it answers rows that were not asked for, so nothing is read"),
        "ids_restarted" => Some("find out who emptied or restored new-api's log; nothing is charged twice by it"),
        "clock_skew" => Some("set the clocks of new-api's machine and of this one by NTP"),
        "quota_per_unit_changed" => Some(
            "look up when QuotaPerUnit was changed in new-api, and name the second: `hookledger prices quota-changed`",
        ),
        "rows_deleted" => Some("find out who deletes rows of new-api's log; what was charged stays charged"),
        "events_missing" => Some("compare webhook_url and webhook_secret in new-api with what stands here"),
        "channels_disagree" => {
            Some("compare events with new-api's log: a sender may round prices, rename models or stamp other times")
        }
        "price_differs" => Some("find out why events state other prices than new-api's log, whose prices count"),
        "token_refused" => Some("set newapi.access_token and newapi.user_id to those of an administrator of new-api"),
        "not_new_api" => Some("set newapi.base_url to where new-api itself answers"),
        "source_changed" => Some(
            "if another new-api is meant, give it a name of its own in newapi.source; else point newapi.base_url back",
        ),
        _ => None,
    }
}
