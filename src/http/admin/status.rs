//! `/admin/v1/status`: gathers what the daemon last saw of itself. All of it lies in memory: it asks no actor, and waits
//! for no write.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actix_web::web;

use super::AdminState;
use super::refusal::Refusal;
use super::request::{NoQuery, Query};
use crate::actors::ActorName;
use crate::actors::conditions::Held;
use crate::actors::guard::Cause;
use crate::actors::lives::Life;
use crate::actors::observed::{Counted, LogReading};
use crate::actors::polling::SourceLook;
use crate::domain::channel::ChannelState;
use crate::domain::time::UnixMillis;
use crate::status::{
    ActorState, ActorStatus, BacklogStatus, ChannelName, ChannelStatus, ConditionStatus, CoverageStatus,
    DatabaseStatus, ListenerStatus, SourceStatus, Status, TakingOverStatus, WebhookStatus,
};
use crate::storage::takeover::TakenOver;

/// Tells how the daemon does: channel, conditions, actors, backlog.
#[utoipa::path(get, path = "/admin/v1/status", operation_id = "showStatus", tag = "about",
    responses((status = 200, description = "How the daemon does.", body = Status), Refusal))]
pub async fn show(state: web::Data<AdminState>, _: Query<NoQuery>) -> Result<web::Json<Status>, Refusal> {
    Ok(web::Json(gather(&state)))
}

/// How the daemon does, as it last saw itself.
pub fn gather(state: &AdminState) -> Status {
    let (http, observed, now) = (&state.http, &state.observed, state.http.clock.now());
    let why_not = http.why_not_ready();
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at: state.started_at.to_rfc3339(),
        uptime_secs: now.since(state.started_at).as_secs(),
        database: database(state),
        webhook: WebhookStatus { enabled: http.is_webhook_enabled(), ready: why_not.is_none(), why_not },
        channel: channel(state, now),
        source: state.polling.look().map(|look| source(look, &observed.reading())),
        coverage: observed.reading().coverage.map(|coverage| {
            let moment = |second: i64| UnixMillis::new(second.saturating_mul(1000));
            CoverageStatus {
                begins: moment(coverage.begins).to_rfc3339(),
                covered_until: moment(coverage.covered_until).to_rfc3339(),
                read_until: moment(coverage.read_until).to_rfc3339(),
                behind_secs: now.since(moment(coverage.covered_until)).as_secs(),
            }
        }),
        conditions: observed.conditions.held().into_iter().map(condition).collect(),
        actors: actors(state),
        backlog: observed.counted().map(|counted| backlog(counted, now)),
        taking_over: observed.takeover().map(taking_over),
        listeners: listeners(state),
        to_do: Vec::new(),
    };
    status.to_do = status.advice();
    status
}

fn database(state: &AdminState) -> DatabaseStatus {
    let writable = state.store.is_writable();
    let problem = || state.observed.database_problem().unwrap_or_else(|| "the last write failed".to_owned());
    DatabaseStatus { url: state.database_url.clone(), writable, problem: (!writable).then(problem) }
}

fn channel(state: &AdminState, now: UnixMillis) -> ChannelStatus {
    let channel = &state.observed.channel;
    let look = channel.judge(state.http.is_webhook_enabled(), now);
    ChannelStatus {
        state: match look.state {
            ChannelState::Healthy => ChannelName::Healthy,
            ChannelState::Idle => ChannelName::Idle,
            ChannelState::Stale => ChannelName::Stale,
            ChannelState::Disabled => ChannelName::Disabled,
            ChannelState::Pull => ChannelName::Pull,
        },
        since: look.since.to_rfc3339(),
        last_event_at: channel.last_event_at().map(UnixMillis::to_rfc3339),
    }
}

fn source(look: SourceLook, reading: &LogReading) -> SourceStatus {
    SourceStatus {
        name: look.name,
        read: look.is_read,
        version: look.version,
        quota_per_unit: look.quota_per_unit,
        clock_ahead_secs: look.clock_ahead_secs,
        out_of_reach_since: look.out_of_reach_since.map(UnixMillis::to_rfc3339),
        last_pass_at: reading.last_pass_at.map(UnixMillis::to_rfc3339),
        last_failure_at: reading.last_failure.as_ref().map(|(at, _)| at.to_rfc3339()),
        last_failure: reading.last_failure.as_ref().map(|(_, why)| why.clone()),
    }
}

fn condition(held: Held) -> ConditionStatus {
    ConditionStatus {
        name: held.condition.as_str().to_owned(),
        first_seen: held.first_seen.to_rfc3339(),
        last_seen: held.last_seen.to_rfc3339(),
        message: held.sentence,
    }
}

fn actors(state: &AdminState) -> Vec<ActorStatus> {
    let ages = state.progress.ages(Instant::now());
    let age_of =
        |actor: ActorName| ages.iter().find(|(name, _)| *name == actor).map_or(Duration::ZERO, |(_, age)| *age);
    state.observed.lives.all().into_iter().map(|life| actor(age_of(life.actor), life)).collect()
}

fn actor(age: Duration, life: Life) -> ActorStatus {
    let by_cause = Cause::ALL.map(|cause| (cause.as_str().to_owned(), life.ends[cause as usize]));
    let (cause, ended_at, error) = match life.last_end {
        Some(end) => (Some(end.cause.as_str().to_owned()), Some(end.at.to_rfc3339()), end.error),
        None => (None, None, None),
    };
    ActorStatus {
        name: life.actor.as_str().to_owned(),
        state: if life.is_up { ActorState::Running } else { ActorState::Restarting },
        up: life.is_up,
        progress_age_secs: age.as_secs(),
        hung_threads: life.hung_threads as u64,
        restarts: life.ends.iter().sum(),
        restarts_by_cause: BTreeMap::from(by_cause),
        last_cause: cause,
        last_ended_at: ended_at,
        last_error: error,
    }
}

fn backlog(counted: Counted, now: UnixMillis) -> BacklogStatus {
    let counts = counted.counts;
    BacklogStatus {
        pending: counts.pending,
        failed: counts.failed,
        dead: counts.dead,
        oldest_pending_age_secs: counts
            .oldest_pending_at
            .map(|oldest| now.since(oldest))
            .as_ref()
            .map(Duration::as_secs),
        parked_tokens: counts.parked_tokens,
        disputes_open: counts.disputes_open,
        refunds_open: counts.refunds_open,
        unpaid_credits: counts.unpaid_credits,
        counted_at: counted.at.to_rfc3339(),
    }
}

fn taking_over(found: TakenOver) -> TakingOverStatus {
    TakingOverStatus { at: found.taken_over_at.to_rfc3339(), adopted_records: found.adopted }
}

/// Without addresses for the moment between the first listener and the last.
fn listeners(state: &AdminState) -> ListenerStatus {
    let bound = state.listeners.get().cloned().unwrap_or_default();
    ListenerStatus {
        server: bound.server,
        metrics: bound.metrics,
        admin_socket: bound.admin_socket,
        admin_on_server: state.http.policy.get().admin_token.is_some(),
    }
}
