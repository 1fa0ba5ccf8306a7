//! Every metric: its name, what it means, and the only functions that move it.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::labels;
use crate::domain::channel::ChannelState;
use crate::gateway::{self, Endpoint, RequestStatus};
use crate::storage::noticed::Moved;
use crate::storage::{DiskUsage, InboxCounts, OldRows};

const WEBHOOK_REQUESTS: &str = "hookledger_webhook_requests_total";
const WEBHOOK_DURATION: &str = "hookledger_webhook_duration_seconds";
const SETTLEMENTS: &str = "hookledger_ledger_settlements_total";
const CREDITS: &str = "hookledger_ledger_credits_total";
const BATCH_SIZE: &str = "hookledger_ledger_batch_size";
const COMMIT_DURATION: &str = "hookledger_ledger_commit_duration_seconds";
const UNPAID_CREDITS: &str = "hookledger_ledger_unpaid_credits";
const EVENTS: &str = "hookledger_events";
const OLDEST_PENDING_AGE: &str = "hookledger_oldest_pending_age_seconds";
const PARKED_TOKENS: &str = "hookledger_parked_tokens";
const DISPUTES_OPEN: &str = "hookledger_disputes_open";
const REFUNDS_OPEN: &str = "hookledger_refunds_open";
const POLL_ROWS: &str = "hookledger_poll_rows_total";
const POLL_RUNS: &str = "hookledger_poll_runs_total";
const POLL_DURATION: &str = "hookledger_poll_duration_seconds";
const COVERAGE: &str = "hookledger_coverage_timestamp_seconds";
const COVERAGE_READ: &str = "hookledger_coverage_read_timestamp_seconds";
const SOURCE_CONDITION: &str = "hookledger_source_condition";
const ACTOR_UP: &str = "hookledger_actor_up";
const ACTOR_RESTARTS: &str = "hookledger_actor_restarts_total";
const HUNG_THREADS: &str = "hookledger_actor_hung_threads";
const PROGRESS_AGE: &str = "hookledger_actor_progress_age_seconds";
const GIVE_UPS: &str = "hookledger_supervisor_give_ups";
const MAILBOX_DEPTH: &str = "hookledger_actor_mailbox_depth";
const BALANCE_REQUESTS: &str = "hookledger_balance_requests_total";
const BALANCE_DURATION: &str = "hookledger_balance_duration_seconds";
const RATE_LIMIT_SOURCES: &str = "hookledger_rate_limit_sources";
const REMOVED_ROWS: &str = "hookledger_retention_removed_rows_total";
const LAST_EVENT: &str = "hookledger_channel_last_event_timestamp_seconds";
const CHANNEL_STATE: &str = "hookledger_channel_state";
const RELOADS: &str = "hookledger_config_reloads_total";
const RELOAD_SUCCESSFUL: &str = "hookledger_config_last_reload_successful";
const RELOADED_AT: &str = "hookledger_config_last_reload_timestamp_seconds";
const DATABASE_SIZE: &str = "hookledger_database_size_bytes";
const DATABASE_FREE: &str = "hookledger_database_free_bytes";
const NEWAPI_REQUESTS: &str = gateway::REQUESTS;
const BUILD_INFO: &str = "hookledger_build_info";

/// Seconds: from below one commit on a fast disk to the longest wait for an answer.
const DURATION_BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0];
/// Seconds: from one quiet look to the reading of months.
const POLL_BUCKETS: [f64; 10] = [0.05, 0.25, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0];
const BATCH_BUCKETS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Renders and keeps up the metrics of this process.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Metrics {
    /// Installs the recorder; a process has one.
    pub fn install() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".to_owned()), &DURATION_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full(POLL_DURATION.to_owned()), &POLL_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full(BATCH_SIZE.to_owned()), &BATCH_BUCKETS)?
            .build_recorder();
        let handle = recorder.handle();
        // Another recorder in this process can only be an earlier one of ours (a test): its numbers go on.
        metrics::set_global_recorder(recorder).ok();
        describe();
        begin_at_zero();
        let process = metrics_process::Collector::default();
        process.describe();
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(Metrics { handle, process })
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }

    /// Folds histogram samples together; without this they pile up while nobody scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn describe() {
    describe_counter!(WEBHOOK_REQUESTS, "Webhook requests by what became of them.");
    describe_histogram!(WEBHOOK_DURATION, Unit::Seconds, "From a webhook's arrival to its answer.");
    describe_counter!(SETTLEMENTS, "Settled events and rows of new-api's log, by the channel and the outcome.");
    describe_counter!(CREDITS, "Whole credits moved, by type of transaction.");
    describe_histogram!(BATCH_SIZE, "Events settled in one commit.");
    describe_histogram!(COMMIT_DURATION, Unit::Seconds, "From handing a batch to the database to its durable commit.");
    describe_gauge!(UNPAID_CREDITS, "Credits not deducted for want of balance; aggregate with max().");
    describe_gauge!(EVENTS, "Events in the inbox that are not settled, by status; aggregate with max().");
    describe_gauge!(OLDEST_PENDING_AGE, Unit::Seconds, "Age of the oldest pending event; aggregate with max().");
    describe_gauge!(PARKED_TOKENS, "Tokens without a key that have waiting events; aggregate with max().");
    describe_gauge!(DISPUTES_OPEN, "Events and rows that a person must decide; aggregate with max().");
    describe_gauge!(REFUNDS_OPEN, "Refunds in new-api's log without a charge; aggregate with max().");
    describe_gauge!(SOURCE_CONDITION, "1 while a named condition holds that someone should look at.");
    describe_counter!(POLL_ROWS, "Rows of new-api's log that were read, by what became of them.");
    describe_counter!(POLL_RUNS, "Passes over new-api's log, by how they ended.");
    describe_histogram!(POLL_DURATION, Unit::Seconds, "How long a pass over new-api's log took.");
    describe_gauge!(
        COVERAGE,
        Unit::Seconds,
        "Up to when new-api's log was read or proved by its figures, Unix time; aggregate with max()."
    );
    describe_gauge!(
        COVERAGE_READ,
        Unit::Seconds,
        "Up to when new-api's log was read row by row, Unix time; aggregate with max()."
    );
    describe_gauge!(ACTOR_UP, "1 while the actor runs.");
    describe_counter!(ACTOR_RESTARTS, "Restarts of an actor by cause.");
    describe_gauge!(HUNG_THREADS, "Threads of an actor that were given up as hung, and have not ended.");
    describe_gauge!(
        PROGRESS_AGE,
        Unit::Seconds,
        "Since an actor's last progress; waiting for the database or new-api within its deadline does not count."
    );
    describe_gauge!(GIVE_UPS, "How often in a row the supervisor gave up before this start.");
    describe_gauge!(MAILBOX_DEPTH, "Messages that wait for the actor.");
    describe_counter!(BALANCE_REQUESTS, "Balance questions by what was answered.");
    describe_histogram!(BALANCE_DURATION, Unit::Seconds, "From a balance question's arrival to its answer.");
    describe_gauge!(RATE_LIMIT_SOURCES, "Source addresses that the rate limits remember.");
    describe_counter!(REMOVED_ROWS, "Rows that were cleared because they were old, by what they were.");
    describe_gauge!(
        LAST_EVENT,
        Unit::Seconds,
        "When the newest authentic usage event arrived, Unix time; absent until one did."
    );
    describe_gauge!(CHANNEL_STATE, "1 for what the event channel is now: healthy, idle, stale, disabled or pull.");
    describe_counter!(RELOADS, "Reloads of the configuration by what became of them.");
    describe_gauge!(RELOAD_SUCCESSFUL, "1 unless the last reload was refused and an earlier configuration holds.");
    describe_gauge!(RELOADED_AT, Unit::Seconds, "When the configuration in force was read, Unix time.");
    describe_gauge!(DATABASE_SIZE, Unit::Bytes, "The database file and its write-ahead log; aggregate with max().");
    describe_gauge!(DATABASE_FREE, Unit::Bytes, "Free space where the database lies; aggregate with max().");
    describe_counter!(
        NEWAPI_REQUESTS,
        "Requests to new-api by what was asked and what became of it; a retry is one more."
    );
    describe_gauge!(BUILD_INFO, "1, with the version as a label.");
}

/// Rows of the log came to this.
pub fn rows_settled(result: &'static str, count: u64) {
    labels::check(result, &labels::ROW_RESULTS);
    counter!(POLL_ROWS, "result" => result).increment(count);
}

/// A pass over the log ended.
pub fn pass_ended(outcome: &'static str, duration: Duration) {
    labels::check(outcome, &labels::PASS_OUTCOMES);
    counter!(POLL_RUNS, "outcome" => outcome).increment(1);
    histogram!(POLL_DURATION).record(duration.as_secs_f64());
}

/// How far the log is known, in Unix seconds. There is no series before the first pass.
pub fn coverage_is(covered_until: i64, read_until: i64) {
    gauge!(COVERAGE).set(covered_until as f64);
    gauge!(COVERAGE_READ).set(read_until as f64);
}

/// Nobody reads the log any more: how far it was known is no number from here on, so that no alert waits for it.
pub fn coverage_rests() {
    gauge!(COVERAGE).set(f64::NAN);
    gauge!(COVERAGE_READ).set(f64::NAN);
}

/// A counter that appears with its first event has no increase that an alert could see: each is there from the start.
fn begin_at_zero() {
    for outcome in labels::WEBHOOK_OUTCOMES {
        counter!(WEBHOOK_REQUESTS, "outcome" => outcome).increment(0);
    }
    for (source, outcome) in labels::SETTLEMENT_SOURCES
        .into_iter()
        .flat_map(|source| labels::SETTLEMENT_OUTCOMES.map(|outcome| (source, outcome)))
    {
        settled_from(source, outcome, 0);
    }
    for result in labels::ROW_RESULTS {
        rows_settled(result, 0);
    }
    for outcome in labels::PASS_OUTCOMES {
        counter!(POLL_RUNS, "outcome" => outcome).increment(0);
    }
    for outcome in labels::BALANCE_OUTCOMES {
        counter!(BALANCE_REQUESTS, "outcome" => outcome).increment(0);
    }
    for (actor, cause) in
        labels::SUPERVISED_ACTORS.into_iter().flat_map(|actor| labels::CAUSES.map(|cause| (actor, cause)))
    {
        counter!(ACTOR_RESTARTS, "actor" => actor, "cause" => cause).increment(0);
    }
    labels::SUPERVISED_ACTORS.into_iter().for_each(|actor| threads_hang(actor, 0));
    for kind in labels::TRANSACTION_KINDS {
        credits_moved(kind, 0);
    }
    for table in OldRows::ALL {
        rows_removed(table.as_str(), 0);
    }
    for (endpoint, status) in
        Endpoint::ALL.into_iter().flat_map(|endpoint| RequestStatus::ALL.map(|status| (endpoint, status)))
    {
        counter!(NEWAPI_REQUESTS, "endpoint" => endpoint.as_str(), "status" => status.as_str()).increment(0);
    }
    for outcome in labels::RELOAD_OUTCOMES {
        counter!(RELOADS, "outcome" => outcome).increment(0);
    }
}

/// The configuration was read at the start, or anew, and holds.
pub fn configuration_in_force(at_secs: i64) {
    gauge!(RELOAD_SUCCESSFUL).set(1.0);
    gauge!(RELOADED_AT).set(at_secs as f64);
}

pub fn reload_applied() {
    counter!(RELOADS, "outcome" => "applied").increment(1);
}

pub fn reload_refused() {
    gauge!(RELOAD_SUCCESSFUL).set(0.0);
    counter!(RELOADS, "outcome" => "refused").increment(1);
}

pub fn webhook_answered(outcome: &'static str, took: Duration) {
    labels::check(outcome, &labels::WEBHOOK_OUTCOMES);
    counter!(WEBHOOK_REQUESTS, "outcome" => outcome).increment(1);
    histogram!(WEBHOOK_DURATION).record(took);
}

pub fn balance_answered(outcome: &'static str, took: Duration) {
    labels::check(outcome, &labels::BALANCE_OUTCOMES);
    counter!(BALANCE_REQUESTS, "outcome" => outcome).increment(1);
    histogram!(BALANCE_DURATION).record(took);
}

/// 1 for this state, 0 for all others.
pub fn channel_is(state: ChannelState) {
    for each in ChannelState::ALL {
        gauge!(CHANNEL_STATE, "state" => each.as_str()).set(if each == state { 1.0 } else { 0.0 });
    }
}

/// There is no series before the first event, so that an alert on its age has nothing to be wrong about.
pub fn usage_event_arrived(at_secs: i64) {
    gauge!(LAST_EVENT).set(at_secs as f64);
}

pub fn batch_committed(size: usize, took: Duration) {
    histogram!(BATCH_SIZE).record(size as f64);
    histogram!(COMMIT_DURATION).record(took);
}

/// `count` events of one batch had this outcome.
pub fn settled(outcome: &'static str, count: u64) {
    settled_from("webhook", outcome, count);
}

/// The same for rows of the log.
pub fn settled_by_log(outcome: &'static str, count: u64) {
    settled_from("log", outcome, count);
}

fn settled_from(source: &'static str, outcome: &'static str, count: u64) {
    labels::check(source, &labels::SETTLEMENT_SOURCES);
    labels::check(outcome, &labels::SETTLEMENT_OUTCOMES);
    counter!(SETTLEMENTS, "source" => source, "outcome" => outcome).increment(count);
}

/// What settlements moved since this was last told.
pub fn moved(moved: Moved) {
    for (kind, credits) in [("DEDUCT", moved.deducted), ("REFUND", moved.refunded)] {
        if credits > 0 {
            credits_moved(kind, credits);
        }
    }
}

/// Whole credits that a transaction of this type moved, whichever way.
pub fn credits_moved(kind: &'static str, credits: u64) {
    labels::check(kind, &labels::TRANSACTION_KINDS);
    counter!(CREDITS, "type" => kind).increment(credits);
}

pub fn inbox_counted(counts: &InboxCounts, oldest_pending_age: Duration) {
    gauge!(EVENTS, "status" => "pending").set(counts.pending as f64);
    gauge!(EVENTS, "status" => "failed").set(counts.failed as f64);
    gauge!(EVENTS, "status" => "dead").set(counts.dead as f64);
    gauge!(OLDEST_PENDING_AGE).set(oldest_pending_age.as_secs_f64());
    gauge!(UNPAID_CREDITS).set(counts.unpaid_credits as f64);
    gauge!(PARKED_TOKENS).set(counts.parked_tokens as f64);
    gauge!(DISPUTES_OPEN).set(counts.disputes_open as f64);
    gauge!(REFUNDS_OPEN).set(counts.refunds_open as f64);
}

/// `count` old rows of a kind were cleared.
pub fn rows_removed(kind: &'static str, count: u64) {
    counter!(REMOVED_ROWS, "kind" => kind).increment(count);
}

pub fn condition(name: &'static str, holds: bool) {
    gauge!(SOURCE_CONDITION, "condition" => name).set(if holds { 1.0 } else { 0.0 });
}

pub fn actor_is_up(actor: &'static str, is_up: bool) {
    gauge!(ACTOR_UP, "actor" => actor).set(if is_up { 1.0 } else { 0.0 });
}

pub fn actor_restarted(actor: &'static str, cause: &'static str) {
    labels::check(actor, &labels::SUPERVISED_ACTORS);
    labels::check(cause, &labels::CAUSES);
    counter!(ACTOR_RESTARTS, "actor" => actor, "cause" => cause).increment(1);
}

pub fn threads_hang(actor: &'static str, count: usize) {
    labels::check(actor, &labels::SUPERVISED_ACTORS);
    gauge!(HUNG_THREADS, "actor" => actor).set(count as f64);
}

pub fn progress_age(actor: &'static str, age: Duration) {
    gauge!(PROGRESS_AGE, "actor" => actor).set(age.as_secs_f64());
}

/// Before this start, one after another.
pub fn gave_up(times: u32) {
    gauge!(GIVE_UPS).set(f64::from(times));
}

pub fn mailbox_depth(actor: &'static str, depth: usize) {
    gauge!(MAILBOX_DEPTH, "actor" => actor).set(depth as f64);
}

pub fn rate_limit_sources(count: usize) {
    gauge!(RATE_LIMIT_SOURCES).set(count as f64);
}

pub fn disk_measured(usage: DiskUsage) {
    gauge!(DATABASE_SIZE).set(usage.size_bytes as f64);
    if let Some(free_bytes) = usage.free_bytes {
        gauge!(DATABASE_FREE).set(free_bytes as f64);
    }
}
